"""Drift of columns: what is told of each, how seldom it cries wolf, what shift it sees, and that nothing kills it."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pinmill.distance import jensen_shannon
from pinmill.drift import FEWEST_HELD, JS_MATTERS, MEASURES, METRICS, compare, make_reference
from scipy.stats import binom

LEVEL = 0.05
KINDS = {"age": "number", "plan": "category", "member": "boolean", "note": "text", "joined": "date"}
WORDS = np.array([f"word{number}" for number in range(400)])
WEIGHTS = 1 / np.arange(1, 401)  # as often as words are: Zipf
PLANS = np.array(["free", "basic", "team", "firm", "other"], dtype=object)
NAN = "nan"  # two NaN are not equal


def make_rows(n: int, random: np.random.Generator, *, words: np.ndarray = WORDS) -> pd.DataFrame:
    """Rows as they are in the training data: one in twenty ages and plans is missing."""
    picked = random.choice(words, (n, 7), p=WEIGHTS / WEIGHTS.sum())
    frame = pd.DataFrame(
        {
            "age": random.gamma(4, 10, n).round(),
            "plan": random.choice(PLANS, n, p=[0.5, 0.3, 0.15, 0.03, 0.02]),
            "member": random.random(n) < 0.3,
            "note": [" ".join(row[: 2 + length]) for row, length in zip(picked, random.integers(0, 6, n), strict=True)],
            "joined": pd.Timestamp("2024-01-01") + pd.to_timedelta(random.integers(0, 700, n), unit="D"),
        }
    )
    return frame.assign(**{name: frame[name].mask(random.random(n) < 0.05) for name in ("age", "plan")})


def as_sent(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows as the call log has them."""
    return pd.DataFrame(json.loads(frame.to_json(orient="records", date_format="iso")), columns=frame.columns)


def tell(rows: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[Any, int, str]]:
    """{(column, metric): (value, n, status)}."""
    values = [NAN if math.isnan(row["value"]) else row["value"] for row in rows]
    about = [(row["column"], row["metric"]) for row in rows]
    return {key: (v, row["n"], row["status"]) for key, v, row in zip(about, values, rows, strict=True)}


def compare_column(kind: str, held: list, current: list, *, min_n: int = 1, hidden: int = 0) -> dict[str, tuple]:
    """What is told of one column, by metric; the training rows are the held-out ones."""
    before, now = (pd.DataFrame({"x": pd.Series(side, dtype=object)}) for side in (held, current))
    reference = make_reference(before, before, kinds={"x": kind})
    told = tell(compare(reference, now, hidden=hidden, min_n=min_n, level=LEVEL))
    return {metric: about for (column, metric), about in told.items() if column == "x"}


FIFTY = list(range(50))
TRUE_AND_FALSE = [True, False] * 50


@pytest.mark.parametrize(
    ("kind", "held", "current", "expected"),
    [
        (
            "number",
            [*FIFTY, None],
            [*map(str, range(50, 100)), None],  # JSON may hold numbers as texts
            # All of 5 rows in each of ten bins are in the last: 9 bins from 0.1 to half a row of 50, and the last
            {
                "psi": (9 * 0.09 * math.log(10) + 0.9 * math.log(10), 50, "shifted"),
                "ks": (1.0, 50, "shifted"),
                "missing_share": (1 / 51, 51, "ok"),
                "unreadable_share": (0.0, 51, "ok"),
            },
        ),
        (
            "date",
            pd.date_range("2024-01-01", periods=50),
            [f"2025-01-01T00:00:{n:02d}Z" for n in range(50)],
            {  # told, but no test: time moves on by itself
                "psi": (9 * 0.09 * math.log(10) + 0.9 * math.log(10), 50, "ok"),
                "ks": (1.0, 50, "ok"),
                "missing_share": (0.0, 50, "ok"),
                "unreadable_share": (0.0, 50, "ok"),
            },
        ),
        (
            "category",
            [3] * 50 + ["b"] * 50,
            ["3"] * 50 + [" 3 "] * 25 + ["new"] * 25,
            {  # shares 1/2 1/2 0 and 3/4 0 1/4
                "js": (0.5 * math.log2(0.8) / 2 + 0.5 / 2 + 0.75 * math.log2(1.2) / 2 + 0.25 / 2, 100, "shifted"),
                "unseen_share": (0.25, 100, "shifted"),
                "missing_share": (0.0, 100, "ok"),
            },
        ),
        (
            "boolean",
            TRUE_AND_FALSE,
            ["true", 1, "True", "1.0"] * 25,
            {
                "js": (1.5 - 0.75 * math.log2(3), 100, "shifted"),
                "missing_share": (0.0, 100, "ok"),
                "unreadable_share": (0.0, 100, "ok"),
            },
        ),
        (
            "text",
            ["good value"] * 50,
            ["good crypto !"] * 40 + [None] * 10,
            {  # of 10 characters were all 50 rows, of 13 are all 40: half a row stands for none
                "length_psi": (0.9875 * math.log(80) + 0.99 * math.log(100), 40, "shifted"),
                "length_ks": (1.0, 40, "shifted"),
                "oov_share": (0.5, 40, "shifted"),
                "missing_share": (0.2, 50, "shifted"),
            },
        ),
    ],
)
def test_each_kind_of_column_is_told_by_measures_of_its_own(
    kind: str, held: list, current: list, expected: Mapping[str, tuple]
) -> None:
    found = compare_column(kind, held, current)
    assert found == {name: (pytest.approx(value), n, status) for name, (value, n, status) in expected.items()}


@pytest.mark.parametrize(
    ("held", "current", "told"),
    [
        (FIFTY, [], (NAN, 0, "too few")),
        (FIFTY, [1], (NAN, 1, "too few")),
        (FIFTY, [None] * 10, (NAN, 0, "all missing")),
        (FIFTY, [*range(9), None], (NAN, 9, "too few")),
        ([None] * 50, FIFTY, (NAN, 50, "all missing")),
        ([7] * 50, [7.0] * 10, (0.0, 10, "constant")),
        ([7] * 50, [8] * 50, (1.0, 50, "shifted")),
        (FIFTY, [24] * 25, (0.5, 25, "shifted")),  # half of the reference lies above 24
    ],
)
def test_what_cannot_be_compared_has_a_status_of_its_own(held: list, current: list, told: tuple) -> None:
    value, n, status = compare_column("number", held, current, min_n=10)["ks"]
    assert (value, n, status) == (told[0] if told[0] == NAN else pytest.approx(told[0]), *told[1:])


def test_without_rows_there_are_too_few_even_if_any_number_will_do() -> None:
    assert {status for *_, status in compare_column("number", FIFTY, [], min_n=0).values()} == {"too few"}


@pytest.mark.parametrize(("rows", "status"), [(0, "hidden"), (9, "hidden"), (10, "ok")])
def test_inputs_of_which_only_hashes_are_kept_are_hidden_unless_enough_others_are_there(rows: int, status: str) -> None:
    told = compare_column("number", [0, 1] * 50, [0, 1] * 5 if rows == 10 else [0] * rows, min_n=10, hidden=1000)
    assert {(n, status) for _, n, status in told.values()} == {(rows, status)}


def test_new_and_gone_columns_are_told_and_the_whole_is_counted() -> None:
    before = pd.DataFrame({"stays": TRUE_AND_FALSE, "goes": TRUE_AND_FALSE})
    now = pd.DataFrame({"comes": [1] * 50, "stays": [True] * 50})
    reference = make_reference(before, before, kinds={"stays": "boolean", "goes": "boolean"})
    rows = compare(reference, now, hidden=0, min_n=10, level=LEVEL)
    assert tell(rows) == {
        ("stays", "js"): (pytest.approx(1.5 - 0.75 * math.log2(3)), 50, "shifted"),
        ("stays", "missing_share"): (0.0, 50, "ok"),
        ("stays", "unreadable_share"): (0.0, 50, "ok"),
        ("goes", "js"): (NAN, 50, "gone"),
        ("goes", "missing_share"): (NAN, 50, "gone"),
        ("goes", "unreadable_share"): (NAN, 50, "gone"),
        ("comes", "missing_share"): (NAN, 50, "new"),
        ("", "shifted_columns"): (3.0, 3, "shifted"),
    }
    # Of 50 and 50, and 50 and 0, the chi-square as Yates corrected it; and of three tests the smallest p-value times 3.
    chi_square = 150 * (50 * 50 - 75) ** 2 / (50 * 100 * 100 * 50)
    assert [row["p"] for row in rows if not math.isnan(row["p"])] == pytest.approx(
        [3 * math.erfc(math.sqrt(chi_square / 2)), 1.0, 1.0]
    )


def test_without_anything_tested_the_number_of_shifted_columns_is_not_known() -> None:
    before = pd.DataFrame({"x": FIFTY})
    reference = make_reference(before, before, kinds={"x": "number"})
    few = pd.DataFrame({"comes": [1] * 9})
    found = [
        tell(compare(reference, now, hidden=hidden, min_n=10, level=LEVEL))["", "shifted_columns"]
        for now, hidden in [(before[:0], 0), (before[:0], 5), (few, 0), (pd.DataFrame(), 5)]
    ]
    assert found == [(NAN, 0, status) for status in ("too few", "hidden", "too few", "hidden")]


@pytest.mark.parametrize(("held", "told"), [(FIFTY, (1.0, 1, "shifted")), ([None] * 50, (NAN, 0, "all missing"))])
def test_a_column_that_is_gone_has_shifted_if_there_ever_was_one(held: list, told: tuple) -> None:
    before = pd.DataFrame({"x": held})
    reference = make_reference(before, before, kinds={"x": "number"})
    found = tell(compare(reference, pd.DataFrame(index=range(50)), hidden=0, min_n=10, level=LEVEL))
    assert found["", "shifted_columns"] == told


WEIRD = [
    None,
    " ",
    math.inf,
    -math.inf,
    math.nan,
    10**400,
    -(10**30),
    True,
    "x",
    "12",
    [1, {"a": [2]}],
    {"b": 1, "a": 2},
]
WEIRD += [
    "2024-02-29",
    "9999-12-31",
    "99999-01-01",
    "2024-02-30",
    "\ud800 a surrogate",
    "{{< env X >}}",
    b"bytes",
    pd.NaT,
    1e308,
    0,
]


@pytest.mark.parametrize("kind", MEASURES)
def test_no_value_kills_the_comparison(kind: str) -> None:
    told = compare_column(kind, WEIRD * 3, WEIRD[::-1] * 5)
    assert [*told] == [*MEASURES[kind]]
    assert {status for _, _, status in told.values()} == {"ok"}  # they are the same on both sides
    for current in ([], [[1]], [{}], [None], [10**400], [math.inf] * 3, ["\ud800"], [b"x"], [pd.Timestamp(0)]):
        statuses = {status for _, _, status in compare_column(kind, WEIRD, current).values()}
        assert statuses <= {"ok", "all missing", "too few", "shifted"}


def test_what_is_no_number_time_or_boolean_is_unreadable_and_not_missing() -> None:
    shares = {
        kind: tuple(round(told[name][0] * len(WEIRD)) for name in ("missing_share", "unreadable_share"))
        for kind in ("number", "date", "boolean")
        for told in [compare_column(kind, WEIRD, WEIRD)]
    }
    # Missing are None, the blank, NaN and NaT. Numbers are -(10**30), "12", 1e308 and 0; times are "2024-02-29" and
    # "9999-12-31"; booleans are True and 0.
    assert shares == {"number": (4, 14), "date": (4, 16), "boolean": (4, 16)}


def test_a_column_that_raises_is_told_and_the_others_go_on() -> None:
    before = pd.DataFrame({"good": FIFTY, "twice": FIFTY})
    now = pd.DataFrame([[n, n, n] for n in FIFTY], columns=["good", "twice", "twice"])
    kinds = {"good": "number", "twice": "number", "absent": "number"}
    told = tell(compare(make_reference(before, before, kinds=kinds), now, hidden=0, min_n=1, level=LEVEL))
    assert {
        column: status for (column, metric), (_, _, status) in told.items() if metric in ("ks", "shifted_columns")
    } == {
        "good": "ok",
        "twice": "failed: AttributeError: 'DataFrame' object has no attribute 'dtype'",
        "absent": "failed: KeyError: 'absent'",
        "": "ok",
    }


def test_few_held_out_rows_tell_what_is_unseen_and_the_training_rows_the_rest() -> None:
    train = pd.DataFrame({"plan": ["free"] * 300 + ["team"] * 300})
    for count in (FEWEST_HELD - 2, FEWEST_HELD):
        held = pd.DataFrame({"plan": ["free", "new"] * (count // 2)})  # half of it training did not know
        reference = make_reference(train, held, kinds={"plan": "category"})
        for current, expected in [(train, "few"), (held, "enough")]:
            told = tell(compare(reference, current, hidden=0, min_n=1, level=LEVEL))
            is_same = (expected == "few") == (count < FEWEST_HELD)
            assert told["plan", "js"][2] == ("ok" if is_same else "shifted")
            assert told["plan", "unseen_share"][2] == ("shifted" if expected == "few" else "ok")


def test_without_held_out_rows_nobody_knows_how_much_is_unseen_as_a_rule() -> None:
    train = pd.DataFrame({"plan": ["free"] * 300})
    reference = make_reference(train, train[:0], kinds={"plan": "category"})
    rows = compare(reference, pd.DataFrame({"plan": ["free"] * 90 + ["new"] * 10}), hidden=0, min_n=1, level=LEVEL)
    assert tell(rows)["plan", "unseen_share"] == (0.1, 100, "ok")
    assert math.isnan(rows[1]["p"])


def test_a_difference_that_does_not_matter_is_not_told_however_sure_it_is() -> None:
    random = np.random.default_rng(1)
    before, now = (pd.DataFrame({"x": random.normal(mean, 1, 100_000)}) for mean in (0, 0.05))
    now.loc[:999, "x"] = None  # 1 % that were none
    reference = make_reference(before, before, kinds={"x": "number"})
    rows = {row["metric"]: row for row in compare(reference, now, hidden=0, min_n=1, level=LEVEL)}
    assert [rows[metric]["status"] for metric in ("ks", "missing_share", "shifted_columns")] == ["ok"] * 3
    assert max(rows[metric]["p"] for metric in ("ks", "missing_share")) < 1e-9


def test_a_coin_of_50_percent_that_became_one_of_62_matters() -> None:
    assert jensen_shannon(np.array([[50, 50], [61, 39]])) < JS_MATTERS < jensen_shannon(np.array([[50, 50], [62, 38]]))


def test_the_more_columns_are_tested_the_surer_each_must_be() -> None:
    random = np.random.default_rng(2)
    before = pd.DataFrame(random.normal(size=(300, 1000)))
    now = pd.DataFrame(random.normal(size=(300, 1000)))
    now[7] += 0.5
    before, now = (frame.set_axis(list(map(str, frame)), axis=1) for frame in (before, now))
    reference = make_reference(before, before, kinds=dict.fromkeys(before, "number"))
    rows = compare(reference, now, hidden=0, min_n=200, level=LEVEL)
    assert {row["column"] for row in rows if row["status"] == "shifted"} == {"7", ""}
    assert rows[-1]["n"] == 1000


@settings(max_examples=20, deadline=None)
@given(st.permutations(list(KINDS)), st.integers(0, 2**32 - 1))
def test_the_order_of_columns_and_rows_changes_nothing(order: list[str], seed: int) -> None:
    random = np.random.default_rng(seed)
    train, held, now = (make_rows(n, random) for n in (150, 120, 100))
    about = {"hidden": 0, "min_n": 1, "level": LEVEL}
    told = tell(compare(make_reference(train, held, kinds=KINDS), as_sent(now), **about))
    mixed = make_reference(train[::-1], held[order].sample(frac=1, random_state=0), kinds={n: KINDS[n] for n in order})
    other = tell(compare(mixed, as_sent(now[order[::-1]][::-1]), **about))
    assert {key: pytest.approx(about) if NAN not in about else about for key, about in told.items()} == other


def test_every_measure_is_a_metric_that_a_rule_can_name() -> None:
    random = np.random.default_rng(3)
    rows = make_rows(200, random)
    found = compare(make_reference(rows, rows, kinds=KINDS), rows, hidden=0, min_n=1, level=LEVEL)
    assert {row["metric"] for row in found} == {*METRICS}


def test_with_nothing_shifted_false_alarms_are_as_rare_as_the_level_says() -> None:
    random, periods = np.random.default_rng(4), 400
    level, alarms, surprises = 0.1, 0, 0
    for _ in range(periods):
        train, held, now = (make_rows(n, random) for n in (300, 250, 220))
        rows = compare(make_reference(train, held, kinds=KINDS), now, hidden=0, min_n=200, level=level)
        alarms += rows[-1]["value"] > 0
        surprises += any(row["p"] < level for row in rows)  # also where the difference would not matter
    assert alarms <= surprises <= binom.ppf(0.999, periods, level)
    assert surprises > 0  # the tests are not so careful that they see nothing


def age_by_half_a_deviation(rows: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """All are 10 years older: half of the standard deviation of 20."""
    return rows.assign(age=rows["age"] + 10)


def forget_ages(rows: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """Instead of 5 % of the ages, 15 % are missing."""
    return rows.assign(age=rows["age"].mask(random.random(len(rows)) < 0.105))


def move_plans(rows: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """A third of the free plans are basic ones: 50 % and 30 % become 33 % and 47 %."""
    return rows.assign(plan=rows["plan"].mask((rows["plan"] == "free") & (random.random(len(rows)) < 1 / 3), "basic"))


def add_a_plan(rows: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """One row in ten has a plan that training did not know."""
    return rows.assign(plan=rows["plan"].mask(random.random(len(rows)) < 0.1, "family"))


def talk_of_something_new(rows: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """In one note of four, all words are new."""
    new = rows["note"].str.replace("word", "term")
    return rows.assign(note=rows["note"].mask(random.random(len(rows)) < 0.25, new))


@pytest.mark.parametrize(
    ("shift", "column", "metric"),
    [
        (age_by_half_a_deviation, "age", "ks"),
        (forget_ages, "age", "missing_share"),
        (move_plans, "plan", "js"),
        (add_a_plan, "plan", "unseen_share"),
        (talk_of_something_new, "note", "oov_share"),
    ],
)
def test_a_shift_of_a_known_size_is_seen_in_500_rows(shift: Callable, column: str, metric: str) -> None:
    random, draws, seen = np.random.default_rng(5), 60, 0
    for _ in range(draws):
        train, held, now = (make_rows(n, random) for n in (600, 500, 500))
        reference = make_reference(train, held, kinds=KINDS)
        told = tell(compare(reference, shift(now, random), hidden=0, min_n=200, level=0.01))
        seen += told[column, metric][2] == "shifted"
    assert seen >= 0.95 * draws
