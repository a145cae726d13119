from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from exporter.appstore.jsonapi import App
from exporter.appstore.plan import Step
from exporter.convert.catalogue import OWN_METRICS
from exporter.deliver import Delivery
from exporter.endpoint import open_sdk_exporter, open_sink
from exporter.errors import NotFound
from exporter.otlp.grpc_sink import GrpcSink
from exporter.otlp.http_sink import HttpSink
from exporter.otlp.local_sinks import ConsoleSink, FileSink
from exporter.report import CycleReport
from exporter.sandbox import OtlpReceiver, Point
from exporter.selfmetrics import Observe, SelfMetrics
from exporter.settings import Otlp
from tests.service.service_world import OWN
from tests.service.test_sink_grpc import grpc_server, yes

ACCOUNTS = {"games": "staging", "main": "production"}
GAUGES = {
    metric.name.removeprefix(OWN): {key: "main" for key in metric.attributes if key != "environment"}
    for metric in OWN_METRICS
    if metric.instrument == "gauge"
}


@contextmanager
def measuring(otlp: Otlp) -> Iterator[SelfMetrics]:
    observe: dict[str, Observe] = {name: lambda of=of: [(1.5, dict(of))] for name, of in GAUGES.items()}  # type: ignore[misc]
    with closing(SelfMetrics(open_sdk_exporter(otlp), 3600, observe, ACCOUNTS)) as metrics:
        yield metrics


def something_of_everything(metrics: SelfMetrics) -> None:
    metrics.request("main", "apps", 200)
    metrics.request("main", "apps", None)
    deferred = [Step("metrics", App("1", "com.example.app", "App"))]
    metrics.polled(
        CycleReport("main", left_out=Counter(no_value=3), deferred=deferred, failures=[NotFound("gone")])
    )
    metrics.delivered(Delivery(accepted=10, rejected=2, given_up=1))


def named(points: list[Point]) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.name, []).append(point)
    return found


def test_own_metrics_are_those_of_the_catalogue() -> None:
    """Names, units, descriptions, kinds, attributes: nothing else leaves, and the receiver takes it."""
    with OtlpReceiver() as receiver:
        with measuring(Otlp(endpoint=receiver.url)) as metrics:
            something_of_everything(metrics)
            metrics.flush()
            assert {request.status for request in receiver.requests} == {200}
            points = named(receiver.points)
        assert set(points) == {metric.name for metric in OWN_METRICS}
        for metric in OWN_METRICS:
            for point in points[metric.name]:
                assert (point.unit, point.description) == (metric.unit, metric.description)
                assert point.kind == ("sum" if metric.instrument == "counter" else "gauge")
                assert set(point.attributes) == set(metric.attributes)
                account = str(point.attributes.get("account"))
                assert point.attributes.get("environment") == ACCOUNTS.get(account)
                assert {key: of for key, of in point.resource.items() if key != "service.version"} == {
                    "service.name": "perfpower-exporter",
                    "appstore.accounts": "games,main",
                }
                assert point.resource["service.version"]


def test_counters_are_deltas() -> None:
    """Each export tells what was added since the last one; the windows follow one another."""
    with OtlpReceiver() as receiver, measuring(Otlp(endpoint=receiver.url)) as metrics:
        for accepted in (10, 7):
            metrics.delivered(Delivery(accepted=accepted))
            metrics.flush()
        first, second = named(receiver.points)[f"{OWN}points.sent"]
        assert (first.value, second.value) == (10, 7)
        assert second.start_time_unix_nano >= first.time_unix_nano


def test_closing_sends_the_rest() -> None:
    """What was counted since the last export is not lost at the end of `once`."""
    with OtlpReceiver() as receiver:
        with measuring(Otlp(endpoint=receiver.url)) as metrics:
            metrics.delivered(Delivery(accepted=3))
        assert [point.value for point in named(receiver.points)[f"{OWN}points.sent"]] == [3]


def test_own_metrics_go_over_grpc_too() -> None:
    """The same endpoint and headers as for the App Store's."""
    with grpc_server(yes) as (servicer, target):
        otlp = Otlp(protocol="grpc", endpoint=f"http://{target}", headers={"X-Token": "hush"})  # type: ignore[dict-item]
        with measuring(otlp) as metrics:
            metrics.delivered(Delivery(accepted=3))
            metrics.flush()
        assert servicer.metadata[0]["x-token"] == "hush"
        names = {metric.name for metric in servicer.requests[0].resource_metrics[0].scope_metrics[0].metrics}
        assert f"{OWN}points.sent" in names


def test_an_endpoint_that_is_down_is_no_trouble(capfd: pytest.CaptureFixture[str]) -> None:
    """Counting goes on, and closing ends within seconds, without an exception."""
    with OtlpReceiver() as receiver:
        url = receiver.url
    with measuring(Otlp(endpoint=url, timeout=0.2)) as metrics:
        something_of_everything(metrics)
    assert "Traceback" not in capfd.readouterr().err


def test_a_proxy_of_the_environment_does_not_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """They reach a Collector on this machine directly, as the App Store's do."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with OtlpReceiver() as receiver, OtlpReceiver() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with measuring(Otlp(endpoint=receiver.url)) as metrics:
            something_of_everything(metrics)
        assert receiver.points
        assert proxy.requests == []


@pytest.mark.parametrize("protocol", ["console", "file"])
def test_there_is_nowhere_to_send_them_without_a_receiver(protocol: str) -> None:
    """On the terminal and in a file there are only the App Store's."""
    assert open_sdk_exporter(Otlp(protocol=protocol)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("otlp", "kind"),
    [
        (Otlp(), HttpSink),
        (Otlp(protocol="grpc", endpoint="localhost:4317", insecure=True), GrpcSink),
        (Otlp(protocol="grpc", endpoint="localhost:4317"), GrpcSink),
        (Otlp(protocol="console"), ConsoleSink),
        (Otlp(protocol="file"), FileSink),
    ],
)
def test_each_protocol_has_its_sink(otlp: Otlp, kind: type[object]) -> None:
    """What the configuration names is what is opened; nothing is sent by opening."""
    with closing(open_sink(otlp)) as sink:
        assert isinstance(sink, kind)
