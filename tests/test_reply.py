"""What the notebook's other cells print: taken for an answer with its status and headers, or refused."""

import pytest
from pinmill.problem import Problem
from pinmill.reply import read_info


@pytest.mark.parametrize(
    ("answer", "info", "status", "headers"),
    [
        (b'{"a": 1}\n', b"", 200, {"content-type": "application/json"}),
        (b"1", b'{"status": 404}', 404, {"content-type": "application/json"}),
        (b"<p>", b'{"headers": {"Content-Type": "text/html"}}', 200, {"content-type": "text/html"}),
        (b"\n", b'{"status": 204, "headers": {"X-N": 1}}', 204, {"content-type": "application/json", "x-n": "1"}),
    ],
)
def test_a_cell_says_status_and_headers_of_its_answer(answer: bytes, info: bytes, status: int, headers: dict) -> None:
    assert read_info(answer, info) == (status, headers)


@pytest.mark.parametrize(
    ("answer", "info"),
    [
        (b"rubbish", b""),
        (b"", b""),
        (b"[NaN]", b""),
        (b"\xff", b""),
        (b"[" * 100_000, b""),
        (b"1", b"rubbish"),
        (b"1", b"[]"),
        (b"1", b'"text"'),
        (b"1", b'{"status": 42}'),
        (b"1", b'{"status": 101}'),
        (b"1", b'{"status": 1000}'),
        (b"1", b'{"status": "x"}'),
        (b"1", b'{"status": null}'),
        (b"1", b'{"headers": []}'),
        (b"1", b'{"headers": {"X": "a\\r\\nSet-Cookie: b"}}'),
        (b"1", b'{"headers": {"X: a\\r\\nY": "b"}}'),
        (b"1", b'{"headers": {"": "b"}}'),
        (b"1", b'{"headers": {"X": "\\u20ac"}}'),
    ],
)
def test_what_is_no_answer_is_a_problem_and_not_passed_on(answer: bytes, info: bytes) -> None:
    with pytest.raises(Problem) as raised:
        read_info(answer, info)
    assert (raised.value.status, "rubbish" in raised.value.detail) == (500, False)
