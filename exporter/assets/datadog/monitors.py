"""Alerts as monitors, as Datadog's API takes them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple

from exporter.assets.datadog.queries import (
    KEYS,
    Term,
    key_of,
    query_text,
    scope_of,
    search_text,
    tag_of,
    terms_of,
)
from exporter.assets.model import Alert, Events, Query, Wishes
from exporter.errors import ConfigError

Json = dict[str, object]

_HANDLE = re.compile(r"@[\w.+/@-]+", re.ASCII)
_ADDRESS = re.compile(r"https?://[\w.~:/?&=%+,;-]+", re.ASCII)  # no @, which would notify somebody
_SHOWN = 200  # characters of a wish in an error
_PRIORITIES = {"critical": 1, "warning": 3, "info": 5}
_FLAG = "{flag}"  # unit of a number that stands for a word, which the title has
_HOUR = 3600
_DAY = 24 * 60  # minutes
_ARITHMETIC_DELAY = 60  # seconds, until all that is reckoned with has come (Datadog, metric monitors)
_ALIKE = ("version", "metric")  # spelled in logs as in tags; platform, device and signature are not


class _Scale(NamedTuple):
    """How a number is told: as it is times `factor` over `divisor`, in `unit`."""

    factor: int
    divisor: int
    unit: str


def monitor(alert: Alert, wishes: Wishes) -> Json:
    """The body of POST /api/v1/monitor.

    Raises:
        ConfigError: a wish that cannot be said in Datadog's language.
    """
    threshold = _threshold(alert)
    return {
        "name": f"App Store: {alert.title}{_of_which(alert)}",
        "type": "query alert",
        "query": _condition(alert, wishes, threshold),
        "message": _message(alert, wishes),
        "priority": _PRIORITIES[alert.severity],
        "tags": ["service:perfpower-exporter", f"about:{alert.about}", f"alert:{alert.id.lower()}"],
        "options": _options(alert, threshold),
    }


def _options(alert: Alert, threshold: float) -> Json:
    """With `default` a silent count is 0, and a silent gauge keeps its status until Datadog forgets the
    group: after a day, and no option of metric monitors makes it longer.
    """
    options: Json = {
        "thresholds": {"critical": threshold},
        "require_full_window": False,
        "include_tags": True,
        "notify_audit": False,
        "renotify_interval": 0,
        "on_missing_data": "default",
    }
    if alert.query.by:  # Datadog refuses these two where there is one group only
        options["new_group_delay"] = alert.minutes * 60
        if _groups(alert) != alert.query.by:
            options["notify_by"] = [key_of(attribute) for attribute in alert.query.by]
    if alert.missing is not None:
        options["on_missing_data"] = "show_and_notify_no_data"
        options |= {"renotify_interval": _DAY, "renotify_statuses": ["alert", "no data"]}
    if alert.over is not None:
        options["evaluation_delay"] = _ARITHMETIC_DELAY
    return options


def _groups(alert: Alert) -> tuple[str, ...]:
    """What is judged by itself: the groups of the alert, and in them each family of devices where the alert
    is about families. Those make sub-groups of one notification.
    """
    return (*alert.query.by, *(attribute for attribute, _ in alert.query.where if attribute == "device"))


def _of_which(alert: Alert) -> str:
    names = ", ".join(f"{key_of(attribute)} {_variable_of(attribute)}" for attribute in alert.query.by)
    return f": {names}" if names else ""


def _variable_of(attribute: str) -> str:
    key = key_of(attribute)
    return f"{{{{{f'[{key}]' if '.' in key else key}.name}}}}"


def _threshold(alert: Alert) -> float:
    """As it is told, which may be in another unit than in the configuration."""
    scale = _scale(alert)
    return float(Decimal(repr(alert.threshold)) * scale.factor / scale.divisor)


def _scale(alert: Alert) -> _Scale:
    """Hours for what is long and percent for what is a share; the rest is told as it is measured."""
    unit = alert.query.metric.unit
    if unit == "1" or alert.over is not None:
        return _Scale(100, 1, " %")
    if unit == "s" and alert.threshold >= _HOUR:
        return _Scale(1, _HOUR, " h")
    return _Scale(1, 1, {"s": " s", "%": " %"}.get(unit, ""))


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
        scope = scope_of((), [*wished, *terms_of(query.conditions)])
        return query_text(replace(query, by=_groups(alert)), scope)

    text = said(alert.query)
    if alert.over is not None:
        text += f" / {said(alert.over)}"
    factor, divisor, _ = _scale(alert)
    return f"{text}{f' * {factor}' if factor > 1 else ''}{f' / {divisor}' if divisor > 1 else ''}"


def _wished(wishes: Wishes) -> list[Term]:
    chosen = (("service", wishes.services), ("env", wishes.environments))
    return [Term(tuple(tag_of(key, value) for value in values)) for key, values in chosen if values]


def _message(alert: Alert, wishes: Wishes) -> str:
    """What is told when it fires, and in a word that it is over; to the same people."""
    handles = _handles(alert, wishes)
    blocks = [_when("is_alert", f"{alert.title}{_of_which(alert)}.{_numbers(alert)}")]
    if alert.missing is not None:
        silence = f"Nothing was heard for {alert.missing} minutes{_of_which(alert)}."
        blocks.append(_when("is_no_data", silence))
    blocks += [
        _when("is_recovery", "It is over."),
        "{{^is_recovery}}",
        f"**What it means.** {alert.meaning}",
        f"**What to do first.** {alert.first}",
        f"**Where to look.** {alert.look} The dashboards are in the list under `App Store:`.",
        *_to_paste(alert),
        f"**Runbook.** {_page(alert, wishes)}",
        "{{/is_recovery}}",
        *handles,
    ]
    return "\n\n".join(blocks)


def _numbers(alert: Alert) -> str:
    """Nothing of a flag, and no threshold that nobody can choose: one is enough there."""
    if alert.query.metric.unit == _FLAG:
        return ""
    unit = _scale(alert).unit
    span = f" in the {_last(alert.window).replace('_', ' ')}" if alert.window else ""
    number = f" The number is {{{{value}}}}{unit}{span}"
    if alert.highest is None:
        return f"{number}."
    side = "more" if alert.compare == ">=" else "less"
    return f"{number}; it counts if it is {{{{threshold}}}}{unit} or {side}."


def _when(state: str, text: str) -> str:
    return f"{{{{#{state}}}}}{text}{{{{/{state}}}}}"


def _to_paste(alert: Alert) -> Iterator[str]:
    """Queries of the group that fired: a message can show no number but the one that is watched."""
    for heading, query in (("How far", alert.change), ("The worst", alert.worst)):
        if query is not None:
            about = query.label.capitalize()
            yield f"**{heading}.** {about}, to paste into a notebook: `{_of_the_group(alert, query)}`"
    if alert.events is not None:
        yield f"**The events.** To paste into the log search: `{_search(alert, alert.events)}`"


def _search(alert: Alert, events: Events) -> str:
    group = [
        f"{'' if attribute in KEYS else '@'}{key_of(attribute)}:{_variable_of(attribute)}"
        for attribute in alert.query.by
        if attribute in (*KEYS, *_ALIKE)
    ]
    return " ".join([search_text(events), *group])


def _of_the_group(alert: Alert, query: Query) -> str:
    shown = tuple(attribute for attribute in query.by if attribute not in alert.query.by)
    group = [Term((f"{key_of(attribute)}:{_variable_of(attribute)}",)) for attribute in alert.query.by]
    # Something constant stands last: three closing braces would be read as another kind of variable.
    last = terms_of(query.conditions) or [Term((f"{key_of(attribute)}:*",)) for attribute in shown]
    text = query_text(replace(query, by=shown), scope_of((), [*group, *last]))
    return f"top({text}, 10, 'last', 'desc')"


def _page(alert: Alert, wishes: Wishes) -> str:
    if wishes.runbook and not _ADDRESS.fullmatch(wishes.runbook):
        raise ConfigError(
            f"{wishes.runbook[:_SHOWN]!r} is no address that can stand in a message",
            remedy="Give one that begins with https:// and has letters, digits and -._~:/?&=%+,; only.",
            where="alerts.runbook",
        )
    return alert.page(wishes)


def _handles(alert: Alert, wishes: Wishes) -> list[str]:
    for handle in wishes.notify:
        if not _HANDLE.fullmatch(handle):
            raise ConfigError(
                f"{handle[:_SHOWN]!r} is nobody whom Datadog could notify",
                remedy="Write a handle as in a monitor's message: @slack-mobile, @team@example.com.",
                where="alerts.notify",
            )
    told = alert.told_to(wishes)
    return [" ".join(told)] if told else []
