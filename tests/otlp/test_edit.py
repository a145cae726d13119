from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from exporter.otlp.edit import data_points, names, restamp_windows, select
from exporter.otlp.encode import Body, encode

NOW = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
SCOPE = InstrumentationScope("perfpower-exporter", "0.1.0")


def gauge(name: str, count: int) -> Metric:
    points = [NumberDataPoint({"n": f"{name}{number}"}, 0, NOW, float(number)) for number in range(count)]
    return Metric(name, "", "s", Gauge(points))


def histogram(name: str, windows: Sequence[tuple[int, int]]) -> Metric:
    points = [
        HistogramDataPoint({"n": f"{name}{index}"}, start, end, 1, 0.5, [1, 0], [1.0], 0.0, 0.0)
        for index, (start, end) in enumerate(windows)
    ]
    return Metric(name, "", "s", Histogram(points, AggregationTemporality.DELTA))


def body_of(*per_resource: Sequence[Metric]) -> Body:
    """A body of as many resources as there are lists of metrics."""
    bodies = [
        body
        for index, metrics in enumerate(per_resource)
        for body in encode(Resource({"r": str(index)}), SCOPE, metrics)
    ]
    return Body(b"".join(body.data for body in bodies), sum(body.points for body in bodies))


def points(body: Body) -> list[tuple[str, str, Any]]:
    """(resource, metric, point) of each point, in order."""
    return [
        (str(resource_metrics.resource), metric.name, point)
        for resource_metrics in ExportMetricsServiceRequest.FromString(body.data).resource_metrics
        for scope_metrics in resource_metrics.scope_metrics
        for metric in scope_metrics.metrics
        for point in data_points(metric)
    ]


bodies = st.lists(
    st.lists(
        st.builds(gauge, st.sampled_from("abc"), st.integers(1, 4))
        | st.builds(histogram, st.sampled_from("xyz"), st.lists(st.just((1, NOW)), min_size=1, max_size=4)),
        min_size=1,
        max_size=3,
    ),
    max_size=3,
).map(lambda lists: body_of(*lists))


@settings(deadline=None, max_examples=100)
@given(bodies, st.sets(st.integers(0, 40)))
def test_select_divides_a_body(body: Body, numbers: set[int]) -> None:
    """What is wanted and what is not are together all points, each where it stood, in order."""
    wanted = select(body, numbers.__contains__)
    others = select(body, lambda number: number not in numbers)
    every = points(body)
    assert points(wanted) == [point for number, point in enumerate(every) if number in numbers]
    assert points(others) == [point for number, point in enumerate(every) if number not in numbers]
    assert (wanted.points, others.points) == (len(points(wanted)), len(points(others)))
    assert wanted.points + others.points == body.points


def test_select_leaves_no_empty_shells() -> None:
    """Metrics, scopes and resources without points go as well."""
    body = body_of([gauge("a", 2), gauge("b", 1)], [gauge("c", 1)])
    request = ExportMetricsServiceRequest.FromString(select(body, lambda number: number == 2).data)
    (resource_metrics,) = request.resource_metrics
    (scope_metrics,) = resource_metrics.scope_metrics
    assert [metric.name for metric in scope_metrics.metrics] == ["b"]
    assert select(body, lambda _: False) == Body(b"", 0)


def test_select_asks_once_for_each_point() -> None:
    """Points are numbered from 0 through the whole request, each asked for once."""
    asked: list[int] = []

    def wanted(number: int) -> bool:
        asked.append(number)
        return True

    select(body_of([gauge("a", 2), histogram("x", [(1, 2)])], [gauge("c", 2)]), wanted)
    assert asked == [0, 1, 2, 3, 4]


moments = st.integers(-9, 9).map(lambda seconds: NOW + seconds * SECOND)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(moments, moments).filter(lambda window: window[0] < window[1]), min_size=1, max_size=6
    ),
    st.dictionaries(moments, moments),
)
def test_the_named_times_move_and_no_other(windows: list[tuple[int, int]], times: dict[int, int]) -> None:
    """Each start and end that is named goes to its new time, once; all else stays where that is a window."""
    body = body_of([histogram("x", windows)])
    moved = restamp_windows(body, times)
    expected = [(times.get(start, start), times.get(end, end)) for start, end in windows]
    expected = [(start if start < end else end - SECOND, end) for start, end in expected]
    assert moved == body_of([histogram("x", expected)])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (body_of([gauge("b", 1), gauge("a", 2)], [histogram("x", [(1, 2)]), gauge("a", 1)]), ["a", "b", "x"]),
        (Body(b"", 0), []),
    ],
)
def test_names_are_sorted_and_unique(body: Body, expected: list[str]) -> None:
    """A message about a body names each of its metrics once."""
    assert names(body) == expected


def test_a_metric_without_data_has_no_points() -> None:
    """A metric of no kind at all is treated as one without points."""
    request = ExportMetricsServiceRequest()
    request.resource_metrics.add().scope_metrics.add().metrics.add(name="bare")
    bare = Body(request.SerializeToString(), 0)
    assert names(bare) == ["bare"]
    assert select(bare, lambda _: True) == Body(b"", 0)
