"""The gateway as its callers meet it: real services on a port, one open to this machine, one with tokens."""

import hashlib
import json
import socket
import sqlite3
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from conftest import Server, Workplace

ROLES = ("scorer", "annotator", "modeller", "admin")
PROXY = "127.0.0.2"  # an address of this machine that the service takes for its proxy
RATE = 900  # requests a minute and token
TEXT = "win a free prize now"
GATED = [  # method, path, body, the role it needs, and what who has that role gets
    ("GET", "/", None, "any", 200),
    ("GET", "/ping", None, "any", 200),
    ("GET", "/ready", None, "any", 200),
    ("GET", "/last-updated", None, "any", 200),
    ("GET", "/openapi.json", None, "any", 200),
    ("GET", "/docs", None, "any", 200),
    ("GET", "/metrics", None, "any", 200),  # from this machine
    ("GET", "/metadata", None, "scorer", 200),
    ("GET", "/prototype", None, "scorer", 200),
    ("POST", "/predictions", [TEXT], "scorer", 200),
    ("POST", "/prediction", TEXT, "scorer", 200),
    ("GET", "/prediction?input=x", None, "scorer", 200),
    ("POST", "/predict", [{"text": TEXT}], "scorer", 200),
    ("GET", "/performance", None, "scorer", 200),
    ("GET", "/args", None, "scorer", 200),
    ("GET", "/args/cv", None, "scorer", 200),
    ("GET", "/model", None, "scorer", 200),
    ("GET", "/models", None, "scorer", 200),
    ("GET", "/recent-log", None, "scorer", 200),
    ("PUT", "/models/champion", {}, "modeller", 422),
    ("POST", "/models", None, "modeller", 415),  # compressed, as all here is that has no other body
    ("POST", "/runs", {"job": 1}, "modeller", 422),
    ("POST", "/examples", {}, "annotator", 422),
    ("POST", "/annotations", [1], "annotator", 422),
    ("GET", "/annotations", None, "modeller", 200),
    ("GET", "/queue", None, "annotator", 200),
    ("POST", "/queue/undo", {}, "annotator", 200),
    ("POST", "/queue/none/skip", {}, "annotator", 404),
    ("GET", "/data?query=SELECT+1", None, "modeller", 200),
    ("GET", "/runs/none", None, "modeller", 404),
]
PLACES = {  # what those with a name or id in their path are called in the document
    "GET /args/cv": "GET /args/{name}",
    "GET /runs/none": "GET /runs/{id}",
    "POST /queue/none/skip": "POST /queue/{id}/skip",
}


@dataclass
class Guarded:
    """A service with tokens, and everybody's token."""

    server: "Server"
    workplace: "Workplace"
    champion: str
    second: str  # another version on its board
    tokens: dict[str, str] = field(default_factory=dict)
    shown: bytes = b""  # all that the service ever answered here

    def store(self) -> Any:
        from pinmill.store import Store

        return Store(self.workplace.root / "outputs/pinmill.sqlite")

    def make(self, name: str, role: str, expires: timedelta | None = None) -> None:
        """Make a token beside the running service."""
        from pinmill.tokens import create_token

        store = self.store()
        self.tokens[name] = create_token(store, name, role, expires=expires, by="test", when=datetime.now(UTC))
        store.close()

    def ask(self, who: str | None, method: str, path: str, value: object = None, **options: Any) -> httpx.Response:
        """The answer to somebody's request; `who` has one of `tokens`, or none."""
        if who is not None:
            headers = options.pop("headers", {})
            options["headers"] = {**headers, "Authorization": f"Bearer {self.tokens[who]}"}
        answer = self.server.ask(method, path, value, **options)
        self.shown += answer.content + b"".join(name + value for name, value in answer.headers.raw)
        return answer

    def through_proxy(self, who: str | None, path: str, forwarded: str) -> httpx.Response:
        """The same for a GET that comes from the proxy's address."""
        transport = httpx.HTTPTransport(local_address=PROXY)
        headers = {"X-Forwarded-For": forwarded, **({"Authorization": f"Bearer {self.tokens[who]}"} if who else {})}
        with httpx.Client(base_url=self.server.url, transport=transport, timeout=60) as client:
            return client.get(path, headers=headers)

    def calls(self, where: str, *values: object) -> list[tuple]:
        """Rows of the call log, once there are any; see `read_calls`."""
        found: list[tuple] = []

        def is_there() -> bool:
            found[:] = read_calls(self.workplace, where, *values)
            return bool(found)

        self.server.wait_until(is_there)
        return found


def read_calls(workplace: "Workplace", where: str, *values: object) -> list[tuple]:
    """Rows of the call log, straight from the file, with the columns below."""
    columns = "request, row, caller, status, cached, version, input, output, input_hash"
    with sqlite3.connect(workplace.root / "outputs/pinmill.sqlite") as connection:
        found = connection.execute(f"SELECT {columns} FROM calls WHERE {where} ORDER BY id", values).fetchall()
    connection.close()
    return found


@pytest.fixture(scope="module")
def guarded(trained_once: "Workplace", tmp_path_factory, start_service) -> Iterator[Guarded]:
    """A service with a token for each role, one trusted proxy, GET /prediction, a rate, and inputs in its log."""
    workplace = trained_once.copy(tmp_path_factory.mktemp("guarded") / "project")
    workplace.params((workplace.root / "params/tiny.yaml").read_text() + "log_inputs: true\n")
    shown = [workplace.start("token", "create", role, "--role", role) for role in ROLES]
    tokens = {role: find_token(started.communicate()[0]) for role, started in zip(ROLES, shown, strict=True)}
    champion = workplace.json("champion", "tiny")["version"]
    second = workplace.write_second()
    words = ("--allow-get", "--trusted-proxy", PROXY, "--rate", str(RATE), "--max-rows", "3000")
    server = start_service(workplace, "tiny", *words)
    yield Guarded(server, workplace, champion, second, tokens)
    assert server.stop() == 0, server.log.read_text()


def find_token(text: str) -> str:
    """The token in what `pinmill token create` prints."""
    (token,) = [word for word in text.split() if word.startswith("pinmill_")]
    return token


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The body of an answer that is a problem of that status, whole and in form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert (body["type"], body["status"]) == ("about:blank", status)
    assert body["title"]
    assert body["detail"]
    assert body.get("instance", answer.headers["X-Request-Id"]) == answer.headers["X-Request-Id"]  # a cell knows none
    return body


def count_rows(server: "Server", endpoint: str) -> dict[str, float]:
    """How many rows /metrics says came from where."""
    sources = ("cache", "model")
    return {source: server.metric("pinmill_rows_total", endpoint=endpoint, source=source) for source in sources}


def fresh(count: int) -> list[str]:
    """Texts that nobody asked about before."""
    mark = uuid.uuid4().hex
    return [f"{'free prize' if n % 2 else 'lunch notes'} {mark} number {n}" for n in range(count)]


# Who may ask what


@pytest.mark.parametrize(("method", "path", "value", "role", "status"), GATED, ids=lambda value: str(value)[:20])
def test_each_endpoint_is_for_those_with_its_role(
    guarded: Guarded, method, path, value, role: str, status: int
) -> None:
    may = ROLES if role == "any" else ROLES[ROLES.index(role) :]
    headers = {"Content-Encoding": "gzip"} if value is None else {}
    got = {who: guarded.ask(who, method, path, value, headers=headers).status_code for who in (None, *ROLES)}
    assert got == {None: status if role == "any" else 401, **{who: status if who in may else 403 for who in ROLES}}


def test_every_endpoint_of_the_document_stands_in_that_table(guarded: Guarded) -> None:
    paths = guarded.ask(None, "GET", "/openapi.json").json()["paths"]
    names = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    tried = {f"{method} {path.partition('?')[0]}" for method, path, *_ in GATED}
    assert names == {PLACES.get(name, name) for name in tried}


@pytest.mark.parametrize(
    "given",
    ["Bearer", "Bearer pinmill_scorer_" + "0" * 48, "Basic {token}", "{token}", "Token {token}",
     "Bearer {token}x", "Bearer x {token}", "Bearer {token},{token}", "Bearer \xff{token}", "Bearer " + "x" * 10_000],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/ping", "/metadata", "/predictions", "/nothing"])
def test_a_token_that_is_none_opens_nothing_anywhere(guarded: Guarded, given: str, path: str) -> None:
    header = given.replace("{token}", guarded.tokens["scorer"]).encode("latin-1")
    answer = guarded.ask(None, "POST" if path == "/predictions" else "GET", path, headers={"Authorization": header})
    assert problem(answer, 401)["detail"].startswith("the token is unknown, expired or revoked. Send the header")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_the_scheme_may_be_written_in_any_case(guarded: Guarded) -> None:
    headers = {"Authorization": f"bEARER {guarded.tokens['scorer']}"}
    assert guarded.ask(None, "GET", "/metadata", headers=headers).status_code == 200


def test_who_has_no_token_sees_no_training_text_and_leaves_no_call(guarded: Guarded) -> None:
    texts = guarded.ask("scorer", "GET", "/prototype").json()["examples"]
    assert texts
    for who, is_shown in (("scorer", True), (None, False)):
        shown = guarded.ask(who, "GET", "/openapi.json").text
        assert [json.dumps(text) in shown for text in texts if isinstance(text, str)] == [is_shown] * 3
    answers = [guarded.ask(None, "GET", path) for path in ("/", "/last-updated", "/ready", "/metadata")]
    last = guarded.ask("scorer", "GET", "/last-updated").headers["X-Request-Id"]
    assert guarded.calls("request = ?", last)
    for answer in answers:
        assert read_calls(guarded.workplace, "request = ?", answer.headers["X-Request-Id"]) == []


def test_of_two_tokens_none_counts(guarded: Guarded) -> None:
    for first, second in (("scorer", "admin"), ("admin", "scorer")):
        headers = [("Authorization", f"Bearer {guarded.tokens[name]}") for name in (first, second)]
        problem(guarded.ask(None, "GET", "/metadata", headers=headers), 401)


@pytest.mark.parametrize("path", ["/predictions", "/prediction", "/metadata", "/nowhere"])
def test_who_sends_a_token_in_the_address_is_told_to_revoke_it(guarded: Guarded, path: str) -> None:
    method = "POST" if "prediction" in path else "GET"
    body = problem(guarded.ask(None, method, f"{path}?access_token={guarded.tokens['scorer']}", "a text"), 400)
    assert "revoke it" in body["detail"]


def test_who_may_not_is_told_which_role_it_takes(guarded: Guarded) -> None:
    body = problem(guarded.ask("scorer", "PUT", "/models/champion", {}), 403)
    assert body["detail"] == "this needs the role modeller; the token scorer has the role scorer"
    assert "this needs a token" in problem(guarded.ask(None, "GET", "/metadata"), 401)["detail"]


def test_tokens_are_made_revoked_and_expire_without_a_restart(guarded: Guarded) -> None:
    guarded.make("late", "scorer")
    guarded.make("brief", "scorer", expires=timedelta(seconds=4))
    made = time.monotonic()
    for who in ("late", "brief"):
        guarded.server.wait_until(lambda who=who: guarded.ask(who, "GET", "/args").status_code == 200, seconds=4)
    guarded.workplace.pinmill("token", "revoke", "late")
    revoked = time.monotonic()
    guarded.server.wait_until(lambda: guarded.ask("late", "GET", "/args").status_code == 401)
    assert time.monotonic() - revoked < 2
    guarded.server.wait_until(lambda: guarded.ask("brief", "GET", "/args").status_code == 401)
    assert time.monotonic() - made < 6


@pytest.mark.parametrize("path", ["/ping", "/metadata", "/predictions", "/nothing", "/docs"])
def test_a_token_in_an_address_is_refused_even_beside_a_good_one(guarded: Guarded, path: str) -> None:
    method = "POST" if path == "/predictions" else "GET"
    for query in (f"token={guarded.tokens['scorer']}", f"x={guarded.tokens['scorer']}", "access_token=abc"):
        answer = guarded.ask("scorer", method, f"{path}?{query}", [TEXT] if method == "POST" else None)
        assert "revoke it" in problem(answer, 400)["detail"]


def test_only_a_trusted_proxy_says_whom_it_asks_for(guarded: Guarded) -> None:
    mine = guarded.ask("scorer", "GET", "/", headers={"X-Forwarded-For": "203.0.113.9"}).json()
    assert mine["caller"] == {"name": "scorer", "address": "127.0.0.1"}
    told = guarded.through_proxy("scorer", "/", "203.0.113.9").json()
    assert told["caller"] == {"name": "scorer", "address": "203.0.113.9"}
    forged = guarded.through_proxy("scorer", "/", "127.0.0.1, 203.0.113.9").json()
    assert forged["caller"]["address"] == "203.0.113.9"


def test_metrics_are_for_this_machine_and_admins(guarded: Guarded) -> None:
    got = {who: guarded.through_proxy(who, "/metrics", "203.0.113.9").status_code for who in (None, *ROLES)}
    assert got == {None: 401, "scorer": 403, "annotator": 403, "modeller": 403, "admin": 200}


def test_too_many_requests_of_one_token_are_told_when_to_come_again_and_others_go_on(guarded: Guarded) -> None:
    guarded.make("hasty", "scorer")
    guarded.server.wait_until(lambda: guarded.ask("hasty", "GET", "/recent-log?hours=0").status_code == 422)
    for _ in range(3 * RATE):
        answer = guarded.ask("hasty", "GET", "/recent-log?hours=0")
        if answer.status_code != 422:
            break
    assert f"more than {RATE} requests in a minute" in problem(answer, 429)["detail"]
    assert answer.headers["Retry-After"] == "1"  # one more every 1/15 s
    assert guarded.ask("scorer", "GET", "/args").status_code == 200
    guarded.server.wait_until(lambda: guarded.ask("hasty", "GET", "/recent-log?hours=0").status_code == 422)


# Without tokens


def test_without_tokens_the_service_says_that_only_this_machine_is_served(served: "Server") -> None:
    told = "(there are no tokens: anybody on this machine may do everything, nobody else anything)"
    assert told in served.log.read_text()
    assert served.ask("GET", "/").json()["caller"] == {"name": "", "address": "127.0.0.1"}
    assert problem(served.ask("GET", "/", headers={"Authorization": "Bearer x"}), 401)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost"}, 200),
        ({"Host": "localhost:1234"}, 200),
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8080"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost.evil.example:80"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:1", "Host": "localhost:2"}, 403),
        ({"Origin": "http://localhost:2", "Host": "localhost:2"}, 200),
    ],
)
@pytest.mark.parametrize("path", ["/ping", "/prediction"])
def test_without_tokens_no_web_page_of_elsewhere_can_use_its_reader_s_machine(
    served: "Server", headers: dict, status: int, path: str
) -> None:
    method = "POST" if path == "/prediction" else "GET"
    answer = served.ask(method, path, TEXT if method == "POST" else None, headers=headers)
    assert answer.status_code == status


def test_with_tokens_the_name_of_the_machine_does_not_matter(guarded: Guarded) -> None:
    headers = {"Host": "scores.example", "Origin": "https://scores.example"}
    assert guarded.ask("scorer", "POST", "/prediction", TEXT, headers=headers).status_code == 200


# Every answer


@pytest.mark.parametrize(
    ("method", "path", "value", "status"),
    [
        ("GET", "/", None, 200),
        ("GET", "/ping", None, 200),
        ("GET", "/docs", None, 200),
        ("GET", "/docs/docs.js", None, 200),
        ("GET", "/docs/none.js", None, 404),
        ("GET", "/openapi.json", None, 200),
        ("GET", "/recent-log", None, 200),
        ("GET", "/metrics", None, 200),
        ("GET", "/args/nothing", None, 404),
        ("POST", "/prediction", TEXT, 200),
        ("POST", "/prediction", "", 422),
        ("POST", "/predictions?nothing=1", [TEXT], 422),
        ("GET", "/nothing", None, 404),
        ("GET", "/predictions/", None, 404),
        ("GET", "/predictions", None, 405),
        ("GET", "/predict", None, 405),
        ("GET", "/prediction?input=x", None, 405),
        ("HEAD", "/prediction?input=x", None, 405),
        ("DELETE", "/prediction", None, 405),
        ("POST", "/ping", {}, 405),
        ("PUT", "/models", {}, 405),
        ("POST", "/metadata", {}, 405),
        ("OPTIONS", "/predictions", None, 405),
        ("HEAD", "/", None, 200),
        ("HEAD", "/ping", None, 200),
        ("HEAD", "/metadata", None, 200),
        ("HEAD", "/nothing", None, 404),
        ("HEAD", "/predictions", None, 405),
    ],
)
def test_every_answer_names_request_and_model_and_is_not_kept(served: "Server", method, path, value, status) -> None:
    answer = served.ask(method, path, value)
    if status >= 400 and method != "HEAD":
        problem(answer, status)
    assert answer.status_code == status
    assert answer.headers["X-Request-Id"].startswith("req-")
    version = served.ask("GET", "/ready").json()["version"]
    assert answer.headers["X-Model-Version"] == version
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Server" not in answer.headers
    assert bool(answer.content) == (method != "HEAD")
    if status == 405:
        allowed = {"/predictions": "POST", "/predict": "POST", "/prediction": "POST", "/models": "GET, HEAD, POST"}
        assert answer.headers["Allow"] == allowed.get(path.partition("?")[0], "GET, HEAD")


@pytest.mark.parametrize(
    ("sent", "status"), [(b"rubbish\r\n\r\n", 400), (b"GET /ping HTTP/1.1\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431)]
)
def test_also_what_is_no_request_gets_an_answer_with_a_name(served: "Server", sent: bytes, status: int) -> None:
    url = httpx.URL(served.url)
    with socket.create_connection((url.host, url.port), timeout=20) as connection:
        connection.sendall(sent)
        head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = httpx.Headers([tuple(line.split(": ", 1)) for line in lines])
    answer = httpx.Response(int(first.split()[1]), headers=headers, content=body)
    assert problem(answer, status)
    assert (headers["X-Model-Version"], headers["Cache-Control"]) == ("none", "no-store")


def test_no_two_requests_have_one_id(served: "Server") -> None:
    ids = [served.ask("GET", "/ping").headers["X-Request-Id"] for _ in range(20)]
    assert len(set(ids)) == 20


def test_the_recent_log_has_no_other_option_than_hours(served: "Server") -> None:
    body = problem(served.ask("GET", "/recent-log?hours=1&hour=2&x=3"), 422)
    assert body["errors"] == [{"field": name, "problem": "is no option here"} for name in ("hour", "x")]


# Rows


def test_a_thousand_rows_come_back_in_order_with_the_model_s_own_probabilities(guarded: Guarded, predict_here) -> None:
    texts = fresh(1000)
    answer = guarded.ask("scorer", "POST", "/predictions?echo_input=true", texts)
    assert answer.status_code == 200
    items = answer.json()
    assert [item["input"] for item in items] == texts
    expected = predict_here(guarded.workplace, guarded.champion, texts)
    assert [item["probability"] for item in items] == expected
    assert [item["label"] for item in items] == [max(shares, key=shares.get) for shares in expected]
    assert [item["value"] for item in items] == [max(shares.values()) for shares in expected]
    assert {(item["version"], item["from_cache"]) for item in items} == {(guarded.champion, False)}


def test_texts_and_records_are_the_same_rows(served: "Server") -> None:
    (text,) = fresh(1)
    by_text, by_record = served.ask("POST", "/predictions?skip_cache=true", [text, {"text": text}]).json()
    assert by_text == by_record
    assert served.ask("POST", "/prediction?skip_cache=true", {"text": text}).json() == by_text
    assert served.ask("POST", "/predict?skip_cache=true", {"text": text}).json() == {"predict": [by_text["label"]]}


def test_no_rows_are_no_items(served: "Server") -> None:
    assert served.ask("POST", "/predictions", []).json() == []
    assert served.ask("POST", "/predict", []).json() == {"predict": []}


def test_only_what_is_not_known_is_computed(served: "Server") -> None:
    old, new = fresh(5), fresh(3)
    first = served.ask("POST", "/predictions", old).json()
    assert not any(item["from_cache"] for item in first)
    before = count_rows(served, "POST /predictions")
    mixed = [new[0], *old, new[1], old[0], new[2]]
    items = served.ask("POST", "/predictions?echo_input=true", mixed).json()
    assert [item["input"] for item in items] == mixed
    assert [item["from_cache"] for item in items] == [text in old for text in mixed]
    assert [item["value"] for item in items if item["input"] in old[1:]] == [item["value"] for item in first[1:]]
    after = count_rows(served, "POST /predictions")
    assert {source: after[source] - before[source] for source in after} == {"cache": 6, "model": 3}
    skipped = served.ask("POST", "/predictions?skip_cache=true", mixed).json()
    assert not any(item["from_cache"] for item in skipped)
    assert [item["probability"] for item in skipped] == [item["probability"] for item in items]


def test_one_row_and_vetiver_s_form_share_the_cache(served: "Server") -> None:
    (text,) = fresh(1)
    assert served.ask("POST", "/prediction", text).json()["from_cache"] is False
    assert served.ask("POST", "/prediction", text).json()["from_cache"] is True
    before = count_rows(served, "POST /predict")
    served.ask("POST", "/predict", [text])
    assert count_rows(served, "POST /predict")["cache"] - before["cache"] == 1


def test_every_violation_of_every_row_is_named(served: "Server") -> None:
    rows = '["fine", "", {}, {"text": 5, "txt": "x"}, 3, null, ["x"], NaN, {"text": null}, " ", {"text": "fine"}]'
    answer = served.ask("POST", "/predictions", content=rows, headers={"Content-Type": "application/json"})
    body = problem(answer, 422)
    assert body["detail"] == "9 of 11 rows do not fit what the model expects"
    assert [(error["row"], error["field"]) for error in body["errors"]] == [
        (1, "text"), (2, "text"), (3, "text"), (3, "txt"), (4, ""), (5, ""), (6, ""), (7, ""), (8, "text"), (9, "text"),
    ]  # fmt: skip
    told = {(error["row"], error["field"]): error["problem"] for error in body["errors"]}
    assert told[2, "text"] == "is missing, a text was expected"
    assert told[3, "text"] == "5 is a number, a text was expected"
    assert told[3, "txt"] == "is no field of this model. Did you mean 'text'?"
    assert told[7, ""].startswith("NaN is not finite")
    half = served.ask("POST", "/predictions", content=b'["\\ud800"]', headers={"Content-Type": "application/json"})
    assert [(error["row"], error["field"]) for error in problem(half, 422)["errors"]] == [(0, "text")]


@pytest.mark.parametrize("path", ["/predictions", "/prediction", "/predict"])
def test_a_body_that_is_no_row_says_so(served: "Server", path: str) -> None:
    for value in (3, True, {"text": [1]}, {"text": "x", "more": {}}, "" if path != "/predict" else {}):
        assert problem(served.ask("POST", path, value), 422)
    for content, headers, status in (
        (b"", {}, 400),
        (b"{", {}, 400),
        (b'"\xff"', {}, 400),
        (b"[" * 100_000, {}, 400),
        (b'"x"', {"Content-Type": "text/plain"}, 415),
        (b"\x1f\x8b\x08", {"Content-Encoding": "gzip"}, 415),
        (b'"' + b"x" * 2_000_000 + b'"', {}, 413),
    ):
        headers = {"Content-Type": "application/json; charset=utf-8"} | headers
        problem(served.ask("POST", path, content=content, headers=headers), status)


def test_more_rows_than_allowed_are_refused(guarded: Guarded) -> None:
    body = problem(guarded.ask("scorer", "POST", "/predictions", ["x"] * 3001), 422)
    assert body["detail"] == "3,001 rows are too many for one call: send at most 3,000"


def test_another_version_is_scored_when_it_is_named(guarded: Guarded, predict_here) -> None:
    texts = fresh(3)
    for given in (
        guarded.second,
        guarded.second[:-2] if guarded.champion[:-2] != guarded.second[:-2] else guarded.second,
    ):
        answer = guarded.ask("scorer", "POST", f"/predictions?version={given}", texts)
        assert answer.headers["X-Model-Version"] == guarded.second
        items = answer.json()
        assert {item["version"] for item in items} == {guarded.second}
        assert [item["probability"] for item in items] == predict_here(guarded.workplace, guarded.second, texts)
    mine = guarded.ask("scorer", "POST", "/predictions", texts)
    assert mine.headers["X-Model-Version"] == guarded.champion
    assert [item["probability"] for item in mine.json()] == predict_here(guarded.workplace, guarded.champion, texts)
    assert mine.json()[0]["from_cache"] is False  # what another version said is not the champion's
    answer = guarded.ask("scorer", "POST", "/prediction?version=20200101T000000Z-aaaaa", TEXT)
    assert "GET /models lists them" in problem(answer, 404)["detail"]


def test_an_explanation_adds_the_words_that_pushed_the_strongest_first(served: "Server") -> None:
    item = served.ask("POST", "/prediction?explain=true", TEXT).json()
    pushes = [each["contribution"] for each in item["explanation"]]
    assert 1 <= len(pushes) <= 20
    assert pushes == sorted(pushes, key=abs, reverse=True)
    words = [each["feature"].partition(": ")[2] for each in item["explanation"] if each["feature"].startswith("word")]
    assert words
    assert {part for word in words for part in word.split()} <= set(TEXT.split())
    plain = served.ask("POST", "/prediction", TEXT).json()
    assert "explanation" not in plain
    assert item["probability"] == plain["probability"]
    (listed,) = served.ask("POST", "/predictions?explain=true", [TEXT]).json()
    assert listed["explanation"] == item["explanation"]


def test_one_row_in_the_address_where_that_is_allowed(guarded: Guarded) -> None:
    expected = guarded.ask("scorer", "POST", "/prediction", TEXT).json() | {"from_cache": True}
    for given in (TEXT, json.dumps({"text": TEXT})):
        assert guarded.ask("scorer", "GET", "/prediction", params={"input": given}).json() == expected
    for params in ({}, {"input": ["a", "b"]}, {"input": ""}, {"input": "x", "nothing": "1"}):
        problem(guarded.ask("scorer", "GET", "/prediction", params=params), 422)
    assert guarded.ask("scorer", "GET", "/prediction", params={"input": "{:-("}).json()["label"] in ("spam", "ham")


def test_vetiver_s_own_predict_works_unmodified(guarded: Guarded) -> None:
    import pandas
    import vetiver

    texts = [TEXT, "see you at lunch tomorrow"]
    headers = {"Authorization": f"Bearer {guarded.tokens['scorer']}"}
    frame = pandas.DataFrame({"text": texts})
    told = vetiver.predict(endpoint=f"{guarded.server.url}/predict", data=frame, headers=headers)
    own = [item["label"] for item in guarded.ask("scorer", "POST", "/predictions", texts).json()]
    assert told["predict"].tolist() == own


def test_one_row_in_the_address_is_off_unless_it_was_allowed(served: "Server", guarded: Guarded) -> None:
    body = problem(served.ask("GET", "/prediction?input=x"), 405)
    assert body["detail"].startswith("GET /prediction is off: addresses, and the texts in them, stand in the logs")
    assert body["detail"].endswith("start the service with --allow-get.")
    methods = [
        set(server.ask("GET", "/openapi.json").json()["paths"]["/prediction"]) for server in (served, guarded.server)
    ]
    assert methods == [{"post"}, {"get", "post"}]
    assert guarded.ask("scorer", "HEAD", "/prediction?input=x").status_code == 200
    answer = guarded.ask("scorer", "DELETE", "/prediction")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, POST")


# The call log


def test_each_row_is_logged_with_its_caller_request_and_result(guarded: Guarded) -> None:
    texts = fresh(3)
    guarded.ask("annotator", "POST", "/predictions", texts[:1])
    answer = guarded.ask("annotator", "POST", "/predictions", texts)
    request = answer.headers["X-Request-Id"]
    rows = guarded.calls("request = ?", request)
    assert [row[:6] for row in rows] == [
        (request, n, "annotator", 200, n == 0, guarded.champion) for n in range(3)
    ]  # fmt: skip
    assert [json.loads(row[6]) for row in rows] == texts
    canonical = [json.dumps({"text": text}, separators=(",", ":")) for text in texts]
    assert [row[8] for row in rows] == [hashlib.sha256(each.encode()).hexdigest()[:32] for each in canonical]
    assert [json.loads(row[7])["value"] for row in rows] == [item["value"] for item in answer.json()]


def test_calls_that_score_nothing_and_problems_are_logged_too(guarded: Guarded) -> None:
    for path, status in (("/args", 200), ("/args/nothing", 404)):
        request = guarded.ask("scorer", "GET", path).headers["X-Request-Id"]
        assert [row[:4] for row in guarded.calls("request = ?", request)] == [(request, 0, "scorer", status)]
    request = guarded.ask("scorer", "POST", "/prediction", "").headers["X-Request-Id"]
    assert [row[1:4] for row in guarded.calls("request = ?", request)] == [(0, "scorer", 422)]


def test_the_recent_log_is_one_s_own_oldest_first_and_an_admin_s_is_everybody_s(guarded: Guarded) -> None:
    guarded.make("busy", "scorer")
    guarded.ask("scorer", "GET", "/args")
    texts = fresh(2400)
    guarded.server.wait_until(lambda: guarded.ask("busy", "GET", "/args").status_code == 200)
    asked = [guarded.ask("busy", "POST", "/predictions", part).headers["X-Request-Id"] for part in (texts, texts[:5])]
    guarded.calls("request = ? AND row = 4", asked[1])
    mine = guarded.ask("busy", "GET", "/recent-log").json()
    scored = [(row["request"], row["row"]) for row in mine if row["endpoint"] == "POST /predictions"]
    assert scored == [(asked[0], n) for n in range(2400)] + [(asked[1], n) for n in range(5)]
    assert {row["caller"] for row in mine} == {"busy"}
    assert [row["time"] for row in mine] == sorted(row["time"] for row in mine)
    everybody = guarded.ask("admin", "GET", "/recent-log?hours=1").json()
    assert {"busy", "scorer"} <= {row["caller"] for row in everybody}
    assert [row["id"] for row in everybody] == sorted(row["id"] for row in everybody)


@pytest.mark.parametrize("hours", ["0", "721", "-1", "x", "1.5", "", "9" * 5000])
def test_hours_of_the_recent_log_are_a_whole_number(served: "Server", hours: str) -> None:
    assert "from 1 to 720" in problem(served.ask("GET", f"/recent-log?hours={hours}"), 422)["detail"]


def read_bytes(workplace: "Workplace") -> bytes:
    """All bytes of the store, its log included."""
    return b"".join(path.read_bytes() for path in sorted((workplace.root / "outputs").glob("pinmill.sqlite*")))


def test_inputs_stay_out_of_the_store_unless_the_workflow_says_so(served: "Server", guarded: Guarded) -> None:
    (text,) = fresh(1)
    for how in ({"value": text}, {"value": [{"text": text}]}):
        path = "/prediction" if isinstance(how["value"], str) else "/predictions?echo_input=true"
        request = served.ask("POST", path, how["value"]).headers["X-Request-Id"]
        served.wait_until(lambda request=request: bool(read_calls(served.workplace, "request = ?", request)))
    assert text.encode() not in read_bytes(served.workplace)
    request = guarded.ask("scorer", "POST", "/prediction", text).headers["X-Request-Id"]
    guarded.calls("request = ?", request)
    assert text.encode() in read_bytes(guarded.workplace)


def test_an_answer_never_waits_for_the_log(served: "Server") -> None:
    place = served.workplace.root / "outputs/pinmill.sqlite"
    connection = sqlite3.connect(place, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    assert served.ask("POST", "/prediction?skip_cache=true", fresh(1)[0]).status_code == 200
    assert time.monotonic() - began < 2
    connection.execute("ROLLBACK")
    connection.close()


# Last, as it looks at all that the tests above did


def test_no_token_stands_in_log_store_or_answer(guarded: Guarded) -> None:
    places = {
        "log": guarded.server.log.read_bytes(),
        "store": read_bytes(guarded.workplace),
        "answers": guarded.shown,
        "runs": b"".join(path.read_bytes() for path in (guarded.workplace.root / "outputs").rglob("*.json")),
    }
    assert len(guarded.tokens) >= 4
    for token in guarded.tokens.values():
        secret = token.rpartition("_")[2].encode()
        assert [name for name, content in places.items() if secret in content] == []
