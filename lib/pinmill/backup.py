"""A backup: board, store and runs of a project in one file, consistent while everything goes on.

What is read first may be named by what is read later, never the other way round: records and results of runs, the
store, the list of all versions, then notebooks and pins. So whatever a call or a champion's decision names is in it,
and a run that was at work is as if it had been interrupted there.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import time
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import Timeout

from pinmill import __version__
from pinmill.board import Board
from pinmill.errors import BackupError, IntegrityError, LockedError, PinNotFoundError
from pinmill.lineage import hash_file
from pinmill.pin import parse_metadata
from pinmill.project import Project
from pinmill.report import hold
from pinmill.runs import write_json
from pinmill.storage import DATA_TXT

FORMAT = 1
MANIFEST, STORE, PINS = "manifest.json", "store.sqlite", "pins"  # members of the archive
STATE = ("incidents", "schedule")  # folders of outputs/ that a project may have before a restore: then they stay
FOLDERS = ("runs", *STATE)
LEVEL = 1  # of gzip: 6 took half as much time again for a file that was 2 % smaller, none made it 43 % larger
PATIENCE = 60.0  # s in which the board must stand still for the milliseconds of one listing


class Archive:
    """A tar file that is written from front to back; it remembers what it holds."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar, self.members = tar, dict[str, dict[str, Any]]()

    def add(self, name: str, content: bytes | Path) -> None:
        """Append a member: bytes, or a file that nobody writes to."""
        is_file = isinstance(content, Path)
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = content.stat().st_size if is_file else len(content), 0o600
        sha256 = hash_file(content) if is_file else hashlib.sha256(content).hexdigest()
        with content.open("rb") if is_file else io.BytesIO(content) as data:
            self._tar.addfile(entry, data)
        self.members[name] = {"sha256": sha256, "size": entry.size}


def make_backup(project: Project, file: Path, *, force: bool, now: datetime) -> dict[str, Any]:
    """Write a backup, whole or not at all, and note it in outputs/backup.json; its manifest without the members.

    Raises BackupError where there is such a file, unless `force`; that one stays until the new one is whole.
    """
    file = file.resolve()
    part = file.with_name(f".{file.name}.part")
    with take_turn(project):
        if file.exists() and not force:
            raise BackupError(f"{file} is there already. Give another name, or --force to replace it")
        shutil.rmtree(part, ignore_errors=True)  # of a backup that was killed
        try:
            part.mkdir(mode=0o700)
            whole = part / "backup"
            manifest = write_archive(project, whole, now)
            noted = {"sha256": hash_file(whole), "size": whole.stat().st_size}
            os.replace(whole, file)
        except OSError as error:
            said = f"{error.strerror or error}; nothing of it is there. See to that, then try again"
            raise BackupError(f"could not write the backup {file}: {said}") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        os.sync()
        write_json(project.outputs / "backup.json", {"file": str(file), "when": now.isoformat(), **noted})
    return {name: value for name, value in manifest.items() if name != "members"} | noted


def take_turn(project: Project) -> AbstractContextManager:
    """What is held, from now on, while a project is backed up or restored. Raises LockedError while another one is."""
    try:
        return hold(project, "backup").acquire()
    except Timeout:
        raise LockedError("another backup or restore is at work here. Try again when it has ended") from None


def write_archive(project: Project, target: Path, now: datetime) -> dict[str, Any]:
    """Write the archive, the manifest last, through to the disk; the manifest."""
    with open(target, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as raw:
        with (
            gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as zipped,
            tarfile.open(fileobj=zipped, mode="w|", format=tarfile.GNU_FORMAT) as tar,
        ):
            archive = Archive(tar)
            counts, damaged = fill(archive, project, target.with_name(STORE))
            about = {"format": FORMAT, "pinmill": __version__, "created": now.isoformat(), "board": project.board.url}
            store = project.store.where if STORE in archive.members else None
            manifest = {**about, "store": store, "counts": counts, "damaged": damaged, "members": archive.members}
            archive.add(MANIFEST, json.dumps(manifest, indent=1).encode())
        raw.flush()
        os.fsync(raw.fileno())
    return manifest


def fill(archive: Archive, project: Project, snapshot: Path) -> tuple[dict[str, int], list[str]]:
    """Add all but the manifest, in the order that the module tells; how much of what, and what is damaged."""
    add_files(archive, project.outputs, records=True)
    rows = add_store(archive, project, snapshot)
    keys = list_board(project.board)
    add_files(archive, project.outputs, records=False)
    damaged = [problem for name, version in keys if (problem := add_version(archive, project.board, name, version))]
    packed = [name.split("/") for name in archive.members]
    runs = sum(path[0] == "runs" and path[-1] == "run.json" for path in packed)
    return {"versions": sum(path[-1] == DATA_TXT for path in packed), "runs": runs, **rows}, damaged


def add_files(archive: Archive, outputs: Path, *, records: bool) -> None:
    """Add the records (JSON) of FOLDERS, or all other files; one that is removed meanwhile is left out."""
    for path in (path for folder in FOLDERS for path in sorted((outputs / folder).rglob("*"))):
        is_lasting = path.is_file() and path.name[0] != "." and path.suffix != ".lock"
        if is_lasting and (path.suffix == ".json") == records:
            with suppress(FileNotFoundError):
                archive.add(path.relative_to(outputs).as_posix(), path.read_bytes())


def add_store(archive: Archive, project: Project, snapshot: Path) -> dict[str, int]:
    """Add the store, if there is one; how many rows its tables have."""
    if not project.has_store:
        return {}
    from sqlalchemy import select

    from pinmill.snapshot import take_snapshot
    from pinmill.store import SCHEMA

    if not project.store.read(select(SCHEMA)):
        return {}
    rows = take_snapshot(project.store, snapshot)
    archive.add(STORE, snapshot)
    snapshot.unlink()
    return rows


def list_board(board: Board) -> list[tuple[str, str]]:
    """(name, version) of all that was on the board at one moment, in the order of the commits.

    That is a listing to which the next one, begun after its end, adds nothing: all of that one stood there between.
    """
    end, before = time.monotonic() + PATIENCE, None
    while True:
        found = {(version, name) for name in board.names() for version in board.versions(name)}
        if before is not None and found <= before:
            return [(name, version) for version, name in sorted(found)]
        if time.monotonic() > end:
            raise BackupError(f"{board.url} was written to in each moment of {PATIENCE:g} s. Try when less is going on")
        before = found


def add_version(archive: Archive, board: Board, name: str, version: str) -> str:
    """Add a version, verified; what is wrong with it, for which it is left out. So is one that was pruned meanwhile.

    A prune takes what was made from a version before the version itself, so in the order of commits none loses its
    inputs.
    """
    try:
        metadata = board.read_metadata(name, version)
        pin = parse_metadata(metadata, name, version)
        data = board.read_file(pin)
    except (PinNotFoundError, IntegrityError, FileNotFoundError) as error:
        return str(error) if version in board.versions(name) else ""
    (file,) = pin.files
    archive.add(f"{PINS}/{name}/{version}/{file}", data)
    archive.add(f"{PINS}/{name}/{version}/{DATA_TXT}", metadata)
    return ""
