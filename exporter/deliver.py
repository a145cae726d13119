"""What is stored → the endpoint, until it has said yes.

One pass sends what is owed (the outbox, oldest first), then the newest gauges with the current time. A pass
ends early when the endpoint is not there, or refuses everything; the next heartbeat goes on from there.

A request that the endpoint calls bad, or breaks over, is set aside until the others were sent, and then
halved until the bad point stands alone. Such a point is given up only if the endpoint accepts another one
right then: otherwise nobody can tell a bad point from a bad endpoint, and everything is kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from exporter.otlp.edit import metric_names, restamp_windows, select
from exporter.otlp.encode import Body, restamp
from exporter.otlp.sink import MOST_REQUEST_BYTES, Outcome, Reply, Sink
from exporter.state import Item, State

SECOND = 1_000_000_000
TOO_OLD = 50 * 60 * SECOND  # Datadog takes nothing older than an hour
TOO_NEW = 5 * 60 * SECOND  # nor more than ten minutes ahead, as after a clock was set back
_BACKOFF = (1.0, 2.0, 4.0)  # seconds before the second, third and fourth attempt of a request
_LONGEST_WAIT = 3600.0  # seconds that an endpoint may ask for; a mistake must not silence us for years
_MOST_REFUSALS = 32  # in a row, before the endpoint has to show that it still accepts something


@dataclass(slots=True)
class Delivery:
    """What one pass did, in points; `owed` is what stays in the outbox, in items.

    `problem` is the endpoint's word on why the pass ended early, or why something was given up or kept back.
    """

    accepted: int = 0
    rejected: int = 0
    given_up: int = 0
    owed: int = 0
    requests: int = 0
    seconds: float = 0.0
    problem: str = ""
    complete: bool = True

    @property
    def outcome(self) -> str:
        """`ok`, `rejected` (the endpoint did not want some points) or `failed` (something is still owed)."""
        if not self.complete:
            return "failed"
        return "rejected" if self.rejected or self.given_up else "ok"


class _Stop(Exception):
    """The endpoint takes nothing now; the message says why."""


class Deliverer:
    """Sends what the state holds. Passes of several threads follow one another.

    Args:
        clock: epoch seconds.
        sleep: waits for so many seconds; may return early, at shutdown.
        patience: how many seconds one pass may spend waiting between attempts.
    """

    def __init__(
        self,
        state: State,
        sink: Sink,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Any],
        log: Any,
        patience: float = 15.0,
    ) -> None:
        self._state = state
        self._sink = sink
        self._clock = clock
        self._sleep = sleep
        self._log = log
        self._patience = patience
        self._turn = threading.Lock()
        self._not_before = 0.0

    def deliver(self) -> Delivery:
        """One pass over everything that is to be sent now."""
        with self._turn:
            started = self._clock()
            delivery = Delivery()
            # Should the clock have gone back, no longer than an endpoint may ask for.
            self._not_before = min(self._not_before, started + _LONGEST_WAIT)
            if started < self._not_before:
                delivery.complete = False
                delivery.problem = f"the endpoint asked to wait {self._not_before - started:.0f} s more"
            else:
                self._pass(delivery)
            delivery.owed = self._state.outbox_depth()
            delivery.seconds = self._clock() - started
            return delivery

    def _pass(self, delivery: Delivery) -> None:
        self._restamp_what_no_backend_takes()
        attempt = _Attempt(self._sink, self._sleep, self._patience, delivery)
        suspects: list[Item] = []
        refused = 0
        try:
            for items in _batches(self._items()):
                body = _joined(self._dated(item) for item in items)
                if attempt.send(body).outcome is Outcome.ACCEPTED:
                    self._state.acknowledge(items)
                    if items[0].table == "snapshot":
                        attempt.proof = attempt.proof or body
                else:
                    suspects += items
                    refused += 1
                if refused == _MOST_REFUSALS and not attempt.proof:
                    break
            if suspects and not attempt.proof:
                attempt.find_proof(self._samples([item for item in suspects if item.table == "snapshot"]))
            for item in suspects:
                self._take_apart(item, attempt)
        except _Stop as stop:
            delivery.complete = False
            delivery.problem = str(stop)
            self._not_before = self._clock() + min(attempt.asked_to_wait, _LONGEST_WAIT)

    def _items(self) -> Iterator[Item]:
        yield from self._state.outbox()
        yield from self._state.snapshot()

    def _dated(self, item: Item) -> Body:
        """What is owed keeps its time; new gauges have the time of their answer; others are of now."""
        now = int(self._clock() * SECOND)
        if item.table == "outbox" or (not item.sent and _is_taken(item.stamp, now)):
            return item.body
        return restamp(item.body, item.stamp, now)

    def _restamp_what_no_backend_takes(self) -> None:
        """Move all that an app is owed close to now, a second apart, when one of it is too old, or ahead.

        A second apart, because Datadog keeps one value per series and second. All of the app's, because the
        windows of a series must not overlap. Stored before it is sent, so that a retry bears the same time.
        """
        now = int(self._clock() * SECOND)
        for account, app_id, ends in self._state.owed_since():
            if not (_is_taken(ends[0], now) and _is_taken(ends[-1], now)):
                times = {end: now - later * SECOND for later, end in enumerate(reversed(ends))}
                self._state.move_windows(account, app_id, times, partial(restamp_windows, times=times))
                self._log.info("delivery.restamped", account=account, app=app_id, items=len(ends))

    def _samples(self, items: list[Item]) -> Iterator[Body]:
        """Single gauges from all over these items: bad ones often stand together."""
        chance = Random(0)  # noqa: S311  # nothing secret; the same points each time
        for _ in range(_MOST_REFUSALS if items else 0):
            item = chance.choice(items)
            yield _one_point(self._dated(item), chance.randrange(item.body.points))

    def _take_apart(self, item: Item, attempt: _Attempt) -> None:
        search = _Search(attempt)
        search.within(self._dated(item), 0)
        if not search.refused:
            self._state.acknowledge([item])
        elif search.final and attempt.endpoint_works():
            self._give_up(item, search, attempt.delivery)
        else:
            attempt.delivery.complete = False
            attempt.delivery.problem = search.message

    def _give_up(self, item: Item, search: _Search, delivery: Delivery) -> None:
        lost = select(item.body, lambda number: number in search.refused)
        delivery.given_up += lost.points
        delivery.problem = search.message
        self._log.error(
            "delivery.given_up", points=lost.points, metrics=metric_names(lost), endpoint_says=search.message
        )
        if item.table == "snapshot":  # or every heartbeat would go through the search again
            self._state.replace_body(item, select(item.body, lambda number: number not in search.refused))
        self._state.acknowledge([item])


class _Attempt:
    """The requests of one pass: tried again after a while, counted, ended when the endpoint is not there."""

    def __init__(
        self,
        sink: Sink,
        sleep: Callable[[float], Any],
        patience: float,
        delivery: Delivery,
    ) -> None:
        self.delivery = delivery
        self.asked_to_wait = 0.0
        self.proof: Body | None = None  # gauges that the endpoint accepted: they may come twice, deltas not
        self._last_word = ""
        self._sink = sink
        self._sleep = sleep
        self._patience = patience
        self._refusals = 0

    def send(self, body: Body) -> Reply:
        """Send a request. The reply is ACCEPTED, BAD_DATA or FAILED; anything else raises _Stop."""
        reply = self._try(body)
        self._count(reply, body)
        return reply

    def find_proof(self, samples: Iterator[Body]) -> None:
        """Send these one by one until the endpoint accepts one; raises _Stop if it accepts none."""
        for sample in samples:
            if self._try(sample).outcome is Outcome.ACCEPTED:
                self.proof = sample
                return
        raise _Stop(self._last_word)

    def endpoint_works(self) -> bool:
        """Whether the endpoint still accepts what it has accepted in this pass."""
        if self.proof is None:
            return False
        self.proof = _one_point(self.proof, 0)
        return self._try(self.proof).outcome is Outcome.ACCEPTED

    def _try(self, body: Body) -> Reply:
        reply = self._once(body)
        for backoff in _BACKOFF:
            if reply.outcome is not Outcome.RETRY:
                break
            pause = reply.retry_after or backoff
            if pause > self._patience:
                break
            self._patience -= pause
            self._sleep(pause)
            reply = self._once(body)
        self._last_word = reply.message
        if reply.outcome is Outcome.RETRY:
            self.asked_to_wait = reply.retry_after or 0.0
            raise _Stop(reply.message)
        if reply.outcome is Outcome.REFUSED:
            raise _Stop(reply.message)
        return reply

    def _once(self, body: Body) -> Reply:
        self.delivery.requests += 1
        return self._sink.send(body)

    def _count(self, reply: Reply, body: Body) -> None:
        delivery = self.delivery
        if reply.outcome is Outcome.ACCEPTED:
            rejected = min(reply.rejected, body.points)
            delivery.accepted += body.points - rejected
            delivery.rejected += rejected
            delivery.problem = reply.message or delivery.problem
            self._refusals = 0
            return
        self._refusals += 1
        if self._refusals % _MOST_REFUSALS == 0 and self.proof and not self.endpoint_works():
            raise _Stop(reply.message)


class _Search:
    """Looks for the points of one body that an endpoint refuses; sends all the others."""

    def __init__(self, attempt: _Attempt) -> None:
        self._attempt = attempt
        self.refused: set[int] = set()
        self.final = True
        self.message = ""

    def within(self, body: Body, first: int) -> None:
        """`first` is the running number of the body's first point. The depth is log2 of the points."""
        reply = self._attempt.send(body)
        if reply.outcome is Outcome.ACCEPTED:
            return
        if body.points > 1:
            half = body.points // 2
            self.within(select(body, lambda number: number < half), first)
            self.within(select(body, lambda number: number >= half), first + half)
            return
        self.refused.add(first)
        self.final &= reply.outcome is Outcome.BAD_DATA
        self.message = reply.message


def _batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    """Neighbours that together stay below the size of a request; what is owed apart from the gauges."""
    batch: list[Item] = []
    size = 0
    for item in items:
        length = len(item.body.data)
        if batch and (size + length > MOST_REQUEST_BYTES or item.table != batch[0].table):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += length
    if batch:
        yield batch


def _joined(bodies: Iterator[Body]) -> Body:
    parts = list(bodies)
    return Body(b"".join(part.data for part in parts), sum(part.points for part in parts))


def _is_taken(time: int, now: int) -> bool:
    """Whether backends take a point of that time."""
    return -TOO_NEW < now - time < TOO_OLD


def _one_point(body: Body, number: int) -> Body:
    return select(body, lambda candidate: candidate == number)
