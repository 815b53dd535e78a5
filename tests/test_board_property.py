"""The board under any sequence of writes, promotions, rollbacks and prunes, with a death at any file operation.

A death is an exception that nothing catches, after which no file operation has an effect (`raise`), or a SIGKILL of a
process of its own (`kill`). After every step the whole board is compared with what was acknowledged, and read by stock
pins. `PINMILL_EXAMPLES` is the number of sequences; `make soak` runs many.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import pins
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pinmill.board import Board
from pinmill.champion import promote, read_champion, read_history, replay, rollback
from pinmill.pin import Pin
from pinmill.project import Project
from pinmill.prune import find_prunable, prune

EXAMPLES = int(os.environ.get("PINMILL_EXAMPLES", "40"))
OPERATIONS = 15  # of files, in one write
SAID = {"by": "ada", "why": "for the test"}


class Dead(BaseException):
    """The process is dead: it must not be caught by what it kills."""


@dataclass(frozen=True)
class Death:
    """A death at the file operation `at` of a step; halfway into a write, before or after any other operation."""

    at: int
    after: bool
    way: str  # "raise" | "kill"


def deaths(operations: int) -> st.SearchStrategy[Death | None]:
    at = st.integers(0, operations - 1)
    return st.none() | st.builds(Death, at, st.booleans(), st.sampled_from(["raise", "raise", "kill"]))


@contextmanager
def dying(death: Death) -> Iterator[None]:
    """Let the process die at a file operation of the block."""
    count = 0

    def counted(operation: Callable, die_within: Callable | None = None) -> Callable:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            number, count = count, count + 1
            if number < death.at:
                return operation(*arguments, **options)
            if number == death.at and die_within:
                die_within(*arguments)
            elif number == death.at and death.after:
                operation(*arguments, **options)
            if death.way == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise Dead

        return call

    def write_half(path: Path, data: bytes | str) -> None:
        with open(path, "w" if isinstance(data, str) else "wb") as file:
            file.write(data[: len(data) // 2])

    whole, halves = ("rename", "replace", "fsync", "mkdir", "unlink", "rmdir"), ("write_bytes", "write_text")
    patches = [patch.object(os, name, counted(getattr(os, name))) for name in whole]
    patches += [patch.object(Path, name, counted(getattr(Path, name), write_half)) for name in halves]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


@dataclass(frozen=True)
class Write:
    """A version to be written: `made_from` names pins of which the last versions are its lineage."""

    name: str
    value: Any
    made_from: tuple[str, ...] = ()

    def do(self, board: Board) -> None:
        used = [board.pin(name) for name in self.made_from]
        inputs = [{"kind": p.name[2:], "name": p.name, "version": p.version, "sha256": p.sha256} for p in used]
        about = {"facts": {}, "lineage": {"run": "r", "inputs": inputs} if self.name.startswith("w-") else {}}
        if self.name == "w-metrics":
            about["facts"] = {"candidate": used[1].version, "candidate_sha256": used[1].sha256}
        if isinstance(self.value, bytes):
            board.write_file(self.name, self.value, file_name="m.bin", **about)
        elif isinstance(self.value, pd.DataFrame):
            board.write_table(self.name, self.value, **about)
        else:
            board.write_json(self.name, self.value, **about)


def read(board: Board, pin: Pin) -> Any:
    return {"file": board.read_file, "json": board.read_json, "parquet": board.read_table}[pin.type](pin)


def same(one: Any, other: Any) -> bool:
    return one.equals(other) if isinstance(one, pd.DataFrame) else one == other


class BoardMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="board-"))
        self.now = datetime(2024, 1, 1, tzinfo=UTC)
        self.committed: dict[str, dict[str, Any]] = {}  # values by version, in commit order, by pin
        self.history: list[tuple[str, str]] = []  # action and model version

        self.read_by_stock: dict[str, list[str]] = {}  # versions of which it has read the newest, since the last death
        self.made_from: dict[tuple[str, str], list[tuple[str, str]]] = {}  # pins by name and version
        self.decided: dict[str, str] = {}  # the model that a version of w-metrics is about

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @property
    def project(self) -> Project:
        return Project(self.root, {})

    @property
    def board(self) -> Board:
        """A board as a new process would open it."""
        return Board(self.root / "outputs/pins", clock=lambda: self.now)

    def attempt(self, steps: list[Callable[[], object]], death: Death | None) -> int:
        """Do the steps until death; how many came to their end."""
        self.read_by_stock = {} if death else self.read_by_stock
        if death and death.way == "kill":
            return self.attempt_in_a_child(steps, death)
        done = 0
        try:
            with dying(death or Death(1_000_000, False, "raise")):
                for step in steps:
                    step()
                    done += 1
        except Dead:
            assert death
        return done

    def attempt_in_a_child(self, steps: list[Callable[[], object]], death: Death) -> int:
        told, tell = os.pipe()
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of threads: the child has none
            child = os.fork()
        if child == 0:
            try:
                with dying(death):
                    for step in steps:
                        step()
                        os.write(tell, b".")
            except BaseException:
                os.write(tell, traceback.format_exc().encode())
            os._exit(0)
        os.close(tell)
        with open(told, encoding="utf-8") as file:
            said = file.read()
        os.waitpid(child, 0)
        assert said.strip(".") == "", said
        return len(said)

    def write(self, writes: list[Write], death: Death | None) -> None:
        """Write; what was acknowledged stands on the board, of the rest at most the next one, and that one whole."""
        board = self.board
        done = self.attempt([lambda write=write: write.do(board) for write in writes], death)
        for number, each in enumerate(writes):
            known = self.committed.get(each.name, {})
            new = [version for version in self.board.versions(each.name) if version not in known]
            assert len(new) == 1 if number < done else len(new) <= (number == done), (number, done, new)
            if new:
                assert same(read(self.board, self.board.pin(each.name, new[0])), each.value)
                self.committed[each.name] = {**known, new[0]: each.value}
                pin = self.board.pin(each.name)
                self.made_from[each.name, new[0]] = [(i["name"], i["version"]) for i in pin.lineage.get("inputs", [])]
                if each.name == "w-metrics":
                    self.decided[new[0]] = pin.facts["candidate"]

    @initialize(generations=st.sampled_from([0, 1, 3, 4]), champion=st.booleans())
    def begin(self, generations: int, champion: bool) -> None:
        for number in range(generations):
            self.write_generation(number=number, again=False, seconds=1, death=None)
        if generations and champion:
            self.promote(which=0, death=None)

    @rule(
        name=st.sampled_from(["a", "b"]),
        value=st.integers() | st.binary(max_size=40) | st.lists(st.text(max_size=3), min_size=1, max_size=3),
        seconds=st.sampled_from([0, 0, 1e-6, 1, -5]),
        death=deaths(OPERATIONS),
    )
    def write_one(self, name: str, value: Any, seconds: float, death: Death | None) -> None:
        self.now += timedelta(seconds=seconds)  # a clock may stand still, or be set back
        as_table = isinstance(value, list) and not (death and death.way == "kill")  # Arrow's threads do not fork
        self.write([Write(name, pd.DataFrame({"x": value}) if as_table else value)], death)

    @rule(
        number=st.integers(0, 9), again=st.booleans(), seconds=st.sampled_from([0, 1, -5]), death=deaths(3 * OPERATIONS)
    )
    def write_generation(self, number: int, again: bool, seconds: float, death: Death | None) -> None:
        """New data, or that of before, a model from it, and a decision about the model."""
        self.now += timedelta(seconds=seconds)
        writes = [] if again and "w-data" in self.committed else [Write("w-data", {"rows": number})]
        model = Write("w-model", b"model %d" % number, ("w-data",))
        self.write([*writes, model, Write("w-metrics", {"f1": number}, ("w-data", "w-model"))], death)

    def move(self, step: Callable[[], object], decision: tuple[str, str], death: Death | None) -> None:
        done = self.attempt([step], death)
        history = [(record.action, record.version) for record in read_history(self.board, "w")]
        assert history == [*self.history, decision] or (not done and history == self.history)
        if history != self.history:
            record = self.board.pin("w-champion")
            known = self.committed.setdefault("w-champion", {})
            known[record.version] = self.board.read_json(record)
        self.history = history

    @precondition(lambda self: "w-model" in self.committed)
    @rule(which=st.integers(0, 99), death=deaths(OPERATIONS))
    def promote(self, which: int, death: Death | None) -> None:
        models = [
            version for version in self.committed["w-model"] if not self.history or version != self.history[-1][1]
        ]
        if models:
            version, now = models[which % len(models)], self.history[-1][1] if self.history else None
            board, more = self.board, {**SAID, "expected": now, "gate": True, "when": self.now}
            self.move(lambda: promote(board, "w", version, **more), ("promote", version), death)

    @precondition(lambda self: len(replay(read_history(self.board, "w")).stack) > 1)
    @rule(death=deaths(OPERATIONS))
    def roll_back(self, death: Death | None) -> None:
        board, before = self.board, replay(read_history(self.board, "w")).stack[-2]
        self.move(lambda: rollback(board, "w", **SAID, when=self.now), ("rollback", before), death)

    @precondition(lambda self: len(self.committed.get("w-metrics", {})) > 2)
    @rule(keep=st.sampled_from([1, 1, 1, 2, 3]), death=deaths(2 * OPERATIONS))
    def prune(self, keep: int, death: Death | None) -> None:
        """What goes are the first of what was said to go; the last ones of every pin, and what no run wrote, stay."""
        doomed = [(pin.name, pin.version) for pin in find_prunable(self.project, keep=keep, since=self.now).remove]
        for name, known in self.committed.items():
            assert not set(doomed) & {(name, v) for v in list(known)[-keep:] if name.startswith("w-")}
        assert {name for name, _ in doomed} <= {"w-data", "w-model", "w-metrics"}
        done = self.attempt([lambda: prune(self.project, keep=keep, since=self.now)], death)
        standing = {(name, version) for name in self.board.names() for version in self.board.versions(name)}
        gone = [key for key in doomed if key not in standing]
        assert gone == doomed[: len(gone)]
        assert not done or gone == doomed
        champions = {version for _, version in self.history}
        for name, version in gone:
            assert name != "w-metrics" or self.decided[version] not in champions, (
                "a champion lost the decision about it"
            )
            del self.committed[name][version]

    @invariant()
    def board_holds_what_was_acknowledged_and_stock_pins_reads_it(self) -> None:
        board = self.board
        assert {name: board.versions(name) for name in board.names()} == {n: list(k) for n, k in self.committed.items()}
        if not self.committed:
            return
        stock = pins.board_folder(board.url)
        assert sorted(stock.pin_list()) == sorted(self.committed)
        for name, known in self.committed.items():
            listed, newest = stock.pin_versions(name)["version"].tolist(), board.pin(name)
            assert (listed, newest.version) == (list(known), listed[-1])
            assert all(same(read(board, board.pin(name, version)), value) for version, value in known.items())
            if listed == self.read_by_stock.get(name):
                continue
            self.read_by_stock[name] = listed
            if newest.type == "file":
                (path,) = stock.pin_download(name)
                assert Path(path).read_bytes() == known[newest.version]
            else:
                assert same(stock.pin_read(name), known[newest.version])

    @invariant()
    def what_a_version_was_made_from_stands(self) -> None:
        for key in [(name, v) for name in ("w-model", "w-metrics") for v in self.committed.get(name, {})]:
            assert [each for each in self.made_from[key] if each[1] not in self.committed[each[0]]] == [], key

    @invariant()
    def champion_is_a_whole_model_and_its_history_adds_up(self) -> None:
        board, history = self.board, read_history(self.board, "w")
        assert [(record.action, record.version) for record in history] == self.history
        if not history:
            return
        assert (read_champion(board, "w"), history[-1].version) == (history[-1], replay(history).stack[-1])
        for record in history:
            model = board.pin("w-model", record.version)
            assert model.sha256 == record.sha256


BoardMachine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)
TestBoard = BoardMachine.TestCase
