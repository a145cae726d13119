"""The rules for Prometheus: `promtool` checks them, runs their own unit tests, and writes their messages.

To accept a change of the golden files on purpose: `UPDATE_GOLDEN=1 pytest tests/assets`, then read the
difference.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.assets import prometheus
from exporter.assets.alerts import alerts
from exporter.assets.collector_alerts import collector_alerts
from exporter.assets.dashboards import dashboards
from exporter.assets.model import Series, Wishes
from exporter.assets.prometheus.promql import metric_name
from exporter.errors import ConfigError
from tests.assets.promql_series import asked
from tests.assets.real_prometheus import promtool
from tests.backends.prometheus import Sample

GOLDEN = Path(__file__).parent / "golden" / "prometheus"
RULES, TESTS = "alerts/rules.yml", "alerts/rules.test.yml"
OF_THE_COLLECTOR = tuple(alert.id for alert in collector_alerts())
KINDS = ("LaunchTimeRegressed", "KeyHourUsedUp", "NewHeavyProblem", "PointsRejected", "DataStale")
HOSTILE = (
    'quo"te',
    "brace{}",
    "{{ $labels.version }}",
    "two\nlines",
    "a,b",
    "${service}",
    "[[service]]",
    "back\\slash",
    "a|b",
    ".*",
    "100 %q",
    "back`tick",
    "é☃😀",
)
SERVICE, VERSION = "com.example.app", "2.0"
OF_ONE = (
    f'service_name="{SERVICE}", deployment_environment_name="production", platform="iOS", version="{VERSION}"'
)


def written(wishes: Wishes | None = None, *, only: tuple[str, ...] = ()) -> dict[str, str]:
    """The files for all alerts, or for those of these ids."""
    chosen = [alert for alert in alerts() if not only or alert.id in only]
    off = OF_THE_COLLECTOR if only else ()
    wishes = wishes or Wishes(off=off)
    return prometheus.files(dashboards(), chosen, wishes)


def rules(files: Mapping[str, str]) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(files[RULES])["groups"] for rule in group["rules"]]


def run(folder: Path, files: Mapping[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    """Run promtool beside these files."""
    for path, text in files.items():
        (folder / Path(path).name).write_text(text, encoding="utf-8")
    return subprocess.run(
        [promtool(), *command], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    """Each rule is valid, in its expression and its templates, and none is there twice."""
    files = written()
    done = run(tmp_path, files, "check", "rules", "--lint=all", "--lint-fatal", "rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(rules(files))} rules found" in done.stdout


def test_every_rule_fires_alone_and_ends(tmp_path: Path) -> None:
    """The unit tests that are shipped beside the rules pass, and have each rule fire and end."""
    files = written()
    done = run(tmp_path, files, "test", "rules", "rules.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    tests = yaml.safe_load(files[TESTS])["tests"]
    for rule in rules(files):
        fires = [
            [bool(moment["exp_samples"]) for moment in test["promql_expr_test"]]
            for test in tests
            if f'alertname="{rule["alert"]}"' in str(test["promql_expr_test"])
        ]
        assert len(fires) == 1, rule["alert"]
        assert True in fires[0], rule["alert"]
        assert [*fires[0]].count(False) >= 2, rule["alert"]


@pytest.mark.parametrize(
    ("found", "instead"),
    [
        (">= 1\n", "> 1\n"),
        (">= 46800", ">= 36800"),
        ("<= 0.1", "<= 0.05"),
        ("for: 15m", "for: 10m"),
        ("for: 15m", "for: 25m"),
        (r"(?<=\[)1h(?=\]\)\) >=)", "5m"),
        (r"(?<=\[)1h(?=\]\)\) >=)", "2h"),
        (r"\n +or \(last_over_time\(\S+\[1h\]\) < [^\n]*", ""),
        (r"\n +or \(last_over_time\(\S+\[1h\]\) unless [^\n]*", ""),
        (r"(\n +)\* max", r"\1- max"),
        (r"unless max by \(account\)", "and max by (account)"),
        ("severity: critical", "severity: warning"),
        ("by \\(service_name, ", "by ("),
    ],
)
def test_a_wrong_rule_is_noticed(tmp_path: Path, found: str, instead: str) -> None:
    """The unit tests fail when a threshold, a time, a window, a group or a case is another one."""
    files = written(only=(*KINDS, "TerminationOnScreenRegressed"))
    changed = re.sub(found, instead, files[RULES])
    assert changed != files[RULES]
    done = run(tmp_path, {**files, RULES: changed}, "test", "rules", "rules.test.yml")
    assert done.returncode != 0


def test_a_message_says_what_where_and_how_much(tmp_path: Path) -> None:
    """The whole text of an alert, with the numbers that Prometheus has when it fires, the worst first."""
    series = {
        f'appstore_launch_time_regressed{{{OF_ONE}, device="all_iphones", percentile="p90"}}': "1x30",
        f'appstore_launch_time_delta_ratio{{{OF_ONE}, device="all_iphones", percentile="p90"}}': "0.59x30",
        f'appstore_launch_time_seconds{{{OF_ONE}, device="all_iphones", percentile="p90"}}': "9x30",
        f'appstore_launch_time_seconds{{{OF_ONE}, device="iPhone12,1", percentile="p50"}}': "9x30",
        f'appstore_launch_time_seconds{{{OF_ONE}, device="iPhone15,2", percentile="p90"}}': "2.5x30",
        f'appstore_launch_time_seconds{{{OF_ONE}, device="iPhone12,1", percentile="p90"}}': "3.5x30",
    }
    (alert,) = (alert for alert in alerts() if alert.id == "LaunchTimeRegressed")
    fired = {
        "exp_labels": {
            "service_name": SERVICE,
            "deployment_environment_name": "production",
            "platform": "iOS",
            "version": VERSION,
            "severity": "warning",
        },
        "exp_annotations": {
            "summary": "Launch time got worse with the newest version.",
            "description": (
                f"service {SERVICE}, environment production, platform iOS, version {VERSION}\n"
                f"{alert.meaning}\n"
                "Highest change against the earlier versions: all_iphones 59%.\n"
                "Highest value: iPhone12,1 3.5s, iPhone15,2 2.5s.\n"
                f"First: {alert.first}\n"
                f"Where to look: {alert.look}"
            ),
            "runbook_url": "https://example.com/runbook#launchtimeregressed",
        },
    }
    moment = {"eval_time": "20m", "alertname": "AppStoreLaunchTimeRegressed", "exp_alerts": [fired]}
    files = written(Wishes(off=OF_THE_COLLECTOR, runbook="https://example.com/runbook"), only=(alert.id,))
    done = run(tmp_path, {**files, TESTS: unit_tests(series, [moment])}, "test", "rules", "rules.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def unit_tests(series: Mapping[str, str], moments: list[dict[str, Any]]) -> str:
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    tests = [{"interval": "1m", "input_series": inputs, "alert_rule_test": moments}]
    return yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests})


def test_every_message_can_be_written(tmp_path: Path) -> None:
    """No template of any alert fails when it is filled in, and none has a place that stays empty."""
    files = written()
    series: dict[str, str] = {}
    for alert, test in zip((*alerts(), *collector_alerts()), values_tested(files), strict=True):
        own, *others = [one["series"] for one in test["input_series"] if alert.missing or not is_age(one)]
        series |= dict.fromkeys(others, "1x100")
        series[own] = f"{alert.threshold}{f'+{alert.threshold}' if alert.window else ''}x100"
    names = [rule["alert"] for rule in rules(files) if not rule["alert"].endswith("NoData")]
    moments = [{"eval_time": "90m", "alertname": name, "exp_alerts": []} for name in names]
    moments.append({"eval_time": "90m", "alertname": "AppStoreDataStaleNoData", "exp_alerts": []})
    done = run(tmp_path, {**files, TESTS: unit_tests(series, moments)}, "test", "rules", "rules.test.yml")
    said = done.stdout + done.stderr
    fired = re.findall(r'Labels:\{(?:account="main", )?alertname="(\w+)"', said)
    assert sorted(fired) == sorted(names), said[-2000:]
    assert "error expanding" not in said
    assert "no value" not in said
    assert not re.search(r"(service|environment|platform|version|account) ?[,:\\]", said)


def is_age(series: Mapping[str, str]) -> bool:
    return "data_age" in series["series"]


def values_tested(files: Mapping[str, str]) -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = yaml.safe_load(files[TESTS])["tests"]
    return [test for test in tests if not test["name"].endswith("silence")]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_is_taken_as_it_is(tmp_path: Path, text: str) -> None:
    """Whatever a service or environment is called, it changes no query: that name is found, and no other."""
    wishes = Wishes(services=(text,), environments=(text,), off=OF_THE_COLLECTOR, notify=(f"team={text}",))
    files = written(wishes, only=("LaunchTimeRegressed",))
    (rule,) = rules(files)
    (one,) = asked(rule["expr"])
    labels = {"device": "all_iphones", "platform": "iOS", "version": "1"}

    def found(service: str) -> bool:
        both = {"service_name": service, "deployment_environment_name": text}
        return one.finds([Sample(one.name, "gauge", {**labels, **both}, 1.0, None)])

    assert found(text)
    assert not found("anything else")
    assert not found(text + "!")
    done = run(tmp_path, files, "test", "rules", "rules.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("wishes", "where"),
    [
        (Wishes(services=("",)), "alerts.services"),
        (Wishes(services=("good", "bad\ud800")), "alerts.services"),
        (Wishes(environments=("",)), "alerts.environments"),
        (Wishes(notify=("@slack-mobile",)), "alerts.notify"),
        (Wishes(notify=("team=a", "team=b")), "alerts.notify"),
        (Wishes(notify=("severity=page",)), "alerts.notify"),
        (Wishes(notify=("alertname=x",)), "alerts.notify"),
        (Wishes(notify=("team=",)), "alerts.notify"),
        (Wishes(notify=("__name__=x",)), "alerts.notify"),
        (Wishes(notify=("version=9",)), "alerts.notify"),
        (Wishes(notify=("service_name=x",)), "alerts.notify"),
        (Wishes(notify=("team=\ud800",)), "alerts.notify"),
        (Wishes(runbook="https://example.com/\udc00"), "alerts.runbook"),
        (Wishes(notify=("tea m=x",)), "alerts.notify"),
        (Wishes(thresholds={"DataStale": float("nan")}), "alerts.thresholds.DataStale"),
        (Wishes(thresholds={"DataStale": float("inf")}), "alerts.thresholds.DataStale"),
    ],
)
def test_what_cannot_be_said_is_refused(wishes: Wishes, where: str) -> None:
    """An error names the setting, and says what to write."""
    with pytest.raises(ConfigError) as error:
        written(wishes)
    assert error.value.where == where
    assert error.value.remedy


def test_wishes_are_in_the_rules(tmp_path: Path) -> None:
    """Thresholds, what is off, whom to tell and which apps: as wished, and the unit tests know it."""
    wishes = Wishes(
        services=("com.example.harbour", "com.example.larkspur"),
        environments=("production",),
        notify=("team=mobile", "page=no"),
        thresholds={"NewHeavyProblem": 10.0, "DataStale": 90_000.0},
        off=(*OF_THE_COLLECTOR, *(alert.id for alert in alerts() if alert.id not in KINDS)),
    )
    files = written(wishes)
    of = {rule["alert"].removeprefix("AppStore"): rule for rule in rules(files)}
    assert of.keys() == {*KINDS, "DataStaleNoData"}
    assert of["NewHeavyProblem"]["expr"].endswith(">= 10")
    assert of["DataStale"]["expr"].endswith(">= 90000")
    assert "the limit is 25 h or more" in of["DataStale"]["annotations"]["description"]
    assert {(rule["labels"]["team"], rule["labels"]["page"]) for rule in of.values()} == {("mobile", "no")}
    services = r'service_name=~"com\\.example\\.harbour|com\\.example\\.larkspur"'
    for name, rule in of.items():
        about_an_app = name in ("LaunchTimeRegressed", "NewHeavyProblem")
        assert rule["expr"].count(services) == ((1, 2)[name == "NewHeavyProblem"] if about_an_app else 0)
    done = run(tmp_path, files, "test", "rules", "rules.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_keep_the_customs() -> None:
    """Names, labels and annotations as monitoring mixins have them; no value in a label, no topk."""
    files = written()
    for group in yaml.safe_load(files[RULES])["groups"]:
        assert group["interval"] == "1m"
    for rule in rules(files):
        assert re.fullmatch(r"AppStore[A-Z][A-Za-z]+", rule["alert"])
        assert rule["labels"].keys() == {"severity"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert "{{" not in rule["annotations"]["summary"] + rule["annotations"]["runbook_url"]
        assert "topk" not in rule["expr"]
        assert ("absent_over_time" in rule["expr"]) <= ("for" in rule)
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["description"]))
        assert used <= {label for one in asked(rule["expr"]) for label in one.by}, rule["alert"]


@pytest.mark.parametrize(
    ("series", "name"),
    [
        (Series("appstore.launch.time", "s"), "appstore_launch_time_seconds"),
        (Series("appstore.hang.rate", "s/h"), "appstore_hang_rate_seconds_per_hour"),
        (Series("appstore.disk.writes", "By/d"), "appstore_disk_writes_bytes_per_day"),
        (
            Series("appstore.termination.on_screen", "{termination}/d"),
            "appstore_termination_on_screen_per_day",
        ),
        (Series("appstore.launch.time.delta", "1"), "appstore_launch_time_delta_ratio"),
        (Series("appstore.launch.time.goal_ratio", "1"), "appstore_launch_time_goal_ratio"),
        (Series("appstore.launch.time.goal_band", "{band}"), "appstore_launch_time_goal_band"),
        (Series("appstore.exporter.polls", "{poll}", "counter"), "appstore_exporter_polls_total"),
        (Series("appstore.anything", "1", "counter"), "appstore_anything_total"),
        (Series("appstore.animation.x", "ms/s"), "appstore_animation_x_milliseconds_per_second"),
        (Series("otelcol_exporter_queue_size", ""), "otelcol_exporter_queue_size"),
    ],
)
def test_names_are_those_of_the_collector(series: Series, name: str) -> None:
    """Dots become underscores, and the unit a suffix, once."""
    assert metric_name(series) == name


def test_files_are_the_same_each_time() -> None:
    """Two runs differ in nothing, and each file ends with one line end."""
    first = written()
    assert first == written()
    assert first.keys() == {RULES, TESTS}
    assert all(re.search(r"[^\n]\n\Z", text) for text in first.values())


@pytest.mark.parametrize("path", [RULES, TESTS])
def test_these_files_are_as_they_were(path: str) -> None:
    """A rule and its unit test are as the golden files spell them out."""
    text = written(only=("LaunchTimeRegressed",))[path]
    golden = GOLDEN / f"LaunchTimeRegressed.{Path(path).name}"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")
