"""The call log: written by a thread beside the gateway, in batches, so that no answer waits for a disk; and read."""

import asyncio
import json
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache, partial
from itertools import chain
from operator import itemgetter
from typing import Any

import sqlalchemy as sql

from pinmill.errors import StoreError
from pinmill.store import BEGIN, CALLS, Store, stamp
from pinmill.version import now_utc
from pinmill.visit import Visit, read_since

EVERY = 0.2  # seconds from flush to flush: with two flushes beside it, less than half a second can be lost to a kill
RETRY = 1.0  # seconds to wait after a flush that failed
REMIND = 60.0  # seconds between two messages about a store that takes nothing
LIMIT = 200_000  # rows that wait in memory; at 1 KB each, 200 MB
BATCH = 5_000  # rows in one transaction: other writers get their turn in the GAP after it
GAP = 0.01  # seconds: SQLite looks in vain for some milliseconds before it tries again
TOGETHER = 50  # rows in one INSERT: more is not quicker, and the GIL is given up and taken back once for all of them
REST = 0.001  # seconds after each INSERT: requests would wait for the GIL and the processor until all are written …
RESTS = 0.05  # … and at most so many for all that wait
PAGE = 1_000  # calls read at a time for the recent log
REFUSED = (  # a row that no database takes, now or later, unlike a locked file or a full disk
    sql.exc.IntegrityError, sql.exc.DataError, sql.exc.InterfaceError, sql.exc.ProgrammingError,
    TypeError, ValueError, LookupError, OverflowError,
)  # fmt: skip
Row = tuple[sql.Table, Mapping[str, Any]]


class Writer:
    """Takes rows for tables of the store without ever waiting or raising, and writes them in a thread of its own.

    `lost` counts rows that were dropped: beyond LIMIT, after `close`, or because the database refuses them.
    `failing` says what is wrong with the store; empty when all is well.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._rows, self._taken, self._room = store, deque[Row](), list[Row](), LIMIT
        self.failing, self._said, self._dropped, self._refused = "", -REMIND, 0, 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="call log", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        return self._dropped + self._refused  # each counted by one thread only

    def add(self, table: sql.Table, row: Mapping[str, Any]) -> None:
        """Have `row` written soon: every column of `table` but `id`, those of JSON as JSON text or None.

        A row whose key is in the table already is left as it is there.
        """
        if len(self._rows) < self._room:
            self._rows.append((table, row))
        else:
            self._dropped += 1

    def close(self, timeout: float = 10.0) -> None:
        """Write what is left, for at most `timeout` seconds; what is not written by then is lost, and said."""
        self._closing.set()
        self._thread.join(timeout)
        left = len(self._rows) + len(self._taken)
        if left:
            self._room, self._dropped = 0, self._dropped + left
            self._say(f"{left} rows of the call log are lost: {self.failing or 'the store did not answer in time'}")

    def _work(self) -> None:
        while not self._closing.wait(RETRY if self.failing else EVERY):
            self._flush()
        self._flush()
        self._room = 0

    def _flush(self) -> None:
        """Write all rows that wait now; at the first failure keep the rest for later."""
        self._taken += [self._rows.popleft() for _ in range(len(self._rows))]
        self._room = LIMIT - len(self._taken)
        try:
            pause = min(REST, RESTS * TOGETHER / max(1, len(self._taken)))
            while self._taken:
                if refused := write_rows(self._store, self._taken[:BATCH], lambda: self._closing.wait(pause)):
                    self._refused += refused
                    self._remind(f"{refused} rows of the call log are lost: the database refuses what they hold")
                del self._taken[:BATCH]
                self._closing.wait(GAP if self._taken else 0)
            if self.failing:
                self._say(f"the call log is written again; {self.lost} rows were lost since the start")
            self.failing = ""
        except Exception as error:  # whatever it is: a thread that ended here would lose every later call
            failing = str(error) if isinstance(error, StoreError) else repr(error)
            self._store.close()  # the next flush opens the file anew, which may be another by then
            self._remind(f"the call log waits in memory ({len(self._taken)} rows, {self.lost} lost): {failing}")
            self.failing = failing
        self._room = LIMIT - len(self._taken)

    def _remind(self, message: str) -> None:
        if time.monotonic() - self._said > REMIND:
            self._said = time.monotonic()
            self._say(message)

    def _say(self, message: str) -> None:
        with suppress(OSError, ValueError):  # the error output may lie on the same full disk, or be closed
            print(f"pinmill: {message}", file=sys.stderr, flush=True)


def write_rows(store: Store, rows: Sequence[Row], rest: Callable[[], object] = lambda: None) -> int:
    """Write rows of any tables in one transaction, calling `rest` now and then; how many the database refused."""
    with store.writing() as connection:
        try:
            with connection.begin_nested():
                _insert(connection, rows, rest)
            return 0
        except REFUSED:
            return sum(not _try_insert(connection, row) for row in rows)


def _try_insert(connection: sql.Connection, row: Row) -> bool:
    try:
        with connection.begin_nested():
            _insert(connection, [row])
        return True
    except REFUSED:
        return False


def _insert(connection: sql.Connection, rows: Sequence[Row], rest: Callable[[], object] = lambda: None) -> None:
    of: dict[sql.Table, list[Mapping[str, Any]]] = {}
    for table, row in rows:
        of.setdefault(table, []).append(row)
    for table, given in of.items():
        values = itemgetter(*_columns(table))
        for place in range(0, len(given), TOGETHER):
            some = given[place : place + TOGETHER]
            statement = _statement(table, len(some), connection.dialect.name)
            connection.exec_driver_sql(statement, tuple(chain.from_iterable(map(values, some))))
            rest()


def _columns(table: sql.Table) -> list[str]:
    """Its columns but the number that the database gives."""
    return [column.name for column in table.columns if column is not table.autoincrement_column]


@cache
def _statement(table: sql.Table, n: int, dialect: str) -> str:
    """An INSERT of `n` rows, as the driver takes it: SQLAlchemy's own takes twice the time for each row."""
    names = ", ".join(f'"{name}"' for name in _columns(table))
    row = f"({', '.join(['?' if dialect == 'sqlite' else '%s'] * len(_columns(table)))})"
    known = " ON CONFLICT DO NOTHING" if dialect in BEGIN else ""
    return f"INSERT INTO {table.name} ({names}) VALUES {', '.join([row] * n)}{known}"


def describe_call(visit: Visit, workflow: str) -> dict[str, Any]:
    """What the log says of a call, whatever came of it."""
    return {
        "workflow": workflow,
        "time": stamp(now_utc()),
        "version": visit.version,
        "endpoint": visit.endpoint,
        "caller": visit.caller.name,
        "milliseconds": round(1000 * (time.perf_counter() - visit.started), 3),
        "request": visit.id,
    }


def read_calls(
    store: Store, workflow: str, *, caller: str | None, since: datetime, after: int = 0, limit: int
) -> list[dict[str, Any]]:
    """At most `limit` calls of a workflow (`caller`: only theirs) at `since` or later, oldest first.

    `after` is the `id` of the last call of the page before.
    """
    # Through coalesce the planner cannot take the index by time: with it every page would sort all that is left.
    name, began = (sql.func.coalesce(column, "") for column in (CALLS.c.workflow, CALLS.c.time))
    chosen = (CALLS.c.id > after) & (name == workflow) & (began >= stamp(since))
    if caller is not None:
        chosen &= CALLS.c.caller == caller
    query = sql.select(CALLS).where(chosen).order_by(CALLS.c.id).limit(limit)
    return [dict(row._mapping) for row in store.read(query)]


def find_call(store: Store, request: str, *, limit: int) -> tuple[int, list[dict[str, Any]]]:
    """How many rows the call of this id has in the log, and the first `limit` of them."""
    of_call = CALLS.c.request == request
    counted = store.read(sql.select(sql.func.count()).where(of_call))
    rows = store.read(sql.select(CALLS).where(of_call).order_by(CALLS.c.row, CALLS.c.id).limit(limit))
    return sum(n for (n,) in counted), [dict(row._mapping) for row in rows]


async def list_recent(store: Store, workflow: str, visit: Visit) -> AsyncIterator[str]:
    """A JSON list of the caller's own calls, of an admin all, oldest first. Raises Problem (422), and StoreError."""
    caller, since = None if visit.caller.role == "admin" else visit.caller.name, read_since(visit.options)
    read = partial(read_calls, store, workflow, caller=caller, since=since, limit=PAGE)
    return stream_calls(read, await asyncio.to_thread(read))


async def stream_calls(read: Callable[..., list[dict[str, Any]]], page: list[dict[str, Any]]) -> AsyncIterator[str]:
    """A JSON list of calls, or other rows, a page at a time, so that memory does not grow with it."""
    before = "["
    while page:
        for row in page:
            yield before + json.dumps(row, default=str)
            before = ",\n"
        page = await asyncio.to_thread(read, after=page[-1]["id"]) if len(page) == PAGE else []
    yield "]" if before != "[" else "[]"
