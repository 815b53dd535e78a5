"""Periods and what is counted in them, in real stores of both kinds."""

import json
import math
import sqlite3
import tracemalloc
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import sqlalchemy as sql
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from pinmill.drift import compare, make_reference
from pinmill.errors import ParameterError
from pinmill.periods import Period, first_call, list_periods, read_inputs, read_outputs, read_traffic
from pinmill.store import CALLS, Store, stamp
from scipy.stats import binom
from traffic_maker import draw_places

MONDAY = datetime(2026, 11, 16, tzinfo=UTC)
WEEK = Period(MONDAY, MONDAY + timedelta(days=7))
TICK = timedelta(microseconds=1)
SPAM = {"label": "spam", "value": 0.9, "probability": {"ham": 0.1, "spam": 0.9}}


def call(when: datetime = MONDAY, request: str = "r", row: int = 0, **more: Any) -> dict[str, Any]:
    """A row of the call log as the gateway writes it."""
    return {
        "workflow": "w", "time": stamp(when), "version": "v1", "endpoint": "POST /predictions", "caller": "shop",
        "input_hash": f"{request}-{row}", "status": 200, "input": None, "output": SPAM, "milliseconds": 2.0,
        "cached": False, "request": request, "row": row,
    } | more  # fmt: skip


def refusal(when: datetime = MONDAY, request: str = "r", **more: Any) -> dict[str, Any]:
    """The row of a call that scored nothing."""
    return call(when, request, **{"input_hash": "", "output": None, "status": 422, "version": ""} | more)


@pytest.fixture
def store(store_place: Path | str) -> Iterator[Store]:
    """An empty store of either kind."""
    store = Store(store_place)
    yield store
    store.close()


def fill(store: Store, rows: Sequence[dict[str, Any]]) -> Store:
    """The store with these calls in it."""
    with store.writing() as connection:
        connection.execute(sql.insert(CALLS), rows)
    return store


@pytest.mark.parametrize(
    ("period", "first", "now", "names"),
    [
        ("day", "2026-02-27T23:59:59", "2026-03-01T00:00:00", ["2026-02-27", "2026-02-28", "2026-03-01"]),
        ("day", "2028-02-28T12:00:00", "2028-03-01T12:00:00", ["2028-02-28", "2028-02-29", "2028-03-01"]),
        ("week", "2026-11-16T00:00:00", "2026-11-22T23:59:59", ["2026-11-16"]),
        ("week", "2026-11-15T23:59:59", "2026-11-23T00:00:00", ["2026-11-09", "2026-11-16", "2026-11-23"]),
        # 2026 has 53 ISO weeks: the last begins on 28 December and ends in 2027.
        ("week", "2026-12-27T12:00:00", "2027-01-04T00:00:00", ["2026-12-21", "2026-12-28", "2027-01-04"]),
        ("month", "2026-12-31T23:59:59", "2027-01-01T00:00:00", ["2026-12-01", "2027-01-01"]),
        ("month", "2027-01-31T00:00:00", "2027-03-31T00:00:00", ["2027-01-01", "2027-02-01", "2027-03-01"]),
        ("month", "2026-11-30T23:59:59", "2026-11-30T23:59:59", ["2026-11-01"]),
        ("month", "2026-12-05T00:00:00", "2026-11-05T00:00:00", ["2026-11-01"]),  # a call by a clock that goes ahead
    ],
)
def test_periods_begin_and_end_as_the_calendar_says(period: str, first: str, now: str, names: list[str]) -> None:
    found = list_periods(*(datetime.fromisoformat(f"{when}+00:00") for when in (first, now)), period=period)
    assert [each.name for each in found] == names
    assert [each.end for each in found[:-1]] == [each.start for each in found[1:]]


def test_a_time_of_another_zone_is_in_the_period_of_its_utc_time() -> None:
    before = datetime.fromisoformat("2026-11-16T01:30:00+02:00")  # Sunday 23:30 UTC
    assert list_periods(before, before, period="week") == [Period(MONDAY - timedelta(days=7), MONDAY)]


def test_another_period_is_refused_by_name() -> None:
    with pytest.raises(ParameterError) as refused:
        list_periods(MONDAY, MONDAY, period="weak")
    said = "period is 'weak'; one of day, week, month was expected. Did you mean 'week'?"
    assert str(refused.value) == said


MOMENTS = st.datetimes(datetime(2019, 12, 1), datetime(2021, 2, 1), timezones=st.just(UTC))


@given(times=st.lists(MOMENTS, min_size=1, max_size=30), period=st.sampled_from(["day", "week", "month"]))
def test_every_time_is_in_exactly_one_period(times: list[datetime], period: str) -> None:
    found = list_periods(min(times), max(times), period=period)
    assert [sum(each.start <= when < each.end for each in found) for when in times] == [1] * len(times)
    assert found[0].start <= min(times)
    assert max(times) < found[-1].end


EDGES = [MONDAY + timedelta(days=days) + edge for days in (0, 7, 14, 15) for edge in (-TICK, timedelta(0), TICK)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(times=st.lists(st.sampled_from(EDGES) | MOMENTS, min_size=1), period=st.sampled_from(["day", "week", "month"]))
def test_the_periods_hold_every_call_once(tmp_path_factory, times: list[datetime], period: str) -> None:
    rows = [call(when, f"r{number}") for number, when in enumerate(times)]
    store = fill(Store(tmp_path_factory.mktemp("store") / "pinmill.sqlite"), rows)
    first = first_call(store, "w")
    assert first == min(times)
    wanted = {
        "week": [max(times) - timedelta(days=70), max(times)],
        "day": [max(times) - timedelta(days=3), max(times)],
    }
    within = [when for when in times if when >= wanted.get(period, [min(times)])[0]]
    found = list_periods(min(within), max(within), period=period)
    counted = sum(read_traffic(store, "w", each)["rows"] for each in found)
    assert counted == sum(found[0].start <= when for when in times)
    store.close()


def test_a_call_on_the_boundary_is_in_the_period_that_begins_there(store: Store) -> None:
    fill(store, [call(WEEK.start - TICK, "a"), call(WEEK.start, "b"), call(WEEK.end - TICK, "c")])
    weeks = list_periods(WEEK.start - TICK, WEEK.end, period="week")
    assert [read_traffic(store, "w", week)["rows"] for week in weeks] == [1, 2, 0]


def test_traffic_is_counted_by_hand(store: Store) -> None:
    later = MONDAY + timedelta(days=2)
    rows = [
        *(call(MONDAY, "a", row, milliseconds=10.0, cached=row > 0) for row in range(3)),
        call(MONDAY, "b", milliseconds=20.0, caller="app", version="v2", endpoint="POST /prediction"),
        call(later, "c", milliseconds=30.0),
        *(call(later, "c", row, milliseconds=30.0, status=500, output=None) for row in (1, 2)),  # of one request
        refusal(later, "d", milliseconds=900.0),
        call(later, "e", endpoint="GET /metadata", input_hash="", output=None, caller="app", milliseconds=500.0),
        refusal(later, "f", endpoint="GET /ready", status=503),  # a probe
        refusal(later, "g", endpoint="GET /metrics", status=401),  # another
        refusal(later, "k", endpoint="GET /data", status=403),  # of the gateway's own, logged where it fails
        refusal(later, "l", endpoint="POST /annotations", status=201),  # a person labels
        call(later, "h", workflow="other"),
        call(WEEK.end, "i"),
    ]
    assert read_traffic(fill(store, rows), "w", WEEK) == {
        "requests": 5,
        "rows": 7,
        "errors": 2,
        "cached": 2 / 7,
        "timed": 3,
        "p50_ms": 20.0,
        "p95_ms": 30.0,
        "p99_ms": 30.0,
        "callers": [
            {"caller": "shop", "requests": 3, "rows": 6, "errors": 2},
            {"caller": "app", "requests": 2, "rows": 1, "errors": 0},
        ],
        "versions": [
            {"version": "v1", "requests": 3, "rows": 6, "errors": 1},
            {"version": "v2", "requests": 1, "rows": 1, "errors": 0},
        ],
    }


def test_no_calls_are_no_traffic_inputs_and_outputs(store: Store) -> None:
    fill(store, [call(workflow="other"), refusal(endpoint="GET /ready"), refusal(endpoint="POST /queue/undo")])
    counts = {"requests": 0, "rows": 0, "errors": 0, "timed": 0, "callers": [], "versions": []}
    shares = ["cached", "p50_ms", "p95_ms", "p99_ms"]
    assert first_call(store, "w") is None
    traffic = read_traffic(store, "w", WEEK)
    assert [math.isnan(traffic.pop(name)) for name in shares] == [True] * 4
    assert traffic == counts
    frame, facts = read_inputs(store, "w", WEEK)
    assert (frame.shape, facts) == ((0, 0), {"rows": 0, "hidden": 0, "taken": 0})
    outputs = read_outputs(store, "w", WEEK, version="v1")
    assert (outputs.columns.tolist(), len(outputs)) == (["label", "value"], 0)


def test_a_store_that_nobody_wrote_has_no_calls(tmp_path: Path) -> None:
    store = Store(tmp_path / "pinmill.sqlite")
    assert first_call(store, "w") is None
    assert read_traffic(store, "w", WEEK)["requests"] == 0
    assert read_inputs(store, "w", WEEK)[1] == {"rows": 0, "hidden": 0, "taken": 0}
    assert len(read_outputs(store, "w", WEEK, version="v1")) == 0
    store.close()


def test_the_percentiles_are_those_of_numpy(store: Store) -> None:
    times = np.random.default_rng(1).gamma(2, 5, size=237).round(3).tolist()
    rows = [call(MONDAY, f"r{n}", row, milliseconds=time) for n, time in enumerate(times) for row in range(1 + n % 3)]
    traffic = read_traffic(fill(store, rows), "w", WEEK)
    expected = np.quantile(times, [0.5, 0.95, 0.99], method="inverted_cdf").tolist()
    assert [traffic[f"p{percent}_ms"] for percent in (50, 95, 99)] == expected


def test_callers_beyond_the_first_twenty_are_others(store: Store) -> None:
    rows = [call(MONDAY, f"{who}-{n}", caller=f"c{who:02}") for who in range(23) for n in range(30 - who)]
    callers = read_traffic(fill(store, rows), "w", WEEK)["callers"]
    named = [{"caller": f"c{who:02}", "requests": 30 - who, "rows": 30 - who, "errors": 0} for who in range(20)]
    assert callers == [*named, {"caller": "others", "requests": 27, "rows": 27, "errors": 0}]


def test_inputs_come_as_they_were_sent(store: Store) -> None:
    rows = [
        call(MONDAY, "a", input={"age": 3, "city": "Rome"}),
        call(MONDAY, "b", input={"age": None, "city": None}, status=500, output=None),  # the model failed on it
        call(MONDAY, "c"),
        refusal(MONDAY, "d"),
        call(WEEK.end, "e", input={"age": 4, "city": "Oslo"}),
    ]
    frame, facts = read_inputs(fill(store, rows), "w", WEEK)
    expected = pandas.DataFrame({"age": [3, np.nan], "city": ["Rome", None]})
    assert_frame_equal(frame, expected)
    assert facts == {"rows": 3, "hidden": 1, "taken": 2}


def test_a_text_and_the_object_of_it_are_one_column(store: Store) -> None:
    fill(store, [call(MONDAY, "a", input="hello"), call(MONDAY, "b", input={"body": "bye"})])
    frame, _ = read_inputs(store, "w", WEEK, text="body")
    assert frame.to_dict("list") == {"body": ["hello", "bye"]}


def test_inputs_that_are_hidden_are_counted(store: Store) -> None:
    fill(store, [call(MONDAY, "a", row) for row in range(4)])
    frame, facts = read_inputs(store, "w", WEEK)
    assert (len(frame), facts) == (0, {"rows": 4, "hidden": 4, "taken": 0})


def test_a_sample_is_the_same_every_time_and_from_the_whole_period(store: Store) -> None:
    step = (WEEK.end - WEEK.start) / 3000
    rows = [call(WEEK.start + n * step, f"r{n}", input={"n": n}, output={"value": float(n)}) for n in range(3000)]
    # Every second row is of another workflow, as where two are served.
    mixed = [each for row in rows for each in (row, {**row, "workflow": "other"})]
    fill(store, mixed)
    frame, facts = read_inputs(store, "w", WEEK, most=300)
    assert facts == {"rows": 3000, "hidden": 0, "taken": 300}
    assert frame["n"].is_unique
    by_day = np.histogram(frame["n"], bins=7, range=(0, 3000))[0]
    assert by_day.min() > 300 / 7 * 0.7
    assert_frame_equal(read_inputs(store, "w", WEEK, most=300)[0], frame)
    assert read_outputs(store, "w", WEEK, version="v1", most=300)["value"].tolist() == frame["n"].tolist()
    assert read_outputs(store, "w", WEEK, version="v1")["value"].tolist() == list(range(3000))


def test_an_input_that_came_often_is_taken_once(store: Store) -> None:
    asked = ["a", "b", "a", "a", "c", "b", "d"]
    rows = [
        call(MONDAY, f"r{n}", input_hash=name, input=name, output={"value": float(n)}) for n, name in enumerate(asked)
    ]
    rows[0]["input"] = rows[6]["input"] = None  # before inputs were kept
    rows[1] |= {"output": None, "status": 500}
    fill(store, rows)
    frame, facts = read_inputs(store, "w", WEEK)
    assert (frame["text"].tolist(), facts) == (["b", "a", "c"], {"rows": 7, "hidden": 2, "taken": 3})
    assert read_outputs(store, "w", WEEK, version="v1")["value"].tolist() == [0.0, 4.0, 5.0, 6.0]


@pytest.mark.parametrize(
    ("decimals", "repeated", "once"),
    [(9, 0.8, True), (0, 0.0, False)],  # the same are asked again and again; cases that are alike in all columns
)
def test_false_alarms_are_as_rare_as_the_level_says_however_often_an_input_comes(
    tmp_path: Path, decimals: int, repeated: float, once: bool
) -> None:
    random, level, alarms = np.random.default_rng(6), 0.1, 0
    weeks = list_periods(MONDAY, MONDAY + timedelta(weeks=79), period="week")
    store = Store(tmp_path / "pinmill.sqlite")

    def draw(n: int) -> pandas.DataFrame:
        """Rows that never change in kind."""
        plans = random.choice(["free", "basic", "team"], n, p=[0.6, 0.3, 0.1])
        return pandas.DataFrame({"age": random.gamma(4, 10, n).round(decimals), "plan": plans})

    for week in weeks:
        train, held, now = (draw(n) for n in (300, 250, 600))
        sent, places = now.to_dict("records"), draw_places(600, 600, repeated=repeated, chance=random)
        rows = [
            call(week.start, f"{week.name}-{n}", input_hash=f"{sent[place]}", input=sent[place])
            for n, place in enumerate(places)
        ]
        frame, facts = read_inputs(fill(store, rows), "w", week, once=once)
        assert (facts["rows"], facts["taken"]) == (600, len({*places}) if once else 600)
        reference = make_reference(train, held, kinds={"age": "number", "plan": "category"})
        alarms += any(row["p"] < level for row in compare(reference, frame, hidden=0, min_n=50, level=level))
    assert 0 < alarms <= binom.ppf(0.999, len(weeks), level)  # with the other `once` most weeks would be
    store.close()


def test_outputs_are_those_of_one_version(store: Store) -> None:
    """A promotion is no shift of what the new champion says."""
    rows = [call(MONDAY, f"r{n}", version=f"v{1 + n % 2}", output={"value": float(n)}) for n in range(6)]
    fill(store, [*rows, call(MONDAY, "r6", input_hash="r0-0", version="v2", output={"value": 6.0})])
    told = {version: read_outputs(store, "w", WEEK, version=version)["value"].tolist() for version in ("v1", "v2", "")}
    assert told == {"v1": [0.0, 2.0, 4.0], "v2": [1.0, 3.0, 5.0, 6.0], "": []}


def test_outputs_of_all_tasks_are_one_table(store: Store) -> None:
    rows = [
        call(MONDAY, "a", output=SPAM),
        call(MONDAY, "b", output={"label": 1}),
        call(MONDAY, "c", output={"value": 3.5}),
        call(MONDAY, "d", output=[1, None]),  # of a cell that somebody wrote
        call(MONDAY, "e", output={"label": "x", "value": "much", "probability": 1}),
        call(MONDAY, "f", output=None, status=500),
        refusal(MONDAY, "g"),
    ]
    nan = float("nan")
    expected = pandas.DataFrame(
        {
            "label": pandas.Series(["spam", 1, None, None, "x"], dtype=object),
            "value": [0.9, nan, 3.5, nan, nan],
            "probability of ham": [0.1, nan, nan, nan, nan],
            "probability of spam": [0.9, nan, nan, nan, nan],
        }
    )
    outputs = read_outputs(fill(store, rows), "w", WEEK, version="v1")
    assert_frame_equal(outputs, expected)


def explain(store: Store, read: Any) -> list[str]:
    """What SQLite says of each query on the calls that `read` makes."""
    seen: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    sql.event.listen(store._engine, "before_cursor_execute", note)
    read()
    sql.event.remove(store._engine, "before_cursor_execute", note)
    with store._engine.connect() as connection:
        plans = [
            connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            for statement, parameters in seen
            if "calls" in statement
        ]
    assert plans
    return [row[-1] for plan in plans for row in plan if "calls" in row[-1].lower()]


def test_every_query_takes_the_index_by_time(tmp_path: Path) -> None:
    rows = [call(MONDAY, f"r{n}", input="x") for n in range(50)]
    store = fill(Store(tmp_path / "pinmill.sqlite"), rows)

    def read() -> None:
        """All that is read of a period."""
        read_traffic(store, "w", WEEK)
        read_inputs(store, "w", WEEK)
        read_outputs(store, "w", WEEK, version="v1")

    within = "SEARCH calls USING INDEX by_time (workflow=? AND time>? AND time<?)"
    by_id = "SEARCH calls USING INTEGER PRIMARY KEY (rowid=?)"  # of the sample
    assert explain(store, read) == [within] * 4 + [by_id, within, by_id]
    assert explain(store, lambda: first_call(store, "w")) == ["SEARCH calls USING INDEX by_time (workflow=?)"]
    store.close()


def test_what_is_read_does_not_grow_with_the_calls(tmp_path: Path) -> None:
    path, n = tmp_path / "pinmill.sqlite", 200_000
    fill(Store(path), [call(WEEK.end, "late")]).close()
    connection, step = sqlite3.connect(path), (WEEK.end - WEEK.start) / n
    output, names = (
        json.dumps(SPAM),
        "workflow time version endpoint caller input_hash status input output milliseconds",
    )
    columns = f"{names.replace(' ', ', ')}, cached, request, row"
    rows = (
        ("w", stamp(WEEK.start + k * step), "v1", "POST /prediction", f"c{k % 50}", f"{k % 9000:032x}", 200,
         json.dumps({"n": k}), output, k % 977 / 10, k % 4 == 0, f"r{k}", 0)
        for k in range(n)
    )  # fmt: skip
    with connection:
        connection.executemany(f"INSERT INTO calls ({columns}) VALUES ({', '.join('?' * 13)})", rows)
    connection.close()
    store = Store(path)
    read_traffic(store, "w", Period(WEEK.end, WEEK.end + TICK))  # whatever is imported and kept once
    tracemalloc.start()
    traffic = read_traffic(store, "w", WEEK)
    frame, facts = read_inputs(store, "w", WEEK, most=1000)
    outputs = read_outputs(store, "w", WEEK, version="v1", most=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000  # bytes: the calls themselves are tens of MB
    assert (traffic["requests"], traffic["rows"], traffic["cached"]) == (n, n, 0.25)
    times = [k % 977 / 10 for k in range(n)]
    assert traffic["p95_ms"] == np.quantile(times, 0.95, method="inverted_cdf")
    assert [len(traffic[name]) for name in ("callers", "versions")] == [21, 1]
    assert (len(frame), len(outputs), facts) == (1000, 1000, {"rows": n, "hidden": 0, "taken": 1000})
    assert frame["n"].max() < 9000  # the first call of each of 9,000 inputs
    store.close()
