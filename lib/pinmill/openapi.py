"""The OpenAPI 3.1 document of a service, from its notebook's prose and the prototype, and the page that shows it.

The page is Swagger UI, served whole from here: it asks no other host for anything.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pinmill.endpoint import Endpoint
from pinmill.operations import JSON, OPTIONS, OWN, REQUIRED, TEXT
from pinmill.problem import MEDIA_TYPE
from pinmill.rows import NOT_BLANK, describe_schema

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

MEDIA = re.compile(r"\b(?:text|image|application)/[\w+-]+(?:\.[\w+-]+)*")
ALWAYS = (400, 401, 405, 408, 429, 431, 500, 503)  # what any request may get
OF_CELL = (403, 404, 409, 413, 415, 422, 504)
OF_ROWS = (403, 404, 413, 415, 422, 504)
WHY = {
    400: "The request is malformed: its head, an option or the JSON of its body.",
    401: "No token, or none that is valid: send `Authorization: Bearer …`.",
    403: "The token's role is too small for this.",
    404: "There is nothing of that name, path or version.",
    405: "The path does not answer this method.",
    408: "The request did not arrive in time.",
    409: "Somebody else was first, or it cannot be done now.",
    413: "The body is too large, or has too many rows.",
    415: "The body has another media type than the one expected.",
    422: "The body does not fit: `errors` names each row and field.",
    429: "Too many requests with this token, or from this address: wait as long as `Retry-After` says.",
    431: "The request line and headers are too large.",
    500: "The cell or the model failed.",
    501: "This cannot be done with the database that this service has.",
    503: "Not now: no champion can be served, or too much waits.",
    504: "No answer within the deadline.",
}
TOKEN = "A token, as `pinmill token create` shows it once."
SCORING = ("echo_input", "skip_cache", "version", "explain")  # options of every endpoint that scores rows
ITEM = {
    "type": "object",
    "properties": {
        "label": {"description": "The most probable label, in its own type; amounts have none."},
        "value": {"type": "number", "description": "The probability of the label, or the amount."},
        "probability": {"type": "object", "additionalProperties": {"type": "number"}},
        "explanation": {"type": ["array", "null"], "items": {"type": "object"}, "description": "Largest first."},
        "version": TEXT | {"description": "The version of the model."},
        "from_cache": {"type": "boolean"},
        "input": {"description": "The input, with `echo_input`."},
        "error": TEXT | {"description": "Why the model failed on this row alone."},
    },
    "anyOf": [{"required": ["value"]}, {"required": ["error"]}],
}
PROBLEM = {
    "type": "object",
    "description": "Problem details, RFC 9457.",
    "properties": {
        "type": TEXT,
        "title": TEXT,
        "status": {"type": "integer"},
        "detail": TEXT,
        "instance": TEXT | {"description": "The id of the request, as in `X-Request-Id`."},
        "errors": {
            "type": "array",
            "description": "All violations; row 0 is the first.",
            "items": {"type": "object", "properties": {"row": {"type": "integer"}, "field": TEXT, "problem": TEXT}},
        },
    },
    "required": ["type", "title", "status", "detail"],
    "examples": [
        {
            "type": "about:blank",
            "title": HTTPStatus(422).phrase,
            "status": 422,
            "detail": "1 of 4 rows do not fit what the model expects",
            "errors": [{"row": 3, "field": "age", "problem": '"001" is a text, an integer was expected'}],
        }
    ],
}
HEADERS = {
    "X-Request-Id": {"schema": TEXT, "description": "The id of the request, for `pinmill trace`."},
    "X-Model-Version": {"schema": TEXT, "description": "The version of the model that was asked."},
}
INVENTED = {"text": "a text", "category": "a category", "number": 0.5, "integer": 1, "boolean": True}
OURS = {"docs.js": "text/javascript", "docs.css": "text/css"}
THEIRS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon-32x32.png": "image/png"}
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def write_openapi(
    endpoints: Sequence[Endpoint],
    *,
    prototype: Mapping[str, Mapping],
    workflow: str,
    version: str,
    title: str,
    show_examples: bool = False,
) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a service: its notebook's `endpoints`, and what the gateway answers itself.

    `version` is that of the model; an empty `prototype` means that there is none yet, so that any row may fit. Options
    of a cell are its tags `arg-…`, and those of OPTIONS that its prose writes as code; media types other than JSON are
    those that its source or prose names. The examples of the prototype, which are rows that the model was trained
    with, stand in it only with `show_examples`; else invented ones do.
    """
    prototype = prototype if show_examples else _invent_examples(prototype)
    paths: dict[str, dict[str, Any]] = {}
    rows = {endpoint.path: endpoint for endpoint in endpoints if endpoint.row_wise}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _describe_cell(endpoint, rows, prototype)
    for own in OWN:
        options = [_describe_option(name) for name in own.options]
        about = _describe(own.method, own.path, own.role, own.summary, own.description, options)
        about["responses"] = _list_responses(str(own.status), {own.media: {"schema": own.schema}}, own.problems)
        body = {"requestBody": {"required": True, "content": own.body}} if own.body else {}
        is_open = own.role == "any" and own.path != "/metrics"  # a token changes nothing
        told = about | body | {"tags": [own.tag]} | ({"security": []} if is_open else {})
        paths.setdefault(own.path, {})[own.method.lower()] = told
    record = describe_schema(prototype) if prototype else {"description": "A row; there is no model yet."}
    problem = {"content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}, "headers": HEADERS}
    wait = {"Retry-After": {"schema": TEXT, "description": "Seconds to wait."}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title or workflow,
            "version": version,
            "description": f"The model of the workflow `{workflow}`, as its notebook serves it. "
            "**Authorize** takes a token, which stays in this page until it is left.",
        },
        "tags": [{"name": name} for name in ("predictions", "labels", "notebook", "service")],
        "paths": paths,
        "components": {
            "schemas": {"Row": record, "Item": ITEM, "Problem": PROBLEM},
            "responses": {
                str(status): problem
                | {"description": f"{HTTPStatus(status).phrase}. {why}"}
                | ({"headers": HEADERS | wait} if status in (429, 503) else {})
                for status, why in WHY.items()
            },
            "securitySchemes": {"bearerAuth": {"type": "http", "scheme": "bearer", "description": TOKEN}},
        },
    }


def _invent_examples(prototype: Mapping[str, Mapping]) -> dict[str, dict[str, Any]]:
    """The prototype with one invented example for each column; of its categories only blank ones stay."""
    invented = {}
    for name, entry in prototype.items():
        time = f"2026-01-01T00:00:00{'Z' if ',' in entry['dtype'] else ''}"  # with a zone where the dtype has one
        examples = [INVENTED.get(entry["type"], time)]
        blank = [category for category in entry.get("categories", ()) if not category.strip()]  # then blank texts pass
        kept = {"categories": [*examples, *blank]} if "categories" in entry else {}
        invented[name] = {**entry, "examples": examples, **kept}
    return invented


def _describe_cell(endpoint: Endpoint, rows: Mapping[str, Endpoint], prototype: Mapping) -> dict[str, Any]:
    """The operation of an endpoint of the notebook."""
    cell = rows.get(endpoint.of or endpoint.path) if endpoint.of or endpoint.row_wise else None
    said = [name for name in OPTIONS if re.search(rf"`\??{name}(=[^`]*)?`", endpoint.description)]
    names = dict.fromkeys([*SCORING, *cell.args] if cell else [*endpoint.args, *said])
    parameters = [_describe_option(name) for name in names]
    about = _describe(endpoint.method, endpoint.path, endpoint.role, endpoint.summary, endpoint.description, parameters)
    if cell:
        taken, answer = _describe_rows(endpoint.shape, prototype)
        if endpoint.method == "GET":
            about["parameters"].append({"name": "input", "in": "query", "required": True, **_describe_input(prototype)})
        else:
            about["requestBody"] = {"required": True, "content": {JSON: taken}}
        responses = _list_responses("200", {JSON: {"schema": answer}}, OF_ROWS)
        return about | {"tags": ["predictions"], "responses": responses}
    if endpoint.method in ("POST", "PUT"):
        schemas = _describe_bodies().get(endpoint.name, [])
        content = {JSON: {"schema": {"anyOf": schemas} if schemas else {}}}
        about["requestBody"] = {"required": bool(schemas), "content": content}
    named = MEDIA.findall(f"{endpoint.source}\n{endpoint.info}\n{endpoint.description}")
    named += ["text/html"] * ("format" in names)
    content = {media: {"schema": {} if media == JSON else TEXT} for media in dict.fromkeys([JSON, *named])}
    is_fixed = endpoint.method == "GET" or not endpoint.info
    return about | {"tags": ["notebook"], "responses": _list_responses("200" if is_fixed else "2XX", content, OF_CELL)}


def _describe_bodies() -> dict[str, list[dict[str, Any]]]:
    """The JSON Schemas of what the cells that write take, by method and path; of other cells nothing is known."""
    from pinmill.actions import Promotion, Rollback, Start

    kinds = {"PUT /models/champion": (Promotion, Rollback), "POST /runs": (Start,)}
    return {name: [kind.model_json_schema() for kind in taken] for name, taken in kinds.items()}


def _describe(
    method: str, path: str, role: str, summary: str, description: str, parameters: list[dict[str, Any]]
) -> dict[str, Any]:
    """What all operations have in common."""
    words = path.strip("/").replace("{", "by-").replace("}", "").replace("/", "_")
    names = re.findall(r"{(\w+)}", path)
    inside = [{"name": name, "in": "path", "required": True, "schema": TEXT | {"minLength": 1}} for name in names]
    needed = "Needs no token." if role == "any" else f"Needs the role `{role}`."
    return {
        "operationId": f"{method.lower()}_{words or 'root'}",
        "summary": summary or f"{method} {path}",
        "description": f"{description}\n\n{needed}".strip(),
        "parameters": [*inside, *parameters],
        "security": [{}, {"bearerAuth": []}] if role == "any" else [{"bearerAuth": []}],
    }


def _describe_option(name: str) -> dict[str, Any]:
    """A parameter in the query string."""
    schema, meaning = OPTIONS.get(name, (TEXT, ""))
    needed = {"required": True} if name in REQUIRED else {}
    return {"name": name, "in": "query", **needed, "schema": schema, "description": meaning}


def _describe_rows(shape: str, prototype: Mapping) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a row-wise endpoint takes, with examples, and the schema of what it answers."""
    row, item = {"$ref": "#/components/schemas/Row"}, {"$ref": "#/components/schemas/Item"}
    examples = describe_schema(prototype)["examples"] if prototype else []
    rows, records = {"type": "array", "items": row}, [each for each in examples if isinstance(each, dict)]
    alike = [each for each in examples if not isinstance(each, dict)] or records
    if shape == "one":
        return {"schema": row, "examples": _name_examples(examples)}, item
    if shape == "vetiver":
        predict = {"type": "object", "properties": {"predict": {"type": "array"}}, "required": ["predict"]}
        body = {"anyOf": [rows, {"allOf": [row, {"type": "object"}]}]}
        return {"schema": body, "examples": _name_examples([records, *records[:1]] if records else [])}, predict
    return {"schema": rows, "examples": _name_examples([alike] if alike else [])}, {"type": "array", "items": item}


def _describe_input(prototype: Mapping[str, Mapping]) -> dict[str, Any]:
    """Schema of the row in an address: a text as it is where that is one, else a record as JSON."""
    schema = describe_schema(prototype) if prototype else {}
    if "anyOf" not in schema:
        return {"content": {JSON: {"schema": {"$ref": "#/components/schemas/Row"}}}}
    return {"schema": TEXT | {"pattern": NOT_BLANK}, "example": next(iter(schema["examples"]), "")}


def _name_examples(values: Sequence[Any]) -> dict[str, Any]:
    """Examples as OpenAPI has them, by number."""
    return {f"example {number}": {"value": value} for number, value in enumerate(values, 1)}


def _list_responses(status: str, content: Mapping[str, Any], more: Sequence[int]) -> dict[str, Any]:
    """The answer that is hoped for, and the problems that can come instead."""
    problems = {str(s): {"$ref": f"#/components/responses/{s}"} for s in sorted({*ALWAYS, *more})}
    return {status: {"description": "Done.", "content": content, "headers": HEADERS}, **problems}


def docs_routes() -> "list[Route]":
    """The page /docs and the files that it needs, as routes of Starlette."""
    from starlette.routing import Route

    return [Route("/docs", _answer_file), Route("/docs/{name}", _answer_file)]


def _answer_file(request: "Request") -> "Response":
    """The page, or one of its files."""
    from starlette.exceptions import HTTPException
    from starlette.responses import Response

    name = request.path_params.get("name", "docs.html")
    media = {"docs.html": "text/html", **OURS, **THEIRS}.get(name)
    if media is None:
        raise HTTPException(404)
    return Response(_read_file(name), media_type=media, headers=PAGE_HEADERS)


@cache
def _read_file(name: str) -> bytes:
    """The page, or one of its files, from the disk."""
    folder = files("swagger_ui") / "static" if name in THEIRS else files("pinmill") / "docs"
    return (folder / name).read_bytes()
