"""Checks of a project in operation, for `pinmill doctor`: schedule, runs, tokens, backup, incidents."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from pinmill.doctor import Finding, grade
from pinmill.errors import PinmillError
from pinmill.project import Project

CRONS = {"cron", "crond", "cronie", "busybox crond"}  # names of the daemon's process
AHEAD = timedelta(days=14)  # in which somebody can make another token
BACKUP_AGE = timedelta(days=7)
BROKEN = ("failed", "interrupted", "unreadable")


def schedule(project: Project, now: datetime) -> Finding:
    """Does cron know the jobs of schedule.cron as they stand there, and does it run?"""
    import psutil

    from pinmill.crontab import ABSENT, INSTALLED, compare_block
    from pinmill.schedule import FILE, read_schedule

    if not (project.root / FILE).is_file():
        return Finding("warning", f"there is no {FILE}, so nothing runs by itself", "see: pinmill new --help")
    plan = read_schedule(project)
    if not plan.jobs and not plan.problems:
        return Finding("ok", f"{FILE} has no jobs")
    if plan.problems:
        return grade(plan.problems, "pinmill schedule check", "", level="warning")
    try:
        state = compare_block(plan, project.root)
    except PinmillError as error:  # there is no cron here, or it does not let this user
        return Finding(
            "warning", str(error), "pinmill schedule install, or --print for another program that starts jobs"
        )
    jobs = f"the {len(plan.jobs)} jobs of {FILE}"
    wrong = [f"your crontab has {'none of' if state == ABSENT else 'other lines than'} {jobs}"]
    wrong = [] if state == INSTALLED else wrong
    if not any(process.info["name"] in CRONS for process in psutil.process_iter(["name"])):
        wrong.append("no cron daemon is running")
    fix = "pinmill schedule install; service cron start"
    return grade(wrong, fix, f"{jobs} are installed, and cron is running", level="warning")


def runs(project: Project, now: datetime) -> Finding:
    """How did the last run of each job end, and has each job of the schedule ever run?"""
    last, broken = find_last_runs(project), []
    for job, (status, when, error) in last.items():
        if status in BROKEN or not when:
            broken.append(f"{job}: {status}{f' {when[:16]}' * bool(when)}{f', {error[:200]}' * bool(error)}")
    fine = ", ".join(f"{job} {status} {when[:16]}" for job, (status, when, _) in last.items())
    return grade(broken, "pinmill runs, and outputs/logs", fine or "nothing has run yet", level="warning")


def find_last_runs(project: Project) -> Mapping[str, tuple[str, str, str]]:
    """Of each workflow's job that ever ran, and of each job of the schedule: status, start (UTC), error."""
    from pinmill.firing import find_last, is_alone
    from pinmill.runs import read_records
    from pinmill.schedule import FILE, read_schedule

    last: dict[str, tuple[str, str, str]] = {}
    for workflow in project.workflows():
        for record in read_records(project.runs_folder(workflow)):
            if record.status != "skipped":
                said = record.error.partition("\n")[0]
                last.setdefault(f"{workflow} {record.job}", (record.status, record.started, said))
    if (project.root / FILE).is_file():
        plan = read_schedule(project)
        for job in plan.jobs:
            told = find_last(project, job, alone=is_alone(job, plan.jobs))
            name = f"{job.workflow} {job.job}" if job.job else job.command
            last.setdefault(name, (told["status"] or "never ran", told["started"], ""))
    return last


def tokens(project: Project, now: datetime) -> Finding:
    """Is any token expired, or about to?"""
    if not project.has_store:
        return Finding("ok", "there are none")
    from pinmill.store import stamp
    from pinmill.tokens import list_tokens

    every = [token for token in list_tokens(project.store) if not token.revoked]
    soon = [token for token in every if token.expires and token.expires <= stamp(now + AHEAD)]
    told = [f"{t.name} expire{'d' if t.state(now) == 'expired' else 's'} {t.expires[:16]}" for t in soon]
    fix = "pinmill token create another, hand it over, then: pinmill token revoke NAME"
    return grade(told, fix, f"{len(every)}, none of which expires within {AHEAD.days} days", level="warning")


def backup(project: Project, now: datetime) -> Finding:
    """Is there a backup that is not too old?"""
    fix, note = "pinmill backup FILE, on another disk, from schedule.cron", project.outputs / "backup.json"
    if not note.is_file():
        return Finding("warning", "there is none", fix)
    noted = json.loads(note.read_bytes())
    file, age = Path(noted["file"]), now - datetime.fromisoformat(noted["when"])
    wrong = [f"{file} is {age.days} days old"] if age > BACKUP_AGE else []
    if not file.is_file():
        wrong.append(f"{file} is gone, or on another machine by now")
    elif file.stat().st_size != noted["size"]:
        wrong.append(f"{file} is not as it was written: {file.stat().st_size:,} bytes, not {noted['size']:,}")
    return grade(wrong, fix, f"{file} of {noted['when'][:16]}, {noted['size']:,} bytes", level="warning")


def incidents(project: Project, now: datetime) -> Finding:
    """Is there an incident that is not over?"""
    from pinmill.notify import read_known

    known, damaged = [], []
    for file in sorted((project.outputs / "incidents").glob("*.json")):
        read, problems = read_known(file)
        known, damaged = [*known, *read], [*damaged, *problems]
    about = [(each, each.incident) for each in known if not each.over]
    told = [f"{i.workflow} {i.job}: {i.title}, since {each.since[:16]}" for each, i in about]
    return grade([*told, *damaged], "pinmill runs, and the pages in reports/_pages", "none is open", level="warning")
