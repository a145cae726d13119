"""A stand-in for Datadog's OTLP intake. It keeps what Datadog would show.

The rules are those of Datadog's documentation of its OTLP intake, custom metrics, tags and logs, and of
its mapping of OTLP (repository opentelemetry-mapping-go). Where those leave a choice, the stand-in refuses.
"""

from __future__ import annotations

import hmac
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from google.protobuf.message import Message

# The package has stub files, but does not declare them.
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped, unused-ignore]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_DELTA,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)

from exporter.sandbox.loopback import Answer, Request
from exporter.sandbox.points import Attributes, AttributeValue
from tests.backends.histograms import check_buckets, check_sum, extremes
from tests.backends.intake import (
    PROTOBUF_TYPE,
    Intake,
    RefusedError,
    check_time,
    flattened,
    parse,
    sorted_out,
    text_of,
)

METRICS = "/v1/metrics"
LOGS = "/v1/logs"
LARGEST_METRICS = 512 << 10  # bytes as sent
LARGEST_LOGS = 5 << 20  # bytes unpacked; the documentation says 5.1 MiB
LARGEST_RECORD = 1_000_000  # bytes; what is longer is cut
LONGEST_KEY = 49  # characters of a log attribute's key
LONGEST_TAG = 200
OLDEST_POINT_SECONDS = 3600
OLDEST_RECORD_SECONDS = 18 * 3600
_LARGEST_UNPACKED = 64 << 20
_LARGEST_BUCKET = 2**31 - 1

_NAME = re.compile(r"(?!system\.|process\.)[A-Za-z][A-Za-z0-9_.]{0,199}")
_OUTSIDE_TAGS = re.compile(r"(?:[^\w:./-]|_)+")
_BEFORE_TAGS = re.compile(r"^[\W\d_]+")

_UNIFIED = {
    "service.name": "service",
    "service.version": "version",
    "deployment.environment": "env",
    "deployment.environment.name": "env",
}
_LITERAL = frozenset({"service", "version", "env", "region", "os_name", "os_version"})
_HOST = ("host", "datadog.host.name", "k8s.node.name", "host.id", "host.name")

# Datadog makes message, status, trace, tags or host of an attribute of one of these names.
_TAKEN = frozenset(
    {
        *("msg", "message", "log", "status", "severity", "level", "syslog.severity"),
        *("traceid", "trace_id", "contextmap.traceid", "oteltraceid"),
        *("spanid", "span_id", "contextmap.spanid", "otelspanid"),
        *("ddtags", "hostname", "service"),
    }
)
_STATUSES = ("trace", "debug", "info", "warn", "error", "fatal")  # four severity numbers each

Tags = frozenset[str]
Kind = Literal["gauge", "count", "distribution"]


@dataclass(frozen=True, slots=True)
class DatadogPoint:
    """A point as Datadog shows it.

    Args:
        name: the metric's name.
        unit: as sent, UCUM.
        kind: a delta sum is a count, a histogram a distribution.
        tags: `key:value` as Datadog spells them.
        time: Unix seconds, whole.
        value: of a gauge or count.
        count: of a distribution, as are all that follow.
        sum: in the metric's unit.
        min: as sent, else the lower bound of the first bucket with anything in it.
        max: as sent, else the upper bound of the last such bucket.
        bounds: upper bounds of all buckets but the last.
        counts: one more than the bounds.
    """

    name: str
    unit: str
    kind: Kind
    tags: Tags
    time: int
    value: float | None = None
    count: int = 0
    sum: float | None = None
    min: float | None = None
    max: float | None = None
    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class DatadogRecord:
    """A log as Datadog shows it.

    Args:
        message: the body.
        status: lower case; from the severity's text, else from its number.
        service: the resource's `service.name`; empty without one.
        event_name: as sent.
        time_unix_nano: when it happened.
        tags: those that Datadog makes of the resource.
        attributes: the record's own and its resource's, maps flattened, values of the types sent.
    """

    message: str
    status: str
    service: str
    event_name: str
    time_unix_nano: int
    tags: Tags
    attributes: Attributes


class DatadogIntake(Intake):
    """Datadog's OTLP intake on 127.0.0.1, at `/v1/metrics` and `/v1/logs`.

    A request that the intake would answer with an error is refused whole. What it would take and then drop,
    cut or change without a word is left out by itself, and stands in `refusals` with status 200.

    Args:
        key: the API key that requests have to bear in `dd-api-key`.
        clock: Unix seconds.
        port: 0 takes a free one.
    """

    def __init__(self, *, key: str, clock: Callable[[], float] = time.time, port: int = 0) -> None:
        super().__init__(body_limit=LARGEST_LOGS, clock=clock, port=port)
        self._key = key
        self._points: dict[tuple[str, int, Tags], DatadogPoint] = {}
        self._records: list[DatadogRecord] = []

    def points(self) -> list[DatadogPoint]:
        """The points shown: of those with one name, second and tags the last."""
        with self.lock:
            return list(self._points.values())

    def records(self) -> list[DatadogRecord]:
        """The logs, in the order in which they came; one that came twice stands here twice."""
        with self.lock:
            return list(self._records)

    def take(self, request: Request) -> tuple[Answer, list[str]]:
        """Keep the points or logs of a request."""
        unpacked_limit = LARGEST_LOGS if request.path == LOGS else _LARGEST_UNPACKED
        body = self.checked(request, (METRICS, LOGS), unpacked_limit)
        if not hmac.compare_digest(request.headers.get("dd-api-key", "").encode(), self._key.encode()):
            raise RefusedError("the API key is missing or wrong", 403)
        if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != PROTOBUF_TYPE:
            raise RefusedError(f"the content type has to be {PROTOBUF_TYPE}", 415)
        if request.path == LOGS:
            return self._take_logs(body)
        return self._take_metrics(body, request)

    def failure(self, status: int, reason: str) -> Answer:
        """A google.rpc.Status with the reason."""
        return _protobuf(status, Status(message=reason))

    def _take_metrics(self, body: bytes, request: Request) -> tuple[Answer, list[str]]:
        if len(request.body) > LARGEST_METRICS:
            raise RefusedError(f"the body is larger than {LARGEST_METRICS} bytes", 413)
        everything = _resource_attributes_as_tags(request.headers.get("dd-otel-metric-config", "{}"))
        message = ExportMetricsServiceRequest()
        parse(message, body)
        _check_temporality(message)
        points, left_out = sorted_out(_point_readings(message, everything, self.clock()))
        with self.lock:
            self._points |= {(point.name, point.time, point.tags): point for point in points}
        return _protobuf(200, ExportMetricsServiceResponse()), left_out

    def _take_logs(self, body: bytes) -> tuple[Answer, list[str]]:
        message = ExportLogsServiceRequest()
        parse(message, body)
        records, left_out = sorted_out(_record_readings(message, self.clock()))
        with self.lock:
            self._records += records
        return _protobuf(200, ExportLogsServiceResponse()), left_out


def tag(key: str, value: AttributeValue) -> str:
    """An attribute as the tag `key:value` in Datadog's spelling.

    Lower case; letters of any script, digits and `_-:./`, all else an underscore, of several one, none at
    the end; a letter first; 200 characters; `n/a` for an empty value (Datadog, Getting Started with Tags).
    """
    text = f"{key}:{text_of(value, key) or 'n/a'}".lower()
    text = _BEFORE_TAGS.sub("", _OUTSIDE_TAGS.sub("_", text))
    return text[:LONGEST_TAG].rstrip("_")


def tags_of(
    attributes: Mapping[str, AttributeValue], resource: Mapping[str, AttributeValue], *, everything: bool
) -> Tags:
    """The tags of a point.

    Args:
        attributes: the point's own; each becomes a tag.
        resource: its resource's; those of unified service tagging and the host's name become tags.
        everything: all others of the resource as well, under their own names.
    """
    tags = {tag(key, value) for key, value in attributes.items()}
    tags |= {tag(_UNIFIED[key], value) for key, value in resource.items() if key in _UNIFIED and value != ""}
    tags |= {tag(key, value) for key, value in resource.items() if everything or key in _LITERAL}
    if host := next((resource[key] for key in _HOST if resource.get(key)), None):
        tags.add(tag("host", host))
    return frozenset(tags)


def _protobuf(status: int, message: Message) -> Answer:
    return Answer(status, {"Content-Type": PROTOBUF_TYPE}, message.SerializeToString())


def _resource_attributes_as_tags(header: str) -> bool:
    """What `dd-otel-metric-config` says of it; the header's other settings are refused, but for defaults."""
    try:
        config = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise RefusedError("dd-otel-metric-config is not JSON") from error
    if not isinstance(config, dict):
        raise RefusedError("dd-otel-metric-config is not a JSON object")
    everything = config.pop("resource_attributes_as_tags", False)
    if not isinstance(everything, bool):
        raise RefusedError("dd-otel-metric-config: resource_attributes_as_tags has to be true or false")
    if config.pop("histograms", {"mode": "distributions"}) != {"mode": "distributions"}:
        raise RefusedError("dd-otel-metric-config: histograms other than distributions are not modelled")
    if config:
        raise RefusedError(f"dd-otel-metric-config: {min(config)[:80]!r} is not modelled")
    return everything


def _metrics(message: ExportMetricsServiceRequest) -> Iterator[tuple[Metric, Attributes]]:
    for resource_metrics in message.resource_metrics:
        resource = flattened(resource_metrics.resource.attributes, "resource")
        for scope in resource_metrics.scope_metrics:
            for metric in scope.metrics:
                yield metric, resource


def _check_temporality(message: ExportMetricsServiceRequest) -> None:
    """The intake answers cumulative data with an error."""
    for metric, _ in _metrics(message):
        kind = metric.WhichOneof("data")
        if kind in ("sum", "histogram", "exponential_histogram"):
            temporality = getattr(metric, kind).aggregation_temporality
            if temporality != AGGREGATION_TEMPORALITY_DELTA:
                raise RefusedError(f"{metric.name}: only delta temporality is taken")


def _point_readings(
    message: ExportMetricsServiceRequest, everything: bool, now: float
) -> Iterator[Callable[[], DatadogPoint]]:
    for metric, resource in _metrics(message):
        kind = metric.WhichOneof("data")
        if kind == "gauge":
            numbers: Iterable[NumberDataPoint] = metric.gauge.data_points
        elif kind == "sum":
            numbers = metric.sum.data_points
        else:
            numbers = ()
        for number in numbers:
            yield partial(_number, metric, number, resource, everything, now)
        if kind == "histogram":
            for point in metric.histogram.data_points:
                yield partial(_distribution, metric, point, resource, everything, now)
        elif kind not in ("gauge", "sum"):
            yield partial(_unmodelled, metric.name, kind)


def _unmodelled(name: str, kind: str | None) -> DatadogPoint:
    raise RefusedError(f"{name[:80]}: {kind or 'no data'} is not one of gauge, sum and histogram")


def _number(
    metric: Metric, point: NumberDataPoint, resource: Attributes, everything: bool, now: float
) -> DatadogPoint:
    _check_point(metric.name, point.time_unix_nano, now)
    field = point.WhichOneof("value")
    value = float(point.as_int) if field == "as_int" else point.as_double
    if field is None or not math.isfinite(value):
        raise RefusedError(f"{metric.name}: without a finite value it is skipped")
    return DatadogPoint(
        name=metric.name,
        unit=metric.unit,
        kind="gauge" if metric.HasField("gauge") else "count",
        tags=tags_of(flattened(point.attributes, metric.name), resource, everything=everything),
        time=point.time_unix_nano // 1_000_000_000,
        value=value,
    )


def _distribution(
    metric: Metric, point: HistogramDataPoint, resource: Attributes, everything: bool, now: float
) -> DatadogPoint:
    _check_point(metric.name, point.time_unix_nano, now)
    check_buckets(metric.name, point)
    check_sum(metric.name, point)
    if max(point.bucket_counts) > _LARGEST_BUCKET:
        raise RefusedError(f"{metric.name}: a bucket holds more than {_LARGEST_BUCKET}")
    least, greatest = extremes(metric.name, point) or _outer_bounds(metric.name, point)
    return DatadogPoint(
        name=metric.name,
        unit=metric.unit,
        kind="distribution",
        tags=tags_of(flattened(point.attributes, metric.name), resource, everything=everything),
        time=point.time_unix_nano // 1_000_000_000,
        count=point.count,
        sum=point.sum,
        min=least,
        max=greatest,
        bounds=tuple(point.explicit_bounds),
        counts=tuple(point.bucket_counts),
    )


def _check_point(name: str, time_unix_nano: int, now: float) -> None:
    if not _NAME.fullmatch(name):
        raise RefusedError(f"metric name {name[:80]!r} would be rewritten")
    check_time(name, time_unix_nano, now, OLDEST_POINT_SECONDS)


def _outer_bounds(name: str, point: HistogramDataPoint) -> tuple[float, float]:
    """Where the outermost buckets with anything in them end; an infinite end is its finite other one."""
    bounds = list(point.explicit_bounds)
    if not bounds:
        raise RefusedError(f"{name}: one bucket without bounds, min and max says nothing")
    filled = [place for place, count in enumerate(point.bucket_counts) if count]
    return bounds[max(filled[0] - 1, 0)], bounds[min(filled[-1], len(bounds) - 1)]


def _record_readings(message: ExportLogsServiceRequest, now: float) -> Iterator[Callable[[], DatadogRecord]]:
    for resource_logs in message.resource_logs:
        resource = flattened(resource_logs.resource.attributes, "resource")
        for scope in resource_logs.scope_logs:
            for record in scope.log_records:
                size = record.ByteSize() + resource_logs.resource.ByteSize()
                yield partial(_record, record, resource, size, now)


def _record(record: LogRecord, resource: Attributes, size: int, now: float) -> DatadogRecord:
    where = record.event_name or "a log without event name"
    check_time(where, record.time_unix_nano, now, OLDEST_RECORD_SECONDS)
    if size > LARGEST_RECORD:
        raise RefusedError(f"{where}: {size} bytes; it is cut after {LARGEST_RECORD}")
    own = flattened(record.attributes, where)
    if both := own.keys() & resource.keys():
        raise RefusedError(f"{where}: {min(both)} is an attribute of the resource already")
    _check_keys(where, {**own, **resource})
    return DatadogRecord(
        message=_message(where, record),
        status=_status(where, record),
        service=text_of(resource.get("service.name", ""), "service.name"),
        event_name=record.event_name,
        time_unix_nano=record.time_unix_nano,
        tags=tags_of({}, resource, everything=False),
        attributes={**own, **resource},
    )


def _check_keys(where: str, attributes: Mapping[str, object]) -> None:
    for key in attributes:
        if not 0 < len(key) <= LONGEST_KEY:
            raise RefusedError(f"{where}: attribute key {key[:80]!r} has {len(key)} characters; at most 49")
        if key.lower() in _TAKEN:
            raise RefusedError(f"{where}: Datadog would make something else of attribute {key}")


def _message(where: str, record: LogRecord) -> str:
    if not record.body.string_value.strip():
        raise RefusedError(f"{where}: the body has to be a text that is not blank")
    return record.body.string_value


def _status(where: str, record: LogRecord) -> str:
    if record.severity_text:
        return record.severity_text.lower()
    if not 1 <= record.severity_number <= 24:
        raise RefusedError(f"{where}: neither a severity text nor a severity number from 1 to 24")
    return _STATUSES[(record.severity_number - 1) // 4]
