"""The gate: the rule that a candidate must pass to become champion. A pure function of predictions."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from pinmill.bootstrap import Difference, paired_difference
from pinmill.errors import DataError
from pinmill.metrics import METRICS, Predictions, better_is_higher, check_metrics, metric_values

LEVEL = 0.90  # the candidate is rejected on the lower bound of this interval, that is with 95 % confidence


@dataclass(frozen=True)
class Decision:
    """Whether the candidate passed, and why, in plain language with the numbers.

    `n` rows were fit for the comparison with the champion (0 if there is none); `compared` says if it was made.
    """

    passed: bool
    metric: str
    reasons: tuple[str, ...]
    compared: bool
    n: int
    difference: Difference | None

    def as_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Check:
    passed: bool
    reason: str


def decide(candidate: Predictions, *, baseline: Predictions, champion: Predictions | None, comparable: np.ndarray,
           metric: str, thresholds: Mapping[str, float], margin: float, min_n: int, draws: int,
           seed: int) -> Decision:
    """The decision on a candidate; every check is made and said, also after one has failed.

    It must beat `baseline` on `metric`; reach every threshold (a floor, or a ceiling for losses); and not be worse
    than the champion: rejected if the lower 90 % bound of the paired bootstrap difference is below -`margin`.
    `comparable` (n,) masks the rows that the champion was not trained on. With fewer than `min_n` of them, other
    labels, or a metric that has no value there, only the absolute checks count, and the reasons say so.
    Raises ParameterError for an unknown metric, DataError if there are no rows.
    """
    check_metrics([metric, *thresholds], task=candidate.task)
    if len(candidate.truth) == 0:
        raise DataError("The test side has no rows, so nothing can be decided. Raise test_fraction, or add data.")
    values = {name: float(drawn[0]) for name, drawn in metric_values(candidate, [metric, *thresholds]).items()}
    guess = float(metric_values(baseline, [metric])[metric][0])
    absolute = [_check_baseline(metric, values[metric], guess),
                *(_check_threshold(name, values[name], bound) for name, bound in thresholds.items())]
    comparable = np.asarray(comparable, dtype=bool)
    n = 0 if champion is None else int(comparable.sum())
    obstacle = _obstacle(candidate, champion, metric=metric, n=n, min_n=min_n)
    difference = None if obstacle else paired_difference(
        candidate.take(comparable), champion.take(comparable), metric, draws=draws, seed=seed, level=LEVEL)
    compared = difference is not None and not math.isnan(difference.low)
    if compared:
        relative = _check_difference(metric, difference, n=n, margin=margin)
    else:
        relative = _Check(True, f"Not compared with the champion: {obstacle or _undefined(metric, difference)}. "
                                "Only the absolute thresholds count.")
    checks = [*absolute, relative]
    return Decision(all(check.passed for check in checks), metric, tuple(check.reason for check in checks), compared,
                    n, difference if compared else None)


def _check_baseline(metric: str, value: float, guess: float) -> _Check:
    passed = value > guess if better_is_higher(metric) else value < guess
    if math.isnan(value) or math.isnan(guess):
        return _Check(False, f"{metric} has no value on these test rows, so the candidate cannot be judged.")
    verb = "beats" if passed else "does not beat"
    return _Check(passed, f"{metric} {value:.4f} {verb} the trivial baseline's {guess:.4f}.")


def _check_threshold(metric: str, value: float, bound: float) -> _Check:
    higher = better_is_higher(metric)
    passed = value >= bound if higher else value <= bound  # false for NaN
    verb = "keeps" if passed else "misses"
    limit = "at least" if higher else "at most"
    return _Check(passed, f"{metric} {value:.4f} {verb} its threshold: {limit} {bound:g}.")


def _obstacle(candidate: Predictions, champion: Predictions | None, *, metric: str, n: int, min_n: int) -> str:
    """Why the candidate cannot be compared with the champion, or an empty string."""
    if champion is None:
        return "there is none yet"
    if set(candidate.classes) != set(champion.classes) or candidate.positive != champion.positive:
        return f"their labels differ ({_labels(candidate)} and {_labels(champion)})"
    if METRICS[metric].probability and champion.probability is None:
        return f"it gives no probabilities, which {metric} needs"
    if n < max(min_n, 1):
        return f"only {n} test rows are ones it was not trained on, fewer than {min_n} (gate_min_n)"
    return ""


def _labels(p: Predictions) -> str:
    labels = ", ".join(sorted(map(str, p.classes))) or "numbers"
    return labels if p.positive is None else f"{labels}; positive {p.positive}"


def _undefined(metric: str, difference: Difference | None) -> str:
    missing, draws = (difference.undefined, difference.draws) if difference else (0, 0)
    return f"{metric} has no value in {missing} of {draws} bootstrap draws"


def _check_difference(metric: str, difference: Difference, *, n: int, margin: float) -> _Check:
    passed = difference.low >= -margin
    verdict = "not worse than" if passed else "may be worse than"
    reason = (f"The candidate is {verdict} the champion: {metric} {difference.value:+.4f} (90 % interval "
              f"{difference.low:+.4f} to {difference.high:+.4f}, {n} rows); the lower bound must be at least "
              f"{-margin:g}")
    missing = f"; {difference.undefined} of {difference.draws} draws had no value" if difference.undefined else ""
    return _Check(passed, f"{reason}{missing}.")
