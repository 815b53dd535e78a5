"""Quarto renders pages: a private website project with clean copies, one call for all of them.

Nothing is executed. A copy holds nothing that Quarto would obey: no shortcode, HTML or stream, and every value from
people or data as text. Quarto sees an otherwise empty folder and three names of the environment.
"""

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nbformat import NotebookNode, v4

from pinmill.errors import ReportError
from pinmill.markdown import UNSEEN, escape
from pinmill.page import CODE_BLOCK, Page
from pinmill.secret import hidden_values, scrub

OUTPUT, SEARCH = "_site", "search.json"  # the first as in reports/_quarto.yml
KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}  # Quarto asks for the language
CAPTION = re.compile(r"^\*\*((?:[^*\n]|\*(?!\*))+)\*\*\n\n((?:\|.*(?:\n|\Z))+)", re.MULTILINE)
KEPT = 'https?:|/div>|div class="callout-[a-z]+" appearance="simple">'  # of what is in `<>`
OBEYED = re.compile(rf"\{{\{{+<|(?<!(?<!\\)\\)!(?=\[(?![^\]]*\]\(data:))|<(?=[A-Za-z/!?])(?!{KEPT})")
IMAGE = re.compile(r"(?<!(?<!\\)\\)!\[([^\]]*)\]\((?!data:)\s*<?([^\s()<>]*)[^()\n]*\)(\{[^{}\n]*\})?")
CODE = re.compile(rf"({CODE_BLOCK}|\\[\\`]|(`++)(?:(?!\3|\n\s*\n)[\s\S])+\3(?!`)|`+)", re.MULTILINE)
BROKEN = "{{<", "{{\u200b<"  # in code, where entities are not read
COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PRIVATE = re.compile(r"key|token|secret|passw|credential|auth", re.IGNORECASE)
INSTEAD = "Render with --engine nbconvert."


def find_quarto(search_path: str) -> Path | None:
    """The program `quarto` on a PATH, or the one that the extra `quarto` puts beside this Python; None without it."""
    places = (search_path, str(Path(sys.executable).parent))
    return next((Path(found) for place in places if (found := shutil.which("quarto", path=place))), None)


def render_quarto(
    pages: Sequence[Page], *, program: Path, site: Path, environ: Mapping[str, str], timeout: float | None = None
) -> dict[str, bytes]:
    """The HTML of each page by its name, and Quarto's search index as `search.json` when there is one.

    `site` holds `_quarto.yml` and its themes; of `environ` Quarto gets PATH and HOME. Raises ReportError with what
    Quarto said if it fails, takes more than `timeout` seconds (default: by their number), or leaves out a page.
    """
    if not (site / "_quarto.yml").is_file():
        raise ReportError(f"no {site / '_quarto.yml'}: restore it, or take it from a `pinmill new` project. {INSTEAD}")
    names = [page.name for page in pages]
    try:
        with tempfile.TemporaryDirectory(prefix="pinmill-quarto-") as name:
            folder = Path(name)
            for file in (site / "_quarto.yml", *site.glob("*.scss")):
                shutil.copy(file, folder)
            for page in pages:
                copy = folder / f"{page.name}.ipynb"
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(v4.writes(copy_page(page)).encode("utf-8", "replace"))
            said, problem = run_quarto(program, folder, environ, timeout or 60 + 20 * len(pages))
            files = {name: folder / OUTPUT / f"{name}.html" for name in names} | {SEARCH: folder / OUTPUT / SEARCH}
            found = {name: file.read_bytes() for name, file in files.items() if file.is_file()}
    except OSError as error:
        raise ReportError(f"{program} cannot render: {error}. {INSTEAD}") from error
    missing = [name for name in names if b"</html>" not in found.get(name, b"")[-1000:]]
    if problem := problem or (missing and f"did not write {', '.join(missing)}"):
        hidden = hidden_values([name for name in environ if PRIVATE.search(name) or "://" in environ[name]], environ)
        lines = COLOUR.sub("", scrub(said, hidden).replace(f"{folder}{os.sep}", "")).splitlines()
        told = "\n".join([text for line in lines if (text := UNSEEN.sub("", line).rstrip())][-12:])[-1200:]
        raise ReportError(f"Quarto {problem}. The pages were: {', '.join(names)}. It said:\n{told or '-'}\n{INSTEAD}")
    return found


def run_quarto(program: Path, folder: Path, environ: Mapping[str, str], timeout: float) -> tuple[str, str]:
    """What Quarto said while it rendered `folder`, and in words what went wrong; what it started ends with it."""
    given = {"PATH": environ.get("PATH", os.defpath), "HOME": environ.get("HOME", str(folder))}
    given |= {"QUARTO_PYTHON": sys.executable}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    command = [program, "render", ".", "--to", "html", "--no-execute"]
    process = subprocess.Popen(command, cwd=folder, env=given, start_new_session=True, **pipes)
    try:
        said = process.communicate(timeout=timeout)[0]
        problem = f"ended with exit code {process.returncode}" if process.returncode else ""
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        said, problem = process.communicate()[0], f"was not done after {timeout:g} seconds"
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
    return said.decode("utf-8", "replace"), problem


def copy_page(page: Page) -> NotebookNode:
    """What Quarto renders: front matter, what stands above a page, and its cells. Pure, and the same each time."""
    cells = [v4.new_raw_cell(make_front(page)), *map(v4.new_markdown_cell, say_above(page))]
    for cell in page.notebook.cells:
        cells.append(copy_code(cell) if cell.cell_type == "code" else v4.new_markdown_cell(disarm_prose(cell.source)))
    told = f"Made by Pinmill from {page.source}" + f", finished {page.made} UTC" * bool(page.made)
    cells.append(v4.new_markdown_cell(f"::: {{.source}}\n{escape(told)}.\n:::" * bool(page.source)))
    for number, cell in enumerate(shown := [cell for cell in cells if cell.source or cell.get("outputs")]):
        cell.id = f"cell-{number}"
    return v4.new_notebook(cells=shown, metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}})


def make_front(page: Page) -> str:
    """The front matter of a copy. Pandoc reads its texts as Markdown, so they are escaped."""
    title = f"{page.title} · {page.subject}" if page.subject else page.title
    date = page.made[:10] if re.match(r"\d{4}-\d\d-\d\d\b", page.made) else ""
    told = {"title": escape(title), "subtitle": escape(page.subtitle), "date": date, "lang": "en"}
    return "\n".join(["---", *write_yaml(told | {"execute": {"enabled": False, "echo": False}}), "---"])


def write_yaml(values: Mapping[str, Any]) -> list[str]:
    """A line of YAML for each value that is not empty; JSON is YAML, and a text in it is a text in every version."""
    return [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items() if value]


def say_above(page: Page) -> Iterator[str]:
    """Markdown of the banner, of the first sentence, and of the links to the pages beside this one."""
    if page.banner:
        yield f'::: {{.callout-important appearance="simple"}}\n{escape(page.banner)}\n:::'
    if page.lead:
        yield f"::: {{.lead}}\n{disarm(page.lead)}\n:::"
    if page.links:
        links = [f"**{escape(t)}**" if file == page.file else f"[{escape(t)}](<{file}>)" for t, file in page.links]
        yield f"::: {{.pages}}\n{' · '.join(links)}\n:::"


def copy_code(cell: NotebookNode) -> NotebookNode:
    """A copy of a code cell: what Quarto needs for its figures, its code where it is shown, and safe outputs."""
    options = cell.metadata.get("options", {})
    label, captions, texts = (options.get(name) or "" for name in ("label", "fig-cap", "fig-alt"))
    told = {"label": str(label) if str(label).startswith("fig-") else "", "fig-cap": _change(captions, disarm)}
    told |= {"fig-alt": _change(texts, lambda text: escape(html.unescape(text))), "echo": bool(cell.source)}
    code = [cell.source.replace(*BROKEN)] if cell.source else []
    outputs = [v4.new_output("display_data", data=make_safe(output.data)) for output in cell.outputs]
    lines = [f"#| {line}" for line in write_yaml(told)] if code or outputs else []
    return v4.new_code_cell("\n".join([*lines, *code]), outputs=outputs)


def _change(option: Any, how: Callable[[str], str]) -> Any:
    return [_change(one, how) for one in option] if isinstance(option, list) else how(" ".join(str(option).split()))


def make_safe(data: Mapping[str, str]) -> dict[str, str]:
    """An output's data without shortcodes, a table's caption where Pandoc looks for it, and plain text as HTML."""
    ((kind, content),) = data.items()
    if kind != "text/plain":
        return {kind: CAPTION.sub(r"\2\n: \1\n", disarm(content)) if kind == "text/markdown" else content}
    lines = [UNSEEN.sub("", line.expandtabs()) for line in COLOUR.sub("", content).splitlines()]
    signs = re.sub(r"[^\w \n]", lambda sign: f"&#{ord(sign[0])};", "\n".join(lines))
    return {"text/markdown": f'<pre class="plain">{signs}</pre>'}


def disarm(text: str) -> str:
    """Markdown in which shortcodes, HTML and pictures from elsewhere are text; addresses and our callouts are kept."""
    named = IMAGE.sub(lambda found: f"*&#91;{found[1] or 'image'}: {escape(html.unescape(found[2]))}&#93;*", text)
    return OBEYED.sub(lambda found: "".join(f"&#{ord(sign)};" for sign in found[0]), named)


def disarm_prose(text: str) -> str:
    """The same of an author's text, in whose code `<` is shown as it is typed; code that is to be raw HTML is none."""
    parts = enumerate(CODE.split(re.sub(r"([`~] *)\{(?= *=)", r"\1&#123;", text)))
    return "".join(disarm(part) if n % 4 == 0 else part.replace(*BROKEN) for n, part in parts if n % 4 < 2)
