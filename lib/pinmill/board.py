"""A board that loses nothing: versions are atomic, verified at each read, and in the order of their commits.

Stock `pins` reads what stands here: tables and JSON with `pin_read`, files with `pin_download`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinmill.errors import BoardError, DataError, IntegrityError, PinNotFoundError, did_you_mean
from pinmill.pin import NAME, Pin, check_file_name, check_name, parse_metadata, plain, render_metadata
from pinmill.storage import DATA_TXT, Folder, Objects
from pinmill.version import VERSION, next_version, now_utc

if TYPE_CHECKING:
    from filelock import FileLock
    from pandas import DataFrame

LOCK_SECONDS = 300  # longer than any commit takes; the lock of a dead process is free at once

Doc = Mapping[str, Any]  # plain values, see `plain`
Guard = Callable[[], None] | None  # called just before a commit, and may raise to prevent it


class Board:
    """Pins in a folder (`outputs/pins`) or at any fsspec URL (`s3://bucket/pins`). Nothing is made until a write."""

    def __init__(self, url: str | Path, *, clock: Callable[[], datetime] = now_utc) -> None:
        protocol, _, path = str(url).rpartition("://")
        self._storage = Folder(Path(path)) if protocol in ("", "file", "local") else Objects(str(url))
        self._clock = clock
        self.url = self._storage.where

    def names(self) -> list[str]:
        """Names of the pins that have a committed version, sorted."""
        return [name for name in self._storage.names() if NAME.fullmatch(name) and any(self._storage.committed(name))]

    def versions(self, name: str) -> list[str]:
        """Committed versions, oldest first; empty if there are none."""
        return sorted(self._storage.committed(check_name(name)))

    def latest(self, name: str) -> str:
        """The version committed last; PinNotFoundError if there is none."""
        last = self._storage.last(check_name(name))
        if last is None:
            raise PinNotFoundError(self._not_found(name))
        return last

    def pin(self, name: str, version: str | None = None) -> Pin:
        """The metadata of a version (default: the latest), its seal verified; the data is verified when it is read."""
        version = self.latest(name) if version is None else version
        return parse_metadata(self.read_metadata(name, version), name, version)

    def read_metadata(self, name: str, version: str) -> bytes:
        """The bytes of a version's `data.txt`, as they stand there."""
        try:
            if not VERSION.fullmatch(version):
                raise FileNotFoundError(version)
            return self._storage.read(check_name(name), version, DATA_TXT)
        except FileNotFoundError as error:
            raise PinNotFoundError(self._not_found(name, version)) from error
        except OSError as error:
            raise IntegrityError(f"{name}/{version}/{DATA_TXT} on {self.url} cannot be read: {error}") from error

    def write_table(
        self, name: str, frame: "DataFrame", *, facts: Doc, lineage: Doc, title: str = "", guard: Guard = None
    ) -> Pin:
        """Commit `frame` as Parquet, without its index."""
        try:
            data = frame.to_parquet(engine="pyarrow", index=False)
        except (ValueError, TypeError, OverflowError, NotImplementedError) as error:
            raise DataError(f"the table for {name} cannot be kept as Parquet: {error}") from error
        return self._write(name, "parquet", f"{name}.parquet", data, facts, lineage, title, guard)

    def write_json(
        self, name: str, value: Any, *, facts: Doc, lineage: Doc, title: str = "", guard: Guard = None
    ) -> Pin:
        """Commit `value` as JSON; NumPy is converted, NaN becomes null, anything else is an error."""
        data = json.dumps(plain(value, "value"), ensure_ascii=False, allow_nan=False, indent=1).encode()
        return self._write(name, "json", f"{name}.json", data, facts, lineage, title, guard)

    def write_file(
        self, name: str, data: bytes, *, file_name: str, facts: Doc, lineage: Doc, title: str = "", guard: Guard = None
    ) -> Pin:
        """Commit `data` as one file, for example a model; stock pins loads one that ends in .joblib."""
        kind = "joblib" if file_name.endswith(".joblib") else "file"
        return self._write(name, kind, file_name, data, facts, lineage, title, guard)

    def put(self, pin: Pin, metadata: bytes, data: bytes) -> None:
        """Commit a version as it was on another board; nothing is done if it is there."""
        with self.lock(pin.name):
            if pin.version not in self.versions(pin.name):
                (file,) = pin.files
                self._storage.commit(pin.name, pin.version, file, data, lambda: metadata, lambda: None)

    def read_table(self, pin: Pin, *, columns: Sequence[str] | None = None) -> "DataFrame":
        """The table of a Parquet pin, verified before it is parsed; `columns` in that order, or all."""
        import pandas
        import pyarrow

        data = pyarrow.BufferReader(self.read_file(pin))
        try:
            return pandas.read_parquet(data, engine="pyarrow", columns=columns and list(columns))
        except (ValueError, KeyError) as error:
            raise DataError(f"{pin.name}/{pin.version} ({pin.type}) cannot be read as that table: {error}") from error

    def read_json(self, pin: Pin) -> Any:
        """The value of a JSON pin, verified before it is parsed."""
        return json.loads(self.read_file(pin))

    def read_file(self, pin: Pin) -> bytes:
        """The verified bytes of a pin's file, whatever its type; IntegrityError if they are not as they were."""
        (file,) = pin.files
        where = f"{pin.name}/{pin.version}/{file}"
        try:
            data = self._storage.read(pin.name, pin.version, file)
        except OSError as error:
            raise IntegrityError(f"{where} is gone or cannot be read: {error}. Restore it from a backup") from error
        if hashlib.sha256(data).hexdigest() != pin.sha256:
            raise IntegrityError(f"{where} was changed: its SHA-256 is not {pin.sha256}. Restore it from a backup")
        return data

    def verify(self, name: str, version: str) -> list[str]:
        """What is wrong with a version, as text; empty if every byte is as it was written."""
        try:
            self.read_file(self.pin(name, version))
        except (PinNotFoundError, IntegrityError) as error:
            return [str(error)]
        return []

    def remove(self, name: str, version: str) -> None:
        """Take a version off the board, whole or not at all. Raises PinNotFoundError, and BoardError for the last one.

        Stock pins cannot list a pin without versions.
        """
        with self.lock(name):
            versions = self.versions(name)
            if version not in versions:
                raise PinNotFoundError(self._not_found(name, version))
            if version == versions[-1]:
                raise BoardError(f"{version} is the last version of {name}, which is never removed")
            try:
                self._storage.remove(name, version)
            except OSError as error:
                raise BoardError(f"could not remove {name}/{version} from {self.url}: {error}") from error

    def lock(self, name: str) -> "FileLock":
        """The pin's lock, for `with`: one holder among processes and threads; the same thread may take it again."""
        from filelock import FileLock

        path = self._storage.locks / f"{check_name(name)}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path, LOCK_SECONDS, poll_interval=0.005, is_singleton=True)  # a commit takes milliseconds

    def _write(
        self, name: str, kind: str, file: str, data: bytes, facts: Doc, lineage: Doc, title: str, guard: Guard
    ) -> Pin:
        from concurrent.futures import ThreadPoolExecutor

        import xxhash

        check_name(name)
        check_file_name(file)
        facts, lineage = plain(facts, "facts"), plain(lineage, "lineage")
        try:
            with ThreadPoolExecutor(1) as hashing, self.lock(name):
                sha256 = hashing.submit(lambda: hashlib.sha256(data).hexdigest())  # while the file is written
                now, last = self._clock().astimezone(UTC), next(self._storage.committed(name), None)
                version = next_version(now, last)

                def describe() -> Pin:
                    return Pin(name, version, kind, {file: sha256.result()}, len(data), now, title, facts, lineage)

                def render() -> bytes:
                    return render_metadata(describe(), pin_hash=xxhash.xxh64_hexdigest(data))

                self._storage.commit(name, version, file, data, render, guard or (lambda: None))
                return describe()
        except OSError as error:
            said = f"{error.strerror or error}: nothing of it is visible; see to that, then write again"
            raise BoardError(f"could not write {name} to {self.url}: {said}") from error

    def _not_found(self, name: str, version: str | None = None) -> str:
        versions, names = self.versions(name), self.names()
        if versions:
            near = did_you_mean(str(version), versions)
            return f"{name} has no version {version!r} on {self.url}.{near} Its latest is {versions[-1]}."
        holds = f"It holds {', '.join(names)}." if names else "It is empty."
        return f"there is no pin {name!r} on {self.url}.{did_you_mean(name, names)} {holds}"
