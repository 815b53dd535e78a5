"""One committed version of a pin: its metadata, how `data.txt` says it, and the seal that guards every byte of it."""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pinmill.errors import DataError, IntegrityError, PinNameError, describe_problems

DATA_TXT = "data.txt"  # the name that stock pins looks for
STAMP = "%Y%m%dT%H%M%SZ"  # the time format of stock pins
SEAL = b"# pinmill sha256 "
MAX_METADATA = 4_000_000  # bytes; what is larger is data and belongs in a pin of its own
MAX_DEPTH = 64  # PyYAML's parser in C recurses: some ten thousand levels end the process

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLAIN = "text, numbers, true/false, null, lists and mappings"


@dataclass(frozen=True)
class Pin:
    """The metadata of one committed version."""

    name: str
    version: str
    type: str  # "parquet" | "json" | "file"
    files: Mapping[str, str]  # file name -> SHA-256, hex
    size: int  # bytes of all files
    created: datetime  # aware, UTC, microseconds
    title: str
    facts: Mapping[str, Any]
    lineage: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """The file's SHA-256, hex; of the sorted lines `sha  name` when there are several files."""
        if len(self.files) == 1:
            return next(iter(self.files.values()))
        lines = "".join(sorted(f"{sha}  {name}\n" for name, sha in self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def check_name(name: str) -> str:
    """`name` itself; PinNameError if it is outside `^[a-z0-9][a-z0-9_-]{0,63}$`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PinNameError(
            f"{name!r} is not a pin name: 1 to 64 of a-z, 0-9, '_' and '-', the first a letter or digit, "
            "for example 'spam-model'"
        )
    return name


def is_name(name: str) -> bool:
    """Whether `name` may be the name of a pin."""
    return bool(_NAME.fullmatch(name))


def check_file_name(name: str) -> str:
    """`name` itself; PinNameError if it could mean another place than the version's own folder, or `data.txt`."""
    if not isinstance(name, str) or not _FILE.fullmatch(name) or name == DATA_TXT:
        raise PinNameError(
            f"{name!r} cannot be the file of a pin: a plain file name of letters, digits, '.', '_' and '-' "
            f"was expected (not {DATA_TXT}), for example 'model.skops'"
        )
    return name


def plain(value: Any, where: str, *, strict_json: bool = False) -> Any:
    """A copy of `value` made of Python's own text, numbers, booleans, None, lists and dicts; NaN becomes None.

    NumPy scalars and arrays are converted. With `strict_json` keys are text and infinity is refused.
    Raises DataError naming every key (`facts.model.classes`) that holds anything else.
    """
    problems: list[str] = []
    try:
        copy = _plain(value, where, strict_json, problems)
    except RecursionError:
        raise DataError(f"{where} is nested too deep, or contains itself; metadata holds {_PLAIN}") from None
    if problems:
        raise DataError(describe_problems(where, problems))
    return copy


def _plain(value: Any, where: str, strict_json: bool, problems: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {_plain_key(key, where, strict_json, problems): _plain(item, f"{where}.{key}", strict_json, problems)
                for key, item in value.items()}  # fmt: skip
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{number}]", strict_json, problems) for number, item in enumerate(value)]
    if type(value).__module__ == "numpy" and hasattr(value, "tolist") and value.dtype.kind in "biufUO":
        listed = value.tolist()
        return _plain(float(value) if type(listed) is type(value) else listed, where, strict_json, problems)
    return _plain_scalar(value, where, strict_json, problems)


def _plain_scalar(value: Any, where: str, strict_json: bool, problems: list[str]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            problems.append(f"{where} holds half a surrogate pair, which UTF-8 cannot carry")
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if strict_json and math.isinf(value):
            problems.append(f"{where} is {value}, which JSON cannot carry")
        return None if math.isnan(value) else float(value)
    problems.append(f"{where} is a {type(value).__name__}; only {_PLAIN} can be kept")
    return None


def _plain_key(key: Any, where: str, strict_json: bool, problems: list[str]) -> Any:
    if type(key).__module__ == "numpy" and hasattr(key, "item"):
        key = key.item()
    if not isinstance(key, str if strict_json else str | int | float):
        problems.append(f"the key {key!r} of {where} is a {type(key).__name__}; text was expected")
        return str(key)
    return _plain_scalar(key, f"the key {key!r} of {where}", strict_json, problems)


def render_metadata(pin: Pin, *, pin_hash: str) -> bytes:
    """The bytes of `data.txt`: YAML that stock pins reads, then the seal over all of it.

    `pin_hash` is the xxh64 of the file, as stock pins records it. Raises DataError if YAML cannot carry a value.
    """
    import yaml

    names = list(pin.files)
    document = {
        "title": pin.title,
        "description": None,
        "created": pin.created.strftime(STAMP),
        "pin_hash": pin_hash,
        "file": names[0] if len(names) == 1 else names,
        "file_size": pin.size,
        "type": pin.type,
        "api_version": 1,
        "user": {
            "pin": f"{pin.name}/{pin.version}",
            "created": pin.created.isoformat(timespec="microseconds"),
            "sha256": dict(pin.files),
            "facts": pin.facts,
            "lineage": pin.lineage,
        },
    }
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    try:
        text = yaml.dump(document, Dumper=dumper, sort_keys=False, allow_unicode=True, width=1_000_000)
    except RecursionError:
        raise DataError(f"the metadata of {pin.name} is nested too deep; at most {MAX_DEPTH} levels fit") from None
    body = text.encode()
    if len(body) > MAX_METADATA:
        raise DataError(f"the metadata of {pin.name} takes {len(body):,} bytes; at most {MAX_METADATA:,} fit: "
                        "write what is large as a pin of its own")  # fmt: skip
    try:
        returned = _load_yaml(body)
    except ValueError as error:
        raise DataError(f"the metadata of {pin.name} cannot be kept: {error}") from error
    if returned != document:
        raise DataError(f"the metadata of {pin.name} does not come back from YAML as it was; use simpler text")
    return body + SEAL + hashlib.sha256(body).hexdigest().encode() + b"\n"


def parse_metadata(data: bytes, name: str, version: str) -> Pin:
    """The Pin that `data.txt` describes; IntegrityError if the seal or any field is not as Pinmill writes it."""
    where = f"{name}/{version}/{DATA_TXT}"
    body = _unseal(data, where)
    try:
        return _parse_document(_load_yaml(body), name, version)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise IntegrityError(f"{where} is not metadata that Pinmill wrote: {reason}. {_NEXT_STEP}") from error


_NEXT_STEP = "Take another version, or restore this folder from a backup."


def _unseal(data: bytes, where: str) -> bytes:
    body, seal, recorded = data.rpartition(SEAL)
    if not seal:
        raise IntegrityError(f"{where} has no seal: not written by Pinmill, or damaged. {_NEXT_STEP}")
    found = hashlib.sha256(body).hexdigest()
    if recorded != found.encode() + b"\n":
        shown = recorded[:64].decode("ascii", "replace")
        raise IntegrityError(f"{where} was changed: its SHA-256 is {found}, its seal says {shown}. {_NEXT_STEP}")
    if len(body) > MAX_METADATA:
        raise IntegrityError(f"{where} has {len(body):,} bytes, more than the {MAX_METADATA:,} Pinmill writes")
    return body


def _load_yaml(body: bytes) -> Any:
    """The document in `body`; ValueError if it is malformed, or could harm the reader."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        depth = 0
        for event in yaml.parse(body, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("a YAML alias, which can stand for far more than it shows")
        return yaml.load(body, Loader=loader)
    except yaml.YAMLError as error:
        raise ValueError(f"malformed YAML: {error}") from error


def _parse_document(document: dict[str, Any], name: str, version: str) -> Pin:
    user, listed = document["user"], document["file"]
    names = [listed] if isinstance(listed, str) else listed
    if user["pin"] != f"{name}/{version}":
        raise ValueError(f"it belongs to {user['pin']!r}")
    if [check_file_name(file) for file in names] != list(user["sha256"]) or not names:
        raise ValueError(f"`file` says {names!r}, `sha256` says {list(user['sha256'])!r}")
    if not all(_SHA256.fullmatch(sha) for sha in user["sha256"].values()):
        raise ValueError("a SHA-256 is not 64 hexadecimal digits")
    return Pin(
        name=name,
        version=version,
        type=_of_type(document["type"], str),
        files=user["sha256"],
        size=_of_type(document["file_size"], int),
        created=datetime.fromisoformat(user["created"]).astimezone(UTC),
        title=_of_type(document["title"], str),
        facts=_of_type(user["facts"], dict),
        lineage=_of_type(user["lineage"], dict),
    )


def _of_type(value: Any, expected: type) -> Any:
    if not isinstance(value, expected):
        raise TypeError(f"{value!r} is not of type {expected.__name__}")
    return value
