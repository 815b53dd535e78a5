"""Labelling over HTTP: examples and labels in, the next examples out with what the model says of them, SQL over both.

What a model makes of an example is an extra: where it cannot be had in time, labelling goes on without.
"""

import asyncio
import getpass
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import sqlalchemy as sql
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from pinmill.calls import PAGE, stream_calls
from pinmill.data import Query, open_query
from pinmill.desk import Desk, describe_task, make_policy
from pinmill.errors import PinmillError, did_you_mean
from pinmill.labels import check_fields
from pinmill.plan import Plan
from pinmill.problem import Problem
from pinmill.project import Project
from pinmill.queue import CHOICES, Task, order_pool
from pinmill.rows import RowError
from pinmill.scoring import ENCODE, PLAIN, Limits, Options, Scoring, is_good
from pinmill.served import Models, Served
from pinmill.store import ANNOTATIONS
from pinmill.version import now_utc
from pinmill.visit import PERSON, Visit

JSON = "application/json"
MOST_TASKS = 50  # examples that one may have before one
RANKED = ("uncertainty", "disagreement")  # strategies by which the model orders the examples
TOGETHER = 200  # examples that are scored at a time for their order, so that other callers get their turn
FRESH = 30.0  # s: an older order is made anew beside the next question
PATIENCE = 2.0  # s that a question waits for the model
OTHERS = 3  # versions that are tried for one that can be compared with the champion
KEPT = 200  # orders that are remembered
EXPLAINED = Options(args={"explain": ["true"]})
Act = Callable[[Visit, Request], Awaitable[Response]]


@dataclass(frozen=True)
class Order:
    """Examples as a model orders them."""

    hashes: Sequence[str] = ()  # best first
    strategy: str = ""  # by which it was made in the end; empty: by none
    when: float = 0.0  # s, of the event loop's clock


class Labelling:
    """The gateway's endpoints about labels, of one workflow."""

    def __init__(
        self,
        project: Project,
        plan: Plan,
        limits: Limits,
        models: Models,
        scoring: Scoring | None,
        log: Callable[[Visit, int], None],
    ) -> None:
        """`scoring` is of the row-wise cell; without one, or a champion, nothing is predicted. `log` logs a call."""
        self.project, self.workflow, self.limits = project, plan.workflow, limits
        self.models, self.scoring, self.log = models, scoring, log
        self.policy = make_policy(plan.values)
        self.desk = Desk(project, plan.workflow, self.policy)
        self.orders: dict[tuple[str, str, str], Order] = {}  # by annotator, strategy and version of the model
        self.ranking: dict[tuple[str, str, str], asyncio.Task[None]] = {}

    def list_endpoints(self) -> list[tuple[str, str, str, Act]]:
        """Method, path, role, and what answers."""
        found: list[tuple[str, str, str, Act]] = [
            ("POST", "/examples", "annotator", self.add_examples),
            ("POST", "/annotations", "annotator", self.annotate),
            ("GET", "/annotations", "modeller", self.read_annotations),
            ("GET", "/queue", "annotator", self.take),
            ("POST", "/queue/undo", "annotator", self.undo),
            ("POST", "/queue/{id}/skip", "annotator", self.skip),
            ("GET", "/data", "modeller", self.query),
        ]
        return [(method, path, role, self.logged(act)) for method, path, role, act in found]

    def logged(self, act: Act) -> Act:
        """`act`, its calls in the call log."""

        async def answer(visit: Visit, request: Request) -> Response:
            """What `act` answers."""
            response = await act(visit, request)
            self.log(visit, response.status_code)
            return response

        return answer

    # What people send

    async def add_examples(self, visit: Visit, request: Request) -> Response:
        """Rows as examples."""
        annotator = name_annotator(visit, read_options(visit, "annotator"))
        rows = await self.read_rows(visit)
        add = partial(self.desk.add_examples, rows, origin=f"service {annotator}", now=now_utc())
        added, known = await asyncio.to_thread(add)
        return answer_json({"added": added, "known": known}, 201)

    async def annotate(self, visit: Visit, request: Request) -> Response:
        """One label, or a list of them."""
        annotator = name_annotator(visit, read_options(visit, "annotator"))
        items = await self.read_rows(visit, one=dict)
        kept = await asyncio.to_thread(self.desk.annotate, annotator, items, now=now_utc())
        return answer_json({"annotations": kept}, 201)

    async def skip(self, visit: Visit, request: Request) -> Response:
        """Pass an example over."""
        annotator = name_annotator(visit, read_options(visit, "annotator"))
        given = await self.read_fields(visit, "key", "note", "seconds")
        about = {"key": given.get("key") or "", "note": given.get("note") or "", "seconds": given.get("seconds")}
        id = await asyncio.to_thread(self.desk.skip, annotator, request.path_params["id"], **about, now=now_utc())
        return answer_json({"id": id}, 201)

    async def undo(self, visit: Visit, request: Request) -> Response:
        """Take one's last label or skip back, and give its example out again."""
        annotator = name_annotator(visit, read_options(visit, "annotator"))
        given = await self.read_fields(visit, "key")
        task = await asyncio.to_thread(self.desk.undo, annotator, key=given.get("key") or "", now=now_utc())
        told = await self.describe(annotator, [task] if task else [])
        return answer_json({"item": next(iter(told["items"]), None), "progress": told["progress"]})

    async def read_fields(self, visit: Visit, *known: str) -> dict[str, Any]:
        """The `known` fields of the object in a body. Raises Problem."""
        given = await visit.read_json(self.limits.body)
        if wrong := check_fields(given, known):
            raise Problem(422, "the body does not fit", errors=[{"field": f, "problem": p} for f, p in wrong])
        return given

    async def read_rows(self, visit: Visit, *, one: type | None = None) -> list[Any]:
        """The list in a body, or the `one` thing in it. Raises Problem."""
        body = await visit.read_json(self.limits.body)
        rows = [body] if one and isinstance(body, one) else body
        if not isinstance(rows, list):
            raise Problem(422, f"the body must be a JSON list{' or object' * bool(one)}")
        if len(rows) > self.limits.rows:
            raise Problem(422, f"{len(rows):,} rows are too many for one call: send at most {self.limits.rows:,}")
        return rows

    # What people get

    async def take(self, visit: Visit, request: Request) -> Response:
        """The next examples for one annotator, and all else that the screen shows."""
        options = read_options(visit, "annotator", "n", "strategy")
        annotator, n = name_annotator(visit, options), options.get("n", "1")
        if not (n.isascii() and n.isdecimal() and len(n) < 4 and 1 <= int(n) <= MOST_TASKS):
            raise Problem(422, f"n is {n[:20]!r}: a whole number from 1 to {MOST_TASKS} was expected")
        strategy = options.get("strategy") or self.policy.strategy
        if strategy not in CHOICES:
            expected = f"one of {', '.join(CHOICES)} was expected.{did_you_mean(strategy, CHOICES)}"
            raise Problem(422, f"strategy is {strategy[:20]!r}: {expected}")
        order, now = await self.find_order(annotator, strategy), now_utc()
        chosen = {"order": order.hashes, "strategy": order.strategy or strategy}
        tasks = await asyncio.to_thread(self.desk.take, annotator, int(n), now=now, **chosen)
        told = await self.describe(annotator, tasks)
        known = await asyncio.to_thread(self.desk.know, now)
        about = {"workflow": self.workflow, "annotator": annotator, "role": visit.caller.role, "labels": known.labels}
        return answer_json({**about, "text": self.policy.text, "guideline": self.policy.guideline, **told})

    async def describe(self, annotator: str, tasks: Sequence[Task]) -> dict[str, Any]:
        """The items of tasks, with what the champion says of them, and how far the annotator is."""
        records, served = [task.record for task in tasks], self.models.current
        counting = asyncio.create_task(asyncio.to_thread(self.desk.progress, annotator, now=now_utc()))
        said = await self.score(served, records, EXPLAINED, seconds=PATIENCE) if served else [None] * len(tasks)
        items = [describe_task(task, each) for task, each in zip(tasks, said, strict=True)]
        return {"items": items, "progress": asdict(await counting)}

    async def read_annotations(self, visit: Visit, request: Request) -> Response:
        """All annotations and retractions, oldest first, or those after the id `since`."""
        since = read_options(visit, "since").get("since", "0")
        if not (since.isascii() and since.isdecimal() and len(since) < 19):
            raise Problem(422, f"since is {since[:20]!r}: the id of an annotation was expected")
        first = await asyncio.to_thread(self.read_page, after=int(since))
        return StreamingResponse(stream_calls(self.read_page, first), media_type=JSON)

    def read_page(self, *, after: int) -> list[dict[str, Any]]:
        """The next annotations after an id."""
        of = ANNOTATIONS.c
        columns = [column for column in of if column is not of.workflow]
        chosen = (of.workflow == self.workflow) & (of.id > after)
        rows = self.project.store.read(sql.select(*columns).where(chosen).order_by(of.id).limit(PAGE))
        return [dict(row._mapping) for row in rows]

    async def query(self, visit: Visit, request: Request) -> Response:
        """The answer to one SELECT."""
        asked = read_options(visit, "query").get("query", "")
        found = await asyncio.to_thread(open_query, self.project.store_file, self.workflow, asked)
        return StreamingResponse(stream_query(found), media_type=JSON)

    # What the model says

    async def score(
        self, served: Served, records: Sequence[Mapping[str, Any]], options: Options, *, seconds: float
    ) -> list[dict[str, Any] | None]:
        """The item of each record; None for one that does not fit the model, or was not scored in time."""
        inputs = [{name: record[name] for name in served.facts["prototype"] if name in record} for record in records]
        places = [place for place, row in enumerate(inputs) if self.scoring and fits(served, row)]
        try:
            async with asyncio.timeout(seconds):
                rows = [ENCODE(inputs[place]) for place in places]
                items = (await self.scoring.find_items(served, options, rows))[0] if rows else []
        except (Problem, TimeoutError):
            items = [b""] * len(places)
        said = {place: json.loads(item) for place, item in zip(places, items, strict=True) if is_good(item)}
        return [said.get(place) for place in range(len(records))]

    async def find_order(self, annotator: str, strategy: str) -> Order:
        """The open examples as a strategy has it; empty where no model orders them, or not in time."""
        served = self.models.current
        if strategy not in RANKED or served is None:
            return Order()
        key, now = (annotator, strategy, served.version), asyncio.get_running_loop().time()
        if key not in self.ranking and now - self.orders.get(key, Order(when=-FRESH)).when >= FRESH:
            self.ranking[key] = asyncio.create_task(self.rank(key, served))
        if key not in self.orders:
            await asyncio.wait([self.ranking[key]], timeout=PATIENCE)
        return self.orders.get(key, Order())

    async def rank(self, key: tuple[str, str, str], served: Served) -> None:
        """Have the open examples of an annotator ordered, and remember that."""
        annotator, strategy, _ = key
        try:
            pool = await asyncio.to_thread(self.desk.pool, annotator, now=now_utc())
            other = await self.find_other(served) if strategy == "disagreement" else None
            shares = [await self.score_pool(each, [record for _, record in pool]) for each in (served, other) if each]
            by, hashes = strategy if len(shares) > 1 else "uncertainty", [hash for hash, _ in pool]
            is_known = all(any(each) for each in shares)
            order = await asyncio.to_thread(order_pool, by, hashes, *shares) if is_known else []
            if pool:  # else the first that is added would come unordered
                self.orders[key] = Order(order, by if order else "", asyncio.get_running_loop().time())
        except PinmillError:  # whoever takes an example is told what is wrong with the store
            pass
        except Exception as error:
            self.models.say(f"a defect of the order of examples: {type(error).__name__}: {error}")
        finally:
            del self.ranking[key]
        for old in [*self.orders][:-KEPT]:
            del self.orders[old]

    async def score_pool(self, served: Served, records: Sequence[Mapping[str, Any]]) -> list[dict[str, float] | None]:
        """The probabilities of each record; None where there are none."""
        items: list[dict[str, Any] | None] = []
        for place in range(0, len(records), TOGETHER):
            some = records[place : place + TOGETHER]
            items += await self.score(served, some, PLAIN, seconds=self.models.pool.dispatcher.seconds)
        return [item.get("probability") if item else None for item in items]

    async def find_other(self, served: Served) -> Served | None:
        """The newest version beside one that can be loaded; None if the newest few cannot."""
        name = f"{self.workflow}-model"
        versions = await asyncio.to_thread(self.project.board.versions, name)
        for version in [version for version in reversed(versions) if version != served.version][:OTHERS]:
            try:
                return await self.models.find(version)
            except Problem:
                continue
        return None


def fits(served: Served, row: Mapping[str, Any]) -> bool:
    """Whether a row is what a model expects."""
    try:
        return bool(served.check(row))
    except RowError:
        return False


def read_options(visit: Visit, *known: str) -> dict[str, str]:
    """The options of a call. Raises Problem (422) for others than those `known`."""
    unknown = [name for name in visit.options if name not in known]
    if errors := [{"field": n, "problem": f"is no option here.{did_you_mean(n, known)}".rstrip(".")} for n in unknown]:
        raise Problem(422, "the options in the address are wrong", errors=errors)
    return {name: values[-1] for name, values in visit.options.items()}


def name_annotator(visit: Visit, options: Mapping[str, str]) -> str:
    """Who labels: the token's name, and without tokens who the option says, or this machine's user. Raises Problem."""
    name = options.get("annotator")
    if visit.caller.name:
        if name is not None:
            raise Problem(422, f"with a token the annotator is its name, {visit.caller.name}: leave out ?annotator=")
        return visit.caller.name
    if name is not None and not PERSON.fullmatch(name):
        expected = "1 to 40 letters, digits, spaces and ._@- were expected, the first a letter or digit"
        raise Problem(422, f"annotator is {name[:40]!r}: {expected}")
    return name or getpass.getuser()


def answer_json(value: Any, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(json.dumps(value), status, media_type=JSON)


async def stream_query(query: Query) -> AsyncIterator[str]:
    """The answer to a query as JSON, a page at a time."""
    pages, before = iter(query), ""
    try:
        yield f'{{"columns": {json.dumps(query.columns)}, "rows": ['
        while page := await asyncio.to_thread(next, pages, None):
            yield before + json.dumps(page)[1:-1]
            before = ",\n"
        yield f'], "complete": {json.dumps(query.complete)}, "cut": {json.dumps(query.cut)}}}'
    finally:
        query.close()
