"""docs/release-health.svg: what a dashboard shows, drawn by its description from the sandbox's data.

No backend draws like this; what is in it is what they have to show: the same charts, queries and values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
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
FIRST_DAY, LAST_DAY = 101, 114  # day 111 brings the first data of a release that regresses
CHOSEN = {
    "service.name": APP.bundle_id,
    "platform": "iOS",
    "version": "*",
    "device": "all_*",
    "deployment.environment.name": "production",
}
SAID = {"*": "all", "all_*": "all families"}
WIDTH, HEIGHT, MARGIN, GAP = 960, 864, 16, 12
COLOURS = {"good": "#2e7d4f", "fair": "#b7791f", "poor": "#c0392b"}
INK, FAINT, GRID, BAR = "#1f2933", "#616e7c", "#e4e7eb", "#e8b4ae"
NEWEST, BEFORE, EARLIER = COLOURS["poor"], "#486581", "#bcccdc"
ROW_NAMES = 150  # px

Groups = dict[tuple[str, ...], float]


class Point(NamedTuple):
    """A gauge with the attributes of its resource."""

    name: str
    attributes: Mapping[str, str]
    value: float


class Place(NamedTuple):
    """A rectangle, in px."""

    left: float
    top: float
    width: float
    height: float


def picture() -> str:
    """The SVG."""
    boards = {board.id: board for board in dashboards()}
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    style = f'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="{INK}"'
    body = "\n".join([*_release_health(boards["release-health"]), *_worst_models(boards["metric-by-device"])])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{body}\n</svg>\n'


def _release_health(board: Dashboard) -> Iterator[str]:
    yield from _head(board)
    regressed, change = _chart(board, 0, "Regressed"), _chart(board, 0, "Change against the earlier versions")
    yield from _table(regressed, board, Place(MARGIN, 84, _columns(12), 150), rows=3)
    yield from _table(change, board, Place(MARGIN, 246, _columns(12), 132), rows=2)
    found, how_far = _chart(board, 1, "Regressions that Apple reports"), _chart(board, 1, "How far")
    yield from _section("What Apple itself found", 384)
    yield from _number(found, board, Place(MARGIN, 412, _columns(3), 92))
    yield from _top(how_far, board, Place(MARGIN + _columns(3) + GAP, 412, _columns(9), 92))
    yield from _section("Launch time", 510)
    lines, table = _chart(board, "Launch time", "By version"), _chart(board, "Launch time", "Against")
    yield from _lines(lines, board, Place(MARGIN, 538, _columns(4), 176))
    yield from _table(table, board, Place(MARGIN + _columns(4) + GAP, 538, _columns(8), 176), rows=6)


def _worst_models(board: Dashboard) -> Iterator[str]:
    yield from _section("From Metric by device", 720)
    yield from _top(
        _chart(board, "Launch time", "Worst models"), board, Place(MARGIN, 748, _columns(12), 108)
    )


def _columns(number: int) -> float:
    """The width of so many of twelve columns."""
    return (WIDTH - 2 * MARGIN + GAP) * number / 12 - GAP


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
    """Group → the value, with what is chosen on the page."""
    chosen = ((one.attribute, CHOSEN[one.attribute]) for one in board.filters)
    where = (*query.conditions, *(one for one in chosen if one[0] not in chart.without))
    found: dict[tuple[str, ...], list[float]] = {}
    for point in _measured(day):
        if point.name == query.metric.name and fits(where, point.attributes):
            group = tuple(point.attributes.get(key, "") for key in query.by)
            found.setdefault(group, []).append(point.value)
    join = sum if query.join == "sum" else max
    return {group: float(join(values)) for group, values in found.items()}


def _chart(board: Dashboard, section: str | int, title: str) -> Chart:
    """The chart whose title begins like that."""
    for place, each in enumerate(board.sections):
        if section in (place, each.title):
            return next(chart for chart in each.charts if chart.title.startswith(title))
    raise LookupError(title)


def _head(board: Dashboard) -> Iterator[str]:
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#f5f7fa"/>'
    yield _text(MARGIN, 28, board.title, size=18, weight="bold")
    left = float(MARGIN)
    for each in board.filters:
        chosen = CHOSEN[each.attribute]
        label = f"{each.label}: {SAID.get(chosen, chosen)}"
        width = 6.6 * len(label) + 16
        yield _box(Place(left, 42, width, 24))
        yield _text(left + 8, 58, label)
        left += width + 8


def _section(title: str, top: float) -> Iterator[str]:
    yield _text(MARGIN, top + 18, title, size=14, weight="bold")


def _titled(title: str, about: str, place: Place) -> Iterator[str]:
    yield _box(place)
    yield _text(place.left + 10, place.top + 20, title, weight="bold")
    if about:
        yield _text(place.left + 10, place.top + 37, about, colour=FAINT, size=11)


def _table(chart: Chart, board: Dashboard, place: Place, rows: int) -> Iterator[str]:
    """The newest groups; a column for each query that has anything."""
    about = chart.about if chart.width == 12 else ""
    columns = [(query, groups) for query in chart.queries if (groups := _asked(query, board, chart))]
    names = sorted({name for _, groups in columns for name in groups}, key=_newest, reverse=True)
    step = (place.width - ROW_NAMES - 16) / len(columns)
    header, first = place.top + (54 if about else 40), place.top + (100 if about else 74)
    yield from _titled(chart.title, about, place)
    for at, (query, groups) in enumerate(columns):
        left = place.left + ROW_NAMES + at * step
        yield from _header(query.label, left, header)
        for line, name in enumerate(names[:rows]):
            if name in groups:
                yield from _cell(query, groups[name], Place(left - 4, first + 18 * line - 13, step - 8, 17))
    for line, name in enumerate(names[:rows]):
        yield _text(place.left + 10, first + 18 * line, _name(chart.queries[0].by, name))


def _header(label: str, left: float, top: float) -> Iterator[str]:
    for line, part in enumerate(_wrapped(label)):
        yield _text(left, top + 13 * line, part, colour=FAINT, size=11)


def _cell(query: Query, value: float, place: Place) -> Iterator[str]:
    """Coloured where its column has bands."""
    band = _band(query, value)
    if band:
        yield _box(place, fill=COLOURS[band])
    yield _text(place.left + 4, place.top + 13, _shown(query, value), colour="#ffffff" if band else INK)


def _band(query: Query, value: float) -> str | None:
    return next((name for bound, name in reversed(query.bands) if value >= bound), None)


def _shown(query: Query, value: float) -> str:
    """The value with its unit."""
    if query.metric.is_a(GOAL_RATIO):
        return f"{value:.2f} ×"
    if query.metric.is_a(DELTA):
        return f"{value:+.1%}".replace("%", " %").replace("-", "−")
    unit = "" if query.metric.unit.startswith(("{", "1")) else query.metric.unit
    return f"{value:.3g} {unit}".rstrip()


def _name(keys: Sequence[str], group: Sequence[str]) -> str:
    """What tells most goes first; the service and the platform are chosen on the page."""
    told = [value for key, value in zip(keys, group, strict=True) if key not in ("service.name", "platform")]
    return " · ".join(told)


def _newest(group: Sequence[str]) -> tuple[list[int], Sequence[str]]:
    """Sorts by version, then by the rest."""
    version = next(part for part in group if part.replace(".", "").isdigit())
    return [int(part) for part in version.split(".")], group


def _wrapped(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if len(lines[-1] + word) < 10 else [*lines, word]
    return [line for line in lines if line][:3]


def _lines(chart: Chart, board: Dashboard, place: Place) -> Iterator[str]:
    """A line for each group; the newest two versions have colours of their own."""
    (query,) = chart.queries
    days = range(FIRST_DAY, LAST_DAY + 1)
    found = {day: _asked(query, board, chart, day) for day in days}
    groups = sorted({group for each in found.values() for group in each}, key=_newest)
    versions = sorted({tuple(_newest(group)[0]) for group in groups})
    highest = max(value for each in found.values() for value in each.values()) * 1.15
    inner = Place(place.left + 34, place.top + 34, place.width - 48, place.height - 64)
    yield from _titled(f"{chart.title}, {query.metric.unit}, two weeks", "", place)
    yield from _scale(inner, highest)
    for group in groups:
        spots = [_spot(inner, day, found[day][group] / highest) for day in days if group in found[day]]
        age = len(versions) - versions.index(tuple(_newest(group)[0]))
        yield _line(spots, colour={1: NEWEST, 2: BEFORE}.get(age, EARLIER))
    yield from _versions(versions, Place(inner.left, place.top + place.height - 10, 0, 0))
    worst = max((group for group in groups if group in found[FIRST_DAY]), key=found[FIRST_DAY].__getitem__)
    x, y = _spot(inner, FIRST_DAY, found[FIRST_DAY][worst] / highest)
    yield _text(x, y - 6, ".".join(map(str, _newest(worst)[0])), colour=FAINT, size=11)


def _versions(versions: Sequence[tuple[int, ...]], place: Place) -> Iterator[str]:
    """A legend of the colours."""
    names = [*(".".join(map(str, version)) for version in reversed(versions[-2:])), "earlier"]
    for at, (name, colour) in enumerate(zip(names, (NEWEST, BEFORE, FAINT), strict=True)):
        yield _text(place.left + 54 * at, place.top, name, colour=colour, size=11)


def _scale(inner: Place, highest: float) -> Iterator[str]:
    for share in (0.0, 0.5, 1.0):
        y = inner.top + (1 - share) * inner.height
        yield f'<path d="M{inner.left:.0f} {y:.0f}h{inner.width:.0f}" stroke="{GRID}"/>'
        yield _text(inner.left - 24, y + 4, f"{highest * share:.1f}", colour=FAINT, size=11)


def _spot(inner: Place, day: int, share: float) -> tuple[float, float]:
    across = (day - FIRST_DAY) / (LAST_DAY - FIRST_DAY)
    return inner.left + across * inner.width, inner.top + (1 - share) * inner.height


def _line(spots: Sequence[tuple[float, float]], colour: str) -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>'


def _number(chart: Chart, board: Dashboard, place: Place) -> Iterator[str]:
    (query,) = chart.queries
    value = sum(_asked(query, board, chart).values())
    band = _band(query, value)
    colour = "#ffffff" if band else INK
    yield _box(place, fill=COLOURS[band] if band else "#ffffff")
    yield _text(place.left + 10, place.top + 20, chart.title, colour=colour, size=11)
    yield _text(place.left + 10, place.top + 66, _shown(query, value), size=32, weight="bold", colour=colour)


def _top(chart: Chart, board: Dashboard, place: Place) -> Iterator[str]:
    """The highest groups that fit, with bars."""
    (query,) = chart.queries
    fit = int((place.height - 34) // 18)
    groups = sorted(_asked(query, board, chart).items(), key=lambda item: (-item[1], item[0]))[:fit]
    whatever = f"whatever {' and '.join(chart.without)} is chosen" if chart.without else ""
    yield from _titled(f"{chart.title}, {query.metric.unit}", "", place)
    yield _text(place.left + place.width - 10, place.top + 20, whatever, colour=FAINT, size=11, end=True)
    names = max(len(_name(query.by, group)) for group, _ in groups)
    left = place.left + 26 + 6.9 * names
    longest = place.width - 110 - 6.9 * names
    for line, (group, value) in enumerate(groups):
        y = place.top + 30 + 18 * line
        bar = value / groups[0][1] * longest
        yield f'<rect x="{left:.1f}" y="{y}" width="{bar:.1f}" height="13" fill="{BAR}"/>'
        yield _text(place.left + 10, y + 11, _name(query.by, group))
        yield _text(left + bar + 6, y + 11, _shown(query, value))


def _box(place: Place, fill: str = "#ffffff") -> str:
    at = f'x="{place.left:.1f}" y="{place.top:.1f}" width="{place.width:.1f}" height="{place.height:.1f}"'
    return f'<rect {at} rx="4" fill="{fill}" stroke="{GRID}"/>'


def _text(
    left: float,
    top: float,
    text: str,
    *,
    size: int = 12,
    weight: str = "",
    colour: str = "",
    end: bool = False,
) -> str:
    look = f' font-size="{size}"' + (f' font-weight="{weight}"' if weight else "")
    look += (f' fill="{colour}"' if colour else "") + (' text-anchor="end"' if end else "")
    return f'<text x="{left:.1f}" y="{top:.1f}"{look}>{escape(text)}</text>'
