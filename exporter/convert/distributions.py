"""How a metric is spread over device models: `….by_device`, an explicit-bucket delta histogram.

One observation per device model: Apple's value for it. A distribution is sent once, and again only when its
content changed; its window then begins where the one sent before it ended, because overlapping windows are
an error in OTLP and a gap is taken for a reset on the way to Prometheus.
"""

from __future__ import annotations

import hashlib
import math
import re
import sys
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from opentelemetry.sdk.metrics.export import AggregationTemporality, Histogram, HistogramDataPoint, Metric

MOST_BOUNDS = 29  # Splunk drops a histogram with more than 30 buckets
SECOND = 1_000_000_000
FIRST_WINDOW = SECOND  # the window of a series' first distribution, which has none to continue

_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 20.0, 60.0)
_BYTES = (*(mantissa * 10.0**power for power in range(6, 10) for mantissa in (1, 2, 5)), 1e10)
_PERCENT = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 50.0, 75.0, 100.0)
_SECONDS_PER_HOUR = (0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0, 600.0)
_ANY = tuple(mantissa * 10.0**power for power in range(-3, 6) for mantissa in (1, 2, 5))
BOUNDS: dict[str, tuple[float, ...]] = {
    "s": _SECONDS,
    "By": _BYTES,
    "By/d": _BYTES,
    "%": _PERCENT,
    "ms/s": (1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0),
    "s/h": _SECONDS_PER_HOUR,
}

_MODEL = re.compile(r"[A-Za-z]{1,100}")  # a hostile one must not make the family too long for a tag
_MACS = ("mac", "imac", "macbook", "macbookair", "macbookpro", "macmini", "macpro")


class Window(NamedTuple):
    """What was last sent of a series: a digest of its content, and the end of its window in nanoseconds."""

    content: bytes
    ended_at: int


@dataclass(frozen=True, slots=True)
class Distribution:
    """One series' histogram: `counts` has one entry more than `bounds`; `total` is the sum of the values."""

    name: str
    unit: str
    description: str
    attributes: Mapping[str, str]
    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float
    minimum: float
    maximum: float

    @property
    def identity(self) -> bytes:
        """A digest of name, unit and attributes: which series this is."""
        return _digest((self.name, self.unit, sorted(self.attributes.items())))

    @property
    def content(self) -> bytes:
        """A digest of the numbers: whether the series changed."""
        return _digest((self.bounds, self.counts, self.total, self.minimum, self.maximum))

    def point(self, start: int, end: int) -> HistogramDataPoint:
        """The OTLP point for a window in nanoseconds. `min` and `max` only where they differ: Splunk drops a
        histogram whose minimum equals its maximum."""
        spread = self.minimum < self.maximum
        return HistogramDataPoint(
            attributes=dict(self.attributes),
            start_time_unix_nano=start,
            time_unix_nano=end,
            count=sum(self.counts),
            sum=self.total,
            bucket_counts=self.counts,
            explicit_bounds=self.bounds,
            min=self.minimum if spread else None,  # type: ignore[arg-type]  # the encoder leaves None unset
            max=self.maximum if spread else None,  # type: ignore[arg-type]
        )


def distribution(
    name: str,
    unit: str,
    description: str,
    attributes: Mapping[str, str],
    values: Sequence[float],
    bounds: tuple[float, ...],
) -> Distribution:
    """The distribution of one or more finite values over buckets (lower, upper]."""
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect_left(bounds, value)] += 1
    return Distribution(
        name,
        unit,
        description,
        attributes,
        bounds,
        tuple(counts),
        _sum(values),
        min(values),
        max(values),
    )


def _sum(values: Sequence[float]) -> float:
    """The exact sum, rounded once; a sum beyond all doubles becomes the largest of them."""
    try:
        return math.fsum(values)
    except OverflowError:
        total = math.fsum(value * 2.0**-64 for value in values) * 2.0**64
        return max(-sys.float_info.max, min(sys.float_info.max, total))


def bucket_bounds(goal_bounds: Iterable[float], unit: str) -> tuple[float, ...]:
    """Apple's goal bands (already converted) where given, else a fixed table per unit; strictly ascending."""
    given = tuple(sorted({bound for bound in goal_bounds if math.isfinite(bound)}))[:MOST_BOUNDS]
    return given or BOUNDS.get(unit, _ANY)


def owed(
    distributions: Iterable[Distribution], windows: Mapping[bytes, Window], now: int
) -> tuple[list[Metric], dict[bytes, Window]]:
    """Those that changed since they were last sent, as `chained` makes them."""
    changed = [item for item in distributions if not _same(windows.get(item.identity), item)]
    return chained(changed, windows, now)


def chained(
    distributions: Sequence[Distribution], windows: Mapping[bytes, Window], now: int
) -> tuple[list[Metric], dict[bytes, Window]]:
    """Distributions as OTLP metrics, and the windows to remember once they are stored.

    Args:
        distributions: each series at most once.
        windows: what was last sent, by `Distribution.identity`; each goes on where it ended.
        now: where the new windows end, all of them, in nanoseconds; at least a second after those that they
            continue, because Datadog keeps one value per series and second, and clocks go back.
    """
    ends = [windows[item.identity].ended_at for item in distributions if item.identity in windows]
    end = max([now, *(ended_at + SECOND for ended_at in ends)])
    metrics: dict[tuple[str, str, str], list[HistogramDataPoint]] = {}
    for item in distributions:
        before = windows.get(item.identity)
        start = before.ended_at if before else end - FIRST_WINDOW
        metrics.setdefault((item.name, item.unit, item.description), []).append(item.point(start, end))
    return [
        Metric(
            name=name,
            unit=unit,
            description=description,
            data=Histogram(points, aggregation_temporality=AggregationTemporality.DELTA),
        )
        for (name, unit, description), points in sorted(metrics.items())
    ], {item.identity: Window(item.content, end) for item in distributions}


def _same(before: Window | None, item: Distribution) -> bool:
    return before is not None and before.content == item.content


def is_family(device: str) -> bool:
    """Whether a device is one of Apple's families (`all_iphones`) and not a model (`iPhone14,2`)."""
    return device.startswith("all_")


def family_of(model: str) -> str:
    """The family that a model belongs to: `iPhone14,2` → `all_iphones`, `Mac15,3` → `all_macs`.

    A kind of device that nobody has heard of follows the same rule: `Robot1,1` → `all_robots`.
    """
    match = _MODEL.match(model)
    kind = match.group().lower() if match else "other"
    return "all_macs" if kind in _MACS else f"all_{kind}s"


def _digest(value: object) -> bytes:
    return hashlib.sha256(repr(value).encode("utf-8", "surrogatepass")).digest()[:16]
