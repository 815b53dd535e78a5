"""What a kernel can know of the notebook it runs."""

import json
import subprocess
from pathlib import Path

import pytest
from pinmill.cell import find_executed, find_stage, match_stage, read_committed_defaults, read_declared, read_names
from pinmill.errors import ProjectError
from pinmill.notebook import Stage, parse_declarations, read_stage

CELL = 'workflow: str = "docstrings"  # workflow\ncv: int = 3  # folds\n'
FRONT = '---\ntitle: T\npinmill: {"job": "train"}\n---'


def write_notebook(path: Path, parameters: str) -> Path:
    cells = [
        {"cell_type": "raw", "source": FRONT, "metadata": {}},
        {"cell_type": "code", "source": parameters, "metadata": {"tags": ["parameters"]}},
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": cells}))
    return path


def git(root: Path, *words: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run(["git", "-C", str(root), *identity, *words], check=True, capture_output=True)


def stage(stem: str, names: str) -> Stage:
    declarations = parse_declarations("".join(f"{name}: int = 1  # m\n" for name in names.split()))
    return Stage(stem.partition("-")[2], Path(f"{stem}.ipynb"), stem, "train", (), (), declarations, ())


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("a = 1\nb = None\nc = {'d': 3}", {"a", "b", "c"}),
        ("a.b = 1\na[0] = 2\nif x:\n    y = 1\ndef f():\n    z = 1", set()),
        ("# Parameters\ncv = 5\ntext = ['a']\n", {"cv", "text"}),
        ("%matplotlib inline\na = 1", set()),
        ("", set()),
    ],
)
def test_names_are_those_that_papermill_s_cell_assigns(source: str, names: set) -> None:
    assert read_names(source) == names


def test_only_a_parameters_cell_declares() -> None:
    assert read_declared(CELL) == {"workflow", "cv"}
    assert read_declared("cv = 3") == read_declared("cv: int = len('abc')  # m") == read_declared("(") == set()


def test_the_parameters_cell_that_was_run_last_counts() -> None:
    history = ["", CELL, "run = 1", 'workflow: str = "spam"  # workflow\nseed: int = 1  # seed\n', "run = 1"]
    assert find_executed(history) == ({"workflow", "seed"}, set())


def test_what_papermill_injects_after_it_is_told_apart() -> None:
    injected = '# Parameters\nworkflow = "spam"\ncv = 5\n'
    assert find_executed(["", CELL, injected, "run"]) == ({"workflow", "cv"}, {"workflow", "cv"})
    assert find_executed(["", CELL, "cv = 5", "run"]) == ({"workflow", "cv"}, set())
    assert find_executed(["", injected, CELL, "run"]) == ({"workflow", "cv"}, set())  # of an earlier round


def test_a_notebook_must_be_run_from_its_top() -> None:
    for history in ([], ["", "run = 1"], ["", 'workflow = "spam"']):
        with pytest.raises(
            ProjectError, match="no parameters cell was run before this one: run the notebook from its top"
        ):
            find_executed(history)


def test_a_kernel_s_stage_is_the_one_whose_parameters_are_most_alike() -> None:
    stages = [stage("01-prepare", "workflow title source split"), stage("02-train", "workflow title cv model")]
    assert match_stage(stages, {"workflow", "title", "cv", "model"}, "").stem == "02-train"
    assert match_stage(stages, {"workflow", "title", "cv", "model", "new"}, "01-prepare").stem == "02-train"
    assert match_stage(stages, {"workflow", "title", "source"}, "02-train").stem == "01-prepare"
    with pytest.raises(ProjectError, match="none of the stages in notebooks/"):
        match_stage(stages, {"workflow", "a", "b", "c", "d"}, "01-prepare")
    with pytest.raises(ProjectError, match="none of the stages"):
        match_stage([], {"workflow"}, "")


def test_the_file_s_name_decides_between_equals() -> None:
    stages = [stage("01-a", "workflow n"), stage("02-b", "workflow n")]
    assert match_stage(stages, {"workflow", "n"}, "02-b").stem == "02-b"
    assert match_stage(stages, {"workflow", "n"}, "01-a").stem == "01-a"


def test_defaults_are_those_of_the_last_commit_so_that_an_edit_that_was_saved_is_seen(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "sub" / "notebooks" / "01-x.ipynb", CELL)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    write_notebook(path, CELL.replace("3", "7") + "new: int = 1  # new\n")
    defaults = read_committed_defaults(read_stage(path), tmp_path / "sub")  # the project may be part of a repository
    assert defaults == {"workflow": "docstrings", "cv": 3, "new": 1}


def test_without_git_or_before_the_first_commit_they_are_the_file_s(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    path = write_notebook(tmp_path / "project" / "notebooks" / "01-x.ipynb", CELL)
    root = tmp_path / "project"
    expected = {"workflow": "docstrings", "cv": 3}
    assert read_committed_defaults(read_stage(path), root) == expected
    git(root, "init", "-q")
    assert read_committed_defaults(read_stage(path), root) == expected
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_committed_defaults(read_stage(path), root) == expected  # no git on this machine


def test_a_stage_is_found_from_the_kernel_s_history(tmp_path: Path) -> None:
    write_notebook(tmp_path / "notebooks" / "01-a.ipynb", CELL)
    write_notebook(tmp_path / "notebooks" / "02-b.ipynb", CELL)
    environ = {"JPY_SESSION_NAME": "/home/ada/project/notebooks/02-b.ipynb"}
    found, injected = find_stage(tmp_path, ["", CELL, "# Parameters\ncv = 2\n"], environ)
    assert (found.stem, injected) == ("02-b", {"cv"})
