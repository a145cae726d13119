"""Apple's own findings: the `insights` of `xcodeMetrics` and of `xcodeOverview` → frozen dataclasses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from exporter.appstore.payloads.reader import Reader

InsightKind = Literal["regression", "trend"]
_LISTS: tuple[tuple[str, InsightKind], ...] = (("regressions", "regression"), ("trendingUp", "trend"))


class Population(NamedTuple):
    """For which device and percentile an insight holds. Numbers in Apple's units, None where missing.

    `delta` is in percent of the reference versions' average.
    """

    device: str
    percentile: str
    latest: float | None
    reference: float | None
    delta: float | None
    summary: str


@dataclass(frozen=True, slots=True)
class Insight:
    """A regression, or an upward trend, of one metric in the newest version. Texts may be empty."""

    kind: InsightKind
    category: str
    metric: str
    subsystem: str
    latest_version: str
    reference_versions: tuple[str, ...]
    max_latest: float | None
    high_impact: bool
    summary: str
    populations: tuple[Population, ...]


@dataclass(frozen=True, slots=True)
class Insights:
    """The insights of an answer, in its order, with what had to be left out of them."""

    found: tuple[Insight, ...]
    left_out: Counter[str]


def parse_insights(raw: object) -> Insights | None:
    """The `insights` part of an answer; None where it has no such part, or one that cannot be meant.

    None says nothing about what is withdrawn: an answer without the part is no answer to the question.
    """
    if type(raw) is not dict or not any(type(raw.get(name)) is list for name, _ in _LISTS):
        return None
    reader = Reader()
    found = tuple(insight for name, kind in _LISTS for insight in _insights(raw.get(name), kind, reader))
    return Insights(found, reader.left_out)


def _insights(raw: object, kind: InsightKind, reader: Reader) -> Iterator[Insight]:
    for item in reader.objects(raw):
        category, metric = reader.text(item.get("metricCategory")), reader.text(item.get("metric"))
        if not (category and metric):
            reader.left_out["no_metric"] += 1
            continue
        yield Insight(
            kind=kind,
            category=category,
            metric=metric,
            subsystem=reader.text(item.get("subSystemLabel")),
            latest_version=reader.text(item.get("latestVersion")),
            reference_versions=_versions(item.get("referenceVersions"), reader),
            max_latest=reader.value(item.get("maxLatestVersionValue")),
            high_impact=item.get("highImpact") is True,
            summary=reader.text(item.get("summaryString")),
            populations=tuple(_populations(item.get("populations"), reader)),
        )


def _versions(raw: object, reader: Reader) -> tuple[str, ...]:
    """A text with commas in Apple's OpenAPI file, an array of texts on the wire."""
    items = raw.split(",") if type(raw) is str else reader.items(raw)
    return tuple(text for text in map(reader.text, items) if text)


def _populations(raw: object, reader: Reader) -> Iterator[Population]:
    for item in reader.objects(raw):
        device = reader.text(item.get("device"))
        if not device:
            reader.left_out["no_device"] += 1
            continue
        yield Population(
            device=device,
            percentile=reader.text(item.get("percentile")),
            latest=reader.value(item.get("latestVersionValue")),
            reference=reader.value(item.get("referenceAverageValue")),
            delta=reader.value(item.get("deltaPercentage")),
            summary=reader.text(item.get("summaryString")),
        )
