"""The project a command or notebook works in: its root, its folders, its plain settings."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pinmill.board import Board
from pinmill.errors import ProjectError
from pinmill.source import local_path

if TYPE_CHECKING:
    from pinmill.store import Store

COMMAND = (sys.executable, "-P", "-c", "from pinmill.cli import main; main()")  # pinmill, of this interpreter


def find_root(start: Path, environ: Mapping[str, str]) -> Path:
    """The nearest folder at or above `start` with `params/` and `notebooks/`, or `PINMILL_HOME` when that is set.

    Raises ProjectError when there is none.
    """
    home = environ.get("PINMILL_HOME")
    candidates = [Path(home)] if home else [start, *start.parents]
    for folder in candidates:
        if (folder / "params").is_dir() and (folder / "notebooks").is_dir():
            return folder.resolve()
    where = f"PINMILL_HOME={home}" if home else f"{start} or a folder above it"
    raise ProjectError(
        f"no project at {where}: a folder with params/ and notebooks/ was expected. "
        "Change into the project, or set PINMILL_HOME to it."
    )


def read_settings(root: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Plain settings by name: those of `.env` in the project's root, overridden by the environment."""
    file = root / ".env"
    if not file.is_file():
        return dict(environ)
    from dotenv import dotenv_values

    return {name: value for name, value in dotenv_values(file).items() if value is not None} | dict(environ)


@dataclass(frozen=True)
class Project:
    """Where everything of one project lies. All paths are absolute."""

    root: Path
    settings: Mapping[str, str] = field(repr=False)  # passwords and tokens among them, which a notebook would keep

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    @property
    def outputs(self) -> Path:
        return self.root / "outputs"

    @property
    def pages(self) -> Path:
        return self.root / "reports" / "_pages"

    @property
    def lock_file(self) -> Path:
        return self.root / "requirements.lock"

    @cached_property
    def board(self) -> Board:
        """The board of this project: `PINMILL_BOARD` (a folder or an fsspec URL), by default outputs/pins."""
        url = self.settings.get("PINMILL_BOARD") or "outputs/pins"
        return Board(url if "://" in url else self.root / url)

    @property
    def store_file(self) -> Path | None:
        """The SQLite file of the store; None where `PINMILL_STORE` is the URL of another database."""
        return local_path(self.settings.get("PINMILL_STORE") or "outputs/pinmill.sqlite", self.root)

    @property
    def has_store(self) -> bool:
        """Whether anything can be in the store; telling it does not load SQLAlchemy."""
        return self.store_file is None or self.store_file.is_file()

    @cached_property
    def store(self) -> "Store":
        """The store of this project: `PINMILL_STORE` (an SQLAlchemy URL), by default outputs/pinmill.sqlite."""
        from pinmill.store import Store

        return Store(self.store_file or self.settings["PINMILL_STORE"])

    def params_file(self, workflow: str) -> Path:
        return self.root / "params" / f"{workflow}.yaml"

    def runs_folder(self, workflow: str) -> Path:
        return self.outputs / "runs" / workflow

    def pages_folder(self, workflow: str) -> Path:
        return self.pages / workflow

    def run_lock(self, workflow: str, job: str) -> Path:
        return self.outputs / "locks" / f"{workflow}.{job}.lock"

    def workflows(self) -> list[str]:
        """Names of all workflows, from their params files."""
        return sorted(file.stem for file in (self.root / "params").glob("*.yaml"))

    def relative(self, path: Path) -> str:
        """`path` as a person in the root would type it; the whole path when it lies elsewhere."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


def open_project(start: Path | None = None, environ: Mapping[str, str] | None = None) -> Project:
    """The project around `start` (default: the working directory)."""
    environ = os.environ if environ is None else environ
    root = find_root((start or Path.cwd()).resolve(), environ)
    return Project(root, read_settings(root, environ))
