"""Metrics of predictions, computed for many weightings of the rows at once.

Every value equals scikit-learn's with `sample_weight`, given the rows whose weight is not 0: macro averages are over
the classes that occur in a draw, 0/0 (precision of a class never predicted) is 0, and what has no meaning is NaN.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pinmill.errors import DataError, ParameterError, describe_problems, did_you_mean

CELLS = 2_000_000  # weights turned to float64 at a time (16 MB, and about ten times that for intermediate results)


@dataclass(frozen=True)
class Predictions:
    """What a model said of rows whose truth is known.

    truth and predicted have shape (n,); probability (n, k) has a column per class, or is None; classes are the
    model's own, in its order, and () for regression; positive is the class that binary metrics are about.
    """

    truth: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray | None
    classes: tuple[Any, ...]
    positive: Any = None

    @property
    def task(self) -> str:
        of_labels = "multiclass" if self.positive is None else "binary"
        return of_labels if self.classes else "regression"

    def take(self, rows: np.ndarray) -> "Predictions":
        """The same for some rows: a mask of shape (n,) or positions."""
        probability = None if self.probability is None else self.probability[rows]
        return replace(self, truth=self.truth[rows], predicted=self.predicted[rows], probability=probability)


def predict(model: Any, frame: pd.DataFrame, truth: Any, *, task: str, positive: Any = None) -> Predictions:
    """What the model says beside the truth; binary without `positive` takes the second class. Raises DataError."""
    predicted = np.asarray(model.predict(frame))
    if not len(frame) == len(predicted) == len(truth):
        counts = f"{len(frame)} rows gave {len(predicted)} predictions for {len(truth)} true values"
        raise DataError(f"{counts}. Fit the model on a DataFrame with named columns, not on a list or Series.")
    if task == "regression":
        return Predictions(np.asarray(truth, dtype=float), predicted.astype(float), None, ())
    classes = tuple(as_labels(model.classes_))
    positive = None if task != "binary" else classes[-1] if positive is None else positive
    if positive is not None and positive not in classes:
        raise DataError(f"The positive class {positive!r} is none of the model's {list(classes)}.")
    probability = np.asarray(model.predict_proba(frame)) if hasattr(model, "predict_proba") else None
    return Predictions(as_labels(truth), as_labels(predicted), probability, classes, positive)


def as_labels(labels: Any) -> np.ndarray:
    """Labels as an array of Python objects, so that 'a' is 'a' whatever string type pandas chose."""
    return np.array(pd.Series(labels).tolist(), dtype=object)


def metric_values(p: Predictions, names: Sequence[str], weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Each metric's value under each row of `weights`, as arrays of shape (draws,); NaN where it has no meaning.

    `weights` has shape (draws, n), not negative; None is one draw of ones. 1,000 draws of 50,000 rows stay under 1 GB.
    Raises ParameterError for metrics of another task, DataError for those that need probabilities where there are none.
    """
    check_metrics(names, task=p.task)
    if p.probability is None and (needing := [name for name in names if name in OF_PROBABILITIES]):
        raise DataError(f"The model gives no probabilities, which {', '.join(needing)} need; choose other metrics.")
    weights = np.ones((1, len(p.truth))) if weights is None else weights
    if not len(p.truth):
        return {name: np.full(len(weights), np.nan) for name in names}
    coded, chunks = _with_codes(p), np.array_split(weights, weights.size // CELLS + 1)
    parts = [[METRICS[name](coded, chunk.astype(np.float64)) for name in names] for chunk in chunks]
    return {name: np.concatenate(values) for name, values in zip(names, zip(*parts, strict=True), strict=True)}


def _with_codes(p: Predictions) -> Predictions:
    """The same with labels as column numbers of `probability`; what only the truth knows gets columns of zeros."""
    if not p.classes:
        return p
    labels = pd.Index([*p.classes, *p.truth], dtype=object).unique()
    unknown = len(labels) - len(p.classes)
    probability = None if p.probability is None else np.pad(p.probability, ((0, 0), (0, unknown)))
    positive = None if p.positive is None else p.classes.index(p.positive)
    codes = (labels.get_indexer(side) for side in (p.truth, p.predicted))
    return Predictions(*codes, probability, tuple(range(len(labels))), positive)


def _ratio(top: np.ndarray, below: np.ndarray, empty: Any = np.nan) -> np.ndarray:
    """top / below, and `empty` where below is 0."""
    return np.divide(top, below, out=np.full(np.shape(top), empty), where=below > 0)


def _mean(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _ratio(weights @ rows, weights.sum(axis=1))


def _score(kind: str, p: Predictions, weights: np.ndarray, *, macro: bool = False) -> np.ndarray:
    """Precision, recall or F1: of the positive class, or the mean of the classes that occur in a draw."""
    is_truth, is_predicted = (codes[:, None] == np.array(p.classes) for codes in (p.truth, p.predicted))
    members = (is_truth, is_predicted, is_truth & is_predicted)
    truth, predicted, both = (weights @ rows.astype(np.float64) for rows in members)
    parts = {"precision": (both, predicted), "recall": (both, truth), "f1": (2 * both, truth + predicted)}
    occurs = truth + predicted > 0
    counted = occurs if macro else occurs.any(axis=1)[:, None] & (np.array(p.classes) == p.positive)
    return _ratio((_ratio(*parts[kind], empty=0.0) * counted).sum(axis=1), counted.sum(axis=1))


def _curve(p: Predictions, weights: np.ndarray, code: int) -> tuple[np.ndarray, np.ndarray]:
    """True and all rows at or above each distinct score of a class, each (draws, distinct)."""
    scores = p.probability[:, code]
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    ordered = weights[:, order]
    return np.cumsum(ordered * (p.truth[order] == code), axis=1)[:, ends], np.cumsum(ordered, axis=1)[:, ends]


def _roc_auc(p: Predictions, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, ties counting half; of several classes the mean of those that a draw holds."""
    areas = []
    for code in p.classes if p.positive is None else [p.positive]:
        hits, rows = _curve(p, weights, code)
        misses = rows - hits
        heights = hits - np.diff(hits, axis=1, prepend=0.0) / 2
        area = (np.diff(misses, axis=1, prepend=0.0) * heights).sum(axis=1)
        areas.append(_ratio(area, hits[:, -1] * misses[:, -1]))
    return _ratio(np.nansum(areas, axis=0), (~np.isnan(areas)).sum(axis=0))


def _average_precision(p: Predictions, weights: np.ndarray) -> np.ndarray:
    hits, rows = _curve(p, weights, p.positive)
    return _ratio((np.diff(hits, axis=1, prepend=0.0) * _ratio(hits, rows, empty=0.0)).sum(axis=1), hits[:, -1])


def _log_loss(p: Predictions, weights: np.ndarray) -> np.ndarray:
    tiny = np.finfo(p.probability.dtype).eps  # where scikit-learn clips
    return _mean(-np.log(np.clip(p.probability[np.arange(len(p.truth)), p.truth], tiny, 1 - tiny)), weights)


def _r2(p: Predictions, weights: np.ndarray) -> np.ndarray:
    """As scikit-learn: a constant truth gives 1 when predicted exactly and else 0."""
    total, truth = weights.sum(axis=1), p.truth - p.truth.mean()
    residual, square = weights @ (p.truth - p.predicted) ** 2, weights @ truth**2
    spread = square - _ratio((weights @ truth) ** 2, total)
    spread = np.where(spread <= 1e-14 * square, 0.0, spread)  # what rounding leaves of zero
    return np.where(total > 0, 1.0 - _ratio(residual, spread, empty=np.sign(residual)), np.nan)


METRICS: dict[str, Callable[[Predictions, np.ndarray], np.ndarray]] = {
    "accuracy": lambda p, weights: _mean(p.truth == p.predicted, weights),
    "precision": lambda p, weights: _score("precision", p, weights),
    "recall": lambda p, weights: _score("recall", p, weights),
    "f1": lambda p, weights: _score("f1", p, weights),
    "precision_macro": lambda p, weights: _score("precision", p, weights, macro=True),
    "recall_macro": lambda p, weights: _score("recall", p, weights, macro=True),
    "f1_macro": lambda p, weights: _score("f1", p, weights, macro=True),
    "roc_auc": _roc_auc,
    "roc_auc_ovr": _roc_auc,
    "average_precision": _average_precision,
    "log_loss": _log_loss,
    "brier": lambda p, weights: _mean((p.probability[:, p.positive] - (p.truth == p.positive)) ** 2, weights),
    "r2": _r2,
    "mae": lambda p, weights: _mean(np.abs(p.truth - p.predicted), weights),
    "rmse": lambda p, weights: np.sqrt(_mean((p.truth - p.predicted) ** 2, weights)),
}
LOSSES = ("log_loss", "brier", "mae", "rmse")  # lower is better
OF_PROBABILITIES = ("roc_auc", "roc_auc_ovr", "average_precision", "log_loss", "brier")
DEFAULT_METRICS = {  # the first of a task decides the gate
    "binary": ["roc_auc", "f1", "accuracy", "precision", "recall", "average_precision", "log_loss", "brier"],
    "multiclass": ["f1_macro", "accuracy", "precision_macro", "recall_macro", "roc_auc_ovr", "log_loss"],
    "regression": ["r2", "mae", "rmse"],
}
OTHER_METRICS = {"binary": ["f1_macro", "precision_macro", "recall_macro"]}


def check_metrics(names: Sequence[str], *, task: str) -> None:
    """Raises ParameterError that names every metric which is unknown or of another task."""
    known = DEFAULT_METRICS[task] + OTHER_METRICS.get(task, [])
    problems = [f"{n!r} is no metric of a {task} task.{did_you_mean(n, known)}" for n in names if n not in known]
    if problems:
        raise ParameterError(describe_problems("the metrics", problems) + f" Known: {', '.join(known)}.")
