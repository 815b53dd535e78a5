"""Rows to predictions: the numbers of the model itself, bit for bit, whatever the batch."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from pinmill.columns import calendar
from pinmill.prototype import check_inputs, read_prototype
from pinmill.scorer import make_framer, make_scorer
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

BATCHES = (1, 7, 64)
WORDS = TfidfVectorizer(ngram_range=(1, 2))
CHARACTERS = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), min_df=2, sublinear_tf=True)


@cache
def read_texts(folder: Path) -> pd.DataFrame:
    """2,500 messages with a second column of text, a label of two classes, one of three, and an amount."""
    spam = pd.read_csv(folder / "spam.csv").sample(2500, random_state=0, ignore_index=True)
    length = spam["text"].str.len()
    return pd.DataFrame(
        {
            "text": spam["text"],
            "other": spam["text"].str[::-1],
            "label": spam["label"],
            "third": pd.qcut(length, 3, labels=["short", "medium", "long"]).astype(object),
            "number": pd.qcut(length, 3, labels=[10, 20, 30]).astype(int),
            "amount": np.sqrt(length),
        }
    )


def columns(*parts: object, **options: object) -> ColumnTransformer:
    """A ColumnTransformer of (vectorizer, column)."""
    return ColumnTransformer([(f"part{n}", part, column) for n, (part, column) in enumerate(parts)], **options)


def newton() -> LogisticRegression:
    return LogisticRegression(C=10, solver="newton-cg")


TEXT_MODELS = {
    "words": (columns((WORDS, "text")), LogisticRegression(), "label"),
    "words and characters": (columns((WORDS, "text"), (CHARACTERS, "text")), newton(), "label"),
    "three classes": (columns((WORDS, "text")), newton(), "third"),
    "classes that are numbers": (columns((WORDS, "text")), newton(), "number"),
    "two columns": (columns((WORDS, "other"), (CHARACTERS, "text")), LogisticRegression(), "label"),
    "counts": (columns((CountVectorizer(binary=True), "text"), ("drop", "other")), MultinomialNB(), "label"),
    "L1, single precision": (
        columns((TfidfVectorizer(norm="l1"), "text"), (TfidfVectorizer(dtype=np.float32, use_idf=False), "text")),
        LogisticRegression(),
        "label",
    ),
    "no IDF": (columns((TfidfVectorizer(use_idf=False, sublinear_tf=True), "text")), newton(), "label"),
    "weighted parts": (
        columns((WORDS, "text"), (CHARACTERS, "text"), transformer_weights={"part0": 2.0}),
        newton(),
        "label",
    ),
    "an amount": (columns((WORDS, "text")), Ridge(), "amount"),
}


def predict_in_batches(model: object, frame: pd.DataFrame, rows: list[dict], size: int) -> list[dict]:
    score = make_scorer(model, read_prototype(frame, list(frame), text=[c for c in frame if c in ("text", "other")]))
    return [item for start in range(0, len(rows), size) for item in score(rows[start : start + size])]


def expect_items(model: object, frame: pd.DataFrame) -> tuple[list, np.ndarray]:
    """Labels or amounts, and probabilities, as scikit-learn gives them for the whole frame at once."""
    shares = model.predict_proba(frame) if hasattr(model, "predict_proba") else np.empty((len(frame), 0))
    return model.predict(frame).tolist(), shares


def check_equal(items: list[dict], model: object, frame: pd.DataFrame, tolerance: float = 0.0) -> None:
    """All items, labels and numbers, against scikit-learn; without a tolerance bit for bit."""
    told, shares = expect_items(model, frame)
    if not shares.size:
        values = np.array([item.pop("value") for item in items])
        assert items == [{}] * len(told)
        assert np.abs(values - told).max() <= tolerance * max(1.0, np.abs(told).max())
        return
    assert [item["label"] for item in items] == told
    assert {type(item["label"]) for item in items} <= {str, int, bool}
    assert {tuple(item["probability"]) for item in items} == {tuple(map(str, model.classes_.tolist()))}
    got = np.array([list(item["probability"].values()) for item in items])
    assert np.abs(got - shares).max() <= tolerance
    assert [item["value"] for item in items] == [item["probability"][str(item["label"])] for item in items]


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_predictions_of_texts_are_the_models_own_bit_for_bit(name: str, shared_data: Path) -> None:
    table = read_texts(shared_data)
    head, last, label = TEXT_MODELS[name]
    model = make_pipeline(head, last).fit(table[["text", "other"]][:1500], table[label][:1500])
    frame = table[["text", "other"]][1500:]
    for size in BATCHES:
        check_equal(predict_in_batches(model, frame, frame.to_dict("records"), size), model, frame)


def test_steps_between_are_taken(shared_data: Path) -> None:
    table = read_texts(shared_data)
    steps = [columns((CountVectorizer(), "text")), "passthrough", TfidfTransformer(), TruncatedSVD(20, random_state=0)]
    model = make_pipeline(*steps, LogisticRegression()).fit(table[["text"]][:1000], table["label"][:1000])
    frame = table[["text"]][1000:1200]
    for size in BATCHES:
        check_equal(predict_in_batches(model, frame, frame.to_dict("records"), size), model, frame, tolerance=1e-12)


def make_table(n: int) -> pd.DataFrame:
    """A table with a column of each kind, with and without missing values."""
    random = np.random.default_rng(0)
    missing = random.random(n) < 0.2
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(random.integers(0, 10**6, n), unit="min")
    return pd.DataFrame(
        {
            "age": random.integers(18, 90, n),
            "income": np.where(missing, np.nan, random.normal(3000, 500, n)),
            "visits": pd.array(np.where(missing, None, random.integers(0, 9, n)), dtype="Int64"),
            "city": np.where(missing, None, random.choice(["Paris", "Rome", "Oslo"], n)),
            "member": random.random(n) < 0.5,
            "asked": pd.array(np.where(missing, None, random.random(n) < 0.5), dtype="boolean"),
            "since": days,
            "seen": pd.Series(days).dt.tz_localize("UTC").where(~missing),
            "plan": pd.Series(random.choice(["basic", "full"], n)).astype(object),
            "text": random.choice(["good and fast", "slow and bad", "so so"], n),
        }
    )


def list_rows(frame: pd.DataFrame) -> list[dict]:
    """The rows as they come out of a request's JSON; whole numbers as floats where the column may hold any."""
    plain = frame.astype(object).where(frame.notna(), None)
    rows = plain.to_dict("records")
    return [{k: v.isoformat() if hasattr(v, "isoformat") else v for k, v in row.items()} for row in rows]


def test_a_frame_is_as_the_check_of_inputs_makes_it() -> None:
    frame = make_table(200)
    prototype = read_prototype(frame, list(frame), text=["text"])
    rows = list_rows(frame)
    rows[0]["age"], rows[1]["visits"], rows[2]["income"] = 20.0, 3.0, 5
    assert_frame_equal(make_framer(prototype)(rows), check_inputs(pd.DataFrame(rows, dtype=object), prototype))


def test_a_missing_text_is_an_empty_one() -> None:
    frame = pd.DataFrame({"text": ["good day", None, "bad day", "good night"]})
    model = make_pipeline(columns((TfidfVectorizer(), "text")), LogisticRegression())
    model.fit(frame.fillna(""), [0, 1, 0, 1])
    score = make_scorer(model, read_prototype(frame, ["text"], text=["text"]))
    assert score([{"text": None}]) == score([{"text": ""}])
    assert score([{"text": None}])[0]["value"] == model.predict_proba(pd.DataFrame({"text": [""]})).max()


def linear_head() -> ColumnTransformer:
    number = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    return columns(
        (OneHotEncoder(handle_unknown="infrequent_if_exist"), ["city", "plan", "member"]),
        (number, ["age", "income", "visits"]),
        (make_pipeline(FunctionTransformer(calendar), SimpleImputer(), StandardScaler()), ["since", "seen"]),
        (TfidfVectorizer(), "text"),
    )


def tree_head() -> ColumnTransformer:
    by_number = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    return columns((by_number, ["city", "plan", "asked"]), ("passthrough", ["age", "income"]), sparse_threshold=0)


def logarithm(regressor: object) -> TransformedTargetRegressor:
    return TransformedTargetRegressor(regressor, func=np.log1p, inverse_func=np.expm1)


TABLE_MODELS = {
    "linear": (linear_head, LogisticRegression(max_iter=2000), "class"),
    "boosting": (tree_head, HistGradientBoostingClassifier(max_iter=20, random_state=0), "class"),
    "linear amount": (linear_head, Ridge(), "amount"),
    "logarithm of an amount": (linear_head, logarithm(Ridge()), "amount"),
    "boosted logarithm of an amount": (tree_head, logarithm(HistGradientBoostingRegressor(max_iter=20)), "amount"),
}


@pytest.mark.parametrize("name", TABLE_MODELS)
def test_predictions_of_tables_are_the_models_own(name: str) -> None:
    frame = make_table(300)
    score = frame["age"] + (frame["city"] == "Rome") * 20 + frame["income"].fillna(0) / 500
    labels = {"class": score.gt(score.median()).map({True: "high", False: "low"}), "amount": score**2}
    head, last, label = TABLE_MODELS[name]
    with threadpool_limits(1):  # boosting's threads would wait for each other at each row
        model = make_pipeline(head(), last).fit(frame, labels[label])
        for size in BATCHES:
            check_equal(predict_in_batches(model, frame, list_rows(frame), size), model, frame, tolerance=1e-12)


def test_a_pipeline_that_learns_logarithms_around_it_predicts_too() -> None:
    frame = make_table(300)
    model = logarithm(make_pipeline(linear_head(), Ridge())).fit(frame, frame["age"])
    check_equal(predict_in_batches(model, frame, list_rows(frame), 64), model, frame, tolerance=1e-12)


def test_without_probabilities_the_label_stands_alone() -> None:
    frame = pd.DataFrame({"text": ["good day", "bad day", "good", "bad"]})
    model = make_pipeline(columns((TfidfVectorizer(), "text")), LinearSVC()).fit(frame, [True, False, True, False])
    assert predict_in_batches(model, frame, frame.to_dict("records"), 4) == [{"label": v} for v in (True, False) * 2]


def refuse_boom(matrix: object) -> object:
    if "boom" in matrix.to_numpy():
        raise RuntimeError("a secret")
    return matrix["text"].str.len().to_frame()


def test_a_row_that_makes_the_model_raise_fails_alone_and_without_its_words() -> None:
    frame = pd.DataFrame({"text": ["a", "bb", "ccc", "dddd"]})
    model = make_pipeline(FunctionTransformer(refuse_boom), LogisticRegression()).fit(frame, list("xxyy"))
    score = make_scorer(model, read_prototype(frame, ["text"], text=["text"]))
    failed = {"error": "the model failed on this row with RuntimeError"}
    for place in range(5):
        rows = [{"text": text} for text in ["a", "bb", "ccc", "dddd"]]
        rows.insert(place, {"text": "boom"})
        expected = score(rows[:place] + rows[place + 1 :])
        expected.insert(place, failed)
        assert score(rows) == expected
    assert score([{"text": "boom"}]) == [failed]
    assert score([]) == []


def overflow(amounts: np.ndarray) -> np.ndarray:
    return np.where(amounts > 100, np.inf, amounts)


def test_a_number_that_is_none_is_an_error_of_its_row() -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    model = TransformedTargetRegressor(Ridge(alpha=0.0), inverse_func=overflow, func=np.abs, check_inverse=False)
    model.fit(frame, frame["x"])
    near, far = make_scorer(model, read_prototype(frame, ["x"]))([{"x": 2.0}, {"x": 1e6}])
    assert near["value"] == pytest.approx(2.0)
    assert far == {"error": "the model gave no number"}
