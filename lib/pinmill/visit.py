"""One request as the gateway sees it: who asks, what was sent, and what is wrong with that."""

import ipaddress
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from pinmill.problem import Problem
from pinmill.version import now_utc

LOCAL = "localhost"  # this machine, as it calls itself
TOKEN = re.compile(r"pinmill_[a-z0-9-]+_[0-9a-f]{48}")
PERSON = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,39}")  # how annotators call themselves, where there are no tokens
JSON_TYPES = {b"application/json", b""}
READ_AWAY = 64_000_000  # bytes of a body too large that are read and dropped, so that its sender reads our answer
IN_URL = (
    "token",
    "access_token",
    "api_key",
    "apikey",
    "authorization",
    "bearer",
)  # names under which people send tokens
DEEPEST = 32  # levels of lists and objects in what a cell is given
URL_TOKEN = (
    "a token in an address is refused: addresses stand in logs and histories, so revoke it. "
    "Send a new one in the header Authorization: Bearer …"
)


ANONYMOUS = "anonymous"  # who asks where there are no tokens
STARTED = "PINMILL_STARTED"  # in the environment of a kernel: when its service started
HUB_USER = "JUPYTERHUB_USER"  # in the environment of a kernel that JupyterHub started: whose it is
IN_APP = "PINMILL_APP"  # in the environment of a kernel: its notebook is shown as an app, to whoever opens it
ROLES = ("scorer", "annotator", "modeller", "admin")  # each may do what those before it may
WHO = ("any", *ROLES)  # may ask


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    name: str  # of the token; empty without one
    role: str  # "" before a token was shown
    address: str

    def as_json(self) -> bytes:
        """What a cell is told."""
        return json.dumps({"name": self.name, "role": self.role or "any", "address": self.address}).encode()


@dataclass(slots=True)
class Visit:
    """One request and what becomes of it."""

    scope: MutableMapping[str, Any]
    receive: Callable[[], Awaitable[Mapping[str, Any]]]
    id: str
    headers: Mapping[bytes, bytes]
    started: float  # s, of time.perf_counter
    caller: Caller
    endpoint: str = ""  # the annotation of what answers
    version: str = ""  # of the model that answers
    logged: bool = False  # its rows stand in the call log
    options: Mapping[str, list[str]] = field(default_factory=dict)  # in the query string

    async def read_body(self, most: int) -> bytes:
        """The whole body. Raises Problem as `read_parts`."""
        parts = [part async for part in self.read_parts(most)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def read_parts(self, most: int) -> AsyncIterator[bytes]:
        """The body as it comes. Raises Problem: 413 beyond `most` bytes, 415 if compressed, 400 for half of it."""
        if self.headers.get(b"content-encoding", b"identity") != b"identity":
            raise Problem(415, "the body is compressed; send it as it is, without Content-Encoding")
        size, more = 0, True
        while more and size <= most + READ_AWAY:
            message = await self.receive()
            if message["type"] != "http.request":
                raise Problem(400, "the connection ended before the body did")
            size, more = size + len(message["body"]), message["more_body"]
            if size <= most:
                yield message["body"]
        if size > most:
            close = {"Connection": "close"}
            raise Problem(413, f"the body has more than {most:,} bytes; send fewer rows at a time", headers=close)

    async def read_json(self, most: int) -> Any:
        """The value in the body. Raises Problem: 415 unless it is called JSON, 400 unless it is; as read_body."""
        content_type = self.headers.get(b"content-type", b"")
        if content_type not in JSON_TYPES and content_type.split(b";")[0].strip().lower() not in JSON_TYPES:
            raise Problem(415, "the body must be JSON: send Content-Type: application/json")
        return parse_json(await self.read_body(most))

    def read_options(self) -> dict[str, list[str]]:
        """The query string. Raises Problem (400) when it, or the path, holds a token: addresses stand in logs."""
        query, path = self.scope["query_string"], self.scope["path"]
        if "pinmill_" in path and TOKEN.search(path):
            raise Problem(400, URL_TOKEN)
        if not query:
            return {}
        options: dict[str, list[str]] = {}
        try:
            for name, value in parse_qsl(
                query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100
            ):
                options.setdefault(name, []).append(value)
        except (UnicodeDecodeError, ValueError):
            raise Problem(400, "the query string is not UTF-8, or has more than 100 parts") from None
        given = [text for name, values in options.items() for text in (name, *values)]
        if any(name.lower() in IN_URL for name in options) or any(
            text.startswith("pinmill_") or TOKEN.search(text) for text in given
        ):
            raise Problem(400, URL_TOKEN)
        return options


def is_local(host: str) -> bool:
    """Whether an address, or the name of a host, is this machine's own."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host == LOCAL
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def read_since(options: Mapping[str, Sequence[str]]) -> datetime:
    """From when on the recent log is asked for: `hours` ago, by default 24. Raises Problem (422)."""
    if unknown := [name for name in options if name != "hours"]:
        errors = [{"field": name, "problem": "is no option here"} for name in unknown]
        raise Problem(422, "the options in the address are wrong", errors=errors)
    given = options.get("hours", ["24"])[-1]
    if not (given.isdecimal() and len(given) < 4 and 1 <= int(given) <= 720):
        raise Problem(422, f"hours is {given[:20]!r}: a whole number from 1 to 720 was expected")
    return now_utc() - timedelta(hours=int(given))


def parse_json(body: bytes) -> Any:
    """The value of a JSON text. Raises Problem (400) that says where it is none."""
    try:
        return json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Problem(400, f"the body is not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise Problem(400, "the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise Problem(400, f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except ValueError:  # a number of more digits than Python converts
        raise Problem(400, "the body holds a number that is too long") from None


def limit_depth(value: Any) -> Any:
    """`value` as it is. Raises Problem (400) when it is nested more deeply than a cell can be expected to take."""
    level = [value]
    for _ in range(DEEPEST + 1):
        lists = [list(each.values()) if isinstance(each, dict) else each for each in level]
        level = [inner for each in lists if isinstance(each, list) for inner in each]
        if not level:
            return value
    raise Problem(400, f"the body is nested more than {DEEPEST} levels deep")
