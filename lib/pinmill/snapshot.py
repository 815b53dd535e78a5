"""The store as one SQLite file, as it was at one moment, and back into another database."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from pinmill.errors import BackupError
from pinmill.store import CHUNK, METADATA, SCHEMA, Store

TABLES = [table for table in METADATA.sorted_tables if table is not SCHEMA]
Counts = dict[str, int]


def take_snapshot(store: Store, target: Path) -> Counts:
    """Write the store's tables into a new SQLite file while others write; how many rows each has.

    In one step: where it took pages in turn, SQLite would begin again at each write of another process.
    """
    with store.reading() as source:
        if source.dialect.name == "sqlite":
            with closing(sqlite3.connect(target)) as copy:
                source.connection.driver_connection.backup(copy)
        else:
            into = Store(target)
            with into.writing() as copy:
                copy_tables(source, copy)
            into.close()
    with closing(sqlite3.connect(target)) as copy:
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, also while it is read
        return {table.name: copy.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0] for table in TABLES}


def fill_store(store: Store, snapshot: Path) -> None:
    """Put the rows of a snapshot into an empty database, all or none; nothing is done where they are already."""
    source = Store(snapshot)
    with source.reading() as rows, store.writing() as target:
        wanted, there = count_rows(rows), count_rows(target)
        if any(there.values()) and there != wanted:
            raise BackupError(f"the store {store.where} is not empty any more: {tell_counts(there)}")
        if not any(there.values()):
            copy_tables(rows, target)
            for table in TABLES if target.dialect.name == "postgresql" else []:
                if key := table.autoincrement_column is not None and table.autoincrement_column.name:
                    newest = f"(SELECT max({key}) FROM {table.name})"
                    target.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{table.name}', '{key}'), {newest})")
    source.close()


def count_rows(connection: sql.Connection) -> Counts:
    """How many rows each table has."""
    return {table.name: connection.scalar(sql.select(sql.func.count()).select_from(table)) for table in TABLES}


def tell_counts(counts: Counts) -> str:
    """How much there is of what, as '12 versions, 3 runs, 1,024 calls'."""
    return ", ".join(f"{n:,} {name}" for name, n in counts.items() if n) or "nothing yet"


def copy_tables(source: sql.Connection, target: sql.Connection) -> None:
    """Copy all rows, with their ids, into tables that are empty; JSON as the text it is."""
    mark = "?" if target.dialect.name == "sqlite" else "%s"
    for table in TABLES:
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        statement = f"INSERT INTO {table.name} ({names}) VALUES ({', '.join([mark] * len(table.columns))})"
        for some in read_rows(source, table):
            target.exec_driver_sql(statement, some)


def read_rows(source: sql.Connection, table: sql.Table) -> Iterator[list[tuple]]:
    """The rows of a table, some at a time, so that memory does not grow with it."""
    is_json = [isinstance(column.type, sql.JSON) for column in table.columns]
    kind = sql.types.NullType if source.dialect.name == "sqlite" else None  # SQLite keeps a JSON number as a number
    shown = [
        column if not json_ else sql.type_coerce(column, kind) if kind else sql.cast(column, sql.Text)
        for column, json_ in zip(table.columns, is_json, strict=True)
    ]
    found = source.execution_options(yield_per=CHUNK).execute(sql.select(*shown).order_by(*table.primary_key))
    for rows in found.partitions():
        yield [tuple(as_text(v) if j else v for v, j in zip(row, is_json, strict=True)) for row in rows]


def as_text(value: Any) -> str | None:
    """What a JSON column holds, as text."""
    return value if value is None or isinstance(value, str) else json.dumps(value)
