"""Which cells of a serving notebook are endpoints, and what their tags and prose say."""

import json
from pathlib import Path

import pytest
from pinmill.endpoint import Endpoint, read_endpoints
from pinmill.errors import ProjectError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def notebook(tmp_path: Path):
    """A function that writes serve.ipynb of cells: code, (code, *tags) or Markdown, which begins with `md:`."""

    def write(*cells: str | tuple[str, ...]) -> Path:
        listed = []
        for cell in cells:
            source, *tags = (cell,) if isinstance(cell, str) else cell
            kind = "markdown" if source.startswith("md:") else "code"
            listed.append(
                {"cell_type": kind, "source": source.removeprefix("md:").splitlines(True), "metadata": {"tags": tags}}
            )
        path = tmp_path / "serve.ipynb"
        path.write_text(json.dumps({"cells": listed, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
        return path

    return write


@pytest.mark.parametrize(
    ("source", "method", "path"),
    [
        ("# GET /\nprint(1)", "GET", "/"),
        ("# GET /args/:name", "GET", "/args/{name}"),
        ("# PUT /models/champion  \nprint(1)", "PUT", "/models/champion"),
        ("#   POST   /a/:x/b/:y", "POST", "/a/{x}/b/{y}"),
        ("#\tDELETE\t/a", "DELETE", "/a"),
        ("# what a person wrote\n\n# GET /args\nprint(1)", "GET", "/args"),  # the stock gateway loses this one
    ],
)
def test_an_annotation_makes_a_cell_an_endpoint(notebook, source: str, method: str, path: str) -> None:
    assert read_endpoints(notebook(source)) == ([Endpoint(method, path, source)], [])


@pytest.mark.parametrize(
    "source",
    [
        "x = 1\n# GET /late",
        "#GET /a",
        "# GET a",
        "# get /a",
        "# PATCH /a",
        "# GETS /a",
        'text = """\n# GET /a\n"""',
        "",
        "# only a comment",
    ],
)
def test_any_other_code_cell_runs_when_the_service_starts(notebook, source: str) -> None:
    assert read_endpoints(notebook(source)) == ([], [source])


def test_other_cells_keep_their_order_and_raw_cells_are_nothing(notebook) -> None:
    path = notebook("a = 1", "# GET /a", "md:text", "b = 2", "# ResponseInfo GET /a", "c = 3")
    content = json.loads(path.read_text())
    content["cells"].append({"cell_type": "raw", "source": "# GET /raw", "metadata": {}})
    path.write_text(json.dumps(content))
    endpoints, others = read_endpoints(path)
    assert [endpoint.name for endpoint in endpoints] == ["GET /a"]
    assert others == ["a = 1", "b = 2", "c = 3"]


def test_the_info_cell_belongs_to_its_endpoint_wherever_it_stands(notebook) -> None:
    info = "# ResponseInfo GET /args/:name\nprint(2)"
    endpoints, _ = read_endpoints(notebook(info, "# GET /args/{name}\nprint(1)", "# GET /args\nprint(3)"))
    assert [endpoint.info for endpoint in endpoints] == [info, ""]


def test_tags_say_role_rows_source_shape_and_options(notebook) -> None:
    endpoints, _ = read_endpoints(
        notebook(
            ("# POST /predictions", "role-scorer", "row-wise", "arg-explain", "arg-top", "mine"),
            ("# POST /prediction", "source:/predictions", "shape-one", "role-any"),
            ("# POST /predict", "shape-vetiver", "source:/predictions", "role-admin"),
            "# POST /plain",
        )
    )
    assert endpoints == [
        Endpoint("POST", "/predictions", "# POST /predictions", role="scorer", row_wise=True, args=("explain", "top")),
        Endpoint("POST", "/prediction", "# POST /prediction", role="any", of="/predictions", shape="one"),
        Endpoint("POST", "/predict", "# POST /predict", role="admin", of="/predictions", shape="vetiver"),
        Endpoint("POST", "/plain", "# POST /plain", role="modeller"),
    ]


def test_the_prose_above_a_cell_is_its_description_and_the_last_heading_its_summary(notebook) -> None:
    endpoints, _ = read_endpoints(
        notebook(
            "md:# Serving\n\nAbout all.",
            "md:## What runs\n\nFirst.\nSecond `x`.",
            "REQUEST = '{}'",
            "# GET /a",
            "md:no heading",
            "# GET /b",
            "# GET /c",
        )
    )
    told = [(endpoint.summary, endpoint.description) for endpoint in endpoints]
    assert told == [("What runs", "First.\nSecond `x`."), ("", "no heading"), ("", "")]


def test_a_cell_of_another_source_or_info_has_another_hash() -> None:
    made = [Endpoint("GET", "/a", source, info) for source, info in [("x", ""), ("y", ""), ("x", "y"), ("xy", "")]]
    assert len({endpoint.hash for endpoint in made}) == 4
    assert Endpoint("GET", "/other", "x", role="any").hash == made[0].hash


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ([("# GET /a", "role-scorrer")], "GET /a: there is no tag 'role-scorrer'. Did you mean 'scorer'?"),
        ([("# GET /a", "role-zzz")], "GET /a: there is no tag 'role-zzz'"),
        ([("# GET /a", "role-any", "role-admin")], "GET /a: it has 2 tags role-…; one is enough"),
        (["# GET /a", "# GET /a"], "GET /a stands 2 times"),
        (["# GET /a/:x", "# GET /a/{x}"], "GET /a/{x} stands 2 times"),
        (["# ResponseInfo GET /a"], "ResponseInfo GET /a belongs to no endpoint"),
        ([("# POST /b", "source:/a", "shape-one")], "POST /b: its source /a is no row-wise cell"),
        ([("# POST /a", "row-wise"), ("# POST /b", "source:/a")], "POST /b: source and shape go together"),
        ([("# POST /b", "shape-one")], "POST /b: source and shape go together"),
        ([("# GET /a", "row-wise")], "GET /a: a row-wise cell takes POST"),
    ],
)
def test_what_cannot_be_meant_is_refused(notebook, cells, problem: str) -> None:
    with pytest.raises(ProjectError) as raised:
        read_endpoints(notebook(*cells))
    assert str(raised.value) == f"1 problem in serve.ipynb: {problem}. Correct the cell, or its tags."


def test_all_that_is_wrong_is_told_at_once(notebook) -> None:
    path = notebook(("# GET /a", "role-x", "shape-y"), "# GET /a", "# ResponseInfo PUT /b", ("# PUT /c", "row-wise"))
    with pytest.raises(ProjectError) as raised:
        read_endpoints(path)
    told = str(raised.value)
    assert told.startswith("5 problems in serve.ipynb: ")
    for part in ("'role-x'", "'shape-y'", "GET /a stands 2 times", "PUT /c: a row-wise cell", "ResponseInfo PUT /b"):
        assert part in told


def test_our_serving_notebook_has_the_endpoints_of_the_design() -> None:
    endpoints, _ = read_endpoints(ROOT / "notebooks" / "serve.ipynb")
    roles = {endpoint.name: endpoint.role for endpoint in endpoints}
    assert (
        roles.items()
        >= {
            "GET /": "any",
            "GET /last-updated": "any",
            "GET /metadata": "scorer",
            "GET /prototype": "scorer",
            "POST /predictions": "scorer",
            "POST /prediction": "scorer",
            "POST /predict": "scorer",
            "GET /performance": "scorer",
            "GET /args": "scorer",
            "GET /args/{name}": "scorer",
            "GET /model": "scorer",
            "GET /models": "scorer",
        }.items()
    )
    (rows,) = [endpoint.name for endpoint in endpoints if endpoint.row_wise]
    assert rows == "POST /predictions"
    assert all(endpoint.summary for endpoint in endpoints if endpoint.method != "GET" or not endpoint.of)
