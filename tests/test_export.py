"""`pinmill export vetiver`: the real vetiver loads and serves the model, and predicts what ours predicts."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pandas
import pins
import pytest
from pinmill.board import Board
from pinmill.errors import ChampionError, IntegrityError
from pinmill.export import export_vetiver
from pinmill.model import load_model, save_model
from pinmill.project import Project, open_project
from pinmill.prototype import read_prototype

if TYPE_CHECKING:
    from conftest import Workplace

# In a process of its own: vetiver warns of deprecated parts of FastAPI and pydantic. Its predict() names no content
# type for a table, which newer versions of FastAPI refuse, so the header is given.
VETIVER = """
import json, sys, threading
import pandas, pins, uvicorn
from starlette.testclient import TestClient
from vetiver import VetiverAPI, VetiverModel, predict, vetiver_endpoint

board, name, rows = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
model = VetiverModel.from_pin(pins.board_folder(board, allow_pickle_read=True), name)
app = VetiverAPI(model).app
with TestClient(app) as client:
    posted = client.post("/predict", json=rows).json()["predict"]
    prototype = client.get("/prototype").json()["properties"]
    wrong = client.post("/predict", json=[{"nothing": 1}]).status_code
server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
threading.Thread(target=server.run, daemon=True).start()
while not server.started:
    pass
port = server.servers[0].sockets[0].getsockname()[1]
endpoint = vetiver_endpoint(f"http://127.0.0.1:{port}/predict")
predicted = predict(endpoint, pandas.DataFrame(rows), headers={"Content-Type": "application/json"})
server.should_exit = True
print(json.dumps({
    "predictions": posted, "predict": predicted["predict"].tolist(), "wrong": wrong,
    "types": {column: each["type"] for column, each in prototype.items()},
    "packages": model.metadata.required_pkgs, "version": model.metadata.version,
}))
"""


def ask_vetiver(place: str, name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What vetiver makes of a pin: predictions of its application and of its own client, types, metadata."""
    if importlib.util.find_spec("vetiver") is None:
        pytest.fail("vetiver is not installed: it is among the test tools")
    command = [sys.executable, "-W", "ignore", "-c", VETIVER, place, name, json.dumps(rows)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def project(trained: Workplace) -> Project:
    """A project with a champion, and no settings."""
    return open_project(trained.root, {})


@pytest.fixture(scope="module")
def people() -> pandas.DataFrame:
    """Sixty rows of every kind of column."""
    rows = range(60)
    return pandas.DataFrame(
        {
            "age": [20 + row * 7 % 50 for row in rows],
            "balance": [row * 13 % 40 - 20.5 for row in rows],
            "member": [row % 3 == 0 for row in rows],
            "job": [("clerk", "nurse", "cook")[row % 3] for row in rows],
            "since": pandas.to_datetime([f"2026-{1 + row % 12:02d}-{1 + row % 28:02d}" for row in rows]),
        }
    )


def write_model(project: Project, people: pandas.DataFrame) -> tuple[str, Any]:
    """A model of a table, as the pin `people-model`; its version and the model itself."""
    from pinmill.columns import calendar
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

    encoders = make_column_transformer(
        ("passthrough", ["age", "balance"]),
        (OneHotEncoder(handle_unknown="ignore"), ["job", "member"]),
        (FunctionTransformer(calendar), ["since"]),
    )
    late = (people["since"].dt.month > 6).map({True: "late", False: "early"})
    model = make_pipeline(encoders, LogisticRegression(max_iter=5000)).fit(people, late)
    facts = {"prototype": read_prototype(people, list(people))}
    data = save_model(model)
    return project.board.write_file(
        "people-model", data, file_name="model.skops", facts=facts, lineage={"run": "r1"}
    ).version, model


def test_vetiver_serves_the_champion_with_the_same_predictions(trained: Workplace) -> None:
    done = trained.pinmill("export", "vetiver", "tiny")
    project = open_project(trained.root, {})
    pin, model = project.board.pin("tiny-vetiver"), project.board.pin("tiny-model")
    assert done.stdout == (
        f"tiny-vetiver {pin.version} on {project.board.url}, from tiny-model {model.version}\n"
        "It is a pickle: loading it runs code, so load it only from a board that you trust.\n"
        f'  VetiverModel.from_pin(pins.board_folder("{project.board.url}", allow_pickle_read=True), "tiny-vetiver")\n'
    )
    texts = ["win a free prize now", "see you at lunch", "", "cheap pills for you", "the report is attached", "né €"]
    ours = load_model(project.board.read_file(model)).predict(pandas.DataFrame({"text": texts})).tolist()
    assert set(ours) == {"ham", "spam"}
    asked = ask_vetiver(project.board.url, "tiny-vetiver", [{"text": text} for text in texts])
    assert asked == {
        "predictions": ours,
        "predict": ours,
        "wrong": 422,
        "types": {"text": "string"},
        "packages": asked["packages"],
        "version": pin.version,
    }
    assert [each.split("==")[0] for each in asked["packages"]] == ["scikit-learn"]


def test_vetiver_serves_a_model_of_numbers_categories_and_dates(project: Project, people: pandas.DataFrame) -> None:
    _, model = write_model(project, people)
    export_vetiver(project, "people", project.board.latest("people-model"), by="me")
    rows = json.loads(people.iloc[:12].to_json(orient="records", date_format="iso"))
    asked = ask_vetiver(project.board.url, "people-vetiver", rows)
    ours = model.predict(people.iloc[:12]).tolist()
    assert set(ours) == {"early", "late"}
    assert (asked["predictions"], asked["predict"]) == (ours, ours)
    assert asked["types"] == {
        "age": "integer", "balance": "number", "member": "boolean", "job": "string", "since": "string",
    }  # fmt: skip
    assert [each.split("==")[0] for each in asked["packages"]] == ["scikit-learn", "pinmill"]


def test_a_column_without_an_example_keeps_its_type(project: Project, people: pandas.DataFrame) -> None:
    facts = {"balance": {"type": "number", "dtype": "float64", "nullable": True, "examples": []}}
    model = project.board.pin("tiny-model")
    project.board.write_file(
        "bare-model", project.board.read_file(model), file_name="model.skops", facts={"prototype": facts}, lineage={}
    )
    pin = export_vetiver(project, "bare", project.board.latest("bare-model"), by="me")
    assert json.loads(pin.facts["vetiver_meta"]["prototype"]) == {"balance": 0.0}


def test_the_pin_is_sealed_verified_and_tells_where_it_came_from(project: Project) -> None:
    model = project.board.pin("tiny-model")
    pin = export_vetiver(project, "tiny", None, by="me")
    read = Board(project.board.url).pin("tiny-vetiver")
    assert (read, read.type, list(read.files)) == (pin, "joblib", ["tiny-vetiver.joblib"])
    given = {"kind": "model", "name": "tiny-model", "version": model.version, "sha256": model.sha256}
    assert (pin.lineage["inputs"], pin.lineage["by"]) == ([given], "me")
    assert (pin.lineage["run"], pin.lineage["stage"]) == (model.lineage["run"], "export vetiver")
    assert project.board.verify("tiny-vetiver", pin.version) == []
    (file,) = (project.outputs / "pins" / "tiny-vetiver").glob("*/*.joblib")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert "was changed" in project.board.verify("tiny-vetiver", pin.version)[0]


def test_stock_pins_loads_it_only_when_pickles_are_allowed(project: Project) -> None:
    export_vetiver(project, "tiny", None, by="me")
    with pytest.raises(pins.errors.PinsInsecureReadError):
        pins.board_folder(project.board.url, allow_pickle_read=False).pin_read("tiny-vetiver")
    loaded = pins.board_folder(project.board.url, allow_pickle_read=True).pin_read("tiny-vetiver")
    assert type(loaded).__name__ == "Pipeline"


def test_a_version_may_be_named_and_shortened(project: Project, people: pandas.DataFrame) -> None:
    version, _ = write_model(project, people)
    pin = export_vetiver(project, "people", version[-5:], by="me")
    assert pin.lineage["inputs"][0]["version"] == version
    with pytest.raises(ChampionError, match="no model has version 'nothing'"):
        export_vetiver(project, "people", "nothing", by="me")


def test_without_a_champion_a_version_must_be_named(project: Project, people: pandas.DataFrame) -> None:
    write_model(project, people)
    with pytest.raises(ChampionError, match=r"people has no champion yet\. Name a version; see: pinmill models people"):
        export_vetiver(project, "people", None, by="me")


def test_a_changed_model_is_not_exported(project: Project) -> None:
    (file,) = (project.outputs / "pins" / "tiny-model").glob("*/model.skops")
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(IntegrityError):
        export_vetiver(project, "tiny", None, by="me")
    assert "tiny-vetiver" not in project.board.names()
