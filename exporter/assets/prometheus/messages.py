"""What the rules of Prometheus tell: texts with templates, which it fills in when an alert fires. Pure.

A message may ask Prometheus for further numbers. A line of which nothing is known is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from exporter.assets.model import ENVIRONMENT, FAMILIES, SERVICE, Alert, Query, Where, duration, of_apple
from exporter.assets.prometheus.promql import LATELY, held, label, quoted
from exporter.convert.catalogue import (
    APPLE_METRICS,
    DELTA,
    ERROR_MARGIN,
    GOAL,
    OWN_ACCOUNTS,
    POOR,
    REGRESSED,
    AppleMetric,
)

_WORDS = {
    SERVICE: "service",
    ENVIRONMENT: "environment",
    OWN_ACCOUNTS: "accounts",
    "diagnostic_type": "type",
}
_SHOWN = {
    "s": "{{ $ | humanizeDuration }}",
    "s/h": "{{ $ | humanizeDuration }} an hour",
    "By": "{{ $ | humanize }}B",
    "By/d": "{{ $ | humanize }}B a day",
    "1": '{{ $ | humanizePercentage | reReplaceAll "%" " %" }}',
    "%": '{{ $ | printf "%.4g" }} %',
    "{termination}/d": '{{ $ | printf "%.4g" }} a day',
    "{weight}": '{{ $ | printf "%.4g" }}',
}
_JUDGED = {of_apple(metric, REGRESSED).name: metric for metric in APPLE_METRICS}
_POOR = {of_apple(metric, POOR).name: metric for metric in APPLE_METRICS}
_MEDIAN: Where = (*FAMILIES, ("percentile", "p50"))


def description(alert: Alert, of_app: Sequence[str]) -> str:
    """What has happened, where, how much, and what to do, a line each.

    Args:
        of_app: matchers for the apps that are watched.
    """
    parts = (
        _group(alert),
        literal(alert.meaning),
        _value(alert),
        "".join(_numbers(alert, of_app)) + _advice(alert),
    )
    return "\n".join(part for part in parts if part)


def of_silence(alert: Alert) -> str:
    """The same of the rule about silence."""
    group = f"{{{{ with $labels.{label(alert.query.by[-1])} }}}}{_group(alert)}: {{{{ end }}}}"
    silence = f"{group}nothing was heard of the exporter for {duration(alert.missing or 0)}."
    causes = "It has stopped, or what it sends does not get here. Charts end, or show the last that came."
    return "\n".join((silence, causes, _advice(alert)))


def literal(text: str) -> str:
    """Text that Go's templates leave as it is."""
    return text.replace("{{", '{{ "{{" }}')


def _group(alert: Alert) -> str:
    return ", ".join(f"{_word(name)} {{{{ $labels.{label(name)} }}}}" for name in alert.query.by)


def _advice(alert: Alert) -> str:
    return f"First: {literal(alert.first)}\nWhere to look: {literal(alert.look)}"


def _value(alert: Alert) -> str:
    unit = alert.unit
    if alert.query.metric.is_flag:
        return ""
    limit = ""
    if alert.highest is not None:  # otherwise it is nothing that anybody chose
        limit = (
            f"; the limit is {_limit(alert.threshold, unit)} or {'more' if alert.compare == '>=' else 'less'}"
        )
    return f"Now {_shown('$value', unit)}{limit}."


def _numbers(alert: Alert, of_app: Sequence[str]) -> Iterator[str]:
    """What a flag does not say, the change and the worst."""
    yield from _behind_the_flag(alert, of_app)
    if alert.change:
        yield _line(alert.change, alert, of_app)
    if alert.change and (metric := _JUDGED.get(alert.query.metric.name)):
        change = Query(of_apple(metric, DELTA), alert.change.by, _MEDIAN)
        yield _line(replace(change, label="the same at the 50th percentile"), alert, of_app)
    if alert.worst:
        worst = _changed_most if alert.worst_by_change else _highest
        yield worst(alert.worst, alert, of_app)


def _behind_the_flag(alert: Alert, of_app: Sequence[str]) -> Iterator[str]:
    """Of a metric that got worse its value, the one before and the margin; of a poor one value and goal."""
    name = alert.query.metric.name
    if metric := _JUDGED.get(name):
        value, change = _of_family(metric, alert, "value"), Query(of_apple(metric, DELTA))
        yield _line(value, alert, of_app)
        earlier = replace(value, label="mean of the earlier versions")
        yield _line(earlier, alert, of_app, less=replace(value, metric=change.metric))
        margin = of_apple(metric, ERROR_MARGIN)
        yield _line(replace(value, metric=margin, label="error margin"), alert, of_app)
    elif metric := _POOR.get(name):
        value = _of_family(metric, alert, "value")
        yield _line(value, alert, of_app)
        yield _line(replace(value, metric=of_apple(metric, GOAL), label="Apple's goal"), alert, of_app)


def _of_family(metric: AppleMetric, alert: Alert, label: str) -> Query:
    return Query(of_apple(metric), (*alert.query.by, "device"), alert.query.where, label=label)


def _line(query: Query, alert: Alert, of_app: Sequence[str], less: Query | None = None) -> str:
    """The three highest of a query, by the values that the alert goes by.

    Args:
        less: a change that is taken back, as a fraction of what was there before it.
    """
    asked = _asked(query, alert, of_app, alert.held)
    if less:
        asked += f" / (1 + {_asked(less, alert, of_app, alert.held)})"
    return _told(asked, query, alert)


def _highest(worst: Query, alert: Alert, of_app: Sequence[str]) -> str:
    """The three highest of those that are there now, or of those that the alert is about."""
    asked = _asked(worst, alert, of_app)
    if not alert.worst_where:
        return _told(asked, replace(worst, label=f"highest {worst.label}"), alert)
    asked += f" and {_asked(alert.worst_where, alert, of_app)} == 1"
    return _told(asked, replace(worst, label=alert.worst_where.label), alert)


def _changed_most(worst: Query, alert: Alert, of_app: Sequence[str]) -> str:
    """The three that lie furthest above the mean of the same in the versions before.

    Those are all others that are sent: of models, unless all detail is wanted, there is one, and two while
    the Collector still shows what the newest version has replaced.
    """
    this = _asked(worst, alert, of_app)
    before = _asked(replace(worst, join="avg"), alert, of_app, version="!=")
    change = replace(
        worst, metric=replace(worst.metric, unit="1"), label="changed most against the versions before"
    )
    return _told(f"{this} / ({before} > 0) - 1", change, alert)


def _asked(
    query: Query, alert: Alert, of_app: Sequence[str], minutes: int = LATELY, version: str = "="
) -> str:
    """A query within the group that fires, with places for `printf`.

    Args:
        minutes: for how long what is silent goes by its last value.
        version: how the version compares with that of the group.
    """
    signs = {"version": version}
    of_group = (
        f"{label(name)}{signs.get(name, '=')}%[{place}]q"
        for place, name in enumerate(_shared(query, alert), start=1)
    )
    return held(replace(query, by=_own(query, alert)), [*of_app, *of_group], minutes)


def _told(asked: str, query: Query, alert: Alert) -> str:
    """A line with the three highest of what is asked for when the alert fires."""
    group = " ".join(f"$labels.{label(name)}" for name in _shared(query, alert))
    names = " ".join(f"{{{{ $one.Labels.{label(name)} }}}}" for name in _own(query, alert))
    return (
        f"{{{{ with query (printf {quoted(f'topk(3, {asked})')} {group}) }}}}"
        f"{query.label[:1].upper()}{query.label[1:]}: "
        f"{{{{ range $place, $one := . }}}}{{{{ if $place }}}}, {{{{ end }}}}{names} "
        f"{_shown('$one.Value', query.metric.unit)}{{{{ end }}}}.\n{{{{ end }}}}"
    )


def _shared(query: Query, alert: Alert) -> tuple[str, ...]:
    return tuple(name for name in query.by if name in alert.query.by)


def _own(query: Query, alert: Alert) -> tuple[str, ...]:
    return tuple(name for name in query.by if name not in alert.query.by)


def _shown(value: str, unit: str) -> str:
    """A number of the template with its unit."""
    return _SHOWN.get(unit, "{{ $ | humanize }}").replace("$", value)


def _limit(number: float, unit: str) -> str:
    if unit == "s":
        return f"{number / 3600:g} h"
    percent = {"1": 100, "%": 1}.get(unit)
    return f"{number * percent:.6g} %" if percent else f"{number:.15g}"


def _word(attribute: str) -> str:
    return _WORDS.get(attribute, attribute)
