"""Read a table from wherever it is: a file, a URL, a database, a pin, or a function.

| source | e.g. |
|---|---|
| file, relative to the project | `data/spam.csv` (`.csv .tsv .parquet .jsonl .ndjson`, also with `.gz` or `.zip`) |
| address | `https://example.org/spam.csv.gz`, `s3://bucket/spam.parquet`, `memory://spam.csv`, `file:///srv/spam.csv` |
| database, with a `query` | `sqlite:///outputs/crm.db`, `postgresql+psycopg://host/crm` |
| pin that holds a table | `pin:spam-data`, `pin:spam-data/20261120T101500Z-0a1b2` |
| function without arguments | `pinmill.docstrings:paragraphs` |

No error and no description ever shows the user part or the query of a URL: that is where passwords stand.
"""

from __future__ import annotations

import hashlib
import pkgutil
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pinmill.board import Board, Pin
from pinmill.errors import SourceBusyError, SourceError, SourceNotFoundError
from pinmill.outage import LATER, is_outage

if TYPE_CHECKING:
    from pandas import DataFrame

FORMS = (  # of the kinds of source: the first that fits
    ("pin", r"pin:"),
    ("sql", r"(sqlite|postgresql|mysql|mariadb|mssql|oracle|duckdb|snowflake|bigquery)(\+\w+)?://"),
    ("http", r"https?://"),
    ("file", r"file:"),
    ("fsspec", r"[A-Za-z][\w+.-]*(://|::)"),
    ("function", r"[A-Za-z_][\w.]*:[A-Za-z_]\w*$"),
    ("file", ""),
)
USER = re.compile(r"(?<=://)([^/@:]*:.*|[^/@]*)@")  # after a colon up to the last @: a password may hold anything
TIMEOUT = 60.0  # seconds of silence from a web server
HEADERS = {"Accept-Encoding": "identity"}  # what stands at an address is wanted, not a transfer encoding of it


@dataclass(frozen=True)
class Raw:
    """A table as it was read: `sha256` is of the bytes (file, address, pin), None for SQL and functions."""

    frame: DataFrame
    description: str
    sha256: str | None = None

    @property
    def rows(self) -> int:
        return len(self.frame)


def read_source(
    source: str, *, query: str = "", sha256: str = "", address: str = "", root: Path, board: Board | None = None
) -> Raw:
    """The table at `source`; relative paths start at `root`.

    A given `sha256` is compared before anything is parsed. `address` is where people can get the file, for the error.
    Raises SourceNotFoundError if it is not there, SourceBusyError if it may be read later, and SourceError if it
    cannot be read or is not the one promised.
    """
    import pandas

    from pinmill.table import RESERVED, load_table, simplify_types

    kind, shown = kind_of(source), hide_secrets(source)
    if (kind == "sql") != bool(query.strip()):
        raise SourceError(f"{shown}: a database needs a `query`, and nothing else takes one")
    if sha256 and kind in ("sql", "function"):
        raise SourceError(f"{shown}: a SHA-256 can be checked for files, addresses and pins only. Remove `sha256`")
    check_source(source, root=root, address=address)
    if kind == "sql":
        return Raw(simplify_types(_read_sql(source, query, root)), f"{shown}: {' '.join(query.split())}")
    if kind == "function":
        frame = load_function(source, root)()
        if not isinstance(frame, pandas.DataFrame):
            raise SourceError(f"function {source} must return a pandas DataFrame, not a {type(frame).__name__}")
        return Raw(simplify_types(frame.reset_index(drop=True)), f"function {source}")
    pin = find_pin(source, board) if kind == "pin" else None
    data = b"" if pin else _download(source) if kind == "http" else _fetch(source, root)
    found = pin.sha256 if pin else hashlib.sha256(data).hexdigest()
    if sha256 and found != sha256.strip().lower():
        raise SourceError(f"{shown} is not the one promised: SHA-256 {found}, not {sha256}. Correct either")
    if pin:
        frame = board.read_table(pin).drop(columns=list(RESERVED), errors="ignore")  # of a data pin: split it anew
        return Raw(frame, f"pin {pin.name}, version {pin.version}", found)
    named = next((part for part in source.split("::") if "://" in part), source)  # of a chain: zip://x.csv::s3://…
    table = load_table(data, named if kind == "file" else re.split("[?#]", named)[0], shown)
    return Raw(table.reset_index(drop=True), shown, found)


def check_source(source: str, *, root: Path, address: str = "") -> None:
    """Raises SourceNotFoundError if `source` means a local file, or SQLite database, that is not there."""
    path = local_path(source, root)
    if path and not path.is_file():
        where = f" It can be had at {hide_secrets(address)}." if address else ""
        todo = "Put it there, set PINMILL_DATA to the folder that holds it, or change `source`"
        raise SourceNotFoundError(f"{hide_secrets(source)} is not there: no file {path}.{where} {todo}")


def kind_of(source: str) -> str:
    """Which door `source` means, by its form alone: file, http, fsspec, sql, pin or function."""
    return next(kind for kind, form in FORMS if re.match(form, source))


def hide_secrets(source: str) -> str:
    """`source` without the user part and the query of a URL: 'https://***@host/x.csv?***'."""
    return re.sub(r"[?#].*", "?***", USER.sub("***@", source)) if "://" in source else source


def local_path(source: str, root: Path) -> Path | None:
    """The file that a file or SQLite source means: 'data/x.csv', '~/x.csv', 'file:///srv/x.csv', 'sqlite:///x.db'."""
    if source.startswith("sqlite"):
        database = urlsplit(source).path[1:]
        return root / Path(database).expanduser() if database not in ("", ":memory:") else None
    if source.startswith("file:"):
        source = unquote(source.removeprefix("file:").removeprefix("//"))
    return root / Path(source).expanduser() if kind_of(source) == "file" else None


def find_pin(source: str, board: Board) -> Pin:
    """The pin that 'pin:NAME' or 'pin:NAME/VERSION' means."""
    name, _, version = source.removeprefix("pin:").partition("/")
    return board.pin(name, version or None)


def load_function(source: str, root: Path) -> Callable[[], DataFrame]:
    """The function that 'module:name' means; the module is looked for in the project's root, too."""
    if str(root) not in sys.path:
        sys.path.append(str(root))
    try:
        return pkgutil.resolve_name(source)
    except Exception as error:  # a module can raise anything
        reason = f"{type(error).__name__}: {error}. Its module must be installed or stand in {root}"
        raise SourceError(f"function {source} cannot be imported: {reason}") from error


def _read_sql(source: str, query: str, root: Path) -> DataFrame:
    """What the database answers."""
    import pandas
    import sqlalchemy

    try:
        url = sqlalchemy.make_url(source)
        path = local_path(source, root)
        engine = sqlalchemy.create_engine(url.set(database=str(path)) if path else url, poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:  # never committed: a query that writes leaves no trace
            return pandas.read_sql_query(query, connection)
    except (ImportError, ValueError, sqlalchemy.exc.SQLAlchemyError, pandas.errors.DatabaseError) as error:
        raise _unreadable(source, getattr(error, "orig", None) or error) from None


def _fetch(source: str, root: Path) -> bytes:
    """The bytes of a local file, or of what any file system of fsspec holds."""
    import fsspec

    try:
        with fsspec.open(str(local_path(source, root) or source), "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise SourceNotFoundError(f"{hide_secrets(source)} is not there. Check the address") from None
    except Exception as error:  # each file system has errors of its own
        raise _unreadable(source, error) from None


def _download(url: str) -> bytes:
    """The bytes at a web address."""
    import httpx

    try:
        with httpx.stream("GET", url, headers=HEADERS, follow_redirects=True, timeout=TIMEOUT) as response:
            if not response.is_success:
                answer = f"HTTP {response.status_code} {response.reason_phrase}"
                is_late = response.status_code in LATER or response.is_server_error
                kind = SourceNotFoundError if response.status_code in (404, 410) else SourceError
                raise (SourceBusyError if is_late else kind)(
                    f"{hide_secrets(url)} answers {answer}. Check the address and access, or try later"
                )
            return b"".join(response.iter_raw() if urlsplit(url).path.endswith(".gz") else response.iter_bytes())
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreadable(url, error) from None


def _unreadable(source: str, error: BaseException) -> SourceError:
    """The error with the first line of a library's message, in which no part of a password is left."""
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    user = USER.search(source)
    for secret in [source, *re.split("[?#&=]", source)[1:], *(re.split("[:/@]", user[1]) if user else [])]:
        for written in (secret, unquote(secret)):
            reason = reason.replace(written, "***") if len(written) > 2 else reason
    kind = SourceBusyError if is_outage(error) else SourceError
    return kind(f"{hide_secrets(source)} cannot be read: {reason}. Check the address, the network and access")
