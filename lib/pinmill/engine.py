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

from jupyter_core.utils import run_sync
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output
from papermill import execute_notebook
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from pinmill.errors import StageError
from pinmill.kernel import Kernel

ENGINE = "pinmill"
MODULES = "__import__('json').dumps([m for m in __import__('sys').modules if m.partition('.')[0] == 'pinmill'])"


@dataclass
class Execution:
    """One notebook's execution: what it needs, and what it leaves."""

    kernel: Kernel
    handover: dict[str, str]  # environment for the kernel: run id, inputs, lock
    seconds: float  # longest time for the whole notebook
    hide: Callable[[Any], Any]  # takes secrets out of text, lists and mappings
    tick: Callable[[int, int], None]  # told (cells done, cells in all)
    modules: list[str] = field(default_factory=list)  # pinmill modules the kernel had imported at its end


class Client(PapermillNotebookClient):
    """papermill's client for a kernel that runs already."""

    def __init__(self, nb_man, execution: Execution, **kw) -> None:
        super().__init__(nb_man, km=execution.kernel.manager, coalesce_streams=True, **kw)
        self.execution = execution
        self.deadline = time.monotonic() + execution.seconds
        self.timeout_func = lambda cell: max(self.deadline - time.monotonic(), 0.001)

    async def async_connect(self) -> None:
        """Connect to the kernel, and wait until it answers on both channels that a cell needs.

        As jupyter_client's `wait_for_ready`, without the 0.2 s that it listens on afterwards: what comes late has
        another parent than any cell, so nbclient passes over it. Raises DeadKernelError.
        """
        self.kc = self.km.client()
        self.kc.start_channels()
        self.kc.allow_stdin = False
        deadline = time.monotonic() + self.startup_timeout
        while time.monotonic() < deadline and await self.km.is_alive():
            self.kc.kernel_info()
            with suppress(Empty):
                await self.kc.shell_channel.get_msg(timeout=1)
                await self.kc.iopub_channel.get_msg(timeout=0.2)
                return
        raise DeadKernelError("it ended, or did not answer in time, before its first cell")

    connect = run_sync(async_connect)

    def papermill_execute_cells(self) -> None:
        """Run all cells; a dead or hung kernel is written into its cell as an error, and later cells stay pending."""
        self.ask(f"__import__('os').environ.update({self.execution.handover!r})")
        for index, cell in enumerate(self.nb.cells):
            self.nb_man.cell_start(cell, index)
            error = self.run_cell(cell, index)
            if error is not None:
                self.nb_man.cell_exception(cell, cell_index=index, exception=error)
            self.nb_man.cell_complete(cell, cell_index=index)
            self.execution.tick(index + 1, len(self.nb.cells))
            if error is not None:
                return
        self.execution.modules += json.loads(self.ask(MODULES))

    def run_cell(self, cell: NotebookNode, index: int) -> Exception | None:
        """Run one cell; the exception when it failed. Its outputs are free of secrets afterwards."""
        try:
            self.execute_cell(cell, index)
        except CellExecutionError as error:
            return error
        except DeadKernelError as error:
            cell.outputs.append(new_output("error", ename="DeadKernelError", evalue=DEAD, traceback=[DEAD]))
            return error
        except CellTimeoutError as error:
            text = f"the stage took longer than {self.execution.seconds:g} s (run: timeout in the params file)"
            cell.outputs.append(new_output("error", ename="TimeoutError", evalue=text, traceback=[text]))
            return error
        finally:
            if cell.cell_type == "code":
                cell.outputs = [NotebookNode(self.execution.hide(output)) for output in cell.outputs]
        return None

    def ask(self, expression: str) -> str:
        """The value of a text expression in the kernel, outside the notebook's history."""
        reply = self.wait_for_reply(
            self.kc.execute("", silent=True, store_history=False, user_expressions={"value": expression})
        )
        value = reply["content"]["user_expressions"]["value"]
        return ast.literal_eval(value["data"]["text/plain"])


DEAD = "the kernel died: killed by the system (out of memory?) or by a signal"


class Engine(NBClientEngine):
    """Runs the notebook in the kernel of the `execution` that is handed to papermill."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, execution: Execution, **kwargs) -> None:
        client = Client(nb_man, execution, startup_timeout=120, kernel_name=kernel_name)
        client.reset_execution_trackers()
        try:
            client.connect()
            client.papermill_execute_cells()
        finally:
            client.kc.stop_channels()


def run_notebook(source: Path, target: Path, *, parameters: dict[str, Any], cwd: Path, execution: Execution) -> None:
    """Run a notebook to its end and write it, executed, to `target`; on failure too, as far as it came.

    Raises StageError that names the cell, the error and the executed notebook.
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
        raise StageError(f"{place}: {error.ename}: {error.evalue}\n{quote(error.source)}") from None
    except (DeadKernelError, RuntimeError) as error:  # before its first cell, or after its last
        raise StageError(f"{DEAD} ({error})") from None
    if (index := find_unfinished(notebook)) is not None:
        source = quote(notebook.cells[index].source)
        raise StageError(f"cell {index + 1} ended the kernel (sys.exit?), so later cells did not run\n{source}")


def find_unfinished(notebook: NotebookNode) -> int | None:
    """The first code cell that ended in an error or did not run; papermill takes sys.exit(0) for success."""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and cell.source.strip():
            failed = any(output.output_type == "error" for output in cell.outputs)
            if failed or not cell.execution_count:
                return index
    return None


def quote(source: str) -> str:
    """The first lines of a cell, indented, for an error message."""
    lines = source.splitlines()
    return "\n".join(f"    {line}" for line in lines[:8]) + ("\n    …" if len(lines) > 8 else "")
