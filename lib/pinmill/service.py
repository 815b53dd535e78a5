"""What the cells of the serving notebook call: the champion, its predictions, and the facts about it."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from threading import Lock
from typing import Any

from pandas import DataFrame

from pinmill.board import Board
from pinmill.card import FOLDERS
from pinmill.champion import read_champion
from pinmill.endpoint import ANNOTATION, braces
from pinmill.errors import IntegrityError, ModelError, PinmillError, PinNotFoundError, did_you_mean
from pinmill.features import make_explainer
from pinmill.model import describe_model, load_model
from pinmill.pin import Pin
from pinmill.problem import MEDIA_TYPE, Problem
from pinmill.rows import check_rows, list_examples, make_checker
from pinmill.scorer import make_framer, make_scorer
from pinmill.session import Run
from pinmill.visit import STARTED

MAY_KNOW = ("modeller", "admin")  # what is wrong, in words that may name files
KEPT = 3  # versions beside the champion that stay loaded: to compare with, and to go back to at once
MOST_TELLING = 20  # features in an explanation
INDENT: int | None = 2  # of what `respond` writes; a serving kernel sets None: compact, and four times as fast


@dataclass(frozen=True)
class Response:
    """What a cell answers: `body` is printed by the cell, `info` by its ResponseInfo cell."""

    body: str
    info: str


@dataclass(frozen=True)
class Loaded:
    """A model version in memory, verified."""

    version: str
    pin: Pin
    model: Any
    prototype: Mapping[str, Mapping]
    check: Callable[[Any], str]
    score: Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]]
    promoted: str = ""  # when it became champion, ISO 8601, UTC; empty if it is not

    @cached_property
    def examples(self) -> list[Any]:
        """Up to three rows as a caller would send them: texts where there is one column of text, else records."""
        rows = list_examples(self.prototype)
        return [row[self.text] for row in rows] if self.text else rows

    @cached_property
    def explain(self) -> Callable[[DataFrame, Any], DataFrame]:
        """What `features.make_explainer` makes of the model. Raises ModelError where it has no weights."""
        return make_explainer(self.model)

    @cached_property
    def text(self) -> str:
        """The name of the only column, if that is one of text; otherwise empty."""
        (name, entry), *others = self.prototype.items()
        return name if entry["type"] == "text" and not others else ""


class Service:
    """The model versions that a serving kernel holds, and which of them its cells speak of."""

    def __init__(self, run: Run) -> None:
        self.run, self.board, self.workflow = run, run.board, run.workflow
        self.started = os.environ.get(STARTED) or datetime.now(UTC).isoformat(timespec="seconds")
        self.champion: Loaded | None = None
        self.problem = ""  # why there is no champion
        self.classes: dict[str, list[dict[str, Any]]] = {}  # scores of each class, by version of the pin W-metrics
        self._loaded: dict[str, Loaded] = {}  # the last used is last
        self._loading, self._changing = Lock(), Lock()

    def load(self, version: str) -> Loaded:
        """A version, read from the board and verified unless it is held. For any thread; takes seconds.

        Raises PinNotFoundError, IntegrityError, and ModelError for types that are not allowed.
        """
        with self._loading:
            loaded = self._loaded.get(version) or self._read(version)
            record = read_champion(self.board, self.workflow)
            is_champion = record is not None and record.version == version
            if is_champion and record.sha256 != loaded.pin.sha256:
                raise IntegrityError(f"the champion {version} is not the model that was promoted: its SHA-256 differs.")
            return self._keep(replace(loaded, promoted=record.when if is_champion else ""))

    def choose(self, version: str) -> None:
        """Let the cells speak of a version that was loaded. For the thread that runs them."""
        self.champion, self.problem = self._keep(self._loaded.get(version) or self.load(version)), ""

    def read(self, version: str | None = None) -> Loaded:
        """A version for a cell, by default the champion. Raises Problem: 404, or 503 when it cannot be served."""
        if version is None or (self.champion and version == self.champion.version):
            if self.champion is None:
                raise Problem(503, self.problem)
            return self.champion
        try:
            return self._keep(self._loaded[version]) if version in self._loaded else self.load(version)
        except PinNotFoundError:
            raise Problem(404, f"{self.workflow} has no model version {version!r}; GET /models lists them") from None
        except PinmillError as error:
            raise Problem(503, str(error)) from None

    @property
    def versions(self) -> list[str]:
        """The versions that are held now; for any thread."""
        with self._changing:
            return list(self._loaded)

    @property
    def examples(self) -> list[Any]:
        """Rows of the champion to try a cell with; none without a champion."""
        return self.champion.examples if self.champion else []

    def _read(self, version: str) -> Loaded:
        pin = self.board.pin(f"{self.workflow}-model", version)
        if not (prototype := pin.facts.get("prototype")):
            raise ModelError(f"{pin.name} {version} says not what its inputs are: train it with a prototype.")
        model = load_model(self.board.read_file(pin))
        loaded = Loaded(version, pin, model, prototype, make_checker(prototype), make_scorer(model, prototype))
        loaded.score(list_examples(prototype))  # the first call is slow, and should not be a caller's
        return loaded

    def _keep(self, loaded: Loaded) -> Loaded:
        """Hold a version as the one used last, and let go of those that were not used for longest."""
        with self._changing:
            self._loaded = {v: held for v, held in self._loaded.items() if v != loaded.version}
            self._loaded[loaded.version] = loaded
            others = [v for v in self._loaded if not (self.champion and v == self.champion.version)]
            for version in others[:-KEPT]:
                del self._loaded[version]
        return loaded


def open_service(run: Run) -> Service:
    """The service of a run's workflow, with the champion loaded; without one, or with a damaged one, it says why."""
    service = Service(run)
    service.problem = f"{run.workflow} has no champion yet. Train and promote one with: pinmill run {run.workflow}"
    try:
        if run.champion:
            service.load(run.champion.version)
            service.choose(run.champion.version)
    except PinmillError as error:
        service.problem = str(error)
    return service


def respond(value: Any, *, status: int = 200, media_type: str = "application/json") -> Response:
    """The response that says `value`, or what it returns if it is a function; a Problem that this raises is said, too.

    `value` is written as JSON, on lines of its own for who reads it in the notebook; where `media_type` is text/…, it
    is the text. Raises ValueError for NaN.
    """
    headers: Mapping[str, str] = {}
    try:
        value = value() if callable(value) else value
    except PinmillError as error:
        status_of = 404 if isinstance(error, PinNotFoundError) else 500
        problem = error if isinstance(error, Problem) else Problem(status_of, str(error))
        value, status, media_type, headers = problem.body(), problem.status, MEDIA_TYPE, problem.headers
    is_text = media_type.startswith("text/")
    body = value if is_text else json.dumps(value, ensure_ascii=False, allow_nan=False, indent=INDENT)
    return Response(body, json.dumps({"headers": {"Content-Type": media_type, **headers}, "status": status}))


def read_option(request: Mapping[str, Any], name: str) -> str | None:
    """The value of an option in the query string of a request; None where it is not given."""
    values = (request.get("args") or {}).get(name)
    return values[-1] if values else None


def read_rows(loaded: Loaded, values: Any) -> list[dict[str, Any]]:
    """The records of a list of texts or records. Raises Problem (422) that names each violation."""
    if not isinstance(values, list):
        raise Problem(422, "the body must be a JSON list of rows; for one row there is POST /prediction")
    if violations := check_rows(values, loaded.check)[1]:
        count = len({each["row"] for each in violations})
        raise Problem(422, f"{count} of {len(values)} rows do not fit what the model expects", errors=violations)
    return [value if isinstance(value, dict) else {loaded.text: value} for value in values]


def predict(service: Service, request: str) -> list[dict[str, Any]]:
    """What a row-wise cell answers: an item for each row in the body, in order; see `make_scorer` and `explain_row`.

    Options: `version` scores another one, `explain=true` adds what pushed each prediction. Raises Problem.
    """
    asked = json.loads(request)
    loaded = service.read(read_option(asked, "version"))
    rows = read_rows(loaded, asked.get("body"))
    items = loaded.score(rows)
    if read_option(asked, "explain") != "true":
        return items
    told = zip(items, rows, strict=True)
    return [item if "error" in item else item | explain_row(loaded, row) for item, row in told]


def predict_one(service: Service, request: str) -> dict[str, Any]:
    """The item of one row, a text or a record. Raises Problem."""
    asked = json.loads(request)
    loaded, value = service.read(read_option(asked, "version")), asked.get("body")
    (item,) = predict(service, json.dumps(asked | {"body": [value]}))
    if "error" in item:
        raise Problem(500, item["error"])
    echo = {"input": value} if read_option(asked, "echo_input") == "true" else {}
    return item | {"version": loaded.version, "from_cache": False} | echo


def predict_records(service: Service, request: str) -> dict[str, Any]:
    """vetiver's protocol: {"predict": label or amount of each record}, for a list of records or one. Raises Problem."""
    asked = json.loads(request)
    body = asked.get("body")
    items = predict(service, json.dumps(asked | {"body": body if isinstance(body, list) else [body]}))
    failed = [{"row": row, "field": "", "problem": item["error"]} for row, item in enumerate(items) if "error" in item]
    if failed:
        raise Problem(500, f"{len(failed)} of {len(items)} rows could not be predicted", errors=failed)
    return {"predict": [item["label"] if "label" in item else item["value"] for item in items]}


def explain_row(loaded: Loaded, row: Mapping[str, Any]) -> dict[str, Any]:
    """The features that pushed the prediction of a row, the largest first; of a model without weights null, and why."""
    try:
        told = loaded.explain(make_framer(loaded.prototype)([row]), None).head(MOST_TELLING)
    except ModelError as error:
        return {"explanation": None, "explanation_problem": str(error)}
    return {"explanation": told.to_dict("records")}


def welcome(service: Service, caller: Mapping[str, str] | None) -> dict[str, Any]:
    """What runs here since when, who asks, and what the notebook answered when the service started.

    For who has a token, `links` names the page /docs, which lists all there is, the gateway's own endpoints too, and
    the same as an OpenAPI document.
    """
    annotations = [found for source in service.run.stage.code if (found := ANNOTATION.match(source))]
    endpoints = [f"{found['method']} {braces(found['path'])}" for found in annotations if not found["info"]]
    return {
        "service": "Pinmill",
        "workflow": service.workflow,
        "champion": tell_dates(service.champion) if service.champion else None,
        "problem": (service.problem or None) if caller is None or caller["role"] in MAY_KNOW else None,
        "started": service.started,
        "caller": {name: caller[name] for name in ("name", "address")} if caller else None,
        "links": ["/docs", "/openapi.json"] if caller else [],
        "endpoints": endpoints,
    }


def tell_dates(loaded: Loaded) -> dict[str, str | None]:
    """A version, when it was trained, and when it became champion."""
    return {"version": loaded.version, "trained": loaded.pin.created.isoformat(), "promoted": loaded.promoted or None}


def describe_pin(loaded: Loaded) -> dict[str, Any]:
    """Everything that the pin of a version says of it, but the prototype and the parameters."""
    pin, inputs = loaded.pin, loaded.pin.lineage["inputs"]
    own = {"name": pin.name, "title": pin.title, "sha256": pin.sha256, "bytes": pin.size}
    facts = {name: value for name, value in pin.facts.items() if name != "prototype"}
    lineage = {name: value for name, value in pin.lineage.items() if name != "parameters"}
    lineage["inputs"] = [{**given, "name": FOLDERS.sub("", given["name"])} for given in inputs]
    return {**tell_dates(loaded), **own, "facts": facts, "lineage": lineage}


def show_model(service: Service, request: str) -> Response:
    """The champion's steps outside in, with hyperparameters that are not the default, and sizes.

    With the option `format=html` scikit-learn's diagram, as a page that loads nothing from the network.
    """
    from sklearn.utils import estimator_html_repr

    form = read_option(json.loads(request), "format") or "json"

    def tell() -> dict[str, Any]:
        """The structure as plain values."""
        if form != "json":
            raise Problem(422, f"format is {form[:20]!r}; json or html was expected")
        loaded = service.read()
        chosen = loaded.pin.facts.get("hyperparameters") or {}
        about = {"version": loaded.version, "bytes": loaded.pin.size, "hyperparameters": chosen}
        return {**about, "steps": describe_model(loaded.model)}

    def draw() -> str:
        """The structure as a page."""
        title = f"{service.workflow}: model {service.read().version}"
        diagram = estimator_html_repr(service.read().model)
        return f'<!doctype html><meta charset="utf-8"><title>{title}</title>{diagram}'

    return respond(draw, media_type="text/html; charset=utf-8") if form == "html" else respond(tell)


def find_input(board: Board, pin: Pin, kind: str) -> Pin | None:
    """The pin of a kind that a pin was made from; None when it is gone."""
    given = next((each for each in pin.lineage["inputs"] if each["kind"] == kind), None)
    try:
        return board.pin(given["name"], given["version"]) if given else None
    except PinNotFoundError:
        return None


def read_args(service: Service) -> dict[str, Any]:
    """The parameters that the champion was trained with, and those that its data was prepared with. Raises Problem."""
    model = service.read().pin
    data = find_input(service.board, model, "data")
    args = (data.lineage["parameters"] if data else {}) | model.lineage["parameters"]
    return {name: FOLDERS.sub("", args[name] or "") if name == "source" else args[name] for name in sorted(args)}


def read_arg(service: Service, request: str) -> dict[str, Any]:
    """The parameter that the path names. Raises Problem (404)."""
    args, name = read_args(service), json.loads(request)["path"]["name"]
    if name not in args:
        raise Problem(404, f"the champion was trained with no parameter {name!r}.{did_you_mean(name, args)}")
    return {"name": name, "value": args[name]}
