"""The schedule: what a crontab's lines mean, when Debian's cron runs them, and a command run as cron runs it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import psutil
import pytest
from pinmill.crontab import name_command, render_block, split_crontab
from pinmill.errors import ProjectError
from pinmill.firing import LOG_BYTES, LOG_FILES, Firing, firing_file, follow, read_firing, write_log
from pinmill.lock import hold_lock
from pinmill.project import Project
from pinmill.runs import write_json
from pinmill.schedule import Job, Setting, explain, find_contending, find_missed, next_times, parse_schedule, read_zone
from waiting import wait_until

if TYPE_CHECKING:
    from conftest import Workplace

ROOT = Path(__file__).resolve().parent.parent
BERLIN = ZoneInfo("Europe/Berlin")  # clocks: 2026-03-29 02:00 → 03:00, 2026-10-25 03:00 → 02:00
BARE = {"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "root", "PWD": "/"}  # what Debian's cron gives a job
MISSING = "19990101T000000Z-000000-0000"


def project_of(workplace: Workplace) -> Project:
    return Project(workplace.root, {})


def write_schedule(workplace: Workplace, *lines: str) -> None:
    """Make these the lines of a project's schedule.cron."""
    (workplace.root / "schedule.cron").write_text("\n".join(lines) + "\n")


def due_after(expression: str, after: str, n: int) -> list[str]:
    """The next n times in Berlin after one in UTC, as text."""
    start = datetime.fromisoformat(after).replace(tzinfo=UTC)
    return [due.isoformat(" ", "minutes") for due in islice(next_times(expression, start, BERLIN), n)]


def take_line(workplace: Workplace, number: int = 0) -> str:
    """The command of a line that `pinmill schedule install` would install, as cron hands it to the shell."""
    block = workplace.pinmill("schedule", "install", "--print").stdout
    lines = [line for line in block.splitlines() if not line.startswith("#")]
    command = lines[number].split(maxsplit=5)[5]
    return command.replace("\\\\", "\0").replace("\\%", "%").replace("\0", "\\")


# What the lines say


def test_jobs_and_settings_are_read_with_their_lines() -> None:
    text = "# weekly\nMAILTO=ops@example.org\n\n17 3 * * 1\tpinmill run spam --set 'title=5 \\% off'\n"
    text += "  @daily pinmill pins prune\n30 2-4/2,6 1 jan-mar mon pinmill runs\n"
    found = parse_schedule(text)
    assert found.jobs == (
        Job(4, "17 3 * * 1", ("run", "spam", "--set", "title=5 % off")),
        Job(5, "@daily", ("pins", "prune")),
        Job(6, "30 2-4/2,6 1 jan-mar mon", ("runs",)),
    )
    assert (found.settings, found.problems) == ((Setting(2, "MAILTO=ops@example.org"),), ())
    assert [explain(job) for job in found.jobs[:2]] == ["At 03:17 on Monday", "At 00:00 every day"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("@reboot pinmill run spam", "@reboot is no time, so nobody can tell that it was missed"),
        ("@dayly pinmill run spam", "'@dayly' is none of @yearly, @annually, "),
        ("61 4 * * 1 pinmill run spam", "'61 4 * * 1': bad minute"),
        ("0 0 31 2 * pinmill run spam", "'0 0 31 2 *': bad day-of-month"),
        ("0 4 L * * pinmill run spam", "'L' is no field of times that Debian's cron knows"),
        ("0 4 * * 5#2 pinmill run spam", "'5#2' is no field of times"),
        ("5/10 4 * * * pinmill run spam", "'5/10' is no field of times"),
        ("0 4 * * pinmill run spam", "'pinmill' is no field of times"),
        ("0 4 * * 1 root pinmill run spam", "'root' stands before pinmill: a user's crontab has no field for the user"),
        ("0 4 * * 1 python train.py", "'python train.py' is no pinmill command"),
        ("0 4 * * 1 pinmill", "'pinmill' is no pinmill command"),
        ("0 4 * * 1", "'' is no pinmill command: five fields of times and a command"),
        ("0 4 * * 1 cd /x && pinmill run spam", "'&' is for a shell"),
        ("0 4 * * 1 pinmill run $W", "'$' is for a shell"),
        ("0 4 * * 1 pinmill run spam # weekly", "'#' is for a shell"),
        ("0 4 * * 1 pinmill run 'spam", ""),
        ("0 4 * * 1 pinmill run spam --set title=5%", "cron takes % for the end of the line"),
        ("CRON_TZ=Europe/Berlin", "Debian's cron knows only the machine's zone"),
        (" CRON_TZ = Europe/Berlin", "Debian's cron knows only the machine's zone"),
        ("TZ=Europe/Berlin", "TZ changes no time at which a job starts"),
    ],
)
def test_a_line_that_cron_would_not_run_as_meant_is_a_problem(line: str, said: str) -> None:
    found = parse_schedule(f"# a comment\n{line}\n")
    assert (found.jobs, found.settings, len(found.problems)) == ((), (), 1)
    assert found.problems[0].startswith(f"line 2: {said}")


def test_a_word_in_quotes_may_hold_what_is_for_a_shell() -> None:
    line = "0 4 * * 1 pinmill run spam --set 'title=a & $b' --set \"x=(1; 2)\""
    assert parse_schedule(line).jobs[0].words == ("run", "spam", "--set", "title=a & $b", "--set", "x=(1; 2)")


# When Debian's cron runs them; expected values by hand from cron(8), "Special considerations"


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        # Skipped: "jobs which would have run in the time that was skipped will be run soon after the change".
        ("30 2 * * *", "2026-03-28 02:00", ["2026-03-29 03:00+02:00", "2026-03-30 02:30+02:00"]),
        ("15,45 2 * * *", "2026-03-28 02:00", ["2026-03-29 03:00+02:00", "2026-03-30 02:15+02:00"]),
        ("0 4 * * *", "2026-03-28 04:00", ["2026-03-29 04:00+02:00", "2026-03-30 04:00+02:00"]),
        # Repeated: "those jobs that fall into the repeated time will not be re-run".
        ("30 2 * * *", "2026-10-24 02:00", ["2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00"]),
        ("30 2 * * *", "2026-10-25 01:10", ["2026-10-26 02:30+01:00"]),  # asked for at 02:10, the second time
        ("30 2 * * *", "2026-10-25 00:10", ["2026-10-25 02:30+02:00"]),  # at 02:10, the first time
        # "Jobs which are specified with wildcards are run based on the new time immediately."
        ("*/30 * * * *", "2026-03-29 00:00", ["2026-03-29 01:30+01:00", "2026-03-29 03:00+02:00"]),
        ("30 * * * *", "2026-03-29 00:00", ["2026-03-29 01:30+01:00", "2026-03-29 03:30+02:00"]),
        ("30 */2 * * *", "2026-03-28 23:00", ["2026-03-29 00:30+01:00", "2026-03-29 04:30+02:00"]),
        (
            "30 * * * *",
            "2026-10-24 23:00",
            ["2026-10-25 01:30+02:00", "2026-10-25 02:30+02:00", "2026-10-25 02:30+01:00", "2026-10-25 03:30+01:00"],
        ),
        ("* 2 * * *", "2026-10-25 00:58", ["2026-10-25 02:59+02:00", "2026-10-25 02:00+01:00"]),
    ],
)
def test_times_are_right_over_both_changes_of_the_clock(expression: str, after: str, expected: list[str]) -> None:
    assert due_after(expression, after, len(expected)) == expected


def test_a_day_of_the_month_and_a_weekday_are_either() -> None:
    # crontab(5): "30 4 1,15 * 5" is "at 4:30 am on the 1st and 15th of each month, plus every Friday"
    expected = ["2026-06-01 04:30+02:00", "2026-06-05 04:30+02:00", "2026-06-12 04:30+02:00", "2026-06-15 04:30+02:00"]
    assert due_after("30 4 1,15 * 5", "2026-05-30 00:00", 4) == expected


def test_the_zone_is_the_one_of_the_machine(tmp_path: Path) -> None:
    place = tmp_path / "zoneinfo" / "Europe"
    place.mkdir(parents=True)
    shutil.copy("/usr/share/zoneinfo/Europe/Berlin", place)
    (tmp_path / "localtime").symlink_to(place / "Berlin")
    zone = read_zone(tmp_path / "localtime")
    assert (zone.key, datetime(2026, 7, 1, tzinfo=zone).utcoffset()) == ("Europe/Berlin", timedelta(hours=2))
    assert read_zone(tmp_path / "nothing") is UTC


# Which contend, and which were missed


@pytest.mark.parametrize(
    ("one", "other", "when"),
    [
        ("0 4 * * 1", "0 4 * * *", "2026-11-23 04:00"),
        ("*/15 * * * *", "30 5 1 * *", "2026-12-01 05:30"),
        ("0 4 29 2 *", "0 4 * * 2", "2028-02-29 04:00"),
        ("0 4 * * 1", "0 4 * * 2-5", ""),
        ("0 4 * * 1", "1 4 * * 1", ""),
        ("@daily", "0 0 * * 3", "2026-11-25 00:00"),
    ],
)
def test_jobs_of_one_workflow_contend_in_the_same_minute(one: str, other: str, when: str) -> None:
    jobs = [Job(3, one, ("run", "spam"), "spam", "train"), Job(5, other, ("score", "spam"), "spam", "score")]
    said = f"lines 3 and 5 start spam in the same minute, e.g. {when}: set one of them apart"
    assert find_contending(jobs, date(2026, 11, 21)) == ([said] if when else [])


def test_jobs_of_two_workflows_do_not_contend_but_the_same_command_twice_does() -> None:
    jobs = [Job(1, "0 4 * * *", ("run", "a"), "a", "train"), Job(2, "0 4 * * *", ("run", "b"), "b", "train")]
    twice = [Job(n, "0 4 * * *", ("pins", "prune")) for n in (3, 4)]
    said = "lines 3 and 4 start pinmill pins prune in the same minute, e.g. 2026-11-21 04:00: set one of them apart"
    assert find_contending([*jobs, *twice], date(2026, 11, 21)) == [said]


@pytest.mark.parametrize(
    ("ran", "installed", "now", "due"),
    [
        ("", "2026-11-20 12:00", "2026-11-21 04:14", ""),  # within the grace
        ("", "2026-11-20 12:00", "2026-11-21 04:16", "2026-11-21 04:00"),
        ("", "2026-11-21 04:01", "2026-11-21 23:00", ""),  # installed after it was due
        ("2026-11-21 04:09", "2026-11-01 12:00", "2026-11-22 04:10", ""),
        ("2026-11-20 04:09", "2026-11-01 12:00", "2026-11-23 12:00", "2026-11-21 04:00"),  # the first that was missed
        ("2026-11-20 04:09", "2026-11-23 11:00", "2026-11-23 12:00", ""),  # installed anew, with other times
        ("", "", "2026-11-23 12:00", ""),  # nobody knows since when: from now on
    ],
)
def test_a_job_is_missed_when_it_was_due_and_did_not_run_since(ran: str, installed: str, now: str, due: str) -> None:
    job = Job(3, "0 4 * * *", ("run", "spam"), "spam", "train")
    times = [{job.key: datetime.fromisoformat(f"{when}+00:00")} if when else {} for when in (ran, installed)]
    found = find_missed([job], *times, now=datetime.fromisoformat(f"{now}+00:00"), zone=UTC)
    assert found == ([(job, datetime.fromisoformat(f"{due}+00:00"))] if due else [])


def test_a_job_that_was_skipped_by_the_clock_is_missed_at_the_time_it_should_have_started() -> None:
    job, start = Job(3, "30 2 * * *", ("run", "spam")), datetime(2026, 3, 28, 12, tzinfo=UTC)
    judge = [datetime(2026, 3, 29, 1, minute, tzinfo=UTC) for minute in (14, 16)]  # 03:14 and 03:16 in Berlin
    found = [find_missed([job], {}, {job.key: start}, now=now, zone=BERLIN) for now in judge]
    assert [[due.isoformat() for _, due in each] for each in found] == [[], ["2026-03-29T03:00:00+02:00"]]


# The block in a crontab


OTHERS = [
    "",
    "MAILTO=me\r\n*/5 * * * * /usr/bin/true % \\%\n",
    "# BEGIN pinmill /srv/p2\n0 1 * * * x\n# END pinmill /srv/p2\n",
    os.fsdecode(b"# caf\xe9\n\n\n"),
]


@pytest.mark.parametrize("before", OTHERS)
@pytest.mark.parametrize("after", OTHERS)
def test_a_block_goes_in_and_out_and_all_else_stays_byte_for_byte(before: str, after: str) -> None:
    block = render_block(parse_schedule("0 4 * * 1 pinmill run spam\n"), Path("/srv/p"), "pinmill")
    assert split_crontab(f"{before}{block}{after}", Path("/srv/p")) == (before, block, after)
    assert split_crontab(f"{before}{after}", Path("/srv/p")) == (f"{before}{after}", "", "")


def test_a_last_line_without_its_end_gets_one_before_the_block() -> None:
    assert split_crontab("0 1 * * * x", Path("/srv/p")) == ("0 1 * * * x\n", "", "")


@pytest.mark.parametrize(
    "text",
    [
        "# BEGIN pinmill /srv/p\n0 1 * * * x\n",
        "# BEGIN pinmill /srv/p\n# END pinmill /srv/p\n# BEGIN pinmill /srv/p\n# END pinmill /srv/p\n",
    ],
)
def test_a_damaged_block_is_left_alone(text: str) -> None:
    with pytest.raises(ProjectError, match="damaged: one line '# BEGIN pinmill /srv/p' and after it one"):
        split_crontab(text, Path("/srv/p"))


def test_folder_and_words_reach_the_command_whole_through_cron_and_the_shell(small: Workplace) -> None:
    place = small.copy(small.root.parent / 'it\'s 100% "mine" $HOME')
    write_schedule(place, "0 4 * * 1 pinmill run small --set 'source=5 \\% \\\\ & more'")
    block = place.pinmill("schedule", "install", "--print").stdout
    assert "%" not in re.sub(r"\\.", "", block.splitlines()[2])  # cron takes a bare one for the end of the line
    fake = f"set -- {take_line(place).replace(name_command(), 'pinmill').partition('&& ')[2]}; printf '%s\\n' \"$@\""
    words = subprocess.run(["sh", "-c", fake], capture_output=True, text=True, check=True).stdout.splitlines()
    assert words == ["pinmill", "schedule", "run", "--", "run", "small", "--set", "source=5 % \\ & more"]
    assert take_line(place).startswith(f"cd {shlex.quote(str(place.root))} && ")


def test_a_setting_holds_for_the_lines_below_it_as_it_stands_in_the_file() -> None:
    lines = [
        "0 1 * * * pinmill runs",
        "MAILTO=a@example.org",
        "0 2 * * * pinmill runs",
        "MAILTO=",
        "@daily pinmill runs",
    ]
    block = render_block(parse_schedule("\n".join(lines)), Path("/srv/p"), "pinmill").splitlines()[2:-1]
    fired = "cd /srv/p && pinmill schedule run -- runs"
    assert block == [f"0 1 * * * {fired}", lines[1], f"0 2 * * * {fired}", lines[3], f"@daily {fired}"]


# The commands


def test_show_tells_times_last_run_and_whether_it_is_installed(small_trained: Workplace) -> None:
    write_schedule(small_trained, "17 3 * * 1 pinmill run small", "@daily pinmill pins prune")
    told, (run,) = small_trained.json("schedule", "show"), small_trained.json("runs")
    train, prune = told["jobs"]
    assert (told["installed"], told["problems"]) == ("not installed", [])
    assert (train["when"], train["status"], train["run"]) == ("At 03:17 on Monday", "succeeded", run["run"])
    assert (prune["command"], prune["line"], prune["status"]) == ("pinmill pins prune", 2, "")
    dues = [datetime.fromisoformat(due) for due in train["next"]]
    assert [(due.weekday(), due.hour, due.minute) for due in dues] == [(0, 3, 17)] * 3
    assert [dues[n + 1].date() - dues[n].date() for n in (0, 1)] == [timedelta(days=7)] * 2
    shown = small_trained.pinmill("schedule", "show").stdout
    assert (
        f"pinmill run small\n  when  At 03:17 on Monday\n  last  {run['started'][:19].replace('T', ' ')} UTC" in shown
    )
    assert "pinmill pins prune\n  when  At 00:00 every day\n  last  none yet\n  next  " in shown


def test_check_tells_all_problems_with_their_lines_and_install_refuses_them(small: Workplace) -> None:
    small.params("workflow: wrong\nsource: numbers.txt\npwer: 2\n", "wrong")
    lines = ["0 1 * * * pinmill rnu small", "0 2 * * * pinmill run smal", "0 3 * * * pinmill run small --jbo train"]
    lines += ["0 4 * * * pinmill run small --job trian", "0 5 * * * pinmill run wrong", "CRON_TZ=Asia/Tokyo"]
    lines += ["0 6 * * * pinmill run small --set powr=2", "7 8 * * * pinmill run small", "7 8 * * 1 pinmill run small"]
    write_schedule(small, *lines)
    done = small.pinmill("schedule", "check", code=1)
    expected = [
        "line 1: pinmill rnu small: No such command 'rnu'. Did you mean 'run'?",
        "line 2: no workflow 'smal': params/smal.yaml does not exist. Did you mean 'small'?",
        "line 3: pinmill run small --jbo train: No such option: --jbo (Possible options: --job)",
        "line 4: no notebook belongs to job 'trian'",
        "line 5: 1 problem in params/wrong.yaml: no notebook has parameter 'pwer'",
        "line 6: Debian's cron knows only the machine's zone, and ignores CRON_TZ",
        "line 7: 1 problem in params/small.yaml: no notebook has parameter 'powr' (--set powr). Did you mean 'power'?",
        "lines 8 and 9 start small in the same minute, e.g. ",
    ]
    told = done.stdout.splitlines()[1:]
    assert [line[: len(text)] for line, text in zip(told, expected, strict=True)] == expected
    assert json.loads(small.pinmill("schedule", "check", "--json", code=1).stdout)["problems"] == told
    refused = small.pinmill("schedule", "install", code=2)
    assert refused.stdout == ""
    assert refused.stderr.startswith("ProjectError: 8 problems in schedule.cron: line 1: ")
    assert small.pinmill("schedule", "install", "--print", code=2).stdout == ""


def test_a_line_that_would_only_print_help_is_a_problem_and_prints_none(small: Workplace) -> None:
    lines = ["0 1 * * * pinmill run --help", "0 2 * * * pinmill --version", "0 3 * * * pinmill schedule"]
    write_schedule(small, *lines, "0 4 * * * pinmill run small")
    told = small.pinmill("schedule", "check", code=1).stdout.splitlines()
    assert told[0] == "1 jobs, 3 problems"
    expected = [f"line {number}: {line[10:]}: " for number, line in enumerate(lines, start=1)]
    assert [line[: len(text)] for line, text in zip(told[1:], expected, strict=True)] == expected


def test_the_schedule_that_ships_has_no_problems_here_and_in_a_new_project(tmp_path: Path) -> None:
    template = (ROOT / "lib/pinmill/template/schedule.cron").read_text()
    assert (ROOT / "schedule.cron").read_text() == template.replace("{workflow}", "docstrings")
    place = make_new(tmp_path)
    assert place.json("schedule", "check") == {"jobs": 4, "problems": []}
    commands = [job["command"] for job in place.json("schedule", "show")["jobs"]]
    assert commands == [
        "pinmill run docstrings",
        "pinmill run docstrings --job monitor",
        "pinmill pins prune",
        "pinmill schedule missed --new",
    ]
    text = (place.root / "schedule.cron").read_text()
    waiting = parse_schedule(text.replace("# 7 2", "7 2")).jobs  # the line that waits for its table
    assert [job.words for job in waiting if job.words[0] == "score"] == [
        ("score", "docstrings", "data/new.csv", "outputs/scored.parquet")
    ]


def make_new(tmp_path: Path) -> Workplace:
    """A project as `pinmill new` makes it."""
    from conftest import Workplace
    from pinmill.scaffold import make_project

    make_project(tmp_path / "demo", None)
    return Workplace(tmp_path / "demo")


def test_without_the_file_or_without_cron_it_says_what_to_do(small: Workplace, tmp_path: Path) -> None:
    assert "has no schedule.cron: a crontab with lines such as" in small.pinmill("schedule", "show", code=2).stderr
    write_schedule(small, "0 4 * * 1 pinmill run small")
    missing = small.pinmill("schedule", "install", code=2, PATH=str(tmp_path)).stderr
    assert missing.startswith("ProjectError: there is no program `crontab` here. Install cron")
    printed = small.pinmill("schedule", "install", "--print", PATH=str(tmp_path))
    assert printed.stdout.startswith("# BEGIN pinmill ")
    assert printed.stderr.startswith("pinmill schedule missed judges only what your own crontab starts")
    assert "1 jobs, not installed: there is no program" in small.pinmill("schedule", "show", PATH=str(tmp_path)).stdout
    nothing = (
        "nothing is installed in your crontab, and jobs started elsewhere are not judged: pinmill schedule install\n"
    )
    assert small.pinmill("schedule", "missed", PATH=str(tmp_path)).stdout == nothing


# A command as cron runs it


def test_an_installed_line_works_in_a_bare_environment_and_says_nothing(small: Workplace, tmp_path: Path) -> None:
    write_schedule(small, "0 4 * * 1 pinmill run small")
    command = ["sh", "-c", take_line(small)]
    done = subprocess.run(
        command, cwd="/", env={**BARE, "HOME": str(tmp_path)}, capture_output=True, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    (run,) = small.json("runs")
    firing = read_firing(project_of(small), ["run", "small"])
    assert (run["status"], run["champion_after"] != "") == ("succeeded", True)
    assert (firing.run, firing.code, firing.status, firing.ran) == (run["run"], 0, "succeeded", firing.ended)
    assert firing.started <= run["started"] <= run["ended"] <= firing.ended
    lines = (small.root / "outputs/logs/schedule.log").read_text().splitlines()
    assert all(re.match(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ {run['run']} .", line) for line in lines)
    assert lines[0].endswith(" starts: pinmill run small")
    assert any("02-train (2/4) runs" in line for line in lines)
    assert any(f"small: succeeded (run {run['run']}; ran 01-prepare" in line for line in lines)
    assert " ended with exit code 0 after " in lines[-1]


def test_a_failure_is_printed_and_its_exit_code_passed_on(small: Workplace) -> None:
    done = small.pinmill("schedule", "run", "--", "run", "small", "--set", "powr=2", code=2)
    first, said, last = done.stdout.splitlines()
    assert first == "starts: pinmill run small --set powr=2"
    assert said.startswith("ParameterError: 1 problem in params/small.yaml: no notebook has parameter 'powr'")
    assert last.startswith("ended with exit code 2 after ")
    assert read_firing(project_of(small), ["run", "small", "--set", "powr=2"]).status == "failed"


def test_rejected_and_skipped_are_printed_too(small_trained: Workplace) -> None:
    words = ["run", "small", "--set", "power=3", "--set", "score=0.25"]
    assert "small: rejected (run " in small_trained.pinmill("schedule", "run", "--", *words, code=3).stdout
    assert read_firing(project_of(small_trained), words).status == "rejected"
    with hold_lock(project_of(small_trained).run_lock("small", "train"), run="by-hand"):
        assert "is at work" in small_trained.pinmill("schedule", "run", "--", *words, code=75).stdout
    firing = read_firing(project_of(small_trained), words)
    assert (firing.status, firing.ran < firing.started) == ("skipped", True)  # the one before is still the last to end


def start_held(workplace: Workplace) -> tuple[subprocess.Popen, Firing]:
    """A firing of `run small` whose second stage waits, once it waits there."""
    (workplace.root / "hold-train").touch()
    process = workplace.start("schedule", "run", "--", "run", "small")
    wait_until(lambda: (workplace.root / "at-train").exists(), "the second stage", process=process)
    return process, read_firing(project_of(workplace), ["run", "small"])


def test_sigterm_goes_on_to_the_command_which_ends_in_order(small: Workplace) -> None:
    process, firing = start_held(small)
    assert firing.status == "running"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, "interrupted. The next run takes up" in out, err) == (130, True, "")
    assert read_firing(project_of(small), ["run", "small"]).status == "interrupted"
    assert [run["status"] for run in small.json("runs")] == ["interrupted"]


def test_a_second_firing_leaves_the_record_to_the_one_that_is_at_work(small: Workplace) -> None:
    process, firing = start_held(small)
    assert "is at work" in small.pinmill("schedule", "run", "--", "run", "small", code=75).stdout
    assert read_firing(project_of(small), ["run", "small"]) == firing
    (small.root / f"release-{firing.run}").touch()
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (0, "", "")
    ended = read_firing(project_of(small), ["run", "small"])
    assert (ended.run, ended.status) == (firing.run, "succeeded")


def test_a_firing_that_was_killed_is_seen_as_interrupted(small: Workplace) -> None:
    process, firing = start_held(small)
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for each in below:
        each.kill()
    process.communicate(timeout=60)
    wait_until(lambda: read_firing(project_of(small), ["run", "small"]).status != "running", "the processes' end")
    firing = read_firing(project_of(small), ["run", "small"])
    assert (firing.status, firing.code, firing.ended, firing.ran) == ("interrupted", None, "", "")
    write_schedule(small, "0 4 * * 1 pinmill run small")
    assert small.json("schedule", "show")["jobs"][0]["status"] == "interrupted"


def test_a_command_outlives_the_process_that_fired_it(small: Workplace) -> None:
    process, firing = start_held(small)
    process.kill()
    process.communicate(timeout=60)
    assert read_firing(project_of(small), ["run", "small"]).status == "running"
    (small.root / f"release-{firing.run}").touch()
    wait_until(lambda: small.json("runs")[0]["status"] != "running", "the run's end")
    assert [(run["run"], run["status"]) for run in small.json("runs")] == [(firing.run, "succeeded")]
    wait_until(lambda: read_firing(project_of(small), ["run", "small"]).status != "running", "the process's end")
    assert read_firing(project_of(small), ["run", "small"]).status == "interrupted"
    log, said = small.root / "outputs/logs/schedule.log", f"{firing.run} small: succeeded (run {firing.run}; ran"
    assert said not in log.read_text()
    small.pinmill("schedule", "run", "--", "run", "small")  # takes up what was said after that
    assert said in log.read_text()
    assert list((small.root / "outputs/schedule").glob("*.log")) == []


def test_output_is_followed_line_by_line_to_its_last_byte(tmp_path: Path) -> None:
    with (tmp_path / "said").open("ab") as output:
        command = ["sh", "-c", r"printf 'one\n\ntwo \377'; printf ' x\r\nthr'; printf 'ee'"]
        process = subprocess.Popen(command, stdout=output)
        assert list(follow(process, output)) == ["one", "", "two \ufffd x", "three"]
    assert process.returncode == 0


def test_a_log_that_cannot_be_written_hinders_no_run_and_is_told(small: Workplace) -> None:
    (small.root / "outputs/logs/schedule.log").mkdir(parents=True)
    done = small.pinmill("schedule", "run", "--", "runs")
    assert done.stdout.startswith("outputs/logs/schedule.log cannot be written: [Errno 21] Is a directory")


def test_the_log_is_rotated_and_processes_that_write_at_once_lose_no_line(tmp_path: Path) -> None:
    code = "import sys; from pinmill.firing import *; from pathlib import Path\n"
    code += (
        "p = Project(Path(sys.argv[1]), {})\nfor n in range(300): write_log(p, f'{sys.argv[2]} {n:04d} ' + 'x' * 900)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, tmp_path, str(n)]) for n in range(4)]
    assert [writer.wait(120) for writer in writers] == [0] * 4
    files = sorted((tmp_path / "outputs/logs").iterdir())
    assert [file.name for file in files] == ["schedule.log", "schedule.log.1"]
    assert all(file.stat().st_size <= LOG_BYTES for file in files)
    lines = sorted(line[:6] for file in files for line in file.read_text().splitlines())
    assert lines == [f"{writer} {n:04d}" for writer in range(4) for n in range(300)]


def test_only_some_old_logs_are_kept(tmp_path: Path) -> None:
    for number in range(LOG_FILES + 3):
        write_log(Project(tmp_path, {}), f"{number} " + "x" * (LOG_BYTES // 2 + 1))
    kept = sorted((tmp_path / "outputs/logs").iterdir())
    assert len(kept) == LOG_FILES + 1
    assert kept[0].read_text().startswith(f"{LOG_FILES + 2} ")


def test_a_damaged_record_is_as_none(small: Workplace) -> None:
    file = firing_file(project_of(small), ["runs"])
    write_json(file, {"words": 5})
    assert read_firing(project_of(small), ["runs"]) is None
    small.pinmill("schedule", "run", "--", "runs")
    assert json.loads(file.read_text())["code"] == 0


def test_help_of_the_schedule_loads_nothing_heavy(small: Workplace) -> None:
    code = (
        "import sys; from pinmill.cli import app; print(sorted({'pandas', 'sqlalchemy', 'cronsim'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
