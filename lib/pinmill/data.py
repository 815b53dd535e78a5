"""SQL over what one workflow has: a query reads its examples, annotations and predictions, and nothing else.

Each query runs in a process of its own: what no check foresees – a pattern that matches for hours, a sort that fills
the memory – ends with that process, and neither slows nor ends the service.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pinmill.errors import StoreError
from pinmill.problem import Problem
from pinmill.views import HELD, NOTHING, SQL_LENGTH, WHOLE

SLOTS = threading.BoundedSemaphore(4)  # queries at a time, each with a processor and memory of its own
COMMAND = (sys.executable, "-P", "-c", "from pinmill.views import answer; answer()")
KEPT = ("LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")  # of the environment: its secrets are none of a query's business
DIED = "the process of the query ended (exit {}), most likely for want of memory: let it read fewer rows"
KILLED = "the query took longer than {:g} s, or its rows were not read in time ({:g} s a page, {:g} all): ask for fewer"
UNFIT = f"the query must be one SELECT of at most {SQL_LENGTH:,} bytes, without the character NUL"
BUSY = "other queries are at work. Send it again in a moment."
ELSEWHERE = "SQL can be asked of a store in an SQLite file only, and this one is elsewhere: ask its database itself"


class Query:
    """The answer to a query: `columns`, and when iterated pages, which are lists of rows of plain values.

    After the last page `complete` says whether that was all, and if not `cut` says why. `close` ends it early.
    """

    def __init__(self, process: subprocess.Popen, asked: dict[str, Any]) -> None:
        """Ask a process, see `list_lines`."""
        self._process, self._late = process, KILLED.format(asked["seconds"], HELD, WHOLE)
        self.close = weakref.finalize(self, _end, process)  # also that of an answer nobody reads
        with suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(json.dumps(asked).encode())
        self.first = self._read_line()  # holds no columns if the query fails
        self.columns, self.complete, self.cut = self.first.get("columns", []), False, ""

    def __iter__(self) -> Iterator[list[list[Any]]]:
        said = self.first
        while "rows" in said:
            if said["rows"]:
                yield said["rows"]
            said = self._read_line() if self.close.alive else {"cut": "it was closed"}
        self.cut, self.complete = said["cut"], not said["cut"]
        self.close()

    def _read_line(self) -> dict[str, Any]:
        """What the process says next; why it was killed, if it was."""
        line = self._process.stdout.readline()
        if line.endswith(b"\n"):
            return json.loads(line)
        code = self._process.wait()
        return {"cut": self._late if code == -signal.SIGALRM else DIED.format(code)}


def open_query(
    file: Path | None, workflow: str, sql: str, *, seconds: float = 10.0, rows: int = 100_000, size: int = 50_000_000
) -> Query:
    """The answer to one SELECT over the VIEWS of a workflow, when its first page is there; it may be cut at a limit.

    `file` is the store's, None if that is no SQLite file; `size` is in bytes of JSON. Raises Problem: 422 with what is
    wrong with the query, 501 without a file, 503 if too many are at work; and StoreError.
    """
    if file is None:
        raise Problem(501, ELSEWHERE)
    if not file.is_file():
        raise Problem(422, NOTHING)
    if not 0 < len(sql.encode(errors="replace")) <= SQL_LENGTH or "\0" in sql:
        raise Problem(422, UNFIT)
    if not SLOTS.acquire(blocking=False):
        raise Problem(503, BUSY, headers={"Retry-After": "1"})
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    try:
        process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    except OSError as error:
        SLOTS.release()
        raise Problem(503, f"no process could be started for the query: {error}") from error
    asked = {"file": file.resolve().as_uri(), "workflow": workflow, "sql": sql}
    query = Query(process, {**asked, "seconds": seconds, "rows": rows, "size": size})
    if "columns" in query.first:
        return query
    query.close()
    if query.first.get("broken"):
        raise StoreError(f"could not read the store {file}: {query.first['cut']}. Run pinmill doctor")
    raise Problem(422, query.first["cut"])


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.stdout.close()
    process.wait()
    SLOTS.release()
