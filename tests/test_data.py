"""Queries with real stores and processes: what they answer, and that nothing else can be read, changed or stopped."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sql
from pinmill import data
from pinmill.calls import write_rows
from pinmill.data import Query, open_query
from pinmill.errors import StoreError
from pinmill.problem import Problem
from pinmill.store import ANNOTATIONS, AUDIT, CALLS, EXAMPLES, METADATA, PREDICTIONS, TOKENS, Annotation, Store, stamp
from pinmill.views import COLUMNS, list_lines

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
WHEN = "2026-11-20T12:00:00.000000+00:00"
COUNT = "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c"
KILLED_WRITER = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from pinmill.store import Store

Store(Path(sys.argv[1])).add_examples("w", [{"text": "kept"}], hashes=["k"], origin="file", when=datetime.now(UTC))
os.kill(os.getpid(), signal.SIGKILL)
"""


def call(workflow: str, number: int, **more: object) -> dict:
    return {
        "workflow": workflow, "time": stamp(NOON), "version": "v1", "endpoint": "POST /predictions",
        "caller": "SECRET caller", "input_hash": f"h{number}", "status": 200, "input": None,
        "output": json.dumps({"label": "spam"}), "milliseconds": 1.5, "cached": False, "request": "req-1",
        "row": number,
    } | more  # fmt: skip


def fill(store: Store, workflow: str, mark: str) -> None:
    """Three examples, three labels of which one is retracted, two predictions; `mark` stands in every text."""
    texts = [{"text": f"{mark} {n}"} for n in range(3)]
    store.add_examples(workflow, texts, hashes=["h0", "h1", "h2"], origin=f"{mark} file", when=NOON)
    labels = ("spam", "ham", None)
    given = [
        Annotation(f"h{n}", texts[n], label, f"SECRET key {workflow} {n}", "random", note=mark)
        for n, label in enumerate(labels)
    ]
    ids = store.add_annotations(workflow, given, annotator=f"{mark} ann", when=NOON)
    store.retract(ids[1], annotator=f"{mark} ann", when=NOON)
    failed = call(workflow, 2, status=500, output=None, request="SECRET failed")
    write_rows(store, [(CALLS, row) for row in (call(workflow, 0, version=mark), call(workflow, 1), failed)])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of the workflows `w` and `other`; what a query on `w` must not see holds the word SECRET."""
    path = tmp_path_factory.mktemp("100% real? #1 'store'") / "pinmill.sqlite"  # which an address must quote
    store = Store(path)
    fill(store, "w", "seen")
    fill(store, "other", "SECRET")
    texts = {"created": stamp(NOON), "workflow": "w", "version": "SECRET"}
    with store.writing() as connection:
        token = {"name": "SECRET name", "role": "admin", "hash": "SECRET hash", "created": stamp(NOON)}
        connection.execute(sql.insert(TOKENS).values(token))
        audit = dict.fromkeys(("time", "who", "what", "workflow", "detail"), "SECRET audit")
        connection.execute(sql.insert(AUDIT).values(audit))
        connection.exec_driver_sql("ANALYZE")  # makes tables whose names nobody else may give
        connection.execute(sql.insert(PREDICTIONS).values(key="SECRET key", output="SECRET output", **texts))
    yield path
    store.close()


def ask(path: Path, query: str, **limits: float) -> tuple[list[str], list[list], str]:
    """Columns, all rows, and why it was cut."""
    answer = open_query(path, "w", query, **limits)
    rows = [row for page in answer for row in page]
    assert answer.complete == (not answer.cut)
    return answer.columns, rows, answer.cut


def refuse(path: Path | None, query: str, **limits: float) -> str:
    """What is told of a query that has no answer."""
    with pytest.raises(Problem) as caught:
        open_query(path, "w", query, **limits)
    assert caught.value.status == 422
    return caught.value.detail


def fingerprint(path: Path) -> dict[str, str]:
    """The SHA-256 of the store's file, and of what was written to it last."""
    files = [path, path.with_name(f"{path.name}-wal")]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.exists()}


def test_each_view_has_the_rows_of_its_workflow_alone(file: Path) -> None:
    assert ask(file, "SELECT * FROM examples ORDER BY id") == (
        ["id", "hash", "record", "origin", "created"],
        [[n + 1, f"h{n}", f'{{"text": "seen {n}"}}', "seen file", WHEN] for n in range(3)],
        "",
    )
    row = [WHEN, None, "seen", "random"]
    assert ask(file, "SELECT * FROM annotations ORDER BY id") == (
        ["id", "hash", "record", "label", "annotator", "created", "seconds", "note", "strategy", "retracts"],
        [
            [1, "h0", '{"text": "seen 0"}', "spam", "seen ann", *row, None],
            [2, "h1", '{"text": "seen 1"}', "ham", "seen ann", *row, None],
            [3, "h2", '{"text": "seen 2"}', None, "seen ann", *row, None],
            [4, "h1", '{"text": "seen 1"}', None, "seen ann", WHEN, None, "", "random", 2],
        ],
        "",
    )
    tail = [None, '{"label": "spam"}', 0, 1.5, "req-1"]
    assert ask(file, "SELECT * FROM predictions ORDER BY id") == (
        ["id", "time", "version", "endpoint", "hash", "input", "output", "cached", "milliseconds", "request"],
        [[1, WHEN, "seen", "POST /predictions", "h0", *tail], [2, WHEN, "v1", "POST /predictions", "h1", *tail]],
        "",
    )


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("SELECT hash, output ->> 'label' = label FROM predictions JOIN annotations USING (hash) WHERE label > ''",
         [["h0", 1], ["h1", 0]]),
        ("SELECT COUNT(*) FROM examples", [[3]]),
        ("SELECT 1 FROM examples, annotations LIMIT 1", [[1]]),
        ("SELECT e.hash FROM examples e LEFT JOIN predictions p USING (hash) WHERE p.id IS NULL", [["h2"]]),
        ("SELECT count(*) FROM examples e LEFT JOIN annotations a ON a.hash = e.hash", [[4]]),
        ("SELECT hash FROM examples WHERE hash IN (SELECT hash FROM predictions) ORDER BY 1", [["h0"], ["h1"]]),
        ("SELECT UPPER(hash) FROM examples WHERE record LIKE '%SEEN 1%'", [["H1"]]),
        ("SELECT key, value FROM examples, json_each(record) LIMIT 1", [["text", "seen 0"]]),
        ("SELECT count(*) FROM examples, json_tree(record)", [[6]]),
        ("WITH x AS (SELECT 1) SELECT count(*) FROM x", [[1]]),
        ("WITH x AS (SELECT hash, max(id) FROM annotations GROUP BY 1) SELECT count(*) FROM x", [[3]]),
        (f"{COUNT} WHERE x < 4) SELECT sum(x) FROM c", [[10]]),
        ("SELECT hash, row_number() OVER (ORDER BY id DESC) FROM examples LIMIT 1", [["h2", 1]]),
        ("SELECT group_concat(label, '+') FROM annotations", [["spam+ham"]]),
        ("SELECT strftime('%H:%M', created) FROM temp.examples LIMIT 1", [["12:00"]]),
        ("VALUES (1, 2.5, NULL, 'tëxt')", [[1, 2.5, None, "tëxt"]]),
        ("SELECT CAST(x'ff41' AS TEXT)", [["\ufffdA"]]),  # bytes that are no text
        ("SELECT 9223372036854775807", [[2**63 - 1]]),
        ("-- a remark\nSELECT 1 /* another; */;", [[1]]),
        ("SELECT id FROM examples WHERE 0", []),
        ('SELECT "EXAMPLES".[id] FROM `Examples` LIMIT 1', [[1]]),
    ],
)  # fmt: skip
def test_sql_that_people_write_is_answered(file: Path, query: str, rows: list) -> None:
    assert ask(file, query)[1:] == (rows, "")


def test_labels_are_values_and_not_json_text(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    given = [
        Annotation(f"h{n}", {}, label, str(n), "random") for n, label in enumerate(["1", 1, True, False, 2.5, None])
    ]
    store.add_annotations("w", given, annotator="a", when=NOON)
    query = "SELECT label, typeof(label) FROM annotations ORDER BY id"
    assert ask(tmp_path / "s.sqlite", query)[1] == [
        ["1", "text"], [1, "integer"], [1, "integer"], [0, "integer"], [2.5, "real"], [None, "null"],
    ]  # fmt: skip


SECRETS = [
    "tokens", "main.tokens", "`TOKENS`", "calls", "main.calls", "main.examples", "temp.audit",
    "main.sqlite_schema", "temp.sqlite_master", "dbstat", "pragma_table_info('tokens')",
]  # fmt: skip
WAYS = [  # each reads a table, or no more than whether it has rows
    "SELECT * FROM {}",
    "SELECT count(*) FROM {}",
    "SELECT EXISTS (SELECT 1 FROM {})",
    "SELECT (SELECT count(*) FROM {} AS examples)",
    "SELECT * FROM (SELECT * FROM {}) AS examples",
    "SELECT x.* FROM examples LEFT JOIN {} AS x",
    # SQLite's authorizer is told the name of a WITH clause as if it were that of a view
    "WITH examples AS (SELECT * FROM {}) SELECT * FROM examples",
    "WITH predictions AS MATERIALIZED (SELECT * FROM {}) SELECT count(*) FROM predictions",
    "WITH annotations AS (SELECT 1 FROM {}) SELECT 1 FROM annotations, annotations AS b",
    # nor is it asked about the columns that USING and NATURAL take
    "SELECT * FROM (SELECT '' hash, '' name, '' sql, '' who, '' caller, '' record, '' output) NATURAL FULL JOIN {}",
    "SELECT hash FROM (SELECT 'SECRET hash' AS hash) JOIN {} USING (hash)",
    "SELECT sql FROM (SELECT '' AS sql) FULL JOIN {} USING (sql)",
    "EXPLAIN SELECT * FROM {}",
    "SELECT value FROM json_each((SELECT json_group_array(json_array(rowid)) FROM {}))",
    "SELECT id FROM examples ORDER BY (SELECT count(*) FROM {})",
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("secret", SECRETS)
def test_no_other_table_can_be_read_in_any_way(file: Path, secret: str, way: str) -> None:
    before, asked = fingerprint(file), {"file": file.as_uri(), "workflow": "w", "sql": way.format(secret)}
    (line,) = list_lines(**asked, seconds=10.0, rows=1000, size=1_000_000)  # without a process, which takes longer
    assert "SECRET" not in line
    assert list(json.loads(line)) == ["cut"]
    assert fingerprint(file) == before


@pytest.mark.parametrize(
    "query",
    [
        "SELECT workflow FROM examples",
        "SELECT key FROM annotations",
        "SELECT caller FROM predictions",
        "SELECT status FROM predictions",
        "SELECT 'x' IN tokens",
        "SELECT 'x' IN main.tokens",
        "SELECT 1 FROM examples NATURAL JOIN main.tokens",
        "SELECT 1 FROM examples WHERE id = (SELECT length(hash) FROM main.tokens)",
        "SELECT 1 FROM examples GROUP BY id HAVING (SELECT 1 FROM tokens)",
        "SELECT id FROM examples LIMIT (SELECT count(*) FROM tokens)",
        "SELECT sum(id) OVER (ORDER BY (SELECT count(*) FROM tokens)) FROM examples",
        "SELECT id FROM examples UNION ALL SELECT hash FROM main.tokens",
        "VALUES ((SELECT hash FROM tokens))",
        "WITH a AS (WITH examples AS (SELECT * FROM main.examples) SELECT * FROM examples) SELECT * FROM a",
        "WITH RECURSIVE examples(x) AS (SELECT hash FROM tokens UNION SELECT 1 FROM examples) SELECT 1 FROM examples",
        "SELECT * FROM tokens -- examples",
        "SELECT * FROM/**/main/**/./**/tokens",
        "SELECT load_extension('/tmp/x.so')",
        "SELECT readfile('/etc/passwd')",
        "SELECT writefile('/tmp/x', 'x')",
        "SELECT edit('x')",
        "SELECT eval('SELECT * FROM tokens')",
        "SELECT sqlite_version(), sqlite_source_id()",
        "SELECT sqlite_compileoption_get(0)",
        "SELECT fts3_tokenizer('simple')",
        "SELECT last_insert_rowid(), changes(), total_changes()",
        "SELECT zeroblob(1000)",
        "SELECT hex(randomblob(1000))",
        "SELECT * FROM generate_series(1, 10)",
        "SELECT * FROM fts3tokenize('simple', 'x')",
        "SELECT * FROM bytecode('SELECT 1')",
        "SELECT * FROM sqlite_dbpage",
        "SELECT * FROM sqlite_stat1",
        "SELECT count(*) FROM sqlite_temp_master",
        "SELECT sql FROM (SELECT '' AS sql) FULL JOIN SQLITE_TEMP_SCHEMA USING (sql)",
        "SELECT name FROM (SELECT '' AS name) FULL JOIN 'dbstat'((SELECT 'x')) USING (name)",
        "SELECT * FROM pragma_database_list",
        "SELECT * FROM pragma_function_list",
        "SELECT name FROM (SELECT '' AS name) FULL JOIN [pragma_module_list] USING (name)",
        "SELECT version FROM (SELECT '' AS version) FULL JOIN schema_version USING (version)",
        "INSERT INTO examples VALUES (9, 'x', '{}', 'x', 'x')",
        "INSERT INTO main.examples SELECT * FROM main.examples RETURNING record",
        "WITH x AS (SELECT 1) DELETE FROM main.tokens RETURNING hash",
        "UPDATE main.tokens SET role = 'admin' RETURNING hash",
        "REPLACE INTO main.tokens (name) VALUES ('x')",
        "DROP TABLE main.tokens",
        "DROP VIEW temp.examples",
        "ALTER TABLE main.tokens RENAME TO examples2",
        "CREATE TABLE main.x (y)",
        "CREATE TEMP TABLE x AS SELECT * FROM main.tokens",
        "CREATE TEMP VIEW x AS SELECT * FROM main.tokens",
        "CREATE TEMP TRIGGER x INSTEAD OF DELETE ON examples BEGIN SELECT * FROM main.tokens; END",
        "CREATE VIRTUAL TABLE temp.x USING fts5(y)",
        "CREATE VIRTUAL TABLE temp.x USING dbstat(main)",
        "CREATE INDEX main.x ON tokens (hash)",
        "ATTACH '/etc/passwd' AS x",
        "ATTACH ':memory:' AS x",
        "DETACH main",
        "VACUUM INTO '/tmp/pinmill-stolen.sqlite'",
        "VACUUM",
        "ANALYZE",
        "REINDEX",
        "PRAGMA table_info(tokens)",
        "PRAGMA writable_schema = ON",
        "PRAGMA query_only = OFF",
        "PRAGMA database_list",
        "PRAGMA temp_store_directory = '/tmp'",
        "PRAGMA hard_heap_limit = 1",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "EXPLAIN DELETE FROM main.tokens",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT x",
        "SELECT 1; SELECT * FROM tokens",
        "SELECT 1; DROP TABLE tokens",
        "SELECT 1\0; DROP TABLE tokens",
        "SELECT ?",
        "SELECT :name",
        "",
        " ;",
        "-- nothing",
        "/* SELECT 1",
        "SELECT",
        "nonsense",
        "SELECT '\ud800'",
        "SELECT " + "(" * 5000 + "1" + ")" * 5000,
        "SELECT " + "+".join("1" * 2000),
        "SELECT " + ", ".join("1" * 201),
        " UNION ALL ".join(["SELECT 1"] * 501),
        "SELECT 1 -- " + "x" * 100_000,
        "SELECT 'x' LIKE '" + "%a" * 501 + "'",
    ],
    ids=lambda query: query[:60],
)  # fmt: skip
def test_nothing_but_a_select_over_the_views_is_answered(file: Path, query: str) -> None:
    before = fingerprint(file)
    said = refuse(file, query)
    assert "SECRET" not in said
    assert len(said) < 1000
    assert fingerprint(file) == before
    assert not Path("/tmp/pinmill-stolen.sqlite").exists()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT * FROM exampels", "no such table: exampels. Did you mean 'examples'? There are examples(id, hash, "),
        ("SELECT lable FROM annotations", "no such column: lable. Did you mean 'label'? There are examples(id, "),
        ("SELECT cuont(*) FROM annotations", "no such function: cuont. Did you mean 'count'?"),
        (
            "SELECT * FROM tokens",
            "only examples, annotations and predictions can be read, without a schema before their",
        ),
        ("SELECT * FROM main.examples", "no such table: main.examples. Did you mean 'examples'?"),
        ("SELECT zeroblob(9)", "the function zeroblob() is refused"),
        ("PRAGMA user_version", "names: what is no SELECT is refused"),
        ("SELECT x'00'", "a value is a blob or infinite, which JSON does not have: take hex() of it, or leave it out"),
        ("SELECT -9e999", "a value is a blob or infinite"),
        ("SELECT 1 2", 'near "2": syntax error'),
        ("-- nothing", "one SELECT was expected"),
        ("SELECT json('{')", "malformed JSON"),
    ],
)
def test_a_problem_says_what_is_wrong_and_what_there_is(file: Path, query: str, said: str) -> None:
    assert said in refuse(file, query)


BOMBS = {
    "endless": f"{COUNT}) SELECT count(*) FROM c",
    "product": f"SELECT count(*) FROM {', '.join(f'examples AS e{n}' for n in range(20))}",
    "one function": "SELECT instr(printf('%.*c', 9000000, 'a'), printf('%.*c', 4000000, 'a') || 'b')",
    "pattern": f"SELECT printf('%.*c', 9000000, 'a') LIKE '%{'a' * 990}b'",
    "planner": "WITH t0 AS (SELECT 1 AS x), "
    + ", ".join(f"t{n} AS (SELECT a.x FROM t{n - 1} a, t{n - 1} b)" for n in range(1, 40))
    + " SELECT count(*) FROM t39",
    "sort": "WITH RECURSIVE c(x) AS (SELECT printf('%.*c', 1000000, 'x') UNION ALL SELECT x || '' FROM c) "
    "SELECT * FROM c ORDER BY 1",
    "distinct": f"{COUNT}) SELECT DISTINCT printf('%.*c', 100000, 'x') || x FROM c",
    "long value": "WITH RECURSIVE c(x) AS (SELECT 'x' UNION ALL SELECT x || x FROM c) SELECT max(x) FROM c",
    "wide row": "SELECT " + ", ".join(["printf('%.*c', 9000000, 1)"] * 150),
    "aggregate": f"{COUNT}) SELECT group_concat(printf('%.*c', 1000, 'x')) FROM c",
}


@pytest.mark.parametrize("query", BOMBS.values(), ids=BOMBS)
def test_a_query_that_never_ends_is_ended_and_the_next_is_answered(file: Path, query: str) -> None:
    before, clock = fingerprint(file), time.monotonic()
    try:
        rows, cut = ask(file, query, seconds=1.0)[1:]
    except Problem as problem:
        rows, cut = [], problem.detail
    assert time.monotonic() - clock < 20  # s: one, two more within a function, and whoever else is at work
    assert cut
    assert len(json.dumps(rows)) < 60_000_000
    assert ask(file, "SELECT count(*) FROM examples")[1] == [[3]]
    assert fingerprint(file) == before


def test_an_answer_is_cut_at_its_limit_of_rows_and_says_so(file: Path) -> None:
    query = COUNT + " WHERE x < {}) SELECT x FROM c"
    assert ask(file, query.format(1000), rows=1000) == (["x"], [[n] for n in range(1, 1001)], "")
    rows, cut = ask(file, query.format(1001), rows=1000)[1:]
    assert rows == [[n] for n in range(1, 1001)]
    assert cut == "the answer is cut at 1,000 rows and 50,000,000 bytes: ask for fewer, or for a part at a time"


def test_an_answer_is_cut_at_its_limit_of_bytes(file: Path) -> None:
    query = f"{COUNT} WHERE x < 10) SELECT printf('%096d', x) FROM c"
    assert len(ask(file, query, size=1000)[1]) == 10  # each row is a list of 96 digits, two quotes, two brackets
    assert len(ask(file, query, size=999)[1]) == 9


def test_rows_that_came_in_time_are_given_and_said_to_be_cut(file: Path) -> None:
    query = f"{COUNT}) SELECT x FROM c WHERE x < 4"
    rows, cut = ask(file, query, seconds=1.0)[1:]
    assert rows == [[1], [2], [3]][: len(rows) or 1]  # Python's sqlite3 keeps one back while it looks for the next
    assert cut == "the query took longer than 1 s: let it read fewer rows, or LIMIT them"


def test_pages_are_small_and_hold_each_row_once(file: Path) -> None:
    query = f"{COUNT} WHERE x < 50000) SELECT x, 'some text' FROM c"
    pages = list(open_query(file, "w", query))
    assert [row for page in pages for row in page] == [[n, "some text"] for n in range(1, 50_001)]
    assert max(len(json.dumps(page)) for page in pages) < 100_000


def test_a_query_that_nobody_reads_is_ended_and_gives_its_place_back(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from pinmill import views; views.HELD = 1; views.answer()"
    monkeypatch.setattr(data, "COMMAND", (sys.executable, "-P", "-c", code))
    query = f"{COUNT}) SELECT x FROM c"
    answer = open_query(file, "w", query, seconds=1.0, rows=10**9)
    os.waitid(os.P_PID, answer._process.pid, os.WEXITED | os.WNOWAIT)
    for _page in answer:
        pass
    assert not answer.complete
    late = "its rows were not read in time (60 s a page, 300 all): ask for fewer"
    assert answer.cut == f"the query took longer than 1 s, or {late}"


def test_an_answer_that_is_read_page_by_page_for_ever_is_ended(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from pinmill import views; views.WHOLE = 1; views.answer()"
    monkeypatch.setattr(data, "COMMAND", (sys.executable, "-P", "-c", code))
    answer = open_query(file, "w", f"{COUNT}) SELECT x FROM c", seconds=5.0, rows=10**9, size=10**12)
    assert len(list(answer)) > 1
    assert answer.cut.startswith("the query took longer than 5 s, or its rows were not read in time (60 s a page,")


def test_no_more_than_four_queries_are_at_work_at_once(file: Path) -> None:
    query = f"{COUNT}) SELECT x FROM c"
    answers: list[Query] = [open_query(file, "w", query) for _ in range(4)]
    with pytest.raises(Problem, match="other queries are at work") as caught:
        open_query(file, "w", query)
    assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "1"})
    answers[0].close()
    answers[0].close()
    assert ask(file, "SELECT 1")[1] == [[1]]
    process = answers[1]._process
    del answers[1]
    assert process.returncode == -signal.SIGKILL  # one that nobody holds any more is ended too
    for answer in answers[1:]:
        answer.close()
    assert list(answers[1])[1:] == []
    assert answers[1].cut == "it was closed"


def test_the_process_of_a_query_knows_no_secret_of_the_service(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINMILL_SECRET_KEY", "SECRET")
    query = f"{COUNT}) SELECT x FROM c"
    answer = open_query(file, "w", query)
    place = Path(f"/proc/{answer._process.pid}")
    assert b"SECRET" not in (place / "environ").read_bytes() + (place / "cmdline").read_bytes()
    answer.close()


def test_labels_are_written_while_a_query_reads(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    store = Store(path)
    fill(store, "w", "seen")
    query = f"{COUNT}) SELECT x, (SELECT count(*) FROM examples) FROM c"
    answer = open_query(path, "w", query, rows=20_000)
    assert store.add_examples("w", [{"text": "new"}], hashes=["new"], origin="file", when=NOON) == (1, 0)
    assert {count for page in answer for _, count in page} == {3}  # of the moment when it began
    assert ask(path, "SELECT count(*) FROM examples")[1] == [[4]]


def test_what_a_killed_writer_had_written_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    subprocess.run([sys.executable, "-c", KILLED_WRITER, path], check=False)
    path.with_name("s.sqlite-shm").unlink()  # as after the machine died
    before = fingerprint(path)
    assert len(before) == 2
    assert ask(path, "SELECT record FROM examples")[1] == [['{"text": "kept"}']]
    assert fingerprint(path) == before


def test_a_store_that_is_no_file_or_not_there_is_told(file: Path, tmp_path: Path) -> None:
    with pytest.raises(Problem, match="of a store in an SQLite file only") as caught:
        open_query(None, "w", "SELECT 1")
    assert caught.value.status == 501
    assert refuse(tmp_path / "absent.sqlite", "SELECT 1").startswith("there is nothing to query yet")
    (tmp_path / "empty.sqlite").touch()
    assert "there is nothing to query yet" in refuse(tmp_path / "empty.sqlite", "SELECT 1")


def test_a_damaged_store_is_an_error_of_the_store_and_not_of_the_query(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    path.write_bytes(b"no database " * 100)
    with pytest.raises(StoreError, match=r"could not read the store .*s\.sqlite: file is not a database"):
        open_query(path, "w", "SELECT 1")


def test_the_columns_of_the_views_are_all_of_their_tables_but_those_that_are_nobodys_business() -> None:
    renamed = {"input_hash": "hash"}
    tables = {"examples": EXAMPLES, "annotations": ANNOTATIONS, "predictions": CALLS}
    left_out = {"examples": {"workflow"}, "annotations": {"workflow", "key"}}
    left_out["predictions"] = {"workflow", "caller", "status", "row"}
    for name, table in tables.items():
        there = {renamed.get(column.name, column.name) for column in table.c}
        assert there - set(COLUMNS[name]) == left_out[name]
        assert set(COLUMNS[name]) <= there


def test_every_table_of_the_store_is_refused_by_its_name(file: Path) -> None:
    for name in METADATA.tables:
        assert "SECRET" not in refuse(file, f"SELECT count(*) FROM main.{name}")
