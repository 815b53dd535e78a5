"""The kernels behind the gateway: started, seeded with the notebook, watched, and replaced when they die or hang."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import zmq

from pinmill.dispatch import Batch, Dispatcher
from pinmill.errors import PinmillError, RunError
from pinmill.kernel import Kernel
from pinmill.seed import BOOT_SECONDS, Seed, seed_kernel, start_serving
from pinmill.worker import CELLS, NEWS

LOOK = 0.05  # s between two looks at deadlines and processes
LONGEST_PAUSE = 30.0  # s between two tries to start a kernel that does not start
AFTER_A_DEFECT = 1.0  # s: whatever it is, it fills neither the log nor a core


@dataclass(eq=False)
class Link:
    """One kernel as the gateway sees it, with its sockets on the event loop."""

    kernel: Kernel
    context: zmq.Context
    take: Callable[["Link", bytes, list[bytes]], None]
    hear: Callable[["Link", str, dict[str, Any]], None]
    in_flight: "OrderedDict[bytes, Batch]" = field(default_factory=OrderedDict)
    busy_since: float = 0.0
    loaded: set[str] = field(default_factory=set)

    def open(self) -> None:
        """Bind the sockets, and listen on them."""
        self.socket, self.news = self.context.socket(zmq.PAIR), self.context.socket(zmq.PULL)
        for socket, name in ((self.socket, CELLS), (self.news, NEWS)):
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind(f"ipc://{self.kernel.folder / name}")
            asyncio.get_running_loop().add_reader(socket.FD, self.read)

    def read(self) -> None:
        """Take everything that has arrived: ZMQ tells only once that there is something."""
        while not self.socket.closed and self.socket.EVENTS & zmq.POLLIN:
            number, *frames = self.socket.recv_multipart(zmq.NOBLOCK)
            self.take(self, number, frames)
        while not self.news.closed and self.news.EVENTS & zmq.POLLIN:
            what, value = self.news.recv_multipart(zmq.NOBLOCK)
            self.hear(self, what.decode(), json.loads(value))

    def send(self, frames: Sequence[bytes]) -> None:
        """Send frames to the kernel; nothing happens where it is gone."""
        if self.socket.closed:  # it died just now: who waits for it is told by whoever watches it
            return
        try:
            self.socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:  # it died, and nobody has seen it yet
            return
        if self.socket.EVENTS & zmq.POLLIN:  # sending may have swallowed the sign that something arrived
            asyncio.get_running_loop().call_soon(self.read)

    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.kernel.manager.provisioner.process.poll() is None

    def close(self) -> None:
        """Stop listening; the kernel itself is ended elsewhere, as that takes a moment."""
        for socket in (self.socket, self.news):
            if not socket.closed:
                asyncio.get_running_loop().remove_reader(socket.FD)
                socket.close()


class Pool:
    """As many kernels as were asked for, whatever happens to them."""

    def __init__(self, seed: Seed, count: int, dispatcher: Dispatcher, say: Callable[[str], None]) -> None:
        self.seed, self.count, self.dispatcher, self.say = seed, count, dispatcher, say
        self.ahead: list[Kernel] = []  # started already
        self.links: list[Link] = []  # that answer
        self.version: str | None = None  # that every kernel is to serve
        self.problem = "no kernel has started yet"  # why none can answer
        self.restarts = 0
        self.ready = asyncio.Event()  # set whenever a kernel becomes ready
        self.began, self.fatal, self.hopeless = False, "", asyncio.Event()  # whether any kernel ever got ready
        self.tasks: list[asyncio.Task] = []
        self.waits: dict[tuple[Link, str], asyncio.Future[dict[str, Any]]] = {}
        self.context = zmq.Context()
        self.threads = ThreadPoolExecutor(2 * count)  # for each kernel one that seeds it, and one that may end it then
        self.cells = json.dumps([{"name": e.name, "source": e.source, "info": e.info} for e in seed.endpoints]).encode()

    @property
    def is_replacing(self) -> bool:
        """Whether a new kernel is on its way and likely to serve: what is asked meanwhile waits for it."""
        return self.began and not self.problem

    def start(self) -> None:
        """Begin to start the kernels; returns at once."""
        self.tasks = [asyncio.create_task(self.go_on(act)) for act in [self.keep] * self.count + [self.watch]]

    async def stop(self) -> None:
        """End all kernels."""
        for task in self.tasks:
            task.cancel()
        ends = [self.abandon(kernel, None) for kernel in self.ahead]
        await asyncio.gather(*self.tasks, *ends, return_exceptions=True)
        self.context.destroy(linger=0)
        self.threads.shutdown(wait=False)

    def in_thread(self, function: Callable[..., Any], *given: Any) -> "asyncio.Future[Any]":
        """What a function returns that blocks, from a thread of our own, in the thread's own context.

        In a copy of ours, as asyncio.to_thread has it, jupyter_client would run its coroutines on one loop in all
        threads; and in the threads of the event loop kernels that start would keep those waiting that read the board.
        """
        return asyncio.get_running_loop().run_in_executor(self.threads, function, *given)

    async def go_on(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do something for ever, also after a defect: without it the service would lose its kernels one by one."""
        while True:
            try:
                await act()
            except Exception as error:
                self.say(f"a defect of the pool: {type(error).__name__}: {error}")
            await asyncio.sleep(AFTER_A_DEFECT)

    async def keep(self) -> None:
        """One kernel, started again whenever it ends, with longer pauses when it does not even start."""
        pause = 0.0
        while True:
            await asyncio.sleep(pause)
            link = await self.boot()
            if link is None and not self.began:
                self.fatal = self.problem
                self.hopeless.set()
            if link is None:
                pause = min(LONGEST_PAUSE, 2 * pause + 1)
                continue
            pause = 0.0
            try:
                while link in self.links:
                    await asyncio.sleep(LOOK)
            finally:
                await self.abandon(link.kernel, link)
            self.restarts += 1

    async def boot(self) -> Link | None:
        """A kernel that answers; None, with `problem` saying why, when it does not start."""
        seed, kernel, link = self.seed, None, None
        try:
            kernel = await self.launch()
            link = Link(kernel, self.context, self.take, self.hear)
            link.open()
            hello, compiled = self.expect(link, "hello"), self.expect(link, "compiled")
            await self.in_thread(seed_kernel, kernel, seed, self.dispatcher.seconds)
            found = await self.hear_of(link, hello)
            link.send([b"cells", b"", self.cells])
            if problem := (await self.hear_of(link, compiled))["problem"]:
                raise RunError(problem)
            await self.prepare(link, found)
        except Exception as error:  # whatever it is: who gave up here would leave the service without this kernel
            self.problem = str(error) if isinstance(error, PinmillError) else f"{type(error).__name__}: {error}"
            self.say(f"a kernel did not start: {self.problem}")
            await self.abandon(kernel, link)
            return None
        except BaseException:
            await self.abandon(kernel, link)
            raise
        self.links.append(link)
        self.dispatcher.wires.append(link)
        self.dispatcher.pump()
        self.began = True
        self.ready.set()
        return link

    async def launch(self) -> Kernel:
        """A kernel's process; ended again when the service ends meanwhile."""
        if self.ahead:
            return self.ahead.pop()
        seed = self.seed
        starting = self.in_thread(start_serving, seed.root, seed.settings, seed.notebook)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            await self.abandon(await starting, None)
            raise

    async def abandon(self, kernel: Kernel | None, link: Link | None) -> None:
        """End a kernel; one that does not end so is told of, and nobody waits for it."""
        if link:
            self.forget(link)
        try:
            if kernel:
                await self.in_thread(kernel.stop)
        except Exception as error:
            self.say(f"a kernel could not be ended: {type(error).__name__}: {error}")

    async def prepare(self, link: Link, hello: Mapping[str, Any]) -> None:
        """Make a new kernel serve what the others serve; the first says itself what it found."""
        link.loaded.update({hello["version"]} - {None})
        self.version, chosen = self.version or hello["version"], hello["version"]
        while chosen != self.version:  # which may change while it is loaded
            chosen = self.version
            await self.load_on(link, chosen)
            link.send([b"choose", b"", chosen.encode()])
        self.problem = "" if self.version else hello["problem"]

    def expect(self, link: Link, what: str) -> "asyncio.Future[dict[str, Any]]":
        """What a kernel will tell under a name."""
        return self.waits.setdefault((link, what), asyncio.get_running_loop().create_future())

    async def hear_of(self, link: Link, news: "asyncio.Future[dict[str, Any]]") -> dict[str, Any]:
        """What a kernel tells, once it does. Raises RunError when it ends first, or takes too long."""
        for _ in range(int(BOOT_SECONDS / LOOK)):
            done, _ = await asyncio.wait([news], timeout=LOOK)
            if done:
                return news.result()
            if not link.is_alive():
                raise RunError(f"the kernel of {self.seed.notebook} ended before it could answer.")
        raise RunError(f"the kernel of {self.seed.notebook} did not get ready within {BOOT_SECONDS:g} s.")

    async def load_on(self, link: Link, version: str) -> None:
        """Let a kernel load a model version beside its work. Raises RunError when that fails."""
        if version in link.loaded:
            return
        news = self.waits.get((link, version))
        if news is None:
            news = self.expect(link, version)
            link.send([b"load", b"", version.encode()])
        if problem := (await self.hear_of(link, news))["problem"]:
            raise RunError(problem)

    def holds(self, version: str) -> bool:
        """Whether all kernels have a model version loaded."""
        return all(version in link.loaded for link in self.links)

    async def load(self, version: str, *, anew: bool = False) -> None:
        """Let all kernels load a model version; `anew`: ask also those that had it, and may have let go of it.

        Raises RunError when one cannot; one that ends meanwhile does not count.
        """
        for link in self.links if anew else []:
            link.loaded.discard(version)
        while lacking := [link for link in self.links if version not in link.loaded]:
            done = await asyncio.gather(*(self.load_on(link, version) for link in lacking), return_exceptions=True)
            for link, failed in zip(lacking, done, strict=True):
                if failed and link.is_alive():
                    raise failed
            if any(done):
                await asyncio.sleep(LOOK)  # until it is seen which one ended

    def choose(self, version: str) -> None:
        """From now on the cells speak of `version`, which all kernels have loaded."""
        self.version, self.problem = version, ""
        for link in self.links:
            link.send([b"choose", b"", version.encode()])

    def take(self, link: Link, number: bytes, frames: list[bytes]) -> None:
        """Pass an answer on to the dispatcher."""
        self.dispatcher.take(link, number, *frames)

    def hear(self, link: Link, what: str, value: dict[str, Any]) -> None:
        """Pass on what a kernel tells to whoever waits for it, and know which versions it holds."""
        if what == "loaded":
            link.loaded = set(value["held"])
        news = self.waits.pop((link, value["version"] if what == "loaded" else what), None)
        if news and not news.done():
            news.set_result(value)

    def forget(self, link: Link) -> None:
        """Ask nothing more of a kernel; what was asked of it is answered or asked again elsewhere."""
        if link in self.links:
            self.links.remove(link)
        link.close()
        self.waits = {key: news for key, news in self.waits.items() if key[0] is not link}
        self.dispatcher.lose(link)

    async def watch(self) -> None:
        """Look at deadlines and processes, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK)
            hung = self.dispatcher.sweep(loop.time())
            for link in list(self.links):
                if link in hung or not link.is_alive():
                    self.say(f"a kernel {'hangs' if link in hung else 'died'} and is replaced")
                    self.forget(link)
