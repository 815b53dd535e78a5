"""Which versions of pins may go, and their removal: what anybody may still ask for is kept."""

from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import ExitStack
from datetime import datetime
from graphlib import TopologicalSorter
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from pinmill.board import Board
from pinmill.champion import read_history
from pinmill.errors import IntegrityError, PinNotFoundError
from pinmill.lock import read_holder
from pinmill.pin import Pin
from pinmill.project import Project

Key = tuple[str, str]  # name and version of a pin
_key, _name = attrgetter("name", "version"), attrgetter("name")


class Pruning(NamedTuple):
    """What may go or went, how many versions are kept, and what was left alone for another reason than its use."""

    remove: list[Pin]  # dependants first: no version goes before those that were made from it
    kept: int
    left: list[str]


def plan_prune(pins: Sequence[Pin], *, keep: int, models: Set[Key], untouched: Iterable[str] = ()) -> list[Pin]:
    """The versions that may go, dependants first. `pins` are all that can be read, each name's in commit order.

    Kept are the last `keep` of every pin, and of its scheduled runs; `models`; what no run wrote; `untouched`
    workflows; and of all these what they were made from, and the gate's decisions about them.
    """
    scheduled = [pin for pin in pins if not str(pin.lineage.get("run")).startswith("adhoc")]
    last = [_key(pin) for some in (pins, scheduled) for _, of in groupby(some, _name) for pin in list(of)[-keep:]]
    spared = tuple(f"{workflow}-" for workflow in untouched)
    alone = [p for p in pins if not p.lineage.get("run") or p.name.endswith("-champion") or p.name.startswith(spared)]
    made_from, kept = find_inputs(pins), find_origins(pins, {*last, *models, *map(_key, alone)})
    doomed = {_key(pin): pin for pin in pins if _key(pin) not in kept}
    order = TopologicalSorter({key: made_from[key] & doomed.keys() for key in doomed}).static_order()
    return [doomed[key] for key in order][::-1]


def find_origins(pins: Sequence[Pin], of: Set[Key]) -> set[Key]:
    """These versions, all that they were made from, and the gate's decisions about any of them."""
    made_from, decisions = find_inputs(pins), find_decisions(pins)
    found, new = set[Key](), set(of)
    while new:
        found |= new
        new = set().union(*(made_from[key] | decisions[key] for key in new & made_from.keys())) - found
    return found


def find_inputs(pins: Sequence[Pin]) -> dict[Key, set[Key]]:
    """What every version was made from; a source `pin:NAME` is known by its bytes."""
    same, inputs = {(pin.name, pin.sha256): _key(pin) for pin in pins}, {_key(pin): set[Key]() for pin in pins}
    for pin in pins:
        for given in pin.lineage.get("inputs") or []:
            name, _, version = given["name"].removeprefix("pin:").partition("/")
            key = (name, given["version"] or version or given["sha256"])
            inputs[_key(pin)].add(same.get(key, key))
    return inputs


def find_decisions(pins: Sequence[Pin]) -> dict[Key, set[Key]]:
    """The gate's decisions about every version: those that name it; if none does, the last about the same bytes."""
    about: dict[Key, set[Key]] = {}
    for pin in (pin for pin in pins if "candidate" in pin.facts):
        model = pin.name.rpartition("-")[0] + "-model"
        about.setdefault((model, pin.facts["candidate"]), set()).add(_key(pin))
        about[model, pin.facts["candidate_sha256"]] = {_key(pin)}
    return {_key(pin): about.get(_key(pin)) or about.get((pin.name, pin.sha256), set()) for pin in pins}


def find_workflows(board: Board, kind: str) -> list[str]:
    """The workflows that have a pin of a kind."""
    return [name.removesuffix(f"-{kind}") for name in board.names() if name.endswith(f"-{kind}")]


def find_at_work(project: Project) -> set[str]:
    """The workflows of which a run holds its lock."""
    holders = (project.outputs / "locks").glob("*.json")
    return {path.stem.partition(".")[0] for path in holders if read_holder(path.with_suffix(".lock"))}


def read_pins(board: Board) -> tuple[list[Pin], dict[Key, str]]:
    """All versions that can be read, each name's in commit order, and what is wrong with the others."""
    pins, damaged = [], dict[Key, str]()
    for key in [(name, version) for name in board.names() for version in board.versions(name)]:
        try:
            pins.append(board.pin(*key))
        except IntegrityError as error:
            damaged[key] = str(error)
        except PinNotFoundError:  # a prune was faster
            continue
    return pins, damaged


def find_champions(board: Board, damaged: Mapping[Key, str]) -> tuple[set[Key], dict[str, str]]:
    """All models that are or were champions, and by workflow why that cannot be told of it."""
    models, unknown = set[Key](), dict[str, str]()
    for workflow in find_workflows(board, "champion"):
        try:
            champions = {(f"{workflow}-model", decision.version) for decision in read_history(board, workflow)}
            models |= champions
            if unreadable := champions & damaged.keys():
                unknown[workflow] = f"a champion is damaged: {damaged[min(unreadable)]}"
        except IntegrityError as error:
            unknown[workflow] = f"which were champions is unknown: {error}"
    return models, unknown


def find_prunable(project: Project, *, keep: int, since: datetime) -> Pruning:
    """What may go from the board of a project; models that answered calls at `since` or later stay."""
    board, (pins, damaged) = project.board, read_pins(project.board)
    models, unknown = find_champions(board, damaged)
    untouched = dict.fromkeys(find_at_work(project), "a run is at work") | unknown
    for workflow in find_workflows(board, "model") if project.has_store else []:
        models |= {(f"{workflow}-model", v) for v in project.store.versions_in_calls(workflow, since)}
    remove = plan_prune(pins, keep=keep, models=models, untouched=untouched)
    left = [f"{workflow}: {why}" for workflow, why in untouched.items()]
    return Pruning(remove, len(pins) - len(remove), [*damaged.values(), *left])


def prune(project: Project, *, keep: int, since: datetime) -> Pruning:
    """Remove what may go. Meanwhile no champion moves; a workflow that begins a run is left alone from then on."""
    board, removed = project.board, []
    with ExitStack() as locks:
        for workflow in find_workflows(board, "model"):
            locks.enter_context(board.lock(f"{workflow}-champion"))
        newest = {name: board.latest(name) for name in board.names()}
        found = find_prunable(project, keep=keep, since=since)
        changed = {name.rpartition("-")[0] for name, version in newest.items() if board.latest(name) != version}
        for pin in found.remove:  # but not what a run may have used that began, or even ended, meanwhile
            if not pin.name.startswith(tuple(f"{workflow}-" for workflow in changed | find_at_work(project))):
                board.remove(pin.name, pin.version)
                removed.append(pin)
    return found._replace(remove=removed, kept=found.kept + len(found.remove) - len(removed))
