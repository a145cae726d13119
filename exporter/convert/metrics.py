"""`xcodeMetrics` → OTLP gauges, and the distributions over device models.

Every gauge point can be traced to one number of Apple's: the value, its error margin, the recommended goal,
the goal band, or one part of the percentage breakdown. Four more are computed from those: `delta`,
`regressed` (see `comparison`), `goal_ratio` and `poor`. Points are dated with the time at which the answer
arrived, because Apple dates nothing.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from math import inf, isfinite
from typing import Literal, NamedTuple

from opentelemetry.sdk.metrics.export import Gauge, Metric, NumberDataPoint
from opentelemetry.util.types import Attributes

from exporter.appstore.payloads import metrics as payloads
from exporter.appstore.versions import version_key
from exporter.convert.catalogue import (
    BREAKDOWN,
    BY_DEVICE,
    COMPANIONS,
    DELTA,
    ERROR_MARGIN,
    GOAL,
    GOAL_BAND,
    GOAL_RATIO,
    POOR,
    REGRESSED,
    Companion,
    describe,
    metric_name,
    worse_direction,
)
from exporter.convert.comparison import MIN_CHANGE, Measured, compare
from exporter.convert.distributions import Distribution, bucket_bounds, distribution, family_of, is_family
from exporter.convert.units import unit_of

Detail = Literal["aggregate", "standard", "full"]
NEWEST_VERSIONS = 2  # of a platform: so many have device models in `standard`, and the flag `poor`

_PERCENTILES = {"percentile.fifty": "p50", "percentile.ninety": "p90"}
_DIGITS = re.compile(r"\d{1,9}")
_FLAGS = (REGRESSED, POOR)

# What is kept longest when there are more series than the cap allows; within each, newer versions first. The
# flags are another matter: those of a dataset stand together, the oldest version's first, so that the cap
# never keeps the 1 of the newest version without the zeros that end the alerts on the versions before it.
(
    FAMILY_VALUE,
    FAMILY_REGRESSED,
    FAMILY_DELTA,
    FAMILY_POOR,
    FAMILY_GOAL,
    SPREAD,
    FAMILY_MARGIN,
    MODEL_VALUE,
    FAMILY_PART,
    MODEL_REGRESSED,
    MODEL_COMPANION,
) = range(11)


@dataclass(frozen=True, slots=True)
class Selection:
    """What the configuration wants of an answer: its `collect`, in plain values.

    Patterns are globs on Apple's identifiers; one that begins with `!` takes away what the others chose.
    Categories are compared without regard to case.
    """

    detail: Detail = "standard"
    categories: tuple[str, ...] = ("*",)
    devices: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class Converted:
    """What leaves, and what does not.

    `offered` = gauge points that are not computed + sum of `left_out` (without its `malformed`, see
    `payloads`): what is computed is not Apple's, so neither counts it. `series` counts the series that leave
    by metric name, computed ones and distributions included; `capped` those that the cap held back;
    `unknown_units` are the annotations of units that nobody knows.
    """

    gauges: list[Metric]
    distributions: list[Distribution]
    offered: int
    left_out: Counter[str]
    series: Counter[str]
    capped: Counter[str]
    unknown_units: frozenset[str]


class Standing(NamedTuple):
    """A `….regressed` that is 1: the flag's own name, and what it is about (`percentile` may be empty)."""

    name: str
    platform: str
    device: str
    percentile: str
    version: str

    @classmethod
    def of(cls, name: str, attributes: Mapping[str, str]) -> Standing:
        """The same, from the attributes that its point bears."""
        return cls(
            name,
            attributes.get("platform", ""),
            attributes.get("device", ""),
            attributes.get("percentile", ""),
            attributes.get("version", ""),
        )


class _Name(NamedTuple):
    """What makes an OTLP metric. One that Apple sends in two units becomes two, not one of mixed numbers."""

    name: str
    unit: str
    description: str


class _Names:
    """What one of Apple's metrics is called in OTLP, and its companions by suffix."""

    def __init__(self, metric: payloads.Metric) -> None:
        name = metric_name(metric.category, metric.identifier)
        self.unit = unit_of(metric.unit_identifier, metric.unit_name)
        self.worse = worse_direction(metric.category, metric.identifier)
        self.value = _Name(name, self.unit.ucum, describe(metric.category, metric.identifier))
        self.companions = {
            companion.suffix: _Name(
                f"{name}.{companion.suffix}",
                self.unit.ucum if companion.unit is None else companion.unit,
                companion.description,
            )
            for companion in COMPANIONS
        }


class _Place(NamedTuple):
    """Where the numbers of one point belong. `rank` is 0 for the newest version of the platform."""

    names: _Names
    attributes: dict[str, str]
    rank: int
    family: bool


class _Dataset(NamedTuple):
    """Whose versions are compared with one another."""

    name: _Name
    platform: str
    device: str
    percentile: str


class _Spread(NamedTuple):
    """Which distribution the value of a device model belongs to."""

    name: _Name
    platform: str
    family: str
    percentile: str
    version: str


class _Tier:
    """The series of one importance and version."""

    def __init__(self) -> None:
        self.points: defaultdict[_Name, list[NumberDataPoint]] = defaultdict(list)
        self.distributions: list[Distribution] = []

    def __len__(self) -> int:
        return sum(map(len, self.points.values())) + len(self.distributions)


def convert(
    payload: payloads.XcodeMetrics,
    selection: Selection,
    *,
    observed_at: int,
    series_cap: int,
    build: str = "",
    min_change: float = MIN_CHANGE,
    standing: Collection[Standing] = (),
) -> Converted:
    """Turn one answer into points.

    Args:
        payload: the answer for an app, or for one build of it.
        selection: which categories and devices, and how much detail.
        observed_at: when the answer arrived, in nanoseconds since the epoch.
        series_cap: how many series may leave, gauges and distributions together.
        build: the build number, for the answer of a build; becomes an attribute. Such an answer holds one
            version, so nothing is compared.
        min_change: the least change that is a regression, as a ratio (0.05 is five per cent).
        standing: the regressions in what the answer before became; less keeps one than raises it.
    """
    conversion = _Conversion(payload, selection, observed_at, build, min_change, standing)
    for metric in payload.metrics:
        conversion.add(metric)
    return conversion.result(series_cap)


class _Conversion:
    def __init__(
        self,
        payload: payloads.XcodeMetrics,
        selection: Selection,
        observed_at: int,
        build: str,
        min_change: float,
        standing: Collection[Standing],
    ) -> None:
        self.offered = payload.offered
        self.left_out = Counter(payload.left_out)
        self.observed_at = observed_at
        self.build = {"build": build} if build else {}
        self.min_change = min_change
        self.standing = standing
        self.detail = selection.detail
        self.wants_category = _matcher(tuple(pattern.upper() for pattern in selection.categories))
        self.wants_device = _matcher(selection.devices)
        self.ranks = _version_ranks(payload)
        self.seen: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)  # dataset → its versions so far
        self.observed: defaultdict[_Spread, list[float]] = defaultdict(list)
        self.histories: defaultdict[_Dataset, list[tuple[_Place, Measured]]] = defaultdict(list)
        self.computed: set[str] = set()  # names of metrics that are not Apple's numbers
        self.goal_bounds: dict[tuple[_Name, str], tuple[float, ...]] = {}
        self.tiers: defaultdict[tuple[int, int], _Tier] = defaultdict(_Tier)  # by importance and version rank
        self.unknown_units: set[str] = set()

    def add(self, metric: payloads.Metric) -> None:
        wanted = self.wants_category(metric.category.upper())
        names = _Names(metric)
        bounds = bucket_bounds(map(names.unit.convert, metric.goal_bounds), names.unit.ucum)
        self.goal_bounds.setdefault((names.companions[BY_DEVICE.suffix], metric.platform), bounds)
        for dataset in metric.datasets:
            if wanted and self.wants_device(dataset.device):
                self._dataset(metric.platform, names, dataset)
            else:
                self.left_out["filtered"] += _values_in(dataset)

    def _dataset(self, platform: str, names: _Names, dataset: payloads.Dataset) -> None:
        """Adds the points of one device and percentile; a model's values also go to `observed`, by family."""
        if not names.unit.known:
            self.unknown_units.add(names.unit.ucum)
        percentile = percentile_name(dataset.percentile)
        seen = self.seen[names.value.name, platform, dataset.device, percentile]
        is_one, family = is_family(dataset.device), family_of(dataset.device)
        compared = not self.build and (is_one or self.detail == "full")
        history = _Dataset(names.value, platform, dataset.device, percentile) if compared else None
        newest: tuple[_Place, float | None] | None = None
        for point in dataset.points:
            version = point.version
            if version in seen:
                self.left_out["duplicate"] += _values_at(point)
                continue
            seen.add(version)
            attributes = _attributes(dataset.device, dataset.device_name, platform, version, percentile)
            attributes.update(self.build)
            place = _Place(names, attributes, self.ranks[platform, version], is_one)
            value = self._point(place, point)
            if value is not None and not is_one:
                spread = _Spread(names.companions[BY_DEVICE.suffix], platform, family, percentile, version)
                self.observed[spread].append(value)
            if value is not None and history is not None:
                margin = None if point.error_margin is None else names.unit.convert(point.error_margin)
                self.histories[history].append((place, Measured(place.rank, value, margin)))
            if newest is None or place.rank < newest[0].rank:
                newest = place, value
        if dataset.recommended is not None:
            if newest:
                self._goal(*newest, names.unit.convert(dataset.recommended))
            else:  # each version of this dataset had come before, and the goal with them
                self.left_out["duplicate"] += 1

    def _goal(self, place: _Place, value: float | None, goal: float) -> None:
        self._companion(GOAL, FAMILY_GOAL, place, goal)
        if value is not None and 0 < goal < inf and (place.family or self.detail == "full"):
            self._compute(GOAL_RATIO, FAMILY_GOAL if place.family else MODEL_COMPANION, place, value / goal)

    def _point(self, place: _Place, point: payloads.Point) -> float | None:
        """Adds what one point holds; gives back its value in OTLP's unit, whether or not the value leaves."""
        value = None if point.value is None else place.names.unit.convert(point.value)
        if value is not None:
            if place.family:
                self._put(FAMILY_VALUE, place, place.names.value, value)
            elif self.detail == "full" or (self.detail == "standard" and place.rank < NEWEST_VERSIONS):
                self._put(MODEL_VALUE, place, place.names.value, value)
            else:
                self.left_out["detail"] += 1
        if point.error_margin is not None:
            self._companion(ERROR_MARGIN, FAMILY_MARGIN, place, place.names.unit.convert(point.error_margin))
        if point.goal_band is not None:
            self._companion(GOAL_BAND, FAMILY_GOAL, place, float(point.goal_band))
            # The answer of a build holds one version. Of older ones the flag would be 0 as before.
            if place.family and not self.build and place.rank < NEWEST_VERSIONS:
                is_poor = place.rank == 0 and point.goal_band == payloads.GOAL_BANDS["poor"]
                self._compute(POOR, FAMILY_POOR, place, float(is_poor))
        if point.breakdown:
            self._breakdown(place, point.breakdown)
        return value if value is not None and isfinite(value) else None

    def _breakdown(self, place: _Place, parts: tuple[tuple[str, float], ...]) -> None:
        labels: set[str] = set()
        for label, share in parts:
            if label in labels:
                self.left_out["duplicate"] += 1
                continue
            labels.add(label)
            part = place._replace(attributes=place.attributes | {"subsystem": label})
            self._companion(BREAKDOWN, FAMILY_PART, part, share)

    def _companion(self, companion: Companion, importance: int, place: _Place, value: float) -> None:
        """Companions belong to families; to models only where the configuration wants everything."""
        if place.family or self.detail == "full":
            name = place.names.companions[companion.suffix]
            self._put(importance if place.family else MODEL_COMPANION, place, name, value)
        else:
            self.left_out["detail"] += 1

    def _put(self, importance: int, place: _Place, name: _Name, value: float) -> None:
        if isfinite(value):
            point = NumberDataPoint(place.attributes, 0, self.observed_at, value)  # a gauge has no start
            self.tiers[importance, place.rank].points[name].append(point)
        else:  # 1e306 MB is a number, but not one of bytes
            self.left_out["out_of_range"] += 1

    def _compute(self, companion: Companion, importance: int, place: _Place, value: float) -> None:
        """Adds a number that is not Apple's; one that is none is not sent, and nothing of Apple's is lost."""
        if isfinite(value):
            name = place.names.companions[companion.suffix]
            self.computed.add(name.name)
            rank = 0 if companion in _FLAGS else place.rank  # the flags of a dataset stand together
            point = NumberDataPoint(place.attributes, 0, self.observed_at, value)
            self.tiers[importance, rank].points[name].append(point)

    def _add_comparisons(self) -> None:
        for history in self.histories.values():
            worse = history[0][0].names.worse
            stood = any(place.rank == 0 and self._stood(place) for place, _ in history)
            found = compare([measured for _, measured in history], worse, self.min_change, stood=stood)
            for place, _ in history:
                is_newest = place.rank == 0
                if worse:
                    importance = FAMILY_REGRESSED if place.family else MODEL_REGRESSED
                    self._compute(REGRESSED, importance, place, float(is_newest and found.regressed))
                if is_newest and found.delta is not None:
                    importance = FAMILY_DELTA if place.family else MODEL_COMPANION
                    self._compute(DELTA, importance, place, found.delta)

    def _stood(self, place: _Place) -> bool:
        flag = place.names.companions[REGRESSED.suffix].name
        return Standing.of(flag, place.attributes) in self.standing

    def _add_distributions(self) -> None:
        for spread, values in self.observed.items():
            name, platform, family, percentile, version = spread
            attributes = _attributes(family, "", platform, version, percentile) | self.build
            bounds = self.goal_bounds[name, platform]
            tier = self.tiers[SPREAD, self.ranks[platform, version]]
            tier.distributions.append(distribution(*name, attributes, values, bounds))

    def result(self, series_cap: int) -> Converted:
        self._add_comparisons()
        self._add_distributions()
        capped: Counter[str] = Counter()
        if sum(map(len, self.tiers.values())) > series_cap:
            self._cut(series_cap, capped)
        points: defaultdict[_Name, list[NumberDataPoint]] = defaultdict(list)
        distributions: list[Distribution] = []
        for tier in self.tiers.values():
            distributions += tier.distributions
            for name, of_tier in tier.points.items():
                points[name] += of_tier
        series = Counter(item.name for item in distributions)
        for name, of_name in points.items():
            series[name.name] += len(of_name)
        return Converted(
            gauges=[
                Metric(name=name.name, description=name.description, unit=name.unit, data=Gauge(points[name]))
                for name in sorted(points)
            ],
            distributions=distributions,
            offered=self.offered,
            left_out=self.left_out,
            series=series,
            capped=capped,
            unknown_units=frozenset(self.unknown_units),
        )

    def _cut(self, series_cap: int, capped: Counter[str]) -> None:
        """Keeps the most important series, always the same for the same answer: by tier, then by `_order`."""
        room = series_cap
        for key in sorted(self.tiers):
            tier, kept = self.tiers[key], _Tier()
            ranked = sorted(
                [
                    (_order(name.name, point.attributes), name, point)
                    for name in tier.points
                    for point in tier.points[name]
                ],
                key=lambda entry: entry[0],
            )
            for _, name, point in ranked[:room]:
                kept.points[name].append(point)
            for _, name, _point in ranked[room:]:
                capped[name.name] += 1
                if name.name not in self.computed:
                    self.left_out["series_cap"] += 1
            spread = sorted(tier.distributions, key=lambda item: _order(item.name, item.attributes))
            kept.distributions = spread[: max(0, room - len(ranked))]
            capped.update(item.name for item in spread[len(kept.distributions) :])
            self.tiers[key] = kept
            room -= len(kept)


def _order(name: str, attributes: Attributes) -> tuple[object, ...]:
    """Newest device models first, then by name and the other attributes, the oldest version first."""
    given = {key: str(value) for key, value in (attributes or {}).items()}
    device = given.get("device", "")
    return (
        [-int(number) for number in _DIGITS.findall(device)],
        device,
        name,
        given.get("percentile", ""),
        given.get("platform", ""),
        version_key(given.get("version", "")),
        sorted(given.items()),
    )


def _attributes(
    device: str, device_name: str, platform: str, version: str, percentile: str
) -> dict[str, str]:
    attributes = {"device": device, "platform": platform, "version": version}
    if device_name:
        attributes["device_name"] = device_name
    if percentile:
        attributes["percentile"] = percentile
    return attributes


def percentile_name(text: str) -> str:
    """`percentile.fifty` → `p50`, `percentile.ninety` → `p90`; one that nobody knows keeps its last word."""
    return _PERCENTILES.get(text, text.rpartition(".")[2].strip())


def _values_at(point: payloads.Point) -> int:
    """How many of Apple's values a point still holds."""
    return (
        (point.value is not None)
        + (point.error_margin is not None)
        + (point.goal_band is not None)
        + len(point.breakdown)
    )


def _values_in(dataset: payloads.Dataset) -> int:
    return sum(map(_values_at, dataset.points)) + (dataset.recommended is not None)


def _version_ranks(payload: payloads.XcodeMetrics) -> dict[tuple[str, str], int]:
    """(platform, version) → 0 for the platform's newest version, 1 for the one before, and so on."""
    versions: defaultdict[str, set[str]] = defaultdict(set)
    for metric in payload.metrics:
        for dataset in metric.datasets:
            versions[metric.platform].update([point.version for point in dataset.points])
    return {
        (platform, version): rank
        for platform, of_platform in versions.items()
        for rank, version in enumerate(sorted(of_platform, key=version_key, reverse=True))
    }


@lru_cache(maxsize=64)
def _matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a text is chosen: by one glob at least, and by none of those that begin with `!`."""
    chosen = [pattern for pattern in patterns if not pattern.startswith("!")] or ["*"]
    refused = [pattern[1:] for pattern in patterns if pattern.startswith("!")]

    @lru_cache(maxsize=1024)
    def matches(text: str) -> bool:
        return any(fnmatchcase(text, pattern) for pattern in chosen) and not any(
            fnmatchcase(text, pattern) for pattern in refused
        )

    return matches
