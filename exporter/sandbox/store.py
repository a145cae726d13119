"""What the sandbox's App Store Connect knows on a given day. Pure: the same seed and day give the same data.

A day is a float counted from the sandbox's first day (0.0). Numbers change when a new day begins
and not in between, as Apple's do; a version comes out every fourteen days, its data two days later.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from exporter.sandbox.builds import (
    BUILDS_LISTED,
    DAYS_BETWEEN_VERSIONS,
    DAYS_OF_CHANGE,
    DAYS_UNTIL_DATA,
    FIRST_DAY,
    MINOR_AT_START,
    Release,
    SandboxBuild,
    builds_of,
    releases,
    whole,
)
from exporter.sandbox.diagnostics import SandboxLog, SandboxSignature, logs, logs_document, signatures
from exporter.sandbox.dice import dice
from exporter.sandbox.insights import insights
from exporter.sandbox.overview import overview
from exporter.sandbox.tables import APPS, DEVICES, MACS, METRICS, Device, MetricKind, SandboxApp

__all__ = [
    "DAYS_BETWEEN_VERSIONS",
    "DAYS_UNTIL_DATA",
    "FIRST_DAY",
    "SandboxBuild",
    "SandboxLog",
    "SandboxSignature",
    "Store",
    "selected",
]

Json = dict[str, Any]

VERSIONS_REPORTED = 8

_DAYS_TO_SETTLE = 7
_UNSETTLED = 2.4  # clearly more than double, which Apple calls a high impact, in every family of devices
_PERCENTILES = ("percentile.fifty", "percentile.ninety")


@dataclass(frozen=True)
class _Line:
    """What one dataset is about."""

    app: SandboxApp
    kind: MetricKind
    device: Device
    percentile: str

    def expected(self, index: int, age: int) -> float:
        """The value in that release, so many days after it, before chance."""
        slowed = math.pow(self.device.slowness, self.kind.slowed)
        value = self.kind.typical * self.app.scale.get(self.kind.key, 1.0) * slowed
        if self.percentile == "percentile.ninety":
            value *= self.kind.spread
        return value * _version_factor(self.app, self.kind.key, index, age)


class Store:
    """The apps of the sandbox and their numbers.

    Args:
        seed: another seed gives other numbers of the same shape.

    Every method takes the day as a number from 0 to a million and raises ValueError for any other;
    an unknown app or build id raises KeyError.
    """

    def __init__(self, seed: int = 1) -> None:
        self.seed = seed
        self.apps = APPS

    def app(self, app_id: str) -> SandboxApp:
        """The app with that numeric id."""
        for app in self.apps:
            if app.id == app_id:
                return app
        raise KeyError(app_id)

    def builds(self, app_id: str, day: float) -> list[SandboxBuild]:
        """The app's builds on that day, the newest first."""
        return list(builds_of(self.seed, self.app(app_id).id, whole(day)))

    def build(self, build_id: str, day: float) -> SandboxBuild:
        """The build with that id, if it is uploaded by that day."""
        for app in self.apps:
            for build in self.builds(app.id, day):
                if build.id == build_id:
                    return build
        raise KeyError(build_id)

    def metrics_payload(self, app_id: str, day: float) -> Json:
        """An app's `xcodeMetrics` document: its eight newest versions that have data."""
        app, today = self.app(app_id), whole(day)
        reported = releases(app, today - DAYS_UNTIL_DATA, VERSIONS_REPORTED)
        return self._payload(app, reported[::-1], today, ("iOS", "macOS") if app.on_macs else ("iOS",))

    def build_metrics_payload(self, build_id: str, day: float) -> Json:
        """A build's `xcodeMetrics` document: its one version; without any data in the first days.

        A build that is in TestFlight only never has any.
        """
        build, today = self.build(build_id, day), whole(day)
        app = self.app(build.app_id)
        reported = releases(app, today - DAYS_UNTIL_DATA, BUILDS_LISTED) if build.store_state else []
        chosen = [release for release in reported if release.version == build.version]
        return self._payload(app, chosen, today, ("iOS",) if build.platform == "IOS" else ("macOS",))

    def signatures(self, build_id: str, day: float) -> list[SandboxSignature]:
        """The build's diagnostic signatures on that day; none for a build that is in TestFlight only."""
        build = self.build(build_id, day)
        return list(signatures(self.app(build.app_id), build, self.seed, whole(day)))

    def signature(self, signature_id: str, day: float) -> SandboxSignature:
        """The signature with that id; KeyError on a day on which its build does not have it."""
        return _by_id(self.seed, whole(day))[signature_id]

    def logs(self, signature_id: str, day: float) -> list[SandboxLog]:
        """The logs that a signature has on that day, the newest first."""
        signature = self.signature(signature_id, day)
        build = self.build(signature.build_id, day)
        return logs(self.app(build.app_id), build, signature, self.seed)

    def logs_payload(self, signature_id: str, day: float, limit: int) -> Json:
        """A signature's `diagnosticLogs` document, of at most so many logs."""
        found = self.logs(signature_id, day)[:limit]
        return logs_document(self.signature(signature_id, day), found)

    def overview_payload(self, app_id: str, day: float, devices: Collection[str] = ()) -> Json:
        """An app's `xcodeOverview` document; KeyError for an app whose account is not offered any.

        Args:
            app_id: the app's numeric id.
            day: as everywhere.
            devices: models or families to tell about; if empty, the families.
        """
        app = self.app(app_id)
        if not app.has_overview:
            raise KeyError(app_id)
        released = (b for b in self.builds(app_id, day) if b.store_state and b.platform == "IOS")
        listed = (self.signatures(build.id, day) for build in released)
        return overview(app, self.metrics_payload(app_id, day), next(filter(None, listed), []), devices)

    def _payload(
        self, app: SandboxApp, chosen: list[Release], today: int, platforms: tuple[str, ...]
    ) -> Json:
        products = [self._product(app, platform, chosen, today) for platform in platforms] if chosen else []
        return {
            "version": "1.0.0",
            "insights": insights(app, products),
            "productData": products,
        }

    def _product(self, app: SandboxApp, platform: str, chosen: list[Release], today: int) -> Json:
        devices = (MACS,) if platform == "macOS" else DEVICES
        categories: dict[str, list[Json]] = {}
        for kind in METRICS:
            if _enough_usage(app, kind, today):
                lines = [
                    _Line(app, kind, device, percentile) for device in devices for percentile in _PERCENTILES
                ]
                datasets = [self._dataset(line, chosen, today) for line in lines]
                categories.setdefault(kind.category, []).append(_metric(kind, datasets))
        return {
            "platform": platform,
            "metricCategories": [
                {"identifier": category, "metrics": metrics} for category, metrics in categories.items()
            ],
        }

    def _dataset(self, line: _Line, chosen: list[Release], today: int) -> Json:
        dataset: Json = {
            "filterCriteria": {
                "percentile": line.percentile,
                "device": line.device.model,
                "deviceMarketingName": line.device.name,
            },
            "points": [self._point(line, release, today) for release in chosen],
        }
        if line.kind.bands:
            good, unit = line.kind.bands[0], line.kind.unit[1]
            detail = f"Apps of this kind stay below {good} {unit}."
            dataset["recommendedMetricGoal"] = {"value": good, "detail": detail}
        return dataset

    def _point(self, line: _Line, release: Release, today: int) -> Json:
        app, kind = line.app, line.kind
        age = min(today - release.day, DAYS_OF_CHANGE)
        thrown = self._dice(line, release.index, age)
        expected = line.expected(release.index, age)
        value = _rounded(expected * (1 + 0.02 * (thrown[0] / 255 - 0.5) / math.sqrt(age)))
        point: Json = {"version": release.version, "value": value}
        if thrown[1] % 32:
            point["errorMargin"] = _rounded(expected * (0.09 if app.small else 0.06) / math.sqrt(age))
        elif thrown[2] % 2:
            point["errorMargin"] = None
        if kind.bands:
            goal = _goal(*kind.bands, value)
            point["goal"] = goal.upper() if app.shouting else goal
        if kind.subsystems:
            point["percentageBreakdown"] = _breakdown(app, kind, thrown)
        if not app.regressing and not line.device.is_family:
            _spoil(point, thrown[3])
        return point

    def _dice(self, line: _Line, index: int, age: int) -> bytes:
        """Eight bytes by chance, the same ones each time."""
        about = line.app.id, line.kind.key, line.device.model, line.percentile
        return dice(self.seed, *about, index, age, size=8)


@lru_cache(maxsize=4)
def _by_id(seed: int, today: int) -> dict[str, SandboxSignature]:
    """All signatures of all builds on that day."""
    builds = ((app, build) for app in APPS for build in builds_of(seed, app.id, today))
    listed = (signatures(app, build, seed, today) for app, build in builds if build.store_state)
    return {signature.id: signature for each in listed for signature in each}


def _enough_usage(app: SandboxApp, kind: MetricKind, today: int) -> bool:
    """A small app lacks some categories on its first day, and one or another every sixth day."""
    rare = ("BATTERY", "ANIMATION", "STORAGE")
    if not app.small or kind.category not in rare:
        return True
    return today > 0 and today % 6 != rare.index(kind.category) + 2


def _version_factor(app: SandboxApp, key: str, index: int, age: int) -> float:
    eighth = index % VERSIONS_REPORTED == MINOR_AT_START % VERSIONS_REPORTED
    if key == app.regressing and eighth:
        return 1.6
    if key == app.settling and eighth and age < _DAYS_TO_SETTLE:
        return _UNSETTLED
    if key == app.improving:
        return 0.35 + 0.65 * math.pow(0.88, max(index - MINOR_AT_START + BUILDS_LISTED, 0))
    if key == app.growing:
        return 1 + 0.03 * ((index - MINOR_AT_START + VERSIONS_REPORTED) % 16)
    return 1 + 0.012 * math.sin(index * 1.7 + len(key))


def _metric(kind: MetricKind, datasets: list[Json]) -> Json:
    metric: Json = {
        "identifier": kind.identifier,
        "unit": {"identifier": kind.unit[0], "displayName": kind.unit[1]},
        "datasets": datasets,
    }
    if kind.bands:
        metric["goalKeys"] = _goal_keys(*kind.bands)
    return metric


def _goal_keys(good: float, fair: float) -> list[Json]:
    return [
        {"goalKey": "good", "lowerBound": 0, "upperBound": good},
        {"goalKey": "fair", "lowerBound": good, "upperBound": fair},
        {"goalKey": "poor", "lowerBound": fair},
    ]


def _goal(good: float, fair: float, value: float) -> str:
    if value <= good:
        return "good"
    return "fair" if value <= fair else "poor"


def _spoil(point: Json, die: int) -> None:
    """Now and then Apple's value is null or not there at all."""
    if die == 0:
        point["value"] = None
    elif die == 1:
        del point["value"]


def _breakdown(app: SandboxApp, kind: MetricKind, thrown: bytes) -> Json | list[Json]:
    weights = [40 + 60 / (place + 1) + die % 16 for place, die in enumerate(thrown[3:])]
    shares = weights[: len(kind.subsystems)]
    parts = [
        {"value": round(100 * share / sum(shares), 1), "subSystemLabel": name}
        for name, share in zip(kind.subsystems, shares, strict=True)
    ]
    return parts if app.breakdown_as_list else parts[0]


def _rounded(value: float) -> float:
    """Three significant digits below a hundred, one decimal above."""
    return round(value, 1) if value >= 100 else float(f"{value:.3g}")


def selected(
    payload: Json, *, platforms: Collection[str], categories: Collection[str], devices: Collection[str]
) -> Json:
    """A payload cut down to the filters that were asked for; an empty filter lets everything through.

    Args:
        payload: as `Store.metrics_payload` gives it.
        platforms: as in the filter, for example `IOS`.
        categories: metric categories, for example `LAUNCH`.
        devices: models or families.
    """
    products = [
        {**product, "metricCategories": _selected_categories(product, categories, devices)}
        for product in payload["productData"]
        if not platforms or product["platform"].upper() in platforms
    ]
    return {**payload, "productData": [product for product in products if product["metricCategories"]]}


def _selected_categories(product: Json, categories: Collection[str], devices: Collection[str]) -> list[Json]:
    chosen = [
        {**category, "metrics": _selected_metrics(category, devices)}
        for category in product["metricCategories"]
        if not categories or category["identifier"] in categories
    ]
    return [category for category in chosen if category["metrics"]]


def _selected_metrics(category: Json, devices: Collection[str]) -> list[Json]:
    if not devices:
        return list(category["metrics"])
    metrics = [
        {**metric, "datasets": [d for d in metric["datasets"] if d["filterCriteria"]["device"] in devices]}
        for metric in category["metrics"]
    ]
    return [metric for metric in metrics if metric["datasets"]]
