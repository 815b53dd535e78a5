"""The prototype of a model: the input columns and types it expects, and the check of new inputs against it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas
from pandas import DataFrame, Series
from pandas.api import types

from pinmill.errors import DataError, describe_problems, did_you_mean
from pinmill.table import EXACT, describe_wrong, list_rows

MOST_CATEGORIES = 50  # more distinct texts than this are text, and no form could offer them
LONGEST_CATEGORY = 60  # characters: a longer one is a sentence
EXAMPLE_LENGTH = 200  # characters of a text shown as an example
TRUTH = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
DTYPES = (  # the first that fits; True and False are numbers, too
    ("boolean", types.is_bool_dtype),
    ("integer", types.is_integer_dtype),
    ("number", types.is_numeric_dtype),
    ("datetime", types.is_datetime64_any_dtype),
)


def read_prototype(frame: DataFrame, columns: Sequence[str], *, text: Collection[str] = ()) -> dict[str, dict]:
    """{column: {type, dtype, nullable, examples (up to 3), categories (up to 50, of a category)}}, ready for JSON.

    type is text, category, number, integer, boolean or datetime. Columns in `text` are text; others of strings are
    categories if they hold at most 50 distinct ones, none longer than 60 characters, that repeat.
    """
    return {column: _describe(frame[column], is_text=column in text) for column in columns}


def check_inputs(frame: DataFrame, prototype: Mapping[str, Mapping]) -> DataFrame:
    """The columns of `prototype`, in its order, with the types the model was trained on; other columns are left out.

    A value is changed only if nothing is lost: 3 for 3.0, "58" for 58, "true" for True, an ISO text for a time.
    Raises DataError with all violations at once, columns and rows named; row 0 is the first.
    """
    columns, problems, rows = {}, [], frame.reset_index(drop=True)
    others = [str(column) for column in frame.columns if column not in prototype]
    for name, wanted in prototype.items():
        if (count := list(frame.columns).count(name)) == 1:
            columns[name], found = _coerce(rows[name], wanted)
            problems += [f"column {name!r}: {problem}" for problem in found]
        else:
            found = f"stands {count} times" if count else f"({wanted['type']}) is missing.{did_you_mean(name, others)}"
            problems.append(f"column {name!r} {found}".removesuffix("."))
    if problems:
        raise DataError(describe_problems("the inputs", problems))
    return DataFrame(columns, index=rows.index).set_axis(frame.index)


def _describe(column: Series, *, is_text: bool) -> dict[str, Any]:
    """The entry of one column."""
    values = column.dropna().infer_objects()
    distinct = values.drop_duplicates()
    kind = next((kind for kind, fits in DTYPES if fits(values.dtype) and not is_text), "text")
    if kind == "text" and not is_text and len(distinct) <= min(MOST_CATEGORIES, len(values) / 2):
        kind = "category" if distinct.astype(str).str.len().max() <= LONGEST_CATEGORY else "text"
    categories = {"categories": sorted(map(str, distinct))} if kind == "category" else {}
    examples = [_plain(value) for value in distinct.iloc[:3]]
    nullable = bool(column.isna().any())
    return {"type": kind, "dtype": str(column.dtype), "nullable": nullable, "examples": examples, **categories}


def _plain(value: Any) -> Any:
    """`value` as JSON knows it."""
    value = value.item() if hasattr(value, "item") else value
    value = value.isoformat() if hasattr(value, "isoformat") else value
    return value if isinstance(value, bool | int | float) else str(value)[:EXAMPLE_LENGTH]


def _coerce(column: Series, wanted: Mapping) -> tuple[Series, list[str]]:
    """`column` in the wanted type, and what is wrong with it."""
    missing = column.isna()
    values, problems = column[~missing], []
    if missing.any() and not wanted["nullable"]:
        rows = list_rows(column.index[missing])
        problems.append(f"{missing.sum()} missing values ({rows}); the model was trained on none")
    is_as_wanted = str(column.dtype) == wanted["dtype"] != "object"  # anything may stand in an object column
    converted = values if is_as_wanted else _convert(values, wanted["type"])
    problems += describe_wrong(wanted["type"].replace("category", "text"), values[converted.isna()])
    if problems:
        return column, problems
    is_naive = wanted["type"] == "datetime" and "," not in wanted["dtype"] and not is_as_wanted
    converted = converted.dt.tz_localize(None) if is_naive else converted
    converted = converted.reindex(column.index).astype(wanted["dtype"])
    return converted.where(~missing, None) if wanted["dtype"] == "object" else converted, []


def _convert(values: Series, kind: str) -> Series:
    """`values` as `kind`; missing where that cannot be, or would lose something."""
    if kind in ("text", "category"):
        return values.astype(object).map(lambda value: value if isinstance(value, str) else None)
    if kind == "boolean":
        return values.map(lambda value: TRUTH.get(str(value).lower())).astype("boolean")
    if kind == "datetime":
        return pandas.to_datetime(values, errors="coerce", format="ISO8601", utc=True)  # without a zone it is UTC
    numbers = values.astype(object).map(lambda value: None if isinstance(value, bool) else value)
    numbers = pandas.to_numeric(numbers, errors="coerce").astype(float)
    return numbers.where((numbers.abs() < EXACT) & ((numbers % 1 == 0) | (kind == "number")))
