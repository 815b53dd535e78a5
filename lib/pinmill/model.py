"""Models: saved without pickle, loaded only from known types, described, and given hyperparameters."""

import inspect
import zipfile
from collections.abc import Mapping
from typing import Any

from pinmill.errors import ModelError, ParameterError, UntrustedTypeError, describe_problems, did_you_mean

ALLOWED_TYPES = (
    "builtins.frozenset",
    "collections.OrderedDict",
    "functools.partial",
    "numpy.dtype",
    "scipy.sparse._csc.csc_array",
    "scipy.sparse._csc.csc_matrix",
    "scipy.sparse._csr.csr_array",
    "scipy.sparse._csr.csr_matrix",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
    "sklearn.utils.validation.check_array",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
    "xgboost.sklearn.XGBRegressor",
)
"""Trusted beside what skops trusts (scikit-learn's estimators, NumPy's arrays and ufuncs, plain containers).

SimpleImputer holds a dtype, boosting on categories a partial of check_array; a partial can hold no function but the
trusted ones. Trees and sparse matrices are trusted because skops_file.check_loaded looks at their indices.
"""

MAX_BYTES = 1024**3  # unpacked; a text model of 97,000 n-grams has 10 MB


def save_model(model: Any) -> bytes:
    """The model as a canonical skops file: the same fit gives the same bytes, in any process.

    Raises ModelError for what cannot be saved without pickle (lambdas, own classes), also when load_model would
    refuse the file.
    """
    from pinmill.skops_file import write_canonical

    try:
        data = write_canonical(model)
    except Exception as error:
        raise ModelError(f"{type(model).__name__} cannot be saved without pickle: {error}. Use scikit-learn's own "
                         "parts in the pipeline, and no lambda or class from a notebook.") from error
    _check_types(data)
    return data


def load_model(data: bytes, *, max_bytes: int = MAX_BYTES) -> Any:
    """The model in a skops file, its types checked before anything of it is constructed.

    `max_bytes` bounds what the file may unpack to. Raises UntrustedTypeError for a type outside skops' own list and
    ALLOWED_TYPES, ModelError for a file that is malformed, too large, or holds a tree that no fit writes.
    """
    import skops.io

    from pinmill.skops_file import check_file, check_loaded

    try:
        check_file(data, max_bytes=max_bytes)
        _check_types(data)
        model = skops.io.loads(data, trusted=list(ALLOWED_TYPES))
        check_loaded(model)
    except ModelError:
        raise
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise ModelError(f"Not a model file ({len(data):,} bytes): {error}. Expected what save_model wrote.") from error
    except Exception as error:
        raise ModelError(f"The model file is malformed ({type(error).__name__}: {error}). "
                         "Expected what save_model wrote; fit and save the model again.") from error
    return model


def _check_types(data: bytes) -> None:
    import skops.io

    unknown = sorted(set(skops.io.get_untrusted_types(data=data)) - set(ALLOWED_TYPES))
    if unknown:
        raise UntrustedTypeError(f"The model holds types that are not allowed: {', '.join(unknown)}. Allowed beside "
                                 f"scikit-learn's estimators and NumPy's arrays: {', '.join(ALLOWED_TYPES)}. "
                                 "Use a pipeline of those, or add the type to pinmill.model.ALLOWED_TYPES.")


def describe_model(model: Any) -> list[dict[str, Any]]:
    """One dict per part of the model, outside in: step, class, columns, changed, sizes.

    `step` is the path of names ('features / text_words'; empty for a bare estimator), `columns` what a
    ColumnTransformer gives it, `changed` its hyperparameters that are not the default, `sizes` counts read from
    the fit: vocabulary, features, classes, trees, coefficients. All values are plain (JSON).
    """
    return _describe(model, path=(), columns=[])


def _describe(part: Any, *, path: tuple[str, ...], columns: list[str]) -> list[dict[str, Any]]:
    inner = _parts_of(part)
    own = {"step": " / ".join(path), "class": part if isinstance(part, str) else type(part).__name__,
           "columns": columns, "changed": _changed(part), "sizes": _sizes(part)}
    below = [_describe(child, path=(*path, name), columns=taken) for name, child, taken in inner]
    own_rows = [] if inner and not own["changed"] and hasattr(part, "steps") else [own]
    return own_rows + [row for rows in below for row in rows]


def _parts_of(part: Any) -> list[tuple[str, Any, list[str]]]:
    """The named parts inside a Pipeline, ColumnTransformer or FeatureUnion, each with the columns it is given."""
    if hasattr(part, "transformers"):
        return [(name, child, _names(columns)) for name, child, columns in
                getattr(part, "transformers_", part.transformers) if child != "drop"]
    named = getattr(part, "steps", None) or getattr(part, "transformer_list", None) or []
    return [(name, child, []) for name, child in named if child is not None]


def _names(columns: Any) -> list[str]:
    if callable(columns) or isinstance(columns, slice):
        return [repr(columns)]
    return [str(columns)] if isinstance(columns, str | int) else [str(column) for column in columns]


def _changed(part: Any) -> dict[str, Any]:
    """Hyperparameters of one estimator that differ from its signature; parts of it are described by themselves."""
    if not hasattr(part, "get_params"):
        return {}
    defaults = {name: entry.default for name, entry in inspect.signature(type(part)).parameters.items()}
    values = part.get_params(deep=False)
    own = {name: value for name, value in values.items() if name not in ("steps", "transformers", "transformer_list")}
    return {name: _plain(value) for name, value in own.items() if repr(value) != repr(defaults.get(name))}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value.__name__ if isinstance(value, type) else repr(value)


def _sizes(part: Any) -> dict[str, int]:
    trees = getattr(part, "_predictors", getattr(part, "estimators_", None))
    counts = {
        "vocabulary": _length(getattr(part, "vocabulary_", None)),
        "features": getattr(part, "n_features_in_", None),
        "classes": _length(getattr(part, "classes_", None)),
        "coefficients": getattr(getattr(part, "coef_", None), "size", None),
        "trees": None if trees is None else sum(_length(stage) or 1 for stage in trees),
    }
    return {name: int(count) for name, count in counts.items() if count is not None}


def _length(value: Any) -> int | None:
    return len(value) if hasattr(value, "__len__") else None


def set_hyperparameters(pipeline: Any, values: Mapping[str, Any]) -> Any:
    """A clone of `pipeline`, unfitted, with hyperparameters set, e.g. {'logisticregression__C': 4}.

    Lists become tuples where the present value is one (YAML has no tuples). Raises ParameterError that names every
    unknown key, and every key that stands for a whole step.
    """
    from sklearn.base import clone

    known = pipeline.get_params()
    problems = [problem for name in values if (problem := _key_problem(name, known))]
    if problems:
        raise ParameterError(describe_problems("'model'", problems))
    fitting = {name: tuple(value) if isinstance(known[name], tuple) and isinstance(value, list) else value
               for name, value in values.items()}
    return clone(pipeline).set_params(**fitting)


def _key_problem(name: str, known: Mapping[str, Any]) -> str:
    settable = [key for key, value in known.items() if not _is_part(key, value)]
    if name not in known:
        return f"{name!r} is no hyperparameter of the model.{did_you_mean(str(name), settable)}"
    if _is_part(name, known[name]):
        inside = next((key for key in settable if key.startswith(f"{name}__")), "")
        return f"{name!r} is a part of the model, which is changed in the notebook" + (
            f"; set its hyperparameters, e.g. {inside!r}" if inside else "")
    return ""


def _is_part(key: str, value: Any) -> bool:
    return hasattr(value, "get_params") or key.rpartition("__")[2] in ("steps", "transformers", "transformer_list")
