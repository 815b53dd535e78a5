"""`pinmill doctor`: each fault is made for real, found, named with its fix, and hides no other finding."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from pinmill import doctor, operation
from pinmill.backup import make_backup
from pinmill.board import Board
from pinmill.crontab import name_command, render_block
from pinmill.doctor import Finding, compare_lock, examine
from pinmill.firing import firing_file
from pinmill.incidents import Incident
from pinmill.notify import announce
from pinmill.project import Project, open_project
from pinmill.runs import RunRecord, write_json, write_record
from pinmill.schedule import read_schedule
from pinmill.tokens import create_token, revoke_token

if TYPE_CHECKING:
    from conftest import Workplace

CHECKS = ["packages", "kernel", "quarto", "board", "pins", "store", "params", "disk", "clock", "git"]
CHECKS += ["schedule", "runs", "tokens", "backup", "incidents"]
NOW = datetime.now(UTC)
PASSWORD = "hunter2-hunter2"


@pytest.fixture
def project(small: Workplace, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that has nothing wrong, seen from an environment without any setting of ours."""
    for name in ("PINMILL_BOARD", "PINMILL_STORE", "PINMILL_HOME"):
        monkeypatch.delenv(name, raising=False)
    lock(small.root, f"numpy=={metadata.version('numpy')}")
    return open_project(small.root)


def lock(root: Path, *lines: str) -> None:
    (root / "requirements.lock").write_text("".join(f"{line}\n" for line in lines))


def with_settings(project: Project, **settings: str) -> Project:
    return Project(project.root, {**project.settings, **settings})


def write_pin(project: Project, clock=lambda: NOW) -> Path:
    """A pin `small-data` of one number; returns its file."""
    pin = Board(project.board.url, clock=clock).write_json("small-data", 1, facts={}, lineage={})
    return Path(project.board.url) / "small-data" / pin.version / "small-data.json"


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-C", root, *words], check=True, capture_output=True)


def test_every_check_is_shown_and_a_warning_is_no_failure(small_trained: Workplace) -> None:
    lock(small_trained.root, f"numpy=={metadata.version('numpy')}")
    found = small_trained.json("doctor")
    assert [finding["check"] for finding in found] == CHECKS
    assert {finding["check"]: finding["level"] for finding in found if finding["level"] == "problem"} == {}
    shown = small_trained.pinmill("doctor").stdout
    assert "ok       kernel      kernel python3 starts, computes, and is of this environment\n" in shown
    assert "warning  git         there is no repository, so pins record no commit\n" in shown
    assert f"{'':20} → git init\n" in shown
    assert "ok       runs        small train succeeded 20" in shown
    assert "warning  backup      there is none\n" in shown


def test_a_problem_ends_with_1_and_one_fault_hides_no_other(small_trained: Workplace) -> None:
    lock(small_trained.root, "numpy==0.1")
    small_trained.params("workflow: small\nsource: numbers.txt\npowr: 2\n", "small")
    (file,) = (small_trained.root / "outputs/pins/small-data").glob("*/small-data.json")
    file.write_bytes(file.read_bytes().replace(b"1", b"7"))
    (small_trained.root / "ipykernel_launcher.py").write_text("raise SystemExit('broken')\n")
    done = small_trained.pinmill("doctor", code=1)
    problems = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("problem")]
    assert problems == ["packages", "kernel", "pins", "params"]


def test_outside_a_project_it_is_wrong_use(workplace: Workplace, tmp_path: Path) -> None:
    shutil.rmtree(workplace.root / "params")
    assert "no project at" in workplace.pinmill("doctor", code=2).stderr


def test_a_check_that_crashes_is_a_problem_beside_the_others(project: Project) -> None:
    project.lock_file.write_text("this is no requirement ==\n")
    found = {finding.check: finding for finding in examine(project, now=NOW)}
    assert list(found) == CHECKS
    assert found["packages"].level == "problem"
    assert found["packages"].found.startswith("InvalidRequirement: ")
    assert found["clock"].level == "ok"


def test_a_lock_is_compared_by_name_version_and_marker() -> None:
    text = """\
# made by hand
A_b==1.0 \\
    --hash=sha256:00 \\
    --hash=sha256:11
gone==2.0 ; python_version >= '3' \\
    --hash=sha256:22
old==3.0+local
pre==4.0rc1  # a comment
windows==5.0 ; sys_platform == 'win32'
"""
    installed = {"a-b": "1.0.0", "old": "2.9", "pre": "4.0rc1"}
    assert compare_lock(text, installed) == (4, ["gone is absent, not ==2.0", "old is 2.9, not ==3.0+local"])


def test_packages_that_differ_are_counted_and_the_first_are_named(project: Project) -> None:
    lock(project.root, *(f"absent-{n}==1" for n in range(6)), f"numpy=={metadata.version('numpy')}")
    first = [f"absent-{n} is absent, not ==1" for n in range(4)]
    said = "; ".join(["6 of 7 packages are not as in requirements.lock", *first])
    assert doctor.packages(project) == Finding(
        "problem", f"{said}; …", "pip install --require-hashes -r requirements.lock"
    )
    lock(project.root, f"numpy=={metadata.version('numpy')}")
    assert doctor.packages(project).level == "ok"


@pytest.mark.parametrize(
    ("launcher", "seconds", "said"),
    [("raise SystemExit('broken')", 60, "Kernel died"), ("import time; time.sleep(300)", 1, "didn't respond in 1 sec")],
)
def test_a_kernel_that_dies_or_hangs_is_a_problem(
    project: Project, monkeypatch: pytest.MonkeyPatch, launcher: str, seconds: int, said: str
) -> None:
    (project.root / "ipykernel_launcher.py").write_text(f"{launcher}\n")  # python -m looks in the kernel's folder first
    monkeypatch.setattr(doctor, "KERNEL_SECONDS", seconds)
    found = doctor.kernel(project)
    assert (found.level, found.found.partition(":")[0]) == ("problem", "a kernel does not start")
    assert said in found.found


def test_the_kernelspec_that_jupyterlab_takes_is_that_of_this_environment(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / f"{'long-' * 20}name"  # which a kernel that prints a tuple would break
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", other], check=True)
    (site,) = other.glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(f"{Path(pytest.__file__).parent.parent}\n")
    programs = [sys.executable, str(other / "bin/python"), "/nowhere/python"]
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    found = []
    for program in programs:
        spec = {"argv": [program, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "language": "python"}
        (folder / "kernel.json").write_text(json.dumps({**spec, "display_name": "x"}))
        finding = doctor.kernel(project)
        found.append((finding.level, finding.found))
    assert found == [
        ("ok", "kernel python3 starts, computes, and is of this environment"),
        ("warning", f"kernel python3 is of another environment: '{other}'"),
        ("problem", "a kernel does not start: [Errno 2] No such file or directory: '/nowhere/python'"),
    ]


def test_quarto_is_found_on_the_path_or_missed_with_a_warning(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    project = with_settings(project, PATH=str(tmp_path))
    assert doctor.quarto(project).level == "warning"
    (tmp_path / "quarto").write_text("#!/bin/sh\n")
    (tmp_path / "quarto").chmod(0o755)
    assert doctor.quarto(project) == Finding("ok", str(tmp_path / "quarto"))


def test_a_read_only_board_is_a_problem(project: Project, small_disk: Path) -> None:
    there = with_settings(project, PINMILL_BOARD=str(small_disk / "pins"))
    write_pin(there)
    assert doctor.board(there) == Finding("ok", f"1 pins at {small_disk / 'pins'}, writable")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    found = doctor.board(there)
    assert (found.level, f"{small_disk / 'pins'} cannot be written" in found.found) == ("problem", True)


def test_a_board_that_is_a_file_is_a_problem(project: Project) -> None:
    project.outputs.mkdir()
    (project.outputs / "pins").write_text("no folder")
    assert doctor.board(project).level == "problem"


def test_staging_on_another_file_system_is_a_problem(project: Project, small_disk: Path) -> None:
    found = doctor.board(with_settings(project, PINMILL_BOARD=str(small_disk)))
    assert (found.level, "are two file systems" in found.found) == ("problem", True)
    assert doctor.board(with_settings(project, PINMILL_BOARD=str(small_disk / "pins"))).level == "ok"


def test_a_board_that_is_not_there_yet_is_fine(project: Project) -> None:
    assert doctor.board(project).level == doctor.pins(project).level == doctor.clock(project, NOW).level == "ok"
    assert not project.outputs.exists()


def test_the_newest_version_of_a_pin_is_read_and_compared(project: Project) -> None:
    older, newest = write_pin(project), write_pin(project)
    older.write_text("2")
    assert doctor.pins(project).level == "ok"
    newest.write_text("2")
    found = doctor.pins(project)
    assert (found.level, newest.parent.name in found.found) == ("problem", True)


def test_a_pin_from_the_future_is_a_problem(project: Project) -> None:
    file = write_pin(project, clock=lambda: NOW + timedelta(hours=2))
    assert doctor.clock(project, NOW) == Finding(
        "problem",
        f"small-data {file.parent.name} is later than now, {NOW:%Y%m%dT%H%M%SZ}",
        "set the clock of this machine, and of those that share the board",
    )
    assert doctor.clock(project, NOW + timedelta(hours=2)).level == "ok"


def test_a_clock_before_the_newest_run_is_a_problem(small_trained_once: Workplace) -> None:
    trained = open_project(small_trained_once.root, {})
    found = doctor.clock(trained, NOW - timedelta(days=1))
    assert (found.level, "run 20" in found.found) == ("problem", True)
    assert doctor.clock(trained, datetime.now(UTC)).level == "ok"


def test_a_store_of_a_newer_pinmill_is_a_problem(project: Project) -> None:
    assert doctor.store(project).found.startswith("not there yet")
    with project.store.writing():
        pass
    assert doctor.store(project).found == f"version 3 at {project.store.where}"
    with sqlite3.connect(project.outputs / "pinmill.sqlite") as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    connection.close()
    found = {finding.check: finding for finding in examine(project, now=NOW)}["store"]
    assert (found.level, "has version 99" in found.found) == ("problem", True)


def test_each_params_file_is_checked(project: Project) -> None:
    assert doctor.params(project) == Finding("ok", "workflows small")
    (project.root / "params" / "other.yaml").write_text("workflow: other\nsource: numbers.txt\npowr: 2\n")
    found = doctor.params(project)
    assert (found.level, "Did you mean 'power'?" in found.found) == ("problem", True)


def test_a_small_disk_is_a_warning(project: Project, small_disk: Path) -> None:
    assert doctor.disk(project).level == "ok"
    (project.root / "outputs").symlink_to(small_disk)
    assert doctor.disk(project) == Finding(
        "warning", "0.0 GB of 0.0 GB are free", f"make room on the disk of {project.outputs}"
    )


def test_git_tells_the_commit_and_what_it_would_take(project: Project) -> None:
    assert doctor.git(project).level == "warning"
    git(project.root, "init", "-q")
    assert doctor.git(project).found == "; ".join(f"git would take {name}" for name in doctor.IGNORED)
    (project.root / ".gitignore").write_text("".join(f"{name}\n" for name in doctor.IGNORED))
    git(project.root, "add", "-A")
    git(project.root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first")
    head = subprocess.run(["git", "-C", project.root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    commit = head.stdout.strip()
    assert doctor.git(project) == Finding("ok", f"commit {commit}")
    (project.root / "new.txt").write_text("new")
    assert doctor.git(project) == Finding("ok", f"commit {commit}, with changes since")


# --- in operation

CRONTAB = """#!/bin/sh
here=$(dirname "$0")
cat "$here/lines" 2> "$here/said" || { echo "no crontab for me" >&2; exit 1; }
"""


@pytest.fixture
def cron(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The lines of a crontab that is not this machine's own; this very process stands for the daemon."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/crontab").write_text(CRONTAB)
    (tmp_path / "bin/crontab").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(operation, "CRONS", {psutil.Process().name()})
    (project.root / "schedule.cron").write_text("0 4 * * 1 pinmill run small\n")
    return tmp_path / "bin/lines"


def install(project: Project) -> str:
    """The block of this project, as `pinmill schedule install` writes it."""
    return render_block(read_schedule(project), project.root, name_command())


def test_the_crontab_is_compared_with_the_schedule_and_the_daemon_looked_for(
    project: Project, cron: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fix = "pinmill schedule install; service cron start"
    none = Finding("warning", "your crontab has none of the 1 jobs of schedule.cron", fix)
    assert operation.schedule(project, NOW) == none
    cron.write_text("# mine\n" + install(project))
    good = Finding("ok", "the 1 jobs of schedule.cron are installed, and cron is running")
    assert operation.schedule(project, NOW) == good
    monkeypatch.setattr(operation, "CRONS", {"no such daemon"})
    assert operation.schedule(project, NOW) == Finding("warning", "no cron daemon is running", fix)
    (project.root / "schedule.cron").write_text("0 5 * * 1 pinmill run small\n")
    said = "your crontab has other lines than the 1 jobs of schedule.cron; no cron daemon is running"
    assert operation.schedule(project, NOW) == Finding("warning", said, fix)
    (project.root / "schedule.cron").write_text("0 5 * * 1 pinmill rnu small\n")
    found = operation.schedule(project, NOW)
    assert (found.level, found.fix) == ("warning", "pinmill schedule check")
    assert "line 1: pinmill rnu small: No such command 'rnu'" in found.found
    (project.root / "schedule.cron").write_text("# nothing\n")
    assert operation.schedule(project, NOW) == Finding("ok", "schedule.cron has no jobs")
    (project.root / "schedule.cron").unlink()
    assert operation.schedule(project, NOW).found == "there is no schedule.cron, so nothing runs by itself"


def test_without_a_crontab_program_there_is_a_warning(
    project: Project, cron: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = operation.schedule(project, NOW)
    assert (found.level, found.found.partition(" here.")[0]) == ("warning", "there is no program `crontab`")


def test_the_last_run_of_each_job_is_told_and_one_of_the_schedule_that_never_ran(project: Project) -> None:
    assert operation.runs(project, NOW) == Finding("ok", "nothing has run yet")
    folder, days = project.runs_folder("small"), ("2026-05-01T04:00:00", "2026-05-02T04:00:00", "2026-05-03T04:00:00")
    ids = [f"202605{n:02}T040000Z-000000-abcd" for n in (1, 2, 3)]
    write_record(folder, RunRecord(ids[0], "small", "train", "failed", days[0], error="ValueError: broken\nmore"))
    failed = Finding(
        "warning", "small train: failed 2026-05-01T04:00, ValueError: broken", "pinmill runs, and outputs/logs"
    )
    assert operation.runs(project, NOW) == failed
    write_record(folder, RunRecord(ids[2], "small", "train", "skipped", days[2]))
    assert operation.runs(project, NOW) == failed
    write_record(folder, RunRecord(ids[1], "small", "train", "rejected", days[1]))
    assert operation.runs(project, NOW) == Finding("ok", "small train rejected 2026-05-02T04:00")
    (project.root / "schedule.cron").write_text("0 4 * * 1 pinmill run small\n0 5 * * 1 pinmill pins prune\n")
    assert operation.runs(project, NOW).found == "pinmill pins prune: never ran"
    fired = {"words": ["pins", "prune"], "run": "r", "started": days[1], "code": 1, "ended": days[1]}
    write_json(firing_file(project, ["pins", "prune"]), fired)
    assert operation.runs(project, NOW).found == "pinmill pins prune: failed 2026-05-02T04:00"


def test_tokens_that_expire_within_two_weeks_are_named_and_nothing_else_of_them(project: Project) -> None:
    assert operation.tokens(project, NOW) == Finding("ok", "there are none")
    for name, days in (("late", 15), ("soon", 13), ("over", 1), ("gone", 1)):
        create_token(project.store, name, "scorer", expires=timedelta(days=days), by="me", when=NOW)
    revoke_token(project.store, "gone", by="me", when=NOW)
    fix = "pinmill token create another, hand it over, then: pinmill token revoke NAME"
    soon, over = (f"{NOW + timedelta(days=days):%Y-%m-%dT%H:%M}" for days in (13, 1))
    assert operation.tokens(project, NOW) == Finding("warning", f"soon expires {soon}; over expires {over}", fix)
    later = operation.tokens(project, NOW + timedelta(days=2))
    assert later.found.endswith(f"over expired {over}")
    for name in ("soon", "over"):
        revoke_token(project.store, name, by="me", when=NOW)
    assert operation.tokens(project, NOW) == Finding("ok", "1, none of which expires within 14 days")


def test_a_backup_that_is_absent_old_gone_or_changed_is_told(project: Project, tmp_path: Path) -> None:
    fix, file = "pinmill backup FILE, on another disk, from schedule.cron", tmp_path / "b"
    assert operation.backup(project, NOW) == Finding("warning", "there is none", fix)
    size = make_backup(project, file, force=False, now=NOW)["size"]
    good = Finding("ok", f"{file} of {NOW.isoformat()[:16]}, {size:,} bytes")
    assert operation.backup(project, NOW + timedelta(days=7)) == good
    assert operation.backup(project, NOW + timedelta(days=9)) == Finding("warning", f"{file} is 9 days old", fix)
    file.write_bytes(b"1234")
    changed = f"{file} is not as it was written: 4 bytes, not {size:,}"
    assert operation.backup(project, NOW) == Finding("warning", changed, fix)
    file.unlink()
    assert operation.backup(project, NOW) == Finding("warning", f"{file} is gone, or on another machine by now", fix)


def test_incidents_that_are_not_over_are_told(project: Project) -> None:
    assert operation.incidents(project, NOW) == Finding("ok", "none is open")
    found = [Incident("failed", "small", "train", "key", "02-train failed", "text")]
    assert announce(project, "small", "train", found, urls=[], hidden=[]) == []
    told = operation.incidents(project, NOW)
    assert (told.level, told.found[:38]) == ("warning", "small train: 02-train failed, since 20")
    announce(project, "small", "train", [], urls=[], hidden=[])
    assert operation.incidents(project, NOW) == Finding("ok", "none is open")
    (project.outputs / "incidents/small.train.json").write_text("{")
    assert operation.incidents(project, NOW).level == "warning"


def test_no_secret_is_shown_whatever_fails(small: Workplace) -> None:
    lock(small.root, f"numpy=={metadata.version('numpy')}")
    (small.root / ".env").write_text(f"DB_URL=postgresql://u:{PASSWORD}@127.0.0.1:1/db\nTOKEN=tok-{PASSWORD}\n")
    small.params(f"workflow: small\nsource: secret:DB_URL\npower: secret:TOKEN\ntok-{PASSWORD}: 1\n", "small")
    board, store = f"nothing://u:{PASSWORD}@host/x", f"postgresql://u:{PASSWORD}@127.0.0.1:1/db"
    error = f"no connection to postgresql://u:{PASSWORD}@127.0.0.1:1/db"
    folder, run = small.root / "outputs/runs/small", "20260501T040000Z-000000-abcd"
    write_record(folder, RunRecord(run, "small", "train", "failed", "2026-05-01T04:00:00", error=error))
    done = small.pinmill("doctor", "--json", code=1, PINMILL_BOARD=board, PINMILL_STORE=store)
    assert [text for text in (done.stdout, done.stderr) if PASSWORD in text] == []
    assert done.stdout.count('"problem"') >= 3
