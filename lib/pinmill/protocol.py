"""HTTP/1.1 as uvicorn speaks it, with bounds on what a client may send before a request is one.

Nor may an answer wait for ever for a client that does not read it.
"""

import asyncio
import json
import secrets
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from pinmill.problem import MEDIA_TYPE, Problem

MOST_HEAD = 32_768  # bytes of request line and headers
LARGE = f"The request line and headers are more than {MOST_HEAD:,} bytes."
LOOK = 5.0  # s between two looks at a connection …
LEAST = 1_024  # … in which at least so many bytes of an unfinished request must come
PATIENCE = 6  # looks at an answer of which nothing is taken: 30 s, as nginx has it; a full pipe empties in leaps
MOST_CONNECTIONS = 2_000
MOST_HELD = 65_536  # bytes of answers that are held to be sent at once


class Joined:
    """A transport that sends at once what is written in one turn of the event loop: the head of an answer and its body.

    uvicorn writes them one after the other, which is two calls of the system here, and two for who reads them. It
    only ever calls `write`: other ways to send would overtake what is held.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport, self.held, self.loop = transport, b"", asyncio.get_running_loop()
        self.is_closing, self.get_extra_info = transport.is_closing, transport.get_extra_info

    def __getattr__(self, name: str) -> Any:
        """All else is the transport's own."""
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        """Have `data` sent after this turn, or at once where much is held."""
        if not self.held:
            self.loop.call_soon(self.flush)
        self.held += data
        if len(self.held) > MOST_HELD:  # so that who writes much in one turn learns that nobody reads
            self.flush()

    def flush(self) -> None:
        """Send what is held, unless nobody is there any more."""
        held, self.held = self.held, b""
        if held and not self.is_closing():
            self.transport.write(held)

    def close(self) -> None:
        """Send what is held, and close."""
        self.flush()
        self.transport.close()


class BoundedProtocol(HttpToolsProtocol):
    """Refuses heads that are too large, requests that never end, malformed ones and too many connections.

    Who does not read an answer is left.
    """

    in_head, head, heard, piece, is_large = False, 0, 0, 0, False
    unread, unread_looks = 0, 0  # bytes of answers at the last look, and for how many looks they have not become fewer

    def connection_made(self, transport: Any) -> None:
        """Begin to look at a connection; refuse it where there are too many."""
        super().connection_made(Joined(transport))
        self.look = self.loop.call_later(LOOK, self.look_again, 0, False)
        self.in_head = True  # who connects is to ask something
        if len(self.connections) > MOST_CONNECTIONS:
            self.refuse(503, "There are too many connections. Try again in a moment.")

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        self.look.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """The caller sends no more: the event loop closes now, so what is held goes first."""
        self.transport.flush()
        super().eof_received()

    def data_received(self, data: bytes) -> None:
        """Count and parse what came; refuse a head that is too large before it is whole."""
        if self.transport.is_closing():
            return
        self.heard += len(data)
        self.head += len(data)
        self.piece = len(data)
        super().data_received(data)
        if self.in_head and self.head > MOST_HEAD and not self.transport.is_closing():
            self.refuse(431, LARGE)

    def on_message_begin(self) -> None:
        """A head begins."""
        self.in_head, self.head = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is whole. Raises ValueError, which the parser takes for a malformed request, if it is too large."""
        self.in_head = False
        if max(self.head, self.piece) > MOST_HEAD:  # all that came; how much of it is the head?
            self.is_large = len(self.url) + sum(len(n) + len(v) + 4 for n, v in self.headers) > MOST_HEAD
            if self.is_large:
                raise ValueError(LARGE)  # which ends the parsing
        super().on_headers_complete()

    def look_again(self, heard: int, waited: bool) -> None:
        """Refuse a request that was unfinished at the last look and has hardly gone on; leave who reads no answer."""
        before, self.unread = self.unread, self.transport.get_write_buffer_size()
        self.unread_looks = self.unread_looks + 1 if 0 < before <= self.unread else 0
        if self.unread_looks == PATIENCE:
            self.transport.abort()
            return
        waits = self.in_head or (self.cycle is not None and self.cycle.more_body)
        if waits and waited and self.heard - heard < LEAST and not self.transport.is_closing():
            self.refuse(408, f"The request did not arrive: less than {LEAST:,} bytes of it in {LOOK:g} s.")
        self.look = self.loop.call_later(LOOK, self.look_again, self.heard, waits)

    def resume_writing(self) -> None:
        """The transport has room again, as the caller read: what is unread now is new."""
        self.unread_looks = 0
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser could not read, in the form of a problem."""
        self.refuse(431, LARGE) if self.is_large else self.refuse(400, msg)

    def refuse(self, status: int, detail: str) -> None:
        """Answer with a problem and close; the application, if it was asked, learns that nobody listens."""
        name = f"req-{secrets.token_hex(8)}"
        body = json.dumps(Problem(status, detail).body(name)).encode()
        about = f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
        head = f"{about}x-request-id: {name}\r\nx-model-version: none\r\ncache-control: no-store\r\n\r\n"
        if not (self.cycle and self.cycle.response_started and not self.cycle.response_complete):
            self.transport.write(STATUS_LINE[status] + head.encode() + body)
        if self.cycle:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
