"""A real Collector with our configurations, on ports of its own."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
import yaml

REPOSITORY = Path(__file__).parents[2]
BASE = REPOSITORY / "otel-collector-config.yaml"
OVERLAYS = REPOSITORY / "config" / "collector"
_LONGEST_START = 60.0


def configurations(*overlays: str) -> list[Path]:
    """The base, and overlays by their names: `datadog`, `signalfx`, `prometheus`."""
    return [BASE, *(OVERLAYS / f"{name}.yaml" for name in overlays)]


def run(
    program: Path, arguments: Sequence[str], configs: Sequence[Path], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command of the Collector that ends by itself, in this environment and no other."""
    command = [str(program), *arguments, *(f"--config={path}" for path in configs)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a Collector of the tests listens, on 127.0.0.1."""

    http: int
    grpc: int
    health: int
    telemetry: int
    scrape: int


def free_ports() -> Ports:
    """Ports that nobody listens on; held all at once, so that they differ.

    Below those that a system gives to connections: one of these may be taken before the Collector listens.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(free_port()) for _ in range(5)]
        return Ports(*(held.getsockname()[1] for held in sockets))


def free_port() -> socket.socket:
    """A socket that holds such a port until it is closed."""
    while True:
        with suppress(OSError):
            return socket.create_server(("127.0.0.1", random.randrange(10_000, 32_000)))


class Collector:
    """A Collector from its start, when it says that it is healthy, to the end of the `with` block.

    Args:
        program: the Collector.
        folder: for its log (which outlives it) and the overlays that this writes.
        overlays: as for `configurations`.
        environment: all that it sees of one.
        further: a last overlay, as a mapping.

    Raises:
        AssertionError: it ended, or did not become healthy; with what it said.
    """

    def __init__(
        self,
        program: Path,
        folder: Path,
        *overlays: str,
        environment: Mapping[str, str] | None = None,
        further: Mapping[str, object] | None = None,
    ) -> None:
        self.ports = free_ports()
        self._log = folder / "collector.log"
        own = [folder / "ports.yaml", folder / "further.yaml"]
        own[0].write_text(yaml.safe_dump(_listening(self.ports, scraped="prometheus" in overlays)))
        own[1].write_text(yaml.safe_dump(dict(further or {})))
        configs = [*configurations(*overlays), *own]
        self._command = [str(program), *(f"--config={path}" for path in configs)]
        self._environment = dict(environment or {})
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        log = self._stack.enter_context(self._log.open("ab"))
        self.process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        self._stack.callback(self._stop)
        try:
            self.wait(self._is_healthy, "it is not healthy")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def metrics_url(self) -> str:
        """Where an HttpSink sends."""
        return f"http://127.0.0.1:{self.ports.http}/v1/metrics"

    def said(self) -> str:
        """What it wrote so far."""
        return self._log.read_text(errors="replace")

    def page(self, port: int, path: str = "/metrics") -> str:
        """What it answers with 200 at one of its ports."""
        return httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False).raise_for_status().text

    def wait(self, done: Callable[[], bool], otherwise: str) -> None:
        """Until something is so that the Collector does in its own time."""
        deadline = time.monotonic() + _LONGEST_START
        while not done():
            assert self.process.poll() is None, f"the Collector has ended:\n{self.said()}"
            assert time.monotonic() < deadline, f"{otherwise}:\n{self.said()}"
            time.sleep(0.02)

    def _is_healthy(self) -> bool:
        try:
            self.page(self.ports.health, "/")
        except httpx.HTTPError:
            return False
        return True

    def _stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def _listening(ports: Ports, *, scraped: bool) -> dict[str, object]:
    """An overlay that moves what listens to other ports."""
    reader = {"pull": {"exporter": {"prometheus": {"host": "127.0.0.1", "port": ports.telemetry}}}}
    protocols = {name: {"endpoint": f"127.0.0.1:{getattr(ports, name)}"} for name in ("http", "grpc")}
    overlay: dict[str, object] = {
        "receivers": {"otlp": {"protocols": protocols}},
        "extensions": {"health_check": {"endpoint": f"127.0.0.1:{ports.health}"}},
        "service": {"telemetry": {"metrics": {"readers": [reader]}}},
    }
    if scraped:
        overlay["exporters"] = {"prometheus": {"endpoint": f"127.0.0.1:{ports.scrape}"}}
    return overlay
