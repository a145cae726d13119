"""Dashboards of Splunk Observability and their charts, as arguments of Terraform's resources. Pure.

Events are in the Splunk platform, so a chart of events is a text with the search to paste there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any

from exporter.assets.model import (
    Bands,
    Chart,
    Dashboard,
    Events,
    Filter,
    Query,
    Section,
    Where,
    Wishes,
)
from exporter.assets.splunk import signalflow, spl
from exporter.assets.splunk.signalflow import Filters
from exporter.convert.catalogue import GOAL_RATIO

Resource = dict[str, Any]
"""The arguments of a resource, or of a block in one."""

GROUP = "app_store"
"""The name of the resource of the group that the dashboards are in."""
_COLUMNS = 12
_TIME_RANGE = "-7d"  # distributions come about once a day
_RANKED = 10

_HEIGHTS = {"lines": 1, "bars": 1, "number": 1, "table": 2, "top": 2, "events": 1, "text": 1}
_COLOURS = {"good": "green", "fair": "yellow", "poor": "red"}
_SHOWN: dict[str, Resource] = {
    "s": {"value_unit": "Second"},
    "By": {"value_unit": "Byte"},
    "By/d": {"value_unit": "Byte"},
    "%": {"value_suffix": " %"},
    "s/h": {"value_suffix": " s/h"},
    "{termination}/d": {"value_suffix": "/d"},
}
_AXES = {"By/d": "bytes per day", "s/h": "seconds per hour", "{termination}/d": "terminations per day"}
_TIMES: Resource = {"value_suffix": " ×"}
_BY_NAME: dict[tuple[str, str], tuple[str, str]] = {("device", "!all_*"): ("device_name", "!All *")}
"""What says the same of another dimension: a variable of a dashboard replaces every filter on its own."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An expression of Terraform's, where all other text is only text."""

    expression: str


def name_of(*titles: str) -> str:
    """The name of a resource: letters, digits and underscores."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", " ".join(titles))
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


def dashboard_of(dashboard: Dashboard, wishes: Wishes) -> Iterator[tuple[str, str, Resource]]:
    """The resources of a dashboard: its charts, then itself; kind, name and arguments of each.

    Raises:
        ConfigError: a wish cannot be part of a program; or that gets too long.
    """
    begins = _begins_with(dashboard.filters, wishes)
    places: list[Resource] = []
    row = 0
    for section in dashboard.sections:
        for chart, place in _placed(section, row):
            kind, arguments = _chart(chart, begins, wishes)
            name = name_of(dashboard.id, section.title, chart.title)
            titled = {"name": f"{section.title.rstrip('?')}: {chart.title}", **arguments}
            yield kind, name, titled
            places.append({"chart_id": Reference(f"{kind}.{name}.id"), **place})
        row = max(place["row"] + place["height"] for place in places)
    yield (
        "signalfx_dashboard",
        name_of(dashboard.id),
        {
            "name": dashboard.title,
            "description": dashboard.about,
            "dashboard_group": Reference(f"signalfx_dashboard_group.{GROUP}.id"),
            "time_range": _TIME_RANGE,
            "variable": [_variable(one, begins[one.attribute]) for one in dashboard.filters],
            "chart": places,
        },
    )


def _placed(section: Section, row: int) -> Iterator[tuple[Chart, Resource]]:
    """Where the charts of a section stand, from left to right; it begins a row of its own.

    Nothing brings here what the Collector says of itself.
    """
    column, lowest = 0, row
    for chart in (one for one in section.charts if not one.of_collector):
        if column + chart.width > _COLUMNS:
            column, row = 0, lowest
        height = _HEIGHTS[chart.kind]
        yield chart, {"row": row, "column": column, "width": chart.width, "height": height}
        column, lowest = column + chart.width, max(lowest, row + height)


def _begins_with(filters: Sequence[Filter], wishes: Wishes) -> dict[str, Sequence[str]]:
    """Attribute → the values that a dashboard shows at first.

    Wishes are about apps: the exporter's own page, which has neither attribute, shows every account.
    """
    return {one.attribute: wishes.chosen.get(one.attribute) or (one.default,) for one in filters}


def _variable(filter_: Filter, begins: Sequence[str]) -> Resource:
    values = [value for value in begins if value != "*"]
    return {
        "property": filter_.attribute,
        "alias": filter_.label,
        "values": values,
        "values_suggested": values,
        # Else it would apply to all charts, also those that compare what it chooses.
        "replace_only": True,
        "apply_if_exist": False,
    }


def _chart(chart: Chart, begins: Mapping[str, Sequence[str]], wishes: Wishes) -> tuple[str, Resource]:
    if chart.events is not None:
        return "signalfx_text_chart", {"markdown": _events(chart, chart.events, wishes)}
    if chart.kind == "text":
        return "signalfx_text_chart", {"markdown": chart.about}
    plots = list(zip(ascii_uppercase, chart.queries, strict=False))
    where: Filters = [(key, values) for key, values in begins.items() if key not in chart.without]
    untouched = begins.keys() & set(chart.without)
    kind, more = _drawn(chart)
    return kind, {
        "description": chart.about,
        "program_text": signalflow.bounded(
            "\n".join(_plot(chart, *plot, where, untouched) for plot in plots)
        ),
        "viz_options": [viz(label, query.label or chart.title, query) for label, query in plots],
        **more,
    }


def _plot(chart: Chart, label: str, query: Query, where: Filters, untouched: Set[str]) -> str:
    expression = signalflow.shown(replace(query, where=_kept(query.where, untouched)), where)
    ranked = f".top(count={_RANKED})" if chart.kind == "top" else ""
    return f"{label} = {expression}{ranked}.publish(label='{label}')"


def _kept(where: Where, untouched: Set[str]) -> Where:
    return tuple(_BY_NAME.get(one, one) if one[0] in untouched else one for one in where)


def viz(label: str, title: str, query: Query) -> Resource:
    """How a published stream of `signalflow.shown` is shown: its name, and its unit."""
    unit = _TIMES if query.metric.is_a(GOAL_RATIO) else _SHOWN.get(signalflow.unit_shown(query.metric), {})
    return {"label": label, "display_name": title, **unit}


def _drawn(chart: Chart) -> tuple[str, Resource]:
    """The resource that draws such a chart, with the arguments that are its own.

    The provider's tables have no colours by value.
    """
    by = chart.queries[0].by
    if chart.kind == "number":
        return "signalfx_single_value_chart", {"max_precision": 3, **_scale(chart.queries[0].bands)}
    if chart.kind == "table":
        return "signalfx_table_chart", {"group_by": list(by), "hide_timestamp": True}
    if chart.kind == "top":
        return "signalfx_list_chart", {
            "sort_by": "-value",
            "hide_missing_values": True,
            "max_precision": 3,
            "legend_options_fields": _legend("sf_metric", "sf_originatingMetric", chart),
            **_scale(chart.queries[0].bands),
        }
    return "signalfx_time_chart", _over_time(chart)


def _over_time(chart: Chart) -> Resource:
    first = chart.queries[0]
    bars = chart.kind == "bars"
    unit = _AXES.get(first.metric.unit)
    return {
        "plot_type": "ColumnChart" if bars else "LineChart",
        "axes_include_zero": bars,
        "stacked": bars and first.metric.instrument == "counter" and len(chart.queries) == 1,
        "on_chart_legend_dimension": _told_apart_by(chart),
        "legend_options_fields": _legend("plot_label", "metric", chart),
        **({"axis_left": [{"label": unit}]} if unit else {}),
    }


def _told_apart_by(chart: Chart) -> str:
    """What is written at the lines, which can be one thing only: of an app its versions are compared."""
    by = chart.queries[0].by
    if len(chart.queries) > 1 or not by:
        return "plot_label"
    return "version" if "version" in by else by[-1]


def _legend(label: str, metric: str, chart: Chart) -> list[Resource]:
    return [
        {"property": label, "enabled": len(chart.queries) > 1},
        {"property": metric, "enabled": False},
        *({"property": key, "enabled": True} for key in chart.queries[0].by),
    ]


def _scale(bands: Bands) -> Resource:
    if not bands:
        return {}
    ends = [value for value, _ in bands[1:]]
    scale = [
        {
            "color": _COLOURS[name],
            **({"gte": value} if index else {}),
            **({"lt": ends[index]} if index < len(ends) else {}),
        }
        for index, (value, name) in enumerate(bands)
    ]
    return {"color_by": "Scale", "color_scale": scale}


def _events(chart: Chart, events: Events, wishes: Wishes) -> str:
    shown = f"{spl.search(events, wishes.chosen.items())} | table _time, {', '.join(events.columns)}, _raw"
    return (
        f"{chart.about}\n\nEvents are in the Splunk platform, not here. Paste this into its search:\n\n"
        f"```\n{shown}\n```"
    )
