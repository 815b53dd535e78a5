"""The champion: promoted and rolled back by compare-and-set, with a history that adds up."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pinmill.champion
import pins
import pytest
from pinmill.board import Board
from pinmill.champion import Champion, Standing, promote, read_champion, read_history, replay, rollback
from pinmill.errors import ChampionError, ConflictError, IntegrityError, LockedError, PinNotFoundError

LIB = Path(pinmill.champion.__file__).parents[1]
WHEN = datetime(2024, 5, 6, 7, 8, 9, 5, tzinfo=UTC)
SAID = {"by": "ada", "why": "better recall", "when": WHEN}


def write_models(board: Board, count: int) -> list[str]:
    data = [f"model {number}".encode() for number in range(count)]
    return [board.write_file("w-model", each, file_name="m.skops", facts={}, lineage={}).version for each in data]


def decision(action: str, version: str) -> Champion:
    return Champion(action, version, "00", "ada", "2024", "why", None, False, "record")


def history(words: str) -> list[Champion]:
    """'A B -A' is: promote A, promote B, roll back to A."""
    return [decision("rollback" if w[0] == "-" else "promote", w.strip("-")) for w in words.split()]


def test_first_promotion_makes_a_champion_that_stock_pins_reads(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    (version,) = write_models(board, 1)
    assert (read_champion(board, "w"), read_history(board, "w")) == (None, [])
    champion = promote(board, "w", version, **SAID, expected=None, gate=True)
    when, record = "2024-05-06T07:08:09.000005+00:00", board.latest("w-champion")
    sha256 = board.pin("w-model").sha256
    assert champion == Champion("promote", version, sha256, "ada", when, "better recall", None, False, record)
    assert (read_champion(board, "w"), read_history(board, "w")) == (champion, [champion])
    assert pins.board_folder(str(tmp_path / "pins")).pin_read("w-champion") == {
        "action": "promote", "version": version, "sha256": sha256, "by": "ada", "when": when,
        "why": "better recall", "previous": None, "override": False,
    }  # fmt: skip


def test_promoting_from_a_stale_view_is_a_conflict_that_names_who_and_when(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    a, b, c = write_models(board, 3)
    promote(board, "w", a, **SAID, expected=None, gate=True)
    promote(board, "w", b, **SAID, expected=a, gate=True)
    with pytest.raises(ConflictError, match=f"is not {a} any more, but {b}, promoted by ada at 2024-05-06T07:08:09"):
        promote(board, "w", c, **SAID, expected=a, gate=True)
    with pytest.raises(ConflictError, match="is not None any more"):
        promote(board, "w", c, **SAID, expected=None, gate=True)
    assert read_champion(board, "w").version == b


def test_expecting_a_champion_where_there_is_none_is_a_conflict(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    (version,) = write_models(board, 1)
    with pytest.raises(ConflictError, match=f"is not {version} any more, but None"):
        promote(board, "w", version, **SAID, expected=version, gate=True)


def test_promoting_the_champion_again_is_an_error(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    (version,) = write_models(board, 1)
    promote(board, "w", version, **SAID, expected=None, gate=True)
    with pytest.raises(ChampionError, match=f"w has this champion already: {version}, promoted by ada"):
        promote(board, "w", version, **SAID, expected=version, gate=True)
    assert len(read_history(board, "w")) == 1


@pytest.mark.parametrize(("gate", "said"), [(False, "the gate rejected"), (None, "the gate has not decided on")])
def test_a_model_the_gate_did_not_pass_needs_an_override_which_is_recorded(tmp_path: Path, gate, said: str) -> None:
    board = Board(tmp_path / "pins")
    a, b = write_models(board, 2)
    with pytest.raises(ChampionError, match=f"{said} w-model {a}; .* give --override"):
        promote(board, "w", a, **SAID, expected=None, gate=gate)
    assert read_champion(board, "w") is None
    assert promote(board, "w", a, **SAID, expected=None, gate=gate, override=True).override
    assert not promote(board, "w", b, **SAID, expected=a, gate=True, override=True).override  # nothing was overridden


def test_a_decision_needs_somebody_and_a_reason(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    (version,) = write_models(board, 1)
    with pytest.raises(ChampionError, match="`by` or `why` is empty"):
        promote(board, "w", version, by="", why=" ", when=WHEN, expected=None, gate=True)
    with pytest.raises(ChampionError, match="`by` or `why` is empty"):
        promote(board, "w", version, by="ada", why="", when=WHEN, expected=None, gate=True)
    assert read_champion(board, "w") is None


def test_a_model_that_is_missing_or_damaged_does_not_become_champion(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    a, b = write_models(board, 2)
    with pytest.raises(PinNotFoundError, match="w-model has no version '20200101T000000Z-00000'"):
        promote(board, "w", "20200101T000000Z-00000", **SAID, expected=None, gate=True)
    promote(board, "w", a, **SAID, expected=None, gate=True)
    promote(board, "w", b, **SAID, expected=a, gate=True)
    (tmp_path / "pins/w-model" / a / "m.skops").write_bytes(b"model x")
    with pytest.raises(IntegrityError, match=f"w-model/{a}/m.skops was changed"):
        rollback(board, "w", by="ada", why="late labels", when=WHEN)
    with pytest.raises(IntegrityError, match=f"w-model/{a}/m.skops was changed"):
        promote(board, "w", a, **SAID, expected=b, gate=True)
    assert read_champion(board, "w").version == b


def test_rolling_back_twice_goes_two_back_and_then_there_is_nothing_left(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    a, b, c = write_models(board, 3)
    for version, expected in ((a, None), (b, a), (c, b)):
        promote(board, "w", version, **SAID, expected=expected, gate=True)
    first = rollback(board, "w", by="ada", why="worse on returns", when=WHEN)
    assert (first.action, first.version, first.previous) == ("rollback", b, c)
    assert replay(read_history(board, "w")) == Standing((a, b), frozenset({c}))
    second = rollback(board, "w", by="bob", why="still worse", when=WHEN)
    assert (second.version, second.previous, read_champion(board, "w")) == (a, b, second)
    assert replay(read_history(board, "w")) == Standing((a,), frozenset({b, c}))
    with pytest.raises(ChampionError, match=f"no earlier champion to go back to; the champion is {a}"):
        rollback(board, "w", by="ada", why="again", when=WHEN)
    promote(board, "w", c, **SAID, expected=a, gate=True)
    assert replay(read_history(board, "w")) == Standing((a, c), frozenset({b}))


def test_rolling_back_to_an_older_champion_holds_all_that_came_after_it(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    a, b, c = write_models(board, 3)
    for version, expected in ((a, None), (b, a), (c, b)):
        promote(board, "w", version, **SAID, expected=expected, gate=True)
    for wrong in (c, "20200101T000000Z-00000"):
        with pytest.raises(ChampionError, match=f"is not an earlier champion of w; those are {a}, {b}"):
            rollback(board, "w", by="ada", why="x", to=wrong, when=WHEN)
    assert rollback(board, "w", by="ada", why="x", to=a, when=WHEN).previous == c
    assert replay(read_history(board, "w")) == Standing((a,), frozenset({b, c}))


def test_rolling_back_without_any_champion_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ChampionError, match="the champion is None"):
        rollback(Board(tmp_path / "pins"), "w", by="ada", why="x", when=WHEN)


def test_rolling_back_from_a_stale_view_is_a_conflict(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    a, b, c = write_models(board, 3)
    for version, expected in ((a, None), (b, a), (c, b)):
        promote(board, "w", version, **SAID, expected=expected, gate=True)
    rollback(board, "w", by="ada", why="x", when=WHEN, expected=c)
    with pytest.raises(ConflictError, match=f"is not {c} any more, but {b}, gone back to by ada"):
        rollback(board, "w", by="bob", why="x", when=WHEN, expected=c)


@pytest.mark.parametrize(
    ("words", "stack", "held"),
    [
        ("", "", ""),
        ("A B C", "ABC", ""),
        ("A B -A", "A", "B"),
        ("A B -A C", "AC", "B"),
        ("A B -A B", "AB", ""),  # promoted by hand: not held any more
        ("A B C -B -A", "A", "BC"),
        ("A B C D -B", "AB", "CD"),
        ("A B A -B", "AB", "A"),
        ("A B A -B -A", "A", "B"),  # A serves again, so it is not held
    ],
)
def test_replay_adds_up_promotions_and_rollbacks(words: str, stack: str, held: str) -> None:
    assert replay(history(words)) == Standing(tuple(stack), frozenset(held))


def test_a_history_that_cannot_have_happened_is_refused() -> None:
    with pytest.raises(IntegrityError, match="goes back to what was not champion before"):
        replay(history("A B -X"))


def test_a_guard_that_raises_leaves_the_champion_as_it_was(tmp_path: Path) -> None:
    def lost() -> None:
        raise LockedError("the lock of this run was lost")

    board = Board(tmp_path / "pins")
    (version,) = write_models(board, 1)
    with pytest.raises(LockedError):
        promote(board, "w", version, **SAID, expected=None, gate=True, guard=lost)
    assert read_champion(board, "w") is None


def test_a_record_that_is_not_of_a_champion_is_refused(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    for value in (1, {"version": "x"}):
        board.write_json("w-champion", value, facts={}, lineage={})
        with pytest.raises(IntegrityError, match="is not the record of a champion"):
            read_champion(board, "w")


PROMOTER = """
import sys
from datetime import UTC, datetime
from pinmill.board import Board
from pinmill.champion import promote
from pinmill.errors import ConflictError
board, who = Board(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
for line in sys.stdin:
    version, expected = line.split()
    try:
        promote(board, "w", version, by=who, why="mine is better", expected=None if expected == "-" else expected,
                gate=True, when=datetime.now(UTC))
        print("won", flush=True)
    except ConflictError:
        print("conflict", flush=True)
"""


def test_of_two_promoters_at_once_exactly_one_wins(tmp_path: Path) -> None:
    board, rounds, expected = Board(tmp_path / "pins"), 10, "-"
    models = write_models(board, 2 * rounds)
    command = [sys.executable, "-c", PROMOTER, str(tmp_path / "pins")]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(LIB)}
    promoters = [subprocess.Popen([*command, who], env=environment, **options) for who in ("ada", "bob")]
    assert [promoter.stdout.readline() for promoter in promoters] == ["ready\n", "ready\n"]
    for number in range(rounds):
        pair = models[2 * number : 2 * number + 2]
        for promoter, version in zip(promoters, pair, strict=True):
            promoter.stdin.write(f"{version} {expected}\n")
            promoter.stdin.flush()
        said = [promoter.stdout.readline().strip() for promoter in promoters]
        assert sorted(said) == ["conflict", "won"]
        expected = pair[said.index("won")]
        assert read_champion(board, "w").version == expected
    for promoter in promoters:
        promoter.communicate()
    decisions = read_history(board, "w")
    assert [each.previous for each in decisions] == [None, *(each.version for each in decisions[:-1])]
    assert len(decisions) == rounds
