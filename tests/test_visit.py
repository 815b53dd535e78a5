"""What of a request is taken, and what is refused, before anything is computed."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from pinmill.problem import Problem
from pinmill.visit import READ_AWAY, Caller, Visit, limit_depth, parse_json

TOKEN = f"pinmill_shop_{'0a' * 24}"

MOST = 1000  # bytes of a body, here


def visit(*parts: bytes, query: str | bytes = b"", path: str = "/", ended: bool = True, **headers: str) -> Visit:
    """A request whose body comes in these parts; unless `ended` its sender goes away before the last."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": not ended or place < len(parts) - 1}
        for place, part in enumerate(parts)
    ]
    messages.append({"type": "http.disconnect"})
    queue = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(queue)

    scope = {"path": path, "query_string": query.encode() if isinstance(query, str) else query}
    listed = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Visit(scope, receive, "req-1", listed, 0.0, Caller("ann", "scorer", "127.0.0.1"))


def read(*parts: bytes, most: int = MOST, **options: Any) -> Any:
    return asyncio.run(visit(*parts, **options).read_json(most))


def refusal(*parts: bytes, **options: Any) -> Problem:
    with pytest.raises(Problem) as raised:
        read(*parts, **options)
    return raised.value


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "Application/JSON ; charset=latin1",
        "",
    ],
)
def test_json_with_any_charset_is_taken(content_type: str) -> None:
    assert read('["é"]'.encode(), content_type=content_type) == ["é"]


def test_json_without_a_content_type_is_taken_as_vetiver_sends_it() -> None:
    assert read(b'[{"a": 1}]') == [{"a": 1}]


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/json",
        "application/json-seq",
        "application/x-www-form-urlencoded",
        "multipart/form-data; x=application/json",
    ],
)
def test_another_content_type_is_refused(content_type: str) -> None:
    assert refusal(b"[]", content_type=content_type).status == 415


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, identity"])
def test_a_compressed_body_is_refused_unread(encoding: str) -> None:
    problem = refusal(b"\x1f\x8b", content_encoding=encoding)
    assert (problem.status, "compressed" in problem.detail) == (415, True)
    assert read(b"[]", content_encoding="identity") == []


def test_a_body_in_parts_is_one() -> None:
    assert read(b'["a', b"", b'", 1', b"]") == ["a", 1]


def test_a_body_may_be_as_large_as_that_and_no_larger() -> None:
    exact = json.dumps("x" * (MOST - 2)).encode()
    assert len(exact) == MOST
    assert read(exact) == read(exact[:500], exact[500:]) == "x" * (MOST - 2)
    for parts in ([exact + b" "], [exact[:500], exact[500:] + b" "], [exact, b"", b" "]):
        problem = refusal(*parts)
        assert (problem.status, problem.headers) == (413, {"Connection": "close"})
        assert "more than 1,000 bytes" in problem.detail


def test_of_a_body_without_end_only_so_much_is_read() -> None:
    asked = visit()
    taken = 0

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": b"x" * 1_000_000, "more_body": True}

    asked.receive = receive
    with pytest.raises(Problem) as raised:
        asyncio.run(asked.read_body(MOST))
    assert raised.value.status == 413
    assert taken == READ_AWAY // 1_000_000 + 1


@pytest.mark.parametrize("parts", [[], [b"[1"], [b"[1", b", 2]"]])
def test_a_sender_who_goes_away_midway_has_sent_nothing(parts: Sequence[bytes]) -> None:
    assert refusal(*parts, ended=False).status == 400


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "the body is not JSON: Expecting value (line 1, column 1)"),
        (b'[1,\n "x]', "the body is not JSON: Unterminated string starting at (line 2, column 2)"),
        (b"{'a': 1}", "the body is not JSON: Expecting property name"),
        (b"[1] 2", "the body is not JSON: Extra data"),
        (b'["\xff"]', "the body is not UTF-8 (byte 2)"),
        ("[1]".encode("utf-16"), "the body is not UTF-8 (byte 0)"),
        (b"\xef\xbb\xbf[1]", "the body is not JSON: Unexpected UTF-8 BOM"),
        (b"[" * 50_000, "the body is nested too deeply"),
        (b'{"a":' * 50_000, "the body is nested too deeply"),
        (b"1" * 5000, "the body holds a number that is too long"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(body: bytes, detail: str) -> None:
    problem = refusal(body, most=1_000_000)
    assert problem.status == 400
    assert problem.detail.startswith(detail)


def test_options_are_lists_of_texts() -> None:
    assert visit(query="").read_options() == {}
    assert visit(query="a=1&b=&a=2&c=%C3%A9+x&d").read_options() == {
        "a": ["1", "2"],
        "b": [""],
        "c": ["é x"],
        "d": [""],
    }


@pytest.mark.parametrize("query", [b"a=%ff", b"a=\xff", b"&".join(b"a=1" for _ in range(101))])
def test_options_that_are_no_text_or_too_many_are_refused(query: bytes) -> None:
    with pytest.raises(Problem) as raised:
        visit(query=query).read_options()
    assert raised.value.status == 400


@pytest.mark.parametrize(
    "query",
    [
        "token=abc",
        "TOKEN=abc",
        "a=1&access_token=x",
        "api_key=x",
        "authorization=Bearer+x",
        "x=pinmill_shop_0123",
        "token=",
        "bearer=x",
        f"x=Bearer+{TOKEN}",
        f"x=v{TOKEN}",
        TOKEN,
        f"/args/{TOKEN}",
    ],
)
def test_a_token_in_an_address_is_refused_and_not_repeated(query: str) -> None:
    where = {"path": query} if query.startswith("/") else {"query": query}
    with pytest.raises(Problem) as raised:
        visit(**where).read_options()
    assert (raised.value.status, TOKEN in raised.value.detail) == (400, False)
    assert "revoke it" in raised.value.detail
    assert "0123" not in raised.value.detail


def test_a_cell_is_told_name_role_and_address_of_its_caller() -> None:
    assert json.loads(Caller("ann", "scorer", "::1").as_json()) == {"name": "ann", "role": "scorer", "address": "::1"}
    assert json.loads(Caller("", "", "").as_json())["role"] == "any"


def test_a_value_is_what_the_json_module_reads() -> None:
    assert parse_json(b'{"a": [1, 2.5, null, true, "\\ud83d\\ude00"]}') == {"a": [1, 2.5, None, True, "😀"]}


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_what_a_cell_is_given_has_a_depth_that_json_can_write_again(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    values = {depth: json.loads(opening * depth + "1" + closing * depth) for depth in (0, 1, 32, 33, 900)}
    for depth in (0, 1, 32):
        assert limit_depth(values[depth]) is values[depth]
    for depth in (33, 900):
        with pytest.raises(Problem, match="more than 32 levels deep"):
            limit_depth([1, values[depth]] if depth == 900 else values[depth])
