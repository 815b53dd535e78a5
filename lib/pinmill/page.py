"""A page to be: the clean copy of an executed notebook, and what stands above it. Each engine renders the same one.

Streams, tracebacks, widgets and HTML are left out. Three kinds of cells have a place of their own: the result of the
cell tagged `summary` opens the page, those tagged `appendix` close it, and what a notebook reads and writes is for
those who open the notebook.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode, v4

from pinmill.errors import ReportError
from pinmill.notebook import read_front_matter, read_tags

PREFERENCE = ("text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain")  # never text/html
WIDGET = "application/vnd.jupyter.widget-view+json"
OPTION = re.compile(r"^#\| ?(.*)\n?", re.MULTILINE)
PROMISE = re.compile(r"\A(?:# [^\n]*\n+)?(.*?)(?:\n+[-*] .*)?\Z", re.DOTALL)
UNSHOWN = {"papermill-error-cell-tag", "injected-parameters"}
ORIGIN = "## Where this page comes from"


@dataclass(frozen=True)
class Page:
    """A page to be rendered. `name` says where below `reports/_pages`, without `.html`; all but `lead` is plain text.

    A code cell of `notebook` has one kind of data in each output, Quarto's cell options in `metadata.options`, and
    its source only where it is to be read.
    """

    name: str
    notebook: NotebookNode
    title: str
    subtitle: str = ""
    subject: str = ""  # the workflow's title
    made: str = ""  # when, in UTC
    source: str = ""  # what it is made from
    lead: str = ""  # what it says, in a sentence of Markdown
    banner: str = ""
    links: tuple[tuple[str, str], ...] = ()  # the pages beside it: title and name of the file

    @property
    def home(self) -> str:
        """The way from this page to the index."""
        return "../" * self.name.count("/") + "index.html"


def read_page(executed: Path, folder: str, *, outcome: str = "", **around: Any) -> Page | None:
    """The page of an executed notebook, in a folder below `reports/_pages`; None if its front matter names no page.

    `around` is what it cannot know: subject, banner. `outcome` says in a few words what became of the model; it ends
    the first line of a page that tells of the gate's decision. Raises ReportError if the notebook cannot be read.
    """
    notebook = read_notebook(executed)
    front = read_front_matter(notebook.cells, executed.name)
    stage = front.get("pinmill") or {}
    if not stage.get("page"):
        return None
    echo = (front.get("execute") or {}).get("echo") is True
    lead = read_summary(notebook.cells)
    if outcome and "metrics" in [*(stage.get("reads") or ()), *(stage.get("writes") or ())]:
        lead = f"{lead.rstrip('.')}; {outcome}." if lead else f"{outcome.capitalize()}."
    return Page(
        name=f"{folder}/{stage['page']}",
        notebook=v4.new_notebook(cells=arrange(notebook.cells, echo=echo), metadata=notebook.metadata),
        title=str(front.get("title") or executed.stem),
        subtitle=str(front.get("subtitle") or ""),
        made=notebook.metadata.get("papermill", {}).get("end_time", "")[:16].replace("T", " "),
        source=executed.name,
        lead=lead,
        **around,
    )


def read_notebook(path: Path) -> NotebookNode:
    """The notebook at `path` in format 4. Raises ReportError, naming the path, if there is none or it is malformed."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, nbformat.ValidationError) as error:
        raise ReportError(f"{path} is not a notebook that can be read: {error}; run the stage again") from error
    return notebook


def read_summary(cells: list[NotebookNode]) -> str:
    """The Markdown that the cell tagged `summary` shows; empty when there is none."""
    outputs = (output for cell in cells if "summary" in read_tags(cell) for output in cell.get("outputs", []))
    return next((text for output in outputs if (text := output.get("data", {}).get("text/markdown"))), "").strip()


def arrange(cells: list[NotebookNode], *, echo: bool = False) -> list[NotebookNode]:
    """Clean copies of the cells that a reader sees, in the order of the page."""
    shown = [(cell, set(read_tags(cell))) for cell in cells]
    body = [clean_cell(cell, echo=echo) for cell, tags in shown if not tags & {"summary", "appendix", *UNSHOWN}]
    end = [clean_cell(cell, echo=echo) for cell, tags in shown if "appendix" in tags]
    body, end = ([cell for cell in part if cell.source or cell.get("outputs")] for part in (body, end))
    if body and body[0].cell_type == "markdown":
        body[0].source = PROMISE.sub(r"\1", body[0].source)  # without title, and what is read, written and taken
    return [*body, v4.new_markdown_cell(ORIGIN), *end] if end else body


def clean_cell(cell: NotebookNode, *, echo: bool) -> NotebookNode:
    """A copy of a cell: Markdown as it is, of code what is shown; without anything in it where nothing is."""
    if cell.cell_type == "markdown":
        return v4.new_markdown_cell(cell.source)
    if cell.cell_type != "code":
        return v4.new_markdown_cell("")
    options, code = read_options(cell.source)
    chosen = [choose(output.get("data", {})) for output in cell.outputs]
    outputs = [v4.new_output("display_data", data=data) for data in chosen if data]
    code = code if options.get("echo", echo) is True else ""
    return v4.new_code_cell(code, outputs=outputs, metadata={"options": options})


def read_options(source: str) -> tuple[dict[str, Any], str]:
    """Quarto's cell options (`#| fig-cap: …`), and the code without them. Raises ReportError if they are not YAML."""
    lines = OPTION.findall(source)
    try:
        options = yaml.safe_load("\n".join(lines)) if lines else {}
    except yaml.YAMLError as error:
        raise ReportError(f"the cell options {lines} are not YAML: {' '.join(str(error).split())}") from None
    return options if isinstance(options, dict) else {}, OPTION.sub("", source).strip()


def choose(data: dict[str, Any]) -> dict[str, Any]:
    """The one kind of an output's data that is shown; nothing for a widget, or a text such as `<Axes: …>`."""
    kind = next((kind for kind in PREFERENCE if kind in data), WIDGET)
    is_noise = kind == "text/plain" and (WIDGET in data or data[kind].startswith(("<", "[<")))
    return {} if kind == WIDGET or is_noise else {kind: data[kind]}


def figure(svg: str, *, caption: str, alt: str) -> NotebookNode:
    """A cell that shows a figure, for a page that the library builds."""
    output = v4.new_output("display_data", data={"image/svg+xml": svg})
    return v4.new_code_cell("", outputs=[output], metadata={"options": {"fig-cap": caption, "fig-alt": alt}})
