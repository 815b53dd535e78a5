"""What may be said of an input, and which input a row is: label sets, labels of each type, rows with their hash."""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from pinmill.annotations import hash_inputs
from pinmill.champion import promote
from pinmill.labels import check_fields, check_label, find_label, make_reader, read_label_set, read_prototype
from pinmill.project import Project
from pinmill.prototype import read_prototype as prototype_of
from pinmill.rows import RowError
from pinmill.table import hash_rows

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
TEXT = {"text": {"type": "text", "dtype": "str", "nullable": False, "examples": ["free prize"]}}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project of nothing."""
    return Project(tmp_path, {})


def write(project: Project, kind: str, **facts: object) -> str:
    """The version of a new pin W-`kind` with these facts."""
    return project.board.write_json(f"tiny-{kind}", {"n": str(facts)}, facts=facts, lineage={}).version


def write_model(project: Project, classes: list, task: str = "multiclass") -> str:
    return write(project, "model", task=task, classes=classes, prototype=TEXT)


def make_champion(project: Project, version: str) -> None:
    about = {"by": "ann", "why": "it is good", "expected": None, "gate": True, "when": NOON}
    promote(project.board, "tiny", version, **about)


# Which labels there are


def test_the_labels_of_the_params_come_first(project: Project) -> None:
    make_champion(project, write_model(project, ["ham", "spam"]))
    assert read_label_set(project, "tiny", {"labels": [1, "one", True]}) == [1, "one", True]


def test_then_those_of_the_champion_and_not_of_a_newer_model(project: Project) -> None:
    first = write_model(project, ["ham", "spam"])
    make_champion(project, first)
    write_model(project, ["a", "b"])
    assert read_label_set(project, "tiny", {"labels": []}) == ["ham", "spam"]


def test_without_a_champion_those_of_the_newest_model_and_then_of_the_newest_data(project: Project) -> None:
    assert read_label_set(project, "tiny", {}) == []
    write(project, "data", task="binary", classes={"ham": 3, "spam": 5})
    assert read_label_set(project, "tiny", {}) == ["ham", "spam"]
    write_model(project, [0, 1])
    assert read_label_set(project, "tiny", {}) == [0, 1]


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["1", "0", "-7"], [1, 0, -7]),
        (["True", "False"], [True, False]),
        (["001", "1"], ["001", "1"]),
        (["1.5", "2"], ["1.5", "2"]),
        (["1", "one"], ["1", "one"]),
    ],
)
def test_labels_that_the_data_tells_as_text_get_their_type_back(project: Project, names: list, labels: list) -> None:
    write(project, "data", task="multiclass", classes=dict.fromkeys(names, 2))
    found = read_label_set(project, "tiny", {})
    assert [(type(label), label) for label in found] == [(type(label), label) for label in labels]


def test_where_amounts_are_predicted_there_are_no_labels(project: Project) -> None:
    assert read_label_set(project, "tiny", {"task": "regression"}) is None
    write(project, "data", task="regression", classes={})
    assert read_label_set(project, "tiny", {}) is None
    write_model(project, [], task="regression")
    assert read_label_set(project, "tiny", {}) is None


# Which labels are right


@pytest.mark.parametrize(
    ("value", "labels", "is_right"),
    [
        ("spam", ["ham", "spam"], True),
        ("Spam", ["ham", "spam"], False),
        (1, [0, 1], True),
        (1.0, [0, 1], True),  # JSON and JavaScript know one kind of number
        ("1", [0, 1], False),
        (True, [0, 1], False),
        (1, [False, True], False),
        (True, [False, True], True),
        (["spam"], ["ham", "spam"], False),
        ({"a": 1}, ["ham", "spam"], False),
        (None, ["ham", "spam"], False),
        ("spam", [], False),
        (3, None, True),
        (-2.5, None, True),
        (True, None, False),
        ("3", None, False),
        (float("nan"), None, False),
        (float("inf"), None, False),
        (10**400, None, False),
        (None, None, False),
    ],
)
def test_a_label_is_right_only_in_its_own_type(value: object, labels: list | None, is_right: bool) -> None:
    assert (check_label(value, labels) == "") == is_right


def test_a_wrong_label_is_told_what_was_expected() -> None:
    said = '"spma" is no label: one of "ham", "spam" was expected. Did you mean \'spam\'?'
    assert check_label("spma", ["ham", "spam"]) == said
    assert check_label("1", [0, 1]) == '"1" is no label: one of 0, 1 was expected'
    assert check_label("3", None) == '"3" is no amount: a number was expected'
    assert check_label(None, ["ham"]) == "is missing; to take no side, skip the example"
    assert "labels: […]" in check_label("ham", [])


def test_the_label_that_is_kept_has_the_type_of_the_label_set() -> None:
    found = find_label(1.0, [0, 1, True])
    assert (type(found), found) == (int, 1)


# Which input a row is


def test_the_hash_of_a_row_is_the_one_that_the_table_has() -> None:
    frame = pd.DataFrame(
        {
            "note": ["  a\tnote ", "Cafe\u0301 \U0001f600", "x\u00a0y"],
            "age": [3, 40, -1],
            "share": [0.5, 3.0, 1e300],
            "new": [True, False, True],
            "day": pd.to_datetime(["2026-01-02", "2026-01-02T10:15:00.5", "1999-12-31"], format="ISO8601"),
            "kind": ["a", "b", "a"],
        }
    )
    read = make_reader(prototype_of(frame, list(frame), text=["note"]), ())
    rows = [{**row, "day": row["day"].isoformat()} for row in frame.to_dict("records")]
    assert [read(row) for row in rows] == list(zip(hash_rows(frame, list(frame)), rows, strict=True))


def test_a_text_and_its_record_are_the_same_input_as_in_a_file_of_examples() -> None:
    read = make_reader(TEXT, ["source"])
    (expected,) = hash_inputs(pd.DataFrame({"text": ["free  prize"]}), text=["text"], inputs=["text"])
    assert read("free  prize") == (expected, {"text": "free  prize"})
    assert read({"text": "free  prize", "source": "mail"}) == (expected, {"text": "free  prize", "source": "mail"})


def test_all_that_is_wrong_with_a_row_is_told_at_once() -> None:
    row = {"text": " ", "source": ["mail"], "size": float("nan"), "half": "\ud800", "subject": "x"}
    with pytest.raises(RowError) as caught:
        make_reader(TEXT, ["source", "size", "half"])(row)
    plain = "is neither a text nor a number, boolean or null"
    assert caught.value.problems == [
        ("text", '" " is blank, a text was expected'),
        ("subject", "is no field of this model"),
        ("source", plain),
        ("size", plain),
        ("half", plain),
    ]
    assert caught.value.known == ["text", "source", "size", "half"]


def test_the_inputs_are_those_of_a_model_else_all_texts_else_unknown(project: Project) -> None:
    assert read_prototype(project, "tiny", texts=()) is None
    told = read_prototype(project, "tiny", texts=("title", "body"))
    assert {name: entry["type"] for name, entry in told.items()} == {"title": "text", "body": "text"}
    write_model(project, ["ham"])
    assert read_prototype(project, "tiny", texts=("title", "body")) == TEXT


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({"key": "k", "note": "", "seconds": 0, "id": "x", "strategy": "given", "record": {}, "text": ""}, []),
        ({"key": None, "note": None, "seconds": None}, []),
        ({"key": "", "note": "x" * 2001, "seconds": -1}, ["seconds", "note", "key"]),
        ({"key": "k" * 201, "note": "\0", "seconds": True}, ["seconds", "note", "key"]),
        ({"key": 5, "note": "\ud800", "seconds": "3"}, ["seconds", "note", "key"]),
        ({"seconds": float("nan"), "strategy": "best"}, ["seconds", "strategy"]),
        ({"seconds": float("inf"), "strategy": []}, ["seconds", "strategy"]),
        ({"id": 7, "text": None, "record": "text"}, ["id", "record"]),
        ({"text": 7, "nots": "x", "\ud800": 1}, ["nots", "\\ud800", "text"]),
        ([1], [""]),
        ("text", [""]),
    ],
)
def test_each_field_of_an_annotation_is_checked(given: object, fields: list[str]) -> None:
    known = ("id", "text", "record", "seconds", "note", "key", "strategy")
    assert [field for field, _ in check_fields(given, known)] == fields
