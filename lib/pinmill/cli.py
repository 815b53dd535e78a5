"""The `pinmill` command: each function checks its words, calls the library, and prints."""

import getpass
import json
import signal
import sys
from contextlib import suppress
from typing import Annotated, Any

import typer

from pinmill.errors import ChampionError, IntegrityError, PinmillError
from pinmill.project import Project, open_project
from pinmill.version import now_utc

app = typer.Typer(
    help="Train, check and keep models from notebooks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
pins_app = typer.Typer(help="The pins on the board.\n\nExample: pinmill pins", invoke_without_command=True)
app.add_typer(pins_app, name="pins")

WHOLE = 10_000  # columns: off a terminal no cell is folded

Workflow = Annotated[str, typer.Argument(help="A workflow: the name of a file in params/.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Why = Annotated[str, typer.Option(help="The reason, kept in the champion's history.", show_default=False)]


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def print_table(rows: list[dict[str, Any]], columns: list[str]) -> None:
    """A table of some columns for people; a narrow terminal folds cells, a pipe gets them whole."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(format_cell(row[column]) for column in columns))
    console = Console(width=None if sys.stdout.isatty() else WHOLE)
    console.print(shown, markup=False)


def format_cell(value: Any) -> str:
    """A table's cell: nothing for None, a list with commas, of several lines the first."""
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else "" if value is None else str(value)
    return text.split("\n", 1)[0]


def format_metrics(metrics: dict[str, Any]) -> str:
    """Headline metrics with their intervals, as 'f1 0.94 [0.91, 0.96]'; a dash for one that has no value."""
    return ", ".join(
        f"{name} –" if None in m.values() else f"{name} {m['value']:.3f} [{m['low']:.3f}, {m['high']:.3f}]"
        for name, m in metrics.items()
    )


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
) -> None:
    """Run a job of a workflow: only the stages whose code, parameters or inputs changed.

    Exit codes: 0 succeeded or nothing to do, 2 wrong use, 3 rejected by the gate, 4 failed, 75 the lock was held.

    Example: pinmill run docstrings --set cv=5 --explain
    """
    from pinmill.plan import make_plan
    from pinmill.progress import open_progress
    from pinmill.runner import run_job
    from pinmill.runs import EXIT_CODES

    project = open_project()
    plan = make_plan(project, workflow, job=job, assignments=assignments or [], force=force, start_from=start_from)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with open_progress() as progress:
            record = run_job(project, plan, progress, explain=explain)
    except KeyboardInterrupt:
        print(f"interrupted. The next run takes up what is finished; see: pinmill runs {workflow}", file=sys.stderr)
        raise typer.Exit(EXIT_CODES["interrupted"]) from None
    print_outcome(project, record)
    raise typer.Exit(EXIT_CODES[record.status])


def print_outcome(project: Project, record: Any) -> None:
    """The end of a run for a person: status, why, champion, card."""
    from pinmill.pages import stable_page
    from pinmill.runs import FINISHED

    ran = [stage.notebook for stage in record.stages if stage.status == "ran"]
    nothing = "; nothing changed, so nothing ran" if record.status in FINISHED else ""
    did = f"; ran {', '.join(ran)}" if ran else nothing
    print(f"{record.workflow}: {record.status} (run {record.run}{did})")
    if record.error:
        print(f"{record.error}", file=sys.stderr)
    for warning in record.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for reason in record.reasons:
        print(f"  gate      {reason}")
    if record.champion_after:
        moved = record.champion_after != record.champion_before
        print(f"  champion  {record.champion_after}" + f" (before: {record.champion_before or 'none'})" * moved)
    stable = stable_page(project, record.workflow, "model-card")
    if stable.is_file():
        print(f"  card      {project.relative(stable)}")
    if record.status == "rejected" and record.page:
        print(f"  rejected  {record.page}")


@app.command()
def runs(
    workflow: Annotated[str | None, typer.Argument(help="Only this workflow.")] = None, as_json: AsJson = False
) -> None:
    """List the runs, newest first, with their status.

    Example: pinmill runs docstrings --json
    """
    from dataclasses import asdict

    from pinmill.plan import load_workflow
    from pinmill.runs import read_records

    project = open_project()
    folder = project.outputs / "runs"
    names = sorted(path.name for path in folder.glob("*") if path.is_dir())
    if workflow and workflow not in names:
        load_workflow(project, workflow)  # says so when there is no such workflow
    names = [workflow] if workflow else names
    records = [record for name in names for record in read_records(project.runs_folder(name))]
    records.sort(key=lambda record: record.run, reverse=True)
    if as_json:
        print_json([asdict(record) for record in records])
        return
    rows = [
        {**asdict(r), "started (UTC)": r.started[:19], "ran": [s.notebook for s in r.stages if s.status == "ran"]}
        for r in records
    ]
    print_table(rows, ["run", "workflow", "job", "status", "started (UTC)", "ran", "error"])


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
    from dataclasses import asdict

    from pinmill.params import check_params, find_declarations, read_schema
    from pinmill.plan import load_workflow, read_notebooks

    project = open_project()
    given = load_workflow(project, workflow)
    stages = read_notebooks(project, given)
    if schema:
        print_json(read_schema(stages))
        return
    values, _ = check_params(given, stages, project.settings)
    listed = [
        {
            **asdict(declared),
            "value": values[name],
            "used in": [stage.stem for stage in stages if name in stage.declarations],
        }
        for name, declared in find_declarations(stages).items()
    ]
    if as_json:
        print_json({"parameters": listed, "schema": read_schema(stages)})
        return
    print_table(listed, ["name", "value", "type", "default", "meaning", "used in"])


@pins_app.callback()
def pins(context: typer.Context, as_json: AsJson = False) -> None:
    """List the pins: newest version of each, how many there are, and the run it came from.

    Example: pinmill pins --json
    """
    if context.invoked_subcommand:
        return
    board = open_project().board
    listed = []
    for name in board.names():
        versions = board.versions(name)
        row = {"name": name, "version": versions[-1], "versions": len(versions), "type": "damaged"}
        row |= dict.fromkeys(("bytes", "sha256", "created", "run"))
        with suppress(IntegrityError):  # one that is damaged must not hide the others
            pin = board.pin(name, versions[-1])
            row |= {"type": pin.type, "bytes": pin.size, "sha256": pin.sha256}
            row |= {"created": pin.created.isoformat(), "run": pin.lineage.get("run")}
        listed.append(row)
    if as_json:
        print_json(listed)
        return
    print_table(listed, ["name", "version", "versions", "type", "bytes", "run"])


@pins_app.command()
def verify(as_json: AsJson = False) -> None:
    """Read every version of every pin and compare it with its recorded SHA-256. Exit code 1 when one differs.

    Example: pinmill pins verify
    """
    board = open_project().board
    checked = {
        (name, version): board.verify(name, version) for name in board.names() for version in board.versions(name)
    }
    damaged = [
        {"name": name, "version": version, "problems": problems}
        for (name, version), problems in checked.items()
        if problems
    ]
    if as_json:
        print_json({"checked": len(checked), "damaged": damaged})
    else:
        print(f"{len(checked)} versions checked, {len(damaged)} damaged")
        for pin in damaged:
            print(f"  {pin['name']} {pin['version']}: {'; '.join(pin['problems'])}")
    raise typer.Exit(1 if damaged else 0)


@app.command()
def models(workflow: Workflow, as_json: AsJson = False) -> None:
    """List every candidate of a workflow: metrics, gate, status, who, when, what changed since the one before.

    Example: pinmill models docstrings
    """
    from pinmill.models import list_models

    listed = list_models(open_project().board, workflow)
    if as_json:
        print_json(listed)
        return
    rows = [
        {**model, "metrics": format_metrics(model["metrics"]), "trained (UTC)": (model["created"] or "")[:19]}
        for model in reversed(listed)
    ]
    print_table(rows, ["version", "status", "metrics", "by", "trained (UTC)", "changed"])


@app.command()
def champion(
    workflow: Workflow,
    history: Annotated[bool, typer.Option("--history", help="Every promotion and rollback, newest first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show which model version is served, since when, by whom and why.

    Example: pinmill champion docstrings --history
    """
    from dataclasses import asdict

    from pinmill.champion import read_history

    records = read_history(open_project().board, workflow)
    if not records:
        raise ChampionError(f"{workflow} has no champion yet. Train and promote one with: pinmill run {workflow}")
    records = records[::-1] if history else records[-1:]
    if as_json:
        print_json([asdict(record) for record in records] if history else asdict(records[0]))
        return
    rows = [{**asdict(r), "when (UTC)": r.when, "override": "yes" if r.override else ""} for r in records]
    print_table(rows, ["version", "action", "when (UTC)", "by", "why", "override"])


@app.command(name="promote")
def promote_command(
    workflow: Workflow,
    version: Annotated[str, typer.Argument(help="A model version; a unique beginning or end is enough.")],
    why: Why,
    override: Annotated[bool, typer.Option(help="Promote though the gate did not pass it; recorded.")] = False,
) -> None:
    """Make a model version the champion.

    Example: pinmill promote docstrings 0k3zz --why "reviewed with the team"
    """
    from pinmill.champion import promote, read_champion
    from pinmill.models import find_model, list_models
    from pinmill.pages import publish_champion

    project = open_project()
    model = find_model(list_models(project.board, workflow), version)
    now = read_champion(project.board, workflow)
    promoted = promote(
        project.board,
        workflow,
        model["version"],
        by=getpass.getuser(),
        why=why,
        expected=now.version if now else None,
        override=override,
        gate=model["gate"],
        when=now_utc(),
    )
    publish_champion(project, workflow, promoted.version)
    print(f"{workflow}: champion is {promoted.version} (before: {promoted.previous or 'none'})")


@app.command(name="rollback")
def rollback_command(
    workflow: Workflow,
    why: Why,
    to: Annotated[str | None, typer.Option(help="An earlier champion; default: the one before.")] = None,
) -> None:
    """Go back to the champion before this one; the version left is held and does not come back by itself.

    Example: pinmill rollback docstrings --why "complaints since Monday"
    """
    from pinmill.champion import rollback
    from pinmill.models import find_model, list_models
    from pinmill.pages import publish_champion

    project = open_project()
    target = find_model(list_models(project.board, workflow), to)["version"] if to else None
    done = rollback(project.board, workflow, by=getpass.getuser(), why=why, to=target, when=now_utc())
    publish_champion(project, workflow, done.version)
    print(f"{workflow}: champion is {done.version}; {done.previous} is held")


@app.command()
def predict(
    workflow: Workflow,
    text: Annotated[str, typer.Argument(help="A text, or a JSON object with the columns of the prototype.")],
    as_json: AsJson = False,
) -> None:
    """Score one text or record with the champion.

    Example: pinmill predict docstrings "Draw samples from a normal distribution."
    """
    from pinmill.predict import predict_one

    scores = predict_one(open_project().board, workflow, text)
    if as_json:
        print_json(scores)
        return
    print(f"{scores['label']}  ({workflow}, version {scores['version']})")
    for label, share in sorted(scores.get("probability", {}).items(), key=lambda pair: -pair[1]):
        print(f"  {share:6.3f}  {label}")


def main() -> None:
    """Entry point: an error raised on purpose becomes one message and its exit code."""
    try:
        app()
    except PinmillError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"{type(error).__name__}: {error}. Look at the disk and its permissions.", file=sys.stderr)
        sys.exit(PinmillError.exit_code)
