"""`pinmill new`: a project of one's own from an installed wheel, made whole or not at all, that runs at once."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pandas
import pytest
import yaml
from pinmill.errors import DataError, ParameterError, ProjectError, SourceError
from pinmill.scaffold import FILES, SITE, make_project, name_workflow, read_table

if TYPE_CHECKING:
    from conftest import Workplace

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy: a build leaves files beside its sources."""
    copy, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("lib", "notebooks", "params", "reports"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*", "_pages", "_site")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.lock", ".env.example"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "."]
    subprocess.run([*command, "-w", target], cwd=copy, check=True)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of another environment: the wheel, and the packages of this one without the checkout."""
    venv = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install", "-q"]
    subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    packages = Path(pandas.__file__).parent.parent
    (site / "packages.pth").write_text(f"{packages}\n")  # a .pth file in that folder, such as ours, is not read
    found = subprocess.run([python, "-c", "import pinmill; print(pinmill.__file__)"], capture_output=True, text=True)
    assert found.stdout.strip() == str(site / "pinmill" / "__init__.py"), found.stderr
    return venv / "bin"


def call(*command: object, cwd: Path, programs: Path, code: int | None = 0) -> subprocess.CompletedProcess:
    """Run a command as somebody would who has activated the environment of `programs`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PINMILL_", "MAKE"))}
    environ = {**kept, "PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=300)
    assert code is None or done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def list_files(root: Path) -> list[str]:
    """Every file below `root`, relative to it."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def make_table(n: int) -> pandas.DataFrame:
    """n rows of a number, a category, a date and a label that follows from the number; the last label is missing."""
    rows = range(n)
    return pandas.DataFrame(
        {
            "amount": [(row * 37 % 100) / 10 for row in rows],
            "plan": ["gold" if row % 3 else "basic" for row in rows],
            "since": [f"2026-{1 + row % 12:02d}-{1 + row % 28:02d}" for row in rows],
            "customer": [f"c{row:05d}" for row in rows],
            "left": ["yes" if row * 37 % 100 > 50 else "no" for row in rows[:-1]] + [None],
        }
    )


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_wheel_holds_each_notebook_as_it_is_in_the_repository(wheel: Path, name: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(f"pinmill/template/notebooks/{name}") == (ROOT / "notebooks" / name).read_bytes()


@pytest.mark.parametrize("name", SITE)
def test_the_wheel_and_a_new_project_hold_the_sources_of_the_website(wheel: Path, tmp_path: Path, name: str) -> None:
    make_project(tmp_path / "demo", None)
    with zipfile.ZipFile(wheel) as archive:
        found = archive.read(f"pinmill/template/{name}")
    assert (found, (tmp_path / "demo" / name).read_bytes()) == ((ROOT / name).read_bytes(),) * 2


def test_the_repository_holds_each_of_these_files_once() -> None:
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-s"], capture_output=True, text=True, check=True).stdout
    blobs = [line.split("\t") for line in listed.splitlines()]
    copied = [path for mode, path in blobs if mode.split()[0] != "120000" and "/template/" in path]
    assert not [path for path in copied if path.endswith((".ipynb", ".lock", ".yaml", ".yml", ".scss"))]


def test_a_project_from_the_wheel_runs_at_once(elsewhere: Path, tmp_path: Path) -> None:
    make_table(150).to_csv(tmp_path / "My Churn (2026).csv", index=False)
    command = ["pinmill", "new", "churn", "--from", "My Churn (2026).csv", "--label", "left"]
    made = call(*command, cwd=tmp_path, programs=elsewhere)
    assert made.stdout == (
        "150 rows, copied to churn/data/my-churn-2026.csv\n"
        "  left out  customer (id: every row has a value of its own: it names the row, and says nothing about the next "
        "one)\n"
        "made churn. Next:\n  cd churn\n  pinmill run my-churn-2026\n  make lab\n"
    )
    notebooks = [f"notebooks/{name}" for name in NOTEBOOKS]
    expected = [*FILES, *notebooks, "data/my-churn-2026.csv", "params/my-churn-2026.yaml"]
    assert list_files(tmp_path / "churn") == sorted(expected)
    assert yaml.safe_load((tmp_path / "churn/params/my-churn-2026.yaml").read_text()) == {
        "workflow": "my-churn-2026",
        "title": "My churn 2026",
        "source": "data/my-churn-2026.csv",
        "label": "left",
        "drop_unlabelled": True,
        "run": {"notebooks": {"train": "notebooks/02-train-tabular.ipynb"}},
    }
    ran = call("make", "run", cwd=tmp_path / "churn", programs=elsewhere)
    assert "my-churn-2026: succeeded (run " in ran.stdout
    again = call("make", "run", "W=my-churn-2026", cwd=tmp_path / "churn", programs=elsewhere)
    assert "nothing changed, so nothing ran" in again.stdout
    checked = call("make", "check", cwd=tmp_path / "churn", programs=elsewhere, code=None)
    assert "kernel python3 starts, computes" in checked.stdout


def test_texts_alone_take_the_notebook_for_texts_and_run(workplace: Workplace, elsewhere: Path, tmp_path: Path) -> None:
    shutil.copy(workplace.root / "tiny.csv", tmp_path / "mails.csv")
    call("pinmill", "new", "mails", "--from", "mails.csv", "--label", "label", cwd=tmp_path, programs=elsewhere)
    params = yaml.safe_load((tmp_path / "mails/params/mails.yaml").read_text())
    assert (params["text"], "run" in params, "features" in params) == (["text"], False, False)
    ran = call("make", "run", cwd=tmp_path / "mails", programs=elsewhere)
    assert "ran 01-prepare, 02-train, 03-evaluate, 04-model-card" in ran.stdout


def test_without_a_table_it_is_the_demonstration(elsewhere: Path, tmp_path: Path) -> None:
    made = call("pinmill", "new", "demo", cwd=tmp_path, programs=elsewhere)
    assert made.stdout == "made demo. Next:\n  cd demo\n  pinmill run docstrings\n  make lab\n"
    assert (tmp_path / "demo/params/docstrings.yaml").read_bytes() == (ROOT / "params/docstrings.yaml").read_bytes()
    assert (tmp_path / "demo/requirements.lock").read_bytes() == (ROOT / "requirements.lock").read_bytes()
    shown = call("pinmill", "params", "docstrings", cwd=tmp_path / "demo", programs=elsewhere)
    assert "pinmill.docstrings:paragraphs" in shown.stdout


def test_no_file_of_a_project_has_a_blank_left_or_a_path_of_this_machine(tmp_path: Path) -> None:
    make_project(tmp_path / "demo", None)
    texts = {name: (tmp_path / "demo" / name).read_text() for name in FILES}
    assert [
        name for name, text in texts.items() if "{workflow}" in text or "{version}" in text or "{title}" in text
    ] == []
    assert [name for name, text in texts.items() if str(ROOT) in text or str(tmp_path) in text] == []


def test_make_venv_wants_the_wheel(tmp_path: Path) -> None:
    make_project(tmp_path / "demo", None)
    done = subprocess.run(
        ["make", "--no-print-directory", "venv"], cwd=tmp_path / "demo", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.partition("=")[0]) == (2, "make venv WHEEL")
    assert not (tmp_path / "demo" / ".venv").exists()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "jsonl", "csv.gz", "csv.zip", "tsv.gz", "zip", "CSV"])
def test_a_table_of_each_format_can_be_read_from_its_copy(tmp_path: Path, suffix: str) -> None:
    frame, file = make_table(60), tmp_path / f"t.{suffix}"
    plain = frame.to_csv(index=False, sep="\t" if suffix.startswith("tsv") else ",").encode()
    if suffix == "parquet":
        frame.to_parquet(file)
    elif suffix == "jsonl":
        frame.to_json(file, orient="records", lines=True)
    elif suffix.endswith("zip"):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("t.csv", plain)
    else:
        file.write_bytes(gzip.compress(plain) if suffix.endswith("gz") else plain)
    table = read_table(file, "left")
    make_project(tmp_path / "project", table)
    copy = tmp_path / "project" / table.params["source"]
    assert (copy.name, copy.read_bytes()) == (f"t.{suffix.lower()}", file.read_bytes())
    assert read_table(copy, "left").params == table.params


def test_texts_beside_other_columns_are_named_apart(tmp_path: Path) -> None:
    frame = make_table(60).assign(note=[f"they wrote to us about matter {row} again" for row in range(60)])
    frame.to_csv(tmp_path / "t.csv", index=False)
    table = read_table(tmp_path / "t.csv", "left")
    assert (table.params["text"], table.params["features"]) == (["note"], ["amount", "plan", "since"])
    assert table.left_out == {"customer": "id"}


def test_a_wrong_label_is_told_with_the_columns_and_nothing_is_made(workplace: Workplace) -> None:
    done = workplace.pinmill("new", "p", "--from", "tiny.csv", "--label", "lable", code=2)
    said = "ParameterError: tiny.csv has no column 'lable'. Did you mean 'label'? Its columns are: text, label\n"
    assert (done.stderr, (workplace.root / "p").exists()) == (said, False)


def test_a_table_and_its_label_go_together(workplace: Workplace) -> None:
    for words in (["--label", "y"], ["--from", "tiny.csv"]):
        assert "go together" in workplace.pinmill("new", "p", *words, code=2).stderr


def test_a_table_that_cannot_be_trained_on_makes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    with pytest.raises(SourceError, match=r"t\.csv is not there"):
        read_table(file, "y")
    file.write_text("x,y\n1,a\n2,a\n3,a\n")
    with pytest.raises(DataError, match="only one class in 'y'"):
        read_table(file, "y")
    file.write_text("x,y\n1,a\n1,b\n1,a\n")
    with pytest.raises(DataError, match="no column beside 'y' says anything: x, y"):
        read_table(file, "y")


def test_a_folder_that_holds_anything_is_refused_untouched(workplace: Workplace) -> None:
    before = list_files(workplace.root)
    for target in ("params", "tiny.csv", "."):
        assert "is not a new or empty folder" in workplace.pinmill("new", target, code=2).stderr
    assert list_files(workplace.root) == before


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    assert make_project(tmp_path / "demo", None) == "docstrings"
    assert (tmp_path / "demo" / "Makefile").is_file()
    with pytest.raises(ProjectError):
        make_project(tmp_path / "demo", None)


def test_a_full_disk_leaves_nothing(workplace: Workplace, small_disk: Path) -> None:
    with (workplace.root / "big.csv").open("w") as file:
        file.write("x,y\n" + "".join(f"{row % 97}.5,{row % 2}\n" for row in range(600_000)))
    done = workplace.pinmill("new", str(small_disk / "p"), "--from", "big.csv", "--label", "y", code=4)
    assert "No space left on device" in done.stderr
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize(
    ("stem", "name"),
    [("tickets", "tickets"), ("Tickets 2026 (new)", "tickets-2026-new"), ("_x_", "x"), ("a" * 60, "a" * 48),
     ("Größe", "gr-e"), ("a.b", "a-b")],
)  # fmt: skip
def test_a_workflow_is_named_after_its_file(stem: str, name: str) -> None:
    assert name_workflow(stem) == name


def test_a_file_without_a_letter_names_no_workflow() -> None:
    with pytest.raises(ParameterError, match="rename the file"):
        name_workflow("年")
