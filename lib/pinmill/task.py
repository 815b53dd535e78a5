"""What kind of prediction the labels ask for: binary, multiclass or regression."""

from typing import Literal

import pandas
from pandas import Series
from pandas.api import types

from pinmill.errors import DataError, ParameterError, did_you_mean
from pinmill.table import is_missing, show

Task = Literal["binary", "multiclass", "regression"]

TASKS = ("binary", "multiclass", "regression")
MOST_CLASSES = 20  # more distinct whole numbers than this may be a count …
LARGEST_SHARE = 0.05  # … and are one if they are more than 5 % of the rows: classes come back, amounts seldom do


def infer_task(labels: Series, forced: str = "auto") -> Task:
    """The task of `labels`, or `forced` if it can be that; missing labels count for nothing.

    Numbers that are not all whole are a regression, and so are whole ones with more than 20 distinct values that are
    more than 5 % of the rows. Of all else, two distinct values are binary and more are multiclass.
    Raises DataError if there is nothing to predict or `forced` cannot be, ParameterError if it is no task.
    """
    if forced not in ("auto", *TASKS):
        raise ParameterError(f"task is {forced!r}, it must be auto, {', '.join(TASKS)}.{did_you_mean(forced, TASKS)}")
    known = labels[~is_missing(labels)]
    distinct = known.nunique()
    if distinct < 2:
        found = "no labels" if known.empty else f"only one label, {show(known.iloc[0])}"
        raise DataError(f"there are {found}, so nothing can be learnt. Two different ones are needed at least")
    numbers = _as_numbers(known)
    if forced != "auto":
        return _check_forced(forced, numbers, distinct)
    if numbers is not None and (not _are_whole(numbers) or _are_counts(distinct, len(known))):
        return "regression"
    return "binary" if distinct == 2 else "multiclass"


def _check_forced(forced: Task, numbers: Series | None, distinct: int) -> Task:
    if forced == "regression":
        reason = "" if numbers is not None else "its labels are not numbers"
    elif numbers is not None and not _are_whole(numbers):
        reason = "its labels are numbers that are not whole: take regression"
    elif forced == "binary":
        reason = "" if distinct == 2 else f"it has {distinct} distinct labels: take multiclass"
    else:
        reason = "" if distinct > 2 else "it has two distinct labels: take binary"
    if reason:
        raise DataError(f"the task cannot be {forced}, as {reason}" if reason[:3] == "its" else
                        f"the task cannot be {forced}: {reason}")  # fmt: skip
    return forced


def _as_numbers(labels: Series) -> Series | None:
    """`labels` as numbers if all are; True and False are classes, and so is text that looks like a number."""
    if types.is_bool_dtype(labels.dtype) or types.is_datetime64_any_dtype(labels.dtype):
        return None
    if types.is_numeric_dtype(labels.dtype):
        return labels
    if all(isinstance(label, int | float) and not isinstance(label, bool) for label in labels):
        return pandas.to_numeric(labels)
    return None


def _are_whole(numbers: Series) -> bool:
    return bool((numbers % 1 == 0).all())


def _are_counts(distinct: int, n: int) -> bool:
    return distinct > MOST_CLASSES and distinct > LARGEST_SHARE * n
