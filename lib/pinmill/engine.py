"""A papermill engine that runs a notebook in a kernel started ahead, and tells the truth about how it ended.

Importing this takes two seconds (papermill): the runner does it while its first kernel boots.
"""

import ast
import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

import zmq
from jupyter_core.utils import run_sync
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output
from papermill import execute_notebook
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from pinmill.errors import StageError, StageOutsideError
from pinmill.kernel import Kernel

ENGINE = "pinmill"
BOOT_SECONDS = 120  # a kernel that imports much, on a busy machine
DEAD = "the kernel died: killed by the system (out of memory?) or by a signal"
OUTSIDE = "__import__('pinmill.outage').outage.is_outage(__import__('sys').last_value)"  # set by every traceback
FILES = "{n: str(getattr(m, '__dict__', {}).get('__file__')) for n, m in list(__import__('sys').modules.items())}"


@dataclass
class Execution:
    """One notebook's execution: what it needs, and what it leaves."""

    kernel: Kernel
    handover: dict[str, str]  # environment for the kernel: run id, inputs, lock
    seconds: float  # longest time for the whole notebook
    hide: Callable[[Any], Any]  # takes secrets out of text, lists and mappings
    tick: Callable[[int, int], None]  # told (cells done, cells in all)
    files: dict[str, str] = field(default_factory=dict)  # of the modules that the kernel had imported at its end
    is_outage: bool = False  # whether a cell raised what came from outside


class Client(PapermillNotebookClient):
    """papermill's client for a kernel that runs already, without an event loop: a cell costs a third less so."""

    def __init__(self, nb_man, execution: Execution) -> None:
        super().__init__(nb_man, km=execution.kernel.manager, record_timing=False)
        self.execution = execution
        self.deadline = time.monotonic() + execution.seconds
        self.kc = self.km.blocking_client()
        self.poller = zmq.Poller()

    def connect(self) -> None:
        """Wait until the kernel answers on both channels that a cell needs. Raises DeadKernelError."""
        self.kc.start_channels(stdin=False, hb=False)
        deadline = time.monotonic() + BOOT_SECONDS
        for channel in (self.kc.shell_channel, self.kc.iopub_channel):
            self.poller.register(channel.socket, zmq.POLLIN)
        while time.monotonic() < deadline and self.is_alive():
            self.kc.kernel_info()
            with suppress(Empty):
                self.kc.get_shell_msg(timeout=1)
                self.kc.get_iopub_msg(timeout=0.2)
                return
        raise DeadKernelError("it ended, or did not answer in time, before its first cell")

    def is_alive(self) -> bool:
        return run_sync(self.km.is_alive)()

    def papermill_execute_cells(self) -> None:
        """Run all cells; a dead or hung kernel is written into its cell as an error, and later cells stay pending."""
        self.ask(f"__import__('os').environ.update({self.execution.handover!r})")
        for index, cell in enumerate(self.nb.cells):
            self.nb_man.cell_start(cell, index)
            if error := self.run_cell(cell, index):
                self.nb_man.cell_exception(cell, cell_index=index, exception=error)
            self.nb_man.cell_complete(cell, cell_index=index)
            self.execution.tick(index + 1, len(self.nb.cells))
            if error:
                return
        self.execution.files.update(json.loads(self.ask(f"__import__('json').dumps({FILES})")))

    def run_cell(self, cell: NotebookNode, index: int) -> Exception | None:
        """Run one cell; the exception when it failed. Its outputs are free of secrets afterwards."""
        if cell.cell_type != "code" or not cell.source.strip():
            return None
        cell.outputs, self.clear_before_next_output = [], False
        may_fail = "raises-exception" in cell.metadata.get("tags", [])
        try:
            message = self.kc.execute(cell.source, stop_on_error=not may_fail)
            reply = self.collect(message, lambda found: self.process_message(found, cell, index))["content"]
            if reply["status"] != "error" or may_fail:
                return None
            with suppress(KeyError, DeadKernelError, TimeoutError):  # one that cannot answer any more
                self.execution.is_outage = self.ask(OUTSIDE)
            return CellExecutionError.from_cell_and_msg(cell, reply)
        except (DeadKernelError, TimeoutError) as error:
            cell.outputs.append(new_output("error", ename=type(error).__name__, evalue=str(error), traceback=[]))
            return error
        finally:
            cell.outputs = [NotebookNode(self.execution.hide(output)) for output in join_streams(cell.outputs)]

    def collect(self, message: str, process: Callable[[dict], Any]) -> dict:
        """The kernel's reply to a message, after all it had to show for it. Raises DeadKernelError or TimeoutError."""
        reply, idle = None, False
        while reply is None or not idle:
            left = self.deadline - time.monotonic()
            if left <= 0:
                limit = f"{self.execution.seconds:g} s (run: timeout in the params file)"
                raise TimeoutError(f"the stage took longer than {limit}")
            ready = dict(self.poller.poll(min(1000, left * 1000)))
            if not ready and not self.is_alive():
                raise DeadKernelError(DEAD)
            for socket in ready:
                _, found = self.kc.session.recv(socket)
                if found["parent_header"].get("msg_id") != message:
                    continue
                if socket is self.kc.shell_channel.socket:
                    reply = found
                elif found["content"].get("execution_state") == "idle":
                    idle = True
                else:
                    process(found)
        return reply

    def ask(self, expression: str) -> Any:
        """The value of an expression in the kernel, outside the notebook's history."""
        message = self.kc.execute("", silent=True, store_history=False, user_expressions={"value": expression})
        reply = self.collect(message, lambda found: None)
        return ast.literal_eval(reply["content"]["user_expressions"]["value"]["data"]["text/plain"])


def join_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs, with neighbours of the same stream as one: a secret may be printed in two parts."""
    joined: list[NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == "stream" == joined[-1].output_type and output.name == joined[-1].name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


class Engine(NBClientEngine):
    """Runs the notebook in the kernel of the `execution` that is handed to papermill."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, execution: Execution, **kwargs) -> None:
        """Run a notebook that papermill has opened; `nb_man` writes it. Raises DeadKernelError."""
        client = Client(nb_man, execution)
        try:
            client.connect()
            client.papermill_execute_cells()
        finally:
            client.kc.stop_channels()


def run_notebook(source: Path, target: Path, *, parameters: dict[str, Any], cwd: Path, execution: Execution) -> None:
    """Run a notebook and write it, executed as far as it came, to `target`.

    Raises StageError that names the cell, StageOutsideError where that cell raised what came from outside.
    """
    logging.getLogger("papermill").setLevel(logging.ERROR)
    papermill_engines.register(ENGINE, Engine)
    try:
        notebook = execute_notebook(
            source,
            str(target).replace("{", "{{").replace("}", "}}"),
            parameters=parameters,
            engine_name=ENGINE,
            kernel_name="python3",
            language="python",
            request_save_on_cell_execute=False,
            progress_bar=False,
            cwd=cwd,
            execution=execution,
        )
    except PapermillExecutionError as error:
        place = f"cell {error.cell_index + 1}"
        kind = StageOutsideError if execution.is_outage else StageError
        raise kind(f"{place}: {error.ename}: {error.evalue}\n{quote(error.source)}") from None
    except TimeoutError as error:
        raise StageError(f"before its first cell, or after its last: {error}") from None
    except (DeadKernelError, RuntimeError) as error:  # before its first cell, or after its last
        raise StageError(f"{DEAD} ({error})") from None
    if (index := find_unfinished(notebook)) is not None:
        source = quote(notebook.cells[index].source)
        raise StageError(f"cell {index + 1} ended the kernel (sys.exit?), so later cells did not run\n{source}")


def find_unfinished(notebook: NotebookNode) -> int | None:
    """The first code cell that ended in an error or did not run; papermill takes sys.exit(0) for success."""
    for index, cell in enumerate(notebook.cells):
        failed = any(output.output_type == "error" for output in cell.get("outputs", []))
        if cell.cell_type == "code" and cell.source.strip() and (failed or not cell.execution_count):
            return index
    return None


def quote(source: str) -> str:
    """The first lines of a cell, indented, for an error message."""
    lines = source.splitlines()
    return "\n".join(f"    {line}" for line in lines[:8]) + ("\n    …" if len(lines) > 8 else "")
