"""Put a backup into a project that is empty: every byte is verified before anything is put in place.

All is laid beside its place first, as `NAME.restoring`; then outputs/restoring.json is written, and each part is moved
by one rename. Killed before that, nothing is in place, and the next restore begins again; killed after it, the next
restore of the same backup goes on.
"""

import gzip
import hashlib
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from pinmill.backup import FOLDERS, FORMAT, MANIFEST, PINS, STATE, STORE, list_board, take_turn
from pinmill.board import Board
from pinmill.errors import BackupError, describe_problems
from pinmill.lineage import hash_file
from pinmill.pin import FILE, NAME
from pinmill.project import Project
from pinmill.runs import read_records, write_json, write_record
from pinmill.version import VERSION

MANIFEST_LIMIT = 2**28  # bytes; 150 for each of a million members
NAME_LIMIT = 4096  # bytes of a member's name
UNREADABLE = (
    tarfile.TarError, OSError, EOFError, zlib.error, ValueError, LookupError, TypeError, AttributeError, RecursionError,
)  # fmt: skip
AT_WORK = "it was at work when the backup was made"
Manifest = Mapping[str, Any]


class Entry(tarfile.TarInfo):
    """The header of a plain file, or of its long name; links, devices, folders, sparse files are refused unread."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:  # where tarfile says that subclasses come in
        is_name = self.type == tarfile.GNUTYPE_LONGNAME and self.size <= NAME_LIMIT
        if not (is_name or self.type == tarfile.REGTYPE) or self.size < 0:
            raise tarfile.ReadError(f"{self.name!r} is no plain file")
        return super()._proc_member(tar)


def restore(project: Project, file: Path) -> dict[str, Any]:
    """Restore board, store and runs from a backup; its manifest without the members.

    Raises BackupError where any of them is not empty, or the backup is not as it was written.
    """
    marker = project.outputs / "restoring.json"
    if not file.is_file():
        raise BackupError(f"there is no file {file}. Name one that pinmill backup has written")
    with take_turn(project):
        manifest = check_backup(file)
        mine = hashlib.sha256(json.dumps(manifest["members"], sort_keys=True).encode()).hexdigest()
        begun = json.loads(marker.read_bytes()) if marker.is_file() else {}
        if begun.get("members", mine) != mine:
            first = begun["file"]
            raise BackupError(f"the restore of {first} was killed. First bring it to its end: pinmill restore {first}")
        try:
            if not begun:
                lay_out(project, file, manifest)
                os.sync()
                write_json(marker, {"file": str(file.absolute()), "members": mine})
            put_in_place(project)
        except OSError as error:
            step = "See to that, then give the same command again"
            raise BackupError(f"could not restore {file}: {error.strerror or error}. {step}") from error
        marker.unlink()
    return {name: value for name, value in manifest.items() if name != "members"}


def read_members(file: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Header and content of each member of a backup, from front to back; the last bytes of the file are read, too."""
    with gzip.open(file) as zipped:
        with tarfile.open(fileobj=zipped, mode="r|", tarinfo=Entry) as tar:
            for member in tar:
                tar.members = []  # or the archive would remember each
                yield member, tar.extractfile(member)
        while rest := zipped.read(2**16):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("something stands behind its end")


def check_backup(file: Path) -> Manifest:
    """The manifest of a backup that is as it was written: one of this format, each member as told and in its place."""
    members, last = dict[str, Any](), b""
    try:
        for member, data in read_members(file):
            if last or member.name in members:
                raise tarfile.ReadError(f"{member.name!r} stands there twice, or behind the manifest")
            if member.name == MANIFEST:
                last = data.read(min(member.size, MANIFEST_LIMIT))
            else:
                digest = hashlib.file_digest(data, "sha256").hexdigest()
                members[member.name] = {"sha256": digest, "size": member.size}
        manifest = json.loads(last or b"{}")
        if manifest.get("format") != FORMAT:
            said = f"its format is {manifest.get('format')!r}; this Pinmill ({FORMAT}) can restore format {FORMAT} only"
            raise BackupError(f"{file} cannot be restored: {said}")
        told = manifest["members"]
        wrong = [name for name in {*members, *told} if not is_allowed(name) or members.get(name) != told.get(name)]
        if wrong:
            raise tarfile.ReadError(f"{len(wrong)} members are not as it tells, e.g. {min(wrong)!r}")
        return manifest
    except UNREADABLE as error:
        said = f"{file} is not a whole backup: {error or type(error).__name__}"
        raise BackupError(f"{said}. Nothing was restored; take another one") from error


def is_allowed(name: str) -> bool:
    """Whether a member has a name that a backup gives, and so a place inside the project."""
    first, *rest = name.split("/")
    if first == PINS and len(rest) == 3:
        return bool(NAME.fullmatch(rest[0]) and VERSION.fullmatch(rest[1]) and FILE.fullmatch(rest[2]))
    is_plain = all(part and part[0] != "." and part.isprintable() for part in rest)
    return name == STORE or (first in FOLDERS and bool(rest) and is_plain)


def find_targets(project: Project) -> dict[str, Path]:
    """Where each part belongs; for one that goes to no file of this machine, a path that nothing has."""
    outputs, url = project.outputs, project.board.url
    board = outputs / "pins.uploaded" if "://" in url else Path(url)
    store = project.store_file or outputs / "store.inserted"
    return {STORE: store, **{folder: outputs / folder for folder in FOLDERS}, PINS: board}


def beside(target: Path) -> Path:
    """Where a part is laid before it is in its place: on the same file system."""
    return target.with_name(f"{target.name}.restoring")


def find_present(project: Project) -> list[str]:
    """What there is already, where a restore wants to put something."""
    from pinmill.snapshot import count_rows, tell_counts

    targets = find_targets(project)
    folders = [target for part, target in targets.items() if part not in STATE and target.is_dir()]
    found = [f"{folder} is not empty" for folder in folders if any(folder.iterdir())]
    if "://" in project.board.url and (names := project.board.names()):
        found.append(f"the board {project.board.url} holds {', '.join(names)}")
    if project.store_file is None:
        with project.store.writing() as connection:
            counts = count_rows(connection)
        return found + [f"the store {project.store.where} has {tell_counts(counts)}"] * any(counts.values())
    store = str(targets[STORE])  # a journal that was left would be taken for that of the new store
    return found + [f"{store + end} is there" for end in ("", "-wal", "-journal") if os.path.exists(store + end)]


def lay_out(project: Project, file: Path, manifest: Manifest) -> None:
    """Lay all members beside their places, each verified again as it stands there; nothing stays of a failure."""
    from pinmill.store import Store

    targets = find_targets(project)
    clear(targets)
    if found := find_present(project):
        step = "A backup is restored into a project without any: a new folder with its params/ and notebooks/"
        raise BackupError(f"{describe_problems(str(project.root), found)}. {step}. Nothing was changed")
    try:
        for member, data in read_members(file):
            name = member.name
            part, _, rest = name.partition("/")
            if name != MANIFEST:
                path = beside(targets[part]) / rest
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as target:
                    shutil.copyfileobj(data, target)
                if hash_file(path) != manifest["members"][name]["sha256"]:
                    raise BackupError(f"{name} of {file} was changed meanwhile. Nothing was restored")
        if beside(targets[STORE]).exists():
            store = Store(beside(targets[STORE]))
            with store.writing():  # which upgrades what an older Pinmill has written, and refuses what a newer one has
                pass
            store.close()
        made = datetime.fromisoformat(manifest["created"])
        for folder in beside(targets["runs"]).glob("*"):
            for record in read_records(folder):
                if not record.ended and record.status in ("running", "interrupted"):
                    write_record(folder, record.end("interrupted", made, AT_WORK))
    except BaseException:
        clear(targets)
        raise


def put_in_place(project: Project) -> None:
    """Move each part that is laid out into its place, the board last: with a champion a service would begin."""
    for part, target in find_targets(project).items():
        staged = beside(target)
        if not staged.exists():
            continue
        if part == STORE and project.store_file is None:
            from pinmill.snapshot import fill_store

            fill_store(project.store, staged)
            staged.unlink()
        elif part == PINS and "://" in project.board.url:
            upload(project.board, staged)
            shutil.rmtree(staged)
        elif part in STATE and target.is_dir():
            shutil.rmtree(staged)
        elif target.is_file():
            raise BackupError(f"{target} was made meanwhile. Move it away, then give the same command again")
        else:
            os.rename(staged, target)


def upload(board: Board, folder: Path) -> None:
    """Commit all versions of a folder to a board, in the order in which they were made; known ones are left."""
    laid = Board(folder)
    for key in list_board(laid):
        pin = laid.pin(*key)
        board.put(pin, laid.read_metadata(*key), laid.read_file(pin))


def clear(targets: Mapping[str, Path]) -> None:
    """Remove what a restore that failed or was killed has laid out."""
    for target in targets.values():
        for path in target.parent.glob(f"{beside(target).name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
