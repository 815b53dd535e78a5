"""Which versions of pins may go, and their removal: what anybody may still ask for is kept."""

from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from itertools import groupby
from operator import attrgetter

from pinmill.board import Board
from pinmill.champion import read_history
from pinmill.errors import IntegrityError
from pinmill.lock import read_holder
from pinmill.pin import Pin
from pinmill.project import Project

Key = tuple[str, str]  # name and version of a pin

_key, _name = attrgetter("name", "version"), attrgetter("name")


@dataclass(frozen=True)
class Pruning:
    """What may go or went, how many versions are kept, and what was left alone for another reason than its use."""

    remove: list[Pin]  # dependants first: no version goes before those that were made from it
    kept: int
    left: list[str]


def plan_prune(
    pins: Sequence[Pin], *, keep: int, models: Mapping[str, Set[str]], untouched: Set[str] = frozenset()
) -> list[Pin]:
    """The versions that may go, dependants first. `pins` are all that can be read, each name's in commit order.

    Kept are the last `keep` of every pin, and the last of those that scheduled runs wrote; the `models` by workflow
    (champions, and what was called); what no run wrote; every decision about a champion; all of the `untouched`
    workflows; and with each version what it was made from and, with a model, the gate's decisions about it.
    """
    scheduled = [pin for pin in pins if not str(pin.lineage.get("run")).startswith("adhoc")]
    last = [_key(pin) for some in (pins, scheduled) for _, of in groupby(some, _name) for pin in list(of)[-keep:]]
    asked = [(f"{workflow}-model", version) for workflow, versions in models.items() for version in versions]
    spared = tuple(f"{workflow}-" for workflow in untouched)
    alone = [p for p in pins if not p.lineage.get("run") or p.name.endswith("-champion") or p.name.startswith(spared)]
    made_from, decisions = find_inputs(pins), find_decisions(pins)
    kept, new = set[Key](), {*last, *asked, *map(_key, alone)}
    while new:
        kept |= new
        new = set().union(*(made_from.get(key, set()) | decisions.get(key, set()) for key in new)) - kept
    doomed = {_key(pin): pin for pin in pins if _key(pin) not in kept}
    order = TopologicalSorter({key: made_from[key] & doomed.keys() for key in doomed}).static_order()
    return [doomed[key] for key in order][::-1]


def find_inputs(pins: Sequence[Pin]) -> dict[Key, set[Key]]:
    """What every version was made from; a source `pin:NAME` is known by its bytes."""
    same = {(pin.name, pin.sha256): _key(pin) for pin in pins}
    inputs = {_key(pin): set[Key]() for pin in pins}
    for pin in pins:
        for given in pin.lineage.get("inputs") or []:
            name, _, version = given["name"].removeprefix("pin:").partition("/")
            key = (name, given["version"] or version or given["sha256"])
            inputs[_key(pin)].add(same.get(key, key))
    return inputs


def find_decisions(pins: Sequence[Pin]) -> dict[Key, set[Key]]:
    """The gate's decisions about every model: those that name it; if none does, the last about the same bytes."""
    made = [(pin.name.rpartition("-")[0] + "-model", pin) for pin in pins if "candidate" in pin.facts]
    same = {(model, pin.facts["candidate_sha256"]): {_key(pin)} for model, pin in made}
    about = {_key(pin): same.get((pin.name, pin.sha256), set()) for pin in pins}
    named: dict[Key, set[Key]] = {}
    for model, pin in made:
        named.setdefault((model, pin.facts["candidate"]), set()).add(_key(pin))
    return about | named


def find_prunable(project: Project, *, keep: int, called: Mapping[str, Set[str]]) -> Pruning:
    """What may go from the board of a project; `called` are the model versions by workflow that calls still name."""
    board, pins, left = project.board, [], []
    for name in board.names():
        for version in board.versions(name):
            try:
                pins.append(board.pin(name, version))
            except IntegrityError as error:
                left.append(str(error))
    champions, unknown = read_champions(board)
    at_work = find_at_work(project)
    left += [f"{workflow}: what its champions were made from is unknown: {why}" for workflow, why in unknown.items()]
    left += [f"{workflow}: a run is at work" for workflow in sorted(at_work)]
    models = {workflow: champions.get(workflow, set()) | called.get(workflow, set()) for workflow in champions | called}
    remove = plan_prune(pins, keep=keep, models=models, untouched=at_work | unknown.keys())
    return Pruning(remove, len(pins) - len(remove), left)


def read_champions(board: Board) -> tuple[dict[str, set[str]], dict[str, str]]:
    """Model versions that are or were champion, by workflow; why they or their metadata cannot be read, by workflow."""
    champions, unknown = {}, {}
    for workflow in (name.removesuffix("-champion") for name in board.names() if name.endswith("-champion")):
        model = f"{workflow}-model"
        try:
            champions[workflow] = {decision.version for decision in read_history(board, workflow)}
            for version in champions[workflow].intersection(board.versions(model)):
                board.pin(model, version)
        except IntegrityError as error:
            unknown[workflow] = str(error)
    return champions, unknown


def find_at_work(project: Project) -> set[str]:
    """The workflows of which a run holds its lock."""
    holders = (project.outputs / "locks").glob("*.json")
    return {path.stem.partition(".")[0] for path in holders if read_holder(path.with_suffix(".lock"))}


def prune(project: Project, *, keep: int, called: Mapping[str, Set[str]]) -> Pruning:
    """Remove what may go. Meanwhile no champion moves; a workflow that begins a run is left alone from then on."""
    board, removed = project.board, []
    with ExitStack() as locks:
        for model in [name for name in board.names() if name.endswith("-model")]:
            locks.enter_context(board.lock(f"{model.removesuffix('-model')}-champion"))
        found = find_prunable(project, keep=keep, called=called)
        for pin in found.remove:
            if not pin.name.startswith(tuple(f"{workflow}-" for workflow in find_at_work(project))):
                board.remove(pin.name, pin.version)
                removed.append(pin)
    return replace(found, remove=removed, kept=found.kept + len(found.remove) - len(removed))
