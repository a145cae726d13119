from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import AggregationTemporality, Histogram, HistogramDataPoint, Metric

from exporter.convert.distributions import (
    BOUNDS,
    FIRST_WINDOW,
    SECOND,
    Distribution,
    Window,
    bucket_bounds,
    chained,
    distribution,
    family_of,
    is_family,
    owed,
)

NOW = 1_700_000_000_000_000_000
finite = st.floats(allow_nan=False, allow_infinity=False)


def spread(
    values: Sequence[float], version: str = "1.0", name: str = "appstore.launch.time.by_device"
) -> Distribution:
    attributes = {"device": "all_iphones", "platform": "iOS", "version": version}
    return distribution(name, "s", "…", attributes, values, (1.0, 2.0))


def points_of(metrics: Sequence[Metric]) -> list[HistogramDataPoint]:
    return [cast(HistogramDataPoint, point) for metric in metrics for point in metric.data.data_points]


@settings(deadline=None)
@given(
    st.lists(finite, min_size=1, max_size=30),
    st.lists(finite, max_size=40),
    st.sampled_from(["s", "By", "?"]),
)
def test_a_distribution_is_a_valid_histogram(values: list[float], goals: list[float], unit: str) -> None:
    """Counts add up, bounds ascend, 30 buckets at the most, the sum is exact, min and max are the ends."""
    bounds = bucket_bounds(goals, unit)
    item = distribution("n", unit, "", {}, values, bounds)
    assert len(item.counts) == len(bounds) + 1 <= 30
    assert all(lower < upper for lower, upper in pairwise(bounds))
    for bucket, (lower, upper) in enumerate(pairwise([-math.inf, *bounds, math.inf])):
        assert item.counts[bucket] == sum(lower < value <= upper for value in values)
    assert (item.minimum, item.maximum) == (min(values), max(values))
    if max(map(abs, values)) < 1e300:
        assert item.total == math.fsum(values)
    assert math.isfinite(item.total)


@pytest.mark.parametrize(
    ("values", "total"),
    [
        ([1e308] * 3, sys.float_info.max),
        ([-1e308] * 3, -sys.float_info.max),
        ([1e308, 1e308, -1e308], 1e308),
    ],
)
def test_a_sum_beyond_all_doubles_stays_a_number(values: list[float], total: float) -> None:
    """Numbers too large to add up do not cost the answer; one that only passes through there is exact."""
    assert spread(values).total == total


@pytest.mark.parametrize("unit", [*BOUNDS, "", "{frames}"])
def test_the_tables_of_bounds_are_valid(unit: str) -> None:
    """Each fixed table ascends strictly and makes 30 buckets at the most."""
    bounds = bucket_bounds([], unit)
    assert 1 <= len(bounds) <= 29
    assert all(lower < upper for lower, upper in pairwise(bounds))


def test_goal_bands_come_before_the_table() -> None:
    """Apple's goal bands are the bounds where given: sorted, each once, the finite ones, at most 29."""
    assert bucket_bounds([1.0, 0.5, 1.0, math.inf], "s") == (0.5, 1.0)
    assert bucket_bounds([math.inf], "s") == BOUNDS["s"]
    assert bucket_bounds(map(float, range(1, 50)), "s") == tuple(map(float, range(1, 30)))


def test_min_and_max_are_set_only_where_they_differ() -> None:
    """A histogram whose minimum equals its maximum is dropped by Splunk, so it bears neither."""
    same, different = spread([1.5, 1.5]).point(1, 2), spread([1.5, 0.5]).point(1, 2)
    assert [same.min, same.max] == [None, None]
    assert (same.sum, same.count) == (3.0, 2)
    assert (different.min, different.max, different.sum, different.count) == (0.5, 1.5, 2.0, 2)
    assert (different.bucket_counts, different.explicit_bounds) == ((1, 1, 0), (1.0, 2.0))


def test_what_makes_a_series_and_what_makes_its_content() -> None:
    """Identity is name, unit and attributes in any order; content is the numbers alone."""
    one = spread([1.0])
    turned = distribution(
        one.name, one.unit, "", dict(reversed(list(one.attributes.items()))), [2.0], one.bounds
    )
    assert one.identity == turned.identity
    assert one.content != turned.content
    assert one.content == spread([1.0], version="2.0").content
    assert one.identity != spread([1.0], version="2.0").identity


def test_an_unchanged_distribution_is_not_owed() -> None:
    """A distribution is sent once, and again only when its content changed."""
    metrics, windows = owed([spread([1.0]), spread([1.0], "2.0")], {}, NOW)
    assert len(points_of(metrics)) == len(windows) == 2
    assert owed([spread([1.0]), spread([1.0], "2.0")], windows, NOW + 1) == ([], {})
    metrics, changed = owed([spread([1.0]), spread([3.0], "2.0")], windows, NOW + 9 * SECOND)
    (point,) = points_of(metrics)
    assert (point.start_time_unix_nano, point.time_unix_nano, point.sum) == (NOW, NOW + 9 * SECOND, 3.0)
    assert changed == {spread([3.0], "2.0").identity: Window(spread([3.0]).content, NOW + 9 * SECOND)}


def test_owed_metrics_are_delta_histograms_one_a_name() -> None:
    """Points of one name are in one metric, with delta temporality; the first window is a second long."""
    metrics, _ = owed([spread([1.0], name="b"), spread([1.0], name="a"), spread([1.0], "2.0", "b")], {}, NOW)
    assert [(metric.name, len(metric.data.data_points)) for metric in metrics] == [("a", 1), ("b", 2)]
    for metric in metrics:
        assert isinstance(metric.data, Histogram)
        assert metric.data.aggregation_temporality == AggregationTemporality.DELTA
    assert {point.start_time_unix_nano for point in points_of(metrics)} == {NOW - FIRST_WINDOW}


@pytest.mark.parametrize(
    ("later", "end"),
    [
        (-3600 * SECOND, NOW + SECOND),
        (0, NOW + SECOND),
        (SECOND - 1, NOW + SECOND),
        (SECOND, NOW + SECOND),
        (SECOND + 1, NOW + SECOND + 1),
        (3600 * SECOND, NOW + 3600 * SECOND),
    ],
)
def test_windows_end_a_second_apart_at_least(later: int, end: int) -> None:
    """Datadog keeps one value per series and second: a window ends a second after the one before, even
    where the clock went back; a series that is new ends with the others, and begins a second before."""
    _, windows = chained([spread([1.0])], {}, NOW)
    metrics, moved = chained([spread([1.0]), spread([1.0], "2.0")], windows, NOW + later)
    assert [(point.start_time_unix_nano, point.time_unix_nano) for point in points_of(metrics)] == [
        (NOW, end),
        (end - FIRST_WINDOW, end),
    ]
    assert {window.ended_at for window in moved.values()} == {end}


def test_chained_sends_what_did_not_change() -> None:
    """Observations are counted in one window only: the same content again is another window's."""
    _, windows = chained([spread([1.0])], {}, NOW)
    metrics, again = chained([spread([1.0])], windows, NOW + 60 * SECOND)
    assert [point.sum for point in points_of(metrics)] == [1.0]
    assert again == {spread([1.0]).identity: Window(spread([1.0]).content, NOW + 60 * SECOND)}
    assert chained([], windows, NOW) == ([], {})


def test_a_series_that_ended_in_the_future_holds_back_only_those_beside_it() -> None:
    """All end together, so that one request holds them; windows of series that are not sent do not count."""
    _, ahead = chained([spread([1.0], "9.0")], {}, NOW + 3600 * SECOND)
    metrics, _ = chained([spread([1.0])], ahead, NOW)
    assert [point.time_unix_nano for point in points_of(metrics)] == [NOW]
    metrics, _ = chained([spread([1.0]), spread([1.0], "9.0")], ahead, NOW)
    assert {point.time_unix_nano for point in points_of(metrics)} == {NOW + 3601 * SECOND}


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(-(10**12), 10**12), st.integers(-2, 2), st.integers(-SECOND, SECOND)),
            st.dictionaries(st.sampled_from(["1.0", "2.0", "3.0"]), st.sampled_from([1.0, 2.0])),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_windows_follow_each_other(polls: list[tuple[int, dict[str, float], bool]]) -> None:
    """Whatever the clock does, the windows of a series touch, never overlap and end a second apart at least,
    those of one poll together, whether all is sent or only what changed."""
    windows: dict[bytes, Window] = {}
    sent: dict[str, tuple[float, int]] = {}
    for moved, values, everything in polls:
        items = [spread([value], version) for version, value in values.items()]
        metrics, new = (chained if everything else owed)(items, windows, NOW + moved)
        windows.update(new)
        points = points_of(metrics)
        assert len({point.time_unix_nano for point in points}) <= 1
        due = {version for version, value in values.items() if sent.get(version, (None, 0))[0] != value}
        due |= set(values) if everything else set()
        assert {str((point.attributes or {})["version"]) for point in points} == due
        for point in points:
            version = str((point.attributes or {})["version"])
            start = sent[version][1] if version in sent else point.time_unix_nano - FIRST_WINDOW
            assert start == point.start_time_unix_nano <= point.time_unix_nano - SECOND
            assert point.time_unix_nano >= NOW + moved
            sent[version] = (point.sum, point.time_unix_nano)


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("iPhone14,2", "all_iphones"),
        ("iPad13,1", "all_ipads"),
        ("iPod9,1", "all_ipods"),
        ("Mac15,3", "all_macs"),
        ("MacBookPro18,3", "all_macs"),
        ("MacBookAir10,1", "all_macs"),
        ("Macmini9,1", "all_macs"),
        ("MacPro7,1", "all_macs"),
        ("iMac21,1", "all_macs"),
        ("AppleTV14,1", "all_appletvs"),
        ("Robot1,1", "all_robots"),
        ("1234", "all_others"),
        ("ｉPhone", "all_others"),
        ("x" * 200, "all_" + "x" * 100 + "s"),
    ],
)
def test_models_belong_to_families(model: str, family: str) -> None:
    """A model belongs to the family that its leading letters name; all kinds of Mac are one family."""
    assert family_of(model) == family
    assert is_family(family)
    assert not is_family(model)


def test_the_order_of_observations_does_not_matter() -> None:
    """The same values in another order are the same content."""
    values = [0.1 * number for number in range(1, 40)]
    shuffled = random.Random(1).sample(values, len(values))
    assert spread(values).content == spread(shuffled).content
