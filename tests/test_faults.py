"""Faults: bad sources, dying kernels and runners, full disks, damaged pins. Each ends in a truthful status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from waiting import wait_until

if TYPE_CHECKING:
    from conftest import Workplace

STAGES = ["01-prepare", "02-train", "03-evaluate", "04-model-card"]
NAMES = ["prepare", "train", "evaluate", "model-card"]
KINDS = ["data", "model", "metrics", "champion"]


def did(record: dict) -> dict[str, str]:
    """What a run did with each stage."""
    return {stage["notebook"]: stage["status"] for stage in record["stages"]}


def last_run(place: Workplace, workflow: str = "small") -> dict:
    return place.json("runs", workflow)[0]


def versions(place: Workplace, workflow: str = "small") -> dict[str, list[str]]:
    """All version folders by kind of pin, whole or not."""
    pins = place.root / "outputs/pins"
    return {kind: sorted(path.name for path in (pins / f"{workflow}-{kind}").glob("*")) for kind in KINDS}


def fail(place: Workplace, *words: str, workflow: str = "small") -> tuple[dict, str]:
    """Run, expecting failure that moves and publishes nothing; the record and what was said."""
    before = versions(place, workflow)
    done = place.pinmill("run", workflow, *words, code=4)
    record = last_run(place, workflow)
    assert record["status"] == "failed"
    assert f"{workflow}: failed" in done.stdout
    assert record["error"] in done.stderr
    assert "Traceback" not in done.stderr
    assert {kind: made for kind, made in versions(place, workflow).items() if made != before[kind]} == {}
    assert record["champion_after"] == record["champion_before"]
    return record, done.stderr


@contextmanager
def holding(place: Workplace, stage: str, *words: str, **environ: str) -> Iterator[tuple[subprocess.Popen, Path]]:
    """A run whose kernel is at work in a stage: its process, and the file that lets the kernel go on."""
    root = place.root
    (root / f"hold-{stage}").touch()
    at = root / f"at-{stage}"
    process = place.start("run", "small", *words, **environ)
    family = []
    try:
        wait_until(lambda: at.is_file() and at.read_text(), f"{stage} at work", process=process)
        (root / f"hold-{stage}").unlink()
        family = psutil.Process(process.pid).children(recursive=True)
        yield process, root / f"release-{last_run(place)['run']}"
    finally:
        for each in [process, *family]:
            try:
                each.kill()
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        process.communicate()
        at.unlink(missing_ok=True)


# Sources

SOURCES = {
    "nothing there": (
        "source: ${PINMILL_DATA:-data}/nothing.csv\naddress: https://example.org/nothing.csv\n",
        ["data/nothing.csv is not there: no file /", "https://example.org/nothing.csv", "PINMILL_DATA"],
    ),
    "empty table": ("source: empty.csv\n", ["DataError", "it has no rows"]),
    "empty file": ("source: zero.csv\n", ["SourceError", "zero.csv is empty (0 bytes)"]),
    "one class": ("source: one.csv\n", ["DataError", "only one class in 'label': 'ham' in all 2 rows"]),
    "no label column": (
        "source: tiny.csv\nlabel: lable\n",
        ["DataError", "column 'lable' is missing. Did you mean 'label'?"],
    ),
    "wrong SHA-256": (
        f"source: tiny.csv\nsha256: {'ab' * 32}\n",
        ["SourceError", "tiny.csv is not the one promised", "ab" * 32],
    ),
    "unreadable encoding": ("source: latin.csv\n", ["SourceError", "latin.csv is not UTF-8: byte 0xe9", "line 2"]),
}


@pytest.mark.parametrize("case", SOURCES)
def test_bad_source_fails_the_first_stage_and_says_what_to_do(workplace: Workplace, case: str) -> None:
    more, said = SOURCES[case]
    files = {
        "empty.csv": b"text,label\n",
        "zero.csv": b"",
        "one.csv": b"text,label\nhello,ham\nbye,ham\n",
        "latin.csv": b"text,label\ncaf\xe9,ham\nbye,spam\n",
    }
    for name, data in files.items():
        (workplace.root / name).write_bytes(data)
    workplace.params(f"workflow: tiny\ntext: text\n{more}")
    record, _ = fail(workplace, workflow="tiny")
    if case == "nothing there":  # told before a kernel starts
        assert did(record) == {}
    else:
        kept = f"outputs/runs/tiny/{record['run']}/01-prepare.ipynb"
        said = [*said, "01-prepare, cell ", f"The executed notebook is kept: {kept}"]
        assert did(record) == {"01-prepare": "failed"}
        assert (workplace.root / kept).is_file()
    assert [part for part in said if part not in record["error"]] == []
    assert versions(workplace, "tiny") == {kind: [] for kind in KINDS}


def test_source_that_comes_back_is_taken(small: Workplace) -> None:
    numbers = small.root / "numbers.txt"
    text = numbers.read_text()
    numbers.unlink()
    record, _ = fail(small)
    assert "numbers.txt is not there" in record["error"]
    numbers.write_text(text)
    small.pinmill("run", "small")
    assert did(last_run(small)) == dict.fromkeys(STAGES, "ran")


# Cells and kernels


def test_cell_that_raises_is_shown_kept_and_moves_nothing(small_trained: Workplace) -> None:
    before = small_trained.json("champion", "small")
    small_trained.edit("02-train", "model = {", "ratio = 1 / 0\nmodel = {")
    record, _ = fail(small_trained)
    kept = small_trained.root / record["stages"][1]["executed"]
    assert did(record) == {"01-prepare": "reused", "02-train": "failed"}
    assert "02-train, cell " in record["error"]
    assert "ZeroDivisionError: division by zero" in record["error"]
    assert "    ratio = 1 / 0" in record["error"]
    assert f"The executed notebook is kept: {kept.relative_to(small_trained.root)}" in record["error"]
    assert "ZeroDivisionError" in kept.read_text()
    assert small_trained.json("champion", "small") == before


ENDS = {
    "sys.exit(0)": "import sys\nsys.exit(0)",
    "os._exit(0)": "import os\nos._exit(0)",
    "SIGKILL": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("place", ["in the middle", "in the last cell"])
@pytest.mark.parametrize("way", ENDS)
def test_kernel_that_ends_early_is_a_failure(small_trained: Workplace, way: str, place: str) -> None:
    # papermill: a killed kernel leaves a notebook that says all cells completed; sys.exit(0) returns normally.
    before = small_trained.json("champion", "small")
    stage = "04-model-card" if place == "in the last cell" else "03-evaluate"
    if place == "in the last cell":
        replace_last_cell(small_trained, stage, ENDS[way])
    else:
        small_trained.edit(stage, "print(run", f"{ENDS[way]}\nprint(run")
    record, _ = fail(small_trained)
    assert did(record)[stage] == "failed"
    assert f"{stage}, cell " in record["error"]
    assert f"    {ENDS[way].splitlines()[-1]}" in record["error"]
    assert (small_trained.root / record["stages"][-1]["executed"]).is_file()
    assert small_trained.json("champion", "small") == before


def replace_last_cell(place: Workplace, stage: str, source: str) -> None:
    path = place.root / "notebooks" / f"{stage}.ipynb"
    content = json.loads(path.read_text())
    content["cells"][-1]["source"] = source
    path.write_text(json.dumps(content))


def test_kernel_killed_from_outside_while_a_cell_runs_is_a_failure(small_trained: Workplace) -> None:
    before = small_trained.json("champion", "small")
    with holding(small_trained, "train", "--force") as (process, _):
        pid = int((small_trained.root / "at-train").read_text())
        assert pid in [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        os.kill(pid, signal.SIGKILL)
        _, said = process.communicate(timeout=90)
    record = last_run(small_trained)
    assert (process.returncode, record["status"]) == (4, "failed")
    assert did(record) == {"01-prepare": "ran", "02-train": "failed"}
    assert "02-train, cell " in said
    assert "the kernel died" in said
    assert "DeadKernelError" in (small_trained.root / record["stages"][1]["executed"]).read_text()
    assert small_trained.json("champion", "small") == before


def test_kernel_killed_before_its_stage_begins_does_not_read_as_success(small_trained: Workplace) -> None:
    before = small_trained.json("champion", "small")
    with holding(small_trained, "train", "--force") as (process, release):
        busy = int((small_trained.root / "at-train").read_text())
        ahead = [c for c in psutil.Process(process.pid).children(recursive=True) if "ipykernel_launcher" in c.cmdline()]
        waiting = [child for child in ahead if child.pid != busy]
        assert len(waiting) == 1
        waiting[0].kill()
        psutil.wait_procs(waiting, timeout=10)
        release.touch()
        _, said = process.communicate(timeout=150)
    record = last_run(small_trained)
    # A fresh kernel in its place, or a failure that says so: both are true.
    if process.returncode == 0:
        assert (record["status"], did(record)) == ("succeeded", dict.fromkeys(STAGES, "ran"))
    else:
        assert (process.returncode, record["status"], did(record)["03-evaluate"]) == (4, "failed", "failed")
        assert "03-evaluate" in record["error"]
        assert "Traceback" not in said
    assert small_trained.json("champion", "small") == before


def test_hanging_cell_is_ended_by_the_timeout(small_trained: Workplace) -> None:
    small_trained.params("workflow: small\nsource: numbers.txt\nrun: {timeout: {train: 3}}\n", "small")
    small_trained.edit("02-train", "model = {", "while True: time.sleep(1)\nmodel = {")
    record, _ = fail(small_trained)
    assert did(record) == {"01-prepare": "reused", "02-train": "failed"}
    assert "the stage took longer than 3 s (run: timeout in the params file)" in record["error"]


def test_a_stage_that_is_late_before_its_first_cell_is_told_in_a_line_and_not_tried_again(small: Workplace) -> None:
    small.params("workflow: small\nsource: numbers.txt\nrun: {timeout: 0.001}\n", "small")
    record, _ = fail(small)
    late = "the stage took longer than 0.001 s (run: timeout in the params file)"
    assert record["error"].startswith(f"01-prepare, before its first cell, or after its last: {late}")
    assert record["warnings"] == []


# The runner


@pytest.mark.parametrize("number", range(4), ids=NAMES)
def test_runner_killed_in_any_stage_is_interrupted_and_the_next_run_recovers(small: Workplace, number: int) -> None:
    with holding(small, NAMES[number]) as (process, release):
        killed = last_run(small)
        assert (killed["status"], did(killed)[STAGES[number]]) == ("running", "running")
        orphan = psutil.Process(int((small.root / f"at-{NAMES[number]}").read_text()))
        process.kill()
        process.wait()
        record = last_run(small)
        assert (record["run"], record["status"]) == (killed["run"], "interrupted")
        assert "interrupted" in small.pinmill("runs", "small").stdout
        small.pinmill("champion", "small", code=2)  # there is none
        small.pinmill("run", "small")
        recovered = last_run(small)
        assert (recovered["status"], recovered["champion_after"]) == ("succeeded", recovered["candidate"])
        assert did(recovered) == {stem: "reused" if i < number else "ran" for i, stem in enumerate(STAGES)}
        settled = small.json("runs", "small")[1]
        assert (settled["run"], settled["status"], did(settled)[STAGES[number]]) == (
            killed["run"],
            "interrupted",
            "interrupted",
        )
        assert settled["ended"]
        published = versions(small)
        assert orphan.is_running()  # the kernel of the killed runner goes on now, and must not publish
        release.touch()
        if number < 3:
            refused = small.root / f"refused-{killed['run']}"
            wait_until(lambda: refused.is_file() and refused.read_text(), "the orphan's refusal")
            said = f"RunError: run {killed['run']} does not hold the lock of small.train"
            assert refused.read_text().startswith(said)
        assert versions(small) == published
        assert last_run(small)["run"] == recovered["run"]


def test_runner_killed_leaves_no_kernel_for_long(small: Workplace) -> None:
    with holding(small, "prepare") as (process, _):
        busy = int((small.root / "at-prepare").read_text())  # told to outlive its runner, so that we can watch it
        family = [child for child in psutil.Process(process.pid).children(recursive=True) if child.pid != busy]
        process.kill()
        _, alive = psutil.wait_procs(family, timeout=20)
        assert alive == []


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_signal_interrupts_a_run_and_its_kernels(small_trained: Workplace, sent: signal.Signals) -> None:
    before = small_trained.json("champion", "small")
    with holding(small_trained, "train", "--from", "train", "--set", "power=2") as (process, _):
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(sent)
        out, said = process.communicate(timeout=60)
        _, alive = psutil.wait_procs(family, timeout=10)
    record = last_run(small_trained)
    assert (process.returncode, record["status"], alive) == (130, "interrupted", [])
    assert did(record) == {"01-prepare": "reused", "02-train": "interrupted"}
    assert record["ended"]
    assert "interrupted. The next run takes up what is finished" in said
    assert "Traceback" not in out + said
    assert small_trained.json("champion", "small") == before


def test_runner_killed_while_it_renders_the_page_has_moved_nothing(small_trained: Workplace) -> None:
    # The page takes seconds; until it stands, the run is not over, and an interrupted run moves nothing.
    before = small_trained.json("champion", "small")
    site = small_trained.root / "site"
    site.mkdir()
    witness = site / "rendering"
    hook = f"""import sys, time
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == "pinmill.report":
            open({str(witness)!r}, "w").close()
            time.sleep(60)
sys.meta_path.insert(0, Hook())
"""
    (site / "sitecustomize.py").write_text(hook)
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = small_trained.start("run", "small", "--set", "power=2", PYTHONPATH=path)
    try:
        wait_until(witness.exists, "the page being rendered", process=process)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    record = last_run(small_trained)
    assert (process.returncode, record["status"]) == (130, "interrupted")
    assert "interrupted. The next run takes up what is finished" in said
    assert small_trained.json("champion", "small") == before


def test_page_that_cannot_be_rendered_does_not_block_the_champion(small_trained: Workplace) -> None:
    page = small_trained.root / "reports/_pages/small"
    for path in page.rglob("*"):
        if path.is_file():
            path.unlink()
    for path in page.iterdir():
        path.rmdir()
    page.rmdir()
    page.write_text("a file where a folder is needed")
    done = small_trained.pinmill("run", "small", "--set", "power=2")
    record = last_run(small_trained)
    assert (record["status"], record["champion_after"]) == ("succeeded", record["candidate"])
    assert "pages are missing" in record["warnings"][0]
    assert f"warning: {record['warnings'][0]}" in done.stderr


def test_two_runs_at_once_are_one_run_and_one_skipped(small_trained: Workplace) -> None:
    with holding(small_trained, "train", "--force") as (process, release):
        working = last_run(small_trained)["run"]
        second = small_trained.pinmill("run", "small", code=75)
        skipped, first = small_trained.json("runs", "small")[:2]
        assert (first["run"], first["status"], skipped["status"]) == (working, "running", "skipped")
        assert skipped["stages"] == []
        for said in (second.stderr, skipped["error"]):
            assert f"run {working} (process {process.pid}) of small.train is at work" in said
        release.touch()
        process.communicate(timeout=90)
    assert process.returncode == 0
    assert [run["status"] for run in small_trained.json("runs", "small")] == ["skipped", "succeeded", "succeeded"]
    small_trained.pinmill("run", "small")
    assert did(last_run(small_trained)) == dict.fromkeys(STAGES, "reused")


# The board


def test_full_disk_leaves_no_half_pin_and_the_next_run_succeeds(small: Workplace, small_disk: Path) -> None:
    board = {"PINMILL_BOARD": str(small_disk / "pins")}
    small.edit("02-train", "model = {", "model = {'more': 'x' * 400_000, ")
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 2_000_000 - 200_000)
    done = small.pinmill("run", "small", code=4, **board)
    record = last_run(small)
    assert (record["status"], did(record)) == ("failed", {"01-prepare": "ran", "02-train": "failed"})
    for said in (record["error"], done.stderr):
        assert "could not write small-model" in said
        assert "No space left on device" in said
        assert "then write again" in said
    assert sorted(path.name for path in (small_disk / "pins").iterdir()) == ["small-data"]
    assert "1 versions checked, 0 damaged" in small.pinmill("pins", "verify", **board).stdout
    filler.unlink()
    small.pinmill("run", "small", **board)
    record = last_run(small)
    assert (record["status"], did(record)) == ("succeeded", {**dict.fromkeys(STAGES, "ran"), "01-prepare": "reused"})
    assert "4 versions checked, 0 damaged" in small.pinmill("pins", "verify", **board).stdout


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("which", ["the file", "data.txt"])
@pytest.mark.parametrize("kind", ["data", "model", "metrics"])
def test_flipped_byte_is_found_and_the_stage_runs_again(small_trained: Workplace, kind: str, which: str) -> None:
    champion = small_trained.json("champion", "small")["sha256"]
    (version,) = versions(small_trained)[kind]
    folder = small_trained.root / "outputs/pins" / f"small-{kind}" / version
    flip(folder / (f"small-{kind}.json" if which == "the file" else "data.txt"))
    told = small_trained.pinmill("pins", "verify", code=1).stdout
    assert "4 versions checked, 1 damaged" in told
    assert f"small-{kind} {version}: " in told
    small_trained.pinmill("run", "small")
    record = last_run(small_trained)
    stem = {"data": "01-prepare", "model": "02-train", "metrics": "03-evaluate"}[kind]
    done = {stage["notebook"]: stage for stage in record["stages"]}
    assert (record["status"], done[stem]["status"]) == ("succeeded", "ran")
    assert f"its {kind} pin does not verify: small-{kind}/{version}/" in done[stem]["why"][0]
    assert all(done[earlier]["status"] == "reused" for earlier in STAGES[: STAGES.index(stem)])
    rebuilt = done[stem]["outputs"][kind]
    assert rebuilt["version"] != version
    assert small_trained.json("champion", "small")["sha256"] == champion
    small_trained.pinmill("run", "small")
    assert did(last_run(small_trained)) == dict.fromkeys(STAGES, "reused")


def test_champion_of_a_damaged_version_is_served_from_the_one_made_again(small_trained: Workplace) -> None:
    (version,) = versions(small_trained)["model"]
    flip(small_trained.root / "outputs/pins/small-model" / version / "small-model.json")
    small_trained.pinmill("run", "small")
    champion = small_trained.json("champion", "small")["version"]
    told = json.loads(small_trained.pinmill("pins", "verify", "--json", code=1).stdout)
    damaged = [pin["version"] for pin in told["damaged"]]
    assert damaged == [version]
    assert champion not in damaged


def test_flipped_byte_in_the_champion_record_is_a_failed_run(small_trained: Workplace) -> None:
    (version,) = versions(small_trained)["champion"]
    flip(small_trained.root / "outputs/pins/small-champion" / version / "small-champion.json")
    assert f"small-champion {version}" in small_trained.pinmill("pins", "verify", code=1).stdout
    done = small_trained.pinmill("run", "small", code=None)
    assert done.returncode in (1, 4)
    assert "small-champion.json was changed" in done.stderr
    assert "Traceback" not in done.stderr
    assert last_run(small_trained)["status"] in ("succeeded", "failed")
    assert len(versions(small_trained)["champion"]) == 1


def test_version_folder_without_metadata_is_no_version(small_trained: Workplace) -> None:
    before = {pin["name"]: pin["version"] for pin in small_trained.json("pins")}
    for kind in KINDS:
        half = small_trained.root / "outputs/pins" / f"small-{kind}" / "20991231T235959Z-00000"
        half.mkdir()
        (half / f"small-{kind}.json").write_text("{}")
    assert {pin["name"]: pin["version"] for pin in small_trained.json("pins")} == before
    assert "4 versions checked, 0 damaged" in small_trained.pinmill("pins", "verify").stdout
    small_trained.pinmill("run", "small")
    assert did(last_run(small_trained)) == dict.fromkeys(STAGES, "reused")
    small_trained.pinmill("run", "small", "--set", "power=2")
    record = last_run(small_trained)
    assert (record["status"], record["champion_after"]) == ("succeeded", record["candidate"])
    assert small_trained.json("champion", "small")["version"] == record["candidate"] != before["small-model"]


def test_damaged_training_data_of_the_champion_is_told_and_moves_nothing(trained: Workplace) -> None:
    # Which rows the champion was trained on is then unknown, and so is whether a comparison with it is fair.
    before = trained.json("champion", "tiny")
    (version,) = versions(trained, "tiny")["data"]
    flip(trained.root / "outputs/pins/tiny-data" / version / "tiny-data.parquet")
    done = trained.pinmill("run", "tiny", "--set", "seed=7", "--set", "split=random", code=4)
    record = last_run(trained, "tiny")
    assert (record["status"], did(record)["03-evaluate"]) == ("failed", "failed")
    assert f"IntegrityError: tiny-data/{version}/tiny-data.parquet was changed" in done.stderr
    assert trained.json("champion", "tiny") == before
