"""Predictions beside labels that came later, in real stores of both kinds, scored as scikit-learn and vetiver do."""

import json
import math
import secrets
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas
import pytest
import sqlalchemy as sql
from pandas import DataFrame, Series
from pandas.testing import assert_frame_equal
from pinmill.errors import DataError, ParameterError
from pinmill.outcomes import list_functions, list_unknown, read_outcomes, read_truth, score_outcomes
from pinmill.periods import Period, list_periods, read_inputs, read_outputs, read_traffic
from pinmill.store import CALLS, Annotation, Store
from pinmill.version import now_utc
from scipy.stats import binom
from sklearn import metrics
from test_periods import MONDAY, SPAM, TICK, WEEK, call, explain, fill, refusal

if TYPE_CHECKING:
    from conftest import Server, Workplace

LATER = MONDAY + timedelta(days=30)  # when people label, unless it is said
HAM = {"label": "ham", "value": 0.8, "probability": {"ham": 0.8, "spam": 0.2}}
BINARY = {"task": "binary", "classes": ["ham", "spam"], "positive": "spam", "draws": 200, "seed": 1}
REGRESSION = {"task": "regression", "classes": [], "positive": None, "draws": 200, "seed": 1}


@pytest.fixture
def store(store_place: Path | str) -> Iterator[Store]:
    """An empty store of either kind."""
    store = Store(store_place)
    yield store
    store.close()


def label(
    store: Store, *given: tuple[str, Any, str], workflow: str = "w", when: datetime = LATER, strategy: str = "given"
) -> list[int]:
    """Have people label inputs, (hash, label, annotator), in this order; the ids."""
    ids = []
    for who, group in groupby(given, key=itemgetter(2)):
        said = [Annotation(key, {"text": "t"}, value, secrets.token_hex(8), strategy) for key, value, _ in group]
        ids += store.add_annotations(workflow, said, annotator=who, when=when)
    return ids


def pair(truth: Sequence[Any], outputs: Sequence[Any]) -> DataFrame:
    """The outcomes of a store in which each of `outputs` has its truth, as `read_outcomes` gives them."""
    place = Store("sqlite://")  # in memory
    fill(place, [call(MONDAY, f"r{n}", output=output) for n, output in enumerate(outputs)])
    label(place, *((f"r{n}-0", value, "ann") for n, value in enumerate(truth)))
    found = read_outcomes(place, "w", WEEK, read_truth(place, "w")[0])
    place.close()
    return found


def scored(*rows: dict[str, Any]) -> list[tuple[str, float, int]]:
    """Metric, value and n of each."""
    return [(row["metric"], row["value"], row["n"]) for row in rows]


def test_the_commonest_label_of_an_input_is_its_truth(store: Store) -> None:
    ids = label(
        store,
        *(("a", "ham", "ann"), ("a", "spam", "bob"), ("a", "ham", "cy")),  # two to one
        *(("b", "ham", "ann"), ("b", "spam", "bob")),  # one to one: the last
        *(("c", "ham", "ann"), ("c", "spam", "ann")),  # somebody changed their mind
        *(("d", "spam", "ann"), ("e", "spam", "ann")),
        *(("f", "ham", "ann"), ("f", None, "ann")),  # takes no side any more
        *(("g", 1, "ann"), ("h", "1", "ann"), ("i", 2.5, "ann"), ("j", False, "ann")),
    )
    store.retract(ids[7], annotator="ann", when=MONDAY)
    label(store, ("k", "ham", "ann"), workflow="other")
    truth = {"a": "ham", "b": "spam", "c": "spam", "e": "spam", "g": 1, "h": "1", "i": 2.5, "j": False}
    found, left_out = read_truth(store, "w")
    assert (found, left_out) == (truth, 0)
    assert [type(found[key]) for key in "ghij"] == [int, str, float, bool]


def test_nobody_labelled_anything(store: Store) -> None:
    fill(store, [call()])
    assert read_truth(store, "w") == ({}, 0)
    outcomes = read_outcomes(store, "w", WEEK, {})
    assert (outcomes.columns.tolist(), len(outcomes)) == (["truth", "label", "value", "version", "hash"], 0)
    assert list_unknown(outcomes, task="binary", classes=["ham", "spam"]) == {}
    for names, of in ((["roc_auc", "f1", "balanced_accuracy_score"], BINARY), (["r2", "max_error"], REGRESSION)):
        found = score_outcomes(outcomes, names, **of)
        assert [(row["metric"], row["n"]) for row in found] == [(name, 0) for name in names]
        assert all(math.isnan(row[key]) for row in found for key in ("value", "low", "high"))


def test_calls_meet_the_labels_of_their_inputs(store: Store) -> None:
    rows = [
        call(MONDAY, "a", output=SPAM),
        call(MONDAY, "a", 1, output=HAM, version="v2"),
        call(MONDAY, "b", input_hash="a-0", output=HAM, version="v2"),  # the same input, by another version
        call(MONDAY, "c", output=None, status=500),
        call(MONDAY, "d"),  # labelled by nobody
        call(MONDAY, "e"),  # only in another workflow
        refusal(MONDAY, "f"),
        call(WEEK.end, "a", output=SPAM),
    ]
    fill(store, rows)
    label(store, ("a-0", "spam", "ann"), ("a-1", "spam", "ann"), ("c-0", "ham", "ann"))
    label(store, ("e-0", "ham", "ann"), workflow="other")
    truth, _ = read_truth(store, "w")
    found = read_outcomes(store, "w", WEEK, truth)
    expected = DataFrame(
        {
            "truth": Series(["spam"] * 3, dtype=object),
            "label": Series(["spam", "ham", "ham"], dtype=object),
            "value": [0.9, 0.8, 0.8],
            "probability of ham": [0.1, 0.8, 0.8],
            "probability of spam": [0.9, 0.2, 0.2],
            "version": ["v1", "v2", "v2"],
            "hash": ["a-0", "a-1", "a-0"],
        }
    )
    assert_frame_equal(found, expected)
    next_week = Period(WEEK.end, WEEK.end + timedelta(days=7))
    assert read_outcomes(store, "w", next_week, truth)["truth"].tolist() == ["spam"]


def test_calls_count_that_were_made_before_anybody_labelled_their_input(store: Store) -> None:
    """pins: scores of a champion were too good, by rows that it had been trained on"""
    days = [MONDAY + timedelta(days=day) for day in range(6)]
    fill(store, [call(when, f"{name}-{day}", input_hash=name) for name in "abcd" for day, when in enumerate(days)])
    ids = label(store, ("a", "ham", "ann"), ("c", "spam", "ann"), when=days[3])
    store.retract(ids[1], annotator="ann", when=days[4])
    label(store, ("a", "spam", "ann"), ("c", "ham", "bob"), when=days[5])  # the first was wrong
    label(store, ("b", None, "ann"), when=days[0])  # who takes no side teaches nothing
    label(store, ("b", "ham", "bob"), when=days[1] + TICK)
    label(store, ("d", "spam", "ann"), when=days[5], workflow="other")
    found = read_outcomes(store, "w", WEEK, read_truth(store, "w")[0])
    assert found[["hash", "truth"]].values.tolist() == [["a", "spam"]] * 3 + [["b", "ham"]] * 2 + [["c", "ham"]] * 3


def test_inputs_that_only_the_model_chose_are_left_out(store: Store) -> None:
    """pins: an accuracy of 0.52 where 0.89 was true"""
    label(store, ("a", "ham", "ann"), ("b", "ham", "ann"), ("c", "ham", "ann"), strategy="uncertainty")
    label(store, ("d", "ham", "ann"), ("e", None, "ann"), strategy="disagreement")
    label(store, ("b", "spam", "bob"), ("f", "ham", "ann"), strategy="random")
    label(store, ("c", "spam", "shop"), ("c", "spam", "bob"), strategy="given")
    found = read_truth(store, "w")
    assert found == ({"b": "spam", "f": "ham", "c": "spam"}, 2)


def test_outcomes_are_found_by_the_index_by_time(tmp_path: Path) -> None:
    store = fill(Store(tmp_path / "pinmill.sqlite"), [call(MONDAY, f"r{n}") for n in range(50)])
    label(store, *((f"r{n}-0", "spam", "ann") for n in range(20)))
    within = "SEARCH calls USING INDEX by_time (workflow=? AND time>? AND time<?)"
    assert explain(store, lambda: read_outcomes(store, "w", WEEK, {"r1-0": "spam"})) == [within]
    store.close()


def test_binary_metrics_are_those_of_scikit_learn() -> None:
    chance = np.random.default_rng(3)
    truth = chance.choice(["ham", "spam"], 120)
    spam = np.clip(0.5 + 0.3 * (truth == "spam") - 0.15 + chance.normal(0, 0.3, 120), 0.01, 0.99).round(2)
    predicted = np.where(spam > 0.5, "spam", "ham")
    shares = [{"ham": 1 - share, "spam": share} for share in spam]
    told = [{"label": said, "value": p[said], "probability": p} for said, p in zip(predicted, shares, strict=True)]
    found = score_outcomes(
        pair(truth.tolist(), told),
        ["accuracy", "f1", "f1_score", "precision_score", "roc_auc", "log_loss", "brier", "matthews_corrcoef"],
        **BINARY,
    )
    is_spam = truth == "spam"
    expected = {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "f1": metrics.f1_score(truth, predicted, pos_label="spam"),
        "f1_score": metrics.f1_score(truth, predicted, pos_label="spam"),
        "precision_score": metrics.precision_score(truth, predicted, pos_label="spam"),
        "roc_auc": metrics.roc_auc_score(is_spam, spam),
        "log_loss": metrics.log_loss(is_spam, spam),
        "brier": metrics.brier_score_loss(is_spam, spam),
        "matthews_corrcoef": metrics.matthews_corrcoef(truth, predicted),
    }
    assert {row["metric"]: row["value"] for row in found} == pytest.approx(expected)
    assert [list(row) for row in found] == [["metric", "value", "low", "high", "n"]] * 8
    assert all(row["low"] < row["value"] < row["high"] and row["n"] == 120 for row in found)


def test_multiclass_metrics_are_those_of_scikit_learn() -> None:
    chance, classes = np.random.default_rng(4), ["a", "b", "c"]
    truth, shares = chance.choice(classes, 90), chance.dirichlet([1, 1, 1], 90)
    predicted = np.array(classes)[shares.argmax(axis=1)]
    told = [
        {"label": said, "value": max(row), "probability": dict(zip(classes, row, strict=True))}
        for said, row in zip(predicted.tolist(), shares.tolist(), strict=True)
    ]
    of = {"task": "multiclass", "classes": classes, "positive": None, "draws": 100, "seed": 1}
    found = score_outcomes(pair(truth.tolist(), told), ["f1_macro", "log_loss", "balanced_accuracy_score"], **of)
    expected = [
        metrics.f1_score(truth, predicted, average="macro"),
        metrics.log_loss(truth, shares, labels=classes),
        metrics.balanced_accuracy_score(truth, predicted),
    ]
    assert [row["value"] for row in found] == pytest.approx(expected)


def test_regression_metrics_are_those_of_scikit_learn_and_leave_out_what_is_no_amount() -> None:
    truth, told = [1, 2.5, "3", 4.0, "many", 6.0], [1.5, 2.0, 3.5, 4.0, 5.0, None]
    outcomes = pair(truth, [{"value": value} for value in told])
    found = score_outcomes(outcomes, ["mae", "rmse", "r2", "max_error"], **REGRESSION)
    sides = [1, 2.5, 3, 4], [1.5, 2.0, 3.5, 4.0]
    assert scored(*found) == [
        ("mae", pytest.approx(metrics.mean_absolute_error(*sides)), 4),
        ("rmse", pytest.approx(metrics.root_mean_squared_error(*sides)), 4),
        ("r2", pytest.approx(metrics.r2_score(*sides)), 4),
        ("max_error", 0.5, 4),
    ]
    assert list_unknown(outcomes, task="regression", classes=[]) == {"many": 1}


@pytest.mark.parametrize(
    ("classes", "given", "told"),
    [
        ([0, 1], ["1", 0, 1.0, "0"], [1, 0, 1, 1]),
        (["0", "1"], [1, "0", 1, 0], ["1", "0", "1", "1"]),
        ([False, True], [True, "false", 1, 0], [True, False, True, True]),
        (["ham", "spam"], ["spam", "ham", "spam", "ham"], ["spam", "ham", "spam", "spam"]),
    ],
)
def test_labels_of_another_type_are_what_training_would_make_of_them(
    classes: list[Any], given: list[Any], told: list[Any]
) -> None:
    outcomes = pair(given, [{"label": each} for each in told])
    of = {"task": "binary", "classes": classes, "positive": classes[1], "draws": 50, "seed": 1}
    found = score_outcomes(outcomes, ["accuracy", "precision", "recall", "accuracy_score", "recall_score"], **of)
    values = {"accuracy": 0.75, "precision": pytest.approx(2 / 3), "recall": 1, "accuracy_score": 0.75}
    assert {row["metric"]: row["value"] for row in found} == values | {"recall_score": 1}
    assert list_unknown(outcomes, task="binary", classes=classes) == {}


def test_labels_that_the_model_does_not_know_are_counted_and_are_wrong() -> None:
    outcomes = pair(["spam", "ham", "phishing", "phishing", 7], [SPAM, HAM, SPAM, HAM, SPAM])
    assert list_unknown(outcomes, task="binary", classes=["ham", "spam"]) == {"phishing": 2, "7": 1}
    found = score_outcomes(outcomes, ["accuracy", "recall", "accuracy_score", "roc_auc", "log_loss"], **BINARY)
    assert scored(*found[:4]) == [
        ("accuracy", pytest.approx(2 / 5), 5),
        ("recall", 1.0, 5),
        ("accuracy_score", pytest.approx(2 / 5), 5),
        # Of four that are no spam the model said 0.9 of two, as of the spam, and 0.2 of two: (2 + 2/2) / 4
        ("roc_auc", pytest.approx(0.75), 5),
    ]
    numbers = pair([1, 0, "x"], [{"label": 1}, {"label": 0}, {"label": 1}])
    of = {"task": "binary", "classes": [0, 1], "positive": 1, "draws": 50, "seed": 1}
    assert scored(*score_outcomes(numbers, ["accuracy", "accuracy_score"], **of)) == [
        ("accuracy", pytest.approx(2 / 3), 3),
        ("accuracy_score", pytest.approx(2 / 3), 3),
    ]


def test_labels_that_only_another_model_predicted_are_wrong() -> None:
    other = {"label": "maybe", "value": 0.6, "probability": {"maybe": 0.6, "no": 0.4}}
    outcomes = pair(["spam", "ham", "spam"], [SPAM, HAM, other])
    found = score_outcomes(outcomes, ["accuracy", "f1_macro", "recall", "accuracy_score"], **BINARY)
    sides = ["spam", "ham", "spam"], ["spam", "ham", "maybe"]
    assert [row["value"] for row in found] == pytest.approx(
        [2 / 3, metrics.f1_score(*sides, average="macro", zero_division=0), 1 / 2, 2 / 3]
    )


def test_metrics_of_probabilities_take_the_rows_that_have_them_all() -> None:
    other = {"label": "ham", "value": 0.7, "probability": {"ham": 0.7, "no": 0.3}}
    outcomes = pair(["spam", "ham", "spam", "ham"], [SPAM, HAM, other, {"label": "ham"}])
    found = score_outcomes(outcomes, ["log_loss", "accuracy", "roc_auc", "accuracy_score"], **BINARY)
    assert scored(*found) == [
        ("log_loss", pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2), 2),
        ("accuracy", 0.75, 4),
        ("roc_auc", 1.0, 2),
        ("accuracy_score", 0.75, 4),
    ]


def test_without_probabilities_their_metrics_have_no_value() -> None:
    outcomes = pair(["spam", "ham"], [{"label": "spam"}, {"label": "spam"}])
    found = score_outcomes(outcomes, ["roc_auc", "accuracy"], **BINARY)
    assert (math.isnan(found[0]["value"]), found[0]["n"]) == (True, 0)
    assert scored(found[1]) == [("accuracy", 0.5, 2)]


def test_what_is_no_prediction_is_left_out() -> None:
    outcomes = pair(["spam", "ham"], [SPAM, [1, None]])
    assert scored(*score_outcomes(outcomes, ["accuracy"], **BINARY)) == [("accuracy", 1.0, 1)]


def test_a_metric_without_a_meaning_is_nan() -> None:
    found = score_outcomes(pair(["spam", "spam"], [SPAM, HAM]), ["roc_auc", "accuracy", "log_loss"], **BINARY)
    assert [math.isnan(row["value"]) for row in found] == [True, False, False]
    amounts = pair([1.0, -2.0], [{"value": 1.0}, {"value": 2.0}])
    found = score_outcomes(amounts, ["mean_gamma_deviance", "mae"], **REGRESSION)  # which wants amounts above 0
    assert [math.isnan(row["value"]) for row in found] == [True, False]


def test_the_interval_of_a_share_is_that_of_a_binomial() -> None:
    outcomes = pair(["spam"] * 160 + ["ham"] * 40, [SPAM] * 200)
    of = {**BINARY, "draws": 2000}
    low, high = binom.ppf([0.025, 0.975], 200, 0.8) / 200
    for row in score_outcomes(outcomes, ["accuracy", "accuracy_score"], **of):
        assert (row["value"], row["n"]) == (0.8, 200)
        assert (row["low"], row["high"]) == pytest.approx((low, high), abs=0.006)


def test_an_input_that_is_asked_again_and_again_makes_no_score_surer() -> None:
    # By hand: each draw holds 101 inputs, and the wrong one, which is 500 calls, is in it k times with P = Poisson(1).
    outcomes = pair(["spam"] * 101, [SPAM] * 100 + [HAM])
    often = pandas.concat([outcomes, *[outcomes[100:]] * 499], ignore_index=True)
    of = {**BINARY, "draws": 2000}
    low, high = (100 - 3) / (100 - 3 + 3 * 500), 1.0  # P(k > 3) is 1.9 %, P(k = 0) is 37 %
    for row in score_outcomes(often, ["accuracy", "accuracy_score"], **of):
        assert (row["value"], row["n"]) == (pytest.approx(100 / 600), 600)
        assert (row["low"], row["high"]) == (pytest.approx(low, abs=0.005), high)


def test_the_same_seed_gives_the_same_interval() -> None:
    outcomes = pair(["spam", "ham"] * 20, [SPAM, HAM, HAM] * 13 + [SPAM])
    twice = [score_outcomes(outcomes, ["balanced_accuracy_score", "f1"], **BINARY) for _ in range(2)]
    assert twice[0] == twice[1]


def test_names_that_are_no_metrics_of_the_task_are_told_at_once() -> None:
    names = ["acuracy", "r2", "roc_auc_score", "confusion_matrix", "mean_squared_error", "accuracy", "jaccard_score"]
    with pytest.raises(ParameterError) as refused:
        score_outcomes(pair(["spam"], [SPAM]), names, **BINARY)
    said = str(refused.value)
    assert said.startswith(
        "5 problems in the metrics: 'acuracy' is no metric of a binary task. Did you mean 'accuracy'?"
    )
    for part in (
        "; 'r2' is no metric of a binary task",
        "; 'roc_auc_score' is no metric of a binary task",
        "; 'confusion_matrix' of scikit-learn gives no number for a binary task: ",
        "; 'mean_squared_error' of scikit-learn gives no number for a binary task: ",
        "Known: roc_auc, f1, accuracy, precision, recall, average_precision, log_loss, brier, f1_macro, ",
    ):
        assert part in said


def test_the_averaged_metrics_of_scikit_learn_are_refused_for_many_classes() -> None:
    of = {"task": "multiclass", "classes": ["a", "b", "c"], "positive": None, "draws": 10, "seed": 1}
    with pytest.raises(
        ParameterError, match="'f1_score' of scikit-learn gives no number for a multiclass task: Target"
    ):
        score_outcomes(pair(["a"], [{"label": "a"}]), ["f1_score"], **of)


def test_functions_are_those_of_truth_and_prediction() -> None:
    functions = list_functions()
    assert {"balanced_accuracy_score", "matthews_corrcoef", "mean_squared_error", "max_error"} <= {*functions}
    assert not {"roc_auc_score", "silhouette_score", "make_scorer", "auc", "RocCurveDisplay"} & {*functions}


def test_a_positive_class_that_the_model_has_not_is_told() -> None:
    with pytest.raises(DataError, match=r"The positive class 'span' is none of the model's \['ham', 'spam'\]"):
        score_outcomes(pair(["spam"], [SPAM]), ["f1"], **{**BINARY, "positive": "span"})


def test_without_a_positive_class_the_second_is_it() -> None:
    found = score_outcomes(
        pair(["spam", "ham"], [SPAM, SPAM]), ["precision", "recall_score"], **{**BINARY, "positive": ""}
    )
    assert scored(*found) == [("precision", 0.5, 2), ("recall_score", 1.0, 2)]


# vetiver: windows of one length from the first row on; it drops the last one when the last row stands on its start


def monitor(frame: DataFrame, names: list[str], windows: list[Period], of: dict[str, Any]) -> DataFrame:
    """What we make of a table with the columns index, truth and pred, as vetiver shows it."""
    store = Store("sqlite://")
    times = pandas.to_datetime(frame["index"], utc=True)
    is_amount = of["task"] == "regression"
    rows = [
        call(when.to_pydatetime(), f"r{n}", output={"value" if is_amount else "label": pred})
        for n, (when, pred) in enumerate(zip(times, json.loads(frame["pred"].to_json(orient="values")), strict=True))
    ]
    fill(store, rows)
    truth = json.loads(frame["truth"].to_json(orient="values"))
    label(store, *((f"r{n}-0", value, "ann") for n, value in enumerate(truth)))
    found = []
    for window in windows:
        outcomes = read_outcomes(store, "w", window, read_truth(store, "w")[0])
        first = times[(times >= window.start) & (times < window.end)].min().tz_localize(None)
        for row in score_outcomes(outcomes, names, **{**of, "draws": 5}):
            found.append({"index": first, "n": row["n"], "metric": row["metric"], "estimate": row["value"]})
    store.close()
    return DataFrame(found)


def ask_vetiver(frame: DataFrame, names: list[str], length: timedelta) -> DataFrame:
    """What vetiver makes of it."""
    from vetiver import compute_metrics

    functions = [getattr(metrics, name) for name in names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own use of pandas, and of a window with one row
        return compute_metrics(frame, "index", length, functions, "truth", "pred")


def cut(frame: DataFrame, length: timedelta) -> list[Period]:
    """vetiver's windows, and the last one."""
    times = pandas.to_datetime(frame["index"], utc=True).map(pandas.Timestamp.to_pydatetime)
    n = (max(times) - min(times)) // length + 1
    return [Period(min(times) + k * length, min(times) + (k + 1) * length) for k in range(n)]


def test_windows_are_those_of_vetiver_and_the_last_is_kept() -> None:
    # The example in the docstring of vetiver 0.2.6's compute_metrics
    days = pandas.to_datetime(["2021-01-01", "2021-01-02", "2021-01-03"])  # there as texts, which pandas 3 refuses
    frame = DataFrame({"index": days, "truth": [200, 201, 199], "pred": [198, 200, 199]})
    names, first = ["mean_squared_error", "mean_absolute_error"], datetime(2021, 1, 1, tzinfo=UTC)
    theirs = ask_vetiver(frame, names, timedelta(days=1))
    windows = list_periods(first, first + timedelta(days=2), period="day")
    ours = monitor(frame, names, windows, REGRESSION)
    assert theirs[["n", "estimate"]].values.tolist() == [[1, 4], [1, 2], [1, 1], [1, 1]]
    assert_frame_equal(ours[:4], theirs, check_dtype=False)
    lost = {"index": [pandas.Timestamp("2021-01-03")] * 2, "n": [1, 1], "metric": names, "estimate": [0.0, 0.0]}
    assert_frame_equal(ours[4:].reset_index(drop=True), DataFrame(lost), check_dtype=False)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("days", [1, 7, 10.5])
def test_amounts_in_windows_have_the_metrics_of_vetiver(seed: int, days: float) -> None:
    chance, length = np.random.default_rng(seed), timedelta(days=days)
    hours = np.unique(np.concatenate([np.arange(0, 30 * 24, 13), chance.integers(1, 30 * 24, 80)]))
    times = pandas.Timestamp("2026-02-03 04:05:06.000007") + pandas.to_timedelta(hours, unit="h")
    truth = chance.normal(50, 10, len(times)).round(3)
    frame = DataFrame({"index": times, "truth": truth, "pred": (truth + chance.normal(0, 3, len(times))).round(3)})
    names = ["mean_absolute_error", "r2_score", "median_absolute_error"]
    ours = monitor(frame, names, cut(frame, length), REGRESSION)
    assert_frame_equal(ours, ask_vetiver(frame, names, length), check_dtype=False)
    assert ours["n"].sum() == len(names) * len(frame)


def test_classes_in_windows_have_the_metrics_of_vetiver() -> None:
    chance = np.random.default_rng(8)
    times = pandas.date_range("2026-03-02", "2026-03-30", freq="6h")  # the last is alone in its week
    truth = chance.choice(["ham", "spam"], len(times))
    wrong = np.where(truth == "ham", "spam", "ham")
    frame = DataFrame({"index": times, "truth": truth, "pred": np.where(chance.random(len(times)) < 0.8, truth, wrong)})
    names, week = ["accuracy_score", "balanced_accuracy_score", "matthews_corrcoef"], timedelta(days=7)
    windows = list_periods(*(times[k].tz_localize(UTC).to_pydatetime() for k in (0, -1)), period="week")
    assert windows == cut(frame, week)
    ours, theirs = monitor(frame, names, windows, BINARY), ask_vetiver(frame, names, week)
    assert_frame_equal(ours[: len(theirs)], theirs, check_dtype=False)
    assert ours[len(theirs) :]["n"].tolist() == [1, 1, 1]
    assert ours["n"].sum() == 3 * len(frame)


def test_a_real_service_leaves_calls_that_meet_their_labels(
    trained: "Workplace", serve: Callable[..., "Server"]
) -> None:
    trained.params((trained.root / "params/tiny.yaml").read_text() + "log_inputs: true\n")
    began, server = now_utc(), serve()
    texts = ["win a free prize now", "see you at lunch", "the report is attached"]
    told = server.ask("POST", "/predictions", texts).json()
    single = server.ask("POST", "/prediction", texts[0]).json()
    assert server.ask("POST", "/predictions", [{"txt": "x"}]).status_code == 422
    assert (server.is_ready(), server.ask("GET", "/metadata").status_code) == (True, 200)
    labels = [{"text": texts[0], "label": "spam"}, {"text": texts[1], "label": "spam"}, {"text": "new", "label": "ham"}]
    assert server.ask("POST", "/annotations", labels).status_code == 201
    answers = [server.ask("GET", path) for path in ("/queue", "/data", "/recent-log?hours=x")]
    assert [answer.status_code for answer in answers] == [200, 422, 422]
    assert server.ask("POST", "/prediction", texts[1]).status_code == 200  # its label may be learned by now
    assert server.stop() == 0  # which writes the log

    store = Store(trained.root / "outputs/pinmill.sqlite")
    span = Period(began, now_utc())
    logged = {endpoint for (endpoint,) in store.read(sql.select(CALLS.c.endpoint))}
    own = {"POST /annotations", "GET /queue", "GET /data", "GET /recent-log"}
    assert logged - {"GET /ready"} == {"POST /predictions", "POST /prediction", "GET /metadata"} | own
    traffic = read_traffic(store, "tiny", span)
    assert [traffic[name] for name in ("requests", "rows", "errors", "timed", "cached")] == [5, 5, 1, 3, 0.4]
    inputs, facts = read_inputs(store, "tiny", span)
    assert (inputs["text"].tolist(), facts) == (texts, {"rows": 5, "hidden": 0, "taken": 3})
    outputs = read_outputs(store, "tiny", span, version=told[0]["version"])
    assert outputs["label"].tolist() == [each["label"] for each in told]
    assert outputs["probability of spam"].tolist() == [each["probability"]["spam"] for each in told]
    assert single["label"] == told[0]["label"]
    outcomes = read_outcomes(store, "tiny", span, read_truth(store, "tiny")[0])
    assert outcomes[["truth", "label"]].values.tolist() == [["spam", told[n]["label"]] for n in (0, 1, 0)]
    assert {*outcomes["version"]} == {told[0]["version"]}
    store.close()
