"""Quarto is given clean copies and nothing else; whatever it does then, what comes back is whole pages or one error."""

import base64
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from nbformat import v4
from pinmill import quarto
from pinmill.errors import ReportError
from pinmill.markdown import callout, escape, join, table
from pinmill.page import Page, clean_cell, figure
from pinmill.quarto import copy_page, disarm, disarm_prose, find_quarto, make_safe, render_quarto
from playwright.sync_api import sync_playwright
from waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "reports"
HOSTILE = [
    "{{< env HOME >}}",
    "{{< include ../x >}}",
    "{{{< env HOME >}}} {{</* x */>}}",
    "::: {.callout-tip}",
    "<script>pwned=1</script><img src=x onerror=pwned=1>",
    "$x$ and \\(y\\) and $$z$$",
    "a | b || c",
    "@fig-x and [@fig-y]",
    "`code` ``` and ~~no~~ H~2~O x^2^",
    "🎉 \"quoted\" 'single' -- --- ... :smile:",
    "a: b # c",
    "---",
    "# no heading",
    "1. no list",
    "<!-- gone? --> &amp; &lt; © &#123;",
    "[text](https://evil.example) <https://evil.example> www.evil.example",
    "*a* **b** _c_ \\ \\n %x% ={.cls} ^[note] [^1]",
]
TITLE = f'"A": <b>{HOSTILE[0]}</b> 🎉 #1 @fig-x'
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="300" height="60"><rect width="300" height="60"/></svg>'
PNG = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
        "3a7e9b550000000a49444154789c63f80f00010101001bb6ee560000000049454e44ae426082"
    )
).decode()
DOCUMENTED = {  # the keys that Quarto's schema or guide names, so that a misspelt one is not passed over in silence
    "project": {"type", "output-dir"},
    "website": {"title", "page-navigation", "search", "navbar"},
    "website.search": {"location", "type"},
    "website.navbar": {"title", "left"},
    "lang": set(),
    "date-format": set(),
    "published-title": set(),
    "execute": {"enabled", "echo"},
    "format": {"html"},
    "format.html": {
        "theme", "respect-user-color-scheme", "embed-resources", "html-math-method", "toc", "toc-depth", "toc-title",
        "anchor-sections", "code-copy", "fig-cap-location", "tbl-cap-location",
    },
    "format.html.theme": {"light", "dark"},
}  # fmt: skip


def shows(*bundles: dict[str, str], source: str = "", **options: object) -> nbformat.NotebookNode:
    outputs = [v4.new_output("display_data", data=data) for data in bundles]
    return v4.new_code_cell(source, outputs=outputs, metadata={"options": options})


def make_page(name: str = "tiny/data", *cells: nbformat.NotebookNode, title: str = "Data", **around: object) -> Page:
    return Page(name=name, notebook=v4.new_notebook(cells=list(cells)), title=title, **around)


def hostile_page(name: str = "tiny/data") -> Page:
    """A page with the hostile texts in every place that a text can have."""
    everything = "\n".join(HOSTILE)
    pipe = table([{HOSTILE[6]: text, "n": 1} for text in HOSTILE], caption=HOSTILE[0])
    svg = figure(SVG, caption=f"Sizes {escape(HOSTILE[0])} {escape(HOSTILE[4])}", alt=HOSTILE[4] + HOSTILE[9])
    svg.metadata.options["label"] = "fig-sizes"
    cells = [
        v4.new_markdown_cell("## Rows\n\nAll are in @fig-sizes."),
        svg,
        shows({"image/png": PNG}),
        shows({"text/markdown": join(pipe, callout(everything, "note", title=HOSTILE[0]))}),
        shows({"text/plain": f"{everything}\n\n    indented\n\n# end"}, source=f"show({HOSTILE[:2]!r})"),
    ]
    links = ((HOSTILE[0], "data.html"), (HOSTILE[4], "training.html"))
    around = {"subtitle": HOSTILE[4], "subject": HOSTILE[0], "banner": everything, "lead": escape(everything)}
    return make_page(name, *cells, title=TITLE, made="2026-11-20 12:46", links=links, **around)


def text_of(element: object) -> str:
    """What a reader sees, in one line."""
    return " ".join(element.get_text().split())


def in_one_line(*texts: str) -> str:
    return " ".join(" ".join(texts).split())


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.quarto)])
def program(request: pytest.FixtureRequest, stand_in: Path) -> Path:
    """The stand-in, and the real Quarto where it is."""
    if request.param == "stand-in":
        return stand_in
    return request.getfixturevalue("real_quarto")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place for temporary folders, so that one that stays is found."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A copy of the website's sources, to be changed."""
    return Path(shutil.copytree(SITE, tmp_path / "reports", ignore=shutil.ignore_patterns("_pages", "_site")))


def render(program: Path, *pages: Page, site: Path = SITE, **options: object) -> dict[str, bytes]:
    return render_quarto(pages, program=program, site=site, environ=os.environ, **options)


def soup(rendered: dict[str, bytes], name: str) -> BeautifulSoup:
    return BeautifulSoup(rendered[name].decode(), "html.parser")


def test_every_hostile_value_is_text_wherever_it_stands(program):
    page = soup(render(program, hostile_page()), "tiny/data")
    everything = in_one_line(*HOSTILE)
    assert text_of(page.select_one("h1.title")) == in_one_line(f"{TITLE} · {HOSTILE[0]}")
    assert text_of(page.select_one("p.subtitle")) == in_one_line(HOSTILE[4])
    assert in_one_line(f"{TITLE} · {HOSTILE[0]}") in text_of(page.title)
    assert text_of(page.select_one(".lead")) == everything
    assert everything in text_of(page.select_one(".callout-important"))
    assert in_one_line(HOSTILE[0], everything) in text_of(page.select_one(".callout-note"))
    assert [text_of(link) for link in page.select(".pages > p > *")] == [in_one_line(t) for t in HOSTILE[0:5:4]]
    assert text_of(page.select_one("table th")) == HOSTILE[6]
    rows = [text_of(row.td) for row in page.select("table tbody tr")]
    assert rows == [in_one_line(text) for text in HOSTILE]
    assert text_of(page.select_one("table caption")).endswith(HOSTILE[0])
    assert page.select_one("pre.plain").get_text() == "\n".join([*HOSTILE, "", "    indented", "", "# end"])
    assert text_of(page.select_one("pre code")) == f"show({HOSTILE[:2]!r})".replace("{{<", "{{\u200b<")
    assert HOSTILE[4] in text_of(page.figcaption)
    assert HOSTILE[0] in text_of(page.figcaption)
    assert page.select_one("img[alt*='pwned']")["alt"] == in_one_line(HOSTILE[4] + HOSTILE[9])
    assert not [script for script in page.select("main script, main style") if "pwned" in script.get_text()]
    assert not page.select("[onerror]")
    assert "OBEYED" not in str(page)
    assert os.environ["HOME"] not in text_of(page.body)


def test_a_copy_that_is_not_disarmed_would_be_obeyed(stand_in, monkeypatch):
    """Without this, the test above could not fail."""
    monkeypatch.setattr(quarto, "disarm", str)
    rendered = render(stand_in, make_page("p", v4.new_markdown_cell("Home is {{< env HOME >}}.")))
    assert "OBEYED(env HOME)" in text_of(soup(rendered, "p"))


def test_no_copy_holds_a_shortcode_or_html_of_the_data():
    written = nbformat.writes(copy_page(hostile_page()))
    assert re.findall(r"\{\{+<|<script|<img|onerror=pwned=1>", written) == []


def test_a_copy_is_a_valid_notebook_and_the_same_each_time():
    copies = [copy_page(hostile_page()) for _ in range(2)]
    nbformat.validate(copies[0])
    assert copies[0] == copies[1]
    assert copies[0].metadata == {
        "kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"},
        "language_info": {"name": "python"},
    }


@pytest.mark.parametrize("title", ["42", "1e3", "true", "null", "2026-11-20", "- x", "a: b", "'", '"', "~", "=", "\\"])
def test_front_matter_is_yaml_whose_title_is_a_text(title):
    first = copy_page(make_page(title=title, subject="A: 'b'", subtitle=title)).cells[0]
    assert (first.cell_type, first.source.splitlines()[0], first.source.splitlines()[-1]) == ("raw", "---", "---")
    assert yaml.safe_load(first.source.strip("-")) == {
        "title": escape(f"{title} · A: 'b'"),
        "subtitle": str(escape(title)),
        "lang": "en",
        "execute": {"enabled": False, "echo": False},
    }


@pytest.mark.parametrize(("made", "date"), [("2026-11-20 12:46", "2026-11-20"), ("{{< env X >}}", None), ("", None)])
def test_only_a_date_is_a_date(made, date):
    assert yaml.safe_load(copy_page(make_page(made=made)).cells[0].source.strip("-")).get("date") == date


def test_a_copy_begins_with_banner_lead_and_links():
    cells = [v4.new_markdown_cell("Where it is from."), v4.new_code_cell("")]
    links = (("Data", "data.html"), ("Training", "training.html"))
    around = {"banner": "Rejected", "lead": "**5** rows.", "links": links}
    assert [cell.source for cell in copy_page(make_page("w/run/data", *cells, **around)).cells[1:]] == [
        '::: {.callout-important appearance="simple"}\nRejected\n:::',
        "::: {.lead}\n**5** rows.\n:::",
        "::: {.pages}\n**Data** · [Training](<training.html>)\n:::",
        "Where it is from.",
    ]


def test_code_cells_keep_the_options_of_figures_and_their_code_only_where_it_is_shown():
    executed = v4.new_code_cell(
        "#| label: fig-a\n#| fig-cap: 'A *new* \"one\"'\n#| fig-alt: 'up: 3 [m]'\n#| warning: true\nplot()",
        outputs=[v4.new_output("display_data", data={"image/svg+xml": SVG})],
    )
    sources = [
        copy_page(make_page("p", clean_cell(executed, "", {"echo": echo}))).cells[1].source for echo in (False, True)
    ]
    options = '#| label: "fig-a"\n#| fig-cap: "A *new* \\"one\\""\n#| fig-alt: "up&#58; 3 &#91;m&#93;"'
    assert sources == [options, f"{options}\n#| echo: true\nplot()"]


def test_options_that_quarto_would_stumble_over_or_obey_are_left_out_or_text():
    options = {"label": "tbl-x", "fig-cap": ["a\nb", "{{< env X >}} <b>"], "output": "asis"}
    cell = shows({"image/svg+xml": SVG}, **options)
    (line,) = copy_page(make_page("p", cell)).cells[1].source.splitlines()
    assert yaml.safe_load(line.removeprefix("#| ")) == {"fig-cap": ["a b", "&#123;&#123;&#60; env X >}} &#60;b>"]}


def test_a_cell_with_neither_output_nor_code_is_not_in_the_copy():
    assert len(copy_page(make_page("p", shows(label="fig-x"), v4.new_markdown_cell(""))).cells) == 1


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"text/markdown": "**A b**\n\n| x |\n| :-- |\n| 1 |\n\nNote."},
         {"text/markdown": "| x |\n| :-- |\n| 1 |\n\n: A b\n\nNote."}),
        ({"text/markdown": "**A**\n\n| x |\n| - |"}, {"text/markdown": "| x |\n| - |\n: A\n"}),
        ({"text/markdown": "**A**\n\nNo table."}, {"text/markdown": "**A**\n\nNo table."}),
        ({"text/plain": "\x1b[31ma\x1b[0m <b>\n\n\tx\x07"},
         {"text/markdown": '<pre class="plain">a &#60;b&#62;\n\n        x</pre>'}),
        ({"image/png": PNG}, {"image/png": PNG}),
    ],
)  # fmt: skip
def test_outputs_are_made_safe(written, read):
    assert make_safe(written) == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a {{< x >}}", "a &#123;&#123;&#60; x >}}"),
        ("<b>x</b> <!-- y -->", "&#60;b>x&#60;/b> &#60;!-- y -->"),
        ('<div onclick="x">', '&#60;div onclick="x">'),
        ("1 < 2 and <https://x.example>", "1 < 2 and <https://x.example>"),
        ("a `<b>`", "a `&#60;b>`"),
        ("![a *b*](https://x.example/y.png)!", "*&#91;a *b*: https&#58;//x&#46;example/y&#46;png&#93;*!"),
        ('![](<../x y.png> "t"){width=9}.', "*&#91;image: &#46;./x&#93;*."),
        (
            "![a](data:image/png;base64,AA==) ![a](<data:x>)",
            "![a](data:image/png;base64,AA==) *&#91;a: data&#58;x&#93;*",
        ),
        ("![a][b] ![c] ![d](e(f)g)", "&#33;[a][b] &#33;[c] &#33;[d](e(f)g)"),
        ("\\![a](https://x.example)", "\\![a](https://x.example)"),
        ("\\\\![a](x)", "\\\\*&#91;a: x&#93;*"),
        (str(callout("x", "tip")), str(callout("x", "tip"))),
    ],
)
def test_only_shortcodes_html_and_pictures_from_elsewhere_are_disarmed(written, read):
    assert disarm(written) == read


PROSE = """\
`{{< env HOME >}}` and ``a ` <b>`` and `<i>![a](https://x.example)</i>` but {{< env HOME >}} <u> \\` <s> `
![far](https://x.example/y.png) ![](../y.png) ![ref][ref] ![near](data:image/gif;base64,R0lGODlhAQABAAAAACw=)

```html
<p>{{< env HOME >}} ![a](https://x.example)

</p>
```

~~~ {.python filename="a"}
if a <b:
~~~

`<q>`{=html} <h1> `c`

```{=html}
<script>1</script>

<script>2</script>
```

``` two words
<script>3</script>

<script>4</script>
```

[ref]: https://x.example/ref.png
"""


def test_prose_is_shown_as_it_is_typed_in_code_as_well_and_nothing_of_it_is_obeyed(program):
    """Pandoc reads it, so that what is taken for code here is code there."""
    page = soup(render(program, make_page("p", v4.new_markdown_cell(PROSE))), "p")
    shown = [code.get_text().replace("\u200b", "") for code in page.select("p code, li code")][:3]
    assert shown == ["{{< env HOME >}}", "a ` <b>", "<i>![a](https://x.example)</i>"]
    blocks = [code.get_text().replace("\u200b", "").rstrip("\n") for code in page.select("pre code")]
    assert blocks[:2] == ["<p>{{< env HOME >}} ![a](https://x.example)\n\n</p>", "if a <b:"]
    text = text_of(page.main or page.body)
    for typed in (
        "but {{< env HOME >}} <u> ` <s> `",
        "[far: https://x.example/y.png] [image: ../y.png] !ref",
        "<h1> c",
    ):
        assert typed in text
    scripts = {"1", "2", "3", "4"}
    assert {number for number in scripts if f"<script>{number}</script>" in text} == scripts
    assert [script for script in page.select("script") if script.get_text() in scripts] == []
    assert page.select("p u, p s, p q") == []
    images = [image["src"] for image in page.select("p img, figure img")]
    assert [address.partition(",")[0] for address in images] == ["data:image/gif;base64"]
    assert "OBEYED" not in str(page)


def test_prose_without_code_is_disarmed_like_everything_else():
    assert disarm_prose("<b> {{< x >}} ![a](y)") == disarm("<b> {{< x >}} ![a](y)")


def test_pages_of_all_folders_come_back_by_name_with_links_that_lead_to_each_other(program):
    names = ["index", "tiny/data", "tiny/training", "tiny/20261120T124616Z-065896-910f/data"]
    links = (("Data", "data.html"), ("Training", "training.html"))
    rendered = render(program, *(make_page(name, v4.new_markdown_cell(f"Of {name}."), links=links) for name in names))
    assert sorted(rendered) == sorted([*names, "search.json"])
    assert [name for name in names if f"Of {name}." not in text_of(soup(rendered, name))] == []
    hrefs = [[link["href"] for link in soup(rendered, name).select(".pages a")] for name in names[1:3]]
    assert [[Path(href).name for href in of] for of in hrefs] == [["training.html"], ["data.html"]]
    assert {entry["href"].partition("#")[0] for entry in json.loads(rendered["search.json"])} == {
        f"{name}.html" for name in names
    }


@pytest.mark.quarto
@pytest.mark.parametrize("names", [["index", "tiny/data", "tiny/20261120T124616Z-065896-910f/data"], ["tiny/data"]])
def test_the_real_quarto_s_navbar_leads_to_the_index_whether_it_is_among_the_pages_or_not(real_quarto, names):
    rendered, homes = render(real_quarto, *map(make_page, names)), {}
    for name in names:
        (overview,) = [link for link in soup(rendered, name).select("a.nav-link") if text_of(link) == "Overview"]
        homes[name] = os.path.normpath(overview["href"])
    assert homes == {name: "../" * name.count("/") + "index.html" for name in names}


def test_figures_are_in_the_page_with_their_captions_and_a_page_loads_nothing(program):
    rendered = render(program, hostile_page())
    page = soup(rendered, "tiny/data")
    kinds = [re.match(r"data:(image/[\w+]+)", image["src"])[1] for image in page.select("img")]
    assert sorted(kinds) == ["image/png", "image/svg+xml"]
    assert "Sizes" in text_of(page.figcaption)
    loaded = [e.get("src") or e.get("href") for e in page.select("script[src], link[href], img[src], iframe[src]")]
    assert [address for address in loaded if not address.startswith("data:")] == []
    assert len(rendered["tiny/data"]) < 5_000_000


def test_eight_renders_at_once_give_eight_good_pages_each(program, temporary):
    def one(number: int) -> dict[str, str]:
        pages = [make_page(f"w{number}/p{n}", v4.new_markdown_cell(f"Page {number}-{n}.")) for n in range(8)]
        rendered = render(program, *pages, timeout=600)
        return {page.name: text_of(soup(rendered, page.name)) for page in pages}

    with ThreadPoolExecutor(8) as pool:
        every = {name: text for found in pool.map(one, range(8)) for name, text in found.items()}
    assert [name for name, text in every.items() if f"Page {name[1]}-{name[-1]}." not in text] == []
    assert (len(every), list(temporary.iterdir())) == (64, [])


def tell(site: Path, *words: str) -> Path:
    """Tell the stand-in how to fail."""
    (site / "stand-in.scss").write_text(" ".join(words))
    return site


def test_the_sources_are_copied_and_the_pages_are_taken_and_nothing_is_left(stand_in, site, temporary):
    before = sorted(site.iterdir())
    assert set(render(stand_in, make_page("index"), site=site)) == {"index", "search.json"}
    assert (list(temporary.iterdir()), sorted(site.iterdir())) == ([], before)


def test_what_quarto_said_is_told_without_colours_secrets_or_our_folder(stand_in, site, temporary):
    tell(site, "fail", "s3cret-value", "hunter2/x")
    settings = {**os.environ, "SHOP_TOKEN": "s3cret-value", "PINMILL_STORE": "postgresql://me:hunter2%2Fx@host/db"}
    with pytest.raises(ReportError) as error:
        render_quarto([make_page("w/a"), make_page("w/b")], program=stand_in, site=site, environ=settings)
    assert str(error.value) == (
        "Quarto ended with exit code 1. The pages were: w/a, w/b. It said:\n[1/2] w/a.ipynb\n[2/2] w/b.ipynb\n"
        "ERROR: YAMLError: bad indentation [secret] [secret] in index.ipynb\nRender with --engine nbconvert."
    )
    assert list(temporary.iterdir()) == []


def test_only_the_end_of_what_quarto_said_is_told(stand_in, site):
    tell(site, "fail", "word " * 2000)
    with pytest.raises(ReportError) as error:
        render(stand_in, make_page("index"), site=site)
    assert len(str(error.value)) < 1500
    assert "in index.ipynb\nRender with --engine nbconvert." in str(error.value)


@pytest.mark.parametrize(("how", "missing"), [(["forget", "w/b.html"], "w/b"), (["half"], "w/a, w/b")])
def test_a_page_that_quarto_did_not_write_whole_is_named(stand_in, site, temporary, how, missing):
    with pytest.raises(ReportError, match=rf"^Quarto did not write {missing}\. The pages were: w/a, w/b\."):
        render(stand_in, make_page("w/a"), make_page("w/b"), site=tell(site, *how))
    assert list(temporary.iterdir()) == []


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or only waits to be counted."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_after_the_timeout_everything_that_quarto_started_is_ended(stand_in, site, temporary, tmp_path):
    tell(site, "hang", str(tmp_path / "child"))
    with pytest.raises(ReportError, match=r"^Quarto was not done after 5 seconds\. The pages were: index\."):
        render(stand_in, make_page("index"), site=site, timeout=5)
    pid, folder = (tmp_path / "child").read_text().split()
    wait_until(lambda: has_ended(int(pid)))
    assert (Path(folder).exists(), list(temporary.iterdir())) == (False, [])


@pytest.mark.parametrize(("count", "seconds"), [(1, 80), (30, 660)])
def test_quarto_is_given_time_by_the_number_of_pages(monkeypatch, stand_in, count, seconds):
    given = []
    monkeypatch.setattr(quarto, "run_quarto", lambda *arguments: given.append(arguments[-1]) or ("", "stopped"))
    with pytest.raises(ReportError):
        render(stand_in, *(make_page(f"w/p{n}") for n in range(count)))
    assert given == [seconds]


def test_the_caption_that_a_cell_asks_for_is_that_of_its_table(program):
    rows = [v4.new_output("display_data", data={"text/markdown": str(table([{"x": 1}]))})]
    asks = v4.new_code_cell("#| tbl-cap: Rows of *all* {{< env HOME >}}\nshow()", outputs=rows)
    page = soup(render(program, make_page("p", clean_cell(asks, "", {}))), "p")
    assert text_of(page.select_one("table caption")).endswith("Rows of all {{< env HOME >}}")


def test_a_hidden_output_is_not_in_the_copy():
    rows = [v4.new_output("display_data", data={"text/plain": "SECRET"})]
    for option in ("output: false", "include: false"):
        cell = clean_cell(v4.new_code_cell(f"#| {option}\nshow()", outputs=rows), "", {})
        assert "SECRET" not in nbformat.writes(copy_page(make_page("p", cell)))


def test_without_the_sources_of_the_site_the_error_says_where_to_get_them(stand_in, tmp_path):
    with pytest.raises(
        ReportError, match=r"^no .*_quarto\.yml: restore it, or take it from a `pinmill new` project\. Render"
    ):
        render(stand_in, make_page("index"), site=tmp_path)


def test_a_program_that_cannot_be_run_is_an_error_with_a_way_out(tmp_path, temporary):
    (tmp_path / "quarto").write_text("#!/nowhere\n")
    (tmp_path / "quarto").chmod(0o755)
    with pytest.raises(ReportError, match=r"quarto cannot render: .* Render with --engine nbconvert\."):
        render(tmp_path / "quarto", make_page("index"))
    assert list(temporary.iterdir()) == []


def test_quarto_is_found_on_the_path_first_and_then_beside_python(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert find_quarto("") is None
    assert find_quarto(f"{tmp_path}:{stand_in.parent}") == stand_in
    shutil.copy(stand_in, tmp_path / "quarto")
    assert (find_quarto(""), find_quarto(str(stand_in.parent))) == (tmp_path / "quarto", stand_in)


def read_keys(mapping: dict, path: str = "") -> Iterator[tuple[str, set[str]]]:
    for key, value in mapping.items():
        name = f"{path}.{key}".lstrip(".")
        if isinstance(value, dict) or not path:
            yield name, set(value) if isinstance(value, dict) else set()
        if isinstance(value, dict):
            yield from read_keys(value, name)


def test_the_sites_configuration_has_only_keys_that_quarto_documents():
    config = yaml.safe_load((SITE / "_quarto.yml").read_text())
    assert dict(read_keys(config)) == DOCUMENTED
    assert config["execute"] == {"enabled": False, "echo": False}
    themes = config["format"]["html"]["theme"]
    assert themes == {"light": ["default", "pinmill.scss"], "dark": ["default", "pinmill.scss", "dark.scss"]}
    assert config["project"]["output-dir"] == quarto.OUTPUT


def read_colours(name: str) -> dict[str, str]:
    """The colours that a theme sets. Quarto reads only what stands below one of its comments."""
    text = (SITE / name).read_text()
    assert re.findall(r"^/\*-- scss:(\w+) --\*/$", text, re.MULTILINE) == ["defaults", "rules"]
    return dict(re.findall(r"^\$([\w-]+): (#\w{6})", text, re.MULTILINE))


def luminance(colour: str) -> float:
    """Source: WCAG 2.2, relative luminance."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("name", ["pinmill.scss", "dark.scss"])
def test_text_has_enough_contrast_in_both_themes(name):
    colours = read_colours(name)
    pairs = [(ink, paper) for paper in ("body-bg", "page-wash") for ink in ("body-color", "link-color", "page-soft")]
    pairs += [("navbar-fg", "navbar-bg"), ("navbar-hl", "navbar-bg")]
    pairs += [("toc-color", "body-bg"), ("code-color", "code-bg")]
    low = {}
    for ink, paper in pairs:
        dark, light = sorted((luminance(colours[ink]), luminance(colours[paper])))
        if (light + 0.05) / (dark + 0.05) < 4.5:  # WCAG 2.2, 1.4.3
            low[ink, paper] = (colours[ink], colours[paper])
    assert low == {}


def test_the_dark_theme_sets_each_colour_of_the_light_one_whatever_their_order():
    assert set(read_colours("dark.scss")) == set(read_colours("pinmill.scss"))
    assert "!default" not in (SITE / "dark.scss").read_text().partition("/*--")[2]
    assert luminance(read_colours("dark.scss")["body-bg"]) < 0.02
    light = re.findall(r"^\$.*$", (SITE / "pinmill.scss").read_text(), re.MULTILINE)
    assert [line for line in light if not line.endswith(" !default;")] == []


@pytest.mark.quarto
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser_a_real_page_loads_nothing_and_has_both_themes(real_quarto, chromium, tmp_path, scheme):
    rendered = render(real_quarto, hostile_page(), make_page("index"))
    for name in ("index", "tiny/data"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.html").write_bytes(rendered[name])
    address = (tmp_path / "tiny/data.html").as_uri()
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(offline=True, color_scheme=scheme).new_page()
        events: list[str] = []
        page.on("request", lambda request: events.append(request.url))
        page.on("console", lambda message: events.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: events.append(str(error)))
        page.goto(address, wait_until="networkidle")
        assert [event for event in events if not event.startswith("data:")] == [address]
        assert page.evaluate("typeof pwned") == "undefined"
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        papers = [page.evaluate("getComputedStyle(document.body).backgroundColor")]
        page.locator(".quarto-color-scheme-toggle").first.click()
        papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        both = ["rgb(255, 255, 255)", "rgb(20, 24, 30)"]
        assert papers == (both if scheme == "light" else both[::-1])
        page.get_by_role("link", name="Overview").click()
        assert page.url.partition("#")[0] == (tmp_path / "index.html").as_uri()
        browser.close()


@pytest.mark.quarto
def test_the_real_quarto_numbers_figures_and_resolves_references_to_them(real_quarto):
    page = soup(render(real_quarto, hostile_page()), "tiny/data")
    (link,) = page.select("a.quarto-xref")
    assert (text_of(link), link["href"]) == ("Figure 1", "#fig-sizes")
    assert text_of(page.figcaption).startswith("Figure 1: Sizes")
    assert "20 November 2026" in text_of(page.select_one(".quarto-title-meta"))
    assert "12:46 UTC" in text_of(page.select_one(".source"))
