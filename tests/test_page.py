"""The clean copy of an executed notebook: what a reader sees, in the order of the page, and nothing else."""

from pathlib import Path

import nbformat
import pytest
from nbformat import v4
from pinmill.errors import PinmillError, ReportError
from pinmill.page import figure, read_options, read_page

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'


def front(text: str = "title: T", pinmill: str = "page: p") -> nbformat.NotebookNode:
    return v4.new_raw_cell(f"---\n{text}\npinmill: {{{pinmill}}}\n---")


def shows(*bundles: dict[str, str], source: str = "show()", tags: tuple[str, ...] = ()) -> nbformat.NotebookNode:
    outputs = [v4.new_output("display_data", data=data) for data in bundles]
    return v4.new_code_cell(source, outputs=outputs, execution_count=1, metadata={"tags": [*tags]})


def read(tmp_path: Path, *cells: nbformat.NotebookNode, metadata: dict | None = None, **around):
    source = tmp_path / "executed.ipynb"
    nbformat.write(v4.new_notebook(cells=list(cells), metadata=metadata or {}), source)
    return read_page(source, "w/r1", **around)


def body(page) -> list:
    """What the cells of a page hold: text of Markdown, data of outputs, code in a list of its own."""
    held = []
    for cell in page.notebook.cells:
        if cell.cell_type == "markdown":
            held.append(cell.source)
        else:
            held += [[cell.source]] if cell.source else []
            held += [dict(output.data) for output in cell.outputs]
    return held


def test_what_stands_above_the_page_is_the_front_matter_s_and_papermill_s(tmp_path):
    metadata = {"papermill": {"end_time": "2025-11-20T10:45:01.5+00:00"}}
    page = read(tmp_path, front("title: 'A: b'\nsubtitle: c"), metadata=metadata, subject="Spam", banner="B")
    assert (page.name, page.title, page.subtitle, page.subject, page.banner, page.made, page.source, page.home) == (
        "w/r1/p", "A: b", "c", "Spam", "B", "2025-11-20 10:45", "executed.ipynb", "../../index.html",
    )  # fmt: skip


def test_a_notebook_that_names_no_page_is_none(tmp_path):
    assert read(tmp_path, front(pinmill="job: train")) is None


def test_streams_tracebacks_html_widgets_and_object_reprs_are_not_shown(tmp_path):
    noisy = v4.new_code_cell("x", execution_count=1)
    noisy.outputs = [
        v4.new_output("stream", name="stdout", text="PRINTED"),
        v4.new_output("display_data", data={"text/html": "<b>HTML</b>"}),
        v4.new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "Slider()"}),
        v4.new_output("execute_result", data={"text/plain": "<Axes: title={'center': 'x'}>"}),
        v4.new_output("execute_result", data={"text/plain": "[<matplotlib.lines.Line2D at 0x7f>]"}),
        v4.new_output("error", ename="E", evalue="SECRET", traceback=["SECRET"]),
        v4.new_output("execute_result", data={"text/plain": "'kept <b>'", "text/html": "<b>HTML</b>"}),
    ]
    told = v4.new_markdown_cell("An error occurred", metadata={"tags": ["papermill-error-cell-tag"]})
    assert body(read(tmp_path, front(), told, noisy)) == [{"text/plain": "'kept <b>'"}]


def test_markdown_is_preferred_to_svg_to_png_to_plain_text(tmp_path):
    kinds = ["text/plain", "image/png", "image/svg+xml", "text/markdown"]
    bundles = [dict.fromkeys(kinds[:count], "x") | {"text/html": "h"} for count in (1, 2, 3, 4)]
    assert body(read(tmp_path, front(), shows(*bundles))) == [{kind: "x"} for kind in kinds]


def test_the_summary_opens_the_page_and_the_appendix_closes_it(tmp_path):
    cells = [
        shows({"text/markdown": "run"}, tags=("appendix",)),
        v4.new_markdown_cell("prose"),
        shows({"text/markdown": "It is good.", "text/plain": "x"}, tags=("summary",)),
        shows({"text/markdown": "table"}),
    ]
    page = read(tmp_path, front(), *cells)
    assert page.lead == "It is good."
    end = ["## Where this page comes from", {"text/markdown": "run"}]
    assert body(page) == ["prose", {"text/markdown": "table"}, *end]


@pytest.mark.parametrize(
    ("pinmill", "summary", "lead"),
    [
        ("page: p, writes: [metrics]", "Better on 2 of 3.", "Better on 2 of 3; promoted."),
        ("page: p, reads: [data, metrics]", "Better on 2 of 3", "Better on 2 of 3; promoted."),
        ("page: p, reads: [data]", "9 rows.", "9 rows."),
        ("page: p, writes: [metrics]", "", "Promoted."),
        ("page: p", "", ""),
    ],
)
def test_the_outcome_ends_the_first_line_of_a_page_that_tells_of_the_decision(tmp_path, pinmill, summary, lead):
    cell = shows({"text/markdown": summary}, tags=("summary",))
    assert read(tmp_path, front(pinmill=pinmill), cell, outcome="promoted").lead == lead


def test_of_the_first_prose_title_and_list_are_for_those_who_open_the_notebook(tmp_path):
    first = v4.new_markdown_cell("# T\n\nPromise.\n\n- **Reads** x\n- **Writes** y\n\nMore.")
    assert body(read(tmp_path, front(), first, v4.new_markdown_cell("- a\n- b"))) == ["Promise.", "- a\n- b"]


def test_code_is_shown_only_where_it_is_asked_for_and_injected_values_never(tmp_path):
    cells = [
        shows({"text/plain": "1"}, source="hidden = 1"),
        v4.new_code_cell("#| echo: true\n\nshown = 1"),
        v4.new_code_cell("#| echo: false\nhidden = 2"),
        v4.new_code_cell("title = '{{< env HOME >}}'", metadata={"tags": ["injected-parameters"]}),
    ]
    assert body(read(tmp_path, front(), *cells)) == [{"text/plain": "1"}, ["shown = 1"]]
    echoed = read(tmp_path, front("title: T\nexecute: {echo: true}"), *cells)
    assert body(echoed) == [["hidden = 1"], {"text/plain": "1"}, ["shown = 1"]]


def test_cell_options_are_quarto_s():
    source = '#| label: fig-a\n#| fig-cap: "A: b"\n#| fig-alt: >\n#|   long\n#|   text\nplot()\n# | no option'
    assert read_options(source) == (
        {"label": "fig-a", "fig-cap": "A: b", "fig-alt": "long text"},
        "plot()\n# | no option",
    )
    assert read_options("plot()") == ({}, "plot()")
    with pytest.raises(ReportError, match=r"the cell options .*fig-cap: a: b.* are not YAML"):
        read_options("#| fig-cap: a: b")


def test_a_figure_of_the_library_is_a_cell_like_those_of_notebooks(tmp_path):
    drawn = shows({"image/svg+xml": SVG}, source="#| fig-cap: C\n#| fig-alt: A\nplot()")
    (cell,) = read(tmp_path, front(), drawn).notebook.cells
    made = figure(SVG, caption="C", alt="A")
    assert (cell.source, cell.metadata, cell.outputs) == (made.source, made.metadata, made.outputs)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"nbformat": 4, "cells": [1]}', '{"cells": "x"}'])
def test_a_missing_or_malformed_notebook_is_an_error_that_names_it(tmp_path, content):
    if content is not None:
        (tmp_path / "bad.ipynb").write_text(content)
    with pytest.raises(ReportError, match=r"bad\.ipynb is not a notebook that can be read.*; run the stage again"):
        read_page(tmp_path / "bad.ipynb", "w")


def test_malformed_front_matter_is_an_error_that_names_the_notebook(tmp_path):
    with pytest.raises(PinmillError, match=r"the front matter of executed\.ipynb is not YAML"):
        read(tmp_path, v4.new_raw_cell("---\ntitle: a\nsub: [1\n---"))
