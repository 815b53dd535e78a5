"""Runs: what is checked before, what runs again and why, and what becomes of the champion."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pinmill.board import Board

if TYPE_CHECKING:
    from conftest import Workplace

LIB = Path(__file__).resolve().parent.parent / "lib"
STAGES = ["01-prepare", "02-train", "03-evaluate", "04-model-card"]


def did(record: dict) -> dict[str, str]:
    """What a run did with each stage."""
    return {stage["notebook"]: stage["status"] for stage in record["stages"]}


def ran(*stages: str) -> dict[str, str]:
    """All stages reused but these."""
    return {stage: "ran" if stage in stages else "reused" for stage in STAGES}


def last_run(place: Workplace, workflow: str = "small") -> dict:
    return place.json("runs", workflow)[0]


def versions(place: Workplace, kind: str, workflow: str = "small") -> list[str]:
    return sorted(path.name for path in (place.root / "outputs/pins" / f"{workflow}-{kind}").glob("*"))


def trap_kernels(folder: Path) -> tuple[dict[str, str], Path]:
    """An environment in which a kernel that is started ends at once, and the file by which it is known then."""
    folder.mkdir()
    witness = folder / "started"
    (folder / "ipykernel_launcher.py").write_text(f"open({str(witness)!r}, 'w'); raise SystemExit(1)")
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}, witness


# Params


def test_all_wrong_params_are_told_at_once_and_no_kernel_starts(workplace: Workplace, tmp_path: Path) -> None:
    environ, witness = trap_kernels(tmp_path / "trap")
    lines = (workplace.root / "params/tiny.yaml").read_text().splitlines()
    wrong = ["labl: label", "draws: many", "margin: 1.5", "zebra: 1", "run: {timeot: 3}", "task: binry", "cv: true"]
    first = len(lines) + 1
    workplace.params("\n".join(line for line in [*lines, *wrong] if not line.startswith(("cv: 2", "draws: 50"))))
    first -= 2
    done = workplace.pinmill("run", "tiny", code=2, **environ)
    where = "params/tiny.yaml, line"
    assert done.stdout == ""
    assert set(done.stderr.strip().removeprefix("ParameterError: 7 problems in params/tiny.yaml: ").split("; ")) == {
        f"no notebook has parameter 'labl' ({where} {first}). Did you mean 'label'?",
        f"draws: 'many' is str, int was expected ({where} {first + 1})",
        f"margin: 1.5 is outside 0..1 ({where} {first + 2})",
        f"no notebook has parameter 'zebra' ({where} {first + 3})",
        f"no setting 'timeot' under run ({where} {first + 4}). Did you mean 'timeout'?",
        f"task: 'binry' is none of auto, binary, multiclass, regression. Did you mean 'binary'? ({where} {first + 5})",
        "cv: True is bool, int was expected (quote it: YAML reads yes, no, on and off as booleans) "
        f"({where} {first + 6})",
    }
    assert not witness.exists()
    assert not (workplace.root / "outputs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["smal"], "no workflow 'smal': params/smal.yaml does not exist. Did you mean 'small'?"),
        (["small", "--job", "trian"], "no notebook belongs to job 'trian'; the jobs here are: train"),
        (["small", "--from", "trian"], "no stage 'trian': the stages are prepare, train, evaluate, model-card. Did"),
        (["small", "--set", "powr=2"], "no notebook has parameter 'powr' (--set powr). Did you mean 'power'?"),
        (["small", "--set", "power=10"], "power: 10 is outside 1..9 (--set power)"),
        (["small", "--set", "power"], "--set power has no '='"),
        (["small", "--set", "workflow=other"], "workflow cannot be changed by --set"),
        (["small", "--set", "source=secret:NOWHERE_SET"], "the secret 'NOWHERE_SET' is not set"),
    ],
)
def test_wrong_words_are_told_with_the_next_step(small: Workplace, words: list[str], said: str) -> None:
    done = small.pinmill("run", *words, code=2)
    assert said in done.stderr
    assert not (small.root / "outputs").exists()


# What runs again


def run_from_cron(place: Workplace, *words: str) -> subprocess.CompletedProcess:
    """Run as Debian's cron does: from another folder, with a handful of variables, and without a terminal."""
    environ = {"HOME": str(place.root.parent), "LOGNAME": "ada", "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    command = [Path(sys.executable).with_name("pinmill"), "run", "small", *words]
    return subprocess.run(
        command, cwd="/", env={**environ, "PINMILL_HOME": str(place.root)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False, timeout=120, start_new_session=True,
    )  # fmt: skip


def test_a_run_from_cron_needs_no_folder_terminal_or_environment_and_its_lines_have_times(small: Workplace) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    done = run_from_cron(small)
    record = last_run(small)
    assert (done.returncode, record["status"], did(record)) == (0, "succeeded", ran(*STAGES)), done.stderr
    lines = [line.partition(" ") for line in done.stderr.splitlines()]
    assert all(before <= datetime.fromisoformat(time) <= datetime.now(UTC) for time, _, _ in lines)
    said = [re.sub(r"\d+\.\d s", "1.0 s", text) for _, _, text in lines]
    assert said == [
        text
        for number, stage in enumerate(STAGES, start=1)
        for text in (f"{stage} ({number}/4) runs: it never ran before", f"{stage} is done in 1.0 s")
    ]


def test_a_stage_from_cron_is_ended_by_its_timeout(small_trained: Workplace) -> None:
    small_trained.params("workflow: small\nsource: numbers.txt\nrun: {timeout: {train: 2}}\n", "small")
    small_trained.edit("02-train", "model = ", "time.sleep(3600)\nmodel = ")
    done = run_from_cron(small_trained)
    record = last_run(small_trained)
    assert (done.returncode, record["status"], record["warnings"]) == (4, "failed", [])
    assert "the stage took longer than 2 s (run: timeout in the params file)" in done.stderr
    assert record["error"] in done.stderr


def test_first_run_trains_promotes_and_leaves_a_card(small_trained: Workplace) -> None:
    record = last_run(small_trained)
    champion = small_trained.json("champion", "small")
    assert (record["status"], did(record)) == ("succeeded", ran(*STAGES))
    assert [stage["why"] for stage in record["stages"]] == [["it never ran before"]] * 4
    assert versions(small_trained, "model") == [record["candidate"]] == [record["champion_after"]]
    assert (champion["version"], champion["by"], champion["previous"]) == (
        record["candidate"],
        f"run {record['run']}",
        None,
    )
    folder = small_trained.root / "reports/_pages"
    pages = sorted(str(path.relative_to(folder)) for path in small_trained.root.rglob("*.html"))
    assert pages == ["index.html", f"small/{record['run']}/model-card.html", "small/model-card.html"]


def test_nothing_changed_starts_no_kernel_and_repeats_the_status(small_trained: Workplace, tmp_path: Path) -> None:
    environ, witness = trap_kernels(tmp_path / "trap")
    before = small_trained.json("champion", "small")
    done = small_trained.pinmill("run", "small", **environ)
    record = last_run(small_trained)
    assert (record["status"], did(record)) == ("succeeded", ran())
    assert "nothing changed, so nothing ran" in done.stdout
    assert small_trained.json("champion", "small") == before
    assert [len(versions(small_trained, kind)) for kind in ("data", "model", "metrics", "champion")] == [1, 1, 1, 1]
    assert not witness.exists()
    small_trained.pinmill("run", "small", "--force", code=4, **environ)  # the trap is one
    assert witness.exists()
    assert last_run(small_trained)["status"] == "failed"
    assert small_trained.json("champion", "small") == before


def test_force_runs_every_stage_and_moves_nothing_as_the_model_is_the_same(small_trained: Workplace) -> None:
    before = small_trained.json("champion", "small")
    small_trained.pinmill("run", "small", "--force")
    record = last_run(small_trained)
    assert (record["status"], did(record)) == ("succeeded", ran(*STAGES))
    assert [stage["why"][0] for stage in record["stages"]] == ["forced"] * 4
    assert record["reasons"][-1] == "The same model is the champion already."
    assert small_trained.json("champion", "small") == before


@pytest.mark.parametrize("name", ["train", "02-train"])
def test_from_runs_that_stage_and_all_after_it(small_trained: Workplace, name: str) -> None:
    small_trained.pinmill("run", "small", "--from", name)
    record = last_run(small_trained)
    assert (record["status"], did(record)) == ("succeeded", ran(*STAGES[1:]))


def test_set_runs_what_takes_the_parameter_and_taking_it_back_reuses(small_trained: Workplace) -> None:
    first = last_run(small_trained)
    done = small_trained.pinmill("run", "small", "--set", "power=2")
    record = last_run(small_trained)
    assert did(record) == ran("02-train", "03-evaluate", "04-model-card")
    assert "02-train (2/4) runs: parameter power 1 → 2" in done.stderr
    assert record["parameters"]["power"] == 2
    assert (record["champion_before"], record["champion_after"]) == (first["candidate"], record["candidate"])
    small_trained.pinmill("run", "small")
    back = last_run(small_trained)
    # The decision is made anew, as the champion is another one; data and model are those of the first run.
    assert {stage["notebook"]: stage["run"] for stage in back["stages"][:2]} == dict.fromkeys(STAGES[:2], first["run"])
    assert did(back)["03-evaluate"] == "ran"
    assert back["candidate"] == back["champion_after"] == first["candidate"]


def test_markdown_is_free_and_code_is_not(small_trained: Workplace) -> None:
    for stem in STAGES:
        small_trained.edit(stem, "Some prose.", "Other prose.")
    small_trained.pinmill("run", "small")
    assert did(last_run(small_trained)) == ran()
    small_trained.edit("02-train", "n**power", "n**power  ")
    done = small_trained.pinmill("run", "small")
    record = last_run(small_trained)
    assert did(record) == ran("02-train")  # it gave the same bytes, so what comes later stays
    assert "02-train (2/4) runs: the notebook's code" in done.stderr


def test_new_rows_in_the_source_are_noticed(small_trained: Workplace) -> None:
    first = last_run(small_trained)
    with (small_trained.root / "numbers.txt").open("a") as file:
        file.write("4\n")
    small_trained.pinmill("run", "small")
    record = last_run(small_trained)
    assert did(record) == ran(*STAGES)
    assert [stage["why"] for stage in record["stages"]] == [
        ["the source"],
        ["input data"],
        ["input data", "input model"],
        ["input data", "input metrics", "input model"],
    ]
    model = small_trained.root / "outputs/pins/small-model" / record["candidate"] / "small-model.json"
    assert json.loads(model.read_text()) == {"sum": 10}
    assert (record["champion_before"], record["champion_after"]) == (first["candidate"], record["candidate"])


def test_explain_names_every_part_that_changed(small_trained: Workplace, tmp_path: Path) -> None:
    library = tmp_path / "lib"
    shutil.copytree(LIB / "pinmill", library / "pinmill", ignore=shutil.ignore_patterns("__pycache__"))
    environ = {"PYTHONPATH": str(library)}
    done = small_trained.pinmill("run", "small", "--explain", **environ)
    first = small_trained.json("runs", "small")[-1]["run"]
    assert [line.partition(" ")[2] for line in done.stderr.splitlines()] == [
        f"{stem} is reused: nothing changed since run {first}" for stem in STAGES
    ]
    small_trained.params("workflow: small\nsource: numbers.txt\npower: 3\ncaveats: few numbers\n", "small")
    small_trained.edit("03-evaluate", "print(", "print('the model', ")
    for path in (small_trained.root / "numbers.txt", small_trained.root / "requirements.lock"):
        path.write_text(path.read_text() + "4\n")
    with (library / "pinmill/champion.py").open("a") as file:
        file.write("# changed\n")
    done = small_trained.pinmill("run", "small", "--explain", **environ)
    lock, module = "requirements.lock", "module pinmill.champion"
    inputs = ["input data", "input metrics", "input model"]
    expected = {
        "01-prepare": [lock, "the source", module],
        "02-train": [lock, "parameter power 1 → 3", "input data", module],
        "03-evaluate": ["the notebook's code", lock, "input data", "input model", module],
        "04-model-card": [lock, "parameter caveats '' → 'few numbers'", *inputs, module],
    }
    assert {stage["notebook"]: stage["why"] for stage in last_run(small_trained)["stages"]} == expected
    for number, (stem, why) in enumerate(expected.items(), start=1):
        assert f"{stem} ({number}/4) runs: {'; '.join(why)}\n" in done.stderr


def test_a_change_of_a_module_of_the_project_runs_the_stage_that_imports_it_again(small: Workplace) -> None:
    small.edit("02-train", "n**power for", "powers.raised(n) for")
    small.edit("02-train", "def hold()", "import powers\n\ndef hold()")
    module = small.root / "powers.py"
    module.write_text("def raised(n):\n    return n\n")
    small.pinmill("run", "small")
    digest = hashlib.sha256(module.read_bytes()).hexdigest()
    first = {stage["notebook"]: stage["parts"]["modules"] for stage in last_run(small)["stages"]}
    own = {stem: {n: hash for n, hash in hashes.items() if n.endswith(".py")} for stem, hashes in first.items()}
    assert own == {stem: {} for stem in STAGES} | {"02-train": {"powers.py": digest}}
    module.write_text("def raised(n):\n    return n**2\n")
    small.pinmill("run", "small")
    record = last_run(small)
    assert {stage["notebook"]: stage["why"] for stage in record["stages"]} == {
        "01-prepare": [], "02-train": ["module powers.py"], "03-evaluate": ["input model"],
        "04-model-card": ["input metrics", "input model"],
    }  # fmt: skip
    model = small.root / "outputs/pins/small-model" / record["candidate"] / "small-model.json"
    assert json.loads(model.read_text()) == {"sum": 14}  # 1 + 4 + 9


def test_another_notebook_for_a_stage_is_another_stage_of_this_workflow_only(small_trained: Workplace) -> None:
    folder = small_trained.root / "notebooks"
    text = (folder / "02-train.ipynb").read_text()
    other = text.replace("job: train\\n", "job: train\\n  stage: train\\n").replace("n**power", "n**power + 1")
    assert other.count("stage: train") == 1
    (folder / "02-train-other.ipynb").write_text(other)
    small_trained.pinmill("run", "small")
    assert did(last_run(small_trained)) == ran()
    with (small_trained.root / "params/small.yaml").open("a") as file:
        file.write("run: {notebooks: {train: notebooks/02-train-other.ipynb}}\n")
    small_trained.pinmill("run", "small")
    assert did(last_run(small_trained)) == {
        "01-prepare": "reused",
        "02-train-other": "ran",
        "03-evaluate": "ran",
        "04-model-card": "ran",
    }


def test_facts_of_a_pin_are_an_input_too(small_trained: Workplace) -> None:
    # 02-train takes the label from the facts of the data, whose bytes are the same for another label.
    small_trained.edit("01-prepare", '"data", numbers', '"data", numbers, label="other"')
    small_trained.pinmill("run", "small")
    record = last_run(small_trained)
    assert did(record) == ran("01-prepare", "02-train", "03-evaluate", "04-model-card")
    assert record["stages"][1]["why"] == ["input data"]


# A job that reads the calls and its own former page

MONITOR = """
former = run.read_former("monitoring")
before = run.board.read_json(former) if former else []
run.write_json("monitoring", [*before, run.id])
"""


def add_monitor(place: Workplace, code: str = MONITOR) -> None:
    front = "reads: [champion, calls]\n  writes: [monitoring]\n  page: monitoring"
    place.add_stage("05-monitor", "monitor", front, "least: int = 1  # least number 1..9", code)


def histories(place: Workplace) -> list[list[str]]:
    """What each monitoring pin holds, oldest first."""
    board = Board(place.root / "outputs/pins")
    return [board.read_json(board.pin("small-monitoring", v)) for v in board.versions("small-monitoring")]


def test_a_stage_that_reads_the_calls_always_runs_and_goes_on_from_its_former_pin(small_trained: Workplace) -> None:
    add_monitor(small_trained)
    runs = []
    for why in ("it never ran before", "the calls go on, so they are read every time"):
        small_trained.pinmill("run", "small", "--job", "monitor")
        record = last_run(small_trained)
        assert (record["status"], record["stages"][0]["why"], did(record)) == (
            "succeeded",
            [why],
            {"05-monitor": "ran"},
        )
        runs.append(record["run"])
    assert histories(small_trained) == [runs[:1], runs]
    first, second = versions(small_trained, "monitoring")
    board = Board(small_trained.root / "outputs/pins")
    assert board.pin("small-monitoring", first).lineage["inputs"] == []
    former = {"kind": "monitoring", "name": "small-monitoring", "version": first}
    assert board.pin("small-monitoring", second).lineage["inputs"] == [
        {**former, "sha256": board.pin("small-monitoring", first).sha256}
    ]


def test_what_was_written_by_hand_is_no_former_pin_and_a_damaged_one_is_passed_over(small_trained: Workplace) -> None:
    add_monitor(small_trained)
    runs = []
    for _ in range(2):
        small_trained.pinmill("run", "small", "--job", "monitor")
        runs.append(last_run(small_trained)["run"])
    lineage = {"run": "adhoc-20260102T030405Z-000006-00ff"}
    board = Board(small_trained.root / "outputs/pins")
    board.write_json("small-monitoring", ["by hand"], facts={}, lineage=lineage)
    second = versions(small_trained, "monitoring")[1]
    damaged = small_trained.root / "outputs/pins/small-monitoring" / second / "small-monitoring.json"
    damaged.write_text("[]")
    small_trained.pinmill("run", "small", "--job", "monitor")
    record = last_run(small_trained)
    assert board.read_json(board.pin("small-monitoring")) == [runs[0], record["run"]]
    shown = (small_trained.root / record["stages"][0]["executed"]).read_text()
    assert f"passed over: small-monitoring/{second}/{damaged.name} was changed" in shown


# The champion


def test_rejected_candidate_moves_nothing_and_its_page_is_marked_and_apart(trained: Workplace) -> None:
    before = trained.json("champion", "tiny")
    card = trained.root / "reports/_pages/tiny/model-card.html"
    page = card.read_bytes()
    text = (trained.root / "params/tiny.yaml").read_text()
    trained.params(text + "thresholds: {roc_auc: 0.999}\n")
    done = trained.pinmill("run", "tiny", code=3)
    record = last_run(trained, "tiny")
    assert (record["status"], did(record)) == ("rejected", ran("03-evaluate", "04-model-card"))
    assert trained.json("champion", "tiny") == before
    assert card.read_bytes() == page
    own = trained.root / "reports/_pages/tiny" / record["run"] / "model-card.html"
    assert record["pages"]["model-card"] == str(own.relative_to(trained.root))
    assert "rejected by the gate" in own.read_text()
    assert "rejected by the gate" not in card.read_text()
    assert any("misses its threshold: at least 0.999" in reason for reason in record["reasons"])
    assert all(reason in done.stdout for reason in record["reasons"])
    trained.pinmill("run", "tiny", code=3)  # the same again: nothing runs, and the status is repeated
    again = last_run(trained, "tiny")
    assert (again["status"], did(again), again["reasons"]) == ("rejected", ran(), record["reasons"])
    assert trained.json("champion", "tiny") == before
    assert card.read_bytes() == page


def test_rolled_back_champion_is_held_when_nothing_changed(small_trained: Workplace) -> None:
    first = last_run(small_trained)["candidate"]
    small_trained.params("workflow: small\nsource: numbers.txt\npower: 2\n", "small")
    small_trained.pinmill("run", "small")
    second = last_run(small_trained)["candidate"]
    assert small_trained.json("champion", "small")["version"] == second != first
    small_trained.pinmill("rollback", "small", "--why", "complaints")
    small_trained.pinmill("run", "small")
    record = last_run(small_trained)
    assert (record["status"], did(record), record["champion_after"]) == ("succeeded", ran(), first)
    small_trained.pinmill("run", "small", "--from", "train")  # trained again, it is the held model
    record = last_run(small_trained)
    assert (record["status"], record["champion_after"]) == ("succeeded", first)
    assert record["reasons"][-1].startswith("Held since a rollback left it")
    history = small_trained.json("champion", "small", "--history")
    assert [(entry["action"], entry["version"]) for entry in history] == [
        ("rollback", first),
        ("promote", second),
        ("promote", first),
    ]


def test_champion_moved_by_hand_while_a_run_works_is_a_conflict(small_trained: Workplace) -> None:
    first = last_run(small_trained)["candidate"]
    small_trained.params("workflow: small\nsource: numbers.txt\npower: 2\n", "small")
    small_trained.pinmill("run", "small")
    small_trained.params("workflow: small\nsource: numbers.txt\npower: 3\n", "small")
    command = [str(Path(sys.executable).with_name("pinmill")), "rollback", "small", "--why", "complaints"]
    code = f"import subprocess\nsubprocess.run({command!r}, check=True, env={small_trained.environ()!r})\n"
    small_trained.edit("04-model-card", "print(run", f"{code}print(run")  # after the decision
    done = small_trained.pinmill("run", "small", code=4)
    record = last_run(small_trained)
    assert (record["status"], small_trained.json("champion", "small")["version"]) == ("failed", first)
    assert "the champion was moved" in record["error"]
    assert record["error"] in done.stderr


# A model that was given


def upload(place: Workplace, total: int) -> str:
    """The version of a model of the small workflow that no run made."""
    lineage = {"run": f"upload-{total}", "stage": "upload", "inputs": [], "parameters": {}, "by": "ada"}
    board = Board(place.root / "outputs/pins")
    return board.write_json("small-model", {"sum": total}, facts={}, lineage=lineage).version


def fate(place: Workplace) -> tuple[str, dict, str, list[str]]:
    """Of the last run: status, what ran, the champion, and why."""
    record = last_run(place)
    assert record["champion_after"] == place.json("champion", "small")["version"]
    return record["status"], did(record), record["champion_after"], record["reasons"]


GIVEN = [
    "score 0.9, threshold 0.5",
    "The model was given, not trained by this run: test rows that it was trained on, if any, flatter it.",
]
UNTRAINED = {"01-prepare": "reused", "03-evaluate": "ran", "04-model-card": "ran"}
REUSED = dict.fromkeys(UNTRAINED, "reused")


def test_a_given_model_is_evaluated_in_place_of_training_and_becomes_champion(small_trained: Workplace) -> None:
    first = last_run(small_trained)["candidate"]
    given = upload(small_trained, 99)
    done = small_trained.pinmill("run", "small", "--model", given[-5:])
    record = last_run(small_trained)
    assert fate(small_trained) == ("succeeded", UNTRAINED, given, GIVEN)
    assert (record["model"], record["candidate"], record["champion_before"]) == (given, given, first)
    assert f"outputs/pins/small-model/{given} (before: {first})" in done.stdout
    assert small_trained.json("champion", "small")["why"] == " ".join(GIVEN)
    shown = json.loads((small_trained.root / "reports/_pages/small/.champion.json").read_text())
    assert shown == {"version": given, "pages": ["model-card"]}
    small_trained.pinmill("run", "small", "--model", given)  # again: nothing is new
    assert fate(small_trained) == ("succeeded", REUSED, given, GIVEN)
    assert len(versions(small_trained, "champion")) == 2


def test_a_run_with_nothing_new_leaves_the_champion_that_was_given(small_trained: Workplace) -> None:
    given = upload(small_trained, 99)
    small_trained.pinmill("run", "small", "--model", given)
    small_trained.pinmill("run", "small")
    record = last_run(small_trained)
    assert fate(small_trained) == ("succeeded", ran(), given, GIVEN[:1])
    assert (record["model"], record["outcome"]) == ("", "decided before, and another model is the champion since")
    assert [len(versions(small_trained, kind)) for kind in ("model", "metrics", "champion")] == [2, 2, 2]


def test_a_model_trained_on_new_data_competes_with_the_champion_that_was_given(small_trained: Workplace) -> None:
    given = upload(small_trained, 99)
    small_trained.pinmill("run", "small", "--model", given)
    (small_trained.root / "numbers.txt").write_text("1\n2\n3\n4\n")
    small_trained.pinmill("run", "small")
    record = last_run(small_trained)
    newest = versions(small_trained, "model")[-1]
    assert fate(small_trained) == ("succeeded", ran(*STAGES), newest, GIVEN[:1])
    assert record["champion_before"] == given != newest
    metrics = Board(small_trained.root / "outputs/pins").pin("small-metrics").facts
    assert (metrics["candidate"], metrics["champion"]) == (newest, given)


def test_a_rejected_model_that_was_given_changes_nothing_that_a_run_says(small_trained: Workplace) -> None:
    before = fate(small_trained)[2:]
    given = upload(small_trained, 99)
    for expected in (UNTRAINED, REUSED):
        small_trained.pinmill("run", "small", "--model", given, "--set", "score=0.25", code=3)
        why = ["score 0.25, threshold 0.5", GIVEN[1]]
        assert fate(small_trained) == ("rejected", expected, before[0], why)
    small_trained.pinmill("run", "small")
    assert fate(small_trained) == ("succeeded", ran(), *before)
    assert [model["status"] for model in small_trained.json("models", "small")] == ["champion", "rejected"]


def test_a_given_model_that_was_rolled_back_is_held(small_trained: Workplace) -> None:
    first, given = last_run(small_trained)["candidate"], upload(small_trained, 99)
    small_trained.pinmill("run", "small", "--model", given)
    small_trained.pinmill("rollback", "small", "--why", "complaints")
    again = upload(small_trained, 99)  # the same bytes
    small_trained.pinmill("run", "small", "--model", again, "--force")
    status, stages, champion, reasons = fate(small_trained)
    assert (status, set(stages.values()), champion) == ("succeeded", {"ran"}, first)
    assert reasons == [*GIVEN, "Held since a rollback left it: only pinmill promote brings it back."]
    small_trained.pinmill("run", "small")
    assert fate(small_trained) == ("succeeded", ran(), first, GIVEN[:1])


def test_a_trained_model_may_be_given_too_and_was_trained_on_this_data(small_trained: Workplace) -> None:
    first = last_run(small_trained)["candidate"]
    small_trained.pinmill("run", "small", "--set", "power=2")
    small_trained.pinmill("run", "small", "--model", first)
    assert fate(small_trained) == ("succeeded", UNTRAINED, first, GIVEN[:1])


def test_an_upload_is_never_taken_by_a_run_that_was_not_given_it(small_trained: Workplace) -> None:
    first = last_run(small_trained)["candidate"]
    upload(small_trained, 99)
    (small_trained.root / "notebooks" / "02-train.ipynb").unlink()
    small_trained.params("workflow: small\nsource: numbers.txt\n", "small")
    small_trained.pinmill("run", "small", "--force")
    assert last_run(small_trained)["candidate"] == first


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "nothing"], "ChampionError: no model has version 'nothing'"),
        (["--model", "2"], "ChampionError: 2 models have version '2'"),
        (["--model", "MODEL", "--from", "train"], "ProjectError: no stage 'train': the stages are prepare, eval"),
        (["--run-id", "../../x"], "ParameterError: --run-id '../../x' is no id of a run"),
    ],
)
def test_a_wrong_model_or_run_id_is_told_before_anything_runs(small_trained: Workplace, words, said: str) -> None:
    given, records = upload(small_trained, 99), len(small_trained.json("runs", "small"))
    words = [given if word == "MODEL" else word for word in words]
    assert said in small_trained.pinmill("run", "small", *words, code=2).stderr
    assert len(small_trained.json("runs", "small")) == records


def test_a_run_id_that_was_told_before_is_taken_once(small_trained: Workplace) -> None:
    told = "20260102T030405Z-000006-00ff"
    small_trained.pinmill("run", "small", "--run-id", told)
    path = small_trained.root / "outputs/runs/small" / told / "run.json"
    record = path.read_bytes()
    done = small_trained.pinmill("run", "small", "--run-id", told, code=4)
    assert f"RunError: there is a run {told} of small already" in done.stderr
    assert (json.loads(record)["run"], path.read_bytes()) == (told, record)


# By hand


def test_plain_papermill_runs_every_notebook_and_moves_nothing(trained: Workplace, tmp_path: Path) -> None:
    before = trained.json("champion", "tiny")
    scheduled = {kind: versions(trained, kind, "tiny") for kind in ("data", "model", "metrics")}
    papermill = Path(sys.executable).with_name("papermill")
    for stem in STAGES:
        out = tmp_path / f"{stem}.ipynb"
        command = [papermill, f"notebooks/{stem}.ipynb", out, "-f", "params/tiny.yaml", "-p", "seed", "7"]
        done = subprocess.run(
            command, cwd=trained.root, env=trained.environ(), capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr
    made = {kind: sorted(set(versions(trained, kind, "tiny")) - set(scheduled[kind])) for kind in scheduled}
    assert {kind: len(names) for kind, names in made.items()} == {"data": 1, "model": 1, "metrics": 1}
    runs = {pin["name"]: pin["run"] for pin in trained.json("pins") if pin["name"] != "tiny-champion"}
    assert all(run.startswith("adhoc-") for run in runs.values())
    assert trained.json("champion", "tiny") == before
    shown = html.unescape((tmp_path / "03-evaluate.ipynb").read_text())
    assert f"pinmill promote tiny {made['model'][0]} --why" in shown
    assert list((trained.root / "outputs/runs/tiny").glob("adhoc*")) == []
    trained.pinmill("run", "tiny")
    assert did(last_run(trained, "tiny")) == ran()
    trained.pinmill("run", "tiny", "--from", "model-card")
    record = last_run(trained, "tiny")
    assert {kind: record["stages"][number]["outputs"][kind]["version"] for number, kind in enumerate(scheduled)} == {
        kind: names[0] for kind, names in scheduled.items()
    }
    shown = (trained.root / record["stages"][3]["executed"]).read_text()
    assert not any(names[0] in shown for names in made.values())


def test_a_page_that_cannot_be_published_is_a_warning_and_the_champion_is_in_the_record(small: Workplace) -> None:
    blocked = small.root / "reports/_pages/small/model-card.html"
    blocked.mkdir(parents=True)
    small.pinmill("run", "small")
    record = last_run(small)
    assert (record["status"], record["champion_after"]) == ("succeeded", record["candidate"])
    assert small.json("champion", "small")["version"] == record["candidate"]
    assert [warning.split(":")[0] for warning in record["warnings"]] == ["pages are missing"]


def test_forced_stages_say_what_else_changed(small_trained: Workplace) -> None:
    small_trained.params("workflow: small\nsource: numbers.txt\npower: 2\n", "small")
    said = small_trained.pinmill("run", "small", "--force", "--explain").stderr
    assert "forced; parameter power 1 → 2" in said
