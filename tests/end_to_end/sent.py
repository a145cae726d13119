"""What the exporter sent, as OTLP has it: the truth that what arrives is held to."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_DELTA,
    HistogramDataPoint,
    Metric,
)

from exporter.otlp.encode import Body

Value = str | bool | int | float
Attributes = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Context:
    """Whose points or events they are: the resource's attributes, name and version of the scope."""

    resource: Attributes
    scope: str
    scope_version: str


@dataclass(frozen=True, slots=True)
class SentPoint:
    """A point of a gauge, or of a delta histogram with its number of observations in `count`.

    Args:
        context: whose it is.
        name: of the metric.
        unit: of the metric, UCUM.
        kind: of the metric.
        attributes: its own.
        time: Unix nanoseconds.
        value: of a gauge.
        count: of a histogram, as are all that follow.
        sum: always there.
        extremes: min and max, where they are sent.
        bounds: upper bounds of all buckets but the last.
        counts: one more than the bounds.
    """

    context: Context
    name: str
    unit: str
    kind: Literal["gauge", "histogram"]
    attributes: Attributes
    time: int
    value: float = 0.0
    count: int = 0
    sum: float = 0.0
    extremes: tuple[float, float] | None = None
    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SentEvent:
    """A log record; `time` in Unix nanoseconds."""

    context: Context
    name: str
    body: str
    severity: str
    severity_number: int
    attributes: Attributes
    time: int


def points_in(bodies: Iterable[Body]) -> list[SentPoint]:
    """The points of some requests, in order; those that hold events are passed over."""
    return [point for body in bodies if body.signal == "metrics" for point in _points(body)]


def events_in(bodies: Iterable[Body]) -> list[SentEvent]:
    """The events of some requests, in order; those that hold points are passed over."""
    return [event for body in bodies if body.signal == "logs" for event in _events(body)]


def differences(expected: Iterable[object], arrived: Iterable[object]) -> list[str]:
    """What did not arrive, and what arrived without being expected, or too often; a few of each.

    Two things are the same when all fields of their dataclasses are: numbers by value, true is no 1.
    """
    wanted, found = Counter(map(_frozen, expected)), Counter(map(_frozen, arrived))
    missing, extra = wanted - found, found - wanted
    return [f"missing: {item}" for item in list(missing)[:5]] + [f"extra: {item}" for item in list(extra)[:5]]


def _points(body: Body) -> Iterator[SentPoint]:
    for resource in ExportMetricsServiceRequest.FromString(body.data).resource_metrics:
        for scope in resource.scope_metrics:
            context = _context(resource.resource.attributes, scope.scope)
            for metric in scope.metrics:
                yield from _points_of(metric, context)


def _points_of(metric: Metric, context: Context) -> Iterator[SentPoint]:
    for number in metric.gauge.data_points:
        value = number.as_int if number.HasField("as_int") else number.as_double
        attributes = _plain(number.attributes)
        yield SentPoint(
            context, metric.name, metric.unit, "gauge", attributes, number.time_unix_nano, float(value)
        )
    for point in metric.histogram.data_points:
        assert metric.histogram.aggregation_temporality == AGGREGATION_TEMPORALITY_DELTA
        yield _histogram(metric, point, context)


def _histogram(metric: Metric, point: HistogramDataPoint, context: Context) -> SentPoint:
    return SentPoint(
        context=context,
        name=metric.name,
        unit=metric.unit,
        kind="histogram",
        attributes=_plain(point.attributes),
        time=point.time_unix_nano,
        count=point.count,
        sum=point.sum,
        extremes=(point.min, point.max) if point.HasField("min") else None,
        bounds=tuple(point.explicit_bounds),
        counts=tuple(point.bucket_counts),
    )


def _events(body: Body) -> Iterator[SentEvent]:
    for resource in ExportLogsServiceRequest.FromString(body.data).resource_logs:
        for scope in resource.scope_logs:
            context = _context(resource.resource.attributes, scope.scope)
            for record in scope.log_records:
                yield SentEvent(
                    context=context,
                    name=record.event_name,
                    body=record.body.string_value,
                    severity=record.severity_text,
                    severity_number=record.severity_number,
                    attributes=_plain(record.attributes),
                    time=record.time_unix_nano,
                )


def _context(resource: Iterable[KeyValue], scope: InstrumentationScope) -> Context:
    return Context(_plain(resource), scope.name, scope.version)


def _plain(pairs: Iterable[KeyValue]) -> Attributes:
    """Attributes; ours are texts, numbers and booleans, each once."""
    found: Attributes = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        assert kind in ("string_value", "bool_value", "int_value", "double_value"), pair
        assert pair.key not in found, pair
        found[pair.key] = getattr(pair.value, kind)
    return found


def _frozen(item: object) -> object:
    """Something to count by, out of a dataclass with dictionaries in it."""
    if dataclasses.is_dataclass(item):
        return tuple((field.name, _frozen(getattr(item, field.name))) for field in dataclasses.fields(item))
    if isinstance(item, Mapping):
        return frozenset((key, _frozen(value)) for key, value in item.items())
    return str(item) if isinstance(item, bool) else item
