"""The commands for looking by hand, on saved answers."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from exporter import __version__
from exporter.cli import main
from exporter.errors import ConfigError
from exporter.look.saved import read
from tests.service.saved_answers import LOGS, LOGS_WITH_STACKS, METRICS, OVERVIEW, SIGNATURES
from tests.service.service_world import PYTHON_ENVIRONMENT, command

Look = Callable[..., Result]
Saved = Callable[[object], str]

REGRESSION = """\
regression of LAUNCH/launchTime in ms: 2.0 against 1.0, 1.9; high impact
  Launches got slower.
"""
METRICS_TABLE = f"""\
metric             unit          platform  device       percentile  1.0     1.9            1.10  goal
LAUNCH/launchTime  ms            iOS       All iPhones  p50           -  600.25  1200 ±1.5 fair   500
HANG/hangRate      seconds/hour  iOS       iPhone14,2   -                                     3     -

Values with a percentageBreakdown by subsystem: 1. --json shows it.

{REGRESSION}\
  device       percentile  latest  reference  change  1.0     1.9            1.10
  All iPhones  p50           1200        600  +100 %    -  600.25  1200 ±1.5 fair
"""
METRICS_NARROW = f"""\
metric             unit          platform  device       percentile            1.10  goal
LAUNCH/launchTime  ms            iOS       All iPhones  p50         1200 ±1.5 fair   500
HANG/hangRate      seconds/hour  iOS       iPhone14,2   -                        3     -

Not shown for lack of room: 1.0, 1.9. --json shows all.

Values with a percentageBreakdown by subsystem: 1. --json shows it.

{REGRESSION}\
  device       percentile  latest  reference  change     1.9            1.10
  All iPhones  p50           1200        600  +100 %  600.25  1200 ±1.5 fair
  Not shown for lack of room: 1.0. A wider terminal shows them.
"""
HANGS_ONLY = """\
metric         unit          platform  device      percentile  1.10  goal
HANG/hangRate  seconds/hour  iOS       iPhone14,2  -              3     -
"""
LOGS_WITHOUT_STACKS = LOGS_WITH_STACKS.replace(
    "      3 main (in Shop)\n    ▶ 3 -[Cart save] (in Shop) Cart.m:42\n"
    "  log 2 of 2, version (46), 2 GB\n    no call stack\n",
    "    blamed: -[Cart save] Cart.m:42\n  log 2 of 2, version (46), 2 GB\n    blamed: -\n",
)
FIRST_LOG_ONLY = LOGS_WITH_STACKS.replace("  log 2 of 2, version (46), 2 GB\n    no call stack\n", "")
LOGS_WITH_STACKS_NARROW = """\
signature ab12
  Apple: [Repeated
  Writes] Write
  [2Jless.
  https://developer.apple.com/x
  log 1 of 2,
  iPhone13_3, iPhone
  OS 14.6 (18F72),
  version 2.0 (45),
  arm64e, disk
  writes, Total of
  1.5 GB
      3 main (in Shop)
    ▶ 3 -[Cart save] (in Shop) Cart.m:42
  log 2 of 2,
  version (46), 2 GB
    no call stack

signature cd34
  Apple gave no logs for this signature
"""
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
OVERVIEW_TABLE = """\
iOS 2.0

type   count  weight  trend  signature     source
HANGS     12     0.5  up     -[Cart save]  Cart.m:42

metric         device       percentile  goal  unit
HANG/hangRate  all_iphones  p50           20  s/h

regression of HANG/hangRate in s/h: 2.0
  All iPhones hang more.
  device       percentile  latest  reference  change
  all_iphones  -                3          2   +50 %
"""
EMPTY_OVERVIEW = """\
Overview

No signatures.

No goals.

No regressions and no upward trends.
"""


@pytest.fixture
def look() -> Look:
    """Runs a command in this process, without any account; nothing it says is a traceback."""

    def run(*arguments: str, stdin: bytes | None = None, **more: str) -> Result:
        environ = {"ASC_KEY_ID": "", "PERFPOWER_CONFIG": "no", "COLUMNS": "200", **more}
        result = CliRunner(env=environ).invoke(main, arguments, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit)
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
        ("--platform=MAC_OS", [], 0),
        ("--percentile=p50", ["launchTime"], 1),
        ("--percentile=50", ["launchTime"], 1),
        ("--percentile=Fifty", ["launchTime"], 1),
        ("--percentile=percentile.fifty", ["launchTime"], 1),
        ("--percentile=p90", [], 0),
        ("--metric=hang --percentile=p50", [], 0),
        ("--device=all*iphones --device=nothing", ["launchTime"], 1),
        ("-m launchtime -d all_iphones -p iOS -a", ["launchTime"], 1),
        ("--auto_insights --auto-insights -m HANG", ["hangRate"], 0),
    ],
)
def test_metrics_are_chosen_by_every_name_they_have(
    look: Look, saved: Saved, choice: str, metrics: list[str], insights: int
) -> None:
    """Apple's words or ours, in upper or lower case; insights as well; status 1 where nothing is left."""
    result = look("parse", saved(METRICS), *choice.split())
    assert result.exit_code == (0 if metrics else 1)
    assert ("fits" in result.stderr) == (not metrics or "nothing" in choice)
    shown = json.loads(result.stdout)
    assert list(dict.fromkeys(point["metric"] for point in shown["metrics"])) == metrics
    assert len(shown["insights"]) == insights


# Saved files


@pytest.mark.parametrize(
    ("content", "arguments", "columns", "text"),
    [
        (METRICS, [], "200", METRICS_TABLE),
        (METRICS, [], "80", METRICS_NARROW),
        (METRICS, ["--metric", "hang"], "200", HANGS_ONLY),
        (LOGS, ["--callstack"], "200", LOGS_WITH_STACKS),
        (LOGS, [], "200", LOGS_WITHOUT_STACKS),
        (LOGS, ["-c"], "20", LOGS_WITH_STACKS_NARROW),
        (LOGS, ["--limit", "1", "--callstack"], "200", FIRST_LOG_ONLY),
        (LOGS, ["-l", "2", "--logs", "1", "-c"], "200", FIRST_LOG_ONLY),
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
        (b'{"productData": [', "the file ends in the middle of its JSON, at line 1, character 18"),
        (b'{"a":\n{"b": "\xc3\xbc and', "the file ends in the middle of its JSON, at line 2, character 13"),
        (b'{"a": {}, "b": tr', "the file ends in the middle of its JSON, at line 1, character 18"),
        (b'{"a": "\xc3', "the file ends in the middle of its JSON, at line 1, character 9"),
        (b'{"a":' * 2000, "the file ends in the middle of its JSON, at line 1, character 10001"),
        (b'{"a":' * 2000 + b"no" + b"}" * 2000, "the file is no JSON: "),
        (b'{"a":' * 60_000, "the file's JSON is nested too deep"),
        (b'{"a":\n 1,, "b": 2}\n', "the file's JSON is broken at line 2, character 4: "),
        (b'{"a": "M\xfcller"}', "the file's JSON is broken at line 1, character 9: not utf-8"),
        (b'{"productData": []}\n {}', "the file is JSON with something behind it, at line 2, character 2"),
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
            "the file is an error of App Store Connect: NOT_AUTHORIZED No. Expected",
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


def test_apples_commands_and_options_are_understood(look: Look, saved: Saved) -> None:
    """`ppparser metrics` and `ppparser diagnostics` mean the same with our name in front."""
    whole = document(look("parse", "--input", saved(METRICS)))
    assert document(look("metrics", f"--input={saved(METRICS)}", "--auto_insights")) == whole["metrics"]
    chosen = look("metrics", "-i", saved(METRICS), "-m", "LAUNCHTIME", "--table").stdout
    assert chosen == look("parse", saved(METRICS), "--metric=launchtime", "--table").stdout
    logs = document(look("parse", saved(LOGS), "-c", "-l", "1"))
    assert [len(row["diagnosticLogs"]) for row in logs["signatures"]] == [1, 0]
    assert [row["logCount"] for row in logs["signatures"]] == [2, 0]
    shown = look("diagnostics", "--input", saved(LOGS), "--limit=1", "--callstack")
    assert document(shown) == logs["signatures"]
    heaviest = document(look("diagnostics", "-i", saved(SIGNATURES), "--type", "hang", "-l", "1"))
    assert [row["signature"] for row in heaviest] == ["f1"]
    assert __version__ in look("parse", "-v").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["parse"], "give either FILE or --input FILE"),
        (["parse", "-", "-i", "-"], "give either FILE or --input FILE"),
        (["metrics"], "give either APP|BUILD or --input FILE"),
        (["metrics", "1540000001", "-i", "-"], "give either APP|BUILD or --input FILE"),
        (["diagnostics"], "give either BUILD or --input FILE"),
        (
            ["parse", "-", "--type", "hagns"],
            "'hagns' is none of hangs, launches and disk-writes (Apple's HANGS",
        ),
        (["diagnostics", "a:1", "--type", ""], "'' is none of hangs"),
        (["diagnostics", "a:1", "--logs", "0"], "0 is not in the range"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_read(
    look: Look, arguments: list[str], says: str
) -> None:
    """Status 2, and what there is to choose from; no account is needed to be told."""
    result = look(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr


@pytest.mark.parametrize(
    ("name", "content"), [("metrics", LOGS), ("diagnostics", METRICS), ("metrics", OVERVIEW)]
)
def test_a_command_takes_files_of_its_own_kind_only(
    look: Look, saved: Saved, name: str, content: dict[str, Any]
) -> None:
    """Status 2, what the file holds, and which command shows all kinds."""
    result = look(name, "--input", saved(content))
    assert (result.exit_code, result.stdout) == (2, "")
    kind = document(look("parse", saved(content)))["kind"]
    assert f"the file holds {kind}. Here " in result.stderr
    assert "`perfpower-exporter parse` shows the other kinds" in result.stderr


@pytest.mark.parametrize(
    ("content", "arguments", "idle"),
    [
        (METRICS, ["--type=hangs", "--limit=1", "--metric=hang"], "--type, --limit say"),
        (LOGS, ["--metric=hang", "-d", "x", "-p", "iOS", "--logs=1"], "--metric, --device, --platform say"),
        (SIGNATURES, ["--callstack", "--percentile=p50"], "--percentile, --callstack say"),
        (OVERVIEW, ["--limit=1", "-a"], "--limit says"),
    ],
)
def test_options_that_do_not_concern_the_file_are_named(
    look: Look, saved: Saved, content: dict[str, Any], arguments: list[str], idle: str
) -> None:
    """They change nothing, which is told beside what is shown."""
    result = look("parse", saved(content), *arguments)
    kind = document(result)["kind"]
    assert f"note: the file holds {kind}, about which {idle} nothing\n" in result.stderr


def test_filters_that_leave_nothing_are_a_failure(look: Look, saved: Saved) -> None:
    """Each may fit something: status 1, an empty list, and a note; without filters nothing is no failure."""
    both = look("metrics", "-i", saved(METRICS), "-m", "hang", "--percentile", "p50")
    assert (both.exit_code, both.stdout) == (1, "[]\n")
    assert "note: no point fits --metric, --percentile all together\n" in both.stderr
    empty = saved({"productData": [], "insights": {"trendingUp": [], "regressions": []}})
    assert document(look("metrics", "-i", empty)) == []
    assert look("metrics", "-i", empty, "-p", "iOS").exit_code == 1


def test_an_insight_shows_families_then_the_models_that_changed_most(look: Look, saved: Saved) -> None:
    """Ten models with all their percentiles, the others counted; --all shows them too."""
    many = json.loads(json.dumps(METRICS))
    many["insights"]["regressions"][0]["populations"] = [
        {"device": device, "percentile": percentile, "deltaPercentage": change}
        for change, device in enumerate([*(f"iPhone{n},1" for n in range(12)), "all_iphones"])
        for percentile in ("percentile.fifty", "percentile.ninety")
    ]
    shown = look("parse", saved(many), "--table").stdout.partition("device       percentile  latest")[2]
    lines = [line.split()[:2] for line in shown.splitlines()[1:]]
    assert [name for name, _ in lines[:2]] == ["All", "All"]
    expected = [[f"iPhone{n},1", percentile] for n in range(11, 1, -1) for percentile in ("p50", "p90")]
    assert lines[2:-1] == expected
    assert lines[-1] == ["+", "2"]
    assert "  + 2 models, --all\n" in shown
    every = look("parse", saved(many), "--table", "--all").stdout
    assert "iPhone0,1" in every
    assert "models" not in every


def test_an_insight_is_known_by_the_names_of_its_device(look: Look, saved: Saved) -> None:
    """Platform and marketing name, which the points tell; beside Apple's fields in the JSON."""
    (insight,) = document(look("parse", saved(METRICS), "--device", "all iph*"))["insights"]
    assert insight["unit"] == {"identifier": "milliseconds", "displayName": "ms"}
    population = insight["populations"][0]
    assert (population["deviceMarketingName"], population["platform"]) == ("All iPhones", "iOS")


def test_an_insight_may_have_no_populations(look: Look, saved: Saved) -> None:
    """Its heading and Apple's sentence are all there is to show."""
    few = json.loads(json.dumps(METRICS))
    few["insights"]["regressions"][0]["populations"] = []
    few["insights"]["regressions"][0]["subSystemLabel"] = "UI"
    shown = look("parse", saved(few), "--table").stdout
    assert shown.endswith(f"\n\n{REGRESSION.replace('launchTime', 'launchTime (UI)')}")


def test_all_frames_of_a_stack_are_shown_on_request(look: Look, saved: Saved) -> None:
    """A line for each frame, in full: nothing is left out, and nothing cut."""
    deep: dict[str, Any] = {"symbolName": "leaf" * 60, "binaryName": "Shop", "fileName": "Leaf.swift"}
    for _ in range(300):
        deep = {"symbolName": "f", "subFrames": [deep]}
    log = {"callStackTree": [{"callStacks": [{"callStackRootFrames": [deep]}]}]}
    path = saved({"productData": [{"signatureId": "a", "diagnosticLogs": [log]}]})
    lines = look("parse", path, "-c", "--all", "--table", COLUMNS="80").stdout.splitlines()
    assert len(lines) == 2 + 301
    assert f"{'leaf' * 60} (in Shop) Leaf.swift" in lines[-1]
    assert "more frames" in look("parse", path, "-c", "--table").stdout


# Pipes and terminals


@pytest.mark.parametrize(("form", "shown"), [("--table", "M?ller"), ("--json", "M\\u00fcller")])
def test_a_terminal_without_utf8_is_no_reason_to_crash(
    tmp_path: Path, saved: Saved, form: str, shown: str
) -> None:
    """What cannot be shown becomes a question mark, and an escape in JSON."""
    text = json.dumps(METRICS).replace("All iPhones", "Müller")
    done = subprocess.run(
        command("parse", saved(text.encode()), form),
        env={**PYTHON_ENVIRONMENT, "PYTHONIOENCODING": "ascii"},
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
