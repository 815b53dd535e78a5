"""Commands about the board: list its pins, verify them, and remove the versions that nobody needs any more."""

from contextlib import suppress
from datetime import timedelta
from typing import Annotated

import typer

from pinmill.errors import IntegrityError
from pinmill.project import open_project
from pinmill.terminal import AsJson, print_json, print_table
from pinmill.version import now_utc

DAYS = "Models that answered calls within so many days stay; by default as calls do: run: retention, or 90 days."

app = typer.Typer(help="The pins on the board.\n\nExample: pinmill pins", invoke_without_command=True)


@app.callback()
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


@app.command()
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
        if problems and version in board.versions(name)  # unless it was pruned meanwhile
    ]
    if as_json:
        print_json({"checked": len(checked), "damaged": damaged})
    else:
        print(f"{len(checked)} versions checked, {len(damaged)} damaged")
        for pin in damaged:
            print(f"  {pin['name']} {pin['version']}: {'; '.join(pin['problems'])}")
    raise typer.Exit(1 if damaged else 0)


@app.command(name="prune")
def prune_command(
    keep: Annotated[int, typer.Option(min=1, help="How many of the last versions of every pin stay.")] = 5,
    days: Annotated[int | None, typer.Option(min=0, help=DAYS, show_default=False)] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it the command only says what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove old versions; without --yes only say which.

    Kept are the last ones, champions and former champions, what answered calls, what a run at work may read, and all
    that these were made from and judged by.

    Example: pinmill pins prune --keep 10 --yes
    """
    from pinmill.prune import find_prunable, prune
    from pinmill.retention import longest, read_every

    project = open_project()
    days = longest(read_every(project)[0], "calls", default=90) if days is None else days
    pruning = (prune if yes else find_prunable)(project, keep=keep, since=now_utc() - timedelta(days=days))
    gone = [
        {"name": pin.name, "version": pin.version, "bytes": pin.size, "run": pin.lineage["run"]}
        for pin in pruning.remove
    ]
    total = sum(pin["bytes"] for pin in gone)
    if as_json:
        kept = {"kept": pruning.kept, "left_alone": pruning.left}
        print_json({"removed": yes, "pins": gone, "bytes": total, **kept})
        return
    print_table(gone, ["name", "version", "bytes", "run"])
    for why in pruning.left:
        print(f"left alone: {why}")
    print(f"{len(gone)} versions, {total:,} bytes {'removed' if yes else 'may go'}; {pruning.kept} kept")
    if gone and not yes:
        print(f"nothing was removed; to do it: pinmill pins prune --keep {keep} --days {days} --yes")
