"""Notifications: who is told of what, once; and a service that is dead, which holds up nothing."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiosmtpd.controller import Controller
from pinmill.incidents import Incident, Known, compare
from pinmill.notify import BETWEEN, Message, announce, hide_urls, name_place, send
from pinmill.project import Project

if TYPE_CHECKING:
    from conftest import Workplace

PASSWORD, TOKEN, SECRET = "open-sesame-7", "XoPb4T9sQm2LzKf8RtWy", "hunter-two-hunter"
BROKEN = "raise ValueError('<b>bad</b> ' + chr(10) + 'next: run me' + chr(7) + 'x' * 5000)"
BUILT = 'model = {"sum": sum(n**power for n in run.read_json("data"))}'.replace('"', "'")


@dataclass
class Hook:
    """A webhook on a port of its own; while it is `down` it refuses what it gets with 503."""

    server: ThreadingHTTPServer
    got: list[dict] = field(default_factory=list)
    down: bool = False
    arrived: threading.Event = field(default_factory=threading.Event)
    answers: threading.Event = field(default_factory=threading.Event)  # whether it answers, or lets callers wait

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.server.server_port}/{TOKEN}"

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.got]


@contextmanager
def open_hook() -> Iterator[Hook]:
    """A webhook that keeps what it is told."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not hook.down:
                hook.got.append(json.loads(body))
            hook.arrived.set()
            hook.answers.wait(60)
            self.send_response(503 if hook.down else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hook = Hook(server)
        hook.answers.set()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield hook
        server.shutdown()
        thread.join()


@pytest.fixture
def hook() -> Iterator[Hook]:
    with open_hook() as opened:
        yield opened


@dataclass
class Mail:
    """A mail server, and what it took."""

    port: int = 0
    got: list[EmailMessage] = field(default_factory=list)

    async def handle_DATA(self, server: object, session: object, envelope: object) -> str:
        self.got.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"

    @property
    def url(self) -> str:
        return f"mailto://127.0.0.1:{self.port}/?smtp=127.0.0.1&from=pinmill@example.org&to=team@example.org"


@pytest.fixture
def mail() -> Iterator[Mail]:
    """A real SMTP server on a free port."""
    taken = Mail()
    controller = Controller(taken, hostname="127.0.0.1", port=free_port())
    controller.start()
    taken.port = controller.port
    yield taken
    controller.stop()


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def open_silence() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def break_training(place: Workplace) -> None:
    place.edit("02-train", BUILT, f"{BUILT}\n{BROKEN}")


def mend_training(place: Workplace) -> None:
    place.edit("02-train", f"{BUILT}\n{BROKEN}", BUILT)


def add_params(place: Workplace, text: str) -> None:
    file = place.root / "params/small.yaml"
    file.write_text(f"{file.read_text()}{text}\n")


def find_everywhere(place: Workplace, text: str) -> list[Path]:
    """Files of a project that hold a text."""
    files = [path for path in place.root.rglob("*") if path.is_file()]
    return [path.relative_to(place.root) for path in files if text.encode() in path.read_bytes()]


def lines_of(body: str) -> dict[str, str]:
    """The facts in a message, by their names."""
    return dict(line.split(": ", 1) for line in body.splitlines() if ": " in line and not line.startswith(" "))


def test_a_failure_is_told_once_with_the_facts_and_again_when_it_is_mended(
    small: Workplace, hook: Hook, mail: Mail
) -> None:
    environ = {"PINMILL_NOTIFY": f"{hook.url},{mail.url}"}
    small.pinmill("run", "small", **environ)
    assert (hook.got, mail.got, (small.root / "outputs/incidents").exists()) == ([], [], False)
    last = small.json("runs", "small")[0]["run"]
    break_training(small)
    small.pinmill("run", "small", code=4, **environ)
    failed = small.json("runs", "small")[0]["run"]
    (told,), (letter,) = hook.got, mail.got
    assert (told["title"], told["type"]) == ("[Pinmill] small: failed in 02-train", "failure")
    assert letter["subject"] == told["title"]
    assert (letter["to"], letter.get_content_type()) == ("team@example.org", "text/plain")
    assert letter.get_content().split() == told["message"].split()
    head, *facts = told["message"].splitlines()
    assert head == "failed in 02-train"
    assert facts[-1] == f"from: {small.root} on {platform.node()}"
    where = facts.index("error:")
    assert facts[:where] == ["workflow: small (small)", "job: train", f"run: {failed}", "stage: 02-train"]
    error = [line for line in facts[where + 1 :] if line.startswith("    ")]
    assert error[0].startswith("    02-train, cell ")
    assert error[0].endswith(": ValueError: <b>bad</b>")
    assert error[1] == f"    next: run me {'x' * (240 - 13)} …"
    assert f"    The executed notebook is kept: outputs/runs/small/{failed}/02-train.ipynb" in error
    assert lines_of(told["message"]) | {
        "last finished run": f"{last}, succeeded",
        "page": "reports/_pages/index.html",
        "next": "pinmill run small",
    } == lines_of(told["message"])
    changed = facts[facts.index("changed:") + 1 : facts.index(f"last finished run: {last}, succeeded")]
    assert "    02-train: the notebook's code" in changed
    small.edit("02-train", "'<b>bad</b> '", "'other words'")
    small.pinmill("run", "small", code=4, **environ)
    assert (len(hook.got), len(mail.got)) == (1, 1)
    (known,) = json.loads((small.root / "outputs/incidents/small.train.json").read_text())
    assert "ValueError: other words" in known["incident"]["text"]
    small.edit("02-train", f"\n{BROKEN}".replace("<b>bad</b> ", "other words"), "")
    small.pinmill("run", "small", **environ)
    assert hook.titles[1:] == ["[Pinmill] small: recovered, failed in 02-train"]
    assert hook.got[1]["type"] == "success"
    facts = {"workflow": "small", "job": "train", "recovered": "failed in 02-train", "since": known["since"]}
    assert lines_of(hook.got[1]["message"]) | facts == lines_of(hook.got[1]["message"])
    assert [letter["subject"] for letter in mail.got] == hook.titles
    small.pinmill("run", "small", **environ)
    assert (len(hook.got), len(mail.got)) == (2, 2)


def test_each_rejected_candidate_is_told_once_and_a_failure_does_not_end_it(small: Workplace, hook: Hook) -> None:
    def run(code: int, *words: str) -> list[str]:
        """The titles of what is told of a run."""
        before = len(hook.got)
        pages = {"PINMILL_NOTIFY": hook.url, "PINMILL_PAGES_URL": "https://models.example.org/pages/"}
        assignments = [part for word in words for part in ("--set", word)]
        small.pinmill("run", "small", *assignments, code=code, **pages)
        return hook.titles[before:]

    rejected = "[Pinmill] small: rejected by the gate"
    assert run(3, "threshold=0.95") == [rejected]
    record = small.json("runs", "small")[0]
    told = hook.got[0]
    assert told["type"] == "warning"
    assert "reasons:\n    score 0.9, threshold 0.95\n" in told["message"]
    facts = {"stage": "03-evaluate", "candidate": record["candidate"], "next": "pinmill models small"}
    facts |= {"page": f"https://models.example.org/pages/small/{record['run']}/model-card.html"}
    assert lines_of(told["message"]) | facts == lines_of(told["message"])
    assert run(3, "threshold=0.95") == []
    assert run(3, "threshold=0.95", "power=2") == [rejected]
    break_training(small)
    assert run(4) == ["[Pinmill] small: failed in 02-train"]
    mend_training(small)
    small.edit("03-evaluate", "print(run.read_json('model'))", "1 / 0")
    assert run(4, "power=2") == ["[Pinmill] small: failed in 03-evaluate"]
    small.edit("03-evaluate", "1 / 0", "print(run.read_json('model'))")
    assert run(0) == ["[Pinmill] small: recovered, failed in 03-evaluate and 1 more"]
    assert "failed in 02-train" not in hook.got[-1]["message"]
    assert "recovered, rejected by the gate" in hook.got[-1]["message"].splitlines()


def test_a_run_that_was_given_a_model_answers_whoever_asked(small_trained: Workplace, hook: Hook) -> None:
    version = small_trained.json("champion", "small")["version"]
    given = ("--model", version, "--set", "threshold=0.95")
    small_trained.pinmill("run", "small", *given, code=3, PINMILL_NOTIFY=hook.url)
    assert hook.got == []


def test_a_model_that_cannot_be_made_again_is_told_to_nobody_but_who_asked(small: Workplace, hook: Hook) -> None:
    small.edit("02-train", BUILT, f"assert 'FAIL' not in os.environ\n{BUILT}")
    small.pinmill("run", "small", PINMILL_NOTIFY=hook.url)
    small.pinmill("reproduce", "small", code=4, FAIL="yes", PINMILL_NOTIFY=hook.url)
    assert hook.got == []


def write_monitor(place: Workplace) -> None:
    """A notebook of job `monitor` whose alerts are a parameter."""
    path = place.root / "notebooks/02-train.ipynb"
    content = json.loads(path.read_text())
    raw, text, parameters, start, *_, last = content["cells"]
    raw["source"] = "---\ntitle: A stage\npinmill:\n  job: monitor\n  reads: [data]\n  writes: [monitoring]\n---"
    parameters["source"] = "workflow: str = 'small'  # name of the workflow\nfiring: list[str] = []  # keys that fire"
    last["source"] = """\
given = {"metric": "accuracy", "column": "", "value": 0.81237, "threshold": 0.85, "period": "2026-11-16", "n": 312}
alerts = [
    {"key": key, "text": f"{key} is <b>low</b>\\nnext: rm", "firing": key in firing, **given} for key in ("one", "two")
]
run.write_json("monitoring", {}, alerts=alerts)"""
    content["cells"] = [raw, text, parameters, start, last]
    (place.root / "notebooks/05-monitor.ipynb").write_text(json.dumps(content))


def test_an_alert_is_told_once_until_it_fires_no_more(small_trained: Workplace, hook: Hook) -> None:
    def run(firing: str, code: int = 0) -> list[str]:
        """The titles of what is told of a monitoring run."""
        before, words = len(hook.got), ("--job", "monitor", "--set", f"firing={firing}")
        small_trained.pinmill("run", "small", *words, code=code, PINMILL_NOTIFY=hook.url)
        return hook.titles[before:]

    write_monitor(small_trained)
    assert run("[one]") == ["[Pinmill] small: alert, one is <b>low</b> next: rm"]
    facts = {"alert": "one is <b>low</b> next: rm", "metric": "accuracy", "value": "0.81237", "threshold": "0.85"}
    facts |= {"n": "312", "period": "2026-11-16", "stage": "05-monitor", "job": "monitor"}
    assert lines_of(hook.got[0]["message"]) | facts == lines_of(hook.got[0]["message"])
    assert run("[two, one]") == ["[Pinmill] small: alert, two is <b>low</b> next: rm"]
    small_trained.edit("05-monitor", '"period": "2026-11-16"', '"period": ""')
    assert run("[]") == []  # nobody calls any more: that is no recovery
    small_trained.edit("05-monitor", '"period": ""', '"period": "2026-11-16"')
    small_trained.edit("05-monitor", "alerts=alerts)", "alerts=[{'key': 'one'}])")
    assert run("[one]") == []
    small_trained.edit("05-monitor", "alerts=[{'key': 'one'}])", "alerts=alerts)")
    small_trained.edit("05-monitor", "given =", "raise OSError\ngiven =")
    assert run("[one]", 4) == ["[Pinmill] small: failed in 05-monitor"]
    small_trained.edit("05-monitor", "raise OSError\n", "")
    assert run("[one]") == ["[Pinmill] small: recovered, failed in 05-monitor and 1 more"]
    assert "recovered, alert, two is <b>low</b> next: rm" in hook.got[-1]["message"].splitlines()


def test_no_secret_is_in_messages_records_notebooks_or_what_is_said(small: Workplace, hook: Hook, mail: Mail) -> None:
    webhook = hook.url.replace("://", f"://pinmill:{PASSWORD}@")
    letters = mail.url.replace("://", f"://someone:{SECRET}@")  # logs in, which this server does not offer
    (small.root / ".env").write_text(f"HOOK={webhook}\nPINMILL_NOTIFY='{letters}\n{hook.url}/second'\n")
    add_params(small, "run: {notify: ['secret:HOOK']}")
    stolen = "os.environ['HOOK'].rpartition('/')[2]"
    shown = "print(os.environ['HOOK'], os.environ['PINMILL_NOTIFY'])"
    small.edit("02-train", BUILT, f"{shown}\nraise ValueError(os.environ['HOOK'] + ' ' + {stolen})")
    done = small.pinmill("run", "small", code=4)
    assert [message["title"] for message in hook.got] == ["[Pinmill] small: failed in 02-train"] * 2
    assert all("ValueError: [secret] [secret]" in message["message"] for message in hook.got)
    assert "notification: mailto://127.0.0.1 could not be told" in done.stderr
    for secret in (PASSWORD, SECRET, TOKEN):
        assert secret not in f"{done.stdout}{done.stderr}{hook.got}"
        assert find_everywhere(small, secret) == [Path(".env")]


def test_a_word_that_may_be_a_password_stays_in_notebooks_and_goes_from_messages(small: Workplace, hook: Hook) -> None:
    url = hook.url.replace("://", "://sender:alerts@")
    small.edit("02-train", BUILT, "print('3 alerts', os.environ['PINMILL_NOTIFY'])\nraise ValueError('4 alerts')")
    small.pinmill("run", "small", code=4, PINMILL_NOTIFY=url)
    record = small.json("runs", "small")[0]
    executed = small.root / "outputs/runs/small" / record["run"] / "02-train.ipynb"
    assert "3 alerts [secret]\\n" in executed.read_text()
    assert "ValueError: 4 alerts" in record["error"]
    assert "ValueError: 4 [secret]" in hook.got[0]["message"]


@pytest.mark.parametrize("word", ["alert", "title"])
def test_a_password_that_is_a_word_of_ours_hinders_no_message(tmp_path: Path, hook: Hook, word: str) -> None:
    url = hook.url.replace("://", f"://sender:{word}@")
    assert tell(tmp_path, [make_incident("a", text=f"in {word}")], [url]) == []
    assert hook.got[0]["message"].splitlines()[1] == "in [secret]"
    assert tell(tmp_path, [make_incident("a")], [url]) == []
    assert len(hook.got) == 1


def test_an_address_whose_secret_is_not_set_is_told_before_a_run_and_hinders_nothing_else(small: Workplace) -> None:
    add_params(small, "run: {notify: ['secret:NOWHERE_SET', 'json://localhost']}")
    done = small.pinmill("run", "small", code=2)
    assert "run.notify: the secret 'NOWHERE_SET' is not set (params/small.yaml, line 3); set it or .env" in done.stderr
    small.pinmill("params", "small")


def trap_apprise(folder: Path) -> tuple[dict[str, str], Path]:
    """An environment in which apprise cannot be loaded, and the file by which it is known that somebody tried."""
    folder.mkdir()
    (folder / "apprise.py").write_text(f"open({str(folder / 'loaded')!r}, 'w'); raise SystemError")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path}, folder / "loaded"


def test_a_dead_service_changes_neither_how_a_run_ends_nor_who_else_is_told(
    small: Workplace, hook: Hook, tmp_path: Path
) -> None:
    break_training(small)
    environ, loaded = trap_apprise(tmp_path / "trap")
    alone = small.pinmill("run", "small", code=4, **environ)
    assert not loaded.exists()
    with open_silence() as silent:
        dead = f"json://localhost:{free_port()}", f"mailto://localhost:{silent}/?smtp=localhost&from=a@example.org"
        urls = [*dead, f"json://127.0.0.1:{silent}?rto=300", "nosuch://somewhere/else", PASSWORD, hook.url]
        start = time.monotonic()
        done = small.pinmill("run", "small", code=4, PINMILL_NOTIFY="\n".join(urls))
        seconds = time.monotonic() - start
    assert seconds < 120  # the service would be waited for 300 s; the rest is for a busy machine
    assert hook.titles == ["[Pinmill] small: failed in 02-train"]
    said = [line.partition(" notification: ")[2] for line in done.stderr.splitlines() if " notification: " in line]
    untold = "could not be told, and is tried again after the next run. To see why: apprise -v -b test URL"
    unknown = "is not of a form that apprise knows, so nobody is told there. For the forms: apprise --details"
    assert said == [
        f"json://localhost {untold}",
        f"mailto://localhost {untold}",
        f"json://127.0.0.1 {untold}",
        f"nosuch://… {unknown}",
        f"an entry that is no URL {unknown}",
    ]
    records = small.json("runs", "small")
    kept = [[record[name] for name in ("status", "reasons", "warnings", "pages")] for record in records]
    assert kept[0] == kept[1]
    assert done.stdout.partition(" (run")[0] == alone.stdout.partition(" (run")[0] == "small: failed"


def test_a_service_that_hangs_is_given_up_and_the_others_are_told(hook: Hook) -> None:
    with open_silence() as silent:
        hanging = f"json://127.0.0.1:{silent}/?rto=300"
        start = time.monotonic()
        failed = send([Message(url, "t", "b", "failure") for url in (hanging, hook.url)], os.environ, seconds=15)
        assert time.monotonic() - start < 60
    assert [*failed] == [hanging]
    assert hook.titles == ["t"]


def test_a_broken_apprise_is_told_as_a_dead_service(tmp_path: Path) -> None:
    environ, loaded = trap_apprise(tmp_path / "trap")
    failed = send([Message("json://localhost/x", "t", "b", "failure")], {**os.environ, **environ})
    assert loaded.exists()
    assert failed["json://localhost/x"].startswith("json://localhost could not be told")


def make_incident(key: str, kind: str = "alert", text: str = "facts") -> Incident:
    return Incident(kind, "small", "monitor", key, f"{kind} {key}".strip(), text)


def tell(root: Path, found: list[Incident], urls: list[str], unknown: tuple[str, ...] = ()) -> list[str]:
    """What is wrong after telling of incidents of a project that has nothing else."""
    return announce(Project(root, {}), "small", "monitor", found, urls=urls, hidden=[], unknown=unknown)


def test_who_could_not_be_told_is_told_the_next_time_and_nobody_twice(tmp_path: Path, hook: Hook) -> None:
    with open_hook() as other:
        urls = [hook.url, other.url]
        other.down = True
        assert [line[:27] for line in tell(tmp_path, [make_incident("a"), make_incident("b")], urls)] == [
            "json://127.0.0.1 could not "
        ]
        other.down = False
        assert tell(tmp_path, [make_incident("b"), make_incident("c")], urls) == []
        assert hook.titles == ["[Pinmill] small: alert a and 1 more", "[Pinmill] small: alert c and 1 more"]
        assert other.titles == ["[Pinmill] small: alert b and 1 more"]
        assert "recovered, alert a" in hook.got[1]["message"].splitlines()
        assert [line for line in other.got[0]["message"].splitlines() if "alert" in line] == ["alert b", "alert c"]
        hook.down = True
        assert len(tell(tmp_path, [make_incident("c")], urls)) == 1
        hook.down = False
        assert tell(tmp_path, [make_incident("c")], urls) == []
        assert hook.titles[2:] == other.titles[1:] == ["[Pinmill] small: recovered, alert b"]
        assert tell(tmp_path, [], urls) == []
        assert json.loads((tmp_path / "outputs/incidents/small.monitor.json").read_text()) == []


def test_what_was_found_while_nobody_was_to_be_told_is_told_to_those_who_come(tmp_path: Path, hook: Hook) -> None:
    tell(tmp_path, [make_incident("a"), make_incident("b")], [])
    tell(tmp_path, [make_incident("b")], [hook.url])
    assert hook.titles == ["[Pinmill] small: alert b"]


def test_what_belongs_to_no_workflow_is_told_too(tmp_path: Path, hook: Hook) -> None:
    missed = Incident("missed", "", "schedule", "pinmill pins prune", "missed, pinmill pins prune", "facts")
    for found in ([missed], [missed], []):
        assert announce(Project(tmp_path, {}), "", "schedule", found, urls=[hook.url], hidden=()) == []
    assert hook.titles == ["[Pinmill] missed, pinmill pins prune", "[Pinmill] recovered, missed, pinmill pins prune"]
    assert json.loads((tmp_path / "outputs/incidents/schedule.json").read_text()) == []


def test_a_damaged_state_starts_anew(tmp_path: Path, hook: Hook) -> None:
    tell(tmp_path, [make_incident("a")], [hook.url])
    file = tmp_path / "outputs/incidents/small.monitor.json"
    for damaged in (b"", b"[{}]", file.read_bytes()[:-20], b"\xff"):
        file.write_bytes(damaged)
        assert tell(tmp_path, [make_incident("a")], [hook.url]) == [
            "small.monitor.json is damaged and starts anew, so what was told before may be told again"
        ]
    assert hook.titles == ["[Pinmill] small: alert a"] * 5
    assert tell(tmp_path, [make_incident("a")], [hook.url]) == []


def test_a_state_that_cannot_be_kept_is_only_said(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("not a folder")
    (said,) = tell(tmp_path, [make_incident("a")], [])
    assert said.startswith("not all was told or noted: ")


ANNOUNCE = """
import sys
from pathlib import Path
from pinmill.incidents import Incident
from pinmill.notify import announce
from pinmill.project import Project
incident = Incident("alert", "small", "monitor", "a", "alert a", "facts")
print("asks", flush=True)
sys.exit(len(announce(Project(Path(sys.argv[1]), {}), "small", "monitor", [incident], urls=sys.argv[2:], hidden=[])))
"""


def test_two_processes_at_once_tell_once(tmp_path: Path, hook: Hook) -> None:
    def start() -> subprocess.Popen:
        """A process that is about to tell."""
        words = [sys.executable, "-c", ANNOUNCE, str(tmp_path), f"{hook.url}?rto=60"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "asks\n"
        return process

    hook.answers.clear()
    with start() as first:
        assert hook.arrived.wait(60)
        with start() as second:
            hook.answers.set()
    assert (first.returncode, second.returncode, len(hook.got)) == (0, 0, 1)


def test_a_message_is_text_also_where_a_service_wants_html(tmp_path: Path, mail: Mail) -> None:
    hostile = make_incident("a", text="label: <img src=x onerror=alert(1)> **b** {{< env HOME >}} @all")
    assert tell(tmp_path, [hostile], [f"{mail.url}&format=html", mail.url]) == []
    kinds = {letter.get_content_type(): letter for letter in mail.got}
    assert "<img src=x" in kinds["text/plain"].get_content()
    letter = kinds["multipart/alternative"]
    assert "<img" not in letter.get_body(("html",)).get_content()


def stand(known: list[Known]) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    return {each.incident.key: (each.since, each.over, each.told) for each in known}


def test_an_incident_stays_the_same_while_it_is_found_or_nobody_looks() -> None:
    known = [Known(make_incident("a"), "1", "1", ("me",)), Known(make_incident("b"), "1", "1", ("me",))]
    known += [Known(make_incident("c"), "1", "1"), Known(make_incident("d"), "1", "1", ("me",), over="1")]
    found = [make_incident("a", text="other words"), make_incident("e")]
    now = compare(known, found, unknown=(), now="2")
    assert now[0] == Known(found[0], "1", "2", ("me",))
    over = {"b": ("1", "2", ("me",)), "d": ("1", "1", ("me",))}
    assert stand(now) == {"a": ("1", "", ("me",)), "e": ("2", "", ())} | over
    unseen = compare(known, [make_incident("", "failed")], unknown=("alert",), now="2")
    by_id = [("alert", each.incident.key) for each in known if each.incident.kind == "alert"]
    assert compare(known, [make_incident("", "failed")], unknown=by_id, now="2") == unseen
    assert stand(unseen) == stand(known) | {"": ("2", "", ())}


def test_a_failure_in_another_stage_is_told_and_ends_nothing() -> None:
    known = [Known(make_incident("02-train", "failed"), "1", "1", ("me",))]
    now = compare(known, [make_incident("04-model-card", "failed")], unknown=("rejected", "alert"), now="2")
    assert stand(now) == {"04-model-card": ("2", "", ())}
    assert stand(compare(now, [], unknown=(), now="3")) == {}
    told = [replace(each, told=("me",)) for each in now]
    assert stand(compare(told, [], unknown=(), now="3")) == {"04-model-card": ("2", "3", ("me",))}


def test_what_comes_back_is_new_and_another_rejected_candidate_ends_nothing() -> None:
    known = [Known(make_incident("a"), "1", "1", ("me",), over="2")]
    assert stand(compare(known, [make_incident("a")], unknown=(), now="3")) == {"a": ("3", "", ())}
    known = [Known(make_incident("a", "rejected"), "1", "1", ("me",))]
    assert stand(compare(known, [make_incident("b", "rejected")], unknown=(), now="3")) == {"b": ("3", "", ())}
    assert stand(compare(known, [], unknown=(), now="3")) == {"a": ("1", "3", ("me",))}


@pytest.mark.parametrize(
    ("url", "place", "hidden"),
    [
        ("mailtos://me:pass%40word@mail1.example.org?to=a@b.org,c@d.org", "mailtos://mail1.example.org", "pass@word"),
        ("json://me:p/w:x@localhost:8000/path", "json://localhost", "p/w:x"),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "slack://…", "TIiajkdnlazkcOXrIdevi7FQ"),
        ("tgram://123456789:AAGabcdefghij0123456789/987", "tgram://…", "AAGabcdefghij0123456789"),
        ("jsons://hooks.example.org/x?+X-Key=0123456789abcdef", "jsons://hooks.example.org", "0123456789abcdef"),
        ("only-a-password", "an entry that is no URL", "only-a-password"),
    ],
)
def test_an_address_is_named_without_what_is_secret_in_it(url: str, place: str, hidden: str) -> None:
    assert name_place(url) == place
    assert {url, hidden} <= {*hide_urls([url], guess=True)}
    assert not {"mail1.example.org", "hooks.example.org", "localhost"} & {*hide_urls([url], guess=True)}


def test_what_may_be_a_name_is_hidden_only_where_that_is_asked_for() -> None:
    url = "sendgrid://SG0123456789abcdef:alerts@example.org/me@example.org"
    assert hide_urls([url]) == [url, "SG0123456789abcdef"]
    assert hide_urls([url], guess=True) == [url, "SG0123456789abcdef", "alerts"]


def test_addresses_may_hold_commas() -> None:
    text = "mailto://h?to=a@b,c@d json://x, jsons://y,json://z\njson://w?a=1,2"
    assert BETWEEN.split(text) == ["mailto://h?to=a@b,c@d", "json://x", "jsons://y", "json://z", "json://w?a=1,2"]
