"""The record of each run: written whole, read as it is true now."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from pinmill.errors import RunError
from pinmill.runs import (
    EXIT_CODES,
    RunRecord,
    StageRecord,
    last_finished,
    make_run_id,
    read_record,
    read_records,
    settle_interrupted,
    write_json,
    write_record,
)

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
DONE = StageRecord(
    "prepare", "01-prepare", "ran", why=("forced", "the source"), fingerprint="f", parts={"code": "c"},
    outputs={"data": {"name": "w-data", "version": "v1", "sha256": "s1"}}, seconds=1.25, executed="x.ipynb", run="r1",
)  # fmt: skip
TRAIN = StageRecord("train", "02-train", "running")
RECORD = RunRecord(
    "r1", "w", "train", "succeeded", started="2024-05-01T11:00:00+00:00", ended="2024-05-01T11:01:00+00:00",
    parameters={"cv": 3}, stages=(DONE,), candidate="m1", reasons=("better",), pages={"card": "p"}, warnings=("a",),
)  # fmt: skip


def dead_process() -> tuple[int, float]:
    """Number and start time of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    born = psutil.Process(process.pid).create_time()
    process.communicate()
    return process.pid, born


def alive() -> dict[str, object]:
    return {"pid": os.getpid(), "born": psutil.Process().create_time()}


def write(folder: Path, *records: RunRecord) -> None:
    for record in records:
        write_record(folder, record)


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path, RECORD)
    assert read_record(tmp_path, "r1") == RECORD


def test_exit_codes_are_those_that_were_promised() -> None:
    assert EXIT_CODES == {"succeeded": 0, "rejected": 3, "failed": 4, "interrupted": 130, "skipped": 75}


def test_a_run_whose_process_is_gone_is_told_as_interrupted(tmp_path: Path) -> None:
    pid, born = dead_process()
    write(tmp_path, replace(RECORD, status="running", ended="", pid=pid, born=born))
    found = read_record(tmp_path, "r1")
    assert (found.status, found.error) == ("interrupted", "its process ended without a word")


def test_a_run_whose_process_lives_is_running(tmp_path: Path) -> None:
    write(tmp_path, replace(RECORD, status="running", ended="", **alive()))
    assert read_record(tmp_path, "r1").status == "running"


def test_a_missing_or_damaged_record_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "spam"
    with pytest.raises(RunError, match=r"no run 'r9' of spam. See: pinmill runs spam"):
        read_record(folder, "r9")
    for text in ("{", "[]", '{"stages": []}', '{"stages": 3, "reasons": [], "warnings": []}'):
        (folder / "r9").mkdir(parents=True, exist_ok=True)
        (folder / "r9" / "run.json").write_text(text)
        record = read_record(folder, "r9")  # told, so that one damaged file does not hide the other runs
        assert (record.run, record.status) == ("r9", "unreadable")
        assert record.error.startswith("its record run.json is damaged: ")


def test_runs_are_listed_newest_first_and_only_those_with_a_record(tmp_path: Path) -> None:
    for run in ("20240501T120000Z-bbbbbb", "20240501T120001Z-aaaaaa", "20231231T235959Z-ffffff"):
        write(tmp_path, replace(RECORD, run=run))
    (tmp_path / "stages" / "prepare").mkdir(parents=True)
    (tmp_path / "20250101T000000Z-empty").mkdir()
    expected = ["20240501T120001Z-aaaaaa", "20240501T120000Z-bbbbbb", "20231231T235959Z-ffffff"]
    assert [record.run for record in read_records(tmp_path)] == expected
    assert list(read_records(tmp_path / "nothing")) == []


def test_the_last_finished_run_is_one_that_decided(tmp_path: Path) -> None:
    statuses = ["succeeded", "rejected", "failed", "interrupted", "skipped", "running"]
    write(tmp_path, *(replace(RECORD, run=f"r{n}", status=status, **alive()) for n, status in enumerate(statuses)))
    write(tmp_path, replace(RECORD, run="r7", job="monitor"))
    assert last_finished(tmp_path, "train").run == "r1"
    assert last_finished(tmp_path, "monitor").run == "r7"
    assert last_finished(tmp_path, "score") is None


def test_a_run_that_nobody_works_on_is_written_down_as_interrupted(tmp_path: Path) -> None:
    pid, born = dead_process()
    dead = replace(RECORD, status="running", ended="", pid=pid, born=born, stages=(DONE, TRAIN))
    write(tmp_path, replace(RECORD, run="r0"), dead, replace(dead, run="r2"), replace(dead, run="r3", job="monitor"),
          replace(RECORD, run="r4", status="skipped"))  # fmt: skip
    settle_interrupted(tmp_path, "train", NOW)
    for run in ("r1", "r2"):
        found = json.loads((tmp_path / run / "run.json").read_text())
        assert (found["status"], found["ended"]) == ("interrupted", "2024-05-01T12:00:00+00:00")
        assert [stage["status"] for stage in found["stages"]] == ["ran", "interrupted"]
    assert json.loads((tmp_path / "r0" / "run.json").read_text())["status"] == "succeeded"
    assert json.loads((tmp_path / "r3" / "run.json").read_text())["status"] == "running"  # another job's to settle


def test_outputs_are_found_by_kind_and_stages_by_name() -> None:
    assert RECORD.output("data") == {"name": "w-data", "version": "v1", "sha256": "s1"}
    assert RECORD.output("model") is None
    assert (RECORD.stage("prepare"), RECORD.stage("train")) == (DONE, None)


def test_a_stage_is_replaced_by_name_and_the_record_before_stays() -> None:
    later = replace(TRAIN, status="ran")
    record = RECORD.with_stage(TRAIN).with_stage(later)
    assert record.stages == (DONE, later)
    assert RECORD.stages == (DONE,)


def test_run_ids_sort_by_time_and_are_not_given_twice() -> None:
    ids = {make_run_id(NOW) for _ in range(50)}
    assert len(ids) == 50
    assert all(re.fullmatch(r"20240501T120000Z-000000-[0-9a-f]{4}", run) for run in ids)
    # two short runs within one second sort by time, not by chance
    assert make_run_id(NOW.replace(microsecond=1)) > max(ids)


READ = """
import json, sys
from pathlib import Path
path = Path(sys.argv[1])
print("ready", flush=True)
seen = set()
while not path.with_name("stop").exists():
    seen.add(len(set(json.loads(path.read_text()))))
print(seen)
"""


def test_a_reader_sees_the_old_or_the_new_file_and_never_a_part(tmp_path: Path) -> None:
    path = tmp_path / "x" / "a.json"
    write_json(path, [0] * 20_000)
    with subprocess.Popen([sys.executable, "-c", READ, str(path)], stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout.readline() == "ready\n"
        for value in range(100):
            write_json(path, [value] * 20_000)
        path.with_name("stop").touch()
        assert reader.communicate()[0] == "{1}\n"  # each time one whole list of one value
    assert reader.returncode == 0
    path.with_name("stop").unlink()
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    circle: list = []
    circle.append(circle)
    with pytest.raises(ValueError, match="Circular"):
        write_json(path, circle)
    assert json.loads(path.read_text()) == {"a": 1}
