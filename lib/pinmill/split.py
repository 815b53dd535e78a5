"""Split a table into train and test, so that a row's side can be explained, repeated and trusted.

| split | a row is in the test part if | stays put when rows are added |
|---|---|---|
| `hash` | its input and the seed say so | yes |
| `random`, `stratified` | scikit-learn's `train_test_split` drew it | no |
| `time:<column>` | it is among the latest; equal times stay together | no, the line moves on |
| `group:<column>` | its group and the seed say so | yes |
"""

import hashlib
import warnings

import numpy as np
import pandas
from pandas import DataFrame, Series
from pandas.api import types
from sklearn.model_selection import train_test_split

from pinmill.errors import DataError, ParameterError, did_you_mean
from pinmill.table import canonical_column, is_missing, list_rows, show

TRAIN, TEST = "train", "test"
FORMS = "hash, random, stratified, time:<column> or group:<column>"


def split_table(frame: DataFrame, hashes: Series, *, split: str, label: str, test_fraction: float,
                seed: int) -> Series:  # fmt: skip
    """'train' or 'test' for each row of `frame`, by the rule that `split` names; `hashes` are those of its inputs.

    `test_fraction` in 0..1, both ends excluded. Raises ParameterError on an unknown form or column, DataError if the
    column cannot serve (rows named) or if a side would be empty.
    """
    if not 0 < test_fraction < 1:
        raise ParameterError(f"test_fraction is {test_fraction}, it must lie between 0 and 1. Try 0.2")
    form, colon, column = split.partition(":")
    if split not in ("hash", "random", "stratified") and not (form in ("time", "group") and colon and column):
        guess = did_you_mean(form, ["hash", "random", "stratified", "time", "group"])
        raise ParameterError(f"split is {split!r}, it must be {FORMS}.{guess}")
    if colon and column not in frame.columns:
        known = [str(name) for name in frame.columns]
        raise ParameterError(f"split is {split!r}, but there is no column {column!r}.{did_you_mean(column, known)}")
    if form == "hash":
        parts = split_by_hash(hashes, test_fraction=test_fraction, seed=seed)
    elif form == "time":
        parts = split_by_time(frame[column], test_fraction=test_fraction)
    elif form == "group":
        parts = split_by_group(frame[column], test_fraction=test_fraction, seed=seed)
    else:
        labels = frame[label] if label else Series(0, index=frame.index)
        parts = split_at_random(labels, test_fraction=test_fraction, seed=seed, stratify=form == "stratified")
    return _check_sides(parts, split, test_fraction)


def split_by_hash(hashes: Series, *, test_fraction: float, seed: int) -> Series:
    """A row's side depends on its own hash and the seed alone; a larger fraction only adds to the test part."""
    codes, values = pandas.factorize(hashes)
    drawn = np.array([_draw(f"{seed}:{value}") for value in values], dtype=float)
    return _parts(drawn[codes] < test_fraction, hashes)


def split_at_random(labels: Series, *, test_fraction: float, seed: int, stratify: bool) -> Series:
    """The sides of `train_test_split(index, test_size=test_fraction, random_state=seed, stratify=labels or None)`."""
    if stratify and (missing := is_missing(labels)).any():
        raise DataError(f"a stratified split needs labels, {missing.sum()} are empty "
                        f"({list_rows(labels.index[missing])}). Use split: random, or drop them")  # fmt: skip
    positions = np.arange(len(labels))
    try:
        _, test = train_test_split(positions, test_size=test_fraction, random_state=seed,
                                   stratify=labels.to_numpy() if stratify else None)  # fmt: skip
    except ValueError as error:
        raise DataError(f"these {len(labels)} rows cannot be split at random: {error}") from None
    return _parts(np.isin(positions, test), labels)


def split_by_time(times: Series, *, test_fraction: float) -> Series:
    """The latest rows are the test part: about `test_fraction` of them, as near as equal times allow.

    Numbers (a year) are compared as they are, all else is read as a date; without a time zone it is UTC.
    """
    moments = read_times(times)
    ordered = np.sort(moments.to_numpy())
    wanted = len(ordered) - round(test_fraction * len(ordered))
    # Where one time ends and the next begins: the only places where equal times stay together.
    borders = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    if not len(borders):
        raise DataError(f"column {times.name!r} holds one time only, so no row is later. Split in another way")
    first = ordered[borders[np.argmin(np.abs(borders - wanted))]]
    return _parts(moments.to_numpy() >= first, times)


def split_by_group(groups: Series, *, test_fraction: float, seed: int) -> Series:
    """All rows of a group are on one side, which depends on the group and the seed alone."""
    missing = is_missing(groups)
    if missing.any():
        raise DataError(f"column {groups.name!r} has no group in {missing.sum()} rows "
                        f"({list_rows(groups.index[missing])}). Fill them, or drop these rows")  # fmt: skip
    names = Series(canonical_column(groups), index=groups.index, dtype="str")
    return split_by_hash(names, test_fraction=test_fraction, seed=seed).rename("_part")


def shared_inputs(hashes: Series, parts: Series) -> int:
    """How many test rows have an input that also stands in the training part."""
    is_test = (parts == TEST).to_numpy()
    return int(hashes[is_test].isin(set(hashes[~is_test])).sum())


def read_times(times: Series) -> Series:
    """`times` as numbers or UTC times of the same order. Raises DataError that names the rows it cannot read."""
    if types.is_numeric_dtype(times.dtype) and not types.is_bool_dtype(times.dtype):
        moments = times.astype(float)
    elif types.is_datetime64_any_dtype(times.dtype):
        moments = pandas.to_datetime(times, utc=True)
    else:
        moments = min(_parse(times, "ISO8601"), _parse(times, None), key=lambda parsed: parsed.isna().sum())
    if (bad := moments.isna()).any():
        raise DataError(f"column {times.name!r} has no readable time in {bad.sum()} rows, "
                        f"e.g. {show(times[bad].iloc[0])} ({list_rows(times.index[bad])}). "
                        "Write times as 2026-11-20 or 2026-11-20T10:15:00Z")  # fmt: skip
    return moments


def _parse(times: Series, form: str | None) -> Series:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that no format fits all: the rows are named instead
        return pandas.to_datetime(times, utc=True, errors="coerce", format=form)


def _draw(text: str) -> float:
    """A number in 0..1, 1 excluded, that is always the same for `text`."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def _parts(is_test: np.ndarray, like: Series) -> Series:
    return Series(np.where(is_test, TEST, TRAIN), index=like.index, dtype="str", name="_part")


def _check_sides(parts: Series, split: str, test_fraction: float) -> Series:
    counts = {side: int((parts == side).sum()) for side in (TRAIN, TEST)}
    if empty := [side for side, count in counts.items() if not count]:
        raise DataError(f"split {split!r} with test_fraction {test_fraction} leaves the {empty[0]} part empty: "
                        f"all {len(parts)} rows are on one side. Give more rows or groups, another fraction "
                        "or another seed")  # fmt: skip
    return parts
