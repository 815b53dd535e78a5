"""Where people label: examples in, tasks out, labels checked and kept. What the service and the notebook share."""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import sqlalchemy as sql

from pinmill.champion import read_champion
from pinmill.errors import BoardError
from pinmill.labels import FIELDS, HASH, check_fields, check_label, find_label, make_reader, read_label_set
from pinmill.labels import read_prototype as read_inputs
from pinmill.plan import read_values
from pinmill.problem import Problem
from pinmill.project import Project
from pinmill.queue import Progress, Queue, Task, is_label, is_standing
from pinmill.rows import RowError, check_rows
from pinmill.store import ANNOTATIONS, CALLS, CHUNK, EXAMPLES, LEASES, Annotation, stamp

LOOK = timedelta(seconds=3)  # between two looks at who is champion, which takes milliseconds
LEAST_COMPARED = 10  # inputs that others labelled too, of which agreement is told
MINUTE, WEEK = timedelta(minutes=1), timedelta(days=7)  # between two samples of the calls; how far the first goes back
NEVER = datetime.min.replace(tzinfo=UTC)
SAID = ("labels", "strategy", "overlap", "guideline", "sample_calls", "label", "task")  # parameters of a policy
ITEM = (*FIELDS, "label")  # fields of an annotation
UNREADABLE = "cannot be read, as nothing tells the input columns: train a model first, or use pinmill examples add"
Read = Callable[[Any], tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Policy:
    """How a workflow is labelled, by its parameters."""

    labels: Sequence[Any] = ()  # to choose from; without any: see `labels.read_label_set`
    strategy: str = "uncertainty"
    overlap: int = 0  # percent of the examples that two people label
    guideline: str = ""
    sample_calls: float = 0.0  # share of the logged inputs that become examples
    label: str = "label"  # name of the column that is predicted
    task: str = "auto"
    texts: tuple[str, ...] = ()  # the input columns, where all are texts
    extra: tuple[str, ...] = ()  # columns beside the inputs that a record may have

    @property
    def text(self) -> str:
        """The name of the only input column, if that is one of text; otherwise empty."""
        return self.texts[0] if len(self.texts) == 1 else ""


@dataclass(frozen=True)
class Known:
    """What the board says of labels and inputs at one moment."""

    pins: tuple[str, ...]  # that it was read from
    labels: list[Any] | None  # None: amounts
    inputs: tuple[str, ...]  # the input columns; none where nothing tells them
    read: Read | None  # None without input columns


def read_policy(project: Project, workflow: str) -> Policy:
    """How `workflow` is labelled. Raises ParameterError."""
    return make_policy(read_values(project, workflow))


def make_policy(values: Mapping[str, Any]) -> Policy:
    """How a workflow with these parameters is labelled; those that no notebook of it declares have their default."""
    given = {name: values[name] for name in SAID if name in values}
    texts = () if values.get("features") else tuple(values.get("text", ()))
    extra = dict.fromkeys([*values.get("slices", ()), *values.get("ignore", ())])
    return Policy(**given, texts=texts, extra=tuple(extra))


def describe_task(task: Task, prediction: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A task, ready for JSON, with what the model says of it; None where it says nothing."""
    about = asdict(task)
    return {"id": about.pop("hash"), **about, "prediction": prediction}


class Desk:
    """The labelling of one workflow. Any thread may use it; errors are Problems, or a StoreError or BoardError."""

    def __init__(self, project: Project, workflow: str, policy: Policy) -> None:
        self.project, self.store, self.workflow, self.policy = project, project.store, workflow, policy
        self.queue = Queue(self.store, workflow, strategy=policy.strategy, overlap=policy.overlap)
        self._known, self._looked = Known((), [], (), None), NEVER
        self._sampled, self._last = NEVER, -1  # when calls were sampled, and up to which id; -1: not yet

    def know(self, now: datetime) -> Known:
        """The labels and the reader of rows, as they were at most LOOK ago, or longer while the board is away."""
        if now - self._looked > LOOK:
            try:
                self._known = self._look()
            except BoardError:
                if self._looked == NEVER:
                    raise
            self._looked = now
        return self._known

    def _look(self) -> Known:
        """What the board says now."""
        board, name, policy = self.project.board, self.workflow, self.policy
        champion = read_champion(board, name)
        newest = [*board.versions(f"{name}-model")[-1:], *board.versions(f"{name}-data")[-1:]]
        pins = (champion.record if champion else "", *newest)
        if pins == self._known.pins:
            return self._known
        labels = read_label_set(self.project, name, asdict(policy))
        prototype = read_inputs(self.project, name, texts=policy.texts) or {}
        return Known(pins, labels, tuple(prototype), make_reader(prototype, policy.extra) if prototype else None)

    def add_examples(self, rows: Sequence[Any], *, origin: str, now: datetime) -> tuple[int, int]:
        """Add inputs, texts or records; how many were new, and how many known. Problem (422) with all that is wrong."""
        if not (read := self.know(now).read):
            raise Problem(422, f"an example {UNREADABLE}")
        found, errors = check_rows(rows, read)
        if errors:
            raise _refuse(errors, len(rows), "rows do not fit what the model expects; nothing was added")
        about = {"hashes": [hash for hash, _ in found], "origin": origin, "when": now}
        return self.store.add_examples(self.workflow, [record for _, record in found], **about)

    def pool(self, annotator: str, *, now: datetime) -> list[tuple[str, Mapping[str, Any]]]:
        """`Queue.pool`, with new calls in it."""
        self.sample_calls(now=now)
        return self.queue.pool(annotator, now=now)

    def take(
        self, annotator: str, n: int, *, now: datetime, order: Sequence[str] = (), strategy: str = ""
    ) -> list[Task]:
        """`Queue.take`, with new calls in it."""
        self.sample_calls(now=now)
        return self.queue.take(annotator, n, now=now, order=order, strategy=strategy)

    def annotate(self, annotator: str, items: Sequence[Any], *, now: datetime) -> list[dict[str, Any]]:
        """Keep labels: {id, label, known} of each. Problem (422) with all that is wrong, and then none is kept.

        An item is {id | text | record, label, seconds, note, key, strategy}. With `id`, of an example, `text` or
        `record` is the edited input. A repeated `key` is the same label: the old id and label come back; so does one's
        own label that is the same, if nobody labelled that input since. By the `strategy` given the `id` can be of any
        input that was labelled, and the label is one more vote on it.
        """
        known, asked = self.know(now), [item.get("id") for item in items if isinstance(item, dict)]
        ids = list({id for id in asked if isinstance(id, str) and HASH.fullmatch(id)})
        shown = dict(self._select([EXAMPLES.c.hash, EXAMPLES.c.record], EXAMPLES.c.hash, ids))
        mine = LEASES.c.annotator == annotator
        leased = dict(self._select([LEASES.c.hash, LEASES.c.strategy], LEASES.c.hash, ids, mine))
        others, of = [id for id in ids if id not in shown], ANNOTATIONS.c
        said = dict(self._select([of.hash, of.record], of.hash, others))
        shown, leased = shown | said, leased | dict.fromkeys(said, "given")
        read = partial(read_item, known=known, shown=shown, leased=leased)
        given, errors = check_rows(items, read)
        said = self._find_said(annotator, given)
        if errors := errors or find_clashes(given, said):
            raise _refuse(errors, len(items), "annotations do not fit; nothing was kept")
        return self._keep(annotator, given, said, now)

    def skip(
        self, annotator: str, hash: str, *, key: str = "", note: str = "", seconds: float | None = None, now: datetime
    ) -> int:
        """`Queue.skip`. Raises Problem (404) for what is no example."""
        if not (HASH.fullmatch(hash) and self._select([EXAMPLES.c.hash], EXAMPLES.c.hash, [hash])):
            raise Problem(404, f"{self.workflow} has no example {hash[:40]!r}. GET /queue gives some")
        about = {"key": key or secrets.token_hex(16), "note": note, "seconds": seconds}
        return self.queue.skip(annotator, hash, **about, now=now)

    def undo(self, annotator: str, *, key: str = "", now: datetime) -> Task | None:
        """`Queue.undo`."""
        return self.queue.undo(annotator, key=key, now=now)

    def progress(self, annotator: str, *, now: datetime) -> Progress:
        """`Queue.progress`, whose agreement is told to a tenth, of enough inputs: else it would tell others' labels."""
        told = self.queue.progress(annotator, now=now)
        return replace(told, agreement=round(told.agreement, 1) if told.compared >= LEAST_COMPARED else None)

    def sample_calls(self, *, now: datetime) -> int:
        """Make a share of the logged inputs examples, a page of them, at most once a minute; how many were new."""
        share, read = self.policy.sample_calls, self.know(now).read if self.policy.sample_calls else None
        if not read or now - self._sampled < MINUTE:
            return 0
        self._sampled, of = now, CALLS.c
        if self._last < 0:
            recent = (of.workflow == self.workflow) & (of.time >= stamp(now - WEEK))
            self._last = (self._first(sql.func.min(of.id), recent) or 1) - 1
        newest = self._first(sql.func.max(of.id), sql.true()) or 0
        # Neither by the first digits, which the random order goes by, nor by those that choose what overlaps.
        digits, bound = sql.func.substr(of.input_hash, 17, 8), "g" if share >= 1 else f"{int(share * 2**32):08x}"
        mine = sql.func.coalesce(of.workflow, "") == self.workflow  # as in `read_calls`: not by the index by time
        chosen = (of.id > self._last) & mine & (of.status == 200) & of.input.is_not(sql.null()) & (digits < bound)
        rows = self.store.read(sql.select(of.id, of.input).where(chosen).order_by(of.id).limit(CHUNK))
        self._last = rows[-1].id if len(rows) == CHUNK else max(newest, self._last)
        found, _ = check_rows([row.input for row in rows], read)  # those that do not fit any more are left
        hashes, records = [hash for hash, _ in found], [record for _, record in found]
        about = {"hashes": hashes, "origin": "calls", "when": now}
        return self.store.add_examples(self.workflow, records, **about)[0] if found else 0

    def _first(self, value: Any, chosen: Any) -> Any:
        """One value of the calls that are chosen; None where there are none."""
        return next((row[0] for row in self.store.read(sql.select(value).where(chosen))), None)

    def _select(self, columns: list[sql.Column], column: sql.Column, values: list[Any], *more: Any) -> list[sql.Row]:
        """Columns of the workflow's rows whose `column` has one of `values`."""
        query = sql.select(*columns).where(column.table.c.workflow == self.workflow, *more)
        chunks = (values[place : place + CHUNK] for place in range(0, len(values), CHUNK))
        return [row for chunk in chunks for row in self.store.read(query.where(column.in_(chunk)))]

    def _find_said(self, annotator: str, given: Sequence[tuple[Annotation, str]]) -> list[sql.Row | None]:
        """What was said before of each: the row of its key, or the last label of that input, if it is one's own, same.

        A label that is not by the queue is not the same as one that is: it may settle what people disagree on.
        """
        of, said = ANNOTATIONS.c, []
        columns = [of.id, of.hash, of.label, of.key, of.annotator, of.strategy]
        counts = is_standing(ANNOTATIONS) & (is_label(ANNOTATIONS) | (of.annotator == annotator))
        keyed = self._select(columns, of.key, list({f"{annotator}:{one.key}" for one, _ in given if one.key}))
        rows = self._select(columns, of.hash, list({one.hash for one, _ in given}), counts)
        by_key, last = {row.key: row for row in keyed}, {row.hash: row for row in sorted(rows, key=lambda row: row.id)}
        for one, shown in given:
            keyed, row = by_key.get(f"{annotator}:{one.key}") if one.key else None, last.get(one.hash)
            is_own = row is not None and row.annotator == annotator
            is_meant = shown == one.hash or (not shown and is_own and one.strategy == row.strategy)
            is_same = is_own and is_meant and find_label(one.label, [row.label]) is not None
            said.append(keyed or (row if is_same else None))
        return said

    def _keep(
        self, annotator: str, given: Sequence[tuple[Annotation, str]], said: Sequence[Any], now: datetime
    ) -> list[dict[str, Any]]:
        """Append the annotations of which nothing was said before; {id, label, known} of each."""
        keys: dict[tuple[str, str], str] = {}  # made here, one for each input and label
        made = [keys.setdefault((one.hash, json.dumps(one.label)), secrets.token_hex(16)) for one, _ in given]
        given = [(replace(one, key=one.key or key), shown) for (one, shown), key in zip(given, made, strict=True)]
        new = [pair for pair, row in zip(given, said, strict=True) if row is None]
        ids = iter(self.queue.label(annotator, new, now=now) if new else ())
        numbers = [row.id if row else next(ids) for row in said]
        labels = dict(self._select([ANNOTATIONS.c.id, ANNOTATIONS.c.label], ANNOTATIONS.c.id, [*{*numbers}]))
        return [{"id": id, "label": labels[id], "known": bool(row)} for id, row in zip(numbers, said, strict=True)]


def read_item(
    item: Any, *, known: Known, shown: Mapping[str, Any], leased: Mapping[str, str]
) -> tuple[Annotation, str]:
    """What an item of `Desk.annotate` says, and the example that it is of, if any. RowError with all that is wrong.

    `shown` are the records of the inputs that can be meant, `leased` how those were chosen that were given out.
    """
    problems = check_fields(item, ITEM)
    if problems and not isinstance(item, dict):
        raise RowError(problems)
    wrong, label, id = {field for field, _ in problems}, item.get("label"), item.get("id")
    if problem := check_label(label, known.labels):
        problems.append(("label", problem))
    if id is not None and "id" not in wrong and id not in shown:
        problems.append(("id", "is no example of this workflow"))
    sent = [name for name in ("text", "record") if item.get(name) is not None]
    hash, record = id, shown.get(id) if isinstance(id, str) else None
    if len(sent) > 1 or (not sent and id is None):
        problems.append(("", "needs an id, a text or a record, and of the last two only one"))
    elif sent and not known.read:
        problems.append((sent[0], UNREADABLE))
    elif sent and sent[0] not in wrong:
        row, own = item[sent[0]], record or {}
        if isinstance(row, dict):  # further columns stay as they are
            row = {name: value for name, value in row.items() if name in known.inputs or name not in own}
        try:
            hash, edited = known.read(row)
            record = {**own, **edited}
        except RowError as error:
            problems += [(field or sent[0], problem) for field, problem in error.problems]
    if problems:
        raise RowError(problems, ITEM)
    is_vote = "given" in (leased.get(id), item.get("strategy"))
    chosen = "given" if is_vote else leased.get(id) or item.get("strategy") or "given"
    kept = label if known.labels is None else find_label(label, known.labels)
    about = {"seconds": item.get("seconds"), "note": item.get("note") or "", "key": item.get("key") or ""}
    return Annotation(hash, record, kept, strategy=chosen, **about), "" if is_vote else id or ""


def find_clashes(given: Sequence[tuple[Annotation, str]], said: Sequence[Any]) -> list[dict[str, Any]]:
    """The labels whose key is of another input, by what was `said` before; an example that is edited keeps its key."""
    first: dict[str, Annotation] = {}
    others = [row or first.setdefault(one.key, one) for (one, _), row in zip(given, said, strict=True)]
    wrong = [
        one.key and not shown and one.hash != other.hash for (one, shown), other in zip(given, others, strict=True)
    ]
    problem = {"field": "key", "problem": "is of a label of another input already: take a new one"}
    return [{"row": place, **problem} for place, is_wrong in enumerate(wrong) if is_wrong]


def _refuse(errors: Sequence[Mapping[str, Any]], count: int, what: str) -> Problem:
    """The problem of a list of which some do not fit."""
    return Problem(422, f"{len({error['row'] for error in errors})} of {count} {what}", errors=errors)
