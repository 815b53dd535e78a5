"""What people said of inputs, and how it joins a table: current labels, conflicts, and one row per input. Pure."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas
from pandas import DataFrame, Series
from pandas.api import types

from pinmill.errors import DataError, describe_problems, did_you_mean
from pinmill.table import check_table, hash_rows, is_missing, list_rows, remove_empty, remove_repeats, show

ACTIVE = ("uncertainty", "disagreement")  # chosen by the model: hard cases, which a test must not be made of
BOOLEANS = {"true": True, "false": False}
SOURCE = "the source"
NOTHING = {"n": 0, "by": {}, "conflicts": 0, "replaced": 0, "last_id": 0}  # what is told where nobody labelled


@dataclass(frozen=True)
class Merged:
    """A table with people's labels in it."""

    frame: DataFrame  # its index names the source's rows as before
    facts: dict[str, Any] = field(default_factory=lambda: {**NOTHING, "by": {}})
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
    frame: DataFrame, annotations: DataFrame, *, text: list[str], features: list[str], label: str, unique: bool
) -> Merged:
    """Append one row per input that people labelled, with its record, to `frame`, and drop the rows it replaces.

    If inputs are `unique` these are all with that input: the source has one vote, its commonest label, and spoke first.
    Else equal inputs are different cases: only rows without a label are replaced, and only people vote. Each has one
    vote; the commonest label is taken, of equally common ones the last. DataError for values of another type than the
    column's. A table without these columns is left as it is: `check_table` says what is wrong.
    """
    inputs = [*text, *features]
    if annotations.empty or not frame.columns.is_unique or not set(inputs) <= set(frame.columns):
        return Merged(frame)
    told = annotations.set_axis([*annotations["id"]])
    records = DataFrame(told["record"].tolist(), told.index, dtype=object).assign(**{label: told["label"]})
    records = records.reindex(columns=[*dict.fromkeys([*frame.columns, label])])
    cast = cast_columns(records[inputs], frame)[0]
    known = cast.astype(object).where(cast.notna(), records[inputs])
    # The stored hash may be of other inputs, or of values of other types.
    labels = current_labels(told.assign(hash=hash_inputs(known, text=text, inputs=inputs)))
    if labels.empty:
        return Merged(frame)
    added, problems = cast_columns(records.loc[labels.index], frame, of="annotations")
    if problems:
        step = "Retract those (pinmill annotations WORKFLOW --retract ID), or correct the source"
        raise DataError(f"{describe_problems('the annotations', problems)}. {step}")
    pool = pandas.concat([frame, added], ignore_index=True)
    hashes = hash_inputs(pool, text=text, inputs=inputs)
    by = np.array([SOURCE] * len(frame) + labels["annotator"].tolist(), dtype=object)
    is_source, is_labelled = pool.index < len(frame), ~is_missing(pool[label])
    own = hashes[~is_source].array
    equal = is_source & hashes.isin(own)
    first, _ = remove_repeats(pool[equal & is_labelled & unique], hashes[equal & is_labelled & unique], label)
    ballots = pool.loc[[*first.index, *pool.index[~is_source]]]
    taken, _ = remove_repeats(ballots, hashes[ballots.index], label)
    votes = DataFrame({"hash": hashes, "label": pool[label], "by": by}).loc[ballots.index[~is_missing(ballots[label])]]
    conflicts = find_conflicts(votes, taken=taken, hashes=hashes, inputs=inputs, label=label)
    how, replaced = labels["strategy"].array, equal & (unique | ~is_labelled)
    trusted = {*own[how == "random"], *hashes[equal & is_labelled]}
    counts = {"n": len(labels), "by": labels["annotator"].value_counts().to_dict(), "conflicts": len(conflicts)}
    facts = {**counts, "replaced": int(replaced.sum()), "last_id": int(told["id"].max())}
    merged = pool.loc[[*pool.index[is_source & ~replaced], *sorted(taken.index)]]
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
    kept = filled.drop(columns=label, errors="ignore")
    finite = {name: kept[name].where(~kept[name].isin([np.inf, -np.inf]), None) for name in kept if name not in inputs}
    records = list_records(kept.assign(**finite))  # JSON has no infinity
    labels = filled[label].mask(is_missing(filled[label])) if label in filled else None
    rows = DataFrame({"hash": hash_inputs(filled, text=text, inputs=inputs), "record": records}, dtype=object)
    rows["label"] = Series(labels, rows.index, dtype=object)
    known = rows.dropna(subset="label").drop_duplicates(["hash", "label"])
    if (twice := known["hash"].duplicated()).any():
        listed = list_rows(known.index[twice])
        raise DataError(f"{twice.sum()} inputs have another label than in an earlier row ({listed}). Choose one")
    return rows, empty


def check_examples(
    frame: DataFrame, like: DataFrame, *, inputs: list[str], label: str, classes: Collection[str]
) -> dict[str, int]:
    """How many rows of a file have each label that is none of `classes`; nothing, if these are none.

    Raises DataError for all that keeps its rows from joining `like`, the table of a data pin with these `inputs`.
    """
    given = DataFrame(list_records(frame), frame.index, dtype=object)
    given = given.assign(**{label: given[label].mask(is_missing(given[label]))}) if label in given else given
    missing = [name for name in inputs if name not in frame]
    problems = [f"column {name!r} is missing.{did_you_mean(name, frame)}".removesuffix(".") for name in missing]
    if problems := problems + cast_columns(given, like)[1]:
        raise DataError(f"{describe_problems('the file', problems)}. Nothing was added: correct it, then add it again")
    labels = cast_columns(given[[label]].dropna(), like)[0][label].map(str) if label in given else Series(dtype=str)
    return labels[~labels.isin([*classes])].value_counts().to_dict() if classes else {}


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
    kinds, conflicts = votes.groupby("hash", sort=False)["label"].nunique(), []
    rows = dict(zip(hashes[taken.index], list_records(taken[[*inputs, label]]), strict=True))
    for key, group in votes[votes["hash"].isin(kinds.index[kinds > 1])].groupby("hash", sort=False):
        by = group.groupby("label", sort=False)["by"].unique()
        shown = {name: rows[key][name] for name in inputs}
        said = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in by.items())
        shown = shown[inputs[0]] if len(inputs) == 1 else shown
        conflicts.append({"input": shown, "labels": said, "taken": rows[key][label]})
    return conflicts


def cast_columns(given: DataFrame, like: DataFrame, *, of: str = "rows") -> tuple[DataFrame, list[str]]:
    """`given` with the types of what the columns of `like` hold, and what is wrong: values that cannot be that.

    Those are missing in what is returned, and told by the index of `given`, which numbers what `of` says.
    """
    cast, problems = {}, []
    for name, column in given.items():
        known = like[name].dropna().infer_objects() if name in like else column[:0]
        cast[name] = cast_values(column, known)
        if len(wrong := column[column.notna() & cast[name].isna()]):
            listed = f"{of} {', '.join(map(str, wrong.index[:5]))}{', …' * (len(wrong) > 5)}"
            are = f"{len(wrong)} values are not, e.g. {show(wrong.iloc[0])} ({listed})"
            problems.append(f"column {name!r}: {known.dtype} is expected, but {are}")
    return DataFrame(cast, given.index), problems


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
        texts = values.map(lambda value: value if isinstance(value, str) else None)
        times = pandas.to_datetime(texts, errors="coerce", format="ISO8601", utc=True)  # one without a zone is UTC
        return times.dt.tz_convert(known.dt.tz).astype(known.dtype)
    return values.map(str, na_action="ignore").astype(known.dtype) if types.is_string_dtype(known) else values
