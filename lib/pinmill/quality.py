"""How well people agree, as modellers and admins read it, and the seat at which one settles what they disagree on."""

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pandas import DataFrame

from pinmill.agreement import confusions, count_labels, disagreements, krippendorff_alpha, pair_kappas
from pinmill.annotations import current_labels
from pinmill.markdown import Markdown, callout, escape, format_value, join, table
from pinmill.seat import Item, Seat

MOST = 20  # rows of a table that people read
COUNTS = {
    "annotator": "Person", "n": "Labels", "labels": "Which", "skipped": "Skipped", "seconds": "Seconds (median)",
    "pace": "An hour",
}  # fmt: skip
RIGHT, ROUNDED = ("Seconds (median)", "An hour"), {"seconds": "{:.1f}".format, "pace": "{:.0f}".format}
PAIRS = {"first": "First", "second": "Second", "n": "Inputs", "agreement": "Agreement", "kappa": "Cohen's kappa"}
MIXED = {"first": "First", "one": "says", "second": "Second", "other": "says instead", "n": "Inputs"}


def tell_quality(said: DataFrame, *, now: datetime) -> Markdown:
    """Of all annotations: who labelled how much and how fast, how far people agree, and who confuses what."""
    labels, counts, when = current_labels(said), count_labels(said), format_value(now)
    if counts.empty:
        return callout(f"Nobody has labelled anything yet, as of {when}.", kind="note", title="No labels")
    seconds, pace = (counts[name].map(form, na_action="ignore") for name, form in ROUNDED.items())
    counts = counts.assign(seconds=seconds, pace=pace).rename(columns=COUNTS)
    done = table(counts, caption=f"What each person has done, as of {when}", right=RIGHT)
    pairs = pair_kappas(labels)
    if pairs.empty:
        alone = "No input was labelled by two people, so nobody knows how well they agree: raise the parameter overlap."
        return join(done, callout(alone, kind="note", title="Not compared"))
    alpha, mixed, apart = krippendorff_alpha(labels), confusions(labels), disagreements(labels)
    shared = labels["hash"][labels["hash"].duplicated()].nunique()
    known = "cannot be told, as all labels are the same" if alpha is None else f"is {alpha:.3f}"
    words = f"Krippendorff's alpha {known}, on {shared:,} inputs that several people labelled."
    told = apart["said"].map(lambda said: "; ".join(f"{name}: {format_value(label)}" for name, label in said.items()))
    shown = DataFrame({"Input": apart["record"].map(show_record), "Labels": told}).head(MOST)
    return join(
        done,
        escape(words),
        table(pairs.rename(columns=PAIRS), caption="How far two people agree"),
        table(
            mixed.head(MOST)[[*MIXED]].rename(columns=MIXED),
            caption="Who says what where the other says something else",
        ),
        table(shown, caption=f"The first {len(shown)} of {len(apart):,} inputs on which people disagree", max_chars=220)
        if len(shown)
        else "",
    )


def show_record(record: Mapping[str, Any]) -> str:
    """A record on one line: the value alone where there is but one column."""
    return format_value(next(iter(record.values())) if len(record) == 1 else record)


class Settling:
    """The seat of one who settles what people disagree on: those examples, with who said what.

    A label is one more vote, and the last. Undo shows an example again, until another label replaces the one it got.
    """

    def __init__(self, seat: Seat) -> None:
        self._seat, self._left = seat, []  # items that were labelled or passed over here, in order
        self._again: set[str] = set()  # of these, what is to be labelled once more
        self.annotator, self.role, self.workflow = seat.annotator, seat.role, seat.workflow
        self.labels, self.text, self.guideline = seat.labels, seat.text, seat.guideline

    def take(self, n: int) -> list[dict[str, Any]]:
        """The next n examples on which people disagree, which this one has not settled or passed over."""
        return [self._tell(row) for row in self._find().head(n).to_dict("records")]

    def label(
        self, item: Item, label: Any, *, record: Item | None = None, seconds: float | None = None, note: str = ""
    ) -> dict[str, Any]:
        """Keep the label of an item, or of the `record` that it was edited into: {id, label, known}."""
        told = self._seat.label(item, label, record=record, seconds=seconds, note=note)
        self._leave(item)
        return told

    def skip(self, item: Item, *, note: str = "", seconds: float | None = None) -> None:
        """Pass over an item until the page is opened again; nothing is kept, as an own label of it would not count."""
        self._leave(item)

    def undo(self) -> dict[str, Any] | None:
        """The item that was left last, to label it once more."""
        if not self._left:
            return None
        item = self._left.pop()
        self._again.add(item["id"])
        return {**item, "key": secrets.token_hex(12)}

    def score(self, record: Item) -> dict[str, Any] | None:
        """What the champion makes of a record."""
        return self._seat.score(record)

    def progress(self) -> dict[str, Any]:
        """The annotator's own, but how many disagreements are open and were settled here."""
        return {**self._seat.progress(), "open": len(self._find()), "done": len(self._left)}

    def _leave(self, item: Item) -> None:
        self._again.discard(item["id"])
        self._left.append(item)

    def _find(self) -> DataFrame:
        """The disagreements that wait: hash, record, said."""
        labels = current_labels(self._seat.annotations())
        found, last = disagreements(labels), labels.drop_duplicates("hash", keep="last")
        mine = last[(last["annotator"] == self.annotator) & (last["strategy"] == "given")]
        done = ({*mine["hash"]} | {item["id"] for item in self._left}) - self._again
        return found[~found["hash"].isin(done)]

    def _tell(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A disagreement as an item."""
        about = {
            "key": secrets.token_hex(12),
            "expires": "",
            "strategy": "given",
            "prediction": self.score(row["record"]),
        }
        return {"id": row["hash"], "record": row["record"], "said": row["said"], **about}
