"""What the sandbox's App Store Connect knows on a given day. Pure: the same seed and day give the same data.

A day is a float counted from the sandbox's first day (0.0). Numbers change when a new day begins
and not in between, as Apple's do; a version comes out every fourteen days, its data two days later.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Literal

from exporter.sandbox.insights import insights
from exporter.sandbox.tables import APPS, DEVICES, MACS, METRICS, Device, MetricKind, SandboxApp

Json = dict[str, Any]

DAYS_BETWEEN_VERSIONS = 14
DAYS_UNTIL_DATA = 2
VERSIONS_REPORTED = 8
BUILDS_LISTED = 12
FIRST_DAY = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)

_DAYS_OF_CHANGE = 28  # by then nearly everybody has updated, and a version's numbers stand still
_MINOR_AT_START = 40
_LAST_DAY = 1_000_000
_PERCENTILES = ("percentile.fifty", "percentile.ninety")
_EXPIRES_AFTER_DAYS = 90


@dataclass(frozen=True)
class SandboxBuild:
    """A build as `/v1/builds` lists it.

    Args:
        id: a UUID, as Apple's build ids are.
        app_id: the app's numeric id.
        version: the marketing version.
        number: the build number.
        platform: `IOS` or `MAC_OS`.
        uploaded: when it was uploaded, UTC.
        expired: True from ninety days after that.
        processing_state: `PROCESSING` on the day of the upload, then `VALID`.
    """

    id: str
    app_id: str
    version: str
    number: str
    platform: Literal["IOS", "MAC_OS"]
    uploaded: datetime
    expired: bool
    processing_state: Literal["PROCESSING", "VALID"]


@dataclass(frozen=True)
class _Release:
    index: int
    version: str
    day: int


@dataclass(frozen=True)
class _Line:
    """What one dataset is about."""

    app: SandboxApp
    kind: MetricKind
    device: Device
    percentile: str

    def expected(self, index: int) -> float:
        """The value in that release, before chance."""
        slowed = math.pow(self.device.slowness, self.kind.slowed)
        value = self.kind.typical * self.app.scale.get(self.kind.key, 1.0) * slowed
        if self.percentile == "percentile.ninety":
            value *= self.kind.spread
        return value * _version_factor(self.app, self.kind.key, index)


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
        app, today = self.app(app_id), _whole(day)
        releases = _releases(app, today, BUILDS_LISTED)
        platforms: tuple[Literal["IOS", "MAC_OS"], ...] = ("IOS", "MAC_OS") if app.on_macs else ("IOS",)
        return [self._build(app, release, platform, today) for release in releases for platform in platforms]

    def build(self, build_id: str, day: float) -> SandboxBuild:
        """The build with that id, if it is uploaded by that day."""
        for app in self.apps:
            for build in self.builds(app.id, day):
                if build.id == build_id:
                    return build
        raise KeyError(build_id)

    def metrics_payload(self, app_id: str, day: float) -> Json:
        """An app's `xcodeMetrics` document: its eight newest versions that have data."""
        app, today = self.app(app_id), _whole(day)
        releases = _releases(app, today - DAYS_UNTIL_DATA, VERSIONS_REPORTED)
        return self._payload(app, releases[::-1], today, ("iOS", "macOS") if app.on_macs else ("iOS",))

    def build_metrics_payload(self, build_id: str, day: float) -> Json:
        """A build's `xcodeMetrics` document: its one version; without any data in the first days."""
        build, today = self.build(build_id, day), _whole(day)
        app = self.app(build.app_id)
        releases = _releases(app, today - DAYS_UNTIL_DATA, BUILDS_LISTED)
        chosen = [release for release in releases if release.version == build.version]
        return self._payload(app, chosen, today, ("iOS",) if build.platform == "IOS" else ("macOS",))

    def _build(
        self, app: SandboxApp, release: _Release, platform: Literal["IOS", "MAC_OS"], today: int
    ) -> SandboxBuild:
        digest = blake2b(f"{self.seed}/{app.id}/{release.version}/{platform}".encode(), digest_size=16)
        age = today - release.day
        return SandboxBuild(
            id=str(uuid.UUID(bytes=digest.digest(), version=4)),
            app_id=app.id,
            version=release.version,
            number=str(1000 + 10 * release.index),
            platform=platform,
            uploaded=FIRST_DAY + timedelta(days=release.day),
            expired=age >= _EXPIRES_AFTER_DAYS,
            processing_state="VALID" if age else "PROCESSING",
        )

    def _payload(
        self, app: SandboxApp, releases: list[_Release], today: int, platforms: tuple[str, ...]
    ) -> Json:
        products = (
            [self._product(app, platform, releases, today) for platform in platforms] if releases else []
        )
        return {
            "version": "1.0.0",
            "insights": insights(app, products),
            "productData": products,
        }

    def _product(self, app: SandboxApp, platform: str, releases: list[_Release], today: int) -> Json:
        devices = (MACS,) if platform == "macOS" else DEVICES
        categories: dict[str, list[Json]] = {}
        for kind in METRICS:
            if _enough_usage(app, kind, today):
                lines = [
                    _Line(app, kind, device, percentile) for device in devices for percentile in _PERCENTILES
                ]
                datasets = [self._dataset(line, releases, today) for line in lines]
                categories.setdefault(kind.category, []).append(_metric(kind, datasets))
        return {
            "platform": platform,
            "metricCategories": [
                {"identifier": category, "metrics": metrics} for category, metrics in categories.items()
            ],
        }

    def _dataset(self, line: _Line, releases: list[_Release], today: int) -> Json:
        dataset: Json = {
            "filterCriteria": {
                "percentile": line.percentile,
                "device": line.device.model,
                "deviceMarketingName": line.device.name,
            },
            "points": [self._point(line, release, today) for release in releases],
        }
        if line.kind.bands:
            good, unit = line.kind.bands[0], line.kind.unit[1]
            detail = f"Apps of this kind stay below {good} {unit}."
            dataset["recommendedMetricGoal"] = {"value": good, "detail": detail}
        return dataset

    def _point(self, line: _Line, release: _Release, today: int) -> Json:
        app, kind = line.app, line.kind
        age = min(today - release.day, _DAYS_OF_CHANGE)
        dice = self._dice(line, release.index, age)
        expected = line.expected(release.index)
        value = _rounded(expected * (1 + 0.02 * (dice[0] / 255 - 0.5) / math.sqrt(age)))
        point: Json = {"version": release.version, "value": value}
        if dice[1] % 32:
            point["errorMargin"] = _rounded(expected * (0.09 if app.small else 0.06) / math.sqrt(age))
        elif dice[2] % 2:
            point["errorMargin"] = None
        if kind.bands:
            goal = _goal(*kind.bands, value)
            point["goal"] = goal.upper() if app.shouting else goal
        if kind.subsystems:
            point["percentageBreakdown"] = _breakdown(app, kind, dice)
        if not app.regressing and not line.device.is_family:
            _spoil(point, dice[3])
        return point

    def _dice(self, line: _Line, index: int, age: int) -> bytes:
        """Eight bytes by chance, the same ones each time."""
        text = (
            f"{self.seed}/{line.app.id}/{line.kind.key}/{line.device.model}/{line.percentile}/{index}/{age}"
        )
        return blake2b(text.encode(), digest_size=8).digest()


def _whole(day: float) -> int:
    if not 0 <= day <= _LAST_DAY:
        raise ValueError(f"a day of the sandbox is a number from 0 to {_LAST_DAY}, not {day!r}")
    return math.floor(day)


def _releases(app: SandboxApp, today: int, count: int) -> list[_Release]:
    """The newest `count` releases up to and including `today`, the newest first."""
    newest = (today + app.release_day) // DAYS_BETWEEN_VERSIONS
    return [
        _Release(
            index=_MINOR_AT_START + n,
            version=f"{app.major}.{_MINOR_AT_START + n}.0",
            day=n * DAYS_BETWEEN_VERSIONS - app.release_day,
        )
        for n in range(newest, newest - count, -1)
    ]


def _enough_usage(app: SandboxApp, kind: MetricKind, today: int) -> bool:
    """A small app lacks some categories on its first day, and one or another every sixth day."""
    rare = ("BATTERY", "ANIMATION", "STORAGE")
    if not app.small or kind.category not in rare:
        return True
    return today > 0 and today % 6 != rare.index(kind.category) + 2


def _version_factor(app: SandboxApp, key: str, index: int) -> float:
    if key == app.regressing and index % VERSIONS_REPORTED == _MINOR_AT_START % VERSIONS_REPORTED:
        return 1.6
    if key == app.improving:
        return 0.35 + 0.65 * math.pow(0.88, max(index - _MINOR_AT_START + BUILDS_LISTED, 0))
    if key == app.growing:
        return 1 + 0.03 * ((index - _MINOR_AT_START + VERSIONS_REPORTED) % 16)
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


def _breakdown(app: SandboxApp, kind: MetricKind, dice: bytes) -> Json | list[Json]:
    weights = [40 + 60 / (place + 1) + die % 16 for place, die in enumerate(dice[3:])]
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
