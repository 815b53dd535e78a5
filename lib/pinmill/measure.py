"""What a piece of work costs: seconds and the peak of memory."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

STATUS = Path("/proc/self/status")  # Linux: ru_maxrss would tell the peak of the parent, where that was larger


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
        cost.peak_mb = read_peak() / 1e6


def read_peak() -> int:
    """The largest memory of this process so far [bytes]."""
    if not STATUS.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
