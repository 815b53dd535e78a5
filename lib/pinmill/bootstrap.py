"""How sure a metric is: intervals by bootstrap, paired differences, and what guessing would reach."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pinmill.errors import DataError
from pinmill.metrics import Predictions, as_labels, better_is_higher, metric_values

MOST_UNDEFINED = 0.5  # with more of the draws undefined an interval says too little, and is left out


@dataclass(frozen=True)
class Difference:
    """Candidate minus champion, turned so that positive is better; low and high bound it at the level asked for.

    `undefined` of the `draws` had no value (one class only); over half of them undefined, low and high are NaN.
    """

    value: float
    low: float
    high: float
    draws: int = 0
    undefined: int = 0


def bootstrap_weights(n: int, *, draws: int, seed: int) -> np.ndarray:
    """How often each of n rows is in each draw of n with replacement; shape (draws, n), uint16."""
    generator = np.random.default_rng(seed)
    weights = np.zeros((draws, n), dtype=np.uint16)
    for draw in weights:
        draw[:] = np.bincount(generator.integers(0, n, n), minlength=n) if n else 0
    return weights


def score_table(p: Predictions, names: Sequence[str], *, draws: int, seed: int, level: float = 0.95) -> pd.DataFrame:
    """One row per metric: metric, value, low, high, n, undefined.

    low and high are percentiles of the bootstrap; `undefined` counts the draws in which the metric had no value and
    which the percentiles therefore leave out. Over half of them undefined, low and high are NaN.
    """
    values = metric_values(p, names)
    drawn = metric_values(p, names, bootstrap_weights(len(p.truth), draws=draws, seed=seed))
    rows = [(name, float(values[name][0]), *read_interval(drawn[name], level=level), len(p.truth),
             int(np.isnan(drawn[name]).sum())) for name in names]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "n", "undefined"])


def read_interval(drawn: np.ndarray, *, level: float) -> tuple[float, float]:
    """The central interval that holds `level` of the defined draws; NaN twice if too few are defined."""
    defined = drawn[~np.isnan(drawn)]
    if len(defined) == 0 or len(defined) < (1 - MOST_UNDEFINED) * len(drawn):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(candidate: Predictions, champion: Predictions, metric: str, *, draws: int, seed: int,
                      level: float = 0.90) -> Difference:
    """How much better the candidate is than the champion on the same rows, each draw scoring both.

    Positive: the candidate is better (losses are negated). Raises DataError if the rows' truth differs.
    """
    if len(candidate.truth) != len(champion.truth) or not (candidate.truth == champion.truth).all():
        raise DataError(f"Candidate and champion were scored on different rows ({len(candidate.truth)} and "
                        f"{len(champion.truth)}, or their truth differs). Score both on the same rows.")
    weights = bootstrap_weights(len(candidate.truth), draws=draws, seed=seed)
    sign = 1 if better_is_higher(metric) else -1

    def difference(drawn: np.ndarray | None) -> np.ndarray:
        ours, theirs = (metric_values(p, [metric], drawn)[metric] for p in (candidate, champion))
        return sign * (ours - theirs)

    drawn = difference(weights)
    low, high = read_interval(drawn, level=level)
    return Difference(float(difference(None)[0]), low, high, draws, int(np.isnan(drawn).sum()))


def baseline(train_labels: Any, test_truth: Any, *, task: str, classes: Sequence[Any] = (),
             positive: Any = None) -> Predictions:
    """What guessing reaches: the training side's majority class and class frequencies, or its mean.

    `classes` are the model's, whose order the probabilities keep. Ties go to the first of them.
    Raises DataError if there are no training labels.
    """
    if len(train_labels) == 0:
        raise DataError("The baseline needs training labels; there are none. Is the training side empty?")
    n = len(test_truth)
    if task == "regression":
        mean = float(np.mean(np.asarray(train_labels, dtype=float)))
        return Predictions(np.asarray(test_truth, dtype=float), np.full(n, mean), None, ())
    counts = pd.Series(as_labels(train_labels), dtype=object).value_counts()
    shares = np.array([counts.get(label, 0) for label in classes]) / len(train_labels)
    majority = np.full(n, classes[int(shares.argmax())], dtype=object)
    return Predictions(as_labels(test_truth), majority, np.tile(shares, (n, 1)), tuple(classes), positive)
