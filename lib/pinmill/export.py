"""A model for vetiver: a pin of its own, a pickle, which vetiver loads and serves and Pinmill never reads back."""

import io
import json
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from pinmill.board import Pin
from pinmill.champion import read_champion
from pinmill.errors import ChampionError, IntegrityError
from pinmill.lineage import read_lineage
from pinmill.model import load_model
from pinmill.models import find_model, list_models
from pinmill.project import Project

AS_JSON = ("str", "object", "int64", "float64", "bool")  # what pandas makes of the values in a request's JSON
PACKAGES = {"sklearn": "scikit-learn", "xgboost": "xgboost", "lightgbm": "lightgbm", "pinmill": "pinmill"}
EMPTY = {"integer": 0, "number": 0.0, "boolean": False, "datetime": "1970-01-01T00:00:00"}


def export_vetiver(project: Project, workflow: str, version: str | None, *, by: str) -> Pin:
    """Write a version of the pin W-model (default: the champion) as the joblib pin W-vetiver.

    Raises ChampionError for a version that is not there, IntegrityError for one that was changed.
    """
    import joblib

    board, name = project.board, f"{workflow}-vetiver"
    model = find_pin(project, workflow, version)
    buffer, prototype = io.BytesIO(), model.facts["prototype"]
    joblib.dump(take_json(load_model(board.read_file(model)), prototype), buffer)
    data = buffer.getvalue()
    about = {
        "required_pkgs": list_packages(data),
        "prototype": json.dumps({column: choose_example(entry) for column, entry in prototype.items()}),
        "python_version": list(sys.version_info),
    }
    given = {"kind": "model", "name": model.name, "version": model.version, "sha256": model.sha256}
    lineage = read_lineage(
        project.root, run=model.lineage.get("run"), stage="export vetiver", inputs=[given], parameters={}, seed=None
    )
    return board.write_file(
        name,
        data,
        file_name=f"{name}.joblib",
        facts={"vetiver_meta": about},
        lineage=lineage | {"by": by},
        title=f"{workflow}: model for vetiver, {model.version}",
    )


def find_pin(project: Project, workflow: str, version: str | None) -> Pin:
    """The pin of a model version, which may be shortened; without one the champion's."""
    name, champion = f"{workflow}-model", None if version else read_champion(project.board, workflow)
    if version:
        return project.board.pin(name, find_model(list_models(project.board, workflow), version)["version"])
    if champion is None:
        raise ChampionError(f"{workflow} has no champion yet. Name a version; see: pinmill models {workflow}")
    pin = project.board.pin(name, champion.version)
    if pin.sha256 != champion.sha256:
        raise IntegrityError(f"the champion {pin.version} is not the model that was promoted: its SHA-256 differs.")
    return pin


def take_json(model: Any, prototype: Mapping[str, Mapping]) -> Any:
    """`model`, behind a step that gives columns their types where JSON has none for them, such as times."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    from pinmill.prototype import check_inputs

    if all(entry["dtype"] in AS_JSON for entry in prototype.values()):
        return model
    return make_pipeline(FunctionTransformer(check_inputs, kw_args={"prototype": dict(prototype)}), model)


def choose_example(entry: Mapping[str, Any]) -> Any:
    """A value of a column: vetiver takes the type of all values from it, so it is never missing."""
    example = next(iter(entry["examples"]), EMPTY.get(entry["type"], ""))
    return float(example) if entry["type"] == "number" else example


def list_packages(data: bytes) -> list[str]:
    """What a pickle needs to be loaded, with versions: a pickle names its modules in plain text."""
    needed = [m for m in PACKAGES if m in sys.modules and f"{m}.".encode() in data]
    return [f"{PACKAGES[module]}=={metadata.version(PACKAGES[module])}" for module in needed]
