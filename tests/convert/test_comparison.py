from __future__ import annotations

import math
import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.convert.comparison import Comparison, Direction, Measured, compare

Version = float | tuple[float, float]


def compared(
    newest: Version | None,
    *earlier: Version,
    worse: Direction | None = "higher",
    min_change: float = 0.05,
    stood: bool = False,
) -> Comparison:
    """Versions as values, or as (value, margin); the newest first."""
    measured = [
        Measured(rank, *version) if isinstance(version, tuple) else Measured(rank, version, None)
        for rank, version in enumerate((newest, *earlier))
        if version is not None
    ]
    return compare(measured, worse, min_change, stood=stood)


@pytest.mark.parametrize(
    ("newest", "earlier", "delta"),
    [
        (110.0, (100.0,), 0.1),
        (110.0, (90.0, 110.0), 0.1),
        (90.0, (100.0, 100.0, 100.0), -0.1),
        (100.0, (100.0,), 0.0),
        (0.0, (100.0,), -1.0),
        (1.5e308, (1.5e308, 1.5e308), 0.0),
        (sys.float_info.max, (sys.float_info.max,) * 3, 0.0),
        (100.0, (), None),
        (None, (100.0, 120.0), None),
        (100.0, (0.0,), None),
        (100.0, (-5.0, -10.0), None),
        (1e300, (1e-300,), None),
    ],
)
def test_delta_is_the_value_over_the_mean_of_the_earlier_ones(
    newest: float | None, earlier: tuple[float, ...], delta: float | None
) -> None:
    """value / mean - 1; none without a newest value, an earlier one, a mean above 0, or a finite ratio."""
    assert compared(newest, *earlier).delta == (None if delta is None else pytest.approx(delta))


@pytest.mark.parametrize(
    ("newest", "earlier", "regressed"),
    [
        (104.9, (100.0,), False),
        (105.0, (100.0,), True),
        (0.105, (0.1,), True),
        (95.0, (100.0,), False),
        (100.0, (0.0,), True),
        (0.0, (0.0,), False),
        (100.0, (-50.0,), False),
        (1e300, (1e-300,), True),
        (200.0, (), False),
        (None, (100.0, 200.0), False),
    ],
)
def test_without_margins_the_least_change_decides(
    newest: float | None, earlier: tuple[float, ...], regressed: bool
) -> None:
    """Five per cent is enough and a little less is not; over a mean of 0 any rise is."""
    assert compared(newest, *earlier).regressed is regressed


@pytest.mark.parametrize(
    ("newest", "earlier", "regressed"),
    [
        ((120.0, 10.0), ((100.0, 10.0),), False),  # the intervals touch
        ((120.1, 10.0), ((100.0, 10.0),), True),
        ((0.3, 0.05), ((0.2, 0.05),), False),  # they touch, in doubles as well
        ((114.9, 10.0), ((100.0, 8.0), (100.0, 6.0)), False),  # √(64 + 36) / 2 = 5
        ((115.1, 10.0), ((100.0, 8.0), (100.0, 6.0)), True),
        ((100.0, 0.0), ((90.0, 0.0),), True),
        ((104.0, 0.0), ((100.0, 0.0),), False),  # beyond the margins, and too small a change
    ],
)
def test_a_regression_is_beyond_both_margins(
    newest: Version, earlier: tuple[Version, ...], regressed: bool
) -> None:
    """More than the margin of the value and that of the mean, √(Σe²) / n, together."""
    assert compared(newest, *earlier).regressed is regressed


@pytest.mark.parametrize(
    ("newest", "earlier", "regressed"),
    [
        (119.0, ((100.0, 10.0),), False),  # 10 for the newest, too
        (121.0, ((100.0, 10.0),), True),
        ((119.0, 10.0), (100.0,), False),  # 10 for the earlier one, too
        ((121.0, 10.0), (100.0,), True),
        (111.9, ((100.0, 4.0), (100.0, 8.0), 100.0), False),  # 8 + √(16 + 64 + 64) / 3 = 12
        (112.1, ((100.0, 4.0), (100.0, 8.0), 100.0), True),
    ],
)
def test_a_missing_margin_is_the_largest_known(
    newest: Version, earlier: tuple[Version, ...], regressed: bool
) -> None:
    """Where some margins are known, a missing one is not taken to be small."""
    assert compared(newest, *earlier).regressed is regressed


@pytest.mark.parametrize("margin", [-1.0, math.inf, math.nan])
def test_a_margin_that_is_none_counts_as_missing(margin: float) -> None:
    """A margin below zero, infinite or not a number tells as much as none."""
    assert compared((110.0, margin), 100.0) == compared(110.0, 100.0)
    assert compared((119.0, margin), (100.0, 10.0)).regressed is False


@pytest.mark.parametrize(
    ("worse", "rise", "fall"), [("higher", True, False), ("lower", False, True), (None, False, False)]
)
def test_only_a_change_for_the_worse_is_a_regression(worse: Direction | None, rise: bool, fall: bool) -> None:
    """Where nobody knows which direction is worse there is a delta and no regression."""
    risen, fallen = compared(150.0, 100.0, worse=worse), compared(50.0, 100.0, worse=worse)
    assert (risen.regressed, fallen.regressed) == (rise, fall)
    assert (risen.delta, fallen.delta) == (0.5, -0.5)


def test_the_least_change_can_be_chosen() -> None:
    """A ratio; 0 leaves the decision to the margins."""
    assert compared(101.0, 100.0, min_change=0.01).regressed
    assert not compared(149.0, 100.0, min_change=0.5).regressed
    assert compared(100.1, 100.0, min_change=0.0).regressed
    assert not compared(100.0, 100.0, min_change=0.0).regressed


def test_a_regression_that_stands_does_not_flap() -> None:
    """Raised once, it stands while the value hovers about the limit; ended below half, it is raised anew."""
    days = (1.048, 1.052, 1.048, 1.053, 1.047, 1.025, 1.0249, 1.048, 1.049, 1.05, 1.03)
    told, stood = [], False
    for newest in days:
        stood = compared((newest, 0.005), (1.0, 0.005), stood=stood).regressed
        told.append(stood)
    assert told == [False, True, True, True, True, True, False, False, False, True, True]


@pytest.mark.parametrize(
    ("newest", "earlier", "regressed"),
    [
        ((110.1, 10.0), ((100.0, 10.0),), True),
        ((110.0, 10.0), ((100.0, 10.0),), False),  # half of the margins, and not beyond it
        ((0.25, 0.05), ((0.2, 0.05),), False),  # the same in doubles
        ((107.6, 10.0), ((100.0, 8.0), (100.0, 6.0)), True),  # (10 + 5) / 2
        ((107.4, 10.0), ((100.0, 8.0), (100.0, 6.0)), False),
        (110.1, ((100.0, 10.0),), True),  # 10 for the newest, too
        ((102.5, 0.0), ((100.0, 0.0),), True),
        ((102.4, 0.0), ((100.0, 0.0),), False),  # beyond the margins, and less than half of the least change
        (0.1025, (0.1,), True),
        ((100.1, 0.0), ((0.0, 0.0),), True),
        ((100.0, 0.0), ((100.0, 0.0),), False),
        ((90.0, 0.0), ((100.0, 0.0),), False),
        (200.0, (), False),
        (None, (100.0, 100.0), False),
        (100.0, (-50.0,), False),
    ],
)
def test_half_of_what_raises_a_regression_keeps_it(
    newest: Version | None, earlier: tuple[Version, ...], regressed: bool
) -> None:
    """Half of both margins together and half of the least change, for the worse, and over what is judged."""
    assert compared(newest, *earlier, stood=True).regressed is regressed


@pytest.mark.parametrize(
    ("worse", "rise", "fall"), [("higher", True, False), ("lower", False, True), (None, False, False)]
)
def test_only_what_is_worse_is_kept(worse: Direction | None, rise: bool, fall: bool) -> None:
    """A change for the better ends a regression, however small it is."""
    assert compared(103.0, 100.0, worse=worse, stood=True).regressed is rise
    assert compared(97.0, 100.0, worse=worse, stood=True).regressed is fall


def test_half_of_the_least_change_is_of_the_chosen_one() -> None:
    """`min_change` is halved whatever it is; with 0, any change for the worse keeps what stands."""
    assert compared(125.0, 100.0, min_change=0.5, stood=True).regressed
    assert not compared(124.0, 100.0, min_change=0.5, stood=True).regressed
    assert compared(100.1, 100.0, min_change=0.0, stood=True).regressed
    assert not compared(100.0, 100.0, min_change=0.0, stood=True).regressed


amounts = st.just(0.0) | st.floats(1e-6, 1e6)
versions = st.tuples(amounts, st.none() | amounts)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(versions, min_size=1, max_size=8),
    st.randoms(use_true_random=False),
    st.integers(-20, 20),
    st.booleans(),
)
def test_neither_order_nor_unit_matters(
    found: list[tuple[float, float | None]], order: random.Random, power: int, stood: bool
) -> None:
    """The same versions in another order, or in a unit 2ⁿ times as large, compare the same."""
    measured = [Measured(rank, *version) for rank, version in enumerate(found)]
    expected = compare(measured, "higher", 0.05, stood=stood)
    scale = 2.0**power
    other = [
        Measured(rank, value * scale, None if margin is None else margin * scale)
        for rank, value, margin in measured
    ]
    order.shuffle(other)
    result = compare(other, "higher", 0.05, stood=stood)
    assert result.regressed == expected.regressed
    assert result.delta == (None if expected.delta is None else pytest.approx(expected.delta))


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.none() | st.floats()), max_size=8
    ),
    st.sampled_from(["higher", "lower", None]),
    st.sampled_from([0.0, 0.05, 1.0]),
)
def test_any_numbers_can_be_compared(
    found: list[tuple[float, float | None]], worse: Direction | None, min_change: float
) -> None:
    """However odd: a finite delta or none, and what raises a regression keeps it, with the same delta."""
    measured = [Measured(rank, *version) for rank, version in enumerate(found)]
    raised = compare(measured, worse, min_change, stood=False)
    kept = compare(measured, worse, min_change, stood=True)
    assert raised.delta is None or math.isfinite(raised.delta)
    assert kept.delta == raised.delta
    assert kept.regressed or not raised.regressed
