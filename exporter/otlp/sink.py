"""Where requests go: OTLP over HTTP or gRPC, the terminal, a file.

A sink sends one request once and says what became of it. Trying again, taking requests apart and remembering
what is still owed is the business of `deliver`.

What an answer means follows the OTLP specification, but for what its stock exporters take for a success: a
redirect, an answer that is no OTLP answer at all, and a partial success.
"""

from __future__ import annotations

import enum
import gzip
import json
import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import httpx
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from exporter import __version__
from exporter.errors import ConfigError
from exporter.otlp.encode import Body
from exporter.retry_after import retry_after

if TYPE_CHECKING:
    import grpc

MOST_REQUEST_BYTES = 3 << 20  # the Collector takes 4 MiB over gRPC and 20 MiB over HTTP
_MOST_ANSWER_BYTES = 64 << 10
_LONGEST_MESSAGE = 300


class Outcome(enum.Enum):
    """What became of a request."""

    ACCEPTED = "accepted"  # taken; a part of it may have been rejected, which is final too
    RETRY = "retry"  # not now: 429, 502, 503, 504, no connection, no answer in time
    BAD_DATA = "bad_data"  # the endpoint says that the data is at fault: 400, 413, 422
    FAILED = "failed"  # the endpoint broke over it; maybe because of the data, maybe not: other 5xx
    REFUSED = "refused"  # this endpoint takes nothing from us: redirect, 401, 403, 404, not OTLP


@dataclass(frozen=True, slots=True)
class Reply:
    """An endpoint's answer: how many points it rejected, why, and how many seconds it wants us to wait."""

    outcome: Outcome
    rejected: int = 0
    message: str = ""
    retry_after: float | None = None


class Sink(Protocol):
    """Takes bodies as `encode` makes them, at most MOST_REQUEST_BYTES each."""

    def send(self, body: Body) -> Reply:
        """Send one ExportMetricsServiceRequest once. Never raises for what an endpoint does."""
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files for TLS: whom to trust (None: the system's), and what we show of ourselves."""

    certificate: Path | None = None
    client_key: Path | None = None
    client_certificate: Path | None = None


class HttpSink:
    """OTLP over HTTP: protobuf, one POST to `url` per request.

    Raises:
        ConfigError: a certificate file cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        compress: bool = True,
        timeout: float = 10.0,
        tls: Tls | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.url = url
        self._compress = compress
        self._timeout = timeout
        self._clock = clock
        self._client = httpx.Client(
            headers={
                "User-Agent": f"perfpower-exporter/{__version__}",
                "Content-Type": "application/x-protobuf",
                **({"Content-Encoding": "gzip"} if compress else {}),
                **(headers or {}),
            },
            timeout=timeout,
            trust_env=not is_loopback(url),  # a proxy of the environment is not to take it off this machine
            verify=_ssl_context(tls) if tls and url.startswith("https:") else True,
        )

    def send(self, body: Body) -> Reply:
        """Send one request; see Sink."""
        data = gzip.compress(body.data, compresslevel=1, mtime=0) if self._compress else body.data
        deadline = time.monotonic() + self._timeout
        try:
            with self._client.stream("POST", self.url, content=data) as response:
                answer = bytearray()
                for piece in response.iter_bytes():
                    answer += piece
                    if time.monotonic() > deadline:
                        return Reply(Outcome.RETRY, message=f"no whole answer within {self._timeout:g} s")
                    if len(answer) > _MOST_ANSWER_BYTES:
                        break
        except httpx.HTTPError as error:
            return Reply(Outcome.RETRY, message=_bounded(f"{type(error).__name__}: {error}"))
        return self._reply(response, bytes(answer))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _reply(self, response: httpx.Response, answer: bytes) -> Reply:
        status, kind = response.status_code, response.headers.get("Content-Type", "")
        if 200 <= status < 300:
            return _success(kind, answer)
        message = f"HTTP {status}"
        if 300 <= status < 400:
            message += (
                f" redirects to {response.headers.get('Location', 'nowhere')}; set that as the endpoint"
            )
            return Reply(Outcome.REFUSED, message=_bounded(message))
        if text := _status_message(kind, answer):
            message += f": {text}"
        if status in (429, 502, 503, 504):
            wait = retry_after(response.headers, self._clock())
            return Reply(Outcome.RETRY, message=_bounded(message), retry_after=wait)
        if status in (400, 413, 422):
            return Reply(Outcome.BAD_DATA, message=_bounded(message))
        outcome = Outcome.FAILED if status >= 500 else Outcome.REFUSED
        return Reply(outcome, message=_bounded(message))


class GrpcSink:
    """OTLP over gRPC.

    `target` is host:port; `tls` None means plain text. grpc is imported here because only those who use it
    should pay its 9 MB and its start-up time.

    Raises:
        ConfigError: a certificate file cannot be used.
    """

    def __init__(
        self,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        compress: bool = True,
        timeout: float = 10.0,
        tls: Tls | None = None,
    ) -> None:
        import grpc

        self._timeout = timeout
        self._metadata = tuple((name.lower(), value) for name, value in (headers or {}).items())
        options = [("grpc.primary_user_agent", f"perfpower-exporter/{__version__}")]
        compression = grpc.Compression.Gzip if compress else grpc.Compression.NoCompression
        if tls is None:
            self._channel = grpc.insecure_channel(target, options, compression)
        else:
            self._channel = grpc.secure_channel(target, grpc_credentials(tls), options, compression)
        self._export = self._channel.unary_unary(
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            request_serializer=lambda data: data,
            response_deserializer=ExportMetricsServiceResponse.FromString,
        )
        self._error = grpc.RpcError

    def send(self, body: Body) -> Reply:
        """Send one request; see Sink."""
        try:
            answer = self._export(body.data, timeout=self._timeout, metadata=self._metadata)
        except self._error as error:
            return _grpc_reply(error)
        return _partial_success(answer)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class ConsoleSink:
    """A readable table on a stream, one line a point."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def send(self, body: Body) -> Reply:
        """Print one request; see Sink."""
        from exporter.otlp.table import lines

        for line in lines(body):
            self._stream.write(line + "\n")
        self._stream.flush()
        return Reply(Outcome.ACCEPTED)

    def close(self) -> None:
        """Leave the stream to its owner."""


class FileSink:
    """OTLP/JSON, one request a line, as the Collector's `otlpjsonfile` receiver reads it.

    A line is on the disk before it counts as accepted. The file is opened for each line, so that it can be
    moved away (logrotate) at any time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, body: Body) -> Reply:
        """Append one request; see Sink."""
        message = ExportMetricsServiceRequest.FromString(body.data)
        fields = json_format.MessageToDict(message, use_integers_for_enums=True)
        line = json.dumps(fields, separators=(",", ":"), ensure_ascii=False) + "\n"
        try:
            with self._path.open("a+b") as file:
                if _is_cut_off(file):  # by a kill or a full disk: what follows stands on a line of its own
                    file.write(b"\n")
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            return Reply(Outcome.RETRY, message=f"cannot write {self._path}: {error.strerror}")
        return Reply(Outcome.ACCEPTED)

    def close(self) -> None:
        """Nothing is kept open."""


def _is_cut_off(file: IO[bytes]) -> bool:
    """Whether a file's last line has no end."""
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def grpc_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """The files as gRPC wants them.

    Raises:
        ConfigError: one of them cannot be read.
    """
    import grpc

    return grpc.ssl_channel_credentials(
        *(_pem(path) for path in (tls.certificate, tls.client_key, tls.client_certificate))
    )


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine itself."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _success(kind: str, answer: bytes) -> Reply:
    """A 2xx: a success only if it is an OTLP answer; an empty body is one (all fields unset)."""
    message = ExportMetricsServiceResponse()
    try:
        if "json" in kind:
            json_format.Parse(answer or b"{}", message, ignore_unknown_fields=True)
        elif "protobuf" in kind or not answer:
            message.ParseFromString(answer)
        else:
            raise DecodeError(f"its content type is {kind!r}")
    except (DecodeError, json_format.ParseError, UnicodeDecodeError) as error:
        text = (
            f"the endpoint says yes, but not as an OTLP receiver does ({error}); is there a proxy before it?"
        )
        return Reply(Outcome.REFUSED, message=_bounded(text))
    return _partial_success(message)


def _partial_success(answer: ExportMetricsServiceResponse) -> Reply:
    partial = answer.partial_success
    return Reply(
        Outcome.ACCEPTED,
        rejected=max(0, partial.rejected_data_points),
        message=_bounded(partial.error_message),
    )


def _status_message(kind: str, answer: bytes) -> str:
    """The message of the google.rpc.Status that an OTLP receiver puts into an error; or the text as it is."""
    from google.rpc.status_pb2 import Status

    if "protobuf" in kind:
        try:
            return str(Status.FromString(answer).message)
        except DecodeError:
            return ""
    return answer.decode("utf-8", "replace")


def _grpc_reply(error: Any) -> Reply:
    """A failed call, by the OTLP specification's table of gRPC codes."""
    code = error.code()
    message = _bounded(f"{code.name}: {error.details()}")
    if code.name in ("CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"):
        return Reply(Outcome.RETRY, message=message, retry_after=_retry_info(error))
    if code.name == "RESOURCE_EXHAUSTED":  # to be retried only when the server says when
        wait = _retry_info(error)
        return Reply(Outcome.FAILED if wait is None else Outcome.RETRY, message=message, retry_after=wait)
    if code.name == "INVALID_ARGUMENT":
        return Reply(Outcome.BAD_DATA, message=message)
    if code.name in ("INTERNAL", "UNKNOWN"):
        return Reply(Outcome.FAILED, message=message)
    return Reply(Outcome.REFUSED, message=message)


def _retry_info(error: Any) -> float | None:
    """The delay in seconds of a google.rpc.RetryInfo in the trailing metadata, if there is one."""
    from google.rpc.error_details_pb2 import RetryInfo
    from google.rpc.status_pb2 import Status

    metadata: dict[str, bytes] = dict(error.trailing_metadata() or ())
    status, info = Status(), RetryInfo()
    try:
        status.ParseFromString(metadata.get("grpc-status-details-bin", b""))
    except DecodeError:
        return None
    for detail in status.details:
        if detail.Unpack(info):
            return max(0.0, float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9))
    return None


def _ssl_context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.certificate)
        if tls.client_certificate:
            context.load_cert_chain(tls.client_certificate, tls.client_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"a certificate file of otlp cannot be used ({error})",
            remedy="Check otlp.certificate, otlp.client_certificate and otlp.client_key: readable PEM files.",
        ) from None
    return context


def _pem(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror})",
            remedy="Check otlp.certificate, otlp.client_certificate and otlp.client_key.",
        ) from None


def _bounded(text: str) -> str:
    """One line of bounded length, fit for a log."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _LONGEST_MESSAGE else line[: _LONGEST_MESSAGE - 1] + "…"
