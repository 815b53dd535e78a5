"""Files to serve a workflow in production, filled in for one machine: nginx, systemd, Docker."""

import re
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from pinmill import __version__
from pinmill.errors import ParameterError, ProjectError, describe_problems
from pinmill.project import Project

PLAIN = re.compile(r"[\w./@:+, -]+")  # has the same meaning in a unit, in nginx and in a shell's quotes
NAMES = {"nginx": "pinmill-{}.nginx.conf", "systemd": "pinmill-{}.service", "docker": "{}.Dockerfile"}
SOURCE = """\
COPY pyproject.toml README.md LICENSE ./
COPY lib ./lib
RUN pip install --no-deps --no-build-isolation ."""
WHEEL = """\
# Pinmill itself: put its wheel into the project's root.
COPY pinmill-{version}-py3-none-any.whl ./
RUN pip install --no-deps pinmill-{version}-py3-none-any.whl"""


def choose_file(project: Project, kind: str, workflow: str, target: Path | None) -> Path:
    """Where a file goes: `target`, in it if that is a folder, and without it outputs/production."""
    folder = target or project.outputs / "production"
    return folder / NAMES[kind].format(workflow) if target is None or target.is_dir() else target


def render_nginx(workflow: str, *, port: int, name: str, certificate: str, key: str) -> str:
    """nginx's configuration: TLS for `name` in front of the gateway at `port`. Raises ParameterError."""
    names = {"certificate": certificate or f"/etc/ssl/certs/{name}.pem", "key": key or f"/etc/ssl/private/{name}.key"}
    return fill("nginx.conf", workflow=workflow, port=str(port), name=name, **names)


def render_systemd(workflow: str, *, port: int, root: Path, user: str) -> str:
    """A unit that runs the gateway as `user`, who can write to outputs/ and reports/ alone. Raises ParameterError."""
    program = str(Path(sys.executable).with_name("pinmill"))
    return fill("systemd.service", workflow=workflow, port=str(port), root=str(root), user=user, program=program)


def render_docker(workflow: str, *, port: int, root: Path, file: Path) -> dict[Path, str]:
    """`file`, a Dockerfile, and the .dockerignore beside it. Raises ParameterError."""
    from_source = (root / "lib" / "pinmill" / "__init__.py").is_file()
    install = SOURCE if from_source else WHEEL.replace("{version}", __version__)
    needed = "!pyproject.toml\n!README.md\n!LICENSE\n!lib" if from_source else "!*.whl"
    shown = str(file.relative_to(root)) if file.is_relative_to(root) else str(file)
    dockerfile = fill("Dockerfile", workflow=workflow, port=str(port), file=shown)
    ignored = fill("dockerignore")
    beside = file.with_name(f"{file.name}.dockerignore")
    return {file: dockerfile.replace("{install}", install), beside: ignored.replace("{needed}", needed)}


def fill(template: str, **values: str) -> str:
    """A template with its values. Raises ParameterError with all values that would mean something else in it."""
    odd = [f"{name} is {value!r}" for name, value in values.items() if not PLAIN.fullmatch(value)]
    if odd:
        expected = "only letters, digits, spaces and . / @ : + , _ - were expected"
        raise ParameterError(f"{describe_problems(template, odd)}: {expected}. Rename it, or edit the file by hand.")
    text = (resources.files("pinmill") / "production" / template).read_text("utf-8")
    for name, value in {**values, "version": __version__}.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def write_files(files: Mapping[Path, str], *, force: bool) -> None:
    """Write files, or none of them. Raises ProjectError if one is there already, unless `force` replaces it."""
    there = [str(file) for file in files if file.exists() and not force]
    if there:
        raise ProjectError(f"{' and '.join(there)} would be overwritten. Add --force, or name another file with -o")
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
