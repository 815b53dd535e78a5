"""What a run costs beyond the cells' own work: `pinmill run electronics` against four plain `papermill` commands.

Each of the three ways starts from nothing, in a fresh copy of the project, and they take turns within a round:
  plain      the notebooks' code cells one after the other in one Python process, without Jupyter
  papermill  `papermill notebooks/NN.ipynb … -f params/electronics.yaml`, four times
  pinmill    `pinmill run electronics`, which also keeps records, moves the champion and renders the card
Overhead is wall time minus that of plain in the same round.
Target: overhead of pinmill / overhead of papermill <= 0.35 (medians over the rounds).

Run: .venv/bin/python tests/benchmarks/overhead.py [--rounds 5]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
DATA = os.environ.get("PINMILL_TEST_DATA") or os.environ.get("PINMILL_DATA") or str(ROOT.parent / "shared" / "data")
WORKFLOW = "electronics"
TARGET = 0.35


def copy_project(folder: Path) -> None:
    """The parts of the project that a run needs, and nothing that an earlier run left."""
    for part in ("notebooks", "params"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy(ROOT / "requirements.lock", folder)


def execute_plainly(folder: Path) -> None:
    """The code cells of all stages, in this process. The workflow's name is injected as papermill would do it;
    everything else comes from the params file."""
    for stem in stage_stems(folder):
        names = {"__name__": "__main__", "In": []}
        for cell in json.loads((folder / "notebooks" / f"{stem}.ipynb").read_text(encoding="utf-8"))["cells"]:
            sources = ["".join(cell["source"])] if cell["cell_type"] == "code" else []
            if "parameters" in cell["metadata"].get("tags", []):
                sources.append(f"# Parameters\nworkflow = {WORKFLOW!r}\n")
            for source in sources:
                names["In"].append(source)
                exec(compile(source, f"{stem}, cell {len(names['In'])}", "exec"), names)


def stage_stems(folder: Path) -> list[str]:
    """The stages that the train job takes, without a notebook that stands in for another."""
    from pinmill.notebook import order_stages, read_stages

    return [stage.stem for stage in order_stages(read_stages(folder / "notebooks"), "train")]


def measure(way: str, stems: list[str]) -> tuple[float, float]:
    """Wall and processor time of one way, with its children, in a fresh copy of the project [s]."""
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        folder = Path(name)
        copy_project(folder)
        (folder / "executed").mkdir()
        params = ["-f", f"params/{WORKFLOW}.yaml"]
        commands = {
            "plain": [[sys.executable, __file__, "--plain", str(folder)]],
            "papermill": [
                [BIN / "papermill", "--no-progress-bar", f"notebooks/{stem}.ipynb", f"executed/{stem}.ipynb", *params]
                for stem in stems
            ],
            "pinmill": [[BIN / "pinmill", "run", WORKFLOW]],
        }[way]
        environment = {**os.environ, "PINMILL_DATA": DATA, "PINMILL_HOME": name, "MPLBACKEND": "agg"}
        if way != "plain":
            environment.pop("MPLBACKEND")
        before, clock = os.times(), time.perf_counter()
        for command in commands:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{way} failed (exit {done.returncode}):\n{done.stdout}\n{done.stderr}")
        seconds, after = time.perf_counter() - clock, os.times()
        busy = after.children_user + after.children_system - before.children_user - before.children_system
        return seconds, busy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.plain:
        execute_plainly(given.plain)
        return 0
    ways = ["plain", "papermill", "pinmill"]
    wall: dict[str, list[float]] = {way: [] for way in ways}
    busy: dict[str, list[float]] = {way: [] for way in ways}
    stems = stage_stems(ROOT)
    for number in range(given.rounds):
        for way in ways[number % 3 :] + ways[: number % 3]:
            seconds, processor = measure(way, stems)
            wall[way].append(seconds)
            busy[way].append(processor)
        shown = ", ".join(f"{way} {wall[way][-1]:.2f} s (cpu {busy[way][-1]:.2f})" for way in ways)
        print(f"round {number + 1}: {shown}", flush=True)
    over = {way: [t - p for t, p in zip(wall[way], wall["plain"], strict=True)] for way in ways[1:]}
    for way in ways:
        more = f", overhead {median(over[way]):6.2f} s" if way in over else ""
        print(f"{way:<10} median {median(wall[way]):6.2f} s, cpu {median(busy[way]):6.2f} s{more}")
    extra = {way: median(b - p for b, p in zip(busy[way], busy["plain"], strict=True)) for way in ways[1:]}
    print(f"whole command, pinmill / papermill: {median(wall['pinmill']) / median(wall['papermill']):.2f}")
    print(f"processor time over plain, pinmill / papermill: {extra['pinmill'] / extra['papermill']:.2f}")
    if median(over["papermill"]) <= 0:
        print("papermill shows no overhead: this machine is too busy to tell. Run again")
        return 1
    ratio = median(over["pinmill"]) / median(over["papermill"])
    print(f"overhead, pinmill / papermill: {ratio:.2f} (target <= {TARGET}) {'ok' if ratio <= TARGET else 'MISSED'}")
    return 0 if ratio <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
