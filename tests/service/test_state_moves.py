from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from exporter.otlp.encode import Body
from exporter.sandbox import OtlpFault
from exporter.state import Source, State
from exporter.state.diagnostics import Diagnostics
from exporter.state.state import MOST_EVENTS
from tests.service.service_world import (
    HOUR,
    NOW,
    SECOND,
    World,
    assert_exactly_once,
    by_series,
    quick,
)

AT = round(NOW * SECOND)
HARBOUR = "1540000001"


def test_delivered_windows_stay_while_the_events_beside_them_are_refused(
    make_world: Callable[..., World],
) -> None:
    """To a Collector without a pipeline for logs events are owed, and re-dated; distributions go on where
    they ended, without gap or overlap, and in the end each event is there once."""
    world = make_world(collect__categories="[LAUNCH]")
    world.receiver.answer(OtlpFault(status=404, path="/v1/logs"), times=3)
    world.day = 2.0
    polled = world.poll()
    world.deliverer.deliver()
    before, owed = world.state.windows("main", HARBOUR), list(world.state.outbox())
    assert {item.body.signal for item in owed} == {"logs"}
    assert {window.ended_at for window in before.values()} & {item.stamp for item in owed}
    world.clock.now += 13 * HOUR
    world.deliverer.deliver()
    assert world.log.of("delivery.restamped")
    assert world.state.windows("main", HARBOUR) == before
    world.day, world.clock.now = 3.0, world.clock.now + 11 * HOUR
    again = world.poll()
    world.deliverer.deliver()
    assert_exactly_once(world.receiver)
    assert max(map(len, by_series(world.receiver).values())) == 2
    assert world.receiver.records == []
    assert world.deliverer.deliver().outcome == "ok"
    assert len(world.receiver.records) == polled.events + again.events


def test_events_of_insights_and_of_logs_are_bounded_together(tmp_path: Path) -> None:
    """Whatever brings an event, an app is owed no more than MOST_EVENTS; the oldest are given up."""
    source = Source("main", "1", "b", "signatures")
    with closing(quick(State(tmp_path / "state.db"))) as state:
        insights = [Body(str(number).encode(), 1, "logs") for number in range(MOST_EVENTS)]
        state.store(Source("main", "1"), "b", b"digest", AT, 1, gauges=[], events=insights)
        Diagnostics(state).store_logs(
            source,
            "s",
            "iOS",
            AT,
            events=[Body(b"first log", 1, "logs"), Body(b"second log", 1, "logs")],
            observations=[],
            identities=[],
            problems={},
        )
        left = [item.body for item in state.outbox()]
    assert [body.data for body in left[-2:]] == [b"first log", b"second log"]
    assert left[:-2] == insights[2:]
