"""What a stage's result depends on, as parts that can be compared and named."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pinmill.notebook import Stage
from pinmill.runs import write_json


@dataclass(frozen=True)
class Fingerprint:
    """The parts of a stage's fingerprint that are known before it runs."""

    code: str  # SHA-256 of the notebook's code cells
    parameters: dict[str, Any]  # those that the notebook declares
    inputs: dict[str, str]  # kind -> SHA-256 of the pin
    lock: str  # SHA-256 of requirements.lock
    outside: str | None  # freshness of what lies outside the board; None: cannot be told

    @property
    def digest(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """A finished execution of a stage that may stand for another with the same fingerprint."""

    run: str
    executed: str
    parts: dict[str, Any]
    modules: dict[str, str]  # pinmill modules that its kernel had imported -> SHA-256
    outputs: dict[str, dict[str, str]]  # kind -> {name, version, sha256}


def take_fingerprint(
    stage: Stage, *, parameters: Mapping[str, Any], inputs: Mapping[str, str], lock: str, outside: str | None
) -> Fingerprint:
    """The fingerprint of a stage with these parameters (of the whole workflow) and inputs."""
    taken = {name: parameters[name] for name in stage.declarations}
    return Fingerprint(stage.code_hash, taken, dict(inputs), lock, outside)


def hash_modules(names: Iterable[str], folder: Path) -> dict[str, str]:
    """SHA-256 of the source of each pinmill module in the package's folder; empty text for one that is gone."""
    hashes = {}
    for name in sorted(names):
        tail = name.partition(".")[2]
        path = folder / (f"{tail.replace('.', '/')}.py" if tail else "__init__.py")
        hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return hashes


def entry_file(folder: Path, stage: Stage, fingerprint: Fingerprint) -> Path:
    return folder / "stages" / stage.name / f"{fingerprint.digest}.json"


def latest_file(folder: Path, stage: Stage) -> Path:
    return folder / "stages" / stage.name / "latest.json"


def read_entry(path: Path) -> Entry | None:
    """An entry; None when there is none, or it is damaged (the stage then runs again)."""
    try:
        return Entry(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_entry(folder: Path, stage: Stage, fingerprint: Fingerprint, entry: Entry) -> None:
    """Remember a finished execution, by its fingerprint and as the latest one."""
    write_json(entry_file(folder, stage, fingerprint), asdict(entry))
    write_json(latest_file(folder, stage), asdict(entry))


def explain_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, each part of a fingerprint that changed from `before` to `now`."""
    differences = []
    for part in sorted({*before, *now} - {"parameters", "inputs", "modules"}):
        if before.get(part) != now.get(part):
            differences.append(PART_NAMES.get(part, part))
    for part, noun in (("parameters", "parameter"), ("inputs", "input"), ("modules", "module")):
        old, new = before.get(part) or {}, now.get(part) or {}
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                detail = f" {old.get(name)!r} → {new.get(name)!r}" if part == "parameters" else ""
                differences.append(f"{noun} {name}{detail}")
    return differences


PART_NAMES = {"code": "the notebook's code", "lock": "requirements.lock", "outside": "the source"}
