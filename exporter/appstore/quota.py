"""How many requests we may send, and how fast: from `X-Rate-Limit` to a budget and a pace.

Pure: time is an argument, in seconds since the epoch. Source of the rules: Apple, "Identifying rate
limits": a rolling hour for each API key, told in the header of every answer.
"""

from __future__ import annotations

import math
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from exporter.errors import ConfigError, OverBudget

__all__ = ["Quota", "RateLimit", "parse_rate_limit"]

ASSUMED_LIMIT = 3500  # requests an hour, until an answer has told us

_HOUR = 3600.0
_MINUTE = 60.0
_SHORTEST_INTERVAL = 0.2  # seconds: an undocumented burst limit answers 429 to a faster pace
_CLOCK_STEP = 300.0  # seconds: a clock that goes back further than this was set, and does not just jitter
_FIELD = re.compile(r"(?<![\w-])(user-(?:hour|minute)-(?:lim|rem)) *: *(-?[0-9]{1,9})(?![0-9])", re.I | re.A)


@dataclass(frozen=True)
class RateLimit:
    """What one answer said: requests allowed and left, in the rolling hour and, sometimes, the minute."""

    limit: int
    remaining: int
    minute_limit: int | None = None
    minute_remaining: int | None = None


def parse_rate_limit(header: str | None) -> RateLimit | None:
    """Read `user-hour-lim:3500;user-hour-rem:500;`; None if it does not tell both numbers of the hour.

    Numbers below zero count as zero; a limit of zero cannot be meant and counts as not told.
    """
    told = {name.lower(): max(0, int(number)) for name, number in _FIELD.findall(header or "")}
    limit, remaining = told.get("user-hour-lim"), told.get("user-hour-rem")
    if not limit or remaining is None:
        return None
    return RateLimit(limit, remaining, told.get("user-minute-lim") or None, told.get("user-minute-rem"))


class Quota:
    """Our part of one API key's hour; shared by everything that uses the key, safe between threads.

    Args:
        share: the part of the hour that is ours, above 0 and up to 1.
        used: when our own requests of the last hour started; restored after a restart.
        on_use: called with the start of each request taken, before it is sent, so that it can be kept and
            the use survives a kill. If it raises, the request is not to be sent; it stays counted.

    Raises:
        ConfigError: the share is not above 0 and up to 1.
    """

    def __init__(
        self,
        share: float,
        used: Iterable[float] = (),
        on_use: Callable[[float], None] = lambda _start: None,
    ) -> None:
        if not 0 < share <= 1:
            raise ConfigError(
                f"the share of the key's hour is {share:g}", remedy="Set it above 0 and up to 1, such as 0.5."
            )
        self._share = share
        self._on_use = on_use
        self._lock = threading.Lock()
        self._used = deque(sorted(start for start in used if math.isfinite(start)))
        self._now = self._used[-1] if self._used else -math.inf
        self._hold = -math.inf
        self._hour: tuple[float, RateLimit] | None = None  # when it was seen, and what
        self._unused_by_others = 0  # requests of the hour, likewise
        self._minute: tuple[float, RateLimit] | None = None  # only some answers tell the minute's numbers

    @property
    def limit(self) -> int:
        """Requests the key may make in an hour: as last seen, else assumed."""
        return self._hour[1].limit if self._hour else ASSUMED_LIMIT

    @property
    def remaining(self) -> int | None:
        """Requests the key had left in its hour when last seen; None before the first answer."""
        return self._hour[1].remaining if self._hour else None

    def used(self, now: float) -> int:
        """Return how many requests we took in the hour up to now."""
        with self._lock:
            self._turn_to(now)
            return len(self._used)

    def allowance(self, now: float) -> int:
        """Return how many requests we may still start.

        It is our share of what others did not use, less what we used in the rolling hour. A key is mostly
        shared with CI: when that has used most of the hour, we take no more than our share of the rest. What
        others did not use is what the key had left when last seen and what we had used by then; it is taken
        to be the whole limit before the first answer, and again an hour after the last.
        """
        with self._lock:
            self._turn_to(now)
            return self._allowance(now)

    def take(self, now: float) -> float:
        """Reserve one request and return the seconds to wait before sending it.

        At most five a second; slower if the minute's limit, with our share applied, says so; and nothing
        before a `hold` has passed.

        Raises:
            OverBudget: the allowance is 0; nothing was reserved.
        """
        with self._lock:
            self._turn_to(now)
            if self._allowance(now) == 0:
                raise self._over_budget(now)
            previous = self._used[-1] if self._used else -math.inf
            start = max(now, previous + self._interval(now), self._hold)
            self._used.append(start)
        self._on_use(start)
        return start - now

    def saw(self, header: str | None, now: float) -> None:
        """Take note of an answer's `X-Rate-Limit`; one that is missing or garbage changes nothing."""
        told = parse_rate_limit(header)
        if told is None:
            return
        with self._lock:
            self._turn_to(now)
            self._hour = (now, told)
            self._unused_by_others = min(told.limit, told.remaining + len(self._used))
            if told.minute_limit is not None:
                self._minute = (now, told)

    def hold(self, until: float) -> None:
        """Let nobody with this key send before `until`; an earlier, longer hold stays."""
        with self._lock:
            self._hold = max(self._hold, until)

    def held(self, now: float) -> float:
        """Return the seconds left of a `hold`, 0 if there is none."""
        with self._lock:
            self._turn_to(now)
            return max(0.0, self._hold - now)

    def _turn_to(self, now: float) -> None:
        """Drop what is older than an hour; after a clock was set back, move everything back with it."""
        back = self._now - now
        self._now = now
        if back > _CLOCK_STEP:
            # Times in the future would otherwise block the key until the clock has caught up with them.
            self._used = deque(start - back for start in self._used)
            self._hold -= back
            self._hour = (self._hour[0] - back, self._hour[1]) if self._hour else None
            self._minute = (self._minute[0] - back, self._minute[1]) if self._minute else None
        while self._used and self._used[0] <= now - _HOUR:
            self._used.popleft()

    def _allowance(self, now: float) -> int:
        return max(0, math.floor(self._share * self._ours_and_unused(now)) - len(self._used))

    def _ours_and_unused(self, now: float) -> int:
        """Requests of the rolling hour that no other user of the key has used."""
        if self._hour is None or now - self._hour[0] > _HOUR:
            return self.limit
        return self._unused_by_others

    def _interval(self, now: float) -> float:
        """Return the seconds between two starts."""
        if self._minute is None or now - self._minute[0] > _HOUR:
            return _SHORTEST_INTERVAL
        seen_at, told = self._minute
        allowed = told.minute_limit or 0
        if told.minute_remaining is not None and now - seen_at <= _MINUTE:
            allowed = min(allowed, told.minute_remaining)
        return max(_SHORTEST_INTERVAL, _MINUTE / max(1.0, self._share * allowed))

    def _over_budget(self, now: float) -> OverBudget:
        left = "unknown" if self.remaining is None else self.remaining
        return OverBudget(
            f"our share of the key's hour is used up: we sent {len(self._used)} requests in the last hour, "
            f"the key's limit is {self.limit}, left when last seen: {left}",
            remedy=f"{self._next_free(now)} To allow more, raise limits.key_share (now {self._share:g}).",
        )

    def _next_free(self, now: float) -> str:
        own = math.floor(self._share * self.limit)
        if own == 0:
            return f"The share is less than one of {self.limit} requests an hour: none will become free."
        free = self._room_at(own, now)
        if self._hour is not None:
            ours = math.floor(self._share * self._unused_by_others)
            forgotten = max(free, self._hour[0] + _HOUR)  # then the key counts as unused by others
            free = min(forgotten, self._room_at(ours, now)) if ours else forgotten
        clock = datetime.fromtimestamp(free, UTC).strftime("%H:%M:%S")
        return f"The next request becomes free at {clock} UTC, in {math.ceil((free - now) / _MINUTE)} min."

    def _room_at(self, allowed: int, now: float) -> float:
        """When fewer than `allowed` requests, 1 or more, of the last hour will be ours."""
        if len(self._used) < allowed:
            return now
        return self._used[len(self._used) - allowed] + _HOUR
