"""The project a command or notebook works in; and that the command stays quick."""

import subprocess
import sys
from pathlib import Path

import pytest
from pinmill.errors import ProjectError
from pinmill.project import Project, find_root, open_project, read_settings

HEAVY = {
    "pandas", "numpy", "scipy", "sklearn", "pyarrow", "papermill", "nbformat", "nbclient", "nbconvert", "matplotlib",
    "IPython", "ipykernel", "jupyter_client", "zmq", "sqlalchemy", "httpx", "skops", "pins", "fsspec", "rich", "dotenv",
    "psutil", "requests", "jinja2",
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("params", "notebooks", "notebooks/deep/er"):
        (tmp_path / "project" / name).mkdir(parents=True, exist_ok=True)
    return tmp_path / "project"


def test_the_root_is_found_from_anywhere_inside(root: Path) -> None:
    for start in (root, root / "notebooks", root / "notebooks/deep/er"):
        assert find_root(start, {}) == root


def test_the_nearest_project_counts(root: Path) -> None:
    inner = root / "inner"
    for name in ("params", "notebooks"):
        (inner / name).mkdir(parents=True)
    assert find_root(inner / "params", {}) == inner


def test_pinmill_home_counts_more_than_where_one_is(root: Path, tmp_path: Path) -> None:
    assert find_root(tmp_path, {"PINMILL_HOME": str(root)}) == root
    with pytest.raises(ProjectError, match=f"no project at PINMILL_HOME={tmp_path}:"):
        find_root(root, {"PINMILL_HOME": str(tmp_path)})


def test_outside_a_project_the_error_says_what_was_expected(root: Path, tmp_path: Path) -> None:
    (tmp_path / "params").mkdir()
    with pytest.raises(ProjectError) as caught:
        find_root(tmp_path, {})
    assert str(caught.value) == (
        f"no project at {tmp_path} or a folder above it: a folder with params/ and notebooks/ was expected. "
        "Change into the project, or set PINMILL_HOME to it."
    )
    assert caught.value.exit_code == 2


def test_the_environment_counts_more_than_the_env_file(root: Path) -> None:
    (root / ".env").write_text("A=file\nB='quoted value'\n# C=comment\nexport D=exported\nEMPTY=\nNAKED\n")
    assert read_settings(root, {"A": "environment"}) == {
        "A": "environment", "B": "quoted value", "D": "exported", "EMPTY": "",
    }  # fmt: skip


def test_without_an_env_file_the_settings_are_the_environment(root: Path) -> None:
    assert read_settings(root, {"A": "1"}) == {"A": "1"}


def test_everything_lies_below_the_root(root: Path) -> None:
    project = open_project(root / "notebooks", {})
    assert project == Project(root, {})
    assert [project.relative(path) for path in (
        project.notebooks, project.outputs, project.pages, project.lock_file, project.params_file("spam"),
        project.runs_folder("spam"), project.pages_folder("spam"), project.run_lock("spam", "train"),
    )] == [
        "notebooks", "outputs", "reports/_pages", "requirements.lock", "params/spam.yaml", "outputs/runs/spam",
        "reports/_pages/spam", "outputs/locks/spam.train.lock",
    ]  # fmt: skip
    assert project.relative(Path("/elsewhere/x")) == "/elsewhere/x"


def test_the_board_is_a_folder_of_the_project_or_what_the_setting_says(root: Path, tmp_path: Path) -> None:
    assert str(Project(root, {}).board.url) == str(root / "outputs/pins")
    assert str(Project(root, {"PINMILL_BOARD": "other/pins"}).board.url) == str(root / "other/pins")
    assert str(Project(root, {"PINMILL_BOARD": str(tmp_path / "far")}).board.url) == str(tmp_path / "far")
    assert "memory" in str(Project(root, {"PINMILL_BOARD": "memory://pins"}).board.url)


def test_workflows_are_the_params_files(root: Path) -> None:
    for name in ("spam.yaml", "b.yaml", "notes.txt"):
        (root / "params" / name).touch()
    assert Project(root, {}).workflows() == ["b", "spam"]


def test_nothing_is_made_by_looking(root: Path) -> None:
    project = open_project(root, {})
    project.board.names()
    project.workflows()
    assert sorted(path.name for path in root.iterdir()) == ["notebooks", "params"]


def test_the_command_and_the_runner_import_only_what_is_light() -> None:
    # pandas with scikit-learn takes 3.4 s to import, papermill 2.3: an unchanged run has half a second for everything.
    code = "import sys, pinmill.cli, pinmill.runner; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & HEAVY == set()


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys; old = {*sys.modules}; import pinmill; print(*({*sys.modules} - old))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names == {"pinmill"}


def test_a_project_that_is_shown_does_not_show_its_settings(root: Path) -> None:
    # pins: `run` below a cell wrote PINMILL_TOKEN, and all else of the environment, into the executed notebook
    assert "geheim" not in repr(Project(root, {"PINMILL_TOKEN": "geheim"}))
