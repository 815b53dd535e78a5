"""Which example an annotator is shown next, and what becomes of the answer: leases, labels, skips, undo, progress.

Each method is one transaction of the store: what it returned survives a kill, and with the same key it is done once.
"""

import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

import sqlalchemy as sql

from pinmill.agreement import EDITED, RECENT, find_pace, name_label
from pinmill.errors import DataError
from pinmill.store import (
    ANNOTATIONS,
    CHUNK,
    EXAMPLES,
    LEASES,
    STRATEGIES,
    Annotation,
    Store,
    annotate,
    find_ids,
    retract,
    stamp,
)

CHOICES = tuple(name for name in STRATEGIES if name != "given")  # how a queue can choose
POOL = 2_000  # examples that a model is asked to rank at once
SHOWN = ":shown"  # ends the key of the skip of an example whose edited text was labelled instead
TICK = timedelta(microseconds=1)  # between two stamps
Probabilities = Sequence[Mapping[str, float] | None]  # of the classes, for each example; None: there are none


@dataclass(frozen=True)
class Task:
    """An example that is leased to an annotator."""

    hash: str
    record: Mapping[str, Any]
    strategy: str  # how it was chosen
    key: str  # for its label, which with it is one label however often it is sent
    expires: str  # a stamp; if not after now, somebody else has the example by now, too


@dataclass(frozen=True)
class Progress:
    """How far the labelling is, as one annotator sees it."""

    open: int  # examples that this annotator may be given
    done: int  # inputs that somebody labelled
    own: int  # inputs that this annotator labelled
    today: int  # of those, since midnight UTC
    skipped: int  # examples that this annotator skipped, edited ones not counted
    pace: float | None  # labels an hour over the last of them, see `agreement.find_pace`
    agreement: float | None  # share of others' labels of inputs that both labelled which are the same; None without
    compared: int  # inputs that both this annotator and others labelled


class Queue:
    """The examples of a workflow, for people to label. Processes and threads may share it, as they do its store."""

    def __init__(
        self, store: Store, workflow: str, *, strategy: str = "random", overlap: int = 0, seconds: float = 900
    ) -> None:
        """`overlap` percent of the examples are given to two annotators; a lease lasts `seconds`."""
        if not 0 <= overlap <= 100:
            raise DataError(f"overlap is {overlap}; it must be a percentage from 0 to 100")
        self._store, self._workflow, self._strategy = store, workflow, check_strategy(strategy)
        self._overlap, self._life = overlap, timedelta(seconds=seconds)

    def pool(self, annotator: str, *, now: datetime) -> list[tuple[str, Mapping[str, Any]]]:
        """(hash, record) of at most POOL examples that are open for `annotator`, in random order."""
        chosen = self._select_open(annotator, now).add_columns(EXAMPLES.c.record)
        return [(hash, record) for hash, record in self._store.read(chosen.order_by(EXAMPLES.c.hash).limit(POOL))]

    def take(
        self, annotator: str, n: int, *, now: datetime, order: Sequence[str] = (), strategy: str = ""
    ) -> list[Task]:
        """Lease at most `n` examples to `annotator`: first those that were, then the open ones of `order`, then others.

        `order` is of at most POOL hashes, best first by `strategy` (default: the queue's). Others are the newest if
        that is the strategy, else random ones.
        """
        strategy, expires, of = check_strategy(strategy or self._strategy), stamp(now + self._life), EXAMPLES.c
        rest, by = ("newest", of.id.desc()) if strategy == "newest" else ("random", of.hash)
        place = {hash: number for number, hash in enumerate(order[:POOL])}
        with self._store.writing() as connection:
            held = connection.execute(self._select_leased(annotator, now).limit(n)).all()
            own, room = [row.hash for row in held], n - len(held)
            query = self._select_open(annotator, now).where(of.hash.not_in(own))
            ranked = sorted(connection.scalars(query.where(of.hash.in_(place))), key=place.__getitem__)[:room]
            others = connection.scalars(query.where(of.hash.not_in(ranked)).order_by(by).limit(room - len(ranked)))
            new = dict.fromkeys(ranked, strategy) | dict.fromkeys(others, rest)
            chosen = [*held, *((hash, how, make_key(hash)) for hash, how in new.items())]
            records = self._read_records(connection, [hash for hash, _, _ in chosen])
            tasks = [Task(hash, records[hash], how, key, expires) for hash, how, key in chosen]
            connection.execute(sql.update(LEASES).where(self._is_leased(annotator, own)).values(expires=expires))
            self._lend(connection, annotator, tasks[len(held) :], created=stamp(now))
        return tasks

    def label(self, annotator: str, given: Sequence[tuple[Annotation, str]], *, now: datetime) -> list[int]:
        """Append labels, all or none, and end the leases on their examples; the id of each. A known key: its old id.

        Beside each stands the example that was shown, if one was: if its text was edited into the label's, it is
        skipped.
        """
        edited = [shown for one, shown in given if shown not in ("", one.hash)]
        with self._store.writing() as connection:
            records, rows = self._read_records(connection, edited), []
            for one, shown in given:
                label = replace(one, key=f"{annotator}:{one.key}")
                about = {"label": None, "seconds": None, "note": EDITED, "key": f"{label.key}{SHOWN}", "hash": shown}
                skipped = [replace(label, **about, record=records[shown])] if shown not in ("", one.hash) else []
                rows.append([*skipped, label])
            return self._append(connection, annotator, rows, now)

    def skip(
        self, annotator: str, hash: str, *, key: str, note: str = "", seconds: float | None = None, now: datetime
    ) -> int:
        """Append that `annotator` takes no side on an example, and end the lease on it; the id of that row."""
        about = {"key": f"{annotator}:{key}", "seconds": seconds, "note": note}
        with self._store.writing() as connection:
            strategy = connection.scalar(sql.select(LEASES.c.strategy).where(self._is_leased(annotator, [hash])))
            record = self._read_records(connection, [hash])[hash]
            row = Annotation(hash, record, None, strategy=strategy or "given", **about)
            return self._append(connection, annotator, [[row]], now)[0]

    def undo(self, annotator: str, *, key: str = "", now: datetime) -> Task | None:
        """Take back the last label or skip of `annotator` that came from the queue: its example, again; None: no such.

        What was edited comes back as it was shown. The example is the next that `take` gives, unless somebody else has
        it by now: then its lease is over at once, and a label is kept like any late one. A repeated `key` takes back
        nothing more, and gives the same example.
        """
        by, of, mark = ANNOTATIONS.c.annotator == annotator, ANNOTATIONS.c, f":undo:{annotator}:{key}" if key else ""
        with self._store.writing() as connection:
            done = connection.execute(self._select_all(of.key == mark)).first() if key else None
            if done:
                return self._find_task(connection, annotator, done, now)
            last = self._select_rows(by, of.strategy != "given").order_by(of.id.desc()).limit(1)
            row = connection.execute(last).first()
            if row is None:
                return None
            shown = connection.execute(self._select_rows(by, of.key == f"{row.key}{SHOWN}")).first()
            if shown:
                retract(connection, row.id, annotator=annotator, when=now)
            retract(connection, (shown or row).id, annotator=annotator, when=now, key=mark)
            hash, record = (shown or row).hash, (shown or row).record
            connection.execute(sql.delete(LEASES).where(self._is_leased(annotator, [hash])))
            is_open = connection.scalar(self._select_open(annotator, now).where(EXAMPLES.c.hash == hash))
            first = connection.scalar(sql.select(sql.func.min(LEASES.c.created)).where(self._is_leased(annotator)))
            expires = stamp(now + self._life if is_open else now)
            task = Task(hash, record, row.strategy, make_key(hash), expires)
            before = datetime.fromisoformat(first) - TICK if first else now
            self._lend(connection, annotator, [task], created=stamp(before))
        return task

    def progress(self, annotator: str, *, now: datetime) -> Progress:
        """How far the labelling is, as `annotator` sees it."""
        mine, other, n = ANNOTATIONS.alias(), ANNOTATIONS.alias(), sql.func.count()
        is_mine, labelled = self._is_current(mine) & (mine.c.annotator == annotator), is_label(mine)
        today, passed = mine.c.created >= f"{now.astimezone(UTC):%Y-%m-%d}", mine.c.note != EDITED
        counts = sql.select(n.filter(labelled), n.filter(labelled & today), n.filter(~labelled & passed)).where(is_mine)
        times = sql.select(mine.c.created).where(is_mine, labelled).order_by(mine.c.id.desc()).limit(RECENT)
        theirs = self._is_current(other) & (other.c.annotator != annotator) & (other.c.hash == mine.c.hash)
        both = sql.select(mine.c.hash, mine.c.label, other.c.label).where(is_mine, labelled, theirs, is_label(other))
        done = self._select_rows(is_label(ANNOTATIONS)).with_only_columns(ANNOTATIONS.c.hash).distinct()
        totals = [sql.select(n).select_from(each.subquery()) for each in (self._select_open(annotator, now), done)]
        ((open, done),) = self._store.read(sql.select(*(total.scalar_subquery() for total in totals))) or [(0, 0)]
        ((own, today, skipped),) = self._store.read(counts) or [(0, 0, 0)]
        pace = find_pace([datetime.fromisoformat(created) for (created,) in self._store.read(times)][::-1])
        pairs = self._store.read(both)
        same = [name_label(one) == name_label(two) for _, one, two in pairs]
        compared = len({hash for hash, _, _ in pairs})
        return Progress(open, done, own, today, skipped, pace, sum(same) / len(same) if same else None, compared)

    def _select_open(self, annotator: str, now: datetime) -> sql.Select:
        """The hashes of the examples that are open for `annotator`."""
        here = EXAMPLES.c.workflow == self._workflow
        return sql.select(EXAMPLES.c.hash).where(here, self._is_open(annotator, now))

    def _is_open(self, annotator: str, now: datetime) -> sql.ColumnElement[bool]:
        """Whether an example has no row of `annotator`, and not yet enough other people who labelled or lease it."""
        row, lease, of = ANNOTATIONS.alias(), LEASES.alias(), EXAMPLES.c
        here = (row.c.workflow == self._workflow) & (row.c.hash == of.hash) & is_standing(row)
        said, own = sql.select(row.c.annotator).where(here).correlate(EXAMPLES), row.c.annotator == annotator
        live = (lease.c.annotator != annotator) & (lease.c.expires > stamp(now))
        leased = sql.select(lease.c.hash).where(lease.c.workflow == self._workflow, live)
        by_nobody = of.hash.not_in(leased) & ~said.where(own | is_label(row)).exists()
        if self._overlap == 0:
            return by_nobody
        held = leased.with_only_columns(lease.c.annotator).where(lease.c.hash == of.hash).correlate(EXAMPLES)
        others = sql.union_all(said.where(~own, is_label(row)), held).subquery().c.annotator
        number = sql.select(sql.func.count(others.distinct())).correlate(EXAMPLES).scalar_subquery()
        by_one = ~said.where(own).exists() & (number < 2)
        # Not by the first digits: in the random order, which is by those, the whole overlap would come first.
        overlapping = sql.func.substr(of.hash, 9, 8) < f"{self._overlap * 2**32 // 100:08x}"
        return by_one if self._overlap == 100 else sql.case((overlapping, by_one), else_=by_nobody)

    def _select_leased(self, annotator: str, now: datetime) -> sql.Select:
        """Hash, strategy and key of the examples leased to `annotator` that still are, or that nobody else has."""
        row, of = ANNOTATIONS.alias(), LEASES.c
        here = (row.c.workflow == self._workflow) & (row.c.hash == of.hash) & (row.c.annotator == annotator)
        said = sql.select(row.c.id).where(here, is_standing(row)).correlate(LEASES).exists()
        live = (of.expires > stamp(now)) & ~said
        example = (EXAMPLES.c.workflow == of.workflow) & (EXAMPLES.c.hash == of.hash)
        chosen = self._is_leased(annotator) & example & (live | self._is_open(annotator, now))
        return sql.select(of.hash, of.strategy, of.key).where(chosen).order_by(of.created, of.id)

    def _is_leased(self, annotator: str, hashes: Iterable[str] | None = None) -> sql.ColumnElement[bool]:
        """Whether a lease is of `annotator`, and on one of these examples (default: any)."""
        lent = (LEASES.c.workflow == self._workflow) & (LEASES.c.annotator == annotator)
        return lent if hashes is None else lent & LEASES.c.hash.in_(hashes)

    def _select_all(self, *conditions: sql.ColumnElement[bool]) -> sql.Select:
        """Rows of the workflow."""
        return sql.select(ANNOTATIONS).where(ANNOTATIONS.c.workflow == self._workflow, *conditions)

    def _select_rows(self, *conditions: sql.ColumnElement[bool]) -> sql.Select:
        """The labels and skips of the workflow that were not taken back."""
        return self._select_all(is_standing(ANNOTATIONS), *conditions)

    def _find_task(self, connection: sql.Connection, annotator: str, row: sql.Row, now: datetime) -> Task:
        """The example of a row as it is leased to `annotator`; where it is not any more, with a lease that is over."""
        lease = connection.execute(sql.select(LEASES).where(self._is_leased(annotator, [row.hash]))).first()
        about = (lease.strategy, lease.key, lease.expires) if lease else (row.strategy, make_key(row.hash), stamp(now))
        return Task(row.hash, row.record, *about)

    def _is_current(self, row: sql.FromClause) -> sql.ColumnElement[bool]:
        """Whether a row is what counts: of its annotator the last on its input that was not taken back."""
        later = ANNOTATIONS.alias()
        same = [later.c[name] == row.c[name] for name in ("workflow", "hash", "annotator")]
        newer = sql.select(later.c.id).where(*same, later.c.id > row.c.id, is_standing(later)).correlate(row).exists()
        return (row.c.workflow == self._workflow) & is_standing(row) & ~newer

    def _read_records(self, connection: sql.Connection, hashes: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """The records of examples by hash; DataError if one is no example."""
        of, records = EXAMPLES.c, {}
        for place in range(0, len(hashes), CHUNK):
            chosen = (of.workflow == self._workflow) & of.hash.in_(hashes[place : place + CHUNK])
            records |= dict(connection.execute(sql.select(of.hash, of.record).where(chosen)).all())
        if unknown := {*hashes}.difference(records):
            raise DataError(f"{self._workflow} has no example {', '.join(sorted(unknown))}; take one from its queue")
        return records

    def _append(
        self, connection: sql.Connection, annotator: str, answers: Sequence[Sequence[Annotation]], now: datetime
    ) -> list[int]:
        """Append answers, each of rows, and end the leases on their examples; the id of each one's last row.

        Of an answer whose last row's key is known, or was in an earlier one, nothing is appended.
        """
        keys = [rows[-1].key for rows in answers]
        first = dict(zip(reversed(keys), reversed(answers), strict=True))
        ids = find_ids(connection, ANNOTATIONS.c.key, keys, workflow=self._workflow)
        rows = [row for key in dict.fromkeys(keys) if key not in ids for row in first[key]]
        held = connection.scalars(sql.select(LEASES.c.hash).where(self._is_leased(annotator)))
        said = {row.hash for row in rows}.intersection(held)
        connection.execute(sql.delete(LEASES).where(self._is_leased(annotator, said)))
        new = annotate(connection, self._workflow, rows, annotator=annotator, when=now) if rows else []
        ids |= zip((row.key for row in rows), new, strict=True)
        return [ids[key] for key in keys]

    def _lend(self, connection: sql.Connection, annotator: str, tasks: Sequence[Task], *, created: str) -> None:
        about = {"workflow": self._workflow, "annotator": annotator, "created": created}
        told = ("hash", "strategy", "key", "expires")
        if rows := [about | {name: getattr(task, name) for name in told} for task in tasks]:
            connection.execute(sql.insert(LEASES), rows)


def order_pool(
    strategy: str, pool: Sequence[str], first: Probabilities, second: Probabilities | None = None
) -> list[str]:
    """The hashes of `pool`, best to label first, by the probabilities that models give to the classes.

    By uncertainty: the smallest margin between the two largest probabilities of `first`; by disagreement: the largest
    distance between `first` and `second`. Equal ones keep their order; those without probabilities come last.
    """
    if strategy == "uncertainty":
        ranks = [math.inf if one is None else find_margin(one) for one in first]
    elif strategy == "disagreement" and second is not None:
        pairs = zip(first, second, strict=True)
        ranks = [math.inf if one is None or two is None else -find_distance(one, two) for one, two in pairs]
    else:
        raise DataError(f"a pool cannot be ordered by {strategy!r} with {1 + (second is not None)} models")
    return [hash for hash, _ in sorted(zip(pool, ranks, strict=True), key=itemgetter(1))]


def find_margin(probabilities: Mapping[str, float]) -> float:
    """How much more probable the likeliest class is than the next, 0..1."""
    largest = sorted([*probabilities.values(), 0.0, 0.0], reverse=True)
    return largest[0] - largest[1]


def find_distance(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """The total variation distance of two distributions, 0..1; a class that one does not know has 0 there."""
    return sum(abs(first.get(name, 0.0) - second.get(name, 0.0)) for name in {**first, **second}) / 2


def is_standing(row: sql.FromClause) -> sql.ColumnElement[bool]:
    """Whether a row of annotations is a label or a skip that was not taken back."""
    back = ANNOTATIONS.alias()
    return row.c.retracts.is_(None) & ~sql.select(back.c.id).where(back.c.retracts == row.c.id).correlate(row).exists()


def is_label(row: sql.FromClause) -> sql.ColumnElement[bool]:
    """Whether a row of annotations takes a side."""
    return row.c.label.is_not(sql.null())


def make_key(hash: str) -> str:
    """A key that nobody has used, for the label of an example."""
    return f"{hash[:8]}-{secrets.token_hex(6)}"


def check_strategy(strategy: str) -> str:
    """`strategy`, if a queue can choose by it; DataError if not."""
    if strategy not in CHOICES:
        raise DataError(f"strategy is {strategy!r}; it must be one of {', '.join(CHOICES)}")
    return strategy
