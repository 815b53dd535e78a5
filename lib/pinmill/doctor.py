"""What a run needs, examined one by one: each check is a small function, and none that fails hides another."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

from pinmill.errors import PinmillError
from pinmill.project import Project
from pinmill.storage import Folder
from pinmill.version import STAMP

KERNEL_SECONDS = 60  # a start takes 1 s; a busy machine needs more
LEAST_BYTES, LEAST_SHARE = 10**9, 0.05  # free on the disk; a run of 15,000 texts leaves 20 MB
CLOCK_SLACK = timedelta(minutes=1)  # machines that share a board differ by less
IGNORED = ("outputs/", "reports/_pages/", ".env")


@dataclass(frozen=True)
class Finding:
    """What one check found, and what to do about it; `level` is ok, warning or problem."""

    level: str
    found: str
    fix: str = ""
    check: str = ""


def examine(project: Project, *, now: datetime) -> list[Finding]:
    """One finding per check, in a fixed order and without any secret; a check that crashes is a problem."""
    from pinmill import operation as op
    from pinmill.secret import hidden_values, scrub

    timed = (clock, op.schedule, op.runs, op.tokens, op.backup, op.incidents)
    hidden, findings = hidden_values(find_secret_names(project), project.settings), []
    for check in (packages, kernel, quarto, board, pins, store, params, disk, clock, git, *timed[1:]):
        try:
            finding = check(project, now) if check in timed else check(project)
        except Exception as error:  # whatever it is, the other checks still have something to say
            finding = Finding("problem", f"{type(error).__name__}: {error}")
        shown = {"found": scrub(finding.found, hidden), "fix": scrub(finding.fix, hidden)}
        findings.append(replace(finding, check=check.__name__, **shown))
    return findings


def find_secret_names(project: Project) -> Iterator[str]:
    """Settings that must not be shown: those that a params file names as secrets, and URLs that hold a password."""
    for file in filter(Path.is_file, (project.root / "params").glob("*.yaml")):
        yield from re.findall(r"secret:(\w+)", file.read_text(encoding="utf-8", errors="replace"))
    yield from (name for name, value in project.settings.items() if re.search(r"://[^/]*@", value))


def grade(wrong: Sequence[str], fix: str, fine: str, *, level: str = "problem") -> Finding:
    """`level` with the first five things that are wrong and the fix, or ok if nothing is."""
    return Finding(level, "; ".join(wrong[:5]) + "; …" * (len(wrong) > 5), fix) if wrong else Finding("ok", fine)


def packages(project: Project) -> Finding:
    """Are the installed packages those of the lock file?"""
    from packaging.utils import canonicalize_name

    installed = {canonicalize_name(each.name): each.version for each in metadata.distributions()}
    locked, wrong = compare_lock(project.lock_file.read_text(encoding="utf-8"), installed)
    count = [f"{len(wrong)} of {locked} packages are not as in requirements.lock"] if wrong else []
    fine = f"Python {platform.python_version()}, and all {locked} packages are as in requirements.lock"
    return grade([*count, *wrong], "pip install --require-hashes -r requirements.lock", fine)


def compare_lock(text: str, installed: Mapping[str, str]) -> tuple[int, list[str]]:
    """How many packages a lock file asks for here, and in words those that `installed` (canonical names) has not so."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (re.split(r" --hash| #", line)[0].strip() for line in text.replace("\\\n", " ").splitlines())
    every = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    wanted = [each for each in every if each.marker is None or each.marker.evaluate()]
    found = [(each, installed.get(canonicalize_name(each.name))) for each in wanted]
    wrong = [(each, have) for each, have in found if not (have and each.specifier.contains(have, prereleases=True))]
    return len(wanted), [f"{each.name} is {have or 'absent'}, not {each.specifier}" for each, have in wrong]


def kernel(project: Project) -> Finding:
    """Does the kernel that the notebooks name start, also for JupyterLab, compute, and belong to this environment?"""
    from jupyter_client.manager import run_kernel

    fix = f"{sys.executable} -m ipykernel install --sys-prefix, then see: jupyter kernelspec list"
    silent = {"cwd": str(project.root), "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    asked = {"silent": True, "user_expressions": {"said": "__import__('sys').prefix"}, "timeout": KERNEL_SECONDS}
    try:
        with run_kernel(startup_timeout=KERNEL_SECONDS, kernel_name="python3", **silent) as client:
            said = client.execute_interactive("", **asked)["content"]["user_expressions"]["said"]
    except (RuntimeError, TimeoutError, OSError) as error:
        return Finding("problem", f"a kernel does not start: {error}", fix)
    answer = said["data"]["text/plain"]
    other = [] if answer == repr(sys.prefix) else [f"kernel python3 is of another environment: {answer}"]
    return grade(other, fix, "kernel python3 starts, computes, and is of this environment", level="warning")


def quarto(project: Project) -> Finding:
    """Is Quarto there, on PATH or beside the interpreter, where the extra `quarto` puts it?"""
    from pinmill.quarto import find_quarto

    program = find_quarto(project.settings.get("PATH", ""))
    wrong = [] if program else ["Quarto is not found, so nbconvert renders the pages"]
    return grade(wrong, "pip install quarto-cli", f"{program}", level="warning")


def board(project: Project) -> Finding:
    """Can the board be listed and written, and are versions renamed into it within one file system?"""
    url, names = project.board.url, project.board.names()
    if "://" in url:
        return Finding("ok", f"{len(names)} pins at {url}; writing was not tried")
    folder = Folder(Path(url))
    root, staging = find_existing(folder.root), find_existing(folder.staging)
    places = dict.fromkeys([root, staging, *(folder.root / name for name in names)])
    closed = [path for path in places if not (path.is_dir() and os.access(path, os.W_OK | os.X_OK))]
    wrong = [f"{path} cannot be written" for path in closed]
    if root.stat().st_dev != staging.stat().st_dev:
        wrong.append(f"{root} and {staging} are two file systems, and nothing can be renamed from one to the other")
    fix = "let the account that runs Pinmill write there; set PINMILL_BOARD to a folder below one that is mounted"
    return grade(wrong, fix, f"{len(names)} pins at {url}, writable")


def pins(project: Project) -> Finding:
    """Is the newest version of each pin as it was written?"""
    names, board = project.board.names(), project.board
    damaged = [problem for name in names for problem in board.verify(name, board.latest(name))]
    fix = "restore them from a backup, or run the workflow again; for all versions: pinmill pins verify"
    return grade(damaged, fix, f"the newest versions of {len(names)} pins are as they were written")


def store(project: Project) -> Finding:
    """Can the store be read, and are its tables of a version that this Pinmill knows?"""
    if not project.has_store:
        return Finding("ok", "not there yet; the first label or call makes it")
    from sqlalchemy import select

    from pinmill.store import SCHEMA

    versions = project.store.read(select(SCHEMA.c.version))
    return Finding("ok", f"version {versions[0][0] if versions else 'none yet'} at {project.store.where}")


def params(project: Project) -> Finding:
    """Would `pinmill run` accept each workflow?"""
    from pinmill.plan import make_plan

    wrong = []
    for workflow in project.workflows():
        try:
            make_plan(project, workflow, job="train", assignments=[])
        except PinmillError as error:
            wrong.append(str(error))
    return grade(wrong, "pinmill params W lists what W takes", f"workflows {', '.join(project.workflows())}")


def disk(project: Project) -> Finding:
    """Is there room for more runs?"""
    usage = shutil.disk_usage(find_existing(project.outputs))
    found = f"{usage.free / 10**9:,.1f} GB of {usage.total / 10**9:,.1f} GB are free"
    low = [found] if usage.free < max(LEAST_BYTES, LEAST_SHARE * usage.total) else []
    return grade(low, f"make room on the disk of {project.outputs}", found, level="warning")


def clock(project: Project, now: datetime) -> Finding:
    """Is the clock at or after everything that was made here?"""
    from pinmill.runs import list_runs

    made = [f"{name} {project.board.latest(name)}" for name in project.board.names()]
    made += [f"run {run}" for w in project.workflows() for run in list_runs(project.runs_folder(w))[:1]]
    limit = (now.astimezone(UTC) + CLOCK_SLACK).strftime(STAMP)
    later = [f"{each} is later than now, {now:{STAMP}}" for each in made if each.split()[1][:16] > limit]
    return grade(later, "set the clock of this machine, and of those that share the board", f"{now:{STAMP}}")


def git(project: Project) -> Finding:
    """Which commit will be recorded, and are outputs, pages and secrets kept out of git?"""
    from pinmill.lineage import read_git

    state = read_git(project.root)
    if state is None:
        return Finding("warning", "there is no repository, so pins record no commit", "git init")
    command = ["git", "-C", str(project.root), "check-ignore", *IGNORED]
    ignored = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.splitlines()
    seen = [f"git would take {path}" for path in IGNORED if path not in ignored]
    found = f"commit {state['commit'] or 'none yet'}{', with changes since' * state['dirty']}"
    return grade(seen, "add it to .gitignore", found, level="warning")


def find_existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    return next(each for each in (path, *path.parents) if each.exists())
