"""How a run is settled: what the gate's decision means for it, the champion that it moves or leaves, and the pages.

Each run leaves a page of its own; the one under the stable name, which people bookmark, tells of the champion.
"""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pinmill.board import Board
from pinmill.champion import Champion, promote, read_champion, read_history, replay
from pinmill.errors import ConflictError
from pinmill.lock import check_held
from pinmill.project import Project
from pinmill.runs import RunRecord, Work, read_records, write_whole
from pinmill.secret import scrub
from pinmill.version import now_utc

DECISION = "metrics"  # the kind of pin that carries the gate's decision
REJECTED = "This model was rejected by the gate and is not the champion."
OVERRIDDEN = "The gate rejected this model; it was promoted by hand. See: pinmill champion --history"


class Verdict(NamedTuple):
    """How a run ends, why, and whether it moves the champion."""

    status: str
    reasons: tuple[str, ...]
    move: bool = False


def judge(facts: Mapping[str, Any], *, same_as_last: str, history: list[Champion]) -> Verdict:
    """What a gate's decision means now. Pure.

    `facts` are those of the metrics pin; `same_as_last` is the last run's status when it had this very decision,
    otherwise empty; `history` is the champion's. Raises ConflictError when the champion was moved since the decision.
    """
    reasons, champion = tuple(facts["reasons"]), history[-1] if history else None
    if same_as_last or not facts["passed"]:
        return Verdict(same_as_last or "rejected", reasons)
    if champion and champion.sha256 == facts["candidate_sha256"]:
        return Verdict("succeeded", (*reasons, "The same model is the champion already."))
    held = replay(history).held
    if facts["candidate_sha256"] in {former.sha256 for former in history if former.version in held}:
        why = "Held since a rollback left it: only pinmill promote brings it back."
        return Verdict("succeeded", (*reasons, why))
    now = champion.version if champion else None
    if now != facts["champion"]:
        moved = f"the champion was moved from {facts['champion']} to {now}"
        raise ConflictError(f"{moved} while this run compared with the former. Run again.")
    return Verdict("succeeded", reasons, move=True)


def read_facts(board: Board, made: Mapping[str, str]) -> Mapping[str, Any]:
    """The facts of a metrics pin, given as {name, version, …}."""
    return board.pin(made["name"], made["version"]).facts


def repeats(made: Mapping[str, str], last: RunRecord | None) -> bool:
    """Whether a metrics pin is the very one that the last finished run had."""
    before = last.output(DECISION) if last else None
    return bool(before) and before["version"] == made["version"]


def stands(board: Board, workflow: str, made: Mapping[str, str], last: RunRecord | None) -> bool:
    """Whether an earlier decision may be taken over: it is the last run's, or the champion is the same as then."""
    if repeats(made, last):
        return True
    champion = read_champion(board, workflow)
    return (champion.version if champion else None) == read_facts(board, made)["champion"]


def settle(work: Work) -> None:
    """Move the champion if the decision says so, render the page, and write the final record."""
    board, workflow, made = work.project.board, work.plan.workflow, work.record.output(DECISION)
    if made is None:
        work.save(work.record.end("succeeded", now_utc()))
        return
    facts, history, run = read_facts(board, made), read_history(board, workflow), work.record.run
    same = work.last.status if work.last and repeats(made, work.last) else ""
    verdict = judge(facts, same_as_last=same, history=history)
    record = replace(work.record, candidate=facts["candidate"], reasons=verdict.reasons)
    record = render(work, record, verdict.status)  # takes seconds, and what is interrupted moves nothing: so before
    champion = history[-1] if history else None
    signed = {"by": f"run {run}", "gate": True, "when": now_utc(), "guard": lambda: check_held(work.lock, run)}
    with signals_held():  # a champion that moved is in the record, or neither is
        if verdict.move:
            why = " ".join(verdict.reasons)
            champion = promote(board, workflow, facts["candidate"], why=why, expected=facts["champion"], **signed)
        elif champion and (problems := find_damage(work, champion)):
            why, again = f"The same bytes, made again: {problems}", work.record.output("model")["version"]
            champion = promote(board, workflow, again, why=why, expected=champion.version, **signed)
        record = replace(record, champion_after=champion.version if champion else "")
        shows_champion = champion is not None and champion.sha256 == facts["candidate_sha256"]
        if record.page and not same and shows_champion and verdict.status == "succeeded":
            record = publish(work.project, record)
        work.save(record.end(verdict.status, now_utc()))


@contextmanager
def signals_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def find_damage(work: Work, champion: Champion) -> str:
    """What is wrong with the champion's pin, when this run has another version of the very same bytes."""
    again = work.record.output("model")
    if not again or again["sha256"] != champion.sha256 or again["version"] == champion.version:
        return ""
    return "; ".join(work.project.board.verify(again["name"], champion.version))


def page_path(project: Project, workflow: str, page: str, *, run: str = "") -> Path:
    """Where a page stands as a run left it; without a run the champion's, under the name that people bookmark."""
    return project.pages_folder(workflow) / run / f"{page}.html"


def render(work: Work, record: RunRecord, status: str) -> RunRecord:
    """The record with its page, rendered unless it stands already; a failed render is a warning, never a failure."""
    stage = next((stage for stage in work.plan.stages if stage.page), None)
    done = record.stage(stage.name) if stage else None
    if stage is None or done is None:
        return record
    page = page_path(work.project, work.plan.workflow, stage.page, run=done.run)
    try:
        if done.status == "ran" or not page.is_file():
            from pinmill.report import render_page

            banner = "" if status == "succeeded" else REJECTED
            render_page(work.project.root / done.executed, page, subject=work.plan.title, status_banner=banner)
    except Exception as error:  # a defect of the page, too, must not cost the model its place
        said = scrub(f"the page was not rendered: {error or type(error).__name__}", work.hidden)
        return replace(record, warnings=(*record.warnings, said))
    return replace(record, page=work.project.relative(page))


def publish(project: Project, record: RunRecord) -> RunRecord:
    """Give the run's page the stable name; when that fails the record gets a warning, and the champion stays moved."""
    page = project.root / record.page
    try:
        write_whole(page_path(project, record.workflow, page.stem), page.read_bytes())
    except OSError as error:
        return replace(record, warnings=(*record.warnings, f"the champion's page was not replaced: {error}"))
    return record


def publish_champion(project: Project, workflow: str, version: str) -> Path | None:
    """Give the newest page of the new champion the stable name; when no run left one, that page is removed."""
    with_page = (r for r in read_records(project.runs_folder(workflow)) if r.page and (project.root / r.page).is_file())
    record = next((record for record in with_page if record.candidate == version), None)
    if record is None:
        for old in project.pages_folder(workflow).glob("*.html"):
            old.unlink()
        return None
    source = project.root / record.page
    target = page_path(project, workflow, source.stem)
    stage = record.stage(source.stem)
    if record.status == "rejected" and stage:  # the page of that run says that it is not the champion
        from pinmill.report import render_page

        subject = str(record.parameters.get("title") or workflow)
        render_page(project.root / stage.executed, target, subject=subject, status_banner=OVERRIDDEN)
    else:
        write_whole(target, source.read_bytes())
    return target
