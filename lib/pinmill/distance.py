"""Distances between two samples, the p-values of their difference, and the correction for many of these. Pure."""

import math
import re
import warnings
from collections.abc import Collection, Sequence

import numpy as np
import pandas

from pinmill.errors import DataError

EMPTY_BIN = 0.5  # rows that stand for none: keeps the logarithm finite, and says less than one row would
FEWEST_EXPECTED = 5  # rows of a category: with fewer, the chi-square distribution is a bad approximation (Cochran 1954)
WORD = re.compile(r"\b\w\w+\b")  # as the text models of 02-train tell words apart


def population_stability_index(reference: np.ndarray, current: np.ndarray, *, bins: int = 10) -> float:
    """Shift of `current` from `reference`; 0 is none, larger is more.

    Both of shape (n,), finite, in the same unit. Bin edges are quantiles of `reference`, the outer bins open; equal
    edges, as those of discrete numbers, are one. Raises DataError if either is empty.
    Source: Yurdakul (2018), section 3.
    """
    if not len(reference) or not len(current):
        raise DataError(f"{len(reference)} reference and {len(current)} current values; at least one each is needed")
    top = np.max(reference)
    quantiles = np.unique(np.quantile(reference, np.arange(1, bins) / bins, method="inverted_cdf"))
    edges = quantiles[quantiles < top] if quantiles[0] < top else np.array([np.nextafter(top, -np.inf), top])
    sides = [np.bincount(np.searchsorted(edges, v), minlength=len(edges) + 1) for v in (reference, current)]
    filled = np.maximum(sides, EMPTY_BIN)[:, np.sum(sides, axis=0) > 0]
    before, now = filled / np.array([[len(reference)], [len(current)]])
    return float(np.sum((now - before) * np.log(now / before)))


def kolmogorov_smirnov(reference: np.ndarray, current: np.ndarray) -> tuple[float, float]:
    """The largest difference of two cumulative distributions, 0 to 1, and its p-value: SciPy's `ks_2samp`."""
    from scipy.stats import ks_2samp

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # where the exact p-value has no number, it takes the asymptotic
        found = ks_2samp(reference, current)
    return float(found.statistic), float(found.pvalue)


def jensen_shannon(counts: np.ndarray) -> float:
    """The Jensen–Shannon divergence of two rows of counts, shape (2, categories), in bits: 0 is the same, 1 disjoint.

    It is the square of the distance that SciPy calls `jensenshannon`, to base 2.
    """
    from scipy.special import rel_entr

    shares = counts / counts.sum(axis=1, keepdims=True)
    return max(0.0, float(rel_entr(shares, shares.mean(axis=0)).sum() / (2 * math.log(2))))


def count_values(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """How often each category that occurs stands in either, of shape (2, categories)."""
    codes, names = pandas.factorize(np.concatenate([reference, current]))
    sides = codes[: len(reference)], codes[len(reference) :]
    return np.array([np.bincount(side, minlength=len(names)) for side in sides])


def chi_square_p(counts: np.ndarray) -> float:
    """The p-value of two rows of counts, shape (2, categories), having the same shares.

    The rarest categories are taken together, until 5 rows are expected of each; 1.0 if that leaves one.
    """
    from scipy.stats import chi2_contingency

    ordered = counts[:, np.argsort(counts.sum(axis=0), kind="stable")]
    expected = ordered.sum(axis=0) * (ordered.sum(axis=1).min() / ordered.sum())
    pooled = max(int((expected < FEWEST_EXPECTED).sum()), int(np.searchsorted(expected.cumsum(), FEWEST_EXPECTED)) + 1)
    tested = np.column_stack([ordered[:, :pooled].sum(axis=1), ordered[:, pooled:]])
    return float(chi2_contingency(tested).pvalue) if tested.shape[1] > 1 else 1.0


def share_p(before: tuple[int, int], now: tuple[int, int]) -> float:
    """The p-value of two shares, each (rows of the kind, all rows), being the same: Fisher's exact test, two-sided."""
    from scipy.stats import fisher_exact

    return float(fisher_exact([[hits, rows - hits] for hits, rows in (before, now)]).pvalue)


def out_of_vocabulary_shares(texts: Sequence[str], vocabulary: Collection[str]) -> np.ndarray:
    """Of each text the share of its words that are not in `vocabulary` (of lower-case ones); 0 for one of no words."""
    found = (WORD.findall(text.lower()) for text in texts)
    return np.array([sum(word not in vocabulary for word in words) / max(len(words), 1) for words in found], float)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P-values corrected for there being several: one below a level is so by chance at most that often, of all.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    given = np.asarray(p_values, float)
    order = np.argsort(given, kind="stable")
    stepped = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    return np.minimum(stepped, 1.0)[np.argsort(order, kind="stable")]
