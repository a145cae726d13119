from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    AGGREGATION_TEMPORALITY_DELTA,
    Metric,
    NumberDataPoint,
    Sum,
    Summary,
)

from tests.backends.intake import Refusal
from tests.backends.signalfx_proto import (
    COUNTER,
    CUMULATIVE_COUNTER,
    ENUM,
    GAUGE,
    DataPointUploadMessage,
)
from tests.backends.splunk import SplunkIngest, SplunkPoint
from tests.sandbox.test_sandbox_receiver import NANO, NOW, bars, gauge, histogram, number, request

TOKEN = "qrstuvwxyz012345"
SIGNALFX = "application/x-protobuf"
OTLP = "application/x-protobuf;format=otlp"
RESOURCE = {"service.name": "com.example.Harbour", "appstore.account": "main"}


@contextmanager
def opened() -> Iterator[tuple[SplunkIngest, httpx.Client]]:
    ingest = SplunkIngest(token=TOKEN, clock=lambda: float(NOW))
    headers = {"X-Sf-Token": TOKEN}
    with ingest, httpx.Client(base_url=ingest.url, headers=headers, trust_env=False) as client:
        yield ingest, client


def datapoint(**changes: Any) -> dict[str, Any]:
    """A datapoint as the Collector's signalfx exporter sends it."""
    fields: dict[str, Any] = {
        "metric": "appstore.launch.time",
        "timestamp": NOW * 1000,
        "value": {"doubleValue": 0.7},
        "metricType": GAUGE,
        "dimensions": dimensions({**RESOURCE, "device": "iPhone15,2"}),
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not None}


def dimensions(pairs: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in pairs.items()]


def upload(client: httpx.Client, *datapoints: dict[str, Any], **headers: str) -> httpx.Response:
    message: Any = DataPointUploadMessage
    body = message(datapoints=datapoints).SerializeToString()
    return client.post("/v2/datapoint", content=body, headers={"Content-Type": SIGNALFX, **headers})


def send(
    client: httpx.Client, *metrics: Metric, path: str = "/v2/datapoint", content_type: str = OTLP
) -> httpx.Response:
    body = request(*metrics, **RESOURCE).SerializeToString()
    return client.post(path, content=body, headers={"Content-Type": content_type})


def test_the_message_is_read_from_its_bytes() -> None:
    """Field numbers and wire types are those of SignalFx's protocol."""
    message: Any = DataPointUploadMessage()
    message.ParseFromString(
        b"\x0a\x23"  # datapoints, 35 bytes
        b"\x12\x01m"  # 2: metric
        b"\x18\x96\x01"  # 3: timestamp, a number
        b"\x22\x09\x11\x00\x00\x00\x00\x00\x00\xe0\x3f"  # 4: value, its 2: a double
        b"\x28\x03"  # 5: metric type
        b"\x32\x06\x0a\x01k\x12\x01v"  # 6: a dimension of 1: key and 2: value
        b"\x0a\x06source"  # 1: source
    )
    (point,) = message.datapoints
    assert (point.source, point.metric, point.timestamp) == ("source", "m", 150)
    assert (point.value.doubleValue, point.metricType) == (0.5, CUMULATIVE_COUNTER)
    assert [(pair.key, pair.value) for pair in point.dimensions] == [("k", "v")]


def test_a_signalfx_gauge_is_kept() -> None:
    """A gauge in SignalFx's format is kept with value, dimensions as sent and its time in milliseconds."""
    with opened() as (ingest, client):
        answer = upload(client, datapoint())
        assert (answer.status_code, answer.json()) == (200, "OK")
        assert ingest.points() == [
            SplunkPoint(
                name="appstore.launch.time",
                kind="gauge",
                dimensions={**RESOURCE, "device": "iPhone15,2"},
                time_unix_milli=NOW * 1000,
                value=0.7,
            )
        ]
        assert ingest.refusals == []


def test_a_signalfx_counter_of_whole_numbers_is_kept() -> None:
    """A counter is kept as one, whole numbers too; what comes twice stands there twice."""
    counter = datapoint(metricType=COUNTER, value={"intValue": 7})
    with opened() as (ingest, client):
        upload(client, counter, counter)
        assert [(point.kind, point.value) for point in ingest.points()] == [("counter", 7.0)] * 2


def test_a_larger_body_comes_gzipped() -> None:
    """The Collector gzips bodies above 1500 bytes."""
    message: Any = DataPointUploadMessage
    body = message(datapoints=[datapoint()] * 20).SerializeToString()
    headers = {"Content-Type": SIGNALFX, "Content-Encoding": "gzip"}
    with opened() as (ingest, client):
        assert client.post("/v2/datapoint", content=gzip.compress(body), headers=headers).status_code == 200
        assert len(ingest.points()) == 20


def test_a_native_histogram_is_kept_as_received_and_as_integers() -> None:
    """A histogram in OTLP is kept with buckets, and with sum, min and max as sent and cut to integers."""
    with opened() as (ingest, client):
        assert send(client, histogram(bars(sum=-2.5, min=-1.5, max=0.75))).status_code == 200
        assert ingest.points() == [
            SplunkPoint(
                name="appstore.spread",
                kind="histogram",
                dimensions=RESOURCE,
                time_unix_milli=NOW * 1000,
                unit="s",
                count=3,
                sum=-2.5,
                min=-1.5,
                max=0.75,
                kept_sum=-2,
                kept_min=-1,
                kept_max=0,
                bounds=(1.0, 2.0),
                counts=(1, 2, 0),
            )
        ]


def test_a_histogram_without_min_and_max_is_kept_without() -> None:
    """Min and max are recommended, not required."""
    with opened() as (ingest, client):
        send(client, histogram(bars(min=None, max=None)))
        (point,) = ingest.points()
        assert (point.min, point.max, point.kept_min, point.kept_max) == (None, None, None, None)


def test_thirty_buckets_are_taken() -> None:
    """Fewer than 31 buckets are kept."""
    with opened() as (ingest, client):
        send(client, histogram(bars(explicit_bounds=range(29), bucket_counts=[3] + [0] * 29)))
        assert [len(point.counts) for point in ingest.points()] == [30]


@pytest.mark.parametrize(
    ("path", "content_type"), [("/v2/datapoint", OTLP), ("/v2/datapoint/otlp", SIGNALFX)]
)
def test_gauges_and_delta_sums_may_come_as_otlp(path: str, content_type: str) -> None:
    """OTLP, by its content type or its own path, brings gauges and counters with their unit as well."""
    counted = NumberDataPoint(as_int=7, time_unix_nano=NOW * NANO, start_time_unix_nano=(NOW - 1) * NANO)
    counter = Metric(name="polls", unit="{poll}", sum=Sum(data_points=[counted], is_monotonic=True))
    counter.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_DELTA
    with opened() as (ingest, client):
        answer = send(
            client, gauge(number(0.7, device="iPad")), counter, path=path, content_type=content_type
        )
        assert answer.status_code == 200
        at = NOW * 1000
        assert ingest.points() == [
            SplunkPoint("appstore.launch.time", "gauge", {**RESOURCE, "device": "iPad"}, at, "s", 0.7),
            SplunkPoint("polls", "counter", RESOURCE, at, "{poll}", 7.0),
        ]


def test_a_wrong_token_is_refused_and_not_repeated() -> None:
    """A missing or wrong token is 401, and neither it nor the right one stands in the answer."""
    with opened() as (ingest, client):
        for wrong in ("", "wrong-token", TOKEN + "0"):
            answer = upload(client, datapoint(), **{"X-Sf-Token": wrong})
            expected = {"code": 401, "message": "the access token is missing or wrong"}
            assert (answer.status_code, answer.json()) == (401, expected)
        assert ingest.points() == []
        assert {refusal.status for refusal in ingest.refusals} == {401}
        assert TOKEN not in repr(ingest.refusals)


def test_other_formats_are_refused() -> None:
    """JSON and unknown parameters are 415, a body that is not the format's message is 400."""
    with opened() as (ingest, client):
        for content_type, status in (
            ("application/json", 415),
            (SIGNALFX + ";format=other", 415),
            (SIGNALFX, 400),
            (OTLP, 400),
        ):
            answer = client.post("/v2/datapoint", content=b"\xff", headers={"Content-Type": content_type})
            assert answer.status_code == status
            assert ingest.refusals[-1] == Refusal("/v2/datapoint", status, answer.json()["message"])


MANY = {f"d{n}": "x" for n in range(36)}
DROPPED_SIGNALFX: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "37 dimensions": (lambda: datapoint(dimensions=dimensions({**MANY, "d36": "x"})), "37 dimensions"),
    "a dimension twice": (lambda: datapoint(dimensions=dimensions({"a": "1"}) * 2), "dimension a twice"),
    "a name too long": (lambda: datapoint(metric="m" * 257), "has 257 characters"),
    "no name": (lambda: datapoint(metric=None), "has 0 characters"),
    "a dimension's name too long": (lambda: named("d" * 129), "dimension name"),
    "an empty dimension's name": (lambda: named(""), "dimension name ''"),
    "a character out of place": (lambda: named("a:b"), "'a:b'"),
    "a digit first": (lambda: named("1a"), "'1a'"),
    "an underscore first": (lambda: named("_a"), "'_a'"),
    "sf_": (lambda: named("sf_a"), "'sf_a'"),
    "aws_": (lambda: named("aws_a"), "'aws_a'"),
    "gcp_": (lambda: named("gcp_a"), "'gcp_a'"),
    "azure_": (lambda: named("azure_a"), "'azure_a'"),
    "a value too long": (lambda: datapoint(dimensions=dimensions({"a": "x" * 257})), "257 characters"),
    "an empty value": (lambda: datapoint(dimensions=dimensions({"a": ""})), "0 characters"),
    "an old point": (lambda: datapoint(timestamp=(NOW - 3601) * 1000), "3601 s old"),
    "a point ahead": (lambda: datapoint(timestamp=(NOW + 601) * 1000), "601 s ahead"),
    "no time": (lambda: datapoint(timestamp=None), "without a time"),
    "no value": (lambda: datapoint(value=None), "one finite number"),
    "a text": (lambda: datapoint(value={"strValue": "x"}), "one finite number"),
    "two values": (lambda: datapoint(value={"intValue": 1, "doubleValue": 1.0}), "one finite number"),
    "not a number": (lambda: datapoint(value={"doubleValue": float("nan")}), "one finite number"),
    "no type": (lambda: datapoint(metricType=None), "neither gauge nor counter"),
    "an enumeration": (lambda: datapoint(metricType=ENUM), "type 2 is neither"),
    "a cumulative counter": (lambda: datapoint(metricType=CUMULATIVE_COUNTER), "type 3 is neither"),
}


def named(name: str) -> dict[str, Any]:
    return datapoint(dimensions=dimensions({name: "x"}))


@pytest.mark.parametrize("case", DROPPED_SIGNALFX)
def test_a_signalfx_datapoint_that_breaks_a_rule_is_left_out(case: str) -> None:
    """The request is taken, the good point beside the bad one is kept, and the refusal says what and why."""
    build, reason = DROPPED_SIGNALFX[case]
    with opened() as (ingest, client):
        assert upload(client, build(), datapoint(metric="a.good.one")).status_code == 200
        assert [point.name for point in ingest.points()] == ["a.good.one"]
        (refusal,) = ingest.refusals
        assert (refusal.status, reason in refusal.reason) == (200, True), refusal


def test_what_is_just_within_the_limits_is_kept() -> None:
    """36 dimensions, names of 256 and 128 characters and values of 256 are kept."""
    longest = {**dict(list(MANY.items())[1:]), "d" * 128: "x" * 256}
    with opened() as (ingest, client):
        upload(client, datapoint(metric="m" * 256, dimensions=dimensions(longest)))
        assert [point.dimensions for point in ingest.points()] == [longest]


DROPPED_OTLP: dict[str, tuple[Callable[[], Metric], str]] = {
    "31 buckets": (
        lambda: histogram(bars(explicit_bounds=range(30), bucket_counts=[3] + [0] * 30)),
        "31 buckets",
    ),
    "bounds in disorder": (lambda: histogram(bars(explicit_bounds=[2, 1])), "strictly increasing"),
    "equal bounds": (lambda: histogram(bars(explicit_bounds=[1, 1])), "strictly increasing"),
    "too few counts": (lambda: histogram(bars(bucket_counts=[1, 2])), "2 bounds need 3 counts, not 2"),
    "counts that do not add up": (lambda: histogram(bars(count=4)), "the count is 4, that of all buckets 3"),
    "an empty histogram": (lambda: histogram(bars(count=0, bucket_counts=[0, 0, 0])), "empty histogram"),
    "min equal to max": (lambda: histogram(bars(min=1, max=1)), "min has to be below max"),
    "min above max": (lambda: histogram(bars(min=3, max=1)), "not above max"),
    "min alone": (lambda: histogram(bars(max=None)), "come together"),
    "no sum": (lambda: histogram(bars(sum=None)), "finite sum"),
    "a sum beyond 64 bits": (lambda: histogram(bars(sum=1e19)), "does not fit into 64 bits"),
    "a cumulative histogram": (
        lambda: histogram(bars(), temporality=AGGREGATION_TEMPORALITY_CUMULATIVE),
        "has to be delta",
    ),
    "a cumulative sum": (
        lambda: Metric(
            name="m",
            sum=Sum(data_points=[number()], aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE),
        ),
        "has to be delta",
    ),
    "a sum that may fall": (
        lambda: Metric(
            name="m", sum=Sum(data_points=[number()], aggregation_temporality=AGGREGATION_TEMPORALITY_DELTA)
        ),
        "monotonic",
    ),
    "no value": (lambda: gauge(NumberDataPoint(time_unix_nano=NOW * NANO)), "one finite number"),
    "an infinite value": (lambda: gauge(number(float("inf"))), "one finite number"),
    "an old histogram": (lambda: histogram(bars(time_unix_nano=(NOW - 3601) * NANO)), "3601 s old"),
    "an old gauge": (lambda: gauge(number(at=NOW - 3601)), "3601 s old"),
    "37 dimensions with the resource's": (
        lambda: gauge(number(more={f"d{n}": "x" for n in range(35)})),
        "37 dimensions",
    ),
    "a dimension of the resource": (
        lambda: gauge(number(more={"service.name": "x"})),
        "dimension service.name twice",
    ),
    "a summary": (lambda: Metric(name="m", summary=Summary()), "m: summary is not"),
    "no name": (lambda: gauge(number(), name=""), "has 0 characters"),
}


@pytest.mark.parametrize("case", DROPPED_OTLP)
def test_an_otlp_point_that_breaks_a_rule_is_left_out(case: str) -> None:
    """The request is taken, the good point beside the bad one is kept, and the refusal says what and why."""
    build, reason = DROPPED_OTLP[case]
    with opened() as (ingest, client):
        assert send(client, build(), histogram(bars(), name="a.good.one")).status_code == 200
        assert [point.name for point in ingest.points()] == ["a.good.one"]
        (refusal,) = ingest.refusals
        assert (refusal.status, reason in refusal.reason) == (200, True), refusal
