"""Commands for who operates Pinmill: back everything up, restore it, and remove what is too old."""

from pathlib import Path
from typing import Annotated

import typer

from pinmill.project import open_project
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

    manifest = restore_backup(open_project(), file)
    print(f"restored, as of {manifest['created'][:19]} UTC: {tell_counts(manifest['counts'])}")
    print("To verify: pinmill pins verify. Pages are rendered again by: pinmill report")


def tell_counts(counts: dict[str, int]) -> str:
    """How much of what a backup holds, as '12 versions, 3 runs, 1,024 calls'."""
    return ", ".join(f"{n:,} {name}" for name, n in counts.items() if n) or "nothing yet"
