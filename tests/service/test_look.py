"""The commands for looking by hand, against the sandbox over real HTTP."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import CliRunner, Result

from exporter.cli import main
from exporter.cli.looking import COMMANDS
from exporter.errors import AppStoreError
from exporter.look.choice import DiagnosticsChoice
from exporter.look.commands import apps, diagnostics
from exporter.look.connection import connected
from exporter.sandbox import AppStoreSandbox, Fault, Sandbox
from exporter.settings import load
from exporter.state import State
from tests.service.saved_answers import LOGS, LOGS_WITH_STACKS
from tests.service.service_world import PYTHON_ENVIRONMENT, command, running

APP = "com.example.harbour"
Look = Callable[..., Result]


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


def test_a_choice_that_fits_nothing_says_what_there_is(look: Look) -> None:
    """A typing error is told beside an empty answer, with status 1."""
    result = look("metrics", APP, "--metric", "lauchTime", "--device", "all_*")
    assert (result.exit_code, result.stdout) == (1, "[]\n")
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
    heading, sentence, columns, line, *_ = look("insights", "larkspur notes", "--table").stdout.splitlines()
    assert heading.startswith(f"upward trend of MEMORY/peakMemory in MB: {trend['latestVersion']} against ")
    assert sentence == f"  {trend['summaryString']}"
    assert columns.split()[:5] == ["device", "percentile", "latest", "reference", "change"]
    assert line.split()[:4] == ["All", "iPhones", "p50", str(first["latestVersionValue"])]
    assert look("insights", APP, "--table").stdout == "No regressions and no upward trends.\n"


@pytest.mark.parametrize(
    ("arguments", "status", "populations"),
    [
        (
            ["--device", "all_iphones"],
            0,
            {("all_iphones", "percentile.fifty"), ("all_iphones", "percentile.ninety")},
        ),
        (["-d", "All iPads", "--percentile", "p90"], 0, {("all_ipads", "percentile.ninety")}),
        (["-m", "peakmemory", "-p", "macOS", "--percentile", "50"], 0, {("all_macs", "percentile.fifty")}),
        (["-m", "hang"], 0, set()),
        (["-m", "hagn"], 1, set()),
        (["-d", "all_iphones", "--percentile", "p77"], 1, set()),
    ],
)
def test_insights_are_chosen_like_metrics(
    look: Look, arguments: list[str], status: int, populations: set[tuple[str, str]]
) -> None:
    """A metric that did not get worse has no insights, which is no failure; one that is not there is."""
    result = look("insights", "larkspur notes", *arguments)
    assert result.exit_code == status
    assert ("fits nothing" in result.stderr) == bool(status)
    shown = {
        (population["device"], population["percentile"])
        for insight in json.loads(result.stdout)
        for population in insight["populations"]
    }
    assert shown == populations


def test_an_answer_without_the_part_is_not_one_without_insights(look: Look, sandbox: Sandbox) -> None:
    """No insights is good news; no such part is none, and said."""
    sandbox.appstore.fail("/v1/apps/1540000001/", Fault(body=b'{"productData":[],"version":"1"}'))
    result = look("insights", APP)
    assert document(result) == []
    assert result.stderr == "note: the answer has no insights: not none, no such part\n"


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


def test_a_type_without_signatures_is_no_failure(look: Look, sandbox: Sandbox) -> None:
    """A build may have no hangs: an empty answer, and what there is instead."""
    resource = {"type": "diagnosticSignatures", "id": "1", "attributes": {"diagnosticType": "LAUNCHES"}}
    sandbox.appstore.fail("/v1/builds/", Fault(body=json.dumps({"data": [resource]}).encode()))
    result = look("diagnostics", build_of(sandbox), "--type", "Hang", "--logs", "1")
    assert document(result) == []
    assert "note: --type HANGS fits nothing; there is: LAUNCHES\n" in result.stderr
    assert "note: --logs has no meaning without --callstack\n" in result.stderr


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
    assert "  Apple gave no logs for this signature\n" in result.stdout
    assert result.stdout.count("  log 1 of 2, ") == 1


def test_a_key_that_sees_nothing_is_told(look: Look, sandbox: Sandbox) -> None:
    """No apps is an answer; an app that is looked for is then an error."""
    sandbox.appstore.fail("/v1/apps", Fault(body=b'{"data":[]}'), times=3)
    assert look("apps", "--table").stdout == "The key sees no app.\n"
    assert document(look("apps")) == []
    assert "the key sees no app “x”. It sees no app at all." in look("builds", "x").stderr


# Pipes and terminals


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


# Names


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["builds", "harbor banking"], 1, "no app “harbor banking”. Did you mean Harbour Banking"),
        (["metrics", "tidepool"], 1, "Did you mean Tidepool Trails or com.example.tidepool?"),
        (["metrics", "x" * 300], 1, "It sees com.example.harbour, com.example.larkspur, com."),
        (["insights", ""], 1, "no app “”"),
        (["diagnostics", APP], 2, f"“{APP}” names no build. Give its id, APP:VERSION"),
        (["diagnostics", ":1.0"], 2, "names no build"),
        (["diagnostics", f"{APP}:"], 2, "names no build"),
        (["diagnostics", "nobody:1.0:2"], 1, "no app “nobody:1.0”"),
        (["diagnostics", f"{APP}:7.470"], 1, f"“{APP}” has no build “7.470”. It has 7.47.0, 7.4"),
        (["diagnostics", f"{APP}:0"], 1, f"“{APP}” has no build “0”. It has 7.47.0, 7.46.0, "),
        (["diagnostics", f"{APP}:0"], 1, "7.43.0 … (12 in all)."),
        (["insights", f"{APP}:7.47.0"], 2, f"“{APP}:7.47.0” is a build, and here an app is needed."),
        (["insights", f"{APP}:7.47.0"], 2, f"Give the app alone: {APP}."),
        (["builds", "HARBOUR BANKING:1:2"], 2, "Give the app alone: HARBOUR BANKING."),
        (["insights", "00000000-0000-4000-8000-000000000000"], 2, "Give the app alone: APP."),
        (["insights", "nobody:1"], 1, "no app “nobody:1”"),
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


def test_a_build_number_in_the_place_of_a_version_is_recognised(look: Look, sandbox: Sandbox) -> None:
    """The name to give instead is told, and means that build."""
    build = next(b for b in sandbox.appstore.store.builds("1540000001", 100) if b.version == "7.46.0")
    result = look("metrics", f"{APP}:{build.number}")
    assert (result.exit_code, result.stdout) == (1, "")
    instead = f"{APP}:7.46.0:{build.number}"
    assert f"{build.number} is a build of 7.46.0: give {instead}." in result.stderr
    assert {point["version"] for point in document(look("metrics", instead))} == {"7.46.0"}


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


# What went wrong


@pytest.mark.parametrize(
    ("fault", "times", "says"),
    [
        (Fault(status=503), 5, "Tried 5 times; try again later."),
        (Fault(status=429, headers={"Retry-After": "7200"}), 1, "s). Try again later."),
    ],
)
def test_no_poll_asks_again_for_someone_who_asks_by_hand(
    sandbox: Sandbox, environ: dict[str, str], fault: Fault, times: int, says: str
) -> None:
    """What to do is said for a person, not for the service."""
    sandbox.appstore.fail("/v1/apps", fault, times=times)
    with (
        pytest.raises(AppStoreError) as raised,
        connected(load(None, environ), None, sleep=lambda _: None) as connection,
    ):
        apps(connection)
    assert str(raised.value).endswith(says)
    assert "poll" not in str(raised.value)


def test_ctrl_c_ends_a_command_without_a_word(environ: dict[str, str], tmp_path: Path) -> None:
    """While it waits for an answer: status 130, nothing on either output."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        environ["ASC_BASE_URL"] = f"http://127.0.0.1:{server.getsockname()[1]}"
        with running(command("apps"), environ, tmp_path / "out") as process, server.accept()[0] as asked:
            asked.settimeout(30)
            assert asked.recv(100).startswith(b"GET /v1/apps")
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
    assert (tmp_path / "out").read_bytes() == b""


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
    assert "PERFPOWER__LIMITS__KEY_SHARE=1 in front of the command" in result.stderr
    assert look("apps", PERFPOWER__LIMITS__KEY_SHARE="1").exit_code == 0
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


@pytest.mark.skipif(shutil.which("curl") is None, reason="it is curl that is tried")
def test_curl_takes_the_token_as_the_help_says(
    look: Look, sandbox: Sandbox, environ: dict[str, str], tmp_path: Path
) -> None:
    """The command line of the help, as it stands, asks with a token that opens the apps."""
    recipe = next(part for part in look("token", "--help").stdout.split("\n\n") if "curl -H" in part)
    recipe = recipe.replace("https://api.appstoreconnect.apple.com", environ["ASC_BASE_URL"])
    recipe = recipe.replace("perfpower-exporter", " ".join(command())).replace("curl ", "curl --silent ")
    done = subprocess.run(
        ["/bin/sh", "-c", recipe],
        env={**PYTHON_ENVIRONMENT, **environ},
        cwd=tmp_path,
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert len(json.loads(done.stdout)["data"]) == 3


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


def test_each_command_for_looking_is_one_of_the_program() -> None:
    """The names that the help lists."""
    names = {"apps", "builds", "metrics", "insights", "diagnostics", "parse", "token"}
    assert {command.name for command in COMMANDS} == names
    assert names <= set(main.commands)
