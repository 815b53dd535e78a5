"""Backup and restore: consistent while everything goes on, and whole or not at all, whatever is killed or damaged."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pinmill.backup
import pins
import pytest
import sqlalchemy as sql
from fsspec.implementations.memory import MemoryFileSystem
from pinmill.backup import list_board, make_backup
from pinmill.board import Board
from pinmill.champion import read_history
from pinmill.errors import BackupError, LockedError, StoreError
from pinmill.project import Project, open_project
from pinmill.prune import find_origins, read_pins
from pinmill.report import hold
from pinmill.restore import restore
from pinmill.runs import read_record
from pinmill.snapshot import TABLES
from pinmill.store import CALLS, LEASES, PREDICTIONS, SCHEMA, Annotation, Store, stamp
from pinmill.tokens import create_token
from waiting import wait_until

if TYPE_CHECKING:
    from conftest import Server, Workplace

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
NO = {"facts": {}, "lineage": {}}


@pytest.fixture(autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of ours from around; locks of object stores in a temporary folder of each test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))


@pytest.fixture
def make_project(tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """A function that makes an empty project, with settings."""
    made: list[Project] = []

    def make(**settings: str) -> Project:
        root = tmp_path / f"place-{len(made)}"
        for name in ("params", "notebooks"):
            (root / name).mkdir(parents=True)
        made.append(open_project(root, settings))
        return made[-1]

    yield make
    for project in made:
        if "store" in vars(project):
            project.store.close()


def project_of(place: Workplace, **settings: str) -> Project:
    return open_project(place.root, settings)


def fill_board(board: Board) -> None:
    """Three pins: tables, JSON, a file; one has two versions."""
    import pandas

    board.write_table("w-data", pandas.DataFrame({"a": [1, 2]}), facts={"rows": 2}, lineage={"run": "r1"}, title="é")
    board.write_json("w-metrics", [1], **NO)
    board.write_json("w-metrics", [2], **NO)
    board.write_file("w-model", b"\0" * 70_000, file_name="model.skops", **NO)


def fill_store(store: Store) -> None:
    """Rows in all tables, some with text that is hard to carry over, and gaps between the ids."""
    odd = {"text": "naïve 'quote' \x1f %s \u2028", "n": 12345678901234567, "f": 0.1234567890123456, "none": None}
    store.add_examples("w", [odd, {"text": "b"}], hashes=["h1", "h2"], origin="o", when=NOW)
    labels = [Annotation("h1", odd, label, f"k{n}", "random", 1.5) for n, label in enumerate(["ham", 3.25, 7, None])]
    ids = store.add_annotations("w", labels, annotator="ann", when=NOW)
    store.retract(ids[1], annotator="ann", when=NOW)
    create_token(store, "shop", "scorer", expires="90d", by="me", when=NOW)
    call = {"workflow": "w", "time": stamp(NOW), "version": "v", "endpoint": "POST /x", "caller": "c", "status": 200}
    call |= {"input_hash": "h1", "milliseconds": 0.1, "request": "req-1"}
    with store.writing() as connection:
        outputs = [{"label": "spam", "value": 0.9}, 1.5, "text", None]
        rows = [call | {"input": odd, "output": each, "cached": n % 2 == 0, "row": n} for n, each in enumerate(outputs)]
        connection.execute(sql.insert(CALLS), rows)
        connection.execute(sql.delete(CALLS).where(CALLS.c.row == 1))
        lease = {"workflow": "w", "hash": "h2", "annotator": "ann", "strategy": "random", "key": "k", "created": "1"}
        connection.execute(sql.insert(LEASES).values(**lease, expires="2"))
        connection.execute(sql.insert(PREDICTIONS).values(key="p", workflow="w", version="v", created="1", output=[1]))


def read_store(project: Project) -> dict[str, list[tuple]]:
    """All rows of all tables."""
    return {t.name: [tuple(row) for row in project.store.read(sql.select(t).order_by(*t.primary_key))] for t in TABLES}


def read_board(board: Board) -> dict[tuple[str, str], tuple[bytes, bytes]]:
    """All versions, each as the bytes of its two files."""
    keys = [(name, version) for name in board.names() for version in board.versions(name)]
    return {key: (board.read_metadata(*key), board.read_file(board.pin(*key))) for key in keys}


def read_files(folder: Path) -> dict[str, bytes]:
    """All files below a folder but locks, by path."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_empty(project: Project) -> None:
    """Nothing was restored, and nothing is left of the attempt."""
    assert read_files(project.outputs) == {}
    assert [path.name for path in project.outputs.glob("*") if path.name != "locks"] == []


def write_archive(file: Path, members: Mapping[str, Any], manifest: Mapping[str, Any] | None = None) -> Path:
    """A backup made by hand: entries as they are, and a manifest that tells all of them."""
    told = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for name, content in members.items()
        if isinstance(content, bytes)
    }
    whole = {"format": 1, "created": NOW.isoformat(), "counts": {}, "members": told} | (manifest or {})
    with tarfile.open(file, "w:gz") as tar:
        for name, content in {**members, "manifest.json": json.dumps(whole).encode()}.items():
            entry = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            entry.size = len(content) if isinstance(content, bytes) else 0
            tar.addfile(entry, io.BytesIO(content) if isinstance(content, bytes) else None)
    return file


# --- there and back


def test_what_was_backed_up_is_there_again_with_the_commands_a_person_uses(
    small_trained: Workplace, tmp_path: Path
) -> None:
    root, file = small_trained.root, tmp_path / "b.tar.gz"
    small_trained.pinmill("run", "small", "--set", "power=2", "--set", "score=0.1", code=3)
    small_trained.pinmill("token", "create", "shop", "--role", "scorer")
    said = small_trained.pinmill("backup", str(file)).stdout
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    size = file.stat().st_size
    assert said == f"{file}: 6 versions, 2 runs, 1 audit, 1 tokens; {size:,} bytes, SHA-256 {sha256}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    noted = json.loads((root / "outputs/backup.json").read_text())
    assert {**noted, "when": ""} == {"file": str(file), "when": "", "sha256": sha256, "size": size}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar.gz", "project"]
    target = small_trained.copy(tmp_path / "elsewhere")
    shutil.rmtree(target.root / "outputs")
    said = target.pinmill("restore", str(file)).stdout
    assert "UTC: 6 versions, 2 runs, 1 audit, 1 tokens\n" in said
    for words in (["runs"], ["models", "small"], ["audit"]):
        assert target.json(*words) == small_trained.json(*words), words
    assert target.json("pins", "verify") == {"checked": 6, "damaged": []}
    assert read_board(project_of(target).board) == read_board(project_of(small_trained).board)
    kept = read_files(root / "outputs/runs")
    assert read_files(target.root / "outputs/runs") == kept
    left = {path.name for path in (target.root / "outputs").iterdir()}
    assert (
        {"pinmill.sqlite", "pins", "runs"} <= left <= {"pinmill.sqlite", "pins", "runs", "locks", *pinmill.backup.STATE}
    )
    target.pinmill("run", "small", "--set", "power=2", "--set", "score=0.1", code=3)
    stages = target.json("runs", "small")[0]["stages"]
    assert [stage["status"] for stage in stages] == ["reused"] * 4


def test_stock_pins_reads_the_restored_board_in_the_same_order(make_project: Callable, tmp_path: Path) -> None:
    given, target = make_project(), make_project()
    fill_board(given.board)
    make_backup(given, tmp_path / "b", force=False, now=NOW)
    restore(target, tmp_path / "b")
    stock = pins.board_folder(target.board.url)
    assert stock.pin_read("w-data").a.tolist() == [1, 2]
    assert stock.pin_read("w-metrics") == [2]
    assert stock.pin_versions("w-metrics")["version"].tolist() == given.board.versions("w-metrics")
    assert target.board.latest("w-metrics") == given.board.latest("w-metrics")
    later = target.board.write_json("w-metrics", [3], **NO)
    assert target.board.latest("w-metrics") == later.version > given.board.latest("w-metrics")


def test_a_board_in_an_object_store_is_backed_up_and_restored(make_project: Callable, tmp_path: Path) -> None:
    given = make_project(PINMILL_BOARD="memory://here/pins")
    target, folder = make_project(PINMILL_BOARD="memory://there/pins"), make_project()
    MemoryFileSystem.store.clear()
    fill_board(given.board)
    make_backup(given, tmp_path / "b", force=False, now=NOW)
    for project in (target, folder):
        restore(project, tmp_path / "b")
        assert read_board(project.board) == read_board(given.board)
        assert [project.board.latest(name) for name in given.board.names()] == [
            given.board.latest(name) for name in given.board.names()
        ]
    with pytest.raises(BackupError, match=r"the board memory://there/pins holds w-data, w-metrics, w-model"):
        restore(target, tmp_path / "b")


@pytest.mark.parametrize("way", ["sqlite postgresql", "postgresql sqlite", "postgresql postgresql", "sqlite sqlite"])
def test_a_store_of_either_kind_is_restored_into_either(
    make_project: Callable, postgres: Callable[[], str], tmp_path: Path, way: str
) -> None:
    made = [make_project(**({"PINMILL_STORE": postgres()} if kind == "postgresql" else {})) for kind in way.split()]
    given, target = made
    fill_store(given.store)
    backup = make_backup(given, tmp_path / "b", force=False, now=NOW)
    assert backup["counts"] == {
        "versions": 0, "runs": 0, "annotations": 5, "audit": 1, "calls": 3, "examples": 2, "leases": 1,
        "predictions": 1, "tokens": 1,
    }  # fmt: skip
    restore(target, tmp_path / "b")
    assert read_store(target) == read_store(given)
    ids = {row[0] for row in read_store(given)["annotations"]}
    (new,) = target.store.add_annotations("w", [Annotation("h9", {}, 1, "new", "given")], annotator="x", when=NOW)
    assert new > max(ids)
    with pytest.raises(BackupError, match="Nothing was changed"):
        restore(target, tmp_path / "b")


def test_a_project_without_anything_has_an_empty_backup(make_project: Callable, tmp_path: Path) -> None:
    target = make_project()
    make_backup(make_project(), tmp_path / "b", force=False, now=NOW)
    assert restore(target, tmp_path / "b")["counts"] == {"versions": 0, "runs": 0}
    assert_empty(target)


def test_a_store_of_an_older_pinmill_is_restored_and_one_of_a_newer_refused(
    make_project: Callable, tmp_path: Path
) -> None:
    given, target = make_project(), make_project()
    fill_store(given.store)
    make_backup(given, tmp_path / "b", force=False, now=NOW)
    with tarfile.open(tmp_path / "b") as tar:
        (tmp_path / "s").write_bytes(tar.extractfile("store.sqlite").read())
    engine = sql.create_engine(f"sqlite:///{tmp_path / 's'}")
    with engine.begin() as connection:
        connection.execute(sql.update(SCHEMA).values(version=99))
    engine.dispose()
    write_archive(tmp_path / "newer", {"store.sqlite": (tmp_path / "s").read_bytes()})
    with pytest.raises(StoreError, match="has version 99; this Pinmill knows"):
        restore(target, tmp_path / "newer")
    assert_empty(target)


def test_while_another_is_at_work_none_begins_and_it_is_said_so(
    make_project: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pinmill.report.LOCK_SECONDS", 0.01)
    project, file = make_project(), tmp_path / "b"
    make_backup(project, file, force=False, now=NOW)
    for begin in (lambda: make_backup(project, file, force=True, now=NOW), lambda: restore(project, file)):
        with hold(project, "backup"), pytest.raises(LockedError, match="another backup or restore is at work") as said:
            begin()
        assert said.value.exit_code == 75
    make_backup(project, file, force=True, now=NOW)


# --- while everything goes on

BUSY = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from pinmill.board import Board
from pinmill.champion import promote, read_champion
from pinmill.project import open_project
from pinmill.prune import prune
from pinmill.store import Annotation

project, n = open_project(Path(sys.argv[1]), {}), 0
board, now = project.board, lambda: datetime.now(UTC)
last = board.pin("tiny-model")
(file,) = last.files
data = board.read_file(last)
while True:
    n += 1
    made = board.write_json("tiny-data", n, facts={}, lineage={"run": f"r{n}"})
    given = [{"kind": "data", "name": made.name, "version": made.version, "sha256": made.sha256}]
    pin = board.write_file(last.name, data, file_name=file, facts=last.facts, lineage={"run": f"r{n}", "inputs": given})
    if n % 5 == 0:
        before = read_champion(board, "tiny").version
        promote(board, "tiny", pin.version, by="me", why="why", expected=before, gate=True, when=now())
    label = Annotation(f"h{n}", {"text": str(n)}, "spam", f"k{n}", "random")
    project.store.add_annotations("tiny", [label], annotator="me", when=now())
    if n % 7 == 0:
        prune(project, keep=2, since=now())
    print(n, flush=True)
"""


def test_a_backup_while_all_goes_on_is_of_one_moment_and_serves_the_same(
    trained: Workplace, serve: Callable[..., Server], load: type, predict_here: Callable, tmp_path: Path
) -> None:
    server = serve("--kernels", "1")
    words = [sys.executable, "-c", BUSY, str(trained.root)]
    backups = []
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=trained.environ()) as busy,
        load(server, 4) as asked,
    ):
        try:
            for n in range(4):
                while int(busy.stdout.readline()) < 6 * (n + 1):
                    pass
                asked.wait_for(4)
                backups.append(tmp_path / f"b{n}.tar.gz")
                trained.pinmill("backup", str(backups[-1]))
        finally:
            busy.kill()
    for n, file in enumerate(backups):
        target = trained.copy(tmp_path / f"elsewhere-{n}")
        shutil.rmtree(target.root / "outputs")
        project = project_of(target)
        restore(project, file)
        assert [problem for key in read_board(project.board) for problem in project.board.verify(*key)] == []
        pins_there, damaged = read_pins(project.board)
        keys = {(pin.name, pin.version) for pin in pins_there}
        champions = {("tiny-model", decision.version) for decision in read_history(project.board, "tiny")}
        assert damaged == {}
        assert len(champions) > n
        origins = {key for key in find_origins(pins_there, champions) if key[0] in project.board.names()}
        assert {f"tiny-{kind}" for kind in ("data", "model", "metrics")} == {name for name, _ in origins}
        assert origins - keys == set()
        called = {version for version in project.store.versions_in_calls("tiny", NOW - timedelta(days=9999)) if version}
        assert {("tiny-model", version) for version in called} <= champions & keys
        labels = project.store.read_annotations("tiny")
        assert labels.hash.tolist() == [f"h{k + 1}" for k in range(len(labels))]
    answers = serve("--kernels", "1", workplace=target)
    texts = ["win a free prize now", "see you at lunch tomorrow"]
    told = [answers.ask("POST", "/prediction", text).json() for text in texts]
    version = target.json("champion", "tiny")["version"]
    assert {each["version"] for each in told} == {version}
    assert [each["probability"] for each in told] == predict_here(trained, version, texts)


def test_a_run_at_work_reads_as_interrupted_after_the_restore(
    small: Workplace, make_project: Callable, tmp_path: Path
) -> None:
    (small.root / "hold-train").touch()
    process = small.start("run", "small")
    try:
        wait_until(lambda: (small.root / "at-train").is_file(), "the stage at work", process=process)
        made = make_backup(project_of(small), tmp_path / "b", force=False, now=NOW)
    finally:
        run = small.json("runs", "small")[0]["run"]
        (small.root / f"release-{run}").touch()
        process.communicate()
    assert made["counts"] == {"versions": 1, "runs": 1}
    target = make_project()
    restore(target, tmp_path / "b")
    record = read_record(target.runs_folder("small"), run)
    assert (record.status, record.ended) == ("interrupted", NOW.isoformat())
    assert [stage.status for stage in record.stages] == ["ran", "interrupted"]


def test_the_board_is_listed_as_it_was_at_one_moment(tmp_path: Path) -> None:
    # pins: a version committed while the board is listed must not be in it without what it was made from
    board, listed = Board(tmp_path / "pins"), []
    for name in ("a-data", "b-model"):
        board.write_json(name, 0, **NO)

    class Growing(Board):
        def versions(self, name: str) -> list[str]:
            found = super().versions(name)
            if name == "a-data" and not listed:
                listed.extend(board.write_json(each, 1, **NO).version for each in ("a-data", "b-model"))
            return found

    assert len(list_board(Growing(tmp_path / "pins"))) == 4


def test_a_board_that_never_stands_still_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Restless(Board):
        def versions(self, name: str) -> list[str]:
            self.write_json(name, 1, **NO)
            return super().versions(name)

    monkeypatch.setattr(pinmill.backup, "PATIENCE", 0.05)
    board = Restless(tmp_path / "pins")
    board.write_json("a", 1, **NO)
    with pytest.raises(BackupError, match="was written to in each moment"):
        list_board(board)


def test_a_version_that_is_pruned_meanwhile_is_left_out_whole(make_project: Callable, tmp_path: Path) -> None:
    project = make_project()
    first = project.board.write_json("w-data", 1, **NO)
    project.board.write_json("w-data", 2, **NO)

    class Pruned(Board):
        def read_file(self, pin: Any) -> bytes:
            if pin.version == first.version:
                project.board.remove(pin.name, pin.version)
            return super().read_file(pin)

    vars(project)["board"] = Pruned(project.board.url)
    made = make_backup(project, tmp_path / "b", force=False, now=NOW)
    assert (made["damaged"], made["counts"]["versions"]) == ([], 1)
    target = make_project()
    restore(target, tmp_path / "b")
    assert target.board.versions("w-data") == project.board.versions("w-data")


def test_a_damaged_version_is_left_out_and_told(small_trained: Workplace, tmp_path: Path) -> None:
    board = project_of(small_trained).board
    pin = board.pin("small-data")
    (Path(board.url) / pin.name / pin.version / "small-data.json").write_text("[7]")
    done = small_trained.pinmill("backup", str(tmp_path / "b"), code=1)
    assert "3 versions, 1 runs" in done.stdout
    assert f"left out: small-data/{pin.version}/small-data.json was changed" in done.stdout


def test_memory_does_not_grow_with_the_board(make_project: Callable, tmp_path: Path) -> None:
    project, target, size = make_project(), make_project(), 2**21
    for n in range(12):
        project.board.write_file("w-model", random.Random(n).randbytes(size), file_name="model.skops", **NO)
    make_backup(project, tmp_path / "warm", force=False, now=NOW)
    tracemalloc.start()
    make_backup(project, tmp_path / "b", force=False, now=NOW)
    restore(target, tmp_path / "b")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * size


# --- whole or not at all


def test_a_file_that_is_there_is_replaced_only_by_force(small: Workplace, tmp_path: Path) -> None:
    file = tmp_path / "b"
    file.write_text("mine")
    assert "is there already" in small.pinmill("backup", str(file), code=4).stderr
    assert file.read_text() == "mine"
    small.pinmill("backup", str(file), "--force")
    assert gzip.decompress(file.read_bytes())
    missing = small.pinmill("backup", str(tmp_path / "no/b"), code=4).stderr
    assert "could not write the backup" in missing


def test_a_full_disk_leaves_no_half_backup_and_the_one_before(small_disk: Path, make_project: Callable) -> None:
    project, file = make_project(), small_disk / "b"
    make_backup(project, file, force=False, now=NOW)
    before = file.read_bytes()
    project.board.write_file("w-model", random.Random(1).randbytes(2**22), file_name="model.skops", **NO)
    with pytest.raises(BackupError, match=r"could not write the backup .*No space left on device; nothing of it"):
        make_backup(project, file, force=True, now=NOW)
    assert [path.name for path in small_disk.iterdir()] == ["b"]
    assert file.read_bytes() == before


def test_a_full_disk_leaves_nothing_of_a_restore(small_disk: Path, make_project: Callable, tmp_path: Path) -> None:
    given = make_project()
    given.board.write_file("w-model", random.Random(1).randbytes(2**22), file_name="model.skops", **NO)
    make_backup(given, tmp_path / "b", force=False, now=NOW)
    target = make_project()
    target.outputs.symlink_to(small_disk)
    with pytest.raises(BackupError, match=r"could not restore .*No space left on device"):
        restore(target, tmp_path / "b")
    assert_empty(target)


@pytest.fixture
def backed_up(small_trained: Workplace, make_project: Callable, tmp_path: Path) -> Path:
    """The backup of a small project, with a store."""
    project = project_of(small_trained)
    fill_store(project.store)
    make_backup(project, tmp_path / "good", force=False, now=NOW)
    return tmp_path / "good"


def test_a_flipped_byte_anywhere_is_refused_or_without_effect(
    backed_up: Path, make_project: Callable, tmp_path: Path
) -> None:
    data, chance, target, taken = backed_up.read_bytes(), random.Random(0), make_project(), []
    good = make_project()
    restore(good, backed_up)
    wanted, file = read_files(good.outputs), tmp_path / "bad"
    for place in [*range(20), *chance.sample(range(20, len(data) - 20), 150), *range(len(data) - 20, len(data))]:
        file.write_bytes(data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :])
        try:
            restore(target, file)
        except BackupError:
            assert_empty(target)
        else:
            taken.append(place)
            assert read_files(target.outputs) == wanted
            assert gzip.decompress(file.read_bytes()) == gzip.decompress(data)
            target = make_project()
    assert len(taken) < 30  # in gzip's date and origin, or a place from which the same bytes are repeated


def test_a_truncated_backup_is_refused_wherever_it_ends(
    backed_up: Path, make_project: Callable, tmp_path: Path
) -> None:
    data, target, file = backed_up.read_bytes(), make_project(), tmp_path / "bad"
    for end in [0, 1, 9, 10, 50, *range(0, len(data), 997), *range(len(data) - 12, len(data))]:
        file.write_bytes(data[:end])
        with pytest.raises(BackupError, match=r"is not a whole backup: .*Nothing was restored"):
            restore(target, file)
    assert_empty(target)
    file.unlink()
    with pytest.raises(BackupError, match=r"there is no file .*bad\. Name one that pinmill backup has written"):
        restore(target, file)
    file.write_bytes(data + b"more")
    with pytest.raises(BackupError, match="is not a whole backup"):
        restore(target, file)
    assert_empty(target)


def make_entry(kind: bytes, name: str, link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    return entry


VERSION = "20260506T070809Z-00000"
HOSTILE = {
    "above": {"pins/../../x": b"x"},
    "above in a name": {"runs/w/../../../x": b"x"},
    "absolute": {"/tmp/x": b"x"},
    "unknown": {"notebooks/serve.ipynb": b"x"},
    "hidden": {"runs/w/.x": b"x"},
    "only a folder's name": {"runs": b"x"},
    "empty part": {"runs//x": b"x"},
    "pin's name": {f"pins/W/{VERSION}/x": b"x"},
    "pin's version": {"pins/w/latest/x": b"x"},
    "pin's file": {f"pins/w/{VERSION}/..": b"x"},
    "control character": {"runs/w/a\nb": b"x"},
    "file and folder": {"runs/w": b"x", "runs/w/x": b"x"},
    "symbolic link": {"runs/x": make_entry(tarfile.SYMTYPE, "runs/x", "/etc")},
    "hard link": {"runs/x": make_entry(tarfile.LNKTYPE, "runs/x", "manifest.json")},
    "device": {"runs/x": make_entry(tarfile.CHRTYPE, "runs/x")},
    "pipe": {"runs/x": make_entry(tarfile.FIFOTYPE, "runs/x")},
    "folder": {"runs/x": make_entry(tarfile.DIRTYPE, "runs/x")},
    "sparse": {"runs/x": make_entry(tarfile.GNUTYPE_SPARSE, "runs/x")},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_member_is_refused_and_nothing_is_restored(make_project: Callable, tmp_path: Path, case: str) -> None:
    target, before = make_project(), set(tmp_path.rglob("*"))
    file = write_archive(tmp_path / "hostile", HOSTILE[case])
    with pytest.raises(BackupError):
        restore(target, file)
    assert_empty(target)
    assert {path for path in tmp_path.rglob("*") if "outputs" not in str(path)} - before == {file}


def test_members_that_the_manifest_does_not_tell_and_other_formats_are_refused(
    make_project: Callable, tmp_path: Path
) -> None:
    target = make_project()
    right = {"sha256": hashlib.sha256(b"x").hexdigest(), "size": 1}
    good = write_archive(tmp_path / "good", {"runs/w/x": b"x"})
    for manifest, said in (
        ({"members": {}}, r"1 members are not as it tells, e\.g\. 'runs/w/x'"),
        ({"members": {"runs/w/x": right, "runs/w/y": right}}, r"1 members are not as it tells, e\.g\. 'runs/w/y'"),
        ({"members": {"runs/w/x": right | {"size": 2}}}, r"1 members are not as it tells"),
        ({"members": {"runs/w/x": right | {"sha256": "00"}}}, r"1 members are not as it tells"),
        ({"members": []}, "is not a whole backup"),
        ({"format": 2}, r"its format is 2; this Pinmill \(.*\) can restore format 1 only"),
        ({"format": None}, "its format is None"),
    ):
        with pytest.raises(BackupError, match=said):
            restore(target, write_archive(tmp_path / "bad", {"runs/w/x": b"x"}, manifest))
    with tarfile.open(tmp_path / "none", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("runs/w/x"))
    for file in (tmp_path / "none", tmp_path / "absent", Path(__file__)):
        with pytest.raises(BackupError):
            restore(target, file)
    assert_empty(target)
    restore(target, good)
    assert (target.outputs / "runs/w/x").read_text() == "x"


def test_a_bomb_is_refused_without_being_laid_out(make_project: Callable, tmp_path: Path) -> None:
    target, entry = make_project(), tarfile.TarInfo("runs/w/x")
    entry.size = 2**28
    with gzip.open(tmp_path / "bomb", "wb", 1) as zipped:
        zipped.write(entry.tobuf())
        for _ in range(2**8):
            zipped.write(bytes(2**20))
        zipped.write(bytes(1024))
    tracemalloc.start()
    with pytest.raises(BackupError):
        restore(target, tmp_path / "bomb")
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert_empty(target)


# --- killed


def kill_after(process: subprocess.Popen, seconds: float) -> int:
    """End a process like a power cut does, unless it was quicker; its exit code."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode


def test_a_backup_killed_at_any_moment_leaves_no_half_file(small_trained: Workplace, tmp_path: Path) -> None:
    file, chance, ends = tmp_path / "b", random.Random(0), []
    for n in range(3):
        data = random.Random(n).randbytes(2**22)
        project_of(small_trained).board.write_file("small-big", data, file_name="model.skops", **NO)
    small_trained.pinmill("backup", str(file))
    for _ in range(12):
        before = file.read_bytes()
        ends.append(kill_after(small_trained.start("backup", str(file), "--force"), chance.uniform(0.3, 1.5)))
        assert file.read_bytes() == before or gzip.decompress(file.read_bytes())
        noted = json.loads((small_trained.root / "outputs/backup.json").read_text())
        assert noted["sha256"] == hashlib.sha256(before).hexdigest() or file.read_bytes() != before
    small_trained.pinmill("backup", str(file), "--force")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "project"]
    assert -signal.SIGKILL in ends


STEPS = """
import os, signal, sys
from pathlib import Path
from pinmill import restore
from pinmill.project import open_project

left, real = int(sys.argv[3]), {"rename": os.rename, "write_json": restore.write_json, "open": Path.open}

def count(name):
    def act(*given, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real[name](*given, **options)
    return act

os.rename, restore.write_json, Path.open = count("rename"), count("write_json"), count("open")
Path.unlink = (lambda unlink: lambda *given, **options: (count("none"), unlink(*given, **options))[1])(Path.unlink)
restore.restore(open_project(Path(sys.argv[1]), {}), Path(sys.argv[2]))
"""


def test_a_restore_killed_at_any_step_is_brought_to_its_end_by_the_next(make_project: Callable, tmp_path: Path) -> None:
    given, good, backed_up = make_project(), make_project(), tmp_path / "b"
    given.board.write_json("w-data", 1, **NO)
    fill_store(given.store)
    (given.outputs / "runs/w").mkdir(parents=True)
    (given.outputs / "runs/w/x").write_text("x")
    make_backup(given, backed_up, force=False, now=NOW)
    restore(good, backed_up)
    wanted, done = read_files(good.outputs), 0
    for steps in count():
        target = make_project()
        words = [sys.executable, "-c", STEPS, str(target.root), str(backed_up), str(steps)]
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
        board = target.outputs / "pins"
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        is_begun = (target.outputs / "restoring.json").is_file()
        assert is_begun or not any((target.outputs / each).exists() for each in ("pins", "runs", "pinmill.sqlite"))
        if is_begun:
            done += 1
            other = write_archive(tmp_path / "other", {"runs/w/x": b"x"})
            with pytest.raises(BackupError, match=r"was killed\. First bring it to its end: pinmill restore"):
                restore(target, other)
        restore(target, backed_up)
        assert read_files(target.outputs) == wanted
        assert board.is_dir()
    assert done >= 3  # between the parts
    assert read_files(target.outputs) == wanted


def test_a_restore_into_postgresql_that_was_killed_after_the_rows_goes_on(
    backed_up: Path, make_project: Callable, postgres: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = make_project(PINMILL_STORE=postgres(), PINMILL_BOARD="memory://killed/pins")
    MemoryFileSystem.store.clear()
    with monkeypatch.context() as patch:
        patch.setattr(pinmill.restore, "upload", lambda *_: os.listdir("/no such folder"))
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(BackupError, match="then give the same command again"):
            restore(target, backed_up)
    restore(target, backed_up)
    good = make_project()
    restore(good, backed_up)
    assert read_store(target) == read_store(good)
    assert read_board(target.board) == read_board(good.board)


def test_only_a_project_without_board_store_and_runs_is_restored_into(backed_up: Path, make_project: Callable) -> None:
    for name in ("pins/w-data/x", "runs/w/x", "pinmill.sqlite", "pinmill.sqlite-wal"):
        target = make_project()
        (target.outputs / name).parent.mkdir(parents=True)
        (target.outputs / name).write_text("mine")
        with pytest.raises(BackupError, match=f"{target.outputs / name.split('/')[0]} is .*Nothing was changed"):
            restore(target, backed_up)
        assert read_files(target.outputs) == {name: b"mine"}


def test_incidents_and_the_schedule_that_are_there_stay(
    small_trained: Workplace, make_project: Callable, tmp_path: Path
) -> None:
    given, target = project_of(small_trained), make_project()
    for project, text in ((given, "theirs"), (target, "mine")):
        (project.outputs / "schedule").mkdir(parents=True)
        (project.outputs / "schedule/installed.json").write_text(text)
    (given.outputs / "incidents").mkdir()
    (given.outputs / "incidents/w.train.json").write_text("[]")
    (given.outputs / "incidents/w.train.lock").write_text("")
    make_backup(given, tmp_path / "b", force=False, now=NOW)
    restore(target, tmp_path / "b")
    assert (target.outputs / "schedule/installed.json").read_text() == "mine"
    assert read_files(target.outputs / "incidents") == {"w.train.json": b"[]"}
