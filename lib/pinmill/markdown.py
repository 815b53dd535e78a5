"""Markdown whose data values are inert: what a data value says is shown, never obeyed.

Quarto expands `{{< env X >}}` wherever it finds it, so every value is written with HTML entities. The same text shows
correctly in JupyterLab, Quarto and our own page. As with markupsafe, a `Markdown` is trusted and a plain `str` is not.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pandas import DataFrame

Align = Literal["left", "right", "center"]
Kind = Literal["note", "tip", "important", "warning", "caution"]

KINDS = ("note", "tip", "important", "warning", "caution")  # the five that Quarto knows
SEPARATED_FROM = 10_000  # below it no separators, so that a year is not 2,025
MISSING = "—"
NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
SIGNS = re.compile(
    r"""[&<>{}|*_$\[\]#@~`\\^'"]"""  # signs wherever they stand
    r"|^\(?(?:\d{1,9}|[a-z]|[ivxlcdm]{2,9})[.)](?=\s|$)|^[-+=](?=\s|$)"  # what would begin a list or underline a heading
    r"|:(?!\d)|(?<!\d):"  # ::: and ://, but not 10:45
    r"|-(?=-)|(?<=-)-|\.(?=\.)|(?<=\.)\."  # what Pandoc would set as a dash or an ellipsis
    r"|(?<=\bwww)\.",  # what JupyterLab would make a link
    re.IGNORECASE,
)
BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")  # they reorder or hide what is shown
PLAIN_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .,:/+=_()-]*")
ALIGNMENT = {"left": ":{}-", "right": "-{}:", "center": ":{}:"}


class Markdown(str):
    """Markdown text that is safe as it stands; a notebook shows it rendered."""

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return str(self)


def escape(value: object) -> Markdown:
    """One line of Markdown that shows `value` as text; a `Markdown` is returned as it is.

    Whitespace runs become one space, control and direction-changing characters are dropped, and besides
    `& < > { } | * _ $ [ ] # @ ~` and the backtick all else that Pandoc or CommonMark would read as a sign is an entity.
    """
    if isinstance(value, Markdown):
        return value
    text = "".join(c for c in re.sub(r"\s+", " ", str(value)) if _is_shown(c))
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate could not be written to a file
    return Markdown(SIGNS.sub(lambda found: found[0][:-1] + _entity(found[0][-1]), text))


def _entity(character: str) -> str:
    return NAMED.get(character, f"&#{ord(character)};")


def _is_shown(character: str) -> bool:
    return unicodedata.category(character) != "Cc" and character not in BIDI


def code(value: object) -> Markdown:
    """`value` in a code span if it is plain letters, digits and the like, otherwise escaped text.

    Entities are not decoded in a code span, so nothing that needs one may stand there.
    """
    text = str(value)
    return Markdown(f"`{text}`") if PLAIN_CODE.fullmatch(text) and "::" not in text else escape(text)


def paragraphs(text: str) -> Markdown:
    """Plain paragraphs, separated by empty lines as in `text`, with all else of it shown as it was typed."""
    if isinstance(text, Markdown):
        return text
    parts = (escape(part.strip()) for part in re.split(r"\n\s*\n", text.strip()))
    return Markdown("\n\n".join(part for part in parts if part))


def join(*parts: str) -> Markdown:
    """The blocks one after the other; a plain `str` among them becomes escaped paragraphs, an empty one is left out."""
    return Markdown("\n\n".join(block for block in map(paragraphs, parts) if block))


def bullets(items: Iterable[object]) -> Markdown:
    """A list with one line per item."""
    return Markdown("\n".join(f"- {escape(item)}" for item in items))


def callout(text: str, kind: Kind = "warning", *, title: str = "") -> Markdown:
    """A box that stands out: a Quarto callout, a styled box on our page, bold text in JupyterLab.

    `title` is the kind's own name if empty. Raises ValueError for a kind that Quarto does not know.
    """
    if kind not in KINDS:
        raise ValueError(f"callout kind {kind!r} is unknown; it is one of {', '.join(KINDS)}")
    head = f"**{escape(title or kind.capitalize())}**"
    return Markdown(f'<div class="callout-{kind}" appearance="simple">\n\n{head}\n\n{paragraphs(text)}\n\n</div>')


def table(
    frame: "DataFrame | Sequence[Mapping[str, Any]]",
    *,
    caption: str = "",
    digits: int | Mapping[str, int] = 3,
    align: Mapping[str, Align] | None = None,
    index: bool = False,
    max_rows: int = 200,
    max_chars: int = 400,
) -> Markdown:
    """A pipe table of a DataFrame or of a list of rows; every value and header is escaped, numbers stand to the right.

    `digits` are decimals, for all columns or by column. Rows after `max_rows` are left out and counted below the
    table; values longer than `max_chars` end in "…".
    """
    names, rows = _columns_and_rows(frame, index=index)
    if not names:
        return join(caption, "No columns.")
    shown = rows[:max_rows]
    columns = list(zip(*shown, strict=True)) if shown else [()] * len(names)
    sides = [(align or {}).get(name) or ("right" if _is_numeric(values) else "left")
             for name, values in zip(names, columns, strict=True)]
    places = [digits if isinstance(digits, int) else digits.get(name, 3) for name in names]
    texts = [[_shorten(text, max_chars) for text in _format_column(values, digits=n)]
             for values, n in zip(columns, places, strict=True)]
    body = _pipe_table(names, texts, sides)
    left_out = f"{format_value(len(rows) - max_rows)} more rows are not shown." if len(rows) > max_rows else ""
    head = Markdown(f"**{escape(caption)}**") if caption else ""
    return join(head, body, left_out or ("No rows." if not rows else ""))


def value_list(values: Mapping[str, object], *, caption: str = "", digits: int = 3) -> Markdown:
    """A two-column table without a header: what a value is, and the value."""
    shown = [value if isinstance(value, Markdown) else format_value(value, digits=digits) for value in values.values()]
    head = Markdown(f"**{escape(caption)}**") if caption else ""
    return join(head, _pipe_table(["", ""], [list(values), shown], ["left", "left"])) if values else Markdown("")


def format_value(value: object, *, digits: int = 3) -> str:
    """`value` as a reader expects it, not yet escaped; None, NaN, NA and NaT are "—".

    Numbers from 10,000 on have separators (years do not). A float that would be rounded to zero keeps one digit.
    """
    if is_missing(value):
        return MISSING
    if isinstance(value, str):
        return value
    if type(value).__name__ in ("bool", "bool_"):  # also NumPy's, which is no subclass
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return f"{int(value):,d}" if abs(int(value)) >= SEPARATED_FROM else str(int(value))
    if isinstance(value, (Real, Decimal)):
        return _format_float(float(value), digits)
    if isinstance(value, datetime):
        return _format_time(value)
    if isinstance(value, (date, timedelta)):
        return str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {format_value(item, digits=digits)}" for key, item in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        items = value if isinstance(value, (list, tuple)) else sorted(value, key=str)
        return ", ".join(format_value(item, digits=digits) for item in items)
    return str(value)


def _format_column(values: Sequence[object], *, digits: int) -> list[str]:
    """The texts of one column: where one whole number has separators, all have."""
    texts = [format_value(value, digits=digits) for value in values]
    if not any(isinstance(v, Integral) and abs(int(v)) >= SEPARATED_FROM for v in values):
        return texts
    return [f"{int(v):,d}" if isinstance(v, Integral) and not isinstance(v, bool) else text
            for v, text in zip(values, texts, strict=True)]


def is_missing(value: object) -> bool:
    """Whether `value` is None, NaN, pandas.NA or NaT; without importing pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, Real) and not isinstance(value, Integral) and math.isnan(value)


def _format_float(number: float, digits: int) -> str:
    if not math.isfinite(number):
        return str(number)
    if number and abs(number) < 0.5 * 10**-digits:
        return f"{number:.1g}"
    return f"{number:,.{digits}f}" if abs(number) >= SEPARATED_FROM else f"{number:.{digits}f}"


def _format_time(when: datetime) -> str:
    text = f"{when:%Y-%m-%d %H:%M}"
    if when.tzinfo is None:
        return text
    return f"{text} UTC" if when.utcoffset() == timedelta(0) else f"{text} {when:%z}"


def _columns_and_rows(
    frame: "DataFrame | Sequence[Mapping[str, Any]]", *, index: bool
) -> tuple[list[str], list[tuple[Any, ...]]]:
    if not hasattr(frame, "itertuples"):
        names = list(dict.fromkeys(name for row in frame for name in row))
        return names, [tuple(row.get(name) for name in names) for row in frame]
    names = [_column_name(name) for name in frame.columns]
    if not index:
        return names, list(frame.itertuples(index=False, name=None))
    levels = [_column_name(name) if name is not None else "" for name in frame.index.names]
    rows = [tuple(_as_tuple(row[0])) + row[1:] for row in frame.itertuples(index=True, name=None)]
    return levels + names, rows


def _as_tuple(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


def _column_name(name: object) -> str:
    return " / ".join(str(part) for part in name if str(part)) if isinstance(name, tuple) else str(name)


def _is_numeric(values: Sequence[object]) -> bool:
    present = [value for value in values if not is_missing(value)]
    return bool(present) and all(isinstance(v, (Real, Decimal)) and not isinstance(v, bool) for v in present)


def _shorten(text: str, max_chars: int) -> str:
    if isinstance(text, Markdown) or len(text) <= max_chars:
        return text
    return text[: max_chars - 1].rstrip() + "…"


def _pipe_table(names: Sequence[str], columns: Sequence[Sequence[str]], sides: Sequence[Align]) -> Markdown:
    """The lines of the table; the dashes of a column tell Pandoc how wide it is in relation to the others."""
    widths = [min(max(map(len, (name, *texts))), 60) for name, texts in zip(names, columns, strict=True)]
    rule = [ALIGNMENT[side].format("-" * max(width, 2)) for side, width in zip(sides, widths, strict=True)]
    rows = [[escape(text) for text in row] for row in zip(*columns, strict=True)]
    return Markdown("\n".join(f"| {' | '.join(cells)} |" for cells in [[*map(escape, names)], rule, *rows]))
