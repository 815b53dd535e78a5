"""Commands about models: list them, move the champion, ask it."""

import getpass
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pinmill.errors import ChampionError
from pinmill.project import open_project
from pinmill.terminal import AsJson, Workflow, format_metrics, print_json, print_table, tell_missing
from pinmill.version import now_utc

app = typer.Typer()

Why = Annotated[str, typer.Option(help="The reason, kept in the champion's history.", show_default=False)]


@app.command()
def models(workflow: Workflow, as_json: AsJson = False) -> None:
    """List every candidate of a workflow: metrics, gate, status, who, when, what changed since the one before.

    Example: pinmill models docstrings
    """
    from pinmill.models import list_models

    listed = list_models(open_project().board, workflow)
    rows = [
        {**model, "metrics": format_metrics(model["metrics"]), "trained (UTC)": (model["created"] or "")[:19]}
        for model in reversed(listed)
    ]
    columns = ["version", "status", "metrics", "by", "trained (UTC)", "changed"]
    print_json(listed) if as_json else print_table(rows, columns)


@app.command()
def champion(
    workflow: Workflow,
    history: Annotated[bool, typer.Option("--history", help="Every promotion and rollback, newest first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show which model version is served, since when, by whom and why.

    Example: pinmill champion docstrings --history
    """
    from pinmill.champion import read_history

    records = read_history(open_project().board, workflow)
    if not records:
        raise ChampionError(f"{workflow} has no champion yet. Train and promote one with: pinmill run {workflow}")
    listed = [asdict(record) for record in (records[::-1] if history else records[-1:])]
    rows = [{**row, "when (UTC)": row["when"], "override": "yes" if row["override"] else ""} for row in listed]
    columns = ["version", "action", "when (UTC)", "by", "why", "override"]
    print_json(listed if history else listed[0]) if as_json else print_table(rows, columns)


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
    from pinmill.actions import promote_model
    from pinmill.models import find_model, list_models
    from pinmill.pages import publish_champion

    project = open_project()
    model, who = find_model(list_models(project.board, workflow), version), getpass.getuser()
    promoted = promote_model(project, workflow, model, by=who, why=why, override=override)
    problems = publish_champion(project, workflow)
    print(f"{workflow}: champion is {promoted.version} (before: {promoted.previous or 'none'})")
    tell_missing(problems)


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
    problems = publish_champion(project, workflow)
    print(f"{workflow}: champion is {done.version}; {done.previous} is held")
    tell_missing(problems)


@app.command()
def upload(
    workflow: Workflow,
    file: Annotated[
        Path, typer.Argument(help="A fitted model, as skops saves it.", exists=True, dir_okay=False, show_default=False)
    ],
    note: Annotated[str, typer.Option(help="What is worth knowing of it; kept with it.")] = "",
    by: Annotated[str, typer.Option(help="Who it is from; default: you.", show_default=False)] = "",
    evaluate: Annotated[bool, typer.Option(help="Start the run that evaluates it, without waiting for it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Keep a model that was trained elsewhere as a candidate, once it is checked; the gate decides about it as always.

    Example: pinmill upload docstrings model.skops --note "trained on the cluster" --evaluate
    """
    from pinmill.actions import start_evaluation
    from pinmill.upload import write_candidate

    project, by = open_project(), by or getpass.getuser()
    pin = write_candidate(project, workflow, file.read_bytes(), by=by, note=note)
    started = start_evaluation(project, workflow, pin.version) if evaluate else {}
    if as_json:
        print_json({"version": pin.version, **started})
    else:
        print(f"{workflow}: {pin.version} is a candidate")
        print(f"  next: {started['next'] if started else f'pinmill run {workflow} --model {pin.version}'}")


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
