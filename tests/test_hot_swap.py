"""Hot swap: the champion moves under load, by other processes; what cannot be served never replaces what is."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Answer, Load, Server, Workplace

SWAP = 5.0  # s from a decision until it is followed
Serve = Callable[..., "Server"]


@pytest.fixture
def second(trained: Workplace) -> str:
    """A second version of the model, that the gate has not seen; not promoted."""
    return trained.write_second()


def champion(workplace: Workplace) -> dict:
    return workplace.json("champion", "tiny")


def promote(workplace: Workplace, version: str) -> None:
    workplace.pinmill("promote", "tiny", version, "--why", "a test", "--override")


def flip(workplace: Workplace, version: str) -> None:
    """Change one bit of a model's file; again changes it back."""
    (file,) = (workplace.root / "outputs/pins/tiny-model" / version).glob("*.skops")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """The gateway stands still, so that what is done meanwhile is done at once for it."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def serves(server: Server, version: str) -> bool:
    """Whether both the gateway and the kernels' cells speak of a version."""
    answer = server.ask("GET", "/last-updated")
    return answer.headers["X-Model-Version"] == answer.json().get("version") == version


def delay(answers: list[Answer], decision: dict) -> float:
    """Seconds from a decision to the first answer by the version that it chose, of those asked for after it."""
    when = datetime.fromisoformat(decision["when"]).timestamp()
    first = next(answer.answered for answer in answers if answer.asked > when and answer.version == decision["version"])
    return first - when


def test_promotion_and_rollback_under_load_are_followed_in_time_without_a_failure(
    serve: Serve, trained: Workplace, second: str, load: type[Load]
) -> None:
    first = champion(trained)["version"]
    server = serve("--kernels", "2")
    server.wait_until(lambda: server.metric("pinmill_kernels") == 2, seconds=90)
    with load(server) as running:
        running.wait_for(50)
        promote(trained, second)
        promoted = champion(trained)
        server.wait_until(lambda: serves(server, second))
        running.wait_for(50)
        answer = server.ask("PUT", "/models/champion", {"action": "rollback", "why": "a test"})
        assert answer.status_code == 200, answer.text
        returned = champion(trained)
        server.wait_until(lambda: serves(server, first))
        running.wait_for(50)
    assert {(answer.status, answer.error) for answer in running.answers} == {(200, "")}
    assert {answer.version for answer in running.answers} == {first, second}
    running.assert_own(trained)
    waited = [delay(running.answers, decision) for decision in (promoted, returned)]
    assert max(waited) < SWAP, f"{waited}\n{server.log.read_text()}"
    assert [promoted["version"], returned["version"], returned["action"]] == [second, first, "rollback"]


def test_a_damaged_champion_is_refused_loudly_and_the_last_good_one_goes_on(
    serve: Serve, trained: Workplace, second: str, load: type[Load]
) -> None:
    first = champion(trained)["version"]
    server = serve("--deadline", "60")
    with load(server) as running:
        with frozen(server):
            promote(trained, second)
            flip(trained, second)
        server.wait_until(lambda: "refused" in server.ask("GET", "/ready").json())
        told = server.ask("GET", "/ready")
        assert (told.status_code, told.json()["version"]) == (200, first)
        assert "its SHA-256 is not" in told.json()["refused"]
        running.wait_for(50)
        (kernel,) = server.kernels()
        os.kill(kernel, signal.SIGKILL)  # the new one finds the damaged champion, and is given the last good one
        server.wait_until(lambda: kernel not in server.kernels())
        server.wait_until(server.is_ready, seconds=90)
        server.wait_until(lambda: serves(server, first))
        running.wait_for(50)
    assert {(answer.status, answer.error, answer.version) for answer in running.answers} == {(200, "", first)}
    running.assert_own(trained)
    assert server.log.read_text().count("THE CHAMPION IS NOT SERVED") == 1
    assert server.metric("pinmill_champion_refused") == 1

    trained.pinmill("rollback", "tiny", "--why", "it is damaged")
    server.wait_until(lambda: "refused" not in server.ask("GET", "/ready").json())
    assert serves(server, first)
    assert server.stop() == 0

    flip(trained, first)  # now a service starts with a damaged champion
    server = serve(ready=False)
    server.wait_until(lambda: "its SHA-256 is not" in server.ask("GET", "/ready").text, seconds=60)
    for answer in (server.ask("GET", "/ready"), server.ask("POST", "/predictions", ["a text"])):
        assert (answer.status_code, answer.json()["title"]) == (503, "Service Unavailable")
        assert "its SHA-256 is not" in answer.json()["detail"]
    assert server.ask("GET", "/ping").status_code == 200
    flip(trained, second)  # which is whole again
    promote(trained, second)
    server.wait_until(server.is_ready, seconds=SWAP)
    assert server.ask("POST", "/predictions", ["a text"]).headers["X-Model-Version"] == second


def test_a_service_without_a_champion_waits_for_one(serve: Serve, trained: Workplace) -> None:
    shutil.rmtree(trained.root / "outputs")
    server = serve(ready=False)
    server.wait_until(lambda: server.metric("pinmill_kernels") == 1, seconds=90)
    answer = server.ask("GET", "/ready")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert "tiny has no champion yet. Train and promote one with: pinmill run tiny" in answer.json()["detail"]
    assert server.ask("GET", "/").json()["champion"] is None
    trained.pinmill("run", "tiny")
    server.wait_until(server.is_ready, seconds=SWAP)
    version = champion(trained)["version"]
    assert server.ask("POST", "/predictions", ["a text"]).headers["X-Model-Version"] == version
    server.wait_until(lambda: serves(server, version))
