"""Commands for who operates Pinmill: back everything up, restore it, and remove what is too old."""

from pathlib import Path
from typing import Annotated

import typer

from pinmill.project import open_project
from pinmill.terminal import AsJson, print_json, print_table, tell_missing
from pinmill.version import now_utc

app = typer.Typer()


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write: a tar file, compressed.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Replace the file, once the new one is whole.")] = False,
) -> None:
    """Write board, store and runs into one file, while everything goes on; only its owner may read it.

    Pages and logs are not in it, nor params/, notebooks/ and .env. Exit code 1 where a damaged version was left out.

    Example: pinmill backup /backups/monday.tar.gz
    """
    from pinmill.backup import make_backup
    from pinmill.snapshot import tell_counts

    made = make_backup(open_project(), file, force=force, now=now_utc())
    print(f"{file}: {tell_counts(made['counts'])}; {made['size']:,} bytes, SHA-256 {made['sha256']}")
    for problem in made["damaged"]:
        print(f"left out: {problem}")
    raise typer.Exit(1 if made["damaged"] else 0)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file that pinmill backup wrote.", show_default=False)],
) -> None:
    """Restore board, store and runs from a backup, once every byte of it is verified, into a project without any.

    The board and the store are those that this project names (PINMILL_BOARD, PINMILL_STORE), of whatever kind.

    Example: pinmill restore /backups/monday.tar.gz
    """
    from pinmill.restore import restore as restore_backup
    from pinmill.snapshot import tell_counts

    manifest = restore_backup(open_project(), file)
    print(f"restored, as of {manifest['created'][:19]} UTC: {tell_counts(manifest['counts'])}")
    print("To verify: pinmill pins verify. Pages are rendered again by: pinmill report")


@app.command()
def retention(
    workflow: Annotated[str | None, typer.Argument(help="Only this workflow, and logs.", show_default=False)] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it the command only says what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove runs with their pages, logs and calls that are older than the params say (run: retention); by UTC days.

    Kept is what champions and former ones come from, the last run of each job, and all that a run may take up again.

    Example: pinmill retention docstrings --yes
    """
    from pinmill.retention import find_expired, remove_expired

    project = open_project()
    found, left = find_expired(project, workflow, now=now_utc())
    if yes:
        found, began = remove_expired(project, found)
        left += began
    if yes and any(each.what == "runs" for each in found) and (project.pages / "index.html").is_file():
        from pinmill.report import choose_engine, update_index

        tell_missing(update_index(project, choose_engine(project))[1])
    if as_json:
        print_json({"removed": yes, "expired": [each._asdict() for each in found], "left_alone": left})
        return
    print_table(
        [each._asdict() | {"before": f"{each.before:%Y-%m-%d}", "bytes": f"{each.bytes:,}"} for each in found],
        ["what", "workflow", "n", "oldest", "before", "bytes"],
    )
    for why in left:
        print(f"left alone: {why}")
    n, size = sum(each.n for each in found), sum(each.bytes for each in found)
    print(f"{n:,} {'removed' if yes else 'may go'}, {size:,} bytes")
    if found and not yes:
        print(f"nothing was removed; to do it: pinmill retention {workflow + ' ' if workflow else ''}--yes")
