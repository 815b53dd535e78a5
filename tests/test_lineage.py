"""Lineage: what has to be the same to make a version again."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pinmill.lineage
from pinmill.board import Board
from pinmill.lineage import hash_file, parse_git_status, read_cpu, read_git, read_lineage

LIB = Path(pinmill.lineage.__file__).parents[1]
COMMIT = ["-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-q", "-m", "first"]


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_lineage_records_everything_and_fits_into_a_pin(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    (root / "requirements.lock").write_bytes(b"abc")
    inputs = [{"kind": "data", "name": "w-data", "version": "20240101T000000Z-00000", "sha256": "00"}]
    now = datetime(2024, 1, 1, 1, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))
    lineage = read_lineage(
        root, run="r1", stage="train", inputs=inputs, parameters={"c": 4}, seed=42, clock=lambda: now
    )
    assert {key: lineage[key] for key in ("run", "stage", "inputs", "parameters", "seed", "time", "python")} == {
        "run": "r1", "stage": "train", "inputs": inputs, "parameters": {"c": 4}, "seed": 42,
        "time": "2024-01-01T00:00:00.000005+00:00", "python": platform.python_version(),
    }  # fmt: skip
    assert lineage["lock"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, "abc"
    assert lineage["threads"] == len(os.sched_getaffinity(0))
    assert lineage["packages"]["numpy"] == importlib.metadata.version("numpy")
    assert set(lineage) == {
        "run", "stage", "inputs", "parameters", "seed", "time", "python", "git", "lock", "platform", "threads",
        "packages", "blas", "cpu",
    }  # fmt: skip
    board = Board(tmp_path / "pins")
    board.write_json("p", 1, facts={}, lineage=lineage)
    assert board.pin("p").lineage == lineage


def test_lock_is_none_without_a_lock_file(tmp_path: Path) -> None:
    lineage = read_lineage(tmp_path, run="r", stage="s", inputs=[], parameters={}, seed=None)
    assert (lineage["lock"], lineage["seed"]) == (None, None)


def test_git_is_none_outside_a_repository_and_without_git(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "folder"
    folder.mkdir()
    assert read_git(folder) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_git(folder) is None


def test_git_commit_and_dirty_flag_follow_the_work_tree(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("outputs/\n")
    assert read_git(tmp_path) == {"commit": None, "dirty": True}
    git(tmp_path, "add", ".gitignore")
    git(tmp_path, *COMMIT)
    head = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs/x").write_text("ignored")
    assert read_git(tmp_path) == {"commit": head, "dirty": False}
    (tmp_path / "new.py").write_text("1\n")
    assert read_git(tmp_path) == {"commit": head, "dirty": True}


def test_git_status_of_a_changed_file_is_dirty() -> None:
    clean = "# branch.oid 0123abcd\n# branch.head main\n"
    assert parse_git_status(clean) == {"commit": "0123abcd", "dirty": False}
    assert parse_git_status(clean + "1 .M N... 100644 100644 100644 1 1 a.py\n")["dirty"]
    assert parse_git_status("# branch.oid (initial)\n")["commit"] is None


def test_cpu_is_the_model_name_that_linux_tells(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nmodel\t\t: 85\nmodel name\t: A: fine CPU @ 2 GHz\n\nmodel name\t: B\n"
    )
    assert read_cpu(tmp_path / "cpuinfo") == "A: fine CPU @ 2 GHz"
    (tmp_path / "arm").write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")
    assert read_cpu(tmp_path / "arm") == read_cpu(tmp_path / "absent") == platform.processor()


def test_blas_is_read_only_where_numpy_is_at_work() -> None:
    code = "import json, sys\nif sys.argv[1:]: import numpy\nfrom pinmill.lineage import read_blas\n"
    code += "print(json.dumps([read_blas(), 'numpy' in sys.modules]))"
    environment = {**os.environ, "PYTHONPATH": str(LIB), "OPENBLAS_NUM_THREADS": "1"}
    without, with_numpy = (
        json.loads(subprocess.run([sys.executable, "-c", code, *more], env=environment, check=True,
                                  capture_output=True, text=True).stdout)
        for more in ([], ["numpy"])
    )  # fmt: skip
    assert without == [[], False]
    assert [(pool["api"], pool["threads"]) for pool in with_numpy[0]] == [("blas", 1)]


def test_hash_file_is_sha256(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "x").write_bytes(data)
    assert hash_file(tmp_path / "x") == hashlib.sha256(data).hexdigest()
