from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from exporter.cli import main
from exporter.sandbox import AppStoreSandbox, Fault, Sandbox
from exporter.service import Exporter
from exporter.state import State
from tests.service.service_world import Log, ScriptedSink, settings_of

ROW = re.compile(r"  (    |wait)  (\S+) +(\d+)  (.+)")


class Hasty(Exporter):
    """Does not wait for its pace."""

    def _sleep(self, seconds: float) -> None:
        """Go on at once."""


class Planning:
    """`perfpower-exporter plan` between both ends, in this process."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.path = folder / "state.db"

    def environ(self, **more: str) -> dict[str, str]:
        return {
            **self.sandbox.environ(),
            "ASC_APPS": "com.example.tidepool",
            "PERFPOWER_STATE": str(self.path),
            "PERFPOWER__COLLECT__CATEGORIES": "[LAUNCH]",
            **more,
        }

    def __call__(self, **more: str) -> Result:
        result = CliRunner(env=self.environ(**more)).invoke(main, ["plan"])
        assert "Traceback" not in result.output
        assert self.sandbox.appstore.private_key_pem[40:60] not in result.output
        return result

    def poll(self, **overrides: object) -> None:
        """What a running exporter would have done in the last hour."""
        settings = settings_of(self.environ(), diagnostics__versions=3, **overrides)
        with (
            closing(State(self.path)) as state,
            closing(Hasty(settings, state, ScriptedSink(), log=Log(), own_metrics=False)) as exporter,
        ):
            exporter.poll("main")

    def asked(self) -> list[str]:
        return [request.path for request in self.sandbox.appstore.requests]


def rows(result: Result) -> list[tuple[bool, str, int, str]]:
    """(fits, what, requests, about) of each line of the table."""
    found = [ROW.fullmatch(line) for line in result.output.splitlines()]
    return [(not row[1].strip(), row[2], int(row[3]), row[4]) for row in found if row]


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[Planning]:
    with Sandbox(appstore=AppStoreSandbox(day=lambda: 100.0)) as sandbox:
        yield Planning(tmp_path, sandbox)


def test_a_plan_costs_what_the_listing_costs(plan: Planning) -> None:
    """The apps and their builds are asked for, nothing else; nothing is sent, and no file is made."""
    result = plan(ASC_APPS="")
    assert result.exit_code == 0, result.output
    assert plan.asked() == ["/v1/apps", *["/v1/builds"] * 3]
    assert plan.sandbox.receiver.requests == []
    assert list(plan.folder.iterdir()) == []


def test_a_plan_shows_each_step_in_its_order(plan: Planning) -> None:
    """Metrics, overview, signatures with their builds; then, in words, what cannot be known beforehand."""
    result = plan(ASC_APPS="")
    steps = rows(result)
    assert [what for _, what, _, _ in steps] == ["metrics"] * 3 + ["overview"] * 3 + ["signatures"] * 3
    assert all(fits for fits, *_ in steps)
    apps = {about.split()[0]: (cost, about) for _, what, cost, about in steps if what == "signatures"}
    assert {app: cost for app, (cost, _) in apps.items()} == {
        "com.example.harbour": 3,
        "com.example.larkspur": 6,
        "com.example.tidepool": 3,
    }
    newest = next(b for b in plan.sandbox.appstore.store.builds("1540000001", 100.0) if b.store_state)
    assert f"IOS {newest.version} ({newest.number})" in apps["com.example.harbour"][1]
    assert "account main: 18 of at least 18 requests fit; the key has 3596 of 3600 left" in result.output
    assert "for the logs of each signature" in result.output


def test_a_plan_shows_the_logs_that_were_left_over(plan: Planning) -> None:
    """Beside a running exporter, on a copy of its state: what waits is there, and not a byte changes."""
    plan.poll(limits__key_share=0.006)  # 21 requests, fewer than there are signatures
    with closing(State(plan.path)):  # the exporter is running
        before = plan.path.read_bytes()
        result = plan()
    assert result.exit_code == 0, result.output
    assert plan.path.read_bytes() == before
    logs = [about for _, what, _, about in rows(result) if what == "logs"]
    assert logs
    store, asked = plan.sandbox.appstore.store, plan.asked()
    for about in logs:
        match = re.search(r"signature (\w{64}), weight ([\d.]+)$", about)
        assert match is not None, about
        signature = store.signature(match[1], 100.0)
        assert float(match[2]) == pytest.approx(signature.weight / 100, rel=1e-4)
        assert f"/v1/diagnosticSignatures/{match[1]}/logs" not in asked


def test_a_plan_shows_what_does_not_fit(plan: Planning) -> None:
    """With too small a share the rest is marked as waiting, and the sums tell both."""
    result = plan(PERFPOWER__LIMITS__KEY_SHARE="0.002", ASC_APPS="")  # seven requests, four for the listing
    assert result.exit_code == 0, result.output
    assert [fits for fits, *_ in rows(result)] == [True] * 3 + [False] * 6
    assert "account main: 3 of at least 18 requests fit;" in result.output
    assert "our share leaves 3" in result.output


def test_a_plan_counts_what_the_running_exporter_used(plan: Planning) -> None:
    """The requests of the last hour are in the copied state: the key's share counts for both."""
    plan.poll(limits__key_share=0.006)
    result = plan(PERFPOWER__LIMITS__KEY_SHARE="0.007")  # 25, of which 21 are used and two go for the listing
    assert "our share leaves 2" in result.output
    assert [what for fits, what, _, _ in rows(result) if fits] == ["metrics"]


def test_a_plan_without_an_answer_is_a_sentence(plan: Planning) -> None:
    """When the builds cannot be listed it says why, with exit status 1."""
    plan.sandbox.appstore.fail("/v1/builds", Fault(403))
    result = plan()
    assert result.exit_code == 1
    assert result.stderr.startswith("error: account main, app 1540000003: ")


@pytest.mark.parametrize("case", ["damaged", "newer"])
def test_a_plan_names_the_state_file_that_it_cannot_read(plan: Planning, case: str) -> None:
    """A damaged file, and one of a newer version: one sentence with its path, and nothing is asked."""
    if case == "damaged":
        plan.path.write_bytes(b"no database" * 1000)
    else:
        State(plan.path).close()
        with closing(sqlite3.connect(plan.path)) as db:
            db.execute("INSERT INTO migration VALUES (99, 'of the future')")
            db.commit()
    result = plan()
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {plan.path}: the ")
    assert plan.asked() == []
