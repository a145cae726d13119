"""What is stored → the endpoint, until it has said yes.

One pass sends the metrics that are owed (the outbox, oldest first), the newest gauges with the current time,
and then the events that are owed. It ends early when the endpoint is not there, or refuses everything; the
next heartbeat goes on from there. Metrics and events are two lanes: an endpoint that takes nothing of the one
is asked about the other all the same.

A request that the endpoint calls bad, or breaks over, is set aside until the others were sent, and then taken
apart (see `otlp.attempt`). A point is given up only if the endpoint accepts others: everything else is kept.

An event is not sent again once the endpoint has acknowledged it. When we are killed between its yes and our
writing it down, or its yes is lost on the way, the event comes twice: nobody can tell that from a lost event.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from exporter.otlp.attempt import MOST_REFUSALS, Attempt, Search, Stop, Tally
from exporter.otlp.edit import names, restamp_windows, select
from exporter.otlp.encode import MOST_OWED_BYTES, Body, Signal, restamp
from exporter.otlp.sink import MOST_REQUEST_BYTES, NO_EVENTS, Outcome, Sink
from exporter.state import Item, State

SECOND = 1_000_000_000
TOO_OLD = 50 * 60 * SECOND  # Datadog takes nothing older than an hour
OLD_EVENT = 12 * 3600 * SECOND  # nor an event older than 18 hours
TOO_NEW = 5 * 60 * SECOND  # nor more than ten minutes ahead, as after a clock was set back
_LONGEST_WAIT = 3600.0  # seconds that an endpoint may ask for; a mistake must not silence us for years


@dataclass(slots=True)
class Delivery:
    """What one pass did, in points and in events; `owed` is what stays in the outbox, in items.

    Events that were given up count as rejected. `problem` is the endpoint's word on why the pass ended early,
    or why something was given up or kept back, and whether that is about metrics or events.
    """

    accepted: int = 0
    rejected: int = 0
    given_up: int = 0
    events_accepted: int = 0
    events_rejected: int = 0
    owed: int = 0
    requests: int = 0
    seconds: float = 0.0
    problem: str = ""
    complete: bool = True

    @property
    def outcome(self) -> str:
        """`ok`, `rejected` (the endpoint did not want something) or `failed` (something is still owed)."""
        if not self.complete:
            return "failed"
        return "rejected" if self.rejected or self.given_up or self.events_rejected else "ok"


@dataclass(slots=True)
class _Lane:
    """One signal, and when its end of the endpoint may be asked again."""

    signal: Signal
    not_before: float = 0.0


class Deliverer:
    """Sends what the state holds. Passes of several threads follow one another.

    Args:
        clock: epoch seconds.
        sleep: waits for so many seconds; may return early, at shutdown.
        patience: how many seconds one pass of a lane may spend waiting between attempts.
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
        self._metrics = _Lane("metrics")
        self._events = _Lane("logs")

    def deliver(self) -> Delivery:
        """One pass over everything that is to be sent now."""
        with self._turn:
            started = self._clock()
            self._restamp_what_no_backend_takes()
            metrics, events = self._pass(self._metrics), self._pass(self._events)
            return Delivery(
                accepted=metrics.accepted,
                rejected=metrics.rejected,
                given_up=metrics.given_up,
                events_accepted=events.accepted,
                events_rejected=events.rejected + events.given_up,
                owed=self._state.outbox_depth(),
                requests=metrics.requests + events.requests,
                seconds=self._clock() - started,
                problem=_problem(metrics, events),
                complete=metrics.complete and events.complete,
            )

    def _pass(self, lane: _Lane) -> Tally:
        now = self._clock()
        attempt = Attempt(self._sink, self._sleep, self._patience, trials_from=now % 1)
        tally = attempt.tally
        # Should the clock have gone back, no longer than an endpoint may ask for.
        lane.not_before = min(lane.not_before, now + _LONGEST_WAIT)
        if now < lane.not_before:
            tally.complete = False
            tally.problem = f"the endpoint asked to wait {lane.not_before - now:.0f} s more"
            return tally
        try:
            suspects = self._send_whole(lane, attempt)
            self._take_apart(suspects, attempt)
        except Stop as stop:
            tally.complete = False
            tally.problem = stop.reply.message
            tally.unknown = stop.reply.unknown_signal
            lane.not_before = self._clock() + min(stop.reply.retry_after or 0.0, _LONGEST_WAIT)
        return tally

    def _send_whole(self, lane: _Lane, attempt: Attempt) -> list[Item]:
        """Send everything in requests as large as they may be; gives the items of those that were refused."""
        suspects: list[Item] = []
        refused = 0
        for items in _batches(self._items(lane)):
            body = _joined(self._dated(item) for item in items)
            reply = attempt.send(body, repeatable=items[0].table == "snapshot")
            if reply.outcome is Outcome.ACCEPTED:
                self._state.acknowledge(items)
                continue
            suspects += items
            refused += 1
            if refused >= MOST_REFUSALS and not attempt.works:
                break
        return suspects

    def _items(self, lane: _Lane) -> Iterator[Item]:
        yield from self._state.outbox(lane.signal)
        if lane.signal == "metrics":
            yield from self._state.snapshot()

    def _dated(self, item: Item) -> Body:
        """What is owed keeps its time; new gauges have the time of their answer; others are of now."""
        now = int(self._clock() * SECOND)
        if item.table == "outbox" or (not item.sent and _is_taken(item.stamp, now)):
            return item.body
        return restamp(item.body, item.stamp, now)

    def _restamp_what_no_backend_takes(self) -> None:
        """Move an app's distributions close to now, a second apart, when one of them is too old, or ahead.

        A second apart, because Datadog keeps one value per series and second. All of the app's, because the
        windows of a series must not overlap. Stored before it is sent, so that a retry bears the same time.
        Of the events only those that are too old or ahead move, and all to now.
        """
        now = int(self._clock() * SECOND)
        for account, app_id, ends in self._state.owed_since("metrics"):
            if not (_is_taken(ends[0], now) and _is_taken(ends[-1], now)):
                times = {end: now - later * SECOND for later, end in enumerate(reversed(ends))}
                self._restamp(account, app_id, "metrics", times)
        for account, app_id, stamps in self._state.owed_since("logs"):
            times = {stamp: now for stamp in stamps if not _is_taken(stamp, now, OLD_EVENT)}
            self._restamp(account, app_id, "logs", times)

    def _restamp(self, account: str, app_id: str, signal: Signal, times: dict[int, int]) -> None:
        if times:
            self._state.move(account, app_id, signal, times, partial(restamp_windows, times=times))
            self._log.info("delivery.restamped", account=account, app=app_id, signal=signal, items=len(times))

    def _take_apart(self, suspects: list[Item], attempt: Attempt) -> None:
        """Find what is bad in refused items, and send the rest of them."""
        if not suspects:
            return
        searches = [Search(self._dated(item), repeatable=item.table == "snapshot") for item in suspects]
        try:
            attempt.take_apart(searches)
        finally:  # what was taken is owed no longer, also if the rest has to wait
            for item, search in zip(suspects, searches, strict=True):
                if item.table == "outbox" and search.took_some:
                    self._state.replace_body(item, search.owed)
        for item, search in zip(suspects, searches, strict=True):
            self._settle(item, search, attempt)

    def _settle(self, item: Item, search: Search, attempt: Attempt) -> None:
        if not search.refused:
            self._state.acknowledge([item])
        elif search.final and attempt.still_works():
            self._give_up(item, search, attempt.tally)
        else:
            attempt.tally.complete = False
            attempt.tally.problem = search.message

    def _give_up(self, item: Item, search: Search, tally: Tally) -> None:
        lost = select(item.body, lambda number: number in search.refused)
        tally.given_up += lost.points
        tally.problem = search.message
        kind = "events" if lost.signal == "logs" else "metrics"
        self._log.error(
            "delivery.given_up", points=lost.points, **{kind: names(lost)}, endpoint_says=search.message
        )
        if item.table == "snapshot":  # or every heartbeat would go through the search again
            self._state.replace_body(item, select(item.body, lambda number: number not in search.refused))
        self._state.acknowledge([item])


def _problem(metrics: Tally, events: Tally) -> str:
    """What is wrong, and with which signal, unless it is the same with both."""
    if metrics.problem == events.problem:
        return metrics.problem
    remedy = f"; {NO_EVENTS}" if events.unknown else ""
    parts = ("metrics: ", metrics.problem, ""), ("events: ", events.problem, remedy)
    return "; ".join(f"{signal}{problem}{more}" for signal, problem, more in parts if problem)


def _batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    """Neighbours of one signal that stay below the size of a request; what is owed apart from the gauges."""
    batch: list[Item] = []
    size = 0
    for item in items:
        length = len(item.body.data)
        if batch and (size + length > _most_bytes(item) or item.table != batch[0].table):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += length
    if batch:
        yield batch


def _most_bytes(item: Item) -> int:
    """Of a request. The Collector is not to cut what is owed: were a piece refused, all would come again."""
    return MOST_REQUEST_BYTES if item.table == "snapshot" else MOST_OWED_BYTES


def _joined(bodies: Iterator[Body]) -> Body:
    parts = list(bodies)
    return Body(b"".join(part.data for part in parts), sum(part.points for part in parts), parts[0].signal)


def _is_taken(time: int, now: int, too_old: int = TOO_OLD) -> bool:
    """Whether backends take a point (or an event) of that time."""
    return -TOO_NEW < now - time < too_old
