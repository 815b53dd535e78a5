"""What the gateway answers itself, as its OpenAPI document tells it: what each operation takes and gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pinmill.labels import LONGEST_KEY, LONGEST_NOTE
from pinmill.queue import CHOICES
from pinmill.store import STRATEGIES
from pinmill.visit import PERSON

JSON = "application/json"
TEXT, FLAG = {"type": "string"}, {"type": "boolean", "default": False}
NUMBER, COUNT, OBJECT = {"type": "number"}, {"type": "integer", "minimum": 0}, {"type": "object"}
ROW = {"$ref": "#/components/schemas/Row"}
OPTIONS = {  # in the query string: schema and meaning
    "version": (TEXT, "Another version of the model than the champion; its first characters do."),
    "echo_input": (FLAG, "Repeat each input in its item."),
    "skip_cache": (FLAG, "Compute anew what is known."),
    "explain": (FLAG, "Add what pushed each prediction."),
    "filter": (TEXT, "Only what has this text in the name of its metric, class or slice."),
    "format": (TEXT | {"enum": ["json", "html"], "default": "json"}, "The form of the answer."),
    "note": (TEXT | {"maxLength": 500}, "What is worth knowing of the model."),
    "hours": ({"type": "integer", "minimum": 1, "maximum": 720, "default": 24}, "How far back to go [h]."),
    "annotator": (TEXT | {"pattern": f"^{PERSON.pattern}$"}, "Who labels, where there are no tokens."),
    "n": (
        {"type": "integer", "minimum": 1, "maximum": 50, "default": 1},
        "How many examples, those from before among.",
    ),
    "strategy": (TEXT | {"enum": [*CHOICES]}, "Which examples come first; default: as the workflow says."),
    "since": (COUNT | {"default": 0}, "Only those after this id."),
    "query": (TEXT | {"minLength": 1}, "One SELECT."),
}
REQUIRED = ("query",)  # options
ANNOTATION = {
    "type": "object",
    "properties": {
        "id": TEXT | {"description": "The example; with `text` or `record` too, it was edited into that."},
        "text": TEXT | {"description": "The input, where the only column is a text."},
        "record": OBJECT | {"description": "The input by column, and other columns of the workflow."},
        "label": {"description": "One of the workflow's labels, in its own type, or an amount."},
        "seconds": NUMBER | {"minimum": 0, "description": "From seeing the example to the label."},
        "note": TEXT | {"maxLength": LONGEST_NOTE},
        "key": TEXT | {"minLength": 1, "maxLength": LONGEST_KEY, "description": "Repeated, it is the same label."},
        "strategy": TEXT | {"enum": [*STRATEGIES], "description": "How it was chosen, if its lease is over."},
    },
    "required": ["label"],
    "additionalProperties": False,
    "examples": [{"text": "a text", "label": "spam", "seconds": 2.5, "key": "5f0c"}],
}
KEPT = {"type": "object", "properties": {"id": COUNT, "label": {}, "known": {"type": "boolean"}}}
TASK = {
    "type": "object",
    "properties": dict.fromkeys(("id", "key", "expires", "strategy"), TEXT)
    | {"record": OBJECT, "prediction": {"type": ["object", "null"], "description": "What the champion says."}},
    "required": ["id", "record", "key", "expires", "strategy", "prediction"],
}
SKIP = {
    "type": "object",
    "properties": {name: ANNOTATION["properties"][name] for name in ("key", "note", "seconds")},
    "additionalProperties": False,
}
UNDO = {
    "type": "object",
    "properties": {"key": ANNOTATION["properties"]["key"] | {"description": "Repeated, nothing more is taken back."}},
    "additionalProperties": False,
}
TOLD = {
    "type": "object",
    "properties": {
        "items": {"type": "array", "items": TASK},
        "labels": {"type": ["array", "null"]},
        "progress": OBJECT,
    },
    "required": ["workflow", "annotator", "role", "labels", "text", "guideline", "progress", "items"],
}
ANSWER = {
    "type": "object",
    "properties": {
        "columns": {"type": "array", "items": TEXT},
        "rows": {"type": "array", "items": {"type": "array"}},
        "complete": {"type": "boolean", "description": "False where the answer was cut, and `cut` says why."},
    },
    "required": ["columns", "rows", "complete"],
}
READY = {"type": "object", "properties": {"status": {"const": "ready"}, "version": TEXT}, "required": ["status"]}
CALL = {"type": "object", "properties": {"time": TEXT, "caller": TEXT, "status": {"type": "integer"}}}
CREATED = {"type": "object", "properties": {"version": TEXT, "run": TEXT}, "required": ["version"]}
ADDED = {"type": "object", "properties": {"added": COUNT, "known": COUNT}, "required": ["added", "known"]}
FILE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
OF_BODY = (403, 413, 415, 422)
LEASED = "An example is leased to who got it, and comes again until it is labelled or skipped."
SQL = (
    "What `query`, one SELECT in SQLite's dialect, finds in the views `examples`, `annotations` and `predictions`; "
    "these join by `hash`."
)


@dataclass(frozen=True)
class Operation:
    """One thing that the gateway answers itself."""

    method: str
    path: str
    role: str
    summary: str
    description: str
    schema: Mapping[str, Any]  # of the answer
    options: tuple[str, ...] = ()
    media: str = JSON
    body: Mapping[str, Any] = field(default_factory=dict)  # by media type, as OpenAPI has it
    status: int = 200
    problems: tuple[int, ...] = (403,)
    tag: str = "service"


def _label(method: str, path: str, summary: str, description: str, schema: Mapping[str, Any], **more: Any) -> Operation:
    """An operation about labels, by default for annotators."""
    about = {"role": "annotator", "options": ("annotator",), "problems": (403, 422), "tag": "labels"}
    body = {"body": {JSON: {"schema": more.pop("takes")}}, "problems": OF_BODY} if "takes" in more else {}
    return Operation(method, path, summary=summary, description=description, schema=schema, **about | body | more)


OWN = (
    Operation("GET", "/ping", "any", "Alive?", "Answers as long as the gateway lives.", OBJECT),
    Operation("GET", "/ready", "any", "Ready?", "Answers 200 when a kernel holds a verified champion.", READY),
    Operation("POST", "/models", "modeller", "Upload a candidate",
              "The body is a model in skops format. It is checked, kept and evaluated; never is a pickle loaded.",
              CREATED, ("note",), body=FILE, status=201, problems=(*OF_BODY, 409)),
    Operation("GET", "/recent-log", "scorer", "Recent calls", "Your own calls, of an admin all, the oldest first.",
              {"type": "array", "items": CALL}, ("hours",), problems=(403, 422)),
    Operation("GET", "/metrics", "any", "Metrics",
              "For Prometheus: from the machine itself, or with the role `admin`.", TEXT, media="text/plain"),
    Operation("GET", "/openapi.json", "any", "This document", "What is answered here, in OpenAPI 3.1.", OBJECT),
    Operation("GET", "/docs", "any", "This page", "The document as a page to try it out.", TEXT, media="text/html"),
    _label("POST", "/examples", "Add examples to label", "A list of inputs; one that is known is not added again.",
           ADDED, takes={"type": "array", "items": ROW}, status=201),
    _label("POST", "/annotations", "Label", "One annotation or a list of them, of which all are kept or none.",
           {"type": "object", "properties": {"annotations": {"type": "array", "items": KEPT}}},
           takes={"anyOf": [ANNOTATION, {"type": "array", "items": ANNOTATION}]}, status=201),
    _label("GET", "/annotations", "All labels", "With retractions, the oldest first.",
           {"type": "array", "items": OBJECT}, role="modeller", options=("since",)),
    _label("GET", "/queue", "Examples to label", LEASED, TOLD, options=("n", "strategy", "annotator")),
    _label("POST", "/queue/undo", "Undo", "Takes back your last label or skip; its example is the next again.",
           {"type": "object", "properties": {"item": {"anyOf": [TASK, {"type": "null"}]}, "progress": OBJECT}},
           takes=UNDO),
    _label("POST", "/queue/{id}/skip", "Skip", "You take no side on this example, and it comes to others.",
           {"type": "object", "properties": {"id": COUNT}}, takes=SKIP, status=201, problems=(*OF_BODY, 404)),
    _label("GET", "/data", "Query", SQL, ANSWER, role="modeller", options=("query",), problems=(403, 404, 422, 501)),
)  # fmt: skip
