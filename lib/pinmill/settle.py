"""How a run is settled: what the gate's decision means for it, the champion that it moves or leaves, and the pages."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pinmill.board import Board
from pinmill.champion import Champion, promote, read_champion, read_history, replay
from pinmill.errors import ConflictError
from pinmill.lock import check_held
from pinmill.pages import name_stable, run_pages, tell_outcome
from pinmill.runs import RunRecord, Work
from pinmill.secret import scrub
from pinmill.version import now_utc

if TYPE_CHECKING:
    from pinmill.report import Rendered

DECISION = "metrics"  # the kind of pin that carries the gate's decision


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
    """Move the champion if the decision says so, put the pages in place, and write the final record."""
    board, workflow, made = work.project.board, work.plan.workflow, work.record.output(DECISION)
    if made is None:
        record, rendered = render(work, replace(work.record, status="succeeded"), stable=True)
        work.save(place(work, record, rendered).end("succeeded", now_utc()))
        return
    facts, history, run = read_facts(board, made), read_history(board, workflow), work.record.run
    same = work.last.status if work.last and repeats(made, work.last) else ""
    verdict = judge(facts, same_as_last=same, history=history)
    champion = history[-1] if history else None
    is_champion = champion is not None and champion.sha256 == facts["candidate_sha256"]
    outcome = tell_outcome(verdict.status, move=verdict.move, is_champion=is_champion)
    record = replace(work.record, candidate=facts["candidate"], reasons=verdict.reasons, outcome=outcome)
    shows_champion = verdict.status == "succeeded" and (verdict.move or is_champion)
    record, rendered = render(work, replace(record, status=verdict.status), stable=shows_champion)  # takes seconds
    signed = {"by": f"run {run}", "gate": True, "when": now_utc(), "guard": lambda: check_held(work.lock, run)}
    with signals_held():  # a champion that moved is in the record, or neither is
        if verdict.move:
            why = " ".join(verdict.reasons)
            champion = promote(board, workflow, facts["candidate"], why=why, expected=facts["champion"], **signed)
        elif champion and (problems := find_damage(work, champion)):
            why, again = f"The same bytes, made again: {problems}", work.record.output("model")["version"]
            champion = promote(board, workflow, again, why=why, expected=champion.version, **signed)
        record = place(work, replace(record, champion_after=champion.version if champion else ""), rendered)
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


def render(work: Work, record: RunRecord, *, stable: bool) -> tuple[RunRecord, "Rendered | None"]:
    """The pages of a run, also under the names that stay, not yet in place; and its record with their paths.

    Where nothing ran, the last run's pages are its own. A failed render is a warning, never a failure.
    """
    last, names = work.last, {stage.page for stage in work.plan.stages if stage.page}
    if not names:
        return record, None
    unchanged = last and [stage.executed for stage in last.stages] == [stage.executed for stage in record.stages]
    if unchanged and names <= last.pages.keys() and all((work.project.root / p).is_file() for p in last.pages.values()):
        return replace(record, pages=last.pages), None
    try:
        from pinmill.report import choose_engine, render_pages

        engine = choose_engine(work.project)
        pages = run_pages(work.project, record)
        stable_pages = name_stable(pages, record.workflow) if stable else []
        rendered = render_pages(work.project, [*pages, *stable_pages], engine)
    except Exception as error:  # a defect of a page, too, must not cost the model its place
        return warn(work, record, error), None
    return replace(record, rendered_by=engine.told), rendered


def place(work: Work, record: RunRecord, rendered: "Rendered | None") -> RunRecord:
    """Put rendered pages in place; the record with their paths, or with a warning for those that could not be."""
    if rendered is None:
        return record
    from pinmill.report import write_pages

    own = f"{record.workflow}/{record.run}/"
    try:
        write_pages(work.project, rendered)
    except Exception as error:  # as above
        record = warn(work, record, error)
    paths = {name: work.project.pages / f"{name}.html" for name in rendered.pages if name.startswith(own)}
    there = {name: work.project.relative(path) for name, path in paths.items() if path.is_file()}
    return replace(record, pages={name.removeprefix(own): path for name, path in there.items()})


def warn(work: Work, record: RunRecord, error: Exception) -> RunRecord:
    """The record with a warning that pages are missing, and why."""
    said = scrub(f"the pages were not rendered: {error or type(error).__name__}", work.hidden)
    return replace(record, warnings=(*record.warnings, said))
