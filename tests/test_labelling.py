"""Labelling as people and programs meet it over HTTP: a real service with tokens, and one without."""

import asyncio
import gc
import getpass
import os
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pinmill.gateway import Gateway, Options
from pinmill.plan import make_plan
from pinmill.project import Project
from pinmill.served import Served
from pinmill.store import Store
from pinmill.tokens import create_token

if TYPE_CHECKING:
    from conftest import Server, Workplace

PEOPLE = {"ann": "annotator", "bob": "annotator", "kim": "annotator", "moe": "modeller", "sue": "scorer"}
TEXTS = ["win a free prize", "see you at lunch", "free lunch tomorrow", "the report of the prize", "call me", "pills"]


@dataclass
class Place:
    """A service with tokens, and everybody's token."""

    server: "Server"
    workplace: "Workplace"
    tokens: dict[str, str] = field(default_factory=dict)

    def ask(self, who: str, method: str, path: str, value: object = None, **options: Any) -> httpx.Response:
        """The answer to somebody's request."""
        return self.server.ask(method, path, value, headers={"Authorization": f"Bearer {self.tokens[who]}"}, **options)

    def get(self, who: str, path: str, **options: Any) -> Any:
        """What somebody gets."""
        answer = self.ask(who, "GET", path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, who: str, path: str, value: object, status: int = 201) -> Any:
        """What is said to what somebody sends."""
        answer = self.ask(who, "POST", path, value)
        assert answer.status_code == status, answer.text
        return answer.json()

    def read(self, query: str, *values: object) -> list[tuple]:
        """Rows, straight from the file."""
        return read_store(self.workplace, query, *values)


def read_store(workplace: "Workplace", query: str, *values: object) -> list[tuple]:
    """Rows of the store, straight from the file."""
    with sqlite3.connect(workplace.root / "outputs/pinmill.sqlite") as connection:
        found = connection.execute(query, values).fetchall()
    connection.close()
    return found


@pytest.fixture(scope="module")
def running(trained_once: "Workplace", tmp_path_factory: Any, start_service: Any) -> Iterator[Place]:
    """A service for the tests of this module, one after the other."""
    workplace = trained_once.copy(tmp_path_factory.mktemp("labelling") / "project")
    about = {"expires": None, "by": "test", "when": datetime.now(UTC)}
    store = Store(workplace.root / "outputs/pinmill.sqlite")
    tokens = {name: create_token(store, name, role, **about) for name, role in PEOPLE.items()}
    store.close()
    place = Place(start_service(workplace, "tiny"), workplace, tokens)
    yield place
    assert place.server.stop() == 0, place.server.log.read_text()
    assert "a defect" not in place.server.log.read_text()


@pytest.fixture
def place(running: Place) -> Place:
    """That service with six examples, and nothing said of them yet."""
    with sqlite3.connect(running.workplace.root / "outputs/pinmill.sqlite") as connection:
        for table in ("examples", "annotations", "leases"):
            connection.execute(f"DELETE FROM {table}")
    connection.close()
    assert running.post("ann", "/examples", [*TEXTS, TEXTS[0]]) == {"added": 6, "known": 1}
    return running


def refuse(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The body of a problem of that status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    return answer.json()


def margin(shares: dict[str, float]) -> float:
    first, second = sorted(shares.values(), reverse=True)[:2]
    return first - second


# The queue


def test_the_next_examples_are_those_that_the_champion_is_least_sure_of(place: Place, predict_here: Any) -> None:
    version = place.server.ask("GET", "/ready").json()["version"]
    told = place.get("ann", "/queue?n=4")
    shares = dict(zip(TEXTS, predict_here(place.workplace, version, TEXTS), strict=True))
    items = told.pop("items")
    progress = told.pop("progress")
    assert told == {
        "workflow": "tiny", "annotator": "ann", "role": "annotator", "labels": ["ham", "spam"], "text": "text",
        "guideline": "",
    }  # fmt: skip
    assert [progress[name] for name in ("open", "done", "own", "skipped", "pace")] == [6, 0, 0, 0, None]
    assert [item["record"]["text"] for item in items] == sorted(TEXTS, key=lambda text: margin(shares[text]))[:4]
    for item in items:
        said = item["prediction"]
        assert (item["strategy"], said["probability"]) == ("uncertainty", shares[item["record"]["text"]])
        assert said["label"] == max(said["probability"], key=said["probability"].get)
        assert said["explanation"]
    again = place.get("ann", "/queue?n=4")["items"]
    assert [item | {"expires": ""} for item in again] == [item | {"expires": ""} for item in items]


def test_another_model_that_disagrees_says_what_comes_first(place: Place, predict_here: Any) -> None:
    assert {item["strategy"] for item in place.get("bob", "/queue?n=1&strategy=disagreement")["items"]} == {
        "uncertainty"
    }
    first, second = place.server.ask("GET", "/ready").json()["version"], place.workplace.write_second()
    items = place.get("ann", "/queue?n=3&strategy=disagreement")["items"]
    one, two = (dict(zip(TEXTS, predict_here(place.workplace, v, TEXTS), strict=True)) for v in (first, second))
    (taken,) = [item["record"]["text"] for item in place.get("bob", "/queue")["items"]]
    left = [text for text in TEXTS if text != taken]
    by_distance = sorted(left, key=lambda text: -sum(abs(one[text][name] - two[text][name]) for name in one[text]))
    assert [item["record"]["text"] for item in items] == by_distance[:3]
    assert {item["strategy"] for item in items} == {"disagreement"}


def test_many_who_ask_at_once_never_get_the_same_example(place: Place) -> None:
    place.post("ann", "/examples", [f"number {n}" for n in range(60)])

    def take(number: int) -> list[str]:
        who = ("ann", "bob", "moe")[number % 3]
        return [f"{who} {item['id']}" for item in place.get(who, "/queue?n=20&strategy=random")["items"]]

    with ThreadPoolExecutor(6) as threads:
        taken = {pair for pairs in threads.map(take, range(12)) for pair in pairs}
    assert len(taken) == 60
    assert len({pair.split()[1] for pair in taken}) == 60


def test_without_a_champion_labels_come_from_the_params_and_the_order_is_random(
    workplace: "Workplace", serve: Any
) -> None:
    workplace.params((workplace.root / "params/tiny.yaml").read_text() + "labels: [spam, ham]\nguideline: Be kind.\n")
    server = serve(workplace=workplace, ready=False)
    assert server.ask("POST", "/examples", ["text a", "text b"]).json() == {"added": 2, "known": 0}
    told = server.ask("GET", "/queue").json()
    (item,) = told["items"]
    assert (told["labels"], told["guideline"], told["role"]) == (["spam", "ham"], "Be kind.", "admin")
    assert told["annotator"] == getpass.getuser()
    assert (item["prediction"], item["strategy"]) == (None, "random")
    label = {"id": item["id"], "label": "spam", "key": item["key"], "seconds": 1.5}
    assert server.ask("POST", "/annotations", label).json() == {
        "annotations": [{"id": 1, "label": "spam", "known": False}]
    }
    assert server.ask("GET", "/ready").status_code == 503


def test_a_kernel_that_does_not_answer_keeps_nobody_from_labelling(serve: Any) -> None:
    server = serve()
    (kernel,) = server.kernels()
    server.ask("POST", "/examples", ["nobody", "scored", "these"])
    os.kill(kernel, signal.SIGSTOP)
    try:
        items = server.ask("GET", "/queue?n=9").json()["items"]
        assert [(item["prediction"], item["strategy"]) for item in items] == [(None, "random")] * 3
        label = {"id": items[0]["id"], "label": "ham", "key": items[0]["key"]}
        assert server.ask("POST", "/annotations", label).json()["annotations"][0]["known"] is False
    finally:
        with suppress(ProcessLookupError):  # the service has ended it, as it did not answer
            os.kill(kernel, signal.SIGCONT)


@pytest.fixture
def gateway(trained: "Workplace", monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """A gateway in this process, without kernels, with two examples."""
    project, before = Project(trained.root, {}), gc.get_threshold()
    about = {"hashes": ["a", "b"], "origin": "a file", "when": datetime.now(UTC)}
    project.store.add_examples("tiny", [{"text": "a"}, {"text": "b"}], **about)
    made = Gateway(project, make_plan(project, "tiny", job="serve", assignments=[]), Options())
    monkeypatch.setattr(made.pool, "start", lambda: None)
    yield made
    made.pool.context.destroy(linger=0)
    project.store.close()
    gc.set_threshold(*before)
    gc.unfreeze()


def test_an_order_that_fails_is_told_and_made_again_at_the_next_question(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelling, said, pool = gateway.labelling, [], gateway.labelling.desk.pool
    gateway.models.say = said.append
    gateway.models.current = Served("v1", {"prototype": {}}, lambda row: "")

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    async def find(broken: bool) -> tuple[bool, dict]:
        monkeypatch.setattr(labelling.desk, "pool", fail if broken else pool)
        await labelling.find_order("ann", "uncertainty")
        return bool(labelling.orders), dict(labelling.ranking)

    async def find_twice() -> list[tuple[bool, dict]]:
        return [await find(broken=True), await find(broken=False)]

    assert asyncio.run(find_twice()) == [(False, {}), (True, {})]
    assert said == ["a defect of the order of examples: OSError: no space left"]


def test_an_order_that_is_being_made_ends_with_the_service(gateway: Gateway) -> None:
    async def end() -> bool:
        async with gateway.live(None):
            task = gateway.labelling.ranking["ann", "uncertainty", "v1"] = asyncio.create_task(asyncio.Event().wait())
        return task.cancelled()

    assert asyncio.run(end())


def test_skip_and_undo_are_kept_and_the_example_comes_back(place: Place) -> None:
    first, second = place.get("ann", "/queue?n=2")["items"]
    said = {"key": first["key"], "note": "unclear", "seconds": 2}
    skipped = place.post("ann", f"/queue/{first['id']}/skip", said)
    assert place.post("ann", f"/queue/{first['id']}/skip", said) == skipped
    place.post("ann", "/annotations", {"id": second["id"], "label": "ham", "key": second["key"]})
    undone = place.post("ann", "/queue/undo", {}, 200)
    assert (undone["item"]["id"], undone["progress"]["own"], undone["progress"]["skipped"]) == (second["id"], 0, 1)
    assert undone["item"]["prediction"] == second["prediction"]
    assert undone["item"]["key"] != second["key"]
    assert place.get("ann", "/queue")["items"][0]["id"] == second["id"]
    again = [place.post("ann", "/queue/undo", {"key": "u"}, 200)["item"] for _ in range(2)]
    assert again[0] == again[1]
    assert again[0]["id"] == first["id"]
    wrong = place.post("ann", "/queue/undo", {"key": "", "id": 1}, 422)["errors"]
    assert sorted(each["field"] for each in wrong) == ["id", "key"]
    assert place.post("ann", "/queue/undo", {}, 200) == {
        "item": None,
        "progress": place.get("ann", "/queue")["progress"],
    }
    refuse(place.ask("ann", "POST", f"/queue/{'0' * 32}/skip", {}), 404)
    body = refuse(place.ask("ann", "POST", f"/queue/{first['id']}/skip", {"nots": 1, "seconds": "3"}), 422)
    assert [error["field"] for error in body["errors"]] == ["nots", "seconds"]


# Labels


def test_a_label_that_was_acknowledged_survives_a_kill_and_is_the_same_when_it_is_sent_again(
    place: Place, start_service: Any
) -> None:
    (item,) = place.get("ann", "/queue")["items"]
    label = {"id": item["id"], "text": "win a free ham", "label": "ham", "key": item["key"], "note": "mended"}
    (kept,) = place.post("ann", "/annotations", [label])["annotations"]
    place.server.client.close()
    os.kill(place.server.process.pid, signal.SIGKILL)
    place.server.process.wait()
    place.server = start_service(place.workplace, "tiny")
    assert place.post("ann", "/annotations", [label])["annotations"] == [{**kept, "known": True}]
    assert [
        (row["annotator"], row["record"], row["label"], row["note"]) for row in place.get("moe", "/annotations")
    ] == [("ann", item["record"], None, "edited"), ("ann", {"text": "win a free ham"}, "ham", "mended")]


def test_all_annotations_come_in_order_and_from_an_id_on(place: Place) -> None:
    items = [{"text": f"number {n}", "label": "ham", "key": str(n)} for n in range(2500)]
    kept = place.post("ann", "/annotations", items)["annotations"]
    rows = place.get("moe", "/annotations")
    assert [row["id"] for row in rows] == [row["id"] for row in kept]
    assert [row["record"]["text"] for row in rows] == [item["text"] for item in items]
    names = {"id", "hash", "record", "label", "annotator", "created", "seconds", "note", "key", "strategy", "retracts"}
    assert set(rows[0]) == names
    assert place.get("moe", f"/annotations?since={rows[-2]['id']}") == rows[-1:]
    assert place.get("moe", f"/annotations?since={rows[-1]['id']}") == []


def test_what_does_not_fit_is_told_by_row_and_field_and_none_of_it_is_kept(place: Place) -> None:
    items = [{"text": "a", "label": "ham"}, {"text": "b", "label": "hum"}, {"text": "", "label": "ham", "kye": "x"}]
    body = refuse(place.ask("ann", "POST", "/annotations", items), 422)
    assert body["detail"] == "2 of 3 annotations do not fit; nothing was kept"
    assert [(error["row"], error["field"]) for error in body["errors"]] == [(1, "label"), (2, "kye"), (2, "text")]
    assert body["errors"][0]["problem"].endswith("Did you mean 'ham'?")
    assert place.get("moe", "/annotations") == []
    assert refuse(place.ask("ann", "POST", "/examples", ["x", {"txt": "y"}]), 422)["errors"][0]["row"] == 1
    for path in ("/examples", "/annotations"):
        refuse(place.ask("ann", "POST", path, "a text"), 422)
        refuse(place.ask("ann", "POST", path, ["x"] * 10_001), 422)
        refuse(place.ask("ann", "POST", path, ["x" * 2_000_001]), 413)


# Who


def test_with_a_token_the_annotator_is_its_name(place: Place) -> None:
    body = refuse(place.ask("ann", "GET", "/queue?annotator=bob"), 422)
    assert body["detail"] == "with a token the annotator is its name, ann: leave out ?annotator="
    place.post("bob", "/annotations", {"text": "x", "label": "ham", "key": "1"})
    place.post("ann", "/annotations", {"text": "x", "label": "spam", "key": "1"})
    rows = place.get("moe", "/annotations")
    assert [(row["annotator"], row["label"]) for row in rows] == [("bob", "ham"), ("ann", "spam")]


def test_without_tokens_a_name_can_be_said_that_is_one(served: "Server") -> None:
    label = {"text": "x", "label": "ham"}
    for name in (getpass.getuser(), "Ann B.", "o'neil", "", "a" * 41, "\u00e4nne"):
        answer = served.ask("POST", "/annotations", label, params={"annotator": name})
        assert answer.status_code == (201 if name in (getpass.getuser(), "Ann B.") else 422), name
    again = served.ask("POST", "/annotations", label, params={"annotator": "Ann B."}).json()["annotations"][0]
    assert again["known"] is True
    names = [row["annotator"] for row in served.ask("GET", "/annotations").json()]
    assert names == [getpass.getuser(), "Ann B."]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/queue?n=0", "n is '0'"),
        ("/queue?n=51", "n is '51'"),
        ("/queue?n=\u0663", "n is '\u0663'"),
        ("/queue?strategy=given", "one of random, uncertainty, disagreement, newest was expected"),
        ("/queue?strategy=randon", "Did you mean 'random'?"),
        ("/annotations?since=-1", "since is '-1'"),
        ("/annotations?since=1e3", "since is '1e3'"),
        ("/annotations?sinse=1", "Did you mean 'since'?"),
        ("/data?query=SELECT+1&rows=1", "is no option here"),
        ("/data?query=SELECT+*+FROM+tokens", "only examples, annotations and predictions can be read"),
    ],
)
def test_an_option_that_is_wrong_is_told(served: "Server", path: str, said: str) -> None:
    assert said in str(refuse(served.ask("GET", path), 422))


def test_each_call_is_logged_under_its_caller(place: Place) -> None:
    asked = [("ann", "/queue"), ("sue", "/queue"), ("moe", "/annotations"), ("moe", "/data?query=x")]
    ids = [place.ask(who, "GET", path).headers["X-Request-Id"] for who, path in asked]
    marks = ", ".join("?" * len(ids))
    query = f"SELECT endpoint, caller, status FROM calls WHERE request IN ({marks}) ORDER BY id"
    place.server.wait_until(lambda: len(place.read(query, *ids)) == len(ids))
    assert place.read(query, *ids) == [
        ("GET /queue", "ann", 200),
        ("GET /queue", "sue", 403),
        ("GET /annotations", "moe", 200),
        ("GET /data", "moe", 422),
    ]


# SQL


def test_a_query_says_how_good_the_model_was_on_what_people_labelled(place: Place) -> None:
    answer = place.ask("sue", "POST", "/predictions", TEXTS)
    items, request = answer.json(), answer.headers["X-Request-Id"]
    truth = dict(zip(TEXTS, ("spam", "ham", "ham", "ham", "ham", "spam"), strict=True))
    place.post("ann", "/annotations", [{"text": text, "label": label} for text, label in truth.items()])
    right = sum(item["label"] == truth[text] for item, text in zip(items, TEXTS, strict=True))
    place.server.wait_until(
        lambda: len(place.read("SELECT 1 FROM calls WHERE status = 200 AND output IS NOT NULL")) == 6
    )
    query = (
        "SELECT count(*), sum(output ->> '$.label' = label) FROM predictions JOIN annotations USING (hash) "
        f"WHERE request = '{request}'"
    )
    told = place.get("moe", "/data", params={"query": query})
    assert [told[name] for name in ("rows", "complete", "cut")] == [[[6, right]], True, ""]


def test_an_answer_of_many_pages_is_one_list(place: Place) -> None:
    query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 90000) SELECT i, i * 2 FROM n"
    told = place.get("moe", "/data", params={"query": query})
    assert (told["columns"], told["complete"]) == (["i", "i * 2"], True)
    assert told["rows"] == [[number, 2 * number] for number in range(1, 90_001)]
    cut = place.get("moe", "/data", params={"query": query.replace("90000", "200000")})
    assert (cut["complete"], len(cut["rows"])) == (False, 100_000)
    assert cut["cut"]
