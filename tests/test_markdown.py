"""Data values in Markdown are inert: whatever they say is shown as it is."""

import html
import subprocess
import sys
from datetime import UTC, date, datetime

import mistune
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from pinmill.markdown import Markdown, bullets, callout, code, escape, format_value, join, paragraphs, table, value_list

HOSTILE = [
    "{{< env HOME >}}",
    "{{< include ../.env >}}",
    "::: {.callout-note}",
    "<script>alert(1)</script>",
    "<!-- x --> <b>",
    "$x^2$ and $$y$$",
    "a | b || c",
    "`code` and ``more``",
    "*a* **b** _c_ __d__ ~~e~~ ~f~",
    "[text](https://evil.example) ![x](https://evil.example/x.png) [^1]",
    "https://evil.example www.evil.example me@evil.example",
    "# heading",
    "- item",
    "+ item",
    "12. item",
    "(a) item",
    "--- and -- and ...",
    "===",
    "> quote",
    ": definition",
    "\\(x\\) \\* \\",
    "&amp; &lt;b&gt; &#35;",
    "\"double\" and 'single'",
    "@citation [@key]",
    "~~~ fence",
    "``` fence",
    "emoji 🎉 and combined 👩\u200d👩\u200d👧 and é",
    "10:45 and 0.5 and -3",
]


def shown(markdown: str) -> BeautifulSoup:
    """What a reader sees, by mistune with everything on that could give a sign a meaning."""
    plugins = ["table", "strikethrough", "url", "def_list", "footnotes", "task_lists", "math", "superscript"]
    return BeautifulSoup(mistune.create_markdown(escape=False, plugins=plugins)(markdown), "html.parser")


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_is_shown_as_it_is_in_a_paragraph_and_in_a_table(value):
    page = shown(f"{escape(value)}\n\n{table([{value: value}])}")
    assert [spot.get_text() for spot in page.find_all(["p", "th", "td"])] == [value] * 3
    assert {tag.name for tag in page.find_all()} == {"p", "table", "thead", "tbody", "tr", "th", "td"}
    assert html.unescape(escape(value)) == value


def test_every_sign_of_the_contract_is_an_entity():
    signs = "&<>{}|*_$[]#@~`"
    assert escape(signs) == "".join(f"&#{ord(sign)};" for sign in signs)


def test_numbers_and_sentences_stay_readable():
    assert escape("It scored 0.5. Next, 10 % of 1,234.") == "It scored 0.5. Next, 10 % of 1,234."


def test_lines_become_spaces_and_what_hides_or_reorders_or_cannot_be_written_is_dropped():
    assert escape("a\r\n\r\nb\tc\u2028d\x00\x1b\x7f\u202ee\ufeff\ud800") == "a b c de"


def test_markdown_is_trusted_and_shown_rendered_in_a_notebook():
    text = Markdown("**bold**")
    assert (escape(text), text._repr_markdown_(), repr(text)) == ("**bold**",) * 3


def test_code_falls_back_to_escaped_text_where_a_span_would_not_decode_entities():
    assert [code("20251120T101502Z-4fk2a"), code("a`b"), code("{{< x >}}"), code("a::b")] == [
        "`20251120T101502Z-4fk2a`",
        "a&#96;b",
        "&#123;&#123;&#60; x &#62;&#125;&#125;",
        "a&#58;&#58;b",
    ]


def test_paragraphs_are_kept_apart_and_their_signs_are_text():
    assert paragraphs("  One *line*\nand more.\n\n\n# Two\n") == "One &#42;line&#42; and more.\n\n&#35; Two"


def test_join_leaves_out_what_is_empty():
    assert join("a*", "", Markdown("**b**")) == "a&#42;\n\n**b**"


def test_bullets_have_one_line_each():
    assert bullets(["a\nb", "- c"]) == "- a b\n- &#45; c"


def test_table_puts_numbers_to_the_right_and_the_caption_above():
    rows = [{"metric": "f1_macro", "value": 0.88149, "n": 3013}, {"metric": "a|b", "value": None, "n": 12}]
    assert table(rows, caption="Scores").splitlines() == [
        "**Scores**",
        "",
        "| metric | value | n |",
        "| :--------- | ------: | -----: |",
        "| f1&#95;macro | 0.881 | 3013 |",
        "| a&#124;b | — | 12 |",
    ]


def test_table_shows_every_kind_of_value_of_a_frame():
    frame = pd.DataFrame(
        {
            "count": pd.array([1, pd.NA], dtype="Int64"),
            "share": np.array([0.5, np.nan], dtype="float32"),
            "when": [pd.Timestamp("2025-11-20T10:45:59Z"), pd.NaT],
            "good": [True, False],
        }
    )
    assert cells(table(frame)) == [
        ["count", "share", "when", "good"],
        ["1", "0.500", "2025-11-20 10:45 UTC", "yes"],
        ["—", "—", "—", "no"],
    ]


def test_table_keeps_columns_of_the_same_name():
    assert cells(table(pd.DataFrame([[1, 2]], columns=["a", "a"]))) == [["a", "a"], ["1", "2"]]


def test_table_puts_named_columns_of_text_to_the_right():
    assert table([{"share": "9 %"}], right=["share"]).splitlines()[1] == "| ------: |"


def test_table_says_what_it_leaves_out():
    text = table([{"n": n} for n in range(205)])
    assert (len(cells(text)), text.splitlines()[-1]) == (201, "5 more rows are not shown.")
    assert cells(table([{"text": "abcdefgh"}], max_chars=5)) == [["text"], ["abcd…"]]


@pytest.mark.parametrize("nothing", [[], pd.DataFrame({"a": []})])
def test_table_without_rows_says_so(nothing):
    assert table(nothing).splitlines()[-1] == "No rows."


def test_value_list_is_a_table_without_header_text():
    assert cells(value_list({"Rows": 15024, "Classes": ["a", "b|"]})) == [
        ["", ""],
        ["Rows", "15,024"],
        ["Classes", "a, b|"],
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"),
        (float("nan"), "—"),
        (pd.NA, "—"),
        (True, "yes"),
        (np.bool_(False), "no"),
        (np.int64(12345), "12,345"),
        (2025, "2025"),
        (0.12345, "0.123"),
        (-0.00004, "-4e-05"),
        (0.0, "0.000"),
        (12345.6789, "12,345.679"),
        (float("inf"), "inf"),
        (datetime(2025, 11, 20, 10, 45, 59, tzinfo=UTC), "2025-11-20 10:45 UTC"),
        (datetime(2025, 11, 20, 10, 45), "2025-11-20 10:45"),
        (date(2025, 11, 20), "2025-11-20"),
        ({"a": 0.5, "b": [1, None]}, "a: 0.500, b: 1, —"),
    ],
)
def test_values_are_written_as_a_reader_expects_them(value, text):
    assert format_value(value) == text


def test_callout_is_a_box_in_quarto_and_bold_text_elsewhere():
    assert callout("Look *out*", "caution", title="A {{< b >}}") == (
        '<div class="callout-caution" appearance="simple">\n\n'
        "**A &#123;&#123;&#60; b &#62;&#125;&#125;**\n\nLook &#42;out&#42;\n\n</div>"
    )


def test_the_module_is_light():
    probe = "import sys, pinmill.markdown; print(sorted({'pandas', 'numpy', 'yaml', 'mistune'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def cells(text: str) -> list[list[str]]:
    """The texts of the rows of a table, header first."""
    return [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in shown(text).find_all("tr")]
