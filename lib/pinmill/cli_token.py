"""Commands about who may do what: make, list and revoke tokens of the service, and show who changed what."""

import getpass
import sys
from typing import Annotated

import typer

from pinmill.errors import ParameterError, did_you_mean
from pinmill.project import open_project
from pinmill.terminal import AsJson, print_json, print_table
from pinmill.version import now_utc

app = typer.Typer()
token = typer.Typer(help="The tokens that open the service to its callers.\n\nExample: pinmill token list")
app.add_typer(token, name="token")

Name = Annotated[str, typer.Argument(help="Whose token it is: a-z, 0-9 and '-'.", show_default=False)]


@token.command()
def create(
    name: Name,
    role: Annotated[str, typer.Option(help="scorer, annotator, modeller or admin: each may do what those before it.")],
    expires: Annotated[str | None, typer.Option(help="After days or hours: 90d, 12h; without it, never.")] = None,
) -> None:
    """Make a token and print it, this once: only its hash is kept. A name is given once.

    Example: pinmill token create shop --role scorer --expires 90d
    """
    from pinmill.tokens import create_token

    made = create_token(open_project().store, name, role, expires=expires, by=getpass.getuser(), when=now_utc())
    print(made)
    print(f"The token of {name} ({role}), shown this once. Send it as: Authorization: Bearer TOKEN", file=sys.stderr)


@token.command(name="list")
def list_command(as_json: AsJson = False) -> None:
    """List all tokens that were ever made: name, role, state, who made it, and until when it is good.

    Example: pinmill token list
    """
    from pinmill.tokens import list_tokens

    project, now = open_project(), now_utc()
    tokens = list_tokens(project.store) if project.has_store else []
    keys = ("name", "role", "created", "by", "expires", "revoked")
    rows = [{key: getattr(each, key) for key in keys} | {"state": each.state(now)} for each in tokens]
    shown = [{**row, **{f"{key} (UTC)": (row[key] or "")[:19] for key in ("created", "expires")}} for row in rows]
    columns = ["name", "role", "state", "created (UTC)", "by", "expires (UTC)"]
    print_json(rows) if as_json else print_table(shown, columns)


@token.command()
def revoke(name: Name) -> None:
    """Take a token back: a service that runs refuses it within a second or two, without a restart.

    Example: pinmill token revoke shop
    """
    from pinmill.tokens import revoke_token

    revoke_token(open_project().store, name, by=getpass.getuser(), when=now_utc())
    print(f"the token {name} is revoked")


@app.command()
def audit(
    workflow: Annotated[str | None, typer.Argument(help="Only what concerns this workflow alone.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show who promoted, rolled back, uploaded, or changed tokens, when and why; newest first.

    Example: pinmill audit docstrings
    """
    from pinmill.tokens import read_audit

    project = open_project()
    rows, known = read_audit(project, workflow), project.workflows()
    if workflow and not rows and workflow not in known:
        raise ParameterError(f"no workflow {workflow!r} and nothing about it.{did_you_mean(workflow, known)}")
    shown = [{**row, "when (UTC)": row["when"][:19]} for row in rows]
    print_json(rows) if as_json else print_table(shown, ["when (UTC)", "who", "what", "workflow", "detail"])
