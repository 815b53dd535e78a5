"""Tables of any kind, end to end: five lines of params for a CSV that nobody has seen, and two real data sets."""

import html
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from pinmill.board import Board
from pinmill.model import load_model
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mean_absolute_error, r2_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

if TYPE_CHECKING:
    from conftest import Workplace

TABULAR = "run: {notebooks: {train: notebooks/02-train-tabular.ipynb}}\n"
QUICK = "draws: 50\ncv: 2\n"


def run_table(place: "Workplace", frame: pd.DataFrame, *, label: str, more: str = "", code: int | None = 0) -> Board:
    """Run the five-line workflow `mine` on a CSV of this table."""
    frame.to_csv(place.root / "mine.csv", index=False)
    place.params(f"workflow: mine\nsource: mine.csv\nlabel: {label}\n{TABULAR}{more}", "mine")
    place.pinmill("run", "mine", code=code)
    return Board(place.root / "outputs" / "pins")


def executed_text(place: "Workplace", stem: str, workflow: str = "mine") -> str:
    """All that a person reads in the outputs of an executed notebook; its only one."""
    (path,) = (place.root / "outputs" / "runs" / workflow).glob(f"*/{stem}.ipynb")
    outputs = [output for cell in json.loads(path.read_text())["cells"] for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"], "a warning stands in the notebook"
    shown = (json.dumps(output.get("data", output.get("text", "")), ensure_ascii=False) for output in outputs)
    return html.unescape("\n".join(shown))


def test_a_table_of_everything_runs_and_says_what_it_left_out(workplace: "Workplace") -> None:
    rng = np.random.default_rng(7)
    n = 600
    age, city, day = rng.normal(40, 12, n).round(1), rng.integers(0, 200, n), rng.integers(0, 700, n)
    score = (age - 40) / 6 + (city % 3 - 1) * 2 + rng.normal(0, 1, n)
    label = np.select([np.arange(n) % 200 == 0, score > 1, score < -1], [7, 2, 0], default=1)  # class 7: three rows
    frame = pd.DataFrame({
        "customer": np.arange(5000, 5000 + n),
        "age": np.where(rng.random(n) < 0.1, np.nan, age),
        "city": [f"$city_$ {number:03d}" for number in city],  # two $ would begin a formula in a figure
        "joined": (pd.Timestamp("2024-01-01") + pd.to_timedelta(day, unit="D")).strftime("%Y-%m-%d"),
        "member": rng.random(n) < 0.5,
        "country": "FR",
        "nothing": None,
        "class": label,
    })  # fmt: skip
    board = run_table(workplace, frame, label="class", more="estimator: boosting\n" + QUICK)
    data, model = board.pin("mine-data"), board.pin("mine-model")
    assert data.facts["left_out"] == {"customer": "id", "country": "constant", "nothing": "empty"}
    assert data.facts["kinds"] == {"age": "number", "city": "category", "joined": "date", "member": "boolean"}
    assert (data.facts["task"], data.facts["rows"]) == ("multiclass", n)
    assert {name: column["type"] for name, column in model.facts["prototype"].items()} == {
        "age": "number", "city": "text", "joined": "datetime", "member": "boolean"
    }  # fmt: skip
    shown = executed_text(workplace, "01-prepare")
    assert "customer is left out (id): every row has a value of its own" in shown
    row = {"age": 61.5, "city": "$city_$ 002", "joined": "2026-11-20", "member": True}
    answer = workplace.json("predict", "mine", json.dumps(row))
    expected = load_model(board.read_file(model)).predict_proba(
        pd.DataFrame({**row, "joined": pd.Timestamp("2026-11-20")}, index=[0])
    )
    assert answer["probability"] == pytest.approx(dict(zip(map(str, model.facts["classes"]), expected[0], strict=True)))
    for stem in ("02-train-tabular", "03-evaluate", "04-model-card"):
        executed_text(workplace, stem)  # no warning stands there


def test_numbers_only(workplace: "Workplace") -> None:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(rng.normal(size=(300, 4)).round(3), columns=list("abcd"))
    board = run_table(workplace, frame.assign(y=(frame.a + frame.b > 0).astype(int)), label="y", more=QUICK)
    metrics = board.read_json(board.pin("mine-metrics"))["metrics"]
    found = {metric["metric"]: metric["value"] for metric in metrics}
    data = board.read_table(board.pin("mine-data"))
    train, test = data[data._part == "train"], data[data._part == "test"]
    reference = make_pipeline(StandardScaler(), LogisticRegression()).fit(train[list("abcd")], train.y)
    expected = roc_auc_score(test.y, reference.predict_proba(test[list("abcd")])[:, 1])
    assert found["roc_auc"] == pytest.approx(expected, abs=1e-6)
    notebook, out = "notebooks/02-train-tabular.ipynb", workplace.root / "out.ipynb"
    papermill = [Path(sys.executable).with_name("papermill"), notebook, out, "-f", "params/mine.yaml"]
    subprocess.run(papermill, cwd=workplace.root, env=workplace.environ(), check=True, capture_output=True)
    scheduled, by_hand = (board.pin("mine-model", version) for version in board.versions("mine-model"))
    assert by_hand.sha256 == scheduled.sha256
    assert by_hand.lineage["stage"] == "02-train-tabular"


def test_texts_of_four_classes_are_seen_without_being_named(workplace: "Workplace") -> None:
    topics = {"fruit": "ripe sweet apples and pears", "cars": "fast engine and four wheels",
              "sea": "waves wind and salty water", "money": "bank account and interest rate"}  # fmt: skip
    rows = [(f"{words} seen for the {n}th time today", topic) for n in range(60) for topic, words in topics.items()]
    board = run_table(workplace, pd.DataFrame(rows, columns=["story", "topic"]), label="topic", more=QUICK)
    facts = board.pin("mine-data").facts
    assert (facts["text"], facts["features"], facts["task"]) == (["story"], [], "multiclass")
    assert {m["metric"]: m["value"] for m in board.read_json(board.pin("mine-metrics"))["metrics"]}["accuracy"] == 1.0


@pytest.mark.parametrize("estimator", ["linear", "boosting"])
def test_two_texts_and_a_number_in_one_pipeline(workplace: "Workplace", estimator: str) -> None:
    rng = np.random.default_rng(5)
    subject = np.where(rng.random(400) < 0.5, "good news for all of you", "bad news for all of you")
    body = np.where(rng.random(400) < 0.5, "we win the cup again this year", "we lose the cup again this year")
    size = rng.normal(size=400).round(4)
    label = (np.char.startswith(subject, "good") & np.char.startswith(body, "we win")).astype(str)
    frame = pd.DataFrame({"my__subject": subject, "body": body, "size": size, "happy": label})
    more = f"text: [my__subject, body]\nfeatures: size\nestimator: {estimator}\n{QUICK}"
    board = run_table(workplace, frame, label="happy", more=more)
    assert {m["metric"]: m["value"] for m in board.read_json(board.pin("mine-metrics"))["metrics"]}["accuracy"] == 1.0
    assert list(board.pin("mine-model").facts["prototype"]) == ["my__subject", "body", "size"]


def test_a_class_of_three_rows_among_two_and_columns_that_cannot_be_used(workplace: "Workplace") -> None:
    rng = np.random.default_rng(11)
    frame = pd.DataFrame({"x": rng.normal(size=200).round(3), "odd": [[1]] * 200, "either": [1, "one"] * 100})
    frame["y"] = np.where(np.arange(200) % 67 == 0, "yes", "no")  # rows 0, 67 and 134
    frame.to_json(workplace.root / "mine.jsonl", orient="records", lines=True)
    workplace.params(f"workflow: mine\nsource: mine.jsonl\nlabel: y\nsplit: random\n{TABULAR}draws: 50\n", "mine")
    workplace.pinmill("run", "mine", code=3)  # nothing can be learnt here
    board = Board(workplace.root / "outputs" / "pins")
    facts, model = board.pin("mine-data").facts, board.pin("mine-model").facts
    assert (facts["left_out"], facts["classes"]) == ({"odd": "nested", "either": "mixed"}, {"no": 197, "yes": 3})
    train = board.read_table(board.pin("mine-data")).query("_part == 'train'")
    assert len(model["cv_scores"]["roc_auc"]) == min(3, (train.y == "yes").sum())
    assert board.read_table(board.pin("mine-data"))["either"].tolist()[:2] == ["1", "one"]


def test_a_table_for_the_text_notebook_says_which_one_to_take(workplace: "Workplace") -> None:
    (workplace.root / "mine.csv").write_text("a,b,y\n" + "".join(f"{n % 7},{n % 5},{n % 2}\n" for n in range(100)))
    workplace.params("workflow: mine\nsource: mine.csv\nlabel: y\n", "mine")
    said = workplace.pinmill("run", "mine", code=4).stderr
    assert "run: {notebooks: {train: notebooks/02-train-tabular.ipynb}}" in said


def test_bank_as_published_reaches_what_one_hot_logistic_regression_reaches(
    workplace: "Workplace", shared_data: Path
) -> None:
    workplace.pinmill("run", "bank", "--set", "draws=50", PINMILL_DATA=str(shared_data))
    board = Board(workplace.root / "outputs" / "pins")
    data = board.read_table(board.pin("bank-data"))
    assert (len(data), "duration" in board.pin("bank-model").facts["prototype"]) == (45_211, False)
    found = {m["metric"]: m["value"] for m in board.read_json(board.pin("bank-metrics"))["metrics"]}
    train, test = data[data._part == "train"], data[data._part == "test"]
    inputs = board.pin("bank-data").facts["features"]
    texts = [name for name in inputs if not pd.api.types.is_numeric_dtype(train[name])]
    prepare = make_column_transformer((OneHotEncoder(), texts), remainder=StandardScaler())
    reference = make_pipeline(prepare, LogisticRegression(max_iter=2000)).fit(train[inputs], train.target)
    expected = roc_auc_score(test.target == "yes", reference.predict_proba(test[inputs])[:, 1])
    assert found["roc_auc"] > expected + 0.01  # trees see what weights do not
    model = load_model(board.read_file(board.pin("bank-model")))
    own = roc_auc_score(test.target == "yes", model.predict_proba(test[inputs])[:, 1])
    assert found["roc_auc"] == pytest.approx(own, abs=1e-12)


def test_ads_predicts_likes_from_what_the_issue_names(workplace: "Workplace", shared_data: Path) -> None:
    workplace.pinmill("run", "ads", "--set", "draws=50", PINMILL_DATA=str(shared_data))
    board = Board(workplace.root / "outputs" / "pins")
    data, facts = board.read_table(board.pin("ads-data")), board.pin("ads-data").facts
    assert (facts["task"], facts["rows"], facts["dropped"]["no label"]) == ("regression", 225, 22)
    assert len(facts["features"]) == 9
    test = data[data._part == "test"]
    predicted = load_model(board.read_file(board.pin("ads-model"))).predict(test[facts["features"]])
    found = {m["metric"]: m for m in board.read_json(board.pin("ads-metrics"))["metrics"]}
    assert found["mae"]["value"] == pytest.approx(mean_absolute_error(test.like_count, predicted))
    assert found["r2"]["value"] == pytest.approx(r2_score(test.like_count, predicted))
    assert found["mae"]["low"] < found["mae"]["value"] < found["mae"]["high"]
    shown = executed_text(workplace, "03-evaluate", "ads")
    assert shown.count('"image/svg+xml":') == 3  # predicted and true, residuals, calibration
