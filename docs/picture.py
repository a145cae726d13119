"""docs/release-health.svg: what a dashboard shows, drawn by its description from the sandbox's data.

No backend draws like this; what is in it is what they have to show: the same charts, queries and values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple
from xml.sax.saxutils import escape

from exporter.appstore.payloads.metrics import parse_metrics
from exporter.assets.dashboards import dashboards
from exporter.assets.model import Chart, Dashboard, Query, fits
from exporter.convert.catalogue import DELTA, GOAL_RATIO
from exporter.convert.insights import convert_insights
from exporter.convert.metrics import Selection, convert
from exporter.sandbox.store import Store
from exporter.sandbox.tables import APPS

APP = APPS[0]
FIRST_DAY, LAST_DAY = 104, 118  # day 111 brings the first data of a release that regresses
CHOSEN = {
    "service.name": APP.bundle_id,
    "platform": "iOS",
    "version": "*",
    "device": "all_iphones",
    "deployment.environment.name": "production",
}
WIDTH, HEIGHT, MARGIN = 960, 520, 16
COLOURS = {"good": "#2e7d4f", "fair": "#b7791f", "poor": "#c0392b"}
LINES = ("#9aa5b1", "#8aa0b8", "#7b9cc0", "#7f8ea3", "#8f9e8b", "#a39a8a", "#6f8fb0", "#c0392b")

Groups = dict[tuple[str, ...], float]


class Point(NamedTuple):
    """A gauge with the attributes of its resource."""

    name: str
    attributes: Mapping[str, str]
    value: float


def picture() -> str:
    """The SVG."""
    board = next(board for board in dashboards() if board.id == "release-health")
    models = next(board for board in dashboards() if board.id == "metric-by-device")
    parts = [*_head(board), *_table(_chart(board, 0, "Change against the earlier versions"), board, 84)]
    parts += _section("Launch time", 238)
    parts += _lines(_chart(board, "Launch time", "By version"), board, (MARGIN, 266, 560, 240))
    for place, title in enumerate(("Change", "Against Apple's goal", "Band")):
        where = (592 + place * 119, 266, 114, 96)
        parts += _number(_chart(board, "Launch time", title), board, where)
    parts += _top(_chart(models, "Launch time", "Worst models"), models, (592, 370, 352, 136))
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    style = 'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#1f2933"'
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{body}\n</svg>\n'


@cache
def _measured(day: int) -> tuple[Point, ...]:
    """What the exporter makes of the app's answer on that day."""
    document = json.loads(json.dumps(Store().metrics_payload(APP.id, float(day))), parse_int=float)
    payload = parse_metrics(document)
    converted = convert(payload, Selection(), observed_at=0, series_cap=20_000)
    insights = convert_insights(payload, (), observed_at=0, series_cap=20_000)
    resource = {key: value for key, value in CHOSEN.items() if "." in key}
    return tuple(
        Point(metric.name, resource | {k: str(v) for k, v in (point.attributes or {}).items()}, point.value)
        for metric in (*converted.gauges, *insights.gauges)
        for point in metric.data.data_points
    )


def _asked(query: Query, board: Dashboard, chart: Chart, day: int = LAST_DAY) -> Groups:
    """Group → the highest value, with what is chosen on the page."""
    chosen = tuple(CHOSEN.items()) if board.filters else ()
    where = (*query.conditions, *((key, value) for key, value in chosen if key not in chart.without))
    groups: Groups = {}
    for point in _measured(day):
        if point.name == query.metric.name and fits(where, point.attributes):
            group = tuple(point.attributes.get(key, "") for key in query.by)
            groups[group] = max(groups.get(group, point.value), point.value)
    return groups


def _chart(board: Dashboard, section: str | int, title: str) -> Chart:
    for place, each in enumerate(board.sections):
        if section in (place, each.title):
            return next(chart for chart in each.charts if chart.title == title)
    raise LookupError(title)


def _head(board: Dashboard) -> Iterator[str]:
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#f5f7fa"/>'
    yield _text(MARGIN, 28, board.title, size=18, weight="bold")
    left = MARGIN
    for each in board.filters:
        chosen = CHOSEN[each.attribute]
        label = f"{each.label}: {'all' if chosen == '*' else chosen}"
        width = 7 * len(label) + 16
        yield _box(left, 42, width, 24)
        yield _text(left + 8, 58, label)
        left += width + 8


def _section(title: str, top: int) -> Iterator[str]:
    yield _text(MARGIN, top + 16, title, size=14, weight="bold")


def _table(chart: Chart, board: Dashboard, top: int) -> Iterator[str]:
    """A row for each group, a column for each query that has anything."""
    columns = {query.label: _asked(query, board, chart) for query in chart.queries}
    columns = {label: groups for label, groups in columns.items() if groups}
    rows = sorted({group for groups in columns.values() for group in groups}, reverse=True)
    yield _box(MARGIN, top, WIDTH - 2 * MARGIN, 140)
    yield _text(MARGIN + 10, top + 20, chart.title, weight="bold")
    yield _text(MARGIN + 10, top + 38, chart.about, colour="#616e7c")
    step = (WIDTH - 2 * MARGIN - 180) // len(columns)
    for place, label in enumerate(columns):
        for line, part in enumerate(_wrapped(label)):
            yield _text(200 + place * step, top + 64 + 14 * line, part, colour="#616e7c", size=11)
    for row in rows[:1]:
        height = top + 122
        yield _text(MARGIN + 10, height, " · ".join(row[-2:]))
        for place, groups in enumerate(columns.values()):
            if row in groups:
                value = groups[row]
                colour = COLOURS["poor"] if value >= 0.1 else "#1f2933"
                yield _text(200 + place * step, height, _change(value), colour=colour)


def _change(value: float) -> str:
    return f"{value:+.1%}".replace("%", " %").replace("-", "−")


def _wrapped(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if len(lines[-1] + word) < 10 else [*lines, word]
    return [line for line in lines if line][:3]


def _lines(chart: Chart, board: Dashboard, place: tuple[int, int, int, int]) -> Iterator[str]:
    left, top, width, height = place
    (query,) = chart.queries
    days = range(FIRST_DAY, LAST_DAY + 1)
    found = {day: _asked(query, board, chart, day) for day in days}
    versions = sorted({group for groups in found.values() for group in groups}, key=_version)[-len(LINES) :]
    highest = max(value for groups in found.values() for value in groups.values()) * 1.1
    yield _box(*place)
    yield _text(left + 10, top + 20, f"{chart.title}, {query.metric.unit}", weight="bold")
    for share in (0.0, 0.5, 1.0):
        y = top + height - 30 - share * (height - 70)
        yield f'<path d="M{left + 40} {y:.0f}H{left + width - 80}" stroke="#e4e7eb"/>'
        yield _text(left + 10, y + 4, f"{highest * share:.1f}", colour="#616e7c", size=11)
    for colour, version in zip(LINES[-len(versions) :], versions, strict=True):
        spots = [
            (
                left + 40 + (day - FIRST_DAY) / (LAST_DAY - FIRST_DAY) * (width - 120),
                top + height - 30 - found[day][version] / highest * (height - 70),
            )
            for day in days
            if version in found[day]
        ]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
        yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        if version in (versions[-1], versions[-2]):
            yield _text(spots[-1][0] + 6, spots[-1][1] + 4, " ".join(version), colour=colour)
    yield _text(
        left + 40, top + height - 8, "two weeks, the release in the middle", colour="#616e7c", size=11
    )


def _version(group: tuple[str, ...]) -> list[int]:
    return [int(part) for part in group[0].split(".")]


def _number(chart: Chart, board: Dashboard, place: tuple[int, int, int, int]) -> Iterator[str]:
    left, top, *_ = place
    (query,) = chart.queries
    value = max(_asked(query, board, chart).values())
    band = next((name for bound, name in reversed(chart.bands) if value >= bound), None)
    yield _box(*place, fill=COLOURS[band] if band else "#ffffff")
    colour = "#ffffff" if band else "#1f2933"
    yield _text(left + 8, top + 20, chart.title, size=10, colour=colour)
    shown, size = f"{value:.3g}", 28
    if query.metric.name.endswith(DELTA.suffix):
        shown, size = _change(value), 22
    elif query.metric.name.endswith(GOAL_RATIO.suffix):
        shown = f"{value:.2f} ×"
    yield _text(left + 8, top + 64, shown, size=size, weight="bold", colour=colour)


def _top(chart: Chart, board: Dashboard, place: tuple[int, int, int, int]) -> Iterator[str]:
    left, top, width, _ = place
    (query,) = chart.queries
    groups = sorted(_asked(query, board, chart).items(), key=lambda item: (-item[1], item[0]))[:5]
    whatever = f", whatever {' and '.join(chart.without)} is chosen" if chart.without else ""
    yield _box(*place)
    yield _text(left + 10, top + 20, f"{chart.title}, {query.metric.unit}", weight="bold")
    yield _text(left + 130, top + 20, whatever.lstrip(", "), colour="#616e7c", size=11)
    for line, (group, value) in enumerate(groups):
        y = top + 30 + 20 * line
        bar = value / groups[0][1] * (width - 220)
        yield f'<rect x="{left + 150}" y="{y}" width="{bar:.1f}" height="14" fill="#e8b4ae"/>'
        yield _text(left + 10, y + 12, " · ".join(group))
        yield _text(left + 156 + bar, y + 12, f"{value:.2f}")


def _box(left: float, top: float, width: float, height: float, fill: str = "#ffffff") -> str:
    at = f'x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}"'
    return f'<rect {at} rx="4" fill="{fill}" stroke="#e4e7eb"/>'


def _text(left: float, top: float, text: str, *, size: int = 12, weight: str = "", colour: str = "") -> str:
    look = f' font-size="{size}"' + (f' font-weight="{weight}"' if weight else "")
    look += f' fill="{colour}"' if colour else ""
    return f'<text x="{left:.1f}" y="{top:.1f}"{look}>{escape(text)}</text>'
