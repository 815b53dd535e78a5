"""Runs killed with SIGKILL at a random moment, again and again: nothing half published, no untrue status.

One round: change the source or a parameter, start `pinmill run`, kill the runner's process group (in every second round
its kernels, too) at a moment drawn from the length of a whole run, look at everything, run again to the end. Most
rounds use four light stages, every tenth our own notebooks. Ends with code 1, and keeps the project, at the first thing
that is not as it should be.

Run: .venv/bin/python tests/soak/kill_runs.py [--rounds 100] [--seed 1]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pins
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from conftest import PINMILL, TINY, Workplace, make_small, make_texts, make_workplace
from pinmill.board import Board
from pinmill.champion import read_champion, read_history, replay

STAGES = ["01-prepare", "02-train", "03-evaluate", "04-model-card"]
OWN_EVERY = 10  # rounds: our own notebooks take longer
GONE_SECONDS = 60  # a kernel outlives a killed runner by a second or more


@dataclass
class Site:
    """A project under test, and what is known about it."""

    name: str
    place: Workplace
    dice: random.Random
    seconds: float = 0.0  # that a whole run takes
    decisions: list[str] = field(default_factory=list)  # records of the champion seen so far

    @property
    def board(self) -> Board:
        return Board(self.place.root / "outputs/pins")

    def change(self, number: int) -> None:
        """Give the next run something to do, for which the gate may reject the model."""
        if self.name == "tiny":
            (self.place.root / "tiny.csv").write_text(make_texts(240, start=1000 * number))
            self.place.params(TINY + f"seed: {number}\n")
            return
        if self.dice.random() < 0.5:
            (self.place.root / "numbers.txt").write_text("\n".join(map(str, range(number, number + 4))))
        power, score = self.dice.randrange(1, 10), self.dice.choice([0.9, 0.8, 0.3])  # the threshold is 0.5
        self.place.params(f"workflow: small\nsource: numbers.txt\npower: {power}\nscore: {score}\n", "small")

    def runs(self) -> list[dict[str, Any]]:
        return self.place.json("runs", self.name)

    def start(self) -> subprocess.Popen:
        """The runner, as the leader of a process group of its own."""
        log = (self.place.root / "killed.log").open("a")
        with log:
            environ = self.place.environ()
            return subprocess.Popen(
                [PINMILL, "run", self.name], cwd=self.place.root, env=environ, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def finish(self) -> dict[str, Any]:
        """Run to the end, which must come; its record."""
        started = time.monotonic()
        done = self.place.pinmill("run", self.name, code=None)
        assert done.returncode in (0, 3), f"exit {done.returncode} after a kill\n{done.stdout}\n{done.stderr}"
        record = self.runs()[0]
        assert record["status"] == {0: "succeeded", 3: "rejected"}[done.returncode], record["status"]
        if all(stage["status"] == "ran" for stage in record["stages"]):
            self.seconds = time.monotonic() - started
        return record


def family_of(process: subprocess.Popen) -> list[psutil.Process]:
    """A process's living descendants: the kernels."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill(process: subprocess.Popen, *, kernels: bool) -> list[psutil.Process]:
    """Kill the runner's process group, and its kernels if so said; those that may still live."""
    family = family_of(process)
    os.killpg(process.pid, signal.SIGKILL)
    for each in family if kernels else []:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
    return family


def look_at_board(site: Site) -> None:
    """Every version is whole, and stock pins lists the same ones."""
    board = site.board
    if not Path(board.url).is_dir():
        return
    stock = pins.board_folder(board.url)
    assert sorted(stock.pin_list()) == board.names()
    for name in board.names():
        versions = board.versions(name)
        assert stock.pin_versions(name)["version"].tolist() == versions, f"stock pins lists others of {name}"
        problems = [problem for version in versions for problem in board.verify(name, version)]
        assert problems == [], problems


def look_at_champion(site: Site, records: dict[str, dict[str, Any]]) -> list[Any]:
    """The champion is a whole model, its history adds up, and every new move is of a run whose gate passed it."""
    board, history = site.board, read_history(site.board, site.name)
    champion = read_champion(board, site.name)
    assert (champion.version if champion else None) == (replay(history).stack[-1] if history else None)
    new = history[len(site.decisions) :]
    assert [decision.record for decision in history[: len(site.decisions)]] == site.decisions
    passed = {
        pin.facts["candidate"]
        for pin in (board.pin(f"{site.name}-metrics", v) for v in board.versions(f"{site.name}-metrics"))
        if pin.facts["passed"]
    }
    for decision in new:
        assert decision.by.removeprefix("run ") in records, f"moved by {decision.by}, of which there is no record"
        assert decision.version in passed, f"moved to {decision.version}, which the gate did not pass"
    if champion:
        pin = board.pin(f"{site.name}-model", champion.version)
        assert (pin.sha256, board.verify(pin.name, pin.version)) == (champion.sha256, [])
    site.decisions = [decision.record for decision in history]
    return new


def look_at_status(site: Site, record: dict[str, Any], moved: list[Any], before: str) -> None:
    """A record tells the truth about a run that was killed: what it is, and whether it moved the champion."""
    status, run = record["status"], f"run {record['run']}"
    assert status in ("interrupted", "succeeded", "rejected"), f"{record['run']} says {status} after its death"
    mine = [decision.version for decision in moved if decision.by == run]
    champion = read_champion(site.board, site.name)
    if status == "succeeded":
        assert (champion.version if champion else "no champion") == record["champion_after"], "not its champion"
    if status == "rejected":
        assert mine == []
    if not mine:
        assert (champion.version if champion else "") == before, "the champion moved, and nobody says why"


def find_moment(record: dict[str, Any] | None) -> str:
    """Where in a run the kill came, from its record."""
    if record is None:
        return "before its record"
    if record["status"] != "interrupted":
        return "after its end"
    at_work = [stage["notebook"] for stage in record["stages"] if stage["status"] in ("running", "interrupted")]
    return at_work[0] if at_work else "between stages" if len(record["stages"]) < len(STAGES) else "settling"


def round_of(site: Site, number: int, *, kernels: bool) -> str:
    """One round; the moment of its kill."""
    known, champion = {record["run"] for record in site.runs()}, read_champion(site.board, site.name)
    before = champion.version if champion else ""
    site.change(number)
    process = site.start()
    try:
        process.wait(timeout=site.dice.uniform(0, site.seconds))
        moment, family = "after its end", []
        assert process.returncode in (0, 3), (site.place.root / "killed.log").read_text()[-2000:]
    except subprocess.TimeoutExpired:
        moment, family = "", kill(process, kernels=kernels)
    look_at_board(site)
    records = {record["run"]: record for record in site.runs()}
    new = [record for run, record in records.items() if run not in known]
    assert len(new) <= 1, new
    moved = look_at_champion(site, records)
    if new:
        look_at_status(site, new[0], moved, before)
    else:
        assert moved == []
    moment = moment or find_moment(new[0] if new else None)

    before = champion.version if (champion := read_champion(site.board, site.name)) else ""
    recovered = site.finish()
    records = {record["run"]: record for record in site.runs()}
    look_at_status(site, recovered, look_at_champion(site, records), before)
    assert all(record["ended"] for record in records.values()), "a dead run was not settled by the next"
    after = {name: site.board.versions(name) for name in site.board.names()}
    _, alive = psutil.wait_procs(family, timeout=GONE_SECONDS)
    assert alive == [], f"kernels outlive their killed runner: {alive}"
    assert {name: site.board.versions(name) for name in site.board.names()} == after, "an orphan has published"
    look_at_board(site)
    return moment


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder, dice, started = Path(tempfile.mkdtemp(prefix="soak-")), random.Random(options.seed), time.monotonic()
    small = Site("small", make_small(folder / "small"), dice)
    tiny = Site("tiny", make_workplace(folder / "tiny"), dice)
    moments: Counter[str] = Counter()
    for number in range(1, options.rounds + 1):
        site = small if number % OWN_EVERY else tiny
        if not site.seconds:
            first = site.finish()
            look_at_champion(site, {first["run"]: first})
        try:
            moment = round_of(site, number, kernels=number % 2 == 0)
        except Exception as error:
            print(f"round {number} ({site.name}): {type(error).__name__}: {error}\nkept: {site.place.root}")
            return 1
        moments[moment] += 1
        print(f"{number:4d}  {site.name:<5}  killed: {moment}", flush=True)
    shutil.rmtree(folder)
    order = ["before its record", "between stages", *STAGES, "settling", "after its end"]
    counts = ", ".join(f"{moment} {moments[moment]}" for moment in order)
    print(f"{options.rounds} rounds in {time.monotonic() - started:.0f} s, nothing wrong. Killed at: {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
