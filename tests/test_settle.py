"""What a gate's decision means for a run, and where pages stand: the stable one tells of the champion."""

from pathlib import Path

import pytest
from pinmill.champion import Champion
from pinmill.errors import ConflictError
from pinmill.project import Project
from pinmill.runs import RunRecord, write_record
from pinmill.settle import judge, page_path, publish_champion


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, {})


def write_run(project: Project, run: str, candidate: str, text: str | None) -> None:
    """A run of workflow w, with a page unless `text` is None."""
    page = page_path(project, "w", "model-card", run=run)
    if text is not None:
        page.parent.mkdir(parents=True)
        page.write_text(text)
    record = RunRecord(run, "w", "train", "succeeded", "2024", candidate=candidate, page=project.relative(page))
    write_record(project.runs_folder("w"), record)


def test_pages_stand_by_workflow_and_run(project: Project) -> None:
    pages = project.root / "reports" / "_pages" / "w"
    assert page_path(project, "w", "model-card") == pages / "model-card.html"
    assert page_path(project, "w", "model-card", run="r1") == pages / "r1" / "model-card.html"


def test_the_champion_s_page_gets_the_stable_name(project: Project) -> None:
    write_run(project, "r1", "m1", "card of m1")
    write_run(project, "r2", "m2", "card of m2")
    for version in ("m2", "m1"):
        assert publish_champion(project, "w", version) == page_path(project, "w", "model-card")
        assert page_path(project, "w", "model-card").read_text() == f"card of {version}"
    assert page_path(project, "w", "model-card", run="r2").read_text() == "card of m2"


def test_the_newest_page_of_a_version_counts_and_a_run_without_its_page_does_not(project: Project) -> None:
    write_run(project, "r1", "m1", "old")
    write_run(project, "r2", "m1", "new")
    write_run(project, "r3", "m1", None)
    assert publish_champion(project, "w", "m1").read_text() == "new"
    assert publish_champion(project, "w", "m9") is None


def test_a_page_that_would_tell_of_another_model_is_removed(project: Project) -> None:
    write_run(project, "r1", "m1", "card of m1")
    publish_champion(project, "w", "m1")
    assert publish_champion(project, "w", "m2") is None
    assert not page_path(project, "w", "model-card").exists()
    assert page_path(project, "w", "model-card", run="r1").exists()


def test_a_page_is_put_in_place_whole_and_nothing_else_is_left(project: Project) -> None:
    write_run(project, "r1", "m1", "new")
    target = page_path(project, "w", "model-card")
    target.write_text("old")
    kept = target.open()  # somebody reads the old one right now
    with kept:
        publish_champion(project, "w", "m1")
        assert (kept.read(), target.read_text()) == ("old", "new")
    assert sorted(path.name for path in target.parent.iterdir()) == ["model-card.html", "r1"]


def decision(version: str, previous: str | None, action: str = "promote") -> Champion:
    return Champion(action, version, f"sha of {version}", "ada", "2024", "why", previous, False, f"record {version}")


@pytest.mark.parametrize(
    ("passed", "same_as_last", "history", "told"),
    [
        (True, "", [], ("succeeded", True, "")),
        (True, "", [decision("m1", None)], ("succeeded", True, "")),
        (False, "", [decision("m1", None)], ("rejected", False, "")),
        (True, "succeeded", [decision("m1", None)], ("succeeded", False, "")),
        (False, "rejected", [], ("rejected", False, "")),
        (True, "", [decision("m1", None), decision("m2", "m1")], ("succeeded", False, "champion already")),
        (True, "", [decision("m1", None), decision("m2", "m1"), decision("m1", "m2", "rollback")],
         ("succeeded", False, "Held since a rollback left it")),
    ],
)  # fmt: skip
def test_a_decision_moves_the_champion_once_and_never_to_a_held_model(passed, same_as_last, history, told) -> None:
    then = history[0].version if history else None  # the champion when m2 was compared with it
    facts = {"passed": passed, "reasons": ["better"], "candidate_sha256": "sha of m2", "champion": then}
    verdict = judge(facts, same_as_last=same_as_last, history=history)
    assert (verdict.status, verdict.move, verdict.reasons[0]) == (*told[:2], "better")
    assert told[2] in verdict.reasons[-1]
    assert len(verdict.reasons) == 1 + bool(told[2])


def test_a_champion_that_was_moved_since_the_decision_is_a_conflict() -> None:
    facts = {"passed": True, "reasons": [], "candidate_sha256": "sha of m3", "champion": "m1"}
    with pytest.raises(ConflictError, match=r"the champion was moved from m1 to m2 while this run compared"):
        judge(facts, same_as_last="", history=[decision("m1", None), decision("m2", "m1")])
