"""A table in a file of any size, CSV, TSV, JSON lines or Parquet: read in batches, written batch by batch."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinmill.errors import DataError, ParameterError, SourceError, SourceNotFoundError, describe_problems

if TYPE_CHECKING:
    import pyarrow as pa

SEPARATORS = {".csv": ",", ".tsv": "\t"}
FORMATS = (*SEPARATORS, ".jsonl", ".ndjson", ".parquet")
AS_JSON = {b"kept as": b"JSON"}  # metadata of a column whose values no one type of Arrow holds: each is a JSON text
LONGEST = 100_000_000  # characters of one field in CSV: Python's own limit of 131,072 is shorter than some documents
EXACT = 2**53  # whole numbers above are not exact as floats


def find_format(path: Path) -> str:
    """The suffix of a file, which says its format. Raises ParameterError."""
    if (suffix := path.suffix.lower()) not in FORMATS:
        raise ParameterError(f"{path.name!r} has no suffix that tells its format: {', '.join(FORMATS)} were expected.")
    return suffix


def is_text(path: Path) -> bool:
    """Whether all values in a file are texts, as those in CSV are."""
    return find_format(path) in SEPARATORS


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Any error of a reader as a SourceError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise SourceNotFoundError(f"{path} is not there: {', '.join(FORMATS)} were expected.") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"{path.name} is not UTF-8: byte 0x{error.object[error.start]:02x}. Save it so.") from None
    except (ValueError, csv.Error) as error:  # Arrow's own are ValueErrors
        raise SourceError(f"{path.name} cannot be read: {str(error).strip('. ')}. Look at what wrote it.") from None


def read_schema(path: Path) -> "pa.Schema":
    """Names and types of the columns; of CSV all are text, of JSON lines every line is read.

    Raises SourceError, and DataError for a name that stands twice.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    suffix = find_format(path)
    with _told(path):
        if suffix == ".parquet":
            schema = pa.schema([pa.field(each.name, each.type, each.nullable) for each in pq.read_schema(path)])
        elif suffix in SEPARATORS:
            with path.open(encoding="utf-8-sig", newline="") as file:
                schema = pa.schema([(name, pa.string()) for name in next(_read_csv(path, file), [])])
        else:
            kinds: dict[str, set[str]] = {}
            for record in _read_jsonl(path):
                for name, value in record.items():
                    kinds.setdefault(name, set()).add(_kind_of(value))
            schema = pa.schema([_make_field(name, found - {""}) for name, found in kinds.items()])
    twice = [f"column {name!r} stands {n} times" for name, n in Counter(schema.names).items() if n > 1]
    if twice:
        raise DataError(describe_problems(path.name, twice))
    return schema


def read_batches(path: Path, schema: "pa.Schema", rows: int) -> Iterator["pa.Table"]:
    """The table in batches of so many rows, of the last fewer; an empty text in CSV is a missing value."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _told(path):
        if find_format(path) == ".parquet":
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(rows):
                    yield pa.Table.from_batches([batch]).cast(schema)
        elif find_format(path) in SEPARATORS:
            with path.open(encoding="utf-8-sig", newline="") as file:
                lines = islice(_read_csv(path, file), 1, None)
                while batch := list(islice(lines, rows)):
                    columns = zip(*batch, strict=True)
                    yield pa.table([[value or None for value in column] for column in columns], schema=schema)
        else:
            records = _read_jsonl(path)
            while batch := list(islice(records, rows)):
                columns = [[_encode(record.get(field.name), field) for record in batch] for field in schema]
                yield pa.table(columns, schema=schema)


def _read_csv(path: Path, file: Any) -> Iterator[list[str]]:
    """The fields of each line, the header first; empty lines are left out. Raises ValueError for a ragged line."""
    csv.field_size_limit(LONGEST)
    reader, width = csv.reader(file, delimiter=SEPARATORS[find_format(path)], strict=True), 0
    for fields in filter(None, reader):
        width = width or len(fields)
        if len(fields) != width:
            raise ValueError(f"line {reader.line_num} has {len(fields)} fields, the header {width}")
        yield fields
    if not width:
        raise ValueError("it is empty, and not even a header names its columns")


def _read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The object of each line; empty lines are left out. Raises ValueError for anything else."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line) if line.strip() else {}
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
            if not isinstance(record, dict):
                raise ValueError(f"line {number} is no JSON object")
            if line.strip():
                yield record


def _kind_of(value: Any) -> str:
    """The type of Arrow that holds a value of JSON; 'json' if none does, empty for a missing one."""
    if isinstance(value, str):
        return "string" if value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value) else "json"
    if isinstance(value, int) and not isinstance(value, bool):
        return "int64" if abs(value) < EXACT else "json"
    return {type(None): "", bool: "bool", float: "double"}.get(type(value), "json")


def _make_field(name: str, kinds: set[str]) -> "pa.Field":
    import pyarrow as pa

    kind = "double" if kinds == {"int64", "double"} else next(iter(kinds)) if len(kinds) == 1 else "json"
    if kinds and kind != "json":
        return pa.field(name, pa.type_for_alias(kind))
    return pa.field(name, pa.string(), metadata=AS_JSON)


def _encode(value: Any, field: "pa.Field") -> Any:
    return json.dumps(value) if field.metadata == AS_JSON and value is not None else value


def list_values(table: "pa.Table", name: str) -> list[Any]:
    """The values of a column as JSON has them; None for what is missing, and for a number that is not finite."""
    values = table[name].to_pylist()
    if (table.schema.field(name).metadata or {}).items() >= AS_JSON.items():
        return [None if value is None else json.loads(value) for value in values]
    return [value if type(value) in (str, int, bool) else _as_json(value) for value in values]


def _as_json(value: Any) -> Any:
    if isinstance(value, bytes):  # older writers keep texts like this
        return value.decode(errors="surrogateescape")
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    if value is None or isinstance(value, str | int):
        return value
    number = float(value) if hasattr(value, "__float__") else str(value)  # a Decimal; a span of time
    return number if isinstance(number, str) or abs(number) < float("inf") else None


@contextmanager
def open_writer(path: Path, schema: "pa.Schema") -> Iterator[Callable[["pa.Table"], None]]:
    """The function that appends a batch to a new file in the format that the suffix says."""
    import pyarrow.parquet as pq

    suffix = find_format(path)
    if suffix == ".parquet":
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            yield writer.write_table
        return
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        if suffix in SEPARATORS:
            writer = csv.writer(file, delimiter=SEPARATORS[suffix], lineterminator="\n")
            writer.writerow(schema.names)
            yield lambda table: writer.writerows([_flatten(value) for value in row] for row in _list_rows(table))
        else:
            yield lambda table: file.writelines(f"{line}\n" for line in _list_lines(table))


def _list_rows(table: "pa.Table") -> Iterator[Sequence[Any]]:
    return zip(*(list_values(table, name) for name in table.column_names), strict=True)


def _flatten(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _list_lines(table: "pa.Table") -> Iterator[str]:
    names = table.column_names
    return (json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in _list_rows(table))
