from __future__ import annotations

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from exporter.otlp.encode import Body, encode
from exporter.otlp.table import lines

NOW = 1_700_000_000_000_000_000  # 2023-11-14 22:13:20 UTC
SCOPE = InstrumentationScope("perfpower-exporter", "0.1.0")


def test_a_request_is_a_table() -> None:
    """A heading for each resource, then a line for each point: time, metric, value with unit, attributes."""
    tags = {"device": "all_iphones", "version": "2.1"}
    metrics = [
        Metric("appstore.launch.time", "", "s", Gauge([NumberDataPoint(tags, 0, NOW, 0.78)])),
        Metric("appstore.count", "", "", Gauge([NumberDataPoint({}, 0, NOW, 3)])),
        Metric(
            "appstore.launch.time.by_device",
            "",
            "s",
            Histogram(
                [HistogramDataPoint(tags, 1, NOW, 2, 1.5, [2, 0], [1.0], 0.5, 1.0)],
                AggregationTemporality.DELTA,
            ),
        ),
    ]
    (body,) = encode(Resource({"service.name": "notes", "appstore.app.id": "1"}), SCOPE, metrics)
    assert list(lines(body)) == [
        "# service.name=notes  appstore.app.id=1",
        f"22:13:20  {'appstore.launch.time':<42} {'0.78 s':>18}  device=all_iphones  version=2.1",
        f"22:13:20  {'appstore.count':<42} {'3':>18}  ",
        f"22:13:20  {'appstore.launch.time.by_device':<42} {'n=2 mean=0.75 s':>18}  "
        "device=all_iphones  version=2.1",
    ]


def test_each_resource_has_a_heading() -> None:
    """Bodies joined are a table with as many headings."""
    metric = Metric("a.b", "", "", Gauge([NumberDataPoint({}, 0, NOW, 1.0)]))
    bodies = [
        body for name in ("one", "two") for body in encode(Resource({"service.name": name}), SCOPE, [metric])
    ]
    table = list(lines(Body(b"".join(body.data for body in bodies), 2)))
    assert [line for line in table if line.startswith("#")] == ["# service.name=one", "# service.name=two"]
    assert len(table) == 4


def test_odd_points_have_a_line_as_well() -> None:
    """A histogram of nothing and a gauge without a value do not raise; no request, no lines."""
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    metrics.add(name="h").histogram.data_points.add()
    metrics.add(name="g").gauge.data_points.add()
    heading, histogram, gauge = lines(Body(request.SerializeToString(), 2))
    assert heading == "# "
    assert "n=0 mean=0" in histogram
    assert gauge.split() == ["00:00:00", "g", "0"]
    assert list(lines(Body(b"", 0))) == []
