"""docs/backends.md says what arrives: its examples, numbers and queries are held against what did arrive.

The sandbox's first app is polled once, and what it owes goes through a real Collector to the stand-in of each
backend.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from exporter.convert import catalogue
from exporter.deliver import OLD_EVENT, SECOND, TOO_OLD, Deliverer
from exporter.otlp.http_sink import HttpSink
from exporter.otlp.sink import Outcome, Reply
from exporter.state import State
from tests.backends import page, queries
from tests.backends.datadog import (
    LARGEST_METRICS,
    LONGEST_TAG,
    OLDEST_POINT_SECONDS,
    OLDEST_RECORD_SECONDS,
    DatadogIntake,
    DatadogPoint,
    DatadogRecord,
)
from tests.backends.hec import COLLECTOR, HecCollector, HecRecord
from tests.backends.intake import Fault, Intake
from tests.backends.page import Heard, Series
from tests.backends.prometheus import Sample, read_samples
from tests.backends.splunk import MOST_BUCKETS, MOST_DIMENSIONS, SplunkIngest, SplunkPoint
from tests.collector.conftest import otelcol
from tests.collector.points import NOW, events, gauge, histogram, metrics
from tests.collector.running import REPOSITORY, Collector, configurations, run
from tests.service.service_world import Clock, World

__all__ = ["otelcol"]  # a fixture, asked for by its name

PAGE = (REPOSITORY / "docs" / "backends.md").read_text(encoding="utf-8")
EXAMPLES = page.examples(PAGE)
APP, NEWEST = "com.example.harbour", "7.40.0"
ONE = {"version": NEWEST, "device": "all_iphones", "percentile": "p90"}
EACH_UNIT = sorted(
    {metric.unit for metric in catalogue.APPLE_METRICS}
    | {metric.unit for metric in catalogue.DIAGNOSTIC_METRICS if metric.instrument == "histogram"}
    | {"ms/s"}
)
CONFIGURATIONS: dict[str, dict[str, object]] = {
    "as it comes": {},
    "`collect.detail: aggregate`": {"collect__detail": "aggregate"},
    "`collect.detail: full`, `limits.series_per_app: 20000`": {
        "collect__detail": "full",
        "limits__series_per_app": 20_000,
    },
    "`collect.devices: [all_iphones]`": {"collect__devices": "[all_iphones]"},
    "`collect.categories: [LAUNCH, HANG]`": {"collect__categories": "[LAUNCH, HANG]"},
    "`diagnostics.versions: 0`": {"diagnostics__versions": 0},
}
ANSWERS = {
    **{str(status): Fault(status=status) for status in (400, 401, 403, 404, 413, 429, 500, 502, 503, 504)},
    "no answer": Fault(close="before"),
}
KEY, SECRET = "made-up-key", "made-up-token"


class Harbour(World):
    """The exporter with the sandbox's first app, otherwise as it comes."""

    def __init__(self, folder: Path, **overrides: object) -> None:
        super().__init__(folder, None, **{"diagnostics__versions": 3, **overrides})
        self.day = 2.0

    def environ(self) -> dict[str, str]:
        return {**super().environ(), "ASC_APPS": APP}


@dataclass(frozen=True)
class Arrived:
    """What the backends have."""

    points: list[DatadogPoint]
    logs: list[DatadogRecord]
    datapoints: list[SplunkPoint]
    events: list[HecRecord]
    samples: list[Sample]


def datadog(backend: Intake) -> dict[str, str]:
    return {"DD_API_KEY": KEY, "DD_OTLP_ENDPOINT": backend.url}


def splunk(ingest: Intake, hec: Intake) -> dict[str, str]:
    return {
        "SPLUNK_ACCESS_TOKEN": KEY,
        "SPLUNK_INGEST_URL": ingest.url,
        "SPLUNK_API_URL": ingest.url,
        "SPLUNK_HEC_TOKEN": SECRET,
        "SPLUNK_HEC_URL": hec.url + COLLECTOR,
    }


@dataclass
class Backends:
    """The stand-ins, and a Collector before each of them."""

    otelcol: Path
    folder: Path
    datadog: DatadogIntake
    splunk: SplunkIngest
    hec: HecCollector

    def collector(self, overlay: str) -> Collector:
        """Not started yet."""
        environment = {"datadog": datadog(self.datadog), "signalfx": splunk(self.splunk, self.hec)}
        return Collector(self.otelcol, self.folder, overlay, environment=environment.get(overlay))

    def ask(self, overlay: str, sink: HttpSink, fault: Fault) -> list[Reply]:
        """Send metrics and events, both of which the overlay's backend answers so."""
        for backend in (self.datadog,) * 2 if overlay == "datadog" else (self.splunk, self.hec):
            backend.answer(fault)
        return [sink.send(body) for body in (metrics(gauge()), events("a hang"))]


@contextmanager
def stand_ins(otelcol: Path, folder: Path, clock: Clock) -> Iterator[Backends]:
    with (
        DatadogIntake(key=KEY, clock=clock) as intake,
        SplunkIngest(token=KEY, clock=clock) as ingest,
        HecCollector(token=SECRET, clock=clock) as hec,
    ):
        yield Backends(otelcol, folder, intake, ingest, hec)


def deliver(world: World, collector: Collector) -> None:
    """All that the exporter holds, from a copy of its state: each backend gets the same."""
    with closing(State(None, copy_of=world.path)) as state, closing(HttpSink(collector.metrics_url)) as sink:
        delivery = Deliverer(state, sink, clock=world.clock, sleep=world.clock.sleep, log=world.log).deliver()
    assert (delivery.outcome, delivery.owed) == ("ok", 0), delivery.problem


@pytest.fixture(scope="module")
def arrived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Arrived:
    program: Path = request.getfixturevalue("otelcol")
    folder = tmp_path_factory.mktemp("arrived")
    with Harbour(folder) as world, stand_ins(program, folder, world.clock) as backends:
        assert world.poll().outcome == "ok"
        for overlay in ("datadog", "signalfx"):
            with backends.collector(overlay) as collector:
                deliver(world, collector)
        with backends.collector("prometheus") as collector:
            deliver(world, collector)
            samples = read_samples(collector.page(collector.ports.scrape))
        assert not [*backends.datadog.refusals, *backends.splunk.refusals, *backends.hec.refusals]
        return Arrived(
            backends.datadog.points(),
            backends.datadog.records(),
            backends.splunk.points(),
            backends.hec.records(),
            samples,
        )


def in_datadog(arrived: Arrived, name: str) -> DatadogPoint:
    wanted = {f"{key}:{value}" for key, value in ONE.items()}
    (found,) = (point for point in arrived.points if point.name == name and wanted <= point.tags)
    return found


def in_splunk(arrived: Arrived, name: str) -> SplunkPoint:
    (found,) = (
        point
        for point in arrived.datapoints
        if point.name == name and ONE.items() <= point.dimensions.items()
    )
    return found


def in_prometheus(arrived: Arrived, name: str) -> list[Sample]:
    return [
        sample for sample in arrived.samples if sample.name == name and ONE.items() <= sample.labels.items()
    ]


def hang(arrived: Arrived) -> str:
    """The log that stands for all: the first hang of the newest version, by its id, that blames a line."""
    return min(
        str(log.attributes["appstore.diagnostic.log_id"])
        for log in arrived.logs
        if (log.attributes.get("diagnostic_type"), log.attributes["version"]) == ("HANGS", NEWEST)
        and "code.line.number" in log.attributes
    )


def test_a_gauge_looks_so_in_each_backend(arrived: Arrived) -> None:
    """One point, by its name, its value and each attribute, as each backend spells them."""
    (sample,) = in_prometheus(arrived, "appstore_launch_time_seconds")
    name = "appstore.launch.time"
    point = page.one_point(in_datadog(arrived, name), in_splunk(arrived, name), sample)
    assert EXAMPLES["one-point"] == point


def test_a_distribution_looks_so_in_each_backend(arrived: Arrived) -> None:
    """A distribution in Datadog, as integers of thousandths in Splunk, as buckets in Prometheus."""
    name = "appstore.launch.time.by_device"
    parts = [
        sample
        for part in ("bucket", "sum", "count")
        for sample in in_prometheus(arrived, f"appstore_launch_time_by_device_seconds_{part}")
    ]
    assert EXAMPLES["datadog-distribution"] == page.datadog_distribution(in_datadog(arrived, name))
    assert EXAMPLES["splunk-histogram"] == page.splunk_histogram(in_splunk(arrived, name))
    assert EXAMPLES["prometheus-histogram"] == page.scraped(parts)


def test_an_event_looks_so_in_each_backend(arrived: Arrived) -> None:
    """A diagnostic log, in Datadog's logs and in Splunk."""
    which = hang(arrived)
    (log,) = (log for log in arrived.logs if log.attributes.get("appstore.diagnostic.log_id") == which)
    (event,) = (event for event in arrived.events if event.fields.get("appstore.diagnostic.log_id") == which)
    assert EXAMPLES["datadog-log"] == page.datadog_log(log)
    assert EXAMPLES["splunk-event"] == page.hec_event(event, log.attributes)


def test_no_point_has_more_dimensions_than_the_page_says(arrived: Arrived) -> None:
    """How many dimensions a point has at the most, and how many names of dimensions there are."""
    most = max(len(point.dimensions) for point in arrived.datapoints)
    names = {key for point in arrived.datapoints for key in point.dimensions}
    names |= {"service.version", catalogue.OWN_ACCOUNTS}
    names |= {key for metric in catalogue.OWN_METRICS for key in metric.attributes}
    assert f"A point of ours has at most {most}, of {len(names)} names in all" in PAGE


def test_the_limits_are_those_that_the_stand_ins_hold() -> None:
    """What the page says of a limit is what was checked on each point and event, and what we do before it."""
    said = [
        f"{LARGEST_METRICS >> 10} KiB",
        f"{OLDEST_POINT_SECONDS // 3600} hour",
        f"{TOO_OLD // (60 * SECOND)} minutes",
        f"{OLDEST_RECORD_SECONDS // 3600} hours",
        f"{OLD_EVENT // (3600 * SECOND)} hours",
        f"{LONGEST_TAG} characters",
        f"{MOST_DIMENSIONS} dimensions",
        f"{MOST_BUCKETS} buckets",
    ]
    assert [words for words in said if words not in PAGE] == []


def finders(arrived: Arrived) -> dict[str, Callable[[str], bool]]:
    """Language → whether a query in it finds anything."""
    return {
        "datadog": lambda query: queries.datadog_finds(query, arrived.points),
        "datadog-logs": lambda query: queries.datadog_log_finds(query, arrived.logs),
        "signalflow": lambda query: queries.signalflow_finds(query, arrived.datapoints),
        "spl": lambda query: queries.spl_finds(query, arrived.events),
        "promql": lambda query: queries.promql_finds(query, arrived.samples),
    }


def test_each_query_finds_something(arrived: Arrived) -> None:
    """Each query and search on the page has a metric or an event of the right kind to show, and its tags."""
    for language, finds in finders(arrived).items():
        found = {query: finds(query) for query in page.queries(PAGE, language)}
        assert found, f"the page has no {language}"
        assert all(found.values()), found


@pytest.mark.parametrize(
    ("language", "query"),
    [
        ("datadog", "max:appstore.launch.times{*}"),
        ("datadog", "max:appstore.launch.time{device:iPhone14,2} by {version}"),
        ("datadog", "max:appstore.launch.time{device:all_iphones} by {os_version}"),
        ("datadog-logs", "@otel.event_name:appstore.insight @diagnostic_type:HANGS"),
        ("signalflow", "histogram('appstore.launch.time').percentile(pct=90)"),
        ("signalflow", "data('appstore.launch.time', filter=filter('device', 'all_iphone'))"),
        ("signalflow", "data('appstore.launch.time').max(by=['os_version'])"),
        ("spl", 'sourcetype="appstore:event" diagnostic_type::HANG'),
        ("promql", "appstore_launch_time_ms"),
        ("promql", 'appstore_launch_time_seconds{platform="ios"}'),
    ],
)
def test_a_wrong_query_finds_nothing(arrived: Arrived, language: str, query: str) -> None:
    """A name, value, kind or tag that does not exist would be noticed."""
    assert not finders(arrived)[language](query)


def test_each_name_exists(arrived: Arrived) -> None:
    """What the page calls by a name of ours is in the catalogue, or arrived."""
    fixed = (*catalogue.INSIGHT_METRICS, *catalogue.DIAGNOSTIC_METRICS, *catalogue.OWN_METRICS)
    kinds = (catalogue.INSIGHT_EVENT, catalogue.DIAGNOSTIC_EVENT)
    known = {metric.name for metric in fixed} | {kind.name for kind in kinds}
    known |= {key for kind in kinds for key in kind.attributes} | {*catalogue.RESOURCE_ATTRIBUTES}
    known |= {point.name for point in arrived.points} | {sample.name for sample in arrived.samples}
    known |= {label for sample in arrived.samples for label in sample.labels}
    assert page.names(PAGE) - known == set()


def test_each_configuration_costs_what_the_page_says(tmp_path: Path) -> None:
    """The series of the sandbox's first app, as a poll counts them."""
    series = {}
    for number, (name, overrides) in enumerate(CONFIGURATIONS.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Harbour(folder, **overrides) as world:
            report = world.poll()
            assert not report.capped, name
            series[name] = Series.of(report.series)
    assert EXAMPLES["series"] == page.costs(series)


def test_the_rule_of_thumb_holds(tmp_path: Path) -> None:
    """A metric makes as many series as the page's formula says, or a few less: Apple leaves margins out."""
    with Harbour(tmp_path, diagnostics__versions=0, collect__categories="[LAUNCH]") as world:
        by_metric = world.poll().series
    launch = {name: count for name, count in by_metric.items() if name.startswith("appstore.launch.")}
    found = Series.of(Counter(launch))
    shape = re.search(r"P = (\d+), V = (\d+), F = (\d+) and M = (\d+)", PAGE)
    assert shape
    percentiles, versions, families, models = map(int, shape.groups())
    assert "P · (4 · V · F + 5 · F + 2 · M) gauges and P · V · F distributions" in PAGE
    most = percentiles * (4 * versions * families + 5 * families + 2 * models)
    assert 0.95 * most < found.gauges <= most
    assert found.distributions == percentiles * versions * families


def test_histograms_have_these_units_in_splunk(otelcol: Path, tmp_path: Path) -> None:
    """Each unit that a histogram of ours may have, and what the Collector makes of it for Splunk."""
    names = {f"appstore.m{number}": unit for number, unit in enumerate(EACH_UNIT)}
    body = metrics(*(histogram(name, unit) for name, unit in names.items()))
    with (
        stand_ins(otelcol, tmp_path, Clock(NOW / 1e9)) as backends,
        backends.collector("signalfx") as running,
    ):
        with closing(HttpSink(running.metrics_url)) as sink:
            assert sink.send(body).outcome is Outcome.ACCEPTED
        arrived = {point.name: point for point in backends.splunk.points()}
    rows = [
        (f"`{unit}`", f"`{arrived[name].unit}`", f"{arrived[name].bounds[0] / 0.7:.0f}")
        for name, unit in names.items()
    ]
    assert EXAMPLES["splunk-units"] == page.table(("Unit as sent", "Unit in Splunk", "Times"), *rows)


def test_each_example_is_compared() -> None:
    """Nothing on the page is marked as checked that is not."""
    assert EXAMPLES.keys() == {
        *("one-point", "datadog-distribution", "datadog-log", "splunk-histogram", "splunk-event"),
        *("splunk-units", "prometheus-histogram", "series", "refusals", "wrong-key"),
    }
    assert PAGE.count("<!-- checked: ") == len(EXAMPLES)


def test_each_refusal_is_heard(otelcol: Path, tmp_path: Path) -> None:
    """What the exporter hears through the Collector, and so does, on each answer of a backend's."""
    heard: dict[str, dict[str, Heard]] = {name: {} for name in ANSWERS}
    with stand_ins(otelcol, tmp_path, Clock(NOW / 1e9)) as backends:
        for overlay, title in (("datadog", "Datadog"), ("signalfx", "Splunk, and its HEC")):
            with backends.collector(overlay) as collector, closing(HttpSink(collector.metrics_url)) as sink:
                for name, fault in ANSWERS.items():
                    replies = backends.ask(overlay, sink, fault)
                    (heard[name][title],) = {Heard.of(reply) for reply in replies}
    assert EXAMPLES["refusals"] == page.refusals(heard)


def test_a_request_that_was_taken_in_part_is_sent_again(otelcol: Path, tmp_path: Path) -> None:
    """The overlay cuts a large request; if one piece is refused, the exporter is told no to all of them."""
    body = metrics(gauge(*(f"{number:05}" * 20 for number in range(9_000))))
    with stand_ins(otelcol, tmp_path, Clock(NOW / 1e9)) as backends:
        backends.datadog.answer(Fault(status=503))
        with backends.collector("datadog") as collector, closing(HttpSink(collector.metrics_url)) as sink:
            outcomes = [sink.send(body).outcome for _ in range(2)]
        statuses = [request.status for request in backends.datadog.requests]
    assert outcomes == [Outcome.RETRY, Outcome.ACCEPTED]
    assert (statuses.count(503), statuses.count(200)) == (1, len(statuses) - 1)
    assert len(statuses) > 2
    assert "the pieces that were taken come again" in PAGE


def test_a_wrong_key_is_named(otelcol: Path, tmp_path: Path) -> None:
    """The words that reach the log and /readyz when a backend knows the key no longer."""
    said = []
    with stand_ins(otelcol, tmp_path, Clock(NOW / 1e9)) as backends:
        for overlay, status in (("datadog", 403), ("signalfx", 401)):
            with backends.collector(overlay) as collector, closing(HttpSink(collector.metrics_url)) as sink:
                said += [reply.message for reply in backends.ask(overlay, sink, Fault(status=status))]
        words = "\n".join(said).replace(backends.datadog.url, "https://otlp.datadoghq.eu")
    words = words.replace("the stand-in was told to fail", "…").replace("/v1/logs", "/v1/…")
    assert EXAMPLES["wrong-key"] == page.fenced(
        *dict.fromkeys(words.replace("/v1/metrics", "/v1/…").splitlines())
    )


def test_splunk_without_a_platform(otelcol: Path, tmp_path: Path) -> None:
    """With the page's two lines the Collector starts without a HEC; metrics flow, an event is kept back."""
    unused = page.assignments(PAGE)
    assert unused.keys() == {"SPLUNK_HEC_URL", "SPLUNK_HEC_TOKEN"}
    with stand_ins(otelcol, tmp_path, Clock(NOW / 1e9)) as backends:
        environment = splunk(backends.splunk, backends.hec) | unused
        with (
            Collector(otelcol, tmp_path, "signalfx", environment=environment) as collector,
            closing(HttpSink(collector.metrics_url)) as sink,
        ):
            outcomes = [sink.send(body).outcome for body in (metrics(gauge()), events("a hang"))]
        assert outcomes == [Outcome.ACCEPTED, Outcome.RETRY]
        assert len(backends.splunk.points()) == 1


def test_the_addresses_are_those_of_the_overlay(otelcol: Path) -> None:
    """Each site's address is what the overlay makes of DD_SITE."""
    rows = re.findall(r"^\| [A-Z0-9-]+ \| `([a-z0-9.-]+)` \| `(https://[a-z0-9.-]+)` \|", PAGE, re.M)
    assert len(rows) == 6
    for site, address in rows:
        environment = {"DD_API_KEY": KEY, "DD_SITE": site}
        done = run(otelcol, ["print-config"], configurations("datadog"), environment)
        assert yaml.safe_load(done.stdout)["exporters"]["otlp_http/datadog"]["endpoint"] == address
