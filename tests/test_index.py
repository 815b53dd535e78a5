"""The index: what it says of each workflow, from boards and records as they are written, damaged or gone."""

import html
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from textwrap import wrap
from xml.etree import ElementTree

import pytest
from pinmill import runs
from pinmill.board import Board
from pinmill.champion import promote, rollback
from pinmill.index import Overview, draw_trend, read_index, tell_all
from pinmill.page import Page
from pinmill.project import Project
from pinmill.runs import RunRecord, StageRecord, write_record
from pinmill.version import now_utc
from pinmill.webpage import render_webpage

WHEN = datetime(2026, 5, 6, 7, 8, tzinfo=UTC)
HOSTILE = '"A|B" {{< env HOME >}} <script>x</script> [y](z) 🎯 $1$ `q`'
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for folder in ("params", "notebooks"):
        (tmp_path / folder).mkdir()
    return Project(tmp_path, {})


def add_workflow(project: Project, name: str, *values: float, title: str = "") -> list[str]:
    """A params file and, for each value of ROC AUC, a model with the gate's decision; the versions."""
    project.params_file(name).write_text(f"workflow: {name}\n" + (f"title: '{title}'\n" if title else ""))
    versions = []
    for number, value in enumerate(values):
        model = project.board.write_file(f"{name}-model", b"%d" % number, file_name="m.skops", facts={}, lineage={})
        scores = {"roc_auc": {"value": value, "low": value - 0.1, "high": value + 0.05},
                  "mine": {"value": 0.5, "low": None, "high": None}, "f1": {"value": None, "low": None, "high": None},
                  "odd": 3, "brier": {"value": 0.25, "low": 0.2, "high": 0.3}, "mae": {"value": 1.0}}  # fmt: skip
        facts = {"candidate_sha256": model.sha256, "passed": True, "reasons": [], "headline": scores}
        project.board.write_json(f"{name}-metrics", number, facts=facts, lineage={})
        versions.append(model.version)
    return versions


def crown(project: Project, name: str, version: str, *, expected: str | None = None, **more) -> None:
    signed = {"by": "ada", "why": "better", "when": WHEN, "gate": True, **more}
    promote(project.board, name, version, expected=expected, **signed)


def add_run(project: Project, name: str, status: str, *, day: int = 6, job: str = "train", **more) -> str:
    run = f"202605{day:02}T060000Z-000000-abcd"
    record = RunRecord(run, name, job, status, f"2026-05-{day:02}T06:00:00+00:00", **more)
    write_record(project.runs_folder(name), record)
    return run


def add_pages(project: Project, folder: str, *names: str) -> None:
    (project.pages / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        (project.pages / folder / f"{name}.html").write_text("")


def read_rows(source: str) -> list[list[str]]:
    """The cells of the pipe tables in Markdown, as a reader sees them."""
    source = source.replace("\u00a0", " ").replace("\u2060", "")
    lines = [line for line in source.splitlines() if line.startswith("|") and not re.fullmatch(r"[|: -]+", line)]
    return [[html.unescape(cell).strip() for cell in line.strip("|").split(" | ")] for line in lines]


def read_section(page: Page, title: str) -> dict[str, str]:
    """What the section of a workflow says, by its words."""
    (cell,) = (cell for cell in page.notebook.cells if html.unescape(cell.source).startswith(f"## {title}\n"))
    return dict(read_rows(cell.source))


def read_figures(page: Page) -> list[tuple[str, str]]:
    options = [cell.metadata.options for cell in page.notebook.cells if cell.cell_type == "code"]
    return [(html.unescape(each["fig-cap"]), each["fig-alt"]) for each in options]


def read_points(svg: str) -> list[tuple[float, float, float]]:
    """(x, y, radius) of each dot; the line goes through the same points."""
    root = ElementTree.fromstring(svg)
    line, dots = root.find(f"{SVG}polyline"), root.findall(f"{SVG}circle")
    found = [tuple(float(dot.get(key)) for key in ("cx", "cy", "r")) for dot in dots]
    assert [tuple(map(float, point.split(","))) for point in line.get("points").split()] == [
        (x, y) for x, y, _ in found
    ]
    assert {each.tag for each in root.iter()} == {f"{SVG}svg", f"{SVG}polyline", f"{SVG}circle"}  # no text
    return found


def test_a_workflow_is_shown_with_its_champion_its_last_run_and_its_trend(project) -> None:
    a, b, c = add_workflow(project, "spam", 0.8, 0.9, 0.85, title="Is it spam?")
    crown(project, "spam", a)
    crown(project, "spam", b, expected=a, why="more | data", gate=False, override=True)
    reused = StageRecord("prepare", "01-prepare", "reused")
    add_run(project, "spam", "failed", day=5, error="gone")
    add_run(project, "spam", "succeeded", ended="2026-05-06T06:01:30+00:00", stages=(reused,))
    add_pages(project, "spam", "model-card", "data", "other")
    before = now_utc().replace(second=0, microsecond=0)
    page = read_index(project)
    assert (page.name, page.title, page.subject, page.home, page.made) == ("index", "Models", "", "index.html", "")
    told = re.fullmatch(r"Each workflow with .*, as of (.*); times are UTC", page.subtitle)[1]
    assert before <= datetime.strptime(f"{told}+0000", "%Y-%m-%d %H:%M%z") <= now_utc()
    assert page.lead == "1 of 1 workflow has a champion; every last run succeeded."
    assert read_rows(page.notebook.cells[0].source) == [
        ["Workflow", "Champion (95 % interval)", "Last run"],
        ["[Is it spam?](spam/model-card.html)", "ROC AUC 0.900 (0.800 to 0.950)", "succeeded, 2026-05-06"],
    ]
    assert read_section(page, "Is it spam?") == {
        "Workflow": "`spam`",
        "Champion": f"`{b}`",
        "ROC AUC": "0.900 (95 % interval 0.800 to 0.950)",
        "mine": "0.500 (95 % interval not known)",
        "Brier score": "0.250 (95 % interval 0.200 to 0.300)",
        "Since": "2026-05-06 07:08, promoted by ada, though the gate had not passed it",
        "Why": "more | data",
        "Last run": "succeeded, 2026-05-06 06:01; nothing was new",
        "Pages": "[Model card](spam/model-card.html) · [Data](spam/data.html) · [other](spam/other.html)",
    }
    said = "ROC AUC of 3 candidates: first 0.800, last 0.850; the large dot is the champion"
    assert read_figures(page) == [(said, f"Trend of {said}")]
    figure = page.notebook.cells[-1].outputs[0].data["image/svg+xml"]
    assert read_points(figure) == [(6, 42, 2), (120, 6, 5), (234, 24, 2)]
    assert c not in str(page.notebook)


@pytest.mark.parametrize(
    ("values", "champion", "points"),
    [
        ([0.5, 1.0, 0.75], 0, [(6, 42, 5), (120, 6, 2), (234, 24, 2)]),
        ([0.7, 0.7], 1, [(6, 24, 2), (234, 24, 5)]),
        ([-3, 1e9, -3, 1e9, -3], None, [(6, 42, 2), (63, 6, 2), (120, 42, 2), (177, 6, 2), (234, 42, 2)]),
    ],
)
def test_a_trend_has_a_dot_for_each_value_between_the_lowest_and_the_highest(values, champion, points) -> None:
    assert read_points(draw_trend(values, champion=champion)) == points


def test_a_rollback_is_told_and_an_old_champion_has_its_scores_though_it_is_in_no_trend(project, monkeypatch) -> None:
    a, b, *_ = add_workflow(project, "spam", 0.5, *[0.6 + n / 1000 for n in range(34)])
    crown(project, "spam", a)
    crown(project, "spam", b, expected=a)
    rollback(project.board, "spam", by="bob", why="complaints", when=WHEN)
    read, pin = [], Board.pin
    monkeypatch.setattr(Board, "pin", lambda self, name, version=None: read.append(name) or pin(self, name, version))
    page = read_index(project)
    assert read.count("spam-metrics") == 33  # 30 of the trend, and those after the champion
    said = read_section(page, "spam")
    assert (said["ROC AUC"], said["Since"], said["Why"]) == (
        "0.500 (95 % interval 0.400 to 0.550)", "2026-05-06 07:08, rolled back to by bob", "complaints",
    )  # fmt: skip
    assert read_figures(page)[0][0] == "ROC AUC of 30 candidates: first 0.604, last 0.633"


def test_of_a_model_that_was_decided_on_again_the_newest_decision_counts(project) -> None:
    (a,) = add_workflow(project, "spam", 0.5)
    facts = {"candidate_sha256": project.board.pin("spam-model").sha256, "headline": {"roc_auc": {"value": 0.75}}}
    project.board.write_json("spam-metrics", 2, facts=facts, lineage={})
    crown(project, "spam", a)
    page = read_index(project)
    assert read_section(page, "spam")["ROC AUC"] == "0.750 (95 % interval not known)"
    assert read_figures(page) == []  # one candidate is no trend


@pytest.mark.parametrize("headline", [{}, None, ["roc_auc"], {"roc_auc": 0.9}, {"roc_auc": {"value": float("inf")}}])
def test_a_champion_whose_scores_are_gone_or_never_were_is_shown_without(project, headline) -> None:
    project.params_file("spam").write_text("workflow: spam\n")
    model = project.board.write_file("spam-model", b"m", file_name="m.skops", facts={}, lineage={})
    if headline is not None:
        facts = {"candidate_sha256": model.sha256, "headline": headline}
        project.board.write_json("spam-metrics", 1, facts=facts, lineage={})
    crown(project, "spam", model.version, gate=None, override=True)
    page = read_index(project)
    assert read_section(page, "spam")["Scores"] == "not recorded"
    assert read_rows(page.notebook.cells[0].source)[1] == ["spam", "not scored", "none yet"]
    assert read_figures(page) == []


def test_without_any_workflow_the_page_says_where_they_come_from(project) -> None:
    page = read_index(project)
    assert (page.lead, page.notebook.cells) == ("There is no workflow yet: each is a file in `params/`.", [])


def test_before_the_first_run_each_workflow_is_there_and_one_whose_params_file_is_gone_is_not(project) -> None:
    add_workflow(project, "spam")
    add_workflow(project, "gone", 0.8)
    project.params_file("gone").unlink()
    page = read_index(project)
    assert page.lead == "None of 1 workflow has a champion; nothing has run yet."
    assert read_section(page, "spam") == {"Workflow": "`spam`", "Champion": "none yet", "Last run": "none yet"}
    assert read_rows(page.notebook.cells[0].source)[1:] == [["spam", "none yet", "none yet"]]
    assert "gone" not in str(page.notebook)


def test_a_run_that_failed_or_was_rejected_says_why_in_a_line(project) -> None:
    for name in ("bank", "spam"):
        add_workflow(project, name)
    error = "01-prepare, cell 7: SourceNotFoundError: no file <a>|b\n  7 | raw = read()\nThe executed notebook is kept"
    add_run(project, "spam", "failed", ended="2026-05-06T06:02:00+00:00", error=error)
    run = add_run(project, "bank", "rejected", reasons=("f1 0.1 does not.", "It is worse."), error="")
    add_pages(project, f"bank/{run}", "evaluation", "model-card")
    add_pages(project, f"bank/{run}x", "data")
    page = read_index(project)
    assert page.lead == (
        "None of 2 workflows has a champion; the last run of spam failed; the last run of bank was rejected."
    )
    assert read_section(page, "spam")["Last run"] == "failed, 2026-05-06 06:02"
    assert read_section(page, "spam")["What happened"] == "01-prepare, cell 7: SourceNotFoundError: no file <a>|b"
    assert read_section(page, "bank") == {
        "Workflow": "`bank`",
        "Champion": "none yet",
        "Last run": "rejected, 2026-05-06 06:00",
        "What happened": "F1 0.1 does not. It is worse.",
        "Pages of the rejected run": f"[Model card](bank/{run}/model-card.html) · "
        f"[Evaluation](bank/{run}/evaluation.html)",
        "Pages by run": f"[2026-05-06 06:00](bank/{run}x/data.html)",
    }


def test_of_a_rejected_run_what_failed_is_said_first_and_a_long_text_is_cut_after_a_word(project) -> None:
    add_workflow(project, "spam")
    fine = (
        "f1 0.9000 beats the trivial baseline's 0.5000.",
        "Not compared with the champion: f1 has no value in 9 of 1000 bootstrap draws. Only the thresholds count.",
    )
    failed = (
        "recall 0.1000 misses its threshold: at least 0.2.",
        "mae has no value on these 9 test rows: look.",
        "The candidate may be worse than the champion: f1 -0.1000; the bound is -0.01.",
        "f1 0.1000 does not beat the trivial baseline's 0.5000.",
    )
    add_run(project, "spam", "rejected", reasons=(*fine, *failed))
    said = read_section(read_index(project), "spam")["What happened"]
    told = " ".join((*failed, *fine)).replace("recall", "Recall").replace("mae", "Mean absolute error")
    assert said == wrap(told.replace("f1", "F1"), 300)[0] + " …"


def test_every_page_is_linked_the_newest_comparisons_and_runs_first(project) -> None:
    add_workflow(project, "spam")
    add_pages(project, "spam", "training", "zoo", "model-card", "a b", "-x")
    for n in range(7):
        add_pages(project, f"spam/2026050{n + 1}T06070{n}Z-000000-abcd", *(("extra", "data") if n else ()))
        add_pages(project, "spam/compare", f"20260101T000000Z-0000{n}-20260102T000000Z-0001{n}")
        path = project.pages / f"spam/compare/20260101T000000Z-0000{n}-20260102T000000Z-0001{n}.html"
        os.utime(path, (1000 - n, 1000 - n))
    add_pages(project, "spam/notes", "data")
    add_pages(project, "spam/20260509T060700Z-()", "data")
    said = read_section(read_index(project), "spam")
    assert said["Pages"] == (
        "[Model card](spam/model-card.html) · [Training](spam/training.html) · [zoo](spam/zoo.html)"
    )
    assert said["Comparisons"] == " · ".join(
        f"[0000{n} against 0001{n}](spam/compare/20260101T000000Z-0000{n}-20260102T000000Z-0001{n}.html)"
        for n in range(5)
    )
    assert said["Pages by run"] == " · ".join(
        f"[2026-05-0{n + 1} 06:07](spam/2026050{n + 1}T06070{n}Z-000000-abcd/data.html)" for n in (6, 5, 4, 3, 2)
    )


def test_pages_of_a_former_champion_are_said_to_be_that_and_its_card_is_not_taken_for_the_champions(project) -> None:
    a, b = add_workflow(project, "spam", 0.8, 0.9)
    crown(project, "spam", b)
    add_pages(project, "spam", "model-card")
    for shown in (a, b):
        (project.pages / "spam" / ".champion.json").write_text(json.dumps({"version": shown, "pages": ["model-card"]}))
        page = read_index(project)
        name, said = read_rows(page.notebook.cells[0].source)[1][0], read_section(page, "spam")
        card = "[Model card](spam/model-card.html)"
        if shown == b:
            assert (name, said["Pages"]) == ("[spam](spam/model-card.html)", card)
        else:
            told = said["Pages of the former champion"]
            assert (name, told) == ("spam", f"{card} (of `{a}`; they could not be rendered again)")


def test_a_record_that_names_another_folder_gives_no_links(project) -> None:
    add_workflow(project, "spam")
    run = add_run(project, "spam", "rejected")
    path = project.runs_folder("spam") / run / "run.json"
    path.write_text(path.read_text().replace(f'"run": "{run}"', '"run": "../bank"', 1))
    add_pages(project, "bank", "data")
    assert "bank" not in str(read_index(project).notebook)


def test_a_skipped_run_does_not_hide_the_one_before_and_no_older_one_is_read(project, monkeypatch) -> None:
    add_workflow(project, "spam")
    for day, status, job in (
        (1, "succeeded", "train"), (2, "succeeded", "monitor"), (3, "failed", "train"), (4, "skipped", "train")
    ):  # fmt: skip
        add_run(project, "spam", status, day=day, job=job)
    read, read_record = [], runs.read_record
    monkeypatch.setattr(runs, "read_record", lambda folder, run: read.append(run[:8]) or read_record(folder, run))
    assert "the last run of spam failed" in read_index(project).lead
    assert read == ["20260504", "20260503", "20260502"]


def test_the_serving_notebook_run_as_a_job_does_not_hide_a_failed_training(project) -> None:
    add_workflow(project, "spam")
    add_run(project, "spam", "failed", day=1)
    add_run(project, "spam", "succeeded", day=2, job="serve")
    assert "the last run of spam failed" in read_index(project).lead


def add_monitoring(project: Project, name: str, alerts: object) -> str:
    """A monitoring pin with these facts; when it was written, to the minute."""
    pin = project.board.write_json(f"{name}-monitoring", 1, facts={"alerts": alerts}, lineage={})
    return f"{pin.created:%Y-%m-%d %H:%M}"


def alert(text: str, *, firing: bool = True, period: str = "2026-11-16") -> dict:
    return {"key": text, "text": text, "firing": firing, "period": period}


def test_alerts_of_the_newest_monitoring_are_told_beside_the_last_training(project) -> None:
    for name in ("ads", "bank", "spam"):
        add_workflow(project, name)
    add_run(project, "spam", "rejected", day=1)
    for day in (2, 3):
        add_run(project, "spam", "succeeded", day=day, job="monitor")
    add_monitoring(project, "spam", [alert("old")])
    drift, fine = alert("2 columns shifted.", period="2026-11-09"), alert("Errors are few.", firing=False)
    add_monitoring(project, "spam", [drift, fine, alert("Accuracy is 0.71.")])
    then = add_monitoring(project, "bank", [fine])
    add_pages(project, "spam", "monitoring", "data", "scores")
    page = read_index(project)
    assert page.lead == (
        "None of 3 workflows has a champion; the last run of spam was rejected; there are alerts for spam."
    )
    assert read_section(page, "spam") == {
        "Workflow": "`spam`",
        "Champion": "none yet",
        "Last run": "rejected, 2026-05-01 06:00",
        "Monitoring": "2 alerts: 2 columns shifted. Accuracy is 0.71.",
        "Pages": "[Data](spam/data.html) · [Monitoring](spam/monitoring.html) · [Scores](spam/scores.html)",
    }
    assert read_section(page, "bank")["Monitoring"] == f"no alert, as of {then}"
    assert "Monitoring" not in read_section(page, "ads")


@pytest.mark.parametrize("alerts", [None, "many", [1, None, {"firing": False}]])
def test_alerts_that_are_none_are_not_counted(project, alerts) -> None:
    add_workflow(project, "spam")
    then = add_monitoring(project, "spam", alerts)
    expected = f"no alert, as of {then}" if isinstance(alerts, list) else None
    assert read_section(read_index(project), "spam").get("Monitoring") == expected


def test_a_monitoring_that_failed_is_told_and_hides_no_training_nor_a_training_it(project) -> None:
    add_workflow(project, "spam")
    then = add_monitoring(project, "spam", [])
    add_run(project, "spam", "failed", day=1, job="monitor")
    add_run(project, "spam", "succeeded", day=2)
    said = read_section(read_index(project), "spam")["Monitoring"]
    assert said == f"the last run failed, 2026-05-01 06:00; no alert, as of {then}"
    add_run(project, "spam", "failed", day=3, job="monitor")
    add_run(project, "spam", "skipped", day=4, job="monitor")
    said = read_section(read_index(project), "spam")
    assert said["Last run"] == "succeeded, 2026-05-02 06:00"
    assert said["Monitoring"] == f"the last run failed, 2026-05-03 06:00; no alert, as of {then}"


def test_a_damaged_monitoring_is_said_and_hostile_alerts_are_shown_as_they_are(project) -> None:
    add_workflow(project, "spam")
    add_monitoring(project, "spam", [alert(HOSTILE)])
    page = read_index(project)
    assert read_section(page, "spam")["Monitoring"] == f"1 alert: {HOSTILE}"
    assert "<script" not in render_webpage(page).decode()
    (version,) = (project.root / "outputs/pins/spam-monitoring").iterdir()
    (version / "data.txt").write_text("x")
    page = read_index(project)
    assert "Monitoring" not in read_section(page, "spam")
    assert "not all of spam can be read" in page.lead


def test_pages_of_other_jobs_are_not_said_to_be_of_the_former_champion(project) -> None:
    a, b = add_workflow(project, "spam", 0.8, 0.9)
    crown(project, "spam", b)
    add_pages(project, "spam", "model-card", "monitoring")
    (project.pages / "spam" / ".champion.json").write_text(json.dumps({"version": a, "pages": ["model-card"]}))
    said = read_section(read_index(project), "spam")
    assert said["Pages"] == "[Monitoring](spam/monitoring.html)"
    assert said["Pages of the former champion"].startswith("[Model card](spam/model-card.html) (of `")


def test_what_is_damaged_is_said_in_its_section_and_the_rest_is_shown(project) -> None:
    for name in ("ads", "bank", "spam"):
        crown(project, name, add_workflow(project, name, 0.5, 0.75)[0])
    project.params_file("ads").write_text("workflow: [\n")
    for name, kind in (("bank", "champion"), ("spam", "metrics")):
        (first, *_) = sorted((project.root / f"outputs/pins/{name}-{kind}").iterdir())
        (first / "data.txt").write_text("x")
    (project.runs_folder("ads") / "r1").mkdir(parents=True)
    (project.runs_folder("ads") / "r1" / "run.json").write_text("{")
    page = read_index(project)
    assert page.lead == (
        "2 of 3 workflows have a champion; the last run of ads cannot be read; "
        "not all of ads and bank and spam can be read."
    )
    shown = {cell.source.split("\n")[0]: html.unescape(cell.source) for cell in page.notebook.cells}
    assert "- params/ads.yaml is not YAML: " in shown["## ads"]
    assert read_section(page, "ads")["Champion"] != "none yet"
    assert read_section(page, "ads")["Last run"] == "unreadable"
    assert read_section(page, "ads")["What happened"].startswith("its record run.json is damaged: ")
    assert re.search(r"- bank-champion/\S+/data.txt was changed, or not written by Pinmill", shown["## bank"])
    assert read_section(page, "bank")["Champion"] == "none yet"
    assert re.search(r"- spam-metrics/\S+/data.txt was changed", shown["## spam"])
    assert read_section(page, "spam")["Scores"] == "not recorded"
    assert [caption for caption, _ in read_figures(page)] == [
        "ROC AUC of 2 candidates: first 0.500, last 0.750; the large dot is the champion",
        "ROC AUC of 2 candidates: first 0.500, last 0.750",
    ]


def test_a_champion_whose_model_is_gone_and_a_file_that_names_no_workflow_are_said(project) -> None:
    a, _ = add_workflow(project, "spam", 0.5, 0.75)
    crown(project, "spam", a)
    project.board.remove("spam-model", a)
    (project.root / "params" / "Not one.yaml").write_text("workflow: x\n")
    add_pages(project, "Not one", "data")
    page = read_index(project)
    said = html.unescape("\n".join(cell.source for cell in page.notebook.cells))
    assert f"- spam-model has no version '{a}' on outputs/pins. " in said
    assert "- 'Not one' is no workflow: lower-case letters" in said
    assert str(project.root) not in said
    assert "](Not one" not in said


def test_hostile_texts_are_shown_as_they_are(project) -> None:
    (a,) = add_workflow(project, "spam", 0.5, title=HOSTILE)
    crown(project, "spam", a, by=HOSTILE, why=HOSTILE)
    add_run(project, "spam", "failed", error=HOSTILE)
    add_workflow(project, "blank", title="\u202e\u202e")
    page = read_index(project)
    said = read_section(page, HOSTILE)
    assert (said["Why"], said["What happened"]) == (HOSTILE, HOSTILE)
    assert said["Since"].endswith(f"by {HOSTILE}")
    assert read_rows(page.notebook.cells[0].source)[2][0] == HOSTILE
    assert read_section(page, "blank")["Workflow"] == "`blank`"
    sources = "\n".join(cell.source for cell in page.notebook.cells)
    assert [sign for sign in ("{{", "<script", "](z)", "$1", "`q`", "A|B") if sign in sources] == []
    shown = render_webpage(page).decode()
    assert "<script" not in shown
    assert html.escape("<script>x</script>", quote=False) in shown


def test_fifty_workflows_are_all_listed_and_told_of_by_their_number() -> None:
    failed = RunRecord("r", "w", "train", "failed", "2026-05-06T06:00:00+00:00")
    every = [
        Overview(f"w{n}", f"w{n}", [], run=failed if n < 46 else replace(failed, status="running")) for n in range(50)
    ]
    assert tell_all(every) == (
        "None of 50 workflows has a champion; the last run of 46 workflows failed; "
        "the last run of 4 workflows is at work."
    )
    assert tell_all(every[45:48]) == (
        "None of 3 workflows has a champion; the last run of w45 failed; the last run of w46 and w47 is at work."
    )


def test_a_run_of_the_real_notebooks_is_told_as_the_commands_tell_it(trained_once) -> None:
    page = read_index(Project(trained_once.root, {}))
    (model,), champion = trained_once.json("models", "tiny"), trained_once.json("champion", "tiny")
    said, (name, score) = read_section(page, "Tiny"), next(iter(model["metrics"].items()))
    assert name == "roc_auc"
    assert said["ROC AUC"] == f"{score['value']:.3f} (95 % interval {score['low']:.3f} to {score['high']:.3f})"
    assert (said["Champion"], said["Why"]) == (
        f"`{champion['version']}`",
        champion["why"].replace("roc_auc", "ROC AUC"),
    )
    assert said["Since"] == f"{champion['when'][:16].replace('T', ' ')}, promoted by {champion['by']}"
    assert read_rows(page.notebook.cells[0].source)[-1][0] == "[Tiny](tiny/model-card.html)"


def test_a_gate_that_said_no_and_a_run_with_nothing_new_are_told(small_trained) -> None:
    project = Project(small_trained.root, {})
    small_trained.pinmill("run", "small")
    assert read_section(read_index(project), "small")["Last run"].endswith("; nothing was new")
    small_trained.pinmill("run", "small", "--set", "score=0.1", code=3)
    page = read_index(project)
    assert page.lead == "1 of 1 workflow has a champion; the last run of small was rejected."
    assert read_section(page, "small")["What happened"] == "score 0.1, threshold 0.5"
    assert read_section(page, "small")["Scores"] == "not recorded"


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, pinmill.index; print([m for m in ('pandas', 'matplotlib', 'sklearn') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


LONG = "How many likes, in which of the last twenty years, does an advert of the Super Bowl get on a video site?"
BROKEN = """() => [...document.querySelectorAll('.table')[0].querySelectorAll('th, td')].flatMap(cell => {
    const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), found = [];
    while (walker.nextNode())
        for (const word of walker.currentNode.data.matchAll(/[^ \\n]+/g)) {
            const range = document.createRange();
            range.setStart(walker.currentNode, word.index);
            range.setEnd(walker.currentNode, word.index + word[0].length);
            if (new Set([...range.getClientRects()].map(r => Math.round(r.top))).size > 1) found.push(word[0]);
        }
    return found;
})"""
FIT = "() => (t => [t.scrollWidth <= t.clientWidth, t.querySelectorAll('td').length])(document.querySelector('.table'))"


@pytest.mark.browser
def test_in_a_browser_the_table_fits_its_page_and_no_word_date_or_number_is_broken(project, tmp_path, visit) -> None:
    titles = {"ads": LONG, "bank": "Term deposits sold by phone", "docs": "Which library is this from?", "spam": LONG}
    for (name, title), status in zip(titles.items(), ("succeeded", "interrupted", "rejected", "failed"), strict=True):
        crown(project, name, add_workflow(project, name, 0.95, title=title)[0])
        add_run(project, name, status)
        add_pages(project, name, "model-card")
    (tmp_path / "index.html").write_bytes(render_webpage(read_index(project)))
    page, _ = visit((tmp_path / "index.html").as_uri())
    for width, height, media in (
        (1920, 1080, "screen"),
        (1280, 800, "screen"),
        (390, 844, "screen"),
        (672, 986, "print"),
    ):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(media=media)
        assert (width, page.evaluate(FIT), page.evaluate(BROKEN)) == (width, [True, 12], [])
