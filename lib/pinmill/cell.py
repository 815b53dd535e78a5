"""What a kernel can know of the notebook it runs: its parameters cell, what was injected, which stage it is."""

import ast
import json
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pinmill.errors import ProjectError
from pinmill.notebook import Stage, find_parameters_cell, parse_declarations, read_every_stage

INJECTED = "# Parameters\n"  # first line of the cell that papermill adds


def read_names(source: str) -> set[str]:
    """Names that papermill's cell assigns; none when the source is not plain Python."""
    with suppress(SyntaxError):
        targets = (node.targets[0] for node in ast.parse(source).body if isinstance(node, ast.Assign))
        return {target.id for target in targets if isinstance(target, ast.Name)}
    return set()


def read_declared(source: str) -> set[str]:
    """Names that a source declares as a parameters cell does; none when it is another cell."""
    with suppress(ValueError, SyntaxError):
        return set(parse_declarations(source))
    return set()


def find_executed(history: Sequence[str]) -> tuple[set[str], set[str]]:
    """Names of the parameters cell that was executed last, and of those that papermill injected after it."""
    injected: set[str] = set()
    for source in reversed(history):
        if source.startswith(INJECTED):
            injected = injected or read_names(source)
        elif "workflow" in (declared := read_declared(source)):
            return declared, injected
    raise ProjectError("no parameters cell was run before this one: run the notebook from its top.")


def match_stage(stages: Sequence[Stage], declared: set[str], hint: str) -> Stage:
    """The stage whose parameters are most like those executed; `hint`, a file's stem, decides between equals."""

    def likeness(stage: Stage) -> tuple[float, bool]:
        names = set(stage.declarations)
        return len(names & declared) / len(names | declared), stage.stem == hint

    best = max(stages, key=likeness, default=None)
    if best is None or likeness(best)[0] < 0.5:
        needed = "its front matter needs 'pinmill: {job: …}'"
        raise ProjectError(f"this notebook is none of the stages in notebooks/: {needed}.")
    return best


def read_committed_defaults(stage: Stage, root: Path) -> dict[str, Any]:
    """Defaults of a stage's parameters in the last commit, so that a saved edit is seen; without one the file's own."""
    command = ["git", "-C", str(root), "show", f"HEAD:./{stage.path.relative_to(root).as_posix()}"]
    declared = dict(stage.declarations)
    with suppress(OSError, subprocess.CalledProcessError):
        shown = subprocess.run(command, capture_output=True, check=True)
        cells = [{**cell, "source": "".join(cell["source"])} for cell in json.loads(shown.stdout)["cells"]]
        declared |= parse_declarations(find_parameters_cell(cells))
    return {name: declaration.default for name, declaration in declared.items()}


def find_stage(root: Path, history: Sequence[str], environ: Mapping[str, str]) -> tuple[Stage, set[str]]:
    """The stage that a kernel runs, and the names that were injected into it. Raises ProjectError."""
    declared, injected = find_executed(history)
    hint = Path(environ.get("JPY_SESSION_NAME", "")).stem
    return match_stage(read_every_stage(root / "notebooks"), declared, hint), injected
