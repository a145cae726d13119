"""Changing what is already encoded: the rare cases, done on parsed protobuf."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from exporter.otlp.encode import Body

SECOND = 1_000_000_000


def select(body: Body, wanted: Callable[[int], bool]) -> Body:
    """The points of a body whose running number is wanted, in their order, with what they stand in.

    Points are numbered from 0 in the order in which they stand in the request.
    """
    request = ExportMetricsServiceRequest.FromString(body.data)
    number = kept = 0
    for metric in _metrics(request):
        points = data_points(metric)
        chosen = []
        for point in points:
            if wanted(number):
                chosen.append(point)
            number += 1
        kept += len(chosen)
        del points[:]
        points.extend(chosen)
    _drop_empty(request)
    return Body(request.SerializeToString(), kept)


def restamp_windows(body: Body, times: Mapping[int, int]) -> Body:
    """Delta points with each start and end that `times` names moved to where it says, in nanoseconds.

    A start that is not named, and lies after the new end because a clock was ahead then, moves before it.
    """
    request = ExportMetricsServiceRequest.FromString(body.data)
    for metric in _metrics(request):
        for point in data_points(metric):
            start = times.get(point.start_time_unix_nano, point.start_time_unix_nano)
            point.time_unix_nano = times.get(point.time_unix_nano, point.time_unix_nano)
            point.start_time_unix_nano = (
                start if start < point.time_unix_nano else point.time_unix_nano - SECOND
            )
    return Body(request.SerializeToString(), body.points)


def metric_names(body: Body) -> list[str]:
    """The names of the metrics in a body, for a message about it."""
    request = ExportMetricsServiceRequest.FromString(body.data)
    return sorted({metric.name for metric in _metrics(request)})


def data_points(metric: Metric) -> Any:
    """The repeated field of a metric's points, of whichever kind it is."""
    return getattr(metric, metric.WhichOneof("data") or "gauge").data_points


def _metrics(request: ExportMetricsServiceRequest) -> Iterator[Metric]:
    for resource_metrics in request.resource_metrics:
        for scope_metrics in resource_metrics.scope_metrics:
            yield from scope_metrics.metrics


def _drop_empty(request: ExportMetricsServiceRequest) -> None:
    for resource_metrics in request.resource_metrics:
        for scope_metrics in resource_metrics.scope_metrics:
            _keep(scope_metrics.metrics, data_points)
        _keep(resource_metrics.scope_metrics, lambda scope_metrics: scope_metrics.metrics)
    _keep(request.resource_metrics, lambda resource_metrics: resource_metrics.scope_metrics)


def _keep(items: Any, content: Callable[[Any], Any]) -> None:
    kept = [item for item in items if len(content(item))]
    del items[:]
    items.extend(kept)
