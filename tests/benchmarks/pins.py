"""What atomic, verified and versioned pins cost: board writes and reads against plain files with the same bytes.

A table of 34 MB as Parquet and a linear model of 6 MB as skops, each as it is used (made into bytes and written, read
and made into an object again) and as bytes alone. All ways take turns. The plain way is `open().write()`, once without
and once with `fsync`, and `open().read()`, with the bytes in the page cache; the board always calls `fsync` (file,
metadata, folders) before a version is visible. `sha256` is the time of one SHA-256 over the bytes, which no verified
read can do without: reading bytes alone cannot come near a plain read, which is a copy in memory.
Beside it: reading the champion from 1 and from 1,000 versions.
Targets, as used: writing <= 1.6 times a plain file with fsync, verified reading <= 1.8 times, the champion of 1,000
versions <= 1.5 times that of one.

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
from typing import Any

import numpy as np
import pandas as pd
from pinmill.board import Board
from pinmill.champion import read_champion
from pinmill.model import load_model, save_model
from sklearn.linear_model import Ridge

ROWS, COLUMNS = 394_000, 10  # of random numbers, which do not compress: 34 MB
OUTPUTS = 866  # of a linear model with as many inputs: 6 MB, and among the fastest to load
VERSIONS = 1_000
WRITE, READ, CHAMPION = 1.6, 1.8, 1.5
ABOUT = {"facts": {}, "lineage": {}}


def clock(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def write_plainly(path: Path, data: bytes, *, sync: bool) -> None:
    """Write; with fsync, as anybody who wants to keep the bytes has to."""
    with path.open("wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def to_parquet(frame: pd.DataFrame) -> bytes:
    sink = io.BytesIO()
    frame.to_parquet(sink, engine="pyarrow", index=False)
    return sink.getvalue()


def from_parquet(data: bytes) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(data))


def write_champion(board: Board, workflow: str, number: int) -> None:
    """One more version of a champion's pin, in the form that `promote` writes."""
    record = {
        "action": "promote", "version": f"v{number}", "sha256": "0" * 64, "by": "benchmark", "why": "benchmark",
        "when": datetime.now(UTC).isoformat(timespec="microseconds"), "previous": None, "override": False,
    }  # fmt: skip
    board.write_json(f"{workflow}-champion", record, **ABOUT)


def compare(
    noun: str, folder: Path, rounds: int, *, value: Any, save: Callable[[Any], bytes], load: Callable[[bytes], Any]
) -> bool:
    """Write and read a value, and its bytes alone, in turns; print the ratios; whether the targets are met."""
    board, data, plain = Board(folder / "pins"), save(value), folder / f"{noun}.plain"
    pins, numbers = [], iter(range(10_000))

    def write(content: bytes, sync: bool) -> None:
        write_plainly(folder / f"{noun}-{next(numbers)}.plain", content, sync=sync)  # a new file, as a version is

    def write_pin(content: bytes) -> None:
        pins.append(board.write_file(noun, content, file_name="a.bin", **ABOUT))

    works = {
        "used: plain write": lambda: write(save(value), False),
        "used: fsync write": lambda: write(save(value), True),
        "used: board write": lambda: write_pin(save(value)),
        "used: plain read": lambda: load(plain.read_bytes()),
        "used: board read": lambda: load(board.read_file(pins[-1])),
        "bytes: plain write": lambda: write(data, False),
        "bytes: fsync write": lambda: write(data, True),
        "bytes: board write": lambda: write_pin(data),
        "bytes: plain read": plain.read_bytes,
        "bytes: board read": lambda: board.read_file(pins[-1]),
        "sha256": lambda: hashlib.sha256(data).hexdigest(),
    }
    write_plainly(plain, data, sync=True)
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(clock(work))
        for old in folder.glob(f"{noun}-*.plain"):
            old.unlink()
    return report(f"{noun}, {len(data) / 1e6:.1f} MB", {name: median(each) * 1000 for name, each in times.items()})


def report(what: str, ms: dict[str, float]) -> bool:
    print(f"{what} (SHA-256 {ms['sha256']:.1f} ms)")
    good = True
    for kind in ("used", "bytes"):
        plain, fsync, board = (ms[f"{kind}: {way} write"] for way in ("plain", "fsync", "board"))
        write = f"write {plain:7.1f} plain, {fsync:7.1f} with fsync, {board:7.1f} ms board: "
        write += f"{board / plain:.2f} x plain, {board / fsync:.2f} x fsync"
        before, after = ms[f"{kind}: plain read"], ms[f"{kind}: board read"]
        read = f"read  {before:7.1f} plain, {after:7.1f} ms board: {after / before:.2f} x"
        if kind == "used":
            good = board <= WRITE * fsync and after <= READ * before
            write += f" (target <= {WRITE}) {'ok' if board <= WRITE * fsync else 'MISSED'}"
            read += f" (target <= {READ}) {'ok' if after <= READ * before else 'MISSED'}"
        print(f"  {'as used' if kind == 'used' else 'bytes alone':<12}{write}\n{'':14}{read}")
    return good


def compare_champion(folder: Path, rounds: int) -> bool:
    """Read the champion of a workflow with one version, and of one with many, in turns; whether the target is met."""
    board = Board(folder / "pins")
    write_champion(board, "one", 0)
    for number in range(VERSIONS):
        write_champion(board, "many", number)
    times: dict[str, list[float]] = {"one": [], "many": []}
    for _ in range(rounds * 20):
        for workflow, taken in times.items():
            taken.append(clock(lambda workflow=workflow: read_champion(board, workflow)))
    one, many = (median(taken) for taken in times.values())
    met = many <= CHAMPION * one
    print(
        f"champion: {one * 1000:.3f} ms with 1 version, {many * 1000:.3f} ms with {VERSIONS:,}: {many / one:.2f} x "
        f"(target <= {CHAMPION}) {'ok' if met else 'MISSED'}"
    )
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds, dice = parser.parse_args().rounds, np.random.default_rng(42)
    frame = pd.DataFrame(dice.random((ROWS, COLUMNS)), columns=[f"c{number}" for number in range(COLUMNS)])
    model = Ridge().fit(dice.random((200, OUTPUTS)), dice.random((200, OUTPUTS)))
    with tempfile.TemporaryDirectory(prefix="pins-") as name:
        folder = Path(name)
        good = compare("table", folder, rounds, value=frame, save=to_parquet, load=from_parquet)
        good &= compare("model", folder, rounds, value=model, save=save_model, load=load_model)
        good &= compare_champion(folder, rounds)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
