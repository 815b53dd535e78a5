"""What a piece of work costs: seconds and the peak of memory."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in ru_maxrss's unit: macOS counts bytes, Linux KiB


@contextmanager
def measure() -> Iterator[SimpleNamespace]:
    """Measure what happens inside `with measure() as cost:`.

    Afterwards `cost` has `seconds` of wall time and `peak_mb`, the process's largest memory so far [MB].
    """
    cost, clock = SimpleNamespace(), time.perf_counter()
    try:
        yield cost
    finally:
        cost.seconds = time.perf_counter() - clock
        cost.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT / 1e6
