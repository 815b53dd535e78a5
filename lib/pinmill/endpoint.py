"""The endpoints of a serving notebook: its annotated cells, in the notebook-http conventions of Jupyter's gateway."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pinmill.errors import ProjectError, describe_problems, did_you_mean
from pinmill.notebook import read_cells, read_tags
from pinmill.visit import WHO

SHAPES = ("one", "vetiver")
ANNOTATION = re.compile(  # after nothing but comments: a cell with one above its annotation is an endpoint, too
    r"(?:[ \t]*(?:#.*)?\n)*?#[ \t]+(?P<info>ResponseInfo[ \t]+)?(?P<method>GET|PUT|POST|DELETE)[ \t]+(?P<path>/\S*)"
)
HEADING = re.compile(r"^#{1,6}[ \t]+(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Endpoint:
    """One cell that answers requests."""

    method: str
    path: str  # as /args/{name}
    source: str
    info: str = ""  # source of the cell that tells status and headers
    role: str = "modeller"
    row_wise: bool = False  # takes a list of rows, prints a list of the same length
    of: str = ""  # path of the row-wise cell that this one is another shape of
    shape: str = ""  # "one": a row for a list of one; "vetiver": {"predict": […]}
    args: tuple[str, ...] = ()  # of a row-wise cell, names in the query string that are its own
    summary: str = ""  # the heading above the cell
    description: str = ""  # the prose above the cell

    @property
    def name(self) -> str:
        """The annotation, as POST /predictions."""
        return f"{self.method} {self.path}"

    @cached_property
    def hash(self) -> str:
        """Identity of what the cell does: SHA-256, hex."""
        return hashlib.sha256(f"{self.source}\0{self.info}".encode()).hexdigest()


def read_endpoints(path: Path) -> tuple[list[Endpoint], list[str]]:
    """The endpoints of a notebook, and the sources of its other code cells, both in order.

    The prose of an endpoint is the Markdown between the endpoint before it and its cell. Raises ProjectError with all
    that is wrong: a role or tag that does not exist, an annotation twice, a source that is no row-wise cell.
    """
    endpoints: list[Endpoint] = []
    others, infos, prose, problems = [], {}, [], []
    for cell in read_cells(path):
        found = ANNOTATION.match(cell["source"]) if cell["cell_type"] == "code" else None
        if cell["cell_type"] == "markdown":
            prose.append(cell["source"])
        elif found and found["info"]:
            infos[found["method"], braces(found["path"])] = cell["source"]
        elif found:
            facts, wrong = read_facts(read_tags(cell))
            about = describe_prose("\n\n".join(prose))
            endpoints.append(Endpoint(found["method"], braces(found["path"]), cell["source"], **facts, **about))
            problems += [f"{endpoints[-1].name}: {problem}" for problem in wrong]
            prose = []
        elif cell["cell_type"] == "code":
            others.append(cell["source"])
    told = [replace(endpoint, info=infos.pop((endpoint.method, endpoint.path), "")) for endpoint in endpoints]
    problems += find_problems(told) + [f"ResponseInfo {' '.join(name)} belongs to no endpoint" for name in infos]
    if problems:
        raise ProjectError(describe_problems(path.name, problems) + ". Correct the cell, or its tags.")
    return told, others


def braces(path: str) -> str:
    """`/args/:name` as `/args/{name}`."""
    return re.sub(r":(\w+)", r"{\1}", path)


def read_facts(tags: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """What the tags of a cell say: role, row_wise, of, shape, args; and what is wrong with them."""
    values = {kind: [tag.removeprefix(kind) for tag in tags if tag.startswith(kind)] for kind in ("role-", "shape-")}
    problems = []
    for kind, known in (("role-", WHO), ("shape-", SHAPES)):
        unknown = [value for value in values[kind] if value not in known]
        problems += [f"there is no tag {kind + each!r}.{did_you_mean(each, known)}".rstrip(".") for each in unknown]
        problems += [f"it has {len(values[kind])} tags {kind}…; one is enough"] if len(values[kind]) > 1 else []
    of = [tag.removeprefix("source:") for tag in tags if tag.startswith("source:")]
    facts = {"role": values["role-"][0]} if values["role-"] and not problems else {}
    shape = values["shape-"][0] if values["shape-"] and not problems else ""
    args = tuple(tag.removeprefix("arg-") for tag in tags if tag.startswith("arg-"))
    return {**facts, "row_wise": "row-wise" in tags, "of": of[0] if of else "", "shape": shape, "args": args}, problems


def describe_prose(text: str) -> Mapping[str, str]:
    """Summary (the last heading) and description (what follows it) of the Markdown above a cell."""
    headings = list(HEADING.finditer(text))
    if not headings:
        return {"summary": "", "description": text.strip()}
    return {"summary": headings[-1][1].strip(), "description": text[headings[-1].end() :].strip()}


def find_problems(endpoints: Sequence[Endpoint]) -> list[str]:
    """In words, what is wrong between the endpoints."""
    names = [endpoint.name for endpoint in endpoints]
    rows = {endpoint.path for endpoint in endpoints if endpoint.row_wise}
    twice = [f"{name} stands {names.count(name)} times" for name in dict.fromkeys(names) if names.count(name) > 1]
    lost = [f"{e.name}: its source {e.of} is no row-wise cell" for e in endpoints if e.of and e.of not in rows]
    shapeless = [f"{e.name}: source and shape go together" for e in endpoints if bool(e.of) != bool(e.shape)]
    wrong = [f"{e.name}: a row-wise cell takes POST" for e in endpoints if e.row_wise and e.method != "POST"]
    return twice + lost + shapeless + wrong


def add_get(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """The endpoints, and GET for each that scores one row, where the notebook has no cell for that."""
    names, about = {endpoint.name for endpoint in endpoints}, "As by POST, with the row as the option `input`."
    more = [replace(e, method="GET", description=about) for e in endpoints if e.method == "POST" and e.shape == "one"]
    return [*endpoints, *(endpoint for endpoint in more if endpoint.name not in names)]
