"""Progress: bars on a terminal, plain lines elsewhere."""

import io
import os
import pty
import re
from typing import TextIO

import pytest
from pinmill.progress import BarProgress, LineProgress, open_progress

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def work(stream: TextIO, kind: type) -> None:
    """What a run of two stages tells, the second failing in its third cell."""
    with open_progress(stream) as progress:
        assert type(progress) is kind
        progress.begin("01-prepare", 1, 2, "it never ran before")
        for done in (1, 2, 3):
            progress.cells(done, 3)
        progress.end("01-prepare", 1.26)
        progress.begin("02-train", 2, 2, "parameter model {'[bold]C': 1}")
        progress.cells(2, 5)
        progress.say("something to keep")


def read_terminal(columns: int = 100) -> str:
    """What a terminal receives from bars."""
    above, below = pty.openpty()
    try:
        with os.fdopen(below, "w") as stream:
            work(stream, BarProgress)
            stream.flush()
            os.set_blocking(above, False)
            received = b""
            while True:
                try:
                    received += os.read(above, 65536)
                except BlockingIOError:
                    return received.decode()
    finally:
        os.close(above)


def test_off_a_terminal_each_event_is_a_line_with_utc_time() -> None:
    stream = io.StringIO()
    work(stream, LineProgress)
    lines = stream.getvalue().splitlines()
    assert all(re.match(STAMP, line) for line in lines)
    assert [line.partition(" ")[2] for line in lines] == [
        "01-prepare (1/2) runs: it never ran before",
        "01-prepare is done in 1.3 s",
        "02-train (2/2) runs: parameter model {'[bold]C': 1}",
        "something to keep",
    ]
    assert "\x1b" not in stream.getvalue()


def test_a_pipe_and_a_file_get_lines(tmp_path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as source, os.fdopen(writing, "w") as sink, open_progress(sink) as progress:
        assert type(progress) is LineProgress
        progress.say("x")
        assert re.fullmatch(rf"{STAMP} x\n", source.readline())  # at once, though nobody flushed
    with (tmp_path / "log").open("w") as file:
        work(file, LineProgress)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    return read_terminal()


def test_a_terminal_gets_a_bar_for_the_stages_and_one_for_the_cells(terminal: str) -> None:
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal)
    assert re.search(r"stages +\S+ +1/2 ", plain)
    assert re.search(r"02-train +\S+ +2/5 ", plain)
    assert "\x1b[?25h" in terminal  # the cursor is there again


def test_a_terminal_keeps_what_is_said_above_the_bars(terminal: str) -> None:
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal)
    for line in ("01-prepare (1/2) runs: it never ran before", "01-prepare is done in 1.3 s", "something to keep",
                 "parameter model {'[bold]C': 1}"):  # fmt: skip
        assert line in plain
