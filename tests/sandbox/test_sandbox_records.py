from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from exporter.sandbox import OtlpFault, OtlpReceiver
from exporter.sandbox.records import LARGEST_RECORD

NOW = 1_780_000_000
NANO = 1_000_000_000
PROTOBUF = "application/x-protobuf"


@contextmanager
def opened(**options: Any) -> Iterator[tuple[OtlpReceiver, httpx.Client]]:
    receiver = OtlpReceiver(clock=lambda: float(NOW), **options)
    with receiver, httpx.Client(base_url=receiver.url, trust_env=False) as client:
        yield receiver, client


def value(plain: object) -> AnyValue:
    if isinstance(plain, AnyValue):
        return plain
    if isinstance(plain, bool):
        return AnyValue(bool_value=plain)
    if isinstance(plain, int):
        return AnyValue(int_value=plain)
    return AnyValue(double_value=plain) if isinstance(plain, float) else AnyValue(string_value=str(plain))


def record(body: object = "It hangs.", **changes: Any) -> LogRecord:
    attributes = changes.pop("attributes", {"device": "iPhone14,2"})
    fields: dict[str, Any] = {
        "event_name": "appstore.diagnostic",
        "time_unix_nano": NOW * NANO,
        "observed_time_unix_nano": (NOW - 1) * NANO,
        "severity_number": 13,
        "severity_text": "WARN",
        "body": value(body),
        "attributes": [KeyValue(key=key, value=value(plain)) for key, plain in attributes.items()],
        **changes,
    }
    return LogRecord(**{name: given for name, given in fields.items() if given is not None})


def request(*records: LogRecord) -> ExportLogsServiceRequest:
    resource = Resource(attributes=[KeyValue(key="service.name", value=value("com.example.app"))])
    return ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(resource=resource, scope_logs=[ScopeLogs(log_records=records)])]
    )


def send(client: httpx.Client, *records: LogRecord) -> httpx.Response:
    body = gzip.compress(request(*records).SerializeToString())
    headers = {"Content-Type": PROTOBUF, "Content-Encoding": "gzip"}
    return client.post("/v1/logs", content=body, headers=headers)


def test_a_record_is_kept_with_everything_it_bears() -> None:
    """Resource, name, both times, severity, body and attributes of each plain type."""
    attributes = {"device": "iPhone14,2", "new": True, "line": 7, "weight": 0.5}
    with opened() as (receiver, client):
        answer = send(client, record(attributes=attributes))
        assert (answer.status_code, answer.headers["content-type"]) == (200, PROTOBUF)
        assert ExportLogsServiceResponse.FromString(answer.content) == ExportLogsServiceResponse()
        (kept,) = receiver.records
        assert (kept.resource, kept.event_name) == (
            {"service.name": "com.example.app"},
            "appstore.diagnostic",
        )
        assert (kept.time_unix_nano, kept.observed_time_unix_nano) == (NOW * NANO, (NOW - 1) * NANO)
        assert (kept.severity_number, kept.severity_text, kept.body) == (13, "WARN", "It hangs.")
        assert kept.attributes == attributes
        assert [(seen.path, seen.points) for seen in receiver.requests] == [("/v1/logs", 1)]


def with_value(given: AnyValue) -> LogRecord:
    return record(attributes={"a": given})


REFUSED: dict[str, tuple[Callable[[], LogRecord], str]] = {
    "no name": (lambda: record(event_name=None), "event name ''"),
    "a name with blanks": (lambda: record(event_name="an event"), "event name 'an event'"),
    "no time": (lambda: record(time_unix_nano=None), "without a time"),
    "too old": (lambda: record(time_unix_nano=(NOW - 64_801) * NANO), "64801 s old"),
    "too far ahead": (lambda: record(time_unix_nano=(NOW + 601) * NANO), "601 s ahead"),
    "never observed": (lambda: record(observed_time_unix_nano=None), "observed is missing"),
    "no severity": (lambda: record(severity_number=None), "severity number"),
    "no body": (lambda: record(body=AnyValue()), "body has to be a text"),
    "a blank body": (lambda: record(body=" \n"), "body has to be a text"),
    "a body that is a list": (
        lambda: record(body=AnyValue(array_value=ArrayValue())),
        "body has to be a text",
    ),
    "too large": (
        lambda: record(attributes={"code.stacktrace": "x" * LARGEST_RECORD}),
        f"the limit is {LARGEST_RECORD}",
    ),
    "an empty value": (lambda: record(attributes={"a": ""}), "a is empty"),
    "a null value": (lambda: with_value(AnyValue()), "a is empty"),
    "a list": (lambda: with_value(AnyValue(array_value=ArrayValue(values=[value("x")]))), "a is a list"),
    "a map": (lambda: with_value(AnyValue(kvlist_value=KeyValueList())), "not a plain value"),
    "a value too long": (lambda: record(attributes={"a": "x" * 201}), "201 characters"),
    "a key too long": (lambda: record(attributes={"a" * 50: "x"}), "50 characters"),
    "a key Splunk would drop": (lambda: record(attributes={"_a": "x"}), "'_a'"),
    "a key Datadog takes": (lambda: record(attributes={"Status": "x"}), "something else of attribute Status"),
    "an attribute twice": (lambda: twice(), "a twice"),
    "an attribute of the resource": (
        lambda: record(attributes={"service.name": "x"}),
        "of the resource already",
    ),
    "too many attributes": (lambda: record(attributes={f"a{n}": "x" for n in range(35)}), "36 attributes"),
}


def twice() -> LogRecord:
    made = record(attributes={"a": "1"})
    made.attributes.append(KeyValue(key="a", value=value("2")))
    return made


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_backend_would_refuse_or_spoil_is_refused(case: str) -> None:
    """400 with a status that names the rule; the request is refused whole, good records in it too."""
    build, message = REFUSED[case]
    with opened() as (receiver, client):
        answer = send(client, record(), build())
        assert answer.status_code == 400
        assert message in Status.FromString(answer.content).message
        assert receiver.records == []


def test_the_limits_themselves_are_accepted() -> None:
    """What lies exactly on a limit passes, and a call stack or a list of populations may be long."""
    attributes: dict[str, object] = {f"a{n}": "x" * 200 for n in range(31)}
    attributes |= {"b" * 49: "x", "code.stacktrace": "x" * 5000, "appstore.insight.populations": "x" * 5000}
    old, ahead = (NOW - 18 * 3600) * NANO, (NOW + 600) * NANO
    with opened() as (receiver, client):
        answer = send(client, record("x" * 5000, attributes=attributes, time_unix_nano=old))
        assert answer.status_code == 200
        assert send(client, record(time_unix_nano=ahead)).status_code == 200
        assert len(receiver.records) == 2


def test_a_record_that_comes_twice_is_kept_twice() -> None:
    """The receiver hides no duplicate: in order of arrival, so that a test can see exactly once."""
    with opened() as (receiver, client):
        send(client, record("a"), record("b"))
        send(client, record("b"))
        assert [kept.body for kept in receiver.records] == ["a", "b", "b"]


def test_only_the_newest_records_are_kept() -> None:
    """`keep` bounds the memory."""
    with opened(keep=2) as (receiver, client):
        send(client, *(record(str(number)) for number in range(5)))
        assert [kept.body for kept in receiver.records] == ["3", "4"]


def test_a_partial_success_drops_the_last_records() -> None:
    """The answer says how many log records were rejected and why; the others are kept."""
    with opened() as (receiver, client):
        receiver.answer(OtlpFault(partial_success=(2, "too many")))
        answer = send(client, *(record(str(number)) for number in range(5)))
        partial = ExportLogsServiceResponse.FromString(answer.content).partial_success
        assert (partial.rejected_log_records, partial.error_message) == (2, "too many")
        assert [kept.body for kept in receiver.records] == ["0", "1", "2"]


def test_a_fault_may_be_for_one_path() -> None:
    """Faults for /v1/logs wait for a log request while metrics pass, in their order."""
    with opened() as (receiver, client):
        receiver.answer(OtlpFault(status=404, path="/v1/logs"))
        receiver.answer(OtlpFault(status=503, path="/v1/metrics"))
        receiver.answer(OtlpFault(status=429))
        headers = {"Content-Type": PROTOBUF}
        assert [client.post("/v1/metrics", content=b"", headers=headers).status_code for _ in range(3)] == [
            *(503, 429, 200)
        ]
        assert [send(client, record()).status_code for _ in range(2)] == [404, 200]


@pytest.mark.parametrize(("when", "kept"), [("before", 0), ("after", 1)])
def test_a_dropped_connection_on_demand(when: Any, kept: int) -> None:
    """The connection can be dropped before or after the record was stored."""
    with opened() as (receiver, client):
        receiver.answer(OtlpFault(close=when, path="/v1/logs"))
        with pytest.raises(httpx.RemoteProtocolError):
            send(client, record())
        assert len(receiver.records) == kept
