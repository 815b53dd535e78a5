"""Kernels started ahead of their work, each with sockets of its own and its imports loaded."""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync

WARM_UP = "__import__('pinmill.session').session.warm_up()"
LIKELY = {  # what the methods of a run import, by the part of their name that a cell shows
    "_table(": "import pyarrow.parquet",
    "_model(": "import skops.io\nimport sklearn.pipeline",
}


def find_imports(code: Iterable[str]) -> str:
    """The import statements in cells, and those that the methods in them will need, one a line."""
    lines = []
    for source in code:
        with suppress(SyntaxError):
            nodes = ast.walk(ast.parse(source))
            lines += [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        lines += [imports for part, imports in LIKELY.items() if part in source]
    return "\n".join(dict.fromkeys(lines))


@dataclass(frozen=True)
class Kernel:
    """A started kernel with a folder of its own for its sockets; nothing of it is shared with another kernel."""

    manager: AsyncKernelManager
    folder: Path

    def stop(self) -> None:
        """End the kernel at once and remove its folder. Its notebook has been read out before."""
        if self.manager.has_kernel and (process := self.manager.provisioner.process):
            run_sync(self.manager.provisioner.kill)()
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)  # a moment; jupyter_client looks only every 0.1 s
        run_sync(self.manager.shutdown_kernel)(now=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class InterpreterKernelManager(AsyncKernelManager):
    """A manager of kernels of the interpreter that runs us, whatever kernelspecs this machine has."""

    @property
    def kernel_spec(self) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Pinmill", language="python")


def start_kernel(cwd: Path, environ: Mapping[str, str], *, imports: str) -> Kernel:
    """A kernel that starts in the background and imports what its notebook will need.

    Its sockets are files in a private folder: TCP ports clash when several kernels start at once.
    What it writes past Jupyter goes nowhere: in our own output a secret could stand in it, unseen by us.
    """
    folder = Path(tempfile.mkdtemp(prefix="pinmill-"))
    manager = InterpreterKernelManager(
        transport="ipc", ip=str(folder / "socket"), connection_file=str(folder / "connection.json")
    )
    # Threads that wait give up their core: spinning, they make boosting on a busy machine several times slower.
    env = {"OMP_WAIT_POLICY": "passive", **os.environ, **environ, "PINMILL_WARM": imports}
    manager.session.key = b""  # who can reach the sockets could read a key too: both lie in a folder of our own
    # Not sleeping 0.5 ms after each cell is safe for us: we wait for `idle`, which follows all outputs.
    arguments = [f"--IPKernelApp.exec_lines={WARM_UP}", "--HistoryManager.enabled=False", "--Kernel._execute_sleep=0"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run_sync(manager.start_kernel)(cwd=str(cwd), env=env, extra_arguments=arguments, **silent)
    return Kernel(manager, folder)
