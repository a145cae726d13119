"""The requests of one pass for one signal: tried again after a while, counted, taken apart where refused.

A request that the endpoint calls bad, or breaks over, is halved until the bad point stands alone, and all
others are sent. Nobody can tell a bad point from a bad endpoint, unless the endpoint takes another one. So it
has to: before anything is taken apart, and again after so many refusals in a row. Gauges may be sent twice
for such a trial. Log records must not come twice: single ones are sent that are owed anyway.

A point is a data point of a metric, or a log record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from exporter.otlp.edit import select
from exporter.otlp.encode import Body
from exporter.otlp.sink import Outcome, Reply, Sink

MOST_REFUSALS = 32  # in a row, before the endpoint has to show that it accepts something
_GOLDEN = 0.6180339887  # steps of this share go everywhere, and meet no pattern twice
_BACKOFF = (1.0, 2.0, 4.0)  # seconds before the second, third and fourth attempt of a request


@dataclass(slots=True)
class Tally:
    """What came of the requests, in points.

    `problem` is the endpoint's word on why it ended early (`complete` is false then), or why something was
    rejected, given up or kept back. `unknown`: it does not know this signal.
    """

    accepted: int = 0
    rejected: int = 0
    given_up: int = 0
    requests: int = 0
    problem: str = ""
    complete: bool = True
    unknown: bool = False


class Stop(Exception):
    """The endpoint takes nothing now, and says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.message)
        self.reply = reply


@dataclass(slots=True)
class Search:
    """A body in which something was refused, and what became of its points, by their running numbers.

    `repeatable`: they may be sent twice, as they are gauges. `final`: the endpoint says that the data is bad.
    """

    body: Body
    repeatable: bool
    untried: set[int] = field(init=False)
    refused: set[int] = field(init=False, default_factory=set)
    final: bool = field(init=False, default=True)
    message: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self.untried = set(range(self.body.points))

    @property
    def took_some(self) -> bool:
        """Whether the endpoint took any of them."""
        return len(self.untried) + len(self.refused) < self.body.points

    @property
    def owed(self) -> Body:
        """What was not taken: refused, or not tried yet."""
        return select(self.body, lambda number: number in self.untried or number in self.refused)

    def refuse(self, number: int, reply: Reply) -> None:
        """A point that stood alone was refused."""
        self.untried.discard(number)
        self.refused.add(number)
        self.final &= reply.outcome is Outcome.BAD_DATA
        self.message = reply.message


class Attempt:
    """Sends the bodies of one signal for one pass.

    Args:
        sleep: waits for so many seconds; may return early, at shutdown.
        patience: how many seconds may be spent waiting between attempts.
        trials_from: where among the points trials begin, 0 to 1; not the same in each pass.
    """

    def __init__(
        self, sink: Sink, sleep: Callable[[float], Any], patience: float, *, trials_from: float = 0.0
    ) -> None:
        self.tally = Tally()
        self._sink = sink
        self._sleep = sleep
        self._patience = patience
        self._trials_from = trials_from
        self._refusals = 0
        self._proof: Body | None = None
        self._took_records = False
        self._searches: Sequence[Search] = ()
        self._refusal = Reply(Outcome.FAILED)

    @property
    def works(self) -> bool:
        """Whether the endpoint has accepted something, in this pass, that can show whether it still does."""
        return self._proof is not None or self._took_records

    def send(self, body: Body, *, repeatable: bool = False) -> Reply:
        """Send a request; the reply is ACCEPTED, BAD_DATA or FAILED.

        Raises:
            Stop: any other reply.
        """
        reply = self._try(body, repeatable=repeatable)
        if reply.outcome is Outcome.ACCEPTED:
            self._count(reply, body.points)
            self._took_records |= body.signal == "logs"
            if repeatable and self._proof is None:
                self._proof = body
        else:
            self._refusals += 1
        return reply

    def take_apart(self, searches: Sequence[Search]) -> None:
        """Send all points of refused bodies but those that are refused alone.

        Raises:
            Stop: the endpoint takes nothing, or nothing any more; what is untried stays so.
        """
        self._searches = searches
        if not self.works:
            self._prove()
        for search in searches:
            self._within(search, search.body, range(search.body.points))

    def still_works(self) -> bool:
        """Whether it is the data's fault, if a point is refused: the endpoint takes others.

        Gauges are tried right now. A log record that was accepted is not sent again: that it was accepted in
        this pass, with less than so many refusals since, has to do.
        """
        if self._proof is None:
            return self._took_records
        self._proof = _one_point(self._proof, 0)
        return self._try(self._proof, repeatable=True).outcome is Outcome.ACCEPTED

    def _within(self, search: Search, body: Body, numbers: Sequence[int]) -> None:
        """`numbers` are those of the body's points in the body of the search. The depth is their log2."""
        left = [number for number in numbers if number in search.untried]
        if not left:
            return
        if len(left) < len(numbers):
            body = select(body, lambda place: numbers[place] in search.untried)
        reply = self.send(body)
        if reply.outcome is Outcome.ACCEPTED:
            search.untried.difference_update(left)
            return
        if len(left) == 1:
            search.refuse(left[0], reply)
        if self._refusals % MOST_REFUSALS == 0:
            self._prove()
        if len(left) > 1:
            half = len(left) // 2
            self._within(search, select(body, lambda place: place < half), left[:half])
            self._within(search, select(body, lambda place: place >= half), left[half:])

    def _prove(self) -> None:
        """Raise Stop, unless the endpoint accepts something right now."""
        if self._proof is not None:
            if self.still_works():
                return
            raise Stop(self._refusal)
        for search, number in self._trials():
            reply = self.send(_one_point(search.body, number), repeatable=search.repeatable)
            if reply.outcome is Outcome.ACCEPTED:
                search.untried.discard(number)
                return
            search.refuse(number, reply)
        raise Stop(self._refusal)

    def _trials(self) -> Iterator[tuple[Search, int]]:
        """Single points from all over: bad ones often stand together."""
        places = [
            (search, number)
            for search in self._searches
            if search.repeatable or search.body.signal == "logs"
            for number in sorted(search.untried)
        ]
        for trial in range(min(MOST_REFUSALS, len(places))):
            share = (self._trials_from + trial * _GOLDEN) % 1.0
            search, number = places[int(share * len(places))]
            if number in search.untried:
                yield search, number

    def _try(self, body: Body, *, repeatable: bool) -> Reply:
        reply = self._once(body)
        for backoff in _BACKOFF:
            if reply.outcome is not Outcome.RETRY:
                break
            if reply.perhaps_taken and not repeatable:  # each attempt may double it
                break
            pause = reply.retry_after or backoff
            if pause > self._patience:
                break
            self._patience -= pause
            self._sleep(pause)
            reply = self._once(body)
        if reply.outcome in (Outcome.RETRY, Outcome.REFUSED):
            raise Stop(reply)
        if reply.outcome is not Outcome.ACCEPTED:
            self._refusal = reply
        return reply

    def _once(self, body: Body) -> Reply:
        self.tally.requests += 1
        return self._sink.send(body)

    def _count(self, reply: Reply, points: int) -> None:
        rejected = min(reply.rejected, points)
        self.tally.accepted += points - rejected
        self.tally.rejected += rejected
        self.tally.problem = reply.message or self.tally.problem
        self._refusals = 0


def _one_point(body: Body, number: int) -> Body:
    return select(body, lambda candidate: candidate == number)
