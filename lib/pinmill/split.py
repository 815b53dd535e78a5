"""Split a table into train and test, so that a row's side can be explained, repeated and trusted.

| split | a row is in the test part if | stays put when rows are added |
|---|---|---|
| `hash` | its input and the seed say so | yes |
| `random`, `stratified` | scikit-learn's `train_test_split` drew it | no |
| `time:<column>` | it is among the latest; equal times stay together | no, the line moves on |
| `group:<column>` | its group and the seed say so | yes |
"""

import hashlib

import numpy as np
import pandas
from pandas import DataFrame, Series

from pinmill.errors import DataError, ParameterError, did_you_mean
from pinmill.table import canonical_column, describe_wrong, is_missing

FORMS = "hash, random, stratified, time:<column> or group:<column>"


def split_table(frame: DataFrame, hashes: Series, *, split: str, label: str, test_fraction: float, seed: int) -> Series:
    """'train' or 'test' for each row of `frame`, by the rule that `split` names; `hashes` are those of its inputs.

    Raises ParameterError on an unknown form or column, DataError if a column cannot serve or a side would be empty.
    """
    form, _, column = split.partition(":")
    if column and column not in frame.columns:
        guess = did_you_mean(column, map(str, frame.columns))
        raise ParameterError(f"split is {split!r}, but there is no column {column!r}.{guess}")
    if split == "hash":
        parts = split_by_hash(hashes, test_fraction=test_fraction, seed=seed)
    elif split in ("random", "stratified"):
        parts = split_at_random(frame[label], test_fraction=test_fraction, seed=seed, stratify=split == "stratified")
    elif form == "time" and column:
        parts = split_by_time(frame[column], test_fraction=test_fraction)
    elif form == "group" and column:
        parts = split_by_group(frame[column], test_fraction=test_fraction, seed=seed)
    else:
        raise ParameterError(f"split is {split!r}, it must be {FORMS}.{did_you_mean(form, FORMS.split(', '))}")
    if parts.nunique() < 2:
        inputs = f"{len(parts)} rows ({hashes.nunique()} different inputs)"
        raise DataError(f"split {split!r} puts all {inputs} in one part. Try another fraction or split, or more inputs")
    return parts


def split_by_hash(hashes: Series, *, test_fraction: float, seed: int) -> Series:
    """A row's side depends on its own hash and the seed alone; a larger fraction only adds to the test part."""
    drawn = [int(hashlib.sha256(f"{seed}:{value}".encode()).hexdigest()[:12], 16) / 2**48 for value in hashes]
    return _parts(np.array(drawn) < test_fraction, hashes)


def split_at_random(labels: Series, *, test_fraction: float, seed: int, stratify: bool) -> Series:
    """The sides of `train_test_split(index, test_size=test_fraction, random_state=seed, stratify=labels or None)`."""
    from sklearn.model_selection import train_test_split  # a second of imports, which the other splits do without

    positions, strata = np.arange(len(labels)), labels.to_numpy() if stratify else None
    try:
        _, test = train_test_split(positions, test_size=test_fraction, random_state=seed, stratify=strata)
    except ValueError as error:
        raise DataError(f"these {len(labels)} rows cannot be split at random: {error}") from None
    return _parts(np.isin(positions, test), labels)


def split_by_time(times: Series, *, test_fraction: float) -> Series:
    """The latest rows are the test part: about `test_fraction` of them, as near as equal times allow.

    Numbers (a year) are compared as they are, all else is read as an ISO 8601 date; without a time zone it is UTC.
    """
    are_numbers = pandas.api.types.is_numeric_dtype(times.dtype)
    moments = times if are_numbers else pandas.to_datetime(times, utc=True, errors="coerce", format="ISO8601")
    if problems := describe_wrong(f"column {times.name!r}: a time as 2026-11-20T10:15:00Z", times[moments.isna()]):
        raise DataError(problems[0])
    earlier = moments.rank(method="min").to_numpy() - 1  # how many rows are earlier than each
    wanted = len(times) - round(test_fraction * len(times))
    nearest = min(np.unique(earlier)[1:], key=lambda border: abs(border - wanted), default=0)  # 0: it is one time only
    return _parts(earlier >= nearest, times)


def split_by_group(groups: Series, *, test_fraction: float, seed: int) -> Series:
    """All rows of a group are on one side, which depends on the group and the seed alone."""
    if problems := describe_wrong(f"column {groups.name!r}: a group", groups[is_missing(groups)]):
        raise DataError(problems[0])
    names = Series(canonical_column(groups), index=groups.index)
    return split_by_hash(names, test_fraction=test_fraction, seed=seed)


def shared_inputs(hashes: Series, parts: Series) -> int:
    """How many test rows have an input that also stands in the training part."""
    is_test = (parts == "test").to_numpy()
    return int(hashes[is_test].isin(set(hashes[~is_test])).sum())


def _parts(is_test: np.ndarray, like: Series) -> Series:
    """'train' or 'test', on the index of `like`."""
    return Series(np.where(is_test, "test", "train"), index=like.index, dtype="str", name="_part")
