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
from pinmill.schedule import Job, Schedule, split_line

ESCAPED, PLAIN = re.compile(r"[\\%]"), r"\\\g<0>"  # what cron takes away, and how it is written for it
NONE = b"no crontab for"  # what `crontab -l` says to a user who has none
FIRED = " schedule run -- "  # before the words of each job
INSTALLED, DIFFERENT, ABSENT = "installed", "installed, but not as it stands here", "not installed"


def name_command() -> str:
    """How to call this interpreter's `pinmill` from a shell, wherever it is."""
    script = Path(sys.executable).with_name("pinmill")
    return shlex.join([str(script)] if script.is_file() else COMMAND)


def render_block(schedule: Schedule, root: Path, command: str) -> str:
    """The lines for a user's crontab, in their order: each job of a project is fired in its folder by `command`."""
    begin, end = make_marks(root)
    lines = [begin, "# written by `pinmill schedule install` from schedule.cron: edit that, and install it again"]
    for each in sorted([*schedule.settings, *schedule.jobs], key=lambda each: each.line):
        if isinstance(each, Job):
            fired = f"{enter(root)}{command}{FIRED}{shlex.join(each.words)}"
            lines.append(f"{each.times} {ESCAPED.sub(PLAIN, fired)}")
        else:
            lines.append(each.text)
    return "\n".join([*lines, end, ""])


def enter(root: Path) -> str:
    """What a shell does first: it goes to the project's folder."""
    return f"cd {shlex.quote(str(root))} && "


def strip_block(block: str, root: Path) -> str:
    """The lines of a block as they stand in schedule.cron; one that fires nothing stays as it is."""
    lines = []
    for line in block.split("\n"):
        times, command = split_line(line)
        words = command.removeprefix(ESCAPED.sub(PLAIN, enter(root))).partition(FIRED)[2]
        lines.append(f"{times} pinmill {words}" if words and not line.startswith("#") else line)
    return "\n".join(lines)


def read_known(root: Path) -> str:
    """What cron knows of a project, in the words of schedule.cron, each line at its place in the user's crontab.

    Empty where there is no block of the project. Raises ProjectError, RunError.
    """
    before, block, _ = split_crontab(read_crontab(), root)
    return "\n" * before.count("\n") + strip_block(block, root) if block else ""


def compare_block(schedule: Schedule, root: Path) -> str:
    """Whether cron knows a project's jobs as they stand in `schedule`: INSTALLED, DIFFERENT or ABSENT."""
    block = split_crontab(read_crontab(), root)[1]
    return (INSTALLED if block == render_block(schedule, root, name_command()) else DIFFERENT) if block else ABSENT


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


def note_installed(
    project: Project, schedule: Schedule, before: Mapping[str, datetime], now: datetime
) -> Mapping[str, datetime]:
    """Remember since when cron knows each job, and return that: as `before`, or else since now.

    As long as a line cannot be read, the times of all lines before are kept.
    """
    since = {job.key: before.get(job.key, now) for job in schedule.jobs}
    kept = {**before, **since} if schedule.problems else since
    write_json(installed_file(project), {key: when.isoformat() for key, when in kept.items()})
    return since


def read_installed(project: Project) -> Mapping[str, datetime]:
    """Since when cron knows each job, by its key."""
    try:
        known = json.loads(installed_file(project).read_text())
        return {key: datetime.fromisoformat(when) for key, when in known.items()}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        return {}


def installed_file(project: Project) -> Path:
    return project.outputs / "schedule" / "installed.json"
