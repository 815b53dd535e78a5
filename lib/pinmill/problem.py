"""What a caller over HTTP is told when something is wrong: RFC 9457 problem details."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pinmill.errors import PinmillError

MEDIA_TYPE = "application/problem+json"
BROKEN = "The store or the board cannot be read or written now. Try again in a moment."


NOT_HERE = {
    404: "there is nothing at this address; /docs lists what there is",
    405: "this address does not take that method",
}


class Problem(PinmillError):
    """An answer that is not what was asked for; `errors` names each violation, as {row, field, problem}."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
        title: str = "",
        why: str = "",
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors, self.why = status, detail, tuple(errors), why
        self.headers, self.title = dict(headers or {}), title or HTTPStatus(status).phrase

    def body(self, instance: str = "", *, inner: bool = False) -> dict[str, Any]:
        """The members of the problem, ready for JSON; `instance` is the id of the request.

        With `inner` also why it is so, in words that are for those who run the service.
        """
        detail = f"{self.detail} {self.why}" if inner and self.why else self.detail
        said = {"type": "about:blank", "title": self.title, "status": self.status, "detail": detail}
        more = {"instance": instance, "errors": list(self.errors)}
        return said | {name: value for name, value in more.items() if value}
