"""The seat of who labels: what it is given first, what becomes of labels, and who may sit there."""

from __future__ import annotations

import getpass
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pandas
import pytest
from memory_seat import ask, talk
from pinmill.adviser import Adviser
from pinmill.board import Board
from pinmill.client import Client
from pinmill.errors import ClientError, DataError, ParameterError, UnreachableError
from pinmill.notebook import read_stage
from pinmill.project import open_project
from pinmill.quality import Settling, tell_quality
from pinmill.rows import hash_input, make_checker
from pinmill.screen import REFUSED, Screen
from pinmill.seat import LocalSeat, RemoteSeat, choose_question, find_annotator, sign_in
from pinmill.session import Run
from pinmill.tokens import create_token, revoke_token
from pinmill.version import now_utc
from pinmill.widget import GONE, Annotator

if TYPE_CHECKING:
    from conftest import Workplace

ROOT = Path(__file__).resolve().parent.parent
TEXTS = [f"{words} {n}" for n in range(6) for words in ("win a free prize call me", "see you at lunch", "cheap thanks")]
TEXT = {"text": {"type": "text", "dtype": "str", "nullable": False, "examples": []}}


def hash_text(text: str) -> str:
    return hash_input(make_checker(TEXT)(text))


def open_run(workplace: Workplace, workflow: str = "tiny", **parameters: Any) -> Run:
    """What `pinmill.start` gives the annotation notebook."""
    stage = read_stage(ROOT / "notebooks" / "annotate.ipynb")
    values = {name: declared.default for name, declared in stage.declarations.items()}
    values |= {"workflow": workflow, **parameters}
    origins = {name: "edited" if name in parameters else "default" for name in values}
    project = open_project(workplace.root, {})
    return Run("adhoc-test", workflow, stage, project, parameters=values, origins=origins, inputs={})


def add_examples(workplace: Workplace, texts: list[str], workflow: str = "tiny") -> None:
    pandas.DataFrame({"text": texts}).to_csv(workplace.root / "new.csv", index=False)
    workplace.pinmill("examples", "add", workflow, "new.csv")


@pytest.fixture
def place(trained: Workplace) -> Workplace:
    """A project whose workflow `tiny` has a champion, and 18 examples to label."""
    add_examples(trained, TEXTS)
    return trained


def current(seat: LocalSeat) -> list[tuple[str, Any]]:
    """(text, label) of all that was said and not retracted, in order."""
    said = seat.annotations()
    kept = said[said["retracts"].isna() & ~said["id"].isin(said["retracts"].dropna())]
    return [(record["text"], label) for record, label in zip(kept["record"], kept["label"], strict=True)]


def test_what_the_champion_is_least_sure_of_comes_first_with_its_prediction(place, predict_here) -> None:
    version = Board(place.root / "outputs/pins").latest("tiny-model")
    shares = predict_here(place, version, TEXTS)
    by_text = dict(zip(TEXTS, shares, strict=True))
    unsure = sorted(TEXTS, key=lambda text: abs(by_text[text]["spam"] - by_text[text]["ham"]))
    items = LocalSeat(open_run(place), "ada").take(18)
    assert [item["record"]["text"] for item in items] == unsure
    assert {item["strategy"] for item in items} == {"uncertainty"}
    assert [item["id"] for item in items] == [hash_text(text) for text in unsure]
    for item in items:
        assert item["prediction"]["probability"] == by_text[item["record"]["text"]]
        assert item["prediction"]["explanation"][0]["contribution"] != 0


def test_disagreement_asks_for_what_two_versions_see_most_differently(place, predict_here) -> None:
    board, second = Board(place.root / "outputs/pins"), place.write_second()
    champion = board.versions("tiny-model")[0]
    pairs = [predict_here(place, version, TEXTS) for version in (champion, second)]
    apart = {text: abs(one["spam"] - other["spam"]) for text, one, other in zip(TEXTS, *pairs, strict=True)}
    items = LocalSeat(open_run(place, strategy="disagreement"), "ada").take(5)
    assert [item["record"]["text"] for item in items] == sorted(TEXTS, key=lambda text: -apart[text])[:5]
    assert {item["strategy"] for item in items} == {"disagreement"}


def test_disagreement_with_only_one_version_is_uncertainty_and_says_so(place) -> None:
    unsure = LocalSeat(open_run(place), "ada").take(3)
    items = LocalSeat(open_run(place, strategy="disagreement"), "bob").take(18)
    assert {item["strategy"] for item in items} == {"uncertainty"}
    assert {item["id"] for item in unsure}.isdisjoint(item["id"] for item in items)


def test_without_a_champion_people_label_all_the_same(workplace) -> None:
    add_examples(workplace, TEXTS)
    seat = LocalSeat(open_run(workplace, labels=["spam", "ham"]), "ada")
    (item,) = seat.take(1)
    assert (item["id"], item["prediction"], item["strategy"]) == (min(map(hash_text, TEXTS)), None, "random")
    assert (seat.labels, seat.text, seat.score({"text": "free"})) == (["spam", "ham"], "text", None)
    assert seat.label(item, "spam")["label"] == "spam"


def test_a_champion_that_is_damaged_stops_nobody(place) -> None:
    (file,) = (place.root / "outputs/pins/tiny-model").rglob("*.skops")
    file.write_bytes(b"\0" + file.read_bytes()[1:])
    seat = LocalSeat(open_run(place), "ada")
    (item,) = seat.take(1)
    assert item["prediction"] is None
    seat.label(item, "spam")
    assert current(seat) == [(item["record"]["text"], "spam")]


def test_a_champion_that_is_refused_is_read_once(place, monkeypatch) -> None:
    (file,) = (place.root / "outputs/pins/tiny-model").rglob("*.skops")
    file.write_bytes(b"\0" + file.read_bytes()[1:])
    adviser, loads = Adviser(open_run(place)), []
    load = adviser._service.load
    monkeypatch.setattr(adviser._service, "load", lambda version: loads.append(version) or load(version))
    monkeypatch.setattr("pinmill.adviser.FRESH", -1.0)
    assert [adviser.read() for _ in range(3)] == [None] * 3
    assert len(loads) == 1


def test_an_order_that_no_model_can_give_is_not_sought_at_every_fetch(place, monkeypatch) -> None:
    adviser, pools = Adviser(open_run(place)), []
    monkeypatch.setattr("pinmill.adviser._share", lambda _, pool: [None for _ in pool])  # as a regression's

    def rank(found: list) -> tuple[str, list[str]]:
        return adviser.rank("uncertainty", lambda: pools.append(found) or found)

    one = ("a" * 32, {"text": "win"})
    assert [rank([]), rank([one]), rank([one]), rank([one])] == [("", [])] * 4
    assert pools == [[], [one]]


def test_a_new_champion_advises_who_already_sits(place, predict_here, monkeypatch) -> None:
    seat, second = LocalSeat(open_run(place), "ada"), place.write_second()
    before = seat.score({"text": TEXTS[0]})
    place.pinmill("promote", "tiny", second, "--why", "a test", "--override")
    monkeypatch.setattr("pinmill.adviser.FRESH", -1.0)
    after = seat.score({"text": TEXTS[0]})
    assert after["probability"] == predict_here(place, second, TEXTS[:1])[0] != before["probability"]


def test_labels_skips_and_undo_are_in_the_store_when_the_call_returns(place) -> None:
    seat, other = LocalSeat(open_run(place), "ada"), LocalSeat(open_run(place), "ada")
    first, second, third = (item["record"]["text"] for item in seat.take(3))
    assert seat.label(seat.take(1)[0], "spam", seconds=1.5, note="sure")["known"] is False
    seat.skip(seat.take(1)[0], note="unclear", seconds=2.0)
    assert current(other) == [(first, "spam"), (second, None)]
    assert seat.undo()["record"]["text"] == second
    assert current(other) == [(first, "spam")]
    assert [item["record"]["text"] for item in other.take(2)] == [second, third]  # back where one was
    row = seat.annotations().iloc[0]
    assert row[["annotator", "seconds", "note", "strategy"]].tolist() == ["ada", 1.5, "sure", "uncertainty"]
    told = seat.progress()
    assert (told["open"], told["own"], told["done"], told["today"], told["skipped"]) == (17, 1, 1, 1, 0)


def test_a_label_that_is_sent_again_is_the_same_label(place) -> None:
    seat = LocalSeat(open_run(place), "ada")
    (item,) = seat.take(1)
    first, again = seat.label(item, "spam"), LocalSeat(open_run(place), "ada").label(item, "ham")
    assert again == {**first, "known": True}
    assert current(seat) == [(item["record"]["text"], "spam")]


def test_an_edited_text_is_an_input_of_its_own_and_undone_as_one(place) -> None:
    seat = LocalSeat(open_run(place), "ada")
    (item,) = seat.take(1)
    seat.label(item, "ham", record={"text": "what it should say"})
    assert current(seat) == [(item["record"]["text"], None), ("what it should say", "ham")]
    assert (seat.undo()["id"], current(seat)) == (item["id"], [])


def test_what_is_wrong_with_a_label_is_told_and_nothing_kept(place) -> None:
    seat = LocalSeat(open_run(place), "ada")
    (item,) = seat.take(1)
    with pytest.raises(DataError) as raised:
        seat.label(item, "hamm", record={"text": "", "extra": 1})
    told = str(raised.value)
    assert told.startswith('it was not kept: label "hamm" is no label: one of "ham", "spam" was expected')
    assert "text" in told
    assert "extra is no field of this model" in told
    assert current(seat) == []


class Clock:
    """The time as seats and screens know it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = datetime(2026, 11, 21, 4, 5, tzinfo=UTC)
        for module in ("seat", "widget"):
            monkeypatch.setattr(f"pinmill.{module}.now_utc", lambda: self.now)

    def pass_by(self, minutes: float) -> None:
        self.now += timedelta(minutes=minutes)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


def open_desk(workplace: Workplace, texts: list[str]) -> Run:
    """A run over examples, which have a column beside their text, and no champion."""
    records, hashes = [{"text": text, "author": "eve"} for text in texts], [hash_text(text) for text in texts]
    store = open_project(workplace.root, {}).store
    store.add_examples("tiny", records, hashes=hashes, origin="a test", when=NOW)
    return open_run(workplace, labels=["ham", "spam"])


def test_what_lies_in_hand_for_long_is_kept_for_who_labels_on(workplace, clock) -> None:
    run = open_desk(workplace, TEXTS)
    ada, bob = Annotator(LocalSeat(run, "ada")), Annotator(LocalSeat(run, "bob"))
    said: dict[str, list[str]] = {"ada": [], "bob": []}
    shown = {name: talk(screen, ask("hello"))[-1]["item"] for name, screen in (("ada", ada), ("bob", bob))}
    for _ in range(6):
        for name, screen in (("ada", ada), ("bob", bob)):
            said[name].append(shown[name]["id"])
            answers = talk(screen, ask("label", id=shown[name]["id"], label="ham", seconds=1))
            assert [each["problem"] for each in answers] == ["", ""]
            shown[name] = answers[-1]["item"]
        clock.pass_by(12)
    assert {*said["ada"]}.isdisjoint(said["bob"])
    assert sum(map(len, said.values())) == 12


def test_what_is_somebody_elses_by_now_leaves_the_screen_with_a_word(workplace, clock) -> None:
    run = open_desk(workplace, TEXTS[:6])
    ada, bob = Annotator(LocalSeat(run, "ada")), Annotator(LocalSeat(run, "bob"))
    first = talk(ada, ask("hello"))[-1]["item"]["id"]
    clock.pass_by(200)
    assert talk(bob, ask("hello"))[-1]["item"]["id"] == first
    late = talk(ada, ask("label", id=first, label="spam", seconds=1))
    assert (late[0]["problem"], current(ada.seat)) == (GONE, [])
    assert late[-1]["item"]["id"] not in ("", first, *(each["id"] for each in bob._items))
    clock.pass_by(200)
    talk(bob, ask("hello"))
    assert talk(ada, ask("hello"))[-1]["problem"] == ("" if ada._items else GONE)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_sent_again_and_however_late_no_label_is_lost_or_doubled(workplace, clock, seed) -> None:
    """Two screens on one store; what each screen says it saved, and did not take back, is what the store holds."""
    chance, run = random.Random(seed), open_desk(workplace, TEXTS)
    names = ("ada", "bob")
    screens = {name: Annotator(LocalSeat(run, name)) for name in names}
    shown: dict[str, Any] = {name: talk(screens[name], ask("hello"))[-1]["item"] for name in names}
    sent: dict[str, list[dict]] = {name: [] for name in names}
    kept: dict[str, list[list[tuple[str, str | None]]]] = {name: [] for name in names}
    undone: set[str] = set()

    def send(name: str, message: dict, *, is_new: bool) -> None:
        answers, item = talk(screens[name], message), shown[name]
        said, shown[name] = answers[0]["said"], answers[-1]["item"]
        if not is_new:
            return
        sent[name].append(message)
        if said == "Skipped ✓":
            kept[name].append([(item["id"], None)])
        elif said.startswith("Saved ✓"):
            text = message.get("text")
            whole = [(item["id"], None), (hash_text(text), message["label"])] if text else []
            kept[name].append(whole or [(item["id"], message["label"])])
        elif said.startswith("Undone ✓"):
            assert answers[0]["item"]["id"] == kept[name][-1][0][0]
            undone.add(kept[name].pop()[0][0])
        elif message["do"] != "hello":
            assert said == "There is nothing to undo." or answers[0]["problem"] == GONE

    for step in range(60):
        name, what = (
            chance.choice(names),
            chance.choice(["label"] * 3 + ["edit", "skip", "undo", "again", "wait", "new"]),
        )
        item, about = shown[name], {"label": chance.choice(["ham", "spam"]), "seconds": 1}
        if what == "wait":
            clock.pass_by(chance.choice([1, 20, 200]))
        elif what == "new":  # another kernel
            screens[name], sent[name] = Annotator(LocalSeat(run, name)), []
            send(name, ask("hello"), is_new=True)
        elif what == "again" and sent[name]:
            send(name, chance.choice(sent[name]), is_new=False)
        elif what == "undo":
            send(name, ask("undo"), is_new=True)
        elif what == "skip" and item:
            send(name, ask("skip", id=item["id"]), is_new=True)
        elif what in ("label", "edit") and item:
            edited = {"text": f"{item['text']}, edited {step}"} if what == "edit" else {}
            send(name, ask("label", id=item["id"], **about, **edited), is_new=True)
    said = screens["ada"].seat.annotations()
    standing = said[said["retracts"].isna() & ~said["id"].isin(said["retracts"].dropna())]
    for name in names:
        mine = standing[standing["annotator"] == name]
        rows = list(zip(mine["hash"], mine["label"].where(mine["label"].notna(), None), strict=True))
        assert rows == [row for group in kept[name] for row in group]
    times = Counter(standing["hash"][standing["label"].notna()])
    assert [hash for hash, n in times.items() if n > 1 and hash not in undone] == []


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, getpass.getuser()),
        ({"JUPYTERHUB_USER": "ada"}, "ada"),
        ({"PINMILL_APP": "1"}, None),
        ({"PINMILL_APP": "1", "JUPYTERHUB_USER": "ada"}, "ada"),
    ],
)
def test_the_annotator_is_the_hubs_user_or_the_machines_and_an_app_asks(environ, name) -> None:
    assert find_annotator(environ) == name


def make_token(workplace: Workplace, role: str, *, hours: int = 1) -> str:
    store = open_project(workplace.root, {}).store
    when = now_utc() - timedelta(hours=2)
    return create_token(store, f"the-{role}-{hours}", role, expires=timedelta(hours=2 + hours), by="root", when=when)


def test_an_app_asks_for_a_name_until_there_are_tokens(place) -> None:
    run, app = open_run(place), {"PINMILL_APP": "1"}
    assert [choose_question(run, environ) for environ in ({}, app)] == ["", "name"]
    seat = sign_in(run, " Ada Lovelace ", app)
    assert (seat.annotator, seat.role) == ("Ada Lovelace", "annotator")  # others' labels are hidden
    for name in ("", "-x", "a" * 41, "<b>", "a\nb"):
        with pytest.raises(ParameterError, match="is no name"):
            sign_in(run, name, app)
    token = make_token(place, "annotator")
    assert [choose_question(run, environ) for environ in ({}, app)] == ["", "token"]
    with pytest.raises(ParameterError, match="opens nothing"):
        sign_in(run, "Ada Lovelace", app)
    assert sign_in(run, token, app).annotator == "the-annotator-1"
    assert choose_question(open_run(place, url="https://models.example.org"), app) == "token"


@pytest.mark.parametrize(("role", "hours", "told"), [("scorer", 1, "has the role scorer"), ("admin", -1, "expired")])
def test_a_token_that_may_not_label_is_refused_and_not_shown(place, role, hours, told) -> None:
    token = make_token(place, role, hours=hours)
    with pytest.raises(ParameterError, match=told) as raised:
        sign_in(open_run(place), token, {"PINMILL_APP": "1"})
    assert token[-20:] not in str(raised.value)


def test_who_has_lost_the_token_cannot_go_on(place) -> None:
    seat = sign_in(open_run(place), make_token(place, "annotator"), {"PINMILL_APP": "1"})
    (item,) = seat.take(1)
    revoke_token(open_project(place.root, {}).store, "the-annotator-1", by="root", when=datetime.now(UTC))
    for step in (
        lambda: seat.label(item, "spam"), lambda: seat.take(1), lambda: seat.skip(item), seat.undo, seat.progress,
        seat.annotations,
    ):  # fmt: skip
        with pytest.raises(ParameterError, match="revoked"):
            step()


def disagree(place: Workplace) -> tuple[LocalSeat, LocalSeat, str]:
    """Two people who said the same of one text, and of another, which is returned, not."""
    run = open_run(place, overlap=100, strategy="random")
    ada, bob = LocalSeat(run, "ada"), LocalSeat(run, "bob")
    for seat, labels in ((ada, ["spam", "spam"]), (bob, ["spam", "ham"])):
        for item, label in zip(seat.take(2), labels, strict=True):
            seat.label(item, label, seconds=2.0)
    return ada, bob, sorted(TEXTS, key=hash_text)[1]


NOW = datetime(2026, 11, 21, 4, 5, tzinfo=UTC)


def test_the_quality_page_tells_who_said_how_much_and_how_well_it_agrees(place) -> None:
    empty = LocalSeat(open_run(place), "ada").annotations()
    assert "Nobody has labelled anything yet, as of 2026-11-21 04:05 UTC." in unescape(tell_quality(empty, now=NOW))
    ada, _, text = disagree(place)
    said = ada.annotations().assign(created=[f"2026-11-21T04:0{n}:00+00:00" for n in (0, 1, 0, 2)])
    told = [line for line in unescape(tell_quality(said, now=NOW)).splitlines() if line and "---" not in line]
    # Krippendorff (2011): units (spam, spam) and (spam, ham), o_sh = 1, n_s = 3, n_h = 1: alpha = 1 - 3 * 1 / 3 = 0.
    # Cohen: both said spam of half, and one of all: as much is agreed on as by chance.
    assert told == [
        "**What each person has done, as of 2026-11-21 04:05 UTC**",
        "| Person | Labels | Which | Skipped | Seconds (median) | An hour |",
        "| ada | 2 | 2 spam | 0 | 2.0 | 60 |",
        "| bob | 2 | 1 spam, 1 ham | 0 | 2.0 | 30 |",
        "Krippendorff's alpha is 0.000, on 2 inputs that several people labelled.",
        "**How far two people agree**",
        "| First | Second | Inputs | Agreement | Cohen's kappa |",
        "| ada | bob | 2 | 0.500 | 0.000 |",
        "**Who says what where the other says something else**",
        "| First | says | Second | says instead | Inputs |",
        "| ada | spam | bob | ham | 1 |",
        "**The first 1 of 1 inputs on which people disagree**",
        "| Input | Labels |",
        f"| {text} | ada: spam; bob: ham |",
    ]


def test_labels_of_one_person_alone_are_counted_and_said_to_be_compared_with_none(place) -> None:
    seat = LocalSeat(open_run(place), "ada")
    seat.label(seat.take(1)[0], "spam")
    told = unescape(tell_quality(seat.annotations(), now=NOW))
    assert "| ada | 1 | 1 spam | 0 | — | — |" in told
    assert "No input was labelled by two people" in told


def test_what_people_disagree_on_is_settled_by_one_more_vote_which_is_the_last(place) -> None:
    ada, bob, text = disagree(place)
    eve = Settling(LocalSeat(open_run(place), "eve"))
    (item,) = eve.take(5)
    assert (item["record"], item["said"]) == ({"text": text}, {"ada": "spam", "bob": "ham"})
    assert item["prediction"]["label"] in ("spam", "ham")
    assert (eve.progress()["open"], eve.progress()["done"]) == (1, 0)
    eve.label(item, "ham", seconds=1.0, note="read twice")
    assert (eve.take(5), eve.progress()["open"], eve.progress()["done"]) == ([], 0, 1)
    assert Settling(LocalSeat(open_run(place), "eve")).take(5) == []
    row = ada.annotations().iloc[-1]
    assert row[["annotator", "hash", "label", "strategy", "note"]].tolist() == [
        "eve", hash_text(text), "ham", "given", "read twice",
    ]  # fmt: skip
    again = eve.undo()
    assert again["id"] == item["id"]
    eve.label(again, "spam")
    assert current(ada)[-1] == (text, "spam")
    assert eve.take(5) == []
    bob.label(bob.take(1)[0], "spam")
    assert Settling(bob).take(5)[0]["said"] == {"ada": "spam", "bob": "ham", "eve": "spam"}


def test_a_disagreement_that_is_passed_over_is_left_as_it_is(place) -> None:
    ada, _, text = disagree(place)
    before = len(ada.annotations())
    eve = Settling(LocalSeat(open_run(place), "eve"))
    eve.skip(eve.take(1)[0])
    assert (eve.take(1), len(ada.annotations())) == ([], before)
    assert eve.undo()["record"]["text"] == text
    assert eve.undo() is None


def test_a_seat_at_a_service_is_as_one_here_until_that_is_gone(place, serve) -> None:
    server = serve(workplace=place)
    client = Client(server.url, "")
    remote = RemoteSeat(client)
    local = LocalSeat(open_run(place), remote.annotator)
    for name in ("annotator", "role", "workflow", "labels", "text", "guideline"):
        assert getattr(remote, name) == getattr(local, name), name
    there, here = ([item | {"expires": ""} for item in seat.take(3)] for seat in (remote, local))
    assert there == here
    assert remote.score({"text": "win a prize"}) == local.score({"text": "win a prize"})
    first, second, third = there
    assert remote.label(first, "spam", seconds=1.0, note="sure")["known"] is False
    assert remote.label(first, "ham")["label"] == "spam"  # the key is that of the same label
    remote.skip(second, note="unclear")
    assert remote.undo()["id"] == second["id"]
    remote.label(third, "ham", record={"text": "another text"})
    assert current(local) == [
        (first["record"]["text"], "spam"), (third["record"]["text"], None), ("another text", "ham"),
    ]  # fmt: skip
    assert remote.progress() == local.progress()
    told = remote.annotations()
    assert (told["id"].tolist(), told["note"].tolist()) == (
        local.annotations()["id"].tolist(),
        local.annotations()["note"].tolist(),
    )
    with pytest.raises(ClientError, match="no label"):
        remote.label(second, "hamm")
    server.stop()
    assert remote.score({"text": "win a prize"}) is None
    with pytest.raises(UnreachableError):
        remote.take(1)
    client.close()


def test_a_score_is_asked_for_once(monkeypatch) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.method, request.url.path, request.content, request.extensions["timeout"]["read"]))
        return httpx.Response(503)

    client, asked = Client("http://127.0.0.1:9", ""), []
    told = {"annotator": "ada", "role": "admin", "workflow": "tiny", "labels": [], "text": "text", "guideline": ""}
    monkeypatch.setattr(client, "queue", lambda *_: told)
    client._at._http = httpx.Client(base_url="http://127.0.0.1:9", transport=httpx.MockTransport(answer))
    assert RemoteSeat(client).score({"text": "win", "author": "eve"}) is None
    assert asked == [("POST", "/prediction", b'{"text": "win"}', 2.0)]


def test_a_service_that_wants_a_token_is_asked_with_it_once_somebody_has_signed_in(place, serve) -> None:
    token = make_token(place, "annotator")
    screen = Screen(open_run(place, url=serve(workplace=place, ready=False).url), {})
    assert screen._repr_markdown_() == "Whoever labels is asked for a token first."
    place_of_quality = screen.compare()
    seat = screen.enter(token)
    assert (seat.annotator, seat.role, seat.labels) == ("the-annotator-1", "annotator", ["ham", "spam"])
    assert place_of_quality.outputs == ()  # an annotator does not see what others said
    assert screen.compare() == REFUSED
    told = unescape(screen._repr_markdown_())
    assert "| Annotator | the-annotator-1 (annotator) |" in told
    assert "| Examples to label | 18 |" in told
    seat._client.close()
