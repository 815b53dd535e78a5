"""Waiting for what another process or thread does and tells nobody: the one place where tests look again and again."""

import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest


def wait_until(
    holds: Callable[[], Any], what: str = "it", *, seconds: float = 90.0, process: subprocess.Popen | None = None
) -> Any:
    """What `holds` returns, once that is true. The test fails when that takes longer, or `process` ends before."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        if process is not None and process.poll() is not None:
            pytest.fail(f"{what} did not come: its process ended with {process.returncode}\n{process.communicate()}")
        if time.monotonic() > end:
            pytest.fail(f"{what} did not come within {seconds:g} s")
        time.sleep(0.02)
    return found
