"""A page shows what the notebook says, loads nothing, runs nothing, and can be read by everybody."""

import base64
import json
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from nbformat import v4
from pinmill.markdown import Markdown, callout, escape, table, value_list
from pinmill.page import Page, arrange, figure, read_page
from pinmill.webpage import render_webpage

HOSTILE = (
    "{{< env HOME >}} {{< include ../x >}} ::: <script>pwned=1</script> $x$ | \" ' ` 🎉 <img src=x onerror=pwned=1>"
    " a: b {{ page }} {% raw %} &amp; &lt;b&gt;"
)
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="600" height="60"><rect width="600" height="60"/></svg>'
EVIL_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="1200" height="60" onload="pwned=1"><script>pwned=1</script>'
    '<image href="https://evil.example/x.png"/><rect width="1200" height="60" fill="#0b5f73"/></svg>'
)
LINKS = (("Data", "data.html"), ("Training", "training.html"), ("Model card", "model-card.html"))


def png() -> str:
    """A white pixel, written by hand."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixel = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\xff")) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + pixel).decode()


def markdown(source: str) -> nbformat.NotebookNode:
    return v4.new_markdown_cell(source)


def shows(*bundles: dict[str, str], source: str = "show()") -> nbformat.NotebookNode:
    outputs = [v4.new_output("display_data", data=data) for data in bundles]
    return v4.new_code_cell(source, outputs=outputs, execution_count=1)


def draws(*options: str, svgs: int = 1) -> nbformat.NotebookNode:
    """A cell that draws, with Quarto's cell options."""
    return shows(
        *[{"image/svg+xml": SVG}] * svgs, source="\n".join([*(f"#| {option}" for option in options), "plot()"])
    )


def describes(value: str) -> list[str]:
    """Cell options with `value` as caption and as alternative text."""
    return [f"{option}: {json.dumps(value, ensure_ascii=False)}" for option in ("fig-cap", "fig-alt")]


def a_page(*cells: nbformat.NotebookNode, name: str = "docs/page", title: str = "T", **facts) -> Page:
    return Page(name=name, notebook=v4.new_notebook(cells=arrange(cells, "x.ipynb", {})[1]), title=title, **facts)


def render(*cells: nbformat.NotebookNode, **facts) -> BeautifulSoup:
    return BeautifulSoup(render_webpage(a_page(*cells, **facts)).decode("utf-8"), "html.parser")


def text_of(page: BeautifulSoup) -> str:
    return page.find(class_="body").get_text(" ", strip=True)


def test_a_stages_page_says_what_it_is_when_it_was_made_and_from_what(tmp_path):
    front = v4.new_raw_cell("---\ntitle: Model card\nsubtitle: What it is\npinmill: {page: model-card}\n---")
    cells = [front, markdown("# Model card\n\nPromise."), shows(source="secret_code()")]
    metadata = {"papermill": {"end_time": "2025-11-20T10:45:01.5+00:00"}}
    nbformat.write(v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "04-model-card.ipynb")
    html = render_webpage(read_page(tmp_path / "04-model-card.ipynb", "docs", subject="Docs"))
    page = BeautifulSoup(html.decode(), "html.parser")
    assert page.title.string == "Model card · Docs"
    assert [line.string for line in page.main.find(class_="head").find_all(["p", "h1"])] == [
        "Docs",
        "Model card",
        "What it is",
        "Finished 2025-11-20 10:45 UTC",
    ]
    assert (text_of(page), len(page.find_all("h1"))) == ("Promise.", 1)  # the same H1 is not repeated
    assert page.footer.string.startswith("Rendered by Pinmill from 04-model-card.ipynb.")
    assert "secret_code" not in html.decode()


def test_a_page_of_nothing_but_a_title_is_a_page():
    page = render(title="Models", name="index")
    assert (page.h1.string, page.find(class_="brand")["href"], text_of(page)) == ("Models", "index.html", "")
    assert page.find(["ul", "details"]) is None
    assert page.find(class_=["banner", "lead", "made", "subject", "subtitle"]) is None


def test_banner_lead_contents_and_text_follow_the_head_in_this_order():
    headings = markdown("## A\n\n## B\n\n## C")
    page = render(headings, banner="Rejected.", lead="Worse on **2 of 3** metrics.")
    parts = [part["class"] for part in page.main.find_all(recursive=False)]
    assert parts == [["head"], ["banner"], ["lead"], ["contents", "inline"], ["body"]]
    assert str(page.find(class_="lead").p) == "<p>Worse on <strong>2 of 3</strong> metrics.</p>"


def test_the_bar_leads_to_the_index_and_the_pages_beside_and_says_which_this_is():
    bar = render(title="Training", name="docs/run-1/training", links=LINKS).find("nav", {"aria-label": "Pages"})
    assert [(a.get_text(), a["href"], a.get("aria-current")) for a in bar.find_all("a")] == [
        ("Pinmill", "../../index.html", None),
        ("Data", "data.html", None),
        ("Training", "training.html", "page"),
        ("Model card", "model-card.html", None),
    ]


def test_contents_lead_to_headings_of_cells_and_of_outputs():
    headings = markdown(
        "## Same\n\n## Same 3\n\n## Same\n\n## Same\n\n### Über & `a<b`\n\n#### Deep\n\n## Content\n\n## 🎉"
    )
    page = render(headings, shows({"text/markdown": "## From output"}))
    links = [(a["href"], a.get_text()) for a in page.find(class_="side").find_all("a")]
    assert links == [
        ("#same", "Same"),
        ("#same-3", "Same 3"),
        ("#same-2", "Same"),
        ("#same-4", "Same"),
        ("#über-a-b", "Über & a<b"),
        ("#content-2", "Content"),
        ("#section", "🎉"),
        ("#from-output", "From output"),
    ]
    assert [page.find(id=href[1:]).get_text() for href, _ in links] == [text for _, text in links]


def test_no_level_of_headings_is_left_out():
    page = render(markdown("#### Deep at once\n\n# Top\n\n#### Deep again\n\n###### Deeper\n\n## Back"))
    levels = [(tag.name, tag.get_text()) for tag in page.find_all(["h1", "h2", "h3", "h4", "h5", "h6"])]
    assert levels == [
        ("h1", "T"),
        ("h2", "Deep at once"),
        ("h2", "Top"),
        ("h3", "Deep again"),
        ("h4", "Deeper"),
        ("h2", "Back"),
    ]


def test_code_is_shown_where_the_cell_asks_and_without_its_options():
    page = render(shows(source="#| echo: true\nif a < b:"), shows(source="hidden()"))
    assert [code.get_text() for code in page.find_all("pre")] == ["if a < b:"]


def test_tables_are_real_tables_with_a_caption_that_names_them_and_numbers_to_the_right():
    page = render(shows({"text/markdown": table([{"a|": "x", "n": 3}], caption='Rows & "more"')}))
    assert str(page.find(class_="table")).replace("\n", "") == (
        '<div aria-label=\'Rows &amp; "more"\' class="table" role="group" tabindex="0">'
        '<table><caption>Rows &amp; "more"</caption><thead><tr>'
        '<th class="left" scope="col">a|</th><th class="right" scope="col">n</th></tr></thead>'
        '<tbody><tr><td class="left">x</td><td class="right">3</td></tr></tbody></table></div>'
    )


def test_a_table_without_caption_or_header_has_a_name_as_well():
    page = render(shows({"text/markdown": value_list({"Rows": 3})}))
    assert page.find(class_="table")["aria-label"] == "Table"
    assert page.find(["thead", "caption"]) is None


@pytest.mark.parametrize("kind", ["note", "tip", "important", "warning", "caution"])
def test_callouts_are_boxes(kind):
    (box,) = render(shows({"text/markdown": callout("Look *out*", kind)})).find_all(class_="callout")
    assert (box["class"], box["role"]) == (["callout", kind], "note")
    assert box.get_text(" ", strip=True) == f"{kind.capitalize()} Look *out*"


def test_no_other_html_than_callouts_is_passed_on():
    source = f'</div></div>\n\n{callout("x")}\n\n<div class="x">\n\n</div>\n\na <b>b</b><br>c <!-- d --> <script>'
    body = render(markdown(source)).find(class_="body")
    assert {tag.name for tag in body.find_all()} == {"div", "p", "strong"}
    assert [tag["class"] for tag in body.find_all("div")] == [["callout", "warning"]]
    assert body.parent.name == "main"


def show(source: str) -> list[str]:
    """The text of a page and the elements around it, in the order of the page."""
    body = render(markdown(f"Before.\n\n{source}\n\nAfter.")).find(class_="body")
    marked = [*body.find_all(class_="callout"), *body.find_all("pre")]
    return [" ".join([*each.get("class", []), each.get_text(" ", strip=True)]) for each in (body, *marked)]


@pytest.mark.parametrize("kind", ["note", "tip", "important", "warning", "caution"])
def test_callouts_of_quarto_are_boxes_as_well(kind):
    assert show(f"::: {{.callout-{kind}}}\nLook *out*\n:::") == [
        f"body Before. {kind.capitalize()} Look out After.",
        f"callout {kind} {kind.capitalize()} Look out",
    ]


@pytest.mark.parametrize(
    ("source", "box"),
    [
        ("::: {.callout-tip}\n\n## A *title*\n\nText\n\n:::", "tip A title Text"),
        ('::: {#tip-x .callout-tip collapse="true" title="A title"}\n## Kept\nText\n:::', "tip A title Kept Text"),
        ("::::: {.callout-tip title='It \"is\"'} :::::\nText\n:::::::", 'tip It "is" Text'),
        ("::: callout-tip\nText\n:::", "tip Tip Text"),
        ("::: {.callout-tip}\n:::", "tip Tip"),
        ("::: {.callout-tip}\n<b>$x$</b>\n:::", "tip Tip <b>$x$</b>"),
    ],
)
def test_a_callout_of_quarto_has_its_title(source, box):
    assert show(source) == [f"body Before. {box.partition(' ')[2]} After.", f"callout {box}"]


def test_of_other_divs_of_quarto_the_content_is_shown():
    columns = ":::: {.columns}\n::: {.column width='50%'}\nLeft\n:::\n::: column\nRight\n:::\n::::"
    assert show(columns) == ["body Before. Left Right After."]
    assert show("::: {.callout-other}\nText\n:::") == ["body Before. Text After."]


def test_callouts_stand_in_divs_and_in_each_other():
    inner = "::: {.callout-tip}\nInner\n:::"
    assert show(f"::: {{.x}}\n{inner}\n:::") == ["body Before. Tip Inner After.", "callout tip Tip Inner"]
    assert show(f":::: {{.callout-note}}\nOuter\n\n{inner}\n\nEnd\n::::") == [
        "body Before. Note Outer Tip Inner End After.",
        "callout note Note Outer Tip Inner End",
        "callout tip Tip Inner",
    ]
    assert show(f"::: {{.callout-note}}\n{callout('Ours', 'tip')}\n:::")[1:] == [
        "callout note Note Tip Ours",
        "callout tip Tip Ours",
    ]


@pytest.mark.parametrize("text", ["::: {.callout-tip}\nunclosed", ":::\nstray", "text ::: {.x} text", "a `:::` b"])
def test_colons_that_make_no_div_stay_as_they_are(text):
    assert show(text) == [f"body Before. {text.replace('`:::`', ':::')} After."]


def test_what_looks_like_a_div_in_code_stays_code():
    code = "::: {.callout-tip}\nText\n:::"
    assert show(f"```\n{code}\n```") == [f"body Before. {code} After.", code]


def test_a_data_value_makes_no_box():
    value = escape("::: {.callout-tip}")
    source = f"{value}\n\nText\n\n{escape(':::')}"
    assert show(source) == ["body Before. ::: {.callout-tip} Text ::: After."]
    assert render(shows({"text/markdown": source})).find(class_="callout") is None


def test_the_caption_that_a_cell_asks_for_is_that_of_its_table():
    rows = {"text/markdown": str(value_list({"a": 1}))}
    page = render(shows(rows, source="#| tbl-cap: Rows of *all*\nshow()"))
    assert page.caption.decode_contents() == "Rows of <em>all</em>"
    assert page.find(class_="table")["aria-label"] == "Rows of all"


def test_the_bar_marks_this_page_by_its_file_and_not_by_a_title_that_two_have():
    bar = render(title="Data", name="docs/data-2", links=(("Data", "data.html"), ("Data", "data-2.html")))
    assert [a["href"] for a in bar.find_all(attrs={"aria-current": "page"})] == ["data-2.html"]


def test_figures_are_numbered_in_the_order_of_the_page_and_have_caption_and_alternative_text():
    page = render(
        draws("label: fig-one", "fig-cap: Rows by *class*", "fig-alt: Four bars"),
        draws("fig-cap: Only a caption"),
        draws("label: fig-two"),
        draws("label: two", "fig-alt: No name of a figure"),
    )
    figures = [(each.get("id"), each.img["alt"], each.figcaption) for each in page.find_all("figure")]
    assert [(name, alt, caption and caption.decode_contents()) for name, alt, caption in figures] == [
        ("fig-one", "Four bars", "Figure 1: Rows by <em>class</em>"),
        (None, "Only a caption", "Only a caption"),
        ("fig-two", "Figure", "Figure 2"),
        (None, "No name of a figure", None),
    ]


def test_a_caption_belongs_to_the_first_figure_of_a_cell_and_a_list_to_one_each():
    page = render(
        draws("label: fig-a", "fig-cap: First", "fig-alt: 1", svgs=2),
        draws("label: fig-b", "fig-cap: [Left, Right]", "fig-alt: [l, r]", svgs=2),
        draws("label: fig-c", "fig-cap: [More, than, there are]"),
    )
    assert [(each.get("id"), each.img["alt"], each.get_text()) for each in page.find_all("figure")] == [
        ("fig-a", "1", "Figure 1: First"),
        (None, "Figure", ""),
        ("fig-b", "l", "Figure 2: Left"),
        ("fig-b-2", "r", "Figure 3: Right"),
        ("fig-c", "More", "Figure 4: More"),
    ]


def test_prose_refers_to_figures_before_and_after_it_and_what_is_unknown_stays_text():
    prose = "See @fig-b, [@fig-a] (or @fig-a.) but not @fig-c, `@fig-a`, \\@fig-a, me@fig-a, [in @fig-a](#x)."
    page = render(draws("label: fig-a"), markdown(prose), draws("label: fig-b", "fig-cap: Like @fig-a"))
    assert page.find(class_="body").p.decode_contents() == (
        'See <a href="#fig-b">Figure 2</a>, <a href="#fig-a">Figure 1</a> (or <a href="#fig-a">Figure 1</a>.) '
        'but not @fig-c, <code>@fig-a</code>, @fig-a, me@fig-a, <a href="#x">in @fig-a</a>.'
    )
    assert page.find(id="fig-b").figcaption.a["href"] == "#fig-a"


def test_a_figure_that_the_library_makes_has_its_caption_and_alternative_text():
    cell = figure(SVG, caption=escape("F1 of *all* | @fig-a"), alt=escape("A line"))
    page = BeautifulSoup(render_webpage(Page("index", v4.new_notebook(cells=[cell]), "Models")), "html.parser")
    assert (page.figcaption.string, page.img["alt"]) == ("F1 of *all* | @fig-a", "A line")


def test_a_data_value_that_looks_like_a_reference_stays_text():
    value = escape("@fig-a")
    page = render(
        draws("label: fig-a"),
        markdown(f"Row {value}\n\n{callout(value)}"),
        shows({"text/markdown": table([{"x": "@fig-a"}], caption="@fig-a")}, {"text/plain": "@fig-a"}),
        shows({"text/markdown": "An output is not prose: @fig-a"}),
        draws(*describes(value)),
        lead=f"{value} and @fig-a",
    )
    assert page.main.find_all("a") == []
    assert page.main.get_text().count("@fig-a") == 9
    assert page.find_all("img")[1]["alt"] == "@fig-a"


def test_pictures_are_in_the_page_and_svg_cannot_run():
    page = render(shows({"image/svg+xml": EVIL_SVG}, {"image/png": png()}))
    assert [img["src"].partition(",")[0] for img in page.find_all("img")] == [
        "data:image/svg+xml;base64",
        "data:image/png;base64",
    ]
    assert base64.b64decode(page.img["src"].partition(",")[2]).decode() == EVIL_SVG
    assert page.find(["svg", "script"]) is None


def test_a_picture_that_is_not_base64_adds_no_markup():
    page = render(shows({"image/png": '"><script>pwned=1</script>'}))
    assert [tag.name for tag in page.find(class_="body").find_all()] == ["figure", "img"]


def test_pictures_from_elsewhere_are_only_named():
    page = render(markdown("![far](https://evil.example/b.png) ![](../secret.png)"), lead="![](//evil.example/c.png)")
    assert text_of(page) == "[far: https://evil.example/b.png] [image: ../secret.png]"
    assert page.find("img") is None


def test_links_of_authors_work_and_run_no_script():
    bad = ["javascript:pwned=1", "JaVa&#10;Script:pwned=1", "data:text/html,x", "vbscript:x", "file:///etc/passwd"]
    good = ["https://example.org", "docstrings/model-card.html", "../index.html#top", "#x", "mailto:a@example.org"]
    links = " ".join(f"[a](<{address}>)" for address in [*good, *bad])
    page = render(markdown(links), lead="[in the lead](javascript:pwned=1)")
    assert [a["href"] for a in page.main.find_all("a")] == ["#harmful-link", *good, *["#harmful-link"] * len(bad)]


def test_hostile_values_are_text_wherever_they_stand():
    value = escape(HOSTILE)
    cells = [
        markdown(f"## {value}\n\n{value}"),
        shows({"text/markdown": table([{HOSTILE: HOSTILE}], caption=HOSTILE)}, {"text/plain": HOSTILE}),
        draws(*describes(value)),
    ]
    said = dict.fromkeys(("subtitle", "subject", "made", "source", "banner"), HOSTILE)
    page = render(*cells, title=HOSTILE, lead=value, links=((HOSTILE, HOSTILE),), **said)
    body = page.find(class_="body")
    spots = [page.h1, *page.find_all(class_=["subtitle", "subject", "banner"]), page.find(class_="site").li.a]
    spots += [page.find(class_="lead").p, body.h2, body.p, page.caption, page.th, page.td, page.pre, page.figcaption]
    assert [spot.get_text() for spot in spots] == [HOSTILE] * 13
    assert page.title.string == f"{HOSTILE} · {HOSTILE}"
    assert page.find(class_="made").string == f"Finished {HOSTILE} UTC"
    assert [page.find(class_="site").li.a["href"], page.find(class_="table")["aria-label"], page.img["alt"]] == [
        HOSTILE
    ] * 3
    assert (page.find("script"), len(page.find_all("img"))) == (None, 1)


def test_hostile_cell_options_are_text_as_well():
    asked = [f"label: 'fig-{chr(34)}><script>'", "fig-cap: '<script>pwned=1</script> \" >'", "fig-alt: '\"><script>'"]
    page = render(draws(*asked), draws("label: [1]", "fig-cap: {a: 1}", "fig-alt: 7"), draws("fig-cap: null"))
    assert [(each.get("id"), each.img["alt"], each.get_text()) for each in page.find_all("figure")] == [
        ('fig-"><script>', '"><script>', 'Figure 1: <script>pwned=1</script> " >'),
        (None, "7", "{'a': 1}"),
        (None, "Figure", ""),
    ]
    assert page.find("script") is None


def test_raw_markup_in_markdown_is_text_as_well():
    page = render(markdown("<script>pwned=1</script>\n\nin <script>pwned=1</script>\n\n```\n</pre><script>\n```"))
    assert text_of(page) == "<script>pwned=1</script> in <script>pwned=1</script> </pre><script>"


def test_the_page_forbids_scripts_and_all_loading():
    assert render().find("meta", {"http-equiv": "Content-Security-Policy"})["content"] == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def test_eight_pages_rendered_at_once_are_those_rendered_one_by_one():
    pages = [a_page(markdown(f"## {n}\n\n@fig-x"), draws("label: fig-x"), title=str(n)) for n in range(8)]
    before = [nbformat.writes(page.notebook) for page in pages]
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(render_webpage, pages))
    assert at_once == [render_webpage(page) for page in pages]
    assert len(set(at_once)) == 8
    assert [nbformat.writes(page.notebook) for page in pages] == before


def test_importing_it_does_not_import_nbconvert():
    check = "import sys, pinmill.webpage; sys.exit('nbconvert' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory):
    """The address of a page that holds all that a page can hold, most of it hostile."""
    value, wide = escape(HOSTILE), [{f"column {n}": "unbreakable" * 3 for n in range(8)}]
    kinds = ("note", "tip", "important", "warning", "caution")
    cells = [
        markdown(f"## One\n\n## Two\n\n#### Three\n\n<script>pwned=1</script>\n\n{value} `{'code' * 60}`\n\n> said"),
        markdown("![far](https://evil.example/b.png)\n\n<iframe src='https://evil.example'></iframe>\n\nSee @fig-x."),
        shows({"image/svg+xml": EVIL_SVG}, {"image/png": png()}, {"text/html": "<script>pwned=1</script>"}),
        draws(*describes(value)),
        draws("label: fig-x", f"fig-cap: '{'caption ' * 40} [link](https://example.org)'"),
        *[
            shows({"text/markdown": callout(Markdown("See [this](https://example.org) `code`"), kind)})
            for kind in kinds
        ],
        shows({"text/markdown": table(wide, caption=HOSTILE)}, {"text/plain": HOSTILE + "x" * 500}),
        shows({"text/markdown": value_list({"Key": "v" * 64, "Other": 1})}),
        shows({"text/markdown": "Term\n: Meaning\n\n1. One\n2. Two"}, source=f"#| echo: true\n{'long = code; ' * 60}"),
    ]
    said = {"subject": HOSTILE, "subtitle": HOSTILE, "made": "2026-11-20 12:46", "source": "x.ipynb"}
    links = (*LINKS, (HOSTILE, "hostile.html"), *((f"Page {n}", f"{n}.html") for n in range(9)))
    page = a_page(*cells, title=HOSTILE, banner="word" * 60, lead=f"{value} [why](#one)", links=links, **said)
    path = tmp_path_factory.mktemp("pages") / "page.html"
    path.write_bytes(render_webpage(page))
    return path.as_uri()


def find_violations(page) -> list[str]:
    """What axe-core holds against the page, as it is seen now."""
    options = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}  # the latter is WCAG 2.2
    found = Axe().run(page, options=options).response["violations"]
    return [f"{each['id']} ({each['impact']}): {node['html']}" for each in found for node in each["nodes"]]


@pytest.mark.browser
def test_in_a_browser_the_page_loads_nothing_runs_nothing_and_complains_of_nothing(visit, hostile_page):
    page, events = visit(hostile_page)
    assert events == [hostile_page]
    assert page.evaluate("typeof pwned") == "undefined"
    assert (page.title(), page.locator("h1").inner_text()) == (f"{HOSTILE} · {HOSTILE}", HOSTILE)
    assert page.evaluate("[...document.images].map(i => i.naturalWidth)") == [1200, 1, 600, 600]


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_axe_finds_nothing_wrong(visit, hostile_page, scheme, width):
    page, _ = visit(hostile_page, color_scheme=scheme, viewport={"width": width, "height": 844})
    if width == 390:
        page.locator("summary").click()
    assert find_violations(page) == []
    page.evaluate("document.images[0].removeAttribute('alt')")
    assert [found.partition(":")[0] for found in find_violations(page)] == ["image-alt (critical)"]


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_in_a_browser_the_page_never_scrolls_sideways(visit, hostile_page, width):
    page, _ = visit(hostile_page, viewport={"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    kept = "e => !e.closest('table > :not(caption), .skip') && e.tagName != 'TABLE'"  # a table scrolls, not its caption
    beyond = f"{kept} && e.getBoundingClientRect().right > innerWidth"
    assert page.evaluate(f"[...document.body.querySelectorAll('*')].filter({beyond}).map(e => e.outerHTML)") == []


@pytest.mark.browser
@pytest.mark.parametrize(("width", "shown"), [(1280, ("nav", "details")), (390, ("details", "nav"))])
def test_in_a_browser_contents_are_a_sidebar_on_a_wide_screen_and_fold_on_a_phone(visit, hostile_page, width, shown):
    page, _ = visit(hostile_page, viewport={"width": width, "height": 844})
    assert [page.locator(f"{name}.contents").is_visible() for name in shown] == [True, False]


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_all_links_for_navigation_can_be_hit_with_a_finger(visit, hostile_page, width):
    page, _ = visit(hostile_page, viewport={"width": width, "height": 844}, has_touch=True)
    if width == 390:
        page.locator("summary").click()
    boxes = [link.bounding_box() for link in page.locator(".site a, .contents a, summary").all() if link.is_visible()]
    assert len(boxes) > 16
    assert min(min(box["width"], box["height"]) for box in boxes) >= 24  # WCAG 2.2, 2.5.8


@pytest.mark.browser
def test_in_a_browser_contents_and_references_lead_to_their_place(visit, hostile_page):
    page, _ = visit(hostile_page)
    for link, place in ((".side a[href='#two']", "#two"), ("main a[href='#fig-x']", "#fig-x")):
        page.locator(link).click()
        page.wait_for_function(f"document.querySelector(':target')?.matches('{place}')")
        page.locator(place).wait_for()
    assert page.locator("#fig-x figcaption").inner_text().startswith("Figure 1: caption")


@pytest.mark.browser
def test_in_print_the_page_is_black_on_white_without_navigation_and_with_whole_tables(visit, hostile_page):
    page, _ = visit(hostile_page, color_scheme="dark", viewport={"width": 673, "height": 986})  # A4, margins
    assert page.evaluate("getComputedStyle(document.body).color") != "rgb(0, 0, 0)"
    page.emulate_media(media="print")
    assert [page.locator(part).is_visible() for part in (".site", ".side", "details", "h1")] == [False] * 3 + [True]
    style = page.evaluate("(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))")
    assert style == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]
    assert page.evaluate("[...document.images].map(i => getComputedStyle(i).filter)") == ["none"] * 4
    rights = "[...document.querySelectorAll('table')].map(t => t.getBoundingClientRect().right)"
    assert max(page.evaluate(rights)) <= 673
    assert page.evaluate("getComputedStyle(document.querySelector('.body a'), '::after').content") in ("none", "normal")
