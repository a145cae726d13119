"""Queries and alerts in SignalFlow, the language of Splunk Observability. Pure.

Metrics, dimensions and values are spelled as they leave the exporter: Splunk keeps dots and capitals
(docs/backends.md). Only histograms are kept in other units, see `kept_times`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from exporter.assets.model import Alert, Query, Series, duration
from exporter.convert.catalogue import DELTA
from exporter.errors import ConfigError

LONGEST = 50_000  # characters of a program, by the provider's schema
FORGOTTEN_AFTER = 28 * 24 * 60  # minutes; longer than a holiday: silence does not end by lasting
_BRIDGED = 3  # points of the job's resolution, a minute at the least: from a heartbeat to the next
_MOST_OF = 0.8  # of a duration: what comes late or not at all does not count against it
_IMPORT = "from signalfx.detectors.not_reporting import not_reporting"

Filters = Sequence[tuple[str, Sequence[str]]]
"""Dimensions, each with the values of which it has to have one. A lone `*` is any."""


def stream(query: Query, filters: Filters = ()) -> str:
    """The expression of a query: one time series for each group, in the unit of the metric.

    Args:
        filters: what has to hold beside the query's own `where`.

    Raises:
        ConfigError: a value cannot be written so that it means itself.
    """
    conditions = [is_one_of(key, values) for key, values in filters]
    conditions += [_where(key, value) for key, value in query.conditions]
    grouped = f"by=[{', '.join(map(literal, query.by))}]" if query.by else ""
    if query.metric.instrument == "histogram":
        return _distribution(query, conditions, grouped)
    return f"{_data(query.metric, conditions)}.{_JOINS[query.join]}({grouped})"


def shown(query: Query, filters: Filters = ()) -> str:
    """The same in the unit of `unit_shown`, as people read it."""
    times = 100 if query.metric.is_a(DELTA) else 1
    return stream(query, filters) + (f".scale({times})" if times > 1 else "")


def unit_shown(metric: Series) -> str:
    """The unit of the metric; of a change, which is sent in parts of one, percent."""
    return "%" if metric.is_a(DELTA) else metric.unit


def is_one_of(key: str, values: Sequence[str]) -> str:
    """A filter on a dimension."""
    return f"filter({', '.join(map(literal, (key, *values)))})"


def literal(text: str) -> str:
    """A string of SignalFlow that means this text and nothing else.

    Raises:
        ConfigError: it is empty, or has a character that quotes, escapes or matches others.
    """
    if not text or not text.isprintable() or any(mark in text for mark in '"\\`') or "*" in text[:-1]:
        raise ConfigError(
            f"{text[:80]!r} cannot be part of a query for Splunk",
            remedy='Leave out what is empty, and names with one of " \\ ` * or a control character.',
            where="alerts",
        )
    return f'"{text}"' if "'" in text else f"'{text}'"


def kept_times(unit: str) -> int:
    """By how much the overlay `config/collector/signalfx.yaml` multiplies a histogram of this unit."""
    if unit == "By" or unit.startswith("By/"):
        return 1
    return 1_000_000 if unit == "{termination}/d" else 1_000


def detector(alert: Alert, filters: Filters) -> str:
    """The program of an alert. It publishes the alert's id, and `missing_label` where it has `missing`.

    Heartbeats are sparse, and Splunk does not count a duration in which a point is late or missing. So
    windows are judged, each with a point in it even where a heartbeat is missing. `A` is the best of half of
    the alert's minutes, and has to be bad for the other half; `Z` is the worst of all of them, and ends the
    alert. A series that has just begun is judged after half of the minutes.

    What fires is a condition on `A` alone, so that a message can say `{{inputs.A.value}}`.

    Raises:
        ConfigError: as of `stream`.
    """
    lines = [*_condition(alert, filters), f"{_detect(alert)}.publish({literal(alert.id)})"]
    if alert.missing is not None:
        lines = [_IMPORT, *lines, _not_reporting(alert, alert.missing, filters)]
    return "\n".join(lines)


def resolves_after(alert: Alert) -> int:
    """The minutes without any point after which an alert ends.

    What was counted goes on counting for its window, in which no other point may come.
    """
    return max(alert.held, alert.window or 0)


def missing_label(alert: Alert) -> str:
    """The label of what an alert detects when nothing is heard."""
    return f"{alert.id} missing"


def number(value: float) -> str:
    """A finite number as SignalFlow writes it."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def bounded(program: str) -> str:
    """The program. Raises ConfigError for one that is longer than Splunk takes."""
    if len(program) > LONGEST:
        raise ConfigError(
            f"a program for Splunk would have {len(program)} characters; it takes {LONGEST}",
            remedy="Name fewer services or environments; none at all means all.",
            where="alerts",
        )
    return program


def _where(key: str, value: str) -> str:
    if value.startswith("!"):
        return f"not {is_one_of(key, (value[1:],))}"
    return is_one_of(key, (value,))


def _filtered(conditions: Iterable[str]) -> str:
    every = " and ".join(conditions)
    return f", filter={every}" if every else ""


def _data(metric: Series, conditions: Iterable[str]) -> str:
    how = (
        "rollup='sum', extrapolation='zero'"
        if metric.instrument == "counter"
        else f"rollup='latest', extrapolation='last_value', maxExtrapolations={_BRIDGED}"
    )
    return f"data({literal(metric.name)}{_filtered(conditions)}, {how})"


def _distribution(query: Query, conditions: Iterable[str], grouped: str) -> str:
    arguments = ", ".join(part for part in (f"pct={query.percentile}", grouped) if part)
    source = f"histogram({literal(query.metric.name)}{_filtered(conditions)}).percentile({arguments})"
    times = kept_times(query.metric.unit)
    return source if times == 1 else f"{source}.scale({f'{1 / times:.6f}'.rstrip('0')})"


def _condition(alert: Alert, filters: Filters) -> list[str]:
    lines, expression = _watched(alert, filters)
    if not alert.minutes:
        return [*lines, f"A = {expression}.publish(label='A')"]
    best, worst = _EXTREMES[alert.compare]
    return [
        *lines,
        f"V = {expression}",
        f"A = V.{best}(over='{duration(alert.minutes - alert.minutes // 2)}').publish(label='A')",
        f"Z = V.{worst}(over='{duration(alert.minutes)}')",
    ]


def _watched(alert: Alert, filters: Filters) -> tuple[list[str], str]:
    """What is compared, as an expression, with the lines before it."""
    own = stream(alert.query, filters)
    if alert.window is not None:
        own += f".sum(over='{duration(alert.window)}')"
    if alert.over is None:
        return [], own
    return [f"B = {own}", f"C = {stream(alert.over, filters)}"], "(B / C)"


def _detect(alert: Alert) -> str:
    threshold = number(alert.threshold)
    bad = f"A {alert.compare} threshold({threshold})"
    resolved = f"auto_resolve_after='{duration(resolves_after(alert))}'"
    if not alert.minutes:
        return f"detect(when({bad}), {resolved})"
    lasting = f"lasting='{duration(alert.minutes // 2)}', at_least={_MOST_OF}"
    over = f"off=when(Z {_OPPOSITE[alert.compare]} threshold({threshold}))"
    return f"detect(when({bad}, {lasting}), {over}, {resolved})"


def _not_reporting(alert: Alert, minutes: int, filters: Filters) -> str:
    # Extrapolation would hide that nothing comes.
    heard = alert.heard or alert.query
    conditions = chain((is_one_of(*one) for one in filters), (_where(*one) for one in heard.conditions))
    source = f"data({literal(heard.metric.name)}{_filtered(conditions)}, rollup='latest')"
    by = f"[{', '.join(map(literal, alert.query.by))}]" if alert.query.by else "None"
    return (
        f"not_reporting.detector(stream={source}, resource_identifier={by}, "
        f"duration='{duration(minutes)}', auto_resolve_after='{duration(FORGOTTEN_AFTER)}')"
        f".publish({literal(missing_label(alert))})"
    )


_JOINS = {"max": "max", "min": "min", "sum": "sum", "avg": "mean"}
_OPPOSITE = {">=": "<", "<=": ">"}
_EXTREMES = {">=": ("min", "max"), "<=": ("max", "min")}
"""The best and the worst of a window: all of it is bad where the best is, and good where the worst is."""
