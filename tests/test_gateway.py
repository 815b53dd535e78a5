"""The gateway as its callers meet it: a real service on a port."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Server


def test_a_text_is_scored(served: "Server") -> None:
    answer = served.ask("POST", "/prediction", "win a free prize now number 2")
    assert answer.status_code == 200
    assert answer.json()["label"] == "spam"
    assert answer.headers["X-Model-Version"] == answer.json()["version"]
