"""The notebook's cells that score no rows, asked one request at a time, and what they print taken for an answer."""

import json
import re

from starlette.requests import Request
from starlette.responses import Response

from pinmill.dispatch import Dispatcher
from pinmill.endpoint import Endpoint
from pinmill.problem import Problem
from pinmill.served import Models
from pinmill.visit import Visit, limit_depth
from pinmill.worker import DECODER

BODILESS = (204, 304)  # statuses of answers that have no body
HEADER = re.compile(r"[!#-'*-.0-9A-Z^-z|~]+: [\t -~]*")


async def ask_cell(
    dispatcher: Dispatcher, models: Models, endpoint: Endpoint, visit: Visit, request: Request, most: int
) -> Response:
    """What a cell answers to a request, whose body may have `most` bytes; the visit then says of which version.

    Raises Problem: for what is wrong with the request, and 500 when the cell failed or printed no answer.
    """
    visit.version = models.current.version if models.current else ""
    body = limit_depth(await visit.read_json(most)) if request.method in ("POST", "PUT") else None
    given = {"body": body, "args": visit.options, "path": request.path_params, "headers": {}}
    try:
        asked = json.dumps(given, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Problem(400, "the body holds half of a surrogate pair, which is no character") from None
    found = await dispatcher.ask_cell(endpoint.name.encode(), asked, visit.caller.as_json())
    if found is None:
        raise Problem(500, "The cell behind this failed. Its log has the line; run it in JupyterLab.")
    answer, info, version = found
    visit.version = version.decode()
    status, headers = read_info(answer, info)
    return Response(b"" if status in BODILESS else answer, status, headers)


def read_info(answer: bytes, info: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of a cell's answer. Raises Problem (500) when it printed what it does not say it is."""
    try:
        told = DECODER.decode(info.decode()) if info.strip() else {}
        given = {name.lower(): str(value) for name, value in told.get("headers", {}).items()}
        status, headers = int(told.get("status", 200)), {"content-type": "application/json"} | given
        if "json" in headers["content-type"] and status not in BODILESS:
            DECODER.decode(answer.decode())
        if status in range(200, 600) and all(HEADER.fullmatch(f"{name}: {headers[name]}") for name in headers):
            return status, headers
    except (ValueError, AttributeError, TypeError, RecursionError):
        pass
    raise Problem(500, "The cell behind this printed something that is no answer.")
