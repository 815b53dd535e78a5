"""Fit the model of the peers as tutorials write it: train.py KIND ROWS, where KIND is words or default.

ROWS is JSON with `texts` and `labels`, the training rows of our own model. Writes model.joblib, which takes a list of
texts, and frame.joblib, the same model over a table, which vetiver needs.
"""

import json
import sys
from pathlib import Path

import joblib
import pandas
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

MODELS = {
    "words": (TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression()),
    "default": (
        make_union(
            TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True),
        ),
        LogisticRegression(C=10, class_weight="balanced", solver="newton-cg", max_iter=1000),
    ),
}

vectorizer, classifier = MODELS[sys.argv[1]]
rows = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
model = make_pipeline(clone(vectorizer), clone(classifier)).fit(rows["texts"], rows["labels"])
joblib.dump(model, "model.joblib")
columns = ColumnTransformer([("text", clone(vectorizer), "text")])
over_table = make_pipeline(columns, clone(classifier)).fit(pandas.DataFrame({"text": rows["texts"]}), rows["labels"])
joblib.dump(over_table, "frame.joblib")
