"""What makes an OTLP histogram point one that every backend can keep."""

from __future__ import annotations

import math
from itertools import pairwise

from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint

from tests.backends.intake import RefusedError


def check_buckets(name: str, point: HistogramDataPoint) -> None:
    """RefusedError unless bounds increase and are finite, counts fit them and add up to a count above 0."""
    bounds, counts = list(point.explicit_bounds), list(point.bucket_counts)
    if not all(map(math.isfinite, bounds)) or any(b <= a for a, b in pairwise(bounds)):
        raise RefusedError(f"{name}: bounds have to be finite and strictly increasing")
    if len(counts) != len(bounds) + 1:
        raise RefusedError(f"{name}: {len(bounds)} bounds need {len(bounds) + 1} counts, not {len(counts)}")
    if point.count != sum(counts):
        raise RefusedError(f"{name}: the count is {point.count}, that of all buckets {sum(counts)}")
    if not point.count:
        raise RefusedError(f"{name}: an empty histogram is dropped")


def check_sum(name: str, point: HistogramDataPoint) -> None:
    """RefusedError unless there is a finite sum: a missing one is read as 0."""
    if not point.HasField("sum") or not math.isfinite(point.sum):
        raise RefusedError(f"{name}: without a finite sum it would be shown as 0")


def extremes(name: str, point: HistogramDataPoint) -> tuple[float, float] | None:
    """Min and max, None when neither was sent; RefusedError when one is missing, infinite or out of order."""
    if not point.HasField("min") and not point.HasField("max"):
        return None
    if not (point.HasField("min") and point.HasField("max")):
        raise RefusedError(f"{name}: min and max come together or not at all")
    if not (math.isfinite(point.min) and math.isfinite(point.max) and point.min <= point.max):
        raise RefusedError(f"{name}: min has to be finite and not above max")
    return point.min, point.max
