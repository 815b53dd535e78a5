"""How rows over HTTP are asked for and given back: the options of a call, and the shape of each item."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pinmill.endpoint import Endpoint
from pinmill.problem import Problem
from pinmill.scoring import PLAIN, Options, Scoring, finish, is_good, read_options
from pinmill.served import Served

OWN = ("explain", "top")
TAIL = b'"version": "v1"'


def test_without_options_a_call_is_plain() -> None:
    assert read_options({}, OWN) is PLAIN
    assert Options() == PLAIN


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"echo_input": ["true"]}, Options(echo=True)),
        ({"echo_input": ["true"], "skip_cache": ["TRUE"]}, Options(echo=True, skip_cache=True)),
        ({"echo_input": ["false"], "skip_cache": ["False"], "explain": ["false"]}, Options()),
        ({"echo_input": ["false", "true"]}, Options(echo=True)),
        ({"version": ["2026", "2027"]}, Options(version="2027")),
        ({"explain": ["true"]}, Options(args={"explain": ["true"]})),
        ({"top": ["3", "4"]}, Options(args={"top": ["3", "4"]})),
    ],
)
def test_options_are_read(given: dict, expected: Options) -> None:
    told = read_options(given, OWN)
    assert (told.echo, told.skip_cache, told.version) == (expected.echo, expected.skip_cache, expected.version)
    assert told.args == expected.args


def test_every_wrong_option_is_named_with_what_was_perhaps_meant() -> None:
    with pytest.raises(Problem) as raised:
        read_options({"echo_imput": ["true"], "zzz": ["1"], "skip_cache": [""], "explain": ["maybe" * 20]}, OWN)
    assert raised.value.status == 422
    assert raised.value.errors == (
        {"field": "echo_imput", "problem": "is no option here. Did you mean 'echo_input'?"},
        {"field": "zzz", "problem": "is no option here"},
        {"field": "skip_cache", "problem": "'' is neither true nor false"},
        {"field": "explain", "problem": f"'{'maybe' * 8}' is neither true nor false"},
    )


def test_an_option_of_another_cell_is_none_here() -> None:
    with pytest.raises(Problem):
        read_options({"top": ["3"]}, ())


@pytest.mark.parametrize(
    ("item", "cached", "echo", "expected"),
    [
        (b'{"value": 1}', False, "", {"value": 1, "version": "v1", "from_cache": False}),
        (b'{"value": 1}', True, '"a"', {"value": 1, "version": "v1", "from_cache": True, "input": "a"}),
        (b"{}", False, "", {"version": "v1", "from_cache": False}),
        (b'{"a": {"b": "}"}}', False, "[1]", {"a": {"b": "}"}, "version": "v1", "from_cache": False, "input": [1]}),
        (b"", False, "", {"error": "The model could not score this row.", "version": "v1", "from_cache": False}),
        (
            b'{"error": "a secret of the model"}',
            False,
            "1",
            {"error": "The model could not score this row.", "version": "v1", "from_cache": False, "input": 1},
        ),
        (b"1.5", True, "1", 1.5),
        (b'"text"', False, "", "text"),
        (b"[1]", False, "", [1]),
        (b"null", False, "", None),
    ],
)
def test_an_item_names_its_version_and_whether_it_was_known(item: bytes, cached: bool, echo: str, expected) -> None:
    assert json.loads(finish(item, TAIL, cached, echo)) == expected


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers() | st.none(), max_size=4), st.text())
def test_whatever_an_item_and_an_input_hold_the_answer_is_json(item: dict, text: str) -> None:
    own = {"version", "from_cache", "input", "error"}
    item = {name: value for name, value in item.items() if name not in own}
    told = json.loads(finish(json.dumps(item).encode(), TAIL, True, json.dumps(text)))
    assert told == item | {"version": "v1", "from_cache": True, "input": text}


def test_a_row_is_good_unless_nothing_or_an_error_was_printed() -> None:
    assert [is_good(item) for item in (b'{"value": 1}', b"0", b"", b'{"error": "x"}')] == [True, True, False, False]


VETIVER = Endpoint("POST", "/predict", "", of="/rows", shape="vetiver")
ITEMS = [b'{"label": "spam", "value": 0.5}', b'{"label": 0, "value": 0.5}', b'{"value": 2.5}', b"7", b'"x"', b"null"]


def shape(endpoint: Endpoint, items: list[bytes]) -> object:
    scoring = object.__new__(Scoring)  # all else that it has is for computing items
    scoring.endpoint = endpoint
    served = Served("v1", {}, str)
    return json.loads(scoring.shape(served, PLAIN, ["1"] * len(items), items, [False] * len(items)))


def test_vetiver_is_told_labels_or_amounts_whatever_a_cell_prints() -> None:
    assert shape(VETIVER, ITEMS) == {"predict": ["spam", 0, 2.5, 7, "x", None]}


@pytest.mark.parametrize("endpoint", [VETIVER, Endpoint("POST", "/one", "", of="/rows", shape="one")])
def test_a_shape_without_a_place_for_it_says_which_row_failed(endpoint: Endpoint) -> None:
    with pytest.raises(Problem) as raised:
        shape(endpoint, [b"1", b"", b'{"error": "x"}'] if endpoint is VETIVER else [b""])
    assert raised.value.status == 500
    rows = [error["row"] for error in raised.value.errors]
    assert rows == ([1, 2] if endpoint is VETIVER else [0])


def test_a_list_keeps_its_place_for_a_row_that_failed() -> None:
    items = shape(Endpoint("POST", "/rows", "", row_wise=True), [b'{"value": 1}', b"", b'{"value": 3}'])
    about = {"version": "v1", "from_cache": False}
    failed = {"error": "The model could not score this row.", **about}
    assert items == [{"value": 1, **about}, failed, {"value": 3, **about}]
