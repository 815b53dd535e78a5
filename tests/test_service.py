"""What the cells of the serving notebook are given: the champion, verified, and facts that the pins bear out."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from pinmill.champion import promote, read_champion, rollback
from pinmill.errors import IntegrityError, ModelError, PinNotFoundError
from pinmill.model import load_model, save_model
from pinmill.notebook import read_stage
from pinmill.performance import read_performance
from pinmill.problem import Problem
from pinmill.project import open_project
from pinmill.prototype import read_prototype
from pinmill.service import (
    Service,
    describe_pin,
    open_service,
    predict,
    predict_one,
    predict_records,
    read_arg,
    read_args,
    respond,
    show_model,
    tell_dates,
    welcome,
)
from pinmill.session import Run
from sklearn.metrics import precision_recall_fscore_support

if TYPE_CHECKING:
    from conftest import Workplace

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def start(workplace: "Workplace") -> Service:
    """The service of the workflow `tiny`, as the notebook opens it."""
    project = open_project(workplace.root, {})
    stage = read_stage(project.notebooks / "serve.ipynb")
    return open_service(Run("adhoc-1", "tiny", stage, project, {}, {}, {}, read_champion(project.board, "tiny")))


@pytest.fixture(scope="module")
def service(trained_once: "Workplace") -> Service:
    """The service of a project that has run once. Not to be changed: take `changed`."""
    return start(trained_once)


@pytest.fixture
def changed(trained: "Workplace") -> Service:
    """The service of a project that a test may change."""
    return start(trained)


def add_version(service: Service, **hyperparameters: object) -> str:
    """Write the champion, with other hyperparameters that only predictions know, as the next version."""
    pin = service.champion.pin
    model = load_model(service.board.read_file(pin))
    model[-1].intercept_ = model[-1].intercept_ + 1.0
    facts = {name: value for name, value in {**pin.facts, **hyperparameters}.items() if value is not None}
    return service.board.write_file(
        pin.name, save_model(model), file_name="model.skops", facts=facts, lineage=pin.lineage
    ).version


def move(service: Service, version: str) -> None:
    signed = {"by": "ann", "why": "a test", "when": NOW, "gate": True}
    promote(service.board, "tiny", version, expected=read_champion(service.board, "tiny").version, **signed)


def ask(body: object = None, path: dict | None = None, **args: str) -> str:
    """A REQUEST."""
    return json.dumps({"body": body, "args": {k: [v] for k, v in args.items()}, "path": path or {}, "headers": {}})


def told(problem: pytest.ExceptionInfo[Problem]) -> tuple[int, str]:
    return problem.value.status, problem.value.detail


def read_frame(service: Service) -> pd.DataFrame:
    """The champion's data."""
    given = service.champion.pin.lineage["inputs"][0]
    return service.board.read_table(service.board.pin(given["name"], given["version"]))


def test_the_champion_is_loaded_and_scores(service: Service, trained_once: "Workplace") -> None:
    said = trained_once.json("predict", "tiny", "win a free prize")
    (item,) = predict(service, ask(["win a free prize"]))
    assert {"label": item["label"], "version": service.champion.version, "probability": item["probability"]} == said
    assert item["value"] == item["probability"][item["label"]]
    assert service.problem == ""


def test_without_a_champion_it_says_so_and_nothing_is_raised(workplace: "Workplace") -> None:
    service = start(workplace)
    assert service.champion is None
    assert service.examples == []
    assert "pinmill run tiny" in service.problem
    with pytest.raises(Problem) as problem:
        service.read()
    assert told(problem) == (503, service.problem)
    assert welcome(service, None)["problem"] == service.problem


@pytest.mark.parametrize("file", ["model.skops", "data.txt"])
def test_a_damaged_champion_is_not_served(file: str, changed: Service, trained: "Workplace") -> None:
    path = trained.root / "outputs" / "pins" / "tiny-model" / changed.champion.version / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    service = start(trained)
    assert service.champion is None
    assert f"tiny-model/{changed.champion.version}/{file} was changed" in service.problem


def test_a_model_that_is_not_the_promoted_one_is_not_served(changed: Service, trained: "Workplace") -> None:
    board, champion = changed.board, read_champion(changed.board, "tiny")
    value = {name: getattr(champion, name) for name in ("action", "version", "by", "when", "why", "previous")}
    board.write_json("tiny-champion", {**value, "override": False, "sha256": "0" * 64}, facts={}, lineage={})
    assert "is not the model that was promoted" in start(trained).problem
    with pytest.raises(IntegrityError, match="is not the model that was promoted"):
        changed.load(champion.version)


def test_another_version_scores_on_demand_and_the_champion_stays(changed: Service) -> None:
    champion, text = changed.champion.version, ["see you at lunch"]
    before = predict(changed, ask(text))
    other = add_version(changed)
    (item,) = predict(changed, ask(text, version=other))
    model = changed.load(other).model
    assert list(item["probability"].values()) == model.predict_proba(pd.DataFrame({"text": text}))[0].tolist()
    assert predict(changed, ask(text)) == predict(changed, ask(text, version=champion)) == before != [item]
    assert changed.champion.version == champion


def test_a_version_that_cannot_be_served_is_a_problem(changed: Service) -> None:
    with pytest.raises(Problem) as problem:
        predict(changed, ask(["a text"], version="20200101T000000Z-00000"))
    assert told(problem)[0] == 404
    with pytest.raises(PinNotFoundError):
        changed.load("20200101T000000Z-00000")
    bare = add_version(changed, prototype=None)
    with pytest.raises(ModelError, match="says not what its inputs are"):
        changed.load(bare)
    with pytest.raises(Problem) as problem:
        changed.read(bare)
    assert told(problem)[0] == 503


def test_a_promotion_and_a_rollback_are_followed(changed: Service) -> None:
    first, second = changed.champion.version, add_version(changed)
    assert changed.load(second).promoted == ""
    move(changed, second)
    assert changed.champion.version == first
    changed.load(second)
    changed.choose(second)
    assert tell_dates(changed.champion)["version"] == second
    assert changed.champion.promoted == "2026-11-20T00:00:00.000000+00:00"
    later = datetime(2026, 11, 21, tzinfo=UTC)
    rollback(changed.board, "tiny", by="ann", why="a test", when=later)
    changed.load(first)
    changed.choose(first)
    assert (changed.champion.version, changed.champion.promoted) == (first, "2026-11-21T00:00:00.000000+00:00")


def test_the_champion_and_the_three_last_used_others_are_kept(changed: Service) -> None:
    champion = changed.champion
    versions = [add_version(changed) for _ in range(5)]
    models = {version: changed.read(version).model for version in versions[:3]}
    changed.read(versions[0])
    changed.read(versions[3])
    assert changed.read() is champion
    held = {
        version: changed.read(version).model is model for version, model in models.items() if version != versions[1]
    }
    assert held == {versions[0]: True, versions[2]: True}
    assert changed.read(versions[1]).model is not models[versions[1]]
    changed.choose(versions[4])
    assert changed.champion.version == versions[4]


def test_versions_load_in_threads_while_the_champion_scores(changed: Service) -> None:
    versions, texts = [add_version(changed) for _ in range(3)], ["win a prize", "see you"]
    before, loaded = predict(changed, ask(texts)), []
    threads = [
        threading.Thread(target=lambda v=version: loaded.append(changed.load(v).version)) for version in versions * 2
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert predict(changed, ask(texts)) == before
    assert sorted(loaded) == sorted(versions * 2)


def test_rows_that_do_not_fit_are_all_named(service: Service) -> None:
    with pytest.raises(Problem) as problem:
        predict(service, ask(["fine", "", {"text": "fine"}, {"txt": "a"}, 7]))
    assert told(problem) == (422, "3 of 5 rows do not fit what the model expects")
    assert [(each["row"], each["field"]) for each in problem.value.errors] == [
        (1, "text"),
        (3, "text"),
        (3, "txt"),
        (4, ""),
    ]
    for body in ("a text", {"text": "a"}, None, 3):
        with pytest.raises(Problem) as problem:
            predict(service, ask(body))
        assert told(problem) == (422, "the body must be a JSON list of rows; for one row there is POST /prediction")
    assert predict(service, ask([])) == []


def test_one_row_in_both_forms_and_its_echo(service: Service) -> None:
    text = "win a free prize"
    (item,) = predict(service, ask([text]))
    whole = {**item, "version": service.champion.version, "from_cache": False}
    assert predict_one(service, ask(text)) == whole
    assert predict_one(service, ask({"text": text}, echo_input="true")) == {**whole, "input": {"text": text}}
    with pytest.raises(Problem) as problem:
        predict_one(service, ask([text]))
    assert problem.value.status == 422


def test_vetivers_protocol(service: Service) -> None:
    records = [{"text": "win a free prize"}, {"text": "see you at lunch"}]
    assert predict_records(service, ask(records)) == {"predict": ["spam", "ham"]}
    assert predict_records(service, ask(records[0])) == {"predict": ["spam"]}


def test_a_row_that_the_model_fails_on_is_an_error_here_and_a_problem_there(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(service.champion), "score", lambda rows: [{"error": "failed"}] * len(rows))
    assert predict(service, ask(["a text"], explain="true")) == [{"error": "failed"}]
    for call in (predict_one, predict_records):
        with pytest.raises(Problem) as problem:
            call(service, ask({"text": "a text"}))
        assert problem.value.status == 500


def test_an_explanation_sums_to_the_models_decision(service: Service) -> None:
    item = predict_one(service, ask("free prize", explain="true"))
    contributions = [each["contribution"] for each in item["explanation"]]
    assert len(contributions) == 20
    assert contributions == sorted(contributions, key=abs, reverse=True)
    assert {"word: free", "word: prize", "word: free prize"} <= {each["feature"] for each in item["explanation"]}
    (short,) = predict(service, ask(["zq"], explain="true"))
    decision = service.champion.model.decision_function(pd.DataFrame({"text": ["zq"]}))[0]
    toward = decision if short["label"] == "spam" else -decision
    intercept = service.champion.model[-1].intercept_[0] * (1 if short["label"] == "spam" else -1)
    assert sum(each["contribution"] for each in short["explanation"]) + intercept == pytest.approx(toward)
    assert "explanation" not in predict_one(service, ask("free prize", explain="false"))


def test_a_model_without_weights_predicts_and_says_why_it_explains_nothing(changed: Service) -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    frame = pd.DataFrame({"age": range(40), "city": ["Rome", "Oslo"] * 20})[["age"]]
    model = HistGradientBoostingRegressor(min_samples_leaf=5).fit(frame, frame["age"] * 2.0)
    facts = {"prototype": read_prototype(frame, ["age"]), "classes": [], "label": "amount"}
    lineage = changed.champion.pin.lineage
    file = {"data": save_model(model), "file_name": "model.skops"}
    version = changed.board.write_file("tiny-model", **file, facts=facts, lineage=lineage).version
    (item,) = predict(changed, ask([{"age": 7}], version=version, explain="true"))
    assert item["value"] == model.predict(frame.iloc[[7]])[0]
    assert item["explanation"] is None
    assert "HistGradientBoostingRegressor has no coefficients" in item["explanation_problem"]


def test_the_welcome_names_who_asks_and_what_is_answered(service: Service) -> None:
    caller = {"name": "ann", "role": "scorer", "address": "127.0.0.1", "token": "x"}
    said = welcome(service, caller)
    assert said["caller"] == {"name": "ann", "address": "127.0.0.1"}
    assert (said["workflow"], said["champion"]) == ("tiny", tell_dates(service.champion))
    assert said["started"].endswith("+00:00")
    assert {"GET /", "POST /predictions", "GET /args/{name}", "PUT /models/champion"} <= set(said["endpoints"])
    assert welcome(service, None)["caller"] is None


def test_the_performance_is_that_of_the_evaluation_that_decided(service: Service) -> None:
    said = read_performance(service, ask())
    results = service.board.read_json(service.board.pin("tiny-metrics"))
    assert said["overall"] == results["metrics"]
    assert said["slices"] == results["slices"]
    assert said["decision"] == results["decision"]
    test = read_frame(service).query("_part == 'test'")
    predicted = service.champion.model.predict(test[["text"]])
    rows = precision_recall_fscore_support(test["label"].to_list(), predicted.tolist(), labels=["ham", "spam"])
    expected = [
        {"class": label, "metric": metric, "value": rows[row][place], "n": rows[3][place]}
        for row, metric in enumerate(("precision", "recall", "f1"))
        for place, label in enumerate(("ham", "spam"))
    ]
    assert said["classes"] == expected


def test_the_filter_finds_metrics_classes_and_slices(service: Service) -> None:
    parts = ("overall", "baseline", "classes", "slices", "intersections")
    whole, f1, spam, characters, none = (
        read_performance(service, ask(filter=text)) for text in ("", "F1", "spam", "characters", "nothing")
    )
    assert [[row["metric"] for row in f1[part]] for part in parts] == [["f1"], ["f1"], ["f1", "f1"], [], []]
    assert [[row["class"] for row in spam[part]] for part in parts] == [[], [], ["spam"] * 3, [], []]
    assert characters["slices"] == whole["slices"] != []
    assert [none[part] for part in parts] == [[]] * 5


def test_a_champion_that_was_not_evaluated_has_an_empty_performance(changed: Service) -> None:
    version = add_version(changed)
    changed.choose(changed.load(version).version)
    said = read_performance(changed, ask())
    assert (said["version"], said["evaluated"], said["overall"], said["decision"]) == (version, None, [], None)


def test_args_are_those_of_training_and_of_preparing_the_data(service: Service) -> None:
    args = read_args(service)
    assert {name: args[name] for name in ("cv", "seed", "test_fraction", "text", "workflow", "source")} == {
        "cv": 2, "seed": 42, "test_fraction": 0.2, "text": ["text"], "workflow": "tiny", "source": "tiny.csv"
    }  # fmt: skip
    assert read_arg(service, ask(path={"name": "cv"})) == {"name": "cv", "value": 2}
    with pytest.raises(Problem) as problem:
        read_arg(service, ask(path={"name": "sed"}))
    assert told(problem) == (404, "the champion was trained with no parameter 'sed'. Did you mean 'seed'?")


def test_metadata_are_the_pins(service: Service) -> None:
    said, pin = describe_pin(service.champion), service.champion.pin
    assert (said["sha256"], said["bytes"]) == (pin.sha256, pin.size)
    assert said["facts"]["structure"] == pin.facts["structure"]
    assert said["lineage"]["packages"] == pin.lineage["packages"]
    assert "prototype" not in said["facts"]


def test_folders_of_this_machine_are_not_told(changed: Service) -> None:
    pin, source = changed.champion.pin, "/srv/secret/tiny.csv"
    given = [*pin.lineage["inputs"], {"kind": "source", "name": source, "version": None, "sha256": None}]
    lineage = {**pin.lineage, "inputs": given, "parameters": {**pin.lineage["parameters"], "source": source}}
    file = {"data": changed.board.read_file(pin), "file_name": "model.skops"}
    version = changed.board.write_file(pin.name, **file, facts=pin.facts, lineage=lineage).version
    changed.choose(changed.load(version).version)
    assert read_args(changed)["source"] == "tiny.csv"
    assert [each["name"] for each in describe_pin(changed.champion)["lineage"]["inputs"]] == ["tiny-data", "tiny.csv"]
    assert "/srv" not in json.dumps([describe_pin(changed.champion), read_args(changed)])


def test_the_structure_as_json_and_as_a_page_that_needs_no_network(
    service: Service, tmp_path: Path, visit: Callable
) -> None:
    body = json.loads(show_model(service, ask()).body)
    assert [step["class"] for step in body["steps"]][-1] == "LogisticRegression"
    assert body["steps"] == service.champion.pin.facts["structure"]
    response = show_model(service, ask(format="html"))
    assert json.loads(response.info) == {"headers": {"Content-Type": "text/html; charset=utf-8"}, "status": 200}
    (tmp_path / "model.html").write_text(response.body)
    page, events = visit(f"file://{tmp_path}/model.html")
    assert [event for event in events if "://" in event] == [f"file://{tmp_path}/model.html"]
    assert page.get_by_text("TfidfVectorizer").count() >= 2
    said = json.loads(show_model(service, ask(format="xml")).body)
    assert (said["status"], said["detail"]) == (422, "format is 'xml'; json or html was expected")


def test_a_response_says_a_value_a_text_or_what_a_function_returns() -> None:
    response = respond({"städte": [1, None]}, status=201)
    assert (response.body, json.loads(response.info)) == (
        '{\n  "städte": [\n    1,\n    null\n  ]\n}', {"headers": {"Content-Type": "application/json"}, "status": 201}
    )  # fmt: skip
    assert respond("<b>", media_type="text/html").body == "<b>"
    assert respond(lambda: {}).body == "{}"


def test_a_response_is_compact_where_a_service_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pinmill.service.INDENT", None)
    assert respond({"städte": [1, None]}).body == '{"städte": [1, null]}'


def test_a_response_says_a_problem() -> None:
    def fail() -> None:
        raise Problem(429, "too many", headers={"Retry-After": "3"})

    response = respond(fail)
    assert json.loads(response.body) == {
        "type": "about:blank", "title": "Too Many Requests", "status": 429, "detail": "too many"
    }  # fmt: skip
    headers = {"Content-Type": "application/problem+json", "Retry-After": "3"}
    assert json.loads(response.info) == {"headers": headers, "status": 429}


def test_nan_never_stands_in_a_response() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        respond({"value": float("nan")})
