"""What each column of a table holds; expected kinds are what a person would say."""

import numpy as np
import pandas as pd
import pytest
from pinmill.columns import calendar, calendar_names, find_bad_dates, find_kinds, name_inputs, read_dates
from pinmill.errors import ParameterError
from pinmill.model import load_model, save_model
from sklearn.preprocessing import FunctionTransformer

N = 40
DAYS = pd.date_range("2026-01-01", periods=N, freq="D").strftime("%Y-%m-%d").tolist()
COLUMNS = {
    "age": ([20 + n % 30 for n in range(N)], "number"),
    "price": ([n * 1.37 for n in range(N)], "number"),  # each its own, but measured
    "shuffled": (np.random.default_rng(0).permutation(N * 1000)[:N].tolist(), "number"),  # whole, but in no order
    "gap": ([None if n % 3 else float(n) for n in range(N)], "number"),
    "member": ([n % 2 == 0 for n in range(N)], "boolean"),
    "asked": ([None if n % 5 == 0 else n % 2 == 0 for n in range(N)], "boolean"),
    "city": (["Paris", "Rome", None, "Oslo"] * 10, "category"),
    "joined": (DAYS, "date"),
    "left": ([*DAYS[:30], *[None] * 10], "date"),
    "seen": (pd.date_range("2026-01-01", periods=N, tz="UTC"), "date"),
    "day first": ([f"{1 + n % 28:02d}/03/2024" for n in range(N)], "category"),  # 05/03: May or March?
    "review": ([f"this is sentence number {n}" for n in range(N)], "text"),
    "customer": (list(range(1000, 1000 + N)), "id"),
    "mileage": ([n * n for n in range(N)], "number"),  # sorted by it, but no counter
    "backwards": (list(range(N, 0, -1)), "id"),
    "code": ([f"C-{n:04d}" for n in range(N)], "id"),
    "country": (["FR"] * N, "constant"),
    "nothing": ([None] * N, "empty"),
    "blank": ([" "] * N, "empty"),
    "tags": ([["a"]] * N, "nested"),
    "either": ([1, "one"] * (N // 2), "mixed"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_is_what_its_values_say(name: str) -> None:
    values, kind = COLUMNS[name]
    frame = read_dates(pd.DataFrame({name: values}), [name])
    assert find_kinds(frame, [name]) == {name: kind}


def test_in_a_few_rows_values_that_all_differ_are_no_id() -> None:
    frame = pd.DataFrame({"n": [1, 2, 3], "code": ["a", "b", "c"]})
    assert find_kinds(frame, ["n", "code"]) == {"n": "number", "code": "category"}


def test_what_the_params_say_comes_before_what_the_values_say() -> None:
    frame = pd.DataFrame({"zip": list(range(N)), "note": ["ok"] * N, "age": [1, 2] * 20})
    kinds = find_kinds(frame, ["zip", "note", "age"], text=["note"], chosen={"zip": "category", "age": "drop"})
    assert kinds == {"zip": "category", "note": "text", "age": "drop"}


def test_all_that_the_params_cannot_say_is_told_at_once() -> None:
    with pytest.raises(ParameterError) as caught:
        find_kinds(pd.DataFrame({"zip": [1]}), ["zip"], chosen={"zop": "number", "zip": "categori"})
    assert str(caught.value) == (
        "2 problems in 'kinds': 'zop' is no input column. Did you mean 'zip'?; "
        "'zip' is 'categori', none of number, boolean, category, date, text, drop. Did you mean 'category'?"
    )


def test_a_column_that_is_not_there_is_left_to_the_check_of_the_table() -> None:
    assert find_kinds(pd.DataFrame({"a": [1]}), ["b"]) == {"b": "absent"}


@pytest.mark.parametrize("values", [["2026-02-31"], ["2026-01-01", "soon"], ["20260101"]])
def test_what_is_not_surely_a_date_stays_as_it_is(values: list[str]) -> None:
    frame = pd.DataFrame({"when": values})
    pd.testing.assert_frame_equal(read_dates(frame, ["when"]), frame)


def test_times_of_several_zones_become_utc_and_spaces_do_not_matter() -> None:
    frame = pd.DataFrame(
        {"when": ["2026-01-01T00:00+01:00", " 2026-07-01T00:00+02:00", None, "2026-07-01T10:00:30.5Z"]}
    )
    found = read_dates(frame, ["when"])["when"]
    utc = ["2025-12-31T23:00Z", "2026-06-30T22:00Z", None, "2026-07-01T10:00:30.5Z"]
    assert found.tolist() == [pd.Timestamp(text) if text else pd.NaT for text in utc]
    assert str(read_dates(pd.DataFrame({"d": ["2026-01-01 "]}), ["d"])["d"].dtype) == "datetime64[us]"


def test_a_few_values_that_are_no_dates_are_named() -> None:
    frame = pd.DataFrame({"when": ["2026-01-01", "2026-13-01", "2026-01-02", None], "who": ["a", "b", "c", "d"]})
    assert find_bad_dates(frame, ["when", "who"]) == [
        "when is not taken for dates: 1 of 3 values are none, e.g. '2026-13-01' (row 1)"
    ]


def test_a_kind_that_does_not_fit_and_a_column_to_ignore_that_is_not_there_are_told() -> None:
    frame = pd.DataFrame({"size": ["S", "M", None], "age": [1, 2, 3]})
    with pytest.raises(ParameterError) as caught:
        find_kinds(frame, ["size", "age"], chosen={"size": "number", "age": "date"})
    assert str(caught.value) == (
        "2 problems in 'kinds': 'size' cannot be a number: it holds string values, e.g. 'S' (row 0); "
        "'age' cannot be a date: it holds integer values, e.g. 1 (row 0)"
    )
    named = {"text": [], "features": [], "label": "age"}
    assert name_inputs(frame.assign(x=1), ignore=["x"], **named) == ["size"]
    assert name_inputs(frame, ignore=[], **named | {"features": ["age"]}) == ["age"]
    with pytest.raises(ParameterError, match=r"'ignore': there is no column 'sise'. Did you mean 'size'"):
        name_inputs(frame, ignore=["sise"], **named)


def test_a_date_becomes_its_day_month_and_weekday() -> None:
    # by the calendar: 2 January 1970 was a Friday, 20 November 2026 is a Friday, 20,777 days after 1 January 1970
    times = pd.to_datetime(["1970-01-02", "2026-11-20T12:00", None], format="ISO8601")
    found = calendar(pd.DataFrame({"when": times, "zoned": times.tz_localize("UTC")}))
    assert found[0].tolist() == [1.0, 1.0, 4.0] * 2
    assert found[1].tolist() == [20777.5, 11.0, 4.0] * 2
    assert np.isnan(found[2]).all()


def test_a_model_with_a_calendar_is_kept_without_pickle_and_knows_its_names() -> None:
    step = FunctionTransformer(calendar, feature_names_out=calendar_names)
    frame = pd.DataFrame({"when": pd.to_datetime(["2026-11-20"])})
    again = load_model(save_model(step.fit(frame)))
    assert again.transform(frame).tolist() == [[20777.0, 11.0, 4.0]]
    assert list(again.get_feature_names_out()) == ["when (day)", "when (month)", "when (weekday)"]
