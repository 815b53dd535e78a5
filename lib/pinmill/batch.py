"""Rows on their way to a service: checked, cut into batches, sent ahead of one another, and read back as a table."""

import math
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pandas import DataFrame, Index, Series

from pinmill.annotations import list_records
from pinmill.connection import describe_errors, encode
from pinmill.errors import ClientError, WrongColumnsError, did_you_mean
from pinmill.table import list_rows

Rows = str | Iterable[Any] | Series | DataFrame
MOST_ROWS = 1_000  # of a batch: a service needs 0.1 s for so many texts
MOST_BYTES = 1_000_000  # of a batch, half of what a service takes by default; a longer row goes alone
THREADS = 4  # batches on their way at once
MOST_TOLD = 100  # violations of one column that are named
SHOWN = 5_000  # rows: fewer need no bar
WIDTH = 30  # characters of the bar
TYPES = {"string": str, "boolean": bool, "integer": int, "number": (int, float)}  # of JSON Schema
WORDS = {"string": "a text", "boolean": "true or false", "integer": "a whole number", "number": "a number"}


@dataclass(frozen=True)
class Batch:
    """Some rows as one call sends them."""

    rows: Index  # their names, in the sender's table
    body: bytes  # JSON


def take_rows(rows: Rows) -> Series | DataFrame:
    """`rows` with an index: one text, or a list of texts or records, gets one from 0 on."""
    if isinstance(rows, Series | DataFrame):
        return rows
    return Series([rows] if isinstance(rows, str | Mapping) else list(rows), dtype=object)


def check_rows(rows: Rows, schema: Mapping[str, Any]) -> DataFrame:
    """The columns that the JSON Schema of a row names, of `rows`; other columns are left out.

    Raises WrongColumnsError with all columns that are missing, or all values of another type, rows named by the index.
    """
    record = next((each for each in schema.get("anyOf", [schema]) if "properties" in each), {"properties": {}})
    wanted, taken = record["properties"], take_rows(rows)
    if isinstance(taken, Series):
        is_record = taken.map(lambda value: isinstance(value, Mapping))
        if is_record.all() and len(taken):
            taken = DataFrame(taken.tolist(), taken.index)
        elif len(wanted) == 1:
            taken = taken.to_frame(*wanted)
        else:
            raise WrongColumnsError(f"the model takes the columns {', '.join(wanted)}: give a DataFrame with them")
    if missing := find_missing(taken, {name: say_kind(entry) for name, entry in wanted.items()}):
        raise WrongColumnsError(f"the input does not fit the model{describe_errors(missing)}", errors=missing)
    frame = taken[list(wanted)]
    if errors := [error for name, entry in wanted.items() for error in find_wrong(frame[name], entry)]:
        raise WrongColumnsError(f"values do not fit what the model expects{describe_errors(errors)}", errors=errors)
    return frame


def find_missing(frame: DataFrame, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    """Which of the columns `wanted`, whose values say what is expected, are not there exactly once."""
    names = list(frame.columns)
    others = [str(name) for name in names if name not in wanted]
    problems = {name: f"stands {names.count(name)} times" for name in wanted if names.count(name) > 1}
    for name in [name for name in wanted if name not in names]:
        problems[name] = f"is missing, {wanted[name]} was expected.{did_you_mean(name, others)}".removesuffix(".")
    return [{"field": f"column {name!r}", "problem": problem} for name, problem in problems.items()]


def find_wrong(column: Series, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Up to 100 values of a column that its JSON Schema does not allow, as {row, field, problem}."""
    kinds = {entry["type"]} if isinstance(entry["type"], str) else set(entry["type"])
    errors: list[dict[str, Any]] = []
    for row, record in zip(column.index, list_records(column.to_frame()), strict=True):
        (value,) = record.values()
        if problem := judge(value, kinds, may_be_blank="pattern" not in entry):
            errors.append({"row": row, "field": column.name, "problem": f"{problem}, {say_kind(entry)} was expected"})
            if len(errors) == MOST_TOLD:
                break
    return errors


def judge(value: Any, kinds: set[str], *, may_be_blank: bool) -> str:
    """What is wrong with a value that has to be of one of these types of JSON Schema; empty if nothing is."""
    if value is None:
        return "" if "null" in kinds else "is missing"
    if isinstance(value, str) and "string" in kinds:
        return "" if may_be_blank or value.strip() else "is blank"
    whole = int(value) if isinstance(value, float) and "integer" in kinds and value.is_integer() else value
    is_sound = not isinstance(value, float) or math.isfinite(value)
    fits = any(
        isinstance(whole, TYPES[kind]) for kind in kinds - {"null"} if isinstance(value, bool) == (kind == "boolean")
    )
    return "" if fits and is_sound else f"is {repr(value)[:40]}"


def say_kind(entry: Mapping[str, Any]) -> str:
    """What a column's JSON Schema expects, in words."""
    kinds = [entry["type"]] if isinstance(entry["type"], str) else entry["type"]
    return " or ".join(WORDS.get(kind, "nothing") for kind in kinds)


def check_labels(frame: DataFrame, columns: Sequence[str], label: str) -> None:
    """Raises WrongColumnsError unless the table has these columns, and each row a label."""
    if missing := find_missing(frame, dict.fromkeys(columns, "a column")):
        raise WrongColumnsError(f"the labels cannot be sent{describe_errors(missing)}", errors=missing)
    if rows := frame.index[frame[label].isna()].tolist():
        step = "Leave them out; add_examples has people label them"
        said = f"{len(rows)} rows have no label in {label!r} ({list_rows(rows)}). {step}"
        raise WrongColumnsError(said, errors=[{"row": row, "field": label, "problem": "is missing"} for row in rows])


def pack(rows: Series | DataFrame) -> Iterator[Batch]:
    """The rows in batches of at most 1,000 rows and 1 MB, in order."""
    for start in range(0, len(rows), MOST_ROWS):
        some = rows.iloc[start : start + MOST_ROWS]
        values = (
            list_records(some)
            if isinstance(some, DataFrame)
            else some.astype(object).where(some.notna(), None).tolist()
        )
        texts, first, size = list(map(encode, values)), 0, 0
        for place, text in enumerate(texts):
            if size and size + len(text) > MOST_BYTES:
                yield Batch(some.index[first:place], join(texts[first:place]))
                first, size = place, 0
            size += len(text) + 1
        yield Batch(some.index[first:], join(texts[first:]))


def join(texts: Sequence[bytes]) -> bytes:
    """A JSON list of JSON texts."""
    return b"[" + b",".join(texts) + b"]"


def send_ahead(send: Callable[[Batch], DataFrame], batches: Iterable[Batch]) -> Iterator[DataFrame]:
    """What comes of each batch, in order, four at a time; memory holds twice as many. The first error ends all."""
    threads, waiting = ThreadPoolExecutor(THREADS), deque()
    try:
        for batch in batches:
            waiting.append(threads.submit(send, batch))
            if len(waiting) == 2 * THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)  # what is on its way is not waited for


def read_items(items: Any, rows: Index) -> DataFrame:
    """The items of predictions as a table; labels are objects, so that 1 stays 1 beside a row without one."""
    if not (isinstance(items, list) and len(items) == len(rows)):
        raise ClientError(f"the service was sent {len(rows)} rows and answered with something else")
    shares = DataFrame([item.get("probability") or {} for item in items], rows).add_prefix("probability_")

    def list_columns(*names: str) -> dict[str, list[Any]]:
        """Those of the names that an item has."""
        return {name: [item.get(name) for item in items] for name in names if any(name in item for item in items)}

    labels = {name: Series(values, rows, dtype=object) for name, values in list_columns("label").items()}
    end = list_columns("version", "explanation", "explanation_problem", "error")
    return DataFrame({**labels, **list_columns("value"), **shares, **end}, rows)


def tell_failures(table: DataFrame) -> DataFrame:
    """`table`, its labels of their own type if all are there; a warning where the model failed on rows."""
    failed = table.index[table["error"].notna()].tolist() if "error" in table else []
    if failed:
        said = f"{len(failed)} of {len(table)} rows have no prediction ({list_rows(failed)})"
        warnings.warn(f"{said}; the column `error` says why", stacklevel=3)
    is_whole = "label" in table and table["label"].notna().all()
    return table.assign(label=table["label"].infer_objects()) if is_whole else table


def show_progress(done: int, total: int) -> None:
    """A bar for somebody who watches, on a terminal or in a notebook, of more than 5,000 rows."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if total > SHOWN and (sys.stderr.isatty() or hasattr(shell, "kernel")):
        bar = "█" * (WIDTH * done // total)
        print(f"\r{bar:░<{WIDTH}} {done:,} of {total:,} rows", end="\n" * (done == total), file=sys.stderr, flush=True)
