from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped, unused-ignore]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    AGGREGATION_TEMPORALITY_DELTA,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
    Summary,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from exporter.sandbox import OtlpFault, OtlpReceiver, OtlpRequest

NOW = 1_780_000_000
NANO = 1_000_000_000
PROTOBUF = "application/x-protobuf"
LIMIT = 20 * 1024 * 1024


@contextmanager
def opened(**options: Any) -> Iterator[tuple[OtlpReceiver, httpx.Client]]:
    receiver = OtlpReceiver(clock=lambda: float(NOW), **options)
    with receiver, httpx.Client(base_url=receiver.url, trust_env=False) as client:
        yield receiver, client


def pairs(**attributes: str) -> list[KeyValue]:
    return [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in attributes.items()]


def number(
    value: float = 1.5, *, at: int = NOW, more: Mapping[str, str] | None = None, **attributes: str
) -> NumberDataPoint:
    everything = {**attributes, **(more or {})}
    return NumberDataPoint(as_double=value, time_unix_nano=at * NANO, attributes=pairs(**everything))


def gauge(*points: NumberDataPoint, name: str = "appstore.launch.time") -> Metric:
    return Metric(name=name, unit="s", description="How long.", gauge=Gauge(data_points=points))


def bars(**changes: Any) -> HistogramDataPoint:
    fields: dict[str, Any] = {
        "start_time_unix_nano": (NOW - 60) * NANO,
        "time_unix_nano": NOW * NANO,
        "explicit_bounds": [1, 2],
        "bucket_counts": [1, 2, 0],
        "count": 3,
        "sum": 4.5,
        "min": 0.5,
        "max": 2.0,
        **changes,
    }
    return HistogramDataPoint(**{name: value for name, value in fields.items() if value is not None})


def histogram(
    *points: HistogramDataPoint,
    temporality: Any = AGGREGATION_TEMPORALITY_DELTA,
    name: str = "appstore.spread",
) -> Metric:
    return Metric(
        name=name, unit="s", histogram=Histogram(data_points=points, aggregation_temporality=temporality)
    )


def request(*metrics: Metric, **resource: str) -> ExportMetricsServiceRequest:
    return ExportMetricsServiceRequest(
        resource_metrics=[
            ResourceMetrics(
                resource=Resource(attributes=pairs(**(resource or {"app": "harbour"}))),
                scope_metrics=[ScopeMetrics(metrics=metrics)],
            )
        ]
    )


def send(client: httpx.Client, message: ExportMetricsServiceRequest, **headers: str) -> httpx.Response:
    return post(client, message.SerializeToString(), **headers)


def post(
    client: httpx.Client,
    body: bytes,
    *,
    path: str = "/v1/metrics",
    content_type: str = PROTOBUF,
    **headers: str,
) -> httpx.Response:
    return client.post(path, content=body, headers={"Content-Type": content_type, **headers})


def refusal(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == PROTOBUF
    status = Status.FromString(response.content)
    return status.code, status.message


def test_a_gauge_is_kept_with_everything_it_bears() -> None:
    """An accepted gauge point is kept with resource, name, unit, description, attributes and time."""
    with opened() as (receiver, client):
        answer = send(client, request(gauge(number(2.5, device="iPhone14,2"))))
        assert (answer.status_code, answer.headers["content-type"]) == (200, PROTOBUF)
        assert ExportMetricsServiceResponse.FromString(answer.content) == ExportMetricsServiceResponse()
        (point,) = receiver.points
        assert (point.kind, point.name, point.unit, point.description, point.value) == (
            "gauge",
            "appstore.launch.time",
            "s",
            "How long.",
            2.5,
        )
        assert (point.resource, point.attributes) == ({"app": "harbour"}, {"device": "iPhone14,2"})
        assert (point.time_unix_nano, point.start_time_unix_nano) == (NOW * NANO, 0)


def test_a_histogram_is_kept_with_everything_it_bears() -> None:
    """An accepted histogram is kept with window, count, sum, min, max, bounds and counts."""
    with opened() as (receiver, client):
        assert send(client, request(histogram(bars()))).status_code == 200
        (point,) = receiver.points
        assert (point.kind, point.value) == ("histogram", None)
        assert (point.count, point.sum, point.min, point.max) == (3, 4.5, 0.5, 2.0)
        assert (point.bounds, point.counts) == ((1.0, 2.0), (1, 2, 0))
        assert point.start_time_unix_nano == (NOW - 60) * NANO


def test_a_delta_sum_and_all_kinds_of_attribute_are_kept() -> None:
    """Delta sums, whole numbers, and attributes of each plain kind and lists of them are accepted."""
    point = NumberDataPoint(as_int=7, time_unix_nano=NOW * NANO, start_time_unix_nano=(NOW - 1) * NANO)
    array = ArrayValue(values=[AnyValue(string_value="a"), AnyValue(int_value=1)])
    point.attributes.extend(
        [
            KeyValue(key="b", value=AnyValue(bool_value=False)),
            KeyValue(key="i", value=AnyValue(int_value=0)),
            KeyValue(key="d", value=AnyValue(double_value=0.5)),
            KeyValue(key="l", value=AnyValue(array_value=array)),
        ]
    )
    metric = Metric(name="polls", sum=Sum(data_points=[point]))
    metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_DELTA
    with opened() as (receiver, client):
        assert send(client, request(metric)).status_code == 200
        (kept,) = receiver.points
        assert (kept.kind, kept.value) == ("sum", 7)
        assert kept.attributes == {"b": False, "i": 0, "d": 0.5, "l": ("a", 1)}


def twice(key: str) -> NumberDataPoint:
    return NumberDataPoint(as_double=1, time_unix_nano=NOW * NANO, attributes=[*pairs(a="1"), *pairs(a=key)])


def with_value(value: AnyValue | None) -> NumberDataPoint:
    pair = KeyValue(key="a", value=value)
    return NumberDataPoint(as_double=1, time_unix_nano=NOW * NANO, attributes=[pair])


MANY = {f"a{n}": "x" for n in range(35)}
REFUSED: dict[str, tuple[Callable[[], Metric], str]] = {
    "no name": (lambda: gauge(number(), name=""), "metric name ''"),
    "a name Datadog would rewrite": (lambda: gauge(number(), name="launch time"), "metric name"),
    "a name too long": (lambda: gauge(number(), name="a" * 201), "metric name"),
    "no data": (lambda: Metric(name="m"), "no data"),
    "a summary": (lambda: Metric(name="m", summary=Summary()), "summary"),
    "no time": (lambda: gauge(NumberDataPoint(as_double=1)), "without a time"),
    "no value": (lambda: gauge(NumberDataPoint(time_unix_nano=NOW * NANO)), "finite value"),
    "not a number": (lambda: gauge(number(float("nan"))), "finite value"),
    "infinite": (lambda: gauge(number(float("-inf"))), "finite value"),
    "too old": (lambda: gauge(number(at=NOW - 3601)), "3601 s old"),
    "too far ahead": (lambda: gauge(number(at=NOW + 601)), "601 s ahead"),
    "an empty value": (lambda: gauge(number(device="")), "device is empty"),
    "a blank value": (lambda: gauge(number(device=" ")), "device is empty"),
    "a null value": (lambda: gauge(with_value(None)), "a is empty"),
    "an empty list": (lambda: gauge(with_value(AnyValue(array_value=ArrayValue()))), "a is empty"),
    "a nested value": (lambda: gauge(with_value(AnyValue(kvlist_value=KeyValueList()))), "not a plain value"),
    "a value too long": (lambda: gauge(number(device="x" * 201)), "201 characters"),
    "too many attributes": (lambda: gauge(number(more=MANY)), "36 attributes"),
    "an attribute twice": (lambda: gauge(twice("2")), "a twice"),
    "an attribute of the resource": (lambda: gauge(number(app="2")), "of the resource already"),
    "a key Splunk would drop": (lambda: gauge(number(sf_metric="x")), "'sf_metric'"),
    "an empty key": (lambda: gauge(number(more={"": "x"})), "attribute key ''"),
    "a series twice": (lambda: gauge(number(1, device="a"), number(2, device="a")), "same series twice"),
    "a series twice in a second": (
        lambda: gauge(number(1), NumberDataPoint(as_double=2, time_unix_nano=NOW * NANO + 1)),
        "in the same second",
    ),
    "a cumulative histogram": (
        lambda: histogram(bars(), temporality=AGGREGATION_TEMPORALITY_CUMULATIVE),
        "delta",
    ),
    "a histogram of no temporality": (lambda: histogram(bars(), temporality=None), "delta"),
    "a cumulative sum": (
        lambda: Metric(
            name="m",
            sum=Sum(data_points=[number()], aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE),
        ),
        "delta",
    ),
    "a sum without a start": (
        lambda: Metric(
            name="m", sum=Sum(data_points=[number()], aggregation_temporality=AGGREGATION_TEMPORALITY_DELTA)
        ),
        "start before",
    ),
    "bounds in disorder": (lambda: histogram(bars(explicit_bounds=[2, 1])), "increasing"),
    "equal bounds": (lambda: histogram(bars(explicit_bounds=[1, 1])), "increasing"),
    "an infinite bound": (lambda: histogram(bars(explicit_bounds=[1, float("inf")])), "finite"),
    "too few counts": (lambda: histogram(bars(bucket_counts=[1, 2])), "2 bounds need 3 counts, not 2"),
    "no buckets": (lambda: histogram(bars(explicit_bounds=[], bucket_counts=[])), "0 bounds need 1 counts"),
    "too many buckets": (
        lambda: histogram(bars(explicit_bounds=range(30), bucket_counts=[3] + [0] * 30)),
        "31 buckets",
    ),
    "counts that do not add up": (lambda: histogram(bars(count=4)), "sum of the bucket counts"),
    "an empty histogram": (lambda: histogram(bars(count=0, bucket_counts=[0, 0, 0])), "above 0"),
    "no sum": (lambda: histogram(bars(sum=None)), "finite sum"),
    "a sum that is no number": (lambda: histogram(bars(sum=float("nan"))), "finite sum"),
    "min equal to max": (lambda: histogram(bars(min=1, max=1)), "min has to be below max"),
    "min that is no number": (lambda: histogram(bars(min=float("nan"))), "min has to be below max"),
    "min alone": (lambda: histogram(bars(max=None)), "come together"),
    "no start": (lambda: histogram(bars(start_time_unix_nano=None)), "start before"),
    "a window of no length": (lambda: histogram(bars(start_time_unix_nano=NOW * NANO)), "start before"),
    "a histogram without a time": (lambda: histogram(bars(time_unix_nano=None)), "without a time"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_backend_would_spoil_is_refused(case: str) -> None:
    """Each broken rule gets 400 with a status that names the metric and the rule, and nothing is kept."""
    build, message = REFUSED[case]
    with opened() as (receiver, client):
        answer = send(client, request(gauge(number(), name="a.good.one"), build()))
        assert answer.status_code == 400
        code, text = refusal(answer)
        assert code == 3
        assert message in text
        assert receiver.points == []
        assert [r.status for r in receiver.requests] == [400]


def test_the_limits_themselves_are_accepted() -> None:
    """What lies exactly on a limit passes."""
    attributes = {f"a{n}": "x" * 200 for n in range(34)}
    thirty = bars(explicit_bounds=range(29), bucket_counts=[3] + [0] * 29, min=None, max=None)
    with opened() as (receiver, client):
        message = request(
            gauge(number(at=NOW - 3600, more=attributes), number(at=NOW + 600)),
            histogram(thirty, name="spread"),
        )
        assert send(client, message).status_code == 200
        assert len(receiver.points) == 3


def test_a_metric_name_twice_in_a_scope_is_refused() -> None:
    """Two Metric objects of one name in one scope are refused; in two scopes they are fine."""
    message = request(gauge(number(device="a")), gauge(number(device="b")))
    with opened() as (_, client):
        assert "two metrics of this name" in refusal(send(client, message))[1]
        scopes = message.resource_metrics[0].scope_metrics
        scopes.add().metrics.append(scopes[0].metrics.pop())
        assert send(client, message).status_code == 200


def test_a_resource_is_held_to_the_rules_too() -> None:
    """Resource attributes become dimensions, so an empty or a doubled one is refused."""
    message = request(gauge(number()))
    message.resource_metrics[0].resource.attributes.extend(pairs(app="again"))
    with opened() as (_, client):
        assert (
            "resource: attribute app is empty" in refusal(send(client, request(gauge(number()), app="")))[1]
        )
        assert "resource: attribute app twice" in refusal(send(client, message))[1]


@pytest.mark.parametrize("path", ["/v1/metrics", "/v1/logs"])
@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"{}", b"\x0a\x7f"])
def test_undecodable_bodies_are_refused(path: str, body: bytes) -> None:
    """What is not the protobuf message is refused."""
    with opened() as (receiver, client):
        assert refusal(post(client, body, path=path))[0] == 3
        assert (receiver.points, receiver.records) == ([], [])


def test_an_empty_request_is_fine() -> None:
    """A request without any metric is a success without points, as in the Collector."""
    with opened() as (receiver, client):
        assert post(client, b"").status_code == 200
        assert receiver.requests == [OtlpRequest("/v1/metrics", 200, 0, 0, NOW)]


def test_gzip_is_unpacked() -> None:
    """A gzip body is accepted, and the record tells its length as sent."""
    body = gzip.compress(request(gauge(number())).SerializeToString())
    with opened() as (receiver, client):
        assert post(client, body, **{"Content-Encoding": "gzip"}).status_code == 200
        assert (receiver.requests[0].bytes, receiver.requests[0].points) == (len(body), 1)


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (b"no gzip", "gzip", 400),
        (gzip.compress(b"x" * 100)[:-9], "gzip", 400),
        (gzip.compress(b"") + b"more", "gzip", 400),
        (b"", "zstd", 400),
        (gzip.compress(b"\0" * (LIMIT + 1), 1), "gzip", 413),
        (b"\0" * (LIMIT + 1), "identity", 413),
    ],
    ids=["no gzip", "cut off", "trailing", "zstd", "bomb", "huge"],
)
def test_bad_packing_and_size_are_refused(body: bytes, encoding: str, status: int) -> None:
    """Broken gzip and unknown encodings get 400; more than 20 MiB, packed or not, gets 413."""
    with opened() as (receiver, client):
        answer = post(client, body, **{"Content-Encoding": encoding})
        assert answer.status_code == status
        assert refusal(answer)[1]
        assert receiver.points == []


def test_other_types_paths_and_methods_are_refused() -> None:
    """415 for JSON, 404 for another path, 405 for another method, 400 without a length."""
    with opened() as (_, client):
        assert post(client, b"{}", content_type="application/json").status_code == 415
        assert post(client, b"", content_type="").status_code == 415
        assert post(client, b"", path="/v1/traces").status_code == 404
        assert post(client, b"", path="/v1/metrics/").status_code == 404
        assert client.get("/v1/metrics").status_code == 405
        chunked = client.post("/v1/metrics", content=iter([b""]), headers={"Content-Type": PROTOBUF})
        assert chunked.status_code == 400


def test_latest_is_the_newest_gauge_of_each_series() -> None:
    """latest() goes by the points' own time, not by their arrival, and leaves histograms out."""
    with opened() as (receiver, client):
        send(client, request(gauge(number(2, at=NOW, device="a")), histogram(bars())))
        send(client, request(gauge(number(1, at=NOW - 60, device="a"), number(3, device="b"))))
        assert sorted(point.value or 0 for point in receiver.latest().values()) == [2, 3]
        key = next(point.series for point in receiver.points if point.value == 3)
        assert key == ((("app", "harbour"),), "appstore.launch.time", (("device", "b"),))
        assert receiver.latest()[key].value == 3


def test_a_resent_histogram_overwrites_itself() -> None:
    """Series, start and time identify a histogram; the last write wins."""
    with opened() as (receiver, client):
        send(client, request(histogram(bars())))
        send(client, request(histogram(bars(sum=4.75))))
        send(client, request(histogram(bars(start_time_unix_nano=(NOW - 30) * NANO))))
        assert len(receiver.points) == 3
        assert [point.sum for point in receiver.distinct_histograms()] == [4.75, 4.5]


def test_memory_is_bounded() -> None:
    """Only the newest `keep` points stay."""
    with opened(keep=3) as (receiver, client):
        for place in range(5):
            send(client, request(gauge(number(place))))
        assert [point.value for point in receiver.points] == [2, 3, 4]
        assert len(receiver.requests) == 3


@pytest.mark.parametrize("status", [302, 400, 401, 413, 429, 500, 502, 503, 504])
def test_a_status_on_demand_keeps_nothing(status: int) -> None:
    """A scripted status is answered `times` times with its headers, and the data is not kept."""
    fault = OtlpFault(status=status, headers={"Retry-After": "3", "Location": "http://127.0.0.1:9/"})
    with opened() as (receiver, client):
        receiver.answer(fault, times=2)
        statuses = [send(client, request(gauge(number()))) for _ in range(3)]
        assert [answer.status_code for answer in statuses] == [status, status, 200]
        assert statuses[0].headers["retry-after"] == "3"
        assert len(receiver.points) == 1
        assert [r.points for r in receiver.requests] == [0, 0, 1]


def test_a_partial_success_on_demand_drops_the_last_points() -> None:
    """A partial success says how many points were rejected and why, and keeps the others."""
    with opened() as (receiver, client):
        receiver.answer(OtlpFault(partial_success=(2, "too many")))
        answer = send(client, request(gauge(*(number(n, device=str(n)) for n in range(5)))))
        partial = ExportMetricsServiceResponse.FromString(answer.content).partial_success
        assert (answer.status_code, partial.rejected_data_points, partial.error_message) == (
            200,
            2,
            "too many",
        )
        assert [point.value for point in receiver.points] == [0, 1, 2]


@pytest.mark.parametrize(("when", "kept"), [("before", 0), ("after", 1)])
def test_a_dropped_connection_on_demand(when: Any, kept: int) -> None:
    """The connection can be dropped before or after the data was stored; the record has no status."""
    with opened() as (receiver, client):
        receiver.answer(OtlpFault(close=when))
        with pytest.raises(httpx.RemoteProtocolError):
            send(client, request(gauge(number())))
        assert len(receiver.points) == kept
        assert [(r.status, r.points) for r in receiver.requests] == [(None, kept)]


def test_a_proxy_in_between_on_demand() -> None:
    """An HTML page with status 200 is a proxy's: nothing is kept."""
    with opened() as (receiver, client):
        receiver.answer(OtlpFault(body=b"<html>", content_type="text/html"))
        answer = send(client, request(gauge(number())))
        assert (answer.status_code, answer.text, answer.headers["content-type"]) == (
            200,
            "<html>",
            "text/html",
        )
        assert receiver.points == []


def test_a_late_answer_on_demand_has_kept_the_data() -> None:
    """With a delay the data is stored, and the client may have given up."""
    with opened() as (receiver, client):
        receiver.answer(OtlpFault(delay=30))
        with pytest.raises(httpx.ReadTimeout):
            client.post(
                "/v1/metrics",
                content=request(gauge(number())).SerializeToString(),
                headers={"Content-Type": PROTOBUF},
                timeout=0.1,
            )
        assert len(receiver.points) == 1


def test_the_callback_hears_of_every_request() -> None:
    """on_request is told of refused and accepted requests before the client is answered."""
    heard: list[OtlpRequest] = []
    with opened(on_request=heard.append) as (receiver, client):
        send(client, request(gauge(number())))
        post(client, b"", path="/nowhere")
        assert heard == receiver.requests
        assert [record.status for record in heard] == [200, 404]


def test_closing_leaves_no_thread() -> None:
    """A closed receiver has joined its threads, idle connections included."""
    before = set(threading.enumerate())
    with opened() as (receiver, client):
        send(client, request(gauge(number())))
        receiver.close()
        assert set(threading.enumerate()) == before


def test_many_senders_at_once_lose_nothing() -> None:
    """Requests from several threads are all kept."""
    with opened() as (receiver, client):
        threads = [
            threading.Thread(target=send, args=(client, request(gauge(number(n, device=str(n))))))
            for n in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(point.value or 0 for point in receiver.points) == list(range(20))
