"""Where one annotator sits: what the screen takes examples from and gives labels to, here or at a service."""

import getpass
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from pinmill.adviser import Adviser
from pinmill.desk import Desk, describe_task, read_policy
from pinmill.errors import DataError, ParameterError, PinmillError
from pinmill.problem import Problem
from pinmill.project import Project
from pinmill.queue import Task
from pinmill.session import Run
from pinmill.tokens import Token, allows, read_tokens
from pinmill.version import now_utc
from pinmill.visit import HUB_USER, IN_APP, PERSON

if TYPE_CHECKING:
    from pandas import DataFrame

    from pinmill.client import Client

Item = Mapping[str, Any]
SETTINGS = ("labels", "strategy", "overlap", "guideline", "sample_calls")  # parameters that may be edited in a cell
QUICK = {"tries": 1, "timeout": 2.0}  # of a score that somebody waits for while typing: the next is on its way
NEEDED = "annotator"  # the role that may label
NO_TOKEN = "this token opens nothing: it is misspelt, has expired or was revoked. Ask for one of the role annotator"


class LocalSeat:
    """A seat at this machine's store; with a `token` each step asks whether it is still good.

    An item is an example as GET /queue gives it: id, record, key, expires, strategy and prediction (None without one).
    """

    def __init__(
        self, run: Run, annotator: str, *, role: str = "admin", token: str = "", adviser: Adviser | None = None
    ) -> None:
        self._project, self._token, self._adviser = run.project, token, adviser or Adviser(run)
        edited = {name: run.parameters[name] for name in SETTINGS if name in run.parameters}
        policy = replace(read_policy(run.project, run.workflow), **edited)
        self._desk, self._strategy = Desk(run.project, run.workflow, policy), policy.strategy
        self.annotator, self.role, self.workflow = annotator, role, run.workflow
        self.text, self.guideline = policy.text, policy.guideline

    @property
    def labels(self) -> list[Any] | None:
        """The labels to choose from; None: any amount."""
        return self._desk.know(now_utc()).labels

    def take(self, n: int) -> list[dict[str, Any]]:
        """The next n items, which are this annotator's for some time; those that were taken before come first."""
        now = self._check()
        strategy, order = self._adviser.rank(self._strategy, partial(self._desk.pool, self.annotator, now=now))
        tasks = self._desk.take(self.annotator, n, now=now, order=order, strategy=strategy)
        return [self._tell(task) for task in tasks]

    def label(
        self, item: Item, label: Any, *, record: Item | None = None, seconds: float | None = None, note: str = ""
    ) -> dict[str, Any]:
        """Keep the label of an item, or of the `record` that it was edited into: {id, label, known}.

        Raises DataError with all that is wrong.
        """
        given = describe_label(item, label, record=record, seconds=seconds, note=note)
        try:
            return self._desk.annotate(self.annotator, [given], now=self._check())[0]
        except Problem as problem:
            wrong = [f"{each['field']} {each['problem']}".strip() for each in problem.errors]
            raise DataError(f"it was not kept: {'; '.join(wrong) or problem}") from None

    def skip(self, item: Item, *, note: str = "", seconds: float | None = None) -> None:
        """Keep that the annotator takes no side on an item."""
        self._desk.skip(self.annotator, item["id"], key=item["key"], note=note, seconds=seconds, now=self._check())

    def undo(self) -> dict[str, Any] | None:
        """Retract the last label or skip; the item it was of, which is this annotator's again, or None."""
        task = self._desk.undo(self.annotator, now=self._check())
        return self._tell(task) if task else None

    def score(self, record: Item) -> dict[str, Any] | None:
        """What the champion makes of a record, and why; None without one, or if the record does not fit it."""
        return self._adviser.predict(record)

    def progress(self) -> dict[str, Any]:
        """How many examples are open and done, and how this annotator does; see `queue.Progress`."""
        return asdict(self._desk.progress(self.annotator, now=self._check()))

    def annotations(self) -> "DataFrame":
        """All that anybody said and retracted, with the columns of the store."""
        self._check()
        return self._project.store.read_annotations(self.workflow)

    def _check(self) -> datetime:
        """The time now. Raises ParameterError if the token is no longer good."""
        now = now_utc()
        if self._token:
            find_token(self._project, self._token, now)
        return now

    def _tell(self, task: Task) -> dict[str, Any]:
        """A task as an item."""
        return describe_task(task, self._adviser.predict(task.record))


class RemoteSeat:
    """The same at a service, over HTTP; what goes wrong there raises ClientError, which says what to do."""

    def __init__(self, client: "Client", *, strategy: str = "") -> None:
        self._client, self._strategy = client, strategy
        told = client.queue(1, strategy)
        self.annotator, self.role, self.workflow = told["annotator"], told["role"], told["workflow"]
        self.labels, self.text, self.guideline = told["labels"], told["text"], told["guideline"]

    def take(self, n: int) -> list[dict[str, Any]]:
        """The next n items, which are this annotator's for some time; those that were taken before come first."""
        return self._client.queue(n, self._strategy)["items"]

    def label(
        self, item: Item, label: Any, *, record: Item | None = None, seconds: float | None = None, note: str = ""
    ) -> dict[str, Any]:
        """Keep the label of an item, or of the `record` that it was edited into: {id, label, known}."""
        return self._client.annotate([describe_label(item, label, record=record, seconds=seconds, note=note)])[0]

    def skip(self, item: Item, *, note: str = "", seconds: float | None = None) -> None:
        """Keep that the annotator takes no side on an item."""
        self._client.skip(item["id"], item["key"], note=note, seconds=seconds)

    def undo(self) -> dict[str, Any] | None:
        """Retract the last label or skip; the item it was of, which is this annotator's again, or None."""
        return self._client.undo()["item"]

    def score(self, record: Item) -> dict[str, Any] | None:
        """What the service's champion makes of a record, and why; None while it cannot say."""
        try:
            row = {name: record[name] for name in self._inputs if name in record}
            told = self._client._at.read("POST", "/prediction", row, options={"explain": "true"}, **QUICK)
        except PinmillError:
            return None
        return {name: told[name] for name in ("label", "value", "explanation", "probability") if name in told}

    @cached_property
    def _inputs(self) -> list[str]:
        """The columns that the champion takes."""
        if self.text:
            return [self.text]
        schema = self._client._at.read("GET", "/prototype", **QUICK)
        return next([*each["properties"]] for each in schema.get("anyOf", [schema]) if "properties" in each)

    def progress(self) -> dict[str, Any]:
        """How many examples are open and done, and how this annotator does; see `queue.Progress`."""
        return self._client.queue(1, self._strategy)["progress"]

    def annotations(self) -> "DataFrame":
        """All that anybody said and retracted; for modellers and admins."""
        return self._client.annotations(all=True)


Seat = LocalSeat | RemoteSeat


def describe_label(item: Item, label: Any, *, record: Item | None, seconds: float | None, note: str) -> dict[str, Any]:
    """A label as POST /annotations takes it."""
    edited = {"record": record} if record is not None else {}
    given = {"strategy": item["strategy"]} if item["strategy"] == "given" else {}  # no lease says how it was chosen
    return {"id": item["id"], "label": label, "seconds": seconds, "note": note, "key": item["key"], **edited, **given}


def find_annotator(environ: Mapping[str, str]) -> str | None:
    """JupyterHub's user or the machine's; None in an app outside JupyterHub, where each is asked."""
    return environ.get(HUB_USER) or (None if environ.get(IN_APP) else getpass.getuser())


def choose_question(run: Run, environ: Mapping[str, str]) -> str:
    """What who wants to label is asked for: "token", "name", or "" for nothing."""
    if find_annotator(environ):
        return ""
    project = run.project
    has_tokens = run.parameters["url"] or (project.has_store and not read_tokens(project.store).empty)
    return "token" if has_tokens else "name"


def find_token(project: Project, given: str, now: datetime) -> Token:
    """The token `given`, if it is active and may label. Raises ParameterError, which does not show it."""
    token = read_tokens(project.store).find(f"Bearer {given}", now)
    if token is None:
        raise ParameterError(NO_TOKEN)
    if not allows(token.role, NEEDED):
        raise ParameterError(f"the token {token.name!r} has the role {token.role}: to label takes the role {NEEDED}")
    return token


def sign_in(run: Run, given: str, environ: Mapping[str, str], adviser: Adviser | None = None) -> Seat:
    """The seat of who answered `choose_question` with `given`. Raises ParameterError, or ClientError of a service."""
    if run.parameters["url"]:
        from pinmill.client import Client

        chosen = run.parameters["strategy"] if run.origins["strategy"] != "default" else ""
        client = Client(run.parameters["url"], given)
        try:
            return RemoteSeat(client, strategy=chosen)
        except PinmillError:
            client.close()
            raise
    question = choose_question(run, environ)
    if question == "token":
        token = find_token(run.project, given, now_utc())
        return LocalSeat(run, token.name, role=token.role, token=given, adviser=adviser)
    name = given.strip() if question == "name" else find_annotator(environ)
    if question == "name" and not PERSON.fullmatch(name):
        raise ParameterError(f"{name[:40]!r} is no name: letters, digits and . _ @ - were expected, at most 40")
    return LocalSeat(run, name, role=NEEDED if environ.get(IN_APP) else "admin", adviser=adviser)
