"""Answers of a big app, made up: each point has every number, so that it makes three OTLP points."""

from __future__ import annotations

import json
import random

POINTS_PER_APP = 10_000
_METRICS = (
    ("LAUNCH", "launchTime", "milliseconds", "ms"),
    ("HANG", "hangRate", "seconds/hour", "s/hr"),
    ("MEMORY", "peakMemory", "megabytes", "MB"),
    ("MEMORY", "memoryAtSuspension", "megabytes", "MB"),
    ("DISK", "diskWrites", "megabytes/day", "MB/day"),
    ("BATTERY", "batteryUsage", "percentage", "%"),
    ("ANIMATION", "scrollHitchRate", "scrollHitchRate", "%"),
)
_VERSIONS = tuple(f"{major}.{minor}.0" for major in (3, 4) for minor in (9, 10, 11, 12))


def payload(seed: int, points: int = POINTS_PER_APP) -> bytes:
    """An `xcodeMetrics` body that makes about `points` gauge points in full detail."""
    chance = random.Random(seed)
    models = max(1, round(points / (3 * len(_METRICS) * len(_VERSIONS) * 2)) - 2)
    devices = ["all_iphones", "all_ipads", *(f"iPhone{10 + n // 5},{1 + n % 5}" for n in range(models))]
    categories = [
        {
            "identifier": category,
            "metrics": [
                {
                    "identifier": metric,
                    "unit": {"identifier": unit, "displayName": shown},
                    "goalKeys": [
                        {"goalKey": "good", "lowerBound": 0, "upperBound": 400},
                        {"goalKey": "fair", "lowerBound": 400, "upperBound": 700},
                        {"goalKey": "poor", "lowerBound": 700},
                    ],
                    "datasets": [
                        _dataset(chance, device, percentile)
                        for device in devices
                        for percentile in ("percentile.fifty", "percentile.ninety")
                    ],
                }
            ],
        }
        for category, metric, unit, shown in _METRICS
    ]
    product = {"platform": "iOS", "metricCategories": categories}
    return json.dumps({"version": "1.0.0", "productData": [product]}).encode()


def _dataset(chance: random.Random, device: str, percentile: str) -> dict[str, object]:
    return {
        "filterCriteria": {
            "percentile": percentile,
            "device": device,
            "deviceMarketingName": f"Phone {device}",
        },
        "points": [
            {
                "version": version,
                "value": round(chance.uniform(1, 900), 2),
                "errorMargin": round(chance.uniform(0, 9), 2),
                "goal": chance.choice(("good", "fair", "poor")),
            }
            for version in _VERSIONS
        ],
    }
