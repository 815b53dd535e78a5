"""Two model versions side by side, as a page that the library builds."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from nbformat import v4

from pinmill.card import INTERVAL, NAMES, format_score
from pinmill.markdown import UNSEEN, Markdown, bullets, callout, code, escape, join, table, value_list
from pinmill.page import Page

Found = Mapping[str, Any]  # what `read_comparison` returns

BETTER = {"a": "A is better", "b": "B is better", "": "no clear difference"}
SIGN = "A positive difference means that B is better; it is clear when its interval does not hold 0."
DATA = {
    "added": "Inputs that only B's data has",
    "removed": "Inputs that only A's data has",
    "relabelled": "Inputs that have another label in B's data",
}
HASH = re.compile(r"[0-9a-f]{64}")


def show_comparison(found: Found, *, subject: str, made: str = "") -> Page:
    """The page of what `read_comparison` found, and when (UTC); `subject` is the workflow's title. Pure."""
    a, b = found["a"]["version"], found["b"]["version"]
    changes = [{"What": c["what"], "A": shorten(c["before"]), "B": shorten(c["now"])} for c in found["changes"]]
    data = value_list({words: found["data"][key] for key, words in DATA.items()}) if found["data"] else ""
    diff = "A line that only A has begins with −, one that only B has with +." if found["diff"] else "It is the same."
    parts = {
        "The two versions": show_versions({"A": found["a"], "B": found["b"]}),
        "Scores on the same rows": show_scores(found),
        "Changed predictions": show_changed(found),
        "What else is not the same": table(changes) if changes else "Nothing that was recorded.",
        "Data": data or "Not compared: the data of one cannot be read, or its inputs are other columns.",
        "Code": "Not compared: an executed notebook cannot be read." if found["diff"] is None else diff,
    }
    cells = [v4.new_markdown_cell(join(Markdown(f"## {title}"), text)) for title, text in parts.items()]
    if found["diff"]:  # as plain text, in which no sign means anything
        shown = "\n".join(UNSEEN.sub("", line.expandtabs()) for line in found["diff"])
        output = v4.new_output("display_data", data={"text/plain": shown})
        cells.append(v4.new_code_cell("", outputs=[output], metadata={"options": {}}))
    name, subtitle = f"{found['workflow']}/compare/{a}-{b}", f"A is {a}, B is {b}"
    told = {"source": "the board and the executed notebooks", "lead": tell_difference(found)}
    return Page(name, v4.new_notebook(cells=cells), "Comparison", subtitle, subject, made, **told)


def tell_difference(found: Found) -> Markdown:
    """In a sentence, on how many metrics B is clearly better or worse, and how many predictions changed; or why not."""
    if not found["metrics"]:
        return escape(found["note"])
    sides = [find_better(row) for row in found["metrics"]]
    counts = {"better": sides.count("b"), "worse": sides.count("a")}
    of = f"of {len(sides)} metric{'s' * (len(sides) > 1)}"
    clear = " and ".join(f"{word} on {n}" for word, n in counts.items() if n).replace(" on", " than A on", 1)
    rest = f", with no clear difference on {sides.count('')}" * ("" in sides)
    said = f"B is {clear} {of}{rest}" if clear else f"There is no clear difference between A and B on any {of}"
    return escape(f"{said}; {found['changed']['n']:,} of {found['n']:,} predictions changed.")


def find_better(row: Found) -> str:
    """The side that is better on a metric, `a` or `b`; empty where the interval of the difference holds 0."""
    low, high = row["low"], row["high"]
    return "" if low is None or high is None else "b" if low > 0 else "a" if high < 0 else ""


def show_versions(sides: Mapping[str, Found]) -> Markdown:
    """What became of each, when and by whom it was made, and what of it cannot be read."""
    rows = []
    for name, side in sides.items():
        made = side["created"] and datetime.fromisoformat(side["created"])
        rows.append({"Model": name, "Version": code(side["version"]), "Status then": side["status"], "Made": made})
        rows[-1] |= {"By": side["by"], "Run": side["run"]}
    problems = bullets(f"{name}: {problem}" for name, side in sides.items() for problem in side["problems"])
    return join(table(rows), callout(problems, title="Not all of it can be read") if problems else "")


def show_scores(found: Found) -> Markdown:
    """The scores of both, and the difference with its interval; on which rows, or why on none."""
    rows = [
        {
            "Metric": NAMES.get(row["metric"], row["metric"]),
            **{side.upper(): format_score(row[side]) for side in ("a", "b")},
            "Difference": "—" if row["difference"] is None else f"{row['difference']:+.4f}",
            INTERVAL: "—" if row["low"] is None else f"{row['low']:+.4f} to {row['high']:+.4f}",
            "Which is better": BETTER[find_better(row)],
        }
        for row in found["metrics"]
    ]
    shown = table(rows, right=("A", "B", "Difference", INTERVAL)) if rows else ""
    return join(shown, f"{found['note']} {SIGN * bool(rows)}".strip())


def show_changed(found: Found) -> Markdown:
    """The first rows that the two predict differently, with what is true."""
    if not found["changed"] or not found["changed"]["n"]:
        return escape("Not compared." if found["changed"] is None else "None.")
    n, rows = found["changed"]["n"], found["changed"]["rows"]
    texts = [row["inputs"] if len(row["inputs"]) > 1 else next(iter(row["inputs"].values()), "") for row in rows]
    shown = [{"True": r["true"], "A": r["a"], "B": r["b"], "Input": t} for r, t in zip(rows, texts, strict=True)]
    return table(shown, caption=f"The first {len(rows)} of {n:,}" if n > len(rows) else f"All {n:,}")


def shorten(value: Any) -> Any:
    """A value that changed, as a table shows it: a SHA-256 by its beginning, an empty collection as a word."""
    if isinstance(value, str) and HASH.fullmatch(value):
        return code(value[:12])
    return "empty" if value in ({}, [], "") else value
