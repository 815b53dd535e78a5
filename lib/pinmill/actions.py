"""What the writing cells of the serving notebook do: move the champion, start a run, and follow it."""

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from pinmill import champion
from pinmill.champion import Champion
from pinmill.errors import ChampionError, IntegrityError, PinmillError, PinNotFoundError, RunError, StoreError
from pinmill.lock import read_holder
from pinmill.models import find_model, list_models
from pinmill.plan import make_plan
from pinmill.problem import Problem
from pinmill.project import COMMAND, Project
from pinmill.runs import RUN_ID, make_run_id, read_record
from pinmill.version import now_utc
from pinmill.visit import ANONYMOUS, STARTED

if TYPE_CHECKING:
    from pinmill.service import Response, Service

Caller = Mapping[str, str] | None
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]

# Parameters that say what this machine reads, writes, executes and shows its token to: not for callers.
FIXED = ("source", "query", "run", "input", "output", "url")
OF_KERNEL = ("JPY_", "MPLBACKEND", "PINMILL_WARM", STARTED, "OMP_NUM_", "OPENBLAS_NUM_", "MKL_NUM_")  # its own alone
TOLD = """run workflow job status started ended candidate champion_before champion_after reasons outcome error
warnings"""  # of a run's record
STAGE = ("stage", "status", "seconds")  # of a stage's


class Body(BaseModel):
    """What a caller may send; a value of another type is not converted, and nothing else may stand there."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Promotion(Body):
    """PUT /models/champion: the version, which may be shortened, becomes the champion."""

    version: Text
    why: Text
    override: bool = False


class Rollback(Body):
    """PUT /models/champion: back to the champion before this one, or to an earlier one."""

    action: Literal["rollback"]
    why: Text
    to: Text | None = None


class Start(Body):
    """POST /runs: what `pinmill run` takes as --job, --set and --model."""

    job: Text = "train"
    set: dict[str, Any] = {}
    model: Text | None = None


def promote(service: "Service", request: str, caller: Caller) -> "Response":
    """What moving the champion came to: the decision. The champion's pages are made again beside the service.

    The body is a Promotion or a Rollback. Problems: 403 without a caller, 404 for an unknown version, 409 where that
    cannot be (the gate did not pass it, somebody else was faster), 422 for another body.
    """
    from pinmill.service import respond

    return respond(lambda: move_champion(service.run.project, service.workflow, request, caller))


def start_run(service: "Service", request: str, caller: Caller) -> "Response":
    """The id of a run that was started, and where to follow it; status 202.

    The body is a Start. Problems: 403 without a caller, 409 while another run of the job is at work, 422 for another
    body and for all that `pinmill run` refuses.
    """
    from pinmill.service import respond

    return respond(lambda: begin_run(service, request, caller), status=202)


def read_run(service: "Service", request: str) -> "Response":
    """What a run does or did. Problem: 404."""
    from pinmill.service import respond

    return respond(lambda: tell_run(service.run.project, service.workflow, json.loads(request)["path"]["id"]))


def promote_model(
    project: Project, workflow: str, model: Mapping[str, Any], *, by: str, why: str, override: bool
) -> Champion:
    """Make a model, as `list_models` tells it, the champion."""
    now = champion.read_champion(project.board, workflow)
    expected = now.version if now else None
    signed = {"by": by, "why": why, "when": now_utc(), "gate": model["gate"], "override": override}
    return champion.promote(project.board, workflow, model["version"], expected=expected, **signed)


def take_body(request: str, caller: Caller, kind: type[Body], other: type[Body] | None = None) -> Any:
    """The body of a request that changes something, as `kind`, or as `other` where it names an action.

    Raises Problem: 403 where nobody vouches for who asks, 422 with all that is wrong with the body.
    """
    if caller is None:
        raise Problem(403, "only Pinmill's gateway can tell who asks: start it with `pinmill serve`, and show a token")
    given = json.loads(request).get("body")
    body = {} if given is None else given
    try:
        return (other if other and isinstance(body, dict) and "action" in body else kind).model_validate(body)
    except ValidationError as error:
        found = [{"field": ".".join(map(str, each["loc"])), "problem": each["msg"]} for each in error.errors()]
        raise Problem(422, "the body is not as expected", errors=found) from None


def move_champion(project: Project, workflow: str, request: str, caller: Caller) -> dict[str, Any]:
    """Promote or roll back as a request says; the answer. Raises Problem."""
    asked = take_body(request, caller, Promotion, Rollback)
    signed = {"by": caller["name"] or ANONYMOUS, "why": asked.why}
    goes_back = isinstance(asked, Rollback)
    named = asked.to if goes_back else asked.version
    try:
        model = find_model(list_models(project.board, workflow), named) if named else {}
    except (ChampionError, PinNotFoundError) as error:
        raise Problem(404, str(error)) from None
    if not (goes_back or asked.override or model["gate"]):
        raise Problem(409, tell_gate(model))
    try:
        if goes_back:
            moved = champion.rollback(project.board, workflow, to=model.get("version"), when=now_utc(), **signed)
        else:
            moved = promote_model(project, workflow, model, override=asked.override, **signed)
    except PinmillError as error:
        raise Problem(409 if isinstance(error, ChampionError | IntegrityError) else 503, str(error)) from None
    with suppress(Problem):  # the pages say themselves of whom they tell, and the next run makes them
        spawn(project, ["report", workflow], log=log_file(project, f"report-{moved.record}"))
    return asdict(moved)


def tell_gate(model: Mapping[str, Any]) -> str:
    """Why a model may not be champion, and what to do about it."""
    asked = f'POST /runs with {{"model": "{model["version"]}"}} asks it'
    said = " ".join(["rejected it.", *model["reasons"]]) if model["gate"] is False else f"was not asked: {asked}."
    return (
        f'{model["version"]}: the gate {said} With "override": true it is promoted all the same, and that is recorded.'
    )


def begin_run(service: "Service", request: str, caller: Caller) -> dict[str, Any]:
    """Start a run as a request says; the answer. Raises Problem."""
    asked, project, workflow = take_body(request, caller, Start), service.run.project, service.workflow
    if asked.job == service.run.stage.job:
        raise Problem(422, f"job {asked.job!r} is what answers you; it is started by `pinmill serve`")
    assignments = read_assignments(asked.set)
    try:
        plan = make_plan(project, workflow, job=asked.job, assignments=assignments, model=asked.model or "")
    except PinmillError as error:
        raise Problem(422, str(error)) from None
    words = [word for assignment in assignments for word in ("--set", assignment)]
    said = [asked.job, *(f"{name}={json.dumps(value)}" for name, value in asked.set.items()), plan.model]
    words += ["--model", plan.model] if plan.model else []
    note = partial(note_start, project, workflow, " ".join(said).strip(), by=caller["name"])
    run = spawn_run(project, workflow, asked.job, words, note=note)
    return {"run": run, "status": "running", "follow": f"/runs/{run}"}


def note_start(project: Project, workflow: str, detail: str, *, by: str) -> None:
    """Have the audit list say who starts a run. Raises Problem (503): what nobody can be asked about is not started."""
    from pinmill.tokens import write_audit

    try:
        with project.store.writing() as connection:
            about = {"who": by or ANONYMOUS, "what": "run started", "workflow": workflow, "when": now_utc()}
            write_audit(connection, detail=detail, **about)
    except StoreError:
        raise Problem(503, "the audit list cannot be written, so no run is started. Try again in a moment") from None


def start_evaluation(project: Project, workflow: str, version: str) -> dict[str, str]:
    """Have an uploaded version evaluated by a run of its own; where it can be followed, or why it was not started."""
    try:
        run = spawn_run(project, workflow, "train", ["--model", version])
    except Problem as problem:
        return {"run": "", "next": f'{problem.detail}. POST /runs with {{"model": "{version}"}} then'}
    return {"run": run, "next": f"follow it at /runs/{run}"}


def read_assignments(values: Mapping[str, Any]) -> list[str]:
    """Parameters as `pinmill run --set` takes them. Raises Problem (422)."""
    import yaml

    named = {name: "is no name" for name in values if not name.isidentifier()}
    named |= dict.fromkeys(FIXED, "says what this machine reads, writes or runs, so it stands in params/ only")
    if found := [{"field": f"set.{name}", "problem": named[name]} for name in values if name in named]:
        raise Problem(422, "the body is not as expected", errors=found)
    flat = {"default_flow_style": True, "allow_unicode": True, "width": sys.maxsize}  # on one line
    return [f"{name}={yaml.safe_dump(value, **flat)}" for name, value in values.items()]


def log_file(project: Project, run: str) -> Path:
    """Where a run or a report that a request started leaves what it says."""
    return project.outputs / "logs" / f"{run}.log"


def spawn_run(
    project: Project, workflow: str, job: str, words: list[str], *, note: Callable[[], None] = lambda: None
) -> str:
    """Start `pinmill run` as a process that outlives this one, once it is noted; the run's id.

    Raises Problem: 409 while another run of this job is at work, or was started and has not got its lock yet.
    """
    last = project.outputs / "logs" / f"{workflow}-{job}.last"  # the run that was started last
    try:
        last.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(last.with_suffix(".lock")):
            holder, before = read_holder(project.run_lock(workflow, job)), last.read_text() if last.exists() else ""
            if busy := holder.run if holder else before if is_written(log_file(project, before)) else "":
                step = f"Follow it at /runs/{busy}, and ask again when it has ended"
                raise Problem(409, f"run {busy} of {workflow} and job {job!r} is at work. {step}")
            note()
            run = make_run_id(now_utc())
            spawn(project, ["run", workflow, "--job", job, *words, "--run-id", run], log=log_file(project, run))
            last.write_text(run)
    except OSError as error:
        raise Problem(503, f"`pinmill run` could not be started: {error.strerror}") from None
    return run


def spawn(project: Project, words: list[str], *, log: Path) -> None:
    """Start `pinmill WORDS` as a process that outlives this one and writes to `log`. Raises Problem (503)."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(OF_KERNEL)}
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("xb") as output:
            fcntl.flock(output, fcntl.LOCK_EX)  # shared with the process, so it is held until that has ended, however
            process = subprocess.Popen(
                [*COMMAND, *words],
                cwd=project.root,
                env=environ | {"PINMILL_HOME": str(project.root)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as error:
        raise Problem(503, f"`pinmill {words[0]}` could not be started: {error.strerror}") from None
    threading.Thread(target=process.wait, name=log.stem, daemon=True).start()  # or it stays as a zombie


def is_written(log: Path) -> bool:
    """Whether the process that writes a log is there."""
    try:
        with log.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def tell_run(project: Project, workflow: str, run: str) -> dict[str, Any]:
    """What a run does or did; `starting` while its process is there and its record is not. Raises Problem (404)."""
    log, lost = log_file(project, run), Problem(404, f"there is no run {run[:40]!r} of {workflow}")
    if not RUN_ID.fullmatch(run):
        raise lost
    status = ("starting" if is_written(log) else "failed") if log.is_file() else ""  # before the record is looked for
    try:
        record = read_record(project.runs_folder(workflow), run)
    except RunError:
        if not status:
            raise lost from None
        said = f"it ended before its first stage; what it said is in {project.relative(log)}"
        return {"run": run, "workflow": workflow, "status": status, "error": said * (status == "failed")}
    stages = [{name: getattr(stage, name) for name in STAGE} for stage in record.stages]
    return {name: getattr(record, name) for name in TOLD.split()} | {"stages": stages}
