"""Commands about origins: trace what a version came from, train it again, and compare two versions."""

import signal
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from pinmill.errors import ParameterError, ReportError
from pinmill.project import open_project
from pinmill.terminal import WHOLE, AsJson, Workflow, print_json, print_table, printable, tell_missing
from pinmill.version import now_utc

app = typer.Typer()

SHORT = 160  # characters: a mapping that is longer becomes a branch
VERSION = "A model version (a unique beginning or end is enough), or: champion."


@app.command()
def trace(
    version: Annotated[
        str, typer.Argument(help="A pin's version, a run (a unique part of either end will do), or a call's id.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show everything that a version, a run or an answer came from, back to the source, and what became of it.

    Example: pinmill trace 0k3zz

    Example: pinmill trace req-01jc3v8q5x7m
    """
    from pinmill.trace import read_trace

    found = read_trace(open_project(), version)
    print_json(found) if as_json else print_tree(name_of(found) or found.get("request") or found["run"], found)


@app.command()
def reproduce(
    workflow: Workflow,
    version: Annotated[str, typer.Argument(help=VERSION)] = "champion",
    keep: Annotated[bool, typer.Option("--keep", help="Keep the scratch project, to look into it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model version again from what its run recorded, in a scratch project, and compare the bytes.

    Exit codes: 0 the same bytes, 1 another model.

    Example: pinmill reproduce docstrings --keep
    """
    from pinmill.progress import open_progress
    from pinmill.reproduce import reproduce

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the scratch project is removed then, too
    with open_progress() as progress:
        found = reproduce(open_project(), workflow, version, progress, keep=keep)
    said = "the same bytes" if found["same"] else "another model"
    if as_json:
        print_json(found)
    else:
        print(f"{workflow} {found['version']}: {said}")
        print(f"{found['ran']} of run {found['run']} ran again; the one in notebooks/ is {found['notebook_now']}")
        print(
            f"the difference: {tell(found['difference'])}"
            if found["difference"]
            else f"SHA-256 {found['sha256']['again']}"
        )
        print(f"the scratch project is kept: {found['kept']}" if keep else "nothing of it is kept")
        print("not as it was then" + ":" if found["changes"] else "all else is as it was then")
        print_rows(found["changes"])
    raise typer.Exit(0 if found["same"] else 1)


@app.command()
def compare(
    workflow: Workflow,
    a: Annotated[str, typer.Argument(help=VERSION)],
    b: Annotated[str, typer.Argument(help=VERSION)],
    rows: Annotated[int, typer.Option(help="Changed predictions to show.", min=0)] = 10,
    page: Annotated[bool, typer.Option("--page", help="Leave it as a page, for people.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two model versions: scores on the same rows, changed predictions, parameters, data and code.

    Example: pinmill compare docstrings champion 0k3zz --page
    """
    from pinmill.compare import read_comparison

    if page and as_json:
        raise ParameterError("--page and --json exclude each other: one of them was expected.")
    project = open_project()
    found = read_comparison(project, workflow, a, b, rows=rows)
    if page:
        from pinmill.comparison import show_comparison
        from pinmill.plan import load_workflow
        from pinmill.report import choose_engine, render_pages, write_pages

        title = str(load_workflow(project, workflow).values.get("title") or workflow)
        shown = show_comparison(found, subject=title, made=f"{now_utc():%Y-%m-%d %H:%M}")
        paths, problems = write_pages(project, render_pages(project, [shown], choose_engine(project)))
        print("\n".join(project.relative(path) for path in paths))
        tell_missing(problems)
        raise typer.Exit(ReportError.exit_code if problems else 0)
    if as_json:
        print_json(found)
    else:
        print_comparison(found)


def print_comparison(found: Mapping[str, Any]) -> None:
    """Two model versions side by side, for a person."""
    for side in ("a", "b"):
        print(f"{side.upper()}  {tell({name: value for name, value in found[side].items() if value})}")
    print(found["note"] + " A positive difference means that B is better." * bool(found["metrics"]))
    print_rows(found["metrics"])
    if changed := found["changed"]:
        print(f"{changed['n']} predictions are others" + ":" * bool(changed["rows"]))
        print_rows([{**row, "inputs": tell(row["inputs"])[:SHORT]} for row in changed["rows"]])
    same = f"Parameters, packages, code and machine{' of the training' * (not found['data'])} are the same."
    print("What is not the same:" if found["changes"] else same)
    print_rows(found["changes"])
    print(f"data: {tell(found['data'] or 'cannot be compared')}")
    print("\n".join(["the code cannot be compared"] if found["diff"] is None else map(tell, found["diff"])))


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Mappings with the same keys as a table; nothing when there are none."""
    if rows:
        print_table([{name: tell(value) for name, value in row.items()} for row in rows], list(rows[0]))


def print_tree(title: str, found: Mapping[str, Any]) -> None:
    """What was found, as a tree; data in it is shown as it is, never taken for markup."""
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    shown = set()

    def grow(branch: Tree, found: Mapping[str, Any]) -> None:
        """Add a line for each value of `found`; a long mapping becomes a branch."""
        shown.add(name_of(found))
        own = ("name", "version") if name_of(found) else ()  # those stand in the title of the branch
        for key, value in found.items():
            if key in own:
                continue
            several = isinstance(value, list) and isinstance(next(iter(value), None), dict)
            for item in value if several else [value]:
                name, line = name_of(item), f"{tell(key)}: {tell(item)}"
                if name and name in shown:
                    branch.add(Text(f"{tell(key)}: {name} (as above)"))
                elif isinstance(item, dict) and len(line) > SHORT:
                    grow(branch.add(Text(f"{tell(key)}: {name}".removesuffix(": "))), item)
                elif item not in (None, "", [], {}, ()):
                    branch.add(Text(line))

    tree = Tree(Text(title))
    grow(tree, found)
    Console(width=None if sys.stdout.isatty() else WHOLE).print(tree)


def name_of(found: Any) -> str:
    """The name and version of a pin; empty for anything else."""
    return tell(f"{found['name']} {found['version']}") if isinstance(found, dict) and "name" in found else ""


def tell(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{tell(key)} {tell(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(tell, value)) or "none"
    return printable(f"{value:.4g}" if isinstance(value, float) else "none" if value in (None, "") else str(value))
