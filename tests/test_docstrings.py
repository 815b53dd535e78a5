"""The docstrings corpus: what counts as a paragraph, and that the real one is large, clean and always the same."""

import subprocess
import sys
import time

import pytest
from pinmill.docstrings import paragraphs, split_paragraphs

PROSE = "The estimator is fitted on the training part only, and what it has learnt is used to transform both parts."


@pytest.fixture(scope="module")
def corpus():
    return paragraphs()


def test_prose_is_kept_and_its_whitespace_collapsed():
    first, rest = PROSE.split(" only, ")
    assert split_paragraphs(f"Short title.\n\n    {first} \n    only,  {rest}\n") == [PROSE]


def test_doctests_tables_directives_and_short_lines_are_left_out():
    table = "| a column with words | another column with words | and a third column with even more words in it |"
    blocks = ["Title.", f">>> {PROSE}", table, f".. note:: {PROSE}", f"===== =====\n{PROSE}", "Too short."]
    assert split_paragraphs("\n\n".join(blocks)) == []


def test_heading_is_cut_off_and_example_sections_are_skipped_to_the_next_heading():
    other = PROSE.replace("estimator", "transformer")
    docstring = f"Notes\n-----\n{PROSE}\n\nExamples\n--------\n{PROSE} Example.\n\nWarnings\n--------\n{other}\n"
    assert split_paragraphs(docstring) == [PROSE, other]


def test_corpus_is_of_four_unbalanced_classes_and_some_15000_rows(corpus):
    assert list(corpus.columns) == ["text", "library", "module"]
    assert 12_000 < len(corpus) < 20_000
    counts = corpus.library.value_counts()
    assert sorted(counts.index) == ["numpy", "pandas", "scikit-learn", "scipy"]
    assert counts.max() > 1.5 * counts.min()
    assert counts.min() > 1_500


def test_every_paragraph_is_distinct_and_within_its_length(corpus):
    assert corpus.text.is_unique  # so none stands in two libraries either
    assert corpus.text.str.len().between(40, 600).all()
    assert not corpus.text.str.contains(">>>", regex=False).any()


def test_module_is_public_and_belongs_to_its_library(corpus):
    first = corpus.module.str.split(".").str[0].replace("sklearn", "scikit-learn")
    assert (first == corpus.library).all()
    assert corpus.module.str.fullmatch(r"[a-z]\w*(\.[A-Za-z]\w*)?").all()
    assert "scipy.stats" in set(corpus.module)
    assert not corpus.module.str.contains("test").any()


def test_corpus_is_the_same_in_another_process(corpus):
    code = "from pinmill.docstrings import paragraphs; print(paragraphs().to_csv(), end='')"
    environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7", "PYTHONUTF8": "1"}
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, encoding="utf-8", env=environment
    )
    assert other.stdout == corpus.to_csv()


def test_freshness_is_the_versions_and_imports_none_of_the_libraries():
    code = (
        "import sys, pinmill.docstrings as d; print(d.paragraphs.freshness());"
        "print(sorted({'pandas', 'numpy', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        encoding="utf-8",
        env={"PYTHONPATH": ":".join(sys.path)},
    ).stdout.splitlines()
    import numpy
    import pandas
    import scipy
    import sklearn

    assert found == [
        f"pandas {pandas.__version__}, scikit-learn {sklearn.__version__}, numpy {numpy.__version__}, "
        f"scipy {scipy.__version__}",
        "[]",
    ]


def test_corpus_is_read_in_seconds(corpus):
    start = time.process_time()
    paragraphs()
    assert time.process_time() - start < 12  # 4.3 s when nothing else runs; slack for when it does


def test_words_tell_the_libraries_apart(corpus):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline

    train, test = train_test_split(corpus, test_size=0.2, random_state=42)
    model = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000)).fit(train.text, train.library)
    assert 0.82 < model.score(test.text, test.library) < 0.95  # learnable, and not given away by a marker
