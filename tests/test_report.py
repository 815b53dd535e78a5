"""A page shows what the notebook says, loads nothing, runs nothing, and is there whole or not at all."""

import base64
import struct
import zlib
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat import v4
from pinmill import report
from pinmill.errors import PinmillError, ReportError
from pinmill.markdown import callout, escape, table
from pinmill.report import clean_notebook, render_page
from playwright.sync_api import sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = (
    "{{< env HOME >}} {{< include ../x >}} ::: <script>pwned=1</script> $x$ | \" ' ` 🎉 <img src=x onerror=pwned=1>"
)
EVIL_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="1200" height="60" onload="pwned=1"><script>pwned=1</script>'
    '<image href="https://evil.example/x.png"/><rect width="1200" height="60" fill="#0b5f73"/></svg>'
)


def png() -> str:
    """A white pixel, written by hand."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixel = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\xff")) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + pixel).decode()


def front(title: str, **more: object) -> nbformat.NotebookNode:
    lines = [f"{key}: {value}" for key, value in more.items()]
    return v4.new_raw_cell("\n".join(["---", f"title: '{title.replace(chr(39), chr(39) * 2)}'", *lines, "---"]))


def shows(*bundles: dict[str, str], source: str = "show()") -> nbformat.NotebookNode:
    outputs = [v4.new_output("display_data", data=data) for data in bundles]
    return v4.new_code_cell(source, outputs=outputs, execution_count=1)


def render(tmp_path: Path, *cells: nbformat.NotebookNode, metadata: dict | None = None, **options) -> BeautifulSoup:
    source = tmp_path / "executed.ipynb"
    nbformat.write(v4.new_notebook(cells=list(cells), metadata=metadata or {}), source)
    target = render_page(source, tmp_path / "pages" / "page.html", **options)
    return BeautifulSoup(target.read_text("utf-8"), "html.parser")


def text_of(page: BeautifulSoup) -> str:
    return page.main.get_text(" ", strip=True)


def test_title_and_subtitle_come_from_the_front_matter_and_the_same_h1_is_not_repeated(tmp_path):
    promise = v4.new_markdown_cell("# Model card\n\nPromise.")
    page = render(tmp_path, front("Model card", subtitle="What it is"), promise)
    assert [page.title.string, page.h1.string, page.find(class_="subtitle").string, text_of(page)] == [
        "Model card",
        "Model card",
        "What it is",
        "Promise.",
    ]
    assert len(page.find_all("h1")) == 1


def test_contents_lead_to_headings_of_cells_and_of_outputs(tmp_path):
    headings = v4.new_markdown_cell("## Same\n\n## Same\n\n### Über & `a<b`\n\n#### Deep")
    page = render(tmp_path, front("T"), headings, shows({"text/markdown": "## From output"}))
    links = [(a["href"], a.get_text()) for a in page.find("nav").find_all("a")]
    assert links == [
        ("#same", "Same"),
        ("#same-2", "Same"),
        ("#über-a-b", "Über & a<b"),
        ("#from-output", "From output"),
    ]
    assert [page.find(id=href[1:]).get_text() for href, _ in links] == [text for _, text in links]


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
    page = render(tmp_path, front("T"), noisy)
    assert text_of(page) == "'kept <b>'"
    assert "SECRET" not in str(page)


def test_markdown_is_preferred_to_svg_to_png_to_plain_text():
    bundles = [
        {"text/plain": "p", "image/png": png(), "image/svg+xml": EVIL_SVG, "text/markdown": "m", "text/html": "h"},
        {"text/plain": "p", "image/png": png(), "image/svg+xml": EVIL_SVG, "text/html": "h"},
        {"text/plain": "p", "image/png": png(), "text/html": "h"},
        {"text/plain": "p", "text/html": "h"},
    ]
    cleaned = clean_notebook(v4.new_notebook(cells=[shows(*bundles)]))
    kinds = [list(output.data) for output in cleaned.cells[0].outputs]
    assert kinds == [["text/markdown"], ["image/svg+xml"], ["image/png"], ["text/plain"]]


def test_cleaning_changes_nothing_of_its_argument_and_leaves_out_papermills_error_cells():
    marked = v4.new_markdown_cell("<span>An Exception</span>", metadata={"tags": ["papermill-error-cell-tag"]})
    notebook = v4.new_notebook(cells=[front("T"), marked, shows({"text/html": "h"})])
    before = nbformat.writes(notebook)
    cleaned = clean_notebook(notebook)
    assert [cell.cell_type for cell in cleaned.cells] == ["raw", "code"]
    assert nbformat.writes(notebook) == before


def test_code_is_shown_only_when_the_front_matter_asks(tmp_path):
    assert "show()" not in str(render(tmp_path, front("T"), shows()))
    asks = front("T", execute="{echo: true}")
    assert render(tmp_path, asks, shows(source="if a < b:")).main.pre.get_text() == "if a < b:"


def test_tables_are_real_tables_with_caption_and_numbers_to_the_right(tmp_path):
    page = render(tmp_path, front("T"), shows({"text/markdown": table([{"a|": "x", "n": 3}], caption="Rows & more")}))
    assert str(page.table).replace("\n", "") == (
        "<table><caption>Rows &amp; more</caption><thead><tr>"
        '<th class="left" scope="col">a|</th><th class="right" scope="col">n</th></tr></thead>'
        '<tbody><tr><td class="left">x</td><td class="right">3</td></tr></tbody></table>'
    )


def test_callouts_are_boxes_and_no_other_html_is_passed_on(tmp_path):
    source = f'</div></div>\n\n{callout("Look *out*")}\n\n<div class="x">\n\n</div>\n\na <b>b</b><br>c <!-- d -->'
    page = render(tmp_path, front("T"), v4.new_markdown_cell(source))
    (box,) = page.find_all(class_="callout")
    assert box.get_text(" ", strip=True) == "Warning Look *out*"
    assert {tag.name for tag in page.main.find_all()} == {"div", "p", "strong"}
    assert [tag.get("class") for tag in page.main.find_all("div")] == [["callout", "warning"]]
    assert page.footer.parent["class"] == ["page"]


def test_pictures_are_in_the_page_and_svg_cannot_run(tmp_path):
    drawn = shows({"image/svg+xml": EVIL_SVG}, {"image/png": png()})
    page = render(tmp_path, front("T"), drawn)
    assert [img["src"].partition(",")[0] for img in page.find_all("img")] == [
        "data:image/svg+xml;base64",
        "data:image/png;base64",
    ]
    assert base64.b64decode(page.img["src"].partition(",")[2]).decode() == EVIL_SVG
    assert page.find(["svg", "script"]) is None


def test_a_picture_that_is_not_base64_adds_no_markup(tmp_path):
    page = render(tmp_path, front("T"), shows({"image/png": '"><script>pwned=1</script>'}))
    assert [tag.name for tag in page.main.find_all()] == ["figure", "img"]


def test_pictures_from_elsewhere_are_only_named(tmp_path):
    page = render(tmp_path, front("T"), v4.new_markdown_cell("![far](https://evil.example/b.png) ![](../secret.png)"))
    assert text_of(page) == "[far: https://evil.example/b.png] [image: ../secret.png]"
    assert page.find("img") is None


def test_links_of_authors_work_and_run_no_script(tmp_path):
    page = render(tmp_path, front("T"), v4.new_markdown_cell("[a](https://example.org) [b](javascript:pwned=1)"))
    assert [a["href"] for a in page.main.find_all("a")] == ["https://example.org", "#harmful-link"]


def test_hostile_values_are_text_wherever_they_stand(tmp_path):
    cells = [
        v4.new_markdown_cell(f"## {escape(HOSTILE)}\n\n{escape(HOSTILE)}"),
        shows({"text/markdown": table([{HOSTILE: HOSTILE}], caption=HOSTILE)}, {"text/plain": HOSTILE}),
    ]
    page = render(tmp_path, front(HOSTILE), *cells, status_banner=HOSTILE)
    banner, text = page.find(class_="banner"), page.main.p
    spots = [page.title, page.h1, banner, page.h2, text, page.caption, page.th, page.td, page.pre]
    assert [spot.get_text() for spot in spots] == [HOSTILE] * 9
    assert page.find(["script", "img"]) is None


def test_raw_markup_in_markdown_is_text_as_well(tmp_path):
    page = render(tmp_path, front("T"), v4.new_markdown_cell("<script>pwned=1</script>\n\nin <script>pwned=1</script>"))
    assert text_of(page) == "<script>pwned=1</script> in <script>pwned=1</script>"


def test_the_page_forbids_scripts_and_all_loading(tmp_path):
    page = render(tmp_path, front("T"))
    assert page.find("meta", {"http-equiv": "Content-Security-Policy"})["content"] == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def test_the_time_is_papermills_and_the_same_notebook_gives_the_same_bytes(tmp_path):
    metadata = {"papermill": {"end_time": "2025-11-20T10:45:01.5+00:00"}}
    page = render(tmp_path, front("T"), shows({"text/markdown": "x"}), metadata=metadata)
    first = (tmp_path / "pages/page.html").read_bytes()
    render_page(tmp_path / "executed.ipynb", tmp_path / "pages/page.html")
    assert page.find(class_="made").string == "Finished 2025-11-20 10:45 UTC"
    assert (tmp_path / "pages/page.html").read_bytes() == first


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"nbformat": 4, "cells": [1]}', '{"cells": "x"}'])
def test_a_missing_or_malformed_notebook_is_an_error_and_writes_nothing(tmp_path, content):
    if content is not None:
        (tmp_path / "bad.ipynb").write_text(content)
    with pytest.raises(ReportError, match=r"bad\.ipynb is not a notebook that can be read.*; run the stage again"):
        render_page(tmp_path / "bad.ipynb", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_malformed_front_matter_is_an_error_that_names_the_notebook(tmp_path):
    with pytest.raises(PinmillError, match=r"the front matter of executed\.ipynb is not YAML"):
        render(tmp_path, v4.new_raw_cell("---\ntitle: a\nsub: [1\n---"))


def test_a_page_that_is_too_large_is_an_error_and_the_old_page_stays(tmp_path, monkeypatch):
    render(tmp_path, front("Old"))
    monkeypatch.setattr(report, "MAX_BYTES", 100_000)
    with pytest.raises(ReportError, match=r"would have 0\.2 MB.*; draw fewer points"):
        render(tmp_path, front("New"), shows({"image/svg+xml": "<svg>" + " " * 120_000 + "</svg>"}))
    pages = list((tmp_path / "pages").iterdir())
    assert [(page.name, "Old" in page.read_text()) for page in pages] == [("page.html", True)]


def test_a_target_that_cannot_be_written_is_an_error_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "pages").write_text("a file where the folder should be")
    with pytest.raises(ReportError, match=r"page\.html cannot be written"):
        render(tmp_path, front("T"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["executed.ipynb", "pages"]


def test_a_failed_move_leaves_no_temporary_file(tmp_path):
    (tmp_path / "pages" / "page.html").mkdir(parents=True)
    with pytest.raises(ReportError, match=r"page\.html cannot be written"):
        render(tmp_path, front("T"))
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["page.html"]


@pytest.fixture(scope="module")
def browser(chromium):
    with sync_playwright() as running:
        started = running.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def hostile_page(tmp_path):
    wide = [{f"column {n}": "unbreakable" * 3 for n in range(8)}]
    cells = [
        v4.new_markdown_cell(f"## One\n\n## Two\n\n## Three\n\n<script>pwned=1</script>\n\n{escape(HOSTILE)}"),
        v4.new_markdown_cell("![far](https://evil.example/b.png)\n\n<iframe src='https://evil.example'></iframe>"),
        shows({"image/svg+xml": EVIL_SVG}, {"image/png": png()}, {"text/html": "<script>pwned=1</script>"}),
        shows({"text/markdown": table(wide, caption=HOSTILE)}, {"text/plain": HOSTILE + "x" * 500}),
    ]
    render(tmp_path, front(HOSTILE), *cells, status_banner="word" * 60)
    return (tmp_path / "pages/page.html").as_uri()


def visit(browser, address: str, **options):
    """The opened page and all that it asked for, said, or popped up, with the network cut off."""
    context = browser.new_context(offline=True, **options)
    page, events = context.new_page(), []
    page.on("request", lambda request: events.append(request.url))
    page.on("console", lambda message: events.append(message.text))
    page.on("pageerror", lambda error: events.append(str(error)))
    page.on("dialog", lambda dialog: events.append(dialog.message))
    page.goto(address, wait_until="networkidle")
    return page, [event for event in events if not event.startswith("data:image/")]


@pytest.mark.browser
def test_in_a_browser_the_page_loads_nothing_runs_nothing_and_complains_of_nothing(browser, hostile_page):
    page, events = visit(browser, hostile_page)
    assert events == [hostile_page]
    assert page.evaluate("typeof pwned") == "undefined"
    assert (page.title(), page.locator("h1").inner_text()) == (HOSTILE, HOSTILE)
    assert page.evaluate("[...document.images].map(i => i.naturalWidth)") == [1200, 1]


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_in_a_browser_the_page_never_scrolls_sideways(browser, hostile_page, width):
    page, _ = visit(browser, hostile_page, viewport={"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("Math.max(...[...document.images].map(i => i.getBoundingClientRect().right))") <= width


@pytest.mark.browser
@pytest.mark.parametrize(("width", "shown"), [(1280, ("nav", "details")), (390, ("details", "nav"))])
def test_in_a_browser_contents_are_a_sidebar_on_a_wide_screen_and_fold_on_a_phone(browser, hostile_page, width, shown):
    page, _ = visit(browser, hostile_page, viewport={"width": width, "height": 844})
    assert [page.locator(f"{name}.contents").is_visible() for name in shown] == [True, False]


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser_text_has_enough_contrast(browser, hostile_page, scheme):
    page, _ = visit(browser, hostile_page, color_scheme=scheme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for selector in ("main p", "footer", "th", "nav a"):
        ink = page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).color")
        assert contrast(ink, paper) >= 4.5  # WCAG 2.2, 1.4.3


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two `rgb(r, g, b)`. Source: WCAG 2.2, relative luminance."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
