"""The alerts as rules of Prometheus, with the tests that `promtool test rules` runs. Pure.

Gauges go by their last value within an hour: a late heartbeat, a restart or a missing poll neither ends an
alert nor begins one, and the exporter's explicit 0 ends it at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from exporter.assets.alerts import RUNBOOK
from exporter.assets.collector_alerts import collector_alerts
from exporter.assets.model import ENVIRONMENT, SERVICE, Alert, Dashboard, Query, Wishes
from exporter.assets.prometheus.promql import (
    added,
    by,
    duration,
    held,
    label,
    matchers,
    quoted,
    selector,
    whole_text,
)
from exporter.assets.prometheus.rule_tests import rule_tests
from exporter.errors import ConfigError

PREFIX = "AppStore"
"""What the names of all rules begin with."""
NO_DATA = "NoData"
"""What the name of the rule about silence ends with: promtool warns of two rules by one name."""

_GONE = "3d"  # a weekend; after that an account that was taken out on purpose is forgotten
_WORDS = {SERVICE: "service", ENVIRONMENT: "environment"}
_NO_NUMBER = ("{flag}", "{band}")
_LABEL = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)=(.+)", re.DOTALL)
_TAKEN = ("alertname", "alertstate", "severity")
_SHOWN = {
    "s": "{{ $ | humanizeDuration }}",
    "s/h": "{{ $ | humanizeDuration }} an hour",
    "By": "{{ $ | humanize }}B",
    "By/d": "{{ $ | humanize }}B a day",
    "1": "{{ $ | humanizePercentage }}",
    "%": "{{ $ | humanize }} %",
    "{termination}/d": "{{ $ | humanize }} a day",
}


def files(dashboards: Sequence[Dashboard], alerts: Sequence[Alert], wishes: Wishes) -> dict[str, str]:
    """Path → text: the rules, and their unit tests beside them.

    Args:
        dashboards: not needed; charts on Prometheus are Grafana's.

    Raises:
        ConfigError: a wish that cannot be said in Prometheus.
    """
    del dashboards
    chosen = [_as_wished(alert, wishes) for alert in _all(alerts) if alert.id not in wishes.off]
    labels = routing(wishes.notify, chosen)
    return {
        "alerts/rules.yml": _yaml({"groups": list(_groups(chosen, wishes, labels))}),
        "alerts/rules.test.yml": _yaml(rule_tests(chosen, wishes, labels, PREFIX, NO_DATA)),
    }


def _all(alerts: Sequence[Alert]) -> tuple[Alert, ...]:
    return (*alerts, *collector_alerts())


def routing(notify: Iterable[str], alerts: Iterable[Alert]) -> dict[str, str]:
    """The labels by which an Alertmanager finds whom to tell: `team=mobile`, as it writes them itself.

    Raises:
        ConfigError: no such pair, a name twice, or one that the alerts have their own use for.
    """
    taken = {*_TAKEN, *(label(name) for alert in alerts for name in alert.query.by)}
    labels: dict[str, str] = {}
    for pair in notify:
        found = _LABEL.fullmatch(pair)
        if not found or found[1] in (*labels, *taken) or found[1].startswith("__"):
            raise ConfigError(
                f"{pair!a} is no label that the rules of Prometheus could bear",
                remedy="Write name=value, such as team=mobile, each name once; an Alertmanager routes by it.",
                where="alerts.notify",
            )
        labels[found[1]] = whole_text(found[2], "alerts.notify")
    return labels


def _as_wished(alert: Alert, wishes: Wishes) -> Alert:
    threshold = float(wishes.thresholds.get(alert.id, alert.threshold))
    if not math.isfinite(threshold):
        raise ConfigError(
            f"{threshold} is no threshold", remedy="Write a number.", where=f"alerts.thresholds.{alert.id}"
        )
    return replace(alert, threshold=threshold)


def _groups(alerts: Sequence[Alert], wishes: Wishes, labels: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """About apps, about the exporter, about the Collector; a group whose alerts are all off is left out."""
    own = {alert.id for alert in collector_alerts()}
    groups: dict[str, list[Alert]] = {"apps": [], "exporter": [], "collector": []}
    for alert in alerts:
        about = "apps" if alert.about == "app" else "exporter"
        groups["collector" if alert.id in own else about].append(alert)
    for name, members in groups.items():
        if rules := [rule for alert in members for rule in rules_of(alert, wishes, labels)]:
            yield {"name": f"app-store-{name}", "interval": "1m", "rules": rules}


def rules_of(alert: Alert, wishes: Wishes, labels: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """An alert's rule, and where silence counts as well, a second one for that."""
    of_app = matchers(wishes) if alert.about == "app" else []
    address = whole_text(wishes.runbook or RUNBOOK, "alerts.runbook")
    lasting = {"for": duration(alert.minutes)} if alert.minutes else {}
    told = {"summary": f"{_literal(alert.title)}.", "description": _description(alert, of_app)}
    runbook = {"runbook_url": _literal(f"{address}#{alert.id.lower()}")}
    texts = {name: _literal(text) for name, text in labels.items()}
    begin = {"alert": f"{PREFIX}{alert.id}"}
    end = {"labels": {"severity": alert.severity, **texts}}
    yield {**begin, "expr": condition(alert, of_app), **lasting, **end, "annotations": {**told, **runbook}}
    if alert.missing:
        told["description"] = _of_silence(alert)
        begin["alert"] += NO_DATA
        yield {**begin, "expr": _silence(alert), **lasting, **end, "annotations": {**told, **runbook}}


def condition(alert: Alert, of_app: Sequence[str]) -> str:
    """When the alert's rule is pending or firing.

    Args:
        of_app: matchers for the apps that are watched.
    """
    window = duration(alert.window) if alert.window else ""
    value = added(alert.query, window, of_app) if window else held(alert.query, of_app)
    beyond = f"{alert.compare} {_number(alert.threshold)}"
    if alert.times and alert.times == alert.over:  # which is 1 where there is one
        return f"{value} {beyond}\n  and {held(alert.times, of_app)}"
    if alert.times:
        value += f"\n  * {held(alert.times, of_app)}"
    if alert.over:
        value += f"\n  / {held(alert.over, of_app)}"
    return f"{value} {beyond}"


def _silence(alert: Alert) -> str:
    """Nothing for so long: of one that was heard of within days, or of any at all.

    By the first of the group, which is the account: one alert, and not one for each of its apps.
    """
    series, first = selector(alert.query), by(alert.query.by[:1])
    lately = f"last_over_time({series}[{duration(alert.missing or 0)}])"
    return (
        f"(max_over_time((max{first} ({series}))[{_GONE}:15m])\n"
        f"  unless max{first} ({lately}))\n"
        f"or absent_over_time({series}[{_GONE}])"
    )


def _description(alert: Alert, of_app: Sequence[str]) -> str:
    group = ", ".join(f"{_word(name)} {{{{ $labels.{label(name)} }}}}" for name in alert.query.by)
    numbers = (_highest(query, alert, of_app) for query in (alert.change, alert.worst) if query)
    parts = (group, _literal(alert.meaning), _value(alert), *numbers, *_advice(alert))
    return "\n".join(part for part in parts if part)


def _of_silence(alert: Alert) -> str:
    names = [(label(name), _word(name)) for name in alert.query.by[:1]]
    group = "".join(f"{{{{ with $labels.{key} }}}}{word} {{{{ . }}}}: {{{{ end }}}}" for key, word in names)
    silence = f"{group}nothing was heard of the exporter for {duration(alert.missing or 0)}."
    causes = "It has stopped, or what it sends does not get here. Charts end, or show the last that came."
    return "\n".join((silence, causes, *_advice(alert)))


def _advice(alert: Alert) -> tuple[str, str]:
    return f"First: {_literal(alert.first)}", f"Where to look: {_literal(alert.look)}"


def _value(alert: Alert) -> str:
    ratio = alert.over and alert.over != alert.times
    unit = "1" if ratio else alert.query.metric.unit
    if unit in _NO_NUMBER:
        return ""
    side = "more" if alert.compare == ">=" else "less"
    return f"Now {_shown('$value', unit)}; the limit is {_limit(alert.threshold, unit)} or {side}."


def _highest(query: Query, alert: Alert, of_app: Sequence[str]) -> str:
    """The three highest of a query within the group that fires, asked for when it does."""
    by_of_alert = alert.query.by
    same = [label(name) for name in query.by if name in by_of_alert]
    others = [name for name in query.by if name not in by_of_alert]
    of_group = [f"{name}=%q" for name in same]
    ask = quoted(f"topk(3, {held(replace(query, by=tuple(others)), [*of_app, *of_group])})")
    group = " ".join(f"$labels.{name}" for name in same)
    names = " ".join(f"{{{{ $one.Labels.{label(name)} }}}}" for name in others)
    return (
        f"{{{{ with query (printf {ask} {group}) }}}}Highest {query.label}: "
        f"{{{{ range $place, $one := . }}}}{{{{ if $place }}}}, {{{{ end }}}}{names} "
        f"{_shown('$one.Value', query.metric.unit)}{{{{ end }}}}.{{{{ end }}}}"
    )


def _shown(value: str, unit: str) -> str:
    """A number of the template with its unit."""
    return _SHOWN.get(unit, "{{ $ | humanize }}").replace("$", value)


def _limit(number: float, unit: str) -> str:
    if unit == "s":
        return f"{number / 3600:g} h"
    return (
        f"{number:.4%}".replace(".0000%", "%")
        if unit == "1"
        else _number(number) + (" %" if unit == "%" else "")
    )


def _number(number: float) -> str:
    return f"{number:.15g}"


def _word(attribute: str) -> str:
    return _WORDS.get(attribute, attribute)


def _literal(text: str) -> str:
    """Text that Go's templates leave as it is."""
    return text.replace("{{", '{{ "{{" }}')


class _Readable(yaml.SafeDumper):
    """Writes text of several lines as a block, and nothing by reference."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the library's signature
        return True


def _text(dumper: _Readable, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


def _yaml(content: Mapping[str, Any]) -> str:
    return yaml.dump(dict(content), Dumper=_Readable, sort_keys=False, allow_unicode=True, width=1000)
