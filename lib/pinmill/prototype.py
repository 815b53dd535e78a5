"""The prototype of a model: the input columns and types it expects, and the check of new inputs against it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas
from pandas import DataFrame, Series
from pandas.api import types

from pinmill.errors import DataError, describe_problems, did_you_mean
from pinmill.table import EXACT, list_rows, show

MOST_CATEGORIES = 50  # more distinct texts than this are text, and no form could offer them
LONGEST_CATEGORY = 60  # characters: a longer one is a sentence
MOST_EXAMPLES = 3
EXAMPLE_LENGTH = 200  # characters of a text shown as an example
TRUTH = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


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
    columns, problems = {}, []
    rows = frame.reset_index(drop=True)
    known = [str(column) for column in frame.columns]
    for name, wanted in prototype.items():
        if known.count(name) != 1:
            problems.append(f"column {name!r} stands {known.count(name)} times" if name in known else
                            f"column {name!r} ({wanted['type']}) is missing"
                            f"{_guess(name, known, prototype)}")  # fmt: skip
            continue
        columns[name], found = _coerce(rows[name], wanted)
        problems += [f"column {name!r}: {problem}" for problem in found]
    if problems:
        raise DataError(describe_problems("the inputs", problems))
    return DataFrame(columns, index=rows.index).set_axis(frame.index)


def _guess(name: str, known: Sequence[str], prototype: Mapping) -> str:
    """'. Did you mean 'txt'?' for a column of the frame that the prototype does not know."""
    guess = did_you_mean(name, [column for column in known if column not in prototype])
    return f".{guess}" if guess else ""


def _describe(column: Series, *, is_text: bool) -> dict[str, Any]:
    values = column.dropna()
    kind = "text" if is_text else _type_of(column, values)
    distinct = values.drop_duplicates()
    described = {"type": kind, "dtype": str(column.dtype), "nullable": bool(column.isna().any()),
                 "examples": [_plain(value) for value in distinct.iloc[:MOST_EXAMPLES]]}  # fmt: skip
    return described | ({"categories": sorted(map(str, distinct))[:MOST_CATEGORIES]} if kind == "category" else {})


def _type_of(column: Series, values: Series) -> str:
    if types.is_bool_dtype(column.dtype) or (len(values) and values.map(lambda value: isinstance(value, bool)).all()):
        return "boolean"
    if types.is_integer_dtype(column.dtype):
        return "integer"
    if types.is_numeric_dtype(column.dtype):
        return "number"
    if types.is_datetime64_any_dtype(column.dtype):
        return "datetime"
    distinct = values.nunique()
    is_few = distinct <= MOST_CATEGORIES and distinct <= len(values) / 2
    if isinstance(column.dtype, pandas.CategoricalDtype):
        return "category"
    return "category" if is_few and values.map(lambda value: len(str(value))).max() <= LONGEST_CATEGORY else "text"


def _plain(value: Any) -> Any:
    """`value` as JSON knows it."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    value = value.item() if hasattr(value, "item") else value
    return value if isinstance(value, bool | int | float) else str(value)[:EXAMPLE_LENGTH]


def _coerce(column: Series, wanted: Mapping) -> tuple[Series, list[str]]:
    """`column` in the wanted type, and what is wrong with it."""
    missing = column.isna()
    problems = []
    if missing.any() and not wanted["nullable"]:
        problems.append(f"{missing.sum()} missing values ({list_rows(column.index[missing])}); "
                        "the model was trained on none")  # fmt: skip
    values = column[~missing]
    is_as_wanted = str(column.dtype) == wanted["dtype"] != "object"  # anything may stand in an object column
    converted = values if is_as_wanted else _CONVERT[wanted["type"]](values)
    wrong = converted.isna()
    if wrong.any():
        problems.append(f"{_article(wanted['type'])} is expected, but {wrong.sum()} values are not, "
                        f"e.g. {show(values[wrong].iloc[0])} ({list_rows(values.index[wrong])})")  # fmt: skip
    if problems:
        return column, problems
    return _with_dtype(converted.reindex(column.index) if missing.any() else converted, wanted), []


def _with_dtype(column: Series, wanted: Mapping) -> Series:
    converted = column.astype(wanted["dtype"])
    return converted.where(column.notna(), None) if wanted["dtype"] == "object" else converted


def _article(kind: str) -> str:
    return f"an {kind}" if kind == "integer" else "text" if kind in ("text", "category") else f"a {kind}"


def _to_text(values: Series) -> Series:
    return values.astype(object).map(lambda value: value if isinstance(value, str) else None)


def _to_number(values: Series) -> Series:
    """Floats; missing where a value is no number or is a whole number that a float cannot hold."""
    if types.is_bool_dtype(values.dtype):
        return Series(float("nan"), index=values.index)
    plain = values.astype(object).map(lambda value: None if isinstance(value, bool) else value)
    numbers = pandas.to_numeric(plain, errors="coerce").astype(float)
    return numbers.where((numbers.abs() < EXACT) | (numbers % 1 != 0) | ~values.map(lambda v: isinstance(v, int)))


def _to_integer(values: Series) -> Series:
    if types.is_integer_dtype(values.dtype):
        return values
    numbers = _to_number(values)
    return numbers.where((numbers % 1 == 0) & (numbers.abs() < EXACT)).astype("Int64")


def _to_boolean(values: Series) -> Series:
    return values.map(lambda value: TRUTH.get(str(value).lower())).astype("boolean")


def _to_datetime(values: Series) -> Series:
    return pandas.to_datetime(values, errors="coerce", format="ISO8601")


_CONVERT = {"text": _to_text, "category": _to_text, "number": _to_number, "integer": _to_integer,
            "boolean": _to_boolean, "datetime": _to_datetime}  # fmt: skip
