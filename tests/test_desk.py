"""The desk in front of a real store: examples and labels in, checked as a whole; the same label is kept once."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sql
from pinmill.champion import promote
from pinmill.desk import Desk, Policy, read_policy
from pinmill.errors import BoardError
from pinmill.problem import Problem
from pinmill.project import Project
from pinmill.rows import hash_input
from pinmill.store import CALLS, LEASES, Store

if TYPE_CHECKING:
    from conftest import Workplace

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
POLICY = Policy(labels=["ham", "spam"], strategy="random", texts=("text",), extra=("source",))
A, B, C = ({"text": f"text {letter}"} for letter in "abc")
UNKNOWN = "f" * 32


def hash_text(text: str) -> str:
    """The identity of a text, as the store has it."""
    return hash_input(json.dumps({"text": text}, separators=(",", ":")))


@pytest.fixture
def make_desk(tmp_path: Path, store_place: Path | str) -> Iterator[Callable[..., Desk]]:
    """The function that makes a desk of another policy, all of one project without any model."""
    project = Project(tmp_path, {"PINMILL_STORE": str(store_place)})
    yield lambda **other: Desk(project, "tiny", replace(POLICY, **other))
    project.store.close()


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    """A desk with three examples."""
    desk = make_desk()
    assert desk.add_examples([A, B, "text c"], origin="test", now=NOON) == (3, 0)
    return desk


def read_rows(desk: Desk) -> list[tuple]:
    """All annotations: who, on what, which label, how chosen."""
    frame = desk.store.read_annotations("tiny")
    rows = frame[["annotator", "record", "label", "strategy", "note"]].itertuples(index=False, name=None)
    return [(who, record["text"], label, how, note) for who, record, label, how, note in rows]


def refuse(desk: Desk, items: list, **about: Any) -> list[tuple]:
    """What is told to be wrong with annotations, none of which is kept: (row, field, problem)."""
    before = len(desk.store.read_annotations("tiny"))
    with pytest.raises(Problem) as caught:
        desk.annotate("ann", items, now=NOON, **about)
    assert caught.value.status == 422
    assert len(desk.store.read_annotations("tiny")) == before
    return [(error["row"], error["field"], error["problem"]) for error in caught.value.errors]


# Examples


def test_an_example_that_is_known_is_not_added_again(desk: Desk) -> None:
    rows = ["text  a", {"text": "text b", "source": "mail"}, "text d", "text d"]
    assert desk.add_examples(rows, origin="test", now=NOON) == (1, 3)
    records = desk.store.read_examples("tiny")["record"].tolist()
    assert records == [A, B, C, {"text": "text d"}]


def test_a_list_of_examples_with_one_that_does_not_fit_adds_nothing(desk: Desk) -> None:
    with pytest.raises(Problem, match=r"2 of 3 rows") as caught:
        desk.add_examples(["text d", {"txt": "text e"}, 7], origin="test", now=NOON)
    assert [(error["row"], error["field"]) for error in caught.value.errors] == [(1, "text"), (1, "txt"), (2, "")]
    assert len(desk.store.read_examples("tiny")) == 3


def test_without_a_model_rows_of_a_table_cannot_be_read_and_it_says_what_to_do(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(texts=())
    with pytest.raises(Problem, match="train a model first, or use pinmill examples add"):
        desk.add_examples([{"age": 3}], origin="test", now=NOON)
    assert refuse(desk, [{"record": {"age": 3}, "label": "ham"}])[0][:2] == (0, "record")


def test_a_table_s_example_is_labelled_by_its_id_without_a_model(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(texts=())
    desk.store.add_examples("tiny", [{"age": 3}], hashes=["0" * 32], origin="file", when=NOON)
    (task,) = desk.take("ann", 1, now=NOON)
    assert desk.annotate("ann", [{"id": task.hash, "label": "ham"}], now=NOON) == [
        {"id": 1, "label": "ham", "known": False}
    ]


# Labels


def test_labels_come_by_text_record_and_id_and_keep_how_the_example_was_chosen(desk: Desk) -> None:
    (task,) = desk.take("ann", 1, now=NOON, order=[hash_text("text c")], strategy="uncertainty")
    items = [
        {"text": "text a", "label": "ham", "seconds": 2.5, "note": "sure", "key": "1"},
        {"record": {**B, "source": "mail"}, "label": "spam", "strategy": "random"},
        {"id": task.hash, "label": "spam", "key": task.key},
    ]
    kept = desk.annotate("ann", items, now=NOON)
    assert [(row["label"], row["known"]) for row in kept] == [("ham", False), ("spam", False), ("spam", False)]
    assert sorted(read_rows(desk)) == [
        ("ann", "text a", "ham", "given", "sure"),
        ("ann", "text b", "spam", "random", ""),
        ("ann", "text c", "spam", "uncertainty", ""),
    ]
    assert desk.progress("ann", now=NOON).own == 3


def test_an_edited_text_is_a_new_input_and_what_was_shown_is_skipped(desk: Desk) -> None:
    (task,) = desk.take("ann", 1, now=NOON, order=[hash_text("text a")], strategy="uncertainty")
    item = {"id": task.hash, "text": "text a, mended", "label": "ham", "key": task.key}
    (kept,) = desk.annotate("ann", [item], now=NOON)
    (again,) = desk.annotate("ann", [item | {"text": "text a, mended twice"}], now=NOON)
    assert again == {**kept, "known": True}
    assert read_rows(desk) == [
        ("ann", "text a", None, "uncertainty", "edited"),
        ("ann", "text a, mended", "ham", "uncertainty", ""),
    ]


def test_an_edited_record_keeps_the_columns_that_are_no_input(desk: Desk) -> None:
    desk.add_examples([{"text": "text d", "source": "mail"}], origin="test", now=NOON)
    desk.annotate("ann", [{"id": hash_text("text d"), "text": "text e", "label": "ham"}], now=NOON)
    assert desk.store.read_annotations("tiny")["record"].tolist()[-1] == {"text": "text e", "source": "mail"}


def test_a_repeated_key_is_the_same_label_but_not_of_somebody_else(desk: Desk) -> None:
    item = {"text": "text a", "label": "ham", "key": "1"}
    (first,) = desk.annotate("ann", [item], now=NOON)
    (again,) = desk.annotate("ann", [item | {"label": "spam"}], now=NOON)
    (other,) = desk.annotate("bob", [item | {"label": "spam"}], now=NOON)
    assert again == {"id": first["id"], "label": "ham", "known": True}
    assert (other["label"], other["known"]) == ("spam", False)
    assert [row[:3] for row in read_rows(desk)] == [("ann", "text a", "ham"), ("bob", "text a", "spam")]


def test_a_key_of_another_input_is_refused_before_and_in_the_same_list(desk: Desk) -> None:
    desk.annotate("ann", [{"text": "text a", "label": "ham", "key": "1"}], now=NOON)
    items = [{"text": f"text {letter}", "label": "ham", "key": key} for letter, key in ("b1", "b2", "c2", "a1")]
    problem = "is of a label of another input already: take a new one"
    assert refuse(desk, items) == [(0, "key", problem), (2, "key", problem)]


def test_without_a_key_the_same_label_is_kept_once_and_a_changed_mind_is_a_new_one(desk: Desk) -> None:
    def say(label: str) -> tuple[int, bool]:
        (kept,) = desk.annotate("ann", [{"text": "text a", "label": label}], now=NOON)
        return kept["id"], kept["known"]

    assert [say(label) for label in ("ham", "ham", "spam", "ham", "ham")] == [
        (1, False),
        (1, True),
        (2, False),
        (3, False),
        (3, True),
    ]
    twice = desk.annotate("ann", [{"text": "text b", "label": "ham"}] * 2, now=NOON)
    assert [row["id"] for row in twice] == [4, 4]


def test_a_label_sent_again_with_a_new_key_is_the_same_label(desk: Desk) -> None:
    (first,) = desk.annotate("ann", [{"text": "text a", "label": "ham", "key": "monday"}], now=NOON)
    (again,) = desk.annotate("ann", [{"text": "text a", "label": "ham", "key": "tuesday"}], now=NOON)
    assert again == {"id": first["id"], "label": "ham", "known": True}
    (other,) = desk.annotate("ann", [{"text": "text a", "label": "spam", "key": "wednesday"}], now=NOON)
    assert other["known"] is False
    assert len(read_rows(desk)) == 2


def test_the_same_label_again_is_one_more_vote_once_somebody_has_said_something_else(desk: Desk) -> None:
    about = {"id": hash_text("text a"), "strategy": "given"}
    (mod,) = desk.annotate("mod", [{"id": about["id"], "label": "ham", "strategy": "random"}], now=NOON)
    desk.annotate("bob", [{"text": "text a", "label": "spam"}], now=NOON)
    (settled,) = desk.annotate("mod", [about | {"label": "ham", "key": "1"}], now=NOON)
    (again,) = desk.annotate("mod", [about | {"label": "ham", "key": "2"}], now=NOON)
    assert (mod["id"], settled, again["id"]) == (1, {"id": 3, "label": "ham", "known": False}, 3)
    assert [row[:4] for row in read_rows(desk)] == [
        ("mod", "text a", "ham", "random"), ("bob", "text a", "spam", "given"), ("mod", "text a", "ham", "given"),
    ]  # fmt: skip


def test_a_label_is_settled_too_where_one_s_own_of_the_queue_came_last(desk: Desk) -> None:
    desk.annotate("bob", [{"text": "text a", "label": "spam"}], now=NOON)
    desk.annotate("mod", [{"id": hash_text("text a"), "label": "ham", "strategy": "random"}], now=NOON)
    item = {"id": hash_text("text a"), "label": "ham", "strategy": "given"}
    assert [desk.annotate("mod", [item], now=NOON)[0]["known"] for _ in range(2)] == [False, True]


def add_wide(desk: Desk) -> dict[str, Any]:
    """The record of an example that has a column which is neither input nor parameter, as a file may have."""
    record = {"text": "text d", "author": "eve", "source": "mail"}
    desk.store.add_examples("tiny", [record], hashes=[hash_text("text d")], origin="file", when=NOON)
    return record


def test_an_edited_record_may_repeat_the_columns_of_its_example_and_they_stay_as_they_were(desk: Desk) -> None:
    sent = add_wide(desk) | {"text": "text e", "author": "mallory"}
    desk.annotate("ann", [{"id": hash_text("text d"), "record": sent, "label": "ham"}], now=NOON)
    records = desk.store.read_annotations("tiny")["record"].tolist()
    assert records[-1] == {"text": "text e", "author": "eve", "source": "mail"}
    more = {"id": hash_text("text d"), "record": sent | {"autor": "eve"}, "label": "ham"}
    assert [(row, field) for row, field, _ in refuse(desk, [more])] == [(0, "autor")]


def test_an_input_that_is_no_example_but_was_labelled_is_voted_on_by_its_id(desk: Desk) -> None:
    record = add_wide(desk)
    desk.annotate("ann", [{"id": hash_text("text d"), "text": "text e", "label": "ham"}], now=NOON)
    id, further = hash_text("text e"), {"label": "spam", "strategy": "given"}
    desk.annotate("mod", [{"id": id, **further}], now=NOON)
    desk.annotate("mod", [{"id": id, "record": record | {"text": "text f"}, **further}], now=NOON)
    rows = desk.store.read_annotations("tiny")[["annotator", "record", "label"]].values.tolist()
    assert rows[2:] == [["mod", record | {"text": "text e"}, "spam"], ["mod", record | {"text": "text f"}, "spam"]]


def test_a_list_of_labels_is_kept_whole_or_not_at_all_wherever_the_process_dies(desk: Desk) -> None:
    tasks = desk.take("ann", 3, now=NOON)
    items = [{"id": task.hash, "label": "ham", "key": task.key} for task in tasks]
    items = [items[0], items[1] | {"text": "text z"}, {"text": "text y", "label": "spam"}, items[2]]
    left, counts = 0, set()

    def step(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt

    sql.event.listen(desk.store._engine, "before_cursor_execute", step)
    for count in range(1, 100):
        left = count
        try:
            kept = desk.annotate("ann", items, now=NOON)
            break
        except KeyboardInterrupt:
            left = 100
            counts.add(len(read_rows(desk)))
    sql.event.remove(desk.store._engine, "before_cursor_execute", step)
    assert counts == {0, 5}  # an edited text is two rows
    assert ([row["label"] for row in kept], len(read_rows(desk))) == (["ham", "ham", "spam", "ham"], 5)
    assert desk.store.read(sql.select(LEASES)) == []


def test_a_label_that_was_taken_back_can_be_given_again(desk: Desk) -> None:
    (task,) = desk.take("ann", 1, now=NOON)
    desk.annotate("ann", [{"id": task.hash, "label": "ham"}], now=NOON)
    assert desk.undo("ann", now=NOON).hash == task.hash
    (kept,) = desk.annotate("ann", [{"id": task.hash, "label": "ham"}], now=NOON)
    assert (kept["known"], desk.progress("ann", now=NOON).own) == (False, 1)


def test_all_that_is_wrong_is_told_at_once_and_nothing_is_kept(desk: Desk) -> None:
    items = [
        {"text": "text a", "label": "ham"},
        {"text": "text b", "label": "Ham", "seconds": -1, "nots": "x"},
        {"id": UNKNOWN, "label": "ham"},
        {"id": "../a", "label": "ham"},
        {"label": "ham"},
        {"text": "text a", "record": A, "label": "ham"},
        {"record": {"txt": "x"}, "label": None},
        {"text": "half \ud800", "label": "\ud800"},
        "text",
    ]
    found = [(row, field) for row, field, _ in refuse(desk, items)]
    assert found == [
        (1, "nots"), (1, "seconds"), (1, "label"), (2, "id"), (3, "id"), (4, ""), (5, ""), (6, "label"), (6, "text"),
        (6, "txt"), (7, "label"), (7, "text"), (8, ""),
    ]  # fmt: skip


def test_nothing_is_kept_where_it_says_nothing_of_labels(desk: Desk) -> None:
    assert desk.annotate("ann", [], now=NOON) == []


def test_a_skip_is_of_an_example_and_done_once(desk: Desk) -> None:
    (task,) = desk.take("ann", 1, now=NOON)
    about = {"key": task.key, "note": "unclear", "seconds": 3.0, "now": NOON}
    assert desk.skip("ann", task.hash, **about) == desk.skip("ann", task.hash, **about)
    assert desk.progress("ann", now=NOON).skipped == 1
    for wrong in (UNKNOWN, "\ud800", "", "x" * 999):
        with pytest.raises(Problem, match="has no example") as caught:
            desk.skip("ann", wrong, now=NOON)
        assert caught.value.status == 404


def test_ten_thousand_labels_come_in_one_transaction(desk: Desk) -> None:
    items = [{"text": f"number {n}", "label": "ham", "key": str(n)} for n in range(10_000)]
    kept = desk.annotate("ann", items, now=NOON)
    assert [row["id"] for row in kept] == list(range(1, 10_001))
    assert {row["known"] for row in desk.annotate("ann", items, now=NOON)} == {True}


# What the board says


def test_labels_and_columns_follow_the_champion_within_seconds(make_desk: Callable[..., Desk]) -> None:
    desk, board = make_desk(labels=(), texts=()), None
    assert (desk.know(NOON).labels, desk.know(NOON).read) == ([], None)
    board = desk.project.board
    prototype = {"text": {"type": "text", "dtype": "str", "nullable": False, "examples": []}}
    facts = {"task": "binary", "classes": ["no", "yes"], "prototype": prototype}
    version = board.write_json("tiny-model", {}, facts=facts, lineage={}).version
    about = {"by": "ann", "why": "good", "expected": None, "gate": True, "when": NOON}
    promote(board, "tiny", version, **about)
    assert desk.know(NOON + timedelta(seconds=2)).labels == []
    known = desk.know(NOON + timedelta(seconds=4))
    assert (known.labels, known.read("text a")[1]) == (["no", "yes"], A)


def test_while_the_board_is_away_labels_go_on_with_what_was_known(make_desk: Callable[..., Desk]) -> None:
    desk, later = make_desk(), NOON + timedelta(seconds=4)
    desk.add_examples([A], origin="test", now=NOON)
    pins = desk.project.root / "outputs" / "pins"
    pins.mkdir(parents=True)
    broken = pins / "tiny-champion"
    broken.mkdir()
    (broken / "20261120T120000Z-00000").mkdir()
    (broken / "20261120T120000Z-00000" / "data.txt").write_text("{")
    with pytest.raises(BoardError):
        make_desk().know(NOON)
    (kept,) = desk.annotate("ann", [{"text": "text a", "label": "ham"}], now=later)
    assert kept == {"id": 1, "label": "ham", "known": False}


def test_the_policy_is_what_the_params_say(workplace: "Workplace") -> None:
    more = (
        "labels: [spam, ham]\nstrategy: newest\noverlap: 10\nguideline: Be kind.\nsample_calls: 0.5\nslices: [source]\n"
    )
    workplace.params((workplace.root / "params/tiny.yaml").read_text() + more)
    policy = read_policy(Project(workplace.root, {}), "tiny")
    assert policy == Policy(["spam", "ham"], "newest", 10, "Be kind.", 0.5, "label", "auto", ("text",), ("source",))
    assert policy.text == "text"


# Calls


def log_calls(store: Store, *calls: tuple, when: str = "2026-11-20T11:00:00.000000+00:00") -> None:
    """Have calls in the log: (input or None, status)."""
    about = {"workflow": "tiny", "time": when, "version": "v1", "endpoint": "POST /prediction", "caller": "ann"}
    about |= {"milliseconds": 1.0, "cached": False}
    inputs = [(value["text"] if isinstance(value, dict) else value or "", value, status) for value, status in calls]
    rows = [{"input_hash": hash_text(text), "input": value, "status": status} for text, value, status in inputs]
    with store.writing() as connection:
        connection.execute(sql.insert(CALLS), [about | row for row in rows])


def test_logged_inputs_become_examples_once_a_minute(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(sample_calls=1.0)
    log_calls(desk.store, ("text a", 200), (B, 200), (None, 200), ("text c", 500), ("  ", 200))
    (first, *more) = desk.take("ann", 5, now=NOON)
    assert {task.record["text"] for task in (first, *more)} == {"text a", "text b"}
    assert desk.store.read_examples("tiny")["origin"].tolist() == ["calls", "calls"]
    log_calls(desk.store, ("text d", 200), ("text a", 200))
    assert desk.sample_calls(now=NOON + timedelta(seconds=59)) == 0
    assert desk.sample_calls(now=NOON + timedelta(seconds=61)) == 1
    assert len(desk.pool("bob", now=NOON + timedelta(seconds=61))) == 3 - 2  # ann has leases on two


def test_a_share_of_the_calls_is_the_same_inputs_each_time_and_old_calls_are_left(
    make_desk: Callable[..., Desk],
) -> None:
    texts = [f"text {n}" for n in range(400)]
    desk, again = make_desk(sample_calls=0.25), make_desk(sample_calls=0.25)
    log_calls(desk.store, ("too old", 200), when="2026-11-01T11:00:00.000000+00:00")
    log_calls(desk.store, *[(text, 200) for text in texts])
    added = desk.sample_calls(now=NOON)
    assert 60 < added < 140
    assert again.sample_calls(now=NOON) == 0
    expected = {text for text in texts if int(hash_text(text)[16:24], 16) < 2**30}
    assert {record["text"] for record in desk.store.read_examples("tiny")["record"]} == expected


def test_by_default_no_call_becomes_an_example(desk: Desk) -> None:
    log_calls(desk.store, ("text d", 200))
    assert desk.sample_calls(now=NOON) == 0
    assert len(desk.store.read_examples("tiny")) == 3


def test_agreement_is_told_of_ten_inputs_and_to_a_tenth_so_that_it_tells_no_others_label(desk: Desk) -> None:
    told = []
    for number in range(11):
        for who, label in (("bob", "ham"), ("ann", "ham" if number else "spam")):
            desk.annotate(who, [{"text": f"text {number}", "label": label}], now=NOON)
        told.append(desk.progress("ann", now=NOON).agreement)
    assert told == [None] * 9 + [0.9, 0.9]  # 9 of 10, and 10 of 11
