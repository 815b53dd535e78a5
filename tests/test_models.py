"""Every candidate of a workflow: how it did, what became of it, what changed since the one before."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pinmill.board import Board
from pinmill.champion import promote, rollback
from pinmill.errors import ChampionError, PinNotFoundError
from pinmill.models import describe_changes, find_model, list_models

WHEN = datetime(2024, 5, 6, tzinfo=UTC)
SAID = {"by": "ada", "why": "better", "when": WHEN}
DATA = {"kind": "data", "name": "w-data", "version": "v", "sha256": "d1"}
SHORT = [
    {"version": "20240101T000000Z-0aaaa"},
    {"version": "20240102T000000Z-0aabb"},
    {"version": "20250101T000000Z-0zaaa"},
]


def lineage(run: str, *, data: str = "d1", **parameters) -> dict:
    return {
        "run": run,
        "by": "ada",
        "inputs": [DATA | {"sha256": data}],
        "parameters": parameters,
        "code": "c",
        "lock": "l",
    }


def write_model(board: Board, content: str, *, passed: bool | None, **known) -> str:
    """A model version and, unless `passed` is None, the gate's decision about it."""
    pin = board.write_file("w-model", content.encode(), file_name="m.skops", facts={}, lineage=lineage(**known))
    if passed is not None:
        facts = {"candidate_sha256": pin.sha256, "passed": passed, "reasons": ["f1 0.9"],
                 "headline": {"f1": {"value": 0.9, "low": 0.8, "high": 1.0}}}  # fmt: skip
        board.write_json("w-metrics", content, facts=facts, lineage={"run": known["run"]})
    return pin.version


def test_every_candidate_is_listed_with_its_fate(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    a = write_model(board, "a", passed=True, run="r1", cv=3)
    b = write_model(board, "b", passed=True, run="r2", cv=5)
    c = write_model(board, "c", passed=False, run="r3", cv=5, data="d2")
    d = write_model(board, "d", passed=None, run="r4", cv=5, data="d2")
    e = write_model(board, "e", passed=True, run="r5", cv=5, data="d2")
    promote(board, "w", a, **SAID, expected=None, gate=True)
    promote(board, "w", b, **SAID, expected=a, gate=True)
    promote(board, "w", e, **SAID, expected=b, gate=True)
    rollback(board, "w", **SAID)
    models = list_models(board, "w")
    assert [(m["version"], m["status"], m["gate"], m["run"], m["changed"]) for m in models] == [
        (a, "former champion", True, "r1", []),
        (b, "champion", True, "r2", ["cv 3 → 5"]),
        (c, "rejected", False, "r3", ["data"]),
        (d, "not evaluated", None, "r4", []),
        (e, "held", True, "r5", []),
    ]
    assert models[0]["metrics"] == {"f1": {"value": 0.9, "low": 0.8, "high": 1.0}}
    assert (models[0]["reasons"], models[3]["reasons"], models[3]["metrics"]) == (["f1 0.9"], [], {})
    pin = board.pin("w-model", a)
    assert (models[0]["by"], models[0]["sha256"], models[0]["created"]) == ("ada", pin.sha256, pin.created.isoformat())


def test_a_candidate_that_passed_and_was_not_promoted_says_so(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    write_model(board, "a", passed=True, run="r1")
    assert [model["status"] for model in list_models(board, "w")] == ["passed"]


def test_the_newest_decision_about_a_model_counts(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    write_model(board, "a", passed=True, run="r1")
    facts = {"candidate_sha256": board.pin("w-model").sha256, "passed": False, "reasons": ["worse"], "headline": {}}
    board.write_json("w-metrics", 2, facts=facts, lineage={})
    assert [(m["status"], m["reasons"]) for m in list_models(board, "w")] == [("rejected", ["worse"])]


def test_without_a_model_the_error_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(PinNotFoundError, match=r"w has no model yet. Train one with: pinmill run w"):
        list_models(Board(tmp_path / "pins"), "w")


def test_changes_are_named_part_by_part() -> None:
    before = {"parameters": {"cv": 3, "seed": 1, "old": 0}, "inputs": [DATA], "code": "c", "lock": "l"}
    now = {
        "parameters": {"cv": 5, "seed": 1, "new": "x"},
        "inputs": [DATA | {"sha256": "d2"}],
        "code": "d",
        "lock": "m",
    }
    assert describe_changes(before, now) == [
        "cv 3 → 5", "new None → 'x'", "old 0 → None", "data", "notebook", "requirements.lock",
    ]  # fmt: skip
    assert describe_changes(before, before) == describe_changes(None, now) == []
    assert describe_changes({}, {}) == []


@pytest.mark.parametrize(
    ("given", "position"),
    [("20240101T000000Z-0aaaa", 0), ("0aabb", 1), ("20240102", 1), ("2025", 2), ("bb", 1), ("0zaaa", 2)],
)
def test_a_unique_end_or_beginning_of_a_version_is_enough(given: str, position: int) -> None:
    assert find_model(SHORT, given) == SHORT[position]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("aaa", "2 models have version 'aaa'"),
        ("2024", "2 models have version '2024'"),
        ("T000000Z", "no model has version 'T000000Z'"),
        (
            "20240101T000000Z-0aaab",
            "no model has version '20240101T000000Z-0aaab'. Did you mean '20240101T000000Z-0aaaa'?",
        ),
    ],
)
def test_a_version_that_none_or_several_have_is_refused(given: str, message: str) -> None:
    with pytest.raises(ChampionError) as caught:
        find_model(SHORT, given)
    assert str(caught.value).startswith(message)


def test_an_empty_version_is_none_though_there_is_only_one_model() -> None:
    with pytest.raises(ChampionError):
        find_model(SHORT[:1], "")


def test_a_damaged_version_is_listed_and_hides_no_other(trained) -> None:
    folder = trained.root / "outputs/pins/tiny-model"
    trained.pinmill("run", "tiny", "--set", "model={logisticregression__C: 1}", code=None)
    old, new = sorted(version.name for version in folder.iterdir())
    (folder / old / "data.txt").write_text("not what was written")
    assert next((model["version"], model["status"]) for model in trained.json("models", "tiny")) == (old, "damaged")
    assert new in trained.pinmill("models", "tiny").stdout
    assert {pin["name"]: pin["type"] for pin in trained.json("pins")}["tiny-model"] == "file"
