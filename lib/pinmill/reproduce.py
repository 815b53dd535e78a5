"""Make a model again from what its run recorded, in a scratch project, and say whether it is the same to the byte."""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinmill.board import Board, Pin
from pinmill.compare import find_version, list_changes, predict_rows
from pinmill.errors import PinmillError, RunError, describe_problems
from pinmill.fingerprint import hash_modules
from pinmill.notebook import read_cells, read_stage, read_tags
from pinmill.pin import render_metadata
from pinmill.progress import LineProgress
from pinmill.project import Project
from pinmill.runs import StageRecord, read_record
from pinmill.storage import DATA_TXT
from pinmill.trace import executed_notebook, trace_input

INJECTED = "injected-parameters"  # papermill's tag; the recorded parameters are injected anew
PATIENCE = 7 * 86400.0  # s; somebody waits for it, and can stop it


@dataclass(frozen=True)
class Recorded:
    """What a run left of the training of a model: all that it takes to do it again."""

    model: Pin
    inputs: tuple[Pin, ...]
    executed: Path
    stage: StageRecord


def find_recorded(project: Project, workflow: str, version: str) -> Recorded:
    """What is needed to train a model version again. Raises RunError that names all that is gone or damaged."""
    model = project.board.pin(f"{workflow}-model", version)
    lineage, executed = model.lineage, executed_notebook(project, workflow, model.lineage)
    if str(lineage.get("run", "adhoc")).startswith("adhoc"):
        raise RunError(f"{model.name} {version} was trained by hand: its notebook was not kept. Take one of a run.")
    outside = ["it lies outside the board, and what it held then was not kept"]
    traced = [trace_input(project, given, (version,)) for given in lineage["inputs"]]
    problems = [f"input {each['name']}: {problem}" for each in traced for problem in each.get("problems", outside)]
    problems += [] if executed.is_file() else [f"the executed notebook {project.relative(executed)} is gone"]
    stages = []
    try:
        record = read_record(project.runs_folder(workflow), executed.parent.name)
        stages = [stage for stage in record.stages if stage.notebook == executed.stem]
        problems += [] if stages else [record.error or f"run {record.run} says nothing of {executed.stem}"]
    except RunError as error:
        problems.append(str(error))
    if problems:
        advice = f"Restore it from a backup, or train a new version: pinmill run {workflow} --from train"
        raise RunError(f"{describe_problems(f'what {model.name} {version} was made from', problems)}. {advice}")
    inputs = tuple(project.board.pin(each["name"], each["version"]) for each in traced)
    return Recorded(model, inputs, executed, stages[0])


def make_scratch(project: Project, workflow: str, recorded: Recorded, root: Path) -> Project:
    """A project at `root` that holds one stage as it was executed, its recorded parameters, and its inputs."""
    import xxhash
    import yaml

    for folder in ("params", "notebooks"):
        (root / folder).mkdir()
    if project.lock_file.is_file():
        shutil.copy(project.lock_file, root)
    (root / "params" / f"{workflow}.yaml").write_text(yaml.safe_dump(recorded.model.lineage["parameters"]))
    cells = [cell for cell in read_cells(recorded.executed) if INJECTED not in read_tags(cell)]
    emptied = [c | {"outputs": [], "execution_count": None} if c["cell_type"] == "code" else c for c in cells]
    notebook = {"cells": emptied, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (root / "notebooks" / recorded.executed.name).write_text(json.dumps(notebook))
    for pin in recorded.inputs:
        data, folder = project.board.read_file(pin), root / "outputs" / "pins" / pin.name / pin.version
        folder.mkdir(parents=True)
        (folder / next(iter(pin.files))).write_bytes(data)
        (folder / DATA_TXT).write_bytes(render_metadata(pin, pin_hash=xxhash.xxh64_hexdigest(data)))
    path = os.pathsep.join(filter(None, (str(project.root), project.settings.get("PYTHONPATH"))))  # its own modules
    own = {"PINMILL_HOME": str(root), "PINMILL_BOARD": "outputs/pins", "PYTHONPATH": path, "PINMILL_NOTIFY": ""}
    return Project(root, {**project.settings, **own})


def run_scratch(scratch: Project, workflow: str, recorded: Recorded, progress: LineProgress, keep: bool) -> StageRecord:
    """Run the one stage of a scratch project as the runner runs every stage. Raises RunError when it fails."""
    from pinmill.params import RunSettings
    from pinmill.plan import Plan
    from pinmill.runner import KEPT, run_job

    stage, given = read_stage(scratch.notebooks / recorded.executed.name), recorded.model.lineage["parameters"]
    values = {name: given.get(name, declared.default) for name, declared in stage.declarations.items()}
    origins, settings = dict.fromkeys(values, "recorded"), RunSettings(timeout=PATIENCE)
    record = run_job(scratch, Plan(workflow, stage.job, (stage,), values, origins, settings), progress)
    if record.status != "succeeded":
        error, _, executed = record.error.partition(KEPT)
        kept = f"{KEPT}{scratch.root / executed}" if executed else f"\nThe scratch project is kept: {scratch.root}"
        removed = "\nThe scratch project is removed. Keep it, to look into it, with --keep"
        raise RunError(f"{stage.stem} failed in the scratch project: {error}{kept if keep else removed}")
    return record.stages[0]


def reproduce(
    project: Project, workflow: str, given: str, progress: LineProgress, *, keep: bool = False
) -> dict[str, Any]:
    """Train a model version again; the project's own board and runs are only read.

    `difference` is as in `find_difference`, None for the same bytes; `changes`, as in `list_changes`, is all that is
    not as it was; `notebook_now` tells of the one in notebooks/; `kept` is the scratch project, None when removed.
    """
    recorded = find_recorded(project, workflow, find_version(project, workflow, given)["version"])
    model, path = recorded.model, project.notebooks / recorded.executed.name
    present = read_stage(path) if path.is_file() else None
    root = Path(tempfile.mkdtemp(prefix="pinmill-reproduce-")).resolve()
    try:
        scratch = make_scratch(project, workflow, recorded, root)
        stage = run_scratch(scratch, workflow, recorded, progress, keep)
        modules = {**recorded.stage.parts["modules"], **stage.parts["modules"]}
        now = stage.parts | {"modules": hash_modules(modules, project.root)}
        again = scratch.board.pin(model.name)
        same = again.sha256 == model.sha256
        return {
            "workflow": workflow,
            "version": model.version,
            "run": recorded.stage.run,
            "ran": stage.notebook,
            "same": same,
            "sha256": {"recorded": model.sha256, "again": again.sha256},
            "difference": None if same else find_difference(project.board, scratch.board, recorded, again),
            "changes": list_changes(model.lineage | recorded.stage.parts, again.lineage | now),
            "notebook_now": "the same" if present and present.code_hash == model.lineage["code"] else "changed or gone",
            "kept": str(root) if keep else None,
        }
    finally:
        if not keep:
            shutil.rmtree(root)


def find_difference(board: Board, scratch: Board, recorded: Recorded, again: Pin) -> dict[str, Any]:
    """{n, changed, largest, problem}: rows of the test part, how many got another prediction, by how much at most.

    `largest` is the largest absolute difference of probabilities or, in a regression, of values; None, with the
    problem in words, where it cannot be told.
    """
    from pinmill.model import load_model

    try:
        (data,) = (pin for pin in recorded.inputs if pin.name.endswith("-data"))
        rows = board.read_table(data)
        pins = ((recorded.model.facts, board.read_file(recorded.model)), (again.facts, scratch.read_file(again)))
        old, new = (predict_rows(load_model(file), facts, rows[rows["_part"] == "test"]) for facts, file in pins)
    except (PinmillError, ValueError, KeyError) as error:
        return {"n": 0, "changed": None, "largest": None, "problem": f"{type(error).__name__}: {error}"}
    told = {"n": len(old.truth), "changed": int((old.predicted != new.predicted).sum())}
    sides = (old.probability, new.probability) if old.classes else (old.predicted, new.predicted)
    if old.classes != new.classes or any(side is None for side in sides):
        return told | {"largest": None, "problem": "the models give no probabilities that can be compared"}
    return told | {"largest": float(abs(sides[0] - sides[1]).max(initial=0.0)), "problem": None}
