"""The lock of one workflow and job: held by a living process, and released when it dies, however it dies."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from pinmill.errors import LockedError, RunError

CLOCK_STEP = 60.0  # s: the clock may be set while a process lives; a pid is not given again within a minute


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: a run, and the process that works on it."""

    run: str
    pid: int
    born: float  # start time of the process, so that a reused pid is not taken for it [s since 1970]


def is_alive(pid: int, born: float) -> bool:
    """Whether the process that had this pid and start time still runs."""
    import psutil

    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - born) < CLOCK_STEP and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def holder_file(path: Path) -> Path:
    return path.with_suffix(".json")


def read_holder(path: Path) -> Holder | None:
    """Who holds the lock at `path` now; None when nobody alive does."""
    try:
        holder = Holder(**json.loads(holder_file(path).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return holder if is_alive(holder.pid, holder.born) else None


@contextmanager
def hold_lock(path: Path, *, run: str) -> Iterator[Holder]:
    """Hold the lock at `path` for a run. Raises LockedError, naming the other run, when it is held."""
    import psutil

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        other = read_holder(path)
        who = f"run {other.run} (process {other.pid})" if other else "another run"
        raise LockedError(f"{who} of {path.stem} is at work. Wait for it, or look at it with: pinmill runs") from None
    try:
        holder = Holder(run, os.getpid(), psutil.Process().create_time())
        temporary = holder_file(path).with_suffix(f".{holder.pid}")
        temporary.write_text(json.dumps(asdict(holder)))
        temporary.replace(holder_file(path))
        yield holder
    finally:
        holder_file(path).unlink(missing_ok=True)
        lock.release()


def check_held(path: Path, run: str) -> None:
    """Raise RunError unless a living process holds the lock at `path` for this run."""
    holder = read_holder(path)
    if holder is None or holder.run != run:
        lost = f"run {run} does not hold the lock of {path.stem} any more, so nothing is written under its name"
        raise RunError(f"{lost}. Its runner ended; start again with: pinmill run {path.stem.split('.')[0]}")
