"""The table's contract: all violations at once, equal inputs recognised, nothing lost without a count."""

import hashlib
import json
import time
from datetime import date
from datetime import time as time_of_day
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pinmill.errors import DataError, SourceError
from pinmill.table import (
    RepeatCounts,
    check_table,
    hash_rows,
    load_table,
    normalise_text,
    remove_empty,
    remove_repeats,
    simplify_types,
)


def check(frame, **changes):
    check_table(frame, **({"text": ["text"], "features": [], "label": "label", "task": "binary"} | changes))


def problems(frame, **changes):
    with pytest.raises(DataError) as caught:
        check(frame, **changes)
    return str(caught.value)


@pytest.fixture
def good():
    return pd.DataFrame({"text": ["a", "b", "c", "d"], "label": ["ham", "spam", "ham", "spam"], "n": [1, 2, 3, 4]})


def test_good_table_passes_with_labels_numbers_and_none(good):
    assert check(good, positive="spam") is None
    assert check(good, label="n", task="regression") is None
    assert check(good, label="") is None
    assert check(good.assign(label=["ham", None, "ham", "spam"]), task="auto", drop_unlabelled=True) is None


def test_all_violations_are_told_at_once():
    frame = pd.DataFrame({"txt": ["a", "b"], "note": [1.5, 2.5], "label": ["ham", None], "_part": ["x", "y"]})
    assert problems(frame, text=["text", "note"], features=["label"], positive="spam") == (
        "8 problems in the table: column 'text' is missing. Did you mean 'txt'?; "
        "column '_part' has a name that Pinmill uses itself; column 'label' is named twice as input or label; "
        "column 'note': text is expected, but 2 values are not, e.g. 1.5 (rows 0, 1); "
        "1 empty labels in 'label' (row 1). Label them, or set `drop_unlabelled`; "
        "only one class in 'label': 'ham' in all 1 rows; class 'ham' has only one row (row 0); "
        "the positive class 'spam' is not among the labels 'ham'"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "n", "positive": 9}, "the positive class 9 is not among the labels 1, 2, 3, 4"),
        (
            {"label": "label", "task": "regression"},
            "label 'label': a finite number is expected, but 4 values are not, e.g. 'ham' (rows 0, 1, 2, 3)",
        ),
        ({"text": []}, "no input column is named: give `text` or `features`"),
        ({"positive": "spm"}, "the positive class 'spm' is not among the labels 'ham', 'spam'. Did you mean 'spam'?"),
    ],
)
def test_each_violation_says_what_is_wrong(good, changes, message):
    assert message in problems(good, **changes)


def test_table_level_violations(good):
    assert problems(good.head(0)) == "1 problem in the table: it has no rows"
    twice = pd.concat([good, good[["text"]]], axis="columns")
    assert problems(twice) == "1 problem in the table: column 'text' stands 2 times"
    assert "empty labels in 'label' (rows 0, 1, 2, 3)" in problems(good.assign(label=["", " ", None, float("nan")]))
    assert "a finite number is expected, but 1 values are not, e.g. inf (row 2)" in problems(
        good.assign(n=[1, 2, np.inf, 4]), label="n", task="regression"
    )
    assert problems(good.assign(n=[1, 2, np.inf, 4]), features=["n"]) == (
        "1 problem in the table: column 'n': a finite number is expected, but 1 values are not, e.g. inf (row 2)"
    )
    assert "class 'rare' has only one row (row 3)" in problems(
        good.assign(label=["a", "a", "b", "rare"]).loc[[0, 1, 3, 2, 2]], task="multiclass"
    )


def test_text_is_normalised_for_identity():
    assert normalise_text("  cafe\u0301\u00a0 au\n lait ") == "caf\u00e9 au lait"


def test_hash_is_the_published_rule():
    frame = pd.DataFrame({"b": [1.0, 2.5, None], "a": ["x  y", "é", None], "c": [True, False, True]})
    rows = [{"a": "x y", "b": 1, "c": True}, {"a": "é", "b": 2.5, "c": False}, {"a": None, "b": None, "c": True}]
    text = [json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":")) for row in rows]
    expected = [hashlib.sha256(line.encode()).hexdigest()[:32] for line in text]
    assert hash_rows(frame, ["b", "a", "c"]).tolist() == expected
    assert hash_rows(frame, ["c", "a", "b"]).tolist() == expected


@pytest.mark.parametrize(
    "values",
    [
        ([1, 2], [1.0, 2.0]),
        (["a", None], ["a", float("nan")]),
        (["cafe\u0301"], ["café "]),
        ([np.int8(1)], [np.float32(1)]),
        (pd.Series(["a", "b"], dtype="category"), ["a", "b"]),
        (pd.Series([pd.NaT, pd.Timestamp("2026-01-01")]), [None, "2026-01-01T00:00:00"]),
        ([[1, {"b": 2, "c": 3}]], [[1, {"c": 3, "b": 2}]]),
    ],
)
def test_equal_inputs_have_one_hash_whatever_their_type(values):
    first, second = (hash_rows(pd.DataFrame({"x": list(v) if isinstance(v, list) else v}), ["x"]) for v in values)
    assert first.tolist() == second.tolist()


def test_different_inputs_have_different_hashes():
    values = [1, True, "1", None, "null", "", 1.5, "1.5", 2**60, 2**60 + 1, ("a", "b"), "\ud800"]
    assert hash_rows(pd.DataFrame({"x": pd.Series(values, dtype=object)}), ["x"]).nunique() == len(values)
    columns = pd.DataFrame({"x": ["a"], "y": ["b"]})
    assert hash_rows(columns, ["x"]).tolist() != hash_rows(columns.rename(columns={"x": "z"}), ["z"]).tolist()


def test_bank_is_hashed_in_well_under_two_seconds(shared_data: Path):
    bank = pd.read_csv(shared_data / "bank.csv")
    start = time.process_time()
    hashes = hash_rows(bank, [column for column in bank if column != "target"])
    assert time.process_time() - start < 3  # 1.5 s is the aim; slack for a busy machine
    assert (len(hashes), hashes.index.equals(bank.index)) == (45_211, True)


def test_majority_label_wins_and_ties_go_to_the_last():
    frame = pd.DataFrame(
        {"text": list("aaabbcddd"), "label": ["x", "y", "x", "x", "y", "z", None, "x", None]}, index=range(10, 19)
    )
    kept, counts = remove_repeats(frame, hash_rows(frame, ["text"]), "label")
    assert kept.index.tolist() == [12, 14, 15, 17]
    assert kept.label.tolist() == ["x", "y", "z", "x"]
    assert counts == RepeatCounts(
        removed=5,
        conflicting=2,
        examples=({"rows": [10, 11, 12], "labels": ["x", "y", "x"]}, {"rows": [13, 14], "labels": ["x", "y"]}),
    )


def test_repeats_without_labels_keep_the_last():
    frame = pd.DataFrame({"text": list("aba")})
    kept, counts = remove_repeats(frame, hash_rows(frame, ["text"]))
    assert (kept.index.tolist(), counts) == ([1, 2], RepeatCounts(1, 0, ()))
    assert len(frame) == 3


def test_repeat_counts_are_ready_for_json():
    frame = pd.DataFrame({"text": ["a", "a"], "label": [0, 1]})
    examples = remove_repeats(frame, hash_rows(frame, ["text"]), "label")[1].examples
    assert json.loads(json.dumps(examples)) == [{"rows": [0, 1], "labels": [0, 1]}]


def test_repeats_of_the_real_data_are_the_published_ones(shared_data: Path):
    # shared/data/README.md: 16 repeated texts in electronics, letter for letter
    frame = pd.read_parquet(shared_data / "electronics.parquet")
    assert remove_repeats(frame, frame.text, "annotation")[1].removed == 16


def test_rows_whose_every_input_is_empty_are_removed_and_counted():
    frame = pd.DataFrame({"text": ["a", " ", None, ""], "n": [None, 1.0, None, None]}, index=[3, 4, 5, 6])
    kept, count = remove_empty(frame, ["text", "n"])
    assert (kept.index.tolist(), count) == ([3, 4], 2)


def test_objects_of_parquet_and_databases_become_what_they_mean() -> None:
    objects = {
        "day": [date(2026, 11, 20), None],
        "price": [Decimal("1.50"), None],
        "at": [time_of_day(10, 15), None],
        "huge": [10**30, 1],
        7: ["a", "b"],
    }
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in objects.items()})
    found = simplify_types(frame)
    assert found["day"].tolist() == [pd.Timestamp("2026-11-20"), pd.NaT]
    assert found["price"].iloc[0] == 1.5
    assert np.isnan(found["price"].iloc[1])
    assert found["at"].iloc[0] == "10:15:00"
    assert found["huge"].tolist() == [1e30, 1.0]
    assert list(found) == ["day", "price", "at", "huge", "7"]


def test_a_csv_with_semicolons_says_so() -> None:
    with pytest.raises(SourceError, match=r"one column, 'a;b': save it with ',' between columns, not ';'"):
        load_table(b"a;b\n1;2\n", "x.csv", "x.csv")
