"""Pages are put in place whole or not at all, by the engine that was asked for, also when many render at once."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from nbformat import v4
from pinmill import report
from pinmill.errors import ParameterError, ReportError
from pinmill.page import Page
from pinmill.project import Project
from pinmill.report import Engine, Rendered, choose_engine, render_pages, write_pages

if TYPE_CHECKING:
    from conftest import Workplace

ROOT = Path(__file__).resolve().parent.parent
NBCONVERT = Engine(None, "nbconvert")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, {})


def make_page(name: str, *outputs: dict[str, str]) -> Page:
    cell = v4.new_code_cell("", outputs=[v4.new_output("display_data", data=data) for data in outputs])
    return Page(name, v4.new_notebook(cells=[cell]), title=f"Title of {name}")


def stands(project: Project) -> dict[str, str]:
    """All that stands below reports/_pages, temporary files too."""
    files = (path for path in project.pages.rglob("*") if path.is_file())
    return {str(path.relative_to(project.pages)): path.read_text() for path in files}


@pytest.mark.parametrize(
    ("there", "wanted", "setting", "told"),
    [
        (True, "", "", "Quarto"),
        (True, "auto", "nbconvert", "Quarto"),
        (True, "", "nbconvert", "nbconvert"),
        (True, "nbconvert", "quarto", "nbconvert"),
        (True, "quarto", "", "Quarto"),
        (False, "", "", "nbconvert, as Quarto is not found"),
        (False, "nbconvert", "", "nbconvert"),
    ],
)
def test_the_engine_is_quarto_where_it_is_found_unless_another_is_asked_for(tmp_path, there, wanted, setting, told):
    program = tmp_path / "quarto"
    if there:
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    engine = choose_engine(Project(tmp_path, {"PATH": str(tmp_path), "PINMILL_REPORT": setting}), wanted)
    assert (engine.told, engine.program) == (told, program if told == "Quarto" else None)


def test_an_engine_that_is_not_there_is_an_error_with_the_line_that_installs_it(project):
    with pytest.raises(ReportError, match=r"Quarto is not found .* pip install 'pinmill\[quarto\]'"):
        choose_engine(project, "quarto")
    with pytest.raises(ParameterError, match=r"no engine 'word'.*auto, quarto, nbconvert were expected"):
        choose_engine(project, "word")


def test_pages_are_written_below_the_folder_of_pages_and_nothing_else_is_left(project):
    written = write_pages(project, Rendered({"index": b"i", "w/r/data": b"d"}))
    assert written == ([project.pages / "index.html", project.pages / "w/r/data.html"], [])
    assert stands(project) == {"index.html": "i", "w/r/data.html": "d"}


def test_a_reader_keeps_the_page_that_he_opened(project):
    write_pages(project, Rendered({"index": b"old"}))
    with (project.pages / "index.html").open() as opened:
        write_pages(project, Rendered({"index": b"new"}))
        assert (opened.read(), stands(project)) == ("old", {"index.html": "new"})


def test_pages_that_cannot_be_written_are_all_named_and_the_others_are_there(project):
    for blocked in ("a", "b"):
        (project.pages / f"{blocked}.html").mkdir(parents=True)
    written, problems = write_pages(project, Rendered({"a": b"a", "b": b"b", "c": b"c"}, ("d: is missing",)))
    assert written == [project.pages / "c.html"]
    assert problems == ["d: is missing"] + [
        f"the page reports/_pages/{name}.html cannot be written: Is a directory" for name in ("a", "b")
    ]
    assert stands(project) == {"c.html": "c"}


def test_a_full_disk_changes_no_page_and_leaves_nothing_behind(tmp_path, small_disk):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/_pages").symlink_to(small_disk)
    project = Project(tmp_path, {})
    write_pages(project, Rendered({"a": b"old", "b": b"old"}))
    written, problems = write_pages(project, Rendered({"a": b"new", "b": b"x" * 3_000_000}))
    assert (written, problems) == (
        [], ["nothing can be written to reports/_pages: No space left on device. Look at the disk."],
    )  # fmt: skip
    assert stands(project) == {"a.html": "old", "b.html": "old"}


def test_a_page_that_is_too_large_or_defective_is_told_and_costs_no_other(project, monkeypatch):
    write_pages(project, render_pages(project, [make_page("w/data")], NBCONVERT))
    old = stands(project)
    monkeypatch.setattr(report, "MAX_BYTES", 100_000)
    pages = [
        make_page("w/data", {"image/svg+xml": "<svg>" + " " * 120_000 + "</svg>"}),
        make_page("w/bad", {"image/png": ""}),
        make_page("w/other"),
    ]
    pages[1].notebook.cells[0].outputs[0].data = {"image/png": 7}
    _, (bad, large) = write_pages(project, render_pages(project, pages, NBCONVERT))
    assert bad.startswith("w/bad: ")
    assert large.startswith("the page w/data would have 0.2 MB, more than ")
    assert large.endswith("draw fewer points in its figures, or save them as PNG")
    assert stands(project)["w/data.html"] == old["w/data.html"]
    assert "Title of w/other" in stands(project)["w/other.html"]


def entry(href: str, text: str) -> dict[str, str]:
    return {"objectID": href, "href": href, "title": "", "section": "", "text": text}


def test_the_search_index_keeps_what_other_workflows_say_and_forgets_pages_that_are_gone(project):
    first = [entry("a/data.html#one", "old"), entry("a/data.html#two", "old"), entry("b/data.html", "b")]
    others = [entry("gone.html", "g"), entry("a/run/data.html", "of a run, which may hold no longer")]
    rendered = {"a/data": b"", "b/data": b"", "a/run/data": b"", "search.json": json.dumps([*first, *others]).encode()}
    write_pages(project, Rendered(rendered))
    again = [entry("a/data.html#one", "new")]
    write_pages(project, Rendered({"a/data": b"", "search.json": json.dumps(again).encode()}))
    assert json.loads(stands(project)["search.json"]) == [entry("b/data.html", "b"), *again]


def test_a_search_index_that_is_damaged_is_made_anew(project):
    write_pages(project, Rendered({"a": b""}))
    (project.pages / "search.json").write_text("{")
    write_pages(project, Rendered({"a": b"", "search.json": json.dumps([entry("a.html", "a")]).encode()}))
    assert json.loads(stands(project)["search.json"]) == [entry("a.html", "a")]


@pytest.fixture
def with_quarto(small: Workplace, stand_in: Path) -> dict[str, str]:
    """The PATH on which `small` finds Quarto; its website is there."""
    shutil.copytree(ROOT / "reports", small.root / "reports", ignore=shutil.ignore_patterns("_pages"))
    return {"PATH": f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"}


def test_where_quarto_is_found_it_renders_what_a_run_leaves(small: Workplace, with_quarto: dict[str, str]) -> None:
    said = small.pinmill("run", "small", **with_quarto)
    (record,) = small.json("runs", "small")
    assert "  pages     reports/_pages/index.html (rendered by Quarto)\n" in said.stdout
    assert (record["rendered_by"], record["warnings"]) == ("Quarto", [])
    names = ["index.html", "small/model-card.html"]
    own = f"small/{record['run']}/model-card.html"
    assert sorted(stands(Project(small.root, {}))) == [
        "index.html",
        "search.json",
        "small/.champion.json",
        own,
        names[1],
    ]
    index = json.loads((small.root / "reports/_pages/search.json").read_text())
    assert sorted({each["href"].partition("#")[0] for each in index}) == names
    assert "navbar" in (small.root / "reports/_pages" / names[1]).read_text()
    small.pinmill("report", "small", "--engine", "nbconvert", **with_quarto)
    assert "navbar" not in (small.root / "reports/_pages" / names[1]).read_text()


def test_where_quarto_fails_nbconvert_stands_in_unless_quarto_was_asked_for(
    small: Workplace, with_quarto: dict[str, str]
) -> None:
    small.pinmill("run", "small", **with_quarto)
    card = small.root / "reports/_pages/small/model-card.html"
    old = card.read_bytes()
    (small.root / "reports/stand-in.scss").write_text("fail here")
    done = small.pinmill("run", "small", "--set", "power=2", **with_quarto, PINMILL_REPORT="quarto")
    record = small.json("runs", "small")[0]
    assert (record["status"], record["champion_after"], record["pages"]) == ("succeeded", record["candidate"], {})
    assert "Quarto ended with exit code 1" in record["warnings"][0]
    assert "the index was not rendered: Quarto ended with exit code 1" in done.stderr
    assert card.read_bytes() == old
    done = small.pinmill("run", "small", "--set", "power=2", **with_quarto)  # nothing changed, but the pages are due
    record = small.json("runs", "small")[0]
    assert (list(record["pages"]), record["warnings"]) == (["model-card"], [])
    by = "nbconvert, as Quarto failed; see: pinmill report --engine quarto (Quarto ended with exit code 1)"
    assert f"(rendered by {by})" in done.stdout
    assert card.read_bytes() != old


def read_pages(folder: Path) -> dict[Path, bytes]:
    """All pages, and temporary files that are left of any, without the minute of the index."""
    files = (path for path in folder.rglob("*") if path.suffix != ".json" and path.is_file())
    return {path: re.sub(rb"as of [^;<]+", b"", path.read_bytes()) for path in files}


def test_eight_at_once_leave_the_same_good_pages_as_one(trained: Workplace) -> None:
    folder = trained.root / "reports/_pages"
    trained.pinmill("report", "tiny", "--engine", "nbconvert")
    alone = read_pages(folder)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: trained.pinmill("report", "tiny", "--engine", "nbconvert"), range(8)))
    assert read_pages(folder) == alone
    assert len(alone) == 9  # four of the run, four of the champion, the index


def test_a_render_killed_in_the_middle_leaves_the_old_pages_whole(trained: Workplace) -> None:
    folder = trained.root / "reports/_pages"
    old = read_pages(folder)
    (trained.root / "site").mkdir()
    (trained.root / "site/sitecustomize.py").write_text("""
import os, pathlib, signal, sys
fsync = os.fsync
def wait(number):
    path = pathlib.Path(os.readlink(f"/proc/self/fd/{number}"))
    if "model-card.html" in path.name:
        os.ftruncate(number, path.stat().st_size // 2)
        print("HALF WRITTEN", file=sys.stderr, flush=True)
        signal.pause()
    fsync(number)
os.fsync = wait
""")
    path = os.pathsep.join([str(trained.root / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = trained.start("report", "tiny", "--engine", "nbconvert", PYTHONPATH=path)
    try:
        witness = next((line for line in process.stderr if "HALF WRITTEN" in line), "")  # none when it ended before
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    assert witness, "it was not killed in the middle"
    now = read_pages(folder)
    assert {path: page for path, page in now.items() if not path.name.startswith(".")} == old
    trained.pinmill("report", "tiny", "--engine", "nbconvert")
    assert {path: page for path, page in read_pages(folder).items() if path in old} == old
