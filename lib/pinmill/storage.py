"""Where versions are kept: a folder, or an object store that fsspec knows."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from pinmill.version import VERSION

DATA_TXT = "data.txt"  # the metadata of a version, by the name that stock pins looks for

Render = Callable[[], bytes]  # the bytes of `data.txt`; waits until the file is hashed


class Folder:
    """Versions in a local folder: staged beside it, then renamed into it."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        self.where = str(self.root)
        self.staging = self.locks = self.root.with_name(self.root.name + ".staging")

    def names(self) -> list[str]:
        """What stands in the board, sorted."""
        return sorted(os.listdir(self.root)) if self.root.is_dir() else []

    def committed(self, name: str) -> Iterator[str]:
        """The committed versions of a pin, the last first; only as many are looked at as are taken."""
        folder = self.root / name
        listed = sorted(os.listdir(folder), reverse=True) if folder.is_dir() else []
        return (version for version in listed if VERSION.fullmatch(version) and (folder / version / DATA_TXT).is_file())

    def last(self, name: str) -> str | None:
        """The version committed last, however many there are: as its writer noted, if nothing changed since."""
        folder = self.root / name
        with suppress(OSError, ValueError):
            changed, version = self._note(name).read_text().split()
            if changed == str(folder.stat().st_ctime_ns) and (folder / version / DATA_TXT).is_file():
                return version
        return next(self.committed(name), None)

    def read(self, name: str, version: str, file: str) -> bytes:
        """The bytes of one file, unverified; FileNotFoundError if it is not there."""
        return (self.root / name / version / file).read_bytes()

    def commit(self, name: str, version: str, file: str, data: bytes, render: Render, guard: Callable) -> None:
        """Make the version visible, by one rename just after `guard`. The caller holds the lock of the pin.

        `render` returns the metadata; it is called when the file is written.
        """
        staged, pin = self.staging / name, self.root / name
        shutil.rmtree(staged, ignore_errors=True)  # of a writer that died: a living one would hold the lock
        try:
            (staged / version).mkdir(parents=True)
            (staged / version / file).write_bytes(data)
            _sync(staged / version / file)
            (staged / version / DATA_TXT).write_bytes(render())
            for path in (staged / version / DATA_TXT, staged / version, staged):
                _sync(path)
            self.root.mkdir(parents=True, exist_ok=True)
            first = not pin.exists()  # stock pins cannot list the versions of an empty folder: it comes with its first
            source, target = (staged, pin) if first else (staged / version, pin / version)
            self._note(name).unlink(missing_ok=True)  # first, so that no death leaves a note of an older version
            guard()
            os.rename(source, target)
            _sync(target.parent)
            with suppress(OSError):  # without a note the versions are listed
                self._note(name).write_text(f"{pin.stat().st_ctime_ns} {version}")
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def remove(self, name: str, version: str) -> None:
        """Take the version off the board, by one rename, and delete it. The caller holds the lock of the pin."""
        staged = self.staging / name
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        os.rename(self.root / name / version, staged / version)
        _sync(self.root / name)
        shutil.rmtree(staged, ignore_errors=True)

    def _note(self, name: str) -> Path:
        """Where the last writer of a pin notes its version, and when the pin's folder changed then."""
        return self.locks / f"{name}.latest"


class Objects:
    """Versions in an object store: the file first, `data.txt` last; without it a version does not exist.

    Locks are files on this machine: writers of one pin on several machines must not run at the same time.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.where = re.sub(r"//[^/@]*@", "//***@", url)  # a password in a URL is not for error messages
        self.fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        self.root = root.rstrip("/")
        self.locks = Path(tempfile.gettempdir()) / f"pinmill-{os.getuid()}" / re.sub(r"\W+", "-", self.where)

    def names(self) -> list[str]:
        paths = self.fs.ls(self.root, detail=False) if self.fs.isdir(self.root) else []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def committed(self, name: str) -> Iterator[str]:
        """The committed versions of a pin, the last first, by one listing."""
        paths = [path.split("/") for path in self.fs.find(f"{self.root}/{name}")]
        found = [path[-2] for path in paths if path[-1] == DATA_TXT and VERSION.fullmatch(path[-2])]
        return iter(sorted(found, reverse=True))

    def last(self, name: str) -> str | None:
        return next(self.committed(name), None)

    def read(self, name: str, version: str, file: str) -> bytes:
        return self.fs.cat_file(f"{self.root}/{name}/{version}/{file}")

    def commit(self, name: str, version: str, file: str, data: bytes, render: Render, guard: Callable) -> None:
        """Upload the file, call `guard`, and upload `data.txt`, which never replaces one that is there."""
        target, metadata = f"{self.root}/{name}/{version}", render()
        self.fs.makedirs(target, exist_ok=True)
        self.fs.pipe_file(f"{target}/{file}", data)
        guard()
        self.fs.pipe_file(f"{target}/{DATA_TXT}", metadata, mode="create")

    def remove(self, name: str, version: str) -> None:
        """Delete `data.txt`, without which the version does not exist, then the file."""
        self.fs.rm_file(f"{self.root}/{name}/{version}/{DATA_TXT}")
        self.fs.rm(f"{self.root}/{name}/{version}", recursive=True)


def _sync(path: Path) -> None:
    """Make the bytes of a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
