"""A table of examples: load it from a file, check its contract, tell equal inputs apart from different ones."""

import hashlib
import json
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pandas
from pandas import DataFrame, Series
from pandas.api import types

from pinmill.errors import DataError, SourceError, describe_problems, did_you_mean

RESERVED = ("_part", "_hash")  # columns that 01-prepare adds
MISSING_WORDS = ["NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "<NA>"]  # in some files, not in all
EXACT = 2**53  # whole floats above are not exact


@dataclass(frozen=True)
class RepeatCounts:
    """Rows removed as repeats; inputs that had more than one label, with up to three examples {rows, labels}."""

    removed: int
    conflicting: int
    examples: tuple[dict[str, list], ...] = field(default=())


def check_table(frame: DataFrame, *, text: Sequence[str], features: Sequence[str], label: str, task: str = "auto",
                positive: Any = None, drop_unlabelled: bool = False, name: str = "the table") -> None:  # fmt: skip
    """Raises DataError with all violations at once; rows are named by the frame's index.

    `text` and `features` are the input columns. An empty `label` means that there is none, as when scoring.
    """
    inputs = [*text, *features]
    wanted = [*inputs, *([label] if label else [])]
    columns = [str(column) for column in frame.columns]
    problems = [f"column {column!r} is missing.{did_you_mean(column, columns)}".removesuffix(".")
                for column in dict.fromkeys(wanted) if column not in columns]  # fmt: skip
    problems += [f"column {column!r} stands {count} times" for column, count in Counter(columns).items() if count > 1]
    problems += [f"column {column!r} has a name that Pinmill uses itself" for column in RESERVED if column in columns]
    problems += [] if inputs else ["no input column is named: give `text` or `features`"]
    problems += [f"column {label!r} is both an input and the label"] if label in inputs else []
    problems += [f"{sorted(both)} are both text and features"] if (both := set(text) & set(features)) else []
    problems += [] if len(frame) else ["it has no rows"]
    if len(frame) and len(set(columns)) == len(columns):
        problems += [found for column in text if column in columns for found in _check_text(frame[column])]
        if label in columns:
            problems += _check_labels(frame[label], task=task, positive=positive, drop_unlabelled=drop_unlabelled)
    if problems:
        raise DataError(describe_problems(name, problems))


def _check_text(column: Series) -> list[str]:
    if types.is_string_dtype(column.dtype) and column.dtype != object:
        return []
    wrong = column[~(column.map(lambda value: isinstance(value, str)) | column.isna()).astype(bool)]
    if wrong.empty:
        return []
    return [f"text column {column.name!r} holds {len(wrong)} values that are not text, e.g. {show(wrong.iloc[0])} "
            f"({list_rows(wrong.index)})"]  # fmt: skip


def _check_labels(labels: Series, *, task: str, positive: Any, drop_unlabelled: bool) -> list[str]:
    empty = is_missing(labels)
    known = labels[~empty]
    problems = []
    if empty.any() and not drop_unlabelled:
        problems.append(f"{empty.sum()} empty labels in {labels.name!r} ({list_rows(labels.index[empty])}). "
                        "Label them, or set `drop_unlabelled`")  # fmt: skip
    if known.empty:
        return [*problems, f"no row has a label in {labels.name!r}"]
    if task == "regression":
        return problems + _check_numbers(known)
    counts = known.value_counts()
    if len(counts) == 1:
        problems.append(f"only one class in {labels.name!r}: {show(counts.index[0])} in all {len(known)} rows")
    if task in ("binary", "multiclass"):
        problems += [f"class {show(name)} has only one row ({list_rows(known.index[known == name])})"
                     for name in counts.index[counts == 1]]  # fmt: skip
    if positive not in (None, "") and not (known == positive).any():
        names = [str(name) for name in counts.index]
        problems.append(f"the positive class {positive!r} is not among the labels {_some(counts.index)}."
                        f"{did_you_mean(str(positive), names)}".removesuffix("."))  # fmt: skip
    return problems


def _check_numbers(labels: Series) -> list[str]:
    if types.is_numeric_dtype(labels.dtype) and not types.is_bool_dtype(labels.dtype):
        infinite = labels[labels.abs() == float("inf")]
        return [f"{len(infinite)} infinite labels ({list_rows(infinite.index)})"] if len(infinite) else []
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in labels]
    wrong = labels[[not number for number in numbers]]
    return [f"label {labels.name!r} must be a number for regression, but {len(wrong)} are not, "
            f"e.g. {show(wrong.iloc[0])} ({list_rows(wrong.index)})"] if len(wrong) else []  # fmt: skip


def list_rows(rows: Iterable[Hashable], most: int = 5) -> str:
    """'rows 4, 9, …': the first few of `rows`."""
    listed = list(rows)
    return f"row{'s' * (len(listed) != 1)} {', '.join(map(str, listed[:most]))}{', …' * (len(listed) > most)}"


def show(value: Any) -> str:
    """`value` as a person writes it: 1.5, not np.float64(1.5)."""
    return repr(value.item() if hasattr(value, "item") else value)


def _some(values: Iterable[Any], most: int = 10) -> str:
    listed = [show(value) for value in islice(values, most + 1)]
    return ", ".join(listed[:most]) + ", …" * (len(listed) > most)


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
        return json.dumps(normalise_text(value), ensure_ascii=False)
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
    if value is None or pandas.isna(value):
        return "null"
    if hasattr(value, "isoformat"):
        return json.dumps(value.isoformat())
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False, default=str)


def canonical_column(column: Series) -> list[str]:
    """`canonical_value` of each row; a value that repeats is worked out once."""
    if column.dtype == object:  # here 1, 1.0 and True would be taken for the same
        return [canonical_value(value) for value in column]
    codes, values = pandas.factorize(column)
    known = [canonical_value(value) for value in values] + ["null"]  # the code of a missing value is -1
    return [known[code] for code in codes]


def hash_rows(frame: DataFrame, columns: Sequence[str]) -> Series:
    """Identity of each row's input: 32 hex digits of the SHA-256 of {column: value} as canonical JSON, keys sorted."""
    names = sorted(dict.fromkeys(columns))
    parts = [[f"{json.dumps(name, ensure_ascii=False)}:{value}" for value in canonical_column(frame[name])]
             for name in names]  # fmt: skip
    digests = [hashlib.sha256(f"{{{','.join(row)}}}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
               for row in zip(*parts, strict=True)]  # fmt: skip
    return Series(digests, index=frame.index, dtype="str", name="_hash")


def remove_repeats(frame: DataFrame, hashes: Series, label: str = "") -> tuple[DataFrame, RepeatCounts]:
    """One row per hash: the last that has the commonest label (of equally common ones, the label that came last).

    Rows keep their order and index. A missing label counts for nothing unless there is no other.
    """
    groups: dict[str, list[int]] = {}
    for position in hashes.duplicated(keep=False).to_numpy().nonzero()[0].tolist():
        groups.setdefault(hashes.iat[position], []).append(position)
    labels = [None] * len(frame)
    if label:
        labels = frame[label].astype(object).where(~is_missing(frame[label]), None).tolist()
    kept = {_elect(positions, labels) for positions in groups.values()}
    dropped = [position for positions in groups.values() for position in positions if position not in kept]
    conflicts = [positions for positions in groups.values()
                 if len({labels[position] for position in positions} - {None}) > 1]  # fmt: skip
    examples = tuple({"rows": frame.index[positions].tolist(), "labels": [labels[position] for position in positions]}
                     for positions in conflicts[:3])  # fmt: skip
    keep = Series(True, index=range(len(frame)))
    keep.iloc[dropped] = False
    return frame[keep.to_numpy()], RepeatCounts(len(dropped), len(conflicts), examples)


def _elect(positions: Sequence[int], labels: Sequence[Any]) -> int:
    """The last of `positions` whose label is the commonest there."""
    counts = Counter(labels[position] for position in positions if labels[position] is not None)
    most = max(counts.values(), default=0)
    winner = next((labels[position] for position in reversed(positions) if counts[labels[position]] == most), None)
    return next(position for position in reversed(positions) if labels[position] == winner)


def remove_empty(frame: DataFrame, columns: Sequence[str]) -> tuple[DataFrame, int]:
    """The rows that have a value in at least one of `columns`, and how many had none."""
    empty = Series(True, index=frame.index)
    for column in columns:
        empty &= is_missing(frame[column])
    return frame[~empty], int(empty.sum())


def load_table(path: Path, shown: str) -> DataFrame:
    """The table in a .csv, .tsv, .parquet, .jsonl or .ndjson file; `shown` is what errors call it. SourceError."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return pandas.read_parquet(path)
        if suffix in (".jsonl", ".ndjson"):
            return _load_lines(path, shown)
        return _load_csv(path, shown, "\t" if suffix == ".tsv" else ",")
    except UnicodeDecodeError:
        raise SourceError(_describe_bad_byte(path, shown)) from None
    except pandas.errors.EmptyDataError:
        raise SourceError(f"{shown} is empty (no column names). Look at what wrote it") from None
    except (pandas.errors.ParserError, pandas.errors.ParserWarning) as error:
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        reason = "line 2 has more fields than there are column names" if "does not match length" in reason else reason
        reason = re.sub(r"starting at row (\d+)", lambda row: f"that starts in line {int(row[1]) + 1}", reason)
        raise SourceError(f"{shown} is malformed: {reason}. Correct that line, or quote the field") from None
    except ValueError as error:  # pyarrow's errors are ValueErrors
        raise SourceError(f"{shown} cannot be parsed: {error}") from None


def _load_csv(path: Path, shown: str, separator: str) -> DataFrame:
    """An empty field is a missing value; a word such as NA is one if it is that among the numbers of this file.

    So the text "None" stays a text, unless the file itself shows that it means nothing by it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", pandas.errors.ParserWarning)  # pandas would drop the surplus fields
        names = pandas.read_csv(path, sep=separator, header=None, nrows=1, dtype=str).iloc[0]
        if repeated := sorted(set(names[names.duplicated()].dropna())):
            raise SourceError(f"{shown} names columns twice: {', '.join(map(repr, repeated))}. Rename them")
        frame = pandas.read_csv(path, sep=separator, low_memory=False, index_col=False,
                                keep_default_na=False, na_values=[""])  # fmt: skip
    suspects = {name: frame[name].isin(MISSING_WORDS) for name in frame.select_dtypes(["str", "object"])}
    suspects = {name: words for name, words in suspects.items() if words.any()}
    tried = {name: _as_numbers(frame[name], words) for name, words in suspects.items()}
    numbers = {name: found for name, found in tried.items() if found is not None}
    proven = {word for name in numbers for word in frame.loc[suspects[name], name]}
    texts = {name: frame[name].mask(frame[name].isin(proven)) for name in suspects if name not in numbers}
    return frame.assign(**numbers, **texts) if proven else frame


def _as_numbers(column: Series, words: Series) -> Series | None:
    """`column` as numbers or booleans, if `words` for "missing" are all that keeps it from being that; else None."""
    known = column[~words].dropna()
    if known.empty:
        return None
    if known.isin(["True", "False", "TRUE", "FALSE", "true", "false"]).all():
        return column.mask(words).str.lower().map({"true": True, "false": False}).astype(object)
    try:
        return pandas.to_numeric(column.mask(words))
    except (ValueError, TypeError):
        return None


def _load_lines(path: Path, shown: str) -> DataFrame:
    """JSON lines as they are: no text becomes a number or a date."""
    rows = []
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line) if line.strip() else None
            except json.JSONDecodeError as error:
                raise SourceError(f"{shown} is malformed: line {number}, column {error.colno}: {error.msg}") from None
            if not isinstance(row, dict | None):
                raise SourceError(f"{shown} is malformed: line {number} is a {type(row).__name__}, not an object")
            rows += [row] if row is not None else []
    if not rows:
        raise SourceError(f"{shown} is empty (no lines). Look at what wrote it")
    return DataFrame(rows)


def _describe_bad_byte(path: Path, shown: str) -> str:
    data = path.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        place = f"byte 0x{data[error.start]:02x} at offset {error.start}, line {line}"
        return f"{shown} is not UTF-8: {place}. Open it in the program it comes from and save it as UTF-8"
    return f"{shown} is not UTF-8. Save it as UTF-8"
