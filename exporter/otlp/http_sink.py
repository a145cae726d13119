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

from exporter import __version__
from exporter.errors import ConfigError
from exporter.loopback import is_loopback
from exporter.otlp.encode import Body, Signal
from exporter.otlp.passed_on import of_the_backend
from exporter.otlp.sink import RESPONSES, Outcome, Reply, Tls, bounded, partial_success
from exporter.retry_after import retry_after

_MOST_ANSWER_BYTES = 64 << 10
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class HttpSink:
    """OTLP over HTTP: protobuf, one POST per request.

    Args:
        url: where metrics go.
        logs_url: where events go; by default to /v1/logs beside the /v1/metrics of `url`.

    Raises:
        ConfigError: a certificate file cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        logs_url: str = "",
        headers: Mapping[str, str] | None = None,
        compress: bool = True,
        timeout: float = 10.0,
        tls: Tls | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._urls: dict[Signal, str] = {
            "metrics": url,
            "logs": logs_url or f"{url.removesuffix('/v1/metrics')}/v1/logs",
        }
        self._compress = compress
        self._timeout = timeout
        self._clock = clock
        self._headers = {
            "User-Agent": f"perfpower-exporter/{__version__}",
            "Content-Type": "application/x-protobuf",
            **({"Content-Encoding": "gzip"} if compress else {}),
            **(headers or {}),
        }
        self._tls = _ssl_context(tls) if tls and any(map(_is_tls, self._urls.values())) else True
        self._clients: dict[bool, httpx.Client] = {}
        self._client(url)

    def send(self, body: Body) -> Reply:
        """Send one request; see Sink."""
        data = gzip.compress(body.data, compresslevel=1, mtime=0) if self._compress else body.data
        deadline = time.monotonic() + self._timeout
        try:
            url = self._urls[body.signal]
            with self._client(url).stream("POST", url, content=data) as response:
                answer = bytearray()
                for piece in response.iter_bytes():
                    answer += piece
                    if time.monotonic() > deadline:
                        message = f"no whole answer within {self._timeout:g} s"
                        return Reply(Outcome.RETRY, message=message, perhaps_taken=True)
                    if len(answer) > _MOST_ANSWER_BYTES:
                        break
        except httpx.HTTPError as error:
            message = bounded(f"{type(error).__name__}: {error}")
            return Reply(Outcome.RETRY, message=message, perhaps_taken=not isinstance(error, _NOT_SENT))
        return of_the_backend(self._reply(response, bytes(answer), body.signal))

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()

    def _client(self, url: str) -> httpx.Client:
        """The client for an address: one for both signals, unless only one of them stays on this machine."""
        local = leads_here(url)
        if local not in self._clients:
            self._clients[local] = httpx.Client(
                headers=self._headers,
                timeout=self._timeout,
                trust_env=not local,  # a proxy of the environment is not to take it off this machine
                verify=self._tls,
            )
        return self._clients[local]

    def _reply(self, response: httpx.Response, answer: bytes, signal: Signal) -> Reply:
        status, kind = response.status_code, response.headers.get("Content-Type", "")
        if 200 <= status < 300:
            return _success(kind, answer, signal)
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


def _success(kind: str, answer: bytes, signal: Signal) -> Reply:
    """A 2xx: a success only if it is an OTLP answer; an empty body is one (all fields unset)."""
    message = RESPONSES[signal]()
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


def _is_tls(url: str) -> bool:
    return url.startswith("https:")


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
