"""The rules for Prometheus: `promtool` checks them, runs their own unit tests, and writes their messages.

To accept a change of the golden files on purpose: `UPDATE_GOLDEN=1 pytest tests/assets`, then read the
difference.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.assets import prometheus
from exporter.assets.alerts import Pace, alerts
from exporter.assets.dashboards import dashboards
from exporter.assets.model import Series, Wishes, of_apple
from exporter.assets.prometheus.promql import metric_name
from exporter.assets.rendering import wanted
from exporter.convert.catalogue import APPLE_METRICS, COMPANIONS, VALUE
from exporter.errors import ConfigError
from tests.assets import golden_files
from tests.assets.promql_series import asked, of_a_build, questions
from tests.assets.real_prometheus import promtool
from tests.backends.prometheus import Sample

RULES, TESTS = "alerts/rules.yml", "alerts/rules.test.yml"
KINDS = (
    "LaunchTimeRegressed",
    "LaunchTimePoor",
    "HighImpactRegression",
    "KeyHourUsedUp",
    "NewHeavyProblem",
    "PointsRejected",
    "DataStale",
)
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
    "100 %q",
    "back`tick",
    "é☃😀",
)
SERVICE, VERSION = "com.example.app", "2.0"
MATCHER = re.compile(r'\w+(?:=~|!~|!=|=)"(?:[^"\\]|\\.)*"(?:, )?')
OF_ONE = (
    f'service_name="{SERVICE}", deployment_environment_name="production", platform="iOS", version="{VERSION}"'
)


def written(wishes: Wishes | None = None, *, only: tuple[str, ...] = ()) -> dict[str, str]:
    """The files for all alerts, or for those of these ids."""
    chosen = [alert for alert in alerts() if not only or alert.id in only]
    wishes = wishes or Wishes()
    return prometheus.files(dashboards(), wanted(chosen, wishes), wishes)


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
            and not test["name"].startswith("Silence of ")
        ]
        assert len(fires) == 1, rule["alert"]
        assert True in fires[0], rule["alert"]
        assert [*fires[0]].count(False) >= 2, rule["alert"]


@pytest.mark.parametrize(
    ("kind", "found", "instead"),
    [
        ("LaunchTimeRegressed", ">= 1\n", "> 1\n"),
        ("DataStale", ">= 46800", ">= 36800"),
        ("KeyHourUsedUp", "<= 0.1", "<= 0.05"),
        ("NewHeavyProblem", "for: 15m", "for: 10m"),
        ("NewHeavyProblem", "for: 15m", "for: 25m"),
        ("KeyHourUsedUp", r"\[30m:", "[5m:"),
        ("KeyHourUsedUp", r"\[30m:", "[50m:"),
        ("HighImpactRegression", r"\[3d:", "[1d:"),
        ("HighImpactRegression", r"\[3d:", "[4d:"),
        (
            "HighImpactRegression",
            r"last_over_time\(max ([^{]*)(\{[^}]*\})\)\[3d:5m",
            r"max \1last_over_time(\2[3d",
        ),
        ("PointsRejected", r"\n +or \(last_over_time\(\S+\[1h\]\) < [^\n]*", ""),
        ("PointsRejected", r"\n +or \(last_over_time\(\S+\[1h\]\) unless [^\n]*", ""),
        ("KeyHourUsedUp", r"\n +/ last", "\n * last"),
        ("KeyHourUsedUp", r"\n +/ last[^\n]*\]\) <=", " <="),
        ("CollectorQueueFilling", r"\n +/ last[^\n]*\]\) >=", " >="),
        ("DataStale", r"unless max by \(environment, account\)", "and max by (account)"),
        ("DataStale", r"by \(environment, account\)", "by (account)"),
        ("DataStale", r"rate_limit_used(\[1[h4])", r"data_age_seconds\1"),
        ("DataStale", r"\[14d\]", "[3d]"),
        ("DataStale", r"\n +or absent_over_time[^\n]*", ""),
        ("HighImpactRegression", "severity: critical", "severity: warning"),
        ("LaunchTimeRegressed", "by \\(service_name, ", "by ("),
        ("LaunchTimePoor", ", version\\)", ")"),
    ],
)
def test_a_wrong_rule_is_noticed(tmp_path: Path, kind: str, found: str, instead: str) -> None:
    """The unit tests fail when a threshold, a time, a window, a group or a case is another one."""
    files = written(only=(kind,))
    changed = re.sub(found, instead, files[RULES])
    assert changed != files[RULES]
    done = run(tmp_path, {**files, RULES: changed}, "test", "rules", "rules.test.yml")
    assert done.returncode == 1
    assert "FAILED" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("kind", "conditions"),
    [
        ("LaunchTimeRegressed", 5),
        ("LaunchTimePoor", 5),
        ("HighImpactRegression", 4),
        ("NewHeavyProblem", 2),
    ],
)
def test_a_condition_that_is_missing_is_noticed(tmp_path: Path, kind: str, conditions: int) -> None:
    """The unit tests have neighbours that must stay silent, one for each condition of a rule."""
    files = written(Wishes(services=("com.example.app",), environments=("production",)), only=(kind,))
    files[TESTS] = short(files)
    matchers = dict.fromkeys(
        MATCHER.findall("\n".join(line for line in files[RULES].split("\n") if asks(line)))
    )
    assert len(matchers) == conditions
    assert run(tmp_path, files, "test", "rules", "rules.test.yml").returncode == 0
    for matcher in matchers:
        lines = (line.replace(matcher, "") if asks(line) else line for line in files[RULES].split("\n"))
        done = run(tmp_path, {**files, RULES: "\n".join(lines)}, "test", "rules", "rules.test.yml")
        assert done.returncode == 1, matcher
        assert "FAILED" in done.stdout + done.stderr, matcher


def asks(line: str) -> bool:
    """Whether it is a line of a rule's expression, and not of its message."""
    return "_over_time(" in line and "printf" not in line


def test_a_message_says_what_where_and_how_much(tmp_path: Path) -> None:
    """The whole text of an alert, with the numbers that Prometheus has when it fires, the worst first."""
    series = {
        f'appstore_launch_time_regressed{{{OF_ONE}, device="all_iphones", percentile="p90"}}': "1x30",
        f'appstore_launch_time_delta_ratio{{{OF_ONE}, device="all_iphones", percentile="p90"}}': "0.5x30",
        f'appstore_launch_time_delta_ratio{{{OF_ONE}, device="all_iphones", percentile="p50"}}': "0.4x30",
        f'appstore_launch_time_error_margin_seconds{{{OF_ONE}, device="all_iphones", percentile="p90"}}': (
            "0.25x30"
        ),
        f'appstore_launch_time_seconds{{{OF_ONE}, device="all_iphones", percentile="p90"}}': "9x30",
        f'appstore_launch_time_seconds{{{OF_ONE}, device="all_ipads", percentile="p90", build="7"}}': "9x30",
        of_model("iPhone12,1"): "3.5x30",
        of_model("iPhone12,1", version="1.9"): "1x30",
        of_model("iPhone12,1", version="1.8"): "3x30",  # of all versions before it is the mean that counts
        of_model("iPhone12,1", version="1.7"): "9x2 stale",
        of_model("iPhone12,1", version="1.9", percentile="p50"): "9x30",
        of_model("iPhone12,1", version="1.9", service=f"{SERVICE}.beta"): "9x30",
        of_model("iPhone12,1", version="1.9", platform="macOS"): "9x30",
        of_model("iPhone15,2"): "2.5x30",
        of_model("iPhone15,2", version="1.9"): "2x30",
        of_model("iPhone16,1"): "1.5x30",
        of_model("iPhone16,1", version="1.9"): "2x30",
        of_model("iPhone17,1"): "9x30",  # of which there was nothing before
        of_model("iPhone17,3"): "9x30",
        of_model("iPhone17,3", version="1.9"): "0x30",
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
                "Value: all_iphones 9s.\n"
                "Mean of the earlier versions: all_iphones 6s.\n"
                "Error margin: all_iphones 250ms.\n"
                "Change against the earlier versions: all_iphones 50 %.\n"
                "The same at the 50th percentile: all_iphones 40 %.\n"
                "Changed most against the versions before: "
                "iPhone12,1 75 %, iPhone15,2 25 %, iPhone16,1 -25 %.\n"
                f"First: {alert.first}\n"
                f"Where to look: {alert.look}"
            ),
            "runbook_url": "https://example.com/runbook?page=7#launchtimeregressed",
        },
    }
    moment = {"eval_time": "20m", "alertname": "AppStoreLaunchTimeRegressed", "exp_alerts": [fired]}
    files = written(Wishes(runbook="https://example.com/runbook?page=7"), only=(alert.id,))
    done = run(tmp_path, {**files, TESTS: unit_tests(series, [moment])}, "test", "rules", "rules.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def of_model(
    device: str,
    version: str = VERSION,
    percentile: str = "p90",
    service: str = SERVICE,
    platform: str = "iOS",
) -> str:
    return (
        f'appstore_launch_time_seconds{{service_name="{service}", deployment_environment_name="production", '
        f'platform="{platform}", version="{version}", device="{device}", percentile="{percentile}"}}'
    )


def test_a_poor_value_is_told_beside_its_goal(tmp_path: Path) -> None:
    """An alert that is held through an outage keeps its numbers; models are named while they are there."""
    family = f'{{{OF_ONE}, device="all_iphones", percentile="p90"}}'
    series = {
        f"appstore_launch_time_poor{family}": "1x30 stale",
        f"appstore_launch_time_seconds{family}": "9x30 stale",
        f"appstore_launch_time_goal_seconds{family}": "3.6x30 stale",
        of_model("iPhone15,2"): "2.5x30 stale",
        of_model("iPhone12,1"): "3.5x30 stale",
        of_model("iPhone12,1", version="1.9"): "9x30 stale",
    }
    of_family = "\nValue: all_iphones 9s.\nApple's goal: all_iphones 3.6s.\n"
    at_first = f"{of_family}Highest models: iPhone12,1 3.5s, iPhone15,2 2.5s.\nFirst: "
    for minutes, told in ((20, at_first), (24 * 60, f"{of_family}First: ")):
        moment = {"eval_time": f"{minutes}m", "alertname": "AppStoreLaunchTimePoor", "exp_alerts": []}
        files = {**written(only=("LaunchTimePoor",)), TESTS: unit_tests(series, [moment])}
        done = run(tmp_path, files, "test", "rules", "rules.test.yml")
        assert told in (done.stdout + done.stderr).replace(r"\n", "\n")


def test_rules_outlast_rare_heartbeats(tmp_path: Path) -> None:
    """With a heartbeat an hour, an alert goes by the values of some hours, and its unit tests pass."""
    rare = [alert for alert in alerts(Pace(heartbeat=3600.0)) if alert.id in KINDS]
    files = prometheus.files(dashboards(), rare, Wishes())
    (age,) = (rule["expr"] for rule in rules(files) if rule["alert"] == "AppStoreDataStale")
    (minutes,) = re.findall(r"\[(\d+)m:", age)
    assert int(minutes) > 180
    done = run(tmp_path, files, "test", "rules", "rules.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_rule_or_message_mixes_single_builds_in() -> None:
    """Where the metrics of a version are there for each build as well, no alert is about those."""
    named = {metric_name(of_apple(metric, one)) for metric in APPLE_METRICS for one in (VALUE, *COMPANIONS)}
    texts = [text for rule in rules(written()) for text in (rule["expr"], *questions(rule))]
    of_a_version = [one for text in texts for one in asked(text) if one.name in named]
    assert len(of_a_version) > 100
    assert not any(map(of_a_build, of_a_version))


def unit_tests(series: Mapping[str, str], moments: list[dict[str, Any]]) -> str:
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    tests = [{"interval": "1m", "input_series": inputs, "alert_rule_test": moments}]
    return yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests})


def test_small_numbers_are_readable(tmp_path: Path) -> None:
    """A share is in percent, and a third of something is 0.33 and not 330m; of problems the new are named."""
    of_type = f'{OF_ONE}, diagnostic_type="HANGS"'
    of_other = of_type.replace(VERSION, "1.9")
    series = {
        f"appstore_diagnostic_new_share_ratio{{{of_type}}}": "0.625x30",
        f'appstore_diagnostic_signature_weight{{{of_type}, signature="old"}}': "0.375x30",
        f'appstore_diagnostic_signature_weight{{{of_type}, signature="light"}}': "0.295x30",
        f'appstore_diagnostic_signature_weight{{{of_type}, signature="main"}}': "0.33x30",
        f'appstore_diagnostic_signature_new{{{of_type}, signature="main"}}': "1x30",
        f'appstore_diagnostic_signature_new{{{of_type}, signature="light"}}': "1x30",
        f'appstore_diagnostic_signature_new{{{of_type}, signature="old"}}': "0x30",
        f'appstore_diagnostic_signature_new{{{of_other}, signature="old"}}': "1x30",
        f'appstore_termination_on_screen_regressed{{{OF_ONE}, device="all_iphones"}}': "1x30",
        f'appstore_termination_on_screen_per_day{{{OF_ONE}, device="all_iphones"}}': "0.25x30",
    }
    chosen = ("NewHeavyProblem", "TerminationOnScreenRegressed")
    moments = [{"eval_time": "20m", "alertname": f"AppStore{one}", "exp_alerts": []} for one in chosen]
    files = {**written(only=chosen), TESTS: unit_tests(series, moments)}
    done = run(tmp_path, files, "test", "rules", "rules.test.yml")
    said = (done.stdout + done.stderr).replace(r"\n", "\n")
    assert "\nNow 62.5 %; the limit is 50 % or more.\n" in said
    assert "\nHeaviest of the new: main 0.33, light 0.295.\n" in said
    assert "\nValue: all_iphones 0.25 a day.\n" in said


def test_a_share_without_signatures_names_none(tmp_path: Path) -> None:
    """Where it is not known which are new, as they are too light to be sent, the line is left out."""
    of_type = f'{OF_ONE}, diagnostic_type="HANGS"'
    series = {
        f"appstore_diagnostic_new_share_ratio{{{of_type}}}": "0.625x30",
        f'appstore_diagnostic_signature_weight{{{of_type}, signature="old"}}': "0.375x30",
        f'appstore_diagnostic_signature_new{{{of_type}, signature="old"}}': "0x30",
    }
    moment = {"eval_time": "20m", "alertname": "AppStoreNewHeavyProblem", "exp_alerts": []}
    files = {**written(only=("NewHeavyProblem",)), TESTS: unit_tests(series, [moment])}
    done = run(tmp_path, files, "test", "rules", "rules.test.yml")
    assert "or more.\nFirst: " in (done.stdout + done.stderr).replace(r"\n", "\n")


def test_another_label_is_no_second_series(tmp_path: Path) -> None:
    """What an upgraded exporter or a renamed app sends ends an alert, though the old series ends with a 1."""
    of_family = f'appstore_launch_time_regressed{{{OF_ONE}, device="all_iphones", otel_scope_version='
    series = {f'{of_family}"1"}}': "1x60 stale", f'{of_family}"2"}}': "_x60 0x90"}
    moment = {"eval_time": "80m", "alertname": "AppStoreLaunchTimeRegressed", "exp_alerts": []}
    files = {**written(only=("LaunchTimeRegressed",)), TESTS: unit_tests(series, [moment])}
    done = run(tmp_path, files, "test", "rules", "rules.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_family_that_is_left_out_still_counts(tmp_path: Path) -> None:
    """While Apple has no data of the family that got worse, the others do not end its alert."""
    series = {
        f'appstore_launch_time_regressed{{{OF_ONE}, device="all_iphones"}}': "1x60 stale",
        f'appstore_launch_time_regressed{{{OF_ONE}, device="all_ipads"}}': "0x150",
    }
    moment = {"eval_time": "140m", "alertname": "AppStoreLaunchTimeRegressed", "exp_alerts": []}
    files = {**written(only=("LaunchTimeRegressed",)), TESTS: unit_tests(series, [moment])}
    done = run(tmp_path, files, "test", "rules", "rules.test.yml")
    assert "got:[" in done.stdout + done.stderr
    assert "all_" not in (done.stdout + done.stderr).split("got:[")[0]


def test_every_message_can_be_written(tmp_path: Path) -> None:
    """No template of any alert fails when it is filled in, and none has a place that stays empty."""
    files = written()
    series: dict[str, str] = {}
    for alert, test in zip(alerts(), values_tested(files), strict=True):
        own, other, *_ = (one["series"] for one in test["input_series"])
        series[own] = f"{alert.threshold}{f'+{alert.threshold}' if alert.window else ''}x100"
        series |= {other: "1x100"} if alert.over else {}
    series['appstore_exporter_rate_limit_used{account="main", environment="production"}'] = "1x100"
    names = [rule["alert"] for rule in rules(files) if not rule["alert"].endswith("NoData")]
    moments = [{"eval_time": "90m", "alertname": name, "exp_alerts": []} for name in names]
    moments.append({"eval_time": "90m", "alertname": "AppStoreDataStaleNoData", "exp_alerts": []})
    done = run(tmp_path, {**files, TESTS: unit_tests(series, moments)}, "test", "rules", "rules.test.yml")
    said = done.stdout + done.stderr
    fired = re.findall(r'Labels:\{(?:account="main", )?alertname="(\w+)"', said)
    assert sorted(fired) == sorted(names), said[-2000:]
    assert "error expanding" not in said
    assert "no value" not in said
    assert not [line for line in re.findall(r'description="(.*?)", runbook', said) if r"\n\n" in line]
    groups = [line for line in re.findall(r'description="(.*?)\\n', said) if line.startswith("service ")]
    assert len(groups) > 20
    assert not any(
        re.search(r"(service|environment|platform|version|type|metric) ?(,|$)", of) for of in groups
    )


def values_tested(files: Mapping[str, str]) -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = yaml.safe_load(files[TESTS])["tests"]
    return [test for test in tests if test["name"].endswith((" by its value", " by what was added"))]


def short(files: Mapping[str, str]) -> str:
    """The unit tests without those in which days pass."""
    return yaml.safe_dump({**yaml.safe_load(files[TESTS]), "tests": values_tested(files)})


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_is_taken_as_it_is(tmp_path: Path, text: str) -> None:
    """Whatever a service or environment is called, it changes no query: that name is found, and no other."""
    wishes = Wishes(services=(text,), environments=(text,), notify=(f"team={text}",))
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
    files[TESTS] = short(files)
    done = run(tmp_path, files, "test", "rules", "rules.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("wishes", "where"),
    [
        (Wishes(services=("",)), "alerts.services"),
        (Wishes(services=("good", "bad\ud800")), "alerts.services"),
        (Wishes(services=("good", "com.example.*")), "alerts.services"),
        (Wishes(environments=("",)), "alerts.environments"),
        (Wishes(environments=(".*",)), "alerts.environments"),
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
        off=tuple(alert.id for alert in alerts() if alert.id not in KINDS),
    )
    files = written(wishes)
    of = {rule["alert"].removeprefix("AppStore"): rule for rule in rules(files)}
    assert of.keys() == {*KINDS, "DataStaleNoData"}
    assert of["NewHeavyProblem"]["expr"].endswith(">= 10")
    assert of["DataStale"]["expr"].endswith(">= 90000")
    assert "the limit is 25 h or more" in of["DataStale"]["annotations"]["description"]
    for rule in of.values():
        told = {"team": "mobile", "page": "no"} if rule["labels"]["severity"] != "info" else {}
        assert rule["labels"] == {"severity": rule["labels"]["severity"], **told}
    services = r'service_name=~"com\\.example\\.harbour|com\\.example\\.larkspur"'
    for name, rule in of.items():
        of_apps = ("LaunchTimeRegressed", "LaunchTimePoor", "NewHeavyProblem", "HighImpactRegression")
        assert rule["expr"].count(services) == (name in of_apps)
    done = run(tmp_path, files, "test", "rules", "rules.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_keep_the_customs() -> None:
    """Names, labels and annotations as monitoring mixins have them; no value in a label, no topk."""
    files = written()
    for group in yaml.safe_load(files[RULES])["groups"]:
        assert group["interval"] == ("3m" if group["name"] == "app-store-apps" else "1m")
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
    ("notify", "says"),
    [
        (("severity=page",), "severity of 'severity=page' is taken"),
        (("version=9",), "version of 'version=9' is taken"),
        (("team=a", "team=b"), "team of 'team=b' is there already"),
        (("@slack-mobile",), "'@slack-mobile' is no label"),
    ],
)
def test_a_refused_label_says_why(notify: tuple[str, ...], says: str) -> None:
    """No pair, taken by the rules themselves, or there twice: three errors."""
    with pytest.raises(ConfigError, match=re.escape(says)):
        written(Wishes(notify=notify))


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
    golden_files.check(f"prometheus/LaunchTimeRegressed.{Path(path).name}", text)
