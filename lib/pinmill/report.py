"""An executed notebook as one HTML page that asks the network for nothing and executes nothing.

nbconvert fills our template (`page/`). What a notebook holds is not trusted: raw HTML is shown as text, `text/html`
outputs are not used, SVG stands in an `<img>` where its scripts cannot run, and a content policy forbids all the rest.
"""

import base64
import re
from copy import deepcopy
from html import escape, unescape
from importlib import resources
from pathlib import Path
from typing import Any

import nbformat
from mistune import HTMLRenderer, create_markdown
from mistune.util import safe_entity, striptags
from nbconvert.exporters.templateexporter import TemplateExporter
from nbformat import NotebookNode

from pinmill.errors import ReportError
from pinmill.notebook import read_front_matter, read_tags
from pinmill.runs import write_whole

MAX_BYTES = 5_000_000  # Contract 7: a page can be sent by mail
PREFERENCE = ("text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain")  # never text/html
WIDGET = "application/vnd.jupyter.widget-view+json"
LONG_CELL = 60  # characters from which a cell keeps a readable width on a phone, and the table scrolls instead
CALLOUT = re.compile(r'^<div class="callout-([a-z]+)" appearance="simple">$(.*?)^</div>$', re.DOTALL | re.MULTILINE)
CAPTION = re.compile(r'<p><strong>((?:(?!</?strong>|</p>).)*)</strong></p>\s*(<div class="table"[^>]*><table>)')
HEADING = re.compile(r"<h([1-6])>(.*?)</h\1>", re.DOTALL)


def render_page(executed_notebook: Path, target: Path, *, subject: str = "", status_banner: str = "") -> Path:
    """Write `executed_notebook` as a self-contained page to `target`, whole or not at all, and return `target`.

    `subject` is the workflow's title; `status_banner` is plain text for the top of the page, say that the candidate
    was rejected. Raises ReportError if the notebook cannot be read, or the page not be written or be in 5 MB.
    """
    notebook = read_notebook(executed_notebook)
    front = read_front_matter(notebook.cells, executed_notebook.name)
    facts = {
        "title": str(front.get("title") or executed_notebook.stem),
        "subject": subject,
        "subtitle": str(front.get("subtitle") or ""),
        "made": notebook.metadata.get("papermill", {}).get("end_time", "")[:16].replace("T", " "),
        "name": executed_notebook.name,
        "banner": status_banner,
        "echo": (front.get("execute") or {}).get("echo") is True,
    }
    page = _fill_template(clean_notebook(notebook), facts).encode("utf-8", "replace")
    if len(page) > MAX_BYTES:
        size = f"{len(page) / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:.0f} MB"
        advice = "draw fewer points in its figures, or save them as PNG"
        raise ReportError(f"the page of {executed_notebook} would have {size}; {advice}")
    try:
        write_whole(target, page)
    except OSError as error:
        raise ReportError(f"the page {target} cannot be written: {error.strerror or error}") from error
    return target


def read_notebook(path: Path) -> NotebookNode:
    """The notebook at `path` in format 4. Raises ReportError, naming the path, if there is none or it is malformed."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, nbformat.ValidationError) as error:
        raise ReportError(f"{path} is not a notebook that can be read: {error}; run the stage again") from error
    return notebook


def clean_notebook(notebook: NotebookNode) -> NotebookNode:
    """A copy with what a reader should see: no streams, tracebacks, widgets or HTML, one kind of data per output."""
    clean = deepcopy(notebook)
    clean.cells = [cell for cell in clean.cells if "papermill-error-cell-tag" not in read_tags(cell)]
    for cell in clean.cells:
        if cell.cell_type == "code":
            for output in cell.outputs:
                output.data = _choose(output.get("data", {}))
            cell.outputs = [output for output in cell.outputs if output.data]
    return clean


def _choose(data: dict[str, Any]) -> dict[str, Any]:
    """The one kind of an output's data that is shown; nothing for a widget, or a text such as `<Axes: …>`."""
    kind = next((kind for kind in PREFERENCE if kind in data), WIDGET)
    is_noise = kind == "text/plain" and (WIDGET in data or data[kind].startswith(("<", "[<")))
    return {} if kind == WIDGET or is_noise else {kind: data[kind]}


class PageRenderer(HTMLRenderer):
    """mistune's HTML with raw HTML escaped, entities decoded once, and nothing loaded from anywhere."""

    def text(self, text: str) -> str:
        return safe_entity(text)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return f"<em>[{text or 'image'}: {escape(url)}]</em>"

    def table(self, text: str) -> str:
        return f'<div class="table" role="group" tabindex="0"><table>\n{text}</table></div>\n'

    def table_head(self, text: str) -> str:
        return f"<thead>\n<tr>\n{text}</tr>\n</thead>\n" if striptags(text).strip() else ""

    def table_cell(self, text: str, align: str | None = None, head: bool = False) -> str:
        kind = "right" if align == "right" else "long" if len(text) > LONG_CELL else "left"
        return f'<th class="{kind}" scope="col">{text}</th>\n' if head else f'<td class="{kind}">{text}</td>\n'


MARKDOWN = create_markdown(renderer=PageRenderer(), plugins=["table", "strikethrough", "def_list"])


def _render_prose(source: str) -> str:
    """The HTML of Markdown, with a box for each callout and a caption where a bold line stands above a table."""
    before, *boxes = CALLOUT.split(source)
    html = MARKDOWN(before)
    for kind, inside, after in zip(boxes[::3], boxes[1::3], boxes[2::3], strict=True):
        html += f'<div class="callout {kind}" role="note">{MARKDOWN(inside)}</div>\n{MARKDOWN(after)}'
    return CAPTION.sub(r"\2<caption>\1</caption>", html)


def _render_output(output: NotebookNode) -> str:
    """The HTML of one cleaned output."""
    ((kind, data),) = output.data.items()
    if kind == "text/markdown":
        return _render_prose(data)
    if kind == "text/plain":
        return f'<pre class="plain">{escape(data)}</pre>'
    if kind == "image/svg+xml":
        data = base64.b64encode(data.encode("utf-8", "replace")).decode()
    return f'<figure><img alt="Figure" src="data:{kind};base64,{escape("".join(data.split()))}"></figure>'


def _add_anchors(body: str, title: str) -> tuple[str, list[dict[str, Any]]]:
    """`body` with an id for each heading and without the H1 that only repeats the page's title; and the headings."""
    headings: dict[str, dict[str, Any]] = {}

    def anchor(found: re.Match[str]) -> str:
        """One heading with its id; nothing in place of the title."""
        level, text = max(int(found[1]), 2), striptags(found[2])
        if found[1] == "1" and unescape(text) == title:
            return ""
        slug = re.sub(r"\W+", "-", unescape(text).lower()).strip("-")
        name = slug if slug and slug not in headings else f"{slug}-{len(headings) + 1}"
        headings[name] = {"level": level, "anchor": name, "text": text}
        return f'<h{level} id="{name}">{found[2]}</h{level}>'

    return HEADING.sub(anchor, body), list(headings.values())


def _fill_template(notebook: NotebookNode, facts: dict[str, str | bool]) -> str:
    folder = resources.files("pinmill") / "page"
    template, css = ((folder / name).read_text("utf-8") for name in ("index.html.j2", "page.css"))
    filters = {"prose": _render_prose, "shown": _render_output, "anchored": _add_anchors}
    exporter = TemplateExporter(raw_template=template, filters=filters)
    return exporter.from_notebook_node(notebook, {"page": {**facts, "css": css}})[0]
