"""Kernels started ahead of their work, each with sockets of its own and its imports loaded."""

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync

WARM_UP = "__import__('pinmill.session').session.warm_up()"
LIKELY = "import pyarrow.parquet\nimport skops.io\nimport sklearn.pipeline"  # what reading pins will import


@dataclass(frozen=True)
class Kernel:
    """A started kernel with a folder of its own for its sockets; nothing of it is shared with another kernel."""

    manager: AsyncKernelManager
    folder: Path

    def stop(self) -> None:
        """End the kernel at once and remove its folder. Its notebook has been read out before."""
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
    """
    folder = Path(tempfile.mkdtemp(prefix="pinmill-"))
    manager = InterpreterKernelManager(
        transport="ipc", ip=str(folder / "socket"), connection_file=str(folder / "connection.json")
    )
    env = {**os.environ, **environ, "PINMILL_WARM": imports}
    arguments = [f"--IPKernelApp.exec_lines={WARM_UP}", "--HistoryManager.enabled=False"]
    run_sync(manager.start_kernel)(cwd=str(cwd), env=env, extra_arguments=arguments)
    return Kernel(manager, folder)
