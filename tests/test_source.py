"""Sources, each for real: files, a web server, object storage, a database, pins and functions; and their freshness."""

import gzip
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
import zipfile
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from pinmill.board import Board
from pinmill.errors import PinNotFoundError, SourceError, SourceNotFoundError
from pinmill.freshness import freshness
from pinmill.source import check_source, hide_secrets, kind_of, read_source

CSV = b'text,n\nhello,1\n"a, b",2\n'
FRAME = pd.DataFrame({"text": ["hello", "a, b"], "n": [1, 2]})


class Handler(BaseHTTPRequestHandler):
    """A small web server: what it sends is in `pages`, {path: (status, headers, body)}; /slow never answers."""

    pages: dict  # set by the fixture, for each server
    release: threading.Event

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/slow.csv":
            self.release.wait(30)
            return
        status, headers, body = self.pages.get(path, (404, {}, b""))
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def web():
    handler = type("Handler", (Handler,), {"pages": {}, "release": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.pages
    handler.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def database(tmp_path):
    with closing(sqlite3.connect(tmp_path / "crm.db")) as connection:
        FRAME.to_sql("notes", connection, index=False)
    return "sqlite:///crm.db"


def error_of(source, root, **options):
    with pytest.raises(SourceError) as caught:
        read_source(source, root=root, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.csv", CSV),
        ("x.CSV", CSV),
        ("bom.csv", b"\xef\xbb\xbf" + CSV),
        ("x.tsv", b"text\tn\nhello\t1\na, b\t2\n"),
        ("x.jsonl", b'{"text": "hello", "n": 1}\n\n{"text": "a, b", "n": 2}\n'),
        ("x.ndjson", b'\xef\xbb\xbf{"text": "hello", "n": 1}\n{"text": "a, b", "n": 2}'),
        ("x.csv.gz", gzip.compress(CSV, mtime=0)),
    ],
)
def test_each_format_gives_the_same_table(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    raw = read_source(name, root=tmp_path)
    pd.testing.assert_frame_equal(raw.frame, FRAME)
    assert (raw.description, raw.sha256, raw.rows) == (name, hashlib.sha256(data).hexdigest(), 2)


def test_parquet_zip_and_file_urls_are_read(tmp_path):
    FRAME.to_parquet(tmp_path / "x.parquet")
    (tmp_path / "x.parquet.gz").write_bytes(gzip.compress((tmp_path / "x.parquet").read_bytes()))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("folder/x.csv", CSV)
        archive.writestr("__MACOSX/folder/._x.csv", b"\x00")
    absolute = tmp_path / "x.zip"
    for source in ("x.parquet", "x.parquet.gz", "x.zip", f"file://{absolute}", "file:x.zip", str(absolute)):
        pd.testing.assert_frame_equal(read_source(source, root=tmp_path).frame, FRAME)


def test_words_for_missing_stay_texts_in_a_file_that_does_not_use_them_so(tmp_path):
    # pandas reads the texts NA, None and null as missing values, and so loses them
    (tmp_path / "x.csv").write_text("country,n,note\nNA,1,\nnull,,x\nNone,3,NaN\n")
    frame = read_source("x.csv", root=tmp_path).frame
    assert frame.country.tolist() == ["NA", "null", "None"]
    assert frame.n.isna().tolist() == [False, True, False]
    assert frame.note.isna().tolist() == [True, False, False]


def test_word_for_missing_among_numbers_is_one_in_the_whole_file(tmp_path):
    (tmp_path / "x.csv").write_text("text,n,is_new\nNA,1,TRUE\nnull,NA,NA\nhello,3,FALSE\n")
    frame = read_source("x.csv", root=tmp_path).frame
    assert frame.text.isna().tolist() == [True, False, False]
    assert (frame.n.dtype, frame.n.isna().tolist()) == (float, [False, True, False])
    assert frame.is_new.dropna().tolist() == [True, False]


def test_json_lines_keep_texts_that_look_like_numbers_and_dates(tmp_path):
    # pandas.read_json turns the text "007" into 7 and a column called date into times
    (tmp_path / "x.jsonl").write_text('{"code": "007", "date": "2026-01-01"}\n')
    assert read_source("x.jsonl", root=tmp_path).frame.to_dict("records") == [{"code": "007", "date": "2026-01-01"}]


@pytest.mark.parametrize("name", ["spam.csv", "bank.csv", "ads.csv", "electronics.parquet"])
def test_real_data_is_read_as_pandas_reads_it(shared_data: Path, name):
    path = shared_data / name
    raw = read_source(str(path), root=Path("/"))
    expected = pd.read_parquet(path) if name.endswith("parquet") else pd.read_csv(path, low_memory=False)
    pd.testing.assert_frame_equal(raw.frame, expected)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.csv", b"", "x.csv is empty (0 bytes). Look at what wrote it"),
        ("x.csv", b"\n\n", "x.csv cannot be read: No columns to parse from file. Look at what wrote it"),
        (
            "x.csv.gz",
            gzip.compress(b"", mtime=0),
            "x.csv.gz cannot be read: No columns to parse from file. Look at what wrote it",
        ),
        (
            "x.csv",
            b"text,n\n" + b"ok,1\n" * 90_000 + "caf\xe9,2\n".encode("latin-1"),
            "x.csv is not UTF-8: byte 0xe9 at offset 450010, line 90002. Save it as UTF-8",
        ),
        (
            "x.jsonl",
            b'{"a": 1}\n{"a": "\xe9"}\n',
            "x.jsonl is not UTF-8: byte 0xe9 at offset 16, line 2. Save it as UTF-8",
        ),
        (
            "x.csv",
            b"a,b\n1,2\n3,4,5\n",
            "x.csv cannot be read: Error tokenizing data. C error: Expected 2 fields in line 3, saw 3",
        ),
        # pandas takes the first column for an index when every row has one field too many
        (
            "x.csv",
            b"a,b\n1,2,3\n4,5,6\n",
            "x.csv cannot be read: Length of header or names does not match length of data",
        ),
        ("x.csv", b"a,b,a\n1,2,3\n", "x.csv cannot be read: it names columns twice: 'a'"),
        ("x.csv", b'a,b\n1,2\n3,"x\n4,5\n', "x.csv cannot be read: Error tokenizing data. C error: EOF inside string"),
        ("x.jsonl", b'{"a": 1}\n{"a": }\n', "x.jsonl cannot be read: Expecting value: line 2 column 7"),
        ("x.jsonl", b'{"a": 1}\n[1]\n', "x.jsonl cannot be read: "),
        ("x.csv.gz", gzip.compress(CSV, mtime=0)[:-9], "x.csv.gz cannot be read: "),
        ("x.csv.gz", CSV, "x.csv.gz cannot be read: Not a gzipped file"),
        ("x.zip", CSV, "x.zip cannot be read: File is not a zip file. Look at what wrote it"),
        ("x.parquet", b"PAR1 no", "x.parquet cannot be read: "),
        (
            "x.xlsx",
            CSV,
            "x.xlsx cannot be read: 'xlsx' is no known suffix: csv, tsv, parquet, jsonl, ndjson, "
            "each also with .gz or .zip",
        ),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    assert error_of(name, tmp_path).startswith(message)


def test_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        read_source("data/x.csv", root=tmp_path, address="https://me:secret@example.org/x.csv")
    assert isinstance(caught.value, SourceNotFoundError)
    assert str(caught.value) == (
        f"data/x.csv is not there: no file {tmp_path}/data/x.csv. It can be had at https://***@example.org/x.csv. "
        "Put it there, set PINMILL_DATA to the folder that holds it, or change `source`"
    )
    assert f"no file {tmp_path}" in error_of(".", tmp_path)


def test_missing_local_file_is_told_without_reading(database, tmp_path):
    (tmp_path / "broken.csv").write_bytes(b"")
    for present in ("broken.csv", database, "sqlite://", "https://example.org/x.csv", "pin:notes", "secret:SOURCE"):
        assert check_source(present, root=tmp_path) is None
    for absent in ("no.csv", "file:no.csv", f"file://{tmp_path}/no.csv", "sqlite:///no.db"):
        with pytest.raises(SourceNotFoundError, match=r"It can be had at https://example\.org/x\.csv"):
            check_source(absent, root=tmp_path, address="https://example.org/x.csv")


def test_wrong_hash_is_refused_before_parsing(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xff not a table")
    found = hashlib.sha256(b"\xff not a table").hexdigest()
    assert error_of("x.csv", tmp_path, sha256="0" * 64) == (
        f"x.csv is not the one promised: SHA-256 {found}, not {'0' * 64}. Correct either"
    )
    (tmp_path / "x.csv").write_bytes(CSV)
    assert read_source("x.csv", root=tmp_path, sha256=hashlib.sha256(CSV).hexdigest().upper()).rows == 2


def test_archive_with_two_files_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.csv", CSV)
        archive.writestr("b.csv", CSV)
    assert error_of("x.zip", tmp_path) == "x.zip cannot be read: it holds 2 files, not one. Look at what wrote it"


def test_web_address_is_fetched_also_when_redirected_or_compressed_on_the_way(web, tmp_path):
    url, pages = web
    packed = gzip.compress(CSV)
    pages["/x.csv"] = (200, {}, CSV)
    pages["/old.csv"] = (302, {"Location": "/x.csv"}, b"")
    pages["/x.csv.gz"] = (200, {"Content-Encoding": "gzip"}, packed)  # servers that take the suffix for an encoding
    pages["/coded.csv"] = (200, {"Content-Encoding": "gzip"}, packed)
    for name in ("x.csv", "old.csv", "x.csv.gz", "coded.csv"):
        raw = read_source(f"{url}/{name}", root=tmp_path)
        pd.testing.assert_frame_equal(raw.frame, FRAME)
        assert raw.sha256 == hashlib.sha256(packed if name == "x.csv.gz" else CSV).hexdigest()


def test_web_errors_say_what_to_do_and_never_the_password(web, tmp_path, monkeypatch):
    monkeypatch.setattr("pinmill.source.TIMEOUT", 0.2)
    url, pages = web
    pages |= {"/500.csv": (500, {}, b""), "/cut.csv": (200, {"Content-Length": "999"}, CSV)}
    secret = url.replace("://", "://me:hunter2@")
    shown = url.replace("://", "://***@")
    todo = "Check the address and access, or try later"
    with pytest.raises(SourceNotFoundError) as caught:
        read_source(f"{secret}/no.csv?token=hunter2", root=tmp_path)
    assert str(caught.value) == f"{shown}/no.csv?*** answers HTTP 404 Not Found. {todo}"
    assert error_of(f"{secret}/500.csv", tmp_path) == f"{shown}/500.csv answers HTTP 500 Internal Server Error. {todo}"
    for address in (f"{secret}/cut.csv", f"{secret}/slow.csv", "http://me:hunter2@127.0.0.1:1/x.csv"):
        message = error_of(address, tmp_path)
        assert "cannot be read" in message
        assert "hunter2" not in message


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://example.org/pkg@1.2/x.csv", "https://example.org/pkg@1.2/x.csv"),
        ("https://me:pw@host:8080/x.csv?a=1&sig=abc#part", "https://***@host:8080/x.csv?***"),
        ("https://host/x.csv?abc", "https://host/x.csv?***"),
        ("https://[::1]:80/b.csv", "https://[::1]:80/b.csv"),
        ("postgresql://me:p/w?@#@host/db", "postgresql://***@host/db"),
        ("postgresql+psycopg://me:p@a/b@host/db?password=x", "postgresql+psycopg://***@host/db?***"),
        ("ftp://me:p/w@host/x.csv", "ftp://***@host/x.csv"),
        ("zip://x.csv::https://me:pw@host/a.zip", "zip://***@host/a.zip"),
        ("s3://bucket/a@b.csv", "s3://bucket/a@b.csv"),
        ("sqlite:///me@home.db", "sqlite:///me@home.db"),
        ("data/x.csv", "data/x.csv"),
        ("pin:spam-data", "pin:spam-data"),
    ],
)
def test_secrets_of_an_address_are_hidden(source, shown):
    assert hide_secrets(source) == shown


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("data/x.csv", "file"),
        ("/srv/x.csv", "file"),
        ("file:x.csv", "file"),
        ("file:///x.csv", "file"),
        ("https://h/x.csv", "http"),
        ("s3://b/x.csv", "fsspec"),
        ("simplecache::s3://b/x.csv", "fsspec"),
        ("memory://x.csv", "fsspec"),
        ("sqlite:///x.db", "sql"),
        ("postgresql+psycopg://h/d", "sql"),
        ("pin:a", "pin"),
        ("pin:a/b", "pin"),
        ("pinmill.docstrings:paragraphs", "function"),
        ("data/a:b.csv", "file"),
    ],
)
def test_kind_follows_from_the_form(source, kind):
    assert kind_of(source) == kind


def test_fsspec_address_is_read_and_its_absence_told(tmp_path):
    with fsspec.open("memory://folder/x.csv", "wb") as file:
        file.write(CSV)
    pd.testing.assert_frame_equal(read_source("memory://folder/x.csv", root=tmp_path).frame, FRAME)
    with fsspec.open("memory://top.csv", "wb") as file:
        file.write(CSV)
    assert read_source("memory://top.csv", root=tmp_path).rows == 2
    with pytest.raises(SourceNotFoundError):
        read_source("memory://folder/no.csv", root=tmp_path)
    assert "cannot be read" in error_of("nosuch://folder/x.csv", tmp_path)


def test_database_is_queried_relative_to_the_project(database, tmp_path):
    raw = read_source(database, query="select text, n\n from notes where n > 1", root=tmp_path)
    assert raw.frame.to_dict("records") == [{"text": "a, b", "n": 2}]
    assert (raw.description, raw.sha256) == ("sqlite:///crm.db: select text, n from notes where n > 1", None)


def test_query_that_writes_leaves_no_trace(database, tmp_path):
    error_of(database, tmp_path, query="delete from notes")
    assert read_source(database, query="select count(*) as n from notes", root=tmp_path).frame.n.tolist() == [2]


def test_database_errors_say_what_is_wrong_and_make_no_file(database, tmp_path):
    assert "no such table: nots" in error_of(database, tmp_path, query="select * from nots")
    needless = "a database needs a `query`, and nothing else takes one"
    assert error_of(database, tmp_path) == f"sqlite:///crm.db: {needless}"
    assert error_of("x.csv", tmp_path, query="select 1") == f"x.csv: {needless}"
    with pytest.raises(SourceNotFoundError):  # SQLite makes an empty file of a wrong name
        read_source("sqlite:///no.db", query="select 1", root=tmp_path)
    assert not (tmp_path / "no.db").exists()
    assert "Remove `sha256`" in error_of(database, tmp_path, query="select 1", sha256="0" * 64)


def test_database_that_cannot_be_reached_never_shows_the_password(tmp_path):
    message = error_of("postgresql+psycopg://me:hunter2@127.0.0.1:1/crm", tmp_path, query="select 1")
    assert "postgresql+psycopg://***@127.0.0.1:1/crm" in message
    assert "hunter2" not in message


def test_function_is_found_in_the_project_and_checked(tmp_path):
    (tmp_path / "my_source_module.py").write_text(
        "import pandas\ndef rows(): return pandas.DataFrame({'n': [1]})\ndef number(): return 3\n"
        "rows.freshness = lambda: 'v1'\n"
    )
    raw = read_source("my_source_module:rows", root=tmp_path)
    assert (raw.frame.n.tolist(), raw.description, raw.sha256) == ([1], "function my_source_module:rows", None)
    assert "must return a pandas DataFrame" in error_of("my_source_module:number", tmp_path)
    assert "has no attribute 'row'" in error_of("my_source_module:row", tmp_path)
    assert "cannot be imported" in error_of("no_such_module:rows", tmp_path)
    assert freshness("my_source_module:rows", root=tmp_path, cache=tmp_path / "c.json") == "function:v1"
    assert freshness("my_source_module:number", root=tmp_path, cache=tmp_path / "c.json") is None


def test_pin_is_read_by_version_or_the_last(tmp_path):
    from pinmill.board import Board

    board = Board(tmp_path / "pins")
    first = board.write_table("notes", FRAME, facts={}, lineage={})
    last = board.write_table("notes", FRAME.head(1), facts={}, lineage={})
    raw = read_source(f"pin:notes/{first.version}", root=tmp_path, board=board)
    pd.testing.assert_frame_equal(raw.frame, FRAME)
    assert (raw.description, raw.sha256) == (f"pin notes, version {first.version}", first.sha256)
    assert read_source("pin:notes", root=tmp_path, board=board).rows == 1
    assert "not the one promised" in error_of("pin:notes", tmp_path, board=board, sha256=first.sha256)
    with pytest.raises(PinNotFoundError):
        read_source("pin:no", root=tmp_path, board=board)
    cache = tmp_path / "c.json"
    assert freshness("pin:notes", root=tmp_path, board=board, cache=cache) == f"pin:{last.version}:{last.sha256}"
    assert freshness("pin:no", root=tmp_path, board=board, cache=cache) is None


def test_freshness_of_a_file_changes_when_it_is_appended_to(tmp_path):
    file, cache = tmp_path / "x.csv", tmp_path / "cache" / "hashes.json"
    file.write_bytes(CSV)
    first = freshness("x.csv", root=tmp_path, cache=cache)
    with file.open("ab") as stream:
        stream.write(b"new,3\n")
    second = freshness("x.csv", root=tmp_path, cache=cache)
    assert [first, second] == [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in (CSV, CSV + b"new,3\n")]
    assert freshness("no.csv", root=tmp_path, cache=cache) is None


def test_freshness_trusts_its_cache_only_for_a_file_that_has_settled(tmp_path):
    file, cache = tmp_path / "x.csv", tmp_path / "hashes.json"
    file.write_bytes(CSV)
    freshness("x.csv", root=tmp_path, cache=cache)
    assert not cache.exists()  # written this instant: it may change again within one tick of the clock
    os.utime(file, ns=(0, 1_000_000_000))
    token = freshness("x.csv", root=tmp_path, cache=cache)
    seen = json.loads(cache.read_text())
    cache.write_text(json.dumps({key: [*value[:-1], "from the cache"] for key, value in seen.items()}))
    assert freshness("x.csv", root=tmp_path, cache=cache) == "sha256:from the cache"
    file.write_bytes(CSV.replace(b"hello", b"HELLO"))
    os.utime(file, ns=(0, 1_000_000_000))  # same size, same modification time: the change time gives it away
    assert freshness("x.csv", root=tmp_path, cache=cache) not in (token, "sha256:from the cache")
    cache.write_text("{damaged")
    assert freshness("x.csv", root=tmp_path, cache=cache).startswith("sha256:")


def test_freshness_of_an_address_is_its_etag_or_time_and_length(web, tmp_path):
    url, pages = web
    modified = {"Last-Modified": "Fri, 20 Nov 2026 10:00:00 GMT"}
    pages |= {
        "/e.csv": (200, {"ETag": '"v1"'} | modified, CSV),
        "/m.csv": (200, modified, CSV),
        "/n.csv": (200, {}, CSV),
        "/f.csv": (500, {"ETag": '"v1"'}, b""),
    }
    found = {name: freshness(f"{url}/{name}.csv", root=tmp_path, cache=tmp_path / "c") for name in "emnfx"}
    assert found == {
        "e": 'etag:"v1"',
        "m": f"modified:Fri, 20 Nov 2026 10:00:00 GMT:{len(CSV)}",
        "n": None,
        "f": None,
        "x": None,
    }
    pages["/e.csv"] = (200, {"ETag": '"v2"'}, CSV)
    assert freshness(f"{url}/e.csv", root=tmp_path, cache=tmp_path / "c") == 'etag:"v2"'


def test_freshness_of_an_object_changes_with_it_and_a_database_has_none(database, tmp_path):
    tokens = []
    for data in (CSV, CSV + b"x,3\n"):
        with fsspec.open("memory://fresh/x.csv", "wb") as file:
            file.write(data)
        tokens += [freshness("memory://fresh/x.csv", root=tmp_path, cache=tmp_path / "c") for _ in range(2)]
    assert tokens[0] == tokens[1] != tokens[2] == tokens[3]
    assert freshness(database, root=tmp_path, cache=tmp_path / "c") is None
    assert freshness("memory://fresh/no.csv", root=tmp_path, cache=tmp_path / "c") is None


def test_freshness_is_light():
    heavy = "{'pandas', 'httpx', 'fsspec', 'sqlalchemy'}"
    code = f"import sys, pinmill.freshness; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        encoding="utf-8",
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert found.stdout == "[]\n"


def test_rows_are_numbered_anew_whatever_index_they_came_with(tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text(
        "import pandas\n\ndef rows():\n    one = pandas.DataFrame({'a': [1]})\n    return pandas.concat([one, one])\n"
    )
    assert read_source("twice:rows", root=tmp_path).frame.index.tolist() == [0, 1]


def test_a_data_pin_is_a_source_without_its_old_split(tmp_path: Path) -> None:
    board = Board(tmp_path / "pins")
    frame = pd.DataFrame({"text": ["a"], "_part": ["train"], "_hash": ["0"]})
    board.write_table("w-data", frame, facts={}, lineage={})
    assert list(read_source("pin:w-data", root=tmp_path, board=board).frame) == ["text"]


def test_a_zip_as_pandas_writes_it_is_read(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1, 2]}).to_csv(tmp_path / "t.zip", index=False)
    assert read_source("t.zip", root=tmp_path).frame.to_dict("list") == {"a": [1, 2]}
