"""What the gateway counts, in the format of Prometheus."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # s


class Traffic:
    """Counts by endpoint; plain numbers, as a client library's own counters cost more than a request may."""

    def __init__(self, read_gauges: Callable[[], Mapping[str, tuple[str, float]]]) -> None:
        self.read_gauges = read_gauges  # name -> (meaning, value), read when somebody asks
        self.requests: Counter[tuple[str, int]] = Counter()
        self.rows: Counter[tuple[str, str]] = Counter()
        self.seconds: dict[str, list[float]] = {}

    def count(self, endpoint: str, status: int, seconds: float) -> None:
        """Count one request, answered with `status` after `seconds`."""
        self.requests[endpoint, status] += 1
        buckets = self.seconds.get(endpoint)
        if buckets is None:
            buckets = self.seconds[endpoint] = [0.0] * (len(BUCKETS) + 2)
        buckets[bisect_left(BUCKETS, seconds)] += 1
        buckets[-1] += seconds

    def collect(self) -> Iterator[object]:
        """The metrics, as prometheus_client takes them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        requests = CounterMetricFamily("pinmill_requests", "Requests answered.", labels=["endpoint", "status"])
        for (endpoint, status), count in self.requests.items():
            requests.add_metric([endpoint, str(status)], count)
        rows = CounterMetricFamily("pinmill_rows", "Rows scored.", labels=["endpoint", "source"])
        for labels, count in self.rows.items():
            rows.add_metric(labels, count)
        seconds = HistogramMetricFamily("pinmill_request_seconds", "Time to answer [s].", labels=["endpoint"])
        for endpoint, (*counts, total) in self.seconds.items():
            sums = [sum(counts[: place + 1]) for place in range(len(counts))]
            bounds = [*map(str, BUCKETS), "+Inf"]
            seconds.add_metric([endpoint], buckets=list(zip(bounds, sums, strict=True)), sum_value=total)
        yield from (requests, rows, seconds)
        for name, (meaning, value) in self.read_gauges().items():
            yield GaugeMetricFamily(f"pinmill_{name}", meaning, value=value)

    def render(self) -> bytes:
        """The page that Prometheus reads."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)
