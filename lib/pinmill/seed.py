"""What every kernel of a service begins with: the notebook's other cells, run once, and the loop that answers."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty
from typing import Any

import psutil
from jupyter_client.blocking import BlockingKernelClient

from pinmill import __version__
from pinmill.cell import INJECTED
from pinmill.endpoint import Endpoint
from pinmill.errors import RunError
from pinmill.kernel import Kernel, start_kernel
from pinmill.notebook import find_parameters_cell, read_cells
from pinmill.visit import STARTED

BOOT_SECONDS = 120.0  # to start a kernel and run the notebook's other cells
# The worker is made by a cell, so that what is wrong with the notebook is told; its loop never ends, and tells nothing.
MAKE_WORKER = "_pinmill_worker = __import__('pinmill.worker').worker.Worker(globals(), {!r})"
WORK = "__import__('pinmill.worker').worker.work(globals().pop('_pinmill_worker'), {!r})"
AHEAD_OF_TIME = "import pinmill.worker\nimport pinmill.scorer\nimport sklearn.pipeline"
# One thread a kernel: batches are small, and threads that spin would take the gateway's core.
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Seed:
    """What every kernel of a workflow begins with."""

    root: Path
    settings: Mapping[str, str]
    workflow: str
    notebook: str  # its name, such as serve.ipynb
    sources: tuple[str, ...]  # of the cells that are no endpoints, the injected parameters among them
    endpoints: tuple[Endpoint, ...]

    def hash_code(self, cell: Endpoint, values: Mapping[str, Any]) -> str:
        """Identity of what an item depends on beside model and row: the notebook, its parameters, and Pinmill."""
        given = json.dumps({name: str(value) for name, value in values.items()}, sort_keys=True)
        return hashlib.sha256("\0".join([cell.hash, *self.sources, given, __version__]).encode()).hexdigest()


def make_seed(root: Path, settings: Mapping[str, str], workflow: str, notebook: Path, read: Any) -> Seed:
    """The seed of a notebook; `read` is what read_endpoints gives for it."""
    endpoints, sources = read
    parameters = find_parameters_cell(read_cells(notebook))
    injected = [
        part for s in sources for part in ([s, f"{INJECTED}workflow = {workflow!r}"] if s == parameters else [s])
    ]
    return Seed(root, settings, workflow, notebook.name, tuple(injected), tuple(endpoints))


def start_serving(root: Path, settings: Mapping[str, str], notebook: str) -> Kernel:
    """A kernel's process that imports what a service needs; returns at once."""
    began = datetime.fromtimestamp(psutil.Process().create_time(), UTC).isoformat(timespec="seconds")
    environ = {**settings, **THREADS, "PINMILL_HOME": str(root), "JPY_SESSION_NAME": notebook, STARTED: began}
    return start_kernel(root, environ, imports=AHEAD_OF_TIME)


def seed_kernel(kernel: Kernel, seed: Seed, seconds: float) -> None:
    """Run the notebook's other cells in a kernel, then the loop that answers within `seconds`. Blocks for a while.

    Raises RunError.
    """
    client = kernel.manager.blocking_client()
    client.start_channels(shell=True, iopub=False, stdin=False, hb=False, control=False)
    try:
        for source in seed.sources:
            if raised := run_source(client, kernel, source, seed.notebook):
                first = source.strip().partition("\n")[0][:80]
                told = f"{seed.notebook}, the cell {first!r} raised {raised}"
                raise RunError(f"{told}. Run it in JupyterLab, and correct it.")
        if raised := run_source(client, kernel, MAKE_WORKER.format(str(kernel.folder)), seed.notebook):
            raise RunError(f"{seed.notebook}: {raised}")
        client.execute(WORK.format(seconds), silent=True)
    finally:
        client.stop_channels()


def run_source(client: BlockingKernelClient, kernel: Kernel, source: str, notebook: str) -> str:
    """Run one cell and wait for its end; what it raised, if it did. Raises RunError when it does not end so."""
    client.execute(source)
    for _ in range(int(BOOT_SECONDS)):
        with suppress(Empty):
            found = client.get_shell_msg(timeout=1)["content"]
            return "" if found["status"] == "ok" else f"{found.get('ename')}: {found.get('evalue')}"
        if kernel.manager.provisioner.process.poll() is not None:
            raise RunError(f"the kernel of {notebook} ended while it ran the notebook's cells.")
    raise RunError(f"a cell of {notebook} did not end within {BOOT_SECONDS:g} s.")
