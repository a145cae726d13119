"""The alerts as rules of Prometheus, with the tests that `promtool test rules` runs. Pure.

Gauges go by their last value within an hour: a late heartbeat, a restart or a missing poll neither ends an
alert nor begins one, and the exporter's explicit 0 ends it at once. What no 0 ends is held for less,
as the Collector's page shows it for a while longer anyway.
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
from exporter.assets.model import Alert, Dashboard, Query, Wishes
from exporter.assets.prometheus.messages import description, literal, of_silence
from exporter.assets.prometheus.promql import (
    HELD,
    added,
    by,
    duration,
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

_FADING = 20  # minutes, five heartbeats, for what nothing ends but that it comes no more
_GONE = "3d"  # a weekend; after that an account that was taken out on purpose is forgotten
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
    chosen = [_as_wished(alert, wishes) for alert in _all(alerts) if alert.id not in wishes.off]
    labels = routing(wishes.notify, chosen)
    borne = {alert.id: _labels(alert, wishes, labels) for alert in chosen}
    remembered = {alert.id: holding(alert) for alert in chosen}
    return {
        "alerts/rules.yml": _yaml({"groups": list(_groups(chosen, wishes, borne))}),
        "alerts/rules.test.yml": _yaml(rule_tests(chosen, wishes, borne, remembered, PREFIX, NO_DATA)),
    }


def _labels(alert: Alert, wishes: Wishes, labels: Mapping[str, str]) -> dict[str, str]:
    """What the rules of an alert bear: nothing to find people by where nobody is to be told."""
    return {"severity": alert.severity, **(labels if alert.told_to(wishes) else {})}


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


def _as_wished(alert: Alert, wishes: Wishes) -> Alert:
    threshold = float(wishes.thresholds.get(alert.id, alert.threshold))
    if not math.isfinite(threshold):
        raise ConfigError(
            f"{threshold} is no threshold", remedy="Write a number.", where=f"alerts.thresholds.{alert.id}"
        )
    return replace(alert, threshold=threshold)


def _groups(
    alerts: Sequence[Alert], wishes: Wishes, labels: Mapping[str, Mapping[str, str]]
) -> Iterator[dict[str, Any]]:
    """About apps, about the exporter, about the Collector; a group whose alerts are all off is left out."""
    own = {alert.id for alert in collector_alerts()}
    groups: dict[str, list[Alert]] = {"apps": [], "exporter": [], "collector": []}
    for alert in alerts:
        about = "apps" if alert.about == "app" else "exporter"
        groups["collector" if alert.id in own else about].append(alert)
    for name, members in groups.items():
        if rules := [rule for alert in members for rule in rules_of(alert, wishes, labels[alert.id])]:
            yield {"name": f"app-store-{name}", "interval": "1m", "rules": rules}


def rules_of(alert: Alert, wishes: Wishes, labels: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """An alert's rule, and where silence counts as well, a second one for that.

    Args:
        labels: what both bear.
    """
    of_app = matchers(wishes) if alert.about == "app" else []
    address = whole_text(wishes.runbook or RUNBOOK, "alerts.runbook")
    lasting = {"for": duration(alert.minutes)} if alert.minutes else {}
    told = {"summary": f"{literal(alert.title)}.", "description": description(alert, of_app)}
    runbook = {"runbook_url": literal(f"{address}#{alert.id.lower()}")}
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
        return held(query, of_app, holding(alert))

    beyond = f"{alert.compare} {alert.threshold:.15g}"
    value = value_of(alert.query)
    if alert.times and alert.times == alert.over:  # which is 1 where there is one
        return f"{value} {beyond}\n  and {value_of(alert.times)}"
    if alert.times:
        value += f"\n  * {value_of(alert.times)}"
    if alert.over:
        value += f"\n  / {value_of(alert.over)}"
    return f"{value} {beyond}"


def holding(alert: Alert) -> int:
    """The minutes that it goes by the last value: with rare heartbeats, as long as a few of them take."""
    return max(_FADING if alert.fades else HELD, alert.minutes)


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


class _Readable(yaml.SafeDumper):
    """Writes text of several lines as a block, and nothing by reference."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the library's signature
        return True


def _text(dumper: _Readable, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


def _yaml(content: Mapping[str, Any]) -> str:
    return yaml.dump(dict(content), Dumper=_Readable, sort_keys=False, allow_unicode=True, width=1000)
