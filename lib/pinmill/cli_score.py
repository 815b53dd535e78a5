"""The command that scores a table: a run of the job `score`."""

import html
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pinmill.cli_runs import run_plan
from pinmill.errors import ParameterError, SourceNotFoundError
from pinmill.project import Project, open_project
from pinmill.terminal import Workflow, printable

app = typer.Typer()


@app.command()
def score(
    workflow: Workflow,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A table: CSV, TSV, JSON lines or Parquet.")],
    target: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The file to write, in the format of its suffix.")],
    url: Annotated[str, typer.Option(help="A service that scores, with the token in PINMILL_TOKEN.")] = "",
) -> None:
    """Score every row of a table with the champion, and write them all to another file.

    When it is ended before its end, the same command goes on behind the last batch that was scored.

    Example: pinmill score docstrings new.csv scored.parquet
    """
    from pinmill.plan import make_plan
    from pinmill.runs import EXIT_CODES
    from pinmill.stream import find_format

    if "@" in url or "?" in url:
        raise ParameterError(
            "--url holds more than an address: give the token as PINMILL_TOKEN, which is kept nowhere."
        )
    if not source.is_file():
        raise SourceNotFoundError(f"{source} is not there: a CSV, TSV, JSON lines or Parquet file was expected.")
    find_format(source), find_format(target)
    project = open_project()
    given = {"input": project.relative(source.resolve()), "output": project.relative(target.resolve()), "url": url}
    assignments = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items()]
    record = run_plan(project, make_plan(project, workflow, job="score", assignments=assignments))
    if told := tell_scores(project, record):
        print(f"  scores    {told}")
    raise typer.Exit(EXIT_CODES[record.status])


def tell_scores(project: Project, record: Any) -> str:
    """What the page of a run says first, as plain text; empty when it did not get there."""
    from pinmill.page import read_page

    executed = next((stage.executed for stage in record.stages if stage.status == "ran"), "")
    page = read_page(project.root / executed, "") if executed else None
    return printable(html.unescape(page.lead)) if page else ""
