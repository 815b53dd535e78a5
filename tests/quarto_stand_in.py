"""A stand-in for the program `quarto`, which cannot be installed everywhere: run by tests/test_quarto.py in its place.

It takes the one command line that Pinmill uses, and refuses any other, and any environment but the one promised. It
turns cells into Markdown as Quarto's source does (src/core/jupyter/jupyter.ts), obeys shortcodes where Quarto does
(before Pandoc reads the text, then in code, raw HTML and addresses: src/resources/filters/customnodes/shortcodes.lua),
and lets the real Pandoc make the HTML, without themes. A file `stand-in.scss` among the themes says how
it is to fail.
"""

import base64
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHORTCODE = re.compile(r"\{\{<\s*(.+?)\s*>\}\}", re.DOTALL)
READER = "markdown+autolink_bare_uris+tex_math_single_backslash+emoji"  # more than Quarto reads by default
SUFFIX = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}


def obey(text: str) -> str:
    """What becomes of a text with shortcodes."""
    return SHORTCODE.sub(r"OBEYED(\1)", text)


def split_options(lines: list[str]) -> tuple[dict[str, Any], str]:
    """The `#|` lines at the top of a cell, and its code."""
    import yaml

    count = next((number for number, line in enumerate(lines) if not line.startswith("#|")), len(lines))
    return yaml.safe_load("\n".join(line[2:].strip() for line in lines[:count])) or {}, "\n".join(lines[count:])


def write_image(output: dict, kind: str, stem: Path, options: dict, first: bool) -> str:
    """Markdown of a figure, whose file is written beside the notebook."""
    file = stem.with_name(f"{stem.name}.{SUFFIX[kind]}")
    file.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(output["data"][kind])
    file.write_bytes(data.encode() if kind == "image/svg+xml" else base64.b64decode(data))
    label = f"#{options['label']} " if "label" in options else ""
    alt = options["fig-alt"].replace("'", "\\'") if "fig-alt" in options else ""
    caption = options.get("fig-cap", "") if first else ""
    return f"![{caption}]({file}){{{label}{f'''fig-alt='{alt}' ''' if alt else ''}}}\n"


def make_markdown(notebook: dict, stem: Path) -> str:
    """The Markdown of a notebook; `echo` is off, as the front matter says."""
    parts = []
    for number, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            parts.append(f"{source}\n\n")
            continue
        options, code = split_options(source.split("\n"))
        parts.append("::: {.cell}\n")
        if options.get("echo") is True:
            parts.append(f"```` {{.python .cell-code}}\n{code}\n````\n")
        for place, output in enumerate(cell["outputs"]):
            ((kind, data),) = output["data"].items()
            parts.append("\n::: {.cell-output .cell-output-display}\n")
            image = stem.with_name(f"{stem.name}_files") / f"cell-{number}-output-{place}"
            parts.append(
                write_image(output, kind, image, options, place == 0) if kind in SUFFIX else "".join(data) + "\n"
            )
            parts.append(":::\n")
        parts.append(":::\n\n")
    return "".join(parts)


def walk(node: Any) -> Any:
    """Pandoc's tree with shortcodes obeyed where Quarto obeys them after reading, and with alternative texts."""
    if isinstance(node, list):
        return [walk(each) for each in node]
    if not isinstance(node, dict):
        return node
    node = {key: walk(value) for key, value in node.items()}
    kind, content = node.get("t"), node.get("c")
    is_code = kind in ("Code", "CodeBlock") and "cell-code" not in content[0][1]
    if is_code or kind in ("RawBlock", "RawInline"):
        content[1] = obey(content[1])
    elif kind in ("Link", "Image"):
        content[2][0] = obey(content[2][0])
        content[0][2] = [["alt" if name == "fig-alt" else name, value] for name, value in content[0][2]]
    return node


def run_pandoc(text: str, *arguments: str, cwd: Path) -> str:
    """What Pandoc makes of a text."""
    import pypandoc

    command = [pypandoc.get_pandoc_path(), *arguments]
    return subprocess.run(command, input=text, cwd=cwd, capture_output=True, text=True, check=True).stdout


def render(file: Path, root: Path, title: str) -> tuple[str, str]:
    """The address of a page in the site, and its HTML."""
    markdown = obey(make_markdown(json.loads(file.read_text("utf-8")), file.with_suffix("")))
    tree = walk(json.loads(run_pandoc(markdown, "-f", READER, "-t", "json", cwd=root)))
    options = ["-s", "--embed-resources", "--mathml", "--toc", "--section-divs", f"--title-prefix={title}"]
    page = run_pandoc(json.dumps(tree), "-f", "json", "-t", "html", *options, cwd=root)
    bar = '<nav class="navbar"></nav>'  # how the links of one are written, only the real Quarto knows
    return file.relative_to(root).with_suffix(".html").as_posix(), page.replace("<body>", f"<body>{bar}", 1)


def index(address: str, page: str) -> Iterator[dict[str, str]]:
    """What the search finds of a page."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(page, "html.parser")
    found = {"objectID": address, "href": address, "title": soup.h1.get_text(), "section": ""}
    yield {**found, "text": soup.body.get_text(" ", strip=True)}


def main() -> None:
    """Render the website in the working folder."""
    names = {line.partition("=")[0] for line in Path("/proc/self/environ").read_text().split("\0") if line}
    if sys.argv[1:] != ["render", ".", "--to", "html", "--no-execute"] or names != {"PATH", "HOME", "QUARTO_PYTHON"}:
        sys.exit(f"ERROR: unknown command {sys.argv[1:]} or environment {sorted(names)}")
    root = Path.cwd()
    order = (root / "stand-in.scss").read_text().split() if (root / "stand-in.scss").is_file() else ["work"]
    files = sorted(root.rglob("*.ipynb"))
    for number, file in enumerate(files, start=1):
        print(f"\x1b[32m[{number}/{len(files)}] {file}\x1b[39m", flush=True)
    if order[0] == "hang":
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        Path(order[1]).write_text(f"{child.pid} {root}")
        signal.pause()
    if order[0] == "fail":
        sys.exit(f"ERROR: YAMLError: \x1b[31mbad indentation\x1b[39m {' '.join(order[1:])} in {root}/index.ipynb")
    import yaml

    config = yaml.safe_load((root / "_quarto.yml").read_text())
    pages = dict(render(file, root, config["website"]["title"]) for file in files)
    if order[0] == "forget":
        pages.pop(order[1])
    for address, page in pages.items():
        target = root / config["project"]["output-dir"] / address
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page[: len(page) // 2] if order[0] == "half" else page, encoding="utf-8")
    (root / "_site/search.json").write_text(json.dumps([e for item in pages.items() for e in index(*item)]))


if __name__ == "__main__":
    main()
