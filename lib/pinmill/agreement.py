"""How well people agree: Krippendorff's alpha, Cohen's kappa, who confuses what; and how much each has done. Pure.

`labels` are current ones, as `annotations.current_labels` gives them: columns hash, annotator and label, at most one
row for each input and annotator.
"""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

RECENT = 20  # labels that the pace is of
EDITED = "edited"  # the note of the skip of an example whose edited text was labelled instead


def krippendorff_alpha(labels: "DataFrame") -> float | None:
    """How far any number of annotators agree on what at least two of them labelled: 1 fully, 0 as by chance.

    For nominal labels. None if no input was labelled twice, or all labels are the same: it is not defined then.
    Source: Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, section D.
    """
    kinds = labels["label"].map(name_label)
    counts = kinds.groupby([labels["hash"], kinds]).size()
    each = counts.groupby(level=0).sum()
    each = each[each > 1]
    counts = counts[counts.index.isin(each.index, level=0)]
    n, of_kind = int(each.sum()), counts.groupby(level=1).sum()
    expected = n**2 - int((of_kind**2).sum())  # pairs of different labels, were they dealt out anew
    observed = ((each**2 - (counts**2).groupby(level=0).sum()) / (each - 1)).sum()
    return 1 - (n - 1) * float(observed) / expected if expected else None


def pair_kappas(labels: "DataFrame") -> "DataFrame":
    """For each two annotators who labelled the same inputs: how many (n), share of equal labels, Cohen's kappa.

    Columns first, second, n, agreement, kappa; kappa is None where both always gave one and the same label.
    """
    from pandas import DataFrame
    from sklearn.metrics import cohen_kappa_score

    rows = []
    for (first, second), pair in match_labels(labels).groupby(["first", "second"]):
        known = {*pair["one_name"], *pair["other_name"]}
        kappa = float(cohen_kappa_score(pair["one_name"], pair["other_name"])) if len(known) > 1 else None
        agreement = float((pair["one_name"] == pair["other_name"]).mean())
        rows.append({"first": first, "second": second, "n": len(pair), "agreement": agreement, "kappa": kappa})
    return DataFrame(rows, columns=["first", "second", "n", "agreement", "kappa"])


def confusions(labels: "DataFrame") -> "DataFrame":
    """How often (n) `first` said `one` where `second` said `other`, which is not the same; the commonest first."""
    pairs = match_labels(labels)
    mixed = pairs[pairs["one_name"] != pairs["other_name"]]
    by = ["first", "second", "one_name", "other_name"]
    counted = mixed.groupby(by, as_index=False).agg(one=("one", "first"), other=("other", "first"), n=("hash", "size"))
    counted = counted.sort_values("n", ascending=False, kind="stable", ignore_index=True)
    return counted[["first", "second", "one", "other", "n"]]


def disagreements(labels: "DataFrame") -> "DataFrame":
    """The inputs that got different labels, by the first of them: hash, record, and {annotator: label} as said."""
    from pandas import DataFrame

    kinds = labels["label"].map(name_label).groupby(labels["hash"]).transform("nunique")
    rows = []
    for hash, given in labels[kinds > 1].groupby("hash", sort=False):
        said = dict(zip(given["annotator"], given["label"], strict=True))
        rows.append({"hash": hash, "record": given["record"].iloc[0], "said": said})
    return DataFrame(rows, columns=["hash", "record", "said"], dtype=object)


def count_labels(annotations: "DataFrame") -> "DataFrame":
    """What each annotator has done, by all rows of the store: the most labels first.

    Columns annotator, n (current labels), labels (how many of which kind, in words), skipped (edited ones not counted),
    seconds (the median from seeing an example to its label) and pace (labels an hour over the last RECENT).
    """
    from pandas import DataFrame

    from pinmill.annotations import current_labels

    rows = []
    answered = annotations.assign(label=annotations["label"].map(lambda label: (label,)))  # a skip is an answer, too
    for annotator, own in current_labels(answered).groupby("annotator"):
        given = own["label"].map(itemgetter(0))
        labels = own[given.notna()]
        kinds = given.dropna().map(str).value_counts()
        rows.append(
            {
                "annotator": annotator,
                "n": len(labels),
                "labels": ", ".join(f"{n} {kind}" for kind, n in kinds.items()),
                "skipped": int((given.isna() & (own["note"] != EDITED)).sum()),
                "seconds": float(seconds.median()) if len(seconds := labels["seconds"].dropna()) else None,
                "pace": find_pace([datetime.fromisoformat(when) for when in labels["created"]]),
            }
        )
    rows.sort(key=lambda row: (-row["n"], row["annotator"]))
    return DataFrame(rows, columns=["annotator", "n", "labels", "skipped", "seconds", "pace"])


def match_labels(labels: "DataFrame") -> "DataFrame":
    """Each two labels of one input: first and second (annotators, in the order of their names), one and other."""
    told = labels[["hash", "annotator", "label"]].assign(name=labels["label"].map(name_label))
    told = told[told["hash"].duplicated(keep=False)]
    one = told.set_axis(["hash", "first", "one", "one_name"], axis=1)
    pairs = one.merge(told.set_axis(["hash", "second", "other", "other_name"], axis=1), on="hash")
    return pairs[pairs["first"] < pairs["second"]]


def find_pace(times: Sequence[datetime]) -> float | None:
    """Labels an hour, of the last RECENT made at these `times`, in order; None for fewer than two, or all at once."""
    last = times[-RECENT:]
    hours = (last[-1] - last[0]) / timedelta(hours=1) if last else 0.0
    return (len(last) - 1) / hours if hours > 0 else None


def name_label(label: Any) -> str:
    """A text that is the same for the same label only: 1 is 1.0, but neither True nor "1"."""
    is_number = isinstance(label, int | float) and not isinstance(label, bool)
    return json.dumps(float(label) if is_number else label)
