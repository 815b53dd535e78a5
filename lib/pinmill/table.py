"""A table of examples: load it, check its contract, tell equal inputs apart from different ones."""

import csv
import gzip
import hashlib
import io
import json
import math
import unicodedata
import warnings
import zipfile
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import pandas
from pandas import DataFrame, Series
from pandas.api import types

from pinmill.errors import DataError, SourceError, describe_problems, did_you_mean

FORMATS = ("csv", "tsv", "parquet", "jsonl", "ndjson")
RESERVED = ("_part", "_hash")  # columns that 01-prepare adds
EXACT = 2**53  # whole floats above are not exact
SIMPLER = {  # by what a column of objects holds: databases and Parquet give them
    "date": pandas.to_datetime,
    "decimal": lambda column: column.astype(float),
    "integer": lambda column: column.astype(float),  # larger than any of 64 bits
    "time": lambda column: column.map(str, na_action="ignore"),
}
ENCODE = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str).encode


@dataclass(frozen=True)
class RepeatCounts:
    """Rows removed as repeats; inputs that had more than one label, with up to three examples {rows, labels}."""

    removed: int
    conflicting: int
    examples: tuple[dict[str, list], ...] = ()


def simplify_types(frame: DataFrame) -> DataFrame:
    """`frame` with names that are text, and Python's own objects as what they mean: times, texts and floats."""
    renamed = frame.set_axis(list(map(str, frame.columns)), axis="columns")
    for place, name in enumerate(renamed.columns):
        column = renamed.iloc[:, place]
        convert = SIMPLER.get(types.infer_dtype(column)) if column.dtype == object else None
        if convert and renamed.columns.is_unique:
            renamed[name] = convert(column)
    return renamed


def check_table(
    frame: DataFrame,
    *,
    text: list[str],
    features: list[str],
    label: str,
    task: str = "auto",
    positive: Any = None,
    drop_unlabelled: bool = False,
) -> None:
    """Raises DataError with all violations at once; rows are named by the frame's index.

    `text` and `features` are the input columns. An empty `label` means that there is none, as when scoring.
    """
    named, columns = [*text, *features, *([label] if label else [])], list(map(str, frame.columns))
    missing = [name for name in dict.fromkeys(named) if name not in columns]
    problems = [f"column {name!r} is missing.{did_you_mean(name, columns)}" for name in missing]
    problems += [f"column {name!r} stands {n} times" for name, n in Counter(columns).items() if n > 1]
    problems += [f"column {name!r} has a name that Pinmill uses itself" for name in RESERVED if name in columns]
    problems += [f"column {name!r} is named twice as input or label" for name, n in Counter(named).items() if n > 1]
    problems += [] if text or features else ["no input column is named: give `text` or `features`"]
    problems += [] if len(frame) else ["it has no rows"]
    if len(frame) and frame.columns.is_unique:
        for column in (frame[name].dropna() for name in text if name in columns):
            wrong = column[[not isinstance(value, str) for value in column]]
            problems += describe_wrong(f"column {column.name!r}: text", wrong)
        for column in (frame[name].dropna() for name in features if name in columns):
            infinite = column[[isinstance(value, float) and math.isinf(value) for value in column]]
            problems += describe_wrong(f"column {column.name!r}: a finite number", infinite)
        if label in columns:
            problems += _check_labels(frame[label], task=task, positive=positive, drop_unlabelled=drop_unlabelled)
    if problems:
        raise DataError(describe_problems("the table", [problem.removesuffix(".") for problem in problems]))


def _check_labels(labels: Series, *, task: str, positive: Any, drop_unlabelled: bool) -> list[str]:
    """What is wrong with the labels."""
    empty, column = is_missing(labels), repr(labels.name)
    known, problems = labels[~empty], []
    if empty.any() and not drop_unlabelled:
        rows = list_rows(labels.index[empty])
        problems.append(f"{empty.sum()} empty labels in {column} ({rows}). Label them, or set `drop_unlabelled`")
    if known.empty:
        return [*problems, f"no row has a label in {column}"]
    if task == "regression":
        wrong = known[[not isinstance(v, Real) or isinstance(v, bool) or not math.isfinite(v) for v in known]]
        return problems + describe_wrong(f"label {column}: a finite number", wrong)
    counts = known.value_counts()
    if len(counts) == 1:
        problems.append(f"only one class in {column}: {show(counts.index[0])} in all {len(known)} rows")
    for name in counts.index[counts == 1] if task in ("binary", "multiclass") else []:
        problems.append(f"class {show(name)} has only one row ({list_rows(known.index[known == name])})")
    if positive not in (None, "", *counts.index):
        names = ", ".join(show(name) for name in counts.index[:10])
        guess = did_you_mean(str(positive), map(str, counts.index))
        problems.append(f"the positive class {positive!r} is not among the labels {names}.{guess}")
    return problems


def describe_wrong(what: str, wrong: Series) -> list[str]:
    """The problem that the values of `wrong` are not what is expected; none if there are none."""
    example = f"{show(wrong.iloc[0])} ({list_rows(wrong.index)})" if len(wrong) else ""
    return [f"{what} is expected, but {len(wrong)} values are not, e.g. {example}"] if example else []


def list_rows(rows: Iterable[Hashable], most: int = 5) -> str:
    """'rows 4, 9, …': the first few of `rows`."""
    listed = [str(row) for row in rows]
    return f"row{'s' * (len(listed) != 1)} {', '.join(listed[:most])}{', …' * (len(listed) > most)}"


def show(value: Any) -> str:
    """`value` as a person writes it: 1.5, not np.float64(1.5)."""
    return repr(value.item() if hasattr(value, "item") else value)


def is_missing(column: Series) -> Series:
    """True where a value is missing, or text with nothing but whitespace."""
    if types.is_numeric_dtype(column.dtype) or types.is_datetime64_any_dtype(column.dtype):
        return column.isna()
    return column.isna() | column.map(lambda value: isinstance(value, str) and not value.strip()).astype(bool)


def normalise_text(value: str) -> str:
    """`value` in Unicode NFC, whitespace collapsed and stripped: for identity only, the model sees it as it is."""
    return " ".join(unicodedata.normalize("NFC", value).split())


def canonical_value(value: Any) -> str:
    """JSON of one input, the same for 3 and 3.0, for e + accent and é, for None, NaN and NaT."""
    if isinstance(value, str):
        return ENCODE(normalise_text(value))
    if not isinstance(value, list | tuple | dict):
        value = None if pandas.isna(value) else value.item() if hasattr(value, "item") else value
    if hasattr(value, "isoformat"):
        return ENCODE(value.isoformat())
    return ENCODE(int(value) if isinstance(value, float) and value.is_integer() and abs(value) < EXACT else value)


def canonical_column(column: Series) -> list[str]:
    """`canonical_value` of each row; a value that repeats is worked out once."""
    if column.dtype == object:  # here 1, 1.0 and True would be taken for the same
        return [canonical_value(value) for value in column]
    codes, values = pandas.factorize(column)
    known = [canonical_value(value) for value in values] + ["null"]  # the code of a missing value is -1
    return [known[code] for code in codes]


def hash_rows(frame: DataFrame, columns: Sequence[str]) -> Series:
    """Identity of each row's input: 32 hex digits of the SHA-256 of {column: value} as canonical JSON, keys sorted."""
    names = sorted(set(columns))
    keys = [ENCODE(name) for name in names]
    values = zip(*(canonical_column(frame[name]) for name in names), strict=True)
    rows = ("{" + ",".join(f"{key}:{value}" for key, value in zip(keys, row, strict=True)) + "}" for row in values)
    digests = [hashlib.sha256(row.encode("utf-8", "surrogatepass")).hexdigest()[:32] for row in rows]
    return Series(digests, index=frame.index, dtype="str", name="_hash")


def remove_repeats(frame: DataFrame, hashes: Series, label: str = "") -> tuple[DataFrame, RepeatCounts]:
    """One row per hash: the last that has the commonest label (of equally common ones, the label that came last).

    Rows keep their order and index. A missing label counts for nothing unless there is no other.
    """
    labels = frame[label].mask(is_missing(frame[label])).array if label else None
    ballots = DataFrame({"hash": hashes.array, "label": labels})
    votes = ballots.groupby(["hash", "label"], sort=False)["label"].transform("size").fillna(0)
    elected = ballots.assign(votes=votes).sort_values("votes", kind="stable").drop_duplicates("hash", keep="last")
    groups = ballots.groupby("hash", sort=False)
    kinds = groups["label"].nunique()
    conflicts = [groups.indices[value] for value in kinds.index[kinds > 1]]
    examples = ({"rows": frame.index[c].tolist(), "labels": ballots["label"][c].tolist()} for c in conflicts[:3])
    counts = RepeatCounts(len(frame) - len(elected), len(conflicts), tuple(examples))
    return frame.iloc[sorted(elected.index)], counts


def remove_empty(frame: DataFrame, columns: Sequence[str]) -> tuple[DataFrame, int]:
    """The rows that have a value in at least one of `columns`, and how many had none."""
    empty = frame[list(columns)].apply(is_missing).all(axis="columns")
    return frame[~empty], int(empty.sum())


def load_table(data: bytes, name: str, shown: str) -> DataFrame:
    """The table in a file of these bytes and this name; `shown` is what errors call it. Raises SourceError."""
    if not data:
        raise SourceError(f"{shown} is empty (0 bytes). Look at what wrote it")
    try:
        suffix, data = _unpack(name.lower(), data)
        if suffix == "parquet":
            return simplify_types(pandas.read_parquet(io.BytesIO(data)))
        text = data.decode("utf-8").removeprefix("\ufeff")
        if suffix in ("csv", "tsv"):
            return _load_csv(text, "," if suffix == "csv" else "\t")
        rows = ",\n".join(line for line in text.split("\n") if line.strip())  # one JSON text: an error tells its line
        return DataFrame(json.loads(f"[{rows}]"))
    except UnicodeDecodeError as error:
        line, byte = data.count(b"\n", 0, error.start) + 1, data[error.start]
        place = f"byte 0x{byte:02x} at offset {error.start}, line {line}"
        raise SourceError(f"{shown} is not UTF-8: {place}. Save it as UTF-8") from None
    except Exception as error:  # each format has errors of its own
        raise SourceError(f"{shown} cannot be read: {str(error).strip('. ')}. Look at what wrote it") from None


def _unpack(name: str, data: bytes) -> tuple[str, bytes]:
    """The suffix and the bytes, with a .gz or .zip undone."""
    if name.endswith(".zip"):
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = [member for member in archive.namelist() if member[-1] != "/" and "__MACOSX/" not in member]
        if len(members) != 1:
            raise ValueError(f"it holds {len(members)} files, not one")
        inner = members[0].lower()  # pandas writes t.csv.zip with a member t.csv, but t.zip with one of no suffix
        name, data = inner if "." in inner else f"{inner}.csv", archive.read(members[0])
    elif name.endswith(".gz"):
        name, data = name.removesuffix(".gz"), gzip.decompress(data)
    suffix = name.rpartition(".")[2]
    if suffix not in FORMATS:
        raise ValueError(f"{suffix!r} is no known suffix: {', '.join(FORMATS)}, each also with .gz or .zip")
    return suffix, data


def _load_csv(text: str, separator: str) -> DataFrame:
    """An empty field is a missing value; a word such as NA is one if it is that among the numbers of this file."""
    header = next(csv.reader(io.StringIO(text), delimiter=separator), [])
    if repeated := sorted({name for name in header if header.count(name) > 1}):  # pandas would rename the second
        raise ValueError(f"it names columns twice: {', '.join(map(repr, repeated))}")
    other = next((mark for mark in (";", "\t", "|") if len(header) == 1 and mark in header[0]), "")
    if other:
        raise ValueError(f"it has one column, {header[0]!r}: save it with {separator!r} between columns, not {other!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", pandas.errors.ParserWarning)  # pandas would drop the surplus fields
        frame = pandas.read_csv(io.StringIO(text), sep=separator, low_memory=False, index_col=False)
    if not frame.isna().any(axis=None):
        return frame
    literal = pandas.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, na_values=[""])
    texts = [name for name in frame if types.is_string_dtype(frame[name]) or frame[name].isna().all()]
    words = literal.drop(columns=texts)[frame.drop(columns=texts).isna()].stack().unique()
    frame[texts] = literal[texts].mask(literal[texts].isin(words))
    return frame
