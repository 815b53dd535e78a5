"""Labels of people in a table: who counts, which label is taken, what is said of conflicts, and the whole way there."""

import getpass
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from pinmill.annotations import check_examples, current_labels, find_new_labels, merge_annotations, read_examples
from pinmill.board import Board
from pinmill.errors import DataError
from pinmill.split import split_by_hash
from pinmill.store import Annotation, Store
from pinmill.table import hash_rows

if TYPE_CHECKING:
    from conftest import Workplace

RETRACT = "Retract those (pinmill annotations WORKFLOW --retract ID), or correct the source"
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def said(*rows: tuple) -> pd.DataFrame:
    """Annotations as the store gives them, numbered from 1; a row is (text or record, label, annotator, more)."""
    listed = []
    for number, (record, label, annotator, *more) in enumerate(rows, start=1):
        record = {"text": record} if isinstance(record, str) else record
        row = {"id": number, "hash": str(record), "record": record, "label": label, "annotator": annotator}
        listed.append(row | {"strategy": "random", "retracts": None} | (more[0] if more else {}))
    return pd.DataFrame(listed, dtype=object)


def merge(frame: pd.DataFrame, *rows: tuple, text: tuple = ("text",), features: tuple = (), unique: bool = True):
    inputs = {"text": list(text), "features": list(features)}
    return merge_annotations(frame, said(*rows), **inputs, label="label", unique=unique)


def labels_of(frame: pd.DataFrame) -> dict:
    """{text: label} of a table in which each text stands once."""
    assert frame["text"].is_unique
    return dict(zip(frame["text"], frame["label"], strict=True))


@pytest.fixture
def source() -> pd.DataFrame:
    return pd.DataFrame({"text": ["a", "b", "c", "d"], "label": ["ham", "spam", "ham", "spam"]})


def test_the_last_label_of_each_annotator_counts() -> None:
    rows = said(("a", "ham", "ann"), ("a", "spam", "bob"), ("b", "ham", "ann"), ("a", "spam", "ann"))
    assert current_labels(rows)["id"].tolist() == [2, 3, 4]


def test_a_retracted_label_gives_way_to_the_one_before() -> None:
    rows = said(("a", "ham", "ann"), ("a", "spam", "ann"), ("a", None, "ann", {"retracts": 2}), ("b", "ham", "ann"))
    assert current_labels(rows)["id"].tolist() == [1, 4]


def test_who_takes_no_side_takes_back_what_they_said() -> None:
    assert current_labels(said(("a", "ham", "ann"), ("a", None, "ann")))["id"].tolist() == []


def test_without_annotations_the_table_stays_as_it_is(source: pd.DataFrame) -> None:
    nothing = {"n": 0, "by": {}, "conflicts": 0, "replaced": 0, "last_id": 0}
    for rows in (pd.DataFrame(), said(("a", "spam", "ann"), ("a", None, "ann", {"retracts": 1}))):
        merged = merge_annotations(source, rows, text=["text"], features=[], label="label", unique=True)
        pd.testing.assert_frame_equal(merged.frame, source)
        assert (merged.facts, merged.conflicts, merged.chosen) == (nothing, (), frozenset())


def test_new_inputs_come_after_the_source_in_the_order_of_their_labels(source: pd.DataFrame) -> None:
    merged = merge(source, ("f", "ham", "ann"), ("e", "spam", "bob"))
    expected = [["a", "ham"], ["b", "spam"], ["c", "ham"], ["d", "spam"], ["f", "ham"], ["e", "spam"]]
    assert merged.frame.values.tolist() == expected
    assert merged.facts == {"n": 2, "by": {"ann": 1, "bob": 1}, "conflicts": 0, "replaced": 0, "last_id": 2}


def test_one_person_against_one_row_of_the_source_is_believed(source: pd.DataFrame) -> None:
    merged = merge(source, ("a", "spam", "ann"))
    assert labels_of(merged.frame) == {"a": "spam", "b": "spam", "c": "ham", "d": "spam"}
    assert merged.conflicts == ({"input": "a", "labels": "ham: the source; spam: ann", "taken": "spam"},)
    assert merged.facts["conflicts"] == 1


def test_the_commonest_label_is_taken_also_against_the_last(source: pd.DataFrame) -> None:
    merged = merge(source, ("a", "ham", "ann"), ("a", "spam", "bob"), ("b", "ham", "ann"), ("b", "ham", "bob"))
    assert labels_of(merged.frame) == {"a": "ham", "b": "ham", "c": "ham", "d": "spam"}
    assert merged.conflicts == (
        {"input": "a", "labels": "ham: the source, ann; spam: bob", "taken": "ham"},
        {"input": "b", "labels": "spam: the source; ham: ann, bob", "taken": "ham"},
    )


def test_an_unlabelled_row_of_the_source_gets_a_label() -> None:
    source = pd.DataFrame({"text": ["a", "b", "c"], "label": ["ham", None, None]})
    merged = merge(source, ("b", "spam", "ann"))
    assert labels_of(merged.frame.dropna()) == {"a": "ham", "b": "spam"}
    assert merged.frame["text"].tolist() == ["a", "c", "b"]
    assert merged.conflicts == ()


def test_a_source_without_a_label_column_gets_one() -> None:
    merged = merge(pd.DataFrame({"text": ["a", "b"]}), ("a", "spam", "ann"), ("c", 1, "ann"))
    assert labels_of(merged.frame.dropna()) == {"a": "spam", "c": 1}


def test_an_annotated_input_stands_once_and_other_repeats_stay_for_the_notebook_to_judge() -> None:
    source = pd.DataFrame({"text": ["a", "a ", "a", "b", "b"], "label": ["ham", "ham", "spam", "ham", "spam"]})
    merged = merge(source, ("a", "spam", "ann"))  # the source says ham, its commonest; one to one: the last
    assert merged.frame.values.tolist() == [["b", "ham"], ["b", "spam"], ["a", "spam"]]
    assert merged.frame.index.tolist() == [3, 4, 5]


def test_the_source_has_one_vote_however_often_it_repeats_a_label() -> None:
    source = pd.DataFrame({"text": ["a"] * 5 + ["b"], "label": ["ham", "ham", "spam", "ham", "ham", "ham"]})
    merged = merge(source, ("a", "spam", "ann"), ("a", "spam", "bob"), ("a", "ham", "eve"))
    assert merged.frame.values.tolist() == [["b", "ham"], ["a", "ham"]]  # two to two: the last, which is of eve
    merged = merge(source, ("a", "ham", "eve"), ("a", "spam", "ann"), ("a", "spam", "bob"))
    assert merged.frame.values.tolist() == [["b", "ham"], ["a", "spam"]]
    merged = merge(source, ("a", "spam", "ann"))
    assert merged.frame.values.tolist() == [["b", "ham"], ["a", "spam"]]
    assert merged.conflicts == ({"input": "a", "labels": "ham: the source; spam: ann", "taken": "spam"},)
    assert merged.facts["replaced"] == 5


def test_rows_with_equal_inputs_stay_where_they_are_different_cases() -> None:
    source = pd.DataFrame({"x": [1, 1, 1, 2, 2, 3], "label": ["a", "a", "b", None, "b", None]})
    rows = [({"x": 1}, "b", "ann"), ({"x": 2}, "a", "ann"), ({"x": 2}, "b", "bob"), ({"x": 2}, "a", "eve")]
    merged = merge(source, *rows, text=(), features=("x",), unique=False)
    expected = pd.DataFrame({"x": [1, 1, 1, 2, 3, 1, 2], "label": ["a", "a", "b", "b", None, "b", "a"]})
    pd.testing.assert_frame_equal(merged.frame.reset_index(drop=True), expected)
    assert merged.frame.index[:5].tolist() == [0, 1, 2, 4, 5]
    assert merged.conflicts == ({"input": 2, "labels": "a: ann, eve; b: bob", "taken": "a"},)
    assert merged.facts["replaced"] == 1


def test_a_table_without_texts_loses_no_labelled_row_to_one_label() -> None:
    source = pd.DataFrame({"x": [n % 18 for n in range(2000)], "label": [n % 2 for n in range(2000)]})
    merged = merge(source, *(({"x": n}, 1, "ann") for n in range(19)), text=(), features=("x",), unique=False)
    assert (len(merged.frame), merged.facts["replaced"]) == (2019, 0)


def test_an_annotator_has_one_vote_on_an_input_however_its_record_was_written(source: pd.DataFrame) -> None:
    source = source.assign(n=[1, 2, 3, 4])
    rows = [({"text": "a", "n": n}, "spam", "ann", {"hash": str(n)}) for n in (1, "1", 1.0)]
    merged = merge(source, *rows, ({"text": "a", "n": 1}, "ham", "bob"), features=("n",))
    assert merged.facts == {"n": 2, "by": {"ann": 1, "bob": 1}, "conflicts": 1, "replaced": 1, "last_id": 4}
    assert labels_of(merged.frame)["a"] == "ham"  # the source and bob against ann
    rows = [({"text": "e", "n": n}, "spam", "ann", {"hash": "same"}) for n in (1, 2)]  # when n was no input yet
    assert merge(source, *rows, features=("n",)).facts["n"] == 2
    taken_back = ({"text": "e", "n": "1"}, None, "ann", {"hash": "other"})
    assert merge(source, rows[0], taken_back, features=("n",)).facts["n"] == 0


def test_what_an_annotator_said_better_later_stops_nothing(source: pd.DataFrame) -> None:
    retracted = ({"text": "e", "n": "x"}, "ham", "ann"), ({"text": "e"}, None, "ann", {"retracts": 1})
    merged = merge(source.assign(n=[1, 2, 3, 4]), *retracted, ({"text": "f", "n": 5}, "ham", "ann"))
    assert merged.frame["n"].tolist() == [1, 2, 3, 4, 5]
    assert merged.frame["n"].dtype == "int64"


def test_conflicts_show_plain_values() -> None:
    source = pd.DataFrame({"x": [9.0, 8.0], "y": pd.to_datetime(["2026-11-20", "2026-11-21"]), "label": [0, 1]})
    rows = [({"x": 9, "y": "2026-11-20"}, 1, "ann"), ({"x": 9, "y": "2026-11-20"}, 1, "bob")]
    both = merge(source, *rows, text=(), features=("x", "y")).conflicts
    shown = "{'x': 9.0, 'y': '2026-11-20T00:00:00'}"
    assert [(str(c["input"]), c["labels"], repr(c["taken"])) for c in both] == [
        (shown, "0: the source; 1: ann, bob", "1")
    ]
    (one,) = merge(source.drop(columns="y"), *rows, text=(), features=("x",)).conflicts
    assert repr(one["input"]) == "9.0"


@pytest.mark.parametrize(
    ("dtype", "written", "expected"),
    [
        ("datetime64[us]", "2026-11-21T10:00:00+02:00", pd.Timestamp("2026-11-21T08:00")),
        ("datetime64[us]", "2026-11-21", pd.Timestamp("2026-11-21")),
        ("datetime64[us, Europe/Berlin]", "2026-11-21T10:00:00", pd.Timestamp("2026-11-21T11:00", tz="Europe/Berlin")),
        ("datetime64[us, UTC]", "2026-11-21T10:00:00+02:00", pd.Timestamp("2026-11-21T08:00Z")),
    ],
)
def test_times_take_the_zone_of_the_column(source: pd.DataFrame, dtype: str, written: str, expected: object) -> None:
    times = pd.DatetimeIndex(["2026-11-20"] * 4, dtype=dtype)
    merged = merge(source.assign(time=times), ({"text": "e", "time": written}, "ham", "ann"))
    assert merged.frame["time"].dtype == dtype
    assert merged.frame["time"].iloc[-1] == expected


def test_inputs_are_told_apart_by_all_their_columns() -> None:
    source = pd.DataFrame({"text": ["a", "a", None], "n": [1, 2, 3], "label": ["ham", "ham", "ham"]})
    rows = [({"text": "a", "n": 2}, "spam", "ann"), ({"text": "", "n": 3.0}, "spam", "ann")]
    merged = merge(source, *rows, features=("n",))
    assert merged.frame[["n", "label"]].values.tolist() == [[1, "ham"], [2, "spam"], [3, "spam"]]
    assert [conflict["input"] for conflict in merged.conflicts] == [{"text": "a", "n": 2}, {"text": "", "n": 3}]


def test_labels_that_the_model_asked_for_only_train_it(source: pd.DataFrame) -> None:
    active, other = {"strategy": "uncertainty"}, {"strategy": "disagreement"}
    merged = merge(
        source,
        ("a", "ham", "ann", active),  # labelled in the source, too
        ("e", "ham", "ann", active),
        ("f", "ham", "ann", active),  # also drawn at random
        ("f", "ham", "bob"),
        ("g", "ham", "ann", other),
        ("h", "ham", "ann", {"strategy": "given"}),
    )
    assert merged.chosen == set(hash_rows(pd.DataFrame({"text": ["e", "g"]}), ["text"]))


def test_values_take_the_types_of_the_source() -> None:
    record = {"text": "a", "whole": 1, "real": 2.5, "yes": True, "day": "2026-11-20", "time": "2026-11-20T10:00:00Z"}
    source = pd.DataFrame([record, record | {"text": "b"}]).assign(label=[0, 1])
    source = source.astype({"whole": "int8", "real": "float32", "day": "datetime64[s]", "time": "datetime64[us, UTC]"})
    written = {"text": "c", "whole": "7", "real": "0.5", "yes": "false", "day": "2026-11-21", "extra": "not taken"}
    merged = merge(source, (written | {"time": "2026-11-21T10:00:00+00:00"}, "1", "ann"))
    pd.testing.assert_series_equal(merged.frame.dtypes, source.dtypes)
    day, time = pd.Timestamp("2026-11-21"), pd.Timestamp("2026-11-21T10:00Z")
    assert merged.frame.iloc[-1].tolist() == ["c", 7, 0.5, False, day, time, 1]


def test_numbers_become_text_where_the_source_has_text(source: pd.DataFrame) -> None:
    merged = merge(source.assign(label=["1", "2", "1", "2"]), ("e", 1, "ann"))
    assert labels_of(merged.frame) == {"a": "1", "b": "2", "c": "1", "d": "2", "e": "1"}


def test_what_a_record_lacks_is_missing(source: pd.DataFrame) -> None:
    merged = merge(source.assign(n=[1, 2, 3, 4]), ("e", "ham", "ann"))
    np.testing.assert_array_equal(merged.frame["n"], [1, 2, 3, 4, np.nan])


@pytest.mark.parametrize(
    ("column", "dtype", "wrong"),
    [([1, 2], "int64", 1.5), ([1, 2], "int64", "one"), ([1, 2], "int8", 300), ([1.5, 2], "float64", "x"),
     ([True, False], "bool", "perhaps"), (["2026-11-20", "2026-11-21"], "datetime64[us]", "soon")],
)  # fmt: skip
def test_a_value_that_cannot_be_cast_is_told(column: list, dtype: str, wrong: object) -> None:
    x = pd.Series(column).astype(dtype)
    with pytest.raises(DataError) as caught:
        merge(
            pd.DataFrame({"text": ["a", "b"], "x": x, "label": ["ham", "spam"]}),
            ("c", "ham", "ann"),
            ({"text": "d", "x": wrong}, "ham", "ann"),
        )
    said = f"column 'x': {dtype} is expected, but 1 values are not, e.g. {wrong!r} (annotations 2)"
    assert str(caught.value) == f"1 problem in the annotations: {said}. {RETRACT}"


def test_all_values_that_cannot_be_cast_are_told_at_once() -> None:
    source = pd.DataFrame({"text": ["a", "b"], "n": [1, 2], "label": [0, 1]})
    with pytest.raises(DataError) as caught:
        merge(source, ({"text": "c", "n": "x"}, "ham", "ann"), ({"text": "d", "n": "y"}, 1, "ann"))
    n = "column 'n': int64 is expected, but 2 values are not, e.g. 'x' (annotations 1, 2)"
    label = "column 'label': int64 is expected, but 1 values are not, e.g. 'ham' (annotations 1)"
    assert str(caught.value) == f"2 problems in the annotations: {n}; {label}. {RETRACT}"


def test_a_table_that_breaks_its_contract_is_left_for_the_check_to_tell(source: pd.DataFrame) -> None:
    for broken in (source.drop(columns="text"), pd.concat([source, source], axis="columns")):
        pd.testing.assert_frame_equal(merge(broken, ("a", "ham", "ann")).frame, broken)


def test_the_rows_of_a_file_become_examples_with_their_labels() -> None:
    frame = pd.DataFrame({"text": ["a", " ", "b"], "day": pd.to_datetime(["2026-11-20", None, None], format="ISO8601")})
    rows, empty = read_examples(frame.assign(label=[1, 1, None]), text=["text"], features=[], ignore=[], label="label")
    day = "2026-11-20T00:00:00"
    assert rows["record"].tolist() == [{"text": "a", "day": day}, {"text": "b", "day": None}]
    assert rows["hash"].tolist() == hash_rows(frame, ["text"])[[0, 2]].tolist()
    assert (rows["label"].tolist()[0], rows["label"].isna().tolist(), empty) == (1, [False, True], 1)


def test_a_file_is_checked_against_the_newest_data_as_a_whole() -> None:
    like = pd.DataFrame({"text": ["a", "b"], "n": [1, 2], "label": [0, 1], "_part": ["train", "test"]})
    file = pd.DataFrame({"txt": ["a", "b", "c"], "n": ["1", "x", "y"], "label": ["1", "ham", " "], "more": [1, 2, 3]})
    with pytest.raises(DataError) as caught:
        check_examples(file, like, inputs=["text", "n"], label="label", classes=["0", "1"])
    text = "column 'text' is missing. Did you mean 'txt'?"
    n = "column 'n': int64 is expected, but 2 values are not, e.g. 'x' (rows 1, 2)"
    label = "column 'label': int64 is expected, but 1 values are not, e.g. 'ham' (rows 1)"
    step = "Nothing was added: correct it, then add it again"
    assert str(caught.value) == f"3 problems in the file: {text}; {n}; {label}. {step}"


def test_labels_that_are_no_class_yet_are_counted() -> None:
    like = pd.DataFrame({"text": ["a", "b"], "label": [0.0, 1.0]})
    file = pd.DataFrame({"text": list("abcde"), "label": ["1", 2, "2.0", None, 0.0]})
    about = {"inputs": ["text"], "label": "label"}
    assert check_examples(file, like, **about, classes=["0.0", "1.0"]) == {"2.0": 2}
    assert check_examples(file, like, **about, classes=[]) == {}  # a regression
    assert check_examples(file[["text"]], like, **about, classes=["0.0", "1.0"]) == {}


def test_without_named_inputs_all_columns_but_the_label_are_the_input() -> None:
    frame = pd.DataFrame({"x": [1], "y": ["a"], "later": [2], "label": ["ham"]})
    rows, _ = read_examples(frame, text=[], features=[], ignore=["later"], label="label")
    assert rows["hash"].tolist() == hash_rows(frame, ["x", "y"]).tolist()
    assert rows["record"].tolist() == [{"x": 1, "y": "a", "later": 2}]


def test_only_what_is_news_of_an_annotator_is_a_new_label() -> None:
    frame = pd.DataFrame({"text": ["a", "b", "c", "d", "b"], "label": ["ham", "ham", "ham", None, "ham"]})
    rows, _ = read_examples(frame, text=["text"], features=[], ignore=[], label="label")
    a, b, c = rows["hash"][:3]
    before = said(("a", "ham", "ann", {"hash": a}), ("b", "spam", "ann", {"hash": b}), ("c", "ham", "bob", {"hash": c}))
    fresh = find_new_labels(rows, before, annotator="ann")
    assert fresh["hash"].tolist() == [b, c]
    assert fresh["key"].tolist() == [f"given:ann:3:{b}", f"given:ann:3:{c}"]


def annotate(workplace: "Workplace", rows: str, annotator: str) -> str:
    (workplace.root / "new.csv").write_text(f"text,label\n{rows}")
    return workplace.pinmill("examples", "add", "tiny", "new.csv", "--annotator", annotator).stdout


def outputs_of(workplace: "Workplace", run: dict) -> str:
    """All Markdown that the executed 01-prepare of a run shows."""
    (prepare,) = [stage for stage in run["stages"] if stage["notebook"] == "01-prepare"]
    cells = json.loads((workplace.root / prepare["executed"]).read_text())["cells"]
    outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    return "\n".join("".join(output.get("data", {}).get("text/markdown", "")) for output in outputs)


def test_labels_go_from_a_file_into_the_next_run_and_then_nothing_is_new(trained: "Workplace") -> None:
    first = trained.json("runs", "tiny")[0]
    assert "There are no annotations" in outputs_of(trained, first)
    added = annotate(trained, "a new text,spam\nsee you at lunch tomorrow number 1,spam\nno label yet,\n", "ann")
    assert added.splitlines() == [
        "tiny: 3 examples added, 0 known already, 0 without an input left out",
        "tiny: 2 labels by ann added, 0 known already",
    ]
    annotate(trained, "a new text,ham\n", "bob")
    assert (
        annotate(trained, "a new text,ham\n", "bob").splitlines()[1] == "tiny: 0 labels by bob added, 1 known already"
    )
    unsure = [f"the model is unsure of number {number}" for number in range(20)]
    given = [Annotation(text, {"text": text}, "spam", text, "uncertainty") for text in unsure]
    Store(trained.root / "outputs" / "pinmill.sqlite").add_annotations("tiny", given, annotator="eve", when=NOON)

    done = trained.pinmill("run", "tiny", "--explain", code=None)
    assert "01-prepare (1/4) runs: the annotations\n" in done.stderr
    run = trained.json("runs", "tiny")[0]
    assert [stage["status"] for stage in run["stages"]][:2] == ["ran", "ran"]
    board = Board(trained.root / "outputs" / "pins")
    pin = board.pin("tiny-data")
    assert pin.facts["annotations"] == {
        "n": 23,
        "by": {"eve": 20, "ann": 2, "bob": 1},
        "conflicts": 2,
        "replaced": 1,
        "last_id": 23,
    }
    assert {"kind": "annotations", "name": "tiny", "version": "23", "sha256": None} in pin.lineage["inputs"]
    data = board.read_table(pin)
    assert len(data) == 261
    active = data[data["text"].isin(unsure)]
    assert active["_part"].tolist() == ["train"] * 20
    assert "test" in split_by_hash(active["_hash"], test_fraction=0.2, seed=42).tolist()  # where they would have gone
    taken = dict(zip(data["text"], data["label"], strict=True))
    assert (taken["a new text"], taken["see you at lunch tomorrow number 1"]) == ("ham", "spam")
    shown = outputs_of(trained, run)
    assert "2 inputs have labels that differ" in shown
    assert "| a new text | spam&#58; ann; ham&#58; bob | ham |" in shown

    again = trained.pinmill("run", "tiny", code=None)
    assert "nothing changed, so nothing ran" in again.stdout
    assert trained.json("annotations", "tiny")["conflicts"] == 1


def test_a_run_looks_for_annotations_of_its_workflow_without_loading_sqlalchemy(small_trained: "Workplace") -> None:
    command = [sys.executable, "-X", "importtime", str(Path(sys.executable).with_name("pinmill")), "run", "small"]

    def run() -> tuple[str, bool]:
        done = subprocess.run(
            command, cwd=small_trained.root, env=small_trained.environ(), capture_output=True, text=True, timeout=300
        )
        assert " pinmill.freshness\n" in done.stderr
        return done.stdout, " sqlalchemy\n" in done.stderr

    assert "nothing ran" in run()[0]
    store = Store(small_trained.root / "outputs" / "pinmill.sqlite")
    label = Annotation("h", {}, 1, "k", "random")
    store.add_annotations("another", [label], annotator="ann", when=NOON)
    for said, loaded in (run(), run()):
        assert "nothing changed, so nothing ran" in said
        assert not loaded
    store.add_annotations("small", [label], annotator="ann", when=NOON)
    for expected in ("ran 01-prepare)", "nothing changed, so nothing ran"):
        said, loaded = run()
        assert expected in said
        assert not loaded


def test_labels_are_exported_as_they_are(trained: "Workplace") -> None:
    annotate(trained, '"=1+1, he said",spam\nb,ham\n', "ann")
    for name, read in [("a.csv", pd.read_csv), ("a.parquet", pd.read_parquet), ("a.jsonl", read_lines)]:
        trained.pinmill("annotations", "tiny", "--export", name)
        frame = read(trained.root / name)
        assert frame.columns.tolist() == ["id", "text", "label", "annotator", "created", "seconds", "note", "strategy"]
        rows = frame[["id", "text", "label", "annotator", "strategy"]].values.tolist()
        assert rows == [[1, "=1+1, he said", "spam", "ann", "given"], [2, "b", "ham", "ann", "given"]]
    assert (trained.root / "a.csv").read_text().splitlines()[1].startswith('1,"=1+1, he said",spam,ann,2')
    done = trained.pinmill("annotations", "tiny", "--export", "a.xls", code=4)
    assert "its suffix must be .csv, .parquet, .jsonl" in done.stderr
    assert not (trained.root / "a.xls").exists()


def read_lines(path: Path) -> pd.DataFrame:
    return pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("txt,label\na,ham\n", "1 problem in the table: column 'text' is missing. Did you mean 'txt'?"),
        ("text,label\na,ham\na,spam\n", "1 inputs have another label than in an earlier row (row 1). Choose one"),
    ],
)
def test_a_file_with_something_wrong_adds_nothing(workplace: "Workplace", rows: str, said: str) -> None:
    (workplace.root / "new.csv").write_text(rows)
    assert said.removesuffix(".") in workplace.pinmill("examples", "add", "tiny", "new.csv", code=4).stderr
    assert not (workplace.root / "outputs" / "pinmill.sqlite").exists()
    assert workplace.json("annotations", "tiny") == {"annotators": [], "conflicts": 0}
    assert not (workplace.root / "outputs" / "pinmill.sqlite").exists()


def test_a_file_that_does_not_fit_the_newest_data_adds_nothing(trained: "Workplace") -> None:
    (trained.root / "new.csv").write_text("Text,label\na,ham\n")
    said = trained.pinmill("examples", "add", "tiny", "new.csv", code=4).stderr
    assert "1 problem in the file: column 'text' is missing. Did you mean 'Text'" in said
    assert not (trained.root / "outputs" / "pinmill.sqlite").exists()


def test_labels_of_a_new_class_are_told_and_can_be_retracted(trained: "Workplace") -> None:
    (trained.root / "new.csv").write_text("text,label\na,Spam\nb,ham\nc,Spam\n")
    said = trained.pinmill("examples", "add", "tiny", "new.csv", "--annotator", "ann").stderr.splitlines()
    assert said == [
        "warning: 2 labels are 'Spam', a class of its own that tiny-data does not have. Did you mean 'spam'?",
        "To take them back, see their ids with --export, then: pinmill annotations tiny --retract ID",
    ]
    done = trained.pinmill("annotations", "tiny", "--retract", "1", "--retract", "4", code=4)
    assert "tiny has no label of id 4; nothing was retracted" in done.stderr
    (counts,) = trained.json("annotations", "tiny")["annotators"]
    assert counts["labels"] == {"Spam": 2, "ham": 1}
    done = trained.pinmill("annotations", "tiny", "--retract", "1", "--retract", "3", "--json")
    assert done.stderr == "tiny: label 1 retracted: 'Spam' by ann\ntiny: label 3 retracted: 'Spam' by ann\n"
    (counts,) = json.loads(done.stdout)["annotators"]
    assert counts["labels"] == {"ham": 1}
    rows = Store(trained.root / "outputs" / "pinmill.sqlite").read_annotations("tiny")
    assert rows[["retracts", "annotator"]].values.tolist()[3:] == [[1, getpass.getuser()], [3, getpass.getuser()]]


def test_rows_of_the_source_without_a_label_wait_for_a_person(workplace: "Workplace") -> None:
    with (workplace.root / "tiny.csv").open("a") as file:
        file.write("is this  one spam,\nand this one,\nis this one spam,\n")
    workplace.params((workplace.root / "params/tiny.yaml").read_text() + "drop_unlabelled: true\n")
    command = [sys.executable, "-m", "papermill", "--cwd", ".", "notebooks/01-prepare.ipynb", "out.ipynb"]
    for _ in range(2):  # also when it runs again
        command_done = subprocess.run([*command, "-p", "workflow", "tiny"], cwd=workplace.root, capture_output=True)
        assert command_done.returncode == 0, command_done.stderr.decode()
    waiting = Store(workplace.root / "outputs/pinmill.sqlite").read_examples("tiny")
    assert waiting["record"].tolist() == [{"text": "is this one spam"}, {"text": "and this one"}]
    assert set(waiting["origin"]) == {"the source"}
    board = Board(workplace.root / "outputs/pins")
    assert board.pin("tiny-data").facts["dropped"]["no label"] == 3
