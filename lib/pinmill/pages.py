"""The pages that a run leaves: under its id its own; under names that stay those of the champion, and of other jobs."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pinmill.champion import Champion, read_champion
from pinmill.errors import ParameterError, RunError
from pinmill.project import Project
from pinmill.runs import FINISHED, RunRecord, last_finished, list_runs, read_record, read_records, write_json
from pinmill.version import match_short

if TYPE_CHECKING:
    from pinmill.page import Page
    from pinmill.report import Engine, Rendered

PROMOTED = "promoted"
REJECTED = "rejected by the gate"
KEPT = "rejected by the gate, yet the champion"
BANNERS = {
    REJECTED: "This model was rejected by the gate and is not the champion.",
    KEPT: "The gate rejected this model, yet it is the champion. See: pinmill champion --history",
}
SHOWN = ".champion.json"  # beside the pages under names that stay: the version that they tell of


@dataclass
class Reported:
    """What a rendering came to: pages in place, what is wrong with those that are missing, and what made them."""

    paths: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    by: str = ""


def page_path(project: Project, workflow: str, page: str, *, run: str = "") -> Path:
    """Where a page stands as a run left it; without a run the champion's, under the name that people bookmark."""
    return project.pages_folder(workflow) / run / f"{page}.html"


def tell_outcome(status: str, *, move: bool, is_champion: bool) -> str:
    """What became of a run's model, for the end of a sentence. Pure."""
    if status == "rejected":
        return KEPT if is_champion else REJECTED
    return PROMOTED if move else "it is the champion" if is_champion else "not promoted, as a rollback left it"


def read_pages(project: Project, record: RunRecord, *, outcome: str) -> "tuple[list[Page], list[str]]":
    """The pages of a run under its id, in the order of its stages, and what is wrong with those that are missing."""
    from pinmill.page import read_page

    subject, folder = str(record.parameters.get("title") or record.workflow), f"{record.workflow}/{record.run}"
    around = {"subject": subject, "banner": BANNERS.get(outcome, "")}
    pages, problems = [], []
    for stage in record.stages:
        try:
            if stage.status in ("ran", "reused"):
                pages.append(read_page(project.root / stage.executed, folder, outcome=outcome, **around))
        except Exception as error:  # a defect in one page must not cost the others
            problems.append(f"{stage.notebook}: {error or type(error).__name__}")
    return [page for page in pages if page], problems


def name_stable(pages: "Sequence[Page]", workflow: str) -> "list[Page]":
    """The same pages under the names that people bookmark."""
    return [replace(page, name=f"{workflow}/{page.name.rpartition('/')[2]}") for page in pages]


def link(pages: "Sequence[Page]") -> "list[Page]":
    """Each page with links to all that stand in its folder."""
    folders = [page.name.rpartition("/")[0] for page in pages]
    links = {f: tuple((p.title, p.file) for p, own in zip(pages, folders, strict=True) if own == f) for f in folders}
    return [replace(page, links=links[folder]) for page, folder in zip(pages, folders, strict=True)]


def render_linked(project: Project, pages: "Sequence[Page]", engine: "Engine") -> "Rendered":
    """Pages with links to those beside them that can be rendered."""
    from pinmill.report import render_pages

    rendered = render_pages(project, link(pages), engine)
    kept = [page for page in pages if page.name in rendered.pages]
    if not 0 < len(kept) < len(pages):
        return rendered
    again = render_pages(project, link(kept), engine)
    return replace(again, problems=(*rendered.problems, *again.problems))


def is_shown(project: Project, workflow: str, version: str, pages: Iterable[str] = ()) -> bool:
    """Whether the pages under names that stay tell of this model version, and all of them are there.

    Without a version: whether `pages`, of a job that decides on none, are there.
    """
    mark = read_mark(project, workflow) if version else {"version": "", "pages": pages}
    return mark["version"] == version and all(page_path(project, workflow, page).is_file() for page in mark["pages"])


def read_mark(project: Project, workflow: str) -> dict:
    """{version, pages}: the model version that pages under names that stay tell of, and those; empty for none."""
    try:
        return {"version": "", "pages": [], **json.loads((project.pages_folder(workflow) / SHOWN).read_bytes())}
    except (OSError, ValueError, TypeError):
        return {"version": "", "pages": []}


def publish(project: Project, workflow: str, rendered: "Rendered", version: str) -> tuple[list[Path], list[str]]:
    """Put the pages of a champion under the names that stay, unless it was moved meanwhile; as `write_pages`.

    Pages of a former champion that this one has no page for are removed: they would tell of another model. When none
    can be put in place the former ones stay, and the index says of which version they are.
    """
    from pinmill.report import hold, write_pages

    with hold(project, f"{workflow}.pages"):
        champion = read_champion(project.board, workflow)
        if champion is None or champion.version != version:
            return [], [f"the champion of {workflow} was moved meanwhile, so its pages stay as they are"]
        written, problems = write_pages(project, rendered)
        if written or not problems:
            _mark_shown(project, workflow, version, [path.stem for path in written])
    return written, problems


def _mark_shown(project: Project, workflow: str, version: str, pages: list[str]) -> None:
    """Note which version is shown now; remove what another one left."""
    before = read_mark(project, workflow)
    if before["version"] == version:
        pages = sorted({*pages, *before["pages"]})
    for old in {*before["pages"]} - {*pages}:
        page_path(project, workflow, old).unlink(missing_ok=True)
    if version or before["version"]:
        write_json(project.pages_folder(workflow) / SHOWN, {"version": version, "pages": pages})


def show_champion(project: Project, workflow: str, engine: "Engine") -> Reported:
    """Render and publish the champion's pages from the newest run that had it as its candidate."""
    champion = read_champion(project.board, workflow)
    record = find_run_of(project, workflow, champion) if champion else None
    if champion is None or record is None:
        _mark_shown(project, workflow, "", [])
        gone = f"no run of {workflow} is left to show its champion" if champion else ""
        return Reported(problems=[gone] if gone else [])
    moved = record.outcome if record.champion_after == champion.version else "promoted by hand"
    pages, problems = read_pages(project, record, outcome=KEPT if record.status == "rejected" else moved)
    rendered = render_linked(project, name_stable(pages, workflow), engine)
    rendered = replace(rendered, problems=(*problems, *rendered.problems))
    return Reported(*publish(project, workflow, rendered, champion.version), rendered.by)


def show_others(project: Project, workflow: str, engine: "Engine") -> Reported:
    """Render and put in place the pages of jobs that decide on no model, from the newest run of each that succeeded."""
    from pinmill.report import write_pages

    newest: dict[str, RunRecord] = {}
    for record in read_records(project.runs_folder(workflow)):
        if record.status == "succeeded" and not record.candidate:
            newest.setdefault(record.job, record)
    found = Reported()
    for record in newest.values():
        pages, problems = read_pages(project, record, outcome=record.outcome)
        paths, more = write_pages(project, render_linked(project, name_stable(pages, workflow), engine))
        found.paths, found.problems = [*found.paths, *paths], [*found.problems, *problems, *more]
    return found


def find_run_of(project: Project, workflow: str, champion: Champion) -> RunRecord | None:
    """The newest finished run that had or made this model version, and whose executed notebooks are there."""
    for record in read_records(project.runs_folder(workflow)):
        made = (record.output("model") or {}).get("version")
        if record.status in FINISHED and champion.version in (record.candidate, made):
            paths = [project.root / stage.executed for stage in record.stages]
            if paths and any(path.is_file() for path in paths):
                return record
    return None


def publish_champion(project: Project, workflow: str) -> list[str]:
    """Show the new champion under the names that stay, and in the index; what is wrong with what is missing."""
    from pinmill.report import choose_engine, update_index

    problems = []
    for show in (
        lambda engine: show_champion(project, workflow, engine).problems,
        lambda e: update_index(project, e)[1],
    ):
        try:
            problems += show(choose_engine(project))
        except Exception as error:  # the champion has moved: a page, whatever is wrong with it, must not deny it
            problems.append(str(error) or type(error).__name__)
    return problems


def find_record(project: Project, workflow: str, run: str) -> RunRecord:
    """The run whose id begins or ends with `run`, or the newest finished one for an empty text.

    Raises RunError when none has finished, and ParameterError when `run` is not one of them.
    """
    folder = project.runs_folder(workflow)
    if not run:
        found = last_finished(folder, "")
        if found is None:
            raise RunError(f"{workflow} has no finished run yet. Start one with: pinmill run {workflow}")
        return found
    fitting = match_short(run, list_runs(folder))
    if len(fitting) != 1:
        raise ParameterError(
            f"{len(fitting)} runs of {workflow} begin or end with {run!r}. See: pinmill runs {workflow}"
        )
    return read_record(folder, fitting[0])


def report(project: Project, workflows: Sequence[str], engine: "Engine", *, run: str = "") -> Reported:
    """Render the pages of a run (default: the last finished), those under names that stay, and the index."""
    from pinmill.report import update_index, write_pages

    found = Reported(by=engine.told)
    for workflow in workflows:
        record = find_record(project, workflow, run)
        for owner in {Path(page).parent.name for page in record.pages.values()} - {record.run}:
            record = read_record(project.runs_folder(workflow), owner)  # nothing ran: its pages are another run's
        pages, problems = read_pages(project, record, outcome=record.outcome)
        rendered = render_linked(project, pages, engine)
        stable = [show(project, workflow, engine) for show in (show_champion, show_others)]
        parts = [([], problems), write_pages(project, rendered), *((each.paths, each.problems) for each in stable)]
        found.paths += [path for paths, _ in parts for path in paths]
        found.problems += [problem for _, problems in parts for problem in problems]
        found.by = rendered.by
    paths, problems = update_index(project, engine)
    return replace(found, paths=[*found.paths, *paths], problems=[*found.problems, *problems])
