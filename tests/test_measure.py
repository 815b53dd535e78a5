"""What a piece of work costs."""

import subprocess
import sys
import time

import pytest
from pinmill.measure import measure


def test_seconds_are_those_of_a_second_clock() -> None:
    clock = time.monotonic()
    with measure() as cost:
        sum(range(2_000_000))
    assert 0 < cost.seconds <= time.monotonic() - clock + 0.001


def test_the_cost_is_known_also_of_work_that_failed() -> None:
    with pytest.raises(ZeroDivisionError), measure() as cost:
        1 / 0  # noqa: B018
    assert cost.seconds > 0
    assert cost.peak_mb > 0


def test_memory_that_was_given_back_still_counts_as_the_peak() -> None:
    kept = b"x" * 600_000_000  # what the parent holds does not count
    code = (
        "from pinmill.measure import measure\n"
        "with measure() as cost:\n    x = b'x' * 300_000_000\n    del x\n"
        "print(cost.peak_mb)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(kept) > 0
    assert 300 < float(done.stdout) < 450  # 300 MB and the interpreter
