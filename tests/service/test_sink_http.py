from __future__ import annotations

import gzip
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from exporter.errors import ConfigError
from exporter.otlp.encode import Body
from exporter.otlp.http_sink import HttpSink
from exporter.otlp.sink import Outcome, Reply, Tls
from exporter.sandbox import OtlpFault, OtlpReceiver
from exporter.sandbox.loopback import Answer
from tests.service.service_world import NOW, Clock, Recorder, gauges

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}
HTML = {"Content-Type": "text/html; charset=utf-8"}
BODY = gauges({"appstore.launch.time": 3})[0]


def partial(rejected: int, message: str) -> bytes:
    answer = ExportMetricsServiceResponse()
    answer.partial_success.rejected_data_points = rejected
    answer.partial_success.error_message = message
    return answer.SerializeToString()


def reply_to(answer: Answer, *, timeout: float = 5.0) -> Reply:
    with Recorder(answer) as server:
        sink = HttpSink(f"{server.url}/v1/metrics", timeout=timeout, clock=Clock())
        try:
            return sink.send(BODY)
        finally:
            sink.close()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, PROTOBUF),
        Answer(200, {}),
        Answer(204, {}),
        Answer(202, PROTOBUF, ExportMetricsServiceResponse().SerializeToString()),
        Answer(200, JSON, b"{}"),
        Answer(200, JSON, b""),
        Answer(200, JSON, b'{"partialSuccess": {}, "someday": {"new": 1}}'),
        Answer(200, PROTOBUF, partial(0, "")),
    ],
)
def test_an_otlp_yes_is_a_success(answer: Answer) -> None:
    """A 2xx is a success when it is empty or an ExportMetricsServiceResponse without rejections."""
    assert reply_to(answer) == Reply(Outcome.ACCEPTED)


@pytest.mark.parametrize(
    ("answer", "rejected", "message"),
    [
        (Answer(200, PROTOBUF, partial(2, "too old")), 2, "too old"),
        (Answer(200, PROTOBUF, partial(0, "only a warning")), 0, "only a warning"),
        (Answer(200, PROTOBUF, partial(-4, "nonsense")), 0, "nonsense"),
        (
            Answer(200, JSON, b'{"partialSuccess":{"rejectedDataPoints":"2","errorMessage":"too old"}}'),
            2,
            "too old",
        ),
    ],
)
def test_a_partial_success_is_told_as_it_is(answer: Answer, rejected: int, message: str) -> None:
    """Rejected points and the Collector's words come out, from protobuf and from JSON."""
    assert reply_to(answer) == Reply(Outcome.ACCEPTED, rejected, message)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, HTML, b"<html>Welcome to the hotel's network</html>"),
        Answer(200, {}, b"OK"),
        Answer(200, PROTOBUF, b"\xff\xff not protobuf"),
        Answer(200, JSON, b"[1, 2"),
        Answer(200, JSON, b'{"partialSuccess": 7}'),
        Answer(200, JSON, b"[" * 50_000),
        Answer(200, JSON, b"\xff\xfe\xfa"),
        Answer(200, PROTOBUF, b"\x0a" * (5 << 20)),
    ],
)
def test_a_yes_in_other_words_is_no_success(answer: Answer) -> None:
    """200 with HTML, with damaged or with endless content is some proxy's: nothing was delivered."""
    reply = reply_to(answer)
    assert reply.outcome is Outcome.REFUSED
    assert "proxy" in reply.message or reply.message.endswith("…")
    assert len(reply.message) <= 300


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_not_followed(status: int) -> None:
    """A 3xx delivers nothing; the message says where it points, and nothing is sent there."""
    with Recorder(Answer(200)) as elsewhere, Recorder(Answer(status, {"Location": elsewhere.url})) as server:
        sink = HttpSink(server.url)
        reply = sink.send(BODY)
        sink.close()
        assert not elsewhere.requests
        assert reply.outcome is Outcome.REFUSED
        assert reply.message == f"HTTP {status} redirects to {elsewhere.url}; set that as the endpoint"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (304, Outcome.REFUSED),
        (400, Outcome.BAD_DATA),
        (401, Outcome.REFUSED),
        (403, Outcome.REFUSED),
        (404, Outcome.REFUSED),
        (405, Outcome.REFUSED),
        (408, Outcome.REFUSED),
        (413, Outcome.BAD_DATA),
        (415, Outcome.REFUSED),
        (422, Outcome.BAD_DATA),
        (429, Outcome.RETRY),
        (500, Outcome.FAILED),
        (501, Outcome.FAILED),
        (502, Outcome.RETRY),
        (503, Outcome.RETRY),
        (504, Outcome.RETRY),
        (599, Outcome.FAILED),
    ],
)
def test_each_status_has_its_outcome_and_its_words(status: int, outcome: Outcome) -> None:
    """By the OTLP table: 429, 502, 503, 504 later; 400, 413, 422 the data; the rest of 4xx for good."""
    body = Status(code=3, message="no\n such\tthing").SerializeToString()
    reply = reply_to(Answer(status, PROTOBUF, body))
    assert reply.outcome is outcome
    assert reply.message.startswith(f"HTTP {status}")
    assert status == 304 or reply.message.endswith(": no such thing")
    assert reply.retry_after is None


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "17"}, 17.0),
        ({"Retry-After": "Fri, 15 Jan 2027 08:00:40 GMT"}, 40.0),
        ({"Retry-After": "Fri, 15 Jan 2027 08:00:40 GMT", "Date": "Fri, 15 Jan 2027 08:00:30 GMT"}, 10.0),
        ({"Retry-After": "when it suits"}, None),
    ],
)
def test_retry_after_is_read_in_both_forms(
    status: int, headers: dict[str, str], seconds: float | None
) -> None:
    """What is to be retried says how long to wait, as seconds or as a date."""
    assert datetime(2027, 1, 15, 8, tzinfo=UTC).timestamp() == NOW
    assert reply_to(Answer(status, headers)).retry_after == seconds


def test_an_error_in_html_is_shown_bounded_on_one_line() -> None:
    """A proxy's error page does not fill the log, and no control character gets there."""
    reply = reply_to(Answer(502, HTML, b"<html>\x1b[31m\r\n" + b"bad gateway " * 10_000))
    assert reply.outcome is Outcome.RETRY
    assert reply.message.startswith("HTTP 502: <html> [31m bad gateway")
    assert reply.message.isprintable()
    assert len(reply.message) <= 300


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, silent=True),
        Answer(200, PROTOBUF, partial(1, "a long message"), cut_after=4),
        Answer(200, {"Content-Encoding": "gzip", **PROTOBUF}, b"not gzip"),
    ],
)
def test_an_answer_that_breaks_off_is_retried(answer: Answer) -> None:
    """Without a whole answer nobody knows whether the data was taken: it is sent again."""
    reply = reply_to(answer)
    assert reply.outcome is Outcome.RETRY
    assert reply.message


@pytest.mark.parametrize(
    "answer", [Answer(200, PROTOBUF, delay=3.0), Answer(200, PROTOBUF, partial(1, "x" * 200), drip=0.05)]
)
def test_a_slow_answer_ends_at_the_time_out(answer: Answer) -> None:
    """`timeout` bounds the whole request, also where a byte comes now and then."""
    started = time.monotonic()
    reply = reply_to(answer, timeout=0.3)
    assert reply.outcome is Outcome.RETRY
    assert time.monotonic() - started < 2.0


def test_no_collector_is_retried() -> None:
    """A refused connection is no fault of the data."""
    with Recorder(Answer(200)) as server:
        url = server.url
    sink = HttpSink(url)
    reply = sink.send(BODY)
    sink.close()
    assert reply.outcome is Outcome.RETRY
    assert "ConnectError" in reply.message


def test_a_drop_before_and_after_storing_looks_the_same() -> None:
    """An endpoint that took the data and then broke off is asked again; the same bytes are sent."""
    with OtlpReceiver(clock=Clock()) as receiver:
        receiver.answer(OtlpFault(close="after"))
        receiver.answer(OtlpFault(close="before"))
        sink = HttpSink(f"{receiver.url}/v1/metrics")
        outcomes = [sink.send(BODY).outcome for _ in range(3)]
        sink.close()
        assert outcomes == [Outcome.RETRY, Outcome.RETRY, Outcome.ACCEPTED]
        assert len(receiver.points) == 6
        assert len(receiver.latest()) == 3


@pytest.mark.parametrize("compress", [True, False])
def test_the_wire_holds_what_it_says(compress: bool) -> None:
    """Content type, encoding, user agent and own headers are sent; unpacked, the body is ours."""
    with Recorder(Answer(200)) as server:
        sink = HttpSink(f"{server.url}/some/path", headers={"x-token": "secret"}, compress=compress)
        sink.send(BODY)
        sink.close()
        (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/some/path")
    assert request.headers["Content-Type"] == "application/x-protobuf"
    assert request.headers["Content-Encoding"] == ("gzip" if compress else None)
    assert request.headers["User-Agent"].startswith("perfpower-exporter/")
    assert request.headers["x-token"] == "secret"
    assert (gzip.decompress(request.body) if compress else request.body) == BODY.data
    assert compress == request.body.startswith(b"\x1f\x8b")


def test_no_message_repeats_a_header() -> None:
    """A token that is sent as a header is in no reply and in no repr."""
    answers = [Answer(401, {}, b"who are you"), Answer(302, {"Location": "/login"}), Answer(200, silent=True)]
    with Recorder(*answers) as server:
        sink = HttpSink(server.url, headers={"x-token": "hush-hush"})
        replies = [sink.send(BODY) for _ in answers]
        sink.close()
    assert "hush-hush" not in repr((sink, replies))


def test_a_proxy_of_the_environment_does_not_get_what_stays_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A Collector on the loopback interface is reached directly, whatever proxy the environment names."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Recorder(Answer(200)) as proxy, Recorder(Answer(200)) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        sink = HttpSink(server.url)
        assert sink.send(BODY).outcome is Outcome.ACCEPTED
        sink.close()
        assert not proxy.requests
        assert len(server.requests) == 1


# TLS


class Authority:
    """A private certificate authority."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a private authority")])
        certificate = self._certificate(self._name, self._key.public_key(), authority=True)
        self.file = folder / "authority.pem"
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """The files of a certificate and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._certificate(subject, key.public_key(), authority=False)
        files = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return files

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
                ),
                critical=False,
            )
        )
        return builder.sign(self._key, hashes.SHA256())


class Quiet(HTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A refused handshake is what some tests want."""


class Yes(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def serving(server: HTTPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def tls_server(authority: Authority, *, mutual: bool) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server"))
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.file)
    server = Quiet(("127.0.0.1", 0), Yes)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server) as port:
        yield port


@pytest.mark.parametrize("mutual", [False, True])
def test_a_private_authority_and_mutual_tls(tmp_path: Path, mutual: bool) -> None:
    """With the authority's file, and with our own pair where the server wants one, TLS works; else not."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("exporter")
    with tls_server(authority, mutual=mutual) as port, ExitStack() as closing:

        def outcome(tls: Tls | None) -> Outcome:
            sink = HttpSink(f"https://127.0.0.1:{port}/v1/metrics", tls=tls, timeout=3)
            closing.callback(sink.close)
            return sink.send(BODY).outcome

        assert outcome(Tls()) is Outcome.RETRY
        assert outcome(None) is Outcome.RETRY
        assert outcome(Tls(authority.file)) is (Outcome.RETRY if mutual else Outcome.ACCEPTED)
        assert outcome(Tls(authority.file, key, certificate)) is Outcome.ACCEPTED


@pytest.mark.parametrize("which", ["missing", "not a certificate", "key of another"])
def test_a_certificate_file_that_cannot_be_used_is_a_configuration_error(tmp_path: Path, which: str) -> None:
    """Nothing starts with a file that is missing, that is no PEM, or whose key does not fit."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("exporter")
    _, other = authority.issue("other")
    (tmp_path / "text").write_text("hello")
    tls = {
        "missing": Tls(tmp_path / "nowhere.pem"),
        "not a certificate": Tls(tmp_path / "text"),
        "key of another": Tls(authority.file, other, certificate),
    }[which]
    with pytest.raises(ConfigError, match=r"otlp.certificate") as caught:
        HttpSink("https://localhost:4318", tls=tls)
    assert key.read_text() not in str(caught.value)


def test_an_empty_request_is_sent_like_any_other() -> None:
    """`check` sends a request without points."""
    with OtlpReceiver() as receiver:
        sink = HttpSink(f"{receiver.url}/v1/metrics")
        assert sink.send(Body(b"", 0)) == Reply(Outcome.ACCEPTED)
        sink.close()
        assert [request.points for request in receiver.requests] == [0]
