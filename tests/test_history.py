"""The history of monitoring: merged, kept as a pin, filled up by late labels, and spared by retention."""

import math
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas
import pytest
import sqlalchemy as sql
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas import DataFrame
from pandas.testing import assert_frame_equal
from pinmill.board import Board
from pinmill.errors import DataError
from pinmill.history import COLUMNS, make_history, merge_history, needs_drift, period_rows, traffic_rows
from pinmill.outcomes import read_outcomes, read_truth, score_outcomes
from pinmill.periods import Period, list_periods, read_traffic
from pinmill.store import CALLS, Store, stamp
from test_outcomes import BINARY, HAM, label
from test_periods import MONDAY, SPAM, WEEK, call, fill

NEXT = Period(WEEK.end, WEEK.end + timedelta(days=7))
DURING, AFTER = WEEK.start + timedelta(days=3), WEEK.end + timedelta(days=3)
NOTHING = {"timed": 0, "errors": 0, "cached": math.nan, "p50_ms": math.nan, "p95_ms": math.nan, "p99_ms": math.nan}


@pytest.fixture
def store(store_place: Path | str) -> Iterator[Store]:
    """An empty store of either kind."""
    store = Store(store_place)
    yield store
    store.close()


def traffic(requests: int = 10, rows: int = 20, versions: Sequence[str] = ("v1",)) -> dict[str, Any]:
    """What `read_traffic` tells, in short."""
    return NOTHING | {"requests": requests, "rows": rows, "versions": [{"version": each} for each in versions]}


def found(period: Period, subject: str, **values: float) -> list[dict[str, Any]]:
    """Rows of a period with these metrics."""
    return period_rows(
        period, subject, [{"metric": name, "value": each} for name, each in values.items()], model=["v1"]
    )


def values_of(history: DataFrame, period: Period, subject: str) -> dict[str, float]:
    """Value by metric."""
    chosen = history[(history["period"] == period.name) & (history["subject"] == subject)]
    assert chosen["metric"].is_unique
    return dict(zip(chosen["metric"], chosen["value"], strict=True))


def test_traffic_becomes_a_row_for_each_number() -> None:
    seen = traffic(requests=8, rows=20, versions=["v2", "v1"])
    seen |= {"errors": 2, "cached": 0.25, "timed": 6, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0}
    rows = traffic_rows(WEEK, seen, now=WEEK.end)
    values = {
        "requests": (8, 8), "rows": (20, 8), "errors": (2, 8), "cached": (0.25, 20), "p50_ms": (1.0, 6),
        "p95_ms": (2.0, 6), "p99_ms": (3.0, 6), "error_share": (0.25, 8), "complete": (1.0, 8),
    }  # fmt: skip
    about = {"period": "2026-11-16", "subject": "traffic", "model": "v1, v2"}
    assert rows == [{**about, "metric": name, "value": value, "n": n} for name, (value, n) in values.items()]


def test_a_period_is_complete_from_its_end_on() -> None:
    states = {WEEK.end - timedelta(microseconds=1): 0.0, WEEK.end: 1.0, AFTER: 1.0}
    told = {now: values_of(make_history(traffic_rows(WEEK, traffic(), now=now)), WEEK, "traffic") for now in states}
    assert {now: values["complete"] for now, values in told.items()} == states


def test_a_period_without_requests_has_no_share_of_errors() -> None:
    values = values_of(make_history(traffic_rows(WEEK, traffic(requests=0, rows=0), now=AFTER)), WEEK, "traffic")
    assert math.isnan(values.pop("error_share"))
    assert (values["requests"], values["rows"], values["complete"]) == (0, 0, 1)


def test_what_a_row_does_not_say_is_empty() -> None:
    history = make_history([{"period": "2026-11-16", "subject": "score", "metric": "f1", "value": 1}])
    about = {"period": "2026-11-16", "subject": "score", "column": "", "metric": "f1"}
    numbers = {"value": 1.0, "low": math.nan, "high": math.nan, "n": 0, "p": math.nan}
    assert_frame_equal(history, DataFrame([{**about, **numbers, "status": "ok", "model": ""}], columns=COLUMNS))
    assert make_history([]).columns.tolist() == COLUMNS
    assert make_history([]).dtypes.equals(history.dtypes)


def test_the_first_history_is_what_was_found() -> None:
    now = make_history(found(NEXT, "score", f1=0.5) + found(WEEK, "score", f1=0.6, accuracy=0.7))
    merged = merge_history(None, now)
    assert merged[["period", "metric", "value"]].values.tolist() == [
        ["2026-11-16", "accuracy", 0.7], ["2026-11-16", "f1", 0.6], ["2026-11-23", "f1", 0.5]
    ]  # fmt: skip


def test_what_is_found_anew_replaces_its_subject_and_the_rest_stays() -> None:
    before = make_history(
        found(WEEK, "score", f1=0.5, accuracy=0.6) + found(WEEK, "input", psi=0.1) + found(NEXT, "score", f1=0.7)
    )
    merged = merge_history(before, make_history(found(WEEK, "score", f1=0.9)))
    assert values_of(merged, WEEK, "score") == {"f1": 0.9}  # accuracy is not asked for any more
    assert values_of(merged, WEEK, "input") == {"psi": 0.1}
    assert values_of(merged, NEXT, "score") == {"f1": 0.7}
    assert len(merged) == 3


def test_of_what_was_found_twice_the_last_counts() -> None:
    merged = merge_history(None, make_history(found(WEEK, "score", f1=0.5) + found(WEEK, "score", f1=0.9)))
    assert values_of(merged, WEEK, "score") == {"f1": 0.9}
    before = make_history(traffic_rows(WEEK, traffic(30), now=DURING) + traffic_rows(WEEK, traffic(10), now=DURING))
    now = merge_history(before, make_history(traffic_rows(WEEK, traffic(10), now=AFTER)))
    assert values_of(now, WEEK, "traffic")["complete"] == 1


def test_nothing_found_changes_nothing() -> None:
    before = merge_history(None, make_history(found(WEEK, "score", f1=0.5)))
    assert_frame_equal(merge_history(before, make_history([])), before)
    assert_frame_equal(merge_history(make_history([]), before), before)


@pytest.mark.parametrize(("requests", "rows"), [(9, 20), (10, 19), (0, 0)])
def test_a_period_whose_calls_were_removed_keeps_all_of_before(requests: int, rows: int) -> None:
    before = make_history(
        traffic_rows(WEEK, traffic(), now=AFTER) + found(WEEK, "score", f1=0.5) + found(WEEK, "input", psi=0.1)
    )
    now = make_history(
        traffic_rows(WEEK, traffic(requests, rows), now=AFTER)
        + found(WEEK, "score", f1=0.9)
        + found(WEEK, "prediction", psi=0.3)
        + traffic_rows(NEXT, traffic(3, 3), now=AFTER)
    )
    merged = merge_history(before, now)
    known = merge_history(None, before)
    assert_frame_equal(merged[merged["period"] == WEEK.name], known)
    assert values_of(merged, NEXT, "traffic")["rows"] == 3


def scored(period: Period, **counts: int) -> list[dict[str, Any]]:
    """Scores of so many calls, each metric worth its number of calls in hundreds."""
    rows = [{"metric": name, "value": n / 100, "n": n} for name, n in counts.items()]
    return period_rows(period, "score", rows, model=["v1"])


def test_a_label_that_came_late_counts_though_a_call_of_its_period_was_erased() -> None:
    before = make_history(traffic_rows(WEEK, traffic(), now=AFTER) + scored(WEEK, f1=5, accuracy=7))
    fewer = traffic_rows(WEEK, traffic(9, 19), now=AFTER) + found(WEEK, "input", psi=0.3)
    merged = merge_history(before, make_history(fewer + scored(WEEK, f1=6, accuracy=7, r2=0)))
    assert values_of(merged, WEEK, "score") == {"f1": 0.06, "accuracy": 0.07}
    assert values_of(merged, WEEK, "traffic")["rows"] == 20
    assert values_of(merged, WEEK, "input") == {}


def test_a_period_with_more_calls_than_before_is_told_anew() -> None:
    before = make_history(traffic_rows(WEEK, traffic(), now=DURING) + found(WEEK, "score", f1=0.5))
    now = make_history(traffic_rows(WEEK, traffic(11, 21), now=AFTER) + found(WEEK, "score", f1=0.9))
    assert_frame_equal(merge_history(before, now), merge_history(None, now))


def look(store: Store, before: DataFrame | None, periods: list[Period]) -> DataFrame:
    """What a run of monitoring makes of traffic and labels."""
    rows, (truth, _) = [], read_truth(store, "w")
    for period in periods:
        rows += traffic_rows(period, read_traffic(store, "w", period), now=AFTER)
        outcomes = read_outcomes(store, "w", period, truth)
        rows += period_rows(period, "score", score_outcomes(outcomes, ["accuracy"], **BINARY), model=["v1"])
    return merge_history(before, make_history(rows))


def accuracies(history: DataFrame) -> list[list[Any]]:
    """Period, accuracy and n."""
    return history[history["metric"] == "accuracy"][["period", "value", "n"]].values.tolist()


def test_labels_that_come_weeks_later_fill_up_their_period(store: Store) -> None:
    rows = [call(WEEK.start, f"r{n}", output=SPAM) for n in range(4)] + [call(NEXT.start, "r0", output=HAM)]
    fill(store, rows)
    periods = list_periods(WEEK.start, AFTER, period="week")
    label(store, ("r1-0", "spam", "ann"))
    first = look(store, None, periods)
    assert accuracies(first.fillna(-1)) == [["2026-11-16", 1.0, 1], ["2026-11-23", -1, 0]]
    label(store, ("r0-0", "spam", "ann"), ("r2-0", "ham", "ann"), ("r3-0", "ham", "ann"))
    second = look(store, first, periods)
    # The input that was scored in both weeks counts in both.
    assert accuracies(second) == [["2026-11-16", 0.5, 4], ["2026-11-23", 0.0, 1]]
    assert len(second) == len(first)
    assert_frame_equal(look(store, second, periods), second)


def test_retention_takes_calls_and_not_what_was_known_of_them(store: Store) -> None:
    rows = [call(WEEK.start + timedelta(days=day), f"r{day}", output=SPAM) for day in range(10)]
    fill(store, rows)
    periods = list_periods(WEEK.start, AFTER, period="week")
    label(store, *((f"r{day}-0", "spam" if day else "ham", "ann") for day in range(10)))
    before = look(store, None, periods)
    assert accuracies(before) == [["2026-11-16", pytest.approx(6 / 7), 7], ["2026-11-23", 1.0, 3]]
    for until in (WEEK.start + timedelta(days=1), WEEK.end):  # a part of the week, then all of it
        with store.writing() as connection:
            connection.execute(sql.delete(CALLS).where(CALLS.c.time < stamp(until)))
        assert_frame_equal(look(store, before, periods), before)


def test_drift_is_computed_until_a_complete_period_has_it() -> None:
    running, complete = (traffic_rows(WEEK, traffic(), now=now) for now in (DURING, AFTER))
    drift = found(WEEK, "input", psi=0.1)
    told = {
        "nothing is known": (None, AFTER),
        "it runs": (make_history(running + drift), DURING),
        "it ran when it was looked at": (make_history(running + drift), AFTER),
        "it has no drift yet": (make_history(complete + found(WEEK, "score", f1=1)), AFTER),
        "another has it": (make_history(traffic_rows(NEXT, traffic(), now=AFTER) + found(NEXT, "input", psi=1)), AFTER),
    }
    assert {why: needs_drift(before, WEEK, now) for why, (before, now) in told.items()} == dict.fromkeys(told, True)
    assert not needs_drift(make_history(complete + drift), WEEK, WEEK.end)
    status = {"column": "b", "metric": "js", "status": "failed: MemoryError: no room"}
    failed = period_rows(WEEK, "input", [status], model=["v1"])
    assert needs_drift(make_history(complete + drift + failed), WEEK, WEEK.end)  # it is tried again
    assert not needs_drift(make_history(complete + found(WEEK, "prediction", js=0.1)), WEEK, AFTER)


def test_a_table_that_is_no_history_is_one_clear_error() -> None:
    good = make_history(found(WEEK, "score", f1=1.0))
    step = ". Another table, or a damaged one: take this version of the pin off the board, then the one before goes on"
    damaged = {
        "2 problems in the history: column 'metric' is missing; column 'n' is missing": good.drop(
            columns=["metric", "n"]
        ),
        "1 problem in the history: column 'value' holds what is no number": good.astype({"value": object}).replace(
            1.0, "x"
        ),
        "1 problem in the history: column 'period' has missing values": good.assign(period=None),
        "1 problem in the history: column 'n' has missing values": good.assign(n=math.nan),
    }
    for said, table in damaged.items():
        for use in (lambda table: merge_history(table, good), lambda table: needs_drift(table, WEEK, AFTER)):
            with pytest.raises(DataError) as refused:
                use(table)
            assert str(refused.value) == said + step
    with pytest.raises(DataError, match="11 problems in what was found now: column 'period' is missing; "):
        merge_history(good, DataFrame())
    with pytest.raises(DataError, match="10 problems in the history: column 'subject' is missing; "):
        merge_history(DataFrame({"period": ["2026"], "other": [1]}), good)


PERIODS = [Period(MONDAY + week * timedelta(days=7), MONDAY + (week + 1) * timedelta(days=7)) for week in range(4)]
NUMBER = st.floats(-5, 5) | st.just(math.nan)
SCORES = st.lists(st.sampled_from(["f1", "accuracy", "rmse"]), unique=True, max_size=3)
DRIFT = st.lists(
    st.tuples(st.sampled_from(["age", "city", ""]), st.sampled_from(["psi", "ks"])), unique=True, max_size=4
)


@st.composite
def histories(draw: st.DrawFn, periods: Sequence[Period] = PERIODS) -> DataFrame:
    """What a run may find, in any order."""
    rows: list[dict[str, Any]] = []
    for period in draw(st.lists(st.sampled_from(periods), unique=True)):
        if draw(st.booleans()):
            rows += traffic_rows(period, traffic(draw(st.integers(0, 3)), draw(st.integers(0, 3))), now=AFTER)
        rows += found(period, "score", **{name: draw(NUMBER) for name in draw(SCORES)})
        drift = [
            {"column": c, "metric": m, "value": draw(NUMBER), "n": draw(st.integers(0, 9))} for c, m in draw(DRIFT)
        ]
        rows += period_rows(period, draw(st.sampled_from(["input", "prediction"])), drift, model=["v2", "v1"])
    return make_history(draw(st.permutations(rows)))


@settings(max_examples=30, deadline=None)
@given(before=histories(), now=histories())
def test_a_merge_is_done_once_and_for_all(before: DataFrame, now: DataFrame) -> None:
    merged = merge_history(before, now)
    assert_frame_equal(merge_history(merged, now), merged)
    key = ["period", "subject", "column", "metric"]
    assert not merged.duplicated(key).any()
    assert merged[key].values.tolist() == sorted(merged[key].values.tolist())
    assert {*merged["period"]} == {*before["period"], *now["period"]}
    known = {tuple(row) for table in (before, now) for row in table.fillna(-9).values.tolist()}
    assert {tuple(row) for row in merged.fillna(-9).values.tolist()} <= known


@settings(max_examples=20, deadline=None)
@given(before=histories(), first=histories(PERIODS[:2]), second=histories(PERIODS[2:]))
def test_runs_of_different_periods_may_come_in_any_order(
    before: DataFrame, first: DataFrame, second: DataFrame
) -> None:
    one = merge_history(merge_history(before, first), second)
    assert_frame_equal(merge_history(merge_history(before, second), first), one)
    assert_frame_equal(merge_history(before, pandas.concat([second, first])), one)


@settings(max_examples=10, deadline=None)
@given(before=histories(), now=histories())
def test_the_pin_gives_back_the_history_with_its_types(tmp_path_factory, before: DataFrame, now: DataFrame) -> None:
    board, merged = Board(tmp_path_factory.mktemp("board")), merge_history(before, now)
    pin = board.write_table("w-monitoring", merged, facts={}, lineage={})
    kept = board.read_table(pin)
    assert_frame_equal(kept, merged)
    assert_frame_equal(merge_history(kept, now), merged)
