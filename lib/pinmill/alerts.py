"""Alert rules: when a metric of the monitoring history is one that somebody must be told of. Pure."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from pinmill.card import NAMES
from pinmill.errors import ParameterError, describe_problems, did_you_mean

if TYPE_CHECKING:
    from pandas import DataFrame

TRAFFIC = ("requests", "rows", "errors", "error_share", "cached", "p50_ms", "p95_ms", "p99_ms")
WORDS = {  # what people read for metrics of traffic and drift
    "error_share": "the share of errors",
    "cached": "the share of cached rows",
    "requests": "the number of requests",
    "rows": "the number of rows",
    "errors": "the number of errors",
    **{f"p{share}_ms": f"the time [ms] that answered {share} % of requests" for share in (50, 95, 99)},
    "psi": "the population stability index",
    "ks": "the Kolmogorov–Smirnov distance",
    "js": "the Jensen–Shannon divergence",
    "length_psi": "the population stability index of lengths",
    "length_ks": "the Kolmogorov–Smirnov distance of lengths",
    "oov_share": "the share of unknown words",
    "unseen_share": "the share of unseen values",
    "missing_share": "the share of missing values",
    "unreadable_share": "the share of unreadable values",
    "shifted_columns": "the number of shifted columns",
}
DIRECTIONS = ("above", "below")
SUBJECTS = ("traffic", "score", "input", "prediction")
LONGEST_NAME = 60  # characters of a column's name in a message
MOST_NAMED = 5  # columns in a message


class Rule(BaseModel):
    """Fires when the newest `periods` with at least `min_n` cases all have the metric beyond the threshold.

    Without `column` or `subject` it holds for each one that has this metric, by itself.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    metric: str = Field(description="the name of a metric")
    direction: Literal[DIRECTIONS] = Field(description="above or below")
    threshold: float = Field(allow_inf_nan=False, description="a number")
    min_n: int = Field(0, ge=0, description="a whole number of at least 0")
    periods: PositiveInt = Field(1, description="a whole number of at least 1")
    column: str | None = Field(None, description="the name of a column")
    subject: Literal[SUBJECTS] | None = Field(None, description=f"one of {', '.join(SUBJECTS)}")

    def is_beyond(self, value: float) -> bool:
        """Whether `value` is on the bad side of the threshold; the threshold itself is not."""
        return value > self.threshold if self.direction == "above" else value < self.threshold


def read_rules(given: Any) -> list[Rule]:
    """The rules of the parameter `alerts`, a list of mappings. Raises ParameterError with all violations at once."""
    if not isinstance(given, list):
        raise ParameterError(f"alerts is {given!r}, a list such as [{{metric: …, direction: …}}] was expected.")
    problems = [problem for number, rule in enumerate(given, 1) for problem in _check_rule(f"rule {number}", rule)]
    if problems:
        raise ParameterError(describe_problems("'alerts'", [problem.removesuffix(".") for problem in problems]))
    return [Rule(**rule) for rule in given]


def _check_rule(place: str, rule: Any) -> list[str]:
    """What is wrong with one rule."""
    metric = rule.get("metric") if isinstance(rule, dict) else None
    known = _list_metrics() if isinstance(metric, str) else [metric]
    problems = [] if metric in known else [f"{place}: there is no metric {metric!r}.{did_you_mean(metric, known)}"]
    try:
        Rule.model_validate(rule)
    except ValidationError as error:
        problems += [_describe(place, item) for item in error.errors()]
    return problems


def _describe(place: str, item: Mapping[str, Any]) -> str:
    """One of pydantic's complaints, in our words."""
    if not item["loc"]:
        return f"{place} is {item['input']!r}, a mapping with metric, direction and threshold was expected"
    name, settings = str(item["loc"][0]), Rule.model_fields
    if item["type"] in ("extra_forbidden", "invalid_key"):
        return f"{place} has a key {name!r}, which no rule has.{did_you_mean(name, settings)}"
    expected = settings[name].description
    if item["type"] == "missing":
        return f"{place} has no {name}: give {expected}"
    guess = did_you_mean(str(item["input"]), {"direction": DIRECTIONS, "subject": SUBJECTS}.get(name, ()))
    return f"{place}: {name} is {item['input']!r}, {expected} was expected.{guess}"


def _list_metrics() -> list[str]:
    """The metrics that a history can have."""
    from pinmill.drift import METRICS as OF_DRIFT
    from pinmill.metrics import METRICS
    from pinmill.outcomes import list_functions

    return [*TRAFFIC, *METRICS, *OF_DRIFT, *list_functions()]


def judge(rules: Collection[Rule], history: "DataFrame", *, complete: Collection[str]) -> list[dict[str, Any]]:
    """What each rule says of each column that it holds for, by `complete` periods only.

    key, text (one sentence), firing, metric, column, value, threshold, period, n: value, period and n are of the newest
    period that counts, NaN, "" and 0 where none does. Periods without a value, or of too few cases, tell nothing and
    are passed over. What has no row in the newest period of its subject is gone, and is not judged any more.
    """
    done = history[history["period"].isin(list(complete))] if len(history) else history
    return list({each["key"]: each for rule in rules for each in _judge_rule(rule, done)}.values())


def _judge_rule(rule: Rule, done: "DataFrame") -> list[dict[str, Any]]:
    if done.empty:
        return [_judge_column(rule, rule.subject or "", rule.column or "", [], {})]
    own = done[done["metric"] == rule.metric]
    own = own if rule.column is None else own[own["column"] == rule.column]
    own = own if rule.subject is None else own[own["subject"] == rule.subject]
    of_columns = done[(done["status"] == "shifted") & (done["column"] != "")]
    shifted = of_columns.groupby(["subject", "period"])["column"].unique().to_dict()
    newest = done.groupby("subject")["period"].max()
    verdicts = [
        _judge_column(rule, *names, rows.to_dict("records"), shifted)
        for names, rows in own.sort_values("period").groupby(["subject", "column"])
        if rows["period"].iloc[-1] == newest[names[0]]
    ]
    return verdicts or _judge_rule(rule, done[:0])


def _judge_column(
    rule: Rule,
    subject: str,
    column: str,
    rows: Sequence[Mapping[str, Any]],
    shifted: Mapping[tuple[str, str], Collection[str]],
) -> dict[str, Any]:
    """What a rule says of one column by its rows, the oldest first; `shifted` are columns by subject and period."""
    last = [row for row in rows if row["n"] >= rule.min_n and not math.isnan(row["value"])][-rule.periods :]
    firing = len(last) == rule.periods and all(rule.is_beyond(row["value"]) for row in last)
    newest = last[-1] if last else {"value": math.nan, "period": "", "n": 0}
    beyond = f"{rule.metric} {rule.direction} {rule.threshold:.12g}"
    names = shifted.get((subject, newest["period"]), ()) if rule.metric == "shifted_columns" else ()
    return {
        "key": f"{subject}/{column}/{beyond}, {rule.periods} periods of {rule.min_n}",
        "text": _tell(rule, f"{subject} {_shorten(column)}".strip(), last, names, firing=firing),
        "firing": firing,
        "metric": rule.metric,
        "column": column,
        "value": float(newest["value"]),
        "threshold": rule.threshold,
        "period": newest["period"],
        "n": int(newest["n"]),
    }


def _tell(rule: Rule, of: str, last: Sequence[Mapping[str, Any]], names: Collection[str], *, firing: bool) -> str:
    """One sentence about a rule and what it is `of`, for a chat; `names` are columns that shifted."""
    readable = WORDS.get(rule.metric) or NAMES.get(rule.metric, rule.metric)
    named = f"{readable} of {of}" if of not in ("", "traffic", "score") else readable
    if not last:
        enough = f" of at least {rule.min_n} cases" if rule.min_n > 1 else ""
        return f"No complete period has {named}{enough} yet."
    newest = last[-1]
    until = f" to {newest['period']}" if len(last) > 1 else ""
    when = f"in the period{'s' * (len(last) > 1)} from {last[0]['period']}{until}"
    limit = f"{'' if firing else 'not '}{rule.direction} {_format(rule.threshold, rule.metric)}"
    needed = "" if firing or rule.periods == 1 else f" in {rule.periods} periods one after the other"
    if rule.metric == "shifted_columns":
        counts = ", ".join(f"{row['value']:.0f} of {row['n']:,}" for row in last)
        return f"{counts} {of} columns shifted {when}{_list_names(names)}: {limit}{needed}."
    values = ", ".join(_format(row["value"], rule.metric) for row in last)
    return f"{named[0].upper()}{named[1:]} was {values} {when} (n = {int(newest['n']):,}): {limit}{needed}."


def _format(value: float, metric: str) -> str:
    """A share in percent, any other number in four digits."""
    return f"{100 * value:.3g} %" if metric.endswith("_share") or metric == "cached" else f"{value:.4g}"


def _list_names(columns: Collection[str]) -> str:
    """' (price, city, …)', or nothing."""
    shown = ", ".join(_shorten(column) for column in sorted(columns)[:MOST_NAMED])
    return f" ({shown}{', …' * (len(columns) > MOST_NAMED)})" if shown else ""


def _shorten(column: str) -> str:
    return f"{column[:LONGEST_NAME]}{'…' * (len(column) > LONGEST_NAME)}"
