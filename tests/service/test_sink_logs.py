from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import (
    LogsServiceServicer,
    add_LogsServiceServicer_to_server,
)

from exporter.check import check
from exporter.endpoint import open_sink
from exporter.otlp.encode import Body
from exporter.otlp.grpc_sink import GrpcSink
from exporter.otlp.http_sink import HttpSink
from exporter.otlp.local_sinks import ConsoleSink, FileSink
from exporter.otlp.sink import Outcome, Reply, Sink
from exporter.sandbox import OtlpFault, OtlpReceiver
from exporter.sandbox.loopback import Answer
from tests.service.event_world import events
from tests.service.service_world import Clock, Log, Recorder, gauges, settings_of
from tests.service.test_sink_grpc import grpc_server, yes

BODY = events("one", "two")[0]
POINTS = gauges({"appstore.launch.time": 3})[0]
PROTOBUF = {"Content-Type": "application/x-protobuf"}
Export = Callable[[ExportLogsServiceRequest, Any], ExportLogsServiceResponse]


def partial(rejected: int, message: str) -> ExportLogsServiceResponse:
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = rejected
    answer.partial_success.error_message = message
    return answer


# HTTP


def test_each_signal_goes_to_its_own_address() -> None:
    """Metrics and events are posted to the addresses given for them, with the same headers."""
    with Recorder(Answer(200)) as metrics, Recorder(Answer(200)) as logs:
        sink = HttpSink(
            f"{metrics.url}/m", logs_url=f"{logs.url}/l", headers={"x-token": "t"}, compress=False
        )
        with closing(sink):
            assert [sink.send(body).outcome for body in (BODY, POINTS)] == [Outcome.ACCEPTED] * 2
        (metric_request,), (log_request,) = metrics.requests, logs.requests
    assert (metric_request.path, metric_request.body) == ("/m", POINTS.data)
    assert (log_request.path, log_request.body) == ("/l", BODY.data)
    assert log_request.headers["x-token"] == "t"


def test_events_go_beside_the_metrics_unless_told_otherwise() -> None:
    """Without an address of their own they go to /v1/logs beside /v1/metrics."""
    with OtlpReceiver(clock=Clock()) as receiver, closing(HttpSink(f"{receiver.url}/v1/metrics")) as sink:
        assert sink.send(BODY) == Reply(Outcome.ACCEPTED)
        assert [record.body for record in receiver.records] == ["one", "two"]


def test_only_what_stays_on_this_machine_avoids_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events for another host take the proxy of the environment, while metrics for this one do not."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Recorder(Answer(200)) as proxy, Recorder(Answer(200)) as server:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy.url)
        with closing(HttpSink(server.url, logs_url="http://collector.example/v1/logs")) as sink:
            assert sink.send(POINTS).outcome is Outcome.ACCEPTED
            assert sink.send(BODY).outcome is Outcome.ACCEPTED
        assert (len(server.requests), len(proxy.requests)) == (1, 1)


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (Answer(200, PROTOBUF), Reply(Outcome.ACCEPTED)),
        (
            Answer(200, PROTOBUF, partial(2, "too old").SerializeToString()),
            Reply(Outcome.ACCEPTED, 2, "too old"),
        ),
        (
            Answer(
                200,
                {"Content-Type": "application/json"},
                b'{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no"}}',
            ),
            Reply(Outcome.ACCEPTED, 1, "no"),
        ),
        (
            Answer(404, {}, b"404 page not found"),
            Reply(Outcome.REFUSED, message="HTTP 404: 404 page not found"),
        ),
        (Answer(400, {}, b"bad"), Reply(Outcome.BAD_DATA, message="HTTP 400: bad")),
    ],
)
def test_an_answer_about_logs_is_told_as_it_is(answer: Answer, reply: Reply) -> None:
    """A partial success counts log records; a Collector without a logs pipeline answers 404: refused."""
    with Recorder(answer) as server, closing(HttpSink(server.url)) as sink:
        assert sink.send(BODY) == reply


# gRPC


class Servicer(LogsServiceServicer):
    """Does what `export` says; keeps the requests."""

    def __init__(self, export: Export) -> None:
        self._export = export
        self.requests: list[ExportLogsServiceRequest] = []

    def Export(self, request: ExportLogsServiceRequest, context: Any) -> ExportLogsServiceResponse:  # noqa: N802
        self.requests.append(request)
        return self._export(request, context)


@contextmanager
def logs_server(export: Export) -> Iterator[tuple[Servicer, str]]:
    servicer = Servicer(export)
    server = grpc.server(ThreadPoolExecutor(2))
    add_LogsServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        yield servicer, f"localhost:{port}"
    finally:
        server.stop(None).wait(5)


@pytest.mark.parametrize("answer", [ExportLogsServiceResponse(), partial(1, "too old")])
def test_events_go_to_the_service_for_logs(answer: ExportLogsServiceResponse) -> None:
    """Over gRPC they reach LogsService/Export as they are; a partial success is told."""
    rejected = answer.partial_success
    with logs_server(lambda _request, _context: answer) as (servicer, target):
        with closing(GrpcSink(target, timeout=5)) as sink:
            reply = sink.send(BODY)
        assert reply == Reply(Outcome.ACCEPTED, rejected.rejected_log_records, rejected.error_message)
        assert [request.SerializeToString() for request in servicer.requests] == [BODY.data]


def test_events_may_have_a_target_of_their_own() -> None:
    """Metrics and events go to two servers, and both channels are closed."""
    with (
        grpc_server(yes) as (metrics, target),
        logs_server(lambda _request, _context: ExportLogsServiceResponse()) as (logs, logs_target),
        closing(GrpcSink(target, logs=(logs_target, None), timeout=5)) as sink,
    ):
        assert [sink.send(body).outcome for body in (POINTS, BODY)] == [Outcome.ACCEPTED] * 2
        assert (len(metrics.requests), len(logs.requests)) == (1, 1)


def test_a_collector_without_a_logs_pipeline_is_a_refusal() -> None:
    """It serves no LogsService: UNIMPLEMENTED for events, while metrics are taken."""
    with grpc_server(yes) as (_, target), closing(GrpcSink(target, timeout=5)) as sink:
        reply = sink.send(BODY)
        assert reply.outcome is Outcome.REFUSED
        assert reply.message.startswith("UNIMPLEMENTED")
        assert sink.send(POINTS).outcome is Outcome.ACCEPTED


# File and terminal


def test_metrics_and_events_are_lines_of_one_file(tmp_path: Path) -> None:
    """Each line is one request of one signal, which parsed back is what was sent."""
    sink = FileSink(tmp_path / "otlp.jsonl")
    for body in (POINTS, BODY):
        assert sink.send(body) == Reply(Outcome.ACCEPTED)
    metrics, logs = (tmp_path / "otlp.jsonl").read_text(encoding="utf-8").splitlines()
    assert list(json.loads(metrics)) == ["resourceMetrics"]
    assert list(json.loads(logs)) == ["resourceLogs"]
    record = json.loads(logs)["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    assert (record["eventName"], record["severityNumber"]) == ("appstore.diagnostic", 13)
    assert json_format.Parse(logs, ExportLogsServiceRequest()).SerializeToString() == BODY.data


def test_the_terminal_shows_events() -> None:
    """A line an event below the heading of its resource."""
    stream = io.StringIO()
    assert ConsoleSink(stream).send(BODY) == Reply(Outcome.ACCEPTED)
    heading, one, two = stream.getvalue().splitlines()
    assert heading == "# service.name=com.example.app"
    assert one.split()[:4] == ["08:00:00", "appstore.diagnostic", "WARN", "one"]
    assert two.split()[3] == "two"


# The configured endpoint


def opened(environ: dict[str, str]) -> Sink:
    return open_sink(settings_of(environ).otlp)


KEY = {"ASC_ISSUER_ID": "57246542-96fe-1a63-e053-0824d011072a", "ASC_KEY_ID": "2X9R4HXF34"}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    from exporter.sandbox import AppStoreSandbox

    key = AppStoreSandbox().private_key_pem
    return {**KEY, "ASC_PRIVATE_KEY": key, "PERFPOWER_STATE": str(tmp_path / "state.db")}


def test_the_configured_address_for_events_is_used(environ: dict[str, str]) -> None:
    """OTEL_EXPORTER_OTLP_LOGS_ENDPOINT is where events go, exactly as it stands."""
    with Recorder(Answer(200)) as server:
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
        environ["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"] = f"{server.url}/events"
        with closing(opened(environ)) as sink:
            assert sink.send(BODY).outcome is Outcome.ACCEPTED
        assert [request.path for request in server.requests] == ["/events"]


def test_the_configured_target_for_events_is_used(environ: dict[str, str]) -> None:
    """Over gRPC too, each with TLS or without as its own scheme says."""
    with logs_server(lambda _request, _context: ExportLogsServiceResponse()) as (_, target):
        environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "grpc"
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "https://127.0.0.1:9"
        environ["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"] = f"http://{target}"
        with closing(opened(environ)) as sink:
            assert sink.send(BODY).outcome is Outcome.ACCEPTED


def findings(environ: dict[str, str], **overrides: object) -> list[str]:
    """What `check` says of the endpoint, before it turns to App Store Connect."""
    settings = settings_of(environ, **overrides)
    with closing(open_sink(settings.otlp)) as sink:
        lines = check(settings, sink, Log())
        found = [str(next(lines)) for _ in range(4 if settings.collect.events else 3)]
    return [line for line in found if line[2:].startswith("endpoint")]


def test_a_check_asks_the_endpoint_about_events_too(environ: dict[str, str]) -> None:
    """An empty log request is sent, and reported as a line of its own; nothing is stored by it."""
    with OtlpReceiver() as receiver:
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.url
        assert findings(environ) == [
            f"✓ endpoint: {receiver.url}/v1/metrics (http/protobuf); a backend behind it is first asked at a "
            "delivery",
            f"✓ endpoint for events: {receiver.url}/v1/logs",
        ]
        assert [(seen.path, seen.points) for seen in receiver.requests] == [
            ("/v1/metrics", 0),
            ("/v1/logs", 0),
        ]


def test_a_check_says_what_to_do_where_events_are_refused(environ: dict[str, str]) -> None:
    """404 for logs alone: a pipeline is missing, or events are not wanted; a query is not shown."""
    with OtlpReceiver() as receiver:
        receiver.answer(OtlpFault(status=404, path="/v1/logs"))
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.url
        environ["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"] = f"{receiver.url}/v1/logs?token=hush"
        good, bad = findings(environ)
        assert good.startswith("✓ endpoint: ")
        assert bad == (
            f"✗ endpoint for events: {receiver.url}/v1/logs: HTTP 404: the sandbox was told to fail; "
            "the endpoint takes no events: add a logs pipeline to the Collector, or set collect.events: false"
        )


@pytest.mark.parametrize(
    ("reply", "unknown"),
    [
        (Reply(Outcome.REFUSED, message="HTTP 404: 404 page not found"), True),
        (Reply(Outcome.REFUSED, message="UNIMPLEMENTED: unknown service"), True),
        (Reply(Outcome.REFUSED, message="HTTP 404: Permanent error: the backend's 404"), False),
        (Reply(Outcome.REFUSED, message="HTTP 403: the backend's key"), False),
        (Reply(Outcome.RETRY, message="HTTP 404: somehow"), False),
    ],
)
def test_only_a_missing_pipeline_is_called_one(reply: Reply, unknown: bool) -> None:
    """A refused key, or a backend's 404 that the Collector passes on, is no missing pipeline."""
    assert reply.unknown_signal is unknown


def test_a_check_does_not_ask_about_events_that_nobody_wants(environ: dict[str, str]) -> None:
    """With collect.events: false no log request is sent."""
    with OtlpReceiver() as receiver:
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.url
        assert len(findings(environ, collect__events="false")) == 1
        assert [seen.path for seen in receiver.requests] == ["/v1/metrics"]


def test_an_empty_request_is_no_line_anywhere(tmp_path: Path) -> None:
    """A log request without records is accepted by each sink and shows nothing."""
    stream, nothing = io.StringIO(), Body(b"", 0, "logs")
    assert ConsoleSink(stream).send(nothing).outcome is Outcome.ACCEPTED
    assert FileSink(tmp_path / "f").send(nothing).outcome is Outcome.ACCEPTED
    assert stream.getvalue() == ""
