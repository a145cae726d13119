"""A day and a half of the pair: polls, a heartbeat after each, a new day between, and a little trouble.

Both days are in the first week of a release with which launch time got worse, and disk writes got so much
worse that Apple calls it a high impact. Another app's memory creeps up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from exporter.report import CycleReport
from exporter.sandbox import AppStoreSandbox, Fault
from tests.backends.datadog import DatadogPoint
from tests.backends.prometheus import Sample, read_samples
from tests.backends.splunk import SplunkPoint
from tests.end_to_end.pair import Backends, Overlay, Pair, Protocol
from tests.end_to_end.sent import SentEvent, SentPoint, events_in, points_in

OWN = "appstore.exporter."
DAYS = (220, 226)
NOT_ANSWERED = "1540000003"  # the app about whose metrics the second day brings a 403
_SECONDS_BETWEEN = 60

Values = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Arrived:
    """What there is to look at in a backend, in its own spelling.

    Args:
        metrics: of each metric the tags (dimensions, labels) with all their values.
        logs: of each kind of event, by its `event_name`, the attributes (indexed fields).
    """

    metrics: Mapping[str, Values]
    logs: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Course:
    """What was sent, and what arrived.

    Args:
        points: all points the exporter handed to the Collector, without those about itself.
        events: all events.
        outcomes: what the Collector answered, in the words of `Outcome`.
        rejected: how many points or events it did not take from a request it took.
        reports: of the polls, in order: each day's, and between them the one that was refused the key.
        beats: when the heartbeats were, in whole Unix seconds; each the last delivery of its day.
        appstore: App Store Connect, over.
        backends: the stand-ins, over.
        page: what Prometheus finds at the end; empty unless the overlay is for it.
    """

    points: list[SentPoint]
    events: list[SentEvent]
    outcomes: set[str]
    rejected: int
    reports: list[CycleReport]
    beats: list[int]
    appstore: AppStoreSandbox
    backends: Backends
    page: list[Sample]

    def datadog(self, *, own: bool = False) -> list[DatadogPoint]:
        """The points at Datadog; those about the exporter itself, or all others."""
        return [point for point in self.backends.datadog.points() if point.name.startswith(OWN) is own]

    def splunk(self, *, own: bool = False) -> list[SplunkPoint]:
        """The points at Splunk; likewise."""
        return [point for point in self.backends.splunk.points() if point.name.startswith(OWN) is own]

    def scraped(self, *, own: bool = False) -> list[Sample]:
        """The samples on the page; likewise."""
        prefix = OWN.replace(".", "_")
        return [sample for sample in self.page if sample.name.startswith(prefix) is own]


def run(
    otelcol: Path,
    folder: Path,
    overlay: Overlay,
    settings: Mapping[str, object],
    protocol: Protocol = "http/protobuf",
) -> Course:
    """Live through it; at the end everything is closed, and the exporter's own metrics are sent."""
    with Pair(otelcol, folder, overlay, protocol=protocol, **settings) as pair:
        reports: list[CycleReport] = []
        beats: list[int] = []
        for day in DAYS:
            pair.day = float(day)
            if beats:
                reports.append(_refused(pair))
                pair.appstore.fail(f"/v1/apps/{NOT_ANSWERED}/perfPowerMetrics", Fault(403))
            reports.append(pair.poll())
            pair.exporter.deliver()
            pair.beat()
            beats.append(int(pair.clock()))
            pair.clock.now += _SECONDS_BETWEEN
        pair.close()
        page = pair.collector.page(pair.collector.ports.scrape) if overlay == "prometheus" else ""
    bodies = [sent.body for sent in pair.sink.sent]
    return Course(
        points=points_in(bodies),
        events=events_in(bodies),
        outcomes={sent.reply.outcome.value for sent in pair.sink.sent},
        rejected=sum(sent.reply.rejected for sent in pair.sink.sent),
        reports=reports,
        beats=beats,
        appstore=pair.appstore,
        backends=pair.backends,
        page=read_samples(page),
    )


def _refused(pair: Pair) -> CycleReport:
    """A poll whose first request is answered with 401, also with a freshly signed token."""
    pair.appstore.fail("/v1/apps", Fault(401), times=2)
    return pair.poll()


def at_datadog(course: Course) -> Arrived:
    """The metrics with their tags, as `key` and `value` of `key:value`, and the logs."""
    records = course.backends.datadog.records()
    return Arrived(
        _together((p.name, [tag.split(":", 1) for tag in p.tags]) for p in course.backends.datadog.points()),
        _keys((record.event_name, record.attributes) for record in records),
    )


def at_splunk(course: Course) -> Arrived:
    """The metrics in Splunk Observability with their dimensions, and the events in Splunk."""
    records = course.backends.hec.records()
    return Arrived(
        _together((p.name, p.dimensions.items()) for p in course.backends.splunk.points()),
        _keys((str(record.fields["otel.log.name"]), record.fields) for record in records),
    )


def at_prometheus(course: Course) -> Arrived:
    """The metrics with their labels; events have no place there."""
    return Arrived(_together((sample.name, sample.labels.items()) for sample in course.page), {})


def _together(points: Iterable[tuple[str, Iterable[Iterable[str]]]]) -> dict[str, Values]:
    found: dict[str, dict[str, set[str]]] = {}
    for name, tags in points:
        of_metric = found.setdefault(name, {})
        for key, value in tags:
            of_metric.setdefault(key, set()).add(value)
    return {name: {key: frozenset(all_) for key, all_ in tags.items()} for name, tags in found.items()}


def _keys(records: Iterable[tuple[str, Mapping[str, object]]]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for name, attributes in records:
        found.setdefault(name, set()).update(attributes)
    return {name: frozenset(keys) for name, keys in found.items()}
