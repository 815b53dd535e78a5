"""How fast `pinmill serve` answers, beside what a team would write by hand, on the same machine in alternating rounds.

The same model, trained on the same rows of spam.csv, on every side; one text to a POST, 1,000 texts in turn, by wrk:
  pinmill   one kernel; checks, token, limits and call log on; cache off
  FastAPI   a sync endpoint as tutorials write it, with one worker and with two; an async one; access log off
  vetiver   VetiverAPI, which answers with labels alone
  BentoML   with its batching, if asked for with --bentoml
All servers stand ready, and in each round each takes its turn at 1 and at 32 connections. Ratios are taken within a
round; the table has medians over the rounds, with the least and the most. Then, with our server alone: cached answers,
the first answer after a start, memory, and whether answers at 64 connections equal unbatched predictions.
Everything that is made, and the peers' environment, stays in --folder, for the next time.

Run: .venv/bin/python tests/benchmarks/serving.py [--model default] [--peers]     needs wrk: apt-get install wrk
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
HERE = Path(__file__).with_suffix("")
DATA = os.environ.get("PINMILL_TEST_DATA") or os.environ.get("PINMILL_DATA") or str(ROOT.parent / "shared" / "data")
SAME = ("scikit-learn", "numpy", "scipy", "joblib")  # what decides over a prediction's cost, equal on all sides
WORDS = """\
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

described = "A linear model that weighs words and pairs of words"
vectorizers = [("text_words", TfidfVectorizer(ngram_range=(1, 2)), "text")]
visible = make_pipeline(ColumnTransformer(vectorizers), LogisticRegression())
"""
TABLE = {"bank": ("estimator=linear",), "spam": ()}  # linear: batches of it differ from single rows in the last bit
OURS, CACHED, SYNC, SYNC_2, ASYNC = "pinmill", "pinmill, cached", "FastAPI", "FastAPI, 2 workers", "FastAPI, async"
MANY = 32
REPORTED = "reported"
TEXTS = 1000
GROWTH = 1.1  # memory after 200,000 requests by that after 2,000: the allocator settles (82, 88, at 580,000 90 MB)


@dataclass(frozen=True)
class Server:
    """One side: how it is started (`{port}` is filled in), asked and understood. `ask` gives the body for a text."""

    name: str
    command: Sequence[str]
    folder: Path
    path: str
    ask: Callable[[Any], Any]
    read: Callable[[Any], Any]  # from an answer: the probability of spam, or the label alone
    ready: str = "/docs"
    environ: Mapping[str, str] = field(default_factory=dict)

    def file(self, suffix: str) -> Path:
        """A file of this server's own."""
        return self.folder / f"{'-'.join(re.findall(r'[a-z0-9]+', self.name.lower()))}{suffix}"


@dataclass(frozen=True)
class Running:
    """A server that answers, at an address of this machine."""

    server: Server
    process: subprocess.Popen
    address: str
    seconds: float  # from the start of the process to the first answer to a POST with status 200

    @property
    def headers(self) -> dict[str, str]:
        token = self.server.environ.get("BENCH_TOKEN")
        return {"Authorization": f"Bearer {token}"} if token else {}


def run(*command: str | Path, folder: Path, **environ: str) -> str:
    """What a command prints; the benchmark ends, showing all, when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, env={**os.environ, **environ}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed (exit {done.returncode}):\n{done.stdout}\n{done.stderr}")
    return done.stdout


def make_environment(folder: Path, *, bentoml: bool) -> Path:
    """The folder of programs of the peers' own environment, made anew when what it should hold has changed."""
    wanted = (HERE / "requirements.txt").read_text(encoding="utf-8") + "bentoml\n" * bentoml
    wanted += "".join(f"{name}=={metadata.version(name)}\n" for name in SAME)
    programs, listed = folder / "peers" / "bin", folder / "peers" / "requirements.txt"
    if not listed.is_file() or listed.read_text(encoding="utf-8") != wanted:
        print("installing the peers (once) …", flush=True)
        shutil.rmtree(folder / "peers", ignore_errors=True)
        run(sys.executable, "-m", "venv", folder / "peers", folder=folder)
        (folder / "peers.txt").write_text(wanted, encoding="utf-8")
        pip = [programs / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        run(*pip, "-r", folder / "peers.txt", folder=folder)
        os.replace(folder / "peers.txt", listed)
    return programs


def make_project(folder: Path, workflow: str, *, words: bool) -> dict[str, str]:
    """Train a champion in a copy of our project, with nothing in its store; the environment in which to work with it.

    With `words`, the cell of 02-train that shows the model gets the one of the benchmark.
    """
    for part in ("notebooks", "params"):
        shutil.rmtree(folder / part, ignore_errors=True)
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy(ROOT / "requirements.lock", folder)
    for file in (folder / "outputs").glob("pinmill.sqlite*"):
        file.unlink()
    if words:
        path = folder / "notebooks" / "02-train.ipynb"
        notebook = json.loads(path.read_text(encoding="utf-8"))
        (cell,) = [cell for cell in notebook["cells"] if "visible = make_pipeline(" in "".join(cell["source"])]
        cell["source"] = WORDS
        path.write_text(json.dumps(notebook), encoding="utf-8")
    environ = {"PINMILL_DATA": DATA, "PINMILL_HOME": str(folder)}
    settings = [word for setting in ("cv=0", "draws=50", *TABLE[workflow]) for word in ("--set", setting)]
    run(BIN / "pinmill", "run", workflow, *settings, folder=folder, **environ)
    return environ


def read_training_rows(folder: Path, part: str) -> tuple[Any, dict[str, Any]]:
    """The rows of one part of the data that the champion in `folder` saw, and the facts about them."""
    from pinmill.board import Board

    board = Board(folder / "outputs" / "pins")
    (name,) = [name for name in board.names() if name.endswith("-data")]
    pin = board.pin(name)
    rows = board.read_table(pin)
    return rows[rows["_part"] == part], dict(pin.facts)


def find_port() -> int:
    """A port of this machine that nobody has."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return tried.getsockname()[1]


@contextmanager
def serve(server: Server, text: Any) -> Iterator[Running]:
    """A server that runs while the context does; it is up when it has answered a POST with `text` with status 200."""
    port, log = find_port(), server.file(".log")
    command = [word.format(port=port) for word in server.command]
    with log.open("w", encoding="utf-8") as output:
        clock = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=server.folder,
            env={**os.environ, **server.environ},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            running = Running(server, process, f"http://127.0.0.1:{port}", 0.0)
            wait_ready(running, text, log, until=time.monotonic() + 120)
            yield Running(server, process, running.address, time.perf_counter() - clock)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # the group is this server's own
                process.wait()


def wait_ready(running: Running, text: Any, log: Path, *, until: float) -> None:
    """Return when the server is ready and has answered one POST; the benchmark ends if it does not come to that."""
    server, said = running.server, "nothing"
    with httpx.Client(base_url=running.address, headers=running.headers) as client:
        while time.monotonic() < until and running.process.poll() is None:
            try:
                if client.get(server.ready).status_code == 200:
                    answer = client.post(server.path, json=server.ask(text))
                    if answer.status_code == 200:
                        return
                    said = f"{answer.status_code} {answer.text[:500]}"
            except httpx.TransportError as error:
                said = repr(error)
            time.sleep(0.02)
    sys.exit(
        f"{server.name} is not ready, it says {said}:\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}"
    )


def load(running: Running, connections: int, seconds: int, bodies: Path) -> dict[str, float]:
    """Put a server under load by wrk: requests/s, p50 and p99 [ms], processor time per request [µs].

    A failed request ends the benchmark.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", HERE / "post.lua"]
    target = [f"{running.address}{running.server.path}", "--", bodies]
    before = read_busy(running.process)
    printed = run(*command, *target, folder=HERE, **running.server.environ)
    busy, result = read_busy(running.process) - before, json.loads(printed.strip().splitlines()[-1])
    if result["failed"] or not result["requests"]:
        sys.exit(f"{running.server.name}: {result['failed']} of {result['requests']} requests failed:\n{printed}")
    more = {"rate": result["requests"] / result["seconds"], "busy": 1e6 * busy / result["requests"]}
    return result | more


def read_busy(process: subprocess.Popen) -> float:
    """Processor time that a server and all processes below it took so far [s]."""
    server = psutil.Process(process.pid)
    times = [each.cpu_times() for each in (server, *server.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def write_bodies(server: Server, texts: Sequence[Any]) -> Path:
    """A file of request bodies, one to a line."""
    path = server.file(".jsonl")
    path.write_text("".join(json.dumps(server.ask(text)) + "\n" for text in texts), encoding="utf-8")
    return path


def list_peers(programs: Path, folder: Path, *, bentoml: bool) -> list[Server]:
    """The other sides, which have their model in `folder`."""
    uvicorn = (str(programs / "uvicorn"), "--host", "127.0.0.1", "--port", "{port}", "--app-dir", str(HERE))
    quiet = ("--no-access-log", "--log-level", "warning")
    quick = (*uvicorn, *quiet)
    record, chance = (lambda text: {"text": text}), (lambda answer: answer["probability"]["spam"])
    peers = [
        Server(SYNC, (*quick, "fastapi_sync:app"), folder, "/predict", record, chance),
        Server(SYNC_2, (*quick, "--workers", "2", "fastapi_sync:app"), folder, "/predict", record, chance),
        Server(ASYNC, (*quick, "fastapi_async:app"), folder, "/predict", record, chance),
        Server("vetiver", (*quick, "vetiver_api:app"), folder, "/predict", lambda text: [{"text": text}],
               lambda answer: answer["predict"][0], ready="/ping"),
    ]  # fmt: skip
    if bentoml:
        command = (str(programs / "bentoml"), "serve", "--host", "127.0.0.1", "--port", "{port}", "--working-dir",
                   str(HERE), "bentoml_service:Spam")  # fmt: skip
        environ = {"MODEL": str(folder / "model.joblib"), "DO_NOT_TRACK": "True", "BENTOML_DO_NOT_TRACK": "True"}
        peers.append(
            Server("BentoML", command, folder, "/predict", lambda text: {"messages": [{"text": text}]},
                   lambda answer: answer[0]["probability"]["spam"], ready="/readyz", environ=environ)
        )  # fmt: skip
    return peers


def list_ours(folder: Path, environ: Mapping[str, str], workflow: str, *, kernels: int) -> tuple[Server, Server]:
    """`pinmill serve` without and with its cache; both need the token that is made here."""
    token = run(BIN / "pinmill", "token", "create", "bench", "--role", "scorer", folder=folder, **environ).strip()
    command = (str(BIN / "pinmill"), "serve", workflow, "--host", "127.0.0.1", "--port", "{port}",
               "--kernels", str(kernels))  # fmt: skip
    known = {**environ, "BENCH_TOKEN": token}

    def make(name: str, *more: str) -> Server:
        """One of the two."""
        read = (lambda answer: answer["probability"]["spam"]) if workflow == "spam" else lambda answer: answer
        return Server(name, (*command, *more), folder, "/prediction", lambda text: text, read, "/ready", known)

    return make(OURS, "--no-cache"), make(CACHED)


def check_answers(servers: Sequence[Running], texts: Sequence[str]) -> None:
    """End the benchmark unless all sides say the same of some texts: otherwise they do not run the same model."""
    said = {}
    for running in servers:
        server = running.server
        with httpx.Client(base_url=running.address, headers=running.headers) as client:
            answers = [client.post(server.path, json=server.ask(text)).json() for text in texts]
        said[server.name] = [server.read(answer) for answer in answers]
    expected = said[SYNC]
    for name, values in said.items():
        pairs = list(zip(values, expected, strict=True))
        wrong = [p for p in pairs if (p[0] == "spam") != (p[1] > 0.5)] if isinstance(values[0], str) else [
            p for p in pairs if abs(p[0] - p[1]) > 1e-6
        ]  # fmt: skip
        if wrong:
            sys.exit(f"{name} and {SYNC} do not run the same model: {len(wrong)} of {len(pairs)} differ: {wrong[0]}")


Results = dict[tuple[str, int], list[dict[str, float]]]


def measure_speed(
    servers: Sequence[Running], cached: Running | None, texts: Sequence[str], *, rounds: int, seconds: int
) -> Results:
    """What wrk saw of each server and number of connections, round by round."""
    jobs = [(running, connections) for connections in (1, MANY) for running in servers]
    jobs += [(cached, MANY)] if cached else []
    bodies = {running.server.name: write_bodies(running.server, texts) for running in servers}
    bodies |= {CACHED: write_bodies(cached.server, texts[:1])} if cached else {}
    for running, connections in jobs:
        if connections == MANY:
            load(running, connections, min(2, seconds), bodies[running.server.name])
    results: Results = {(running.server.name, connections): [] for running, connections in jobs}
    for number in range(rounds):
        turn = number % len(jobs)
        for running, connections in jobs[turn:] + jobs[:turn]:
            name = running.server.name
            results[name, connections].append(load(running, connections, seconds, bodies[name]))
        loads = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        rates = ", ".join(f"{name} ({n}) {found[-1]['rate']:,.0f}" for (name, n), found in results.items())
        print(f"round {number + 1}: {rates}; load average {loads}", flush=True)
    return results


def render_results(results: Results) -> str:
    """The results as a Markdown table."""
    lines = [
        "| server | connections | requests/s | least–most | p50 [ms] | p99 [ms] | processor [µs/request] |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for (name, connections), found in results.items():
        rates = [each["rate"] for each in found]
        p50, p99, busy = (median(each[key] for each in found) for key in ("p50", "p99", "busy"))
        spread = f"{min(rates):,.0f}–{max(rates):,.0f}"
        shown = f"{median(rates):,.0f} | {spread} | {p50:.2f} | {p99:.2f} | {busy:,.0f}"
        lines.append(f"| {name} | {connections} | {shown} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Target:
    """Something the issue asks for, and what was measured."""

    what: str
    wanted: str
    measured: str
    met: bool

    @property
    def verdict(self) -> str:
        return "" if self.wanted == REPORTED else "met" if self.met else "MISSED"


def divide(results: Results, one: tuple[str, int], other: tuple[str, int], key: str) -> list[float]:
    """`key` of one as a multiple of that of the other, round by round."""
    pairs = zip(results[one], results[other], strict=True)
    return [mine[key] / theirs[key] for mine, theirs in pairs]


def judge_speed(results: Results, kind: str) -> list[Target]:
    """The targets for speed beside what was measured."""
    factors = {"words": (8, 4, 6), "default": (4, None, None)}[kind]
    wanted = [(OURS, SYNC, MANY, "rate", factors[0]), (OURS, SYNC_2, MANY, "rate", factors[1]),
              (OURS, ASYNC, MANY, "rate", factors[2])]  # fmt: skip
    wanted += [(OURS, name, MANY, "p99", 0.25) for name in (SYNC, SYNC_2, ASYNC)] if kind == "words" else []
    wanted += [(OURS, SYNC, 1, "rate", 0.8)] if kind == "words" else []
    wanted += [(CACHED, SYNC, MANY, "rate", 3)] if (CACHED, MANY) in results else []
    targets = []
    for name, peer, connections, key, factor in wanted:
        ratios = divide(results, (name, connections), (peer, connections), key)
        ratio, least = median(ratios), key == "rate"
        met = factor is None or (ratio >= factor if least else ratio <= factor)
        limit = REPORTED if factor is None else f"{'≥' if least else '≤'} {factor:g} ×"
        of = "requests/s" if least else "p99"
        what = f"{of} of {name} / {peer}, {connections} connection{'s' * (connections > 1)}"
        targets.append(Target(what, limit, f"{ratio:.2f} × ({min(ratios):.2f}–{max(ratios):.2f})", met))
    return targets


def measure_start(server: Server, text: Any, times: int = 3) -> Target:
    """Seconds from the start of the process to the first answer, and how much of it processors worked."""
    seconds, busy = [], []
    for _ in range(times):
        with serve(server, text) as running:
            seconds.append(running.seconds)
            busy.append(read_busy(running.process))
    told = f"{median(seconds):.1f} s ({min(seconds):.1f}–{max(seconds):.1f}; processor time {median(busy):.1f} s)"
    return Target("first 200 after the start", "≤ 6 s", told, median(seconds) <= 6)


def read_memory(process: subprocess.Popen) -> tuple[float, float]:
    """Resident memory of a server and of all processes below it [MB]."""
    gateway = psutil.Process(process.pid)
    return gateway.memory_info().rss / 1e6, sum(p.memory_info().rss for p in gateway.children(recursive=True)) / 1e6


def measure_memory(server: Server, texts: Sequence[str], *, most: int) -> list[Target]:
    """Memory of gateway and kernel after 2,000 requests and after many."""
    with serve(server, texts[0]) as running:
        bodies, answered, seen = write_bodies(server, texts), 0, []
        for goal, seconds in ((2000, 1), (most, 5)):
            while answered < goal:
                answered += int(load(running, MANY, seconds, bodies)["requests"])
            seen.append((answered, *read_memory(running.process)))
    (first, *before), (last, *after) = seen
    return [
        Target(f"memory of the {name} after {last:,} requests", f"≤ {GROWTH:g} × that after {first:,}",
               f"{then:.0f} → {now:.0f} MB ({now / then:.2f} ×)", now <= GROWTH * then)
        for name, then, now in zip(("gateway", "kernel"), before, after, strict=True)
    ]  # fmt: skip


async def ask_many(running: Running, rows: Sequence[Any], connections: int) -> list[Any]:
    """The answers to one POST for each row, in order, over that many connections at once."""
    answers: list[Any] = [None] * len(rows)
    numbers = iter(range(len(rows)))
    async with httpx.AsyncClient(base_url=running.address, headers=running.headers, timeout=60) as client:
        gate = asyncio.Barrier(connections)

        async def ask() -> None:
            """One connection: take the next row until there is none."""
            await gate.wait()
            for number in numbers:
                answer = await client.post(running.server.path, json=running.server.ask(rows[number]))
                if answer.status_code != 200:
                    sys.exit(f"row {number}: {answer.status_code} {answer.text[:500]}")
                answers[number] = answer.json()

        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(ask())
    return answers


def measure_equality(server: Server, workflow: str, rows: Any, *, tolerance: float) -> Target:
    """Whether probabilities for 1,000 rows at 64 connections are those of the model for each row alone."""
    from pinmill.board import Board
    from pinmill.champion import read_champion
    from pinmill.model import load_model

    board = Board(server.folder / "outputs" / "pins")
    pin = board.pin(f"{workflow}-model", read_champion(board, workflow).version)
    model, inputs = load_model(board.read_file(pin)), rows[list(pin.facts["prototype"])]
    records = inputs.astype(object).where(inputs.notna(), None).to_dict("records")
    asked = [next(iter(record.values())) if len(record) == 1 else record for record in records]
    with serve(server, asked[0]) as running:
        answers = asyncio.run(ask_many(running, asked, 64))
    alone = [model.predict_proba(inputs.iloc[[row]])[0].tolist() for row in range(len(inputs))]
    labels = [str(getattr(label, "item", lambda label=label: label)()) for label in model.classes_]
    pairs = [
        (answer["probability"][label], share)
        for answer, shares in zip(answers, alone, strict=True)
        for label, share in zip(labels, shares, strict=True)
    ]
    worst, differing = max(abs(a - b) for a, b in pairs), sum(a != b for a, b in pairs)
    told = f"{differing} of {len(pairs):,} probabilities differ, by {worst:.1e} at most"
    wanted = f"≤ {tolerance:g}" if tolerance else "bit for bit"
    return Target(f"answers for {len(rows):,} rows of {workflow} at 64 connections", wanted, told, worst <= tolerance)


def prepare(folder: Path, kind: str, *, kernels: int, bentoml: bool, alone: bool) -> tuple[list[Server], Any]:
    """All sides with the same model, ours first unless the peers stand `alone`; and the rows to ask them for."""
    project, models = folder / kind, folder / f"{kind}-peers"
    for each in (project, models):
        each.mkdir(parents=True, exist_ok=True)
    programs = make_environment(folder, bentoml=bentoml)
    environ = make_project(project, "spam", words=kind == "words")
    train, about = read_training_rows(project, "train")
    rows = {"texts": train["text"].tolist(), "labels": train[about["label"]].tolist()}
    (models / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    run(programs / "python", HERE / "train.py", kind, "rows.json", folder=models)
    ours = () if alone else list_ours(project, environ, "spam", kernels=kernels)
    asked = train.iloc[:: max(1, len(train) // TEXTS)][:TEXTS]
    return [*ours, *list_peers(programs, models, bentoml=bentoml)], asked


def compare(servers: Sequence[Server], texts: Sequence[str], kind: str, *, rounds: int, seconds: int) -> list[Target]:
    """Print how fast all sides are, and judge ours if it is among them."""
    with ExitStack() as stack:
        running = {server.name: stack.enter_context(serve(server, texts[0])) for server in servers}
        check_answers(list(running.values()), texts[:50])
        cached = running.pop(CACHED, None)
        results = measure_speed(list(running.values()), cached, texts, rounds=rounds, seconds=seconds)
    print(f"\n{render_results(results)}\n", flush=True)
    return judge_speed(results, kind) if cached else []


def compare_table(folder: Path, *, kernels: int) -> Target:
    """Whether answers for rows of a table are those of the model."""
    folder.mkdir(exist_ok=True)
    environ = make_project(folder, "bank", words=False)
    rows, _ = read_training_rows(folder, "test")
    server, _ = list_ours(folder, environ, "bank", kernels=kernels)
    return measure_equality(server, "bank", rows[:TEXTS], tolerance=1e-12)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", choices=("words", "default"), default="words", help="word n-grams, or 02-train's own"
    )
    parser.add_argument("--seconds", type=int, default=8, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kernels", type=int, default=1)
    parser.add_argument("--requests", type=int, default=200_000, help="how many, for the memory")
    parser.add_argument("--parts", default="speed,start,memory,equality", help="some of these")
    parser.add_argument("--bentoml", action="store_true", help="BentoML also")
    parser.add_argument("--peers", action="store_true", help="the peers only")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "pinmill-serving")
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is absent. Install it: apt-get install wrk")
    folder, parts = given.folder.resolve(), given.parts.split(",")
    servers, rows = prepare(folder, given.model, kernels=given.kernels, bentoml=given.bentoml, alone=given.peers)
    texts, ours = rows["text"].tolist(), servers[0]
    about = ", ".join(f"{name} {metadata.version(name)}" for name in SAME)
    busy = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load average {busy:.1f}, {about}; model: {given.model}", flush=True)
    if busy > 1.5:
        print("others work on this machine: requests/s and latencies say little, processor time more", flush=True)
    steps = {
        "speed": lambda: compare(servers, texts, given.model, rounds=given.rounds, seconds=given.seconds),
        "start": lambda: [measure_start(ours, texts[0])],
        "memory": lambda: measure_memory(ours, texts, most=given.requests),
        "equality": lambda: [
            measure_equality(ours, "spam", rows, tolerance=0.0),
            compare_table(folder / "bank", kernels=given.kernels),
        ],
    }
    met, head = True, "| what | target | measured | |\n|---|--:|--:|---|\n"
    for part in ["speed"] if given.peers else parts:
        for target in steps[part]():
            print(f"{head}| {target.what} | {target.wanted} | {target.measured} | {target.verdict} |", flush=True)
            met, head = met and target.met, ""
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
