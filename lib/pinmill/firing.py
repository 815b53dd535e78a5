"""A command as cron runs it: logged line by line, recorded, and silent unless it fails; and how each job last ended."""

import os
import shlex
import signal
import subprocess
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from hashlib import sha256
from logging import LogRecord, makeLogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path
from threading import Thread
from typing import IO

from filelock import FileLock

from pinmill.errors import ParameterError
from pinmill.lock import is_alive
from pinmill.project import COMMAND, Project
from pinmill.runs import EXIT_CODES, RunRecord, make_run_id, read_records, record_type, write_json
from pinmill.schedule import Job
from pinmill.version import now_utc

LOG_BYTES, LOG_FILES = 1_000_000, 5  # some years of a few jobs
SHOWN = 1000  # lines of a failure that go into a mail
WRONG_USE = ParameterError.exit_code  # of what was refused before it began
EVERY = 0.5  # s: how often the output of a command is looked at
BY_SIGNAL = 128  # a shell's exit code of what a signal ended is this and its number


@dataclass(frozen=True)
class Firing:
    """The last time that a command was started as cron starts it; times are ISO 8601, UTC."""

    words: tuple[str, ...]
    run: str  # its id, also that of the run it makes
    started: str
    ended: str = ""
    code: int | None = None
    pid: int = 0  # of the process that fired it, which may be killed
    born: float = 0.0
    child: int = 0  # of the command itself, which goes on then
    child_born: float = 0.0
    ran: str = ""  # when this one, or the last before it, ended that was not refused, skipped or killed

    @property
    def status(self) -> str:
        """One of a run's; a check that found something has failed."""
        if self.code is None:
            alive = is_alive(self.pid, self.born) or is_alive(self.child, self.child_born)
            return "running" if alive else "interrupted"
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


def said_file(project: Project, run: str) -> Path:
    """Where a command's output is while it is at work: a pipe would break, and end it, with the process that fired."""
    return project.outputs / "schedule" / f"{run}.log"


def read_firing(project: Project, words: Sequence[str]) -> Firing | None:
    """The last firing of a command; None where it was never fired, or the record is damaged."""
    try:
        return record_type(Firing).validate_json(firing_file(project, words).read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def fire(project: Project, words: Sequence[str]) -> int:
    """Run `pinmill WORDS` as cron does, print what it said unless it succeeded, and return its exit code.

    One that is at work already keeps its record. The command goes on if this process is killed, and what it says then
    is logged at the next firing. Raises OSError if nothing can be recorded; a log that cannot be written is told, and
    hinders nothing.
    """
    import psutil

    started, former = now_utc(), read_firing(project, words)
    own = {"pid": os.getpid(), "born": psutil.Process().create_time(), "ran": former.ran if former else ""}
    firing = Firing(tuple(words), make_run_id(started), started.isoformat(), **own)
    file, lines, unlogged = firing_file(project, words), deque(maxlen=SHOWN), set()
    overlaps = former is not None and former.status == "running"
    if not overlaps:
        write_json(file, asdict(firing))

    def log(line: str, run: str = firing.run) -> None:
        """Keep a line in the log."""
        try:
            write_log(project, f"{now_utc():%Y-%m-%dT%H:%M:%SZ} {run} {line}")
        except OSError as error:
            unlogged.add(f"{project.relative(log_file(project))} cannot be written: {error}")

    def say(line: str) -> None:
        """Keep a line in the log, and for the mail."""
        lines.append(line)
        log(line)

    if former and not overlaps and (left := said_file(project, former.run)).is_file():
        for line in left.read_text(encoding="utf-8", errors="replace").splitlines():
            log(line, former.run)
        left.unlink()
    say(f"starts: pinmill {shlex.join(words)}")
    said = said_file(project, firing.run)
    with said.open("ab") as output:
        process = start_child(project, words, firing.run, output)
        firing = replace(firing, child=process.pid, child_born=psutil.Process(process.pid).create_time())
        if not overlaps:
            write_json(file, asdict(firing))
        for line in follow(process, output):
            say(line)
    said.unlink(missing_ok=True)
    code, ended = process.returncode if process.returncode >= 0 else BY_SIGNAL - process.returncode, now_utc()
    say(f"ended with exit code {code} after {(ended - started).total_seconds():.1f} s")
    firing = replace(firing, ended=ended.isoformat(), code=code)
    has_run = code != WRONG_USE and firing.status not in ("skipped", "interrupted")
    if has_run or not overlaps:
        write_json(file, asdict(replace(firing, ran=firing.ended if has_run else firing.ran)))
    print("\n".join([*(lines if code else ()), *unlogged]), end="\n" if code or unlogged else "")
    return code


def start_child(project: Project, words: Sequence[str], run: str, output: IO[bytes]) -> subprocess.Popen:
    """Start `pinmill WORDS` as a process of its own, in the project, whose output goes to a file.

    SIGTERM goes on to it; SIGINT reaches both from a terminal, and this process waits.
    """
    with_id = ["run", "--run-id", run, *words[1:]] if words[0] == "run" else words
    process = subprocess.Popen(
        [*COMMAND, *with_id],
        cwd=project.root,
        env={**os.environ, "PINMILL_HOME": str(project.root)},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    signal.signal(signal.SIGINT, lambda *_: None)
    return process


def follow(process: subprocess.Popen, output: IO[bytes]) -> Iterator[str]:
    """The lines that a process writes to a file, as they come, until it ends."""
    waiter, rest, ended = Thread(target=process.wait, daemon=True), b"", False
    waiter.start()
    with open(output.name, "rb") as said:
        while not ended:
            waiter.join(EVERY)
            ended = not waiter.is_alive()
            whole, line_end, rest = (rest + said.read()).rpartition(b"\n")
            given = whole + line_end + rest * ended
            yield from (line.rstrip() for line in given.decode("utf-8", errors="replace").splitlines())


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


def is_alone(job: Job, jobs: Sequence[Job]) -> bool:
    """Whether no other line runs the same job, so that every run of it counts for this line."""
    return bool(job.job) and Counter((each.workflow, each.job) for each in jobs)[job.workflow, job.job] == 1


def find_run(project: Project, job: Job, but: Sequence[str]) -> RunRecord | None:
    """The newest run of a job, by cron or by hand, that has none of some statuses."""
    records = read_records(project.runs_folder(job.workflow))
    return next((record for record in records if record.job == job.job and record.status not in but), None)


def find_last(project: Project, job: Job, *, alone: bool) -> dict[str, str]:
    """When a job was last started, and how it ended."""
    found = [read_firing(project, job.words), find_run(project, job, ("skipped", "unreadable")) if alone else None]
    last = max(filter(None, found), key=lambda each: each.started, default=None)
    return {"started": last.started, "status": last.status, "run": last.run} if last else {"started": "", "status": ""}


def find_end(project: Project, job: Job, *, alone: bool, now: datetime) -> datetime | None:
    """Until when a job was at work in its last run that was neither killed nor skipped; None where there is none."""
    firing = read_firing(project, job.words)
    run = find_run(project, job, ("skipped", "unreadable", "interrupted")) if alone else None
    if any(each and each.status == "running" for each in (firing, run)):
        return now
    ends = [firing.ran if firing else "", run.ended if run else ""]
    return max((datetime.fromisoformat(end) for end in ends if end), default=None)
