"""When a request may be sent: at the key's pace, after its holds, and longer after each failure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from exporter.appstore.quota import Quota
from exporter.appstore.reading import Deadline
from exporter.appstore.refusals import Failure
from exporter.errors import RateLimited

__all__ = ["Waits"]

_MOST_ATTEMPTS = 5
_LONGEST_HOLD = 3600.0  # the rate limit is a rolling hour, so nothing can last longer


class Waits:
    """Sleeps before each attempt as long as is needed, or raises at once when the deadline lies before that.

    Args:
        quota: shared by all clients of the same key.
        clock: seconds since the epoch.
        sleep: waits for a number of seconds.
        random: a number from 0 up to 1.
    """

    def __init__(
        self,
        quota: Quota,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        random: Callable[[], float],
    ) -> None:
        self._quota = quota
        self._clock = clock
        self._sleep = sleep
        self._random = random

    def for_turn(self, deadline: Deadline) -> None:
        """Take one request out of the quota, and sleep until it may be sent.

        Raises:
            OverBudget: our share is used up; nothing was taken.
            RateLimited: the turn comes after the deadline.
        """
        self._refuse_longer(deadline, self._quota.held(self._clock()))
        self._pause(deadline, self._quota.take(self._clock()))
        # An answer to somebody else's request may have brought a hold meanwhile.
        self._pause(deadline, self._quota.held(self._clock()))

    def after(self, failure: Failure, failures: int, deadline: Deadline) -> None:
        """Sleep after a failure, the `failures`-th of its call; after a 429 all with the same key wait.

        Raises:
            AppStoreError: there is to be no further attempt; it is of the failure's kind.
        """
        delay = failure.retry_after or 2.0 ** (failures - 1) * (1 - self._random() / 2)
        if failure.kind is RateLimited:
            self._quota.hold(self._clock() + min(delay, _LONGEST_HOLD))
        if failures >= _MOST_ATTEMPTS:
            why = f"Tried {failures} times; the next poll asks again."
        elif delay < deadline.left():
            self._sleep(delay)
            return
        elif failure.retry_after:
            why = f"{self._until(delay)} The next poll asks again."
        else:
            why = (
                f"One request may take {deadline.seconds:g} s with its repetitions, which leaves no time. "
                "The next poll asks again."
            )
        raise failure.kind(failure.what, remedy=why)

    def _pause(self, deadline: Deadline, delay: float) -> None:
        self._refuse_longer(deadline, delay)
        if delay > 0:
            self._sleep(delay)

    def _refuse_longer(self, deadline: Deadline, delay: float) -> None:
        if delay > max(0.0, deadline.left()):
            raise RateLimited(
                "the key has to wait for its rate limit",
                remedy=f"{self._until(delay)} Nothing was sent; the next poll asks again.",
            )

    def _until(self, delay: float) -> str:
        until = datetime.fromtimestamp(self._clock() + delay, UTC)
        return f"It asks to wait until {until:%Y-%m-%d %H:%M:%S} UTC ({delay:.0f} s)."
