"""What each cell costs beyond its own work: 200 and 20 trivial cells under our engine, beside papermill's default.

The cost of a cell is the slope between the two notebooks, (t200 - t20) / 180, so that starting a kernel does not
count; the cells' own work, run in this process, is taken off. Each time is the best of the rounds, as whoever else
works on the machine can only add to it.
Target: <= 4 ms per cell.

Run: .venv/bin/python tests/benchmarks/cells.py [--rounds 5]
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from papermill import execute_notebook
from pinmill.engine import Execution, run_notebook
from pinmill.kernel import start_kernel

FEW, MANY = 20, 200
TARGET = 4.0  # ms
SOURCE = "value = sum(range(10))\nvalue"


def write_notebook(folder: Path, cells: int) -> Path:
    """A notebook of that many trivial cells, each with one output."""
    path = folder / f"{cells}.ipynb"
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=[new_code_cell(SOURCE) for _ in range(cells)], metadata={"kernelspec": spec})
    nbformat.write(notebook, path)
    return path


def time_pinmill(path: Path) -> float:
    """Seconds that our engine takes for a notebook, in a kernel that was started ahead: the second time it runs it."""
    kernel = start_kernel(path.parent, os.environ, imports="")
    execution = Execution(
        kernel=kernel, handover={}, seconds=600, hide=lambda value: value, tick=lambda done, total: None
    )
    try:
        for _ in range(2):  # the first time waits for the kernel to boot, which is as noisy as all cells together
            clock = time.perf_counter()
            run_notebook(path, path.with_suffix(".out.ipynb"), parameters={}, cwd=path.parent, execution=execution)
        return time.perf_counter() - clock
    finally:
        kernel.stop()


def time_papermill(path: Path) -> float:
    """Seconds that papermill takes as it comes, with its own kernel."""
    clock = time.perf_counter()
    execute_notebook(path, path.with_suffix(".out.ipynb"), cwd=path.parent, progress_bar=False)
    return time.perf_counter() - clock


def time_plain(path: Path) -> float:
    """Seconds that the cells take by themselves."""
    sources = [cell.source for cell in nbformat.read(path, 4).cells]
    clock = time.perf_counter()
    for source in sources:
        exec(compile(source, "cell", "exec"), {})
    return time.perf_counter() - clock


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    logging.getLogger("papermill").setLevel(logging.ERROR)
    ways = {"plain": time_plain, "pinmill": time_pinmill, "papermill": time_papermill}
    best = {way: (float("inf"), float("inf")) for way in ways}
    with tempfile.TemporaryDirectory(prefix="cells-") as name:
        few, many = write_notebook(Path(name), FEW), write_notebook(Path(name), MANY)
        for number in range(rounds):
            for way, run in ways.items():
                best[way] = min(best[way][0], run(few)), min(best[way][1], run(many))
            shown = ", ".join(f"{way} {short:.3f} and {long:.3f} s" for way, (short, long) in best.items())
            print(f"best after round {number + 1}: {shown}", flush=True)
    costs = {way: (long - short) / (MANY - FEW) * 1000 for way, (short, long) in best.items()}
    own, ours, theirs = costs["plain"], costs["pinmill"] - costs["plain"], costs["papermill"] - costs["plain"]
    met = ours <= TARGET
    print(
        f"own work {own:.3f} ms per cell; papermill over it: {theirs:.2f} ms; pinmill / papermill {ours / theirs:.2f}"
    )
    print(f"pinmill: {ours:.2f} ms per cell over its own work (target <= {TARGET:g}) {'ok' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
