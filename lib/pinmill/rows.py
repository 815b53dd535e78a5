"""The rows of a call: checked against the prototype, named by their hash, described as JSON Schema. Imports no pandas.

A row that passes becomes its canonical text, the one that `table.hash_rows` hashes: keys sorted, 3 for 3.0, texts in
Unicode NFC with whitespace collapsed. So a call, an example and an annotation with the same input have the same hash.
"""

import hashlib
import json
import math
import re
import struct
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from functools import partial
from json.encoder import encode_basestring
from sys import float_info
from typing import Any
from zoneinfo import ZoneInfo

from pinmill.errors import DataError, describe_problems, did_you_mean

MOST_LISTED = 100  # violations that are told one by one
LONGEST_SHOWN = 40  # characters of a value in a violation
LARGEST = 2**53 - 1  # of whole numbers: all up to here are exact as floats
DAY, CLOCK, ZONE = r"(\d{4}-\d\d-\d\d)", r"(\d\d(?::\d\d){0,2})(?:(?<=:\d\d:\d\d)\.(\d+))?", r"(Z|[+-]\d\d(?::?\d\d)?)"
TIME = re.compile(f"{DAY}(?:[T ]{CLOCK}(?: ?{ZONE})?)?", re.ASCII)
DIGITS = {"s": 0, "ms": 3, "us": 6}  # of a second, by the unit of a dtype; else 9
NANOSECOND_YEARS = range(1678, 2262)  # whole years that 64 bits of nanoseconds hold
FLOATS = {"float16": ("e", 65504.0), "float32": ("f", (2 - 2**-23) * 2.0**127)}  # code of `struct`, and largest
NOT_BLANK = r"[^\s\u001c-\u001f\u0085]"  # Python's whitespace: more than that of other languages
UNKNOWN = "is no field of this model"
FORMS = {type(None): "no value", str: "a text", bool: "a boolean", list: "an array", dict: "an object"}
KINDS = {  # what is expected, its type in JSON Schema, and its description
    "text": ("a text", "string", "Text, not blank."),
    "category": ("a text", "string", "Category: one of the examples, or one the model never saw."),
    "number": ("a number", "number", "Number."),
    "integer": ("an integer", "integer", "Whole number."),
    "boolean": ("true or false", "boolean", "True or false."),
    "datetime": ("a time in ISO 8601 as 2026-11-20T10:15:00Z", "string", "Time in ISO 8601; without a zone it is UTC."),
}


class RowError(DataError):
    """A row that does not fit: `problems` holds (field, problem) for each violation, `known` the model's columns."""

    def __init__(self, problems: Sequence[tuple[str, str]], known: Collection[str] = ()) -> None:
        super().__init__(problems, known)
        self.problems, self.known = problems, known

    def __str__(self) -> str:
        return describe_problems("the row", [f"{field} {problem}".strip() for field, problem in self.problems])


def make_checker(prototype: Mapping[str, Mapping]) -> Callable[[Any], str]:
    """The function from a row to its canonical JSON text; it raises RowError with all violations of the row.

    A row is a mapping of all columns to values as JSON has them, or a text where the only column is one.
    """
    names = sorted(prototype)
    fields = [(name, encode_basestring(name) + ":", _make_reader(prototype[name])) for name in names]
    expected = {name: _expect(prototype[name]) for name in names}
    of_fields = f"an object with the fields {', '.join(names[:8])}{', …' * (len(names) > 8)}"

    def check(row: Any) -> str:
        """The canonical text of a row."""
        if not isinstance(row, dict):
            raise RowError([("", f"{_describe(row)}, {of_fields} was expected")])
        parts, problems = [], []
        for name, key, read in fields:
            if name not in row:
                problems.append((name, f"is missing, {expected[name]} was expected"))
                continue
            try:
                parts.append(key + read(row[name]))
            except ValueError as error:
                problems.append((name, f"{error}, {expected[name]} was expected"))
        problems += [(_make_safe(_shorten(name)), UNKNOWN) for name in row if name not in expected]
        if problems:
            raise RowError(problems, names)
        return "{" + ",".join(parts) + "}"

    is_text = len(names) == 1 and prototype[names[0]]["type"] == "text"
    return _make_text_checker(names[0], check) if is_text else check


def _make_text_checker(column: str, check: Callable[[Any], str]) -> Callable[[Any], str]:
    """The same for one column of texts, fast; `check` is asked about all that is not plainly right."""
    head = "{" + encode_basestring(column) + ":"

    def check_text(row: Any) -> str:
        """The canonical text of a row of one text."""
        text = row if type(row) is str else row.get(column) if type(row) is dict and len(row) == 1 else None
        if type(text) is str and text.isascii() and (words := text.split()):
            return head + encode_basestring(" ".join(words)) + "}"
        return check({column: row} if type(row) is str else row)

    return check_text


def check_rows(rows: Sequence[Any], check: Callable[[Any], str]) -> tuple[list[str], list[dict[str, Any]]]:
    """The canonical texts of the rows that fit, and the violations {row, field, problem} of the others; row 0 is first.

    All are counted: of more than 100 a last entry says how many follow, and from which row on.
    """
    canonicals, listed, more, first = [], [], 0, 0
    for number, row in enumerate(rows):
        try:
            canonicals.append(check(row))
        except RowError as error:
            told = error.problems[: MOST_LISTED - len(listed)]
            first = first if more else number
            more += len(error.problems) - len(told)
            listed += [{"row": number, "field": f, "problem": _explain(f, p, error.known)} for f, p in told]
    rest = {"row": first, "field": "", "problem": f"{more} more problems follow, from this row on"}
    return canonicals, [*listed, rest] if more else listed


def hash_input(canonical: str) -> str:
    """The identity of a row's input, of its canonical text: 32 hex digits, as in the store."""
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def list_examples(prototype: Mapping[str, Mapping]) -> list[dict[str, Any]]:
    """Up to three rows made of the prototype's examples, all of which pass the check."""
    valid = {name: _valid_examples(entry) for name, entry in prototype.items()}
    count = max(map(len, valid.values()), default=0) if all(valid.values()) else 0
    return [{name: values[place % len(values)] for name, values in valid.items()} for place in range(count)]


def describe_schema(prototype: Mapping[str, Mapping]) -> dict[str, Any]:
    """JSON Schema 2020-12 of one row: an object of all columns, or also a text where the only column is one."""
    examples, names = list_examples(prototype), list(prototype)
    columns = {name: _describe_column(entry) for name, entry in prototype.items()}
    record = {"type": "object", "properties": columns, "required": names, "additionalProperties": False}
    if len(names) == 1 and prototype[names[0]]["type"] == "text":
        text = {key: value for key, value in columns[names[0]].items() if key != "examples"} | {"type": "string"}
        return {"anyOf": [text, record], "examples": [row[names[0]] for row in examples] + examples[:1]}
    return {**record, "examples": examples}


def _describe_column(entry: Mapping) -> dict[str, Any]:
    """JSON Schema of one column: what passes, and for times the stricter RFC 3339, which others can generate."""
    kind = entry["type"]
    schema = {"type": KINDS[kind][1], "description": KINDS[kind][2]}
    schema |= {"examples": entry.get("categories") or _valid_examples(entry)}
    if kind in ("text", "category") and not _may_be_blank(entry):
        schema |= {"pattern": NOT_BLANK}
    if kind == "datetime":
        schema |= {"anyOf": [{"format": "date-time"}, {"format": "date"}]}
    if kind in ("number", "integer"):
        schema |= dict(zip(("minimum", "maximum"), _find_bounds(entry), strict=True))
    if entry["nullable"]:
        schema |= {"type": [schema["type"], "null"]}
        schema |= {"anyOf": [*schema["anyOf"], {"type": "null"}]} if "anyOf" in schema else {}
    return schema


def _valid_examples(entry: Mapping) -> list[Any]:
    """The examples of a column that pass its check, times with their zone; null if there are none and it may be."""
    read, valid = _make_reader(entry), []
    for example in entry["examples"]:
        try:
            read(example)
        except ValueError:
            continue
        is_naive = entry["type"] == "datetime" and "," not in entry["dtype"]
        valid.append(f"{example}Z" if is_naive else example)
    return valid or [None] * entry["nullable"]


def _make_reader(entry: Mapping) -> Callable[[Any], str]:
    """The function from a value of a column to its canonical text; ValueError says what the value is instead."""
    kind, dtype = entry["type"], entry["dtype"]
    if kind in ("text", "category"):
        read = partial(_read_text, may_be_blank=_may_be_blank(entry))
    elif kind == "datetime":
        unit, _, zone = dtype.partition("[")[2].rstrip("]").partition(", ")
        read = partial(_read_time, digits=DIGITS.get(unit, 9), zone=_find_zone(zone) if zone else None)
    elif kind == "boolean":
        read = _read_boolean
    else:
        low, high = _find_bounds(entry)
        code = FLOATS.get(dtype.lower(), ("d",))[0]
        is_whole = kind == "integer"
        read = partial(_read_integer, low=low, high=high) if is_whole else partial(_read_number, high=high, code=code)
    # A text that 01-prepare filled is never nullable, so null is null here as there.
    return (lambda value: "null" if value is None else read(value)) if entry["nullable"] else read


def _read_text(value: Any, *, may_be_blank: bool) -> str:
    if type(value) is not str:
        raise ValueError(_describe(value))
    if not value.isascii():
        value.encode()  # half of a surrogate pair is a ValueError that says so
        value = unicodedata.normalize("NFC", value)
    words = value.split()
    if not words and not may_be_blank:
        raise ValueError(f"{_show(value)} is blank")
    return encode_basestring(" ".join(words))


def _read_boolean(value: Any) -> str:
    if type(value) is not bool:
        raise ValueError(_describe(value))
    return "true" if value else "false"


def _read_integer(value: Any, *, low: int, high: int) -> str:
    whole = int(value) if type(value) is float and value.is_integer() else value
    if type(whole) is not int:
        raise ValueError(_describe(value))
    if not low <= whole <= high:
        raise ValueError(f"{_show(value)} is not in {low} to {high}")
    return str(whole)


def _read_number(value: Any, *, high: float, code: str) -> str:
    """A number as a float of the dtype has it: `code` is what `struct` calls that."""
    if type(value) not in (int, float) or not -high <= value <= high:
        is_finite = type(value) is int or (type(value) is float and math.isfinite(value))
        raise ValueError(f"{_show(value)} is not in {-high:g} to {high:g}" if is_finite else _describe(value))
    number = float(value) if code == "d" else struct.unpack(code, struct.pack(code, value))[0]
    return str(int(number)) if number.is_integer() and abs(number) <= LARGEST else repr(number)


def _read_time(value: Any, *, digits: int, zone: tzinfo | None) -> str:
    """A time as pandas prints it, in `zone` (None: in UTC, without it), cut to so many digits of a second."""
    match = TIME.fullmatch(value) if type(value) is str else None
    if match is None:
        raise ValueError(_describe(value))
    day, clock, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock or '00'}{offset or 'Z'}").astimezone(zone or UTC)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or (digits == 9 and moment.year not in NANOSECOND_YEARS):
        raise ValueError(f"{_show(value)} is out of range")
    stamp = moment.isoformat()
    parts = (fraction or "")[:digits].ljust(9, "0")
    shown = f".{parts.removesuffix('000') if parts[6:] == '000' else parts}" if parts.strip("0") else ""
    return f'"{stamp[:19]}{shown}{stamp[19:] if zone else ""}"'


def _find_zone(name: str) -> tzinfo:
    """The zone in a dtype: UTC, Europe/Berlin or UTC+02:00."""
    if match := re.fullmatch(r"(?:UTC)?([+-]\d\d:\d\d)", name):
        return datetime.strptime(match[1], "%z").tzinfo
    return ZoneInfo(name)


def _find_bounds(entry: Mapping) -> tuple[float, float]:
    """The least and the largest number that the dtype of a column holds exactly."""
    dtype = entry["dtype"].lower()
    if entry["type"] == "number":
        largest = FLOATS.get(dtype, ("d", float_info.max))[1]
        return -largest, largest
    match = re.match(r"(u?)int(\d+)", dtype)
    bits = int(match[2]) - (not match[1]) if match else 64
    return 0 if match and match[1] else max(-LARGEST, -(2**bits)), min(LARGEST, 2**bits - 1)


def _may_be_blank(entry: Mapping) -> bool:
    """Whether a blank text is a category that the model knows."""
    return any(not name.strip() for name in entry.get("categories", ()))


def _expect(entry: Mapping) -> str:
    return KINDS[entry["type"]][0] + " or null" * entry["nullable"]


def _explain(field: str, problem: str, known: Collection[str]) -> str:
    """The problem; of a field that is not known with the one that was perhaps meant."""
    guess = did_you_mean(field, known) if problem == UNKNOWN and len(field) <= LONGEST_SHOWN else ""
    return f"{problem}.{guess}" if guess else problem


def _describe(value: Any) -> str:
    """'"001" is a text': what a value is."""
    is_odd = type(value) is float and not math.isfinite(value)
    return f"{_show(value)} is {'not finite' if is_odd else FORMS.get(type(value), 'a number')}"


def _show(value: Any) -> str:
    """A value as JSON has it, shortened."""
    if isinstance(value, list | dict):
        return "[…]" if isinstance(value, list) else "{…}"
    return _make_safe(
        json.dumps(_shorten(value), ensure_ascii=False) if isinstance(value, str) else _shorten(json.dumps(value))
    )


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"


def _make_safe(text: str) -> str:
    """`text` as UTF-8 can hold it: half of a surrogate pair becomes its escape."""
    return text.encode(errors="backslashreplace").decode()
