"""Reproduce: a recorded training run again gives the same bytes, or says how far it is off and what changed."""

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import skops.io
from pinmill.board import Board
from pinmill.errors import RunError
from pinmill.project import Project
from pinmill.reproduce import find_recorded

TRUSTED = ["scipy.sparse._csr.csr_matrix", "builtins.frozenset", "numpy.dtype"]


def hash_tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def edit_executed(root: Path, workflow: str, old: str, new: str) -> None:
    """Replace `old` in the notebook of the training as the only run executed it."""
    (path,) = (root / "outputs/runs" / workflow).glob("2*/02-train.ipynb")
    notebook = json.loads(path.read_text())
    found = [cell for cell in notebook["cells"] if old in "".join(cell["source"])]
    assert len(found) == 1
    found[0]["source"] = "".join(found[0]["source"]).replace(old, new)
    path.write_text(json.dumps(notebook))


def only_version(root: Path, name: str) -> str:
    (folder,) = (root / "outputs/pins" / name).iterdir()
    return folder.name


def load_only(root: Path):
    """The model that stands alone on the board of a project, by skops itself."""
    (path,) = root.glob("outputs/pins/tiny-model/*/model.skops")
    return skops.io.load(path, trusted=TRUSTED)


def test_the_champion_comes_out_as_the_same_bytes_and_nothing_of_the_project_is_touched(trained, tmp_path) -> None:
    before, scratch = hash_tree(trained.root), tmp_path / "scratch"
    scratch.mkdir()
    board = str(trained.root / "outputs/pins")  # also when the board is set by name
    done = trained.pinmill("reproduce", "tiny", "--json", TMPDIR=str(scratch), PINMILL_BOARD=board)
    (model,) = (trained.root / "outputs/pins/tiny-model").iterdir()
    digest = hashlib.sha256((model / "model.skops").read_bytes()).hexdigest()
    (record,) = trained.root.glob("outputs/runs/tiny/2*/run.json")
    assert json.loads(done.stdout) == {
        "workflow": "tiny", "version": model.name, "run": record.parent.name, "ran": "02-train", "same": True,
        "sha256": {"recorded": digest, "again": digest}, "difference": None, "changes": [], "notebook_now": "the same",
        "kept": None,
    }  # fmt: skip
    assert hash_tree(trained.root) == before
    assert list(scratch.iterdir()) == []


def test_another_model_is_told_with_the_largest_difference_and_what_changed(trained, tmp_path) -> None:
    edit_executed(trained.root, "tiny", "LogisticRegression(C=10,", "LogisticRegression(C=0.01,")
    (trained.root / "requirements.lock").write_text("numpy==1\n")
    trained.edit("02-train", "LogisticRegression(C=10,", "LogisticRegression(C=2,")
    version = only_version(trained.root, "tiny-model")
    words = ("reproduce", "tiny", version[-5:], "--keep", "--json")
    found = json.loads(trained.pinmill(*words, code=1, TMPDIR=str(tmp_path), OMP_NUM_THREADS="1").stdout)
    kept = Path(found["kept"])
    old, new = load_only(trained.root), load_only(kept)
    assert (old["logisticregression"].C, new["logisticregression"].C) == (10, 0.01)
    (parquet,) = trained.root.glob("outputs/pins/tiny-data/*/tiny-data.parquet")
    data = pd.read_parquet(parquet)
    texts = data.loc[data["_part"] == "test", ["text"]]
    largest = abs(old.predict_proba(texts) - new.predict_proba(texts)).max()
    changed = int((old.predict(texts) != new.predict(texts)).sum())
    assert found["difference"] == {"n": len(texts), "changed": changed, "largest": largest, "problem": None}
    assert largest > 0.1
    assert {"code", "lock", "blas"} <= {change["what"] for change in found["changes"]}
    assert (found["same"], found["notebook_now"]) == (False, "changed or gone")
    again = kept / "outputs/pins/tiny-data" / parquet.parent.name
    assert sorted(hash_tree(again).values()) == sorted(hash_tree(parquet.parent).values())


def test_a_difference_that_cannot_be_measured_says_why(small_trained) -> None:
    edit_executed(small_trained.root, "small", "{'sum': sum(", "{'sum': 1 + sum(")
    shown = small_trained.pinmill("reproduce", "small", code=1).stdout
    assert f"small {only_version(small_trained.root, 'small-model')}: another model" in shown
    assert "difference" in shown, shown
    assert "DataError: small-data/" in shown, shown


def test_a_notebook_that_fails_is_an_error_and_leaves_nothing(small_trained, tmp_path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    edit_executed(small_trained.root, "small", "{'sum': sum(", "{'sum': 1 / 0 + sum(")
    done = small_trained.pinmill("reproduce", "small", code=4, TMPDIR=str(scratch))
    assert "RunError: 02-train failed in the scratch project" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert done.stderr.rstrip().endswith("The scratch project is removed. Keep it, to look into it, with --keep")
    assert "executed notebook is kept" not in done.stderr
    assert list(scratch.iterdir()) == []


def test_a_failed_notebook_that_is_kept_is_where_the_error_says(small_trained, tmp_path) -> None:
    edit_executed(small_trained.root, "small", "{'sum': sum(", "{'sum': 1 / 0 + sum(")
    done = small_trained.pinmill("reproduce", "small", "--keep", code=4, TMPDIR=str(tmp_path))
    named = done.stderr.rpartition("The executed notebook is kept: ")[2].strip().removesuffix(".")
    assert "ZeroDivisionError" in Path(named).read_text()


def test_modules_of_the_project_are_imported_and_one_that_changed_is_named(small) -> None:
    small.edit("02-train", "n**power for", "powers.raised(n) for")
    small.edit("02-train", "def hold()", "import powers\n\ndef hold()")
    module = small.root / "powers.py"
    module.write_text("def raised(n):\n    return n\n")
    small.pinmill("run", "small")
    found = small.json("reproduce", "small")
    assert (found["same"], found["changes"]) == (True, [])
    before = hashlib.sha256(module.read_bytes()).hexdigest()
    module.write_text("def raised(n):\n    return n**2\n")
    now = hashlib.sha256(module.read_bytes()).hexdigest()
    found = json.loads(small.pinmill("reproduce", "small", "--json", code=1).stdout)
    assert found["changes"] == [{"what": "module powers.py", "before": before, "now": now}]


def test_all_that_is_gone_or_damaged_is_told_at_once(small_trained) -> None:
    root = small_trained.root
    version, data = (only_version(root, f"small-{kind}") for kind in ("model", "data"))
    (root / "outputs/pins/small-data" / data / "small-data.json").write_text("[9]")
    (folder,) = (root / "outputs/runs/small").glob("2*")
    shutil.rmtree(folder)
    with pytest.raises(RunError) as caught:
        find_recorded(Project(root, {}), "small", version)
    said = str(caught.value)
    assert said.startswith(f"3 problems in what small-model {version} was made from: input small-data: ")
    assert f"the executed notebook outputs/runs/small/{folder.name}/02-train.ipynb is gone; no run" in said
    assert said.endswith("or train a new version: pinmill run small --from train")


def test_an_input_outside_the_board_and_a_model_trained_by_hand_cannot_be_made_again(tmp_path: Path) -> None:
    board, project = Board(tmp_path / "outputs/pins"), Project(tmp_path, {})
    source = {"kind": "source", "name": "x.csv", "version": None, "sha256": "00"}
    run = board.write_json("w-model", 1, facts={}, lineage={"run": "r", "stage": "02-train", "inputs": [source]})
    hand = board.write_json("w-model", 2, facts={}, lineage={"run": "adhoc-r", "stage": "02-train", "inputs": []})
    with pytest.raises(RunError, match=r"input x\.csv: it lies outside the board"):
        find_recorded(project, "w", run.version)
    with pytest.raises(RunError, match="was trained by hand"):
        find_recorded(project, "w", hand.version)
