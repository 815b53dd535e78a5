"""What people said of inputs, and how it joins a table: current labels, conflicts, and one row per input. Pure."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas
from pandas import DataFrame, Series
from pandas.api import types

from pinmill.errors import DataError, describe_problems
from pinmill.table import check_table, hash_rows, is_missing, list_rows, remove_empty, remove_repeats, show

ACTIVE = ("uncertainty", "disagreement")  # chosen by the model: hard cases, which a test must not be made of
BOOLEANS = {"true": True, "false": False}
SOURCE = "the source"


@dataclass(frozen=True)
class Merged:
    """A table with people's labels in it."""

    frame: DataFrame  # its index names the source's rows as before
    facts: dict[str, Any] = field(default_factory=lambda: {"n": 0, "by": {}, "conflicts": 0, "last_id": 0})
    conflicts: tuple[dict[str, str], ...] = ()  # inputs that got different labels: which, by whom, which is taken
    chosen: frozenset[str] = frozenset()  # hashes of inputs that have a label only because the model chose them


def current_labels(annotations: DataFrame) -> DataFrame:
    """The rows of `annotations` that count: of each annotator the last on an input that was not retracted, by id."""
    retracted = annotations["id"].isin(annotations["retracts"].dropna())
    labels = annotations[annotations["retracts"].isna() & ~retracted].sort_values("id")
    latest = labels.drop_duplicates(["hash", "annotator"], keep="last")
    return latest[latest["label"].notna()]


def hash_inputs(frame: DataFrame, *, text: list[str], inputs: list[str]) -> Series:
    """The identity of each row's input as 01-prepare sees it: a missing text is an empty one."""
    return hash_rows(frame.fillna(dict.fromkeys(text, "")), inputs)


def merge_annotations(
    frame: DataFrame, annotations: DataFrame, *, text: list[str], features: list[str], label: str
) -> Merged:
    """Append people's current labels with their records to `frame`, and keep one row of each input that has one.

    It keeps the commonest label of those that the source's rows and the annotators give; of equally common ones the
    last, and people come after the source. Values are cast to what the column holds, otherwise it is a DataError.
    A table without these columns is left as it is: `check_table` says what is wrong.
    """
    inputs = [*text, *features]
    labels = current_labels(annotations).reset_index(drop=True) if len(annotations) else annotations
    if labels.empty or not frame.columns.is_unique or not set(inputs) <= set(frame.columns):
        return Merged(frame)
    records = DataFrame(labels["record"].tolist(), dtype=object).assign(**{label: labels["label"]})
    added = cast_columns(records.reindex(columns=[*dict.fromkeys([*frame.columns, label])]), frame, ids=labels["id"])
    pool = pandas.concat([frame, added], ignore_index=True)
    hashes = hash_inputs(pool, text=text, inputs=inputs)
    by = np.array([SOURCE] * len(frame) + labels["annotator"].tolist(), dtype=object)
    is_annotated = hashes.isin(hashes[len(frame) :])
    taken, _ = remove_repeats(pool[is_annotated], hashes[is_annotated], label)
    votes = DataFrame({"hash": hashes, "label": pool[label], "by": by})[is_annotated & ~is_missing(pool[label])]
    conflicts = find_conflicts(votes, taken=taken, hashes=hashes, inputs=inputs, label=label)
    how = labels["strategy"].array
    own = hashes[len(frame) :].array
    trusted = {*own[how == "random"], *votes.loc[votes["by"] == SOURCE, "hash"]}
    counts = {"n": len(labels), "by": labels["annotator"].value_counts().to_dict()}
    facts = {**counts, "conflicts": len(conflicts), "last_id": int(annotations["id"].max())}
    merged = pool.loc[sorted([*pool.index[~is_annotated], *taken.index])]
    return Merged(merged, facts, tuple(conflicts), frozenset(own[np.isin(how, ACTIVE)]) - trusted)


def read_examples(
    frame: DataFrame, *, text: list[str], features: list[str], ignore: list[str], label: str
) -> tuple[DataFrame, int]:
    """The rows of a file as columns hash, record and label (None without one), and how many had no input.

    Raises DataError for all that is wrong with it, also where the rows of one input have different labels.
    """
    rest = [name for name in frame if name != label and name not in ignore]
    inputs = [*text, *(features or ([] if text else rest))]
    check_table(frame, text=text, features=inputs[len(text) :], label="")
    filled, empty = remove_empty(frame, inputs)
    records = list_records(filled.drop(columns=label, errors="ignore"))
    labels = filled[label].mask(is_missing(filled[label])) if label in filled else None
    rows = DataFrame({"hash": hash_inputs(filled, text=text, inputs=inputs), "record": records}, dtype=object)
    rows["label"] = Series(labels, rows.index, dtype=object)
    known = rows.dropna(subset="label").drop_duplicates(["hash", "label"])
    if (twice := known["hash"].duplicated()).any():
        listed = list_rows(known.index[twice])
        raise DataError(f"{twice.sum()} inputs have another label than in an earlier row ({listed}). Choose one")
    return rows, empty


def find_new_labels(rows: DataFrame, said: DataFrame, *, annotator: str) -> DataFrame:
    """Those of `rows` (see `read_examples`) with a label that, by the annotations `said`, is news of `annotator`."""
    newest = said["id"].max() if len(said) else 0  # so that the same upload, sent twice at once, has the same keys
    mine = current_labels(said[said["annotator"] == annotator]).set_index("hash")["label"]
    labelled = rows.dropna(subset="label").drop_duplicates("hash")
    fresh = labelled[labelled["label"].to_numpy() != mine.reindex(labelled["hash"]).to_numpy()]
    return fresh.assign(key=f"given:{annotator}:{newest}:" + fresh["hash"])


def list_records(frame: DataFrame) -> list[dict[str, Any]]:
    """The rows as plain mappings: a missing value is None, a time is ISO 8601 text."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(n): v.isoformat() if hasattr(v, "isoformat") else v for n, v in row.items()} for row in rows]


def find_conflicts(
    votes: DataFrame, *, taken: DataFrame, hashes: Series, inputs: list[str], label: str
) -> list[dict[str, Any]]:
    """The inputs that `votes` (columns hash, label, by) give different labels: the input, by whom, which is taken."""
    kinds = votes.groupby("hash", sort=False)["label"].nunique()
    rows, conflicts = dict(zip(hashes[taken.index], taken.index, strict=True)), []
    for key, group in votes[votes["hash"].isin(kinds.index[kinds > 1])].groupby("hash", sort=False):
        by = group.groupby("label", sort=False)["by"].unique()
        row = taken.loc[rows[key]]
        shown = row[inputs[0]] if len(inputs) == 1 else row[inputs].to_dict()
        said = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in by.items())
        conflicts.append({"input": shown, "labels": said, "taken": row[label]})
    return conflicts


def cast_columns(records: DataFrame, like: DataFrame, *, ids: Series) -> DataFrame:
    """`records` with the types of what the columns of `like` hold; DataError for all values that cannot be that."""
    known = {name: like[name].dropna().infer_objects() for name in records if name in like}
    cast = {name: cast_values(column, known[name]) if name in known else column for name, column in records.items()}
    problems = []
    for name, column in cast.items():
        if len(wrong := records[name][records[name].notna() & column.isna()]):
            listed = f"annotations {', '.join(map(str, ids[wrong.index][:5]))}{', …' * (len(wrong) > 5)}"
            are = f"{len(wrong)} values are not, e.g. {show(wrong.iloc[0])} ({listed})"
            problems.append(f"column {name!r}: {known[name].dtype} is expected, but {are}")
    if problems:
        raise DataError(f"{describe_problems('the annotations', problems)}. Retract those, or correct the source")
    return DataFrame(cast)


def cast_values(values: Series, known: Series) -> Series:
    """`values` as the type of `known`, which has none missing; one that cannot be that exactly is missing."""
    if known.empty:
        return values
    given = values.dropna()
    if types.is_numeric_dtype(known):
        words = BOOLEANS if types.is_bool_dtype(known) else {}
        numbers = pandas.to_numeric(given.map(lambda value: words.get(str(value).lower(), value)), errors="coerce")
        finite = numbers[np.isfinite(numbers.astype(float))]
        cast = finite.astype(known.dtype)
        return (cast if types.is_float_dtype(known) else cast[cast == finite]).reindex(values.index)
    if types.is_datetime64_any_dtype(known):
        times = pandas.to_datetime(values, errors="coerce", format="ISO8601", utc=known.dt.tz is not None)
        return times.astype(known.dtype)
    return values.map(str, na_action="ignore").astype(known.dtype) if types.is_string_dtype(known) else values
