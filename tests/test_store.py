"""The store with real files, real processes, real kills and a real full disk."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sql
from pinmill import store as module
from pinmill.errors import DataError, StoreError
from pinmill.store import CALLS, UPGRADES, Annotation, Store

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SAY = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from pinmill import store as module
from pinmill.store import Annotation, Store

def say(store, key):
    given = [Annotation(key, {"text": f"text {key}"}, "spam", key, "random")]
    return store.add_annotations("w", given, annotator="ann", when=datetime.now(UTC))[0]

store = Store(Path(sys.argv[1]))
"""
FOREVER = """
number = 0
while True:
    key = f"{sys.argv[2]}-{number}"
    print(say(store, key), key, flush=True)
    number += 1
"""
SOME = """
sys.stdin.readline()
for number in range(20):
    say(store, f"shared-{number}")
    say(store, f"{sys.argv[2]}-{number}")
"""
ADD_COLUMN = """
module.UPGRADES.append(lambda connection: connection.exec_driver_sql("ALTER TABLE examples ADD COLUMN extra TEXT"))
sys.stdin.readline()
print(len(store.read_examples("w")), say(store, sys.argv[2]))
"""

VERSION_1 = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE examples (id INTEGER NOT NULL, workflow TEXT NOT NULL, hash TEXT NOT NULL, origin TEXT NOT NULL,
    created TEXT NOT NULL, record JSON NOT NULL, PRIMARY KEY (id), UNIQUE (workflow, hash));
CREATE TABLE annotations (id INTEGER NOT NULL, workflow TEXT NOT NULL, hash TEXT NOT NULL, annotator TEXT NOT NULL,
    created TEXT NOT NULL, note TEXT NOT NULL, "key" TEXT NOT NULL, strategy TEXT NOT NULL, record JSON NOT NULL,
    label JSON, seconds FLOAT, retracts INTEGER, PRIMARY KEY (id), UNIQUE (workflow, "key"));
CREATE INDEX by_id ON annotations (workflow, id);
CREATE TABLE calls (id INTEGER NOT NULL, workflow TEXT NOT NULL, time TEXT NOT NULL, version TEXT NOT NULL,
    endpoint TEXT NOT NULL, caller TEXT NOT NULL, input_hash TEXT NOT NULL, status INTEGER NOT NULL, input JSON,
    output JSON, milliseconds FLOAT NOT NULL, cached BOOLEAN NOT NULL, PRIMARY KEY (id));
CREATE INDEX by_time ON calls (workflow, time);
CREATE TABLE predictions ("key" TEXT NOT NULL, workflow TEXT NOT NULL, version TEXT NOT NULL, created TEXT NOT NULL,
    output JSON NOT NULL, PRIMARY KEY ("key"));
CREATE TABLE tokens (id INTEGER NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL, hash TEXT NOT NULL,
    created TEXT NOT NULL, expires TEXT, revoked TEXT, PRIMARY KEY (id), UNIQUE (name), UNIQUE (hash));
INSERT INTO schema_version VALUES (1);
INSERT INTO examples VALUES (7, 'w', 'h', 'file x', '2026', '{"text": "a"}');
INSERT INTO annotations VALUES (5, 'w', 'h', 'ann', '2026', '', 'k', 'random', '{"text": "a"}', '"spam"', 2.5, NULL);
INSERT INTO calls VALUES (3, 'w', '2027', 'v', 'GET /', 'x', 'h', 200, NULL, '{"a": 1}', 1.5, 1);
INSERT INTO predictions VALUES ('key', 'w', 'v', '2026', '1');
INSERT INTO tokens VALUES (2, 'shop', 'scorer', 'ff', '2026', '2027', NULL);
"""  # what Pinmill wrote before calls had requests


def start(code: str, path: Path, name: object) -> subprocess.Popen:
    """A process that runs SAY and then `code`."""
    words = [sys.executable, "-c", SAY + code, str(path), str(name)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def start_together(code: str, path: Path, n: int) -> list[str]:
    """What `n` processes print that began at the same moment; each must end well."""
    processes = [start(code, path, number) for number in range(n)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * n
    return printed


def annotation(key: str, label: object = "spam", **more: object) -> Annotation:
    return Annotation(**{"hash": f"hash-{key}", "record": {"text": key}, "label": label, "key": key} | more)


def say(store: Store, *keys: str, label: object = "spam", annotator: str = "ann") -> list[int]:
    given = [annotation(key, label, strategy="random") for key in keys]
    return store.add_annotations("w", given, annotator=annotator, when=NOON)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "outputs" / "pinmill.sqlite")
    yield store
    store.close()


def test_reading_a_store_that_is_not_there_gives_nothing_and_makes_no_file(store: Store, tmp_path: Path) -> None:
    assert (len(store.read_annotations("w")), len(store.read_examples("w"))) == (0, 0)
    assert (store.latest_annotation("w"), store.versions_in_calls("w", NOON)) == (0, set())
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_a_store_without_anything(store: Store, tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()  # what a kill leaves between making the file and its tables
    (tmp_path / "outputs" / "pinmill.sqlite").touch()
    assert store.latest_annotation("w") == 0
    assert say(store, "a") == [1]


def test_what_was_given_is_read_as_it_was(store: Store) -> None:
    when = datetime(2026, 11, 20, 13, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))
    given = Annotation("h", {"text": "tëxt \ud83d", "n": 1, "x": None}, 1, "k", "uncertainty", 2.5, "sure?")
    assert store.add_annotations("w", [given], annotator="ann", when=when) == [1]
    assert store.read_annotations("w").to_dict("records") == [
        {
            "id": 1, "workflow": "w", "hash": "h", "annotator": "ann", "created": "2026-11-20T12:00:00.000005+00:00",
            "note": "sure?", "key": "k", "strategy": "uncertainty", "label": 1,
            "record": {"text": "tëxt \ud83d", "n": 1, "x": None}, "seconds": 2.5, "retracts": None,
        }
    ]  # fmt: skip


@pytest.mark.parametrize("label", ["spam", "1", 1, 0, 1.5, True, None])
def test_a_label_keeps_its_type(store: Store, label: object) -> None:
    say(store, "a", label=label)
    read = store.read_annotations("w")["label"].tolist()
    assert (read, [type(value) for value in read]) == ([label], [type(label)])


def test_workflows_do_not_see_each_other(store: Store) -> None:
    say(store, "a")
    assert store.add_annotations("v", [annotation("a", strategy="given")], annotator="ann", when=NOON) == [2]
    assert [store.read_annotations(name)["id"].tolist() for name in ("w", "v", "x")] == [[1], [2], []]
    assert [store.latest_annotation(name) for name in ("w", "v", "x")] == [1, 2, 0]


def test_a_repeated_key_is_the_same_label(store: Store) -> None:
    assert say(store, "a", "b", "a") == [1, 2, 1]
    assert say(store, "c", "b", label="ham") == [3, 2]
    assert store.read_annotations("w")["label"].tolist() == ["spam", "spam", "ham"]


def test_examples_are_known_by_their_hash(store: Store) -> None:
    rows = [{"text": "a"}, {"text": "b"}, {"text": "a "}]
    assert store.add_examples("w", rows, hashes=["1", "2", "1"], origin="file x", when=NOON) == (2, 1)
    assert store.add_examples("w", rows[:1], hashes=["3"], origin="API", when=NOON) == (1, 0)
    assert store.add_examples("v", rows[:1], hashes=["1"], origin="API", when=NOON) == (1, 0)
    read = store.read_examples("w")[["hash", "record", "origin"]]
    expected = [["1", {"text": "a "}, "file x"], ["2", {"text": "b"}, "file x"], ["3", {"text": "a"}, "API"]]
    assert read.values.tolist() == expected


def test_more_rows_than_a_database_takes_values_in_one_query(store: Store) -> None:
    hashes = [str(number) for number in range(40_000)]  # SQLite takes 32,766
    rows = [{"n": number} for number in range(40_000)]
    assert store.add_examples("w", rows, hashes=hashes, origin="file", when=NOON) == (40_000, 0)
    assert store.add_examples("w", rows, hashes=hashes, origin="file", when=NOON) == (0, 40_000)


def test_a_retraction_is_appended_and_made_once(store: Store) -> None:
    say(store, "a", "b")
    assert [store.retract(1, annotator="bob", when=NOON) for _ in range(2)] == [3, 3]
    rows = store.read_annotations("w")[["id", "hash", "annotator", "label", "retracts"]].values.tolist()
    a, b = [1, "hash-a", "ann", "spam", None], [2, "hash-b", "ann", "spam", None]
    assert rows == [a, b, [3, "hash-a", "bob", None, 1]]
    assert store.latest_annotation("w") == 3


@pytest.mark.parametrize("number", [2, 7])
def test_only_a_label_can_be_retracted(store: Store, number: int) -> None:
    say(store, "a")
    store.retract(1, annotator="ann", when=NOON)
    with pytest.raises(StoreError, match=f"annotation {number} cannot be retracted: no label has that id"):
        store.retract(number, annotator="ann", when=NOON)


def test_a_batch_with_an_unknown_strategy_adds_nothing(store: Store) -> None:
    with pytest.raises(DataError, match="strategy is guess; it must be one of random, uncertainty"):
        store.add_annotations("w", [annotation("a", strategy="guess")], annotator="ann", when=NOON)
    assert len(store.read_annotations("w")) == 0


def test_versions_in_calls_are_those_since_a_time(store: Store) -> None:
    call = {"workflow": "w", "endpoint": "/predict", "caller": "x", "input_hash": "h", "status": 200, "cached": False}
    times = [NOON - timedelta(microseconds=1), NOON, NOON + timedelta(days=1)]
    rows = [
        {**call, "time": module.stamp(time), "version": version, "milliseconds": 1.0}
        for time, version in zip(times, ["old", "new", "newer"], strict=True)
    ]
    with store.writing() as connection:
        connection.execute(sql.insert(CALLS), rows)
    assert store.versions_in_calls("w", NOON) == {"new", "newer"}
    assert store.versions_in_calls("v", NOON) == set()


def test_every_acknowledged_label_survives_kill_9(store: Store, tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "outputs" / "pinmill.sqlite", {}
    for round_, lines in enumerate([1, 7, 30, 100]):
        with start(FOREVER, path, round_) as process:
            said = [process.stdout.readline() for _ in range(lines)]
            process.send_signal(signal.SIGKILL)
            said += process.stdout.readlines()  # what it had said before the kill reached it
        words = [line.split() for line in said if line.endswith("\n")]
        acknowledged |= {key: int(number) for number, key in words}
        read = store.read_annotations("w")
        there = dict(zip(read["key"], read["id"], strict=True))
        assert {key: there.get(key) for key in acknowledged} == acknowledged
        assert len(there) - len(acknowledged) <= round_ + 1  # at most the label in the air at each kill
    assert len(acknowledged) >= 138


def test_eight_processes_at_once_lose_and_double_nothing(store: Store, tmp_path: Path) -> None:
    start_together(SOME, tmp_path / "outputs" / "pinmill.sqlite", 8)  # they make the store, too
    names = [*range(8), "shared"]
    expected = sorted(f"{name}-{number}" for name in names for number in range(20))
    read = store.read_annotations("w")
    assert sorted(read["key"]) == expected
    assert read["id"].tolist() == list(range(1, 181))


def test_an_older_store_is_brought_forward_once_by_whoever_comes_first(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "outputs" / "pinmill.sqlite"
    store.add_examples("w", [{"text": "a"}], hashes=["1"], origin="file", when=NOON)
    printed = start_together(ADD_COLUMN, path, 4)  # a second ADD COLUMN would fail
    assert sorted(line.split() for line in printed) == [["1", str(number)] for number in range(1, 5)]
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(4,)]
        assert connection.execute("SELECT hash, extra FROM examples").fetchall() == [("1", None)]
    connection.close()


def describe_tables(path: Path) -> dict[str, set]:
    """The columns and indexes of every table, in no order, as SQLite knows them."""
    found, connection = {}, sqlite3.connect(path)
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        indexes = connection.execute(f"PRAGMA index_list({table})").fetchall()
        columns = {row[1:] for row in connection.execute(f"PRAGMA table_info({table})")}
        keys = [(row[1], connection.execute(f"PRAGMA index_info({row[1]})").fetchall()) for row in indexes]
        found[table] = columns | {(name, *(column for _, _, column in key)) for name, key in keys}
    connection.close()
    return found


def test_a_store_of_version_1_comes_forward_with_all_its_rows(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1)
    connection.close()
    old = Store(path)
    assert old.read_examples("w").values.tolist() == [[7, "w", "h", "file x", "2026", {"text": "a"}]]
    rows = old.read_annotations("w")[["id", "key", "label", "seconds", "retracts"]].values.tolist()
    assert rows == [[5, "k", "spam", 2.5, None]]
    call = (3, "w", "2027", "v", "GET /", "x", "h", 200, None, {"a": 1}, 1.5, True, "", 0)
    assert [tuple(row) for row in old.read(sql.select(CALLS))] == [call]
    assert [tuple(row) for row in old.read(sql.select(module.PREDICTIONS))] == [("key", "w", "v", "2026", 1)]
    token = (2, "shop", "scorer", "ff", "2026", "2027", None, "")
    assert [tuple(row) for row in old.read(sql.select(module.TOKENS))] == [token]
    assert old.read(sql.select(module.AUDIT)) == []
    assert say(old, "b") == [6]
    say(store, "a")
    fresh = describe_tables(tmp_path / "outputs" / "pinmill.sqlite")
    assert describe_tables(path) == fresh
    assert {"calls", "audit", "schema_version"} < {*fresh}


def test_an_upgrade_that_fails_leaves_the_store_as_it_was(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    say(store, "a")

    def upgrade(connection: sql.Connection) -> None:
        connection.exec_driver_sql("ALTER TABLE examples ADD COLUMN extra TEXT")
        raise RuntimeError("half done")

    monkeypatch.setattr(module, "UPGRADES", [*UPGRADES, upgrade])
    with pytest.raises(RuntimeError, match="half done"):
        store.read_annotations("w")
    again = [*UPGRADES, lambda connection: connection.exec_driver_sql("ALTER TABLE examples ADD COLUMN extra TEXT")]
    monkeypatch.setattr(module, "UPGRADES", again)
    assert store.read_annotations("w")["key"].tolist() == ["a"]


def test_a_store_of_a_newer_pinmill_is_refused(store: Store) -> None:
    say(store, "a")
    with store.writing() as connection:
        connection.execute(sql.update(module.SCHEMA).values(version=9))
    for use in (lambda: store.latest_annotation("w"), lambda: say(store, "b")):
        with pytest.raises(StoreError) as caught:
            use()
        said = "has version 9; this Pinmill knows 3. A newer one wrote it: upgrade this one"
        assert str(caught.value) == f"the store {store.where} {said}"


def test_a_full_disk_leaves_nothing_half_written(small_disk: Path) -> None:
    store, path = Store(small_disk / "pinmill.sqlite"), small_disk / "pinmill.sqlite"
    say(store, "before")
    rows = [{"text": "x" * 1000} for _ in range(5000)]
    with pytest.raises(StoreError) as caught:
        store.add_examples("w", rows, hashes=[str(n) for n in range(5000)], origin="file", when=NOON)
    said = "database or disk is full. Make room on its disk, then try again"
    assert str(caught.value) == f"could not write to the store {path}: {said}"
    again = Store(path)
    assert (len(again.read_examples("w")), again.read_annotations("w")["key"].tolist()) == (0, ["before"])
    assert again.add_examples("w", rows[:5], hashes=list("abcde"), origin="file", when=NOON) == (5, 0)


def test_a_disk_that_cannot_be_written_is_told(small_disk: Path) -> None:
    store = Store(small_disk / "pinmill.sqlite")
    say(store, "before")
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StoreError, match="Allow this user to write the file and its folder"):
        say(Store(small_disk / "pinmill.sqlite"), "after")


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "pinmill.sqlite"
    path.write_text("this is no database, but long enough to be taken for one\n" * 20)
    step = "file is not a database. It is damaged or another kind of file: restore a backup, or move it away"
    with pytest.raises(StoreError) as caught:
        Store(path).read_annotations("w")
    assert str(caught.value) == f"could not read the store {path}: {step}"


def test_a_writer_that_does_not_stop_is_told(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say(store, "a")
    monkeypatch.setattr(module, "BUSY", 0.05)
    with store.writing(), pytest.raises(StoreError) as caught:
        say(Store(tmp_path / "outputs" / "pinmill.sqlite"), "b")
    said = "database is locked. Another process does not stop writing: end it, or try again"
    assert str(caught.value) == f"could not write to the store {store.where}: {said}"
    assert store.read_annotations("w")["key"].tolist() == ["a"]


def test_readers_do_not_wait_for_a_writer(store: Store, tmp_path: Path) -> None:
    say(store, "a")
    with store.writing():
        assert Store(tmp_path / "outputs" / "pinmill.sqlite").latest_annotation("w") == 1


@pytest.mark.parametrize(
    "url", ["nonsense://ann:hunter2@host/x", "mysql://ann:hunter2/x@host/x", "mysql://ann:x@y:hunter2@host/x"]
)
def test_no_error_shows_a_password(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        Store(url).latest_annotation("w")
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).startswith(f"PINMILL_STORE is {url.partition(':')[0]}://***@host/x: a SQLAlchemy URL was")


def test_tables_of_somebody_else_are_not_taken_for_ours(store: Store, tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    with sqlite3.connect(tmp_path / "outputs" / "pinmill.sqlite") as connection:
        connection.execute("CREATE TABLE examples (mine TEXT)")
    connection.close()
    with pytest.raises(StoreError, match="table examples already exists"):
        say(store, "a")


def test_a_table_comes_as_a_frame_with_all_columns_also_when_empty(store: Store) -> None:
    say(store, "a")
    pd.testing.assert_index_equal(store.read_annotations("x").columns, store.read_annotations("w").columns)
