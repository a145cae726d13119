"""How many requests a poll takes, counted by the sandbox that answers them; the clock is simulated."""

from __future__ import annotations

import tempfile
import threading
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.appstore.client import AppStoreClient
from exporter.appstore.discovery import complete, newest_versions
from exporter.errors import NotFound
from exporter.otlp.encode import Body
from exporter.otlp.sink import Outcome, Reply
from exporter.sandbox import AppStoreSandbox, Sandbox
from exporter.service import Exporter
from exporter.settings import load
from exporter.state import State

_DAY = 60.0


@dataclass(frozen=True)
class RequestCounts:
    """Requests for one poll of all apps."""

    plain: int
    first: int
    steady: int
    next_day: int


class _Clock(threading.Event):
    """Time that passes only when somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_795_000_000.0

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        return False

    def __call__(self) -> float:
        return self.now


class _Nowhere:
    def send(self, body: Body) -> Reply:
        return Reply(Outcome.ACCEPTED)

    def close(self) -> None: ...


class _Silent:
    def __getattr__(self, level: str) -> Any:
        return lambda *_args, **_fields: None


def request_counts() -> RequestCounts:
    """First, steady and the day after; and the crawl that fetches everything, on the same data."""
    clock, today = _Clock(), _DAY
    with ExitStack() as opened:
        appstore = AppStoreSandbox(clock=clock, day=lambda: today)
        sandbox = opened.enter_context(Sandbox(appstore=appstore))
        folder = opened.enter_context(tempfile.TemporaryDirectory())
        environ = {**sandbox.environ(), "PERFPOWER_STATE": str(Path(folder) / "state.db")}
        settings = load(None, environ | {"PERFPOWER__LIMITS__KEY_SHARE": "1"})
        state = opened.enter_context(closing(State(settings.state.path)))
        exporter = Exporter(
            settings, state, _Nowhere(), log=_Silent(), own_metrics=False, stop=clock, clock=clock
        )
        opened.enter_context(closing(exporter))

        def poll() -> int:
            clock.now += 6 * 3600
            report = exporter.poll("main")
            assert report is not None
            assert report.outcome == "ok", report.failures
            return report.requests

        first, steady = poll(), poll()
        today += 1
        next_day = poll()
        clock.now += 6 * 3600
        before = len(appstore.requests)
        _crawl(exporter.clients["main"], settings.diagnostics.versions)
        return RequestCounts(len(appstore.requests) - before, first, steady, next_day)


def _crawl(client: AppStoreClient, versions: int) -> None:
    """What a script does that remembers nothing: everything, every time."""
    for app in client.apps():
        client.metrics("apps", app.id)
        with suppress(NotFound):
            client.overview(app.id)
        builds = client.builds(
            app.id, enough=lambda found: complete(found, versions=versions, testflight=False)
        )
        for build in newest_versions(builds, versions=versions, testflight=False):
            try:
                pages = client.signatures(build.id)
            except NotFound:
                continue
            for page in pages:
                for resource in page.document["data"]:  # type: ignore[attr-defined]
                    client.logs(resource["id"])
