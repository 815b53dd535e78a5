"""Tables scored as files: what comes out, what is never lost, and what a crash, a full disk or a bad row costs."""

import csv
import io
import json
import os
import shutil
import signal
from datetime import date
from pathlib import Path

import pandas
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pinmill.board import Board
from pinmill.champion import promote, read_champion
from pinmill.errors import ChampionError, DataError, LockedError, ParameterError, SourceError, SourceNotFoundError
from pinmill.project import Project
from pinmill.score import AGAIN, hold_output, score_file
from pinmill.session import Run
from pinmill.store import Store
from pinmill.tokens import create_token
from pinmill.version import now_utc
from waiting import wait_until

TEXTS = ["win a free prize now", "see you at lunch tomorrow", "thanks for the notes", "cheap pills online"]


def run_of(workplace, workflow: str = "tiny", **settings: str) -> Run:
    """A run as a notebook has it, in this process."""
    project = Project(workplace.root, settings)
    champion = read_champion(project.board, workflow)
    return Run("adhoc-test", workflow, None, project, {}, {}, {}, champion)


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def list_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def make_input(workplace, rows: int) -> None:
    lines = [f"{number},{TEXTS[number % 4]} {number}" for number in range(rows)]
    (workplace.root / "new.csv").write_text("\n".join(["id,text", *lines]) + "\n")


def test_every_row_comes_out_in_its_place_with_all_its_columns(trained, predict_here) -> None:
    (trained.root / "new.csv").write_text(
        f'id,text,"a, b"\n007,{TEXTS[0]},"x ""y"""\n\n8,,=1+1\n9,"two\nlines, {{{{< env HOME >}}}}",\n', newline=""
    )
    done = trained.pinmill("score", "tiny", "new.csv", "out.csv")
    version = read_champion(Board(trained.root / "outputs/pins"), "tiny").version
    told = f"2 of 3 rows of new.csv were scored into out.csv by model {version}; for the others the column error says"
    assert f"  scores    {told} why not.\n" in done.stdout
    first, last = predict_here(trained, version, [TEXTS[0], "two\nlines, {{< env HOME >}}"])
    added = [
        {"label": max(shares, key=shares.get), "value": repr(max(shares.values())),
         **{f"probability_{name}": repr(share) for name, share in shares.items()}, "version": version, "error": ""}
        for shares in (first, last)
    ]  # fmt: skip
    nothing = dict.fromkeys(["label", "value", "probability_ham", "probability_spam"], "")
    wrong = {**nothing, "version": version, "error": "text null is no value, a text was expected"}
    assert read_csv(trained.root / "out.csv") == [
        {"id": "007", "text": TEXTS[0], "a, b": 'x "y"', **added[0]},
        {"id": "8", "text": "", "a, b": "=1+1", **wrong},
        {"id": "9", "text": "two\nlines, {{< env HOME >}}", "a, b": "", **added[1]},
    ]
    assert not (trained.root / "out.csv.parts").exists()


def test_a_run_is_recorded_has_a_page_and_is_never_left_out(trained) -> None:
    make_input(trained, 4)
    for _ in range(2):
        trained.pinmill("score", "tiny", str(trained.root / "new.csv"), "out.jsonl")
    again, first, trained_by = trained.json("runs", "tiny")
    assert [run["job"] for run in (again, first, trained_by)] == ["score", "score", "train"]
    assert [run["stages"][0]["status"] for run in (again, first)] == ["ran", "ran"]
    asked = {name: again["parameters"][name] for name in ("input", "output", "url")}
    assert asked == {"input": "new.csv", "output": "out.jsonl", "url": ""}
    page = (trained.root / again["pages"]["scores"]).read_text()
    assert "4 of 4 rows of new" in page
    assert "see you at lunch tomorrow 1" in page
    assert again["champion_after"] == trained_by["champion_after"]


def test_the_formats_say_the_same_of_the_same_rows(trained) -> None:
    run, told = run_of(trained), []
    records = [{"n": number, "text": text, "when": f"2026-01-0{number + 1}"} for number, text in enumerate(TEXTS)]
    (trained.root / "in.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    pandas.DataFrame(records).to_csv(trained.root / "in.csv", index=False)
    pandas.DataFrame(records).to_csv(trained.root / "in.tsv", index=False, sep="\t")
    pandas.DataFrame(records).to_parquet(trained.root / "in.parquet")
    for given in ("csv", "tsv", "jsonl", "parquet"):
        for wanted in ("csv", "tsv", "ndjson", "parquet"):
            score_file(run, f"in.{given}", f"out.{wanted}", batch=3)
        told.append(pandas.read_csv(trained.root / "out.csv"))
        told.append(pandas.read_csv(trained.root / "out.tsv", sep="\t"))
        told.append(pandas.DataFrame(read_jsonl(trained.root / "out.ndjson")))
        told.append(pandas.read_parquet(trained.root / "out.parquet"))
    assert [frame.pop("error").isna().all() for frame in told] == [True] * 16
    for frame in told[1:]:
        pandas.testing.assert_frame_equal(frame.astype({"n": int}), told[0])  # of CSV each value stays a text
    assert told[0]["n"].tolist() == [0, 1, 2, 3]


def test_columns_that_the_model_does_not_take_are_kept_as_they_are(trained) -> None:
    run = run_of(trained)
    lines = ['{"text": "a b", "x": 1, "y": [1, {"z": "é"}], "big": 12345678901234567890}',
             '{"text": "c d", "x": "one", "y": null, "more": "\\ud800"}']  # fmt: skip
    (trained.root / "in.jsonl").write_text("\n".join(lines))
    score_file(run, "in.jsonl", "out.jsonl")
    out = read_jsonl(trained.root / "out.jsonl")
    kept = [{name: row[name] for name in ("text", "x", "y", "big", "more")} for row in out]
    absent = {"big": None, "more": None}
    assert kept == [absent | json.loads(line) for line in lines]
    schema = pa.schema(
        [("text", pa.string()), ("day", pa.date32()), ("raw", pa.binary()), ("list", pa.list_(pa.int8()))]
    )
    table = pa.table([["a b"], [date(2026, 1, 2)], [b"\x00\xff"], [[1, 2]]], schema=schema)
    pq.write_table(table, trained.root / "in.parquet")
    score_file(run, "in.parquet", "out.parquet")
    assert pq.read_table(trained.root / "out.parquet").select(schema.names).equals(table)


def test_a_table_without_rows_gives_one_without_rows(trained) -> None:
    (trained.root / "in.csv").write_text("id,text\n")
    for name in ("out.csv", "out.parquet", "out.jsonl"):
        assert score_file(run_of(trained), "in.csv", name).rows == 0
    header = "id,text,label,value,probability_ham,probability_spam,version,error\n"
    assert (trained.root / "out.csv").read_text() == header
    assert pq.read_table(trained.root / "out.parquet").column_names == header.strip().split(",")
    assert (trained.root / "out.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    ("name", "content", "error", "said"),
    [
        ("in.csv", "id,txt,label\n1,a,b\n", DataError, "2 problems in the input: column 'text' is missing. Did you "
         "mean 'txt'?; column 'label' is there, and scoring adds one of that name: rename it, or leave it out"),
        ("in.csv", "text,version,error\na,b,c\n", DataError, "2 problems in the input: column 'version' is there, and "
         "scoring adds one of that name: rename it, or leave it out; column 'error' is there, and scoring adds one of "
         "that name: rename it, or leave it out"),
        ("in.csv", "text,text\na,b\n", DataError, "1 problem in in.csv: column 'text' stands 2 times"),
        ("in.csv", "text,n\na,1\nb\n", SourceError, "in.csv cannot be read: line 3 has 1 fields, the header 2. Look at "
         "what wrote it."),
        ("in.csv", "", SourceError, "in.csv cannot be read: it is empty, and not even a header names its columns. Look "
         "at what wrote it."),
        ("in.csv", "text\n \n", DataError, "none of 1 rows could be scored, and nothing was written; row 0: text \" \" "
         "is blank, a text was expected"),
        ("in.jsonl", '{"text": "a"}\n{"text"\n', SourceError, "in.jsonl cannot be read: line 2: Expecting ':' "
         "delimiter: line 2 column 1 (char 8). Look at what wrote it."),
        ("in.jsonl", '["a"]\n', SourceError, "in.jsonl cannot be read: line 1 is no JSON object. Look at what wrote "
         "it."),
        ("in.parquet", "text", SourceError, "in.parquet cannot be read: "),
        ("in.xlsx", "text", ParameterError, "'in.xlsx' has no suffix that tells its format: .csv, .tsv, .jsonl, "
         ".ndjson, .parquet were expected."),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_told_and_leaves_the_old_output(
    trained, name: str, content: str, error: type, said: str
) -> None:
    (trained.root / name).write_text(content)
    (trained.root / "out.csv").write_text("old")
    with pytest.raises(error) as raised:
        score_file(run_of(trained), name, "out.csv")
    assert str(raised.value).startswith(said)
    assert (trained.root / "out.csv").read_text() == "old"
    assert not (trained.root / "out.csv.parts").exists()  # else the next run would go on with the same model


def test_a_run_where_every_row_failed_is_not_taken_up_but_scored_again_by_the_new_champion(trained) -> None:
    (trained.root / "in.csv").write_text("text\n \n \n")
    run, versions = run_of(trained), []
    with pytest.raises(DataError, match="none of 2 rows could be scored"):
        score_file(run, "in.csv", "out.csv", batch=1)
    second, signed = trained.write_second(), {"why": "a newer one", "by": "me", "when": now_utc(), "gate": True}
    promote(run.board, "tiny", second, expected=run.champion.version, **signed)

    def keep(scored, *given, **more) -> None:
        versions.append((scored.version, scored.resumed))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pinmill.score.finish", keep)
        score_file(run_of(trained), "in.csv", "out.csv", batch=1)
    assert versions == [(second, 0)]


def test_an_output_is_written_by_one_run_at_a_time_by_whatever_name(trained, monkeypatch) -> None:
    make_input(trained, 4)
    monkeypatch.setattr("pinmill.score.ORPHANED", 0)
    run = run_of(trained)
    with (
        hold_output(run.project, trained.root / "out.csv"),
        pytest.raises(LockedError, match=r"is writing out\.csv now"),
    ):
        score_file(run, "new.csv", "params/../out.csv")
    assert score_file(run, "new.csv", "params/../out.csv").rows == 4


def test_wrong_words_are_refused_before_a_kernel_starts(trained) -> None:
    make_input(trained, 4)
    for words, said in [
        (["none.csv", "out.csv"], "none.csv is not there"),
        (["new.csv", "out.xlsx"], "'out.xlsx' has no suffix"),
        (["new.csv", "out.csv", "--url", "http://me:geheim@127.0.0.1:1"], "--url holds more than an address"),
    ]:
        done = trained.pinmill("score", "tiny", *words, code=None)
        assert (said in done.stderr, "geheim" in done.stderr, done.returncode in (2, 4)) == (True, False, True)
    with pytest.raises(ParameterError, match="two different files"):
        score_file(run_of(trained), "new.csv", "./new.csv")
    assert [run["job"] for run in trained.json("runs", "tiny")] == ["train"]
    with pytest.raises(ChampionError, match="other has no champion yet"):
        score_file(run_of(trained, "other"), "new.csv", "out.csv")
    with pytest.raises(SourceNotFoundError):
        score_file(run_of(trained), "gone.csv", "out.csv")
    assert "out.csv.parts" not in list_files(trained.root)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_after_a_kill_the_next_run_goes_on_to_the_bytes_of_an_undisturbed_one(trained, suffix: str) -> None:
    make_input(trained, 20_000)
    target, output = f"out.{suffix}", trained.root / f"out.{suffix}"
    score_file(run_of(trained), "new.csv", target, batch=100)
    whole = output.read_bytes()
    output.write_text("old")
    trained.params((trained.root / "params/tiny.yaml").read_text() + "batch: 100\n")
    killed = trained.start("score", "tiny", "new.csv", target)
    parts = trained.root / f"{target}.parts"
    wait_until(lambda: len(list(parts.glob("part-*"))) > 2, seconds=60, process=killed)
    for process in [*psutil.Process(killed.pid).children(recursive=True), killed]:
        process.send_signal(signal.SIGKILL)
    killed.communicate()
    done = len(list(parts.glob("part-*")))
    assert (2 < done < 200, output.read_text()) == (True, "old")
    trained.write_second()
    second = Board(trained.root / "outputs/pins").latest("tiny-model")
    trained.pinmill("promote", "tiny", second, "--why", "a newer one", "--override")
    trained.pinmill("score", "tiny", "new.csv", target)
    assert output.read_bytes() == whole
    assert not parts.exists()
    page = (trained.root / trained.json("runs", "tiny")[0]["pages"]["scores"]).read_text()
    assert "rows of an earlier run: this one went on behind it, with the same model" in page
    assert [run["status"] for run in trained.json("runs", "tiny")] == ["succeeded", "interrupted", "succeeded"]


@pytest.mark.parametrize("change", ["input", "model"])
def test_what_was_begun_otherwise_is_scored_again(trained, change: str, monkeypatch) -> None:
    make_input(trained, 300)
    run = run_of(trained)
    monkeypatch.setattr("pinmill.score.finish", lambda *given, **more: os._exit)  # ended before it was written
    score_file(run, "new.csv", "out.csv", batch=100)
    monkeypatch.undo()
    if change == "input":
        make_input(trained, 301)
    else:
        second, before = trained.write_second(), run.champion
        signed = {"why": "a newer one", "by": "me", "when": now_utc(), "gate": True}
        promote(run.board, "tiny", second, expected=before.version, **signed)
        shutil.rmtree(trained.root / "outputs/pins/tiny-model" / before.version)
        run = run_of(trained)
    scored = score_file(run, "new.csv", "out.csv", batch=100)
    assert (scored.note, scored.resumed, scored.rows) == (AGAIN, 0, 301 if change == "input" else 300)
    assert {row["version"] for row in read_csv(trained.root / "out.csv")} == {run.champion.version}
    assert scored.failed == 0


def test_a_full_disk_leaves_the_old_output_and_the_next_run_goes_on(trained, small_disk: Path) -> None:
    make_input(trained, 30_000)
    output, run = small_disk / "out.csv", run_of(trained)
    output.write_text("old")
    with (small_disk / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 1_700_000)
    with pytest.raises(OSError, match="No space left on device"):
        score_file(run, "new.csv", str(output), batch=1000)
    kept = len(list((small_disk / "out.csv.parts").glob("part-*")))
    assert (output.read_text(), kept > 1) == ("old", True)
    (small_disk / "filler").unlink()
    with pytest.raises(OSError, match="No space left on device"):  # the parts fit now, the whole does not
        score_file(run, "new.csv", str(output), batch=1000)
    assert output.read_text() == "old"
    assert list_files(small_disk / "out.csv.parts")[-2:] == ["state.json", "whole.csv"]
    scored = score_file(run, "new.csv", "elsewhere.csv", batch=1000)
    assert (scored.rows, scored.failed) == (30_000, 0)


def test_amounts_from_many_types_of_columns(trained) -> None:
    from pinmill.model import save_model
    from pinmill.prototype import read_prototype
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    frame = pandas.DataFrame({"city": ["Ulm", "Bonn"] * 30, "size": [1.5, 2.5, None] * 20, "floor": range(60)})
    frame = frame.assign(lift=frame.floor % 3 == 0, size=frame["size"].fillna(2.0))
    part = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
    model = make_pipeline(part, LinearRegression()).fit(frame, frame.floor * 2 + frame.lift)
    run = run_of(trained)
    facts, lineage = {"prototype": read_prototype(frame, list(frame))}, {"run": "by-hand", "inputs": []}
    pin = run.board.write_file("rent-model", save_model(model), file_name="m.skops", facts=facts, lineage=lineage)
    promote(run.board, "rent", pin.version, why="first", by="me", when=now_utc(), expected=None, gate=True)
    (trained.root / "in.csv").write_text(
        "city,size,floor,lift,label\nUlm,1.5,3,True,a\nBonn,2,4.0,0,b\nUlm,big,1.5,maybe,c\nUlm,NA,1_0,true,\n"
    )
    scored = score_file(run_of(trained, "rent"), "in.csv", "out.csv")
    rows = read_csv(trained.root / "out.csv")
    assert [row["label"] for row in rows] == ["a", "b", "c", ""]
    assert [round(float(row["value"]), 6) for row in rows[:2]] == [7, 8]
    assert [row["error"] for row in rows] == [
        "",
        "",
        'floor 1.5 is a number, an integer was expected; lift "maybe" is a text, true or false was expected; '
        'size "big" is a text, a number was expected',
        'floor "1_0" is a text, an integer was expected; size null is no value, a number was expected',
    ]
    assert (scored.predicted.name, scored.predicted.tolist()) == ("value", [pytest.approx(7), pytest.approx(8)])


def test_a_service_gives_what_the_champion_here_gives(trained, serve, predict_here) -> None:
    rows = [{"id": number, "text": f"{TEXTS[number % 4]} {number}" if number % 50 else None} for number in range(6000)]
    (trained.root / "in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    store = Store(trained.root / "outputs/pinmill.sqlite")
    token = create_token(store, "batch", "scorer", expires=None, by="me", when=now_utc())
    server = serve()
    trained.pinmill("score", "tiny", "in.jsonl", "far.jsonl", "--url", server.url, PINMILL_TOKEN=token)
    score_file(run_of(trained), "in.jsonl", "near.jsonl")
    far, near = (read_jsonl(trained.root / name) for name in ("far.jsonl", "near.jsonl"))
    assert [row.pop("error") is None for row in far] == [row.pop("error") is None for row in near]
    assert [number for number, row in enumerate(far) if row["label"] is None] == list(range(0, 6000, 50))
    assert far == near
    files = [path for path in (trained.root / "outputs").rglob("*") if path.is_file()]
    assert [
        path for path in [*files, *(trained.root / "reports").rglob("*.html")] if token.encode() in path.read_bytes()
    ] == []
