"""Pruning: what is asked for again stays, the rest goes dependants first, and a run afterwards works."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pinmill.prune
import pins
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pinmill.board import Board
from pinmill.champion import promote, read_champion, rollback
from pinmill.errors import BoardError, PinNotFoundError
from pinmill.lock import hold_lock
from pinmill.pin import Pin
from pinmill.project import Project
from pinmill.prune import find_prunable, plan_prune, prune
from pinmill.store import CALLS, stamp

if TYPE_CHECKING:
    from conftest import Workplace

WHEN = datetime(2024, 5, 6, tzinfo=UTC)
STAGES = ["01-prepare", "02-train", "03-evaluate", "04-model-card"]
NO = {"facts": {}, "lineage": {}}


def given(*keys: str) -> list[dict]:
    """Inputs of a lineage from 'w-data 1'."""
    named = [key.split(" ") for key in keys]
    return [{"kind": name[2:], "name": name, "version": version, "sha256": "?"} for name, version in named]


def make(key: str, *inputs: str, run: str | None = "run", sha256: str = "", source: str = "", **facts: str) -> Pin:
    """A version 'w-data 1' that was made from others."""
    name, version = key.split(" ")
    listed = given(*inputs)
    if source:
        listed.append({"kind": "source", "name": source, "version": None, "sha256": facts.pop("source_sha256")})
    lineage = {"run": run, "inputs": listed} if run else {}
    return Pin(name, version, "json", {"x": sha256 or key}, 1, WHEN, "", facts, lineage)


def generation(number: int) -> list[Pin]:
    """Data, a model from it, and the decision about the model."""
    data, model = f"w-data {number}", f"w-model {number}"
    candidate = {"candidate": str(number), "candidate_sha256": model}
    return [make(data), make(model, data), make(f"w-metrics {number}", data, model, **candidate)]


def by_name(pins: list[Pin]) -> list[Pin]:
    return sorted(pins, key=lambda pin: (pin.name, pin.version))


def planned(pins: list[Pin], *, keep: int = 1, champions: set[str] = frozenset(), **more: object) -> list[str]:
    """What goes, in its order, as 'w-data 1'."""
    doomed = plan_prune(by_name(pins), keep=keep, models={("w-model", version) for version in champions}, **more)
    return [f"{pin.name} {pin.version}" for pin in doomed]


# --- deciding


def test_the_last_versions_of_every_pin_stay_and_the_rest_goes_dependants_first() -> None:
    pins = [pin for number in range(4) for pin in generation(number)]
    for keep, gone in ((1, "210"), (2, "10"), (3, "0"), (4, ""), (9, "")):
        went = planned(pins, keep=keep)
        assert sorted(went) == sorted(f"w-{kind} {n}" for n in gone for kind in ("data", "model", "metrics"))
        for number in gone:
            order = [went.index(f"w-{kind} {number}") for kind in ("metrics", "model", "data")]
            assert order == sorted(order)


def test_a_champion_stays_with_its_data_and_every_decision_about_it() -> None:
    pins = [pin for number in range(4) for pin in generation(number)]
    again = {"candidate": "1", "candidate_sha256": "w-model 1"}
    pins += [make("w-data 0b"), make("w-metrics 1b", "w-data 0b", "w-model 1", **again)]
    assert set(planned(pins, champions={"1"})) == {
        f"w-{kind} {n}" for n in "02" for kind in ("data", "model", "metrics")
    }


def test_what_a_kept_version_was_made_from_stays_through_all_generations() -> None:
    pins = [make("w-data 0"), make("w-data 1", "w-data 0"), make("w-data 2", "w-data 1"), make("w-data 3")]
    pins += [make("w-model 0", "w-data 2"), make("w-model 1", "w-data 3"), make("w-data 4")]
    assert planned(pins, champions={"0"}) == []
    assert planned(pins) == ["w-model 0", "w-data 2", "w-data 1", "w-data 0"]


def test_a_kept_decision_keeps_its_model_and_data() -> None:
    pins = [*generation(0), make("w-model 1"), make("w-data 1")]
    assert planned(pins) == []


def test_a_model_made_again_keeps_the_decision_about_the_same_bytes() -> None:
    # the runner takes over a decision when the candidate's bytes are the same: it names the earlier version
    first, second = generation(0), generation(1)
    again = [make("w-data 9"), make("w-model 9", "w-data 9", sha256="w-model 0")]
    assert planned([*first, *second, *again]) == []
    third = [*generation(2), *again]
    assert set(planned([*first, *second, *third])) == {f"w-{kind} 1" for kind in ("data", "model", "metrics")}


def test_a_table_read_from_another_pin_keeps_that_version_known_by_its_bytes() -> None:
    pins = [make("raw-data 0", sha256="a"), make("raw-data 1", sha256="b"), make("raw-data 2", sha256="c")]
    for source in ("pin:raw-data", "pin:raw-data/0"):
        assert planned([*pins, make("w-data 0", source=source, source_sha256="a")]) == ["raw-data 1"]


def test_versions_of_champion_pins_and_of_other_programs_are_left_alone() -> None:
    pins = [make(f"w-champion {n}", run=None) for n in range(3)] + [make(f"mine {n}", run=None) for n in range(3)]
    assert planned(pins) == []


def test_the_last_of_scheduled_runs_stay_however_many_are_made_by_hand() -> None:
    pins = [make("w-data 0"), make("w-data 1"), *(make(f"w-data {n}", run=f"adhoc-{n}") for n in range(2, 6))]
    assert planned(pins, keep=2) == ["w-data 3", "w-data 2"]


def test_a_workflow_at_work_is_left_alone_and_others_are_not() -> None:
    pins = [pin for number in range(2) for pin in generation(number)] + [make("v-data 0"), make("v-data 1")]
    assert planned(pins, untouched={"w"}) == ["v-data 0"]


# --- doing


def write_generation(board: Board, number: int, *, run: str = "r") -> str:
    """Data, a model from it, and the decision that passes it; the model's version."""
    made: list[Pin] = []
    for kind in ("data", "model", "metrics"):
        inputs = [{"kind": p.name[2:], "name": p.name, "version": p.version, "sha256": p.sha256} for p in made]
        facts = {"candidate": made[1].version, "candidate_sha256": made[1].sha256} if kind == "metrics" else {}
        lineage = {"run": run, "inputs": inputs}
        made.append(board.write_json(f"w-{kind}", f"{kind} {number}", facts=facts, lineage=lineage))
    return made[1].version


def make_champion(board: Board, version: str) -> None:
    now = read_champion(board, "w")
    promote(board, "w", version, by="a", why="b", expected=now and now.version, gate=True, when=WHEN)


def stands(board: Board) -> dict[str, list[object]]:
    """What every version on the board says, by pin; every one verified, and listed so by stock pins."""
    stock = pins.board_folder(board.url)
    assert sorted(stock.pin_list()) == board.names()
    assert {n: stock.pin_versions(n)["version"].tolist() for n in board.names()} == {
        name: board.versions(name) for name in board.names()
    }
    return {n: [board.read_json(board.pin(n, v)) for v in board.versions(n)] for n in board.names()}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose board holds six generations; the third, then the second is champion, the third is held."""
    project = Project(tmp_path, {})
    models = [write_generation(project.board, number) for number in range(6)]
    for version in models[1:3]:
        make_champion(project.board, version)
    rollback(project.board, "w", by="a", why="b", when=WHEN)
    return project


def test_pruning_keeps_champions_former_champions_and_their_lineage(project: Project) -> None:
    said = prune(project, keep=1, since=WHEN)
    left = stands(project.board)
    assert {kind: left[f"w-{kind}"] for kind in ("data", "model", "metrics")} == {
        kind: [f"{kind} {number}" for number in (1, 2, 5)] for kind in ("data", "model", "metrics")
    }
    assert (len(left["w-champion"]), len(said.remove), said.kept, said.left) == (3, 9, 12, [])
    assert prune(project, keep=1, since=WHEN).remove == []


def test_looking_removes_nothing_and_finds_what_pruning_removes(project: Project) -> None:
    before = stands(project.board)
    found = find_prunable(project, keep=2, since=WHEN)
    assert stands(project.board) == before
    assert prune(project, keep=2, since=WHEN) == found
    assert len(found.remove) == 6  # generations 0 and 3; 1 and 2 were champion, 4 and 5 are the last


@pytest.mark.parametrize(("ago", "stay"), [(0, [0, 1, 2, 5]), (1, [1, 2, 5])])
def test_models_that_answered_calls_lately_stay(project: Project, ago: int, stay: list[int]) -> None:
    version, time = project.board.versions("w-model")[0], stamp(WHEN - timedelta(seconds=ago))
    call = {"workflow": "w", "time": time, "version": version, "endpoint": "/predict", "caller": "a", "input_hash": "b"}
    with project.store.writing() as connection:
        connection.execute(CALLS.insert(), [{**call, "status": 200, "milliseconds": 1.0, "cached": False}])
    prune(project, keep=1, since=WHEN)
    assert stands(project.board)["w-data"] == [f"data {number}" for number in stay]


def test_damaged_metadata_is_left_alone_and_named(project: Project, tmp_path: Path) -> None:
    version = project.board.versions("w-model")[0]
    damaged = tmp_path / "outputs/pins/w-model" / version / "data.txt"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    said = prune(project, keep=1, since=WHEN)
    assert len(said.left) == 1
    assert f"w-model/{version}/data.txt" in said.left[0]
    assert version in project.board.versions("w-model")
    assert len(project.board.versions("w-model")) == 4


@pytest.mark.parametrize("name", ["w-champion", "w-model"])
def test_where_it_is_unknown_what_champions_were_made_from_nothing_goes(
    project: Project, tmp_path: Path, name: str
) -> None:
    before = {name: project.board.versions(name) for name in project.board.names()}
    damaged = tmp_path / "outputs/pins" / name / before[name][1] / "data.txt"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    said = prune(project, keep=1, since=WHEN)
    assert {name: project.board.versions(name) for name in project.board.names()} == before
    why = {"w-champion": "w: which were champions is unknown: ", "w-model": "w: a champion is damaged: "}
    assert [left for left in said.left if left.startswith(why[name]) and "data.txt" in left] != []


def test_a_workflow_whose_run_is_at_work_is_left_alone(project: Project) -> None:
    before = stands(project.board)
    with hold_lock(project.run_lock("w", "monitor"), run="r9"):
        said = prune(project, keep=1, since=WHEN)
    assert (said.remove, said.left, stands(project.board)) == ([], ["w: a run is at work"], before)


def test_a_run_that_begins_while_pruning_stops_it(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    remove, begun = Board.remove, contextlib.ExitStack()

    def remove_and_begin(board: Board, name: str, version: str) -> None:
        remove(board, name, version)
        begun.enter_context(hold_lock(project.run_lock("w", "train"), run="r9"))

    monkeypatch.setattr(Board, "remove", remove_and_begin)
    with begun:
        said = prune(project, keep=1, since=WHEN)
    assert (len(said.remove), said.kept) == (1, 20)
    assert sum(map(len, stands(project.board).values())) == 20


def test_a_run_that_began_and_ended_while_the_board_was_read_stops_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_then_write(*given: object, **more: object) -> object:
        found = find_prunable(*given, **more)
        old = next(pin for pin in found.remove if pin.name == "w-data")  # a run may reuse the result of any earlier one
        inputs = [{"kind": "data", "name": "w-data", "version": old.version, "sha256": old.sha256}]
        project.board.write_json("w-model", "new", facts={}, lineage={"run": "r9", "inputs": inputs})
        return found

    monkeypatch.setattr(pinmill.prune, "find_prunable", find_then_write)
    assert prune(project, keep=1, since=WHEN).remove == []
    assert sum(map(len, stands(project.board).values())) == 22


# --- removing one version


def test_the_last_version_and_what_is_not_there_cannot_be_removed(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    first, second = (board.write_json("p", n, **NO).version for n in range(2))
    with pytest.raises(BoardError, match=f"{second} is the last version of p, which is never removed"):
        board.remove("p", second)
    board.remove("p", first)
    with pytest.raises(PinNotFoundError, match=f"p has no version '{first}'"):
        board.remove("p", first)
    assert stands(board) == {"p": [1]}
    assert [path.name for path in (tmp_path / "pins.staging").iterdir() if path.is_dir()] == []


def test_what_a_killed_removal_left_is_deleted_by_the_next_write(tmp_path: Path) -> None:
    code = """
import os, shutil, sys
from pinmill.board import Board
shutil.rmtree = lambda path, **_: os.path.isdir(path) and os.kill(os.getpid(), 9)
Board(sys.argv[1]).remove("p", sys.argv[2])
"""
    board = Board(tmp_path / "pins")
    first, second = (board.write_json("p", n, **NO).version for n in range(2))
    lib = Path(sys.modules["pinmill"].__file__).parents[1]
    environ = {**os.environ, "PYTHONPATH": str(lib)}
    killed = subprocess.run([sys.executable, "-c", code, board.url, first], env=environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (board.versions("p"), os.listdir(tmp_path / "pins.staging/p")) == ([second], [first])
    board.write_json("p", 2, **NO)
    assert (stands(board), (tmp_path / "pins.staging/p").exists()) == ({"p": [1, 2]}, False)


def test_an_object_store_can_be_read_after_each_step_of_a_removal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    board = Board(f"memory://{tmp_path.name}/pins")
    first, second = (board.write_json("p", n, **NO).version for n in range(2))
    stock, steps = pins.board("memory", f"{tmp_path.name}/pins", cache=None), []

    def look(done: str) -> None:
        steps.append((done, board.versions("p"), stock.pin_read("p")))

    whole = MemoryFileSystem.rm_file

    def rm_file(self: MemoryFileSystem, path: str) -> None:
        whole(self, path)
        look(path.rpartition("/")[2])

    monkeypatch.setattr(MemoryFileSystem, "rm_file", rm_file)
    board.remove("p", first)
    look("end")
    assert [step for step in steps if step[0] in ("data.txt", "end")] == [
        ("data.txt", [second], 1), ("end", [second], 1),
    ]  # fmt: skip
    assert (stock.pin_versions("p")["version"].tolist(), board.read_json(board.pin("p"))) == ([second], 1)


# --- the last version, known without a listing


def test_latest_is_the_last_committed_whatever_became_of_its_note(tmp_path: Path) -> None:
    board, note = Board(tmp_path / "pins"), tmp_path / "pins.staging/p.latest"
    versions = [board.write_json("p", n, **NO).version for n in range(3)]
    whole = note.read_text()
    for said in (whole, "", "x", "1 2 3", whole[:-1], f"{whole.split()[0]} x", f"0 {versions[0]}", "\udcff"):
        note.write_bytes(said.encode(errors="surrogateescape"))
        assert board.latest("p") == versions[-1]
    note.unlink()
    assert board.latest("p") == versions[-1]


def test_latest_follows_what_is_done_to_the_folder_by_hand(tmp_path: Path) -> None:
    board, folder = Board(tmp_path / "pins"), tmp_path / "pins/p"
    first, second = (board.write_json("p", n, **NO).version for n in range(2))
    os.rename(folder / second, tmp_path / second)
    assert board.latest("p") == first
    os.rename(tmp_path / second, folder / second)
    assert board.latest("p") == second
    later = "29990101T000000Z-00000"
    os.rename(folder / first, folder / later)
    assert board.latest("p") == later


def test_no_note_says_an_older_version_when_the_writer_dies_after_its_commit(tmp_path: Path) -> None:
    code = """
import os, sys
from pinmill import storage
from pinmill.board import Board
board = Board(sys.argv[1])
os.rename = lambda *paths, rename=os.rename: (rename(*paths), os.kill(os.getpid(), 9))
board.write_json("p", 1, facts={}, lineage={})
"""
    board = Board(tmp_path / "pins")
    board.write_json("p", 0, **NO)
    lib = Path(sys.modules["pinmill"].__file__).parents[1]
    environ = {**os.environ, "PYTHONPATH": str(lib)}
    assert subprocess.run([sys.executable, "-c", code, board.url], env=environ, check=False).returncode == -9
    assert not (tmp_path / "pins.staging/p.latest").exists()
    assert board.read_json(board.pin("p")) == 1


# --- the command


def test_the_command_says_what_may_go_and_a_run_after_its_removal_makes_it_again(small_trained: Workplace) -> None:
    place = small_trained
    for power in (2, 3, 4):
        place.pinmill("run", "small", "--set", f"power={power}", "--set", "score=0.1", code=3)
    champion, before = place.json("champion", "small"), place.json("pins")
    said = place.json("pins", "prune", "--keep", "1")
    assert [pin["name"] for pin in said["pins"]].count("small-model") == 2  # of powers 2 and 3
    assert [pin["name"] for pin in said["pins"]].count("small-metrics") == 2
    assert (len(said["pins"]), said["kept"], said["removed"], said["left_alone"]) == (4, 6, False, [])
    told = place.pinmill("pins", "prune", "--keep", "1").stdout
    assert f"4 versions, {sum(pin['bytes'] for pin in said['pins'])} bytes may go; 6 kept" in told
    assert "nothing was removed; to do it: pinmill pins prune --keep 1 --days 90 --yes" in told
    assert [pin["version"] for pin in said["pins"] if pin["version"] not in told] == []
    assert place.json("pins") == before
    told = place.pinmill("pins", "prune", "--keep", "1", "--yes").stdout
    assert f"4 versions, {said['bytes']} bytes removed; 6 kept" in told
    assert "nothing was removed" not in told
    assert place.json("champion", "small") == champion
    assert place.json("pins", "verify") == {"checked": 6, "damaged": []}
    place.pinmill("run", "small", "--set", "power=2", "--set", "score=0.1", code=3)  # its results are gone
    did = {stage["notebook"]: stage["status"] for stage in place.json("runs", "small")[0]["stages"]}
    assert did == dict.fromkeys(STAGES, "ran") | {"01-prepare": "reused"}


def test_keeping_nothing_is_refused(small: Workplace) -> None:
    assert "greater than or equal to 1" in small.pinmill("pins", "prune", "--keep", "0", code=2).stderr


def test_the_last_are_the_last_committed_though_the_clock_was_set_back(tmp_path: Path) -> None:
    times = iter([WHEN, WHEN - timedelta(days=1), *[WHEN] * 9])  # the clock was set back
    project = Project(tmp_path, {"PINMILL_BOARD": "pins"})
    board = Board(tmp_path / "pins", clock=lambda: next(times))
    for number in range(3):
        board.write_json("w-data", number, facts={}, lineage={"run": "r"})
    prune(project, keep=1, since=WHEN)
    assert stands(board) == {"w-data": [2]}
