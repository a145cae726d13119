"""A strict OTLP/HTTP receiver that keeps what it accepted."""

from __future__ import annotations

import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from google.protobuf.message import DecodeError, Message

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

from exporter.sandbox.loopback import Answer, LoopbackServer, Request
from exporter.sandbox.points import Point, RefusedError, SeriesKey, read_points
from exporter.sandbox.records import Record, read_records

PROTOBUF_TYPE = "application/x-protobuf"
LARGEST_BODY = 20 * 1024 * 1024  # the Collector's own limit

_GRPC_CODES = {400: 3, 404: 5, 405: 12, 413: 8, 415: 3, 429: 8, 503: 14}
_UNKNOWN = 2


@dataclass(frozen=True)
class OtlpFault:
    """What to do wrong with an answer.

    With a `status` or a `body`, or with `close="before"`, nothing of the request is kept; with the rest
    it is kept as usual.

    Args:
        status: the HTTP status; 200 with a `body` is a proxy that answers in the Collector's place.
        headers: headers to add, such as `Retry-After` or `Location`.
        body: the body; by default a google.rpc.Status.
        content_type: by default that of protobuf.
        partial_success: how many points or log records were rejected (the last of the request), and why.
        delay: seconds to wait before answering.
        close: drop the connection without an answer, `before` or `after` having stored the data.
        path: which requests it is for, such as `/v1/logs`; None: whichever comes next.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = PROTOBUF_TYPE
    partial_success: tuple[int, str] | None = None
    delay: float = 0.0
    close: Literal["before", "after"] | None = None
    path: str | None = None


@dataclass(frozen=True)
class OtlpRequest:
    """A request that came in.

    Args:
        path: `/v1/metrics`, `/v1/logs`, or what else was tried.
        status: what was answered; None if the connection was dropped instead.
        points: points or log records that were kept.
        bytes: length of the body as sent.
        at: the receiver's clock, Unix seconds.
    """

    path: str
    status: int | None
    points: int
    bytes: int
    at: float


class _ProblemError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class OtlpReceiver(LoopbackServer):
    """An OTLP receiver on 127.0.0.1 that refuses what a backend would refuse or spoil.

    Args:
        keep: how many points and how many log records to keep; older ones are forgotten.
        clock: Unix seconds; points and records have to lie near it.
        on_request: told about each request, in the thread that serves it.
        port: 0 takes a free one.
    """

    def __init__(
        self,
        *,
        keep: int = 100_000,
        clock: Callable[[], float] = time.time,
        on_request: Callable[[OtlpRequest], None] | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(port=port, body_limit=LARGEST_BODY)
        self._clock = clock
        self._on_request = on_request
        self._lock = threading.Lock()
        self._faults: deque[OtlpFault] = deque()
        self._points: deque[Point] = deque(maxlen=keep)
        self._records: deque[Record] = deque(maxlen=keep)
        self._requests: deque[OtlpRequest] = deque(maxlen=keep)

    @property
    def points(self) -> list[Point]:
        """The points kept, in the order in which they came."""
        with self._lock:
            return list(self._points)

    @property
    def records(self) -> list[Record]:
        """The log records kept, in the order in which they came; one that came twice stands here twice."""
        with self._lock:
            return list(self._records)

    @property
    def requests(self) -> list[OtlpRequest]:
        """The requests so far, refused ones too, the oldest first."""
        with self._lock:
            return list(self._requests)

    def latest(self) -> dict[SeriesKey, Point]:
        """The newest gauge point of each series, by its own time; of equal times the later arrival."""
        newest: dict[SeriesKey, Point] = {}
        for point in self.points:
            known = newest.get(point.series) if point.kind == "gauge" else None
            if point.kind == "gauge" and (known is None or point.time_unix_nano >= known.time_unix_nano):
                newest[point.series] = point
        return newest

    def distinct_histograms(self) -> list[Point]:
        """The histograms after the last write won for each series, start and time."""
        written = {
            (point.series, point.start_time_unix_nano, point.time_unix_nano): point
            for point in self.points
            if point.kind == "histogram"
        }
        return list(written.values())

    def answer(self, next: OtlpFault, times: int = 1) -> None:  # noqa: A002 — reads as it is meant
        """Answer the next `times` requests that it is for with this fault; faults queue up."""
        with self._lock:
            self._faults.extend([next] * times)

    def respond(self, request: Request) -> Answer:
        """Answer one request."""
        fault = self._next_fault(request.path)
        if fault.close == "before" or fault.status is not None or fault.body is not None:
            kept, answer = 0, _scripted(fault)
        else:
            kept, answer = self._take(request, fault)
        self._record(request, answer, kept)
        return answer

    def _next_fault(self, path: str) -> OtlpFault:
        with self._lock:
            for place, fault in enumerate(self._faults):
                if fault.path in (None, path):
                    del self._faults[place]
                    return fault
        return OtlpFault()

    def _take(self, request: Request, fault: OtlpFault) -> tuple[int, Answer]:
        try:
            body = _body(request)
            if request.path == "/v1/logs":
                kept, response = self._take_logs(body, fault.partial_success)
            else:
                kept, response = self._take_metrics(body, fault.partial_success)
        except (_ProblemError, RefusedError) as error:
            status = error.status if isinstance(error, _ProblemError) else 400
            return 0, _answer(status, _status(status, str(error)), fault)
        return kept, _answer(200, response, fault)

    def _take_metrics(self, body: bytes, partial: tuple[int, str] | None) -> tuple[int, Message]:
        request = ExportMetricsServiceRequest()
        _parse(request, body)
        points = read_points(request, self._clock())
        response = ExportMetricsServiceResponse()
        if partial is not None:
            response.partial_success.rejected_data_points = partial[0]
            response.partial_success.error_message = partial[1]
            points = points[: max(len(points) - partial[0], 0)]
        with self._lock:
            self._points.extend(points)
        return len(points), response

    def _take_logs(self, body: bytes, partial: tuple[int, str] | None) -> tuple[int, Message]:
        request = ExportLogsServiceRequest()
        _parse(request, body)
        records = read_records(request, self._clock())
        response = ExportLogsServiceResponse()
        if partial is not None:
            response.partial_success.rejected_log_records = partial[0]
            response.partial_success.error_message = partial[1]
            records = records[: max(len(records) - partial[0], 0)]
        with self._lock:
            self._records.extend(records)
        return len(records), response

    def _record(self, request: Request, answer: Answer, kept: int) -> None:
        status = None if answer.silent else answer.status
        record = OtlpRequest(request.path, status, kept, len(request.body), self._clock())
        with self._lock:
            self._requests.append(record)
        if self._on_request is not None:
            self._on_request(record)


def _body(request: Request) -> bytes:
    """The request's body, unpacked, if everything around it is in order."""
    if request.path not in ("/v1/metrics", "/v1/logs"):
        raise _ProblemError(404, f"there is nothing at {request.path[:200]}")
    if request.method != "POST":
        raise _ProblemError(405, "only POST is allowed here")
    content_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type != PROTOBUF_TYPE:
        raise _ProblemError(415, f"the content type has to be {PROTOBUF_TYPE}")
    if request.problem == "too large":
        raise _ProblemError(413, f"the body is larger than {LARGEST_BODY} bytes")
    if request.problem == "no length":
        raise _ProblemError(400, "the body needs a Content-Length")
    return _unpacked(request.body, request.headers.get("Content-Encoding", "identity").strip().lower())


def _unpacked(body: bytes, encoding: str) -> bytes:
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise _ProblemError(400, f"content encoding {encoding[:40]!r} is neither identity nor gzip")
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        unpacked = unpacker.decompress(body, LARGEST_BODY + 1)
    except zlib.error as error:
        raise _ProblemError(400, f"the body is not gzip: {error}") from error
    if len(unpacked) > LARGEST_BODY:
        raise _ProblemError(413, f"the body is larger than {LARGEST_BODY} bytes when unpacked")
    if not unpacker.eof or unpacker.unused_data:
        raise _ProblemError(400, "the gzip body is cut off, or followed by something else")
    return unpacked


def _parse(message: Message, body: bytes) -> None:
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise _ProblemError(400, "the body is not the protobuf message of this path") from error


def _status(status: int, message: str) -> Status:
    return Status(code=_GRPC_CODES.get(status, _UNKNOWN), message=message)


def _answer(status: int, message: Message, fault: OtlpFault) -> Answer:
    headers = {"Content-Type": PROTOBUF_TYPE, **fault.headers}
    silent = fault.close is not None
    return Answer(status, headers, message.SerializeToString(), delay=fault.delay, silent=silent)


def _scripted(fault: OtlpFault) -> Answer:
    status = fault.status or 200
    body = fault.body
    if body is None:
        body = _status(status, "the sandbox was told to fail").SerializeToString()
    headers = {"Content-Type": fault.content_type, **fault.headers}
    return Answer(status, headers, body, delay=fault.delay, silent=fault.close is not None)
