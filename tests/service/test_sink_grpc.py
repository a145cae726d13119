from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)

from exporter.errors import ConfigError
from exporter.otlp.encode import Body
from exporter.otlp.grpc_sink import GrpcSink
from exporter.otlp.sink import Outcome, Reply, Tls
from tests.service.service_world import gauges
from tests.service.test_sink_http import Authority

BODY = gauges({"appstore.launch.time": 3})[0]
Export = Callable[[ExportMetricsServiceRequest, Any], ExportMetricsServiceResponse]


class Servicer(MetricsServiceServicer):
    """Does what `export` says; keeps requests and their metadata."""

    def __init__(self, export: Export) -> None:
        self._export = export
        self.requests: list[ExportMetricsServiceRequest] = []
        self.metadata: list[dict[str, Any]] = []

    def Export(self, request: ExportMetricsServiceRequest, context: Any) -> ExportMetricsServiceResponse:  # noqa: N802
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        return self._export(request, context)


@contextmanager
def grpc_server(
    export: Export, credentials: grpc.ServerCredentials | None = None
) -> Iterator[tuple[Servicer, str]]:
    servicer = Servicer(export)
    server = grpc.server(ThreadPoolExecutor(4))
    add_MetricsServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    address = "localhost:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield servicer, f"localhost:{port}"
    finally:
        server.stop(None).wait(5)


def yes(_request: ExportMetricsServiceRequest, _context: Any) -> ExportMetricsServiceResponse:
    return ExportMetricsServiceResponse()


def aborting(code: grpc.StatusCode, *details: bytes) -> Export:
    def export(_request: ExportMetricsServiceRequest, context: Any) -> ExportMetricsServiceResponse:
        context.set_trailing_metadata([("grpc-status-details-bin", detail) for detail in details])
        context.abort(code, "the server's\nown words")
        raise AssertionError

    return export


def retry_info(seconds: int, nanos: int = 0) -> bytes:
    detail = AnyMessage()
    detail.Pack(RetryInfo(retry_delay=Duration(seconds=seconds, nanos=nanos)))
    return bytes(Status(code=8, details=[AnyMessage(), detail]).SerializeToString())


def send(target: str, body: Body = BODY, **options: Any) -> Reply:
    sink = GrpcSink(target, **{"timeout": 5.0, **options})
    try:
        return sink.send(body)
    finally:
        sink.close()


def reply_to(export: Export, **options: Any) -> Reply:
    with grpc_server(export) as (_, target):
        return send(target, **options)


@pytest.mark.parametrize("compress", [True, False])
def test_what_arrives_is_what_was_sent(compress: bool) -> None:
    """The request, the metadata and the user agent arrive; with gzip too."""
    with grpc_server(yes) as (servicer, target):
        assert send(target, headers={"X-Token": "hush"}, compress=compress) == Reply(Outcome.ACCEPTED)
    (request,), (metadata,) = servicer.requests, servicer.metadata
    assert request.SerializeToString() == BODY.data
    assert metadata["x-token"] == "hush"
    assert metadata["user-agent"].startswith("perfpower-exporter/")


def test_compression_is_really_on_the_wire() -> None:
    """With gzip far fewer bytes leave than without."""

    def bytes_on_the_wire(compress: bool) -> int:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sink = GrpcSink(f"127.0.0.1:{listener.getsockname()[1]}", compress=compress, timeout=0.4)
            call = ThreadPoolExecutor(1)
            sending = call.submit(sink.send, gauges({"appstore.launch.time": 200}, size=600)[0])
            connection, _ = listener.accept()
            with connection:
                connection.sendall(bytes.fromhex("000000040000000000"))  # an empty SETTINGS frame
                connection.settimeout(0.3)
                total = 0
                try:
                    while received := connection.recv(65536):
                        total += len(received)
                except TimeoutError:
                    pass
            assert sending.result(5).outcome is Outcome.RETRY
            sink.close()
            call.shutdown()
            return total

    assert 0 < bytes_on_the_wire(True) < bytes_on_the_wire(False) / 2


def test_a_partial_success_is_told_as_it_is() -> None:
    """Rejected points and the Collector's words come out."""

    def export(_request: ExportMetricsServiceRequest, _context: Any) -> ExportMetricsServiceResponse:
        answer = ExportMetricsServiceResponse()
        answer.partial_success.rejected_data_points = 2
        answer.partial_success.error_message = "too old"
        return answer

    assert reply_to(export) == Reply(Outcome.ACCEPTED, 2, "too old")


CODES = {
    "CANCELLED": Outcome.RETRY,
    "UNKNOWN": Outcome.FAILED,
    "INVALID_ARGUMENT": Outcome.BAD_DATA,
    "DEADLINE_EXCEEDED": Outcome.RETRY,
    "NOT_FOUND": Outcome.REFUSED,
    "ALREADY_EXISTS": Outcome.REFUSED,
    "PERMISSION_DENIED": Outcome.REFUSED,
    "RESOURCE_EXHAUSTED": Outcome.FAILED,
    "FAILED_PRECONDITION": Outcome.REFUSED,
    "ABORTED": Outcome.RETRY,
    "OUT_OF_RANGE": Outcome.RETRY,
    "UNIMPLEMENTED": Outcome.REFUSED,
    "INTERNAL": Outcome.FAILED,
    "UNAVAILABLE": Outcome.RETRY,
    "DATA_LOSS": Outcome.RETRY,
    "UNAUTHENTICATED": Outcome.REFUSED,
}


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_each_code_has_its_outcome_and_its_words(code: grpc.StatusCode) -> None:
    """By the OTLP table of gRPC codes, all of them; the server's words stand on one line."""
    reply = reply_to(aborting(code))
    assert reply == Reply(
        CODES[code.name],
        message=f"{code.name}: the server's own words",
        perhaps_taken=code is grpc.StatusCode.DEADLINE_EXCEEDED,
    )


@pytest.mark.parametrize(
    ("code", "details", "outcome", "seconds"),
    [
        ("RESOURCE_EXHAUSTED", (retry_info(3, 500_000_000),), Outcome.RETRY, 3.5),
        ("RESOURCE_EXHAUSTED", (retry_info(0),), Outcome.RETRY, 0.0),
        ("RESOURCE_EXHAUSTED", (Status(code=8).SerializeToString(),), Outcome.FAILED, None),
        ("RESOURCE_EXHAUSTED", (b"\xff\xff\xff",), Outcome.FAILED, None),
        ("UNAVAILABLE", (retry_info(30),), Outcome.RETRY, 30.0),
        ("UNAVAILABLE", (retry_info(-30),), Outcome.RETRY, 0.0),
        ("UNAVAILABLE", (b"\xff\xff\xff",), Outcome.RETRY, None),
    ],
)
def test_retry_info_says_whether_and_when(
    code: str, details: tuple[bytes, ...], outcome: Outcome, seconds: float | None
) -> None:
    """RESOURCE_EXHAUSTED is retried only with RetryInfo; its delay is told, and never below 0."""
    reply = reply_to(aborting(grpc.StatusCode[code], *details))
    assert (reply.outcome, reply.retry_after) == (outcome, seconds)


def test_nobody_listening_is_retried() -> None:
    """An endpoint that is not there is UNAVAILABLE."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    reply = send(f"127.0.0.1:{port}")
    assert reply.outcome is Outcome.RETRY
    assert reply.message.startswith("UNAVAILABLE")


def test_a_slow_answer_ends_at_the_deadline() -> None:
    """`timeout` bounds the call."""

    def export(_request: ExportMetricsServiceRequest, context: Any) -> ExportMetricsServiceResponse:
        while context.is_active():
            time.sleep(0.02)
        return ExportMetricsServiceResponse()

    started = time.monotonic()
    reply = reply_to(export, timeout=0.3)
    assert reply.outcome is Outcome.RETRY
    assert reply.message.startswith("DEADLINE_EXCEEDED")
    assert time.monotonic() - started < 2


def test_a_server_of_another_kind_is_refused() -> None:
    """A gRPC server without the metrics service answers UNIMPLEMENTED: set another endpoint."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        assert send(f"localhost:{port}").outcome is Outcome.REFUSED
    finally:
        server.stop(None).wait(5)


@pytest.mark.parametrize("mutual", [False, True])
def test_a_private_authority_and_mutual_tls(tmp_path: Path, mutual: bool) -> None:
    """With the authority's file, and with our own pair where the server wants one, TLS works; else not."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("exporter")
    chain, server_key = authority.issue("server")
    credentials = grpc.ssl_server_credentials(
        [(server_key.read_bytes(), chain.read_bytes())],
        authority.file.read_bytes() if mutual else None,
        mutual,
    )
    with grpc_server(yes, credentials) as (_, target):
        assert send(target, tls=None, timeout=2.0).outcome is Outcome.RETRY
        assert send(target, tls=Tls(), timeout=2.0).outcome is Outcome.RETRY
        alone = send(target, tls=Tls(authority.file), timeout=2.0).outcome
        assert alone is (Outcome.RETRY if mutual else Outcome.ACCEPTED)
        assert send(target, tls=Tls(authority.file, key, certificate)).outcome is Outcome.ACCEPTED


def test_a_missing_certificate_file_is_a_configuration_error(tmp_path: Path) -> None:
    """Nothing starts with a file that cannot be read."""
    with pytest.raises(ConfigError, match="cannot be read"):
        GrpcSink("localhost:4317", tls=Tls(tmp_path / "nowhere.pem"))
