"""Distances, p-values and their correction: by hand, against SciPy, and the numbers of published examples."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pinmill.distance import (
    chi_square_p,
    count_values,
    holm,
    jensen_shannon,
    kolmogorov_smirnov,
    out_of_vocabulary_shares,
    population_stability_index,
    share_p,
)
from pinmill.errors import DataError
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp

EIGHT = np.arange(1.0, 9.0)  # quarters of it are 1 2, 3 4, 5 6, 7 8
LN2 = math.log(2)
FLOATS = st.floats(-1e9, 1e9)
SAMPLES = arrays.arrays(float, st.integers(1, 60), elements=st.one_of(FLOATS, st.sampled_from([0.0, 1.0, 2.0])))
TABLES = arrays.arrays(int, st.tuples(st.just(2), st.integers(1, 9)), elements=st.integers(1, 50))


def yates_p(a: int, b: int, c: int, d: int) -> float:
    """The textbook formula of the corrected chi-square test of a table of two by two."""
    n = a + b + c + d
    chi_square = n * (abs(a * d - b * c) - n / 2) ** 2 / ((a + b) * (c + d) * (a + c) * (b + d))
    return math.erfc(math.sqrt(chi_square / 2))


# Population stability index. With shares of 1/4 in the reference: sum of (share - 1/4) ln(share / (1/4)).
@pytest.mark.parametrize(
    ("current", "expected"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], 0.0),
        ([1, 1, 2, 2, 3, 4, 5, 7], 0.5 * LN2),  # 4 2 1 1 of 8
        ([1, 1, 2, 2, 3, 4, 5, 6], 0.625 * LN2),  # 4 2 2 0: the empty bin counts as half a row
        ([-1e300, 0, 2.5, 4, 5, 6, 7, 1e300], 0.0),  # the outer bins are open
    ],
)
def test_the_psi_is_that_of_a_sum_by_hand(current: list[float], expected: float) -> None:
    found = population_stability_index(EIGHT, np.array(current, float), bins=4)
    assert found == pytest.approx(expected, abs=1e-12)


def test_equal_edges_of_discrete_numbers_are_one() -> None:
    # Nine in ten are 0: the bins are "to 0" and "above 0"; shares 0.9 and 0.1 became 0.5 and 0.5.
    found = population_stability_index(np.array([0] * 9 + [1]), np.array([0, 1]))
    assert found == pytest.approx(0.4 * math.log(9), abs=1e-12)


def test_a_constant_that_moved_has_shifted_either_way() -> None:
    # All of four rows were in one bin of which none is left: (1/8 - 1) ln(1/8) twice, once from either side.
    constant = np.full(4, 7.0)
    assert population_stability_index(constant, constant[:2]) == 0.0
    for moved in (6.0, 8.0):
        assert population_stability_index(constant, np.full(4, moved)) == pytest.approx(2 * 7 / 8 * math.log(8))


@pytest.mark.parametrize("sides", [([], [1.0]), ([1.0], [])])
def test_a_side_without_values_has_no_psi(sides: tuple[list, list]) -> None:
    with pytest.raises(DataError, match="at least one each is needed"):
        population_stability_index(*map(np.array, sides))


@given(SAMPLES, SAMPLES, st.integers(2, 20))
def test_the_psi_is_zero_for_the_same_rows_in_any_order_and_never_below(
    one: np.ndarray, other: np.ndarray, bins: int
) -> None:
    assert population_stability_index(one, one[::-1], bins=bins) == 0.0
    assert population_stability_index(one, other, bins=bins) >= 0.0


@given(SAMPLES, SAMPLES)
def test_kolmogorov_smirnov_is_that_of_scipy(one: np.ndarray, other: np.ndarray) -> None:
    with warnings.catch_warnings(action="ignore"):
        expected = ks_2samp(one, other)
    assert kolmogorov_smirnov(one, other) == (expected.statistic, expected.pvalue)


def test_kolmogorov_smirnov_of_a_textbook_case() -> None:
    # Of the 70 orders of four and four values, two are fully apart.
    assert kolmogorov_smirnov(np.arange(4), np.arange(4) + 10) == pytest.approx((1.0, 2 / 70))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([[5, 5], [1, 1]], 0.0),
        ([[3, 0], [0, 8]], 1.0),
        ([[1, 1], [4, 0]], 1.5 - 0.75 * math.log2(3)),  # half of each part: 1/2 - log2(3/2)/2 + 1/2 and log2(4/3)
    ],
)
def test_the_divergence_is_that_of_a_sum_by_hand(counts: list[list[int]], expected: float) -> None:
    assert jensen_shannon(np.array(counts)) == pytest.approx(expected, abs=1e-12)


@given(TABLES)
def test_the_divergence_is_scipys_distance_squared_and_symmetric(counts: np.ndarray) -> None:
    found = jensen_shannon(counts)
    distance = jensenshannon(*(counts / counts.sum(axis=1, keepdims=True)), base=2)
    assert found == pytest.approx(np.nan_to_num(distance) ** 2, abs=1e-9)  # a root of -0.0 by rounding is NaN there
    assert found == pytest.approx(jensen_shannon(counts[::-1]), abs=1e-12)
    assert 0 <= found <= 1


def test_values_are_counted_side_by_side() -> None:
    names = [np.array(side, dtype=object) for side in (["a", "b", "a"], ["c", "b"])]
    assert count_values(*names).tolist() == [[2, 1, 0], [0, 1, 1]]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([[30, 70], [50, 50]], yates_p(30, 70, 50, 50)),
        # Of the last three one row is expected each: 3 are too few, so that they join the rarer of the others.
        ([[50, 47, 1, 1, 1], [48, 49, 1, 1, 1]], yates_p(50, 50, 48, 52)),
        ([[10], [20]], 1.0),
        ([[0, 1] * 50, [1, 0] * 50], 1.0),  # all are rare: together they are one
    ],
)
def test_the_chi_square_test_takes_rare_categories_together(counts: list[list[int]], expected: float) -> None:
    assert chi_square_p(np.array(counts)) == pytest.approx(expected, abs=1e-12)


@given(TABLES)
def test_the_chi_square_test_does_not_depend_on_the_order_of_the_sides(counts: np.ndarray) -> None:
    found = chi_square_p(counts)
    assert 0 <= found <= 1
    assert chi_square_p(counts[::-1]) == pytest.approx(found, abs=1e-9)


def test_two_shares_are_compared_as_fisher_did_with_cups_of_tea() -> None:
    # Fisher (1935): of four cups she named three rightly; 34 of the 70 ways to choose four of eight are as far off.
    assert share_p((3, 4), (1, 4)) == pytest.approx(34 / 70)
    assert share_p((0, 500), (0, 200)) == 1.0


def test_words_outside_the_vocabulary_are_told_of_each_text() -> None:
    texts = ["Win a PRIZE now", "win win crypto", "?! a", "", "straße école"]  # one letter is no word
    assert out_of_vocabulary_shares(texts, {"win", "now", "école"}).tolist() == [1 / 3, 1 / 3, 0.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("given", "corrected"),
    [
        ([], []),
        ([0.2], [0.2]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # p.adjust(p, "holm") of R
        ([0.6, 0.7, 0.5], [1.0, 1.0, 1.0]),
        ([0.01, 0.01, 0.02], [0.03, 0.03, 0.03]),
    ],
)
def test_p_values_are_corrected_as_holm_did(given: list[float], corrected: list[float]) -> None:
    assert holm(given).tolist() == pytest.approx(corrected)


@given(st.lists(st.floats(0, 1), max_size=20), st.randoms())
def test_the_correction_lies_between_none_and_bonferronis_and_goes_with_its_p_value(given: list[float], random) -> None:
    found = holm(given)
    assert all(p <= c <= min(1, p * len(given)) + 1e-15 for p, c in zip(given, found, strict=True))
    order = random.sample(range(len(given)), len(given))
    assert holm([given[place] for place in order]).tolist() == [found[place] for place in order]
