"""The configured endpoint, opened: our own sink, and the SDK's exporter for the exporter's own metrics."""

from __future__ import annotations

import sys
from urllib.parse import urlsplit

from opentelemetry.sdk.metrics.export import MetricExporter

from exporter import __version__
from exporter.otlp.grpc_sink import GrpcSink, grpc_credentials
from exporter.otlp.http_sink import HttpSink, leads_here
from exporter.otlp.local_sinks import ConsoleSink, FileSink
from exporter.otlp.sink import Sink, Tls
from exporter.selfmetrics import DELTA
from exporter.settings import Otlp


def open_sink(otlp: Otlp) -> Sink:
    """The sink for the configured protocol.

    Raises:
        ConfigError: a certificate file cannot be used.
    """
    headers, compress = _headers(otlp), otlp.compression == "gzip"
    if otlp.protocol == "console":
        return ConsoleSink(sys.stdout)
    if otlp.protocol == "file":
        return FileSink(otlp.file)
    if otlp.protocol == "grpc":
        target, tls = _grpc_target(otlp, otlp.metrics_url)
        logs = _grpc_target(otlp, otlp.logs_url) if otlp.logs_url != otlp.metrics_url else None
        return GrpcSink(target, headers=headers, compress=compress, timeout=otlp.timeout, tls=tls, logs=logs)
    return HttpSink(
        otlp.metrics_url,
        logs_url=otlp.logs_url,
        headers=headers,
        compress=compress,
        timeout=otlp.timeout,
        tls=_tls(otlp),
    )


def open_sdk_exporter(otlp: Otlp) -> MetricExporter | None:
    """The SDK's exporter for the same endpoint; None where there is none (console, file).

    Everything is passed in, so that the SDK does not read the environment by itself: it takes
    OTEL_EXPORTER_OTLP_TIMEOUT for seconds, where the specification says milliseconds.

    Raises:
        ConfigError: a certificate file cannot be used.
    """
    timeout = min(otlp.timeout, 5.0)  # it tries again within that time; a shutdown must not wait for longer
    if otlp.protocol == "grpc":
        return _sdk_grpc_exporter(otlp, timeout)
    if otlp.protocol == "http/protobuf":
        import requests  # type: ignore[import-untyped, unused-ignore]  # comes with the SDK's exporter
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        tls, session = _tls(otlp), requests.Session()
        session.trust_env = not leads_here(otlp.metrics_url)
        return OTLPMetricExporter(
            endpoint=otlp.metrics_url,
            certificate_file=str(tls.certificate) if tls.certificate else None,
            client_key_file=str(tls.client_key) if tls.client_key else None,
            client_certificate_file=str(tls.client_certificate) if tls.client_certificate else None,
            headers={
                "User-Agent": f"perfpower-exporter/{__version__}",
                **_headers(otlp),
            },  # empty: the SDK's own
            timeout=timeout,
            compression=Compression.Gzip if otlp.compression == "gzip" else Compression.NoCompression,
            session=session,
            preferred_temporality=dict(DELTA),
        )
    return None


def _sdk_grpc_exporter(otlp: Otlp, timeout: float) -> MetricExporter:
    import grpc
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    target, tls = _grpc_target(otlp, otlp.metrics_url)
    return OTLPMetricExporter(
        endpoint=target,
        insecure=tls is None,
        credentials=grpc_credentials(tls) if tls else None,
        headers={name.lower(): value for name, value in _headers(otlp).items()},
        timeout=timeout,
        compression=grpc.Compression.Gzip if otlp.compression == "gzip" else grpc.Compression.NoCompression,
        preferred_temporality=dict(DELTA),
    )


def _grpc_target(otlp: Otlp, address: str) -> tuple[str, Tls | None]:
    """host:port, and TLS unless the scheme is http, or there is none and `insecure` is set."""
    if address.startswith(("http://", "https://")):
        url = urlsplit(address)
        return url.netloc, _tls(otlp) if url.scheme == "https" else None
    return address, None if otlp.insecure else _tls(otlp)


def _tls(otlp: Otlp) -> Tls:
    return Tls(otlp.certificate, otlp.client_key, otlp.client_certificate)


def _headers(otlp: Otlp) -> dict[str, str]:
    return {name: value.get_secret_value() for name, value in otlp.headers.items()}
