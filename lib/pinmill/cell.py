"""What a kernel can know of the notebook it runs: its parameters cell, what was injected, which stage it is."""

import ast
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pinmill.errors import ProjectError
from pinmill.notebook import Stage, find_parameters_cell, parse_declarations, read_every_stage

INJECTED = "# Parameters\n"  # first line of the cell that papermill adds


def read_names(source: str) -> set[str]:
    """Names that a cell's source assigns at its top level; none when it is not plain Python."""
    try:
        nodes = ast.parse(source).body
    except SyntaxError:
        return set()
    targets = [
        t
        for n in nodes
        if isinstance(n, ast.Assign | ast.AnnAssign)
        for t in getattr(n, "targets", [n.target] if isinstance(n, ast.AnnAssign) else [])
    ]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def find_executed(history: Sequence[str]) -> tuple[set[str], set[str]]:
    """Names of the parameters cell that was executed last, and of those that papermill injected after it."""
    cells = [(index, names) for index, source in enumerate(history) if "workflow" in (names := read_declared(source))]
    if not cells:
        raise ProjectError("no parameters cell was run before this one: run the notebook from its top.")
    index, declared = cells[-1]
    injected = [read_names(source) for source in history[index + 1 :] if source.startswith(INJECTED)]
    return declared, injected[-1] if injected else set()


def read_declared(source: str) -> set[str]:
    """Names that a source declares as a parameters cell does; none when it is another cell."""
    try:
        return set(parse_declarations(source))
    except (ValueError, SyntaxError):
        return set()


def match_stage(stages: Sequence[Stage], declared: set[str], hint: str) -> Stage:
    """The stage whose parameters are most like those executed; `hint`, a file's stem, decides between equals."""

    def likeness(stage: Stage) -> tuple[float, bool]:
        names = set(stage.declarations)
        return len(names & declared) / len(names | declared), stage.stem == hint

    best = max(stages, key=likeness, default=None)
    if best is None or likeness(best)[0] < 0.5:
        raise ProjectError(
            "this notebook is none of the stages in notebooks/: its front matter needs 'pinmill: {job: …}'."
        )
    return best


def read_committed_defaults(stage: Stage, root: Path) -> dict[str, Any]:
    """Defaults of a stage's parameters as committed in git, so that an edited and saved cell is seen as edited.

    Without git, or for a notebook that is new, those of the file itself.
    """
    name = stage.path.relative_to(root).as_posix()
    command = ["git", "-C", str(root), "show", f"HEAD:./{name}"]
    declared = dict(stage.declarations)
    try:
        shown = subprocess.run(command, capture_output=True, check=False)
    except OSError:  # no git on this machine
        shown = None
    if shown and shown.returncode == 0:
        cells = [{**cell, "source": "".join(cell["source"])} for cell in json.loads(shown.stdout)["cells"]]
        declared |= parse_declarations(find_parameters_cell(cells))
    return {name: declaration.default for name, declaration in declared.items()}


def find_stage(root: Path, history: Sequence[str], environ: Mapping[str, str]) -> tuple[Stage, set[str]]:
    """The stage that a kernel runs, and the names that were injected into it. Raises ProjectError."""
    declared, injected = find_executed(history)
    hint = Path(environ.get("JPY_SESSION_NAME", "")).stem
    return match_stage(read_every_stage(root / "notebooks"), declared, hint), injected
