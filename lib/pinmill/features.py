"""What a linear model goes by: its telling features, and why one row got its prediction."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pinmill.errors import DataError, ModelError
from pinmill.metrics import as_labels


def is_linear(pipeline: Any) -> bool:
    """True if the last step has a coefficient per feature, so that telling_features and explain work."""
    coefficients = getattr(_last(pipeline), "coef_", None)
    return isinstance(coefficients, np.ndarray) and coefficients.dtype != object


def telling_features(pipeline: Any, *, n: int = 15) -> pd.DataFrame:
    """The n features that speak most for each class: class, feature, weight.

    weight is how much the feature adds to the class's score per unit of its value, always > 0, largest first. A
    binary model's weights are turned for its first class; a regression has the classes 'higher' and 'lower'.
    Features read 'word: foo', 'chars: ‹ing ›', 'city = Paris' and so on. Raises ModelError for other models.
    """
    weights = _weights(pipeline)
    names = _Names(pipeline[:-1] if hasattr(pipeline, "steps") else None, n_features=weights.shape[1])
    rows = []
    for label, row in zip(_directions(pipeline), weights, strict=True):
        chosen = np.argsort(-row, kind="stable")[:n]
        rows += [(label, names.read(index), float(row[index])) for index in chosen if row[index] > 0]
    return pd.DataFrame(rows, columns=["class", "feature", "weight"])


def explain(pipeline: Any, row: pd.DataFrame, *, toward: Any = None) -> pd.DataFrame:
    """What each feature of one row adds to the score of the predicted class (or of class `toward`).

    feature, contribution; the largest in size first; features that add nothing are left out. With the intercept
    the contributions sum to the model's decision function. A regression explains its predicted number.
    Raises DataError unless `row` has exactly one row and `toward` is a class.
    """
    if len(row) != 1:
        raise DataError(f"explain takes one row, got {len(row)}. Pass frame.iloc[[i]].")
    weights = _weights(pipeline)
    head = pipeline[:-1] if hasattr(pipeline, "steps") else None
    inputs = row.to_numpy() if head is None or not len(head) else head.transform(row)
    directions = _directions(pipeline)
    label = toward if toward is not None else _predicted(pipeline, row)
    if label not in directions:
        raise DataError(f"{label!r} is none of the model's classes {directions}.")
    values = inputs.toarray()[0] if hasattr(inputs, "toarray") else np.asarray(inputs, dtype=float)[0]
    added = values * weights[directions.index(label)]
    chosen = np.flatnonzero(added)
    chosen = chosen[np.argsort(-np.abs(added[chosen]), kind="stable")]
    names = _Names(head, n_features=len(values))
    return pd.DataFrame({"feature": [names.read(index) for index in chosen], "contribution": added[chosen]})


def _predicted(pipeline: Any, row: pd.DataFrame) -> Any:
    return pipeline.predict(row)[0] if hasattr(_last(pipeline), "classes_") else "higher"


def _last(pipeline: Any) -> Any:
    return pipeline[-1] if hasattr(pipeline, "steps") else pipeline


def _weights(pipeline: Any) -> np.ndarray:
    """Coefficients by direction, (directions, features)."""
    if not is_linear(pipeline):
        raise ModelError(f"{type(_last(pipeline)).__name__} has no coefficients, so its features cannot be weighed. "
                         "Use a linear model, or sklearn.inspection.permutation_importance.")
    coefficients = np.atleast_2d(_last(pipeline).coef_)
    return np.vstack([-coefficients, coefficients]) if len(coefficients) == 1 else coefficients


def _directions(pipeline: Any) -> list[Any]:
    """What each row of _weights speaks for; of a regression the lower numbers first, as _weights has it."""
    labels = getattr(_last(pipeline), "classes_", None)
    return ["lower", "higher"] if labels is None else as_labels(labels).tolist()


class _Names:
    """Readable names of the features that a pipeline's head puts out, made only for those that are asked for."""

    def __init__(self, head: Any, *, n_features: int):
        self.raw: Sequence[Any] = [f"feature {index}" for index in range(n_features)]
        self.parts: list[tuple[str, Any, str]] = []
        if head is not None and len(head):
            self.raw = _raw_names(head)
            self.parts = _named_parts(head[-1])
        self.columns = {column for _, part, column in self.parts if hasattr(_first(part), "vocabulary_")}

    def read(self, index: int) -> str:
        name = str(self.raw[index])
        readings = [self._read_part(name[len(prefix):], _first(part), column)
                    for prefix, part, column in self.parts if name.startswith(prefix)]
        return next((reading for reading in readings if reading != name), name)

    def _read_part(self, own: str, part: Any, column: str) -> str:
        if own not in getattr(part, "vocabulary_", ()):
            return _equation(own, part)
        of = f"{column} " if len(self.columns) > 1 else ""
        return f"{of}word: {own}" if part.analyzer == "word" else f"{of}chars: ‹{own}›"


def _raw_names(head: Any) -> np.ndarray:
    try:
        return head.get_feature_names_out()
    except (AttributeError, ValueError) as error:
        raise ModelError(f"The features have no names: {error}. Use steps that know theirs (no HashingVectorizer).") \
            from error


def _named_parts(step: Any) -> list[tuple[str, Any, str]]:
    """(prefix of its names, fitted part, column) of a ColumnTransformer, FeatureUnion or single step."""
    if hasattr(step, "transformers_"):
        prefixed = step.verbose_feature_names_out
        return [(f"{name}__" if prefixed else "", part, columns if isinstance(columns, str) else "")
                for name, part, columns in step.transformers_]
    if hasattr(step, "transformer_list"):
        prefixed = getattr(step, "verbose_feature_names_out", True)
        return [(f"{name}__" if prefixed else "", part, "") for name, part in step.transformer_list]
    return [("", step, "")]


def _first(part: Any) -> Any:
    return part[0] if hasattr(part, "steps") else part


def _equation(own: str, part: Any) -> str:
    """'city = Paris' for a one-hot column, any other name as it is."""
    for column in getattr(part, "feature_names_in_", ()) if hasattr(part, "categories_") else ():
        if own.startswith(f"{column}_"):
            return f"{column} = {own[len(column) + 1:]}"
    return own
