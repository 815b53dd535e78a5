"""Retention: what is too old goes by whole days, nothing that anybody may still ask for, and serving goes on."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sql
from pinmill.actions import log_file
from pinmill.calls import Writer
from pinmill.champion import promote, read_champion, rollback
from pinmill.errors import ParameterError
from pinmill.lock import hold_lock
from pinmill.pages import find_run_of
from pinmill.project import Project, open_project
from pinmill.retention import find_expired, longest, plan_runs, read_every, remove_expired
from pinmill.runs import RunRecord, StageRecord, write_json, write_record
from pinmill.store import CALLS, LEASES, PREDICTIONS, Store, stamp

if TYPE_CHECKING:
    from conftest import Workplace

NOW = datetime(2026, 5, 20, 13, 0, tzinfo=UTC)
PARAMS = "workflow: {}\nsource: numbers.txt\nrun: {{retention: {}}}\n"


def run_id(days: float) -> str:
    """The id of a run that began so many days before NOW."""
    return f"{NOW - timedelta(days=days):%Y%m%dT%H%M%SZ}-000000-abcd"


def make_record(days: float, status: str = "failed", job: str = "train", model: str = "", took: float = 0) -> RunRecord:
    """A run that began so many days ago; it took up a stage of the run that began `took` days ago."""
    stages = (StageRecord("prepare", "01-prepare", "reused", run=run_id(took)),) if took else ()
    return RunRecord(run_id(days), "small", job, status, "", model=model, stages=stages)


def planned(*records: RunRecord, needed: tuple[float, ...] = (), days: float = 10) -> list[int]:
    """How many days old the runs are that go."""
    ordered = sorted(records, key=lambda record: record.run, reverse=True)
    before = NOW - timedelta(days=days)
    gone = plan_runs(ordered, before=before, needed={run_id(each) for each in needed})
    return [(NOW - datetime.strptime(run[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)).days for run in gone]


@pytest.fixture
def project(small: Workplace) -> Iterator[Project]:
    """A project with days for everything, and nothing in it."""
    small.params(PARAMS.format("small", "{runs: 10, logs: 5, calls: 3}"), "small")
    project = open_project(small.root, {})
    yield project
    if "store" in vars(project):
        project.store.close()


def add_calls(store: Store, days: list[float], workflow: str = "small") -> None:
    """A call, a kept prediction and a lease of each age."""
    about = {"workflow": workflow, "version": "v", "endpoint": "e", "caller": "c", "input_hash": "", "status": 200}
    with store.writing() as connection:
        for n, age in enumerate(days):
            when = stamp(NOW - timedelta(days=age))
            connection.execute(sql.insert(CALLS).values(**about, time=when, milliseconds=1, cached=False))
            kept = {"key": f"{workflow}{n}", "version": "v", "output": {"label": "ä"}}
            connection.execute(sql.insert(PREDICTIONS).values(**kept, workflow=workflow, created=when))
            lease = {"hash": str(n), "annotator": "a", "strategy": "s", "key": "k", "created": "", "expires": when}
            connection.execute(sql.insert(LEASES).values(**lease, workflow=workflow))


def left_of(store: Store, table: sql.Table, workflow: str = "small") -> int:
    return store.read(sql.select(sql.func.count()).where(table.c.workflow == workflow))[0][0]


# --- deciding


def test_runs_go_by_age_oldest_first() -> None:
    assert planned(*map(make_record, (1, 9, 11, 30, 20))) == [30, 20, 11]
    assert planned(make_record(10), days=10) == []
    assert planned() == []


def test_the_last_finished_run_of_each_job_stays_also_that_without_a_given_model() -> None:
    records = [make_record(n, "succeeded") for n in (40, 30)] + [make_record(35, "rejected", "score")]
    records += [make_record(n, "succeeded", model="v") for n in (22, 21)] + [make_record(20), make_record(50, job="x")]
    assert planned(*records) == [50, 40, 22, 20]


def test_a_run_at_work_and_a_champions_run_stay_however_old() -> None:
    assert planned(make_record(40, "running"), make_record(30), make_record(20), needed=(30,)) == [20]


def test_a_run_whose_stage_was_taken_up_stays_with_the_run_that_took_it() -> None:
    assert planned(make_record(40), make_record(30), make_record(2, "succeeded", took=40)) == [30]
    assert planned(make_record(40), make_record(30, took=40), make_record(2, "succeeded")) == [40, 30]


def test_the_longest_time_of_all_workflows_counts_with_the_default_for_those_without() -> None:
    days = {"small": {"runs": 10, "logs": 5, "calls": 3}}
    assert (longest(days, "calls", default=90), longest(days, "logs")) == (3, 5)
    days["other"] = {"logs": 9}
    assert (longest(days, "calls", default=90), longest(days, "logs")) == (90, 9)
    assert (longest({}, "calls", default=90), longest({}, "logs")) == (90, 0)


# --- runs


def make_run(project: Project, days: float, *, kind: str = "", status: str = "failed", at: str = "small") -> str:
    """A run with its folder, its page, a result that names it and, if wanted, a pin; its id."""
    run, folder = run_id(days), project.runs_folder(at)
    (folder / run).mkdir(parents=True)
    write_record(folder, RunRecord(run, at, "train", status, ""))
    (folder / run / "01-prepare.ipynb").write_text("x" * 1000)
    (project.pages_folder(at) / run).mkdir(parents=True)
    (project.pages_folder(at) / run / "card.html").write_text("page")
    stage = {"stage": "prepare", "notebook": "01-prepare", "status": "ran", "run": run}
    write_json(folder / "stages/prepare" / f"{days:g}.json", stage)
    return run


def runs_left(project: Project, at: str = "small") -> list[str]:
    """The runs that have a folder, a page and a result."""
    places = (project.runs_folder(at), project.pages_folder(at))
    folders = [{path.name for path in place.glob("2*")} for place in places]
    results = (project.runs_folder(at) / "stages/prepare").glob("[0-9]*.json")
    named = {json.loads(path.read_text())["run"] for path in results}
    assert folders[0] == folders[1] == named
    return sorted(named)


def test_old_runs_go_with_their_pages_and_results(project: Project) -> None:
    runs = {days: make_run(project, days) for days in (40, 30, 20, 1)}
    write_json(
        project.runs_folder("small") / "stages/prepare/latest.json",
        {"stage": "prepare", "notebook": "01-prepare", "status": "ran", "run": runs[30]},
    )
    (project.runs_folder("small") / "adhoc-mine").mkdir()
    found, left = find_expired(project, None, now=NOW)
    size = sum(
        path.stat().st_size
        for path in project.runs_folder("small").glob("*/*")
        if path.parent.name in (runs[40], runs[20])
    )
    assert [(each.what, each.workflow, each.names, each.oldest, each.bytes) for each in found] == [
        ("runs", "small", [runs[40], runs[20]], runs[40][:16], size + 8)
    ]
    assert (found[0].before, left) == (datetime(2026, 5, 10, tzinfo=UTC), [])
    assert runs_left(project) == sorted(runs.values())
    assert remove_expired(project, found) == (found, [])
    assert runs_left(project) == sorted([runs[30], runs[1]])
    assert (project.runs_folder("small") / "adhoc-mine").is_dir()
    assert find_expired(project, None, now=NOW) == ([], [])


def test_what_champions_come_from_stays_through_all_generations(project: Project) -> None:
    board, runs = project.board, {days: make_run(project, days) for days in (90, 80, 70, 60, 50, 40, 30)}

    def write(kind: str, days: float, *inputs: object, **facts: str) -> object:
        given = [{"kind": pin.name, "name": pin.name, "version": pin.version, "sha256": pin.sha256} for pin in inputs]
        return board.write_json(f"small-{kind}", days, facts=facts, lineage={"run": runs[days], "inputs": given})

    data, unused = write("data", 90), write("data", 80)
    former, other = write("model", 70, data), write("model", 60, unused)
    write("metrics", 50, data, former, candidate=former.version, candidate_sha256=former.sha256)
    champion = write("model", 40, data)
    for before, pin in ((None, former), (former.version, champion)):
        signed = {"by": "me", "why": "why", "gate": True, "when": NOW}
        promote(board, "small", pin.version, expected=before, **signed)
    (found,), _ = find_expired(project, "small", now=NOW)
    assert found.names == [runs[80], runs[60], runs[30]]  # whose pins stay on the board until `pins prune` takes them
    assert board.versions("small-model") == [former.version, other.version, champion.version]


def test_the_run_stays_from_which_the_pages_of_a_champion_are_rendered_also_after_a_rollback(project: Project) -> None:
    board, folder, kept = project.board, project.runs_folder("small"), []
    runs = {days: make_run(project, days) for days in (80, 70, 60, 50, 40, 30)}
    for made, reported in ((80, 70), (60, 50)):
        pin = board.write_json("small-model", made, facts={}, lineage={"run": runs[made], "inputs": []})
        for days in (made, reported):
            card = str((folder / runs[days] / "01-prepare.ipynb").relative_to(project.root))
            stage = StageRecord("card", "04-card", "ran", executed=card, run=runs[days])
            about = {"candidate": pin.version, "stages": (stage,)}
            write_record(folder, RunRecord(runs[days], "small", "train", "succeeded", "", **about))
        before = read_champion(board, "small")
        signed = {"by": "me", "why": "why", "gate": True, "when": NOW, "expected": before and before.version}
        promote(board, "small", pin.version, **signed)
        kept.append(runs[reported])
        assert find_run_of(project, "small", read_champion(board, "small")).run == kept[-1]
    make_run(project, 1, status="rejected")
    found, _ = find_expired(project, "small", now=NOW)
    remove_expired(project, found)
    assert found[0].names == [runs[40], runs[30]]
    for run in kept[::-1]:
        assert find_run_of(project, "small", read_champion(board, "small")).run == run
        if run != kept[0]:
            rollback(board, "small", by="me", why="why", when=NOW)


def test_a_workflow_whose_params_are_wrong_is_left_alone_with_the_logs_and_the_others_go(project: Project) -> None:
    log, other = log_file(project, "old"), project.root / "params/other.yaml"
    log.parent.mkdir(parents=True)
    log.write_text("words")
    os.utime(log, (1, 1))
    runs = {at: make_run(project, 40, at=at) for at in ("small", "other")}
    other.write_text(PARAMS.format("other", "{runs: 10, log: 9}"))
    assert read_every(project)[0] == {"other": {}, "small": {"runs": 10, "logs": 5, "calls": 3}}
    found, left = find_expired(project, None, now=NOW)
    assert [(each.what, each.workflow, each.names) for each in found] == [("runs", "small", [runs["small"]])]
    assert left[0].startswith("other: 1 problem in params/other.yaml: ")
    assert left[1:] == ["logs: nobody can tell how long other needs them"]
    assert find_expired(project, "small", now=NOW) == (found, left[1:])
    with pytest.raises(ParameterError, match=r"params/other\.yaml"):
        find_expired(project, "other", now=NOW)
    other.write_text(PARAMS.format("other", "{runs: 10, logs: 9}"))
    found, left = find_expired(project, None, now=NOW)
    assert ([(each.what, each.workflow) for each in found], left) == (
        [("runs", "other"), ("runs", "small"), ("logs", "")],
        [],
    )


def test_runs_are_left_alone_where_the_champion_is_not_known(project: Project) -> None:
    make_run(project, 40)
    pin = project.board.write_json("small-champion", {"no": "champion"}, facts={}, lineage={})
    found, left = find_expired(project, None, now=NOW)
    assert found == []
    assert left == [
        f"small: which were champions is unknown: small-champion/{pin.version} is not the record of a champion: "
        "Champion.__init__() got an unexpected keyword argument 'no'"
    ]


def test_runs_are_left_alone_while_one_is_at_work_and_from_when_one_begins(project: Project) -> None:
    runs = [make_run(project, days) for days in (40, 30)]
    found, _ = find_expired(project, None, now=NOW)
    with hold_lock(project.run_lock("small", "train"), run="mine"):
        assert find_expired(project, None, now=NOW) == ([], ["small: a run is at work"])
        gone, left = remove_expired(project, found)
    assert ([each.n for each in gone], left) == ([0], ["small: a run began meanwhile"])
    assert runs_left(project) == runs


def test_what_a_killed_removal_left_goes_the_next_time(project: Project) -> None:
    run = make_run(project, 40)
    (project.runs_folder("small") / run / "run.json").unlink()
    found, _ = find_expired(project, None, now=NOW)
    assert [each.names for each in found] == [[run]]


# --- logs


def test_logs_go_unless_they_are_young_or_written(project: Project) -> None:
    import fcntl

    paths = [log_file(project, name) for name in ("old", "written", "young")]
    paths[0].parent.mkdir(parents=True)
    paths += [paths[0].with_name(name) for name in ("schedule.log.1", "small-train.last", "small-train.lock")]
    for path in paths:
        path.write_text("words")
        when = (NOW - timedelta(days=2 if path.stem == "young" else 7)).timestamp()
        os.utime(path, (when, when))
    with paths[1].open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found, _ = find_expired(project, "small", now=NOW)
        assert [(each.what, each.workflow, sorted(each.names), each.n, each.bytes) for each in found] == [
            ("logs", "", sorted([str(paths[0]), str(paths[3])]), 2, 10)
        ]
        assert found[0].oldest == f"{NOW - timedelta(days=7):%Y%m%dT%H%M%SZ}"
        remove_expired(project, found)
    assert {path.name for path in paths[0].parent.iterdir()} == {path.name for path in paths} - {
        "old.log",
        "schedule.log.1",
    }


# --- calls


@pytest.fixture(params=["sqlite", "postgresql"])
def stored(request: pytest.FixtureRequest, small: Workplace) -> Iterator[Project]:
    """A project whose store is of either kind."""
    small.params(PARAMS.format("small", "{calls: 3}"), "small")
    where = {"PINMILL_STORE": request.getfixturevalue("postgres")()} if request.param == "postgresql" else {}
    project = open_project(small.root, where)
    yield project
    project.store.close()


def test_calls_cached_predictions_and_leases_go_by_whole_utc_days(stored: Project) -> None:
    ages = [10, 4, 3.55, 3.5, 3, 1]  # NOW is 13:00, so midnight three days ago is 3.54 days ago
    for workflow in ("small", "other"):
        add_calls(stored.store, ages, workflow)
    (stored.root / "params/other.yaml").write_text("workflow: other\nsource: numbers.txt\n")
    found, left = find_expired(stored, None, now=NOW)
    told = [(each.what, each.workflow, each.n, each.oldest, each.before) for each in found]
    oldest, midnight = stamp(NOW - timedelta(days=10)), datetime(2026, 5, 17, tzinfo=UTC)
    assert told == [(name, "small", 3, oldest, midnight) for name in ("calls", "predictions", "leases")]
    assert left == []
    assert all(each.bytes > 100 for each in found)
    gone, _ = remove_expired(stored, found)
    assert [each.n for each in gone] == [3, 3, 3]
    assert [left_of(stored.store, table) for table in (CALLS, PREDICTIONS, LEASES)] == [3, 3, 3]
    assert [left_of(stored.store, table, "other") for table in (CALLS, PREDICTIONS, LEASES)] == [6, 6, 6]


def test_the_call_log_is_written_while_old_calls_go(stored: Project) -> None:
    columns = {"workflow": "small", "version": "v", "endpoint": "e", "caller": "c", "input_hash": "", "status": 200}
    row = columns | {"input": None, "output": None, "milliseconds": 1.0, "cached": False, "request": "r", "row": 0}
    old, new = (stamp(NOW - timedelta(days=days)) for days in (9, 0))
    with stored.store.writing() as connection:
        connection.execute(sql.insert(CALLS), [row | {"time": old} for _ in range(20_000)])
    writer, ended, sent = Writer(stored.store), threading.Event(), []

    def ask() -> None:
        """Add calls until the removal has ended."""
        while not ended.wait(0.001):
            sent.append(writer.add(CALLS, row | {"time": new}))

    thread = threading.Thread(target=ask)
    thread.start()
    found, _ = find_expired(stored, "small", now=NOW)
    gone, _ = remove_expired(stored, found)
    ended.set()
    thread.join()
    writer.close()
    assert [each.n for each in gone] == [20_000]
    assert (writer.lost, writer.failing) == (0, "")
    assert left_of(stored.store, CALLS) == len(sent) > 0


# --- the command


def test_the_command_only_tells_until_it_is_told_to_remove(small_trained: Workplace) -> None:
    place, project = small_trained, open_project(small_trained.root, {})
    place.params("workflow: small\nsource: numbers.txt\nrun: {retention: {runs: 10, logs: 5, calls: 3}}\n", "small")
    run = make_run(project, 40)
    add_calls(project.store, [40])
    project.store.close()
    told = place.json("retention", "small")
    assert (told["removed"], told["left_alone"]) == (False, [])
    assert [(each["what"], each["n"]) for each in told["expired"]] == [
        ("runs", 1), ("calls", 1), ("predictions", 1), ("leases", 1),
    ]  # fmt: skip
    said = place.pinmill("retention", "small").stdout
    assert "nothing was removed; to do it: pinmill retention small --yes\n" in said
    assert "4 may go, " in said
    assert (project.runs_folder("small") / run).is_dir()
    index = project.pages / "index.html"
    before = index.stat().st_mtime_ns
    said = place.pinmill("retention", "--yes").stdout
    assert "4 removed, " in said
    assert not (project.runs_folder("small") / run).exists()
    assert index.stat().st_mtime_ns > before
    assert place.json("retention", "--yes") == {"removed": True, "expired": [], "left_alone": []}
    place.pinmill("run", "small")
    assert [stage["status"] for stage in place.json("runs", "small")[0]["stages"]] == ["reused"] * 4
    assert "no workflow 'smal'" in place.pinmill("retention", "smal", code=2).stderr


def test_pruning_keeps_models_in_calls_as_long_as_calls_are_kept(small_trained: Workplace) -> None:
    assert "--days 90" not in small_trained.pinmill("pins", "prune").stdout  # nothing may go
    for power in (2, 3):
        small_trained.pinmill("run", "small", "--set", f"power={power}", "--set", "score=0.1", code=3)
    assert "--keep 1 --days 90 --yes" in small_trained.pinmill("pins", "prune", "--keep", "1").stdout
    small_trained.params("workflow: small\nsource: numbers.txt\nrun: {retention: {calls: 400}}\n", "small")
    assert "--keep 1 --days 400 --yes" in small_trained.pinmill("pins", "prune", "--keep", "1").stdout
    (small_trained.root / "params/other.yaml").write_text("workflow: other\nsuorce: x\n")  # as if it gave none
    assert "--keep 1 --days 400 --yes" in small_trained.pinmill("pins", "prune", "--keep", "1").stdout
    assert "--keep 1 --days 2 --yes" in small_trained.pinmill("pins", "prune", "--keep", "1", "--days", "2").stdout
