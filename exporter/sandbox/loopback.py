"""A small HTTP server on 127.0.0.1 that can also answer badly, and that stops at once."""

from __future__ import annotations

import re
import socket
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self, cast

_POLL_SECONDS = 0.02
_IDLE_SECONDS = 60.0
_WITHOUT_BODY = (204, 304)
_DISCARDED_AT_MOST = 64 * 1024 * 1024
_LENGTH = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True)
class Request:
    """A request as it came in.

    Args:
        method: `GET`, `POST`, …
        path: without the query.
        query: as sent, without the question mark.
        headers: looked up without regard to case.
        body: empty when there was none.
        problem: why the body was not read (`too large`, `no length`), else None.
    """

    method: str
    path: str
    query: str
    headers: Message
    body: bytes = b""
    problem: Literal["too large", "no length"] | None = None


@dataclass(frozen=True)
class Answer:
    """What to send back, and how.

    Args:
        status: the HTTP status.
        headers: `Content-Length` is added to them.
        body: the body.
        delay: seconds to wait before the first byte.
        cut_after: after so many bytes of the body the connection is dropped; None sends all.
        drip: seconds to wait before each single byte of the body; None sends all at once.
        silent: drop the connection without any answer.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0
    cut_after: int | None = None
    drip: float | None = None
    silent: bool = False


class LoopbackServer(ABC):
    """Serves `respond` on 127.0.0.1 while it is open; use it as a context manager.

    Args:
        port: 0 takes a free one.
        body_limit: larger request bodies are not read; `Request.problem` says so.

    Closing drops open connections, ends answers that are being delayed, and joins every thread.
    """

    def __init__(self, *, port: int = 0, body_limit: int = 0) -> None:
        self._port = port
        self._body_limit = body_limit
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @abstractmethod
    def respond(self, request: Request) -> Answer:
        """The answer to a request; called from several threads at a time."""

    @property
    def url(self) -> str:
        """Where it serves, without a trailing slash; RuntimeError while it is not open."""
        if self._server is None:
            raise RuntimeError(f"{type(self).__name__} is not open: use it as a context manager")
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._server = server = _Server(self.respond, self._port, self._body_limit)
        self._thread = threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop at once. Closing twice, or before the start, is harmless."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        server.stopping.set()
        server.shutdown()
        thread.join()
        server.drop_connections()
        server.server_close()
        self._server = self._thread = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, respond: Callable[[Request], Answer], port: int, body_limit: int) -> None:
        self.respond = respond
        self.body_limit = body_limit
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, socket.socket] = {}
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer asks the resolver for its own name here, which can take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        # The base class forgets its daemon threads; these are kept, so that they can be joined.
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        with self._lock:
            self._connections[thread] = request
        thread.start()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._connections.pop(threading.current_thread(), None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours; anything else is shown."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def drop_connections(self) -> None:
        with self._lock:
            connections = dict(self._connections)
        for thread, connection in connections.items():
            _hang_up(connection)
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    disable_nagle_algorithm = True

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):  # the answer to an unwanted method is `respond`'s business
            return self._serve
        raise AttributeError(name)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the base class names it so
        """Say nothing: the owner keeps a list of requests."""

    def _serve(self) -> None:
        server = cast("_Server", self.server)
        request = self._read(server.body_limit)
        if request is None:
            self.close_connection = True
            return
        answer = server.respond(request)
        if answer.delay:
            server.stopping.wait(answer.delay)
        if server.stopping.is_set():
            self._drop()
        else:
            self._send(answer, server.stopping)

    def _read(self, limit: int) -> Request | None:
        path, _, query = self.path.partition("?")
        declared = self.headers.get("Content-Length", "0" if self.command in ("GET", "HEAD") else "")
        problem: Literal["too large", "no length"] | None = None
        body = b""
        if not _LENGTH.fullmatch(declared) or "Transfer-Encoding" in self.headers:
            problem = "no length"
        elif int(declared) > limit:
            problem = "too large"
            self._discard(int(declared))
        else:
            body = self.rfile.read(int(declared))
            if len(body) < int(declared):
                return None
        self.close_connection = self.close_connection or problem is not None
        return Request(self.command, path, query, self.headers, body, problem)

    def _discard(self, length: int) -> None:
        """Read what a client is about to send anyway, so that it gets to see the answer."""
        left = min(length, _DISCARDED_AT_MOST)
        while left > 0 and (chunk := self.rfile.read(min(left, 65536))):
            left -= len(chunk)

    def _send(self, answer: Answer, stopping: threading.Event) -> None:
        if answer.silent:
            self._drop()
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status not in _WITHOUT_BODY:
            self.send_header("Content-Length", str(len(answer.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD" and answer.status not in _WITHOUT_BODY:
            self._send_body(answer, stopping)

    def _send_body(self, answer: Answer, stopping: threading.Event) -> None:
        body = answer.body if answer.cut_after is None else answer.body[: answer.cut_after]
        if answer.drip is None:
            self.wfile.write(body)
        else:
            for place in range(len(body)):
                if stopping.wait(answer.drip):
                    break
                self.wfile.write(body[place : place + 1])
        if answer.cut_after is not None:
            self._drop()

    def _drop(self) -> None:
        self.close_connection = True
        _hang_up(self.connection)


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # the other side was quicker
        return
