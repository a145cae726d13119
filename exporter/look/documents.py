"""App Store Connect's answers → documents: dicts and lists fit for JSON, in Apple's words and units. Pure.

Fields that are Apple's bear Apple's names. All texts are cleaned of control characters and all numbers finite
by the readers that the exporter itself uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from exporter.appstore.jsonapi import App, Build
from exporter.appstore.payloads.diagnostics import Frame, Log, Signature, SignatureLogs
from exporter.appstore.payloads.insights import Insight, Insights
from exporter.appstore.payloads.overview import Overview
from exporter.appstore.payloads.reader import Reader, platform_name
from exporter.convert.call_tree import blamed_frame, call_tree
from exporter.convert.catalogue import metric_name
from exporter.convert.rendering import render
from exporter.convert.units import unit_of

Document = dict[str, Any]

_TREND_WORDS = {1: "UP", 0: "UNDEFINED", -1: "DOWN"}
_LARGEST_EXACT = 2.0**53
_LONGEST_LINE = 10_000


def app(found: App, *, selected: bool) -> Document:
    """An app; `selected` tells whether the configuration polls it."""
    return {"id": found.id, "bundleId": found.bundle_id, "name": found.name, "selected": selected}


def build(found: Build, *, diagnostics: bool) -> Document:
    """A build; `diagnostics` tells whether the exporter asks for its diagnostics."""
    uploaded = found.uploaded_at
    return {
        "version": found.version,
        "build": found.number,
        "platform": platform_name(found.platform),
        "uploadedDate": None if uploaded is None else datetime.fromtimestamp(uploaded, UTC).isoformat(),
        "released": found.released,
        "expired": found.expired,
        "diagnostics": diagnostics,
        "id": found.id,
    }


def points(document: Mapping[str, object]) -> list[Document]:
    """Each point of an `xcodeMetrics` document with all that is said about it, in the document's order.

    `value`, `errorMargin` and goals are in Apple's unit; `otlp` has the name, unit and value as the exporter
    sends them.
    """
    reader, found = Reader(), []
    for product in reader.objects(document.get("productData")):
        platform = platform_name(reader.text(product.get("platform")))
        for category in reader.objects(product.get("metricCategories")):
            for metric in reader.objects(category.get("metrics")):
                about = {"metricCategory": reader.text(category.get("identifier")), "platform": platform}
                found += [{**about, **point} for point in _points(metric, about["metricCategory"], reader)]
    return found


def insights(found: Insights | None, rows: Sequence[Document] = ()) -> list[Document]:
    """Apple's regressions and trends; numbers in Apple's unit, `deltaPercentage` in percent.

    Args:
        rows: points, or sections of an overview: they know the units; points, which platform and marketing
            name a device has.
    """
    units = {(row["metricCategory"], row["metric"]): row["unit"] for row in reversed(rows)}
    devices = {row["device"]: row for row in reversed(rows) if "device" in row}
    return [
        _insight(insight, units.get((insight.category, insight.metric)), devices)
        for insight in (found.found if found else ())
    ]


def signature(found: Signature) -> Document:
    """A diagnostic signature."""
    return {
        "id": found.id,
        "diagnosticType": found.type,
        "signature": found.text,
        "weight": _plain(found.weight),
        "insight": None if found.trend is None else _trend(found.trend, found.reference_versions),
    }


def logs(
    found: SignatureLogs, *, stacks: bool, whole: bool = False, most_logs: int | None = None
) -> Document:
    """The logs of a signature with Apple's remarks.

    Args:
        stacks: whether each log gets its call stack, as `callStack`: lines for people.
        whole: whether a call stack has a line for each of its frames, instead of those that matter most.
        most_logs: how many logs, the first; None for all. `logCount` says how many there are.
    """
    return {
        "signatureId": found.signature_id,
        "diagnosticInsights": [
            {"insightsCategory": remark.category, "insightsString": remark.text, "insightsURL": remark.url}
            for remark in found.insights
        ],
        "logCount": len(found.logs),
        "diagnosticLogs": [
            _log(log, _stack(log, whole) if stacks else None) for log in found.logs[:most_logs]
        ],
    }


def sections(document: Mapping[str, object]) -> list[Document]:
    """Each section of an `xcodeOverview` document that says what it measures, with its unit."""
    reader = Reader()
    return [
        {
            "metricCategory": reader.text(category.get("identifier")),
            "metric": reader.text(section.get("identifier")),
            "unit": _overview_unit(section.get("unit"), reader),
        }
        for category in reader.objects(document.get("categories"))
        for section in reader.objects(category.get("sections"))
    ]


def overview(found: Overview, rows: Sequence[Document]) -> Document:
    """The top signatures and the goals of an `xcodeOverview`.

    Args:
        rows: its sections, which know the units.
    """
    units = {(row["metricCategory"], row["metric"]): row["unit"] for row in reversed(rows)}
    return {
        "platform": found.platform,
        "latestVersion": found.latest_version,
        "signatures": [
            {
                "id": top.id,
                "diagnosticType": top.type,
                "signature": top.text,
                "count": _plain(top.count),
                "weight": _plain(top.weight),
                "sourceFile": top.file,
                "lineNumber": top.line,
                "insight": None if top.trend is None else _trend(top.trend, top.reference_versions),
            }
            for top in found.signatures
        ],
        "goals": [
            {
                "metricCategory": goal.category,
                "metric": goal.metric,
                "device": goal.device,
                "percentile": goal.percentile,
                "value": _plain(goal.value),
                "unit": units.get((goal.category, goal.metric)),
            }
            for goal in found.goals
        ],
    }


def _points(metric: Mapping[str, Any], category: str, reader: Reader) -> Iterator[Document]:
    identifier, unit = reader.text(metric.get("identifier")), reader.mapping(metric.get("unit"))
    words = reader.text(unit.get("identifier")), reader.text(unit.get("displayName"))
    ours, name = unit_of(*words), metric_name(category, identifier)
    goal_keys = list(_goal_keys(metric.get("goalKeys"), reader))
    for dataset in reader.objects(metric.get("datasets")):
        criteria = reader.mapping(dataset.get("filterCriteria"))
        recommended = _recommended(dataset.get("recommendedMetricGoal"), reader)
        for point in reader.objects(dataset.get("points")):
            value = reader.value(point.get("value"))
            converted = None if value is None else _plain(reader.value(ours.convert(value)))
            yield {
                "metric": identifier,
                "device": reader.text(criteria.get("device")),
                "deviceMarketingName": reader.text(criteria.get("deviceMarketingName")),
                "percentile": reader.text(criteria.get("percentile")),
                "version": reader.text(point.get("version")),
                "value": _plain(value),
                "unit": {"identifier": words[0], "displayName": words[1]},
                "errorMargin": _plain(reader.value(point.get("errorMargin"))),
                "goal": reader.text(point.get("goal")) or None,
                "percentageBreakdown": list(_breakdown(point.get("percentageBreakdown"), reader)),
                "recommendedMetricGoal": recommended,
                "goalKeys": goal_keys,
                "otlp": {"name": name, "unit": ours.ucum, "value": converted},
            }


def _goal_keys(raw: object, reader: Reader) -> Iterator[Document]:
    for band in reader.objects(raw):
        yield {
            "goalKey": reader.text(band.get("goalKey")),
            "lowerBound": _plain(reader.value(band.get("lowerBound"))),
            "upperBound": _plain(reader.value(band.get("upperBound"))),
        }


def _recommended(raw: object, reader: Reader) -> Document | None:
    goal = reader.mapping(raw)
    value = _plain(reader.value(goal.get("value")))
    return {"value": value, "detail": reader.text(goal.get("detail"))} if goal else None


def _breakdown(raw: object, reader: Reader) -> Iterator[Document]:
    """An object in Apple's OpenAPI file, an array of such objects on the wire."""
    for part in [raw] if isinstance(raw, dict) else reader.objects(raw):
        label, value = reader.text(part.get("subSystemLabel")), reader.value(part.get("value"))
        yield {"subSystemLabel": label, "value": _plain(value)}


def _overview_unit(raw: object, reader: Reader) -> Document:
    """An object with `identifier` and `displayName`, or a text."""
    unit = raw if isinstance(raw, dict) else {"identifier": raw}
    return {name: reader.text(unit.get(name)) for name in ("identifier", "displayName")}


def _insight(found: Insight, unit: Document | None, devices: Mapping[str, Document]) -> Document:
    return {
        "kind": found.kind,
        "metricCategory": found.category,
        "metric": found.metric,
        "unit": unit,
        "subSystemLabel": found.subsystem,
        "latestVersion": found.latest_version,
        "referenceVersions": list(found.reference_versions),
        "maxLatestVersionValue": _plain(found.max_latest),
        "highImpact": found.high_impact,
        "summaryString": found.summary,
        "populations": [
            {
                "device": population.device,
                "deviceMarketingName": devices.get(population.device, {}).get("deviceMarketingName", ""),
                "platform": devices.get(population.device, {}).get("platform", ""),
                "percentile": population.percentile,
                "latestVersionValue": _plain(population.latest),
                "referenceAverageValue": _plain(population.reference),
                "deltaPercentage": _plain(population.delta),
                "summaryString": population.summary,
            }
            for population in found.populations
        ],
    }


def _trend(direction: int, references: Iterable[tuple[str, float]]) -> Document:
    versions = [{"version": version, "value": _plain(value)} for version, value in references]
    return {"direction": _TREND_WORDS[direction], "referenceVersions": versions}


def _log(log: Log, stack: list[str] | None) -> Document:
    metadata = {
        "event": log.event,
        "eventDetail": log.detail,
        "writesCaused": log.writes_caused,
        "osVersion": log.os_version,
        "appVersion": log.app_version,
        "buildVersion": log.build_version,
        "bundleId": log.bundle_id,
        "deviceType": log.device,
        "platformArchitecture": log.architecture,
    }
    first = blamed_frame(call_tree(log.stacks))
    shown: Document = {
        "diagnosticMetaData": {name: text for name, text in metadata.items() if text},
        "blamedFrame": _frame(first) if first else None,
        "blameFrames": [_frame(frame) for stack in log.stacks for frame in stack if frame.blamed],
    }
    return shown if stack is None else {**shown, "callStack": stack}


def _stack(log: Log, whole: bool) -> list[str]:
    if not any(log.stacks):
        return []
    most = {"most_lines": sum(map(len, log.stacks)), "longest_line": _LONGEST_LINE} if whole else {}
    return render(call_tree(log.stacks), **most).split("\n")


def _frame(frame: Frame) -> Document:
    about = {
        "symbolName": frame.symbol,
        "binaryName": frame.binary,
        "fileName": frame.file,
        "lineNumber": frame.line,
        "address": "" if frame.symbol else frame.address,
        "sampleCount": frame.samples,
        "insightsCategory": frame.category,
    }
    return {name: value for name, value in about.items() if value not in ("", None)}


def _plain(value: float | None) -> float | int | None:
    """Whole numbers as people write them: 12, not 12.0."""
    if value is None or not value.is_integer() or abs(value) > _LARGEST_EXACT:
        return value
    return int(value)
