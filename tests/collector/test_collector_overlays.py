"""What each overlay makes of our points, as a stand-in for its backend sees it."""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from exporter.otlp.encode import MOST_OWED_BYTES
from exporter.otlp.http_sink import HttpSink
from exporter.otlp.sink import MOST_REQUEST_BYTES, Outcome, Sink
from exporter.settings.models import Otlp
from tests.collector.points import NOW, events, gauge, histogram, metrics, send
from tests.collector.running import Collector, configurations
from tests.collector.stand_in import StandIn
from tests.collector.test_collector_config import SINKS

UNCOMPRESSED = {"exporters": {"otlp_http/datadog": {"compression": "none"}}}


@pytest.fixture
def backend() -> Iterator[StandIn]:
    with StandIn() as stand_in:
        yield stand_in


def datadog(url: str, key: str = "made-up-key") -> dict[str, str]:
    return {"DD_API_KEY": key, "DD_OTLP_ENDPOINT": url}


def signalfx(url: str) -> dict[str, str]:
    addresses = {f"SPLUNK_{part}_URL": url for part in ("INGEST", "API", "HEC")}
    return {**addresses, "SPLUNK_ACCESS_TOKEN": "made-up-ingest", "SPLUNK_HEC_TOKEN": "made-up-hec"}


ENVIRONMENTS = {"datadog": datadog, "signalfx": signalfx}
OVERLAYS = pytest.mark.parametrize("overlay", ENVIRONMENTS)


def test_datadog_gets_what_we_sent(otelcol: Path, tmp_path: Path, backend: StandIn) -> None:
    """Gauges, delta histograms and events pass unchanged, each signal to its own path."""
    body, event = metrics(gauge(), histogram("appstore.launch.time.by_device", "s")), events("a hang")
    environment = datadog(backend.url)
    with Collector(otelcol, tmp_path, "datadog", environment=environment, further=UNCOMPRESSED) as collector:
        send(HttpSink(collector.metrics_url), body, event)
    (points,), (records,) = backend.at("/v1/metrics"), backend.at("/v1/logs")
    assert metrics_in(points.body) == metrics_in(body.data)
    assert logs_in(records.body) == logs_in(event.data)


@pytest.mark.parametrize("from_file", [False, True], ids=["variable", "file"])
def test_datadog_gets_the_key_and_no_more(
    otelcol: Path, tmp_path: Path, backend: StandIn, from_file: bool
) -> None:
    """The header is exactly the key, also out of a file with a line end; the log has it nowhere."""
    key = "0123456789abcdef0123456789abcdef"
    (tmp_path / "key").write_text(key + "\n")
    environment = datadog(backend.url, f"${{file:{tmp_path}/key}}" if from_file else key)
    with Collector(otelcol, tmp_path, "datadog", environment=environment) as collector:
        send(HttpSink(collector.metrics_url), metrics(gauge()), events("a hang"))
    for request in backend.requests:
        assert request.headers["dd-api-key"] == key
        assert json.loads(request.headers["dd-otel-metric-config"]) == {"resource_attributes_as_tags": True}
        assert request.headers["content-encoding"] == "zstd"
        assert "authorization" not in request.headers
    assert key not in collector.said()


def test_datadog_never_gets_too_large_a_request(otelcol: Path, tmp_path: Path, backend: StandIn) -> None:
    """Even if nothing could be compressed, no request is above Datadog's 512 KiB, and nothing is left out."""
    dice = random.Random(5)
    body = metrics(gauge(*(dice.randbytes(90).hex() for _ in range(11_000))))
    event = events(*(dice.randbytes(20_000).hex() for _ in range(60)))
    for sent in (body, event):
        assert MOST_REQUEST_BYTES * 0.7 < len(sent.data) <= MOST_REQUEST_BYTES
    environment = datadog(backend.url)
    with Collector(otelcol, tmp_path, "datadog", environment=environment, further=UNCOMPRESSED) as collector:
        send(HttpSink(collector.metrics_url), body, event)
    assert counted(backend) == (body.points, event.points)
    assert max(len(request.body) for request in backend.requests) <= 512 << 10


@OVERLAYS
def test_a_request_of_events_is_not_cut(
    otelcol: Path, tmp_path: Path, backend: StandIn, overlay: str
) -> None:
    """What the exporter sends at once is one request: of two, one could be refused, and both come again."""
    texts = [f"{number:02}" + "x" * 9_500 for number in range(50)]
    assert 0.98 * MOST_OWED_BYTES < len(events(*texts).data) <= MOST_OWED_BYTES
    with Collector(otelcol, tmp_path, overlay, environment=ENVIRONMENTS[overlay](backend.url)) as collector:
        send(HttpSink(collector.metrics_url), events(*texts))
    assert len(backend.requests) == 1


@OVERLAYS
def test_owed_distributions_are_not_cut(
    otelcol: Path, tmp_path: Path, backend: StandIn, overlay: str
) -> None:
    """Nor are those whose units the overlay lengthens before it looks at the size."""
    many = [histogram(f"appstore.m{number}.by_device", "{termination}/d") for number in range(2_400)]
    body = metrics(*many)
    assert 0.9 * MOST_OWED_BYTES < len(body.data) <= MOST_OWED_BYTES
    with Collector(otelcol, tmp_path, overlay, environment=ENVIRONMENTS[overlay](backend.url)) as collector:
        send(HttpSink(collector.metrics_url), body)
    assert len(backend.requests) == 1


UNITS = [  # as sent, as received, the factor between them; docs/metrics.md has the units that we send
    ("s", "ms", 1000.0),
    ("s/h", "ms/h", 1000.0),
    ("ms/s", "us/s", 1000.0),
    ("%", "10*-3.%", 1000.0),
    ("{termination}/d", "10*-6.{termination}/d", 1_000_000.0),
    ("{a unit nobody knows}", "10*-3.{a unit nobody knows}", 1000.0),
    ("By", "By", 1.0),
    ("By/d", "By/d", 1.0),
]


def test_no_histogram_ends_as_zeros_in_splunk(otelcol: Path, tmp_path: Path, backend: StandIn) -> None:
    """All but bytes arrive in thousandths or less, so that integers hold them; gauges as they were."""
    sent = [histogram(f"appstore.m{number}.by_device", unit) for number, (unit, _, _) in enumerate(UNITS)]
    with Collector(otelcol, tmp_path, "signalfx", environment=signalfx(backend.url)) as collector:
        send(HttpSink(collector.metrics_url), metrics(gauge(), *sent))
    (histograms,) = backend.at("/v2/datapoint", "application/x-protobuf;format=otlp")
    (resource,) = metrics_in(histograms.plain()).resource_metrics
    received = resource.scope_metrics[0].metrics
    assert [metric.unit for metric in received] == [unit for _, unit, _ in UNITS]
    for metric, (_, _, factor) in zip(received, UNITS, strict=True):
        (point,) = metric.histogram.data_points
        values = point.min, *point.explicit_bounds, point.max, point.sum
        assert values == pytest.approx([factor * value for value in (0.5, 0.7, 0.9, 1.4)])
        assert (point.count, list(point.bucket_counts)) == (2, [1, 1])
    (gauges,) = backend.at("/v2/datapoint", "application/x-protobuf")
    assert struct.pack("<d", 0.7) in gauges.plain()


def test_splunk_gets_both_tokens(otelcol: Path, tmp_path: Path, backend: StandIn) -> None:
    """Each address gets its own token, also out of a file with a line end; the log has them nowhere."""
    environment = signalfx(backend.url)
    for name in ("SPLUNK_ACCESS_TOKEN", "SPLUNK_HEC_TOKEN"):
        (tmp_path / name).write_text(environment[name] + "\n")
        environment[name] = f"${{file:{tmp_path}/{name}}}"
    with Collector(otelcol, tmp_path, "signalfx", environment=environment) as collector:
        send(HttpSink(collector.metrics_url), metrics(gauge()), events("a hang"))
    (points,), (event,) = backend.at("/v2/datapoint"), backend.at("/services/collector")
    assert points.headers["x-sf-token"] == "made-up-ingest"
    assert event.headers["authorization"] == "Splunk made-up-hec"
    assert "made-up" not in collector.said()
    received = json.loads(event.plain())
    assert (received["event"], received["time"]) == ("a hang", NOW / 1e9)
    assert received["fields"]["service.name"] == "com.example.notes"


ANSWERS = {  # of a backend → what the exporter takes the Collector's answer for, and the status in it
    "datadog": {
        400: (Outcome.BAD_DATA, "Status Code 400"),
        401: (Outcome.REFUSED, "Status Code 401"),
        403: (Outcome.REFUSED, "Status Code 403"),
        404: (Outcome.REFUSED, "Status Code 404"),
        413: (Outcome.FAILED, "Status Code 413"),
        429: (Outcome.RETRY, "Status Code 429"),
        500: (Outcome.FAILED, "Status Code 500"),
        503: (Outcome.RETRY, "Status Code 503"),
    },
    "signalfx": {
        400: (Outcome.BAD_DATA, ' 400 "Bad Request"'),
        401: (Outcome.REFUSED, ' 401 "Unauthorized"'),
        403: (Outcome.REFUSED, ' 403 "Forbidden"'),
        404: (Outcome.RETRY, ' 404 "Not Found"'),
        413: (Outcome.RETRY, ' 413 "Request Entity Too Large"'),
        429: (Outcome.RETRY, ' 429 "Too Many Requests"'),
        500: (Outcome.RETRY, ' 500 "Internal Server Error"'),
        503: (Outcome.RETRY, ' 503 "Service Unavailable"'),
    },
}


@OVERLAYS
def test_the_answer_is_the_backends(otelcol: Path, tmp_path: Path, backend: StandIn, overlay: str) -> None:
    """Whatever the backend says to a request, the exporter hears of that request; nothing is dropped."""
    sent = metrics(gauge()), metrics(histogram("appstore.launch.time.by_device", "s")), events("a hang")
    environment = ENVIRONMENTS[overlay](backend.url)
    with (
        Collector(otelcol, tmp_path, overlay, environment=environment) as collector,
        closing(HttpSink(collector.metrics_url)) as sink,
    ):
        for backend.status, (outcome, words) in ANSWERS[overlay].items():
            replies = [sink.send(body) for body in sent]
            assert [reply.outcome for reply in replies] == [outcome] * len(sent), backend.status
            assert all(words in reply.message for reply in replies)
    assert len(backend.requests) == len(sent) * len(ANSWERS[overlay])


@OVERLAYS
@SINKS
def test_a_backend_may_ask_to_wait(
    otelcol: Path, tmp_path: Path, backend: StandIn, overlay: str, sink_of: Callable[[Collector], Sink]
) -> None:
    """The Collector passes Retry-After on in words, over either protocol; the exporter reads them."""
    backend.status, backend.headers = 429, {"Retry-After": "120"}
    environment = ENVIRONMENTS[overlay](backend.url)
    with (
        Collector(otelcol, tmp_path, overlay, environment=environment) as collector,
        closing(sink_of(collector)) as sink,
    ):
        replies = [sink.send(body) for body in (metrics(gauge()), events("a hang"))]
    assert [(reply.outcome, reply.retry_after) for reply in replies] == [(Outcome.RETRY, 120.0)] * 2


@OVERLAYS
def test_a_backend_that_is_slow_may_have_taken_it(
    otelcol: Path, tmp_path: Path, backend: StandIn, overlay: str
) -> None:
    """The Collector's time-out is told as such, so that an event is not sent again at once."""
    exporters = yaml.safe_load(configurations(overlay)[-1].read_text())["exporters"]
    quick = {"exporters": {name: {"timeout": "100ms"} for name in exporters}}
    backend.seconds = 0.5
    environment = ENVIRONMENTS[overlay](backend.url)
    with (
        Collector(otelcol, tmp_path, overlay, environment=environment, further=quick) as collector,
        closing(HttpSink(collector.metrics_url)) as sink,
    ):
        replies = [sink.send(body) for body in (metrics(gauge()), events("a hang"))]
    assert [(reply.outcome, reply.perhaps_taken) for reply in replies] == [(Outcome.RETRY, True)] * 2, replies
    assert len(backend.requests) == 2


@OVERLAYS
def test_a_redirect_is_taken_for_a_yes(otelcol: Path, tmp_path: Path, backend: StandIn, overlay: str) -> None:
    """The Collector follows it without the content, and cannot be told not to: docs/backends.md warns."""
    backend.status, backend.headers = 303, {"Location": "/login"}
    environment = ENVIRONMENTS[overlay](backend.url)
    with (
        Collector(otelcol, tmp_path, overlay, environment=environment) as collector,
        closing(HttpSink(collector.metrics_url)) as sink,
    ):
        assert sink.send(events("a hang")).outcome is Outcome.ACCEPTED


@OVERLAYS
def test_a_backend_that_is_away_is_told(otelcol: Path, tmp_path: Path, overlay: str) -> None:
    """Without a connection the exporter is asked to come again."""
    with StandIn() as gone:
        environment = ENVIRONMENTS[overlay](gone.url)
    with (
        Collector(otelcol, tmp_path, overlay, environment=environment) as collector,
        closing(HttpSink(collector.metrics_url)) as sink,
    ):
        replies = [sink.send(body) for body in (metrics(gauge()), events("a hang"))]
    assert [reply.outcome for reply in replies] == [Outcome.RETRY] * 2
    assert all("connection refused" in reply.message for reply in replies)


@OVERLAYS
def test_the_collector_gives_up_before_the_exporter(overlay: str) -> None:
    """An exporter that stops listening first would not hear what became of its request, and send it again."""
    exporters = yaml.safe_load(configurations(overlay)[-1].read_text())["exporters"]
    assert {part["timeout"] for part in exporters.values()} == {"8s"}
    assert Otlp().timeout > 8


def test_prometheus_finds_gauges_and_growing_histograms(otelcol: Path, tmp_path: Path) -> None:
    """The page has our names, units and resource, and delta histograms added up over a gap."""
    name, later = "appstore.launch.time.by_device", NOW + 86_400 * 10**9
    first, second = histogram(name, "s"), histogram(name, "s", start=later - 1, end=later)
    with Collector(otelcol, tmp_path, "prometheus") as collector:
        send(HttpSink(collector.metrics_url), metrics(gauge(), first), metrics(second), events("a hang"))
        page = collector.page(collector.ports.scrape)
    labels = 'device="all_iphones",.*platform="iOS",.*service_name="com.example.notes",version="2.1"'
    assert re.search(rf"^appstore_launch_time_seconds\{{.*{labels}\}} 0.7$", page, re.M)
    assert re.search(rf"^appstore_launch_time_by_device_seconds_count\{{.*{labels}\}} 4$", page, re.M)
    assert re.search(rf"^appstore_launch_time_by_device_seconds_sum\{{.*{labels}\}} 2.8$", page, re.M)


def metrics_in(body: bytes) -> ExportMetricsServiceRequest:
    return ExportMetricsServiceRequest.FromString(body)


def logs_in(body: bytes) -> ExportLogsServiceRequest:
    return ExportLogsServiceRequest.FromString(body)


def counted(backend: StandIn) -> tuple[int, int]:
    """How many points of gauges and log records arrived, uncompressed."""
    points = sum(
        len(metric.gauge.data_points)
        for request in backend.at("/v1/metrics")
        for resource in metrics_in(request.body).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )
    records = sum(
        len(scope.log_records)
        for request in backend.at("/v1/logs")
        for resource in logs_in(request.body).resource_logs
        for scope in resource.scope_logs
    )
    return points, records
