"""Reading notebooks: front matter, declared parameters, code, and the order of stages."""

import json
from pathlib import Path

import pytest
from pinmill.errors import ProjectError
from pinmill.kernel import find_imports
from pinmill.notebook import (
    Declaration,
    Stage,
    order_stages,
    parse_comment,
    parse_declarations,
    read_stage,
    read_stages,
)


def front_matter(**pinmill) -> str:
    return f"---\ntitle: A title\npinmill: {json.dumps(pinmill)}\n---"


def write_notebook(path: Path, *cells: tuple, **pinmill) -> Path:
    """A notebook of raw front matter and cells of (type, source) or (type, source, tag)."""
    every = [("raw", front_matter(**pinmill)), *cells]
    listed = [
        {"cell_type": kind, "source": source.splitlines(keepends=True), "metadata": {"tags": tags} if tags else {}}
        for kind, source, *tags in every
    ]
    path.write_text(json.dumps({"cells": listed, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def stage(stem: str, *, reads: str = "", writes: str = "", job: str = "train") -> Stage:
    return Stage(stem, Path(f"{stem}.ipynb"), stem, job, tuple(reads.split()), tuple(writes.split()), {}, ())


@pytest.mark.parametrize(
    ("comment", "parts"),
    [
        ("# plain meaning", {"meaning": "plain meaning"}),
        ("# share of rows 0.01..0.9", {"meaning": "share of rows", "low": 0.01, "high": 0.9}),
        ("# folds; 0: none 0..20", {"meaning": "folds; 0: none", "low": 0, "high": 20}),
        ("# rows 1..", {"meaning": "rows", "low": 1}),
        ("# rows ..1e6", {"meaning": "rows", "high": 1_000_000}),
        ("# shift -1.5..-0.5", {"meaning": "shift", "low": -1.5, "high": -0.5}),
        ("# patience [s] 0..60", {"meaning": "patience", "unit": "s", "low": 0, "high": 60}),
        ("# patience [s]", {"meaning": "patience", "unit": "s"}),
        ("# kind {a|b|c}", {"meaning": "kind", "choices": ("a", "b", "c")}),
        ("# kind { a | b:<x> }", {"meaning": "kind", "choices": ("a", "b:<x>")}),
        ("# as {logisticregression__C: 4}", {"meaning": "as {logisticregression__C: 4}"}),  # an example, no choice
        ("# as {C: [1, 4]}; empty: none", {"meaning": "as {C: [1, 4]}; empty: none"}),
        ("# from 1..2 upwards", {"meaning": "from 1..2 upwards"}),
        ("", {"meaning": ""}),
    ],
)
def test_a_comment_holds_meaning_unit_range_and_choices(comment: str, parts: dict) -> None:
    assert parse_comment(comment) == parts


def test_a_parameters_cell_declares_name_type_default_and_meaning() -> None:
    source = """\
workflow: str = "a # b"  # name of the workflow
# a line of its own
shares: dict[str, float] = {"a": 0.5}  # shares [%] 0..1
many: list[str] = [
    "x",
    "y",
]  # a long list
limit: int | None = None  # limit ..-1
"""
    assert list(parse_declarations(source).values()) == [
        Declaration("workflow", "str", "a # b", "name of the workflow"),
        Declaration("shares", "dict[str, float]", {"a": 0.5}, "shares", unit="%", low=0, high=1),
        Declaration("many", "list[str]", ["x", "y"], "a long list"),
        Declaration("limit", "int | None", None, "limit", high=-1),
    ]


def test_all_that_is_no_declaration_is_said_at_once() -> None:
    source = "import os\nn = 3  # no type\nm: int = len('x')  # computed\nk: int = 3\nj: int = 1  # bad ...\ni: int  # no value\n"  # noqa: E501
    with pytest.raises(ValueError, match="line 1 is not") as caught:
        parse_declarations(source)
    assert [part.partition(",")[0].partition(" is")[0] for part in str(caught.value).split("; ") if "line" in part] == [
        "line 1", "line 2", "line 3", "line 4", "line 5", "line 6",
    ]  # fmt: skip


def test_true_and_one_are_different_defaults() -> None:
    one, true = (parse_declarations(f"x: int = {text}  # m")["x"] for text in ("1", "True"))
    assert repr(one) != repr(true)


def test_a_stage_is_read_from_its_notebook(tmp_path: Path) -> None:
    path = write_notebook(
        tmp_path / "05-monitor.ipynb",
        ("markdown", "# Monitor"),
        ("code", "n: int = 3  # number", "parameters"),
        ("code", "import os\nprint(n)"),
        job="monitor", reads=["model"], writes=["drift"], page="monitoring",
    )  # fmt: skip
    found = read_stage(path)
    assert found == Stage(
        name="monitor", path=path, title="A title", job="monitor", reads=("model",), writes=("drift",),
        declarations={"n": Declaration("n", "int", 3, "number")}, code=("import os\nprint(n)",), page="monitoring",
    )  # fmt: skip
    assert found.stem == "05-monitor"


def test_a_notebook_without_a_job_is_no_stage(tmp_path: Path) -> None:
    assert read_stage(write_notebook(tmp_path / "annotate.ipynb", ("code", "1"))) is None
    plain = tmp_path / "scratch.ipynb"
    plain.write_text(json.dumps({"cells": [{"cell_type": "code", "source": [], "metadata": {}}]}))
    assert read_stage(plain) is None
    plain.write_text(json.dumps({"cells": []}))
    assert read_stage(plain) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"cells": 3}', "not json"])
def test_a_file_that_is_no_notebook_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.ipynb").write_text(text)
    with pytest.raises(ProjectError, match=r"x.ipynb is not a notebook: .*Restore it from git"):
        read_stage(tmp_path / "x.ipynb")


def test_a_missing_notebook_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"no notebook at .*x.ipynb"):
        read_stage(tmp_path / "x.ipynb")


def test_front_matter_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "01-x.ipynb", job="train")
    cells = json.loads(path.read_text())
    cells["cells"][0]["source"] = ["---\n", "title: [unclosed\n", "---"]
    path.write_text(json.dumps(cells))
    with pytest.raises(ProjectError, match=r"01-x.ipynb"):
        read_stage(path)


def test_a_broken_parameters_cell_names_notebook_and_line(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "01-x.ipynb", ("code", "n: int = 3  # m\nk = 3", "parameters"), job="train")
    with pytest.raises(ProjectError, match=r"the parameters cell of notebooks/01-x.ipynb: line 2 is not"):
        read_stage(path)
    path = write_notebook(tmp_path / "01-x.ipynb", ("code", "n: int = ", "parameters"), job="train")
    with pytest.raises(ProjectError, match=r"the parameters cell of notebooks/01-x.ipynb: "):
        read_stage(path)


def test_only_code_decides_the_hash_of_the_code(tmp_path: Path) -> None:
    def code_hash(*cells: tuple) -> str:
        return read_stage(write_notebook(tmp_path / "01-x.ipynb", *cells, job="train")).code_hash

    base = code_hash(("code", "n: int = 3  # m", "parameters"), ("code", "print(n)"))
    assert code_hash(("code", "n: int = 4  # other", "parameters"), ("markdown", "text"), ("code", "print(n)")) == base
    assert code_hash(("code", "n: int = 3  # m", "parameters"), ("code", "print(n + 1)")) != base
    assert code_hash(("code", "print(n)"), ("code", "print(n)")) != code_hash(("code", "print(n)\nprint(n)"))


def test_a_workflow_can_put_another_notebook_in_the_place_of_a_stage(tmp_path: Path) -> None:
    for name in ("01-prepare", "02-train"):
        write_notebook(tmp_path / f"{name}.ipynb", job="train")
    write_notebook(tmp_path / "02-train-tabular.ipynb", job="train", stage="train")
    assert [s.stem for s in read_stages(tmp_path)] == ["01-prepare", "02-train"]
    other = tmp_path / "02-train-tabular.ipynb"
    assert [(s.name, s.stem) for s in read_stages(tmp_path, {"train": other})] == [
        ("prepare", "01-prepare"), ("train", "02-train-tabular"),
    ]  # fmt: skip
    with pytest.raises(ProjectError, match=r"01-prepare.ipynb is not a notebook for stage 'train'"):
        read_stages(tmp_path, {"train": tmp_path / "01-prepare.ipynb"})


def test_stages_are_ordered_by_what_they_read_and_ties_by_name() -> None:
    card = stage("01-card", reads="model data metrics")
    train = stage("04-train", reads="data", writes="model")
    prepare = stage("05-prepare", reads="source", writes="data")
    evaluate = stage("03-evaluate", reads="data model champion", writes="metrics")
    monitor = stage("00-monitor", reads="model", job="monitor")
    second = stage("02-second", reads="data", writes="other")
    ordered = order_stages([card, second, evaluate, train, prepare, monitor], "train")
    assert [s.stem for s in ordered] == ["05-prepare", "02-second", "04-train", "03-evaluate", "01-card"]


def test_a_stage_may_read_the_earlier_version_of_what_it_writes() -> None:
    assert [s.stem for s in order_stages([stage("1", reads="a", writes="a")], "train")] == ["1"]


def test_stages_that_wait_for_each_other_are_named() -> None:
    with pytest.raises(ProjectError, match="the stages 2, 3 wait for each other"):
        order_stages(
            [stage("1", writes="c"), stage("2", reads="b", writes="a"), stage("3", reads="a", writes="b")], "train"
        )


def test_one_kind_has_one_writer() -> None:
    with pytest.raises(ProjectError, match="1 problem in job 'train': 'data' is written twice"):
        order_stages([stage("1", writes="data"), stage("2", writes="data")], "train")


def test_an_unknown_job_names_those_there_are() -> None:
    with pytest.raises(ProjectError, match="no notebook belongs to job 'tarin'; the jobs here are: monitor, train"):
        order_stages([stage("1"), stage("2", job="monitor")], "tarin")


def test_imports_are_found_wherever_they_stand_and_once() -> None:
    code = ("import os, sys\nif True:\n    from a import b as c", "%%html\n<b>", "import os, sys\nx = 'import y'")
    assert find_imports(code).splitlines() == ["import os, sys", "from a import b as c"]


def test_what_the_methods_of_a_run_import_is_found_too() -> None:
    assert find_imports(["run.read_model()"]).splitlines() == ["import skops.io", "import sklearn.pipeline"]
    assert find_imports(["run.write_table('data', data)"]) == "import pyarrow.parquet"


@pytest.mark.parametrize("page", ["../../../x", "a/b", "Größe <b>", ["a", "b"], "A", "-a", "a" * 65])
def test_a_page_s_name_is_a_file_s_and_leads_nowhere_else(tmp_path: Path, page: object) -> None:
    path = write_notebook(tmp_path / "1-a.ipynb", job="train", page=page)
    with pytest.raises(ProjectError, match=r"1-a\.ipynb names the page .*: lower-case letters, digits, - and _ were"):
        read_stage(path)
    assert read_stage(write_notebook(path, job="train", page="my-page_2")).page == "my-page_2"


def test_two_stages_do_not_leave_one_page(tmp_path: Path) -> None:
    stages = [read_stage(write_notebook(tmp_path / f"{n}.ipynb", job="train", page="data")) for n in (1, 2)]
    with pytest.raises(ProjectError, match="1 problem in job 'train': 'page data' is written twice"):
        order_stages(stages, "train")
