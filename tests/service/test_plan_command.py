from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from exporter.cli import main
from exporter.sandbox import AppStoreSandbox, Fault, Sandbox
from exporter.service import Exporter
from exporter.state import State
from tests.service.service_world import HOUR, Clock, Log, ScriptedSink, quick, settings_of

DAY = 100.0  # of the sandbox; it stands still
BUNDLE_IDS = {
    "com.example.harbour": "1540000001",
    "com.example.larkspur": "1540000002",
    "com.example.tidepool": "1540000003",
}
TWO_APPS = {"ASC_APPS": "com.example.harbour, com.example.tidepool"}  # one has an overview, one has none
ROW = re.compile(r"  (    |wait)  (\S+) +(\d+)  (.+)")
BUILD = re.compile(r"(\w+) (\S+) \((\w+)\)")
SIGNATURE = re.compile(r"signature (\w{64}), weight ([\d.]+)$")
Row = tuple[bool, str, int, str]


class Hasty(Exporter):
    """Keeps its pace in simulated time."""

    clock: Clock

    def _sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds)


class Planning:
    """`perfpower-exporter plan` between both ends, in this process."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.path = folder / "state.db"
        self.clock = Clock(time.time() - 120)  # the token is good by then, and no poll ends in the future

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

    @contextmanager
    def running(self, **more: str) -> Iterator[Hasty]:
        """An exporter that has the state file open."""
        settings = settings_of(self.environ(**{"PERFPOWER__DIAGNOSTICS__VERSIONS": "3", **more}))
        sink = ScriptedSink()
        with (
            closing(quick(State(self.path))) as state,
            closing(Hasty(settings, state, sink, log=Log(), own_metrics=False, clock=self.clock)) as exporter,
        ):
            exporter.clock = self.clock
            yield exporter

    def poll(self, **more: str) -> list[str]:
        """Poll as an exporter does that runs a minute or two ago; gives the paths that it asked for."""
        before = len(self.asked())
        with self.running(**more) as exporter:
            report = exporter.poll("main")
        assert report is not None
        assert report.failures == []
        return self.asked()[before:]

    def asked(self) -> list[str]:
        return [request.path for request in self.sandbox.appstore.requests]

    def announced(self, rows: Sequence[Row]) -> list[str]:
        """The paths of the requests that a plan announces, that of the list of apps first."""
        return ["/v1/apps", *(path for row in rows for path in self._paths(row))]

    def _paths(self, row: Row) -> list[str]:
        _, what, cost, about = row
        app_id = BUNDLE_IDS[about.split()[0]]
        listed = self.sandbox.appstore.store.builds(app_id, DAY)
        ids = {(build.platform, build.version, build.number): build.id for build in listed}
        builds = [ids[platform, version, number] for platform, version, number in BUILD.findall(about)]
        signature = SIGNATURE.search(about)
        paths = {
            "metrics": [f"/v1/apps/{app_id}/perfPowerMetrics"],
            "overview": [f"/v1/apps/{app_id}/performanceOverviews"],
            "builds": ["/v1/builds"],
            "signatures": [f"/v1/builds/{build}/diagnosticSignatures" for build in builds],
            "logs": [f"/v1/diagnosticSignatures/{signature[1]}/logs" if signature else ""],
            "build_metrics": [f"/v1/builds/{build}/perfPowerMetrics" for build in builds],
        }[what]
        assert cost == len(paths)
        return paths

    def files(self) -> dict[str, bytes]:
        """What is in the folder, but for the index that readers of a WAL share."""
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if path.suffix != ".db-shm"}


def rows(result: Result) -> list[Row]:
    """(fits, what, requests, about) of each line of the table."""
    assert result.exit_code == 0, result.output
    found = [ROW.fullmatch(line) for line in result.output.splitlines()]
    return [(not row[1].strip(), row[2], int(row[3]), row[4]) for row in found if row]


def without_logs(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not path.endswith("/logs")]


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[Planning]:
    with Sandbox(appstore=AppStoreSandbox(day=lambda: DAY)) as sandbox:
        yield Planning(tmp_path, sandbox)


def test_a_plan_costs_what_the_listing_costs(plan: Planning) -> None:
    """The apps and their builds are asked for, nothing else; nothing is sent, and no file is made."""
    result = plan(ASC_APPS="")
    assert result.exit_code == 0, result.output
    assert plan.asked() == ["/v1/apps", *["/v1/builds"] * 4]  # one app's fill two pages
    assert plan.sandbox.receiver.requests == []
    assert list(plan.folder.iterdir()) == []


def test_a_plan_shows_each_step_in_its_order(plan: Planning) -> None:
    """In the order of importance, signatures with their builds; then, in words, what is not known before."""
    result = plan(ASC_APPS="")
    steps = rows(result)
    kinds = "metrics", "overview", "builds", "signatures"
    assert [what for _, what, _, _ in steps] == [what for what in kinds for _ in range(3)]
    assert all(fits for fits, *_ in steps)
    apps = {about.split()[0]: (cost, about) for _, what, cost, about in steps if what == "signatures"}
    assert {app: cost for app, (cost, _) in apps.items()} == {
        "com.example.harbour": 3,
        "com.example.larkspur": 6,
        "com.example.tidepool": 3,
    }
    newest = next(b for b in plan.sandbox.appstore.store.builds("1540000001", DAY) if b.store_state)
    assert f"IOS {newest.version} ({newest.number})" in apps["com.example.harbour"][1]
    assert "account main: 22 of at least 22 requests fit; the key has 3595 of 3600 left" in result.output
    assert "for the logs of each signature" in result.output


# What a plan says is what the next poll asks


def test_a_first_plan_is_what_the_first_poll_asks(plan: Planning) -> None:
    """On an empty state: the same requests in the same order, but for the logs, of which nobody knows yet."""
    more = {**TWO_APPS, "PERFPOWER__COLLECT__BUILDS": "2"}
    steps = rows(plan(**more))
    kinds = "metrics", "overview", "builds", "signatures", "build_metrics", "build_metrics"
    assert [what for _, what, _, _ in steps] == [what for what in kinds for _ in range(2)]
    asked = plan.poll(**more)
    assert len(asked) > len(without_logs(asked))
    assert without_logs(asked) == plan.announced(steps)


def test_a_steady_plan_is_what_the_next_poll_asks(plan: Planning) -> None:
    """Nothing has changed: no logs, and no overview for the app for which it was refused an hour ago."""
    plan.poll(**TWO_APPS)
    steps = rows(plan(**TWO_APPS))
    kinds = ["metrics"] * 2 + ["overview"] + ["builds"] * 2 + ["signatures"] * 2
    assert [what for _, what, _, _ in steps] == kinds
    assert "com.example.harbour" in steps[2][3]
    assert plan.poll(**TWO_APPS) == plan.announced(steps)


def test_a_plan_beside_a_running_exporter_shows_the_logs_that_were_left_over(plan: Planning) -> None:
    """It reads what the exporter holds, the last writes too, and changes nothing; the next poll does so."""
    with plan.running(PERFPOWER__LIMITS__KEY_SHARE="0.006") as exporter:  # 21 requests, with 24 signatures
        assert exporter.poll("main")
        before = plan.files()
        assert before["state.db-wal"]
        steps = rows(plan())
        assert plan.files() == before
    logs = [about for _, what, _, about in steps if what == "logs"]
    assert logs
    for about in logs:
        match = SIGNATURE.search(about)
        assert match is not None, about
        signature = plan.sandbox.appstore.store.signature(match[1], DAY)
        assert float(match[2]) == pytest.approx(signature.weight / 100, rel=1e-4)
    assert plan.poll() == plan.announced(steps)


def test_a_plan_begins_with_what_has_waited_for_a_day(plan: Planning) -> None:
    """As a poll does: the log that waits longest goes before the metrics, whatever its weight."""
    plan.poll(PERFPOWER__LIMITS__KEY_SHARE="0.006")
    lightest = plan.announced(rows(plan()))[-1]
    with closing(sqlite3.connect(plan.path)) as db:
        changed = db.execute(
            "UPDATE step SET waits_since = waits_since - ? WHERE id = ?", (25 * HOUR, lightest.split("/")[3])
        )
        assert changed.rowcount == 1
        db.commit()
    announced = plan.announced(rows(plan()))
    assert announced[1] == lightest
    assert announced[2] == "/v1/apps/1540000003/perfPowerMetrics"
    assert plan.poll() == announced


def test_a_plan_announces_nothing_that_is_switched_off(plan: Planning) -> None:
    """Without diagnostics and builds the list of apps is all that it asks for, as the poll after it."""
    more = {"PERFPOWER__DIAGNOSTICS__VERSIONS": "0"}
    steps = rows(plan(**more))
    assert plan.asked() == ["/v1/apps"]
    assert plan.poll(**more) == plan.announced(steps) == ["/v1/apps", "/v1/apps/1540000003/perfPowerMetrics"]


# The budget


def test_a_plan_shows_what_does_not_fit(plan: Planning) -> None:
    """With too small a share the rest is marked as waiting, and the sums tell both."""
    result = plan(PERFPOWER__LIMITS__KEY_SHARE="0.0023", ASC_APPS="")  # eight requests, five for the listing
    assert result.exit_code == 0, result.output
    assert [fits for fits, *_ in rows(result)] == [True] * 3 + [False] * 9
    assert "account main: 3 of at least 22 requests fit;" in result.output
    assert "our share leaves 3" in result.output


def test_a_plan_counts_what_the_running_exporter_used(plan: Planning) -> None:
    """The requests of the last hour are in the copied state: the key's share counts for both."""
    plan.poll(PERFPOWER__LIMITS__KEY_SHARE="0.006")
    result = plan(PERFPOWER__LIMITS__KEY_SHARE="0.007")  # 25, of which 21 are used and two go for the listing
    assert "our share leaves 2" in result.output
    assert [what for fits, what, _, _ in rows(result) if fits] == ["metrics", "builds"]


def test_a_plan_beyond_the_share_is_made_of_what_is_known(plan: Planning) -> None:
    """When the running exporter has used the share up, nothing is asked: it says why and until when, and
    shows what waits, the logs that were left over too."""
    plan.poll(PERFPOWER__LIMITS__KEY_SHARE="0.006")
    before = plan.asked()
    result = plan(PERFPOWER__LIMITS__KEY_SHARE="0.006")
    steps = rows(result)
    first = result.output.splitlines()[0]
    assert first.startswith(
        "account main: nothing can be asked now: our share of the key's hour is used up: we sent 21 "
    )
    assert re.search(r"The next request becomes free at \d\d:\d\d:\d\d UTC, in \d+ min\. .*key_share", first)
    assert not any(fits for fits, *_ in steps)
    assert {what for _, what, _, _ in steps} == {"metrics", "builds", "signatures", "logs"}
    assert all(about.startswith("com.example.tidepool") for *_, about in steps)
    assert plan.asked() == before


def test_a_plan_beyond_the_share_shows_no_app_that_is_no_longer_chosen(plan: Planning) -> None:
    """What is stored of an app that the configuration leaves out is no part of the next poll."""
    share = {"PERFPOWER__LIMITS__KEY_SHARE": "0.0015"}  # five
    plan.poll(**TWO_APPS, **share)
    shown = {about.split()[0] for *_, about in rows(plan(**TWO_APPS, **share))}
    assert shown == {"com.example.harbour", "com.example.tidepool"}
    assert {about.split()[0] for *_, about in rows(plan(**share))} == {"com.example.tidepool"}


def test_a_plan_that_breaks_off_within_the_listing_shows_the_apps_that_it_listed(plan: Planning) -> None:
    """The share suffices for the apps but not for all builds: what is not known of the builds is left out."""
    result = plan(PERFPOWER__LIMITS__KEY_SHARE="0.0006", ASC_APPS="")  # two requests
    assert plan.asked() == ["/v1/apps", "/v1/builds"]
    assert "nothing can be asked now" in result.output.splitlines()[0]
    shown = {about.split()[0] for fits, what, _, about in rows(result) if what == "metrics" and not fits}
    assert shown == set(BUNDLE_IDS)


def test_a_plan_beyond_the_share_of_which_nothing_is_known_is_an_error(plan: Planning) -> None:
    """Another exporter's requests with the same key leave nothing, and no poll has stored anything."""
    with closing(State(plan.path)) as state:
        for _ in range(5):
            state.add_request(plan.sandbox.appstore.key_id, time.time())
    result = plan(PERFPOWER__LIMITS__KEY_SHARE="0.001")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: account main: our share of the key's hour is used up: ")
    assert plan.asked() == []


def test_a_plan_tells_its_own_requests(plan: Planning) -> None:
    """They are off the share, although a poll of the exporter counts them as somebody else's."""
    text = " ".join(plan().output.split())
    assert "The listing for this plan took 2, which are off our share here." in text
    assert "so up to as many more may fit into it" in text


def test_two_accounts_with_one_key_share_what_it_leaves(plan: Planning) -> None:
    """The second account's plan has what the first leaves: together they fit once, not twice."""
    key = {
        f"PERFPOWER__ACCOUNTS__{number}__{name}": value
        for number in (0, 1)
        for name, value in {
            "NAME": ("first", "second")[number],
            "KEY_ID": plan.sandbox.appstore.key_id,
            "ISSUER_ID": plan.sandbox.appstore.issuer_id,
            "PRIVATE_KEY": plan.sandbox.appstore.private_key_pem,
            "BASE_URL": plan.sandbox.appstore.url,
            "APPS": f"[{('com.example.tidepool', 'com.example.harbour')[number]}]",
        }.items()
    }
    nothing = dict.fromkeys(
        ("ASC_KEY_ID", "ASC_ISSUER_ID", "ASC_PRIVATE_KEY", "ASC_BASE_URL", "ASC_APPS"), ""
    )
    result = plan(**nothing, **key, PERFPOWER__LIMITS__KEY_SHARE="0.00334")  # twelve, less twice two
    fits = {
        account: sum(cost for is_fit, _, cost, about in rows(result) if is_fit and about.startswith(app))
        for account, app in (("first", "com.example.tidepool"), ("second", "com.example.harbour"))
    }
    left = re.findall(r"account (\w+): (\d+) of at least .* our share leaves (\d+)(.*)", result.output)
    (_, first, _, _), (_, second, leaves, more) = left
    assert fits == {"first": int(first), "second": int(second)}
    assert int(first) > 0
    assert int(second) <= int(leaves) == 12 - 4 - int(first)
    assert more == f", without the {first} of accounts above with the same key"


# What goes wrong


def test_a_plan_goes_on_where_a_poll_goes_on(plan: Planning) -> None:
    """Builds that cannot be listed, or a missing app, cost a sentence and exit status 1, not the plan."""
    plan.sandbox.appstore.fail("/v1/builds", Fault(403))
    result = plan()
    assert result.exit_code == 1
    assert [(what, app) for _, what, _, app in ROW.findall(result.stdout)] == [
        (what, "com.example.tidepool") for what in ("metrics", "overview", "builds")
    ]
    assert result.stderr.startswith("error: account main, app 1540000003: ")
    result = plan(ASC_APPS="com.example.tidepool,com.example.gone")
    assert result.exit_code == 1
    assert "signatures" in result.stdout
    assert "there is no app com.example.gone" in result.stderr


@pytest.mark.parametrize(
    ("more", "status", "said", "asked"),
    [
        ({"ASC_KEY_ID": "OTHERKEY12"}, 1, "error: account main: ", ["/v1/apps"] * 2),
        ({"ASC_PRIVATE_KEY": "no key"}, 2, "error: account main: ", []),
        ({"ASC_APPS": "com.example.gone"}, 1, "error: account main: there is no app ", ["/v1/apps"]),
    ],
    ids=["a key that is refused", "a key that is none", "an app that is not there"],
)
def test_a_plan_with_a_bad_key_or_app_is_one_sentence(
    plan: Planning, more: dict[str, str], status: int, said: str, asked: list[str]
) -> None:
    """What to do about it on standard error, no table, 2 for what is not usable at all; no file is made."""
    result = plan(**more)
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr.startswith(said)
    assert "heck " in result.stderr or "Give " in result.stderr
    assert result.stderr.count("\n") == 1
    assert plan.asked() == asked
    assert os.listdir(plan.folder) == []


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
