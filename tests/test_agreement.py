"""Agreement: Krippendorff's own worked example, his package, scikit-learn, and counts by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import krippendorff
import numpy as np
import pandas as pd
import pytest
from pinmill.agreement import confusions, count_labels, disagreements, find_pace, krippendorff_alpha, pair_kappas
from pinmill.store import ANNOTATIONS, stamp
from sklearn.metrics import cohen_kappa_score

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
NAN = np.nan
COLUMNS = ["hash", "annotator", "label"]
TWELVE_UNITS = {  # Krippendorff (2011), example C: four observers, missing data; alpha = .743 for nominal data
    "A": [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    "B": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    "C": [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    "D": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
}


def list_labels(table: dict[str, list]) -> pd.DataFrame:
    """A table {annotator: label of each input} as current labels, a missing one left out."""
    rows = [
        {"hash": f"h{unit}", "annotator": who, "label": label, "record": {"text": f"text {unit}"}}
        for who, given in table.items()
        for unit, label in enumerate(given)
        if label == label
    ]
    return pd.DataFrame(rows, columns=[*COLUMNS, "record"], dtype=object)


def draw_table(seed: int) -> dict[str, list]:
    """Labels of 2 to 5 people on 40 inputs, from as good as random to nearly equal, a third of them missing."""
    chance = np.random.default_rng(seed)
    people, kinds, noise = chance.integers(2, 6), chance.integers(2, 6), chance.random()
    truth = chance.integers(0, kinds, 40)
    table = {}
    for number in range(people):
        given = np.where(chance.random(40) < noise, chance.integers(0, kinds, 40), truth).astype(float)
        table[f"p{number}"] = np.where(chance.random(40) < 1 / 3, NAN, given).tolist()
    return table


def test_alpha_is_that_of_krippendorffs_own_example() -> None:
    assert round(krippendorff_alpha(list_labels(TWELVE_UNITS)), 3) == 0.743


@pytest.mark.parametrize(
    ("table", "alpha"),
    [
        ({"ann": ["a", "b", "a"], "bob": ["a", "b", "a"]}, 1.0),
        # 4 values of each kind; all 4 pairs differ: 1 - (8 - 1) * 8 / (64 - 32)
        ({"ann": ["a", "b", "a", "b"], "bob": ["b", "a", "b", "a"]}, -0.75),
        # an input with one label counts for nothing: (a, a), (a, b), (b, b) give 1 - 5 * 2 / (36 - 18)
        ({"ann": ["a", "a", "b", "c"], "bob": ["a", "b", "b", NAN]}, 4 / 9),
    ],
)
def test_alpha_by_hand(table: dict, alpha: float) -> None:
    assert krippendorff_alpha(list_labels(table)) == pytest.approx(alpha)


@pytest.mark.parametrize("seed", range(30))
def test_alpha_is_that_of_the_package(seed: int) -> None:
    table = draw_table(seed)
    expected = krippendorff.alpha(reliability_data=[*table.values()], level_of_measurement="nominal")
    assert krippendorff_alpha(list_labels(table)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("table", [{}, {"ann": ["a", "b"]}, {"ann": ["a", "a"], "bob": ["a", "a"]}])
def test_without_two_kinds_on_shared_inputs_alpha_is_not_defined(table: dict) -> None:
    assert krippendorff_alpha(list_labels(table)) is None


def test_labels_of_different_types_are_different_and_equal_numbers_are_equal() -> None:
    labels = list_labels({"ann": [1, 1, "1", True, "a", "b"], "bob": [1.0, True, 1, "true", "a", "b"]})
    assert pair_kappas(labels)["agreement"].tolist() == [0.5]
    mixed = confusions(labels)[["one", "other"]].values.tolist()
    assert sorted(map(repr, mixed)) == ["['1', 1]", "[1, True]", "[True, 'true']"]


@pytest.mark.parametrize("seed", range(5))
def test_kappas_are_those_of_scikit_learn_for_every_two_people(seed: int) -> None:
    table, expected = draw_table(seed), []
    for place, first in enumerate(table):
        for second in [*table][place + 1 :]:
            both = [(a, b) for a, b in zip(table[first], table[second], strict=True) if a == a and b == b]
            equal = sum(a == b for a, b in both) / len(both)
            kappa = cohen_kappa_score(*map(list, zip(*both, strict=True)))
            expected.append([first, second, len(both), pytest.approx(equal), pytest.approx(kappa)])
    shuffled = list_labels(table).sample(frac=1, random_state=seed)
    assert pair_kappas(shuffled).values.tolist() == expected


def test_kappa_by_hand() -> None:
    table = {"ann": ["y"] * 25 + ["n"] * 25, "bob": ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15}
    row = ["ann", "bob", 50, 0.7, pytest.approx(0.4)]  # by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5
    assert pair_kappas(list_labels(table)).values.tolist() == [row]


def test_two_who_always_say_the_same_have_no_kappa_and_two_who_share_nothing_no_row() -> None:
    table = {"ann": ["a", "a", NAN], "bob": ["a", "a", NAN], "eve": [NAN, NAN, "a"]}
    (row,) = pair_kappas(list_labels(table)).to_dict("records")
    assert row == {"first": "ann", "second": "bob", "n": 2, "agreement": 1.0, "kappa": None}


def test_confusions_count_who_says_what_where_the_other_says_another() -> None:
    table = {"eve": [NAN, "b", "b", "c"], "ann": ["a", "a", "b", "b"], "bob": ["b", "b", "b", "a"]}
    assert confusions(list_labels(table)).values.tolist() == [
        ["ann", "bob", "a", "b", 2],
        ["ann", "bob", "b", "a", 1],
        ["ann", "eve", "a", "b", 1],
        ["ann", "eve", "b", "c", 1],
        ["bob", "eve", "a", "c", 1],
    ]


def test_disagreements_tell_the_record_and_who_said_what() -> None:
    table = {"ann": ["a", "a", "a"], "bob": ["a", "b", NAN], "eve": [NAN, "a", "c"]}
    assert disagreements(list_labels(table)).to_dict("records") == [
        {"hash": "h1", "record": {"text": "text 1"}, "said": {"ann": "a", "bob": "b", "eve": "a"}},
        {"hash": "h2", "record": {"text": "text 2"}, "said": {"ann": "a", "eve": "c"}},
    ]


def test_without_labels_every_table_is_empty_with_its_columns() -> None:
    nothing, rows = list_labels({}), pd.DataFrame(columns=ANNOTATIONS.c.keys(), dtype=object)
    tables = [pair_kappas(nothing), confusions(nothing), disagreements(nothing), count_labels(rows)]
    assert [(len(table), table.columns.tolist()) for table in tables] == [
        (0, ["first", "second", "n", "agreement", "kappa"]),
        (0, ["first", "second", "one", "other", "n"]),
        (0, ["hash", "record", "said"]),
        (0, ["annotator", "n", "labels", "skipped", "seconds", "pace"]),
    ]


def test_what_each_has_done_is_counted_by_what_counts() -> None:
    def row(who: str, hash: str, label: Any, minutes: int, **more: Any) -> dict[str, Any]:
        created = stamp(NOON + timedelta(minutes=minutes))
        about = {"annotator": who, "hash": hash, "label": label, "created": created, "note": "", "seconds": None}
        return {**about, "retracts": None, **more}

    rows = [
        row("bob", "a", "ham", 0, seconds=1),
        row("ann", "a", "spam", 0, seconds=2),
        row("ann", "a", "ham", 10, seconds=4),  # another label for the same input
        row("ann", "b", "spam", 20),
        row("ann", "c", None, 25),
        row("ann", "d", None, 25, note="edited"),
        row("ann", "d-edited", "spam", 40, seconds=9),
        row("ann", "e", "spam", 50, seconds=100),
        row("ann", "e", None, 51, retracts=8),
        row("ann", "f", None, 52),
        row("ann", "f", None, 53, retracts=10),
    ]
    table = pd.DataFrame([{"id": id, **each} for id, each in enumerate(rows, 1)], dtype=object)
    expected = [
        {"annotator": "ann", "n": 3, "labels": "2 spam, 1 ham", "skipped": 1, "seconds": 6.5, "pace": 4.0},
        {"annotator": "bob", "n": 1, "labels": "1 ham", "skipped": 0, "seconds": 1.0, "pace": None},
    ]
    assert count_labels(table).astype(object).replace(NAN, None).to_dict("records") == expected


def test_the_pace_of_labels_that_came_at_once_is_not_known() -> None:
    assert [find_pace([NOON] * n) for n in (0, 1, 2)] == [None] * 3
    assert find_pace([NOON, NOON + timedelta(seconds=30), NOON + timedelta(minutes=1)]) == 120
