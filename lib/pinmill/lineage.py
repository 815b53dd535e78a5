"""Where a version came from: everything that has to be the same to make it again."""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pinmill.version import now_utc

LOCK_FILE = "requirements.lock"
PACKAGES = (  # whose version can change a result
    "pinmill", "numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "skops", "papermill", "nbclient", "pins",
)  # fmt: skip
GIT_SECONDS = 20  # a large work tree on a slow disk; without an answer the commit is recorded as unknown


def read_lineage(
    root: Path,
    *,
    run: str,
    stage: str,
    inputs: list[dict[str, Any]],
    parameters: Mapping[str, Any],
    seed: int | None,
    clock: Callable[[], datetime] = now_utc,
) -> dict[str, Any]:
    """What a stage of the project at `root` records in the pins it writes.

    `inputs` are {kind, name, version, sha256} of the pins that were read. `git` is None outside a repository, and
    `lock` is None without a requirements.lock. `blas` is empty if NumPy is not imported here.
    """
    lock_file = root / LOCK_FILE
    return {
        "run": run,
        "stage": stage,
        "inputs": [dict(pin) for pin in inputs],
        "parameters": dict(parameters),
        "seed": seed,
        "git": read_git(root),
        "lock": hash_file(lock_file) if lock_file.is_file() else None,
        "packages": read_packages(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": _usable_cpus(),
        "blas": read_blas(),
        "time": clock().astimezone(UTC).isoformat(timespec="microseconds"),
    }


def hash_file(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_git(root: Path) -> dict[str, Any] | None:
    """{commit, dirty} of the repository around `root`; None if there is none, or git is not there or has no answer.

    `commit` is None before the first commit. Dirty is any change under `root`, new files that are not ignored too.
    """
    command = ["git", "-C", str(root), "status", "--porcelain=v2", "--branch", "--untracked-files=normal", "--", "."]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # never write the index of somebody who is working
    try:
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_git_status(answer.stdout) if answer.returncode == 0 else None


def parse_git_status(status: str) -> dict[str, Any]:
    """{commit, dirty} from the output of `git status --porcelain=v2 --branch`."""
    lines = status.splitlines()
    commits = [line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")]
    commit = commits[0] if commits and commits[0] != "(initial)" else None
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def read_packages() -> dict[str, str]:
    """Versions of the packages that can change a result, as far as they are installed."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def read_blas() -> list[dict[str, Any]]:
    """The thread pools of BLAS and OpenMP in this process: {api, library, version, threads} each."""
    if "numpy" not in sys.modules:
        return []
    try:
        import threadpoolctl
    except ImportError:
        return []
    pools = [
        {"api": pool["user_api"], "library": pool["internal_api"], "version": pool["version"],
         "threads": pool["num_threads"]}
        for pool in threadpoolctl.threadpool_info()
    ]  # fmt: skip
    return sorted(pools, key=lambda pool: (pool["api"], pool["library"], str(pool["version"])))


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
