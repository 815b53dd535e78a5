"""Commands about the schedule: have cron run it, tell what it will do and did, and find what it missed."""

import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pinmill.errors import PinmillError, ProjectError, describe_problems
from pinmill.project import Project, open_project
from pinmill.terminal import AsJson, print_json
from pinmill.version import now_utc

if TYPE_CHECKING:
    from pinmill.runs import RunRecord
    from pinmill.schedule import Job, Schedule

FILE = "schedule.cron"
SHOWN = 3  # times to come
app = typer.Typer(
    help="What cron runs: the jobs of schedule.cron.\n\nExample: pinmill schedule show", no_args_is_help=True
)


@app.command()
def install(
    only: Annotated[bool, typer.Option("--print", help="Only print the lines; nothing is changed.")] = False,
) -> None:
    """Put the jobs of schedule.cron into your crontab, as a block of this project; nothing else there is touched.

    Example: pinmill schedule install
    """
    from pinmill import crontab
    from pinmill.schedule import NO_ZONE, find_zones

    project = open_project()
    schedule = check_schedule(project)
    block = crontab.render_block(schedule, project.root, crontab.name_command())
    if only and not schedule.problems:
        print(block, end="")
        return
    before, former, after = crontab.split_crontab("" if only else crontab.read_crontab(), project.root)
    problems = [*schedule.problems, *(f"your crontab, line {number}: {NO_ZONE}" for number in find_zones(before))]
    if problems:
        raise ProjectError(describe_problems(FILE, problems))
    if block != former:
        crontab.write_crontab(f"{before}{block}{after}")
    crontab.note_installed(project, schedule, now_utc())
    did = "were installed before" if block == former else "are installed in your crontab"
    print(f"{len(schedule.jobs)} jobs {did}. When they run: pinmill schedule show")
    if schedule.settings and after.strip():
        print(f"{', '.join(schedule.settings)}: also for the lines below this block in your crontab", file=sys.stderr)


@app.command()
def remove() -> None:
    """Take the block of this project out of your crontab again, and nothing else.

    Example: pinmill schedule remove
    """
    from pinmill import crontab

    project = open_project()
    before, block, after = crontab.split_crontab(crontab.read_crontab(), project.root)
    if block:
        crontab.write_crontab(before + after)
    crontab.installed_file(project).unlink(missing_ok=True)
    print("cron runs nothing of this project any more" if block else "nothing of this project was installed")


@app.command()
def show(as_json: AsJson = False) -> None:
    """Show each job: when it runs, how it last ended, and its next three times with their distance from UTC.

    Example: pinmill schedule show
    """
    from pinmill.crontab import name_command, read_crontab, render_block, split_crontab
    from pinmill.schedule import explain, next_times, read_zone

    project, zone, now = open_project(), read_zone(), now_utc()
    schedule = read_schedule(project)
    try:
        block = split_crontab(read_crontab(), project.root)[1]
        same = block == render_block(schedule, project.root, name_command())
        said = "installed" if same else "installed, but not as it stands here" if block else "not installed"
    except PinmillError as error:
        said = f"not installed: {error}"
    jobs = []
    for job in schedule.jobs:
        due = [when.isoformat(" ", "minutes") for when in islice(next_times(job.expression, now, zone), SHOWN)]
        told = {"line": job.line, "command": job.command, "times": job.times, "when": explain(job), "next": due}
        jobs.append(told | find_last(project, job, alone=is_alone(job, schedule)))
    name = getattr(zone, "key", "UTC") or "this machine"
    if as_json:
        print_json({"installed": said, "zone": name, "jobs": jobs, "problems": schedule.problems})
        return
    for told in jobs:
        last = f"{told['started'][:19].replace('T', ' ')} UTC, {told['status']}" if told["started"] else "none yet"
        print(f"{told['command']}\n  when  {told['when']}\n  last  {last}\n  next  {', '.join(told['next'])}")
    print(f"{len(jobs)} jobs, {said}; times are those of {name}")
    if said != "installed" or schedule.problems:
        print("next: pinmill schedule check, then pinmill schedule install")


@app.command()
def check(as_json: AsJson = False) -> None:
    """Check schedule.cron: times, commands, workflows, their params, and jobs that contend. Exit code 1 for a problem.

    Example: pinmill schedule check
    """
    schedule = check_schedule(open_project())
    if as_json:
        print_json({"jobs": len(schedule.jobs), "problems": schedule.problems})
    else:
        print("\n".join([f"{len(schedule.jobs)} jobs, {len(schedule.problems)} problems", *schedule.problems]))
    raise typer.Exit(1 if schedule.problems else 0)


@app.command()
def missed(
    new: Annotated[
        bool, typer.Option("--new", help="List only what the last look did not find: for cron, which mails it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find the jobs that were due and did not run, or were killed, and tell people. Exit code 1 when there are some.

    Example: pinmill schedule missed
    """
    from pinmill.crontab import is_installed, read_installed
    from pinmill.schedule import find_missed, read_zone

    project, now = open_project(), now_utc()
    if not is_installed(project):
        print_json([]) if as_json else print("nothing is installed, so nothing was missed: pinmill schedule install")
        return
    schedule = read_schedule(project)
    until = {job.key: find_end(project, job, alone=is_alone(job, schedule), now=now) for job in schedule.jobs}
    known = {key: when for key, when in until.items() if when}
    found = find_missed(schedule.jobs, known, read_installed(project), now=now, zone=read_zone())
    tell_missed(project, schedule.jobs, found)
    known_before = note_missed(project, found)
    found = [(job, due) for job, due in found if not (new and job.key in known_before)]
    told = [{"command": job.command, "due": due.isoformat(" ", "minutes"), "line": job.line} for job, due in found]
    if as_json:
        print_json(told)
    else:
        said = f"{len(found)} of {len(schedule.jobs)} jobs {'newly ' * new}missed"
        print("\n".join([said, *(describe(*each) for each in found)]))
    raise typer.Exit(1 if found else 0)


@app.command()
def run(words: Annotated[list[str], typer.Argument(help="A command and its words.", show_default=False)]) -> None:
    """Run a command as cron does: logged, recorded, and silent unless it fails. Its exit code is passed on.

    Example: pinmill schedule run -- run docstrings
    """
    from pinmill.firing import fire

    raise typer.Exit(fire(open_project(), words))


def read_schedule(project: Project) -> "Schedule":
    """The schedule of a project, each job with its workflow; a line that pinmill would not take is a problem."""
    from pinmill.schedule import parse_schedule

    try:
        schedule = parse_schedule((project.root / FILE).read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        expected = "a crontab with lines such as '0 4 * * 1 pinmill run WORKFLOW' was expected"
        raise ProjectError(f"{project.root} has no {FILE}: {expected}.") from None
    jobs, problems = [], list(schedule.problems)
    for job in schedule.jobs:
        try:
            path, given = read_command(job.words)
        except typer.TyperException as error:
            problems.append(f"line {job.line}: {job.command}: {error.format_message()}")
            continue
        kind = given["job"] if path == "pinmill run" else "score" if path == "pinmill score" else ""
        jobs.append(replace(job, workflow=given.get("workflow") or "", job=kind))
    return replace(schedule, jobs=tuple(jobs), problems=tuple(problems))


def read_command(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The command that words call, as 'pinmill run', and its values by parameter. Raises TyperException."""
    from pinmill.cli import app as every

    command, name, rest, context = typer.main.get_command(every), "pinmill", list(words), None
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        context = typer.Context(command, parent=context, info_name=name)
        name, command, rest = command.resolve_command(context, rest)
    context = command.make_context(name, rest, parent=context)
    return context.command_path, context.params


def check_schedule(project: Project) -> "Schedule":
    """The schedule of a project with all problems of its lines, of their workflows, and of times that contend."""
    from pinmill.plan import make_plan, read_values
    from pinmill.schedule import find_contending

    schedule = read_schedule(project)
    problems = list(schedule.problems)
    for job in schedule.jobs:
        _, given = read_command(job.words)
        assignments = {"assignments": list(given.get("assignments") or []), "model": given.get("model", "")}
        forced = {"force": given.get("force", False), "start_from": given.get("start_from", "")}
        try:
            if job.job:
                make_plan(project, job.workflow, job=job.job, **assignments, **forced)
            elif job.workflow:
                read_values(project, job.workflow)
        except PinmillError as error:
            problems.append(f"line {job.line}: {error}")
    problems += find_contending(schedule.jobs, now_utc().date())
    by_line = sorted(problems, key=lambda problem: int(re.search(r"\d+", problem)[0]))
    return replace(schedule, problems=tuple(by_line))


def is_alone(job: "Job", schedule: "Schedule") -> bool:
    """Whether no other line runs the same job, so that every run of it counts for this line."""
    return bool(job.job) and Counter((each.workflow, each.job) for each in schedule.jobs)[job.workflow, job.job] == 1


def find_run(project: Project, job: "Job", but: Sequence[str]) -> "RunRecord | None":
    """The newest run of a job, by cron or by hand, that has none of some statuses."""
    from pinmill.runs import read_records

    records = read_records(project.runs_folder(job.workflow))
    return next((record for record in records if record.job == job.job and record.status not in but), None)


def find_last(project: Project, job: "Job", *, alone: bool) -> dict[str, str]:
    """When a job was last started, and how it ended."""
    from pinmill.firing import read_firing

    found = [read_firing(project, job.words), find_run(project, job, ("skipped", "unreadable")) if alone else None]
    last = max(filter(None, found), key=lambda each: each.started, default=None)
    return {"started": last.started, "status": last.status, "run": last.run} if last else {"started": "", "status": ""}


def find_end(project: Project, job: "Job", *, alone: bool, now: datetime) -> datetime | None:
    """Until when a job was at work in its last run that was neither killed nor skipped; None where there is none."""
    from pinmill.firing import read_firing

    firing = read_firing(project, job.words)
    run = find_run(project, job, ("skipped", "unreadable", "interrupted")) if alone else None
    if any(each and each.status == "running" for each in (firing, run)):
        return now
    ends = [firing.ran if firing else "", run.ended if run else ""]
    return max((datetime.fromisoformat(end) for end in ends if end), default=None)


def describe(job: "Job", due: datetime) -> str:
    """What was missed, and how it can be made good."""
    step = f"look at outputs/logs/schedule.log; run it now: pinmill schedule run -- {shlex.join(job.words)}"
    return f"{job.command}: due {due.isoformat(' ', 'minutes')}, and it has not run to an end since; {step}"


def note_missed(project: Project, found: Sequence[tuple["Job", datetime]]) -> list[str]:
    """Keep which jobs are missed now; the keys of those that were at the last look."""
    from pinmill.runs import write_json

    file = project.outputs / "schedule" / "missed.json"
    try:
        before = list(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        before = []
    write_json(file, [job.key for job, _ in found])
    return before


def tell_missed(project: Project, jobs: Sequence["Job"], found: Sequence[tuple["Job", datetime]]) -> None:
    """Tell the people of each workflow what was missed; what is wrong with that is only said."""
    from pinmill.incidents import Incident
    from pinmill.notify import announce

    facts = [
        (job.workflow, "schedule", job.command, f"missed, {job.command}", describe(job, due)) for job, due in found
    ]
    for workflow in sorted({job.workflow for job in jobs}):
        incidents = [Incident("missed", *each) for each in facts if each[0] == workflow]
        urls = find_addresses(project, workflow)
        for problem in announce(project, workflow, "schedule", incidents, urls=urls, hidden=()):
            print(problem, file=sys.stderr)


def find_addresses(project: Project, workflow: str) -> list[str]:
    """Who is told about a workflow; without one, or when its params are wrong, those of PINMILL_NOTIFY."""
    from pinmill.notify import find_urls
    from pinmill.params import RunSettings, check_params
    from pinmill.plan import load_workflow, read_notebooks

    try:
        given = load_workflow(project, workflow)
        return find_urls(project, check_params(given, read_notebooks(project, given), project.settings)[1])
    except PinmillError:
        return find_urls(project, RunSettings())
