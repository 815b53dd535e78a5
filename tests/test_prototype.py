"""Prototypes: what a model expects, told in JSON, and inputs checked against it without loss."""

import json
from pathlib import Path

import pandas as pd
import pytest
from pinmill.errors import DataError
from pinmill.prototype import check_inputs, read_prototype


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "text": [f"text {i}" for i in range(8)],
            "job": ["cook", "smith"] * 4,
            "age": range(8),
            "height": [1.5, None] * 4,
            "smoker": [True, False] * 4,
            "seen": pd.date_range("2026-01-01", periods=8),
        }
    )


@pytest.fixture
def prototype(frame):
    return json.loads(json.dumps(read_prototype(frame, list(frame))))


def test_prototype_tells_type_missing_values_and_examples(prototype):
    assert {name: (column["type"], column["nullable"]) for name, column in prototype.items()} == {
        "text": ("text", False),
        "job": ("category", False),
        "age": ("integer", False),
        "height": ("number", True),
        "smoker": ("boolean", False),
        "seen": ("datetime", False),
    }
    assert prototype["job"]["categories"] == ["cook", "smith"]
    assert prototype["text"]["examples"] == ["text 0", "text 1", "text 2"]
    assert prototype["seen"]["examples"][0] == "2026-01-01T00:00:00"
    assert prototype["height"]["examples"] == [1.5]


def test_text_can_be_named_when_it_repeats(frame):
    assert read_prototype(frame, ["job"], text=["job"])["job"]["type"] == "text"


def test_training_inputs_pass_unchanged(frame, prototype):
    pd.testing.assert_frame_equal(check_inputs(frame, prototype), frame)


def test_columns_come_in_order_others_are_left_out_and_the_index_stays(frame, prototype):
    given = frame[list(frame)[::-1]].assign(extra=1).set_axis([7] * 8)  # a repeated index is none of our business
    pd.testing.assert_frame_equal(check_inputs(given, prototype), frame.set_axis([7] * 8))


def test_types_are_coerced_where_nothing_is_lost(frame, prototype):
    given = pd.DataFrame(
        {
            "text": ["x"],
            "job": ["new"],
            "age": ["58"],
            "height": [2],
            "smoker": ["True"],
            "seen": ["2026-01-01T10:00:00"],
        }
    )
    found = check_inputs(given, prototype)
    seen = pd.to_datetime(["2026-01-01T10:00:00"])
    expected = pd.DataFrame(
        {"text": ["x"], "job": ["new"], "age": [58], "height": [2.0], "smoker": [True], "seen": seen}
    ).astype(frame.dtypes.to_dict())
    pd.testing.assert_frame_equal(found, expected)


def test_all_violations_are_told_at_once(prototype):
    given = pd.DataFrame(
        {
            "txt": ["x", "y"],
            "job": ["cook", 3],
            "age": [1.5, None],
            "height": ["tall", 1],
            "smoker": [1, 2],
            "seen": ["soon", "2026-01-01"],
        }
    )
    with pytest.raises(DataError) as caught:
        check_inputs(given, prototype)
    assert str(caught.value) == (
        "7 problems in the inputs: column 'text' (text) is missing. Did you mean 'txt'?; "
        "column 'job': text is expected, but 1 values are not, e.g. 3 (row 1); "
        "column 'age': 1 missing values (row 1); the model was trained on none; "
        "column 'age': integer is expected, but 1 values are not, e.g. 1.5 (row 0); "
        "column 'height': number is expected, but 1 values are not, e.g. 'tall' (row 0); "
        "column 'smoker': boolean is expected, but 1 values are not, e.g. 2 (row 1); "
        "column 'seen': datetime is expected, but 1 values are not, e.g. 'soon' (row 0)"
    )


@pytest.mark.parametrize(("column", "value"), [("age", True), ("age", 2**60 + 0.0), ("height", 2**53 + 1)])
def test_a_value_that_would_change_is_refused(frame, prototype, column, value):
    given = frame.head(1).astype({column: object})
    given.loc[0, column] = value
    with pytest.raises(DataError, match=f"column '{column}'"):
        check_inputs(given, prototype)


def test_missing_values_are_kept_where_training_had_them(frame, prototype):
    given = frame.assign(height=pd.Series([None, "1.5"] * 4, dtype=object))
    assert check_inputs(given, prototype).height.isna().tolist() == [True, False] * 4


def test_no_rows_are_no_error(frame, prototype):
    pd.testing.assert_frame_equal(check_inputs(frame.head(0), prototype), frame.head(0))


def test_bank_has_seven_numbers_and_nine_categories(shared_data: Path):
    bank = pd.read_csv(shared_data / "bank.csv").drop(
        columns="target"
    )  # shared/data/README.md: 7 numeric, 9 categorical
    found = read_prototype(bank, list(bank))
    assert [column["type"] for column in found.values()].count("integer") == 7
    assert [column["type"] for column in found.values()].count("category") == 9
    pd.testing.assert_frame_equal(check_inputs(bank, json.loads(json.dumps(found))), bank)


def test_a_time_with_or_without_a_zone_becomes_what_the_model_was_trained_on():
    naive = pd.DataFrame({"t": pd.to_datetime(["2026-01-01T00:00", "2026-01-02T00:00"])})
    zoned = naive.assign(t=naive["t"].dt.tz_localize("Europe/Paris"))
    given = pd.DataFrame({"t": ["2026-07-01T12:00:00+02:00", "2026-07-01T10:00:00"]})  # the second is taken for UTC
    moment = pd.Timestamp("2026-07-01T10:00")
    assert check_inputs(given, read_prototype(naive, ["t"]))["t"].tolist() == [moment, moment]
    found = check_inputs(given, read_prototype(zoned, ["t"]))["t"]
    assert found.tolist() == [moment.tz_localize("UTC")] * 2
    assert found.dtype == zoned["t"].dtype
