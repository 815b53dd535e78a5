"""A cell as a function: what is its own, what it prints, and how it fails."""

import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import zmq
from hypothesis import example, given
from hypothesis import strategies as st
from pinmill.errors import ModelError, ProjectError
from pinmill.worker import CELLS, NEWS, Worker, compile_cell, give_up, run_step, split_items

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
HOSTILE = ["]", "[", ",", '"', "\\", "\\u0022", "\n", "\r", "\x00", "\u2028", "\x85", "],[", '","', "😀", "{}", " "]


def call(source: str, info: str = "", *, request: str = "{}", caller=None, **names) -> tuple[str, str]:
    """What a cell and its ResponseInfo cell print."""
    steps = compile_cell("GET /x", source, info, names)(request, caller)
    return run_step(steps), run_step(steps)


# What a cell may see and leave behind


def test_what_a_cell_assigns_is_gone_with_the_answer() -> None:
    names = {"found": "the kernel's"}
    cell = compile_cell(
        "GET /x", "import math\nfound = REQUEST\nfor n in range(3):\n    pass\nprint(found, n)", "", names
    )
    assert [run_step(cell(request, None)) for request in ("a", "b")] == ["a 2\n", "b 2\n"]
    assert {name: value for name, value in names.items() if name != "__builtins__"} == {"found": "the kernel's"}


def test_what_a_cell_only_reads_is_the_kernel_s_as_it_is_then() -> None:
    names = {"greeting": "hello"}
    cell = compile_cell("GET /x", "print(greeting)", "", names)
    assert run_step(cell("", None)) == "hello\n"
    names["greeting"] = "good day"
    assert run_step(cell("", None)) == "good day\n"


def test_a_name_of_a_request_is_not_left_to_the_next_one() -> None:
    cell = compile_cell("GET /x", "if REQUEST == 'first':\n    secret = 1\nprint(secret)", "", {})
    assert run_step(cell("first", None)) == "1\n"
    with pytest.raises(UnboundLocalError):
        run_step(cell("second", None))


def test_comprehensions_functions_and_classes_in_a_cell_see_its_names() -> None:
    source = """\
base = int(REQUEST)
rows = [base + n for n in range(2) if base]
later = sorted(rows, key=lambda n: -n * base)
def double(n):
    return n * base
class Row:
    start = base
print(rows, later, double(5), Row.start, {base: n for n in rows})"""
    assert call(source, request="2")[0] == "[2, 3] [3, 2] 10 2 {2: 3}\n"


def test_the_caller_is_given_by_the_call_and_by_nothing_else() -> None:
    assert call("print(CALLER)", CALLER="the kernel's")[0] == "None\n"
    assert call("print(CALLER['name'])", caller={"name": "ann"})[0] == "ann\n"


def test_the_info_cell_sees_what_the_cell_assigned_and_prints_apart() -> None:
    answer = call("# GET /x\nstatus = 404\nprint('body')", "# ResponseInfo GET /x\nprint({'status': status})")
    assert answer == ("body\n", "{'status': 404}\n")


def test_requests_that_interleave_share_nothing() -> None:
    cell = compile_cell("GET /x", "seen = REQUEST", "print(seen)", {})
    first, second = cell("a", None), cell("b", None)
    assert [run_step(step) for step in (first, second, first, second)] == ["", "", "a\n", "b\n"]


@pytest.mark.parametrize("source", ["", "# GET /x", "pass", '"""only a text"""'])
def test_a_cell_that_prints_nothing_answers_nothing(source: str) -> None:
    assert call(source) == ("", "")


@pytest.mark.parametrize(
    "source",
    [
        "# GET /x\nreturn 1",
        "# GET /x\nyield 1",
        "# GET /x\n%time x = 1",
        "# GET /x\n!ls",
        "# GET /x\nx?",
        "# GET /x\nfrom math import *",
        "# GET /x\nawait thing()",
        "# GET /x\nasync with thing:\n    pass",
        "# GET /x\n[x async for x in y]",
        "# GET /x\nfrom __future__ import annotations",
        "# GET /x\nglobal REQUEST",
        "# GET /x\nbreak",
        "# GET /x\nx = = 1",
        "# GET /x\n  indented",
        "# GET /x\nx = '\0'",
    ],
)
@pytest.mark.parametrize("is_info", [False, True])
def test_what_cannot_stand_in_a_function_is_refused_by_the_cell_s_name_and_line(source: str, is_info: bool) -> None:
    with pytest.raises(ProjectError, match=r"the cell GET /x cannot answer requests: .*(line 2|null)") as raised:
        compile_cell("GET /x", "" if is_info else source, source if is_info else "", {})
    assert "no magics, no `import *`, no `return`" in str(raised.value)


# What a row-wise cell printed


@given(
    st.lists(VALUES, max_size=6), st.sampled_from([None, 0, 3]), st.booleans(), st.sampled_from(["", " \n", "\r\n\t"])
)
@example(HOSTILE, None, False, "")
@example([[[]], {}, [], {"a": [{}]}, [[], [[]]]], 1, True, "\n")
def test_items_are_those_that_the_json_module_reads(items: list, indent: int | None, ascii: bool, space: str) -> None:
    printed = space + json.dumps(items, indent=indent, ensure_ascii=ascii) + space
    lines = split_items(printed, len(items))
    assert [json.loads(line) for line in lines] == items
    assert not any("\n" in line for line in lines)  # an end of line parts items on their way


JSON_LIKE = st.text(alphabet='[]{},:" 019.eE-+truefalsn\\\n\t', max_size=24) | st.text(max_size=8).map(json.dumps)


@given(JSON_LIKE, st.integers(0, 3))
@example("[1,]", 1)
@example("[,1]", 1)
@example("[1][2]", 1)
@example("[1] x", 1)
@example("[1 2]", 2)
@example("[1", 1)
@example("[", 0)
@example("[]]", 0)
@example("1", 1)
@example('{"a": 1}', 1)
@example('["\n"]', 1)
@example("\ufeff[1]", 1)
@example("[NaN]", 1)
@example("[-Infinity]", 1)
@example("[01]", 1)
@example("['a']", 1)
@example("", 0)
@example("]", 0)
def test_only_a_json_list_of_as_many_items_as_rows_is_an_answer(text: str, count: int) -> None:
    def strict(constant: str) -> None:
        raise ValueError(constant)

    try:
        value = json.loads(text, parse_constant=strict)
        is_answer = isinstance(value, list) and len(value) == count
    except ValueError:
        is_answer = False
    if is_answer:
        assert [json.loads(line) for line in split_items(text, count)] == value
    else:
        with pytest.raises(ValueError, match=r"."):
            split_items(text, count)


# The loop, over its real sockets


class Other:
    """The gateway's side of a worker's sockets."""

    def __init__(self, folder: Path, context: zmq.Context) -> None:
        self.socket, self.news = context.socket(zmq.PAIR), context.socket(zmq.PULL)
        for socket, name in ((self.socket, CELLS), (self.news, NEWS)):
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVTIMEO, 20_000)
            socket.bind(f"ipc://{folder / name}")

    def hear(self) -> tuple[str, dict]:
        what, value = self.news.recv_multipart()
        return what.decode(), json.loads(value)

    def compile(self, **cells: str) -> str:
        """What is wrong with cells, by name; empty when nothing is."""
        listed = [{"name": name, "source": source, "info": ""} for name, source in cells.items()]
        self.socket.send_multipart([b"cells", b"", json.dumps(listed).encode()])
        what, value = self.hear()
        assert what == "compiled"
        return value["problem"]

    def rows(self, name: str, rows: list, args: dict | None = None) -> tuple[list[str], list[dict]]:
        """The items and faults of rows."""
        body = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
        self.socket.send_multipart([b"rows", b"\0\1", name.encode(), json.dumps(args or {}).encode(), body])
        number, items, faults = self.socket.recv_multipart()
        assert number == b"\0\1"
        return items.decode().split("\n"), json.loads(faults or b"[]")

    def cell(self, name: str, value: dict, caller: dict | None = None) -> list[bytes]:
        self.socket.send_multipart(
            [b"cell", b"n", name.encode(), json.dumps(value).encode(), json.dumps(caller).encode()]
        )
        return self.socket.recv_multipart()[1:]


class FakeService:
    """Stands for `service.Service`, whose loading is tested where it is."""

    def __init__(self) -> None:
        self.champion, self.problem, self.versions = None, "no champion yet", []

    def load(self, version: str) -> None:
        if version == "damaged":
            raise ModelError("its SHA-256 differs")
        if version == "odd":
            raise KeyError("secret")
        self.versions = [*self.versions[-1:], version]

    def choose(self, version: str) -> None:
        if version == "the end":
            raise EOFError
        self.champion = SimpleNamespace(version=version)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Other]:
    """The gateway's side of a worker that runs in a thread of this process; `names` are those of its kernel."""
    context = zmq.Context()
    side = Other(tmp_path, context)
    side.names = {"service": FakeService(), "json": json, "base": 1}
    worker = Worker(side.names, tmp_path)

    def serve() -> None:
        with suppress(EOFError):
            worker.serve()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert side.hear() == ("hello", {"version": None, "problem": "no champion yet"})
    yield side
    side.socket.send_multipart([b"choose", b"", b"the end"])
    thread.join(20)
    worker.context.destroy(linger=0)
    context.destroy(linger=0)


DOUBLE = "rows = json.loads(REQUEST)['body']\nprint(json.dumps([{'value': 2 * row} for row in rows]))"
PICKY = "rows = json.loads(REQUEST)['body']\nassert 'bad' not in rows\nprint(json.dumps(rows))"


def test_a_batch_is_answered_in_order(other: Other) -> None:
    assert other.compile(double=DOUBLE) == ""
    assert other.rows("double", [1, 2, 30]) == (['{"value": 2}', '{"value": 4}', '{"value": 60}'], [])
    assert other.rows("double", ["é\n\u2028"]) == (['{"value": "\\u00e9\\n\\u2028\\u00e9\\n\\u2028"}'], [])


def test_only_the_rows_fail_that_the_cell_fails_on(other: Other) -> None:
    other.compile(picky=PICKY)
    rows = ["a", "b", "bad", "c", "d", "bad", "bad", "e", "f"]
    items, faults = other.rows("picky", rows)
    assert items == ["" if row == "bad" else f'"{row}"' for row in rows]
    assert faults == [{"cell": "picky", "error": "AssertionError", "line": 2}] * 3


@given(st.lists(st.sampled_from(["good", "bad"]), min_size=1, max_size=70))
def test_bisection_finds_every_bad_row_wherever_it_stands(rows: list[str]) -> None:
    worker = object.__new__(Worker)
    worker.cells = {"picky": compile_cell("picky", PICKY, "", {"json": json})}
    faults: list[dict] = []
    items = worker.score("picky", "{}", [json.dumps(row) for row in rows], faults)
    assert items == ["" if row == "bad" else '"good"' for row in rows]
    assert len(faults) == rows.count("bad")


RAISING = [
    ("raise RuntimeError('secret text')", "RuntimeError", 1),
    ("import sys\nsys.exit(0)", "SystemExit", 2),
    ("raise KeyboardInterrupt", "KeyboardInterrupt", 1),
    ("undefined", "NameError", 1),
    ("def f():\n    f()\n\nf()", "RecursionError", 2),
]


@pytest.mark.parametrize(("source", "error", "line"), RAISING)
def test_a_cell_that_raises_fails_its_rows_and_tells_the_place_but_not_the_words(
    other: Other, source: str, error: str, line: int
) -> None:
    assert other.compile(wrong=source, double=DOUBLE) == ""
    fault = {"cell": "wrong", "error": error, "line": line}
    assert other.rows("wrong", [1, 2]) == (["", ""], [fault, fault])
    answer, info, version, told = other.cell("wrong", {"body": 1})
    assert (answer, info, version, json.loads(told)) == (b"", b"", b"", fault)
    assert other.rows("double", [21]) == (['{"value": 42}'], [])


@pytest.mark.parametrize(
    "printed", ["rubbish", "[1]\na stray print", "[", "[NaN]", "[1, 2, 3]", '{"a": 1}', "", "[" * 100_000]
)
def test_a_row_wise_cell_that_prints_rubbish_fails_its_rows_and_the_next_call_is_answered(
    other: Other, printed: str
) -> None:
    assert other.compile(wrong=f"print({printed!r})", double=DOUBLE) == ""
    items, faults = other.rows("wrong", [1, 2])
    assert items == ["", ""]
    assert [fault["cell"] for fault in faults] == ["wrong", "wrong"]
    assert other.rows("double", [21]) == (['{"value": 42}'], [])


def test_a_cell_that_prints_too_few_items_is_asked_row_by_row(other: Other) -> None:
    other.compile(first="print(json.dumps(json.loads(REQUEST)['body'][:1]))")
    assert other.rows("first", ["a", "b", "c"]) == (['"a"', '"b"', '"c"'], [])


# Time


@pytest.fixture
def hurried() -> Iterator[Worker]:
    """A worker whose cells may take a tenth of a second; pytest's own alarm is put off meanwhile."""
    handler, left = signal.signal(signal.SIGALRM, give_up), signal.setitimer(signal.ITIMER_REAL, 0)
    worker = object.__new__(Worker)
    worker.seconds, worker.cells = 0.1, {}
    yield worker
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)  # nothing is left that could end the next cell
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, *left)


HANG = [
    "import time\ntime.sleep(60)",
    "while True: pass",
    "try:\n    while True: pass\nexcept Exception: pass",
    "import threading\nthreading.Event().wait()",
    "print(sum(1 for _ in iter(int, 1)))",
]


@pytest.mark.parametrize("hang", HANG)
def test_a_row_that_hangs_fails_alone_and_in_time(hurried: Worker, hang: str) -> None:
    indented = hang.replace("\n", "\n    ")
    source = f"rows = json.loads(REQUEST)['body']\nif 'bad' in rows:\n    {indented}\nprint(json.dumps(rows))"
    hurried.cells = {"slow": compile_cell("slow", source, "", {"json": json})}
    faults: list[dict] = []
    items = hurried.score("slow", "{}", ['"a"', '"bad"', '"b"', '"bad"'], faults)
    assert items == ['"a"', "", '"b"', ""]
    assert [fault["error"] for fault in faults] == ["LateError", "LateError"]


def test_a_cell_that_hangs_is_told_as_late(hurried: Worker) -> None:
    hurried.cells = {"GET /x": compile_cell("GET /x", HANG[0], "", {})}
    answer, info, _, fault = hurried.answer_cell(b"GET /x", b"{}", b"null")
    assert (answer, info, json.loads(fault)) == (b"", b"", {"cell": "GET /x", "error": "LateError", "line": 2})


def test_what_a_thread_prints_that_a_cell_left_behind_is_in_no_answer() -> None:
    with ThreadPoolExecutor(1) as left_behind:
        names = {"stray": lambda: left_behind.submit(print, "stray").result(20)}
        cell = compile_cell("GET /x", "stray()\nprint(REQUEST)\nstray()", "stray()\nprint('info')\nstray()", names)
        for request in ("first", "second"):
            steps = cell(request, None)
            assert [run_step(steps), run_step(steps)] == [f"{request}\n", "info\n"]


def test_options_reach_a_row_wise_cell_and_headers_never_do(other: Other) -> None:
    other.compile(show="print(json.dumps([REQUEST]))")
    (item,), _ = other.rows("show", ["x"], {"version": ["v"]})
    assert json.loads(json.loads(item)) == {"body": ["x"], "args": {"version": ["v"]}, "path": {}, "headers": {}}


def test_another_cell_answers_body_and_info_and_knows_its_caller(other: Other) -> None:
    listed = [{"name": "GET /who", "source": "print(CALLER['name'])", "info": "print(json.dumps({'status': 201}))"}]
    other.socket.send_multipart([b"cells", b"", json.dumps(listed).encode()])
    assert other.hear() == ("compiled", {"problem": ""})
    assert other.cell("GET /who", {}, {"name": "ann"}) == [b"ann\n", b'{"status": 201}\n', b"", b""]
    answer, info, _, fault = other.cell("GET /who", {}, None)
    assert (answer, info, json.loads(fault)) == (b"", b"", {"cell": "GET /who", "error": "TypeError", "line": 1})


def test_an_answer_names_the_version_that_its_cell_spoke_of(other: Other) -> None:
    other.compile(tell="print(service.champion.version)")
    for version in (b"v1", b"v2"):
        other.socket.send_multipart([b"choose", b"", version])
        assert other.cell("tell", {}) == [version + b"\n", b"", version, b""]


def test_a_cell_that_is_not_there_is_a_fault_not_an_end(other: Other) -> None:
    other.compile(double=DOUBLE)
    assert json.loads(other.cell("GET /none", {})[3])["error"] == "KeyError"
    assert other.rows("double", [1])[0] == ['{"value": 2}']


def test_a_cell_that_cannot_be_compiled_is_told_by_name(other: Other) -> None:
    assert "the cell bad cannot answer requests" in other.compile(double=DOUBLE, bad="return 1")


def test_loading_is_told_with_what_is_held_then_and_what_is_wrong_and_no_stranger_s_words(other: Other) -> None:
    other.compile(double=DOUBLE)
    for version, problem, held in (
        ("v1", "", ["v1"]),
        ("damaged", "its SHA-256 differs", ["v1"]),
        ("odd", "KeyError", ["v1"]),
        ("v2", "", ["v1", "v2"]),
        ("v3", "", ["v2", "v3"]),
    ):
        other.socket.send_multipart([b"load", b"", version.encode()])
        assert other.hear() == ("loaded", {"version": version, "problem": problem, "held": held})
    other.socket.send_multipart([b"choose", b"", b"v1"])
    assert other.rows("double", [1])[0] == ['{"value": 2}']  # what was sent before it is done
    assert other.names["service"].champion.version == "v1"


def test_a_notebook_without_a_service_is_told_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"needs the cell `service = open_service\(run\)`"):
        Worker({}, tmp_path)
