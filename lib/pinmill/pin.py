"""One committed version of a pin: its metadata, how `data.txt` says it, and the seal that guards every byte of it."""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pinmill.errors import DataError, IntegrityError, PinNameError
from pinmill.storage import DATA_TXT
from pinmill.version import STAMP

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
SEAL = b"# pinmill sha256 "
OUTER = ("vetiver_meta",)  # facts that others look for beside ours


@dataclass(frozen=True)
class Pin:
    """The metadata of one committed version."""

    name: str
    version: str
    type: str  # "parquet" | "json" | "file" | "joblib"
    files: Mapping[str, str]  # the name of its one file -> SHA-256, hex
    size: int  # bytes of the file
    created: datetime  # aware, UTC, microseconds
    title: str
    facts: Mapping[str, Any]
    lineage: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """The SHA-256 of its file, hex."""
        return next(iter(self.files.values()))


def check_name(name: str) -> str:
    """`name` itself; PinNameError if it is outside `^[a-z0-9][a-z0-9_-]{0,63}$`."""
    if not NAME.fullmatch(name):
        raise PinNameError(f"{name!r} is not a pin name: 1 to 64 of a-z, 0-9, '_' and '-', the first a letter or digit")
    return name


def check_file_name(name: str) -> str:
    """`name` itself; PinNameError if it could mean another place than the version's own folder, or `data.txt`."""
    if not FILE.fullmatch(name) or name == DATA_TXT:
        raise PinNameError(f"{name!r} cannot be the file of a pin: a plain name such as 'model.skops' was expected")
    return name


def plain(value: Any, where: str) -> Any:
    """`value` as text, numbers, booleans, None, lists and dicts with text as keys; NumPy is converted, NaN is None.

    Raises DataError naming the key (`facts.model.classes`) that holds anything else.
    """
    if type(value).__module__ == "numpy" and value.dtype.kind in "biufUO":
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, float) and math.isnan(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise DataError(f"{where} is a {type(value).__name__}; text, numbers, booleans, None, lists and dicts can be kept")


def render_metadata(pin: Pin, *, pin_hash: str) -> bytes:
    """The bytes of `data.txt`: YAML that stock pins reads, then the seal over all of it.

    `pin_hash` is the xxh64 of the file, as stock pins records it. Raises DataError if YAML cannot carry a value.
    """
    import yaml

    document = {
        "title": pin.title,
        "description": None,
        "created": pin.created.strftime(STAMP),
        "pin_hash": pin_hash,
        "file": next(iter(pin.files)),
        "file_size": pin.size,
        "type": pin.type,
        "api_version": 1,
        "user": {"created": pin.created.isoformat(), "sha256": pin.files, "facts": pin.facts, "lineage": pin.lineage}
        | {name: pin.facts[name] for name in OUTER if name in pin.facts},
    }
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    try:
        return _seal(yaml.dump(document, Dumper=dumper, sort_keys=False, allow_unicode=True, width=1_000_000).encode())
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"the metadata of {pin.name} cannot be kept: {error}") from error


def parse_metadata(data: bytes, name: str, version: str) -> Pin:
    """The Pin that `data.txt` describes; IntegrityError if the seal or any field is not as Pinmill writes it."""
    import yaml

    where = f"{name}/{version}/{DATA_TXT}"
    body = data.rpartition(SEAL)[0]
    if data != _seal(body):
        raise IntegrityError(f"{where} was changed, or not written by Pinmill. Take another version, or restore it")
    try:
        document = yaml.load(body, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        user = document["user"]
        kind, size, title = str(document["type"]), int(document["file_size"]), str(document["title"])
        ((file, sha256),) = dict(user["sha256"]).items()
        created, facts, lineage = datetime.fromisoformat(user["created"]), dict(user["facts"]), dict(user["lineage"])
        return Pin(name, version, kind, {check_file_name(file): sha256}, size, created, title, facts, lineage)
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise IntegrityError(f"{where} is not metadata that Pinmill wrote: {error!r}") from error


def _seal(body: bytes) -> bytes:
    return body + SEAL + hashlib.sha256(body).hexdigest().encode() + b"\n"
