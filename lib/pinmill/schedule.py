"""A schedule: the jobs in the text of a crontab, when they are due, which of them contend, and which were missed."""

import io
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import combinations
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from pinmill.errors import ParameterError, PinmillError, ProjectError, did_you_mean
from pinmill.project import Project

FILE = "schedule.cron"
NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
ITEM = r"(\*(/\d+)?|(\d+|[a-z]{3})(-(\d+|[a-z]{3})(/\d+)?)?)"
FIELD = re.compile(rf"{ITEM}(,{ITEM})*", re.IGNORECASE)  # as Debian's cron reads it: no L, no #, no 5/10
SETTING = re.compile(r"([A-Za-z_]\w*)\s*=")
QUOTED = re.compile(r"""'[^']*'|"[^"$`]*"|\\.""")
SHELL = re.compile(r"[$`;|<>&()*?]|(?<!\S)[~#]")
ZONE = "CRON_TZ"
NO_ZONE = f"Debian's cron knows only the machine's zone, and ignores {ZONE}: write the times in that zone"
NO_TZ = "TZ changes no time at which a job starts, and Pinmill tells times in UTC: leave it out"
START = datetime(2000, 1, 1)  # for what is asked of an expression, whenever it is asked
DAYS = 1461  # four years, in which every date there is comes up
GRACE = timedelta(minutes=15)  # a machine that is busy starts a job late


@dataclass(frozen=True)
class Job:
    """A line of a schedule: at certain times, one `pinmill` command."""

    line: int
    times: str  # as they stand there
    words: tuple[str, ...]  # those after `pinmill`
    workflow: str = ""  # empty: the command is about none
    job: str = ""  # of runs; empty: the command makes none

    @property
    def expression(self) -> str:
        """The five fields of its times."""
        return NICKNAMES.get(self.times, self.times)

    @property
    def command(self) -> str:
        return f"pinmill {shlex.join(self.words)}"

    @property
    def key(self) -> str:
        """The same as long as neither times nor command change."""
        return f"{self.times} {self.command}"


@dataclass(frozen=True)
class Setting:
    """A line NAME=value, which holds for the lines below it."""

    line: int
    text: str


@dataclass(frozen=True)
class Schedule:
    """A crontab as read; a problem begins with its line."""

    jobs: tuple[Job, ...]
    settings: tuple[Setting, ...]
    problems: tuple[str, ...]


def parse_schedule(text: str) -> Schedule:
    """The jobs and settings in the text of a crontab, and all that is wrong with its lines."""
    jobs, settings, problems = [], [], [f"line {number}: {NO_ZONE}" for number in find_zones(text)]
    for number, line in enumerate(map(str.strip, text.split("\n")), start=1):
        if name := SETTING.match(line):
            settings += [] if name[1] in (ZONE, "TZ") else [Setting(number, line)]
            problems += [f"line {number}: {NO_TZ}"] if name[1] == "TZ" else []
        elif line and not line.startswith("#"):
            times, command = split_line(line)
            try:
                check_times(times)
                jobs.append(Job(number, times, read_words(command)))
            except ParameterError as error:
                problems.append(f"line {number}: {error}")
    return Schedule(tuple(jobs), tuple(settings), tuple(problems))


def find_zones(text: str) -> list[int]:
    """Numbers of the lines of a crontab that set a zone of its own."""
    found = (SETTING.match(line.strip()) for line in text.split("\n"))
    return [number for number, name in enumerate(found, start=1) if name and name[1] == ZONE]


def split_line(line: str) -> tuple[str, str]:
    """The times and the command of a crontab's line."""
    parts = line.split(maxsplit=1 if line.startswith("@") else 5)
    return (parts[0], " ".join(parts[1:])) if line.startswith("@") else (" ".join(parts[:5]), " ".join(parts[5:]))


def check_times(times: str) -> None:
    """Raise ParameterError for times that Debian's cron does not know, and for @reboot."""
    if times == "@reboot":
        raise ParameterError("@reboot is no time, so nobody can tell that it was missed: give one, as in '0 4 * * 1'")
    if times.startswith("@") and times not in NICKNAMES:
        raise ParameterError(f"{times!r} is none of {', '.join(NICKNAMES)}.{did_you_mean(times, NICKNAMES)}")
    expression = NICKNAMES.get(times, times)
    if strange := [field for field in expression.split() if not FIELD.fullmatch(field)]:
        raise ParameterError(f"{strange[0]!r} is no field of times that Debian's cron knows, see: man 5 crontab")
    try:
        CronSim(expression, START)
    except CronSimError as error:
        raise ParameterError(
            f"{times!r}: {str(error).lower()}; minute, hour, day, month, weekday were expected"
        ) from None


def read_words(command: str) -> tuple[str, ...]:
    """The words after `pinmill` of a line's command, as a shell would split them. Raises ParameterError."""
    plain = re.sub(r"\\([\\%])", r"\1", command)  # as cron does before it calls the shell
    if "%" in re.sub(r"\\.", "", command):
        raise ParameterError("cron takes % for the end of the line: write \\%")
    if found := SHELL.search(QUOTED.sub("", plain)):
        raise ParameterError(f"{found[0]!r} is for a shell, and a line goes to none: one pinmill command was expected")
    try:
        words = shlex.split(plain)
    except ValueError as error:
        raise ParameterError(f"{plain!r}: {str(error).lower()}") from None
    if words[:1] == ["pinmill"] and words[1:]:
        return tuple(words[1:])
    if words[1:2] == ["pinmill"]:
        raise ParameterError(f"{words[0]!r} stands before pinmill: a user's crontab has no field for the user")
    expected = "five fields of times and a command, as in '0 4 * * 1 pinmill run docstrings', were expected"
    raise ParameterError(f"{plain!r} is no pinmill command: {expected}")


def read_schedule(project: Project) -> Schedule:
    """The schedule of a project; a line that pinmill would not take is a problem. Raises ProjectError without one."""
    try:
        return name_jobs(parse_schedule((project.root / FILE).read_text(encoding="utf-8", errors="replace")))
    except FileNotFoundError:
        expected = "a crontab with lines such as '0 4 * * 1 pinmill run WORKFLOW' was expected"
        raise ProjectError(f"{project.root} has no {FILE}: {expected}.") from None


def name_jobs(schedule: Schedule) -> Schedule:
    """The same, each job with its workflow, and a command that pinmill would not take among the problems."""
    jobs, problems = [], list(schedule.problems)
    for job in schedule.jobs:
        try:
            path, given = read_command(job.words)
        except ParameterError as error:
            problems.append(f"line {job.line}: {job.command}: {error}")
            continue
        kind = given["job"] if path == "pinmill run" else "score" if path == "pinmill score" else ""
        jobs.append(replace(job, workflow=given.get("workflow") or "", job=kind))
    return replace(schedule, jobs=tuple(jobs), problems=tuple(problems))


def read_command(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The command that words call, as 'pinmill run', and its values by parameter.

    Raises ParameterError for words that pinmill would refuse, or would answer with a help text.
    """
    import typer

    from pinmill.cli import app

    command, name, rest, context = typer.main.get_command(app), "pinmill", list(words), None
    try:
        with redirect_stdout(io.StringIO()):
            while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
                context = typer.Context(command, parent=context, info_name=name)
                name, command, rest = command.resolve_command(context, rest)
            context = command.make_context(name, rest, parent=context)
    except typer.TyperException as error:
        raise ParameterError(error.format_message().strip().partition("\n")[0]) from None
    except typer.Exit:
        raise ParameterError("this only prints a text, and does nothing") from None
    return context.command_path, context.params


def check_schedule(project: Project, today: date) -> Schedule:
    """The schedule of a project with all problems of its lines, of their workflows, and of times that contend."""
    from pinmill.plan import make_plan, read_values

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
    problems += find_contending(schedule.jobs, today)
    by_line = sorted(problems, key=lambda problem: int(re.search(r"\d+", problem)[0]))
    return replace(schedule, problems=tuple(by_line))


def explain(job: Job) -> str:
    """When a job is due, in plain language."""
    return CronSim(job.expression, START).explain()


def read_zone(file: Path = Path("/etc/localtime")) -> tzinfo:
    """The zone of the machine, in which cron takes the times; UTC where none is set, as the C library has it."""
    if not file.is_file():
        return UTC
    name = str(file.resolve()).partition("/zoneinfo/")[2]
    with file.open("rb") as content:
        return ZoneInfo.from_file(content, key=name or None)


def next_times(expression: str, after: datetime, zone: tzinfo) -> Iterator[datetime]:
    """All times after `after` (aware) at which Debian's cron starts a job, in `zone`.

    When clocks go forward, a job at a fixed time that is skipped starts at once, and one with `*` in minute or hour
    does not; when they go back, the hour that is repeated counts only for the latter. Source: cron(8).
    """
    last = after.astimezone(UTC)
    for due in CronSim(expression, after.astimezone(zone)):
        if due.astimezone(UTC) > last:
            last = due.astimezone(UTC)
            yield due


def find_contending(jobs: Sequence[Job], start: date) -> list[str]:
    """Which jobs about the same workflow start in the same minute, at some time in the years after `start`."""
    found = []
    for one, other in combinations(jobs, 2):
        is_same = (one.workflow or one.words) == (other.workflow or other.words)
        if is_same and (when := find_common(one.expression, other.expression, start)):
            what = f"{one.workflow or one.command} in the same minute, e.g. {when:%Y-%m-%d %H:%M}"
            found.append(f"lines {one.line} and {other.line} start {what}: set one of them apart")
    return found


def find_common(expression: str, other: str, start: date) -> datetime | None:
    """A minute that two expressions have in common on the first such day from `start` on."""
    one, two = CronSim(expression, START), CronSim(other, START)
    minutes, hours, months = one.minutes & two.minutes, one.hours & two.hours, one.months & two.months
    days = (start + timedelta(days=n) for n in range(DAYS if minutes and hours else 0))
    both = (day for day in days if day.month in months and one.match_day(day) and two.match_day(day))
    return next((datetime.combine(day, time(min(hours), min(minutes))) for day in both), None)


def find_missed(
    jobs: Sequence[Job],
    ran: Mapping[str, datetime],
    installed: Mapping[str, datetime],
    *,
    now: datetime,
    zone: tzinfo,
    grace: timedelta = GRACE,
) -> list[tuple[Job, datetime]]:
    """Jobs that were due more than `grace` ago and have not run since, each with that time.

    `ran` says by key until when a job was last at work in a run that was not killed, `installed` since when cron knows
    it; a job that is in neither is judged from now on.
    """
    missed = []
    for job in jobs:
        since = max(filter(None, (ran.get(job.key), installed.get(job.key))), default=now)
        due = next(next_times(job.expression, since, zone), None)
        if due and due.astimezone(UTC) + grace < now:
            missed.append((job, due))
    return missed
