"""The pages that a run leaves: under its id those of that run, under a name that stays those of the champion."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pinmill.champion import Champion, read_champion
from pinmill.errors import RunError
from pinmill.project import Project
from pinmill.runs import FINISHED, RunRecord, last_finished, list_runs, read_record, read_records

if TYPE_CHECKING:
    from pinmill.page import Page
    from pinmill.report import Engine

REJECTED = "This model was rejected by the gate and is not the champion."
OVERRIDDEN = "The gate rejected this model; it was promoted by hand. See: pinmill champion --history"
BY_HAND = "promoted by hand"


def page_path(project: Project, workflow: str, page: str, *, run: str = "") -> Path:
    """Where a page stands as a run left it; without a run the champion's, under the name that people bookmark."""
    return project.pages_folder(workflow) / run / f"{page}.html"


def tell_outcome(status: str, *, move: bool, is_champion: bool) -> str:
    """What became of a run's model, for the end of a sentence. Pure."""
    if status == "rejected":
        return "rejected by the gate"
    return "promoted" if move else "it is the champion" if is_champion else "not promoted, as a rollback left it"


def read_pages(project: Project, record: RunRecord, *, banner: str = "", outcome: str = "") -> "list[Page]":
    """The pages of a run, in the order of its stages, each with links to the others. Raises ReportError."""
    from pinmill.page import read_page

    subject, folder = str(record.parameters.get("title") or record.workflow), f"{record.workflow}/{record.run}"
    done = [project.root / stage.executed for stage in record.stages if stage.status in ("ran", "reused")]
    around = {"subject": subject, "banner": banner, "outcome": outcome}
    pages = [page for path in done if (page := read_page(path, folder, **around))]
    links = tuple((page.title, f"{page.name.rpartition('/')[2]}.html") for page in pages)
    return [replace(page, links=links) for page in pages]


def run_pages(project: Project, record: RunRecord) -> "list[Page]":
    """The pages of a finished run, under its id."""
    banner = REJECTED if record.status == "rejected" else ""
    return read_pages(project, record, banner=banner, outcome=record.outcome)


def name_stable(pages: "Sequence[Page]", workflow: str) -> "list[Page]":
    """The same pages under the names that people bookmark."""
    return [replace(page, name=f"{workflow}/{page.name.rpartition('/')[2]}") for page in pages]


def champion_pages(project: Project, workflow: str, champion: Champion | None) -> "list[Page]":
    """The champion's pages from the newest run that had it as its candidate; none when that run is gone."""
    runs = read_records(project.runs_folder(workflow)) if champion else ()
    of_it = (r for r in runs if r.status in FINISHED and champion.version in (r.candidate, made(r, "model")))
    record = next((record for record in of_it if has_notebooks(project, record)), None)
    if record is None:
        return []
    by_hand = record.champion_after != champion.version
    around = {"banner": OVERRIDDEN} if record.status == "rejected" else {}
    return name_stable(read_pages(project, record, outcome=BY_HAND if by_hand else record.outcome, **around), workflow)


def made(record: RunRecord, kind: str) -> str:
    """The version of a pin that a run made or reused; empty when there is none."""
    return (record.output(kind) or {"version": ""})["version"]


def has_notebooks(project: Project, record: RunRecord) -> bool:
    """Whether every notebook that the run executed or reused is still there."""
    return bool(record.stages) and all((project.root / stage.executed).is_file() for stage in record.stages)


def publish_champion(project: Project, workflow: str) -> str:
    """Show the new champion under the names that stay, and in the index; what went wrong with that, in words.

    When no run left its notebooks, the pages of the former champion are removed: they would tell of another model.
    """
    from pinmill.report import choose_engine, render_pages, update_index, write_pages

    try:
        engine = choose_engine(project)
        pages = champion_pages(project, workflow, read_champion(project.board, workflow))
        written = write_pages(project, render_pages(project, pages, engine))
        for old in {*project.pages_folder(workflow).glob("*.html")} - {*written}:
            old.unlink()
        update_index(project, engine)
    except Exception as error:  # the champion has moved: a page, whatever is wrong with it, must not deny it
        return f"the pages were not rendered: {error or type(error).__name__}"
    return ""


def find_record(project: Project, workflow: str, run: str) -> RunRecord:
    """The run whose id begins or ends with `run`, or the newest finished one for an empty text. Raises RunError."""
    folder = project.runs_folder(workflow)
    if not run:
        found = last_finished(folder, "")
        if found is None:
            raise RunError(f"{workflow} has no finished run yet. Start one with: pinmill run {workflow}")
        return found
    fitting = [name for name in list_runs(folder) if name.startswith(run) or name.endswith(run)]
    if len(fitting) != 1:
        raise RunError(f"{len(fitting)} runs of {workflow} begin or end with {run!r}. See: pinmill runs {workflow}")
    return read_record(folder, fitting[0])


def report(project: Project, workflows: Sequence[str], engine: "Engine", *, run: str = "") -> list[Path]:
    """Render the pages of a run (default: the last finished), of the champion, and the index; their paths."""
    from pinmill.report import render_pages, update_index, write_pages

    pages = []
    for workflow in workflows:
        pages += run_pages(project, find_record(project, workflow, run))
        pages += champion_pages(project, workflow, read_champion(project.board, workflow))
    written = write_pages(project, render_pages(project, pages, engine))
    return [*written, update_index(project, engine)]
