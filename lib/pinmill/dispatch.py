"""What is asked of the kernels: rows gathered into batches, other cells one by one, each with its deadline.

A batch is everything of one kind that came in one turn of the event loop, or while the kernel worked on the last two.
When a kernel is lost, rows are tried once more, each alone, so that only the row that ends a kernel fails.
"""

import asyncio
import json
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any, Protocol

from pinmill.problem import Problem
from pinmill.worker import LateError

BATCH = 64  # rows: more gain nothing, and keep others waiting
LONGEST = 0.5  # s that a batch of a slow model may take: it has fewer rows then
MOST_CELLS = 100  # requests of other cells that may wait: anybody may send some, and each takes a turn of the rows
CELL = ("cell",)  # the one group of all these, so that they take one turn together
AHEAD = 2  # batches a kernel has at a time: one that it works on, one that waits beside it
GONE = "The kernel ended while it worked on this, and nobody knows how far it came. Look before you send it again."
LATE_CELL = "There was no answer within {:g} s. Nobody knows how far it came. Look before you send it again."
TWICE = "The kernel ended twice on this row. The row, or the model, is at fault."
LATE = "There was no answer within {:g} s. Send it again later, with fewer rows at a time, or set --deadline."
FULL = "More is waiting than can be answered in time. Send it again in a moment."


@dataclass(eq=False, slots=True)
class Task:
    """One thing to ask of a kernel: rows of a row-wise cell, or one request of another cell."""

    frames: list[bytes]  # what precedes the rows: kind is "rows", name and args; or the whole request
    rows: Sequence[str]  # canonical; empty for a cell
    answer: "asyncio.Future[Any]"
    deadline: float
    group: tuple = ()
    tried: bool = False  # a kernel was lost with it


@dataclass(eq=False, slots=True)
class Batch:
    """Tasks of one group that went to a kernel together."""

    tasks: list[Task]
    is_rows: bool
    suspect: bool


class Wire(Protocol):
    """What the dispatcher needs of a kernel."""

    in_flight: "OrderedDict[bytes, Batch]"
    busy_since: float

    def send(self, frames: list[bytes]) -> None:
        """Hand frames over to the kernel."""


@dataclass(eq=False)
class Dispatcher:
    """The queue between the requests and the kernels; everything happens on one event loop."""

    seconds: float  # deadline of a request
    most: int  # rows and requests that may wait
    report: Callable[[dict[str, Any]], None] = lambda fault: None  # is told of each fault of a cell
    wires: list[Wire] = field(default_factory=list)
    groups: "OrderedDict[tuple, deque[Task]]" = field(default_factory=OrderedDict)
    waiting: int = 0
    size: int = BATCH  # rows in a batch, by the pace of the last ones
    pace: float = 0.0  # s a row, smoothed
    soon: bool = False  # batches are handed out after this turn of the event loop
    numbers: Any = field(default_factory=count)

    def ask_rows(self, name: bytes, args: bytes, rows: Sequence[str]) -> "list[asyncio.Future[list[bytes]]]":
        """Ask a row-wise cell for the items of rows: a future for each part of at most `size` rows."""
        self.check_room(len(rows))
        if len(rows) <= self.size:
            return [self.add([b"rows", name, args], rows, (name, args))]
        own = next(self.numbers)  # takes turns with others, who would wait long behind it
        parts = (rows[place : place + self.size] for place in range(0, len(rows), self.size))
        return [self.add([b"rows", name, args], part, (name, args, own)) for part in parts]

    def ask_cell(self, name: bytes, request: bytes, caller: bytes) -> "asyncio.Future[tuple[bytes, bytes, bytes]]":
        """Ask a cell: what it prints, what its ResponseInfo cell prints, and of which version both speak.

        Raises Problem (503) when as much as may wait does wait already.
        """
        self.check_room(1)
        if len(self.groups.get(CELL, ())) >= MOST_CELLS:
            raise Problem(503, FULL, headers={"Retry-After": "1"})
        return self.add([b"cell", name, request, caller], (), CELL)

    def check_room(self, rows: int) -> None:
        """Raises Problem (503) when too much waits."""
        if self.waiting and self.waiting + rows > self.most:
            raise Problem(503, FULL, headers={"Retry-After": "1"})

    def add(self, frames: list[bytes], rows: Sequence[str], group: tuple) -> "asyncio.Future[Any]":
        """Have something asked of a kernel, with what else comes in this turn of the event loop; its answer to be."""
        loop = asyncio.get_running_loop()
        task = Task(frames, rows, loop.create_future(), loop.time() + self.seconds, group)
        self.put(task)
        if not self.soon:
            self.soon = True
            loop.call_soon(self.pump)
        return task.answer

    def put(self, task: Task) -> None:
        """Put a task at the end of its group."""
        self.groups.setdefault(task.group, deque()).append(task)
        self.waiting += len(task.rows) or 1

    def pump(self) -> None:
        """Hand out batches while there is something to do and a kernel with room for it."""
        self.soon = False
        while self.groups:
            suspect = next(iter(self.groups.values()))[0].tried
            free = [wire for wire in self.wires if has_room(wire, suspect)]
            if not free:
                return
            self.hand_out(min(free, key=lambda wire: len(wire.in_flight)), self.share(free))

    def share(self, free: Sequence[Wire]) -> int:
        """How many rows of the next group one kernel gets: those that idle share what there is."""
        idle = sum(not wire.in_flight for wire in free)
        if idle < 2:
            return self.size
        tasks = islice(next(iter(self.groups.values())), idle * self.size)
        return min(self.size, -(-sum(len(task.rows) for task in tasks) // idle))

    def hand_out(self, wire: Wire, most: int) -> None:
        """Send the next batch to a kernel; groups take turns, and a request of a cell is a batch of its own."""
        group, queue = self.groups.popitem(last=False)
        tasks, rows = [], 0
        while queue and (not tasks or (rows and rows + len(queue[0].rows) <= most)):
            task = queue.popleft()
            self.waiting -= len(task.rows) or 1
            if not task.answer.done():
                tasks.append(task)
                rows += len(task.rows)
        if queue:
            self.groups[group] = queue
        if tasks:
            first, number = tasks[0], next(self.numbers).to_bytes(8, "big")
            kind, *frames = first.frames
            body = ["\n".join(row for task in tasks for row in task.rows).encode()] if first.rows else []
            if not wire.in_flight:
                wire.busy_since = asyncio.get_running_loop().time()
            wire.in_flight[number] = Batch(tasks, bool(first.rows), first.tried)
            wire.send([kind, number, *frames, *body])

    def take(self, wire: Wire, number: bytes, *frames: bytes) -> None:
        """Give an answer of a kernel to those who asked."""
        batch, now = wire.in_flight.pop(number, None), asyncio.get_running_loop().time()
        if batch and batch.is_rows:
            self.keep_pace((now - wire.busy_since) / sum(len(task.rows) for task in batch.tasks))
        wire.busy_since = now
        self.pump()
        if batch is None:
            return
        faults = json.loads(frames[-1]) if frames[-1] else []
        for fault in faults if batch.is_rows else [faults] * bool(faults):
            self.report(fault)
        if not batch.is_rows:
            if faults and faults.get("error") == LateError.__name__:
                fail(batch.tasks[0], Problem(504, LATE_CELL.format(self.seconds)))
            settle(batch.tasks[0], None if faults else frames[:3])
            return
        items, place = frames[0].split(b"\n"), 0
        for task in batch.tasks:
            settle(task, items[place : place + len(task.rows)])
            place += len(task.rows)

    def keep_pace(self, seconds: float) -> None:
        """Have batches take no longer than LONGEST, going by the seconds that a row took."""
        self.pace += (seconds - self.pace) / 8
        self.size = max(1, int(LONGEST / max(self.pace, LONGEST / BATCH)))

    def lose(self, wire: Wire) -> None:
        """Answer for a kernel that is gone: rows are tried once more, each alone; all else is told."""
        if wire in self.wires:
            self.wires.remove(wire)
        for batch in wire.in_flight.values():
            for task in batch.tasks:
                self.try_again(task)
        wire.in_flight.clear()
        self.pump()

    def try_again(self, task: Task) -> None:
        """Have the rows of a lost kernel tried once more, each alone; other tasks are told that it is gone."""
        if task.answer.done():
            return
        if task.tried or not task.rows:
            fail(task, Problem(500, TWICE) if task.rows else Problem(503, GONE))
            return
        parts = [Task(task.frames, [row], task.answer.get_loop().create_future(), task.deadline) for row in task.rows]
        for part in parts:
            part.tried, part.group = True, ("again", next(self.numbers))
            self.put(part)
        joined = asyncio.gather(*(part.answer for part in parts), return_exceptions=True)
        joined.add_done_callback(lambda done: conclude(task, done.result()))

    def sweep(self, now: float) -> list[Wire]:
        """Answer those whose deadline has passed; the kernels that hang."""
        for group, queue in list(self.groups.items()):
            while queue and (queue[0].answer.done() or queue[0].deadline < now):
                task = queue.popleft()
                self.waiting -= len(task.rows) or 1
                fail(task, Problem(504, LATE.format(self.seconds)))
            if not queue:
                del self.groups[group]
        for task in [t for wire in self.wires for batch in wire.in_flight.values() for t in batch.tasks]:
            if task.deadline < now:
                fail(task, Problem(504, (LATE if task.rows else LATE_CELL).format(self.seconds)))
        return [wire for wire in self.wires if wire.in_flight and now - wire.busy_since > self.seconds]


def has_room(wire: Wire, suspect: bool) -> bool:
    """Whether a kernel may have another batch; a row that may have ended one has it for itself."""
    if suspect:
        return not wire.in_flight
    return len(wire.in_flight) < AHEAD and not any(batch.suspect for batch in wire.in_flight.values())


def settle(task: Task, result: Any) -> None:
    """Give a task its answer, unless nobody waits for it any more; None stands for a fault."""
    if not task.answer.done():
        task.answer.set_result(result)


def fail(task: Task, problem: Problem) -> None:
    """Give a task a problem for an answer, unless it has one."""
    if not task.answer.done():
        task.answer.set_exception(problem)


def conclude(task: Task, parts: Sequence[Any]) -> None:
    """Give a task the items of its rows, which were tried alone: empty for one that failed; all late if one was."""
    late = [part for part in parts if isinstance(part, Problem) and part.status == 504]
    if late:
        fail(task, late[0])
    else:
        settle(task, [b"" if isinstance(part, BaseException) else part[0] for part in parts])
