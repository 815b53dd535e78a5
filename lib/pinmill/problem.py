"""What a caller over HTTP is told when something is wrong: RFC 9457 problem details."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pinmill.errors import PinmillError

MEDIA_TYPE = "application/problem+json"


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
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors = status, detail, tuple(errors)
        self.headers, self.title = dict(headers or {}), title or HTTPStatus(status).phrase

    def body(self, instance: str = "") -> dict[str, Any]:
        """The members of the problem, ready for JSON; `instance` is the id of the request."""
        said = {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail}
        more = {"instance": instance, "errors": list(self.errors)}
        return said | {name: value for name, value in more.items() if value}
