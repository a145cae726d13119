from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from exporter.convert.distributions import Window
from exporter.otlp.encode import Body
from exporter.state import Source, State
from exporter.state.state import MOST_EVENT_BYTES, MOST_EVENTS
from tests.service.service_world import NOW, SECOND, quick

AT = round(NOW * SECOND)
APP, OTHER = Source("main", "1"), Source("main", "2")
MINUTE = 60 * SECOND


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with closing(quick(State(tmp_path / "state.db"))) as state:
        yield state


def event(text: str) -> Body:
    return Body(text.encode(), 1, "logs")


def owe(
    state: State, source: Source, *bodies: Body, at: int = AT, windows: dict[bytes, Window] | None = None
) -> int:
    """Store an answer that owes these; gives the number of events given up."""
    windows = windows or {}
    return state.store(
        *(source, "b", b"digest", at, 1),
        gauges=[],
        owed=[body for body in bodies if body.signal == "metrics"],
        owed_at=at,
        events=[body for body in bodies if body.signal == "logs"],
        windows=windows,
        seen=[*windows],
    )


def owed(state: State, source: Source = APP) -> list[str]:
    return [item.body.data.decode() for item in state.outbox() if item.source[:2] == source[:2]]


def test_events_and_windows_move_apart(state: State) -> None:
    """A window goes with its distribution, and events with nothing; each only where its time is named."""
    owe(state, APP, Body(b"point", 1), event("old"), windows={b"a": Window(b"c", AT)})
    times = {AT: AT + MINUTE, AT + 1: AT + 2}
    state.move("main", "1", "logs", times, lambda body: Body(body.data + b"!", body.points, body.signal))
    assert [(item.body.data, item.stamp) for item in state.outbox()] == [
        (b"point", AT),
        (b"old!", AT + MINUTE),
    ]
    assert state.windows("main", "1")[b"a"].ended_at == AT
    state.move("main", "1", "metrics", times, lambda body: body)
    assert [item.stamp for item in state.outbox()] == [AT + MINUTE, AT + MINUTE]
    assert state.windows("main", "1")[b"a"].ended_at == AT + MINUTE
    state.move("main", "1", "logs", times, lambda body: body)
    assert [item.stamp for item in state.outbox("logs")] == [AT + MINUTE]


def test_events_are_dated_when_they_were_seen(state: State) -> None:
    """A window's end may be moved on; the events beside it keep their own time, by which they are found."""
    window = {b"a": Window(b"c", AT + MINUTE)}
    state.store(
        *(APP, "b", b"digest", AT, 1),
        gauges=[],
        owed=[Body(b"point", 1)],
        owed_at=AT + MINUTE,
        events=[event("new")],
        windows=window,
        seen=window,
    )
    assert [(item.body.signal, item.stamp) for item in state.outbox()] == [
        ("metrics", AT + MINUTE),
        ("logs", AT),
    ]
    assert state.owed_since("logs") == [("main", "1", [AT])]
    assert state.owed_since("metrics") == [("main", "1", [AT + MINUTE])]


def test_an_apps_owed_events_are_bounded(state: State) -> None:
    """The newest stay, in their order; no metrics nor other apps' events go for them; what goes is told."""
    owe(state, OTHER, event("other"))
    assert owe(state, APP, Body(b"point", 1), Body(b"three", 3, "logs")) == 0
    assert owe(state, APP, *(event(str(number)) for number in range(MOST_EVENTS))) == 3
    assert owed(state) == ["point", *map(str, range(MOST_EVENTS))]
    assert owe(state, APP, event("last")) == 1
    assert owed(state) == ["point", *map(str, range(1, MOST_EVENTS)), "last"]
    assert owed(state, OTHER) == ["other"]


def test_an_apps_owed_events_are_bounded_in_bytes(state: State) -> None:
    """Large ones are fewer; a single one stays, however large."""
    size = MOST_EVENT_BYTES // 4
    large = [Body(bytes([number]) * size, 1, "logs") for number in range(5)]
    assert owe(state, APP, *large) == 1
    assert [item.body.data[0] for item in state.outbox()] == [1, 2, 3, 4]
    assert owe(state, APP, Body(b"x" * (MOST_EVENT_BYTES + 1), 1, "logs")) == 4
    assert [item.body.data[:1] for item in state.outbox()] == [b"x"]
