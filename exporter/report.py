"""What one poll did: written by the cycle, read by the log, the status page, the own metrics and `check`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from exporter.appstore.plan import Step
from exporter.errors import AppStoreError


@dataclass(slots=True)
class CycleReport:
    """What one poll did; the counts are of this poll alone.

    `series` is by metric, `series_by_app` by bundle id. `unchanged` counts answers equal to the last ones:
    nothing about them is converted again, so they add nothing to points, series, `left_out` and `capped`.
    `deferred` is what has to wait for the next poll.
    """

    account: str
    apps: int = 0
    requests: int = 0
    answers: int = 0
    unchanged: int = 0
    points: int = 0
    distributions: int = 0
    events: int = 0
    series: Counter[str] = field(default_factory=Counter)
    series_by_app: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    capped: Counter[str] = field(default_factory=Counter)
    unknown_units: set[str] = field(default_factory=set)
    deferred: list[Step] = field(default_factory=list)
    failures: list[AppStoreError] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def outcome(self) -> str:
        """`ok`, `deferred` (the budget did not suffice) or `failed` (at least one request)."""
        return "failed" if self.failures else "deferred" if self.deferred else "ok"
