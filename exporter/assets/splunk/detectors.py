"""Detectors of Splunk Observability: a condition in SignalFlow, and what its messages say. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from exporter.assets.model import Alert, Query, Wishes
from exporter.assets.splunk import signalflow, spl
from exporter.assets.splunk.charts import Resource, viz
from exporter.assets.splunk.signalflow import Filters

_MIN_DELAY = 60  # seconds; series as sparse as a heartbeat have no lag that Splunk could learn
_NAMED = 3
_SEVERITIES = {"critical": "Critical", "warning": "Warning", "info": "Info"}
_IN_WORDS = {
    "s": "seconds",
    "By": "bytes",
    "By/d": "bytes per day",
    "%": "percent",
    "s/h": "seconds per hour",
    "{termination}/d": "per day",
}


def detector(alert: Alert, wishes: Wishes) -> Resource:
    """The arguments of the detector of an alert, with a rule for each of its labels.

    Raises:
        ConfigError: a wish cannot be part of a program; or that gets too long.
    """
    filters: Filters = []
    if alert.about == "app":
        filters = [(key, values) for key, values in wishes.chosen.items() if values]
    waits = f"{alert.title}. {_limit(alert, _named(alert))}"
    rules = [_rule(alert, wishes, alert.id, alert.title, waits, _body(alert, wishes))]
    if alert.missing is not None:
        label, silent = signalflow.missing_label(alert), _silence(alert.missing)
        rules.append(_rule(alert, wishes, label, silent, f"{silent}.", _missing_body(alert, wishes, silent)))
    return {
        "name": f"App Store: {alert.title}",
        "description": alert.meaning,
        "program_text": signalflow.bounded(signalflow.detector(alert, filters)),
        "min_delay": _MIN_DELAY,
        "tags": ["perfpower-exporter"],
        "time_range": 7 * 24 * 3600,
        "viz_options": [viz("A", alert.query.label or alert.title, _watched(alert))],
        "rule": rules,
    }


def _watched(alert: Alert) -> Query:
    """The query whose unit the watched value has; a share of two has none."""
    return replace(alert.query, metric=replace(alert.query.metric, unit=alert.unit))


def _rule(alert: Alert, wishes: Wishes, label: str, title: str, description: str, body: str) -> Resource:
    of = "".join(f" · {_dimension(key)}" for key in alert.query.by)
    told = alert.told_to(wishes)
    return {
        "detect_label": label,
        "severity": _SEVERITIES[alert.severity],
        "description": description,
        "parameterized_subject": f"{{{{#if normal}}}}Resolved: {{{{/if}}}}{title}{of}",
        "parameterized_body": body,
        "tip": alert.first,
        **({"notifications": list(told)} if told else {}),
        **({"runbook_url": alert.page(wishes)} if wishes.runbook else {}),
    }


def _silence(minutes: int) -> str:
    return f"Nothing was heard of the exporter for {_in_words(minutes)}"


def _named(alert: Alert) -> str:
    """What is compared with the threshold, by the names of its metrics."""
    over = f" over `{alert.over.metric.name}`" if alert.over else ""
    added = f", added up over {_in_words(alert.window)}," if alert.window is not None else ""
    return f"`{alert.query.metric.name}`{over}{added}"


def _limit(alert: Alert, value: str) -> str:
    """What the alert waits for, as a sentence about this value."""
    lasting = f" for {_in_words(alert.minutes)}" if alert.minutes else ""
    if alert.query.metric.is_flag:
        return f"This has been so{lasting}."
    side = "at least" if alert.compare == ">=" else "at most"
    return f"The alert fires when {value} is {side} {_with_unit(alert)}{lasting}."


def _with_unit(alert: Alert) -> str:
    unit, threshold = alert.unit, alert.threshold
    number = signalflow.number(threshold)
    if unit == "s" and threshold >= 3600:
        return f"{number} s ({signalflow.number(round(threshold / 3600, 1))} hours)"
    if unit == "1":
        return f"{number} ({signalflow.number(round(100 * threshold, 6))} %)"
    return f"{number}{_after(unit)}"


def _after(unit: str) -> str:
    """What follows a number of this unit: ` s`, ` %`; nothing after a share or a count."""
    return "" if unit == "1" or unit.startswith("{") else f" {unit}"


def _in_words(minutes: int) -> str:
    """`15 minutes`, `13 hours`, `3 days`."""
    if minutes % 60:
        return f"{minutes} minutes"
    if minutes % (24 * 60) == 0 and minutes > 24 * 60:
        return f"{minutes // (24 * 60)} days"
    return "an hour" if minutes == 60 else f"{minutes // 60} hours"


def _body(alert: Alert, wishes: Wishes) -> str:
    asked = list(_asked(alert))
    numbers = f"The numbers, the highest first, as SignalFlow for a new chart:\n\n{_code(*asked)}"
    ended = _in_words(signalflow.resolves_after(alert))
    parts = (
        _limit(alert, "it") if alert.query.metric.is_flag else f"{_value(alert)} {_limit(alert, 'it')}",
        *_advice(alert, wishes, numbers if asked else "", _search(alert)),
    )
    over = f"Resolved: this is no longer so, or nothing was heard of it for {ended}."
    return _message(f"{alert.title}.", alert.query.by, parts, over)


def _value(alert: Alert) -> str:
    return f"{_named(alert)} is {{{{inputs.A.value}}}}{_after(alert.unit)}."


def _missing_body(alert: Alert, wishes: Wishes, silent: str) -> str:
    forgotten = _in_words(signalflow.FORGOTTEN_AFTER)
    over = f"Resolved: it is heard again, or has been silent for {forgotten} and counts as removed."
    means = "It has stopped, or what it sends does not get here. Charts end, or show what came last."
    return _message(f"{silent}.", alert.query.by, _advice(replace(alert, meaning=means), wishes), over)


def _message(title: str, by: tuple[str, ...], parts: tuple[str, ...], over: str) -> str:
    """What is said when it fires, and what when it is over; Splunk does not say why it is."""
    group = "\n".join(f"- {key}: {_dimension(key)}" for key in by)
    blocks = ("{{#if anomalous}}" + title, group, *parts, "{{else}}" + over, group + "{{/if}}")
    return "\n\n".join(block for block in blocks if block)


def _advice(alert: Alert, wishes: Wishes, *more: str) -> tuple[str, ...]:
    page = "{{{runbookUrl}}}" if wishes.runbook else alert.page(wishes)
    return (
        f"What it means: {alert.meaning}",
        "What to do first: {{{tip}}}",
        f"Where to look: {alert.look}",
        *more,
        f"Runbook: {page}",
    )


def _code(*lines: str) -> str:
    """Lines to paste: a message is Markdown, which would take `*` and `_` for marks."""
    return "\n".join(("```", *lines, "```"))


def _asked(alert: Alert) -> Iterator[str]:
    """Lines to paste: a message knows no streams but those of its condition, and no group but its own."""
    if alert.change is not None:
        yield _ranked(_in_group(alert, alert.change), alert.change, alert.change.label or alert.title)
    if alert.worst is None:
        return
    if alert.query.metric.is_flag:
        label = signalflow.literal(_label(alert.worst, "value of each version"))
        value = replace(alert.worst, where=alert.query.where)
        yield f"{signalflow.shown(*_in_group(alert, value, 'all'))}.publish({label})"
    if alert.worst_by_change:
        yield from _by_change(alert, alert.worst)
    elif alert.worst_where is not None:
        yield from _chosen(alert, alert.worst, alert.worst_where)
    else:
        yield _ranked(_in_group(alert, alert.worst), alert.worst, alert.worst.label or alert.title)


def _by_change(alert: Alert, worst: Query) -> Iterator[str]:
    """How far this version lies from the mean of the others that are sent."""
    others = replace(worst, join="avg", where=(*worst.where, ("version", f"!{_dimension('version')}")))
    yield f"A = {signalflow.stream(*_in_group(alert, worst))}"
    yield f"B = {signalflow.stream(*_in_group(alert, others, 'others'))}"
    yield f"(A / B - 1).scale(100){_first(f'{worst.label}, change against the versions before (percent)')}"


def _chosen(alert: Alert, worst: Query, where: Query) -> Iterator[str]:
    """Of a flag that is 0 or 1: what it is 0 for becomes 0."""
    yield f"A = {signalflow.stream(*_in_group(alert, worst))}"
    yield f"B = {signalflow.stream(*_in_group(alert, where))}"
    yield f"(A * B){_first(f'{where.label}, 0 of the others')}"


def _in_group(
    alert: Alert, query: Query, versions: Literal["this", "others", "all"] = "this"
) -> tuple[Query, Filters]:
    """A query, and the group that fired: of its version, or of any, each by itself where `all` are asked."""
    group = [one for one in _of_the_group(alert) if one[0] in query.by]
    if versions != "this":
        group = [one for one in group if one[0] != "version"]
    by = tuple(
        key for key in query.by if key not in alert.query.by or (key == "version" and versions == "all")
    )
    return replace(query, by=by), group


def _ranked(asked: tuple[Query, Filters], query: Query, label: str) -> str:
    return f"{signalflow.shown(*asked)}{_first(_label(query, label))}"


def _first(label: str) -> str:
    return f".top(count={_NAMED}).publish({signalflow.literal(label)})"


def _label(query: Query, label: str) -> str:
    words = _IN_WORDS.get(signalflow.unit_shown(query.metric), "")
    return label if not words or words in label else f"{label} ({words})"


def _search(alert: Alert) -> str:
    if alert.events is None:
        return ""
    found = spl.search(alert.events, _of_the_group(alert))
    return f"The events, as a search for the Splunk platform:\n\n{_code(found)}"


def _of_the_group(alert: Alert) -> list[tuple[str, tuple[str, ...]]]:
    return [(key, (_dimension(key),)) for key in alert.query.by]


def _dimension(key: str) -> str:
    """The value of a dimension; with two braces, Splunk would write its marks as HTML does."""
    return f"{{{{{{dimensions.[{key}]}}}}}}" if "." in key else f"{{{{{{dimensions.{key}}}}}}}"
