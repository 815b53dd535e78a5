"""The client: what importing it costs beyond pandas, and rows a second of `predict`, beside vetiver's own client.

Each import is a fresh process; the medians of the rounds are compared. Both clients send the same texts (spam.csv,
repeated, each with a number) to one `pinmill serve` without a cache, whose model is the default one of 02-train:
vetiver's as DataFrames of 1,000 rows, one after the other, for a tenth of the texts.
Targets: import <= 0.4 s beyond pandas; predict >= 1 × vetiver's.

Run: .venv/bin/python tests/benchmarks/client.py [--texts 100000] [--rounds 10]
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))  # how a service is started for tests
DATA = os.environ.get("PINMILL_TEST_DATA") or os.environ.get("PINMILL_DATA") or str(ROOT.parent / "shared" / "data")
IMPORTS = {"pandas": "import pandas", "client": "import pandas; from pinmill import Client"}
MOST_IMPORT, LEAST_RATIO = 0.4, 1.0  # s; of vetiver's rows a second
CALL = 1_000  # rows of one call by vetiver's client


def time_imports(rounds: int) -> dict[str, float]:
    """Seconds of a fresh process that imports each, the median of the rounds, which take turns."""
    taken: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(rounds):
        for name, source in IMPORTS.items():
            clock = time.perf_counter()
            subprocess.run([sys.executable, "-c", source], check=True)
            taken[name].append(time.perf_counter() - clock)
    return {name: statistics.median(times) for name, times in taken.items()}


def train(root: Path) -> None:
    """A project whose workflow `spam` has a champion."""
    for folder in ("notebooks", "params"):
        shutil.copytree(ROOT / folder, root / folder)
    shutil.copy(ROOT / "requirements.lock", root)
    command = [Path(sys.executable).parent / "pinmill", "run", "spam"]
    subprocess.run(command, cwd=root, env=os.environ | {"PINMILL_DATA": DATA}, check=True, capture_output=True)


def time_predictions(texts: list[str], folder: Path) -> dict[str, float]:
    """Rows a second by our client and by vetiver's."""
    from conftest import Workplace, start_server
    from pinmill import Client
    from vetiver import predict, vetiver_endpoint

    rates = {}
    server = start_server(Workplace(folder), "spam", "--no-cache", PINMILL_DATA=DATA)
    try:
        with Client(server.url) as client:
            client.predict(texts[:CALL])
            clock = time.perf_counter()
            said = client.predict(texts)
            rates["client"] = len(texts) / (time.perf_counter() - clock)
        some, endpoint = texts[: len(texts) // 10], vetiver_endpoint(f"{server.url}/predict")
        frames = [pandas.DataFrame({"text": some[place : place + CALL]}) for place in range(0, len(some), CALL)]
        clock = time.perf_counter()
        theirs = pandas.concat([predict(endpoint, frame) for frame in frames], ignore_index=True)
        rates["vetiver"] = len(some) / (time.perf_counter() - clock)
    finally:
        server.stop()
    assert theirs["predict"].tolist() == said["label"][: len(some)].tolist()
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}")
    imports = time_imports(given.rounds)
    beyond = imports["client"] - imports["pandas"]
    print(f"import: pandas {imports['pandas']:.2f} s, and the client {beyond:+.2f} s (target <= {MOST_IMPORT})")
    spam = pandas.read_csv(Path(DATA) / "spam.csv")["text"].dropna()
    spam = spam[spam.str.strip() != ""].tolist()
    texts = [f"{spam[number % len(spam)]} {number}" for number in range(given.texts)]
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder) / "project")
        rates = time_predictions(texts, Path(folder) / "project")
    ratio = rates["client"] / rates["vetiver"]
    print(f"predict: {rates['client']:,.0f} rows/s, vetiver's client {rates['vetiver']:,.0f}: {ratio:.2f} ×")
    missed = [name for name, bad in {"import": beyond > MOST_IMPORT, "predict": ratio < LEAST_RATIO}.items() if bad]
    print(f"load {os.getloadavg()[0]:.1f}; {'missed: ' + ', '.join(missed) if missed else 'all targets met'}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
