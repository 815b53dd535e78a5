"""The `pinmill` command: every command and option runs, explains itself, and ends with the promised exit code."""

import getpass
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import typer
from pinmill.board import Board
from pinmill.cli import app, main
from pinmill.runs import read_records
from pinmill.terminal import format_metrics
from waiting import wait_until

OPTIONS = {  # every command and its options; a new one fails here until it is added, with a test of its own
    "run": {"--job", "--set", "--force", "--from", "--explain", "--model", "--run-id"},
    "score": {"--url"},
    "report": {"--run", "--engine", "--open"},
    "runs": {"--json"},
    "params": {"--json", "--schema"},
    "pins": {"--json"},
    "pins verify": {"--json"},
    "models": {"--json"},
    "champion": {"--history", "--json"},
    "promote": {"--why", "--override"},
    "rollback": {"--why", "--to"},
    "predict": {"--json"},
    "token": set(),
    "token create": {"--role", "--expires"},
    "token list": {"--json"},
    "token revoke": set(),
    "audit": {"--json"},
    "trace": {"--json"},
    "reproduce": {"--keep", "--json"},
    "compare": {"--rows", "--page", "--json"},
    "schedule": set(),
    "schedule install": {"--print"},
    "schedule remove": set(),
    "schedule show": {"--json"},
    "schedule check": {"--json"},
    "schedule missed": {"--new", "--json"},
    "schedule run": set(),
    "examples": set(),
    "examples add": {"--annotator"},
    "annotations": {"--export", "--retract", "--json"},
    "pins prune": {"--keep", "--days", "--yes", "--json"},
    "new": {"--from", "--label"},
    "doctor": {"--json"},
    "backup": {"--force"},
    "restore": set(),
    "retention": {"--yes", "--json"},
    "export": set(),
    "export vetiver": set(),
    "export nginx": {"--name", "--certificate", "--key", "--port", "--output", "--force"},
    "export systemd": {"--user", "--port", "--output", "--force"},
    "export docker": {"--port", "--output", "--force"},
    "annotate": {"--port", "--host"},
    "serve": {
        "--host", "--port", "--kernels", "--deadline", "--max-body", "--max-rows", "--rate", "--cache", "--allow-get",
        "--trusted-proxy",
    },
    "upload": {"--note", "--by", "--evaluate", "--json"},
}  # fmt: skip
RUN_KEYS = {
    "run", "workflow", "job", "status", "started", "ended", "parameters", "stages", "candidate", "champion_before",
    "champion_after", "reasons", "outcome", "error", "pages", "rendered_by", "warnings",
}  # fmt: skip
VERSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-z]{5}")


def walk(command, name: str = "") -> Iterator[tuple[str, object]]:
    """Every command below a group, by the words that call it."""
    for word, below in getattr(command, "commands", {}).items():
        path = f"{name} {word}".strip()
        yield path, below
        yield from walk(below, path)


COMMANDS = dict(walk(typer.main.get_command(app)))


@pytest.fixture
def call(monkeypatch, capsys):
    """A function that calls `pinmill WORDS` in this process: for all that starts no kernel, half a second quicker."""

    def call_here(workplace, *words: str, code: int = 0):
        with monkeypatch.context() as patch:
            patch.chdir(workplace.root)
            patch.setattr(sys, "argv", ["pinmill", *words])
            for name in [name for name in os.environ if name.startswith("PINMILL_")]:
                patch.delenv(name)
            with pytest.raises(SystemExit) as ended:
                main()
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == code, f"exit {ended.value.code}\n{out}\n{err}"
        return SimpleNamespace(stdout=out, stderr=err, json=lambda: json.loads(out))

    return call_here


def options_of(command) -> set[str]:
    return {word for parameter in command.params for word in parameter.opts if word.startswith("--")} - {"--help"}


def test_every_command_and_option_has_a_test_here() -> None:
    assert {name: options_of(command) for name, command in COMMANDS.items()} == OPTIONS


@pytest.mark.parametrize("name", OPTIONS)
def test_every_command_explains_itself_with_an_example_that_parses(name: str) -> None:
    command = COMMANDS[name]
    text = " ".join((command.help or "").split())
    examples = re.findall(r"Example: pinmill ([^\n]+)", command.help)
    assert text
    assert examples, f"no example in the help of {name}"
    for example in examples:
        assert example.startswith(name)
        assert set(re.findall(r"--[a-z]+", example)) <= OPTIONS[name]
    for parameter in command.params:
        if parameter.name != "help":
            assert parameter.help, f"{name}: {parameter.name} has no help"


def test_help_is_shown_by_the_real_command(call, trained_once) -> None:
    shown = call(trained_once, "--help").stdout
    for name in OPTIONS:
        assert name.split()[0] in shown
    assert "Example: pinmill pins verify" in call(trained_once, "pins", "verify", "--help").stdout


@pytest.mark.parametrize(
    "words", [["rnu"], ["run"], ["run", "tiny", "--nothing"], ["promote", "tiny", "x"], ["pins", "x"]]
)
def test_wrong_words_are_wrong_use(call, trained_once, words: list[str]) -> None:
    assert call(trained_once, *words, code=2).stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["run", "tinny"],
            "ParameterError: no workflow 'tinny': params/tinny.yaml does not exist. Did you mean 'tiny'?",
        ),
        (
            ["run", "tiny", "--job", "trian"],
            "ProjectError: no notebook belongs to job 'trian'; the jobs here are: annotate, monitor, score, serve",
        ),
        (["run", "tiny", "--from", "trian"], "ProjectError: no stage 'trian'"),
        (["run", "tiny", "--set", "cv"], "ParameterError: 1 problem in params/tiny.yaml: --set cv has no '='"),
        (["run", "tiny", "--set", "cvv=3"], "no notebook has parameter 'cvv' (--set cvv). Did you mean 'cv'?"),
        (["params", "tinny"], "ParameterError: no workflow 'tinny'"),
        (
            ["champion", "nobody"],
            "ChampionError: nobody has no champion yet. Train and promote one with: pinmill run nobody",
        ),
        (["predict", "nobody", "x"], "ChampionError: nobody has no champion yet"),
        (["rollback", "tiny", "--why", "x"], "ChampionError: tiny has no earlier champion to go back to"),
        (["promote", "tiny", "nothing", "--why", "x"], "ChampionError: no model has version 'nothing'"),
        (["models", "a/b"], "PinNameError: 'a/b-model' is not a pin name"),
        (["champion", "../x"], "PinNameError:"),
    ],
)
def test_wrong_use_ends_with_2_and_one_message(call, trained_once, words: list[str], message: str) -> None:
    done = call(trained_once, *words, code=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_outside_a_project_the_message_says_where_to_go(tmp_path, trained_once) -> None:
    elsewhere = type(trained_once)(tmp_path)
    assert "ProjectError: no project at" in elsewhere.pinmill("runs", code=2).stderr
    assert elsewhere.pinmill("pins", PINMILL_HOME=str(trained_once.root)).stdout.count("tiny-") == 4


def test_a_model_that_is_not_there_is_exit_4(call, trained_once) -> None:
    assert "PinNotFoundError: nobody has no model yet" in call(trained_once, "models", "nobody", code=4).stderr


# What a run leaves, read by each command


def test_nothing_changed_is_success_and_says_so(call, trained_once, trained) -> None:
    done = trained.pinmill("run", "tiny")
    champion = call(trained, "champion", "tiny", "--json").json()["version"]
    assert re.match(r"tiny: succeeded \(run \S+; nothing changed, so nothing ran\)\n", done.stdout)
    assert f"  champion  outputs/pins/tiny-model/{champion}\n" in done.stdout
    assert "  card      reports/_pages/tiny/model-card.html\n" in done.stdout
    assert done.stderr == ""


def test_runs_are_listed_for_people_and_programs(call, trained_once) -> None:
    (run,) = call(trained_once, "runs", "--json").json()
    assert set(run) >= RUN_KEYS
    assert (run["workflow"], run["job"], run["status"], run["candidate"]) == (
        "tiny", "train", "succeeded", run["champion_after"],
    )  # fmt: skip
    assert [stage["notebook"] for stage in run["stages"]] == ["01-prepare", "02-train", "03-evaluate", "04-model-card"]
    assert call(trained_once, "runs", "tiny", "--json").json() == [run]
    assert call(trained_once, "runs", "spam", "--json").json() == []
    head, line = call(trained_once, "runs").stdout.splitlines()
    assert head.split()[:4] == ["run", "workflow", "job", "status"]
    assert line.split()[:4] == [run["run"], "tiny", "train", "succeeded"]


def test_params_tell_names_types_defaults_meaning_and_where_used(call, trained_once) -> None:
    found = call(trained_once, "params", "tiny", "--json").json()
    by_name = {parameter["name"]: parameter for parameter in found["parameters"]}
    assert by_name["cv"] == {
        "name": "cv", "value": 2, "type": "int", "default": 3, "meaning": "folds of the cross-validation; 0: none",
        "unit": "", "low": 0, "high": 20, "choices": [], "used in": ["02-train"],
    }  # fmt: skip
    assert by_name["seed"]["used in"] == ["01-prepare", "02-train", "03-evaluate", "05-monitor"]
    assert by_name["task"]["choices"] == ["auto", "binary", "multiclass", "regression"]
    assert set(found["schema"]["properties"]) == {*by_name, "run"}
    shown = call(trained_once, "params", "tiny").stdout
    assert all(re.search(rf"^{name} ", shown, re.MULTILINE) for name in by_name)


def test_pins_tell_the_newest_version_of_each(call, trained_once) -> None:
    pins = call(trained_once, "pins", "--json").json()
    assert [pin["name"] for pin in pins] == ["tiny-champion", "tiny-data", "tiny-metrics", "tiny-model"]
    assert [pin["type"] for pin in pins] == ["json", "parquet", "json", "file"]
    run = call(trained_once, "runs", "--json").json()[0]
    for pin in pins[1:]:
        assert set(pin) == {"name", "version", "versions", "type", "bytes", "sha256", "created", "run"}
        assert (pin["versions"], pin["run"]) == (1, run["run"])
        assert VERSION.fullmatch(pin["version"])
    assert len(call(trained_once, "pins").stdout.splitlines()) == 5


def test_verify_names_a_flipped_byte_and_ends_with_1(call, trained) -> None:
    assert call(trained, "pins", "verify", "--json").json() == {"checked": 4, "damaged": []}
    assert call(trained, "pins", "verify").stdout == "4 versions checked, 0 damaged\n"
    version = call(trained, "champion", "tiny", "--json").json()["version"]
    (file,) = (trained.root / "outputs/pins/tiny-model" / version).glob("*.skops")
    file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1]))
    done = call(trained, "pins", "verify", code=1)
    assert re.fullmatch(rf"4 versions checked, 1 damaged\n  tiny-model {version}: .*model.skops.*\n", done.stdout)
    found = json.loads(call(trained, "pins", "verify", "--json", code=1).stdout)
    assert [(pin["name"], pin["version"]) for pin in found["damaged"]] == [("tiny-model", version)]
    assert "IntegrityError" in call(trained, "predict", "tiny", "x", code=1).stderr


def test_predict_scores_a_text_with_the_champion(call, trained_once) -> None:
    scores = call(trained_once, "predict", "tiny", "win a free prize now", "--json").json()
    assert set(scores) == {"label", "version", "probability"}
    assert (scores["label"], scores["version"]) == (
        "spam",
        call(trained_once, "champion", "tiny", "--json").json()["version"],
    )
    assert set(scores["probability"]) == {"ham", "spam"}
    assert sum(scores["probability"].values()) == pytest.approx(1)
    assert scores["probability"]["spam"] > 0.5
    assert call(trained_once, "predict", "tiny", '{"text": "win a free prize now"}', "--json").json() == scores
    lines = call(trained_once, "predict", "tiny", "see you at lunch tomorrow").stdout.splitlines()
    assert lines[0] == f"ham  (tiny, version {scores['version']})"
    assert [line.split()[1] for line in lines[1:]] == ["ham", "spam"]  # the likeliest first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"text": ', "DataError: this is no JSON object"),
        ('{"txt": "x"}', "DataError: 1 problem in the inputs: column 'text' (text) is missing. Did you mean 'txt'?"),
        ('{"text": 5}', "DataError:"),
        ('{"text": null}', "DataError:"),
    ],
)
def test_predict_refuses_what_the_model_does_not_expect(call, trained_once, text: str, message: str) -> None:
    done = call(trained_once, "predict", "tiny", text, code=4)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


# Several runs of a project of light stages


@pytest.fixture(scope="module")
def story(small_trained_once, tmp_path_factory):
    """A champion, a second one, and a rejected candidate; and what each run said. Not to be changed."""
    workplace = small_trained_once.copy(tmp_path_factory.mktemp("story") / "project")
    second = workplace.pinmill("run", "small", "--job", "train", "--set", "power=2", "--explain")
    rejected = workplace.pinmill("run", "small", "--set", "power=3", "--set", "score=0.25", code=3)
    return workplace, second, rejected


@pytest.fixture
def told(story, tmp_path):
    return story[0].copy(tmp_path / "project")


def versions(workplace) -> list[str]:
    return Board(workplace.root / "outputs/pins").versions("small-model")


def test_explain_names_for_every_stage_what_changed(call, story) -> None:
    workplace, second, _ = story
    first = call(workplace, "runs", "--json").json()[-1]["run"]
    said = [line.partition(" ")[2] for line in second.stderr.splitlines()]
    assert f"01-prepare is reused: nothing changed since run {first}" in said
    assert "02-train (2/4) runs: parameter power 1 → 2" in said
    assert "03-evaluate (3/4) runs: input model" in said
    assert any(line.startswith("04-model-card (4/4) runs: input ") for line in said)
    assert re.match(r"small: succeeded \(run \S+; ran 02-train, 03-evaluate, 04-model-card\)\n", second.stdout)


def test_a_rejected_run_ends_with_3_says_why_and_leaves_the_champion(call, story) -> None:
    workplace, _, rejected = story
    assert re.match(r"small: rejected \(run \S+; ran ", rejected.stdout)
    assert "  gate      score 0.25, threshold 0.5\n" in rejected.stdout
    assert call(workplace, "champion", "small", "--json").json()["version"] == versions(workplace)[1]
    assert [run["status"] for run in call(workplace, "runs", "small", "--json").json()] == [
        "rejected",
        "succeeded",
        "succeeded",
    ]


def test_a_rejected_run_again_is_rejected_again(told) -> None:
    done = told.pinmill("run", "small", "--set", "power=3", "--set", "score=0.25", code=3)
    assert "nothing changed, so nothing ran" in done.stdout


def test_models_are_told_with_fate_and_changes(call, story) -> None:
    workplace = story[0]
    models = call(workplace, "models", "small", "--json").json()
    a, b, c = versions(workplace)
    assert [(m["version"], m["status"], m["gate"], m["changed"]) for m in models] == [
        (a, "former champion", True, []),
        (b, "champion", True, ["power 1 → 2"]),
        (c, "rejected", False, ["power 2 → 3"]),
    ]
    assert set(models[0]) == {
        "version", "status", "gate", "reasons", "metrics", "by", "created", "run", "sha256", "changed",
    }  # fmt: skip
    assert {m["by"] for m in models} == {getpass.getuser()}
    shown = call(workplace, "models", "small").stdout.splitlines()
    assert [line.split()[0] for line in shown[1:]] == [c, b, a]  # newest first


def test_the_champion_and_its_history_are_told(call, story) -> None:
    workplace = story[0]
    a, b, _ = versions(workplace)
    history = call(workplace, "champion", "small", "--history", "--json").json()
    assert [(h["action"], h["version"], h["previous"], h["override"]) for h in history] == [
        ("promote", b, a, False), ("promote", a, None, False),
    ]  # fmt: skip
    now = call(workplace, "champion", "small", "--json").json()
    assert now == history[0]
    assert set(now) == {"action", "version", "sha256", "by", "when", "why", "previous", "override", "record"}
    (_, second, _) = call(workplace, "runs", "--json").json()
    assert now["by"] == f"run {second['run']}"
    assert b in call(workplace, "champion", "small").stdout
    assert len(call(workplace, "champion", "small", "--history").stdout.splitlines()) == 3


def test_promote_takes_a_short_version_and_rollback_goes_back(call, told) -> None:
    a, b, _ = versions(told)
    done = call(told, "promote", "small", a[-5:], "--why", "slower, and right")
    assert done.stdout == f"small: champion is {a} (before: {b})\n"
    now = call(told, "champion", "small", "--json").json()
    assert (now["version"], now["by"], now["why"], now["override"]) == (
        a,
        getpass.getuser(),
        "slower, and right",
        False,
    )
    assert call(told, "rollback", "small", "--why", "it was not").stdout == f"small: champion is {b}; {a} is held\n"
    assert call(told, "rollback", "small", "--why", "further").stdout == f"small: champion is {a}; {b} is held\n"
    assert [m["status"] for m in call(told, "models", "small", "--json").json()] == ["champion", "held", "rejected"]
    assert told.pinmill("run", "small", "--set", "power=2").stdout.count(f"/small-model/{a}\n") == 1  # held stays held


def test_rollback_goes_to_a_named_champion(call, told) -> None:
    a, _, c = versions(told)
    call(told, "promote", "small", c, "--why", "try", "--override")
    refused = call(told, "rollback", "small", "--why", "x", "--to", c[-5:], code=2)
    assert "is not an earlier champion of small" in refused.stderr
    done = call(told, "rollback", "small", "--why", "back to the first", "--to", a[-5:])
    assert done.stdout == f"small: champion is {a}; {c} is held\n"
    assert [m["status"] for m in call(told, "models", "small", "--json").json()] == ["champion", "held", "held"]


def test_what_the_gate_rejected_needs_an_override_which_is_recorded(call, told) -> None:
    c = versions(told)[2]
    refused = call(told, "promote", "small", c, "--why", "I like it", code=2)
    assert "the gate rejected" in refused.stderr
    assert "--override" in refused.stderr
    call(told, "promote", "small", c, "--why", "I like it", "--override")
    assert call(told, "champion", "small", "--json").json()["override"] is True
    assert call(told, "champion", "small").stdout.splitlines()[1].split()[-1] == "yes"


def test_a_reason_is_needed(call, told) -> None:
    a = versions(told)[0]
    assert "--why" in call(told, "promote", "small", a, code=2).stderr
    assert "--why" in call(told, "rollback", "small", code=2).stderr
    assert "ChampionError" in call(told, "promote", "small", a, "--why", " ", code=2).stderr
    assert "no model has version ''" in call(told, "promote", "small", "", "--why", "x", code=2).stderr
    assert "models have version '2'" in call(told, "promote", "small", "2", "--why", "x", code=2).stderr


def test_from_runs_a_stage_and_all_after_it(small_trained) -> None:
    done = small_trained.pinmill("run", "small", "--from", "model-card")
    assert "; ran 04-model-card)" in done.stdout
    assert "04-model-card (4/4) runs: forced" in done.stderr


def test_a_cell_that_raises_is_exit_4_and_named(told) -> None:
    (told.root / "numbers.txt").write_text("1\nx\n")
    done = told.pinmill("run", "small", code=4)
    assert re.match(r"small: failed \(run \S+\)\n", done.stdout)
    assert "01-prepare, cell" in done.stderr
    assert "ValueError: invalid literal for int()" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_is_exit_130_and_a_second_run_meanwhile_75(call, told) -> None:
    (told.root / "hold-train").touch()
    process = told.start("run", "small", "--force")
    wait_until((told.root / "at-train").exists, process=process)
    second = told.pinmill("run", "small", code=75)
    assert re.match(r"small: skipped \(run \S+\)\n", second.stdout)
    at_work = next(run for run in call(told, "runs", "small", "--json").json() if run["status"] == "running")
    assert f"run {at_work['run']} (process {process.pid}) of small.train is at work" in second.stderr
    assert [(stage["stage"], stage["status"], stage["why"]) for stage in at_work["stages"]] == [
        ("prepare", "ran", ["forced"]), ("train", "running", ["forced"]),
    ]  # fmt: skip
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    (told.root / f"release-{at_work['run']}").touch()
    assert process.returncode == 130, errors
    assert "interrupted. The next run takes up what is finished" in errors
    assert "Traceback" not in errors
    folder = told.root / "outputs/runs/small"
    assert [record.status for record in read_records(folder)][:2] == ["skipped", "interrupted"]


def test_a_pipe_gets_each_row_on_one_line(call, told) -> None:
    why = "a long reason " * 40
    call(told, "promote", "small", versions(told)[0], "--why", why.strip())
    assert why.strip() in call(told, "champion", "small").stdout


def test_a_score_without_value_is_shown_as_a_gap() -> None:
    metrics = {"f1": {"value": 0.94, "low": 0.9125, "high": 1.0}, "roc_auc": {"value": None, "low": None, "high": None}}
    assert format_metrics(metrics) == "f1 0.940 [0.912, 1.000], roc_auc –"


def test_schema_alone_is_a_json_schema(workplace) -> None:
    schema = json.loads(workplace.pinmill("params", "tiny", "--schema").stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"workflow", "source", "run"} <= set(schema["properties"])


def test_a_missing_source_and_a_path_for_a_workflow_are_wrong_use(workplace) -> None:
    workplace.params("workflow: tiny\ntext: text\n")
    assert "source is missing" in workplace.pinmill("run", "tiny", code=2).stderr
    assert "is no workflow" in workplace.pinmill("run", "../tiny", code=2).stderr
    assert "is no workflow" in workplace.pinmill("runs", "../..", code=2).stderr
