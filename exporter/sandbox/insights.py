"""What Apple would remark about a payload: which metrics regressed, and which creep up. Pure."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from exporter.sandbox.tables import SandboxApp

Json = dict[str, Any]

_REGRESSION_PERCENT = 25.0
_TREND_PERCENT = 8.0
_HIGH_IMPACT_PERCENT = 100.0
_RISES_FOR_A_TREND = 3


def insights(app: SandboxApp, products: list[Json]) -> Json:
    """The `insights` object that belongs to the product data.

    A regression is a metric whose newest version lies a quarter or more above the average of the
    versions before it, in a whole family of devices and beyond the error margin; a trend is a smaller
    rise that has gone on for three versions.
    """
    found: Json = {"trendingUp": [], "regressions": []}
    for product in products:
        for category in product["metricCategories"]:
            for metric in category["metrics"]:
                _judge(app, category["identifier"], metric, found)
    return found


def _judge(app: SandboxApp, category: str, metric: Json, found: Json) -> None:
    populations = [p for dataset in metric["datasets"] if (p := _population(dataset)) is not None]
    families = [p for p in populations if p["device"].startswith("all_")]
    worst = max((p["deltaPercentage"] for p in families), default=0.0)
    risen = [dataset for dataset in metric["datasets"] if _keeps_rising(dataset)]
    if worst >= _REGRESSION_PERCENT:
        found["regressions"].append(_insight(app, category, metric, populations, _REGRESSION_PERCENT))
    elif worst >= _TREND_PERCENT and risen:
        found["trendingUp"].append(_insight(app, category, metric, populations, _TREND_PERCENT))


def _population(dataset: Json) -> Json | None:
    latest, earlier = dataset["points"][-1], dataset["points"][:-1]
    reference = [point["value"] for point in earlier if point.get("value") is not None]
    if latest.get("value") is None or not reference:
        return None
    average = sum(reference) / len(reference)
    delta = 100 * (latest["value"] - average) / average
    if latest["value"] - (latest.get("errorMargin") or 0) <= average:
        delta = min(delta, 0.0)
    return {
        "device": dataset["filterCriteria"]["device"],
        "percentile": dataset["filterCriteria"]["percentile"],
        "latestVersionValue": latest["value"],
        "referenceAverageValue": round(average, 2),
        "deltaPercentage": round(delta, 1),
        "summaryString": (
            f"{dataset['filterCriteria']['deviceMarketingName']}: {latest['value']:g} in version "
            f"{latest['version']}, {delta:.0f} % above the average of {average:.4g}."
        ),
    }


def _keeps_rising(dataset: Json) -> bool:
    if not dataset["filterCriteria"]["device"].startswith("all_"):
        return False
    values = [point["value"] for point in dataset["points"][-1 - _RISES_FOR_A_TREND :]]
    if len(values) <= _RISES_FOR_A_TREND:
        return False
    return all(after > before for before, after in pairwise(values))


def _insight(app: SandboxApp, category: str, metric: Json, populations: list[Json], least: float) -> Json:
    affected = [p for p in populations if p["deltaPercentage"] >= least]
    worst = max(affected, key=lambda p: float(p["deltaPercentage"]))
    versions = [point["version"] for point in metric["datasets"][0]["points"]]
    references: list[str] | str = versions[:-1] if app.references_as_list else ", ".join(versions[:-1])
    return {
        "metricCategory": category,
        "metric": metric["identifier"],
        "subSystemLabel": "",
        "latestVersion": versions[-1],
        "referenceVersions": references,
        "maxLatestVersionValue": max(p["latestVersionValue"] for p in affected),
        "summaryString": (
            f"{metric['identifier']} in version {versions[-1]} is up to "
            f"{worst['deltaPercentage']:.0f} % above the versions before it."
        ),
        "highImpact": worst["deltaPercentage"] >= _HIGH_IMPACT_PERCENT,
        "populations": affected,
    }
