from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped, unused-ignore]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    AGGREGATION_TEMPORALITY_DELTA,
    ExponentialHistogram,
    Metric,
    NumberDataPoint,
    Sum,
    Summary,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from tests.backends.datadog import DatadogIntake, DatadogPoint, DatadogRecord, tag, tags_of
from tests.backends.intake import Refusal
from tests.sandbox.test_sandbox_receiver import NANO, NOW, bars, gauge, histogram, number, pairs, request

KEY = "0123456789abcdef"
CONFIG = '{"resource_attributes_as_tags": true}'
RESOURCE = {
    "service.name": "com.example.Harbour",
    "deployment.environment.name": "Production",
    "appstore.account": "main",
}
RESOURCE_TAGS = frozenset(
    {
        *("service:com.example.harbour", "env:production"),
        *("service.name:com.example.harbour", "deployment.environment.name:production"),
        "appstore.account:main",
    }
)


@contextmanager
def opened() -> Iterator[tuple[DatadogIntake, httpx.Client]]:
    intake = DatadogIntake(key=KEY, clock=lambda: float(NOW))
    headers = {"dd-api-key": KEY, "Content-Type": "application/x-protobuf", "dd-otel-metric-config": CONFIG}
    with intake, httpx.Client(base_url=intake.url, headers=headers, trust_env=False) as client:
        yield intake, client


def send(client: httpx.Client, *metrics: Metric, **headers: str) -> httpx.Response:
    body = request(*metrics, **RESOURCE).SerializeToString()
    return client.post("/v1/metrics", content=body, headers=headers)


def reason_of(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/x-protobuf"
    message = Status.FromString(answer.content).message
    assert isinstance(message, str)
    return message


def test_a_gauge_is_shown_with_its_tags() -> None:
    """A gauge is kept with unit, value, whole second and all its attributes as tags in Datadog's spelling."""
    with opened() as (intake, client):
        answer = send(client, gauge(number(2.5, device="iPhone15,2", version="1.2.3")))
        assert answer.status_code == 200
        assert ExportMetricsServiceResponse.FromString(answer.content) == ExportMetricsServiceResponse()
        tags = RESOURCE_TAGS | {"device:iphone15_2", "version:1.2.3"}
        assert intake.points() == [
            DatadogPoint("appstore.launch.time", "s", "gauge", tags, NOW, value=2.5),
        ]
        assert intake.refusals == []


def test_a_delta_sum_is_a_count() -> None:
    """A delta sum is shown as a count, whole numbers as well."""
    point = NumberDataPoint(as_int=7, time_unix_nano=NOW * NANO, start_time_unix_nano=(NOW - 1) * NANO)
    metric = Metric(name="polls", sum=Sum(data_points=[point]))
    metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_DELTA
    with opened() as (intake, client):
        assert send(client, metric).status_code == 200
        assert intake.points() == [DatadogPoint("polls", "", "count", RESOURCE_TAGS, NOW, value=7.0)]


def test_a_delta_histogram_is_a_distribution() -> None:
    """A delta histogram is shown as a distribution with count, sum, min, max and buckets."""
    with opened() as (intake, client):
        assert send(client, histogram(bars())).status_code == 200
        assert intake.points() == [
            DatadogPoint(
                *("appstore.spread", "s", "distribution", RESOURCE_TAGS, NOW),
                count=3,
                sum=4.5,
                min=0.5,
                max=2.0,
                bounds=(1.0, 2.0),
                counts=(1, 2, 0),
            )
        ]


@pytest.mark.parametrize(
    ("counts", "least", "greatest"),
    [([1, 2, 0], 1.0, 2.0), ([0, 3, 0], 1.0, 2.0), ([0, 0, 3], 2.0, 2.0), ([3, 0, 0], 1.0, 1.0)],
)
def test_without_min_and_max_the_outer_bounds_are_shown(
    counts: list[int], least: float, greatest: float
) -> None:
    """Where min and max were not sent, the ends of the outermost filled buckets stand for them."""
    with opened() as (intake, client):
        send(client, histogram(bars(min=None, max=None, bucket_counts=counts)))
        (point,) = intake.points()
        assert (point.min, point.max) == (least, greatest)


def test_the_last_write_wins_within_a_second() -> None:
    """Of points of one name, whole second and set of tags the last is shown; other ones beside it."""
    with opened() as (intake, client):
        send(client, gauge(number(1, device="iPhone 14"), number(2, device="iPad")))
        later = NumberDataPoint(as_double=3, time_unix_nano=NOW * NANO + 999_999_999)
        later.attributes.extend(pairs(device="iPhone_14"))
        send(client, gauge(later, number(4, at=NOW + 1, device="iPhone 14")))
        assert [(point.value, point.time) for point in intake.points()] == [(3, NOW), (2, NOW), (4, NOW + 1)]


def test_without_the_setting_only_unified_tags_come_from_the_resource() -> None:
    """Unless dd-otel-metric-config says so, only service, env, version and such become tags."""
    with opened() as (intake, client):
        del client.headers["dd-otel-metric-config"]
        send(client, gauge(number()))
        (point,) = intake.points()
        assert point.tags == {"service:com.example.harbour", "env:production"}


def test_histogram_settings_that_are_the_default_may_be_said() -> None:
    """Distributions may be asked for by name."""
    config = json.dumps({"resource_attributes_as_tags": False, "histograms": {"mode": "distributions"}})
    with opened() as (_, client):
        assert send(client, gauge(number()), **{"dd-otel-metric-config": config}).status_code == 200


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("device", "iPhone15,2", "device:iphone15_2"),
        ("device_name", "iPhone 15 Pro (2023)", "device_name:iphone_15_pro_2023"),
        ("empty", "", "empty:n/a"),
        ("flag", True, "flag:true"),
        ("a b", "c__d, e", "a_b:c_d_e"),
        ("9key", "x", "key:x"),
        ("_key", "x", "key:x"),
        ("city", "Zürich 東京", "city:zürich_東京"),
        ("path", "a/b.c-d:e", "path:a/b.c-d:e"),
        ("long", "x" * 300, "long:" + "x" * 195),
        ("long", "x" * 194 + " y", "long:" + "x" * 194),
    ],
)
def test_tags_are_spelled_as_datadog_does(key: str, value: str | bool, expected: str) -> None:
    """Lower case, a letter first, other characters one underscore and none at the end, 200 characters."""
    assert tag(key, value) == expected


def test_the_host_is_the_first_that_the_resource_names() -> None:
    """A host's name on the resource becomes the tag host, and nothing does without one."""
    resource = {"host.name": "Node-1", "datadog.host.name": "Sidecar"}
    assert tags_of({}, resource, everything=False) == {"host:sidecar"}
    assert tags_of({}, {"region": "eu", "other": "x"}, everything=False) == {"region:eu"}
    assert tags_of({}, {"service.name": ""}, everything=False) == frozenset()


def test_a_wrong_key_is_refused_and_not_repeated() -> None:
    """A missing or wrong key is 403, and neither it nor the right one stands in the answer."""
    with opened() as (intake, client):
        body = request(gauge(number())).SerializeToString()
        for wrong in ("", "wrong-key", KEY + "0", "schlüssel"):
            answer = client.post("/v1/metrics", content=body, headers=[(b"dd-api-key", wrong.encode())])
            assert (answer.status_code, reason_of(answer)) == (403, "the API key is missing or wrong")
        assert intake.points() == []
        assert {refusal.status for refusal in intake.refusals} == {403}
        assert KEY not in repr(intake.refusals)


def test_large_bodies_are_refused() -> None:
    """Metrics are limited as sent, so packing helps; logs are limited to 5 MiB unpacked, so it does not."""
    metrics = [gauge(number(n, device=f"{random.Random(n).random()}"), name=f"m{n}") for n in range(8000)]
    body = request(*metrics).SerializeToString()
    assert len(body) > 512 << 10 > len(gzip.compress(body, 1))
    with opened() as (intake, client):
        answer = client.post("/v1/metrics", content=body)
        assert (answer.status_code, "524288 bytes" in reason_of(answer)) == (413, True)
        headers = {"Content-Encoding": "gzip"}
        assert client.post("/v1/metrics", content=gzip.compress(body, 1), headers=headers).status_code == 200
        assert len(intake.points()) == 8000
        assert logs(client, *[record(body_text="x" * 900_000)]).status_code == 200
        assert logs(client, *[record(body_text="x" * 900_000)] * 6).status_code == 413
        packed = gzip.compress(log_request(*[record(body_text="x" * 900_000)] * 6).SerializeToString())
        assert client.post("/v1/logs", content=packed, headers=headers).status_code == 413
        assert len(intake.records()) == 1


REFUSED: dict[str, tuple[Callable[[httpx.Client], httpx.Response], int, str]] = {
    "a cumulative histogram": (
        lambda c: send(c, histogram(bars(), temporality=AGGREGATION_TEMPORALITY_CUMULATIVE)),
        400,
        "appstore.spread: only delta",
    ),
    "a histogram of no temporality": (lambda c: send(c, histogram(bars(), temporality=None)), 400, "delta"),
    "a cumulative sum beside a gauge": (
        lambda c: send(
            c,
            gauge(number()),
            Metric(
                name="polls",
                sum=Sum(data_points=[number()], aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE),
            ),
        ),
        400,
        "polls: only delta",
    ),
    "JSON": (lambda c: send(c, gauge(number()), **{"Content-Type": "application/json"}), 415, "content type"),
    "not protobuf": (lambda c: c.post("/v1/metrics", content=b"\xff"), 400, "ExportMetricsServiceRequest"),
    "not gzip": (lambda c: send(c, gauge(number()), **{"Content-Encoding": "gzip"}), 400, "not gzip"),
    "traces": (lambda c: c.post("/v1/traces", content=b""), 404, "/v1/traces"),
    "a setting that is no JSON": (lambda c: configured(c, "{"), 400, "not JSON"),
    "deep settings": (lambda c: configured(c, "[" * 9000), 400, "not JSON"),
    "a setting that is a list": (lambda c: configured(c, "[]"), 400, "not a JSON object"),
    "a setting of the wrong type": (
        lambda c: configured(c, '{"resource_attributes_as_tags": "true"}'),
        400,
        "true or false",
    ),
    "an unknown setting": (lambda c: configured(c, '{"resource_atributes": true}'), 400, "not modelled"),
    "histograms as counters": (
        lambda c: configured(c, '{"histograms": {"mode": "counters"}}'),
        400,
        "not modelled",
    ),
}


def configured(client: httpx.Client, config: str) -> httpx.Response:
    return send(client, gauge(number()), **{"dd-otel-metric-config": config})


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_intake_answers_with_an_error_is_refused_whole(case: str) -> None:
    """Each such request gets its status and a reason, keeps nothing and stands in the refusals once."""
    post, status, reason = REFUSED[case]
    with opened() as (intake, client):
        answer = post(client)
        assert (answer.status_code, reason in reason_of(answer)) == (status, True), reason_of(answer)
        assert [(refusal.status, refusal.reason) for refusal in intake.refusals] == [
            (status, reason_of(answer))
        ]
        assert intake.points() == []


DROPPED: dict[str, tuple[Callable[[], Metric], str]] = {
    "older than an hour": (lambda: gauge(number(at=NOW - 3601)), "3601 s old"),
    "more than ten minutes ahead": (lambda: gauge(number(at=NOW + 601)), "601 s ahead"),
    "an old histogram": (lambda: histogram(bars(time_unix_nano=(NOW - 3601) * NANO)), "3601 s old"),
    "no time": (lambda: gauge(NumberDataPoint(as_double=1)), "without a time"),
    "no value": (lambda: gauge(NumberDataPoint(time_unix_nano=NOW * NANO)), "finite value"),
    "not a number": (lambda: gauge(number(float("nan"))), "finite value"),
    "infinite": (lambda: gauge(number(float("inf"))), "finite value"),
    "no name": (lambda: gauge(number(), name=""), "metric name ''"),
    "a name that would be rewritten": (lambda: gauge(number(), name="launch time"), "'launch time'"),
    "a name in another's space": (lambda: gauge(number(), name="system.load"), "'system.load'"),
    "a name too long": (lambda: gauge(number(), name="a" * 201), "metric name"),
    "an empty histogram": (lambda: histogram(bars(count=0, bucket_counts=[0, 0, 0])), "empty histogram"),
    "no sum": (lambda: histogram(bars(sum=None)), "finite sum"),
    "a sum that is no number": (lambda: histogram(bars(sum=float("nan"))), "finite sum"),
    "counts that do not add up": (lambda: histogram(bars(count=4)), "the count is 4, that of all buckets 3"),
    "too few counts": (lambda: histogram(bars(bucket_counts=[3])), "2 bounds need 3 counts, not 1"),
    "equal bounds": (lambda: histogram(bars(explicit_bounds=[1, 1])), "strictly increasing"),
    "an infinite bound": (lambda: histogram(bars(explicit_bounds=[1, float("inf")])), "finite"),
    "min alone": (lambda: histogram(bars(max=None)), "come together"),
    "min above max": (lambda: histogram(bars(min=3.0)), "not above max"),
    "a full bucket": (
        lambda: histogram(bars(count=2**31, bucket_counts=[2**31, 0, 0])),
        "more than 2147483647",
    ),
    "one bucket and no more": (
        lambda: histogram(bars(explicit_bounds=[], bucket_counts=[3], min=None, max=None)),
        "without bounds",
    ),
    "an attribute that is a list": (lambda: gauge(listed()), "is a list"),
    "an attribute twice": (lambda: gauge(twice()), "a twice"),
    "a summary": (lambda: Metric(name="m", summary=Summary()), "m: summary is not"),
    "an exponential histogram": (
        lambda: Metric(
            name="m",
            exponential_histogram=ExponentialHistogram(aggregation_temporality=AGGREGATION_TEMPORALITY_DELTA),
        ),
        "m: exponential_histogram is not",
    ),
    "no data": (lambda: Metric(name="m"), "m: no data is not"),
}


def listed() -> NumberDataPoint:
    point = number()
    point.attributes.append(KeyValue(key="a", value=AnyValue(array_value=ArrayValue())))
    return point


def twice() -> NumberDataPoint:
    point = number(a="1")
    point.attributes.extend(pairs(a="2"))
    return point


@pytest.mark.parametrize("case", DROPPED)
def test_what_datadog_drops_without_a_word_is_left_out_by_itself(case: str) -> None:
    """The request is taken, the good point beside the bad one is kept, and the refusal says what and why."""
    build, reason = DROPPED[case]
    with opened() as (intake, client):
        assert send(client, build(), gauge(number(), name="a.good.one")).status_code == 200
        assert [point.name for point in intake.points()] == ["a.good.one"]
        (refusal,) = intake.refusals
        assert (refusal.path, refusal.status, reason in refusal.reason) == ("/v1/metrics", 200, True), refusal


def test_points_at_the_limits_are_taken() -> None:
    """Points just an hour old and just ten minutes ahead are kept."""
    with opened() as (intake, client):
        send(client, gauge(number(at=NOW - 3600), number(at=NOW + 600)))
        assert [point.time for point in intake.points()] == [NOW - 3600, NOW + 600]


def record(*, body_text: str = "A hang.", more: dict[str, str] | None = None, **changes: Any) -> LogRecord:
    fields: dict[str, Any] = {
        "event_name": "appstore.diagnostic",
        "time_unix_nano": NOW * NANO,
        "observed_time_unix_nano": NOW * NANO,
        "severity_number": 13,
        "body": AnyValue(string_value=body_text),
        "attributes": pairs(**(more or {"device": "iPhone15,2"})),
        **changes,
    }
    return LogRecord(**fields)


def log_request(*records: LogRecord, **resource: str) -> Message:
    return ExportLogsServiceRequest(
        resource_logs=[
            ResourceLogs(
                resource=Resource(attributes=pairs(**(resource or RESOURCE))),
                scope_logs=[ScopeLogs(log_records=records)],
            )
        ]
    )


def logs(client: httpx.Client, *records: LogRecord, **resource: str) -> httpx.Response:
    return client.post("/v1/logs", content=log_request(*records, **resource).SerializeToString())


def test_a_log_is_shown_with_message_status_service_and_attributes() -> None:
    """A record is kept with its body as message, its severity as status, and all attributes as they were."""
    with opened() as (intake, client):
        answer = logs(client, record())
        assert answer.status_code == 200
        assert ExportLogsServiceResponse.FromString(answer.content) == ExportLogsServiceResponse()
        expected = DatadogRecord(
            message="A hang.",
            status="warn",
            service="com.example.Harbour",
            event_name="appstore.diagnostic",
            time_unix_nano=NOW * NANO,
            tags=frozenset({"service:com.example.harbour", "env:production"}),
            attributes={"device": "iPhone15,2", **RESOURCE},
        )
        assert intake.records() == [expected]
        logs(client, record())
        assert intake.records() == [expected, expected]


@pytest.mark.parametrize(
    ("text", "number", "status"),
    [
        ("", 1, "trace"),
        ("", 9, "info"),
        ("", 13, "warn"),
        ("", 17, "error"),
        ("", 24, "fatal"),
        ("WARN", 0, "warn"),
    ],
)
def test_the_status_is_that_of_the_severity(text: str, number: int, status: str) -> None:
    """The severity's text is the status; without one its number is."""
    with opened() as (intake, client):
        logs(client, record(severity_text=text, severity_number=number))
        assert [kept.status for kept in intake.records()] == [status]


SPOILED: dict[str, tuple[Callable[[], LogRecord], str]] = {
    "older than 18 hours": (lambda: record(time_unix_nano=(NOW - 18 * 3600 - 1) * NANO), "64801 s old"),
    "no time": (lambda: record(time_unix_nano=0), "without a time"),
    "a key of 50 characters": (lambda: record(more={"k" * 50: "x"}), "has 50 characters"),
    "an empty key": (lambda: record(more={"": "x"}), "has 0 characters"),
    "a taken name": (lambda: record(more={"status": "x"}), "something else of attribute status"),
    "a taken name in capitals": (lambda: record(more={"Trace_ID": "x"}), "attribute Trace_ID"),
    "more than a megabyte": (lambda: record(body_text="x" * 1_000_000), "cut after 1000000"),
    "a blank body": (lambda: record(body_text=" \n"), "not blank"),
    "a body that is no text": (lambda: record(body=AnyValue(int_value=1)), "not blank"),
    "no severity": (lambda: record(severity_number=0), "neither a severity text nor"),
    "an attribute of the resource": (
        lambda: record(more={"appstore.account": "x"}),
        "appstore.account is an attribute of the resource",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_log_that_datadog_would_drop_cut_or_change_is_left_out(case: str) -> None:
    """The request is taken, the good record beside the bad one is kept, and the refusal says what and why."""
    build, reason = SPOILED[case]
    with opened() as (intake, client):
        assert logs(client, build(), record(body_text="Good.")).status_code == 200
        assert [kept.message for kept in intake.records()] == ["Good."]
        (refusal,) = intake.refusals
        assert (refusal.path, refusal.status) == ("/v1/logs", 200)
        assert reason in refusal.reason


def test_a_log_without_a_name_or_service_is_taken() -> None:
    """Neither event name nor service is required, 18 hours are young enough, 49 characters short enough."""
    at = (NOW - 18 * 3600) * NANO
    with opened() as (intake, client):
        logs(client, record(event_name="", time_unix_nano=at, more={"k" * 49: "x"}), account="main")
        assert [(kept.event_name, kept.service) for kept in intake.records()] == [("", "")]


def test_a_log_body_that_is_no_request_is_refused() -> None:
    """What is not the protobuf message of the path is 400."""
    with opened() as (intake, client):
        assert client.post("/v1/logs", content=b"\xff").status_code == 400
        reason = "the body is not a protobuf ExportLogsServiceRequest"
        assert intake.refusals == [Refusal("/v1/logs", 400, reason)]
