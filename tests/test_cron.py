"""The schedule in a real crontab, and Debian's real cron that fires it. All that touches the user's crontab is here."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from conftest import miss
from pinmill.crontab import installed_file
from pinmill.firing import Firing, firing_file, read_firing
from pinmill.project import Project
from pinmill.runs import write_json
from waiting import wait_until

if TYPE_CHECKING:
    from conftest import Workplace

PID = Path("/var/run/crond.pid")  # Debian's cron holds it while it runs
OTHERS = b"# mine \xe9\nMAILTO=me@example.org\n0 1 * * * /usr/bin/true \\% %x\n"
LINE = "17 3 * * 1 pinmill run small"


def read_raw() -> bytes | None:
    """The bytes of this user's crontab; None where there is none."""
    done = subprocess.run(["crontab", "-l"], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def write_raw(content: bytes | None) -> None:
    command = ["crontab", "-r"] if content is None else ["crontab", "-"]
    subprocess.run(command, input=content, capture_output=True, check=content is not None)


@pytest.fixture
def crontab(find_program: Callable[[str, str], str]) -> Iterator[None]:
    """The user's crontab, empty for a test, and afterwards as it was."""
    find_program("crontab", "cron")
    before = read_raw()
    write_raw(None)
    yield
    write_raw(before)


@pytest.fixture
def start_cron(find_program: Callable[[str, str], str]) -> Iterator[Callable[[], None]]:
    """The function that has Debian's cron at work: the one that is, or one of the test's own."""
    program, started = find_program("cron", "cron"), []
    pid = int(PID.read_text() or 0) if PID.is_file() else 0
    runs = psutil.pid_exists(pid) and psutil.Process(pid).name() == "cron"
    if not runs and os.geteuid() != 0:
        miss("cron runs jobs only for root, and does not run here")
    yield lambda: started.append(None if runs else subprocess.Popen([program, "-f"]))
    for process in filter(None, started):
        process.terminate()
        process.wait(30)


def write_schedule(workplace: Workplace, *lines: str) -> None:
    """Make these the lines of a project's schedule.cron."""
    (workplace.root / "schedule.cron").write_text("\n".join(lines) + "\n")


def fired(workplace: Workplace, *words: str) -> Firing | None:
    """The last firing of a command, once it ended."""
    found = read_firing(Project(workplace.root, {}), words)
    return found if found and found.ended else None


# The block in the crontab


@pytest.mark.parametrize("others", [None, OTHERS])
def test_install_is_idempotent_and_remove_takes_exactly_that_out(
    crontab: None, small: Workplace, others: bytes | None
) -> None:
    write_raw(others)
    write_schedule(small, LINE, "@daily pinmill pins prune")
    printed = small.pinmill("schedule", "install", "--print").stdout.encode()
    assert read_raw() == others
    said = small.pinmill("schedule", "install").stdout
    assert said == "2 jobs are installed in your crontab. When they run: pinmill schedule show\n"
    assert read_raw() == (others or b"") + printed
    since = installed_file(Project(small.root, {})).read_bytes()
    assert small.pinmill("schedule", "install").stdout.startswith("2 jobs were installed before.")
    assert (read_raw(), installed_file(Project(small.root, {})).read_bytes()) == ((others or b"") + printed, since)
    assert small.json("schedule", "show")["installed"] == "installed"
    assert small.pinmill("schedule", "remove").stdout == "cron runs nothing of this project any more\n"
    assert (read_raw(), small.pinmill("schedule", "remove").stdout) == (
        others,
        "nothing of this project was installed\n",
    )


def test_only_the_block_of_this_project_is_replaced_where_it_stands(crontab: None, small: Workplace) -> None:
    write_schedule(small, LINE)
    other = small.copy(small.root.parent / "project two")  # its name begins with that of the first
    for place in (small, other):
        place.pinmill("schedule", "install")
    first, second = (place.pinmill("schedule", "install", "--print").stdout.encode() for place in (small, other))
    write_raw(OTHERS + first + OTHERS + second + OTHERS)
    write_schedule(small, "5 5 * * * pinmill run small")
    assert small.json("schedule", "show")["installed"] == "installed, but not as it stands here"
    small.pinmill("schedule", "install")
    assert read_raw() == OTHERS + first.replace(b"17 3 * * 1", b"5 5 * * *") + OTHERS + second + OTHERS
    small.pinmill("schedule", "remove")
    assert read_raw() == OTHERS + OTHERS + second + OTHERS


def test_a_zone_of_its_own_in_the_users_crontab_is_refused_with_the_reason(crontab: None, small: Workplace) -> None:
    write_raw(b"# mine\nCRON_TZ=Asia/Tokyo\n")
    write_schedule(small, LINE)
    expected = (
        "ProjectError: 1 problem in schedule.cron: your crontab, line 2: Debian's cron knows only the machine's zone"
    )
    assert small.pinmill("schedule", "install", code=2).stderr.startswith(expected)
    assert read_raw() == b"# mine\nCRON_TZ=Asia/Tokyo\n"


def test_lines_that_crontab_refuses_change_nothing(crontab: None, small: Workplace) -> None:
    write_raw(OTHERS)
    write_schedule(small, f"{LINE} --set 'source={'x' * 1200}'")  # cron's lines end at 998 characters
    refused = small.pinmill("schedule", "install", code=4).stderr
    assert refused.startswith("RunError: crontab refused the lines, and nothing changed: ")
    assert (read_raw(), installed_file(Project(small.root, {})).exists()) == (OTHERS, False)


# What was missed


@pytest.fixture
def hook() -> Iterator[tuple[str, list[str]]]:
    """A webhook: its address for apprise, and the titles of what it was told."""
    titles: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            titles.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["title"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"json://127.0.0.1:{server.server_port}", titles
        server.shutdown()
        thread.join()


def set_clock_back(workplace: Workplace) -> None:
    """Have all jobs installed nine days ago."""
    file = installed_file(Project(workplace.root, {}))
    known = {
        key: datetime.fromisoformat(when) - timedelta(days=9) for key, when in json.loads(file.read_text()).items()
    }
    write_json(file, {key: when.isoformat() for key, when in known.items()})


def test_a_missed_job_is_told_once_and_told_to_be_over(
    crontab: None, small: Workplace, hook: tuple[str, list[str]]
) -> None:
    url, titles = hook
    write_schedule(
        small, "17 3 * * * pinmill run small", "30 4 * * * pinmill runs", "27 * * * * pinmill schedule missed"
    )
    small.pinmill("schedule", "install")
    assert small.pinmill("schedule", "missed").stdout == "0 of 3 jobs missed\n"
    set_clock_back(small)
    missed = ["schedule", "run", "--", "schedule", "missed"]  # as cron starts it, which makes it no missed one itself
    first = small.pinmill(*missed, code=1, PINMILL_NOTIFY=url).stdout
    assert "2 of 3 jobs missed\npinmill run small: due " in first
    assert "; run it now: pinmill schedule run -- run small\npinmill runs: due " in first
    assert titles == ["[Pinmill] missed, pinmill runs", "[Pinmill] small: missed, pinmill run small"]
    small.pinmill(*missed, code=1, PINMILL_NOTIFY=url)
    assert small.pinmill(*missed, "--new", PINMILL_NOTIFY=url).stdout == ""  # so that cron mails it once
    assert len(titles) == 2
    small.pinmill("run", "small")  # a run by hand is one too
    small.pinmill("schedule", "run", "--", "runs", code=0)
    done = small.pinmill(*missed, PINMILL_NOTIFY=url)
    assert (done.stdout, titles[2:]) == (
        "",
        ["[Pinmill] recovered, missed, pinmill runs", "[Pinmill] small: recovered, missed, pinmill run small"],
    )


def test_what_cron_knows_is_judged_and_not_what_was_edited_since(crontab: None, small: Workplace) -> None:
    write_schedule(small, "MAILTO=x@example.org", "17 3 * * * pinmill run small --set 'source=5 \\% \\\\ it'\"'\"'s'")
    small.pinmill("schedule", "install")
    set_clock_back(small)
    write_schedule(small, "30 4 * * * pinmill runs", "0 5 * * * pinmill rnu")
    (found,) = json.loads(small.pinmill("schedule", "missed", "--json", code=1).stdout)
    assert shlex.split(found["command"]) == ["pinmill", "run", "small", "--set", "source=5 % \\ it's"]
    small.pinmill("schedule", "run", "--", *shlex.split(found["command"])[1:], code=None)


def test_a_job_is_judged_from_when_cron_knows_it(crontab: None, small: Workplace) -> None:
    write_schedule(small, "17 3 * * * pinmill runs")
    small.pinmill("schedule", "install")
    set_clock_back(small)
    write_raw(None)
    small.pinmill("schedule", "install")
    assert small.pinmill("schedule", "missed").stdout == "0 of 1 jobs missed\n"
    installed_file(Project(small.root, {})).unlink()  # e.g. a restore without it
    assert small.pinmill("schedule", "missed").stdout == "0 of 1 jobs missed\n"
    set_clock_back(small)
    assert small.pinmill("schedule", "missed", code=1).stdout.startswith("1 of 1 jobs missed\npinmill runs: due ")


def test_a_line_that_cannot_be_read_is_told_and_ends_no_incident(
    crontab: None, small: Workplace, hook: tuple[str, list[str]]
) -> None:
    url, titles = hook
    write_schedule(small, "17 3 * * * pinmill run small", "30 4 * * * pinmill runs")
    small.pinmill("schedule", "install")
    set_clock_back(small)
    small.pinmill("schedule", "missed", code=1, PINMILL_NOTIFY=url)
    good = read_raw()
    write_raw(good.replace(b"-- run small", b"-- rnu small"))
    told = small.pinmill("schedule", "missed", "--new", code=1, PINMILL_NOTIFY=url).stdout
    said = "your crontab, line 3: pinmill rnu small: No such command 'rnu'. Did you mean 'run'?"
    assert told == f"0 of 1 jobs newly missed, 1 problem\n{said}\n"
    assert small.pinmill("schedule", "missed", "--new", PINMILL_NOTIFY=url).stdout == "0 of 1 jobs newly missed\n"
    assert titles[2:] == ["[Pinmill] a line of the schedule cannot be read"]
    write_raw(good)
    small.pinmill("schedule", "missed", code=1, PINMILL_NOTIFY=url)
    assert titles[3:] == ["[Pinmill] recovered, a line of the schedule cannot be read"]


def test_what_is_no_longer_scheduled_is_missed_no_longer(
    crontab: None, small: Workplace, hook: tuple[str, list[str]]
) -> None:
    url, titles = hook
    write_schedule(small, "17 3 * * * pinmill run small", "30 4 * * * pinmill runs")
    small.pinmill("schedule", "install")
    set_clock_back(small)
    small.pinmill("schedule", "missed", code=1, PINMILL_NOTIFY=url)
    write_schedule(small, "30 4 * * * pinmill runs")
    small.pinmill("schedule", "install")
    small.pinmill("schedule", "missed", code=1, PINMILL_NOTIFY=url)
    assert titles[2:] == ["[Pinmill] small: recovered, missed, pinmill run small"]
    small.pinmill("schedule", "remove", PINMILL_NOTIFY=url)
    assert titles[3:] == ["[Pinmill] recovered, missed, pinmill runs"]
    assert not (small.root / "outputs/schedule/missed.json").exists()


def test_a_block_that_was_lost_is_told_until_it_is_installed_or_removed(
    crontab: None, small: Workplace, hook: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, titles = hook
    write_schedule(small, "30 4 * * * pinmill runs")
    small.pinmill("schedule", "install")
    set_clock_back(small)
    small.pinmill("schedule", "missed", code=1, PINMILL_NOTIFY=url)
    write_raw(None)
    for _ in range(2):
        told = small.pinmill("schedule", "missed", code=1, PINMILL_NOTIFY=url).stdout
        assert told.startswith("0 of 0 jobs missed, 1 problem\nyour crontab has lost the block of this project")
    without = small.pinmill("schedule", "missed", code=1, PATH=str(tmp_path)).stdout
    assert "there is no program `crontab` here" in without
    lost = "cron does not know the schedule"
    assert titles[1:] == [f"[Pinmill] {lost}"]
    small.pinmill("schedule", "remove", PINMILL_NOTIFY=url)
    assert titles[2:] == [f"[Pinmill] recovered, {lost} and 1 more"]
    assert small.pinmill("schedule", "missed").stdout.startswith("nothing is installed in your crontab")


def test_a_firing_that_was_killed_is_missed_until_it_runs(crontab: None, small: Workplace) -> None:
    write_schedule(small, "* * * * * pinmill runs")
    small.pinmill("schedule", "install")
    set_clock_back(small)
    small.pinmill("schedule", "run", "--", "runs")
    assert json.loads(small.pinmill("schedule", "missed", "--json").stdout) == []
    project, ran = Project(small.root, {}), fired(small, "runs")
    hours = (datetime.fromisoformat(ran.ran) - timedelta(hours=2)).isoformat()
    killed = Firing(("runs",), ran.run, ran.started, pid=2**22 - 1, born=1.0, ran=hours)  # of a process that is gone
    write_json(firing_file(project, ["runs"]), killed.__dict__)
    (found,) = json.loads(small.pinmill("schedule", "missed", "--json", code=1).stdout)
    assert (found["command"], found["workflow"]) == ("pinmill runs", "")
    assert small.json("schedule", "show")["jobs"][0]["status"] == "interrupted"


def test_a_job_that_is_refused_for_its_params_is_missed_and_told_though_nobody_can_read_whom(
    crontab: None, small: Workplace, hook: tuple[str, list[str]]
) -> None:
    write_schedule(small, "17 3 * * * pinmill run small")
    small.pinmill("schedule", "install")
    set_clock_back(small)
    small.params("workflow: small\nsource: numbers.txt\npowr: 2\n", "small")
    small.pinmill("schedule", "run", "--", "run", "small", code=2)
    small.pinmill("schedule", "missed", code=1, PINMILL_NOTIFY=hook[0])
    assert hook[1] == ["[Pinmill] small: missed, pinmill run small"]


def test_settings_hold_for_what_stands_below_as_in_any_crontab_and_that_is_said(
    crontab: None, small: Workplace
) -> None:
    write_schedule(small, LINE)
    small.pinmill("schedule", "install")
    write_raw(read_raw() + OTHERS)
    write_schedule(small, "MAILTO=ops@example.org", LINE)
    expected = "MAILTO=ops@example.org: also for the lines below this block in your crontab\n"
    assert small.pinmill("schedule", "install").stderr == expected
    assert b"\nMAILTO=ops@example.org\n17 3 * * 1 cd " in read_raw()


# Debian's real daemon


@pytest.mark.timeout(900)
def test_the_real_cron_fires_a_line_that_trains_the_workflow(
    crontab: None, start_cron: Callable[[], None], workplace: Workplace, tmp_path: Path
) -> None:
    # Cron mails what a line prints; its shell is set to one that keeps that, as there may be no program for mail here.
    mails, shell = tmp_path / "mails", tmp_path / "shell"
    mails.mkdir()
    shell.write_text(f'#!/bin/sh\nexec /bin/sh "$@" > "{mails}/$$" 2>&1\n')
    shell.chmod(0o755)
    write_schedule(workplace, f"SHELL={shell}", "* * * * * pinmill run tiny", "* * * * * pinmill trace nothing")
    workplace.pinmill("schedule", "install")
    start_cron()  # now: it does not see a crontab that was changed within the second in which it read it
    trained = wait_until(lambda: fired(workplace, "run", "tiny"), "cron's run", seconds=150)
    failed = wait_until(lambda: fired(workplace, "trace", "nothing"), "the line that fails", seconds=150)
    assert workplace.json("schedule", "show")["installed"] == "installed"
    workplace.pinmill("schedule", "remove")
    for words in (("run", "tiny"), ("trace", "nothing")):  # those of the next minute may be at work
        wait_until(lambda words=words: fired(workplace, *words), "the end", seconds=90)
    first = workplace.json("runs")[-1]
    assert (trained.run, trained.code, first["status"]) == (first["run"], 0, "succeeded")
    assert workplace.json("champion", "tiny")["version"] == first["champion_after"] != ""
    log = (workplace.root / "outputs/logs/schedule.log").read_text()
    assert f"{first['run']} tiny: succeeded (run {first['run']}; ran 01-prepare, 02-train" in log
    assert failed.code not in (0, None)
    texts = [file.read_text() for file in mails.iterdir()]
    printed = [text for text in texts if text]
    assert len(printed) < len(texts)  # the run that succeeded said nothing
    assert all(text.startswith("starts: pinmill trace nothing\n") and "Error: " in text for text in printed)
    assert printed
