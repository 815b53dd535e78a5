"""A model trained elsewhere: what is refused with which words, what is kept, and what becomes of it afterwards."""

import hashlib
import io
import json
import pickle
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import skops.io
from pinmill.board import Board
from pinmill.champion import rollback
from pinmill.errors import ModelError, PinNotFoundError, RunError, UntrustedTypeError
from pinmill.model import load_model, save_model
from pinmill.progress import LineProgress
from pinmill.project import Project
from pinmill.reproduce import reproduce
from pinmill.runs import list_runs, read_record
from pinmill.trace import read_trace
from pinmill.upload import MAX_BYTES, find_problems, write_candidate
from pinmill.version import now_utc
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import LinearSVC

SAID = {"by": "ada", "note": "words only"}
TEXT = {"text": {"type": "text", "dtype": "object", "nullable": False, "examples": ["win a prize", "see you"]}}
WANTED = {"task": "binary", "label": "label", "positive": "spam", "classes": ["ham", "spam"], "prototype": TEXT}
ROWS = pd.DataFrame({"text": ["win a free prize", "see you at lunch", "free pills", "the report is attached"]})
LABELS = ["spam", "ham", "spam", "ham"]


def make_model(classifier=None, column: str = "text"):
    words = ColumnTransformer([("words", TfidfVectorizer(), column)])
    return make_pipeline(words, classifier or LogisticRegression())


def fit(classifier=None, labels=LABELS):
    return make_model(classifier).fit(ROWS, labels)


@pytest.fixture
def project(trained) -> Project:
    """A project whose workflow `tiny`, of spam and ham, has a champion."""
    return Project(trained.root, {})


def read_champion_version(project: Project) -> str:
    return project.board.read_json(project.board.pin("tiny-champion"))["version"]


# What is refused


class Trap:
    """What a pickle could do."""

    def __reduce__(self):
        return (Path("trapped").touch, ())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "Not a model file, or malformed"),
        (pickle.dumps(Trap()), "Not a model file, or malformed"),
        (skops.io.dumps(Trap()), "types that are not allowed: .*Trap"),
        (skops.io.dumps({"a": 1}), "1 problem in the model: it is a dict; an estimator, or a pipeline of them, was"),
        (skops.io.dumps(make_model()), "1 problem in the model: the Pipeline is not fitted"),
    ],
    ids=["nothing", "pickle", "unknown type", "no model", "not fitted"],
)
def test_what_is_no_fitted_model_is_refused_and_nothing_is_kept(project, tmp_path, monkeypatch, data, said) -> None:
    monkeypatch.chdir(tmp_path)
    before = project.board.versions("tiny-model")
    with pytest.raises(ModelError, match=said):
        write_candidate(project, "tiny", data, **SAID)
    assert project.board.versions("tiny-model") == before
    assert not Path("trapped").exists()


def test_a_file_that_unpacks_to_too_much_is_refused(project) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("schema.json", "w") as entry:
        for _ in range(257):
            entry.write(bytes(2**20))
    assert len(target.getvalue()) < 2**20
    with pytest.raises(ModelError, match=f"unpacks to {257 * 2**20:,} bytes; at most {MAX_BYTES:,} are read"):
        write_candidate(project, "tiny", target.getvalue(), **SAID)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (fit(), []),
        (fit(labels=["spam", "Ham", "x", "Ham"]), [
            "it does not know the class \"ham\" of 'label'",
            "it knows a class \"Ham\", which 'label' has not", "it knows a class \"x\", which 'label' has not",
        ]),
        (make_model(LinearRegression()).fit(ROWS, [0, 1, 2, 3]), [
            "it predicts an amount, but 'label' is a class here (binary)",
            "it gives no probabilities (predict_proba), which 03-evaluate needs",
        ]),
        (fit(LinearSVC()), ["it gives no probabilities (predict_proba), which 03-evaluate needs"]),
        # fitted on a list of texts, it takes a DataFrame for the list of its columns
        (make_pipeline(CountVectorizer(), LogisticRegression()).fit(ROWS["text"].tolist(), LABELS), [
            "3 rows with the columns text gave predictions of shape (1,). "
            "Fit it on a DataFrame with these columns, not on a list or Series",
        ]),
        (make_model(column="words").fit(ROWS.rename(columns={"text": "words"}), LABELS), [
            "it fails on the prototype's examples with ValueError: columns are missing: {'words'}",
        ]),
    ],
    ids=["right", "other classes", "another task", "no probabilities", "a list of texts", "other columns"],
)  # fmt: skip
def test_all_that_is_wrong_with_a_model_is_told(model, said: list[str]) -> None:
    assert find_problems(model, WANTED) == said


def test_classes_of_other_types_are_other_classes() -> None:
    wanted = {**WANTED, "classes": ["0", "1"], "positive": "1"}
    problems = find_problems(fit(labels=[1, 0, 1, 0]), wanted)
    assert [problem.split(",")[0] for problem in problems] == [
        "it does not know the class \"0\" of 'label'", "it does not know the class \"1\" of 'label'",
        "it knows a class 0", "it knows a class 1",
    ]  # fmt: skip


@pytest.mark.parametrize(("nullable", "count"), [(False, 0), (True, 1)])
def test_a_model_has_to_take_the_missing_values_that_may_be(nullable: bool, count: int) -> None:
    amounts = pd.DataFrame({"age": [1.0, 2.0, 3.0, 4.0], "city": ["a", "b", "a", "b"]})
    parts = ColumnTransformer([("city", OneHotEncoder(), ["city"])], remainder="passthrough")
    prototype = {
        "age": {"type": "number", "dtype": "float64", "nullable": nullable, "examples": [1.0, 2.5]},
        "city": {"type": "category", "dtype": "object", "nullable": False, "examples": ["a"], "categories": ["a", "b"]},
    }
    problems = find_problems(
        make_pipeline(parts, LogisticRegression()).fit(amounts, LABELS), {**WANTED, "prototype": prototype}
    )
    assert [problem[:54] for problem in problems] == ["it fails on the prototype's examples with ValueError: "] * count


def test_an_amount_has_to_be_a_finite_number() -> None:
    wanted = {**WANTED, "task": "regression", "classes": [], "positive": None}
    model = make_model(LinearRegression()).fit(ROWS, [0.0, 1.0, 2.0, 3.0])
    assert find_problems(model, wanted) == []
    classes = "it predicts classes, but 'label' is an amount here (regression)"
    number = "it predicts what is no finite number"
    assert find_problems(fit(), wanted) == [classes, f"{number} for the prototype's examples"]
    model[-1].intercept_ = float("nan")
    assert find_problems(model, wanted) == [f"{number} for the prototype's examples"]


def test_a_note_is_bounded_and_told_with_all_else(project) -> None:
    with pytest.raises(ModelError) as caught:
        write_candidate(project, "tiny", save_model(make_model()), by="ada", note="x" * 501)
    assert str(caught.value) == (
        "2 problems in the model: its note has 501 characters; at most 500 are kept; "
        "the Pipeline is not fitted. Fit it before it is saved. Nothing was kept; send it again, corrected."
    )


def test_a_workflow_without_a_trained_model_takes_none(workplace) -> None:
    project = Project(workplace.root, {})
    with pytest.raises(ModelError, match=r"tiny has no trained model .* Train one first, with: pinmill run tiny"):
        write_candidate(project, "tiny", save_model(fit()), **SAID)
    assert project.board.names() == []


# What is kept


def test_a_candidate_is_kept_with_facts_like_a_trained_one_and_what_is_known_of_its_origin(project) -> None:
    model, trained = fit(), project.board.pin("tiny-model")
    data = skops.io.dumps(model)
    pin = write_candidate(project, "tiny", data, **SAID)
    assert project.board.pin("tiny-model") == pin
    assert (pin.type, [*pin.files]) == ("file", ["model.skops"])
    assert pin.facts["described"] == (
        "LogisticRegression, uploaded by ada (words only); on which rows it was trained is not known"
    )
    same = ("task", "label", "positive", "prototype", "classes")
    assert {fact: pin.facts[fact] for fact in same} == {fact: trained.facts[fact] for fact in same}
    assert (pin.facts["hyperparameters"], pin.facts["cv_scores"]) == ({}, {})
    assert [part["class"] for part in pin.facts["structure"]] == [
        "ColumnTransformer",
        "TfidfVectorizer",
        "LogisticRegression",
    ]
    assert (pin.facts["telling"].keys(), pin.facts["telling"]["spam"][0]) == ({"ham", "spam"}, "word: free")
    run = pin.lineage["run"]
    assert run.startswith("upload-")
    assert pin.lineage == {
        "run": run, "stage": "upload", "by": "ada", "note": "words only", "parameters": {}, "seed": None, "git": None,
        "lock": None, "code": None,
        "inputs": [
            {"kind": "source", "name": "upload by ada", "version": "", "sha256": hashlib.sha256(data).hexdigest()}
        ],
    }  # fmt: skip
    kept = load_model(project.board.read_file(pin))
    assert kept.predict_proba(ROWS).tolist() == model.predict_proba(ROWS).tolist()


def test_the_same_fit_has_the_same_bytes_however_it_is_packed(project) -> None:
    again = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(fit()))) as packed, zipfile.ZipFile(again, "w") as archive:
        for name in packed.namelist():
            archive.writestr(name, packed.read(name))
        archive.writestr("hidden", b"what nobody asked for")
    pins = [write_candidate(project, "tiny", data, **SAID) for data in (save_model(fit()), again.getvalue())]
    assert pins[0].sha256 == pins[1].sha256 == hashlib.sha256(save_model(fit())).hexdigest()
    assert pins[0].version < pins[1].version
    assert b"hidden" not in project.board.read_file(pins[1])


def test_the_data_that_it_was_trained_on_is_an_input_where_it_is_told(project) -> None:
    data = project.board.pin("tiny-data")
    pin = write_candidate(project, "tiny", save_model(fit()), **SAID, trained_on=data.version)
    given = {"kind": "data", "name": "tiny-data", "version": data.version, "sha256": data.sha256}
    assert pin.lineage["inputs"][1:] == [given]
    assert pin.facts["described"] == "LogisticRegression, uploaded by ada (words only)"
    with pytest.raises(PinNotFoundError, match="tiny-data has no version '20200101T000000Z-00000'"):
        write_candidate(project, "tiny", save_model(fit()), **SAID, trained_on="20200101T000000Z-00000")


def test_without_a_champion_the_newest_trained_model_says_what_is_wanted(project) -> None:
    board = Board(project.root / "other")
    trained = project.board.pin("tiny-model")
    data = project.board.read_file(trained)
    for lineage in (trained.lineage, {**trained.lineage, "run": "upload-x"}):
        wrong = {"prototype": {}} if lineage["run"] == "upload-x" else {}
        board.write_file("tiny-model", data, file_name="model.skops", facts={**trained.facts, **wrong}, lineage=lineage)
    other = Project(project.root, {"PINMILL_BOARD": str(project.root / "other")})
    assert write_candidate(other, "tiny", save_model(fit()), **SAID).facts["prototype"] == trained.facts["prototype"]


# What becomes of it


def last_run(project: Project):
    folder = project.runs_folder("tiny")
    return read_record(folder, list_runs(folder)[0])


def test_an_upload_goes_through_evaluation_card_and_every_command(trained) -> None:
    project = Project(trained.root, {})
    first = read_champion_version(project)
    data = project.board.read_table(project.board.pin("tiny-data"))
    rows = data[data["_part"] == "train"]
    model = make_model(LogisticRegression(C=10)).fit(rows[["text"]], rows["label"])
    given = write_candidate(project, "tiny", save_model(model), by="ada", note="<b>words</b> {{< env HOME >}}").version
    trained.pinmill("run", "tiny", "--model", given)
    record = last_run(project)
    assert (record.status, record.champion_after, record.champion_before) == ("succeeded", given, first)
    assert record.reasons[-1].startswith("The model was given, not trained by this run")
    assert {*record.pages} == {"data", "evaluation", "model-card"}
    card = (trained.root / "reports/_pages/tiny/model-card.html").read_text()
    assert "LogisticRegression, uploaded by ada (&lt;b&gt;words" in card.replace("&#x27;", "'")
    assert "<b>words</b>" not in card
    assert "; on which rows it was trained is not known" in card
    assert not (trained.root / "reports/_pages/tiny/training.html").exists()

    scores = json.loads(trained.pinmill("predict", "tiny", "win a free prize now", "--json").stdout)
    assert (scores["label"], scores["version"]) == ("spam", given)
    models = {m["version"]: (m["status"], m["by"]) for m in trained.json("models", "tiny")}
    assert models[given] == ("champion", "ada")
    compared = trained.json("compare", "tiny", first, given)
    assert compared["note"] == "Not scored: the model or the data of B cannot be read."
    trained.pinmill("compare", "tiny", given, first, "--page")
    assert trained.json("pins", "prune", "--keep", "1")["pins"] == []
    trained.pinmill("export", "vetiver", "tiny")
    traced = read_trace(project, given)
    assert (traced["verifies"], traced["status"], traced["by"]) == (True, "champion", "ada")
    assert traced["run"]["error"].endswith("is no run: that model was uploaded, so it cannot be made again here")
    with pytest.raises(RunError, match=r"that model was uploaded, so it cannot be made again here"):
        reproduce(project, "tiny", given, LineProgress(io.StringIO()))
    assert [pin["sha256"] for pin in traced["inputs"]] == [hashlib.sha256(save_model(model)).hexdigest()]

    trained.pinmill("run", "tiny")  # nothing is new
    again = last_run(project)
    assert (again.status, again.champion_after, {s.status for s in again.stages}) == ("succeeded", given, {"reused"})
    with (trained.root / "tiny.csv").open("a") as file:
        file.writelines(f"win a free prize number {n},spam\nsee you at lunch number {n},ham\n" for n in range(500, 520))
    trained.pinmill("run", "tiny")
    unknown = "Not compared with the champion: the rows that it was trained on are not known."
    assert any(unknown in reason for reason in last_run(project).reasons)
    rollback(project.board, "tiny", by="ada", why="complaints", when=now_utc())
    assert read_champion_version(project) == given


def test_an_upload_whose_data_is_told_is_compared_on_rows_that_neither_was_trained_on(trained) -> None:
    project = Project(trained.root, {})
    first, pin = read_champion_version(project), project.board.pin("tiny-data")
    data = project.board.read_table(pin)
    rows = data[data["_part"] == "train"]
    model = make_model(DummyClassifier()).fit(rows[["text"]], rows["label"])
    given = write_candidate(project, "tiny", save_model(model), **SAID, trained_on=pin.version).version
    trained.pinmill("run", "tiny", "--model", given, code=3)
    record = last_run(project)
    assert (record.champion_after, record.outcome) == (first, "rejected by the gate")
    assert not any("The model was given" in reason for reason in record.reasons)
    n = (data["_part"] == "test").sum()
    assert any("may be worse than the champion: roc_auc" in r and f"{n} rows" in r for r in record.reasons)
    compared = trained.json("compare", "tiny", "champion", given)
    assert compared["n"] == n


def test_a_type_that_is_not_allowed_is_named(project) -> None:
    with pytest.raises(UntrustedTypeError, match="pathlib"):
        write_candidate(project, "tiny", skops.io.dumps(Path("x")), **SAID)
