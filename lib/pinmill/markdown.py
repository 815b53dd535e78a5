"""Markdown whose data values are inert: what a data value says is shown, never obeyed.

Quarto expands `{{< env X >}}` wherever it finds it, so every value is written with HTML entities. The same text shows
correctly in JupyterLab, Quarto and our own page. As with markupsafe, a `Markdown` is trusted and a plain `str` is not.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pandas import DataFrame

Rows = Sequence[Mapping[str, Any]]
Kind = Literal["note", "tip", "important", "warning", "caution"]  # the five that Quarto knows
MAX_ROWS = 200  # a longer table is not read
BOOLEANS = ("bool", "bool_")  # the second is NumPy's, which is no subclass
SEPARATED_FROM = 10_000  # below it no separators, so that a year is not 2,025
SIGNS = re.compile(
    r"""[&<>{}|*_$\[\]#@~`\\^'"()+=:-]"""  # wherever they stand
    r"""|^[^\W_]{1,9}\.(?!\S)|(?<!\d)\.(?=\w)|\.(?=\.)"""  # points of a list, an address, an ellipsis
)
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")  # they hide or reorder
PLAIN_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .,:/+=_()-]*")


class Markdown(str):
    """Markdown text that is safe as it stands; a notebook shows it rendered."""

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        return str(self)

    __repr__ = _repr_markdown_


def escape(value: object) -> Markdown:
    """One line of Markdown that shows `value` as text; a `Markdown` is returned as it is.

    Whitespace runs become one space, control and direction-changing characters are dropped, and all that Pandoc or
    CommonMark could read as a sign is an entity.
    """
    if isinstance(value, Markdown):
        return value
    text = UNSEEN.sub("", re.sub(r"\s+", " ", str(value)))
    return Markdown(SIGNS.sub(lambda found: f"{found[0][:-1]}&#{ord(found[0][-1])};", text))


def code(value: object) -> Markdown:
    """`value` in a code span if it is plain letters and digits, otherwise as text: a code span decodes no entities."""
    text = str(value)
    return Markdown(f"`{text}`") if PLAIN_CODE.fullmatch(text) and "::" not in text else escape(text)


def paragraphs(text: str) -> Markdown:
    """Plain paragraphs, separated by empty lines as in `text`, with all else of it shown as it was typed."""
    if isinstance(text, Markdown):
        return text
    return Markdown("\n\n".join(escape(part) for part in re.split(r"\n\s*\n", text.strip())))


def join(*parts: str) -> Markdown:
    """The blocks one after the other; a plain `str` among them becomes escaped paragraphs, an empty one is left out."""
    return Markdown("\n\n".join(paragraphs(part) for part in parts if part))


def bullets(items: Iterable[object]) -> Markdown:
    """A list with one line per item."""
    return Markdown("\n".join(f"- {escape(item)}" for item in items))


def callout(text: str, kind: Kind = "warning", *, title: str = "") -> Markdown:
    """A box that stands out: a Quarto callout, a styled box on our page, bold text in JupyterLab."""
    head = f"**{escape(title or kind.capitalize())}**"
    return Markdown(f'<div class="callout-{kind}" appearance="simple">\n\n{head}\n\n{paragraphs(text)}\n\n</div>')


def table(
    frame: "DataFrame | Rows", *, caption: str = "", right: Collection[str] = (), max_chars: int = 400
) -> Markdown:
    """A pipe table of a DataFrame or of a list of rows, every value and header escaped.

    Columns of numbers, and those named in `right`, stand to the right. Rows after the 200th are only counted; values
    longer than `max_chars` end in "…".
    """
    if isinstance(frame, Sequence):
        names = list(dict.fromkeys(name for row in frame for name in row))
        columns = [[row.get(name) for row in frame[:MAX_ROWS]] for name in names]
    else:
        names = list(frame.columns)
        columns = [frame.iloc[:MAX_ROWS, place].tolist() for place in range(frame.shape[1])]
    sides = [name in right or is_numeric(values) for name, values in zip(names, columns, strict=True)]
    whole = [[format_value(value) for value in values] for values in columns]
    texts = [[t if len(t) <= max_chars else t[: max_chars - 1] + "…" for t in column] for column in whole]
    head = Markdown(f"**{escape(caption)}**") if caption else ""
    more = len(frame) - MAX_ROWS
    note = f"{more} more rows are not shown." if more > 0 else "" if len(frame) else "No rows."
    return join(head, _pipe_table([*map(str, names)], texts, sides) if columns else "", note)


def is_missing(value: object) -> bool:
    """Whether a value is None, NaN, NA or NaT, which pandas need not be imported for."""
    return (isinstance(value, Real) and value != value) or type(value).__name__ in ("NoneType", "NAType", "NaTType")


def is_numeric(values: Sequence[object]) -> bool:
    """Whether all values but missing ones are numbers, and there is one; booleans are none."""
    present = [value for value in values if not is_missing(value)]
    return bool(present) and all(isinstance(v, Real) and type(v).__name__ not in BOOLEANS for v in present)


def value_list(values: Mapping[str, object], *, digits: int = 3) -> Markdown:
    """A two-column table without a header: what a value is, and the value."""
    texts = [format_value(value, digits=digits) for value in values.values()]
    return _pipe_table(["", ""], [list(values), texts], [False, False])


def format_value(value: object, *, digits: int = 3) -> str:
    """`value` as a reader expects it, not yet escaped; None, NaN, NA and NaT are "—".

    Numbers from 10,000 on have separators (years do not). A float that would be rounded to zero keeps one digit.
    """
    if is_missing(value):
        return "—"
    if type(value).__name__ in BOOLEANS:
        return "yes" if value else "no"
    if isinstance(value, Real):
        is_tiny = 0 < abs(value) < 0.5 * 10**-digits
        places = "d" if isinstance(value, Integral) else ".1g" if is_tiny else f".{digits}f"
        return format(value, f",{places}" if abs(value) >= SEPARATED_FROM else places)
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="minutes").replace("+00:00", " UTC")
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {format_value(item, digits=digits)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(format_value(item, digits=digits) for item in value)
    return value if isinstance(value, str) else str(value)


def _pipe_table(names: Sequence[str], columns: Sequence[Sequence[str]], to_right: Sequence[bool]) -> Markdown:
    """The lines of the table; the dashes of a column tell Pandoc how wide it is in relation to the others."""
    dashes = ["-" * min(max(2, *map(len, (name, *texts))), 60) for name, texts in zip(names, columns, strict=True)]
    rule = [f"-{dash}:" if right else f":{dash}-" for dash, right in zip(dashes, to_right, strict=True)]
    rows = [[escape(text) for text in row] for row in (names, *zip(*columns, strict=True))]
    return Markdown("\n".join(f"| {' | '.join(cells)} |" for cells in (rows[0], rule, *rows[1:])))
