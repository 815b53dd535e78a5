"""The gate: the rule that a candidate must pass to become champion. A pure function of predictions."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from pinmill.bootstrap import Difference, paired_difference
from pinmill.metrics import LOSSES, OF_PROBABILITIES, Predictions, metric_values


@dataclass(frozen=True)
class Decision:
    """Whether the candidate passed, and why; `n` rows were fit for a comparison with the champion (0 without one)."""

    passed: bool
    metric: str
    reasons: tuple[str, ...]
    compared: bool
    n: int
    difference: Difference | None

    def as_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)


def decide(
    candidate: Predictions,
    *,
    baseline: Predictions,
    champion: Predictions | None,
    comparable: np.ndarray,
    metric: str,
    thresholds: Mapping[str, float],
    margin: float,
    min_n: int,
    draws: int,
    seed: int,
    absent: str = "there is none yet",
) -> Decision:
    """The decision on a candidate; every check is made and said, also after one has failed.

    It must beat `baseline` on `metric`; reach every threshold (a floor, or a ceiling for losses); and not be worse
    than the champion: rejected if the lower 90 % bound of the paired bootstrap difference is below -`margin`.
    `comparable` (n,) masks the rows that the champion was not trained on. With fewer than `min_n` of them, other
    labels, or a metric without value there, only the absolute checks count; `absent` says why there is no champion to
    compare with. Raises ParameterError (unknown metric).
    """
    values = {name: float(drawn[0]) for name, drawn in metric_values(candidate, [metric, *thresholds]).items()}
    value, guess = values[metric], float(metric_values(baseline, [metric])[metric][0])
    beats = value < guess if metric in LOSSES else value > guess  # false for NaN
    found = f"{metric} {value:.4f} {'beats' if beats else 'does not beat'} the trivial baseline's {guess:.4f}."
    checks = [(beats, found), *(_reach(name, values[name], bound) for name, bound in thresholds.items())]
    told = zip([metric, *thresholds], checks, strict=True)
    checks = [(False, _tell_lacking(name, candidate)) if np.isnan(values[name]) else check for name, check in told]
    n = 0 if champion is None else int(np.sum(comparable))
    obstacle, difference = _obstacle(candidate, champion, metric, n, min_n) if champion else absent, None
    if not obstacle:
        sides = candidate.take(comparable), champion.take(comparable)
        difference = paired_difference(*sides, metric, draws=draws, seed=seed, level=0.90)
        if np.isnan(difference.low):
            obstacle = f"{metric} has no value in {difference.undefined} of {draws} bootstrap draws"
    if obstacle:
        checks.append((True, f"Not compared with the champion: {obstacle}. Only the absolute thresholds count."))
    else:
        holds = difference.low >= -margin
        gain = f"{difference.value:+.4f} (90 % interval {difference.low:+.4f} to {difference.high:+.4f}, {n} rows)"
        verdict = f"The candidate {'is not' if holds else 'may be'} worse than the champion: {metric} {gain}"
        checks.append((holds, f"{verdict}; the lower bound must be at least {-margin:g}."))
    passed, reasons = zip(*checks, strict=True)
    return Decision(all(passed), metric, reasons, not obstacle, n, None if obstacle else difference)


def _reach(metric: str, value: float, bound: float) -> tuple[bool, str]:
    passed, limit = (value <= bound, "at most") if metric in LOSSES else (value >= bound, "at least")
    return passed, f"{metric} {value:.4f} {'keeps' if passed else 'misses'} its threshold: {limit} {bound:g}."


def _tell_lacking(metric: str, p: Predictions) -> str:
    """Why a metric has no value on all test rows, and the next step."""
    absent = [repr(name) for name in p.classes if not np.any(p.truth == name)]
    why = f"{' and '.join(absent)} {'do' if len(absent) > 1 else 'does'} not occur among them"
    step = f"{why}. Take split: stratified, or more rows." if absent else "look for NaN in the model's predictions."
    return f"{metric} has no value on these {len(p.truth)} test rows: {step}"


def _obstacle(candidate: Predictions, champion: Predictions, metric: str, n: int, min_n: int) -> str:
    """Why the candidate cannot be compared with the champion, or an empty string."""
    if set(candidate.classes) != set(champion.classes) or candidate.positive != champion.positive:
        return "their labels differ"
    if metric in OF_PROBABILITIES and champion.probability is None:
        return f"it gives no probabilities, which {metric} needs"
    few = n < max(min_n, 1)
    return f"only {n} test rows are ones it was not trained on, fewer than {min_n} (gate_min_n)" if few else ""
