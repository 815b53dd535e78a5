import numpy as np
import pandas as pd
import pytest
from pinmill.errors import DataError, ModelError
from pinmill.features import explain, is_linear, telling_features
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import OneHotEncoder, StandardScaler

REVIEWS = pd.DataFrame({"text": ["good phone", "good cable", "bad phone", "bad cable", "good case", "bad case"]})
LABELS = ["pos", "pos", "neg", "neg", "pos", "neg"]
PARTS = [
    ("words", TfidfVectorizer(), "text"),
    ("characters", TfidfVectorizer(analyzer="char_wb", ngram_range=(4, 4)), "text"),
]


def fit_reviews(labels=LABELS):
    return make_pipeline(ColumnTransformer(PARTS), LogisticRegression()).fit(REVIEWS, labels)


def test_both_classes_of_a_binary_model_have_their_features():
    table = telling_features(fit_reviews(), n=3)
    first = {label: set(rows["feature"]) for label, rows in table.groupby("class")}
    assert first["pos"] == {"word: good", "chars: ‹good›", "chars: ‹ goo›"}
    assert "word: bad" in first["neg"]
    assert (table["weight"] > 0).all()
    assert list(table["class"].unique()) == ["neg", "pos"]


def test_weights_are_the_models_coefficients():
    model = fit_reviews()
    column = model[0].get_feature_names_out().tolist().index("words__good")
    table = telling_features(model).set_index(["class", "feature"])
    assert table.loc[("pos", "word: good"), "weight"] == model[-1].coef_[0, column]


def test_each_class_of_a_multiclass_model_has_its_own():
    labels = ["p", "c", "p", "c", "k", "k"]
    table = telling_features(fit_reviews(labels), n=1).set_index("class")["feature"]
    assert table.index.tolist() == ["c", "k", "p"]
    assert [
        "cab" in table["c"] or "able" in table["c"],
        "cas" in table["k"] or "ase" in table["k"],
        "pho" in table["p"] or "one" in table["p"] or "hon" in table["p"],
    ] == [True] * 3


def test_a_regression_tells_what_makes_it_higher_and_lower():
    frame = pd.DataFrame({"age": [1.0, 2, 3, 4], "city": ["Oslo", "Oslo", "Rome", "Rome"]})
    head = ColumnTransformer([("n", StandardScaler(), ["age"]), ("c", OneHotEncoder(), ["city"])])
    model = make_pipeline(head, Ridge()).fit(frame, [0, 1, 10, 11])
    table = telling_features(model)
    assert set(zip(table["class"], table["feature"], strict=True)) == {
        ("higher", "age"),
        ("higher", "city = Rome"),
        ("lower", "city = Oslo"),
    }
    shown = explain(model, frame.iloc[[3]])
    assert shown["contribution"].sum() + model[-1].intercept_ == pytest.approx(model.predict(frame.iloc[[3]])[0])


def test_contributions_and_the_intercept_sum_to_the_decision():
    model = fit_reviews()
    row = REVIEWS.iloc[[0]]
    table = explain(model, row)
    assert table["contribution"].sum() + model[-1].intercept_[0] == pytest.approx(model.decision_function(row)[0])
    assert table["contribution"].abs().is_monotonic_decreasing
    assert "word: good" in set(table["feature"])
    np.testing.assert_allclose(explain(model, row, toward="neg")["contribution"], -table["contribution"])


def test_contributions_to_a_transformed_target_sum_to_what_is_turned_back():
    rows = pd.DataFrame({"a": [0.0, 1.0, 2.0, 5.0], "b": [1.0, 0.0, 3.0, 1.0]})
    logarithm = TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1)
    model = make_pipeline(StandardScaler(), logarithm).fit(rows, [1.0, 4.0, 9.0, 30.0])
    told = explain(model, rows.iloc[[3]])
    expected = np.log1p(model.predict(rows.iloc[[3]])[0])
    assert told["contribution"].sum() + model[-1].regressor_.intercept_ == pytest.approx(expected, rel=1e-12)
    assert sorted(told["feature"]) == ["a", "b"]


def test_contributions_stand_for_the_predicted_class():
    table = explain(fit_reviews(), REVIEWS.iloc[[2]]).set_index("feature")["contribution"]
    assert table["word: bad"] > 0


def test_several_text_columns_are_told_apart():
    frame = REVIEWS.assign(title=REVIEWS["text"])
    head = ColumnTransformer([("a", CountVectorizer(), "text"), ("b", CountVectorizer(), "title")])
    names = set(telling_features(make_pipeline(head, LogisticRegression()).fit(frame, LABELS))["feature"])
    assert {"text word: good", "title word: good"} <= names


def test_a_union_of_vectorizers_is_named_too():
    model = make_pipeline(
        make_union(CountVectorizer(), CountVectorizer(analyzer="char", ngram_range=(3, 3))), LogisticRegression()
    ).fit(REVIEWS["text"], LABELS)
    assert {"word: good", "chars: ‹goo›"} <= set(telling_features(model)["feature"])


def test_unprefixed_names_are_read():
    head = ColumnTransformer(
        [("c", OneHotEncoder(), ["kind"]), ("t", CountVectorizer(), "text")], verbose_feature_names_out=False
    )
    model = make_pipeline(head, LogisticRegression()).fit(REVIEWS.assign(kind=list("xyxyxy")), LABELS)
    assert {"word: good", "kind = x"} <= set(telling_features(model)["feature"])


def test_a_bare_estimator_has_numbered_features():
    model = LogisticRegression().fit(np.array([[0.0], [1.0]]), [0, 1])
    assert telling_features(model)[["class", "feature"]].values.tolist() == [[1, "feature 0"]]


def test_other_models_are_refused_by_name():
    frame = pd.DataFrame({"x": [0, 1]})
    forest = make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=2)).fit(frame, [0, 1])
    assert (is_linear(forest), is_linear(fit_reviews())) == (False, True)
    with pytest.raises(ModelError, match="RandomForestClassifier has no coefficients"):
        telling_features(forest)
    nameless = make_pipeline(HashingVectorizer(n_features=16), LogisticRegression()).fit(REVIEWS["text"], LABELS)
    with pytest.raises(ModelError, match="no names"):
        telling_features(nameless)


def test_explain_takes_one_row_and_a_class_of_the_model():
    with pytest.raises(DataError, match="one row, got 2"):
        explain(fit_reviews(), REVIEWS.iloc[:2])
    with pytest.raises(DataError, match=r"'maybe' is none of the model's classes \['neg', 'pos'\]"):
        explain(fit_reviews(), REVIEWS.iloc[[0]], toward="maybe")
