"""Metrics of predictions, computed for many weightings of the rows at once.

Every value equals scikit-learn's with `sample_weight`, given the rows whose weight is not 0. So in a draw:
macro averages run over the classes that occur in it, as truth or prediction; a ratio 0/0 (precision of a class never
predicted) is 0; a metric without meaning (ROC AUC of one class, average precision without positives, anything of
no rows) is NaN, which bootstrap.py counts and reports.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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
        if not self.classes:
            return "regression"
        return "multiclass" if self.positive is None else "binary"

    def take(self, rows: np.ndarray) -> "Predictions":
        """The same for some rows: a mask of shape (n,) or positions."""
        probability = None if self.probability is None else self.probability[rows]
        return replace(self, truth=self.truth[rows], predicted=self.predicted[rows], probability=probability)


def predict(model: Any, frame: pd.DataFrame, truth: Any, *, task: str, positive: Any = None) -> Predictions:
    """The model's predictions for `frame` beside the truth.

    `task` is binary, multiclass or regression; a binary task without `positive` takes the model's second class.
    Raises DataError if the numbers of rows differ, or `positive` is none of the model's classes.
    """
    predicted = np.asarray(model.predict(frame))
    if not len(frame) == len(predicted) == len(truth):
        raise DataError(f"{len(frame)} rows gave {len(predicted)} predictions for {len(truth)} true values. "
                        "Fit the model on a DataFrame with named columns, not on a list or Series.")
    if task == "regression":
        return Predictions(np.asarray(truth, dtype=float), predicted.astype(float), None, ())
    classes = tuple(_plain(label) for label in model.classes_)
    if positive is None and task == "binary":
        positive = classes[-1]
    probability = np.asarray(model.predict_proba(frame)) if hasattr(model, "predict_proba") else None
    return Predictions(as_labels(truth), as_labels(predicted), probability, classes,
                       _check_positive(positive, classes) if task == "binary" else None)


def _check_positive(positive: Any, classes: tuple[Any, ...]) -> Any:
    if positive not in classes:
        like = next((f" Did you mean {label!r}?" for label in classes if str(label) == str(positive)), "")
        raise DataError(f"The positive class {positive!r} is none of the model's {list(classes)}.{like}")
    return positive


def as_labels(labels: Any) -> np.ndarray:
    """Labels as an array of Python objects, so that 'a' is 'a' whatever string type pandas chose."""
    values = np.empty(len(labels), dtype=object)
    values[:] = [_plain(label) for label in labels]
    return values


def _plain(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else label


def metric_values(p: Predictions, names: Sequence[str], weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Each metric's value under each row of `weights`, as arrays of shape (draws,).

    `weights` has shape (draws, n), not negative; None is one draw of ones. NaN marks a draw in which the metric has
    no meaning (see the module). Works on a few draws at a time: 1,000 draws of 50,000 rows stay under 1 GB.
    Raises ParameterError for metrics of another task, DataError for predictions that are not finite or lack the
    probabilities that a metric needs.
    """
    check_metrics(names, task=p.task)
    _check_predictions(p, names)
    weights = np.ones((1, len(p.truth))) if weights is None else np.asarray(weights)
    if weights.ndim != 2 or weights.shape[1] != len(p.truth):
        raise DataError(f"Weights have shape {weights.shape}; expected (draws, {len(p.truth)}).")
    if not len(p.truth):
        return {name: np.full(len(weights), np.nan) for name in names}
    prepared = _Prepared(p)
    parts = [_values(prepared, names, chunk) for chunk in _chunks(weights)]
    return {name: np.concatenate([part[name] for part in parts] or [np.empty(0)]) for name in names}


def _chunks(weights: np.ndarray) -> Iterator[np.ndarray]:
    step = max(1, CELLS // max(1, weights.shape[1]))
    for start in range(0, len(weights), step):
        yield weights[start:start + step].astype(np.float64)


def _values(prepared: "_Prepared", names: Sequence[str], weights: np.ndarray) -> dict[str, np.ndarray]:
    draw = _Draw(prepared, weights)
    return {name: METRICS[name].value(draw) for name in names}


class _Prepared:
    """What does not depend on the weights: codes of labels, losses per row, orders of scores."""

    def __init__(self, p: Predictions):
        self.p = p
        labels = pd.Index([*p.classes, *(label for label in pd.unique(p.truth) if label not in set(p.classes))],
                          dtype=object) if p.classes else pd.Index([])
        self.truth = labels.get_indexer(p.truth) if p.classes else p.truth
        self.predicted = labels.get_indexer(p.predicted) if p.classes else p.predicted
        self.positive = p.classes.index(p.positive) if p.task == "binary" else None
        self.n_labels = len(labels)

    @cached_property
    def members(self) -> np.ndarray:
        """(n, 3 k): is the row's truth class j, is its prediction, are both."""
        truth = self.truth[:, None] == np.arange(self.n_labels)
        predicted = self.predicted[:, None] == np.arange(self.n_labels)
        return np.hstack([truth, predicted, truth & predicted]).astype(np.float64)

    @cached_property
    def log_loss(self) -> np.ndarray:
        """Minus the log of the true class's probability, clipped like scikit-learn's; 0 for an unknown class."""
        known = self.truth < len(self.p.classes)
        column = np.where(known, self.truth, 0)
        chosen = np.where(known, self.p.probability[np.arange(len(column)), column], 0.0)
        tiny = np.finfo(self.p.probability.dtype).eps
        return -np.log(np.clip(chosen, tiny, 1 - tiny))

    @cached_property
    def rankings(self) -> dict[int, "_Ranking"]:
        return {code: _Ranking(self.p.probability[:, code], self.truth == code)
                for code in ([self.positive] if self.positive is not None else range(len(self.p.classes)))}


class _Ranking:
    """Rows from the highest score to the lowest; `ends` are the last rows of each run of equal scores."""

    def __init__(self, scores: np.ndarray, positive: np.ndarray):
        self.order = np.argsort(-scores, kind="stable")
        self.positive = positive[self.order].astype(np.float64)
        self.ends = np.append(np.flatnonzero(np.diff(scores[self.order])), len(scores) - 1)


class _Draw:
    """Sums over the rows under some weights, each of shape (draws, …)."""

    def __init__(self, prepared: _Prepared, weights: np.ndarray):
        self.prepared, self.weights, self.total = prepared, weights, weights.sum(axis=1)
        self.curves: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def mean(self, rows: np.ndarray) -> np.ndarray:
        return ratio(self.weights @ rows, self.total, empty=np.nan)

    @cached_property
    def counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weight of each class as truth, as prediction, and as both, each (draws, k)."""
        sums = self.weights @ self.prepared.members
        return tuple(np.split(sums, 3, axis=1))

    def curve(self, code: int) -> tuple[np.ndarray, np.ndarray]:
        """True and all rows at or above each distinct score of a class, each (draws, distinct)."""
        if code not in self.curves:
            ranking = self.prepared.rankings[code]
            ordered = self.weights[:, ranking.order]
            hits = np.cumsum(ordered * ranking.positive, axis=1)[:, ranking.ends]
            self.curves[code] = hits, np.cumsum(ordered, axis=1)[:, ranking.ends]
        return self.curves[code]

    def scores(self, kind: str) -> np.ndarray:
        """Precision, recall or F1 of each class, (draws, k); 0/0 is 0."""
        truth, predicted, both = self.counts
        parts = {"precision": (both, predicted), "recall": (both, truth), "f1": (2 * both, truth + predicted)}
        top, below = parts[kind]
        return ratio(top, below, empty=0.0)


def ratio(top: np.ndarray, below: np.ndarray, *, empty: float) -> np.ndarray:
    """top / below, and `empty` where below is 0."""
    return np.divide(top, below, out=np.full(np.broadcast_shapes(np.shape(top), np.shape(below)), empty),
                     where=below > 0)


def _accuracy(draw: _Draw) -> np.ndarray:
    return ratio(draw.counts[2].sum(axis=1), draw.total, empty=np.nan)


def _of_positive(kind: str) -> Callable[[_Draw], np.ndarray]:
    return lambda draw: np.where(draw.total > 0, draw.scores(kind)[:, draw.prepared.positive], np.nan)


def _macro(kind: str) -> Callable[[_Draw], np.ndarray]:
    def value(draw: _Draw) -> np.ndarray:
        occurs = (draw.counts[0] + draw.counts[1]) > 0
        return ratio((draw.scores(kind) * occurs).sum(axis=1), occurs.sum(axis=1), empty=np.nan)
    return value


def _area(draw: _Draw, code: int) -> np.ndarray:
    """Area under the ROC curve of one class against the rest; NaN if either is absent. Ties count half."""
    hits, rows = draw.curve(code)
    misses = rows - hits
    steps = np.diff(misses, axis=1, prepend=0.0)
    heights = hits - np.diff(hits, axis=1, prepend=0.0) / 2
    return ratio((steps * heights).sum(axis=1), hits[:, -1] * misses[:, -1], empty=np.nan)


def _roc_auc(draw: _Draw) -> np.ndarray:
    return _area(draw, draw.prepared.positive)


def _roc_auc_ovr(draw: _Draw) -> np.ndarray:
    """Mean over the classes that a draw holds; NaN if it holds only one."""
    areas = np.stack([_area(draw, code) for code in draw.prepared.rankings], axis=1)
    defined = ~np.isnan(areas)
    return ratio(np.where(defined, areas, 0.0).sum(axis=1), defined.sum(axis=1), empty=np.nan)


def _average_precision(draw: _Draw) -> np.ndarray:
    hits, rows = draw.curve(draw.prepared.positive)
    gained = np.diff(hits, axis=1, prepend=0.0)
    return ratio((gained * ratio(hits, rows, empty=0.0)).sum(axis=1), hits[:, -1], empty=np.nan)


def _brier(draw: _Draw) -> np.ndarray:
    code = draw.prepared.positive
    return draw.mean((draw.prepared.p.probability[:, code] - (draw.prepared.truth == code)) ** 2)


def _log_loss(draw: _Draw) -> np.ndarray:
    return draw.mean(draw.prepared.log_loss)


def _errors(draw: _Draw) -> np.ndarray:
    return draw.prepared.truth - draw.prepared.predicted


def _mae(draw: _Draw) -> np.ndarray:
    return draw.mean(np.abs(_errors(draw)))


def _rmse(draw: _Draw) -> np.ndarray:
    return np.sqrt(draw.mean(_errors(draw) ** 2))


def _r2(draw: _Draw) -> np.ndarray:
    """As scikit-learn: a constant truth gives 1 when predicted exactly and else 0; fewer than two rows give NaN."""
    truth = draw.prepared.truth - draw.prepared.truth.mean()
    residual, square, mean = draw.weights @ _errors(draw) ** 2, draw.mean(truth**2), draw.mean(truth)
    spread = np.maximum(square - mean**2, 0.0)
    constant = spread <= 1e-14 * square  # what rounding leaves of zero
    value = 1.0 - ratio(residual, np.where(constant, 0.0, spread * draw.total), empty=1.0)
    value = np.where(constant & (residual == 0), 1.0, value)
    return np.where((draw.total > 0) & (len(truth) > 1), value, np.nan)


@dataclass(frozen=True)
class _Metric:
    value: Callable[[_Draw], np.ndarray]
    tasks: tuple[str, ...]
    higher: bool = True
    probability: bool = False


_BINARY, _MULTI, _CLASSES = ("binary",), ("multiclass",), ("binary", "multiclass")
METRICS = {
    "roc_auc": _Metric(_roc_auc, _BINARY, probability=True),
    "f1": _Metric(_of_positive("f1"), _BINARY),
    "accuracy": _Metric(_accuracy, _CLASSES),
    "precision": _Metric(_of_positive("precision"), _BINARY),
    "recall": _Metric(_of_positive("recall"), _BINARY),
    "average_precision": _Metric(_average_precision, _BINARY, probability=True),
    "log_loss": _Metric(_log_loss, _CLASSES, higher=False, probability=True),
    "brier": _Metric(_brier, _BINARY, higher=False, probability=True),
    "f1_macro": _Metric(_macro("f1"), _CLASSES),
    "precision_macro": _Metric(_macro("precision"), _CLASSES),
    "recall_macro": _Metric(_macro("recall"), _CLASSES),
    "roc_auc_ovr": _Metric(_roc_auc_ovr, _MULTI, probability=True),
    "r2": _Metric(_r2, ("regression",)),
    "mae": _Metric(_mae, ("regression",), higher=False),
    "rmse": _Metric(_rmse, ("regression",), higher=False),
}

DEFAULT_METRICS = {
    "binary": ["roc_auc", "f1", "accuracy", "precision", "recall", "average_precision", "log_loss", "brier"],
    "multiclass": ["f1_macro", "accuracy", "precision_macro", "recall_macro", "roc_auc_ovr", "log_loss"],
    "regression": ["r2", "mae", "rmse"],
}
"""Metrics of each task; the first decides the gate."""


def better_is_higher(metric: str) -> bool:
    """False for losses. Raises ParameterError for an unknown metric."""
    if metric not in METRICS:
        raise ParameterError(f"There is no metric {metric!r}.{did_you_mean(metric, METRICS)} "
                             f"Known: {', '.join(METRICS)}.")
    return METRICS[metric].higher


def usable_metrics(p: Predictions, names: Sequence[str] | None = None) -> list[str]:
    """Those of `names` (default: of the task) that these predictions allow: a model may lack probabilities."""
    return [name for name in (names or DEFAULT_METRICS[p.task])
            if p.probability is not None or not METRICS[name].probability]


def check_metrics(names: Sequence[str], *, task: str) -> None:
    """Raises ParameterError that names every metric which is unknown or of another task."""
    known = [name for name, metric in METRICS.items() if task in metric.tasks]
    problems = [f"{name!r} is no metric of a {task} task.{did_you_mean(name, known)}"
                for name in names if name not in known]
    if problems:
        raise ParameterError(describe_problems("the metrics", problems) + f" Known: {', '.join(known)}.")


def _check_predictions(p: Predictions, names: Sequence[str]) -> None:
    needing = [name for name in names if METRICS[name].probability]
    problems = []
    if needing and p.probability is None:
        problems.append(f"the model gives no probabilities, which {', '.join(needing)} need; choose among "
                        f"{', '.join(usable_metrics(p))}")
    if p.probability is not None and not np.isfinite(p.probability).all():
        problems.append(f"{(~np.isfinite(p.probability)).any(axis=1).sum()} rows have probabilities that are no number")
    if not p.classes and not (np.isfinite(p.truth).all() and np.isfinite(p.predicted).all()):
        problems.append("truth or predictions hold values that are no finite number")
    if p.classes and (bad := int(pd.isna(p.truth).sum() + pd.isna(p.predicted).sum())):
        problems.append(f"{bad} labels are missing")
    if problems:
        raise DataError(describe_problems("the predictions", problems))
