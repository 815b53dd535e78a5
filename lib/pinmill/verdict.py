"""What the gate's decision means for a run: its status, and whether it moves the champion."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pinmill.board import Board
from pinmill.champion import Champion, read_champion, read_history, replay
from pinmill.errors import ConflictError
from pinmill.runs import RunRecord

DECISION = "metrics"  # the kind of pin that carries the gate's decision


@dataclass(frozen=True)
class Verdict:
    """How a run ends, and whether it moves the champion."""

    status: str
    move: bool
    reasons: tuple[str, ...]


def judge(facts: Mapping[str, Any], *, same_as_last: str, champion: Champion | None, held: frozenset[str]) -> Verdict:
    """What a gate's decision means now. Pure.

    `facts` are those of the metrics pin; `same_as_last` is the last run's status when it had this very decision,
    otherwise empty; `held` are the SHA-256 of models that a rollback left. Raises ConflictError when the champion was
    moved since the decision.
    """
    reasons = tuple(facts["reasons"])
    if same_as_last:
        return Verdict(same_as_last, False, reasons)
    if not facts["passed"]:
        return Verdict("rejected", False, reasons)
    if champion and champion.sha256 == facts["candidate_sha256"]:
        return Verdict("succeeded", False, (*reasons, "The same model is the champion already."))
    if facts["candidate_sha256"] in held:
        return Verdict(
            "succeeded", False, (*reasons, "Held since a rollback left it: only pinmill promote brings it back.")
        )
    now = champion.version if champion else None
    if now != facts["champion"]:
        moved = f"the champion was moved from {facts['champion']} to {now}"
        raise ConflictError(f"{moved} while this run compared with the former. Run again.")
    return Verdict("succeeded", True, reasons)


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


def find_held(board: Board, workflow: str) -> frozenset[str]:
    """SHA-256 of the models that a rollback left."""
    history = read_history(board, workflow)
    hashes = {champion.version: champion.sha256 for champion in history}
    return frozenset(hashes[version] for version in replay(history).held)
