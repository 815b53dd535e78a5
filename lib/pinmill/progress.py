"""What a person sees while a run works: bars on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from pinmill.version import now_utc


class LineProgress:
    """One line for each event, with a UTC time: for cron, logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def say(self, text: str) -> None:
        """Show a line for good."""
        print(f"{now_utc():%Y-%m-%dT%H:%M:%SZ} {text}", file=self.stream, flush=True)

    def begin(self, stage: str, number: int, stages: int, why: str) -> None:
        """A stage starts to run, and why it does."""
        self.say(f"{stage} ({number}/{stages}) runs: {why}")

    def cells(self, done: int, total: int) -> None:
        """Cells of the current stage that are done."""

    def end(self, stage: str, seconds: float) -> None:
        """A stage is done."""
        self.say(f"{stage} is done in {seconds:.1f} s")


class BarProgress(LineProgress):
    """A bar for the stages and one for the cells of the stage at work."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self.bars = Progress(*columns, console=Console(file=stream), transient=True)
        self.stages_bar = self.bars.add_task("stages", total=None)
        self.cells_bar = self.bars.add_task("cells", total=None)

    def say(self, text: str) -> None:
        self.bars.console.print(text, markup=False, highlight=False)

    def begin(self, stage: str, number: int, stages: int, why: str) -> None:
        """A stage starts to run: its cells are counted from none, those before it are done."""
        super().begin(stage, number, stages, why)
        self.bars.update(self.stages_bar, completed=number - 1, total=stages)
        self.bars.reset(self.cells_bar, description=stage, total=None)

    def cells(self, done: int, total: int) -> None:
        self.bars.update(self.cells_bar, completed=done, total=total)


@contextmanager
def open_progress(stream: TextIO = sys.stderr) -> Iterator[LineProgress]:
    """Bars while the block runs when `stream` is a terminal, otherwise plain lines."""
    if not stream.isatty():
        yield LineProgress(stream)
        return
    progress = BarProgress(stream)
    with progress.bars:
        yield progress
