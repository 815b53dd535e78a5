"""What each input column holds, told from its values: numbers, categories, dates, texts, or nothing of use."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from pandas import DataFrame, Series, to_datetime
from pandas.api import types

from pinmill.errors import ParameterError, describe_problems, did_you_mean
from pinmill.table import is_missing

USED = ("number", "boolean", "category", "date", "text")
LEFT_OUT = {
    "id": "every row has a value of its own: it names the row, and says nothing about the next one",
    "constant": "it has the same value in every row",
    "empty": "it has no value at all",
    "nested": "it holds lists or mappings, not single values",
    "mixed": "some values are texts and some are not: make them all one or the other",
    "drop": "the params say so",
}
DATE = r"\d{4}-\d{2}-\d{2}(?:[T ].*)?"  # ISO 8601; 05/03/2024 means May in one country and March in another
WORDS = 4  # a mean of more words than this, seldom the same: sentences
SMALLEST_ID = 20  # rows: in fewer, values differ by chance
EPOCH = np.datetime64("1970-01-01")


def read_dates(frame: DataFrame, columns: Sequence[str]) -> DataFrame:
    """`frame` with those of `columns` as times of which every value is an ISO 8601 date, such as 2026-11-20."""
    texts = [c for c in columns if c in frame and types.is_string_dtype(frame[c].dropna()) and frame[c].notna().any()]
    return frame.assign(**{name: times for name in texts if (times := _as_times(frame[name])) is not None})


def _as_times(column: Series) -> Series | None:
    known = column.dropna()
    if not known.astype(str).str.fullmatch(DATE).all():
        return None
    try:
        return to_datetime(column, format="ISO8601")
    except ValueError:  # a 31st of February, or several time zones
        return None


def find_kinds(
    frame: DataFrame, columns: Sequence[str], *, text: Collection[str] = (), chosen: Mapping[str, str] | None = None
) -> dict[str, str]:
    """{column: kind}: number, boolean, category, date or text, or one of LEFT_OUT.

    `text` names columns that are texts, `chosen` gives the kind of columns where what is told here would be wrong.
    A column that `frame` lacks is "absent". Raises ParameterError for what `chosen` cannot say.
    """
    chosen, kinds = chosen or {}, [*USED, "drop"]
    problems = [f"{n!r} is no input column.{did_you_mean(n, columns)}" for n in chosen if n not in columns]
    problems += [
        f"{n!r} is {k!r}, none of {', '.join(kinds)}.{did_you_mean(k, kinds)}"
        for n, k in chosen.items()
        if k not in kinds
    ]
    if problems:
        raise ParameterError(describe_problems("'kinds'", [problem.removesuffix(".") for problem in problems]))
    given = {**dict.fromkeys(text, "text"), **chosen}
    return {name: given.get(name) or (find_kind(frame[name]) if name in frame else "absent") for name in columns}


def find_kind(column: Series) -> str:
    """The kind of one column by its values."""
    known = column[~is_missing(column)].infer_objects()
    if any(isinstance(value, list | dict | np.ndarray) for value in known):
        return "nested"
    if types.infer_dtype(known).startswith("mixed") and not types.is_numeric_dtype(known.dtype):
        return "mixed"
    distinct = known.nunique()
    if distinct < 2:
        return "constant" if distinct else "empty"
    if types.is_bool_dtype(known.dtype):
        return "boolean"
    if types.is_datetime64_any_dtype(known.dtype):
        return "date"
    is_number = types.is_numeric_dtype(known.dtype)
    words = 1 if is_number else known.astype(str).str.split().str.len().mean()
    is_each_its_own = distinct == len(column) >= SMALLEST_ID
    if is_each_its_own and (_is_counted(known) if is_number else words < 2):
        return "id"
    return "number" if is_number else "text" if words > WORDS and distinct > len(known) / 2 else "category"


def _is_counted(numbers: Series) -> bool:
    """Whether distinct numbers are whole and rise or fall from row to row, as counters do and measurements do not."""
    is_whole = bool((numbers % 1 == 0).all())
    return is_whole and (numbers.is_monotonic_increasing or numbers.is_monotonic_decreasing)


def calendar(frame: DataFrame) -> np.ndarray:
    """Of each date column: days since 1970, month (1 to 12) and weekday (Monday is 0); NaN where it is missing."""
    parts = []
    for times in (frame[name].dt.tz_localize(None) for name in frame):
        days = (times - EPOCH).dt.total_seconds() / 86_400
        parts += [days, times.dt.month, times.dt.day_of_week]
    return np.column_stack(parts).astype(float)


def calendar_names(transformer: object, names: Sequence[str]) -> list[str]:
    """Names of what `calendar` returns, for scikit-learn's FunctionTransformer."""
    return [f"{name} ({part})" for name in names for part in ("day", "month", "weekday")]
