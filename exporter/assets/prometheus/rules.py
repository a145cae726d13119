"""The alerts as rules of Prometheus, with the tests that `promtool test rules` runs. Pure.

Gauges go by their last value for as long as the alert says: a late heartbeat, a restart, an outage or a day
without data of Apple's neither ends an alert nor begins one, and the exporter's explicit 0 ends it at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from exporter.assets.model import Alert, Dashboard, Query, Wishes, duration
from exporter.assets.prometheus.messages import description, literal, of_silence
from exporter.assets.prometheus.promql import (
    GONE,
    added,
    by,
    held,
    label,
    matchers,
    selector,
    whole_text,
)
from exporter.assets.prometheus.rule_tests import rule_tests
from exporter.errors import ConfigError

PREFIX = "AppStore"
"""What the names of all rules begin with."""
NO_DATA = "NoData"
"""What the name of the rule about silence ends with: promtool warns of two rules by one name."""

_GROUPS = {"app": ("apps", "3m"), "pipeline": ("exporter", "1m"), "collector": ("collector", "1m")}
"""What alerts are about → the group of rules, and how often it is evaluated: less often where days are read,
and often enough for ALERTS, which Prometheus shows for five minutes.
"""
_LABEL = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)=(.+)", re.DOTALL)
_TAKEN = ("alertname", "alertstate", "severity")


def files(dashboards: Sequence[Dashboard], alerts: Sequence[Alert], wishes: Wishes) -> dict[str, str]:
    """Path → text: the rules, and their unit tests beside them.

    Args:
        dashboards: not needed; charts on Prometheus are Grafana's.

    Raises:
        ConfigError: a wish that cannot be said in Prometheus.
    """
    del dashboards
    labels = routing(wishes.notify, alerts)
    borne = {alert.id: _labels(alert, wishes, labels) for alert in alerts}
    return {
        "alerts/rules.yml": _yaml({"groups": list(_groups(alerts, wishes, borne))}),
        "alerts/rules.test.yml": _yaml(rule_tests(alerts, wishes, borne, PREFIX, NO_DATA)),
    }


def _labels(alert: Alert, wishes: Wishes, labels: Mapping[str, str]) -> dict[str, str]:
    """What the rules of an alert bear: nothing to find people by where nobody is to be told."""
    return {"severity": alert.severity, **(labels if alert.told_to(wishes) else {})}


def routing(notify: Iterable[str], alerts: Iterable[Alert]) -> dict[str, str]:
    """The labels by which an Alertmanager finds whom to tell: `team=mobile`, as it writes them itself.

    Raises:
        ConfigError: no such pair, a name twice, or one that the alerts have their own use for.
    """
    taken = {*_TAKEN, *(label(name) for alert in alerts for name in alert.query.by)}
    labels: dict[str, str] = {}
    for pair in notify:
        found = _LABEL.fullmatch(pair)
        if not found or found[1].startswith("__"):
            raise _unfit(f"{pair!a} is no label that the rules of Prometheus could bear")
        if found[1] in taken:
            raise _unfit(f"The label {found[1]} of {pair!a} is taken: the rules have their own")
        if found[1] in labels:
            raise _unfit(f"The label {found[1]} of {pair!a} is there already, and a rule bears it once")
        labels[found[1]] = whole_text(found[2], "alerts.notify")
    return labels


def _unfit(what: str) -> ConfigError:
    remedy = "Write name=value, such as team=mobile, each name once; an Alertmanager routes by it."
    return ConfigError(what, remedy=remedy, where="alerts.notify")


def _groups(
    alerts: Sequence[Alert], wishes: Wishes, labels: Mapping[str, Mapping[str, str]]
) -> Iterator[dict[str, Any]]:
    """About apps, about the exporter, about the Collector; a group whose alerts are all off is left out."""
    for about, (name, interval) in _GROUPS.items():
        members = [alert for alert in alerts if alert.about == about]
        if rules := [rule for alert in members for rule in rules_of(alert, wishes, labels[alert.id])]:
            yield {"name": f"app-store-{name}", "interval": interval, "rules": rules}


def rules_of(alert: Alert, wishes: Wishes, labels: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """An alert's rule, and where silence counts as well, a second one for that.

    Args:
        labels: what both bear.
    """
    of_app = matchers(wishes) if alert.about == "app" else []
    page = whole_text(alert.page(wishes), "alerts.runbook")
    lasting = {"for": duration(alert.minutes)} if alert.minutes else {}
    told = {"summary": f"{literal(alert.title)}.", "description": description(alert, of_app)}
    runbook = {"runbook_url": literal(page)}
    begin = {"alert": f"{PREFIX}{alert.id}"}
    end = {"labels": {name: literal(text) for name, text in labels.items()}}
    yield {**begin, "expr": condition(alert, of_app), **lasting, **end, "annotations": {**told, **runbook}}
    if alert.missing:
        told["description"] = of_silence(alert)
        begin["alert"] += NO_DATA
        yield {**begin, "expr": _silence(alert), **lasting, **end, "annotations": {**told, **runbook}}


def condition(alert: Alert, of_app: Sequence[str]) -> str:
    """When the alert's rule is pending or firing.

    Args:
        of_app: matchers for the apps that are watched.
    """

    def value_of(query: Query) -> str:
        if alert.window:
            return added(query, duration(alert.window), of_app)
        return held(query, of_app, alert.held)

    value = value_of(alert.query)
    if alert.over:
        value += f"\n  / {value_of(alert.over)}"
    return f"{value} {alert.compare} {alert.threshold:.15g}"


def _silence(alert: Alert) -> str:
    """Nothing for so long: of one that was heard of before, or of any at all.

    It looks back as far as Prometheus surely remembers, since an exporter that stopped stays so until
    somebody comes. An account that was taken out on purpose is forgotten then; silence it until then. There
    are few such series: to read all each minute is cheap, and steps could miss one seen now and then.
    """
    series, groups = selector(alert.heard or alert.query), by(alert.query.by)
    ever, lately = (
        f"max{groups} (last_over_time({series}[{duration(minutes)}]))"
        for minutes in (GONE, alert.missing or 0)
    )
    return f"({ever}\n  unless {lately})\nor absent_over_time({series}[{duration(GONE)}])"


class _Readable(yaml.SafeDumper):
    """Writes text of several lines as a block, and nothing by reference."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the library's signature
        return True


def _text(dumper: _Readable, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


def _yaml(content: Mapping[str, Any]) -> str:
    return yaml.dump(dict(content), Dumper=_Readable, sort_keys=False, allow_unicode=True, width=1000)
