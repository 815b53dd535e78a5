"""Faults of the service: dying and hanging kernels, bad cells, hostile callers, a lost store, a lost board, its end."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import resource
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

if TYPE_CHECKING:
    from conftest import Load, Server, Workplace

STORE_FILES = 12  # that the gateway's threads may have opened since: three for each
TEXT = "win a free prize now"
NEW_PROCESS = 3.0  # s within which the gateway must have begun to replace a kernel
REPLACED = 10.0  # s within which a new kernel must serve; of its own time, as other processes may keep it from a core
Serve = Callable[..., "Server"]


def kill_kernel(server: Server) -> int:
    """End the oldest kernel as the system would; its process id."""
    pid = server.kernels()[0]
    os.kill(pid, signal.SIGKILL)
    return pid


def wait_for_kernels(server: Server, dead: int, count: int) -> None:
    """Wait until the dead kernel has a successor; it must have begun, and be ready, in time."""
    began = time.monotonic()
    server.wait_until(lambda: dead not in server.kernels() and len(server.kernels()) == count, seconds=60)
    assert time.monotonic() - began < NEW_PROCESS, server.log.read_text()
    server.wait_until(lambda: server.metric("pinmill_kernels") == count, seconds=90)
    newest = psutil.Process(server.kernels()[-1]).cpu_times()
    assert newest.user + newest.system < REPLACED, server.log.read_text()


# Kernels that die


@pytest.mark.parametrize("kernels", [1, 2])
def test_killed_kernels_leave_no_request_without_its_own_answer(
    serve: Serve, trained: Workplace, load: type[Load], kernels: int
) -> None:
    server = serve("--kernels", str(kernels), "--deadline", "60")
    server.wait_until(lambda: server.metric("pinmill_kernels") == kernels, seconds=60)
    started = server.ask("GET", "/").json()["started"]
    with load(server) as running:
        for _ in range(2):
            running.wait_for(200)
            wait_for_kernels(server, kill_kernel(server), kernels)
        running.wait_for(200)
    assert {(answer.status, answer.error) for answer in running.answers} == {(200, "")}
    assert len({answer.response.headers["X-Request-Id"] for answer in running.answers}) == len(running.answers)
    running.assert_own(trained)
    assert server.ask("GET", "/").json()["started"] == started  # the service has been there all the time
    assert server.metric("pinmill_kernel_restarts") == 2
    assert server.log.read_text().count("a kernel died and is replaced") == 2


# Cells that misbehave

CELLS = {
    "GET /sleep": "import time\nwhile True:\n    time.sleep(1)",
    "GET /nap": "print(json.dumps(open('nap.fifo').read()))",
    "GET /stuck": "sum(range(10**15))",  # no signal ends it, nor does another thread of the kernel run beside it
    "GET /rubbish": "print('rubbish')\nprint('{}')",
    "GET /nothing": "pass",
    "GET /status": "print('{}')",
    "GET /secret": "import os\nraise ValueError(os.environ['HUSHED'] + REQUEST)",
    "GET /exit": "import sys\nsys.exit(0)",
    "GET /end": "import os\nos._exit(0)",
    "GET /long": "print(json.dumps('x' * 10_000_000))",
    "GET /keep": "kept = globals().get('kept', 0) + 1\nprint(kept)",
    "POST /lengths": (
        "import os, time\n"
        "rows = json.loads(REQUEST)['body']\n"
        "if 'raise' in rows:\n"
        "    raise ValueError(os.environ['HUSHED'])\n"
        "if 'hang' in rows:\n"
        "    time.sleep(1000)\n"
        "if 'kill' in rows:\n"
        "    os._exit(1)\n"
        "if 'few' in rows:\n"
        "    rows.pop()\n"
        "print(json.dumps([{'value': len(row)} for row in rows]))"
    ),
}
INFOS = {"GET /status": 'print(\'{"status": "two hundred"}\')'}
HUSHED = "hush-4f9c1d7b"


def add_cells(workplace: Workplace) -> None:
    """Put the cells above at the end of the serving notebook."""
    for name, source in CELLS.items():
        workplace.add_cell(f"# {name}\n{source}", "role-any", *["row-wise"] * name.startswith("POST"))
    for name, source in INFOS.items():
        workplace.add_cell(f"# ResponseInfo {name}\n{source}")


def ask_lengths(server: Server, rows: list[str]) -> list[object]:
    """What POST /lengths answers to calls of one row each, made at once: the value, or the error."""
    with ThreadPoolExecutor(len(rows)) as pool:
        answers = list(pool.map(lambda row: server.ask("POST", "/lengths?skip_cache=true", [row]), rows))
    assert [answer.status_code for answer in answers] == [200] * len(rows), [answer.text for answer in answers]
    return [item.get("value", item.get("error")) for answer in answers for item in answer.json()]


def tell(answer: httpx.Response) -> tuple[int, str]:
    """Status and detail of a problem, which must be a whole one."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert (body["type"], body["status"]) == ("about:blank", answer.status_code)
    assert body["instance"] == answer.headers["X-Request-Id"]
    return answer.status_code, body["detail"]


def test_a_cell_that_misbehaves_fails_alone(serve: Serve, trained: Workplace) -> None:
    add_cells(trained)
    server = serve("--deadline", "60", HUSHED=HUSHED)
    failed, no_answer = "The cell behind this failed. Its log has the line; run it in JupyterLab.", "printed something"
    for path, status, said in [
        ("/rubbish", 500, no_answer),
        ("/nothing", 500, no_answer),
        ("/status", 500, no_answer),
        ("/secret?x=private", 500, failed),
        ("/exit", 500, failed),
    ]:
        got, detail = tell(server.ask("GET", path))
        assert (got, said in detail) == (status, True), path
        assert server.ask("POST", "/prediction", TEXT).status_code == 200
    assert server.ask("GET", "/long").json() == "x" * 10_000_000
    assert [server.ask("GET", "/keep").json() for _ in range(3)] == [1, 1, 1]
    kernel = server.kernels()
    rows = [f"row {'x' * n}" for n in range(16)]
    error = "The model could not score this row."
    for bad in ("raise", "few"):
        assert ask_lengths(server, [*rows, bad]) == [*map(len, rows), error]
    assert server.kernels() == kernel
    assert ask_lengths(server, [*rows[:8], "kill", *rows[8:]]) == [*map(len, rows[:8]), error, *map(len, rows[8:])]
    assert server.metric("pinmill_kernel_restarts") == 2  # the row took one kernel, and alone another
    status, detail = tell(server.ask("GET", "/end"))
    assert (status, "Look before you send it again" in detail) == (503, True)
    assert ask_lengths(server, ["after it"]) == [8]
    assert server.stop() == 0
    log = server.log.read_text()
    assert "GET /secret: ValueError in line 3 of its cell" in log
    assert "POST /lengths: ValueError in line 5 of its cell" in log
    kept = b"".join(path.read_bytes() for path in (trained.root / "outputs").glob("pinmill.sqlite*"))
    assert (b"POST /lengths" in kept, HUSHED in log, HUSHED.encode() in kept) == (True, False, False)


def test_a_cell_that_hangs_costs_the_others_nothing(serve: Serve, trained: Workplace) -> None:
    add_cells(trained)
    server = serve("--deadline", "4")
    kernel, rows = server.kernels(), [f"row {'x' * n}" for n in range(16)]
    assert ask_lengths(server, [*rows, "hang"]) == [*map(len, rows), "The model could not score this row."]
    with ThreadPoolExecutor(1) as pool:
        asleep = pool.submit(server.ask, "GET", "/sleep")
        assert ask_lengths(server, ["beside it"]) == [9]
        status, detail = tell(asleep.result())
    assert (status, detail.startswith("There was no answer within 4 s.")) == (504, True)
    assert server.kernels() == kernel  # a signal was enough
    with ThreadPoolExecutor(1) as pool:
        assert tell(pool.submit(server.ask, "GET", "/stuck").result())[0] == 504
    server.wait_until(lambda: "a kernel hangs and is replaced" in server.log.read_text())
    wait_for_kernels(server, kernel[0], 1)
    assert ask_lengths(server, ["after it"]) == [8]


# Hostile callers


def head(method: str = "POST", path: str = "/prediction", *, length: int | None = None, more: bytes = b"") -> bytes:
    """The head of a request; `length` is what it says of its body."""
    said = b"" if length is None else b"Content-Length: %d\r\n" % length
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + said + more + b"\r\n"


def post(body: bytes, more: bytes = b"") -> bytes:
    """A whole request."""
    return head(length=len(body), more=more) + body


def connect(server: Server) -> socket.socket:
    """A connection, by which nothing was said yet."""
    address = httpx.URL(server.url)
    return socket.create_connection((address.host, address.port), timeout=60)


def is_open(server: Server) -> bool:
    """Whether it takes connections."""
    with suppress(ConnectionError), connect(server):
        return True
    return False


def read_all(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def ask_raw(server: Server, sent: bytes, n: int = 1) -> list[tuple[int, str]]:
    """Status and body of the first n answers to these bytes; the connection is not closed before they came."""
    found = []
    with connect(server) as connection:
        connection.sendall(sent)
        stream = connection.makefile("rb")
        for _ in range(n):
            status = int(stream.readline().split()[1])
            headers = {}
            while line := stream.readline().strip():
                name, _, value = line.partition(b":")
                headers[name.lower()] = value.strip()
            found.append((status, stream.read(int(headers[b"content-length"])).decode()))
    return found


ONE = json.dumps(TEXT).encode()
CHUNKED = b"Transfer-Encoding: chunked\r\n"
GZIP = b"Content-Encoding: gzip\r\n"
UTF_16 = b"Content-Type: application/json; charset=utf-16\r\n"
HOSTILE = {  # what is sent, and the status of the answer
    "no request line": (b"NONSENSE\r\n\r\n", 400),
    "another protocol": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100, 400),
    "an address that is none": (b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "an address that is no ASCII": (b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a body of two lengths": (head(length=3, more=b"Content-Length: 4\r\n") + b"[1]", 400),
    "a length and chunks": (head(length=3, more=CHUNKED) + b"3\r\n[1]\r\n0\r\n\r\n", 400),
    "a length below zero": (head(more=b"Content-Length: -1\r\n"), 400),
    "a chunk of no size": (head(more=CHUNKED) + b"zz\r\n", 400),
    "10,000 headers": (head("GET", "/ping", more=b"".join(b"X-%d: y\r\n" % n for n in range(10_000))), 431),
    "10,000 small headers at once": (head("GET", "/ping", more=b"a:b\r\n" * 10_000), 431),
    "an endless header": (head("GET", "/ping")[:-2] + b"X-Endless: " + b"y" * 1_000_000, 431),
    "an endless address": (b"GET /" + b"y" * 1_000_000, 431),
    "a method that nothing takes": (head("DELETE"), 405),
    "a gzip bomb": (post(gzip.compress(b"[" + b" " * 50_000_000 + b"]"), GZIP), 415),
    "another content type": (post(ONE, b"Content-Type: text/html\r\n"), 415),
    "no UTF-8": (post(b'"\xff\xfe"'), 400),
    "UTF-16": (post(TEXT.encode("utf-16"), UTF_16), 400),
    "half a surrogate pair": (post(b'"\\ud800"'), 422),
    "deep JSON": (post(b"[" * 500_000), 400),
    "deep JSON that ends": (post(b"[" * 900 + b"]" * 900), 422),
    "a number without end": (post(b"[" + b"9" * 100_000 + b"]"), 400),
    "no JSON": (post(b"<html>"), 400),
    "no body": (head(length=0), 400),
    "three million rows": (head(path="/predictions", length=1_999_999) + b"[" + b"1," * 999_998 + b"1]", 422),
}
ODD = {  # unusual, but no fault
    "chunks": (head(more=CHUNKED) + b"".join(b"1\r\n%c\r\n" % byte for byte in ONE) + b"0\r\n\r\n", 200),
    "HTTP/1.0": (b"GET /ping HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
    "a charset": (post(ONE, b"Content-Type: application/JSON; charset=UTF-8\r\n"), 200),
    "an upgrade": (head("GET", "/ping", more=b"Connection: Upgrade\r\nUpgrade: websocket\r\n"), 200),
}
PIECES = [b"", b"POST", head(length=len(ONE))[:-2], head(length=len(ONE)), post(ONE)[:-3], post(ONE)]


def count_open(server: Server) -> int:
    """How many files and sockets the gateway has open."""
    return psutil.Process(server.process.pid).num_fds()


@contextmanager
def few_files(most: int) -> Iterator[None]:
    """What is started in this block may open no more files, unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def peak_memory(server: Server) -> int:
    """The most memory that the gateway ever had [bytes]."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return 1024 * int(status["VmHWM"].split()[0])


def send_slowly(server: Server, begun: bytes, more: bytes) -> tuple[float, bytes]:
    """What comes back when a request goes on by `more` each second, and after how many seconds."""
    began = time.monotonic()
    with connect(server) as connection:
        connection.sendall(begun)
        connection.settimeout(1)
        for _ in range(60):
            try:
                return time.monotonic() - began, connection.recv(65536) + read_all(connection)
            except TimeoutError:
                connection.sendall(more)
    raise AssertionError(f"no answer in 60 s\n{server.log.read_text()}")


async def ask_at_once(server: Server, n: int) -> list[bytes]:
    """The answers to n requests on n connections, all open before the first request is sent."""
    address = httpx.URL(server.url)
    opened = await asyncio.gather(*(asyncio.open_connection(address.host, address.port) for _ in range(n)))
    for number, (_, writer) in enumerate(opened):
        writer.write(post(json.dumps(f"{TEXT} {number}").encode(), b"Connection: close\r\n"))
    answers = await asyncio.gather(*(reader.read() for reader, _ in opened))
    for _, writer in opened:
        writer.close()
    return answers


def test_hostile_callers_get_an_answer_and_leave_nothing_behind(
    serve: Serve, trained: Workplace, load: type[Load]
) -> None:
    with few_files(300):  # as for the 1,024 that are usual, and more connections than that
        server = serve()
    server.ask("POST", "/prediction", TEXT)
    kernels, before = server.kernels(), count_open(server)
    got = {case: ask_raw(server, sent)[0] for case, (sent, _) in (HOSTILE | ODD).items()}
    assert {case: status for case, (status, _) in got.items()} == {
        c: status for c, (_, status) in (HOSTILE | ODD).items()
    }
    problems = {case: json.loads(body) for case, (_, body) in got.items() if case in HOSTILE}
    assert [
        case for case, body in problems.items() if (body["type"], body["status"]) != ("about:blank", got[case][0])
    ] == []

    texts = [f"{TEXT} {'again ' * n}" for n in range(20)]
    sent = (
        b"".join(post(json.dumps(text).encode(), b"") for text in texts)
        + head("GET", "/nowhere")
        + head("GET", "/ping")
    )
    *scored, missing, ping = ask_raw(server, sent, len(texts) + 2)  # pipelined
    assert [json.loads(body)["value"] for _, body in scored] == [
        server.ask("POST", "/prediction", text).json()["value"] for text in texts
    ]
    assert (missing[0], ping) == (404, (200, '{"status":"ok"}'))

    with load(server) as running:
        for piece in PIECES * 20:  # gone midway
            with connect(server) as connection:
                connection.sendall(piece)
        running.wait_for(50)
    assert {(answer.status, answer.error) for answer in running.answers} == {(200, "")}
    running.assert_own(trained)
    with ThreadPoolExecutor(4) as pool:  # silent, or nearly so
        cases = [(b"", b""), (PIECES[2], b"a"), (PIECES[3], b""), (post(ONE)[:-12], b"a")]
        slow = list(pool.map(lambda case: send_slowly(server, *case), cases))
    assert [answer.split()[1] for _, answer in slow] == [b"408"] * 4
    assert max(seconds for seconds, _ in slow) < 30, server.log.read_text()

    memory = peak_memory(server)
    too_large = server.ask("POST", "/predictions", content=b"[" + b" " * 50_000_000 + b"]")
    assert (too_large.status_code, "2,000,000 bytes" in too_large.json()["detail"]) == (413, True)
    assert peak_memory(server) - memory < 30_000_000

    answers = asyncio.run(ask_at_once(server, 500))
    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 200 OK"}
    server.wait_until(lambda: count_open(server) <= before + STORE_FILES)
    assert server.kernels() == kernels
    assert server.ask("POST", "/prediction", TEXT).json()["label"] == "spam"
    assert server.metric("pinmill_waiting") == 0
    assert ("Traceback" in server.log.read_text(), "defect" in server.log.read_text()) == (False, False)


# A store or a board that is lost


def count_calls(place: Path) -> int:
    """How many rows the call log in this file has; 0 if there is none."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT count(*) FROM calls").fetchone()[0]
    return 0


def test_a_store_that_takes_nothing_fails_no_prediction_and_gets_the_log_later(
    serve: Serve, trained: Workplace, load: type[Load], small_disk: Path
) -> None:
    store = small_disk / "store.sqlite"
    environ = {"PINMILL_STORE": f"sqlite:///{store}"}
    token = trained.pinmill("token", "create", "ann", "--role", "admin", **environ).stdout.split()[-1]
    server = serve(ready=False, **environ)
    server.client.headers["Authorization"] = f"Bearer {token}"
    server.wait_until(server.is_ready, seconds=60)

    with load(server) as running:
        running.wait_for(20)
        with closing(sqlite3.connect(store, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            running.wait_for(100)
            other.execute("ROLLBACK")
    assert {answer.status for answer in running.answers} == {200}
    server.wait_until(lambda: count_calls(store) >= len(running.answers))

    full = small_disk / "full"
    with suppress(OSError), full.open("wb") as junk:
        junk.write(b"x" * 3_000_000)
    with load(server) as running:
        server.wait_until(lambda: server.metric("pinmill_log_failing") == 1)
        running.wait_for(50)
    before = count_calls(store)
    full.unlink()
    server.wait_until(lambda: server.metric("pinmill_log_failing") == 0)
    assert {answer.status for answer in running.answers} == {200}
    server.wait_until(lambda: count_calls(store) > before)
    assert server.metric("pinmill_log_lost") == 0
    log = server.log.read_text()
    assert ("the call log waits in memory" in log, "the call log is written again; 0 rows were lost" in log) == (
        True,
        True,
    )

    for path in small_disk.glob("store.sqlite*"):
        path.unlink()
    with load(server) as running:
        server.wait_until(lambda: count_calls(store) > 0)
    assert {answer.status for answer in running.answers} == {200}
    del server.client.headers["Authorization"]
    assert server.ask("GET", "/metadata").status_code == 401  # a store without tokens opens no doors


def test_a_board_or_store_that_vanishes_is_missed_loudly_and_the_champion_goes_on(
    serve: Serve, trained: Workplace, load: type[Load]
) -> None:
    server, board = serve(), trained.root / "outputs/pins"
    with load(server) as running:
        running.wait_for(20)
        board.rename(board.with_name("away"))
        server.wait_until(lambda: "refused" in server.ask("GET", "/ready").json())
        running.wait_for(50)
        assert server.metric("pinmill_champion_refused") == 1
        board.with_name("away").rename(board)
        server.wait_until(lambda: "refused" not in server.ask("GET", "/ready").json())
        store = trained.root / "outputs/pinmill.sqlite"
        server.wait_until(lambda: count_calls(store) > 0)
        for path in store.parent.glob("pinmill.sqlite*"):
            path.unlink()
        server.wait_until(lambda: count_calls(store) > 0)
    assert {(answer.status, answer.error) for answer in running.answers} == {(200, "")}
    log = server.log.read_text()
    assert log.index("THE CHAMPION IS NOT SERVED: there is no champion") < log.index("the champion is served again")


def test_a_log_on_a_full_disk_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from pinmill.gateway import say

    with monkeypatch.context() as patch, open("/dev/full", "w", buffering=1) as full:
        patch.setattr("sys.stderr", full)
        with pytest.raises(OSError, match="No space left"):
            print("a line", file=full, flush=True)
        say([], "a kernel died and is replaced")
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), full.fileno())  # so that what it holds back can be written


# The end


def find_folders(server: Server) -> list[Path]:
    """The temporary folders of the kernels."""
    words = [psutil.Process(pid).cmdline() for pid in server.kernels()]
    return [Path(each[each.index("-f") + 1]).parent for each in words]


def test_sigterm_under_load_answers_what_was_accepted_and_leaves_nothing(
    serve: Serve, trained: Workplace, load: type[Load]
) -> None:
    add_cells(trained)
    server = serve("--deadline", "60")
    kernels, folders, fifo = server.kernels(), find_folders(server), trained.root / "nap.fifo"
    assert [folder.is_dir() for folder in folders] == [True]
    os.mkfifo(fifo)
    with load(server) as running, ThreadPoolExecutor(1) as pool:
        running.wait_for(100)
        nap = pool.submit(server.ask, "GET", "/nap")
        with fifo.open("w") as end:  # which returns once the cell runs
            ended = time.time()
            server.process.terminate()
            server.wait_until(lambda: not is_open(server))
            end.write("slept")
        assert (nap.result().status_code, nap.result().json()) == (200, "slept")
        code = server.process.wait(60)
    assert code == 0, server.log.read_text()
    lost = [answer for answer in running.answers if answer.status != 200]
    assert [answer for answer in lost if answer.asked < ended or answer.status != 0] == [], server.log.read_text()
    running.assert_own(trained)
    assert ([psutil.pid_exists(pid) for pid in kernels], [folder.exists() for folder in folders]) == ([False], [False])
    with closing(sqlite3.connect(trained.root / "outputs/pinmill.sqlite")) as connection:
        logged = {request for (request,) in connection.execute("SELECT request FROM calls")}
    answered = {answer.response.headers["X-Request-Id"] for answer in running.answers if answer.status == 200}
    assert (len(answered) >= 100, answered - logged) == (True, set())


def test_sigterm_at_the_start_leaves_no_kernel(serve: Serve) -> None:
    server = serve(ready=False)
    server.wait_until(lambda: len(server.kernels()) == 1)
    kernels, folders = server.kernels(), find_folders(server)
    server.process.terminate()
    assert server.process.wait(60) == 0, server.log.read_text()
    assert ([psutil.pid_exists(pid) for pid in kernels], [folder.exists() for folder in folders]) == ([False], [False])


def test_kernels_of_a_killed_service_end_by_themselves(serve: Serve) -> None:
    server = serve("--kernels", "2", ready=False)
    server.wait_until(lambda: len(server.kernels()) == 2 and server.metric("pinmill_kernels") >= 1, seconds=90)
    kernels = [psutil.Process(pid) for pid in server.kernels()]  # one of them may still be starting
    server.process.kill()
    server.process.wait(60)
    _, alive = psutil.wait_procs(kernels, timeout=60)
    assert alive == []
