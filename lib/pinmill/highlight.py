"""Which words of a text, and which columns of a record, push a model's score, and in which direction.

Read from the features and contributions that `service.explain_row` tells: 'word: free', 'chars: ‹ing ›', 'city = Oslo'.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

Explanation = Sequence[Mapping[str, Any]]
TOKEN = re.compile(r"\b\w\w+\b")  # what scikit-learn's vectorizers take for a word
FEATURE = re.compile(r"(?s:word: (?P<word>.+)|chars: ‹(?P<piece>.+)›)")


def find_spans(text: str, explanation: Explanation) -> list[dict[str, float]]:
    """Where features stand in a text, case aside: [{start, end, push}], in order, not overlapping.

    push > 0 speaks for the class that is explained, < 0 against it. Of features that overlap the one with the largest
    |push| has the characters; what touches and pushes the same way is one span with the largest. start and end count
    UTF-16 units, as JavaScript does. Features that are not of text are passed over.
    """
    lowered, pushes = _lower(text), [0.0] * len(text)
    find = _make_finder(lowered)
    for each in sorted(explanation, key=lambda each: -abs(each["contribution"])):
        for start, end in find(each["feature"]):
            pushes[start:end] = [push or each["contribution"] for push in pushes[start:end]]
    units = [0, *accumulate(1 + (ord(character) > 0xFFFF) for character in text)]
    return [
        {"start": units[start], "end": units[end], "push": max(pushes[start:end], key=abs)}
        for start, end in _find_runs(text, pushes)
    ]


def find_pushes(record: Mapping[str, Any], explanation: Explanation) -> dict[str, float]:
    """How much each column of a record pushes, summed over its features; without columns that do not.

    A word or piece that names no column counts for the first text in which it stands.
    """
    finders = {name: _make_finder(_lower(value)) for name, value in record.items() if isinstance(value, str)}
    pushes: dict[str, float] = {}
    for each in explanation:
        feature = each["feature"]
        if FEATURE.fullmatch(feature):
            column = next((name for name, find in finders.items() if find(feature)), None)
        else:
            named = [name for name in record if re.match(rf"{re.escape(name)}(?:_|(?!\w))", feature)]
            column = max(named, key=len, default=None)
        if column is not None:
            pushes[column] = pushes.get(column, 0.0) + each["contribution"]
    return {name: push for name, push in pushes.items() if push}


def _lower(text: str) -> str:
    """The text in lower case, of the same length."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else "".join(low if len(low := c.lower()) == 1 else c for c in text)


def _make_finder(lowered: str) -> Callable[[str], list[tuple[int, int]]]:
    """The function from a feature to where it stands in a text in lower case, as (start, end)."""
    tokens = [(found[0], *found.span()) for found in TOKEN.finditer(lowered)]

    def find(feature: str) -> list[tuple[int, int]]:
        """Words follow each other as the vectorizer reads them; a space at the end of a piece is the end of a word."""
        found = FEATURE.fullmatch(feature)
        if found and found["word"]:
            words = found["word"].lower().split(" ")
            firsts = [n for n, (token, *_) in enumerate(tokens) if token == words[0]]
            runs = [tokens[n : n + len(words)] for n in firsts]
            return [(run[0][1], run[-1][2]) for run in runs if [token for token, *_ in run] == words]
        if found and (piece := found["piece"].lower()).strip():
            inner = r"\s+".join(map(re.escape, piece.split()))
            before, after = r"(?<!\S)" if piece[0].isspace() else "", r"(?!\S)" if piece[-1].isspace() else ""
            return [place.span(1) for place in re.finditer(rf"{before}(?=({inner}){after})", lowered)]
        return []

    return find


def _find_runs(text: str, pushes: Sequence[float]) -> list[tuple[int, int]]:
    """Where neighbouring characters push the same way, without white space at the ends."""
    signs = "".join("+" if push > 0 else "-" if push < 0 else " " for push in pushes)
    inked = "".join(" " if letter.isspace() else "x" for letter in text)
    runs = [found.span() for found in re.finditer(r"\++|-+", signs)]
    held = [(start, end, inked[start:end]) for start, end in runs if "x" in inked[start:end]]
    return [(start + part.index("x"), start + part.rindex("x") + 1) for start, _, part in held]
