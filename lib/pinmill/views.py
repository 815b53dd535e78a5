"""What a query may read: views of one workflow's examples, annotations and predictions. Runs in a query's process.

Needs nothing but the standard library, so that the process starts in a few hundredths of a second.
"""

import json
import os
import re
import resource
import secrets
import signal
import sqlite3
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import closing
from functools import partial
from itertools import chain
from typing import Any

from pinmill.errors import did_you_mean

VIEWS = {  # name, table, what is read of it. A label is text, a number, or 1 and 0 for true and false
    "examples": ("examples", "id, hash, record, origin, created", ""),
    "annotations": (
        "annotations",
        "id, hash, record, label ->> '$' AS label, annotator, created, seconds, note, strategy, retracts",
        "",
    ),
    "predictions": (
        "calls",
        "id, time, version, endpoint, input_hash AS hash, input, output, cached, milliseconds, request",
        "AND status = 200 AND output IS NOT NULL",
    ),
}
COLUMNS = {view: [part.split()[-1] for part in columns.split(", ")] for view, (_, columns, _) in VIEWS.items()}
NAMES = """
abs acos asin atan atan2 avg ceil ceiling char coalesce concat concat_ws cos count cume_dist current_date current_time
current_timestamp date datetime degrees dense_rank exp first_value floor format glob group_concat hex ifnull iif instr
json json_array json_array_length json_extract json_group_array json_group_object json_insert json_object json_patch
json_quote json_remove json_replace json_set json_type json_valid julianday lag last_value lead length like likelihood
likely ln log log10 log2 lower ltrim max median min mod nth_value ntile nullif octet_length percent_rank pi pow power
printf quote radians random rank replace round row_number rtrim sign sin soundex sqrt strftime string_agg substr
substring sum tan time timediff total trim trunc typeof unicode unixepoch unlikely upper -> ->>
"""
FUNCTIONS = frozenset(NAMES.split())  # each tells only of its arguments, the time and chance; any other is refused
LISTS = ("json_each", "json_tree")  # the only functions that may stand where a table does
SQL_LENGTH = 100_000  # bytes
LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 10_000_000,  # bytes of a value
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: SQL_LENGTH,
    sqlite3.SQLITE_LIMIT_COLUMN: 200,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
}
MEMORY = 500_000_000  # bytes of address space
GRACE = 2  # s after the time of a query: SQLite cannot be interrupted within a function, but killed
HELD = 60  # s that a page may wait for a slow reader: meanwhile the store's log cannot be tidied
WHOLE = 300  # s for all pages of an answer: 50 MB, slowly
PAGE = 64_000  # bytes: parsing so many takes a millisecond, in which the service answers nobody
OPCODES = 10_000  # of SQLite between two looks at the clock: about a millisecond
FORBIDDEN = re.compile(
    r"\b(sqlite_\w+|pragma_\w+|dbstat|fts\d\w*|rtree\w*)", re.IGNORECASE
)  # no name has other spellings
BROKEN = re.compile("SQLITE_(BUSY|CANTOPEN|CORRUPT|FULL|IOERR|LOCKED|NOTADB|PERM|PROTOCOL|READONLY)")
MISSING = re.compile(r"no such (table|column|function): (?:\w+\.)?(\w+)")
ONLY = "only examples, annotations and predictions can be read, without a schema before their names"
NOTHING = "there is nothing to query yet: the store gets its tables with the first call, example or label"
LATE = "the query took longer than {:g} s: let it read fewer rows, or LIMIT them"
UNSUITED = "one SELECT was expected"
HUGE = f"the query needs more memory than {MEMORY // 1_000_000} MB: let it sort, group or join fewer rows"
FULL = "the answer is cut at {:,} rows and {:,} bytes: ask for fewer, or for a part at a time"
NOT_JSON = "a value is a blob or infinite, which JSON does not have: take hex() of it, or leave it out"
FAILURES = (sqlite3.Error, ValueError, MemoryError)
ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def answer() -> None:
    """Answer the query that the standard input asks, see `list_lines`; beyond a limit the process is killed."""
    asked = json.load(sys.stdin)
    seconds, until = asked["seconds"] + GRACE, time.monotonic() + WHOLE

    def allow(most: float) -> None:
        """Be killed after so many seconds, or when the whole took too long."""
        signal.setitimer(signal.ITIMER_REAL, min(most, max(until - time.monotonic(), 0.001)))  # 0 would be never

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.nice(5)  # predictions go first
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # whatever the service does with it
    allow(seconds)
    for line in list_lines(**asked):
        allow(HELD)
        sys.stdout.buffer.write(line.encode() + b"\n")
        sys.stdout.buffer.flush()
        allow(seconds)


def list_lines(*, file: str, workflow: str, sql: str, seconds: float, rows: int, size: int) -> Iterator[str]:
    """The answer to `sql` from the store at the address `file`, as JSON texts.

    First {"columns", "rows"}, then more {"rows"}, and last {"cut"}: why there are no more rows, or "". A query that
    fails before its first row has {"cut"} alone. `seconds` does not count the time until a text is taken.
    """
    until, refused, head, page, length, end = [time.monotonic() + seconds], [], "", [], 0, {"cut": ""}
    try:
        if word := FORBIDDEN.search(sql):
            raise ValueError(f"{ONLY}: {word[0]} is refused")
        with closing(connect(file, workflow, refused)) as connection:
            connection.set_progress_handler(lambda: time.monotonic() > until[0], OPCODES)
            cursor = connection.execute(sql)
            if cursor.description is None:
                raise ValueError(UNSUITED)
            head = f'"columns": {ENCODE([name for name, *_ in cursor.description])}, '
            for text in list_rows(cursor, rows=rows, size=size):
                page.append(text)
                length += len(text)
                if length > PAGE:
                    began = time.monotonic()
                    yield f'{{{head}"rows": [{", ".join(page)}]}}'
                    until[0], head, page, length = until[0] + time.monotonic() - began, "", [], 0
    except FAILURES as error:
        end = explain(error, refused, LATE.format(seconds))
    if page or not end["cut"]:
        yield f'{{{head}"rows": [{", ".join(page)}]}}'
    yield json.dumps(end)


def list_rows(cursor: sqlite3.Cursor, *, rows: int, size: int) -> Iterator[str]:
    """Each row as a JSON list. Raises ValueError where a limit cuts the answer, or JSON has no such value."""
    left = size
    for taken, row in enumerate(cursor):
        try:
            text = ENCODE(row)
        except (TypeError, ValueError):
            raise ValueError(NOT_JSON) from None
        left -= len(text.encode())
        if taken == rows or left < 0:
            raise ValueError(FULL.format(rows, size))
        yield text


def connect(file: str, workflow: str, refused: list[str]) -> sqlite3.Connection:
    """A connection that reads nothing but the views; what a query is refused is appended to `refused`.

    SQLite's authorizer is not enough: it takes the name of a WITH clause for that of a view, and is not asked about the
    columns of JOIN … USING. So the store has a name that nobody can know, and every table of it one that hides it.
    """
    store, quoted = f"_{secrets.token_hex(16)}", workflow.replace("'", "''")
    connection = sqlite3.connect(":memory:", uri=True, isolation_level=None)
    connection.text_factory = lambda text: text.decode(errors="replace")
    connection.execute(f"ATTACH ? AS {store}", [f"{file}?mode=ro"])
    connection.executescript("PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; BEGIN")  # one state of the store
    tables = f"SELECT lower(name) FROM {store}.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    there = {name for (name,) in connection.execute(tables)}
    if not there.issuperset(table for table, _, _ in VIEWS.values()):
        raise ValueError(NOTHING)
    for view, (table, columns, where) in VIEWS.items():
        chosen = f"SELECT {columns} FROM {store}.{table} WHERE workflow = '{quoted}' {where}"
        connection.execute(f"CREATE TEMP VIEW {view} AS {chosen}")
    for table in there.difference(VIEWS):
        connection.execute(f'CREATE TEMP VIEW "{table}" AS SELECT NULL')
    connection.execute(f"SELECT 1 FROM {', '.join(f'{name}(0)' for name in LISTS)}").close()  # sets them up
    connection.execute("PRAGMA query_only = ON")
    for limit, most in LIMITS.items():
        connection.setlimit(limit, most)
    connection.set_authorizer(partial(judge, refused, store, there))
    return connection


def judge(
    refused: list[str],
    store: str,
    there: Collection[str],
    action: int,
    first: str | None,
    second: str | None,
    base: str | None,
    view: str | None,
) -> int:
    """What SQLite's authorizer answers, given the name of the store and its tables; a refusal is added to `refused`.

    For a read `first` is the table in `base`, `second` the column, or "" if no more is read than the number of rows;
    `view` is who reads it, if not the query itself.
    """
    what, allowed = "what is no SELECT", action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE)
    if action == sqlite3.SQLITE_FUNCTION:
        what, allowed = f"the function {second}()", second in FUNCTIONS
    elif action == sqlite3.SQLITE_READ:
        what, table, reader = str(first), str(first).lower(), str(view).lower()
        if base == store:
            allowed = reader in VIEWS and table == VIEWS[reader][0]
        elif base == "temp":
            allowed = table in VIEWS
        elif base == "main" or second:
            allowed = table in LISTS
        else:  # the query gives no schema: it may be its own WITH clause
            allowed = table in VIEWS or table not in there
    if not allowed:
        refused.append(what)
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def explain(error: Exception, refused: list[str], late: str) -> dict[str, Any]:
    """The last line of an answer that failed: what is wrong, and what there is instead."""
    said, name = str(error), getattr(error, "sqlite_errorname", "")
    if BROKEN.match(name):
        return {"cut": said, "broken": True}
    if name == "SQLITE_INTERRUPT":
        return {"cut": late}
    if isinstance(error, MemoryError):
        return {"cut": HUGE}
    if refused:
        return {"cut": f"{ONLY}: {refused[0]} is refused"}
    if isinstance(error, ValueError):
        return {"cut": said}
    if missing := MISSING.match(said):
        known = {"table": VIEWS, "column": {*chain.from_iterable(COLUMNS.values())}, "function": FUNCTIONS}[missing[1]]
        listed = "; ".join(f"{view}({', '.join(columns)})" for view, columns in COLUMNS.items())
        said = f"{said}.{did_you_mean(missing[2], known)} There are {listed}"
    return {"cut": f"the query cannot be answered: {said}"}
