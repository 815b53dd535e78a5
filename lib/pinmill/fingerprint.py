"""What a stage's result depends on, as parts that can be compared and named; and the results that may be reused."""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pinmill.freshness import ANNOTATION
from pinmill.notebook import Stage
from pinmill.pin import Pin
from pinmill.runs import StageRecord, record_type, write_json

PACKAGE = Path(__file__).parent
MEASURED = ("training_seconds", "peak_memory_mb")  # facts of a model that differ at every fit; nothing depends on them
KNOWN = sys.stdlib_module_names | {"pinmill"}  # modules that are not the project's own, wherever they lie
PART_NAMES = {"code": "the notebook's code", "lock": "requirements.lock", "outside": "the source"}


def read_parts(
    stage: Stage, *, parameters: Mapping[str, Any], inputs: Mapping[str, str], lock: str, outside: str | None
) -> dict[str, Any]:
    """The parts of a stage's fingerprint that are known before it runs.

    `parameters` are the whole workflow's, those that the notebook declares count; `inputs` are SHA-256 by kind, `lock`
    that of requirements.lock; `outside` tells how fresh the outside input is, None when that cannot be told.
    """
    taken = {name: parameters[name] for name in stage.declarations}
    return {"code": stage.code_hash, "parameters": taken, "inputs": dict(inputs), "lock": lock, "outside": outside}


def digest_parts(parts: Mapping[str, Any]) -> str:
    """SHA-256 of the parts that are known before a stage runs."""
    known = {name: part for name, part in parts.items() if name != "modules"}
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()


def hash_content(pin: Pin) -> str:
    """SHA-256 of all that a stage may go by in a pin: its bytes, and its facts (the label, the positive class)."""
    facts = {name: fact for name, fact in pin.facts.items() if name not in MEASURED}
    return hashlib.sha256(json.dumps([pin.sha256, facts], sort_keys=True, default=str).encode()).hexdigest()


def name_modules(files: Mapping[str, str], root: Path) -> list[str]:
    """Of imported modules, by their files: Pinmill's by name, and the project's own by path from its root.

    What is installed below the root (in site-packages or a hidden folder) is not the project's own.
    """
    names = [name for name in files if name.partition(".")[0] == "pinmill"]
    others = {Path(file) for name, file in files.items() if name.partition(".")[0] not in KNOWN}
    paths = [path.relative_to(root) for path in others if path.suffix == ".py" and path.is_relative_to(root)]
    return names + [str(path) for path in paths if not any(p[0] == "." or p == "site-packages" for p in path.parts)]


def hash_modules(names: Iterable[str], root: Path) -> dict[str, str]:
    """SHA-256 of the source of each module, named as by `name_modules`; empty text for one that is gone."""
    hashes = {}
    for name in sorted(names):
        path = root / name if name.endswith(".py") else PACKAGE / f"{name.partition('.')[2] or '__init__'}.py"
        hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return hashes


def read_result(folder: Path, stage: Stage, digest: str) -> StageRecord | None:
    """The stage's finished execution with a fingerprint, or its `latest`; None without one, or when it is damaged."""
    try:
        return record_type(StageRecord).validate_json((folder / "stages" / stage.name / f"{digest}.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def write_result(folder: Path, record: StageRecord) -> None:
    """Remember a finished execution, by its fingerprint and as the latest one."""
    for name in (record.fingerprint, "latest"):
        write_json(folder / "stages" / record.stage / f"{name}.json", asdict(record))


def explain_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, each part of a fingerprint that changed from `before` to `now`."""
    sources = {str(parts.get("outside")).partition(ANNOTATION)[0] for parts in (before, now)}
    names = PART_NAMES | ({"outside": "the annotations"} if len(sources) == 1 else {})
    differences = [words for part, words in names.items() if before.get(part) != now.get(part)]
    for part, noun in (("parameters", "parameter"), ("inputs", "input"), ("modules", "module")):
        old, new = before.get(part) or {}, now.get(part) or {}
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                detail = f" {old.get(name)!r} → {new.get(name)!r}" if part == "parameters" else ""
                differences.append(f"{noun} {name}{detail}")
    return differences
