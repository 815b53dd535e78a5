"""A real text data set that needs no network: prose from the docstrings of the installed pandas, scikit-learn, …

The sources are parsed, never imported or run, so reading them is quick, safe and the same on every machine that
has the same versions. `paragraphs` is the source `pinmill.docstrings:paragraphs` of the docstrings workflow.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import warnings
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING

from pinmill.errors import SourceError

if TYPE_CHECKING:
    from pandas import DataFrame

LIBRARIES = {"pandas": "pandas", "sklearn": "scikit-learn", "numpy": "numpy", "scipy": "scipy"}  # import name: label
SHORTEST, LONGEST = 40, 600  # characters: below is a heading or a type, above is a table or a list
FEWEST_WORDS = 15  # fewer is a signature or a stock phrase ("x : array_like. Input array."), the same in all four

# Vendored copies of other projects, build tools and tests: not this library's own prose.
NOT_ITS_OWN = {"tests", "_testing", "testing", "externals", "array_api_compat", "array_api_extra", "_build_utils",
               "_uarray", "cobyqa", "pyprima", "_pyinstaller", "_examples", "conftest.py", "setup.py"}  # fmt: skip
SKIPPED_SECTIONS = {"examples", "example", "references", "see also", "methods", "attributes"}  # code, titles, names

UNDERLINE = re.compile(r"[-=~^*+#\"']{3,}\s*$")
NOT_PROSE = re.compile(r"^\s*(>>>|\.\. |\||\+[-=]|[-=]{3,}|:\w+:`|\[\d+\])", re.MULTILINE)
BLANK_LINES = re.compile(r"\n[ \t]*\n\s*?(?=\S|[ \t]+\S)")


def paragraphs() -> DataFrame:
    """Distinct paragraphs of 40 to 600 characters: text, library (pandas, scikit-learn, numpy, scipy), module.

    `module` is the public part of the place it stands in, e.g. `scipy.stats`. The order is that of the libraries,
    file names and lines. A paragraph that stands in two libraries is left out. SourceError names a missing library.
    """
    from pandas import DataFrame

    places: dict[str, tuple[str, str]] = {}
    shared: set[str] = set()
    for package, label in LIBRARIES.items():
        for module, docstring in _docstrings(_folder(package)):
            for text in split_paragraphs(docstring):
                if places.setdefault(text, (label, module))[0] != label:
                    shared.add(text)
    rows = [(text, *place) for text, place in places.items() if text not in shared]
    return DataFrame(rows, columns=["text", "library", "module"])


def versions() -> str:
    """The four installed versions, e.g. 'pandas 3.1.1, scikit-learn 1.9.1, …': what the paragraphs depend on."""
    return ", ".join(f"{label} {importlib.metadata.version(label)}" for label in LIBRARIES.values())


paragraphs.freshness = versions  # read by source.freshness


def split_paragraphs(docstring: str) -> list[str]:
    """The prose paragraphs of one docstring, whitespace collapsed: no doctests, tables, headings or directives."""
    found, skipping = [], False
    for block in BLANK_LINES.split(cleandoc(docstring)):
        lines = block.split("\n")
        if len(lines) > 1 and UNDERLINE.match(lines[1]):
            skipping = lines[0].strip().lower() in SKIPPED_SECTIONS
            lines = lines[2:]
        text = " ".join(" ".join(lines).split())
        if not skipping and SHORTEST <= len(text) <= LONGEST and _is_prose("\n".join(lines), text):
            found.append(text)
    return found


def _is_prose(block: str, text: str) -> bool:
    """Whether `block` reads as sentences: 15 words at least, mostly letters, no code or table lines."""
    if len(text.split()) < FEWEST_WORDS or NOT_PROSE.search(block):
        return False
    return sum(map(str.isalpha, text)) >= 0.6 * len(text)  # formulas and code have fewer


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(f"the docstrings need {LIBRARIES[package]}, which is not installed. "
                          "Run: pip install 'pinmill[work]'")  # fmt: skip
    return Path(spec.submodule_search_locations[0])


def _docstrings(folder: Path) -> Iterator[tuple[str, str]]:
    """(module, docstring) of all that is public under `folder`, by file name, then by line."""
    for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
        parts = path.relative_to(folder.parent).parts
        if not NOT_ITS_OWN.isdisjoint(parts) or path.name.startswith("test_"):
            continue
        module = _public_module(parts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # theirs, such as an invalid escape
            tree = ast.parse(path.read_bytes())
        for docstring in _docstrings_of(tree):
            yield module, docstring


def _public_module(parts: tuple[str, ...]) -> str:
    """'scipy.stats' for ('scipy', 'stats', '_qmc.py'), 'numpy' for ('numpy', '_core', 'numeric.py')."""
    return parts[0] if parts[1].startswith("_") else f"{parts[0]}.{parts[1].removesuffix('.py')}"


def _docstrings_of(tree: ast.Module) -> Iterator[str]:
    """Docstrings of a module, its public classes and functions, and the texts given to `add_newdoc`."""
    todo: list[ast.stmt | ast.Module] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Expr):
            yield from _added_texts(node.value)
            continue
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if getattr(node, "name", "").startswith("_"):
            continue
        if text := ast.get_docstring(node, clean=False):
            yield text
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            todo.extend(reversed(node.body))


def _added_texts(call: ast.expr) -> Iterator[str]:
    """The string arguments of `add_newdoc(…)`: how NumPy and SciPy document what is written in C."""
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "add_newdoc":
        for argument in ast.walk(call):
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield argument.value
