"""Detectors of Splunk Observability: a condition in SignalFlow, and what its messages say. Pure."""

from __future__ import annotations

from dataclasses import replace

from exporter.assets.alerts import RUNBOOK
from exporter.assets.model import ENVIRONMENT, SERVICE, Alert, Query, Wishes
from exporter.assets.splunk import signalflow
from exporter.assets.splunk.charts import Resource, viz
from exporter.assets.splunk.signalflow import Filters

_MAX_DELAY = 60  # seconds; a heartbeat's points bear its time and arrive at once
_NAMED = 3
_SEVERITIES = {"critical": "Critical", "warning": "Warning", "info": "Info"}


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
    limit = f"The value is {_limit(alert, threshold)}."
    rules = [_rule(alert, wishes, alert.id, limit, _body(alert, threshold))]
    if alert.missing is not None:
        heard = f"Nothing was heard for {signalflow.duration(alert.missing)}."
        rules.append(
            _rule(alert, wishes, signalflow.missing_label(alert), heard, _missing_body(alert, heard))
        )
    return {
        "name": f"App Store: {alert.title}",
        "description": alert.meaning,
        "program_text": signalflow.bounded(signalflow.detector(alert, threshold, filters)),
        "max_delay": _MAX_DELAY,
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
    return {
        "detect_label": label,
        "severity": _SEVERITIES[alert.severity],
        "description": description,
        "parameterized_subject": f"{{{{#if normal}}}}Resolved: {{{{/if}}}}{alert.title}{of}",
        "parameterized_body": body,
        "tip": alert.first,
        **({"notifications": list(wishes.notify)} if wishes.notify else {}),
        **({"runbook_url": f"{wishes.runbook}#{alert.id.lower()}"} if wishes.runbook else {}),
    }


def _limit(alert: Alert, threshold: float) -> str:
    side = "at least" if alert.compare == ">=" else "at most"
    added = f", added up over {signalflow.duration(alert.window)}" if alert.window is not None else ""
    lasting = f", for {signalflow.duration(alert.minutes)}" if alert.minutes else ""
    return f"{side} {signalflow.number(threshold)}{added}{lasting}"


def _body(alert: Alert, threshold: float) -> str:
    by = "\n".join(f"- {key}: {_dimension(key)}" for key in alert.query.by)
    asked = [_asked(alert, query) for query in (alert.change, alert.worst) if query]
    numbers = "\n".join(("The numbers, the highest first, as SignalFlow for a new chart:", *asked))
    parts = (
        "{{#if anomalous}}" + alert.title + ".",
        by,
        f"The value is {{{{inputs.A.value}}}}. The alert fires when it is {_limit(alert, threshold)}.",
        *_advice(alert, numbers if asked else ""),
        "{{else}}Resolved: the value is {{inputs.A.value}}.",
        by + "{{/if}}",
    )
    return "\n\n".join(part for part in parts if part)


def _missing_body(alert: Alert, heard: str) -> str:
    by = "\n".join(f"- {key}: {_dimension(key)}" for key in signalflow.missing_by(alert))
    parts = (
        "{{#if anomalous}}" + heard,
        by,
        *_advice(alert, ""),
        "{{else}}Resolved: it is heard again.",
        by + "{{/if}}",
    )
    return "\n\n".join(part for part in parts if part)


def _advice(alert: Alert, numbers: str) -> tuple[str, ...]:
    return (
        f"What it means: {alert.meaning}",
        "What to do first: {{{tip}}}",
        f"Where to look: {alert.look}",
        numbers,
        "Runbook: {{#if runbookUrl}}{{{runbookUrl}}}{{else}}" + f"{RUNBOOK}#{alert.id.lower()}" + "{{/if}}",
    )


def _asked(alert: Alert, query: Query) -> str:
    """A line to paste: a message knows no streams but those of its condition, and no group but its own."""
    shared = [(key, (_dimension(key),)) for key in alert.query.by if key in query.by]
    by = tuple(key for key in query.by if key not in alert.query.by)
    ranked = f"{signalflow.stream(replace(query, by=by), shared)}.top(count={_NAMED})"
    return f"{ranked}.publish({signalflow.literal(query.label or alert.title)})"


def _dimension(key: str) -> str:
    return f"{{{{dimensions.[{key}]}}}}" if "." in key else f"{{{{dimensions.{key}}}}}"
