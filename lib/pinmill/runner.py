"""One run of a job: each stage executed or reused, then the champion moved if the gate let the candidate through."""

import json
import logging
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pinmill import fingerprint
from pinmill.champion import read_champion
from pinmill.errors import LockedError, PinmillError, PinNotFoundError, StageError
from pinmill.lineage import hash_file
from pinmill.lock import hold_lock
from pinmill.notebook import Stage
from pinmill.notify import tell_people
from pinmill.outage import is_outage
from pinmill.plan import Plan
from pinmill.progress import LineProgress
from pinmill.project import Project
from pinmill.runs import (
    FINISHED,
    RunRecord,
    StageRecord,
    Work,
    claim_run,
    is_scheduled,
    last_finished,
    make_run_id,
    settle_interrupted,
    write_record,
)
from pinmill.secret import reveal, scrub
from pinmill.session import CALLS, INPUT, NO_PINS, OUTSIDE
from pinmill.settle import DECISION, settle, stands
from pinmill.version import now_utc

KEPT = "\nThe executed notebook is kept: "
FIRST_PAUSE = 5.0  # s before what failed from outside is tried again: a restart, a lock that is held for a moment
LONGER = 5  # times as long each next time: with two tries half a minute, with four a quarter of an hour
LONGEST_PAUSE = 300.0  # s: an outage of hours is found to be over soon enough


def run_job(project: Project, plan: Plan, progress: LineProgress, *, explain: bool = False, run: str = "") -> RunRecord:
    """Run a job to its end and return its record, whatever happened. Only signals are raised.

    `run` is its id where that was told before; RunError if there is such a run already.
    """
    run, folder = run or make_run_id(now_utc()), project.runs_folder(plan.workflow)
    asked = {"parameters": dict(plan.values), "model": plan.model}
    record = RunRecord(run, plan.workflow, plan.job, "running", now_utc().isoformat(), **asked)
    claim_run(folder, run)
    try:
        with hold_lock(project.run_lock(plan.workflow, plan.job), run=run) as holder:
            settle_interrupted(folder, plan.job, now_utc())
            last = last_finished(folder, plan.job, model=plan.model)
            work = Work(project, plan, replace(record, pid=holder.pid, born=holder.born), progress, last, explain)
            work.save(work.record)
            record = finish(work)
    except LockedError as error:
        record = record.end("skipped", now_utc(), str(error))
        write_record(folder, record)
        return record
    tell_index(work)
    tell_people(work)
    return record


def tell_index(work: Work) -> None:
    """Bring the index up to date, unless nothing happened; when that fails it is said, and the run ends as it ended."""
    is_quiet = work.record.status in FINISHED and all(stage.status == "reused" for stage in work.record.stages)
    if is_quiet and (work.project.pages / "index.html").is_file():
        return
    try:
        from pinmill.report import choose_engine, update_index

        _, problems = update_index(work.project, choose_engine(work.project))
    except Exception as error:  # a page, whatever is wrong with it, must not change how a run ended
        problems = [str(error) or type(error).__name__]
    for problem in problems:
        work.progress.say(scrub(f"the index was not rendered: {problem}", work.hidden))


def finish(work: Work) -> RunRecord:
    """Run the stages, settle the champion, and write the final record."""
    try:
        champion = persist(work, "the board", lambda: read_champion(work.project.board, work.plan.workflow))
        before = champion.version if champion else ""
        work.record = replace(work.record, champion_before=before, champion_after=before)
        for number, stage in enumerate(work.plan.stages, start=1):
            persist(work, stage.stem, partial(take_stage, work, stage, number))
        settle(work)
    except PinmillError as error:
        work.give_up("failed", str(error))
    except KeyboardInterrupt:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # the cell given up would be told with a traceback
        if not work.record.ended:
            work.give_up("interrupted", "interrupted by a signal")
        raise
    except Exception as error:
        work.progress.say(scrub(traceback.format_exc(), work.hidden))  # a defect of ours: told whole
        work.give_up("failed", f"{type(error).__name__}: {error}")
    finally:
        for kernel in work.ahead.values():
            kernel.stop()
    return work.record


def persist(work: Work, what: str, do: Callable[[], Any]) -> Any:
    """What `do` returns, tried again after a pause when it fails from outside, as often as the settings say."""
    retries = work.plan.settings.retries
    for number in range(1, retries + 1):
        try:
            return do()
        except Exception as error:  # each file system and database has errors of its own
            if not is_outage(error):
                raise
            said = f"{str(error) or type(error).__name__}".partition("\n")[0].removeprefix(f"{what}, ")
        pause = min(FIRST_PAUSE * LONGER ** (number - 1), LONGEST_PAUSE)
        said = scrub(f"{what} failed from outside: {said}", work.hidden)
        said += f"; it is tried again in {pause:g} s ({number} of {retries})"
        work.save(replace(work.record, warnings=(*work.record.warnings, said)))
        work.progress.say(said)
        time.sleep(pause)  # a signal ends it at once
    return do()


def take_stage(work: Work, stage: Stage, number: int) -> None:
    """Reuse the result of a stage, or run it; either way the record says so."""
    kinds = [kind for kind in stage.reads if kind not in NO_PINS]
    inputs = {kind: work.record.output(kind) or find_pin(work, kind) for kind in kinds}
    contents = {kind: pin["content"] for kind, pin in inputs.items()}
    lock = hash_file(work.project.lock_file) if work.project.lock_file.is_file() else ""
    outside = read_outside(work, stage)
    parts = fingerprint.read_parts(stage, parameters=work.plan.values, inputs=contents, lock=lock, outside=outside)
    result, why = find_reusable(work, stage, parts)
    if result is None:
        execute_stage(work, stage, number, parts, inputs, why)
        return
    work.save(work.record.with_stage(replace(result, status="reused", why=())))
    if work.explain:
        work.progress.say(f"{stage.stem} is reused: nothing changed since run {result.run}")


def find_pin(work: Work, kind: str, *, writer: Stage | None = None) -> dict[str, str]:
    """The model that was given, or the newest pin of a kind that a scheduled run wrote.

    With `writer`, the one that this stage should have written in this run.
    """
    board, name, run = work.project.board, f"{work.plan.workflow}-{kind}", work.record.run
    given = [work.plan.model] if kind == "model" and work.plan.model else None
    for version in given or reversed(board.versions(name)):
        pin = board.pin(name, version)
        author = str(pin.lineage.get("run", ""))
        if given or author == run or (is_scheduled(author) and not writer):
            return {"name": name, "version": version, "sha256": pin.sha256, "content": fingerprint.hash_content(pin)}
    if writer is None:
        raise PinNotFoundError(f"no pin {name!r} of a scheduled run. Run the job that writes it first.")
    promise = f"which its front matter promises: call run.write_… with {kind!r}"
    raise StageError(f"{writer.stem} ended without writing the pin {kind!r}, {promise}.")


def read_outside(work: Work, stage: Stage) -> str | None:
    """How fresh the outside input is; empty text for a stage that has none, None when that cannot be told."""
    always = not {INPUT, CALLS}.isdisjoint(stage.reads)
    if OUTSIDE not in stage.reads:
        return None if always else ""
    from pinmill.freshness import add_annotation, freshness
    from pinmill.source import check_source

    project, values = work.project, work.plan.values
    source = reveal(values["source"], project.settings)
    check_source(source, root=project.root, address=values.get("address", ""))
    token = freshness(source, root=project.root, board=project.board, cache=project.outputs / "freshness.json")
    return None if always else add_annotation(token, project, work.plan.workflow)


def find_reusable(work: Work, stage: Stage, parts: Mapping[str, Any]) -> tuple[StageRecord | None, list[str]]:
    """The earlier execution that may stand for this one, or None and the reasons."""
    digests = fingerprint.digest_parts(parts), "latest"
    result = next(filter(None, (fingerprint.read_result(work.folder, stage, digest) for digest in digests)), None)
    if result is None:
        return None, ["it never ran before"]
    now = {**parts, "modules": fingerprint.hash_modules(result.parts["modules"], work.project.root)}
    changed = fingerprint.explain_difference(result.parts, now)
    if stage.name in work.plan.forced:
        return None, ["forced", *changed]
    if parts["outside"] is None:
        unsure = "nobody can tell whether the source changed, so it is read every time"
        return None, ["the calls go on, so they are read every time" if CALLS in stage.reads else unsure, *changed]
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
    target, run = work.folder / work.record.run / stage.path.name, work.record.run
    executed = work.project.relative(target)
    record = StageRecord(stage.name, stage.stem, "running", tuple(why), executed=executed, run=run)
    work.save(work.record.with_stage(record))
    clock = time.monotonic()
    modules = fingerprint.name_modules(run_kernel(work, stage, target, inputs), work.project.root)
    done = replace(
        record,
        status="ran",
        fingerprint=fingerprint.digest_parts(parts),
        parts={**parts, "modules": fingerprint.hash_modules(modules, work.project.root)},
        outputs={kind: find_pin(work, kind, writer=stage) for kind in stage.writes},
        seconds=round(time.monotonic() - clock, 3),
    )
    fingerprint.write_result(work.folder, done)
    work.save(work.record.with_stage(done))
    work.progress.end(stage.stem, done.seconds)


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


def take_kernel(work: Work, stage: Stage) -> Any:
    """The kernel that was started ahead for a stage, or a new one that loads what its code imports."""
    from pinmill.kernel import find_imports, start_kernel

    if stage.name not in work.ahead:
        imports = find_imports(stage.code)
        work.ahead[stage.name] = start_kernel(work.project.root, work.project.settings, imports=imports)
    return work.ahead[stage.name]


def run_kernel(work: Work, stage: Stage, target: Path, inputs: Mapping[str, Any]) -> dict[str, str]:
    """Execute a stage while the next one's kernel starts; the files of the modules it imported, by their names."""
    kernel = take_kernel(work, stage)
    from pinmill.engine import Execution, run_notebook  # two seconds of imports, while the kernel boots

    position = work.plan.stages.index(stage) + 1
    for following in work.plan.stages[position : position + 1]:
        take_kernel(work, following)
    seconds, hide = work.plan.settings.seconds(stage.name), partial(scrub, hidden=work.hidden)
    execution = Execution(kernel, handover(work, stage, inputs), seconds, hide, work.progress.cells)
    parameters = {name: work.plan.values[name] for name in stage.declarations}
    try:
        run_notebook(stage.path, target, parameters=parameters, cwd=work.project.root, execution=execution)
    except StageError as error:
        kept = work.project.relative(target)
        raise type(error)(f"{stage.stem}, {error}{KEPT}{kept}") from None
    finally:
        work.ahead.pop(stage.name).stop()
    return execution.files
