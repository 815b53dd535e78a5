"""The `pinmill` command: its commands by subject, each of which checks its words, calls the library, and prints."""

import sys

import typer

from pinmill import (
    cli_annotate,
    cli_data,
    cli_models,
    cli_operate,
    cli_pins,
    cli_project,
    cli_runs,
    cli_schedule,
    cli_score,
    cli_serve,
    cli_token,
    cli_trace,
)
from pinmill.errors import PinmillError

app = typer.Typer(
    help="Train, check and keep models from notebooks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(cli_runs.app)
app.add_typer(cli_models.app)
app.add_typer(cli_data.app)
app.add_typer(cli_pins.app, name="pins")
app.add_typer(cli_project.app)
app.add_typer(cli_score.app)
app.add_typer(cli_schedule.app, name="schedule")
app.add_typer(cli_annotate.app)
app.add_typer(cli_serve.app)
app.add_typer(cli_token.app)
app.add_typer(cli_trace.app)
app.add_typer(cli_operate.app)


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
