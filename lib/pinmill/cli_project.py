"""Commands about a project: make one, examine it, hand a model of it to others."""

import getpass
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from pinmill.errors import ParameterError
from pinmill.project import open_project
from pinmill.terminal import AsJson, Workflow, print_json
from pinmill.version import now_utc

app = typer.Typer()
export = typer.Typer(help="Hand a model to another system.\n\nExample: pinmill export vetiver docstrings")
app.add_typer(export, name="export")


@app.command()
def new(
    folder: Annotated[Path, typer.Argument(help="The folder to make; it must be new or empty.", show_default=False)],
    table: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Your table: CSV, TSV, Parquet or JSON lines.")
    ] = None,
    label: Annotated[str, typer.Option(help="The column of the table to predict.")] = "",
) -> None:
    """Make a project: notebooks, params, schedule, Makefile and lock file; without a table, the demonstration.

    The table is copied into the project, and params are written that fit it. Made whole or not at all.

    Example: pinmill new churn --from tickets.csv --label left
    """
    from pinmill.scaffold import make_project, read_table

    if bool(table) != bool(label):
        raise ParameterError(
            "a table and the column to predict go together: pinmill new DIR --from FILE --label COLUMN"
        )
    source = read_table(table, label) if table else None
    workflow = make_project(folder, source)
    if source:
        from pinmill.columns import LEFT_OUT

        print(f"{source.rows:,} rows, copied to {folder / source.copy}")
        for column, kind in source.left_out.items():
            print(f"  left out  {column} ({kind}: {LEFT_OUT[kind]})")
    print(f"made {folder}. Next:\n  cd {quote(str(folder))}\n  pinmill run {workflow}\n  make lab")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Examine what a run needs: packages, kernel, Quarto, board, store, params, disk, clock and git.

    Exit code 1 when there is a problem; a warning is none.

    Example: pinmill doctor --json
    """
    from dataclasses import asdict

    from pinmill.doctor import examine

    findings = examine(open_project(), now=now_utc())
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            print(f"{finding.level:8} {finding.check:11} {finding.found}")
            if finding.fix:
                print(f"{'':20} → {finding.fix}")
    raise typer.Exit(1 if any(finding.level == "problem" for finding in findings) else 0)


@export.command()
def vetiver(
    workflow: Workflow,
    version: Annotated[str | None, typer.Argument(help="A model version; default: the champion.")] = None,
) -> None:
    """Write a model as the pin W-vetiver, which vetiver loads and serves.

    That pin is a pickle: who loads it runs whatever code stands in it, so only with a board you trust. Pinmill itself
    never loads it.

    Example: pinmill export vetiver docstrings
    """
    from pinmill.export import export_vetiver

    project = open_project()
    pin = export_vetiver(project, workflow, version, by=getpass.getuser())
    (model,) = pin.lineage["inputs"]
    print(f"{pin.name} {pin.version} on {project.board.url}, from {model['name']} {model['version']}")
    print("It is a pickle: loading it runs code, so load it only from a board that you trust.")
    print(f'  VetiverModel.from_pin(pins.board_folder("{project.board.url}", allow_pickle_read=True), "{pin.name}")')
