"""OTLP over gRPC.

grpc is imported where it is used, because only those who use it should pay its 9 MB and its start-up time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from exporter import __version__
from exporter.errors import ConfigError
from exporter.otlp.encode import Body, Signal
from exporter.otlp.http_sink import leads_here
from exporter.otlp.passed_on import of_the_backend
from exporter.otlp.sink import RESPONSES, Outcome, Reply, Tls, bounded, partial_success

if TYPE_CHECKING:
    import grpc

_SERVICES: dict[Signal, str] = {"metrics": "metrics.v1.MetricsService", "logs": "logs.v1.LogsService"}


class GrpcSink:
    """OTLP over gRPC.

    grpc is imported here because only those who use it should pay its 9 MB and its start-up time.

    Args:
        target: host:port.
        tls: None means plain text.
        logs: target and TLS for events, where they differ from the others.

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
        logs: tuple[str, Tls | None] | None = None,
    ) -> None:
        import grpc

        self._timeout = timeout
        self._metadata = tuple((name.lower(), value) for name, value in (headers or {}).items())
        metrics = _open_channel(target, tls, compress)
        self._channels = [metrics, _open_channel(*logs, compress) if logs else metrics]
        self._export = {
            signal: channel.unary_unary(
                f"/opentelemetry.proto.collector.{_SERVICES[signal]}/Export",
                request_serializer=lambda data: data,
                response_deserializer=RESPONSES[signal].FromString,
            )
            for signal, channel in zip(_SERVICES, self._channels, strict=True)
        }
        self._error = grpc.RpcError

    def send(self, body: Body) -> Reply:
        """Send one request; see Sink."""
        try:
            answer = self._export[body.signal](body.data, timeout=self._timeout, metadata=self._metadata)
        except self._error as error:
            return of_the_backend(_grpc_reply(error))
        return partial_success(answer)

    def close(self) -> None:
        """Close the channels."""
        for channel in self._channels:
            channel.close()


def _open_channel(target: str, tls: Tls | None, compress: bool) -> grpc.Channel:
    import grpc

    # A proxy of the environment is not to take it off this machine.
    options: list[tuple[str, str | int]] = (
        [("grpc.enable_http_proxy", 0)] if leads_here(f"//{target}") else []
    )
    options += [("grpc.primary_user_agent", f"perfpower-exporter/{__version__}")]
    compression = grpc.Compression.Gzip if compress else grpc.Compression.NoCompression
    if tls is None:
        return grpc.insecure_channel(target, options, compression)
    return grpc.secure_channel(target, grpc_credentials(tls), options, compression)


def grpc_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """The files as gRPC wants them.

    Raises:
        ConfigError: one of them cannot be read.
    """
    import grpc

    return grpc.ssl_channel_credentials(
        *(_pem(path) for path in (tls.certificate, tls.client_key, tls.client_certificate))
    )


def _grpc_reply(error: Any) -> Reply:
    """A failed call, by the OTLP specification's table of gRPC codes."""
    code = error.code()
    message = bounded(f"{code.name}: {error.details()}")
    if code.name == "DEADLINE_EXCEEDED":
        return Reply(Outcome.RETRY, message=message, perhaps_taken=True)
    if code.name in ("CANCELLED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"):
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


def _pem(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror})",
            remedy="Check otlp.certificate, otlp.client_certificate and otlp.client_key.",
        ) from None
