"""The dashboards for Grafana: what Grafana's own models keep, and the rules of its dashboard linter.

That their queries find data is in `test_assets_on_prometheus`. To accept a change of the golden file on
purpose: `UPDATE_GOLDEN=1 pytest tests/assets`, then read the difference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard as GrafanaDashboard

from exporter.assets import grafana
from exporter.assets.alerts import alerts
from exporter.assets.dashboards import dashboards
from exporter.assets.model import SERVICE, Chart, Filter, Query, Wishes, of_apple
from exporter.convert.catalogue import APPLE_METRICS, COMPANIONS, DELTA, GOAL_RATIO, VALUE
from exporter.errors import ConfigError
from tests.assets import golden_files
from tests.assets.promql_series import asked, of_a_build
from tests.assets.test_assets_prometheus import HOSTILE
from tests.container.tools import REPOSITORY

PROVISIONING = "dashboards/provisioning.yaml"
# @grafana/data knows more; these are those that we use.
UNITS = {"s", "decbytes", "percent", "percentunit", "short", "suffix: ×"}
OF_APPLE = {of_apple(metric, one).name for metric in APPLE_METRICS for one in (VALUE, *COMPANIONS)}
NAMED = {"good": "green", "fair": "yellow", "poor": "red"}
Json = dict[str, Any]


def written(wishes: Wishes | None = None) -> dict[str, str]:
    return grafana.files(dashboards(), alerts(), wishes or Wishes())


def boards(wishes: Wishes | None = None) -> dict[str, Json]:
    """The dashboards by their ids."""
    files = written(wishes)
    return {Path(path).stem: json.loads(text) for path, text in files.items() if path.endswith(".json")}


BOARDS = pytest.mark.parametrize("board", boards().values(), ids=boards().keys())


def panels(board: Json) -> Iterator[Json]:
    """All panels, those of closed rows included, without the rows."""
    for panel in board["panels"]:
        yield from panel["panels"] if panel["type"] == "row" else [panel]


def described() -> Iterator[tuple[Chart, Json]]:
    """Each chart beside the panel that was made of it."""
    for dashboard in dashboards():
        charts = (chart for section in dashboard.sections for chart in section.charts)
        yield from zip(charts, panels(boards()[dashboard.id]), strict=True)


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """What a round trip did not bring back."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            text for key in before for text in lost(before[key], after.get(key, "nothing"), f"{path}/{key}")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            text
            for place, (one, other) in enumerate(zip(before, after, strict=True))
            for text in lost(one, other, f"{path}/{place}")
        ]
    return [] if before == after else [f"{path}: {before} → {after}"]


@BOARDS
def test_grafanas_models_keep_everything(board: Json) -> None:
    """Read by Grafana's foundation SDK and written again, nothing is missing or other than before."""
    plugins.register_default_plugins()
    again = json.loads(JSONEncoder().encode(GrafanaDashboard.from_json(json.loads(json.dumps(board)))))
    assert lost(board, again) == []


@BOARDS
def test_a_key_that_grafana_does_not_know_would_be_noticed(board: Json) -> None:
    """The round trip loses what Grafana has no place for."""
    plugins.register_default_plugins()
    wrong = json.loads(json.dumps(board))
    next(panel for panel in panels(wrong) if "options" in panel)["colour"] = "green"
    again = json.loads(JSONEncoder().encode(GrafanaDashboard.from_json(json.loads(json.dumps(wrong)))))
    assert [text for text in lost(wrong, again) if "/colour" in text]


@BOARDS
def test_a_dashboard_keeps_the_linters_rules(board: Json) -> None:
    """Data source as a variable, values asked for anew, not editable, a uid that stays."""
    source, *others = board["templating"]["list"]
    assert (source["name"], source["label"], source["type"]) == ("datasource", "Data source", "datasource")
    assert source["query"] == "prometheus"
    for variable in others:
        assert variable["datasource"]["uid"] == "${datasource}"
        assert variable["refresh"] == 2
        assert variable["multi"]
        assert variable["includeAll"]
        assert variable["allValue"]
    assert board["editable"] is False
    assert board["schemaVersion"] == 42
    assert re.fullmatch(r"app-store-[a-z-]{1,30}", board["uid"])
    assert "id" not in board
    assert board["title"]
    assert board["description"]


@BOARDS
def test_a_panel_keeps_the_linters_rules(board: Json) -> None:
    """Each has title, description and unit; its queries have the source, are whole, and are told apart."""
    for panel in panels(board):
        assert panel["title"]
        assert panel["description"]
        if panel["type"] == "text":
            assert panel["options"]["content"]
            continue
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        references = [target["refId"] for target in panel["targets"]]
        assert references == list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(references)])
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert target["instant"] is not target["range"]
            assert "rate(" not in target["expr"]  # which finds nothing in what comes once a day


@BOARDS
def test_only_variables_that_exist_are_used(board: Json) -> None:
    """Each `$name` of a query is a variable of the dashboard or Grafana's own; none is for nothing."""
    names = {variable["name"] for variable in board["templating"]["list"]} - {"datasource"}
    queries = [target["expr"] for panel in panels(board) for target in panel.get("targets", ())]
    used = {name for text in queries for name in re.findall(r"\$(\w+)", text)}
    assert used - {"__interval"} == names


def test_filters_narrow_each_query() -> None:
    """Each chart heeds all filters of its dashboard, but for those that it says do not apply."""
    for dashboard in dashboards():
        charts = [chart for section in dashboard.sections for chart in section.charts]
        for chart, panel in zip(charts, panels(boards()[dashboard.id]), strict=True):
            wanted = {one.label for one in dashboard.filters if one.attribute not in chart.without}
            for target in panel.get("targets", ()):
                assert set(re.findall(r'=~"\$(\w+)"', target["expr"])) == wanted, chart.title


def columns(chart: Chart, panel: Json) -> Iterator[tuple[Query, Json]]:
    """Each query of a table beside what is said of its column: property → value."""
    for query, override in zip(chart.queries, panel["fieldConfig"]["overrides"], strict=True):
        properties = {one["id"]: one["value"] for one in override["properties"]}
        assert override["matcher"]["id"] == "byName"
        yield query, {**properties, "title": override["matcher"]["options"]}


def colours(thresholds: Json) -> list[tuple[float | None, str]]:
    return [(step["value"], step["color"]) for step in thresholds["steps"]]


def test_each_chart_is_drawn_as_its_kind() -> None:
    """A panel's type and width are those of its chart; what is shown now is asked for once."""
    types = {"lines": "timeseries", "bars": "timeseries", "number": "stat", "table": "table", "top": "table"}
    for chart, panel in described():
        assert panel["type"] == types.get(chart.kind, "text")
        assert panel["gridPos"]["w"] == 2 * chart.width
        if panel["type"] == "text":
            continue
        assert {target["range"] for target in panel["targets"]} == {chart.kind in ("lines", "bars")}
        if chart.kind == "top":
            assert all(target["expr"].startswith("topk(10, ") for target in panel["targets"])


def test_a_table_has_a_row_for_each_group_and_a_column_for_each_query() -> None:
    """All is merged by what it is grouped by, which comes first, and each column has a title of its own."""
    tables = [(chart, panel) for chart, panel in described() if panel["type"] == "table"]
    assert len(tables) > 20
    for chart, panel in tables:
        assert len({query.by for query in chart.queries}) == 1  # else there would be more than a row a group
        merge, organize = panel["transformations"]
        assert merge["id"] == "merge"
        labels = [name.replace(".", "_") for name in chart.queries[0].by]
        titles = [column["title"] for _, column in columns(chart, panel)]
        assert len(set(titles)) == len(titles)
        assert list(organize["options"]["renameByName"].values()) == titles
        order = sorted(organize["options"]["indexByName"].items(), key=lambda one: one[1])
        assert [name for name, _ in order] == [*labels, *organize["options"]["renameByName"]]
        for title, query in zip(titles, chart.queries, strict=True):
            assert title.startswith(query.label)


def test_the_newest_version_stands_first() -> None:
    """A table begins with the newest version, and there with the highest; a `top` with the highest."""
    for chart, panel in described():
        if panel["type"] == "table":
            by = [one["displayName"] for one in panel["options"]["sortBy"]]
            (_, first), *_ = columns(chart, panel)
            assert by == [*(["version"] if chart.kind == "table" else []), first["title"]]
            assert all(one["desc"] for one in panel["options"]["sortBy"])


def test_a_column_has_its_own_colours_or_none() -> None:
    """A cell is coloured where its column has bands, from the bound on; without a value it is plain."""
    seen = set()
    for chart, panel in described():
        defaults = panel.get("fieldConfig", {}).get("defaults", {}).get("thresholds")
        if chart.kind == "number":
            assert colours(defaults)[1:] == [(bound, NAMED[name]) for bound, name in chart.queries[0].bands]
        elif defaults:
            assert colours(defaults) == [(None, "transparent")]
        for query, column in columns(chart, panel) if panel["type"] == "table" else ():
            seen.add(bool(query.bands))
            if not query.bands:
                assert column.keys() == {"title", "unit"}
                continue
            assert column["custom.cellOptions"] == {"type": "color-background"}
            bands = [(bound, NAMED[name]) for bound, name in query.bands]
            assert colours(column["thresholds"]) == [(None, "transparent"), *bands]
    assert seen == {True, False}


def test_a_legend_begins_with_what_tells_most() -> None:
    """What is measured, the version and the device come before what all lines have in common."""
    legends = {
        (chart.title, target["refId"]): target["legendFormat"]
        for chart, panel in described()
        if panel["type"] == "timeseries"
        for target in panel["targets"]
    }
    assert legends["By version", "A"] == "{{version}} {{device}} {{platform}} {{service_name}}"
    assert legends["Age of the data", "A"] == "{{app}} {{environment}} {{account}}"
    assert legends["Queue", "B"] == "fits {{exporter}} {{data_type}} {{instance}}"
    assert legends["Points", "A"] == "sent"


def test_what_the_collector_says_of_itself_is_drawn() -> None:
    """Its queue and what it could not send have no app, no account and no environment to be chosen by."""
    charts = [(chart, panel) for chart, panel in described() if chart.of_collector]
    assert len(charts) == 2
    for _, panel in charts:
        for target in panel["targets"]:
            assert "otelcol_exporter_" in target["expr"]
            assert "{" not in target["expr"]


def test_where_there_are_no_events_a_panel_says_where_they_are() -> None:
    """Prometheus keeps no events: the panel names the event and what it bears."""
    shown = [(chart, panel) for chart, panel in described() if chart.events]
    assert shown
    for chart, panel in shown:
        assert chart.events
        for name in (chart.events.name, *chart.events.columns):
            assert f"`{name}`" in panel["options"]["content"]


def test_each_column_has_its_own_unit() -> None:
    """In a row: a value in its unit, a change of 0.598 as 59.8 %, the goal as 1.2 ×, a flag as a number."""
    for metric, unit, header in (
        ("appstore.launch.time", "s", "value"),
        ("appstore.disk.writes", "decbytes", "value per day"),
    ):
        (panel,) = (
            panel
            for chart, panel in described()
            if chart.title.startswith("Against") and chart.queries[0].metric.name == metric
        )
        shown = {
            override["matcher"]["options"]: override["properties"][0]["value"]
            for override in panel["fieldConfig"]["overrides"]
        }
        margin = header.replace("value", "error margin")
        assert shown == {
            header: unit,
            margin: unit,
            "change": "percentunit",
            "regressed": "short",
            header.replace("value", "goal"): unit,
            "over the goal": "suffix: ×",
            "band": "short",
        }


def test_a_unit_is_the_metrics_everywhere() -> None:
    """Changes are percent and goals times in whatever panel they stand."""
    for chart, panel in described():
        for query, column in columns(chart, panel) if panel["type"] == "table" else ():
            if query.metric.name.endswith(f".{DELTA.suffix}") and query.metric.unit == "1":
                assert column["unit"] == "percentunit"
            if query.metric.name.endswith(f".{GOAL_RATIO.suffix}"):
                assert column["unit"] == "suffix: ×"
            if query.metric.unit == "%":
                assert column["unit"] == "percent"


def test_no_chart_mixes_single_builds_in() -> None:
    """Where the metrics of a version are there for each build as well, no chart shows those."""
    expressions = [
        (query, target["expr"].replace("$__interval", "1h"))
        for chart, panel in described()
        for query, target in zip(chart.queries, panel.get("targets", ()), strict=True)
    ]
    of_a_version = [text for query, text in expressions if query.metric.name in OF_APPLE]
    assert len(of_a_version) > 50
    assert not any(of_a_build(one) for text in of_a_version for one in asked(text))


@BOARDS
def test_panels_lie_beside_one_another(board: Json) -> None:
    """No two overlap, none is wider than the page, and each has an id of its own."""
    rows = [panel for panel in board["panels"] if panel["type"] == "row"]
    everything = [*rows, *panels(board)]
    assert len({panel["id"] for panel in everything}) == len(everything)
    groups = [list(board["panels"]), *(row["panels"] for row in rows if row["collapsed"])]
    for group in groups:
        places = [panel["gridPos"] for panel in group]
        assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
        for one, other in combinations(places, 2):
            beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            assert beside or above


def test_many_sections_begin_closed() -> None:
    """A dashboard with a section for each metric opens with the first two; the others load when opened."""
    for board in boards().values():
        closed = [panel["collapsed"] for panel in board["panels"] if panel["type"] == "row"]
        assert closed == [place >= 2 and len(closed) > 5 for place in range(len(closed))]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_is_taken_as_it_is(text: str) -> None:
    """Whatever a service is called, "all" of the filter is that service, and no query is another one."""
    plain, wished = boards(), boards(Wishes(services=(text,), environments=(text,)))
    for name, board in wished.items():
        variables = {variable["name"]: variable for variable in board["templating"]["list"]}
        if "service" not in variables:
            continue
        all_of_it = variables["service"]["allValue"]
        assert not re.search(r'[$"\[{](?!\d|[0-9a-f]+\})', all_of_it.replace(r"\x{", "")), all_of_it
        (one,) = asked(f'm{{service_name=~"{all_of_it}"}}')
        (matcher,) = one.matchers
        python = re.sub(r"\\x\{([0-9a-f]+)\}", lambda of: re.escape(chr(int(of[1], 16))), matcher.value)
        assert re.fullmatch(python, text)
        assert not re.fullmatch(python, f"{text}!")
        assert not re.fullmatch(python, "anything else")
        for variable in variables.values():
            if variable["type"] == "query":
                selector = variable["query"]["query"].removeprefix("label_values(").rpartition(", ")[0]
                assert len(asked(re.sub(r'"\$\w+"', '".*"', selector))) == 1
        assert [panel.get("targets") for panel in panels(board)] == [
            panel.get("targets") for panel in panels(plain[name])
        ]


@pytest.mark.parametrize("bad", ["", "\ud800", "com.example.*"])
def test_what_no_label_can_hold_is_refused(bad: str) -> None:
    """The error names the setting."""
    with pytest.raises(ConfigError, match=r"alerts\.services"):
        written(Wishes(services=(bad,)))


def test_two_services_are_a_choice() -> None:
    """The filter offers those that are wished for, and "all" is those."""
    for board in boards(Wishes(services=("com.example.a", "com.example.b"))).values():
        for variable in board["templating"]["list"]:
            if variable["name"] == "service":
                assert variable["allValue"] == r"com\\.example\\.a|com\\.example\\.b"
                query = (
                    r'label_values({appstore_app_id!="", service_name=~"com\\.example\\.a|com\\.example\\.b"}'
                )
                assert variable["query"]["query"] == f"{query}, service_name)"


def variables_of(board: Json) -> dict[str, Json]:
    return {variable["name"]: variable for variable in board["templating"]["list"]}


def test_a_dashboard_begins_with_its_filters() -> None:
    """At first all are chosen that a filter's default takes: of a pattern those that fit it, else any."""
    begins = {}
    for dashboard in dashboards():
        variables = variables_of(boards()[dashboard.id])
        for one in dashboard.filters:
            begins[one.default] = variables[one.label]
            assert variables[one.label]["current"]["value"] == "$__all"
            assert variables[one.label]["current"]["text"] == "All"
    assert begins.keys() == {"*", "all_*"}
    assert begins["*"]["allValue"] == ".*"
    assert "description" not in begins["*"]
    assert "begins with all_" in begins["all_*"]["description"]


def test_all_devices_are_all_families() -> None:
    """Where families are compared, "all" is each of them and no model, of whatever platform an app is."""
    devices = variables_of(boards()["release-health"])["device"]
    (one,) = asked(f'm{{device=~"{devices["allValue"]}"}}')
    (matcher,) = one.matchers
    for family in ("all_iphones", "all_ipads", "all_macs", "all_watches"):
        assert re.fullmatch(matcher.value, family)
    for other in ("iPhone14,2", "", "overall_x"):
        assert not re.fullmatch(matcher.value, other)
    assert variables_of(boards()["diagnostics"])["device"]["allValue"] == ".*"


def test_a_filter_may_begin_with_one_value() -> None:
    """A default that is no pattern is that value, and "all" is any."""
    board = replace(dashboards()[0], filters=(Filter(SERVICE, "service", "com.example.a"),))
    (text, _) = grafana.files([board], alerts(), Wishes()).values()
    chosen = variables_of(json.loads(text))["service"]
    assert chosen["current"] == {"selected": True, "text": "com.example.a", "value": "com.example.a"}
    assert chosen["allValue"] == ".*"


def test_a_wish_for_apps_does_not_hide_the_exporter() -> None:
    """The exporter has a service and an environment of its own: its page offers all there are."""
    wishes = Wishes(services=("com.example.a",), environments=("staging",))
    assert boards(wishes)["exporter"] == boards()["exporter"]
    others = variables_of(boards(wishes)["release-health"])
    assert others["environment"]["allValue"] == "staging"
    assert 'deployment_environment_name=~"staging"' in others["version"]["query"]["query"]


def test_a_dashboard_without_services_has_no_variable_for_them() -> None:
    """What is about the exporter is asked for by its own filters alone."""
    (own,) = (one for one in dashboards() if all(of.attribute != SERVICE for of in one.filters))
    assert "$service" not in json.dumps(boards()[own.id])
    without = replace(own, filters=())
    (text, _) = grafana.files([without], alerts(), Wishes()).values()
    assert [one["name"] for one in json.loads(text)["templating"]["list"]] == ["datasource"]


def test_compose_puts_everything_where_it_is_looked_for() -> None:
    """Grafana finds provisioning and dashboards, Prometheus its rules; all are among the generated files."""
    services = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    provisioning = yaml.safe_load(written()[PROVISIONING])
    (provider,) = provisioning["providers"]
    assert provisioning["apiVersion"] == 1
    assert provider["type"] == "file"
    dashboards_at = f"./dashboards/grafana:{provider['options']['path']}:ro"
    told_at = "./dashboards/grafana/provisioning.yaml:/etc/grafana/provisioning/dashboards/app-store.yaml:ro"
    assert {dashboards_at, told_at} <= set(services["grafana"]["volumes"])
    configuration = yaml.safe_load((REPOSITORY / "config" / "local" / "prometheus.yml").read_text())
    (mount,) = (one for one in services["prometheus"]["volumes"] if one.startswith("./alerts/"))
    source, target, _ = mount.split(":")
    assert source == "./alerts/prometheus/rules.yml"
    assert any(PurePosixPath(target).match(pattern) for pattern in configuration["rule_files"])
    assert all(
        job.get("honor_labels") for job in configuration["scrape_configs"] if job["job_name"] == "appstore"
    )


def test_files_are_the_same_each_time() -> None:
    """Two runs differ in nothing, keys are in order, and each file ends with one line end."""
    first = written()
    assert first == written()
    assert len(first) == len(dashboards()) + 1
    for path, text in first.items():
        assert re.search(r"[^\n]\n\Z", text)
        if path.endswith(".json"):
            assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_this_file_is_as_it_was() -> None:
    """A dashboard is as the golden file spells it out."""
    text = written()["dashboards/diagnostics.json"]
    golden_files.check("grafana/diagnostics.json", text)
