"""Where the pages of a workflow stand: each run's own, and the one with the stable name that tells of the champion."""

import os
import shutil
from pathlib import Path

from pinmill.project import Project
from pinmill.runs import RunRecord, read_records

OVERRIDDEN = "The gate rejected this model; it was promoted by hand. See: pinmill champion --history"


def run_page(project: Project, workflow: str, run: str, page: str) -> Path:
    """The page as a run left it, champion or rejected."""
    return project.pages_folder(workflow) / run / f"{page}.html"


def stable_page(project: Project, workflow: str, page: str) -> Path:
    """The page of the champion, under the name that people bookmark."""
    return project.pages_folder(workflow) / f"{page}.html"


def publish_page(source: Path, target: Path) -> None:
    """Put a copy of a page in place of another; a reader sees the old or the new one, whole."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, temporary)
    temporary.replace(target)


def find_record(project: Project, workflow: str, version: str) -> RunRecord | None:
    """The newest run that left a page for a model version."""
    records = read_records(project.runs_folder(workflow))
    return next((r for r in records if r.candidate == version and r.page and (project.root / r.page).is_file()), None)


def publish_champion(project: Project, workflow: str, version: str) -> Path | None:
    """Give the page of a model version, by now the champion, the stable name.

    Returns where it stands. None when no run left a page for it: the stable page is then removed, since it would
    tell of another model.
    """
    record = find_record(project, workflow, version)
    if record is None:
        for old in project.pages_folder(workflow).glob("*.html"):
            old.unlink()
        return None
    source = project.root / record.page
    target = stable_page(project, workflow, source.stem)
    stage = record.stage(source.stem)
    if record.status == "rejected" and stage:  # the page of that run says that it is not the champion
        from pinmill.report import render_page

        subject = str(record.parameters.get("title") or workflow)
        render_page(project.root / stage.executed, target, subject=subject, status_banner=OVERRIDDEN)
    else:
        publish_page(source, target)
    return target
