from __future__ import annotations

import socket
from collections.abc import Callable

import httpx
import pytest

from exporter.sandbox.loopback import Answer, LoopbackServer, Request


class Echo(LoopbackServer):
    def __init__(self, spoil: Callable[[], None] = lambda: None) -> None:
        super().__init__(body_limit=10)
        self.seen: list[Request] = []
        self.spoil = spoil

    def respond(self, request: Request) -> Answer:
        self.seen.append(request)
        self.spoil()
        status = int(request.query or 200)
        return Answer(status, {"X-Problem": request.problem or "none"}, request.body or b"hello")


def talk(url: str, text: bytes) -> bytes:
    """Send bytes as they are, close the sending side, and read to the end."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    return answer


def test_one_connection_serves_several_requests() -> None:
    """Connections are kept alive, so that a client's pool behaves as with the real servers."""
    text = (
        b"POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nokGET /b?204 HTTP/1.1\r\n\r\nHEAD /c HTTP/1.1\r\n\r\n"
    )
    with Echo() as server:
        answer = talk(server.url, text)
    assert [(r.method, r.path, r.body) for r in server.seen] == [
        ("POST", "/a", b"ok"),
        ("GET", "/b", b""),
        ("HEAD", "/c", b""),
    ]
    assert answer.count(b"HTTP/1.1 200") == 2
    assert answer.count(b"HTTP/1.1 204") == 1
    assert answer.count(b"hello") == 0


@pytest.mark.parametrize("length", [b"x", b"-1", b"1.0", b"9" * 16, b""])
def test_a_length_that_is_none_is_reported(length: bytes) -> None:
    """Such a request is answered, its body is not read, and the connection ends."""
    with Echo() as server:
        answer = talk(
            server.url, b"POST / HTTP/1.1\r\nContent-Length: " + length + b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"
        )
    assert [r.problem for r in server.seen] == ["no length"]
    assert b"X-Problem: no length" in answer
    assert b"Connection: close" in answer


def test_a_body_over_the_limit_is_reported() -> None:
    """The body is thrown away, and the client gets to see the answer."""
    with Echo() as server:
        assert httpx.post(server.url, content=b"x" * 11, trust_env=False).headers["x-problem"] == "too large"
        assert httpx.post(server.url, content=b"x" * 10, trust_env=False).text == "x" * 10


def test_a_large_body_is_read_to_its_end() -> None:
    """A client that sends everything before it listens is not cut off."""
    body = b"x" * 3_000_000
    with Echo() as server:
        answer = talk(server.url, b"POST / HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n" + body)
    assert b"X-Problem: too large" in answer


def test_half_a_body_is_no_request() -> None:
    """A client that goes away in the middle of its body is not answered, and nothing is taken from it."""
    with Echo() as server:
        assert talk(server.url, b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf") == b""
    assert server.seen == []


def test_a_client_that_went_away_makes_no_noise(capfd: pytest.CaptureFixture[str]) -> None:
    """A connection reset by the client is not shown; a fault of our own is."""

    def reset() -> None:
        raise ConnectionResetError

    def stumble() -> None:
        raise LookupError("our own fault")

    for spoil in (reset, stumble):
        with Echo(spoil) as server, pytest.raises(httpx.RemoteProtocolError):
            httpx.get(server.url, trust_env=False)
    shown = capfd.readouterr().err
    assert "our own fault" in shown
    assert "ConnectionResetError" not in shown


def test_a_path_of_two_slashes_is_a_path() -> None:
    """Nothing in the request line is taken for a host."""
    with Echo() as server:
        talk(server.url, b"GET //evil.example/x?200 HTTP/1.1\r\n\r\n")
    assert (server.seen[0].path, server.seen[0].query) == ("/evil.example/x", "200")
