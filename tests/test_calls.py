"""The call log with real stores, locks, kills and a real full disk."""

import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pinmill import calls as module
from pinmill import store as store_module
from pinmill.calls import Writer, find_call, read_calls, write_rows
from pinmill.store import CALLS, PREDICTIONS, Store, stamp
from waiting import wait_until

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
ENDLESS = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from pinmill.calls import Writer
from pinmill.store import CALLS, Store, stamp
sys.path.insert(0, sys.argv[2])
from test_calls import call

writer, number = Writer(Store(Path(sys.argv[1]))), 0
while True:
    writer.add(CALLS, call(number))
    print(number, time.monotonic(), flush=True)
    number += 1
    time.sleep(0.0005)
"""


def call(row: int = 0, **more: object) -> dict:
    return {
        "workflow": "w", "time": stamp(NOON + timedelta(seconds=row)), "version": "v", "endpoint": "POST /predictions",
        "caller": "shop", "input_hash": f"{row:032x}", "status": 200, "input": None, "output": '{"label": "spam"}',
        "milliseconds": 1.5, "cached": False, "request": "req-00000001", "row": row,
    } | more  # fmt: skip


def read(path: Path, **more: object) -> list[dict]:
    return read_calls(Store(path), "w", **{"caller": None, "since": NOON, "limit": 1_000_000} | more)


def rows_in(path: Path, **more: object) -> list[int]:
    return [row["row"] for row in read(path, **more)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "pinmill.sqlite"


def test_a_row_is_read_as_it_was_given_with_its_json_parsed(path: Path) -> None:
    writer = Writer(Store(path))
    given = call(input='{"text": "tëxt"}', output='[1, null, "x"]', cached=True, caller="")
    writer.add(CALLS, given)
    writer.close()
    assert read(path) == [{"id": 1, **given, "input": {"text": "tëxt"}, "output": [1, None, "x"]}]
    connection = sqlite3.connect(path)  # the text as it was handed over, not dumped again
    assert connection.execute("SELECT input, output FROM calls").fetchall() == [('{"text": "tëxt"}', '[1, null, "x"]')]
    connection.close()


def test_rows_are_written_by_themselves_while_more_come(path: Path) -> None:
    writer = Writer(Store(path))
    writer.add(CALLS, call(0))
    wait_until(lambda: rows_in(path) == [0])
    writer.add(CALLS, call(1))
    wait_until(lambda: rows_in(path) == [0, 1])
    writer.close()


def test_close_writes_all_rows_of_all_tables_in_order(path: Path) -> None:
    writer, n = Writer(Store(path)), 2 * module.BATCH + 7
    for number in range(n):
        writer.add(CALLS, call(number))
        prediction = {"key": str(number), "workflow": "w", "version": "v", "created": stamp(NOON), "output": "1"}
        writer.add(PREDICTIONS, prediction)
    writer.close()
    assert rows_in(path) == list(range(n))
    assert len(Store(path).read(PREDICTIONS.select())) == n
    assert (writer.lost, writer.failing) == (0, "")


def test_many_threads_add_and_nothing_is_lost_or_doubled(path: Path) -> None:
    writer = Writer(Store(path))

    def add_some(start: int) -> None:
        for number in range(start, start + 5000):
            writer.add(CALLS, call(number))

    threads = [threading.Thread(target=add_some, args=(5000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert sorted(rows_in(path)) == list(range(20_000))


def test_a_row_that_no_database_takes_is_lost_alone(path: Path) -> None:
    wrong = [call(1, time=None), call(2, caller="\ud83d"), call(3, status=2**70), call(4, caller=object()), {"row": 5}]
    rows = [call(0), *wrong, None, *map(call, range(6, 200))]
    assert write_rows(Store(path), [(CALLS, row) for row in rows]) == 6
    assert rows_in(path) == [0, *range(6, 200)]


def test_refused_rows_are_counted_and_said(path: Path, capsys) -> None:
    writer = Writer(Store(path))
    for row in (call(0), call(1, time=None), call(2)):
        writer.add(CALLS, row)
    writer.close()
    assert (rows_in(path), writer.lost, writer.failing) == ([0, 2], 1, "")
    said = "pinmill: 1 rows of the call log are lost: the database refuses what they hold\n"
    assert capsys.readouterr().err == said


def test_an_error_output_that_cannot_be_written_stops_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BUSY", 0.05)
    monkeypatch.setattr(module, "RETRY", 0.05)
    path.parent.mkdir()
    with open(path.parent / "log", "w") as log:
        monkeypatch.setattr(sys, "stderr", log)
    with Store(path).writing():
        writer = Writer(Store(path))
        writer.add(CALLS, call(0))
        wait_until(lambda: writer.failing != "")
    writer.close()
    assert rows_in(path) == [0]


def test_a_locked_store_delays_rows_and_loses_none(path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(store_module, "BUSY", 0.05)
    monkeypatch.setattr(module, "RETRY", 0.05)
    writer = Writer(Store(path))
    writer.add(CALLS, call(0))
    wait_until(lambda: rows_in(path) == [0])
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    slowest, number = 0.0, 0
    while "locked" not in writer.failing or number < 1000:
        began, number = time.perf_counter(), number + 1
        writer.add(CALLS, call(number))
        slowest = max(slowest, time.perf_counter() - began)
        time.sleep(0.0001)
    attempts = capsys.readouterr().err.splitlines()
    lock.execute("ROLLBACK")
    lock.close()
    wait_until(lambda: writer.failing == "")
    writer.close()
    assert rows_in(path) == list(range(number + 1))
    assert (writer.lost, slowest < 0.04) == (0, True)
    assert len(attempts) == 1  # however often it was tried
    assert attempts[0].startswith("pinmill: the call log waits in memory (")
    assert "0 lost): could not write to the store" in attempts[0]
    assert capsys.readouterr().err == "pinmill: the call log is written again; 0 rows were lost since the start\n"


def test_beyond_its_bound_rows_are_lost_and_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BUSY", 0.05)
    monkeypatch.setattr(module, "RETRY", 0.05)
    monkeypatch.setattr(module, "LIMIT", 100)
    with Store(path).writing():
        writer = Writer(Store(path))
        for number in range(60):
            writer.add(CALLS, call(number))
        wait_until(lambda: writer.failing != "")
        for number in range(60, 160):
            writer.add(CALLS, call(number))
        assert writer.lost == 60
    writer.close()
    assert (rows_in(path), writer.lost) == (list(range(100)), 60)


def test_close_does_not_wait_for_ever_and_says_what_is_lost(path: Path, capsys) -> None:
    with Store(path).writing():
        writer = Writer(Store(path))
        writer.add(CALLS, call(0))
        writer.close(timeout=0.05)
        writer.add(CALLS, call(1))
    assert writer.lost == 2
    assert capsys.readouterr().err.startswith("pinmill: 1 rows of the call log are lost: ")


def test_a_full_disk_costs_nothing_that_memory_can_hold(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY", 0.05)
    path = small_disk / "pinmill.sqlite"
    writer = Writer(Store(path))
    writer.add(CALLS, call(0))
    wait_until(lambda: rows_in(path) == [0])
    (small_disk / "filler").write_bytes(b"x" * 1_200_000)
    long = json.dumps("x" * 2000)
    for number in range(1, 401):
        writer.add(CALLS, call(number, output=long))
    wait_until(lambda: "full" in writer.failing)
    assert "Make room on its disk, then try again" in writer.failing
    (small_disk / "filler").unlink()
    wait_until(lambda: writer.failing == "")
    writer.close()
    assert (writer.lost, len(rows_in(path))) == (0, 401)


def test_a_damaged_store_never_raises_and_recovers_when_it_is_restored(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY", 0.05)
    path.parent.mkdir()
    path.write_text("this is no database, but long enough to be taken for one\n" * 20)
    writer = Writer(Store(path))
    writer.add(CALLS, call(0))
    wait_until(lambda: "not a database" in writer.failing)
    path.unlink()
    wait_until(lambda: writer.failing == "")
    writer.close()
    assert (rows_in(path), writer.lost) == ([0], 0)


def test_kill_9_costs_at_most_the_last_half_second(path: Path) -> None:
    words = [sys.executable, "-c", ENDLESS, str(path), str(Path(__file__).parent)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        said = [process.stdout.readline() for _ in range(3000)]
        killed = time.monotonic()
        process.send_signal(signal.SIGKILL)
        said += [line for line in process.stdout if line.endswith("\n")]
    added = {int(number): float(at) for number, at in map(str.split, said)}
    there = rows_in(path)
    assert there == list(range(len(there)))  # and nothing in between is missing
    assert [number for number, at in added.items() if at < killed - 0.5 and number >= len(there)] == []
    assert len(there) > 100


def test_calls_are_read_in_pages_of_the_caller_since_a_time(path: Path) -> None:
    callers = ["shop", "bank", "shop", "shop", "bank"]
    rows = [(CALLS, call(number, caller=caller)) for number, caller in enumerate(callers)]
    write_rows(Store(path), [*rows, (CALLS, call(9, workflow="x"))])
    second = NOON + timedelta(seconds=1)
    assert rows_in(path) == [0, 1, 2, 3, 4]
    assert rows_in(path, since=second) == [1, 2, 3, 4]
    assert rows_in(path, since=second, caller="shop") == [2, 3]
    pages, after = [], 0
    while page := read(path, after=after, limit=2):
        pages.append([row["row"] for row in page])
        after = page[-1]["id"]
    assert pages == [[0, 1], [2, 3], [4]]


def test_a_page_is_found_without_sorting_what_is_left(path: Path) -> None:
    write_rows(Store(path), [(CALLS, call())])
    asked, connection = [], sqlite3.connect(path)

    class Asked(Store):
        def read(self, query):
            asked.append(str(query.compile(dialect=self._engine.dialect, compile_kwargs={"literal_binds": True})))
            return super().read(query)

    read_calls(Asked(path), "w", caller="shop", since=NOON, after=1, limit=2)
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {asked[0]}")]
    connection.close()
    assert plan == ["SEARCH calls USING INTEGER PRIMARY KEY (rowid>?)"]


def test_a_call_is_found_by_its_id_with_the_number_of_its_rows(path: Path) -> None:
    other = call(0, request="req-00000002")
    write_rows(Store(path), [(CALLS, call(number)) for number in (2, 1, 0, 3)] + [(CALLS, other)])
    n, rows = find_call(Store(path), "req-00000001", limit=3)
    assert (n, [row["row"] for row in rows]) == (4, [0, 1, 2])
    assert find_call(Store(path), "req-00000003", limit=3) == (0, [])
    assert find_call(Store(path.with_name("none")), "req-00000001", limit=3) == (0, [])
