"""The client against real services: what a data person gets, and what they see when something is wrong."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal, assert_series_equal
from pinmill import Client
from pinmill.batch import MOST_BYTES, check_rows, pack, read_items, show_progress, take_rows, tell_failures
from pinmill.connection import PATIENCE, find_pause, make_error
from pinmill.errors import (
    BusyError,
    ClientError,
    DataError,
    ModelChangedError,
    NotAllowedError,
    UnreachableError,
    WrongColumnsError,
)
from pinmill.rows import describe_schema
from waiting import wait_until

if TYPE_CHECKING:
    from conftest import Server, Workplace

ROOT = Path(__file__).resolve().parent.parent
HTML = b"<html>It works!</html>"
WORK = ["papermill", "sklearn", "pydantic", "typer", "sqlalchemy", "starlette", "nbformat", "jupyter_client"]
TEXTS = ["win a free prize now", "see you at lunch tomorrow", "cheap pills", "the report is attached"]


# A road to a service on which things go wrong


class Road(BaseHTTPRequestHandler):
    """Passes requests on to a service, but for what `server.faults` says of the next ones to a path."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Pass one request on, or let it fail."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        waiting = self.server.faults.get(path)
        fault = waiting.pop(0) if waiting else ""
        self.server.came[f"{self.command} {path}"] += 1
        if callable(fault):
            fault = fault() or ""
        if fault == "drop":  # before it arrives
            self.close_connection = True
        elif fault[:3].isdigit():
            status, _, after = fault.partition(" ")
            self.reply(int(status), {"Retry-After": after} if after else {}, HTML)
        else:
            headers = {name: value for name, value in self.headers.items() if name != "Connection"}
            got = httpx.request(self.command, self.server.to + self.path, headers=headers, content=body, timeout=60)
            if fault == "lose":  # after it has arrived
                self.close_connection = True
            else:
                if fault:
                    got.headers["X-Model-Version"] = fault.removeprefix("as ")
                self.reply(got.status_code, got.headers, got.content)

    do_GET = do_POST = do_PUT = answer

    def reply(self, status: int, headers: Any, body: bytes) -> None:
        """Send an answer."""
        headers = httpx.Headers(headers)
        self.send_response_only(status)
        for name in ("Content-Type", "Retry-After", "X-Model-Version", "X-Request-Id"):
            if name in headers:
                self.send_header(name, headers[name])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def lay_road(to: str, **faults: list[Any]) -> Iterator[Any]:
    """A road to a service: its `url`, and how often each request `came`; faults are by path, '/' left out."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Road)
    server.daemon_threads = True
    server.to, server.faults, server.came = to, {f"/{path}": some for path, some in faults.items()}, Counter()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits less between two tries, and there is no address or token in the environment."""
    monkeypatch.setattr("pinmill.connection.PAUSE", 0.02)
    for name in ("PINMILL_URL", "PINMILL_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """The function that makes a client; all are closed afterwards."""
    opened: list[Client] = []

    def open_client(*words: Any) -> Client:
        """A client, as `Client` makes it."""
        opened.append(Client(*words))
        return opened[-1]

    yield open_client
    for client in opened:
        client.close()


@pytest.fixture
def client(served: "Server") -> Iterator[Client]:
    """A client of a service that is not to be changed."""
    with Client(served.url) as opened:
        yield opened


def read_version(client: Client) -> str:
    return client.last_updated()["version"]


# Predictions


def test_predictions_are_the_models_own_under_the_index_that_was_given(
    served: "Server", client: Client, predict_here: Callable
) -> None:
    version = read_version(client)
    shares = pd.DataFrame(predict_here(served.workplace, version, TEXTS), index=list("abcd"))
    expected = pd.DataFrame(
        {"label": shares.idxmax(axis=1), "value": shares.max(axis=1), **shares.add_prefix("probability_")}
    ).assign(version=version)
    frame = pd.DataFrame({"other": range(4), "text": TEXTS}, index=list("abcd"))
    assert_frame_equal(client.predict(frame), expected)
    assert_frame_equal(client.predict(frame["text"]), expected)
    assert_frame_equal(client.predict(TEXTS), expected.reset_index(drop=True))
    assert_frame_equal(client.predict(TEXTS[0]), expected.reset_index(drop=True)[:1])
    assert_frame_equal(client.predict([{"text": text} for text in TEXTS]), expected.reset_index(drop=True))
    assert_frame_equal(client.predict(TEXTS, skip_cache=True), expected.reset_index(drop=True))
    assert client.predict([]).empty


def test_what_pushed_a_prediction_is_told(client: Client) -> None:
    told = client.predict(["free prize"], explain=True)["explanation"][0]
    assert {"word: free", "word: prize", "word: free prize"} <= {each["feature"] for each in told}


def test_many_rows_go_in_batches_and_come_back_in_order(
    served: "Server", capsys: pytest.CaptureFixture, predict_here: Callable
) -> None:
    texts = [f"{TEXTS[n % 4]} number {n}" for n in range(6_400)]
    with lay_road(served.url) as road, Client(road.url) as client:
        told = client.predict(pd.Series(texts, range(0, 12_800, 2)))
        assert road.came == {"GET /prototype": 1, "POST /predictions": 7}
        version = read_version(client)
    shares = pd.DataFrame(predict_here(served.workplace, version, texts), range(0, 12_800, 2))
    assert_frame_equal(told[["probability_ham", "probability_spam"]], shares.add_prefix("probability_"))
    assert told["version"].unique().tolist() == [version]
    assert capsys.readouterr().err == ""  # nobody watches


def test_a_batch_has_at_most_1000_rows_and_1_mb_unless_one_row_is_longer() -> None:
    sizes = [400_000, 400_000, 400_000, 10, 1_500_000, 10]
    rows = pd.Series(["x" * size for size in sizes], list("abcdef"))
    batches = list(pack(rows))
    assert [batch.rows.tolist() for batch in batches] == [["a", "b"], ["c", "d"], ["e"], ["f"]]
    assert [text for batch in batches for text in json.loads(batch.body)] == rows.tolist()
    assert [len(batch.body) <= MOST_BYTES + 2 for batch in batches] == [True, True, False, True]
    assert [len(batch.rows) for batch in pack(pd.Series(["é"] * 2_001))] == [1_000, 1_000, 1]


def test_all_rows_are_scored_by_one_version_though_the_champion_moves_meanwhile(
    serve: Callable[..., "Server"], trained: "Workplace"
) -> None:
    second, server = trained.write_second(), serve()

    def move() -> None:
        server.ask("PUT", "/models/champion", {"version": second, "why": "a test", "override": True})
        server.wait_until(lambda: server.ask("GET", "/last-updated").json()["version"] == second)

    with lay_road(server.url, predictions=["", move]) as road, Client(road.url) as client:
        first = read_version(client)
        told = client.predict([f"text {n}" for n in range(3_000)])
        assert told["version"].unique().tolist() == [first]
        assert client.predict(["a text"])["version"].tolist() == [second]
        assert client.predict(["a text"], version=first[-5:])["version"].tolist() == [first]


def test_a_version_that_is_gone_meanwhile_is_told_as_such(served: "Server") -> None:
    # The service names a version that it has not a moment later: a pruned board and a restart between the two calls.
    with lay_road(served.url, prototype=["as gone"]) as road, Client(road.url) as client:
        with pytest.raises(ModelChangedError, match=r"the model changed meanwhile: no version is 'gone'.*Ask again"):
            client.predict(["a text"])
        with pytest.raises(ClientError, match=r"no version is 'gone'\. GET /models lists them \(404, ") as raised:
            client.predict(["a text"], version="gone")
    assert type(raised.value) is ClientError


# What does not fit


def test_missing_columns_are_named_and_nothing_is_sent(served: "Server") -> None:
    with lay_road(served.url) as road, Client(road.url) as client:
        for frame, said in (
            (pd.DataFrame({"txt": TEXTS}), "column 'text' is missing, a text was expected. Did you mean 'txt'?"),
            (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "column 'text' stands 2 times"),
        ):
            with pytest.raises(WrongColumnsError) as raised:
                client.predict(frame)
            assert str(raised.value) == f"the input does not fit the model: {said}"
        assert road.came == {"GET /prototype": 2}
    assert isinstance(raised.value, DataError)


def test_values_that_do_not_fit_are_all_named_by_the_index(served: "Server") -> None:
    with lay_road(served.url) as road, Client(road.url) as client:
        with pytest.raises(WrongColumnsError) as raised:
            client.predict(pd.Series(["fine", None, " ", 7, float("nan"), True, ["a"]], list("abcdefg")))
        assert road.came == {"GET /prototype": 1}
    missing, expected = "is missing", "a text was expected"
    problems = [missing, "is blank", "is 7", missing, "is True", "is ['a']"]
    assert raised.value.errors == [
        {"row": row, "field": "text", "problem": f"{problem}, {expected}"}
        for row, problem in zip("bcdefg", problems, strict=True)
    ]
    assert str(raised.value) == (
        "values do not fit what the model expects: row b, text is missing, a text was expected; "
        "row c, text is blank, a text was expected; row d, text is 7, a text was expected; "
        "row e, text is missing, a text was expected; row f, text is True, a text was expected; "
        "1 more in the error's `errors`"
    )


def test_what_only_the_service_refuses_is_named_by_the_index_too(client: Client) -> None:
    texts = pd.Series([f"text {n}" for n in range(2_500)], [f"r{n}" for n in range(2_500)], dtype=object)
    texts["r1700"] = "half a pair \ud83d"
    with pytest.raises(WrongColumnsError, match=r"1 of 1000 rows do not fit.*: row r1700, text .* \(422, request req-"):
        client.predict(texts)


AMOUNTS = {
    "age": {"type": "integer", "dtype": "int64", "nullable": False, "examples": [1]},
    "size": {"type": "number", "dtype": "float64", "nullable": True, "examples": [1.5]},
    "paid": {"type": "boolean", "dtype": "bool", "nullable": False, "examples": [True]},
    "when": {"type": "datetime", "dtype": "datetime64[ns]", "nullable": True, "examples": ["2026-01-01"]},
    "city": {"type": "category", "dtype": "str", "nullable": False, "examples": ["Rome"], "categories": ["Rome"]},
}


def test_a_table_is_sent_as_json_has_it() -> None:
    frame = pd.DataFrame(
        {
            "paid": [True, False],
            "city": pd.Categorical(["Rome", "Oslo"]),
            "when": [pd.Timestamp("2026-01-02T03:04:05"), pd.NaT],
            "age": [3.0, 4.0],
            "size": [None, 2],
            "more": [1, 2],
        }
    )
    (batch,) = pack(check_rows(frame, describe_schema(AMOUNTS)))
    assert json.loads(batch.body) == [
        {"age": 3.0, "size": None, "paid": True, "when": "2026-01-02T03:04:05", "city": "Rome"},
        {"age": 4.0, "size": 2.0, "paid": False, "when": None, "city": "Oslo"},
    ]


def test_numbers_of_numpy_in_records_are_sent_as_numbers() -> None:
    day = np.datetime64("2026-01-02")
    record = {"age": np.int64(3), "size": np.float32(0.5), "paid": np.True_, "many": np.arange(2), "day": day}
    (batch,) = pack(take_rows([record | {"when": pd.Timestamp("2026-01-02T03:04:05")}]))
    assert json.loads(batch.body) == [
        {"age": 3, "size": 0.5, "paid": True, "many": [0, 1], "day": "2026-01-02", "when": "2026-01-02 03:04:05"}
    ]


def test_values_of_other_types_are_refused_before_they_are_sent() -> None:
    frame = pd.DataFrame(
        {"age": [1.5, True, "3"], "size": [float("inf"), False, 1], "paid": [1, 0, "yes"], "city": [7, " ", None]},
        dtype=object,
    ).assign(when=[1, "2026-01-01", None])
    with pytest.raises(WrongColumnsError) as raised:
        check_rows(frame, describe_schema(AMOUNTS))
    assert [(error["row"], error["field"], error["problem"].split(",")[0]) for error in raised.value.errors] == [
        (0, "age", "is 1.5"), (1, "age", "is True"), (2, "age", "is '3'"), (0, "size", "is inf"),
        (1, "size", "is False"),
        (0, "paid", "is 1"), (1, "paid", "is 0"), (2, "paid", "is 'yes'"), (0, "when", "is 1"),
        (0, "city", "is 7"), (1, "city", "is blank"), (2, "city", "is missing"),
    ]  # fmt: skip
    with pytest.raises(WrongColumnsError, match="the model takes the columns age, size, paid, when, city: give a"):
        check_rows(["a text"], describe_schema(AMOUNTS))


def test_a_regression_has_amounts_and_a_row_that_failed_an_error() -> None:
    items = [{"value": 2.5, "version": "v"}, {"error": "The model could not score this row.", "version": "v"}]
    table = read_items(items, pd.Index(["a", "b"]))
    assert table.columns.tolist() == ["value", "version", "error"]
    assert_series_equal(table["value"], pd.Series([2.5, None], list("ab"), name="value"))
    with pytest.warns(UserWarning, match=r"1 of 2 rows have no prediction \(row b\); the column `error` says why"):
        tell_failures(table)
    with pytest.raises(ClientError, match="the service was sent 1 rows and answered with something else"):
        read_items(items, pd.Index(["a"]))


def test_a_whole_number_as_label_stays_one_beside_rows_that_failed() -> None:
    items = [{"label": 1, "value": 0.5}, {"error": "The model could not score this row."}]
    batches = [read_items(items[:1], pd.Index(["a"])), read_items(items, pd.Index(["b", "c"])),
               read_items(items[1:], pd.Index(["d"]))]  # fmt: skip
    with pytest.warns(UserWarning, match=r"2 of 4 rows have no prediction \(rows c, d\)"):
        told = tell_failures(pd.concat(batches))["label"]
    assert repr(told.dropna().tolist()) == "[1, 1]"
    assert told.index[told.isna()].tolist() == ["c", "d"]
    assert tell_failures(batches[0])["label"].dtype == "int64"


def test_a_regression_of_a_table_is_scored(
    serve: Callable[..., "Server"], trained: "Workplace", connect: Callable[..., Client]
) -> None:
    from pinmill.board import Board
    from pinmill.model import save_model
    from pinmill.prototype import read_prototype
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline

    board, frame = Board(trained.root / "outputs/pins"), pd.DataFrame({"age": [1, 2, 3], "size": [1.0, 2.0, 4.0]})
    model = make_pipeline(ColumnTransformer([("all", "passthrough", ["age", "size"])]), LinearRegression())
    model.fit(frame, [10.0, 20.0, 40.0])
    pin = board.pin("tiny-model")
    facts = pin.facts | {"task": "regression", "classes": [], "prototype": read_prototype(frame, ["age", "size"])}
    file = {"data": save_model(model), "file_name": "model.skops", "facts": facts, "lineage": pin.lineage}
    version = board.write_file("tiny-model", **file).version
    trained.pinmill("promote", "tiny", version, "--why", "a test", "--override")
    rows = frame.assign(city="Rome").set_axis(list("xyz"))
    told = connect(serve().url).predict(rows)
    expected = pd.DataFrame({"value": model.predict(frame), "version": version}, index=list("xyz"))
    assert_frame_equal(told, expected)


def test_who_watches_sees_a_bar(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    show_progress(5_000, 5_000)
    show_progress(5_001, 10_002)
    show_progress(10_002, 10_002)
    assert capsys.readouterr().err == f"\r{'█' * 15}{'░' * 15} 5,001 of 10,002 rows\r{'█' * 30} 10,002 of 10,002 rows\n"


# Asking again


@pytest.mark.parametrize("fault", ["drop", "lose", "502", "503", "503 0", "504", "429 0"])
def test_a_prediction_is_asked_for_again_where_that_may_help(served: "Server", fault: str) -> None:
    with lay_road(served.url, predictions=[fault, fault]) as road, Client(road.url) as client:
        assert client.predict(["a text"])["label"].notna().all()
        assert road.came["POST /predictions"] == 3


def test_what_fails_is_not_asked_for_again(served: "Server") -> None:
    with lay_road(served.url, predictions=["500"]) as road, Client(road.url) as client:
        with pytest.raises(ClientError, match="answers 500"):
            client.predict(["a text"])
        assert road.came["POST /predictions"] == 1


def test_the_champion_is_never_moved_twice_by_one_promotion(
    trained: "Workplace", serve: Callable[..., "Server"]
) -> None:
    versions, server = {trained.json("champion", "tiny")["version"], trained.write_second()}, serve()

    def read_moves() -> list[str]:
        return [move["version"] for move in trained.json("champion", "tiny", "--history")]

    for fault, moved in ("drop", 0), ("lose", 1), ("502", 0), ("503", 0), ("504", 0), ("503 0", 1), ("429 0", 1):
        before = read_moves()
        (other,) = versions - {before[0]}
        with lay_road(server.url, **{"models/champion": [fault]}) as road, Client(road.url) as client:
            try:
                told = client.promote(other, "a test", override=True)["version"]
            except (UnreachableError, BusyError) as error:
                told = " ".join([str(error), *getattr(error, "__notes__", [])])
            came = dict(road.came)
        assert read_moves() == [other] * moved + before, fault
        if fault in ("503 0", "429 0"):  # which say that nothing was done
            assert (told, came) == (other, {"PUT /models/champion": 2})
        else:
            assert "Whether it was done is not known: look first" in told, fault
            assert came == {"PUT /models/champion": 1}


def respond(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("got", "count", "spent", "repeat", "pause"),
    [
        (httpx.ConnectError("refused"), 1, 0.0, False, 0.02),
        (httpx.ConnectError("refused"), 4, 1.0, True, 0.16),
        (httpx.ConnectError("refused"), 5, 1.0, True, None),
        (httpx.ReadTimeout("late"), 1, 30.0, True, 0.02),
        (httpx.ReadTimeout("late"), 4, 120.0, True, None),
        (httpx.ReadTimeout("late"), 1, 30.0, False, None),
        (httpx.RemoteProtocolError("lost"), 1, 0.0, False, None),
        (respond(200), 1, 0.0, True, None),
        (respond(422), 1, 0.0, True, None),
        (respond(409), 1, 0.0, True, None),
        (respond(503), 2, 0.0, True, 0.04),
        (respond(503), 2, 0.0, False, None),
        (respond(503, Retry_After="2"), 1, 0.0, False, 2.02),
        (respond(503, Retry_After="2"), 5, 10.0, True, 2.32),
        (respond(503, Retry_After="2"), 5, 20.0, True, None),
        (respond(503, Retry_After="Fri, 20 Nov 2026 10:00:00 GMT"), 1, 0.0, True, 0.02),
        (respond(429, Retry_After="7"), 5, 50.0, False, 7.32),
        (respond(429, Retry_After="7"), 5, PATIENCE - 7, True, None),
        (respond(504), 1, 10.0, False, None),
    ],
)
def test_when_a_request_is_sent_again(got: Any, count: int, spent: float, repeat: bool, pause: float | None) -> None:
    found = find_pause(got, count, spent, tries=5, repeat=repeat, chance=0.0)
    assert found == (None if pause is None else pytest.approx(pause))
    least = find_pause(got, count, spent, tries=5, repeat=repeat, chance=1.0)
    assert (least is None) is (found is None)
    assert find_pause(got, 1, spent, tries=1, repeat=repeat, chance=0.0) is None


# What a person sees when it goes wrong


@pytest.fixture(scope="module")
def guarded(trained_once: "Workplace", tmp_path_factory: pytest.TempPathFactory, start_service: Callable) -> Iterator:
    """A service with a token for each role: the server, and the tokens."""
    from pinmill.project import open_project
    from pinmill.tokens import create_token

    place = trained_once.copy(tmp_path_factory.mktemp("guarded") / "project")
    store, about = open_project(place.root, {}).store, {"expires": None, "by": "test", "when": datetime.now(UTC)}
    roles = ("scorer", "annotator", "modeller", "admin")
    tokens = {role: create_token(store, f"ann-{role}", role, **about) for role in roles}
    store.close()
    server = start_service(place, "tiny")
    yield server, tokens
    assert server.stop() == 0, server.log.read_text()


def test_what_one_may_not_is_said_with_the_role_that_one_has(guarded: Any) -> None:
    server, tokens = guarded
    with Client(server.url, tokens["scorer"]) as client:
        assert client.predict(["a text"]).shape == (1, 5)
        wait_until(lambda: len(client.recent_log()))
        assert set(client.recent_log()["caller"]) == {"ann-scorer"}
        with pytest.raises(NotAllowedError) as raised:
            client.promote("a", "b")
    said = "this needs the role modeller; the token ann-scorer has the role scorer. Ask those who run the service"
    assert str(raised.value).startswith(said)
    assert (raised.value.status, isinstance(raised.value, PermissionError)) == (403, True)
    with Client(server.url) as nobody, pytest.raises(NotAllowedError, match=r"this needs a token\..*PINMILL_TOKEN"):
        nobody.predict(["a text"])


def test_a_token_is_in_no_error_and_not_in_what_is_shown(guarded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server, tokens = guarded
    wrong = tokens["scorer"][:-4] + "0000"
    monkeypatch.setenv("PINMILL_URL", f"{server.url}/")
    monkeypatch.setenv("PINMILL_TOKEN", f"{wrong}\n")
    with Client() as client:
        assert repr(client) == f"Client({server.url!r}, with a token)"
        with pytest.raises(NotAllowedError, match="the token is unknown, expired or revoked") as raised:
            client.predict(["a text"])
    error, below = raised.value, raised.value.__traceback__.tb_next  # without this test's own names
    shown = "".join(traceback.TracebackException(type(error), error, below, capture_locals=True).format())
    assert "explain = False" in shown  # it does show names with their values
    assert wrong not in shown + repr(vars(client)) + repr(vars(client._at)) + repr(vars(error))
    for bad in (f"{wrong} x", f"{wrong}\nX: y", f"{wrong}é"):
        with pytest.raises(ClientError, match="the token holds a character that no token has") as raised:
            Client(server.url, bad)
        assert wrong not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (None, "the address is '': http://127.0.0.1:8080 was expected.* or set PINMILL_URL"),
        ("localhost:8080", "the address is 'localhost:8080'"),
        ("ftp://host", "the address is 'ftp://host'"),
        ("http://", "the address is 'http://'"),
        ("http://host:port", "the address is 'http://host:port'"),
        ("http://ann:secret@host", "the address holds more than an address"),
        ("http://host?token=secret", "the address holds more than an address"),
    ],
)
def test_what_is_no_address_is_said_at_once(url: str | None, said: str) -> None:
    with pytest.raises(ClientError, match=said) as raised:
        Client(url)
    assert "secret" not in str(raised.value)


def test_a_service_that_is_not_there_is_unreachable(served: "Server") -> None:
    with lay_road(served.url) as road:
        url = road.url
    with Client(url) as client, pytest.raises(UnreachableError) as raised:
        client.health()
    assert str(raised.value).startswith(f"{url} does not answer (ConnectError: ")
    assert str(raised.value).endswith("Is the service running, and is this its address?")
    assert isinstance(raised.value, ConnectionError)


def test_another_server_is_told_from_a_service(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_bytes(HTML)
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            url = f"http://127.0.0.1:{process.stdout.readline().split('port ')[1].split()[0]}"
            with Client(url) as client:
                with pytest.raises(ClientError, match=rf"{url} answers 404 File not found\. http://127.0.0.1:8080 was"):
                    client.models()
                with pytest.raises(ClientError, match=f"what answers at {url} is no Pinmill service"):
                    client._at.read("GET", "/index.html")
        finally:
            process.terminate()


@pytest.mark.parametrize("errors", [None, 7, "x", {"row": 1}, [None, "x", 7]])
def test_a_problem_whose_violations_are_none_is_told_without_them(errors: Any) -> None:
    answer = httpx.Response(422, json={"detail": "it does not fit", "errors": errors})
    error = make_error(answer, rows=["a"], conflict=ClientError, url="http://here")
    assert (str(error), error.errors) == ("it does not fit (422, request unknown)", [])


def test_a_redirect_to_nowhere_is_no_service() -> None:
    error = make_error(httpx.Response(302), rows=[], conflict=ClientError, url="http://here")
    assert str(error).startswith("http://here answers 302 Found. http://127.0.0.1:8080 was expected")


def test_a_proxy_in_the_environment_is_not_asked_for_this_machine(
    served: "Server", connect: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert connect(served.url).health()["status"] == "ready"


def test_without_a_champion_that_is_what_is_said(
    workplace: "Workplace", serve: Callable[..., "Server"], connect: Callable[..., Client]
) -> None:
    client = connect(serve(workplace=workplace, ready=False).url)
    wait_until(lambda: "no champion" in client.health()["problem"])
    told = client.health()
    assert told["status"] == "not ready"
    assert told["problem"].startswith("tiny has no champion yet. Train and promote one with: pinmill run tiny")
    with pytest.raises(BusyError, match="tiny has no champion yet"):
        client.predict(["a text"])


# The model


def test_what_is_told_of_the_model_is_the_services_own(served: "Server", client: Client) -> None:
    version = read_version(client)
    assert client.health() == {"status": "ready", "version": version}
    models = client.models()
    assert models.to_dict("records") == served.ask("GET", "/models").json()["models"]
    assert models["version"].tolist() == [version]
    assert client.prototype() == served.ask("GET", "/prototype").json()
    assert client.performance("f1") == served.ask("GET", "/performance?filter=f1").json()
    assert client.performance()["version"] == version
    client.predict(["one more text"])
    log = client.recent_log(hours=1)
    wait_until(lambda: len(client.recent_log(hours=1)) > len(log) or "POST /predictions" in set(log["endpoint"]))
    with pytest.raises(ClientError, match=r"hours is '0': a whole number from 1 to 720 was expected \(422, "):
        client.recent_log(hours=0)


def is_written(workplace: "Workplace", run: str) -> bool:
    """Whether the process of a run is there: it makes pages when the run has ended, and holds its lock until then."""
    with (workplace.root / f"outputs/logs/{run}.log").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_model_is_uploaded_promoted_and_rolled_back_and_a_run_is_awaited(
    serve: Callable[..., "Server"], trained: "Workplace", connect: Callable[..., Client]
) -> None:
    from pinmill.model import load_model

    client, rows = connect(serve().url), pd.DataFrame({"text": TEXTS})
    pipeline, first = load_model(trained.make_second()), read_version(client)
    with pytest.raises(WrongColumnsError, match="column 'text' is missing"):
        client.upload_model(pipeline, rows.rename(columns={"text": "words"}))
    sent = client.upload_model(pipeline, rows, note="halved")
    with pytest.raises(BusyError, match=f"run {sent['run']} of tiny and job 'train' is at work"):
        client.retrain()
    wait_until(lambda: client.run(sent["run"])["status"] not in ("starting", "running"), seconds=120)
    wait_until(lambda: not is_written(trained, sent["run"]))
    assert client.models().set_index("version")["status"].to_dict() == {
        first: "former champion", sent["version"]: "champion"
    }  # fmt: skip
    with pytest.raises(ClientError, match=r"tiny has this champion already.*\(409, request req-"):
        client.promote(sent["version"], "once more")
    back = client.rollback("its weights are too small")
    assert (back["version"], back["action"], back["why"]) == (first, "rollback", "its weights are too small")
    moved = client.promote(sent["version"][-5:], "they are not")
    assert (moved["version"], moved["previous"], moved["override"]) == (sent["version"], first, False)
    run = client.retrain(wait=True, draws=60)
    assert (run["status"], run["stages"][-1]["stage"]) == ("succeeded", "model-card")
    with pytest.raises(ClientError, match=r"'drows'.*Did you mean 'draws'\?"):
        client.retrain(drows=60)
    trained.root.joinpath("tiny.csv").write_text("text\na\n")
    wait_until(lambda: not is_written(trained, run["run"]))
    with pytest.raises(ClientError, match=r"run \S+ failed: .*label"):
        client.retrain(wait=True)


# Labels


@pytest.fixture
def people(guarded: Any, connect: Callable[..., Client]) -> dict[str, Client]:
    """A client for each role."""
    server, tokens = guarded
    return {role: connect(server.url, token) for role, token in tokens.items()}


def test_examples_are_added_once_and_their_rows_named_where_they_do_not_fit(people: dict[str, Client]) -> None:
    ann, texts = people["annotator"], [f"an example {n}" for n in range(1_200)]
    assert ann.add_examples(texts) == {"added": 1_200, "known": 0}
    assert ann.add_examples(pd.DataFrame({"text": [*texts[:2], "one more example"]})) == {"added": 1, "known": 2}
    with pytest.raises(WrongColumnsError, match=r"1 of 2 rows do not fit.*: row y, text .* is blank") as raised:
        ann.add_examples(pd.Series(["fine", " "], ["x", "y"]))
    assert [error["row"] for error in raised.value.errors] == ["y"]
    with pytest.raises(
        NotAllowedError, match="this needs the role annotator; the token ann-scorer has the role scorer"
    ):
        people["scorer"].add_examples(texts)


def test_a_label_whose_answer_is_lost_is_there_once(guarded: Any, people: dict[str, Client]) -> None:
    server, tokens = guarded
    frame = pd.DataFrame(
        {"text": [f"lost {n}" for n in range(1_500)], "kind": ["spam", "ham", "ham"] * 500, "took": 2.5, "why": None},
        range(0, 3_000, 2),
    )
    frame.loc[4, "why"] = "a joke"
    with lay_road(server.url, annotations=["lose", "503", "", "drop", "lose"]) as road:
        with Client(road.url, tokens["annotator"]) as ann:
            saved = ann.upload_annotations(frame, label="kind", seconds="took", note="why")
        assert road.came == {"POST /annotations": 6}
    everything = people["modeller"].annotations(all=True)
    mine = everything[everything["record"].map(lambda record: record["text"].startswith("lost "))].set_index("id")
    assert saved.index.tolist() == frame.index.tolist()
    assert saved["known"].all()  # to the second try
    assert sorted(saved["id"]) == sorted(mine.index)
    told = mine.loc[saved["id"]]
    assert told["record"].map(lambda record: record["text"]).tolist() == frame["text"].tolist()
    assert told["label"].tolist() == saved["label"].tolist() == frame["kind"].tolist()
    assert set(told["annotator"]) == {"ann-annotator"}
    assert set(told["seconds"]) == {2.5}
    assert told["note"].tolist() == ["", "", "a joke", *[""] * 1_497]


def test_a_key_of_ones_own_makes_an_upload_that_is_repeated_one(people: dict[str, Client]) -> None:
    ann = people["annotator"]
    frame = pd.DataFrame({"text": ["own a", "own b"], "label": ["spam", "ham"], "number": ["k1", "k2"]}, ["a", "b"])
    first, second = (ann.upload_annotations(frame, key="number") for _ in range(2))
    assert_series_equal(first["id"], second["id"])
    assert (first["known"].tolist(), second["known"].tolist()) == ([False, False], [True, True])


def test_labels_that_do_not_fit_are_named_and_what_is_saved_is_said(people: dict[str, Client]) -> None:
    ann, frame = people["annotator"], pd.DataFrame({"text": ["not a", "not b"], "label": ["Spam", None]}, ["a", "b"])
    with pytest.raises(WrongColumnsError, match=r"1 rows have no label in 'label' \(row b\)\. Leave them out"):
        ann.upload_annotations(frame)
    with pytest.raises(WrongColumnsError, match=r"column 'kind' is missing, a column was expected"):
        ann.upload_annotations(frame, label="kind")
    with pytest.raises(WrongColumnsError, match=r"row a, label .*Did you mean 'spam'\?"):
        ann.upload_annotations(frame[:1])
    many = pd.DataFrame({"text": [f"not {n}" for n in range(1_100)], "label": ["ham"] * 1_099 + ["Ham"]})
    with pytest.raises(WrongColumnsError, match="row 1099, label ") as raised:
        ann.upload_annotations(many)
    assert raised.value.__notes__ == ["The first 1,000 rows are saved; those after them are not"]


def test_labels_that_count_are_told_from_all_that_was_said(people: dict[str, Client]) -> None:
    ann, modeller = people["annotator"], people["modeller"]
    for label in ("spam", "ham"):
        ann.upload_annotations(pd.DataFrame({"text": ["twice"], "label": [label]}))
    modeller.upload_annotations(pd.DataFrame({"text": ["twice"], "label": ["spam"]}))

    def read_said(**how: bool) -> list[tuple[str, str]]:
        told = modeller.annotations(**how)
        ours = told[told["record"].map(lambda record: record == {"text": "twice"})]
        return list(zip(ours["annotator"], ours["label"], strict=True))

    everything = [("ann-annotator", "spam"), ("ann-annotator", "ham"), ("ann-modeller", "spam")]
    assert read_said(all=True) == everything
    assert read_said() == everything[1:]
    with pytest.raises(NotAllowedError, match="this needs the role modeller; the token ann-annotator has the role ann"):
        ann.annotations()


def test_the_queue_is_worked_on_with_its_own_words(people: dict[str, Client]) -> None:
    ann = people["annotator"]
    ann.add_examples([f"in the queue {n}" for n in range(4)])
    given = ann.queue(n=3, strategy="random")
    assert (given["workflow"], given["annotator"], given["labels"]) == ("tiny", "ann-annotator", ["ham", "spam"])
    first, second, third = given["items"]
    (saved,) = ann.annotate([{"id": first["id"], "label": "spam", "key": first["key"], "seconds": 1.5}])
    assert (saved["label"], saved["known"]) == ("spam", False)
    assert ann.annotate([{"id": first["id"], "label": "ham", "key": first["key"]}]) == [{**saved, "known": True}]
    ann.skip(second["id"], second["key"], note="in no language")
    assert [item["id"] for item in ann.queue(n=1)["items"]] == [third["id"]]
    undone = ann.undo()
    assert undone["item"]["id"] == second["id"]
    assert undone["progress"]["own"] == given["progress"]["own"] + 1
    with pytest.raises(ClientError, match=r"strategy is 'best': one of .* \(422, "):
        ann.queue(strategy="best")
    with pytest.raises(ClientError, match=r"has no example '0{32}'\. GET /queue gives some \(404, "):
        ann.skip("0" * 32, "k")
    with pytest.raises(ClientError, match=r"there is nothing at this address"):
        ann.skip("../undo?x=", "k")


def test_a_query_gives_a_table_and_says_when_it_is_cut(people: dict[str, Client]) -> None:
    modeller = people["modeller"]
    modeller.upload_annotations(pd.DataFrame({"text": ["asked a", "asked b"], "label": ["spam", "ham"]}))
    sql = "select label, count(*) as n from annotations where record like '%asked %' group by label order by label"
    table = modeller.query(sql)
    assert_frame_equal(table, pd.DataFrame({"label": table["label"], "n": [1, 1]}))
    assert ([label.strip('"') for label in table["label"]], table.attrs) == (["ham", "spam"], {"complete": True})
    many = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 100001) select i from n"
    with pytest.warns(UserWarning, match="rows are missing after the first 100,000: .*Ask for fewer rows, or in parts"):
        cut = modeller.query(many)
    assert (len(cut), cut.attrs["complete"]) == (100_000, False)
    with pytest.raises(ClientError, match=r"examples.* \(422, "):
        modeller.query("select * from tokens")


# Alone


def test_the_client_imports_nothing_but_the_base_packages() -> None:
    code = f"import sys; from pinmill import Client; print(sorted(set({WORK!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_import_takes_less_than_0_4_s_more_than_that_of_pandas() -> None:
    def measure(code: str) -> float:
        """Seconds of processor time, the least of five: others work here, too."""
        timed = f"import time; {code}; print(time.process_time())"
        runs = [subprocess.run([sys.executable, "-c", timed], capture_output=True, check=True) for _ in range(5)]
        return min(float(run.stdout) for run in runs)

    assert measure("from pinmill import Client") - measure("import pandas") < 0.4


def test_the_base_install_is_enough(served: "Server", tmp_path: Path) -> None:
    folder = tmp_path / "venv"
    source = shutil.copytree(ROOT / "lib", tmp_path / "source/lib", ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source.parent)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin/python"
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--retries", "1"]
    installed = subprocess.run(
        [python, "-m", "pip", "install", *quiet, source.parent], capture_output=True, text=True, check=False
    )
    if installed.returncode:
        pytest.skip(f"SKIPPED LOUDLY: no package index, or no room: {installed.stderr[-300:]}")
    code = f"""
from pinmill import Client
client = Client({served.url!r})
print(client.predict(["win a free prize now"])["label"].tolist())
try:
    client.upload_model(None, None)
except Exception as error:
    print(type(error).__name__, error)
"""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environ, check=False)
    said = "ClientError to save a model takes scikit-learn and skops, and "
    assert done.stdout.startswith(f"['spam']\n{said}"), done.stderr
    assert done.stdout.endswith("is not installed. Install them with: pip install 'pinmill[work]'\n")
