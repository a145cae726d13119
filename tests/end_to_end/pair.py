"""The exporter in process beside a real Collector: App Store Connect and the backend are stand-ins.

Time is simulated from the real time on, since the exporter's own metrics, the Collector and the stand-ins
have to agree on what is old. Everything goes over real sockets.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from exporter.endpoint import open_sink
from exporter.otlp.encode import Body
from exporter.otlp.sink import Reply, Sink
from exporter.report import CycleReport
from exporter.sandbox import AppStoreSandbox
from exporter.service import Exporter
from exporter.settings import load
from exporter.state import State
from tests.backends.datadog import DatadogIntake
from tests.backends.hec import COLLECTOR, HecCollector
from tests.backends.intake import Intake
from tests.backends.splunk import SplunkIngest
from tests.collector.running import Collector
from tests.service.service_world import Clock, Log, quick

ACCOUNT = "main"
HEARTBEAT = 240.0
DD_API_KEY = "made-up-datadog-key"
SPLUNK_ACCESS_TOKEN = "made-up-ingest-token"
SPLUNK_HEC_TOKEN = "made-up-hec-token"

Protocol = Literal["http/protobuf", "grpc"]
Overlay = Literal["datadog", "signalfx", "prometheus"]


@dataclass(frozen=True, slots=True)
class Sent:
    """A request of the exporter's, and what the Collector answered."""

    body: Body
    reply: Reply


@dataclass
class Tee:
    """A sink that keeps what it passes on to another one."""

    sink: Sink
    sent: list[Sent] = field(default_factory=list)

    def send(self, body: Body) -> Reply:
        """Pass it on."""
        reply = self.sink.send(body)
        self.sent.append(Sent(body, reply))
        return reply

    def close(self) -> None:
        """Close the other one."""
        self.sink.close()


class Backends:
    """The stand-ins for the backends of all overlays, on ports of their own.

    Args:
        clock: epoch seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self.datadog = DatadogIntake(key=DD_API_KEY, clock=clock)
        self.splunk = SplunkIngest(token=SPLUNK_ACCESS_TOKEN, clock=clock)
        self.hec = HecCollector(token=SPLUNK_HEC_TOKEN, clock=clock)
        self.all: tuple[Intake, ...] = (self.datadog, self.splunk, self.hec)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for intake in self.all:
            self._stack.enter_context(intake)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def environment(self) -> dict[str, str]:
        """What a Collector has to know of them; each overlay takes its own part."""
        return {
            "DD_API_KEY": DD_API_KEY,
            "DD_OTLP_ENDPOINT": self.datadog.url,
            "SPLUNK_ACCESS_TOKEN": SPLUNK_ACCESS_TOKEN,
            "SPLUNK_INGEST_URL": self.splunk.url,
            "SPLUNK_API_URL": self.splunk.url,
            "SPLUNK_HEC_TOKEN": SPLUNK_HEC_TOKEN,
            "SPLUNK_HEC_URL": self.hec.url + COLLECTOR,
        }

    def refusals(self) -> list[str]:
        """All that broke a rule, by which backend's."""
        return [f"{type(intake).__name__}: {refusal}" for intake in self.all for refusal in intake.refusals]


class Pause(threading.Event):
    """The exporter's `stop`, whose waits only move the clock on."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        """Move the clock."""
        self._clock.sleep(timeout or 0.0)
        return self.is_set()


class Pair:
    """The exporter and a Collector, from start to end of the `with` block.

    Args:
        otelcol: the Collector's program.
        folder: for the state and for what the Collector writes.
        overlay: which backend.
        protocol: of the way from the exporter to the Collector.
        settings: further settings; `limits__key_share=1` stands for PERFPOWER__LIMITS__KEY_SHARE.
    """

    def __init__(
        self,
        otelcol: Path,
        folder: Path,
        overlay: Overlay,
        *,
        protocol: Protocol = "http/protobuf",
        **settings: object,
    ) -> None:
        self.clock = Clock(time.time())
        self.day = 100.0
        self.log = Log()
        self._overlay: Overlay = overlay
        self.appstore = AppStoreSandbox(clock=self.clock, day=lambda: self.day)
        self.backends = Backends(self.clock)
        self.state_path = folder / "state.db"
        self._otelcol, self._folder = otelcol, folder
        self._protocol: Protocol = protocol
        self._more = settings
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            starting.enter_context(self.appstore)
            starting.enter_context(self.backends)
            self.collector = starting.enter_context(
                Collector(self._otelcol, self._folder, self._overlay, environment=self.backends.environment())
            )
            self.open()
            starting.callback(self.close)
            self._stack = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self) -> None:
        """Start the exporter, as at the start of its process."""
        self.settings = load(None, self.environment())
        self.state = quick(State(self.state_path))
        self.sink = Tee(open_sink(self.settings.otlp))
        self.exporter = Exporter(
            self.settings,
            self.state,
            self.sink,
            log=self.log,
            stop=Pause(self.clock),
            clock=self.clock,
        )
        self._closed = False

    def close(self) -> None:
        """End the exporter, which sends its own last metrics; once."""
        if not self._closed:
            self._closed = True
            self.exporter.close()
            self.state.close()

    def environment(self) -> dict[str, str]:
        """How the exporter is configured."""
        ports = self.collector.ports
        port = ports.grpc if self._protocol == "grpc" else ports.http
        own: Mapping[str, object] = {"schedule__heartbeat": f"{HEARTBEAT:.0f}s", **self._more}
        return {
            "ASC_ISSUER_ID": self.appstore.issuer_id,
            "ASC_KEY_ID": self.appstore.key_id,
            "ASC_PRIVATE_KEY": self.appstore.private_key_pem,
            "ASC_BASE_URL": self.appstore.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": self._protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "PERFPOWER_STATE": str(self.state_path),
            **{f"PERFPOWER__{name.upper()}": str(value) for name, value in own.items()},
        }

    def poll(self) -> CycleReport:
        """Ask App Store Connect; nothing is sent yet."""
        report = self.exporter.poll(ACCOUNT)
        assert report is not None
        return report

    def beat(self, later: float = HEARTBEAT) -> None:
        """A heartbeat, so many seconds later."""
        self.clock.now += later
        self.exporter.heartbeat()
