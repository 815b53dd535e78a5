"""One run of a job: each stage executed or reused, then the champion moved if the gate let the candidate through."""

import json
import logging
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinmill.champion import Champion, promote, read_champion
from pinmill.errors import LockedError, PinmillError, PinNotFoundError, StageError
from pinmill.fingerprint import (
    digest_parts,
    explain_difference,
    hash_content,
    hash_modules,
    read_parts,
    read_result,
    write_result,
)
from pinmill.lineage import hash_file
from pinmill.lock import check_held, hold_lock
from pinmill.notebook import Stage, find_imports
from pinmill.pages import publish_page, run_page, stable_page
from pinmill.plan import Plan
from pinmill.progress import LineProgress
from pinmill.project import Project
from pinmill.runs import RunRecord, StageRecord, last_finished, make_run_id, settle_interrupted, write_record
from pinmill.secret import find_secrets, hidden_values, reveal, scrub
from pinmill.session import CHAMPION, OUTSIDE
from pinmill.verdict import DECISION, find_held, judge, read_facts, repeats, stands
from pinmill.version import now_utc

if TYPE_CHECKING:
    from pinmill.kernel import Kernel


@dataclass
class Work:
    """One run in progress."""

    project: Project
    plan: Plan
    record: RunRecord
    progress: LineProgress
    last: RunRecord | None  # the last finished run of this job
    explain: bool = False
    ahead: "dict[str, Kernel]" = field(default_factory=dict)  # kernels by stage, started and not yet stopped

    @cached_property
    def hidden(self) -> list[str]:
        """Secret values of this workflow, which must not be shown."""
        return hidden_values(find_secrets(dict(self.plan.values)), self.project.settings)

    @property
    def folder(self) -> Path:
        return self.project.runs_folder(self.plan.workflow)

    @property
    def lock(self) -> Path:
        return self.project.run_lock(self.plan.workflow, self.plan.job)

    def pin_name(self, kind: str) -> str:
        return f"{self.plan.workflow}-{kind}"

    def save(self, record: RunRecord) -> None:
        """Make `record` the truth about this run."""
        self.record = record
        write_record(self.folder, record)


def run_job(project: Project, plan: Plan, progress: LineProgress, *, explain: bool = False) -> RunRecord:
    """Run a job to its end and return its record, whatever happened. Only signals are raised."""
    run = make_run_id(now_utc())
    folder = project.runs_folder(plan.workflow)
    record = RunRecord(run, plan.workflow, plan.job, "running", now_utc().isoformat(), parameters=dict(plan.values))
    try:
        with hold_lock(project.run_lock(plan.workflow, plan.job), run=run) as holder:
            settle_interrupted(folder, plan.job, now_utc())
            last = last_finished(folder, plan.job)
            work = Work(project, plan, replace(record, pid=holder.pid, born=holder.born), progress, last, explain)
            work.save(work.record)
            return finish(work)
    except LockedError as error:
        record = end(record, "skipped", str(error))
        write_record(folder, record)
        return record


def end(record: RunRecord, status: str, error: str = "") -> RunRecord:
    """The record with its final status; a stage at work ends with it."""
    stages = tuple(replace(s, status=status) if s.status == "running" else s for s in record.stages)
    return replace(record, status=status, ended=now_utc().isoformat(), error=error, stages=stages)


def finish(work: Work) -> RunRecord:
    """Run the stages, settle the champion, and write the final record."""
    try:
        champion = read_champion(work.project.board, work.plan.workflow)
        before = champion.version if champion else ""
        work.record = replace(work.record, champion_before=before, champion_after=before)
        for number, stage in enumerate(work.plan.stages, start=1):
            take_stage(work, stage, number)
        settle(work)
    except PinmillError as error:
        work.save(end(work.record, "failed", str(scrub(str(error), work.hidden))))
    except KeyboardInterrupt:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # the cell given up would be told with a traceback
        if not work.record.ended:
            work.save(end(work.record, "interrupted", "interrupted by a signal"))
        raise
    except Exception as error:
        work.progress.say(scrub(traceback.format_exc(), work.hidden))  # a defect of ours: told whole
        work.save(end(work.record, "failed", str(scrub(f"{type(error).__name__}: {error}", work.hidden))))
    finally:
        for kernel in work.ahead.values():
            kernel.stop()
    return work.record


def take_stage(work: Work, stage: Stage, number: int) -> None:
    """Reuse the result of a stage, or run it; either way the record says so."""
    inputs = read_inputs(work, stage)
    lock_file = work.project.lock_file
    parts = read_parts(
        stage,
        parameters=work.plan.values,
        inputs={kind: pin["content"] for kind, pin in inputs.items()},
        lock=hash_file(lock_file) if lock_file.is_file() else "",
        outside=read_outside(work, stage),
    )
    result, why = find_reusable(work, stage, parts)
    if result is None:
        execute_stage(work, stage, number, parts, inputs, why)
        return
    work.save(work.record.with_stage(replace(result, status="reused", why=())))
    if work.explain:
        work.progress.say(f"{stage.stem} is reused: nothing changed since run {result.run}")


def read_inputs(work: Work, stage: Stage) -> dict[str, dict[str, str]]:
    """The exact pins a stage gets: from this run's earlier stages, otherwise the last of a scheduled run."""
    kinds = [kind for kind in stage.reads if kind not in (OUTSIDE, CHAMPION)]
    return {kind: work.record.output(kind) or find_scheduled(work, kind) for kind in kinds}


def find_scheduled(work: Work, kind: str, run: str = "") -> dict[str, str]:
    """The newest pin of a kind that a scheduled run wrote, or that run `run` wrote. Raises PinNotFoundError."""
    board, name = work.project.board, work.pin_name(kind)
    for version in reversed(board.versions(name)):
        pin = board.pin(name, version)
        author = str(pin.lineage.get("run", ""))
        if author == run or (not run and not author.startswith("adhoc")):
            return {"name": name, "version": version, "sha256": pin.sha256, "content": hash_content(pin)}
        if run and author < run:
            break
    raise PinNotFoundError(f"no pin {name!r} of a scheduled run. Run the job that writes it first.")


def read_outside(work: Work, stage: Stage) -> str | None:
    """How fresh the outside input is; empty text for a stage that has none, None when that cannot be told."""
    if OUTSIDE not in stage.reads:
        return ""
    from pinmill.freshness import freshness
    from pinmill.source import check_source

    project, values = work.project, work.plan.values
    source = reveal(values["source"], project.settings)
    check_source(source, root=project.root, address=values.get("address", ""))
    return freshness(source, root=project.root, board=project.board, cache=project.outputs / "freshness.json")


def find_reusable(work: Work, stage: Stage, parts: Mapping[str, Any]) -> tuple[StageRecord | None, list[str]]:
    """The earlier execution that may stand for this one, or None and the reasons."""
    result = read_result(work.folder, stage, digest_parts(parts)) or read_result(work.folder, stage)
    if result is None:
        return None, ["it never ran before"]
    changed = explain_difference(result.parts, {**parts, "modules": hash_modules(result.parts["modules"])})
    if stage.name in work.plan.forced:
        return None, ["forced", *changed]
    if parts["outside"] is None:
        return None, ["nobody can tell whether the source changed, so it is read every time", *changed]
    if changed:
        return None, changed
    for kind, pin in result.outputs.items():
        if problems := work.project.board.verify(pin["name"], pin["version"]):
            return None, [f"its {kind} pin does not verify: {'; '.join(problems)}"]
    made = result.outputs.get(DECISION)
    if made and not stands(work.project.board, work.plan.workflow, made, work.last):
        return None, ["the champion is another one than when the candidate was compared with it"]
    return result, []


def execute_stage(
    work: Work, stage: Stage, number: int, parts: Mapping[str, Any], inputs: Mapping[str, Any], why: list[str]
) -> None:
    """Run a stage's notebook in a kernel, and remember what it wrote."""
    why = scrub(why, work.hidden)
    shown = why if work.explain else why[:2]
    more = f" and {len(why) - len(shown)} more (--explain)" if len(why) > len(shown) else ""
    work.progress.begin(stage.stem, number, len(work.plan.stages), f"{'; '.join(shown)}{more}")
    target = work.folder / work.record.run / stage.path.name
    record = StageRecord(
        stage.name, stage.stem, "running", tuple(why), executed=work.project.relative(target), run=work.record.run
    )
    work.save(work.record.with_stage(record))
    clock = time.monotonic()
    modules = run_kernel(work, stage, target, inputs)
    done = replace(
        record,
        status="ran",
        fingerprint=digest_parts(parts),
        parts={**parts, "modules": hash_modules(modules)},
        outputs={kind: find_written(work, stage, kind) for kind in stage.writes},
        seconds=round(time.monotonic() - clock, 3),
    )
    write_result(work.folder, done)
    work.save(work.record.with_stage(done))
    work.progress.end(stage.stem, done.seconds)


def find_written(work: Work, stage: Stage, kind: str) -> dict[str, str]:
    """The pin of a kind that this run has written. Raises StageError when there is none."""
    try:
        return find_scheduled(work, kind, run=work.record.run)
    except PinNotFoundError:
        promise = f"which its front matter promises: call run.write_… with {kind!r}"
        raise StageError(f"{stage.stem} ended without writing the pin {kind!r}, {promise}.") from None


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
    """The kernel that was started ahead for a stage, or a new one that loads its imports, and the likely ones."""
    from pinmill.kernel import start_kernel

    if stage.name not in work.ahead:
        imports = f"{find_imports(stage)}\n{likely}"
        work.ahead[stage.name] = start_kernel(work.project.root, work.project.settings, imports=imports)
    return work.ahead[stage.name]


def run_kernel(work: Work, stage: Stage, target: Path, inputs: Mapping[str, Any]) -> list[str]:
    """Execute a stage while the next one's kernel starts; the pinmill modules it imported."""
    from pinmill.kernel import likely_imports

    kernel = take_kernel(work, stage)
    from pinmill.engine import Execution, run_notebook  # two seconds of imports, while the kernel boots

    position = work.plan.stages.index(stage) + 1
    for following in work.plan.stages[position : position + 1]:
        take_kernel(work, following, likely=likely_imports(following.code))
    execution = Execution(
        kernel=kernel,
        handover=handover(work, stage, inputs),
        seconds=work.plan.settings.seconds(stage.name),
        hide=make_hider(work.hidden),
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


def make_hider(hidden: list[str]) -> Callable[[Any], Any]:
    """A function that takes the hidden values out of what it is given."""
    return lambda value: scrub(value, hidden) if hidden else value


def settle(work: Work) -> None:
    """Move the champion if the decision says so, render the page, and write the final record."""
    project, workflow = work.project, work.plan.workflow
    made = work.record.output(DECISION)
    if made is None:
        work.save(end(work.record, "succeeded"))
        return
    facts = read_facts(project.board, made)
    same = work.last.status if work.last and repeats(made, work.last) else ""
    champion = read_champion(project.board, workflow)
    verdict = judge(facts, same_as_last=same, champion=champion, held=find_held(project.board, workflow))
    record = replace(work.record, candidate=facts["candidate"], reasons=verdict.reasons)
    record = render(work, record, verdict.status)  # takes seconds, and what is interrupted moves nothing: so before
    with signals_held():  # a champion that moved is in the record, or neither is
        if verdict.move:
            champion = move_champion(work, facts["candidate"], " ".join(verdict.reasons), expected=facts["champion"])
        elif champion and (problems := find_damage(work, champion)):
            why = f"The same bytes, made again: {problems}"
            champion = move_champion(work, work.record.output("model")["version"], why, expected=champion.version)
        record = replace(record, champion_after=champion.version if champion else "")
        shows_champion = champion is not None and champion.sha256 == facts["candidate_sha256"]
        if record.page and not same and shows_champion and verdict.status == "succeeded":
            record = publish(work, record)
        work.save(end(record, verdict.status))


@contextmanager
def signals_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def publish(work: Work, record: RunRecord) -> RunRecord:
    """Give the run's page the stable name; when that fails the record gets a warning, and the champion stays moved."""
    page = work.project.root / record.page
    try:
        publish_page(page, stable_page(work.project, work.plan.workflow, page.stem))
    except OSError as error:
        return replace(record, warnings=(*record.warnings, f"the champion's page was not replaced: {error}"))
    return record


def find_damage(work: Work, champion: Champion) -> str:
    """What is wrong with the champion's pin, when this run has another version of the very same bytes."""
    again = work.record.output("model")
    if not again or again["sha256"] != champion.sha256 or again["version"] == champion.version:
        return ""
    return "; ".join(work.project.board.verify(again["name"], champion.version))


def move_champion(work: Work, version: str, why: str, *, expected: str | None) -> Champion:
    """Promote a version in the name of this run, unless another is champion than `expected`, or the lock is lost."""
    return promote(
        work.project.board,
        work.plan.workflow,
        version,
        by=f"run {work.record.run}",
        why=why,
        expected=expected,
        gate=True,
        when=now_utc(),
        guard=lambda: check_held(work.lock, work.record.run),
    )


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

            executed = work.project.root / done.executed
            render_page(executed, page, subject=work.plan.title, status_banner=banner)
    except Exception as error:  # a defect of the page, too, must not cost the model its place
        said = scrub(f"the page was not rendered: {error or type(error).__name__}", work.hidden)
        return replace(record, warnings=(*record.warnings, said))
    return replace(record, page=work.project.relative(page))
