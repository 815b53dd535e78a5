"""The board: atomic, verified, ordered, and readable by stock pins. Ours is tested, never the peer's faults."""

import ast
import contextlib
import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pinmill.board
import pins
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pinmill.board import Board
from pinmill.errors import BoardError, DataError, IntegrityError, LockedError, PinNameError, PinNotFoundError
from pinmill.pin import SEAL, Pin
from pinmill.version import next_version

LIB = Path(pinmill.board.__file__).parents[1]
NOW = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
NO = {"facts": {}, "lineage": {}}


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of object stores stand in the temporary folder: each test has its own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))


def python(code: str, *arguments: object) -> subprocess.Popen:
    """A Python process of its own that runs `code`; its input and output are ours."""
    environment = {**os.environ, "PYTHONPATH": str(LIB)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def stock_latest(folder: Path, name: str) -> str:
    return pins.board_folder(str(folder)).pin_meta(name).version.version


def stock_versions(folder: Path, name: str) -> list[str]:
    return pins.board_folder(str(folder)).pin_versions(name)["version"].tolist()


def staged(folder: Path) -> list[str]:
    """What writers of the board have under way, or left behind."""
    return sorted(path.name for path in folder.with_name(folder.name + ".staging").iterdir() if path.is_dir())


def seal(body: bytes) -> bytes:
    return body + SEAL + hashlib.sha256(body).hexdigest().encode() + b"\n"


def reseal(path: Path, old: bytes, new: bytes) -> None:
    body = path.read_bytes().rpartition(SEAL)[0]
    assert old in body
    path.write_bytes(seal(body.replace(old, new)))


# --- what is written, and what stock pins makes of it


def test_stock_pins_reads_tables_and_json_and_downloads_files(tmp_path: Path) -> None:
    board, stock = Board(tmp_path / "pins"), pins.board_folder(str(tmp_path / "pins"))
    frame = pd.DataFrame({"text": ["é", "{{< env X >}}"], "n": [1, 2], "x": [0.5, np.nan]}, index=[7, 8])
    board.write_table("spam-data", frame, **NO)
    board.write_json("spam-metrics", {"f1": np.float64(0.25), "low": np.nan, "by": ("a", "b")}, **NO)
    board.write_file("spam-model", b"\x00\x01model", file_name="model.skops", **NO)

    pd.testing.assert_frame_equal(stock.pin_read("spam-data"), frame.reset_index(drop=True))
    pd.testing.assert_frame_equal(board.read_table(board.pin("spam-data")), frame.reset_index(drop=True))
    pd.testing.assert_frame_equal(
        board.read_table(board.pin("spam-data"), columns=["x", "n"]), frame[["x", "n"]].reset_index(drop=True)
    )
    assert stock.pin_read("spam-metrics") == {"f1": 0.25, "low": None, "by": ["a", "b"]}
    assert board.read_json(board.pin("spam-metrics")) == {"f1": 0.25, "low": None, "by": ["a", "b"]}
    (downloaded,) = stock.pin_download("spam-model")
    assert Path(downloaded).read_bytes() == board.read_file(board.pin("spam-model")) == b"\x00\x01model"
    assert sorted(stock.pin_list()) == board.names() == ["spam-data", "spam-metrics", "spam-model"]


def test_stock_pins_reads_our_metadata_with_its_own_hash(tmp_path: Path) -> None:
    pin = Board(tmp_path / "pins", clock=lambda: NOW).write_file(
        "m", b"abc", file_name="m.bin", facts={"k": [1, {"a": None}]}, lineage={"run": "r1"}, title="A model"
    )
    meta = pins.board_folder(str(tmp_path / "pins")).pin_meta("m")
    # the xxh64 of b"abc" with seed 0 and its SHA-256 are published test vectors
    assert (meta.title, meta.created, meta.pin_hash) == ("A model", "20240506T070809Z", "44bc2cf5ad770999")
    assert (meta.file, meta.file_size, meta.type, meta.api_version) == ("m.bin", 3, "file", 1)
    assert (meta.user["facts"], meta.user["lineage"]) == ({"k": [1, {"a": None}]}, {"run": "r1"})
    sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    facts = {"k": [1, {"a": None}]}
    version = "20240506T070809Z-0qglc"  # 1,234,560 tenths of a microsecond, in base 36
    assert pin == Pin("m", version, "file", {"m.bin": sha}, 3, NOW, "A model", facts, {"run": "r1"})
    assert (Board(tmp_path / "pins").pin("m"), pin.sha256) == (pin, sha)


def test_any_text_in_metadata_is_the_same_for_us_and_for_stock_pins(tmp_path: Path) -> None:
    board, stock, dice = Board(tmp_path / "pins"), pins.board_folder(str(tmp_path / "pins")), random.Random(1)
    alphabet = "aé漢😀\u0085\u2028\ufeff\x00\x07\x7f\t\n\r '\"#:-*&!%@`|>{}[],=~\\"
    texts = ["".join(dice.choices(alphabet, k=dice.randrange(12))) for _ in range(400)]
    facts = {"texts": [*texts, "yes", "1e-5", "0x1f", "1:30", "=", "null", "2024-01-01", "<<", "*a"], "&x": 1e-05}
    board.write_json("p", 1, facts=facts, lineage={}, title=texts[0] + " # pinmill sha256 00")
    assert board.pin("p").facts == stock.pin_meta("p").user["facts"] == facts


def test_numpy_values_become_plain_and_nan_becomes_null(tmp_path: Path) -> None:
    facts = {
        "n": np.int64(3), "x": np.float32(0.5), "ok": np.bool_(True), "s": np.str_("a"), "nan": np.float64("nan"),
        "row": np.array([[1, 2], [3, 4]]), "inf": float("inf"), "weights": {0: 1, np.int64(1): 5}, "pair": (1, 2),
        "nans": np.array([1.0, np.nan]), "classes": np.array(["b", "a"], dtype=object),
    }  # fmt: skip
    Board(tmp_path / "pins").write_json("p", 1, facts=facts, lineage={})
    expected = {
        "n": 3, "x": 0.5, "ok": True, "s": "a", "nan": None, "row": [[1, 2], [3, 4]], "inf": float("inf"),
        "weights": {"0": 1, "1": 5}, "pair": [1, 2], "nans": [1.0, None], "classes": ["b", "a"],
    }  # fmt: skip
    assert pins.board_folder(str(tmp_path / "pins")).pin_meta("p").user["facts"] == expected
    assert Board(tmp_path / "pins").pin("p").facts == expected


def test_a_value_that_is_not_plain_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    cases = [
        ({"a": {"when": NOW}}, r"facts\.a\.when is a datetime"), ({"b": [1, {2}]}, r"facts\.b\[1\] is a set"),
        ({"c": np.datetime64("2024-01-01", "ns")}, r"facts\.c is a datetime64"), ({"d": "\ud800"}, "surrogate"),
    ]  # fmt: skip
    for facts, said in cases:
        with pytest.raises(DataError, match=said):
            board.write_json("p", 1, facts=facts, lineage={})
    for value in (float("inf"), b"x", "\ud800"):
        with pytest.raises(ValueError, match=r"JSON|bytes|surrogate"):
            board.write_json("p", value, **NO)
    assert (board.names(), (tmp_path / "pins").exists()) == ([], False)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pd.DataFrame({"a": [1, "x", {}]}), "Could not convert"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate column names"),
        (pd.DataFrame({"a": pd.arrays.SparseArray([1, 0])}), "Sparse pandas data"),
        (pd.DataFrame({"a": [2**70, 1]}), "too large"),
        (pd.DataFrame({"a": [1j]}), "Unsupported numpy type"),
    ],
)
def test_table_that_parquet_cannot_hold_is_a_data_error(tmp_path: Path, frame: pd.DataFrame, said: str) -> None:
    board = Board(tmp_path / "pins")
    with pytest.raises(DataError, match=f"the table for p cannot be kept as Parquet: .*{said}"):
        board.write_table("p", frame, **NO)
    assert board.names() == []


# --- order


def test_latest_agrees_with_stock_pins_for_100_versions_in_one_instant(tmp_path: Path) -> None:
    # pins: two writes in one second sort by hash
    board = Board(tmp_path / "pins", clock=lambda: NOW)
    written = []
    for number in range(100):
        written.append(board.write_json("p", number, **NO).version)
        assert (board.latest("p"), stock_latest(tmp_path / "pins", "p")) == (written[-1], written[-1])
    assert stock_versions(tmp_path / "pins", "p") == board.versions("p") == written
    assert [board.read_json(board.pin("p", version)) for version in written] == list(range(100))


WRITER = """
import os, sys
from datetime import datetime, UTC
from pinmill.board import Board
folder, log, who = sys.argv[1:]
board = Board(folder, clock=lambda: datetime(2024, 1, 1, tzinfo=UTC))
print("ready", flush=True)
sys.stdin.readline()
out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for number in range(25):
    text = f"{who}{number}"
    board.write_json("p", text, facts={}, lineage={}, guard=lambda: os.write(out, (text + "\\n").encode()))
"""


def test_versions_stand_in_commit_order_when_four_processes_write(tmp_path: Path) -> None:
    folder, log = tmp_path / "pins", tmp_path / "log"
    writers = [python(WRITER, folder, log, who) for who in "abcd"]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    board = Board(folder)
    versions = board.versions("p")
    assert (len(versions), stock_versions(folder, "p"), stock_latest(folder, "p")) == (100, versions, versions[-1])
    assert [board.read_json(board.pin("p", version)) for version in versions] == log.read_text().split()
    assert staged(folder) == []


def test_a_clock_set_back_does_not_make_an_older_version_the_latest(tmp_path: Path) -> None:
    times = iter([NOW, NOW - timedelta(days=365), NOW - timedelta(seconds=1), NOW + timedelta(seconds=1)])
    board = Board(tmp_path / "pins", clock=lambda: next(times))
    written = [board.write_json("p", number, **NO) for number in range(4)]
    assert board.versions("p") == stock_versions(tmp_path / "pins", "p") == [pin.version for pin in written]
    assert [pin.version[17:] for pin in written] == ["0qglc", "0qgld", "0qgle", "0qglc"]
    assert written[1].created == NOW - timedelta(days=365)  # the time is what the clock said; the name is the order


@pytest.mark.parametrize(
    ("last", "after"),
    [
        ("20240506T070809Z-5yc1r", "20240506T070810Z-00000"),  # 9,999,999 tenths: the next second
        ("20240506T070809Z-5yc1q", "20240506T070809Z-5yc1r"),
        ("20240506T070809Z-fffff", "20240506T070810Z-00000"),  # a hash, by stock pins
        ("20231231T235959Z-zzzzz", "20240101T000000Z-00000"),
        ("20200101T000000Z-zzzzz", "20230101T000000Z-00000"),
        (None, "20230101T000000Z-00000"),
    ],
)
def test_next_version_comes_after_the_last(last: str | None, after: str) -> None:
    assert next_version(datetime(2023, 1, 1, tzinfo=UTC), last) == after


def test_version_time_is_utc_whatever_zone_the_clock_has() -> None:
    from zoneinfo import ZoneInfo

    assert next_version(datetime(2024, 1, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")), None) == "20240101T000000Z-00000"


def test_identical_content_written_twice_gives_two_versions_with_their_own_facts(tmp_path: Path) -> None:
    # pins: identical bytes are not stored again and their new metadata is lost
    board = Board(tmp_path / "pins")
    first, second = (board.write_json("p", 1, facts={"run": number}, lineage={}) for number in (1, 2))
    assert board.versions("p") == [first.version, second.version]
    assert (first.sha256 == second.sha256, board.pin("p").facts) == (True, {"run": 2})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pins: leaves its files open
def test_a_version_of_stock_pins_is_refused_but_ours_still_come_after_it(tmp_path: Path) -> None:
    stock = pins.board_folder(str(tmp_path / "pins"))
    stock.pin_write({"a": 1}, "p", type="json")
    board = Board(tmp_path / "pins")
    with pytest.raises(IntegrityError, match="not written by Pinmill"):
        board.pin("p")
    pin = board.write_json("p", 2, **NO)
    assert board.latest("p") == stock_latest(tmp_path / "pins", "p") == pin.version


# --- verified


def test_a_flipped_bit_anywhere_in_data_txt_is_an_integrity_error(tmp_path: Path) -> None:
    board, dice = Board(tmp_path / "pins"), random.Random(2)
    pin = board.write_json("p", {"a": 1}, facts={"x": "ä"}, lineage={"run": "r"}, title="T")
    path = tmp_path / "pins/p" / pin.version / "data.txt"
    whole = path.read_bytes()
    for position in range(len(whole)):
        broken = bytearray(whole)
        broken[position] ^= 1 << dice.randrange(8)
        path.write_bytes(broken)
        with pytest.raises(IntegrityError):
            board.pin("p")
    for broken in (b"", whole[:-1], whole + b"\n", whole + whole, b" " + whole):
        path.write_bytes(broken)
        with pytest.raises(IntegrityError):
            board.pin("p")
        assert len(board.verify("p", pin.version)) == 1
    path.write_bytes(whole)
    assert (board.pin("p"), board.verify("p", pin.version)) == (pin, [])


def test_a_flipped_bit_anywhere_in_the_data_is_an_integrity_error(tmp_path: Path) -> None:
    board, dice = Board(tmp_path / "pins"), random.Random(3)
    pin = board.write_table("t", pd.DataFrame({"x": np.arange(3000.0), "s": ["a", "b", "c"] * 1000}), **NO)
    path = tmp_path / "pins/t" / pin.version / "t.parquet"
    whole = path.read_bytes()
    for position in [0, len(whole) - 1, *dice.sample(range(len(whole)), 200)]:
        broken = bytearray(whole)
        broken[position] ^= 1 << dice.randrange(8)
        path.write_bytes(broken)
        with pytest.raises(IntegrityError, match=rf"t/{pin.version}/t\.parquet was changed"):
            board.read_table(pin)
    for broken in (b"", whole[:-1], whole + b"\0"):
        path.write_bytes(broken)
        with pytest.raises(IntegrityError):
            board.read_table(pin)
        assert len(board.verify("t", pin.version)) == 1
    path.unlink()
    with pytest.raises(IntegrityError, match="is gone or cannot be read"):
        board.read_table(pin)
    path.write_bytes(whole)
    assert (len(board.read_table(pin)), board.verify("t", pin.version)) == (3000, [])


def test_a_version_folder_without_data_txt_is_no_version(tmp_path: Path) -> None:
    # pins: a version folder without data.txt makes the whole pin unreadable
    board = Board(tmp_path / "pins")
    pin = board.write_json("p", 1, **NO)
    (tmp_path / "pins/p/29990101T000000Z-00000").mkdir()
    (tmp_path / "pins/p/notes").mkdir()
    (tmp_path / "pins/empty").mkdir()
    assert (board.names(), board.versions("p"), board.latest("p")) == (["p"], [pin.version], pin.version)
    with pytest.raises(PinNotFoundError, match="has no version '29990101T000000Z-00000'"):
        board.pin("p", "29990101T000000Z-00000")
    assert len(board.verify("p", "29990101T000000Z-00000")) == 1
    later = board.write_json("p", 2, **NO)
    assert (board.versions("p"), board.latest("p")) == ([pin.version, later.version], later.version)
    assert board.write_json("empty", 1, **NO).version == board.latest("empty")


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "a*b", "a.b", "Upper", "-a", "_a", "a" * 65, "a b", "é", "a\n"])
def test_names_outside_the_pattern_are_refused_everywhere(tmp_path: Path, name: str) -> None:
    board = Board(tmp_path / "pins")
    calls = [
        lambda: board.write_json(name, 1, **NO), lambda: board.versions(name), lambda: board.latest(name),
        lambda: board.pin(name), lambda: board.pin(name, "20240101T000000Z-00000"),
        lambda: board.verify(name, "20240101T000000Z-00000"), lambda: board.lock(name).__enter__(),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(PinNameError, match="is not a pin name"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_names_up_to_64_characters_are_accepted(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    for name in ("a" * 64, "0-_"):
        board.write_json(name, 1, **NO)
    assert board.names() == ["0-_", "a" * 64]


@pytest.mark.parametrize("file_name", ["../x", "a/b", "..", "data.txt", "", ".hidden", "a\\b"])
def test_file_names_that_mean_another_place_are_refused_in_writing(tmp_path: Path, file_name: str) -> None:
    with pytest.raises(PinNameError, match="cannot be the file of a pin"):
        Board(tmp_path / "pins").write_file("p", b"x", file_name=file_name, **NO)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"p.json", b"../../x"), (b"p.json", b"/etc/passwd"), (b"p.json", b"data.txt"), (b"p.json: ", b""),
        (b"file_size: 1", b"file_size: many"), (b"facts: {}", b"facts: 3"), (b"user:", b"usr:"),
        (b"created: '2", b"created: 'x2"), (b"facts: {}", b"facts: !!python/object:os.x {}"),
    ],
)  # fmt: skip
def test_sealed_metadata_that_pinmill_would_not_write_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    # pins: `file: ../../x` in data.txt reads outside the board
    board = Board(tmp_path / "pins")
    (tmp_path / "x").write_text("secret")
    pin = board.write_json("p", 1, **NO)
    reseal(tmp_path / "pins/p" / pin.version / "data.txt", old, new)
    with pytest.raises(IntegrityError, match="is not metadata that Pinmill wrote"):
        board.pin("p")


def test_missing_pins_and_versions_say_what_there_is(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    with pytest.raises(PinNotFoundError, match=r"there is no pin 'spam-model' on .*It is empty"):
        board.latest("spam-model")
    pin = board.write_json("spam-model", 1, **NO)
    with pytest.raises(PinNotFoundError, match=r"Did you mean 'spam-model'\? It holds spam-model"):
        board.pin("spam-modle")
    for version in ("20240101T000000Z-00000", "../spam-model", "..", ""):
        with pytest.raises(PinNotFoundError, match=f"Its latest is {pin.version}"):
            board.pin("spam-model", version)
    assert board.versions("other") == []


def test_reading_what_is_not_that_table_is_a_data_error_that_names_the_type(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    pin = board.write_json("p", 1, **NO)
    with pytest.raises(DataError, match=r"\(json\) cannot be read as that table"):
        board.read_table(pin)
    table = board.write_table("t", pd.DataFrame({"a": [1]}), **NO)
    with pytest.raises(DataError, match="cannot be read as that table"):
        board.read_table(table, columns=["b"])


# --- atomic


def test_stock_pins_lists_only_what_is_committed_while_a_write_is_under_way(tmp_path: Path) -> None:
    # pins: stock pin_list shows a temporary folder inside the board
    folder, seen = tmp_path / "pins", []
    board, stock = Board(folder), pins.board_folder(str(tmp_path / "pins"))
    first = board.write_json("p", 1, **NO)

    def look() -> None:
        seen.append((stock.pin_list(), stock_versions(folder, "p"), board.names(), staged(folder)))

    second = board.write_json("p", 2, **NO, guard=look)
    board.write_json("new", 3, **NO, guard=look)
    under_way = [entry[3] for entry in seen]
    assert [entry[:3] for entry in seen] == [
        (["p"], [first.version], ["p"]),
        (["p"], [first.version, second.version], ["p"]),
    ]
    assert under_way == [["p"], ["new"]]
    assert (sorted(stock.pin_list()), staged(folder)) == (["new", "p"], [])


def test_a_guard_that_raises_keeps_the_version_from_being_committed(tmp_path: Path) -> None:
    def lost() -> None:
        raise LockedError("the lock of this run was lost")

    board = Board(tmp_path / "pins")
    with pytest.raises(LockedError, match="was lost"):
        board.write_json("p", 1, **NO, guard=lost)
    assert (board.names(), staged(tmp_path / "pins")) == ([], [])


LOOP = """
import sys
from pinmill.board import Board
board = Board(sys.argv[1])
print("ready", flush=True)
while True:
    for name in ("p", "q"):
        board.write_file(name, b"x" * 3_000_000, file_name="x.bin", facts={}, lineage={})
"""


def test_a_writer_killed_at_any_moment_leaves_nothing_half_visible(tmp_path: Path) -> None:
    folder, dice = tmp_path / "pins", random.Random(4)
    board = Board(folder)
    for _ in range(12):
        writer = python(LOOP, folder)
        assert writer.stdout.readline() == "ready\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            writer.wait(timeout=dice.uniform(0, 0.25))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        for name in board.names():
            versions = board.versions(name)
            assert stock_versions(folder, name) == versions
            assert board.verify(name, versions[-1]) == []
        after = [board.write_json(name, 1, **NO).version for name in ("p", "q")]
        assert ([board.latest("p"), board.latest("q")], staged(folder)) == (after, [])
    assert [problem for name in board.names() for v in board.versions(name) for problem in board.verify(name, v)] == []


WAITING = """
import sys
from pinmill.board import Board
board = Board(sys.argv[1])
board.write_json("p", 1, facts={}, lineage={}, guard=lambda: (print("staged", flush=True), sys.stdin.readline()))
"""


def test_what_a_killed_writer_left_is_removed_by_the_next_write_of_that_pin(tmp_path: Path) -> None:
    writer = python(WAITING, tmp_path / "pins")
    assert writer.stdout.readline() == "staged\n"
    writer.kill()
    writer.communicate()
    board = Board(tmp_path / "pins")
    assert (board.names(), staged(tmp_path / "pins")) == ([], ["p"])
    board.write_json("p", 2, **NO)
    assert (board.names(), staged(tmp_path / "pins")) == (["p"], [])


def test_the_folder_of_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    board, inside = Board(tmp_path / "pins"), []

    def other_writer() -> None:
        thread = threading.Thread(target=lambda: inside.append(Board(tmp_path / "pins").write_json("q", 2, **NO)))
        thread.start()
        thread.join()

    pin = board.write_json("p", 1, **NO, guard=other_writer)
    assert (board.latest("p"), board.latest("q")) == (pin.version, inside[0].version)


@contextlib.contextmanager
def small_disk(folder: Path):
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: a full disk. Mounting is not permitted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_board_as_it_was_and_says_so(tmp_path: Path) -> None:
    dice = np.random.default_rng(5)
    with small_disk(tmp_path / "disk") as disk:
        board = Board(disk / "pins")
        first = board.write_json("p", 1, **NO)
        frame = pd.DataFrame({"x": dice.normal(size=300_000)})
        attempts = [
            lambda: board.write_file("p", dice.bytes(2_000_000), file_name="x.bin", **NO),
            lambda: board.write_file("new", dice.bytes(2_000_000), file_name="x.bin", **NO),
            lambda: board.write_table("p", frame, **NO),
            lambda: board.write_json("p", 1, facts={"x": "y" * 2_000_000}, lineage={}),
        ]
        for attempt in attempts:
            with pytest.raises(BoardError, match="No space left on device: nothing of it is visible"):
                attempt()
            assert (board.names(), board.versions("p"), staged(disk / "pins")) == (["p"], [first.version], [])
        second = board.write_file("p", dice.bytes(200_000), file_name="x.bin", **NO)
        assert (board.latest("p"), board.verify("p", second.version)) == (second.version, [])


LIMITED = """
import resource, sys
from pinmill.board import Board, BoardError
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
try:
    Board(sys.argv[1]).write_file("p", b"x" * 2_000_000, file_name="x.bin", facts={}, lineage={})
except BoardError as error:
    print(error)
"""


def test_a_file_over_the_limit_of_the_system_leaves_the_board_as_it_was(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    pin = board.write_json("p", 1, **NO)
    said, _ = python(LIMITED, tmp_path / "pins").communicate()
    assert os.strerror(errno.EFBIG) in said
    assert (board.versions("p"), staged(tmp_path / "pins")) == ([pin.version], [])


def test_the_lock_may_be_taken_again_by_its_holder_and_by_nobody_else(tmp_path: Path) -> None:
    board, entered = Board(tmp_path / "pins"), threading.Event()

    def enter() -> None:
        with board.lock("p"):
            entered.set()

    with board.lock("p"), board.lock("p"):
        pin = board.write_json("p", 1, **NO)
        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(timeout=0.1)
    assert entered.wait(timeout=5)
    thread.join()
    assert board.latest("p") == pin.version


# --- object stores


def test_an_object_store_holds_the_same_pins_for_us_and_for_stock_pins(tmp_path: Path) -> None:
    board = Board(f"memory://{tmp_path.name}/pins", clock=lambda: NOW)
    frame = pd.DataFrame({"a": [1, 2]})
    written = [board.write_table("t", frame, facts={"n": n}, lineage={}) for n in range(3)]
    pin = board.write_file("m", b"abc", file_name="m.bin", **NO)
    assert (board.names(), board.versions("t")) == (["m", "t"], [each.version for each in written])
    assert (board.pin("t"), board.read_file(pin), board.verify("m", pin.version)) == (written[-1], b"abc", [])
    stock = pins.board("memory", f"{tmp_path.name}/pins", cache=None)
    pd.testing.assert_frame_equal(stock.pin_read("t"), frame)
    assert stock.pin_meta("t").version.version == written[-1].version
    with pytest.raises(PinNotFoundError):
        board.latest("nothing")


def test_an_object_store_gets_the_files_first_and_data_txt_last(tmp_path: Path, monkeypatch) -> None:
    order, visible = [], []
    board = Board(f"memory://{tmp_path.name}/pins")
    pipe_file = MemoryFileSystem.pipe_file

    def record(self, path, value, **options):
        order.append(path.rpartition("/")[2])
        visible.append(board.versions("p"))
        return pipe_file(self, path, value, **options)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", record)
    board.write_file("p", b"abc", file_name="z.bin", **NO)
    assert (order, visible, len(board.versions("p"))) == (["z.bin", "data.txt"], [[], []], 1)


def test_an_upload_that_stopped_before_data_txt_is_not_a_version(tmp_path: Path) -> None:
    board = Board(f"memory://{tmp_path.name}/pins")
    first = board.write_json("p", 1, **NO)

    def fail() -> None:
        raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    with pytest.raises(BoardError, match="Connection reset by peer: nothing of it is visible"):
        board.write_json("p", 2, **NO, guard=fail)
    assert len(MemoryFileSystem().find(f"/{tmp_path.name}/pins")) == 3  # two of the first, and the file of the second
    assert (board.versions("p"), board.latest("p")) == ([first.version], first.version)
    second = board.write_json("p", 3, **NO)
    assert (board.versions("p"), board.latest("p")) == ([first.version, second.version], second.version)


def test_a_flipped_bit_in_an_object_store_is_an_integrity_error(tmp_path: Path) -> None:
    board = Board(f"memory://{tmp_path.name}/pins")
    pin = board.write_file("p", b"abc", file_name="x.bin", **NO)
    MemoryFileSystem().pipe_file(f"/{tmp_path.name}/pins/p/{pin.version}/x.bin", b"abb")
    with pytest.raises(IntegrityError, match=r"x\.bin was changed"):
        board.read_file(pin)


def test_file_urls_are_folders_and_passwords_are_not_shown(tmp_path: Path) -> None:
    pin = Board(f"file://{tmp_path}/pins").write_json("p", 1, **NO)
    assert Board(tmp_path / "pins").latest("p") == pin.version
    assert Board("memory://user:hunter2@host/pins").url == "memory://***@host/pins"


# --- light


def test_importing_the_board_is_light() -> None:
    code = "import sys, pinmill.board, pinmill.champion, pinmill.lineage; print(sorted(sys.modules))"
    said, _ = python(code).communicate()
    heavy = {"pandas", "numpy", "pyarrow", "fsspec", "pins", "xxhash", "yaml", "filelock"}
    assert heavy & set(ast.literal_eval(said)) == set()
