"""The command that opens the annotation notebook as an app, for people who never saw a notebook."""

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from pinmill.cli_serve import handle_signals, leave, open_socket, show_host
from pinmill.errors import ParameterError, ProjectError
from pinmill.project import open_project
from pinmill.terminal import Workflow
from pinmill.visit import HUB_USER, IN_APP, is_local

app = typer.Typer()

NAMED = "there are no tokens: whoever is at this machine says a name"
ASKED = "it asks for a token of the role annotator"


@app.command()
def annotate(
    workflow: Workflow,
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any that is free.", min=0, max=65535)] = 8866,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine only with tokens.")
    ] = "127.0.0.1",
) -> None:
    """Open the screen on which people label texts or records, from notebooks/annotate.ipynb, until it is ended.

    Example: pinmill annotate docstrings --port 8866
    """
    from pinmill.plan import make_plan

    project = open_project()
    plan = make_plan(project, workflow, job="annotate", assignments=[], tells=False)
    if find_spec("voila") is None:
        raise ProjectError("the app needs Voilà: pip install 'pinmill[app]'. Or open notebooks/annotate.ipynb.")
    from pinmill.tokens import read_tokens

    is_open = not project.has_store or read_tokens(project.store).empty
    if is_open and not is_local(host):
        advice = "Make one first: pinmill token create NAME --role annotator"
        raise ParameterError(f"--host {host}: without tokens only this machine is served. {advice}")
    handle_signals(leave)
    listening = open_socket(host, port)
    from pinmill.app import copy_notebook, run_app

    os.environ.update({"PINMILL_HOME": str(project.root), IN_APP: "1"})  # for the kernels
    if not is_local(host):
        os.environ.pop(HUB_USER, None)  # who comes from elsewhere did not sign in at that hub
    with tempfile.TemporaryDirectory(prefix="pinmill-annotate-") as folder:
        notebook = copy_notebook(plan.stages[0].path, Path(folder), workflow)
        address = f"http://{show_host(host)}:{listening.getsockname()[1]}"
        print(f"{workflow}: {address} ({NAMED if is_open else ASKED})", flush=True)
        run_app(notebook, listening, is_local=is_local(host))
