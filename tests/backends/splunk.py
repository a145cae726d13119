"""A stand-in for the ingest of Splunk Observability Cloud (SignalFx). It keeps what Splunk would keep.

The rules are those of Splunk's documentation (metric and dimension names, get histogram data in) and of the
Collector's signalfx exporter. Where those leave a choice, the stand-in refuses.
"""

from __future__ import annotations

import hmac
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_DELTA,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)

from exporter.sandbox.loopback import Answer, Request
from exporter.sandbox.points import Attributes
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
from tests.backends.signalfx_proto import COUNTER, GAUGE, DataPointUploadMessage

DATAPOINT = "/v2/datapoint"
OTLP_DATAPOINT = "/v2/datapoint/otlp"
MOST_DIMENSIONS = 36
MOST_BUCKETS = 30
LONGEST_METRIC = 256
LONGEST_VALUE = 256
OLDEST_SECONDS = 3600  # no limit is documented; later than that points cannot be relied upon
_LARGEST_BODY = 16 << 20
_LARGEST_UNPACKED = 64 << 20
_INT64 = range(-(2**63), 2**63)

_DIMENSION = re.compile(r"(?!sf_|aws_|gcp_|azure_)[A-Za-z][A-Za-z0-9_.-]{0,127}")
_KINDS: dict[int, Literal["gauge", "counter"]] = {GAUGE: "gauge", COUNTER: "counter"}


@dataclass(frozen=True, slots=True)
class SplunkPoint:
    """A datapoint as Splunk keeps it.

    Args:
        name: the metric's name.
        kind: a delta sum is a counter.
        dimensions: the resource's attributes and the point's own, as text.
        time_unix_milli: its time.
        unit: as sent, UCUM; None in the SignalFx format, which has none.
        value: of a gauge or counter.
        count: of a histogram, as are all that follow.
        sum: as received.
        min: as received; None when not sent.
        max: as received; None when not sent.
        kept_sum: as Splunk keeps it, a 64-bit integer: what is behind the point is lost.
        kept_min: likewise.
        kept_max: likewise.
        bounds: upper bounds of all buckets but the last.
        counts: one more than the bounds.
    """

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    dimensions: dict[str, str]
    time_unix_milli: int
    unit: str | None = None
    value: float | None = None
    count: int = 0
    sum: float | None = None
    min: float | None = None
    max: float | None = None
    kept_sum: int | None = None
    kept_min: int | None = None
    kept_max: int | None = None
    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


class SplunkIngest(Intake):
    """Splunk Observability's datapoint ingest on 127.0.0.1, at `/v2/datapoint` and `/v2/datapoint/otlp`.

    The former takes SignalFx protobuf and, marked `;format=otlp`, OTLP; the latter OTLP only. A datapoint
    that Splunk would drop is left out by itself, and stands in `refusals` with status 200.

    Args:
        token: what requests have to bear in `X-Sf-Token`.
        clock: Unix seconds.
        port: 0 takes a free one.
    """

    def __init__(self, *, token: str, clock: Callable[[], float] = time.time, port: int = 0) -> None:
        super().__init__(body_limit=_LARGEST_BODY, clock=clock, port=port)
        self._token = token
        self._points: list[SplunkPoint] = []

    def points(self) -> list[SplunkPoint]:
        """The datapoints kept, in the order in which they came; one that came twice stands here twice."""
        with self.lock:
            return list(self._points)

    def take(self, request: Request) -> tuple[Answer, list[str]]:
        """Keep the datapoints of a request."""
        body = self.checked(request, (DATAPOINT, OTLP_DATAPOINT), _LARGEST_UNPACKED)
        if not hmac.compare_digest(request.headers.get("X-Sf-Token", "").encode(), self._token.encode()):
            raise RefusedError("the access token is missing or wrong", 401)
        if _is_otlp(request):
            readings = _otlp_readings(body, self.clock())
        else:
            readings = _signalfx_readings(body, self.clock())
        points, left_out = sorted_out(readings)
        with self.lock:
            self._points += points
        return _json(200, "OK"), left_out

    def failure(self, status: int, reason: str) -> Answer:
        """JSON with code and message."""
        return _json(status, {"code": status, "message": reason})


def _json(status: int, content: object) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(content).encode())


def _is_otlp(request: Request) -> bool:
    """Which of the two formats the content type names; RefusedError for any other."""
    kind, *parameters = request.headers.get("Content-Type", "").replace(" ", "").lower().split(";")
    if kind != PROTOBUF_TYPE:
        raise RefusedError(f"the content type has to be {PROTOBUF_TYPE}", 415)
    if parameters not in ([], ["format=otlp"]):
        raise RefusedError(f"the only parameter of {PROTOBUF_TYPE} here is format=otlp", 415)
    return bool(parameters) or request.path == OTLP_DATAPOINT


def _signalfx_readings(body: bytes, now: float) -> Iterator[Callable[[], SplunkPoint]]:
    message: Any = DataPointUploadMessage()  # made at run time: no checker knows its fields
    parse(message, body)
    return (partial(_signalfx_point, point, now) for point in message.datapoints)


def _signalfx_point(point: Any, now: float) -> SplunkPoint:
    name = _name(point.metric)
    check_time(name, point.timestamp * 1_000_000, now, OLDEST_SECONDS)
    if not point.HasField("metricType") or point.metricType not in _KINDS:
        raise RefusedError(f"{name}: type {point.metricType} is neither gauge nor counter")
    value = [number for field, number in point.value.ListFields() if field.name != "strValue"]
    if len(value) != 1 or not math.isfinite(value[0]):
        raise RefusedError(f"{name}: a datapoint needs one finite number")
    return SplunkPoint(
        name=name,
        kind=_KINDS[point.metricType],
        dimensions=_dimensions(name, ((pair.key, pair.value) for pair in point.dimensions)),
        time_unix_milli=point.timestamp,
        value=float(value[0]),
    )


def _otlp_readings(body: bytes, now: float) -> Iterator[Callable[[], SplunkPoint]]:
    message = ExportMetricsServiceRequest()
    parse(message, body)
    for resource_metrics in message.resource_metrics:
        resource = flattened(resource_metrics.resource.attributes, "resource")
        for scope in resource_metrics.scope_metrics:
            for metric in scope.metrics:
                yield from _metric_readings(metric, resource, now)


def _metric_readings(metric: Metric, resource: Attributes, now: float) -> Iterator[Callable[[], SplunkPoint]]:
    kind = metric.WhichOneof("data")
    if kind == "gauge":
        for number in metric.gauge.data_points:
            yield partial(_number, metric, "gauge", number, resource, now)
    elif kind == "sum":
        for number in metric.sum.data_points:
            yield partial(_number, metric, "counter", number, resource, now)
    elif kind == "histogram":
        for point in metric.histogram.data_points:
            yield partial(_histogram, metric, point, resource, now)
    else:
        yield partial(_unmodelled, metric.name, kind)


def _unmodelled(name: str, kind: str | None) -> SplunkPoint:
    raise RefusedError(f"{name[:80]}: {kind or 'no data'} is not one of gauge, sum and histogram")


def _number(
    metric: Metric,
    kind: Literal["gauge", "counter"],
    point: NumberDataPoint,
    resource: Attributes,
    now: float,
) -> SplunkPoint:
    name = _name(metric.name)
    check_time(name, point.time_unix_nano, now, OLDEST_SECONDS)
    if kind == "counter":
        _check_delta(name, metric.sum.aggregation_temporality)
        if not metric.sum.is_monotonic:
            raise RefusedError(f"{name}: a sum that is not monotonic would become a gauge")
    field = point.WhichOneof("value")
    value = float(point.as_int) if field == "as_int" else point.as_double
    if field is None or not math.isfinite(value):
        raise RefusedError(f"{name}: a datapoint needs one finite number")
    return SplunkPoint(
        name=name,
        kind=kind,
        dimensions=_otlp_dimensions(name, flattened(point.attributes, name), resource),
        time_unix_milli=point.time_unix_nano // 1_000_000,
        unit=metric.unit,
        value=value,
    )


def _histogram(metric: Metric, point: HistogramDataPoint, resource: Attributes, now: float) -> SplunkPoint:
    name = _name(metric.name)
    check_time(name, point.time_unix_nano, now, OLDEST_SECONDS)
    _check_delta(name, metric.histogram.aggregation_temporality)
    check_buckets(name, point)
    check_sum(name, point)
    if len(point.bucket_counts) > MOST_BUCKETS:
        raise RefusedError(f"{name}: {len(point.bucket_counts)} buckets; the limit is {MOST_BUCKETS}")
    least, greatest = extremes(name, point) or (None, None)
    if least is not None and least == greatest:
        raise RefusedError(f"{name}: min has to be below max")
    return SplunkPoint(
        name=name,
        kind="histogram",
        dimensions=_otlp_dimensions(name, flattened(point.attributes, name), resource),
        time_unix_milli=point.time_unix_nano // 1_000_000,
        unit=metric.unit,
        count=point.count,
        sum=point.sum,
        min=least,
        max=greatest,
        kept_sum=_integer(name, point.sum),
        kept_min=_integer(name, least),
        kept_max=_integer(name, greatest),
        bounds=tuple(point.explicit_bounds),
        counts=tuple(point.bucket_counts),
    )


def _integer(name: str, value: float | None) -> int | None:
    """The value as a 64-bit integer, towards zero; RefusedError when it does not fit into one."""
    if value is None:
        return None
    if (whole := math.trunc(value)) not in _INT64:
        raise RefusedError(f"{name}: {value:g} does not fit into 64 bits")
    return whole


def _check_delta(name: str, temporality: int) -> None:
    if temporality != AGGREGATION_TEMPORALITY_DELTA:
        raise RefusedError(f"{name}: the temporality has to be delta")


def _name(name: str) -> str:
    if not 0 < len(name) <= LONGEST_METRIC:
        raise RefusedError(f"metric name {name[:80]!r} has {len(name)} characters; at most {LONGEST_METRIC}")
    return name


def _otlp_dimensions(name: str, own: Attributes, resource: Attributes) -> dict[str, str]:
    both = [*resource.items(), *own.items()]
    return _dimensions(name, ((key, text_of(value, f"{name}: dimension {key}")) for key, value in both))


def _dimensions(name: str, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    dimensions: dict[str, str] = {}
    for key, value in pairs:
        if not _DIMENSION.fullmatch(key):
            raise RefusedError(f"{name}: dimension name {key[:80]!r} would be rewritten or dropped")
        if not 0 < len(value) <= LONGEST_VALUE:
            raise RefusedError(f"{name}: the value of dimension {key} has {len(value)} characters; 1 to 256")
        if key in dimensions:
            raise RefusedError(f"{name}: dimension {key} twice")
        dimensions[key] = value
    if len(dimensions) > MOST_DIMENSIONS:
        raise RefusedError(f"{name}: {len(dimensions)} dimensions; the limit is {MOST_DIMENSIONS}")
    return dimensions
