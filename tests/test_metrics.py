"""Expected values come from scikit-learn, called draw by draw with sample_weight, or are worked out by hand."""

import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
from pinmill.bootstrap import baseline, bootstrap_weights, paired_difference, score_table, summarise
from pinmill.errors import DataError, ParameterError
from pinmill.metrics import DEFAULT_METRICS, OTHER_METRICS, Predictions, metric_values, predict
from sklearn import metrics as sk
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier

DRAWS = 25


def predictions(task, *, n=160, seed=0, ties=True):
    random = np.random.default_rng(seed)
    if task == "regression":
        truth = random.normal(100, 3, n)
        return Predictions(truth, truth + random.normal(0, 2, n), None, ())
    classes = ("ham", "spam") if task == "binary" else ("a", "b", "c", "d")
    shares = random.dirichlet(np.ones(len(classes)), n)
    shares = (np.round(shares, 1) + 0.1) if ties else shares
    shares /= shares.sum(axis=1, keepdims=True)
    labels = np.array(classes, dtype=object)
    truth = labels[[random.choice(len(classes), p=row) for row in shares]]
    positive = "spam" if task == "binary" else None
    return Predictions(truth, labels[shares.argmax(axis=1)], shares, classes, positive)


def sklearn_value(p, name, w):
    """scikit-learn's value on the rows that a draw holds, with their weights."""
    kept = w > 0
    y, said, w = p.truth[kept], p.predicted[kept], w[kept]
    if p.task == "regression":
        function = {"r2": sk.r2_score, "mae": sk.mean_absolute_error, "rmse": sk.root_mean_squared_error}[name]
        return function(y, said, sample_weight=w)
    y, said, scores = y.astype(str), said.astype(str), p.probability[kept]
    macro = {
        kind + "_macro": partial(getattr(sk, kind + "_score"), average="macro", zero_division=0)
        for kind in ("precision", "recall", "f1")
    }
    simple = {"accuracy": sk.accuracy_score, **macro}
    if p.task == "binary":
        simple |= {
            kind: partial(getattr(sk, kind + "_score"), pos_label="spam", zero_division=0)
            for kind in ("precision", "recall", "f1")
        }
    if name in simple:
        return simple[name](y, said, sample_weight=w)
    if name == "log_loss":
        return sk.log_loss(y, scores, labels=list(p.classes), sample_weight=w)
    if name == "roc_auc_ovr":
        return sk.roc_auc_score(y, scores, multi_class="ovr", sample_weight=w, labels=list(p.classes))
    ranked = {
        "roc_auc": sk.roc_auc_score,
        "average_precision": sk.average_precision_score,
        "brier": sk.brier_score_loss,
    }
    return ranked[name](y == "spam", scores[:, 1], sample_weight=w)


@pytest.mark.parametrize(
    ("name", "task"),
    [(name, task) for names in (DEFAULT_METRICS, OTHER_METRICS) for task in names for name in names[task]],
)
@pytest.mark.parametrize("ties", [True, False])
def test_every_metric_equals_scikit_learns_under_counts_and_under_any_weights(name, task, ties):
    p = predictions(task, ties=ties)
    random = np.random.default_rng(1)
    counts = bootstrap_weights(len(p.truth), draws=DRAWS, seed=1)
    for weights in (counts, random.exponential(size=counts.shape), np.ones((1, len(p.truth)))):
        expected = [sklearn_value(p, name, draw) for draw in weights]
        np.testing.assert_allclose(metric_values(p, [name], weights)[name], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["f1_macro", "precision_macro", "recall_macro", "accuracy", "log_loss"])
def test_a_draw_without_some_class_is_scored_on_the_classes_that_occur_in_it(name):
    p = predictions("multiclass", n=12)
    weights = np.random.default_rng(2).integers(0, 2, (200, 12))
    weights = weights[weights.sum(axis=1) > 0]
    held = [set(p.truth[draw > 0]) | set(p.predicted[draw > 0]) for draw in weights]
    assert min(map(len, held)) < 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of a single label; ours must not
        expected = [sklearn_value(p, name, draw) for draw in weights]
    np.testing.assert_allclose(metric_values(p, [name], weights)[name], expected, rtol=0, atol=1e-9)


def test_ranking_metrics_of_one_class_are_nan_and_ratios_of_nothing_are_zero():
    p = Predictions(
        np.array(["n", "n", "p"], dtype=object),
        np.array(["n", "n", "n"], dtype=object),
        np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]),
        ("n", "p"),
        "p",
    )
    values = metric_values(
        p,
        ["roc_auc", "average_precision", "precision", "recall", "accuracy"],
        np.array([[1, 1, 0], [1, 1, 2], [0, 0, 0]]),
    )
    expected = {
        "roc_auc": [np.nan, 1, np.nan],
        "average_precision": [np.nan, 1, np.nan],
        "precision": [0, 0, np.nan],
        "recall": [0, 0, np.nan],
        "accuracy": [1, 0.5, np.nan],
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(values[name], value)


def test_roc_auc_ovr_is_the_mean_over_the_classes_that_a_draw_holds():
    p = predictions("multiclass", n=60)
    draw = (p.truth != "d").astype(int)
    expected = np.mean(
        [
            sk.roc_auc_score(p.truth[draw > 0] == label, p.probability[draw > 0, code])
            for code, label in enumerate("abc")
        ]
    )
    assert metric_values(p, ["roc_auc_ovr"], draw[None])["roc_auc_ovr"] == pytest.approx([expected], abs=1e-12)


def test_r2_of_a_constant_truth_is_scikit_learns():
    truth = np.array([3.3, 3.3, 3.3, 7.0])
    right = Predictions(truth, truth.copy(), None, ())
    wrong = Predictions(truth, truth + 1, None, ())
    draw = np.array([[1, 2, 3, 0]])
    assert (metric_values(right, ["r2"], draw)["r2"][0], metric_values(wrong, ["r2"], draw)["r2"][0]) == (1.0, 0.0)


def test_a_class_that_only_the_truth_knows_counts_as_missed():
    p = Predictions(
        np.array(["a", "b", "z"], dtype=object),
        np.array(["a", "b", "a"], dtype=object),
        np.array([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1]]),
        ("a", "b"),
    )
    values = metric_values(p, ["accuracy", "f1_macro"])
    assert values["accuracy"][0] == pytest.approx(2 / 3)
    assert values["f1_macro"][0] == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_chunks_do_not_change_a_value(monkeypatch):
    p = predictions("binary")
    weights = bootstrap_weights(160, draws=10, seed=0)
    whole = metric_values(p, DEFAULT_METRICS["binary"], weights)
    monkeypatch.setattr("pinmill.metrics.CELLS", 500)
    for name, value in metric_values(p, DEFAULT_METRICS["binary"], weights).items():
        np.testing.assert_allclose(value, whole[name], rtol=0, atol=1e-12)


def test_bootstrap_weights_count_n_draws_and_repeat_with_the_seed():
    weights = bootstrap_weights(500, draws=20, seed=3)
    assert weights.dtype == np.uint16
    assert (weights[0] == 1).all()  # the rows as they are
    assert weights.sum(axis=1).tolist() == [500] * 21
    assert (weights == bootstrap_weights(500, draws=20, seed=3)).all()
    assert (weights != bootstrap_weights(500, draws=20, seed=4)).any()
    assert (weights[1:] == 0).mean() == pytest.approx(np.exp(-1), abs=0.02)  # each row is left out with (1 - 1/n)^n


def test_interval_of_accuracy_is_the_binomial_one():
    correct = np.array([1] * 320 + [0] * 80)
    p = Predictions(np.ones(400).astype(int).astype(object), correct.astype(object), None, (0, 1), 1)
    row = score_table(p, ["accuracy"], draws=4000, seed=0).iloc[0]
    spread = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert (row["metric"], row["value"], row["n"], row["undefined"]) == ("accuracy", 0.8, 400, 0)
    assert (row["low"], row["high"]) == pytest.approx((0.8 - spread, 0.8 + spread), abs=0.003)


def test_draws_without_a_value_are_counted_and_too_many_leave_no_interval():
    labels = np.array(["p"] + ["n"] * 9, dtype=object)
    p = Predictions(labels, labels, np.column_stack([labels == "n", labels == "p"]).astype(float), ("n", "p"), "p")
    row = score_table(p, ["roc_auc"], draws=2000, seed=0).iloc[0]
    assert row["undefined"] / 2000 == pytest.approx(0.9**10, abs=0.03)
    assert (row["low"], row["high"]) == (1.0, 1.0)
    assert np.isnan(summarise(np.array([1.0, 1.0, np.nan, np.nan]), level=0.9)[1:3]).all()


def test_paired_difference_of_a_loss_is_positive_for_the_better_candidate():
    truth = np.arange(50.0)
    better, worse = Predictions(truth, truth + 1, None, ()), Predictions(truth, truth - 3, None, ())
    difference = paired_difference(better, worse, "mae", draws=100, seed=0)
    assert (difference.value, difference.low, difference.high) == pytest.approx((2, 2, 2))
    assert paired_difference(worse, better, "mae", draws=100, seed=0).value == pytest.approx(-2)


def test_paired_difference_refuses_other_rows():
    p = predictions("binary")
    with pytest.raises(DataError, match="different rows"):
        paired_difference(p, p.take(np.arange(100)), "f1", draws=10, seed=0)


def test_baseline_guesses_the_majority_with_the_training_sides_frequencies():
    p = baseline(["b", "b", "b", "a"], ["a", "b"], task="binary", classes=("a", "b"), positive="b")
    assert p.predicted.tolist() == ["b", "b"]
    assert p.probability.tolist() == [[0.25, 0.75]] * 2
    assert metric_values(p, ["roc_auc"])["roc_auc"].tolist() == [0.5]
    assert baseline([1, 2, 6], [0, 0], task="regression").predicted.tolist() == [3.0, 3.0]


@pytest.mark.parametrize("labels", [["n", "y"], [0, 1], [False, True]])
def test_predict_keeps_the_kind_of_labels(labels):
    frame = pd.DataFrame({"x": [0.0, 0.1, 2.0, 2.1]})
    truth = pd.Series([labels[0]] * 2 + [labels[1]] * 2)
    p = predict(LogisticRegression().fit(frame, truth), frame, truth, task="binary", positive=labels[1])
    assert p.classes == tuple(labels)
    assert metric_values(p, ["accuracy", "roc_auc", "f1"]) == {"accuracy": [1], "roc_auc": [1], "f1": [1]}


def test_predict_of_a_regression_has_numbers_and_no_classes():
    frame = pd.DataFrame({"x": [0.0, 1.0, 2.0]})
    p = predict(LinearRegression().fit(frame, [0, 2, 4]), frame, pd.Series([0, 2, 5]), task="regression")
    assert (p.classes, p.probability, p.task) == ((), None, "regression")
    assert metric_values(p, ["mae"])["mae"] == pytest.approx([1 / 3])


def test_a_positive_class_of_the_wrong_type_is_named():
    frame = pd.DataFrame({"x": [0.0, 1.0]})
    with pytest.raises(DataError, match=r"'1' is none of the model's \[0, 1\]"):
        predict(LogisticRegression().fit(frame, [0, 1]), frame, [0, 1], task="binary", positive="1")


def test_a_model_without_probabilities_keeps_the_metrics_that_need_none():
    frame = pd.DataFrame({"x": [0.0, 0.1, 2.0, 2.1]})
    p = predict(RidgeClassifier().fit(frame, [0, 0, 1, 1]), frame, [0, 0, 1, 1], task="binary", positive=1)
    with pytest.raises(DataError, match="no probabilities, which roc_auc need"):
        metric_values(p, ["f1", "roc_auc"])


def test_wrong_use_is_named():
    p = predictions("binary")
    with pytest.raises(ParameterError, match=r"2 problems .*'f1_marco'.* Did you mean 'f1_macro'\?.*'rmse'"):
        metric_values(p, ["f1_marco", "rmse"])
