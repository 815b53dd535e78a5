"""What a pin, a run or an answered call came from, all the way back to the source, and what became of it."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pinmill.board import Board, Pin
from pinmill.champion import read_history
from pinmill.errors import BoardError, PinmillError, PinNotFoundError, RunError, did_you_mean
from pinmill.lineage import hash_file
from pinmill.models import list_models
from pinmill.project import Project
from pinmill.runs import list_runs, read_record
from pinmill.version import VERSION, match_short

ABOUT = """source source_sha256 rows train test split dropped annotations task text features label positive classes
hyperparameters candidate"""  # of the facts of a pin, those that say what it is
KEPT = "parameters seed git packages python platform cpu threads blas"  # of its lineage, as they stand there
OUTSIDE_BOARD = ("source", "annotations")  # kinds of inputs that are no pins
REQUEST = re.compile(r"req-[0-9a-z-]{8,40}")  # the id of a call
ROWS = 20  # of a call that are shown
NO_INPUTS = "only hashes of the inputs are kept; log_inputs: true in the params keeps the inputs of later calls"
RECORDED = "run status job started ended champion_before champion_after reasons error warnings"  # of its run


def read_trace(project: Project, given: str) -> dict[str, Any]:
    """Everything that a pin version or a run (a unique beginning or end is enough) or the answer to a call came from.

    What is gone or damaged is said in its place. Raises PinNotFoundError when nothing, or several, have that name.
    """
    if REQUEST.fullmatch(given):
        return trace_call(project, given)
    name, found = find_subject(project, given)
    return trace_pin(project, name, found) if VERSION.fullmatch(found) else trace_run(project, name, found)


def find_subject(project: Project, given: str) -> tuple[str, str]:
    """(pin's name, version) or (workflow, run), by a version or run that may be shortened."""
    board, folders = project.board, sorted(path for path in project.outputs.glob("runs/*") if path.is_dir())
    every = [(name, v) for name in board.names() if not name.endswith("-champion") for v in board.versions(name)]
    every += [(folder.name, run) for folder in folders for run in list_runs(folder)]
    names = match_short(given, (name for _, name in every))
    found = [each for each in every if each[1] in names]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} versions and runs have" if found else "no version or run has"
    near = did_you_mean(given, [which for _, which in every])
    raise PinNotFoundError(f"{what} the name {given!r}.{near} See: pinmill pins, pinmill models, pinmill runs")


def executed_notebook(project: Project, workflow: str, lineage: Mapping[str, Any]) -> Path:
    """Where a run keeps the notebook that wrote a pin, as it was executed."""
    run, stage = Path(str(lineage.get("run"))).name, Path(str(lineage.get("stage"))).name  # metadata is untrusted
    return project.runs_folder(workflow) / run / f"{stage}.ipynb"


def trace_pin(project: Project, name: str, version: str, *, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Where a pin version came from, its inputs included; `above` are the versions that were made from it."""
    board, named = project.board, {"name": name, "version": version}
    try:
        if version in above:
            raise BoardError(f"{name} {version} names itself among its inputs")
        pin = board.pin(name, version)
    except BoardError as error:
        return {**named, "verifies": False, "problems": [str(error)]}
    problems, lineage, lock_file = board.verify(name, version), pin.lineage, project.lock_file
    workflow, _, kind = name.rpartition("-")
    lock, lock_now = lineage.get("lock"), hash_file(lock_file) if lock_file.is_file() else None
    executed = executed_notebook(project, workflow, lineage)
    return {
        **named,
        "verifies": not problems,
        "problems": problems,
        "sha256": pin.sha256,
        "created": pin.created.isoformat(),
        "by": lineage.get("by"),
        **(read_fate(board, workflow, pin) if kind == "model" else {}),
        **({"decision": read_decision(board, pin)} if kind == "metrics" else {}),
        "about": {fact: pin.facts[fact] for fact in ABOUT.split() if fact in pin.facts},
        "run": tell_run(project, workflow, Path(str(lineage.get("run"))).name),
        "notebook": tell_notebook(project, executed, lineage.get("code")),
        "lock": {"sha256": lock, "same_now": lock == lock_now},
        **{key: lineage.get(key) for key in KEPT.split()},
        "inputs": [trace_input(project, given, (*above, version)) for given in lineage.get("inputs", [])],
    }


def trace_input(project: Project, given: Mapping[str, Any], above: tuple[str, ...]) -> dict[str, Any]:
    """Where an input came from; it does not verify when its bytes are not those that were read then."""
    if given["kind"] in OUTSIDE_BOARD:
        return dict(given)
    found = trace_pin(project, given["name"], given["version"], above=above)
    if found.get("sha256", given["sha256"]) != given["sha256"]:
        problem = f"it is not what was read then: that had the SHA-256 {given['sha256']}"
        found |= {"verifies": False, "problems": [*found["problems"], problem]}
    return {"kind": given["kind"], **found}


def trace_run(project: Project, workflow: str, run: str) -> dict[str, Any]:
    """What a run did, and where the pins that it made or reused came from."""
    record = read_record(project.runs_folder(workflow), run)
    outputs = [pin for stage in record.stages for pin in stage.outputs.values()]
    notebooks = [(project.root / stage.executed, stage.parts.get("code")) for stage in record.stages]
    return {
        "workflow": workflow,
        **tell_run(project, workflow, run),
        "parameters": record.parameters,
        "notebooks": [tell_notebook(project, *notebook) for notebook in notebooks],
        "outputs": [trace_pin(project, pin["name"], pin["version"]) for pin in outputs],
    }


def trace_call(project: Project, request: str) -> dict[str, Any]:
    """Who asked what, what was answered, and where the model that answered came from; the first ROWS rows of it."""
    from pinmill.calls import find_call

    n, rows = find_call(project.store, request, limit=ROWS)
    if not rows:
        unlogged = "health, metrics, documents, an unknown address, or without a token"
        reasons = f"it came less than a second ago, was not to be logged ({unlogged}), was lost in a crash"
        reasons = f"{reasons}, or is of another project"
        raise PinNotFoundError(f"no call in the log has the id {request!r}: {reasons}.")
    first, of_row = rows[0], ("row", "status", "milliseconds", "cached", "input_hash", "input", "output")
    version, hidden = first["version"], any(row["input"] is None and row["input_hash"] for row in rows)
    return {
        **{name: first[name] for name in ("request", "workflow", "time", "caller", "endpoint", "version")},
        "inputs": NO_INPUTS if hidden else "",
        "n": n,
        "rows": [{name: row[name] for name in of_row} for row in rows],
        "model": trace_pin(project, f"{first['workflow']}-model", version) if version else None,
    }


def tell_run(project: Project, workflow: str, run: str) -> dict[str, Any]:
    """How a run ended; in words, when it left no record."""
    if run.startswith("adhoc"):
        return {"run": run, "status": "by hand", "error": "a run outside the runner leaves no record"}
    try:
        record = read_record(project.runs_folder(workflow), run)
        return {key: getattr(record, key) for key in RECORDED.split()}
    except RunError as error:
        return {"run": run, "status": "gone", "error": str(error)}


def tell_notebook(project: Project, executed: Path, code: str | None) -> dict[str, Any]:
    """Where an executed notebook is, or was, and the SHA-256 of its code."""
    return {"executed": project.relative(executed), "there": executed.is_file(), "code": code}


def read_fate(board: Board, workflow: str, model: Pin) -> dict[str, Any]:
    """What became of a model: its status, who moved it when and why, and the gate's newest decision about it."""
    fate: dict[str, Any] = {"status": "unknown", "moves": [], "decision": None}
    for version in board.versions(f"{workflow}-metrics"):
        with suppress(BoardError):
            metrics = board.pin(f"{workflow}-metrics", version)
            if metrics.facts.get("candidate_sha256") == model.sha256:
                fate["decision"] = read_decision(board, metrics)
    try:
        status = {each["version"]: each["status"] for each in list_models(board, workflow)}[model.version]
        moves = [asdict(record) for record in read_history(board, workflow) if record.version == model.version]
        return fate | {"status": status, "moves": moves}
    except PinmillError as error:
        return fate | {"status": f"unknown: {error}"}


def read_decision(board: Board, metrics: Pin) -> dict[str, Any]:
    """The gate's decision that a metrics pin carries, and the champion that the candidate was compared with."""
    named = {"metrics": metrics.version, "champion": metrics.facts.get("champion")}
    try:
        return {**named, **board.read_json(metrics).get("decision", {})}
    except BoardError as error:
        return {**named, "passed": metrics.facts.get("passed"), "problems": [str(error)]}
