"""Has an outside input changed since the last run? A token that says so, without reading a table."""

import contextlib
import hashlib
import json
import sqlite3
import time
from pathlib import Path

from pinmill.board import Board
from pinmill.lineage import hash_file
from pinmill.project import Project
from pinmill.runs import write_json
from pinmill.source import HEADERS, find_pin, kind_of, load_function, local_path

SETTLED = 2_000_000_000  # ns: a file touched later than this may change again within one tick of its clock
ANNOTATION = " annotation:"  # in a token: the id of the newest annotation follows
HEAD_TIMEOUT = 10.0  # seconds: the answer has no body


def freshness(source: str, *, root: Path, board: Board | None = None, cache: Path) -> str | None:
    """A token that is another one when the input at `source` is; None if that cannot be told: then always run.

    File: SHA-256, kept in the JSON file `cache` by size and times. Web: ETag, or Last-Modified with the length.
    Object stores: what they say of the object. Pin: version and SHA-256. Function: what its `freshness()` returns.
    An input that is not there gives None; reading it says what is wrong.
    """
    kind = kind_of(source)
    with contextlib.suppress(Exception):  # every library has its own; reading the input will say what is wrong
        if kind == "file":
            return f"sha256:{_hash_cached(local_path(source, root), cache)}"
        if kind == "http":
            return _ask_server(source)
        if kind == "fsspec":
            import fsspec

            files, path = fsspec.url_to_fs(source)
            files.invalidate_cache()  # a listing kept in memory would hide the change
            return f"object:{files.ukey(path)}"
        if kind == "pin":
            pin = find_pin(source, board)
            return f"pin:{pin.version}:{pin.sha256}"
        if kind == "function":
            return f"function:{load_function(source, root).freshness()}"
    return None


def add_annotation(token: str | None, project: Project, workflow: str) -> str | None:
    """`token` with the id of the newest annotation; as it is while there are none, or when it is None."""
    newest = find_newest(project, workflow) if project.has_store else 0
    return f"{token}{ANNOTATION}{newest}" if token and newest else token


def find_newest(project: Project, workflow: str) -> int:
    """What the store's `latest_annotation` says; a file is asked without SQLAlchemy, which takes half a second."""
    query = "SELECT max(id) FROM annotations WHERE workflow = ?"
    with contextlib.suppress(sqlite3.Error, AttributeError):  # no file, or the store says what is wrong with it
        uri = f"{project.store_file.as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            return connection.execute(query, [workflow]).fetchone()[0] or 0
    return project.store.latest_annotation(workflow)


def _hash_cached(path: Path, cache: Path) -> str:
    """SHA-256 of the file, from `cache` when nothing says that the file was touched since."""
    key = hashlib.sha256(str(path).encode()).hexdigest()  # the path itself may be a secret
    stat = path.stat()
    # The change time, too: a copy can bring its old size and modification time with it.
    signs = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    try:
        seen = json.loads(cache.read_text("utf-8"))
    except (OSError, ValueError):  # missing or damaged: it can be made again
        seen = {}
    *known, token = seen.get(key, [None])
    if known == signs:
        return token
    token = hash_file(path)
    if stat.st_mtime_ns < time.time_ns() - SETTLED:
        with contextlib.suppress(OSError):  # without it the file is hashed again, no more
            write_json(cache, {**seen, key: [*signs, token]})
    return token


def _ask_server(url: str) -> str | None:
    """What a web server says of the version at an address."""
    import httpx

    answer = httpx.head(url, headers=HEADERS, follow_redirects=True, timeout=HEAD_TIMEOUT).raise_for_status()
    if etag := answer.headers.get("ETag"):
        return f"etag:{etag}"
    modified, length = answer.headers.get("Last-Modified"), answer.headers.get("Content-Length")
    return f"modified:{modified}:{length}" if modified and length else None
