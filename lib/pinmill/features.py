"""What a linear model goes by: its telling features, and why one row got its prediction."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from pinmill.errors import DataError, ModelError
from pinmill.metrics import as_labels


def is_linear(pipeline: Any) -> bool:
    """True if the last step has a coefficient per feature, so that telling_features and explain work."""
    coefficients = getattr(_split(pipeline)[1], "coef_", None)
    return isinstance(coefficients, np.ndarray) and coefficients.dtype != object


def telling_features(pipeline: Any, *, n: int = 15) -> pd.DataFrame:
    """The n features that speak most for each class: class, feature, weight.

    weight is how much the feature adds to the class's score per unit of its value, always > 0, largest first. A
    binary model's weights are turned for its first class; a regression has the classes 'lower' and 'higher'.
    Features read 'word: foo', 'chars: ‹ing ›', 'city = Paris' and so on. Raises ModelError for other models.
    """
    labels, weights = _weights(pipeline)
    names = _find_names(pipeline)
    rows = []
    for label, row in zip(labels, weights, strict=True):
        top = np.argsort(-row, kind="stable")[:n]
        rows += [(label, names(index), float(row[index])) for index in top if row[index] > 0]
    return pd.DataFrame(rows, columns=["class", "feature", "weight"])


def explain(pipeline: Any, row: pd.DataFrame, *, toward: Any = None) -> pd.DataFrame:
    """What each feature of one row adds to the score of the predicted class (or of class `toward`).

    feature, contribution; the largest in size first, without those that add nothing. With the intercept they sum to
    the decision function or predicted number, where the target is transformed, such as by a logarithm, before it is
    turned back. Raises DataError unless `row` has one row and `toward` is a class.
    """
    return make_explainer(pipeline)(row, toward)


def make_explainer(pipeline: Any) -> Callable[[pd.DataFrame, Any], pd.DataFrame]:
    """The function (row, toward) that `explain` is for one pipeline; to name features takes longer than to use it."""
    labels, weights = _weights(pipeline)
    names, (head, last) = _find_names(pipeline), _split(pipeline)

    def explain_row(row: pd.DataFrame, toward: Any) -> pd.DataFrame:
        """The contributions to one row, as `explain` gives them."""
        if len(row) != 1:
            raise DataError(f"explain takes one row, got {len(row)}. Pass frame.iloc[[i]].")
        predicted = pipeline.predict(row)[0] if hasattr(last, "classes_") else "higher"
        label = predicted if toward is None else toward
        if label not in labels:
            raise DataError(f"{label!r} is none of the model's classes {labels}.")
        inputs = head.transform(row) if head else row.to_numpy()
        values = inputs.toarray()[0] if hasattr(inputs, "toarray") else np.asarray(inputs, dtype=float)[0]
        added = values * weights[labels.index(label)]
        order = np.argsort(-np.abs(added), kind="stable")
        chosen = order[added[order] != 0]
        return pd.DataFrame({"feature": [names(index) for index in chosen], "contribution": added[chosen]})

    return explain_row


def _split(pipeline: Any) -> tuple[Any, Any]:
    """What comes before the last step (None for a bare estimator), and the last step, inside what turns its target."""
    head, last = (pipeline[:-1], pipeline[-1]) if hasattr(pipeline, "steps") else (None, pipeline)
    return head, getattr(last, "regressor_", last)


def _weights(pipeline: Any) -> tuple[list[Any], np.ndarray]:
    """The classes (of a regression: lower, higher), and the coefficients that speak for each."""
    last = _split(pipeline)[1]
    if not is_linear(pipeline):
        advice = "Use a linear model, or scikit-learn's permutation_importance."
        raise ModelError(f"{type(last).__name__} has no coefficients, so its features cannot be weighed. {advice}")
    weights = np.atleast_2d(last.coef_)
    labels = as_labels(last.classes_).tolist() if hasattr(last, "classes_") else ["lower", "higher"]
    return labels, np.vstack([-weights, weights]) if len(weights) == 1 else weights


def _find_names(pipeline: Any) -> Callable[[int], str]:
    """The function that gives the readable name of a feature by its number."""
    head, _ = _split(pipeline)
    if not head:
        return "feature {}".format
    try:
        names, step = head.get_feature_names_out(), head[-1]
    except (AttributeError, ValueError) as error:
        raise ModelError(f"The features have no names: {error}. Use steps that know theirs.") from error
    named = getattr(step, "transformers_", None) or getattr(step, "transformer_list", [("", step)])
    prefixed = getattr(step, "verbose_feature_names_out", False)
    parts = [(f"{n}__" if prefixed else "", p[0] if hasattr(p, "steps") else p, *of) for n, p, *of in named]
    texts = {str(of) for _, part, *of in parts if hasattr(part, "vocabulary_")}
    return lambda index: _read_name(names[index], parts, several_texts=len(texts) > 1)


def _read_name(name: str, parts: list[tuple[Any, ...]], *, several_texts: bool) -> str:
    """'word: foo', 'chars: ‹ing ›', 'city = Paris', or the name without its part."""
    for prefix, part, *columns in (each for each in parts if name.startswith(each[0])):
        own = name.removeprefix(prefix)
        if own in getattr(part, "vocabulary_", ()):
            text = f"word: {own}" if part.analyzer == "word" else f"chars: ‹{own}›"
            return f"{columns[0]} {text}" if several_texts else text
        encoded = part.feature_names_in_ if hasattr(part, "categories_") else ()
        values = [f"{column} = {own[len(column) + 1 :]}" for column in encoded if own.startswith(f"{column}_")]
        if values or prefix:
            return values[0] if values else own
    return name
