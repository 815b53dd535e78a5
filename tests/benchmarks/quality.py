"""Quality on the reference splits of the shared data, through the whole workflow: the scores in the metrics pin.

`pinmill run` with `split=random seed=42 deduplicate=false`, in a fresh copy of the project for each workflow.
Reference (the data's README, the same kind of model): electronics 0.955 and 0.985, spam 0.983 and 0.995.
Targets: electronics (test_fraction 0.20) accuracy >= 0.95 and roc_auc >= 0.985;
spam (test_fraction 0.33) accuracy >= 0.983 and roc_auc >= 0.994.

Run: .venv/bin/python tests/benchmarks/quality.py
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pinmill.board import Board

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
DATA = os.environ.get("PINMILL_TEST_DATA") or os.environ.get("PINMILL_DATA") or str(ROOT.parent / "shared" / "data")
FRACTIONS = {"electronics": 0.20, "spam": 0.33}
TARGETS = {"electronics": {"accuracy": 0.95, "roc_auc": 0.985}, "spam": {"accuracy": 0.983, "roc_auc": 0.994}}
REFERENCES = {"electronics": {"accuracy": 0.955, "roc_auc": 0.985}, "spam": {"accuracy": 0.983, "roc_auc": 0.995}}


def read_scores(workflow: str) -> dict[str, float]:
    """Scores by metric, as the pin of a fresh run has them."""
    with tempfile.TemporaryDirectory(prefix="quality-") as name:
        folder = Path(name)
        for part in ("notebooks", "params"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
        shutil.copy(ROOT / "requirements.lock", folder)
        settings = ["split=random", "seed=42", "deduplicate=false", f"test_fraction={FRACTIONS[workflow]}"]
        command = [BIN / "pinmill", "run", workflow, *(word for setting in settings for word in ("--set", setting))]
        environment = {**os.environ, "PINMILL_DATA": DATA, "PINMILL_HOME": name}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode not in (0, 3):  # rejected by the gate: the scores are there all the same
            sys.exit(f"pinmill run {workflow} failed (exit {done.returncode}):\n{done.stdout}\n{done.stderr}")
        board = Board(folder / "outputs" / "pins")
        return {row["metric"]: row["value"] for row in board.read_json(board.pin(f"{workflow}-metrics"))["metrics"]}


def main() -> int:
    missed = 0
    for workflow, targets in TARGETS.items():
        scores = read_scores(workflow)
        for metric, target in targets.items():
            score, reference = scores[metric], REFERENCES[workflow][metric]
            missed += score < target
            print(
                f"{workflow:<12} {metric:<9} {score:.4f} (target >= {target}) {'ok' if score >= target else 'MISSED'}, "
                f"errors against the reference: {(1 - score) / (1 - reference):.2f}",
                flush=True,
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
