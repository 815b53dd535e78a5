"""What a gate's decision means for a run."""

import pytest
from pinmill.champion import Champion
from pinmill.errors import ConflictError
from pinmill.settle import find_held, judge


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


def test_held_are_the_models_that_a_rollback_left_and_nobody_brought_back() -> None:
    moves = [("m1", None), ("m2", "m1"), ("m3", "m2"), ("m1", "m3", "rollback"), ("m2", "m1")]
    history = [decision(*move) for move in moves]
    assert find_held(history) == {"sha of m3"}
