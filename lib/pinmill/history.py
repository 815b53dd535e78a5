"""What monitoring found in each period, kept as the pin W-monitoring: one long table, merged with what is found now."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas
from pandas import DataFrame, Series

from pinmill.errors import DataError, describe_problems
from pinmill.periods import Period

KEY = ["period", "subject", "column", "metric"]
NUMBERS = ["value", "low", "high", "p"]
TEXTS = [*KEY, "status", "model"]
COLUMNS = [*KEY, "value", "low", "high", "n", "p", "status", "model"]
DRIFT = ("input", "prediction")  # subjects of drift
EMPTY = {**dict.fromkeys(TEXTS, ""), **dict.fromkeys(NUMBERS, math.nan), "n": 0, "status": "ok"}


def make_history(rows: Iterable[Mapping[str, Any]]) -> DataFrame:
    """The table of `rows`, which the functions below make; what a row has not is empty, NaN or 0."""
    return _set_types(DataFrame([{**EMPTY, **row} for row in rows], columns=COLUMNS))


def traffic_rows(period: Period, traffic: Mapping[str, Any], *, now: datetime) -> list[dict[str, Any]]:
    """The rows of what `read_traffic` told, and of whether the period was complete (1.0) or running (0.0) by `now`."""
    requests = traffic["requests"]
    values = {name: traffic[name] for name in ("requests", "rows", "errors", "cached", "p50_ms", "p95_ms", "p99_ms")}
    values |= {"error_share": traffic["errors"] / requests if requests else math.nan}
    values |= {"complete": float(now >= period.end)}
    counts = {"cached": traffic["rows"], **dict.fromkeys(("p50_ms", "p95_ms", "p99_ms"), traffic["timed"])}
    found = [{"metric": name, "value": value, "n": counts.get(name, requests)} for name, value in values.items()]
    return period_rows(period, "traffic", found, model=[each["version"] for each in traffic["versions"]])


def period_rows(
    period: Period, subject: str, found: Iterable[Mapping[str, Any]], *, model: Sequence[str]
) -> list[dict[str, Any]]:
    """What was `found` of a subject (traffic, score, input, prediction) in a period.

    `model` are the versions that answered; for drift it is the one whose data the calls were held against.
    """
    about = {"period": period.name, "subject": subject, "model": ", ".join(sorted(model))}
    return [{**about, **each} for each in found]


def merge_history(before: DataFrame | None, now: DataFrame) -> DataFrame:
    """One row for each period, subject, column and metric, sorted: what is found `now` replaces what was `before`.

    All rows of a period and subject are replaced together; those that `now` has nothing of stay. Of a period that has
    fewer requests or rows now than before, calls were removed since: it stays as it was, but for scores of more calls
    than before, as labels came late. Raises DataError for a table that is no such history.
    """
    new = _check(now, "what was found now")
    old = new[:0] if before is None else _check(before, "the history")
    removed = _find_removed(old, new)
    new = new[~new["period"].isin(removed) | (new["subject"] == "score") & _find_grown(old, new)]
    replaced = pandas.MultiIndex.from_frame(old[KEY[:2]]).isin(pandas.MultiIndex.from_frame(new[KEY[:2]]))
    kept = old[~replaced | old["period"].isin(removed)]
    merged = pandas.concat([kept, new]).drop_duplicates(KEY, keep="last")
    return merged.sort_values(KEY, ignore_index=True)


def _find_removed(old: DataFrame, new: DataFrame) -> list[str]:
    """The periods that have less traffic in `new` than in `old`."""
    both = [each[(each["subject"] == "traffic") & each["metric"].isin(["requests", "rows"])] for each in (old, new)]
    counts = [each.groupby(["period", "metric"])["value"].last() for each in both]
    fewer = counts[1] < counts[0].reindex(counts[1].index)
    return [*fewer.index[fewer].get_level_values("period").unique()]


def _find_grown(old: DataFrame, new: DataFrame) -> Series:
    """Whether each row of `new` tells of more cases than the row of `old` that it would replace."""
    counts = old.groupby(KEY)["n"].last()
    known = counts.reindex(pandas.MultiIndex.from_frame(new[KEY])).fillna(0)
    return new["n"] > known.to_numpy()


def needs_drift(before: DataFrame | None, period: Period, now: datetime) -> bool:
    """Whether drift in a period is to be computed: not if it was, in every column, when the period was complete."""
    if before is None or now < period.end:
        return True
    history = _check(before, "the history")
    rows = history[history["period"] == period.name]
    was_complete, of_drift = (rows["metric"] == "complete") & (rows["value"] == 1), rows["subject"].isin(DRIFT)
    has_failed = of_drift & rows["status"].str.startswith("failed")
    return not (was_complete.any() and of_drift.any()) or bool(has_failed.any())


def _check(table: DataFrame, name: str) -> DataFrame:
    """The columns of a history, typed. Raises DataError with all that is wrong."""
    problems = [f"column {column!r} is missing" for column in COLUMNS if column not in table]
    if not problems:
        numbers = table[[*NUMBERS, "n"]].apply(pandas.to_numeric, errors="coerce")
        wrong = numbers.isna() & table[[*NUMBERS, "n"]].notna()
        problems = [f"column {column!r} holds what is no number" for column in wrong if wrong[column].any()]
        problems += [f"column {column!r} has missing values" for column in [*KEY, "n"] if table[column].isna().any()]
    if problems:
        step = (
            "Another table, or a damaged one: take this version of the pin off the board, then the one before goes on"
        )
        raise DataError(f"{describe_problems(name, problems)}. {step}")
    return _set_types(table[COLUMNS])


def _set_types(table: DataFrame) -> DataFrame:
    """A history with the types that it also has when it comes back from its pin."""
    return table.astype({**dict.fromkeys(TEXTS, "str"), **dict.fromkeys(NUMBERS, float), "n": "int64"})
