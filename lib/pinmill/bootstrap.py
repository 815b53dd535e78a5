"""How sure a metric is: intervals by bootstrap, paired differences, and what guessing would reach."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pinmill.errors import DataError
from pinmill.metrics import LOSSES, Predictions, as_labels, metric_values


@dataclass(frozen=True)
class Difference:
    """Candidate minus champion, positive is better, with its interval; `undefined` draws had no value (one class)."""

    value: float
    low: float
    high: float
    undefined: int


def bootstrap_weights(n: int, *, draws: int, seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """Every row once, then how often each of n is in each draw with replacement; (1 + draws, n), uint16.

    `groups` numbers the group of each row from 0 on: rows of one are drawn together, as they are not independent.
    """
    generator = np.random.default_rng(seed)
    many = n if groups is None else int(groups.max(initial=-1)) + 1
    drawn = (generator.integers(0, max(many, 1), many) for _ in range(draws))
    counts = (np.bincount(rows, minlength=many) for rows in drawn)
    return np.array([np.ones(n), *(each if groups is None else each[groups] for each in counts)], dtype=np.uint16)


def score_table(
    p: Predictions,
    names: Sequence[str],
    *,
    draws: int,
    seed: int,
    level: float = 0.95,
    groups: np.ndarray | None = None,
) -> pd.DataFrame:
    """One row per metric: metric, value, low, high, undefined (as in Difference), n; see `bootstrap_weights`."""
    weights = bootstrap_weights(len(p.truth), draws=draws, seed=seed, groups=groups)
    rows = [(name, *summarise(values, level=level)) for name, values in metric_values(p, names, weights).items()]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "undefined"]).assign(n=len(p.truth))


def summarise(values: np.ndarray, *, level: float) -> tuple[float, float, float, int]:
    """The first value, the bounds of `level` of the others (NaN if over half are undefined), how many are undefined."""
    drawn = values[1:][~np.isnan(values[1:])]
    undefined = len(values) - 1 - len(drawn)
    told = len(drawn) and undefined <= len(drawn)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]) if told else (np.nan, np.nan)
    return float(values[0]), float(low), float(high), undefined


def paired_difference(
    candidate: Predictions, champion: Predictions, metric: str, *, draws: int, seed: int, level: float = 0.90
) -> Difference:
    """How much better the candidate is than the champion on the same rows, each draw scoring both. Raises DataError."""
    if not np.array_equal(candidate.truth, champion.truth):
        raise DataError("Candidate and champion were scored on different rows. Score both on the same rows.")
    weights = bootstrap_weights(len(candidate.truth), draws=draws, seed=seed)
    ours, theirs = (metric_values(p, [metric], weights)[metric] for p in (candidate, champion))
    return Difference(*summarise(theirs - ours if metric in LOSSES else ours - theirs, level=level))


def baseline(
    train_labels: Any, test_truth: Any, *, task: str, classes: Sequence[Any] = (), positive: Any = None
) -> Predictions:
    """What guessing reaches: the training side's majority class and class frequencies, or its mean.

    `classes` are the model's, whose order the probabilities keep; ties go to the first of them.
    """
    if task == "regression":
        truth = np.asarray(test_truth, dtype=float)
        return Predictions(truth, np.full_like(truth, np.mean(train_labels)), None, ())
    truth = as_labels(test_truth)
    counts = pd.Series(as_labels(train_labels), dtype=object).value_counts()
    shares = np.array([counts.get(label, 0) for label in classes]) / len(train_labels)
    majority = np.full(len(truth), classes[int(shares.argmax())], dtype=object)
    return Predictions(truth, majority, np.tile(shares, (len(truth), 1)), tuple(classes), positive)
