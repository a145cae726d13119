"""The HTTP listener: /livez, /readyz, and a status page in plain text.

/livez fails when heartbeats stop: restart the process. /readyz fails when data does not come in or go out:
restarting does not help, and the answer says what does.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
from collections.abc import Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from exporter.errors import ConfigError, ExporterError
from exporter.status import Status


class HealthServer:
    """Listens in a thread of its own until it is closed.

    Raises:
        ConfigError: the address cannot be listened on.
    """

    def __init__(self, address: tuple[str, int], status: Status) -> None:
        try:
            self._server = _Server(address, status)
        except OSError as error:
            raise ConfigError(
                f"{address[0]}:{address[1]} cannot be listened on ({error.strerror})",
                remedy="Choose another http.listen, or off.",
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = str(self._server.server_address[0]), self._server.server_address[1]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], status: Status) -> None:
        self.status = status
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer asks the resolver for its own name here, which can take seconds.
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A probe that hung up is nothing to log."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10  # seconds for a client to send its request
    server_version = "perfpower-exporter"
    sys_version = ""

    def do_GET(self) -> None:
        try:
            self._get()
        except ExporterError as error:  # the state file cannot be read
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, [str(error)])

    do_HEAD = do_GET  # noqa: N815  # http.server finds methods by this name

    def _get(self) -> None:
        status = self.server.status
        match self.path.partition("?")[0]:
            case "/livez":
                self._health(status.not_alive())
            case "/readyz":
                self._health(status.not_ready())
            case "/":
                self._answer(HTTPStatus.OK, status.lines())
            case _:
                self._answer(HTTPStatus.NOT_FOUND, ["There is /livez, /readyz and the status page at /."])

    def _health(self, reasons: list[str]) -> None:
        if reasons:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, reasons)
        else:
            self._answer(HTTPStatus.OK, ["ok"])

    def _answer(self, code: HTTPStatus, lines: Iterable[str]) -> None:
        body = "".join(line + "\n" for line in lines).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """A probe every few seconds is nothing to log."""
