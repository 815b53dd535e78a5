"""The page that compares two versions: what it says of results as `read_comparison` gives them."""

import html
import json
import re
from copy import deepcopy

import pytest
from pinmill.compare import read_comparison
from pinmill.comparison import show_comparison
from pinmill.page import Page
from pinmill.project import Project
from pinmill.webpage import render_webpage

HOSTILE = '"A|B" {{< env HOME >}} <script>x</script> [y](z) 🎯 $1$ `q` :::'
A, B = "20260101T000000Z-00001", "20260102T000000Z-00002"
FOUND = {
    "workflow": "spam",
    "a": {"version": A, "status": "champion", "created": "2026-01-01T00:00:00.000001+00:00", "by": "ada", "run": "r1",
          "problems": []},
    "b": {"version": B, "status": "rejected", "created": "2026-01-02T03:04:05+00:00", "by": "bob", "run": None,
          "problems": []},
    "note": "2,985 of the 3,000 test rows of B's data are ones that neither was trained on.",
    "n": 2985,
    "metrics": [
        {"metric": "roc_auc", "a": 0.9, "b": 0.95, "difference": 0.05, "low": 0.01, "high": 0.09},
        {"metric": "f1", "a": 0.8, "b": 0.85, "difference": 0.05, "low": 0.0, "high": 0.1},
        {"metric": "log_loss", "a": 0.5, "b": 0.25, "difference": 0.25, "low": 0.125, "high": 0.375},
    ],
    "changed": {"n": 123, "rows": [{"true": "spam", "a": "ham", "b": "spam", "inputs": {"text": "win now"}},
                                   {"true": "ham", "a": "ham", "b": "spam", "inputs": {"text": "hello"}}]},
    "changes": [{"what": "seed", "before": 42, "now": 7}, {"what": "cpu", "before": "x", "now": None},
                {"what": "parameter model", "before": {}, "now": {"C": 1}},
                {"what": "code", "before": "ab" * 32, "now": "cd" * 32}],
    "data": {"added": 6, "removed": 4, "relabelled": 3},
    "diff": ["--- A", "+++ B", "@@ -1 +1 @@", "-C = 1", "+C = 2"],
}  # fmt: skip


def found(**other) -> dict:
    return {**deepcopy(FOUND), **other}


def show(**other) -> Page:
    return show_comparison(found(**other), subject="Is it spam?", made="2026-01-03 04:05")


def read_section(page: Page, title: str) -> str:
    """The Markdown below a heading, as a reader sees it."""
    (cell,) = (cell for cell in page.notebook.cells if cell.source.startswith(f"## {title}"))
    return html.unescape(cell.source.partition("\n\n")[2])


def read_rows(section: str) -> list[list[str]]:
    lines = [line for line in section.splitlines() if line.startswith("|") and not re.fullmatch(r"[|: -]+", line)]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def score(low: float | None, high: float | None) -> dict:
    return {"metric": "f1", "a": 0.5, "b": 0.5, "difference": 0.0, "low": low, "high": high}


def test_two_versions_are_shown_side_by_side() -> None:
    page = show()
    assert (page.name, page.title, page.subject) == (f"spam/compare/{A}-{B}", "Comparison", "Is it spam?")
    assert page.made == "2026-01-03 04:05"
    assert (page.subtitle, page.home) == (f"A is {A}, B is {B}", "../../index.html")
    assert html.unescape(page.lead) == (
        "B is better than A on 2 of 3 metrics, with no clear difference on 1; 123 of 2,985 predictions changed."
    )
    assert read_rows(read_section(page, "The two versions")) == [
        ["Model", "Version", "Status then", "Made", "By", "Run"],
        ["A", f"`{A}`", "champion", "2026-01-01 00:00 UTC", "ada", "r1"],
        ["B", f"`{B}`", "rejected", "2026-01-02 03:04 UTC", "bob", "—"],
    ]
    scores = read_section(page, "Scores on the same rows")
    assert read_rows(scores) == [
        ["Metric", "A", "B", "Difference", "95 % interval", "Which is better"],
        ["ROC AUC", "0.900", "0.950", "+0.0500", "+0.0100 to +0.0900", "B is better"],
        ["F1", "0.800", "0.850", "+0.0500", "+0.0000 to +0.1000", "no clear difference"],
        ["Log loss", "0.500", "0.250", "+0.2500", "+0.1250 to +0.3750", "B is better"],
    ]
    assert scores.endswith(
        "2,985 of the 3,000 test rows of B's data are ones that neither was trained on. "
        "A positive difference means that B is better; it is clear when its interval does not hold 0."
    )
    changed = read_section(page, "Changed predictions")
    assert changed.startswith("**The first 2 of 123**\n")
    assert read_rows(changed) == [
        ["True", "A", "B", "Input"],
        ["spam", "ham", "spam", "win now"],
        ["ham", "ham", "spam", "hello"],
    ]
    assert read_rows(read_section(page, "What else is not the same")) == [
        ["What", "A", "B"],
        ["seed", "42", "7"],
        ["cpu", "x", "—"],
        ["parameter model", "empty", "C: 1"],
        ["code", "`abababababab`", "`cdcdcdcdcdcd`"],
    ]
    assert [row[1] for row in read_rows(read_section(page, "Data"))[-3:]] == ["6", "4", "3"]
    assert page.notebook.cells[-1].outputs[0].data == {"text/plain": "\n".join(FOUND["diff"])}


@pytest.mark.parametrize(
    ("intervals", "said"),
    [
        ([(0.1, 0.2)], "B is better than A on 1 of 1 metric"),
        ([(-0.2, -0.1), (-0.2, -0.1)], "B is worse than A on 2 of 2 metrics"),
        ([(0.1, 0.2), (-0.2, -0.1)], "B is better than A on 1 and worse on 1 of 2 metrics"),
        ([(0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1), (None, None)],
         "B is better than A on 1 and worse on 1 of 4 metrics, with no clear difference on 2"),
        ([(0.0, 0.2), (-0.1, 0.0)], "There is no clear difference between A and B on any of 2 metrics"),
    ],
)  # fmt: skip
def test_only_a_difference_whose_interval_leaves_out_zero_counts(intervals, said) -> None:
    page = show(metrics=[score(*each) for each in intervals], changed={"n": 0, "rows": []})
    assert html.unescape(page.lead) == f"{said}; 0 of 2,985 predictions changed."
    assert read_section(page, "Changed predictions") == "None."


def test_why_nothing_was_compared_is_said_first_and_in_its_places() -> None:
    note, problem = "Not scored: the model or the data of A cannot be read.", "spam-model/x was | changed"
    damaged = {**FOUND["a"], "created": None, "by": None, "run": None, "status": "damaged", "problems": [problem]}
    page = show(a=damaged, note=note, n=0, metrics=[], changed=None, changes=[], data=None, diff=None)
    assert html.unescape(page.lead) == note
    sections = ["Scores on the same rows", "Changed predictions", "What else is not the same", "Data", "Code"]
    assert [read_section(page, title) for title in sections] == [
        note,
        "Not compared.",
        "Nothing that was recorded.",
        "Not compared: the data of one cannot be read, or its inputs are other columns.",
        "Not compared: an executed notebook cannot be read.",
    ]
    told = read_section(page, "The two versions")
    assert read_rows(told)[1] == ["A", f"`{A}`", "damaged", "—", "—", "—"]
    assert f"- A: {problem}" in told
    assert [cell.cell_type for cell in page.notebook.cells] == ["markdown"] * 6


def test_the_same_code_is_said_to_be_the_same() -> None:
    page = show(diff=[])
    assert read_section(page, "Code") == "It is the same."
    assert page.notebook.cells[-1].cell_type == "markdown"


def test_several_inputs_are_named_and_all_changed_predictions_are_shown() -> None:
    rows = [{"true": 1.5, "a": 1.25, "b": None, "inputs": {"age": "40", "job": HOSTILE}}]
    changed = read_section(show(changed={"n": 1, "rows": rows}), "Changed predictions")
    assert changed.startswith("**All 1**\n")
    assert read_rows(changed)[1] == ["1.500", "1.250", "—", f"age: 40, job: {HOSTILE}"]


def test_hostile_values_and_code_are_shown_as_they_are() -> None:
    side = {**FOUND["b"], "by": HOSTILE, "problems": [HOSTILE]}
    rows = [{"true": HOSTILE, "a": HOSTILE, "b": "x", "inputs": {HOSTILE: HOSTILE}}]
    changes = [{"what": f"parameter {HOSTILE}", "before": HOSTILE, "now": [HOSTILE]}]
    diff = [f"+{HOSTILE}", "<b>\tbold</b>", "\x1b[31m\u202ered"]
    page = show(b=side, note=HOSTILE, changed={"n": 1, "rows": rows}, changes=changes, diff=diff)
    sources = "\n".join([page.lead, *(cell.source for cell in page.notebook.cells)])
    assert [sign for sign in ("{{", "<script", "](z)", "$1", "`q`", "A|B", ":::") if sign in sources] == []
    assert page.notebook.cells[-1].outputs[0].data == {"text/plain": f"+{HOSTILE}\n<b>     bold</b>\n[31mred"}
    shown = render_webpage(page).decode()
    assert "<script" not in shown
    assert html.unescape(shown).count(HOSTILE) == 10  # by, problem; true, A, input; what, before, now; note; diff


def test_a_real_model_beside_itself_differs_in_nothing(trained_once) -> None:
    project = Project(trained_once.root, {})
    version = trained_once.json("champion", "tiny")["version"]
    told = read_comparison(project, "tiny", version, version)
    page = show_comparison(json.loads(json.dumps(told)), subject="Tiny")
    assert re.fullmatch(
        "There is no clear difference between A and B on any of 8 metrics; 0 of [1-9][0-9]* predictions changed.",
        html.unescape(page.lead),
    )
    assert [row[1] for row in read_rows(read_section(page, "Data"))[-3:]] == ["0", "0", "0"]
    assert read_section(page, "Code") == "It is the same."
    assert b"no clear difference" in render_webpage(page)
