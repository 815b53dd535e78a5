"""The champion of a workflow: which model version is served, who decided so, and how to go back.

Each promotion and each rollback is a version of the pin `W-champion`, so its versions are the history.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

from pinmill.board import Board, Guard
from pinmill.errors import ChampionError, ConflictError, IntegrityError, did_you_mean


@dataclass(frozen=True)
class Champion:
    """One decision: `version` is served from `when` on, instead of `previous`."""

    action: str  # "promote" | "rollback"
    version: str  # of the pin W-model
    sha256: str  # of that model pin
    by: str
    when: str  # ISO 8601, UTC, microseconds
    why: str
    previous: str | None  # the model version served until then
    override: bool  # promoted although the gate had not passed it
    record: str  # the version of the pin W-champion that says this


@dataclass(frozen=True)
class Standing:
    """What a history adds up to."""

    stack: tuple[str, ...]  # the champion is last; a rollback goes to the one before it
    held: frozenset[str]  # left by a rollback: not to become champion again by itself


def read_champion(board: Board, workflow: str) -> Champion | None:
    """The champion of `workflow`, verified; None if nothing was promoted yet."""
    versions = board.versions(_record_name(workflow))
    return _read_record(board, workflow, versions[-1]) if versions else None


def read_history(board: Board, workflow: str) -> list[Champion]:
    """All decisions of `workflow`, oldest first."""
    return [_read_record(board, workflow, record) for record in board.versions(_record_name(workflow))]


def replay(history: Sequence[Champion]) -> Standing:
    """The standing after `history` (oldest first): a promotion pushes, a rollback pops down to its version.

    What is popped is held until somebody promotes it. Raises IntegrityError if a rollback goes to a version that
    never stood below.
    """
    stack: list[str] = []
    held: set[str] = set()
    for decision in history:
        if decision.action == "promote":
            stack.append(decision.version)
        elif decision.version not in stack[:-1]:
            raise IntegrityError(f"the champion history is broken: {decision.record} goes back to {decision.version}, "
                                 f"which was not champion before")  # fmt: skip
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
    expected: str | None,
    gate: bool | None,
    override: bool = False,
    when: datetime,
    guard: Guard | None = None,
) -> Champion:
    """Make `version` of the pin W-model the champion, if the champion is still `expected` (None: there is none).

    `gate` is True if the gate passed it, False if it failed, None if it was never decided: the last two need
    `override`. The model's bytes are verified first. Raises ConflictError if somebody else moved the champion since
    the caller looked, ChampionError if it cannot be moved like this.
    """
    _check_reason(workflow, by, why)
    if gate is not True and not override:
        said = "rejected" if gate is False else "has not decided on"
        raise ChampionError(f"the gate {said} {workflow}-model {version}; to promote it all the same give --override")
    sha256 = _verified_sha256(board, workflow, version)
    with board.lock(_record_name(workflow)):
        current = read_champion(board, workflow)
        _check_expected(workflow, current, expected)
        if current is not None and current.version == version:
            raise ChampionError(f"{version} is already the champion of {workflow}, {_decided(current)}; "
                                "there is nothing to promote")  # fmt: skip
        previous = current.version if current else None
        overridden = override and gate is not True
        champion = Champion("promote", version, sha256, by, _stamp(when), why, previous, overridden, record="")
        return _write_record(board, workflow, champion, guard)


def rollback(
    board: Board,
    workflow: str,
    *,
    by: str,
    why: str,
    to: str | None = None,
    when: datetime,
    expected: str | None = None,
    guard: Guard | None = None,
) -> Champion:
    """Make the champion before this one (or the earlier champion `to`) the champion again; what is left is held.

    The bytes of the version gone back to are verified first. With `expected`, the model version that the caller
    saw as champion, a champion that moved since is a ConflictError; two rollbacks at once then go one back.
    """
    _check_reason(workflow, by, why)
    with board.lock(_record_name(workflow)):
        history = read_history(board, workflow)
        if expected is not None:
            _check_expected(workflow, history[-1] if history else None, expected)
        stack = replay(history).stack
        target = _rollback_target(workflow, stack, to)
        sha256 = _verified_sha256(board, workflow, target)
        champion = Champion("rollback", target, sha256, by, _stamp(when), why, stack[-1], False, record="")
        return _write_record(board, workflow, champion, guard)


def _rollback_target(workflow: str, stack: Sequence[str], to: str | None) -> str:
    below = list(stack[:-1])
    if not below:
        has = f"{stack[0]} is its first" if stack else "nothing was promoted yet"
        raise ChampionError(f"{workflow} has no earlier champion to go back to: {has}")
    if to is None:
        return below[-1]
    if to not in below:
        raise ChampionError(f"{to!r} is not an earlier champion of {workflow}.{did_you_mean(to, below)} "
                            f"Earlier ones, the last first: {', '.join(reversed(below))}")  # fmt: skip
    return to


def _check_reason(workflow: str, by: str, why: str) -> None:
    missing = [f"`{name}` is empty" for name, value in (("by", by), ("why", why)) if not value.strip()]
    if missing:
        raise ChampionError(f"the champion of {workflow} is moved by somebody for a reason: {'; '.join(missing)}. "
                            "Say it in a sentence, for example --why 'higher recall on returns'")  # fmt: skip


def _check_expected(workflow: str, current: Champion | None, expected: str | None) -> None:
    found = current.version if current else None
    if found == expected:
        return
    now = f"it is {found}, {_decided(current)}" if current else "there is none"
    raise ConflictError(f"the champion of {workflow} is not {expected or 'unset'} any more: {now}. "
                        "Look at that decision, then decide again")  # fmt: skip


def _verified_sha256(board: Board, workflow: str, version: str) -> str:
    """The SHA-256 of the model pin, all its bytes verified."""
    name = f"{workflow}-model"
    pin = board.pin(name, version)
    problems = board.verify(name, version)
    if problems:
        raise IntegrityError(f"{name} {version} cannot become champion: {'; '.join(problems)}")
    return pin.sha256


def _decided(champion: Champion) -> str:
    did = {"promote": "promoted", "rollback": "gone back to"}[champion.action]
    return f"{did} by {champion.by} at {champion.when} ({champion.why})"


def _write_record(board: Board, workflow: str, champion: Champion, guard: Guard | None) -> Champion:
    value = {key: item for key, item in asdict(champion).items() if key != "record"}
    name, title = _record_name(workflow), f"Champion of {workflow}: {champion.version}"
    pin = board.write_json(name, value, facts={}, lineage={}, title=title, guard=guard)
    return Champion(**value, record=pin.version)


def _read_record(board: Board, workflow: str, record: str) -> Champion:
    name = _record_name(workflow)
    value = board.read_json(board.pin(name, record))
    expected = {field.name for field in fields(Champion)} - {"record"}
    if not isinstance(value, dict) or set(value) != expected or value["action"] not in ("promote", "rollback"):
        raise IntegrityError(f"{name}/{record} is not the record of a champion: {expected} were expected")
    return Champion(**value, record=record)


def _record_name(workflow: str) -> str:
    return f"{workflow}-champion"


def _stamp(when: datetime) -> str:
    if when.tzinfo is None:
        raise ChampionError(f"`when` is {when}, without a time zone; give an aware time, such as datetime.now(UTC)")
    return when.astimezone(UTC).isoformat(timespec="microseconds")
