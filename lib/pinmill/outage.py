"""Whether an exception came from outside: something that does not answer, is too busy or locked; later it may work."""

import errno
import re

# By package and name, as none of these needs to be installed; a class below one of them counts too.
NAMES = {
    *("pinmill.OutsideError", "builtins.ConnectionError", "builtins.TimeoutError", "socket.gaierror"),
    *("http.IncompleteRead", "urllib3.NewConnectionError", "urllib3.ProtocolError", "urllib3.TimeoutError"),
    *("requests.ConnectionError", "requests.Timeout", "requests.ChunkedEncodingError"),
    *("httpx.NetworkError", "httpx.TimeoutException", "httpx.ProxyError", "httpx.RemoteProtocolError"),
    *("aiohttp.ClientConnectionError", "aiohttp.ClientPayloadError", "sqlalchemy.TimeoutError"),
    *("botocore.ConnectionError", "botocore.HTTPClientError", "google.TransportError", "google.RetryError"),
    *("azure.ServiceRequestError", "azure.ServiceResponseError"),
}
NETWORK = {errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EBUSY}  # of an OSError
LATER = (408, 429)  # HTTP: too slow, too many; and whatever is the server's own fault
LOCKED = re.compile("locked|busy")  # of all that SQLite calls an OperationalError, what passes
WRONG = re.compile("(?i)password|authentica|denied|not exist|unknown |no such|syntax|permission")  # of other databases


def is_outage(error: BaseException | None) -> bool:
    """Whether an exception, or one that it came from, is of that kind; the first that is known either way decides.

    Not so are a wrong path or password, a status such as 404, a wrong query, and everything that nobody knows.
    """
    seen = set[int]()  # `raise error.orig` closes a circle
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if (known := _judge(error)) is not None:
            return known
        error = _find_origin(error)
    return False


def _judge(error: BaseException) -> bool | None:
    """Whether an exception tells of an outage by itself; None where it does not say."""
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    if names & NAMES or (isinstance(error, OSError) and error.errno in NETWORK):
        return True
    if status := _find_status(error):
        return status in LATER or status >= 500
    if "sqlite3.OperationalError" in names:
        return bool(LOCKED.search(str(error)))
    if any(name.endswith(".OperationalError") for name in names) and not hasattr(error, "orig"):
        return not WRONG.search(str(error))
    return None


def _find_status(error: BaseException) -> int:
    """The HTTP status that an exception carries; 0 for none that tells of an error."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):  # botocore
        found = [answer.get("ResponseMetadata", {}).get("HTTPStatusCode")]
    else:
        found = [getattr(of, name, None) for of in (error, answer) for name in ("status_code", "status", "code")]
    return next((int(status) for status in found if isinstance(status, int) and 400 <= status < 600), 0)


def _find_origin(error: BaseException) -> BaseException | None:
    """The exception that this one came from, as the library that raised it or a traceback tells."""
    told = [getattr(error, name, None) for name in ("orig", "reason")]  # SQLAlchemy; urllib, urllib3
    shown = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return next((origin for origin in told if isinstance(origin, BaseException)), shown)
