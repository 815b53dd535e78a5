"""Commands about a project: make one, examine it, hand a model of it to others."""

import getpass
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from pinmill.errors import ParameterError
from pinmill.project import Project, open_project
from pinmill.terminal import AsJson, Workflow, print_json
from pinmill.version import now_utc

app = typer.Typer()
export = typer.Typer(help="Hand a model to another system.\n\nExample: pinmill export vetiver docstrings")
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="A file, or a folder for it.", show_default="outputs/production")
]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Where the gateway listens.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
app.add_typer(export, name="export")


@app.command()
def new(
    folder: Annotated[Path, typer.Argument(help="The folder to make; it must be new or empty.", show_default=False)],
    table: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Your table: CSV, TSV, Parquet or JSON lines.")
    ] = None,
    label: Annotated[str, typer.Option(help="The column of the table to predict.")] = "",
) -> None:
    """Make a project: notebooks, params, schedule, Makefile and lock file; without a table, the demonstration.

    The table is copied into the project, and params are written that fit it. Made whole or not at all.

    Example: pinmill new churn --from tickets.csv --label left
    """
    from pinmill.scaffold import make_project, read_table

    if bool(table) != bool(label):
        raise ParameterError(
            "a table and the column to predict go together: pinmill new DIR --from FILE --label COLUMN"
        )
    source = read_table(table, label) if table else None
    workflow = make_project(folder, source)
    if source:
        from pinmill.columns import LEFT_OUT

        print(f"{source.rows:,} rows, copied to {folder / source.copy}")
        for column, kind in source.left_out.items():
            print(f"  left out  {column} ({kind}: {LEFT_OUT[kind]})")
    print(f"made {folder}. Next:\n  cd {quote(str(folder))}\n  pinmill run {workflow}\n  make lab")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Examine what a run needs: packages, kernel, Quarto, board, store, params, disk, clock and git.

    Then what is in operation: schedule, last runs, tokens, backup and incidents.

    Exit code 1 when there is a problem; a warning is none.

    Example: pinmill doctor --json
    """
    from dataclasses import asdict

    from pinmill.doctor import examine

    findings = examine(open_project(), now=now_utc())
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            print(f"{finding.level:8} {finding.check:11} {finding.found}")
            if finding.fix:
                print(f"{'':20} → {finding.fix}")
    raise typer.Exit(1 if any(finding.level == "problem" for finding in findings) else 0)


@export.command()
def vetiver(
    workflow: Workflow,
    version: Annotated[str | None, typer.Argument(help="A model version; default: the champion.")] = None,
) -> None:
    """Write a model as the pin W-vetiver, which vetiver loads and serves.

    That pin is a pickle: who loads it runs whatever code stands in it, so only with a board you trust. Pinmill itself
    never loads it.

    Example: pinmill export vetiver docstrings
    """
    from pinmill.export import export_vetiver

    project = open_project()
    pin = export_vetiver(project, workflow, version, by=getpass.getuser())
    (model,) = pin.lineage["inputs"]
    print(f"{pin.name} {pin.version} on {project.board.url}, from {model['name']} {model['version']}")
    print("It is a pickle: loading it runs code, so load it only from a board that you trust.")
    print(f'  VetiverModel.from_pin(pins.board_folder("{project.board.url}", allow_pickle_read=True), "{pin.name}")')


@export.command()
def nginx(
    workflow: Workflow,
    output: Output = None,
    name: Annotated[str, typer.Option(help="The host name that clients use.")] = "model.example.org",
    certificate: Annotated[str, typer.Option(metavar="FILE", help="Default: /etc/ssl/certs/NAME.pem.")] = "",
    key: Annotated[str, typer.Option(metavar="FILE", help="Default: /etc/ssl/private/NAME.key.")] = "",
    port: Port = 8080,
    force: Force = False,
) -> None:
    """Write a configuration of nginx for TLS in front of `pinmill serve`, without texts or tokens in its log.

    Example: pinmill export nginx docstrings --name model.example.org
    """
    from pinmill.production import choose_file, render_nginx, write_files

    project = open_for(workflow)
    file = choose_file(project, "nginx", workflow, output)
    write_files({file: render_nginx(workflow, port=port, name=name, certificate=certificate, key=key)}, force=force)
    target = f"/etc/nginx/conf.d/pinmill-{workflow}.conf"
    print(f"wrote {file}, for {name} and this machine. Look at its lines marked 'edit'. Next, as root:")
    print(f"  cp {quote(str(file))} {target} && nginx -t && nginx -s reload")


@export.command()
def systemd(
    workflow: Workflow,
    output: Output = None,
    user: Annotated[str, typer.Option(help="Who it runs as; default: the owner of the project's folder.")] = "",
    port: Port = 8080,
    force: Force = False,
) -> None:
    """Write a hardened unit of systemd that keeps `pinmill serve` running.

    Example: pinmill export systemd docstrings
    """
    from pinmill.production import choose_file, render_systemd, write_files

    project = open_for(workflow)
    file, user = choose_file(project, "systemd", workflow, output), user or project.root.owner()
    write_files({file: render_systemd(workflow, port=port, root=project.root, user=user)}, force=force)
    print(f"wrote {file}, for {user} on this machine. Next, as root:")
    print(f"  cp {quote(str(file))} /etc/systemd/system/pinmill-{workflow}.service")
    print(f"  systemctl daemon-reload && systemctl enable --now pinmill-{workflow}")


@export.command()
def docker(workflow: Workflow, output: Output = None, port: Port = 8080, force: Force = False) -> None:
    """Write a slim Dockerfile, and a .dockerignore beside it, for an image that runs `pinmill serve`.

    Example: pinmill export docker docstrings
    """
    from pinmill.production import choose_file, render_docker, write_files

    project = open_for(workflow)
    file = choose_file(project, "docker", workflow, output and output.resolve())
    files = render_docker(workflow, port=port, root=project.root, file=file)
    write_files(files, force=force)
    print(f"wrote {' and '.join(map(str, files))}. Next, in {project.root}; how to run it stands in the file:")
    print(f"  docker build -f {quote(project.relative(file))} -t pinmill-{workflow} .")


def open_for(workflow: str) -> Project:
    """The project here, which has that workflow. Raises ParameterError."""
    from pinmill.plan import load_workflow

    project = open_project()
    load_workflow(project, workflow)
    return project
