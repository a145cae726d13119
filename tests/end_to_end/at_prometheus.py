"""What a scrape of the Collector has to show of what was sent, by the overlay `prometheus`.

The rules are those of the OpenTelemetry specification (Prometheus and OpenMetrics compatibility), and the
overlay's own: delta histograms are added up, and the resource's attributes are labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from tests.backends.prometheus import Sample
from tests.end_to_end.sent import SentPoint

SUFFIXES = {
    "s": "_seconds",
    "s/h": "_seconds_per_hour",
    "By": "_bytes",
    "By/d": "_bytes_per_day",
    "%": "_percent",
    "1": "_ratio",
    "{termination}/d": "_per_day",
}
"""What our units add to a name; an annotation alone, such as `{flag}`, adds nothing."""


def scraped(sent: Iterable[SentPoint]) -> list[Sample]:
    """The newest value of each gauge, and of each histogram the sum of all."""
    gauges: dict[str, Sample] = {}
    histograms: dict[str, list[SentPoint]] = {}
    for point in sorted(sent, key=lambda point: point.time):
        name, labels = _name(point), _labels(point)
        series = f"{name} {sorted(labels.items())}"
        if point.kind == "gauge":
            gauges[series] = Sample(name, "gauge", labels, point.value, None)
        else:
            histograms.setdefault(series, []).append(point)
    return [*gauges.values(), *(sample for points in histograms.values() for sample in _added_up(points))]


def number_of_series(sent: Iterable[SentPoint]) -> tuple[int, int]:
    """How many series there are in OTLP, and how many on a page: they must not fall into one."""
    points = list(sent)
    otlp = {f"{p.name} {p.context} {sorted(p.attributes.items())}" for p in points}
    return len(otlp), len({f"{_name(p)} {sorted(_labels(p).items())}" for p in points})


def with_plain_bounds(sample: Sample) -> Sample:
    """The sample with its bound spelled as Python spells it: `1e+06` and `1000000` are the same."""
    if (bound := sample.labels.get("le")) is None:
        return sample
    labels = {**sample.labels, "le": str(float(bound))}
    return Sample(sample.name, sample.kind, labels, sample.value, sample.time_unix_milli)


def _added_up(points: list[SentPoint]) -> Iterator[Sample]:
    name, labels = _name(points[0]), _labels(points[0])
    assert len({point.bounds for point in points}) == 1, f"{name} has other bounds than before"
    per_bucket = [sum(counts) for counts in zip(*(point.counts for point in points), strict=True)]
    for bound, count in zip([*points[0].bounds, float("inf")], accumulate(per_bucket), strict=True):
        yield Sample(f"{name}_bucket", "histogram", {**labels, "le": str(bound)}, count, None)
    yield Sample(f"{name}_sum", "histogram", labels, sum(point.sum for point in points), None)
    yield Sample(f"{name}_count", "histogram", labels, sum(point.count for point in points), None)


def _name(point: SentPoint) -> str:
    name = point.name.replace(".", "_")
    annotation = point.unit.startswith("{") and point.unit.endswith("}")
    suffix = "" if annotation else SUFFIXES[point.unit]
    return name if name.endswith(suffix) else name + suffix


def _labels(point: SentPoint) -> dict[str, str]:
    context = point.context
    both = {**context.resource, **point.attributes}
    return {
        "job": str(context.resource["service.name"]),
        "otel_scope_name": context.scope,
        "otel_scope_version": context.scope_version,
        "otel_scope_schema_url": "",
        **{key.replace(".", "_"): str(value) for key, value in both.items()},
    }
