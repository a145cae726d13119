"""OTLP over HTTP."""

from __future__ import annotations

import gzip
import ssl
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import httpx
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from exporter import __version__
from exporter.errors import ConfigError
from exporter.loopback import is_loopback
from exporter.otlp.encode import Body
from exporter.otlp.sink import Outcome, Reply, Tls, bounded, partial_success
from exporter.retry_after import retry_after

_MOST_ANSWER_BYTES = 64 << 10


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
            trust_env=not leads_here(url),  # a proxy of the environment is not to take it off this machine
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
            return Reply(Outcome.RETRY, message=bounded(f"{type(error).__name__}: {error}"))
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
            return Reply(Outcome.REFUSED, message=bounded(message))
        if text := _status_message(kind, answer):
            message += f": {text}"
        if status in (429, 502, 503, 504):
            wait = retry_after(response.headers, self._clock())
            return Reply(Outcome.RETRY, message=bounded(message), retry_after=wait)
        if status in (400, 413, 422):
            return Reply(Outcome.BAD_DATA, message=bounded(message))
        outcome = Outcome.FAILED if status >= 500 else Outcome.REFUSED
        return Reply(outcome, message=bounded(message))


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
        return Reply(Outcome.REFUSED, message=bounded(text))
    return partial_success(message)


def _status_message(kind: str, answer: bytes) -> str:
    """The message of the google.rpc.Status that an OTLP receiver puts into an error; or the text as it is."""
    from google.rpc.status_pb2 import Status

    if "protobuf" in kind:
        try:
            return str(Status.FromString(answer).message)
        except DecodeError:
            return ""
    return answer.decode("utf-8", "replace")


def leads_here(url: str) -> bool:
    """Whether a URL leads to this machine itself."""
    return is_loopback(urlsplit(url).hostname or "")


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
