"""What a caller is told when something is wrong."""

import pytest
from pinmill.errors import PinmillError
from pinmill.problem import Problem


def test_a_problem_has_the_members_of_rfc_9457_and_no_empty_ones() -> None:
    assert Problem(404, "no such version").body() == {
        "type": "about:blank", "title": "Not Found", "status": 404, "detail": "no such version",
    }  # fmt: skip


def test_it_names_the_request_and_each_violation() -> None:
    errors = [{"row": 3, "field": "age", "problem": "is missing"}]
    problem = Problem(422, "1 of 4 rows", errors=errors, headers={"Retry-After": "1"}, title="Rows do not fit")
    assert problem.body("req-7") == {
        "type": "about:blank", "title": "Rows do not fit", "status": 422, "detail": "1 of 4 rows",
        "instance": "req-7", "errors": errors,
    }  # fmt: skip
    assert problem.headers == {"Retry-After": "1"}
    assert str(problem) == "1 of 4 rows"


def test_it_is_an_error_of_ours_and_its_status_is_one_of_http() -> None:
    assert isinstance(Problem(500, "x"), PinmillError)
    with pytest.raises(ValueError, match="299"):
        Problem(299, "x")
