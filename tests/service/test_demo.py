from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Event
from time import monotonic

import pytest
from click.testing import CliRunner

from exporter.cli import main
from exporter.demo import Narrator
from exporter.sandbox import AppStoreSandbox, OtlpReceiver, Sandbox
from exporter.service import Exporter
from exporter.state import State
from tests.service.service_world import ScriptedSink, command, running, settings_of, wait_until


class Demo:
    """`run --sandbox` with folders of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output = folder / "tmp", folder / "out" / "log"
        self.folder.mkdir()
        self.output.parent.mkdir()
        self.seconds = 0.0

    def __call__(self, enough: Callable[[str], bool], *arguments: str, **more: str) -> str:
        """What it says until that is enough and Ctrl-C has ended it; `seconds` is how long enough took."""
        environ = {"TMPDIR": str(self.folder), "PERFPOWER__HTTP__LISTEN": "127.0.0.1:0", **more}
        started = monotonic()
        with running(
            command("run", "--sandbox", *arguments), {"PYTHONUNBUFFERED": "1", **environ}, self.output
        ) as process:
            wait_until(lambda: enough(self.output.read_text()), 20)
            self.seconds = monotonic() - started
            process.send_signal(signal.SIGINT)
            assert process.wait(15) == 0
        return self.output.read_text()


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    return Demo(tmp_path)


def test_the_sandbox_shows_the_whole_way_and_leaves_nothing(demo: Demo) -> None:
    """`run --sandbox` polls, delivers and says so; Ctrl-C ends it with status 0, and no file stays."""
    text = demo(
        lambda text: "metrics in all" in text and " polled " in text, PERFPOWER__DIAGNOSTICS__VERSIONS="0"
    )
    assert "nothing leaves this machine" in text
    assert "a day passes each minute\n" in text
    assert " polled     3 apps, requests: 4; 0 of 3 answers as before" in text
    assert " delivered  " in text
    assert " started    status page at http://127.0.0.1:" in text
    assert " stopped    items still owed: 0" in text
    assert "com.example.harbour" in text
    assert "7.40.0: +61% against the versions before, slower: a regression" in text
    assert "Traceback" not in text
    assert "PRIVATE KEY" not in text
    assert os.listdir(demo.folder) == []
    assert os.listdir(demo.output.parent) == ["log"]


def test_the_sandbox_shows_its_first_numbers_before_the_call_stacks(demo: Demo) -> None:
    """With diagnostics, whose first poll takes a minute, the metrics are there in seconds."""
    text = demo(lambda text: "metrics in all" in text)
    assert demo.seconds < 15  # on a busy machine; on an idle one it takes two
    assert " polled " not in text
    assert "7.40.0: +61% against the versions before, slower: a regression" in text
    assert " stopped    items still owed: " in text
    assert "Traceback" not in text
    assert ".failed" not in text
    assert os.listdir(demo.folder) == []


def test_the_sandbox_can_push_to_a_collector(demo: Demo) -> None:
    """With --endpoint its numbers arrive there and not in the built-in receiver, and it says so."""
    with OtlpReceiver() as collector:
        url = collector.url
        text = demo(lambda text: " delivered " in text, "--endpoint", url)
        services = {point.resource["service.name"] for point in collector.points}
    assert "com.example.harbour" in services
    assert f"  Collector          {url}  " in text
    assert "nothing leaves this machine" not in text
    assert "a day passes every 5 minutes\n" in text
    assert "What the receiver got" not in text
    assert "Traceback" not in text
    assert os.listdir(demo.folder) == []


def test_an_endpoint_without_the_sandbox_is_refused() -> None:
    """It would otherwise be taken for the configuration's endpoint, and be ignored."""
    result = CliRunner().invoke(main, ["run", "--endpoint", "http://127.0.0.1:4318"])
    assert result.exit_code == 2
    assert "otlp.endpoint" in result.stderr


def test_all_that_a_poll_tells_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A budget that is too small, a missing overview: told in words, not by the names of log events."""
    sandbox = Sandbox(appstore=AppStoreSandbox(day=lambda: 100.0, hour_limit=16))
    with sandbox, closing(State(tmp_path / "state.db")) as state:
        settings = settings_of(sandbox.environ(), diagnostics__versions=1)
        narrator = Narrator(sandbox, Event())
        exporter = Exporter(settings, state, ScriptedSink(), log=narrator, own_metrics=False)
        with closing(exporter):
            exporter.poll("main")
    told = capsys.readouterr().out
    assert " put off    to the next poll: " in told
    assert " noted      no overview of com.example.tidepool: " in told
    assert " polled     3 apps, " in told
    assert "cycle." not in told
    assert "left_out {" not in told
    assert "account main" not in told


def test_what_is_skipped_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """The first poll may take longer than the minute to the next: told as what it is."""
    with Sandbox() as sandbox:
        narrator = Narrator(sandbox, Event())
        narrator.warning("cycle.still_running", account="main", next_poll=None)
        narrator.warning("heartbeat.still_running")
    poll, heartbeat = capsys.readouterr().out.splitlines()
    assert poll[10:] == "left out   this minute's poll: the one before still goes on"
    assert heartbeat[10:] == "left out   a heartbeat: the one before is still sending"
