from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource

from exporter.convert.distributions import Window, bucket_bounds, distribution, owed
from exporter.deliver import Deliverer
from exporter.intake import SCOPE
from exporter.otlp.encode import MOST_OWED_BYTES, Body, encode
from exporter.otlp.http_sink import HttpSink
from exporter.otlp.sink import MOST_REQUEST_BYTES, Outcome, Reply, Sink
from exporter.sandbox import OtlpFault, OtlpReceiver, Point
from exporter.state import Source, State
from tests.service.service_world import (
    HOUR,
    NOW,
    SECOND,
    Clock,
    Log,
    PickyReceiver,
    ScriptedSink,
    World,
    assert_exactly_once,
    by_series,
    gauges,
    put,
    quick,
    values,
)

APP = Source("main", "1")
OTHER = Source("main", "2")


class Bench:
    """A deliverer with a state of its own and a simulated clock, in front of any sink."""

    def __init__(self, folder: Path, sink: Sink, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.log = Log()
        self.state = quick(State(folder / "state.db"))
        self.sink = sink
        self.deliverer = Deliverer(self.state, sink, clock=self.clock, sleep=self.clock.sleep, log=self.log)
        self.deliver = self.deliverer.deliver

    def answer(self, value: float, source: Source = APP) -> None:
        """Store what an answer brings: three gauges and one distribution, which `value` changes."""
        at = round(self.clock() * SECOND)
        windows = self.state.windows(*source[:2])
        attributes = {"device": "all_iphones"}
        item = distribution(
            "appstore.launch.time.by_device", "s", "", attributes, [value, value + 1], bucket_bounds([], "s")
        )
        metrics, new = owed([item], windows, at)
        resource = Resource({"service.name": source.app_id})
        self.state.store(
            source,
            source.app_id,
            repr(value).encode(),
            at,
            4,
            gauges=gauges({"appstore.launch.time": 3}, self.clock(), app=source.app_id),
            owed=encode(resource, SCOPE, metrics),
            owed_at=next((window.ended_at for window in new.values()), at),
            windows=new,
            seen=[item.identity],
        )


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[MakeBench]:
    benches: list[Bench] = []

    def make(sink: Sink | None = None, clock: Clock | None = None) -> Bench:
        benches.append(Bench(tmp_path, sink or ScriptedSink(), clock))
        return benches[-1]

    yield make
    for bench in benches:
        bench.sink.close()
        bench.state.close()


def http_bench(make_bench: MakeBench, receiver: OtlpReceiver, clock: Clock) -> Bench:
    return make_bench(HttpSink(f"{receiver.url}/v1/metrics", clock=clock, timeout=5), clock)


def bodies(bench: Bench) -> list[Body]:
    assert isinstance(bench.sink, ScriptedSink)
    return bench.sink.bodies


# The order of things


def test_what_is_owed_goes_before_the_gauges(make_bench: MakeBench) -> None:
    """Distributions go first and in requests of their own; acknowledged, they are not sent again."""
    bench = make_bench()
    put(bench.state, APP, gauges=gauges({"g": 2}), owed=gauges({"o1": 1}))
    put(bench.state, OTHER, gauges=gauges({"h": 2}), owed=gauges({"o2": 1}))
    delivery = bench.deliver()
    assert [body.points for body in bodies(bench)] == [2, 4]
    assert b"o1" in bodies(bench)[0].data
    assert (delivery.outcome, delivery.accepted, delivery.owed, delivery.requests) == ("ok", 6, 0, 2)
    bench.deliver()
    assert [body.points for body in bodies(bench)] == [2, 4, 4]


def test_nothing_stored_sends_nothing(make_bench: MakeBench) -> None:
    """An empty state is delivered without a request."""
    bench = make_bench()
    assert bench.deliver().outcome == "ok"
    assert bodies(bench) == []


def test_acknowledged_rows_go_and_the_others_stay(make_bench: MakeBench) -> None:
    """When the endpoint goes away in the middle, only what it took is no longer owed."""
    bench = make_bench(ScriptedSink(Reply(Outcome.ACCEPTED), Reply(Outcome.REFUSED, message="go away")))
    for number in range(3):
        put(bench.state, Source("main", str(number)), owed=[Body(gauges({"o": 1})[0].data * 30_000, 30_000)])
    delivery = bench.deliver()
    assert (delivery.outcome, delivery.owed, delivery.problem) == ("failed", 2, "metrics: go away")
    assert [item.source.app_id for item in bench.state.outbox()] == ["1", "2"]


def test_the_first_delivery_bears_the_answers_time_and_heartbeats_the_current(make_bench: MakeBench) -> None:
    """New gauges are dated with their answer; sent again, with now; so charts have no gap."""
    clock = Clock()
    with OtlpReceiver(clock=clock) as receiver:
        bench = http_bench(make_bench, receiver, clock)
        bench.answer(0.4)
        times = []
        for _ in range(4):
            clock.now += 240
            bench.deliver()
            times.append(receiver.points[-1].time_unix_nano)
        assert times == [round((NOW + seconds) * SECOND) for seconds in (0, 480, 720, 960)]
        assert len(receiver.distinct_histograms()) == 1


def test_gauges_that_waited_too_long_are_sent_as_of_now(make_bench: MakeBench) -> None:
    """After an hour without a Collector the newest values still arrive, at a time that backends take."""
    clock = Clock()
    with OtlpReceiver(clock=clock) as receiver:
        bench = http_bench(make_bench, receiver, clock)
        bench.answer(0.4)
        clock.now += 2 * HOUR
        assert bench.deliver().outcome == "ok"
        assert {point.time_unix_nano for point in receiver.points} == {round(clock.now * SECOND)}


@pytest.mark.parametrize("ahead", [30.0, HOUR, 30 * 24 * HOUR])
def test_a_clock_that_was_ahead_costs_nothing(make_bench: MakeBench, ahead: float) -> None:
    """What was stored while the clock was ahead is delivered at times that backends take."""
    clock = Clock(NOW + ahead)
    with OtlpReceiver(clock=clock) as receiver:
        bench = http_bench(make_bench, receiver, clock)
        bench.answer(0.4)
        bench.deliver()
        clock.now += 60
        bench.answer(0.8)
        clock.now = NOW
        for value in (0.9, 1.5):
            clock.now += 60
            bench.answer(value)
            delivery = bench.deliver()
            assert (delivery.outcome, delivery.given_up, delivery.owed) == ("ok", 0, 0)
        (histograms,) = by_series(receiver).values()
        assert sorted(point.sum or 0 for point in histograms) == pytest.approx([1.8, 2.6, 2.8, 4.0])
        for point in histograms:
            assert point.start_time_unix_nano < point.time_unix_nano


# An endpoint that is away


def test_twelve_hours_without_a_collector(make_world: Callable[..., World]) -> None:
    """Each distribution arrives exactly once, in windows that follow one another, none older than an hour."""
    world = make_world(collect__categories="[LAUNCH, BATTERY]")
    made = world.poll().distributions
    assert world.deliverer.deliver().outcome == "ok"
    before = by_series(world.receiver)
    began = world.clock.now
    world.receiver.answer(OtlpFault(status=503), times=10_000)
    for beat in range(1, 12 * 15 + 1):
        world.clock.now = max(world.clock.now, began + beat * 240)
        if beat % 15 == 0:
            world.day += 1
            made += world.poll().distributions
        delivery = world.deliverer.deliver()
        assert delivery.outcome == "failed"
        assert delivery.requests <= 8
    world.receiver._faults.clear()
    restart(world)
    recovered = world.clock.now
    delivery = world.deliverer.deliver()  # the receiver refuses what is older than an hour
    assert (delivery.outcome, delivery.owed, delivery.rejected, delivery.given_up) == ("ok", 0, 0, 0)
    assert_exactly_once(world.receiver)
    assert len(world.receiver.distinct_histograms()) == made > 12 * 20
    for series, points in by_series(world.receiver).items():
        assert series not in before or points[0] == before[series][0]
        assert points[-1].time_unix_nano <= recovered * SECOND
        assert all(b.time_unix_nano - a.time_unix_nano >= SECOND for a, b in pairwise(points))
    with_undisturbed = OtlpReceiver(clock=world.clock)
    with with_undisturbed, closing(HttpSink(f"{with_undisturbed.url}/v1/metrics")) as sink:
        for item in world.state.snapshot():
            sink.send(item.body)
        stored = values(with_undisturbed)
    arrived = {key: point for key, point in world.receiver.latest().items() if key in stored}
    assert {key: point.value for key, point in arrived.items()} == stored
    assert min(point.time_unix_nano for point in arrived.values()) > (recovered - HOUR) * SECOND


def restart(world: World) -> None:
    world.close()
    world.open()


def test_a_time_once_given_is_kept_across_retries(make_bench: MakeBench) -> None:
    """An owed item that the endpoint stored before it broke off overwrites itself when it comes again."""
    clock = Clock()
    with OtlpReceiver(clock=clock) as receiver:
        bench = http_bench(make_bench, receiver, clock)
        bench.answer(0.4)
        clock.now += 2 * HOUR
        receiver.answer(OtlpFault(close="after"), times=4)
        for outcome in ["failed"] * 4 + ["ok"]:
            assert bench.deliver().outcome == outcome
            clock.now += 240
        assert len([point for point in receiver.points if point.kind == "histogram"]) == 5
        assert len(receiver.distinct_histograms()) == 1


def test_brief_trouble_is_waited_out_within_a_pass(make_bench: MakeBench) -> None:
    """After 1, 2 and 4 seconds it is tried again; a pass then goes on as if nothing had been."""
    trouble = Reply(Outcome.RETRY, message="HTTP 503")
    bench = make_bench(ScriptedSink(trouble, trouble, trouble, Reply(Outcome.ACCEPTED)))
    put(bench.state, APP, gauges=gauges({"g": 2}))
    delivery = bench.deliver()
    assert (delivery.outcome, delivery.requests, delivery.accepted) == ("ok", 4, 2)
    assert bench.clock.slept == [1.0, 2.0, 4.0]
    assert delivery.seconds == 7.0


def test_a_pass_does_not_wait_for_ever(make_bench: MakeBench) -> None:
    """One request is tried four times at most, and nothing behind it is tried then."""
    bench = make_bench(ScriptedSink(Reply(Outcome.RETRY, message="no connection")))
    for number in range(5):
        put(bench.state, Source("main", str(number)), gauges=gauges({"g": 1}), owed=gauges({"o": 1}))
    delivery = bench.deliver()
    assert (delivery.outcome, delivery.requests, delivery.owed) == ("failed", 4, 5)
    assert delivery.problem == "metrics: no connection"
    assert sum(bench.clock.slept) <= 15


def test_retry_after_is_obeyed_across_heartbeats(make_bench: MakeBench) -> None:
    """Until the time that the endpoint named no request is sent, however many heartbeats come."""
    clock = Clock()
    with OtlpReceiver(clock=clock) as receiver:
        receiver.answer(OtlpFault(status=429, headers={"Retry-After": "600"}))
        bench = http_bench(make_bench, receiver, clock)
        bench.answer(0.4)
        assert bench.deliver().outcome == "failed"
        for _ in range(2):
            clock.now += 240
            delivery = bench.deliver()
            assert (delivery.requests, delivery.outcome, delivery.owed) == (0, "failed", 1)
            assert delivery.problem.startswith("metrics: the endpoint asked to wait ")
        assert len(receiver.requests) == 1
        clock.now += 240
        assert bench.deliver().outcome == "ok"


def test_a_short_retry_after_is_waited_for_in_the_pass(make_bench: MakeBench) -> None:
    """A few seconds are slept, as long as asked."""
    bench = make_bench(ScriptedSink(Reply(Outcome.RETRY, retry_after=9.0), Reply(Outcome.ACCEPTED)))
    put(bench.state, APP, gauges=gauges({"g": 1}))
    assert bench.deliver().outcome == "ok"
    assert bench.clock.slept == [9.0]


def test_an_absurd_retry_after_does_not_silence_the_exporter(make_bench: MakeBench) -> None:
    """Whoever asks to wait for years is asked again after an hour."""
    absurd = Reply(Outcome.RETRY, message="HTTP 503", retry_after=999_999_999.0)
    bench = make_bench(ScriptedSink(absurd, Reply(Outcome.ACCEPTED)))
    put(bench.state, APP, gauges=gauges({"g": 1}))
    assert bench.deliver().outcome == "failed"
    bench.clock.now += HOUR
    assert bench.deliver().outcome == "ok"


def test_a_clock_set_back_does_not_prolong_a_wait(make_bench: MakeBench) -> None:
    """A wait is over after its length, also when the clock was set back by a day meanwhile."""
    bench = make_bench(ScriptedSink(Reply(Outcome.RETRY, retry_after=600.0), Reply(Outcome.ACCEPTED)))
    put(bench.state, APP, gauges=gauges({"g": 1}))
    bench.deliver()
    bench.clock.now -= 24 * HOUR
    bench.deliver()
    bench.clock.now += HOUR
    assert bench.deliver().outcome == "ok"


# Rejections


def test_a_partial_success_is_counted_and_not_retried(make_bench: MakeBench) -> None:
    """What the Collector rejected is final: counted, told in its words, and not owed any more."""
    clock = Clock()
    with OtlpReceiver(clock=clock) as receiver:
        receiver.answer(OtlpFault(partial_success=(1, "histograms are not for us")))
        receiver.answer(OtlpFault(partial_success=(2, "two too many")))
        bench = http_bench(make_bench, receiver, clock)
        bench.answer(0.4)
        delivery = bench.deliver()
        assert (delivery.outcome, delivery.accepted, delivery.rejected, delivery.owed) == (
            "rejected",
            1,
            3,
            0,
        )
        assert delivery.problem == "metrics: two too many"
        assert len(receiver.requests) == 2


def test_more_rejections_than_points_are_not_believed(make_bench: MakeBench) -> None:
    """An absurd count does not turn the number of accepted points negative."""
    bench = make_bench(ScriptedSink(Reply(Outcome.ACCEPTED, rejected=10**9)))
    put(bench.state, APP, gauges=gauges({"g": 2}))
    delivery = bench.deliver()
    assert (delivery.accepted, delivery.rejected) == (0, 2)


@pytest.mark.parametrize("place", [0, 1, 1500, 2999])
@pytest.mark.parametrize("table", ["gauges", "owed"])
def test_a_poison_point_costs_itself_alone(make_bench: MakeBench, place: int, table: str) -> None:
    """Found by halving among thousands; all others arrive; named once; and never met again."""
    clock = Clock()

    def is_poison(point: Point) -> bool:
        return point.name == "poison" and point.attributes["number"] == str(place)

    with PickyReceiver(is_poison, clock=clock) as receiver:
        bench = http_bench(make_bench, receiver, clock)
        put(bench.state, APP, **{table: gauges({"poison": 3000})})  # type: ignore[arg-type]
        put(
            bench.state,
            OTHER,
            gauges=gauges({"good": 50}, app="behind"),
            owed=gauges({"owed": 5}, app="behind"),
        )
        delivery = bench.deliver()
        assert (delivery.outcome, delivery.given_up, delivery.owed) == ("rejected", 1, 0)
        assert delivery.accepted == 3000 + 50 + 5 - 1
        assert delivery.requests < 50
        assert len(receiver.latest()) == 3000 + 50 + 5 - 1
        (line,) = bench.log.of("delivery.given_up")
        assert line.fields == {
            "points": 1,
            "metrics": ["poison"],
            "endpoint_says": "HTTP 400: that one is not welcome",
        }
        clock.now += 240
        refusals = receiver.refusals
        delivery = bench.deliver()
        assert (delivery.outcome, delivery.given_up) == ("ok", 0)
        assert receiver.refusals == refusals
        assert len(bench.log.of("delivery.given_up")) == 1


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
def test_many_poison_points_do_not_hide_the_good_ones(
    make_bench: MakeBench, refuses: Callable[[int], bool]
) -> None:
    """However many points an endpoint refuses, and wherever they stand, the others arrive."""
    clock = Clock()
    with PickyReceiver(lambda point: refuses(int(str(point.attributes["number"]))), clock=clock) as receiver:
        bench = http_bench(make_bench, receiver, clock)
        put(bench.state, APP, gauges=gauges({"some": 400}))
        delivery = bench.deliver()
        good = {number for number in range(400) if not refuses(number)}
        assert {int(str(point.attributes["number"])) for point in receiver.points} == good
        assert delivery.given_up == 400 - len(good)
        clock.now += 240
        assert bench.deliver().requests == 1


@pytest.mark.parametrize("status", [400, 413, 422, 500, 501])
def test_an_endpoint_that_refuses_everything_loses_nothing(make_bench: MakeBench, status: int) -> None:
    """As long as nothing is accepted, nothing is given up; a pass asks a bounded number of times."""
    clock = Clock()
    with OtlpReceiver(clock=clock) as receiver:
        receiver.answer(OtlpFault(status=status), times=100_000)
        bench = http_bench(make_bench, receiver, clock)
        for number in range(20):
            source = Source("main", str(number))
            put(bench.state, source, gauges=gauges({"g": 300}, app=str(number)), owed=gauges({"o": 40}))
        stored = [item.body for item in (*bench.state.outbox(), *bench.state.snapshot())]
        for _ in range(3):
            clock.now += 240
            delivery = bench.deliver()
            assert (delivery.outcome, delivery.given_up, delivery.accepted) == ("failed", 0, 0)
            assert delivery.owed == 20
            assert delivery.requests <= 70
            assert delivery.problem.startswith(f"metrics: HTTP {status}")
        assert [item.body for item in (*bench.state.outbox(), *bench.state.snapshot())] == stored
        receiver._faults.clear()
        clock.now += 240
        delivery = bench.deliver()
        assert (delivery.outcome, delivery.accepted) == ("ok", 20 * 340)


def test_a_point_that_breaks_the_endpoint_is_kept(make_bench: MakeBench) -> None:
    """A 500 may be the endpoint's own fault: the point stays owed, the others go."""
    clock = Clock()
    with PickyReceiver(lambda point: point.name == "poison", status=500, clock=clock) as receiver:
        bench = http_bench(make_bench, receiver, clock)
        put(bench.state, APP, owed=gauges({"fine": 100, "poison": 1}))
        put(bench.state, OTHER, gauges=gauges({"good": 50}), owed=gauges({"also": 5}))
        for _ in range(2):
            delivery = bench.deliver()
            assert (delivery.outcome, delivery.given_up, delivery.owed) == ("failed", 0, 1)
            assert delivery.problem == "metrics: HTTP 500: that one is not welcome"
        assert {point.name for point in receiver.points} == {"fine", "good", "also"}


def test_a_request_that_is_too_large_for_the_endpoint_is_halved(make_bench: MakeBench) -> None:
    """A proxy with a limit of its own gets smaller requests; nothing is given up."""
    clock = Clock()

    class Small(OtlpReceiver):
        def respond(self, request: Any) -> Any:
            if len(request.body) > 5_000:
                self.answer(OtlpFault(status=413))
            return super().respond(request)

    with Small(clock=clock) as receiver:
        bench = http_bench(make_bench, receiver, clock)
        put(bench.state, APP, gauges=gauges({"g": 5000}))
        delivery = bench.deliver()
        assert (delivery.outcome, delivery.accepted) == ("ok", 5000)


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.RETRY])
def test_nothing_is_halved_for_an_endpoint_that_wants_nothing_from_us(
    make_bench: MakeBench, outcome: Outcome
) -> None:
    """A redirect, a 401 or no connection says nothing about the data: one request, and the pass is over."""
    bench = make_bench(ScriptedSink(Reply(outcome, message="no", retry_after=100.0)))
    put(bench.state, APP, gauges=gauges({"g": 100}), owed=gauges({"o": 100}))
    delivery = bench.deliver()
    assert (delivery.outcome, delivery.requests, delivery.owed) == ("failed", 1, 1)


# Sizes and threads


def test_no_request_is_larger_than_a_collector_takes(make_bench: MakeBench) -> None:
    """Gauges are put together up to 3 MiB, what is owed up to what no Collector cuts; each goes once."""
    bench = make_bench()
    put(bench.state, APP, gauges=gauges({"g": 30_000}, size=400))
    for number in range(30):
        put(
            bench.state,
            Source("main", f"x{number}"),
            gauges=gauges({"h": 200}),
            owed=gauges({"o": 700}, size=200),
        )
    delivery = bench.deliver()
    assert delivery.accepted == 30_000 + 30 * 900
    sizes = [len(body.data) for body in bodies(bench)]
    owed, newest = sizes[:15], sizes[15:]
    assert max(owed) <= MOST_OWED_BYTES < 2 * max(owed)
    assert max(newest) <= MOST_REQUEST_BYTES == 3 << 20
    assert len(newest) == 5


def test_passes_of_two_threads_do_not_send_twice(make_bench: MakeBench) -> None:
    """A heartbeat that comes during a delivery waits, and then finds nothing owed."""
    entered, go_on = threading.Event(), threading.Event()

    class Slow(ScriptedSink):
        def send(self, body: Body) -> Reply:
            entered.set()
            assert go_on.wait(5)
            return super().send(body)

    bench = make_bench(Slow())
    put(bench.state, APP, owed=gauges({"o": 1}))
    threads = [threading.Thread(target=bench.deliver) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert entered.wait(5)
    go_on.set()
    for thread in threads:
        thread.join(5)
    assert len(bodies(bench)) == 1


def test_an_answer_that_comes_during_a_delivery_is_not_lost(make_bench: MakeBench) -> None:
    """Gauges stored while older ones are on their way count as new afterwards."""
    bench = make_bench()
    put(bench.state, APP, gauges=gauges({"old": 1}), owed=gauges({"o1": 1}))

    class Meanwhile(ScriptedSink):
        def send(self, body: Body) -> Reply:
            if b"old" in body.data:
                put(bench.state, APP, gauges=gauges({"new": 1}, NOW + 5), owed=gauges({"o2": 1}), at=NOW + 5)
            return super().send(body)

    sink = Meanwhile()
    deliverer = Deliverer(bench.state, sink, clock=bench.clock, sleep=bench.clock.sleep, log=bench.log)
    deliverer.deliver()
    assert deliverer.deliver().owed == 0
    sent = b"".join(body.data for body in sink.bodies)
    assert [sent.count(name) for name in (b"o1", b"old", b"o2", b"new")] == [1, 1, 1, 1]
    assert bodies_end_with_time(sink.bodies, NOW + 5)


def bodies_end_with_time(sent: Sequence[Body], at: float) -> bool:
    return round(at * SECOND).to_bytes(8, "little") in sent[-1].data


def test_windows_that_were_owed_when_the_next_came_do_not_overlap(make_bench: MakeBench) -> None:
    """Polls during an outage add windows; restamped together they still follow one another."""
    clock = Clock()
    with OtlpReceiver(clock=clock) as receiver:
        bench = http_bench(make_bench, receiver, clock)
        receiver.answer(OtlpFault(status=503), times=1000)
        for number in range(40):
            bench.answer(0.1 * number)
            bench.deliver()
            clock.now += 600
        receiver._faults.clear()
        assert bench.deliver().owed == 0
        bench.answer(99.0)
        clock.now += 1
        bench.deliver()
        assert_exactly_once(receiver)
        (points,) = by_series(receiver).values()
        assert len(points) == 41
        assert [point.sum for point in points] == pytest.approx([0.2 * n + 1 for n in range(40)] + [199.0])


def test_the_state_survives_an_error_in_the_middle(make_bench: MakeBench, tmp_path: Path) -> None:
    """A sink that raises, which none should, leaves everything owed."""

    class Broken(ScriptedSink):
        def send(self, body: Body) -> Reply:
            raise RuntimeError("a bug")

    bench = make_bench(Broken())
    put(bench.state, APP, owed=gauges({"o": 1}), gauges=gauges({"g": 1}))
    with pytest.raises(RuntimeError):
        bench.deliver()
    with closing(ScriptedSink()) as sink:
        deliverer = Deliverer(bench.state, sink, clock=bench.clock, sleep=bench.clock.sleep, log=bench.log)
        assert deliverer.deliver().accepted == 2


def test_windows_outlive_their_restamping(make_bench: MakeBench) -> None:
    """The state knows the new end of a window that was moved, so that the next one starts there."""
    bench = make_bench(ScriptedSink(Reply(Outcome.RETRY)))
    bench.answer(0.4)
    bench.clock.now += 2 * HOUR
    bench.deliver()
    (window,) = bench.state.windows("main", "1").values()
    (item,) = bench.state.outbox()
    assert isinstance(window, Window)
    assert window.ended_at == item.stamp == round((NOW + 2 * HOUR) * SECOND)


@pytest.mark.parametrize(("minutes", "moved"), [(49, False), (51, True)])
def test_what_is_owed_is_redated_when_it_is_older_than_fifty_minutes(minutes: int, moved: bool) -> None:
    """Datadog takes nothing older than an hour; until shortly before, a retry bears the same time."""
    sink = ScriptedSink()
    clock = Clock()
    (body,) = gauges(["appstore.launch.time.by_device"], clock.now)
    with closing(State(None)) as state:
        put(state, Source("main", "1"), owed=[body], at=clock.now)
        clock.now += minutes * 60
        Deliverer(state, sink, clock=clock, sleep=clock.sleep, log=Log()).deliver()
    assert (sink.bodies != [body]) is moved
