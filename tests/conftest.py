"""Real parts for the tests: the shared data sets, and projects in temporary folders that run real kernels."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REQUIRED = os.environ.get("PINMILL_TEST_REQUIRE") == "all"  # set by .ci/run: there, nothing may be skipped
PINMILL = Path(sys.executable).with_name("pinmill")

TINY = """\
workflow: tiny
title: Tiny
source: tiny.csv
text: text
label: label
positive: spam
cv: 2
draws: 50
gate_min_n: 20
"""
SPAM = ["win a free prize now", "cheap pills online", "claim your free reward", "urgent offer expires today"]
HAM = ["see you at lunch tomorrow", "the report is attached", "call me when you are home", "thanks for the notes"]


@dataclass(frozen=True)
class Workplace:
    """A project in a temporary folder, and the `pinmill` command in it."""

    root: Path

    def environ(self, **more: str) -> dict[str, str]:
        """The environment a person would have, without anything of this project's own."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PINMILL_")}
        return {**kept, **more}

    def pinmill(self, *words: str, code: int | None = 0, **environ: str) -> subprocess.CompletedProcess:
        """Run `pinmill WORDS`; fail the test, showing all output, unless it ends with `code` (None: any)."""
        done = subprocess.run(
            [PINMILL, *words], cwd=self.root, env=self.environ(**environ), capture_output=True, text=True, timeout=300
        )
        assert code is None or done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *words: str) -> object:
        """What `pinmill WORDS --json` prints, parsed."""
        return json.loads(self.pinmill(*words, "--json").stdout)

    def params(self, text: str, workflow: str = "tiny") -> None:
        """Write a params file."""
        (self.root / "params" / f"{workflow}.yaml").write_text(text)

    def copy(self, target: Path) -> "Workplace":
        """The same project, with all its outputs, in another folder."""
        shutil.copytree(self.root, target, symlinks=True)
        return Workplace(target)


def make_texts(n: int, *, start: int = 0) -> str:
    """CSV of n short texts, spam and ham in turn, each of its own; one in twelve has the wrong label."""
    rows = ["text,label"]
    for number in range(start, start + n):
        is_spam = number % 2 == 0
        phrase = (SPAM if is_spam else HAM)[number // 2 % 4]
        label = "spam" if is_spam != (number % 12 == 5) else "ham"
        rows.append(f"{phrase} number {number},{label}")
    return "\n".join(rows) + "\n"


def make_workplace(root: Path) -> Workplace:
    """A project with our notebooks and one workflow, `tiny`, of 240 texts."""
    for folder in ("notebooks", "params"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy(ROOT / "requirements.lock", root)
    (root / "tiny.csv").write_text(make_texts(240))
    workplace = Workplace(root)
    workplace.params(TINY)
    return workplace


def miss(reason: str) -> None:
    """Skip, loudly; where everything is required, fail."""
    if REQUIRED:
        pytest.fail(f"required here: {reason}")
    pytest.skip(f"SKIPPED LOUDLY: {reason}")


@pytest.fixture()
def workplace(tmp_path: Path) -> Workplace:
    """A fresh project, nothing run yet."""
    return make_workplace(tmp_path / "project")


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A project whose workflow `tiny` has run once. Not to be changed: take `trained`."""
    workplace = make_workplace(tmp_path_factory.mktemp("trained") / "project")
    workplace.pinmill("run", "tiny")
    return workplace


@pytest.fixture()
def trained(trained_once: Workplace, tmp_path: Path) -> Workplace:
    """A copy of a project whose workflow `tiny` has run once."""
    return trained_once.copy(tmp_path / "project")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the project."""
    folder = Path(os.environ.get("PINMILL_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        miss(f"the shared data sets are not at {folder}; set PINMILL_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Debian's Chromium."""
    path = "/usr/bin/chromium"
    if not Path(path).is_file():
        miss("/usr/bin/chromium is absent: apt-get install chromium")
    return path


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end, where it is read, what was not tested."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("NOT TESTED HERE", sep="!", red=True, bold=True)
        for report in skipped:
            terminalreporter.line(f"{report.nodeid}: {report.longrepr[-1] if report.longrepr else ''}")
