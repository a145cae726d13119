"""Alerts as monitors, as Datadog's API takes them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Literal, NamedTuple

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
from exporter.assets.model import Alert, Events, Query, Wishes, duration
from exporter.errors import ConfigError

Json = dict[str, object]

_HANDLE = re.compile(r"@[\w.+/@-]+", re.ASCII)
_ADDRESS = re.compile(r"https?://[\w.~:/?&=%+,;-]+", re.ASCII)  # no @, which would notify somebody
_SHOWN = 200  # characters of a wish in an error
_PRIORITIES = {"critical": 1, "warning": 3, "info": 5}
_HOUR = 3600
_DAY = 24 * 60  # minutes
_ARITHMETIC_DELAY = 60  # seconds, until all that is reckoned with has come (Datadog, metric monitors)
_ALIKE = ("version", "metric")  # spelled in logs as in tags; platform, device and signature are not
_OF_MODELS = ("device", "!all_*")  # they have a name, which says more than `iphone15_2`


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
    if alert.query.by:  # Datadog refuses it where there is one group only
        options["new_group_delay"] = alert.minutes * 60
    if alert.missing is not None:
        options["on_missing_data"] = "show_and_notify_no_data"
        options |= {"renotify_interval": _DAY, "renotify_statuses": ["alert", "no data"]}
    if alert.over is not None:
        options["evaluation_delay"] = _ARITHMETIC_DELAY
    return options


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
    unit = alert.unit
    if unit == "1":
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
    return f"last_{duration(minutes)}"


def _expression(alert: Alert, wishes: Wishes) -> str:
    wished = _wished(wishes) if alert.about == "app" else []

    def said(query: Query) -> str:
        return query_text(query, scope_of((), [*wished, *terms_of(query.conditions)]))

    text = said(alert.query)
    if alert.over is not None:
        text += f" / {said(alert.over)}"
    factor, divisor, _ = _scale(alert)
    return f"{text}{f' * {factor}' if factor > 1 else ''}{f' / {divisor}' if divisor > 1 else ''}"


def _wished(wishes: Wishes) -> list[Term]:
    return [
        Term(tuple(tag_of(key_of(attribute), value) for value in values))
        for attribute, values in wishes.chosen.items()
        if values
    ]


def _message(alert: Alert, wishes: Wishes) -> str:
    """What is told when it fires, and in a word that it is over; to the same people."""
    handles = _handles(alert, wishes)
    blocks = [_when("is_alert", f"{alert.title}{_of_which(alert)}.{_numbers(alert)}")]
    if alert.missing is not None:
        silence = f"`{alert.query.metric.name}` has not come for {alert.missing} minutes{_of_which(alert)}."
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
    if alert.query.metric.is_flag:
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
    if alert.change is not None:
        yield _pasted("How far", alert.change.label, _ranked(_in_group(alert, alert.change)))
    if alert.worst is not None:
        if alert.query.metric.is_flag:
            value = replace(alert.worst, where=alert.query.where)
            yield _pasted("The value", "of each version", f"`{_in_group(alert, value, 'all')}`")
        yield _pasted("The worst", *_worst(alert, alert.worst))
    if alert.events is not None:
        yield f"**The events.** To paste into the log search: `{_search(alert, alert.events)}`"


def _pasted(heading: str, about: str, code: str) -> str:
    return f"**{heading}.** {about[:1].upper()}{about[1:]}, to paste into a notebook: {code}"


def _worst(alert: Alert, worst: Query) -> tuple[str, str]:
    """What it is, and how to ask for it. A notebook reckons, where a message cannot."""
    if _OF_MODELS in worst.where:
        worst = replace(worst, by=(*worst.by, "device_name"))
    this = _in_group(alert, worst)
    if alert.worst_by_change:
        others = _in_group(alert, replace(worst, join="avg"), "others")
        about = f"{worst.label}, change against the versions before (percent)"
        return about, _reckoned(this, others, "(a / b - 1) * 100")
    if alert.worst_where is not None:
        about = f"{alert.worst_where.label}, 0 of the others"
        return about, _reckoned(this, _in_group(alert, alert.worst_where), "a * b")
    return worst.label, _ranked(this)


def _ranked(text: str) -> str:
    return f"`{_top(text)}`"


def _reckoned(a: str, b: str, formula: str) -> str:
    """Two queries, and the formula over them."""
    return f"as query a `{a}`, as query b `{b}`, and as formula `{_top(formula)}`"


def _top(text: str) -> str:
    return f"top({text}, 10, 'last', 'desc')"


def _in_group(alert: Alert, query: Query, versions: Literal["this", "others", "all"] = "this") -> str:
    """A query within the group that fired, of its version, of the others, or of each by itself."""
    named = [attribute for attribute in alert.query.by if attribute != "version" or versions != "all"]
    group = [
        Term(
            (f"{key_of(attribute)}:{_variable_of(attribute)}",),
            attribute == "version" and versions == "others",
        )
        for attribute in named
    ]
    shown = tuple(attribute for attribute in query.by if attribute not in named)
    # Something constant stands last: three closing braces would be read as another kind of variable.
    last = terms_of(query.conditions) or [Term((f"{key_of(attribute)}:*",)) for attribute in shown]
    return query_text(replace(query, by=shown), scope_of((), [*group, *last]))


def _search(alert: Alert, events: Events) -> str:
    group = [
        f"{'' if attribute in KEYS else '@'}{key_of(attribute)}:{_variable_of(attribute)}"
        for attribute in alert.query.by
        if attribute in (*KEYS, *_ALIKE)
    ]
    return " ".join([search_text(events), *group])


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
