"""The champion beside the candidate: on the same rows, and only those it was not trained on."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pinmill.champion import promote, read_champion
from pinmill.errors import IntegrityError
from pinmill.notebook import Stage
from pinmill.project import Project
from pinmill.prototype import read_prototype
from pinmill.rival import Rival, predict_champion, take_inputs
from pinmill.session import Run
from pinmill.table import hash_rows
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

ABOUT = {"task": "binary", "label": "label", "classes": {"ham": 3, "spam": 3}, "positive": "spam"}
WHEN = datetime(2024, 5, 6, tzinfo=UTC)


def frame(texts: str, labels: str) -> pd.DataFrame:
    """One row per letter: text 'a a', label, and the letter itself as its content hash."""
    return pd.DataFrame({
        "text": [f"{letter}{letter} word" for letter in texts], "_hash": list(texts),
        "label": [{"s": "spam", "h": "ham"}[letter] for letter in labels],
    })  # fmt: skip


TRAIN = frame("abcdef", "sshhsh")
TEST = frame("abxyz", "sshhs")


def make_run(root: Path, **parts) -> Run:
    stage = Stage(
        "evaluate", root / "03-evaluate.ipynb", "E", "train", ("data", "model", "champion"), ("data", "model"), {}, ()
    )
    project = Project(root, {})
    return Run(
        "adhoc-1", "w", stage, project, {}, {}, parts.pop("inputs", {}), read_champion(project.board, "w"), **parts
    )


def crown(root: Path, *, keep_data: bool = True, labels: str = "sshhsh", **facts) -> str:
    """Train a model on TRAIN, write its data and model pins, make it champion; its version."""
    train = TRAIN.assign(label=frame("abcdef", labels)["label"], _part="train")
    data = make_run(root).write_table("data", train)
    columns = make_column_transformer((CountVectorizer(), "text"))
    model = make_pipeline(columns, LogisticRegression(C=100)).fit(train[["text"]], train["label"])
    known = {"task": "binary", "label": "label", "classes": sorted(set(train["label"])),
             "prototype": read_prototype(train, ["text"], text=["text"])}  # fmt: skip
    pin = make_run(root, inputs={"data": data} if keep_data else {}).write_model(model, **(known | facts))
    promote(make_run(root).board, "w", pin.version, by="ada", why="first", expected=None, gate=True, when=WHEN)
    return pin.version


def test_without_a_champion_all_rows_are_free_and_nothing_is_predicted(tmp_path: Path) -> None:
    rival, none = predict_champion(make_run(tmp_path), TEST, ABOUT), "there is none yet"
    assert (rival.predictions, rival.comparable.tolist(), rival.absent) == (None, [True] * 5, none)
    assert rival.note == f"Not compared with the champion: {none}."
    assert rival.scores(["accuracy"], draws=10, seed=0) is None


def test_only_rows_that_the_champion_was_not_trained_on_are_comparable(tmp_path: Path) -> None:
    version = crown(tmp_path)
    rival = predict_champion(make_run(tmp_path), TEST, ABOUT)
    assert rival.comparable.tolist() == [False, False, True, True, True]
    assert rival.note == f"On the 3 of 5 test rows that the champion {version} was not trained on"
    assert rival.predictions.truth.tolist() == ["spam", "spam", "ham", "ham", "spam"]
    assert rival.predictions.predicted[:2].tolist() == ["spam", "spam"]  # its own training rows, easy to tell
    assert (rival.predictions.classes, rival.predictions.positive) == (("ham", "spam"), "spam")


AMOUNTS = {"task": "binary", "label": "label", "classes": {"ham": 4, "spam": 4}, "positive": "spam", "text": ["note"]}


def crown_amounts(root: Path) -> None:
    """Train on columns amount and note alone, of a table that has more, and make that the champion."""
    train = pd.DataFrame({"amount": [1.0, 2.0, 3.0, 4.0], "note": ["a", "", "c", "d"], "extra": list("pqrs"),
                          "label": ["ham", "spam", "ham", "spam"], "_part": "train"})  # fmt: skip
    inputs = train[["amount", "note"]]
    table = train.assign(_hash=hash_rows(inputs, ["amount", "note"]))
    data = make_run(root).write_table("data", table, text=["note"], features=["amount"], kinds={"amount": "number"})
    columns = make_column_transformer((CountVectorizer(token_pattern="."), "note"), ("passthrough", ["amount"]))
    model = make_pipeline(columns, LogisticRegression()).fit(inputs, train["label"])
    facts = {"task": "binary", "label": "label", "classes": ["ham", "spam"]}
    facts |= {"prototype": read_prototype(inputs, ["amount", "note"], text=["note"])}
    pin = make_run(root, inputs={"data": data}).write_model(model, **facts)
    promote(make_run(root).board, "w", pin.version, by="ada", why="first", expected=None, gate=True, when=WHEN)


@pytest.mark.parametrize(
    ("amount", "kind"),
    [([1.0, 2.0, 9.0, 4.0], "number"), (["1", "2.0", "9", "4"], "category"), ([1, 2, 9, 4], "category")],
)
def test_a_row_was_seen_if_it_is_the_same_in_the_columns_and_types_of_the_champion(tmp_path, amount, kind) -> None:
    crown_amounts(tmp_path)
    test = pd.DataFrame({"amount": amount, "note": ["a", None, "c", "e"], "extra": list("pqrs"),
                         "label": ["ham", "spam", "ham", "spam"]})  # fmt: skip
    features = ["amount", "extra"]
    about = AMOUNTS | {"features": features, "kinds": {"amount": kind, "extra": "category"}}
    rival = predict_champion(make_run(tmp_path), test.assign(_hash=hash_rows(test, ["note", *features])), about)
    assert rival.comparable.tolist() == [False, False, True, True]  # pins: with extra in the hash, none was found
    assert len(rival.predictions.predicted) == 4


def test_rows_that_cannot_be_of_the_champions_types_are_not_compared_and_that_is_said(tmp_path: Path) -> None:
    crown_amounts(tmp_path)
    test = pd.DataFrame({"amount": ["1", "few"], "note": ["a", "b"], "label": ["ham", "spam"], "_hash": ["1", "2"]})
    about = AMOUNTS | {"features": ["amount"], "kinds": {"amount": "category"}}
    rival = predict_champion(make_run(tmp_path), test, about)
    wrong = "1 problem in the inputs: column 'amount': number is expected, but 1 values are not, e.g. 'few' (row 1)"
    assert (rival.predictions, rival.absent) == (None, f"the inputs differ: {wrong}")


def test_a_number_may_be_missing_though_the_champion_was_trained_on_none_that_is() -> None:
    rows = pd.DataFrame({"amount": [None, 1.0], "note": ["a", "a"]})
    inputs = take_inputs(rows, read_prototype(rows[1:], ["amount", "note"], text=["note"]), text=["note"])
    assert inputs["amount"].tolist()[1:] == [1.0]
    assert inputs["amount"].isna().tolist() == [True, False]


def test_its_scores_are_those_of_the_comparable_rows(tmp_path: Path) -> None:
    crown(tmp_path)
    rival = predict_champion(make_run(tmp_path), TEST, ABOUT)
    right = np.mean(rival.predictions.predicted[2:] == rival.predictions.truth[2:])
    (row,) = rival.scores(["accuracy"], draws=20, seed=0)
    assert (row["metric"], row["value"], row["n"]) == ("accuracy", pytest.approx(right), 3)


def test_without_a_comparable_row_there_is_no_score(tmp_path: Path) -> None:
    crown(tmp_path)
    rival = predict_champion(make_run(tmp_path), TEST[:2], ABOUT)
    assert (rival.comparable.tolist(), rival.scores(["accuracy"], draws=10, seed=0)) == ([False, False], None)


@pytest.mark.parametrize(
    ("test", "about", "why"),
    [
        (TEST.rename(columns={"text": "words"}), ABOUT, "the inputs differ: it needs text, which this data lacks"),
        (TEST, ABOUT | {"task": "multiclass"}, "it predicts something else"),
        (TEST.rename(columns={"label": "kind"}), ABOUT | {"label": "kind"},
         "it predicts something else"),
        (TEST, ABOUT | {"classes": {"ham": 1, "spam": 1, "other": 1}},
         "it knows other labels than this data"),
    ],
)  # fmt: skip
def test_a_champion_of_something_else_is_not_compared_and_that_is_said(tmp_path: Path, test, about, why: str) -> None:
    crown(tmp_path)
    rival = predict_champion(make_run(tmp_path), test, about)
    assert (rival.predictions, rival.comparable.all(), rival.absent) == (None, True, why)
    assert rival.note == f"Not compared with the champion: {why}."


def test_a_champion_whose_training_rows_are_not_known_is_not_compared(tmp_path: Path) -> None:
    crown(tmp_path, keep_data=False)
    rival = predict_champion(make_run(tmp_path), TEST, ABOUT)
    assert rival.predictions is None
    assert rival.absent == "the rows that it was trained on are not known"


def test_a_champion_whose_data_was_pruned_is_not_compared(tmp_path: Path) -> None:
    crown(tmp_path)
    for folder in (tmp_path / "outputs" / "pins" / "w-data").iterdir():
        folder.rename(tmp_path / folder.name)
    assert "are not known" in predict_champion(make_run(tmp_path), TEST, ABOUT).note


def test_a_champion_with_a_flipped_byte_stops_the_evaluation(tmp_path: Path) -> None:
    version = crown(tmp_path)
    (file,) = (tmp_path / "outputs" / "pins" / "w-model" / version).glob("*.skops")
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    with pytest.raises(IntegrityError):
        predict_champion(make_run(tmp_path), TEST, ABOUT)


def test_a_regression_has_no_labels_to_compare(tmp_path: Path) -> None:
    crown(tmp_path, task="regression", classes=[])
    about = {"task": "regression", "label": "label", "classes": {}, "positive": None}
    numbers = TEST.assign(label=[1.0, 2.0, 3.0, 4.0, 5.0])
    with pytest.raises(
        ValueError, match="could not convert"
    ):  # this champion says 'spam': it came as far as predicting
        predict_champion(make_run(tmp_path), numbers, about)


def test_a_rival_without_predictions_has_no_scores() -> None:
    assert Rival(None, np.ones(3, dtype=bool), "x").scores(["accuracy"], draws=10, seed=0) is None


def test_the_gate_says_why_a_run_could_not_compare_its_candidate_with_the_champion(trained) -> None:
    source = trained.root / "tiny.csv"
    source.write_text(source.read_text().replace(",ham", ",eggs"))
    trained.pinmill("run", "tiny")
    newest = max((trained.root / "outputs/pins/tiny-metrics").iterdir()) / "tiny-metrics.json"
    told = "Not compared with the champion: it knows other labels than this data. Only the absolute thresholds count."
    assert json.loads(newest.read_text())["decision"]["reasons"][-1] == told
