"""The door by itself: the tokens that it reads again from a real store, and a rate computed by hand."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sql
from pinmill import door as door_module
from pinmill.door import Door
from pinmill.problem import Problem
from pinmill.store import Store
from pinmill.tokens import create_token, revoke_token
from pinmill.visit import Caller

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Place(Store):
    """A store in a file that can be lost and spoiled; `tokens` are all that were made, by name."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.file, self.tokens, self.reading = file, {}, threading.Semaphore(0)

    def read(self, query: sql.Select) -> Sequence[sql.Row]:
        """The rows; `reading` tells that a look has begun."""
        self.reading.release()
        return super().read(query)

    def make(self, name: str) -> None:
        self.tokens[name] = create_token(self, name, "scorer", expires=None, by="test", when=NOW)

    def revoke(self, name: str) -> None:
        revoke_token(self, name, by="test", when=NOW)

    def lose(self) -> None:
        for part in self.file.parent.glob(f"{self.file.name}*"):
            part.unlink()

    def empty(self) -> None:
        """As the call log's writer makes it anew."""
        self.lose()
        with self.writing():
            pass

    def spoil(self) -> None:
        self.lose()
        self.file.write_bytes(b"this is no database, but long enough to be taken for one\n" * 20)


@pytest.mark.parametrize(
    ("address", "host", "served"),
    [
        ("127.0.0.1", "localhost:8080", True), ("127.0.0.1", "127.0.0.1", True), ("::1", "[::1]:8080", True),
        ("::ffff:127.0.0.1", "localhost", True), ("203.0.113.9", "localhost", False), ("", "localhost", False),
        ("<script>", "localhost", False), ("127.0.0.1", "model.example.org", False), ("127.0.0.1", "", False),
    ],
)  # fmt: skip
def test_without_tokens_only_this_machine_is_served_also_through_a_proxy(
    tmp_path: Path, address: str, host: str, served: bool
) -> None:
    door, nobody = Door(Store(tmp_path / "none.sqlite"), 0, print), Caller("", "", address)
    asked = SimpleNamespace(headers={b"host": host.encode()}, scope={"headers": []})
    if served:
        assert door.identify(asked, nobody) == Caller("", "admin", address)
    else:
        with pytest.raises(Problem) as raised:
            door.identify(asked, nobody)
        assert raised.value.status == 403


@pytest.mark.parametrize(
    ("site", "served"), [(b"none", True), (b"same-origin", True), (b"same-site", False), (b"cross-site", False)]
)
def test_without_tokens_an_image_on_another_page_asks_in_vain(tmp_path: Path, site: bytes, served: bool) -> None:
    door, nobody = Door(Store(tmp_path / "none.sqlite"), 0, print), Caller("", "", "127.0.0.1")
    asked = SimpleNamespace(headers={b"host": b"localhost:8080", b"sec-fetch-site": site}, scope={"headers": []})
    if served:
        assert door.identify(asked, nobody).role == "admin"
    else:
        with pytest.raises(Problem, match="no other web page is served"):
            door.identify(asked, nobody)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An empty store whose tokens a door reads again without a pause."""
    monkeypatch.setattr(door_module, "REREAD", 0.0)
    place = Place(tmp_path / "pinmill.sqlite")
    yield place
    place.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The door's clock; `now` are its seconds."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(door_module, "time", clock)
    return clock


def look_after(door: Door, *changes: Callable[[], None]) -> list[list[str]]:
    """The names of the tokens that open the door once it has looked again after each of these changes."""
    place: Place = door.store

    async def go() -> list[list[str]]:
        looking, known = asyncio.create_task(door.reread()), []
        for change in changes:
            change()
            place.reading = threading.Semaphore(0)
            for _ in range(2):  # when the second look begins, what the first one found is known
                assert await asyncio.to_thread(place.reading.acquire, timeout=20)
            known.append([name for name, token in place.tokens.items() if door.tokens.find(f"Bearer {token}", NOW)])
        looking.cancel()
        return known

    return asyncio.run(go())


def take(door: Door, name: str) -> str:
    """Nothing where a request is let in, or the problem and after how many seconds to come again."""
    try:
        door.take_turn(name)
    except Problem as problem:
        return f"{problem.status} {problem.detail}, again in {problem.headers['Retry-After']}"
    return ""


def test_tokens_made_and_revoked_are_followed_and_a_store_without_any_or_unreadable_opens_nothing(place: Place) -> None:
    place.make("ann")
    said: list[str] = []
    door = Door(place, 0, said.append)
    made, gone = lambda: place.make("bob"), lambda: place.revoke("ann")
    assert look_after(door, made, gone) == [["ann", "bob"], ["bob"]]
    assert look_after(door, place.lose, place.empty) == [["bob"], ["bob"]]
    assert (door.tokens.empty, said) == (False, [])
    assert look_after(door, place.spoil, lambda: None) == [["bob"], ["bob"]]
    assert (door.tokens.empty, len(said)) == (False, 1)  # once, not at each look
    (told,) = said
    assert told.startswith("the tokens could not be read, so those of before count: ")
    assert look_after(door, place.lose, lambda: place.make("eve")) == [["bob"], ["eve"]]


def test_what_makes_the_tokens_unreadable_is_said_again_after_it_was_mended(place: Place) -> None:
    said: list[str] = []
    look_after(Door(place, 0, said.append), place.spoil, place.lose, place.spoil)
    assert len(said) == 2
    assert said[0] == said[1]


def test_a_rate_is_a_minute_s_worth_that_fills_evenly_for_each_caller(place: Place, clock: SimpleNamespace) -> None:
    door, refused = Door(place, 6, print), "429 more than 6 requests in a minute, again in"
    assert [take(door, "ann") for _ in range(6)] == [""] * 6
    clock.now = 2.5  # one comes each ten seconds: a quarter is there
    assert [take(door, "ann"), take(door, "bob")] == [f"{refused} 8", ""]
    clock.now = 10.5  # a refusal has cost nothing
    assert [take(door, "ann") for _ in range(2)] == ["", f"{refused} 10"]
    clock.now = 35.5  # 2.55 are there
    assert [take(door, "ann") for _ in range(3)] == ["", "", f"{refused} 5"]
    clock.now = 3600.0  # never more than six
    assert [take(door, "ann")[:3] for _ in range(7)] == [""] * 6 + ["429"]


def test_a_caller_who_was_silent_for_a_minute_is_forgotten(place: Place, clock: SimpleNamespace) -> None:
    door = Door(place, 6, print)
    take(door, "ann")
    clock.now = 30.0
    take(door, "bob")
    clock.now = 61.0
    look_after(door, lambda: None)
    assert [*door.buckets] == ["bob"]
