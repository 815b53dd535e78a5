"""What the schedule missed: jobs that cron knows and that did not run, or lines that it lost; people are told once."""

import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path

from pinmill.crontab import installed_file, note_installed, read_installed, read_known
from pinmill.errors import PinmillError
from pinmill.firing import find_end, is_alone
from pinmill.incidents import Incident
from pinmill.notify import announce, find_urls
from pinmill.params import RunSettings, check_params
from pinmill.plan import load_workflow, read_notebooks
from pinmill.project import Project
from pinmill.runs import write_json
from pinmill.schedule import Job, find_missed, name_jobs, parse_schedule

OWN = "schedule"  # stands for the job in the names of these incidents' files
LOST = "your crontab has lost the block of this project"
MEND = "pinmill schedule install; or, if that is meant, pinmill schedule remove"


@dataclass(frozen=True)
class Missed:
    """A job that did not run, or what keeps that from being known; `key` is the same as long as it is the same."""

    key: str
    title: str
    text: str
    workflow: str = ""
    command: str = ""  # empty: it is about no job
    due: str = ""


@dataclass(frozen=True)
class Look:
    """What a look for missed jobs found."""

    jobs: int  # those that were judged
    missed: tuple[Missed, ...] = ()
    problems: tuple[Missed, ...] = ()  # why there may be more

    @property
    def found(self) -> tuple[Missed, ...]:
        return self.missed + self.problems


def look(project: Project, *, now: datetime, zone: tzinfo) -> Look | None:
    """Judge the jobs that cron knows, as they stand in the user's crontab; None where nothing was ever installed."""
    was_installed = installed_file(project).is_file()
    try:
        text = read_known(project.root) if was_installed or shutil.which("crontab") else ""
        lost = f"{LOST}, so nothing runs by itself: {MEND}" if was_installed and not text else ""
    except PinmillError as error:
        text, lost = "", str(error)
    if lost:
        return Look(0, problems=(Missed("lost", "cron does not know the schedule", lost),))
    if not text:
        return None
    schedule = name_jobs(parse_schedule(text))
    since = note_installed(project, schedule, read_installed(project), now)
    ends = {job.key: find_end(project, job, alone=is_alone(job, schedule.jobs), now=now) for job in schedule.jobs}
    ran = {key: end for key, end in ends.items() if end}
    missed = [make_missed(*each) for each in find_missed(schedule.jobs, ran, since, now=now, zone=zone)]
    unread = [f"your crontab, {problem}" for problem in schedule.problems]
    problems = [Missed(each, "a line of the schedule cannot be read", each) for each in unread]
    return Look(len(schedule.jobs), tuple(missed), tuple(problems))


def make_missed(job: Job, due: datetime) -> Missed:
    """What was missed, and how it can be made good."""
    when = due.isoformat(" ", "minutes")
    step = f"look at outputs/logs/schedule.log; run it now: pinmill schedule run -- {shlex.join(job.words)}"
    text = f"{job.command}: due {when}, and it has not run to an end since; {step}"
    return Missed(job.key, f"missed, {job.command}", text, job.workflow, job.command, when)


def note_missed(project: Project, found: Sequence[Missed]) -> list[str]:
    """Keep what is missed now; the keys of what was at the last look."""
    file = missed_file(project)
    try:
        before = list(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        before = []
    write_json(file, [each.key for each in found])
    return before


def missed_file(project: Project) -> Path:
    return project.outputs / "schedule" / "missed.json"


def tell_missed(project: Project, found: Sequence[Missed], *, complete: bool = True) -> list[str]:
    """Tell the people of each workflow what was missed, and of what is over; what is wrong with that, in words.

    Only what is told of a `complete` look is over by not being found.
    """
    files = (project.outputs / "incidents").glob(f"*{OWN}.json")
    known = {"" if file.stem == OWN else file.stem.removesuffix(f".{OWN}") for file in files}
    workflows = sorted({*known, *(each.workflow for each in found)})
    problems = []
    for workflow in workflows:
        facts = [(OWN, each.key, each.title, each.text) for each in found if each.workflow == workflow]
        incidents = [Incident("missed", workflow, *each) for each in facts]
        about = {"urls": find_addresses(project, workflow), "hidden": (), "unknown": () if complete else ("missed",)}
        problems += announce(project, workflow, OWN, incidents, **about)
    return problems


def find_addresses(project: Project, workflow: str) -> list[str]:
    """Who is told about a workflow; without one, or when its params are wrong, those of PINMILL_NOTIFY."""
    try:
        given = load_workflow(project, workflow)
        return find_urls(project, check_params(given, read_notebooks(project, given), project.settings)[1])
    except PinmillError:
        return find_urls(project, RunSettings())
