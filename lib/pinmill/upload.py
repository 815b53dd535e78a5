"""A model that somebody trained elsewhere: checked against what the workflow's models take and give, and kept.

What is kept is what our own writer makes of the loaded model: an entry hidden in the file is gone, and the same fit has
the same bytes as if it had been trained here, so that a model that a rollback left is known again however it is packed.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pinmill.board import Board, Pin
from pinmill.champion import read_champion
from pinmill.errors import IntegrityError, ModelError, describe_problems
from pinmill.project import Project
from pinmill.runs import UPLOAD, make_run_id
from pinmill.tokens import write_audit
from pinmill.version import now_utc

if TYPE_CHECKING:
    from pandas import DataFrame

MAX_BYTES = 256 * 1024**2  # unpacked; a text model of 97,000 n-grams has 81 MB
LONGEST = 500  # characters of a note
TELLING = 8  # features for each class, as 02-train keeps them


def write_candidate(project: Project, workflow: str, data: bytes, *, by: str, note: str, trained_on: str = "") -> Pin:
    """Keep a skops file as the next version of the pin W-model; only the gate, or a person, makes it the champion.

    `by` says who sent it, `note` what it is, `trained_on` which version of the pin W-data, if that is known. It is
    checked as `check_candidate` says, and kept only if the audit list can be written, too. Raises StoreError as well.
    """
    kept = check_candidate(project.board, workflow, data, by=by, note=note, trained_on=trained_on)
    said = {"who": by, "what": "uploaded", "workflow": workflow, "when": now_utc()}
    with project.store.writing() as connection:
        pin = project.board.write_file(f"{workflow}-model", **kept)
        write_audit(connection, detail=f"{pin.version}{': ' * bool(note)}{note}", **said)
    return pin


def check_candidate(
    board: Board, workflow: str, data: bytes, *, by: str, note: str, trained_on: str = ""
) -> dict[str, Any]:
    """What is to be kept of a skops file, as `Board.write_file` takes it; it takes seconds, and changes nothing.

    Types and size are checked before anything is loaded. Raises ModelError with all that is wrong, also where no model
    is there to compare with, and PinNotFoundError for unknown data.
    """
    from pinmill.model import load_model, save_model

    wanted = find_reference(board, workflow).facts
    trained = board.pin(f"{workflow}-data", trained_on) if trained_on else None
    kept = save_model(load_model(data, max_bytes=MAX_BYTES))
    model = load_model(kept)
    too_long = [f"its note has {len(note):,} characters; at most {LONGEST} are kept"] if len(note) > LONGEST else []
    if problems := too_long + find_problems(model, wanted):
        raise ModelError(f"{describe_problems('the model', problems)}. Nothing was kept; send it again, corrected.")
    given = [{"kind": "source", "name": f"upload by {by}", "version": "", "sha256": hashlib.sha256(data).hexdigest()}]
    given += [{"kind": "data", "name": p.name, "version": p.version, "sha256": p.sha256} for p in (trained,) if p]
    said = f"uploaded by {by}{f' ({note})' if note else ''}"
    unknown = dict.fromkeys(("seed", "git", "lock", "code"))
    lineage = {"run": f"{UPLOAD}{make_run_id(now_utc())}", "stage": "upload", "inputs": given, "by": by, "note": note}
    said += "; on which rows it was trained is not known" * (trained is None)
    return {
        "data": kept,
        "file_name": "model.skops",
        "facts": describe_upload(model, wanted, said=said),
        "lineage": lineage | {"parameters": {}} | unknown,
        "title": f"{workflow}: model, uploaded by {by}",
    }


def find_reference(board: Board, workflow: str) -> Pin:
    """The model that an upload has to be like: the champion, without one the newest that was trained."""
    name, champion = f"{workflow}-model", read_champion(board, workflow)
    if champion:
        return board.pin(name, champion.version)
    for version in reversed(board.versions(name)):
        with suppress(IntegrityError):
            pin = board.pin(name, version)
            if not str(pin.lineage.get("run")).startswith(UPLOAD):
                return pin
    step = f"Train one first, with: pinmill run {workflow}"
    raise ModelError(f"{workflow} has no trained model that says what one takes and predicts. {step}")


def find_problems(model: Any, wanted: Mapping[str, Any]) -> list[str]:
    """What is wrong with a loaded model, where `wanted` are the facts of one that is right; empty if nothing is."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except TypeError:
        return [f"it is a {type(model).__name__}; an estimator, or a pipeline of them, was expected"]
    except NotFittedError:
        return [f"the {type(model).__name__} is not fitted. Fit it before it is saved"]
    return [*compare_classes(read_classes(model), wanted), *try_examples(model, wanted)]


def read_classes(model: Any) -> list[Any]:
    """The classes that a model predicts, in its order; none of a regression."""
    from pinmill.metrics import as_labels

    return as_labels(getattr(model, "classes_", [])).tolist()


def compare_classes(found: list[Any], wanted: Mapping[str, Any]) -> list[str]:
    """What is wrong with the classes of a model; 1, 1.0, true and "1" are four different ones."""
    task, label = wanted["task"], wanted["label"]
    if (task == "regression") == bool(found):
        predicts = "classes" if found else "an amount"
        return [f"it predicts {predicts}, but {label!r} is {'an amount' if found else 'a class'} here ({task})"]
    ours, theirs = ({json.dumps(name, default=str) for name in names} for names in (wanted["classes"], found))
    problems = [f"it does not know the class {name} of {label!r}" for name in sorted(ours - theirs)]
    return problems + [f"it knows a class {name}, which {label!r} has not" for name in sorted(theirs - ours)]


def try_examples(model: Any, wanted: Mapping[str, Any]) -> list[str]:
    """What is wrong with a model's predictions for rows as it will get them."""
    import numpy as np

    rows, shares = make_examples(wanted["prototype"]), None
    try:
        predicted = np.asarray(model.predict(rows))
        if wanted["task"] != "regression":
            if not hasattr(model, "predict_proba"):
                return ["it gives no probabilities (predict_proba), which 03-evaluate needs"]
            shares = np.asarray(model.predict_proba(rows), dtype=float)
    except Exception as error:  # whatever a part of it raises
        said = str(error).partition("\n")[0]
        return [f"it fails on the prototype's examples with {type(error).__name__}: {said}"]
    if predicted.shape != (len(rows),):
        gave = f"{len(rows)} rows with the columns {', '.join(rows)} gave predictions of shape {predicted.shape}"
        return [f"{gave}. Fit it on a DataFrame with these columns, not on a list or Series"]
    numbers = shares if shares is not None else predicted
    is_sound = np.issubdtype(numbers.dtype, np.number) and np.isfinite(numbers).all()
    return [] if is_sound else ["it predicts what is no finite number for the prototype's examples"]


def make_examples(prototype: Mapping[str, Mapping]) -> "DataFrame":
    """More rows than columns, of the prototype's examples and types; the last has all values missing that may be."""
    from itertools import cycle, islice

    from pandas import DataFrame

    from pinmill.prototype import check_inputs
    from pinmill.rows import list_examples

    rows = list(islice(cycle(list_examples(prototype)), len(prototype) + 1))
    empty = [{name: None if entry["nullable"] else rows[0][name] for name, entry in prototype.items()}] if rows else []
    return check_inputs(DataFrame([*rows, *empty], columns=list(prototype), dtype=object), prototype)


def describe_upload(model: Any, wanted: Mapping[str, Any], *, said: str) -> dict[str, Any]:
    """The facts of an upload, as 02-train writes them of its own; `said` is where it comes from."""
    from pinmill.features import is_linear, telling_features
    from pinmill.model import describe_model

    kind, telling = type(model[-1] if hasattr(model, "steps") else model).__name__, {}
    with suppress(ModelError):  # of features without names
        top = telling_features(model, n=TELLING) if is_linear(model) else None
        telling = {} if top is None else {str(c): t["feature"].tolist() for c, t in top.groupby("class", sort=False)}
    return {
        "described": f"{kind}, {said}",
        **{fact: wanted[fact] for fact in ("task", "label", "positive", "prototype")},
        "classes": read_classes(model),
        "hyperparameters": {},
        "structure": describe_model(model),
        "telling": telling,
        "cv_scores": {},
    }
