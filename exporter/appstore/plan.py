"""Which requests a poll makes, in which order, within which budget. Pure.

In the order of IMPORTANCE; within it the newest versions first, then the heaviest signatures, then what was
asked for longest ago. What was not answered the last time goes behind the others of its kind, lest it end
their turn poll after poll. What has waited for about a day takes every second turn, the longest wait first.
So a budget that is too small for everything delays much, and starves nothing: neither what is less important,
nor, where much is overdue, the metrics.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

from exporter.appstore.jsonapi import App, Build

What = Literal["metrics", "overview", "builds", "signatures", "logs", "build_metrics"]
IMPORTANCE: tuple[What, ...] = get_args(What)
LONGEST_WAIT = 20 * 3600.0  # a day, whatever the jitter of the schedule
_ASK_AGAIN = LONGEST_WAIT  # for what was refused


class Key(NamedTuple):
    """What a step asks for, poll after poll; `id` is a build's or a signature's, if it is about one."""

    app_id: str
    what: What
    id: str = ""


class Past(NamedTuple):
    """What became of a step so far, in seconds since the epoch.

    When it was last asked for, whatever came of it; since when it waits for its turn; when App Store Connect
    said that it does not offer it, or sent what nobody can read; how many requests it took; whether there was
    no answer the last time.
    """

    asked_at: float | None = None
    waits_since: float | None = None
    refused_at: float | None = None
    cost: int = 1
    failed: bool = False


NOTHING = Past()


@dataclass(frozen=True, slots=True)
class Step:
    """Something to ask for; `cost` in requests, retries and further pages not counted.

    `builds` are those whose signatures are asked for, the one whose metrics or logs; `signature` is the id of
    the one whose logs, `weight` its weight; `age` is 0 for the newest version of its platform, 1 for the one
    before, and so on.
    """

    what: What
    app: App
    cost: int = 1
    builds: tuple[Build, ...] = ()
    signature: str = ""
    weight: float = 0.0
    age: int = 0

    def split(self, most: int) -> tuple[Step | None, Step | None]:
        """What of it `most` requests suffice for, and what is left over. Only signatures can be divided."""
        if self.cost <= most:
            return self, None
        if self.what != "signatures" or most <= 0:
            return None, self
        now, later = self.builds[:most], self.builds[most:]
        return replace(self, builds=now, cost=len(now)), replace(self, builds=later, cost=len(later))

    @property
    def key(self) -> Key:
        """What it asks for."""
        build = self.builds[0].id if self.what == "build_metrics" else ""
        return Key(self.app.id, self.what, self.signature or build)

    def __str__(self) -> str:
        what = f"logs of signature {self.signature}" if self.signature else self.what.replace("_", " ")
        return f"{what} of {self.app.bundle_id}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, in this order, and what has to wait for the next poll."""

    steps: tuple[Step, ...]
    deferred: tuple[Step, ...]

    @property
    def cost(self) -> int:
        """How many requests `steps` take."""
        return sum(step.cost for step in self.steps)


def plan(steps: Iterable[Step], past: Mapping[Key, Past], now: float, allowance: int) -> Plan:
    """Which of these steps a budget of `allowance` requests suffices for; of one with the same key the first.

    What does not fit ends the plan: something small that overtook it would let it wait for ever. A step that
    costs more than the whole budget is set aside, as no order would help it.
    """
    agenda, left, full = Agenda(past, now), allowance, False
    agenda.add(steps)
    fitting: list[Step] = []
    deferred: list[Step] = []
    while (step := agenda.pop()) is not None:
        possible, _ = step.split(allowance)
        fits, rest = (None, step) if full or possible is None else step.split(left)
        if fits is not None:
            fitting.append(fits)
            left -= fits.cost
        if rest is not None:
            deferred.append(rest)
            full = full or possible is not None
    return Plan(tuple(fitting), tuple(deferred))


def turn(step: Step, past: Mapping[Key, Past]) -> tuple[object, ...]:
    """Sorts steps of which none is overdue into the order in which they are taken."""
    before = past.get(step.key, NOTHING)
    return (
        IMPORTANCE.index(step.what),
        before.failed,
        step.age,
        -step.weight,
        before.asked_at or 0.0,
        *step.key,
    )


def is_overdue(past: Past, now: float) -> bool:
    """Whether something has waited for so long that it takes turns with what is more important.

    Also what waits since a time to come: the clock went back, and nobody knows for how long it has waited.
    """
    return past.waits_since is not None and not 0 <= now - past.waits_since <= LONGEST_WAIT


def is_offered(past: Past, now: float) -> bool:
    """Whether to ask for something, or whether App Store Connect has said today that it has no such thing."""
    return past.refused_at is None or not 0 <= now - past.refused_at < _ASK_AGAIN


class Agenda:
    """The steps of one poll in their order, where a step that is done may bring up others.

    What is added a second time is left out: it is done once.
    """

    def __init__(self, past: Mapping[Key, Past], now: float) -> None:
        self._past = past
        self._now = now
        self._added: set[Key] = set()
        self._overdue: list[tuple[tuple[object, ...], Step]] = []
        self._others: list[tuple[tuple[object, ...], Step]] = []
        self._overdue_is_next = True

    def add(self, steps: Iterable[Step]) -> None:
        """Put steps where they belong."""
        for step in steps:
            if step.key not in self._added:
                self._added.add(step.key)
                before = self._past.get(step.key, NOTHING)
                if is_overdue(before, self._now):
                    heapq.heappush(self._overdue, ((before.waits_since, *step.key), step))
                else:
                    heapq.heappush(self._others, (turn(step, self._past), step))

    def pop(self) -> Step | None:
        """Take the next step; None when all are done."""
        steps = self._overdue if self._overdue_is_next else self._others
        self._overdue_is_next = not self._overdue_is_next
        steps = steps or self._overdue or self._others
        return heapq.heappop(steps)[1] if steps else None

    def rest(self) -> list[Step]:
        """Take all that are left, in their order."""
        return list(iter(self.pop, None))
