"""Trace: what a pin or a run came from, against what run.json and the stock pins package say."""

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pins
import pytest
from pinmill.board import Board
from pinmill.calls import write_rows
from pinmill.cli_trace import print_tree
from pinmill.errors import PinNotFoundError
from pinmill.project import Project
from pinmill.store import CALLS, Annotation
from pinmill.trace import read_trace


def only(folder: Path) -> str:
    (version,) = (path.name for path in folder.iterdir())
    return version


def read_user(root: Path, name: str) -> dict:
    """The metadata of the only version of a pin, as stock pins reads it."""
    folder = root / "outputs/pins"
    return pins.board_folder(str(folder)).pin_meta(name, version=only(folder / name)).user


def read_run(root: Path) -> dict:
    (path,) = (root / "outputs/runs/tiny").glob("2*/run.json")
    return json.loads(path.read_text())


def trace(root: Path, given: str) -> dict:
    """The trace as a program gets it: plain values only."""
    return json.loads(json.dumps(read_trace(Project(root, {}), given)))


FACTS = "source source_sha256 rows train test split dropped annotations task text features label positive classes"


def expected_pin(root: Path, name: str, facts: str) -> dict:
    """All of a pin's trace but its fate and inputs, from its metadata and run.json."""
    user, run = read_user(root, name), read_run(root)
    lineage, stage = user["lineage"], next(s for s in run["stages"] if s["notebook"] == user["lineage"]["stage"])
    kept = "parameters seed git packages python platform cpu threads blas"
    told = "run status job started ended champion_before champion_after reasons error warnings"
    return {
        "name": name, "version": only(root / "outputs/pins" / name), "verifies": True, "problems": [],
        "sha256": next(iter(user["sha256"].values())), "created": user["created"], "by": lineage["by"],
        "about": {fact: user["facts"][fact] for fact in facts.split()},
        "run": {key: run[key] for key in told.split()},
        "notebook": {"executed": stage["executed"], "there": True, "code": stage["parts"]["code"]},
        "lock": {"sha256": hashlib.sha256((root / "requirements.lock").read_bytes()).hexdigest(), "same_now": True},
        **{key: lineage[key] for key in kept.split()},
    }  # fmt: skip


def test_a_model_is_traced_to_the_source_as_run_json_and_the_pins_tell(trained_once) -> None:
    root = trained_once.root
    source = hashlib.sha256((root / "tiny.csv").read_bytes()).hexdigest()
    data = expected_pin(root, "tiny-data", FACTS) | {
        "kind": "data",
        "inputs": [{"kind": "source", "name": "tiny.csv", "version": None, "sha256": source}],
    }
    metrics, champion = root / "outputs/pins/tiny-metrics", root / "outputs/pins/tiny-champion"
    decision = json.loads((metrics / only(metrics) / "tiny-metrics.json").read_text())["decision"]
    moved = json.loads((champion / only(champion) / "tiny-champion.json").read_text())
    found = trace(root, only(root / "outputs/pins/tiny-model"))
    assert found == expected_pin(root, "tiny-model", "task label positive classes hyperparameters") | {
        "status": "champion",
        "moves": [{**moved, "record": only(champion)}],
        "decision": {"metrics": only(metrics), "champion": None, **decision},
        "inputs": [data],
    }
    assert (data["about"]["rows"], data["about"]["source"], data["git"]) == (240, "tiny.csv", None)
    assert data["cpu"] is not None


def test_metrics_and_a_run_are_traced_with_all_that_they_hold(trained_once) -> None:
    root, run = trained_once.root, read_run(trained_once.root)
    metrics, found = trace(root, only(root / "outputs/pins/tiny-metrics")), trace(root, run["run"])
    assert [(each["kind"], each["name"]) for each in metrics["inputs"]] == [
        ("data", "tiny-data"),
        ("model", "tiny-model"),
    ]
    assert metrics["decision"]["passed"]
    assert found["outputs"] == [
        trace(root, only(root / f"outputs/pins/tiny-{k}")) for k in ("data", "model", "metrics")
    ]
    assert {**found, "outputs": None} == {
        "workflow": "tiny",
        **{key: run[key] for key in metrics["run"]},
        "parameters": run["parameters"],
        "notebooks": [{"executed": s["executed"], "there": True, "code": s["parts"]["code"]} for s in run["stages"]],
        "outputs": None,
    }


def test_what_is_gone_or_damaged_is_said_in_its_place(trained) -> None:
    root = trained.root
    pins_folder, model = root / "outputs/pins", only(trained.root / "outputs/pins/tiny-model")
    data, metrics = only(pins_folder / "tiny-data"), only(pins_folder / "tiny-metrics")
    (pins_folder / "tiny-metrics" / metrics / "tiny-metrics.json").write_text("{}")
    (pins_folder / "tiny-model" / model / "model.skops").unlink()
    (root / "requirements.lock").write_text("other\n")
    shutil.rmtree(pins_folder / "tiny-data" / data)
    run = read_run(root)["run"]
    shutil.rmtree(root / "outputs/runs/tiny" / run)
    found = trace(root, model)
    assert (found["status"], found["verifies"], found["lock"]["same_now"]) == ("champion", False, False)
    assert "is gone or cannot be read" in found["problems"][0]
    assert found["run"] == {"run": run, "status": "gone", "error": f"no run {run!r} of tiny. See: pinmill runs tiny"}
    assert found["notebook"]["there"] is False
    assert (found["decision"]["passed"], found["decision"]["metrics"]) == (True, metrics)
    assert "was changed" in found["decision"]["problems"][0]
    (given,) = found["inputs"]
    assert {**given, "problems": None} == {
        "kind": "data", "name": "tiny-data", "version": data, "verifies": False, "problems": None,
    }  # fmt: skip
    assert "there is no pin 'tiny-data'" in given["problems"][0]
    shown = trained.pinmill("trace", model).stdout
    assert shown.startswith(f"tiny-model {model}\n")
    assert "there is no pin 'tiny-data'" in shown


def test_annotations_are_an_input_that_is_no_pin_and_nothing_of_it_is_damaged(trained) -> None:
    said = [Annotation("h", {"text": "win a prize number 9000"}, "spam", key="k", strategy="random")]
    store = Project(trained.root, {}).store
    store.add_annotations("tiny", said, annotator="ada", when=datetime(2026, 5, 6, tzinfo=UTC))
    store.close()
    trained.pinmill("run", "tiny", code=None)
    data = max(path.name for path in (trained.root / "outputs/pins/tiny-data").iterdir())
    found = trace(trained.root, data)
    source = hashlib.sha256((trained.root / "tiny.csv").read_bytes()).hexdigest()
    assert (found["verifies"], found["problems"], found["about"]["annotations"]["n"]) == (True, [], 1)
    assert found["inputs"] == [
        {"kind": "source", "name": "tiny.csv", "version": None, "sha256": source},
        {"kind": "annotations", "name": "tiny", "version": "1", "sha256": None},
    ]
    shown = trained.pinmill("trace", data).stdout
    assert "inputs: kind annotations, name tiny, version 1" in shown
    assert "problems" not in shown


def log_calls(root: Path, rows: list[dict]) -> None:
    store = Project(root, {}).store
    write_rows(store, [(CALLS, row) for row in rows])
    store.close()


def call(version: str, row: int = 0, **more: object) -> dict:
    return {
        "workflow": "tiny", "time": "2026-11-20T12:00:00.000000+00:00", "version": version, "caller": "shop",
        "endpoint": "POST /predictions", "input_hash": f"hash-{row}", "status": 200, "input": None,
        "output": '{"label": "spam"}', "milliseconds": 2.5, "cached": False, "request": "req-0000-abcd", "row": row,
    } | more  # fmt: skip


def test_an_answer_is_traced_to_its_model_and_all_that_this_came_from(trained) -> None:
    root, model = trained.root, only(trained.root / "outputs/pins/tiny-model")
    log_calls(root, [call(model, number) for number in range(25)] + [call(model, request="req-0000-abce")])
    found = trace(root, "req-0000-abcd")
    row = {"status": 200, "milliseconds": 2.5, "cached": False, "input": None, "output": {"label": "spam"}}
    assert found == {
        "request": "req-0000-abcd", "workflow": "tiny", "time": "2026-11-20T12:00:00.000000+00:00", "caller": "shop",
        "endpoint": "POST /predictions", "version": model,
        "inputs": "only hashes of the inputs are kept; log_inputs: true in the params keeps the inputs of later calls",
        "n": 25, "rows": [{"row": number, "input_hash": f"hash-{number}", **row} for number in range(20)],
        "model": trace(root, model),
    }  # fmt: skip
    assert found["model"]["inputs"][0]["inputs"][0]["name"] == "tiny.csv"
    shown = trained.pinmill("trace", "req-0000-abcd").stdout
    assert shown.startswith("req-0000-abcd\n├── request: req-0000-abcd\n├── workflow: tiny\n")
    assert "input_hash hash-19" in shown
    assert "hash-20" not in shown
    assert f"model: tiny-model {model}\n" in shown
    assert "log_inputs: true in the params" in shown


def test_inputs_that_were_logged_are_shown(tmp_path: Path) -> None:
    log_calls(tmp_path, [call("", input='{"text": "win"}', endpoint="GET /")])
    found = trace(tmp_path, "req-0000-abcd")
    assert (found["inputs"], found["rows"][0]["input"], found["model"]) == ("", {"text": "win"}, None)


def test_a_call_whose_model_is_gone_says_so(tmp_path: Path) -> None:
    log_calls(tmp_path, [call("20260101T000000Z-00000")])
    assert "there is no pin 'tiny-model'" in trace(tmp_path, "req-0000-abcd")["model"]["problems"][0]


def test_a_call_that_is_not_in_the_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PinNotFoundError, match="no call in the log has the id 'req-0000-abcd': it came less than"):
        trace(tmp_path, "req-0000-abcd")
    assert list(tmp_path.iterdir()) == []


def write(board: Board, name: str, inputs: list[dict]) -> str:
    return board.write_json(name, 1, facts={}, lineage={"run": "adhoc-1", "inputs": inputs}).version


def test_a_broken_history_or_lineage_is_told_and_ends(tmp_path: Path) -> None:
    board = Board(tmp_path / "outputs/pins")
    data = write(board, "w-data", [])
    wrong = {"kind": "data", "name": "w-data", "version": data, "sha256": "00"}
    model = write(board, "w-model", [wrong])
    board.write_json("w-champion", {"action": "crown"}, facts={}, lineage={})
    found = trace(tmp_path, model)
    assert found["status"].startswith("unknown: ")
    assert found["run"]["status"] == "by hand"
    assert found["inputs"][0]["problems"] == ["it is not what was read then: that had the SHA-256 00"]
    assert trace(tmp_path, data)["inputs"] == []


@pytest.mark.parametrize("cut", [slice(None), slice(-5, None), slice(None, 19)])
def test_a_unique_end_or_beginning_is_enough(trained_once, cut: slice) -> None:
    model = only(trained_once.root / "outputs/pins/tiny-model")
    assert trace(trained_once.root, model[cut])["version"] == model


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("20", "4 versions and runs have the name '20'."),
        ("x", "no version or run has the name 'x'."),
        ("", "no version"),
    ],
)
def test_a_name_that_none_or_several_have_is_refused(trained_once, given: str, message: str) -> None:
    with pytest.raises(PinNotFoundError) as caught:
        read_trace(Project(trained_once.root, {}), given)
    assert str(caught.value).startswith(message)


def test_data_values_are_printed_as_they_are(capsys) -> None:
    long = {"\x07": "x" * 160, "name": "\x1b]0;", "version": 1}
    print_tree(
        "t", {"rows": [{"true": "[red]x[/red] :smile:", "\x1b[0m": "\x1b[31mred"}], "n": 0, "no": {}, "in": long}
    )
    assert capsys.readouterr().out.splitlines()[:5] == [
        "t",
        "├── rows: true [red]x[/red] :smile:, '\\x1b[0m' '\\x1b[31mred'",
        "├── n: 0",
        "└── in: '\\x1b]0; 1'",
        f"    └── '\\x07': {'x' * 160}",
    ]


def test_a_pin_that_was_shown_is_only_named_again(capsys) -> None:
    data = {"kind": "data", "name": "w-data", "version": "v", "about": "x" * 160}
    print_tree("t", {"inputs": [data, {"name": "w-model", "version": "u", "inputs": [data]}]})
    assert capsys.readouterr().out.splitlines() == [
        "t",
        "├── inputs: w-data v",
        "│   ├── kind: data",
        f"│   └── about: {'x' * 160}",
        "└── inputs: w-model u",
        "    └── inputs: w-data v (as above)",
    ]
