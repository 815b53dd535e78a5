"""What `pinmill run electronics` costs when nothing changed, beside the no-op of DVC and Snakemake.

Whole commands, wall time, taking turns. The peers are installed in a temporary virtual environment and get a
pipeline of four steps that copy a file each; a peer that cannot be installed is left out, and the output says so.
Target: <= 0.5 s (median), every stage reused and no kernel started (nothing that could start one is imported).

Run: .venv/bin/python tests/benchmarks/unchanged.py [--rounds 9] [--peers FOLDER with a virtual environment]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
DATA = os.environ.get("PINMILL_TEST_DATA") or os.environ.get("PINMILL_DATA") or str(ROOT.parent / "shared" / "data")
WORKFLOW = "electronics"
TARGET = 0.5  # s
COPY = "cp {source} {target}"
STEPS = [("raw.txt", "1.txt"), ("1.txt", "2.txt"), ("2.txt", "3.txt"), ("3.txt", "4.txt")]


def call(command: list, folder: Path) -> subprocess.CompletedProcess:
    """Run a command to its end; the benchmark stops when it fails."""
    environment = {**os.environ, "PINMILL_DATA": DATA, "PINMILL_HOME": str(folder), "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command} failed (exit {done.returncode}):\n{done.stdout}\n{done.stderr}")
    return done


def install(peer: str, peers: Path) -> bool:
    """Whether the peer is in the virtual environment, by now."""
    if (peers / "bin" / peer).exists():
        return True
    if not (peers / "bin" / "python").exists():
        venv.create(peers, with_pip=True)
    command = [peers / "bin" / "python", "-m", "pip", "install", "-q", peer]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{peer} left out, it cannot be installed here: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return done.returncode == 0


def make_pinmill(folder: Path) -> list:
    """A project whose workflow has run once; the command."""
    for part in ("notebooks", "params"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy(ROOT / "requirements.lock", folder)
    return [BIN / "pinmill", "run", WORKFLOW]


def make_dvc(folder: Path, peers: Path) -> list:
    """A DVC project of four stages; the command."""
    stages = {
        f"step{number}": {"cmd": COPY.format(source=source, target=target), "deps": [source], "outs": [target]}
        for number, (source, target) in enumerate(STEPS)
    }
    (folder / "raw.txt").write_text("raw\n")
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    call([peers / "bin" / "dvc", "init", "--no-scm", "-q"], folder)
    return [peers / "bin" / "dvc", "repro", "-q"]


def make_snakemake(folder: Path, peers: Path) -> list:
    """A Snakemake workflow of four rules; the command."""
    rules = [f'rule all:\n    input: "{STEPS[-1][1]}"\n']
    for number, (source, target) in enumerate(STEPS):
        shell = COPY.format(source=source, target=target)
        rules.append(f'rule step{number}:\n    input: "{source}"\n    output: "{target}"\n    shell: "{shell}"\n')
    (folder / "raw.txt").write_text("raw\n")
    (folder / "Snakefile").write_text("\n".join(rules))
    return [peers / "bin" / "snakemake", "--cores", "1", "-q", "all"]


def check_reused(folder: Path) -> list[str]:
    """What contradicts that nothing ran: a stage that was not reused, or a module that could start a kernel."""
    traced = call([sys.executable, "-X", "importtime", BIN / "pinmill", "run", WORKFLOW], folder)
    imported = {line.rpartition("|")[2].strip() for line in traced.stderr.splitlines()}
    runs = sorted((folder / "outputs" / "runs" / WORKFLOW).glob("*/run.json"))
    stages = json.loads(runs[-1].read_text())["stages"]
    problems = [f"{stage['notebook']} {stage['status']}" for stage in stages if stage["status"] != "reused"]
    return problems + sorted(imported & {"jupyter_client", "papermill", "nbclient", "ipykernel", "zmq"})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peers", type=Path, help="virtual environment of the peers; default: a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="unchanged-") as name:
        peers = given.peers or Path(name) / "venv"
        makers = {"dvc": make_dvc, "snakemake": make_snakemake}
        tools = ["pinmill", *(peer for peer in makers if install(peer, peers))]
        folders = {tool: Path(name) / tool for tool in tools}
        commands = {}
        for tool, folder in folders.items():
            folder.mkdir()
            commands[tool] = make_pinmill(folder) if tool == "pinmill" else makers[tool](folder, peers)
            call(commands[tool], folder)  # does the work
            call(commands[tool], folder)  # fills caches
        seconds: dict[str, list[float]] = {tool: [] for tool in tools}
        for _ in range(given.rounds):
            for tool, command in commands.items():
                clock = time.perf_counter()
                call(command, folders[tool])
                seconds[tool].append(time.perf_counter() - clock)
        problems = check_reused(folders["pinmill"])
    ours = median(seconds["pinmill"])
    for tool, times in seconds.items():
        ratio = "" if tool == "pinmill" else f", pinmill / {tool}: {ours / median(times):.2f}"
        print(f"{tool:<10} median {median(times):.3f} s, best {min(times):.3f} s{ratio}")
    good = ours <= TARGET and not problems
    print(f"something ran or could have: {', '.join(problems)}" if problems else "all stages reused, no kernel started")
    print(f"pinmill: {ours:.3f} s (target <= {TARGET}) {'ok' if good else 'MISSED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
