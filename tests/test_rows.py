"""Rows of a call: what passes has the hash of the same row in a table; what does not is told, all of it, by field."""

import json

import jsonschema_rs
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pinmill.annotations import hash_inputs
from pinmill.columns import read_dates
from pinmill.prototype import read_prototype
from pinmill.rows import RowError, check_rows, describe_schema, hash_input, list_examples, make_checker

TEXT = {"text": {"type": "text", "dtype": "str", "nullable": False, "examples": ["a", "b"]}}
ODD_TEXTS = ["naïve", "nai\u0308ve", " a\t b\n", "a\u00a0b\x1cc", "\ufeff", "🎉\u0000", '"\\/\u2028\x7f', "＃", "Ω"]
ODD_NUMBERS = [0.0, -0.0, 1e300, -1e300, 5e-324, 2.0**53, 2.0**53 - 1, 0.1, 1e16, 1e-7, 3.0, 1.7976931348623157e308]
TIMES = [
    "2026-01-01", "2026-01-01T10", "2026-01-01 10:00", "2026-01-01T10:00:00.5", "2026-01-01T10:00:00.123456Z",
    "2026-06-01T10:00+01", "2026-06-01T00:00:00+0530", "1969-12-31 23:59:59.999999 -01:00", "1901-01-01",
]  # fmt: skip


def name_rows(frame: pd.DataFrame, *, text: list[str] = ()) -> list[str]:
    """The hashes that 01-prepare gives the rows of a table."""
    return hash_inputs(frame, text=list(text), inputs=list(frame)).tolist()


def check_like(frame: pd.DataFrame, rows: list, *, text: list[str] = ()) -> list[str]:
    """The hashes of rows that are checked against the prototype of `frame`, as a pin holds it."""
    prototype = json.loads(json.dumps(read_prototype(frame, list(frame), text=text)))
    canonicals, problems = check_rows(rows, make_checker(prototype))
    assert problems == []
    return [hash_input(canonical) for canonical in canonicals]


@settings(deadline=None)
@given(st.lists(st.text(min_size=1).filter(str.strip) | st.sampled_from(ODD_TEXTS), min_size=1))
def test_a_text_has_the_hash_that_it_has_in_a_table(texts):
    frame = pd.DataFrame({"text": texts})
    expected = name_rows(frame, text=["text"])
    assert check_like(frame, texts, text=["text"]) == expected
    assert check_like(frame, [{"text": text} for text in texts], text=["text"]) == expected


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(ODD_NUMBERS), min_size=1))
def test_a_number_has_the_hash_that_it_has_in_a_table(numbers):
    frame = pd.DataFrame({"x": numbers}, dtype="float64")
    assert check_like(frame, [{"x": number} for number in numbers]) == name_rows(frame)
    if all(number.is_integer() for number in numbers):
        assert check_like(frame, [{"x": int(number)} for number in numbers]) == name_rows(frame)


@pytest.mark.parametrize("dtype", ["float32", "float16", "Float32"])
def test_a_number_of_a_shorter_float_has_the_hash_of_what_that_holds(dtype):
    frame = pd.DataFrame({"x": [0.1, 3.0, -2.5, 1 / 3]}).astype(dtype)
    assert check_like(frame, [{"x": 0.1}, {"x": 3}, {"x": -2.5}, {"x": 1 / 3}]) == name_rows(frame)


@pytest.mark.parametrize("dtype", ["int64", "Int64", "int8", "uint16", "object", "int64[pyarrow]"])
def test_an_integer_has_the_hash_that_it_has_in_a_table(dtype):
    frame = pd.DataFrame({"n": pd.Series([0, 7, 100]).astype(dtype)})
    assert check_like(frame, [{"n": 0}, {"n": 7.0}, {"n": 100}]) == name_rows(frame)


def test_a_whole_number_in_a_column_with_missing_values_has_one_hash():
    frame = pd.DataFrame({"n": [1.0, None, 3.0], "m": pd.array([1, None, 3], dtype="Int64")})
    rows = [{"n": 1, "m": 1.0}, {"n": None, "m": None}, {"n": 3.0, "m": 3}]
    assert check_like(frame, rows) == name_rows(frame)


@pytest.mark.parametrize("dtype", ["bool", "boolean", "object"])
def test_a_boolean_has_the_hash_that_it_has_in_a_table(dtype):
    frame = pd.DataFrame({"yes": pd.Series([True, False, True]).astype(dtype)})
    assert check_like(frame, [{"yes": True}, {"yes": False}, {"yes": True}]) == name_rows(frame)


def test_what_is_missing_has_the_hash_that_it_has_in_a_table():
    held = {"city": ["Bonn", None], "yes": [True, None], "when": ["2026-01-01", None], "x": [1.5, None]}
    frame = read_dates(pd.DataFrame(held), ["when"])
    rows = [{name: values[0] for name, values in held.items()}, dict.fromkeys(held)]
    assert check_like(frame, rows) == name_rows(frame)


def test_a_category_never_seen_has_the_hash_that_it_has_in_a_table():
    frame = pd.DataFrame({"job": ["cook", " smith", "cook", " smith"]})
    assert check_like(frame, [{"job": "cook"}, {"job": " smith"}]) == name_rows(frame)[:2]
    assert check_like(frame, [{"job": "naïve  baker"}]) == name_rows(pd.DataFrame({"job": ["nai\u0308ve baker"]}))


@pytest.mark.parametrize("text", TIMES)
@pytest.mark.parametrize("dtype", [None, "s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin", "UTC+02:00"])
def test_a_time_has_the_hash_that_it_has_in_a_table(text, dtype, zone):
    times = pd.to_datetime(pd.Series([text]), format="ISO8601", utc=True)
    times = times.dt.tz_convert(zone) if zone else read_dates(pd.DataFrame({"t": [text]}), ["t"])["t"]
    times = times if times.dt.tz is None or zone else times.dt.tz_localize(None)
    frame = pd.DataFrame({"t": times.dt.as_unit(dtype) if dtype else times})
    assert check_like(frame, [{"t": text}]) == name_rows(frame)


def test_nanoseconds_are_kept_where_the_column_holds_them():
    frame = pd.DataFrame({"t": pd.to_datetime(["2026-01-01T10:00:00.123456789"])})
    assert frame["t"].dtype == "datetime64[ns]"
    assert check_like(frame, [{"t": "2026-01-01T10:00:00.123456789"}]) == name_rows(frame)


@settings(deadline=None)
@given(st.datetimes(), st.sampled_from(["", "Z", "+01:00", "-0930", "+14"]))
def test_any_time_has_the_hash_that_it_has_in_a_table(moment, offset):
    assume(1 < moment.year < 9999)  # a zone could move it out of the calendar
    text = moment.isoformat() + offset
    frame = pd.DataFrame({"t": pd.to_datetime(pd.Series([text]), format="ISO8601", utc=True).dt.tz_localize(None)})
    assert check_like(frame, [{"t": text}]) == name_rows(frame)


def test_columns_are_hashed_in_the_order_of_their_names_whatever_these_are():
    frame = pd.DataFrame({"ü": [1], 'a"b': [2], "Z": [3], "": [4]})
    assert check_like(frame, [{"": 4, "Z": 3, "ü": 1, 'a"b': 2}]) == name_rows(frame)


MIXED = pd.DataFrame(
    {
        "text": [f"text {n}" for n in range(8)],
        "job": ["cook", "smith"] * 4,
        "age": np.arange(8, dtype="int8"),
        "height": [1.5, None] * 4,
        "smoker": [True, False] * 4,
        "seen": pd.date_range("2026-01-01", periods=8),
    }
)
GOOD = {"text": "a", "job": "baker", "age": 3.0, "height": None, "smoker": True, "seen": "2026-02-28"}


@pytest.fixture
def prototype():
    return json.loads(json.dumps(read_prototype(MIXED, list(MIXED), text=["text"])))


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("age", "001", '"001" is a text, an integer was expected'),
        ("age", 1.5, "1.5 is a number, an integer was expected"),
        ("age", True, "true is a boolean, an integer was expected"),
        ("age", None, "null is no value, an integer was expected"),
        ("age", 128, "128 is not in -128 to 127, an integer was expected"),
        ("age", float("inf"), "Infinity is not finite, an integer was expected"),
        ("height", float("nan"), "NaN is not finite, a number or null was expected"),
        ("height", 10**400, f"1{'0' * 38}… is not in -1.79769e+308 to 1.79769e+308, a number or null was expected"),
        ("height", False, "false is a boolean, a number or null was expected"),
        ("height", "1.5", '"1.5" is a text, a number or null was expected'),
        ("smoker", 1, "1 is a number, true or false was expected"),
        ("smoker", "true", '"true" is a text, true or false was expected'),
        ("text", "", '"" is blank, a text was expected'),
        ("text", " \t\u00a0", '" \\t\u00a0" is blank, a text was expected'),
        ("text", 7, "7 is a number, a text was expected"),
        ("text", ["a"], "[…] is an array, a text was expected"),
        ("job", {"a": 1}, "{…} is an object, a text was expected"),
        ("job", "", '"" is blank, a text was expected'),
        ("seen", "2026-02-30", '"2026-02-30" is out of range, a time in ISO 8601 as 2026-11-20T10:15:00Z was expected'),
        ("seen", "05/03/2026", '"05/03/2026" is a text, a time in ISO 8601 as 2026-11-20T10:15:00Z was expected'),
        ("seen", "0001-01-01T00:00:00+01:00",
         '"0001-01-01T00:00:00+01:00" is out of range, a time in ISO 8601 as 2026-11-20T10:15:00Z was expected'),
        ("seen", "2026-02-28 ", '"2026-02-28 " is a text, a time in ISO 8601 as 2026-11-20T10:15:00Z was expected'),
        ("seen", "2026-02-28T10:00 ",
         '"2026-02-28T10:00 " is a text, a time in ISO 8601 as 2026-11-20T10:15:00Z was expected'),
        ("seen", "2026-02-28T10:00:00.５",
         '"2026-02-28T10:00:00.５" is a text, a time in ISO 8601 as 2026-11-20T10:15:00Z was expected'),
        ("seen", 20260228, "20260228 is a number, a time in ISO 8601 as 2026-11-20T10:15:00Z was expected"),
        ("seen", "x" * 50, f'"{"x" * 39}…" is a text, a time in ISO 8601 as 2026-11-20T10:15:00Z was expected'),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_what_was_expected(prototype, field, value, problem):
    canonicals, problems = check_rows([GOOD, GOOD | {field: value}], make_checker(prototype))
    assert len(canonicals) == 1
    assert problems == [{"row": 1, "field": field, "problem": problem}]


def test_a_text_that_utf_8_cannot_hold_is_refused_and_the_answer_can_be_written(prototype):
    _, problems = check_rows([GOOD | {"text": "a\ud800", "\ud800": 1}], make_checker(prototype))
    assert [(entry["field"], "surrogates not allowed" in entry["problem"]) for entry in problems] == [
        ("text", True),
        ("\\ud800", False),
    ]
    json.dumps(problems, ensure_ascii=False).encode()


def test_all_violations_of_all_rows_are_told_at_once(prototype):
    rows = [5, {**GOOD, "age": "x", "job": 1}, {**{n: v for n, v in GOOD.items() if n != "smoker"}, "smokr": True}]
    assert check_rows(rows, make_checker(prototype))[1] == [
        {"row": 0, "field": "", "problem": "5 is a number, an object with the fields "
         "age, height, job, seen, smoker, text was expected"},
        {"row": 1, "field": "age", "problem": '"x" is a text, an integer was expected'},
        {"row": 1, "field": "job", "problem": "1 is a number, a text was expected"},
        {"row": 2, "field": "smoker", "problem": "is missing, true or false was expected"},
        {"row": 2, "field": "smokr", "problem": "is no field of this model. Did you mean 'smoker'?"},
    ]  # fmt: skip


def test_of_more_than_a_hundred_violations_the_rest_is_counted(prototype):
    rows = [{}] * 17 + [{**GOOD, "age": None}] * 3  # 17 rows miss all six fields
    _, problems = check_rows(rows, make_checker(prototype))
    assert len(problems) == 101
    assert problems[-1] == {"row": 16, "field": "", "problem": "5 more problems follow, from this row on"}


def test_a_row_error_says_all_that_is_wrong_with_the_row():
    with pytest.raises(RowError, match=r"^2 problems in the row: text is missing, a text was expected; x is no field"):
        make_checker(TEXT)({"x": 1})


@pytest.mark.parametrize(
    "row", ["", " \u2003", None, 1, [], {}, {"text": None}, {"text": ""}, {"text": "a", "b": 1}, True]
)
def test_one_text_column_takes_a_text_or_an_object_with_it_and_nothing_else(row):
    check = make_checker(TEXT)
    assert check("a  b") == check({"text": " a b "}) == '{"text":"a b"}'
    with pytest.raises(RowError):
        check(row)


def test_a_text_alone_is_no_row_of_a_model_with_more_columns(prototype):
    with pytest.raises(RowError, match='"hello" is a text, an object with the fields age'):
        make_checker(prototype)("hello")


def test_a_blank_category_that_the_model_knows_passes():
    frame = pd.DataFrame({"job": ["", "cook"] * 3})
    assert check_like(frame, [{"job": ""}]) == name_rows(frame)[:1]


def accepts(schema: dict, row: object) -> bool:
    """Whether a row fits a JSON Schema, by a library that knows nothing of ours."""
    jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema)
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True).is_valid(row)


ANY = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just("2026-02-28")


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([*GOOD]), ANY | st.integers(-200, 200) | st.dates().map(str) | st.datetimes().map(str))
def test_the_schema_and_the_check_accept_the_same_rows(field, value):
    row = GOOD | {field: value}
    assume(not (field == "seen" and isinstance(value, str) and " " in value))  # more forms pass than RFC 3339 has
    prototype = read_prototype(MIXED, list(MIXED), text=["text"])
    assume(row["height"] not in (float("inf"), float("-inf")))  # JSON has none
    assert accepts(describe_schema(prototype), row) == (check_rows([row], make_checker(prototype))[1] == [])


@settings(deadline=None)
@given(ANY | st.dictionaries(st.sampled_from(["text", "b"]), ANY, max_size=2))
def test_the_schema_of_one_text_and_the_check_accept_the_same_rows(row):
    assert accepts(describe_schema(TEXT), row) == (check_rows([row], make_checker(TEXT))[1] == [])


def test_the_examples_of_the_schema_fit_it_and_pass_the_check(prototype):
    schema = describe_schema(prototype)
    assert schema["examples"] == list_examples(prototype)
    assert [row["seen"] for row in schema["examples"]] == [f"2026-01-0{day}T00:00:00Z" for day in (1, 2, 3)]
    assert all(accepts(schema, row) for row in schema["examples"])
    assert check_rows(schema["examples"], make_checker(prototype))[1] == []


def test_the_schema_of_one_text_offers_texts_and_a_record():
    assert describe_schema(TEXT)["examples"] == ["a", "b", {"text": "a"}]


def test_an_example_that_would_not_pass_is_left_out():
    entry = TEXT["text"] | {"examples": ["", "b"]}
    assert list_examples({"text": entry}) == [{"text": "b"}]
    assert list_examples({"text": entry | {"examples": [""]}}) == []
