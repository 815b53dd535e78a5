"""Model files in skops format: canonical to write, mistrusted to read.

`write_canonical` gives the bytes of a model, the same for the same fit; `check_file` and `check_loaded` refuse
files that lie about sizes or hold indices that scikit-learn would follow out of its memory.
Stock skops reads what is written here.
"""

import copy
import io
import json
import math
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from pinmill.errors import ModelError

SCHEMA = "schema.json"
FIXED_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say; the real date would change the bytes
OWNER_ONLY = 0o600 << 16  # Unix permissions as a zip stores them
ALIKE = {"JsonNode", "TypeNode", "FunctionNode"}  # immutable, so whether two of them are one object means nothing


def write_canonical(model: Any) -> bytes:
    """The skops file of `model`, with nothing in it that differs between two equal fits.

    skops names objects and files by memory address, dates its entries and saves sets in hash order: here they are
    numbered in order of traversal, dated 1980 and sorted, and padding in arrays is zeroed. Whole vocabularies are
    written as one JSON value, which skops reads like any other and which is what makes saving quick. Equal bytes
    also need the same zlib.
    """
    import skops.io

    plain, vocabularies = _without_vocabularies(model)
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(plain))) as archive:
        numbering = _Numbering(vocabularies)
        schema = numbering.node(json.loads(archive.read(SCHEMA)))
        text = json.dumps(schema, separators=(",", ":"))
        files = {name: archive.read(old) for old, name in numbering.files.items()}
    return _write_zip({SCHEMA: text.encode(), **{name: _canonical_array(name, data) for name, data in files.items()}})


def _without_vocabularies(model: Any) -> tuple[Any, dict[str, str]]:
    """A deep copy of `model` with its vocabularies replaced by tokens, and {JSON of token: JSON of vocabulary}."""
    found = [part for part in walk(model) if _is_vocabulary(part)]
    tokens = {id(part): f"pinmill vocabulary {number}" for number, part in enumerate(found)}
    plain = copy.deepcopy(model, dict(tokens))
    for part in walk(plain):
        if hasattr(part, "_stop_words_id"):
            part._stop_words_id = 0  # scikit-learn keeps a memory address here; 0 makes it check again
    numbers = ({key: int(value) for key, value in part.items()} for part in found)
    return plain, {json.dumps(tokens[id(part)]): json.dumps(terms) for part, terms in zip(found, numbers, strict=True)}


def _is_vocabulary(part: Any) -> bool:
    if type(part) is not dict or not part:
        return False
    return all(type(key) is str and isinstance(value, int | np.integer) and not isinstance(value, bool)
               for key, value in part.items())


def walk(model: Any) -> Iterator[Any]:
    """Every object reachable from `model` through attributes, lists, tuples, dicts and object arrays, once each."""
    seen: set[int] = set()
    waiting = [model]
    while waiting:
        part = waiting.pop()
        if id(part) in seen or isinstance(part, str | int | float | type | None):
            continue
        seen.add(id(part))
        yield part
        waiting.extend(reversed(_parts_of(part)))


def _parts_of(part: Any) -> list[Any]:
    if isinstance(part, dict):
        return [] if _is_vocabulary(part) else list(part.values())
    if isinstance(part, list | tuple | set | frozenset):
        return list(part)
    if isinstance(part, np.ndarray):
        return part.ravel().tolist() if part.dtype == object else []
    return list(getattr(part, "__dict__", {}).values())


class _Numbering:
    """Renumbers the nodes and files of one skops schema in order of traversal."""

    def __init__(self, vocabularies: dict[str, str]):
        self.vocabularies = vocabularies
        self.ids: dict[int, int] = {}
        self.files: dict[str, str] = {}

    def node(self, node: dict[str, Any]) -> dict[str, Any]:
        """`node` with its children, renumbered; sets sorted, vocabularies put in place of their tokens."""
        loader = node["__loader__"]
        if loader == "JsonNode":
            return {**_without_id(node), "content": self.vocabularies.get(node["content"], node["content"])}
        if loader in ALIKE:
            return _without_id(node)
        identity = {"__id__": self.ids.setdefault(node["__id__"], len(self.ids) + 1)} if "__id__" in node else {}
        fields = {field: self._field(node, field) for field in _ordered(node) if field != "__id__"}
        return fields | identity

    def _field(self, node: dict[str, Any], field: str) -> Any:
        value = node[field]
        if field == "file":
            suffix = value.rpartition(".")[2]
            return self.files.setdefault(value, f"{len(self.files):06d}.{suffix}")
        if isinstance(value, list):
            return [self.node(item) for item in value]
        if not isinstance(value, dict):
            return value
        if node["__loader__"] != "DictNode" and "__loader__" in value:
            return self.node(value)
        if node["__loader__"] == "DictNode" and field == "key_types":
            return self.node(value)
        is_node = (lambda item: True) if node["__loader__"] == "DictNode" else _is_node
        return {key: self.node(item) if is_node(item) else item for key, item in value.items()}


def _ordered(node: dict[str, Any]) -> dict[str, Any]:
    """`node` with the members of a set or frozenset in an order that the hash seed does not change."""
    if node["__loader__"] == "SetNode":
        node["content"].sort(key=_text_of)
    if node["__loader__"] == "ConstructorFromReduceNode" and node["__class__"] == "frozenset":
        node["content"]["content"][0]["content"].sort(key=_text_of)
    return node


def _text_of(node: Any) -> str:
    if isinstance(node, dict):
        return json.dumps({key: _text_of(value) for key, value in _without_id(node).items()})
    return json.dumps([_text_of(item) for item in node] if isinstance(node, list) else node)


def _without_id(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key != "__id__"}


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "__loader__" in value


def _write_zip(files: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, FIXED_DATE)
            entry.create_system, entry.external_attr, entry.compress_type = 3, OWNER_ONLY, method
            archive.writestr(entry, data, compresslevel=6)
    return target.getvalue()


def _canonical_array(name: str, data: bytes) -> bytes:
    """A file of a model without dates (sparse matrices are zips) and without what memory held between fields (trees).

    A nested zip is stored uncompressed, because it is compressed outside.
    """
    if name.endswith(".npz"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _write_zip({part: archive.read(part) for part in archive.namelist()}, method=zipfile.ZIP_STORED)
    if not name.endswith(".npy") or _read_header(io.BytesIO(data))[1].names is None:
        return data
    array = np.load(io.BytesIO(data), allow_pickle=False)
    clean, target = np.zeros(array.shape, dtype=array.dtype), io.BytesIO()
    for field in array.dtype.names:
        clean[field] = array[field]
    np.save(target, clean, allow_pickle=False)
    return target.getvalue()


def check_file(data: bytes, *, max_bytes: int) -> None:
    """Raises ModelError if the file unpacks to more than `max_bytes` or its entries are not what they say."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        _check_entries(archive, max_bytes=max_bytes)
        files = _referenced_files(json.loads(archive.read(SCHEMA)))
        for name in files:
            if name.endswith(".npz"):
                with zipfile.ZipFile(io.BytesIO(archive.read(name))) as nested:
                    _check_entries(nested, max_bytes=max_bytes)
                    for part in nested.namelist():
                        _check_array(nested, part)
            elif name.endswith(".npy"):
                _check_array(archive, name)


def _check_entries(archive: zipfile.ZipFile, *, max_bytes: int) -> None:
    entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    if total > max_bytes:
        raise ModelError(f"The model file unpacks to {total:,} bytes; at most {max_bytes:,} are read. "
                         "If it is yours, load it with a larger max_bytes.")
    if len({entry.filename for entry in entries}) != len(entries):
        raise ModelError("The model file holds two entries of one name. Save the model again with save_model.")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise ModelError("The model file is compressed by another method than deflate. Save it with save_model.")


def _referenced_files(schema: dict[str, Any]) -> set[str]:
    """Names of the files that nodes read; each may belong to one object only, or small files would unpack often."""
    owners: dict[str, Any] = {}
    waiting: list[Any] = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            name = value.get("file")
            if isinstance(name, str) and owners.setdefault(name, value.get("__id__")) != value.get("__id__"):
                raise ModelError(f"The model file uses its entry {name!r} for two objects. Save it with save_model.")
            waiting.extend(item for item in value.values() if isinstance(item, dict | list))
    return set(owners)


def _check_array(archive: zipfile.ZipFile, name: str) -> None:
    """Raises ModelError if an array's header promises another size than the entry has, or holds objects."""
    with archive.open(name) as stream:
        shape, dtype = _read_header(stream)
        held = archive.getinfo(name).file_size - stream.tell()
    promised = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or promised != held:
        raise ModelError(f"The array {name!r} of the model file says {promised:,} bytes of {dtype} and holds {held:,}.")


def _read_header(stream: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype


def check_loaded(model: Any) -> None:
    """Raises ModelError if a tree or sparse matrix holds an index outside itself.

    skops checks types, not content, and scikit-learn follows these indices unchecked: a crafted file could crash
    the process at its first prediction, or never end it. Fitted trees always number a child after its parent.
    """
    from scipy import sparse
    from sklearn.tree._tree import Tree

    for part in walk(model):
        if isinstance(part, Tree):
            _check_nodes(part.children_left, part.children_right, part.children_left != -1)
            _check_features(part.feature[part.children_left != -1], part.n_features)
        elif sparse.issparse(part) and part.format in ("csr", "csc", "bsr"):
            part.check_format(full_check=True)
        elif hasattr(part, "_predictors"):
            _check_boosting(part)
        elif hasattr(part, "tree_"):
            _check_same_features(part, [part])
        elif hasattr(part, "estimators_") and type(part).__module__ in ("sklearn.ensemble._forest",
                                                                        "sklearn.ensemble._gb"):
            _check_same_features(part, np.asarray(part.estimators_, dtype=object).ravel().tolist())


def _check_boosting(model: Any) -> None:
    categorical = getattr(model, "_is_categorical_remapped", None)
    categorical = np.zeros(model.n_features_in_, dtype=bool) if categorical is None else np.asarray(categorical)
    for predictor in [tree for stage in model._predictors for tree in stage]:
        nodes = predictor.nodes
        inner = nodes["is_leaf"] == 0
        _check_nodes(nodes["left"].astype(np.int64), nodes["right"].astype(np.int64), inner)
        _check_features(nodes["feature_idx"][inner], min(model.n_features_in_, len(categorical)))
        splits = nodes[inner & (nodes["is_categorical"] != 0)]
        if not categorical[splits["feature_idx"]].all():
            raise ModelError(_CRAFTED.format("a category split on a number"))
        _check_features(splits["bitset_idx"], len(predictor.raw_left_cat_bitsets))


def _check_nodes(left: np.ndarray, right: np.ndarray, inner: np.ndarray) -> None:
    parents, count = np.flatnonzero(inner), len(left)
    children = (left[inner], right[inner])
    if count == 0 or any((child <= parents).any() or (child >= count).any() for child in children):
        raise ModelError(_CRAFTED.format("a child outside its tree"))


def _check_features(features: np.ndarray, count: int) -> None:
    if len(features) and (features.min() < 0 or features.max() >= count):
        raise ModelError(_CRAFTED.format(f"an index outside 0..{count - 1}"))


def _check_same_features(model: Any, parts: list[Any]) -> None:
    if any(part.tree_.n_features != model.n_features_in_ for part in parts):
        raise ModelError(_CRAFTED.format("a tree that reads other columns than its model"))


_CRAFTED = "The model file holds {}, which no fit writes: it is damaged or crafted. Do not use it; fit the model again."
