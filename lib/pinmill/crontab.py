"""The crontab of this user: one marked block for each project in it, and not a byte of anything else touched."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from pinmill.errors import ProjectError, RunError
from pinmill.project import COMMAND, Project
from pinmill.runs import write_json
from pinmill.schedule import Schedule

ESCAPED, PLAIN = re.compile(r"[\\%]"), r"\\\g<0>"  # what cron takes away, and how it is written for it
NONE = b"no crontab for"  # what `crontab -l` says to a user who has none


def name_command() -> str:
    """How to call this interpreter's `pinmill` from a shell, wherever it is."""
    script = Path(sys.executable).with_name("pinmill")
    return shlex.join([str(script)] if script.is_file() else COMMAND)


def render_block(schedule: Schedule, root: Path, command: str) -> str:
    """The lines for a user's crontab: each job of a project is fired in its folder by `command`."""
    begin, end = make_marks(root)
    lines = [begin, "# written by `pinmill schedule install` from schedule.cron: edit that, and install it again"]
    lines += schedule.settings
    for job in schedule.jobs:
        fired = f"cd {shlex.quote(str(root))} && {command} schedule run -- {shlex.join(job.words)}"
        lines.append(f"{job.times} {ESCAPED.sub(PLAIN, fired)}")
    return "\n".join([*lines, end, ""])


def make_marks(root: Path) -> tuple[str, str]:
    """The first and the last line of a project's block."""
    return f"# BEGIN pinmill {root}", f"# END pinmill {root}"


def split_crontab(text: str, root: Path) -> tuple[str, str, str]:
    """What stands in a crontab before a project's block, the block, and what stands after it.

    Raises ProjectError for a block that has lost one of its marks, or has them twice.
    """
    begin, end = make_marks(root)
    parts = re.split(rf"^({re.escape(begin)}\n(?:.*\n)*?{re.escape(end)}\n)", text, flags=re.MULTILINE)
    if len(parts) == 1 and begin not in text.split("\n"):
        return text + "\n" * bool(text and not text.endswith("\n")), "", ""
    if len(parts) != 3:
        expected = f"one line '{begin}' and after it one '{end}' were expected"
        raise ProjectError(f"the block of this project in your crontab is damaged: {expected}. Mend it: crontab -e")
    return tuple(parts)


def read_crontab() -> str:
    """The crontab of this user, empty where there is none. Raises ProjectError without cron, RunError otherwise."""
    done = call_crontab("-l")
    if done.returncode and NONE not in done.stderr:
        raise RunError(f"crontab -l: {done.stderr.decode(errors='replace').strip()}")
    return os.fsdecode(done.stdout)


def write_crontab(text: str) -> None:
    """Make `text` the crontab of this user; without any text there is none. Raises RunError."""
    done = call_crontab("-", given=os.fsencode(text)) if text else call_crontab("-r")
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise RunError(f"crontab refused the lines, and nothing changed: {said}")


def call_crontab(*words: str, given: bytes = b"") -> subprocess.CompletedProcess:
    """Run the `crontab` program. Raises ProjectError where there is none."""
    environ = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(["crontab", *words], input=given, capture_output=True, env=environ, check=False)
    except FileNotFoundError:
        step = "Install cron (apt-get install cron), or take the lines elsewhere: pinmill schedule install --print"
        raise ProjectError(f"there is no program `crontab` here. {step}") from None


def is_installed(project: Project) -> bool:
    """Whether the user's crontab has a block of this project; no where there is no cron."""
    try:
        return make_marks(project.root)[0] in read_crontab().split("\n")
    except ProjectError:
        return False


def note_installed(project: Project, schedule: Schedule, now: datetime) -> None:
    """Remember since when cron knows each job; those that it knew before keep their time."""
    before = read_installed(project)
    write_json(installed_file(project), {job.key: before.get(job.key, now).isoformat() for job in schedule.jobs})


def read_installed(project: Project) -> Mapping[str, datetime]:
    """Since when cron knows each job, by its key."""
    try:
        known = json.loads(installed_file(project).read_text())
        return {key: datetime.fromisoformat(when) for key, when in known.items()}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        return {}


def installed_file(project: Project) -> Path:
    return project.outputs / "schedule" / "installed.json"
