"""Dashboards as Datadog's API takes them, and a Terraform module over them and the monitors. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from exporter.assets.datadog.monitors import monitor
from exporter.assets.datadog.queries import (
    KEYS,
    aggregator_of,
    key_of,
    query_text,
    scope_of,
    search_text,
    tag_of,
    terms_of,
)
from exporter.assets.model import (
    Alert,
    Bands,
    Chart,
    Dashboard,
    Events,
    Filter,
    Kind,
    Query,
    Wishes,
)
from exporter.convert.catalogue import GOAL_RATIO, RESOURCE_ATTRIBUTES

Json = dict[str, object]

_COLUMNS = 12
_HEIGHTS: dict[Kind, int] = {"text": 2, "number": 2, "lines": 3, "bars": 3, "top": 4, "table": 4, "events": 5}
_SHOWN: dict[Kind, Json] = {
    "lines": {"type": "timeseries", "show_legend": True, "legend_layout": "auto"},
    "bars": {"type": "timeseries", "show_legend": True, "legend_layout": "auto"},
    "number": {"type": "query_value", "autoscale": True, "precision": 2},
    "table": {"type": "query_table"},
    "top": {"type": "toplist"},
}
_DISPLAYS: dict[Kind, str] = {"lines": "line", "bars": "bars"}
_NOW = {"live_span": "4h"}  # the last value in it is the newest one; what is gone does not linger for weeks
_OPENS_WITH = {"type": "live", "unit": "week", "value": 2}  # Apple's numbers change once a day
_PALETTES = {"good": "white_on_green", "fair": "white_on_yellow", "poor": "white_on_red"}
_MOST_ROWS = 500  # of a table, as in Datadog's own examples; its documentation names no limit
# As text, so 7.9.0 comes before 7.40.0: Datadog knows no order of versions.
_BY_VERSION: Json = {"type": "group", "name": "version", "order": "desc"}
_UNITS: dict[str, Json] = {
    "s": {"type": "canonical_unit", "unit_name": "second"},
    "By": {"type": "canonical_unit", "unit_name": "byte"},
    "By/d": {"type": "canonical_unit", "unit_name": "byte", "per_unit_name": "day"},
    "%": {"type": "canonical_unit", "unit_name": "percent"},
    "1": {
        "type": "canonical_unit",
        "unit_name": "fraction",
    },  # 0.1 is shown as 10 % (integrations-core#15138)
    "s/h": {"type": "custom_unit_label", "label": "s/h"},  # Datadog refuses a time per time
    "{termination}/d": {"type": "custom_unit_label", "label": "a day"},
}
_TIMES: Json = {"type": "custom_unit_label", "label": "×"}
_NO_PERCENTILES = (
    "Here the average and the highest value: Datadog has percentiles only where they are switched on."
)
_SPELLED_OTHERWISE = (
    "Chosen by service, environment and version only: logs spell platform and device as Apple does."
)
_LOG_FIELDS = {"service.name": "service"}
_DISTRIBUTION_TAGS = sorted(
    {*RESOURCE_ATTRIBUTES, *KEYS.values()}
    | {"build", "device", "os_version", "percentile", "platform", "version"}
)


def files(dashboards: Sequence[Dashboard], alerts: Sequence[Alert], wishes: Wishes) -> dict[str, str]:
    """Everything for Datadog.

    Returns:
        path → text, by path. `dashboards/<id>.json` is the body of POST /api/v1/dashboard; where it has
        distributions, `dashboards/<id>.percentiles.json` is the same for whoever switched percentiles on.
        `alerts/<id>.json` is the body of POST /api/v1/monitor. `dashboards/main.tf.json` is a Terraform
        module over them; it expects the monitors in `../../alerts/datadog`.

    Raises:
        ConfigError: a wish that cannot be said in Datadog's language.
    """
    watched = [alert for alert in alerts if alert.about != "collector"]  # whose page is not in Datadog
    contents = {
        **{f"dashboards/{board.id}.json": _dashboard(board, wishes) for board in dashboards},
        **{
            f"dashboards/{board.id}.percentiles.json": _dashboard(board, wishes, percentiles=True)
            for board in dashboards
            if _distributions(board)
        },
        **{f"alerts/{alert.id}.json": monitor(alert, wishes) for alert in watched},
        "dashboards/main.tf.json": _module(dashboards, watched),
    }
    return {path: _text(content) for path, content in sorted(contents.items())}


def _text(content: Json) -> str:
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


# Dashboards


def _dashboard(board: Dashboard, wishes: Wishes, *, percentiles: bool = False) -> Json:
    groups: list[Json] = []
    top = 0
    for section in board.sections:
        charts = [chart for chart in section.charts if not chart.of_collector]
        widgets, height = _laid_out(charts, board.filters, percentiles)
        group = {
            "type": "group",
            "layout_type": "ordered",
            "title": section.title,
            "show_title": True,
            "widgets": widgets,
        }
        groups.append(_placed(group, 0, top, _COLUMNS, height + 1))  # one for the heading
        top += height + 1
    return {
        "title": board.title,
        "description": board.about,
        "layout_type": "ordered",
        "reflow_type": "fixed",
        "default_timeframe": _OPENS_WITH,
        "template_variables": [_variable(filter_, wishes) for filter_ in board.filters],
        "widgets": groups,
    }


def _variable(filter_: Filter, wishes: Wishes) -> Json:
    """Wishes are about apps: the exporter's own page, which has neither attribute, shows every account."""
    key = key_of(filter_.attribute)
    chosen = wishes.chosen.get(filter_.attribute, ())
    values = [tag_of(key, value).removeprefix(f"{key}:") for value in chosen]
    return {
        "name": filter_.label,
        "prefix": key,
        "available_values": values,
        "defaults": values or [filter_.default],
    }


def _laid_out(
    charts: Iterable[Chart], filters: tuple[Filter, ...], percentiles: bool
) -> tuple[list[Json], int]:
    """The widgets of a section, and how high they are together."""
    widgets: list[Json] = []
    top = 0
    for row in _rows(charts):
        height = max(_HEIGHTS[chart.kind] for chart in row)
        left = 0
        for chart in row:
            definition = _definition(chart, filters, percentiles)
            widgets.append(_placed(definition, left, top, chart.width, height))
            left += chart.width
        top += height
    return widgets, top


def _rows(charts: Iterable[Chart]) -> Iterator[list[Chart]]:
    """Left to right, as many as fit beside one another."""
    row: list[Chart] = []
    for chart in charts:
        if sum(other.width for other in row) + chart.width > _COLUMNS:
            yield row
            row = []
        row.append(chart)
    if row:
        yield row


def _placed(definition: Json, left: int, top: int, width: int, height: int) -> Json:
    return {"definition": definition, "layout": {"x": left, "y": top, "width": width, "height": height}}


def _definition(chart: Chart, filters: tuple[Filter, ...], percentiles: bool) -> Json:
    if chart.kind == "text":
        return {"type": "note", "content": f"**{chart.title}**\n\n{chart.about}"}
    applied = [filter_ for filter_ in filters if filter_.attribute not in chart.without]
    if chart.events is not None:
        return _list_stream(chart, chart.events, applied)
    about = chart.about
    if not percentiles and any(query.metric.instrument == "histogram" for query in chart.queries):
        about = f"{about} {_NO_PERCENTILES}"
    definition = {
        **_SHOWN[chart.kind],
        "title": chart.title,
        "description": about,
        "requests": [_request(chart, [f"${filter_.label}" for filter_ in applied], percentiles)],
    }
    return definition if chart.kind in _DISPLAYS else {**definition, "time": _NOW}


def _request(chart: Chart, variables: Sequence[str], percentiles: bool) -> Json:
    scalar = chart.kind not in _DISPLAYS
    queries: list[Json] = []
    formulas: list[Json] = []
    for number, query in enumerate(chart.queries, start=1):
        name = f"query{number}"
        text = query_text(query, scope_of(variables, terms_of(query.conditions)), percentiles=percentiles)
        source: Json = {"data_source": "metrics", "name": name, "query": text}
        queries.append({**source, "aggregator": "last"} if scalar else source)
        formulas.append(_formula(chart, query, name, percentiles))
    request: Json = {
        "response_format": "scalar" if scalar else "timeseries",
        "queries": queries,
        "formulas": formulas,
    }
    return request | _looks(chart)


def _looks(chart: Chart) -> Json:
    """What a request has by its kind of chart."""
    if chart.kind == "number":
        return {"conditional_formats": _colours(chart.queries[0].bands)}
    if chart.kind == "top":
        return {"sort": {"count": 10, "order_by": [_highest_of(0)]}}
    if chart.kind == "table":
        return {"sort": {"count": _MOST_ROWS, "order_by": _order(chart)}}
    return {"display_type": _DISPLAYS[chart.kind]}


def _order(chart: Chart) -> list[Json]:
    """What has a flag stands first, so that it is not cut off where there are many apps."""
    flags = [index for index, query in enumerate(chart.queries) if query.metric.is_flag]
    last = [index for index in (0,) if index not in flags]
    return [*map(_highest_of, flags), _BY_VERSION, *map(_highest_of, last)]


def _highest_of(index: int) -> Json:
    return {"type": "formula", "index": index, "order": "desc"}


def _formula(chart: Chart, query: Query, name: str, percentiles: bool) -> Json:
    formula: Json = {"formula": name}
    if label := _label(query, percentiles):
        formula["alias"] = label
    if unit := _unit(query):
        formula["number_format"] = {"unit": unit}
    if chart.kind == "table" and query.bands:
        formula["conditional_formats"] = _colours(query.bands)
    return formula


def _unit(query: Query) -> Json | None:
    """None if people read the number without one. How often the goal is no share, but times."""
    if query.metric.is_a(GOAL_RATIO):
        return _TIMES
    return _UNITS.get(query.metric.unit)


def _label(query: Query, percentiles: bool) -> str:
    if query.metric.instrument == "histogram" and not percentiles:
        return {"avg": "average", "max": "highest"}[aggregator_of(query, percentiles)]
    return query.label


def _colours(bands: Bands) -> list[Json]:
    """The first that applies counts, so the highest comes first."""
    return [
        {"comparator": ">=", "value": value, "palette": _PALETTES[name]} for value, name in reversed(bands)
    ]


def _list_stream(chart: Chart, events: Events, filters: Iterable[Filter]) -> Json:
    tags = [f"${filter_.label}" for filter_ in filters if filter_.attribute in KEYS]
    version = [f"@version:${filter_.label}.value" for filter_ in filters if filter_.attribute == "version"]
    columns = ["status_line", "timestamp", *(_LOG_FIELDS.get(key, f"@{key}") for key in events.columns)]
    query: Json = {
        "data_source": "logs_stream",
        "query_string": " ".join([search_text(events), *tags, *version]),
        "indexes": [],
    }
    return {
        "type": "list_stream",
        "title": chart.title,
        "description": f"{chart.about} {_SPELLED_OTHERWISE}",
        "requests": [
            {
                "response_format": "event_list",
                "query": query,
                "columns": [
                    *({"field": field, "width": "auto"} for field in columns),
                    {"field": "content", "width": "full"},
                ],
            }
        ],
    }


# Terraform


def _distributions(board: Dashboard) -> set[str]:
    queries = (query for section in board.sections for chart in section.charts for query in chart.queries)
    return {query.metric.name for query in queries if query.metric.instrument == "histogram"}


def _module(dashboards: Sequence[Dashboard], alerts: Iterable[Alert]) -> Json:
    resources: dict[str, Json] = {
        "datadog_dashboard_json": {
            board.id.replace("-", "_"): {"dashboard": _dashboard_file(board)} for board in dashboards
        },
        "datadog_monitor_json": {
            alert.id: {"monitor": f'${{file("${{path.module}}/../../alerts/datadog/{alert.id}.json")}}'}
            for alert in alerts
        },
        "datadog_metric_tag_configuration": {
            "percentiles": {
                "for_each": "${toset(var.percentiles ? local.distributions : [])}",
                "metric_name": "${each.value}",
                "metric_type": "distribution",
                "include_percentiles": True,
                "tags": _DISTRIBUTION_TAGS,
            }
        },
    }
    return {
        "terraform": {"required_providers": {"datadog": {"source": "DataDog/datadog", "version": "~> 4.0"}}},
        "variable": {
            "percentiles": {
                "type": "bool",
                "default": False,
                "description": (
                    "Switch percentiles of distributions on, and show them. Datadog then counts twice as many"
                    " custom metrics for them. Only after their first data has come."
                ),
            }
        },
        "locals": {"distributions": sorted(set[str]().union(*map(_distributions, dashboards)))},
        "resource": {kind: named for kind, named in resources.items() if named},
    }


def _dashboard_file(board: Dashboard) -> str:
    chosen = '${var.percentiles ? ".percentiles" : ""}' if _distributions(board) else ""
    return f'${{file("${{path.module}}/{board.id}{chosen}.json")}}'
