from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from exporter.otlp.encode import Body, can_be_restamped, encode, restamp

NOW = 1_700_000_000_000_000_000
LATER = NOW + 3_600_000_000_123
RESOURCE = Resource({"service.name": "com.example.notes", "appstore.app.id": "1234567890"})
SCOPE = InstrumentationScope("perfpower-exporter", "0.1.0")

utf8 = st.text(st.characters(codec="utf-8"), max_size=12)
texts = st.dictionaries(utf8.filter(bool), utf8, max_size=5)
scalars = st.one_of(utf8, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
attributes_of_any_type = st.dictionaries(
    utf8.filter(bool),
    st.one_of(scalars, st.lists(utf8, max_size=3), st.lists(st.booleans(), max_size=3)),
    max_size=5,
)
values = st.one_of(st.floats(), st.integers(-(2**63), 2**63 - 1))
times = st.integers(0, 2**64 - 1)


def gauges(
    attributes: st.SearchStrategy[Any], at: st.SearchStrategy[int] = times
) -> st.SearchStrategy[Metric]:
    points = st.builds(NumberDataPoint, attributes, st.just(0), at, values)
    data = st.builds(Gauge, st.lists(points, min_size=1, max_size=6))
    return st.builds(Metric, name=utf8, description=utf8, unit=utf8, data=data)


@st.composite
def histogram_points(draw: st.DrawFn) -> HistogramDataPoint:
    bounds = sorted(draw(st.sets(st.floats(allow_nan=False, allow_infinity=False), max_size=5)))
    counts = [draw(st.integers(0, 9)) for _ in range(len(bounds) + 1)]
    ends: Any = draw(st.sampled_from([(None, None), (1.0, 2.0)]))
    return HistogramDataPoint(
        attributes=draw(texts),
        start_time_unix_nano=draw(times),
        time_unix_nano=draw(times),
        count=sum(counts),
        sum=draw(st.floats(allow_nan=False)),
        bucket_counts=counts,
        explicit_bounds=bounds,
        min=ends[0],
        max=ends[1],
    )


histograms = st.builds(
    Metric,
    name=utf8,
    description=utf8,
    unit=utf8,
    data=st.builds(
        Histogram,
        st.lists(histogram_points(), min_size=1, max_size=6),
        st.just(AggregationTemporality.DELTA),
    ),
)
sums = st.builds(
    Metric,
    name=utf8,
    description=utf8,
    unit=utf8,
    data=st.builds(
        Sum,
        st.lists(st.builds(NumberDataPoint, texts, times, times, values), min_size=1, max_size=3),
        st.just(AggregationTemporality.DELTA),
        st.booleans(),
    ),
)


def official(metrics: Sequence[Metric], resource: Resource = RESOURCE) -> ExportMetricsServiceRequest:
    scope_metrics = ScopeMetrics(SCOPE, metrics, "")
    return encode_metrics(MetricsData([ResourceMetrics(resource, [scope_metrics], "")]))


def request(data: bytes) -> ExportMetricsServiceRequest:
    return ExportMetricsServiceRequest.FromString(data)


def single_points(data: bytes) -> list[bytes]:
    """Each point as the bytes of a request that holds it alone: what it says and where it stands."""
    found = []
    for resource_metrics in request(data).resource_metrics:
        for scope_metrics in resource_metrics.scope_metrics:
            for metric in scope_metrics.metrics:
                kind = metric.WhichOneof("data")
                assert kind is not None
                for index in range(len(getattr(metric, kind).data_points)):
                    alone = type(metric)()
                    alone.CopyFrom(metric)
                    points = getattr(alone, kind).data_points
                    chosen = points[index]
                    del points[:]
                    points.append(chosen)
                    envelope = (
                        resource_metrics.resource.SerializeToString()
                        + scope_metrics.scope.SerializeToString()
                    )
                    found.append(envelope + alone.SerializeToString(deterministic=True))
    return found


@settings(deadline=None, max_examples=200)
@given(st.lists(gauges(texts), min_size=1, max_size=5), texts)
def test_gauges_are_byte_for_byte_as_the_official_encoder_makes_them(
    metrics: list[Metric], resource: dict[str, str]
) -> None:
    """What is written by hand is what the official encoder would have sent."""
    (body,) = encode(Resource(resource), SCOPE, metrics)
    assert body.data == official(metrics, Resource(resource)).SerializeToString()
    assert body.points == sum(len(metric.data.data_points) for metric in metrics)


@settings(deadline=None, max_examples=150)
@given(st.lists(gauges(attributes_of_any_type) | histograms | sums, min_size=1, max_size=4))
def test_metrics_of_any_kind_say_what_the_official_encoder_says(metrics: list[Metric]) -> None:
    """Attributes of all types, histograms and sums: the same request after decoding."""
    (body,) = encode(RESOURCE, SCOPE, metrics)
    assert request(body.data) == official(metrics)
    assert body.points == sum(len(metric.data.data_points) for metric in metrics)


@settings(deadline=None, max_examples=150)
@given(st.lists(gauges(texts) | histograms, min_size=1, max_size=6), st.integers(0, 1500))
def test_split_bodies_hold_the_same_points(metrics: list[Metric], most_bytes: int) -> None:
    """Joined they are one request of the same points; only a body of one point exceeds the size."""
    bodies = encode(RESOURCE, SCOPE, metrics, most_bytes=most_bytes)
    assert single_points(b"".join(body.data for body in bodies)) == single_points(
        official(metrics).SerializeToString()
    )
    for body in bodies:
        assert body.points == len(single_points(body.data))
        assert len(body.data) <= most_bytes or body.points == 1


@pytest.mark.parametrize("kind", ["gauge", "histogram"])
def test_a_body_is_filled_before_the_next_is_begun(kind: str) -> None:
    """A thousand points of one metric make few bodies, not a thousand, none of them above the size."""
    many = [_gauge_point({"version": str(number)}) for number in range(1000)]
    data: Any = Gauge(many)
    if kind == "histogram":
        points = [
            HistogramDataPoint({"version": str(number)}, 1, 2, 1, 1.0, [1, 0], [1.0], 0.0, 2.0)
            for number in range(1000)
        ]
        data = Histogram(points, AggregationTemporality.DELTA)
    bodies = encode(RESOURCE, SCOPE, [Metric("appstore.launch.time", "", "s", data)], most_bytes=10_000)
    whole = sum(len(body.data) for body in bodies)
    assert sum(body.points for body in bodies) == 1000
    assert max(len(body.data) for body in bodies) <= 10_000
    assert len(bodies) <= 2 * -(-whole // 10_000)


@pytest.mark.parametrize("metrics", [[], [Metric("empty", "", "", Gauge([]))]])
def test_nothing_makes_no_body(metrics: list[Metric]) -> None:
    """No points, no bodies."""
    assert encode(RESOURCE, SCOPE, metrics) == []


@pytest.mark.parametrize("attributes", [{}, None])
def test_a_point_may_have_no_attributes(attributes: dict[str, str] | None) -> None:
    """A point without attributes is encoded as the official encoder does it."""
    metric = Metric("a.b", "", "", Gauge([NumberDataPoint(attributes, 0, NOW, 1.0)]))
    (body,) = encode(RESOURCE, SCOPE, [metric])
    assert body.data == official([metric]).SerializeToString()


def test_attributes_that_are_equal_but_not_the_same_stay_apart() -> None:
    """1, 1.0 and True are equal in Python and three things on the wire."""
    kinds: list[Any] = [1, 1.0, True, "1"]
    metric = Metric("a.b", "", "", Gauge([NumberDataPoint({"k": kind}, 0, NOW, 1.0) for kind in kinds]))
    (body,) = encode(RESOURCE, SCOPE, [metric])
    assert request(body.data) == official([metric])


class Seconds(float):
    """A number that is no plain float."""


def test_a_subclass_of_float_is_a_double() -> None:
    """A float of another class is encoded as the official encoder does it."""
    metric = Metric("a.b", "", "", Gauge([_gauge_point({}, Seconds(1.5))]))
    (body,) = encode(RESOURCE, SCOPE, [metric])
    assert body.data == official([metric]).SerializeToString()


def test_large_points_have_long_lengths() -> None:
    """Lengths beyond those kept in a table are encoded as well."""
    metric = Metric(
        "a.b", "", "", Gauge([_gauge_point({"k": "x" * size}) for size in (1, 990, 1100, 20_000)])
    )
    (body,) = encode(RESOURCE, SCOPE, [metric])
    assert body.data == official([metric]).SerializeToString()


@settings(deadline=None, max_examples=150)
@given(
    st.lists(gauges(texts, at=st.just(NOW)), min_size=1, max_size=4),
    st.integers(1, 2**64 - 1),
    st.integers(60, 4000),
)
def test_restamped_is_as_encoded_at_the_other_time(metrics: list[Metric], new: int, most_bytes: int) -> None:
    """Gauges of one time moved to another are what encoding them with that time gives."""
    moved = [
        Metric(
            metric.name,
            metric.description,
            metric.unit,
            Gauge([NumberDataPoint(p.attributes, 0, new, p.value) for p in metric.data.data_points]),  # type: ignore[union-attr]
        )
        for metric in metrics
    ]
    bodies = encode(RESOURCE, SCOPE, metrics, most_bytes=most_bytes)
    assert all(can_be_restamped(body, NOW) for body in bodies)
    assert [restamp(body, NOW, new) for body in bodies] == encode(
        RESOURCE, SCOPE, moved, most_bytes=most_bytes
    )


def _gauge_point(attributes: dict[str, str], value: float = 1.0, time: int = NOW) -> NumberDataPoint:
    return NumberDataPoint(attributes, 0, time, value)


ASCII_TIME = int.from_bytes(b"=\x7f1234ab", "little")  # a time whose bytes are text
IN_2102 = int.from_bytes(b"abcdefg:", "little")  # a time whose last byte is also the tag of an attribute


@pytest.mark.parametrize(
    ("point", "time"),
    [
        (_gauge_point({"k": "a\x19=\x7f1234ab"}, time=ASCII_TIME), ASCII_TIME),
        (_gauge_point({"\x19=\x7f1234ab": "v"}, time=ASCII_TIME), ASCII_TIME),
        (NumberDataPoint({"k": "v"}, 0, IN_2102, int.from_bytes(b"\x19abcdefg", "little")), IN_2102),
        (_gauge_point({"k": "v"}, time=LATER), NOW),
    ],
    ids=["in a value", "in a key", "in a number", "not at all"],
)
def test_a_time_that_stands_elsewhere_cannot_be_restamped(point: NumberDataPoint, time: int) -> None:
    """Where the bytes of the time are part of something else, or missing, replacing them would do harm."""
    (body,) = encode(RESOURCE, SCOPE, [Metric("a.b", "", "", Gauge([point]))])
    assert not can_be_restamped(body, time)


def test_a_time_in_the_resource_cannot_be_restamped() -> None:
    """The resource counts as elsewhere, too."""
    resource = Resource({"service.name": "\x19=\x7f1234ab"})
    (body,) = encode(resource, SCOPE, [Metric("a.b", "", "", Gauge([_gauge_point({}, time=ASCII_TIME)]))])
    assert not can_be_restamped(body, ASCII_TIME)


def test_restamping_keeps_the_number_of_points() -> None:
    """A body is its data and how many points it holds; only the data changes."""
    (body,) = encode(
        RESOURCE, SCOPE, [Metric("a.b", "", "", Gauge([_gauge_point({}), _gauge_point({"k": "v"})]))]
    )
    moved = restamp(body, NOW, LATER)
    assert isinstance(moved, Body)
    assert (moved.points, len(moved.data)) == (2, len(body.data))
    assert can_be_restamped(moved, LATER)
