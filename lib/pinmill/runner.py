"""One run of a job: each stage executed or reused, then the champion moved if the gate let the candidate through."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinmill.champion import Champion, promote, read_champion, read_history, replay
from pinmill.errors import (
    ConflictError,
    LockedError,
    PinmillError,
    PinNotFoundError,
    ProjectError,
    StageError,
    did_you_mean,
)
from pinmill.fingerprint import (
    Entry,
    Fingerprint,
    entry_file,
    explain_difference,
    hash_modules,
    latest_file,
    read_entry,
    take_fingerprint,
    write_entry,
)
from pinmill.lineage import hash_file
from pinmill.lock import Holder, check_held, hold_lock
from pinmill.notebook import Stage, find_imports, order_stages, read_stages
from pinmill.pages import publish_page, run_page, stable_page
from pinmill.params import Params, RunSettings, check_params, find_declarations, load_params, override
from pinmill.progress import LineProgress
from pinmill.project import Project
from pinmill.runs import (
    RunRecord,
    StageRecord,
    last_finished,
    make_run_id,
    settle_interrupted,
    write_record,
)
from pinmill.secret import find_secrets, hidden_values, reveal, scrub
from pinmill.session import CHAMPION, OUTSIDE
from pinmill.version import now_utc

if TYPE_CHECKING:
    from pinmill.kernel import Kernel

PACKAGE = Path(__file__).parent
DECISION = "metrics"  # the kind of pin that carries the gate's decision


@dataclass(frozen=True)
class Plan:
    """A checked request: everything that is known before the first stage."""

    workflow: str
    job: str
    stages: tuple[Stage, ...]
    values: Mapping[str, Any]
    origins: Mapping[str, str]
    settings: RunSettings
    forced: frozenset[str] = frozenset()


@dataclass
class Work:
    """One run in progress."""

    project: Project
    plan: Plan
    record: RunRecord
    progress: LineProgress
    last: RunRecord | None
    explain: bool = False
    ahead: "dict[str, Kernel]" = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.project.runs_folder(self.plan.workflow)

    @property
    def lock(self) -> Path:
        return self.project.run_lock(self.plan.workflow, self.plan.job)

    @property
    def hidden(self) -> list[str]:
        return hidden_values(find_secrets(dict(self.plan.values)), self.project.settings)

    def save(self, record: RunRecord) -> None:
        """Make `record` the truth about this run."""
        self.record = record
        write_record(self.folder, record)


def read_notebooks(project: Project, params: Params) -> list[Stage]:
    """All stages, with those notebooks that the params file puts in place of others."""
    run = params.values.get("run")
    replaced = run.get("notebooks") if isinstance(run, dict) else None
    paths = {name: project.root / path for name, path in replaced.items()} if isinstance(replaced, dict) else {}
    return read_stages(project.notebooks, paths)


def make_plan(
    project: Project, workflow: str, *, job: str, assignments: list[str], force: bool = False, start_from: str = ""
) -> Plan:
    """Check everything that can be checked before a kernel starts. Raises ParameterError and ProjectError."""
    file = project.params_file(workflow)
    params = load_params(file, where=project.relative(file), settings=project.settings, workflows=project.workflows())
    params = override(params, assignments)
    every = read_notebooks(project, params)
    values, settings = check_params(params, every, project.settings)
    stages = order_stages(every, job)
    by_set = {assignment.partition("=")[0] for assignment in assignments}
    origins = {name: "default" for name in find_declarations(every)} | {name: "params file" for name in params.values}
    origins |= {name: "--set" for name in by_set}
    forced = find_forced(stages, force=force, start_from=start_from)
    return Plan(workflow, job, tuple(stages), values, origins, settings, forced)


def find_forced(stages: list[Stage], *, force: bool, start_from: str) -> frozenset[str]:
    """Names of the stages that run though nothing changed."""
    names = [stage.name for stage in stages]
    if not start_from:
        return frozenset(names if force else ())
    stem = next((stage.name for stage in stages if start_from in (stage.name, stage.stem)), None)
    if stem is None:
        raise ProjectError(f"no stage {start_from!r}: the stages are {', '.join(names)}.{did_you_mean(start_from, names)}")
    return frozenset(names[names.index(stem) :])


def run_job(project: Project, plan: Plan, progress: LineProgress, *, explain: bool = False) -> RunRecord:
    """Run a job to its end and return its record, whatever happened. Only Ctrl-C and SIGTERM pass through."""
    run = make_run_id(now_utc())
    folder = project.runs_folder(plan.workflow)
    record = RunRecord(run, plan.workflow, plan.job, "running", now_utc().isoformat(), parameters=dict(plan.values))
    try:
        with hold_lock(project.run_lock(plan.workflow, plan.job), run=run) as holder:
            settle_interrupted(folder, plan.job, now_utc())
            last = last_finished(folder, plan.job)
            work = Work(project, plan, begin(record, holder, project), progress, last, explain)
            work.save(work.record)
            return finish(work)
    except LockedError as error:
        record = replace(record, status="skipped", ended=now_utc().isoformat(), error=str(error))
        write_record(folder, record)
        return record


def begin(record: RunRecord, holder: Holder, project: Project) -> RunRecord:
    """The record of a run that has the lock."""
    champion = read_champion(project.board, record.workflow)
    before = champion.version if champion else ""
    return replace(record, pid=holder.pid, born=holder.born, champion_before=before, champion_after=before)


def finish(work: Work) -> RunRecord:
    """Run the stages, settle the champion, and write the final record."""
    try:
        for number, stage in enumerate(work.plan.stages, start=1):
            take_stage(work, stage, number)
        settle(work)
    except PinmillError as error:
        work.save(end(work.record, "failed", str(scrub(str(error), work.hidden))))
    except KeyboardInterrupt:
        work.save(end(work.record, "interrupted", "interrupted by a signal"))
        raise
    except Exception as error:
        work.save(end(work.record, "failed", str(scrub(f"{type(error).__name__}: {error}", work.hidden))))
        raise
    finally:
        for kernel in work.ahead.values():
            kernel.stop()
    return work.record


def end(record: RunRecord, status: str, error: str = "") -> RunRecord:
    """The record with its final status; a stage at work ends with it."""
    stages = tuple(replace(s, status=status) if s.status == "running" else s for s in record.stages)
    return replace(record, status=status, ended=now_utc().isoformat(), error=error, stages=stages)


def read_inputs(work: Work, stage: Stage) -> dict[str, dict[str, str]]:
    """The exact pins a stage gets: from this run's earlier stages, otherwise the last of a scheduled run."""
    found = {}
    for kind in stage.reads:
        if kind in (OUTSIDE, CHAMPION):
            continue
        pin = work.record.output(kind) or last_scheduled(work.project, f"{work.plan.workflow}-{kind}")
        found[kind] = pin
    return found


def last_scheduled(project: Project, name: str) -> dict[str, str]:
    """The newest version of a pin that a scheduled run wrote. Raises PinNotFoundError."""
    for version in reversed(project.board.versions(name)):
        pin = project.board.pin(name, version)
        if not str(pin.lineage.get("run", "")).startswith("adhoc"):
            return {"name": name, "version": version, "sha256": pin.sha256}
    raise PinNotFoundError(f"no pin {name!r} from a scheduled run. Run the job that writes it first: pinmill run")


def read_outside(work: Work, stage: Stage) -> str | None:
    """How fresh the outside input is; empty text for a stage that has none, None when that cannot be told."""
    if OUTSIDE not in stage.reads:
        return ""
    from pinmill.freshness import freshness

    project = work.project
    source = reveal(work.plan.values["source"], project.settings)
    return freshness(source, root=project.root, board=project.board, cache=project.outputs / "freshness.json")


def take_stage(work: Work, stage: Stage, number: int) -> None:
    """Reuse the result of a stage, or run it; either way its record says why."""
    inputs = read_inputs(work, stage)
    fingerprint = take_fingerprint(
        stage,
        parameters=work.plan.values,
        inputs={kind: pin["sha256"] for kind, pin in inputs.items()},
        lock=hash_file(work.project.lock_file) if work.project.lock_file.is_file() else "",
        outside=read_outside(work, stage),
    )
    entry, why = find_reusable(work, stage, fingerprint)
    if entry is not None:
        status = StageRecord(
            stage.name, stage.stem, "reused", (), fingerprint.digest, entry.parts, entry.outputs,
            executed=entry.executed, run=entry.run,
        )
        work.save(work.record.with_stage(status))
        if work.explain:
            work.progress.end(stage.stem, f"nothing changed since run {entry.run}: reused")
        return
    execute_stage(work, stage, number, fingerprint, inputs, why)


def find_reusable(work: Work, stage: Stage, fingerprint: Fingerprint) -> tuple[Entry | None, list[str]]:
    """The earlier execution that may stand for this one, or None and the reasons."""
    if stage.name in work.plan.forced:
        return None, ["forced"]
    if fingerprint.outside is None:
        return None, ["nobody can tell whether the source changed, so it is read every time"]
    entry = read_entry(entry_file(work.folder, stage, fingerprint))
    if entry is None:
        latest = read_entry(latest_file(work.folder, stage))
        parts = describe_parts(fingerprint, latest.modules if latest else {})
        return None, explain_difference(latest.parts, parts) if latest else ["it never ran before"]
    modules = hash_modules(entry.modules, PACKAGE)
    if modules != entry.modules:
        return None, explain_difference({"modules": entry.modules}, {"modules": modules})
    for kind, pin in entry.outputs.items():
        if problems := verify_output(work.project, pin):
            return None, [f"its {kind} does not verify: {problems}"]
    if not decision_stands(work, entry):
        return None, ["the champion is another one than when the candidate was compared with it"]
    return entry, []


def verify_output(project: Project, pin: Mapping[str, str]) -> str:
    """What is wrong with an output that an earlier run left; empty when it is whole."""
    try:
        problems = project.board.verify(pin["name"], pin["version"])
    except PinNotFoundError as error:
        return str(error)
    return "; ".join(problems)


def decision_stands(work: Work, entry: Entry) -> bool:
    """Whether an earlier decision of the gate may be taken over: same candidate as in the last run, or same champion."""
    if DECISION not in entry.outputs:
        return True
    made = entry.outputs[DECISION]
    before = work.last.output(DECISION) if work.last else None
    if before and before["version"] == made["version"]:
        return True
    facts = work.project.board.pin(made["name"], made["version"]).facts
    champion = read_champion(work.project.board, work.plan.workflow)
    return (champion.version if champion else None) == facts["champion"]


def describe_parts(fingerprint: Fingerprint, modules: Mapping[str, str]) -> dict[str, Any]:
    """A fingerprint with the modules as they are now, to compare with an entry's."""
    return {**vars(fingerprint), "modules": hash_modules(modules, PACKAGE)}


def execute_stage(
    work: Work, stage: Stage, number: int, fingerprint: Fingerprint, inputs: Mapping[str, Any], why: list[str]
) -> None:
    """Run a stage's notebook in a kernel, and remember what it wrote."""
    shown = why if work.explain else why[:1]
    more = f" (and {len(why) - len(shown)} more: --explain)" if len(why) > len(shown) else ""
    work.progress.begin(stage.stem, number, len(work.plan.stages))
    work.progress.say(f"{stage.stem} runs: {'; '.join(map(str, scrub(shown, work.hidden)))}{more}")
    target = work.folder / work.record.run / stage.path.name
    executed = work.project.relative(target)
    record = StageRecord(
        stage.name, stage.stem, "running", tuple(why), fingerprint.digest, executed=executed, run=work.record.run
    )
    work.save(work.record.with_stage(record))
    clock = time.monotonic()
    modules = run_kernel(work, stage, target, inputs)
    outputs = {kind: find_written(work, kind) for kind in stage.writes}
    hashes = hash_modules(modules, PACKAGE)
    parts = describe_parts(fingerprint, hashes)
    write_entry(work.folder, stage, fingerprint, Entry(work.record.run, executed, parts, hashes, outputs))
    seconds = round(time.monotonic() - clock, 3)
    done = replace(record, status="ran", parts=parts, outputs=outputs, seconds=seconds)
    work.save(work.record.with_stage(done))
    work.progress.end(stage.stem, f"done in {seconds:.1f} s")


def handover(work: Work, stage: Stage, inputs: Mapping[str, Any]) -> dict[str, str]:
    """What the runner tells a kernel about the run it takes part in."""
    return {
        "PINMILL_HOME": str(work.project.root),
        "PINMILL_RUN": work.record.run,
        "PINMILL_STAGE": work.project.relative(stage.path),
        "PINMILL_INPUTS": json.dumps({kind: pin["version"] for kind, pin in inputs.items()}),
        "PINMILL_ORIGINS": json.dumps({name: work.plan.origins[name] for name in stage.declarations}),
        "PINMILL_LOCK": str(work.lock),
    }


def take_kernel(work: Work, stage: Stage, *, likely: str = "") -> "Kernel":
    """The kernel that was started ahead for a stage, or a new one."""
    from pinmill.kernel import start_kernel

    if stage.name in work.ahead:
        return work.ahead[stage.name]
    kernel = start_kernel(work.project.root, work.project.settings, imports=f"{find_imports(stage)}\n{likely}")
    work.ahead[stage.name] = kernel
    return kernel


def run_kernel(work: Work, stage: Stage, target: Path, inputs: Mapping[str, Any]) -> list[str]:
    """Execute a stage while the next one's kernel starts; the pinmill modules it imported."""
    from pinmill.kernel import LIKELY

    kernel = take_kernel(work, stage)
    from pinmill.engine import Execution, run_notebook  # two seconds of imports, while the kernel boots

    position = work.plan.stages.index(stage) + 1
    for following in work.plan.stages[position : position + 1]:
        take_kernel(work, following, likely=LIKELY)
    hidden = work.hidden
    execution = Execution(
        kernel=kernel,
        handover=handover(work, stage, inputs),
        seconds=work.plan.settings.seconds(stage.name),
        hide=lambda value: scrub(value, hidden) if hidden else value,
        tick=work.progress.cells,
    )
    parameters = {name: work.plan.values[name] for name in stage.declarations}
    try:
        run_notebook(stage.path, target, parameters=parameters, cwd=work.project.root, execution=execution)
    except StageError as error:
        kept = work.project.relative(target)
        raise StageError(f"{stage.stem}, {error}\nThe executed notebook is kept: {kept}") from None
    finally:
        work.ahead.pop(stage.name).stop()
    return execution.modules


def find_written(work: Work, kind: str) -> dict[str, str]:
    """The pin of a kind that this run has written. Raises StageError when there is none."""
    name = f"{work.plan.workflow}-{kind}"
    for version in reversed(work.project.board.versions(name)):
        pin = work.project.board.pin(name, version)
        if pin.lineage.get("run") == work.record.run:
            return {"name": name, "version": version, "sha256": pin.sha256}
        if not str(pin.lineage.get("run", "")).startswith("adhoc"):
            break
    raise StageError(f"the notebook ended without writing {kind!r}, which its front matter promises")


@dataclass(frozen=True)
class Verdict:
    """How a run ends, and whether it moves the champion."""

    status: str
    move: bool
    reasons: tuple[str, ...]


def judge(
    facts: Mapping[str, Any], *, same_as_last: str, champion: Champion | None, held: frozenset[str]
) -> Verdict:
    """What a gate's decision means now. Pure.

    `facts` are those of the metrics pin; `same_as_last` is the last run's status when it had this very decision,
    otherwise empty; `held` are the SHA-256 of models that a rollback left. Raises ConflictError when the champion
    was moved since the decision.
    """
    reasons = tuple(facts["reasons"])
    if same_as_last:
        return Verdict(same_as_last, False, reasons)
    if not facts["passed"]:
        return Verdict("rejected", False, reasons)
    if champion and champion.sha256 == facts["candidate_sha256"]:
        return Verdict("succeeded", False, (*reasons, "the same model is the champion already"))
    if facts["candidate_sha256"] in held:
        return Verdict("succeeded", False, (*reasons, "held since a rollback left it: only pinmill promote brings it back"))
    now = champion.version if champion else None
    if now != facts["champion"]:
        raise ConflictError(
            f"the champion was moved from {facts['champion']} to {now} while this run compared with the former. Run again."
        )
    return Verdict("succeeded", True, reasons)


def settle(work: Work) -> None:
    """Move the champion if the decision says so, render the page, and write the final record."""
    project, workflow = work.project, work.plan.workflow
    made = work.record.output(DECISION)
    if made is None:
        work.save(end(work.record, "succeeded"))
        return
    facts = project.board.pin(made["name"], made["version"]).facts
    before = work.last.output(DECISION) if work.last else None
    same = work.last.status if work.last and before and before["version"] == made["version"] else ""
    champion = read_champion(project.board, workflow)
    verdict = judge(facts, same_as_last=same, champion=champion, held=find_held(project, workflow))
    if verdict.move:
        champion = promote(
            project.board, workflow, facts["candidate"], by=f"run {work.record.run}", why="; ".join(verdict.reasons),
            expected=facts["champion"], gate=True, when=now_utc(),
            guard=lambda: check_held(work.lock, work.record.run),
        )
    record = replace(
        work.record, candidate=facts["candidate"], reasons=verdict.reasons,
        champion_after=champion.version if champion else "",
    )
    record = render(work, record, verdict.status)
    if record.page and not same and champion and champion.sha256 == facts["candidate_sha256"]:
        page = project.root / record.page
        publish_page(page, stable_page(project, workflow, page.stem))
    work.save(end(record, verdict.status))


def find_held(project: Project, workflow: str) -> frozenset[str]:
    """SHA-256 of the models that a rollback left."""
    history = read_history(project.board, workflow)
    hashes = {champion.version: champion.sha256 for champion in history}
    return frozenset(hashes[version] for version in replay(history).held)


def render(work: Work, record: RunRecord, status: str) -> RunRecord:
    """The record with its page, rendered unless it stands already; a failed render is a warning, never a failure."""
    stage = next((stage for stage in work.plan.stages if stage.page), None)
    done = record.stage(stage.name) if stage else None
    if stage is None or done is None:
        return record
    page = run_page(work.project, work.plan.workflow, done.run, stage.page)
    banner = "" if status == "succeeded" else "This model was rejected by the gate and is not the champion."
    try:
        if done.status == "ran" or not page.is_file():
            from pinmill.report import render_page

            subject = str(work.plan.values.get("title") or work.plan.workflow)
            render_page(work.project.root / done.executed, page, subject=subject, status_banner=banner)
    except (PinmillError, OSError) as error:
        return replace(record, warnings=(*record.warnings, f"the page was not rendered: {error}"))
    return replace(record, page=work.project.relative(page))
