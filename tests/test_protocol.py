"""Callers who do not read their answers, on real sockets: they are left, and those who read slowly are not."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING

import pytest
import uvicorn
from pinmill import protocol
from pinmill.openapi import docs_routes
from pinmill.protocol import BoundedProtocol
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route
from waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

BUNDLE = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"  # more than a megabyte
STREAM = b"GET /stream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
PIECE, PIECES = 65_536, 200


async def stream(request: object) -> StreamingResponse:
    async def tell() -> AsyncIterator[bytes]:
        for _ in range(PIECES):
            yield bytes(PIECE)

    return StreamingResponse(tell())


@pytest.fixture(params=["asyncio", "uvloop"])
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, uvicorn.Server]]:
    """A port that serves a large file and an endless stream, and looks at its connections ten times a second."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    monkeypatch.setattr(protocol, "LOOK", 0.1)
    routes = [Route("/stream", stream), *docs_routes()]
    config = uvicorn.Config(Starlette(routes=routes), log_level="error", http=BoundedProtocol, loop=request.param)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield listening.getsockname()[1], server
        server.should_exit = True
        thread.join()


def connect(port: int) -> socket.socket:
    """A caller whose side of the connection holds little, so that what it does not read stays with the service."""
    caller = socket.socket()
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    caller.settimeout(30)
    caller.connect(("127.0.0.1", port))
    return caller


def wait_until_left(server: uvicorn.Server) -> None:
    """Return when the service holds no connection any more."""
    wait_until(lambda: not server.server_state.connections, "the end of all connections", seconds=30)


@pytest.mark.parametrize("sent", [BUNDLE * 50, STREAM, BUNDLE * 50 + b"GET"])
def test_who_reads_no_answer_is_left(service: tuple[int, uvicorn.Server], sent: bytes) -> None:
    port, server = service
    with connect(port) as caller:
        caller.sendall(sent)
        assert caller.recv(12) == b"HTTP/1.1 200"
        wait_until_left(server)


def test_who_reads_slowly_gets_the_whole_answer(service: tuple[int, uvicorn.Server]) -> None:
    port, _ = service
    pause, read = threading.Event(), 0
    with connect(port) as caller:
        caller.sendall(STREAM)
        while data := caller.recv(PIECE * 4):
            read += len(data)
            pause.wait(0.02)  # as a slow line would; in all much longer than the service is patient
    assert read > PIECE * PIECES


def test_who_says_at_once_that_nothing_more_comes_is_answered(service: tuple[int, uvicorn.Server]) -> None:
    for _ in range(20):
        with connect(service[0]) as caller:
            caller.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
            caller.shutdown(socket.SHUT_WR)
            assert caller.recv(12) == b"HTTP/1.1 404"


class Sink:
    """A transport that notes what it is given at a time."""

    def __init__(self) -> None:
        self.sent, self.closed = [], False

    def write(self, data: bytes) -> None:
        self.sent.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, name: str) -> None:
        return None


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


def write_all(*parts: bytes, turns: bool = False, close: bool = False) -> list[bytes]:
    """What is sent of what is written: in one turn of the event loop, or in one each; and closed at once."""
    sink = Sink()

    async def write() -> None:
        joined = protocol.Joined(sink)
        for part in parts:
            joined.write(part)
            if turns:
                await asyncio.sleep(0)
        if close:
            joined.close()
        await asyncio.sleep(0)

    asyncio.run(write())
    return sink.sent


def test_what_is_written_in_one_turn_is_sent_at_once_unless_it_is_much() -> None:
    assert write_all(HEAD, b"a", HEAD, b"b") == [HEAD + b"a" + HEAD + b"b"]
    assert write_all(HEAD, b"a", turns=True) == [HEAD, b"a"]  # the body is not there yet: the caller sees the head
    assert write_all(HEAD, b"a", close=True) == [HEAD + b"a"]
    large = bytes(protocol.MOST_HELD)
    assert write_all(HEAD, large, large, b"b") == [HEAD + large, large + b"b"]
