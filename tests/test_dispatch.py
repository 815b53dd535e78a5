"""What is asked of the kernels: order, batches, turns, deadlines, and what becomes of it all when a kernel is lost."""

import asyncio
import functools
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pinmill.dispatch import AHEAD, BATCH, GONE, MOST_CELLS, Dispatcher
from pinmill.problem import Problem

LATER = 1e6  # s, beyond any deadline here


class Kernel:
    """A wire whose answers are given when the test says so: each row comes back in angle brackets."""

    def __init__(self) -> None:
        self.in_flight, self.busy_since = OrderedDict(), 0.0
        self.sent: list[list[bytes]] = []

    def send(self, frames: list[bytes]) -> None:
        self.sent.append(frames)

    def holds(self) -> list[list[str]]:
        """What it has to do: the rows of each batch, or the name and request of a cell."""
        return [read_rows(f) if f[0] == b"rows" else [f[2].decode(), f[3].decode()] for f in self.sent]


def read_rows(frames: Sequence[bytes]) -> list[str]:
    return frames[4].decode().split("\n")


def answer(dispatcher: Dispatcher, kernel: Kernel, faults: object = None, *, seconds: float = 0.0) -> None:
    """Let a kernel answer the first thing that it has, on which it worked for `seconds`."""
    kernel.busy_since = asyncio.get_running_loop().time() - seconds
    kind, number, *frames = kernel.sent.pop(0)
    told = json.dumps(faults).encode() if faults else b""
    if kind == b"cell":
        dispatcher.take(kernel, number, frames[1], b"info", b"v1", told)
    else:
        items = "\n".join(f"<{row}>" for row in frames[2].decode().split("\n"))
        dispatcher.take(kernel, number, items.encode(), told)


def lose(dispatcher: Dispatcher, kernel: Kernel) -> Kernel:
    """Let a kernel end, and give another one its place."""
    kernel.sent.clear()
    dispatcher.lose(kernel)
    another = Kernel()
    dispatcher.wires.append(another)
    dispatcher.pump()
    return another


class OneByOne(Dispatcher):
    """A dispatcher to which each request comes in a turn of the event loop of its own."""

    def add(self, *given) -> asyncio.Future:
        future = super().add(*given)
        self.pump()
        return future


def start(*kernels: Kernel, most: int = 1000, kind: type[Dispatcher] = OneByOne, **options) -> Dispatcher:
    return kind(10.0, most, wires=list(kernels), **options)


def ask(dispatcher: Dispatcher, *rows: str, name: bytes = b"P", args: bytes = b"{}") -> "asyncio.Future":
    (future,) = dispatcher.ask_rows(name, args, rows)
    return future


def on_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test on an event loop; it fails if that has anything to complain about afterwards."""

    @functools.wraps(test)
    def run(*args, **options) -> None:
        complaints = []

        async def watched() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda loop, what: complaints.append(what))
            await test(*args, **options)

        asyncio.run(watched())
        assert complaints == []

    return run


async def settle() -> None:
    """Let what was called back run."""
    for _ in range(5):
        await asyncio.sleep(0)


# Batches


@on_loop
async def test_rows_come_back_to_who_asked_in_their_order() -> None:
    dispatcher = start(kernel := Kernel())
    futures = [ask(dispatcher, "a"), ask(dispatcher, "b"), ask(dispatcher, "c", "d"), ask(dispatcher, "e")]
    assert kernel.holds() == [["a"], ["b"]]  # one that it works on, one that waits beside it
    answer(dispatcher, kernel)
    assert kernel.holds() == [["b"], ["c", "d", "e"]]  # what arrived meanwhile, as one
    answer(dispatcher, kernel)
    answer(dispatcher, kernel)
    assert [future.result() for future in futures] == [[b"<a>"], [b"<b>"], [b"<c>", b"<d>"], [b"<e>"]]
    assert (dispatcher.waiting, kernel.sent, len(kernel.in_flight)) == (0, [], 0)


@on_loop
async def test_what_comes_in_one_turn_of_the_event_loop_is_one_batch() -> None:
    dispatcher = start(kernel := Kernel(), kind=Dispatcher)
    for row in "abc":
        ask(dispatcher, row)
    assert kernel.holds() == []
    await settle()
    assert kernel.holds() == [["a", "b", "c"]]
    ask(dispatcher, "d")  # and in a later turn again
    await settle()
    assert kernel.holds() == [["a", "b", "c"], ["d"]]


@on_loop
async def test_kernels_that_idle_share_what_comes_in_one_turn() -> None:
    kernels = [Kernel(), Kernel(), Kernel()]
    dispatcher = start(*kernels, kind=Dispatcher)
    ask(dispatcher, "a", "b", "c")  # a call is not torn apart
    for row in "defg":
        ask(dispatcher, row)
    await settle()
    assert [kernel.holds() for kernel in kernels] == [[["a", "b", "c"]], [["d", "e"]], [["f", "g"]]]
    ask(dispatcher, "h")
    ask(dispatcher, "i")
    await settle()
    assert [kernel.holds()[1:] for kernel in kernels] == [[["h", "i"]], [], []]  # none idles


@on_loop
async def test_a_batch_has_no_more_rows_than_that_and_a_call_is_not_torn_apart() -> None:
    dispatcher = start(kernel := Kernel())
    for name in ("x", "y"):
        ask(dispatcher, name)
    ask(dispatcher, *["a"] * (BATCH - 1))
    ask(dispatcher, *["b"] * 2)
    ask(dispatcher, "c")
    assert dispatcher.waiting == BATCH + 2
    for _ in range(2):
        answer(dispatcher, kernel)
    assert kernel.holds() == [["a"] * (BATCH - 1), ["b", "b", "c"]]


@on_loop
async def test_work_goes_to_the_kernel_that_has_least() -> None:
    dispatcher = start(first := Kernel(), second := Kernel())
    for row in "abcd":
        ask(dispatcher, row)
    assert (first.holds(), second.holds()) == ([["a"], ["c"]], [["b"], ["d"]])
    ask(dispatcher, "e")
    answer(dispatcher, second)
    assert second.holds() == [["d"], ["e"]]


@on_loop
async def test_rows_of_another_cell_or_with_other_options_are_another_batch() -> None:
    dispatcher = start(kernel := Kernel())
    for row in "xy":
        ask(dispatcher, row)
    ask(dispatcher, "a")
    ask(dispatcher, "b", args=b'{"explain": ["true"]}')
    ask(dispatcher, "c", name=b"Q")
    ask(dispatcher, "d")
    done = []
    while kernel.sent:
        done.append((kernel.sent[0][2], kernel.sent[0][3], read_rows(kernel.sent[0])))
        answer(dispatcher, kernel)
    assert done[2:] == [(b"P", b"{}", ["a", "d"]), (b"P", b'{"explain": ["true"]}', ["b"]), (b"Q", b"{}", ["c"])]


@on_loop
async def test_cells_run_one_request_each_and_take_turns_with_rows() -> None:
    dispatcher = start(kernel := Kernel())
    for row in "xy":
        ask(dispatcher, row)
    futures = [dispatcher.ask_cell(b"GET /", request, b"null") for request in (b"1", b"2")]
    ask(dispatcher, "a")
    ask(dispatcher, "b")
    done = []
    while kernel.sent:
        done += kernel.holds()[:1]
        answer(dispatcher, kernel)
    assert done == [["x"], ["y"], ["GET /", "1"], ["a", "b"], ["GET /", "2"]]
    assert [future.result() for future in futures] == [(b"1", b"info", b"v1"), (b"2", b"info", b"v1")]


@on_loop
async def test_many_requests_of_cells_do_not_keep_rows_waiting_and_too_many_are_refused() -> None:
    dispatcher = start(kernel := Kernel())
    futures = [dispatcher.ask_cell(b"GET /", b"%d" % number, b"null") for number in range(AHEAD + MOST_CELLS)]
    with pytest.raises(Problem) as raised:
        dispatcher.ask_cell(b"PUT /x", b"{}", b"null")
    assert (raised.value.status, raised.value.headers) == (503, {"Retry-After": "1"})
    row, rounds = ask(dispatcher, "a"), 0
    while not row.done():
        answer(dispatcher, kernel)
        rounds += 1
    assert rounds <= AHEAD + 2  # what the kernel had, one more request of a cell, and it
    dispatcher.ask_cell(b"GET /", b"{}", b"null")  # there is room again
    while kernel.sent:
        answer(dispatcher, kernel)
    assert [future.result()[0] for future in futures] == [b"%d" % number for number in range(AHEAD + MOST_CELLS)]


@on_loop
async def test_a_large_call_does_not_keep_a_small_one_waiting() -> None:
    dispatcher = start(kernel := Kernel())
    rows = [str(n) for n in range(10 * BATCH + 1)]
    futures = dispatcher.ask_rows(b"P", b"{}", rows)
    small = ask(dispatcher, "small")
    rounds = 0
    while not small.done():
        answer(dispatcher, kernel)
        rounds += 1
    assert rounds <= AHEAD + 2  # what the kernel had, one more part, and it
    while kernel.sent:
        answer(dispatcher, kernel)
    assert [item.decode() for future in futures for item in future.result()] == [f"<{row}>" for row in rows]


@on_loop
async def test_nobody_computes_for_a_caller_who_went_away() -> None:
    dispatcher = start(kernel := Kernel())
    for row in "xy":
        ask(dispatcher, row)
    gone, stays = ask(dispatcher, "gone"), ask(dispatcher, "stays")
    gone.cancel()
    answer(dispatcher, kernel)
    assert kernel.holds() == [["y"], ["stays"]]
    for _ in range(2):
        answer(dispatcher, kernel)
    assert stays.result() == [b"<stays>"]
    assert dispatcher.waiting == 0


@on_loop
async def test_a_fault_is_reported_and_its_row_is_empty() -> None:
    told = []
    dispatcher = start(kernel := Kernel(), report=told.append)
    ask(dispatcher, "a")
    cell = dispatcher.ask_cell(b"GET /", b"{}", b"null")
    answer(dispatcher, kernel, [{"cell": "P", "line": 1}, {"cell": "P", "line": 2}])
    answer(dispatcher, kernel, {"cell": "GET /", "line": 3})
    assert [fault["line"] for fault in told] == [1, 2, 3]
    assert cell.result() is None


# Load and deadlines


@on_loop
async def test_a_slow_model_gets_small_batches_and_a_quick_one_large_ones_again() -> None:
    dispatcher = start(kernel := Kernel(), most=100_000)
    sizes = []
    for seconds in (0.1, 100.0, 0.0001):  # for a row
        for _ in range(100):
            dispatcher.ask_rows(b"P", b"{}", ["a"] * 8)
            answer(dispatcher, kernel, seconds=seconds * len(read_rows(kernel.sent[0])))
        while kernel.sent:
            answer(dispatcher, kernel, seconds=seconds * len(read_rows(kernel.sent[0])))
        futures = dispatcher.ask_rows(b"P", b"{}", ["a"] * BATCH)
        sizes.append(-(-BATCH // len(futures)))
        while kernel.sent:
            answer(dispatcher, kernel, seconds=seconds * len(read_rows(kernel.sent[0])))
    assert sizes[1:] == [1, BATCH]
    assert 4 <= sizes[0] <= 6  # half a second of it


@on_loop
async def test_a_cell_that_took_too_long_is_late_and_not_wrong() -> None:
    dispatcher = start(kernel := Kernel())
    future = dispatcher.ask_cell(b"GET /", b"{}", b"null")
    answer(dispatcher, kernel, {"cell": "GET /", "error": "LateError", "line": 2})
    problem = future.exception()
    assert (problem.status, says_what_gone_says(problem)) == (504, True)


def says_what_gone_says(problem: Problem) -> bool:
    """Whether it warns that the cell may have done something, and speaks not of rows."""
    return problem.detail.endswith(GONE[GONE.index("obody knows") :]) and "rows" not in problem.detail


@on_loop
async def test_a_full_queue_says_when_to_come_again() -> None:
    dispatcher = start(most=5)
    ask(dispatcher, *"abc")
    dispatcher.ask_cell(b"GET /", b"{}", b"null")
    for refused in (lambda: ask(dispatcher, "d", "e"), lambda: dispatcher.ask_rows(b"P", b"{}", ["d"] * 5000)):
        with pytest.raises(Problem) as raised:
            refused()
        assert (raised.value.status, raised.value.headers) == (503, {"Retry-After": "1"})
    ask(dispatcher, "d")
    with pytest.raises(Problem):
        dispatcher.ask_cell(b"GET /", b"{}", b"null")
    assert dispatcher.waiting == 5


@on_loop
async def test_one_call_that_is_larger_than_the_queue_is_taken_when_nothing_waits() -> None:
    dispatcher = start(Kernel(), most=5)
    assert len(dispatcher.ask_rows(b"P", b"{}", ["a"] * (4 * BATCH))) == 4


@on_loop
async def test_after_the_deadline_all_are_told_and_late_answers_are_dropped() -> None:
    dispatcher = start(kernel := Kernel())
    futures = [ask(dispatcher, row) for row in "abcd"] + [dispatcher.ask_cell(b"GET /", b"{}", b"null")]
    now = asyncio.get_running_loop().time()
    assert dispatcher.sweep(now + 9) == []
    assert not any(future.done() for future in futures)
    assert dispatcher.sweep(now + 11) == [kernel]
    assert [future.exception().status for future in futures] == [504] * 5
    assert not any(says_what_gone_says(future.exception()) for future in futures)  # no kernel had begun the cell
    assert (dispatcher.waiting, len(dispatcher.groups)) == (0, 0)
    answer(dispatcher, kernel)
    answer(dispatcher, kernel)
    assert [future.exception().status for future in futures] == [504] * 5
    fresh = ask(dispatcher, "e")
    answer(dispatcher, kernel)
    assert fresh.result() == [b"<e>"]


@on_loop
async def test_a_cell_that_a_kernel_had_when_its_deadline_passed_may_have_done_something() -> None:
    dispatcher = start(Kernel())
    future = dispatcher.ask_cell(b"PUT /x", b"{}", b"null")
    dispatcher.sweep(asyncio.get_running_loop().time() + 11)
    assert (future.exception().status, says_what_gone_says(future.exception())) == (504, True)


@on_loop
async def test_a_kernel_that_goes_on_answering_does_not_hang() -> None:
    dispatcher = start(kernel := Kernel())
    ask(dispatcher, "a")
    ask(dispatcher, "b")
    answer(dispatcher, kernel, seconds=11)
    assert dispatcher.sweep(asyncio.get_running_loop().time()) == []
    kernel.busy_since -= 11
    assert dispatcher.sweep(asyncio.get_running_loop().time()) == [kernel]


@on_loop
async def test_without_a_kernel_things_wait_for_one() -> None:
    dispatcher = start()
    future = ask(dispatcher, "a")
    dispatcher.wires.append(kernel := Kernel())
    dispatcher.pump()
    answer(dispatcher, kernel)
    assert future.result() == [b"<a>"]


# A kernel that is lost


@on_loop
async def test_rows_of_a_lost_kernel_are_tried_once_more_each_alone() -> None:
    dispatcher = start(kernel := Kernel())
    futures = [ask(dispatcher, "x"), ask(dispatcher, "y"), ask(dispatcher, "a", "b"), ask(dispatcher, "c")]
    answer(dispatcher, kernel)
    another = lose(dispatcher, kernel)
    done = []
    while another.sent:
        done += another.holds()
        assert len(another.sent) == 1  # it has nothing beside it that it could take along
        answer(dispatcher, another)
    await settle()
    assert done == [["y"], ["a"], ["b"], ["c"]]
    assert [future.result() for future in futures] == [[b"<x>"], [b"<y>"], [b"<a>", b"<b>"], [b"<c>"]]


@on_loop
async def test_only_the_row_that_ends_kernels_fails() -> None:
    dispatcher = start(kernel := Kernel())
    futures = [
        ask(dispatcher, "x"),
        ask(dispatcher, "a", "poison", "b"),
        ask(dispatcher, "poison"),
        ask(dispatcher, "c"),
    ]
    kernel = await work(dispatcher, kernel)
    assert [future.result() for future in futures] == [[b"<x>"], [b"<a>", b"", b"<b>"], [b""], [b"<c>"]]
    assert dispatcher.waiting == 0


async def work(dispatcher: Dispatcher, kernel: Kernel) -> Kernel:
    """Let a kernel answer all; a batch with poison in it ends it, and another one goes on."""
    while kernel.sent:
        if "poison" in kernel.holds()[0]:
            kernel = lose(dispatcher, kernel)
        else:
            answer(dispatcher, kernel)
        await settle()
    return kernel


@on_loop
async def test_a_cell_is_not_run_twice_and_its_caller_is_told() -> None:
    dispatcher = start(kernel := Kernel())
    futures = [dispatcher.ask_cell(b"PUT /x", b"{}", b"null") for _ in range(3)]
    another = lose(dispatcher, kernel)
    assert [future.exception().status for future in futures[:2]] == [503, 503]  # it had these two
    answer(dispatcher, another)
    assert futures[2].result() == (b"{}", b"info", b"v1")


@on_loop
async def test_rows_that_are_tried_again_keep_their_deadline() -> None:
    dispatcher = start(kernel := Kernel())
    future = ask(dispatcher, "a", "b")
    another = lose(dispatcher, kernel)
    answer(dispatcher, another)
    dispatcher.sweep(asyncio.get_running_loop().time() + 11)
    await settle()
    assert future.exception().status == 504
    assert dispatcher.waiting == 0


@on_loop
async def test_a_hung_kernel_that_is_lost_answers_for_what_is_not_late_yet() -> None:
    dispatcher = start(kernel := Kernel())
    late, loop = ask(dispatcher, "late"), asyncio.get_running_loop()
    dispatcher.seconds = 20.0
    young = ask(dispatcher, "young")
    assert dispatcher.sweep(loop.time() + 11) == []
    assert late.exception().status == 504
    another = lose(dispatcher, kernel)
    assert another.holds() == [["young"]]
    answer(dispatcher, another)
    await settle()
    assert young.result() == [b"<young>"]


# Whatever happens, everybody gets an answer, and it is theirs

ASKS = st.tuples(st.just("ask"), st.integers(1, 5) | st.just(2 * BATCH + 3), st.sampled_from([b"P", b"Q"]))
OTHERS = st.tuples(
    st.sampled_from(["cell", "take", "take", "take", "lose", "late", "cancel", "die", "born"]), st.integers(0, 7)
)


@given(st.lists(ASKS | OTHERS, max_size=40))
def test_nobody_is_left_waiting_whatever_happens_in_whatever_order(steps: list[tuple]) -> None:
    @on_loop
    async def go() -> None:
        dispatcher = start(Kernel(), Kernel(), most=100_000)
        asked: list[tuple[list[str] | bytes, asyncio.Future]] = []
        lost = 0
        for number, (what, *how) in enumerate(steps):
            wires = dispatcher.wires
            wire = wires[how[0] % len(wires)] if wires and what != "ask" else None
            if what == "ask":
                rows = [f"{number}-{n}" for n in range(how[0])]
                parts = dispatcher.ask_rows(how[1], b"{}", rows)
                asked += [(rows[n * BATCH : (n + 1) * BATCH], part) for n, part in enumerate(parts)]
            elif what == "cell":
                request = str(number).encode()
                asked.append((request, dispatcher.ask_cell(b"GET /", request, b"null")))
            elif what == "take" and wire and wire.sent:
                answer(dispatcher, wire)
            elif what == "lose" and wire:
                lose(dispatcher, wire)
                lost += 1
            elif what == "die" and wire:
                wire.sent.clear()
                dispatcher.lose(wire)
                lost += 1
            elif what == "born":
                dispatcher.wires.append(Kernel())
                dispatcher.pump()
            elif what == "late":
                dispatcher.sweep(LATER * (how[0] == 0))
            elif what == "cancel" and asked:
                asked[how[0] % len(asked)][1].cancel()
            if how[0] % 2:
                await settle()
            assert all(len(wire.in_flight) <= AHEAD for wire in dispatcher.wires)
        dispatcher.wires.append(Kernel())
        dispatcher.pump()
        while busy := [wire for wire in dispatcher.wires if wire.sent]:
            answer(dispatcher, busy[0])
        await settle()
        assert (dispatcher.waiting, len(dispatcher.groups)) == (0, 0)
        for own, future in asked:
            assert future.done()
            if not future.cancelled():
                check(own, future, lost)

    go()


def check(asked: list[str] | bytes, future: "asyncio.Future", lost: int) -> None:
    """Each answer is the caller's own: nothing, or a loss, where kernels were lost; 504 after the deadline."""
    if error := future.exception():
        assert error.status == 504 or (error.status == 503 and isinstance(asked, bytes) and lost)
    elif isinstance(asked, bytes):
        assert future.result() == (asked, b"info", b"v1")
    else:
        own = [f"<{row}>".encode() for row in asked]
        assert len(future.result()) == len(own)
        assert all(item == mine or (item == b"" and lost >= 2) for item, mine in zip(future.result(), own, strict=True))


@given(st.lists(st.lists(st.sampled_from(["good", "good", "poison"]), min_size=1, max_size=8), max_size=12))
def test_whatever_the_batches_exactly_the_poisonous_rows_fail(calls: list[list[str]]) -> None:
    @on_loop
    async def go() -> None:
        dispatcher = start(kernel := Kernel())
        futures = [ask(dispatcher, *rows) for rows in calls]
        await work(dispatcher, kernel)
        expected = [[b"" if row == "poison" else b"<good>" for row in rows] for rows in calls]
        assert [future.result() for future in futures] == expected

    go()
