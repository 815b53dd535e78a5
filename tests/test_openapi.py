"""The OpenAPI document against its own specification, and its page in a real browser that can reach nothing else."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import uvicorn
from pinmill.endpoint import Endpoint, read_endpoints
from pinmill.openapi import docs_routes, write_openapi
from pinmill.rows import check_rows, make_checker
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
TEXT = {"text": {"type": "text", "dtype": "str", "nullable": False, "examples": ["free prize", "lunch?"]}}
TABLE = {
    "age": {"type": "integer", "dtype": "int64", "nullable": False, "examples": [40, 7]},
    "job": {
        "type": "category",
        "dtype": "str",
        "nullable": True,
        "examples": ["cook"],
        "categories": ["cook", "smith"],
    },
}
PREDICTIONS = Endpoint(
    "POST", "/predictions", "", "", "scorer", row_wise=True, args=("level",), summary="Many", description="A list."
)
CELLS = [
    PREDICTIONS,
    Endpoint("POST", "/prediction", "", "", "scorer", of="/predictions", shape="one"),
    Endpoint("GET", "/prediction", "", "", "scorer", of="/predictions", shape="one"),
    Endpoint("POST", "/predict", "", "", "scorer", of="/predictions", shape="vetiver"),
    Endpoint("GET", "/", "", "", "any", summary="What runs here"),
    Endpoint("GET", "/args/{name}", "", "", "scorer"),
    Endpoint("GET", "/model", "", "i", "scorer", description="With `?format=html` a drawing."),
    Endpoint("GET", "/performance", "", "i", "scorer", description="Option: `filter`."),
    Endpoint("GET", "/models", "", "i", "scorer", description="As text/csv."),
    Endpoint("PUT", "/models/champion", "", "i", "modeller"),
    Endpoint("POST", "/runs", "", "i"),
]


def write(
    prototype: dict = TEXT, cells: list[Endpoint] = CELLS, title: str = "Is it spam?", show_examples: bool = True
) -> dict:
    about = {"prototype": prototype, "workflow": "spam", "version": "v1", "title": title}
    return json.loads(json.dumps(write_openapi(cells, **about, show_examples=show_examples)))


def names(operation: dict) -> list[str]:
    """The names of an operation's parameters."""
    return [parameter["name"] for parameter in operation["parameters"]]


@pytest.mark.parametrize("prototype", [TEXT, TABLE, {}])
def test_the_document_is_openapi_3_1(prototype):
    from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

    OPENAPI_31_VALIDATOR.validate(write(prototype))


def test_the_serving_notebook_and_the_gateway_are_in_it_with_names_of_their_own():
    endpoints, _ = read_endpoints(ROOT / "notebooks/serve.ipynb")
    document = write(cells=endpoints)
    operations = {(m.upper(), path): said for path, each in document["paths"].items() for m, said in each.items()}
    gateway = {("GET", f"/{name}") for name in ("ping", "ready", "recent-log", "metrics", "openapi.json", "docs")}
    labels = {("GET", "/annotations"), ("GET", "/queue"), ("GET", "/data")}
    posted = {f"/{name}" for name in ("models", "examples", "annotations", "queue/undo", "queue/{id}/skip")}
    gateway |= labels | {("POST", path) for path in posted}
    assert set(operations) == {(e.method, e.path) for e in endpoints} | gateway
    identities = [operation["operationId"] for operation in operations.values()]
    assert len(set(identities)) == len(identities)
    assert all(operation["summary"] and operation["description"] for operation in operations.values())


def test_prose_role_and_options_of_a_cell_are_told():
    paths = write()["paths"]
    many = paths["/predictions"]["post"]
    assert (many["summary"], many["description"]) == ("Many", "A list.\n\nNeeds the role `scorer`.")
    assert many["operationId"] == "post_predictions"
    assert many["security"] == [{"bearerAuth": []}]
    assert names(many) == ["echo_input", "skip_cache", "version", "explain", "level"]
    assert names(paths["/prediction"]["get"]) == [*names(many), "input"]
    assert names(paths["/model"]["get"]) == ["format"]
    assert list(paths["/model"]["get"]["responses"]["200"]["content"]) == ["application/json", "text/html"]
    assert list(paths["/models"]["get"]["responses"]["200"]["content"]) == ["application/json", "text/csv"]
    assert names(paths["/performance"]["get"]) == ["filter"]
    assert paths["/args/{name}"]["get"]["parameters"][0] | {"schema": 0} == {
        "name": "name", "in": "path", "required": True, "schema": 0,
    }  # fmt: skip
    assert paths["/"]["get"]["security"] == [{}, {"bearerAuth": []}]
    assert list(paths["/models"]) == ["get", "post"]
    assert paths["/runs"]["post"]["description"] == "Needs the role `modeller`."


def test_what_a_writing_cell_takes_is_told_and_of_another_cell_nothing_is_claimed():
    paths = write(cells=[*CELLS, Endpoint("POST", "/own", "")])["paths"]
    body = paths["/models/champion"]["put"]["requestBody"]
    promotion, rollback = body["content"]["application/json"]["schema"]["anyOf"]
    assert (body["required"], promotion["required"], rollback["required"]) == (
        True,
        ["version", "why"],
        ["action", "why"],
    )
    assert paths["/own"]["post"]["requestBody"] == {"required": False, "content": {"application/json": {"schema": {}}}}


def test_a_request_without_a_body_is_not_told_that_its_body_is_wrong():
    responses = write()["paths"]["/ping"]["get"]["responses"]
    assert sorted(responses) == ["200", "400", "401", "403", "405", "408", "429", "431", "500", "503"]
    assert responses["503"] == {"$ref": "#/components/responses/503"}


@pytest.mark.parametrize(
    ("prototype", "many", "one", "records"),
    [
        (TEXT, ["free prize", "lunch?"], ["free prize", "lunch?", {"text": "free prize"}], {"text": "free prize"}),
        (TABLE, [{"age": 40, "job": "cook"}, {"age": 7, "job": "cook"}],
         [{"age": 40, "job": "cook"}, {"age": 7, "job": "cook"}], {"age": 40, "job": "cook"}),
    ],
)  # fmt: skip
def test_the_examples_are_rows_that_pass(prototype, many, one, records):
    paths = write(prototype)["paths"]
    bodies = [paths[f"/{path}"]["post"]["requestBody"]["content"]["application/json"]["examples"]
              for path in ("predictions", "prediction", "predict")]  # fmt: skip
    listed = [[example["value"] for example in body.values()] for body in bodies]
    assert listed[:2] == [[many], one]
    assert listed[2][-1] == records
    assert check_rows(many + one + [records], make_checker(prototype))[1] == []


def test_who_may_not_see_training_rows_gets_invented_examples_that_pass():
    from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

    column = {"dtype": "str", "nullable": False}
    wide = {
        "note": column | {"type": "text", "examples": ["SECRET text"]},
        "job": column | {"type": "category", "examples": ["SECRET"], "categories": ["SECRET", "SECRET too", ""]},
        "sum": {"type": "number", "dtype": "float64", "nullable": True, "examples": [4711.25]},
        "age": {"type": "integer", "dtype": "uint8", "nullable": False, "examples": [123]},
        "new": {"type": "boolean", "dtype": "bool", "nullable": False, "examples": [False]},
        "day": {"type": "datetime", "dtype": "datetime64[ns]", "nullable": False, "examples": ["1999-09-09T00:00:00"]},
        "end": {"type": "datetime", "dtype": "datetime64[ns, UTC]", "nullable": False, "examples": ["1999-09-09T00Z"]},
    }
    times = {"day": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}
    row = {"note": "a text", "job": "a category", "sum": 0.5, "age": 1, "new": True, **times}
    for prototype, example in ((wide, row), (TEXT, "a text")):
        document = write(prototype, show_examples=False)
        OPENAPI_31_VALIDATOR.validate(document)
        said = json.dumps(document)
        assert [word for word in ("SECRET", "4711", "123", "1999", "free prize", "lunch") if word in said] == []
        body = document["paths"]["/predictions"]["post"]["requestBody"]["content"]["application/json"]["examples"]
        assert body == {"example 1": {"value": [example]}}
        assert check_rows([example], make_checker(prototype))[1] == []
    column = document["components"]["schemas"]["Row"]["anyOf"][1]["properties"]["text"]
    assert column["examples"] == ["a text"]
    job = write(wide, show_examples=False)["components"]["schemas"]["Row"]["properties"]["job"]
    assert (job["examples"], "pattern" in job) == (["a category", ""], False)


def test_without_a_model_any_row_may_fit():
    document = write({})
    assert document["components"]["schemas"]["Row"] == {"description": "A row; there is no model yet."}


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[str, list]]:
    """The address of a service that scores everything as spam, and what it was asked: token and body."""
    asked = []

    async def predict(request):
        asked.append((request.headers.get("authorization"), request.url.query, await request.json()))
        return JSONResponse([{"label": "spam", "value": 0.875, "version": "v1", "from_cache": False}])

    async def document(request):
        return JSONResponse(write())

    routes = [Route("/predictions", predict, methods=["POST"]), Route("/openapi.json", document), *docs_routes()]
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
        server.should_exit = True
        thread.join()


def test_the_page_and_its_files_may_load_nothing_from_elsewhere_and_nothing_else_is_there(service):
    address, _ = service
    page = httpx.get(f"{address}/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "http" not in page.text
    assert httpx.get(f"{address}/docs/swagger-ui.css").headers["content-type"] == "text/css; charset=utf-8"
    for name in ("swagger-initializer.js", "..%2fopenapi.py", "oauth2-redirect.html", "%2e%2e/openapi.py"):
        assert httpx.get(f"{address}/docs/{name}").status_code == 404


def open_docs(browser, address: str, **options: object):
    """The page, and all that it asked for elsewhere, said, or popped up."""
    context = browser.new_context(**options)
    page, events = context.new_page(), []
    context.route(lambda url: not url.startswith(address), lambda route: route.abort())
    elsewhere = ("data:", address)
    page.on("request", lambda request: None if request.url.startswith(elsewhere) else events.append(request.url))
    page.on("console", lambda message: events.append(message.text))
    page.on("pageerror", lambda error: events.append(str(error)))
    page.on("dialog", lambda dialog: events.append(dialog.message))
    page.goto(f"{address}/docs")
    page.get_by_text("/predictions").wait_for()
    return page, events


@pytest.mark.browser
def test_a_person_gives_a_token_tries_an_endpoint_and_reads_the_answer(browser, service):
    address, asked = service
    page, events = open_docs(browser, address)
    assert page.title() == "Is it spam?"
    page.get_by_role("button", name="Authorize").first.click()
    page.get_by_label("auth-bearer-value").fill("pinmill_ann_0123")
    page.get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").click()
    page.locator("#operations-predictions-post_predictions .opblock-summary-control").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    page.get_by_text("0.875").first.wait_for()
    assert asked == [
        ("Bearer pinmill_ann_0123", "echo_input=false&skip_cache=false&explain=false", ["free prize", "lunch?"])
    ]
    assert events == []
    page.reload()
    page.get_by_text("/predictions").wait_for()
    assert page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])") == '[{},{},""]'


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_screen_and_phone_in_light_and_dark(browser, service, width, scheme):
    page, events = open_docs(browser, service[0], viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.locator("#operations-predictions-post_predictions .opblock-summary-control").click()
    page.get_by_text("Needs the role").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert events == []
