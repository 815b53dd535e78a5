"""Slices: named subsets of the evaluation data, each scored by itself, so that a good mean hides no bad part."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from pinmill.bootstrap import score_table
from pinmill.errors import DataError, describe_problems, did_you_mean
from pinmill.metrics import Predictions, check_metrics

MOST_VALUES = 12  # slices of one column that a reader takes in; also where a number becomes quantiles
QUARTERS = (0.25, 0.5, 0.75)
THIRDS = (1 / 3, 2 / 3)


def slice_rows(frame: pd.DataFrame, *, text: Sequence[str] = (), columns: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Masks of shape (n,) by name, in the order of the columns.

    A column of up to 12 values gives a slice per value; a numeric one of more gives quarters ('age: 18 to 30'),
    any other its 11 most frequent values and the rest. Missing values are a slice of their own. Each text column
    gives thirds by length in characters. Slices without rows are left out.
    Raises DataError that names every column that is not there.
    """
    unknown = [column for column in (*text, *columns) if column not in frame.columns]
    if unknown:
        raise DataError(describe_problems("the slices", [
            f"there is no column {column!r}.{did_you_mean(column, map(str, frame.columns))}" for column in unknown]))
    by_column = {name: mask for column in columns for name, mask in _slice_column(frame[column], column)}
    by_length = {name: mask for column in text for name, mask in _slice_length(frame[column], column)}
    return {name: mask for name, mask in (by_column | by_length).items() if mask.any()}


def _slice_column(values: pd.Series, column: str) -> Iterator[tuple[str, np.ndarray]]:
    counts = values.value_counts()
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if len(counts) <= MOST_VALUES:
        yield from ((f"{column} = {_text(value)}", _is(values == value)) for value in sorted(counts.index, key=_order))
    elif numeric:
        yield from _slice_quantiles(values, QUARTERS, lambda low, high: f"{column}: {low:g} to {high:g}")
    else:
        frequent = list(counts.index[:MOST_VALUES - 1])
        yield from ((f"{column} = {_text(value)}", _is(values == value)) for value in frequent)
        yield f"{column}: any other", _is(values.notna() & ~values.isin(frequent))
    yield f"{column} is missing", _is(values.isna())


def _slice_length(values: pd.Series, column: str) -> Iterator[tuple[str, np.ndarray]]:
    lengths = values.fillna("").astype(str).str.len()
    yield from _slice_quantiles(lengths, THIRDS, lambda low, high: f"{column} of {low:g} to {high:g} characters")


def _slice_quantiles(values: pd.Series, quantiles: Sequence[float], name) -> Iterator[tuple[str, np.ndarray]]:
    """Slices between quantiles, upper bound included, named by the lowest and highest value they really hold."""
    edges = [-np.inf, *np.unique(values.quantile(quantiles).astype(float)), np.inf]
    for low, high in zip(edges, edges[1:], strict=False):
        mask = _is((values > low) & (values <= high))
        if mask.any():
            yield name(float(values[mask].min()), float(values[mask].max())), mask


def _is(mask: pd.Series) -> np.ndarray:
    return mask.fillna(False).to_numpy(dtype=bool)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _order(value: object) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float | np.number) else (1, 0.0, str(value))


def score_slices(p: Predictions, slices: Mapping[str, np.ndarray], metric: str, *, draws: int, seed: int,
                 min_n: int = 10) -> pd.DataFrame:
    """One row per slice: slice, n, value, low, high (95 %).

    A slice of fewer than `min_n` rows stays in the table, with NaN for what so few rows cannot tell; so does one
    in which the metric has no meaning (ROC AUC of one class).
    """
    check_metrics([metric], task=p.task)
    rows = [(name, int(mask.sum()), *_score(p.take(mask), metric, draws=draws, seed=seed, min_n=min_n))
            for name, mask in slices.items()]
    return pd.DataFrame(rows, columns=["slice", "n", "value", "low", "high"])


def _score(p: Predictions, metric: str, *, draws: int, seed: int, min_n: int) -> tuple[float, float, float]:
    if len(p.truth) < max(min_n, 1):
        return float("nan"), float("nan"), float("nan")
    row = score_table(p, [metric], draws=draws, seed=seed).iloc[0]
    return float(row["value"]), float(row["low"]), float(row["high"])
