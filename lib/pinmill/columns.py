"""What each input column holds, told from its values: numbers, categories, dates, texts, or nothing of use."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from pandas import DataFrame, Series, to_datetime
from pandas.api import types

from pinmill.errors import ParameterError, describe_problems, did_you_mean
from pinmill.table import is_missing, list_rows, show

USED = ("number", "boolean", "category", "date", "text")
LEFT_OUT = {
    "id": "every row has a value of its own: it names the row, and says nothing about the next one",
    "constant": "it has the same value in every row",
    "empty": "it has no value at all",
    "nested": "it holds lists or mappings, not single values",
    "mixed": "some values are texts and some are not: make them all one or the other",
    "drop": "the params say so",
}
ZONE = r"\d:?\d\d.*(?:Z|[+-]\d\d:?\d\d)$"
DATE = r"\d{4}-\d{2}-\d{2}(?:[T ].*)?"  # ISO 8601; 05/03/2024 means May in one country and March in another
WORDS = 4  # a mean of more words than this, seldom the same: sentences
FITTING = {"number": types.is_numeric_dtype, "date": types.is_datetime64_any_dtype, "text": types.is_string_dtype}
SMALLEST_ID = 20  # rows: in fewer, values differ by chance
EPOCH = np.datetime64("1970-01-01")


def name_inputs(
    frame: DataFrame, *, text: Sequence[str], features: Sequence[str], ignore: Sequence[str], label: str
) -> list[str]:
    """The input columns beside `text`: `features` or, where no input is named, all but the label; without `ignore`.

    Raises ParameterError for a column to ignore that there is not: it could be a misspelt one that stays an input.
    """
    unknown = [name for name in ignore if name not in frame]
    if unknown:
        problems = [f"there is no column {name!r}.{did_you_mean(name, frame.columns)}" for name in unknown]
        raise ParameterError(describe_problems("'ignore'", [problem.removesuffix(".") for problem in problems]))
    named = features if text or features else [name for name in frame.columns if name not in (label, *text)]
    return [name for name in named if name not in ignore]


def read_dates(frame: DataFrame, columns: Sequence[str]) -> DataFrame:
    """`frame` with those of `columns` as times of which every value is an ISO 8601 date, such as 2026-11-20.

    Times of several zones become UTC.
    """
    read = frame.copy(deep=False)
    for name in [name for name in columns if name in frame and types.is_string_dtype(frame[name].dropna())]:
        times = _parse_times(frame[name])
        if frame[name].notna().any() and times.isna().sum() == frame[name].isna().sum():
            read[name] = times
    return read


def _parse_times(column: Series) -> Series:
    """Times, missing where a value is no ISO 8601 date; without a zone where no value has one."""
    texts = column.astype("str").str.strip()
    texts = texts.where(texts.str.fullmatch(DATE, na=False))
    times = to_datetime(texts, format="ISO8601", errors="coerce", utc=True)
    return times if texts.str.contains(ZONE, na=False).any() else times.dt.tz_localize(None)


def find_bad_dates(frame: DataFrame, columns: Sequence[str]) -> list[str]:
    """In words, the columns of texts of which most are ISO 8601 dates, and what keeps them from being dates."""
    found = []
    for name in [name for name in columns if name in frame and types.is_string_dtype(frame[name].dropna())]:
        known = frame[name].dropna()
        bad = known[_parse_times(known).isna()]
        if 0 < len(bad) < len(known) / 2:
            values = f"{len(bad)} of {len(known)} values are none, e.g. {show(bad.iloc[0])} ({list_rows(bad.index)})"
            found.append(f"{name} is not taken for dates: {values}")
    return found


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
    problems += [
        _misfit(frame[n], k) for n, k in chosen.items() if n in frame and k in FITTING and not FITTING[k](frame[n])
    ]
    if problems:
        raise ParameterError(describe_problems("'kinds'", [problem.removesuffix(".") for problem in problems]))
    given = {**dict.fromkeys(text, "text"), **chosen}
    return {name: given.get(name) or (find_kind(frame[name]) if name in frame else "absent") for name in columns}


def _misfit(column: Series, kind: str) -> str:
    """What is wrong with taking a column for a kind."""
    known = column.dropna()
    example = f", e.g. {show(known.iloc[0])} ({list_rows(known.index[:1])})" if len(known) else ""
    return f"{column.name!r} cannot be a {kind}: it holds {types.infer_dtype(known)} values{example}"


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
    """Whether distinct numbers are whole, and rise or fall from row to row with few gaps, as counters do."""
    is_dense = bool((numbers % 1 == 0).all()) and numbers.max() - numbers.min() < 2 * len(numbers)
    return is_dense and (numbers.is_monotonic_increasing or numbers.is_monotonic_decreasing)


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
