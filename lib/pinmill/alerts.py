"""Alert rules: when a metric of the monitoring history is one that somebody must be told of. Pure."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from pinmill.card import NAMES
from pinmill.drift import METRICS as OF_DRIFT
from pinmill.drift import SHIFTED
from pinmill.errors import ParameterError, describe_problems, did_you_mean
from pinmill.monitoring import CHANGED, count_shifted, name_period, shorten_name

if TYPE_CHECKING:
    from pandas import DataFrame

TRAFFIC = ("requests", "rows", "errors", "error_share", "cached", "p50_ms", "p95_ms", "p99_ms")
WORDS = {  # what people read for metrics of traffic and drift
    "error_share": "the share of errors",
    "cached": "the share of cached rows",
    "requests": "the number of requests",
    "rows": "the number of rows",
    "errors": "the number of errors",
    **{f"p{share}_ms": f"the time within which {share} % of requests were answered" for share in (50, 95, 99)},
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
LIMITS = ("threshold", "min_n", "periods")  # of a rule: what people edit
SUBJECTS = ("traffic", "score", "input", "prediction")
WHOSE = {"input": "the input column", "prediction": "the output"}  # before the name of a column
WHO = {"input": "what callers send", "prediction": "what the model says"}


class Rule(BaseModel):
    """Fires when the newest `periods` with at least `min_n` cases all have the metric beyond the threshold.

    They must be among the newest `periods` + 1 of all that are complete: what is older is not known any more.
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

    def span(self) -> int:
        """How many complete periods it looks at: one may be without a value."""
        return self.periods + 1


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
    from pinmill.metrics import METRICS
    from pinmill.outcomes import list_functions

    return [*TRAFFIC, *METRICS, *OF_DRIFT, *list_functions()]


def find_idle(rules: Sequence[Rule], computed: Mapping[str, tuple[Collection[str], Collection[str]]]) -> list[str]:
    """One sentence for each rule that can never fire; `computed` has metrics and columns ("": of none) by subject."""
    said = []
    for number, rule in enumerate(rules, 1):
        parts = [part for subject, part in computed.items() if rule.subject in (None, subject)]
        metrics = [metric for part in parts for metric in part[0]]
        columns = [column for part in parts if rule.metric in part[0] for column in part[1]]
        if rule.metric not in metrics:
            of = f" of subject {rule.subject}" if rule.subject else ""
            guess = did_you_mean(rule.metric, metrics)
            said.append(f"Rule {number} never fires: {rule.metric}{of} is not computed here.{guess}")
        elif rule.column is not None and rule.column not in columns:
            guess = did_you_mean(rule.column, columns)
            said.append(f"Rule {number} never fires: {rule.metric} has no column {rule.column!r}.{guess}")
    return said


def judge(
    rules: Collection[Rule], history: "DataFrame", *, complete: Collection[str], length: str
) -> list[dict[str, Any]]:
    """What each rule says of each column that it holds for, by `complete` periods, each a day, week or month in length.

    key, text (one sentence), firing, subject, metric, column, value, period, n, and direction, threshold, min_n and
    periods of the rule: value, period and n are of the newest period that counts, NaN, "" and 0 where none does.
    Periods without a value, or of too few cases, tell nothing; what is older than a rule's span is not known any more.
    What has no row in the newest period of its subject is gone, and is not judged. The key is of subject, column,
    metric and direction, so that it stays when a rule is edited; further rules of these have a number.
    """
    done = history[history["period"].isin(list(complete))] if len(history) else history
    found: dict[str, dict[str, Any]] = {}
    for rule in rules:
        for verdict in _judge_rule(rule, done, sorted(complete), length):
            key, number = verdict["key"], 2
            while any(found.get(verdict["key"], verdict)[name] != verdict[name] for name in LIMITS):
                verdict["key"], number = f"{key} {number}", number + 1
            found.setdefault(verdict["key"], verdict)
    return [*found.values()]


def _judge_rule(rule: Rule, done: "DataFrame", complete: Sequence[str], length: str) -> list[dict[str, Any]]:
    if done.empty:
        return [_judge_column(rule, rule.subject or "", rule.column or "", [], {}, complete, length)]
    own = done[done["metric"] == rule.metric]
    own = own if rule.column is None else own[own["column"] == rule.column]
    own = own if rule.subject is None else own[own["subject"] == rule.subject]
    of_columns = done[done["status"].isin(CHANGED) & (done["column"] != "")]
    shifted = of_columns.groupby(["subject", "period"])["column"].unique().to_dict()
    newest = done.groupby("subject")["period"].max()
    verdicts = [
        _judge_column(rule, *names, rows.to_dict("records"), shifted, complete, length)
        for names, rows in own.sort_values("period").groupby(["subject", "column"])
        if rows["period"].iloc[-1] == newest[names[0]]
    ]
    return verdicts or _judge_rule(rule, done[:0], complete, length)


def _judge_column(
    rule: Rule,
    subject: str,
    column: str,
    rows: Sequence[Mapping[str, Any]],
    shifted: Mapping[tuple[str, str], Collection[str]],
    complete: Sequence[str],
    length: str,
) -> dict[str, Any]:
    """What a rule says of one column by its rows, the oldest first; `shifted` are columns by subject and period."""
    enough, seen = (
        [row for row in rows if row["n"] >= rule.min_n and row["value"] == row["value"]],
        {*complete[-rule.span() :]},
    )
    last = [row for row in enough if row["period"] in seen][-rule.periods :]
    firing = len(last) == rule.periods and all(rule.is_beyond(row["value"]) for row in last)
    newest = last[-1] if last else {"value": math.nan, "period": "", "n": 0}
    if last and rule.metric == SHIFTED:
        text = _tell_shift(rule, subject, last, shifted.get((subject, newest["period"]), ()), complete, length)
    elif last:
        text = _tell(rule, subject, column, last, complete, length, firing=firing)
    else:
        text = _tell_nothing(rule, _name(rule, subject, column), enough[-1:], length)
    return {
        "key": f"{subject}/{column}/{rule.metric} {rule.direction}",
        "text": f"{text[0].upper()}{text[1:]}",
        "firing": firing,
        "subject": subject,
        "metric": rule.metric,
        "direction": rule.direction,
        "column": column,
        "value": float(newest["value"]),
        "threshold": rule.threshold,
        "period": newest["period"],
        "n": int(newest["n"]),
        "min_n": rule.min_n,
        "periods": rule.periods,
    }


def _name(rule: Rule, subject: str, column: str) -> str:
    """A metric, and what it is of, as people read it."""
    readable = WORDS.get(rule.metric) or NAMES.get(rule.metric, rule.metric)
    whose = f"{WHOSE.get(subject, 'the column')} {shorten_name(column)}" if column else WHO.get(subject, "")
    return f"{readable} of {whose}" if whose else readable


def _tell_nothing(rule: Rule, named: str, before: Sequence[Mapping[str, Any]], length: str) -> str:
    """That no period that a rule looks at has a value; `before` may hold the last that had one."""
    enough = f" of at least {rule.min_n:,} cases" if rule.min_n > 1 else ""
    if not before:
        return f"no complete {length} has {named}{enough} yet."
    was, when = _format(before[0]["value"], rule.metric), name_period(before[0]["period"], length)
    return f"{named} is not known any more: the last value{enough} was {was} {when}."


def _tell_shift(
    rule: Rule,
    subject: str,
    last: Sequence[Mapping[str, Any]],
    names: Collection[str],
    complete: Sequence[str],
    length: str,
) -> str:
    """How many columns shifted; `names` are those of the newest period."""
    has = "has changed" if last[-1]["value"] else "has not changed"
    is_plain = (rule.direction, rule.threshold, rule.periods) == ("above", 0, 1)
    many = f" in {rule.periods} {length}s" if rule.periods > 1 else ""
    limit = "" if is_plain else f"; the limit is {rule.threshold:g}{many}"
    return f"{WHO[subject]} {has}: {count_shifted(last, names, subject)} {_tell_when(last, complete, length)}{limit}."


def _tell(
    rule: Rule,
    subject: str,
    column: str,
    last: Sequence[Mapping[str, Any]],
    complete: Sequence[str],
    length: str,
    *,
    firing: bool,
) -> str:
    """A value and its limit."""
    values = ", then ".join(_format(row["value"], rule.metric) for row in last)
    limit = _format(rule.threshold, rule.metric)
    when, n = _tell_when(last, complete, length), f"{last[-1]['n']:,}"
    is_beyond = rule.is_beyond(last[-1]["value"])
    needed = f", but not in {rule.periods} {length}s" if is_beyond and not firing else ""
    if rule.metric == "error_share":
        within = f"{'; the' if is_beyond else ', within the'} limit {'is' if is_beyond else 'of'} {limit}{needed}"
        return f"errors: {values} of {n} requests failed {when}{within}."
    beyond = f"{rule.direction} the limit of {limit}" if is_beyond else f"within the limit of {limit}"
    return f"{_name(rule, subject, column)} was {values}, {beyond}, {when}{needed} (n = {n})."


def _tell_when(last: Sequence[Mapping[str, Any]], complete: Sequence[str], length: str) -> str:
    """When the periods of some rows were, the oldest first."""
    when = name_period(last[-1]["period"], length)
    if len(last) == 1:
        return when
    among = complete.index(last[-1]["period"]) - complete.index(last[0]["period"]) + 1
    many = f"{len(last)} {length}s in a row" if among == len(last) else f"{len(last)} of {among} {length}s"
    return f"in {many}, the last {when}"


def _format(value: float, metric: str) -> str:
    """A share in percent, a time in milliseconds, any other number in four digits."""
    if metric.endswith("_share") or metric == "cached":
        return f"{100 * value:.3g} %"
    return f"{value:.4g}{' ms' * metric.endswith('_ms')}"
