"""Models: saved without pickle, loaded only from known types, described, and given hyperparameters.

skops names objects and files by memory address, dates its entries and saves sets in hash order: here they are
numbered in order of traversal, undated and sorted. Stock skops reads what is written here.
"""

import copy
import inspect
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from sklearn.base import BaseEstimator, clone

from pinmill.errors import ModelError, ParameterError, UntrustedTypeError, describe_problems, did_you_mean

ALLOWED_TYPES = (
    "builtins.frozenset",
    "collections.OrderedDict",
    "functools.partial",  # boosting on categories holds one of check_array; it can hold no function but trusted ones
    "numpy.dtype",  # in SimpleImputer
    "pinmill.columns.calendar",
    "pinmill.columns.calendar_names",
    "scipy.sparse._csr.csr_array",
    "scipy.sparse._csr.csr_matrix",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
    "sklearn.utils.validation.check_array",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
    "xgboost.sklearn.XGBRegressor",
)
"""Trusted beside what skops trusts: scikit-learn's estimators, NumPy's arrays and ufuncs, plain containers."""

MAX_BYTES = 1024**3  # unpacked; a text model of 97,000 n-grams has 10 MB
VALUES = ("JsonNode", "TypeNode", "FunctionNode", "TupleNode")  # immutable: whether two are one is up to Python
CONTAINED = ("steps", "transformers", "transformer_list")  # parameters that hold parts of a model


def save_model(model: Any) -> bytes:
    """The model as a skops file, the same bytes for the same fit. Raises ModelError if load_model would refuse it."""
    try:
        data = write_canonical(model)
    except Exception as error:
        advice = "Use scikit-learn's own parts in the pipeline, and no lambda or class from a notebook."
        raise ModelError(f"{type(model).__name__} cannot be saved without pickle: {error}. {advice}") from error
    _check_types(data)
    return data


def load_model(data: bytes, *, max_bytes: int = MAX_BYTES) -> Any:
    """The model in a skops file, its types checked before anything of it is constructed.

    `max_bytes` bounds what the file may unpack to. Raises UntrustedTypeError for a type outside skops' own list and
    ALLOWED_TYPES, ModelError for a file that is malformed or too large.
    """
    try:
        _check_size(data, max_bytes)
        _check_types(data)
        return skops.io.loads(data, trusted=list(ALLOWED_TYPES))
    except ModelError:
        raise
    except Exception as error:
        problem = f"Not a model file, or malformed ({len(data):,} bytes; {type(error).__name__}: {error})."
        raise ModelError(f"{problem} Expected what save_model wrote; fit and save the model again.") from error


def _check_size(data: bytes, max_bytes: int) -> None:
    """Raises ModelError if a zip, or one in it (a sparse matrix), unpacks to more than `max_bytes`."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        total = sum(entry.file_size for entry in archive.infolist())
        if total > max_bytes:
            advice = "If it is yours, load it with a larger max_bytes."
            raise ModelError(f"The model file unpacks to {total:,} bytes; at most {max_bytes:,} are read. {advice}")
        for name in archive.namelist():
            if name.endswith(".npz"):
                _check_size(archive.read(name), max_bytes)


def _check_types(data: bytes) -> None:
    unknown = sorted(set(skops.io.get_untrusted_types(data=data)) - set(ALLOWED_TYPES))
    if unknown:
        what = f"The model holds types that are not allowed: {', '.join(unknown)}"
        allowed = f"Allowed beside scikit-learn's and NumPy's own: {', '.join(ALLOWED_TYPES)}"
        raise UntrustedTypeError(f"{what}. {allowed}. Use those, or add the type to pinmill.model.ALLOWED_TYPES.")


def write_canonical(model: Any) -> bytes:
    """The skops file of `model`: equal fits give equal bytes, given the same zlib.

    A vocabulary is written as one JSON value, which skops reads like any other: a node per term takes seconds.
    """
    found = {id(terms): terms for terms in _vocabularies(model)}
    plain = copy.deepcopy(model, {key: f"vocabulary {key}" for key in found})  # what the memo has is replaced by it
    texts = {f'"vocabulary {key}"': json.dumps({t: int(n) for t, n in terms.items()}) for key, terms in found.items()}
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(plain))) as source, zipfile.ZipFile(target, "w") as archive:
        schema, names = _canonical_schema(source.read("schema.json"), texts)
        files = {new: _canonical_array(source.read(old)) for old, new in names.items()}
        for name, data in {"schema.json": json.dumps(schema, separators=(",", ":")).encode(), **files}.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED, compresslevel=6)  # dated 1980
    return target.getvalue()


def _vocabularies(part: Any) -> list[dict[str, Any]]:
    """Those of the vectorizers in an estimator, found through attributes, lists, tuples and dicts."""
    held = vars(part) if isinstance(part, BaseEstimator) else part
    own = getattr(part, "vocabulary_", None) if held is not part else None
    inner = held.values() if isinstance(held, dict) else held if isinstance(held, list | tuple) else []
    found = [own] if own and all(type(term) is str for term in own) else []
    return found + [terms for value in inner for terms in _vocabularies(value)]


def _canonical_schema(text: bytes, vocabularies: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The schema with objects and files numbered and vocabularies in place of their tokens, and {file: new name}."""
    ids: dict[int, int] = {}
    files: dict[str, str] = {}

    def canonical(node: dict[str, Any]) -> dict[str, Any]:
        """One node of the schema, in which nothing depends on the process."""
        loader = node.get("__loader__")
        if loader in VALUES:
            del node["__id__"]
        elif isinstance(node.get("__id__"), int):  # a model's own dict may have such keys, never such values
            node["__id__"] = ids.setdefault(node["__id__"], len(ids))
        if isinstance(node.get("file"), str):
            node["file"] = files.setdefault(node["file"], f"{len(files)}{Path(node['file']).suffix}")
        if loader == "JsonNode":
            node["content"] = vocabularies.get(node["content"], node["content"])
        elif loader == "SetNode":
            node["content"].sort(key=json.dumps)
        elif loader == "ConstructorFromReduceNode" and node["__class__"] == "frozenset":
            node["content"]["content"][0]["content"].sort(key=json.dumps)
        if "_stop_words_id" in node:  # a memory address; with 0 scikit-learn looks at the words again
            node["_stop_words_id"]["content"] = "0"
        return node

    return json.loads(text, object_hook=canonical), files


def _canonical_array(data: bytes) -> bytes:
    """A file of a model, without what memory held between the fields of a decision tree's nodes."""
    array = np.load(io.BytesIO(data), allow_pickle=False) if data.startswith(np.lib.format.MAGIC_PREFIX) else None
    if array is None or array.dtype.names is None:
        return data
    clean = np.zeros(array.shape, array.dtype)  # zeros_like leaves the padding as it finds it
    for field in array.dtype.names:
        clean[field] = array[field]
    target = io.BytesIO()
    np.save(target, clean, allow_pickle=False)
    return target.getvalue()


def describe_model(model: Any, *, path: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """One dict per part of the model, outside in: step, class, changed, sizes; all values are plain (JSON).

    `step` is the path of names ('features / text_words'; empty for a bare estimator), `changed` its hyperparameters
    that are not the default, `sizes` counts from the fit: vocabulary, features, classes, coefficients, trees.
    """
    name_of_class = model if isinstance(model, str) else type(model).__name__
    changed = _changed(model)
    own = {"step": " / ".join(path), "class": name_of_class, "changed": changed, "sizes": _sizes(model)}
    named = next((value for name in ("transformers_", *CONTAINED) if (value := getattr(model, name, None))), [])
    parts = [(name, part) for name, part, *_ in named if part is not None and part != "drop"]
    below = [row for name, part in parts for row in describe_model(part, path=(*path, name))]
    return below if hasattr(model, "steps") and not changed else [own, *below]


def _changed(part: Any) -> dict[str, Any]:
    """Hyperparameters of one estimator that differ from its signature, without its parts; (1, 2) becomes '(1, 2)'."""
    if not hasattr(part, "get_params"):
        return {}
    defaults = {name: entry.default for name, entry in inspect.signature(type(part)).parameters.items()}
    own = {name: value for name, value in part.get_params(deep=False).items() if name not in CONTAINED}
    changed = {name: value for name, value in own.items() if repr(value) != repr(defaults.get(name))}
    return {name: v if isinstance(v, bool | int | float | str | None) else repr(v) for name, v in changed.items()}


def _sizes(part: Any) -> dict[str, int]:
    trees = getattr(part, "_predictors", getattr(part, "estimators_", ()))  # one by one, or a list per stage
    counts = {
        "vocabulary": len(getattr(part, "vocabulary_", ())),
        "features": getattr(part, "n_features_in_", 0),
        "classes": len(getattr(part, "classes_", ())),
        "coefficients": getattr(getattr(part, "coef_", None), "size", 0),
        "trees": sum(len(stage) if hasattr(stage, "__len__") else 1 for stage in trees),
    }
    return {name: int(count) for name, count in counts.items() if count}


def set_hyperparameters(pipeline: Any, values: Mapping[str, Any]) -> Any:
    """A clone of `pipeline`, unfitted, with hyperparameters set, e.g. {'logisticregression__C': 4}.

    Lists become tuples where the present value is one (YAML has no tuples). Raises ParameterError that names every
    unknown key, and every key that stands for a whole step.
    """
    known = pipeline.get_params()
    contained = {n for n, v in known.items() if hasattr(v, "get_params") or n.rpartition("__")[2] in CONTAINED}
    free = known.keys() - contained
    problems = [f"{n!r} is no hyperparameter here.{did_you_mean(str(n), free)}" for n in values if n not in known]
    problems += [f"{n!r} is a part of the model, which is changed in the notebook" for n in values if n in contained]
    if problems:
        raise ParameterError(describe_problems("'model'", problems))
    fitting = {n: tuple(v) if isinstance(known[n], tuple) and isinstance(v, list) else v for n, v in values.items()}
    return clone(pipeline).set_params(**fitting)
