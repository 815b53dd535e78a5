"""What kind of prediction the labels ask for: binary, multiclass or regression."""

from typing import Literal

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
    more than 5 % of the rows. Of all else, two distinct values are binary and more are multiclass. True and False are
    classes, and so is text that looks like a number.
    Raises DataError if there is nothing to predict or `forced` cannot be, ParameterError if it is no task.
    """
    if forced not in ("auto", *TASKS):
        raise ParameterError(f"task is {forced!r}, it must be auto, {', '.join(TASKS)}.{did_you_mean(forced, TASKS)}")
    known = labels[~is_missing(labels)].infer_objects()
    distinct = known.nunique()
    if distinct < 2:
        found = "no labels" if known.empty else f"only one label, {show(known.iloc[0])}"
        raise DataError(f"there are {found}, so nothing can be learnt. Two different ones are needed at least")
    are_numbers = types.is_numeric_dtype(known.dtype) and not types.is_bool_dtype(known.dtype)
    are_classes = not are_numbers or bool((known % 1 == 0).all())
    if forced == "auto":
        are_counts = are_numbers and distinct > max(MOST_CLASSES, LARGEST_SHARE * len(known))
        return "regression" if are_counts or not are_classes else "binary" if distinct == 2 else "multiclass"
    if forced == "regression":
        reason = "" if are_numbers else "the labels are not numbers"
    elif not are_classes:
        reason = "the labels are numbers that are not whole: take regression"
    else:
        reason = "" if (distinct == 2) == (forced == "binary") else f"there are {distinct} distinct labels"
    if reason:
        raise DataError(f"the task cannot be {forced}: {reason}")
    return forced
