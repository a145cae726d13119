"""Metric points as the receiver keeps them, and the rules they are held to. Pure.

The rules are those of the backends behind a Collector: what Datadog's OTLP intake or Splunk
Observability would refuse, drop without a word, or store as something else. Each rule says whose it is.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_DELTA,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ScopeMetrics,
)

Scalar = str | bool | int | float
AttributeValue = Scalar | tuple[Scalar, ...]
Attributes = dict[str, AttributeValue]
AttributeSet = tuple[tuple[str, AttributeValue], ...]
SeriesKey = tuple[AttributeSet, str, AttributeSet]

OLDEST_SECONDS = 3600  # Datadog takes nothing older than an hour
NEWEST_SECONDS = 600  # nor more than ten minutes ahead
MOST_ATTRIBUTES = 35  # Splunk: 36 dimensions with the bucket bound
LONGEST_VALUE = 200  # Datadog cuts a tag there
MOST_BUCKETS = 30  # Splunk drops histograms of 31 and more

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,199}")  # Datadog rewrites other names
_KEY = re.compile(r"(?!sf_|aws_|gcp_|azure_)[A-Za-z][A-Za-z0-9_.-]{0,127}")  # Splunk rewrites or drops others
_KEPT_ON_POINTS = ("gauge", "sum", "histogram")


class RefusedError(Exception):
    """A request that a backend would refuse or spoil; the text names the metric and the rule."""


@dataclass(frozen=True, slots=True)
class Point:
    """One accepted data point.

    Args:
        resource: the attributes of its resource.
        name: the metric's name.
        unit: its unit, UCUM.
        description: its description.
        kind: `sum` is a delta sum.
        attributes: its own attributes.
        time_unix_nano: when it was measured.
        start_time_unix_nano: the start of its window; 0 for a gauge.
        value: of a gauge or sum.
        count: of a histogram, as are all that follow.
        sum: in the metric's unit.
        min: None when not sent.
        max: None when not sent.
        bounds: upper bounds of all buckets but the last.
        counts: one more than the bounds.
    """

    resource: Attributes
    name: str
    unit: str
    description: str
    kind: Literal["gauge", "sum", "histogram"]
    attributes: Attributes
    time_unix_nano: int
    start_time_unix_nano: int
    value: float | None = None
    count: int = 0
    sum: float | None = None
    min: float | None = None
    max: float | None = None
    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()

    @property
    def series(self) -> SeriesKey:
        """What makes it one line on a chart: resource, name and attributes."""
        return _frozen(self.resource), self.name, _frozen(self.attributes)


def read_points(request: ExportMetricsServiceRequest, now: float) -> list[Point]:
    """All points of a request, in order.

    Args:
        request: as decoded.
        now: Unix seconds; points have to lie near it.

    Raises:
        RefusedError: at the first point that breaks a rule; a request is taken whole or not at all.
    """
    points: list[Point] = []
    for resource_metrics in request.resource_metrics:
        resource = read_attributes(resource_metrics.resource.attributes, "resource")
        for scope in resource_metrics.scope_metrics:
            _check_names(scope)
            for metric in scope.metrics:
                points += _metric_points(metric, resource, now)
    _check_twice(points)
    return points


def _check_names(scope: ScopeMetrics) -> None:
    """One Metric object a name: back ends take the second for a conflict (collector issue 8831)."""
    seen: set[str] = set()
    for metric in scope.metrics:
        if not NAME.fullmatch(metric.name):
            raise RefusedError(
                f"metric name {metric.name[:80]!r}: a letter first, then up to 199 letters, digits, _ and ."
            )
        if metric.name in seen:
            raise RefusedError(f"{metric.name}: two metrics of this name in one scope")
        seen.add(metric.name)


def _check_twice(points: Iterable[Point]) -> None:
    """Of points of one series in the same second Datadog keeps the last only."""
    seen: set[tuple[SeriesKey, int]] = set()
    for point in points:
        key = point.series, point.time_unix_nano // 1_000_000_000
        if key in seen:
            raise RefusedError(f"{point.name}: the same series twice in the same second: {point.attributes}")
        seen.add(key)


def _metric_points(metric: Metric, resource: Attributes, now: float) -> Iterator[Point]:
    kind = metric.WhichOneof("data")
    if kind == "gauge":
        yield from _number_points(metric, "gauge", metric.gauge.data_points, resource, now)
    elif kind == "sum":
        _check_delta(metric.name, metric.sum.aggregation_temporality)
        yield from _number_points(metric, "sum", metric.sum.data_points, resource, now)
    elif kind == "histogram":
        _check_delta(metric.name, metric.histogram.aggregation_temporality)
        for point in metric.histogram.data_points:
            yield _histogram_point(metric, point, resource, now)
    else:
        # Splunk drops exponential histograms; summaries are for legacy sources.
        raise RefusedError(f"{metric.name}: {kind or 'no data'} is not one of {', '.join(_KEPT_ON_POINTS)}")


def _check_delta(name: str, temporality: int) -> None:
    """Datadog's intake refuses cumulative data."""
    if temporality != AGGREGATION_TEMPORALITY_DELTA:
        raise RefusedError(f"{name}: the temporality has to be delta")


def _number_points(
    metric: Metric,
    kind: Literal["gauge", "sum"],
    points: Iterable[NumberDataPoint],
    resource: Attributes,
    now: float,
) -> Iterator[Point]:
    for point in points:
        field = point.WhichOneof("value")
        value = point.as_int if field == "as_int" else point.as_double
        if field is None or not math.isfinite(value):
            raise RefusedError(f"{metric.name}: a {kind} point needs a finite value")
        check_time(metric.name, point.time_unix_nano, now)
        if kind == "sum":
            _check_start(metric.name, point.start_time_unix_nano, point.time_unix_nano)
        yield Point(
            resource=resource,
            name=sys.intern(metric.name),
            unit=sys.intern(metric.unit),
            description=sys.intern(metric.description),
            kind=kind,
            attributes=own_attributes(metric.name, point.attributes, resource),
            time_unix_nano=point.time_unix_nano,
            start_time_unix_nano=point.start_time_unix_nano,
            value=float(value),
        )


def _histogram_point(metric: Metric, point: HistogramDataPoint, resource: Attributes, now: float) -> Point:
    check_time(metric.name, point.time_unix_nano, now)
    _check_start(metric.name, point.start_time_unix_nano, point.time_unix_nano)
    _check_buckets(metric.name, point.explicit_bounds, point.bucket_counts, point.count)
    _check_summary(metric.name, point)
    return Point(
        resource=resource,
        name=sys.intern(metric.name),
        unit=sys.intern(metric.unit),
        description=sys.intern(metric.description),
        kind="histogram",
        attributes=own_attributes(metric.name, point.attributes, resource),
        time_unix_nano=point.time_unix_nano,
        start_time_unix_nano=point.start_time_unix_nano,
        count=point.count,
        sum=point.sum,
        min=point.min if point.HasField("min") else None,
        max=point.max if point.HasField("max") else None,
        bounds=tuple(point.explicit_bounds),
        counts=tuple(point.bucket_counts),
    )


def check_time(name: str, time_unix_nano: int, now: float, oldest: int = OLDEST_SECONDS) -> None:
    """Raise RefusedError for a time, in ns, that backends do not take at `now`, in seconds."""
    seconds = time_unix_nano / 1e9
    if not time_unix_nano:
        raise RefusedError(f"{name}: without a time")
    if seconds < now - oldest:
        raise RefusedError(f"{name}: {now - seconds:.0f} s old; the limit is {oldest} s")
    if seconds > now + NEWEST_SECONDS:
        raise RefusedError(f"{name}: {seconds - now:.0f} s ahead; the limit is {NEWEST_SECONDS} s")


def _check_start(name: str, start_unix_nano: int, time_unix_nano: int) -> None:
    if not 0 < start_unix_nano < time_unix_nano:
        raise RefusedError(f"{name}: the window has to start before it ends")


def _check_buckets(name: str, bounds: Sequence[float], counts: Sequence[int], count: int) -> None:
    """Splunk drops a histogram that breaks any of these; Datadog drops an empty one."""
    if not all(map(math.isfinite, bounds)) or any(b <= a for a, b in pairwise(bounds)):
        raise RefusedError(f"{name}: bounds have to be finite and strictly increasing")
    if len(counts) != len(bounds) + 1:
        raise RefusedError(f"{name}: {len(bounds)} bounds need {len(bounds) + 1} counts, not {len(counts)}")
    if len(counts) > MOST_BUCKETS:
        raise RefusedError(f"{name}: {len(counts)} buckets; the limit is {MOST_BUCKETS}")
    if not 0 < count == sum(counts):
        raise RefusedError(f"{name}: the count has to be above 0 and the sum of the bucket counts")


def _check_summary(name: str, point: HistogramDataPoint) -> None:
    """Datadog reads a missing sum as 0; Splunk drops a point whose min is not below its max."""
    if not point.HasField("sum") or not math.isfinite(point.sum):
        raise RefusedError(f"{name}: a histogram needs a finite sum")
    if point.HasField("min") != point.HasField("max"):
        raise RefusedError(f"{name}: min and max come together or not at all")
    if point.HasField("min") and not (math.isfinite(point.max - point.min) and point.min < point.max):
        raise RefusedError(f"{name}: min has to be below max, both finite")


def own_attributes(
    name: str, pairs: Iterable[KeyValue], resource: Attributes, *, long_values: Container[str] = ()
) -> Attributes:
    """The attributes of the point or record `name`, held to the rules together with its resource's."""
    attributes = read_attributes(pairs, name, long_values=long_values)
    if both := attributes.keys() & resource.keys():
        raise RefusedError(f"{name}: {min(both)} is an attribute of the resource already")
    if len(attributes) + len(resource) > MOST_ATTRIBUTES:
        raise RefusedError(
            f"{name}: {len(attributes) + len(resource)} attributes with the resource's; "
            f"the limit is {MOST_ATTRIBUTES}"
        )
    return attributes


def read_attributes(pairs: Iterable[KeyValue], where: str, *, long_values: Container[str] = ()) -> Attributes:
    """Attributes held to the rules for keys and values; values of `long_values` may be of any length."""
    attributes: Attributes = {}
    for pair in pairs:
        if not _KEY.fullmatch(pair.key):
            raise RefusedError(f"{where}: attribute key {pair.key[:80]!r} would be rewritten or dropped")
        if pair.key in attributes:
            raise RefusedError(f"{where}: attribute {pair.key} twice")
        longest = sys.maxsize if pair.key in long_values else LONGEST_VALUE
        attributes[sys.intern(pair.key)] = _value(pair.value, f"{where}: attribute {pair.key}", longest)
    return attributes


def _value(value: AnyValue, where: str, longest: int) -> AttributeValue:
    if value.WhichOneof("value") == "array_value":
        values = tuple(_scalar(entry, where, longest) for entry in value.array_value.values)
        if not values:
            raise RefusedError(f"{where} is empty")
        return values
    return _scalar(value, where, longest)


def _scalar(value: AnyValue, where: str, longest: int) -> Scalar:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return _text(value.string_value, where, longest)
    if kind == "bool_value":
        return value.bool_value
    if kind == "int_value":
        return value.int_value
    if kind == "double_value":
        return value.double_value
    raise RefusedError(f"{where} is {'empty' if kind is None else f'a {kind}, not a plain value'}")


def _text(text: str, where: str, longest: int) -> str:
    if not text.strip():
        raise RefusedError(f"{where} is empty")
    if len(text) > longest:
        raise RefusedError(f"{where} has {len(text)} characters; the limit is {longest}")
    return sys.intern(text) if len(text) <= LONGEST_VALUE else text


def _frozen(attributes: Attributes) -> AttributeSet:
    return tuple(sorted(attributes.items(), key=lambda pair: pair[0]))
