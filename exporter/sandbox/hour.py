"""A key's rolling hour, and the burst limit beside it, as App Store Connect counts them."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Literal

_HOUR = 3600.0
_MINUTE = 60.0

Verdict = Literal["granted", "hour used up", "too fast"]


@dataclass
class RollingHour:
    """Counts requests; the caller holds a lock.

    Args:
        hour_limit: requests within any hour.
        minute_limit: requests within any minute; Apple documents no such limit, yet has one.

    A refused request does not count.
    """

    hour_limit: int
    minute_limit: int
    _times: list[float] = field(default_factory=list)

    def take(self, now: float) -> Verdict:
        """Count one request at `now` (Unix seconds), or say why it is refused."""
        del self._times[: bisect_right(self._times, now - _HOUR)]
        if len(self._times) >= self.hour_limit:
            return "hour used up"
        if len(self._times) - bisect_right(self._times, now - _MINUTE) >= self.minute_limit:
            return "too fast"
        self._times.insert(bisect_right(self._times, now), now)
        return "granted"

    def header(self) -> str:
        """The value of `X-Rate-Limit`, as of the last `take`."""
        return f"user-hour-lim:{self.hour_limit};user-hour-rem:{max(self.hour_limit - len(self._times), 0)};"
