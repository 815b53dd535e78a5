"""Every candidate of a workflow: how it did, what became of it, and what changed since the one before."""

from collections.abc import Mapping
from typing import Any

from pinmill.board import Board, Pin
from pinmill.champion import read_history, replay
from pinmill.errors import ChampionError, IntegrityError, PinNotFoundError, did_you_mean
from pinmill.version import match_short

UNKNOWN = ("gate", "by", "created", "run", "sha256")
DAMAGED = {"status": "damaged", "metrics": {}, "changed": [], **dict.fromkeys(UNKNOWN)}


def describe_changes(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    """In words, what differs between the lineages of two model versions."""
    if before is None:
        return []
    if now.get("stage") == "upload":
        return ["uploaded"]
    if before.get("stage") == "upload":
        return ["trained here"]
    old, new = before.get("parameters") or {}, now.get("parameters") or {}
    changes = [
        f"{name} {old.get(name)!r} → {new.get(name)!r}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    if read_input(before, "data") != read_input(now, "data"):
        changes.append("data")
    changes += [
        noun for key, noun in (("code", "notebook"), ("lock", "requirements.lock")) if before.get(key) != now.get(key)
    ]
    return changes


def read_input(lineage: Mapping[str, Any], kind: str) -> str | None:
    """SHA-256 of the input of a kind that a lineage names."""
    return next((given["sha256"] for given in lineage.get("inputs", []) if given["kind"] == kind), None)


def read_decisions(board: Board, workflow: str) -> dict[str, dict[str, Any]]:
    """The newest decision of the gate by the SHA-256 of the model: passed, reasons, headline metrics, run."""
    decisions = {}
    for version in board.versions(f"{workflow}-metrics"):
        try:
            pin = board.pin(f"{workflow}-metrics", version)
        except IntegrityError:
            continue  # `pinmill pins verify` tells; its model is listed as not evaluated
        decisions[pin.facts["candidate_sha256"]] = {**pin.facts, "run": pin.lineage.get("run")}
    return decisions


def read_status(pin: Pin, *, champion: str | None, held: frozenset[str], former: set[str], passed: bool | None) -> str:
    """What became of a model version: champion, held, former champion, passed, rejected or not evaluated. Pure."""
    if pin.version == champion:
        return "champion"
    if pin.version in held:
        return "held"
    if pin.version in former:
        return "former champion"
    return {True: "passed", False: "rejected", None: "not evaluated"}[passed]


def list_models(board: Board, workflow: str) -> list[dict[str, Any]]:
    """All model versions of a workflow, oldest first, as plain mappings. Raises PinNotFoundError when there is none."""
    name = f"{workflow}-model"
    versions = board.versions(name)
    if not versions:
        raise PinNotFoundError(f"{workflow} has no model yet. Train one with: pinmill run {workflow}")
    history = read_history(board, workflow)
    standing = replay(history)
    champion = history[-1].version if history else None
    former = {record.version for record in history}
    decisions = read_decisions(board, workflow)
    models, before = [], None
    for version in versions:
        try:
            pin = board.pin(name, version)
        except IntegrityError as error:
            models.append({**DAMAGED, "version": version, "reasons": [str(error)]})
            continue
        decision = decisions.get(pin.sha256, {})
        passed = decision.get("passed")
        models.append(
            {
                "version": version,
                "status": read_status(pin, champion=champion, held=standing.held, former=former, passed=passed),
                "gate": passed,
                "reasons": decision.get("reasons", []),
                "metrics": decision.get("headline", {}),
                "by": pin.lineage.get("by"),
                "created": pin.created.isoformat(),
                "run": pin.lineage.get("run"),
                "sha256": pin.sha256,
                "changed": describe_changes(before, pin.lineage),
            }
        )
        before = pin.lineage
    return models


def find_model(models: list[dict[str, Any]], version: str) -> dict[str, Any]:
    """The model of a version, which may be shortened to any end or beginning that only one has.

    Raises ChampionError when none or several match.
    """
    known = [model["version"] for model in models]
    found = match_short(version, known)
    if len(found) == 1:
        return models[known.index(found[0])]
    what = "no model has" if not found else f"{len(found)} models have"
    raise ChampionError(f"{what} version {version!r}.{did_you_mean(version, known)} See: pinmill models")
