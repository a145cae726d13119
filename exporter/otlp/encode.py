"""The SDK's metrics and log records → protobuf, byte for byte what the official encoder makes of them.

Nearly every point we send is a gauge point with text attributes out of a small vocabulary. Those are written
here, each attribute once per call; everything else goes through the official encoder. A body holds whole
`resource_metrics` fields of an ExportMetricsServiceRequest, or `resource_logs` fields of an
ExportLogsServiceRequest, so bodies of one signal joined are again such a request.

Field numbers: opentelemetry-proto, metrics/v1/metrics.proto and collector/metrics/v1/metrics_service.proto.
Those of logs/v1/logs.proto are the same, as far as they are used here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as ProtobufMetric
from opentelemetry.sdk.metrics.export import (
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.util.types import Attributes

if TYPE_CHECKING:
    from opentelemetry._logs import LogRecord
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as ProtobufLogRecord

MOST_BYTES = (
    1 << 20
)  # of one body: several fit below gRPC's 4 MiB, and a poison one costs little to take apart

MOST_OWED_BYTES = 480_000  # of a body that must not come twice: more, and the Collector cuts it for Datadog

Signal = Literal["metrics", "logs"]

_FIELD_1, _FIELD_2, _FIELD_3, _FIELD_5, _ATTRIBUTES = b"\x0a", b"\x12", b"\x1a", b"\x2a", b"\x3a"
_FRAME = 6  # the tag and the length of a message, at the most
_FRAMES = 2 * _FRAME  # of ResourceMetrics and ScopeMetrics
_TIME = b"\x19"  # NumberDataPoint.time_unix_nano, field 3, fixed64
_pack_time = struct.Struct("<Q").pack
_pack_double = struct.Struct("<cd").pack  # NumberDataPoint.as_double, field 4


class Body(NamedTuple):
    """Part of an export request of OTLP, and how many points (for logs: records) it holds."""

    data: bytes
    points: int
    signal: Signal = "metrics"


def encode(
    resource: Resource,
    scope: InstrumentationScope,
    metrics: Sequence[Metric],
    *,
    most_bytes: int = MOST_BYTES,
) -> list[Body]:
    """Metrics of one resource and scope as bodies of `most_bytes` at the most.

    A metric that does not fit goes on in the next body. No metrics, no bodies. A single point larger than
    `most_bytes` makes a body of its own.
    """
    envelope = _envelope(resource, scope)
    room = _room(envelope, most_bytes)
    attributes = _Attributes()
    fields = (field for metric in metrics for field in _metric_fields(metric, attributes, room))
    return list(_packed(fields, envelope, room, "metrics"))


def encode_events(
    resource: Resource,
    scope: InstrumentationScope,
    records: Sequence[LogRecord],
    *,
    most_bytes: int = MOST_OWED_BYTES,
) -> list[Body]:
    """Log records of one resource and scope as bodies of `most_bytes` at the most, in their order.

    An attribute whose value is None is left out: an empty value would be shown as one. No records, no bodies.
    A single record larger than `most_bytes` makes a body of its own.
    """
    envelope = _envelope(resource, scope)
    fields = ((_field(_FIELD_2, record.SerializeToString()), 1) for record in _official_records(records))
    return list(_packed(fields, envelope, _room(envelope, most_bytes), "logs"))


def restamp(body: Body, old: int, new: int) -> Body:
    """The same gauges at another time.

    Args:
        body: gauges that all bear the time `old`, for which `can_be_restamped` was true.
        old, new: nanoseconds since the epoch.
    """
    return Body(body.data.replace(_TIME + _pack_time(old), _TIME + _pack_time(new)), body.points)


def can_be_restamped(body: Body, time: int) -> bool:
    """Whether the bytes of `time` stand in the body once a point and nowhere else."""
    return body.data.count(_TIME + _pack_time(time)) == body.points


def _room(envelope: tuple[bytes, bytes], most_bytes: int) -> int:
    """What a body of that size has room for, beside resource and scope."""
    return most_bytes - sum(map(len, envelope)) - _FRAMES


def _packed(
    fields: Iterable[tuple[bytes, int]], envelope: tuple[bytes, bytes], room: int, signal: Signal
) -> Iterator[Body]:
    """Fields of a scope, with the number of points in each, in as few bodies as they fit into."""
    resource_field, scope_field = envelope
    held: list[bytes] = []
    size = points = 0

    def body() -> Body:
        data = resource_field + _field(_FIELD_2, scope_field + b"".join(held))
        return Body(_field(_FIELD_1, data), points, signal)

    for data, count in fields:
        if held and size + len(data) > room:
            yield body()
            held.clear()
            size = points = 0
        held.append(data)
        size += len(data)
        points += count
    if held:
        yield body()


def _metric_fields(metric: Metric, attributes: _Attributes, most_bytes: int) -> Iterator[tuple[bytes, int]]:
    """`ScopeMetrics.metrics` fields with the number of points in each."""
    if not isinstance(metric.data, Gauge):
        yield from _official_fields(metric, most_bytes)
        return
    texts = (_FIELD_1, metric.name), (_FIELD_2, metric.description), (_FIELD_3, metric.unit)
    head = b"".join(_field(tag, text.encode()) for tag, text in texts if text)
    points = _gauge_points(metric.data.data_points, attributes)
    for first, last in _slices(points, most_bytes - len(head) - 2 * _FRAME):
        data = head + _field(_FIELD_5, b"".join(points[first:last]))
        yield _field(_FIELD_2, data), last - first


def _official_fields(metric: Metric, most_bytes: int) -> Iterator[tuple[bytes, int]]:
    """The same for a metric of any kind; one that is too large is halved until it fits."""
    points = metric.data.data_points
    data = _field(_FIELD_2, _official_message(metric).SerializeToString())
    if len(data) <= most_bytes or len(points) < 2:
        yield data, len(points)
        return
    middle = len(points) // 2
    for half in (points[:middle], points[middle:]):
        data_of_half = replace(metric.data, data_points=half)  # type: ignore[arg-type]  # of the same kind
        yield from _official_fields(replace(metric, data=data_of_half), most_bytes)


def _gauge_points(data_points: Sequence[NumberDataPoint], attributes: _Attributes) -> list[bytes]:
    """`Gauge.data_points` fields."""
    time, stamp = 0, b""
    fields = []
    for point in data_points:
        if point.time_unix_nano != time:
            time = point.time_unix_nano
            stamp = _TIME + _pack_time(time) if time else b""
        value = point.value
        number = _pack_double(b"\x21", value) if value.__class__ is float else _integer(value)
        data = stamp + number + attributes.encode(point.attributes)
        size = len(data)
        fields.append((_HEADS[size] if size < len(_HEADS) else _FIELD_1 + _varint(size)) + data)
    return fields


def _slices(points: list[bytes], most_bytes: int) -> Iterator[tuple[int, int]]:
    """Ranges of points that stay below a size, each of one point at least (none for no points)."""
    first = size = 0
    for index, point in enumerate(points):
        if size + len(point) > most_bytes and index > first:
            yield first, index
            first, size = index, 0
        size += len(point)
    if first < len(points):
        yield first, len(points)


class _Attributes:
    """`NumberDataPoint.attributes` fields. Lives for one call of `encode`, so it cannot grow for ever.

    A value and its companions share one mapping, so a mapping is known again by its identity: the metrics
    given to `encode` keep it alive meanwhile.
    """

    def __init__(self) -> None:
        self._by_identity: dict[int, bytes] = {}
        self._by_item: dict[tuple[str, object], bytes] = {}

    def encode(self, attributes: Attributes) -> bytes:
        encoded = self._by_identity.get(id(attributes))
        if encoded is None:
            encoded = b"".join(map(self._item, (attributes or {}).items()))
            self._by_identity[id(attributes)] = encoded
        return encoded

    def _item(self, item: tuple[str, object]) -> bytes:
        encoded = self._by_item.get(item) if item[1].__class__ is str else None  # 1, 1.0 and True are one key
        if encoded is None:
            encoded = _official_attribute(*item)
            if item[1].__class__ is str:
                self._by_item[item] = encoded
        return encoded


def _official_attribute(key: str, value: Any) -> bytes:
    """The fields for an attribute of any type; none where the official encoder refuses it (and logs so)."""
    point = NumberDataPoint({key: value}, 0, 0, 0.0)
    message = _official_message(Metric("", "", "", Gauge([point])))
    return b"".join(
        _field(_ATTRIBUTES, item.SerializeToString()) for item in message.gauge.data_points[0].attributes
    )


def _integer(value: float) -> bytes:
    """`as_int` (field 6, sfixed64), or `as_double` for a subclass of float, as the official encoder does."""
    if isinstance(value, int):
        return b"\x31" + struct.pack("<q", value)
    return _pack_double(b"\x21", value)


def _official_message(metric: Metric) -> ProtobufMetric:
    """A metric of any kind through the official encoder."""
    scope_metrics = ScopeMetrics(InstrumentationScope(""), [metric], "")
    request = encode_metrics(MetricsData([ResourceMetrics(Resource({}), [scope_metrics], "")]))
    return request.resource_metrics[0].scope_metrics[0].metrics[0]


def _official_records(records: Sequence[LogRecord]) -> Iterable[ProtobufLogRecord]:
    """Log records through the official encoder, without the attributes that have no value."""
    if not records:
        return []
    # Imported here, because only those who have events should pay for it at the start.
    from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
    from opentelemetry.sdk._logs import ReadableLogRecord

    resource, scope = Resource({}), InstrumentationScope("")
    request = encode_logs([ReadableLogRecord(record, resource, scope) for record in records])
    encoded = request.resource_logs[0].scope_logs[0].log_records
    for record in encoded:
        valued = [item for item in record.attributes if item.value.WhichOneof("value")]
        del record.attributes[:]
        record.attributes.extend(valued)
    return encoded


def _envelope(resource: Resource, scope: InstrumentationScope) -> tuple[bytes, bytes]:
    """The `resource` field of ResourceMetrics and `scope` field of ScopeMetrics, by the official encoder."""
    request: ExportMetricsServiceRequest = encode_metrics(
        MetricsData([ResourceMetrics(resource, [ScopeMetrics(scope, [], "")], "")])
    )
    message = request.resource_metrics[0]
    return (
        _field(_FIELD_1, message.resource.SerializeToString()),
        _field(_FIELD_1, message.scope_metrics[0].scope.SerializeToString()),
    )


def _field(tag: bytes, data: bytes) -> bytes:
    return tag + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_HEADS = [_FIELD_1 + _varint(size) for size in range(1024)]
