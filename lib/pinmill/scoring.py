"""Rows over HTTP: checked, looked up, gathered into batches, and given back in the shape that was asked for."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pinmill.cache import Cache, Lookups, make_key
from pinmill.calls import Writer, describe_call
from pinmill.dispatch import Dispatcher
from pinmill.endpoint import Endpoint
from pinmill.errors import did_you_mean
from pinmill.problem import Problem
from pinmill.rows import check_rows, hash_input
from pinmill.served import Models, Served
from pinmill.store import CALLS
from pinmill.traffic import Traffic
from pinmill.visit import Visit, parse_json

ENCODE = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode
OPTIONS = ("echo_input", "skip_cache", "version", "explain")  # in the query string of every row-wise endpoint
TRUTH = {"true": True, "false": False}
MANY = 500  # rows: more are checked beside the event loop, as they may take a second
FAILED = b'{"error": "The model could not score this row."'


@dataclass(frozen=True, slots=True)
class Options:
    """What a call asks for beside its rows."""

    echo: bool = False
    skip_cache: bool = False
    version: str = ""
    args: Mapping[str, list[str]] = field(default_factory=dict)  # what the cell is told


PLAIN = Options()


def read_options(given: Mapping[str, list[str]], own: Sequence[str]) -> Options:
    """The options of a call. Raises Problem (422) with all that is wrong; `own` are the cell's."""
    if not given:
        return PLAIN
    known = (*OPTIONS, *own)
    errors = [
        {"field": name, "problem": f"is no option here.{did_you_mean(name, known)}".removesuffix(".")}
        for name in given
        if name not in known
    ]
    flags = {name: given[name][-1].lower() for name in ("echo_input", "skip_cache", "explain") if name in given}
    errors += [
        {"field": name, "problem": f"{value[:40]!r} is neither true nor false"}
        for name, value in flags.items()
        if value not in TRUTH
    ]
    if errors:
        raise Problem(422, "the options in the address are wrong", errors=errors)
    said = {name: TRUTH[value] for name, value in flags.items()}
    args = {name: given[name] for name in own if name in given and name not in said}
    args |= {"explain": ["true"]} if said.get("explain") else {}
    version = given["version"][-1] if "version" in given else ""
    return Options(said.get("echo_input", False), said.get("skip_cache", False), version, args)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a call may ask of the service."""

    body: int  # bytes
    rows: int


@dataclass(eq=False)
class Scoring:
    """Answers one endpoint that scores rows."""

    endpoint: Endpoint  # as it was asked for
    cell: Endpoint  # the row-wise cell behind it
    code: str  # identity of all code that an item depends on, for the cache
    limits: Limits
    models: Models
    dispatcher: Dispatcher
    traffic: Traffic
    writer: Writer
    cache: Cache | None
    lookups: Lookups | None  # of the cache
    workflow: str
    log_inputs: bool

    async def answer(self, visit: Visit) -> bytes:
        """The body of the answer. Raises Problem."""
        options = read_options(visit.options, self.cell.args)
        return await self.score(visit, options, await visit.read_json(self.limits.body))

    async def answer_get(self, visit: Visit) -> bytes:
        """The same for an input in the address."""
        given = dict(visit.options)
        inputs = given.pop("input", [])
        if len(inputs) != 1:
            raise Problem(422, "GET needs one ?input=, a text or a JSON object")
        return await self.score(visit, read_options(given, self.cell.args), read_input(inputs[0]))

    async def score(self, visit: Visit, options: Options, body: Any) -> bytes:
        """Check the rows, find or compute their items, and shape the answer."""
        served = self.models.must_serve()
        if options.version:
            served = await self.find_version(options.version)
        visit.version = served.version
        values = self.list_values(body)
        check = partial(check_rows, values, served.check)
        canonicals, errors = check() if len(values) <= MANY else await asyncio.to_thread(check)
        if errors:
            count = len({error["row"] for error in errors})
            raise Problem(422, f"{count} of {len(values)} rows do not fit what the model expects", errors=errors)
        rows = [ENCODE(value) for value in values]
        items, cached = await self.find_items(served, options, rows)
        self.log(visit, canonicals, rows, items, cached)
        visit.logged = bool(rows)
        return self.shape(served, options, rows, items, cached)

    async def find_version(self, given: str) -> Served:
        """The version that was asked for, loaded. Raises Problem."""
        try:
            async with asyncio.timeout(self.dispatcher.seconds):
                return await self.models.find(given)
        except TimeoutError:
            raise Problem(504, f"version {given[:60]} was not loaded in time. Send it again in a moment.") from None

    def list_values(self, body: Any) -> list[Any]:
        """The rows in a body. Raises Problem (422)."""
        if self.endpoint.shape == "one":
            return [body]
        if self.endpoint.shape == "vetiver" and isinstance(body, dict):
            return [body]
        if not isinstance(body, list):
            one = "or one record" if self.endpoint.shape else "for one row there is POST /prediction"
            raise Problem(422, f"the body must be a JSON list of rows; {one}")
        if len(body) > self.limits.rows:
            raise Problem(422, f"{len(body):,} rows are too many for one call: send at most {self.limits.rows:,}")
        return body

    async def find_items(self, served: Served, options: Options, rows: list[str]) -> tuple[list[bytes], list[bool]]:
        """The item of each row, and whether it was known; empty for a row that failed."""
        known: dict[int, bytes] = {}
        keys: list[str] = []
        if self.cache is not None and not options.skip_cache:
            keys = [make_key(served.version, self.code, options.args, row) for row in rows]
            known = await self.look_up(keys)
        todo = rows if not known else [row for place, row in enumerate(rows) if place not in known]
        made = await self.compute(served, options, todo) if todo else []
        if not known:
            items, cached = made, [False] * len(rows)
        else:
            fresh = iter(made)
            items = [known[place] if place in known else next(fresh) for place in range(len(rows))]
            cached = [place in known for place in range(len(rows))]
        for key, item, was in zip(keys, items, cached, strict=False):
            if not was and is_good(item):
                self.cache.put(key, served.version, item.decode())
        self.traffic.rows[self.endpoint.name, "cache"] += len(known)
        self.traffic.rows[self.endpoint.name, "model"] += len(made)
        return items, cached

    async def look_up(self, keys: Sequence[str]) -> dict[int, bytes]:
        """The items that memory or the store has, by place."""
        found = {place: item for place, key in enumerate(keys) if (item := self.cache.get(key)) is not None}
        if len(found) < len(keys):
            stored = await self.lookups.fetch(key for place, key in enumerate(keys) if place not in found)
            found |= {place: stored[key] for place, key in enumerate(keys) if key in stored}
        return {place: item.encode() for place, item in found.items()}

    async def compute(self, served: Served, options: Options, rows: list[str]) -> list[bytes]:
        """The items of rows, from the kernels."""
        args = json.dumps({"version": [served.version], **options.args}).encode() if options.args else served.args
        parts = self.dispatcher.ask_rows(self.cell.name.encode(), args, rows)
        if len(parts) == 1:
            return await parts[0]
        return [item for part in await asyncio.gather(*parts) for item in part]

    def shape(self, served: Served, options: Options, rows: list[str], items: list[bytes], cached: list[bool]) -> bytes:
        """The body of the answer. Raises Problem (500) for a failed row where the shape has no place for that."""
        if self.endpoint.shape and (failed := [n for n, item in enumerate(items) if not is_good(item)]):
            errors = [{"row": n, "field": "", "problem": "could not be scored"} for n in failed]
            what = "this row" if len(rows) == 1 else "some rows"
            raise Problem(500, f"The model could not score {what}.", errors=errors)
        if self.endpoint.shape == "vetiver":
            parsed = [json.loads(item) for item in items]
            told = [each.get("label", each.get("value")) if isinstance(each, dict) else each for each in parsed]
            return json.dumps({"predict": told}).encode()
        told = [
            finish(item, served.tail, was, row if options.echo else "")
            for item, was, row in zip(items, cached, rows, strict=True)
        ]
        return told[0] if self.endpoint.shape == "one" else b"[" + b", ".join(told) + b"]"

    def log(self, visit: Visit, canonicals: list[str], rows: list[str], items: list[bytes], cached: list[bool]) -> None:
        """Have each row written to the call log."""
        about = describe_call(visit, self.workflow)
        for place, (canonical, item) in enumerate(zip(canonicals, items, strict=True)):
            self.writer.add(
                CALLS,
                {
                    **about,
                    "input_hash": hash_input(canonical),
                    "status": 200 if is_good(item) else 500,
                    "input": rows[place] if self.log_inputs else None,
                    "output": item.decode() if is_good(item) else None,
                    "cached": cached[place],
                    "row": place,
                },
            )


def read_input(text: str) -> Any:
    """A record where the text is a JSON object, otherwise the text."""
    try:
        value = parse_json(text.encode())
    except Problem:
        return text
    return value if isinstance(value, dict) else text


def is_good(item: bytes) -> bool:
    """Whether a row was scored."""
    return bool(item) and not item.startswith(b'{"error"')


def finish(item: bytes, tail: bytes, cached: bool, echo: str) -> bytes:
    """An item with its version, whether it was known before, and its input where that is asked for."""
    if item and not item.endswith(b"}"):
        return item
    head = item[:-1] if is_good(item) else FAILED
    comma = b", " if len(head) > 1 else b""
    shown = b', "input": ' + echo.encode() if echo else b""
    return head + comma + tail + (b', "from_cache": true' if cached else b', "from_cache": false') + shown + b"}"
