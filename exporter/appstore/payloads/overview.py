"""`xcodeOverview` (the answer of `performanceOverviews`, API 4.5) → frozen dataclasses.

Of all that it holds, what nothing else tells: how often a signature occurred, in which source file and line;
and recommended goals. Lenient, as everything that reads Apple's answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from exporter.appstore.payloads.diagnostics import line_number, reference_versions, trend_of
from exporter.appstore.payloads.metrics import Dataset, Metric, XcodeMetrics
from exporter.appstore.payloads.reader import Reader, clean_text, platform_name
from exporter.errors import BadAnswer

_TOP = (("topHangPoint", "HANGS"), ("topLaunchPoint", "LAUNCHES"), ("topDiskWritePoint", "DISK_WRITES"))
_LONGEST_SYMBOL = 500


@dataclass(frozen=True, slots=True)
class TopSignature:
    """One of the top signatures of the newest version; texts may be empty, numbers None."""

    id: str
    type: str
    text: str
    count: float | None
    weight: float | None
    file: str
    line: int | None
    trend: int | None
    reference_versions: tuple[tuple[str, float], ...]


class Goal(NamedTuple):
    """A recommended goal, in Apple's unit; `units` is what that is called, empty if nothing says so."""

    category: str
    metric: str
    device: str
    percentile: str
    value: float
    units: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Overview:
    """A whole answer, with what had to be left out of it."""

    platform: str
    latest_version: str
    signatures: tuple[TopSignature, ...]
    goals: tuple[Goal, ...]
    left_out: Counter[str]


def parse_overview(document: object) -> Overview:
    """A decoded `xcodeOverview` document → Overview. An app without data has neither signatures nor goals.

    Raises:
        BadAnswer: it has not even the outline of an overview, neither `signatures` nor `categories`; or there
            is nothing in it that could be understood.
    """
    if not isinstance(document, dict) or not (
        isinstance(document.get("signatures"), dict) or isinstance(document.get("categories"), list)
    ):
        raise BadAnswer(
            "the answer has neither signatures nor categories, so it is not xcodeOverview",
            remedy="The last good data stays. If it persists, Apple has changed the format.",
        )
    reader = Reader()
    signatures = tuple(_signatures(document.get("signatures"), reader))
    goals = tuple(_goals(document.get("categories"), reader))
    if reader.left_out["malformed"] and not (signatures or goals):
        raise BadAnswer(
            f"nothing in the answer could be understood ({dict(reader.left_out)})",
            remedy="The last good data stays. If it persists, Apple has changed the format.",
        )
    about = reader.mapping(document.get("appMetadata"))
    return Overview(
        platform=platform_name(reader.text(about.get("platform"))),
        latest_version=reader.text(about.get("latestVersion")),
        signatures=signatures,
        goals=goals,
        left_out=reader.left_out,
    )


def with_goals(payload: XcodeMetrics, goals: Iterable[Goal]) -> XcodeMetrics:
    """The metrics of an app, with the overview's goal for each dataset that has none of its own.

    A goal that is put in counts as offered, as if it had come with the metrics. One in another unit than the
    metric's is left out.
    """
    given: dict[tuple[str, ...], Goal] = {}
    for goal in goals:
        given.setdefault(_place(goal.category, goal.metric, goal.device, goal.percentile), goal)
    added = other_unit = 0

    def completed(metric: Metric, dataset: Dataset) -> Dataset:
        nonlocal added, other_unit
        goal = given.get(_place(metric.category, metric.identifier, dataset.device, dataset.percentile))
        if goal is None or dataset.recommended is not None:
            return dataset
        added += 1
        units = _units(metric.unit_identifier, metric.unit_name)
        if goal.units and units and goal.units.isdisjoint(units):
            other_unit += 1
            return dataset
        return replace(dataset, recommended=goal.value)

    metrics = tuple(
        replace(metric, datasets=tuple(completed(metric, dataset) for dataset in metric.datasets))
        for metric in payload.metrics
    )
    left_out = payload.left_out + Counter(other_unit=other_unit)
    return replace(payload, metrics=metrics, offered=payload.offered + added, left_out=left_out)


def _units(*names: str) -> frozenset[str]:
    return frozenset(name.casefold() for name in names if name)


def _place(*words: str) -> tuple[str, ...]:
    return tuple(word.casefold() for word in words)


def _signatures(raw: object, reader: Reader) -> Iterator[TopSignature]:
    listed = reader.mapping(raw)
    for name, kind in _TOP:
        found: set[str] = set()
        for item in reader.objects(listed.get(name)):
            signature_id = reader.text(item.get("signatureId"))
            if not signature_id or signature_id in found:
                reader.left_out["duplicate" if signature_id else "no_signature"] += 1
                continue
            found.add(signature_id)
            about = reader.mapping(item.get("metricsSummary"))
            yield TopSignature(
                id=signature_id,
                type=kind,
                text=_symbol(item.get("signature")),
                count=reader.value(item.get("count")),
                weight=reader.value(item.get("weight")),
                file=_symbol(item.get("sourceFile")),
                line=line_number(item.get("lineNumber")),
                trend=trend_of(item.get("trendInfo")),
                reference_versions=reference_versions(about.get("referenceVersions"), reader),
            )


def _goals(raw: object, reader: Reader) -> Iterator[Goal]:
    for category in reader.objects(raw):
        for section in reader.objects(category.get("sections")):
            names = reader.text(category.get("identifier")), reader.text(section.get("identifier"))
            unit = section.get("unit")
            about = unit if isinstance(unit, dict) else {"identifier": unit}
            units = _units(reader.text(about.get("identifier")), reader.text(about.get("displayName")))
            for dataset in reader.objects(section.get("datasets")):
                criteria = reader.mapping(dataset.get("filterCriteria"))
                goal = reader.value(reader.mapping(dataset.get("recommendedMetricGoal")).get("value"))
                device = reader.text(criteria.get("device"))
                if goal is None:
                    continue
                if not (all(names) and device):
                    reader.left_out["no_device" if all(names) else "no_metric"] += 1
                else:
                    yield Goal(*names, device, reader.text(criteria.get("percentile")), goal, units)


def _symbol(raw: object) -> str:
    return clean_text(raw, _LONGEST_SYMBOL) if type(raw) is str else ""
