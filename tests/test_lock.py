"""The lock of a workflow and job: held by a living process, released when it dies."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pinmill.errors import LockedError, RunError
from pinmill.lock import Holder, check_held, hold_lock, holder_file, is_alive, read_holder

HOLD = """
import sys
from pathlib import Path
from pinmill.lock import hold_lock
with hold_lock(Path(sys.argv[1]), run="r1"):
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "spam.train.lock"


@pytest.fixture
def other(path: Path) -> Iterator[subprocess.Popen]:
    """Another process that holds the lock for run r1 until it reads a line."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], **pipes)
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_held_lock_names_its_run_and_process(path: Path, other: subprocess.Popen) -> None:
    with pytest.raises(LockedError) as caught, hold_lock(path, run="r2"):
        pass
    assert str(caught.value) == (
        f"run r1 (process {other.pid}) of spam.train is at work. Wait for it, or look at it with: pinmill runs"
    )
    assert caught.value.exit_code == 75
    holder = read_holder(path)
    assert (holder.run, holder.pid, holder.born) == (
        "r1",
        other.pid,
        pytest.approx(psutil.Process(other.pid).create_time()),
    )


def test_being_refused_leaves_the_holder_as_it_is(path: Path, other: subprocess.Popen) -> None:
    for _ in range(2):
        with pytest.raises(LockedError), hold_lock(path, run="r2"):
            pass
    check_held(path, "r1")


def test_a_holder_that_is_done_releases(path: Path, other: subprocess.Popen) -> None:
    other.communicate("\n")
    assert read_holder(path) is None
    with hold_lock(path, run="r2"):
        assert read_holder(path).run == "r2"


def test_a_holder_that_was_killed_releases(path: Path, other: subprocess.Popen) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert holder_file(path).exists()  # it had no time to remove it
    assert read_holder(path) is None
    with hold_lock(path, run="r2") as holder:
        assert read_holder(path) == holder == Holder("r2", os.getpid(), psutil.Process().create_time())


def test_a_holder_that_was_killed_and_not_reaped_does_not_hold(path: Path, other: subprocess.Popen) -> None:
    os.kill(other.pid, signal.SIGKILL)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the process table
    assert psutil.Process(other.pid).status() == psutil.STATUS_ZOMBIE
    assert read_holder(path) is None


def test_a_write_needs_the_lock_of_its_own_run(path: Path, other: subprocess.Popen) -> None:
    check_held(path, "r1")
    with pytest.raises(RunError) as caught:
        check_held(path, "r0")
    assert str(caught.value) == (
        "run r0 does not hold the lock of spam.train any more, so nothing is written under its name. "
        "Its runner ended; start again with: pinmill run spam"
    )
    other.kill()
    other.wait()
    with pytest.raises(RunError, match="run r1 does not hold the lock"):
        check_held(path, "r1")


def test_nobody_holds_a_lock_that_was_never_taken(path: Path) -> None:
    assert read_holder(path) is None
    with pytest.raises(RunError, match="run r1 does not hold the lock"):
        check_held(path, "r1")


def test_an_error_inside_releases(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold_lock(path, run="r1"):
        raise ZeroDivisionError
    assert read_holder(path) is None
    with hold_lock(path, run="r2"):
        pass


def test_two_locks_of_one_process_exclude_each_other_too(path: Path) -> None:
    with hold_lock(path, run="r1"):
        with pytest.raises(LockedError, match="run r1"), hold_lock(path, run="r2"):
            pass
        check_held(path, "r1")


def test_other_jobs_and_workflows_have_locks_of_their_own(path: Path) -> None:
    names = ["spam.train.lock", "spam.monitor.lock", "ham.train.lock", "spam-2.train.lock"]
    with hold_lock(path, run="r0"):
        for number, name in enumerate(names[1:], start=1):
            with hold_lock(path.with_name(name), run=f"r{number}"):
                assert read_holder(path.with_name(name)).run == f"r{number}"
                check_held(path, "r0")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"run": "r1"}', '{"run": "r1", "pid": 1, "born": 0, "x": 1}']
)
def test_a_damaged_note_of_the_holder_is_no_holder(path: Path, text: str) -> None:
    path.parent.mkdir()
    holder_file(path).write_text(text)
    assert read_holder(path) is None


def test_a_pid_that_was_given_again_is_not_the_holder(path: Path) -> None:
    path.parent.mkdir()
    note = {"run": "r1", "pid": os.getpid(), "born": psutil.Process().create_time() - 60}
    holder_file(path).write_text(json.dumps(note))
    assert read_holder(path) is None
    assert is_alive(os.getpid(), psutil.Process().create_time())
    assert not is_alive(2**22 + 1, 0.0)  # above Linux's largest process number
