"""A fitted model as a function from rows to predictions, without what scikit-learn spends on checks for each call.

Rows have been checked before. The numbers are those of the model's own `predict` and `predict_proba`, bit for bit.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas
import sklearn
from scipy.sparse import hstack
from scipy.special import expit
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.utils.extmath import softmax
from sklearn.utils.sparsefuncs_fast import inplace_csr_row_normalize_l2

from pinmill.metrics import as_labels
from pinmill.prototype import check_inputs

Rows = Sequence[Mapping[str, Any]]  # each with a value, as JSON has it, for every column of the prototype
Item = dict[str, Any]  # {label, value, probability}, {value} of a regression, or {error}
Predictions = tuple[np.ndarray, np.ndarray | None]  # labels or amounts, and probabilities of shape (n, classes)


def make_scorer(model: Any, prototype: Mapping[str, Mapping]) -> Callable[[Rows], list[Item]]:
    """The function that predicts rows, one item for each, in order; a row on which the model fails has {error}.

    An item is {label, value: its probability, probability: {label as text: …}}, without probabilities {label}, of a
    regression {value}.
    """
    predict = _make_predictor(model, prototype)
    labels = as_labels(model.classes_).tolist() if hasattr(model, "classes_") else None

    def score(rows: Rows) -> list[Item]:
        """The items of rows."""
        if not rows:
            return []
        try:
            with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
                return _list_items(*predict(rows), labels)
        except Exception as error:  # whatever the model raises; its words could hold another row
            if len(rows) == 1:
                return [{"error": f"the model failed on this row with {type(error).__name__}"}]
        middle = len(rows) // 2
        return score(rows[:middle]) + score(rows[middle:])

    return score


def make_framer(prototype: Mapping[str, Mapping]) -> Callable[[Rows], pandas.DataFrame]:
    """The function from checked rows to the DataFrame that `check_inputs` makes of them, faster; no text is missing."""

    def frame(rows: Rows) -> pandas.DataFrame:
        """The table of rows."""
        return pandas.DataFrame({name: _make_column(rows, name, entry) for name, entry in prototype.items()})

    return frame


def _make_column(rows: Rows, name: str, entry: Mapping) -> pandas.Series:
    values = [row[name] for row in rows]
    if entry["type"] == "text":
        values = [value or "" for value in values]
    elif entry["type"] == "datetime" or entry["dtype"] == "object":
        return check_inputs(pandas.DataFrame({name: values}, dtype=object), {name: entry})[name]
    return pandas.Series(values, dtype=entry["dtype"])


def _list_items(predicted: np.ndarray, shares: np.ndarray | None, labels: list[Any] | None) -> list[Item]:
    if labels is None:
        return [{"value": v} if math.isfinite(v) else {"error": "the model gave no number"} for v in predicted.tolist()]
    if shares is None:
        return [{"label": label} for label in predicted.tolist()]
    if not np.isfinite(shares).all():
        raise ValueError("the model gave no probabilities")
    names, place = list(map(str, labels)), {label: number for number, label in enumerate(labels)}
    return [
        {"label": label, "value": row[place[label]], "probability": dict(zip(names, row, strict=True))}
        for label, row in zip(predicted.tolist(), shares.tolist(), strict=True)
    ]


def _make_predictor(model: Any, prototype: Mapping[str, Mapping]) -> Callable[[Rows], Predictions]:
    """The function from rows to what the model predicts; a pipeline transforms them once for both."""
    steps = model.steps if type(model) is Pipeline else [("", model)]
    parts = [part for _, part in steps if part not in (None, "passthrough")]
    is_text = len(parts) > 1 and _is_text(parts[0])
    read, middle = _make_text_reader(parts[0]) if is_text else make_framer(prototype), parts[is_text:-1]
    tell = _make_teller(parts[-1])

    def predict(rows: Rows) -> Predictions:
        """Labels or amounts, and probabilities, of rows."""
        inputs = read(rows)
        for part in middle:
            inputs = part.transform(inputs)
        return tell(inputs)

    return predict


def _is_text(part: Any) -> bool:
    """Whether a ColumnTransformer does nothing but give single columns to vectorizers, and stacks sparse matrices."""
    return (
        type(part) is ColumnTransformer
        and part.sparse_output_
        and not part.transformer_weights
        and all(
            type(vectorizer) in (TfidfVectorizer, CountVectorizer) and isinstance(column, str)
            for _, vectorizer, column in part.transformers_
            if vectorizer != "drop"
        )
    )


def _make_text_reader(part: ColumnTransformer) -> Callable[[Rows], Any]:
    """The function from rows to the sparse matrix of all vectorizers, side by side."""
    vectorizers = [(_make_vectorizer(each), column) for _, each, column in part.transformers_ if each != "drop"]

    def read(rows: Rows) -> Any:
        """The matrix of rows."""
        blocks = [vectorize([row[column] or "" for row in rows]) for vectorize, column in vectorizers]
        return hstack(blocks).tocsr() if len(blocks) > 1 else blocks[0]

    return read


def _make_vectorizer(vectorizer: Any) -> Callable[[list[str]], Any]:
    """`vectorizer.transform` of texts; TF-IDF in steps of scikit-learn's, without the checks between them."""
    if type(vectorizer) is not TfidfVectorizer or vectorizer.norm != "l2" or vectorizer.dtype != np.float64:
        return vectorizer.transform
    idf = vectorizer.idf_ if vectorizer.use_idf else None

    def vectorize(texts: list[str]) -> Any:
        """The matrix of texts."""
        counts = CountVectorizer.transform(vectorizer, texts)
        if vectorizer.sublinear_tf:
            np.log(counts.data, counts.data)
            counts.data += 1.0
        if idf is not None:
            counts.data *= idf[counts.indices]
        inplace_csr_row_normalize_l2(counts)
        return counts

    return vectorize


def _make_teller(last: Any) -> Callable[[Any], Predictions]:
    """The function from the last step's inputs to its predictions; logistic regression weighs them once for both."""
    if type(last) is LogisticRegression and isinstance(last.coef_, np.ndarray):
        return lambda inputs: _tell_logistic(last, inputs)
    if hasattr(last, "predict_proba"):
        return lambda inputs: (last.predict(inputs), last.predict_proba(inputs))
    return lambda inputs: (last.predict(inputs), None)


def _tell_logistic(last: LogisticRegression, inputs: Any) -> Predictions:
    decisions = inputs @ last.coef_.T + last.intercept_
    if decisions.shape[1] > 1:
        return last.classes_[decisions.argmax(axis=1)], softmax(decisions, copy=False)
    positive = expit(decisions[:, 0])
    return last.classes_[(decisions[:, 0] > 0).astype(int)], np.stack([1 - positive, positive], axis=1)
