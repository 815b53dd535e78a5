"""Leases, labels, skips and undo: by hand, in any order against a model, and by processes that are killed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pinmill import queue as module
from pinmill.errors import DataError
from pinmill.queue import Progress, Queue, Task, order_pool
from pinmill.store import ANNOTATIONS, LEASES, Annotation, Store, stamp

EXAMPLES = int(os.environ.get("PINMILL_EXAMPLES", "30"))
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
LEASE = timedelta(seconds=900)
SECOND = timedelta(seconds=1)
TURNS = (2, 7, 15, 30)  # labels until a kill
WORK = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from pinmill.queue import Queue
from pinmill.store import Annotation, Store

queue, who = Queue(Store(Path(sys.argv[1])), "w"), sys.argv[2]
while tasks := queue.take(who, 3, now=datetime.now(UTC)):
    for task in tasks:
        print("shown", task.hash, task.key, flush=True)
        sys.stdin.readline()
        given = Annotation(task.hash, task.record, f"{who}'s", task.key, task.strategy)
        print("saved", task.hash, *queue.label(who, [(given, "")], now=datetime.now(UTC)), flush=True)
"""  # an annotator who labels an example for each line that comes in, and everything when no more will come


def start(path: Path, who: str) -> subprocess.Popen:
    """A process in which `who` labels."""
    words = [sys.executable, "-c", WORK, str(path), who]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


HASHES = {name: hash_text(name) for name in "abcdefgh"}
RANDOM = sorted(HASHES, key=HASHES.get)  # the names in random order
NAMES = {hash: name for name, hash in HASHES.items()}


def add(store: Store, names: str, workflow: str = "w") -> None:
    records = [{"text": name} for name in names]
    store.add_examples(workflow, records, hashes=[hash_text(name) for name in names], origin="file", when=NOON)


def said(task: Task, label: Any = "spam", **more: Any) -> Annotation:
    """What an annotator says of a task."""
    about = {"hash": task.hash, "record": task.record, "key": task.key, "strategy": task.strategy}
    return Annotation(**about | {"label": label} | more)


def keep(queue: Queue, who: str, given: Annotation, *, now: datetime, shown: str = "") -> int:
    """The id of one label, kept."""
    return queue.label(who, [(given, shown)], now=now)[0]


def list_names(tasks: list[Task]) -> str:
    return "".join(NAMES[task.hash] for task in tasks)


def list_rows(store: Store) -> list[tuple]:
    """(id, text, annotator, label, retracts) of each row of annotations."""
    rows = store.read_annotations("w").to_dict("records")
    return [(r["id"], r["record"]["text"], r["annotator"], r["label"], r["retracts"]) for r in rows]


@pytest.fixture
def store(store_place: Path | str) -> Iterator[Store]:
    store = Store(store_place)
    add(store, "abcdefgh")
    yield store
    store.close()


@pytest.fixture
def queue(store: Store) -> Queue:
    return Queue(store, "w")


def test_two_annotators_get_different_examples_until_all_are_leased(queue: Queue) -> None:
    ann, bob = queue.take("ann", 5, now=NOON), queue.take("bob", 5, now=NOON)
    assert (list_names(ann), list_names(bob)) == ("".join(RANDOM[:5]), "".join(RANDOM[5:]))
    assert {task.strategy for task in ann} == {"random"}
    assert {task.expires for task in ann + bob} == {stamp(NOON + LEASE)}
    assert queue.take("eve", 1, now=NOON) == []


def test_one_comes_back_to_the_same_examples_and_keys_in_the_same_order(
    queue: Queue, store: Store, store_place: Path | str
) -> None:
    first = queue.take("ann", 2, now=NOON, order=[HASHES["h"], HASHES["a"]], strategy="uncertainty")
    later = NOON + LEASE / 2
    other = Store(store_place)
    again = Queue(other, "w").take("ann", 3, now=later)
    other.close()
    assert [(task.hash, task.key, task.strategy) for task in again[:2]] == [
        (HASHES["h"], first[0].key, "uncertainty"), (HASHES["a"], first[1].key, "uncertainty")
    ]  # fmt: skip
    assert {task.expires for task in again} == {stamp(later + LEASE)}
    assert queue.take("ann", 1, now=later) == again[:1]
    others = queue.take("bob", 8, now=NOON + LEASE)  # when the first leases, not renewed, would have ended
    assert {*list_names(others)}.isdisjoint(list_names(again))


def test_a_lease_that_expired_is_for_whoever_comes_first(queue: Queue) -> None:
    ann = queue.take("ann", 8, now=NOON)
    assert queue.take("bob", 1, now=NOON + LEASE - SECOND) == []
    bob = queue.take("bob", 2, now=NOON + LEASE)
    assert [task.hash for task in bob] == [task.hash for task in ann[:2]]
    kept = queue.take("ann", 8, now=NOON + LEASE)
    assert [(task.hash, task.key) for task in kept] == [(task.hash, task.key) for task in ann[2:]]


def test_a_label_ends_the_lease_and_is_never_asked_for_again(queue: Queue, store: Store) -> None:
    task, other = queue.take("ann", 2, now=NOON)
    assert keep(queue, "ann", said(task, seconds=2.5, note="?"), now=NOON) == 1
    (row,) = store.read_annotations("w").to_dict("records")
    assert row == {
        "id": 1, "workflow": "w", "hash": task.hash, "annotator": "ann", "created": stamp(NOON), "note": "?",
        "key": f"ann:{task.key}", "strategy": "random", "record": task.record, "label": "spam", "seconds": 2.5,
        "retracts": None,
    }  # fmt: skip
    assert [lease.hash for lease in store.read(sql.select(LEASES))] == [other.hash]
    late = NOON + 10 * LEASE
    assert task.hash not in [t.hash for who in ("ann", "bob") for t in queue.take(who, 8, now=late)]


def test_what_one_labelled_in_another_way_is_not_asked_for(queue: Queue, store: Store) -> None:
    first, second = queue.take("ann", 2, now=NOON)
    store.add_annotations("w", [said(first, strategy="given", key="file")], annotator="ann", when=NOON)
    assert queue.take("ann", 1, now=NOON) == [second]


def test_a_skip_without_a_lease_is_not_of_the_queue(queue: Queue, store: Store) -> None:
    (task,) = queue.take("bob", 1, now=NOON)
    queue.skip("ann", task.hash, key="k", now=NOON)
    assert store.read_annotations("w")["strategy"].tolist() == ["given"]
    assert queue.take("bob", 1, now=NOON) == [task]


def test_a_repeated_key_is_the_same_label_and_ends_no_later_lease(queue: Queue, store: Store) -> None:
    (task,) = queue.take("ann", 1, now=NOON)
    assert [keep(queue, "ann", said(task, label), now=NOON) for label in ("spam", "ham")] == [1, 1]
    again = queue.undo("ann", now=NOON)
    assert keep(queue, "ann", said(task), now=NOON) == 1  # a retry that was long on its way
    assert queue.skip("ann", task.hash, key=task.key, now=NOON) == 1
    assert queue.take("ann", 1, now=NOON) == [again]
    assert [row[3:] for row in list_rows(store)] == [("spam", None), (None, 1)]


def test_nobodys_key_swallows_what_another_says(queue: Queue, store: Store) -> None:
    (task,) = queue.take("ann", 1, now=NOON)
    ids = [keep(queue, who, said(task, key="1"), now=NOON) for who in ("ann", "bob", "retract")]
    assert ids == [1, 2, 3]
    assert [store.retract(1, annotator="ann", when=NOON) for _ in range(2)] == [4, 4]
    assert [row[2:] for row in list_rows(store)][3] == ("ann", None, 1)


def test_a_label_that_comes_after_its_lease_is_kept(queue: Queue, store: Store) -> None:
    (task,) = queue.take("ann", 1, now=NOON)
    late = NOON + 2 * LEASE
    (other,) = queue.take("bob", 1, now=late)
    assert other.hash == task.hash
    assert keep(queue, "ann", said(task, "ham"), now=late) == 1
    assert queue.take("bob", 1, now=late) == [other]  # it was shown to bob already
    assert keep(queue, "bob", said(other), now=late) == 2
    assert [row[2:4] for row in list_rows(store)] == [("ann", "ham"), ("bob", "spam")]


def test_a_skip_is_recorded_and_the_example_goes_to_others(queue: Queue, store: Store) -> None:
    (task,) = queue.take("ann", 1, now=NOON)
    assert [queue.skip("ann", task.hash, key="k", note="unclear", seconds=3, now=NOON) for _ in range(2)] == [1, 1]
    (row,) = store.read_annotations("w").to_dict("records")
    about = ("hash", "annotator", "label", "note", "seconds", "key", "strategy")
    assert [row[name] for name in about] == [task.hash, "ann", None, "unclear", 3.0, "ann:k", "random"]
    assert queue.take("bob", 1, now=NOON)[0].hash == task.hash
    assert task.hash not in [one.hash for one in queue.take("ann", 8, now=NOON)]


def test_what_is_no_example_can_neither_be_skipped_nor_edited(queue: Queue, store: Store) -> None:
    task = Task("0" * 32, {"text": "z"}, "random", "k", "")
    for answer in (
        lambda: queue.skip("ann", task.hash, key="k", now=NOON),
        lambda: keep(queue, "ann", said(task, hash="1" * 32), shown=task.hash, now=NOON),
    ):
        with pytest.raises(DataError, match=f"w has no example {task.hash}; take one from its queue"):
            answer()
    assert list_rows(store) == []


def test_an_edited_text_is_a_new_input_and_the_one_shown_is_skipped(queue: Queue, store: Store) -> None:
    (task,) = queue.take("ann", 1, now=NOON)
    edited = said(task, hash=hash_text("new"), record={"text": "new"})
    assert [keep(queue, "ann", edited, now=NOON, shown=task.hash) for _ in range(2)] == [2, 2]
    text = task.record["text"]
    assert list_rows(store) == [(1, text, "ann", None, None), (2, "new", "ann", "spam", None)]
    assert store.read_annotations("w")["note"].tolist() == ["edited", ""]
    assert store.read_annotations("w")["key"].tolist() == [f"ann:{task.key}:shown", f"ann:{task.key}"]
    assert queue.take("bob", 1, now=NOON)[0].hash == task.hash


def test_undo_of_an_edited_label_brings_back_what_was_shown(queue: Queue, store: Store) -> None:
    (task,) = queue.take("ann", 1, now=NOON)
    edited = said(task, hash=hash_text("new"), record={"text": "new"})
    keep(queue, "ann", edited, now=NOON, shown=task.hash)
    back = queue.undo("ann", now=NOON)
    assert (back.hash, back.record, back.strategy, back.key != task.key) == (task.hash, task.record, "random", True)
    assert [row[4] for row in list_rows(store)] == [None, None, 2, 1]
    assert queue.take("ann", 1, now=NOON) == [back]
    assert queue.undo("ann", now=NOON) is None


def test_a_label_that_was_not_edited_keeps_its_example_unskipped(queue: Queue, store: Store) -> None:
    (task,) = queue.take("ann", 1, now=NOON)
    keep(queue, "ann", said(task), now=NOON, shown=task.hash)
    assert len(list_rows(store)) == 1


def test_undo_goes_back_one_by_one_and_what_it_undid_is_next(queue: Queue, store: Store) -> None:
    tasks = queue.take("ann", 4, now=NOON)
    keep(queue, "ann", said(tasks[0]), now=NOON)
    queue.skip("ann", tasks[1].hash, key="s", now=NOON)
    back = [queue.undo("ann", now=NOON + SECOND) for _ in range(3)]
    assert [task and task.hash for task in back] == [tasks[1].hash, tasks[0].hash, None]
    assert [task.hash for task in queue.take("ann", 4, now=NOON + SECOND)] == [task.hash for task in tasks]
    assert [row[3:] for row in list_rows(store)] == [("spam", None), (None, None), (None, 2), (None, 1)]


def test_undo_that_is_sent_again_takes_back_nothing_more_and_gives_the_same_example(queue: Queue, store: Store) -> None:
    first, second = queue.take("ann", 2, now=NOON)
    keep(queue, "ann", said(first), now=NOON)
    edited = said(second, hash=hash_text("new"), record={"text": "new"})
    keep(queue, "ann", edited, shown=second.hash, now=NOON)
    back = [queue.undo("ann", key="u", now=NOON) for _ in range(2)]
    assert back[0] == back[1]
    assert back[0].hash == second.hash
    assert [(row[4], row[0]) for row in list_rows(store)[3:]] == [(3, 4), (2, 5)]
    keep(queue, "ann", said(back[0]), now=NOON)
    late = queue.undo("ann", key="u", now=NOON + SECOND)  # long on its way: the example has its label by now
    assert (late.hash, late.record, late.expires) == (second.hash, second.record, stamp(NOON + SECOND))
    assert len(list_rows(store)) == 6
    assert queue.undo("ann", key="v", now=NOON).hash == second.hash
    assert queue.undo("ann", key="w", now=NOON).hash == first.hash


def test_nobody_s_undo_is_the_repeat_of_another_s(queue: Queue, store: Store) -> None:
    for who in ("ann", "bob"):
        (task,) = queue.take(who, 1, now=NOON)
        keep(queue, who, said(task), now=NOON)
        assert queue.undo(who, key="u", now=NOON).hash == task.hash
    keys = store.read_annotations("w").dropna(subset="retracts")["key"].tolist()
    assert keys == [":undo:ann:u", ":undo:bob:u"]


def test_a_list_of_labels_is_kept_once_by_key_the_first_of_each(queue: Queue, store: Store) -> None:
    a, b = queue.take("ann", 2, now=NOON)
    edited = said(b, hash=hash_text("new"), record={"text": "new"})
    given = [(said(a), a.hash), (edited, b.hash), (said(a, "ham"), a.hash), (said(b), b.hash)]
    assert queue.label("ann", given, now=NOON) == [1, 3, 1, 3]
    assert queue.label("ann", given[::-1], now=NOON) == [3, 1, 3, 1]
    assert [row[1:4] for row in list_rows(store)] == [
        (a.record["text"], "ann", "spam"), (b.record["text"], "ann", None), ("new", "ann", "spam"),
    ]  # fmt: skip
    assert store.read(sql.select(LEASES)) == []


def test_undo_leaves_labels_of_others_and_those_not_from_the_queue(queue: Queue, store: Store) -> None:
    (task,) = queue.take("bob", 1, now=NOON)
    keep(queue, "bob", said(task), now=NOON)
    store.add_annotations("w", [said(task, strategy="given", key="file")], annotator="ann", when=NOON)
    assert queue.undo("ann", now=NOON) is None
    assert len(list_rows(store)) == 2


def test_undo_of_a_skip_gives_no_lease_on_what_somebody_else_has_by_now(queue: Queue) -> None:
    (task,) = queue.take("ann", 1, now=NOON)
    queue.skip("ann", task.hash, key="s", now=NOON)
    (other,) = queue.take("bob", 1, now=NOON)
    back = queue.undo("ann", now=NOON)
    assert (back.hash, back.strategy, back.expires) == (other.hash, "random", stamp(NOON))
    assert task.hash not in [one.hash for one in queue.take("ann", 8, now=NOON)]
    assert queue.take("ann", 1, now=NOON + LEASE) == [replace(back, expires=stamp(NOON + 2 * LEASE))]


def test_the_open_ones_of_an_order_come_first_then_random_ones(queue: Queue) -> None:
    (taken,) = queue.take("bob", 1, now=NOON, order=[HASHES["c"]], strategy="newest")
    order = [HASHES[name] for name in "gcagh"] + ["f" * 32]
    tasks = queue.take("ann", 4, now=NOON, order=order, strategy="uncertainty")
    rest = next(name for name in RANDOM if name not in "gcah")
    assert (list_names([taken]), list_names(tasks)) == ("c", f"agh{rest}")
    assert [task.strategy for task in tasks] == ["uncertainty"] * 3 + ["random"]


def test_the_newest_are_those_that_came_last(store: Store) -> None:
    tasks = Queue(store, "w", strategy="newest").take("ann", 3, now=NOON)
    assert [(list_names([task]), task.strategy) for task in tasks] == [(name, "newest") for name in "hgf"]


@pytest.mark.parametrize("strategy", ["uncertainty", "disagreement"])
def test_without_an_order_a_strategy_of_the_model_is_random_and_says_so(store: Store, strategy: str) -> None:
    tasks = Queue(store, "w", strategy=strategy).take("ann", 3, now=NOON)
    assert [(list_names([task]), task.strategy) for task in tasks] == [(name, "random") for name in RANDOM[:3]]


@pytest.mark.parametrize("strategy", ["given", "best"])
def test_a_queue_chooses_by_four_strategies(store: Store, strategy: str) -> None:
    said = f"strategy is '{strategy}'; it must be one of random, uncertainty, disagreement, newest"
    with pytest.raises(DataError, match=said):
        Queue(store, "w", strategy=strategy)
    with pytest.raises(DataError, match=said):
        Queue(store, "w").take("ann", 1, now=NOON, strategy=strategy)


@pytest.mark.parametrize("overlap", [-1, 101])
def test_overlap_is_a_percentage(store: Store, overlap: int) -> None:
    with pytest.raises(DataError, match=f"overlap is {overlap}; it must be a percentage from 0 to 100"):
        Queue(store, "w", overlap=overlap)


def test_with_full_overlap_two_and_no_more_get_each_example(store: Store) -> None:
    queue = Queue(store, "w", overlap=100)
    for who in ("ann", "bob", "eve"):
        for task in queue.take(who, 4, now=NOON):
            keep(queue, who, said(task, who), now=NOON)
    for who in ("ann", "bob", "eve", "flo"):
        queue.take(who, 8, now=NOON)
    people = Counter(row[1] for row in list_rows(store))
    people.update(NAMES[lease.hash] for lease in store.read(sql.select(LEASES)))
    assert people == dict.fromkeys("abcdefgh", 2)


def test_an_overlap_is_a_share_of_the_examples_and_not_the_first_of_them(tmp_path: Path) -> None:
    store, hashes = Store(tmp_path / "pinmill.sqlite"), [hash_text(str(number)) for number in range(2000)]
    store.add_examples("w", [{"text": hash} for hash in hashes], hashes=hashes, origin="file", when=NOON)
    queue = Queue(store, "w", overlap=20)
    first = {task.hash for task in queue.take("ann", 1000, now=NOON)}
    both = [task.hash for task in queue.take("bob", 1000, now=NOON) if task.hash in first]
    assert 150 < len(both) < 250
    assert both == sorted(hash for hash in first if int(hash[8:16], 16) < 0.2 * 2**32)
    store.close()


def test_the_pool_is_what_one_may_get_in_random_order(
    queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.take("bob", 1, now=NOON, order=[HASHES[RANDOM[0]]])
    (task,) = queue.take("ann", 1, now=NOON)
    keep(queue, "ann", said(task), now=NOON)
    expected = [(HASHES[name], {"text": name}) for name in RANDOM[2:]]
    assert queue.pool("ann", now=NOON) == expected
    monkeypatch.setattr(module, "POOL", 3)
    assert queue.pool("ann", now=NOON) == expected[:3]


def test_workflows_do_not_share_examples_leases_or_keys(store: Store) -> None:
    add(store, "ab", workflow="v")
    queues = [Queue(store, name) for name in ("w", "v")]
    taken = [queue.take("ann", 8, now=NOON) for queue in queues]
    assert [len(tasks) for tasks in taken] == [8, 2]
    assert [
        keep(queue, "ann", said(tasks[0], key="k"), now=NOON) for queue, tasks in zip(queues, taken, strict=True)
    ] == [1, 2]
    assert [queue.progress("ann", now=NOON).open for queue in queues] == [7, 1]


def test_a_store_that_is_not_there_has_nothing_to_label(tmp_path: Path) -> None:
    queue = Queue(Store(tmp_path / "pinmill.sqlite"), "w")
    assert queue.pool("ann", now=NOON) == []
    assert queue.progress("ann", now=NOON) == Progress(0, 0, 0, 0, 0, None, None, 0)
    assert (queue.take("ann", 1, now=NOON), queue.undo("ann", now=NOON)) == ([], None)


def test_progress_counts_what_counts(store: Store) -> None:
    queue, yesterday = Queue(store, "w", overlap=100), NOON - timedelta(hours=13)
    a, b, c, d, e = queue.take("ann", 5, now=yesterday, order=[HASHES[name] for name in "abcde"])
    keep(queue, "ann", said(a, "ham"), now=yesterday)
    for minutes, task in enumerate((b, c), start=0):
        keep(queue, "ann", said(task, 1), now=NOON + timedelta(minutes=30 * minutes))
    queue.skip("ann", d.hash, key="d", now=NOON)
    new = said(e, hash=hash_text("new"), record={"text": "new"})
    keep(queue, "ann", new, shown=e.hash, now=NOON + timedelta(hours=1))
    for task, label in ((a, "ham"), (b, True), (c, 1.0), (d, "spam")):
        keep(queue, "bob", said(task, label), now=NOON)
    keep(queue, "bob", said(a, "spam", key="again"), now=NOON)
    expected = Progress(
        open=3,  # f, g and h
        done=5,  # a, b, c, d and what e was edited into
        own=4, today=3, skipped=1, pace=3 / 14, agreement=1 / 3, compared=3,  # 1 is 1.0, but not True
    )  # fmt: skip
    assert queue.progress("ann", now=NOON + timedelta(hours=2)) == expected
    queue.undo("bob", now=NOON)
    assert queue.progress("ann", now=NOON).agreement == 2 / 3


def test_the_pace_is_of_the_last_twenty_labels(tmp_path: Path) -> None:
    store, names = Store(tmp_path / "pinmill.sqlite"), [str(number) for number in range(25)]
    store.add_examples("w", [{"text": n} for n in names], hashes=[*map(hash_text, names)], origin="file", when=NOON)
    queue, times = Queue(store, "w"), [NOON + SECOND * (number if number < 5 else 10 * number) for number in range(25)]
    for task, time in zip(queue.take("ann", 25, now=NOON), times, strict=True):
        keep(queue, "ann", said(task), now=time)
    assert queue.progress("ann", now=NOON).pace == pytest.approx(360)  # one in 10 s
    store.close()


def test_order_pool_puts_the_least_sure_first() -> None:
    sure, torn, tie = {"a": 0.9, "b": 0.1}, {"a": 0.4, "b": 0.35, "c": 0.25}, {"a": 0.6, "b": 0.4}
    first = [None, sure, tie, {"a": 1.0}, torn, tie]
    assert order_pool("uncertainty", "nstxuw", first) == [*"utwsxn"]


def test_order_pool_puts_first_what_two_models_differ_on() -> None:
    first = [{"a": 0.5, "b": 0.5}, {"a": 1.0}, {"a": 0.2, "b": 0.8}, None]
    second = [{"a": 0.5, "b": 0.5}, {"c": 1.0}, {"a": 0.4, "b": 0.6}, {"a": 1.0}]
    assert order_pool("disagreement", "0123", first, second) == [*"1203"]
    for strategy, models in (("disagreement", [first]), ("random", [first, second])):
        with pytest.raises(DataError, match=f"by '{strategy}' with {len(models)} models"):
            order_pool(strategy, "0123", *models)


@dataclass
class Lease:
    """What the model knows of a lease."""

    hash: str
    who: str
    key: str
    strategy: str
    expires: datetime


@dataclass
class Row:
    """What the model knows of a row of annotations."""

    who: str
    hash: str
    label: Any
    key: str
    strategy: str
    retracts: int | None = None


class Dead(BaseException):
    """The process is dead."""


@contextmanager
def dying(store: Store, at: int) -> Iterator[None]:
    """Let the process die before its statement number `at`, and its lock with it; 0: it lives."""
    count = 0

    def step(connection: sql.Connection, *_: Any) -> None:
        nonlocal count
        count += 1
        if count == at:
            connection.connection.dbapi_connection.rollback()  # or an open cursor keeps the lock until it is collected
            raise Dead

    sql.event.listen(store._engine, "before_cursor_execute", step)
    sql.event.listen(store._engine, "commit", step)
    try:
        yield
    finally:
        sql.event.remove(store._engine, "before_cursor_execute", step)
        sql.event.remove(store._engine, "commit", step)


PEOPLE = st.sampled_from(["ann", "bob"])
SAID = st.sampled_from(["spam", "ham", 1, True])
DEATH = st.one_of(st.just(0), st.integers(1, 16))  # before which statement


class Labelling(RuleBasedStateMachine):
    """Two people label, skip, edit, undo, retry, come late and come back, while processes die and the clock jumps."""

    mortal = True  # where a row that was not committed leaves no gap in the ids, which the model counts

    @initialize(overlap=st.sampled_from([0, 0, 50, 100]))
    def begin(self, overlap: int) -> None:
        self.now, self.overlap, self.place = NOON, overlap, self.make_place()
        self.rows: list[Row] = []  # by their ids, which begin with 1
        self.leases: list[Lease] = []  # in the order in which one comes back to them
        self.shown: dict[str, list[Task]] = {"ann": [], "bob": []}  # all that were ever on a screen
        self.sent: list[tuple[Row, Annotation | None, str, int]] = []  # labels and skips, with the id that came back
        self.undone: list[tuple[str, str, str]] = []  # who, key, and the example that came back
        self.store = Store(self.place)
        self.restart()
        add(self.store, "abcdef")

    def make_place(self) -> Path | str:
        """Where the store is made."""
        self.folder = tempfile.TemporaryDirectory()
        return Path(self.folder.name) / "pinmill.sqlite"

    def teardown(self) -> None:
        self.store.close()
        if self.mortal:
            self.folder.cleanup()

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = Store(self.place)
        self.queue = Queue(self.store, "w", overlap=self.overlap)

    @rule(seconds=st.sampled_from([1, 600, 901]))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    def attempt(self, death: int, act: Callable[[], Any]) -> tuple[bool, Any]:
        """Whether a process lived through what it did, and what it was told."""
        try:
            with dying(self.store, death * self.mortal):
                return True, act()
        except Dead:
            self.restart()
            return False, None

    def standing(self, *, who: str = "", hash: str = "") -> list[Row]:
        """The labels and skips that were not taken back: all, or of one person, or on one input."""
        gone = {row.retracts for row in self.rows}
        rows = [row for id, row in enumerate(self.rows, 1) if row.retracts is None and id not in gone]
        return [row for row in rows if who in ("", row.who) and hash in ("", row.hash)]

    def is_open(self, who: str, hash: str) -> bool:
        others = {row.who for row in self.standing(hash=hash) if row.label is not None}
        others |= {lease.who for lease in self.leases if lease.hash == hash and lease.expires > self.now}
        need = 2 if int(hash[8:16], 16) / 2**32 < self.overlap / 100 else 1
        return not self.standing(who=who, hash=hash) and len(others - {who}) < need

    @rule(who=PEOPLE, n=st.integers(1, 3), order=st.permutations("abcdef"), wanted=st.integers(0, 6), death=DEATH)
    def take(self, who: str, n: int, order: list[str], wanted: int, death: int) -> None:
        asked = [HASHES[name] for name in order[:wanted]]
        ask = partial(self.queue.take, who, n, now=self.now, order=asked, strategy="uncertainty")
        lived, tasks = self.attempt(death, ask)
        if not lived:
            return
        own = [lease for lease in self.leases if lease.who == who and not self.standing(who=who, hash=lease.hash)]
        held = [one for one in own if one.expires > self.now or self.is_open(who, one.hash)][:n]
        rest = [hash for hash in sorted(HASHES[name] for name in "abcdef") if hash not in asked]
        new = [hash for hash in asked + rest if self.is_open(who, hash) and hash not in [one.hash for one in held]]
        for lease in held:
            lease.expires = self.now + LEASE
        for hash, task in zip(new, tasks[len(held) :], strict=False):
            how = "uncertainty" if hash in asked else "random"
            self.leases.append(Lease(hash, who, task.key, how, self.now + LEASE))
        expected = held + self.leases[len(self.leases) - len(tasks) + len(held) :]
        assert len(tasks) == min(n, len(held) + len(new))
        assert [vars(task) for task in tasks] == [self.tell(lease) for lease in expected]
        self.shown[who] += tasks

    def tell(self, lease: Lease) -> dict[str, Any]:
        """A lease as a task."""
        about = {"hash": lease.hash, "record": {"text": NAMES[lease.hash]}, "strategy": lease.strategy}
        return {**about, "key": lease.key, "expires": stamp(lease.expires)}

    @precondition(lambda self: any(self.shown.values()))
    @rule(data=st.data(), label=SAID, edited=st.booleans(), death=DEATH)
    def label(self, data: st.DataObject, label: Any, edited: bool, death: int) -> None:
        who, task = self.pick(data)
        text = f"{task.record['text']} edited" if edited else task.record["text"]
        given = said(task, label, hash=hash_text(text), record={"text": text})
        self.answer(Row(who, given.hash, label, f"{who}:{task.key}", task.strategy), given, task.hash, death)

    @precondition(lambda self: any(self.shown.values()))
    @rule(data=st.data(), death=DEATH)
    def skip(self, data: st.DataObject, death: int) -> None:
        who, task = self.pick(data)
        leased = [one.strategy for one in self.leases if (one.hash, one.who) == (task.hash, who)]
        self.answer(Row(who, task.hash, None, f"{who}:{task.key}", *leased or ["given"]), None, task.hash, death)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        """A program that has not heard the answer sends again what it sent, whatever has happened since."""
        row, given, shown, id = data.draw(st.sampled_from(self.sent))
        assert self.send(row, given, shown) == id

    def pick(self, data: st.DataObject) -> tuple[str, Task]:
        """Somebody, and something that was on that one's screen: the last of it, or older."""
        who = data.draw(st.sampled_from([who for who, tasks in self.shown.items() if tasks]))
        return who, data.draw(st.sampled_from(self.shown[who][::-1]))

    def send(self, row: Row, given: Annotation | None, shown: str) -> int:
        if given:
            return keep(self.queue, row.who, given, shown=shown, now=self.now)
        return self.queue.skip(row.who, row.hash, key=row.key.partition(":")[2], now=self.now)

    def answer(self, row: Row, given: Annotation | None, shown: str, death: int) -> None:
        """Send a label or skip, and note what it must have done: nothing, if the process died or the key is known."""
        lived, id = self.attempt(death, partial(self.send, row, given, shown))
        if not lived:
            return
        if row.key not in [one.key for one in self.rows]:
            if shown != row.hash:
                self.rows.append(Row(row.who, shown, None, f"{row.key}:shown", row.strategy))
            self.rows.append(row)
            self.leases = [one for one in self.leases if one.who != row.who or one.hash not in (shown, row.hash)]
        assert id == 1 + [one.key for one in self.rows].index(row.key)
        self.sent.append((row, given, shown, id))

    @precondition(lambda self: self.undone)
    @rule(data=st.data())
    def retry_undo(self, data: st.DataObject) -> None:
        """The answer to an undo was not heard: it is sent again, whatever has happened since."""
        who, key, hash = data.draw(st.sampled_from(self.undone))
        assert self.queue.undo(who, key=key, now=self.now).hash == hash

    @rule(who=PEOPLE, death=DEATH, keyed=st.booleans())
    def undo(self, who: str, death: int, keyed: bool) -> None:
        last = [row for row in self.standing(who=who) if row.strategy != "given"][-1:]
        key = f"u{len(self.rows)}" if keyed else ""
        lived, task = self.attempt(death, partial(self.queue.undo, who, key=key, now=self.now))
        if not lived or not last:
            assert task is None
            return
        both = last + [row for row in self.standing(who=who) if row.key == f"{last[0].key}:shown"]
        for row in both[:-1]:
            self.retract(row, who)
        self.retract(both[-1], who, key and f":undo:{who}:{key}")
        hash = both[-1].hash
        self.undone += [(who, key, hash)] if keyed else []
        self.leases = [one for one in self.leases if (one.hash, one.who) != (hash, who)]
        expires = self.now + LEASE * (hash in NAMES and self.is_open(who, hash))  # an edited text is no example
        self.leases.insert(0, Lease(hash, who, task.key, last[0].strategy, expires))
        if hash in NAMES:
            assert vars(task) == self.tell(self.leases[0])
            self.shown[who].append(task)

    def retract(self, row: Row, who: str, key: str = "") -> int:
        """Note that a row is taken back; its id."""
        id = 1 + self.rows.index(row)
        self.rows.append(Row(who, row.hash, None, key or f":retract:{id}", row.strategy, id))
        return id

    @precondition(lambda self: self.standing())
    @rule(data=st.data())
    def retract_any(self, data: st.DataObject) -> None:
        """Somebody takes back a label by its id, from the command line."""
        id = self.retract(data.draw(st.sampled_from(self.standing())), "eve")
        assert self.store.retract(id, annotator="eve", when=self.now) == len(self.rows)

    @rule(who=PEOPLE, name=st.sampled_from("abcdef"), label=SAID)
    def add_label(self, who: str, name: str, label: Any) -> None:
        """Somebody sends a label in a file, whoever has a lease on its example."""
        given = Annotation(HASHES[name], {"text": name}, label, f"file:{len(self.rows)}", "given")
        self.rows.append(Row(who, given.hash, label, given.key, "given"))
        assert self.store.add_annotations("w", [given], annotator=who, when=self.now) == [len(self.rows)]

    @invariant()
    def no_label_is_lost_or_doubled(self) -> None:
        read = self.store.read(sql.select(ANNOTATIONS).order_by(ANNOTATIONS.c.id))
        kept = [(r.id, Row(r.annotator, r.hash, r.label, r.key, r.strategy, r.retracts)) for r in read]
        assert repr(kept) == repr([*enumerate(self.rows, 1)])  # where 1 is not True

    @invariant()
    def leases_are_those_that_were_given(self) -> None:
        read = self.store.read(sql.select(LEASES).order_by(LEASES.c.created, LEASES.c.id))
        for who in self.shown:
            own = [(r.hash, r.key, r.strategy, r.expires) for r in read if r.annotator == who]
            known = [one for one in self.leases if one.who == who]
            assert own == [(one.hash, one.key, one.strategy, stamp(one.expires)) for one in known]
        live = Counter(row.hash for row in read if row.expires > stamp(self.now))
        assert max(live.values(), default=0) <= (2 if self.overlap else 1)


Labelling.TestCase.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLabelling = Labelling.TestCase


def test_labelling_holds_on_postgresql(postgres: Callable[[], str]) -> None:
    class There(Labelling):
        mortal = False

        def make_place(self) -> str:
            return postgres()

    run_state_machine_as_test(There, settings=settings(Labelling.TestCase.settings, max_examples=5))


def test_what_was_said_to_be_saved_survives_kill_9_once(tmp_path: Path) -> None:
    path, names = tmp_path / "pinmill.sqlite", [str(number) for number in range(150)]
    store = Store(path)
    store.add_examples("w", [{"text": n} for n in names], hashes=[*map(hash_text, names)], origin="file", when=NOON)
    saved: dict[str, int] = {}
    before: dict[str, list[str]] = {}  # what each saw last: an example and its key
    for turns in TURNS:
        processes = {who: start(path, who) for who in ("ann", "bob")}
        for process in processes.values():
            process.stdin.write("go\n" * turns)
            process.stdin.flush()
        # The kill comes when the last of the turns was shown, and is being labelled.
        printed = {who: [process.stdout.readline() for _ in range(2 * turns - 1)] for who, process in processes.items()}
        for process in processes.values():
            process.send_signal(signal.SIGKILL)
        for who, process in processes.items():
            printed[who] += process.communicate()[0].splitlines(keepends=True)  # said before the kill reached it
            words = [line.split() for line in printed[who] if line.endswith("\n")]
            saved |= {hash: int(id) for what, hash, id in words if what == "saved"}
            shown = [word[1:] for word in words if word[0] == "shown"]
            assert before.get(who, shown[0]) == shown[0]
            kept = store.read(sql.select(ANNOTATIONS.c.hash).where(ANNOTATIONS.c.annotator == who))
            before = {**before, who: shown[-1]}
            if (shown[-1][0],) in kept:
                del before[who]
    for process in [start(path, who) for who in ("ann", "bob")]:
        assert process.communicate(timeout=120)[0] != ""
        assert process.returncode == 0
    rows = store.read(sql.select(ANNOTATIONS.c.hash, ANNOTATIONS.c.id))
    assert sorted(hash for hash, _ in rows) == sorted(map(hash_text, names))
    assert saved.items() <= dict(map(tuple, rows)).items()
    assert len(saved) >= 2 * sum(turns - 1 for turns in TURNS)
    store.close()
