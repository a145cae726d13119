"""The benchmark still measures what it says."""

from __future__ import annotations

import pytest

from bench.payload import POINTS_PER_APP
from bench.requests import request_counts
from bench.work import LOG_WORK, WORK


@pytest.mark.parametrize("name", WORK)
def test_every_work_makes_the_same_points(name: str) -> None:
    """A ratio means something only if both sides made the same number of points."""
    points, seconds = WORK[name](1)
    assert points == pytest.approx(POINTS_PER_APP, rel=0.02)
    assert points == WORK["plain"](1)[0]
    assert seconds > 0


@pytest.mark.parametrize("name", LOG_WORK)
def test_every_log_becomes_an_event(name: str) -> None:
    """Logs a second mean something only if none was left out."""
    logs, seconds = LOG_WORK[name](1)
    assert logs == (10 if name == "logs" else 1)
    assert seconds > 0


def test_a_poll_costs_less_than_the_crawl() -> None:
    """The first poll asks for what the crawl asks for; when nothing changed, no log is asked for."""
    counts = request_counts()
    assert counts.first == pytest.approx(counts.plain, rel=0.1)
    assert counts.steady < counts.next_day < counts.plain / 2
