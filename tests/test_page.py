"""The clean copy of an executed notebook: what a reader sees, in the order of the page, and nothing else."""

import json
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat import v4
from pinmill.errors import PinmillError, ReportError
from pinmill.markdown import Markdown, join, table, value_list
from pinmill.page import Page, figure, read_options, read_page

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


@pytest.mark.parametrize(("name", "file"), [("index", "index.html"), ("w/r1/model-card", "model-card.html")])
def test_the_file_of_a_page_is_the_last_part_of_its_name(name, file):
    assert Page(name, v4.new_notebook(), "T").file == file


def test_a_notebook_that_names_no_page_is_none(tmp_path):
    assert read(tmp_path, front(pinmill="job: train")) is None


@pytest.mark.parametrize("page", ["../../../x", "..", "a/b", "Größe <b>", "A", ["p"], {"p": 1}, 7, True, "p" * 65])
def test_a_page_can_only_be_called_what_a_pin_can_be(tmp_path, page):
    cell = v4.new_raw_cell(f"---\npinmill: {json.dumps({'page': page})}\n---")
    with pytest.raises(ReportError) as error:
        read(tmp_path, cell)
    assert str(error.value) == (
        f"executed.ipynb calls its page {page!r}: a-z, 0-9, - and _ were expected, at most 64 signs"
    )


@pytest.mark.parametrize("value", ["true", "[1]", "text", "3", "~", "{echo: [x]}"])
def test_anything_may_stand_in_the_front_matter_of_others(tmp_path, value):
    page = read(tmp_path, front(f"title: T\nexecute: {value}"), shows({"text/plain": "1"}))
    assert body(page) == [{"text/plain": "1"}]
    assert read(tmp_path, v4.new_raw_cell(f"---\npinmill: {value}\n---")) is None
    reads = front(pinmill=f"page: p, reads: {value}, writes: {value}")
    assert read(tmp_path, reads, metadata={"papermill": {"end_time": None}}, outcome="promoted").lead == ""


def test_streams_tracebacks_widgets_and_object_reprs_are_not_shown(tmp_path):
    noisy = v4.new_code_cell("x", execution_count=1)
    noisy.outputs = [
        v4.new_output("stream", name="stdout", text="PRINTED"),
        v4.new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "Slider()"}),
        v4.new_output("execute_result", data={"text/plain": "<Axes: title={'center': 'x'}>"}),
        v4.new_output("execute_result", data={"text/plain": "[<matplotlib.lines.Line2D at 0x7f>]"}),
        v4.new_output(
            "execute_result", data={"text/plain": "[<matplotlib.Line2D at 0x7>,\n <matplotlib.Line2D at 0x8>]"}
        ),
        v4.new_output("display_data", data={"text/plain": "<Figure size 640x480 with 1 Axes>"}),
        v4.new_output("execute_result", data={"text/plain": "<pinmill.model.Model object at 0x7f>"}),
        v4.new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}, "text/html": "x"}),
        v4.new_output("error", ename="E", evalue="SECRET", traceback=["SECRET"]),
        v4.new_output("execute_result", data={"text/plain": "'kept <b>'", "text/html": "<b>HTML</b>"}),
    ]
    told = v4.new_markdown_cell("An error occurred", metadata={"tags": ["papermill-error-cell-tag"]})
    assert body(read(tmp_path, front(), told, noisy)) == [{"text/plain": "'kept <b>'"}]


@pytest.mark.parametrize(
    "text", ["<5 rows left", "<5 rows left>", "<b>", "< a b >", "<A b> and more", "<A b>\nmore", "a <A b>"]
)
def test_a_text_that_only_begins_like_an_object_is_shown(tmp_path, text):
    assert body(read(tmp_path, front(), shows({"text/plain": text}))) == [{"text/plain": text}]


@pytest.mark.parametrize(
    ("data", "kinds"),
    [
        ({"text/html": "<b>HTML</b>"}, "text/html"),
        ({"text/html": "<b>x</b>", "text/plain": "<IPython.core.display.HTML object>"}, "text/html"),
        ({"text/latex": "$x$", "application/pdf": "JVBERi0="}, "application/pdf, text/latex"),
        ({"image/gif": "R0lGOD"}, "image/gif"),
        ({"application/json": {"a": 1}}, "application/json"),
        ({"text/x*y_{{< env HOME >}}": "x"}, "text/x&#42;y&#95;&#123;&#123;&#60; env HOME &#62;&#125;&#125;"),
    ],
)
def test_a_line_stands_where_an_output_cannot_be_shown(tmp_path, data, kinds):
    told = {"text/markdown": f"*(An output of this cell cannot be shown here: {kinds}.)*"}
    assert body(read(tmp_path, front(), shows(data, {"text/plain": "1"}))) == [told, {"text/plain": "1"}]


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


def test_a_first_cell_of_nothing_but_the_title_is_not_repeated(tmp_path):
    cells = [v4.new_code_cell("setup()"), v4.new_markdown_cell("# T"), v4.new_markdown_cell("Prose")]
    assert body(read(tmp_path, front(), *cells)) == ["", "Prose"]


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


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ("echo: true", [["show()"], {"text/plain": "1"}]),
        ("output: false", []),
        ("include: false", []),
        ("include: false\n#| echo: true", []),
        ("output: false\n#| echo: true", [["show()"]]),
        ("output: asis", [{"text/plain": "1"}]),
        ("include: true", [{"text/plain": "1"}]),
    ],
)
def test_a_cell_can_hide_its_outputs(tmp_path, options, shown):
    cells = [shows({"text/plain": "1"}, source=f"#| {options}\nshow()")]
    assert body(read(tmp_path, front(), *cells)) == shown
    everywhere = json.dumps(yaml.safe_load(options.replace("#| ", "")))
    assert body(read(tmp_path, front(f"title: T\nexecute: {everywhere}"), shows({"text/plain": "1"}))) == shown


def test_a_hidden_summary_does_not_open_the_page(tmp_path):
    hidden = shows({"text/markdown": "Secret."}, source="#| output: false\nshow()", tags=("summary",))
    assert read(tmp_path, front(), hidden).lead == ""


def test_the_caption_of_a_table_is_that_of_the_first_without_one(tmp_path):
    one, two = table([{"x": 1}], caption="Named"), table([{"y": 2}])
    cell = shows({"text/plain": "1"}, {"text/markdown": f"{one}\n\n{two}"}, {"text/markdown": two},
                 source="#| tbl-cap: >\n#|   Rows of\n#|   *all*\nshow()")  # fmt: skip
    captioned = {"text/markdown": f"{one}\n\n**Rows of *all***\n\n{two}"}
    assert body(read(tmp_path, front(), cell)) == [{"text/plain": "1"}, captioned, {"text/markdown": two}]


@pytest.mark.parametrize("option", ["tbl-cap: [a, b]", "tbl-cap: 7", "tbl-cap: ''", "tbl-cap:"])
def test_a_caption_that_is_no_text_is_ignored(tmp_path, option):
    rows = {"text/markdown": str(table([{"x": 1}]))}
    assert body(read(tmp_path, front(), shows(rows, source=f"#| {option}\nshow()"))) == [rows]


def test_the_caption_that_is_asked_for_is_as_the_library_writes_it(tmp_path):
    rows = {"text/markdown": str(value_list({"a": 1}))}
    (shown,) = body(read(tmp_path, front(), shows(rows, source="#| tbl-cap: Rows\nshow()")))
    assert shown["text/markdown"] == join(Markdown(table([], caption="Rows").partition("\n")[0]), value_list({"a": 1}))


def test_only_the_lines_that_a_cell_begins_with_are_options(tmp_path):
    source = '#| echo: true\ntext = """\n#| output: false\n#| - [\n"""'
    assert read_options(source) == ({"echo": True}, 'text = """\n#| output: false\n#| - [\n"""')
    assert read_options("\n\n#| a: 1\n\n#| b: '#| c'\n\nplot()") == ({"a": 1, "b": "#| c"}, "plot()")
    assert read_options("#|\nplot()") == ({}, "plot()")


@pytest.mark.parametrize("line", ["fig-cap: a: b", "output false", "- echo", "made: 2026-13-45", "a: [1"])
def test_a_malformed_option_is_an_error_that_names_notebook_and_cell(tmp_path, line):
    with pytest.raises(ReportError) as error:
        read(tmp_path, front(), v4.new_markdown_cell("Prose"), v4.new_code_cell(f"#| {line}\nplot()"))
    start = f"the cell options {[line]} of cell 3 of executed.ipynb are not YAML such as `echo: true`: "
    assert str(error.value).startswith(start)


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
    with pytest.raises(
        ReportError, match=r"bad\.ipynb is not a notebook .*; make it again: pinmill run WORKFLOW --from bad$"
    ):
        read_page(tmp_path / "bad.ipynb", "w")


def test_malformed_front_matter_is_an_error_that_names_the_notebook(tmp_path):
    with pytest.raises(PinmillError, match=r"the front matter of executed\.ipynb is not YAML"):
        read(tmp_path, v4.new_raw_cell("---\ntitle: a\nsub: [1\n---"))
