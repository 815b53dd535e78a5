"""What the gateway counts, as Prometheus's own parser reads it."""

from pinmill.traffic import Traffic
from prometheus_client.parser import text_string_to_metric_families


def parse(traffic: Traffic) -> dict[tuple, float]:
    """Each sample's value by its name and labels."""
    families = text_string_to_metric_families(traffic.render().decode())
    return {(sample.name, *sample.labels.items()): sample.value for family in families for sample in family.samples}


def test_requests_are_counted_by_endpoint_and_status_with_their_times() -> None:
    traffic = Traffic(dict)
    for status, seconds in ((200, 0.0004), (200, 0.001), (422, 0.03), (200, 60.0)):
        traffic.count("POST /a", status, seconds)
    traffic.count("GET /", 200, 0.2)
    found = parse(traffic)
    assert found["pinmill_requests_total", ("endpoint", "POST /a"), ("status", "200")] == 3
    assert found["pinmill_requests_total", ("endpoint", "POST /a"), ("status", "422")] == 1
    assert found["pinmill_requests_total", ("endpoint", "GET /"), ("status", "200")] == 1
    times = "pinmill_request_seconds"
    bounds = {"0.001": 2, "0.025": 2, "0.05": 3, "10.0": 3, "+Inf": 4}  # a time on a bound is within it
    assert {le: found[f"{times}_bucket", ("endpoint", "POST /a"), ("le", le)] for le in bounds} == bounds
    assert found[f"{times}_count", ("endpoint", "POST /a")] == 4
    assert abs(found[f"{times}_sum", ("endpoint", "POST /a")] - 60.0314) < 1e-9


def test_rows_are_counted_by_where_they_came_from() -> None:
    traffic = Traffic(dict)
    traffic.rows["POST /a", "cache"] += 3
    traffic.rows["POST /a", "model"] += 2
    found = parse(traffic)
    assert found["pinmill_rows_total", ("endpoint", "POST /a"), ("source", "cache")] == 3
    assert found["pinmill_rows_total", ("endpoint", "POST /a"), ("source", "model")] == 2


def test_gauges_are_read_when_somebody_asks() -> None:
    values = iter([1, 2])
    traffic = Traffic(lambda: {"kernels": ("Kernels that answer.", next(values))})
    assert [parse(traffic)[("pinmill_kernels",)] for _ in range(2)] == [1, 2]
