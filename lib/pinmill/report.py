"""An executed notebook as one HTML page that asks the network for nothing and executes nothing.

nbconvert fills our template (`page/`). What a notebook holds is not trusted: raw HTML is shown as text, `text/html`
outputs are not used, SVG stands in an `<img>` where its scripts cannot run, and a content policy forbids all the rest.
"""

import base64
import binascii
import contextlib
import html
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from mistune import HTMLRenderer, create_markdown

from pinmill.errors import ReportError
from pinmill.markdown import KINDS, format_value

if TYPE_CHECKING:
    from nbformat import NotebookNode

MAX_BYTES = 5_000_000  # Contract 7: a page can be sent by mail
PREFERENCE = ("text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain")  # never text/html
WIDGET = "application/vnd.jupyter.widget-view+json"
OBJECT_REPR = re.compile(r"[\[(]?<[\w.]+[^\n]*>[\])]?|(Text|Figure|Axes)\([^\n]*\)")  # `<Axes: …>`: noise to a reader
CALLOUT = re.compile(rf'<div class="callout-({"|".join(KINDS)})" appearance="simple">')
CAPTION = re.compile(r'<p><strong>((?:(?!</?strong>|</p>).)*)</strong></p>\s*(<div class="table"[^>]*><table>)')
EMPTY_HEAD = re.compile(r"<thead>\s*<tr>\s*(?:<th[^>]*></th>\s*)+</tr>\s*</thead>\s*")
LONG_CELL = 60  # characters from which a cell keeps a readable width on a phone, and the table scrolls instead
PLUGINS = ("table", "strikethrough", "def_list")


@dataclass(frozen=True)
class Heading:
    """One entry of the contents; `text` is HTML without tags."""

    level: int
    anchor: str
    text: str


def render_page(executed_notebook: Path, target: Path, *, subject: str = "", status_banner: str = "") -> Path:
    """Write `executed_notebook` as a self-contained page to `target`, whole or not at all, and return `target`.

    `subject` is what the page is about, the workflow's title; `status_banner` is plain text for the top of the page, for instance why the candidate was rejected.
    Raises ReportError if the notebook cannot be read or the page would have more than 5 MB.
    """
    notebook = read_notebook(executed_notebook)
    front = read_front_matter(notebook, executed_notebook)
    page = _fill_template(
        clean_notebook(notebook),
        front={**front, "subject": subject},
        banners=[text for text in (status_banner, describe_gaps(notebook)) if text],
        name=executed_notebook.name,
    ).encode()
    if len(page) > MAX_BYTES:
        raise ReportError(
            f"the page of {executed_notebook} would have {len(page) / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:.0f} MB; "
            f"its largest output is {_describe_largest(notebook)}. Draw fewer points there, or save the figure as PNG"
        )
    return _write_whole(target, page)


def read_notebook(path: Path) -> "NotebookNode":
    """The notebook at `path` in format 4. Raises ReportError, naming the path, if there is none or it is malformed."""
    import nbformat

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for number, cell in enumerate(content["cells"] if content["nbformat_minor"] >= 5 else []):
            cell.setdefault("id", f"cell-{number}")  # nbformat warns where one is missing
        notebook = nbformat.reads(json.dumps(content), as_version=4)
        nbformat.validate(notebook, relax_add_props=True)
    except FileNotFoundError as error:
        raise ReportError(f"there is no executed notebook {path}; run the stage first") from error
    except (OSError, ValueError, nbformat.ValidationError, AttributeError, KeyError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ReportError(f"{path} is not a notebook that can be read: {reason}; run the stage again") from error
    return notebook


def read_front_matter(notebook: "NotebookNode", path: Path) -> dict[str, Any]:
    """The YAML of the first cell if that is a raw cell between `---` lines, otherwise {}."""
    cell = notebook.cells[0] if notebook.cells else None
    found = re.fullmatch(r"\s*---\s*\n(.*?)\n---\s*", cell.source, re.DOTALL) if cell and cell.cell_type == "raw" else None
    if not found:
        return {}
    try:
        front = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        line = error.problem_mark.line + 2 if getattr(error, "problem_mark", None) else 1
        raise ReportError(f"the front matter of {path} is not YAML (line {line} of the first cell)") from error
    return front if isinstance(front, dict) else {}


def clean_notebook(notebook: "NotebookNode") -> "NotebookNode":
    """A copy with what a reader should see: no streams, tracebacks, widgets or HTML, one kind of data per output.

    Raw cells stay (Quarto needs the first); papermill's own error cells go.
    """
    from nbformat import from_dict

    cells = [_clean_cell(cell) for cell in notebook.cells if not _is_papermill_error(cell)]
    return from_dict({**notebook, "cells": cells})


def describe_gaps(notebook: "NotebookNode") -> str:
    """A sentence for the reader if the notebook was not executed or did not finish, otherwise an empty string."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for number, cell in enumerate(code, start=1):
        if any(output.output_type == "error" for output in cell.outputs):
            return f"Incomplete: code cell {number} of {len(code)} stopped with an error, and what follows is missing."
    if code and not any(cell.outputs or cell.execution_count for cell in code):
        return "Not executed: the cells of this notebook have not been run, so the page shows no results."
    return ""


def _is_papermill_error(cell: Mapping[str, Any]) -> bool:
    return "papermill-error-cell-tag" in cell["metadata"].get("tags", [])


def _clean_cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    if cell["cell_type"] != "code":
        return dict(cell)
    outputs = [_clean_output(output) for output in cell["outputs"] if "data" in output]
    return {**cell, "outputs": [output for output in outputs if output["data"]]}


def _clean_output(output: Mapping[str, Any]) -> dict[str, Any]:
    data = output["data"]
    kind = next((kind for kind in PREFERENCE if kind in data), None)
    is_noise = kind is None or (
        kind == "text/plain" and (WIDGET in data or OBJECT_REPR.fullmatch(_as_text(data[kind]).strip()) is not None)
    )
    return {**output, "data": {} if is_noise else {kind: data[kind]}}


def _as_text(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else "".join(value)


@dataclass
class Prose:
    """Markdown of one page to HTML; remembers the headings, whose anchors are unique over the page."""

    title: str = ""
    headings: list[Heading] = field(default_factory=list)
    open_boxes: int = 0

    def render(self, source: str, attachments: Mapping[str, Mapping[str, str]] | None = None) -> str:
        """The HTML of `source`, with every box closed that it opened."""
        renderer = PageRenderer(self, attachments or {})
        self.open_boxes = 0
        # Pandoc and CommonMark ignore what stands above: a fresh parser per cell keeps link definitions apart.
        body = str(create_markdown(renderer=renderer, plugins=PLUGINS)(_as_text(source)))
        body = CAPTION.sub(r"\2<caption>\1</caption>", EMPTY_HEAD.sub("", body))
        return body + "</div>\n" * self.open_boxes

    def add_heading(self, text: str, level: int) -> Heading | None:
        """Note a heading; None for the H1 that only repeats the page's title."""
        plain = re.sub(r"<[^>]*>", "", text).strip()
        if level == 1 and not self.headings and html.unescape(plain) in (self.title, ""):
            return None
        slug = re.sub(r"[^\w]+", "-", html.unescape(plain).lower()).strip("-") or "section"
        taken = {heading.anchor for heading in self.headings}
        anchor = next(name for name in (slug, *(f"{slug}-{n}" for n in range(2, 10_000))) if name not in taken)
        self.headings.append(Heading(max(level, 2), anchor, plain))
        return self.headings[-1]


class PageRenderer(HTMLRenderer):
    """mistune's HTML with raw HTML escaped, entities decoded once, and nothing loaded from anywhere."""

    def __init__(self, prose: Prose, attachments: Mapping[str, Mapping[str, str]]) -> None:
        super().__init__(escape=True)
        self.prose = prose
        self.attachments = attachments

    def text(self, text: str) -> str:
        return html.escape(html.unescape(text))

    def heading(self, text: str, level: int, **attrs: Any) -> str:
        found = self.prose.add_heading(text, level)
        if found is None:
            return ""
        return f'<h{found.level} id="{html.escape(found.anchor)}">{text}</h{found.level}>\n'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        return super().link(text, url, title).replace("<a ", '<a rel="noopener noreferrer" ', 1)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        bundle = self.attachments.get(url.removeprefix("attachment:"), {}) if url.startswith("attachment:") else {}
        for kind, data in bundle.items():
            if kind in PREFERENCE and kind.startswith("image/"):
                return render_image(kind, _as_text(data), html.unescape(text))
        return f"<em>[{text or 'image'}: {html.escape(url)}]</em>"  # anything else would be a request

    def inline_html(self, html: str) -> str:
        return "<br>" if re.fullmatch(r"<br\s*/?>", html) else super().inline_html(html)

    def block_html(self, html: str) -> str:
        box = html.strip()
        if found := CALLOUT.fullmatch(box):
            self.prose.open_boxes += 1
            return f'<div class="callout {found[1]}" role="note">\n'
        if box == "</div>" and self.prose.open_boxes:
            self.prose.open_boxes -= 1
            return "</div>\n"
        return "" if box.startswith("<!--") and box.endswith("-->") else super().block_html(html)

    def table(self, text: str) -> str:
        return f'<div class="table" role="group" tabindex="0"><table>\n{text}</table></div>\n'

    def table_cell(self, text: str, align: str | None = None, head: bool = False) -> str:
        kind = align if align in ("right", "center") else "long" if len(text) > LONG_CELL else ""
        style = f' class="{kind}"' if kind else ""
        if head:
            return f"<th{style}{' scope=col' if text else ''}>{text}</th>\n"
        return f"<td{style}>{text}</td>\n"


def render_image(kind: str, data: str, alt: str) -> str:
    """An `<img>` with the picture in it; a note in its place if `data` is not base64. `kind` is its media type."""
    if kind == "image/svg+xml":
        encoded = base64.b64encode(data.encode("utf-8", "replace")).decode()
    else:
        try:
            encoded = base64.b64encode(base64.b64decode("".join(data.split()), validate=True)).decode()
        except (binascii.Error, ValueError):
            return '<p class="plain">[a picture that could not be read]</p>\n'
    shape = "vector" if kind == "image/svg+xml" else "raster"
    return f'<img class="{shape}" alt="{html.escape(alt)}" src="data:{kind};base64,{encoded}">'


def _render_output(output: Mapping[str, Any], prose: Prose) -> str:
    """The HTML of one cleaned output."""
    kind, data = next(iter(output["data"].items()))
    if kind == "text/markdown":
        return prose.render(data)
    if kind == "text/plain":
        return f'<pre class="plain">{html.escape(_as_text(data))}</pre>'
    near = html.unescape(prose.headings[-1].text) if prose.headings else prose.title
    alt = output.get("metadata", {}).get(kind, {}).get("alt") or f"Figure in “{near}”"
    return f"<figure>{render_image(kind, _as_text(data), str(alt))}</figure>"


def _fill_template(notebook: "NotebookNode", *, front: Mapping[str, Any], banners: list[str], name: str) -> str:
    """The page of a cleaned notebook."""
    import jinja2
    from nbconvert.exporters.templateexporter import TemplateExporter

    folder = resources.files("pinmill") / "page"
    prose = Prose(title=str(front.get("title") or _first_heading(notebook) or Path(name).stem))
    exporter = TemplateExporter(
        template_paths=[],
        extra_loaders=[jinja2.DictLoader({"page.html": (folder / "index.html.j2").read_text("utf-8")})],
        template_file="page.html",
        file_extension=".html",
        default_preprocessors=[],
        filters={
            "prose": lambda cell: prose.render(cell.source, cell.get("attachments")),
            "shown": lambda output: _render_output(output, prose),
        },
    )
    facts = {
        "title": prose.title,
        "subject": str(front.get("subject") or ""),
        "subtitle": str(front.get("subtitle") or ""),
        "made": _when_finished(notebook),
        "name": name,
        "banners": banners,
        "echo": _wants_code(front),
        "headings": prose.headings,
        "css": (folder / "page.css").read_text("utf-8"),
    }
    # nbconvert copies what it is given; the headings are wanted as they grow
    exporter.environment.globals["page"] = facts
    return exporter.from_notebook_node(notebook)[0]


def _first_heading(notebook: "NotebookNode") -> str:
    sources = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found = next((match for match in (re.match(r"\s*#[ \t]+(.+)", source) for source in sources) if match), None)
    return html.unescape(found[1].strip().rstrip("#").strip()) if found else ""


def _when_finished(notebook: "NotebookNode") -> str:
    """When papermill finished, as '2025-11-20 10:45 UTC', or an empty string."""
    try:
        return format_value(datetime.fromisoformat(str(notebook.metadata.get("papermill", {}).get("end_time"))))
    except ValueError:
        return ""


def _wants_code(front: Mapping[str, Any]) -> bool:
    """Whether the front matter says `echo: true`, at the top, under `execute` or under `format: html`."""
    execute, formats = front.get("execute"), front.get("format")
    of_html = formats.get("html") if isinstance(formats, Mapping) else None
    places = (front, execute, of_html)
    return any(isinstance(place, Mapping) and place.get("echo") is True for place in places)


def _describe_largest(notebook: "NotebookNode") -> str:
    sizes = [
        (len(_as_text(data)), kind, number)
        for number, cell in enumerate(clean_notebook(notebook).cells, start=1)
        for output in cell.get("outputs", [])
        for kind, data in output["data"].items()
    ]
    size, kind, number = max(sizes, default=(0, "text", 0))
    return f"{kind} of {size / 1e6:.1f} MB in cell {number}"


def _write_whole(target: Path, page: bytes) -> Path:
    """Move `page` to `target` in one step; the temporary file stands beside it and does not outlive an error."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise ReportError(f"the page {target} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # it is gone already when all went well
            temporary.unlink()
    return target
