"""What the serving notebook's writing cells do: who may, what is refused in which words, and runs that live on."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from pinmill import actions
from pinmill.actions import log_file, promote, read_assignments, read_run, start_run
from pinmill.champion import read_champion, read_history, rollback
from pinmill.notebook import Stage
from pinmill.params import Params, override
from pinmill.project import Project
from pinmill.service import Service
from pinmill.session import Run
from pinmill.tokens import read_audit
from pinmill.version import now_utc
from waiting import wait_until

ADA = {"name": "ada", "role": "modeller", "address": "127.0.0.1"}
VALUES = {
    "a": 1e-7,
    "b": "yes",
    "c": "x: y",
    "d": {"C": [1, 2]},
    "e": "☃ 🎉",
    "f": None,
    "g": "two\nlines\0",
    "h": 1e300,
}


def open_small(place) -> Service:
    """The service of the workflow `small`, as the serving notebook opens it."""
    project = Project(place.root, {})
    stage = Stage("serve", place.root / "notebooks/serve.ipynb", "Serving", "serve", ("champion",), (), {}, ())
    return Service(Run("adhoc-1", "small", stage, project, {}, {}, {}))


@pytest.fixture
def service(small_trained) -> Service:
    return open_small(small_trained)


def ask(action: Callable, service: Service, body: object, caller: dict | None = ADA) -> tuple[int, dict]:
    """Status and answer."""
    response = action(service, json.dumps({"body": body, "args": {}, "path": {}, "headers": {}}), caller)
    info = json.loads(response.info)
    kind = "application/json" if info["status"] < 400 else "application/problem+json"
    assert info["headers"]["Content-Type"] == kind
    return info["status"], json.loads(response.body)


def follow(service: Service, run: str) -> tuple[int, dict]:
    response = read_run(service, json.dumps({"path": {"id": run}}))
    return json.loads(response.info)["status"], json.loads(response.body)


def wait_for_end(service: Service, run: str) -> dict:
    """What is told of a run once its process has ended."""
    with log_file(service.run.project, run).open("rb") as log:
        fcntl.flock(log, fcntl.LOCK_SH)
    return follow(service, run)[1]


# Who may


@pytest.mark.parametrize("action", [promote, start_run])
def test_without_a_caller_nothing_is_changed(service, action) -> None:
    before = [*Path(service.run.project.outputs).rglob("*")]
    status, answer = ask(action, service, {"version": "x", "why": "y"}, caller=None)
    assert (status, answer["title"]) == (403, "Forbidden")
    assert "pinmill serve" in answer["detail"]
    assert [*Path(service.run.project.outputs).rglob("*")] == before


# The champion


@pytest.fixture(scope="module")
def story(small_trained_once, tmp_path_factory):
    """A champion, the one before, and a rejected version, oldest first; not to be changed."""
    place = small_trained_once.copy(tmp_path_factory.mktemp("story") / "project")
    place.pinmill("run", "small", "--set", "power=2")
    place.pinmill("run", "small", "--set", "power=3", "--set", "score=0.25", code=3)
    return place, Project(place.root, {}).board.versions("small-model")


@pytest.fixture
def told(story, tmp_path):
    place = story[0].copy(tmp_path / "project")
    return open_small(place), story[1]


def test_a_passed_version_is_promoted_in_the_caller_s_name_and_its_pages_are_shown(told) -> None:
    service, (first, second, _) = told
    status, answer = ask(promote, service, {"version": first[-5:], "why": " better in French "})
    champion = read_champion(service.board, "small")
    assert status == 200
    assert answer == {
        "action": "promote", "version": first, "sha256": champion.sha256, "by": "ada", "when": champion.when,
        "why": "better in French", "previous": second, "override": False, "record": champion.record,
    }  # fmt: skip
    shown = service.run.project.pages / "small/.champion.json"
    wait_until(lambda: json.loads(shown.read_text())["version"] == first, "the page of the new champion")
    status, again = ask(promote, service, {"version": first, "why": "again"})
    assert (status, again["detail"][:34]) == (409, f"small has this champion already: {first}"[:34])


def test_of_a_service_without_tokens_the_history_says_that_nobody_gave_a_name(told) -> None:
    service, (first, *_) = told
    status, answer = ask(promote, service, {"version": first, "why": "better"}, {**ADA, "name": ""})
    assert (status, answer["by"], read_champion(service.board, "small").by) == (200, "anonymous", "anonymous")


def test_a_rejected_version_takes_an_override_which_is_recorded(told) -> None:
    service, (*_, rejected) = told
    status, answer = ask(promote, service, {"version": rejected, "why": "I know better"})
    assert (status, answer["detail"]) == (
        409,
        f'{rejected}: the gate rejected it. score 0.25, threshold 0.5 With "override": true it is promoted all the '
        "same, and that is recorded.",
    )
    status, answer = ask(promote, service, {"version": rejected, "why": "I know better", "override": True})
    assert (status, answer["version"], answer["override"]) == (200, rejected, True)


def test_a_version_that_was_not_evaluated_is_told_how(told) -> None:
    service, _ = told
    new = service.board.write_json("small-model", {"sum": 0}, facts={}, lineage={"run": "adhoc-1"}).version
    status, answer = ask(promote, service, {"version": new, "why": "new"})
    assert status == 409
    assert f'POST /runs with {{"model": "{new}"}} asks it' in answer["detail"]


def test_a_rollback_goes_to_the_one_before_or_to_a_named_one(told) -> None:
    service, (first, second, rejected) = told
    ask(promote, service, {"version": rejected, "why": "try", "override": True})
    status, answer = ask(promote, service, {"action": "rollback", "why": "complaints", "to": None})
    assert (status, answer["action"], answer["version"], answer["by"]) == (200, "rollback", second, "ada")
    status, answer = ask(promote, service, {"action": "rollback", "why": "still", "to": first[-5:]})
    assert (status, answer["version"], answer["previous"]) == (200, first, second)
    status, answer = ask(promote, service, {"action": "rollback", "why": "more"})
    assert (status, answer["detail"][:50]) == (409, "small has no earlier champion to go back to; the c")


MISSING, TEXT, EXTRA = "Field required", "Input should be a valid string", "Extra inputs are not permitted"
EMPTY, ONLY = "String should have at least 1 character", "Input should be a valid boolean"


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        ({}, {"version": MISSING, "why": MISSING}),
        ({"version": 5, "why": "  ", "override": "yes", "wy": "x"},
         {"version": TEXT, "why": EMPTY, "override": ONLY, "wy": EXTRA}),
        ({"version": "x", "why": "a" * 2001}, {"why": "String should have at most 2000 characters"}),
        ({"action": "demote", "version": "x"},
         {"action": "Input should be 'rollback'", "why": MISSING, "version": EXTRA}),
        ([], {"": "Input should be a valid dictionary or instance of Promotion"}),
        (None, {"version": MISSING, "why": MISSING}),
    ],
)  # fmt: skip
def test_all_that_is_wrong_with_a_promotion_is_told_at_once(service, body, problems: dict[str, str]) -> None:
    status, answer = ask(promote, service, body)
    assert (status, {each["field"]: each["problem"] for each in answer["errors"]}) == (422, problems)
    assert len(read_history(service.board, "small")) == 1


@pytest.mark.parametrize(
    "body", [{"version": "nothing", "why": "x"}, {"action": "rollback", "to": "nothing", "why": "x"}]
)
def test_a_version_that_is_not_there_is_not_found(service, body) -> None:
    status, answer = ask(promote, service, body)
    assert (status, answer["detail"]) == (404, "no model has version 'nothing'. See: pinmill models")


def test_a_champion_that_somebody_else_moved_meanwhile_is_a_conflict(told, monkeypatch) -> None:
    service, (first, second, _) = told

    def read_then_lose(board, workflow):
        """What was read, after somebody else moved the champion."""
        monkeypatch.undo()
        found = read_champion(board, workflow)
        rollback(board, workflow, by="bob", why="faster", when=now_utc())
        return found

    monkeypatch.setattr(actions.champion, "read_champion", read_then_lose)
    status, answer = ask(promote, service, {"version": first, "why": "x"})
    assert status == 409
    assert f"the champion of small is not {second} any more, but {first}, gone back to by bob" in answer["detail"]


def test_a_damaged_version_does_not_become_champion(told) -> None:
    service, (first, second, _) = told
    (service.run.project.outputs / "pins/small-model" / first / "small-model.json").write_text("{}")
    status, answer = ask(promote, service, {"version": first, "why": "x"})
    assert (status, "was changed" in answer["detail"]) == (409, True)
    assert read_champion(service.board, "small").version == second


# Runs


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"set": {"powr": 2}},
         "1 problem in params/small.yaml: no notebook has parameter 'powr' (--set powr). Did you mean 'power'?"),
        ({"set": {"power": "2"}}, "1 problem in params/small.yaml: power: '2' is str, int was expected (--set power)"),
        ({"job": "trian"}, "no notebook belongs to job 'trian'; the jobs here are: train."),
        ({"model": "nothing"}, "no model has version 'nothing'. See: pinmill models"),
        ({"job": "serve"}, "job 'serve' is what answers you; it is started by `pinmill serve`"),
    ],
)  # fmt: skip
def test_what_a_run_would_refuse_is_refused_at_once(service, body, said: str) -> None:
    status, answer = ask(start_run, service, body)
    assert (status, answer["detail"]) == (422, said)
    assert not (service.run.project.outputs / "logs").exists()


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"jb": "train", "set": [], "model": 3}, ["set", "model", "jb"]),
        ({"set": {"source": "/etc/passwd", "query": "x", "run": {}, "a=b": 1, "power": 2}},
         ["set.source", "set.query", "set.run", "set.a=b"]),
        ({"job": "score", "set": {"input": "/srv/other.csv", "output": "/srv/x.csv", "url": "http://evil.example"}},
         ["set.input", "set.output", "set.url"]),
        ({"job": "annotate", "set": {"url": "http://evil.example"}}, ["set.url"]),
    ],
)  # fmt: skip
def test_no_caller_says_what_this_machine_reads_or_runs(service, body, fields: list[str]) -> None:
    status, answer = ask(start_run, service, body)
    assert (status, [each["field"] for each in answer["errors"]]) == (422, fields)


def test_parameters_from_json_arrive_as_they_were_sent() -> None:
    assert override(Params("w", "w.yaml", {}, {}), read_assignments(VALUES)).values == VALUES


def test_a_started_run_is_followed_to_its_end(service) -> None:
    status, answer = ask(start_run, service, {"set": {"power": 2}})
    run = answer["run"]
    assert (status, answer) == (202, {"run": run, "status": "running", "follow": f"/runs/{run}"})
    record = wait_for_end(service, run)
    versions = service.board.versions("small-model")
    assert record == {
        "run": run, "workflow": "small", "job": "train", "status": "succeeded", "started": record["started"],
        "ended": record["ended"], "candidate": versions[1], "champion_before": versions[0],
        "champion_after": versions[1], "reasons": ["score 0.9, threshold 0.5"], "outcome": "promoted", "error": "",
        "warnings": [], "stages": record["stages"],
    }  # fmt: skip
    assert [(stage["stage"], stage["status"], stage["seconds"] > 0) for stage in record["stages"]] == [
        ("prepare", "reused", True), ("train", "ran", True), ("evaluate", "ran", True), ("model-card", "ran", True),
    ]  # fmt: skip
    for thread in [thread for thread in threading.enumerate() if thread.name == run]:
        thread.join(30)
    assert psutil.STATUS_ZOMBIE not in [child.status() for child in psutil.Process().children()]
    status, answer = ask(start_run, service, {"model": versions[0][-5:]})
    assert wait_for_end(service, answer["run"])["candidate"] == versions[0]
    assert (
        wait_for_end(service, ask(start_run, service, {"set": {"power": 2, "score": 0.1}})[1]["run"])["status"]
        == "rejected"
    )


def test_a_failed_run_says_why(service, small_trained) -> None:
    small_trained.edit("02-train", "model = {", "raise ValueError('nothing can be learnt')\nmodel = {")
    record = wait_for_end(service, ask(start_run, service, {})[1]["run"])
    assert (record["status"], record["stages"][-1]["status"]) == ("failed", "failed")
    assert "02-train, cell 7: ValueError: nothing can be learnt" in record["error"]


STARTER = """
import json, os, socket, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_actions import ADA, ask, open_small
from types import SimpleNamespace
from pinmill.actions import start_run
held = socket.socket()
held.bind(("127.0.0.1", 0)), held.listen(), held.set_inheritable(True)
service = open_small(SimpleNamespace(root=Path(sys.argv[2])))
print(json.dumps(ask(start_run, service, {"set": {"power": 2}})[1]), flush=True)
input()
"""


def test_a_run_outlives_the_kernel_that_started_it_and_takes_nothing_of_it_along(small_trained) -> None:
    service, root = open_small(small_trained), small_trained.root
    (root / "hold-train").touch()
    own = {"OMP_NUM_THREADS": "1", "JPY_SESSION_NAME": "notebooks/serve.ipynb", "PINMILL_KEPT": "yes"}
    kernel = subprocess.Popen(
        [sys.executable, "-c", STARTER, Path(__file__).parent, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=small_trained.environ(**own), start_new_session=True,
    )  # fmt: skip
    with kernel:
        run = json.loads(kernel.stdout.readline())["run"]
        wait_until((root / "at-train").exists, "the stage that waits")
        (process,) = [child for child in psutil.Process(kernel.pid).children() if run in child.cmdline()]
        environ, files = process.environ(), [os.readlink(path) for path in Path(f"/proc/{process.pid}/fd").iterdir()]
        assert ("OMP_NUM_THREADS" in environ, "JPY_SESSION_NAME" in environ, environ["PINMILL_KEPT"]) == (
            False,
            False,
            "yes",
        )
        assert files.count(str(log_file(service.run.project, run))) == 2
        assert process.net_connections("tcp") == []
        os.killpg(kernel.pid, signal.SIGKILL)
        kernel.wait()
    status, record = follow(service, run)
    assert (status, record["status"], record["stages"][-1]["status"]) == (200, "running", "running")
    status, answer = ask(start_run, service, {})
    at_work = f"run {run} of small and job 'train' is at work"
    assert (status, answer["detail"]) == (409, f"{at_work}. Follow it at /runs/{run}, and ask again when it has ended")
    (root / f"release-{run}").touch()
    assert wait_for_end(service, run)["status"] == "succeeded"


def test_of_two_that_are_started_at_once_one_is_told_of_the_other(service, small_trained) -> None:
    (small_trained.root / "hold-train").touch()
    status, first = ask(start_run, service, {"set": {"power": 3}})
    again, answer = ask(start_run, service, {})  # before the first can have its lock
    wait_until((small_trained.root / "at-train").exists, "the stage that waits")
    (small_trained.root / f"release-{first['run']}").touch()
    assert (status, again) == (202, 409)
    assert f"Follow it at /runs/{first['run']}" in answer["detail"]
    assert wait_for_end(service, first["run"])["status"] in ("succeeded", "rejected")


def test_a_run_without_a_record_starts_while_its_process_is_there_and_then_it_has_failed(service) -> None:
    run = "20260102T030405Z-000006-00ff"
    log = log_file(service.run.project, run)
    log.parent.mkdir()
    with log.open("xb") as output:
        fcntl.flock(output, fcntl.LOCK_EX)
        assert follow(service, run) == (200, {"run": run, "workflow": "small", "status": "starting", "error": ""})
    said = f"it ended before its first stage; what it said is in outputs/logs/{run}.log"
    assert follow(service, run) == (200, {"run": run, "workflow": "small", "status": "failed", "error": said})


def test_a_process_that_ends_at_once_has_failed_and_leaves_no_zombie(service, monkeypatch) -> None:
    monkeypatch.setattr(actions, "COMMAND", (sys.executable, "-c", "raise SystemExit('no luck')"))
    run = ask(start_run, service, {})[1]["run"]
    assert wait_for_end(service, run)["status"] == "failed"
    assert log_file(service.run.project, run).read_text() == "no luck\n"
    for thread in [thread for thread in threading.enumerate() if thread.name == run]:
        thread.join(30)
    assert psutil.STATUS_ZOMBIE not in [child.status() for child in psutil.Process().children()]


def test_the_audit_list_says_who_starts_a_run_and_without_it_none_is_started(service) -> None:
    status, answer = ask(start_run, service, {"set": {"power": 2}})
    assert status == 202
    (row,) = read_audit(service.run.project, "small")[:1]
    assert (row["who"], row["what"], row["detail"]) == ("ada", "run started", "train power=2")
    wait_for_end(service, answer["run"])
    service.run.project.store_file.write_bytes(b"this is no database" * 100)
    status, answer = ask(start_run, service, {})
    assert (status, answer["detail"].partition(",")[0]) == (503, "the audit list cannot be written")
    assert len([*service.run.project.outputs.glob("logs/*.log")]) == 1


def test_a_process_that_cannot_be_started_is_told(service, monkeypatch) -> None:
    monkeypatch.setattr(actions, "COMMAND", ("/nowhere/python",))
    status, answer = ask(start_run, service, {})
    assert (status, answer["detail"]) == (503, "`pinmill run` could not be started: No such file or directory")


@pytest.mark.parametrize("run", ["nothing", "20260102T030405Z-000006-00ff", "../../x", "", "..", "a\0b"])
def test_a_run_that_is_not_there_is_not_found(service, run: str) -> None:
    assert follow(service, run)[0] == 404
