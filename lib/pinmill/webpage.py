"""A page as one HTML file, filled by nbconvert from our template (`page/`), that loads nothing and runs nothing.

What a notebook holds is not trusted: raw HTML is shown as text, SVG stands in an `<img>` where its scripts cannot run,
and a content policy forbids all the rest.
"""

import base64
import re
from collections.abc import Mapping
from functools import cache
from html import escape, unescape
from importlib import resources
from itertools import chain, count, repeat, zip_longest
from typing import TYPE_CHECKING, Any

from mistune import BlockState, HTMLRenderer, InlineParser, InlineState, Markdown, create_markdown
from mistune.util import safe_entity, striptags
from nbformat import NotebookNode

from pinmill.page import CODE_BLOCK, Page

if TYPE_CHECKING:
    from nbconvert.exporters.templateexporter import TemplateExporter

LONG_CELL = 60  # characters from which a cell keeps a readable width on a phone, and the table scrolls instead
TABLE = '<div class="table" role="group" tabindex="0" aria-label="{}"><table>'  # reached by keyboard, as it may scroll
OURS, QUARTO = r'<div class="callout-(?P<ours>[a-z]+)" appearance="simple">', r":{3,} *(?P<about>\{.*\}|[\w-]+)[ :]*"
INSIDE = r'(?P<inside>(?:(?!<div class="callout-|:{3,} *[{\w]).*\n)*?)(?(ours)</div>|:{3,}) *$'  # no other div
DIV = re.compile(rf"{CODE_BLOCK}|^(?:{OURS}|{QUARTO})\n{INSIDE}", re.MULTILINE)
HEAD = (
    r"""(?:{.*?\.)?callout-(note|tip|important|warning|caution)\b.*?(?:title=(["'])(.+?)\2.*\n|\n(?:\s*#+ +(.+)\n)?)"""
)
MARKED = re.compile("(?:<p>)?\ue000(\\d+)\ue000(?:</p>)?")
CAPTION = re.compile(rf"<p><strong>((?:(?!</?strong>|</p>).)*)</strong></p>\s*{re.escape(TABLE.format('Table'))}")
HEADING = re.compile(r"<h([1-6])>(.*?)</h\1>", re.DOTALL)
NAME = r"fig-\w+(?:[.:-]\w+)*"
REFERENCE = rf"\[@{NAME}\](?!\()|(?<!\w)@{NAME}"


def render_webpage(page: Page) -> bytes:
    """The page as UTF-8 HTML; the same page gives the same bytes."""
    css = (resources.files("pinmill") / "page" / "page.css").read_text("utf-8")
    around = {"page": page, "css": css, "figures": number_figures(page.notebook.cells)}
    return _exporter().from_notebook_node(page.notebook, around)[0].encode("utf-8", "replace")


def number_figures(cells: list[NotebookNode]) -> dict[str, int]:
    """The number of each figure that has one, by its id, in the order of the page."""
    names = dict.fromkeys(name for cell in cells if cell.cell_type == "code" for name in _figure_ids(cell))
    return {name: number for number, name in enumerate(names, 1)}


@cache
def _exporter() -> "TemplateExporter":
    """nbconvert with our template, compiled once: that takes longer than to render a page."""
    from nbconvert.exporters.templateexporter import TemplateExporter

    template = (resources.files("pinmill") / "page" / "index.html.j2").read_text("utf-8")
    filters = {"prose": _render_prose, "shown": _render_outputs, "anchored": _add_anchors}
    return TemplateExporter(raw_template=template, filters=filters)


class PageRenderer(HTMLRenderer):
    """mistune's HTML with raw HTML escaped, entities decoded once, and nothing loaded from anywhere."""

    def text(self, text: str) -> str:
        return safe_entity(text)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return f"<em>[{text or 'image'}: {escape(url)}]</em>"

    def table(self, text: str) -> str:
        return f"{TABLE.format('Table')}\n{text}</table></div>\n"

    def table_head(self, text: str) -> str:
        return f"<thead>\n<tr>\n{text}</tr>\n</thead>\n" if striptags(text).strip() else ""

    def table_cell(self, text: str, align: str | None = None, head: bool = False) -> str:
        kind = "right" if align == "right" else "long" if len(text) > LONG_CELL else "left"
        return f'<th class="{kind}" scope="col">{text}</th>\n' if head else f'<td class="{kind}">{text}</td>\n'


def _refer(inline: InlineParser, found: re.Match[str], state: InlineState) -> int | None:
    """Make `@fig-name` a link to the figure; leave it as text where no figure is called so."""
    name = found[0].strip("[@]")
    number = state.env.get("figures", {}).get(name)
    if number is None:
        return None
    children = [{"type": "text", "raw": f"Figure {number}"}]
    state.append_token({"type": "link", "children": children, "attrs": {"url": f"#{name}"}, "_autolink": found[0]})
    return found.end()


def _make_markdown() -> Markdown:
    """mistune with our renderer, tables, and references to figures."""
    markdown = create_markdown(renderer=PageRenderer(), plugins=["table", "strikethrough", "def_list"])
    markdown.inline.register("reference", REFERENCE, _refer, before="link")
    return markdown


MARKDOWN = _make_markdown()


def _render_prose(source: str, figures: Mapping[str, int]) -> str:
    """The HTML of Markdown, with a box for each callout, and a caption where a bold line stands above a table.

    Callouts are ours or Quarto's; of its other divs the content is shown. `@fig-name` refers to one of `figures`.
    Maths stays text, and so do data values: their signs are entities.
    """
    boxes: list[str] = []

    def open_div(div: re.Match[str]) -> str:
        """A mark in place of a callout, which becomes a box; of another div its content; a code block as it is."""
        inside, head = div["inside"], re.match(HEAD, f"{div['about']}\n{div['inside']}")
        if not (head or div["ours"]):
            return div[0] if inside is None else f"\n{inside}\n"
        if head:
            inside = f"**{head[3] or head[4] or head[1].capitalize()}**\n\n{head.string[head.end() :]}"
        boxes.append(f'<div class="callout {head[1] if head else div["ours"]}" role="note">{show(inside)}</div>\n')
        return f"\n\ue000{len(boxes) - 1}\ue000\n"

    def show(text: str) -> str:
        """The HTML of Markdown, with the boxes in place of their marks."""
        state = BlockState()
        state.env["figures"] = figures
        return MARKED.sub(lambda found: boxes[int(found[1])], MARKDOWN.parse(text, state)[0])

    source, before = source.replace("\ue000", ""), ""
    while before != source:  # from the innermost div outwards
        before, source = source, DIV.sub(open_div, source)
    return CAPTION.sub(lambda found: f"{TABLE.format(striptags(found[1]))}<caption>{found[1]}</caption>", show(source))


def _figure_ids(cell: NotebookNode) -> list[str]:
    """The ids of a cell's numbered figures: its label, then `label-2` and so on for further ones with a caption."""
    options = cell.metadata.get("options", {})
    label = str(options.get("label") or "")
    figures = sum(kind.startswith("image/") for output in cell.outputs for kind in output.data)
    numbered = min(figures, max(len(_per_figure(options.get("fig-cap"))), 1)) if label.startswith("fig-") else 0
    return [f"{label}-{n}" if n > 1 else label for n in range(1, numbered + 1)]


def _per_figure(option: Any) -> list[str]:
    """A cell option that is a list, one for each figure, or belongs to the first one."""
    return [str(each or "") for each in (option if isinstance(option, list) else [option])]


def _render_outputs(cell: NotebookNode, figures: Mapping[str, int]) -> str:
    """The HTML of a code cell's outputs, one after the other."""
    options = cell.metadata.get("options", {})
    told = (_figure_ids(cell), _per_figure(options.get("fig-cap")), _per_figure(options.get("fig-alt")))
    about = chain(zip_longest(*told, fillvalue=""), repeat(("", "", "")))
    html = []
    for output in cell.outputs:
        ((kind, data),) = output.data.items()
        if kind == "text/markdown":
            html.append(_render_prose(data, {}))
        elif kind == "text/plain":
            html.append(f'<pre class="plain">{escape(data)}</pre>')
        else:
            html.append(_render_figure(kind, data, *next(about), figures))
    return "\n".join(html)


def _render_figure(kind: str, data: str, name: str, caption: str, alt: str, figures: Mapping[str, int]) -> str:
    """The HTML of a picture; without an alternative text, its caption says what it shows."""
    caption = MARKDOWN.renderer(MARKDOWN.inline(caption, {"ref_links": {}, "figures": figures}), BlockState())
    parts = [f"Figure {figures[name]}" if name else "", caption]
    legend = f"<figcaption>{': '.join(filter(None, parts))}</figcaption>" if any(parts) else ""
    if kind == "image/svg+xml":
        data = base64.b64encode(data.encode("utf-8", "replace")).decode()
    address = f"data:{kind};base64,{escape(''.join(data.split()))}"
    anchor, says = f' id="{escape(name)}"' if name else "", safe_entity(alt) or striptags(caption) or "Figure"
    return f'<figure{anchor}><img alt="{says}" src="{address}">{legend}</figure>'


def _add_anchors(body: str, taken: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """`body` with an id for each heading, none of them one of `taken` and no level left out; and the headings."""
    headings: dict[str, dict[str, Any]] = {}

    def anchor(found: re.Match[str]) -> str:
        """One heading with its id."""
        above = next((heading["level"] for heading in reversed(headings.values())), 1)
        level, text = min(max(int(found[1]), 2), above + 1), striptags(found[2])
        slug = re.sub(r"\W+", "-", unescape(text).lower()).strip("-") or "section"
        names = chain([slug], (f"{slug}-{n}" for n in count(2)))
        name = next(name for name in names if not (name in headings or name in taken or name == "content"))
        headings[name] = {"level": level, "anchor": name, "text": text}
        return f'<h{level} id="{name}">{found[2]}</h{level}>'

    return HEADING.sub(anchor, body), list(headings.values())
