"""What was asked of a workflow in a day, week or month: its calls, counted and sampled in SQL. All times are UTC."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sql

from pinmill.errors import ParameterError, did_you_mean
from pinmill.operations import OWN
from pinmill.store import CALLS, Store, stamp

if TYPE_CHECKING:
    from pandas import DataFrame

LENGTHS = {"day": 1, "week": 7, "month": 32}  # days from the start of a period to some day of the next
PROBE = "GET /health"  # of a notebook: asked by machines that watch, not by callers
PERCENTS = (50, 95, 99)
MOST_CALLERS = 20  # told one by one
# What the gateway answers itself is no traffic: people label and look after the service there, and it logs much of that
# only where it fails.
IS_TRAFFIC = CALLS.c.endpoint.not_in([PROBE, *(f"{own.method} {own.path}" for own in OWN)])
IS_ROW = CALLS.c.input_hash != ""  # a row to be scored; the one of a call that had none says only that it was made
IS_SCORED = IS_ROW & CALLS.c.output.is_not(sql.null())
SPREAD, STEP = 65_536, 40_503  # an odd step: ids in a row fall all over the range, and each again on its own place


class Period(NamedTuple):
    """A stretch of time, aware, in UTC."""

    start: datetime
    end: datetime  # the first moment after it

    @property
    def name(self) -> str:
        """Its first day, as 2026-11-16."""
        return f"{self.start:%Y-%m-%d}"


def list_periods(first: datetime, now: datetime, *, period: str) -> list[Period]:
    """The days, weeks (from Monday) or months from that of `first` to that of `now`, at least one, without a gap.

    `period` is day, week or month; ParameterError for another.
    """
    if period not in LENGTHS:
        known = ", ".join(LENGTHS)
        raise ParameterError(f"period is {period!r}; one of {known} was expected.{did_you_mean(period, LENGTHS)}")
    start, found = _find_start(min(first, now), period), []
    while start <= now:
        end = _find_start(start + timedelta(days=LENGTHS[period]), period)
        found.append(Period(start, end))
        start = end
    return found


def _find_start(when: datetime, period: str) -> datetime:
    """When the period that holds `when` began."""
    midnight = when.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "month":
        return midnight.replace(day=1)
    return midnight - timedelta(days=midnight.weekday()) if period == "week" else midnight


def first_call(store: Store, workflow: str) -> datetime | None:
    """When the first call that counts was made; None if there was none."""
    of = CALLS.c
    query = sql.select(of.time).where(of.workflow == workflow, IS_TRAFFIC).order_by(of.time).limit(1)
    return next((datetime.fromisoformat(time) for (time,) in store.read(query)), None)


def select_calls(workflow: str, period: Period) -> sql.ColumnElement[bool]:
    """Whether a row of the call log is traffic of a workflow in a period."""
    of = CALLS.c
    within = (of.time >= stamp(period.start)) & (of.time < stamp(period.end))
    return (of.workflow == workflow) & within & IS_TRAFFIC


def read_traffic(store: Store, workflow: str, period: Period) -> dict[str, Any]:
    """What was asked in a period of the notebook's endpoints; a share or time that has no meaning is NaN.

    requests; rows: those to be scored; errors: requests with a status of 400 or more, of any row; cached: share of the
    rows that were known before; timed: requests that had rows; p50_ms, p95_ms, p99_ms: time of these, the shortest that
    so many percent do not exceed. callers: [{caller, requests, rows, errors}], the 20 with the most requests and
    "others"; versions: the same of each that had rows.
    """
    of, n, chosen = CALLS.c, sql.func.count(), select_calls(workflow, period)
    counts = {"requests": n.filter(of.row == 0), "rows": n.filter(IS_ROW)}
    counts |= {"errors": sql.func.count(of.request.distinct()).filter(of.status >= 400)}
    counts |= {"cached": n.filter(IS_ROW & of.cached), "timed": n.filter(IS_ROW & (of.row == 0))}
    columns = [column.label(name) for name, column in counts.items()]
    query = sql.select(of.caller, of.version, *columns).where(chosen).group_by(of.caller, of.version)
    groups = [row._mapping for row in store.read(query)]
    total = Counter({name: sum(group[name] for group in groups) for name in counts})
    callers = _sum_by(groups, "caller")
    others = [_add({"caller": "others"}, callers[MOST_CALLERS:])] if len(callers) > MOST_CALLERS else []
    return {
        **{name: total[name] for name in ("requests", "rows", "errors", "timed")},
        "cached": total["cached"] / total["rows"] if total["rows"] else math.nan,
        **_read_percentiles(store, chosen & IS_ROW & (of.row == 0), total["timed"]),
        "callers": callers[:MOST_CALLERS] + others,
        "versions": [each for each in _sum_by(groups, "version") if each["rows"]],
    }


def _sum_by(groups: Sequence[Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
    """Requests, rows and errors by `key`, the one with the most requests first."""
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for group in groups:
        parts.setdefault(group[key], []).append(group)
    return sorted((_add({key: name}, part) for name, part in parts.items()), key=lambda e: (-e["requests"], e[key]))


def _add(about: Mapping[str, Any], part: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sums of the counts in `part`."""
    return {**about, **{name: sum(each[name] for each in part) for name in ("requests", "rows", "errors")}}


def _read_percentiles(store: Store, chosen: sql.ColumnElement[bool], n: int) -> dict[str, float]:
    """Of the times of `n` chosen calls those at the PERCENTS."""
    place = sql.func.row_number().over(order_by=CALLS.c.milliseconds).label("place")
    ordered = sql.select(place, CALLS.c.milliseconds).where(chosen).subquery()
    places = {percent: -(-n * percent // 100) for percent in PERCENTS}
    found = dict(store.read(sql.select(ordered).where(ordered.c.place.in_([*places.values()]))) if n else [])
    return {f"p{percent}_ms": found.get(place, math.nan) for percent, place in places.items()}


def read_inputs(
    store: Store, workflow: str, period: Period, *, most: int = 20_000, text: str = "text", once: bool = True
) -> tuple["DataFrame", dict[str, int]]:
    """A sample of at most `most` inputs of a period, and {rows, hidden, taken}; the same calls give the same sample.

    `once`: an input that came more than once is taken once, as tests of chance want rows that are independent. Not so
    where equal inputs are different cases, as in a table of few values: the sample would hold all equally often.
    An input that came as a text and not as an object has it in the column `text`. rows are those to be scored, hidden
    those of them whose input was not kept (`log_inputs`), taken those in the sample. Without any it has no columns.
    """
    from pandas import DataFrame

    chosen, is_kept = select_calls(workflow, period) & IS_ROW, CALLS.c.input.is_not(sql.null())
    counts = store.read(sql.select(sql.func.count(), sql.func.count().filter(is_kept)).where(chosen))
    rows, kept = counts[0] if counts else (0, 0)
    values = _sample(store, CALLS.c.input, chosen & is_kept, most=most, once=once)
    frame = DataFrame([value if isinstance(value, dict) else {text: value} for value in values])
    return frame, {"rows": rows, "hidden": rows - kept, "taken": len(frame)}


def read_outputs(
    store: Store, workflow: str, period: Period, *, version: str, most: int = 20_000, once: bool = True
) -> "DataFrame":
    """What a version of the model said of a sample, as in `read_inputs`, of the rows that it scored in a period.

    Columns as `list_outputs`.
    """
    chosen = select_calls(workflow, period) & IS_SCORED & (CALLS.c.version == version)
    return list_outputs(_sample(store, CALLS.c.output, chosen, most=most, once=once))


def list_outputs(outputs: Sequence[Any]) -> "DataFrame":
    """A row for each output of a row-wise cell: label, value, and "probability of X" for each X in any of them.

    What an output has not is None (label) or NaN.
    """
    import pandas

    told = [output if isinstance(output, dict) else {} for output in outputs]
    shares = [each["probability"] if isinstance(each.get("probability"), dict) else {} for each in told]
    named = [{f"probability of {name}": share for name, share in each.items()} for each in shares]
    numbers = [{"value": each.get("value"), **more} for each, more in zip(told, named, strict=True)]
    frame = pandas.DataFrame(numbers, columns=None if numbers else ["value"], dtype=object)
    labels = pandas.Series([each.get("label") for each in told], name="label", dtype=object)
    return pandas.concat([labels, frame.apply(pandas.to_numeric, errors="coerce").astype(float)], axis="columns")


def _sample(store: Store, column: sql.Column, chosen: sql.ColumnElement[bool], *, most: int, once: bool) -> list[Any]:
    """The values of `column` in at most `most` of the `chosen` calls, or `once` of their inputs, as they came."""
    first = sql.func.min(CALLS.c.id) if once else CALLS.c.id
    firsts = sql.select(first.label("first")).where(chosen)
    firsts = (firsts.group_by(CALLS.c.input_hash) if once else firsts).subquery()
    mixed = firsts.c.first % SPREAD * STEP % SPREAD
    taken = sql.select(firsts.c.first).order_by(mixed, firsts.c.first).limit(most).subquery()
    query = sql.select(column).join(taken, taken.c.first == CALLS.c.id).order_by(CALLS.c.id)
    return [value for (value,) in store.read(query)]
