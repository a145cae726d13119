"""Which requests a poll makes, in which order, within which budget. Pure.

An app's own metrics come before those of its builds, and the app that was asked longest ago before the
others, so that a budget too small for all of them starves none for ever. Builds take turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from zlib import crc32

from exporter.appstore.jsonapi import App


@dataclass(frozen=True, slots=True)
class Step:
    """Something to ask about one app: its metrics, or those of its newest builds; `cost` in requests."""

    what: Literal["metrics", "builds"]
    app: App
    cost: int

    def __str__(self) -> str:
        return f"{self.what} of {self.app.bundle_id}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, in this order, and what has to wait for the next poll."""

    steps: tuple[Step, ...]
    deferred: tuple[Step, ...]

    @property
    def cost(self) -> int:
        """How many requests `steps` take, without retries."""
        return sum(step.cost for step in self.steps)


def plan(apps: Iterable[App], builds: int, last_asked: Mapping[str, float], allowance: int) -> Plan:
    """Plan one poll of an account.

    Args:
        apps: the apps to ask about.
        builds: of how many builds of each app the metrics are wanted.
        last_asked: app id → when it was last asked about, whatever came of it; never: missing.
        allowance: how many requests the key's hour leaves us.
    """
    longest_ago_first = sorted(apps, key=lambda app: (last_asked.get(app.id, 0), app.id))
    wanted = [Step("metrics", app, 1) for app in longest_ago_first]
    if builds:
        wanted += [Step("builds", app, 1 + builds) for app in _by_turns(longest_ago_first, last_asked)]
    steps: list[Step] = []
    deferred: list[Step] = []
    for step in wanted:
        fits = not deferred and step.cost <= allowance
        (steps if fits else deferred).append(step)
        allowance -= step.cost if fits else 0
    return Plan(tuple(steps), tuple(deferred))


def _by_turns(apps: Sequence[App], last_asked: Mapping[str, float]) -> list[App]:
    """The same apps, beginning at another one in each poll.

    `last_asked` cannot order the builds: where the budget suffices for the metrics of all apps, it says the
    same at every poll, and the builds of the last apps would never be asked for. The time of the newest
    answer differs from poll to poll; the checksum spreads it evenly.
    """
    turn = crc32(str(max(last_asked.values())).encode()) if last_asked and apps else 0
    first = turn % max(1, len(apps))
    return [*apps[first:], *apps[:first]]
