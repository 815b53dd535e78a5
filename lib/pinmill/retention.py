"""What is too old: runs with their pages, logs, and rows of the call log; by the days that the params files give.

A run stays, however old, while anybody may still ask for it: see `plan_runs`.
"""

import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sql

from pinmill.actions import is_written
from pinmill.calls import GAP
from pinmill.champion import read_history
from pinmill.errors import ParameterError, ProjectError, RunError
from pinmill.pages import find_run_of
from pinmill.params import check_params
from pinmill.plan import load_workflow, read_notebooks
from pinmill.project import Project
from pinmill.prune import find_at_work, find_champions, find_origins, read_pins
from pinmill.runs import FINISHED, RUN_ID, RunRecord, StageRecord, read_record, record_type
from pinmill.store import CALLS, CHUNK, LEASES, PREDICTIONS, Store, stamp
from pinmill.version import STAMP

TIMES = {CALLS: CALLS.c.time, PREDICTIONS: PREDICTIONS.c.created, LEASES: LEASES.c.expires}  # what a row's age goes by


class Expired(NamedTuple):
    """What is too old of one kind: its number, from when the oldest is, how much it holds, and what to remove."""

    what: str  # runs | logs | calls | predictions | leases
    workflow: str  # empty for logs, which lie together
    before: datetime
    names: Sequence[str]  # runs or files; of rows there are only numbers
    n: int
    oldest: str
    bytes: int


def plan_runs(records: Sequence[RunRecord], *, before: datetime, needed: Collection[str]) -> list[str]:
    """The runs that may go, oldest first; `records` are a workflow's, newest first. Pure.

    Kept are those begun at `before` or later, at work, or `needed` (a champion's, or a result's that is taken up next);
    the last of each job that finished, also of those without a given model; and those that executed a stage that one
    of these took up.
    """
    last: dict[tuple[str, bool], str] = {}
    for record in (record for record in records if record.status in FINISHED):
        last.setdefault((record.job, True), record.run)
        last.setdefault((record.job, bool(record.model)), record.run)
    young = {record.run for record in records if record.run[:16] >= before.strftime(STAMP)}
    kept = young | {record.run for record in records if record.status == "running"} | {*last.values(), *needed}
    taken = {stage.run for record in records if record.run in kept for stage in record.stages}
    return [record.run for record in reversed(records) if record.run not in kept | taken]


def read_days(project: Project, workflow: str) -> dict[str, int]:
    """The days that a workflow's params give to runs, logs and calls."""
    params = load_workflow(project, workflow)
    return dict(check_params(params, read_notebooks(project, params), project.settings)[1].retention)


def read_every(project: Project) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """Those days by workflow, none where its params are wrong; and by workflow what is wrong with its params."""
    days, wrong = dict[str, dict[str, int]](), dict[str, str]()
    for workflow in project.workflows():
        try:
            days[workflow] = read_days(project, workflow)
        except (ParameterError, ProjectError) as error:
            days[workflow], wrong[workflow] = {}, str(error)
    return days, wrong


def longest(days: Mapping[str, Mapping[str, int]], what: str, *, default: int = 0) -> int:
    """The most days that any workflow gives to a kind; `default` counts for those that give none. Pure."""
    return max((kept.get(what, default) for kept in days.values()), default=default)


def find_expired(project: Project, workflow: str | None, *, now: datetime) -> tuple[list[Expired], list[str]]:
    """What is too old of a workflow, or of all, and which workflows' runs are left alone, with the reason.

    Logs of all workflows lie together, and stay as long as the longest that any asks for; and as long as the params of
    one are wrong. Raises ParameterError where those of `workflow` are.
    """
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)  # whole days go
    every, wrong = read_every(project)
    days, logs = {workflow: read_days(project, workflow)} if workflow else every, longest(every, "logs")
    needed, left = find_needed(project) if any("runs" in kept for kept in days.values()) else (set(), {})
    left |= dict.fromkeys(find_at_work(project), "a run is at work") | wrong
    found = []
    for name, kept in days.items():
        if "runs" in kept and name not in left:
            found.append(find_runs(project, name, before=today - timedelta(kept["runs"]), needed=needed))
        if "calls" in kept and project.has_store:
            found += find_rows(project.store, name, before=today - timedelta(kept["calls"]))
    if logs and not wrong:
        found.append(find_logs(project, before=today - timedelta(logs)))
    unsure = [f"logs: nobody can tell how long {' and '.join(wrong)} needs them"] if logs and wrong else []
    told = [f"{name}: {why}" for name, why in left.items() if name in days]
    return [each for each in found if each.n], told + unsure


def find_needed(project: Project) -> tuple[set[str], dict[str, str]]:
    """The runs that champions and former ones come from, with all that these were made from and judged by.

    And by workflow why its champions are not known.
    """
    pins, damaged = read_pins(project.board)
    champions, unknown = find_champions(project.board, damaged)
    origins = find_origins(pins, champions)
    return {str(pin.lineage.get("run")) for pin in pins if (pin.name, pin.version) in origins}, unknown


def find_runs(project: Project, workflow: str, *, before: datetime, needed: Collection[str]) -> Expired:
    """The runs of a workflow that may go, also what is left of one whose removal was killed.

    Pages of a champion, also of one that a rollback goes to, are rendered again from the run that `find_run_of` names.
    """
    folder, pages = project.runs_folder(workflow), project.pages_folder(workflow)
    names = {path.name for place in (folder, pages) for path in place.glob("*") if RUN_ID.fullmatch(path.name)}
    records = [read_remains(folder, run) for run in sorted(names, reverse=True)]
    newest = {result.run for path, result in read_results(folder) if path.stem == "latest"}
    champions = {champion.version: champion for champion in read_history(project.board, workflow)}
    shown = {record.run for each in champions.values() if (record := find_run_of(project, workflow, each))}
    runs = plan_runs(records, before=before, needed={*needed, *newest, *shown})
    sizes = sum(path.stat().st_size for run in runs for path in list_files(folder / run, pages / run))
    return Expired("runs", workflow, before, runs, len(runs), runs[0][:16] if runs else "", sizes)


def read_remains(folder: Path, run: str) -> RunRecord:
    """The record of a run; where it is gone, one that says so."""
    try:
        return read_record(folder, run)
    except RunError as error:
        return RunRecord(run, folder.name, "", "gone", "", error=str(error))


def read_results(folder: Path) -> list[tuple[Path, StageRecord]]:
    """The stages' results that a workflow's runs may take up, by file; without those that are damaged."""
    found = []
    for path in folder.glob("stages/*/*.json"):
        with suppress(OSError, ValueError):
            found.append((path, record_type(StageRecord).validate_json(path.read_bytes())))
    return found


def find_logs(project: Project, *, before: datetime) -> Expired:
    """The logs that nobody writes to and nobody has written to since."""
    logs = [path for path in list_files(project.outputs / "logs") if ".log" in path.name and not is_written(path)]
    ages = {path: path.stat().st_mtime for path in logs}
    old = sorted((path for path in logs if ages[path] < before.timestamp()), key=ages.__getitem__)
    oldest = datetime.fromtimestamp(ages[old[0]], UTC).strftime(STAMP) if old else ""
    return Expired("logs", "", before, [*map(str, old)], len(old), oldest, sum(path.stat().st_size for path in old))


def find_rows(store: Store, workflow: str, *, before: datetime) -> Iterator[Expired]:
    """The rows of a workflow that are too old, by table; `bytes` are those of their texts."""
    for table in TIMES:
        length = sum(sql.func.coalesce(sql.func.length(sql.cast(each, sql.Text)), 0) for each in table.columns)
        counted = sql.select(sql.func.count(), sql.func.min(TIMES[table]), sql.func.sum(length))
        for n, oldest, size in store.read(counted.where(choose_rows(table, workflow, before))):
            yield Expired(table.name, workflow, before, (), n, oldest or "", int(size or 0))


def choose_rows(table: sql.Table, workflow: str, before: datetime) -> sql.ColumnElement:
    """What is true of the rows of a workflow that are too old."""
    return (table.c.workflow == workflow) & (TIMES[table] < stamp(before))


def remove_expired(project: Project, expired: Iterable[Expired]) -> tuple[list[Expired], list[str]]:
    """Remove what was found; what is gone, and which workflows' runs were left as a run began meanwhile."""
    gone, left, tables = [], [], {table.name: table for table in TIMES}
    for each in expired:
        if each.what == "runs":
            n = remove_runs(project, each.workflow, each.names)
            left += [f"{each.workflow}: a run began meanwhile"] * (n < each.n)
        elif each.what == "logs":
            for name in each.names:
                Path(name).unlink(missing_ok=True)
            n = each.n
        else:
            table = tables[each.what]
            n = remove_rows(project.store, table, choose_rows(table, each.workflow, each.before))
        gone.append(each._replace(n=n))
    return gone, left


def remove_runs(project: Project, workflow: str, runs: Sequence[str]) -> int:
    """Remove runs, until one begins; how many. First go the results that name one: nobody takes them up any more."""
    folder, results = project.runs_folder(workflow), read_results(project.runs_folder(workflow))
    for n, run in enumerate(runs):
        if workflow in find_at_work(project):
            return n
        for path in (path for path, result in results if result.run == run):
            path.unlink(missing_ok=True)
        for place in (project.pages_folder(workflow) / run, folder / run):
            shutil.rmtree(place, ignore_errors=True)
    return len(runs)


def remove_rows(store: Store, table: sql.Table, chosen: sql.ColumnElement) -> int:
    """Remove rows some at a time, so that those who write calls and labels are never kept waiting; how many."""
    (key,), total = table.primary_key, 0
    while True:
        with store.writing() as connection:
            some = sql.select(key).where(chosen).limit(CHUNK)
            n = connection.execute(sql.delete(table).where(key.in_(some))).rowcount
        total += n
        if n < CHUNK:
            return total
        time.sleep(GAP)


def list_files(*folders: Path) -> list[Path]:
    """All files in folders, and in those below."""
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]
