"""A stand-in for Splunk's HTTP Event Collector. It keeps what Splunk would index.

The rules are those of Splunk's documentation (Format events for HTTP Event Collector, Troubleshoot HTTP Event
Collector). Where those leave a choice, the stand-in refuses.
"""

from __future__ import annotations

import hmac
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from exporter.sandbox.loopback import Answer, Request
from tests.backends.intake import Intake, RefusedError

COLLECTOR = "/services/collector"
EVENT = "/services/collector/event"
HEALTH = "/services/collector/health"
_LARGEST_BODY = 16 << 20
_LARGEST_UNPACKED = 64 << 20
_METADATA = ("host", "source", "sourcetype", "index")
_KEYS = frozenset({"event", "fields", "time", *_METADATA})
_CODES = {400: 6, 401: 2, 403: 4, 503: 9}
_INTERNAL_ERROR = 8
_LATEST = 1e11  # the year 5138; more is milliseconds
_BLANK = re.compile(r"[ \t\r\n]+")  # white space in JSON

Scalar = str | bool | int | float


@dataclass(frozen=True, slots=True)
class HecRecord:
    """An event as Splunk indexes it.

    Args:
        event: what it says: text, a number, a list or an object.
        fields: the indexed fields.
        time: Unix seconds, with fractions.
        host: empty when not sent, as are the following.
        source: where it comes from.
        sourcetype: how Splunk reads it.
        index: where it is kept.
    """

    event: Any
    fields: dict[str, Scalar]
    time: float
    host: str
    source: str
    sourcetype: str
    index: str


class HecCollector(Intake):
    """Splunk's HTTP Event Collector on 127.0.0.1, at `/services/collector` and `/services/collector/event`.

    A request is taken whole or refused whole. `/services/collector/health` answers without a token.

    Args:
        token: what requests have to bear in `Authorization`, after the word Splunk.
        clock: Unix seconds.
        port: 0 takes a free one.
    """

    def __init__(self, *, token: str, clock: Callable[[], float] = time.time, port: int = 0) -> None:
        super().__init__(body_limit=_LARGEST_BODY, clock=clock, port=port)
        self._token = token
        self._records: list[HecRecord] = []

    def records(self) -> list[HecRecord]:
        """The events kept, in the order in which they came; one that came twice stands here twice."""
        with self.lock:
            return list(self._records)

    def take(self, request: Request) -> tuple[Answer, list[str]]:
        """Keep the events of a request."""
        if (request.method, request.path) == ("GET", HEALTH):
            return _json(200, {"text": "HEC is healthy", "code": 17}), []
        body = self.checked(request, (COLLECTOR, EVENT), _LARGEST_UNPACKED)
        self._check_token(request.headers.get("Authorization", ""))
        records = [_record(place, event) for place, event in enumerate(_events(body))]
        if not records:
            raise RefusedError("there is no event in the body")
        with self.lock:
            self._records += records
        return _json(200, {"text": "Success", "code": 0}), []

    def failure(self, status: int, reason: str) -> Answer:
        """JSON with text and code."""
        return _json(status, {"text": reason, "code": _CODES.get(status, _INTERNAL_ERROR)})

    def _check_token(self, header: str) -> None:
        scheme, _, token = header.partition(" ")
        if scheme != "Splunk" or not token:
            raise RefusedError("the Authorization header has to be the word Splunk and a token", 401)
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            raise RefusedError("the token is wrong", 403)


def _json(status: int, content: object) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(content).encode())


def _events(body: bytes) -> Iterator[Any]:
    """The JSON values that follow one another in the body, with nothing but white space between them."""
    decoder = json.JSONDecoder(object_pairs_hook=_without_twins, parse_constant=_no_constant)
    try:
        text = body.decode()
        place = _start_of_next(text, 0)
        while place < len(text):
            event, end = decoder.raw_decode(text, place)
            yield event
            place = _start_of_next(text, end)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"the body is not JSON objects one after the other: {error}") from error


def _start_of_next(text: str, end: int) -> int:
    blank = _BLANK.match(text, end)
    return end if blank is None else blank.end()


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _record(place: int, event: Any) -> HecRecord:
    where = f"event {place}"
    if not isinstance(event, dict):
        raise RefusedError(f"{where} is a {type(event).__name__}, not an object")
    if unknown := event.keys() - _KEYS:
        raise RefusedError(f"{where}: {min(unknown)[:80]!r} is no key of an event")
    host, source, sourcetype, index = (_metadata(where, key, event.get(key, "")) for key in _METADATA)
    return HecRecord(
        event=_said(where, event),
        fields=_fields(where, event.get("fields", {})),
        time=_time(where, event.get("time")),
        host=host,
        source=source,
        sourcetype=sourcetype,
        index=index,
    )


def _said(where: str, event: dict[str, Any]) -> Any:
    if "event" not in event:
        raise RefusedError(f"{where}: the event field is required")
    said = event["event"]
    if said in (None, [], {}) or (isinstance(said, str) and not said.strip()):
        raise RefusedError(f"{where}: the event field cannot be blank")
    return said


def _fields(where: str, fields: Any) -> dict[str, Scalar]:
    """The indexed fields, plain values; Splunk takes lists of text too, which nothing here sends."""
    if not isinstance(fields, dict):
        raise RefusedError(f"{where}: fields is not an object")
    for key, value in fields.items():
        if not key or not isinstance(value, str | bool | int | float):
            raise RefusedError(f"{where}: the indexed field {key[:80]!r} is not a plain value")
    return fields


def _time(where: str, seconds: Any) -> float:
    """The time, a number; without one Splunk would put that of arrival in its place."""
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not 0 < seconds < _LATEST:
        raise RefusedError(f"{where}: time has to be a number, of seconds")
    return float(seconds)


def _metadata(where: str, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise RefusedError(f"{where}: {key} is not text")
    return value
