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

PACKAGES = "pinmill numpy scipy pandas pyarrow scikit-learn skops papermill nbclient pins"  # can change a result


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
    """What a stage of the project at `root` records in the pins it writes; `inputs` are the pins that it read."""
    lock_file = root / "requirements.lock"
    return {
        "run": run,
        "stage": stage,
        "inputs": inputs,
        "parameters": dict(parameters),
        "seed": seed,
        "git": read_git(root),
        "lock": hash_file(lock_file) if lock_file.is_file() else None,
        "packages": {name: metadata.version(name) for name in PACKAGES.split()},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": read_cpu(),
        "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "blas": read_blas(),
        "time": clock().astimezone(UTC).isoformat(timespec="microseconds"),
    }


def hash_file(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_git(root: Path) -> dict[str, Any] | None:
    """{commit, dirty} of the repository around `root`, where any change under it counts; None if git has no answer."""
    command = ["git", "--no-optional-locks", "-C", str(root), "status", "--porcelain=v2", "-b", "-unormal", "."]
    try:
        answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_git_status(answer.stdout)


def parse_git_status(status: str) -> dict[str, Any]:
    """{commit, dirty} from the output of `git status --porcelain=v2 --branch`."""
    lines = status.splitlines()
    commit = lines[0].removeprefix("# branch.oid ")
    return {"commit": None if commit == "(initial)" else commit, "dirty": any(line[0] != "#" for line in lines)}


def read_cpu(info: Path = Path("/proc/cpuinfo")) -> str:
    """The model name of the processor, as Linux tells it in `info`, or as Python knows it; empty when unknown."""
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def read_blas() -> list[dict[str, Any]]:
    """The thread pools of BLAS and OpenMP in this process, sorted; empty where NumPy is not at work."""
    if "numpy" not in sys.modules:
        return []
    import threadpoolctl

    fields = {"api": "user_api", "library": "internal_api", "version": "version", "threads": "num_threads"}
    pools = [{name: pool[key] for name, key in fields.items()} for pool in threadpoolctl.threadpool_info()]
    return sorted(pools, key=str)
