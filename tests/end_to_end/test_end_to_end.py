"""Everything that the exporter sends arrives in each backend, once, right, through a real Collector.

What arrives is held one by one against what was sent, and what was sent against what Apple said.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import pytest

from exporter.convert.catalogue import (
    APPLE_METRICS,
    BREAKDOWN,
    COMPANIONS,
    DIAGNOSTIC_METRICS,
    EVENTS,
    INSIGHT_METRICS,
    OWN_METRICS,
)
from tests.backends.datadog import DatadogPoint
from tests.backends.splunk import SplunkPoint
from tests.end_to_end.at_datadog import logged, shown
from tests.end_to_end.at_prometheus import number_of_series, scraped, with_plain_bounds
from tests.end_to_end.at_splunk import indexed, kept
from tests.end_to_end.course import DAYS, NOT_ANSWERED, OWN, Arrived, Course
from tests.end_to_end.sent import differences

APPLE = {  # category and identifier → our name, and Apple's number in our unit
    ("HANG", "hangRate"): ("appstore.hang.rate", 1.0),
    ("LAUNCH", "launchTime"): ("appstore.launch.time", 0.001),
    ("MEMORY", "peakMemory"): ("appstore.memory.peak_memory", 1e6),
    ("MEMORY", "memoryAtSuspension"): ("appstore.memory.at_suspension", 1e6),
    ("DISK", "diskWrites"): ("appstore.disk.writes", 1e6),
    ("BATTERY", "batteryUsage"): ("appstore.battery.usage", 1.0),
    ("BATTERY", "onScreen"): ("appstore.battery.on_screen", 1.0),
    ("BATTERY", "background"): ("appstore.battery.background", 1.0),
    ("TERMINATION", "onScreen"): ("appstore.termination.on_screen", 1.0),
    ("TERMINATION", "background"): ("appstore.termination.background", 1.0),
    ("ANIMATION", "scrollHitchRate"): ("appstore.animation.scroll_hitch_rate", 1.0),
    ("STORAGE", "documentsAndData"): ("appstore.storage.documents_and_data", 1e6),
}
PERCENTILES = {"percentile.fifty": "p50", "percentile.ninety": "p90"}
DIAGNOSTIC = "appstore.diagnostic"
OF_TYPE = {
    "DISK_WRITES": "appstore.diagnostic.disk_writes",
    "HANGS": "appstore.diagnostic.hang_duration",
    "LAUNCHES": "appstore.diagnostic.launch_duration",
}


class Series(NamedTuple):
    """What Apple tells a number about, in lower case, as Datadog spells tags."""

    metric: str
    app: str
    platform: str
    device: str
    version: str
    percentile: str


@pytest.fixture(params=["over_datadog", "over_grpc", "over_splunk", "over_prometheus"])
def course(request: pytest.FixtureRequest) -> Course:
    """Each course."""
    found: Course = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["over_datadog", "over_grpc"])
def datadog(request: pytest.FixtureRequest) -> Course:
    """Each course with Datadog as the backend."""
    found: Course = request.getfixturevalue(request.param)
    return found


def test_the_course_is_worth_it(course: Course) -> None:
    """There was enough of everything, on both days; or else no other test shows much."""
    assert len(course.points) > 5_000
    first, refused, second = course.reports
    assert min(first.distributions, second.distributions) > 50
    assert refused.answers == 0
    assert {event.name for event in course.events} == {DIAGNOSTIC, "appstore.insight"}


def test_all_that_was_converted_was_sent(course: Course) -> None:
    """What was sent is as much as the polls say they made of Apple's answers."""
    first, all_of_them = course.reports[0], course.reports
    gauges = [point for point in course.points if point.kind == "gauge"]
    assert sum(point.time // 10**9 == course.beats[0] for point in gauges) == first.points
    assert len(course.points) - len(gauges) == sum(report.distributions for report in all_of_them)
    assert len(course.events) == sum(report.events for report in all_of_them)


def test_nobody_refused_anything(course: Course) -> None:
    """The Collector took each request whole, and no backend broke a rule or left something out over it."""
    assert course.outcomes == {"accepted"}
    assert course.rejected == 0
    assert course.backends.refusals() == []


def test_every_point_is_at_datadog(datadog: Course) -> None:
    """Each point is there once, with name, unit, type, tags, second and values, and there is no other."""
    assert differences(map(shown, datadog.points), datadog.datadog()) == []


def test_every_event_is_at_datadog(datadog: Course) -> None:
    """Each event is there once, with message, status, time, tags and attributes, and there is no other."""
    assert differences(map(logged, datadog.events), datadog.backends.datadog.records()) == []


def test_every_point_is_at_splunk(over_splunk: Course) -> None:
    """Each point is there once, gauges as datapoints and distributions as native histograms, and no other."""
    assert differences(map(kept, over_splunk.points), over_splunk.splunk()) == []
    kinds = {request.content_type for request in over_splunk.backends.splunk.requests}
    assert kinds == {"application/x-protobuf", "application/x-protobuf;format=otlp"}


def test_splunks_whole_numbers_are_near_enough(over_splunk: Course) -> None:
    """The whole number that Splunk keeps is off by a hundredth of a sum at the most, and by a twentieth of a
    minimum or maximum.
    """
    for point in over_splunk.splunk():
        if point.kind == "histogram":
            assert point.kept_sum == pytest.approx(point.sum, rel=0.01), point
            if point.min is not None:
                extremes = point.min, point.max
                assert (point.kept_min, point.kept_max) == pytest.approx(extremes, rel=0.05), point


def test_every_event_is_in_splunk(over_splunk: Course) -> None:
    """Each event is there once, with all attributes as indexed fields, and there is no other."""
    assert differences(map(indexed, over_splunk.events), over_splunk.backends.hec.records()) == []


def test_every_series_is_on_the_page_for_prometheus(over_prometheus: Course) -> None:
    """The page has the newest value of each gauge and the sum of each distribution, and nothing else."""
    expected = map(with_plain_bounds, scraped(over_prometheus.points))
    assert differences(expected, map(with_plain_bounds, over_prometheus.scraped())) == []


def test_no_two_series_become_one_for_prometheus(over_prometheus: Course) -> None:
    """Prometheus' spelling of names and labels keeps apart what we keep apart."""
    in_otlp, on_the_page = number_of_series(over_prometheus.points)
    assert in_otlp == on_the_page


def test_a_heartbeat_says_everything_again(over_datadog: Course) -> None:
    """At the second of a heartbeat there is each gauge of the delivery before it, with the same value."""
    gauges = [point for point in over_datadog.datadog() if point.kind == "gauge"]
    for earlier, beat in pairwise([0, *over_datadog.beats]):
        delivered = {(p.name, p.tags): p.value for p in gauges if earlier < p.time < beat}
        assert {(p.name, p.tags): p.value for p in gauges if p.time == beat} == delivered


@pytest.mark.parametrize("day", [0, 1])
def test_datadog_shows_what_apple_said(over_datadog: Course, day: int) -> None:
    """Each number of Apple's about a device family is there, under the tags that one filters by; also that of
    an app that did not answer any more.
    """
    told = families_told(over_datadog, day)
    found = {
        series_of(point): point.value
        for point in over_datadog.datadog()
        if point.time == over_datadog.beats[day] and point.kind == "gauge" and not of_a_build(point)
    }
    assert len(told) > 1000
    assert {series: found.get(series) for series in told} == pytest.approx(told)


def test_splunk_shows_what_apple_said(over_splunk: Course) -> None:
    """Likewise, in Splunk's dimensions."""
    told = families_told(over_splunk, 0)
    found = {
        series_at_splunk(point): point.value
        for point in over_splunk.splunk()
        if point.time_unix_milli // 1000 == over_splunk.beats[0] and "build" not in point.dimensions
    }
    assert len(told) > 1000
    assert {series: found.get(series) for series in told} == pytest.approx(told)


def test_distributions_are_of_apples_numbers(over_datadog: Course) -> None:
    """How a metric is spread over models: as many as Apple has a number for, their sum, least and most."""
    found = {
        series_of(point)._replace(metric=point.name.removesuffix(".by_device")): point
        for point in over_datadog.datadog()
        if point.time < over_datadog.beats[0] and point.name.endswith(".by_device") and not of_a_build(point)
    }
    newest = of_newest_versions(models_told(over_datadog, 0))
    assert len(newest) > 100
    for series, numbers in newest.items():
        point = found[series]
        assert point.count == len(numbers), series
        assert point.sum == pytest.approx(sum(numbers)), series
        if min(numbers) < max(numbers):
            assert (point.min, point.max) == pytest.approx((min(numbers), max(numbers))), series


def test_events_and_durations_are_of_apples_logs(over_datadog: Course) -> None:
    """Each log that left App Store Connect is one event, also a log that several signatures have; and its
    duration or size is in its distribution.
    """
    logs = logs_told(over_datadog)
    records = [r.attributes for r in over_datadog.backends.datadog.records() if r.event_name == DIAGNOSTIC]
    assert Counter(map(told_by, records)) == Counter((log.app, log.type, rounded(log.value)) for log in logs)
    for kind, name in OF_TYPE.items():
        values = [value for log in logs if log.type == kind and (value := log.value) is not None]
        points = [point for point in over_datadog.datadog() if point.name == name]
        assert sum(point.count for point in points) == len(values) > 50
        assert sum(point.sum or 0.0 for point in points) == pytest.approx(sum(values))


def test_what_the_exporter_says_of_itself_arrives(course: Course) -> None:
    """Its own counters arrive as such, each with the number that is known from outside."""
    assert own_counts(course) == known_counts(course)


def test_the_exporters_own_metrics_are_those_of_the_catalogue(datadog: Course) -> None:
    """Each is there, with its unit, as a gauge or a count; and never a cumulative one, which is refused."""
    kinds = {"counter": "count", "gauge": "gauge"}
    found = {(point.name, point.unit, point.kind) for point in datadog.datadog(own=True)}
    assert found <= {(metric.name, metric.unit, kinds[metric.instrument]) for metric in OWN_METRICS}
    limits = [p.value for p in datadog.datadog(own=True) if p.name == f"{OWN}rate_limit.limit"]
    assert limits == [3600.0]


SPELLED = {
    "datadog": ("appstore.insight.delta", "appstore.exporter.failures"),
    "signalfx": ("appstore.insight.delta", "appstore.exporter.failures"),
    "prometheus": ("appstore_insight_delta_percent", "appstore_exporter_failures_total"),
}


@pytest.mark.parametrize("backend", SPELLED)
def test_what_the_gravest_alerts_wait_for_arrives(
    arrived: dict[str, Arrived], over_datadog: Course, backend: str
) -> None:
    """Regressions of high and of normal impact come in every backend, and so does a refused key."""
    delta, failures = (arrived[backend].metrics[name] for name in SPELLED[backend])
    assert "regression" in delta["insight"]
    assert delta["impact"] == {"high", "normal"}
    assert failures["reason"] == {"credentials_refused", "role_too_small"}
    sent = [point.attributes for point in over_datadog.points if point.name == "appstore.insight.delta"]
    assert {of["impact"] for of in sent if of["insight"] == "regression"} == {"high", "normal"}


UNSEEN = {"appstore.insight.delta": {"subsystem"}, "appstore.insight": {"subsystem"}}
"""What the sandbox's Apple never says."""


@pytest.mark.parametrize("backend", ["datadog", "signalfx"])
def test_everything_in_the_catalogue_can_be_looked_at(arrived: dict[str, Arrived], backend: str) -> None:
    """So that what a dashboard may name can be looked up: each metric and attribute arrives in the course."""
    metrics, logs = arrived[backend].metrics, arrived[backend].logs
    for metric in (*INSIGHT_METRICS, *DIAGNOSTIC_METRICS, *OWN_METRICS):
        assert set(metric.attributes) - UNSEEN.get(metric.name, set()) <= metrics[metric.name].keys()
    for event in EVENTS:
        assert set(event.attributes) - UNSEEN.get(event.name, set()) <= logs[event.name]
    for companion in COMPANIONS:
        of_it = [f"{m.name}.{companion.suffix}" for m in APPLE_METRICS]
        assert len(metrics.keys() & set(of_it)) >= (1 if companion is BREAKDOWN else 6), companion.suffix
    assert {metric.name for metric in APPLE_METRICS} <= metrics.keys()
    tags = {"device", "device_name", "platform", "version", "percentile", "build"}
    assert tags <= metrics["appstore.launch.time"].keys()


def test_prometheus_shows_the_same_metrics(over_prometheus: Course, arrived: dict[str, Arrived]) -> None:
    """There are as many metrics on the page as in Datadog, under names of Prometheus'."""
    names = {
        sample.name.rpartition("_")[0] if sample.kind == "histogram" else sample.name
        for sample in over_prometheus.page
    }
    assert len(names) == len(arrived["datadog"].metrics)
    assert {"device", "platform", "version"} <= arrived["prometheus"].metrics[
        "appstore_launch_time_seconds"
    ].keys()


KNOWN_BY = {
    "polls": "outcome",
    "failures": "reason",
    "requests": "status",
    "deferred": "what",
    "points.left_out": "reason",
    "points.sent": "",
    "points.rejected": "",
    "events.sent": "",
    "events.rejected": "",
}
"""The exporter's own counters, and the attribute by which they are held against what is known."""


def known_counts(course: Course) -> Counter[tuple[str, str]]:
    """What its counters have to say: from what it sent, what App Store Connect was asked, and its reports."""
    known: Counter[tuple[str, str]] = Counter(
        {("points.sent", ""): len(course.points), ("events.sent", ""): len(course.events)}
    )
    for request in course.appstore.requests:
        known["requests", str(request.status)] += 1
    for report in course.reports:
        known["polls", report.outcome] += 1
        known.update(("failures", error.reason) for error in report.failures)
        known.update(("deferred", step.what) for step in report.deferred)
        known.update({("points.left_out", reason): count for reason, count in report.left_out.items()})
    return known


def own_counts(course: Course) -> Counter[tuple[str, str]]:
    """What its counters say in the backend of the course; those that stayed at 0 aside."""
    found: Counter[tuple[str, str]] = Counter()
    for name, kind, tags, value in own_points(course):
        short = name.removeprefix(OWN)
        assert (kind in ("count", "counter")) == (short in KNOWN_BY), name
        if short in KNOWN_BY:
            found[short, tags.get(KNOWN_BY[short], "")] += int(value or 0)
    return +found


def own_points(course: Course) -> Iterator[tuple[str, str, Mapping[str, str], float | None]]:
    """Name as we call it, kind, tags and value of what the exporter says of itself, in any backend."""
    for point in course.datadog(own=True):
        yield point.name, point.kind, dict(tag.split(":", 1) for tag in point.tags), point.value
    for datapoint in course.splunk(own=True):
        yield datapoint.name, datapoint.kind, datapoint.dimensions, datapoint.value
    called = {metric.name.replace(".", "_"): metric.name for metric in OWN_METRICS}
    for sample in course.scraped(own=True):
        name = sample.name.removesuffix("_total").removesuffix("_seconds")
        yield called[name], sample.kind, sample.labels, sample.value


def of_a_build(point: DatadogPoint) -> bool:
    """Whether the point is about a single build."""
    return any(tag.startswith("build:") for tag in point.tags)


def series_of(point: DatadogPoint) -> Series:
    """By the tags that one filters by; empty where the point has none of the kind."""
    tags = dict(tag.split(":", 1) for tag in point.tags)
    keys = "service", "platform", "device", "version", "percentile"
    return Series(point.name, *(tags.get(key, "") for key in keys))


def series_at_splunk(point: SplunkPoint) -> Series:
    """Likewise; in lower case, to compare with the same."""
    keys = "service.name", "platform", "device", "version", "percentile"
    return Series(point.name, *(point.dimensions.get(key, "").lower() for key in keys))


def apple_said(course: Course, day: int) -> Iterator[tuple[Series, float]]:
    """Apple's numbers on a day of the course, in our units; those of a day before where no answer came."""
    for app in course.appstore.store.apps:
        asked = DAYS[0] if app.id == NOT_ANSWERED else DAYS[day]
        for product in course.appstore.store.metrics_payload(app.id, asked)["productData"]:
            for category in product["metricCategories"]:
                for metric in category["metrics"]:
                    name, factor = APPLE[category["identifier"], metric["identifier"]]
                    for series, value in points_of(metric["datasets"]):
                        place = app.bundle_id, product["platform"].lower()
                        yield Series(name, *place, *series), value * factor


def points_of(datasets: Iterable[Mapping[str, Any]]) -> Iterator[tuple[tuple[str, str, str], float]]:
    """Apple's numbers as they are, by device, version and percentile."""
    for dataset in datasets:
        about = dataset["filterCriteria"]
        for point in dataset["points"]:
            if point.get("value") is not None:
                percentile = PERCENTILES[about["percentile"]]
                yield (about["device"].lower(), point["version"], percentile), point["value"]


def families_told(course: Course, day: int) -> dict[Series, float]:
    """Apple's numbers about device families."""
    return {series: value for series, value in apple_said(course, day) if series.device.startswith("all_")}


def models_told(course: Course, day: int) -> dict[Series, list[float]]:
    """Apple's numbers about the device models of each family."""
    found: dict[Series, list[float]] = {}
    for series, value in apple_said(course, day):
        if series.device.startswith(("iphone", "ipad")):
            family = "all_iphones" if series.device.startswith("iphone") else "all_ipads"
            found.setdefault(series._replace(device=family), []).append(value)
    return found


def of_newest_versions(told: Mapping[Series, list[float]]) -> dict[Series, list[float]]:
    """Those of the newest version of each app."""
    newest: dict[str, list[int]] = {}
    for series in told:
        newest[series.app] = max(newest.get(series.app, []), in_numbers(series.version))
    return {
        series: numbers
        for series, numbers in told.items()
        if in_numbers(series.version) == newest[series.app]
    }


def in_numbers(version: str) -> list[int]:
    """A version to compare by."""
    return [int(part) for part in version.split(".")]


class Log(NamedTuple):
    """A log of Apple's: its app and type, what it says, and its bytes or seconds, if it tells any."""

    app: str
    type: str
    document: str
    value: float | None


def logs_told(course: Course) -> set[Log]:
    """The logs that left App Store Connect; one may be that of several signatures."""
    store, found = course.appstore.store, set()
    for request in course.appstore.requests:
        if request.path.endswith("/logs") and request.status == 200:
            day = DAYS[request.at > course.beats[0]]
            signature = store.signature(request.path.split("/")[3], day)
            app = store.build(signature.build_id, day).app_id
            for log in store.logs(signature.id, day):
                found.add(Log(app, signature.type, json.dumps(log.document, sort_keys=True), log.value))
    return found


def told_by(attributes: Mapping[str, object]) -> tuple[object, object, float | None]:
    """What an event says of its log: app, type, and bytes or seconds, if any."""
    value = attributes.get(
        "appstore.diagnostic.bytes_written", attributes.get("appstore.diagnostic.duration")
    )
    assert value is None or isinstance(value, int | float)
    return attributes["appstore.app.id"], attributes["diagnostic_type"], rounded(value)


def rounded(value: float | None) -> float | None:
    """Apple tells a hundredth of a second, or some bytes, at the most."""
    return None if value is None else round(value, 3)
