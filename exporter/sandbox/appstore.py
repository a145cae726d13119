"""A strict stand-in for App Store Connect, over real HTTP."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from exporter.sandbox.hour import RollingHour
from exporter.sandbox.loopback import Answer, LoopbackServer, Request
from exporter.sandbox.resources import (
    LARGEST_LIMIT,
    METRICS_PARAMETERS,
    ApiError,
    Endpoint,
    Json,
    app_builds_document,
    apps_document,
    builds_document,
    logs_document,
    missing,
    overview_document,
    parse_query,
    signatures_document,
)
from exporter.sandbox.store import Store, selected
from exporter.sandbox.tokens import TokenError, check_token

METRICS_TYPE = "application/vnd.apple.xcode-metrics+json"
LOGS_TYPE = "application/vnd.apple.diagnostic-logs+json"
OVERVIEW_TYPE = "application/vnd.apple.xcode-overview+json"
JSON_TYPE = "application/json"
SECONDS_PER_SANDBOX_DAY = 60.0

_ROUTE = re.compile(r"/v1/([A-Za-z]+)(?:/([^/]+)/([A-Za-z]+))?")
_TYPES = {
    ("apps", None): JSON_TYPE,
    ("apps", "builds"): JSON_TYPE,
    ("apps", "perfPowerMetrics"): METRICS_TYPE,
    ("apps", "performanceOverviews"): OVERVIEW_TYPE,
    ("builds", None): JSON_TYPE,
    ("builds", "perfPowerMetrics"): METRICS_TYPE,
    ("builds", "diagnosticSignatures"): JSON_TYPE,
    ("diagnosticSignatures", "logs"): LOGS_TYPE,
}
_REQUESTS_KEPT = 10_000


@dataclass(frozen=True)
class Fault:
    """What to do wrong with an answer; whatever is left out stays as it would have been.

    Args:
        status: another status; the body is then Apple's error document for it.
        body: another body.
        headers: headers to add or replace.
        content_type: another content type.
        delay: seconds to wait before answering.
        cut_after: after so many bytes of the body the connection is dropped.
        drip: seconds between one byte of the body and the next.
    """

    status: int | None = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    delay: float = 0.0
    cut_after: int | None = None
    drip: float | None = None


@dataclass(frozen=True)
class AppStoreRequest:
    """A request that was answered: `at` is the sandbox's clock, in Unix seconds."""

    method: str
    path: str
    query: str
    status: int
    at: float


def error_body(status: int, *, code: str = "", detail: str = "The sandbox was told to fail.") -> bytes:
    """An Apple-shaped error document, for `Fault.body`."""
    return _json(ApiError(status, detail, code=code).document())


class AppStoreSandbox(LoopbackServer):
    """App Store Connect on 127.0.0.1, with one API key and three made-up apps.

    Args:
        seed: another seed gives other numbers.
        day: which day it is in the sandbox; by default a new day begins every minute.
        clock: Unix seconds, for tokens, the rolling hour and the `Date` header.
        hour_limit: requests within any hour.
        minute_limit: requests within any minute.
        page_size_max: no page is longer than this, whatever `limit` asks for.
        payload: the body of an app's metrics by app id, in place of the sandbox's own.
        port: 0 takes a free one.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        day: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.time,
        hour_limit: int = 3600,
        minute_limit: int = 300,
        page_size_max: int = LARGEST_LIMIT,
        payload: Callable[[str], bytes] | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(port=port)
        start = clock()
        self.store = Store(seed)
        self.day = day or (lambda: max(clock() - start, 0.0) / SECONDS_PER_SANDBOX_DAY)
        self.key_id = "SANDBOXKEY"
        self.issuer_id = "5a4db0c5-0000-4000-8000-000000000001"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._clock = clock
        self._page_size_max = page_size_max
        self._payload = payload
        self._lock = threading.Lock()
        self._hour = RollingHour(hour_limit, minute_limit)
        self._faults: list[tuple[str, Fault]] = []
        self._requests: deque[AppStoreRequest] = deque(maxlen=_REQUESTS_KEPT)

    @property
    def private_key_pem(self) -> str:
        """The API key's private half, PKCS#8 in PEM, as Apple's .p8 file holds it."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    @property
    def requests(self) -> list[AppStoreRequest]:
        """The requests so far (the last ten thousand), the oldest first."""
        with self._lock:
            return list(self._requests)

    def fail(self, path_prefix: str, fault: Fault, times: int = 1) -> None:
        """Answer the next `times` requests whose path begins so with this fault; faults queue up."""
        with self._lock:
            self._faults.extend([(path_prefix, fault)] * times)

    def respond(self, request: Request) -> Answer:
        """Answer one request; the fault that is due for its path comes on top."""
        now = self._clock()
        with self._lock:
            verdict = self._hour.take(now)
            fault = self._due(request.path)
            common = {
                "Date": formatdate(now, usegmt=True),
                "X-Rate-Limit": self._hour.header(),
                "Content-Type": JSON_TYPE,
            }
        try:
            if verdict != "granted":
                raise ApiError(429, f"Too many requests: {verdict}.")
            content_type, body = self._answer(request, now)
            answer = Answer(200, {**common, "Content-Type": content_type}, body)
        except ApiError as error:
            answer = Answer(error.status, common, _json(error.document()))
        answer = _spoilt(answer, fault) if fault else answer
        with self._lock:
            self._requests.append(
                AppStoreRequest(request.method, request.path, request.query, answer.status, now)
            )
        return answer

    def _due(self, path: str) -> Fault | None:
        for place, (prefix, fault) in enumerate(self._faults):
            if path.startswith(prefix):
                del self._faults[place]
                return fault
        return None

    def _answer(self, request: Request, now: float) -> tuple[str, bytes]:
        self._check_token(request, now)
        if request.method != "GET":
            raise ApiError(405, "Only GET is allowed here.")
        if request.problem is not None or request.body:
            raise ApiError(400, "A GET request has no body.", code="ENTITY_ERROR")
        route = _ROUTE.fullmatch(request.path)
        kind, identity, part = route.groups() if route else ("", None, None)
        content_type = _TYPES.get((kind, part))
        if content_type is None:
            raise ApiError(404, "The path is not one of this API.", code="PATH_ERROR")
        _check_accept(request, content_type)
        if identity is None or part is None:
            return content_type, _json(self._list(kind, request))
        if content_type == METRICS_TYPE:
            return content_type, self._metrics(kind, identity, request.query)
        return content_type, _json(self._part(part, identity, request))

    def _check_token(self, request: Request, now: float) -> None:
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        try:
            check_token(
                request.headers.get("Authorization"),
                key=self._key.public_key(),
                key_id=self.key_id,
                issuer_id=self.issuer_id,
                now=now,
                request=(request.method, request.path, query),
            )
        except TokenError as error:
            raise ApiError(401, f"Provide a properly configured and signed bearer token: {error}.") from error

    def _list(self, kind: str, request: Request) -> Json:
        endpoint = Endpoint(self.url + request.path, self._page_size_max)
        if kind == "apps":
            return apps_document(self.store, endpoint, request.query)
        return builds_document(self.store, self.day(), endpoint, request.query)

    def _part(self, part: str, identity: str, request: Request) -> Json:
        """What belongs to one app, build or signature, but its metrics."""
        day, endpoint = self.day(), Endpoint(self.url + request.path, self._page_size_max)
        if part == "diagnosticSignatures":
            return signatures_document(self.store, identity, day, endpoint, request.query)
        if part == "logs":
            return logs_document(self.store, identity, day, request.query)
        if part == "performanceOverviews":
            return overview_document(self.store, identity, day, request.query)
        try:
            return app_builds_document(self.store, identity, day, endpoint, request.query)
        except KeyError as error:
            raise missing("apps", identity) from error

    def _metrics(self, kind: str, identity: str, query: str) -> bytes:
        values = parse_query(query, METRICS_PARAMETERS)
        if kind == "apps" and self._payload is not None:
            return self._payload(identity)
        try:
            find = self.store.metrics_payload if kind == "apps" else self.store.build_metrics_payload
            document = find(identity, self.day())
        except KeyError as error:
            raise missing(kind, identity) from error
        return _json(
            selected(
                document,
                platforms=values.get("filter[platform]", ()),
                categories=values.get("filter[metricType]", ()),
                devices=values.get("filter[deviceType]", ()),
            )
        )


def _check_accept(request: Request, wanted: str) -> None:
    """The vendor type has to be named; plain JSON is also given to those who take anything."""
    header = request.headers.get("Accept", "*/*")
    accepted = {entry.partition(";")[0].strip().lower() for entry in header.split(",")}
    welcome = {wanted, "application/*", "*/*"} if wanted == JSON_TYPE else {wanted}
    if not accepted & welcome:
        raise ApiError(406, f"This resource is only available as {wanted}.")


def _spoilt(answer: Answer, fault: Fault) -> Answer:
    headers = {**answer.headers, **fault.headers}
    body = answer.body
    if fault.status is not None:
        headers["Content-Type"] = JSON_TYPE
        body = error_body(fault.status)
    if fault.content_type is not None:
        headers["Content-Type"] = fault.content_type
    return replace(
        answer,
        status=fault.status or answer.status,
        headers=headers,
        body=fault.body if fault.body is not None else body,
        delay=fault.delay,
        cut_after=fault.cut_after,
        drip=fault.drip,
    )


def _json(document: Json) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
