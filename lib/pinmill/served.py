"""Which model versions the gateway can score, and which one it serves: the champion, followed wherever it is moved."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pinmill.board import Board
from pinmill.champion import Champion, read_champion
from pinmill.errors import IntegrityError, PinmillError, PinNotFoundError
from pinmill.pool import Pool
from pinmill.problem import Problem
from pinmill.rows import make_checker
from pinmill.version import match_short

EVERY = 1.0  # s between two looks at who is champion
SOON, AGAIN = 1.0, 30.0  # s until a champion that was refused is tried once more: twice as long each time, up to that
GLANCE = 3.0  # s between two looks at who is champion while one is loaded
KEPT = 4  # versions whose prototypes are remembered beside the champion


@dataclass(frozen=True)
class Served:
    """A model version as the gateway needs it."""

    version: str
    facts: Mapping[str, Any]  # of its pin
    check: Callable[[Any], str]

    @cached_property
    def args(self) -> bytes:
        """What a row-wise cell is told of a call without options."""
        return json.dumps({"version": [self.version]}).encode()

    @cached_property
    def tail(self) -> bytes:
        """How an item that names this version begins to end."""
        return b'"version": ' + json.dumps(self.version).encode()


class Models:
    """The champion as all kernels have it, and other versions on demand."""

    def __init__(self, board: Board, workflow: str, pool: Pool, say: Callable[[str], None]) -> None:
        self.board, self.workflow, self.pool, self.say = board, workflow, pool, say
        self.current: Served | None = None
        self.champion: Champion | None = None  # the record by which `current` is served
        self.refused = ""  # why the champion of the board is not the one that is served
        self._others: OrderedDict[str, Served] = OrderedDict()
        self._tried = ("", 0.0, 0.0)  # the record that was tried last, when, and for how long it is not tried again
        self._loading = asyncio.Lock()  # of versions on demand: one at a time, as kernels hold only a few

    async def follow(self) -> None:
        """Serve whoever is champion, for ever; whatever goes wrong, the last good one goes on."""
        while True:
            try:
                await self.look()
            except Exception as error:  # the board is out of reach, or the champion cannot be served
                self.refuse(error)
            self.pool.ready.clear()
            try:
                await asyncio.wait_for(self.pool.ready.wait(), EVERY)
            except TimeoutError:
                continue

    async def look(self) -> None:
        """See who is champion, and let all kernels serve it."""
        champion = await asyncio.to_thread(read_champion, self.board, self.workflow)
        if champion is None and self.champion is not None:
            raise PinNotFoundError(f"there is no champion of {self.workflow} any more on {self.board.url}")
        if champion is None or not self.pool.links:
            return
        if self.champion and champion.record == self.champion.record:
            if self.refused:
                self.say(f"the champion is served again: {champion.version}")
            self.refused = ""
            return
        now, (record, when, pause) = asyncio.get_running_loop().time(), self._tried
        was_tried = self.refused and record == champion.record
        if was_tried and now - when < pause:
            return
        self._tried = (champion.record, now, min(AGAIN, 2 * pause) if was_tried else SOON)
        served = await asyncio.to_thread(self.read_pin, champion.version, champion.sha256)
        if not await self.load(champion) or not self.pool.links:
            return
        self.pool.choose(champion.version)
        self.current, self.champion, self.refused = served, champion, ""
        self.say(f"serving {self.workflow} {champion}")

    async def load(self, champion: Champion) -> bool:
        """Let all kernels load the champion; False, and the sooner, when it is another one meanwhile."""
        loading = asyncio.create_task(self.pool.load(champion.version, anew=True))
        try:
            while not (await asyncio.wait([loading], timeout=GLANCE))[0]:
                now = await asyncio.to_thread(read_champion, self.board, self.workflow)
                if now is None or now.record != champion.record:
                    return False
            await loading
            return True
        finally:
            loading.cancel()

    def refuse(self, error: Exception) -> None:
        """Say why the champion is not served, once for each reason."""
        said = str(error) if isinstance(error, PinmillError | OSError) else type(error).__name__
        stays = f"; {self.current.version} goes on being served" if self.current else ""
        if said != self.refused:
            self.say(f"THE CHAMPION IS NOT SERVED: {said}{stays}")
        self.refused = said

    def read_pin(self, version: str, sha256: str = "") -> Served:
        """The facts of a version, from the board."""
        pin = self.board.pin(f"{self.workflow}-model", version)
        if sha256 and pin.sha256 != sha256:
            raise IntegrityError(f"the champion {version} is not the model that was promoted: its SHA-256 differs.")
        return Served(version, pin.facts, make_checker(pin.facts["prototype"]))

    async def find(self, given: str) -> Served:
        """The version of a call, which may be shortened; all kernels have it then. Raises Problem."""
        if self.current and given == self.current.version:
            return self.current
        try:
            served = self._others.get(given) or await asyncio.to_thread(self.look_up, given)
            if not self.pool.holds(served.version):
                async with self._loading:
                    await self.pool.load(served.version)
        except PinNotFoundError as error:
            raise Problem(404, str(error)) from None
        except PinmillError as error:
            raise Problem(503, f"version {given} cannot be served: {error}") from None
        self._others[served.version] = served
        self._others.move_to_end(served.version)
        while len(self._others) > KEPT:
            self._others.popitem(last=False)
        return served

    def look_up(self, given: str) -> Served:
        """The facts of the version that a text is the beginning or end of. Raises PinNotFoundError."""
        found = match_short(given, self.board.versions(f"{self.workflow}-model"))
        if len(found) != 1:
            what = f"{len(found)} versions match" if found else "no version is"
            raise PinNotFoundError(f"{what} {given[:60]!r}. GET /models lists them.")
        return self.read_pin(found[0])

    def must_serve(self, *, at_once: bool = False) -> Served:
        """What is served, unless `at_once` also while a kernel is replaced. Raises Problem (503) when nothing is."""
        if self.current is None or not (self.pool.links or (self.pool.is_replacing and not at_once)):
            said, why = self.tell_unready()
            raise Problem(503, said, headers={"Retry-After": "2"}, why=why)
        return self.current

    def tell_unready(self) -> tuple[str, str]:
        """Why nothing can be served now: for everybody, and for those who run the service."""
        if self.refused:
            return "The champion cannot be served.", self.refused
        if self.current is None and self.pool.links:
            return f"{self.workflow} has no champion yet.", f"Train and promote one with: pinmill run {self.workflow}"
        return "No kernel is ready.", self.pool.problem or "One is being started."
