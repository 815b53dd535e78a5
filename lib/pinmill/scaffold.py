"""A project of one's own, made whole from the installed package: notebooks, params, reports, schedule, lock."""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinmill import __version__
from pinmill.errors import DataError, ParameterError, ProjectError, SourceNotFoundError, did_you_mean

if TYPE_CHECKING:
    from pandas import DataFrame

TEMPLATE = Path(__file__).parent / "template"
SITE = ("reports/README.md", "reports/_quarto.yml", "reports/pinmill.scss", "reports/dark.scss")
FILES = ("README.md", "Makefile", "schedule.cron", "requirements.lock", ".gitignore", ".env.example", *SITE)
DEMO = "docstrings"
PACKED = (".gz", ".zip")
TABULAR = {"notebooks": {"train": "notebooks/02-train-tabular.ipynb"}}
LONGEST = 48  # characters of a workflow's name, see pinmill.params.WORKFLOW


@dataclass(frozen=True)
class Table:
    """A file that becomes the source of a workflow: what the file is called in the project, and its params."""

    file: Path
    copy: str  # relative to the project's root
    rows: int
    params: Mapping[str, Any]
    left_out: Mapping[str, str]  # column -> kind


def name_workflow(stem: str) -> str:
    """The name of a workflow for a file: 'Tickets 2026 (new)' becomes 'tickets-2026-new'. Raises ParameterError."""
    name = re.sub(r"[^a-z0-9_]+", "-", stem.lower()).strip("-_")[:LONGEST].rstrip("-_")
    if not name:
        raise ParameterError(f"no workflow can be named after {stem!r}: rename the file, with letters a-z or digits")
    return name


def read_table(file: Path, label: str) -> Table:
    """A table and the params that fit it. Raises SourceError, ParameterError for the label, DataError for the table."""
    from pinmill.table import load_table

    if not file.is_file():
        raise SourceNotFoundError(f"{file} is not there: a CSV, TSV, Parquet or JSON lines file was expected")
    frame = load_table(file.read_bytes(), file.name, str(file))
    if label not in frame.columns:
        columns = list(map(str, frame.columns))
        guess = did_you_mean(label, columns)
        raise ParameterError(f"{file} has no column {label!r}.{guess} Its columns are: {', '.join(columns)}")
    inner = file.stem if file.suffix.lower() in PACKED else file.name
    workflow = name_workflow(Path(inner).stem)
    copy = f"data/{workflow}{file.name.removeprefix(Path(inner).stem).lower()}"
    params, left_out = choose_params(frame, label=label, workflow=workflow, source=copy)
    return Table(file, copy, len(frame), params, left_out)


def choose_params(
    frame: "DataFrame", *, label: str, workflow: str, source: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Params for a table, and the columns that are left out with their kind.

    Texts alone are trained on by 02-train, anything else by 02-train-tabular. Raises DataError with all violations.
    """
    from pinmill.columns import USED, find_kinds, read_dates
    from pinmill.table import check_table, is_missing

    inputs = [name for name in frame.columns if name != label]
    kinds = find_kinds(read_dates(frame, inputs), inputs)
    text = [name for name in inputs if kinds[name] == "text"]
    others = [name for name in inputs if kinds[name] in USED and name not in text]
    left_out = {name: kind for name, kind in kinds.items() if kind not in USED}
    if not text and not others:
        raise DataError(f"no column beside {label!r} says anything: {', '.join(map(str, frame.columns))}")
    drop = bool(is_missing(frame[label]).any())
    check_table(frame, text=text, features=others, label=label, drop_unlabelled=drop)
    params = {"workflow": workflow, "title": workflow.replace("-", " ").replace("_", " ").capitalize()}
    params |= {"source": source, "label": label}
    params |= {"text": text} if text else {}
    params |= {"features": others} if text and others else {}  # without texts: all columns that say anything
    params |= {"drop_unlabelled": True} if drop else {}
    return params | ({"run": TABULAR} if others else {}), left_out


def make_project(target: Path, table: Table | None) -> str:
    """Make a project in `target`, whole or not at all, and return its workflow's name; without a table, the demo.

    Raises ProjectError if something is there already.
    """
    import yaml

    target = target.resolve()
    if target == Path.cwd() or target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise ProjectError(f"{target} is not a new or empty folder. Name another, beside your files: pinmill new NAME")
    workflow, title = (table.params["workflow"], table.params["title"]) if table else (DEMO, "Docstrings")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        root = Path(folder) / "project"
        shutil.copytree(TEMPLATE / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".*"))
        for name in ("params", "reports", "data") if table else ("params", "reports"):
            (root / name).mkdir()
        for name in FILES:
            text = (TEMPLATE / name.lstrip(".")).read_text(encoding="utf-8").replace("{workflow}", workflow)
            (root / name).write_text(text.replace("{version}", __version__).replace("{title}", title), encoding="utf-8")
        params = (TEMPLATE / f"{DEMO}.yaml").read_text(encoding="utf-8")
        if table:
            shutil.copyfile(table.file, root / table.copy)
            text = yaml.safe_dump(dict(table.params), sort_keys=False, allow_unicode=True, default_flow_style=None)
            params = f"# Every parameter and what it means: pinmill params {workflow}\n{text}"
        (root / "params" / f"{workflow}.yaml").write_text(params, encoding="utf-8")
        os.rename(root, target)
    return workflow
