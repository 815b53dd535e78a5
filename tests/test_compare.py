"""Compare: two versions on the same rows, against scikit-learn and pandas on what stock tools read."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import skops.io
from pinmill.compare import list_changes, read_comparison
from pinmill.errors import ChampionError, PinNotFoundError
from pinmill.project import Project
from sklearn import metrics as scores

if TYPE_CHECKING:
    from conftest import Workplace

TRUSTED = ["scipy.sparse._csr.csr_matrix", "builtins.frozenset", "numpy.dtype"]
SETTINGS = "{logisticregression__C: 0.001, logisticregression__class_weight: null}"
HOSTILE = "[red]x[/red] :smile: \x1b[31m"


@pytest.fixture(scope="module")
def twice_once(trained_once, tmp_path_factory) -> "Workplace":
    """`tiny`, trained again on other data: 6 texts more, 4 less, 3 labels turned; other parts, other parameters."""
    workplace = trained_once.copy(tmp_path_factory.mktemp("twice") / "project")
    source = workplace.root / "tiny.csv"
    header, *rows = source.read_text().splitlines()
    turned = [row.replace(",spam", ",?").replace(",ham", ",spam").replace(",?", ",ham") for row in rows[:3]]
    added = [f"{HOSTILE} the report is attached thanks {n},{'ham' if n % 2 else 'spam'}" for n in range(6)]
    source.write_text("\n".join([header, *turned, *rows[3:-4], *added]) + "\n")
    workplace.pinmill("run", "tiny", "--set", "seed=7", "--set", f"model={SETTINGS}", code=None)
    return workplace


def versions(root: Path, name: str = "tiny-model") -> tuple[str, str]:
    old, new = sorted(path.name for path in (root / "outputs/pins" / name).iterdir())
    return old, new


def compare(workplace: "Workplace", a: str, b: str, **more) -> dict:
    return read_comparison(Project(workplace.root, {}), "tiny", a, b, **more)


@pytest.fixture(scope="module")
def read(twice_once) -> dict:
    """Both models and data as stock tools read them, and the rows of B's test part that A was not trained on."""
    folder = twice_once.root / "outputs/pins"
    models = [
        skops.io.load(folder / "tiny-model" / v / "model.skops", trusted=TRUSTED) for v in versions(twice_once.root)
    ]
    data = [
        pd.read_parquet(folder / "tiny-data" / v / "tiny-data.parquet") for v in versions(twice_once.root, "tiny-data")
    ]
    seen = set(data[0].loc[data[0]["_part"] == "train", "text"])
    test = data[1][data[1]["_part"] == "test"]
    return {"models": models, "data": data, "test": len(test), "fair": test[~test["text"].isin(seen)]}


def test_scores_are_those_of_scikit_learn_on_the_rows_that_neither_was_trained_on(twice_once, read) -> None:
    found, fair = compare(twice_once, *versions(twice_once.root)), read["fair"]
    truth, spam = fair["label"], fair["label"] == "spam"
    assert 0 < len(fair) < read["test"]
    assert found["n"] == len(fair)
    told = f"{len(fair)} of the {read['test']} test rows of B's data are ones that neither was trained on."
    assert found["note"] == told
    expected = {}
    for side, model in zip(("a", "b"), read["models"], strict=True):
        said, share = model.predict(fair[["text"]]), model.predict_proba(fair[["text"]])[:, 1]
        expected[side] = {
            "roc_auc": scores.roc_auc_score(spam, share),
            "f1": scores.f1_score(truth, said, pos_label="spam"),
            "accuracy": scores.accuracy_score(truth, said),
            "precision": scores.precision_score(truth, said, pos_label="spam"),
            "recall": scores.recall_score(truth, said, pos_label="spam"),
            "average_precision": scores.average_precision_score(spam, share),
            "log_loss": scores.log_loss(spam, share),
            "brier": scores.brier_score_loss(spam, share),
        }
    for side in ("a", "b"):
        assert {row["metric"]: row[side] for row in found["metrics"]} == pytest.approx(expected[side])
    losses = {"log_loss", "brier"}
    better = {n: (expected["b"][n] - expected["a"][n]) * (-1 if n in losses else 1) for n in expected["a"]}
    assert {row["metric"]: row["difference"] for row in found["metrics"]} == pytest.approx(better)


def test_the_interval_is_that_of_the_paired_bootstrap_at_95_percent(twice_once, read) -> None:
    found, fair = compare(twice_once, *versions(twice_once.root), draws=200, seed=3), read["fair"]
    right = [(model.predict(fair[["text"]]) == fair["label"]).to_numpy() for model in read["models"]]
    generator = np.random.default_rng(3)
    drawn = [generator.integers(0, len(fair), len(fair)) for _ in range(200)]
    gains = [right[1][rows].mean() - right[0][rows].mean() for rows in drawn]
    (accuracy,) = (row for row in found["metrics"] if row["metric"] == "accuracy")
    assert [accuracy["low"], accuracy["high"]] == pytest.approx(np.quantile(gains, [0.025, 0.975]))


def test_changed_predictions_are_counted_and_the_first_are_shown(twice_once, read) -> None:
    fair = read["fair"].assign(a=read["models"][0].predict(read["fair"][["text"]]))
    fair = fair.assign(b=read["models"][1].predict(fair[["text"]]))
    changed = fair[fair["a"] != fair["b"]]
    rows = changed.head(2)[["label", "a", "b", "text"]].itertuples(index=False)
    assert len(changed) > 2
    assert compare(twice_once, *versions(twice_once.root), rows=2)["changed"] == {
        "n": len(changed),
        "rows": [{"true": r.label, "a": r.a, "b": r.b, "inputs": {"text": r.text}} for r in rows],
    }


def test_data_parameters_and_code_are_compared(twice_once) -> None:
    a, b = versions(twice_once.root)
    found = compare(twice_once, a, b)
    assert found["data"] == {"added": 6, "removed": 4, "relabelled": 3}
    assert found["changes"] == [
        {"what": "seed", "before": 42, "now": 7},
        {"what": "parameter model", "before": {},
         "now": {"logisticregression__C": 0.001, "logisticregression__class_weight": None}},
        {"what": "parameter seed", "before": 42, "now": 7},
        {"what": "data: parameter seed", "before": 42, "now": 7},
    ]  # fmt: skip
    assert (found["diff"], found["a"]["version"], found["b"]["version"]) == ([], a, b)
    assert (found["a"]["problems"], found["b"]["problems"]) == ([], [])
    assert json.loads(json.dumps(found)) == found


def test_the_champion_and_short_versions_are_understood_and_data_is_printed_as_it_is(twice_once) -> None:
    a, b = versions(twice_once.root)
    found = twice_once.json("compare", "tiny", "champion", b[-5:])
    champion = twice_once.json("champion", "tiny")["version"]
    assert (found["a"]["version"], found["b"]["version"]) == (champion, b)
    shown = twice_once.pinmill("compare", "tiny", a, b, "--rows", "1000").stdout
    assert "text '[red]x[/red] :smile: \\x1b[31m the report is attached thanks 0'" in shown
    assert "\x1b" not in shown
    assert "accuracy" in shown


def test_what_is_damaged_or_gone_is_said_and_the_rest_is_compared(twice_once, tmp_path) -> None:
    workplace = twice_once.copy(tmp_path / "project")
    a, b = versions(workplace.root)
    run = compare(workplace, a, b)["b"]["run"]
    (workplace.root / "outputs/runs/tiny" / run / "02-train.ipynb").unlink()
    data = workplace.root / "outputs/pins/tiny-data" / versions(workplace.root, "tiny-data")[0] / "tiny-data.parquet"
    data.write_bytes(data.read_bytes()[:-1])
    found = compare(workplace, a, b)
    assert found["note"] == "Not scored: the model or the data of A cannot be read."
    assert (found["n"], found["metrics"], found["changed"], found["data"], found["diff"]) == (0, [], None, None, None)
    assert "was changed" in found["a"]["problems"][0]
    assert found["b"]["problems"][0].startswith("no notebook at ")
    assert [change["what"] for change in found["changes"]] == [
        "seed", "parameter model", "parameter seed", "data: parameter seed",
    ]  # fmt: skip
    shown = workplace.pinmill("compare", "tiny", a, b).stdout
    assert ("A positive difference" in shown, "predictions are others" in shown) == (False, False)
    shutil.rmtree(data.parent)
    (workplace.root / "outputs/pins/tiny-model" / b / "data.txt").write_text("x")
    found = compare(workplace, a, b)
    assert "has no version" in found["a"]["problems"][0]
    assert (found["note"], found["b"]["status"]) == (
        "Not scored: the model or the data of A and B cannot be read.", "damaged",
    )  # fmt: skip


def test_the_code_of_the_executed_notebooks_is_shown_as_a_diff(twice_once, tmp_path) -> None:
    workplace = twice_once.copy(tmp_path / "project")
    a, b = versions(workplace.root)
    path = workplace.root / "outputs/runs/tiny" / compare(workplace, a, b)["b"]["run"] / "02-train.ipynb"
    notebook = json.loads(path.read_text())
    (cell,) = (c for c in notebook["cells"] if "LogisticRegression(C=10" in "".join(c["source"]))
    cell["source"] = "".join(cell["source"]).replace("C=10", "C=2")
    path.write_text(json.dumps(notebook))
    diff = compare(workplace, a, b)["diff"]
    assert [line for line in diff if line[0] in "+-"] == [
        "--- A",
        "+++ B",
        '-classifier = LogisticRegression(C=10, class_weight="balanced", solver="newton-cg", max_iter=1000)',
        '+classifier = LogisticRegression(C=2, class_weight="balanced", solver="newton-cg", max_iter=1000)',
    ]


def test_a_row_is_fair_if_neither_was_trained_on_what_is_the_same_in_its_own_columns(workplace) -> None:
    tell = "workflow: tiny\nsource: tiny.csv\nlabel: label\npositive: spam\ngate_min_n: 3\ndraws: 50\ncv: 0\n"
    tell += "run: {notebooks: {train: notebooks/02-train-tabular.ipynb}}\n"
    rows = pd.read_csv(workplace.root / "tiny.csv")
    rows.assign(extra=[f"{n % 7} of 7" for n in range(len(rows))]).to_csv(workplace.root / "tiny.csv", index=False)
    workplace.params(f"{tell}ignore: [extra]\n")
    workplace.pinmill("run", "tiny")
    workplace.params(tell)
    workplace.pinmill("run", "tiny", code=None)
    folder, (a, b) = workplace.root / "outputs/pins", versions(workplace.root)
    then, now = (
        pd.read_parquet(folder / "tiny-data" / v / "tiny-data.parquet") for v in versions(workplace.root, "tiny-data")
    )
    test = now[now["_part"] == "test"]
    fair = ~test["text"].isin(then.loc[then["_part"] == "train", "text"])  # A's only input
    assert 3 <= fair.sum() < len(test)  # pins: by the hash of text and extra together, all of them were fair
    found = compare(workplace, a, b)
    assert (found["n"], {"what": "data: parameter ignore", "before": ["extra"], "now": []} in found["changes"]) == (
        fair.sum(), True,
    )  # fmt: skip
    assert found["data"] is None  # pins: all rows were said to be removed, and others added
    metrics = folder / "tiny-metrics" / versions(workplace.root, "tiny-metrics")[1] / "tiny-metrics.json"
    evaluated = json.loads(metrics.read_text())
    assert evaluated["decision"]["n"] == fair.sum()
    assert {row["n"] for row in evaluated["champion"]} == {fair.sum()}
    shown = workplace.pinmill("compare", "tiny", a, b).stdout
    assert "A positive difference means that B is better." in shown
    assert "data: parameter ignore" in shown


def test_models_that_predict_something_else_are_not_scored(twice_once, tmp_path) -> None:
    from pinmill.board import Board

    workplace = twice_once.copy(tmp_path / "project")
    board, (a, b) = Board(workplace.root / "outputs/pins"), versions(workplace.root)
    pin = board.pin("tiny-model", b)
    prototype = {"text": {}, "age": {}}
    facts = {**pin.facts, "label": "text", "classes": ["bad", "good"], "prototype": prototype}
    other = board.write_file("tiny-model", board.read_file(pin), file_name="m.skops", facts=facts, lineage=pin.lineage)
    why = "Not scored: the two differ in what they predict, or from what: label, classes, column age."
    assert compare(workplace, other.version, a)["note"] == why


def test_lineages_are_compared_part_by_part() -> None:
    before = {"code": "c", "lock": "l", "cpu": "x", "packages": {"numpy": "1", "old": "1"}, "modules": {"pinmill": "m"}}
    now = {"code": "d", "lock": "l", "packages": {"numpy": "2"}, "parameters": {"cv": 2}, "modules": {"pinmill": "n"}}
    assert [tuple(change.values()) for change in list_changes(before, now)] == [
        ("code", "c", "d"),
        ("cpu", "x", None),
        ("package numpy", "1", "2"),
        ("package old", "1", None),
        ("module pinmill", "m", "n"),
        ("parameter cv", None, 2),
    ]
    assert list_changes(before, before) == []


def test_no_champion_and_no_model_are_errors(tmp_path) -> None:
    with pytest.raises(ChampionError, match="w has no champion yet"):
        read_comparison(Project(tmp_path, {}), "w", "champion", "x")
    with pytest.raises(PinNotFoundError, match="w has no model yet"):
        read_comparison(Project(tmp_path, {}), "w", "a", "b")
