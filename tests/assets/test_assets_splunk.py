"""What is written for Splunk Observability, held against the provider's schema and what arrives there.

To accept a change of the golden files on purpose: `UPDATE_GOLDEN=1 pytest tests/assets`, then read the
difference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from exporter.assets import splunk
from exporter.assets.alerts import Pace, alerts
from exporter.assets.dashboards import dashboards
from exporter.assets.model import ENVIRONMENT, Alert, Chart, Dashboard, Filter, Query, Section, Series, Wishes
from exporter.assets.rendering import wanted
from exporter.assets.splunk.signalflow import kept_times, shown, stream
from exporter.convert.catalogue import APPLE_METRICS, AppleMetric
from exporter.errors import ConfigError
from tests.assets import golden_files, signalflow, terraform
from tests.assets.signalflow import NotSignalFlowError, Program, Source
from tests.assets.signalflow_run import MetricTimeSeries, active
from tests.backends.splunk import SplunkPoint
from tests.end_to_end.at_splunk import AS_INTEGERS
from tests.end_to_end.conftest import otelcol, over_splunk
from tests.end_to_end.course import Arrived, Course, at_splunk

__all__ = ["otelcol", "over_splunk"]  # fixtures, asked for by their names

RUNBOOK = "https://example.com/runbook"
DEFAULT = Wishes(runbook=RUNBOOK)
HOSTILE = 'O\'Brien, "{{dimensions.version}}" ${path.module} %{if}'
WISHED = Wishes(
    services=("com.example.harbour", "it's {{a}}, ${b} %{c}"),
    environments=("production",),
    notify=("Email,team@example.com", "Slack,credential,mobile-${releases}"),
    thresholds={"NewHeavyProblem": 0.25, "DataStale": 90_000},
    off=("PollsFailing",),
    runbook=RUNBOOK,
)
OF_SOME = {  # what Apple gives of some metrics only, and one of which the sandbox gives it
    **dict.fromkeys(("goal", "goal_band", "goal_ratio", "poor"), "appstore.hang.rate"),
    "breakdown": "appstore.battery.usage",
}
ENDS = {  # of alerts about the pipeline
    **dict.fromkeys(("PollsFailing", "CredentialsRefused", "KeyHourUsedUp"), "30m"),
    **dict.fromkeys(("PointsRejected", "EventsRejected"), "1h"),  # all that is counted
    "DataStale": "75m",  # until the silence is told of
    "OutboxNotEmptying": "40m",
}
BARE = Alert(
    id="Bare",
    title="A value is high",
    severity="warning",
    query=Query(Series("appstore.x", "1"), ("account",)),
    threshold=1,
    meaning="It is high.",
    first="Look.",
    look="There.",
    why="It should be low.",
)
MUSTACHE = re.compile(r"\{\{.*?\}\}+")
_DIMENSION = re.compile(r"\{\{\{dimensions\.(?:\[([\w.]+)\]|(\w+))\}\}\}")


class Asset(NamedTuple):
    """A resource of Terraform's, and the file it is in."""

    path: str
    kind: str
    name: str
    arguments: Mapping[str, Any]


def rendered(wishes: Wishes = DEFAULT) -> dict[str, Any]:
    """All files, read as JSON."""
    files = splunk.files(dashboards(), wanted(alerts(), wishes), wishes)
    return {path: json.loads(text) for path, text in files.items()}


def assets(wishes: Wishes = DEFAULT) -> list[Asset]:
    """All resources."""
    return [
        Asset(path, *found)
        for path, content in rendered(wishes).items()
        for found in terraform.resources(content)
    ]


def programs(wishes: Wishes = DEFAULT) -> Iterator[tuple[Asset, Program]]:
    """All programs, read; Terraform's doubling undone."""
    for asset in assets(wishes):
        if "program_text" in asset.arguments:
            yield asset, signalflow.parse(plain(asset.arguments["program_text"]))


def plain(text: str) -> str:
    """What the provider gets of a text, which has no expressions."""
    assert not list(terraform.references(text)), text
    return text.replace("$${", "${").replace("%%{", "%{")


def rules(wishes: Wishes = DEFAULT) -> Iterator[tuple[Alert, Asset, Mapping[str, Any]]]:
    """All rules of detectors, with the alert that they are of."""
    known = {alert.id: alert for alert in alerts()}
    for asset in assets(wishes):
        if asset.kind == "signalfx_detector":
            for rule in asset.arguments["rule"]:
                yield known[Path(asset.path).name.removesuffix(".tf.json")], asset, rule


def only(wishes: Wishes, alert: Alert) -> Mapping[str, Any]:
    """The detector of one alert."""
    text = splunk.files((), wanted((alert,), wishes), wishes)[f"alerts/{alert.id}.tf.json"]
    (found,) = terraform.resources(json.loads(text))
    return found[2]


def alert_of(alert_id: str) -> Alert:
    """An alert, by its id."""
    return next(alert for alert in alerts() if alert.id == alert_id)


# Terraform


@pytest.mark.parametrize("wishes", [DEFAULT, WISHED], ids=["default", "wished"])
def test_the_provider_takes_every_resource(wishes: Wishes) -> None:
    """No argument is unknown, missing, of a wrong type or not allowed by the provider's schema."""
    found = assets(wishes)
    assert [fault for asset in found for fault in terraform.faults(*asset[1:])] == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"colour": "red"}, "unknown colour"),
        ({"max_delay": 901}, "not allowed"),
        ({"max_delay": "60"}, "is no int"),
        ({"name": None}, "is no string"),
        ({"rule": [{"severity": "Grave", "detect_label": "a"}]}, "not allowed"),
        ({"rule": [{"severity": "Info"}]}, "no detect_label"),
        ({"viz_options": [{"label": "A", "value_unit": "Percent"}]}, "not allowed"),
        ({"tags": "mobile"}, "no list"),
        ({"program_text": ""}, "not allowed"),
    ],
)
def test_the_schema_refuses(change: dict[str, Any], fault: str) -> None:
    """What the provider refuses, the schema of the tests refuses."""
    good = dict(only(DEFAULT, alert_of("DataStale")))
    (found,) = terraform.faults("signalfx_detector", "data_stale", {**good, **change})
    assert fault in found


def test_each_folder_is_a_module() -> None:
    """The files of a folder name their provider once, and refer to nothing that is not in the folder."""
    files = rendered(WISHED)
    for folder in ("dashboards", "alerts"):
        inside = {path: content for path, content in files.items() if path.startswith(f"{folder}/")}
        assert [path for path, content in inside.items() if "terraform" in content] == [
            f"{folder}/versions.tf.json"
        ]
        found = [resource for content in inside.values() for resource in terraform.resources(content)]
        defined = [f"{kind}.{name}.id" for kind, name, _ in found]
        assert len(set(defined)) == len(defined)
        assert {one for *_, arguments in found for one in terraform.references(arguments)} <= set(defined)


def test_every_chart_and_alert_is_there() -> None:
    """Each chart is a resource that its dashboard shows, and each alert a detector; but the Collector's."""
    shown = [place["chart_id"] for _, places in boards(DEFAULT) for place in places]
    made = [f"${{{kind}.{name}.id}}" for _, kind, name, _ in assets() if kind.endswith("_chart")]
    assert sorted(shown) == sorted(made)
    assert len(made) == sum(len(charts_of(board)) for board in dashboards())
    assert {alert.id for alert, *_ in rules()} == {one.id for one in alerts() if one.about != "collector"}
    assert not any("otelcol_" in str(asset.arguments.get("program_text")) for asset in assets())


def charts_of(board: Dashboard) -> list[Chart]:
    """The charts that Splunk has the metrics for."""
    return [chart for section in board.sections for chart in section.charts if not chart.of_collector]


def boards(wishes: Wishes) -> Iterator[tuple[Asset, list[Mapping[str, Any]]]]:
    """The dashboards and where their charts stand."""
    for asset in assets(wishes):
        if asset.kind == "signalfx_dashboard":
            yield asset, asset.arguments["chart"]


def test_charts_stand_beside_each_other() -> None:
    """No chart reaches beyond the twelve columns or lies over another, and no row is left empty."""
    for _, places in boards(DEFAULT):
        cells = [{(row, column) for row in rows(place) for column in columns(place)} for place in places]
        assert all(max(columns(place)) <= 11 for place in places)
        assert not any(one & other for one, other in combinations(cells, 2))
        used = {row for place in places for row in rows(place)}
        assert used == set(range(len(used)))


def rows(place: Mapping[str, int]) -> range:
    """The rows that a chart covers."""
    return range(place["row"], place["row"] + place["height"])


def columns(place: Mapping[str, int]) -> range:
    """The columns that a chart covers."""
    return range(place["column"], place["column"] + place["width"])


def test_all_is_the_same_each_time() -> None:
    """The same input makes the same text, sorted, whatever the order of the alerts."""
    files = splunk.files(dashboards(), alerts(), DEFAULT)
    assert list(files) == sorted(files)
    assert files == splunk.files(dashboards(), reversed(alerts()), DEFAULT)
    for text in files.values():
        assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


# SignalFlow against what arrives


@pytest.fixture(scope="module")
def points(over_splunk: Course) -> list[SplunkPoint]:
    """What arrived at Splunk Observability, and a failure of a delivery, as none fails in the course."""
    found = over_splunk.backends.splunk.points()
    failure = next(point for point in found if point.name == "appstore.exporter.failures")
    of_no_account = {
        key: value for key, value in failure.dimensions.items() if key not in ("account", "environment")
    }
    return [*found, replace(failure, dimensions={**of_no_account, "reason": "delivery"})]


@pytest.fixture(scope="module")
def there(over_splunk: Course) -> Arrived:
    """The same, as names and values."""
    return at_splunk(over_splunk)


def test_every_program_names_what_arrives(there: Arrived) -> None:
    """Each metric, dimension and value that a program names is one that arrived in Splunk Observability."""
    wrong = [
        f"{asset.path} {asset.name}: {fault}"
        for asset, program in every_program()
        for source in program.sources
        for fault in unheard_of(as_arrived(source, there.metrics), there)
    ]
    assert wrong == []


def unheard_of(source: Source, there: Arrived) -> Iterator[str]:
    """What of a source did not arrive."""
    if source.metric not in there.metrics:
        yield f"no metric {source.metric}"
        return
    dimensions = there.metrics[source.metric]
    yield from (f"{source.metric} has no {key}" for key in source.by if key not in dimensions)
    for term in source.terms:
        values = dimensions.get(term.key, frozenset())
        for pattern in term.values:
            # Not p50 is also true of a metric that has no percentile.
            found = any(signalflow.matches(pattern, value) for value in values)
            if not found and not (term.negated and not values):
                yield f"{source.metric} has no {term.key} {pattern}"


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ("data('appstore.launch.tim', rollup='latest').max()", "no metric"),
        ("data('appstore.launch.time', rollup='latest').max(by=['versions'])", "no versions"),
        ("data('appstore.launch.time', filter=filter('device', 'all_phones')).max()", "no device all_phones"),
        ("data('appstore.launch.time', filter=not filter('percentile', 'p5')).max()", "no percentile p5"),
        ("data('appstore.launch.time', filter=filter('os', '*')).max()", "no os *"),
    ],
)
def test_what_does_not_arrive_is_noticed(program: str, fault: str, there: Arrived) -> None:
    """A metric, dimension or value with a slip in it is told."""
    (source,) = signalflow.parse(f"{program}.publish(label='A')").sources
    (found,) = unheard_of(source, there)
    assert fault in found


def test_every_program_finds_a_series(points: list[SplunkPoint]) -> None:
    """Each `data` finds a gauge or counter, each `histogram` a histogram, with all that it groups by."""
    by_metric: dict[str, list[SplunkPoint]] = {}
    for point in points:
        by_metric.setdefault(point.name, []).append(point)
    empty = [
        f"{asset.path} {asset.name}: {source}"
        for asset, program in every_program()
        for source in (as_arrived(source, by_metric) for source in program.sources)
        if not any(finds(source, point) for point in by_metric.get(source.metric, []))
    ]
    assert empty == []


def test_no_program_takes_a_single_build() -> None:
    """Points of a build bear the names of the version's: no query of a metric of Apple's takes them."""
    apples = tuple(metric.name for metric in APPLE_METRICS)
    asked = [source for _, program in every_program() for source in program.sources]
    asked = [source for source in asked if source.metric.startswith(apples)]
    assert len(asked) > 200
    assert [
        one for one in asked if all(term.holds({"build": "42"}) for term in one.terms if term.key == "build")
    ] == []


def as_arrived(source: Source, there: Collection[str]) -> Source:
    """Of a metric of Apple's of which the sandbox gives no goal or breakdown: the same of one that has it."""
    of, _, companion = source.metric.rpartition(".")
    apples = companion in OF_SOME and of in {metric.name for metric in APPLE_METRICS}
    if apples and source.metric not in there:
        return replace(source, metric=f"{OF_SOME[companion]}.{companion}")
    return source


def finds(source: Source, point: SplunkPoint) -> bool:
    """Whether a point is one of a source's."""
    kinds = ("histogram",) if source.kind == "histogram" else ("gauge", "counter")
    return (
        point.kind in kinds
        and (point.kind == "counter") == (source.rollup == "sum")
        and set(source.by) <= point.dimensions.keys()
        and all(term.holds(point.dimensions) for term in source.terms)
    )


def every_program() -> Iterator[tuple[Asset, Program]]:
    """All programs, and those that messages tell people to paste, for any group: any is also any other."""
    yield from programs()
    for _, asset, rule in rules():
        for text in (one for one in pasted(rule, "*") if "data(" in one):
            yield (
                asset,
                signalflow.parse(text.replace("not filter('version', '*')", "filter('version', '*')")),
            )


def pasted(rule: Mapping[str, Any], value: str) -> list[str]:
    """What a message tells people to paste, where each dimension of the group has this value."""
    body = _DIMENSION.sub(value, rule["parameterized_body"])
    return [plain(text) for text in re.findall(r"(?<=\n```\n).*?(?=\n```\n)", body, re.S)]


def test_every_search_names_what_arrives(there: Arrived) -> None:
    """Each event and each field that a search for the Splunk platform names is one that arrived there."""
    texts = [asset.arguments["markdown"] for asset in assets(WISHED) if "markdown" in asset.arguments]
    texts += [rule["parameterized_body"] for *_, rule in rules(WISHED)]
    searches = [line for text in texts for line in text.splitlines() if line.startswith("sourcetype=")]
    assert len(searches) == 2 + len([alert for alert in alerts() if alert.events])
    for search in searches:
        found = re.fullmatch(
            r'sourcetype="appstore:event" otel\.log\.name::"([\w.]+)" (.*?)(?: \| table _time, (.*), _raw)?',
            search,
        )
        assert found, search
        name, terms, listed = found.groups()
        fields = {*re.findall(r"([\w.]+)::", terms), *(listed or "").split(", ")} - {""}
        assert fields <= there.logs[name]


def test_histograms_are_scaled_back() -> None:
    """A distribution is shown in the unit of its gauge, whatever the Collector's overlay multiplied it by."""
    assert {unit: kept_times(unit) for unit in AS_INTEGERS} == {
        unit: factor for unit, (_, factor) in AS_INTEGERS.items()
    }
    expected = {"s": ".scale(0.001)", "{termination}/d": ".scale(0.000001)", "By": "", "?": ".scale(0.001)"}
    for unit, scale in expected.items():
        query = Query(Series("appstore.x", unit, "histogram"), ("version",), percentile=90)
        assert stream(query) == f"histogram('appstore.x').percentile(pct=90, by=['version']){scale}"


# Charts


def test_every_plot_has_a_name_and_a_unit() -> None:
    """The streams that a chart's program publishes are those that it says how to show."""
    for asset, program in programs():
        if asset.kind != "signalfx_detector":
            assert list(program.streams) == [one["label"] for one in asset.arguments["viz_options"]]
            assert program.detections == ()


def test_a_variable_reaches_the_charts_it_is_for() -> None:
    """A dashboard's variable replaces filters only, and a chart filters by it unless it is left out."""
    for board in dashboards():
        found = {asset.name: asset for asset in assets() if asset.path == f"dashboards/{board.id}.tf.json"}
        (page,) = (asset for asset in found.values() if asset.kind == "signalfx_dashboard")
        assert [(one["property"], one["replace_only"]) for one in page.arguments["variable"]] == [
            (one.attribute, True) for one in board.filters
        ]
        charts = charts_of(board)
        texts = [asset.arguments for asset in found.values() if asset.kind != "signalfx_dashboard"]
        for chart, arguments in zip(charts, texts_in_order(page, found), strict=True):
            assert len(texts) == len(charts)
            if chart.queries:
                by = {one.attribute for one in board.filters} - set(chart.without)
                assert_filtered(chart, signalflow.parse(arguments["program_text"]), by)


def texts_in_order(page: Asset, found: Mapping[str, Asset]) -> Iterator[Mapping[str, Any]]:
    """The charts of a dashboard, in the order in which it shows them."""
    for place in page.arguments["chart"]:
        yield found[place["chart_id"].split(".")[1]].arguments


def assert_filtered(chart: Chart, program: Program, by: set[str]) -> None:
    """A chart has a filter, by which a variable is replaced, on just what the dashboard chooses for it."""
    for source in program.sources:
        plain_terms = {term.key for term in source.terms if not term.negated}
        assert by <= plain_terms, chart.title
        # What is without a dimension can be said of that dimension only.
        of_others = {term.key for term in source.terms if not (term.negated and term.values == ("*",))}
        assert not of_others & set(chart.without), chart.title


def test_no_chart_filters_by_hand_what_a_variable_replaces() -> None:
    """Where a variable applies, a chart has no filter of its own that the variable would take away."""
    for board in dashboards():
        for chart in charts_of(board):
            applied = {one.attribute for one in board.filters} - set(chart.without)
            assert not {key for query in chart.queries for key, _ in query.conditions} & applied, chart.title


def test_wishes_choose_what_a_dashboard_begins_with() -> None:
    """Services and environments that are wished for are what charts show, and what variables begin with."""
    for asset, program in programs(WISHED):
        if asset.path == "dashboards/release-health.tf.json":
            for source in program.sources:
                terms = {term.key: term.values for term in source.terms if not term.negated}
                assert terms["service.name"] == WISHED.services
                assert terms["deployment.environment.name"] == ("production",)
    page = next(asset for asset, _ in boards(WISHED) if asset.name == "release_health")
    chosen = {one["property"]: one["values"] for one in page.arguments["variable"]}
    assert [plain(value) for value in chosen["service.name"]] == list(WISHED.services)
    assert chosen["device"] == ["all_*"]
    assert chosen["version"] == []


def test_the_page_of_the_exporter_is_about_every_environment() -> None:
    """Wishes are about apps: the exporter's own page begins with every account, of whatever environment."""
    programs_of_page = [
        program for asset, program in programs(WISHED) if asset.path == "dashboards/exporter.tf.json"
    ]
    assert programs_of_page
    for program in programs_of_page:
        for source in program.sources:
            assert ENVIRONMENT not in {term.key for term in source.terms}
            own = {"account": "games", "environment": "staging"}
            terms = [term for term in source.terms if term.key in own and not term.negated]
            assert all(term.holds(own) for term in terms)


def test_a_column_has_its_unit() -> None:
    """In a table of several units each column bears its own; a change is in percent, a ratio is times."""
    for metric in APPLE_METRICS:
        suffixes = {
            name.removeprefix(metric.name): (one.get("value_unit") or one.get("value_suffix"), program)
            for name, one, program in columns_of("release_health", metric)
        }
        assert suffixes[".delta"][0] == " %"
        assert suffixes[".delta"][1].endswith(".scale(100)")
        assert suffixes[".goal_ratio"][0] == " ×"
        assert suffixes[".goal_band"][0] is suffixes[".regressed"][0] is None
        assert suffixes[""][0] == suffixes[".error_margin"][0] is not None
        assert [key for key, (_, program) in suffixes.items() if ".scale(" in program] == [".delta"]


def columns_of(board: str, metric: AppleMetric) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Of the table about a metric: each column's metric, how it is shown, and its expression."""
    (table,) = (
        asset
        for asset in assets()
        if asset.name.startswith(f"{board}_")
        and asset.name.endswith("_against_the_earlier_versions_and_the_goal")
        and f"data('{metric.name}'," in asset.arguments["program_text"]
    )
    lines = table.arguments["program_text"].splitlines()
    for line, one in zip(lines, table.arguments["viz_options"], strict=True):
        (source,) = signalflow.parse(line).sources
        yield source.metric, one, line.removeprefix(f"{one['label']} = ").rpartition(".publish(")[0]


def test_only_a_change_is_made_percent() -> None:
    """A share stays one, and so does the number of percent that Apple itself gives as a change."""
    assert shown(Query(Series("appstore.x.delta", "1"))).endswith(".max().scale(100)")
    for other in (Series("appstore.x.new_share", "1"), Series("appstore.insight.delta", "%")):
        assert shown(Query(other)) == stream(Query(other))


def test_bands_cover_all_numbers_once() -> None:
    """Each value has one colour: below the second band the first, and so on."""
    scales = [
        asset.arguments["color_scale"] for asset in assets() if asset.arguments.get("color_by") == "Scale"
    ]
    assert scales
    for scale in scales:
        assert "gte" not in scale[0]
        assert "lt" not in scale[-1]
        assert [one["lt"] for one in scale[:-1]] == [one["gte"] for one in scale[1:]]
        assert (scale[0]["color"], scale[-1]["color"]) == ("green", "red")


# Detectors


def test_rules_are_what_is_detected() -> None:
    """A detector has a rule for each label that its program publishes, and shows the stream it watches."""
    for asset, program in programs():
        if asset.kind == "signalfx_detector":
            labels = [rule["detect_label"] for rule in asset.arguments["rule"]]
            assert sorted(program.detections) == sorted(labels)
            assert program.streams == ("A",)


def test_a_detector_says_when_it_ends() -> None:
    """Every detection ends by itself; one that waits before it fires waits as long before it ends."""
    for alert in alerts():
        if alert.about != "collector":
            text = only(DEFAULT, alert)["program_text"]
            (after,) = re.findall(rf"auto_resolve_after='(\w+)'\)\.publish\('{alert.id}'\)", text)
            assert after == ("3d" if alert.about == "app" else ENDS[alert.id])
            assert text.count("auto_resolve_after='28d'") == (1 if alert.missing else 0)
            assert text.count("lasting=") == text.count("off=when(Z ") == (1 if alert.minutes else 0)


def test_a_condition() -> None:
    """A threshold is held, or passed, all through the alert's minutes, and as long not before it is over."""
    above = only(DEFAULT, replace(BARE, threshold=0.1, minutes=60))["program_text"].splitlines()
    below = only(DEFAULT, replace(BARE, threshold=2, compare="<="))["program_text"].splitlines()
    assert above == [
        "V = data('appstore.x', rollup='latest', extrapolation='last_value', maxExtrapolations=3)"
        ".max(by=['account'])",
        "A = V.min(over='30m').publish(label='A')",
        "Z = V.max(over='1h')",
        "detect(when(A >= threshold(0.1), lasting='30m', at_least=0.8), off=when(Z < threshold(0.1)), "
        "auto_resolve_after='3d').publish('Bare')",
    ]
    assert below[1:] == [
        "A = V.max(over='8m').publish(label='A')",
        "Z = V.min(over='15m')",
        "detect(when(A <= threshold(2), lasting='7m', at_least=0.8), off=when(Z > threshold(2)), "
        "auto_resolve_after='3d').publish('Bare')",
    ]


def test_a_share_of_two_metrics_is_one_value() -> None:
    """A share of two metrics is made of the same groups, and is what the condition is on."""
    other = Query(Series("appstore.y", "1"), ("account",), join="min")
    first, second, third, *_ = only(DEFAULT, replace(BARE, over=other))["program_text"].splitlines()
    assert first.startswith("B = data('appstore.x', ")
    assert first.endswith(".max(by=['account'])")
    assert second.startswith("C = data('appstore.y', ")
    assert second.endswith(".min(by=['account'])")
    assert third == "V = (B / C)"


def test_a_counter_is_added_up_over_its_window() -> None:
    """What a counter counted is summed over the window, where nothing counts as nothing."""
    query = Query(Series("appstore.x", "{poll}", "counter"), ("account",), join="sum")
    alert = replace(BARE, query=query, window=90, minutes=0)
    assert only(DEFAULT, alert)["program_text"].splitlines() == [
        "A = data('appstore.x', rollup='sum', extrapolation='zero').sum(by=['account']).sum(over='90m')"
        ".publish(label='A')",
        "detect(when(A >= threshold(1)), auto_resolve_after='3d').publish('Bare')",
    ]


# Detectors over time: a heartbeat every four minutes

BEAT = 4
OF_GROUP = {
    "service.name": "com.example.harbour",
    "deployment.environment.name": "production",
    "platform": "iOS",
    "version": "7.2.0",
}
OF_ACCOUNT = {"environment": "production", "account": "main"}
OF_FAMILY = {**OF_GROUP, "device": "all_iphones", "percentile": "p90"}


def beats(*runs: tuple[int, float | None], every: int = BEAT) -> list[float | None]:
    """Heartbeats with a value, None for one that is missing: as many of each as the runs say."""
    return [
        value if minute == 0 else None
        for length, value in runs
        for _ in range(length)
        for minute in range(every)
    ]


def fired(alert_id: str, *series: MetricTimeSeries, label: str = "") -> list[tuple[int, bool]]:
    """When one group's alert changes, and to what: it begins with off."""
    found = active(only(DEFAULT, alert_of(alert_id))["program_text"], series)[label or alert_id]
    assert len(found) == 1
    (states,) = found.values()
    return [
        (minute, state)
        for minute, (before, state) in enumerate(zip([False, *states], states, strict=False))
        if state is not before
    ]


def regressed(*runs: tuple[int, float | None]) -> MetricTimeSeries:
    """What the exporter says of a version."""
    return MetricTimeSeries("appstore.hang.rate.regressed", OF_FAMILY, beats(*runs))


def test_a_regression_fires_once_and_ends_by_data() -> None:
    """It fires after fifteen minutes of 1, and ends when it has been 0 for as long."""
    (start, on), (end, off) = fired("HangRateRegressed", regressed((30, 0), (100, 1), (30, 0)))
    assert (on, off) == (True, False)
    assert start == pytest.approx(30 * BEAT + 15, abs=BEAT)
    assert end == pytest.approx(130 * BEAT + 15, abs=BEAT)


def test_a_regression_of_a_new_version_fires() -> None:
    """A version that is worse from its first heartbeat on is told."""
    ((minute, state),) = fired("HangRateRegressed", regressed((100, 1)))
    assert state
    assert minute <= 15


def test_a_word_that_is_taken_back_does_not_fire() -> None:
    """A single 1 is no alert, and a single 0 is no end of one."""
    assert fired("HangRateRegressed", regressed((30, 0), (1, 1), (30, 0))) == []
    assert len(fired("HangRateRegressed", regressed((30, 1), (1, 0), (30, 1)))) == 1


@pytest.mark.parametrize("missing", [1, 2, 5, 360])
def test_a_gap_does_not_flap(missing: int) -> None:
    """Late heartbeats, a restart and a day of silence neither end an alert nor begin a second one."""
    assert len(fired("HangRateRegressed", regressed((30, 1), (missing, None), (30, 1)))) == 1


def test_every_other_heartbeat_is_enough() -> None:
    """It fires, too, where each second heartbeat is lost."""
    assert fired("HangRateRegressed", regressed(*([(1, 1), (1, None)] * 20)))[0][1]


@pytest.mark.parametrize("minutes", [1, 4, 10, 30, 60])
def test_any_heartbeat_is_often_enough(minutes: int) -> None:
    """However seldom heartbeats are, an alert fires once, though one of them is missing, and ends."""
    alert = next(one for one in alerts(Pace(heartbeat=60.0 * minutes)) if one.id == "HangRateRegressed")
    values = beats((20, 0), (20, 1), (1, None), (20, 1), (20, 0), every=minutes)
    series = MetricTimeSeries("appstore.hang.rate.regressed", OF_FAMILY, values)
    ((states,),) = (
        found.values() for found in active(only(DEFAULT, alert)["program_text"], [series]).values()
    )
    assert [before for before, state in pairwise(states) if state is not before] == [False, True]


def test_a_refused_key_is_told_until_a_poll_is_answered() -> None:
    """It fires while the key is refused, and is over soon after the poll that is answered."""
    refused = MetricTimeSeries("appstore.exporter.key.refused", OF_ACCOUNT, beats((30, 0), (100, 1), (30, 0)))
    (start, on), (end, off) = fired("CredentialsRefused", refused)
    assert (on, off) == (True, False)
    assert start == pytest.approx(30 * BEAT + 15, abs=BEAT)
    assert end == pytest.approx(130 * BEAT + 15, abs=BEAT)


def test_polls_fail_until_one_does_not() -> None:
    """One failed poll is nothing; the second fires, a third changes nothing, and a good one ends it."""
    in_a_row = MetricTimeSeries(
        "appstore.exporter.polls.failed_in_a_row",
        OF_ACCOUNT,
        beats((90, 0), (90, 1), (90, 2), (90, 3), (90, 0)),
    )
    (start, on), (end, off) = fired("PollsFailing", in_a_row)
    assert (on, off) == (True, False)
    assert start == pytest.approx(180 * BEAT + 15, abs=BEAT)
    assert end == pytest.approx(360 * BEAT + 15, abs=BEAT)


def test_what_is_counted_fires_at_once_and_lasts_for_its_window() -> None:
    """A count is over by itself, an hour after the last of it."""
    counted = MetricTimeSeries(
        "appstore.exporter.points.rejected",
        {"appstore.accounts": "main"},
        beats((30, None), (1, 1), (100, None)),
    )
    assert fired("PointsRejected", counted) == [(30 * BEAT, True), (30 * BEAT + 60, False)]


def test_a_share_fires_and_ends() -> None:
    """Little is left of the key's hour at one poll, and enough at the next."""
    left = beats((30, 900), (30, 40), (30, 900))
    limit = MetricTimeSeries("appstore.exporter.rate_limit.limit", OF_ACCOUNT, beats((90, 1000)))
    changes = fired(
        "KeyHourUsedUp", MetricTimeSeries("appstore.exporter.rate_limit.remaining", OF_ACCOUNT, left), limit
    )
    assert [state for _, state in changes] == [True, False]
    assert [minute for minute, _ in changes] == pytest.approx([30 * BEAT + 15, 60 * BEAT + 15], abs=BEAT)


def test_an_alert_without_data_ends_after_days() -> None:
    """What is never heard of again is over after three days."""
    changes = fired("HangRateRegressed", regressed((30, 1), (2000, None)))
    assert [state for _, state in changes] == [True, False]
    assert changes[1][0] == pytest.approx(30 * BEAT + 3 * 24 * 60, abs=15)


def test_poor_is_told_once_over_an_outage_and_ends_by_data() -> None:
    """A day without data of Apple's is no end of it; the 0 that comes with the next version is."""
    values = beats((30, 1), (360, None), (30, 1), (30, 0))
    changes = fired("HangRatePoor", MetricTimeSeries("appstore.hang.rate.poor", OF_FAMILY, values))
    assert [state for _, state in changes] == [True, False]
    assert changes[1][0] == pytest.approx(420 * BEAT + 15, abs=BEAT)


def test_a_build_says_nothing_of_its_version() -> None:
    """A build that got worse, under the same name, fires nothing."""
    one = MetricTimeSeries("appstore.hang.rate.regressed", {**OF_FAMILY, "build": "42"}, beats((30, 1)))
    assert fired("HangRateRegressed", regressed((30, 0)), one) == []


def test_a_stopped_exporter_is_told_once() -> None:
    """Silence fires after its hour, lasts, and ends when something is heard; stale data is no part of it."""
    ages = MetricTimeSeries(
        "appstore.exporter.data.age",
        {**OF_ACCOUNT, "app": "1"},
        beats((30, 600), (1500, None), (30, 600)),
    )
    used = MetricTimeSeries(
        "appstore.exporter.rate_limit.used", OF_ACCOUNT, beats((30, 0), (1500, None), (30, 0))
    )
    changes = fired("DataStale", ages, used, label="DataStale missing")
    assert [state for _, state in changes] == [True, False]
    assert changes[0][0] == pytest.approx(30 * BEAT + 60, abs=BEAT)
    assert changes[1][0] == 1530 * BEAT
    assert fired("DataStale", ages, used) == []


def test_an_exporter_without_data_is_not_silent() -> None:
    """What has never been answered has no age of data; that it is heard of is told by another metric."""
    used = MetricTimeSeries("appstore.exporter.rate_limit.used", OF_ACCOUNT, beats((100, 0)))
    assert fired("DataStale", used, label="DataStale missing") == []


def test_another_account_makes_nobody_silent() -> None:
    """An account of another environment, added beside the first, changes no group of the first."""
    first = MetricTimeSeries("appstore.exporter.rate_limit.used", OF_ACCOUNT, beats((90, 0)))
    second = MetricTimeSeries(
        "appstore.exporter.rate_limit.used",
        {"environment": "staging", "account": "games"},
        beats((30, None), (60, 0)),
    )
    program = only(DEFAULT, alert_of("DataStale"))["program_text"]
    found = active(program, [first, second])["DataStale missing"]
    assert len(found) == 2
    assert not any(any(states) for states in found.values())


def test_silence_is_one_alert_an_account() -> None:
    """A stopped exporter is told by a detection of its own, on what came and not on what is assumed."""
    (line,) = (
        line
        for line in only(DEFAULT, alert_of("DataStale"))["program_text"].splitlines()
        if line.startswith("not_reporting.")
    )
    assert "extrapolation" not in line
    assert "resource_identifier=['environment', 'account']" in line
    nobody = replace(alert_of("DataStale"), query=Query(Series("appstore.x", "s")), heard=None)
    assert "resource_identifier=None" in only(DEFAULT, nobody)["program_text"]


def test_a_message_says_what_is_needed() -> None:
    """Each message has the meaning, the first step, where to look, its numbers, the runbook and its end."""
    for alert, _, rule in rules():
        body = rule["parameterized_body"]
        silent = rule["detect_label"] != alert.id
        assert ("Nothing was heard of the exporter" in rule["parameterized_subject"]) == silent
        for part in (
            "It has stopped, " if silent else alert.meaning,
            alert.look,
            "{{{tip}}}",
            "Runbook: {{{runbookUrl}}}",
            "{{else}}Resolved: ",
        ):
            assert part in body
        if rule["detect_label"] == alert.id:
            state = alert.query.metric.unit == "{flag}"
            asked = [alert.worst, alert.change, alert.worst if state else None]  # a state's value as well
            assert body.count(".publish('") == len([one for one in asked if one])
            assert body.count("\n```\nsourcetype=") == (1 if alert.events else 0)
        assert rule["tip"] == alert.first
        assert rule["runbook_url"] == f"{RUNBOOK}#{alert.id.lower()}"
        state = alert.query.metric.unit == "{flag}"
        assert ("{{inputs.A.value}}" in body) == (rule["detect_label"] == alert.id and not state)


def test_what_is_pasted_is_code() -> None:
    """A message is Markdown, in which a `*` would be a mark: outside of code there is none."""
    for *_, rule in rules():
        assert pasted(rule, "x") or "data(" not in rule["parameterized_body"]
        assert "*" not in re.sub(r"\n```\n.*?\n```\n", "", rule["parameterized_body"], flags=re.S)


def test_models_are_ranked_by_their_change() -> None:
    """Of a regression the models are asked for by this version's value over that of the other version."""
    (code,) = pasted(only(DEFAULT, alert_of("LaunchTimeRegressed"))["rule"][0], "this")
    sources = signalflow.parse(code).sources
    this, other = (source for source in sources if source.by == ("device",) and "delta" not in source.metric)
    assert this.metric == other.metric == "appstore.launch.time"
    versions = [
        [term.holds({"version": version}) for term in source.terms if term.key == "version"]
        for source in (this, other)
        for version in ("this", "other")
    ]
    assert versions == [[True], [False], [False], [True]]
    assert {term.key for term in this.terms} == {term.key for term in other.terms}
    assert (
        ".mean(by=['device'])\n(A / B - 1).scale(100).top(count=3).publish('models, change against " in code
    )
    assert "against the versions before (percent)'" in code


def test_a_state_comes_with_the_value_in_each_version() -> None:
    """A flag says nothing of the number: it is asked for by version, of families as the flag is."""
    (code,) = pasted(only(DEFAULT, alert_of("LaunchTimeRegressed"))["rule"][0], "this")
    (value,) = (source for source in signalflow.parse(code).sources if source.by == ("version", "device"))
    assert value.metric == "appstore.launch.time"
    assert {term.key for term in value.terms} >= {"service.name", "platform", "device", "percentile"}
    assert "version" not in {term.key for term in value.terms}
    assert ".publish('value of each version (seconds)')" in code


def test_new_problems_are_asked_for_by_their_weight() -> None:
    """What is not new has no part in the heaviest: the flag is multiplied with the weight, by signature."""
    code, *_ = pasted(only(DEFAULT, alert_of("NewHeavyProblem"))["rule"][0], "this")
    weight, new = signalflow.parse(code).sources
    assert weight.metric == "appstore.diagnostic.signature.weight"
    assert replace(weight, metric="appstore.diagnostic.signature.new") == new
    assert code.endswith("(A * B).top(count=3).publish('heaviest of the new, 0 of the others')")


@pytest.mark.parametrize(
    ("alert_id", "said"),
    [
        ("DataStale", "`appstore.exporter.data.age` is {{inputs.A.value}} s. The alert fires when it is at "),
        ("DataStale", " s (13 hours) for 15 minutes."),
        ("KeyHourUsedUp", "at most 0.1 (10 %) for "),
        (
            "HighImpactRegression",
            "{{inputs.A.value}} %. The alert fires when it is at least 1 % for ",
        ),
        (
            "KeyHourUsedUp",
            "`appstore.exporter.rate_limit.remaining` over `appstore.exporter.rate_limit.limit` is",
        ),
        (
            "PointsRejected",
            "`appstore.exporter.points.rejected`, added up over an hour, is {{inputs.A.value}}. ",
        ),
        ("HangRateRegressed", "\n\nThis has been so for 15 minutes.\n\n"),
        (
            "HangRateRegressed",
            ".scale(100).top(count=3).publish('change against the earlier versions (percent)')",
        ),
        ("HangRatePoor", "publish('models (seconds per hour)')"),
        ("HangRateRegressed", "or nothing was heard of it for 3 days."),
        ("KeyHourUsedUp", "or nothing was heard of it for 30 minutes."),
        ("PointsRejected", "or nothing was heard of it for an hour."),
    ],
)
def test_a_number_has_its_unit(alert_id: str, said: str) -> None:
    """Numbers stand with units and in words; of a flag, which is 1 whenever it is told of, there is none."""
    assert said in only(DEFAULT, alert_of(alert_id))["rule"][0]["parameterized_body"]


def test_a_message_uses_only_what_is_known() -> None:
    """A message names the dimensions of its own group, and no variable that Splunk does not document."""
    plain_words = {
        "{{#if anomalous}}",
        "{{#if normal}}",
        "{{else}}",
        "{{/if}}",
        "{{{tip}}}",
    }
    known = {*plain_words, "{{{runbookUrl}}}", "{{inputs.A.value}}"}
    for alert, _, rule in rules():
        for text in (rule["parameterized_body"], rule["parameterized_subject"]):
            used = set(MUSTACHE.findall(text))
            assert {name or other for name, other in _DIMENSION.findall(text)} == set(alert.query.by)
            assert {one for one in used if not _DIMENSION.fullmatch(one)} <= known
            assert text.count("{{#if ") == text.count("{{/if}}")


def test_wishes_for_alerts() -> None:
    """Services choose what alerts about apps watch; thresholds, notices and what is off are heeded."""
    for asset, program in programs(WISHED):
        if asset.kind == "signalfx_detector":
            about = alert_of(Path(asset.path).name.removesuffix(".tf.json")).about
            for source in program.sources:
                services = [term.values for term in source.terms if term.key == "service.name"]
                assert services == ([WISHED.services] if about == "app" else [])
    for alert, _, rule in rules(WISHED):
        told = () if alert.severity == "info" else WISHED.notify
        assert tuple(map(plain, rule.get("notifications", ()))) == told
    assert "alerts/PollsFailing.tf.json" not in rendered(WISHED)
    assert "threshold(0.25)" in only(WISHED, alert_of("NewHeavyProblem"))["program_text"]
    assert "threshold(90000)" in only(WISHED, alert_of("DataStale"))["program_text"]


def test_without_wishes_nobody_is_told() -> None:
    """Without notices and a runbook the arguments are left out, and a message names the page."""
    for alert, _, rule in rules(Wishes()):
        assert not {"notifications", "runbook_url"} & rule.keys()
        assert f"Runbook: docs/alerts.md#{alert.id.lower()}\n" in rule["parameterized_body"]


# Hostile input


@pytest.mark.parametrize(
    "name", ["", "com.example.*", "*", 'a"b', "a\\", "a`b", "a\nb", "a\x00", "a\u2028b", "') or filter('a\"b"]
)
@pytest.mark.parametrize("setting", ["services", "environments"])
def test_a_name_that_would_change_a_query_is_refused(setting: str, name: str) -> None:
    """A service or environment that SignalFlow or SPL would read as more than itself is an error."""
    services, environments = ((name,), ()) if setting == "services" else ((), (name,))
    wishes = replace(DEFAULT, services=services, environments=environments)
    with pytest.raises(ConfigError):
        splunk.files(dashboards(), alerts(), wishes)


@pytest.mark.parametrize(
    "name", ["it's", "a,b", "{{a}}", "${a.b}", "%{ if a }", "$${x", "日本", "a b", "!a", "') or x("]
)
def test_a_name_stays_itself(name: str) -> None:
    """Whatever else a service is called, each query asks for just that, and Terraform evaluates nothing."""
    wishes = replace(DEFAULT, services=(name,))
    asked = {
        term.values
        for asset, program in programs(wishes)
        for source in program.sources
        for term in source.terms
        if term.key == "service.name" and asset.path != "dashboards/exporter.tf.json"
    }
    assert asked == {(name,)}
    expected = {one for asset in assets() for one in terraform.references(asset.arguments)}
    assert {one for asset in assets(wishes) for one in terraform.references(asset.arguments)} == expected


@pytest.mark.parametrize(
    "notification",
    [
        "",
        "@slack-mobile",
        "Email",
        "Slack,a",
        "Email,a@example.com\n",
        "Webhook,a",
        "email,a",
        ",",
        "Webhook,,,",
    ],
)
def test_a_notification_that_splunk_has_not_is_refused(notification: str) -> None:
    """Whom to tell is in Splunk's words; what the provider would refuse is an error."""
    with pytest.raises(ConfigError, match=r"alerts\.notify: entry 1 "):
        splunk.files((), alerts(), replace(DEFAULT, notify=(notification,)))


@pytest.mark.parametrize(
    "notification",
    [
        "Webhook,,hush,https://example.com",
        "Webhook,a,hush,",
        "Webhook,,,https://hush.example.com",
        "Webhook,,hush",
    ],
)
def test_the_secret_of_a_webhook_is_refused(notification: str) -> None:
    """Files meant for git have no secret in them; nor has the error, which names another way."""
    with pytest.raises(ConfigError) as error:
        splunk.files((), alerts(), replace(DEFAULT, notify=("Webhook,credential,,", notification)))
    assert "entry 2 " in str(error.value)
    assert "`Webhook,credential,,`" in error.value.remedy
    assert "hush" not in f"{error.value!s}{error.value!r}{error.value.remedy}"


@pytest.mark.parametrize(
    "runbook",
    [
        "https://example.com\n",
        "https://example.com/{{{x}}}",
        'https://example.com/"}]{{value}}',
        "https://example.com/<script>",
        "https://example.com/a b",
        "javascript:alert(1)",
    ],
)
def test_a_runbook_is_an_address(runbook: str) -> None:
    """What is no address, or has what a message could read as more than that, is an error."""
    with pytest.raises(ConfigError, match="is no address"):
        splunk.files((), alerts(), replace(DEFAULT, runbook=runbook))


def test_too_many_services_are_refused() -> None:
    """A program longer than Splunk takes is an error, not a surprise when it is installed."""
    wishes = replace(DEFAULT, services=tuple(f"com.example.app{number}" for number in range(3_000)))
    with pytest.raises(ConfigError, match="50000"):
        splunk.files((), alerts(), wishes)


def test_texts_are_no_templates() -> None:
    """Text with Terraform's marks in it, wherever it comes from, is text."""
    chart = Chart(HOSTILE, "lines", HOSTILE, (Query(Series("appstore.x", "s"), label=HOSTILE),))
    filters = (Filter("version", HOSTILE),)
    board = Dashboard("board", HOSTILE, HOSTILE, filters, (Section(HOSTILE, (chart,)),))
    content = json.loads(splunk.files((board,), (), DEFAULT)["dashboards/board.tf.json"])
    found = list(terraform.resources(content))
    assert [fault for one in found for fault in terraform.faults(*one)] == []
    for kind, _, arguments in found:
        expected = 2 if kind == "signalfx_dashboard" else 0
        assert len(list(terraform.references(arguments))) == expected
        assert plain(arguments["description"]) == HOSTILE


# The reader of SignalFlow


@pytest.mark.parametrize(
    "program",
    [
        "A = data('a').max().publish(label='A').foo()",
        "A = data('a', rollup='newest').publish(label='A')",
        "A = data('a', colour='red').publish(label='A')",
        "A = data('a'.lower()).publish(label='A')",
        "A = data(f'a').publish(label='A')",
        "A = data('a\\n').publish(label='A')",
        "A = data('a') % 2",
        "A = data('a') // 2",
        "A = data('a') ** 2",
        "A += data('a')",
        "A = B = data('a')",
        "A: int = data('a')",
        "for a in [1]: data('a')",
        "import os",
        "from os import path",
        "A = data('a').sum(over='1 hour').publish(label='A')",
        "detect(when(B > threshold(1))).publish('b')",
        "A = data('a').publish(label='A')\nB = data('b').publish(label='A')",
        "A = data('a', filter=filter('a', 'b') or filter('c')).publish(label='A')",
        "A = data('a').publish(label='A') # why",
        "A = data('a'",
        "A = [x for x in data('a')]",
    ],
)
def test_what_is_no_signalflow_of_ours_is_refused(program: str) -> None:
    """The reader of these tests lets nothing through but forms and functions that are known to work."""
    with pytest.raises(NotSignalFlowError):
        signalflow.parse(program)


def test_signalflow_is_read() -> None:
    """Of a program is found what it asks for, what it groups by, and what it publishes."""
    program = signalflow.parse(
        "A = data('m', filter=filter('a', 'x*', 'y') and not filter('b', 'z'), rollup='latest')"
        ".max(by=['c']).publish(label='A')\n"
        "detect(when(A >= threshold(1), lasting='15m')).publish('bad')"
    )
    (source,) = program.sources
    assert (source.kind, source.metric, source.by, source.rollup) == ("data", "m", ("c",), "latest")
    assert [term.holds({"a": "xy"}) for term in source.terms] == [True, True]
    assert [term.holds({"b": "z"}) for term in source.terms] == [False, False]
    assert (program.streams, program.detections) == (("A",), ("bad",))


# Golden files


@pytest.mark.parametrize("path", ["dashboards/diagnostics.tf.json", "alerts/LaunchTimeRegressed.tf.json"])
def test_these_files_are_as_they_were(path: str) -> None:
    """A dashboard and a detector are as the golden files spell them out."""
    text = splunk.files(dashboards(), alerts(), DEFAULT)[path]
    golden_files.check(f"splunk/{Path(path).name}", text)
