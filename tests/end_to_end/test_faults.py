"""What goes wrong between the exporter and a backend, with a real Collector: nothing owed is lost."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.sandbox import OtlpReceiver, Point
from exporter.state import State
from tests.backends.intake import Fault
from tests.end_to_end.fault_world import (
    ACCOUNT,
    BACKENDS,
    KEY,
    Content,
    Ends,
    Owed,
    Pair,
    Signal,
    by_series,
    content,
    event_key,
    resident,
    unchained,
)
from tests.service.killed_driver import KILLED
from tests.service.service_world import HOUR, ended, running, wait_until

MIB = 1 << 20

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


# The Collector is killed

IN_FLIGHT = {
    "refused": Fault(delay=2, close="before"),
    "kept": Fault(delay=2),  # the backend has it, and its yes does not get through
}


@pytest.mark.parametrize("fate", IN_FLIGHT)
@pytest.mark.parametrize("signal", ["metrics", "events"])
def test_collector_killed_while_it_sends(
    otelcol: Path, tmp_path: Path, backend: str, signal: Signal, fate: str
) -> None:
    """What was on its way comes after the restart; only events that the backend had kept come twice."""
    with Pair(otelcol, tmp_path, backend) as pair:
        pair.poll()
        intake, path = pair.intake(signal), pair.backend.paths[signal]
        intake.answer(replace(IN_FLIGHT[fate], path=path))
        sending = threading.Thread(target=pair.heartbeat)
        sending.start()
        wait_until(lambda: any(request.path == path for request in intake.requests))
        pair.kill_collector()
        sending.join()
        kept = pair.backend.told()
        assert "Connect" in pair.heartbeat()["endpoint_says"]
        pair.start_collector()
        assert pair.heartbeat()["outcome"] == "ok"
        pair.assert_all_arrived()
        assert pair.backend.told() == pair.owed.events + kept
        assert bool(kept) == ((signal, fate) == ("events", "kept"))


# The disk of the state file is full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("nobody but root can mount a small file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Not a byte is free, until the end of the block."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:  # now it is
            pass
    yield
    ballast.unlink()


def test_full_disk(otelcol: Path, tmp_path: Path, small_disk: Path, backend: str) -> None:
    """A poll stores nothing and says why; what is owed stays, is sent no more often than needed, and goes out
    when there is room again, with what the next poll brings.
    """
    with Pair(otelcol, tmp_path, backend, state=small_disk / "state.db") as pair:
        pair.poll()
        assert pair.heartbeat()["outcome"] == "ok"
        with filled(small_disk):
            for _ in range(2):
                pair.day += 1
                pair.exporter.poll_and_deliver(ACCOUNT)
                assert_says_disk_is_full(pair, "poll.failed")
            assert pair.state.outbox_depth() == 0
            assert pair.heartbeat()["outcome"] == "ok"  # nothing new, the newest gauges go on
        pair.poll()
        owed, before = pair.state.outbox_depth(), pair.backend.gauges()
        with filled(small_disk):
            for _ in range(3):
                pair.heartbeat()
                assert_says_disk_is_full(pair, "heartbeat.failed")
            assert pair.state.outbox_depth() == owed
            assert pair.backend.gauges().total() > before.total()  # what was taken is not in their way
        assert pair.heartbeat()["outcome"] == "ok"
        pair.assert_all_arrived()
        assert set(pair.backend.told().values()) == {1}


class FullDisk:
    """A connection to a state file in which nothing new can be written."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def execute(self, query: str, values: Any = ()) -> Any:
        if query.startswith(("INSERT", "UPDATE", "DELETE")):
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return self._db.execute(query, values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


def test_full_disk_sends_no_event_twice(otelcol: Path, tmp_path: Path, backend: str) -> None:
    """That events were taken cannot be written down: they are not sent again for that, while gauges go on."""
    with Pair(otelcol, tmp_path, backend) as pair:
        pair.poll()
        with pair.answering(Fault(503, path=pair.backend.paths["events"])):
            pair.heartbeat()
        assert {item.body.signal for item in pair.state.outbox()} == {"logs"}
        alive = pair.state._db
        pair.state._db = FullDisk(alive)  # type: ignore[assignment]
        before = pair.backend.gauges()
        for _ in range(3):
            pair.heartbeat()
            assert_says_disk_is_full(pair, "heartbeat.failed")
        assert len(pair.backend.gauges()) == len(before) + 3
        pair.state._db = alive
        pair.poll()
        assert pair.heartbeat()["outcome"] == "ok"
        pair.assert_all_arrived()
        assert pair.backend.told() == pair.owed.events


def assert_says_disk_is_full(pair: Pair, event: str) -> None:
    """In the log, and where somebody looks whether all is well."""
    last = pair.log.lines[-1]
    assert (last.level, last.event, last.fields["reason"]) == ("error", event, "state")
    for text in (last.fields["error"], " ".join(pair.exporter.status.not_ready())):
        assert (
            f"{pair.state_path}: the state file cannot be used (database or disk is full). Make room" in text
        )


# The backend is down


def test_backend_down_for_a_day(otelcol: Path, tmp_path: Path, backend: str) -> None:
    """At its return all that is owed arrives, dated as it will take it; old heartbeats are not owed; neither
    the outbox nor the memory of the two grows with the heartbeats.
    """
    with Pair(otelcol, tmp_path, backend) as pair:
        pair.poll()
        pair.heartbeat()
        gauges = pair.backend.gauges()
        with no_growth(pair):
            pair.backend_goes()
            down_for_half_a_day(pair, "connection refused")
            pair.backend_comes()
            with pair.answering(Fault(503)):
                down_for_half_a_day(pair, "503")
        assert pair.backend.gauges() == gauges
        assert pair.heartbeat()["outcome"] == "ok"
        pair.assert_all_arrived()
        assert pair.backend.told() == pair.owed.events
        new = pair.backend.gauges() - gauges
        assert list(new) == [int(pair.clock())]
        assert new.total() == sum(item.body.points for item in pair.state.snapshot())
        restamped = [line.fields["signal"] for line in pair.log.lines if line.event == "delivery.restamped"]
        assert {"metrics", "logs"} == set(restamped)


def down_for_half_a_day(pair: Pair, says: str) -> None:
    """Two polls, and a heartbeat each half hour, which are enough for all to become too old several times."""
    for _ in range(2):
        pair.poll()
        owed = pair.state.outbox_depth()
        for _ in range(12):
            delivery = pair.heartbeat(HOUR / 2)
            assert (delivery["outcome"], delivery["owed"]) == ("failed", owed)
            assert says in delivery["endpoint_says"]


@contextmanager
def no_growth(pair: Pair) -> Iterator[None]:
    """What the exporter, the Collector and the state file hold does not grow by what is sent in vain."""
    collector = resident(pair.collector.process.pid)
    tracemalloc.start()
    try:
        yield
        exporter, _ = tracemalloc.get_traced_memory()  # with both ends, which keep a line a request
    finally:
        tracemalloc.stop()
    assert exporter < 8 * MIB
    assert resident(pair.collector.process.pid) - collector < 64 * MIB
    assert pair.state_path.stat().st_size < 4 * MIB


# The backend refuses, or the Collector for it

SHORT_OF_MEMORY = "data refused due to high memory usage"
STATUSES = (429, 500, 502, 503, 401, 403, 400)


def test_backend_refuses_for_a_while(otelcol: Path, tmp_path: Path, backend: str) -> None:
    """Whatever it answers, nothing is lost, and the log and the status tell its answer and its address."""
    with Pair(otelcol, tmp_path, backend) as pair:
        for status in STATUSES:
            pair.poll()
            owed = pair.state.outbox_depth()
            with pair.answering(Fault(status, headers={"Retry-After": "5"})):
                for _ in range(2):
                    delivery = pair.heartbeat()
                    assert (delivery["outcome"], delivery["owed"]) == ("failed", owed)
            for words in pair.backend.words(status, status):
                assert words in delivery["endpoint_says"]
                assert words in " ".join(pair.exporter.status.not_ready())
            assert pair.heartbeat()["outcome"] == "ok"
            pair.assert_all_arrived()
        assert pair.backend.told() == pair.owed.events
        assert not [line for line in pair.log.lines if line.event == "delivery.given_up"]


def test_wrong_key(otelcol: Path, tmp_path: Path, backend: str) -> None:
    """An operator reads which address refused with which status, and never the key; with the right key in its
    file and the Collector started anew, all that is owed arrives.
    """
    wrong = "the-key-of-somebody-else"
    pair = Pair(otelcol, tmp_path, backend)
    pair.key_file.write_text(wrong)
    with pair:
        pair.poll()
        for _ in range(2):
            delivery = pair.heartbeat()
        for words in pair.backend.words(*pair.backend.refuses_keys):
            assert words in delivery["endpoint_says"]
        assert pair.refusals(for_the_key=True)
        assert not [word for word in (wrong, KEY) if word in f"{pair.log.lines}{pair.collector.said()}"]
        pair.kill_collector()
        pair.key_file.write_text(KEY)
        pair.start_collector()
        assert pair.heartbeat()["outcome"] == "ok"
        pair.assert_all_arrived()
        assert pair.backend.told() == pair.owed.events


def test_collector_short_of_memory(otelcol: Path, tmp_path: Path, backend: str) -> None:
    """Its memory limiter refuses; that is in the log, and all arrives when it has memory again."""
    pair = Pair(otelcol, tmp_path, backend)
    pair.further.write_text(
        "processors: {memory_limiter: {check_interval: 50ms, limit_mib: 2, spike_limit_mib: 1}}"
    )
    with pair:
        pair.poll()
        wait_until(lambda: SHORT_OF_MEMORY in str(pair.heartbeat()["endpoint_says"]))
        pair.poll()
        delivery = pair.heartbeat()
        assert delivery["owed"] == pair.state.outbox_depth() > 0
        assert f"HTTP 503: {SHORT_OF_MEMORY}" in delivery["endpoint_says"]
        pair.kill_collector()
        pair.further.write_text("{}")
        pair.start_collector()
        assert pair.heartbeat()["outcome"] == "ok"
        pair.assert_all_arrived()


def test_no_event_comes_twice_for_its_neighbours(otelcol: Path, tmp_path: Path, backend: str) -> None:
    """Of more events than fit into a request the backend takes the first and puts off the others for a while:
    what it took does not come again.
    """
    with Pair(otelcol, tmp_path, backend, ASC_APPS="") as pair:
        pair.poll()
        intake, path = pair.intake("events"), pair.backend.paths["events"]
        intake.answer(Fault(path=path))
        intake.answer(Fault(503, path=path))
        assert pair.heartbeat()["outcome"] == "ok"
        assert [request.status for request in intake.requests if request.path == path][:2] == [200, 503]
        pair.assert_all_arrived()
        assert pair.backend.told() == pair.owed.events


# The exporter is killed

ONCE = [sys.executable, "-m", "tests.service.killed_driver"]
UNDISTURBED = [*ONCE, "never", "1"]
OF_LOGS = "appstore.diagnostic."
PLACES = [("before commit", 9), ("before send", 1), ("after send", 3)]


def test_exporter_killed(otelcol: Path, tmp_path: Path, backend: str) -> None:
    """Killed in polls and deliveries, at random moments and at the worst ones: each distribution arrives,
    once; each event, and twice only if it was owed when the exporter was killed.
    """
    dice, owed, killed = random.Random(5), Owed(), 0
    with Ends(otelcol, tmp_path, backend) as ends:
        work = whole_run(ends)
        for place, count in PLACES:
            ends.day += 10  # so that there are events
            done = ended([*ONCE, place, str(count)], ends.environ(), tmp_path)
            assert done.returncode == KILLED, (place, done.stderr)
            note_what_is_owed(ends, owed)
        while killed < 3:
            ends.day += 1
            killed += killed_after(ends, dice.uniform(0.0, work / 2))
            note_what_is_owed(ends, owed)
        assert owed.events
        ends.day += 1
        whole_run(ends)
        assert_as_if_undisturbed(ends, owed)


def whole_run(ends: Ends) -> float:
    """A run to its end; gives how long it took from its first request on."""
    before = len(ends.appstore.requests)
    done = ended(UNDISTURBED, ends.environ(), ends.folder)
    assert done.returncode == 0, done.stderr
    return time.time() - ends.appstore.requests[before].at


def killed_after(ends: Ends, seconds: float) -> bool:
    """A run that is killed so long after its first request, unless it was quicker."""
    asked = len(ends.appstore.requests)
    with running(UNDISTURBED, ends.environ(), ends.folder / "log") as process:
        wait_until(lambda: len(ends.appstore.requests) > asked, 20)
        time.sleep(seconds)
        return process.poll() is None


def note_what_is_owed(ends: Ends, owed: Owed) -> None:
    """What a killed exporter left in its outbox."""
    with closing(State(ends.state_path)) as state:
        owed.add(state.outbox(), time.time())


def assert_as_if_undisturbed(ends: Ends, owed: Owed) -> None:
    """All that was owed is there, and what an exporter says that sees the last day for the first time."""
    told, received = ends.backend.told(), ends.received()
    assert not ends.refusals()
    assert not unchained(ends.backend.distributions())
    assert owed.events.keys() <= told.keys()
    assert {event for event, times in told.items() if times > 1} <= owed.events.keys()
    observed = [
        content for (_, name, _), contents in received.items() if OF_LOGS in name for content in contents
    ]
    assert sum(sum(counts) for counts, _ in observed) <= len(told)
    for series, contents in owed.distributions.items():
        assert set(contents) <= set(received[series])
    with OtlpReceiver() as other:
        environ = ends.environ(
            OTEL_EXPORTER_OTLP_ENDPOINT=other.url, PERFPOWER_STATE=str(ends.folder / "other.db")
        )
        assert ended(UNDISTURBED, environ, ends.folder).returncode == 0
        assert {event_key(record.body, record.attributes) for record in other.records} <= told.keys()
        for series, points in by_series(other.distinct_histograms()).items():
            assert_says_as_much(received[series], points)


def assert_says_as_much(received: list[Content], at_once: list[Point]) -> None:
    """Of what Apple measured the last distribution is the same; of logs, which are told of once, each window
    has some, and all of them no less than were there on the last day.
    """
    (point,) = at_once
    if OF_LOGS in point.name:
        together = [sum(counts) for counts in zip(*(counts for counts, _ in received), strict=True)]
        assert all(now >= then for now, then in zip(together, point.counts, strict=True))
    else:
        assert received[-1] == content(point)
