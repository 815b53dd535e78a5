"""The command that serves a workflow's champion from the serving notebook."""

import resource
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from pinmill.errors import ParameterError, RunError
from pinmill.project import open_project
from pinmill.terminal import Workflow
from pinmill.visit import is_local

if TYPE_CHECKING:
    import uvicorn

app = typer.Typer()

GRACE = 30  # s that requests which were accepted have to be answered when the service is ended
BACKLOG = 2048  # connections that may wait to be taken
FILES = 65_536  # that may be open: connections, and what the kernels and the store need
OPEN = "there are no tokens: anybody on this machine may do everything, nobody else anything"
KEEP_ALIVE = 75  # s that an idle connection stays open: longer than a proxy in front keeps its own


@app.command()
def serve(
    workflow: Workflow,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine only with tokens.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any that is free.", min=0, max=65535)] = 8080,
    kernels: Annotated[int, typer.Option(help="Kernels that answer side by side.", min=1, max=64)] = 1,
    deadline: Annotated[float, typer.Option(help="Seconds a request may take.", min=0.1, max=3600)] = 10.0,
    max_body: Annotated[int, typer.Option(help="Bytes of the largest body.", min=1000, max=1_000_000_000)] = 2_000_000,
    max_rows: Annotated[int, typer.Option(help="Rows of the largest call.", min=1, max=1_000_000)] = 10_000,
    rate: Annotated[
        int, typer.Option(help="Requests a minute for each token, or address without one; 0: no limit.", min=0)
    ] = 0,
    cache: Annotated[bool, typer.Option(help="Answer known inputs from the cache.")] = True,
    allow_get: Annotated[bool, typer.Option(help="Allow GET /prediction, whose texts proxies log.")] = False,
    trusted_proxy: Annotated[
        list[str] | None, typer.Option(metavar="ADDRESS", help="A proxy whose X-Forwarded-For is believed; repeatable.")
    ] = None,
) -> None:
    """Serve the champion over HTTP from notebooks/serve.ipynb, until it is ended with Ctrl-C or SIGTERM.

    Example: pinmill serve docstrings --port 8080
    """
    from pinmill.plan import make_plan
    from pinmill.seed import start_serving

    project = open_project()
    plan = make_plan(project, workflow, job="serve", assignments=[], tells=False)
    with ExitStack() as ends:
        handle_signals(leave)
        allow_files()
        kernel = start_serving(project.root, project.settings, plan.stages[0].path.name)  # it takes longer than we do
        ends.callback(kernel.stop)
        from pinmill.gateway import Gateway, Options
        from pinmill.secret import scrub

        options = Options(kernels, deadline, max_body, max_rows, rate=rate, cache=cache, allow_get=allow_get)
        gateway = Gateway(project, plan, options)
        is_open = gateway.door.tokens.empty
        if is_open and not is_local(host):
            advice = "Make one first: pinmill token create NAME --role scorer"
            raise ParameterError(f"--host {host}: without tokens only this machine is served. {advice}")
        listening = open_socket(host, port)
        whom = OPEN if is_open else "with tokens"
        print(f"{workflow}: http://{show_host(host)}:{listening.getsockname()[1]} ({whom})", flush=True)
        server = make_server(gateway, trusted_proxy or [])
        gateway.pool.ahead.append(kernel)
        ends.pop_all()
    server.run(sockets=[listening])
    if gateway.pool.fatal:
        raise RunError(scrub(gateway.pool.fatal, gateway.hidden))


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises ParameterError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)  # from now on callers wait, and are not refused
    except OSError as error:
        listening.close()
        said = (error.strerror or str(error)).lower()
        raise ParameterError(f"cannot listen on {host}, port {port}: {said}. Take another --port or --host.") from None
    return listening


def show_host(host: str) -> str:
    """A host as it stands in an address."""
    return f"[{host}]" if ":" in host else host


def allow_files() -> None:
    """Have as many files and connections open as this user may: usual are 1,024, which callers could use up."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
    if resource.RLIM_INFINITY != now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def handle_signals(act: Callable[..., None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, act)


def leave(*_: object) -> None:
    """End at once: nothing was accepted yet."""
    raise SystemExit(0)


def make_server(gateway: object, trusted: list[str]) -> "uvicorn.Server":
    """The server, which from now on ends with a signal, once it has answered what was accepted."""
    import uvicorn

    from pinmill.protocol import BoundedProtocol

    config = uvicorn.Config(
        gateway,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=bool(trusted),
        forwarded_allow_ips=trusted,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )
    server = uvicorn.Server(config)
    handle_signals(lambda *_: setattr(server, "should_exit", True))  # also when uvicorn raises it again in the end
    return server
