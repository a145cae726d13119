"""The commands for looking by hand, against the sandbox over real HTTP and on saved files."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import pty
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import CliRunner, Result

from exporter.cli import main
from exporter.cli.looking import COMMANDS
from exporter.errors import ConfigError
from exporter.look.commands import DiagnosticsChoice, diagnostics
from exporter.look.connection import connected
from exporter.look.saved import read
from exporter.look.tables import Column, cut, least_width, number, table, to_json, to_terminal, wrapped
from exporter.sandbox import AppStoreSandbox, Fault, Sandbox
from exporter.settings import load
from exporter.state import State
from tests.service.service_world import PYTHON_ENVIRONMENT, command

APP = "com.example.harbour"
Look = Callable[..., Result]
Saved = Callable[[object], str]

METRICS = {
    "version": "1.0.0",
    "insights": {
        "trendingUp": [],
        "regressions": [
            {
                "metricCategory": "LAUNCH",
                "metric": "launchTime",
                "latestVersion": "2.0",
                "referenceVersions": ["1.0", "1.9"],
                "maxLatestVersionValue": 1200,
                "summaryString": "Launches got slower.",
                "highImpact": True,
                "populations": [
                    {
                        "device": "all_iphones",
                        "percentile": "percentile.fifty",
                        "latestVersionValue": 1200,
                        "referenceAverageValue": 600,
                        "deltaPercentage": 100,
                        "summaryString": "Twice as slow.",
                    },
                ],
            },
        ],
    },
    "productData": [
        {
            "platform": "iOS",
            "metricCategories": [
                {
                    "identifier": "LAUNCH",
                    "metrics": [
                        {
                            "identifier": "launchTime",
                            "unit": {"identifier": "milliseconds", "displayName": "ms"},
                            "goalKeys": [{"goalKey": "good", "lowerBound": 0, "upperBound": 1000}],
                            "datasets": [
                                {
                                    "filterCriteria": {
                                        "device": "all_iphones",
                                        "deviceMarketingName": "All iPhones",
                                        "percentile": "percentile.fifty",
                                    },
                                    "recommendedMetricGoal": {"value": 500, "detail": "Faster."},
                                    "points": [
                                        {
                                            "version": "1.10",
                                            "value": 1200,
                                            "goal": "FAIR",
                                            "errorMargin": 1.5,
                                        },
                                        {
                                            "version": "1.9",
                                            "value": 600.25,
                                            "percentageBreakdown": {"value": 1, "subSystemLabel": "UI"},
                                        },
                                        {"version": "1.0"},
                                    ],
                                }
                            ],
                        }
                    ],
                },
                {
                    "identifier": "HANG",
                    "metrics": [
                        {
                            "identifier": "hangRate",
                            "unit": {"identifier": "seconds/hour", "displayName": ""},
                            "datasets": [
                                {
                                    "filterCriteria": {"device": "iPhone14,2"},
                                    "points": [{"version": "1.10", "value": 3}],
                                }
                            ],
                        }
                    ],
                },
            ],
        }
    ],
}
METRICS_TABLE = """\
metric             unit          platform  device       percentile  1.0     1.9       1.10  goal
LAUNCH/launchTime  ms            iOS       All iPhones  p50           -  600.25  1200 fair   500
HANG/hangRate      seconds/hour  iOS       iPhone14,2   -                                3     -

insight     metric             device       percentile  latest  reference  unit  change  impact
regression  LAUNCH/launchTime  all_iphones  p50           1200        600  ms    +100 %  high
    Launches got slower.
    Twice as slow.
"""
METRICS_NARROW = """\
metric             unit          platform  device       percentile       1.10  goal
LAUNCH/launchTime  ms            iOS       All iPhones  p50         1200 fair   500
HANG/hangRate      seconds/hour  iOS       iPhone14,2   -                   3     -

Not shown for lack of room: 1.0, 1.9. --json shows all.

insight     metric             device       percentile  latest  reference  unit  change  impact
regression  LAUNCH/launchTime  all_iphones  p50           1200        600  ms    +100 %  high
    Launches got slower.
    Twice as slow.
"""
LOGS = {
    "version": "1.0.0",
    "productData": [
        {
            "signatureId": "ab12",
            "diagnosticInsights": [
                {
                    "insightsCategory": "Repeated Writes",
                    "insightsString": "Write \x1b[2Jless.",
                    "insightsURL": "https://developer.apple.com/x",
                }
            ],
            "diagnosticLogs": [
                {
                    "diagnosticMetaData": {
                        "event": "disk writes",
                        "eventDetail": "Total of 1.5 GB",
                        "writesCaused": "1.5 GB",
                        "osVersion": "iPhone OS 14.6 (18F72)",
                        "appVersion": "2.0",
                        "buildVersion": "45",
                        "deviceType": "iPhone13_3",
                        "platformArchitecture": "arm64e",
                    },
                    "callStackTree": [
                        {
                            "callStacks": [
                                {
                                    "callStackRootFrames": [
                                        {
                                            "symbolName": "main",
                                            "binaryName": "Shop",
                                            "sampleCount": 3,
                                            "subFrames": [
                                                {
                                                    "symbolName": "-[Cart save]",
                                                    "binaryName": "Shop",
                                                    "fileName": "Cart.m",
                                                    "lineNumber": "42",
                                                    "isBlameFrame": True,
                                                    "sampleCount": 3,
                                                }
                                            ],
                                        }
                                    ]
                                }
                            ]
                        }
                    ],
                },
                {"diagnosticMetaData": {"buildVersion": "46", "writesCaused": "2 GB"}},
            ],
        },
        {"signatureId": "cd34"},
    ],
}
LOGS_WITH_STACKS = """\
signature ab12
  Apple: [Repeated Writes] Write  [2Jless.
  https://developer.apple.com/x
  log 1 of 2, iPhone13_3, iPhone OS 14.6 (18F72), version 2.0 (45), arm64e, disk writes, Total of 1.5 GB
      3 main (in Shop)
    ▶ 3 -[Cart save] (in Shop) Cart.m:42
  log 2 of 2, version (46), 2 GB

signature cd34
  no logs
"""
LOGS_WITHOUT_STACKS = LOGS_WITH_STACKS.replace(
    "      3 main (in Shop)\n    ▶ 3 -[Cart save] (in Shop) Cart.m:42\n  log 2 of 2, version (46), 2 GB\n",
    "    blamed: -[Cart save] Cart.m:42\n  log 2 of 2, version (46), 2 GB\n    blamed: -\n",
)
SIGNATURES = {
    "data": [
        {
            "type": "diagnosticSignatures",
            "id": str(place),
            "attributes": {"diagnosticType": kind, "signature": f"f{place}", "weight": weight, **more},
        }
        for place, (kind, weight, more) in enumerate(
            [
                ("HANGS", 0.25, {"insight": {"direction": "DOWN", "referenceVersions": []}}),
                ("HANGS", 0.5, {"insight": {"direction": "UP", "referenceVersions": []}}),
                ("DISK_WRITES", None, {}),
            ]
        )
    ],
    "links": {"self": "https://x/diagnosticSignatures", "next": "https://x/diagnosticSignatures?cursor=2"},
}
SIGNATURES_TABLE = """\
type         weight  trend  signature
DISK_WRITES       -  -      f2
HANGS           0.5  up     f1
HANGS          0.25  down   f0
"""
HEAVIEST_HANG = """\
type   weight  trend  signature
HANGS     0.5  up     f1
"""
OVERVIEW = {
    "version": "1.0",
    "appMetadata": {"platform": "IOS", "latestVersion": "2.0"},
    "insights": {"trendingUp": [], "regressions": []},
    "categories": [
        {
            "identifier": "HANG",
            "sections": [
                {
                    "identifier": "hangRate",
                    "datasets": [
                        {
                            "filterCriteria": {"device": "all_iphones", "percentile": "percentile.fifty"},
                            "recommendedMetricGoal": {"value": 20},
                        }
                    ],
                }
            ],
        }
    ],
    "signatures": {
        "topHangPoint": [
            {
                "signatureId": "ab",
                "signature": "-[Cart save]",
                "count": 12,
                "weight": 0.5,
                "sourceFile": "Cart.m",
                "lineNumber": "42",
                "trendInfo": "UP",
            }
        ]
    },
}
OVERVIEW_TABLE = """\
iOS 2.0

type   count  weight  trend  signature     source
HANGS     12     0.5  up     -[Cart save]  Cart.m:42

metric         device       percentile  goal
HANG/hangRate  all_iphones  p50           20

No regressions and no upward trends.
"""
EMPTY_OVERVIEW = """\
Overview

No signatures.

No goals.

No regressions and no upward trends.
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(appstore=AppStoreSandbox(day=lambda: 100.0, minute_limit=100_000)) as both:
        yield both


@pytest.fixture
def environ(sandbox: Sandbox, tmp_path: Path) -> dict[str, str]:
    return {**sandbox.environ(), "PERFPOWER_STATE": str(tmp_path / "state.db"), "COLUMNS": "200"}


@pytest.fixture
def look(environ: dict[str, str]) -> Look:
    """Runs a command in this process; nothing it says is a traceback or a part of the key."""

    def run(*arguments: str, stdin: bytes | None = None, **more: str) -> Result:
        result = CliRunner(env={**environ, **more}).invoke(main, arguments, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert environ["ASC_PRIVATE_KEY"][40:60] not in result.output
        return result

    return run


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    """Writes a file, and gives its path."""

    def save(content: object) -> str:
        path = tmp_path / "saved.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return str(path)

    return save


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def build_of(sandbox: Sandbox, version: str = "7.47.0") -> str:
    builds = sandbox.appstore.store.builds("1540000001", 100)
    return next(build.id for build in builds if build.version == version)


# Asking


def test_apps_lists_all_and_marks_those_that_are_polled(look: Look) -> None:
    """The configuration's choice is shown, not applied."""
    assert document(look("apps", ASC_APPS="*.tidepool"))[1:] == [
        {
            "id": "1540000002",
            "bundleId": "com.example.larkspur",
            "name": "Larkspur Notes",
            "selected": False,
        },
        {
            "id": "1540000003",
            "bundleId": "com.example.tidepool",
            "name": "Tidepool Trails",
            "selected": True,
        },
    ]
    lines = look("apps", "--table").stdout.splitlines()
    assert lines[0] == "id          bundle id             name             selected"
    assert lines[1] == "1540000001  com.example.harbour   Harbour Banking  yes"


@pytest.mark.parametrize("name", ["1540000001", APP, "COM.EXAMPLE.HARBOUR", "harbour banking"])
def test_builds_are_those_that_diagnostics_look_at(look: Look, sandbox: Sandbox, name: str) -> None:
    """The newest three versions by default, each marked; an app is known by id, bundle id and name."""
    result = look("builds", name)
    rows = document(result)
    assert [row["version"] for row in rows] == ["7.47.0", "7.46.0", "7.45.0"]
    assert {row["diagnostics"] for row in rows} == {row["released"] for row in rows} == {True}
    assert rows[0]["id"] == build_of(sandbox)
    assert "3 of 12 looked at. --all shows all." in result.stderr


def test_all_builds_are_listed_on_request(look: Look) -> None:
    """Newest first, with marks only where diagnostics are collected; the table tells the same."""
    rows = document(look("builds", APP, "--all", PERFPOWER__DIAGNOSTICS__VERSIONS="1"))
    assert len(rows) == 12
    assert [row["version"] for row in rows if row["diagnostics"]] == ["7.47.0"]
    assert [row["uploadedDate"] for row in rows] == sorted(
        (row["uploadedDate"] for row in rows), reverse=True
    )
    lines = look("builds", APP, "--all", "--table").stdout.splitlines()
    assert len(lines) == 13
    assert lines[1].split() == [
        *(rows[0]["version"], rows[0]["build"], "iOS", rows[0]["uploadedDate"][:10]),
        *("released", "yes", rows[0]["id"]),
    ]


def test_builds_without_diagnostics_says_so(look: Look) -> None:
    """With diagnostics switched off there is nothing to mark, and a way to see them all."""
    result = look("builds", APP, "--table", PERFPOWER__DIAGNOSTICS__VERSIONS="0")
    assert result.stdout == "No builds.\n"
    assert "0 of 12 looked at. --all shows all." in result.stderr


def test_metrics_has_an_object_for_each_point(look: Look, sandbox: Sandbox) -> None:
    """All that Apple sent is there, number for number, in Apple's order."""
    payload = sandbox.appstore.store.metrics_payload("1540000001", 100)
    sent = [
        (product["platform"], category["identifier"], metric["identifier"], *point.values())
        for product in payload["productData"]
        for category in product["metricCategories"]
        for metric in category["metrics"]
        for dataset in metric["datasets"]
        for point in ({"device": dataset["filterCriteria"]["device"], **p} for p in dataset["points"])
    ]
    shown = document(look("metrics", APP))
    assert len(shown) == len(sent) > 1000
    assert [(p["platform"], p["metricCategory"], p["metric"], p["device"], p["version"]) for p in shown] == [
        point[:5] for point in sent
    ]


@pytest.mark.parametrize(
    ("choice", "metrics", "insights"),
    [
        ("--metric=LAUNCH", ["launchTime"], 1),
        ("--metric=launchtime", ["launchTime"], 1),
        ("--metric=launch/LaunchTime", ["launchTime"], 1),
        ("--metric=appstore.launch.time", ["launchTime"], 1),
        ("--metric=hang --metric=launch*", ["launchTime", "hangRate"], 1),
        ("--metric=hang", ["hangRate"], 0),
        ("--device=all_IPHONES", ["launchTime"], 1),
        ("--device=all?iphones", ["launchTime"], 1),
        ("--device=iphone14,*", ["hangRate"], 0),
        ("--platform=ios", ["launchTime", "hangRate"], 1),
        ("--platform=IOS", ["launchTime", "hangRate"], 1),
        ("--platform=MAC_OS", [], 1),
        ("--percentile=p50", ["launchTime"], 1),
        ("--percentile=50", ["launchTime"], 1),
        ("--percentile=Fifty", ["launchTime"], 1),
        ("--percentile=percentile.fifty", ["launchTime"], 1),
        ("--percentile=p90", [], 0),
        ("--metric=hang --percentile=p50", [], 0),
    ],
)
def test_metrics_are_chosen_by_every_name_they_have(
    look: Look, saved: Saved, choice: str, metrics: list[str], insights: int
) -> None:
    """Apple's words or ours, in upper or lower case; insights, which name no platform, go by the rest."""
    shown = document(look("parse", saved(METRICS), *choice.split()))
    assert list(dict.fromkeys(point["metric"] for point in shown["metrics"])) == metrics
    assert len(shown["insights"]) == insights


def test_a_choice_that_fits_nothing_says_what_there_is(look: Look) -> None:
    """A typing error is told beside an empty answer."""
    result = look("metrics", APP, "--metric", "lauchTime", "--device", "all_*")
    assert document(result) == []
    assert (
        "note: --metric lauchTime fits nothing; there is: HANG/hangRate, LAUNCH/launchTime" in result.stderr
    )
    assert look("metrics", APP, "--metric", "lauchTime", "--table").stdout == "No metrics.\n"


def test_metrics_of_a_build_by_id_version_and_number(look: Look, sandbox: Sandbox) -> None:
    """All three names mean the same build, and its metrics are of its version."""
    build = next(b for b in sandbox.appstore.store.builds("1540000001", 100) if b.version == "7.46.0")
    by_id = document(look("metrics", build.id))
    assert {point["version"] for point in by_id} == {"7.46.0"}
    assert document(look("metrics", f"{APP}:7.46.0")) == by_id
    assert document(look("metrics", f"Harbour Banking:7.46.0:{build.number}")) == by_id


def test_insights_of_an_app(look: Look) -> None:
    """Apple's trends with their numbers, units and sentences."""
    trend, *_ = document(look("insights", "larkspur notes"))
    assert (trend["kind"], trend["metricCategory"], trend["metric"]) == ("trend", "MEMORY", "peakMemory")
    first = trend["populations"][0]
    lines = look("insights", "larkspur notes", "--table").stdout.splitlines()
    assert lines[1].split()[:5] == [
        "trend",
        "MEMORY/peakMemory",
        "all_iphones",
        "p50",
        str(first["latestVersionValue"]),
    ]
    assert f"    {first['summaryString']}" in lines
    assert look("insights", APP, "--table").stdout == "No regressions and no upward trends.\n"


def test_diagnostics_are_listed_heaviest_first(look: Look, sandbox: Sandbox) -> None:
    """By type; a limit is for each type; types are known by our word and Apple's."""
    rows = document(look("diagnostics", build_of(sandbox)))
    for kind in ("DISK_WRITES", "HANGS", "LAUNCHES"):
        weights = [row["weight"] for row in rows if row["diagnosticType"] == kind]
        assert weights == sorted(weights, reverse=True)
        assert len(weights) > 2
    limited = document(
        look("diagnostics", f"{APP}:7.47.0", "--limit", "2", "--type", "HANGS", "--type", "disk-writes")
    )
    of_types = [
        [row for row in rows if row["diagnosticType"] == kind][:2] for kind in ("HANGS", "DISK_WRITES")
    ]
    assert limited == of_types[0] + of_types[1]
    unknown = look("diagnostics", f"{APP}:7.47.0", "--type", "hagns")
    assert document(unknown) == []
    assert "--type hagns fits nothing; there is: DISK_WRITES, HANGS, LAUNCHES" in unknown.stderr


def test_call_stacks_cost_a_request_each_and_that_is_said_first(
    sandbox: Sandbox, environ: dict[str, str]
) -> None:
    """Each listed signature is asked for once, paced; with more than twenty it is told beforehand."""
    settings, appstore, told, waits = (
        load(None, environ),
        sandbox.appstore,
        list[tuple[str, int]](),
        list[float](),
    )
    before = len(appstore.requests)
    with connected(settings, None, sleep=waits.append) as connection:
        found = diagnostics(
            connection,
            build_of(sandbox),
            DiagnosticsChoice(callstack=True),
            lambda sentence: told.append((sentence, len(appstore.requests) - before)),
        )
    rows = found.document
    assert isinstance(rows, list)
    assert len(appstore.requests) - before == 1 + len(rows) > 21
    assert len(waits) >= len(rows)
    assert told == [
        (f"{len(rows)} requests for the logs of {len(rows)} signatures; --limit asks for fewer", 1)
    ]


def test_call_stacks_name_the_blamed_line(look: Look, sandbox: Sandbox) -> None:
    """The table has file and line of the first blamed frame; below it what a saved file would show."""
    sandbox.appstore.fail("/v1/diagnosticSignatures/", Fault(body=json.dumps(LOGS).encode()), times=2)
    arguments = ("diagnostics", build_of(sandbox), "--callstack", "--limit", "1", "--type", "disk-writes")
    (row,) = document(look(*arguments))
    assert row["blamedFrame"] == row["diagnosticLogs"][0]["blamedFrame"]
    assert row["blamedFrame"]["lineNumber"] == 42
    result = look(*arguments, "--table")
    assert result.stderr == ""
    heading, first, empty, about, *below = result.stdout.splitlines()
    assert heading.split() == ["type", "weight", "trend", "signature", "blamed", "frame"]
    assert first.endswith("  Cart.m:42")
    assert empty == ""
    assert about.startswith("DISK_WRITES 0.")
    assert below == LOGS_WITH_STACKS.partition("\n\n")[0].splitlines()[1:]


def test_a_build_without_diagnostics_is_no_error(look: Look) -> None:
    """A 404 of the signatures is normal, and a wrong id looks the same: both are said."""
    result = look("diagnostics", "00000000-0000-4000-8000-000000000000", "--table")
    assert result.exit_code == 0
    assert result.stdout == "No signatures.\n"
    assert "build 00000000-0000-4000-8000-000000000000" in result.stderr


def test_what_was_downloaded_before_a_failure_is_shown(look: Look, sandbox: Sandbox) -> None:
    """The second signature's logs are refused: the first one's are there, the error follows, status 1."""
    first, second = document(look("diagnostics", build_of(sandbox), "--type", "hangs", "--limit", "2"))
    sandbox.appstore.fail(f"/v1/diagnosticSignatures/{second['id']}", Fault(status=403))
    result = look("diagnostics", build_of(sandbox), "--callstack", "--type", "hangs", "--limit", "2")
    assert result.exit_code == 1
    shown = json.loads(result.stdout)
    assert [row["id"] for row in shown] == [first["id"], second["id"]]
    assert ["diagnosticLogs" in row for row in shown] == [True, False]
    assert f"signature {second['id']}" in result.stderr


def test_logs_that_cannot_be_read_cost_only_themselves(look: Look, sandbox: Sandbox) -> None:
    """One answer is nonsense and one is missing: the others are shown, and the error is told."""
    rows = document(look("diagnostics", build_of(sandbox), "--type", "hangs", "--limit", "3"))
    sandbox.appstore.fail(f"/v1/diagnosticSignatures/{rows[0]['id']}", Fault(body=b'{"hello":1}'))
    sandbox.appstore.fail(f"/v1/diagnosticSignatures/{rows[1]['id']}", Fault(status=404))
    sandbox.appstore.fail(f"/v1/diagnosticSignatures/{rows[2]['id']}", Fault(body=json.dumps(LOGS).encode()))
    result = look(
        "diagnostics", build_of(sandbox), "--callstack", "--type", "hangs", "--limit", "3", "--table"
    )
    assert result.exit_code == 1
    assert "diagnosticLogs" in result.stderr
    assert "  no logs" in result.stdout
    assert result.stdout.count("  log 1 of 2, ") == 1


def test_a_key_that_sees_nothing_is_told(look: Look, sandbox: Sandbox) -> None:
    """No apps is an answer; an app that is looked for is then an error."""
    sandbox.appstore.fail("/v1/apps", Fault(body=b'{"data":[]}'), times=3)
    assert look("apps", "--table").stdout == "The key sees no app.\n"
    assert document(look("apps")) == []
    assert "the key sees no app “x”. It sees no app at all." in look("builds", "x").stderr


# Names


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["builds", "harbor banking"], 1, "no app “harbor banking”. Did you mean Harbour Banking"),
        (["metrics", "tidepool"], 1, "Did you mean Tidepool Trails or com.example.tidepool?"),
        (["metrics", "x" * 300], 1, "It sees: com.example.harbour, com.example.larkspur, com."),
        (["insights", ""], 1, "no app “”"),
        (["diagnostics", APP], 2, f"“{APP}” names no build. Give its id, APP:VERSION"),
        (["diagnostics", ":1.0"], 2, "names no build"),
        (["diagnostics", f"{APP}:"], 2, "names no build"),
        (["diagnostics", "nobody:1.0:2"], 1, "no app “nobody:1.0”"),
        (["diagnostics", f"{APP}:7.470"], 1, "app 1540000001 has no build “7.470”. It has 7.47.0"),
        (["metrics", f"{APP}:7.47.0:1"], 1, "Version 7.47.0 has the build numbers "),
        (["metrics", "a\x1b[2Jb"], 1, "no app “a[2Jb”"),
        (["apps", "--account", "other"], 2, "no account “other”. It has: main."),
        (["diagnostics", APP, "--limit", "0"], 2, "0 is not in the range"),
        (["token", "--path", "v1/apps"], 2, "“v1/apps” is no path"),
        (["parse", "nowhere.json"], 2, "No such file"),
        (["parse", "/"], 2, "s a directory"),
    ],
)  # fmt: skip
def test_a_name_that_means_nothing_gets_near_misses(
    look: Look, arguments: list[str], status: int, says: str
) -> None:
    """Status 1 where App Store Connect knows no such thing, 2 where nobody could."""
    result = look(*arguments)
    assert (result.exit_code, result.stdout) == (status, "")
    assert says in result.stderr


def test_names_that_mean_several_things_are_refused(look: Look, sandbox: Sandbox) -> None:
    """An app's name that two have, and a version that two platforms have: the ids to choose from are told."""
    listing = {
        "data": [
            {"type": "apps", "id": str(app), "attributes": {"bundleId": f"b.{app}", "name": "Twin: One"}}
            for app in (1, 2)
        ]
    }
    sandbox.appstore.fail("/v1/apps", Fault(body=json.dumps(listing).encode()))
    result = look("metrics", "twin: one")
    assert result.exit_code == 2
    assert "2 apps are called “twin: one”. Give the id of one: 1 (b.1), 2 (b.2)." in result.stderr
    version = next(
        build.version
        for build in sandbox.appstore.store.builds("1540000002", 100)
        if build.platform == "MAC_OS"
    )
    result = look("metrics", f"1540000002:{version}")
    assert result.exit_code == 2
    assert "is there for 2 platforms. Give the id of one: " in result.stderr
    assert "(iOS)" in result.stderr
    assert "(macOS)" in result.stderr


def test_an_app_whose_name_has_colons_is_found(look: Look, sandbox: Sandbox) -> None:
    """The colons of the name are not taken for ours."""
    listing = {
        "data": [
            {"type": "apps", "id": "1540000001", "attributes": {"bundleId": APP, "name": "Bank: a: b"}},
        ]
    }
    sandbox.appstore.fail("/v1/apps", Fault(body=json.dumps(listing).encode()), times=2)
    assert document(look("metrics", "bank: a: b:7.46.0", "--metric", "hang"))
    assert document(look("metrics", "bank: a: b", "--metric", "hang"))


def test_several_accounts_need_a_choice(look: Look, tmp_path: Path) -> None:
    """Without --account they are named; with it that one is asked."""
    path = tmp_path / "two.yaml"
    key = "issuer_id: I, private_key: '${ASC_PRIVATE_KEY}'"
    path.write_text(f"accounts: [{{name: a, key_id: A, {key}}}, {{name: b, key_id: B, {key}}}]")
    result = look("token", "--config", str(path))
    assert result.exit_code == 2
    assert "the configuration has 2 accounts. Choose one with --account: a, b." in result.stderr
    chosen = look("token", "-c", str(path), "--account", "b").stdout.strip()
    assert jwt.get_unverified_header(chosen)["kid"] == "B"


# The key's share


def test_the_running_exporters_requests_count_and_ours_are_not_kept(
    look: Look, environ: dict[str, str], tmp_path: Path
) -> None:
    """With its share used up nothing is sent, and the state file stays as it is."""
    share = {"PERFPOWER__LIMITS__KEY_SHARE": "0.001"}  # three of the hour's requests
    assert look("metrics", APP, "--metric", "hang", **share).exit_code == 0
    assert list(tmp_path.iterdir()) == []
    with closing(State(Path(environ["PERFPOWER_STATE"]))) as state:
        for _ in range(3):
            state.add_request(environ["ASC_KEY_ID"], time.time())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result = look("apps", **share)
    assert result.exit_code == 1
    assert "account main" in result.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# The token


def test_a_token_opens_what_it_says_and_is_called_a_secret(
    look: Look, sandbox: Sandbox, environ: dict[str, str]
) -> None:
    """Alone on standard output, with the warning and its life time beside it; restricted on request."""
    result = look("token")
    assert result.exit_code == 0
    claims = jwt.decode(result.stdout.strip(), options={"verify_signature": False})
    assert claims["iss"] == environ["ASC_ISSUER_ID"]
    assert "scope" not in claims
    assert "note: a secret: for 18 minutes it opens everything that the key may." in result.stderr
    restricted = look("token", "--path", "/v1/apps?limit=1")
    claims = jwt.decode(restricted.stdout.strip(), options={"verify_signature": False})
    assert claims["scope"] == ["GET /v1/apps?limit=1"]
    assert "it opens GET /v1/apps?limit=1." in restricted.stderr


def test_an_account_that_restricts_tokens_gives_no_others(look: Look, tmp_path: Path) -> None:
    """Without a path the configuration's wish would be passed by."""
    path = tmp_path / "one.yaml"
    path.write_text(
        "accounts: [{key_id: K, issuer_id: I, private_key: '${ASC_PRIVATE_KEY}', restrict_token: true}]"
    )
    result = look("token", "-c", str(path))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Say for which: --path /v1/apps" in result.stderr
    assert look("token", "-c", str(path), "--path", "/v1/apps").exit_code == 0


# Saved files


@pytest.mark.parametrize(
    ("content", "arguments", "columns", "text"),
    [
        (METRICS, [], "200", METRICS_TABLE),
        (METRICS, [], "80", METRICS_NARROW),
        (METRICS, ["--metric", "memory"], "200", "No metrics.\n"),
        (LOGS, ["--callstack"], "200", LOGS_WITH_STACKS),
        (LOGS, [], "200", LOGS_WITHOUT_STACKS),
        (LOGS, ["--limit", "1", "--callstack"], "200", LOGS_WITH_STACKS.partition("\n\n")[0] + "\n"),
        (SIGNATURES, [], "200", SIGNATURES_TABLE),
        (SIGNATURES, ["--type=hangs", "--limit=1"], "200", HEAVIEST_HANG),
        (OVERVIEW, [], "200", OVERVIEW_TABLE),
        ({"version": "1", "productData": []}, [], "200", "No logs.\n"),
        ({"productData": [], "insights": {"trendingUp": [], "regressions": []}}, [], "200", "No metrics.\n"),
        ({"data": [], "links": {"self": "/v1/builds/1/diagnosticSignatures"}}, [], "200", "No signatures.\n"),
        ({"categories": []}, [], "200", EMPTY_OVERVIEW),
    ],
)  # fmt: skip
def test_a_saved_answer_is_recognised_and_shown(
    look: Look, saved: Saved, content: object, arguments: list[str], columns: str, text: str
) -> None:
    """Whole tables, from all four kinds and from empty ones; needs no configuration."""
    result = look(
        "parse", saved(content), "--table", *arguments, COLUMNS=columns, ASC_KEY_ID="", PERFPOWER_CONFIG="no"
    )
    assert result.exit_code == 0, result.output
    assert result.stdout == text


def test_the_json_of_a_saved_answer_has_all_of_apples_fields(look: Look, saved: Saved) -> None:
    """A whole point, in Apple's words and units with ours beside them."""
    shown = document(look("parse", saved(METRICS)))
    assert shown["kind"] == "xcodeMetrics"
    assert shown["metrics"][0] == {
        "metricCategory": "LAUNCH",
        "platform": "iOS",
        "metric": "launchTime",
        "device": "all_iphones",
        "deviceMarketingName": "All iPhones",
        "percentile": "percentile.fifty",
        "version": "1.10",
        "value": 1200,
        "unit": {"identifier": "milliseconds", "displayName": "ms"},
        "errorMargin": 1.5,
        "goal": "FAIR",
        "percentageBreakdown": [],
        "recommendedMetricGoal": {"value": 500, "detail": "Faster."},
        "goalKeys": [{"goalKey": "good", "lowerBound": 0, "upperBound": 1000}],
        "otlp": {"name": "appstore.launch.time", "unit": "s", "value": 1.2},
    }
    assert shown["metrics"][1]["percentageBreakdown"] == [{"subSystemLabel": "UI", "value": 1}]
    assert shown["insights"][0]["populations"][0]["deltaPercentage"] == 100
    (first, _) = document(look("parse", saved(LOGS), "--callstack"))["signatures"]
    assert first["diagnosticLogs"][0]["callStack"] == [
        "  3 main (in Shop)",
        "▶ 3 -[Cart save] (in Shop) Cart.m:42",
    ]
    assert first["diagnosticLogs"][1] == {
        "diagnosticMetaData": {"writesCaused": "2 GB", "buildVersion": "46"},
        "blamedFrame": None,
        "blameFrames": [],
        "callStack": [],
    }


def test_a_file_may_be_packed_and_come_from_standard_input(look: Look, saved: Saved) -> None:
    """gzip is known by its first bytes, whatever the file is called; a byte order mark does not matter."""
    plain = document(look("parse", saved(METRICS)))
    body = json.dumps(METRICS).encode()
    assert document(look("parse", saved(gzip.compress(body)))) == plain
    assert document(look("parse", "-", stdin=gzip.compress(body[:100]) + gzip.compress(body[100:]))) == plain
    assert document(look("parse", "-", stdin=b"\xef\xbb\xbf" + body)) == plain


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"<html>\x1b[2Jproxy", "the file is no JSON: it begins with “<html>[2Jproxy”"),
        (b"\xff\xfe\xfa\xfa\xfa", "the file is no JSON"),
        (b'{"productData": [', "the file ends in the middle of its JSON"),
        (b'{"a":' * 2000, "the file ends in the middle of its JSON"),
        (b'{"productData": []} {}', "the file is JSON with something behind it"),
        (b'{"a":' * 60_000 + b"1" + b"}" * 60_000, "the file's JSON is nested too deep"),
        (b"[]", "the file is JSON, but not an object"),
        (b"12", "the file is JSON, but not an object"),
        ({}, "the file is an empty JSON object"),
        ({"productData": {}, "a": 1}, "the file is a JSON object with the keys productData, a"),
        ({"productData": [1]}, "the file is a JSON object with the keys productData"),
        ({"productData": [1], "insights": {}}, "nothing in the file could be understood"),
        ({"data": [{"type": "builds", "id": "1"}]}, "the file is a listing of builds"),
        ({"data": []}, "the file is a listing that does not say of what"),
        ({"data": [7], "links": 7}, "the file is a listing that does not say of what"),
        (
            {"errors": [{"code": "NOT_AUTHORIZED", "detail": "No."}]},
            "the file is an error of App Store Connect: NOT_AUTHORIZED No.",
        ),
        (gzip.compress(b"{}" * 1000)[:20], "the file is gzip, but damaged or not complete"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused(look: Look, saved: Saved, content: object, says: str) -> None:
    """Status 2, what it looks like, and what is expected."""
    path = saved(content)
    result = look("parse", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {path}: ")
    assert says in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("body", [b" " * 1001, gzip.compress(b" " * 1001), b"\x1f\x8b" + bytes(1000)])
def test_a_file_that_is_too_large_is_refused(body: bytes) -> None:
    """Packed or not, no more is read than the limit says."""
    with pytest.raises(ConfigError, match=r"big\.json: the file has more than 1000 bytes"):
        read(BytesIO(body), "big.json", most_bytes=1000)


def test_a_stack_that_nests_deep_is_shown(look: Look, saved: Saved) -> None:
    """Ten thousand frames on one path, beyond what the standard library's parser takes."""
    frame = b'{"symbolName":"f","sampleCount":1,"subFrames":['
    tree = frame * 10_000 + b"]}" * 10_000
    stacks = b'{"callStacks":[{"callStackRootFrames":[%b]}]}'
    logs = b'{"productData":[{"diagnosticLogs":[{"callStackTree":[%b]}]}]}' % stacks
    result = look("parse", saved(logs % tree), "--callstack", "--table")
    assert result.exit_code == 0
    assert 10 < len(result.stdout.splitlines()) < 100
    assert "more frames" in result.stdout


def test_hostile_values_neither_crash_nor_steer_the_terminal(look: Look, saved: Saved) -> None:
    """Control characters, half a surrogate pair, numbers beyond all bounds, wrong types: all shown tame."""
    evil = json.loads(json.dumps(METRICS))
    dataset = evil["productData"][0]["metricCategories"][0]["metrics"][0]["datasets"][0]
    dataset["filterCriteria"]["deviceMarketingName"] = "a\x1b]0;x\x07\u202e\ud83d\x9bz"
    dataset["points"] = [
        {"version": "1\n2", "value": float("inf"), "goal": 7},
        7,
        {"version": [], "value": 1},
    ]
    for form in ("--json", "--table"):
        result = look("parse", saved(evil), form)
        assert result.exit_code == 0, result.output
        assert all(char.isprintable() or char == "\n" for char in result.stdout)
    assert document(look("parse", saved(evil)))["metrics"][0]["value"] is None


# Pipes and terminals


@pytest.mark.parametrize(("form", "shown"), [("--table", "M?ller"), ("--json", "M\\u00fcller")])
def test_a_terminal_without_utf8_is_no_reason_to_crash(
    environ: dict[str, str], tmp_path: Path, saved: Saved, form: str, shown: str
) -> None:
    """What cannot be shown becomes a question mark, and an escape in JSON."""
    text = json.dumps(METRICS).replace("All iPhones", "Müller")
    done = subprocess.run(
        command("parse", saved(text.encode()), form),
        env={**PYTHON_ENVIRONMENT, **environ, "PYTHONIOENCODING": "ascii"},
        cwd=tmp_path,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert shown.encode() in done.stdout


def test_a_table_in_a_pipe_is_not_cut(look: Look, saved: Saved) -> None:
    """Without a terminal and without COLUMNS a line may be as long as it is."""
    long = json.dumps(LOGS).replace("Total of", "Total " * 30)
    assert (
        f"disk writes, {'Total ' * 30} 1.5 GB\n"
        in look("parse", saved(long.encode()), "--table", COLUMNS="").stdout
    )


def test_a_reader_that_leaves_early_is_no_error_to_speak_of(environ: dict[str, str], tmp_path: Path) -> None:
    """`| head -1` gets its line, in JSON, and nothing is said on standard error."""
    shell = f"{' '.join(command('metrics', APP))} | head -1"
    done = subprocess.run(
        ["/bin/sh", "-c", shell],
        env={**PYTHON_ENVIRONMENT, **environ},
        cwd=tmp_path,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"[\n", b"")


def test_a_terminal_gets_a_table_that_fits(environ: dict[str, str], tmp_path: Path) -> None:
    """A real terminal, ninety cells wide: no line is longer, no number is cut, the rest is said."""
    del environ["COLUMNS"]
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 90, 0, 0))
        chosen = command("metrics", APP, "--metric", "launch", "--device", "all_*")
        subprocess.run(
            chosen, env={**PYTHON_ENVIRONMENT, **environ}, cwd=tmp_path, stdout=theirs, timeout=30, check=True
        )
        text = os.read(ours, 65_536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    lines = text.replace("\r\n", "\n").splitlines()
    assert lines[0].startswith("metric             unit  platform  device       percentile")
    assert max(map(len, lines)) <= 90
    assert "Not shown for lack of room: 7.40.0, " in text


# Tables


def test_only_the_longest_text_is_cut() -> None:
    """Numbers and ids stay whole, even where the line is then too long; wide characters count twice."""
    columns = Column("id"), Column("name", "text"), Column("other", "text"), Column("n", "number")
    rows = [("0123456789", "日本語" * 10, "a" * 20, "12"), ("1", "b", "c", "3456")]
    assert table(columns, rows, None)[1] == f"0123456789  {'日本語' * 10}  {'a' * 20}    12"
    assert table(columns, rows, 50) == [
        "id          name             other               n",
        "0123456789  日本語日本語日…  aaaaaaaaaaaaaa…    12",
        "1           b                c                3456",
    ]


def test_the_least_width_is_that_of_the_narrowest_table() -> None:
    """What `least_width` promises, `table` keeps."""
    columns = Column("id"), Column("name", "text"), Column("n", "number")
    rows = [("0123456789", "b" * 50, "12")]
    width = least_width(columns, rows)
    assert max(len(line) for line in table(columns, rows, width)) == width
    assert max(len(line) for line in table(columns, rows, 5)) == width


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0.0, "0"),
        (12.0, "12"),
        (1200, "1200"),
        (1234567.8912, "1234567.891"),
        (-2.5, "-2.5"),
        (0.000123456, "0.0001235"),
        (1e300, "1e+300"),
    ],
)
def test_numbers_are_written_for_people(value: float | None, shown: str) -> None:
    """Never more than three decimals, and no row of zeros."""
    assert number(value) == shown


def test_texts_are_cut_wrapped_and_tamed() -> None:
    """Whole characters only; addresses are not broken; what a terminal would obey becomes a space."""
    assert [cut("日本語", width) for width in (6, 5, 4, 1)] == ["日本語", "日本…", "日…", "…"]
    assert cut("e\u0301a", 2) == "e\u0301a"
    assert wrapped("see https://developer.apple.com/documentation now", 24, "  ") == [
        "  see",
        "  https://developer.apple.com/documentation",
        "  now",
    ]
    assert to_terminal("a\x1b[0mb\nc\r\x9b", "utf-8") == "a [0mb\nc  "
    assert to_terminal("Müller\n", "ascii") == "M?ller\n"
    assert to_json({"ü": "\x7f\u2028\U000e0001\ud800"}, "utf-8") == (
        '{\n  "ü": "\\u007f\\u2028\\udb40\\udc01\\ud800"\n}'
    )
    assert json.loads(to_json({"ü": "😀\x85"}, "ascii")) == {"ü": "😀\x85"}


def test_each_command_for_looking_is_one_of_the_program() -> None:
    """The names that the help lists."""
    names = {"apps", "builds", "metrics", "insights", "diagnostics", "parse", "token"}
    assert {command.name for command in COMMANDS} == names
    assert names <= set(main.commands)
