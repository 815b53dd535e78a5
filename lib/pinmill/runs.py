"""The record of each run: one JSON file, written whole, that says what happened."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pinmill.errors import RunError
from pinmill.lock import is_alive
from pinmill.plan import Plan
from pinmill.progress import LineProgress
from pinmill.project import Project
from pinmill.secret import find_secrets, hidden_values, scrub
from pinmill.version import now_utc

RUN_ID = re.compile(r"\d{8}T\d{6}Z-\d{6}-[0-9a-f]{4}")
UPLOAD = "upload-"  # begins what stands for the run in the lineage of a model that no run made
FINISHED = ("succeeded", "rejected")
EXIT_CODES = {"succeeded": 0, "rejected": 3, "failed": 4, "interrupted": 130, "skipped": 75}


@dataclass(frozen=True)
class StageRecord:
    """What one stage did in one run."""

    stage: str
    notebook: str
    status: str  # ran | reused | failed | running
    why: tuple[str, ...] = ()  # what changed in its fingerprint since it was last run
    fingerprint: str = ""
    parts: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)  # kind -> {name, version, sha256}
    seconds: float = 0.0
    executed: str = ""  # the executed notebook, relative to the project's root
    run: str = ""  # the run that executed it, another one when reused


@dataclass(frozen=True)
class RunRecord:
    """What one run did. While it works its status is `running`, and `pid` and `born` name its process."""

    run: str
    workflow: str
    job: str
    status: str
    started: str
    ended: str = ""
    pid: int = 0
    born: float = 0.0
    parameters: dict[str, Any] = field(default_factory=dict)
    model: str = ""  # the version that was given; empty: the run's own
    stages: tuple[StageRecord, ...] = ()
    candidate: str = ""
    champion_before: str = ""
    champion_after: str = ""
    reasons: tuple[str, ...] = ()
    outcome: str = ""  # what became of the candidate, in a few words
    error: str = ""
    pages: dict[str, str] = field(default_factory=dict)  # name -> file, relative to the project's root
    rendered_by: str = ""
    warnings: tuple[str, ...] = ()

    def stage(self, name: str) -> StageRecord | None:
        return next((stage for stage in self.stages if stage.stage == name), None)

    def output(self, kind: str) -> dict[str, str] | None:
        """The pin of a kind that this run made or reused, as {name, version, sha256}."""
        return next((stage.outputs[kind] for stage in self.stages if kind in stage.outputs), None)

    def with_stage(self, stage: StageRecord) -> "RunRecord":
        """This record with the stage of that name replaced, or added."""
        others = tuple(s for s in self.stages if s.stage != stage.stage)
        return replace(self, stages=(*others, stage))

    def end(self, status: str, now: datetime, error: str = "") -> "RunRecord":
        """This record with its final status; a stage at work ends with it."""
        stages = tuple(replace(s, status=status) if s.status == "running" else s for s in self.stages)
        return replace(self, status=status, ended=now.isoformat(), error=error, stages=stages)


def make_run_id(now: datetime) -> str:
    """An identifier for a run that sorts by time and is not given twice."""
    return f"{now:%Y%m%dT%H%M%SZ-%f}-{os.urandom(2).hex()}"


def is_scheduled(author: str) -> bool:
    """Whether what a pin's lineage names as its run is one of the runner's: no notebook by hand, and no upload."""
    return not author.startswith(("adhoc", UPLOAD))


def stage_file(path: Path, data: bytes) -> Path:
    """Write a file beside its place, and onto the disk; its path, to be moved there. Nothing stays of a failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old or the new one, never a part, whatever is killed when."""
    temporary = stage_file(path, data)
    try:
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_whole(path, json.dumps(value, indent=1, default=str).encode())


@cache
def record_type(kind: type) -> TypeAdapter:
    """pydantic's reader of a kind of record; what it reads is checked."""
    return TypeAdapter(kind)


def claim_run(folder: Path, run: str) -> None:
    """Make the folder of a run, which nobody else can after that. Raises RunError where there is one."""
    try:
        (folder / run).mkdir(parents=True)
    except FileExistsError:
        raise RunError(f"there is a run {run} of {folder.name} already, and no two can have one id.") from None


def write_record(folder: Path, record: RunRecord) -> None:
    """Write a run's record into its folder below `folder`, the workflow's folder of runs."""
    write_json(folder / record.run / "run.json", asdict(record))


def read_record(folder: Path, run: str) -> RunRecord:
    """A run's record; `interrupted` if its process is gone, `unreadable` if damaged. Raises RunError for none."""
    try:
        record = record_type(RunRecord).validate_json((folder / run / "run.json").read_bytes())
    except FileNotFoundError:
        if run.startswith(UPLOAD):
            raise RunError(f"{run} is no run: that model was uploaded, so it cannot be made again here") from None
        raise RunError(f"no run {run!r} of {folder.name}. See: pinmill runs {folder.name}") from None
    except ValueError as error:
        return RunRecord(run, folder.name, "", "unreadable", "", error=f"its record run.json is damaged: {error}")
    if record.status == "running" and not is_alive(record.pid, record.born):
        return replace(record, status="interrupted", error=record.error or "its process ended without a word")
    return record


def list_runs(folder: Path) -> list[str]:
    """Identifiers of all runs with a record, newest first."""
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted((name for name in names if (folder / name / "run.json").is_file()), reverse=True)


def read_records(folder: Path) -> Iterator[RunRecord]:
    """Records of all runs of a workflow, newest first, read one by one."""
    return (read_record(folder, run) for run in list_runs(folder))


def last_finished(folder: Path, job: str, *, model: str | None = None) -> RunRecord | None:
    """The newest run of a job (empty: of any) that succeeded or was rejected.

    With `model` only runs that were given this version count; for an empty text, those that were given none.
    """
    finished = (r for r in read_records(folder) if job in ("", r.job) and r.status in FINISHED)
    return next((record for record in finished if model in (None, record.model)), None)


def settle_interrupted(folder: Path, job: str, now: datetime) -> None:
    """Write down as `interrupted` the runs of a job since its last one that nobody works on; its lock is held."""
    for record in read_records(folder):
        if record.job != job or record.status == "skipped":
            continue
        if record.ended or record.status != "interrupted":
            return
        write_record(folder, record.end("interrupted", now, record.error))


@dataclass
class Work:
    """One run in progress."""

    project: Project
    plan: Plan
    record: RunRecord
    progress: LineProgress
    last: RunRecord | None  # the last finished run of this job
    explain: bool = False
    ahead: dict[str, Any] = field(default_factory=dict)  # kernels by stage, started and not yet stopped

    @cached_property
    def hidden(self) -> list[str]:
        """Secret values of this workflow and of the addresses that it tells, which must not be shown."""
        from pinmill.notify import find_urls, hide_urls

        secrets = hidden_values(find_secrets(dict(self.plan.values)), self.project.settings)
        return sorted({*secrets, *hide_urls(find_urls(self.project, self.plan.settings))}, key=len, reverse=True)

    @property
    def folder(self) -> Path:
        return self.project.runs_folder(self.plan.workflow)

    @property
    def lock(self) -> Path:
        return self.project.run_lock(self.plan.workflow, self.plan.job)

    def save(self, record: RunRecord) -> None:
        """Make `record` the truth about this run."""
        self.record = record
        write_record(self.folder, record)

    def give_up(self, status: str, error: str) -> None:
        """Save that this run ended without being settled, and why."""
        self.save(self.record.end(status, now_utc(), scrub(error, self.hidden)))
