"""The loop in a serving kernel: requests come over a socket of ours, the notebook's cells answer, one after the other.

Each endpoint cell is compiled once, to a function of REQUEST and CALLER. What it assigns is its own and gone with the
answer; what it only reads is the kernel's; what it prints is the answer.
"""

import ast
import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import zmq

from pinmill.errors import PinmillError, ProjectError

CELLS, NEWS = "cells", "news"  # sockets in the folder that gateway and kernel share: requests, and what was loaded
SPACE = frozenset(" \t\n\r")  # that JSON allows between values
# Shares of the gateway's deadline. A row that hangs ends after a quarter, with the rows beside it; then each is alone.
MANY, AGAIN, ALONE = 0.25, 0.5, 0.9  # time for rows together, for each of those that were late, for a row or a cell
WRAP = "def cell(REQUEST, CALLER):\n    yield\n"
Cell = Callable[[str, Mapping[str, str] | None], Iterator[None]]


class LateError(BaseException):
    """A cell took longer than it may; not for the cell to catch."""


class Printed(io.StringIO):
    """What the thread that made this prints; what another one prints, such as one that a cell left behind, is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.owner = threading.get_ident()

    def write(self, text: str) -> int:
        """Keep what the owner prints."""
        return super().write(text) if threading.get_ident() == self.owner else len(text)


def compile_cell(name: str, source: str, info: str, names: dict[str, Any]) -> Cell:
    """The function that a cell is: it prints the answer, yields, and prints what its ResponseInfo cell prints.

    `names` are the kernel's own, which it reads. Raises ProjectError for what cannot stand in a function.
    """
    try:
        for part in (source, info):  # what is wrong outside a function as well: magics, return, await
            compile(part, f"<{name}>", "exec", dont_inherit=True)
        module, body, told = ast.parse(WRAP), ast.parse(source).body, ast.parse(info).body
        function = module.body[0]
        function.body = [*body, *function.body, *told]
        own: dict[str, Any] = {}
        exec(compile(module, f"<{name}>", "exec"), names, own)
    except SyntaxError as error:
        raise ProjectError(
            f"the cell {name} cannot answer requests: {error.msg} (line {error.lineno} of the cell). "
            "It becomes a function: no magics, no `import *`, no `return`."
        ) from None
    return own["cell"]


def run_step(steps: Iterator[None]) -> str:
    """What a cell prints: at the first step its answer, at the second what its ResponseInfo cell tells."""
    with redirect_stdout(Printed()) as printed:
        next(steps, None)
    return printed.getvalue()


def split_items(text: str, count: int) -> list[str]:
    """The JSON texts of the items of a list that a cell printed, a line each.

    Raises ValueError unless it printed a JSON list of `count` items and nothing else.
    """
    place, items, scan = skip_space(text, 0), [], DECODER.scan_once
    try:
        is_list = text[place] == "["
        while text[place] == ("," if items else "["):
            place = skip_space(text, place + 1)
            if text[place] == "]" and not items:
                break
            _, end = scan(text, place)
            items.append(text[place:end].replace("\n", " "))
            place = skip_space(text, end)
        whole = is_list and text[place] == "]" and skip_space(text, place + 1) == len(text)
    except (IndexError, StopIteration):
        whole = False
    if not whole or len(items) != count:
        raise ValueError("no JSON list of as many items as there were rows")
    return items


def skip_space(text: str, place: int) -> int:
    """The first place at or after `place` that is no white space."""
    while place < len(text) and text[place] in SPACE:
        place += 1
    return place


def refuse(constant: str) -> None:
    """Raises ValueError: JSON knows no such constant."""
    raise ValueError(f"{constant} is no JSON")


DECODER = json.JSONDecoder(parse_constant=refuse)


def locate(error: BaseException, name: str) -> dict[str, Any]:
    """Which kind of error a cell raised, and where; not its words, which may hold a secret or somebody's text."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == f"<{name}>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return {"cell": name, "error": type(error).__name__, "line": line}


class Worker:
    """A kernel's side of the sockets."""

    seconds = 0.0  # the gateway's deadline; 0: cells take as long as they like

    def __init__(self, names: dict[str, Any], folder: str | Path) -> None:
        if "service" not in names:
            raise ProjectError("the notebook has no `service`: it needs the cell `service = open_service(run)`.")
        self.names, self.service = names, names["service"]
        self.cells: dict[str, Cell] = {}
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.PAIR)
        self.socket.connect(f"ipc://{folder}/{CELLS}")
        self.news = self.context.socket(zmq.PUSH)
        self.news.connect(f"ipc://{folder}/{NEWS}")
        self.speaking = threading.Lock()  # `news` is used by threads that load
        self.say("hello", self.tell_loaded())

    def tell_loaded(self) -> dict[str, Any]:
        """The version that the cells speak of, or why there is none."""
        champion = self.service.champion
        return {"version": champion.version if champion else None, "problem": self.service.problem}

    def say(self, what: str, value: Mapping[str, Any]) -> None:
        """Tell the gateway something, under a name."""
        with self.speaking:
            self.news.send_multipart([what.encode(), json.dumps(value).encode()])

    def serve(self) -> None:
        """Answer messages until the kernel is ended."""
        take = {b"cells": self.take_cells, b"load": self.take_load, b"choose": self.take_choose}
        answer = {b"rows": self.answer_rows, b"cell": self.answer_cell}
        while True:
            kind, number, *frames = self.socket.recv_multipart()
            if kind in take:
                take[kind](*frames)
            else:
                self.socket.send_multipart([number, *answer[kind](*frames)])

    def take_cells(self, cells: bytes) -> None:
        """Compile the cells; the news say whether all could be."""
        try:
            self.cells = {each["name"]: compile_cell(**each, names=self.names) for each in json.loads(cells)}
            self.say("compiled", {"problem": ""})
        except PinmillError as error:
            self.say("compiled", {"problem": str(error)})

    def take_load(self, version: bytes) -> None:
        """Load a version beside the work; the news say when it is there, or what is wrong with it."""
        threading.Thread(target=self.load, args=(version.decode(),), daemon=True).start()

    def load(self, version: str) -> None:
        """Load a version and say how that went."""
        try:
            self.service.load(version)
            problem = ""
        except Exception as error:
            problem = str(error) if isinstance(error, PinmillError) else type(error).__name__
        self.say("loaded", {"version": version, "problem": problem, "held": self.service.versions})

    def take_choose(self, version: bytes) -> None:
        """Let the cells speak of a version that was loaded."""
        self.service.choose(version.decode())

    def answer_rows(self, name: bytes, args: bytes, rows: bytes) -> list[bytes]:
        """The JSON texts of a row-wise cell's items, a line each; an empty line, and a fault, for a row that failed."""
        faults: list[dict[str, Any]] = []
        items = self.score(name.decode(), args.decode(), rows.decode().split("\n"), faults)
        return ["\n".join(items).encode(), json.dumps(faults).encode() if faults else b""]

    def score(
        self, name: str, args: str, rows: Sequence[str], faults: list[dict[str, Any]], share: float = 0.0
    ) -> list[str]:
        """The item of each row; where the cell fails, the half that it fails on is found until one row is left."""
        request = f'{{"body": [{",".join(rows)}], "args": {args}, "path": {{}}, "headers": {{}}}}'
        try:
            steps = self.cells[name](request, None)
            return split_items(self.run(steps, share or (MANY if len(rows) > 1 else ALONE)), len(rows))
        except BaseException as error:
            if len(rows) == 1:
                faults.append(locate(error, name))
                return [""]
            size, share = (1, AGAIN) if isinstance(error, LateError) else ((len(rows) + 1) // 2, 0.0)
        parts = [rows[place : place + size] for place in range(0, len(rows), size)]
        return [item for part in parts for item in self.score(name, args, part, faults, share)]

    def run(self, steps: Iterator[None], share: float) -> str:
        """What a cell prints within a share of the deadline. Raises LateError, and whatever the cell raises."""
        if not self.seconds:
            return run_step(steps)
        try:
            signal.setitimer(signal.ITIMER_REAL, share * self.seconds)
            return run_step(steps)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def answer_cell(self, name: bytes, request: bytes, caller: bytes) -> list[bytes]:
        """What a cell printed, what its ResponseInfo cell printed and of which version both speak, or its fault."""
        try:
            steps = self.cells[name.decode()](request.decode(), json.loads(caller))
            answer, info = self.run(steps, ALONE), self.run(steps, ALONE)
            version = self.tell_loaded()["version"] or ""
            return [answer.encode(), info.encode(), version.encode(), b""]
        except BaseException as error:
            return [b"", b"", b"", json.dumps(locate(error, name.decode())).encode()]


def give_up(*_: object) -> None:
    """End the cell that runs. Raises LateError."""
    raise LateError


def work(worker: Worker, seconds: float) -> None:
    """Serve the notebook of a worker until the kernel is ended; nothing is shown in it any more.

    `seconds` is the gateway's deadline. To be called in the main thread, where a signal ends a cell that hangs.
    """
    import pinmill.service

    pinmill.service.INDENT = None  # what a cell prints here is read by programs
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        worker.seconds = seconds
        signal.signal(signal.SIGALRM, give_up)
        worker.serve()
