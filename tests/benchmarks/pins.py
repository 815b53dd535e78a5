"""What atomic, verified and versioned pins cost: board writes and reads against plain files with the same bytes.

A Parquet table of about 34 MB and a file of 6 MB. The plain way writes the same bytes and calls fsync, or reads them;
for the table it also makes and parses the same Parquet. `floor` adds one SHA-256 over the bytes, which no verified
read or write can do without. Beside it: reading the champion from 1 and from 1,000 versions.
Targets (ours, the issue sets none): write and verified read <= 1.5 times the floor,
reading the champion <= 50 ms at 1,000 versions.

Run: .venv/bin/python tests/benchmarks/pins.py [--rounds 7]
"""

import argparse
import hashlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from pinmill.board import Board
from pinmill.champion import read_champion

ROWS, COLUMNS = 394_000, 10  # of random numbers, which do not compress: 34 MB
FILE_BYTES = 6_000_000
VERSIONS = 1_000
TARGET = 1.5
CHAMPION_TARGET = 0.05  # s
ABOUT = {"facts": {}, "lineage": {}}


def clock(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def write_plainly(path: Path, data: bytes) -> None:
    """Write and fsync, as anybody who wants to keep the bytes has to."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def to_parquet(frame: pd.DataFrame) -> bytes:
    sink = io.BytesIO()
    frame.to_parquet(sink, engine="pyarrow", index=False)
    return sink.getvalue()


def write_champion(board: Board, workflow: str, number: int) -> None:
    """One more version of a champion's pin, in the form that `promote` writes."""
    record = {
        "action": "promote", "version": f"v{number}", "sha256": "0" * 64, "by": "benchmark", "why": "benchmark",
        "when": datetime.now(UTC).isoformat(timespec="microseconds"), "previous": None, "override": False,
    }  # fmt: skip
    board.write_json(f"{workflow}-champion", record, **ABOUT)


def repeat(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each kind of work, which take turns."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(clock(work))
    return times


def compare_table(board: Board, folder: Path, rounds: int) -> dict[str, list[float]]:
    frame = pd.DataFrame(np.random.default_rng(42).random((ROWS, COLUMNS)), columns=[f"c{i}" for i in range(COLUMNS)])
    data, plain, pins = to_parquet(frame), folder / "plain.parquet", []
    print(f"table: {len(data) / 1e6:.1f} MB of Parquet")
    works = {
        "sha256": lambda: hashlib.sha256(data).hexdigest(),
        "plain write": lambda: write_plainly(plain, to_parquet(frame)),
        "board write": lambda: pins.append(board.write_table("table", frame, **ABOUT)),
        "plain read": lambda: pd.read_parquet(io.BytesIO(plain.read_bytes())),
        "board read": lambda: board.read_table(pins[-1]),
    }
    return repeat(works, rounds)


def compare_file(board: Board, folder: Path, rounds: int) -> dict[str, list[float]]:
    data, plain, pins = np.random.default_rng(42).bytes(FILE_BYTES), folder / "plain.bin", []
    works = {
        "sha256": lambda: hashlib.sha256(data).hexdigest(),
        "plain write": lambda: write_plainly(plain, data),
        "board write": lambda: pins.append(board.write_file("file", data, file_name="a.bin", **ABOUT)),
        "plain read": plain.read_bytes,
        "board read": lambda: board.read_file(pins[-1]),
    }
    return repeat(works, rounds)


def report(noun: str, times: dict[str, list[float]]) -> bool:
    """Print medians and ratios; whether both targets are met."""
    middle = {name: median(each) for name, each in times.items()}
    good = True
    for action in ("write", "read"):
        plain, board, sha256 = middle[f"plain {action}"], middle[f"board {action}"], middle["sha256"]
        ratio = board / (plain + sha256)
        met = ratio <= TARGET
        good &= met
        print(
            f"{noun} {action:<5} plain {plain * 1000:.1f}, sha256 {sha256 * 1000:.1f}, board {board * 1000:.1f} ms: "
            f"{board / plain:.2f} x plain, {ratio:.2f} x floor (target <= {TARGET}) {'ok' if met else 'MISSED'}"
        )
    return good


def compare_champion(board: Board, rounds: int) -> bool:
    """Read the champion of a workflow with one version, and of one with many; whether the target is met."""
    write_champion(board, "one", 0)
    for number in range(VERSIONS):
        write_champion(board, "many", number)
    one = median(clock(lambda: read_champion(board, "one")) for _ in range(rounds * 3))
    many = median(clock(lambda: read_champion(board, "many")) for _ in range(rounds * 3))
    met = many <= CHAMPION_TARGET
    print(
        f"champion: {one * 1000:.2f} ms with 1 version, {many * 1000:.2f} ms with {VERSIONS:,}: {many / one:.1f} x "
        f"(target <= {CHAMPION_TARGET * 1000:.0f} ms) {'ok' if met else 'MISSED'}"
    )
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="pins-") as name:
        folder = Path(name)
        board = Board(folder / "pins")
        good = report("table", compare_table(board, folder, rounds))
        good &= report("file ", compare_file(board, folder, rounds))
        good &= compare_champion(board, rounds)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
