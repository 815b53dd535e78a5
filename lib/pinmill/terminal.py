"""What the commands share: their common words, and how a result is printed for people and for programs."""

import json
import sys
from typing import Annotated, Any

import typer

WHOLE = 10_000  # columns: off a terminal no cell is folded

Workflow = Annotated[str, typer.Argument(help="A workflow: the name of a file in params/.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def print_table(rows: list[dict[str, Any]], columns: list[str]) -> None:
    """A table of some columns for people; a narrow terminal folds cells, a pipe gets them whole."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(format_cell(row[column])) for column in columns))  # no markup, no emoji
    console = Console(width=None if sys.stdout.isatty() else WHOLE)
    console.print(shown)


def tell_missing(problems: list[str]) -> None:
    """What is wrong with pages that are missing, on the error output."""
    for problem in problems:
        print(f"pages are missing: {problem}", file=sys.stderr)


def format_cell(value: Any) -> str:
    """A table's cell: nothing for None, a list with commas, of several lines the first."""
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else "" if value is None else str(value)
    return printable(text.split("\n", 1)[0])


def printable(text: str) -> str:
    """`text`, escaped if it has characters that a terminal could take for a command."""
    return text if text.isprintable() else repr(text)


def format_metrics(metrics: dict[str, Any]) -> str:
    """Headline metrics with their intervals, as 'f1 0.94 [0.91, 0.96]'; a dash for one that has no value."""
    return ", ".join(
        f"{name} –" if None in m.values() else f"{name} {m['value']:.3f} [{m['low']:.3f}, {m['high']:.3f}]"
        for name, m in metrics.items()
    )
