"""Commands about runs: run a job, list what ran, list what a workflow takes."""

import itertools
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from pinmill.errors import ParameterError, ReportError
from pinmill.project import Project, open_project
from pinmill.terminal import AsJson, Workflow, print_json, print_table, tell_missing

app = typer.Typer()


@app.command()
def run(
    workflow: Workflow,
    job: Annotated[str, typer.Option(help="The job: the stages that run together.")] = "train",
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Another value for a parameter; repeatable.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Run every stage though nothing changed.")] = False,
    start_from: Annotated[str, typer.Option("--from", metavar="STAGE", help="Run this stage and all after it.")] = "",
    explain: Annotated[bool, typer.Option(help="Name for every stage what changed since it last ran.")] = False,
    model: Annotated[
        str, typer.Option(metavar="VERSION", help="Evaluate this model version, and train none; may be shortened.")
    ] = "",
    run_id: Annotated[str, typer.Option(help="The id that was told before the start.", hidden=True)] = "",
) -> None:
    """Run a job of a workflow: only the stages whose code, parameters or inputs changed.

    Exit codes: 0 succeeded or nothing to do, 2 wrong use, 3 rejected by the gate, 4 failed, 75 the lock was held.

    Example: pinmill run docstrings --set cv=5 --explain
    """
    from pinmill.plan import make_plan
    from pinmill.runs import EXIT_CODES, RUN_ID

    if run_id and not RUN_ID.fullmatch(run_id):
        raise ParameterError(f"--run-id {run_id!r} is no id of a run: one as in pinmill runs was expected.")
    project, given = open_project(), assignments or []
    plan = make_plan(project, workflow, job=job, assignments=given, force=force, start_from=start_from, model=model)
    raise typer.Exit(EXIT_CODES[run_plan(project, plan, explain=explain, run=run_id).status])


def run_plan(project: Project, plan: Any, *, explain: bool = False, run: str = "") -> Any:
    """Run a job while a person watches, say how it ended, and return its record. Exits when it is interrupted."""
    from pinmill.progress import open_progress
    from pinmill.runner import run_job
    from pinmill.runs import EXIT_CODES

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with open_progress() as progress:
            record = run_job(project, plan, progress, explain=explain, run=run)
    except KeyboardInterrupt:
        print(
            f"interrupted. The next run takes up what is finished; see: pinmill runs {plan.workflow}", file=sys.stderr
        )
        raise typer.Exit(EXIT_CODES["interrupted"]) from None
    print_outcome(project, record)
    return record


def print_outcome(project: Project, record: Any) -> None:
    """The end of a run for a person: status, why, champion, card."""
    from pinmill.pages import is_shown, page_path
    from pinmill.runs import FINISHED

    ran = [stage.notebook for stage in record.stages if stage.status == "ran"]
    nothing = "; nothing changed, so nothing ran" if record.status in FINISHED else ""
    did = f"; ran {', '.join(ran)}" if ran else nothing
    print(f"{record.workflow}: {record.status} (run {record.run}{did})")
    for line in filter(None, [record.error, *(f"warning: {warning}" for warning in record.warnings)]):
        print(line, file=sys.stderr)
    for reason in record.reasons:
        print(f"  gate      {reason}")
    if record.champion_after:
        moved = record.champion_after != record.champion_before
        before = f" (before: {record.champion_before or 'none'})" if moved else ""
        board = project.board.url if "://" in project.board.url else project.relative(Path(project.board.url))
        print(f"  champion  {board}/{record.workflow}-model/{record.champion_after}{before}")
    own = next(reversed(record.pages.values()), "") if record.status == "rejected" else ""
    stable = page_path(project, record.workflow, "model-card")
    tells = stable.is_file() and is_shown(project, record.workflow, record.champion_after)
    shown = {"card": project.relative(stable) if tells else "", "rejected": own}
    index = project.pages / "index.html"
    by = f" (rendered by {record.rendered_by})" if record.rendered_by else ""
    shown["pages"] = f"{project.relative(index)}{by}" if index.is_file() else ""
    for what, path in shown.items():
        if path:
            print(f"  {what:<9} {path}")


@app.command()
def report(
    workflow: Annotated[str | None, typer.Argument(help="Only this workflow.")] = None,
    run: Annotated[
        str, typer.Option("--run", help="A run; a unique beginning or end is enough. Default: the last.")
    ] = "",
    engine: Annotated[str, typer.Option(help="auto, quarto or nbconvert; default: PINMILL_REPORT, or auto.")] = "",
    show: Annotated[bool, typer.Option("--open", help="Open the index in a browser.")] = False,
) -> None:
    """Render pages again, without executing anything: of a run, of the champion, and the index.

    Exit codes: 0 all pages are in place, 2 wrong use, 4 some are missing.

    Example: pinmill report docstrings --engine nbconvert
    """
    from pinmill.pages import report
    from pinmill.plan import load_workflow
    from pinmill.report import choose_engine
    from pinmill.runs import last_finished, list_runs

    project = open_project()
    if run and not workflow:
        raise ParameterError("--run needs the workflow whose run it is: pinmill report WORKFLOW --run ID")
    chosen = choose_engine(project, engine)
    if workflow and not list_runs(project.runs_folder(workflow)):
        load_workflow(project, workflow)  # says so when there is no such workflow
    with_runs = [name for name in project.workflows() if last_finished(project.runs_folder(name), "")]
    found = report(project, [workflow] if workflow else with_runs, chosen, run=run)
    print("\n".join([f"rendered by {found.by}:", *(f"  {project.relative(path)}" for path in found.paths)]))
    tell_missing(found.problems)
    if show and found.paths:
        typer.launch(found.paths[-1].as_uri())
    if found.problems:
        raise typer.Exit(ReportError.exit_code)


@app.command()
def runs(
    workflow: Annotated[str | None, typer.Argument(help="Only this workflow.")] = None, as_json: AsJson = False
) -> None:
    """List the runs, newest first, with their status.

    Example: pinmill runs docstrings --json
    """
    from pinmill.plan import load_workflow
    from pinmill.runs import read_records

    project = open_project()
    names = sorted(path.name for path in (project.outputs / "runs").glob("*") if path.is_dir())
    if workflow and workflow not in names:
        load_workflow(project, workflow)  # says so when there is no such workflow
    found = (read_records(project.runs_folder(name)) for name in ([workflow] if workflow else names))
    records = sorted(itertools.chain.from_iterable(found), key=lambda record: record.run, reverse=True)
    ran = [[stage.notebook for stage in record.stages if stage.status == "ran"] for record in records]
    rows = [{**asdict(r), "started (UTC)": r.started[:19], "ran": names} for r, names in zip(records, ran, strict=True)]
    columns = ["run", "workflow", "job", "status", "started (UTC)", "ran", "error"]
    print_json([asdict(record) for record in records]) if as_json else print_table(rows, columns)


@app.command()
def params(
    workflow: Workflow,
    as_json: AsJson = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print only the JSON Schema, for an editor.")] = False,
) -> None:
    """List the parameters of a workflow: value, type, default, meaning, and the notebooks that take them.

    With --json: the same, and a JSON Schema for editors.

    Example: pinmill params docstrings --json
    """
    from pinmill.params import check_params, find_declarations, read_schema
    from pinmill.plan import load_workflow, read_notebooks

    project = open_project()
    given = load_workflow(project, workflow)
    stages = read_notebooks(project, given)
    if schema:
        print_json(read_schema(stages))
        return
    values, _ = check_params(given, stages, project.settings)
    declared = find_declarations(stages)
    users = {name: [stage.stem for stage in stages if name in stage.declarations] for name in declared}
    listed = [asdict(d) | {"value": values[name], "used in": users[name]} for name, d in declared.items()]
    whole = {"parameters": listed, "schema": read_schema(stages)}
    print_json(whole) if as_json else print_table(listed, ["name", "value", "type", "default", "meaning", "used in"])
