"""Any table scored by a champion, here or behind a service: in batches, taken up again after a crash, written whole."""

import json
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinmill.errors import (
    BoardError,
    ChampionError,
    ClientError,
    DataError,
    ModelError,
    ParameterError,
    WrongColumnsError,
    describe_problems,
    did_you_mean,
)
from pinmill.lineage import hash_file
from pinmill.lock import hold_lock
from pinmill.runs import write_json, write_whole
from pinmill.stream import find_format, is_text, list_values, open_writer, read_batches, read_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from pinmill.session import Run

Row = Mapping[str, Any]
Items = list[dict[str, Any]]
MISSING = frozenset(["", "na", "n/a", "nan", "null", "none"])  # in CSV, where a number, a time or a truth could stand
TRUTH = {"true": True, "false": False, "1": True, "0": False}
TAKEN_UP = "An earlier run had ended before its end, and this one went on behind it, with the same model."
AGAIN = "all was scored again."
OTHER = f"What an earlier run had begun was asked of another input, or otherwise: {AGAIN}"
GONE = 404  # what a service answers for a version that it has not
FEW = 10  # rows that are shown of many
BINS = 20  # of the histogram of amounts


@dataclass(frozen=True)
class Scorer:
    """One model version, wherever it is. `kinds` are its input columns with the type of each.

    `score` gives an item for each row, {label, value, probability_<class>} or {error}; `example` is such an item.
    """

    version: str
    kinds: Mapping[str, str]
    score: Callable[[Sequence[Row]], Items]
    example: Row

    @property
    def fields(self) -> "list[pa.Field]":
        """The columns that are added to a table."""
        import pyarrow as pa

        added = {**self.example, "version": "", "error": ""}
        return [pa.field(name, pa.scalar(value).type) for name, value in added.items()]


@dataclass(frozen=True)
class Scored:
    """What came of a table; `bars` counts rows by label, or by (low, high) of amounts."""

    rows: int
    failed: int
    resumed: int  # rows that an earlier run had scored
    version: str
    sha256: str  # of the input
    note: str  # why what an earlier run had begun was taken up, or was not
    bars: Mapping[Any, int] = field(default_factory=dict)
    first: Items = field(default_factory=list)  # the first rows of the output
    problems: Items = field(default_factory=list)  # {row, error} of the first rows without a prediction; 0 is the first


def open_local(run: "Run", version: str = "") -> Scorer:
    """The champion of this project's board, or another version. Raises ChampionError, BoardError, ModelError."""
    from pinmill.rows import RowError, list_examples
    from pinmill.service import Service

    if not version and run.champion is None:
        how = f"Train and promote one with: pinmill run {run.workflow}"
        raise ChampionError(f"{run.workflow} has no champion yet. {how}")
    loaded = Service(run).load(version or run.champion.version)

    def check(row: Row) -> dict[str, str]:
        """{error} of a row that does not fit."""
        try:
            loaded.check(row)
        except RowError as error:
            return {"error": "; ".join(f"{name} {problem}" for name, problem in error.problems)}
        return {}

    def score(rows: Sequence[Row]) -> Items:
        """The items of rows."""
        wrong = list(map(check, rows))
        made = iter(loaded.score([row for row, error in zip(rows, wrong, strict=True) if not error]))
        return [error or flatten(next(made)) for error in wrong]

    kinds = {name: entry["type"] for name, entry in loaded.prototype.items()}
    return Scorer(loaded.version, kinds, score, take_example(score(list_examples(loaded.prototype)[:1])))


def take_example(items: Items) -> dict[str, Any]:
    """The only item. Raises ModelError where there is none, or an error."""
    if not items or "error" in items[0]:
        raise ModelError("the model cannot score an example of its own. Train it again.")
    return items[0]


def flatten(item: Row) -> dict[str, Any]:
    """An item of a model with each probability as a field of its own."""
    shares = {f"probability_{label}": share for label, share in item.get("probability", {}).items()}
    return {name: value for name, value in item.items() if name != "probability"} | shares


def open_remote(run: "Run", url: str, version: str = "") -> Scorer:
    """The champion of a service, or another version. Raises ClientError."""
    from pandas import DataFrame

    from pinmill.client import Client
    from pinmill.connection import Connection

    token = run.project.settings.get("PINMILL_TOKEN", "")
    schema, client = Connection(url, token, timeout=30.0).read("GET", "/prototype"), Client(url, token)
    record = next(each for each in schema.get("anyOf", [schema]) if "properties" in each)
    kinds = {name: "datetime" if "anyOf" in entry else entry["type"] for name, entry in record["properties"].items()}
    kinds = {name: kind if isinstance(kind, str) else kind[0] for name, kind in kinds.items()}

    def predict(rows: Sequence[Row], version: str) -> Items:
        """The items of rows, with their version."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # rows without a prediction are counted here
            frame = client.predict(DataFrame(rows, columns=list(kinds), dtype=object), version=version).astype(object)
        return frame.where(frame.notna(), None).to_dict("records")

    def score(rows: Sequence[Row]) -> Items:
        """The items of rows; the service refuses many for one that does not fit, so they are sent without it."""
        items, todo = [{} for _ in rows], list(range(len(rows)))
        while todo:
            try:
                found = predict([rows[n] for n in todo], pinned)
            except WrongColumnsError as error:
                told = [each for each in error.errors if each.get("field") and isinstance(each.get("row"), int)]
                if not told:
                    raise
                for each in told:
                    items[todo[each["row"]]] = {"error": f"{each['field']} {each['problem']}"}
                todo = [n for n in todo if not items[n]]
            else:
                for n, item in zip(todo, found, strict=True):
                    items[n] = item
                todo = []
        return items

    examples = [row for row in schema["examples"] if isinstance(row, dict)]
    example = take_example(predict(examples[:1], version))
    pinned = example.pop("version")
    return Scorer(pinned, kinds, score, example)


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


def add_columns(schema: "pa.Schema", scorer: Scorer) -> "pa.Schema":
    """The columns of the output. Raises DataError with all that are missing, or would be there twice."""
    import pyarrow as pa

    names, added = schema.names, [each.name for each in scorer.fields]
    problems = [f"column {n!r} is missing.{did_you_mean(n, names)}".rstrip(".") for n in scorer.kinds if n not in names]
    clash = "is there, and scoring adds one of that name: rename it, or leave it out"
    problems += [f"column {name!r} {clash}" for name in added if name in names]
    if problems:
        raise DataError(describe_problems("the input", problems))
    return pa.schema([*schema, *scorer.fields])


def score_batch(table: "pa.Table", scorer: Scorer, *, are_texts: bool) -> "pa.Table":
    """The batch with the columns that scoring adds; a row that does not fit says why in `error`."""
    import pyarrow as pa

    items = scorer.score(list_rows(table, scorer.kinds, are_texts=are_texts))
    for each in scorer.fields:
        values = [scorer.version if each.name == "version" else item.get(each.name) for item in items]
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

    def open_version(version: str) -> Scorer:
        return open_remote(run, url, version) if url else open_local(run, version)

    with hold_lock(parts / f"{output.name}.lock", run=run.id):
        try:
            before, sha256 = given.stat(), hash_file(given)
            asked = {"input": str(given), "sha256": sha256, "batch": batch, "url": url}
            scorer, note = take_up(parts, asked, open_version)
            schema, rows, resumed = add_columns(columns, scorer), 0, 0
            for number, table in enumerate(read_batches(given, columns, batch), start=1):
                if name_part(parts, number).is_file():
                    resumed += len(table)
                else:
                    write_part(name_part(parts, number), score_batch(table, scorer, are_texts=is_text(given)))
                rows += len(table)
            if (given.stat().st_size, given.stat().st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise DataError(f"{given.name} was changed while it was scored. Run again when it is whole.")
            scored = Scored(rows, 0, resumed, scorer.version, sha256, note)
            return finish(scored, parts, output, schema, are_amounts="label" not in scorer.example)
        finally:
            if not name_part(parts, 1).exists():
                shutil.rmtree(parts, ignore_errors=True)


def take_up(parts: Path, asked: Mapping[str, Any], open_version: Callable[[str], Scorer]) -> tuple[Scorer, str]:
    """The model that scored the parts that are there, if they are of what is asked; otherwise the champion, from new.

    With a note on what became of the parts; empty without any.
    """
    state = read_state(parts) if name_part(parts, 1).is_file() else {}
    version, note = state.pop("version", ""), OTHER if state else ""
    if state == asked:
        try:
            return open_version(version), TAKEN_UP
        except (BoardError, ModelError, ClientError) as error:
            if isinstance(error, ClientError) and error.status != GONE:
                raise
            note = f"An earlier run had begun with model {version}, which cannot be had any more: {AGAIN}"
    for part in parts.glob("part-*"):
        part.unlink()
    scorer = open_version("")
    write_json(parts / "state.json", {**asked, "version": scorer.version})
    return scorer, note


def read_state(parts: Path) -> dict[str, Any]:
    """What parts are of: {input, sha256, batch, url, version}; of damaged ones nothing that anybody asks for."""
    try:
        return dict(json.loads((parts / "state.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return {"version": ""}


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


def finish(scored: Scored, parts: Path, output: Path, schema: "pa.Schema", *, are_amounts: bool) -> Scored:
    """Write the output from its parts, put it in its place, and say what is in it.

    Raises DataError if all rows failed; then nothing is put in place.
    """
    whole, counts, rows, failed = parts / f"whole{output.suffix}", Counter(), 0, 0
    first, problems = [], []
    with open_writer(whole, schema) as write:
        for table in read_parts(parts):
            write(table)
            errors = table["error"].to_pylist()
            wrong = [n for n, error in enumerate(errors) if error]
            problems += [{"row": rows + n, "error": errors[n]} for n in wrong[: FEW - len(problems)]]
            first = first or list_first(table)
            counts.update(() if are_amounts else table["label"].drop_null().to_pylist())
            rows, failed = rows + len(table), failed + len(wrong)
    assert rows == scored.rows, f"{scored.rows} rows went in, and {rows} came out"
    if rows and failed == rows:
        raise DataError(f"none of {rows} rows could be scored, and nothing was written; row 0: {problems[0]['error']}")
    bars = count_amounts(parts) if are_amounts else dict(counts.most_common())
    with whole.open("rb") as file:
        os.fsync(file.fileno())
    whole.replace(output)
    for part in parts.glob("part-*"):
        part.unlink()
    return replace(scored, failed=failed, bars=bars, first=first, problems=problems)


def list_first(table: "pa.Table") -> Items:
    """The first rows as records."""
    head = table.slice(0, FEW)
    columns = {name: list_values(head, name) for name in head.column_names}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def count_amounts(parts: Path) -> dict[tuple[float, float], int]:
    """Rows by (low, high) of their predicted amounts, in bins of equal width."""
    import numpy as np

    def read_amounts() -> "Iterator[np.ndarray]":
        return (table["value"].drop_null().to_numpy() for table in read_parts(parts))

    ends = [end for amounts in read_amounts() if len(amounts) for end in (amounts.min(), amounts.max())]
    edges = np.histogram_bin_edges(ends, BINS)
    counts = sum((np.histogram(amounts, edges)[0] for amounts in read_amounts()), np.zeros(BINS, int))
    return dict(zip(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True), counts.tolist(), strict=True))
