"""The champion of a workflow: which model version is served, and who decided so, as the history of a pin."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pinmill.board import Board, Guard
from pinmill.errors import ChampionError, ConflictError, IntegrityError, PinNotFoundError

Version = str | None  # of the pin W-model; None before the first promotion


@dataclass(frozen=True)
class Champion:
    """One decision: `version` is served from `when` on, instead of `previous`."""

    action: str  # "promote" | "rollback"
    version: str  # of the pin W-model
    sha256: str  # of that model pin
    by: str
    when: str  # ISO 8601, UTC, microseconds
    why: str
    previous: Version  # the model version served until then
    override: bool  # promoted although the gate had not passed it
    record: str  # the version of the pin W-champion that says this

    def __str__(self) -> str:
        did = "promoted" if self.action == "promote" else "gone back to"
        return f"{self.version}, {did} by {self.by} at {self.when} ({self.why})"


@dataclass(frozen=True)
class Standing:
    """What a history adds up to."""

    stack: tuple[str, ...]  # the champion is last; a rollback goes to the one before it
    held: frozenset[str]  # left by a rollback: not to become champion again by itself


def read_champion(board: Board, workflow: str) -> Champion | None:
    """The champion of `workflow`, verified; None if nothing was promoted yet."""
    try:
        return _read_record(board, workflow, board.latest(f"{workflow}-champion"))
    except PinNotFoundError:
        return None


def read_history(board: Board, workflow: str) -> list[Champion]:
    """All decisions of `workflow`, oldest first."""
    return [_read_record(board, workflow, record) for record in board.versions(f"{workflow}-champion")]


def replay(history: list[Champion]) -> Standing:
    """The standing after `history`, oldest first: a promotion pushes, a rollback pops, and what is popped is held."""
    stack: list[str] = []
    held: set[str] = set()
    for decision in history:
        if decision.action == "promote":
            stack.append(decision.version)
        elif decision.version not in stack[:-1]:
            raise IntegrityError(f"the history is broken: {decision.record} goes back to what was not champion before")
        else:
            held.add(stack.pop())
            while stack[-1] != decision.version:
                held.add(stack.pop())
        held.discard(decision.version)
    return Standing(tuple(stack), frozenset(held))


def promote(
    board: Board,
    workflow: str,
    version: str,
    *,
    by: str,
    why: str,
    expected: Version,
    gate: bool | None,
    override: bool = False,
    when: datetime,
    guard: Guard = None,
) -> Champion:
    """Make `version` of the pin W-model the champion; a ConflictError if the champion is not still `expected`.

    Where the gate did not pass it (`gate` is False, or None if it was never decided), this needs `override`.
    """
    if not (gate or override):
        said = "has not decided on" if gate is None else "rejected"
        raise ChampionError(f"the gate {said} {workflow}-model {version}; to promote it all the same give --override")
    with board.lock(f"{workflow}-champion"):
        current = read_champion(board, workflow)
        if (current.version if current else None) != expected:
            raise ConflictError(f"the champion of {workflow} is not {expected} any more, but {current}")
        if current and current.version == version:
            raise ChampionError(f"{workflow} has this champion already: {current}")
        decision = {"action": "promote", "version": version, "by": by, "when": when, "why": why}
        return _write_decision(board, workflow, {**decision, "previous": expected, "override": not gate}, guard)


def rollback(
    board: Board, workflow: str, *, by: str, why: str, when: datetime, to: Version = None, expected: Version = None
) -> Champion:
    """Make the champion before this one, or the earlier `to`, the champion again; `expected` is as in `promote`."""
    with board.lock(f"{workflow}-champion"):
        history = read_history(board, workflow)
        *below, current = replay(history).stack or [None]
        if expected not in (None, current):
            raise ConflictError(
                f"the champion of {workflow} is not {expected} any more, but {history[-1] if history else None}"
            )
        if not below:
            raise ChampionError(f"{workflow} has no earlier champion to go back to; the champion is {current}")
        target = to or below[-1]
        if target not in below:
            raise ChampionError(f"{to!r} is not an earlier champion of {workflow}; those are {', '.join(below)}")
        decision = {"action": "rollback", "version": target, "by": by, "when": when, "why": why}
        return _write_decision(board, workflow, {**decision, "previous": current, "override": False}, None)


def _write_decision(board: Board, workflow: str, decision: dict[str, Any], guard: Guard) -> Champion:
    if not (decision["by"].strip() and decision["why"].strip()):
        raise ChampionError(f"`by` or `why` is empty: somebody moves the champion of {workflow}, for a reason")
    model = board.pin(f"{workflow}-model", decision["version"])
    board.read_file(model)  # an IntegrityError if it is not as it was written
    when = decision["when"].astimezone(UTC).isoformat(timespec="microseconds")
    value, title = {**decision, "sha256": model.sha256, "when": when}, f"Champion of {workflow}: {model.version}"
    pin = board.write_json(f"{workflow}-champion", value, facts={}, lineage={}, title=title, guard=guard)
    return Champion(**value, record=pin.version)


def _read_record(board: Board, workflow: str, record: str) -> Champion:
    try:
        return Champion(**board.read_json(board.pin(f"{workflow}-champion", record)), record=record)
    except TypeError as error:
        raise IntegrityError(f"{workflow}-champion/{record} is not the record of a champion: {error}") from error
