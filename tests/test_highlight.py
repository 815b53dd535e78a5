"""What is marked in a text is what the vectorizers read there."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pinmill.highlight import find_pushes, find_spans
from sklearn.feature_extraction.text import CountVectorizer


def explain(**pushes: float) -> list[dict]:
    return [{"feature": feature, "contribution": push} for feature, push in pushes.items()]


def mark(text: str, pushes: dict[str, float]) -> list[tuple[str, float]]:
    """What is marked, read as JavaScript would, and how strongly."""
    units = text.encode("utf-16-le", "surrogatepass")
    spans = find_spans(text, explain(**pushes))
    return [(units[2 * s["start"] : 2 * s["end"]].decode("utf-16-le", "surrogatepass"), s["push"]) for s in spans]


def test_words_are_found_whatever_their_case_and_as_whole_words():
    text = "FREE, freedom and free"
    assert find_spans(text, explain(**{"word: free": 0.5})) == [
        {"start": 0, "end": 4, "push": 0.5},
        {"start": 18, "end": 22, "push": 0.5},
    ]


def test_a_pair_of_words_passes_over_what_the_vectorizer_passes_over():
    assert mark("a free I prize, free: prize", {"word: free prize": 1.0}) == [
        ("free I prize", 1.0),
        ("free: prize", 1.0),
    ]


def test_a_space_in_a_piece_is_the_edge_of_a_word():
    assert mark("ring singing", {"chars: ‹ing ›": -1.0}) == [("ing", -1.0), ("ing", -1.0)]
    assert mark("ring singing", {"chars: ‹ri›": 1.0, "chars: ‹ sin›": 2.0}) == [("ri", 1.0), ("sin", 2.0)]
    assert mark("king", {"chars: ‹ in›": 1.0, "chars: ‹kin ›": 1.0}) == []


def test_the_stronger_feature_has_the_characters_and_one_direction_is_one_span():
    assert mark("prizes", {"chars: ‹priz›": 0.2, "chars: ‹zes ›": 0.3}) == [("prizes", 0.3)]
    assert mark("prizes", {"chars: ‹priz›": 0.2, "chars: ‹zes ›": -0.3}) == [("pri", 0.2), ("zes", -0.3)]
    assert mark("free prize", {"word: free": -2.0, "word: free prize": 1.0}) == [("free", -2.0), ("prize", 1.0)]


def test_offsets_count_utf_16_units():
    assert find_spans("🎉 free", explain(**{"word: free": 1.0})) == [{"start": 3, "end": 7, "push": 1.0}]


def test_characters_whose_lower_case_is_longer_move_nothing():
    assert mark("İİ free", {"word: free": 1.0}) == [("free", 1.0)]
    assert mark("ΟΔΟΣ free", {"word: οδος": 1.0}) == [("ΟΔΟΣ", 1.0)]


def test_what_is_no_feature_of_text_marks_nothing():
    pushes = {"age": 1.0, "city = free": 1.0, "word: ": 1.0, "chars: ‹ ›": 1.0, "word: absent": 1.0, "(.*": 1.0}
    assert find_spans("free (.* at any age", explain(**pushes)) == []


@given(st.text(), st.lists(st.tuples(st.text(max_size=4), st.floats(-9, 9).filter(bool))))
def test_spans_lie_in_the_text_in_order_and_never_overlap(text, pushes):
    told = [{"feature": f"{kind}{words}{end}", "contribution": push} for words, push in pushes for kind, end in KINDS]
    spans, units = find_spans(text, told), len(text.encode("utf-16-le", "surrogatepass")) // 2
    edges = [0, *(edge for span in spans for edge in (span["start"], span["end"])), units]
    assert edges == sorted(edges)
    assert all(span["start"] < span["end"] for span in spans)


KINDS = [("word: ", ""), ("chars: ‹", "›")]


@pytest.fixture(scope="module")
def texts(shared_data: Path) -> list[str]:
    """Forty real messages."""
    return pd.read_csv(shared_data / "spam.csv", nrows=40)["text"].tolist()


@pytest.mark.parametrize(
    ("kind", "vectorizer"),
    [
        (KINDS[0], CountVectorizer(ngram_range=(1, 2))),
        (KINDS[1], CountVectorizer(analyzer="char_wb", ngram_range=(2, 5), max_features=3000)),
    ],
)
def test_a_feature_is_marked_exactly_where_the_vectorizer_counts_it(texts, kind, vectorizer):
    counts = vectorizer.fit_transform(texts).toarray() > 0
    names = vectorizer.get_feature_names_out().tolist()
    for row in range(0, len(texts), 8):
        marked = [bool(find_spans(texts[row], explain(**{f"{kind[0]}{name}{kind[1]}": 1.0}))) for name in names]
        assert [name for name, here, there in zip(names, marked, counts[row], strict=True) if here != there] == []


def test_what_a_column_pushes_is_the_sum_of_its_features():
    record = {"age": 30, "job": "free agent", "job_type": "full", "note": "a free prize", "loan": None}
    pushes = {"age": 1.0, "job = free agent": -0.5, "job_type = full": 0.25, "note word: free": 0.5}
    more = {"note chars: ‹ pri›": 0.25, "job chars: ‹ag›": 0.0, "other": 3.0}
    assert find_pushes(record, explain(**pushes, **more)) == {"age": 1.0, "job": -0.5, "job_type": 0.25, "note": 0.75}


def test_a_word_that_names_no_column_counts_for_the_text_in_which_it_stands():
    record = {"age": 30, "note": "a free prize"}
    assert find_pushes(record, explain(**{"word: free": 0.5, "age": 1.0, "word: lunch": 2.0})) == {
        "note": 0.5,
        "age": 1.0,
    }
