"""The benchmark still measures what it says."""

from __future__ import annotations

import pytest

from bench.payload import POINTS_PER_APP
from bench.work import WORK


@pytest.mark.parametrize("name", WORK)
def test_every_work_makes_the_same_points(name: str) -> None:
    """A ratio means something only if both sides made the same number of points."""
    points, seconds = WORK[name](1)
    assert points == pytest.approx(POINTS_PER_APP, rel=0.02)
    assert points == WORK["plain"](1)[0]
    assert seconds > 0
