"""Detectors of Splunk Observability: a condition in SignalFlow, and what its messages say. Pure."""

from __future__ import annotations

from dataclasses import replace

from exporter.assets.alerts import RUNBOOK
from exporter.assets.model import ENVIRONMENT, SERVICE, Alert, Query, Wishes
from exporter.assets.splunk import signalflow, spl
from exporter.assets.splunk.charts import Resource, viz
from exporter.assets.splunk.signalflow import Filters

_MIN_DELAY = 60  # seconds; series as sparse as a heartbeat have no lag that Splunk could learn
_NAMED = 3
_SEVERITIES = {"critical": "Critical", "warning": "Warning", "info": "Info"}
_STATES = ("{flag}", "{band}")
"""Units of numbers that stand for a state, which the alert's title says in words."""
_IN_WORDS = {
    "1": "1 is 100 %",
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
    threshold = wishes.thresholds.get(alert.id, alert.threshold)
    filters: Filters = []
    if alert.about == "app":
        chosen = [(SERVICE, wishes.services), (ENVIRONMENT, wishes.environments)]
        filters = [(key, values) for key, values in chosen if values]
    waits = f"{alert.title}. {_limit(alert, threshold)}"
    rules = [_rule(alert, wishes, alert.id, waits, _body(alert, threshold))]
    if alert.missing is not None:
        heard = f"Nothing was heard for {_in_words(alert.missing)}."
        rules.append(
            _rule(alert, wishes, signalflow.missing_label(alert), heard, _missing_body(alert, heard))
        )
    return {
        "name": f"App Store: {alert.title}",
        "description": alert.meaning,
        "program_text": signalflow.bounded(signalflow.detector(alert, threshold, filters)),
        "min_delay": _MIN_DELAY,
        "tags": ["perfpower-exporter"],
        "time_range": 7 * 24 * 3600,
        "viz_options": [viz("A", alert.query.label or alert.title, _watched(alert))],
        "rule": rules,
    }


def _watched(alert: Alert) -> Query:
    """The query whose unit the watched value has; a share of two has none."""
    unit = "1" if alert.over and not alert.times else alert.query.metric.unit
    return replace(alert.query, metric=replace(alert.query.metric, unit=unit))


def _rule(alert: Alert, wishes: Wishes, label: str, description: str, body: str) -> Resource:
    by = alert.query.by if label == alert.id else signalflow.missing_by(alert)
    of = "".join(f" · {_dimension(key)}" for key in by)
    told = alert.told_to(wishes)
    return {
        "detect_label": label,
        "severity": _SEVERITIES[alert.severity],
        "description": description,
        "parameterized_subject": f"{{{{#if normal}}}}Resolved: {{{{/if}}}}{alert.title}{of}",
        "parameterized_body": body,
        "tip": alert.first,
        **({"notifications": list(told)} if told else {}),
        **({"runbook_url": f"{wishes.runbook}#{alert.id.lower()}"} if wishes.runbook else {}),
    }


def _limit(alert: Alert, threshold: float) -> str:
    """What the alert waits for, as a sentence."""
    added = f", added up over {_in_words(alert.window)}," if alert.window is not None else ""
    lasting = f" for {_in_words(alert.minutes)}" if alert.minutes else ""
    if _is_state(alert):
        return f"This has been so{lasting}."
    side = "at least" if alert.compare == ">=" else "at most"
    return f"The alert fires when the value{added} is {side} {_with_unit(alert, threshold)}{lasting}."


def _is_state(alert: Alert) -> bool:
    return _watched(alert).metric.unit in _STATES


def _with_unit(alert: Alert, threshold: float) -> str:
    unit = _watched(alert).metric.unit
    number = signalflow.number(threshold)
    if unit == "s" and threshold >= 3600:
        return f"{number} s ({signalflow.number(round(threshold / 3600, 1))} hours)"
    if unit == "1":
        return f"{number} ({signalflow.number(round(100 * threshold, 6))} %)"
    return f"{number}{_after(unit)}"


def _after(unit: str) -> str:
    """What follows a number of this unit: ` s`, ` %`, ` (polls)`; nothing after a share."""
    if unit.startswith("{") and unit.endswith("}"):
        return f" ({unit[1:-1]}s)"
    return "" if unit == "1" else f" {unit}"


def _in_words(minutes: int) -> str:
    """`15 minutes`, `13 hours`, `3 days`."""
    if minutes % 60:
        return f"{minutes} minutes"
    if minutes % (24 * 60) == 0 and minutes > 24 * 60:
        return f"{minutes // (24 * 60)} days"
    return "an hour" if minutes == 60 else f"{minutes // 60} hours"


def _body(alert: Alert, threshold: float) -> str:
    asked = [_asked(alert, query) for query in (alert.change, alert.worst) if query]
    numbers = "\n".join(("The numbers, the highest first, as SignalFlow for a new chart:", *asked))
    ended = _in_words(signalflow.resolves_after(alert))
    parts = (
        _limit(alert, threshold) if _is_state(alert) else f"{_value(alert)} {_limit(alert, threshold)}",
        *_advice(alert, numbers if asked else "", _search(alert)),
    )
    over = f"Resolved: this is no longer so, or nothing was heard of it for {ended}."
    return _message(f"{alert.title}.", alert.query.by, parts, over)


def _value(alert: Alert) -> str:
    return f"The value is {{{{inputs.A.value}}}}{_after(_watched(alert).metric.unit)}."


def _missing_body(alert: Alert, heard: str) -> str:
    forgotten = _in_words(signalflow.FORGOTTEN_AFTER)
    over = f"Resolved: it is heard again, or has been silent for {forgotten} and counts as removed."
    return _message(heard, signalflow.missing_by(alert), _advice(alert), over)


def _message(title: str, by: tuple[str, ...], parts: tuple[str, ...], over: str) -> str:
    """What is said when it fires, and what when it is over; Splunk does not say why it is."""
    group = "\n".join(f"- {key}: {_dimension(key)}" for key in by)
    blocks = ("{{#if anomalous}}" + title, group, *parts, "{{else}}" + over, group + "{{/if}}")
    return "\n\n".join(block for block in blocks if block)


def _advice(alert: Alert, *more: str) -> tuple[str, ...]:
    return (
        f"What it means: {alert.meaning}",
        "What to do first: {{{tip}}}",
        f"Where to look: {alert.look}",
        *more,
        "Runbook: {{#if runbookUrl}}{{{runbookUrl}}}{{else}}" + f"{RUNBOOK}#{alert.id.lower()}" + "{{/if}}",
    )


def _asked(alert: Alert, query: Query) -> str:
    """A line to paste: a message knows no streams but those of its condition, and no group but its own."""
    by = tuple(key for key in query.by if key not in alert.query.by)
    shared = [(key, values) for key, values in _of_the_group(alert) if key in query.by]
    ranked = f"{signalflow.stream(replace(query, by=by), shared)}.top(count={_NAMED})"
    return f"{ranked}.publish({signalflow.literal(_label(query, query.label or alert.title))})"


def _label(query: Query, label: str) -> str:
    words = _IN_WORDS.get(query.metric.unit, "")
    return label if not words or words in label else f"{label} ({words})"


def _search(alert: Alert) -> str:
    if alert.events is None:
        return ""
    found = spl.search(alert.events, _of_the_group(alert))
    return f"The events, as a search for the Splunk platform:\n{found}"


def _of_the_group(alert: Alert) -> list[tuple[str, tuple[str, ...]]]:
    return [(key, (_dimension(key),)) for key in alert.query.by]


def _dimension(key: str) -> str:
    """The value of a dimension; with two braces, Splunk would write its marks as HTML does."""
    return f"{{{{{{dimensions.[{key}]}}}}}}" if "." in key else f"{{{{{{dimensions.{key}}}}}}}"
