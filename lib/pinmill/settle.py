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
from pinmill.models import read_input
from pinmill.pages import is_shown, name_stable, publish, read_pages, render_linked, tell_outcome
from pinmill.runs import RunRecord, Work
from pinmill.secret import scrub
from pinmill.version import now_utc

if TYPE_CHECKING:
    from pinmill.report import Rendered

DECISION = "metrics"  # the kind of pin that carries the gate's decision
GIVEN = "The model was given, not trained by this run: test rows that it was trained on, if any, flatter it."
SINCE = "decided before, and another model is the champion since"  # what became of a candidate


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
    if facts["candidate_sha256"] in find_held(history):
        why = "Held since a rollback left it: only pinmill promote brings it back."
        return Verdict("succeeded", (*reasons, why))
    now = champion.version if champion else None
    if now != facts["champion"]:
        moved = f"the champion was moved from {facts['champion']} to {now}"
        raise ConflictError(f"{moved} while this run compared with the former. Run again.")
    return Verdict("succeeded", reasons, move=True)


def find_held(history: list[Champion]) -> set[str]:
    """SHA-256 of the models that a rollback left."""
    held = replay(history).held
    return {former.sha256 for former in history if former.version in held}


def read_facts(board: Board, made: Mapping[str, str]) -> Mapping[str, Any]:
    """The facts of a metrics pin, given as {name, version, …}."""
    return board.pin(made["name"], made["version"]).facts


def tell_given(work: Work) -> list[str]:
    """What a reader of scores must know of a model that was given, unless it was trained on this very data."""
    if not work.plan.model:
        return []
    trained = read_input(work.project.board.pin(f"{work.plan.workflow}-model", work.plan.model).lineage, "data")
    return [] if trained and trained == (work.record.output("data") or {}).get("sha256") else [GIVEN]


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
        record, rendered = render(work, replace(work.record, status="succeeded"), shows="")
        work.save(place(work, record, rendered, shows="").end("succeeded", now_utc()))
        return
    facts, history, run = read_facts(board, made), read_history(board, workflow), work.record.run
    facts = {**facts, "reasons": [*facts["reasons"], *tell_given(work)]}
    same = work.last.status if work.last and repeats(made, work.last) else ""
    verdict = judge(facts, same_as_last=same, history=history)
    champion = history[-1] if history else None
    is_champion = champion is not None and champion.sha256 == facts["candidate_sha256"]
    outcome = tell_outcome(verdict.status, move=verdict.move, is_champion=is_champion)
    if same == "succeeded" and not is_champion and facts["candidate_sha256"] not in find_held(history):
        outcome = SINCE
    record = replace(work.record, candidate=facts["candidate"], reasons=verdict.reasons, outcome=outcome)
    stays = champion.version if is_champion and verdict.status == "succeeded" else None
    shows = facts["candidate"] if verdict.move else stays
    record, rendered = render(work, replace(record, status=verdict.status), shows=shows)  # takes seconds
    signed = {"by": f"run {run}", "gate": True, "when": now_utc(), "guard": lambda: check_held(work.lock, run)}
    with signals_held():  # a champion that moved is in the record, or neither is
        if verdict.move:
            why = " ".join(verdict.reasons)
            champion = promote(board, workflow, facts["candidate"], why=why, expected=facts["champion"], **signed)
        elif champion and (problems := find_damage(work, champion)):
            why, again = f"The same bytes, made again: {problems}", work.record.output("model")["version"]
            champion = promote(board, workflow, again, why=why, expected=champion.version, **signed)
        record = replace(record, champion_after=champion.version if champion else "")
        record = place(work, record, rendered, shows=shows and champion.version)
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


def render(work: Work, record: RunRecord, *, shows: str | None) -> tuple[RunRecord, "Rendered | None"]:
    """The pages of a run, not yet in place, and its record. A failed render is a warning, never a failure.

    `shows` is the model version that the pages under names that stay will tell of, empty where a job decides on none;
    None leaves them as they are.
    Where nothing ran, the last run's pages are its own, unless some are missing.
    """
    project, last, due = work.project, work.last, sum(bool(stage.page) for stage in work.plan.stages)
    if not due:
        return record, None
    same = last and [stage.executed for stage in last.stages] == [stage.executed for stage in record.stages]
    stand = same and len(last.pages) == due and all((project.root / path).is_file() for path in last.pages.values())
    if stand and (shows is None or is_shown(project, record.workflow, shows, last.pages)):
        return replace(record, pages=last.pages), None
    try:
        from pinmill.report import choose_engine

        pages, problems = read_pages(project, record, outcome=record.outcome)
        stable = [] if shows is None else name_stable(pages, record.workflow)
        rendered = render_linked(project, [*pages, *stable], choose_engine(project))
    except Exception as error:  # a defect of a page, too, must not cost the model its place
        return warn(work, record, [str(error) or type(error).__name__]), None
    return replace(record, rendered_by=rendered.by), replace(rendered, problems=(*problems, *rendered.problems))


def place(work: Work, record: RunRecord, rendered: "Rendered | None", *, shows: str | None) -> RunRecord:
    """Put rendered pages in place; the record with their paths, and with a warning for those that could not be."""
    if rendered is None:
        return record
    from pinmill.report import write_pages

    project, own = work.project, f"{record.workflow}/{record.run}/"
    parts = {
        is_own: {n: d for n, d in rendered.pages.items() if n.startswith(own) == is_own} for is_own in (True, False)
    }
    try:
        written, problems = write_pages(project, replace(rendered, pages=parts[True]))
        stable = replace(rendered, pages=parts[False])
        if shows is not None:
            put = publish(project, record.workflow, stable, shows) if shows else write_pages(project, stable)
            problems += put[1]
    except Exception as error:  # as above
        written, problems = [], [str(error) or type(error).__name__]
    pages = {path.stem: project.relative(path) for path in written}
    return warn(work, replace(record, pages=pages), list(dict.fromkeys(problems)))


def warn(work: Work, record: RunRecord, problems: list[str]) -> RunRecord:
    """The record with a warning for what is wrong with its pages."""
    said = scrub(f"pages are missing: {'; '.join(problems)}", work.hidden)
    return replace(record, warnings=(*record.warnings, said)) if problems else record
