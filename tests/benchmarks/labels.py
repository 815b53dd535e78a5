"""What uncertainty sampling buys over random: labels needed for the same ROC AUC on the spam data.

From 20 random labels on, batches of 20 more are chosen among 2,000 open examples in random order, as the queue does:
those that the model is least sure of (`pinmill.queue.order_pool`), or the first. The model is the one of 02-train,
fitted from counts that were made once; that this is the same model is checked. Both ways begin with the same labels;
the AUC is that on one test part of 30 % (texts that occur twice are taken once), which nothing is chosen from.
Target: random needs >= 2 times the labels for the AUC that it has at 1,000.

Run: .venv/bin/python tests/benchmarks/labels.py [--seeds 10] [--plot reports/uncertainty.svg]
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from pinmill.queue import POOL, order_pool
from scipy import sparse, stats
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

ROOT = Path(__file__).parents[2]
DATA = os.environ.get("PINMILL_TEST_DATA") or os.environ.get("PINMILL_DATA") or str(ROOT.parent / "shared" / "data")
BATCH, MOST = 20, 1_000
STEPS = np.arange(BATCH, MOST + 1, BATCH)
WAYS = ("random", "uncertainty")
TARGET = 2.0
VECTORIZERS = ({"ngram_range": (1, 2)}, {"analyzer": "char_wb", "ngram_range": (2, 5)})
CLASSIFIER = LogisticRegression(C=10, class_weight="balanced", solver="newton-cg", max_iter=1000)


class Model:
    """The model of 02-train, fitted on some of the texts whose counts are given."""

    def __init__(self, counts: list[sparse.csr_matrix], rows: np.ndarray, labels: np.ndarray) -> None:
        self._columns = [np.flatnonzero((each[rows] > 0).sum(axis=0).A1 >= 2) for each in counts]
        chosen = [each[rows][:, columns] for each, columns in zip(counts, self._columns, strict=True)]
        self._weights = [TfidfTransformer(sublinear_tf=True).fit(each) for each in chosen]
        inputs = sparse.hstack([weigh.transform(each) for weigh, each in zip(self._weights, chosen, strict=True)])
        self._classifier = LogisticRegression(**CLASSIFIER.get_params()).fit(inputs, labels[rows])

    def predict(self, counts: list[sparse.csr_matrix], rows: np.ndarray) -> np.ndarray:
        """The probability of spam of each of the rows."""
        parts = zip(self._weights, counts, self._columns, strict=True)
        inputs = sparse.hstack([weigh.transform(each[rows][:, columns]) for weigh, each, columns in parts])
        return self._classifier.predict_proba(inputs)[:, 1]


def read_texts() -> pd.DataFrame:
    """The texts, each once, in a fixed order."""
    return pd.read_csv(Path(DATA) / "spam.csv").drop_duplicates("text").reset_index(drop=True)


def check_model(texts: pd.DataFrame, counts: list[sparse.csr_matrix], labels: np.ndarray) -> float:
    """The largest difference from the pipeline that 02-train shows, on 300 texts after 200."""
    notebook = (ROOT / "notebooks" / "02-train.ipynb").read_text(encoding="utf-8")
    classifier = 'LogisticRegression(C=10, class_weight=\\"balanced\\", solver=\\"newton-cg\\", max_iter=1000)'
    shown = [classifier, "TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)"]
    if missing := [code for code in shown if code not in notebook]:
        sys.exit(f"02-train has changed: it does not hold {missing}; change this script, too")
    parts = [
        (str(n), TfidfVectorizer(min_df=2, sublinear_tf=True, **each), "text") for n, each in enumerate(VECTORIZERS)
    ]
    pipeline = make_pipeline(ColumnTransformer(parts), CLASSIFIER).fit(texts[:200], labels[:200])
    ours = Model(counts, np.arange(200), labels).predict(counts, np.arange(200, 500))
    return float(np.abs(pipeline.predict_proba(texts[200:500])[:, 1] - ours).max())


def simulate(
    way: str, seed: int, counts: list[sparse.csr_matrix], labels: np.ndarray, train: np.ndarray, test: np.ndarray
) -> list[float]:
    """The AUC after each of STEPS, labels being chosen one way."""
    shuffled = np.random.default_rng(seed).permutation(train)
    known, still = shuffled[:BATCH], shuffled[BATCH:]
    scores = []
    for step in STEPS:
        model = Model(counts, known, labels)
        scores.append(roc_auc_score(labels[test], model.predict(counts, test)))
        chosen = still[:BATCH]
        if way == "uncertainty" and step < MOST:
            pool = still[:POOL]
            said = [{"spam": p, "ham": 1 - p} for p in model.predict(counts, pool)]
            chosen = np.array([int(row) for row in order_pool(way, [str(row) for row in pool], said)[:BATCH]])
        known, still = np.concatenate([known, chosen]), still[~np.isin(still, chosen)]
    return scores


def labels_for(scores: np.ndarray, wanted: float) -> float:
    """How many labels it takes until the AUC is `wanted`, between two steps by a line; infinity if it never is."""
    reached = np.flatnonzero(scores >= wanted)
    if not len(reached) or not reached[0]:
        return float(STEPS[0]) if len(reached) else np.inf
    before, after = reached[0] - 1, reached[0]
    share = (wanted - scores[before]) / (scores[after] - scores[before])
    return float(STEPS[before] + share * BATCH)


def find_band(scores: np.ndarray) -> np.ndarray:
    """Half the width of the 95 % interval of the mean over seeds, at each step."""
    return stats.t.ppf(0.975, len(scores) - 1) * scores.std(axis=0, ddof=1) / np.sqrt(len(scores))


def plot(curves: dict[str, np.ndarray], wanted: float, needed: dict[str, float], target: Path, n: int) -> None:
    """Write the figure as SVG."""
    import matplotlib.pyplot as plt

    plt.style.use("pinmill.figures")
    figure, axes = plt.subplots()
    for way, name in (("uncertainty", "least certain first"), ("random", "random order")):
        mean, half = curves[way].mean(axis=0), find_band(curves[way])
        (line,) = axes.plot(STEPS, mean, label=f"{name}: {needed[way]:,.0f} labels")
        axes.fill_between(STEPS, mean - half, mean + half, color=line.get_color(), alpha=0.2, linewidth=0)
        axes.plot([needed[way]] * 2, [0, wanted], color=line.get_color(), linestyle=":")
    axes.axhline(wanted, color="#888888", linewidth=0.8)
    axes.set(xlim=(0, MOST * 1.02), ylim=(0.94, 1.0), xlabel="labels", ylabel=f"ROC AUC on {n:,} test texts")
    axes.set_title(f"Spam: labels for a ROC AUC of {wanted:.3f} ({len(curves['random'])} seeds, 95 % band)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.62, 0.05))
    figure.savefig(target, metadata={"Date": None, "Creator": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    texts = read_texts()
    labels = (texts["label"] == "spam").to_numpy()
    counts = [CountVectorizer(dtype=np.float64, **each).fit_transform(texts["text"]).tocsr() for each in VECTORIZERS]
    print(f"{len(texts):,} texts, {labels.mean():.1%} spam; off 02-train by {check_model(texts, counts, labels):.1e}")
    train, test = train_test_split(np.arange(len(texts)), test_size=0.3, stratify=labels, random_state=42)
    scores: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for seed in range(given.seeds):
        for way in WAYS:
            scores[way].append(simulate(way, seed, counts, labels, train, test))
        print(
            f"seed {seed}: AUC at {MOST:,} " + ", ".join(f"{w} {s[-1][-1]:.4f}" for w, s in scores.items()), flush=True
        )
    curves = {way: np.array(each) for way, each in scores.items()}
    means = {way: each.mean(axis=0) for way, each in curves.items()}
    for step in (20, 100, 200, 300, 500, 1000):
        place = step // BATCH - 1
        told = [f"{way} {means[way][place]:.4f} ± {find_band(curves[way])[place]:.4f}" for way in WAYS]
        print(f"{step:>5} labels: {', '.join(told)}")
    for at in (200, 300, 500, MOST):
        wanted = means["random"][at // BATCH - 1]
        needed = {way: labels_for(means[way], wanted) for way in WAYS}
        single = [labels_for(one, wanted) for one in curves["uncertainty"]]
        ratio = needed["random"] / needed["uncertainty"]
        seen = f"{needed['uncertainty']:.0f} (single seeds {min(single):.0f} to {max(single):.0f})"
        print(f"AUC {wanted:.4f}: random {needed['random']:.0f} labels, uncertainty {seen}: {ratio:.2f} times")
    if given.plot:
        plot(curves, wanted, needed, given.plot, len(test))
    print(f"target >= {TARGET:g} times at {MOST:,}: {'ok' if ratio >= TARGET else 'MISSED'}")
    return 0 if ratio >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
