"""`xcodeMetrics` (the answer of `perfPowerMetrics`) → frozen dataclasses.

Lenient: one bad field costs that field, one bad point that point, never the payload. Every value that Apple
sent is either in the result or counted in `left_out`, so that `offered` = values kept + values left out. What
is counted as a value: each entry of a `points` list, each error margin and goal on it, each entry of its
breakdown, and each recommended goal of a dataset. The reasons in `left_out` are those of the catalogue's
LEFT_OUT; `malformed` alone is outside the sum: it counts containers whose contents nobody can count.

The shapes are Apple's `xcodeMetrics` schema (App Store Connect API 4.4.1), and what the live service was seen
to send where it differs: `percentageBreakdown` as an array, goals in upper case, numbers missing or null.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple

from exporter.appstore.payloads.insights import Insights, parse_insights
from exporter.appstore.payloads.reader import Reader, finite, platform_name
from exporter.errors import BadAnswer

GOAL_BANDS = {"good": 1, "fair": 2, "poor": 3}


class Point(NamedTuple):
    """One point of a dataset, in Apple's units. `value` is None where it was missing or no number."""

    version: str
    value: float | None
    error_margin: float | None
    goal_band: int | None
    breakdown: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Dataset:
    """The points of one device and percentile. `percentile` and `device_name` may be empty."""

    device: str
    device_name: str
    percentile: str
    recommended: float | None
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric on one platform. `goal_bounds` are the inner borders of Apple's goal bands, ascending."""

    platform: str
    category: str
    identifier: str
    unit_identifier: str
    unit_name: str
    goal_bounds: tuple[float, ...]
    datasets: tuple[Dataset, ...]


@dataclass(frozen=True, slots=True)
class XcodeMetrics:
    """A whole answer, with what had to be left out of it. `insights` is None where it holds no such part."""

    metrics: tuple[Metric, ...]
    insights: Insights | None
    offered: int
    left_out: Counter[str]


def parse_metrics(document: object) -> XcodeMetrics:
    """A decoded `xcodeMetrics` document → XcodeMetrics. An app with too little usage gives no metrics.

    Every number in the document has to be a float (`json.loads(…, parse_int=float)`, as in `Answer`).

    Raises:
        BadAnswer: the document has not even the outline of `xcodeMetrics`: no `productData` list, or nothing
            in it that could be understood. What is stored from earlier answers is better than that.
    """
    if not isinstance(document, dict) or not isinstance(document.get("productData"), list):
        raise BadAnswer(
            "the answer has no productData list, so it is not xcodeMetrics",
            remedy="The last good data stays. If it persists, Apple has changed the format.",
        )
    reader = _Reader()
    metrics = tuple(reader.metrics(document["productData"]))
    if not metrics and reader.left_out:
        raise BadAnswer(
            f"nothing in the answer could be understood ({dict(reader.left_out)})",
            remedy="The last good data stays. If it persists, Apple has changed the format.",
        )
    insights = parse_insights(document.get("insights"))
    if insights is None and document.get("insights") is not None:
        reader.left_out["malformed"] += 1
    return XcodeMetrics(metrics, insights, reader.offered, reader.left_out)


class _Reader(Reader):
    """Walks one payload and keeps the count of what was offered and what was left out."""

    def __init__(self) -> None:
        super().__init__()
        self.offered = 0

    def metrics(self, product_data: list[Any]) -> Iterator[Metric]:
        for product in self.objects(product_data):
            platform = self.text(product.get("platform"))
            for category in self.objects(product.get("metricCategories")):
                for metric in self.objects(category.get("metrics")):
                    yield from self._metric(platform, self.text(category.get("identifier")), metric)

    def _metric(self, platform: str, category: str, metric: dict[str, Any]) -> Iterator[Metric]:
        unit = self.mapping(metric.get("unit"))
        identifier = self.text(metric.get("identifier"))
        without = "no_platform" if not platform else "no_metric" if not (category and identifier) else ""
        datasets = tuple(self._datasets(metric.get("datasets"), without))
        if datasets:
            yield Metric(
                platform=platform_name(platform),
                category=category,
                identifier=identifier,
                unit_identifier=self.text(unit.get("identifier")),
                unit_name=self.text(unit.get("displayName")),
                goal_bounds=self._goal_bounds(metric.get("goalKeys")),
                datasets=datasets,
            )

    def _datasets(self, raw: object, without: str) -> Iterator[Dataset]:
        """`without` is the reason why no value of this metric can be placed, or empty."""
        for dataset in self.objects(raw):
            criteria = self.mapping(dataset.get("filterCriteria"))
            device = self.text(criteria.get("device"))
            reason = without or ("" if device else "no_device")
            recommended = self._recommended(dataset.get("recommendedMetricGoal"), reason)
            points = tuple(self._points(dataset.get("points"), reason))
            if points:
                yield Dataset(
                    device=device,
                    device_name=self.text(criteria.get("deviceMarketingName")),
                    percentile=self.text(criteria.get("percentile")),
                    recommended=recommended,
                    points=points,
                )
            elif recommended is not None:
                self.left_out["no_version"] += 1  # a goal bears the version of the dataset's newest point

    def _points(self, raw: object, without: str) -> Iterator[Point]:
        for point in self.items(raw):
            if type(point) is not dict:
                self._leave_out("not_an_object")
                continue
            version = self.text(point.get("version"))
            reason = without or ("" if version else "no_version")
            value = self._number(point.get("value"), reason, absent="no_value")
            margin, goal, parts = (
                point.get("errorMargin"),
                point.get("goal"),
                point.get("percentageBreakdown"),
            )
            margin = None if margin is None else self._number(margin, reason)
            band = None if goal is None else self._band(goal, reason)
            breakdown = () if parts is None else tuple(self._breakdown(parts, reason))
            if not reason:
                yield Point(version, value, margin, band, breakdown)

    def _breakdown(self, raw: object, reason: str) -> Iterator[tuple[str, float]]:
        """An object in Apple's OpenAPI file, an array of such objects on the wire."""
        for part in [raw] if isinstance(raw, dict) else self.items(raw):
            if type(part) is not dict:
                self._leave_out(reason or "not_an_object")
                continue
            label = self.text(part.get("subSystemLabel"))
            value = self._number(
                part.get("value"), reason or ("" if label else "no_subsystem"), absent="no_value"
            )
            if value is not None:
                yield label, value

    def _recommended(self, raw: object, reason: str) -> float | None:
        if raw is None:
            return None
        if not isinstance(raw, dict):
            self._leave_out(reason or "not_an_object")
            return None
        value = raw.get("value")
        return None if value is None else self._number(value, reason)

    def _goal_bounds(self, raw: object) -> tuple[float, ...]:
        """The borders between neighbouring bands: a band's upper bound, else the next band's lower bound."""
        bands = []
        for band in self.objects(raw):
            lower, upper = finite(band.get("lowerBound")), finite(band.get("upperBound"))
            if lower is not None or upper is not None:
                bands.append((-inf if lower is None else lower, upper))
        bands.sort(key=lambda band: band[0])
        borders = {upper if upper is not None else following[0] for (_, upper), following in pairwise(bands)}
        return tuple(sorted(border for border in borders if border > 0))

    def _number(self, raw: object, reason: str, absent: str = "not_a_number") -> float | None:
        """A finite number, else None and counted: under `reason` if given, else by what is wrong with it."""
        self.offered += 1
        if not reason:
            if type(raw) is float and raw - raw == 0.0:  # an infinity or NaN minus itself is NaN
                return raw
            reason = absent if raw is None else "not_a_number"
        self.left_out[reason] += 1
        return None

    def _band(self, raw: object, reason: str) -> int | None:
        self.offered += 1
        band = GOAL_BANDS.get(raw) if isinstance(raw, str) else None
        if band is None and isinstance(raw, str):
            band = GOAL_BANDS.get(raw.strip().lower())
        if band is None or reason:
            self.left_out[reason or "unknown_goal"] += 1
            return None
        return band

    def _leave_out(self, reason: str) -> None:
        self.offered += 1
        self.left_out[reason] += 1
