"""What monitoring tells people of what it found; the job itself is in test_monitor.py."""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from pandas import Series
from pinmill.drift import SHIFTED
from pinmill.errors import ParameterError
from pinmill.history import make_history, period_rows, traffic_rows
from pinmill.monitoring import (
    Expected,
    choose_outputs,
    is_told_once,
    list_columns,
    name_period,
    read_moment,
    tell_state,
    tell_unknown,
)
from pinmill.periods import Period, list_outputs

WEEK = Period(datetime(2026, 11, 16, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC))
TRAFFIC = {
    "requests": 1204,
    "rows": 1300,
    "errors": 4,
    "cached": 0.2,
    "timed": 1200,
    "p50_ms": 1.0,
    "p95_ms": 2.0,
    "p99_ms": 3.0,
}
PROMISED = {"accuracy": {"value": 0.98, "low": 0.97, "high": 0.99, "n": 500}}


def drifted(column: str, metric: str, value: float, *, n: int = 300, p: float = math.nan, status: str = "ok") -> dict:
    return {"column": column, "metric": metric, "value": value, "n": n, "p": p, "status": status}


def tell(
    *, score: dict, found: list[dict], traffic: dict | None = None, firing: int = 0, model: Sequence[str] = ("v2",)
) -> str:
    """The summary of a week in which this was found."""
    seen = {**TRAFFIC, **(traffic or {}), "versions": []}
    rows = traffic_rows(WEEK, seen, now=WEEK.end) + period_rows(WEEK, "score", [score], model=model)
    history = make_history([*rows, *period_rows(WEEK, "input", found, model=[])])
    expected = Expected(version="v2", scores=PROMISED)
    return tell_state(history, WEEK, length="week", metric="accuracy", expected=expected, firing=firing)


def test_a_week_is_told_in_three_sentences() -> None:
    score = {"metric": "accuracy", "value": 0.97, "low": 0.95, "high": 0.985, "n": 212}
    found = [drifted("age", "psi", 0.01), drifted("", SHIFTED, 0.0, n=1)]
    assert tell(score=score, found=found) == (
        "No alert fires. In the week of 16 November 2026 its Accuracy was 0.970 (0.950 to 0.985) on 212 calls with a "
        "label, beside the 0.980 (0.970 to 0.990) that its evaluation promised. There were 1,204 requests, 0.3 % of "
        "them errors; 0 of 1 input column shifted."
    )


def test_one_request_is_one() -> None:
    nothing = {"metric": "accuracy", "value": math.nan, "low": math.nan, "high": math.nan, "n": 0}
    told = tell(score=nothing, found=[], traffic={"requests": 1, "rows": 1, "errors": 0})
    assert "There was 1 request, 0 % of them errors" in told


@pytest.mark.parametrize(
    ("model", "whose"),
    [(["v1"], "the Accuracy of 1 former version"), (["v0", "v1", "v2"], "the Accuracy of it and 2 former versions")],
)
def test_a_score_of_former_versions_is_not_called_the_champions(model: list[str], whose: str) -> None:
    score = {"metric": "accuracy", "value": 0.9, "low": 0.85, "high": 0.95, "n": 212}
    told = tell(score=score, found=[], model=model)
    assert (
        f"In the week of 16 November 2026 {whose} was 0.900 (0.850 to 0.950) on 212 calls with a label, "
        "beside the 0.980 (0.970 to 0.990) that the champion's evaluation promised."
    ) in told


def test_what_got_worse_and_which_columns_shifted_is_named() -> None:
    score = {"metric": "accuracy", "value": 0.9, "low": 0.85, "high": 0.95, "n": 212}
    found = [drifted("job", "js", 0.3, status="shifted"), drifted("age", "psi", 0.0), drifted("", SHIFTED, 1.0, n=2)]
    told = tell(score=score, found=found, firing=1)
    assert told.startswith("1 alert fires. In the week of 16 November 2026 its Accuracy was 0.900 (0.850 to 0.950)")
    assert "worse than the 0.980 (0.970 to 0.990) that its evaluation promised" in told
    assert told.endswith("1 of 2 input columns (job) shifted.")


def test_without_labels_inputs_or_calls_nothing_is_made_up() -> None:
    unknown = {"metric": "accuracy", "value": math.nan, "low": math.nan, "high": math.nan, "n": 0}
    hidden = [drifted("text", "oov_share", math.nan, n=0, status="hidden"), drifted("", SHIFTED, math.nan, n=0)]
    told = tell(score=unknown, found=hidden)
    assert "no call had an input with a label, so that nobody knows its Accuracy" in told
    assert told.endswith("whether the inputs have shifted is not known.")
    nobody = tell(score=unknown, found=[], traffic={"requests": 0, "rows": 0})
    assert nobody == "No alert fires. Nobody asked anything in the week of 16 November 2026."


def test_columns_are_listed_the_shifted_first_each_with_its_measures_and_smallest_p() -> None:
    found = [
        drifted("b", "psi", 0.5, status="shifted"),
        drifted("b", "ks", 0.25, p=1e-9, status="shifted"),
        drifted("a", "js", 0.001, p=0.5),
        drifted("c", "psi", math.nan, n=10, status="failed: TypeError: no"),
        drifted("", SHIFTED, 1.0, n=2),
    ]
    listed = list_columns(make_history(period_rows(WEEK, "input", found, model=[])), WEEK.name, "input")
    assert list(listed.columns) == ["Column", "State", "Rows", "p", "PSI", "KS", "JS"]
    assert listed["Column"].tolist() == ["b", "c", "a"]
    assert listed["State"].tolist() == ["shifted", "failed: TypeError: no", "ok"]
    assert listed["p"].tolist() == ["< 0.001", "—", "0.500"]
    assert list_columns(make_history([]), WEEK.name, "input").empty


def test_the_outputs_that_are_compared_are_of_the_positive_class_of_all_or_amounts() -> None:
    said = list_outputs([{"label": 1, "value": 0.75, "probability": {"0": 0.25, "1": 0.75}}])
    binary = {"task": "binary", "classes": [0, 1], "positive": None}
    assert choose_outputs(said, binary).to_dict("list") == {"label": ["1"], "probability of 1": [0.75]}
    several = {"task": "multiclass", "classes": [0, 1], "positive": None}
    assert choose_outputs(said, several).to_dict("list") == {"label": ["1"], "value": [0.75]}
    amounts = {"task": "regression", "classes": [], "positive": None}
    assert choose_outputs(list_outputs([{"value": 2.5}]), amounts).to_dict("list") == {"value": [2.5]}


def test_inputs_are_taken_once_unless_those_of_the_champions_data_repeat() -> None:
    told = {repeats: is_told_once(Series([*range(100 - repeats), *[0] * repeats])) for repeats in (0, 5, 6, 90)}
    assert told == {0: True, 5: True, 6: False, 90: False}


@pytest.mark.parametrize(
    ("length", "told"),
    [("day", "on 16 November 2026"), ("week", "in the week of 16 November 2026"), ("month", "in November 2026")],
)
def test_a_period_is_named_as_people_say_it(length: str, told: str) -> None:
    assert name_period(WEEK.name, length) == told


def test_a_moment_is_utc_unless_it_says_otherwise() -> None:
    assert read_moment("2026-11-20") == datetime(2026, 11, 20, tzinfo=UTC)
    assert read_moment("2026-11-20T00:30+02:00").isoformat() == "2026-11-19T22:30:00+00:00"
    assert abs(read_moment("") - datetime.now(UTC)) < timedelta(minutes=1)
    for odd in ("soon", "0001-01-01T00:00+10:00"):
        with pytest.raises(ParameterError, match=rf"until is '{re.escape(odd)}'; a date or time in ISO 8601 such as"):
            read_moment(odd)
    with pytest.raises(ParameterError, match="until is '9999-12-31', which has not come yet; leave it empty for now"):
        read_moment("9999-12-31")


def test_of_labels_that_the_champion_does_not_know_the_commonest_are_named() -> None:
    unknown = {"x" * 41: 1200, **dict.fromkeys("fedcb", 3), "a": 4}
    told = f"7 labels of 1,219 calls: {'x' * 40}… (1,200), a (4), b (3), c (3), d (3), …"
    assert tell_unknown(unknown) == told
    assert tell_unknown({}) == ""
    assert tell_unknown({"eggs": 1}) == "1 label of 1 call: eggs (1)"
