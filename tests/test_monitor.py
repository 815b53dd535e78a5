"""Monitoring from end to end: real kernels over simulated traffic, with labels that come later and a sudden shift."""

import html
import json
import random
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import sqlalchemy as sql
from nbclient import NotebookClient
from pinmill.alerts import judge, read_rules
from pinmill.history import COLUMNS
from pinmill.project import open_project
from pinmill.store import ANNOTATIONS, CALLS, Annotation, Store, stamp
from pinmill.upload import write_candidate
from sklearn.metrics import accuracy_score
from traffic_maker import Spell, add_traffic, list_months, repeat_calls

UNTIL = datetime(2026, 11, 3, 9, tzinfo=UTC)
MONTHS = list_months(datetime(2026, 4, 1, tzinfo=UTC), 8)  # the eighth is running at UNTIL
NAMES = [f"{start:%Y-%m-%d}" for start, _ in MONTHS]
TINY = """\
workflow: tiny
title: Tiny
source: tiny.csv
text: text
positive: spam
cv: 0
draws: 50
gate_min_n: 20
period: month
until: "2026-11-03T09:00"
monitor_metrics: [accuracy, roc_auc, balanced_accuracy_score]
"""
PHRASES = {
    "spam": ["win a free prize now", "cheap pills online", "claim your free reward", "urgent offer expires today"],
    "ham": ["see you at lunch tomorrow", "the report is attached", "call me when home", "thanks for the notes"],
}
LATER = {
    "spam": ["subscribe to my channel everybody", "check out this brand new video"],
    "ham": ["the singer looks amazing here", "who is listening in november"],
}


def make_texts(n: int, phrases: dict[str, list[str]], *, seed: int) -> pd.DataFrame:
    """Labelled texts of such phrases, each with a number of its own of six digits; one in twelve has a wrong label."""
    chance, labels = random.Random(seed), list(phrases)
    numbers = chance.sample(range(100_000, 1_000_000), n)
    rows = [(chance.choice(phrases[label]), number, label) for number in numbers for label in [chance.choice(labels)]]
    wrong = {"spam": "ham", "ham": "spam"}
    told = [(f"{phrase} {n}", wrong[label] if chance.random() < 1 / 12 else label) for phrase, n, label in rows]
    return pd.DataFrame(told, columns=["text", "label"])


def begin(trained, root: Path):
    """A fresh project like that of `trained`, nothing run yet."""
    workplace = trained.copy(root)
    for folder in ("outputs", "reports"):
        shutil.rmtree(root / folder)
    return workplace


def store_of(workplace) -> Store:
    return open_project(workplace.root, {}).store


def monitor(workplace, workflow: str = "tiny", **given: object) -> tuple[pd.DataFrame, dict, str]:
    """What a run of the job wrote: the history, the pin's facts, and the page."""
    words = [word for name, value in given.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    workplace.pinmill("run", workflow, "--job", "monitor", *words)
    board = open_project(workplace.root, {}).board
    pin = board.pin(f"{workflow}-monitoring")
    pages = workplace.root / "reports/_pages" / workflow / pin.lineage["run"]
    return board.read_table(pin), pin.facts, (pages / "monitoring.html").read_text()


def read_text(page: str) -> str:
    """The words of a page, without its figures."""
    body = re.sub(r"<(style|script|svg)\b.*?</\1>", " ", page.partition("<body")[2], flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def find(history: pd.DataFrame, subject: str, metric: str, column: str = "") -> pd.DataFrame:
    """The rows of one metric, by period."""
    rows = history[(history["subject"] == subject) & (history["metric"] == metric) & (history["column"] == column)]
    return rows.set_index("period")


@pytest.fixture(scope="module")
def called_once(trained_once, tmp_path_factory):
    """A project with seven months of traffic, of another kind from the sixth on. Not to be changed: take `called`."""
    workplace = begin(trained_once, tmp_path_factory.mktemp("called") / "project")
    make_texts(600, PHRASES, seed=1).to_csv(workplace.root / "tiny.csv", index=False)
    workplace.params(TINY)
    workplace.pinmill("run", "tiny")
    usual, other = make_texts(1500, PHRASES, seed=2), make_texts(800, LATER, seed=3)
    spells = [Spell(*month, usual, 500, 0.3) for month in MONTHS[:5]]
    spells += [Spell(*month, other, 500, 0.3, errors=0.02) for month in MONTHS[5:7]]
    spells += [Spell(MONTHS[7][0], UNTIL, other, 40)]
    add_traffic(workplace.root, "tiny", spells, label="label", until=UNTIL)
    return workplace


@pytest.fixture(scope="module")
def watched(called_once, tmp_path_factory):
    """That project, monitored once: (project, history, facts, page)."""
    workplace = called_once.copy(tmp_path_factory.mktemp("watched") / "project")
    return workplace, *monitor(workplace)


@pytest.fixture
def called(called_once, tmp_path: Path):
    return called_once.copy(tmp_path / "project")


def test_a_shift_in_the_sixth_month_is_found_in_it_and_nothing_before(watched) -> None:
    _, history, _, _ = watched
    shifted = find(history, "input", "shifted_columns")["value"]
    assert shifted.reindex(NAMES).tolist()[:7] == [0, 0, 0, 0, 0, 1, 1]
    rules = read_rules([{"metric": "shifted_columns", "direction": "above", "threshold": 0}])
    fired = [
        any(each["firing"] for each in judge(rules, history, complete=NAMES[:n], length="month")) for n in range(1, 8)
    ]
    assert fired == [False] * 5 + [True] * 2


def test_the_pin_tells_the_alerts_that_fire_and_the_champion(watched) -> None:
    workplace, history, facts, page = watched
    firing = [each for each in facts["alerts"] if each["firing"]]
    assert {(each["metric"], each["period"]) for each in firing} == {("shifted_columns", "2026-10-01")}
    assert facts["champion"] == open_project(workplace.root, {}).board.latest("tiny-model")
    assert (facts["period"], facts["judged"], facts["periods"]) == ("month", "2026-10-01", 8)
    assert list(history.columns) == COLUMNS
    for each in firing:
        assert each["text"] in read_text(page)


def test_the_numbers_are_those_of_the_store(watched) -> None:
    workplace, history, _, _ = watched
    store = store_of(workplace)
    calls = pd.DataFrame([row._mapping for row in store.read(sql.select(CALLS))])
    calls["month"] = calls["time"].str[:7] + "-01"
    by_month = calls.groupby("month")
    requests = by_month["request"].nunique()
    refused = calls[calls["status"] == 422].groupby("month")["request"].nunique().reindex(NAMES, fill_value=0)
    for metric, expected in {
        "requests": requests,
        "rows": by_month["input_hash"].agg(lambda hashes: (hashes != "").sum()),
        "error_share": refused / requests,
    }.items():
        assert find(history, "traffic", metric)["value"].tolist() == pytest.approx(expected.tolist()), metric
    truth = store.read_annotations("tiny").set_index("hash")["label"]
    first = dict(store.read(sql.select(ANNOTATIONS.c.hash, sql.func.min(ANNOTATIONS.c.created)).group_by("hash")))
    known = calls[calls["input_hash"].isin(truth.index)]
    known = known[known["time"] < known["input_hash"].map(first)]
    known = known.assign(truth=known["input_hash"].map(truth), told=[output["label"] for output in known["output"]])
    accuracy = find(history, "score", "accuracy")
    for month, rows in known.groupby("month"):
        assert accuracy["value"][month] == pytest.approx(accuracy_score(rows["truth"], rows["told"]))
        assert accuracy["n"][month] == len(rows)
    assert accuracy["value"]["2026-08-01"] > 0.8 > accuracy["value"]["2026-10-01"]


def test_the_page_says_it_first_shows_it_and_is_small(watched) -> None:
    _, history, _, page = watched
    text = read_text(page)
    score = find(history, "score", "accuracy").loc["2026-10-01"]
    told = f"its Accuracy was {score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f}) on {score['n']} calls"
    assert re.search(rf"2 alerts fire\. In October 2026 {re.escape(told)} with a label, worse than the 0\.9", text)
    assert "1 of 1 input column (text) shifted." in text
    assert "true labels" not in text
    assert page.count("<figure") == 4
    assert len(page) < 2_000_000
    assert "http://" not in re.sub(r"http://www\.w3\.org|http://purl\.org|http://creativecommons\.org", "", page)


def test_again_it_is_the_same_and_a_label_that_came_later_counts_in_its_month(watched, tmp_path: Path) -> None:
    workplace = watched[0].copy(tmp_path / "project")
    history, facts, _ = monitor(workplace)
    pd.testing.assert_frame_equal(history, watched[1])
    assert facts["alerts"] == watched[2]["alerts"]
    assert not history.duplicated(["period", "subject", "column", "metric"]).any()
    store = store_of(workplace)
    labelled = set(store.read_annotations("tiny")["hash"])
    calls = store.read(sql.select(CALLS).where(CALLS.c.input_hash != "").order_by(CALLS.c.id))
    months = {}
    for call in calls:
        months.setdefault(call.input_hash, set()).add(call.time[:7])
    late = next(call for call in calls if months[call.input_hash] == {"2026-05"} and call.input_hash not in labelled)
    said = [Annotation(late.input_hash, {"text": late.input}, "ham", "late", "given")]
    store.add_annotations("tiny", said, annotator="eve", when=UNTIL)
    grown, _, _ = monitor(workplace)
    times = sum(call.input_hash == late.input_hash for call in calls)
    more = find(grown, "score", "accuracy")["n"] - find(history, "score", "accuracy")["n"]
    assert more.to_dict() == {name: times * (name == "2026-05-01") for name in NAMES}
    others = [each[each["subject"] != "score"].reset_index(drop=True) for each in (grown, history)]
    pd.testing.assert_frame_equal(*others)


def test_plain_papermill_and_run_all_give_the_history_of_the_scheduled_run(watched, tmp_path: Path) -> None:
    workplace = watched[0].copy(tmp_path / "project")
    command = [Path(sys.executable).with_name("papermill"), "notebooks/05-monitor.ipynb", tmp_path / "out.ipynb"]
    subprocess.run(
        [*command, "-f", "params/tiny.yaml", "--no-progress-bar"],
        cwd=workplace.root, env=workplace.environ(), check=True, capture_output=True,
    )  # fmt: skip
    notebook = nbformat.read(workplace.root / "notebooks/05-monitor.ipynb", as_version=4)
    parameters = notebook.cells[2]
    parameters.source = parameters.source.replace('workflow: str = "docstrings"', 'workflow: str = "tiny"')
    folder = workplace.root / "notebooks"
    client = NotebookClient(notebook, kernel_name="python3", timeout=300, resources={"metadata": {"path": str(folder)}})
    client.execute(env=workplace.environ(JPY_SESSION_NAME=str(folder / "05-monitor.ipynb")))
    board = open_project(workplace.root, {}).board
    scheduled, *by_hand = (board.pin("tiny-monitoring", version) for version in board.versions("tiny-monitoring"))
    assert [pin.lineage["run"][:6] for pin in by_hand] == ["adhoc-", "adhoc-"]
    assert [(pin.sha256, pin.facts) for pin in by_hand] == [(scheduled.sha256, scheduled.facts)] * 2


def test_without_calls_or_a_champion_it_says_so(trained, tmp_path: Path) -> None:
    empty = begin(trained, tmp_path / "empty")
    history, facts, page = monitor(empty)
    assert not (empty.root / "outputs/pinmill.sqlite").exists()
    assert (set(history["subject"]), facts["champion"]) == ({"traffic"}, None)
    assert "There is no champion" in read_text(page)
    history, facts, page = monitor(trained)
    assert find(history, "traffic", "requests")["value"].tolist() == [0.0]
    assert find(history, "score", "accuracy")["n"].tolist() == [0]
    text = read_text(page)
    assert "No alert fires. Nobody asked anything in the week of" in text
    assert re.search(r"Nobody called in the week of [-\d]+, so that nothing of it can be told", text)
    assert ("<figure" in page, "@fig" in text) == (False, False)


def test_hashed_inputs_no_labels_and_a_model_from_elsewhere_are_told_with_what_to_do(called) -> None:
    store = store_of(called)
    with store.writing() as connection:
        connection.execute(sql.update(CALLS).values(input=None))
        connection.execute(sql.text("DELETE FROM annotations"))
    history, _, page = monitor(called)
    text = read_text(page)
    assert set(history[(history["subject"] == "input") & (history["column"] == "text")]["status"]) == {"hidden"}
    assert find(history, "prediction", "shifted_columns")["value"].notna().any()
    rows = int(find(history, "traffic", "rows")["value"]["2026-10-01"])
    assert f"{rows} of {rows} inputs are known by their hash only: log_inputs: true in the params keeps" in text
    assert "No call has a label yet" in text
    assert "whether the inputs have shifted is not known" in text
    uploaded = write_candidate(open_project(called.root, {}), "tiny", called.make_second(), by="eve", note="")
    called.pinmill("promote", "tiny", uploaded.version, "--why", "a test", "--override")
    history, facts, page = monitor(called)
    assert facts["champion"] == uploaded.version
    assert "nobody knows what it was trained on" in read_text(page)
    assert find(history, "prediction", "shifted_columns")["value"].notna().any()  # of the former champion: stays


def test_calls_that_a_former_version_answered_are_not_held_against_the_test_rows_of_this_one(called) -> None:
    with store_of(called).writing() as connection:
        connection.execute(sql.update(CALLS).values(version="20260101T000000Z-aaaaa"))
    history, facts, page = monitor(called)
    said = history[(history["subject"] == "prediction") & (history["column"] == "label")]
    assert set(said["status"]) == {"too few"}
    assert set(said["model"]) == {facts["champion"]}
    assert set(history[(history["subject"] == "score") & (history["n"] > 0)]["model"]) == {"20260101T000000Z-aaaaa"}
    assert re.search(r"1 alert fires\. In October 2026 the Accuracy of 1 former version was 0\.\d+", read_text(page))


def test_a_past_moment_does_not_judge_later_months_and_a_rule_without_effect_is_told(called) -> None:
    rules = [{"metric": name, "direction": "above", "threshold": 0} for name in ("shifted_columns", "rmse")]
    rules += [{"metric": "oov_share", "direction": "above", "threshold": 0, "column": "texts"}]
    _, facts, page = monitor(called, alerts=rules, until="2026-11-03T11:00+02:00")
    assert facts["until"] == "2026-11-03T09:00:00+00:00"
    assert "Rule 2 never fires: rmse is not computed here." in read_text(page)
    assert "Rule 3 never fires: oov_share has no column 'texts'. Did you mean 'text'?" in read_text(page)
    history, facts, page = monitor(called, until="2026-07-03")
    assert {*history["period"]} == {*NAMES}
    assert {(each["period"], each["firing"]) for each in facts["alerts"]} == {("2026-06-01", False)}
    assert "No alert fires. In June 2026 its Accuracy" in read_text(page)


AMOUNTS = "workflow: sums\nsource: sums.csv\nlabel: total\ntask: regression\nestimator: linear\ncv: 0\ndraws: 20\n"
AMOUNTS += 'period: month\nuntil: "2026-11-03T09:00"\nrun: {notebooks: {train: notebooks/02-train-tabular.ipynb}}\n'


def make_amounts(n: int, *, seed: int) -> pd.DataFrame:
    """Rows of two numbers, a category, a date and the total that follows from them."""
    chance = random.Random(seed)
    days = [datetime(2025, 1, 1) + timedelta(days=chance.randrange(700)) for _ in range(n)]
    rows = {"a": [chance.gauss(0, 1) for _ in range(n)], "b": [chance.gauss(5, 2) for _ in range(n)]}
    rows |= {"kind": [chance.choice(["x", "y", "z"]) for _ in range(n)], "day": [f"{day:%Y-%m-%d}" for day in days]}
    return pd.DataFrame(rows).assign(total=lambda frame: frame["a"] * 3 + frame["b"] + chance.random())


def test_columns_that_changed_in_kind_do_not_cost_the_others(trained_once, tmp_path: Path) -> None:
    workplace = begin(trained_once, tmp_path / "project")
    make_amounts(900, seed=1).to_csv(workplace.root / "sums.csv", index=False)
    workplace.params(AMOUNTS, "sums")
    workplace.pinmill("run", "sums")
    spells = [Spell(*month, make_amounts(600, seed=2), 400, 0.2) for month in MONTHS[5:7]]
    add_traffic(workplace.root, "sums", spells, label="total", until=UNTIL)
    store = store_of(workplace)
    october = CALLS.c.time >= stamp(MONTHS[6][0])
    rows = store.read(sql.select(CALLS.c.id, CALLS.c.input).where(CALLS.c.input_hash != "", october))
    odd = [{"key": row.id, "given": {**row.input, "a": None, "b": 5.0, "more": [1, {}]}} for row in rows]
    for each in odd:
        del each["given"]["kind"]
    with store.writing() as connection:
        changed = sql.update(CALLS).where(CALLS.c.id == sql.bindparam("key")).values(input=sql.bindparam("given"))
        connection.execute(changed, odd)
    history, facts, page = monitor(workplace, "sums")
    told = history[history["subject"] == "input"].groupby(["period", "column"])["status"].agg(set)
    assert told["2026-09-01"].to_dict() == {name: {"ok"} for name in ("", "a", "b", "day", "kind")}
    assert "all missing" in told["2026-10-01", "a"]
    assert {"new", "gone"} == told["2026-10-01", "more"] | told["2026-10-01", "kind"]
    assert "shifted" in told["2026-10-01", "b"]
    assert "ok" in told["2026-10-01", "day"]
    assert find(history, "score", "r2")["value"]["2026-09-01"] > 0.9
    assert {each["firing"] for each in facts["alerts"]} == {True, False}
    assert "more" in read_text(page)


def test_of_several_classes_the_labels_are_compared(trained_once, tmp_path: Path) -> None:
    workplace = begin(trained_once, tmp_path / "project")
    kinds = {"win": "win a prize now", "talk": "see you at lunch", "work": "the report is attached"}
    rows = [(f"{words} {n}", label) for label, words in kinds.items() for n in range(100_000, 100_150)]
    texts = pd.DataFrame(rows, columns=["text", "label"])
    texts.to_csv(workplace.root / "tiny.csv", index=False)
    workplace.params(TINY.replace("positive: spam\n", "drift_min_n: 50\n").replace("monitor_metrics", "# "))
    workplace.pinmill("run", "tiny")
    spells = [Spell(*MONTHS[5], texts, 300, 0.3), Spell(*MONTHS[6], texts[texts["label"] == "win"], 300)]
    add_traffic(workplace.root, "tiny", spells, label="label", until=UNTIL)
    history, _, _ = monitor(workplace)
    labels = history[(history["subject"] == "prediction") & (history["column"] == "label")].groupby("period")["status"]
    assert labels.agg(set).to_dict() == {"2026-09-01": {"ok"}, "2026-10-01": {"ok", "shifted"}}
    assert find(history, "score", "f1_macro")["n"].tolist()[0] > 50


def test_a_million_calls_make_a_small_page(watched, called) -> None:
    before = find(watched[1], "traffic", "rows")["value"]
    assert repeat_calls(called.root, "tiny", 290) > 1_000_000
    began = time.monotonic()
    history, _, page = monitor(called)
    seconds = time.monotonic() - began
    assert (find(history, "traffic", "rows")["value"] / before).tolist() == [290] * 8
    assert find(history, "input", "shifted_columns")["value"].tolist()[:7] == [0, 0, 0, 0, 0, 1, 1]
    assert len(page) < 2_000_000
    assert seconds < 240, seconds
