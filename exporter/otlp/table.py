"""A request as lines for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from exporter.otlp.edit import data_points, request_of
from exporter.otlp.encode import Body

_STACK = "code.stacktrace"
_MOST_STACK_LINES = 20


def lines(body: Body) -> Iterator[str]:
    """A heading for each resource, then its points or its events.

    A line for each point: metric, value with unit, attributes. A line for each event: name, severity, the
    first line of its body, attributes; its call stack below, as far as twenty lines show it.
    """
    request = request_of(body)
    for resource in getattr(request, f"resource_{body.signal}"):
        yield "# " + _attributes(resource.resource.attributes)
        for scope in getattr(resource, f"scope_{body.signal}"):
            yield from _events(scope.log_records) if body.signal == "logs" else _points(scope.metrics)


def _points(metrics: Iterable[Any]) -> Iterator[str]:
    for metric in metrics:
        for point in data_points(metric):
            value = f"{_value(metric.WhichOneof('data') or '', point)} {metric.unit}".rstrip()
            attributes = _attributes(point.attributes)
            yield f"{_time(point)}  {metric.name:<42} {value:>18}  {attributes}"


def _events(records: Iterable[Any]) -> Iterator[str]:
    for record in records:
        said = _plain(_text(record.body).partition("\n")[0])
        attributes = _attributes(item for item in record.attributes if item.key != _STACK)
        yield f"{_time(record)}  {record.event_name:<42} {record.severity_text:>18}  {said}  {attributes}"
        for item in record.attributes:
            if item.key == _STACK:
                yield from _stack(_text(item.value).splitlines())


def _stack(stack: list[str]) -> Iterator[str]:
    for line in stack[:_MOST_STACK_LINES]:
        yield "    " + _plain(line)
    if len(stack) > _MOST_STACK_LINES:
        yield f"    … {len(stack) - _MOST_STACK_LINES} more lines"


def _time(point: Any) -> str:
    return f"{datetime.fromtimestamp(point.time_unix_nano / 1e9, UTC):%H:%M:%S}"


def _value(kind: str, point: Any) -> str:
    if kind == "histogram":
        mean = point.sum / point.count if point.count else 0.0
        return f"n={point.count} mean={mean:.6g}"
    return f"{getattr(point, point.WhichOneof('value') or 'as_double'):.6g}"


def _attributes(attributes: Iterable[Any]) -> str:
    return "  ".join(f"{item.key}={_plain(_text(item.value))}" for item in attributes)


def _text(value: Any) -> str:
    """A plain value of an attribute or a body as text; others are of no event of ours."""
    kind = value.WhichOneof("value")
    return str(getattr(value, kind)) if kind else ""


def _plain(text: str) -> str:
    """One line that cannot steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)
