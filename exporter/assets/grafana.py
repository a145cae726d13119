"""Dashboards of Grafana on the metrics in Prometheus, and the file that provisions them. Pure.

Classic JSON, which every Grafana imports. The data source is a variable, as `__inputs` is not resolved when
dashboards come from files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.assets.model import (
    SERVICE,
    Alert,
    Bands,
    Chart,
    Dashboard,
    Filter,
    Kind,
    Query,
    Section,
    Wishes,
)
from exporter.assets.prometheus.promql import added, any_of, label, now, quoted, spread, wished
from exporter.convert.catalogue import GOAL_RATIO

SCHEMA = 42
FOLDER = "App Store"
PATH = "/etc/grafana/dashboards"
"""Where docker-compose.yml puts the dashboards; whoever installs them elsewhere changes it."""

_Json = dict[str, Any]

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_ALL = "$__all"
_BAR = "1h"  # what comes now and then is shown by the hour, or longer where the range is long
_BRIDGED = 900_000  # ms: a line goes on over a late heartbeat
_MOST_OPEN, _OPEN = 5, 2  # of more sections than five, those behind the second begin closed
_HEIGHTS = {"text": 4, "number": 4, "events": 4, "lines": 8, "bars": 8, "table": 8, "top": 10}
_TYPES = {
    "text": "text",
    "number": "stat",
    "events": "text",
    "lines": "timeseries",
    "bars": "timeseries",
    "table": "table",
    "top": "table",
}
_UNITS = {"s": "s", "By": "decbytes", "%": "percent", "1": "percentunit"}
_TIMES = "suffix: ×"
_PER = {"h": "per hour", "d": "per day", "s": "per second"}
_COLOURS = {"good": "green", "fair": "yellow", "poor": "red"}
_LAST_IN_A_LEGEND = ("platform", SERVICE, "environment", "account", "instance")  # what most have in common


def files(dashboards: Sequence[Dashboard], alerts: Sequence[Alert], wishes: Wishes) -> dict[str, str]:
    """Path → text: a file for each dashboard, and the one that tells Grafana of them.

    Args:
        alerts: not needed; they are Prometheus' (`exporter.assets.prometheus`), and Grafana shows them.

    Raises:
        ConfigError: a wish that cannot be said in PromQL.
    """
    del alerts
    written = {f"dashboards/{one.id}.json": _dashboard(one, wishes) for one in dashboards}
    texts = {
        path: json.dumps(one, indent=2, sort_keys=True, ensure_ascii=False) for path, one in written.items()
    }
    return {path: f"{text}\n" for path, text in texts.items()} | {
        "dashboards/provisioning.yaml": _PROVISIONING
    }


_PROVISIONING = f"""\
# For /etc/grafana/provisioning/dashboards; the dashboards themselves lie in the folder that `path` names.
apiVersion: 1

providers:
  - name: app-store
    folder: {FOLDER}
    type: file
    disableDeletion: true
    allowUiUpdates: false
    options:
      path: {PATH}
"""


def _dashboard(dashboard: Dashboard, wishes: Wishes) -> _Json:
    return {
        "annotations": {"list": []},
        "description": dashboard.about,
        "editable": False,
        "graphTooltip": 1,  # the crosshair in all panels
        "links": [_to_the_others()],
        "panels": list(_Page(dashboard).panels()),
        "refresh": "5m",
        "schemaVersion": SCHEMA,
        "tags": ["app-store"],
        "templating": {"list": list(_variables(dashboard, wishes))},
        "time": {"from": "now-7d", "to": "now"},
        "timezone": "browser",
        "title": dashboard.title,
        "uid": f"app-store-{dashboard.id}",
    }


def _to_the_others() -> _Json:
    return {
        "asDropdown": True,
        "icon": "external link",
        "includeVars": True,
        "keepTime": True,
        "tags": ["app-store"],
        "targetBlank": False,
        "title": "App Store",
        "tooltip": "The other dashboards about the App Store",
        "type": "dashboards",
        "url": "",
    }


def _variables(dashboard: Dashboard, wishes: Wishes) -> Iterator[_Json]:
    """The data source, and one for each filter; those behind the service offer what its apps have."""
    yield {"label": "Data source", "name": "datasource", "query": "prometheus", "type": "datasource"}
    about_apps = any(one.attribute == SERVICE for one in dashboard.filters)
    chosen = wished(wishes) if about_apps else {}  # the exporter's own service and environments are others
    kind = 'appstore_app_id!=""' if about_apps else '__name__=~"appstore_exporter_.+"'
    for one in dashboard.filters:
        narrower = [f"{label(name)}=~{quoted(regex)}" for name, regex in chosen.items()]
        if about_apps and one.attribute != SERVICE:
            narrower.append(f'{label(SERVICE)}=~"${_service(dashboard)}"')
        query = f"label_values({{{', '.join([kind, *narrower])}}}, {label(one.attribute)})"
        yield {
            **_beginning(one, chosen.get(one.attribute, ".*")),
            "datasource": _SOURCE,
            "includeAll": True,
            "label": one.label.capitalize(),
            "multi": True,
            "name": one.label,
            "query": {"query": query, "refId": one.label},
            "refresh": 2,  # when the time range changes
            "sort": 8,  # natural, the newest version first
            "type": "query",
        }


def _beginning(one: Filter, wanted: str) -> _Json:
    """What is chosen at first, and what "All" is.

    Of a pattern "All" is what fits it: Grafana takes nothing else for a value that is not on its list, and
    escapes whatever is on it (grafana/scenes, `MultiValueVariable`).

    Args:
        wanted: the regular expression of all values that are wished for.
    """
    pattern, prefix = one.default.endswith("*"), one.default.removesuffix("*")
    begins = {"selected": True, "text": "All" if pattern else prefix, "value": _ALL if pattern else prefix}
    if not (pattern and prefix):
        return {"allValue": quoted(wanted)[1:-1], "current": begins}
    return {
        "allValue": quoted(f"{any_of([prefix], one.attribute)}.*")[1:-1],
        "current": begins,
        "description": f"All: whatever begins with {prefix}. The others can be chosen one by one.",
    }


def _service(dashboard: Dashboard) -> str:
    return next(one.label for one in dashboard.filters if one.attribute == SERVICE)


@dataclass
class _Page:
    """Lays the panels of a dashboard out: from left to right, each section under its heading."""

    dashboard: Dashboard
    next_id: int = 1
    y: int = 0

    def panels(self) -> Iterator[_Json]:
        """All, those of closed sections within their heading."""
        closed_from = _OPEN if len(self.dashboard.sections) > _MOST_OPEN else len(self.dashboard.sections)
        for place, section in enumerate(self.dashboard.sections):
            row = self._row(section, collapsed=place >= closed_from)
            inside = list(self._laid_out(section.charts))
            yield {**row, "panels": inside if row["collapsed"] else []}
            if row["collapsed"]:
                self.y = row["gridPos"]["y"] + 1
            else:
                yield from inside

    def _row(self, section: Section, *, collapsed: bool) -> _Json:
        row = {
            "collapsed": collapsed,
            "gridPos": {"h": 1, "w": 24, "x": 0, "y": self.y},
            "id": self._id(),
            "title": section.title,
            "type": "row",
        }
        self.y += 1
        return row

    def _laid_out(self, charts: Iterable[Chart]) -> Iterator[_Json]:
        x = height = 0
        for chart in charts:
            width = 2 * chart.width
            if x + width > 24:
                x, self.y, height = 0, self.y + height, 0
            place = {"h": _HEIGHTS[chart.kind], "w": width, "x": x, "y": self.y}
            yield {**_panel(chart, self.dashboard), "gridPos": place, "id": self._id()}
            x, height = x + width, max(height, place["h"])
        self.y += height

    def _id(self) -> int:
        self.next_id += 1
        return self.next_id - 1


def _panel(chart: Chart, dashboard: Dashboard) -> _Json:
    base = {"description": chart.about, "title": chart.title, "type": _TYPES[chart.kind]}
    if not chart.queries:
        return {**base, "options": {"content": _words(chart), "mode": "markdown"}}
    filters = [one for one in dashboard.filters if one.attribute not in chart.without]
    more = [f'{label(one.attribute)}=~"${one.label}"' for one in filters]
    targets = [_target(chart, query, more, place) for place, query in enumerate(chart.queries)]
    return {
        **base,
        "datasource": _SOURCE,
        "targets": targets,
        **({"interval": _BAR} if chart.kind == "bars" else {}),
        **_LOOKS[chart.kind](chart),
    }


def _words(chart: Chart) -> str:
    """What stands where there is nothing to draw: text, or where the events are."""
    if not (events := chart.events):
        return chart.about
    keys = ", ".join(f"`{name}`" for name in events.columns)
    return (
        f"{chart.about}\n\nPrometheus keeps no events. They are in the log backend that the Collector sends "
        f"logs to, as `{events.name}`, with {keys} and more: docs/metrics.md lists them."
    )


def _target(chart: Chart, query: Query, more: Sequence[str], place: int) -> _Json:
    at_once = chart.kind in ("number", "table", "top")
    expression = _expression(query, more)
    return {
        "datasource": _SOURCE,
        "editorMode": "code",
        "expr": f"topk(10, {expression})" if chart.kind == "top" else expression,
        "format": "table" if chart.kind in ("table", "top") else "time_series",
        "instant": at_once,
        "legendFormat": _legend(query),
        "range": not at_once,
        "refId": _ref(place),
    }


def _expression(query: Query, more: Sequence[str]) -> str:
    match query.metric.instrument:
        case "histogram":
            return spread(query, "$__interval", more)
        case "counter":
            return added(query, "$__interval", more)
        case _:
            return now(query, more)


def _legend(query: Query) -> str:
    """What tells most goes first: what is measured, the version, the device."""
    parts = [query.label] if query.label else []
    common = [name for name in _LAST_IN_A_LEGEND if name in query.by]
    names = [*(name for name in query.by if name not in common), *common]
    return " ".join([*parts, *(f"{{{{{label(name)}}}}}" for name in names)]) or "__auto"


def _over_time(chart: Chart) -> _Json:
    bars = chart.kind == "bars"
    style = {"drawStyle": "bars", "fillOpacity": 60} if bars else {"drawStyle": "line", "fillOpacity": 0}
    gaps = {} if bars else {"spanNulls": _BRIDGED}
    custom = {
        **style,
        **gaps,
        "axisLabel": _per(chart.queries[0]),
        "lineWidth": 1 if bars else 2,
        "showPoints": "auto",
    }
    return {
        "fieldConfig": {"defaults": {**_defaults(chart), "custom": custom}, "overrides": []},
        "options": {
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _number(chart: Chart) -> _Json:
    return {
        "fieldConfig": {"defaults": _defaults(chart), "overrides": []},
        "options": {
            "colorMode": "background" if chart.queries[0].bands else "none",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "auto",
        },
    }


def _table(chart: Chart) -> _Json:
    """A row for each group and a column for each query: the newest version first, in a `top` the highest."""
    first, titles = chart.queries[0], [_title(query) for query in chart.queries]
    columns = [f"Value #{_ref(place)}" for place in range(len(titles))] if len(titles) > 1 else ["Value"]
    labels = [label(name) for name in first.by]
    organized = {
        "excludeByName": {"Time": True},
        "includeByName": {},
        "indexByName": {name: place for place, name in enumerate([*labels, *columns])},
        "renameByName": dict(zip(columns, titles, strict=True)),
    }
    newest_first = ["version"] if "version" in labels and chart.kind == "table" else []
    return {
        "fieldConfig": {
            "defaults": _defaults(chart),
            "overrides": [_column(title, query) for title, query in zip(titles, chart.queries, strict=True)],
        },
        "options": {
            "cellHeight": "sm",
            "showHeader": True,
            "sortBy": [{"desc": True, "displayName": name} for name in (*newest_first, titles[0])],
        },
        "transformations": [{"id": "merge", "options": {}}, {"id": "organize", "options": organized}],
    }


def _title(query: Query) -> str:
    return f"{query.label or query.metric.name} {_per(query)}".rstrip()


def _column(title: str, query: Query) -> _Json:
    """The unit of a column, and its colours where it has bands."""
    shown = [
        {"id": "custom.cellOptions", "value": {"type": "color-background"}},
        {"id": "thresholds", "value": _thresholds(query.bands)},
    ]
    return {
        "matcher": {"id": "byName", "options": title},
        "properties": [{"id": "unit", "value": _unit(query)}, *(shown if query.bands else [])],
    }


_LOOKS: dict[Kind, Callable[[Chart], _Json]] = {
    "lines": _over_time,
    "bars": _over_time,
    "number": _number,
    "table": _table,
    "top": _table,
}


def _defaults(chart: Chart) -> _Json:
    bands = chart.queries[0].bands if chart.kind == "number" else ()
    return {"thresholds": _thresholds(bands), "unit": _unit(chart.queries[0])}


def _thresholds(bands: Bands) -> _Json:
    """Colours by value; the first one is also that of a cell without a value."""
    colours = [{"color": _COLOURS[name], "value": value} for value, name in bands]
    return {"mode": "absolute", "steps": [{"color": "transparent", "value": None}, *colours]}


def _unit(query: Query) -> str:
    """Grafana's name of the unit, without what it is per; how often the goal is not a share, but times."""
    if query.metric.is_a(GOAL_RATIO):
        return _TIMES
    return _UNITS.get(query.metric.unit.partition("/")[0], "short")


def _per(query: Query) -> str:
    return _PER.get(query.metric.unit.partition("/")[2], "")


def _ref(place: int) -> str:
    return chr(ord("A") + place)
