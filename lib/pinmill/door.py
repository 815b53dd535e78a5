"""Who may come in: callers told apart by their tokens, what their roles allow, and how often they may ask."""

import asyncio
import time
from collections.abc import Callable

from pinmill.errors import PinmillError
from pinmill.problem import Problem
from pinmill.store import Store
from pinmill.tokens import allows, read_tokens
from pinmill.version import now_utc
from pinmill.visit import Caller, Visit, is_local

REREAD = 1.0  # s between two looks at the tokens
MINUTE = 60.0  # s
OWN_SITE = (b"same-origin", b"none")  # of Sec-Fetch-Site: our own page, or typed by a person


class Door:
    """The tokens of a service as they are now, and what each caller has left of its rate."""

    def __init__(self, store: Store, rate: int, say: Callable[[str], None]) -> None:
        self.store, self.rate, self.say = store, rate, say  # rate: requests a minute; 0: no limit
        self.tokens = read_tokens(store)
        self.buckets: dict[str, tuple[float, float]] = {}

    def identify(self, visit: Visit, nobody: Caller) -> Caller:
        """Who asks. Raises Problem: 401 for a token that is none, 403 for a web page that uses its reader's machine."""
        headers, given = visit.headers, visit.headers.get(b"authorization")
        if given is not None:
            is_one = sum(name == b"authorization" for name, _ in visit.scope["headers"]) == 1
            token = self.tokens.find(given.decode("latin-1"), now_utc()) if is_one else None
            if token is None:
                raise self.challenge("the token is unknown, expired or revoked")
            return Caller(token.name, token.role, nobody.address)
        if not self.tokens.empty:
            return nobody
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not (is_local(nobody.address) and (is_local(host) or is_local(host.rpartition(":")[0]))):
            raise Problem(403, "without tokens only this machine is served, under its own name")
        site = headers.get(b"sec-fetch-site", b"none")  # which a browser sends also where it sends no Origin: an image
        if (origin and origin.partition("://")[2] != host) or site not in OWN_SITE:
            raise Problem(403, "without tokens no other web page is served")
        return Caller("", "admin", nobody.address)

    def challenge(self, why: str) -> Problem:
        """The problem of a caller who has to show a token."""
        advice = "Send the header Authorization: Bearer …, with a token that pinmill token create made"
        return Problem(401, f"{why}. {advice}", headers={"WWW-Authenticate": "Bearer"})

    def admit(self, caller: Caller, needed: str) -> None:
        """Raises Problem: 401 without a token, 403 with too small a role, 429 for too many requests."""
        self.check_role(caller, needed)
        if self.rate:
            self.take_turn(caller.name or caller.address)

    def check_role(self, caller: Caller, needed: str) -> None:
        """Raises Problem: 401 without a token, 403 with too small a role."""
        if allows(caller.role, needed):
            return
        if not caller.role:
            raise self.challenge("this needs a token")
        raise Problem(403, f"this needs the role {needed}; the token {caller.name} has the role {caller.role}")

    def take_turn(self, name: str) -> None:
        """Count a request of a token, or of an address without one: a bucket of a minute's worth that fills evenly."""
        now, rate = time.monotonic(), self.rate
        left, when = self.buckets.get(name, (float(rate), now))
        left = min(rate, left + (now - when) * rate / MINUTE)
        if left < 1:
            wait = str(int((1 - left) * MINUTE / rate) + 1)
            raise Problem(429, f"more than {rate} requests in a minute", headers={"Retry-After": wait})
        self.buckets[name] = (left - 1, now)

    async def reread(self) -> None:
        """Know who may call, also after somebody else made or revoked a token, and forget who has not for a minute."""
        said = ""
        while True:
            await asyncio.sleep(REREAD)
            recent = time.monotonic() - MINUTE  # a bucket that was left alone for so long is full again
            self.buckets = {name: bucket for name, bucket in self.buckets.items() if bucket[1] > recent}
            try:
                found = await asyncio.to_thread(read_tokens, self.store)
                self.tokens = self.tokens if found.empty else found  # a store that is gone opens nothing
                said = ""
            except PinmillError as error:
                if said != str(error):  # once, not each second
                    self.say(f"the tokens could not be read, so those of before count: {error}")
                said = str(error)
