"""Notifications: who is told of what, once; and a service that is dead, which holds up nothing."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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

PASSWORD, TOKEN, SECRET = "open-sesame-7", "XoPb4T9sQm2LzKf8RtWy", "hunter-two-hunter"  # noqa: S105
BROKEN = "raise ValueError('<b>bad</b> ' + chr(10) + 'next: run me' + chr(7) + 'x' * 5000)"
BUILT = 'model = {"sum": sum(n**power for n in run.read_json("data"))}'.replace('"', "'")


@dataclass
class Hook:
    """A webhook on a port of its own; while it is `down` it refuses what it gets with 503."""

    server: ThreadingHTTPServer
    got: list[dict] = field(default_factory=list)
    down: bool = False

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
            self.send_response(503 if hook.down else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hook = Hook(server)
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
    where = facts.index("error:")
    assert facts[:where] == ["workflow: small (small)", "job: train", f"run: {failed}", "stage: 02-train"]
    error = [line for line in facts[where + 1 :] if line.startswith("    ")]
    assert error[0] == "    02-train, cell 5: ValueError: <b>bad</b>"
    assert error[1] == f"    next: run me {'x' * (240 - 13)} …"
    assert f"    The executed notebook is kept: outputs/runs/small/{failed}/02-train.ipynb" in error
    assert lines_of(told["message"]) | {
        "last finished run": f"{last}, succeeded",
        "page": "reports/_pages/index.html",
        "next": "pinmill run small",
    } == lines_of(told["message"])
    assert "    02-train: its code changed" in [line[:30] for line in facts]
    small.edit("02-train", "'<b>bad</b> '", "'other words'")
    small.pinmill("run", "small", code=4, **environ)
    assert (len(hook.got), len(mail.got)) == (1, 1)
    (known,) = json.loads((small.root / "outputs/incidents/small.train.json").read_text())
    assert "ValueError: other words" in known["incident"]["text"]
    small.edit("02-train", f"\n{BROKEN}".replace("<b>bad</b> ", "other words"), "")
    small.pinmill("run", "small", **environ)
    assert hook.titles[1:] == ["[Pinmill] small: recovered, failed in 02-train"]
    assert hook.got[1]["type"] == "success"
    assert f"it was so from {known['since']} to " in hook.got[1]["message"]
    assert [letter["subject"] for letter in mail.got] == hook.titles
    small.pinmill("run", "small", **environ)
    assert (len(hook.got), len(mail.got)) == (2, 2)
