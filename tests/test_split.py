"""Splits: exact where scikit-learn defines them, stable where we promise it, and honest about leaks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pinmill.errors import DataError, ParameterError
from pinmill.split import shared_inputs, split_at_random, split_by_group, split_by_hash, split_by_time, split_table
from pinmill.table import hash_rows
from sklearn.model_selection import train_test_split


@pytest.fixture
def frame():
    n = 200
    return pd.DataFrame(
        {
            "text": [f"text {i}" for i in range(n)],
            "label": ["a", "b", "b", "b"] * (n // 4),
            "day": pd.date_range("2026-01-01", periods=n).strftime("%Y-%m-%d"),
            "person": [f"p{i % 37}" for i in range(n)],
        },
        index=range(1000, 1000 + n),
    )


def split(frame, form, fraction=0.25, seed=42):
    return split_table(frame, hash_rows(frame, ["text"]), split=form, label="label", test_fraction=fraction, seed=seed)


@pytest.mark.parametrize("stratify", [False, True])
def test_random_split_is_scikit_learns(frame, stratify):
    train, test = train_test_split(
        frame.index, test_size=0.3, random_state=7, stratify=frame.label if stratify else None
    )
    parts = split_at_random(frame.label, test_fraction=0.3, seed=7, stratify=stratify)
    assert sorted(parts.index[parts == "test"]) == sorted(test)
    assert sorted(parts.index[parts == "train"]) == sorted(train)


def test_split_table_names_the_same_random_splits(frame):
    for form, stratify in (("random", False), ("stratified", True)):
        expected = split_at_random(frame.label, test_fraction=0.25, seed=42, stratify=stratify)
        pd.testing.assert_series_equal(split(frame, form), expected)


@pytest.mark.parametrize("form", ["hash", "group:person"])
def test_side_stays_when_rows_are_added_removed_or_shuffled(frame, form):
    whole = split(frame, form)
    some = split(frame.sample(60, random_state=1), form)
    pd.testing.assert_series_equal(some, whole[some.index])


def test_larger_fraction_only_adds_to_the_test_part(frame):
    small, large = split(frame, "hash", 0.2), split(frame, "hash", 0.4)
    assert set(small.index[small == "test"]) < set(large.index[large == "test"])


def test_hash_split_is_near_its_fraction_and_depends_on_the_seed():
    hashes = pd.Series([f"{i:032x}" for i in range(20_000)])
    first, second = (split_by_hash(hashes, test_fraction=0.2, seed=seed) == "test" for seed in (1, 2))
    assert abs(first.mean() - 0.2) < 0.0085  # three standard errors: 3 * sqrt(0.2 * 0.8 / 20,000)
    assert abs((first & second).mean() - 0.04) < 0.0042  # independent: 0.2 * 0.2


def test_hash_split_is_the_published_rule():
    import hashlib

    hashes = pd.Series(["00ff", "abcd", "1234"])
    drawn = [int(hashlib.sha256(f"5:{value}".encode()).hexdigest()[:12], 16) / 2**48 for value in hashes]
    expected = ["test" if value < 0.5 else "train" for value in drawn]
    assert split_by_hash(hashes, test_fraction=0.5, seed=5).tolist() == expected


def test_group_is_on_one_side_only(frame):
    parts = split(frame, "group:person")
    assert (parts.groupby(frame.person).nunique() == 1).all()
    assert set(parts) == {"train", "test"}


def test_latest_rows_are_the_test_part(frame):
    parts = split(frame.sample(frac=1, random_state=3), "time:day")
    assert sorted(parts.index[parts == "test"]) == list(range(1150, 1200))


@pytest.mark.parametrize(
    ("times", "fraction", "test"),
    [
        ([2020, 2021, 2021, 2021, 2022], 0.2, [4]),
        ([2020, 2021, 2021, 2021, 2021], 0.4, [1, 2, 3, 4]),  # ties stay together, and both sides have rows
        (["2026-01-02T00:00:00Z", "2026-01-01T23:30:00-02:00", "2026-01-01"], 0.34, [1]),
    ],
)
def test_equal_times_stay_together_and_zones_count(times, fraction, test):
    parts = split_by_time(pd.Series(times, name="when"), test_fraction=fraction)
    assert np.flatnonzero(parts == "test").tolist() == test


@pytest.mark.parametrize(
    ("form", "error", "message"),
    [
        ("hsh", ParameterError, "time:<column> or group:<column>. Did you mean 'hash'?"),
        ("time", ParameterError, "it must be hash, random, stratified, time:<column> or group:<column>"),
        ("hash:text", ParameterError, "it must be hash"),
        ("time:dya", ParameterError, "there is no column 'dya'. Did you mean 'day'?"),
        (
            "time:person",
            DataError,
            "column 'person': a time as 2026-11-20T10:15:00Z is expected, but 200 values are not, e.g. 'p0' (rows ",
        ),
    ],
)
def test_wrong_forms_and_columns_are_named(frame, form, error, message):
    with pytest.raises(error) as caught:
        split(frame, form)
    assert message in str(caught.value)


def test_missing_times_and_groups_name_their_rows(frame):
    broken = frame.assign(day=frame.day.where(frame.index != 1004), person=frame.person.where(frame.index != 1007, " "))
    with pytest.raises(DataError, match=r"a time as .* 1 values are not.*\(row 1004\)"):
        split(broken, "time:day")
    with pytest.raises(DataError, match=r"a group is expected, but 1 values are not, e.g. ' ' \(row 1007\)"):
        split(broken, "group:person")


def test_an_empty_side_is_an_error(frame):
    for changed, form, fraction in (
        (frame.head(3), "hash", 0.0001),
        (frame, "hash", 1.0),
        (frame.assign(day="2026-01-01"), "time:day", 0.25),
    ):
        with pytest.raises(DataError, match=r"puts all \d+ rows \(\d+ different inputs\) in one part"):
            split(changed, form, fraction)
    with pytest.raises(DataError, match="cannot be split at random"):
        split(frame.head(1), "random")


def test_group_depends_on_its_value_not_its_type():
    whole, decimal = pd.Series([1, 2, 3, 4] * 5), pd.Series([1.0, 2.0, 3.0, 4.0] * 5)
    assert split_by_group(whole, test_fraction=0.5, seed=1).equals(split_by_group(decimal, test_fraction=0.5, seed=1))


def test_shared_inputs_counts_test_rows_not_inputs():
    parts = pd.Series(["train", "test", "test", "test"])
    assert shared_inputs(pd.Series(["x", "x", "x", "y"]), parts) == 2


@pytest.mark.parametrize(
    ("file", "label", "fraction", "exact", "n"),
    [("electronics.parquet", "annotation", 0.2, 6, 200), ("spam.csv", "label", 0.33, 234, 2485)],
)
def test_leaks_of_the_reference_splits_are_found(shared_data: Path, file, label, fraction, exact, n):
    # shared/data/README.md: 6 of 200 and 234 of 2,485 test texts also stand in the training part, letter for letter
    frame = pd.read_parquet(shared_data / file) if file.endswith("parquet") else pd.read_csv(shared_data / file)
    parts = split_at_random(frame[label], test_fraction=fraction, seed=42, stratify=False)
    assert ((parts == "test").sum(), shared_inputs(frame.text, parts)) == (n, exact)
    # Our identity is wider: texts that differ in white space or Unicode form only leak, too (spam: five more).
    alike = frame.text.str.normalize("NFC").str.replace(r"\s+", " ", regex=True).str.strip()
    assert shared_inputs(hash_rows(frame, ["text"]), parts) == shared_inputs(alike, parts) >= exact
