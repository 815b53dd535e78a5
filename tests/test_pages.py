"""Where the pages of runs stand, what they say became of the model, and whose pages have the names that stay."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bs4 import BeautifulSoup
from pinmill.pages import page_path, publish, tell_outcome
from pinmill.project import Project
from pinmill.report import Rendered

if TYPE_CHECKING:
    from conftest import Workplace


def last_run(place: Workplace) -> dict:
    return place.json("runs", "small")[0]


def page(place: Workplace, path: str = "small/model-card.html") -> Path:
    return place.root / "reports/_pages" / path


def read(path: Path) -> dict[str, str | None]:
    """The first line of a page, and its banner."""
    html = BeautifulSoup(path.read_text("utf-8"), "html.parser")
    found = {name: html.find(class_=name) for name in ("lead", "banner")}
    return {name: tag and tag.get_text(" ", strip=True) for name, tag in found.items()}


def test_pages_stand_by_workflow_and_run(tmp_path: Path) -> None:
    project, pages = Project(tmp_path, {}), tmp_path / "reports" / "_pages" / "w"
    assert page_path(project, "w", "model-card") == pages / "model-card.html"
    assert page_path(project, "w", "model-card", run="r1") == pages / "r1" / "model-card.html"


@pytest.mark.parametrize(
    ("status", "move", "is_champion", "outcome"),
    [
        ("succeeded", True, False, "promoted"),
        ("succeeded", False, True, "it is the champion"),
        ("succeeded", False, False, "not promoted, as a rollback left it"),
        ("rejected", False, False, "rejected by the gate"),
        ("rejected", False, True, "rejected by the gate, yet the champion"),
    ],
)
def test_the_outcome_says_what_became_of_the_model(status, move, is_champion, outcome) -> None:
    assert tell_outcome(status, move=move, is_champion=is_champion) == outcome


def test_a_run_leaves_its_pages_the_champion_s_and_the_index(small_trained: Workplace) -> None:
    record, folder = last_run(small_trained), small_trained.root / "reports/_pages"
    pages = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    run = record["run"]
    assert pages == ["index.html", "small/.champion.json", f"small/{run}/model-card.html", "small/model-card.html"]
    assert record["pages"] == {"model-card": f"reports/_pages/small/{record['run']}/model-card.html"}
    assert (record["outcome"], read(page(small_trained))) == ("promoted", {"lead": "Promoted.", "banner": None})


def test_a_run_in_which_nothing_ran_keeps_the_pages_and_touches_none(small_trained: Workplace) -> None:
    before = last_run(small_trained)
    stood = {path: path.stat().st_mtime_ns for path in (small_trained.root / "reports").rglob("*.html")}
    small_trained.pinmill("run", "small")
    assert last_run(small_trained)["run"] != before["run"]
    assert last_run(small_trained)["pages"] == before["pages"]
    assert {path: path.stat().st_mtime_ns for path in (small_trained.root / "reports").rglob("*.html")} == stood


def test_pages_that_were_removed_come_back_with_the_next_run(small_trained: Workplace) -> None:
    shutil.rmtree(small_trained.root / "reports")
    small_trained.pinmill("run", "small")
    assert page(small_trained, "index.html").is_file()
    assert (small_trained.root / last_run(small_trained)["pages"]["model-card"]).is_file()
    assert read(page(small_trained)) == {"lead": "It is the champion.", "banner": None}


def test_a_new_text_reaches_the_champion_s_page_though_the_decision_is_the_same(small_trained: Workplace) -> None:
    small_trained.edit("04-model-card", "Some prose.", "Other prose.")
    small_trained.pinmill("run", "small", "--force")
    assert "Other prose." in page(small_trained).read_text()


def test_a_rejected_run_s_pages_are_marked_and_stand_under_its_id_only(small_trained: Workplace) -> None:
    stable = page(small_trained).read_bytes()
    said = small_trained.pinmill("run", "small", "--set", "score=0.1", "--set", "power=2", code=3).stdout
    (own,) = last_run(small_trained)["pages"].values()
    assert f"  rejected  {own}\n" in said
    banner = "This model was rejected by the gate and is not the champion."
    assert read(small_trained.root / own) == {"lead": "Rejected by the gate.", "banner": banner}
    assert page(small_trained).read_bytes() == stable


def test_the_stable_page_follows_the_champion(small_trained: Workplace) -> None:
    first = last_run(small_trained)
    small_trained.edit("04-model-card", "Some prose.", "Second card.")
    small_trained.pinmill("run", "small", "--set", "power=2")
    assert "Second card." in page(small_trained).read_text()
    small_trained.pinmill("rollback", "small", "--why", "complaints")
    assert "Some prose." in page(small_trained).read_text()
    assert (small_trained.root / first["pages"]["model-card"]).is_file()
    small_trained.pinmill("promote", "small", last_run(small_trained)["candidate"], "--why", "all is well")
    assert "Second card." in page(small_trained).read_text()


def test_a_model_promoted_by_hand_over_the_gate_is_not_said_to_be_no_champion(small_trained: Workplace) -> None:
    rejected = ("--set", "score=0.1", "--set", "power=2")
    small_trained.pinmill("run", "small", *rejected, code=3)
    words = ("--override", "--why", "the owner asked for it")
    small_trained.pinmill("promote", "small", last_run(small_trained)["candidate"], *words)
    banner = "The gate rejected this model, yet it is the champion. See: pinmill champion --history"
    told = {"lead": "Rejected by the gate, yet the champion.", "banner": banner}
    assert read(page(small_trained)) == told
    small_trained.pinmill("run", "small", *rejected, "--force", code=3)  # the same model, rejected again
    assert read(small_trained.root / last_run(small_trained)["pages"]["model-card"]) == told
    small_trained.pinmill("report", "small")
    assert read(page(small_trained)) == told


def test_a_model_that_a_rollback_left_and_that_is_promoted_by_hand_is_said_to_be(small_trained: Workplace) -> None:
    small_trained.pinmill("run", "small", "--set", "power=2")
    small_trained.pinmill("rollback", "small", "--why", "complaints")
    small_trained.pinmill("run", "small", "--set", "power=2", "--force")
    held = last_run(small_trained)
    assert read(small_trained.root / held["pages"]["model-card"])["lead"] == "Not promoted, as a rollback left it."
    small_trained.pinmill("promote", "small", held["candidate"], "--why", "all is well")
    assert read(page(small_trained))["lead"] == "Promoted by hand."


def test_pages_that_would_tell_of_another_model_are_removed(small_trained: Workplace) -> None:
    first = last_run(small_trained)
    small_trained.pinmill("run", "small", "--set", "power=2")
    for stage in first["stages"]:  # the first run cannot be shown any more
        (small_trained.root / stage["executed"]).unlink()
    done = small_trained.pinmill("rollback", "small", "--why", "complaints")
    assert done.stderr == "pages are missing: no run of small is left to show its champion\n"
    assert not page(small_trained).exists()
    assert first["candidate"] in page(small_trained, "index.html").read_text()


def break_card(place: Workplace) -> None:
    """A model card that cannot be rendered, and a page beside it that can."""
    place.edit("03-evaluate", "writes: [metrics]", "writes: [metrics]\n  page: evaluation")
    place.edit("04-model-card", "hold()\nprint(", "#| fig-cap: [unclosed\nhold()\nprint(")


def test_one_bad_page_costs_no_other_and_no_promotion(small_trained: Workplace) -> None:
    break_card(small_trained)
    done = small_trained.pinmill("run", "small", "--set", "power=2")
    record, stable = last_run(small_trained), small_trained.root / "reports/_pages/small"
    assert (record["status"], record["champion_after"]) == ("succeeded", record["candidate"])
    assert list(record["pages"]) == ["evaluation"]
    assert "04-model-card" in record["warnings"][0]
    assert record["warnings"][0] in done.stderr
    assert sorted(path.name for path in stable.glob("*.html")) == ["evaluation.html"]  # the card told of another model
    assert "model-card.html" not in (stable / "evaluation.html").read_text()


def test_when_no_page_can_be_put_in_place_the_index_knows_and_the_next_run_mends_it(
    small_trained: Workplace, tmp_path: Path
) -> None:
    first = small_trained.json("champion", "small")["version"]
    folder = small_trained.root / "reports/_pages/small"
    folder.rename(tmp_path / "kept")
    folder.write_text("a file where a folder is needed")
    done = small_trained.pinmill("run", "small", "--set", "power=2")
    assert "  card  " not in done.stdout
    folder.unlink()
    (tmp_path / "kept").rename(folder)
    assert first in (folder / ".champion.json").read_text()
    small_trained.pinmill("run", "small", "--set", "power=2")
    second = last_run(small_trained)
    assert (second["warnings"], list(second["pages"])) == ([], ["model-card"])
    assert second["champion_after"] in (folder / ".champion.json").read_text()


def test_promote_with_a_page_that_fails_still_brings_the_index_up_to_date(small_trained: Workplace) -> None:
    first = last_run(small_trained)
    small_trained.pinmill("run", "small", "--set", "power=2")
    card = small_trained.root / first["stages"][3]["executed"]
    card.write_text("{")
    done = small_trained.pinmill("rollback", "small", "--why", "complaints")
    assert "pages are missing: 04-model-card: " in done.stderr
    assert first["candidate"] in page(small_trained, "index.html").read_text()
    again = small_trained.pinmill("report", "small", "--run", first["run"], code=4)
    assert "reports/_pages/index.html" in again.stdout
    assert "pages are missing: 04-model-card: " in again.stderr


def test_the_pages_of_an_older_champion_do_not_win_over_a_newer_one(small_trained: Workplace) -> None:
    project = Project(small_trained.root, {})
    first = last_run(small_trained)["candidate"]
    rendered = Rendered({"small/model-card": b"of the first"})
    small_trained.pinmill("run", "small", "--set", "power=2")  # while the first one's pages were being rendered
    stable = page(small_trained).read_bytes()
    assert publish(project, "small", rendered, first) == (
        [], ["the champion of small was moved meanwhile, so its pages stay as they are"],
    )  # fmt: skip
    assert page(small_trained).read_bytes() == stable


def test_a_failed_run_leaves_the_pages_and_is_told_in_the_index(small_trained: Workplace) -> None:
    stable = page(small_trained).read_bytes()
    small_trained.edit("02-train", "model = ", "1 / 0\nmodel = ")
    small_trained.pinmill("run", "small", code=4)
    assert page(small_trained).read_bytes() == stable
    assert "failed" in page(small_trained, "index.html").read_text()


def test_report_renders_again_what_a_run_the_champion_and_the_index_show(small_trained: Workplace) -> None:
    first, runs = last_run(small_trained), small_trained.root / "outputs/runs"
    small_trained.pinmill("run", "small", "--set", "score=0.1", "--set", "power=2", code=3)
    rejected = last_run(small_trained)
    shutil.rmtree(small_trained.root / "reports")
    executed = {path: path.read_bytes() for path in runs.rglob("*.ipynb")}
    said = small_trained.pinmill("report", "small", "--engine", "nbconvert").stdout
    assert said.splitlines() == [
        "rendered by nbconvert:",
        f"  {rejected['pages']['model-card']}",
        "  reports/_pages/small/model-card.html",
        "  reports/_pages/index.html",
    ]
    assert read(page(small_trained))["lead"] == "Promoted."
    assert read(small_trained.root / rejected["pages"]["model-card"])["lead"] == "Rejected by the gate."
    small_trained.pinmill("run", "small", "--set", "score=0.1", "--set", "power=2", code=3)  # in which nothing ran
    assert small_trained.pinmill("report", "small", "--engine", "nbconvert").stdout == said
    small_trained.pinmill("report", "small", "--run", first["run"][-8:])
    assert (small_trained.root / first["pages"]["model-card"]).is_file()
    assert {path: path.read_bytes() for path in runs.rglob("*.ipynb")} == executed


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["nowhere"], 2, "no workflow 'nowhere'"),
        (["small", "--run", "zzzz"], 2, "0 runs of small begin or end with 'zzzz'. See: pinmill runs small"),
        (["--run", "2024"], 2, "--run needs the workflow whose run it is"),
        (["small", "--engine", "word"], 2, "no engine 'word' (--engine, PINMILL_REPORT): auto, quarto, nbconvert"),
        (["small", "--engine", "quarto"], 4, "pip install 'pinmill[quarto]'"),
    ],
)
def test_report_says_what_is_wrong(small_trained: Workplace, words, code, told) -> None:
    done = small_trained.pinmill("report", *words, code=code, PATH="/nowhere")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_report_opens_the_index_where_it_is_asked_to(small_trained: Workplace, tmp_path: Path) -> None:
    (tmp_path / "xdg-open").write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/opened\n')
    (tmp_path / "xdg-open").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    small_trained.pinmill("report", "small", "--open", "--engine", "nbconvert", PATH=path)
    assert (tmp_path / "opened").read_text() == str(page(small_trained, "index.html"))


def test_report_of_a_workflow_without_a_run_says_how_to_start_one(small: Workplace) -> None:
    assert (
        "small has no finished run yet. Start one with: pinmill run small"
        in small.pinmill("report", "small", code=4).stderr
    )
    assert "reports/_pages/index.html" in small.pinmill("report").stdout  # the index is there also then


# Jobs that decide on no model


def add_monitor(place: Workplace, *, job: str = "monitor", kind: str = "monitoring") -> None:
    front = f"reads: [calls]\n  writes: [{kind}]\n  page: {kind}"
    said = f"run.write_json('{kind}', 1)\nf'as {{run.id}} saw it, {{note}}'"
    place.add_stage(f"05-{job}", job, front, "note: str = 'fine'  # what is said", said)


def monitor(place: Workplace, *words: str, code: int = 0, job: str = "monitor") -> dict:
    place.pinmill("run", "small", "--job", job, *words, code=code)
    return last_run(place)


def test_the_page_of_a_job_without_a_gate_stands_under_its_run_and_its_name(small_trained: Workplace) -> None:
    add_monitor(small_trained)
    first, second = monitor(small_trained), monitor(small_trained, "--set", "note=better")
    stable = page(small_trained, "small/monitoring.html")
    for record in (first, second):
        own = f"reports/_pages/small/{record['run']}/monitoring.html"
        assert (record["pages"], record["status"], record["warnings"]) == ({"monitoring": own}, "succeeded", [])
        assert f"as {record['run']} saw it" in (small_trained.root / own).read_text()
    assert f"as {second['run']} saw it, better" in stable.read_text()
    small_trained.edit("05-monitor", "run.write", "1 / 0\nrun.write")
    stood = stable.read_bytes()
    monitor(small_trained, code=4)
    assert stable.read_bytes() == stood
    index = BeautifulSoup(page(small_trained, "index.html").read_text(), "html.parser")
    links = [tag["href"] for tag in index.find_all("a") if tag["href"].count("/") == 1]
    assert links == ["small/model-card.html", "small/model-card.html", "small/monitoring.html"]
    assert "the last run failed" in index.get_text()


def test_a_later_training_a_rollback_and_a_report_leave_the_pages_of_other_jobs(small_trained: Workplace) -> None:
    add_monitor(small_trained)
    add_monitor(small_trained, job="score", kind="scores")
    monitor(small_trained, job="score")
    record = monitor(small_trained)
    stable = [page(small_trained, f"small/{name}.html") for name in ("monitoring", "scores")]
    stood = [path.read_bytes() for path in stable]
    small_trained.pinmill("run", "small", "--set", "power=2")
    small_trained.pinmill("rollback", "small", "--why", "complaints")
    assert [path.read_bytes() for path in stable] == stood
    shutil.rmtree(small_trained.root / "reports")
    said = small_trained.pinmill("report", "small", "--engine", "nbconvert").stdout
    assert [line.strip() for line in said.splitlines()[2:]] == [
        "reports/_pages/small/model-card.html",
        "reports/_pages/small/monitoring.html",
        "reports/_pages/small/scores.html",
        "reports/_pages/index.html",
    ]
    assert f"as {record['run']} saw it" in stable[0].read_text()


def test_pages_of_other_jobs_that_were_removed_come_back_though_nothing_ran(small_trained: Workplace) -> None:
    add_monitor(small_trained)
    small_trained.edit("05-monitor", "reads: [calls]", "reads: [data]")
    monitor(small_trained)
    page(small_trained, "small/monitoring.html").unlink()
    again = monitor(small_trained)
    assert [stage["status"] for stage in again["stages"]] == ["reused"]
    assert page(small_trained, "small/monitoring.html").is_file()
    stood = page(small_trained, "small/monitoring.html").stat().st_mtime_ns
    monitor(small_trained)
    assert page(small_trained, "small/monitoring.html").stat().st_mtime_ns == stood


def test_records_of_former_versions_are_read(small_trained: Workplace) -> None:
    path = small_trained.root / "outputs/runs/small" / last_run(small_trained)["run"] / "run.json"
    record = json.loads(path.read_text())
    old = {**record, "page": "reports/_pages/small/x/model-card.html"}
    for name in ("pages", "outcome", "rendered_by"):
        del old[name]
    path.write_text(json.dumps(old))
    small_trained.pinmill("run", "small")
    assert last_run(small_trained)["status"] == "succeeded"


def test_a_full_disk_leaves_the_former_champion_s_pages_and_their_mark(small_trained: Workplace, small_disk) -> None:
    project, folder = Project(small_trained.root, {}), small_trained.root / "reports/_pages/small"
    shutil.copytree(folder, small_disk, dirs_exist_ok=True)
    shutil.rmtree(folder)
    folder.symlink_to(small_disk)
    champion = small_trained.json("champion", "small")["version"]
    mark = folder / ".champion.json"
    mark.write_text(mark.read_text().replace(champion, "another"))
    old = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    written, (problem,) = publish(project, "small", Rendered({"small/model-card": b"x" * 3_000_000}), champion)
    assert (written, problem[:40]) == ([], "nothing can be written to reports/_pages")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == old
