"""Real parts for the tests: the shared data sets, and projects in temporary folders that run real kernels."""

import asyncio
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parent.parent
REQUIRED = os.environ.get("PINMILL_TEST_REQUIRE") == "all"  # set by .ci/run: there, nothing may be skipped
PINMILL = Path(sys.executable).with_name("pinmill")
NO_QUARTO = "SKIPPED LOUDLY: THE REAL QUARTO WAS NOT TESTED, only a stand-in: it is not on PATH"
CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

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
WORDS = " ".join(SPAM + HAM).split()


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

    def start(self, *words: str, **environ: str) -> subprocess.Popen:
        """Start `pinmill WORDS` and return at once; its output can be had with `communicate()`."""
        return subprocess.Popen(
            [PINMILL, *words],
            cwd=self.root,
            env=self.environ(**environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )

    def edit(self, notebook: str, old: str, new: str) -> None:
        """Replace `old`, which must stand in exactly one cell of a notebook."""
        path = self.root / "notebooks" / f"{notebook}.ipynb"
        content = json.loads(path.read_text())
        found = [cell for cell in content["cells"] if old in "".join(cell["source"])]
        assert len(found) == 1, f"{old!r} stands in {len(found)} cells of {notebook}"
        found[0]["source"] = "".join(found[0]["source"]).replace(old, new)
        path.write_text(json.dumps(content))

    def add_stage(self, stem: str, job: str, front: str, parameters: str, *code: str) -> None:
        """Write a light notebook that is a stage of a job; `front` is more of its front matter."""
        text = make_notebook(front, parameters, *code).replace("job: train", f"job: {job}")
        (self.root / "notebooks" / f"{stem}.ipynb").write_text(text)

    def add_cell(self, source: str, *tags: str) -> None:
        """Append a code cell to the serving notebook."""
        path = self.root / "notebooks/serve.ipynb"
        content = json.loads(path.read_text())
        cell = {"cell_type": "code", "execution_count": None, "outputs": [], "id": f"added{len(content['cells'])}"}
        content["cells"].append({**cell, "metadata": {"tags": list(tags)}, "source": source})
        path.write_text(json.dumps(content))

    def json(self, *words: str) -> object:
        """What `pinmill WORDS --json` prints, parsed."""
        return json.loads(self.pinmill(*words, "--json").stdout)

    def params(self, text: str, workflow: str = "tiny") -> None:
        """Write a params file."""
        (self.root / "params" / f"{workflow}.yaml").write_text(text)

    def make_second(self) -> bytes:
        """The file of a second model for `tiny`: the champion with all its weights halved."""
        from pinmill.board import Board
        from pinmill.model import load_model, save_model

        board = Board(self.root / "outputs/pins")
        model = load_model(board.read_file(board.pin("tiny-model")))
        model[-1].coef_ = model[-1].coef_ / 2
        return save_model(model)

    def write_second(self) -> str:
        """Write that model to the board, for which the gate has not seen it; its version, which is not champion."""
        from pinmill.board import Board

        board = Board(self.root / "outputs/pins")
        pin = board.pin("tiny-model")
        (name,) = pin.files
        known = {"facts": pin.facts, "lineage": pin.lineage}
        return board.write_file(pin.name, self.make_second(), file_name=name, **known).version

    def copy(self, target: Path) -> "Workplace":
        """The same project, with all its outputs, in another folder."""
        shutil.copytree(self.root, target, symlinks=True)
        return Workplace(target)


@dataclass(frozen=True)
class Server:
    """`pinmill serve` as a process of its own, on a free port."""

    workplace: Workplace
    process: subprocess.Popen
    url: str
    log: Path  # what it said on both outputs
    client: httpx.Client

    def ask(self, method: str, path: str, value: object = None, **options: Any) -> httpx.Response:
        """The answer to one request; `value` is sent as JSON."""
        return self.client.request(method, path, **({} if value is None else {"json": value}), **options)

    def wait_until(self, holds: Callable[[], bool], *, seconds: float = 30.0) -> None:
        """Wait for something to become true; fail the test, showing the log, when it does not."""
        try:
            wait_until(holds, seconds=seconds, process=self.process)
        except pytest.fail.Exception as failed:
            pytest.fail(f"{failed}\n{self.log.read_text()}")

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric; with labels, 0 as long as there is none with all of them."""
        families = text_string_to_metric_families(self.ask("GET", "/metrics").text)
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        found = [sample.value for sample in samples if sample.labels == labels]
        assert found or labels, f"{name} is not among the metrics"
        return found[0] if found else 0.0

    def is_ready(self) -> bool:
        """Whether a kernel holds a verified champion."""
        return self.ask("GET", "/ready").status_code == 200

    def kernels(self) -> list[int]:
        """The process ids of its kernels."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # it has just ended
                found += [child.pid] if "ipykernel_launcher" in child.cmdline() else []
        return found

    def stop(self) -> int:
        """End it as systemd would; its exit code."""
        self.client.close()
        self.process.terminate()
        return self.process.wait(60)


def start_server(workplace: Workplace, workflow: str, *words: str, ready: bool = True, **environ: str) -> Server:
    """Start `pinmill serve WORKFLOW` on a free port and, unless not `ready`, wait until it can answer."""
    log = workplace.root.parent / f"serve-{len(list(workplace.root.parent.glob('serve-*')))}.log"
    with log.open("wb") as output:
        command = [PINMILL, "serve", workflow, "--port", "0", *words]
        environment = workplace.environ(**environ)
        process = subprocess.Popen(command, cwd=workplace.root, env=environment, stdout=output, stderr=output)
    try:
        server = Server(workplace, process, "", log, httpx.Client())
        server.wait_until(lambda: f"{workflow}: http://" in log.read_text())
        url = log.read_text().partition(f"{workflow}: ")[2].split()[0]
        server = Server(workplace, process, url, log, httpx.Client(base_url=url, timeout=60))
        if ready:
            server.wait_until(server.is_ready, seconds=60)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return server


@dataclass(frozen=True)
class Answer:
    """What one request of a load got."""

    text: str
    response: httpx.Response | None  # None: the connection failed
    error: str
    asked: float  # s since 1970
    answered: float

    @property
    def status(self) -> int:
        return self.response.status_code if self.response else 0

    @property
    def version(self) -> str:
        return self.response.headers["X-Model-Version"] if self.response else ""


@dataclass
class Load:
    """Connections that ask for the prediction of one text after the other, each its own, until the block ends."""

    server: Server
    connections: int = 16
    pause: float = 0.03  # s between an answer and the next request of a connection
    answers: list[Answer] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self.ended = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.work()))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join(120)
        assert not self.thread.is_alive(), f"requests are without an answer\n{self.server.log.read_text()}"

    async def work(self) -> None:
        """Ask on all connections at once."""
        limits = httpx.Limits(max_connections=self.connections)
        known = {"base_url": self.server.url, "headers": self.server.client.headers}
        async with httpx.AsyncClient(**known, timeout=100, limits=limits) as client:
            await asyncio.gather(*(self.ask(client, random.Random(n)) for n in range(self.connections)))

    async def ask(self, client: httpx.AsyncClient, chance: random.Random) -> None:
        """Ask on one connection."""
        while not self.ended.is_set():
            text, asked = make_text(chance), time.time()
            try:
                got, error = await client.post("/prediction", params={"skip_cache": "true"}, json=text), ""
            except httpx.TransportError as failed:
                got, error = None, repr(failed)
            self.answers.append(Answer(text, got, error, asked, time.time()))
            await asyncio.sleep(self.pause)

    def wait_for(self, n: int) -> None:
        """Return when `n` more answers have come."""
        enough = len(self.answers) + n
        self.server.wait_until(lambda: len(self.answers) >= enough, seconds=90)

    def assert_own(self, workplace: Workplace) -> None:
        """Every answer that is one names the model that made it, and is that model's own for that text."""
        good = [answer for answer in self.answers if answer.status == 200]
        for version in {answer.version for answer in good}:
            mine = [answer for answer in good if answer.version == version]
            told = [answer.response.json() for answer in mine]
            assert {each["version"] for each in told} == {version}
            assert [each["probability"] for each in told] == predict(workplace, version, [a.text for a in mine])


def make_text(chance: random.Random) -> str:
    """A text of known words, each time another."""
    return " ".join(chance.choices(WORDS, k=7))


def predict(workplace: Workplace, version: str, texts: list[str]) -> list[dict[str, float]]:
    """The probabilities by label that a version of `tiny`'s model, loaded here, gives for texts."""
    import pandas
    from pinmill.board import Board
    from pinmill.model import load_model

    board = Board(workplace.root / "outputs/pins")
    model = load_model(board.read_file(board.pin("tiny-model", version)))
    shares = model.predict_proba(pandas.DataFrame({"text": texts}))
    return [dict(zip(model.classes_.tolist(), row, strict=True)) for row in shares.tolist()]


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


# Four stages that import nothing heavy, for what the runner does with any stages. A stage whose name is in a file
# `hold-…` waits, in a kernel that outlives its runner, until there is a file `release-<run id>`.
HOLD = """
import os, time, types
from pathlib import Path
from ipykernel import parentpoller

def hold():
    release, here = Path(f"release-{run.id}"), os.getppid()
    if Path(f"hold-{run.stage.name}").exists():
        parentpoller.os = types.SimpleNamespace(**{**vars(os), "getppid": lambda: here})
        Path(f"at-{run.stage.name}").write_text(str(os.getpid()))
        while not release.exists():
            time.sleep(0.01)
"""
WRITE = """
try:
    pin = run.write_json("{kind}", {value}{facts})
except Exception as error:
    Path(f"refused-{{run.id}}").write_text(f"{{type(error).__name__}}: {{error}}")
    raise
"""
FACTS = """,
        candidate=run.pin("model").version, candidate_sha256=run.pin("model").sha256, passed=score >= threshold,
        champion=run.champion.version if run.champion else None, reasons=[f"score {score:g}, threshold {threshold:g}"],
        headline={}"""
SMALL = {
    "01-prepare": ("reads: [source]\n  writes: [data]", "source: str = ''  # a file of numbers",
                   "numbers = [int(line) for line in Path(source).read_text().split()]",
                   WRITE.format(kind="data", value="numbers", facts="")),
    "02-train": ("reads: [data]\n  writes: [model]", "power: int = 1  # exponent 1..9",
                 "model = {'sum': sum(n**power for n in run.read_json('data'))}",
                 WRITE.format(kind="model", value="model", facts="")),
    "03-evaluate": ("reads: [data, model, champion]\n  writes: [metrics]",
                    "score: float = 0.9  # how good it is 0..1\nthreshold: float = 0.5  # least score 0..1",
                    "print(run.read_json('model'))", WRITE.format(kind="metrics", value="{}", facts=FACTS)),
    "04-model-card": ("reads: [data, model, metrics]\n  writes: []\n  page: model-card",
                      "caveats: str = ''  # what to be careful with", "print(run.read_json('model'))", "caveats"),
}  # fmt: skip


def make_notebook(front: str, parameters: str, *code: str) -> str:
    """JSON of a stage's notebook."""
    raw = f"---\ntitle: A stage\npinmill:\n  job: train\n  {front}\n---"
    declared = f"workflow: str = 'small'  # name of the workflow\n{parameters}"
    cells = [("raw", raw, []), ("markdown", "# A stage\n\nSome prose.", []), ("code", declared, ["parameters"])]
    cells += [("code", source.strip(), []) for source in ("import pinmill\n\nrun = pinmill.start(globals())", *code)]
    extra = {"code": {"execution_count": None, "outputs": []}}
    listed = [
        {"cell_type": kind, "id": f"c{n}", "metadata": {"tags": tags}, "source": source} | extra.get(kind, {})
        for n, (kind, source, tags) in enumerate(cells)
    ]
    return json.dumps({"cells": listed, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def make_small(root: Path) -> Workplace:
    """A project of four light stages and one workflow, `small`, of three numbers."""
    for folder in ("notebooks", "params"):
        (root / folder).mkdir(parents=True)
    for stem, (front, parameters, code, write) in SMALL.items():
        notebook = make_notebook(front, parameters, HOLD, f"hold()\n{code}\n{write.strip()}")
        (root / "notebooks" / f"{stem}.ipynb").write_text(notebook)
    for module in ("pyarrow", "skops", "sklearn"):  # the runner loads them ahead; these stages do without
        (root / f"{module}.py").write_text("raise ImportError('not in this project')\n")
    (root / "requirements.lock").write_text("numpy==2.0.0\n")
    (root / "numbers.txt").write_text("1\n2\n3\n")
    workplace = Workplace(root)
    workplace.params("workflow: small\nsource: numbers.txt\n", "small")
    return workplace


def miss(reason: str) -> None:
    """Skip, loudly; where everything is required, fail."""
    if REQUIRED:
        pytest.fail(f"required here: {reason}")
    pytest.skip(f"SKIPPED LOUDLY: {reason}")


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    """A fresh project, nothing run yet."""
    return make_workplace(tmp_path / "project")


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A project whose workflow `tiny` has run once. Not to be changed: take `trained`."""
    workplace = make_workplace(tmp_path_factory.mktemp("trained") / "project")
    workplace.pinmill("run", "tiny")
    return workplace


@pytest.fixture
def trained(trained_once: Workplace, tmp_path: Path) -> Workplace:
    """A copy of a project whose workflow `tiny` has run once."""
    return trained_once.copy(tmp_path / "project")


@pytest.fixture
def serve(request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    """The function that starts `pinmill serve tiny` in a project of the test's own; all are ended afterwards."""
    started: list[Server] = []

    def start(*words: str, workplace: Workplace | None = None, **options: Any) -> Server:
        """A service that is ready, unless `ready=False`; of `trained`, unless another project is given."""
        started.append(start_server(workplace or request.getfixturevalue("trained"), "tiny", *words, **options))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def start_service() -> Callable[..., Server]:
    """The function `start_server`, for a service of the caller's own making, who stops it."""
    return start_server


@pytest.fixture(scope="session")
def predict_here() -> Callable[..., list[dict[str, float]]]:
    """The function `predict`."""
    return predict


@pytest.fixture(scope="session")
def load() -> type[Load]:
    """The class of loads, to be used with `with`."""
    return Load


@pytest.fixture(scope="module")
def served(trained_once: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service of `tiny` for a module's tests that change nothing of it."""
    server = start_server(trained_once.copy(tmp_path_factory.mktemp("served") / "project"), "tiny")
    yield server
    assert server.stop() == 0, server.log.read_text()


@pytest.fixture
def small(tmp_path: Path) -> Workplace:
    """A fresh project of light stages, nothing run yet."""
    return make_small(tmp_path / "project")


@pytest.fixture(scope="session")
def small_trained_once(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A project of light stages that has run once. Not to be changed: take `small_trained`."""
    workplace = make_small(tmp_path_factory.mktemp("small") / "project")
    workplace.pinmill("run", "small")
    return workplace


@pytest.fixture
def small_trained(small_trained_once: Workplace, tmp_path: Path) -> Workplace:
    """A copy of a project of light stages that has run once."""
    return small_trained_once.copy(tmp_path / "project")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty folder on a disk of its own of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        miss(f"a small disk cannot be mounted here ({mounted.stderr.strip()})")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """The function that makes a new place for a store in a real PostgreSQL: its URL. Root starts it as `postgres`."""
    bins = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not bins:
        miss("PostgreSQL is absent: apt-get install postgresql")
    from psycopg import connect

    folder = Path(tempfile.mkdtemp(prefix="pinmill-postgres-", dir="/tmp"))  # short: it holds a socket's address
    data, user = folder / "data", "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)

    def run(program: str, *words: str) -> None:
        with (folder / "server.log").open("a") as log:
            command = [bins[-1].with_name(program), "-D", data, *words]
            done = subprocess.run(command, user=user, cwd=folder, stdout=log, stderr=log, timeout=120, check=False)
        assert done.returncode == 0, (folder / "server.log").read_text()

    def make_place() -> str:
        """The URL of a schema that is empty."""
        name = f"place_{next(numbers)}"
        with connect(host=str(folder), dbname="postgres", user="pinmill", autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"postgresql+psycopg://pinmill@/postgres?host={folder}&options=-csearch_path%3D{name}"

    numbers = itertools.count()
    run("initdb", "-U", "pinmill", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
    run("pg_ctl", "-w", "-o", f"-k {folder} -h '' -F", "start")
    yield make_place
    run("pg_ctl", "-w", "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a store can be made: a file, then a schema in a real PostgreSQL."""
    if request.param == "sqlite":
        return tmp_path / "outputs" / "pinmill.sqlite"
    return request.getfixturevalue("postgres")()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the project."""
    folder = Path(os.environ.get("PINMILL_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        miss(f"the shared data sets are not at {folder}; set PINMILL_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def find_program() -> Callable[[str, str], str]:
    """Where a program of a Debian package is; the test is missed, loudly, when it is absent."""

    def find(name: str, package: str) -> str:
        """The program's path, also among those for root."""
        found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
        return found or miss(f"{name} is absent: apt-get install {package}")

    return find


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Debian's Chromium."""
    path = "/usr/bin/chromium"
    if not Path(path).is_file():
        miss("/usr/bin/chromium is absent: apt-get install chromium")
    return path


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator["Browser"]:
    """Headless Chromium that does nothing of its own on the network."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        started = running.chromium.launch(executable_path=chromium, args=CHROMIUM)
        yield started
        started.close()


@pytest.fixture(scope="module")
def visit(browser: "Browser") -> Callable[..., tuple["Page", list[str]]]:
    """Open an address with the network cut off: the page, and all that it asked for, said, or popped up."""

    def open_page(address: str, **options: object) -> tuple["Page", list[str]]:
        """The opened page, in a window as `options` say, and its events, without pictures that stand in it."""
        page, events = browser.new_context(offline=True, **options).new_page(), []
        page.on("request", lambda request: events.append(request.url))
        page.on("console", lambda message: events.append(message.text))
        page.on("pageerror", lambda error: events.append(str(error)))
        page.on("dialog", lambda dialog: events.append(dialog.message))
        page.goto(address, wait_until="networkidle")
        return page, [event for event in events if not event.startswith("data:image/")]

    return open_page


@pytest.fixture(scope="session")
def real_quarto() -> Path:
    """The real Quarto. Its package downloads it while it installs, so CI may lack it, and skips, loudly, even there."""
    from pinmill.quarto import find_quarto

    program = find_quarto(os.environ["PATH"])
    return program or pytest.skip(NO_QUARTO)


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program called `quarto` that plays the real one, see quarto_stand_in.py."""
    program = tmp_path_factory.mktemp("bin") / "quarto"
    program.write_text(f"#!{sys.executable}\n{Path(__file__).with_name('quarto_stand_in.py').read_text()}")
    program.chmod(0o755)
    return program


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end, where it is read, what was not tested."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("NOT TESTED HERE", sep="!", red=True, bold=True)
        for report in skipped:
            terminalreporter.line(f"{report.nodeid}: {report.longrepr[-1] if report.longrepr else ''}")
