"""A real text data set that needs no network: prose from the docstrings of the installed pandas, scikit-learn, …

The sources are parsed, never imported or run: quick, safe, and the same wherever the same versions are installed.
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
FEWEST_LETTERS = 0.6  # of the characters: formulas and code have fewer

# Vendored copies of other projects, build tools and tests: not this library's own prose.
FOREIGN = re.compile(
    r"tests|_?testing|externals|array_api_\w+|_build_utils|_uarray|cobyqa|pyprima|_pyinstaller|_examples|(conftest|setup|test_\w+)\.py"
)
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

    rows = [
        (text, library, module)
        for package, library in LIBRARIES.items()
        for module, docstring in _docstrings(package)
        for text in split_paragraphs(docstring)
    ]
    frame = DataFrame(rows, columns=["text", "library", "module"])
    owners = frame.groupby("text")["library"].transform("nunique")
    return frame[owners == 1].drop_duplicates("text", ignore_index=True)


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
        is_long = SHORTEST <= len(text) <= LONGEST and len(text.split()) >= FEWEST_WORDS
        is_prose = sum(map(str.isalpha, text)) >= FEWEST_LETTERS * len(text) and not NOT_PROSE.search("\n".join(lines))
        found += [text] if is_long and is_prose and not skipping else []
    return found


def _docstrings(package: str) -> Iterator[tuple[str, str]]:
    """(public module, docstring) of all that is public in a package, by file name, then by line."""
    if not (spec := importlib.util.find_spec(package)):  # finds a top-level package without importing it
        raise SourceError(f"the docstrings need {LIBRARIES[package]}. Run: pip install 'pinmill[work]'")
    folder = Path(spec.origin).parent
    for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
        parts = path.relative_to(folder).parts
        if any(map(FOREIGN.fullmatch, parts)):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # theirs, such as an invalid escape
            tree = ast.parse(path.read_bytes())
        module = package if parts[0].startswith("_") else f"{package}.{parts[0].removesuffix('.py')}"
        yield from ((module, docstring) for docstring in _docstrings_of(tree))


def _docstrings_of(node: ast.AST) -> Iterator[str]:
    """Docstrings of a module, its public classes and functions, and the texts given to `add_newdoc`."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        if getattr(node.value.func, "id", "") == "add_newdoc":  # for what is written in C
            constants = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
            yield from (value for value in constants if isinstance(value, str))
    elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and getattr(node, "name", "")[:1] != "_":
        yield ast.get_docstring(node, clean=False) or ""
        for child in [] if isinstance(node, ast.FunctionDef) else node.body:
            yield from _docstrings_of(child)
