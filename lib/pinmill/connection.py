"""The way to a service: requests, repeated where that is safe, and what is wrong with an answer as an error of ours."""

import json
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from pinmill.errors import BusyError, ClientError, NotAllowedError, UnreachableError, WrongColumnsError
from pinmill.visit import is_local

TRIES = 5  # of a request that got no answer, or that of a service which cannot answer now: about 6 s, a restart
PAUSE = 0.5  # s before the second try, twice as long before each next one; up to half of it is left out by chance
RESTART = 20.0  # s that a service is given which says when to ask again
PATIENCE = 120.0  # s from the first to the last try, also where the service says how long to wait
CONNECT = 10.0  # s to wait for a connection at most: a server that is there takes milliseconds
LISTED = 5  # violations that a message tells; all are in `errors`
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
AGAIN = (502, 503, 504)  # a proxy without its service, a service without a kernel, and one that took too long
KINDS = {401: NotAllowedError, 403: NotAllowedError, 404: ClientError, 429: BusyError} | dict.fromkeys(AGAIN, BusyError)
STEPS = {
    401: "The client takes it as Client(url, token), or from PINMILL_TOKEN",
    403: "Ask those who run the service for a token that may",
    429: "Ask again later, or for a service with a higher rate",
}
UNKNOWN = "Whether it was done is not known: look first (models(), run(…), annotations()), then ask again"
ABSENT = "Is the service running, and is this its address?"
LATE = "Give it more time, as in Client(timeout=60)"
EXAMPLE = "http://127.0.0.1:8080 was expected, as `pinmill serve` prints it"
JSON = {"Content-Type": "application/json"}
Outcome = httpx.Response | httpx.TransportError


class Connection:
    """A service by its address, for any thread; the token stands in the headers of its requests and nowhere else."""

    def __init__(self, url: str, token: str, *, timeout: float) -> None:
        self.url = check_url(url)
        if not (token.isascii() and token.isprintable() and " " not in token):
            raise ClientError("the token holds a character that no token has. Copy it again, whole and without quotes")
        limits = httpx.Timeout(timeout, connect=min(timeout, CONNECT))
        is_near = is_local(httpx.URL(self.url).host)  # a proxy that the environment names does not reach this machine
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=limits, trust_env=not is_near)

    def close(self) -> None:
        """Let go of the service."""
        self._http.close()

    def ask(
        self,
        method: str,
        path: str,
        value: Any = None,
        *,
        options: Mapping[str, Any] | None = None,
        repeat: bool = True,
        tries: int = TRIES,
        rows: Sequence[Any] = (),
        conflict: type[ClientError] = ClientError,
        **more: Any,
    ) -> httpx.Response:
        """The answer to a request, after as many tries as it takes; `value` is sent as JSON, bytes as they are.

        `repeat` says whether a request that may have arrived can be sent again. In errors, `rows` are the names of the
        rows that were sent. Raises ClientError: of the kind `conflict` for the status 409.
        """
        content = value if isinstance(value, bytes) else encode(value)
        body = {} if value is None else {"content": content, "headers": JSON}
        given = {name: str(each) for name, each in (options or {}).items() if each != ""}
        began, count = time.monotonic(), 1
        while True:
            try:
                got: Outcome = self._http.request(method, path, params=given, **(body | more))
            except httpx.TransportError as error:
                got = error
            spent = time.monotonic() - began
            pause = find_pause(got, count, spent, tries=tries, repeat=repeat, chance=random.random())
            if pause is None:
                return self.take(got, method=method, path=path, repeat=repeat, rows=rows, conflict=conflict)
            time.sleep(pause)
            count += 1

    def take(
        self, got: Outcome, *, method: str, path: str, repeat: bool, rows: Sequence[Any], conflict: type[ClientError]
    ) -> httpx.Response:
        """The answer, if it is a good one. Raises ClientError."""
        if isinstance(got, httpx.TransportError):
            was_sent = not isinstance(got, NEVER_SENT)
            step = LATE if was_sent and isinstance(got, httpx.TimeoutException) else ABSENT
            step = f"{method} {path} was on its way. {UNKNOWN}" if was_sent and not repeat else step
            raise UnreachableError(f"{self.url} does not answer ({type(got).__name__}: {got}). {step}")
        if got.is_success:
            return got
        error = make_error(got, rows=rows, conflict=conflict, url=self.url)
        if got.status_code in (500, *AGAIN) and not repeat and "Retry-After" not in got.headers:
            error.add_note(UNKNOWN)
        raise error

    def read(self, method: str, path: str, value: Any = None, **more: Any) -> Any:
        """The value in the answer to a request, see `ask`."""
        return self.parse(self.ask(method, path, value, **more))

    def parse(self, answer: httpx.Response) -> Any:
        """The value in an answer. Raises ClientError where it holds none: then something else is at this address."""
        try:
            return answer.json()
        except ValueError:
            raise ClientError(f"what answers at {self.url} is no Pinmill service. {EXAMPLE}") from None


def encode(value: Any) -> bytes:
    """JSON of `value`; half of a surrogate pair is its escape, so that the service can say which row holds it."""
    return json.dumps(value, ensure_ascii=False, default=_as_json).encode(errors="backslashreplace")


def _as_json(value: Any) -> Any:
    """Numbers and truths of NumPy as Python's own; anything else that JSON does not know as text."""
    return value.tolist() if hasattr(value, "dtype") and value.dtype.kind in "biuf" else str(value)


def check_url(url: str) -> str:
    """`url` without a slash at its end. Raises ClientError where it is no address of a service."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        parsed = httpx.URL("")
    if parsed.userinfo or parsed.query or parsed.fragment:  # which may be a token, so it is not shown
        raise ClientError(f"the address holds more than an address. {EXAMPLE}; a token is Client(url, token)")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ClientError(f"the address is {str(url)!r}: {EXAMPLE}. Give it as Client(url), or set PINMILL_URL")
    return str(url).rstrip("/")


def find_pause(got: Outcome, count: int, spent: float, *, tries: int, repeat: bool, chance: float) -> float | None:
    """Seconds until a request that came to `got` is sent again after `count` tries in `spent` s; None: it is not.

    A status 429, and 503 with Retry-After, say that nothing was done. `chance` is from 0 to 1.
    """
    wait = PAUSE * 2 ** (count - 1) * (1 - chance / 2)
    if isinstance(got, httpx.TransportError):
        is_safe, is_over = repeat or isinstance(got, NEVER_SENT), count >= tries
    else:
        after, status = got.headers.get("Retry-After", ""), got.status_code
        is_undone = status == 429 or (status == 503 and after.isdecimal())
        is_worth = status == 429 or (is_undone and spent < RESTART)  # waiting: one's own rate, or a restart
        is_safe, is_over = is_undone or (status in AGAIN and repeat), count >= tries and (not is_worth or tries == 1)
        wait = int(after) + wait if after.isdecimal() else wait
    return wait if is_safe and not is_over and spent + wait <= PATIENCE else None


def make_error(answer: httpx.Response, *, rows: Sequence[Any], conflict: type[ClientError], url: str) -> ClientError:
    """What an answer that is a problem says, as an error."""
    status = answer.status_code
    if answer.has_redirect_location:
        return ClientError(f"{url} sends to {answer.headers['Location']}: give that address", status=status)
    try:
        told = answer.json()
        detail = str(told["detail"])
    except (ValueError, KeyError, TypeError):
        told, detail = {}, f"{url} answers {status} {answer.reason_phrase}. {EXAMPLE}"
    listed = told.get("errors")
    listed = listed if isinstance(listed, list) else []  # whatever is at this address
    errors = [name_row(error, rows) for error in listed if isinstance(error, Mapping)]
    of_rows = WrongColumnsError if any("row" in error for error in errors) else ClientError
    kind = conflict if status == 409 else of_rows if status == 422 else KINDS.get(status, ClientError)
    step = f". {STEPS[status]}" if status in STEPS else ""
    asked = f"({status}, request {answer.headers.get('X-Request-Id', 'unknown')})"
    said = f"{detail.rstrip('.')}{describe_errors(errors)}{step} {asked}"
    return kind(said, status=status, errors=errors)


def name_row(error: Mapping[str, Any], rows: Sequence[Any]) -> dict[str, Any]:
    """A violation with the sender's own name of the row it is in."""
    row = error.get("row")
    return {**error, "row": rows[row]} if isinstance(row, int) and 0 <= row < len(rows) else dict(error)


def describe_errors(errors: Sequence[Mapping[str, Any]]) -> str:
    """': row 3, text is missing; …' for the first violations, and how many there are beyond those."""
    told = []
    for error in errors[:LISTED]:
        where = f"row {error['row']}" if "row" in error else ""
        what = f"{error.get('field') or ''} {error.get('problem', '')}".strip()
        told.append(", ".join(filter(None, (where, what))))
    more = [f"{len(errors) - LISTED} more in the error's `errors`"] if len(errors) > LISTED else []
    return f": {'; '.join([*told, *more])}" if told else ""
