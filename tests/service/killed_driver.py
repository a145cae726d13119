"""`once` in a process that ends itself, as if by SIGKILL, at a place named on the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any

from exporter.endpoint import open_sink
from exporter.otlp.encode import Body
from exporter.otlp.sink import Reply, Sink
from exporter.service import Exporter, once
from exporter.settings import load
from exporter.state import State
from tests.service.service_world import Log

KILLED = 9


class Fuse:
    """Ends the process when a place is passed for the n-th time."""

    def __init__(self, place: str, count: int) -> None:
        self._place = place
        self._left = count

    def __call__(self, place: str) -> None:
        self._left -= place == self._place
        if self._left == 0:
            os._exit(KILLED)


class KilledSink:
    def __init__(self, sink: Sink, fuse: Fuse) -> None:
        self._sink = sink
        self._fuse = fuse

    def send(self, body: Body) -> Reply:
        self._fuse("before send")
        reply = self._sink.send(body)
        self._fuse("after send")
        return reply

    def close(self) -> None:
        self._sink.close()


class Hasty(Exporter):
    """Does not wait for its pace."""

    def _sleep(self, seconds: float) -> None:
        """Go on at once."""


class Database:
    """A connection on whose way each COMMIT passes the fuse twice."""

    def __init__(self, db: Any, fuse: Fuse) -> None:
        self._db = db
        self._fuse = fuse

    def execute(self, query: str, values: Any = ()) -> Any:
        if query != "COMMIT":
            return self._db.execute(query, values)
        self._fuse("before commit")
        done = self._db.execute(query, values)
        self._fuse("after commit")
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


def fused(state: State, fuse: Fuse, name: str) -> None:
    """Let a method of the state pass the fuse before and after."""
    method: Callable[..., Any] = getattr(state, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        fuse(f"before {name}")
        result = method(*arguments, **named)
        fuse(f"after {name}")
        return result

    setattr(state, name, wrapped)


def main(place: str, count: int) -> int:
    settings, fuse = load(None, os.environ), Fuse(place, count)
    with closing(State(settings.state.path)) as state:
        state._db = Database(state._db, fuse)  # type: ignore[assignment]
        for name in ("store", "acknowledge", "finish_run"):
            fused(state, fuse, name)
        sink = KilledSink(open_sink(settings.otlp), fuse)
        exporter = Hasty(settings, state, sink, log=Log(), own_metrics=False)
        with closing(exporter):
            return once(exporter)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
