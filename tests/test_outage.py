"""What came from outside, by real exceptions of real libraries; and runs that try again, against a real web server."""

from __future__ import annotations

import errno
import io
import json
import signal
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pandas
import pytest
import requests
import sqlalchemy
from pinmill import runner
from pinmill.errors import BusyError, ClientError, SourceNotFoundError, StoreBusyError, UnreachableError
from pinmill.outage import is_outage
from pinmill.plan import make_plan
from pinmill.progress import LineProgress
from pinmill.project import Project
from pinmill.runs import RunRecord
from pinmill.store import Store

if TYPE_CHECKING:
    from conftest import Workplace

NOWHERE = "http://127.0.0.1:1/"


class Web:
    """A web server on loopback: each GET takes the next of `statuses`, and 200 with `body` when none is left."""

    def __init__(self) -> None:
        web = self
        self.statuses: list[int] = []
        self.body = b"n\n1\n2\n3\n"
        self.asked = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked += 1
                self.send_response(web.statuses.pop(0) if web.statuses else 200)
                self.send_header("Content-Length", str(len(web.body)))
                self.end_headers()
                self.wfile.write(web.body)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/numbers.csv"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    yield web
    web.stop()


def catch(do: Callable[[], Any]) -> Exception:
    """The exception that `do` raises."""
    with pytest.raises(Exception, match=r"(?s).") as caught:
        do()
    return caught.value


def raise_from(origin: Exception, *, told: bool) -> None:
    """Raise a KeyError while `origin` is handled; `told` says whether a traceback shows where it came from."""
    try:
        raise origin
    except type(origin):
        if told:
            raise KeyError("n") from origin
        raise KeyError("n") from None


def raise_again(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("do", "expected"),
    [
        (lambda: httpx.get(NOWHERE), True),
        (lambda: requests.get(NOWHERE, timeout=9), True),
        (lambda: urllib.request.urlopen(NOWHERE), True),
        (lambda: pandas.read_csv(NOWHERE), True),
        (lambda: sqlalchemy.create_engine("postgresql+psycopg://me:pw@127.0.0.1:1/crm").connect(), True),
        (lambda: httpx.get("nosuch://127.0.0.1/"), False),
        (lambda: urllib.request.urlopen("nosuch://127.0.0.1/"), False),
        (lambda: urllib.request.urlopen("file:///no/such/file"), False),
        (lambda: sqlite3.connect("/no/such/folder/crm.db"), False),
        (lambda: sqlalchemy.create_engine("sqlite://").connect().execute(sqlalchemy.text("select 1 from no")), False),
        (lambda: pandas.read_csv("/no/such/file.csv"), False),
        (lambda: {}["n"], False),
    ],
)  # fmt: skip
def test_a_server_that_is_not_there_is_an_outage_and_a_wrong_address_query_or_program_is_none(do, expected) -> None:
    assert is_outage(catch(do)) is expected


@pytest.mark.parametrize(
    ("status", "expected"), [(429, True), (500, True), (503, True), (408, True), (401, False), (404, False)]
)
def test_of_a_status_only_too_much_too_slow_and_the_servers_own_faults_are(web: Web, status: int, expected) -> None:
    web.statuses = [status] * 3
    raised = [
        catch(lambda: httpx.get(web.url).raise_for_status()),
        catch(lambda: requests.get(web.url, timeout=9).raise_for_status()),
    ]
    with catch(lambda: urllib.request.urlopen(web.url)) as error:
        raised.append(error)
    assert [is_outage(error) for error in raised] == [expected] * 3


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.EHOSTUNREACH, "No route to host"), True), (OSError(errno.ENOSPC, "No space left"), False),
        (TimeoutError(), True), (MemoryError(), False), (UnreachableError("nobody"), True),
        (BusyError("a run is at work", status=409), True), (ClientError("not here", status=404), False),
        (ClientError("it failed", status=500), True), (SourceNotFoundError("no.csv"), False), (None, False),
    ],
)  # fmt: skip
def test_errors_that_are_made_directly(error: Exception | None, expected: bool) -> None:
    assert is_outage(error) is expected


@pytest.mark.parametrize(("told", "expected"), [(True, True), (False, False)])
def test_what_it_came_from_counts_where_a_traceback_would_show_it(told: bool, expected: bool) -> None:
    assert is_outage(catch(lambda: raise_from(ConnectionResetError("gone"), told=told))) is expected


def test_an_exception_that_came_from_itself_is_none() -> None:
    with sqlalchemy.create_engine("sqlite://").connect() as connection:
        connection.execute(sqlalchemy.text("create table t (n int not null)"))
        try:
            error = catch(lambda: connection.execute(sqlalchemy.text("insert into t values (null)")))
            raise error
        except sqlalchemy.exc.DBAPIError as error:
            again = catch(lambda: raise_again(error.orig))
    assert again.__context__.orig is again
    assert not is_outage(again)


def test_an_answer_of_object_storage_is_judged_by_its_status() -> None:
    # botocore is not installed here: its ClientError carries the answer as a dict
    error = RuntimeError("SlowDown")
    error.response = {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}
    assert is_outage(error)
    error.response["ResponseMetadata"]["HTTPStatusCode"] = 403
    assert not is_outage(error)


def test_a_wrong_password_of_a_real_database_is_none(postgres: Callable[[], str]) -> None:
    url = sqlalchemy.make_url(postgres())
    assert not is_outage(catch(lambda: sqlalchemy.create_engine(url.set(username="nobody-here")).connect()))
    assert not is_outage(catch(lambda: sqlalchemy.create_engine(url.set(database="no_such")).connect()))


def test_a_locked_store_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pinmill.store.BUSY", 0.05)
    store = Store(tmp_path / "pinmill.sqlite")
    with store.writing():
        pass
    with closing(sqlite3.connect(tmp_path / "pinmill.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        error = catch(lambda: store.writing().__enter__())
    store.close()
    assert (type(error), is_outage(error)) == (StoreBusyError, True)


# Runs

BY_LIBRARY = "numbers = [int(n) for n in urllib.request.urlopen(source).read().split()[1:]]"
BY_US = "numbers = run.read_source(source).frame.n.tolist()"


def prepare(place: Workplace, web: Web, code: str, *, retries: int = 2) -> None:
    """Have the first stage read its numbers from a web server."""
    old = "numbers = [int(line) for line in Path(source).read_text().split()]"
    place.edit("01-prepare", old, f"import urllib.request\n{code}")
    place.params(f"workflow: small\nsource: {web.url}\nrun: {{retries: {retries}}}\n", "small")


def run_here(place: Workplace) -> tuple[RunRecord, list[str]]:
    """Run the workflow in this process: its record, and the lines that were said, without their times."""
    project, said = Project(place.root, {}), io.StringIO()
    record = runner.run_job(project, make_plan(project, "small", job="train", assignments=[]), LineProgress(said))
    return record, [line.partition(" ")[2] for line in said.getvalue().splitlines()]


@pytest.mark.parametrize("code", [BY_LIBRARY, BY_US], ids=["library", "us"])
def test_a_stage_that_failed_from_outside_is_tried_again_in_a_fresh_kernel(
    small: Workplace, web: Web, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(runner, "FIRST_PAUSE", 0.01)
    prepare(small, web, f"Path(f'pid-{{os.getpid()}}').touch()\n{code}")
    web.statuses = [503, 429]
    record, said = run_here(small)
    assert (record.status, record.error, web.asked) == ("succeeded", "", 3)
    assert [stage.status for stage in record.stages] == ["ran"] * 4
    assert len(list(small.root.glob("pid-*"))) == 3
    again = [line for line in said if "tried again" in line]
    assert again == list(record.warnings)
    first, second = again
    assert first.startswith("01-prepare failed from outside: cell ")
    assert "503" in first
    assert "429" in second
    assert first.endswith("; it is tried again in 0.01 s (1 of 2)")
    assert second.endswith("; it is tried again in 0.05 s (2 of 2)")
    assert json.loads(next(small.root.glob("outputs/pins/small-data/*/small-data.json")).read_text()) == [1, 2, 3]


@pytest.mark.parametrize(
    ("statuses", "retries", "asked"), [([503] * 9, 2, 3), ([503] * 9, 0, 1), ([404] * 9, 2, 1), ([503, 404], 2, 2)]
)
def test_it_is_tried_as_often_as_the_settings_say_and_only_while_that_may_help(
    small: Workplace, web: Web, monkeypatch: pytest.MonkeyPatch, statuses: list[int], retries: int, asked: int
) -> None:
    monkeypatch.setattr(runner, "FIRST_PAUSE", 0.01)
    prepare(small, web, BY_LIBRARY, retries=retries)
    web.statuses = list(statuses)
    record, _ = run_here(small)
    assert (record.status, web.asked, len(record.warnings)) == ("failed", asked, asked - 1)
    assert f"HTTP Error {statuses[asked - 1]}" in record.error
    assert [stage.status for stage in record.stages] == ["failed"]


def test_an_error_of_the_program_a_dead_kernel_and_a_timeout_are_not_tried_again(
    small: Workplace, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "FIRST_PAUSE", 0.01)
    prepare(
        small, web, "fault = 0\nif fault == 1:\n    1 / 0\nif fault == 2:\n    os.kill(os.getpid(), 9)\nwhile fault: 0"
    )
    settings = "run: {retries: 2, timeout: 3}\n"
    small.params(f"workflow: small\nsource: {web.url}\n{settings}", "small")
    for fault, said in ((1, "ZeroDivisionError"), (2, "the kernel died"), (3, "the stage took longer than 3 s")):
        small.edit("01-prepare", f"fault = {fault - 1}\n", f"fault = {fault}\n")
        record, _ = run_here(small)
        assert (record.status, record.warnings) == ("failed", ())
        assert said in record.error


def test_pauses_grow_to_five_minutes(small: Workplace, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(runner.time, "sleep", pauses.append)
    monkeypatch.setattr(runner, "take_stage", lambda work, stage, number: httpx.get(NOWHERE))
    small.params("workflow: small\nsource: numbers.txt\nrun: {retries: 5}\n", "small")
    record, _ = run_here(small)
    assert pauses == [5, 25, 125, 300, 300]
    assert (record.status, record.error) == ("failed", "ConnectError: [Errno 111] Connection refused")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_ends_the_pause_at_once(small: Workplace, web: Web, sent: signal.Signals) -> None:
    prepare(small, web, BY_LIBRARY, retries=5)
    web.statuses = [503]
    process = small.start("run", "small")
    said = next((line for line in process.stderr if "tried again" in line), "")
    assert said.endswith("; it is tried again in 5 s (1 of 5)\n")
    process.send_signal(sent)
    process.communicate(timeout=20)
    (record,) = small.json("runs", "small")
    assert (process.returncode, record["status"], web.asked) == (130, "interrupted", 1)
    assert [f"{warning}\n" for warning in record["warnings"]] == [said.partition(" ")[2]]
