"""What the tests of this folder share: a simulated clock, a log to look at, and the exporter's two ends."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import Gauge, Metric, NumberDataPoint
from opentelemetry.sdk.resources import Resource

from exporter.appstore.auth import TokenAuth, load_private_key
from exporter.appstore.client import AppStoreClient
from exporter.appstore.quota import Quota
from exporter.cycle import Cycle
from exporter.deliver import Deliverer
from exporter.intake import SCOPE
from exporter.otlp.encode import Body, encode
from exporter.otlp.http_sink import HttpSink
from exporter.otlp.sink import Outcome, Reply
from exporter.report import CycleReport
from exporter.sandbox import AppStoreSandbox, OtlpReceiver, Point, Store
from exporter.sandbox.loopback import Answer, LoopbackServer, Request
from exporter.sandbox.points import SeriesKey, read_points
from exporter.settings import Settings, load
from exporter.state import Source, State

NOW = 1_800_000_000.0
SECOND = 1_000_000_000
HOUR = 3600.0
OWN = "appstore.exporter."


class Clock:
    """A clock that stands still unless somebody sleeps."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@dataclass(frozen=True)
class Line:
    level: str
    event: str
    fields: dict[str, Any]


@dataclass
class Log:
    """Stands where the exporter's logger stands."""

    lines: list[Line] = field(default_factory=list)

    def __getattr__(self, level: str) -> Callable[..., None]:
        if level not in ("debug", "info", "warning", "error", "exception"):
            raise AttributeError(level)
        return lambda event, **fields: self.lines.append(Line(level, event, fields))

    def of(self, event: str) -> list[Line]:
        return [line for line in self.lines if line.event == event]


class Recorder(LoopbackServer):
    """Answers by a list, the last one for ever; keeps what it was sent."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__(body_limit=20 << 20)
        self.answers = list(answers)
        self.requests: list[Request] = []

    def respond(self, request: Request) -> Answer:
        self.requests.append(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class PickyReceiver(OtlpReceiver):
    """Refuses each request that holds a point of a certain kind; takes all others."""

    def __init__(self, refuses: Callable[[Point], bool], *, status: int = 400, clock: Clock) -> None:
        super().__init__(clock=clock)
        self._refuses = refuses
        self._status = status
        self._now = clock
        self.refusals = 0

    def respond(self, request: Request) -> Answer:
        message = ExportMetricsServiceRequest.FromString(gzip.decompress(request.body))
        if any(map(self._refuses, read_points(message, self._now()))):
            self.refusals += 1
            return Answer(self._status, {"Content-Type": "text/plain"}, b"that one is not welcome")
        return super().respond(request)


class ScriptedSink:
    """Replies by a list, the last one for ever; keeps the bodies."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies) or [Reply(Outcome.ACCEPTED)]
        self.bodies: list[Body] = []

    def send(self, body: Body) -> Reply:
        self.bodies.append(body)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def close(self) -> None:
        pass


def gauges(
    names: Mapping[str, int] | Sequence[str], at: float = NOW, *, app: str = "com.example.app", size: int = 0
) -> list[Body]:
    """Bodies with so many points of each metric; `size` pads each point with so many bytes of text."""
    counts = names if isinstance(names, Mapping) else dict.fromkeys(names, 1)
    pad = {f"pad{number}": "x" * 190 for number in range(size // 200)}
    metrics = [
        Metric(
            name,
            "",
            "s",
            Gauge(
                [
                    NumberDataPoint({"number": str(number), **pad}, 0, round(at * SECOND), float(number))
                    for number in range(count)
                ]
            ),
        )
        for name, count in counts.items()
    ]
    return encode(Resource({"service.name": app}), SCOPE, metrics)


def put(
    state: State,
    source: Source,
    *,
    gauges: Sequence[Body] = (),
    owed: Sequence[Body] = (),
    at: float = NOW,
    digest: bytes = b"digest",
) -> None:
    """Store what an answer might have brought."""
    state.store(
        source,
        "com.example.app",
        digest,
        round(at * SECOND),
        sum(body.points for body in gauges),
        gauges=gauges,
        owed=owed,
        owed_at=round(at * SECOND),
        windows={},
        seen=[],
    )


def settings_of(environ: Mapping[str, str], **overrides: object) -> Settings:
    """Settings from an environment; `limits__key_share=1` stands for PERFPOWER__LIMITS__KEY_SHARE."""
    more = {f"PERFPOWER__{name.upper()}": str(value) for name, value in overrides.items()}
    return load(None, {"PERFPOWER__DIAGNOSTICS__VERSIONS": "0", **environ, **more})


def quick(state: State) -> State:
    """The state, without waiting for the disk: for tests in which no power is cut."""
    state._db.execute("PRAGMA synchronous = OFF")
    return state


@lru_cache(maxsize=64)
def payload_of(app_id: str, day: int) -> bytes:
    """What the sandbox answers about an app on a day; made once for all tests."""
    return json.dumps(Store().metrics_payload(app_id, day)).encode()


class World:
    """One account's exporter with everything but its process: both ends real, the clock simulated."""

    def __init__(self, folder: Path, receiver: OtlpReceiver | None = None, **overrides: object) -> None:
        self.clock = Clock()
        self.day = 100.0
        self.log = Log()
        self.payload: Callable[[str], bytes] = lambda app_id: payload_of(app_id, int(self.day))
        self.appstore = AppStoreSandbox(
            clock=self.clock, day=lambda: self.day, payload=lambda app_id: self.payload(app_id)
        )
        self.receiver = receiver or OtlpReceiver(clock=self.clock)
        self.path = folder / "state.db"
        self.overrides = overrides

    def __enter__(self) -> World:
        self.appstore.__enter__()
        self.receiver.__enter__()
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.receiver.close()
        self.appstore.close()

    def open(self) -> None:
        """Start the exporter's parts, as at a start of the process."""
        self.settings = settings_of(self.environ(), **self.overrides)
        self.account = self.settings.accounts[0]
        self.state = quick(State(self.path))
        self.quota = self.new_quota()
        self.client = self.new_client(self.quota)
        self.cycle = Cycle(
            self.account,
            self.settings,
            self.client,
            self.quota,
            self.state,
            clock=self.clock,
            log=self.log,
        )
        self.sink = HttpSink(f"{self.receiver.url}/v1/metrics", clock=self.clock, timeout=5)
        self.deliverer = Deliverer(
            self.state, self.sink, clock=self.clock, sleep=self.clock.sleep, log=self.log
        )

    def close(self) -> None:
        """Stop the exporter's parts."""
        self.sink.close()
        self.client.close()
        self.state.close()

    def environ(self) -> dict[str, str]:
        return {
            "ASC_ISSUER_ID": self.appstore.issuer_id,
            "ASC_KEY_ID": self.appstore.key_id,
            "ASC_PRIVATE_KEY": self.appstore.private_key_pem,
            "ASC_BASE_URL": self.appstore.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.receiver.url,
            "PERFPOWER_STATE": str(self.path),
        }

    def new_quota(self) -> Quota:
        key_id = self.account.key_id
        return Quota(
            self.settings.limits.key_share,
            self.state.requests(key_id, self.clock() - HOUR),
            lambda at: self.state.add_request(key_id, at),
        )

    def new_client(self, quota: Quota) -> AppStoreClient:
        return AppStoreClient(
            base_url=self.account.base_url,
            auth=TokenAuth(
                key_id=self.account.key_id,
                issuer_id=self.account.issuer_id,
                private_key=load_private_key(self.account.private_key_text()),
                clock=self.clock,
            ),
            quota=quota,
            where=f"account {self.account.name}",
            max_response_bytes=self.settings.limits.response_size,
            clock=self.clock,
            sleep=self.clock.sleep,
            random=lambda: 0.0,
            timeout=2.0,
            monotonic=self.clock,
        )

    def poll(self) -> CycleReport:
        return self.cycle.poll()

    def values(self) -> dict[SeriesKey, float | None]:
        """The newest gauges that the receiver holds."""
        return values(self.receiver)


def values(receiver: OtlpReceiver) -> dict[SeriesKey, float | None]:
    """The newest gauges that a receiver holds, without the exporter's own."""
    return {key: point.value for key, point in receiver.latest().items() if not point.name.startswith(OWN)}


def by_series(receiver: OtlpReceiver) -> dict[SeriesKey, list[Point]]:
    """The distinct histograms of each series, by the end of their window."""
    found: defaultdict[SeriesKey, list[Point]] = defaultdict(list)
    for point in sorted(receiver.distinct_histograms(), key=lambda point: point.time_unix_nano):
        found[point.series].append(point)
    return dict(found)


def content(point: Point) -> tuple[object, ...]:
    """What a histogram says, without its window."""
    return point.bounds, point.counts, point.sum, point.min, point.max


def assert_exactly_once(receiver: OtlpReceiver) -> None:
    """Each series' windows follow one another without gap or overlap, and each brings something new."""
    for series, points in by_series(receiver).items():
        for earlier, later in pairwise(points):
            assert later.start_time_unix_nano == earlier.time_unix_nano, series
            assert content(later) != content(earlier), series


# Processes

LESS = {  # keeps processes short
    "PERFPOWER__COLLECT__CATEGORIES": "[LAUNCH, BATTERY]",
    "PERFPOWER__DIAGNOSTICS__VERSIONS": "0",
}
PYTHON_ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "exporter", *arguments]


@contextmanager
def running(
    arguments: Sequence[str], environ: Mapping[str, str], output: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose output goes to a file; killed at the end if it is still there."""
    with output.open("ab") as file:
        process = subprocess.Popen(
            arguments,
            env={**PYTHON_ENVIRONMENT, **environ},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=output.parent,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def ended(
    arguments: Sequence[str], environ: Mapping[str, str], folder: Path, timeout: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """A process that ran to its end."""
    return subprocess.run(
        arguments,
        env={**PYTHON_ENVIRONMENT, **environ},
        cwd=folder,
        timeout=timeout,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def terminate(process: subprocess.Popen[bytes], timeout: float = 12.0) -> int:
    """SIGTERM, and the exit status."""
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout)


def wait_until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Look every 20 ms until it is so; fail after the time-out."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
