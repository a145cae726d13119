from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exporter.deliver import Deliverer
from exporter.otlp.encode import MOST_OWED_BYTES, Body
from exporter.otlp.http_sink import HttpSink
from exporter.otlp.sink import NO_EVENTS, Outcome, Reply
from exporter.sandbox import OtlpFault, OtlpReceiver
from exporter.state import Source, State
from tests.service.event_world import PickyAboutEvents, events
from tests.service.service_world import HOUR, NOW, SECOND, Clock, Log, gauges, put, quick

APP = Source("main", "1")
OTHER = Source("main", "2")
LOGS = "/v1/logs"
METRICS = "/v1/metrics"


class TwoEnds:
    """Replies by the signal of a body: from a list each, its last one for ever; keeps the bodies."""

    def __init__(self, metrics: list[Reply], logs: list[Reply]) -> None:
        self.replies = {"metrics": metrics, "logs": logs}
        self.bodies: list[Body] = []

    def send(self, body: Body) -> Reply:
        self.bodies.append(body)
        replies = self.replies[body.signal]
        return replies.pop(0) if len(replies) > 1 else replies[0]

    def close(self) -> None:
        pass


YES = Reply(Outcome.ACCEPTED)


class Bench:
    """A deliverer with a state and a simulated clock, in front of a real receiver or a scripted sink."""

    def __init__(self, folder: Path, end: OtlpReceiver | TwoEnds, clock: Clock) -> None:
        self.clock = clock
        self.log = Log()
        self.state = quick(State(folder / "state.db"))
        self.sink = end if isinstance(end, TwoEnds) else HttpSink(f"{end.url}/v1/metrics", clock=clock)
        self.deliverer = Deliverer(self.state, self.sink, clock=clock, sleep=clock.sleep, log=self.log)
        self.deliver = self.deliverer.deliver

    def owe(self, *texts: str, source: Source = APP, **options: Any) -> None:
        """Owe events of now."""
        put(self.state, source, owed=events(*texts, at=self.clock(), **options), at=self.clock())

    def close(self) -> None:
        self.sink.close()
        self.state.close()


MakeBench = Callable[..., Bench]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def receiver(clock: Clock) -> Iterator[OtlpReceiver]:
    with OtlpReceiver(clock=clock) as receiver:
        yield receiver


@pytest.fixture
def make_bench(tmp_path: Path, clock: Clock) -> Iterator[MakeBench]:
    benches: list[Bench] = []

    def make(end: OtlpReceiver | TwoEnds) -> Bench:
        benches.append(Bench(tmp_path, end, clock))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


def texts(receiver: OtlpReceiver) -> list[str]:
    return [record.body for record in receiver.records]


# The order of things


def test_events_arrive_in_order_once(make_bench: MakeBench, receiver: OtlpReceiver) -> None:
    """What is owed goes in the outbox's order, events in requests of their own, and never again."""
    bench = make_bench(receiver)
    for number in range(3):
        source = Source("main", str(number))
        owed = [*gauges({f"o{number}": 1}), *events(f"{number}a", f"{number}b")]
        put(bench.state, source, gauges=gauges({"g": 2}, app=str(number)), owed=owed)
    delivery = bench.deliver()
    assert texts(receiver) == ["0a", "0b", "1a", "1b", "2a", "2b"]
    assert (delivery.outcome, delivery.problem, delivery.owed) == ("ok", "", 0)
    assert (delivery.accepted, delivery.events_accepted, delivery.events_rejected) == (9, 6, 0)
    assert Counter(request.path for request in receiver.requests) == {METRICS: 2, LOGS: 1}
    bench.deliver()
    assert len(receiver.records) == 6


def test_no_request_of_events_is_larger_than_a_collector_takes(make_bench: MakeBench) -> None:
    """Bodies are put together up to what is not cut for Datadog; no request holds both signals."""
    sink = TwoEnds([YES], [YES])
    bench = make_bench(sink)
    for number in range(12):
        put(bench.state, Source("main", f"{number}"), owed=[*gauges({"o": 9}), *events("e", size=140_000)])
    assert bench.deliver().events_accepted == 12
    sizes = [len(body.data) for body in sink.bodies if body.signal == "logs"]
    assert max(sizes) <= MOST_OWED_BYTES
    assert len(sizes) == 4
    assert [body.points for body in sink.bodies if body.signal == "metrics"] == [12 * 9]


def test_a_partial_success_of_events_is_final(make_bench: MakeBench, receiver: OtlpReceiver) -> None:
    """Rejected log records are counted, told in the endpoint's words, and not sent again."""
    receiver.answer(OtlpFault(partial_success=(2, "two too many"), path=LOGS))
    bench = make_bench(receiver)
    bench.owe("a", "b", "c")
    delivery = bench.deliver()
    assert (delivery.outcome, delivery.events_accepted, delivery.events_rejected) == ("rejected", 1, 2)
    assert (delivery.accepted, delivery.rejected, delivery.owed) == (0, 0, 0)
    assert delivery.problem == "events: two too many"
    assert bench.deliver().requests == 0


# Two lanes


@pytest.mark.parametrize("status", [302, 401, 403, 404, 405, 415])
def test_an_endpoint_that_refuses_events_takes_metrics(
    make_bench: MakeBench, receiver: OtlpReceiver, status: int
) -> None:
    """Metrics flow, events stay owed in order; the problem says if a pipeline is missing; then all arrive."""
    receiver.answer(OtlpFault(status=status, path=LOGS), times=3)
    bench = make_bench(receiver)
    for beat in range(3):
        put(
            bench.state, APP, gauges=gauges({"g": 2}, bench.clock()), owed=events(str(beat), at=bench.clock())
        )
        delivery = bench.deliver()
        assert (delivery.outcome, delivery.accepted, delivery.owed) == ("failed", 2, beat + 1)
        assert (delivery.events_accepted, delivery.events_rejected) == (0, 0)
        assert delivery.requests == 2
        assert delivery.problem.startswith(f"events: HTTP {status}")
        assert delivery.problem.endswith(NO_EVENTS) is (status in (404, 405))
        bench.clock.now += 240
    delivery = bench.deliver()
    assert (delivery.outcome, delivery.problem, delivery.events_accepted) == ("ok", "", 3)
    assert texts(receiver) == ["0", "1", "2"]


def test_an_endpoint_that_refuses_metrics_takes_events(make_bench: MakeBench, receiver: OtlpReceiver) -> None:
    """The other way round it is the same; the remedy for events is not given."""
    receiver.answer(OtlpFault(status=404, path=METRICS), times=100)
    bench = make_bench(receiver)
    put(bench.state, APP, gauges=gauges({"g": 2}), owed=events("a"))
    delivery = bench.deliver()
    assert (delivery.outcome, delivery.accepted, delivery.events_accepted) == ("failed", 0, 1)
    assert delivery.problem == "metrics: HTTP 404: the sandbox was told to fail"


def test_an_endpoint_that_refuses_both_is_named_once(make_bench: MakeBench, receiver: OtlpReceiver) -> None:
    """The same trouble with both is the endpoint's; a pipeline for logs would not mend it."""
    receiver.answer(OtlpFault(status=401), times=2)
    bench = make_bench(receiver)
    put(bench.state, APP, gauges=gauges({"g": 2}), owed=events("a"))
    assert bench.deliver().problem == "HTTP 401: the sandbox was told to fail"


def test_different_troubles_are_both_named(make_bench: MakeBench) -> None:
    """Metrics and events may fail for reasons of their own."""
    refused, away = Reply(Outcome.REFUSED, message="no"), Reply(Outcome.RETRY, message="away")
    bench = make_bench(TwoEnds([refused], [away]))
    put(bench.state, APP, gauges=gauges({"g": 2}), owed=events("a"))
    assert bench.deliver().problem == "metrics: no; events: away"


@pytest.mark.parametrize("blocked", [LOGS, METRICS])
def test_a_wait_for_one_signal_does_not_hold_up_the_other(
    make_bench: MakeBench, receiver: OtlpReceiver, blocked: str
) -> None:
    """Retry-After counts for the signal that it was said about; the other has all its patience."""
    receiver.answer(OtlpFault(status=429, headers={"Retry-After": "600"}, path=blocked))
    bench = make_bench(receiver)
    for _ in range(3):
        put(bench.state, APP, gauges=gauges({"g": 1}, bench.clock()), owed=events("e", at=bench.clock()))
        assert bench.deliver().outcome == "failed"
        bench.clock.now += 200
    paths = Counter(request.path for request in receiver.requests)
    assert paths == {blocked: 1, LOGS if blocked == METRICS else METRICS: 3}
    delivery = bench.deliver()
    assert (delivery.outcome, delivery.owed) == ("ok", 0)
    assert len(receiver.records) == 3


def test_each_signal_has_its_own_patience(make_bench: MakeBench) -> None:
    """Trouble with metrics in a pass does not use up the seconds that events may wait."""
    away = Reply(Outcome.RETRY, message="away")
    bench = make_bench(TwoEnds([away], [away, away, away, YES]))
    put(bench.state, APP, gauges=gauges({"g": 1}), owed=events("e"))
    delivery = bench.deliver()
    assert (delivery.requests, delivery.events_accepted) == (8, 1)
    assert bench.clock.slept == [1.0, 2.0, 4.0] * 2


# What the endpoint does not take


@pytest.mark.parametrize("place", [0, 1, 150, 299])
def test_a_poison_event_costs_itself_alone(make_bench: MakeBench, clock: Clock, place: int) -> None:
    """Found by halving; all others arrive exactly once; it is named, and never met again."""
    with PickyAboutEvents(lambda record: record.body == str(place), clock=clock) as receiver:
        bench = make_bench(receiver)
        bench.owe(*map(str, range(300)))
        bench.owe("behind", source=OTHER)
        delivery = bench.deliver()
        assert (delivery.outcome, delivery.events_rejected, delivery.owed) == ("rejected", 1, 0)
        assert delivery.events_accepted == 300
        assert delivery.requests < 40
        assert Counter(texts(receiver)) == Counter(
            [*(str(number) for number in range(300) if number != place), "behind"]
        )
        (line,) = bench.log.of("delivery.given_up")
        assert line.fields == {
            "points": 1,
            "events": ["appstore.diagnostic"],
            "endpoint_says": "HTTP 400: that one is not welcome",
        }
        assert bench.deliver().requests == 0


@pytest.mark.parametrize(
    "refuses",
    [
        lambda number: number < 360,
        lambda number: number >= 40,
        lambda number: not 180 <= number < 220,
        lambda number: number % 3 == 0,
        lambda number: number % 4 != 0,
    ],
)
def test_many_poison_events_do_not_hide_the_good_ones(
    make_bench: MakeBench, clock: Clock, refuses: Callable[[int], bool]
) -> None:
    """However many are refused, and wherever they stand, the others arrive exactly once."""
    with PickyAboutEvents(lambda record: refuses(int(record.body)), clock=clock) as receiver:
        bench = make_bench(receiver)
        bench.owe(*map(str, range(400)))
        for _ in range(3):
            bench.deliver()
            bench.clock.now += 240.5
        assert Counter(texts(receiver)) == Counter(str(n) for n in range(400) if not refuses(n))


@pytest.mark.parametrize("status", [400, 413, 500])
def test_an_endpoint_that_refuses_every_event_loses_none(
    make_bench: MakeBench, receiver: OtlpReceiver, status: int
) -> None:
    """Without one accepted nothing is given up; a pass asks a bounded number of times; metrics flow."""
    receiver.answer(OtlpFault(status=status, path=LOGS), times=100_000)
    bench = make_bench(receiver)
    for number in range(20):
        owed = events(*(f"{number} {place}" for place in range(40)))
        put(bench.state, Source("main", str(number)), gauges=gauges({"g": 3}), owed=owed)
    stored = [item.body for item in bench.state.outbox()]
    for _ in range(3):
        bench.clock.now += 240
        delivery = bench.deliver()
        assert (delivery.outcome, delivery.events_rejected, delivery.owed) == ("failed", 0, 20)
        assert delivery.accepted == 60
        assert delivery.requests <= 70
        assert delivery.problem.startswith(f"events: HTTP {status}")
    assert [item.body for item in bench.state.outbox()] == stored
    receiver._faults.clear()
    assert bench.deliver().events_accepted == 800
    assert texts(receiver) == [f"{number} {place}" for number in range(20) for place in range(40)]


def test_an_endpoint_that_breaks_in_the_middle_loses_no_event(make_bench: MakeBench) -> None:
    """A yes before the trouble does not count for ever: after so many refusals there has to be another."""
    no = Reply(Outcome.BAD_DATA, message="no")
    sink = TwoEnds([YES], [YES, no])
    bench = make_bench(sink)
    bench.owe("first", size=900_000)
    bench.owe(*map(str, range(3)), size=900_000)
    bench.owe(*map(str, range(100)), source=OTHER)
    delivery = bench.deliver()
    assert (delivery.outcome, delivery.events_rejected) == ("failed", 0)
    assert sum(item.body.points for item in bench.state.outbox()) == 104 - sink.bodies[0].points
    assert delivery.requests < 110


def test_a_single_event_that_is_refused_alone_is_kept(make_bench: MakeBench, clock: Clock) -> None:
    """With nothing accepted beside it nobody knows whose fault it is; once another one is taken, it goes."""
    with PickyAboutEvents(lambda record: record.body == "poison", clock=clock) as receiver:
        bench = make_bench(receiver)
        bench.owe("poison")
        delivery = bench.deliver()
        assert (delivery.outcome, delivery.events_rejected, delivery.owed) == ("failed", 0, 1)
        assert delivery.problem == "events: HTTP 400: that one is not welcome"
        bench.owe("good")
        delivery = bench.deliver()
        assert (delivery.outcome, delivery.events_rejected, delivery.owed) == ("rejected", 1, 0)
        assert texts(receiver) == ["good"]


def test_an_event_that_breaks_the_endpoint_is_kept_alone(make_bench: MakeBench, clock: Clock) -> None:
    """A 500 may be the endpoint's own fault: the event stays owed; those beside it do not come twice."""
    with PickyAboutEvents(lambda record: record.body == "poison", status=500, clock=clock) as receiver:
        bench = make_bench(receiver)
        bench.owe("a", "poison", "b", "c")
        for _ in range(2):
            delivery = bench.deliver()
            assert (delivery.outcome, delivery.events_rejected, delivery.owed) == ("failed", 0, 1)
        assert sorted(texts(receiver)) == ["a", "b", "c"]
        receiver.refuses = lambda _: False
        assert bench.deliver().owed == 0
        assert sorted(texts(receiver)) == ["a", "b", "c", "poison"]


def test_an_endpoint_that_goes_away_during_a_search_gets_nothing_twice(make_bench: MakeBench) -> None:
    """What a half brought over is owed no longer, also when the other half has to wait."""
    no, away = Reply(Outcome.BAD_DATA, message="no"), Reply(Outcome.RETRY, message="away", retry_after=99)
    sink = TwoEnds([YES], [no, YES, no, YES, away, YES])
    bench = make_bench(sink)
    bench.owe(*map(str, range(8)))
    assert bench.deliver().outcome == "failed"
    owed = sum(item.body.points for item in bench.state.outbox())
    sent = sum(body.points for body in (sink.bodies[1], sink.bodies[3]))
    assert owed == 8 - sent
    bench.clock.now += 100
    assert bench.deliver().events_accepted == owed


# Times


def test_an_event_keeps_its_time_across_retries(make_bench: MakeBench, receiver: OtlpReceiver) -> None:
    """What was lost on the way comes again as it was. A yes that was lost makes it come twice.

    At least once is all that can be had there: we cannot know whether the endpoint took it.
    """
    receiver.answer(OtlpFault(close="after", path=LOGS))
    bench = make_bench(receiver)
    bench.owe("a")
    bench.clock.now += 49 * 60
    lost = bench.deliver()
    assert (lost.owed, lost.requests) == (1, 1)  # not at once: each attempt might double it
    assert bench.deliver().events_accepted == 1
    first, second = receiver.records
    assert first == second
    assert first.time_unix_nano == first.observed_time_unix_nano == round(NOW * SECOND)


def test_events_that_waited_too_long_move_and_stay_in_order(
    make_bench: MakeBench, receiver: OtlpReceiver
) -> None:
    """After twelve hours an event moves to now, not before; in their order, and still seen when they were."""
    receiver.answer(OtlpFault(status=404, path=LOGS), times=3)
    bench = make_bench(receiver)
    owed_at = (0, HOUR, 6 * HOUR)
    for number, after in enumerate(owed_at):
        bench.clock.now = NOW + after
        bench.owe(f"{number}a", f"{number}b")
        bench.deliver()
    bench.clock.now = NOW + 13.5 * HOUR
    delivery = bench.deliver()
    assert (delivery.outcome, delivery.events_accepted) == ("ok", 6)
    assert texts(receiver) == ["0a", "0b", "1a", "1b", "2a", "2b"]
    assert [record.time_unix_nano for record in receiver.records] == [
        round((NOW + after) * SECOND) for after in (13.5 * HOUR, 13.5 * HOUR, 6 * HOUR) for _ in "ab"
    ]
    assert [record.observed_time_unix_nano for record in receiver.records] == [
        round((NOW + after) * SECOND) for after in owed_at for _ in "ab"
    ]


def test_the_deliverer_survives_an_error_in_the_middle(make_bench: MakeBench) -> None:
    """A sink that raises, which none should, leaves every event owed."""

    class Broken(TwoEnds):
        def send(self, body: Body) -> Reply:
            if body.signal == "logs":
                raise RuntimeError("a bug")
            return super().send(body)

    bench = make_bench(Broken([YES], [YES]))
    bench.owe("a", "b")
    with pytest.raises(RuntimeError):
        bench.deliver()
    with closing(TwoEnds([YES], [YES])) as sink:
        deliverer = Deliverer(bench.state, sink, clock=bench.clock, sleep=bench.clock.sleep, log=bench.log)
        assert deliverer.deliver().events_accepted == 2
