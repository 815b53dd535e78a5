"""Pages rendered and put in place: by Quarto where it is found, otherwise by nbconvert; each whole or not at all."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from pinmill.errors import ParameterError, ReportError
from pinmill.page import Page
from pinmill.project import Project
from pinmill.quarto import SEARCH, find_quarto, render_quarto
from pinmill.runs import stage_file, write_whole

ENGINES = ("auto", "quarto", "nbconvert")
MAX_BYTES = 5_000_000  # Contract 7: a page can be sent by mail
LOCK_SECONDS = 60  # longer than an index takes; the lock of a dead process is free at once


@dataclass(frozen=True)
class Engine:
    """What renders pages: Quarto's program, or nbconvert when that is None; `told` says which, and why.

    Where Quarto was not asked for by name, nbconvert stands in for it when it fails.
    """

    program: Path | None
    told: str
    by_name: bool = False


@dataclass(frozen=True)
class Rendered:
    """Pages by their names, not yet in place; what is wrong with those that are missing; and by what they are made."""

    pages: Mapping[str, bytes]
    problems: tuple[str, ...] = ()
    by: str = ""


def choose_engine(project: Project, wanted: str = "") -> Engine:
    """The engine that is asked for, here or by `PINMILL_REPORT`.

    Raises ParameterError for a word that is none, and ReportError where Quarto is asked for and is not there.
    """
    wanted = wanted or project.settings.get("PINMILL_REPORT") or "auto"
    if wanted not in ENGINES:
        raise ParameterError(f"no engine {wanted!r} (--engine, PINMILL_REPORT): {', '.join(ENGINES)} were expected.")
    program = find_quarto(project.settings.get("PATH", "")) if wanted != "nbconvert" else None
    if program:
        return Engine(program, "Quarto", by_name=wanted == "quarto")
    if wanted == "quarto":
        install = "pip install 'pinmill[quarto]', or see quarto.org"
        raise ReportError(f"Quarto is not found on PATH or beside this Python. Install it: {install}.")
    return Engine(None, "nbconvert" if wanted == "nbconvert" else "nbconvert, as Quarto is not found")


def render_pages(project: Project, pages: Sequence[Page], engine: Engine) -> Rendered:
    """Each page as one file of HTML. Nothing is put in place."""
    if not pages:
        return Rendered({}, by=engine.told)
    told = engine.told
    if engine.program:
        try:
            site, settings = project.root / "reports", project.settings
            return keep_small(render_quarto(pages, program=engine.program, site=site, environ=settings), [], told)
        except ReportError as error:
            if engine.by_name:
                return Rendered({}, (str(error),), told)
            told = f"nbconvert, as Quarto failed; see: pinmill report --engine quarto ({str(error).partition('. ')[0]})"
    from pinmill.webpage import render_webpage

    rendered, problems = {}, []
    for page in pages:
        try:
            rendered[page.name] = render_webpage(page)
        except Exception as error:  # a defect in one page must not cost the others
            problems.append(f"{page.name}: {error or type(error).__name__}")
    return keep_small(rendered, problems, told)


def keep_small(rendered: Mapping[str, bytes], problems: Sequence[str], by: str) -> Rendered:
    """Without the pages that are too large to be sent."""
    large = {name: len(data) / 1e6 for name, data in rendered.items() if len(data) > MAX_BYTES and name != SEARCH}
    advice = f"more than {MAX_BYTES / 1e6:.0f} MB: draw fewer points in its figures, or save them as PNG"
    said = [f"the page {name} would have {size:.1f} MB, {advice}" for name, size in large.items()]
    return Rendered({name: data for name, data in rendered.items() if name not in large}, (*problems, *said), by)


def write_pages(project: Project, rendered: Rendered) -> tuple[list[Path], list[str]]:
    """Put pages in place, each whole or not at all; the paths of those that are there, and what is wrong with others.

    All are on the disk before the first is moved: a full disk changes nothing.
    """
    pages = {project.pages / f"{name}.html": data for name, data in rendered.pages.items() if name != SEARCH}
    written, problems, staged = [], [*rendered.problems], {}
    try:
        for target, data in pages.items():
            staged[target] = stage_file(target, data)
    except OSError as error:
        where = project.relative(project.pages)
        problems.append(f"nothing can be written to {where}: {error.strerror or error}. Look at the disk.")
    for target, temporary in staged.items():
        try:
            if len(staged) == len(pages):
                temporary.replace(target)
                written.append(target)
        except OSError as error:
            problems.append(f"the page {project.relative(target)} cannot be written: {error.strerror or error}")
        finally:
            temporary.unlink(missing_ok=True)
    if written and SEARCH in rendered.pages:
        try:
            with hold(project, "search"):
                index = project.pages / SEARCH
                write_whole(index, merge_search(index, rendered.pages[SEARCH]))
        except (OSError, ValueError, LookupError) as error:  # its lock's timeout is an OSError
            problems.append(f"the search does not know of these pages: {error}")
    return written, problems


def merge_search(index: Path, new: bytes) -> bytes:
    """The search index with the entries of `new` in place of those of the same pages, without pages that are gone.

    Pages under the id of a run are not found: what they say may hold no longer.
    """
    added = [entry for entry in json.loads(new) if page_of(entry).count("/") < 2]
    fresh = {page_of(entry) for entry in added}
    try:
        before = json.loads(index.read_bytes())
    except (OSError, ValueError):
        before = []
    kept = [e for e in before if page_of(e) not in fresh and (index.parent / page_of(e)).is_file()]
    return json.dumps([*kept, *added]).encode()


def page_of(entry: Mapping[str, str]) -> str:
    return entry["href"].partition("#")[0]


def hold(project: Project, what: str) -> FileLock:
    """The lock of something that all workflows share; free at once when its holder dies."""
    folder = project.outputs / "locks"
    os.makedirs(folder, exist_ok=True)
    return FileLock(folder / f"{what}.lock", timeout=LOCK_SECONDS)


def update_index(project: Project, engine: Engine) -> tuple[list[Path], list[str]]:
    """Render the index from how things stand now, as `write_pages` does; the later of two waits, and knows more."""
    from pinmill.index import read_index

    with hold(project, "index"):
        return write_pages(project, render_pages(project, [read_index(project)], engine))
