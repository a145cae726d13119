from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.backends.hec import HecCollector, HecRecord, Scalar
from tests.backends.intake import Fault, Refusal

NOW = 1_780_000_000
TOKEN = "11112222-3333-4444-5555-666677778888"
FIELDS: dict[str, Scalar] = {
    "service.name": "com.example.Harbour",
    "device": "iPhone15,2",
    "otel.log.name": "appstore.diagnostic",
    "otel.log.severity.number": 13,
    "appstore.signature.weight": 0.5,
    "appstore.symbolicated": True,
}


@contextmanager
def opened() -> Iterator[tuple[HecCollector, httpx.Client]]:
    collector = HecCollector(token=TOKEN, clock=lambda: float(NOW))
    headers = {"Authorization": f"Splunk {TOKEN}"}
    with collector, httpx.Client(base_url=collector.url, headers=headers, trust_env=False) as client:
        yield collector, client


def event(**changes: Any) -> dict[str, Any]:
    """An event as the Collector's splunk_hec exporter sends it; None takes a key out."""
    keys: dict[str, Any] = {
        "time": NOW + 0.123,
        "host": "unknown",
        "source": "perfpower-exporter",
        "sourcetype": "appstore",
        "event": "A hang.",
        "fields": FIELDS,
        **changes,
    }
    return {key: value for key, value in keys.items() if value is not None}


def bodies(*events: object) -> bytes:
    return "".join(map(json.dumps, events)).encode()


@pytest.mark.parametrize("path", ["/services/collector", "/services/collector/event"])
def test_events_are_kept_with_everything_they_bear(path: str) -> None:
    """Events one after the other in a gzipped body are kept with text, fields, time and metadata."""
    body = gzip.compress(bodies(event(), event(event={"what": "a hang"}, index="apps")))
    with opened() as (collector, client):
        answer = client.post(path, content=body, headers={"Content-Encoding": "gzip"})
        assert (answer.status_code, answer.json()) == (200, {"text": "Success", "code": 0})
        metadata = ("unknown", "perfpower-exporter", "appstore")
        assert collector.records() == [
            HecRecord("A hang.", FIELDS, NOW + 0.123, *metadata, ""),
            HecRecord({"what": "a hang"}, FIELDS, NOW + 0.123, *metadata, "apps"),
        ]
        assert collector.refusals == []


def test_an_event_needs_no_more_than_event_and_time() -> None:
    """Metadata and fields may be missing, and white space may stand around the objects."""
    body = b'\n {"event": 0, "time": 5} \r\n\t{"event": ["x"], "time": 1e3}\n'
    with opened() as (collector, client):
        assert client.post("/services/collector", content=body).status_code == 200
        assert collector.records() == [
            HecRecord(0, {}, 5.0, "", "", "", ""),
            HecRecord(["x"], {}, 1000.0, "", "", "", ""),
        ]


REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no event in the body"),
    "white space": (b" \n", "no event in the body"),
    "an array": (bodies([event()]), "event 0 is a list, not an object"),
    "commas between": (bodies(event()) + b"," + bodies(event()), "one after the other"),
    "half an object": (bodies(event())[:-5], "one after the other"),
    "no JSON": (b"<html>", "one after the other"),
    "no UTF-8": (b'{"event": "\xff", "time": 1}', "one after the other"),
    "a key twice": (b'{"event": "x", "event": "y", "time": 1}', "a key stands twice"),
    "a constant that is no JSON": (b'{"event": NaN, "time": 1}', "NaN is not JSON"),
    "depth": (b"[" * 100_000, "one after the other"),
    "a very long number": (b'{"event": "x", "time": ' + b"9" * 5000 + b"}", "one after the other"),
    "no event": (bodies(event(event=None)), "event 0: the event field is required"),
    "a null event": (b'{"event": null, "time": 1}', "cannot be blank"),
    "an empty event": (bodies(event(event="")), "cannot be blank"),
    "a blank event": (bodies(event(event=" \n")), "cannot be blank"),
    "an empty object": (bodies(event(event={})), "cannot be blank"),
    "nested fields": (bodies(event(fields={"a": {"b": 1}})), "'a' is not a plain value"),
    "a list of fields": (bodies(event(fields={"a": ["b"]})), "'a' is not a plain value"),
    "a null field": (bodies(event(fields={"a": None})), "'a' is not a plain value"),
    "a field without a name": (bodies(event(fields={"": 1})), "'' is not a plain value"),
    "fields that are a text": (bodies(event(fields="a=b")), "fields is not an object"),
    "no time": (bodies(event(time=None)), "time has to be a number"),
    "a time in text": (bodies(event(time="1780000000")), "time has to be a number"),
    "a time that is true": (bodies(event(time=True)), "time has to be a number"),
    "a time in milliseconds": (bodies(event(time=NOW * 1000)), "time has to be a number, of seconds"),
    "an endless time": (b'{"event": "x", "time": 1e999}', "time has to be a number"),
    "a time of 400 digits": (b'{"event": "x", "time": ' + b"9" * 400 + b"}", "time has to be a number"),
    "a host that is a number": (bodies(event(host=1)), "host is not text"),
    "an unknown key": (bodies(event(evnt="x")), "'evnt' is no key of an event"),
    "a bad one after a good one": (bodies(event(), event(event="")), "event 1: the event field"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_body_with_a_broken_rule_is_refused_whole(case: str) -> None:
    """Each broken rule gets 400 and a text that says which event and why, and nothing is kept."""
    body, reason = REFUSED[case]
    with opened() as (collector, client):
        answer = client.post("/services/collector", content=body)
        assert (answer.status_code, answer.json()["code"]) == (400, 6)
        assert reason in answer.json()["text"]
        assert collector.records() == []
        assert collector.refusals == [Refusal("/services/collector", 400, answer.json()["text"])]


@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        ("", 401, 2),
        ("Splunk", 401, 2),
        (f"Bearer {TOKEN}", 401, 2),
        (TOKEN, 401, 2),
        ("Splunk wrong", 403, 4),
        (f"Splunk {TOKEN}0", 403, 4),
    ],
)
def test_a_wrong_token_is_refused_and_not_repeated(header: str, status: int, code: int) -> None:
    """Without `Splunk <token>` it is 401, with a wrong token 403, and no token stands in the answer."""
    with opened() as (collector, client):
        client.headers["Authorization"] = header
        answer = client.post("/services/collector", content=bodies(event()))
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert collector.records() == []
        assert TOKEN not in answer.text + repr(collector.refusals)


def test_health_needs_no_token() -> None:
    """The health path answers 200 to anybody and is told to fail like any other."""
    with opened() as (collector, client):
        client.headers["Authorization"] = ""
        assert client.get("/services/collector/health").json()["code"] == 17
        collector.answer(Fault(status=503))
        answer = client.get("/services/collector/health")
        assert (answer.status_code, answer.json()["code"]) == (503, 9)
        assert collector.refusals == []


def test_other_paths_and_large_bodies_are_refused() -> None:
    """There is no raw endpoint, and a body of more than 16 MiB is 413."""
    with opened() as (collector, client):
        assert client.post("/services/collector/raw", content=b"x").status_code == 404
        assert client.post("/services/collector", content=bytes((16 << 20) + 1)).status_code == 413
        assert [refusal.status for refusal in collector.refusals] == [404, 413]
