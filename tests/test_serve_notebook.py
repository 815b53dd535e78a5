"""The serving notebook as it stands: run as a notebook, and its cells served by Jupyter's own kernel gateway."""

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from pinmill.endpoint import ANNOTATION, Endpoint, braces, read_endpoints
from waiting import wait_until

if TYPE_CHECKING:
    from conftest import Workplace

NOTEBOOK = Path(__file__).resolve().parent.parent / "notebooks" / "serve.ipynb"
ROLES = {
    "any": {"GET /", "GET /last-updated"},
    "scorer": {
        "POST /predictions", "POST /prediction", "POST /predict", "GET /prototype", "GET /metadata", "GET /performance",
        "GET /args", "GET /args/{name}", "GET /model", "GET /models"
    },
    "modeller": {"PUT /models/champion", "POST /runs", "GET /runs/{id}"},
}  # fmt: skip
WRITES = {"PUT /models/champion", "POST /runs"}
OF_PRODUCT = ("outputs/pins", "reports/_pages")  # what a run could move


def endpoints() -> dict[str, Endpoint]:
    return {endpoint.name: endpoint for endpoint in read_endpoints(NOTEBOOK)[0]}


def test_the_endpoints_and_who_may_ask_them() -> None:
    found = endpoints()
    assert {role: {name for name, each in found.items() if each.role == role} for role in ROLES} == ROLES
    assert set(found) == set.union(*ROLES.values())
    assert [name for name, each in found.items() if each.row_wise] == ["POST /predictions"]
    shapes = {name: (each.of, each.shape) for name, each in found.items() if each.of}
    assert shapes == {"POST /prediction": ("/predictions", "one"), "POST /predict": ("/predictions", "vetiver")}


def test_each_endpoint_is_explained_tried_and_tells_its_status() -> None:
    assert [each.name for each in endpoints().values() if not (each.summary and each.description and each.info)] == []
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    for place, cell in enumerate(cells):
        found = ANNOTATION.match(cell.source) if cell.cell_type == "code" else None
        if found and not found["info"]:
            lines = cell.source.splitlines()
            assert len(lines) == 3, cell.source
            assert lines[1].startswith("response = "), cell.source
            assert lines[2] == "print(response.body)", cell.source
            assert cells[place - 1].source.startswith("REQUEST = json.dumps("), cell.source


def list_files(workplace: "Workplace") -> dict[str, bytes]:
    """All pins, and the pages, with their bytes."""
    files = [path for part in OF_PRODUCT for path in (workplace.root / part).rglob("*") if path.is_file()]
    return {str(path.relative_to(workplace.root)): path.read_bytes() for path in files if path.suffix != ".lock"}


def execute(workplace: "Workplace") -> dict[str, tuple[object, dict]]:
    """Each endpoint's answer and what its ResponseInfo cell told, after plain papermill."""
    command = [sys.executable, "-m", "papermill", "notebooks/serve.ipynb", "out.ipynb", "-p", "workflow", "tiny"]
    done = subprocess.run(
        [*command, "--no-progress-bar"], cwd=workplace.root, env=workplace.environ(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    bodies, infos = {}, {}
    for cell in nbformat.read(workplace.root / "out.ipynb", as_version=4).cells:
        if cell.cell_type == "code" and (found := ANNOTATION.match(cell.source)):
            assert {output.name for output in cell.outputs} == {"stdout"}, cell.outputs
            text = "".join(output.text for output in cell.outputs)  # one print may come in two messages
            name = f"{found['method']} {braces(found['path'])}"
            (infos if found["info"] else bodies)[name] = json.loads(text, parse_constant=pytest.fail)
    return {name: (body, infos[name]) for name, body in bodies.items()}


def test_it_runs_from_top_to_bottom_and_changes_nothing(trained: "Workplace") -> None:
    before = list_files(trained)
    answers = execute(trained)
    assert set(answers) == set(endpoints())
    statuses = {name: info["status"] for name, (_, info) in answers.items()}
    assert statuses == {name: 403 if name in WRITES else 200 for name in answers}
    assert {info["headers"]["Content-Type"] for name, (_, info) in answers.items() if name not in WRITES} == {
        "application/json"
    }
    assert [len(answers["POST /predictions"][0]), len(answers["POST /predict"][0]["predict"])] == [3, 3]
    assert list_files(trained) == before
    cells = nbformat.read(trained.root / "out.ipynb", as_version=4).cells
    (shown,) = [
        cell for cell in cells if cell.source.startswith("REQUEST") and cell.cell_type == "code" and cell.outputs
    ]
    problem = json.loads("".join(output.text for output in shown.outputs))
    assert (problem["status"], [each["row"] for each in problem["errors"]]) == (422, [1])


def test_without_a_champion_it_runs_too_and_each_endpoint_says_why(workplace: "Workplace") -> None:
    answers = execute(workplace)
    statuses = {name: info["status"] for name, (_, info) in answers.items()}
    others = {"GET /": 200, "GET /models": 404, "GET /runs/{id}": 404, **dict.fromkeys(WRITES, 403)}
    assert statuses == {name: others.get(name, 503) for name in endpoints()}
    assert "pinmill run tiny" in answers["POST /predictions"][0]["detail"]
    assert answers["GET /"][0]["champion"] is None


def test_its_job_moves_no_champion_and_no_page(trained: "Workplace") -> None:
    before = list_files(trained)
    trained.pinmill("run", "tiny", "--job", "serve")
    after = list_files(trained)
    index = "reports/_pages/index.html"
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} <= {index}


Call = Callable[..., tuple[int, str, object]]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port: int, process: subprocess.Popen) -> None:
    """Return when something listens on the port. Fails when the process has ended."""

    def listens() -> bool:
        with socket.socket() as client:
            client.settimeout(1)
            return client.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listens, "the gateway", seconds=120, process=process)


@pytest.fixture(scope="module")
def stock(trained_once: "Workplace", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    """Calls to Jupyter's own kernel gateway that serves the notebook."""
    pytest.importorskip("kernel_gateway")
    workplace = trained_once.copy(tmp_path_factory.mktemp("stock") / "project")
    workplace.edit("serve", 'workflow: str = "docstrings"', 'workflow: str = "tiny"')
    port, log = free_port(), workplace.root / "gateway.log"
    options = {"api": "kernel_gateway.notebook_http", "seed_uri": "notebooks/serve.ipynb", "port": port}
    words = [f"--KernelGatewayApp.{name}={value}" for name, value in options.items()]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "kernelgateway", *words],
            cwd=workplace.root, env=workplace.environ(), stdout=output, stderr=output,
        )  # fmt: skip

        def call(method: str, path: str, body: object = None) -> tuple[int, str, object]:
            data = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"} if data else {}
            asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers, method=method)
            try:
                with urllib.request.urlopen(asked, timeout=120) as answer:
                    return answer.status, answer.headers["Content-Type"], json.load(answer)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.headers["Content-Type"], json.loads(error.read())

        try:
            wait_for(port, process)
            yield call
        finally:
            process.terminate()
            process.wait(30)


@pytest.mark.parametrize("path", ["/", "/last-updated", "/prototype", "/metadata", "/performance", "/args", "/model"])
def test_jupyters_gateway_serves_the_cells_that_read(path: str, stock: Call) -> None:
    status, media_type, body = stock("GET", path)
    assert (status, media_type) == (200, "application/json")
    assert body


def test_jupyters_gateway_serves_the_cells_that_predict(stock: Call, trained_once: "Workplace") -> None:
    texts = ["win a free prize", "see you at lunch tomorrow"]
    said = [trained_once.json("predict", "tiny", text) for text in texts]
    status, media_type, items = stock("POST", "/predictions", texts)
    assert (status, media_type) == (200, "application/json")
    assert [(item["label"], item["probability"]) for item in items] == [(s["label"], s["probability"]) for s in said]
    one = {**items[0], "version": said[0]["version"], "from_cache": False}
    assert stock("POST", "/prediction", {"text": texts[0]}) == (200, "application/json", one)
    labels = {"predict": [each["label"] for each in said]}
    assert stock("POST", "/predict", [{"text": text} for text in texts]) == (200, "application/json", labels)


def test_jupyters_gateway_tells_problems_and_lets_nobody_write(stock: Call) -> None:
    status, media_type, problem = stock("POST", "/predictions", ["fine", ""])
    assert (status, media_type, [each["row"] for each in problem["errors"]]) == (422, "application/problem+json", [1])
    status, media_type, problem = stock("GET", "/args/sed")
    assert (status, media_type, problem["detail"].partition(". ")[2]) == (
        404,
        "application/problem+json",
        "Did you mean 'seed'?",
    )
    for method, path in (("PUT", "/models/champion"), ("POST", "/runs")):
        assert stock(method, path, {"action": "rollback", "why": "a test"})[:2] == (403, "application/problem+json")
