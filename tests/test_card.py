"""The model card says what was recorded, and shouts where people have not written."""

import html
import json
import re
from pathlib import Path

import pytest
from pinmill import card
from pinmill.markdown import table
from pinmill.metrics import METRICS

ROOT = Path(__file__).parent.parent
MODEL = {
    "task": "binary",
    "label": "kind_of_text",
    "described": "A linear model",
    "classes": ["ham", "spam"],
    "hyperparameters": {"logisticregression__C": 4, "logisticregression__class_weight": None},
    "prototype": {"text": {"type": "text", "nullable": False}},
    "cv_scores": {"roc_auc": [0.95, 0.97, 0.96]},
    "training_seconds": 3.21,
    "peak_memory_mb": 1310.4,
}
DATA = {
    "rows": 5572,
    "train": 4458,
    "test": 1114,
    "classes": {"ham": 4825, "spam": 747},
    "dropped": {"repeated inputs": 403, "empty": 0},
    "source": "https://example.org/sms.tsv",
    "source_sha256": "ab" * 32,
    "split": "hash",
}
LINEAGE = {
    "run": "20251120T101502Z-4fk2a",
    "time": "2025-11-20T10:16:44.120411+00:00",
    "seed": 42,
    "git": {"commit": "9f1c2ab77d0e4c55a1", "dirty": False},
    "packages": {"numpy": "2.3.4", "scikit-learn": "1.7.2"},
    "inputs": [{"kind": "pin", "name": "spam-data", "version": "20251120T101530Z-1a9xk", "sha256": "cd" * 32}],
}


def score(metric: str, value: float, low: float, high: float, n: int) -> dict:
    return {"metric": metric, "value": value, "low": low, "high": high, "n": n}


RESULTS = {
    "metrics": [score("roc_auc", 0.9712, 0.96, 0.98, 1114), score("log_loss", 0.11, 0.09, 0.13, 1114)],
    "baseline": [score("roc_auc", 0.5, 0.5, 0.5, 1114), score("log_loss", 0.39, 0.37, 0.41, 1114)],
    "champion": [score("roc_auc", 0.97, 0.95, 0.98, 220), score("log_loss", 0.12, 0.1, 0.14, 220)],
    "slices": [
        {"slice": "short", "n": 370, "value": 0.94, "low": 0.91, "high": 0.96, "metric": "accuracy"},
        {"slice": "long", "n": 744, "value": 0.98, "low": 0.97, "high": 0.99, "metric": "accuracy"},
    ],
    "decision": {"passed": True, "metric": "roc_auc", "reasons": ["above the baseline"], "compared": True, "n": 220},
    "gains": "better than the champion on 1 and worse on 1 of 2 metrics",
}


def read(markdown: str) -> str:
    """What a reader sees of the text: without table rules, marks and entities."""
    lines = [line for line in markdown.splitlines() if not re.fullmatch(r"[|:\- ]+|</?div.*>|", line)]
    cells = [re.sub(r" *\| *", " | ", line).strip(" |") for line in lines]
    return html.unescape("\n".join(re.sub(r"\*\*|`", "", cell) for cell in cells))


def test_summary_says_in_plain_words_what_it_does_how_well_and_whether_it_passed():
    assert read(card.summary(model=MODEL, results=RESULTS)) == (
        "This model predicts kind_of_text, one of 2 classes (ham, spam), for each row. "
        "ROC AUC is 0.971 on 1,114 rows kept apart from training (95 % interval 0.960 to 0.980; 1 is perfect). "
        "A guess that never looks at the input scores 0.500. "
        "The champion at the time scores 0.970 on 220 rows new to it. "
        "It is better than the champion on 1 and worse on 1 of 2 metrics. "
        "ROC AUC decides, and all that is asked is met."
    )


def test_summary_of_a_rejected_regression_without_champion():
    decision = {"passed": False, "metric": "mae", "reasons": ["worse than the mean.", "few rows"], "compared": False}
    rows = [score("mae", 17456.162, 999.7, 20000.4, 90)]
    gains = "as good as a guess on 1 of 1 metric"
    results = {"metrics": rows, "baseline": rows, "champion": None, "decision": decision, "gains": gains}
    text = card.summary(model={"task": "regression", "label": "likes", "classes": []}, results=results)
    assert read(text) == (
        "This model predicts likes, an amount, for each row. Mean absolute error is 17,456 on 90 rows kept apart from "
        "training (95 % interval 1,000 to 20,000; lower is better). A guess that never looks at the input scores "
        "17,456. It is as good as a guess on 1 of 1 metric. "
        "Mean absolute error decides, and not all that is asked is met."
    )


@pytest.mark.parametrize(
    ("counts", "rival", "told"),
    [
        ({"better": 6}, "a guess", "better than a guess on 6 of 6 metrics"),
        ({"worse": 1}, "a guess", "worse than a guess on 1 of 1 metric"),
        ({"as good": 2, "worse": 0}, "the champion", "as good as the champion on 2 of 2 metrics"),
        ({"worse": 2, "better": 1}, "a guess", "better than a guess on 1 and worse on 2 of 3 metrics"),
        (
            {"worse": 1, "as good": 6, "better": 1},
            "the champion",
            "better than the champion on 1, as good on 6 and worse on 1 of 8 metrics",
        ),
        (
            {"not comparable": 1, "worse": 2, "as good": 3, "better": 4},
            "the champion",
            "better than the champion on 4, as good on 3, worse on 2 and not comparable on 1 of 10 metrics",
        ),
        ({"not comparable": 1}, "a guess", "not comparable with a guess on 1 of 1 metric"),
    ],
)
def test_gains_are_told_with_all_counts_that_are_not_zero_the_best_first(counts, rival, told):
    assert card.tell_gains(counts, rival) == told


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.97123, "0.971"),
        (99.5, "99.500"),
        (848.591, "849"),
        (7437.071, "7,437"),
        (-17456.162, "-17,456"),
        (1114, "1,114"),
        (None, "—"),
        (float("nan"), "—"),
        (True, "yes"),
        ("ROC AUC", "ROC AUC"),
    ],
)
def test_large_amounts_have_separators_and_no_decimals(value, shown):
    assert card.format_score(value) == shown


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/srv/our data/ads.csv", "ads.csv"),
        ("data/ads.csv", "ads.csv"),
        ("ads.csv", "ads.csv"),
        ("file:///srv/ads.csv", "ads.csv"),
        ("sqlite:////srv/crm.db: SELECT a/b FROM c", "crm.db: SELECT a/b FROM c"),
        ("https://example.org/data/ads.csv", "https://example.org/data/ads.csv"),
        ("postgresql+psycopg://***@host/crm: SELECT 1", "postgresql+psycopg://***@host/crm: SELECT 1"),
        ("function pinmill.docstrings:paragraphs", "function pinmill.docstrings:paragraphs"),
        ("pin ads-data, version 20251120T101530Z-1a9xk", "pin ads-data, version 20251120T101530Z-1a9xk"),
    ],
)
def test_of_a_local_source_the_name_is_shown_without_its_folders(source, shown):
    assert f"Source | {shown}\n" in read(card.training_data({**DATA, "source": source}))


def test_details_hold_run_code_cost_settings_and_inputs():
    details = card.details(MODEL, {**LINEAGE, "by": "ada"}, version="20251120T101530Z-1a9xk", sha256="ab" * 32)
    assert read(details).splitlines() == [
        "Version | 20251120T101530Z-1a9xk",
        "SHA-256 | " + "ab" * 32,
        "Kind of model | A linear model",
        "Predicts | kind_of_text (binary)",
        "Classes | ham, spam",
        "Run | 20251120T101502Z-4fk2a",
        "Trained | 2025-11-20 10:16 UTC",
        "By | ada",
        "Training took | 3.2 seconds",
        "Peak memory | 1,310 MB",
        "Code | 9f1c2ab77d0e",
        "Seed | 42",
        "Packages | numpy: 2.3.4, scikit-learn: 1.7.2",
        "Hyperparameters",
        "Hyperparameter | Value",
        "logisticregression__C | 4",
        "logisticregression__class_weight | None",
        "Made from",
        "Input | Pin | Version | SHA-256",
        "pin | spam-data | 20251120T101530Z-1a9xk | cdcdcdcdcdcd",
        "What it takes",
        "Column | Type | May be empty",
        "text | text | no",
    ]


def test_what_was_not_recorded_is_said_and_never_left_blank():
    lines = read(card.details({}, {"inputs": []})).splitlines()
    assert [line.partition(" | ")[2] for line in lines] == ["not recorded"] * 13


def test_a_model_that_predicts_amounts_has_no_classes():
    details = read(card.details({"task": "regression", "label": "like_count"}, {"inputs": []})).splitlines()
    assert details[3:5] == ["Predicts | like_count (regression)", "Classes | none, as it predicts an amount"]


def test_a_training_of_a_moment_took_some_time():
    assert "\nTraining took | 0.01 seconds\n" in read(card.details({"training_seconds": 0.012}, {"inputs": []}))


@pytest.mark.parametrize(
    ("text", "part", "who"),
    [
        (card.human_part("intended_use", "", workflow="spam"), "intended_use", "The model's owner"),
        (card.factors(" \n", RESULTS, workflow="spam"), "factors", "The data team"),
        (card.human_part("ethical_considerations", "", workflow="spam"), "ethical_considerations", "The model's owner"),
        (card.caveats("", workflow="spam", data=DATA, lineage=LINEAGE), "caveats", "The modeller"),
    ],
)
def test_an_empty_part_shouts_who_writes_it_and_where(text, part, who):
    assert text.startswith('<div class="callout-important"')
    head, body = read(text).splitlines()[:2]
    assert head == f"Missing: {part.replace('_', ' ')}"
    assert body.startswith(f"{who} writes it in params/spam.yaml, key {part}: ")


def test_what_people_wrote_stands_as_plain_paragraphs_without_a_box():
    text = card.human_part("intended_use", "For *search*.\n\nNot for {{< env X >}}.", workflow="spam")
    assert text == "For &#42;search&#42;.\n\nNot for &#123;&#123;&#60; env X &#62;&#125;&#125;."


def test_factors_name_the_slices_that_were_measured():
    assert read(card.factors("By age.", RESULTS, workflow="w")) == (
        "By age.\nMeasured apart, in the quantitative analyses: short, long."
    )
    assert card.factors("By age.", {"slices": []}, workflow="w") == "By age.\n\nNo slice was measured apart."


def test_metrics_are_explained_and_the_deciding_one_is_marked():
    assert read(card.metrics(RESULTS)).splitlines()[:3] == [
        "Metric | Meaning | Best | Decides",
        "ROC AUC | Chance that a random positive ranks above a random negative; guessing gives 0.5 | 1 | yes",
        "Log loss | How wrong the stated probabilities are; sure and wrong costs most | 0",
    ]


def test_every_metric_is_explained():
    assert set(card.METRICS) == set(METRICS)


def test_evaluation_data_says_how_the_test_rows_were_chosen():
    assert read(card.evaluation_data(DATA, RESULTS)).splitlines() == [
        "Test rows | 1,114, which is 20.0 % of all",
        "Split | hash",
        "Compared with the champion on | 220 rows",
    ]


def test_evaluation_data_says_when_there_was_no_comparison():
    alone = {"decision": {"passed": True, "compared": False, "n": 0}}
    assert read(card.evaluation_data(DATA, alone)).endswith("champion on | there was no comparison")


def test_training_data_counts_classes_and_what_was_left_out():
    assert read(card.training_data(DATA)).splitlines() == [
        "Source | https://example.org/sms.tsv",
        f"SHA-256 of the source | {'ab' * 32}",
        "Rows | 5,572",
        "Training rows | 4,458",
        "Labels by people | none",
        "Columns left out | none",
        "Rows by class",
        "Class | Rows | Share",
        "ham | 4,825 | 86.6 %",
        "spam | 747 | 13.4 %",
        "Rows left out",
        "Left out because | Rows",
        "repeated inputs | 403",
    ]
    people = {"annotations": {"by": {"ann": 1200, "bob": 3}}, "left_out": {"customer": "id"}}
    assert read(card.training_data(DATA | people)).splitlines()[4:6] == [
        "Labels by people | 1,200 by ann, 3 by bob",
        "Columns left out | customer (id)",
    ]
    assert card.training_data({**DATA, "dropped": {"empty": 0}}).splitlines()[-1] == "No row was left out."


def test_quantitative_analyses_set_scores_beside_baseline_and_champion():
    assert read(card.quantitative_analyses(MODEL, RESULTS)).splitlines() == [
        "Scores on the test rows",
        "Metric | Score | 95 % interval | Baseline | Champion | Rows",
        "ROC AUC | 0.971 | 0.960 to 0.980 | 0.500 | 0.970 | 1,114",
        "Log loss | 0.110 | 0.090 to 0.130 | 0.390 | 0.120 | 1,114",
        "The baseline never looks at the input: it gives the training rows' most frequent class, or their mean.",
        "The champion was scored on 220 rows, all new to it.",
        "Accuracy by slice",
        "Slice | Rows | Score | 95 % interval",
        "short | 370 | 0.940 | 0.910 to 0.960",
        "long | 744 | 0.980 | 0.970 to 0.990",
        "Weakest: short, with 0.940 on 370 rows.",
        "Cross-validation within the training rows",
        "Metric | Mean | Lowest | Highest | Folds",
        "ROC AUC | 0.960 | 0.950 | 0.970 | 3",
        "Passed the gate",
        "- above the baseline",
    ]


def test_telling_features_stand_by_class_and_rank():
    model = {"telling": {"ham": ["word: lunch", "word: home"], "spam": ["word: free", "word: win"]}}
    assert read(card.telling(model)).splitlines() == [
        "The most telling first",
        "Rank | ham | spam",
        "1 | word: lunch | word: free",
        "2 | word: home | word: win",
    ]
    lost = {"telling": {"Column": ["age", "job"], "Loss of R² when shuffled": [0.25, -0.001]}}
    assert read(card.telling(lost)).splitlines()[1:] == [
        "Rank | Column | Loss of R² when shuffled",
        "1 | age | 0.250",
        "2 | job | -0.001",
    ]
    assert read(card.telling({})) == "It cannot be told what it goes by."
    rare = {"telling": {"ham": ["word: lunch", "word: home"], "rare": ["word: odd"]}}
    assert read(card.telling(rare)).splitlines()[-1] == "2 | word: home"


def test_the_weakest_slice_of_a_loss_is_the_highest():
    results = {**RESULTS, "slices": [{**row, "metric": "log_loss"} for row in RESULTS["slices"]]}
    assert "Weakest&#58; long, with 0.980 on 744 rows." in card.quantitative_analyses(MODEL, results)


def test_slices_that_meet_stand_apart():
    both = [{"slice": "short, new", "n": 41, "value": 0.9, "low": 0.8, "high": 1.0, "metric": "accuracy"}]
    lines = read(card.quantitative_analyses({}, {**RESULTS, "intersections": both})).splitlines()
    at = lines.index("Accuracy where two slices meet")
    assert lines[at : at + 4] == [
        "Accuracy where two slices meet",
        "Slice | Rows | Score | 95 % interval",
        "short, new | 41 | 0.900 | 0.800 to 1.000",
        "Weakest: short, new, with 0.900 on 41 rows.",
    ]


def test_without_slices_folds_and_champion_only_scores_and_a_rejection_are_shown():
    decision = {"passed": False, "reasons": ["a", "b"]}
    results = {**RESULTS, "champion": None, "slices": [], "decision": decision}
    text = card.quantitative_analyses({}, results)
    assert 'class="callout-warning"' in text
    lines = read(text).splitlines()
    assert lines[1] == "Metric | Score | 95 % interval | Baseline | Rows"
    assert lines[5:] == ["No slice was measured apart.", "Rejected by the gate", "- a", "- b"]


@pytest.mark.parametrize(
    ("lineage", "data", "warning"),
    [
        ({"run": "r", "git": None}, DATA, "not under version control"),
        ({"run": "r", "git": {"commit": "a", "dirty": True}}, DATA, "changes that were not committed"),
        ({"run": "adhoc-x", "git": {"commit": "a", "dirty": False}}, DATA, "by hand in a notebook"),
        ({"run": "r", "git": {"commit": "a", "dirty": False}}, {"test": 99}, "The test part has 99 rows"),
    ],
)
def test_caveats_add_what_the_record_itself_warns_of(lineage, data, warning):
    text = card.caveats("My own.", workflow="w", data=data, lineage=lineage)
    assert re.fullmatch(rf"My own\.\n\n- [^\n]*{warning}[^\n]*", text)


def test_a_clean_record_adds_no_caveat():
    assert card.caveats("My own.", workflow="w", data=DATA, lineage=LINEAGE) == "My own."


def test_hostile_facts_are_text_in_every_section():
    evil = "{{< env X >}}|<b>`$*"
    model = {
        "task": evil,
        "label": evil,
        "classes": [evil],
        "hyperparameters": {evil: evil},
        "cv_scores": {evil: [1.0]},
    }
    model |= {"prototype": {evil: {"type": evil, "nullable": False}}, "telling": {evil: [evil]}, "described": evil}
    data = {"rows": 2, "train": 1, "test": 1, "classes": {evil: 1}, "dropped": {evil: 1}, "source": evil}
    data |= {"source_sha256": evil, "split": evil}
    pin = {"kind": evil, "name": evil, "version": evil, "sha256": evil}
    lineage = {"run": evil, "time": evil, "git": {"commit": evil, "dirty": True}, "packages": {evil: evil}}
    lineage |= {"inputs": [pin], "by": evil}
    slices = [{"slice": evil, "value": 1, "low": 1, "high": 1, "n": 1, "metric": "accuracy"}]
    decision = {"passed": False, "metric": "roc_auc", "reasons": [evil], "compared": True, "n": 1}
    results = {**RESULTS, "slices": slices, "intersections": slices, "decision": decision, "gains": evil}
    sections = [
        card.summary(model=model, results=results),
        card.details(model, lineage, version=evil, sha256=evil),
        card.human_part("intended_use", evil, workflow=evil),
        card.factors("", results, workflow=evil),
        card.evaluation_data(data, results),
        card.training_data(data),
        card.quantitative_analyses(model, results),
        card.telling(model),
        card.caveats(evil, workflow=evil, data=data, lineage=lineage),
    ]
    assert not re.search(r"\{\{|<b>|\$|``", "\n".join(sections))
    assert {line.count("|") for line in table([{evil: evil}]).splitlines()} == {2}


def test_the_notebook_has_the_sections_of_the_paper_in_its_order():
    # Mitchell et al. (2019), figure 1
    cells = json.loads((ROOT / "notebooks/04-model-card.ipynb").read_text())["cells"]
    headings = ["".join(cell["source"])[3:] for cell in cells if "".join(cell["source"]).startswith("## ")]
    assert [heading for heading in headings if heading != "What it goes by"] == [
        "Model details",
        "Intended use",
        "Factors",
        "Metrics",
        "Evaluation data",
        "Training data",
        "Quantitative analyses",
        "Ethical considerations",
        "Caveats and recommendations",
    ]
