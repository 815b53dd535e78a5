"""A command as cron runs it: logged line by line, recorded, and silent unless it fails."""

import os
import shlex
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from logging import LogRecord, makeLogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path

from filelock import FileLock

from pinmill.errors import ParameterError
from pinmill.lock import is_alive
from pinmill.project import COMMAND, Project
from pinmill.runs import EXIT_CODES, make_run_id, record_type, write_json
from pinmill.version import now_utc

LOG_BYTES, LOG_FILES = 1_000_000, 5  # some years of a few jobs
SHOWN = 1000  # lines of a failure that go into a mail
WRONG_USE = ParameterError.exit_code  # of what was refused before it began
BY_SIGNAL = 128  # a shell's exit code of what a signal ended is this and its number


@dataclass(frozen=True)
class Firing:
    """The last time that a command was started as cron starts it; times are ISO 8601, UTC."""

    words: tuple[str, ...]
    run: str  # its id, also that of the run it makes
    started: str
    ended: str = ""
    code: int | None = None
    pid: int = 0
    born: float = 0.0
    ran: str = ""  # when this one, or the last before it, ended that was not refused, skipped or killed

    @property
    def status(self) -> str:
        """One of a run's; a check that found something has failed."""
        if self.code is None:
            return "running" if is_alive(self.pid, self.born) else "interrupted"
        known = {code: status for status, code in EXIT_CODES.items()}
        return known.get(self.code, "interrupted" if self.code > BY_SIGNAL else "failed")


class Log(RotatingFileHandler):
    """A file of lines, with some older ones beside it, that says so when it cannot be written."""

    def handleError(self, record: LogRecord) -> None:
        raise


def log_file(project: Project) -> Path:
    return project.outputs / "logs" / "schedule.log"


def firing_file(project: Project, words: Sequence[str]) -> Path:
    """Where the record of a command's last firing is."""
    return project.outputs / "schedule" / f"{sha256(shlex.join(words).encode()).hexdigest()[:16]}.json"


def read_firing(project: Project, words: Sequence[str]) -> Firing | None:
    """The last firing of a command; None where it was never fired, or the record is damaged."""
    try:
        return record_type(Firing).validate_json(firing_file(project, words).read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def fire(project: Project, words: Sequence[str]) -> int:
    """Run `pinmill WORDS` as cron does, print what it said unless it succeeded, and return its exit code.

    One that is at work already keeps its record. Raises OSError if nothing can be recorded; a log that cannot be
    written is told, and hinders nothing.
    """
    import psutil

    started, former = now_utc(), read_firing(project, words)
    own = {"pid": os.getpid(), "born": psutil.Process().create_time(), "ran": former.ran if former else ""}
    firing = Firing(tuple(words), make_run_id(started), started.isoformat(), **own)
    file, lines, unlogged = firing_file(project, words), deque(maxlen=SHOWN), set()
    overlaps = former is not None and former.status == "running"
    if not overlaps:
        write_json(file, asdict(firing))

    def say(line: str) -> None:
        """Keep a line in the log, and for the mail."""
        lines.append(line)
        try:
            write_log(project, f"{now_utc():%Y-%m-%dT%H:%M:%SZ} {firing.run} {line}")
        except OSError as error:
            unlogged.add(f"{project.relative(log_file(project))} cannot be written: {error}")

    say(f"starts: pinmill {shlex.join(words)}")
    with_id = ["run", "--run-id", firing.run, *words[1:]] if words[0] == "run" else words
    code = run_child(project, with_id, say)
    ended = now_utc()
    say(f"ended with exit code {code} after {(ended - started).total_seconds():.1f} s")
    firing = replace(firing, ended=ended.isoformat(), code=code)
    has_run = code != WRONG_USE and firing.status not in ("skipped", "interrupted")
    if has_run or not overlaps:
        write_json(file, asdict(replace(firing, ran=firing.ended if has_run else firing.ran)))
    print("\n".join([*(lines if code else ()), *unlogged]), end="\n" if code or unlogged else "")
    return code


def run_child(project: Project, words: Sequence[str], say: Callable[[str], None]) -> int:
    """Run `pinmill WORDS` as a process of its own, in the project, and say each line of its output; its exit code.

    SIGTERM goes on to it; SIGINT reaches both from a terminal, and this process waits.
    """
    process = subprocess.Popen(
        [*COMMAND, *words],
        cwd=project.root,
        env={**os.environ, "PINMILL_HOME": str(project.root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    signal.signal(signal.SIGINT, lambda *_: None)
    with process:
        for line in process.stdout:
            say(line.rstrip())
    return process.returncode if process.returncode >= 0 else BY_SIGNAL - process.returncode


def write_log(project: Project, line: str) -> None:
    """Append a line to the log, which other firings write too. Raises OSError."""
    file, lock = log_file(project), project.outputs / "locks" / "schedule-log.lock"
    for folder in (file.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        log = Log(file, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8", delay=True)
        try:
            log.emit(makeLogRecord({"msg": line}))
        finally:
            log.close()
