"""Name, stage and commit versions, in a folder or in an object store that fsspec knows."""

import contextlib
import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from pinmill.errors import BoardError
from pinmill.pin import DATA_TXT, STAMP, is_name

TICKS = 10_000_000  # of 0.1 microseconds in a second: six digits of microseconds and one for ties
NEW = "version.new"  # no pin has a name with a dot, so its folder can be made beside this one
READ_BYTES = 1 << 20  # few calls, and a piece stays in the cache until it is hashed
_VERSION = re.compile(r"\d{4}[01]\d[0-3]\dT[0-2]\d[0-5]\d[0-6]\dZ-[0-9a-z]{5}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"  # in the order of their character codes: stock pins sorts as text


def now_utc() -> datetime:
    """The time now: aware, UTC, with microseconds."""
    return datetime.now(UTC)


def is_version(version: str) -> bool:
    """Whether `version` has the form `20240131T235959Z-0a1b2` that stock pins accepts."""
    return isinstance(version, str) and bool(_VERSION.fullmatch(version))


def next_version(now: datetime, last: str | None) -> str:
    """The version for a commit at `now` (aware), always after `last` as text, also if the clock was set back.

    The five characters are tenths of a microsecond within the second, in base 36.
    """
    now = now.astimezone(UTC)
    version = _version(now, now.microsecond * 10)
    if last is None or version > last:
        return version
    second, ticks = datetime.strptime(last[:16], STAMP), int(last[17:], 36) + 1
    return _version(second, ticks) if ticks < TICKS else _version(second + timedelta(seconds=1), 0)


def _version(second: datetime, ticks: int) -> str:
    digits = ""
    for _ in range(5):
        ticks, digit = divmod(ticks, 36)
        digits = _DIGITS[digit] + digits
    return f"{second.strftime(STAMP)}-{digits}"


class Folder:
    """Versions in a local folder: staged beside it, then renamed into it."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        self.where = str(self.root)
        self.staging = self.root.with_name(self.root.name + ".staging")
        self.locks = self.staging / "locks"

    def names(self) -> list[str]:
        """Folders that have the name of a pin, sorted."""
        return sorted(filter(is_name, _listdir(self.root)))

    def listed(self, name: str) -> list[str]:
        """Folders that have the name of a version, whole or not, oldest first."""
        return sorted(filter(is_version, _listdir(self.root / name)))

    def whole(self, name: str) -> list[str]:
        """Committed versions, oldest first."""
        return [version for version in self.listed(name) if self.is_whole(name, version)]

    def is_whole(self, name: str, version: str) -> bool:
        """Whether the version was committed."""
        return (self.root / name / version / DATA_TXT).is_file()

    def read(self, name: str, version: str, file: str) -> bytes:
        """The bytes of one file, unverified; FileNotFoundError if it is not there."""
        return (self.root / name / version / file).read_bytes()

    def read_hashed(self, name: str, version: str, file: str) -> tuple[bytes | bytearray, str]:
        """The bytes of one file and their SHA-256, hex, hashed piece by piece while still in the processor's cache."""
        sha256, end = hashlib.sha256(), 0
        with open(self.root / name / version / file, "rb", buffering=0) as source:
            data = bytearray(os.fstat(source.fileno()).st_size)
            view = memoryview(data)
            while count := source.readinto(view[end : end + READ_BYTES]):
                sha256.update(view[end : end + count])
                end += count
        return data, sha256.hexdigest()

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """An empty folder beside the board, gone at the end; first removes those of dead writers.

        A writer holds a lock in its folder, and the kernel lets go of it however the writer dies.
        """
        self.locks.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()
        folder, lock = self._own_folder()
        try:
            (folder / NEW).mkdir()
            yield folder / NEW
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()

    def commit(self, staged: Path, name: str, version: str) -> None:
        """Make `staged` visible as the version, by one rename. A first version comes together with its pin's folder:
        stock pins cannot list versions of an empty one."""
        _sync_folder(staged)
        pin = self.root / name
        self.root.mkdir(parents=True, exist_ok=True)
        if pin.exists():
            os.rename(staged, pin / version)
            _sync_folder(pin)
        else:
            whole = staged.parent / name
            whole.mkdir()
            os.rename(staged, whole / version)
            _sync_folder(whole)
            os.rename(whole, pin)
            _sync_folder(self.root)

    def _own_folder(self) -> tuple[Path, Any]:
        while True:
            folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self.staging))
            with contextlib.suppress(FileNotFoundError):
                lock = _try_lock(folder)
                if lock is not None:
                    return folder, lock

    def _remove_leftovers(self) -> None:
        for name in _listdir(self.staging):
            folder = self.staging / name
            if folder == self.locks or not folder.is_dir():
                continue
            with contextlib.suppress(OSError):  # of another user, or removed by another writer meanwhile
                lock = _try_lock(folder)
                if lock is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    lock.release()


class Objects:
    """Versions in an object store: the files first, `data.txt` last; without it a version does not exist.

    Locks are files on this machine: writers of one pin on several machines must not run at the same time.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.where = re.sub(r"//[^/@]*@", "//***@", url)  # a password in a URL is not for error messages
        self.fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        self.root = root.rstrip("/")
        user = os.getuid() if hasattr(os, "getuid") else "user"
        self.locks = Path(tempfile.gettempdir()) / f"pinmill-{user}" / re.sub(r"[^A-Za-z0-9]+", "-", self.where)

    def names(self) -> list[str]:
        """Prefixes that have the name of a pin, sorted."""
        return sorted(filter(is_name, self._ls(self.root)))

    def listed(self, name: str) -> list[str]:
        """Prefixes that have the name of a version, whole or not, oldest first."""
        return sorted(filter(is_version, self._ls(f"{self.root}/{name}")))

    def whole(self, name: str) -> list[str]:
        """Committed versions, oldest first, by one listing."""
        parts = [path.split("/") for path in self.fs.find(f"{self.root}/{name}")]
        return sorted(part[-2] for part in parts if part[-1] == DATA_TXT and is_version(part[-2]))

    def is_whole(self, name: str, version: str) -> bool:
        """Whether the version was committed."""
        return self.fs.isfile(f"{self.root}/{name}/{version}/{DATA_TXT}")

    def read(self, name: str, version: str, file: str) -> bytes:
        """The bytes of one file, unverified; FileNotFoundError if it is not there."""
        return self.fs.cat_file(f"{self.root}/{name}/{version}/{file}")

    def read_hashed(self, name: str, version: str, file: str) -> tuple[bytes | bytearray, str]:
        """The bytes of one file and their SHA-256, hex."""
        data = self.read(name, version, file)
        return data, hashlib.sha256(data).hexdigest()

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """An empty local folder, gone at the end."""
        self.locks.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix="pinmill-") as folder:
            yield Path(folder)

    def commit(self, staged: Path, name: str, version: str) -> None:
        """Upload the files, then `data.txt`, which never replaces one that is there."""
        target = f"{self.root}/{name}/{version}"
        self.fs.makedirs(target, exist_ok=True)
        for file in sorted(staged.iterdir()):
            if file.name != DATA_TXT:
                self.fs.put_file(str(file), f"{target}/{file.name}")
        self.fs.pipe_file(f"{target}/{DATA_TXT}", (staged / DATA_TXT).read_bytes(), mode="create")

    def _ls(self, path: str) -> list[str]:
        try:
            return [found.rstrip("/").rpartition("/")[2] for found in self.fs.ls(path, detail=False)]
        except FileNotFoundError:
            return []


def open_storage(url: str | Path) -> Folder | Objects:
    """The versions kept at `url`: a folder's path or `file://…`, or any other fsspec URL."""
    protocol, separator, path = str(url).partition("://")
    if not str(url) or (separator and not path):
        raise BoardError(f"{str(url)!r} is not a board: a folder or a URL such as 's3://bucket/pins' was expected")
    if not separator:
        return Folder(Path(url))
    return Folder(Path(path)) if protocol in ("file", "local") else Objects(str(url))


@dataclass(frozen=True)
class Written:
    """What `write_hashed` wrote: its SHA-256 and xxh64 (the hash of stock pins), hex, and its bytes."""

    sha256: str
    xxh64: str
    size: int


def write_hashed(path: Path, put: Callable[[BinaryIO], object]) -> Written:
    """Let `put` write the new file `path`, hashed on the way, and bring it to the disk with one fsync."""
    with open(path, "xb", buffering=0) as file:
        sink = _HashingFile(file)
        put(sink)
        os.fsync(file.fileno())
    return Written(sink.sha256.hexdigest(), sink.xxh64.hexdigest(), sink.size)


class _HashingFile(io.RawIOBase):
    def __init__(self, file: io.FileIO) -> None:
        import xxhash

        self.sha256, self.xxh64, self.size, self._file = hashlib.sha256(), xxhash.xxh64(), 0, file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.sha256.update(view)
        self.xxh64.update(view)
        self.size += len(view)
        written = 0
        while written < len(view):  # a raw file may take less than it is given, as at the end of the disk
            written += self._file.write(view[written:])
        return written


def _listdir(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _try_lock(folder: Path) -> Any:
    import filelock

    lock = filelock.FileLock(folder / "writer.lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return None
    return lock


def _sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
