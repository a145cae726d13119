"""Bodies to send through a Collector, as the exporter makes them."""

from __future__ import annotations

from opentelemetry._logs import LogRecord
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

from exporter.otlp.encode import Body, encode, encode_events
from exporter.otlp.sink import Outcome, Reply, Sink

START, NOW = 1_763_700_000_000_000_000, 1_763_700_060_000_000_000
TAGS = {"device": "all_iphones", "platform": "iOS", "version": "2.1"}
_SCOPE = InstrumentationScope("perfpower-exporter", "1")
_NOTES = Resource({"service.name": "com.example.notes", "appstore.app.id": "1"})


def gauge(*devices: str) -> Metric:
    """A gauge with a point of 0.7 s for each device; without any, for that of TAGS."""
    tags = [{**TAGS, "device": device} for device in devices] or [TAGS]
    return Metric(
        "appstore.launch.time", "", "s", Gauge([NumberDataPoint(item, 0, NOW, 0.7) for item in tags])
    )


def histogram(name: str, unit: str, *, start: int = START, end: int = NOW) -> Metric:
    """A distribution of two observations, 0.5 and 0.9, with a bound at 0.7."""
    point = HistogramDataPoint(TAGS, start, end, 2, 1.4, [1, 1], [0.7], 0.5, 0.9)
    return Metric(name, "", unit, Histogram([point], AggregationTemporality.DELTA))


def metrics(*of: Metric) -> Body:
    """Metrics of one app in one body, however large."""
    (body,) = encode(_NOTES, _SCOPE, of, most_bytes=1 << 30)
    return body


def events(*texts: str) -> Body:
    """An event for each text in one body, however large."""
    records = [LogRecord(timestamp=NOW, body=text, event_name="appstore.diagnostic") for text in texts]
    (body,) = encode_events(_NOTES, _SCOPE, records, most_bytes=1 << 30)
    return body


def send(sink: Sink, *bodies: Body) -> None:
    """Send bodies, to all of which the answer must be yes, and close the sink."""
    try:
        assert [sink.send(body) for body in bodies] == [Reply(Outcome.ACCEPTED)] * len(bodies)
    finally:
        sink.close()
