"""The dashboards for Grafana: what Grafana's own models keep, and the rules of its dashboard linter.

That their queries find data is in `test_assets_on_prometheus`. To accept a change of the golden file on
purpose: `UPDATE_GOLDEN=1 pytest tests/assets`, then read the difference.
"""

from __future__ import annotations

import json
import os
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
from exporter.assets.model import SERVICE, Chart, Wishes, of_apple
from exporter.convert.catalogue import APPLE_METRICS, COMPANIONS, VALUE
from exporter.errors import ConfigError
from tests.assets.promql_series import asked, of_a_build
from tests.assets.test_assets_prometheus import HOSTILE
from tests.container.tools import REPOSITORY

GOLDEN = Path(__file__).parent / "golden" / "grafana"
PROVISIONING = "dashboards/provisioning.yaml"
# @grafana/data knows more; these are those that we use.
UNITS = {"s", "decbytes", "percent", "percentunit", "short", "suffix: ×"}
OF_APPLE = {of_apple(metric, one).name for metric in APPLE_METRICS for one in (VALUE, *COMPANIONS)}
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


def test_each_chart_is_drawn_as_its_kind() -> None:
    """A panel's type, width and colours are those of its chart; what is shown now is asked for once."""
    types = {"lines": "timeseries", "bars": "timeseries", "number": "stat", "table": "table", "top": "table"}
    for chart, panel in described():
        assert panel["type"] == types.get(chart.kind, "text")
        assert panel["gridPos"]["w"] == 2 * chart.width
        if panel["type"] == "text":
            continue
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert [step["value"] for step in steps] == [None, *(value for value, _ in chart.bands)]
        assert {target["range"] for target in panel["targets"]} == {chart.kind in ("lines", "bars")}
        if panel["type"] == "table":
            renamed = panel["transformations"][1]["options"]["renameByName"]
            assert list(renamed.values()) == [query.label or query.metric.name for query in chart.queries]
        if chart.kind == "top":
            assert all(target["expr"].startswith("topk(10, ") for target in panel["targets"])
            assert panel["options"]["sortBy"][0]["desc"]


def test_where_there_are_no_events_a_panel_says_where_they_are() -> None:
    """Prometheus keeps no events: the panel names the event and what it bears."""
    shown = [(chart, panel) for chart, panel in described() if chart.events]
    assert shown
    for chart, panel in shown:
        assert chart.events
        for name in (chart.events.name, *chart.events.columns):
            assert f"`{name}`" in panel["options"]["content"]


def test_changes_are_percent_and_goals_times() -> None:
    """A change of 0.598 is shown as 59.8 %, and a value of 1.2 times the goal as such."""
    units = {
        query.metric.name.rpartition(".")[2]: panel["fieldConfig"]["defaults"]["unit"]
        for chart, panel in described()
        for query in chart.queries
    }
    assert (units["delta"], units["goal_ratio"]) == ("percentunit", "suffix: ×")


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


def test_a_dashboard_begins_with_its_filters() -> None:
    """A filter's default is chosen at first: a family of devices, else all."""
    for dashboard in dashboards():
        variables = {one["name"]: one for one in boards()[dashboard.id]["templating"]["list"]}
        for one in dashboard.filters:
            chosen = variables[one.label]["current"]
            assert chosen["value"] == ("$__all" if one.default == "*" else one.default)


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
    golden = GOLDEN / "diagnostics.json"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")
