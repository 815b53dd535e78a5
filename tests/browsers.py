"""The two places where people label, as processes of their own: JupyterLab on a project, and the app."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from waiting import wait_until

if TYPE_CHECKING:
    from conftest import Workplace
    from playwright.sync_api import Page

BIN = Path(sys.executable).parent
QUIET = '{"fetchNews": "false", "checkForUpdates": false}'  # else JupyterLab asks whether it may ask the network
CLOSED = ["--LabApp.extension_manager=readonly", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
TOKEN = "a-token-of-the-test"


@dataclass(frozen=True)
class Place:
    """A running JupyterLab or app."""

    process: subprocess.Popen
    url: str  # of the annotation notebook
    log: Path

    def kernels(self) -> list[int]:
        """The process ids of its kernels, oldest first."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        found = [child for child in children if any("ipykernel" in word for word in child.cmdline())]
        return [child.pid for child in sorted(found, key=lambda child: child.create_time())]

    def kill_kernel(self) -> None:
        """End the oldest as the system does when memory is short: the one in use, as an app starts others ahead."""
        os.kill(self.kernels()[0], signal.SIGKILL)


def find_port() -> int:
    """A port that nothing listens on now; Jupyter takes another if something does by then."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def find_url(pattern: str, log: Path) -> str:
    """The address that a server says in its log; empty until then."""
    found = re.search(pattern, log.read_text())
    return found[0] if found else ""


@contextmanager
def _running(command: list[object], workplace: "Workplace", log: Path, **environ: str) -> Iterator[subprocess.Popen]:
    """A process, ended at the end with all that it started."""
    with log.open("wb") as output:
        environment = workplace.environ(**environ)
        process = subprocess.Popen(command, cwd=workplace.root, env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        process.wait(60)
        _, alive = psutil.wait_procs(started, timeout=20)
        for one in alive:
            one.kill()


@contextmanager
def open_lab(workplace: "Workplace", folder: Path, **environ: str) -> Iterator[Place]:
    """JupyterLab on a project; what it keeps of its own is in `folder`."""
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "notification.jupyterlab-settings").write_text(QUIET)
    own = {"CONFIG_DIR": "config", "RUNTIME_DIR": "runtime"}
    kept = {f"JUPYTER_{name}": str(folder / place) for name, place in own.items()}
    kept |= {f"JUPYTERLAB_{name}_DIR": str(folder / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    port, log = find_port(), folder / "lab.log"
    command = [BIN / "jupyter", "lab", "--no-browser", "--allow-root", f"--ServerApp.port={port}", *CLOSED]
    command += [f"--ServerApp.root_dir={workplace.root}", f"--IdentityProvider.token={TOKEN}"]
    with _running(command, workplace, log, IPYTHONDIR=str(folder / "ipython"), **kept, **environ) as process:
        base = wait_until(
            lambda: find_url(r"http://127\.0\.0\.1:\d+/lab(?=\?token)", log), "JupyterLab", process=process
        )
        yield Place(process, f"{base}/tree/notebooks/annotate.ipynb?token={TOKEN}", log)


@contextmanager
def open_app(workplace: "Workplace", workflow: str, log: Path, *words: str, **environ: str) -> Iterator[Place]:
    """`pinmill annotate WORKFLOW` on a free port."""
    command = [BIN / "pinmill", "annotate", workflow, "--port", "0", *words]
    with _running(command, workplace, log, **environ) as process:
        wait_until(lambda: f"{workflow}: http://" in log.read_text(), "the app", process=process)
        yield Place(process, log.read_text().partition(f"{workflow}: ")[2].split()[0], log)


def run_all(page: "Page") -> None:
    """Run all cells of the notebook that is open in JupyterLab, as a person does."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
