from __future__ import annotations

import json
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from exporter import service
from exporter.deliver import Delivery
from exporter.errors import StateError
from exporter.report import CycleReport
from exporter.sandbox import AppStoreSandbox, Fault, OtlpFault, OtlpReceiver, Sandbox
from exporter.service import Exporter, cron_trigger, poll_is_due, settings_digest
from exporter.settings import Schedule
from exporter.state import Source, State
from tests.service.service_world import (
    LESS,
    Log,
    ScriptedSink,
    command,
    gauges,
    put,
    running,
    settings_of,
    terminate,
    values,
    wait_until,
)

HEADER = "x-secret-header"
SECRET = "hush-hush-header-value"
DRAINING = """
import sys
from exporter import service
from exporter.cli import main
service.DRAIN = float(sys.argv[1])
main(["run"])
"""


class Service:
    """`perfpower-exporter run` as a process, between both ends in this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.day = 100.0
        self.sandbox = Sandbox(appstore=AppStoreSandbox(day=lambda: self.day))
        self.output = folder / "log"

    @property
    def appstore(self) -> AppStoreSandbox:
        return self.sandbox.appstore

    @property
    def receiver(self) -> OtlpReceiver:
        return self.sandbox.receiver

    def environ(self, **more: str) -> dict[str, str]:
        return {
            **self.sandbox.environ(),
            **LESS,
            "ASC_APPS": "com.example.harbour",
            "PERFPOWER_STATE": str(self.folder / "state" / "state.db"),
            "PERFPOWER__HTTP__LISTEN": "127.0.0.1:0",
            "PERFPOWER__SCHEDULE__HEARTBEAT": "1s",
            "PERFPOWER__LOG__LEVEL": "debug",
            "OTEL_EXPORTER_OTLP_HEADERS": f"{HEADER}={SECRET}",
            **more,
        }

    @contextmanager
    def run(self, *, drain: float = service.DRAIN, **more: str) -> Iterator[Any]:
        arguments = command("run") if drain == service.DRAIN else [sys.executable, "-c", DRAINING, str(drain)]
        with running(arguments, self.environ(**more), self.output) as process:
            yield process

    def lines(self) -> list[dict[str, Any]]:
        text = self.output.read_text() if self.output.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["event"] == name]

    def wait_for(self, event: str, count: int = 1, timeout: float = 10.0) -> dict[str, Any]:
        wait_until(lambda: len(self.events(event)) >= count, timeout)
        return self.events(event)[count - 1]

    def get(self, path: str) -> tuple[int, str]:
        answer = httpx.get(self.wait_for("started")["health"] + path, trust_env=False)
        return answer.status_code, answer.text


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    with service.sandbox:
        yield service


def test_a_service_starts_answers_and_ends(exporter: Service) -> None:
    """It polls at the start, delivers, is ready; SIGTERM ends it with status 0, and nothing is owed."""
    with exporter.run(ASC_APPS="") as process:
        poll = exporter.wait_for("poll")
        assert (poll["outcome"], poll["apps"], poll["requests"]) == ("ok", 3, 4)
        wait_until(lambda: values(exporter.receiver))
        wait_until(lambda: exporter.get("/readyz")[0] == 200)
        assert exporter.get("/livez") == (200, "ok\n")
        assert "com.example.harbour" in exporter.get("/")[1]
        assert terminate(process) == 0
    assert exporter.events("stopped")[0]["owed"] == 0
    assert {line["event"] for line in exporter.lines() if line["level"] in ("warning", "error")} <= {
        "cycle.series_cap_reached"
    }


def test_no_secret_is_printed_or_shown(exporter: Service) -> None:
    """With key and token refused, at debug level: reasons everywhere, secrets nowhere."""
    with exporter.run() as process:
        exporter.wait_for("poll")
        assert terminate(process) == 0
    exporter.appstore.fail("/v1/", Fault(401), times=1000)
    exporter.receiver.answer(OtlpFault(status=401), times=1000)
    shown = ""
    exporter.output.unlink()
    with exporter.run(PERFPOWER__COLLECT__DETAIL="aggregate") as process:
        exporter.wait_for("poll.failed")
        wait_until(lambda: "HTTP 401" in exporter.get("/readyz")[1])
        for path in ("/readyz", "/livez", "/"):
            code, text = exporter.get(path)
            shown += text
            assert code == (503 if path == "/readyz" else 200)
        assert "account main" in shown
        assert "revoked" in shown
        assert terminate(process) == 0
    shown += exporter.output.read_text()
    body = exporter.appstore.private_key_pem.splitlines()[1]
    for secret in (SECRET, body, body[:20], "BEGIN PRIVATE KEY", "Bearer ey", "eyJ"):
        assert secret not in shown
    assert "Traceback" not in shown


def test_an_endpoint_that_is_down_is_a_reason_and_nothing_is_lost(exporter: Service) -> None:
    """/readyz names the endpoint's trouble; once it is there, what was owed arrives."""
    exporter.receiver.answer(OtlpFault(status=503, headers={"Retry-After": "60"}), times=1000)
    with exporter.run() as process:
        exporter.wait_for("poll")
        wait_until(lambda: "HTTP 503" in exporter.get("/readyz")[1])
        assert terminate(process) == 0
    assert exporter.events("stopped")[0]["owed"] > 0
    exporter.receiver._faults.clear()
    with exporter.run() as process:
        wait_until(lambda: exporter.receiver.distinct_histograms())
        assert terminate(process) == 0
    assert exporter.events("stopped")[1]["owed"] == 0


def test_a_restart_delivers_at_once_and_asks_apple_nothing(exporter: Service) -> None:
    """The gauges of the last poll are there again within a heartbeat; no request goes to Apple."""
    with exporter.run() as process:
        wait_until(lambda: values(exporter.receiver))
        wait_until(lambda: exporter.events("poll"))
        assert terminate(process) == 0
    before = values(exporter.receiver)
    asked = len(exporter.appstore.requests)
    exporter.receiver._points.clear()
    with exporter.run() as process:
        wait_until(lambda: values(exporter.receiver) == before)
        assert terminate(process) == 0
    assert len(exporter.appstore.requests) == asked
    assert exporter.receiver.distinct_histograms() == []


def test_another_configuration_polls_at_the_start(exporter: Service) -> None:
    """What was collected in another way is asked for anew."""
    with exporter.run() as process:
        exporter.wait_for("poll")
        assert terminate(process) == 0
    with exporter.run(PERFPOWER__COLLECT__DETAIL="aggregate") as process:
        exporter.wait_for("poll", 2)
        assert terminate(process) == 0


@pytest.mark.parametrize("slow", ["app store", "endpoint"])
def test_sigterm_is_obeyed_while_an_answer_is_awaited(exporter: Service, slow: str) -> None:
    """The process is gone when the drain's deadline is over, with status 0, whoever is slow."""
    assert service.DRAIN <= 8  # Docker kills after ten seconds
    if slow == "app store":
        exporter.appstore.fail("/v1/apps/", Fault(delay=40), times=10)
    else:
        exporter.receiver.answer(OtlpFault(delay=40), times=100)
    with exporter.run(drain=2.0, OTEL_EXPORTER_OTLP_TIMEOUT="30000") as process:
        if slow == "app store":
            wait_until(lambda: len(exporter.appstore.requests) >= 2)
        else:
            wait_until(lambda: exporter.receiver.requests)
        time.sleep(0.2)
        started = time.monotonic()
        assert terminate(process) == 0
        assert time.monotonic() - started < 2.0 + 1.5
    assert "Traceback" not in exporter.output.read_text()


def test_a_second_sigterm_leaves_at_once(exporter: Service) -> None:
    """Whoever does not want to wait for the drain need not."""
    exporter.receiver.answer(OtlpFault(delay=40), times=100)
    with exporter.run(OTEL_EXPORTER_OTLP_TIMEOUT="30000") as process:
        wait_until(lambda: exporter.receiver.requests)
        process.send_signal(signal.SIGTERM)
        exporter.wait_for("stopping")
        started = time.monotonic()
        assert terminate(process) == 128 + signal.SIGTERM
        assert time.monotonic() - started < 2


def test_a_taken_port_ends_the_start(exporter: Service) -> None:
    """A health address that is in use is a configuration error, told in one sentence."""
    port = exporter.receiver.url.rpartition(":")[2]
    with exporter.run(PERFPOWER__HTTP__LISTEN=f"127.0.0.1:{port}") as process:
        assert process.wait(15) == 2
    text = exporter.output.read_text()
    assert re.search(r"^error: 127\.0\.0\.1:\d+ cannot be listened on", text, re.M)
    assert "Traceback" not in text


# In this process: what the schedule does


class Parts:
    """An `Exporter` with a scripted endpoint and no process of its own."""

    def __init__(self, folder: Path, sandbox: Sandbox, **overrides: object) -> None:
        environ = {**sandbox.environ(), "PERFPOWER_STATE": str(folder / "state.db")}
        self.settings = settings_of(
            environ, **{"http__listen": "off", "schedule__heartbeat": "1s", **overrides}
        )
        self.log = Log()
        self.state = State(self.settings.state.path)
        self.sink = ScriptedSink()
        self.stop = threading.Event()
        self.exporter = Exporter(
            self.settings, self.state, self.sink, log=self.log, own_metrics=False, stop=self.stop
        )


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with Sandbox(appstore=AppStoreSandbox(day=lambda: 100.0)) as sandbox:
        parts = Parts(tmp_path, sandbox)
        yield parts
        parts.exporter.close()
        parts.state.close()


def running_in_a_thread(parts: Parts) -> threading.Thread:
    thread = threading.Thread(target=service.run, args=(parts.exporter, parts.stop, parts.log))
    thread.start()
    return thread


def test_a_bug_in_a_job_does_not_end_the_schedule(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error is logged whole and shown; the next heartbeats come all the same."""
    calls: list[int] = []

    def broken(**_: object) -> Delivery:
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError("a bug")
        return Delivery()

    def broken_poll(_name: str) -> CycleReport | None:
        raise KeyError("another bug")

    monkeypatch.setattr(parts.exporter, "deliver", broken)
    monkeypatch.setattr(parts.exporter, "poll", broken_poll)
    thread = running_in_a_thread(parts)
    try:
        wait_until(lambda: len(calls) >= 3)
        wait_until(lambda: parts.log.of("poll.failed"))
        assert [line.level for line in parts.log.of("heartbeat.failed")] == ["exception"] * 2
        assert "a bug: KeyError" in parts.exporter.status.not_ready()
    finally:
        parts.stop.set()
        thread.join(10)
    assert not thread.is_alive()


def test_a_delivery_that_breaks_is_no_failed_poll(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told of as a heartbeat's is, and does not count among the polls that failed in a row."""

    def broken(**_: object) -> Delivery:
        raise StateError("the disk is full")

    monkeypatch.setattr(parts.exporter, "deliver", broken)
    parts.exporter.poll_and_deliver("main")
    assert [line.level for line in parts.log.of("heartbeat.failed")] == ["error"]
    assert parts.log.of("poll.failed") == []
    assert list(parts.exporter.status.failed_in_a_row()) == [(0, {"account": "main"})]


def test_a_poll_that_breaks_off_counts_once(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where everything was read, and only its end could not be written down."""

    def broken(*_: object) -> None:
        raise StateError("the disk is full")

    monkeypatch.setattr(parts.state, "finish_run", broken)
    for times in (1, 2):
        parts.exporter.poll_and_deliver("main")
        assert list(parts.exporter.status.failed_in_a_row()) == [(times, {"account": "main"})]


def test_metrics_leave_while_a_poll_still_asks_for_signatures(tmp_path: Path) -> None:
    """They wait neither for the rest of the poll, which may take minutes, nor for the next heartbeat."""
    chosen = {"schedule__heartbeat": "1h", "diagnostics__versions": 1, "diagnostics__logs": False}
    with Sandbox(appstore=AppStoreSandbox(day=lambda: 100.0)) as sandbox:
        sandbox.appstore.fail("/v1/builds", Fault(delay=1.0))
        parts = Parts(tmp_path, sandbox, accounts__0__apps="[com.example.harbour]", **chosen)
        thread = running_in_a_thread(parts)
        try:
            wait_until(lambda: parts.log.of("poll"), 20)
        finally:
            parts.stop.set()
            thread.join(10)
            parts.state.close()
        events = [line.event for line in parts.log.lines if line.fields.get("accepted", 1)]
        assert events.index("delivery") < events.index("poll")


def test_a_poll_that_outlives_the_schedule_ends_without_a_word(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics that are stored when the process drains bring no heartbeat forward, and are no bug."""
    monkeypatch.setattr(parts.exporter, "poll", lambda _name: None)
    thread = running_in_a_thread(parts)
    wait_until(lambda: parts.log.of("started"))
    parts.stop.set()
    thread.join(10)
    parts.exporter.metrics_stored()
    assert [line.event for line in parts.log.lines if line.level in ("error", "exception")] == []


def test_a_poll_that_is_still_going_on_is_not_begun_again(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schedule leaves it out, and the log says so in an event of its own; a heartbeat likewise."""
    begun: list[str] = []
    may_end = threading.Event()

    def slow(what: str) -> None:
        begun.append(what)
        may_end.wait(20)

    monkeypatch.setattr(parts.exporter, "poll", slow)
    monkeypatch.setattr(parts.exporter, "deliver", lambda **_: slow("heartbeat"))
    scheduler = service._scheduler(parts.exporter)
    parts.exporter.next_poll = lambda account: f"the next of {account}"
    scheduler.start()
    try:
        wait_until(lambda: sorted(begun) == ["heartbeat", "main"])
        for job in scheduler.get_jobs():
            job.modify(next_run_time=datetime.now(UTC))
        wait_until(lambda: parts.log.of("cycle.still_running") and parts.log.of("heartbeat.still_running"))
    finally:
        may_end.set()
        scheduler.shutdown(wait=False)
    (line,) = parts.log.of("cycle.still_running")
    assert (line.level, line.fields) == ("warning", {"account": "main", "next_poll": "the next of main"})
    assert begun.count("main") == 1


def test_what_is_put_off_is_told_with_when_it_goes_on(tmp_path: Path) -> None:
    """By kind and by app, how long it has waited, what the poll had, and the next poll where there is one."""
    with Sandbox(appstore=AppStoreSandbox(day=lambda: 100.0)) as sandbox:
        parts = Parts(tmp_path, sandbox, limits__key_share=0.0006)  # two requests: the listing and an app
        with closing(parts.state):
            with closing(parts.exporter):
                parts.exporter.poll("main")
            with parts.state._transaction() as execute:
                execute("UPDATE step SET waits_since = waits_since - 7200")
                execute("UPDATE request SET at = at - 7200")
            later = Exporter(parts.settings, parts.state, parts.sink, log=parts.log, own_metrics=False)
            later.next_poll = {"main": "2027-01-15T12:17:00+00:00"}.get
            with closing(later):
                later.poll("main")
    first, second = (line.fields for line in parts.log.of("cycle.deferred"))
    assert (first["of"], first["allowance"]) == ({"metrics": 2}, 1)
    assert first["waits_for_next_poll"] == {
        app: {"metrics": 1} for app in ("com.example.larkspur", "com.example.tidepool")
    }
    assert (first["oldest_wait_hours"], first["next_poll"]) == (None, None)
    assert second["of"] == {"metrics": 2}
    assert (second["oldest_wait_hours"], second["next_poll"]) == (2.0, "2027-01-15T12:17:00+00:00")


def test_stopping_breaks_off_a_wait_of_a_poll(parts: Parts) -> None:
    """A poll that waits for its pace or a retry ends when the process does; what it stored stays."""
    parts.stop.set()
    assert parts.exporter.poll("main") is None
    assert parts.state.last_run("main") is None


def test_a_failed_poll_is_due_again_at_the_next_start(parts: Parts) -> None:
    """Only a poll without failures counts as done."""
    assert parts.exporter.poll("main") is not None
    run = parts.state.last_run("main")
    assert run is not None
    assert run[1] == settings_digest(parts.settings)


def test_the_digest_of_the_settings_holds_no_key(tmp_path: Path) -> None:
    """Another private key does not make another configuration; another account or choice does."""
    environ = {"ASC_KEY_ID": "KEY", "ASC_ISSUER_ID": "ISSUER", "ASC_PRIVATE_KEY": "one"}

    def digest(more: dict[str, str], **overrides: object) -> bytes:
        return settings_digest(settings_of({**environ, **more}, **overrides))

    assert digest({}) == digest({"ASC_PRIVATE_KEY": "two"})
    assert digest({}) == digest({}, schedule__heartbeat="2m", log__level="debug")
    others = [
        digest({}),
        digest({"ASC_KEY_ID": "OTHER"}),
        digest({}, collect__detail="full"),
        digest({}, collect__builds=2),
        digest({}, limits__series_per_app=7),
        digest({}, accounts__0__apps="[com.example.a]"),
    ]
    assert len(set(others)) == len(others)


# When to poll


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("poll", "zone", "last", "now", "due"),
    [
        ("17 */6 * * *", "UTC", "2026-03-01 06:17:10", "2026-03-01 12:16:59", False),
        ("17 */6 * * *", "UTC", "2026-03-01 06:17:10", "2026-03-01 12:17:00", True),
        ("17 */6 * * *", "UTC", "2026-03-01 06:17:00", "2026-03-01 06:17:30", True),
        ("17 */6 * * *", "UTC", "2026-02-01 06:17:10", "2026-03-01 06:00:00", True),
        # Clocks go forward on 2026-03-29 at 01:00 UTC: 02:30 does not exist in Berlin.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28 02:31:00", "2026-03-29 01:45:00", False),
        ("30 2 * * *", "Europe/Berlin", "2026-03-28 02:31:00", "2026-03-29 04:00:00", True),
        ("30 2 * * *", "Europe/Berlin", "2026-03-29 04:00:00", "2026-03-30 02:29:00", False),
        # Clocks go back on 2026-10-25 at 01:00 UTC: 02:30 comes twice.
        ("0 12 * * *", "Europe/Berlin", "2026-10-24 12:01:00", "2026-10-25 11:59:00", False),
        ("0 12 * * *", "Europe/Berlin", "2026-10-24 12:01:00", "2026-10-25 12:00:00", True),
        ("0 9 * * mon", "UTC", "2026-03-02 09:00:30", "2026-03-09 08:59:00", False),
        ("0 9 * * mon", "UTC", "2026-03-02 09:00:30", "2026-03-09 09:00:00", True),
    ],
)
def test_a_missed_poll_is_due(poll: str, zone: str, last: str, now: str, due: bool) -> None:
    """At a start a poll is due if a planned one lies between the last and now, by the schedule's zone."""
    schedule = Schedule(poll=poll, timezone=zone)
    assert poll_is_due((at(last, zone), b"d"), b"d", schedule, at(now, zone)) is due


@pytest.mark.parametrize(
    ("last", "due"),
    [
        (None, True),
        ((at("2026-03-01 12:00"), b"d"), False),
        ((at("2026-03-01 12:00"), b"other"), True),
        ((at("2026-03-02 12:00"), b"d"), True),
    ],
)
def test_a_first_a_changed_and_a_future_run_are_due(last: tuple[float, bytes] | None, due: bool) -> None:
    """Without a last poll, with other settings, or when the clock was ahead at the last, it polls."""
    assert poll_is_due(last, b"d", Schedule(), at("2026-03-01 12:10")) is due


@pytest.mark.parametrize("jitter", ["0", "5m"])
def test_polls_come_by_the_cron_expression_with_jitter(jitter: str) -> None:
    """Each planned poll lies within the jitter after its time, in the schedule's zone."""
    schedule = Schedule(poll="30 9 * * *", timezone="Europe/Berlin", jitter=jitter)  # type: ignore[arg-type]
    trigger = cron_trigger(schedule)
    for day in ("2026-03-28", "2026-10-24"):
        moment = datetime.fromisoformat(f"{day} 12:00").replace(tzinfo=UTC)
        for _ in range(3):
            moment = trigger.get_next_fire_time(moment, moment)
            local = moment.astimezone(ZoneInfo("Europe/Berlin"))
            late = (local.hour * 60 + local.minute) * 60 + local.second - (9 * 60 + 30) * 60
            assert 0 <= late <= schedule.jitter


def test_reports_of_an_account_are_logged_with_their_counts(parts: Parts) -> None:
    """A poll's line has what it cost and brought; a delivery's what became of it."""
    parts.exporter.poll("main")
    parts.exporter.deliver()
    (poll,) = parts.log.of("poll")
    assert poll.level == "info"
    assert (poll.fields["apps"], poll.fields["requests"], poll.fields["failures"]) == (3, 4, 0)
    (delivery,) = parts.log.of("delivery")
    assert delivery.fields["accepted"] == poll.fields["points"] + poll.fields["distributions"]
    parts.exporter.heartbeat()
    assert [line.level for line in parts.log.of("delivery")] == ["info", "debug"]


def test_what_the_configuration_no_longer_wants_is_forgotten_at_the_start(tmp_path: Path) -> None:
    """A narrowed choice of apps stops the gauges of the others at once, not only at the next poll."""
    with Sandbox() as sandbox, closing(State(tmp_path / "state.db")) as state:
        put(state, Source("main", "1"), gauges=gauges(["appstore.launch.time"]))
        settings = settings_of({**sandbox.environ(), "ASC_APPS": "com.example.other"})
        exporter = Exporter(settings, state, ScriptedSink(), log=Log(), own_metrics=False)
        exporter.close()
        assert list(state.snapshot()) == []
