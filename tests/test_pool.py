"""The gateway's side of its kernels, which are played: what it knows of them, its threads, and what ends none of it."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from pinmill import pool as pool_module
from pinmill.dispatch import Dispatcher
from pinmill.errors import RunError
from pinmill.pool import Link, Pool
from pinmill.seed import Seed


class Kernel:
    """A kernel's process that lives until it is killed; `stop` may raise."""

    def __init__(self, problem: str = "") -> None:
        self.problem, self.code, self.stopped = problem, None, 0
        self.manager = SimpleNamespace(provisioner=SimpleNamespace(process=SimpleNamespace(poll=lambda: self.code)))

    def kill(self) -> None:
        self.code = -9

    def stop(self) -> None:
        self.stopped += 1
        if self.problem:
            raise OSError(self.problem)


class Played(Link):
    """A link without sockets; what is sent can be had in order."""

    def __init__(self, pool: Pool, kernel: Kernel) -> None:
        super().__init__(kernel, pool.context, pool.take, pool.hear)
        self.sent: asyncio.Queue[list[bytes]] = asyncio.Queue()

    def send(self, frames: list[bytes]) -> None:
        self.sent.put_nowait(frames)

    def close(self) -> None:
        pass


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Pool]:
    """A function that makes a pool of so many kernels; `said` is what it says."""

    def make_pool(count: int = 1) -> Pool:
        said: list[str] = []
        pool = Pool(Seed(tmp_path, {}, "w", "serve.ipynb", (), ()), count, Dispatcher(10.0, 1000), said.append)
        pool.said = said
        return pool

    return make_pool


def play(pool: Pool, monkeypatch: pytest.MonkeyPatch, *problems: str) -> list[Kernel]:
    """Let a pool's kernels be played, the first of which cannot be ended for these reasons; they are added as made."""
    kernels: list[Kernel] = []

    async def boot() -> Link:
        number = len(kernels)
        kernels.append(Kernel(problems[number] if number < len(problems) else ""))
        link = Played(pool, kernels[-1])
        pool.links.append(link)
        pool.ready.set()
        return link

    monkeypatch.setattr(pool, "boot", boot)
    return kernels


async def wait_for_another(pool: Pool) -> None:
    pool.ready.clear()
    await asyncio.wait_for(pool.ready.wait(), 20)


def test_a_version_that_a_kernel_let_go_of_is_loaded_again_beside_its_work(make) -> None:
    async def go() -> None:
        pool = make()
        link = Played(pool, Kernel())
        pool.links.append(link)
        for version, held in (("a", ["a"]), ("b", ["a", "b"]), ("c", ["b", "c"])):
            loading = asyncio.create_task(pool.load(version))
            assert await asyncio.wait_for(link.sent.get(), 20) == [b"load", b"", version.encode()]
            pool.hear(link, "loaded", {"version": version, "problem": "", "held": held})
            await loading
        assert [pool.holds(version) for version in "abc"] == [False, True, True]
        await pool.load("c")
        assert link.sent.empty()  # it is there
        loading = asyncio.create_task(pool.load("a"))
        assert await asyncio.wait_for(link.sent.get(), 20) == [b"load", b"", b"a"]
        pool.hear(link, "loaded", {"version": "a", "problem": "a is damaged", "held": ["c"]})
        with pytest.raises(RunError, match="a is damaged"):
            await loading
        assert link.loaded == {"c"}
        await pool.stop()

    asyncio.run(go())


def test_kernels_that_start_keep_nobody_waiting_for_a_thread(make, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(4, timeout=20)

    def start(*_: object) -> Kernel:
        together.wait()
        return Kernel()

    monkeypatch.setattr(pool_module, "start_serving", start)

    async def go() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        pool = make(3)
        pool.start()
        await asyncio.to_thread(together.wait)
        await pool.stop()
        with pytest.raises(RuntimeError, match="shutdown"):
            pool.in_thread(print)

    asyncio.run(go())


def test_a_kernel_that_cannot_be_ended_is_replaced_all_the_same(make, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        pool = make()
        kernels = play(pool, monkeypatch, "no such process")
        pool.start()
        await wait_for_another(pool)
        kernels[0].kill()
        await wait_for_another(pool)
        assert [kernel.stopped for kernel in kernels] == [1, 0]
        await pool.stop()
        assert [kernel.stopped for kernel in kernels] == [1, 1]
        assert pool.said == ["a kernel died and is replaced", "a kernel could not be ended: OSError: no such process"]

    asyncio.run(go())


def test_a_defect_while_looking_is_said_and_the_looking_goes_on(make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "AFTER_A_DEFECT", 0.01)

    async def go() -> None:
        pool, failed = make(), asyncio.Event()
        kernels, sweep = play(pool, monkeypatch), pool.dispatcher.sweep

        def fail_once(now: float) -> list:
            if not failed.is_set():
                failed.set()
                raise KeyError("unforeseen")
            return sweep(now)

        monkeypatch.setattr(pool.dispatcher, "sweep", fail_once)
        pool.start()
        await asyncio.wait_for(failed.wait(), 20)
        kernels[0].kill()
        await wait_for_another(pool)
        assert pool.said == ["a defect of the pool: KeyError: 'unforeseen'", "a kernel died and is replaced"]
        await pool.stop()

    asyncio.run(go())
