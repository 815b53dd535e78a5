"""A page to be: the clean copy of an executed notebook, and what stands above it. Each engine renders the same one.

Streams, tracebacks and widgets are left out, and a line says where an output has nothing that can be shown. Three kinds
of cells have a place of their own: the result of the cell tagged `summary` opens the page, those tagged `appendix`
close it, and what a notebook reads and writes is for those who open the notebook.

Of Quarto's cell options, the `#|` lines at the top of a code cell, these count: `echo`, `output` and `include`, also as
`execute:` in the front matter; `label`, `fig-cap`, `fig-alt`; `tbl-cap`, for the first table without a caption.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode, v4

from pinmill.errors import ReportError
from pinmill.markdown import escape
from pinmill.notebook import read_front_matter, read_tags
from pinmill.pin import NAME

PREFERENCE = ("text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain")  # never text/html
WIDGET = "application/vnd.jupyter.widget-view+json"
OPTIONS = re.compile(r"\A(?:\s*#\|.*)*")  # the lines that a cell begins with
REPR = re.compile(r"[\[ ]?<[A-Za-z_][\w.]*[ :].*>[\],]?")  # of an object or a list of them: `<Axes: …>`
TABLE = re.compile(r"^(\*\*.+\*\*\n\n)?(\|.*\n\|[ :|]*-[ :|-]*$)", re.MULTILINE)  # its caption, its first two lines
PROMISE = re.compile(r"\A(?:# [^\n]*(?:\n+|\Z))?(.*?)(?:\n+[-*] .*)?\Z", re.DOTALL)
CODE_BLOCK = r"^ {0,3}(?P<fence>`{3,}|~{3,}) *(?:[\w.+-]+|\{(?! *=)[^`~{}\n]*\})? *\n(?:.*\n)*?^ {0,3}(?P=fence)`* *$"
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
    def file(self) -> str:
        """The name of its file, as the pages beside it link to it."""
        return f"{self.name.rpartition('/')[2]}.html"

    @property
    def home(self) -> str:
        """The way from this page to the index."""
        return "../" * self.name.count("/") + "index.html"


def read_page(executed: Path, folder: str, *, outcome: str = "", **around: Any) -> Page | None:
    """The page of an executed notebook, in a folder below `reports/_pages`; None if its front matter names no page.

    `around` is what it cannot know: subject, banner. `outcome`, what became of the model in a few words, ends the first
    line of a page that tells of the gate's decision. Raises ReportError if notebook or page name are malformed.
    """
    notebook = read_notebook(executed)
    front = read_front_matter(notebook.cells, executed.name)
    places = (front.get("pinmill"), front.get("execute"), notebook.metadata.get("papermill"))
    stage, execute, papermill = (place if isinstance(place, dict) else {} for place in places)
    name = stage.get("page")
    if not name:
        return None
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise ReportError(f"{executed.name} calls its page {name!r}: a-z, 0-9, - and _ were expected, at most 64 signs")
    lead, cells = arrange(notebook.cells, executed.name, execute)
    if outcome and any("metrics" in kinds for key in ("reads", "writes") if isinstance(kinds := stage.get(key), list)):
        lead = f"{lead.rstrip('.')}; {outcome}." if lead else f"{outcome.capitalize()}."
    return Page(
        name=f"{folder}/{name}",
        notebook=v4.new_notebook(cells=cells, metadata=notebook.metadata),
        title=str(front.get("title") or executed.stem),
        subtitle=str(front.get("subtitle") or ""),
        made=str(papermill.get("end_time") or "")[:16].replace("T", " "),
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
        advice = f"make it again: pinmill run WORKFLOW --from {path.stem}"
        raise ReportError(f"{path} is not a notebook that can be read: {error}; {advice}") from error
    return notebook


def arrange(cells: Sequence[NotebookNode], name: str, execute: Mapping[str, Any]) -> tuple[str, list[NotebookNode]]:
    """What the summary says in Markdown, and clean copies of the cells that a reader sees, in the order of the page.

    `execute` counts where a cell's options are silent. Raises ReportError if those of a cell of `name` are malformed.
    """
    clean = [(clean_cell(c, f"cell {n} of {name}", execute), {*read_tags(c)}) for n, c in enumerate(cells, 1)]
    shown = [(cell, tags) for cell, tags in clean if cell.source or cell.get("outputs")]
    told = [output.data for cell, tags in shown if "summary" in tags for output in cell.get("outputs", [])]
    body = [cell for cell, tags in shown if not tags & {"summary", "appendix", *UNSHOWN}]
    end = [cell for cell, tags in shown if "appendix" in tags]
    if body and body[0].cell_type == "markdown":
        body[0].source = PROMISE.sub(r"\1", body[0].source)  # without title, and what is read, written and taken
    lead = next((text for data in told if (text := data.get("text/markdown"))), "").strip()
    return lead, [*body, v4.new_markdown_cell(ORIGIN), *end] if end else body


def clean_cell(cell: NotebookNode, where: str, execute: Mapping[str, Any]) -> NotebookNode:
    """A copy of a cell: Markdown as it is, of code what is shown; without anything in it where nothing is."""
    if cell.cell_type != "code":
        return v4.new_markdown_cell(cell.source if cell.cell_type == "markdown" else "")
    options, code = read_options(cell.source, where)
    asked, caption = {**execute, **options}, options.get("tbl-cap")
    captions = iter([f"**{' '.join(caption.split())}**\n\n"] if isinstance(caption, str) and caption else [])
    shown = [] if False in (asked.get("output"), asked.get("include")) else cell.outputs
    outputs = [v4.new_output("display_data", data=d) for o in shown if (d := choose(o.get("data", {}), captions))]
    code = code if asked.get("echo") is True and asked.get("include") is not False else ""
    return v4.new_code_cell(code, outputs=outputs, metadata={"options": options})


def read_options(source: str, where: str = "a cell") -> tuple[dict[str, Any], str]:
    """Quarto's cell options (`#| fig-cap: …`), and the code without them. Raises ReportError if they are not YAML."""
    lines = re.findall(r"#\| ?(.*)", OPTIONS.match(source)[0])
    try:
        options = yaml.safe_load("\n".join(lines)) or {}
    except (yaml.YAMLError, ValueError) as error:
        options = error
    if not isinstance(options, dict):
        said = " ".join(str(options).split())
        raise ReportError(f"the cell options {lines} of {where} are not YAML such as `echo: true`: {said}")
    return options, OPTIONS.sub("", source).strip()


def choose(data: Mapping[str, Any], captions: Iterator[str]) -> dict[str, Any]:
    """The one kind of an output's data that is shown, or a line that names those that cannot be; nothing for noise."""
    if text := data.get("text/markdown"):
        return {"text/markdown": TABLE.sub(lambda found: found[0] if found[1] else next(captions, "") + found[0], text)}
    is_noise = WIDGET in data or all(REPR.fullmatch(line) for line in data.get("text/plain", "").splitlines())
    kinds = {*data} - ({"text/plain"} if is_noise else set())
    if kind := next((kind for kind in PREFERENCE if kind in kinds), ""):
        return {kind: data[kind]}
    told = f"*(An output of this cell cannot be shown here: {escape(', '.join(sorted(kinds)))}.)*"
    return {"text/markdown": told} if kinds and WIDGET not in data else {}


def figure(svg: str, *, caption: str, alt: str) -> NotebookNode:
    """A cell that shows a figure, for a page that the library builds."""
    output = v4.new_output("display_data", data={"image/svg+xml": svg})
    return v4.new_code_cell("", outputs=[output], metadata={"options": {"fig-cap": caption, "fig-alt": alt}})
