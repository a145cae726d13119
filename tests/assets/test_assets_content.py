"""What is shown and what is watched, held against the catalogue and against what the sandbox measures."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from exporter.appstore.payloads.metrics import parse_metrics
from exporter.assets.alerts import Pace, alerts
from exporter.assets.dashboards import dashboards
from exporter.assets.model import (
    RUNBOOK,
    Alert,
    Chart,
    Dashboard,
    Instrument,
    Query,
    Series,
    Wishes,
    fits,
)
from exporter.assets.rendering import rendered, wanted
from exporter.convert import catalogue
from exporter.convert.insights import convert_insights
from exporter.convert.metrics import Selection, convert
from exporter.demo import minutes_of_a_day
from exporter.errors import ConfigError
from exporter.sandbox.store import Store
from exporter.sandbox.tables import APPS, METRICS

ROOT = Path(__file__).resolve().parents[2]
OF_METRICS = [
    "HangRate",
    "LaunchTime",
    "MemoryPeakMemory",
    "MemoryAtSuspension",
    "DiskWrites",
    "BatteryUsage",
    "BatteryOnScreen",
    "BatteryBackground",
    "TerminationOnScreen",
    "TerminationBackground",
    "AnimationScrollHitchRate",
]
ALERTS = [
    *(f"{metric}Regressed" for metric in OF_METRICS),
    *(f"{metric}Poor" for metric in OF_METRICS),
    "HighImpactRegression",
    "NewHeavyProblem",
    "DataStale",
    "PollsFailing",
    "CredentialsRefused",
    "KeyHourUsedUp",
    "PointsRejected",
    "EventsRejected",
    "OutboxNotEmptying",
    "CollectorCannotSend",
    "CollectorQueueFilling",
]
# A breakdown belongs to a metric whose parts the Organizer shows; the flag says of the newest version what
# its band says beside those of the others.
NOT_SHOWN = {
    f"{metric.name}.breakdown"
    for metric in catalogue.APPLE_METRICS
    if metric.category not in ("BATTERY", "TERMINATION")
} | {f"{metric.name}.poor" for metric in catalogue.APPLE_METRICS}
WORDS_OF_BACKENDS = (
    *("datadog", "splunk", "signalfx", "signalflow", "grafana", "prometheus", "promql", "terraform"),
    *("monitor", "detector", "facet", "widget", "panel"),
)
INSTRUMENTS: dict[str, Instrument] = {"gauge": "gauge", "counter": "counter", "histogram": "histogram"}
OF_APPLE = {"device", "device_name", "platform", "version", "percentile", "build"}
DAYS = (2.0, 101.0)  # of a release that regresses, and of one that does not


class Point(NamedTuple):
    """A gauge or a distribution of the sandbox, with the attributes of its resource."""

    name: str
    attributes: dict[str, str]
    value: float


def charts() -> Iterator[tuple[Dashboard, Chart]]:
    for board in dashboards():
        for section in board.sections:
            for chart in section.charts:
                yield board, chart


def queries_of(alert: Alert) -> list[Query]:
    asked = (alert.query, alert.over, alert.heard, alert.worst, alert.worst_where, alert.change)
    return [query for query in asked if query is not None]


def all_queries() -> Iterator[Query]:
    """Those on what the exporter sends: on what the Collector says of itself, its own page decides."""
    for _, chart in charts():
        yield from () if chart.of_collector else chart.queries
    for alert in alerts():
        yield from () if alert.about == "collector" else queries_of(alert)


@cache
def bears() -> dict[str, set[str]]:
    """Metric → the attributes that its points and their resource can bear, by the catalogue."""
    resource = set(catalogue.RESOURCE_ATTRIBUTES)
    known = {metric.name: OF_APPLE | resource for metric in catalogue.APPLE_METRICS}
    for metric in catalogue.APPLE_METRICS:
        for companion in catalogue.COMPANIONS:
            known[f"{metric.name}.{companion.suffix}"] = OF_APPLE | resource | set(companion.attributes)
    for fixed in (*catalogue.INSIGHT_METRICS, *catalogue.DIAGNOSTIC_METRICS):
        known[fixed.name] = resource | set(fixed.attributes)
    own = {catalogue.OWN_ACCOUNTS}
    return known | {fixed.name: own | set(fixed.attributes) for fixed in catalogue.OWN_METRICS}


@cache
def units() -> dict[str, Series]:
    """Every metric of the catalogue as it leaves, worked out here once more."""
    found = {metric.name: Series(metric.name, metric.unit) for metric in catalogue.APPLE_METRICS}
    for metric in catalogue.APPLE_METRICS:
        for companion in catalogue.COMPANIONS:
            name = f"{metric.name}.{companion.suffix}"
            found[name] = Series(name, companion.unit or metric.unit, INSTRUMENTS[companion.instrument])
    for fixed in (*catalogue.INSIGHT_METRICS, *catalogue.DIAGNOSTIC_METRICS, *catalogue.OWN_METRICS):
        found[fixed.name] = Series(fixed.name, fixed.unit, INSTRUMENTS[fixed.instrument])
    return found


@cache
def sandbox(day: float) -> tuple[Point, ...]:
    """What the sandbox's apps come to on a day: Apple's metrics, their companions, insights."""
    found = []
    for app in APPS:
        document = json.loads(json.dumps(Store().metrics_payload(app.id, day)), parse_int=float)
        payload = parse_metrics(document)
        converted = convert(payload, Selection(), observed_at=0, series_cap=20_000)
        insights = convert_insights(payload, (), observed_at=0, series_cap=20_000)
        resource = {
            "service.name": app.bundle_id,
            "appstore.app.id": app.id,
            "deployment.environment.name": "production",
        }
        for metric in (*converted.gauges, *insights.gauges):
            for point in metric.data.data_points:
                attributes = {key: str(value) for key, value in (point.attributes or {}).items()}
                found.append(Point(metric.name, resource | attributes, float(point.value)))  # type: ignore[union-attr]
        found += [Point(each.name, resource | dict(each.attributes), 0.0) for each in converted.distributions]
    return tuple(found)


def asked(query: Query, day: float) -> dict[tuple[str, ...], float]:
    """Group → value, for a query that joins by the maximum."""
    assert query.join == "max"
    groups: dict[tuple[str, ...], float] = {}
    for point in sandbox(day):
        if point.name == query.metric.name and fits(query.conditions, point.attributes):
            group = tuple(point.attributes.get(key, "") for key in query.by)
            groups[group] = max(groups.get(group, point.value), point.value)
    return groups


def firing(alert: Alert, day: float) -> set[tuple[str, ...]]:
    """The groups for which the condition holds on that day."""
    value = asked(alert.query, day)
    assert alert.over is None
    return {group for group, number in value.items() if number >= alert.threshold}


def test_ids_of_alerts_stay() -> None:
    """Links to the runbook and users' configurations name them: an id may come, none may go or change."""
    assert [alert.id for alert in alerts()] == ALERTS


def test_ids_of_dashboards_stay() -> None:
    """Files and addresses are named after them."""
    assert [board.id for board in dashboards()] == [
        "release-health",
        "metric-by-device",
        "diagnostics",
        "exporter",
    ]


def test_titles_within_a_section_differ() -> None:
    """Two charts of a section with one title could not be told apart, nor could two sections of a page."""
    for board in dashboards():
        assert len({section.title for section in board.sections}) == len(board.sections)
        for section in board.sections:
            assert len({chart.title for chart in section.charts}) == len(section.charts), section.title


def test_every_metric_is_shown() -> None:
    """Each metric of the catalogue is in a chart, or is absent on purpose."""
    shown = {query.metric.name for _, chart in charts() for query in chart.queries}
    assert set(bears()) - shown == NOT_SHOWN


def test_apps_platforms_and_families_never_share_a_line() -> None:
    """Each chart about apps groups by service, platform and version, and by device unless it is about none or
    compares them: with all of them chosen, as at the beginning, no number stands for two.
    """
    for board, chart in charts():
        if board.id == "exporter" or chart.title == "Regressions that Apple reports":
            continue
        for query in chart.queries:
            assert {"service.name", "platform", "version"} <= set(query.by), (board.id, chart.title)
            flags = query.metric.unit == "{flag}"  # of several families the worst is meant
            alike = flags or "device" in (*query.by, *chart.without)
            assert alike or chart.title in ("Hangs", "Slow launches", "Disk writes"), chart.title


def test_only_colours_of_a_column_that_has_bands() -> None:
    """A colour judges; what has no judgement of ours or Apple's has none."""
    for _, chart in charts():
        for query in chart.queries:
            judged = query.metric.unit in ("{flag}", "{band}", "{insight}")
            assert not query.bands or judged, (chart.title, query.metric.name)


def test_charts_of_the_collector_have_no_filter() -> None:
    """What it says of itself bears neither account nor environment."""
    for board, chart in charts():
        if chart.of_collector:
            assert {each.attribute for each in board.filters} == set(chart.without)


def test_every_event_is_shown() -> None:
    """Each kind of event has a list somewhere."""
    shown = {chart.events.name for _, chart in charts() if chart.events}
    assert shown == {event.name for event in catalogue.EVENTS}


def test_metrics_are_as_the_catalogue_has_them() -> None:
    """Name, unit and instrument of each query are those with which the metric leaves."""
    for query in all_queries():
        assert replace(query.metric, always=()) == units()[query.metric.name]
        assert (query.percentile is not None) == (query.metric.instrument == "histogram"), query


def test_no_query_mixes_versions_with_their_builds() -> None:
    """Single builds have metrics of the same names (`collect.builds`): a query takes what bears no build."""
    for query in all_queries():
        takes_builds = fits(query.metric.always, {"build": "4711"})
        assert takes_builds == ("build" not in bears()[query.metric.name]), query


def test_attributes_belong_to_their_metric() -> None:
    """Nothing groups or filters by what the metric does not bear: such a query would find nothing."""
    for query in all_queries():
        used = {*query.by, *(attribute for attribute, _ in query.conditions)}
        assert used <= bears()[query.metric.name], query


def test_filters_of_a_dashboard_apply_to_each_of_its_charts() -> None:
    """A filter on what a metric does not bear empties its chart, unless the chart is without it."""
    of_events = {event.name: set(event.attributes) for event in catalogue.EVENTS}
    for board, chart in charts():
        applied = {each.attribute for each in board.filters} - set(chart.without)
        assert set(chart.without) <= {each.attribute for each in board.filters}, chart.title
        for query in () if chart.of_collector else chart.queries:
            assert applied <= bears()[query.metric.name], (board.id, chart.title)
        if chart.events:
            known = of_events[chart.events.name] | set(catalogue.RESOURCE_ATTRIBUTES)
            assert applied <= known, (board.id, chart.title)
            assert set(chart.events.columns) <= known, chart.title


def test_pages_about_apps_have_all_filters() -> None:
    """Service, platform, version, device and environment can be chosen on each of them."""
    wanted = {"service.name", "platform", "version", "device", "deployment.environment.name"}
    for board in dashboards()[:3]:
        assert {each.attribute for each in board.filters} == wanted, board.id


def test_a_chart_has_what_its_kind_needs() -> None:
    """Lists of events have events, texts have nothing, and all others have queries; twelve columns."""
    for _, chart in charts():
        assert (chart.events is not None) == (chart.kind == "events"), chart.title
        assert bool(chart.queries) == (chart.kind not in ("events", "text")), chart.title
        assert 1 <= chart.width <= 12, chart.title
        assert len({query.label for query in chart.queries}) == len(chart.queries), chart.title


def texts(value: object) -> Iterator[str]:
    """Every text in a description."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from texts(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from texts(getattr(value, field.name))


def test_no_word_of_a_backend() -> None:
    """Descriptions are for all backends: none is named in them, nor what only one of them calls so."""
    for text in (*texts(dashboards()), *texts(alerts())):
        assert not [word for word in WORDS_OF_BACKENDS if word in text.lower()], text


def test_texts_are_sentences() -> None:
    """What people read ends with a full stop; a title does not."""
    for alert in alerts():
        for text in (alert.meaning, alert.first, alert.look, alert.why):
            assert text.endswith("."), (alert.id, text)
        assert not alert.title.endswith("."), alert.id
    for board, chart in charts():
        assert board.about.endswith("."), board.id
        assert chart.about.endswith("."), (board.id, chart.title)
        assert not chart.title.endswith("."), chart.title


def test_pages_that_alerts_point_to_exist() -> None:
    """`look` begins with the page's name, or with a log."""
    pages = ("Release health", "Metric by device", "Diagnostics", "The exporter itself")
    logs = ("The exporter's log", "The Collector's log")
    assert {board.title.removeprefix("App Store: ").capitalize() for board in dashboards()} == set(pages)
    for alert in alerts():
        assert alert.look.startswith(pages + logs), alert.id


def test_thresholds_that_users_choose_have_a_limit() -> None:
    """Flags and what Apple judges have no threshold to choose; others one that can be reached."""
    for alert in alerts():
        assert alert.threshold > 0
        assert alert.highest is None or alert.threshold < alert.highest, alert.id
        judged = alert.query.metric.unit == "{flag}" or alert.id == "HighImpactRegression"
        assert not (judged and alert.highest), alert.id


def test_wishes_are_in_the_alerts_that_a_renderer_gets() -> None:
    """What is off is not there, a chosen threshold is, and all else is as it was."""
    wishes = Wishes(thresholds={"NewHeavyProblem": 0.25}, off=("DataStale", "HangRatePoor"))
    found = wanted(alerts(), wishes)
    assert [one for one in found if one not in alerts()] == [
        replace(one, threshold=0.25) for one in alerts() if one.id == "NewHeavyProblem"
    ]
    assert {one.id for one in alerts()} - {one.id for one in found} == {"DataStale", "HangRatePoor"}


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), float("-inf")])
def test_a_threshold_that_is_no_number_is_refused(threshold: float) -> None:
    """The error says which, and what it is unless set."""
    with pytest.raises(ConfigError) as caught:
        wanted(alerts(), Wishes(thresholds={"NewHeavyProblem": threshold}))
    assert caught.value.where == "alerts.thresholds.NewHeavyProblem"
    assert "unless set it is 0.5" in str(caught.value)


def test_silence_ends_nothing_about_an_app_for_days() -> None:
    """A day without Apple's data is no recovery. Of the exporter a silence must not fill a long wait, and
    stale data stays told of until silence is.
    """
    found = {alert.id: alert for alert in alerts()}
    assert found["LaunchTimeRegressed"].held == 3 * 24 * 60
    assert found["CredentialsRefused"].held == 30
    assert found["OutboxNotEmptying"].held == 40 < found["OutboxNotEmptying"].minutes
    assert found["DataStale"].held == 75
    rare = {alert.id: alert for alert in alerts(Pace(heartbeat=3600.0))}
    assert 2 * 60 <= rare["OutboxNotEmptying"].held < rare["OutboxNotEmptying"].minutes


def test_counters_have_a_window_and_gauges_stay() -> None:
    """A gauge has to stay for three heartbeats at least, what is counted is summed over a window."""
    for alert in alerts():
        assert (alert.window is not None) == (alert.query.metric.instrument == "counter"), alert.id
        if alert.window is None:
            assert alert.minutes >= 15, alert.id


def test_alerts_about_apps_are_one_for_each_version() -> None:
    """Each groups by service, environment, platform and version, and what it says of models does as well."""
    group = ("service.name", "deployment.environment.name", "platform", "version")
    for alert in alerts():
        if alert.about == "app":
            for query in queries_of(alert):
                assert query.by[:4] == group, alert.id
            assert "device" not in alert.query.by, alert.id
            assert alert.missing is None, alert.id


def test_each_alert_about_an_app_names_numbers_or_is_one() -> None:
    """A flag alone says nothing: the worst models stand beside it, and how far it went."""
    for alert in alerts():
        if alert.about == "app":
            assert alert.worst is not None, alert.id
        assert (alert.change is not None) == alert.id.endswith("Regressed"), alert.id
        assert alert.worst_by_change == alert.id.endswith("Regressed"), alert.id


def given(metric: str, companion: str) -> bool:
    """Whether the sandbox gives a metric what the companion is made of: not every metric has a goal."""
    (kind,) = [kind for kind in METRICS if catalogue.metric_name(kind.category, kind.identifier) == metric]
    if companion in ("goal", "goal_ratio", "goal_band", "poor"):
        return kind.bands is not None
    return bool(kind.subsystems) if companion == "breakdown" else True


def test_queries_find_what_the_sandbox_measures() -> None:
    """Each query on Apple's metrics and insights selects something, unless Apple gives no such thing."""
    there = defaultdict(list)
    for point in (*sandbox(DAYS[0]), *sandbox(DAYS[1])):
        there[point.name].append(point.attributes)
    of_apple = {metric.name: metric for metric in catalogue.APPLE_METRICS}
    asked_for = 0
    for query in all_queries():
        name = query.metric.name
        stem, _, companion = name.rpartition(".")
        if name not in of_apple and stem not in of_apple and not name.startswith("appstore.insight."):
            continue
        found = [each for each in there[name] if fits(query.conditions, each)]
        assert bool(found) == (stem not in of_apple or given(stem, companion)), query
        asked_for += 1
    assert asked_for > 200


def fired(suffix: str, days: Iterable[float]) -> dict[str, set[tuple[str, ...]]]:
    """Id → the groups in which it fires on all those days, where there are any."""
    ours = [alert for alert in alerts() if alert.id.endswith(suffix)]
    found = {alert.id: set.intersection(*(firing(alert, day) for day in days)) for alert in ours}
    return {name: groups for name, groups in found.items() if groups}


def test_the_regression_of_the_sandbox_fires_once() -> None:
    """Of three apps one got slower to launch in one version: one alert, for just that, and no other."""
    release = ("com.example.harbour", "production", "iOS", "7.40.0")
    assert fired("Regressed", [10.0])["LaunchTimeRegressed"] == {release}


def test_what_apple_calls_high_impact_fires_while_it_does() -> None:
    """Disk writes more than double in the first week of that release; then Apple withdraws the insight."""
    release = ("com.example.harbour", "production", "iOS", "7.40.0", "appstore.disk.writes")
    assert fired("HighImpactRegression", [2.0])["HighImpactRegression"] == {release}
    assert fired("HighImpactRegression", [10.0]) == {}


def test_the_next_release_ends_it() -> None:
    """Some days after the version that follows, nothing says any more that launches got worse."""
    assert "LaunchTimeRegressed" not in fired("Regressed", [24.0])


def test_a_collector_behind_the_sandbox_gets_a_whole_alert() -> None:
    """Its days are so long that the first regression outlasts a quarter of an hour, and ends in about one."""
    release = ("com.example.harbour", "production", "iOS", "7.40.0")
    days = [day for day in range(20) if release in fired("Regressed", [day]).get("LaunchTimeRegressed", ())]
    assert days == list(range(13))
    assert 45 <= len(days) * minutes_of_a_day("http://127.0.0.1:4318") <= 75


def test_only_the_newest_version_is_poor() -> None:
    """Apple has a band for all eight versions: one alert for a metric and platform, not eight."""
    poor = fired("Poor", [10.0])
    assert poor
    for name, groups in poor.items():
        assert len({(service, platform) for service, _, platform, _ in groups}) == len(groups), name


def test_data_is_stale_after_two_polls() -> None:
    """A schedule of once a day must not be called stale in the evening."""
    of_default, of_working_days = (
        {alert.id: alert for alert in alerts(pace)}
        for pace in (Pace(), Pace(poll=72 * 3600, two_polls=96 * 3600))
    )
    assert of_default["DataStale"].threshold == 13 * 3600
    assert of_working_days["DataStale"].threshold == 97 * 3600


@pytest.mark.parametrize(
    ("heartbeat", "steady", "silent", "outbox"),
    [
        (1.0, 15, 60, 60),
        (240.0, 15, 60, 60),
        (300.0, 20, 60, 60),
        (900.0, 50, 90, 60),
        (3600.0, 185, 360, 185),
    ],
)
def test_a_longer_heartbeat_gives_an_alert_more_time(
    heartbeat: float, steady: int, silent: int, outbox: int
) -> None:
    """Three beats and some slack before anything fires, six before silence counts."""
    found = {alert.id: alert for alert in alerts(Pace(heartbeat=heartbeat)) if alert.about != "collector"}
    gauges = [one for one in found.values() if one.window is None and one.id != "OutboxNotEmptying"]
    assert {one.minutes for one in gauges} == {steady}
    assert found["DataStale"].missing == silent
    assert found["OutboxNotEmptying"].minutes == outbox
    assert found["PointsRejected"].window == found["EventsRejected"].window == outbox


def test_new_problems_are_one_alert_for_a_type() -> None:
    """It goes by the share, whose scale is the same in each account, and not by single signatures."""
    (alert,) = [one for one in alerts() if one.id == "NewHeavyProblem"]
    assert (alert.query.metric.unit, alert.threshold) == ("1", 0.5)
    assert alert.query.by[4:] == ("diagnostic_type",)


def test_each_exporter_is_told_apart() -> None:
    """What is said of an exporter and of no account of it is grouped by the accounts that it has; two of
    them may have accounts of one name in two environments.
    """
    for alert in alerts():
        if alert.about == "pipeline":
            assert alert.query.by in (("environment", "account"), (catalogue.OWN_ACCOUNTS,)), alert.id
            assert not alert.heard or alert.heard.by == alert.query.by


def test_every_alert_is_in_the_runbook() -> None:
    """The link in a message, the id in lower case behind #, leads to a place of the page."""
    page = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    assert (ROOT / RUNBOOK).is_file()
    for alert in alerts():
        heading, anchor = f"\n### {alert.id}\n", f'<a id="{alert.id.lower()}"></a>'
        assert (heading in page) + (anchor in page) == 1, alert.id
        first = re.sub(r"docs/(\w+\.md)", r"[\1](\1)", alert.first)
        assert f"- **What to do first.** {first}\n" in page, alert.id


def test_files_are_placed_by_backend() -> None:
    """What a renderer calls `alerts/x.json` stands under the backend's name, in order."""
    files = {"dashboards/b.json": "2\n", "alerts/sub/a.json": "1\n"}
    placed = rendered("splunk", lambda _boards, _alerts, _wishes: files, Wishes(), Pace())
    assert list(placed.items()) == [
        ("alerts/splunk/sub/a.json", "1\n"),
        ("dashboards/splunk/b.json", "2\n"),
    ]


@pytest.mark.parametrize("path", ["", "x.json", "alerts", "alerts/", "../alerts/x", "/alerts/x"])
def test_a_file_elsewhere_is_refused(path: str) -> None:
    """Nothing is written outside the two folders."""
    with pytest.raises(ValueError, match="neither a dashboard nor an alert"):
        rendered("splunk", lambda _boards, _alerts, _wishes: {path: "x\n"}, Wishes(), Pace())
