"""Canonical model files: skops format with nothing in it that differs between two equal fits.

skops names objects and files by memory address, dates its entries and saves sets in hash order: here they are
numbered in order of traversal, undated and sorted. Stock skops reads what is written here.
"""

import copy
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# Immutable, and whether two equal ones are one object is up to Python, so they are written without identity.
VALUES = ("JsonNode", "TypeNode", "FunctionNode", "TupleNode")


def write_canonical(model: Any) -> bytes:
    """The skops file of `model`: equal fits give equal bytes, given the same zlib.

    A vocabulary is written as one JSON value, which skops reads like any other: a node per term takes seconds.
    """
    import skops.io

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
    from sklearn.base import BaseEstimator

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
