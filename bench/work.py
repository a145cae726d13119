"""The work that is timed, each in a process of its own: `python -m bench.work NAME COUNT`.

Prints one JSON line: gauge points (or logs), seconds, and the peak memory of the process in MB. Making the
payloads is not timed. Our own paths make distributions and comparisons as well; only gauge points that carry
a value of Apple's are counted, as in the plain path.
"""

from __future__ import annotations

import gzip
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.sdk.resources import Resource

from bench.logs import deep_document, logs_document, wide_document
from bench.payload import payload

NOW = 1_795_000_000_000_000_000


def plain(apps: int) -> tuple[int, float]:
    """json.loads → SDK data classes → encode_metrics → gzip."""
    from bench.plain import plain_body

    points, seconds = 0, 0.0
    for app in range(apps):
        body = payload(app)
        started = time.perf_counter()
        data, count = plain_body(body, app_resource(app), NOW)
        gzip.compress(data)
        points += count
        seconds += time.perf_counter() - started
    return points, seconds


def poll(apps: int) -> tuple[int, float]:
    """Payload → gzipped OTLP, gauges and distributions."""
    from exporter.convert.distributions import owed
    from exporter.intake import SCOPE
    from exporter.otlp.encode import encode

    sink, points, seconds = gzip_sink(), 0, 0.0
    for app in range(apps):
        body = payload(app)
        started = time.perf_counter()
        result = converted(body)
        distributions, _windows = owed(result.distributions, {}, NOW)
        for metrics in (result.gauges, distributions):
            for part in encode(app_resource(app), SCOPE, metrics):
                sink.send(part)
        seconds += time.perf_counter() - started
        points += result.offered
    return points, seconds


def stored(apps: int) -> tuple[int, float]:
    """The same through the state file and one delivery."""
    with temporary_state() as state:
        points, seconds = fill(state, apps)
        started = time.perf_counter()
        deliver(state)
        return points, seconds + time.perf_counter() - started


def heartbeat(apps: int) -> tuple[int, float]:
    """The newest gauges once more, with the current time."""
    with temporary_state() as state:
        points, _seconds = fill(state, apps)
        deliver(state)
        started = time.perf_counter()
        deliver(state)
        return points, time.perf_counter() - started


def logs(documents: int) -> tuple[int, float]:
    """Documents of ten ordinary logs each."""
    return _events([logs_document(number, 10) for number in range(documents)])


def deep_log(documents: int) -> tuple[int, float]:
    """Documents of one log whose stack is 10,000 frames deep."""
    return _events([deep_document(10_000)] * documents)


def wide_log(documents: int) -> tuple[int, float]:
    """Documents of one log with a tree of 100,000 frames."""
    return _events([wide_document(100_000)] * documents)


def _events(documents: list[bytes]) -> tuple[int, float]:
    from exporter.appstore.documents import loads
    from exporter.appstore.payloads.diagnostics import Signature, parse_logs
    from exporter.convert.diagnostics import Context, Origin, convert_logs
    from exporter.intake import SCOPE
    from exporter.otlp.encode import encode_events

    signature = Signature("5f3a", "HANGS", "Shop.Checkout.pay() + 48", 0.5, None, ())
    context = Context(signature, Origin("2.0", "77", "iOS"), "", None, {}, comparable=True)
    encode_events(app_resource(0), SCOPE, [])  # what it imports is not what is measured
    sink, count = gzip_sink(), 0
    started = time.perf_counter()
    for document in documents:
        parsed = parse_logs(loads(document))
        events = convert_logs(parsed.products, context, seen=(), observed_at=NOW).events
        for body in encode_events(app_resource(0), SCOPE, events):
            sink.send(body)
        count += len(events)
    return count, time.perf_counter() - started


def converted(body: bytes) -> Any:
    from exporter.appstore.payloads.metrics import parse_metrics
    from exporter.convert.metrics import Selection, convert

    document = json.loads(body, parse_int=float)
    return convert(parse_metrics(document), Selection("full"), observed_at=NOW, series_cap=10**9)


def app_resource(app: int) -> Resource:
    return Resource({"service.name": f"com.example.app{app}", "appstore.app.id": str(1000 + app)})


def fill(state: Any, apps: int) -> tuple[int, float]:
    """Stores what a poll of so many apps brings."""
    from exporter.convert.distributions import owed
    from exporter.intake import SCOPE
    from exporter.otlp.encode import encode
    from exporter.state import Source

    points, seconds = 0, 0.0
    for app in range(apps):
        body = payload(app)
        started = time.perf_counter()
        result = converted(body)
        metrics, windows = owed(result.distributions, {}, NOW)
        state.store(
            Source("main", str(app)),
            f"com.example.app{app}",
            b"digest",
            NOW,
            result.series.total(),
            gauges=encode(app_resource(app), SCOPE, result.gauges),
            owed=encode(app_resource(app), SCOPE, metrics),
            owed_at=NOW,
            windows=windows,
            seen=windows,
        )
        seconds += time.perf_counter() - started
        points += result.offered
    return points, seconds


def deliver(state: Any) -> None:
    from exporter.deliver import Deliverer

    class Silent:
        def info(self, *_args: object, **_fields: object) -> None: ...

    deliverer = Deliverer(state, gzip_sink(), clock=lambda: NOW / 1e9 + 60, sleep=time.sleep, log=Silent())
    assert deliverer.deliver().outcome == "ok"


def gzip_sink() -> Any:
    """Does what the HTTP sink does before the network."""
    from exporter.otlp.sink import Outcome, Reply

    class GzipSink:
        def send(self, body: Any) -> Reply:
            gzip.compress(body.data, compresslevel=1, mtime=0)
            return Reply(Outcome.ACCEPTED)

        def close(self) -> None: ...

    return GzipSink()


@contextmanager
def temporary_state() -> Iterator[Any]:
    from exporter.state import State

    with tempfile.TemporaryDirectory() as folder, closing(State(Path(folder) / "state.db")) as state:
        yield state


WORK: dict[str, Callable[[int], tuple[int, float]]] = {
    work.__name__: work for work in (plain, poll, stored, heartbeat)
}
LOG_WORK: dict[str, Callable[[int], tuple[int, float]]] = {
    work.__name__: work for work in (logs, deep_log, wide_log)
}

if __name__ == "__main__":
    if sys.argv[1] != "plain":  # as the command line does for us
        import exporter.cycle  # noqa: F401  # so that its objects are among those set aside
        from exporter.tuning import calm_garbage_collector

        calm_garbage_collector()
    done, took = (WORK | LOG_WORK)[sys.argv[1]](int(sys.argv[2]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"points": done, "seconds": took, "peak_mb": peak}))
