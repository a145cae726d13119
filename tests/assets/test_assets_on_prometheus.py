"""Rules and dashboards on a real Prometheus that scrapes a real Collector: what they ask for is there.

The exporter polls the sandbox, in the days of a release that regresses.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from exporter.assets import grafana, prometheus
from exporter.assets.alerts import alerts
from exporter.assets.dashboards import dashboards
from exporter.assets.model import Wishes, of_apple
from exporter.assets.prometheus.promql import metric_name
from exporter.convert.catalogue import APPLE_METRICS, BREAKDOWN, GOAL, GOAL_BAND, GOAL_RATIO, POOR
from exporter.otlp.encode import Body
from exporter.otlp.http_sink import HttpSink
from exporter.otlp.sink import Outcome, Reply
from exporter.sandbox import Fault
from tests.assets.promql_series import asked, questions
from tests.assets.real_prometheus import Prometheus
from tests.backends.datadog import DatadogIntake
from tests.backends.intake import Fault as Refusal
from tests.backends.prometheus import Sample, read_samples
from tests.collector.conftest import otelcol
from tests.collector.points import NOW, events, gauge, metrics
from tests.collector.running import Collector
from tests.end_to_end.conftest import FULL
from tests.end_to_end.pair import Pair
from tests.service.service_world import Clock

__all__ = ["otelcol"]  # a fixture, asked for by its name

WORST, SETTLED, NEXT = 3.0, 10.0, 24.0
"""Days: 7.40.0 of the first app is slow to launch, and in its first week it writes to disk more than twice as
much; 7.41.0 is as good as those before.
"""
REFUSED = "/v1/apps/1540000003/perfPowerMetrics"
ENOUGH_FOR_HALF: dict[str, Any] = {**FULL, "limits__key_share": 0.05}  # so that something is put off
OF_SOME = dict.fromkeys((GOAL, GOAL_BAND, GOAL_RATIO, POOR), "appstore.hang.rate")
OF_SOME[BREAKDOWN] = "appstore.battery.usage"  # Apple gives these of some metrics; here is one of them each


@dataclass(frozen=True)
class Seen:
    """What the Collector's page has, and a Prometheus that scraped it."""

    page: list[Sample]
    prometheus: Prometheus

    def as_arrived(self, expression: str) -> str:
        """With the names of metrics that have what the sandbox does not give of those that are asked for."""
        there = {sample.name for sample in self.page}
        for name, present in stand_ins():
            if name not in there:
                expression = re.sub(rf"\b{name}\b", present, expression)
        return expression


class Nobody:
    """A sink without anybody at its other end."""

    def send(self, body: Body) -> Reply:
        """It is not taken, and may be tried again."""
        del body
        return Reply(Outcome.RETRY, message="no connection")

    def close(self) -> None:
        """There is nothing to let go of."""


def stand_ins() -> Iterator[tuple[str, str]]:
    """A companion that Apple gives of some metrics only, and the same one of a metric that has it."""
    for companion, name in OF_SOME.items():
        (other,) = (metric for metric in APPLE_METRICS if metric.name == name)
        for metric in APPLE_METRICS:
            yield metric_name(of_apple(metric, companion)), metric_name(of_apple(other, companion))


@pytest.fixture(scope="module")
def seen(otelcol: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Two polls, of which the first has to put something off and the second is refused for an app, and a
    heartbeat that reaches nobody.
    """
    folder = tmp_path_factory.mktemp("seen")
    with Pair(otelcol, folder, "prometheus", **ENOUGH_FOR_HALF) as pair:
        pair.day = WORST
        pair.poll()
        pair.beat()
        pair.clock.now += 3600
        for _ in range(2):  # the second time with a freshly signed token
            pair.appstore.fail(REFUSED, Fault(401))
        pair.poll()
        there, pair.sink.sink = pair.sink.sink, Nobody()
        pair.beat()
        pair.sink.sink = there
        pair.beat()
        pair.close()
        port = pair.collector.ports.scrape
        page = read_samples(pair.collector.page(port))
        with Prometheus(folder, port) as server:
            yield Seen(page, server)


def rules() -> list[dict[str, Any]]:
    """All rules, in order."""
    groups = yaml.safe_load(prometheus.files(dashboards(), alerts(), Wishes())["alerts/rules.yml"])["groups"]
    return [rule for group in groups for rule in group["rules"]]


def boards() -> dict[str, dict[str, Any]]:
    files = grafana.files(dashboards(), alerts(), Wishes())
    return {path: json.loads(text) for path, text in files.items() if path.endswith(".json")}


def targets(*, collector: bool = False) -> Iterator[tuple[str, str]]:
    """Each query of each panel, with all values chosen: where it stands, and the expression.

    Args:
        collector: those about the Collector's own page instead of the others.
    """
    for board in boards().values():
        all_ = {one["name"]: one.get("allValue", "") for one in board["templating"]["list"]}
        for panel in (inner for outer in board["panels"] for inner in (outer, *outer.get("panels", ()))):
            for target in panel.get("targets", ()):
                expression = target["expr"].replace("$__interval", "1h")
                for name, value in all_.items():
                    expression = expression.replace(f'"${name}"', f'"{value}"')
                if ("otelcol_" in expression) is collector:
                    yield f"{board['title']}: {panel['title']}", expression


def test_every_rule_and_message_asks_for_what_is_there(seen: Seen) -> None:
    """Each metric, label and value in rules and messages arrived, and each selector finds a series."""
    ours = [rule for rule in rules() if "otelcol_" not in rule["expr"]]
    expressions = [text for rule in ours for text in (rule["expr"], *questions(rule))]
    assert len(expressions) > 2 * len(ours) - 10
    selectors = [one for text in expressions for one in asked(seen.as_arrived(text))]
    assert [one for one in selectors if not (one.knows(seen.page) and one.finds(seen.page))] == []


def test_every_chart_asks_for_what_is_there(seen: Seen) -> None:
    """Each metric and label in a chart arrived, and each selector finds a series where all is chosen."""
    found = [(where, one) for where, text in targets() for one in asked(seen.as_arrived(text))]
    assert len(found) > 100
    assert [(where, one) for where, one in found if not (one.knows(seen.page) and one.finds(seen.page))] == []


def test_every_chart_has_data(seen: Seen) -> None:
    """Prometheus takes each query of each panel, and has something to draw."""
    now = time.time()
    span = {"start": str(now - 1), "end": str(now + 1), "step": "1"}
    empty = [
        where
        for where, text in targets()
        if not seen.prometheus.ask("query_range", {"query": seen.as_arrived(text), **span})["result"]
    ]
    assert empty == []


def test_every_filter_offers_values(seen: Seen) -> None:
    """What Grafana asks for the values of a filter brings some, among them the one it begins with."""
    for board in boards().values():
        for variable in board["templating"]["list"][1:]:
            found = re.fullmatch(r"label_values\((\{.*\}), (\w+)\)", variable["query"]["query"])
            assert found, variable
            selector = re.sub(r'"\$\w+"', '".*"', found[1])
            values = seen.prometheus.ask(f"label/{found[2]}/values", {"match[]": selector})
            begins = variable["current"]["value"]
            assert values, variable
            assert begins == "$__all" or begins in values
            assert "perfpower-exporter" not in values


def test_the_collector_says_what_is_asked_of_it(otelcol: Path, tmp_path: Path) -> None:
    """Its own page has the metrics of the rules and charts about it once a backend refused something."""
    environment = {"DD_API_KEY": "key"}
    with DatadogIntake(key="key", clock=Clock(NOW / 1e9)) as intake:
        environment["DD_OTLP_ENDPOINT"] = intake.url
        with (
            Collector(otelcol, tmp_path, "datadog", environment=environment) as collector,
            closing(HttpSink(collector.metrics_url)) as sink,
        ):
            for body in (metrics(gauge()), events("a hang")):
                intake.answer(Refusal(status=403))
                sink.send(body)
            page = read_samples(collector.page(collector.ports.telemetry))
    for sample in page:
        sample.labels["instance"] = "collector:8888"  # which a scrape adds
    of_rules = [rule["expr"] for rule in rules() if "otelcol_" in rule["expr"]]
    of_charts = [expression for _, expression in targets(collector=True)]
    assert (len(of_rules), len(of_charts)) == (2, 3)
    selectors = [one for text in (*of_rules, *of_charts) for one in asked(text)]
    assert [one for one in selectors if not (one.knows(page) and one.finds(page))] == []


# The whole way, in less time

TIMES_FASTER = 600
_UNITS = {"m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(?<=[\[: ])(\d+)([mhd])(?=[\]:)\s])")
LONGEST_ON_THE_PAGE = "4s"
What = tuple[str, ...]  # the id of an alert, and of its labels those of `_SAID` that it has

HARBOUR = ("com.example.harbour", "iOS", "7.40.0")
_OF_ITS_FIRST_WEEK: set[What] = {
    ("DiskWritesRegressed", *HARBOUR),
    ("DiskWritesPoor", *HARBOUR),
    ("HighImpactRegression", *HARBOUR, "appstore.disk.writes"),
}
_OF_ITS_LAUNCH: set[What] = {
    ("LaunchTimeRegressed", *HARBOUR),
    ("LaunchTimePoor", *HARBOUR),
    ("NewHeavyProblem", *HARBOUR, "LAUNCHES"),
}
FIRES: dict[float, set[What]] = {
    WORST: {
        *_OF_ITS_FIRST_WEEK,
        *_OF_ITS_LAUNCH,
        ("MemoryPeakMemoryRegressed", "com.example.larkspur", "iOS", "3.40.0"),
        ("MemoryPeakMemoryRegressed", "com.example.larkspur", "macOS", "3.40.0"),
        ("BatteryUsagePoor", "com.example.tidepool", "iOS", "1.40.0"),
    },
    SETTLED: {
        *_OF_ITS_LAUNCH,
        ("MemoryPeakMemoryRegressed", "com.example.larkspur", "iOS", "3.40.0"),
        ("MemoryPeakMemoryRegressed", "com.example.larkspur", "macOS", "3.40.0"),
        ("BatteryUsagePoor", "com.example.tidepool", "iOS", "1.41.0"),
    },
    NEXT: {
        ("MemoryPeakMemoryRegressed", "com.example.larkspur", "iOS", "3.41.0"),
        ("MemoryPeakMemoryRegressed", "com.example.larkspur", "macOS", "3.41.0"),
        ("BatteryUsagePoor", "com.example.tidepool", "iOS", "1.42.0"),
    },
}
"""Day → what fires on it, and nothing else.

Harbour's 7.40.0 is made to launch slowly (`regressing`), by a new problem of its launches that outweighs all
others together, and to write more than twice as much in its first
week (`settling`), beyond Apple's fair band; its next version does neither. Larkspur's memory creeps up from
version to version on both platforms (`growing`), so each is above the mean of those before it. Tidepool's use
of the battery has always been poor (`scale`), of each newest version; nothing of it gets worse.
"""
SILENT = ("DataStaleNoData", "main")
_SAID = ("service_name", "platform", "version", "metric", "diagnostic_type", "account")


def hurried(text: str) -> str:
    """The rules with all durations so many times shorter."""
    evaluated = text.replace("interval: 1m", "interval: 250ms")
    return _DURATION.sub(lambda of: f"{int(of[1]) * _UNITS[of[2]] * 1000 // TIMES_FASTER}ms", evaluated)


class Hurried(Pair):
    """The pair whose Collector forgets within seconds what does not come again."""

    def __enter__(self) -> Self:
        further = {"exporters": {"prometheus": {"metric_expiration": LONGEST_ON_THE_PAGE}}}
        with ExitStack() as starting:
            starting.enter_context(self.appstore)
            starting.enter_context(self.backends)
            self.collector = starting.enter_context(
                Collector(self._otelcol, self._folder, "prometheus", further=further)
            )
            self.open()
            starting.callback(self.close)
            self._stack = starting.pop_all()
        return self


def fired(found: Iterable[dict[str, str]]) -> set[What]:
    """The same, from the labels of alerts."""
    return {
        (of["alertname"].removeprefix("AppStore"), *(of[name] for name in _SAID if name in of))
        for of in found
    }


def test_a_release_that_regresses_fires_once_and_the_next_one_ends_it(otelcol: Path, tmp_path: Path) -> None:
    """All rules, as they are by default: on each day those fire that are said above, and no other. While the
    exporter is away, nothing but that is new, and when it is back, what fires has never ended.
    """
    text = hurried(prometheus.files(dashboards(), alerts(), Wishes())["alerts/rules.yml"])
    # A poll that downloads the logs of a fortnight takes seconds: of the time of the rules, an hour.
    quick: dict[str, Any] = {"schedule__heartbeat": "1s", "diagnostics__logs": "false"}
    with Hurried(otelcol, tmp_path, "prometheus", **quick) as pair:
        pair.day = WORST
        pair.poll()
        pair.beat(1.0)
        with Prometheus(tmp_path, pair.collector.ports.scrape, text, every="1s") as server:

            def firing() -> set[What]:
                return fired(alert["labels"] for alert in server.firing())

            def await_beating(expected: set[What]) -> None:
                def beat_and_ask() -> bool:
                    pair.beat(1.0)
                    return firing() == expected

                server.wait(beat_and_ask, f"not what fires: {expected}")

            await_beating(FIRES[WORST])
            messages = {alert["labels"]["alertname"]: alert["annotations"] for alert in server.firing()}
            launch = messages["AppStoreLaunchTimeRegressed"]["description"]
            models = ", ".join([r"iP\w+,\d+ [56]\d(\.\d+)? %"] * 3)
            assert re.search(f"^Changed most against the versions before: {models}\\.$", launch, re.MULTILINE)
            problem = messages["AppStoreNewHeavyProblem"]["description"]
            assert re.search(r"^Now [67]\d\S* %; the limit is 50 % or more\.$", problem, re.MULTILINE)
            assert re.search(
                r"^Heaviest of the new: Harbour\.InboxStore\.decode\(\) -> \(\) 0\.[56]",
                problem,
                re.MULTILINE,
            )
            grave = messages["AppStoreHighImpactRegression"]["description"]
            assert re.search(r"^Now 1[34]\d\S* %\.$", grave, re.MULTILINE)

            pair.close()
            server.wait(lambda: SILENT in firing(), "nobody notices that the exporter is gone")
            assert firing() == {*FIRES[WORST], SILENT}
            assert not server.has('{__name__=~"appstore_.+"}')
            pair.open()
            await_beating(FIRES[WORST])

            for day in (SETTLED, NEXT):
                pair.day = day
                pair.poll()
                await_beating(FIRES[day])

            pair.close()
            server.wait(lambda: SILENT in firing(), "nobody notices that the exporter is gone")
            assert firing() == {*FIRES[NEXT], SILENT}

            def ever(query: str) -> set[What]:
                return fired(found["metric"] for found in server.ask("query", {"query": query})["result"])

            before_the_first_scrape = {("DataStaleNoData",)}
            all_ = ever('last_over_time(ALERTS{alertstate="firing"}[1h])') - before_the_first_scrape
            assert all_ == {SILENT}.union(*FIRES.values())
            began_again = ever("changes(ALERTS_FOR_STATE[1h]) > 0")
            assert began_again & all_ == {SILENT}
