"""What people may say of an input, and what an input is: a workflow's label set, and the reader of its rows."""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from sys import float_info
from typing import Any

from pinmill.board import Board
from pinmill.champion import read_champion
from pinmill.errors import did_you_mean
from pinmill.pin import Pin
from pinmill.project import Project
from pinmill.rows import UNKNOWN, RowError, hash_input, make_checker
from pinmill.store import STRATEGIES

HASH = re.compile(r"[0-9a-f]{32}")
LONGEST_KEY, LONGEST_NOTE = 200, 2000  # characters
WORDS = {"True": True, "False": False}  # how the facts of a data pin write labels of this type
TEXT = {"type": "text", "dtype": "str", "nullable": False, "examples": []}  # a column as the first model will have it


def read_reference(board: Board, workflow: str) -> Pin | None:
    """The model that tells labels and inputs: the champion, without one the newest; None where none was trained."""
    name, champion = f"{workflow}-model", read_champion(board, workflow)
    version = champion.version if champion else next(reversed(board.versions(name)), None)
    return board.pin(name, version) if version else None


def read_label_set(project: Project, workflow: str, values: Mapping[str, Any]) -> list[Any] | None:
    """The labels that people may give, each in its own type; None where they give amounts, empty if none are known.

    They are the parameter `labels` in `values`, else the classes of the champion, of a model, or of the newest data.
    """
    if values.get("labels"):
        return [*values["labels"]]
    model, data = read_reference(project.board, workflow), f"{workflow}-data"
    if model:
        return None if model.facts["task"] == "regression" else [*model.facts["classes"]]
    there = project.board.pin(data).facts if project.board.versions(data) else values
    return None if there.get("task") == "regression" else _read_types([*there.get("classes", ())])


def _read_types(names: list[str]) -> list[Any]:
    """Labels that are written as texts, in their own type: all whole numbers, all booleans, or texts."""
    if names and {*names} <= {*WORDS}:
        return [WORDS[name] for name in names]
    return [int(name) for name in names] if all(re.fullmatch(r"0|-?[1-9]\d*", name) for name in names) else names


def find_label(value: Any, labels: Sequence[Any]) -> Any:
    """The one of `labels` that a JSON value is: 1 and 1.0 are the same; 1, "1" and true are not. None if it is none."""
    return next((each for each in labels if each == value and isinstance(each, bool) == isinstance(value, bool)), None)


def check_label(value: Any, labels: Sequence[Any] | None) -> str:
    """What is wrong with a label, in words, where `labels` (None: amounts) are right; empty when nothing is."""
    shown = json.dumps(value)[:60]
    if value is None:
        return "is missing; to take no side, skip the example"
    if labels is None:
        is_amount = type(value) in (int, float) and abs(value) <= float_info.max
        return "" if is_amount else f"{shown} is no amount: a number was expected"
    if not labels:
        return (
            "cannot be checked, as no labels are known yet: write those of the workflow in its params, as labels: […]"
        )
    texts = [label for label in labels if isinstance(label, str)]
    listed = ", ".join(json.dumps(label, ensure_ascii=False) for label in labels[:20])
    wrong = f"{shown} is no label: one of {listed} was expected.{did_you_mean(shown[1:-1], texts)}"
    return wrong.removesuffix(".") if find_label(value, labels) is None else ""


def read_prototype(project: Project, workflow: str, *, texts: Sequence[str]) -> Mapping[str, Mapping] | None:
    """The input columns: those of `read_reference`, else `texts`, where these are all; None if nothing tells them."""
    model = read_reference(project.board, workflow)
    return model.facts["prototype"] if model else dict.fromkeys(texts, TEXT) or None


def make_reader(prototype: Mapping[str, Mapping], extra: Collection[str]) -> Callable[[Any], tuple[str, dict]]:
    """The function from a row to (hash of its input, its record); it raises RowError with all violations of the row.

    A row is as `rows.make_checker` takes it. Its record keeps the values as they came, and those of the columns
    `extra`, which are no input; other columns are violations.
    """
    check, others = make_checker(prototype), [name for name in extra if name not in prototype]

    def read(row: Any) -> tuple[str, dict[str, Any]]:
        """The hash and the record of a row."""
        if not isinstance(row, dict):
            return hash_input(check(row)), dict.fromkeys(prototype, row)  # it passes as the text of the only column
        problems, canonical = [], ""
        try:
            canonical = check({name: value for name, value in row.items() if name not in others})
        except RowError as error:
            problems = [*error.problems]
        odd = [name for name in others if name in row and not is_plain(row[name])]
        problems += [(name, "is neither a text nor a number, boolean or null") for name in odd]
        if problems:
            raise RowError(problems, [*prototype, *others])
        return hash_input(canonical), {**row}

    return read


def is_plain(value: Any) -> bool:
    """Whether a JSON value is a text that UTF-8 can hold, a finite number, a boolean or null."""
    if isinstance(value, str):
        return value.isascii() or value.encode(errors="ignore").decode() == value
    return value is None or (isinstance(value, int | float) and abs(value) <= float_info.max)


def is_text(value: Any, most: int, least: int = 0) -> bool:
    """Whether it is a text of so many characters that a database can hold."""
    return isinstance(value, str) and least <= len(value) <= most and "\0" not in value and is_plain(value)


FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {  # of an annotation but its label: a check, and in words
    "id": (lambda value: isinstance(value, str), "the id of an example"),
    "text": (lambda value: isinstance(value, str), "a text"),
    "record": (lambda value: isinstance(value, dict), "an object with the columns"),
    "seconds": (lambda value: type(value) in (int, float) and 0 <= value <= float_info.max, "a number, 0 or more"),
    "note": (lambda value: is_text(value, LONGEST_NOTE), f"a text of at most {LONGEST_NOTE:,} characters"),
    "key": (lambda value: is_text(value, LONGEST_KEY, 1), f"a text of 1 to {LONGEST_KEY} characters"),
    "strategy": (lambda value: value in STRATEGIES, f"one of {', '.join(STRATEGIES)}"),
}  # fmt: skip


def check_fields(given: Any, known: Collection[str]) -> list[tuple[str, str]]:
    """(field, problem) of all that is wrong with the fields, `known` ones, of an annotation or skip."""
    if not isinstance(given, dict):
        return [("", f"is no object with the fields {', '.join(known)}")]
    problems = [(name[:60].encode(errors="backslashreplace").decode(), UNKNOWN) for name in given if name not in known]
    checked = [name for name in FIELDS if name in known and given.get(name) is not None]
    return problems + [(n, f"is wrong: {FIELDS[n][1]} was expected") for n in checked if not FIELDS[n][0](given[n])]
