"""The running service against its own OpenAPI document: whatever schemathesis sends, no 5xx, nothing undocumented."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

if TYPE_CHECKING:
    from conftest import Server, Workplace

ROLES = ("scorer", "modeller")
EXAMPLES = 20  # of each kind, for each operation
PLAIN = ["GET /", "GET /last-updated", "GET /ping", "GET /ready", "GET /metrics", "GET /docs"]  # that take nothing
READING = [
    "GET /prototype", "GET /metadata", "GET /performance", "GET /args", "GET /args/{name}", "GET /model", "GET /models",
    "GET /runs/{id}", "GET /recent-log",
]  # fmt: skip
SCORING = ["POST /predictions", "POST /prediction", "POST /predict"]
LABELLING = ["GET /annotations", "GET /queue", "POST /examples", "POST /annotations", "POST /queue/undo"]
PICKY = ["GET /data", "POST /queue/{id}/skip"]  # whose options and names are mostly none, whatever is tried
WRITING = ["PUT /models/champion", "POST /runs", "POST /models"]
ALWAYS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "unsupported_method",
)  # fmt: skip
STRICT = ("negative_data_rejection", "positive_data_acceptance")  # a body is taken if, and only if, it fits


@pytest.fixture(scope="module")
def service(
    trained_once: "Workplace", tmp_path_factory: pytest.TempPathFactory, start_service: Any
) -> "Iterator[tuple[Server, dict[str, str], Any]]":
    """A service with tokens, the tokens by role, and the document as schemathesis reads it."""
    from pinmill.store import Store
    from pinmill.tokens import create_token

    workplace = trained_once.copy(tmp_path_factory.mktemp("fuzzed") / "project")
    store = Store(workplace.root / "outputs/pinmill.sqlite")
    about = {"expires": None, "by": "test", "when": datetime.now(UTC)}
    tokens = {role: create_token(store, role, role, **about) for role in ROLES}
    store.close()
    server = start_service(workplace, "tiny")
    yield server, tokens, schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    assert server.stop() == 0, server.log.read_text()
    assert "a defect" not in server.log.read_text()


def try_operation(service: tuple, who: str, name: str, mode: GenerationMode, *, most: int = EXAMPLES) -> Counter:
    """Send what schemathesis makes, check each answer, and count them by status."""
    _, tokens, schema = service
    method, path = name.split()
    headers, statuses = {"Authorization": f"Bearer {tokens[who]}"}, Counter()
    load_all_checks()
    chosen = CHECKS.get_by_names([*ALWAYS, *(STRICT if name in SCORING else [])])

    @hypothesis.seed(20)
    @hypothesis.settings(
        max_examples=most,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=schema[path][method].as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case) -> None:
        if name == "POST /runs":  # otherwise runs would start
            case.body = (case.body if isinstance(case.body, dict) else {}) | {"job": "none of these"}
        answer = case.call(headers=headers, timeout=60)
        statuses[answer.status_code] += 1
        assert answer.headers["x-request-id"]
        case.validate_response(answer, headers=headers, checks=chosen)

    send()
    return statuses


def test_nothing_in_the_document_is_left_out(service: tuple) -> None:
    schema = service[2]
    found = {result.ok().label for result in schema.get_all_operations()}
    assert found == {*PLAIN, *READING, *SCORING, *LABELLING, *PICKY, *WRITING}


@pytest.mark.parametrize("name", [*PLAIN, *READING, *SCORING])
def test_what_fits_the_document_is_answered_as_documented(
    service: tuple, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    statuses = try_operation(
        service, "scorer" if name != "GET /runs/{id}" else "modeller", name, GenerationMode.POSITIVE
    )
    assert set(statuses) <= {200, 404}  # 404: no such version, name or run
    assert 200 in statuses or "{" in name


@pytest.mark.parametrize("name", [*LABELLING, *PICKY])
def test_labelling_is_answered_as_documented(
    service: tuple, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # 422: ?annotator= beside a token, a label that is none, or what is no SQL; 404: no such example
    assert set(try_operation(service, "modeller", name, GenerationMode.POSITIVE)) <= {200, 201, 404, 422}


@pytest.mark.parametrize("name", [*READING, *SCORING, *LABELLING, *PICKY, "PUT /models/champion", "POST /runs"])
def test_what_does_not_fit_is_refused_as_documented(
    service: tuple, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    statuses = try_operation(service, "modeller", name, GenerationMode.NEGATIVE)
    assert set(statuses) <= {200, 201, 400, 401, 404, 409, 415, 422}


@pytest.mark.parametrize(
    ("name", "expected"), [("PUT /models/champion", {404, 409, 422}), ("POST /runs", {422}), ("POST /models", {422})]
)
def test_what_would_change_something_is_answered_as_documented(
    service: tuple, name: str, expected: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    most = 1 if name == "POST /models" else EXAMPLES  # each is looked at in a process of its own
    assert set(try_operation(service, "modeller", name, GenerationMode.POSITIVE, most=most)) <= expected
    assert set(try_operation(service, "scorer", name, GenerationMode.POSITIVE, most=5)) == {403}
