import numpy as np
import pytest
from pinmill.bootstrap import baseline, paired_difference
from pinmill.errors import ParameterError
from pinmill.gate import decide
from pinmill.metrics import Predictions

N = 400
TRUTH = np.array(["n", "p"] * (N // 2), dtype=object)


def answers(share_right, *, classes=("n", "p"), positive="p", probability=False, seed=0):
    """Predictions of which that share is right."""
    right = np.random.default_rng(seed).permutation(N) < share_right * N
    said = np.where(right, TRUTH, np.where(TRUTH == "p", "n", "p"))
    scores = np.column_stack([said == "n", said == "p"]).astype(float) if probability else None
    return Predictions(TRUTH, said.astype(object), scores, classes, positive)


def judge(candidate, champion=None, **changed):
    arguments = {
        "comparable": np.ones(N, dtype=bool),
        "metric": "accuracy",
        "thresholds": {},
        "margin": 0.02,
        "min_n": 100,
        "draws": 500,
        "seed": 0,
        "baseline": baseline(["n", "n", "p"], TRUTH, task="binary", classes=("n", "p"), positive="p"),
    }
    return decide(candidate, champion=champion, **(arguments | changed))


def test_without_a_champion_the_baseline_and_the_thresholds_decide():
    decision = judge(answers(0.9), thresholds={"accuracy": 0.85})
    assert (decision.passed, decision.compared, decision.n, decision.difference) == (True, False, 0, None)
    assert decision.reasons == (
        "accuracy 0.9000 beats the trivial baseline's 0.5000.",
        "accuracy 0.9000 keeps its threshold: at least 0.85.",
        "Not compared with the champion: there is none yet. Only the absolute thresholds count.",
    )


def test_a_candidate_no_better_than_guessing_is_rejected():
    decision = judge(answers(0.5))
    assert not decision.passed
    assert decision.reasons[0] == "accuracy 0.5000 does not beat the trivial baseline's 0.5000."


def test_a_missed_threshold_rejects_and_the_other_checks_are_still_said():
    decision = judge(answers(0.9), answers(0.9), thresholds={"accuracy": 0.95, "f1": 0.5})
    assert (decision.passed, decision.compared, len(decision.reasons)) == (False, True, 4)
    assert decision.reasons[1] == "accuracy 0.9000 misses its threshold: at least 0.95."


def test_the_threshold_of_a_loss_is_a_ceiling():
    assert judge(answers(0.9, probability=True), thresholds={"brier": 0.11}).passed
    assert not judge(answers(0.9, probability=True), thresholds={"brier": 0.09}).passed


def test_the_lower_bound_of_the_difference_decides_against_the_champion():
    candidate, champion = answers(0.85, seed=1), answers(0.88, seed=2)
    difference = paired_difference(candidate, champion, "accuracy", draws=500, seed=0, level=0.90)
    decision = judge(candidate, champion)
    assert decision.difference == difference
    assert difference.low < -0.02
    assert not decision.passed
    assert "may be worse than the champion: accuracy -0.0300" in decision.reasons[-1]
    assert judge(candidate, champion, margin=-difference.low).passed
    assert not judge(candidate, champion, margin=-difference.low - 1e-9).passed


def test_the_same_model_again_passes():
    decision = judge(answers(0.9), answers(0.9))
    assert (decision.passed, decision.n) == (True, N)
    assert (decision.difference.value, decision.difference.low, decision.difference.high) == (0, 0, 0)


def test_only_rows_the_champion_was_not_trained_on_are_compared():
    champion, candidate = answers(1.0), answers(0.8)
    unseen = candidate.predicted == TRUTH  # the champion is better only where it was trained
    decision = judge(candidate, champion, comparable=unseen)
    assert (decision.passed, decision.n, decision.difference.value) == (True, 320, 0)


def test_too_few_unseen_rows_leave_the_absolute_checks_and_say_so():
    decision = judge(answers(0.7), answers(0.99), comparable=np.arange(N) < 99)
    assert (decision.passed, decision.compared, decision.n) == (True, False, 99)
    assert "only 99 test rows are ones it was not trained on, fewer than 100" in decision.reasons[-1]
    assert judge(answers(0.7), answers(0.99), comparable=np.arange(N) < 100).compared


def test_other_labels_leave_the_absolute_checks_and_say_so():
    decision = judge(answers(0.7), answers(0.99, classes=("n", "p", "q"), positive=None))
    assert (decision.passed, decision.compared) == (True, False)
    assert "their labels differ" in decision.reasons[-1]


def test_a_metric_without_value_on_the_unseen_rows_is_not_compared_and_never_passes_unsaid():
    candidate = answers(0.9, probability=True)
    decision = judge(candidate, answers(0.95, probability=True), metric="roc_auc", comparable=TRUTH == "n")
    assert (decision.compared, decision.difference) == (False, None)
    assert "roc_auc has no value in 500 of 500 bootstrap draws" in decision.reasons[-1]


def test_a_metric_without_value_on_all_test_rows_rejects():
    one_class = answers(0.9, probability=True).take(TRUTH == "n")
    guess = baseline(["n", "p"], one_class.truth, task="binary", classes=("n", "p"), positive="p")
    decision = judge(one_class, metric="roc_auc", thresholds={"accuracy": 0.5}, baseline=guess)
    assert not decision.passed
    why = "has no value on these 200 test rows: 'p' does not occur among them. Take split: stratified, or more rows."
    right = np.mean(one_class.predicted == one_class.truth)
    assert decision.reasons[:2] == (f"roc_auc {why}", f"accuracy {right:.4f} keeps its threshold: at least 0.5.")
    decision = judge(one_class, metric="accuracy", thresholds={"roc_auc": 0.7}, baseline=guess)
    assert (decision.passed, decision.reasons[1]) == (False, f"roc_auc {why}")


def test_a_metric_of_predictions_that_are_not_numbers_says_so():
    truth = np.arange(20.0)
    guess = baseline(truth, truth, task="regression")
    decision = judge(Predictions(truth, truth * np.nan, None, ()), baseline=guess, metric="rmse")
    assert not decision.passed
    assert decision.reasons[0] == "rmse has no value on these 20 test rows: look for NaN in the model's predictions."


@pytest.mark.parametrize(
    "why", ["the inputs differ: it needs age, which this data lacks", "it predicts something else"]
)
def test_why_there_is_no_champion_to_compare_with_is_said_in_the_words_given(why):
    decision = judge(answers(0.9), absent=why)
    told = f"Not compared with the champion: {why}. Only the absolute thresholds count."
    assert (decision.passed, decision.compared, decision.reasons[-1]) == (True, False, told)


def test_a_regression_is_judged_by_its_error():
    truth = np.arange(200.0)
    good, bad = (Predictions(truth, truth + error, None, ()) for error in (1.0, 5.0))
    guess = baseline(truth, truth, task="regression")
    common = {"baseline": guess, "metric": "rmse", "comparable": truth >= 0, "margin": 0.5}
    assert judge(good, bad, **common).passed
    decision = judge(bad, good, **common)
    assert (decision.passed, decision.difference.value) == (False, pytest.approx(-4))


def test_an_unknown_threshold_is_an_error():
    with pytest.raises(ParameterError, match=r"'acuracy' is no metric of a binary task. Did you mean 'accuracy'\?"):
        judge(answers(0.9), thresholds={"acuracy": 0.9})
