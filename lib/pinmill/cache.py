"""The cache of predictions: what a row-wise cell printed for one row, in memory and behind that in the store."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import sqlalchemy as sql

from pinmill.calls import Writer
from pinmill.errors import StoreError
from pinmill.store import CHUNK, PREDICTIONS, Store, stamp

PATIENCE = 0.25  # s to wait for the store, before computing what it may know


class Cache:
    """Printed predictions of one workflow by key; the `size` used last stay in memory. Threads may share it."""

    def __init__(self, store: Store, workflow: str, writer: Writer, size: int = 100_000) -> None:
        self._store, self._workflow, self._writer, self._size = store, workflow, writer, size
        self._kept: OrderedDict[str, str] = OrderedDict()

    def get(self, key: str) -> str | None:
        """What was printed for `key`, as far as memory knows."""
        try:
            self._kept.move_to_end(key)
            return self._kept[key]
        except KeyError:
            return None

    def fetch(self, keys: Sequence[str]) -> dict[str, str]:
        """What the store knows of `keys`; waits for it, and remembers what it says. A broken store knows nothing."""
        found: dict[str, str] = {}
        text = sql.cast(PREDICTIONS.c.output, sql.Text)
        for place in range(0, len(keys), CHUNK):
            chosen = PREDICTIONS.c.key.in_(keys[place : place + CHUNK]) & (PREDICTIONS.c.workflow == self._workflow)
            try:
                found |= dict(map(tuple, self._store.read(sql.select(PREDICTIONS.c.key, text).where(chosen))))
            except StoreError:
                break
        for key, printed in found.items():
            self._keep(key, printed)
        return found

    def put(self, key: str, version: str, printed: str) -> None:
        """Remember the JSON text that model `version` printed for `key`, and have it written to the store."""
        self._keep(key, printed)
        about = {"key": key, "workflow": self._workflow, "version": version, "created": stamp(datetime.now(UTC))}
        self._writer.add(PREDICTIONS, about | {"output": printed})

    def _keep(self, key: str, printed: str) -> None:
        self._kept[key] = printed
        self._kept.move_to_end(key)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)


class Lookups:
    """Questions to the store's part of a cache: what is asked while it answers one is asked together in the next."""

    def __init__(self, cache: Cache) -> None:
        self._cache, self._keys, self._work = cache, set[str](), None
        self._answer: asyncio.Future[dict[str, str]] | None = None

    async def fetch(self, keys: Iterable[str]) -> dict[str, str]:
        """What the store knows of `keys`, and of others; nothing where it takes longer than computing would."""
        self._keys.update(keys)
        self._answer = self._answer or asyncio.get_running_loop().create_future()
        answer = self._answer
        if self._work is None:
            self._work = asyncio.create_task(self._ask())
        done, _ = await asyncio.wait([answer], timeout=PATIENCE)  # which leaves the answer to the others
        return answer.result() if done else {}

    async def _ask(self) -> None:
        while self._keys:
            keys, answer, self._keys, self._answer = self._keys, self._answer, set(), None
            try:
                answer.set_result(await asyncio.to_thread(self._cache.fetch, [*keys]))
            except Exception:  # whatever the store does: what is not known is computed
                answer.set_result({})
        self._work = None


def make_key(version: str, code: str, args: Mapping[str, Sequence[str]], canonical: str) -> str:
    """The key of one row's prediction: 64 hex digits, the same only for the same model, code, arguments and row."""
    said = f"{version}\n{code}\n{sorted(args.items())}\n{canonical}"  # only the last can hold an end of line
    return hashlib.sha256(said.encode()).hexdigest()
