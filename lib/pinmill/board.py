"""A board that loses nothing: versions are atomic, verified at each read, and in the order of their commits.

Stock `pins` reads what stands here: tables and JSON with `pin_read`, files with `pin_download`.
"""

import contextlib
import errno
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pinmill.errors import BoardError, DataError, IntegrityError, PinmillError, PinNotFoundError, did_you_mean
from pinmill.pin import DATA_TXT, Pin, check_file_name, check_name, parse_metadata, plain, render_metadata
from pinmill.version import is_version, next_version, now_utc, open_storage, write_hashed

if TYPE_CHECKING:
    import pandas

LOCK_SECONDS = 300  # longer than any commit takes; the lock of a dead process is free at once
LOCK_POLL_SECONDS = 0.005  # a commit holds the lock for some milliseconds

Guard = Callable[[], None]


class Board:
    """Pins in a folder (`outputs/pins`) or at any fsspec URL (`s3://bucket/pins`). Nothing is made until a write."""

    def __init__(self, url: str | Path, *, clock: Callable[[], datetime] = now_utc) -> None:
        self._storage = open_storage(url)
        self._clock = clock
        self._locks: dict[str, Any] = {}
        self.url = self._storage.where

    def __repr__(self) -> str:
        return f"Board({self.url!r})"

    def names(self) -> list[str]:
        """Names of the pins that have a committed version, sorted."""
        return [name for name in self._storage.names() if self._last(name)]

    def versions(self, name: str) -> list[str]:
        """Committed versions, oldest first; empty if there are none."""
        return self._storage.whole(check_name(name))

    def latest(self, name: str) -> str:
        """The version committed last; PinNotFoundError if there is none."""
        last = self._last(check_name(name))
        if last is None:
            raise PinNotFoundError(self._not_found(name))
        return last

    def pin(self, name: str, version: str | None = None) -> Pin:
        """The metadata of a version (default: the latest), its seal verified; the data is verified when it is read."""
        version = self.latest(name) if version is None else version
        check_name(name)
        if not is_version(version) or not self._storage.is_whole(name, version):
            raise PinNotFoundError(self._not_found(name, version))
        try:
            data = self._storage.read(name, version, DATA_TXT)
        except OSError as error:
            raise BoardError(f"{self.url}/{name}/{version}/{DATA_TXT} cannot be read: {error.strerror}") from error
        return parse_metadata(data, name, version)

    def write_table(
        self,
        name: str,
        frame: "pandas.DataFrame",
        *,
        facts: Mapping[str, Any],
        lineage: Mapping[str, Any],
        title: str = "",
        guard: Guard | None = None,
    ) -> Pin:
        """Commit `frame` as Parquet, without its index. `guard` is called just before the commit and may raise."""

        def put(sink: BinaryIO) -> None:
            try:
                frame.to_parquet(sink, engine="pyarrow", index=False)
            except (ValueError, TypeError, OverflowError, NotImplementedError) as error:
                raise DataError(f"the table for {name} cannot be kept as Parquet: {error}") from error

        return self._write(name, "parquet", f"{name}.parquet", put, facts, lineage, title, guard)

    def write_json(
        self,
        name: str,
        value: Any,
        *,
        facts: Mapping[str, Any],
        lineage: Mapping[str, Any],
        title: str = "",
        guard: Guard | None = None,
    ) -> Pin:
        """Commit `value` as JSON; NumPy scalars are converted, NaN becomes null, anything else is a DataError."""
        text = json.dumps(plain(value, "value", strict_json=True), ensure_ascii=False, allow_nan=False, indent=1)
        data = text.encode()
        return self._write(
            name, "json", f"{name}.json", lambda sink: sink.write(data), facts, lineage, title, guard
        )

    def write_file(
        self,
        name: str,
        data: bytes,
        *,
        file_name: str,
        facts: Mapping[str, Any],
        lineage: Mapping[str, Any],
        title: str = "",
        guard: Guard | None = None,
    ) -> Pin:
        """Commit `data` as one file, for example a model."""
        return self._write(name, "file", file_name, lambda sink: sink.write(data), facts, lineage, title, guard)

    def read_table(self, pin: Pin, *, columns: Sequence[str] | None = None) -> "pandas.DataFrame":
        """The table of a Parquet pin, verified before it is parsed; `columns` in that order, or all."""
        import pandas
        import pyarrow

        data = self._read(pin, "parquet")
        try:
            return pandas.read_parquet(pyarrow.BufferReader(data), engine="pyarrow", columns=columns and list(columns))
        except (ValueError, KeyError) as error:
            raise DataError(f"{pin.name}/{pin.version} cannot be read as that table: {error}") from error

    def read_json(self, pin: Pin) -> Any:
        """The value of a JSON pin, verified before it is parsed."""
        return json.loads(self._read(pin, "json"))

    def read_file(self, pin: Pin) -> bytes:
        """The verified bytes of a pin's file, whatever its type."""
        return bytes(self._read(pin, pin.type))

    def verify(self, name: str, version: str) -> list[str]:
        """What is wrong with a version, as text; empty if every byte is as it was written."""
        check_name(name)
        try:
            pin = self.pin(name, version)
        except BoardError as error:
            return [str(error)]
        return [problem for file in pin.files if (problem := self._read_problem(pin, file)[1])]

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the pin's lock: one holder among processes and threads; the same thread may take it again."""
        import filelock

        if check_name(name) not in self._locks:
            self._storage.locks.mkdir(parents=True, exist_ok=True)
            path = self._storage.locks / f"{name}.lock"
            self._locks.setdefault(name, filelock.FileLock(path, poll_interval=LOCK_POLL_SECONDS))
        try:
            self._locks[name].acquire(timeout=LOCK_SECONDS)
        except filelock.Timeout as error:
            raise BoardError(f"another process has held the lock of {name} for {LOCK_SECONDS} s "
                             f"({error.lock_file}); end it, then write again") from error  # fmt: skip
        try:
            yield
        finally:
            self._locks[name].release()

    def _write(
        self,
        name: str,
        kind: str,
        file_name: str,
        put: Callable[[BinaryIO], object],
        facts: Mapping[str, Any],
        lineage: Mapping[str, Any],
        title: str,
        guard: Guard | None,
    ) -> Pin:
        check_name(name)
        check_file_name(file_name)
        facts, lineage, title = plain(facts, "facts"), plain(lineage, "lineage"), plain(title, "title")
        try:
            with self._storage.stage() as staged:
                written = write_hashed(staged / file_name, put)
                with self.lock(name):
                    now = self._clock().astimezone(UTC)
                    version = self._next_version(name, now)
                    files = {file_name: written.sha256}
                    pin = Pin(name, version, kind, files, written.size, now, title, facts, lineage)
                    metadata = render_metadata(pin, pin_hash=written.xxh64)
                    write_hashed(staged / DATA_TXT, lambda sink: sink.write(metadata))
                    if guard is not None:
                        guard()
                    self._storage.commit(staged, name, version)
                    return pin
        except OSError as error:
            if isinstance(error, PinmillError):
                raise
            raise BoardError(self._not_written(name, error)) from error

    def _next_version(self, name: str, now: datetime) -> str:
        listed = self._storage.listed(name)
        try:
            return next_version(now, listed[-1] if listed else None)
        except ValueError as error:
            raise BoardError(f"{self.url}/{name}/{listed[-1]} has no time in its name ({error}); remove it") from error

    def _not_written(self, name: str, error: OSError) -> str:
        advice = "nothing of it is visible; the versions before it are as they were"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice += "; free space, then write again"
        if error.errno == errno.EXDEV:
            advice += f"; {self.url} is a mount of its own: put the board in a folder inside it"
        return f"could not write {name} to {self.url}: {error.strerror or error}: {advice}"

    def _read(self, pin: Pin, kind: str) -> bytes | bytearray:
        if pin.type != kind:
            reader = {"parquet": "read_table", "json": "read_json"}.get(pin.type, "read_file")
            raise BoardError(f"{pin.name}/{pin.version} is of type {pin.type}, not {kind}: use {reader}")
        if len(pin.files) != 1:
            raise BoardError(f"{pin.name}/{pin.version} has {len(pin.files)} files; one was expected")
        data, problem = self._read_problem(pin, next(iter(pin.files)))
        if problem:
            raise IntegrityError(problem)
        return data

    def _read_problem(self, pin: Pin, file: str) -> tuple[bytes | bytearray, str]:
        """The bytes of a file, and what is wrong with them or an empty string."""
        where = f"{pin.name}/{pin.version}/{file}"
        try:
            data, found = self._storage.read_hashed(check_name(pin.name), pin.version, check_file_name(file))
        except FileNotFoundError:
            return b"", f"{where} is gone. Take another version, or restore it from a backup."
        except OSError as error:
            return b"", f"{where} cannot be read: {error.strerror or error}. Take another version, or restore it."
        if found == pin.files[file]:
            return data, ""
        return b"", (f"{where} was changed: its SHA-256 is {found}, recorded is {pin.files[file]}. "
                     "Take another version, or restore it from a backup.")  # fmt: skip

    def _last(self, name: str) -> str | None:
        listed = self._storage.listed(name)
        return next((version for version in reversed(listed) if self._storage.is_whole(name, version)), None)

    def _not_found(self, name: str, version: str | None = None) -> str:
        versions = self.versions(name)
        if versions:
            return (f"{name} has no version {version!r} on {self.url}.{did_you_mean(str(version), versions)} "
                    f"It has {len(versions)}, the latest is {versions[-1]}.")  # fmt: skip
        names = self.names()
        holds = f"It holds {', '.join(names[:12])}{', …' if len(names) > 12 else ''}" if names else "It is empty"
        return f"there is no pin {name!r} on {self.url}.{did_you_mean(name, names)} {holds}."
