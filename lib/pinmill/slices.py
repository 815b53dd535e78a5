"""Slices: named subsets of the evaluation data, each scored by itself, so that a good mean hides no bad part."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pinmill.bootstrap import score_table
from pinmill.errors import DataError, describe_problems, did_you_mean
from pinmill.metrics import Predictions

MOST_VALUES = 12  # slices of one column that a reader takes in; also where a number becomes quarters


def slice_rows(frame: pd.DataFrame, *, text: Sequence[str] = (), columns: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Masks of shape (n,) by name, in the order of the columns; slices without rows are left out.

    A column of up to 12 values gives a slice per value; a numeric one of more gives quarters ('age: 18 to 30'),
    any other its 11 most frequent values and the rest. Missing values are a slice of their own. Each text column
    gives thirds by length in characters. Raises DataError that names every column that is not there.
    """
    unknown = [column for column in (*text, *columns) if column not in frame]
    if unknown:
        problems = [f"there is no column {column!r}.{did_you_mean(column, map(str, frame))}" for column in unknown]
        raise DataError(describe_problems("the slices", problems))
    rows = frame.reset_index(drop=True)
    by_value = [(rows[column], _name_values(rows[column], column)) for column in columns]
    lengths = [(column, rows[column].fillna("").str.len()) for column in text]
    by_length = [(n, f"{column} of " + _name_ranges(n, 3) + " characters") for column, n in lengths]
    ordered = [(names, names[values.sort_values().index].unique()) for values, names in by_value + by_length]
    return {name: (names == name).to_numpy() for names, distinct in ordered for name in distinct}


def _name_values(values: pd.Series, column: str) -> pd.Series:
    counts = values.astype(object).value_counts()
    if len(counts) > MOST_VALUES and pd.api.types.is_numeric_dtype(values):
        names = f"{column}: " + _name_ranges(values, 4)
    else:
        frequent = counts.index[: len(counts) if len(counts) <= MOST_VALUES else MOST_VALUES - 1]
        texts = values.astype(object).map(lambda value: f"{value:g}" if isinstance(value, float) else str(value))
        names = (f"{column} = " + texts).where(values.isin(frequent), f"{column}: any other")
    return names.where(values.notna(), f"{column} is missing")


def _name_ranges(values: pd.Series, parts: int) -> pd.Series:
    """'18 to 30' for each row: the lowest and the highest value of its range between quantiles."""
    numbers = values.astype(float)
    inner = np.unique(numbers.quantile(np.arange(1, parts) / parts))
    ranges = numbers.groupby(pd.cut(numbers, [-np.inf, *inner, np.inf], labels=False))
    return ranges.transform("min").map("{:g}".format) + " to " + ranges.transform("max").map("{:g}".format)


def score_slices(
    p: Predictions, slices: Mapping[str, np.ndarray], metric: str, *, draws: int, seed: int, min_n: int = 10
) -> pd.DataFrame:
    """One row per slice: slice, n, value, low, high (95 %).

    A slice of fewer than `min_n` rows, or in which the metric has no meaning (ROC AUC of one class), has NaN.
    """
    rows = []
    for name, mask in slices.items():
        n = int(mask.sum())
        scores = score_table(p.take(mask), [metric], draws=draws, seed=seed).to_dict("records") if n >= min_n else [{}]
        rows.append({"slice": name, "n": n} | scores[0])
    return pd.DataFrame(rows, columns=["slice", "n", "value", "low", "high"])
