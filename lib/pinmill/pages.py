"""Where the pages of a workflow stand: each run's own, and the one with the stable name that tells of the champion."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pinmill.project import Project
from pinmill.runs import RunRecord, read_records, write_whole
from pinmill.secret import scrub

if TYPE_CHECKING:
    from pinmill.runner import Work

OVERRIDDEN = "The gate rejected this model; it was promoted by hand. See: pinmill champion --history"
REJECTED = "This model was rejected by the gate and is not the champion."


def page_path(project: Project, workflow: str, page: str, *, run: str = "") -> Path:
    """Where a page stands as a run left it; without a run the champion's, under the name that people bookmark."""
    return project.pages_folder(workflow) / run / f"{page}.html"


def render(work: "Work", record: RunRecord, status: str) -> RunRecord:
    """The record with its page, rendered unless it stands already; a failed render is a warning, never a failure."""
    stage = next((stage for stage in work.plan.stages if stage.page), None)
    done = record.stage(stage.name) if stage else None
    if stage is None or done is None:
        return record
    page = page_path(work.project, work.plan.workflow, stage.page, run=done.run)
    try:
        if done.status == "ran" or not page.is_file():
            from pinmill.report import render_page

            banner = "" if status == "succeeded" else REJECTED
            render_page(work.project.root / done.executed, page, subject=work.plan.title, status_banner=banner)
    except Exception as error:  # a defect of the page, too, must not cost the model its place
        said = scrub(f"the page was not rendered: {error or type(error).__name__}", work.hidden)
        return replace(record, warnings=(*record.warnings, said))
    return replace(record, page=work.project.relative(page))


def publish(project: Project, record: RunRecord) -> RunRecord:
    """Give the run's page the stable name; when that fails the record gets a warning, and the champion stays moved."""
    page = project.root / record.page
    try:
        write_whole(page_path(project, record.workflow, page.stem), page.read_bytes())
    except OSError as error:
        return replace(record, warnings=(*record.warnings, f"the champion's page was not replaced: {error}"))
    return record


def publish_champion(project: Project, workflow: str, version: str) -> Path | None:
    """Give the newest page of a model version, by now the champion, the stable name.

    Returns where it stands. None when no run left a page for it: the stable page is then removed, since it would
    tell of another model.
    """
    with_page = (r for r in read_records(project.runs_folder(workflow)) if r.page and (project.root / r.page).is_file())
    record = next((record for record in with_page if record.candidate == version), None)
    if record is None:
        for old in project.pages_folder(workflow).glob("*.html"):
            old.unlink()
        return None
    source = project.root / record.page
    target = page_path(project, workflow, source.stem)
    stage = record.stage(source.stem)
    if record.status == "rejected" and stage:  # the page of that run says that it is not the champion
        from pinmill.report import render_page

        subject = str(record.parameters.get("title") or workflow)
        render_page(project.root / stage.executed, target, subject=subject, status_banner=OVERRIDDEN)
    else:
        write_whole(target, source.read_bytes())
    return target
