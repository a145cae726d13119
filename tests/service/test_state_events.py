from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from exporter.convert.distributions import Window
from exporter.otlp.encode import Body
from exporter.state import Source, State
from exporter.state.state import MOST_EVENTS
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
        source, "b", b"digest", at, 1, gauges=[], owed=bodies, owed_at=at, windows=windows, seen=[*windows]
    )


def owed(state: State, source: Source = APP) -> list[str]:
    return [item.body.data.decode() for item in state.outbox() if item.source[:2] == source[:2]]


def test_an_event_that_stays_owed_moves_no_delivered_window(state: State) -> None:
    """A delivered distribution's window ended when its point says, however late the event beside it goes."""
    owe(state, APP, Body(b"point", 1), event("stack"), windows={b"a": Window(b"c", AT)})
    state.acknowledge([item for item in state.outbox() if item.body.signal == "metrics"])
    state.move_windows("main", "1", {AT: AT + MINUTE}, lambda body: body)
    assert state.windows("main", "1")[b"a"].ended_at == AT
    assert [(item.body.signal, item.stamp) for item in state.outbox()] == [("logs", AT + MINUTE)]


def test_windows_that_are_owed_move_with_the_events_beside_them(state: State) -> None:
    """Of two distributions, one delivered and one not, the latter's window moves, and all that is owed."""
    owe(state, APP, Body(b"point", 1), event("old"), windows={b"a": Window(b"c", AT)})
    state.acknowledge([item for item in state.outbox() if item.body.signal == "metrics"])
    later = AT + MINUTE
    owe(state, APP, Body(b"point", 1), event("new"), at=later, windows={b"b": Window(b"c", later)})
    times = {AT: AT + 5 * MINUTE, later: AT + 6 * MINUTE}
    state.move_windows("main", "1", times, lambda body: Body(body.data + b"!", body.points, body.signal))
    ends = {series: window.ended_at for series, window in state.windows("main", "1").items()}
    assert ends == {b"a": AT, b"b": AT + 6 * MINUTE}
    assert [(item.body.data, item.stamp) for item in state.outbox()] == [
        (b"old!", AT + 5 * MINUTE),
        (b"point!", AT + 6 * MINUTE),
        (b"new!", AT + 6 * MINUTE),
    ]


def test_an_apps_owed_events_are_bounded(state: State) -> None:
    """The newest stay, in their order; no metrics and no other app's events go for them; what goes is told."""
    owe(state, OTHER, event("other"))
    assert owe(state, APP, Body(b"point", 1), Body(b"three", 3, "logs")) == 0
    assert owe(state, APP, *(event(str(number)) for number in range(MOST_EVENTS))) == 3
    assert owed(state) == ["point", *map(str, range(MOST_EVENTS))]
    assert owe(state, APP, event("last")) == 1
    assert owed(state) == ["point", *map(str, range(1, MOST_EVENTS)), "last"]
    assert owed(state, OTHER) == ["other"]
