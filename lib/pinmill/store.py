"""The store: examples, annotations, leases, calls, predictions and tokens of all workflows, in one SQL database.

SQLite in a file by default, or any SQLAlchemy URL. What a method has returned survives a kill. Nothing is made until
the first write. Other modules take the tables from here, `read` a query, and write in `writing`.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sql

from pinmill.errors import DataError, StoreBusyError, StoreError
from pinmill.outage import is_outage
from pinmill.pin import plain
from pinmill.secret import hidden_values, scrub
from pinmill.source import hide_secrets

if TYPE_CHECKING:
    from pandas import DataFrame

STRATEGIES = ("random", "uncertainty", "disagreement", "newest", "given")  # how an example was chosen for its label
BUSY = 30.0  # seconds to wait for another process that writes: far longer than any transaction of ours
CHUNK = 1000  # values in one query: databases limit their number
BEGIN = {  # one writer at a time; in WAL mode a synchronous=NORMAL may lose the last commits with the power
    "sqlite": ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "BEGIN IMMEDIATE"),
    "postgresql": ("SELECT pg_advisory_xact_lock(746455)",),
}
NEXT_STEPS = {  # by words of the database's own message: the first that stands in it
    "locked": "Another process does not stop writing: end it, or try again",
    "full|No space": "Make room on its disk, then try again",
    "readonly|unable to open|ermission|Read-only": "Allow this user to write the file and its folder",
    "not a database|malformed": "It is damaged or another kind of file: restore a backup, or move it away",
    "": "Check PINMILL_STORE, the database and the access to it",
}
EXPECTED = "a SQLAlchemy URL was expected, its driver installed (pip install 'pinmill[postgres]'), an @ written as %40"
ID = sql.BigInteger().with_variant(sql.Integer, "sqlite")  # SQLite numbers rows only in an INTEGER
JSON = sql.JSON(none_as_null=True)
METADATA = sql.MetaData()


def _table(name: str, texts: str, *more: sql.schema.SchemaItem, key: tuple = ("id", ID)) -> sql.Table:
    """A table with a primary key (default: numbers that count up), columns of text that is never missing, and more."""
    columns = [must(column, sql.Text) for column in texts.split()]
    return sql.Table(name, METADATA, must(*key, primary_key=True), *columns, *more)


must, may, once = partial(sql.Column, nullable=False), sql.Column, sql.UniqueConstraint
SCHEMA = sql.Table("schema_version", METADATA, must("version", sql.Integer))
EXAMPLES = _table(
    "examples", "workflow hash origin created", must("record", JSON), once("workflow", "hash"),
    sql.Index("by_age", "workflow", "id"),
)  # fmt: skip
ANNOTATIONS = _table(  # rows are only ever appended
    "annotations", "workflow hash annotator created note key strategy", must("record", JSON), may("label", JSON),
    may("seconds", sql.Float), may("retracts", ID), once("workflow", "key"), sql.Index("by_id", "workflow", "id"),
    sql.Index("by_hash", "workflow", "hash"), sql.Index("by_retracts", "retracts"),
)  # fmt: skip
LEASES = _table(  # who was shown which example, until when nobody else is
    "leases", "workflow hash annotator strategy key created expires", once("workflow", "hash", "annotator")
)
CALLS = _table(
    "calls", "workflow time version endpoint caller input_hash", must("status", sql.Integer), may("input", JSON),
    may("output", JSON), must("milliseconds", sql.Float), must("cached", sql.Boolean),
    must("request", sql.Text, server_default=""), must("row", sql.Integer, server_default=sql.text("0")),
    sql.Index("by_time", "workflow", "time"), sql.Index("by_request", "request"),
)  # fmt: skip
PREDICTIONS = _table("predictions", "workflow version created", must("output", JSON), key=("key", sql.Text))
TOKENS = _table(
    "tokens", "name role hash created", may("expires", sql.Text), may("revoked", sql.Text),
    must("by", sql.Text, server_default=""), once("name"), once("hash"),
)  # fmt: skip
AUDIT = _table("audit", "time who what workflow detail")  # rows are only ever appended


# The tables above are the newest version, and what a new store is made of. The n-th function here brings a store of
# version n to version n + 1: whoever changes a table appends one, and never edits those before.
def _number(connection: sql.Connection) -> str:
    """The type of a key that counts up."""
    return "BIGSERIAL" if connection.dialect.name == "postgresql" else "INTEGER"


def _tell_callers(connection: sql.Connection) -> None:
    """To version 2: a call knows its request and row, a token who made it, and there is an audit list."""
    for statement in (
        "ALTER TABLE calls ADD COLUMN request TEXT DEFAULT '' NOT NULL",
        'ALTER TABLE calls ADD COLUMN "row" INTEGER DEFAULT 0 NOT NULL',
        "CREATE INDEX by_request ON calls (request)",
        "ALTER TABLE tokens ADD COLUMN \"by\" TEXT DEFAULT '' NOT NULL",
        f"CREATE TABLE audit (id {_number(connection)} NOT NULL PRIMARY KEY, time TEXT NOT NULL, who TEXT NOT NULL, "
        "what TEXT NOT NULL, workflow TEXT NOT NULL, detail TEXT NOT NULL)",
    ):
        connection.exec_driver_sql(statement)


def _lend_examples(connection: sql.Connection) -> None:
    """To version 3: there are leases; examples are found by age, annotations by input and by what they retract."""
    for statement in (
        f"CREATE TABLE leases (id {_number(connection)} NOT NULL PRIMARY KEY, workflow TEXT NOT NULL, "
        "hash TEXT NOT NULL, annotator TEXT NOT NULL, strategy TEXT NOT NULL, key TEXT NOT NULL, "
        "created TEXT NOT NULL, expires TEXT NOT NULL, UNIQUE (workflow, hash, annotator))",
        "CREATE INDEX by_age ON examples (workflow, id)",
        "CREATE INDEX by_hash ON annotations (workflow, hash)",
        "CREATE INDEX by_retracts ON annotations (retracts)",
    ):
        connection.exec_driver_sql(statement)


UPGRADES: list[Callable[[sql.Connection], None]] = [_tell_callers, _lend_examples]


@dataclass(frozen=True)
class Annotation:
    """A label that a person gave to one input; with the same `key` it is the same label, however often it is sent."""

    hash: str  # of the input
    record: Mapping[str, Any]  # all columns of the example but the label
    label: Any  # None: the annotator takes no side
    key: str
    strategy: str  # one of STRATEGIES
    seconds: float | None = None  # from seeing the example to the label
    note: str = ""


class Store:
    """The tables above in an SQLite file (a Path) or at an SQLAlchemy URL. Processes and threads may share it."""

    def __init__(self, place: str | Path) -> None:
        self._file, self._place, self.where = isinstance(place, Path) and place, str(place), hide_secrets(str(place))
        # Python must not begin transactions by itself: it would not before a table is made.
        options = {"connect_args": {"timeout": BUSY, "isolation_level": None}} if self._file else {}
        try:
            url = sql.URL.create("sqlite", database=self._place) if self._file else sql.make_url(place)
            self._engine = sql.create_engine(url, **options)
            self._disk = url.database if url.get_backend_name() == "sqlite" else None
            self._inode = 0  # of the file that is open; 0 if there was none
        except (sql.exc.ArgumentError, ImportError, ValueError):  # whose words may hold a part of the password
            raise StoreError(f"PINMILL_STORE is {self.where}: {EXPECTED}") from None

    def close(self) -> None:
        """Close the connections that are kept for the next query; the store may be used again."""
        self._engine.dispose()

    @contextmanager
    def writing(self) -> Iterator[sql.Connection]:
        """A transaction with no other writer beside it: committed when the block ends, undone when it raises."""
        with self._telling("write to"):
            if self._file:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._engine.begin() as connection:
                for statement in BEGIN.get(self._engine.dialect.name, ()):
                    connection.exec_driver_sql(statement)
                _upgrade(connection, self._version(connection))
                yield connection

    @contextmanager
    def reading(self) -> Iterator[sql.Connection]:
        """A connection to the tables, of the newest version, whose queries in PostgreSQL all see one moment."""
        self.read(sql.select(SCHEMA))  # which upgrades what an older Pinmill has written
        with self._telling("read"), self._engine.connect() as connection:
            is_sqlite = connection.dialect.name == "sqlite"
            yield connection if is_sqlite else connection.execution_options(isolation_level="REPEATABLE READ")

    def read(self, query: sql.Select) -> Sequence[sql.Row]:
        """The rows that `query` selects; none from a store that nobody has written to yet."""
        if self._file and not self._file.is_file():
            return []
        with self._telling("read"), self._engine.connect() as connection:
            version = self._version(connection)
            if version in (0, len(UPGRADES) + 1):
                return connection.execute(query).all() if version else []
        with self.writing() as connection:  # which upgrades what an older Pinmill has written
            return connection.execute(query).all()

    def add_examples(
        self, workflow: str, records: Sequence[Mapping[str, Any]], *, hashes: Sequence[str], origin: str, when: datetime
    ) -> tuple[int, int]:
        """Add inputs of these hashes; how many were new, and how many were known or repeated."""
        about = {"workflow": workflow, "origin": origin, "created": stamp(when)}
        given = zip(hashes, plain(records, "records"), strict=True)
        rows = [{**about, "hash": key, "record": record} for key, record in given]
        with self.writing() as connection:
            new = _append(connection, EXAMPLES.c.hash, rows)
        return new, len(rows) - new

    def add_annotations(
        self, workflow: str, annotations: Sequence[Annotation], *, annotator: str, when: datetime
    ) -> list[int]:
        """Append labels, all or none; the id of each. One whose key is known is not added again: it has its old id."""
        with self.writing() as connection:
            return annotate(connection, workflow, annotations, annotator=annotator, when=when)

    def retract(self, annotation: int, *, annotator: str, when: datetime) -> int:
        """Append that annotation `annotation` counts no more; the id of that row. Again is the same retraction."""
        with self.writing() as connection:
            return retract(connection, annotation, annotator=annotator, when=when)

    def read_annotations(self, workflow: str) -> "DataFrame":
        """All annotations and retractions of `workflow`, in the order in which they came."""
        return self._read_all(ANNOTATIONS, workflow)

    def read_examples(self, workflow: str) -> "DataFrame":
        """All examples of `workflow`, in the order in which they came."""
        return self._read_all(EXAMPLES, workflow)

    def latest_annotation(self, workflow: str) -> int:
        """The highest id of an annotation or retraction of `workflow`; 0 if there is none."""
        newest = self.read(sql.select(sql.func.max(ANNOTATIONS.c.id)).where(ANNOTATIONS.c.workflow == workflow))
        return (newest[0][0] if newest else None) or 0

    def versions_in_calls(self, workflow: str, since: datetime) -> set[str]:
        """The versions of the model that answered calls at `since` or later."""
        calls = (CALLS.c.workflow == workflow) & (CALLS.c.time >= stamp(since))
        return {version for (version,) in self.read(sql.select(CALLS.c.version).where(calls).distinct())}

    def _read_all(self, table: sql.Table, workflow: str) -> "DataFrame":
        from pandas import DataFrame

        rows = self.read(sql.select(table).where(table.c.workflow == workflow).order_by(table.c.id))
        return DataFrame([tuple(row) for row in rows], columns=table.c.keys(), dtype=object)  # 1 stays 1 beside None

    def _version(self, connection: sql.Connection) -> int:
        """The version of the tables; 0 if there are none. StoreError for those of a newer Pinmill."""
        there = sql.inspect(connection).has_table(SCHEMA.name)
        version, newest = connection.scalar(sql.select(SCHEMA.c.version)) if there else 0, len(UPGRADES) + 1
        if version > newest:
            newer = f"{self.where} has version {version}; this Pinmill knows {newest}"
            raise StoreError(f"the store {newer}. A newer one wrote it: upgrade this one")
        return version

    def _follow_file(self) -> None:
        """Forget the connections to a file that is gone, or another by now: SQLite would go on in the deleted one."""
        inode = os.stat(self._disk).st_ino if self._disk and os.path.exists(self._disk) else 0
        if inode != self._inode:
            self._engine.dispose()
            self._inode = inode

    @contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        """Turn what a database or disk says into a StoreError: what, where, and what to do."""
        try:
            self._follow_file()
            yield
        except (sql.exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
            said = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
            step = next(step for words, step in NEXT_STEPS.items() if any(word in said for word in words.split("|")))
            said = scrub(said, hidden_values(["url"], {"url": self._place}))
            kind = StoreBusyError if is_outage(error) else StoreError
            raise kind(f"could not {doing} the store {self.where}: {said}. {step}") from None


def stamp(when: datetime) -> str:
    """`when` (aware) as the store keeps it: ISO 8601 in UTC with microseconds, which sorts as text."""
    return when.astimezone(UTC).isoformat(timespec="microseconds")


def annotate(
    connection: sql.Connection, workflow: str, annotations: Sequence[Annotation], *, annotator: str, when: datetime
) -> list[int]:
    """`Store.add_annotations` within a transaction."""
    if wrong := {annotation.strategy for annotation in annotations}.difference(STRATEGIES):
        raise DataError(f"strategy is {', '.join(sorted(wrong))}; it must be one of {', '.join(STRATEGIES)}")
    about = {"workflow": workflow, "annotator": annotator, "created": stamp(when), "retracts": None}
    rows = [{**plain(vars(annotation), "annotation"), **about} for annotation in annotations]
    _append(connection, ANNOTATIONS.c.key, rows)
    ids = find_ids(connection, ANNOTATIONS.c.key, [row["key"] for row in rows], workflow=workflow)
    return [ids[annotation.key] for annotation in annotations]


def retract(connection: sql.Connection, annotation: int, *, annotator: str, when: datetime, key: str = "") -> int:
    """`Store.retract` within a transaction; `key`, which begins with a colon as no annotator's does, is the row's."""
    known = connection.scalar(sql.select(ANNOTATIONS.c.id).where(ANNOTATIONS.c.retracts == annotation))
    if known is not None:
        return known
    label = sql.select(ANNOTATIONS).where(ANNOTATIONS.c.id == annotation, ANNOTATIONS.c.retracts.is_(None))
    row = connection.execute(label).mappings().first()
    if row is None:
        raise StoreError(f"annotation {annotation} cannot be retracted: no label has that id")
    kept = {name: row[name] for name in ("workflow", "hash", "record", "strategy")}
    about = {"annotator": annotator, "created": stamp(when), "retracts": annotation}
    about |= {"key": key or f":retract:{annotation}", "label": None, "seconds": None, "note": ""}
    return connection.scalar(sql.insert(ANNOTATIONS).values(**kept, **about).returning(ANNOTATIONS.c.id))


def _upgrade(connection: sql.Connection, version: int) -> None:
    """Make the tables, or bring those of an older version to the newest."""
    if version == 0:
        METADATA.create_all(connection, checkfirst=False)  # tables of these names that are not ours are an error
        connection.execute(sql.insert(SCHEMA).values(version=len(UPGRADES) + 1))
    elif version <= len(UPGRADES):
        for upgrade in UPGRADES[version - 1 :]:
            upgrade(connection)
        connection.execute(sql.update(SCHEMA).values(version=len(UPGRADES) + 1))


def find_ids(connection: sql.Connection, column: sql.Column, values: Sequence[str], *, workflow: str) -> dict[str, int]:
    """Ids, by their value in `column`, of the rows of a workflow in its table that have one of `values` there."""
    of, found = column.table.c, {}
    for place in range(0, len(values), CHUNK):
        chosen = column.in_(values[place : place + CHUNK]) & (of.workflow == workflow)
        found |= dict(connection.execute(sql.select(column, of.id).where(chosen)).all())
    return found


def _append(connection: sql.Connection, column: sql.Column, rows: Sequence[Mapping[str, Any]]) -> int:
    """Append the rows (of one workflow) whose value in `column` is not there yet; how many these are."""
    if not rows:
        return 0
    known = find_ids(connection, column, [row[column.name] for row in rows], workflow=rows[0]["workflow"])
    new = {row[column.name]: row for row in rows if row[column.name] not in known}
    if new:
        connection.execute(sql.insert(column.table), list(new.values()))
    return len(new)
