"""The task that labels ask for, by rules that can be worked out by hand."""

import pandas as pd
import pytest
from pinmill.errors import DataError, ParameterError
from pinmill.task import infer_task


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (["ham", "spam", "ham"], "binary"),
        (["1", "2", "3"], "multiclass"),
        ([0, 1, 1, 0], "binary"),
        ([0.0, 1.0, None], "binary"),
        ([True, False], "binary"),
        ([True, False, None], "binary"),
        ([1, 2, 3, 1, 2, 3], "multiclass"),
        ([0.5, 1.5], "regression"),
        (list(range(20)), "multiclass"),
        (list(range(21)), "regression"),
        (list(range(21)) * 19, "regression"),
        (list(range(21)) * 20, "multiclass"),  # 21 of 420 rows are 5 %, and more than 5 % is asked for
        (["a", "b", None, " "], "binary"),
    ],
)
def test_task_follows_from_the_labels(labels, task):
    assert infer_task(pd.Series(labels)) == task


@pytest.mark.parametrize(
    ("labels", "forced"),
    [([1, 2, 3, 4], "regression"), ([0, 1], "regression"), (list(range(100)), "multiclass"), (["a", "b"], "binary")],
)
def test_task_can_be_forced(labels, forced):
    assert infer_task(pd.Series(labels), forced) == forced


@pytest.mark.parametrize(
    ("labels", "forced", "message"),
    [
        (["a", "b"], "regression", "the task cannot be regression: the labels are not numbers"),
        ([True, False], "regression", "the task cannot be regression: the labels are not numbers"),
        (["a", "b", "c"], "binary", "the task cannot be binary: there are 3 distinct labels"),
        (["a", "b"], "multiclass", "the task cannot be multiclass: there are 2 distinct labels"),
        (
            [0.5, 1.5, 2.5],
            "multiclass",
            "the task cannot be multiclass: the labels are numbers that are not whole: take regression",
        ),
        (
            ["a", "a"],
            "auto",
            "there are only one label, 'a', so nothing can be learnt. Two different ones are needed at least",
        ),
        ([None, None], "auto", "there are no labels, so nothing can be learnt. Two different ones are needed at least"),
    ],
)
def test_what_cannot_be_is_an_error(labels, forced, message):
    with pytest.raises(DataError) as caught:
        infer_task(pd.Series(labels), forced)
    assert str(caught.value) == message


def test_unknown_task_is_an_error_that_guesses():
    with pytest.raises(ParameterError, match="Did you mean 'binary'"):
        infer_task(pd.Series([0, 1]), "binry")
