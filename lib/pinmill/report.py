"""Pages rendered and put in place: by Quarto where it is found, otherwise by nbconvert; each whole or not at all."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from pinmill.errors import PinmillError, ReportError
from pinmill.page import Page
from pinmill.project import Project
from pinmill.runs import write_whole

ENGINES = ("auto", "quarto", "nbconvert")
MAX_BYTES = 5_000_000  # Contract 7: a page can be sent by mail
SEARCH = "search.json"  # Quarto's index of what the pages say
LOCK_SECONDS = 60  # longer than an index takes; the lock of a dead process is free at once


@dataclass(frozen=True)
class Engine:
    """What renders pages: Quarto's program, or nbconvert when that is None; `told` says which, and why."""

    program: Path | None
    told: str


@dataclass(frozen=True)
class Rendered:
    """Pages by their names, not yet in place, and what is wrong with those that are missing."""

    pages: Mapping[str, bytes]
    problems: tuple[str, ...] = ()


def choose_engine(project: Project, wanted: str = "") -> Engine:
    """The engine that is asked for, here or by `PINMILL_REPORT`. Raises ReportError where it is not to be had."""
    from pinmill.quarto import find_quarto

    wanted = wanted or project.settings.get("PINMILL_REPORT") or "auto"
    if wanted not in ENGINES:
        raise ReportError(f"no engine {wanted!r} (--engine, PINMILL_REPORT): {', '.join(ENGINES)} were expected.")
    program = find_quarto(project.settings.get("PATH", "")) if wanted != "nbconvert" else None
    if program:
        return Engine(program, "Quarto")
    install = "pip install 'pinmill[quarto]', or see quarto.org"
    if wanted == "quarto":
        raise ReportError(f"Quarto is not found on PATH or beside this Python. Install it: {install}.")
    return Engine(None, "nbconvert" if wanted == "nbconvert" else "nbconvert, as Quarto is not found")


def render_pages(project: Project, pages: Sequence[Page], engine: Engine) -> Rendered:
    """Each page as one file of HTML. Nothing is put in place; one that fails keeps no other."""
    if not pages:
        return Rendered({})
    if engine.program:
        from pinmill.quarto import render_quarto

        site, settings = project.root / "reports", project.settings
        rendered = render_quarto(pages, program=engine.program, site=site, environ=settings)
        return keep_small(rendered, [])
    from pinmill.webpage import render_webpage

    rendered, problems = {}, []
    for page in pages:
        try:
            rendered[page.name] = render_webpage(page)
        except PinmillError as error:
            problems.append(f"{page.name}: {error}")
    return keep_small(rendered, problems)


def keep_small(rendered: Mapping[str, bytes], problems: Sequence[str]) -> Rendered:
    """Without the pages that are too large to be sent."""
    large = {name: len(data) / 1e6 for name, data in rendered.items() if len(data) > MAX_BYTES and name != SEARCH}
    advice = f"more than {MAX_BYTES / 1e6:.0f} MB: draw fewer points in its figures, or save them as PNG"
    said = [f"the page {name} would have {size:.1f} MB, {advice}" for name, size in large.items()]
    return Rendered({name: data for name, data in rendered.items() if name not in large}, (*problems, *said))


def write_pages(project: Project, rendered: Rendered) -> list[Path]:
    """Put pages in place, each whole or not at all; their paths. Raises ReportError for those that cannot be written.

    What a page says under a name is replaced, also in Quarto's search index.
    """
    written, problems = [], list(rendered.problems)
    for name, data in rendered.pages.items():
        target = project.pages / f"{name}.html" if name != SEARCH else project.pages / SEARCH
        try:
            if name == SEARCH:
                with hold(project, "search"):
                    write_whole(target, merge_search(target, data))
            else:
                write_whole(target, data)
                written.append(target)
        except OSError as error:
            problems.append(f"the page {project.relative(target)} cannot be written: {error.strerror or error}")
    if problems:
        raise ReportError("; ".join(problems))
    return written


def merge_search(index: Path, new: bytes) -> bytes:
    """The search index with the entries of `new` in place of those of the same pages, without pages that are gone."""
    added = json.loads(new)
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


def update_index(project: Project, engine: Engine) -> Path:
    """Render the index from how things stand now; the later of two at once waits, and knows more."""
    from pinmill.index import read_index

    with hold(project, "index"):
        return write_pages(project, render_pages(project, [read_index(project)], engine))[0]
