"""What Datadog is to be given: its own client's models take it, and it names only what arrived there.

To accept a change of the output on purpose: `UPDATE_GOLDEN=1 pytest tests/assets`, then read the difference.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from datadog_api_client import Configuration
from datadog_api_client.model_utils import (
    ModelComposed,
    OpenApiModel,
    UnparsedObject,
    validate_and_convert_types,
)
from datadog_api_client.v1.model.dashboard import Dashboard as ClientDashboard
from datadog_api_client.v1.model.monitor import Monitor as ClientMonitor
from hypothesis import given
from hypothesis import strategies as st

from exporter.assets import datadog
from exporter.assets.alerts import Pace, alerts
from exporter.assets.dashboards import dashboards
from exporter.assets.model import (
    RUNBOOK,
    Alert,
    Chart,
    Dashboard,
    Query,
    Section,
    Series,
    Wishes,
    of_apple,
)
from exporter.assets.rendering import wanted
from exporter.convert.catalogue import APPLE_METRICS, DELTA, GOAL_RATIO, REGRESSED
from exporter.errors import ConfigError
from tests.assets import golden_files
from tests.assets.datadog_query import (
    MetricQuery,
    MonitorQuery,
    Term,
    check_formula,
    matches,
    read,
    read_monitor,
    read_top,
)
from tests.backends.datadog import DatadogPoint, DatadogRecord, tag
from tests.end_to_end.conftest import otelcol, over_datadog
from tests.end_to_end.course import Course

__all__ = ["otelcol", "over_datadog"]  # fixtures, asked for by their names

FILES = datadog.files(dashboards(), alerts(), Wishes())
BOARDS = sorted(path for path in FILES if path.startswith("dashboards/") and not path.endswith(".tf.json"))
MONITORS = sorted(path for path in FILES if path.startswith("alerts/"))
BY_ID = {alert.id: alert for alert in alerts() if alert.about != "collector"}
LONGEST_MESSAGE = 4000  # characters; as documented of events, and a notification is one
LONGEST_WINDOW = 31 * 24 * 60  # minutes
HOSTILE = (
    'a"b',
    "a} by {host",
    "a{{value}}",
    "$service",
    "a,env:x",
    "a\nb",
    "x) OR (y",
    "a AND b",
    "!a",
    "é¿☃",
)

# What Apple gives of some metrics only, and the metric of which the sandbox gives it.
OF_SOME = {
    **dict.fromkeys((".goal", ".goal_band", ".goal_ratio", ".poor"), "appstore.hang.rate"),
    ".breakdown": "appstore.battery.usage",
}


@pytest.fixture(scope="module")
def points(over_datadog: Course) -> dict[str, list[DatadogPoint]]:
    """What arrived, by metric."""
    found: dict[str, list[DatadogPoint]] = {}
    for point in over_datadog.backends.datadog.points():
        found.setdefault(point.name, []).append(point)
    failures = found["appstore.exporter.failures"]
    failures.append(
        replace(failures[0], tags=failures[0].tags - of_account(failures[0]) | {"reason:delivery"})
    )
    return found


def of_account(point: DatadogPoint) -> set[str]:
    """The tags that a failure of a delivery has not: no delivery fails in the course."""
    keys = ("account", "environment", "reason")
    return {text for text in point.tags if text.partition(":")[0] in keys}


@pytest.fixture(scope="module")
def records(over_datadog: Course) -> list[DatadogRecord]:
    """The logs that arrived."""
    return over_datadog.backends.datadog.records()


def content(path: str) -> Any:
    return json.loads(FILES[path])


def widgets(board: Any) -> Iterator[Any]:
    """The definitions of all charts of a dashboard."""
    for group in board["widgets"]:
        for widget in group["definition"]["widgets"]:
            yield widget["definition"]


def metric_queries(board: Any) -> Iterator[MetricQuery]:
    for definition in widgets(board):
        for request in definition.get("requests", ()):
            for query in request.get("queries", ()):
                yield read(query["query"])


def rendered(wishes: Wishes, alert: str = "HangRateRegressed") -> Any:
    return json.loads(datadog.files((), wanted([BY_ID[alert]], wishes), wishes)[f"alerts/{alert}.json"])


def condition(wishes: Wishes, alert: str = "HangRateRegressed") -> MonitorQuery:
    return read_monitor(rendered(wishes, alert)["query"])


# The form


def test_files_are_fit_to_be_written() -> None:
    """Paths begin with their kind and are sorted; texts are JSON with sorted keys and end with a newline."""
    assert list(FILES) == sorted(FILES)
    for path, text in FILES.items():
        assert re.fullmatch(r"(dashboards|alerts)/[A-Za-z][\w.-]*\.json", path)
        assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_all_is_there() -> None:
    """Each dashboard and each alert has its file, but for alerts on what the Collector says on its page."""
    assert {f"dashboards/{board.id}.json" for board in dashboards()} <= set(BOARDS)
    assert {f"alerts/{id_}.json" for id_ in BY_ID} == set(MONITORS)
    assert len(BY_ID) < len(alerts())


def test_the_page_of_the_collector_is_not_asked() -> None:
    """Nobody sends it to Datadog: its charts are left out, and what is said about it stays."""
    board = content("dashboards/exporter.json")
    assert not [query for query in metric_queries(board) if query.metric.startswith("otelcol_")]
    assert any(d["type"] == "note" and "otelcol_exporter_queue_size" in d["content"] for d in widgets(board))


def test_it_is_the_same_each_time() -> None:
    """The same descriptions make the same files, byte for byte."""
    assert datadog.files(dashboards(), alerts(), Wishes()) == FILES


@pytest.mark.parametrize("path", BOARDS)
def test_the_client_takes_each_dashboard(path: str) -> None:
    """The official client's models know every key and every value of a dashboard."""
    assert faults(content(path), ClientDashboard) == []


@pytest.mark.parametrize("path", MONITORS)
def test_the_client_takes_each_monitor(path: str) -> None:
    """The official client's models know every key and every value of a monitor."""
    assert faults(content(path), ClientMonitor) == []


def test_the_client_is_asked_strictly() -> None:
    """A key that the client does not know, or a value that it could not read, is seen wherever it stands."""
    board = content("dashboards/release-health.json")
    (request,) = board["widgets"][0]["definition"]["widgets"][2]["definition"]["requests"]
    request["formulas"][0]["colour"] = "red"
    assert faults(board, ClientDashboard) == ["colour"]
    request["formulas"][0]["conditional_formats"][0]["palette"] = "white_on_pink"
    assert "UnparsedObject" in faults(board, ClientDashboard)
    monitor = content("alerts/DataStale.json")
    monitor["options"] |= {"on_missing_data": "perhaps", "renotify": 0}
    assert {"OnMissingDataOption", "renotify"} <= set(faults(monitor, ClientMonitor))


def faults(data: Any, model: type[OpenApiModel]) -> list[str]:
    """Keys that the models of the client do not know, and the models that could not be read."""
    configuration = Configuration()  # type: ignore[no-untyped-call]
    return list(_faults(validate_and_convert_types(data, (model,), ["body"], True, True, configuration)))  # type: ignore[no-untyped-call]


def _faults(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _faults(item)
    elif isinstance(value, UnparsedObject):
        yield type(value).__name__
    elif isinstance(value, OpenApiModel):
        if isinstance(value, ModelComposed):
            for instance in value._composed_instances:
                yield from _faults(instance)
            return
        if value._unparsed:
            yield type(value).__name__
        for key, item in value._data_store.items():
            if key not in value.openapi_types:
                yield key
            yield from _faults(item)


@pytest.mark.parametrize("path", BOARDS)
def test_nothing_overlaps(path: str) -> None:
    """Groups stand below one another, and their charts beside one another within twelve columns."""
    groups = content(path)["widgets"]
    for group in groups:
        inner = group["definition"]["widgets"]
        _check_places([widget["layout"] for widget in inner])
        lowest = max(place["y"] + place["height"] for place in (widget["layout"] for widget in inner))
        assert group["layout"]["height"] == lowest + 1
    _check_places([group["layout"] for group in groups])


def test_a_section_without_charts_is_a_heading() -> None:
    """It takes the height of its heading, and what follows stands below it."""
    empty, full = Section("Empty", ()), Section("Full", (Chart("C", "text", "Something to read."),))
    board = Dashboard("one", "One", "One.", (), (empty, full))
    first, second = json.loads(datadog.files([board], [], Wishes())["dashboards/one.json"])["widgets"]
    assert (first["definition"]["widgets"], first["layout"]["height"], second["layout"]["y"]) == ([], 1, 1)


def _check_places(places: list[dict[str, int]]) -> None:
    taken: set[tuple[int, int]] = set()
    for place in places:
        assert 0 <= place["x"] < place["x"] + place["width"] <= 12
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["width"])
            for y in range(place["y"], place["y"] + place["height"])
        }
        assert cells, place
        assert not cells & taken, place
        taken |= cells


@pytest.mark.parametrize("path", BOARDS)
def test_each_chart_says_what_it_shows(path: str) -> None:
    """A chart has a title and a description, and a label on each query where there are several."""
    for definition in widgets(content(path)):
        if definition["type"] == "note":
            assert len(definition["content"]) > 40
            continue
        assert definition["title"]
        assert definition["description"].endswith(".")
        for request in definition["requests"]:
            formulas = request.get("formulas", [])
            assert [f["formula"] for f in formulas] == [q["name"] for q in request.get("queries", [])]
            aliases = [f.get("alias") for f in formulas]
            assert len(aliases) < 2 or len(set(aliases) - {None}) == len(aliases)


def shown(*queries: Query) -> list[Any]:
    """The formulas of a table with these columns."""
    board = Dashboard("one", "One", "One.", (), (Section("S", (Chart("C", "table", "A.", queries),)),))
    (definition,) = widgets(json.loads(datadog.files([board], [], Wishes())["dashboards/one.json"]))
    return list(definition["requests"][0]["formulas"])


@pytest.mark.parametrize(
    ("unit", "number_format"),
    [
        ("s", {"type": "canonical_unit", "unit_name": "second"}),
        ("By/d", {"type": "canonical_unit", "unit_name": "byte", "per_unit_name": "day"}),
        ("s/h", {"type": "custom_unit_label", "label": "s/h"}),
        ("1", {"type": "canonical_unit", "unit_name": "fraction"}),
        ("{flag}", None),
    ],
)
def test_numbers_have_their_unit(unit: str, number_format: object) -> None:
    """A number bears the metric's unit where it has one that people read."""
    (formula,) = shown(Query(Series("appstore.some.thing", unit)))
    assert formula.get("number_format") == (number_format and {"unit": number_format})


def test_a_column_has_its_own_unit_and_colours() -> None:
    """A change is percent, how often the goal is times; colours stand in the column that has bands only."""
    metric = APPLE_METRICS[0]
    change, goal, flag = shown(
        Query(of_apple(metric, DELTA)),
        Query(of_apple(metric, GOAL_RATIO)),
        Query(of_apple(metric, REGRESSED), bands=((0.0, "good"), (1.0, "poor"))),
    )
    assert change["number_format"]["unit"]["unit_name"] == "fraction"
    assert goal["number_format"]["unit"] == {"type": "custom_unit_label", "label": "×"}
    assert not {"conditional_formats"} & {*change, *goal}
    assert flag["conditional_formats"] == [
        {"comparator": ">=", "palette": "white_on_red", "value": 1},
        {"comparator": ">=", "palette": "white_on_green", "value": 0},
    ]


def test_a_table_begins_with_what_has_a_flag() -> None:
    """Rows with a flag come first, so that no number of apps cuts them off; then they are in the order of the
    version's text, and of one version of the first number; all columns have the same rows.
    """
    found = [d for path in BOARDS for d in widgets(content(path)) if d["type"] == "query_table"]
    assert found
    for definition in found:
        (request,) = definition["requests"]
        queries = [read(query["query"]) for query in request["queries"]]
        flags = [index for index, query in enumerate(queries) if query.metric.endswith(FLAGS)]
        order = [one.get("index", one.get("name")) for one in request["sort"]["order_by"]]
        assert order == [*flags, "version", *([] if 0 in flags else [0])]
        assert {one["order"] for one in request["sort"]["order_by"]} == {"desc"}
        assert request["sort"]["count"] == 500
        (rows,) = {query.by for query in queries}
        assert "version" in rows


FLAGS = (".regressed", ".signature.new")


def test_the_worst_colour_comes_first() -> None:
    """Datadog takes the first colour that applies, so the conditions stand from the highest down."""
    for path in BOARDS:
        for definition in widgets(content(path)):
            for request in definition.get("requests", ()):
                for part in (request, *request.get("formulas", ())):
                    values = [colour["value"] for colour in part.get("conditional_formats", ())]
                    assert values == sorted(values, reverse=True)


# What it names


@pytest.mark.parametrize("path", BOARDS)
def test_each_chart_shows_what_arrived(path: str, points: dict[str, list[DatadogPoint]]) -> None:
    """Each metric, tag and value that a chart names arrived, and each query has at least one series."""
    board = content(path)
    keys = {f"${variable['name']}": variable["prefix"] for variable in board["template_variables"]}
    for query in (as_arrived(each, points) for each in metric_queries(board)):
        check_against(query, points)
        there = tags_there(points[query.metric])
        assert {keys[variable] for variable in query.variables} <= there.keys(), query
        defaults = [
            Term(((variable["prefix"], value),))
            for variable in board["template_variables"]
            for value in variable["defaults"]
            if value != "*" and f"${variable['name']}" in query.variables
        ]
        chosen = replace(query, terms=(*query.terms, *defaults))
        assert chosen.selects(points[query.metric]), query


@pytest.mark.parametrize("path", MONITORS)
def test_each_monitor_watches_what_arrived(path: str, points: dict[str, list[DatadogPoint]]) -> None:
    """Each metric, tag and value that a monitor or its message names arrived, and has at least one series."""
    monitor = content(path)
    for each in (*read_monitor(monitor["query"]).queries, *pasted(monitor["message"])):
        query = as_arrived(each, points)
        check_against(query, points)
        assert query.selects(points[query.metric]), query


def pasted(message: str) -> list[MetricQuery]:
    """The queries that a message tells people to paste."""
    texts = re.findall(r"`((?:top\(|max:|avg:).*?)`", filled_in(message))
    formulas = [text for text in texts if ":" not in text]
    for formula in formulas:
        check_formula(formula)
    asked = [text for text in texts if text not in formulas]
    return [read_top(text) if text.startswith("top(") else read(text) for text in asked]


def filled_in(text: str) -> str:
    """With what every series has in place of what the notification knows: any version is also another."""
    return re.sub(r"\{\{[][\w.]+\.name\}\}", "*", text).replace("!version:*", "version:*")


def as_arrived(query: MetricQuery, points: dict[str, list[DatadogPoint]]) -> MetricQuery:
    """Of a metric of Apple's of which nobody gives a goal or a breakdown: the same of one that has it."""
    name, _, suffix = query.metric.rpartition(".")
    if query.metric in points or name not in {metric.name for metric in APPLE_METRICS}:
        return query
    return replace(query, metric=f"{OF_SOME[f'.{suffix}']}.{suffix}")


def test_no_query_mixes_single_builds_in(points: dict[str, list[DatadogPoint]]) -> None:
    """Apple's numbers of a single build have the metric's name; no chart, monitor or message takes them."""
    queries = [query for path in BOARDS for query in metric_queries(content(path))]
    queries += [query for path in MONITORS for query in read_monitor(content(path)["query"]).queries]
    queries += [query for path in MONITORS for query in pasted(content(path)["message"])]
    of_apple = [query for query in queries if query.metric.startswith(APPLES)]
    assert any(of_build(point) for query in of_apple for point in points.get(query.metric, ()))
    for query in of_apple:
        assert not any(map(of_build, query.selects(points.get(query.metric, ())))), query


APPLES = tuple(metric.name for metric in APPLE_METRICS)


def of_build(point: DatadogPoint) -> bool:
    return any(tag.startswith("build:") for tag in point.tags)


def check_against(query: MetricQuery, points: dict[str, list[DatadogPoint]]) -> None:
    assert query.metric in points, f"{query.metric} never arrived"
    there, kinds = tags_there(points[query.metric]), {point.kind for point in points[query.metric]}
    assert set(query.by) <= there.keys(), query
    assert kinds == {"count" if query.count else "distribution" if is_distribution(query) else "gauge"}, query
    pairs = [(pair, term.negated) for term in query.terms for pair in term.tags]
    for (key, value), negated in pairs:
        if negated and value == "*":
            continue  # what may not have the tag at all need not know it
        assert key in there, f"{query}: no tag {key}"
        assert any(matches(value, has) for has in there[key]), f"{query}: {key}:{value}"


def is_distribution(query: MetricQuery) -> bool:
    endings = (".by_device", ".disk_writes", ".hang_duration", ".launch_duration")
    return query.metric.endswith(endings)


def tags_there(found: list[DatadogPoint]) -> dict[str, set[str]]:
    there: dict[str, set[str]] = {}
    for point in found:
        for key, _, value in (text.partition(":") for text in point.tags):
            there.setdefault(key, set()).add(value)
    return there


@pytest.mark.parametrize("path", BOARDS)
def test_logs_are_looked_for_as_they_arrived(path: str, records: list[DatadogRecord]) -> None:
    """A search names an event that arrived, tags and attributes that it has, and so do its columns."""
    for definition in widgets(content(path)):
        for request in definition["requests"] if definition["type"] == "list_stream" else ():
            name, *terms = request["query"]["query_string"].split(" ")
            of_kind = [r for r in records if f"@otel.event_name:{r.event_name}" == name]
            assert of_kind, name
            assert terms == ["$service", "$environment", "@version:$version.value"]
            assert all(
                {"service", "env"} <= {text.partition(":")[0] for text in record.tags}
                and "version" in record.attributes
                for record in of_kind
            )
            attributes = {key for record in of_kind for key in record.attributes}
            fields = [column["field"] for column in request["columns"]]
            known = {"status_line", "timestamp", "content", "service", *(f"@{key}" for key in attributes)}
            assert set(fields) <= known
            assert len(set(fields)) == len(fields)


@pytest.mark.parametrize("alert", ["HighImpactRegression", "NewHeavyProblem"])
def test_a_message_finds_its_events(alert: str, records: list[DatadogRecord]) -> None:
    """Its search of logs has an event, and attributes and values, that arrived; and the group in the letters
    of logs, so nothing of Apple's own spelling.
    """
    (text,) = re.findall(r"into the log search: `(.*?)`", rendered(Wishes(), alert)["message"])
    name, *terms = filled_in(text).split(" ")
    pairs = [tuple(term.split(":", 1)) for term in terms]
    of_kind = [record for record in records if f"@otel.event_name:{record.event_name}" == name]
    found = [record for record in of_kind if all(bears(record, *pair) for pair in pairs)]
    assert found, text
    assert {key for key, _ in pairs} >= {"service", "env", "@version"}
    assert not {key for key, _ in pairs} & {"@platform", "@device", "@diagnostic_type", "@signature"}


def bears(record: DatadogRecord, key: str, value: str) -> bool:
    """Whether the record has the tag, or the attribute where there is an `@`, and its value."""
    if key.startswith("@"):
        has = record.attributes.get(key[1:])
        return has is not None and value in ("*", json.dumps(has).strip('"'))
    return any(text.partition(":")[0] == key for text in record.tags)


# Percentiles


def test_without_percentiles_nothing_is_empty() -> None:
    """As Datadog comes it has no percentiles of distributions, so the dashboards ask for none, and say so."""
    for board in dashboards():
        for definition in widgets(content(f"dashboards/{board.id}.json")):
            queries = [read(q["query"]) for r in definition.get("requests", ()) for q in r.get("queries", ())]
            assert all(query.how in ("avg", "max", "min", "sum") for query in queries)
            told = "percentiles only where they are switched on" in definition.get("description", "")
            assert told == any(map(is_distribution, queries))


def test_with_percentiles_only_distributions_differ() -> None:
    """Beside a dashboard with distributions stands the same one that asks for their percentiles."""
    variants = [path for path in BOARDS if path.endswith(".percentiles.json")]
    assert variants
    for path in variants:
        plain = list(metric_queries(content(path.replace(".percentiles", ""))))
        other = list(metric_queries(content(path)))
        for before, after in zip(plain, other, strict=True):
            assert replace(before, how="") == replace(after, how="")
            assert (before.how != after.how) == (after.how in ("p50", "p90")) == is_distribution(after)


# Monitors


@pytest.mark.parametrize("path", MONITORS)
def test_a_monitor_waits_and_ends_by_itself(path: str) -> None:
    """One point never fires: the least of the minutes counts, or the sum of what came now and then."""
    monitor, alert = content(path), BY_ID[Path(path).stem]
    query, options = read_monitor(monitor["query"]), monitor["options"]
    assert query.threshold == options["thresholds"]["critical"]
    assert query.threshold == pytest.approx(alert.threshold * query.factor)
    assert query.over == ("sum" if alert.window else {">=": "min", "<=": "max"}[alert.compare])
    assert max(alert.minutes, alert.missing or 0, alert.window or 0) == query.minutes <= LONGEST_WINDOW
    assert all(each.count == (alert.query.metric.instrument == "counter") for each in query.queries)
    assert query.over == "sum" or query.minutes >= 3 * 4 + 1  # three heartbeats
    assert options["require_full_window"] is False


@pytest.mark.parametrize("path", MONITORS)
def test_missing_data_says_what_it_means(path: str) -> None:
    """It notifies, once a day until it is mended, where the alert is about it; and else changes nothing."""
    options, alert = content(path)["options"], BY_ID[Path(path).stem]
    assert options["on_missing_data"] == ("show_and_notify_no_data" if alert.missing else "default")
    assert options["renotify_interval"] == (24 * 60 if alert.missing else 0)
    assert options.get("renotify_statuses") == (["alert", "no data"] if alert.missing else None)


@pytest.mark.parametrize("path", MONITORS)
def test_what_is_reckoned_waits_for_all_of_it(path: str) -> None:
    """Several metrics in one condition are looked at a minute late; one by itself at once."""
    several = len(read_monitor(content(path)["query"]).queries) > 1
    assert content(path)["options"].get("evaluation_delay") == (60 if several else None)


def test_one_group_has_no_option_of_groups() -> None:
    """Datadog refuses a delay of new groups where nothing is grouped."""
    for by in ((), ("account",)):
        alert = replace(BY_ID["OutboxNotEmptying"], query=replace(BY_ID["OutboxNotEmptying"].query, by=by))
        monitor = json.loads(datadog.files((), [alert], Wishes())["alerts/OutboxNotEmptying.json"])
        assert ("new_group_delay" in monitor["options"]) == bool(by)
        assert read_monitor(monitor["query"]).queries[0].by == by
        assert (" by {" in monitor["query"]) == bool(by)


@pytest.mark.parametrize(
    ("alert", "threshold", "factor", "told"),
    [
        ("DataStale", 13.0, 1 / 3600, "{{value}} h; it counts if it is {{threshold}} h or more."),
        ("KeyHourUsedUp", 10.0, 100, "{{value}} %; it counts if it is {{threshold}} % or less."),
        ("NewHeavyProblem", 50.0, 100, "{{value}} %; it counts if it is {{threshold}} % or more."),
        ("OutboxNotEmptying", 1.0, 1, "{{value}}; it counts if it is {{threshold}} or more."),
        ("HighImpactRegression", 1.0, 1, "{{value}} %.{{/is_alert}}"),
        ("PointsRejected", 1.0, 1, "{{value}} in the last 1h.{{/is_alert}}"),
        ("PollsFailing", 2.0, 1, "{{value}}; it counts if it is {{threshold}} or more."),
    ],
)
def test_numbers_are_told_in_units_that_people_read(
    alert: str, threshold: float, factor: float, told: str
) -> None:
    """Hours for what is long and percent for a share, in the condition as in the message; and the threshold
    where users can choose it.
    """
    monitor, query = rendered(Wishes(), alert), condition(Wishes(), alert)
    assert (query.threshold, query.factor) == (threshold, factor)
    assert f"The number is {told}" in monitor["message"]


@pytest.mark.parametrize("path", MONITORS)
def test_a_monitor_reckons_as_described(path: str) -> None:
    """What is watched is the metric, or it over the other one of the alert, each joined as it says."""
    query, alert = read_monitor(content(path)["query"]), BY_ID[Path(path).stem]
    told = [each for each in (alert.query, alert.over) if each is not None]
    assert [(q.metric, q.how) for q in query.queries] == [(t.metric.name, t.join) for t in told]


@pytest.mark.parametrize("path", MONITORS)
def test_a_monitor_tells_once_of_a_group(path: str) -> None:
    """Each group of the alert is judged, and told of, by itself."""
    monitor, alert = content(path), BY_ID[Path(path).stem]
    group = tuple(
        {"service.name": "service", "deployment.environment.name": "env"}.get(k, k) for k in alert.query.by
    )
    assert {query.by for query in read_monitor(monitor["query"]).queries} == {group}
    assert alert.about == "pipeline" or {"service", "env", "platform", "version"} <= set(group)


def test_models_are_ranked_by_their_change() -> None:
    """Of a regression the models are asked for by this version's value over the mean of the others', and by
    their name; the value is asked for in each version.
    """
    message = rendered(Wishes(), "LaunchTimeRegressed")["message"].replace("{{version.name}}", "this")
    _, values, this, others = pasted(message)
    assert {this.metric, others.metric, values.metric} == {"appstore.launch.time"}
    assert (this.how, others.how) == ("max", "avg")
    assert this.by == others.by == ("device", "device_name")
    chosen = [
        [all(term.holds({*ANY, f"version:{has}"}) for term in query.terms) for has in ("this", "other")]
        for query in (this, others)
    ]
    assert chosen == [[True, False], [False, True]]
    assert "as formula `top((a / b - 1) * 100, 10, 'last', 'desc')`" in message
    assert values.by == ("version", "device")
    assert Term((("device", "all_*"),)) in values.terms


ANY = {"service:*", "env:*", "platform:*", "device:iphone15_2"}


def test_new_problems_are_asked_for_by_their_weight() -> None:
    """What is not new has no part in the heaviest: the flag is multiplied with the weight, by signature."""
    message = rendered(Wishes(), "NewHeavyProblem")["message"]
    weight, new = pasted(message)
    assert replace(weight, metric=new.metric) == new
    assert (weight.metric, new.metric, new.by) == (
        "appstore.diagnostic.signature.weight",
        "appstore.diagnostic.signature.new",
        ("signature",),
    )
    assert "Heaviest of the new, 0 of the others" in message
    assert "as formula `top(a * b, 10, 'last', 'desc')`" in message


@pytest.mark.parametrize("path", MONITORS)
def test_a_message_says_what_to_do(path: str) -> None:
    """It has the numbers that say something, the meaning, what to do, where to look, and its chapter of the
    runbook; its blocks are closed; it names no tag that its notification does not know; and it is not cut.
    """
    monitor, alert = content(path), BY_ID[Path(path).stem]
    message, name = monitor["message"], monitor["name"]
    assert name.startswith("App Store: ")
    for text in (alert.title, alert.meaning, alert.first, alert.look, "under `App Store:`"):
        assert text in message
    assert ("{{value}}" in message) == (alert.query.metric.unit != "{flag}")
    assert ("{{threshold}}" in message) == (alert.highest is not None)
    assert f"{RUNBOOK}#{alert.id.lower()}\n" in message
    opened = re.findall(r"\{\{[#^](\w+)\}\}", message)
    assert sorted(opened) == sorted(re.findall(r"\{\{/(\w+)\}\}", message))
    assert ("is_no_data" in opened) == (alert.missing is not None)
    known = set(read_monitor(monitor["query"]).queries[0].by)
    named = re.findall(r"\{\{(?:\[(\w+\.[\w.]+)\]|(\w+))\.name\}\}", message + name)
    assert {dotted or plain for dotted, plain in named} == known
    assert not re.search(r"\{\{\{|\}\}\}", message + name)
    assert len(message) <= LONGEST_MESSAGE


def test_severities_are_priorities() -> None:
    """P1 is critical, P3 a warning, P5 information."""
    assert {(a.severity, content(f"alerts/{a.id}.json")["priority"]) for a in BY_ID.values()} == {
        ("critical", 1),
        ("warning", 3),
        ("info", 5),
    }


BEAT = 4
Beats = list[tuple[int, float]]  # minute, value


def beats(*values: float, start: int = 0) -> Beats:
    """A value at each heartbeat."""
    return [(start + BEAT * place, value) for place, value in enumerate(values)]


def states(monitor: Any, series: Beats, end: int) -> list[bool]:
    """Whether it fires, each minute: of one group, by Datadog's documented rules. A new group is looked at
    after the delay. Without data in the window it stays as it was until the group is forgotten.
    """
    query, options = read_monitor(monitor["query"]), monitor["options"]
    firing, result = False, []
    for now in range(series[0][0] + options["new_group_delay"] // 60, end):
        values = [value for minute, value in series if now - query.minutes < minute <= now]
        last = max(minute for minute, _ in series if minute <= now)
        if values:
            least = {"min": min, "max": max}[query.over](values)
            firing = least >= query.threshold if query.compare == ">=" else least <= query.threshold
        elif now - last >= FORGOTTEN:
            firing = False
        result.append(firing)
    return result


FORGOTTEN = 24 * 60  # minutes of a group without data


def changes(found: list[bool]) -> int:
    return sum(before != after for before, after in pairwise([False, *found]))


@pytest.mark.parametrize(
    ("series", "times"),
    [
        (beats(*[0.0] * 30, *[1.0] * 60, *[0.0] * 30), 2),
        (beats(*[0.0] * 90), 0),
        (beats(*[0.0] * 30, 1.0, *[0.0] * 60), 0),
        (beats(*[0.0] * 30, *[1.0] * 20) + beats(*[1.0] * 20, start=50 * BEAT + 3), 1),
        (beats(*[0.0] * 30, *[1.0] * 20) + beats(*[1.0] * 20, start=50 * BEAT + 45), 1),
        (beats(*[1.0] * 30, *[0.0] * 30), 2),
    ],
    ids=[
        "fires and ends",
        "healthy",
        "one point",
        "a late heartbeat",
        "a restart that takes long",
        "known bad",
    ],
)
@pytest.mark.parametrize("alert", ["HangRateRegressed", "HangRatePoor", "CredentialsRefused"])
def test_a_flag_is_told_once(alert: str, series: Beats, times: int) -> None:
    """It fires once and ends by data; a late heartbeat, a gap or a single point changes nothing."""
    monitor = rendered(Wishes(), alert)
    assert changes(states(monitor, series, series[-1][0] + 1)) == times


@pytest.mark.parametrize(
    ("series", "silent", "times"),
    [
        (beats(*[1.0] * 30), 20 * 60, 1),
        (beats(*[1.0] * 30), 30 * 60, 2),
        (beats(*[1.0] * 30) + beats(*[1.0] * 30, start=20 * 60), 0, 1),
        (beats(*[1.0] * 30) + beats(*[1.0] * 30, start=40 * 60), 0, 3),
    ],
    ids=["silence", "silence for more than a day", "a long gap", "a gap of more than a day"],
)
def test_a_flag_outlasts_a_day_without_data(series: Beats, silent: int, times: int) -> None:
    """No data is no news, but after a day Datadog forgets the group, and would tell it again."""
    assert changes(states(rendered(Wishes()), series, series[-1][0] + silent + 1)) == times


@pytest.mark.parametrize("heartbeat", [1.0, 240.0, 3600.0])
def test_no_heartbeat_is_too_slow(heartbeat: float) -> None:
    """Whatever the schedule, a gauge is looked at over three heartbeats, and missed after more."""
    for alert in alerts(Pace(heartbeat=heartbeat)):
        if alert.about == "collector":
            continue
        monitor = json.loads(datadog.files((), [alert], Wishes())[f"alerts/{alert.id}.json"])
        query = read_monitor(monitor["query"])
        beats_seen = query.minutes * 60 / heartbeat
        assert query.over == "sum" or beats_seen > 3
        assert monitor["options"]["on_missing_data"] == "default" or beats_seen >= 6


# Wishes


def test_chosen_apps_are_watched_and_shown() -> None:
    """Services and environments are in the filter of each alert about an app, and chosen in the dashboards;
    the exporter itself is watched whatever they are.
    """
    wishes = Wishes(services=("com.example.Harbour", "Tide Pool"), environments=("production",))
    found = datadog.files(dashboards(), alerts(), wishes)
    services = Term((("service", "com.example.harbour"), ("service", "tide_pool")))
    for alert in BY_ID.values():
        query = read_monitor(json.loads(found[f"alerts/{alert.id}.json"])["query"])
        for each in query.queries:
            wanted = (services, Term((("env", "production"),))) if alert.about == "app" else ()
            assert each.terms[: len(wanted)] == wanted
            assert bool(wanted) or not {"service", "env"} & {key for t in each.terms for key, _ in t.tags}
    variables = json.loads(found["dashboards/release-health.json"])["template_variables"]
    chosen = {
        variable["name"]: (variable["defaults"], variable["available_values"]) for variable in variables
    }
    assert chosen["service"] == (["com.example.harbour", "tide_pool"],) * 2
    assert chosen["environment"] == (["production"],) * 2
    assert chosen["device"] == (["all_*"], [])
    assert found["dashboards/exporter.json"] == FILES["dashboards/exporter.json"]


def test_a_filter_in_words_says_the_same() -> None:
    """With several services the filter is written with AND and NOT, and otherwise has the same parts."""
    plain, several = condition(Wishes()).queries[0], condition(Wishes(services=("a", "b"))).queries[0]
    assert several.terms[1:] == plain.terms
    assert any(term.negated for term in plain.terms)


@given(st.text(min_size=1))
def test_any_service_is_one_part_of_the_filter(name: str) -> None:
    """A name becomes the tag that Datadog makes of it, or is refused; the query is otherwise the same."""
    plain = condition(Wishes())
    try:
        found = condition(Wishes(services=(name,)))
    except ConfigError:
        assert "*" in name or tag("service", name) in ("service:", "service")
        return
    assert tuple(f"{key}:{value}" for key, value in found.queries[0].terms[0].tags) == (tag("service", name),)
    assert replace(found, queries=()) == replace(plain, queries=())
    assert replace(found.queries[0], terms=found.queries[0].terms[1:]) == plain.queries[0]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_change_no_query(name: str) -> None:
    """Quotes, braces, newlines, variables, commas and operators in a name stay a name, in every file."""
    wishes = Wishes(services=(name, "b"), environments=(name,))
    found = datadog.files(dashboards(), alerts(), wishes)
    for path, text in found.items():
        if path in BOARDS:
            before, after = (list(metric_queries(json.loads(each[path]))) for each in (FILES, found))
            assert before == after
            chosen = json.loads(text)["template_variables"][0]["defaults"]
            assert all(re.fullmatch(r"[\w:./-]+|\*", value) for value in chosen)
        elif path in MONITORS:
            before_, after_ = read_monitor(content(path)["query"]), read_monitor(json.loads(text)["query"])
            assert [replace(q, terms=()) for q in before_.queries] == [
                replace(q, terms=()) for q in after_.queries
            ]
            assert content(path)["message"] == json.loads(text)["message"]


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        (Wishes(services=("",)), "'' names no service"),
        (Wishes(services=("com.example.*",)), "Write the whole name"),
        (Wishes(environments=("☃",)), "'☃' names no env"),
        (Wishes(notify=("slack-mobile",)), "'slack-mobile' is nobody"),
        (Wishes(notify=("@a}} {{#is_alert}}",)), "is nobody whom Datadog could notify"),
        (Wishes(notify=("@a @b",)), "is nobody"),
        (Wishes(notify=("@a\n",)), "is nobody"),
        (Wishes(notify=("",)), "is nobody"),
        (Wishes(runbook="javascript:alert(1)"), "is no address"),
        (Wishes(runbook="https://example.com/@everybody"), "is no address"),
        (Wishes(runbook="https://example.com/ {{value}}"), "is no address"),
    ],
)
def test_what_cannot_be_said_is_refused(wishes: Wishes, says: str) -> None:
    """A wish that Datadog's language cannot say is an error that names it and says what to write instead."""
    with pytest.raises(ConfigError) as refused:
        rendered(wishes)
    assert says in str(refused.value)
    assert refused.value.remedy


def test_who_is_told() -> None:
    """Handles stand at the end, outside of the blocks, so that they hear of the end as well."""
    handles = ("@slack-mobile-team", "@team@example.com", "@pagerduty-Mobile")
    message = rendered(Wishes(notify=handles))["message"]
    assert message.endswith("{{/is_recovery}}\n\n@slack-mobile-team @team@example.com @pagerduty-Mobile")
    assert "@" not in rendered(Wishes())["message"]


def test_information_tells_nobody() -> None:
    """An alert that is only information bears no handle; a handle that is none is an error all the same."""
    assert "@" not in rendered(Wishes(notify=("@slack-mobile",)), "HangRatePoor")["message"]
    with pytest.raises(ConfigError):
        rendered(Wishes(notify=("slack-mobile",)), "HangRatePoor")


@pytest.mark.parametrize(
    ("value", "written"),
    [(2, "2"), (0.25, "0.25"), (1e-07, "0.0000001"), (1e16, "1" + "0" * 16), (-1.5, "-1.5")],
)
def test_a_threshold_can_be_chosen(value: float, written: str) -> None:
    """It stands in the query in plain digits, and is the same in the options."""
    monitor = rendered(Wishes(thresholds={"OutboxNotEmptying": value}), "OutboxNotEmptying")
    assert monitor["query"].endswith(f" >= {written}")
    assert monitor["options"]["thresholds"] == {"critical": value}


@pytest.mark.parametrize(
    ("alert", "value", "written"),
    [("KeyHourUsedUp", 0.07, "7"), ("NewHeavyProblem", 0.3, "30"), ("DataStale", 5400.0, "1.5")],
)
def test_a_threshold_is_chosen_in_the_unit_of_the_configuration(
    alert: str, value: float, written: str
) -> None:
    """A share and seconds are written there; here they become percent and hours, to the last digit."""
    monitor = rendered(Wishes(thresholds={alert: value}), alert)
    assert monitor["query"].endswith(f"= {written}")
    assert monitor["options"]["thresholds"] == {"critical": float(written)}


def test_what_is_off_is_not_there() -> None:
    """An alert that is not wanted has neither a file nor a resource; the others are as before."""
    wishes = Wishes(off=("DataStale",))
    found = datadog.files(dashboards(), wanted(alerts(), wishes), wishes)
    assert FILES.keys() - found.keys() == {"alerts/DataStale.json"}
    assert "DataStale" not in found["dashboards/main.tf.json"]


def test_a_runbook_of_ones_own() -> None:
    """Each message links to its chapter there."""
    message = rendered(Wishes(runbook="https://wiki.example.com/mobile?page=alerts"))["message"]
    assert "https://wiki.example.com/mobile?page=alerts#hangrateregressed\n" in message


@pytest.mark.parametrize(
    ("minutes", "window"), [(15, "15m"), (60, "1h"), (780, "13h"), (1440, "1d"), (90, "90m")]
)
def test_windows_are_in_the_largest_unit(minutes: int, window: str) -> None:
    """Minutes are written as Datadog's own pages write them."""
    alert: Alert = replace(BY_ID["HangRateRegressed"], minutes=minutes)
    monitor = json.loads(datadog.files((), [alert], Wishes())["alerts/HangRateRegressed.json"])
    assert monitor["query"].startswith(f"min(last_{window}):")


# Terraform


def test_the_module_has_each_file_once() -> None:
    """Each dashboard and monitor is a resource that reads its own file, where `assets` puts it."""
    module = content("dashboards/main.tf.json")
    places: list[str] = []
    for kind, argument, folder in (
        ("datadog_dashboard_json", "dashboard", "dashboards/datadog"),
        ("datadog_monitor_json", "monitor", "alerts/datadog"),
    ):
        for name, resource in module["resource"][kind].items():
            assert re.fullmatch(r"[A-Za-z]\w*", name)
            assert resource.keys() == {argument}
            found = re.fullmatch(r'\$\{file\("\$\{path\.module\}/(.+)\.json"\)\}', resource[argument])
            assert found, resource
            for file in sorted({found[1].replace(CHOSEN, ""), found[1].replace(CHOSEN, ".percentiles")}):
                place = os.path.normpath(f"dashboards/datadog/{file}.json")
                assert place.startswith(f"{folder}/")
                places.append(place.replace("/datadog/", "/"))
    assert sorted(places) == sorted([*BOARDS, *MONITORS])


CHOSEN = '${var.percentiles ? ".percentiles" : ""}'


def test_percentiles_are_off_unless_asked_for() -> None:
    """They cost money: a variable that is false switches them on, for the distributions that are shown."""
    module = content("dashboards/main.tf.json")
    assert module["variable"]["percentiles"]["default"] is False
    resource = module["resource"]["datadog_metric_tag_configuration"]["percentiles"]
    assert resource["for_each"] == "${toset(var.percentiles ? local.distributions : [])}"
    shown = {q.metric for path in BOARDS for q in metric_queries(content(path)) if is_distribution(q)}
    assert module["locals"]["distributions"] == sorted(shown)


def test_percentiles_cost_no_tag(points: dict[str, list[DatadogPoint]]) -> None:
    """The list of tags is one of those that stay: each that a distribution arrived with is in it."""
    module = content("dashboards/main.tf.json")
    allowed = set(module["resource"]["datadog_metric_tag_configuration"]["percentiles"]["tags"])
    for name in module["locals"]["distributions"]:
        assert tags_there(points[name]).keys() <= allowed, name


# Golden files


@pytest.mark.parametrize("path", ["dashboards/diagnostics.json", "alerts/HangRateRegressed.json"])
def test_the_output_is_as_it_was(path: str) -> None:
    """A dashboard and a monitor are, whole, what stands in the golden files."""
    golden_files.check(f"datadog/{Path(path).name}", FILES[path])


def test_golden_files_are_not_written_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody reads the difference, `UPDATE_GOLDEN` is an error, and nothing is written."""
    monkeypatch.setenv("UPDATE_GOLDEN", "1")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(AssertionError, match="nobody reads"):
        golden_files.check("datadog/none.json", "")
    assert not (Path(golden_files.__file__).parent / "golden" / "datadog" / "none.json").exists()
