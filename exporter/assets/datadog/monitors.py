"""Alerts as monitors, as Datadog's API takes them. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

from exporter.assets.alerts import RUNBOOK
from exporter.assets.datadog.queries import Term, key_of, query_text, scope_of, tag_of, terms_of
from exporter.assets.model import Alert, Query, Wishes
from exporter.errors import ConfigError

Json = dict[str, object]

_HANDLE = re.compile(r"@[\w.+/@-]+", re.ASCII)
_ADDRESS = re.compile(r"https?://[\w.~:/?&=%+,;-]+", re.ASCII)  # no @, which would notify somebody
_SHOWN = 200  # characters of a wish in an error
_PRIORITIES = {"critical": 1, "warning": 3, "info": 5}


def monitor(alert: Alert, wishes: Wishes) -> Json:
    """The body of POST /api/v1/monitor.

    Raises:
        ConfigError: a wish that cannot be said in Datadog's language.
    """
    threshold = _threshold(alert, wishes)
    options: Json = {
        "thresholds": {"critical": threshold},
        "require_full_window": False,
        "include_tags": True,
        "notify_audit": False,
        "renotify_interval": 0,
        "new_group_delay": alert.minutes * 60,
        "on_missing_data": "default" if alert.missing is None else "show_and_notify_no_data",
    }
    if _groups(alert) != alert.query.by:
        options["notify_by"] = [key_of(attribute) for attribute in alert.query.by]
    return {
        "name": f"{alert.title}{_of_which(alert)}",
        "type": "query alert",
        "query": _condition(alert, wishes, threshold),
        "message": _message(alert, wishes),
        "priority": _PRIORITIES[alert.severity],
        "tags": ["service:perfpower-exporter", f"about:{alert.about}", f"alert:{alert.id.lower()}"],
        "options": options,
    }


def _groups(alert: Alert) -> tuple[str, ...]:
    """What is judged by itself. What only the worst are told apart by makes sub-groups of a notification.

    Not where missing data tells something: an app that is no longer polled would be missed.
    """
    further = alert.worst.by if alert.worst and alert.missing is None else ()
    return (*alert.query.by, *(attribute for attribute in further if attribute not in alert.query.by))


def _of_which(alert: Alert) -> str:
    names = ", ".join(f"{key_of(attribute)} {_variable_of(attribute)}" for attribute in alert.query.by)
    return f": {names}" if names else ""


def _variable_of(attribute: str) -> str:
    return f"{{{{{key_of(attribute)}.name}}}}"


def _threshold(alert: Alert, wishes: Wishes) -> float:
    threshold = wishes.thresholds.get(alert.id, alert.threshold)
    if not math.isfinite(threshold):
        raise ConfigError(
            f"the threshold of {alert.id} is {threshold}",
            remedy=f"Give a number; unless set it is {_number(alert.threshold)}.",
            where=f"alerts.thresholds.{alert.id}",
        )
    return threshold


def _number(value: float) -> str:
    """In plain digits: Datadog's queries know no exponents."""
    return format(Decimal(repr(int(value) if value == int(value) else value)), "f")


def _condition(alert: Alert, wishes: Wishes, threshold: float) -> str:
    """All through the minutes means: the least of them is beyond the threshold, or the greatest below it.

    Datadog looks for missing data in the same minutes, so they are as many as data may be missing.
    """
    if alert.window is not None:
        window = f"sum({_last(alert.window)})"
    else:
        window = f"{_least(alert)}({_last(max(alert.minutes, alert.missing or 0))})"
    return f"{window}:{_expression(alert, wishes)} {alert.compare} {_number(threshold)}"


def _least(alert: Alert) -> str:
    return "min" if alert.compare == ">=" else "max"


def _last(minutes: int) -> str:
    for length, unit in ((24 * 60, "d"), (60, "h")):
        if minutes % length == 0:
            return f"last_{minutes // length}{unit}"
    return f"last_{minutes}m"


def _expression(alert: Alert, wishes: Wishes) -> str:
    wished = _wished(wishes) if alert.about == "app" else []

    def said(query: Query) -> str:
        scope = scope_of((), [*wished, *terms_of(query.where)])
        return query_text(replace(query, by=_groups(alert)), scope)

    text = said(alert.query)
    if alert.times is not None:
        text += f" * {said(alert.times)}"
    if alert.over is not None:
        text += f" / {said(alert.over)}"
    return text


def _wished(wishes: Wishes) -> list[Term]:
    chosen = (("service", wishes.services), ("env", wishes.environments))
    return [Term(tuple(tag_of(key, value) for value in values)) for key, values in chosen if values]


def _message(alert: Alert, wishes: Wishes) -> str:
    """What is told when it fires, and in a word that it is over; to the same people."""
    unit = "" if alert.over or alert.times else {"s": " s", "%": " %"}.get(alert.query.metric.unit, "")
    number = f"The number is {{{{value}}}}{unit}; it counts from {{{{threshold}}}}{unit} on."
    blocks = [_when("is_alert", f"{alert.title}{_of_which(alert)}. {number}")]
    if alert.missing is not None:
        silence = f"Nothing was heard for {alert.missing} minutes{_of_which(alert)}."
        blocks.append(_when("is_no_data", silence))
    blocks += [
        _when("is_recovery", "It is over."),
        "{{^is_recovery}}",
        f"**What it means.** {alert.meaning}",
        f"**What to do first.** {alert.first}",
        f"**Where to look.** {alert.look}",
        *_to_paste(alert),
        f"**Runbook.** {_runbook(wishes)}#{alert.id.lower()}",
        "{{/is_recovery}}",
        *_handles(wishes),
    ]
    return "\n\n".join(blocks)


def _when(state: str, text: str) -> str:
    return f"{{{{#{state}}}}}{text}{{{{/{state}}}}}"


def _to_paste(alert: Alert) -> Iterator[str]:
    """Queries of the group that fired: a message can show no number but the one that is watched."""
    if alert.change is not None:
        yield f"**How far.** In a notebook, {alert.change.label}: `{_of_the_group(alert, alert.change)}`"
    if alert.worst is not None:
        yield f"**The worst.** In a notebook, by {alert.worst.label}: `{_of_the_group(alert, alert.worst)}`"


def _of_the_group(alert: Alert, query: Query) -> str:
    shown = tuple(attribute for attribute in query.by if attribute not in alert.query.by)
    group = [Term((f"{key_of(attribute)}:{_variable_of(attribute)}",)) for attribute in alert.query.by]
    # Something constant stands last: three closing braces would be read as another kind of variable.
    last = terms_of(query.where) or [Term((f"{key_of(attribute)}:*",)) for attribute in shown]
    text = query_text(replace(query, by=shown), scope_of((), [*group, *last]))
    return f"top({text}, 10, 'last', 'desc')"


def _runbook(wishes: Wishes) -> str:
    address = wishes.runbook or RUNBOOK
    if wishes.runbook and not _ADDRESS.fullmatch(address):
        raise ConfigError(
            f"{address[:_SHOWN]!r} is no address that can stand in a message",
            remedy="Give one that begins with https:// and has letters, digits and -._~:/?&=%+,; only.",
            where="alerts.runbook",
        )
    return address


def _handles(wishes: Wishes) -> list[str]:
    for handle in wishes.notify:
        if not _HANDLE.fullmatch(handle):
            raise ConfigError(
                f"{handle[:_SHOWN]!r} is nobody whom Datadog could notify",
                remedy="Write a handle as in a monitor's message: @slack-mobile, @team@example.com.",
                where="alerts.notify",
            )
    return [" ".join(wishes.notify)] if wishes.notify else []
