from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from exporter.cycle import Cycle
from exporter.otlp.encode import Body
from exporter.report import CycleReport
from exporter.sandbox import Fault, Point
from exporter.sandbox.records import Record
from exporter.sandbox.store import SandboxBuild, SandboxLog, SandboxSignature
from exporter.state import MOST_EVENTS, Source
from exporter.state.diagnostics import Diagnostics, Known
from tests.service.service_world import HOUR, World, assert_exactly_once

HARBOUR, TIDEPOOL = "1540000001", "1540000003"
BUNDLE_IDS = {HARBOUR: "com.example.harbour", TIDEPOOL: "com.example.tidepool"}
TYPES = ("HANGS", "LAUNCHES", "DISK_WRITES")
HISTOGRAMS = {
    "HANGS": "appstore.diagnostic.hang_duration",
    "LAUNCHES": "appstore.diagnostic.launch_duration",
    "DISK_WRITES": "appstore.diagnostic.disk_writes",
}
SIGNATURE = "appstore.diagnostic.signature."
DAY = 24 * HOUR
GARBAGE = Fault(body=b"<html>", content_type="text/html")
ASKED_FOR = {
    "perfPowerMetrics": "metrics",
    "performanceOverviews": "overview",
    "diagnosticSignatures": "signatures",
    "logs": "logs",
}


class Diagnosed(World):
    """A world with the diagnostics of an app's newest three versions, on the sandbox's day 2.

    The truth told is that of the first app; few metrics keep it fast.
    """

    def __init__(self, folder: Path, *app_ids: str, **overrides: object) -> None:
        few = {"collect__categories": "[LAUNCH, DISK]"}
        options: dict[str, Any] = {"diagnostics__versions": 3, **few, **overrides}
        super().__init__(folder, None, **options)
        self.app_ids = app_ids or (HARBOUR,)
        self.app_id = self.app_ids[0]
        self.day = 2.0
        self.told: list[int] = []

    def __enter__(self) -> Diagnosed:
        super().__enter__()
        return self

    def environ(self) -> dict[str, str]:
        return {**super().environ(), "ASC_APPS": ", ".join(map(BUNDLE_IDS.__getitem__, self.app_ids))}

    def open(self) -> None:
        super().open()
        self.cycle = Cycle(
            self.account,
            self.settings,
            self.client,
            self.quota,
            self.state,
            clock=self.clock,
            log=self.log,
            metrics_stored=lambda: self.told.append(len(self.appstore.requests)),
        )

    def restart(self, **overrides: object) -> None:
        """End the process and start another one."""
        self.close()
        self.overrides |= overrides
        self.open()

    def next_day(self, days: int = 1) -> None:
        self.day += days
        self.clock.now += days * DAY

    def poll_asking(self) -> tuple[CycleReport, list[tuple[str, str]]]:
        """Poll once; gives the report and what was asked for, each with the id of what it is about."""
        before = len(self.appstore.requests)
        report = self.poll()
        return report, [_asked(request.path) for request in self.appstore.requests[before:]]

    def delivered(self) -> list[Point]:
        """The gauges that a heartbeat sends now, without the exporter's own."""
        before = len(self.receiver.points)
        assert self.deliverer.deliver().outcome == "ok"
        return [point for point in self.receiver.points[before:] if point.kind == "gauge"]

    def state_of_signatures(self) -> list[Known]:
        """What is remembered of the app's signatures."""
        return Diagnostics(self.state).signatures(self.account.name, self.app_id)

    # The truth

    def builds(self) -> list[SandboxBuild]:
        """The released builds of the newest three versions, the newest first."""
        listed = self.appstore.store.builds(self.app_id, self.day)
        return [build for build in listed if build.store_state and build.platform == "IOS"][:3]

    def signatures(self) -> list[SandboxSignature]:
        """Their signatures: the newest build's first, of each type the heaviest first."""
        store = self.appstore.store
        return [item for build in self.builds() for item in store.signatures(build.id, self.day)]

    def logs(self) -> dict[tuple[object, ...], SandboxLog]:
        """Their logs, each once; one with nothing in it is known by its signature."""
        store, found = self.appstore.store, dict[tuple[object, ...], SandboxLog]()
        for signature in self.signatures():
            for log in store.logs(signature.id, self.day):
                found.setdefault(_identity(signature, log), log)
        return found

    def assert_whole_truth_arrived(self, logs: dict[tuple[object, ...], SandboxLog] | None = None) -> None:
        """The receiver holds one record of each log, and each value in a histogram, and no more."""
        logs = self.logs() if logs is None else logs
        records = diagnostics_of(self)
        assert len({record.attributes["appstore.diagnostic.log_id"] for record in records}) == len(records)
        assert Counter(map(_told_by_record, records)) == Counter(
            _told_by_log(identity, log) for identity, log in logs.items()
        )
        truth: dict[str, list[float]] = {}
        for (kind, *_), log in logs.items():
            if log.value is not None:
                truth.setdefault(HISTOGRAMS[str(kind)], []).append(log.value)
        arrived = histograms_of(self)
        assert {name: count for name, (count, _) in arrived.items()} == {
            name: len(values) for name, values in truth.items()
        }
        assert {name: total for name, (_, total) in arrived.items()} == pytest.approx(
            {name: sum(values) for name, values in truth.items()}
        )


def _asked(path: str) -> tuple[str, str]:
    parts = path.split("/")
    return (parts[2], "") if len(parts) == 3 else (ASKED_FOR[parts[4]], parts[3])


def _identity(signature: SandboxSignature, log: SandboxLog) -> tuple[object, ...]:
    tree = log.document.get("callStackTree")
    has_frames = "callStackRootFrames" in json.dumps(tree) and log.form != "no frame in the stack"
    if has_frames or log.document.get("diagnosticMetaData"):
        return signature.type, json.dumps(log.document, sort_keys=True)
    return signature.type, "", signature.id


def _told_by_log(identity: tuple[object, ...], log: SandboxLog) -> tuple[object, ...]:
    metadata = log.document.get("diagnosticMetaData", {})
    model = metadata.get("deviceType", "unknown").replace("_", ",")
    detail = " ".join(metadata.get("eventDetail", "").split()) or None
    return identity[0], model, detail, metadata.get("platformArchitecture")


def _told_by_record(record: Record) -> tuple[object, ...]:
    names = "diagnostic_type", "device", "appstore.diagnostic.detail", "architecture"
    return tuple(record.attributes.get(name) for name in names)


def diagnostics_of(world: World) -> list[Record]:
    return [record for record in world.receiver.records if record.event_name == "appstore.diagnostic"]


def histograms_of(world: World) -> dict[str, tuple[int, float]]:
    """Metric → count and sum of all that the receiver holds of it."""
    found: dict[str, tuple[int, float]] = {}
    for point in world.receiver.distinct_histograms():
        if point.name in HISTOGRAMS.values():
            count, total = found.get(point.name, (0, 0.0))
            found[point.name] = count + point.count, total + (point.sum or 0.0)
    return found


def by_attribute(points: Iterable[Point], name: str, *attributes: str) -> dict[tuple[Any, ...], float | None]:
    """The values of a metric by some of its attributes, which have to tell its points apart."""
    chosen = [point for point in points if point.name == name]
    found = {tuple(point.attributes.get(a) for a in attributes): point.value for point in chosen}
    assert len(found) == len(chosen)
    return found


def logs_asked(asked: Iterable[tuple[str, str]]) -> list[str]:
    return [identity for what, identity in asked if what == "logs"]


MakeWorld = Callable[..., Diagnosed]


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[MakeWorld]:
    with ExitStack() as stack:
        yield lambda *parts, **overrides: stack.enter_context(Diagnosed(tmp_path, *parts, **overrides))


# A first poll


def test_a_first_poll_asks_in_the_order_of_importance(make_world: MakeWorld) -> None:
    """Apps, metrics, overview, builds, signatures; then logs, newest version and heaviest signature first."""
    world = make_world()
    report, asked = world.poll_asking()
    builds, place = world.builds(), {build.id: age for age, build in enumerate(world.builds())}
    heaviest = sorted(world.signatures(), key=lambda item: (place[item.build_id], -item.weight))
    assert (report.outcome, report.deferred) == ("ok", [])
    assert asked[:7] == [
        ("apps", ""),
        ("metrics", HARBOUR),
        ("overview", HARBOUR),
        ("builds", ""),
        *(("signatures", build.id) for build in builds),
    ]
    weights = {item.id: (place[item.build_id], -item.weight) for item in heaviest}
    assert [weights[identity] for what, identity in asked[7:]] == [weights[item.id] for item in heaviest]
    assert set(logs_asked(asked)) == set(weights)


@pytest.mark.parametrize(("app_id", "day"), [(HARBOUR, 2.0), (TIDEPOOL, 2.0), (HARBOUR, 56.0)])
def test_a_poll_brings_all_gauges_of_the_signatures(make_world: MakeWorld, app_id: str, day: float) -> None:
    """Ten weights a type and version, as Apple sends them, and how many there are on all pages, or 0.

    Which part of them is new is told wherever there are any.
    """
    world = make_world(app_id, diagnostics__logs="false")
    world.day = day
    assert world.poll().outcome == "ok"
    points = world.delivered()
    weights: dict[tuple[str, str, str], float] = {}
    counts = dict.fromkeys(((build.version, kind) for build in world.builds() for kind in TYPES), 0.0)
    versions = {build.id: build.version for build in world.builds()}
    for item in world.signatures():
        version = versions[item.build_id]
        counts[version, item.type] += 1
        if counts[version, item.type] <= 10:
            weights[version, item.type, item.id] = item.weight
    attributes = "version", "diagnostic_type", "signature_id"
    assert by_attribute(points, f"{SIGNATURE}weight", *attributes) == weights
    assert by_attribute(points, "appstore.diagnostic.signatures", *attributes[:2]) == counts
    shares = by_attribute(points, "appstore.diagnostic.new_share", *attributes[:2])
    assert shares.keys() == {key for key, count in counts.items() if count}
    assert (sum(counts.values()) > 200) is (day == 56.0)  # more than a page holds
    assert by_attribute(points, f"{SIGNATURE}new", *attributes).keys() == weights.keys()


def test_a_poll_brings_the_occurrences_that_the_overview_counts(make_world: MakeWorld) -> None:
    """Each signature of the overview has its count, under the same id as its weight."""
    world = make_world()
    world.poll()
    document = world.appstore.store.overview_payload(HARBOUR, world.day)
    truth = {
        (item["signatureId"],): float(item["count"])
        for items in document["signatures"].values()
        for item in items
    }
    assert by_attribute(world.delivered(), f"{SIGNATURE}count", "signature_id") == truth != {}


@pytest.mark.parametrize("app_id", [HARBOUR, TIDEPOOL])
def test_a_poll_brings_each_log_once(make_world: MakeWorld, app_id: str) -> None:
    """Every log of every signature is one record, and every value that can be read one observation."""
    world = make_world(app_id)
    report = world.poll()
    world.delivered()
    told = sum(len(world.appstore.store.logs(item.id, world.day)) for item in world.signatures())
    assert len(world.logs()) < told  # some are listed twice
    world.assert_whole_truth_arrived()
    assert report.events == len(world.receiver.records)


# The polls after it


def test_a_second_poll_of_a_day_brings_nothing(make_world: MakeWorld) -> None:
    """No log is asked for, and nothing but gauges is stored or sent."""
    world = make_world()
    world.poll()
    world.delivered()
    records, histograms = len(world.receiver.records), len(world.receiver.distinct_histograms())
    world.clock.now += HOUR
    report, asked = world.poll_asking()
    assert [what for what, _ in asked] == ["apps", "metrics", "overview", "builds", *["signatures"] * 3]
    assert (report.outcome, report.events, report.distributions) == ("ok", 0, 0)
    assert world.state.outbox_depth() == 0
    world.delivered()
    assert len(world.receiver.records) == records
    assert len(world.receiver.distinct_histograms()) == histograms
    world.clock.now += HOUR
    report = world.poll()
    assert (report.answers, report.unchanged, report.points) == (5, 5, 0)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_new_day_asks_for_the_logs_of_what_changed(make_world: MakeWorld, restarts: bool) -> None:
    """Only signatures that are new or of new weight are asked for logs; only new logs leave."""
    world = make_world()
    world.poll()
    world.delivered()
    before, known = {item.id: item.weight for item in world.signatures()}, world.logs()
    world.next_day()
    if restarts:
        world.restart()
    _, asked = world.poll_asking()
    changed = {item.id for item in world.signatures() if before.get(item.id) != item.weight}
    assert 0 < len(changed) < len(before) / 2
    assert set(logs_asked(asked)) == changed
    assert len(logs_asked(asked)) == len(changed)
    world.delivered()
    assert world.logs().keys() - known.keys()
    world.assert_whole_truth_arrived(known | world.logs())
    assert_exactly_once(world.receiver)


# Failures: each costs what it is about


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize(
    ("fault", "times", "reason"), [(Fault(503), 5, "unavailable"), (GARBAGE, 1, "bad_answer")]
)
def test_signatures_of_one_build_that_fail_cost_only_these(
    make_world: MakeWorld, fault: Fault, times: int, reason: str, which: int
) -> None:
    """The other builds go on, logs included; the last good gauges of this one stay; the failure is named."""
    world = make_world(TIDEPOOL)
    world.poll()
    name, attributes = f"{SIGNATURE}weight", ("version", "signature_id")
    before = by_attribute(world.delivered(), name, *attributes)
    first = {item.id: item.weight for item in world.signatures()}
    world.next_day()
    failing = world.builds()[which]
    world.appstore.fail(f"/v1/builds/{failing.id}/diagnosticSignatures", fault, times)
    report, asked = world.poll_asking()
    assert [error.reason for error in report.failures] == [reason]
    assert failing.id in report.failures[0].where or failing.version in report.failures[0].where
    now = by_attribute(world.delivered(), name, *attributes)
    others = [item for item in world.signatures() if item.build_id != failing.id]
    assert {key: value for key, value in now.items() if key[0] == failing.version} == {
        key: value for key, value in before.items() if key[0] == failing.version
    }
    assert {key[1]: value for key, value in now.items() if key[0] != failing.version} == {
        item.id: item.weight for item in others
    }
    assert set(logs_asked(asked)) == {item.id for item in others if first.get(item.id) != item.weight}


def test_two_builds_without_an_answer_end_the_listing_and_what_came_stays(make_world: MakeWorld) -> None:
    """After two builds in a row without an answer no more is asked; what came before them is stored."""
    world = make_world()
    for build in world.builds()[1:]:
        world.appstore.fail(f"/v1/builds/{build.id}/diagnosticSignatures", Fault(503), 5)
    report = world.poll()
    assert [error.reason for error in report.failures] == ["unavailable"] * 2
    versions = {
        key[0] for key in by_attribute(world.delivered(), f"{SIGNATURE}weight", "version", "signature_id")
    }
    assert versions == {world.builds()[0].version}
    assert world.poll().outcome == "ok"
    world.delivered()
    world.assert_whole_truth_arrived()


def test_logs_that_are_garbage_are_asked_for_again(make_world: MakeWorld) -> None:
    """The failure names the signature; a day later it is asked for alone, and nothing is missing then."""
    world = make_world(TIDEPOOL)
    spoilt = next(item for item in world.signatures() if world.appstore.store.logs(item.id, world.day))
    world.appstore.fail(f"/v1/diagnosticSignatures/{spoilt.id}/logs", GARBAGE)
    report = world.poll()
    assert [error.reason for error in report.failures] == ["bad_answer"]
    assert spoilt.id in str(report.failures[0])
    report, asked = world.poll_asking()
    assert (report.outcome, logs_asked(asked)) == ("ok", [])
    world.clock.now += DAY
    report, asked = world.poll_asking()
    assert (report.outcome, logs_asked(asked)) == ("ok", [spoilt.id])
    world.delivered()
    world.assert_whole_truth_arrived()


def test_logs_of_another_shape_are_a_failure_too(make_world: MakeWorld) -> None:
    """JSON that is no `diagnosticLogs` costs the logs of that signature only; a day later it is asked for."""
    world = make_world(TIDEPOOL)
    spoilt = world.signatures()[0]
    world.appstore.fail(f"/v1/diagnosticSignatures/{spoilt.id}/logs", Fault(body=b'{"productData": 7}'))
    report = world.poll()
    assert [error.reason for error in report.failures] == ["bad_answer"]
    assert logs_asked(world.poll_asking()[1]) == []
    world.clock.now += DAY
    report, asked = world.poll_asking()
    assert (report.outcome, logs_asked(asked)) == ("ok", [spoilt.id])
    world.delivered()
    world.assert_whole_truth_arrived()


def test_logs_that_are_not_there_wait_for_a_new_weight(make_world: MakeWorld) -> None:
    """A 404 for logs is no failure; they are asked for again when the weight of the signature changes."""
    world = make_world()
    before = {item.id: item.weight for item in world.signatures()}
    later = {
        item.id
        for item in world.appstore.store.signatures(world.builds()[0].id, world.day + 1)
        if item.id in before and item.weight != before[item.id]
    }
    missing = min(later)
    world.appstore.fail(f"/v1/diagnosticSignatures/{missing}/logs", Fault(404))
    assert world.poll().outcome == "ok"
    assert logs_asked(world.poll_asking()[1]) == []
    world.next_day()
    assert missing in logs_asked(world.poll_asking()[1])


def test_logs_without_an_answer_twice_end_the_poll(make_world: MakeWorld) -> None:
    """The rest is named and waits for the next poll, which asks for it and for the two."""
    world = make_world(TIDEPOOL)
    world.appstore.fail("/v1/diagnosticSignatures/", Fault(503), 10)
    report, asked = world.poll_asking()
    first = set(logs_asked(asked))
    assert [error.reason for error in report.failures] == ["unavailable"] * 2
    assert len(first) == 2
    assert {step.signature for step in report.deferred} == {s.id for s in world.signatures()} - first
    assert world.poll().outcome == "ok"
    world.delivered()
    world.assert_whole_truth_arrived()


@pytest.mark.parametrize("without", ["included", "data"])
def test_a_listing_without_usable_builds_forgets_nothing(make_world: MakeWorld, without: str) -> None:
    """It is a failure where builds were known: their gauges stay, and no log is asked for again."""
    world = make_world(TIDEPOOL)
    world.poll()
    before = by_version(world.delivered())
    listed: dict[str, Any] = {
        "data": [
            {"type": "builds", "id": build.id, "attributes": {"version": build.number}}
            for build in world.builds()
        ],
        "links": {},
    }
    listed |= {"data": []} if without == "data" else {}
    world.appstore.fail("/v1/builds", Fault(body=json.dumps(listed).encode()))
    report = world.poll()
    assert [error.reason for error in report.failures] == ["bad_answer"]
    assert by_version(world.delivered()) == before
    report, asked = world.poll_asking()
    assert (report.outcome, logs_asked(asked)) == ("ok", [])


def test_a_build_without_signatures_has_explicit_zeros(make_world: MakeWorld) -> None:
    """A 404 for signatures means that there are none: the counts are 0, and the weights go."""
    world = make_world(TIDEPOOL)
    world.poll()
    world.delivered()
    build = world.builds()[0]
    world.appstore.fail(f"/v1/builds/{build.id}/diagnosticSignatures", Fault(404))
    assert world.poll().outcome == "ok"
    points = world.delivered()
    counts = by_attribute(points, "appstore.diagnostic.signatures", "version", "diagnostic_type")
    assert {kind: counts[build.version, kind] for kind in TYPES} == dict.fromkeys(TYPES, 0.0)
    weights = by_attribute(points, f"{SIGNATURE}weight", "version", "signature_id")
    assert build.version not in {version for version, _ in weights}


@pytest.mark.parametrize("status", [404, 406])
def test_an_overview_that_is_not_offered_is_told_once_a_day(make_world: MakeWorld, status: int) -> None:
    """One line of the log, no failure, and asked for again the next day."""
    world = make_world(diagnostics__logs="false")
    world.appstore.fail(f"/v1/apps/{HARBOUR}/performanceOverviews", Fault(status))
    asked_at: list[int] = []
    for hour in range(26):
        report, asked = world.poll_asking()
        assert report.outcome == "ok"
        asked_at += [hour for what, _ in asked if what == "overview"]
        world.clock.now += HOUR
    assert asked_at[0] == 0
    assert 20 <= asked_at[1] <= 24
    (line,) = world.log.of("cycle.no_overview")
    assert (line.level, line.fields["app"]) == ("info", "com.example.harbour")


@pytest.mark.parametrize("status", [404, 406])
def test_an_overview_that_is_no_longer_offered_leaves_nothing_behind(
    make_world: MakeWorld, status: int
) -> None:
    """Its counts are not sent for ever; all else is."""
    world = make_world(diagnostics__logs="false", collect__detail="full")
    world.poll()
    before = {point.name for point in world.delivered()}
    world.next_day()
    world.appstore.fail(f"/v1/apps/{HARBOUR}/performanceOverviews", Fault(status))
    world.poll()
    world.poll()
    after = {point.name for point in world.delivered()}
    assert before - after == {f"{SIGNATURE}count"}


def test_events_that_are_given_up_are_told(make_world: MakeWorld) -> None:
    """Where nobody took ten thousand requests, the poll says how many old events went for the new ones."""
    world = make_world()
    old = [Body(b"old", 2, "logs")] * MOST_EVENTS
    source = Source("main", HARBOUR, "1", "signatures")
    world.state.store(source, "com.example.harbour", b"", 0, 0, gauges=[], events=old)
    report = world.poll()
    waiting = [item.body for item in world.state.outbox() if item.body.signal == "logs"]
    new = [body for body in waiting if body.data != b"old"]
    assert len(waiting) == MOST_EVENTS
    assert report.left_out["event_backlog"] == 2 * len(new) > 0
    assert sum(line.fields["events"] for line in world.log.of("cycle.events_given_up")) == 2 * len(new)


# The budget


def test_a_small_share_spreads_the_logs_over_the_polls(make_world: MakeWorld) -> None:
    """What does not fit is named; no hour sees more than the share; in the end all logs are there, once."""
    world = make_world(limits__key_share=0.01)
    deferred: list[int] = []
    for _ in range(6):
        report, asked = world.poll_asking()
        assert not report.failures
        deferred.append(len(report.deferred))
        waiting = {step.signature for step in report.deferred if step.what == "logs"}
        assert waiting.isdisjoint(logs_asked(asked))
        world.clock.now += HOUR
    assert deferred[0] == len(world.signatures()) - (36 - 7)
    assert sorted(deferred, reverse=True) == deferred
    assert deferred[-1] == 0
    (first, *_) = world.log.of("cycle.deferred")
    assert first.fields["of"] == {"logs": deferred[0]}
    times = [request.at for request in world.appstore.requests]
    assert max(sum(at - HOUR < other <= at for other in times) for at in times) <= 36
    world.delivered()
    world.assert_whole_truth_arrived()


def test_a_key_that_others_emptied_is_left_alone(make_world: MakeWorld) -> None:
    """Of what others left in the key's hour the exporter takes its share; the rest is named and waits."""
    world = make_world(TIDEPOOL)
    world.appstore._hour._times.extend([world.clock.now - 600] * 3580)
    report = world.poll()
    assert report.outcome == "deferred"
    assert {step.what for step in report.deferred} == {"logs"}
    assert report.requests < 20
    assert {request.status for request in world.appstore.requests} == {200, 404}  # 404: no overview
    world.clock.now += 2 * HOUR
    assert world.poll().outcome == "ok"
    world.delivered()
    world.assert_whole_truth_arrived()


# What is told and chosen


def test_metrics_are_told_of_before_the_rest_is_asked_for(make_world: MakeWorld) -> None:
    """A delivery can begin once, when the metrics are stored and before anything else is asked for."""
    world = make_world(TIDEPOOL)
    world.poll()
    assert world.told == [2]


def test_metrics_are_told_of_when_those_of_all_apps_are_stored(make_world: MakeWorld) -> None:
    """Of several apps each kind of thing is asked for together, metrics first, and they are told of once."""
    world = make_world(HARBOUR, TIDEPOOL, diagnostics__logs="false")
    _, asked = world.poll_asking()
    kinds = "metrics", "overview", "builds"
    assert [what for what, _ in asked] == ["apps", *(k for k in kinds for _ in range(2)), *["signatures"] * 6]
    assert world.told == [3]


def test_metrics_are_told_of_once_though_overdue_logs_go_first(make_world: MakeWorld) -> None:
    """Steps that have waited for a day go first; the metrics are told of when they are stored, once."""
    world = make_world(limits__key_share=0.015)
    assert world.poll().deferred
    world.clock.now += 25 * HOUR
    world.told.clear()
    before = len(world.appstore.requests)
    report, asked = world.poll_asking()
    place = asked.index(("metrics", HARBOUR))
    assert (report.deferred, {what for what, _ in asked[1:place]}) == ([], {"logs"})
    assert world.told == [before + place + 1]


def test_without_events_the_histograms_stay(make_world: MakeWorld) -> None:
    """`collect.events` set to false sends no record; logs are downloaded for what they measured."""
    world = make_world(TIDEPOOL, collect__events="false")
    report = world.poll()
    world.delivered()
    assert (report.events, world.receiver.records) == (0, [])
    values = [log.value for log in world.logs().values() if log.value is not None]
    assert sum(count for count, _ in histograms_of(world).values()) == len(values) > 0


def test_without_logs_none_is_asked_for(make_world: MakeWorld) -> None:
    """`diagnostics.logs` set to false leaves the signatures; set to true again it fetches what was left."""
    world = make_world(TIDEPOOL, diagnostics__logs="false")
    report, asked = world.poll_asking()
    assert (report.outcome, logs_asked(asked)) == ("ok", [])
    assert by_attribute(world.delivered(), f"{SIGNATURE}weight", "signature_id")
    assert (diagnostics_of(world), histograms_of(world)) == ([], {})
    world.restart(diagnostics__logs="true")
    assert len(logs_asked(world.poll_asking()[1])) == len(world.signatures())
    world.delivered()
    world.assert_whole_truth_arrived()


def test_testflight_versions_are_held_on_request(make_world: MakeWorld) -> None:
    """`diagnostics.testflight` makes a version that is only in TestFlight the newest one."""
    world = make_world(TIDEPOOL, diagnostics__testflight="true")
    coming, released = world.appstore.store.builds(TIDEPOOL, world.day)[0], world.builds()
    assert coming.version not in {build.version for build in released}
    _, asked = world.poll_asking()
    held = [identity for what, identity in asked if what == "signatures"]
    assert held == [coming.id, released[0].id, released[1].id]


def test_no_versions_no_diagnostics(make_world: MakeWorld) -> None:
    """`diagnostics.versions` set to 0 asks for metrics alone."""
    world = make_world(diagnostics__versions=0)
    _, asked = world.poll_asking()
    assert [what for what, _ in asked] == ["apps", "metrics"]
    assert not by_attribute(world.delivered(), "appstore.diagnostic.signatures", "version")
    assert diagnostics_of(world) == []


# Time goes by


def test_only_the_newest_version_has_new_signatures(make_world: MakeWorld) -> None:
    """1 for what no earlier version had, as long as the version is the newest; else an explicit 0."""
    world = make_world()
    met: dict[str, set[tuple[str, int]]] = {}
    found = []
    for days in (0, 10, 15):
        world.next_day(days)
        world.poll()
        newest, names = world.builds()[0], {build.id: build.version for build in world.builds()}
        for item in world.signatures():
            met.setdefault(names[item.build_id], set()).add((item.type, item.problem.number))
        earlier = {problem for version, of in met.items() if version < newest.version for problem in of}
        flags = by_attribute(world.delivered(), f"{SIGNATURE}new", "signature_id")
        assert flags == {
            (item.id,): float(item.build_id == newest.id and (item.type, item.problem.number) not in earlier)
            for item in world.signatures()
            if (item.id,) in flags
        }
        found.append((newest.version, sum(value or 0.0 for value in flags.values()) > 0))
    assert found == [("7.40.0", True), ("7.41.0", False), ("7.42.0", True)]


def test_builds_that_are_no_longer_among_the_newest_take_their_gauges_with_them(
    make_world: MakeWorld,
) -> None:
    """A release brings its gauges; the oldest version's are sent no more, and no log is asked for it."""
    world = make_world(TIDEPOOL)
    world.poll()
    oldest = world.builds()[-1]
    assert (oldest.version,) in by_version(world.delivered())
    world.next_day(10)
    assert oldest.id not in {build.id for build in world.builds()}
    world.poll()
    assert by_version(world.delivered()) == {(build.version,) for build in world.builds()}
    assert {item.id for item in world.state_of_signatures()} == {item.id for item in world.signatures()}


def test_an_insight_is_told_once_and_withdrawn(make_world: MakeWorld) -> None:
    """The regression that Apple takes back on day 4 was one event, and its series end at 0."""
    world = make_world(diagnostics__logs="false")
    deltas = []
    for days in (0, 1, 1, 1):
        world.next_day(days)
        world.poll()
        points = [p for p in world.delivered() if p.name == "appstore.insight.delta"]
        of_disk = [p.value for p in points if p.attributes["metric"] == "appstore.disk.writes"]
        deltas.append((len(of_disk) > 0, any(of_disk)))
    assert deltas == [(True, True), (True, True), (True, False), (True, False)]
    insights = [r for r in world.receiver.records if r.event_name == "appstore.insight"]
    metrics = Counter(record.attributes["appstore.insight.metric"] for record in insights)
    assert metrics == {"diskWrites": 1, "launchTime": 1}


def test_a_regression_ends_with_the_next_release(make_world: MakeWorld) -> None:
    """`regressed` is 1 for the newest version that got worse, an explicit 0 once another one is newest."""
    world = make_world(diagnostics__logs="false")
    world.poll()
    assert regressed_launches(world) == {"7.40.0"}
    world.next_day(11)
    world.poll()
    assert regressed_launches(world) == set()


def by_version(points: Iterable[Point]) -> set[tuple[Any, ...]]:
    return {(p.attributes["version"],) for p in points if p.name.startswith("appstore.diagnostic.signature")}


def regressed_launches(world: Diagnosed) -> set[Any]:
    """The versions whose launch time has got worse on all iPhones; 7.40.0 is told about in any case."""
    points = [
        point
        for point in world.delivered()
        if point.name == "appstore.launch.time.regressed" and point.attributes["device"] == "all_iphones"
    ]
    assert "7.40.0" in {point.attributes["version"] for point in points}
    return {point.attributes["version"] for point in points if point.value}


# Killed


class KilledError(BaseException):
    """Stands for the end of the process."""


class Deadly:
    """A connection that ends it all at the n-th transaction with a certain statement, around its COMMIT."""

    def __init__(self, db: Any, statement: str, count: int, when: str) -> None:
        self._db = db
        self._statement = statement
        self._left = count
        self._when = when
        self._met = False

    def execute(self, query: str, values: Any = ()) -> Any:
        self._met = query != "BEGIN IMMEDIATE" and (self._met or query.startswith(self._statement))
        if query == "COMMIT" and self._met:
            self._left -= 1
            if self._left == 0 and self._when == "before":
                raise KilledError
        done = self._db.execute(query, values)
        if query == "COMMIT" and self._met and self._left == 0:
            raise KilledError
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


LOGS, FLUSH, SIGNATURES = "INSERT OR REPLACE INTO log", "DELETE FROM observation", "INSERT INTO signature"


@pytest.mark.parametrize("delivers", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("statement", "count"), [(SIGNATURES, 2), (LOGS, 1), (LOGS, 12), (FLUSH, 1)])
def test_a_kill_around_a_commit_costs_and_doubles_nothing(
    make_world: MakeWorld, statement: str, count: int, when: str, delivers: bool
) -> None:
    """After the next poll each log is one record and each value one observation, owed or sent."""
    world = make_world(TIDEPOOL)
    world.state._db = Deadly(world.state._db, statement, count, when)  # type: ignore[assignment]
    with pytest.raises(KilledError):
        world.poll()
    world.restart()
    if delivers:
        world.delivered()
    assert world.poll().outcome == "ok"
    world.delivered()
    world.assert_whole_truth_arrived()
    assert_exactly_once(world.receiver)
    assert world.state.outbox_depth() == 0
