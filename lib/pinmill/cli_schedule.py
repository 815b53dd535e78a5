"""Commands about the schedule: have cron run it, tell what it will do and did, and find what it missed."""

import sys
from dataclasses import asdict
from itertools import islice
from typing import Annotated

import typer

from pinmill.errors import PinmillError, ProjectError, describe_problems
from pinmill.project import open_project
from pinmill.terminal import AsJson, print_json
from pinmill.version import now_utc

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
    from pinmill.schedule import FILE, NO_ZONE, check_schedule, find_zones

    project, now = open_project(), now_utc()
    schedule = check_schedule(project, now.date())
    block = crontab.render_block(schedule, project.root, crontab.name_command())
    if only and not schedule.problems:
        print(block, end="")
        print(
            "pinmill schedule missed judges only what your own crontab starts, not these lines elsewhere",
            file=sys.stderr,
        )
        return
    before, former, after = crontab.split_crontab("" if only else crontab.read_crontab(), project.root)
    problems = [*schedule.problems, *(f"your crontab, line {number}: {NO_ZONE}" for number in find_zones(before))]
    if problems:
        raise ProjectError(describe_problems(FILE, problems))
    if block != former:
        crontab.write_crontab(f"{before}{block}{after}")
    crontab.note_installed(project, schedule, crontab.read_installed(project) if former else {}, now)
    did = "were installed before" if block == former else "are installed in your crontab"
    print(f"{len(schedule.jobs)} jobs {did}. When they run: pinmill schedule show")
    if schedule.settings and after.strip():
        names = ", ".join(setting.text for setting in schedule.settings)
        print(f"{names}: also for the lines below this block in your crontab", file=sys.stderr)


@app.command()
def remove() -> None:
    """Take the block of this project out of your crontab again, and nothing else; nothing is missed any more then.

    Example: pinmill schedule remove
    """
    from pinmill import crontab
    from pinmill.missed import missed_file, tell_missed

    project = open_project()
    before, block, after = crontab.split_crontab(crontab.read_crontab(), project.root)
    if block:
        crontab.write_crontab(before + after)
    for file in (crontab.installed_file(project), missed_file(project)):
        file.unlink(missing_ok=True)
    for problem in tell_missed(project, []):
        print(problem, file=sys.stderr)
    print("cron runs nothing of this project any more" if block else "nothing of this project was installed")


@app.command()
def show(as_json: AsJson = False) -> None:
    """Show each job: when it runs, how it last ended, and its next three times with their distance from UTC.

    Example: pinmill schedule show
    """
    from pinmill.crontab import ABSENT, INSTALLED, compare_block
    from pinmill.firing import find_last, is_alone
    from pinmill.schedule import explain, next_times, read_schedule, read_zone

    project, zone, now = open_project(), read_zone(), now_utc()
    schedule = read_schedule(project)
    try:
        said = compare_block(schedule, project.root)
    except PinmillError as error:
        said = f"{ABSENT}: {error}"
    jobs = []
    for job in schedule.jobs:
        due = [when.isoformat(" ", "minutes") for when in islice(next_times(job.expression, now, zone), SHOWN)]
        told = {"line": job.line, "command": job.command, "times": job.times, "when": explain(job), "next": due}
        jobs.append(told | find_last(project, job, alone=is_alone(job, schedule.jobs)))
    name = getattr(zone, "key", "UTC") or "this machine"
    if as_json:
        print_json({"installed": said, "zone": name, "jobs": jobs, "problems": schedule.problems})
        return
    for told in jobs:
        last = f"{told['started'][:19].replace('T', ' ')} UTC, {told['status']}" if told["started"] else "none yet"
        print(f"{told['command']}\n  when  {told['when']}\n  last  {last}\n  next  {', '.join(told['next'])}")
    print(f"{len(jobs)} jobs, {said}; times are those of {name}")
    if said != INSTALLED or schedule.problems:
        print("next: pinmill schedule check, then pinmill schedule install")


@app.command()
def check(as_json: AsJson = False) -> None:
    """Check schedule.cron: times, commands, workflows, their params, and jobs that contend. Exit code 1 for a problem.

    Example: pinmill schedule check
    """
    from pinmill.schedule import check_schedule

    schedule = check_schedule(open_project(), now_utc().date())
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
    from pinmill.missed import look, note_missed, tell_missed
    from pinmill.schedule import read_zone

    project = open_project()
    seen = look(project, now=now_utc(), zone=read_zone())
    every, complete = (seen.found, not seen.problems) if seen else ((), True)
    for problem in tell_missed(project, every, complete=complete):
        print(problem, file=sys.stderr)
    before = note_missed(project, every)
    found = [each for each in every if not (new and each.key in before)]
    if as_json:
        print_json([asdict(each) for each in found])
    elif seen is None:
        print(
            "nothing is installed in your crontab, and jobs started elsewhere are not judged: pinmill schedule install"
        )
    else:
        problems = sum(not each.command for each in found)
        said = f"{len(found) - problems} of {seen.jobs} jobs {'newly ' * new}missed"
        said += f", {problems} problem{'s' * (problems > 1)}" * bool(problems)
        print("\n".join([said, *(each.text for each in found)]))
    raise typer.Exit(1 if found else 0)


@app.command()
def run(words: Annotated[list[str], typer.Argument(help="A command and its words.", show_default=False)]) -> None:
    """Run a command as cron does: logged, recorded, and silent unless it fails. Its exit code is passed on.

    Example: pinmill schedule run -- run docstrings
    """
    from pinmill.firing import fire

    raise typer.Exit(fire(open_project(), words))
