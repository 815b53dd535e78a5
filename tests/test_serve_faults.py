"""Faults of the service: dying and hanging kernels, bad cells, hostile callers, a lost store, a lost board, its end."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:

    from conftest import Load, Server, Workplace

TEXT = "win a free prize now"
NEW_PROCESS = 2.0  # s within which the gateway must have begun to replace a kernel
REPLACED = 10.0  # s within which a new kernel must serve; of its own time, as other processes may keep it from a core
Serve = "Callable[..., Server]"


def kill_kernel(server: Server) -> int:
    """End the oldest kernel as the system would; its process id."""
    pid = server.kernels()[0]
    os.kill(pid, signal.SIGKILL)
    return pid


def wait_for_kernels(server: Server, dead: int, count: int) -> None:
    """Wait until the dead kernel has a successor; it must have begun, and be ready, in time."""
    began = time.monotonic()
    server.wait_until(lambda: dead not in server.kernels() and len(server.kernels()) == count, seconds=60)
    assert time.monotonic() - began < NEW_PROCESS + 1, server.log.read_text()
    server.wait_until(lambda: read_metric(server, "pinmill_kernels") == count, seconds=90)
    newest = psutil.Process(server.kernels()[-1]).cpu_times()
    assert newest.user + newest.system < REPLACED, server.log.read_text()


def read_metric(server: Server, name: str) -> float:
    """The value of a metric without labels."""
    page = server.ask("GET", "/metrics").text
    return float(next(line.split()[1] for line in page.splitlines() if line.split()[0] == name))


# Kernels that die


@pytest.mark.parametrize("kernels", [1, 2])
def test_killed_kernels_leave_no_request_without_its_own_answer(
    serve: Serve, trained: Workplace, load: type[Load], kernels: int
) -> None:
    server = serve("--kernels", str(kernels), "--deadline", "60")
    server.wait_until(lambda: read_metric(server, "pinmill_kernels") == kernels, seconds=60)
    with load(server) as running:
        for _ in range(2):
            running.wait_for(200)
            wait_for_kernels(server, kill_kernel(server), kernels)
        running.wait_for(200)
    assert {(answer.status, answer.error) for answer in running.answers} == {(200, "")}
    assert len({answer.response.headers["X-Request-Id"] for answer in running.answers}) == len(running.answers)
    running.assert_own(trained)
    assert read_metric(server, "pinmill_kernel_restarts") == 2
    assert server.log.read_text().count("a kernel died and is replaced") == 2
