"""Splunk Observability: dashboards and detectors as Terraform's JSON, the form its users keep in git. Pure.

The arguments are those of the provider `splunk-terraform/signalfx`, docs/resources.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from exporter.assets.model import Alert, Dashboard, Wishes
from exporter.assets.splunk import signalflow
from exporter.assets.splunk.charts import GROUP, Reference, Resource, dashboard_of, name_of
from exporter.assets.splunk.detectors import detector
from exporter.errors import ConfigError

_ADDRESS = re.compile(r"""https?://[^\s"`<>{}|\\^]+""")
_TERRAFORM = {
    "required_version": ">= 1.0",
    "required_providers": {"signalfx": {"source": "splunk-terraform/signalfx", "version": "~> 9.0"}},
}
_GROUP: Resource = {
    "name": "App Store",
    "description": "What App Store Connect measures of apps in the field, by perfpower-exporter.",
}
_PARTS = {  # of a notification, its kind included, as the provider checks it
    "Email": range(2, 5),
    "Opsgenie": range(5, 6),
    "Slack": range(3, 4),
    "VictorOps": range(3, 4),
    "Webhook": range(4, 5),
    **dict.fromkeys(("AmazonEventBridge", "BigPanda", "Jira", "Office365", "PagerDuty"), range(2, 3)),
    **dict.fromkeys(("ServiceNow", "SplunkPlatform", "Team", "TeamEmail", "XMatters"), range(2, 3)),
}


def files(dashboards: Iterable[Dashboard], alerts: Iterable[Alert], wishes: Wishes) -> dict[str, str]:
    """All files: the path below the output folder → the text.

    `dashboards` and `alerts` are a Terraform module each.

    Raises:
        ConfigError: a wish cannot be written so that it means itself; or a program gets too long.
    """
    _check(wishes)
    found: dict[str, Resource] = {
        "dashboards/versions.tf.json": {"terraform": _TERRAFORM},
        "dashboards/group.tf.json": _resources([("signalfx_dashboard_group", GROUP, _GROUP)]),
        "alerts/versions.tf.json": {"terraform": _TERRAFORM},
    }
    for dashboard in dashboards:
        found[f"dashboards/{dashboard.id}.tf.json"] = _resources(dashboard_of(dashboard, wishes))
    for alert in alerts:
        if alert.about != "collector":  # nothing brings here what the Collector says of itself
            resource = ("signalfx_detector", name_of(alert.id), detector(alert, wishes))
            found[f"alerts/{alert.id}.tf.json"] = _resources([resource])
    return {path: _json(found[path]) for path in sorted(found)}


def _check(wishes: Wishes) -> None:
    for value in (*wishes.services, *wishes.environments):
        if "*" in value:
            raise ConfigError(
                f"{value[:80]!r} has a *, which would also match others",
                remedy="Name each service and environment; none at all means all.",
                where="alerts",
            )
        signalflow.literal(value)
    if wishes.runbook and not (wishes.runbook.isprintable() and _ADDRESS.fullmatch(wishes.runbook)):
        raise ConfigError(
            f"{wishes.runbook[:80]!r} is no address that can stand in a message",
            remedy="Give one that begins with https://, on one line, without spaces, quotes and brackets.",
            where="alerts.runbook",
        )
    for number, notification in enumerate(wishes.notify, 1):
        _check_notification(number, notification)


def _check_notification(number: int, notification: str) -> None:
    kind, *parts = notification.split(",")
    if kind == "Webhook" and any(parts[1:]):
        raise ConfigError(
            f"entry {number} has the secret or the address of a webhook",
            remedy="The files are meant for git. Make a webhook integration in Splunk and name its "
            "credential: `Webhook,credential,,`.",
            where="alerts.notify",
        )
    if 1 + len(parts) in _PARTS.get(kind, ()) and parts[0] and notification.isprintable():
        return
    raise ConfigError(
        f"entry {number} is no notification of Splunk's",  # not its text: a webhook's has a secret
        remedy="Write it as Splunk's Terraform provider does: `Email,team@example.com`, "
        f"`Slack,credential,channel`, `PagerDuty,credential`. Kinds: {', '.join(sorted(_PARTS))}.",
        where="alerts.notify",
    )


def _resources(resources: Iterable[tuple[str, str, Resource]]) -> Resource:
    kinds: dict[str, Resource] = {}
    for kind, name, arguments in resources:
        kinds.setdefault(kind, {})[name] = arguments
    return {"resource": kinds}


def _json(content: Resource) -> str:
    return json.dumps(_escaped(content), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_escaped(one) for one in value]
    if isinstance(value, Reference):
        return f"${{{value.expression}}}"
    if isinstance(value, str):
        return value.replace("${", "$${").replace("%{", "%%{")
    return value
