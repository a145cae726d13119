"""A request as lines for people to read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from exporter.otlp.edit import data_points
from exporter.otlp.encode import Body


def lines(body: Body) -> Iterator[str]:
    """A heading for each resource, a line for each point: metric, value with unit, attributes."""
    request = ExportMetricsServiceRequest.FromString(body.data)
    for resource_metrics in request.resource_metrics:
        yield "# " + _attributes(resource_metrics.resource.attributes)
        for scope_metrics in resource_metrics.scope_metrics:
            for metric in scope_metrics.metrics:
                for point in data_points(metric):
                    moment = datetime.fromtimestamp(point.time_unix_nano / 1e9, UTC)
                    value = f"{_value(metric.WhichOneof('data') or '', point)} {metric.unit}".rstrip()
                    yield f"{moment:%H:%M:%S}  {metric.name:<42} {value:>18}  {_attributes(point.attributes)}"


def _value(kind: str, point: Any) -> str:
    if kind == "histogram":
        mean = point.sum / point.count if point.count else 0.0
        return f"n={point.count} mean={mean:.6g}"
    return f"{getattr(point, point.WhichOneof('value') or 'as_double'):.6g}"


def _attributes(attributes: Any) -> str:
    return "  ".join(f"{item.key}={item.value.string_value}" for item in attributes)
