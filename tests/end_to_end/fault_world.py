"""The pair and both its ends, made to fail: sandbox → exporter → real Collector → strict stand-ins."""

from __future__ import annotations

import re
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http import HTTPStatus
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from exporter.endpoint import open_sink
from exporter.sandbox import AppStoreSandbox
from exporter.sandbox.loopback import Answer, Request
from exporter.sandbox.points import Point, SeriesKey, read_points
from exporter.sandbox.records import read_records
from exporter.service import Exporter
from exporter.state import Item, State
from tests.backends import datadog, hec, splunk
from tests.backends.datadog import DatadogIntake
from tests.backends.hec import HecCollector
from tests.backends.intake import Fault, Intake, Refusal, unpacked
from tests.backends.splunk import SplunkIngest
from tests.collector.running import Collector, free_ports
from tests.end_to_end.at_splunk import AS_INTEGERS
from tests.service.service_world import Clock, Log, quick, settings_of

KEY = "made-up-key-5c1a7e"
ACCOUNT = "main"
_LARGEST = 64 << 20
_ALWAYS = 100_000  # requests

EventKey = tuple[str, str]
"""What an event says, and the digest of its log; empty for an insight."""
Signal = Literal["metrics", "events"]
"""As an operator reads it."""
Content = tuple[tuple[int, ...], float]
"""Of a distribution: the counts of its buckets, and the sum in the unit in which the exporter sent it."""


class Backend(ABC):
    """A vendor's stand-ins.

    Args:
        overlay: the Collector's configuration for it.
        paths: where metrics and events go.
        refuses_keys: the statuses that it has for a wrong key, for metrics and for events.
        environment: of the Collector.
        metrics: the intake of metrics.
        events: the intake of events; that of metrics, where the vendor has one for both.
    """

    overlay: str
    paths: ClassVar[Mapping[Signal, str]]
    refuses_keys: tuple[int, int]
    environment: dict[str, str]
    metrics: Intake
    events: Intake

    @abstractmethod
    def distributions(self) -> list[Point]:
        """What was taken, as it came to the backend, twice if it came twice; sums in our units."""

    @abstractmethod
    def gauges(self) -> Counter[int]:
        """How many gauges there are of each second."""

    @abstractmethod
    def told(self) -> Counter[EventKey]:
        """The events, and how often each came."""

    @abstractmethod
    def words(self, metrics: int, events: int) -> tuple[str, str]:
        """What an operator has to read of metrics and of events that it answers with these statuses."""


class WatchedDatadog(DatadogIntake):
    """Remembers the windows of the distributions that it took, which Datadog does not show."""

    def __init__(self, clock: Callable[[], float], port: int) -> None:
        super().__init__(key=KEY, clock=clock, port=port)
        self.taken: list[Point] = []

    def take(self, request: Request) -> tuple[Answer, list[str]]:
        answer = super().take(request)
        if request.path == datadog.METRICS:
            self.taken += _distributions_in(request, self.clock())
        return answer


class WatchedSplunk(SplunkIngest):
    """Remembers the windows of the distributions that it took."""

    def __init__(self, clock: Callable[[], float], port: int) -> None:
        super().__init__(token=KEY, clock=clock, port=port)
        self.taken: list[Point] = []

    def take(self, request: Request) -> tuple[Answer, list[str]]:
        answer = super().take(request)
        if "otlp" in request.headers["Content-Type"]:
            self.taken += _distributions_in(request, self.clock())
        return answer


class Datadog(Backend):
    """Datadog's intake, for both signals."""

    overlay = "datadog"
    paths: ClassVar[Mapping[Signal, str]] = {"metrics": datadog.METRICS, "events": datadog.LOGS}
    refuses_keys = 403, 403

    def __init__(self, clock: Callable[[], float], key: str) -> None:
        port = free_ports().http
        self.metrics = self.events = self._intake = WatchedDatadog(clock, port)
        self.environment = {"DD_API_KEY": key, "DD_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}

    def words(self, metrics: int, events: int) -> tuple[str, str]:
        address = self.environment["DD_OTLP_ENDPOINT"]
        return (
            f"request to {address}{datadog.METRICS} responded with HTTP Status Code {metrics},",
            f"request to {address}{datadog.LOGS} responded with HTTP Status Code {events},",
        )

    def distributions(self) -> list[Point]:
        return list(self._intake.taken)

    def gauges(self) -> Counter[int]:
        return Counter(point.time for point in self._intake.points() if point.kind == "gauge")

    def told(self) -> Counter[EventKey]:
        return Counter(event_key(record.message, record.attributes) for record in self._intake.records())


class Splunk(Backend):
    """Splunk Observability for metrics, Splunk's HEC for events."""

    overlay = "signalfx"
    paths: ClassVar[Mapping[Signal, str]] = {"metrics": splunk.DATAPOINT, "events": hec.COLLECTOR}
    refuses_keys = 401, 403

    def __init__(self, clock: Callable[[], float], key: str) -> None:
        ports = free_ports()
        self.metrics = self._ingest = WatchedSplunk(clock, ports.http)
        self.events = self._hec = HecCollector(token=KEY, clock=clock, port=ports.grpc)
        ingest = f"http://127.0.0.1:{ports.http}"
        self.environment = {
            "SPLUNK_ACCESS_TOKEN": key,
            "SPLUNK_INGEST_URL": ingest,
            "SPLUNK_API_URL": ingest,
            "SPLUNK_HEC_TOKEN": key,
            "SPLUNK_HEC_URL": f"http://127.0.0.1:{ports.grpc}{hec.COLLECTOR}",
        }

    def words(self, metrics: int, events: int) -> tuple[str, str]:
        return (
            f'HTTP "{splunk.DATAPOINT}" {metrics} "{HTTPStatus(metrics).phrase}"',
            f'HTTP "{hec.COLLECTOR}" {events} "{HTTPStatus(events).phrase}"',
        )

    def distributions(self) -> list[Point]:
        return [_in_our_unit(point) for point in self._ingest.taken]

    def gauges(self) -> Counter[int]:
        points = self._ingest.points()
        return Counter(point.time_unix_milli // 1000 for point in points if point.kind == "gauge")

    def told(self) -> Counter[EventKey]:
        return Counter(event_key(record.event, record.fields) for record in self._hec.records())


BACKENDS: dict[str, Callable[[Callable[[], float], str], Backend]] = {"datadog": Datadog, "signalfx": Splunk}


class Owed:
    """What polls put into the outbox, as it was then."""

    def __init__(self) -> None:
        self.distributions: defaultdict[SeriesKey, list[Content]] = defaultdict(list)
        self.events: Counter[EventKey] = Counter()

    def add(self, items: Iterable[Item], now: float) -> None:
        """Items of the outbox, the oldest first."""
        for item in items:
            if item.body.signal == "metrics":
                message = ExportMetricsServiceRequest.FromString(item.body.data)
                for point in read_points(message, now):
                    self.distributions[point.series].append(content(point))
            else:
                records = read_records(ExportLogsServiceRequest.FromString(item.body.data), now)
                self.events.update(event_key(record.body, record.attributes) for record in records)


class Ends:
    """App Store Connect, the Collector and the backend; the exporter between them is the test's business.

    Args:
        program: the Collector.
        folder: for the Collector's log and its key, and for the state file if that is nowhere else.
        backend: the overlay's name.
        clock: Unix seconds, of App Store Connect and the backend.
        state: the state file.
    """

    def __init__(
        self,
        program: Path,
        folder: Path,
        backend: str,
        *,
        clock: Callable[[], float] = time.time,
        state: Path | None = None,
    ) -> None:
        self.day = 100.0
        self.folder = folder
        self.state_path = state or folder / "state.db"
        self.further = folder / "further.yaml"  # read by the Collector at its start, as the last overlay
        self.key_file = folder / "key"
        self.key_file.write_text(KEY)
        self.backend = BACKENDS[backend](clock, f"${{file:{self.key_file}}}")
        self.collector = Collector(program, folder, backend, environment=self.backend.environment)
        self.appstore = AppStoreSandbox(clock=clock, day=lambda: self.day, minute_limit=3000)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            starting.enter_context(self.appstore)
            starting.callback(self.backend_goes)
            self.backend_comes()
            starting.callback(self.collector.__exit__)
            self.collector.__enter__()
            self._open = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def intake(self, signal: Signal) -> Intake:
        """Where a signal goes."""
        return self.backend.metrics if signal == "metrics" else self.backend.events

    @property
    def intakes(self) -> set[Intake]:
        """The backend's, one or two."""
        return {self.backend.metrics, self.backend.events}

    def backend_goes(self) -> None:
        """From now on connections are refused."""
        for intake in self.intakes:
            intake.close()

    def backend_comes(self) -> None:
        """It listens, and knows what it was sent before."""
        for intake in self.intakes:
            intake.__enter__()

    @contextmanager
    def answering(self, fault: Fault) -> Iterator[None]:
        """The backend answers with this whatever it is for, until the end of the block."""
        for intake in self.intakes:
            intake.answer(fault, _ALWAYS)
        try:
            yield
        finally:
            for intake in self.intakes:
                intake._faults.clear()

    def kill_collector(self) -> None:
        """SIGKILL."""
        self.collector.process.kill()
        self.collector.__exit__()

    def start_collector(self) -> None:
        """Again, on the same ports."""
        self.collector.__enter__()

    def environ(self, **more: str) -> dict[str, str]:
        """What the exporter finds both its ends by, and what keeps a poll short."""
        return {
            "ASC_ISSUER_ID": self.appstore.issuer_id,
            "ASC_KEY_ID": self.appstore.key_id,
            "ASC_PRIVATE_KEY": self.appstore.private_key_pem,
            "ASC_BASE_URL": self.appstore.url,
            "ASC_APPS": "com.example.tidepool",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.collector.ports.http}",
            "PERFPOWER_STATE": str(self.state_path),
            "PERFPOWER__COLLECT__CATEGORIES": "[LAUNCH, BATTERY]",
            "PERFPOWER__DIAGNOSTICS__VERSIONS": "3",
            "PERFPOWER__LIMITS__KEY_SHARE": "1",
            **more,
        }

    def refusals(self, *, for_the_key: bool = False) -> list[Refusal]:
        """What the backend did not keep as it was sent, for the key or for anything else."""
        all_of_them = [refusal for intake in self.intakes for refusal in intake.refusals]
        return [refusal for refusal in all_of_them if (refusal.status in (401, 403)) == for_the_key]

    def received(self) -> dict[SeriesKey, list[Content]]:
        """The distributions at the backend, in the order of their windows; what came twice is there once."""
        found = by_series(self.backend.distributions())
        return {series: [content(point) for point in points] for series, points in found.items()}


class Pair(Ends):
    """The exporter in this process, with simulated time; `environ` is laid over its own."""

    def __init__(
        self, program: Path, folder: Path, backend: str, *, state: Path | None = None, **environ: str
    ) -> None:
        self.clock = Clock()
        self._environ = environ
        super().__init__(program, folder, backend, clock=self.clock, state=state)
        self.log = Log()
        self.owed = Owed()

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            starting.callback(super().__exit__)
            super().__enter__()
            settings = settings_of(self.environ(**self._environ))
            self.state = quick(State(self.state_path))
            starting.callback(self.state.close)
            self.exporter = Exporter(
                settings,
                self.state,
                open_sink(settings.otlp),
                log=self.log,
                own_metrics=False,
                stop=SimulatedWaits(self.clock),
                clock=self.clock,
            )
            starting.callback(self.exporter.close)
            self._parts = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()

    def poll(self) -> None:
        """A poll of the next day's data, without its delivery; what it owes is remembered."""
        self.day += 1
        before = {item.id for item in self.state.outbox()}
        assert self.exporter.poll(ACCOUNT)
        self.owed.add([item for item in self.state.outbox() if item.id not in before], self.clock())

    def heartbeat(self, seconds: float = 240.0) -> dict[str, Any]:
        """A heartbeat so much later; gives the fields of the last line of the log, which is of it."""
        self.clock.now += seconds
        self.exporter.heartbeat()
        return self.log.lines[-1].fields

    def assert_all_arrived(self) -> None:
        """Each owed distribution is at the backend, as it was and once; each event is there; no window
        overlaps; nothing was found bad.
        """
        assert self.state.outbox_depth() == 0
        assert self.received() == self.owed.distributions
        assert self.backend.told().keys() == self.owed.events.keys()
        assert not unchained(self.backend.distributions())
        assert not self.refusals()


class SimulatedWaits(threading.Event):
    """An event that nobody sets, on which waiting takes simulated time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        """Time goes on; the process does not end."""
        self._clock.sleep(timeout or 0.0)
        return False


def content(point: Point) -> Content:
    """What a distribution says, without its window."""
    return point.counts, round(point.sum or 0.0, 6)


def by_series(points: Iterable[Point]) -> dict[SeriesKey, list[Point]]:
    """The distributions of each series by the end of their window; what came twice is in it once."""
    found: defaultdict[SeriesKey, dict[int, Point]] = defaultdict(dict)
    for point in points:
        same = found[point.series].setdefault(point.time_unix_nano, point)
        assert same == point, "two distributions of a series and time differ"
    return {series: [ends[end] for end in sorted(ends)] for series, ends in found.items()}


def unchained(points: Iterable[Point]) -> list[tuple[Point, Point]]:
    """Neighbours in a series of which the later window does not start where the earlier one ended."""
    return [
        (earlier, later)
        for series in by_series(points).values()
        for earlier, later in pairwise(series)
        if later.start_time_unix_nano != earlier.time_unix_nano
    ]


def resident(pid: int | str) -> int:
    """The memory that a process has in use, in bytes."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found
    return int(found[1]) << 10


def event_key(text: Any, attributes: Mapping[str, object]) -> EventKey:
    """What tells an event from others: its words, and the digest of its log."""
    return str(text), str(attributes.get("appstore.diagnostic.log_id", ""))


def _in_our_unit(point: Point) -> Point:
    """Splunk gets the distributions of all but bytes in smaller units."""
    (factor,) = {factor for unit, factor in AS_INTEGERS.values() if unit == point.unit}
    return replace(point, sum=(point.sum or 0.0) / factor)


def _distributions_in(request: Request, now: float) -> list[Point]:
    body = unpacked(request.body, request.headers.get("Content-Encoding", "identity"), _LARGEST)
    message = ExportMetricsServiceRequest.FromString(body)
    return [point for point in read_points(message, now) if point.kind == "histogram"]
