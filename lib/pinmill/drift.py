"""Drift: how far current inputs or predictions are from what a model was trained on, and whether by more than chance.

A column has shifted only if both hold: its p-value, corrected for all tests made at once, is below the level, and the
difference matters. So a million calls do not make every column shifted, nor do a thousand columns. With nothing
shifted, the chance that any column is called so is at most the level: Holm's correction sees to that.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pandas
from pandas import DataFrame, Series
from pandas.api import types

from pinmill.columns import EPOCH
from pinmill.distance import (
    WORD,
    chi_square_p,
    count_values,
    holm,
    jensen_shannon,
    kolmogorov_smirnov,
    out_of_vocabulary_shares,
    population_stability_index,
    share_p,
)
from pinmill.prototype import TRUTH
from pinmill.table import canonical_value, is_missing, normalise_text

FEWEST_HELD = 100  # held-out rows: fewer tell a distribution worse than the training rows do
PSI_MATTERS = 0.1  # below, nobody acts: the custom of credit scoring (Siddiqi 2006)
KS_MATTERS = 0.1  # a tenth of all rows came from below some value to above it
JS_MATTERS = 0.01  # bits: a coin of 50 % that became one of 62 %
SHARE_MATTERS = 0.05  # one row in twenty, or one word in twenty
SHARES = ("missing_share", "unreadable_share")  # any single value can be read as a category or a text
MEASURES = {  # of each kind of column
    "number": ("psi", "ks", *SHARES),
    "date": ("psi", "ks", *SHARES),
    "category": ("js", "unseen_share", SHARES[0]),
    "boolean": ("js", *SHARES),
    "text": ("length_psi", "length_ks", "oov_share", SHARES[0]),
}
SHIFTED = "shifted_columns"
METRICS = (*dict.fromkeys(name for names in MEASURES.values() for name in names), SHIFTED)
LONGEST_FAILURE = 200  # characters of what a column that could not be compared died of
NONE = np.empty(0)


@dataclass(frozen=True)
class Sample:
    """A column, read for a comparison.

    `values` are numbers, days since 1970, names of categories, or the characters of texts, of the rows that have one.
    `outside` tells of each whether training did not know that category, or which share of that text's words.
    """

    values: np.ndarray
    outside: np.ndarray
    rows: int
    missing: int
    unreadable: int  # values that are not of the column's kind, infinite ones among them


@dataclass(frozen=True)
class Known:
    """What is known of a column of the training data; `problem` is why it could not be read, if so."""

    kind: str
    seen: frozenset[str] = frozenset()  # the categories or words of the training rows
    sample: Sample = field(default_factory=lambda: Sample(NONE, NONE, 0, 0, 0))
    problem: str = ""


@dataclass(frozen=True)
class Reference:
    """What current rows are held against, by column."""

    columns: Mapping[str, Known]


class Finding(NamedTuple):
    """One measure of one column; `test` is the metric whose p-value it goes by, if not its own."""

    metric: str
    value: float
    n: int
    status: str = ""  # empty: ok or shifted, which the corrected p-values will tell
    p: float = math.nan
    test: str = ""
    matters: bool = False
    column: str = ""


def read_sample(column: Series, kind: str, seen: Collection[str] = ()) -> Sample:
    """A column as one of a kind; `seen` are the categories or words that training knew."""
    given = column[~is_missing(column).to_numpy(bool)]
    read = READERS[kind](given)
    values, outside = read[~pandas.isna(read)], NONE
    rows, missing, unreadable = len(column), len(column) - len(given), len(read) - len(values)
    if kind == "category":
        outside = np.array([name not in seen for name in values], float)
    if kind == "text":
        values, outside = np.array([len(text) for text in values], float), out_of_vocabulary_shares(values, seen)
    return Sample(values, outside, rows, missing, unreadable)


def _read_number(value: Any) -> float:
    """`value` as a finite number; NaN for what is none."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _read_numbers(given: Series) -> np.ndarray:
    if types.is_numeric_dtype(given.dtype):
        numbers = given.to_numpy(float)
        return np.where(np.isfinite(numbers), numbers, np.nan)
    return np.array([_read_number(value) for value in given], float)


def _read_dates(given: Series) -> np.ndarray:
    """Days since 1970; a text without a zone is in UTC."""
    if not types.is_datetime64_any_dtype(given.dtype):
        texts = [value.isoformat() if hasattr(value, "isoformat") else value for value in given]
        given = Series([v if isinstance(v, str) and v.isascii() else None for v in texts], given.index, dtype=object)
    times = pandas.to_datetime(given, errors="coerce", format="ISO8601", utc=True)
    seconds = times.dt.tz_localize(None).dt.as_unit("s")  # nanoseconds end in 2262
    return ((seconds - EPOCH).dt.total_seconds() / 86_400).to_numpy()


def _read_booleans(given: Series) -> np.ndarray:
    return np.array([TRUTH.get(str(value).lower()) for value in given], dtype=object)


def _read_names(given: Series) -> np.ndarray:
    """Names of categories: the same for 3 and "3", and for lists and mappings that hold the same."""
    texts = {value: normalise_text(value) for value in given if isinstance(value, str)}
    return np.array([texts[v] if isinstance(v, str) else canonical_value(v) for v in given], dtype=object)


def _read_texts(given: Series) -> np.ndarray:
    return np.array([v if isinstance(v, str) else canonical_value(v) for v in given], dtype=object)


READERS = {
    "number": _read_numbers,
    "date": _read_dates,
    "boolean": _read_booleans,
    "category": _read_names,
    "text": _read_texts,
}


def make_reference(train: DataFrame, held: DataFrame, *, kinds: Mapping[str, str]) -> Reference:
    """What the columns of `kinds` {column: number, category, text, date or boolean; another is a category} are.

    Categories and words are those of the training rows. Distributions, and the share of what training did not know,
    are of the held-out rows; of fewer than 100 of these, distributions are of the training rows. Never raises.
    """
    return Reference({name: _learn_column(train, held, name, kind) for name, kind in kinds.items()})


def _learn_column(train: DataFrame, held: DataFrame, name: str, kind: str) -> Known:
    kind = kind if kind in MEASURES else "category"
    try:
        seen = _find_seen(train[name], kind)
        kept = read_sample(held[name], kind, seen)
        is_enough = kept.rows >= min(FEWEST_HELD, len(train))
        told = kept if is_enough else replace(read_sample(train[name], kind, seen), outside=kept.outside)
        return Known(kind, seen, told)
    except Exception as error:  # one bad column never keeps the others from being compared
        return Known(kind, problem=_describe_failure(error))


def _find_seen(train: Series, kind: str) -> frozenset[str]:
    known = train[~is_missing(train).to_numpy(bool)]
    if kind == "text":
        return frozenset(word for text in _read_texts(known) for word in WORD.findall(text.lower()))
    return frozenset(_read_names(known)) if kind == "category" else frozenset()


def _describe_failure(error: Exception) -> str:
    return f"failed: {type(error).__name__}: {error}"[:LONGEST_FAILURE]


def compare(reference: Reference, current: DataFrame, *, hidden: int, min_n: int, level: float) -> list[dict[str, Any]]:
    """One row per measure of each column of either side: column, metric, value, n, p, status; then one for all.

    `hidden` counts further rows of which only hashes are kept. p is corrected over all tests of the call, and NaN where
    there is none: psi goes by the p of ks. status is ok, shifted, too few (of `min_n`), hidden, constant, all missing,
    new (not in training), gone (not in `current`), or "failed: …". A date is told, but not tested: time moves on by
    itself. The last row, of column "", is shifted_columns, of n columns: those tested, and those that are new or gone,
    which count as shifted; NaN if there is none, or too few rows. Never raises.
    """
    too_few = ("hidden" if hidden else "too few") if len(current) < max(min_n, 1) else ""
    found = [
        finding._replace(column=name)
        for name, known in reference.columns.items()
        for finding in _compare_column(known, current, name, min_n=min_n, too_few=too_few)
    ]
    others = [name for name in dict.fromkeys(current.columns) if name not in reference.columns]
    found += [Finding(SHARES[0], math.nan, len(current), "new", column=str(name)) for name in others]
    tested = [each for each in found if not math.isnan(each.p)]
    corrected = holm([each.p for each in tested]).tolist()
    p_values = dict(zip([(each.column, each.metric) for each in tested], corrected, strict=True))
    rows = [_tell(each, p_values, level) for each in found]
    changed = set() if too_few else {each.column for each in found if each.status in ("new", "gone")}
    columns = {each.column for each in tested} | changed
    shifted = {row["column"] for row in rows if row["status"] == "shifted"} | changed
    if columns:
        return [*rows, _row("", SHIFTED, float(len(shifted)), len(columns), "shifted" if shifted else "ok")]
    return [*rows, _row("", SHIFTED, math.nan, 0, too_few or (found[0].status if found else "too few"))]


def _tell(finding: Finding, p_values: Mapping[tuple[str, str], float], level: float) -> dict[str, Any]:
    """The row of a finding."""
    p = p_values.get((finding.column, finding.test or finding.metric), 1.0)
    status = finding.status or ("shifted" if finding.matters and p < level else "ok")
    own = p_values.get((finding.column, finding.metric), math.nan)
    return _row(finding.column, finding.metric, finding.value, finding.n, status, own)


def _row(column: str, metric: str, value: float, n: int, status: str, p: float = math.nan) -> dict[str, Any]:
    return {"column": column, "metric": metric, "value": value, "n": n, "p": p, "status": status}


def _compare_column(known: Known, current: DataFrame, name: str, *, min_n: int, too_few: str) -> list[Finding]:
    absent = "gone" if len(known.sample.values) else "all missing"  # nobody ever sent it
    status = known.problem or too_few or ("" if name in current else absent)
    try:
        if not status:
            sample = read_sample(current[name], known.kind, known.seen)
            return [*_compare_values(known, sample, min_n=min_n), *_compare_shares(known, sample)]
    except Exception as error:  # one bad column never keeps the others from being compared
        status = _describe_failure(error)
    return [Finding(metric, math.nan, len(current), status) for metric in MEASURES[known.kind]]


def _compare_values(known: Known, now: Sample, *, min_n: int) -> list[Finding]:
    """The measures of what a column holds, where it holds something."""
    before, n = known.sample, len(now.values)
    names = [metric for metric in MEASURES[known.kind] if metric not in SHARES]
    if not n or not len(before.values):
        return [Finding(metric, math.nan, n, "all missing") for metric in names]
    if n < min_n:
        return [Finding(metric, math.nan, n, "too few") for metric in names]
    if known.kind != "text" and len(pandas.unique(np.concatenate([before.values, now.values]))) == 1:
        return [Finding(metric, 0.0, n, "constant") for metric in names]
    if known.kind in ("category", "boolean"):
        js = jensen_shannon(counts := count_values(before.values, now.values))
        found = [Finding(names[0], js, n, p=chi_square_p(counts), matters=js >= JS_MATTERS)]
    else:
        psi = population_stability_index(before.values, now.values)
        ks, p = kolmogorov_smirnov(before.values, now.values)
        matters = psi >= PSI_MATTERS or ks >= KS_MATTERS
        found = [
            Finding(names[0], psi, n, test=names[1], matters=psi >= PSI_MATTERS),
            Finding(names[1], ks, n, p=math.nan if known.kind == "date" else p, matters=matters),
        ]
    return found + [_compare_outside(before.outside, now.outside, metric) for metric in names[len(found) :]]


def _compare_outside(before: np.ndarray, now: np.ndarray, metric: str) -> Finding:
    """What training did not know, against held-out rows; not tested where there are none of these."""
    value = float(now.mean())
    if not len(before):
        return Finding(metric, value, len(now))
    sides = [(int(side.sum()), len(side)) for side in (before, now)]
    p = share_p(*sides) if metric == "unseen_share" else kolmogorov_smirnov(before, now)[1]
    return Finding(metric, value, len(now), p=p, matters=abs(value - before.mean()) >= SHARE_MATTERS)


def _compare_shares(known: Known, now: Sample) -> list[Finding]:
    """The shares of a column's rows that hold no value, or none of its kind."""
    before, found = known.sample, []
    for metric in [metric for metric in MEASURES[known.kind] if metric in SHARES]:
        old, new = (getattr(side, metric.removesuffix("_share")) for side in (before, now))
        value = new / now.rows
        p = share_p((old, before.rows), (new, now.rows)) if before.rows else math.nan
        matters = before.rows > 0 and abs(value - old / before.rows) >= SHARE_MATTERS
        found.append(Finding(metric, value, now.rows, p=p, matters=matters))
    return found
