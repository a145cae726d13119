from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.sandbox import AppStoreSandbox, Fault, OtlpFault, Sandbox
from tests.service.service_world import (
    LESS,
    OWN,
    assert_exactly_once,
    command,
    ended,
    running,
    terminate,
    values,
    wait_until,
)
from tests.service.test_cli import INTERRUPTIBLE

ONE_APP = "com.example.harbour"


class Runs:
    """Commands that end by themselves, between both ends."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.folder = folder
        self.sandbox = sandbox

    def environ(self, **more: str) -> dict[str, str]:
        return {
            **self.sandbox.environ(),
            **LESS,
            "PERFPOWER_STATE": str(self.folder / "state.db"),
            **more,
        }

    def __call__(self, *arguments: str, **more: str) -> tuple[int, str, str]:
        done = ended(command(*arguments), self.environ(**more), self.folder)
        assert "Traceback" not in done.stderr + done.stdout
        assert self.sandbox.appstore.private_key_pem[40:60] not in done.stderr + done.stdout
        return done.returncode, done.stdout, done.stderr

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Runs]:
    with Sandbox(appstore=AppStoreSandbox(day=lambda: 100.0)) as sandbox:
        yield Runs(tmp_path, sandbox)


def test_once_that_went_well_exits_with_0(run: Runs) -> None:
    """Everything polled and delivered, the exporter's own metrics too; a second run owes nothing new."""
    assert run("once")[0] == 0
    receiver = run.sandbox.receiver
    histograms = receiver.distinct_histograms()
    assert histograms
    assert values(receiver)
    assert {f"{OWN}polls", f"{OWN}requests", f"{OWN}points.sent"} <= {point.name for point in receiver.points}
    assert run("once")[0] == 0
    assert receiver.distinct_histograms() == histograms


def test_once_with_a_failure_exits_with_1_and_delivers_the_rest(run: Runs) -> None:
    """One app fails: it is named, the others arrive."""
    run.sandbox.appstore.fail("/v1/apps/1540000002", Fault(404))
    status, _, log = run("once")
    assert status == 1
    assert "1540000002" in log
    assert {dict(key[0])["service.name"] for key in values(run.sandbox.receiver)} == {
        "com.example.harbour",
        "com.example.tidepool",
    }


@pytest.mark.parametrize("status", [302, 400, 403, 500])
def test_once_without_an_endpoint_exits_with_1_and_keeps_everything(run: Runs, status: int) -> None:
    """What could not be delivered is stored, and the log says why; the next run delivers it."""
    run.sandbox.receiver.answer(OtlpFault(status=status, headers={"Location": "/"}), times=1000)
    code, _, log = run("once", ASC_APPS=ONE_APP)
    assert code == 1
    assert re.search(rf'"endpoint_says": "metrics: HTTP {status}\b', log)
    assert run.sandbox.receiver.points == []
    run.sandbox.receiver._faults.clear()
    assert run("once", ASC_APPS=ONE_APP)[0] == 0
    assert run.sandbox.receiver.distinct_histograms()


# Told to end

QUICKLY = 8.0  # seconds; Docker kills after ten


def test_sigterm_ends_once_with_what_was_asked_for_intact(run: Runs) -> None:
    """As when a Job is deleted while the Collector does not answer; the next run delivers all of it once."""
    run.sandbox.receiver.answer(OtlpFault(status=503, delay=40))
    environ = run.environ(ASC_APPS=ONE_APP, OTEL_EXPORTER_OTLP_TIMEOUT="30000")
    with running(command("once"), environ, run.folder / "output") as process:
        wait_until(lambda: run.sandbox.receiver.requests)
        assert terminate(process, QUICKLY) == 128 + signal.SIGTERM
    assert "Traceback" not in (run.folder / "output").read_text()
    assert values(run.sandbox.receiver) == {}
    assert run("once", ASC_APPS=ONE_APP)[0] == 0
    assert run.sandbox.receiver.distinct_histograms()
    assert_exactly_once(run.sandbox.receiver)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_once_while_app_store_connect_does_not_answer(run: Runs, number: int) -> None:
    """With the exit status that a shell gives to a program that the signal ended; no app is lost."""
    run.sandbox.appstore.fail("/v1/apps/", Fault(delay=40))
    arguments = [sys.executable, "-c", INTERRUPTIBLE, "once"]
    with running(arguments, run.environ(), run.folder / "output") as process:
        wait_until(lambda: len(run.sandbox.appstore.requests) == 2)
        process.send_signal(number)
        assert process.wait(QUICKLY) == 128 + number
    assert "Traceback" not in (run.folder / "output").read_text()
    assert run("once")[0] == 0
    assert len({dict(key[0])["service.name"] for key in values(run.sandbox.receiver)}) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="to be PID 1 of a namespace of its own takes root")
def test_sigterm_ends_once_as_pid_1(run: Runs) -> None:
    """As in a container, where the kernel drops a signal that PID 1 has no handler for."""
    run.sandbox.appstore.fail("/v1/apps", Fault(delay=40))
    arguments = ["unshare", "--pid", "--fork", "--kill-child", *command("once")]
    with running(arguments, run.environ(), run.folder / "output") as process:
        wait_until(lambda: run.sandbox.appstore.requests)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        os.kill(int(children), signal.SIGTERM)
        assert process.wait(QUICKLY) == 128 + signal.SIGTERM


@pytest.mark.parametrize("arguments", [("check",), ("plan",), ("once", "--dry-run")])
def test_sigterm_ends_what_only_looks(run: Runs, arguments: tuple[str, ...]) -> None:
    """The same status, no traceback, and no file."""
    run.sandbox.appstore.fail("/v1/apps", Fault(delay=40))
    output = run.folder.with_suffix(".output")
    with running(command(*arguments), run.environ(), output) as process:
        wait_until(lambda: run.sandbox.appstore.requests)
        assert terminate(process, QUICKLY) == 128 + signal.SIGTERM
    assert "Traceback" not in output.read_text()


def test_once_with_a_rejection_exits_with_1(run: Runs) -> None:
    """A partial success is no success; the log has the Collector's words."""
    run.sandbox.receiver.answer(OtlpFault(partial_success=(3, "not these three")))
    status, _, log = run("once")
    assert status == 1
    assert "not these three" in log


def test_a_dry_run_prints_and_writes_nothing(run: Runs) -> None:
    """Every point and event on standard output, the series by metric, no file, no request to the endpoint."""
    status, out, _ = run("once", "--dry-run")
    assert status == 0
    assert run.files() == {}
    assert run.sandbox.receiver.requests == []
    sent = [line for line in out.splitlines() if re.match(r"\d\d:\d\d:\d\d  appstore\.", line)]
    events = [line for line in sent if line[10:].startswith("appstore.insight ")]
    points = [line for line in sent if line not in events]
    assert any("WARN" in line and " above the versions before it" in line for line in events)
    match = re.search(r"^(\d+) series would be sent:$", out, re.M)
    assert match is not None
    assert int(match[1]) == len(points)
    assert re.search(r"^ +\d+  appstore\.launch\.time\b", out, re.M)
    assert "Values of account main that do not leave: " in out


def test_looking_leaves_a_real_state_as_it_is(run: Runs) -> None:
    """With a state from a run before, not a byte of it changes, no file is added, no point is sent."""
    assert run("once", ASC_APPS=ONE_APP)[0] == 0
    before, points = run.files(), len(run.sandbox.receiver.points)
    requests = len(run.sandbox.receiver.requests)
    assert run("once", "--dry-run", ASC_APPS=ONE_APP)[0] == 0
    assert len(run.sandbox.receiver.requests) == requests
    assert run("check", ASC_APPS=ONE_APP)[0] == 0
    assert [request.points for request in run.sandbox.receiver.requests[requests:]] == [0, 0]
    assert len(run.sandbox.receiver.points) == points
    assert run.files() == before


def test_a_check_that_went_well_shows_each_thing(run: Runs) -> None:
    """Configuration, state, endpoint for metrics and events, key, rate limit, series; nothing is written."""
    status, out, err = run("check")
    assert (status, err) == (0, "")
    assert run.files() == {}
    asked = [(request.path, request.points) for request in run.sandbox.receiver.requests]
    assert asked == [("/v1/metrics", 0), ("/v1/logs", 0)]
    heads = [line for line in out.splitlines() if line.startswith(("✓", "✗"))]
    assert len(heads) == 7
    assert all(line.startswith("✓") for line in heads)
    assert "rate limit 3600 an hour" in out
    assert "our share 1800; one poll costs 4" in out
    assert re.search(r"^ +\d+  com\.example\.harbour$", out, re.M)
    assert re.search(r"^ +\d+  appstore\.launch\.time\b", out, re.M)


def test_a_check_without_events_asks_for_no_place_for_them(run: Runs) -> None:
    """A Collector without a pipeline for logs is all right where no events are collected."""
    run.sandbox.receiver.answer(OtlpFault(status=404, path="/v1/logs"), times=10)
    status, out, _ = run("check", ASC_APPS=ONE_APP, PERFPOWER__COLLECT__EVENTS="false")
    assert status == 0
    assert "endpoint for events" not in out
    status, out, _ = run("check", ASC_APPS=ONE_APP)
    assert status == 1
    assert re.search(r"^✗ endpoint for events: .*HTTP 404.*collect\.events: false", out, re.M)


def test_a_check_asks_for_signatures_but_for_no_log(run: Runs) -> None:
    """The series of diagnostics are counted, at the price of a listing instead of a request a signature."""
    status, out, _ = run("check", ASC_APPS=ONE_APP, PERFPOWER__DIAGNOSTICS__VERSIONS="1")
    assert status == 0
    assert re.search(r"^ +\d+  appstore\.diagnostic\.signature\.weight\b", out, re.M)
    paths = [request.path for request in run.sandbox.appstore.requests]
    assert any(path.endswith("/diagnosticSignatures") for path in paths)
    assert not [path for path in paths if path.endswith("/logs")]
    assert "logs of diagnostics: not asked for; `once --dry-run` counts their histograms too" in out


def test_a_check_tells_what_the_logs_of_the_first_poll_cost(run: Runs) -> None:
    """The requests that a check spares itself are named beside the cost: one poll makes just so many."""
    more = {"ASC_APPS": ONE_APP, "PERFPOWER__DIAGNOSTICS__VERSIONS": "1"}
    _, out, _ = run("check", **more)
    told = re.search(
        r"^✓ account main: rate limit .*; one poll costs (\d+), "
        r"and up to (\d+) more for the logs of signatures that are new$",
        out,
        re.M,
    )
    assert told is not None, out
    before = len(run.sandbox.appstore.requests)
    assert before == int(told[1])
    assert run("once", **more)[0] == 0
    assert len(run.sandbox.appstore.requests) - before == int(told[1]) + int(told[2])
    _, out, _ = run("check", **more, PERFPOWER__DIAGNOSTICS__LOGS="false")
    assert "more for the logs" not in out


@pytest.mark.parametrize(
    ("apps", "fault"),
    [("com.example.gone", None), ("com.example.gone, com.example.harbour", None), (ONE_APP, Fault(401))],
)
def test_a_check_ticks_no_rate_limit_after_a_failure(run: Runs, apps: str, fault: Fault | None) -> None:
    """What a poll that failed has cost says nothing about one that goes well."""
    if fault:
        run.sandbox.appstore.fail("/v1/apps", fault, times=10)
    status, out, _ = run("check", ASC_APPS=apps)
    assert status == 1
    assert re.search(r"^✗ account main: ", out, re.M)
    assert not re.search(r"^✓ account main: rate limit", out, re.M)
    assert "one poll costs" not in out


def test_a_check_that_went_badly_says_what_to_do(run: Runs) -> None:
    """A refused key and an endpoint that is elsewhere: one line each, exit status 1, nothing written."""
    run.sandbox.appstore.fail("/v1/", Fault(401), times=10)
    run.sandbox.receiver.answer(OtlpFault(status=404))
    status, out, _ = run("check")
    assert status == 1
    assert re.search(
        r"^✗ endpoint: .*HTTP 404.*Is the Collector running, and otlp.endpoint right\?", out, re.M
    )
    assert re.search(r"^✗ account main: .*401.*Check that key SANDBOXKEY is not revoked", out, re.M)
    assert run.files() == {}


def test_a_check_that_selects_no_app_says_so(run: Runs) -> None:
    """A glob that fits nothing is found out before the first night without data."""
    status, out, _ = run("check", ASC_APPS="com.elsewhere.*")
    assert status == 1
    assert "no app is selected. Check apps.include and apps.exclude, and that" in out


def test_a_check_knows_what_the_running_exporter_used(run: Runs) -> None:
    """The key's share counts for both: a check cannot eat what the exporter needs."""
    assert run("once", PERFPOWER__LIMITS__KEY_SHARE="0.002")[0] == 0
    status, out, _ = run("check", PERFPOWER__LIMITS__KEY_SHARE="0.002")
    assert status == 1
    assert "put off: " in out
    assert len(run.sandbox.appstore.requests) == 7


def test_two_at_a_time_are_refused(run: Runs, tmp_path: Path) -> None:
    """A second process on the same state says so with exit status 1, and disturbs nothing."""
    from exporter.state import State

    state = State(tmp_path / "state.db")
    try:
        status, _, err = run("once")
    finally:
        state.close()
    assert status == 1
    assert re.fullmatch(r"error: .*state\.db: another exporter is using this state file\. .*\n", err)
    assert run.sandbox.appstore.requests == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"PERFPOWER__COLLECT__CATEGORIES": "[LAUNHC]"}, "filtered out"),
        ({"PERFPOWER__OTLP__PROTOCOL": "file", "PERFPOWER__OTLP__FILE": "no-state.db/x"}, "otlp.file"),
        ({"PERFPOWER_STATE": "/proc"}, "cannot be written"),
        ({"PERFPOWER_STATE": "no-state.db"}, "is no state file"),
    ],
)
def test_check_does_not_tick_what_a_run_could_not_use(run: Runs, more: dict[str, str], said: str) -> None:
    """A filter that lets nothing through, a file that cannot be written, a state file that is none."""
    (run.folder / "no-state.db").write_bytes(b"something else " * 1000)
    status, output, _ = run("check", **more)
    assert status == 1
    assert said in next(line for line in output.splitlines() if line.startswith("✗"))
