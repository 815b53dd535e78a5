"""Has an outside input changed since the last run? A token that says so, without reading a table."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pinmill.errors import PinmillError
from pinmill.lineage import hash_file
from pinmill.source import kind_of, load_function, local_path

if TYPE_CHECKING:
    from pinmill.board import Board

SETTLED = 2_000_000_000  # ns: a file touched later than this may change again within one tick of its clock
HEAD_TIMEOUT = 10.0  # seconds: the answer has no body
SIGNS_OF_CHANGE = {"etag", "mtime", "modified", "created", "last_modified", "lastmodified", "updated", "md5", "md5hash",
                   "contentmd5", "crc32c", "generation", "size"}  # fmt: skip


def freshness(source: str, *, root: Path, board: Board | None = None, cache: Path) -> str | None:
    """A token that is another one when the input at `source` is; None if that cannot be told: then always run.

    File: SHA-256, kept in the JSON file `cache` by size and times. Web: ETag, or Last-Modified with the length.
    Object stores: what they say of the object. Pin: version and SHA-256. Function: what its `freshness()` returns.
    An input that is not there gives None; reading it says what is wrong.
    """
    kind = kind_of(source)
    with contextlib.suppress(PinmillError):
        if kind == "file":
            return _of_file(local_path(source, root), cache)
        if kind == "http":
            return _of_address(source)
        if kind == "fsspec":
            return _of_object(source)
        if kind == "pin" and board is not None:
            name, _, version = source.removeprefix("pin:").partition("/")
            pin = board.pin(name, version or None)
            return f"pin:{pin.version}:{pin.sha256}"
        if kind == "function":
            tell = getattr(load_function(source, root), "freshness", None)
            return f"function:{tell()}" if callable(tell) else None
    return None


def _of_file(path: Path, cache: Path) -> str | None:
    try:
        stat = path.stat()
        # The change time, too: a copy can bring its old size and modification time with it.
        known = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        seen = _load(cache)
        key = os.path.abspath(path)
        if seen.get(key, [])[:-1] == known:
            return f"sha256:{seen[key][-1]}"
        token = hash_file(path)
    except OSError:
        return None
    if stat.st_mtime_ns < time.time_ns() - SETTLED:
        _save(cache, {**seen, key: [*known, token]})
    return f"sha256:{token}"


def _load(cache: Path) -> dict[str, list]:
    """What was hashed before; nothing if the file is missing or damaged, as it can be made again."""
    try:
        seen = json.loads(cache.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in seen.items() if isinstance(value, list)} if isinstance(seen, dict) else {}


def _save(cache: Path, seen: dict[str, list]) -> None:
    with contextlib.suppress(OSError):  # without it the file is hashed again, no more
        cache.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=cache.parent, prefix=cache.name)
        with open(handle, "w", encoding="utf-8") as file:
            json.dump(seen, file)
        os.replace(temporary, cache)


def _of_address(url: str) -> str | None:
    import httpx

    try:
        headers = {"Accept-Encoding": "identity"}
        answer = httpx.head(url, headers=headers, follow_redirects=True, timeout=HEAD_TIMEOUT)
    except (httpx.HTTPError, httpx.InvalidURL):
        return None
    if not answer.is_success:
        return None
    if etag := answer.headers.get("ETag"):
        return f"etag:{etag}"
    modified, length = answer.headers.get("Last-Modified"), answer.headers.get("Content-Length")
    return f"modified:{modified}:{length}" if modified and length else None


def _of_object(url: str) -> str | None:
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(url)
        files.invalidate_cache()  # a listing kept in memory would hide the change
        facts = files.info(path)
    except Exception:  # each file system has errors of its own; reading will say what is wrong
        return None
    signs = {key.lower(): str(value) for key, value in facts.items() if key.lower() in SIGNS_OF_CHANGE}
    if not signs.keys() - {"size"}:
        return None
    return "object:" + hashlib.sha256(json.dumps(signs, sort_keys=True).encode()).hexdigest()
