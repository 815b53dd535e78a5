"""Read a table from wherever it is: a file, a URL, a database, a pin, or a function.

| source | e.g. |
|---|---|
| file, relative to the project | `data/spam.csv` (`.csv .tsv .parquet .jsonl .ndjson`, also with `.gz` or `.zip`) |
| address | `https://example.org/spam.csv.gz`, `s3://bucket/spam.parquet`, `memory://spam.csv`, `file:///srv/spam.csv` |
| database, with a `query` | `sqlite:///outputs/crm.db`, `postgresql+psycopg://host/crm` |
| pin that holds a table | `pin:spam-data`, `pin:spam-data/20261120T101500Z-0a1b2` |
| function without arguments | `pinmill.docstrings:paragraphs` |

No error and no description ever shows the user part or the query values of a URL: that is where passwords stand.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import itertools
import os
import re
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Literal
from urllib.parse import unquote, urlsplit

from pinmill.errors import SourceError, SourceNotFoundError, did_you_mean

if TYPE_CHECKING:
    from pandas import DataFrame

    from pinmill.board import Board

Kind = Literal["file", "http", "fsspec", "sql", "pin", "function"]

FORMATS = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
PACKED = (".gz", ".zip")
SQL_DIALECTS = {"sqlite", "postgresql", "mysql", "mariadb", "mssql", "oracle", "duckdb", "snowflake", "bigquery"}
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "postgresql": "postgres"}
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
CHUNK = 1 << 20  # bytes held at once while a file is fetched


@dataclass(frozen=True)
class Raw:
    """A table as it was read: `sha256` is of the bytes (file, address, pin), None for SQL and functions."""

    frame: DataFrame
    description: str
    sha256: str | None
    rows: int


def read_source(source: str, *, query: str = "", sha256: str = "", address: str = "", root: Path,
                board: Board | None = None, timeout: float = 60.0) -> Raw:  # fmt: skip
    """The table at `source`; relative paths start at `root`, `timeout` is seconds of silence from a web server.

    A given `sha256` is compared before anything is parsed. `address` is where people can get the file, for the error.
    Raises SourceNotFoundError if it is not there, SourceError if it cannot be read or is not the one promised.
    """
    kind, shown = kind_of(source), hide_secrets(source)
    if (kind == "sql") != bool(query.strip()):
        raise SourceError(f"{shown} is a database: `query` must say what to read" if kind == "sql"
                          else f"`query` is given, but {shown} is not a database. Remove `query`")  # fmt: skip
    if sha256 and kind in ("sql", "function"):
        raise SourceError(f"a SHA-256 can be checked for files, addresses and pins, not for {shown}. Remove `sha256`")
    if kind == "pin":
        return _read_pin(source, sha256, board)
    if kind == "sql":
        return _raw(_read_sql(source, query, root), f"{shown}: {' '.join(query.split())}")
    if kind == "function":
        return _raw(_read_function(source, root), f"function {source}")
    with tempfile.TemporaryDirectory(prefix="pinmill-source-") as folder:
        path = _fetch(source, kind, root=root, folder=Path(folder), address=address, timeout=timeout)
        return _read_file(path, shown, sha256, folder=Path(folder))


def kind_of(source: str) -> Kind:
    """Which door `source` means, by its form alone."""
    if source.startswith("pin:"):
        return "pin"
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)(://|::)", source)
    if not scheme or source.startswith("file:"):
        is_function = FUNCTION.fullmatch(source) and not source.startswith("file:")
        return "function" if is_function else "file"
    if scheme[1].split("+")[0] in SQL_DIALECTS:
        return "sql"
    return "http" if scheme[1] in ("http", "https") else "fsspec"


def hide_secrets(source: str) -> str:
    """`source` without the user part and the values of the query: 'https://***@host/x.csv?token=***'."""
    before, separator, rest = source.partition("://")
    if not separator:
        return source
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    # A password with an unescaped / ? # ends the host early: then only the last @ is sure to come after it.
    is_odd = not re.fullmatch(r"([^@]*@)?([^:@]*|\[.*\])(:\d*)?", host) or before.split("+")[0] in SQL_DIALECTS
    end = rest.rfind("@") if is_odd and host else host.rfind("@")
    rest = f"***@{rest[end + 1 :]}" if end >= 0 else rest
    path, mark, values = rest.partition("#")[0].partition("?")
    return before + separator + path + mark + re.sub(r"(^|[&;])([^=&;]*=)?[^&;]+", r"\1\2***", values)


def local_path(source: str, root: Path) -> Path:
    """The path that a file source means: 'data/x.csv', '/srv/x.csv', '~/x.csv', 'file:x.csv' or 'file:///srv/x.csv'."""
    if source.startswith("file:"):
        source = unquote(re.sub(r"^file:(//(localhost)?(?=/)|//)?", "", source))
    return root / Path(source).expanduser()


def load_function(source: str, root: Path) -> Callable[[], DataFrame]:
    """The function that 'module:name' means; the module is looked for in the project's root, too."""
    module_name, _, name = source.partition(":")
    with _importable(root):
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            raise SourceError(f"the module of {source} cannot be imported: {type(error).__name__}: {error}. "
                              f"It must be installed or stand in {root}") from error  # fmt: skip
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value)]
        raise SourceError(f"module {module_name} has no function {name!r}.{did_you_mean(name, known)}")
    return function


def _raw(frame: DataFrame, description: str, sha256: str | None = None) -> Raw:
    return Raw(frame=frame, description=description, sha256=sha256, rows=len(frame))


def _read_pin(source: str, sha256: str, board: Board | None) -> Raw:
    if board is None:
        raise SourceError(f"{source} is a pin, and no board is given to read it from")
    name, _, version = source.removeprefix("pin:").partition("/")
    pin = board.pin(name, version or None)
    if pin.type != "parquet":
        raise SourceError(f"pin {name} holds a {pin.type}, not a table. Name a pin that was written as a table")
    _check_hash(pin.sha256, sha256, f"pin {name}, version {pin.version}")
    return _raw(board.read_table(pin), f"pin {name}, version {pin.version}", pin.sha256)


def _read_sql(source: str, query: str, root: Path) -> DataFrame:
    import pandas
    import sqlalchemy

    shown = hide_secrets(source)
    try:
        url = sqlalchemy.make_url(source)
        if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
            url = url.set(database=str(_existing(root / Path(url.database).expanduser(), shown)))
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
        with engine.connect() as connection:  # never committed: a query that writes leaves no trace
            return pandas.read_sql_query(query, connection)
    except ImportError as error:
        raise SourceError(f"{shown} needs a driver: {error}.{_how_to_install(source)}") from None
    except (sqlalchemy.exc.SQLAlchemyError, pandas.errors.DatabaseError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
        raise SourceError(f"{shown} cannot be read: {_scrub(reason, source)}. "
                          "Check the address, that the database is up, and `query`") from None  # fmt: skip


def _read_function(source: str, root: Path) -> DataFrame:
    import pandas

    function = load_function(source, root)
    with _importable(root):
        try:
            frame = function()
        except Exception as error:
            raise SourceError(f"function {source} raised {type(error).__name__}: {error}") from error
    if not isinstance(frame, pandas.DataFrame):
        raise SourceError(f"function {source} returned a {type(frame).__name__}. It must return a pandas DataFrame")
    return frame


def _fetch(source: str, kind: Kind, *, root: Path, folder: Path, address: str, timeout: float) -> Path:
    """A local path with the bytes of `source`: the file itself, or a copy in `folder`."""
    if kind == "file":
        return _existing(local_path(source, root), source, address)
    first = next((part for part in source.split("::") if "://" in part), source)  # of a chain: zip://x.csv::s3://…
    name = unquote(urlsplit(source).path) if kind == "http" else first
    target = folder / (PurePosixPath(name).name or "source")
    _check_suffix(target, hide_secrets(source))
    (_download if kind == "http" else _copy_fsspec)(source, target, timeout)
    return target


def _existing(path: Path, source: str, address: str = "") -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        raise SourceError(f"{path} is a folder. `source` must name one file in it")
    where = f" It can be had at {hide_secrets(address)}." if address else ""
    raise SourceNotFoundError(f"{source} is not there: no file {path}.{where} Put it there, set PINMILL_DATA to "
                              "the folder that holds it, or change `source`")  # fmt: skip


def _download(url: str, target: Path, timeout: float) -> None:
    import httpx

    shown = hide_secrets(url)
    # What stands at the address is wanted, not a transfer encoding of it; some servers send one regardless.
    headers = {"Accept-Encoding": "identity"}
    try:
        with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=timeout) as response:
            if response.status_code in (404, 410):
                raise SourceNotFoundError(f"{shown} is not there (HTTP {response.status_code}). Check the address")
            if not response.is_success:
                raise SourceError(f"{shown} answered HTTP {response.status_code} {response.reason_phrase}. "
                                  f"{_what_to_do(response.status_code)}")  # fmt: skip
            chunks = response.iter_raw(CHUNK) if target.suffix == ".gz" else response.iter_bytes(CHUNK)
            with target.open("wb") as file:
                file.writelines(chunks)
    except httpx.TimeoutException:
        raise SourceError(f"{shown} said nothing for {timeout:g} s. Try again, or look at the server") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = _scrub(str(error) or type(error).__name__, url)
        raise SourceError(f"{shown} cannot be fetched: {reason}. Check the address and the network") from None


def _what_to_do(status: int) -> str:
    if status in (401, 403):
        return "It wants other credentials: give the source as `secret:NAME`"
    return "The server failed: try again later" if status >= 500 else "Check the address"


def _copy_fsspec(url: str, target: Path, timeout: float) -> None:
    import fsspec

    shown = hide_secrets(url)
    try:
        with fsspec.open(url, "rb") as stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file, CHUNK)
    except FileNotFoundError:
        raise SourceNotFoundError(f"{shown} is not there. Check the address") from None
    except ImportError as error:
        raise SourceError(f"{shown} needs more to be installed: {error}.{_how_to_install(url)}") from None
    except Exception as error:  # each file system has errors of its own
        raise SourceError(f"{shown} cannot be read: {_scrub(str(error), url)}. Check address and access") from None


def _how_to_install(source: str) -> str:
    extra = EXTRAS.get(re.split(r"[+:]", source)[0])
    return f" Run: pip install 'pinmill[{extra}]'" if extra else ""


def _scrub(message: str, source: str) -> str:
    """`message` without what `hide_secrets` hides of `source`, however the library wrote it."""
    hidden = hide_secrets(source).split("***")
    message, rest = message.replace(source, hide_secrets(source)), source
    for before, after in itertools.pairwise(hidden):
        rest = rest.split(before, 1)[-1]
        secret = rest.split(after, 1)[0] if after else rest
        for part in {secret, unquote(secret), *secret.split(":"), *map(unquote, secret.split(":"))}:
            message = message.replace(part, "***") if len(part) > 2 else message
    return message


def _read_file(path: Path, shown: str, expected: str, *, folder: Path) -> Raw:
    """The table in `path`: hashed first, compared with `expected`, unpacked into `folder`, parsed."""
    from pinmill.lineage import hash_file
    from pinmill.table import load_table

    _check_suffix(path, shown)
    try:
        before = os.stat(path)
        if before.st_size == 0:
            raise SourceError(f"{shown} is empty (0 bytes). Look at what wrote it")
        sha256 = hash_file(path)
        _check_hash(sha256, expected, shown)
        frame = load_table(_unpack(path, shown, folder), shown)
        after = os.stat(path)
    except OSError as error:
        if isinstance(error, SourceError):  # a SourceNotFoundError is an OSError, too
            raise
        raise SourceError(f"{shown} cannot be read: {error.strerror or error}. Check its access rights") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise SourceError(f"{shown} changed while it was read. Run again when its writer is done")
    return _raw(frame, shown, sha256)


def _check_hash(found: str, expected: str, shown: str) -> None:
    if expected and found != expected.strip().lower():
        raise SourceError(f"{shown} is not the one promised: its SHA-256 is {found}, `sha256` says {expected}. "
                          "Find out what changed, then correct `sha256` or the source")  # fmt: skip


def _check_suffix(path: Path, shown: str) -> None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    inner = suffixes[:-1] if suffixes and suffixes[-1] in PACKED else suffixes
    if suffixes[-1:] == [".zip"] or (inner and inner[-1] in FORMATS):
        return
    raise SourceError(f"{shown} has no known suffix. Known are {', '.join(FORMATS)}, each also with .gz or .zip")


def _unpack(path: Path, shown: str, folder: Path) -> Path:
    """`path` itself, or a copy in `folder` with the .gz or .zip undone."""
    if path.suffix.lower() not in PACKED:
        return path
    try:
        if path.suffix.lower() == ".gz":
            return _copy_to(folder / "unpacked" / path.stem, gzip.open(path))
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX/" not in name]
            if len(members) != 1:
                raise SourceError(f"{shown} holds {len(members)} files, not one. Unpack it and name the file")
            target = folder / "unpacked" / PurePosixPath(members[0]).name
            _check_suffix(target, f"{members[0]} in {shown}")
            return _copy_to(target, archive.open(members[0]))
    except (gzip.BadGzipFile, zipfile.BadZipFile, EOFError, zlib.error, RuntimeError) as error:
        raise SourceError(f"{shown} cannot be unpacked: {error}. Fetch or pack it again") from None


def _copy_to(target: Path, stream: BinaryIO) -> Path:
    target.parent.mkdir()
    with stream, target.open("wb") as file:
        shutil.copyfileobj(stream, file, CHUNK)
    return target


@contextlib.contextmanager
def _importable(root: Path) -> Iterator[None]:
    """The project's root at the end of the import path, for as long as this lasts."""
    importlib.invalidate_caches()
    sys.path.append(str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))
