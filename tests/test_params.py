"""The params file: read with its lines, checked as a whole, before any kernel starts."""

import re
import time
from pathlib import Path

import jsonschema
import pytest
from pinmill.errors import ParameterError
from pinmill.notebook import Declaration, Stage, parse_declarations
from pinmill.params import check_params, check_value, convert, fill_variables, override, parse_params, read_schema
from pinmill.plan import load_workflow
from pinmill.project import Project

PREPARE = """\
workflow: str = "docstrings"  # name of the workflow
source: str = ""  # where the table is
text: list[str] = []  # text columns
split: str = "hash"  # how rows are split {hash|random|time:<column>}
test_fraction: float = 0.2  # share of the test rows 0.01..0.9
positive: str | int | None = None  # the positive label
"""
TRAIN = """\
workflow: str = "docstrings"  # name of the workflow
model: dict = {}  # hyperparameters, as {logisticregression__C: 4}
cv: int = 3  # folds 0..20
wait: float = 1.0  # patience [s] 0..
debug: bool = False  # say more
kind: str = "a"  # kind {a|b}
"""


def make_stage(name: str, cell: str) -> Stage:
    return Stage(name, Path(f"{name}.ipynb"), name, "train", (), (), parse_declarations(cell), ())


STAGES = [make_stage("prepare", PREPARE), make_stage("train", TRAIN)]


def parse(text: str, **settings: str):
    """Parse a params file that also names its workflow, in a last line that moves no other."""
    named = "workflow" in text or not re.match(r"[\w]+:", text)
    whole = text if named else f"{text}workflow: w\n"
    return parse_params(whole, workflow="w", where="params/w.yaml", settings=settings)


def check(text: str, **settings: str):
    return check_params(parse(text, **settings), STAGES, settings)


def declare(text: str) -> Declaration:
    return next(iter(parse_declarations(text).values()))


def test_values_come_with_their_lines() -> None:
    params = parse("# a comment\nworkflow: w\n\ntext: [a, b]\nmodel:\n  C: 4\ncv: 5\n")
    assert params.values == {"workflow": "w", "text": ["a", "b"], "model": {"C": 4}, "cv": 5}
    assert params.lines == {
        "workflow": "params/w.yaml, line 2", "text": "params/w.yaml, line 4", "model": "params/w.yaml, line 5",
        "cv": "params/w.yaml, line 7",
    }  # fmt: skip
    assert params.problems == ()


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "null\n"])
def test_an_empty_file_is_refused_with_what_it_needs(text: str) -> None:
    with pytest.raises(ParameterError, match=r"params/w.yaml"):
        parse_params(text, workflow="w", where="params/w.yaml", settings={})


def test_a_file_that_does_not_name_its_workflow_is_refused() -> None:
    # plain papermill hands over the file's lines: without this one it would write another workflow's pins
    params = parse_params("cv: 2\n", workflow="w", where="params/w.yaml", settings={})
    assert params.problems == ("workflow is missing: add the line 'workflow: w' (params/w.yaml)",)


def test_choices_hold_for_each_item_of_a_list_and_each_key_of_a_mapping() -> None:
    listed = Declaration("metrics", "list[str]", [], "names", choices=("f1", "accuracy"))
    mapped = Declaration("thresholds", "dict[str, float]", {}, "bounds", choices=("f1", "accuracy"))
    assert check_value(["f1", "accuracy"], listed) is None
    assert check_value(["f1", "acuracy"], listed) == "'acuracy' is none of f1, accuracy. Did you mean 'accuracy'?"
    assert check_value({"acc": 0.5}, mapped).startswith("'acc' is none of f1, accuracy")


@pytest.mark.parametrize(
    "text", ["- a\n- b\n", "just words\n", "a: [1\n", "a: b: c\n", "\t- x", "x: !!python/name:os.system\n"]
)
def test_what_is_no_flat_mapping_is_refused_with_the_file_named(text: str) -> None:
    with pytest.raises(ParameterError, match=r"^params/w.yaml is not (a mapping|YAML)"):
        parse(text)


@pytest.mark.parametrize("text", ["[a, b]: 1\n", "? {a: 1}\n: 2\n", "title: 2020-13-45\n"])
def test_odd_yaml_is_a_message_and_not_a_traceback(text: str) -> None:
    with pytest.raises(ParameterError, match=r"params/w.yaml"):
        check(text)


def test_a_name_that_stands_twice_is_a_problem() -> None:
    with pytest.raises(ParameterError, match=r"'cv' stands twice \(params/w.yaml, line 1 and params/w.yaml, line 3\)"):
        check("cv: 2\ntext: a\ncv: 4\n")


def test_the_name_of_the_file_is_the_name_of_the_workflow() -> None:
    with pytest.raises(ParameterError, match=r"workflow is 'v', the file's name says 'w' \(params/w.yaml, line 2\)"):
        check("cv: 2\nworkflow: v\n")


@pytest.mark.parametrize(
    ("text", "settings", "filled"),
    [
        ("${A}/x.csv", {"A": "/data"}, "/data/x.csv"),
        ("${A:-data}/x.csv", {}, "data/x.csv"),
        ("${A:-data}/x.csv", {"A": "/d"}, "/d/x.csv"),
        ("${A:-data}/x.csv", {"A": ""}, "data/x.csv"),  # as in a shell: `:-` takes the default for an empty value too
        ("${A:-}", {}, ""),
        ("${A}${B}", {"A": "1", "B": "2"}, "12"),
        ("$A $(A) {A} $", {"A": "1"}, "$A $(A) {A} $"),
        ("${A}", {"A": "${B}", "B": "no second round"}, "${B}"),
    ],
)
def test_variables_are_filled_from_settings(text: str, settings: dict, filled: str) -> None:
    assert fill_variables(text, settings) == filled


def test_a_plain_variable_takes_its_type_and_a_quoted_one_stays_text() -> None:
    params = parse(
        "cv: ${N}\nsource: '${N}'\ntext: ['${A}', b]\nmodel: {c: [\"${A}\", 1]}\ndebug: ${D:-true}\n", N="5", A="x"
    )
    assert params.values == {
        "workflow": "w", "cv": 5, "source": "5", "text": ["x", "b"], "model": {"c": ["x", 1]}, "debug": True,
    }  # fmt: skip


def test_every_variable_that_is_not_set_is_named_with_its_line() -> None:
    params = parse("source: ${HERE}/x\n\nmodel:\n  path: ${THERE}\n")
    assert params.problems == (
        "${HERE} is not set (params/w.yaml, line 1): set HERE or write ${HERE:-default}",
        "${THERE} is not set (params/w.yaml, line 4): set THERE or write ${THERE:-default}",
    )


def test_a_missing_workflow_names_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "params").mkdir()
    for workflow in ("spam", "reviews"):
        (tmp_path / "params" / f"{workflow}.yaml").touch()
    with pytest.raises(ParameterError) as caught:
        load_workflow(Project(tmp_path, {}), "spma")
    assert str(caught.value) == (
        "no workflow 'spma': params/spma.yaml does not exist. Did you mean 'spam'? The workflows here are: reviews, spam."  # noqa: E501
    )


@pytest.mark.parametrize("name", ["Spam", "..", "a b", "-a", "a" * 49, "ä", "a*b", "a.b", "../a"])
def test_a_workflow_has_a_plain_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ParameterError, match=f"^'{re.escape(name)}' is no workflow: lower-case letters, digits, - "):
        load_workflow(Project(tmp_path, {}), name)


def test_a_file_in_another_encoding_says_where(tmp_path: Path) -> None:
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "w.yaml").write_bytes("title: Café\n".encode("latin-1"))
    with pytest.raises(ParameterError, match=r"params/w.yaml is not UTF-8 \(byte 10\). Save it as UTF-8."):
        load_workflow(Project(tmp_path, {}), "w")


def test_set_lays_values_over_the_file_and_reads_them_as_yaml() -> None:
    params = override(
        parse("cv: 2\n"), ["cv=7", "text=[a, b]", "source=x=y", "debug=true", "split=time:day", "kind=[a"]
    )
    assert params.values == {
        "workflow": "w", "cv": 7, "text": ["a", "b"], "source": "x=y", "debug": True, "split": "time:day", "kind": "[a",
    }  # fmt: skip
    assert params.lines["cv"] == "--set cv"


def test_set_names_every_assignment_that_is_none() -> None:
    params = override(parse("workflow: w\n"), ["cv", "workflow=other"])
    assert params.problems == (
        "--set cv has no '=': --set name=value was expected",
        "workflow cannot be changed by --set: name the other workflow instead",
    )


@pytest.mark.parametrize(
    ("value", "cell", "converted"),
    [
        ("a", "text: list[str] = []  # m", ["a"]),
        ("", "text: list[str] = []  # m", []),
        (3, "numbers: list[int] = []  # m", [3]),
        (["a"], "text: list[str] = []  # m", ["a"]),
        (True, "text: list[str] = []  # m", True),
        (2, "share: float = 0.5  # m", 2.0),
        (True, "share: float = 0.5  # m", True),
        (2, "n: int = 1  # m", 2),
        (2.0, "n: int = 1  # m", 2.0),
    ],
)
def test_one_value_stands_for_a_list_and_a_whole_number_for_a_float(value, cell: str, converted) -> None:
    found = convert(value, declare(cell))
    assert (found, type(found)) == (converted, type(converted))


@pytest.mark.parametrize(
    ("value", "cell", "problem"),
    [
        (2, "n: int = 1  # m 0..20", None),
        (0, "n: int = 1  # m 0..20", None),
        (20, "n: int = 1  # m 0..20", None),
        (21, "n: int = 1  # m 0..20", "21 is outside 0..20"),
        (-1, "n: int = 1  # m 0..", "-1 is outside 0.."),
        (9, "n: int = 1  # m ..8", "9 is outside ..8"),
        (9.5, "t: float = 1.0  # m [s] 0..9", "9.5 is outside 0..9 s"),
        ([0.5, 2.0], "t: list[float] = []  # m 0..1", "2.0 is outside 0..1"),
        ("2", "n: int = 1  # m", "'2' is str, int was expected"),
        (2.5, "n: int = 1  # m", "2.5 is float, int was expected"),
        (2.0, "n: int = 1  # m", "2.0 is float, int was expected"),
        (None, "n: int = 1  # m", "None is NoneType, int was expected"),
        (None, "n: int | None = 1  # m", None),
        (3, "s: str = ''  # m", "3 is int, str was expected"),
        (True, "n: int = 1  # m", "True is bool, int was expected (quote it: YAML reads yes, no, on and off as booleans)"),  # noqa: E501
        (False, "s: str = ''  # m",
         "False is bool, str was expected (quote it: YAML reads yes, no, on and off as booleans)"),
        (1, "b: bool = True  # m", "1 is int, bool was expected"),
        (float("inf"), "t: float = 1.0  # m", "inf is float, float was expected"),
        (float("nan"), "t: float = 1.0  # m", "nan is float, float was expected"),
        (["a", 1], "t: list[str] = []  # m", "['a', 1] is list, list[str] was expected"),
        ({"a": 1.0}, "t: dict[str, float] = {}  # m", None),
        ({"a": "x"}, "t: dict[str, float] = {}  # m", "{'a': 'x'} is dict, dict[str, float] was expected"),
        ("hahs", "s: str = 'hash'  # m {hash|random}", "'hahs' is none of hash, random. Did you mean 'hash'?"),
        ("zzz", "s: str = 'hash'  # m {hash|random}", "'zzz' is none of hash, random"),
        ("time:day", "s: str = 'hash'  # m {hash|time:<column>}", None),
        ("time:", "s: str = 'hash'  # m {hash|time:<column>}",
         "'time:' is none of hash, time:<column>"),
        ({"C": 4}, "model: dict = {}  # hyperparameters, as {C: 4}", None),
        ("secret:A", "s: str = ''  # m", None),
        (["secret:A"], "s: list[str] = []  # m", None),
        ("secret:A", "n: int = 1  # m", "'secret:A' is a secret, and secrets are for strings only, not int"),
        ({"a": "secret:A"}, "d: dict = {}  # m", "{'a': 'secret:A'} is a secret, and secrets are for strings only, not dict"),  # noqa: E501
    ],
)  # fmt: skip
def test_a_value_is_checked_against_type_range_and_choices(value, cell: str, problem: str | None) -> None:
    assert check_value(value, declare(cell)) == problem


def test_everything_wrong_is_said_at_once_with_line_and_hint() -> None:
    text = "workflow: w\ntets_fraction: 0.3\ncv: many\ntest_fraction: 2\nkind: c\nsource: secret:NOWHERE\nrun: {timeot: 3}\n"  # noqa: E501
    with pytest.raises(ParameterError) as caught:
        check(text)
    assert str(caught.value) == (
        "6 problems in params/w.yaml: "
        "no setting 'timeot' under run (params/w.yaml, line 7). Did you mean 'timeout'?; "
        "no notebook has parameter 'tets_fraction' (params/w.yaml, line 2). Did you mean 'test_fraction'?; "
        "cv: 'many' is str, int was expected (params/w.yaml, line 3); "
        "test_fraction: 2.0 is outside 0.01..0.9 (params/w.yaml, line 4); "
        "kind: 'c' is none of a, b (params/w.yaml, line 5); "
        "source: the secret 'NOWHERE' is not set (params/w.yaml, line 6); set it or .env"
    )


def test_a_secret_that_is_set_stays_a_name() -> None:
    assert check("source: secret:DB\n", DB="postgresql://u:hunter22@h/d")[0]["source"] == "secret:DB"


@pytest.mark.parametrize("text", ["run:\n", "run: {}\n", "cv: 1\n"])
def test_without_settings_a_stage_may_take_an_hour(text: str) -> None:
    assert check(text)[1].seconds("train") == 3600


def test_the_longest_time_is_one_for_all_or_by_stage() -> None:
    assert check("run: {timeout: 60}\n")[1].seconds("train") == 60
    settings = check("run:\n  timeout: {train: 7200.0}\n")[1]
    assert (settings.seconds("train"), settings.seconds("prepare")) == (7200, 3600)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("run: 5\n", "params/w.yaml, line 1"),
        ("run: {timeout: -1}\n", "run.timeout: -1 is not longest time for a stage"),
        ("run: {timeout: soon}\n", "run.timeout: 'soon' is not longest time for a stage"),
        (
            "run: {timeout: {trian: 5.0}}\n",
            r"run.timeout: no stage 'trian' \(params/w.yaml, line 1\). Did you mean 'train'\?",
        ),
        ("run: {notebooks: {trian: x.ipynb}}\n", "run.notebooks: no stage 'trian'"),
    ],
)
def test_the_runner_s_own_settings_are_checked_too(text: str, problem: str) -> None:
    with pytest.raises(ParameterError, match=problem):
        check(text)


def test_the_schema_is_valid_and_says_for_editors_what_the_check_says() -> None:
    schema = read_schema(STAGES)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    good = {"workflow": "w", "text": "a", "split": "time:day", "cv": 0, "model": {"C": 1}, "kind": "b",
            "positive": None, "run": {"timeout": 5.0}}  # fmt: skip
    assert [*validator.iter_errors(good)] == []
    assert [*validator.iter_errors({"text": ["a", "b"], "positive": 1})] == []
    for bad in ({"cv": 21}, {"cv": "x"}, {"kind": "c"}, {"unknown": 1}, {"run": {"timeot": 1}}, {"text": 5}):
        assert [*validator.iter_errors(bad)], bad
    assert schema["properties"]["wait"]["description"] == "patience [s]"
    assert schema["properties"]["cv"]["default"] == 3


def test_a_bad_params_file_stops_the_run_in_two_seconds_and_before_any_kernel(workplace) -> None:
    workplace.params("workflow: tiny\nsource: tiny.csv\ntxet: text\ncv: 99\n")
    seconds = []
    for _ in range(3):  # the best of three: others work on this machine too
        clock = time.monotonic()
        done = workplace.pinmill("run", "tiny", code=2)
        seconds.append(time.monotonic() - clock)
    assert done.stderr.strip() == (
        "ParameterError: 2 problems in params/tiny.yaml: "
        "no notebook has parameter 'txet' (params/tiny.yaml, line 3). Did you mean 'text'?; "
        "cv: 99 is outside 0..20 (params/tiny.yaml, line 4)"
    )
    assert min(seconds) < 2
    assert not (workplace.root / "outputs").exists()


def test_hyperparameters_and_thresholds_of_the_real_notebooks_are_taken(workplace) -> None:
    with (workplace.root / "params" / "tiny.yaml").open("a") as file:
        file.write(
            "model: {logisticregression__C: 4}\nsearch: {logisticregression__C: [1, 4]}\nthresholds: {accuracy: 0.5}\n"
        )
    shown = {p["name"]: p["value"] for p in workplace.json("params", "tiny")["parameters"]}
    assert shown["model"] == {"logisticregression__C": 4}
    assert shown["search"] == {"logisticregression__C": [1, 4]}
    assert shown["thresholds"] == {"accuracy": 0.5}
