"""What monitoring finds, and what it costs: months of traffic with a shift in the sixth, and a million calls.

A project of its own trains on 2,500 text messages of the spam data. Then five months of calls bring other messages, and
from the sixth on comments on videos, which are of another kind. People say later what 30 % of the inputs were. The job
is run as of the first day after each month, so that what it finds is what people would have been told then. Alerts in
the first five months would be false. At last every call is repeated until there are a million, and the job is timed.
Targets: the shift is found in the sixth month, no alert before it, a page of less than 2 MB from a million calls.

Run: .venv/bin/python tests/benchmarks/monitoring.py [--months 8] [--calls 1000000] [--folder FOLDER]
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from pinmill.board import Board

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from traffic_maker import Spell, add_traffic, list_months, repeat_calls  # noqa: E402

DATA = os.environ.get("PINMILL_TEST_DATA") or os.environ.get("PINMILL_DATA") or str(ROOT.parent / "shared" / "data")
PINMILL = Path(sys.executable).with_name("pinmill")
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
SHIFT, A_MONTH, LABELLED = 6, 1_200, 0.3  # the month that the shift comes in, calls, and inputs that get a label
LARGEST = 2_000_000  # bytes of the page
PARAMS = """\
workflow: spam
title: Spam in messages
source: messages.csv
text: text
positive: spam
cv: 0
period: month
alerts:
  - {metric: shifted_columns, direction: above, threshold: 0}
  - {metric: error_share, direction: above, threshold: 0.05, min_n: 100}
  - {metric: roc_auc, direction: below, threshold: 0.95, min_n: 100}
"""


def make_project(root: Path) -> list[pd.DataFrame]:
    """A project whose model is trained; the messages and the comments that are still to come."""
    for folder in ("notebooks", "params"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy(ROOT / "requirements.lock", root)
    texts = pd.read_csv(Path(DATA) / "spam.csv").drop_duplicates("text").sample(frac=1, random_state=1)
    messages, comments = texts[texts["source"] == "sms-spam"], texts[texts["source"] != "sms-spam"]
    messages[:2500].to_csv(root / "messages.csv", index=False)
    (root / "params" / "spam.yaml").write_text(PARAMS)
    run(root, "run", "spam")
    return [messages[2500:], comments]


def run(root: Path, *words: str) -> float:
    """Run `pinmill WORDS` in the project; the seconds that it took."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PINMILL_")}
    began = time.perf_counter()
    done = subprocess.run([PINMILL, *words], cwd=root, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"pinmill {' '.join(words)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - began


def monitor(root: Path, until: datetime) -> tuple[float, list[dict], Path]:
    """The seconds that the job took as of a moment, the alerts that fire, and its page."""
    seconds = run(root, "run", "spam", "--job", "monitor", "--set", f"until={json.dumps(until.isoformat())}")
    pin = Board(root / "outputs/pins").pin("spam-monitoring")
    page = root / "reports/_pages/spam" / pin.lineage["run"] / "monitoring.html"
    return seconds, [each for each in pin.facts["alerts"] if each["firing"]], page


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--months", type=int, default=8)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the project is made, and stays")
    given = parser.parse_args()
    root = given.folder or Path(tempfile.mkdtemp(prefix="pinmill-monitoring-"))
    usual, other = make_project(root)
    months = list_months(FIRST, given.months)
    spells = [Spell(*month, usual if n < SHIFT else other, A_MONTH, LABELLED) for n, month in enumerate(months, 1)]
    last = months[-1][1] + timedelta(hours=6)
    made = add_traffic(root, "spam", spells, label="label", until=last)
    print(f"{made:,} calls in {len(months)} months, {A_MONTH:,} rows in each; the shift comes in month {SHIFT}")
    fired = {}
    for number, (_, end) in enumerate(months, 1):
        seconds, firing, page = monitor(root, end + timedelta(hours=6))
        fired[number] = bool(firing)
        told = "; ".join(each["text"] for each in firing) or "no alert"
        print(f"month {number} ({seconds:.0f} s): {told}", flush=True)
    false, found = sum(fired[n] for n in fired if n < SHIFT), [n for n in fired if n >= SHIFT and fired[n]]
    late = f"month {found[0]}" if found else "never"
    print(f"false alarms in {SHIFT - 1} months: {false}; found: {late}; page: {page}")
    total = repeat_calls(root, "spam", -(-given.calls // made))
    seconds, _, page = monitor(root, last)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    size = page.stat().st_size
    print(f"{total:,} calls: {seconds:.0f} s, {memory:,.0f} MB at most in any process, a page of {size / 1e6:.2f} MB")
    is_good = not false and found[:1] == [SHIFT] and size < LARGEST
    print(f"targets: found in month {SHIFT}, no false alarm, page < 2 MB: {'ok' if is_good else 'MISSED'}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
