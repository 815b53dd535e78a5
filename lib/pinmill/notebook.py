"""A stage's notebook as it stands in git: its front matter, its declared parameters, its code."""

import ast
import hashlib
import io
import json
import re
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from pinmill.errors import ProjectError, describe_problems
from pinmill.pin import NAME

NUMBERED = re.compile(r"^\d+[a-z]?-")
COMMENT = re.compile(  # choices have a bar: `{C: 4}` is an example in the meaning
    r"(?P<meaning>.*?)(\s*\[(?P<unit>[^\[\]]+)\])?"
    r"(\s*\{(?P<choices>[^{}|]+(\|[^{}|]+)+)\}|(^|\s+)(?P<low>-?[\d.e+-]*?)\.\.(?P<high>-?[\d.e+-]*))?"
)


@dataclass(frozen=True)
class Declaration:
    """One parameter of a notebook: `name: type = default  # meaning [unit] low..high`, or `# meaning {a|b}`."""

    name: str
    type: str
    default: Any
    meaning: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """One notebook that takes part in a job. `code` holds the source of each code cell, the parameters left out."""

    name: str
    path: Path
    title: str
    job: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    declarations: dict[str, Declaration] = field(hash=False)
    code: tuple[str, ...]
    page: str = ""  # name of the page that people read, where the executed notebook is one

    @property
    def stem(self) -> str:
        return self.path.stem

    @cached_property
    def code_hash(self) -> str:
        return hashlib.sha256("\n# %%\n".join(self.code).encode()).hexdigest()


def parse_comment(comment: str) -> dict[str, Any]:
    """The parts of a parameter's comment that are there: meaning, unit, low, high, choices."""
    match = COMMENT.fullmatch(comment.lstrip("#").strip())
    found: dict[str, Any] = {name: text.strip() for name, text in match.groupdict().items() if text}
    if "choices" in found:
        found["choices"] = tuple(choice.strip() for choice in found["choices"].split("|"))
    return {"meaning": "", **found, **{bound: float(found[bound]) for bound in ("low", "high") if bound in found}}


def parse_declarations(source: str) -> dict[str, Declaration]:
    """The parameters that a `parameters` cell declares, in order. Raises ValueError with all that is no declaration."""
    tree = ast.parse(source)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    declarations: dict[str, Declaration] = {}
    problems = []
    for node in tree.body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None):
            problems.append(f"line {node.lineno} is not 'name: type = constant  # meaning'")
            continue
        name = node.target.id
        try:
            default = ast.literal_eval(node.value)
            comment = parse_comment(comments.get(node.end_lineno or node.lineno, ""))
        except ValueError as error:
            problems.append(f"line {node.lineno}, {name}: {error}; a constant and a range such as 0..1 were expected")
            continue
        if not comment["meaning"]:
            problems.append(f"line {node.lineno}, {name} has no meaning: add '  # what it is'")
        declarations[name] = Declaration(name=name, type=ast.unparse(node.annotation), default=default, **comment)
    if problems:
        raise ValueError("; ".join(problems))
    return declarations


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook file, each with its source as one string. Raises ProjectError when it is not one."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return [{**cell, "source": "".join(cell["source"])} for cell in cells]
    except FileNotFoundError:
        raise ProjectError(f"no notebook at {path}.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ProjectError(f"{path} is not a notebook: {error}. Restore it from git.") from None


def read_front_matter(cells: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The YAML between `---` lines in a first cell that is raw, otherwise an empty mapping. Raises ProjectError."""
    if not cells or cells[0].get("cell_type") != "raw":
        return {}
    text = cells[0]["source"].strip().removeprefix("---").removesuffix("---")
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ProjectError(f"the front matter of {name} is not YAML: {' '.join(str(error).split())}.") from None
    return found if isinstance(found, dict) else {}


def read_tags(cell: dict[str, Any]) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def find_parameters_cell(cells: list[dict[str, Any]]) -> str:
    """The source of the cell tagged `parameters`; empty when there is none."""
    return next((cell["source"] for cell in cells if "parameters" in read_tags(cell)), "")


def read_stage(path: Path) -> Stage | None:
    """The stage a notebook is; None without `pinmill: {job: …}` in its front matter. Raises ProjectError."""
    cells = read_cells(path)
    front = read_front_matter(cells, path.name)
    settings = front.get("pinmill") or {}
    if not isinstance(settings, dict) or "job" not in settings:
        return None
    try:
        declarations = parse_declarations(find_parameters_cell(cells))
    except (ValueError, SyntaxError) as error:
        raise ProjectError(f"the parameters cell of notebooks/{path.name}: {error}.") from None
    page = settings.get("page") or ""
    if page and not NAME.fullmatch(str(page)):
        expected = "lower-case letters, digits, - and _ were expected, as in model-card"
        raise ProjectError(f"the front matter of notebooks/{path.name} names the page {page!r}: {expected}.")
    return Stage(
        name=settings.get("stage") or NUMBERED.sub("", path.stem),
        path=path,
        title=str(front.get("title", path.stem)),
        job=settings["job"],
        reads=tuple(settings.get("reads") or ()),
        writes=tuple(settings.get("writes") or ()),
        page=str(page),
        declarations=declarations,
        code=tuple(c["source"] for c in cells if c["cell_type"] == "code" and "parameters" not in read_tags(c)),
    )


def read_every_stage(folder: Path) -> list[Stage]:
    """All notebooks of a folder that are stages, by file name; several may be the same stage."""
    return [stage for path in sorted(folder.glob("*.ipynb")) if (stage := read_stage(path)) is not None]


def read_stages(folder: Path, replaced: dict[str, Path] | None = None) -> list[Stage]:
    """All stages of a folder of notebooks, by file name; `replaced` gives other notebooks for some stages.

    Two notebooks may be the same stage (`stage: train`): the one whose file bears the stage's name is the default.
    """
    replaced = replaced or {}
    found = read_every_stage(folder)
    stages = [stage for stage in found if NUMBERED.sub("", stage.stem) == stage.name and stage.name not in replaced]
    for name, path in replaced.items():
        stage = read_stage(path)
        if stage is None or stage.name != name:
            raise ProjectError(f"{path} is not a notebook for stage {name!r}: its front matter needs 'stage: {name}'.")
        stages.append(stage)
    return sorted(stages, key=lambda stage: stage.stem)


def order_stages(stages: Iterable[Stage], job: str) -> list[Stage]:
    """The stages of a job, each after those whose pins it reads, ties by file name. Raises ProjectError."""
    stages = list(stages)
    waiting = [stage for stage in stages if stage.job == job]
    if not waiting:
        jobs = ", ".join(sorted({stage.job for stage in stages})) or "none"
        raise ProjectError(f"no notebook belongs to job {job!r}; the jobs here are: {jobs}.")
    kinds = [kind for stage in waiting for kind in (*stage.writes, *([f"page {stage.page}"] if stage.page else []))]
    if repeated := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
        raise ProjectError(describe_problems(f"job {job!r}", [f"{kind!r} is written twice" for kind in repeated]))
    ordered: list[Stage] = []
    while waiting:
        pending = {kind for stage in waiting for kind in stage.writes}
        ready = [stage for stage in waiting if not pending & (set(stage.reads) - set(stage.writes))]
        if not ready:
            names = ", ".join(stage.stem for stage in waiting)
            raise ProjectError(f"the stages {names} wait for each other: look at what they read and write.")
        ordered.append(ready[0])
        waiting.remove(ready[0])
    return ordered
