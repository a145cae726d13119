from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.sandbox import AppStoreSandbox, OtlpFault, OtlpReceiver, Sandbox
from tests.service.killed_driver import KILLED
from tests.service.service_world import (
    LESS,
    OWN,
    assert_exactly_once,
    by_series,
    command,
    content,
    ended,
    running,
    values,
    wait_until,
)


class Kills:
    """Both ends, and a state that processes come back to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.day = 100.0
        self.sandbox = Sandbox(
            appstore=AppStoreSandbox(day=lambda: self.day, minute_limit=3000),
            receiver=OtlpReceiver(keep=2_000_000),
        )

    @property
    def receiver(self) -> OtlpReceiver:
        return self.sandbox.receiver

    def environ(self, **more: str) -> dict[str, str]:
        return {
            **self.sandbox.environ(),
            **LESS,
            "ASC_APPS": "com.example.harbour, com.example.tidepool",
            "PERFPOWER_STATE": str(self.folder / "state.db"),
            **more,
        }

    def assert_as_if_undisturbed(self, since: float) -> None:
        """The receiver ends with every histogram owed, once, and with an undisturbed exporter's gauges.

        `since` is when the last, whole run began: nothing that is no longer true may be dated later.
        """
        assert_exactly_once(self.receiver)
        with OtlpReceiver() as other:
            environ = self.environ(
                PERFPOWER_STATE=str(self.folder / "other.db"), OTEL_EXPORTER_OTLP_ENDPOINT=other.url
            )
            done = ended(command("once"), environ, self.folder)
            assert done.returncode == 0, done.stderr
            newest, right = values(self.receiver), values(other)
            assert {key: newest.get(key) for key in right} == right
            histograms = by_series(self.receiver)
            for series, points in by_series(other).items():
                assert content(histograms[series][-1]) == content(points[-1])
        for key, point in self.receiver.latest().items():
            assert key in right or point.name.startswith(OWN) or point.time_unix_nano < since * 1e9


@pytest.fixture
def kills(tmp_path: Path) -> Iterator[Kills]:
    kills = Kills(tmp_path)
    with kills.sandbox:
        yield kills


def whole_run(kills: Kills) -> float:
    began = time.time()
    done = ended(command("once"), kills.environ(), kills.folder)
    assert done.returncode == 0, done.stderr
    return began


def seconds_of_work(kills: Kills) -> float:
    """How long a run takes here and now, from its first request to its end."""
    whole_run(kills)
    return time.time() - kills.sandbox.appstore.requests[0].at


def killed_after(kills: Kills, seconds: float) -> bool:
    """A run that is killed so long after its first request, unless it was quicker."""
    asked = len(kills.sandbox.appstore.requests)
    with running(command("once"), kills.environ(), kills.folder / "log") as process:
        wait_until(lambda: len(kills.sandbox.appstore.requests) > asked, 20)
        time.sleep(seconds)
        return process.poll() is None


def test_killed_at_random_moments(kills: Kills) -> None:
    """Twenty SIGKILLs while the contents change: nothing is lost, nothing comes twice."""
    dice, work, killed = random.Random(20261121), seconds_of_work(kills), 0
    for _ in range(40):
        kills.day += dice.random() < 0.5
        if dice.random() < 0.2:  # stored, but not answered: it will come again
            kills.receiver.answer(OtlpFault(close="after"))
        killed += killed_after(kills, dice.uniform(0.0, work))
        if killed == 20:
            break
    assert killed == 20
    kills.day += 1
    kills.receiver._faults.clear()
    kills.assert_as_if_undisturbed(whole_run(kills))
    assert "Traceback" not in (kills.folder / "log").read_text()
    assert len(kills.receiver.distinct_histograms()) > len(by_series(kills.receiver))


PLACES = [
    ("before store", 1),
    ("before commit", 9),  # of the second app's answer; before it: forgetting, requests, attempts, an answer
    ("after commit", 9),
    ("after store", 2),
    ("before finish_run", 1),
    ("after finish_run", 1),
    ("before send", 1),
    ("after send", 1),
    ("before acknowledge", 1),
    ("after acknowledge", 1),
    ("before send", 2),
    ("after send", 2),
    ("after acknowledge", 2),
]


def test_killed_inside_each_critical_window(kills: Kills) -> None:
    """Before and after each answer is stored, sent and acknowledged; one kill upon the other."""
    for place, count in PLACES:
        kills.day += 1
        driver = [sys.executable, "-m", "tests.service.killed_driver", place, str(count)]
        done = ended(driver, kills.environ(), kills.folder)
        assert done.returncode == KILLED, (place, done.stderr)
    kills.day += 1
    kills.assert_as_if_undisturbed(whole_run(kills))


def test_killed_between_sending_and_acknowledging_sends_the_same_again(kills: Kills) -> None:
    """What was taken but not acknowledged comes again with the same times, and so overwrites itself."""
    driver = [sys.executable, "-m", "tests.service.killed_driver", "after send", "1"]
    assert ended(driver, kills.environ(), kills.folder).returncode == KILLED
    first = kills.receiver.points
    assert first
    whole_run(kills)
    histograms = [point for point in kills.receiver.points if point.kind == "histogram"]
    assert len(histograms) == 2 * len(first)
    assert len(kills.receiver.distinct_histograms()) == len(first)
