"""Changing and reading what is already encoded: the rare cases, done on parsed protobuf.

Metrics and logs have one shape: a request holds resources, a resource scopes, a scope metrics or records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from exporter.otlp.encode import Body, Signal

SECOND = 1_000_000_000
_REQUESTS: dict[Signal, Any] = {"metrics": ExportMetricsServiceRequest, "logs": ExportLogsServiceRequest}


def request_of(body: Body) -> Any:
    """A body as a parsed request of its signal."""
    return _REQUESTS[body.signal].FromString(body.data)


def select(body: Body, wanted: Callable[[int], bool]) -> Body:
    """The points (log records) of a body whose running number is wanted, in order, with what they stand in.

    They are numbered from 0 in the order in which they stand in the request.
    """
    request = request_of(body)
    number = kept = 0
    for points in _point_lists(request, body.signal):
        chosen = []
        for point in points:
            if wanted(number):
                chosen.append(point)
            number += 1
        kept += len(chosen)
        del points[:]
        points.extend(chosen)
    _drop_empty(request, body.signal)
    return Body(request.SerializeToString(), kept, body.signal)


def restamp_windows(body: Body, times: Mapping[int, int]) -> Body:
    """Delta points and log records at the times that `times` says for theirs, in nanoseconds.

    Each start and end of a window that `times` names moves. A start that is not named, and lies after the new
    end because a clock was ahead then, moves before it. When a log record was observed stays as it is: it is
    when we saw it.
    """
    request = request_of(body)
    for points in _point_lists(request, body.signal):
        for point in points:
            point.time_unix_nano = times.get(point.time_unix_nano, point.time_unix_nano)
            if body.signal == "metrics":
                start = times.get(point.start_time_unix_nano, point.start_time_unix_nano)
                point.start_time_unix_nano = (
                    start if start < point.time_unix_nano else point.time_unix_nano - SECOND
                )
    return Body(request.SerializeToString(), body.points, body.signal)


def names(body: Body) -> list[str]:
    """The names of the metrics or events in a body, for a message about it."""
    found = list(scopes(request_of(body), body.signal))
    if body.signal == "logs":
        return sorted({record.event_name for scope in found for record in scope.log_records})
    return sorted({metric.name for scope in found for metric in scope.metrics})


def data_points(metric: Metric) -> Any:
    """The repeated field of a metric's points, of whichever kind it is."""
    return getattr(metric, metric.WhichOneof("data") or "gauge").data_points


def scopes(request: Any, signal: Signal) -> Iterator[Any]:
    """The scopes of a request, whichever resource they are of."""
    for resource in getattr(request, f"resource_{signal}"):
        yield from getattr(resource, f"scope_{signal}")


def _point_lists(request: Any, signal: Signal) -> Iterator[Any]:
    """The repeated fields in which the points stand."""
    for scope in scopes(request, signal):
        if signal == "logs":
            yield scope.log_records
        else:
            yield from map(data_points, scope.metrics)


def _drop_empty(request: Any, signal: Signal) -> None:
    for resource in getattr(request, f"resource_{signal}"):
        scopes = getattr(resource, f"scope_{signal}")
        if signal == "metrics":
            for scope in scopes:
                _keep(scope.metrics, data_points)
        _keep(scopes, lambda scope: scope.log_records if signal == "logs" else scope.metrics)
    _keep(getattr(request, f"resource_{signal}"), lambda resource: getattr(resource, f"scope_{signal}"))


def _keep(items: Any, content: Callable[[Any], Any]) -> None:
    kept = [item for item in items if len(content(item))]
    del items[:]
    items.extend(kept)
