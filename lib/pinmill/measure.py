"""What a piece of work costs: seconds and the peak of memory."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in ru_maxrss's unit: macOS counts bytes, Linux KiB


@dataclass
class Cost:
    """Filled when the work is done: `seconds` of wall time, `peak_mb` the process's largest memory so far [MB]."""

    seconds: float = 0.0
    peak_mb: float = 0.0


@contextmanager
def measure() -> Iterator[Cost]:
    """Measure what happens inside `with measure() as cost:`."""
    cost = Cost()
    clock = time.perf_counter()
    try:
        yield cost
    finally:
        cost.seconds = time.perf_counter() - clock
        cost.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT / 1e6
