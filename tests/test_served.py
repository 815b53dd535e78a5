"""Which version the gateway serves, as champions come, move and turn out to be damaged; the kernels are played."""

import asyncio
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pinmill import served
from pinmill.board import Board
from pinmill.champion import promote, rollback
from pinmill.errors import RunError
from pinmill.problem import Problem
from pinmill.served import KEPT, Models

PROTOTYPE = {"text": {"type": "text", "dtype": "str", "nullable": False, "examples": ["a"]}}
SAID = {"by": "ada", "why": "better", "when": datetime(2026, 11, 20, tzinfo=UTC)}


class Kernels:
    """What `Models` asks of a pool: which versions were loaded and chosen, in order."""

    def __init__(self) -> None:
        self.links, self.ready, self.problem, self.is_replacing = [object()], asyncio.Event(), "", False
        self.done: list[tuple[str, str]] = []
        self.damaged: set[str] = set()
        self.held: set[str] = set()
        self.hangs, self.begun = "", asyncio.Event()  # the version that is never loaded, and whether that has begun
        self.loading = self.most = 0  # loads at a time: now, and at most

    def holds(self, version: str) -> bool:
        return version in self.held

    async def load(self, version: str, *, anew: bool = False) -> None:
        if self.holds(version) and not anew:
            return
        if version in self.damaged:
            raise RunError(f"{version} does not verify")
        self.loading += 1
        self.most = max(self.most, self.loading)
        try:
            if version == self.hangs:
                self.begun.set()
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(0)
        finally:
            self.loading -= 1
        self.held.add(version)
        self.done.append(("load", version))

    def choose(self, version: str) -> None:
        self.done.append(("choose", version))


class Place:
    """A board with some models of workflow `w`, and who follows its champion."""

    def __init__(self, folder: Path, count: int) -> None:
        self.board = Board(folder / "pins")
        facts = {"prototype": PROTOTYPE}
        self.versions = [
            self.board.write_file("w-model", f"{n}".encode(), file_name="m", facts=facts, lineage={}).version
            for n in range(count)
        ]
        self.said: list[str] = []
        self.kernels = Kernels()
        self.models = Models(self.board, "w", self.kernels, self.said.append)
        self.champion: str | None = None

    def promote(self, version: str) -> None:
        promote(self.board, "w", version, **SAID, expected=self.champion, gate=True)
        self.champion = version

    def find(self, given: str):
        return asyncio.run(self.models.find(given))


@pytest.fixture
def place(tmp_path: Path):
    """A function that makes a board of so many models."""
    return lambda count=2: Place(tmp_path, count)


def look(place: Place) -> None:
    """One look at the board, as `follow` looks every second; what goes wrong is said as there."""

    async def once() -> None:
        try:
            await place.models.look()
        except Exception as error:
            place.models.refuse(error)

    asyncio.run(once())


def refusal(place: Place) -> Problem:
    with pytest.raises(Problem) as raised:
        place.models.must_serve()
    return raised.value


def test_without_a_champion_it_says_how_to_get_one(place) -> None:
    here = place()
    look(here)
    problem = refusal(here)
    assert (problem.status, problem.headers) == (503, {"Retry-After": "2"})
    assert (problem.detail, problem.why) == ("w has no champion yet.", "Train and promote one with: pinmill run w")
    assert (here.said, here.kernels.done) == ([], [])


def test_the_champion_is_loaded_before_it_is_chosen_and_once(place) -> None:
    here = place()
    here.promote(here.versions[0])
    for _ in range(3):
        look(here)
    assert here.kernels.done == [("load", here.versions[0]), ("choose", here.versions[0])]
    found = here.models.must_serve()
    assert (found.version, found.check("a"), found.facts["prototype"]) == (here.versions[0], '{"text":"a"}', PROTOTYPE)
    assert len(here.said) == 1


def test_a_promotion_and_a_rollback_are_followed(place) -> None:
    here = place()
    for version in here.versions:
        here.promote(version)
        look(here)
    rollback(here.board, "w", **SAID)
    look(here)
    first, second = here.versions
    assert [version for what, version in here.kernels.done if what == "choose"] == [first, second, first]
    assert here.models.must_serve().version == first


def test_a_champion_that_does_not_load_is_refused_loudly_once_and_the_last_good_one_goes_on(place) -> None:
    here = place()
    first, second = here.versions
    here.promote(first)
    look(here)
    here.kernels.damaged.add(second)
    here.promote(second)
    for _ in range(3):
        look(here)
    assert here.models.must_serve().version == first
    assert here.models.refused == f"{second} does not verify"
    assert here.said[1:] == [f"THE CHAMPION IS NOT SERVED: {second} does not verify; {first} goes on being served"]


def test_a_refused_champion_is_tried_again_ever_later_and_told_once(place, monkeypatch) -> None:
    here, tries = place(), []
    here.kernels.damaged.add(here.versions[0])
    here.promote(here.versions[0])

    async def look_for_100_seconds() -> None:
        loop = asyncio.get_running_loop()
        for half in range(200):
            monkeypatch.setattr(loop, "time", lambda now=half / 2: now)
            try:
                await here.models.look()
            except RunError as error:
                tries.append(half / 2)
                here.models.refuse(error)

    asyncio.run(look_for_100_seconds())
    assert tries == [0, 1, 3, 7, 15, 31, 61, 91]
    assert len(here.said) == 1


def test_a_champion_that_is_loaded_for_long_does_not_hide_who_is_champion_meanwhile(place, monkeypatch) -> None:
    monkeypatch.setattr(served, "GLANCE", 0.01)
    here = place()
    first, second = here.versions
    here.promote(first)
    here.kernels.hangs = first

    async def go() -> None:
        looking = asyncio.create_task(here.models.look())
        await here.kernels.begun.wait()
        here.promote(second)
        await asyncio.wait_for(looking, 20)
        await here.models.look()

    asyncio.run(go())
    assert here.kernels.done == [("load", second), ("choose", second)]
    assert (here.models.must_serve().version, here.kernels.loading) == (second, 0)


def test_a_refused_champion_is_tried_again_after_a_while_and_another_one_at_once(place, monkeypatch) -> None:
    here = place(3)
    first, second, third = here.versions
    here.kernels.damaged.add(first)
    here.promote(first)
    look(here)
    assert first in refusal(here).why
    here.kernels.damaged.clear()
    here.promote(second)
    here.kernels.damaged.add(third)
    look(here)
    assert (here.models.must_serve().version, here.models.refused) == (second, "")
    here.promote(third)
    look(here)
    here.kernels.damaged.clear()
    look(here)
    assert here.models.must_serve().version == second  # not tried again so soon
    monkeypatch.setattr(here.models, "_tried", (here.models._tried[0], 0.0, 0.0))  # long ago
    look(here)
    assert (here.models.must_serve().version, here.models.refused) == (third, "")


def test_a_champion_record_for_other_bytes_is_refused(place) -> None:
    here = place()
    here.promote(here.versions[0])
    with pytest.raises(Exception, match="is not the model that was promoted: its SHA-256 differs"):
        here.models.read_pin(here.versions[1], here.board.pin("w-model", here.versions[0]).sha256)


def test_a_board_out_of_reach_stops_nothing(place) -> None:
    here = place()
    here.promote(here.versions[0])
    look(here)
    folder = here.board.url
    shutil.move(folder, f"{folder}-away")
    look(here)
    assert here.models.must_serve().version == here.versions[0]
    assert here.models.refused
    assert here.said[-1].endswith(f"{here.versions[0]} goes on being served")
    shutil.move(f"{folder}-away", folder)
    look(here)
    assert here.models.refused == ""


def test_without_kernels_nothing_is_served_unless_one_is_on_its_way(place) -> None:
    here = place()
    here.promote(here.versions[0])
    look(here)
    here.kernels.links.clear()
    assert (refusal(here).detail, refusal(here).why) == ("No kernel is ready.", "One is being started.")
    here.kernels.is_replacing = True
    assert here.models.must_serve().version == here.versions[0]
    with pytest.raises(Problem):
        here.models.must_serve(at_once=True)


def test_another_version_is_found_by_its_first_characters_and_loaded(place) -> None:
    here = place()
    first, second = here.versions
    here.promote(second)
    look(here)
    here.kernels.done.clear()
    assert here.find(second).version == second
    assert here.kernels.done == []  # it is loaded
    for given in (first, first[:-1] if not second.startswith(first[:-1]) else first):
        assert here.find(given).version == first
    assert set(here.kernels.done) == {("load", first)}
    assert here.models.must_serve().version == second  # asking for another one moves nothing


@pytest.mark.parametrize("given", ["2", "nothing", "../x", "x" * 500])
def test_a_version_that_is_none_or_several_is_not_found(place, given: str) -> None:
    with pytest.raises(Problem) as raised:
        place().find(given)
    assert raised.value.status == 404
    assert raised.value.detail.endswith("GET /models lists them.")
    assert len(raised.value.detail) < 120


def test_a_version_that_does_not_load_is_no_answer_and_no_reason_to_stop(place) -> None:
    here = place()
    here.kernels.damaged.add(here.versions[0])
    with pytest.raises(Problem) as raised:
        here.find(here.versions[0])
    assert (raised.value.status, "does not verify" in raised.value.detail) == (503, True)


def test_other_versions_are_loaded_one_at_a_time_and_once(place) -> None:
    here = place(4)

    async def find_all() -> list[str]:
        return [found.version for found in await asyncio.gather(*map(here.models.find, here.versions * 3))]

    assert asyncio.run(find_all()) == here.versions * 3
    assert sorted(here.kernels.done) == sorted(("load", version) for version in here.versions)
    assert here.kernels.most == 1


def test_only_a_few_others_are_remembered(place) -> None:
    here = place(KEPT + 3)
    for version in here.versions:
        here.find(version)
    assert list(here.models._others) == here.versions[-KEPT:]
