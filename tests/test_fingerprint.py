"""Fingerprints: what a stage's result depends on, and what of it changed."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pinmill import fingerprint
from pinmill.fingerprint import (
    digest_parts,
    explain_difference,
    hash_modules,
    name_modules,
    read_parts,
    read_result,
    write_result,
)
from pinmill.notebook import Stage, parse_declarations
from pinmill.runs import StageRecord

CELL = "seed: int = 42  # seed\nmodel: dict = {}  # hyperparameters\n"
STAGE = Stage(
    "train", Path("02-train.ipynb"), "Train", "train", ("data",), ("model",), parse_declarations(CELL), ("fit()",)
)
WORKFLOW = {"seed": 42, "model": {"C": 4}, "title": "Spam", "cv": 3}


def take(stage: Stage = STAGE, **changed) -> dict[str, Any]:
    given = {"parameters": WORKFLOW, "inputs": {"data": "d" * 64}, "lock": "l" * 64, "outside": ""}
    return read_parts(stage, **(given | changed))


RESULT = StageRecord(
    "train", "02-train", "ran", why=("forced",), fingerprint="abc", parts=take() | {"modules": {"pinmill": "0" * 64}},
    outputs={"model": {"name": "w-model", "version": "v", "sha256": "s"}}, seconds=1.5,
    executed="outputs/runs/w/r1/02-train.ipynb", run="r1",
)  # fmt: skip


def test_the_parts_hold_what_the_stage_takes_and_nothing_else() -> None:
    assert take() == {
        "code": hashlib.sha256(b"fit()").hexdigest(), "parameters": {"seed": 42, "model": {"C": 4}},
        "inputs": {"data": "d" * 64}, "lock": "l" * 64, "outside": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [
        {"stage": replace(STAGE, code=("fit(1)",))},
        {"parameters": WORKFLOW | {"seed": 43}},
        {"parameters": WORKFLOW | {"seed": "42"}},
        {"parameters": WORKFLOW | {"model": {"C": 4, "penalty": "l1"}}},
        {"inputs": {"data": "e" * 64}},
        {"inputs": {"other": "d" * 64}},
        {"lock": ""},
        {"outside": "sha256:1"},
        {"outside": None},
    ],
)
def test_each_part_changes_the_digest(changed: dict) -> None:
    assert digest_parts(take(**changed)) != digest_parts(take())


@pytest.mark.parametrize(
    "changed",
    [
        {"parameters": WORKFLOW | {"title": "Other", "cv": 9}},  # the stage does not take these
        {"parameters": dict(reversed(WORKFLOW.items()))},
        {"stage": replace(STAGE, title="Other", path=Path("other.ipynb"))},
    ],
)
def test_what_the_stage_does_not_depend_on_leaves_the_digest(changed: dict) -> None:
    assert digest_parts(take(**changed)) == digest_parts(take())


def test_modules_are_known_only_afterwards_so_the_digest_leaves_them_out() -> None:
    assert digest_parts(take() | {"modules": {"pinmill": "1"}}) == digest_parts(take())


def test_modules_are_hashed_by_their_source_and_a_gone_one_is_empty(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path)
    (tmp_path / "__init__.py").write_bytes(b"")
    (tmp_path / "board.py").write_bytes(b"abc")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # FIPS 180-2, ""
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, "abc"
    (tmp_path / "project").mkdir()
    (tmp_path / "project/own.py").write_bytes(b"abc")
    names = ["pinmill.gone", "pinmill.board", "pinmill", "own.py", "parts/gone.py"]
    assert hash_modules(names, tmp_path / "project") == {
        "own.py": abc, "parts/gone.py": "", "pinmill": empty, "pinmill.board": abc, "pinmill.gone": "",
    }  # fmt: skip


def test_the_projects_own_modules_are_named_by_their_paths_and_what_is_installed_is_not() -> None:
    files = {
        "pinmill": "/p/lib/pinmill/__init__.py", "pinmill.board": "/p/lib/pinmill/board.py", "sys": "None",
        "own": "/p/own.py", "parts.words": "/p/parts/words.py", "fast": "/p/fast.so", "other": "/project/other.py",
        "numpy": "/p/venv/lib/python3.11/site-packages/numpy/__init__.py", "json": "/p/env/lib/python3.11/json.py",
        "pandas": "/p/.venv/lib/pandas.py", "__main__": "None",
    }  # fmt: skip
    assert sorted(name_modules(files, Path("/p"))) == ["own.py", "parts/words.py", "pinmill", "pinmill.board"]


def test_a_result_is_found_by_its_fingerprint_and_as_the_latest(tmp_path: Path) -> None:
    write_result(tmp_path, RESULT)
    assert read_result(tmp_path, STAGE, "abc") == RESULT
    assert read_result(tmp_path, STAGE, "latest") == RESULT
    assert read_result(tmp_path, STAGE, "abd") is None
    assert read_result(tmp_path, replace(STAGE, name="other"), "latest") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "{}", '{"run": "r"}', '{"unknown": 1}', '{"why": 3}'])
def test_a_damaged_result_is_none_so_that_the_stage_runs_again(tmp_path: Path, text: str) -> None:
    write_result(tmp_path, RESULT)
    (tmp_path / "stages" / "train" / "abc.json").write_text(text)
    assert read_result(tmp_path, STAGE, "abc") is None


def test_a_result_that_is_not_text_is_none(tmp_path: Path) -> None:
    write_result(tmp_path, RESULT)
    (tmp_path / "stages" / "train" / "abc.json").write_bytes(b"\xff\xfe\x00")
    assert read_result(tmp_path, STAGE, "abc") is None


def test_every_part_that_changed_is_named() -> None:
    before = take() | {"modules": {"pinmill.board": "1", "pinmill.model": "1"}}
    changed = {"parameters": WORKFLOW | {"seed": 43}, "inputs": {"data": "e"}, "lock": "", "outside": "x"}
    now = take(replace(STAGE, code=("fit(1)",)), **changed) | {"modules": {"pinmill.board": "2", "pinmill.model": "1"}}
    assert explain_difference(before, now) == [
        "the notebook's code", "requirements.lock", "the source", "parameter seed 42 → 43", "input data",
        "module pinmill.board",
    ]  # fmt: skip
    assert explain_difference(before, before) == []


def test_a_parameter_that_is_new_or_gone_is_named_with_its_value() -> None:
    assert explain_difference({"parameters": {"a": 1}}, {"parameters": {"b": "x"}}) == [
        "parameter a 1 → None", "parameter b None → 'x'",
    ]  # fmt: skip
