"""Apple's insights → gauges that tell how things stand, and an event for each that is new. Pure.

An insight says that a metric of one version got worse against a few versions before it. Apple dates none and
names no platform, and simply stops listing one that no longer holds. So what was reported is remembered as
`Finding`s: a series that was sent and is no longer in Apple's answer bears 0 until the version itself leaves
the answer, and an event is sent once.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, NamedTuple

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk.metrics.export import Gauge, Metric, NumberDataPoint

from exporter.appstore.payloads.insights import Insight, InsightKind, Population
from exporter.appstore.payloads.metrics import XcodeMetrics
from exporter.convert.catalogue import (
    INSIGHT_DELTA,
    INSIGHT_EVENT,
    INSIGHT_REGRESSIONS,
    FixedMetric,
    metric_name,
)
from exporter.convert.distributions import family_of, is_family
from exporter.convert.metrics import percentile_name
from exporter.convert.units import Unit, unit_of

MOST_POPULATIONS = 20  # in the text of an event
_LONGEST_VALUE = 200
_PLATFORM_OF = {
    "all_iphones": "iOS",
    "all_ipads": "iOS",
    "all_ipods": "iOS",
    "all_macs": "macOS",
    "all_appletvs": "tvOS",
    "all_realitydevices": "visionOS",
}

Items = tuple[tuple[str, str], ...]  # the attributes of a series, by name


class Finding(NamedTuple):
    """What is remembered of an insight.

    `identity` is a hex digest of what makes it the same in the next answer. `platform` may be empty. `active`
    says whether it was in Apple's last answer. `series` are the attributes and the last value of each
    `appstore.insight.delta` series that was sent for it.
    """

    identity: str
    kind: InsightKind
    version: str
    platform: str
    high_impact: bool
    active: bool
    series: tuple[tuple[Items, float], ...]

    @classmethod
    def from_json(cls, raw: Sequence[Any]) -> Finding:
        """A finding that was written as JSON, which knows lists only."""
        series = tuple((tuple((name, text) for name, text in items), value) for items, value in raw[-1])
        return cls._make([*raw[:-1], series])


@dataclass(frozen=True, slots=True)
class ConvertedInsights:
    """What leaves, and what is to be remembered. `series` counts gauge points by metric."""

    gauges: list[Metric]
    events: list[LogRecord]
    findings: tuple[Finding, ...]
    series: Counter[str]
    left_out: Counter[str]


def convert_insights(
    payload: XcodeMetrics, known: Sequence[Finding], *, observed_at: int, series_cap: int
) -> ConvertedInsights:
    """Turn the insights of an answer into points and events.

    Args:
        payload: the answer for an app. Without an `insights` part it withdraws nothing: what is known keeps
            its last values.
        known: the findings of the answer before.
        observed_at: when the answer arrived, in nanoseconds since the epoch.
        series_cap: how many series may leave. The counts of regressions always do; of the deltas the largest
            come first, whatever their sign.
    """
    left_out: Counter[str] = Counter()
    before = {finding.identity: finding for finding in known}
    findings, events = list(known), list[LogRecord]()
    if payload.insights is not None:
        left_out += payload.insights.left_out
        answer = _Answer(payload)
        reported = answer.reported(left_out)
        findings = [_finding(item, before.get(item.identity)) for item in reported]
        there = {finding.identity for finding in findings}
        # Once at least, should the version have left the answer together with the insight.
        stays = (item for item in known if item.active or answer.holds(item))
        findings += [_withdrawn(item) for item in stays if item.identity not in there]
        events = [_event(item, observed_at) for item in reported if item.identity not in before]
    regressions = [item for item in (*known, *findings) if item.kind == "regression"]
    platforms = {metric.platform for metric in payload.metrics} | {item.platform for item in regressions}
    counts = _counts(findings, platforms)
    room = max(0, series_cap - len(counts))
    deltas, findings = _bounded(findings, _standing(known), room, left_out)
    gauges = [_gauge(INSIGHT_DELTA, deltas, observed_at), _gauge(INSIGHT_REGRESSIONS, counts, observed_at)]
    return ConvertedInsights(
        gauges=[gauge for gauge in gauges if gauge.data.data_points],
        events=events,
        findings=tuple(findings),
        series=Counter({INSIGHT_DELTA.name: len(deltas), INSIGHT_REGRESSIONS.name: len(counts)}),
        left_out=+left_out,  # without the zeros
    )


class _Key(NamedTuple):
    """What makes an insight the same in the next answer."""

    kind: InsightKind
    category: str
    metric: str
    subsystem: str
    version: str
    high_impact: bool
    platform: str

    @property
    def identity(self) -> str:
        return hashlib.sha256(json.dumps(self).encode()).hexdigest()[:32]


class _Reported(NamedTuple):
    """An insight of the answer with what the rest of the answer tells about it.

    `populations` come once each, the largest change first; `unit` is None where nobody knows it.
    """

    insight: Insight
    identity: str
    name: str
    platform: str
    unit: Unit | None
    populations: tuple[Population, ...]
    series: tuple[tuple[Items, float], ...]


class _Answer:
    """One answer of Apple's: its insights, and where to look up what they do not say."""

    def __init__(self, payload: XcodeMetrics) -> None:
        self._found = payload.insights.found if payload.insights else ()
        self._platforms: dict[tuple[str, str, str], str] = {}
        self._units: dict[str, Unit] = {}
        self._versions: set[tuple[str, str]] = set()
        for metric in payload.metrics:
            name = metric_name(metric.category, metric.identifier)
            self._units.setdefault(name, unit_of(metric.unit_identifier, metric.unit_name))
            for dataset in metric.datasets:
                for point in dataset.points:
                    self._platforms.setdefault((name, dataset.device, point.version), metric.platform)
                    self._versions |= {(metric.platform, point.version), ("", point.version)}

    def holds(self, finding: Finding) -> bool:
        """Whether the answer still has points of the version that a finding is about."""
        return (finding.platform, finding.version) in self._versions

    def reported(self, left_out: Counter[str]) -> list[_Reported]:
        """The insights, each once: one that comes twice brings the populations that it did not have yet."""
        same: defaultdict[_Key, list[Insight]] = defaultdict(list)
        for insight in self._found:
            for platform, populations in self._by_platform(insight).items():
                part = replace(insight, populations=tuple(populations))
                same[self._key(part, platform)].append(part)
        taken: set[Items] = set()
        return [self._report(key, _merged(insights), taken, left_out) for key, insights in same.items()]

    def _by_platform(self, insight: Insight) -> dict[str, list[Population]]:
        """Each platform is a finding of its own: which of them is worse changes from answer to answer.

        Devices of which nobody knows the platform go with the one that has most.
        """
        found: defaultdict[str, list[Population]] = defaultdict(list)
        for population in insight.populations:
            found[self._platform(insight, population.device)].append(population)
        unknown = found.pop("", [])
        most = max(found, key=lambda platform: (len(found[platform]), platform), default="")
        found[most] += unknown
        return found

    def _key(self, insight: Insight, platform: str) -> _Key:
        return _Key(
            kind=insight.kind,
            category=insight.category,
            metric=insight.metric,
            subsystem=insight.subsystem,
            version=insight.latest_version,
            high_impact=insight.high_impact,
            platform=platform,
        )

    def _report(self, key: _Key, insight: Insight, taken: set[Items], left_out: Counter[str]) -> _Reported:
        """`taken` are the series that insights before this one laid claim to."""
        populations: dict[tuple[str, str], Population] = {}
        for population in insight.populations:
            populations.setdefault((population.device, percentile_name(population.percentile)), population)
        values = {
            self._items(insight, population): population.delta
            for population in populations.values()
            if population.delta is not None
        }
        series = tuple((items, delta) for items, delta in values.items() if items not in taken)
        taken.update(values)
        left_out["duplicate"] += len(insight.populations) - len(populations) + len(values) - len(series)
        name = metric_name(key.category, key.metric)
        return _Reported(
            insight=insight,
            identity=key.identity,
            name=name,
            platform=key.platform,
            unit=self._units.get(name),
            populations=_heaviest_first(populations.values()),
            series=series,
        )

    def _items(self, insight: Insight, population: Population) -> Items:
        return _given(
            {
                "metric": metric_name(insight.category, insight.metric),
                "insight": insight.kind,
                "impact": _impact(insight.high_impact),
                "device": population.device,
                "percentile": percentile_name(population.percentile),
                "platform": self._platform(insight, population.device),
                "version": insight.latest_version,
                "subsystem": insight.subsystem,
            }
        )

    def _platform(self, insight: Insight, device: str) -> str:
        """Where the answer has this metric, device and version; else by the family; else nowhere."""
        name = metric_name(insight.category, insight.metric)
        family = device if is_family(device) else family_of(device)
        return self._platforms.get((name, device, insight.latest_version)) or _PLATFORM_OF.get(family, "")


def _merged(insights: Sequence[Insight]) -> Insight:
    """The first one, with the populations of all."""
    populations = tuple(population for insight in insights for population in insight.populations)
    return replace(insights[0], populations=populations)


def _finding(reported: _Reported, before: Finding | None) -> Finding:
    """What to remember of an insight of the answer: series that it lost since bear 0."""
    series = dict.fromkeys((items for items, _ in before.series), 0.0) if before else {}
    series.update(reported.series)
    insight = reported.insight
    return Finding(
        reported.identity,
        insight.kind,
        insight.latest_version,
        reported.platform,
        insight.high_impact,
        True,
        tuple(series.items()),
    )


def _withdrawn(finding: Finding) -> Finding:
    """An insight that Apple no longer reports, about a version that is still there."""
    return finding._replace(active=False, series=tuple((items, 0.0) for items, _ in finding.series))


def _counts(findings: Iterable[Finding], platforms: Iterable[str]) -> dict[Items, float]:
    """How many regressions there are by platform and impact; 0 where there are none."""
    found = Counter(
        (item.platform, item.high_impact) for item in findings if item.active and item.kind == "regression"
    )
    return {
        _given({"impact": _impact(high), "platform": platform}): float(found[platform, high])
        for platform in sorted(platforms)
        for high in (True, False)
    }


def _standing(known: Iterable[Finding]) -> set[Items]:
    """The series whose last value was not 0."""
    return {items for finding in known for items, value in finding.series if value}


def _bounded(
    findings: Sequence[Finding], standing: Collection[Items], room: int, left_out: Counter[str]
) -> tuple[dict[Items, float], list[Finding]]:
    """The series that fit, and the findings with those alone.

    First those that go to 0 now (they are `standing` above it in what was sent last): an alert is to end.
    Then the largest change.

    Two findings can lay claim to one series, say when two of Apple's metrics come to one name: what Apple
    reports now counts, not the 0 of the other.
    """
    values: dict[Items, float] = {}
    for items, value in (entry for finding in findings for entry in finding.series):
        values[items] = value or values.get(items, value)
    ranked = sorted(
        values.items(),
        key=lambda entry: (bool(entry[1]) or entry[0] not in standing, -abs(entry[1]), entry[0]),
    )
    kept = dict(sorted(ranked[:room], key=lambda entry: (-abs(entry[1]), entry[0])))
    left_out["series_cap"] += len(ranked) - len(kept)
    return kept, [
        item._replace(series=tuple(entry for entry in item.series if entry[0] in kept)) for item in findings
    ]


def _gauge(metric: FixedMetric, values: Mapping[Items, float], observed_at: int) -> Metric:
    points = [NumberDataPoint(dict(items), 0, observed_at, value) for items, value in values.items()]
    return Metric(metric.name, metric.description, metric.unit, Gauge(points))


def _event(reported: _Reported, observed_at: int) -> LogRecord:
    high = reported.insight.high_impact
    return LogRecord(
        timestamp=observed_at,
        observed_timestamp=observed_at,
        severity_number=SeverityNumber.ERROR if high else SeverityNumber.WARN,
        severity_text="ERROR" if high else "WARN",
        body=reported.insight.summary or _sentence(reported),
        attributes=_event_attributes(reported),
        event_name=INSIGHT_EVENT.name,
    )


def _event_attributes(reported: _Reported) -> dict[str, str | bool | float]:
    insight, worst = reported.insight, reported.populations[0] if reported.populations else None
    texts = {
        "appstore.insight.kind": insight.kind,
        "metric": reported.name,
        "appstore.insight.metric_category": insight.category,
        "appstore.insight.metric": insight.metric,
        "version": insight.latest_version,
        "platform": reported.platform,
        "subsystem": insight.subsystem,
        "appstore.insight.reference_versions": _joined(insight.reference_versions),
        "appstore.insight.unit": reported.unit.ucum if reported.unit else "",
        "appstore.insight.populations": "\n".join(_lines(reported)),
        "device": worst.device if worst else "",
        "percentile": percentile_name(worst.percentile) if worst else "",
    }
    latest = _converted(insight.max_latest, reported.unit)
    return {
        **{key: text for key, text in texts.items() if text},
        "appstore.insight.high_impact": insight.high_impact,
        **({} if latest is None else {"appstore.insight.max_latest_value": latest}),
    }


def _sentence(reported: _Reported) -> str:
    """What Apple might have said, from the numbers."""
    insight, worst = reported.insight, reported.populations[0] if reported.populations else None
    verb = "got worse" if insight.kind == "regression" else "keeps rising"
    version = f" in version {insight.latest_version}" if insight.latest_version else ""
    most = f": {worst.delta:+g} % on {worst.device}" if worst and worst.delta is not None else ""
    return f"{insight.category} {insight.metric} {verb}{version}{most}."


def _lines(reported: _Reported) -> Iterator[str]:
    """One line a population; text, since a list of maps is flattened, cut or dropped by most back ends."""
    unit = f" {reported.unit.ucum}" if reported.unit and reported.unit.ucum else ""
    for population in reported.populations[:MOST_POPULATIONS]:
        latest, reference = (
            _converted(value, reported.unit) for value in (population.latest, population.reference)
        )
        told = [
            "" if population.delta is None else f"{population.delta:+g} %",
            "" if latest is None else f"now {latest:g}{unit}",
            "" if reference is None else f"before {reference:g}{unit}",
        ]
        place = f"{population.device} {percentile_name(population.percentile)}".rstrip()
        yield f"{place}: {', '.join(filter(None, told)) or population.summary}".rstrip(": ")
    if more := len(reported.populations[MOST_POPULATIONS:]):
        yield f"… {more} more"


def _heaviest_first(populations: Iterable[Population]) -> tuple[Population, ...]:
    """By the size of the change; those without one at the end."""

    def order(population: Population) -> tuple[float, str, str]:
        weight = -1.0 if population.delta is None else abs(population.delta)
        return -weight, population.device, population.percentile

    return tuple(sorted(populations, key=order))


def _converted(value: float | None, unit: Unit | None) -> float | None:
    """Apple's number in OTLP's unit, unchanged where that is not known; None where it is none."""
    if value is None or unit is None:
        return value
    converted = unit.convert(value)
    return converted if isfinite(converted) else None


def _joined(versions: Sequence[str]) -> str:
    """`1.0, 1.1`; where they do not fit, the first ones, each whole."""
    text = ", ".join(versions)
    if len(text) <= _LONGEST_VALUE:
        return text
    whole = text[: _LONGEST_VALUE - 2].rpartition(", ")[0]
    return ", ".join(filter(None, (whole, "…")))


def _impact(high: bool) -> str:
    return "high" if high else "normal"


def _given(attributes: Mapping[str, str]) -> Items:
    """Without the empty ones, by name."""
    return tuple(sorted((key, text) for key, text in attributes.items() if text))
