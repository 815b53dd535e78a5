"""The light kernel gateway: every request is named, told apart by its token, checked, answered and counted here.

What scores rows is answered at once; the notebook's other cells, and what is the gateway's own, through Starlette.
"""

import asyncio
import gc
import json
import secrets
import signal
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, Router

from pinmill.cache import Cache, Lookups
from pinmill.calls import Writer, describe_call, list_recent
from pinmill.dispatch import Dispatcher
from pinmill.door import Door
from pinmill.endpoint import Endpoint, add_get, read_endpoints
from pinmill.errors import PinmillError, ProjectError, describe_problems
from pinmill.intake import receive
from pinmill.labelling import Labelling
from pinmill.openapi import docs_routes, write_openapi
from pinmill.plan import Plan
from pinmill.pool import Pool
from pinmill.problem import BROKEN, MEDIA_TYPE, NOT_HERE, Problem
from pinmill.project import Project
from pinmill.reply import ask_cell
from pinmill.scoring import Limits, Scoring
from pinmill.secret import find_secrets, hidden_values, scrub
from pinmill.seed import make_seed
from pinmill.served import Models
from pinmill.store import CALLS, stamp
from pinmill.tokens import allows
from pinmill.traffic import Traffic
from pinmill.version import now_utc
from pinmill.visit import Caller, Visit, is_local

NO_GET = (
    "GET /prediction is off: addresses, and the texts in them, stand in the logs of proxies. "
    "POST it, or start the service with --allow-get."
)
JSON_HEAD = (b"content-type", b"application/json")
QUIET = (b"cache-control", b"no-store")
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Options:
    """How a service is run."""

    kernels: int = 1
    seconds: float = 10.0  # deadline of a request
    body: int = 2_000_000  # bytes
    rows: int = 10_000  # of a call
    waiting: int = 20_000  # rows and requests that wait for a kernel
    rate: int = 0  # requests a minute of a token, or of an address without one; 0: no limit
    cache: bool = True
    allow_get: bool = False


def say(hidden: list[str], text: str) -> None:
    """A line of the service's log, without secrets."""
    import sys

    with suppress(OSError, ValueError):  # a full disk under the log, or a log that is closed, ends nothing
        print(f"{stamp(now_utc())[:19]}Z {scrub(text, hidden)}", file=sys.stderr, flush=True)


class Gateway:
    """The service of one workflow, as an ASGI application."""

    def __init__(self, project: Project, plan: Plan, options: Options) -> None:
        (stage,) = plan.stages
        self.project, self.plan, self.options, self.workflow = project, plan, options, plan.workflow
        self.hidden = hidden_values(find_secrets(dict(plan.values)), project.settings)
        self.say = partial(say, self.hidden)
        read = read_endpoints(stage.path)
        self.endpoints = [e for e in add_get(read[0]) if options.allow_get or e.method != "GET" or not e.shape]
        self.dispatcher = Dispatcher(options.seconds, options.waiting, self.report)
        seed = make_seed(project.root, project.settings, plan.workflow, stage.path, read)
        self.pool = Pool(seed, options.kernels, self.dispatcher, self.say)
        self.models = Models(project.board, plan.workflow, self.pool, self.say)
        self.traffic = Traffic(self.read_gauges)
        self.writer = Writer(project.store)
        self.cache = Cache(project.store, plan.workflow, self.writer) if options.cache else None
        self.door = Door(project.store, options.rate, self.say)
        self.uploading = asyncio.Lock()
        self.prefix, self.numbers = f"req-{secrets.token_hex(6)}", count()
        self.limits = Limits(options.body, options.rows)
        self.rows = dict(self.list_scorings())
        scoring = next((each for each in self.rows.values() if each.endpoint.row_wise), None)
        self.labelling = Labelling(project, plan, self.limits, self.models, scoring, self.log)
        self.router = Router(self.list_routes(), redirect_slashes=False, lifespan=self.live)

    # What is answered where

    def list_scorings(self) -> "list[tuple[tuple[str, str], Scoring]]":
        """What scores rows, by method and path."""
        by_path = {endpoint.path: endpoint for endpoint in self.endpoints if endpoint.row_wise}
        cached = (self.cache, Lookups(self.cache) if self.cache else None)
        shared = (self.limits, self.models, self.dispatcher, self.traffic, self.writer, *cached, self.workflow)
        values = {name: self.plan.values[name] for name in self.plan.stages[0].declarations}
        hash_code, log_inputs = self.pool.seed.hash_code, bool(values.get("log_inputs"))
        return [
            ((each.method, each.path), Scoring(each, cell, hash_code(cell, values), *shared, log_inputs))
            for each in self.endpoints
            if (cell := each if each.row_wise else by_path.get(each.of))
        ]

    def list_routes(self) -> list[Route]:
        """All else: the notebook's other cells and the gateway's own endpoints."""
        cells = [endpoint for endpoint in self.endpoints if (endpoint.method, endpoint.path) not in self.rows]
        docs = docs_routes()
        own = (
            ("GET", "/ping", "any", self.ping),
            ("GET", "/ready", "any", self.ready),
            ("GET", "/openapi.json", "any", self.openapi),
            ("GET", "/recent-log", "scorer", self.recent_log),
            ("GET", "/metrics", "any", self.metrics),
            ("POST", "/models", "modeller", self.upload),
            *self.labelling.list_endpoints(),
        )
        ours = {(method, path) for method, path, *_ in own} | {("GET", route.path) for route in docs}
        if taken := [e.name for e in self.endpoints if (e.method, e.path) in ours]:
            said = describe_problems("the serving notebook", [f"{name} is answered by the gateway" for name in taken])
            raise ProjectError(f"{said}. Take another path.")
        routes = [Route(e.path, self.guard(e.name, e.role, partial(self.ask, e)), methods=[e.method]) for e in cells]
        routes += [Route(p, self.guard(f"{m} {p}", role, act), methods=[m]) for m, p, role, act in own]
        rows = [Route(path, self.ping, methods=[method]) for method, path in self.rows]  # answered before this
        return rows + routes + docs

    def list_methods(self, path: str) -> str:
        """What may be done at an address, as the header Allow says it."""
        found = {method for route in self.router.routes if route.path_regex.match(path) for method in route.methods}
        return ", ".join(sorted(found))

    def guard(self, name: str, role: str, act: Callable[..., Awaitable[Response]]) -> Callable[..., Any]:
        """`act` for those who may."""

        async def answer(request: Request) -> Response:
            """What `act` answers, if the caller may ask it."""
            visit = request.scope["visit"]
            visit.endpoint = name
            self.door.admit(visit.caller, role)
            return await act(visit, request)

        return answer

    # Every request

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.router(scope, receive, send)
            return
        started, headers = time.perf_counter(), dict(scope["headers"])
        nobody = Caller("", "", scope["client"][0] if scope["client"] else "")
        visit = Visit(scope, receive, f"{self.prefix}{next(self.numbers):x}", headers, started, nobody)
        try:
            visit.options = visit.read_options()  # which refuses a token in the address, whatever is there
            visit.caller = self.door.identify(visit, nobody)
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            scoring = self.rows.get((method, scope["path"]))
            if scoring is None:
                await self.route(visit, send)
                return
            visit.endpoint = scoring.endpoint.name
            self.door.admit(visit.caller, scoring.endpoint.role)
            answer = scoring.answer if method != "GET" else scoring.answer_get
            body = await answer(visit)
            if not visit.logged:  # a list without rows
                self.log(visit, 200)
            await self.send(visit, send, 200, (JSON_HEAD,), body)
        except Problem as problem:
            await self.send_problem(visit, send, problem)
        except HTTPException as error:
            await self.send_problem(visit, send, self.explain(error, method, scope["path"]))
        except (PinmillError, OSError) as error:  # of the store or the board
            await self.send_problem(visit, send, Problem(503, BROKEN, why=str(error)))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.say(
                f"{visit.id} {visit.endpoint}: a defect: {type(error).__name__} in {where.name}, line {where.lineno}"
            )
            await self.send_problem(visit, send, Problem(500, "The gateway failed on this request."))

    async def send(self, visit: Visit, send: Send, status: int, headers: Any, body: bytes) -> None:
        """Send a whole answer, and count it."""
        self.traffic.count(visit.endpoint, status, time.perf_counter() - visit.started)
        length = (b"content-length", str(len(body)).encode())
        head = [*headers, length, *self.mark(visit)]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": body})

    def mark(self, visit: Visit) -> list[tuple[bytes, bytes]]:
        """The headers that every answer carries."""
        version = visit.version or (self.models.current.version if self.models.current else "none")
        return [(b"x-request-id", visit.id.encode()), (b"x-model-version", version.encode()), QUIET]

    async def send_problem(self, visit: Visit, send: Send, problem: Problem) -> None:
        """Send a problem, and log the call if it was one; only those who can mend it are told why."""
        told = scrub(problem.body(visit.id, inner=allows(visit.caller.role, "modeller")), self.hidden)
        body = json.dumps(told, ensure_ascii=False).encode(errors="backslashreplace")
        headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
        if not visit.logged:
            self.log(visit, problem.status)
        await self.send(visit, send, problem.status, ((b"content-type", MEDIA_TYPE.encode()), *headers), body)

    def explain(self, error: HTTPException, method: str, path: str) -> Problem:
        """What Starlette found wrong with a request, in our words."""
        status, headers = error.status_code, dict(error.headers or {})
        detail = NOT_HERE.get(status, str(error.detail))
        if status == 405:
            headers["Allow"] = self.list_methods(path)  # Starlette names the methods of one route only
            posted = self.rows.get(("POST", path))
            detail = NO_GET if method == "GET" and posted and posted.endpoint.shape == "one" else detail
        return Problem(status, detail, headers=headers)

    async def route(self, visit: Visit, send: Send) -> None:
        """Answer through Starlette."""
        begun = 0

        async def marked(message: Any) -> None:
            """Pass a message on, the head with the headers that every answer carries."""
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = message["status"]
                message["headers"] = [*message["headers"], *self.mark(visit)]
            await send(message)

        visit.scope.update({"visit": visit, "app": self})
        try:
            await self.router(visit.scope, visit.receive, marked)
        except Exception:
            if not begun:
                raise
            self.say(f"{visit.id} {visit.endpoint}: the answer broke off")
        self.traffic.count(visit.endpoint, begun or 500, time.perf_counter() - visit.started)

    # The notebook's other cells

    async def ask(self, endpoint: Endpoint, visit: Visit, request: Request) -> Response:
        """What a cell answers."""
        response = await ask_cell(self.dispatcher, self.models, endpoint, visit, request, self.options.body)
        self.log(visit, response.status_code)
        return response

    def report(self, fault: Mapping[str, Any]) -> None:
        """Say which cell failed, and where."""
        self.say(f"{fault['cell']}: {fault['error']} in line {fault['line']} of its cell")

    def log(self, visit: Visit, status: int) -> None:
        """Have a call that scored nothing written to the call log, unless it is anybody's."""
        if not (visit.endpoint and visit.caller.role):
            return
        row = dict.fromkeys(("input", "output")) | {"input_hash": "", "cached": False, "row": 0, "status": status}
        self.writer.add(CALLS, row | describe_call(visit, self.workflow))

    # The gateway's own endpoints

    async def ping(self, visit: Visit, request: Request) -> Response:
        """The gateway is alive."""
        return JSONResponse({"status": "ok"})

    async def ready(self, visit: Visit, request: Request) -> Response:
        """A kernel holds a verified champion. Raises Problem (503) before."""
        served = self.models.must_serve(at_once=True)
        is_told = allows(visit.caller.role, "modeller")
        why = scrub(self.models.refused, self.hidden) if is_told else "the service's log says what"
        refused = {"refused": why} if self.models.refused else {}
        return JSONResponse({"status": "ready", "version": served.version, **refused})

    async def openapi(self, visit: Visit, request: Request) -> Response:
        """The document of all endpoints; with the model's own examples for those who may score."""
        served = self.models.current
        prototype = served.facts["prototype"] if served else {}
        version = served.version if served else "none"
        about = {"workflow": self.workflow, "version": version, "title": self.plan.title}
        is_known = allows(visit.caller.role, "scorer")
        return JSONResponse(write_openapi(self.endpoints, prototype=prototype, **about, show_examples=is_known))

    async def metrics(self, visit: Visit, request: Request) -> Response:
        """For this machine itself, and for admins."""
        if not is_local(visit.caller.address):
            self.door.check_role(visit.caller, "admin")
        return Response(self.traffic.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def read_gauges(self) -> Mapping[str, tuple[str, float]]:
        """How the service is now: meaning and value by name."""
        served = self.models.current
        return {
            "ready": ("Whether a kernel holds a verified champion.", float(bool(served and self.pool.links))),
            "kernels": ("Kernels that answer.", len(self.pool.links)),
            "kernel_restarts": ("Kernels that died or hung and were replaced.", self.pool.restarts),
            "waiting": ("Rows and requests that wait for a kernel.", self.dispatcher.waiting),
            "log_lost": ("Rows of the call log that were lost.", self.writer.lost),
            "log_failing": ("Whether the store does not take the call log.", float(bool(self.writer.failing))),
            "champion_refused": ("Whether the champion could not be served.", float(bool(self.models.refused))),
        }

    async def recent_log(self, visit: Visit, request: Request) -> Response:
        """One's own calls, of an admin all, oldest first."""
        found = await list_recent(self.project.store, self.workflow, visit)
        return StreamingResponse(found, media_type="application/json")

    async def upload(self, visit: Visit, request: Request) -> Response:
        """A model of somebody's own as a candidate."""
        if self.uploading.locked():  # one at a time: each may take the memory of a model
            raise Problem(503, "another upload is being checked; send it again", headers={"Retry-After": "10"})
        async with self.uploading:
            said = await receive(visit, self.project.root, self.workflow)
        self.log(visit, 201)
        return Response(said, 201, media_type="application/json")

    # The service as a whole

    @asynccontextmanager
    async def live(self, app: Any) -> AsyncIterator[None]:
        """From start to graceful end."""
        self.pool.start()
        forever = (self.models.follow(), self.door.reread(), self.give_up())
        tasks = [asyncio.create_task(each) for each in forever]
        gc.collect()
        gc.freeze()  # what lives as long as the service needs no looking at
        gc.set_threshold(50_000, 20, 100)
        try:
            yield
        finally:
            tasks += self.labelling.ranking.values()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.pool.stop()
            await asyncio.to_thread(self.writer.close)

    async def give_up(self) -> None:
        """End the service when its first kernel cannot even start: the notebook needs a person."""
        await self.pool.hopeless.wait()
        signal.raise_signal(signal.SIGTERM)
