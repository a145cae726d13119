"""The `xcodeOverview` document of API 4.5, made from what the other endpoints tell. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from typing import Any

from exporter.sandbox.diagnostics import SandboxSignature
from exporter.sandbox.dice import dice
from exporter.sandbox.tables import METRICS, MetricKind, SandboxApp

Json = dict[str, Any]

_TOP = (("topHangPoint", "HANGS"), ("topLaunchPoint", "LAUNCHES"), ("topDiskWritePoint", "DISK_WRITES"))
_SIGNATURES_A_TYPE = 3
_REPORTS = {"HANGS": 4_200, "LAUNCHES": 900, "DISK_WRITES": 350}  # a day, of the whole type


def overview(
    app: SandboxApp, metrics: Json, signatures: Sequence[SandboxSignature], devices: Collection[str]
) -> Json:
    """The document of one app.

    Args:
        metrics: the app's `xcodeMetrics` document of the same day.
        signatures: those of the newest released build that has any.
        devices: families or models to tell about; if empty, the families.
    """
    product: Json = next(iter(metrics["productData"]), {"metricCategories": []})
    categories = [_category(category, devices) for category in product["metricCategories"]]
    return {
        "version": "1.0.0",
        "appMetadata": {
            "appId": app.id,
            "bundleId": app.bundle_id,
            "platform": "iOS",
            "latestVersion": _latest_version(product),
        },
        "insights": metrics["insights"],
        "categories": [category for category in categories if category["sections"]],
        "signatures": {name: _top(app, kind, signatures) for name, kind in _TOP},
        "telemetryIdentifier": str(uuid.UUID(bytes=dice(app.id, "telemetry", size=16), version=4)),
    }


def _latest_version(product: Json) -> str:
    datasets = (
        dataset
        for category in product["metricCategories"]
        for metric in category["metrics"]
        for dataset in metric["datasets"]
    )
    dataset = next(datasets, None)
    return "" if dataset is None else str(dataset["points"][-1]["version"])


def _category(category: Json, devices: Collection[str]) -> Json:
    name = category["identifier"]
    sections = [
        _section(name, metric, place, devices) for place, metric in enumerate(category["metrics"], start=1)
    ]
    return {
        "identifier": name,
        "displayName": name.replace("_", " ").title(),
        "sections": [section for section in sections if section["datasets"]],
    }


def _section(category: str, metric: Json, place: int, devices: Collection[str]) -> Json:
    kind = next(k for k in METRICS if (k.category, k.identifier) == (category, metric["identifier"]))
    return {
        "identifier": metric["identifier"],
        "displayName": _spaced(metric["identifier"]),
        "relevanceScore": round(1 / place, 2),
        "sortOrder": place,
        "unit": metric["unit"],
        "datasets": [_with_goal(kind, d) for d in metric["datasets"] if _is_wanted(d, devices)],
    }


def _is_wanted(dataset: Json, devices: Collection[str]) -> bool:
    device = dataset["filterCriteria"]["device"]
    return device in devices if devices else device.startswith("all_")


def _with_goal(kind: MetricKind, dataset: Json) -> Json:
    if kind.overview_goal is None:
        return dataset
    detail = f"Apps of this kind stay below {kind.overview_goal:g} {kind.unit[1]}."
    return {**dataset, "recommendedMetricGoal": {"value": kind.overview_goal, "detail": detail}}


def _spaced(identifier: str) -> str:
    """`peakMemory` → `Peak memory`."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in identifier).capitalize()


def _top(app: SandboxApp, kind: str, signatures: Sequence[SandboxSignature]) -> list[Json]:
    of_kind = [signature for signature in signatures if signature.type == kind]
    heaviest = sorted(of_kind, key=lambda signature: (-signature.weight, signature.id))
    return [_top_signature(app, signature) for signature in heaviest[:_SIGNATURES_A_TYPE]]


def _top_signature(app: SandboxApp, signature: SandboxSignature) -> Json:
    """Reports add up over the days. Line numbers are texts in one app and numbers in another."""
    place, insight = signature.problem, signature.insight or {}
    count = round(_REPORTS[signature.type] * (signature.days + 1) * signature.weight / app.weight_scale)
    line: str | int = str(place.line) if app.breakdown_as_list else place.line
    bare = place.style == "bare"
    return {
        "signatureId": signature.id,
        "signature": signature.text,
        "count": count,
        "weight": signature.weight,
        "sourceFile": "" if bare else place.file,
        "lineNumber": "" if bare else line,
        "trendInfo": insight.get("direction", "UNDEFINED"),
        "metricsSummary": {"referenceVersions": insight.get("referenceVersions", [])},
    }
