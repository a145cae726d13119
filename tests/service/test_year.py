"""A year of daily polls of one app: versions, problems and logs come and go, and much goes wrong.

Simulated: the time, the Collector (it takes or refuses encoded bodies, and holds events and histograms to
the rules of the sandbox's receiver), what App Store Connect does wrong, other users of the key, and the end
of the process: every tenth day between two polls, and now and then at any statement of a poll. Real: the
sandbox over HTTP, client, quota, plan, poll, state file and delivery. So that a year takes half a minute,
Apple's metrics are of one or three categories and change every tenth day, and there are two heartbeats a day;
signatures and logs change as they do in the sandbox.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from exporter.deliver import Deliverer
from exporter.otlp.encode import Body
from exporter.otlp.sink import Outcome, Reply
from exporter.report import CycleReport
from exporter.sandbox import AppStoreSandbox, Fault, Store
from exporter.sandbox.loopback import Answer, Request
from exporter.sandbox.points import Point, SeriesKey, read_points
from exporter.sandbox.records import Record, read_records
from exporter.sandbox.store import selected
from exporter.state.diagnostics import Diagnostics
from tests.service.service_world import HOUR, NOW, SECOND, Clock, World

DAYS = 365
DAY = 24 * HOUR
FIRST_DAY = 100
HOUR_LIMIT = 3500  # requests an hour with the key
SHARE, OURS = 0.006, 21  # so few that they do not suffice
SERIES = 3000
TOP = 2
ACCOUNT, TIDEPOOL = "main", "1540000003"
STATEMENTS = 300  # of the state file, in an ordinary poll
NO_EVENTS = (*range(60, 67), *range(200, 207))  # somebody took the pipeline for logs away, for a week
AWAY = (90, 250)  # the Collector is away for three days
HISTOGRAMS = {
    "DISK_WRITES": "appstore.diagnostic.disk_writes",
    "HANGS": "appstore.diagnostic.hang_duration",
    "LAUNCHES": "appstore.diagnostic.launch_duration",
}


class Told(NamedTuple):
    """What a log is about, Apple's words, and the bytes or seconds that they tell, if they tell any."""

    type: str
    detail: str
    value: float | None


class WatchedSandbox(AppStoreSandbox):
    """Remembers each log that left it in a whole answer."""

    def __init__(self, world: YearWorld) -> None:
        super().__init__(
            clock=world.clock,
            day=lambda: world.day,
            hour_limit=HOUR_LIMIT,
            payload=lambda app_id: metrics_of(app_id, int(world.day) // 10 * 10),
        )
        self.logs_served: dict[str, Told] = {}
        self.times_served = 0

    def respond(self, request: Request) -> Answer:
        answer = super().respond(request)
        if request.path.endswith("/logs") and answer.status == 200 and answer.cut_after is None:
            self._remember(request.path.split("/")[-2])
        return answer

    def _remember(self, signature_id: str) -> None:
        kind = self.store.signature(signature_id, self.day()).type
        served = {
            json.dumps([kind, log.document], sort_keys=True): Told(kind, detail_of(log.document), log.value)
            for log in self.store.logs(signature_id, self.day())
        }
        self.times_served += len(served)
        self.logs_served |= served


def detail_of(document: dict[str, Any]) -> str:
    """Apple's words, with plain spaces as the exporter writes them."""
    return " ".join(document.get("diagnosticMetaData", {}).get("eventDetail", "").split())


@lru_cache(maxsize=2)
def metrics_of(app_id: str, day: int) -> bytes:
    """What the sandbox answers about launches; now and then Apple has more, and the cap is felt."""
    categories = ("LAUNCH", "HANG", "MEMORY") if day % 60 == 0 else ("LAUNCH",)
    everything = Store().metrics_payload(app_id, day)
    return json.dumps(selected(everything, platforms=(), categories=categories, devices=())).encode()


class Collector:
    """Takes what the sandbox's receiver would take; is away, or without a pipeline for logs, for a while.

    Gauges are counted and not read: a thousand at each of eight hundred heartbeats would take too long.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.back_at = self.events_from = NOW
        self.unanswered = self.refused = 0
        self.records: list[Record] = []
        self.series = 0  # gauges since they were last looked at
        self.signatures: Counter[tuple[str, ...]] = Counter()  # likewise, by type, platform and version
        self.observations: Counter[str] = Counter()  # by histogram
        self.sums: defaultdict[str, float] = defaultdict(float)  # likewise
        self.ends: dict[SeriesKey, int] = {}
        self.unchained: list[SeriesKey] = []  # a window does not start where the one before ended

    def send(self, body: Body) -> Reply:
        now = self._clock()
        if now < self.back_at:
            self.unanswered += 1
            return Reply(Outcome.RETRY, message="no connection")
        if body.signal == "metrics":
            self._take(ExportMetricsServiceRequest.FromString(body.data), now)
        elif now < self.events_from:
            self.refused += 1
            return Reply(Outcome.REFUSED, message="404 Not Found")
        else:
            self.records += read_records(ExportLogsServiceRequest.FromString(body.data), now)
        return Reply(Outcome.ACCEPTED)

    def close(self) -> None:
        pass

    def _take(self, request: ExportMetricsServiceRequest, now: float) -> None:
        metrics = [
            metric
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        self._count([metric for metric in metrics if metric.HasField("gauge")])
        if any(metric.HasField("histogram") for metric in metrics):
            for point in read_points(request, now):
                self.observations[point.name] += sum(point.counts)
                self.sums[point.name] += point.sum or 0.0
                self._chain(point)

    def _chain(self, point: Point) -> None:
        """A series that was away for three months may start anew."""
        start = point.start_time_unix_nano
        end_before = self.ends.get(point.series, start)
        if start != end_before and start - end_before < 89 * DAY * SECOND:
            self.unchained.append(point.series)
        self.ends[point.series] = point.time_unix_nano

    def _count(self, gauges: list[Metric]) -> None:
        self.series += sum(len(metric.gauge.data_points) for metric in gauges)
        for metric in gauges:
            if metric.name == "appstore.diagnostic.signature.weight":
                for point in metric.gauge.data_points:
                    tags = {tag.key: tag.value.string_value for tag in point.attributes}
                    self.signatures[tags["diagnostic_type"], tags["platform"], tags["version"]] += 1


class KilledError(BaseException):
    """Stands for the end of the process."""


class Mortal:
    """The state file's connection in a process that ends before its statement of that number."""

    def __init__(self, db: Any, lifetime: int) -> None:
        self._db = db
        self._left = lifetime

    def execute(self, query: str, values: Any = ()) -> Any:
        self._left -= 1
        if self._left < 0:
            raise KilledError
        return self._db.execute(query, values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


class YearWorld(World):
    """The exporter between the two, what befalls it, and what is seen from outside."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            collect__detail="full",
            diagnostics__versions=3,
            diagnostics__top_signatures=TOP,
            limits__series_per_app=SERIES,
            limits__key_share=SHARE,
            accounts__0__apps="[com.example.tidepool]",
        )
        self.appstore: WatchedSandbox = WatchedSandbox(self)
        self.collector = Collector(self.clock)
        self.dice = random.Random(4)
        self.failures: Counter[str] = Counter()
        self.deferred = self.capped = self.lost_to_others = self.kills = 0
        self.doomed = False  # whether the process is killed in the next poll
        self.series: list[int] = []  # at each delivery
        self.signatures: list[int] = []  # the most of a type and version, at each delivery
        self.sizes: list[int] = []  # of the state file, each day

    def open(self) -> None:
        super().open()
        # Real seconds. What the client gave up, the sandbox would answer, and count, when simulated time has
        # gone on. For the same reason no Retry-After adds up to the 120 s that a request may take.
        self.client._timeout = 60.0
        self.deliverer = Deliverer(
            self.state, self.collector, clock=self.clock, sleep=self.clock.sleep, log=self.log
        )

    def live(self) -> None:
        """All days, one after the other; the last two weeks are quiet."""
        for number in range(DAYS):
            self.clock.now = NOW + number * DAY
            self.day = FIRST_DAY + number
            if number < DAYS - 14:
                self._throw(number)
            self._poll_and_deliver()
            if number % 10 == 9:
                self.clock.now += 10 * 60
                self._restart()
                self._poll_and_deliver()  # a start polls at once
            self.clock.now = NOW + number * DAY + 12 * HOUR
            self._deliver()
            self.sizes.append(self._size())

    def _throw(self, number: int) -> None:
        """What goes wrong on a day: much of it by chance, the longest outages in any case."""
        die = self.dice.random
        if die() < 0.10:
            self.appstore.fail(
                "/v1/", Fault(429, headers={"Retry-After": "25"}), times=self.dice.choice((1, 6))
            )
        if die() < 0.10:
            self.appstore.fail("/v1/diagnosticSignatures/", Fault(503), times=self.dice.choice((1, 5, 10)))
        if die() < 0.10:
            self.appstore.fail("/v1/", Fault(cut_after=150), times=self.dice.choice((1, 5)))
        if die() < 0.10:
            self._others_use_the_key(self.dice.randrange(HOUR_LIMIT))
        if number in AWAY:
            self.collector.back_at = self.clock.now + 3 * DAY
        elif die() < 0.10:
            self.collector.back_at = max(self.collector.back_at, self.clock.now + 3 * HOUR)
        if number in NO_EVENTS:
            self.collector.events_from = self.clock.now + DAY
        self.doomed = die() < 0.10

    def _others_use_the_key(self, requests: int) -> None:
        for second in range(requests):
            self.appstore._hour.take(self.clock.now - requests + second)
        self.lost_to_others += requests

    def _restart(self) -> None:
        """The process ends and starts again."""
        self.close()
        self.open()

    def _poll_to_the_end(self) -> CycleReport:
        """A poll; should the process be killed in it, the one of the next start."""
        if not self.doomed:
            return self.poll()
        self.doomed = False
        alive = self.state._db
        self.state._db = Mortal(alive, self.dice.randrange(STATEMENTS))  # type: ignore[assignment]
        try:
            report = self.poll()
        except KilledError:
            self.kills += 1
            self._restart()
            return self.poll()
        self.state._db = alive
        return report

    def _poll_and_deliver(self) -> None:
        report = self._poll_to_the_end()
        if report.answers:  # as the service does
            self.state.finish_run(ACCOUNT, self.clock(), b"settings")
        self.failures.update(error.reason for error in report.failures)
        self.deferred += len(report.deferred)
        self.capped += report.capped.total()
        self._deliver()

    def _deliver(self) -> None:
        """A heartbeat."""
        self.deliverer.deliver()
        self.series.append(self.collector.series)
        self.signatures.append(max(self.collector.signatures.values(), default=0))
        self.collector.series = 0
        self.collector.signatures.clear()

    def _size(self) -> int:
        """Bytes in use: pages that SQLite keeps for later do not count."""
        pages, free, size = (
            self.state._rows(f"PRAGMA {what}")[0][0] for what in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Iterator[YearWorld]:
    """The year, over."""
    world = YearWorld(tmp_path_factory.mktemp("year"))
    with world:
        world.live()
        yield world


def test_the_year_was_rough(year: YearWorld) -> None:
    """Each kind of trouble took place, and was felt; or else the other tests show nothing."""
    assert {"rate_limited", "unavailable"} <= year.failures.keys()
    assert min(year.deferred, year.capped, year.lost_to_others) > 0
    assert min(year.collector.unanswered, year.collector.refused) > 0
    assert len(year.log.of("delivery.restamped")) > 2
    assert year.kills > 10
    assert year.appstore.times_served > 2 * len(year.appstore.logs_served) > 1000


def test_every_log_is_sent_once(year: YearWorld) -> None:
    """Each log that was ever served is one event, however often it came and whatever went wrong."""
    events = [
        record.attributes for record in year.collector.records if record.event_name == "appstore.diagnostic"
    ]
    assert set(Counter(event["appstore.diagnostic.log_id"] for event in events).values()) == {1}
    assert len(events) == len(year.appstore.logs_served)
    assert Counter(
        (event["diagnostic_type"], event.get("appstore.diagnostic.detail", "")) for event in events
    ) == Counter(log[:2] for log in year.appstore.logs_served.values())


@pytest.mark.parametrize("kind", HISTOGRAMS)
def test_every_value_is_counted_once(year: YearWorld, kind: str) -> None:
    """A histogram of diagnostics holds one observation for each log that tells a value, and each window of a
    series starts where the one before ended.
    """
    logs = year.appstore.logs_served.values()
    told = [log.value for log in logs if log.type == kind and log.value is not None]
    assert len(told) > 100
    assert year.collector.observations[HISTOGRAMS[kind]] == len(told)
    assert year.collector.sums[HISTOGRAMS[kind]] == pytest.approx(sum(told))
    assert not year.collector.unchained


def test_nothing_is_left_behind(year: YearWorld) -> None:
    """After some quiet days nothing is owed, nothing waits, and all logs of today were asked for."""
    assert year.state.outbox_depth() == 0
    diagnostics = Diagnostics(year.state)
    assert diagnostics.observations(ACCOUNT, TIDEPOOL) == []
    signatures = diagnostics.signatures(ACCOUNT, TIDEPOOL)
    assert signatures
    assert not [item for item in signatures if item.pending]
    assert all(past.waits_since is None for past in year.state.past(ACCOUNT).values())


def test_no_series_beyond_the_caps(year: YearWorld) -> None:
    """At no heartbeat the app has more series than its cap, nor a type more signatures than the top few."""
    assert SERIES * 0.7 < max(year.series) <= SERIES
    assert max(year.signatures) == TOP


def test_requests_stay_below_the_share(year: YearWorld) -> None:
    """In no hour more requests than our share of the key's, over restarts and other users."""
    times = sorted(request.at for request in year.appstore.requests)
    assert DAYS < len(times) < 10_000  # the sandbox remembers no more
    most, first = 0, 0
    for last, time in enumerate(times):
        while times[first] <= time - HOUR:
            first += 1
        most = max(most, last - first + 1)
    assert OURS // 2 < most <= OURS


def test_the_state_file_stays_small(year: YearWorld) -> None:
    """The second half of the year adds little to the state file."""
    assert year.sizes[-1] < 1.2 * year.sizes[DAYS // 2]


def test_what_is_long_unseen_is_forgotten(year: YearWorld) -> None:
    """Identities 90 days old are kept for builds still collected only, problems 180 days old and steps 30
    days old not at all; all of them are kept almost as long.
    """
    held = "SELECT id FROM build WHERE kind = 'signatures'"
    logs = year.state._rows(f"SELECT seen_at FROM log WHERE build_id NOT IN ({held})")
    problems = year.state._rows("SELECT seen_at FROM problem")
    steps = [past.asked_at for past in year.state.past(ACCOUNT).values() if past.asked_at]
    assert 75 <= oldest(year, logs) <= 91
    assert 160 <= oldest(year, problems) <= 181
    assert max(steps) - min(steps) <= 30 * DAY


def oldest(year: YearWorld, rows: list[tuple[int]]) -> float:
    """The age in days of the oldest of some times in nanoseconds."""
    return (year.clock() * SECOND - min(at for (at,) in rows)) / (DAY * SECOND)
