"""Any table scored by a champion, here or behind a service: in batches, taken up again after a crash, written whole."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinmill.errors import (
    BoardError,
    ClientError,
    DataError,
    LockedError,
    ModelError,
    ParameterError,
    describe_problems,
    did_you_mean,
)
from pinmill.lineage import hash_file
from pinmill.predictor import Items, Predictor, open_local, open_remote
from pinmill.runs import write_json, write_whole
from pinmill.stream import find_format, is_text, list_values, open_writer, read_batches, read_schema

if TYPE_CHECKING:
    import pyarrow as pa
    from pandas import Series

    from pinmill.project import Project
    from pinmill.session import Run

MISSING = frozenset(["", "na", "n/a", "nan", "null", "none"])  # in CSV, where a number, a time or a truth could stand
TRUTH = {"true": True, "false": False, "1": True, "0": False}
AGAIN = "What an earlier run had begun was asked otherwise, or its model cannot be had any more: all was scored again."
ORPHANED = 10.0  # s to wait for a kernel whose runner was killed: it notices within two
GONE = 404  # what a service answers for a version that it has not
FEW = 10  # rows that are shown of many
MOST_COUNTED = 1_000_000  # rows whose predictions a figure shows, so that memory does not grow with the table


@dataclass(frozen=True)
class Scored:
    """What came of a table."""

    rows: int
    failed: int
    resumed: int  # rows that an earlier run had scored
    version: str
    sha256: str  # of the input
    note: str  # why what an earlier run had begun was not taken up
    predicted: "Series | None" = None  # `label`, of a regression `value`, of the first MOST_COUNTED rows that have one
    first: Items = field(default_factory=list)  # the first rows of the output
    problems: Items = field(default_factory=list)  # {row, error} of the first rows without a prediction; 0 is the first


def list_rows(table: "pa.Table", kinds: Mapping[str, str], *, are_texts: bool) -> Items:
    """What the model takes of each row, as JSON has it; with `are_texts` all values are texts, as in CSV."""
    columns = [list_values(table, name) for name in kinds]
    if are_texts:
        columns = [[parse_text(value, kind) for value in c] for c, kind in zip(columns, kinds.values(), strict=True)]
    return [dict(zip(kinds, row, strict=True)) for row in zip(*columns, strict=True)]


def parse_text(text: str | None, kind: str) -> Any:
    """A value of a column of some kind as CSV has it; what is none of that kind stays a text."""
    if text is None or kind in ("text", "category", "string"):
        return text
    if text.strip().lower() in MISSING:
        return None
    if kind == "boolean":
        return TRUTH.get(text.strip().lower(), text)
    for convert in (int, float) if kind in ("integer", "number") and "_" not in text else ():
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def add_columns(schema: "pa.Schema", model: Predictor) -> "pa.Schema":
    """The columns of the output. Raises DataError with all that are missing, or would be there twice."""
    import pyarrow as pa

    names, added = schema.names, [each.name for each in model.fields]
    problems = [f"column {n!r} is missing.{did_you_mean(n, names)}".rstrip(".") for n in model.kinds if n not in names]
    clash = "is there, and scoring adds one of that name: rename it, or leave it out"
    problems += [f"column {name!r} {clash}" for name in added if name in names]
    if problems:
        raise DataError(describe_problems("the input", problems))
    return pa.schema([*schema, *model.fields])


def score_batch(table: "pa.Table", model: Predictor, *, are_texts: bool) -> "pa.Table":
    """The batch with the columns that scoring adds; a row that does not fit says why in `error`."""
    import pyarrow as pa

    items = model.score(list_rows(table, model.kinds, are_texts=are_texts))
    for each in model.fields:
        values = [model.version if each.name == "version" else item.get(each.name) for item in items]
        table = table.append_column(each, pa.array(values, each.type))
    return table


def score_file(run: "Run", source: str, target: str, *, url: str = "", batch: int = 10_000) -> Scored:
    """Score the table in the file `source` into `target`, both relative to the project's root or absolute.

    Each batch is kept in `target`.parts as soon as it is scored; after a crash the next run goes on behind the last one
    with the same model version, while that can be had. `target` is replaced when all is there.
    Raises ParameterError, SourceError, DataError, ChampionError, LockedError, and ClientError with a `url`.
    """
    given, output = (run.project.root / path for path in (source, target))
    if not source or not target or given.resolve() == output.resolve():
        what = f"input is {source!r} and output {target!r}: two different files were expected"
        raise ParameterError(f"{what}. Try: pinmill score {run.workflow} INPUT OUTPUT")
    find_format(output)
    columns, parts = read_schema(given), output.with_name(f"{output.name}.parts")

    def open_version(version: str) -> Predictor:
        return open_remote(run, url, version) if url else open_local(run, version)

    with hold_output(run.project, output):
        try:
            before, sha256 = given.stat(), hash_file(given)
            asked = {"input": str(given), "sha256": sha256, "batch": batch, "url": url}
            model, note = take_up(parts, asked, open_version)
            schema, rows, resumed = add_columns(columns, model), 0, 0
            for number, table in enumerate(read_batches(given, columns, batch), start=1):
                if name_part(parts, number).is_file():
                    resumed += len(table)
                else:
                    write_part(name_part(parts, number), score_batch(table, model, are_texts=is_text(given)))
                rows += len(table)
            if (given.stat().st_size, given.stat().st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise DataError(f"{given.name} was changed while it was scored. Run again when it is whole.")
            scored = Scored(rows, 0, resumed, model.version, sha256, note)
            return finish(scored, parts, output, schema, name="label" if "label" in model.example else "value")
        finally:
            if not name_part(parts, 1).exists():
                shutil.rmtree(parts, ignore_errors=True)


@contextmanager
def hold_output(project: "Project", output: Path) -> Iterator[None]:
    """Be the only one who writes an output. Raises LockedError."""
    from filelock import FileLock, Timeout

    name = hashlib.sha256(os.fsencode(output.resolve())).hexdigest()[:16]
    try:
        with FileLock(project.outputs / "locks" / f"output-{name}.lock", timeout=ORPHANED):
            yield
    except Timeout:
        raise LockedError(f"another run is writing {output.name} now. Wait for it, see: pinmill runs") from None


def take_up(parts: Path, asked: Mapping[str, Any], open_version: Callable[[str], Predictor]) -> tuple[Predictor, str]:
    """The model that scored the parts that are there, if they are of what is asked; otherwise the champion, from new.

    With a note if parts were there in vain.
    """
    were_there = name_part(parts, 1).is_file()
    state = read_state(parts) if were_there else {}
    version = state.pop("version", "")
    if state == asked:
        try:
            return open_version(version), ""
        except (BoardError, ModelError, ClientError) as error:
            if isinstance(error, ClientError) and error.status != GONE:
                raise
    for part in parts.glob("part-*"):
        part.unlink()
    model = open_version("")
    write_json(parts / "state.json", {**asked, "version": model.version})
    return model, AGAIN * were_there


def read_state(parts: Path) -> dict[str, Any]:
    """What parts are of: {input, sha256, batch, url, version}; empty of damaged ones."""
    try:
        return dict(json.loads((parts / "state.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}


def name_part(parts: Path, number: int) -> Path:
    return parts / f"part-{number:08d}.parquet"


def write_part(path: Path, table: "pa.Table") -> None:
    """Keep a scored batch, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(table, data := pa.BufferOutputStream(), compression="zstd")
    write_whole(path, data.getvalue())


def read_parts(parts: Path) -> "Iterator[pa.Table]":
    """The scored batches in order."""
    import pyarrow.parquet as pq

    return (pq.ParquetFile(part).read() for part in sorted(parts.glob("part-*")))


def finish(scored: Scored, parts: Path, output: Path, schema: "pa.Schema", *, name: str) -> Scored:
    """Write the output from its parts, put it in its place, and say what is in it, and in its column `name`.

    Raises DataError if all rows failed; then nothing is put in place, and the next run begins anew.
    """
    import pyarrow as pa

    whole, rows, failed = parts / f"whole{output.suffix}", 0, 0
    predicted, first, problems = [], [], []
    with open_writer(whole, schema) as write:
        for table in read_parts(parts):
            write(table)
            errors = table["error"].to_pylist()
            wrong = [n for n, error in enumerate(errors) if error]
            problems += [{"row": rows + n, "error": errors[n]} for n in wrong[: FEW - len(problems)]]
            first = first or list_first(table)
            predicted += table[name].drop_null().chunks if rows < MOST_COUNTED else []
            rows, failed = rows + len(table), failed + len(wrong)
    assert rows == scored.rows, f"{scored.rows} rows went in, and {rows} came out"
    if rows and failed == rows:
        shutil.rmtree(parts)
        raise DataError(f"none of {rows} rows could be scored, and nothing was written; row 0: {problems[0]['error']}")
    with whole.open("rb") as file:
        os.fsync(file.fileno())
    whole.replace(output)
    shutil.rmtree(parts)
    said = pa.chunked_array(predicted, schema.field(name).type).to_pandas().rename(name)
    return replace(scored, failed=failed, predicted=said, first=first, problems=problems)


def list_first(table: "pa.Table") -> Items:
    """The first rows as records."""
    head = table.slice(0, FEW)
    columns = {name: list_values(head, name) for name in head.column_names}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
