"""From the descriptions to the files of a backend. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module

from exporter.assets.alerts import Pace, alerts
from exporter.assets.dashboards import dashboards
from exporter.assets.model import Alert, Dashboard, Wishes
from exporter.errors import ConfigError

Renderer = Callable[[Sequence[Dashboard], Sequence[Alert], Wishes], Mapping[str, str]]


def render(backend: str, wishes: Wishes, pace: Pace = Pace()) -> dict[str, str]:  # noqa: B008 - no change
    """The files of a backend: path → text, sorted by path.

    Args:
        backend: one of `assets.BACKENDS`.
        wishes: what the users decide.
        pace: how often the exporter polls and beats.

    Returns:
        Paths begin with `dashboards/<backend>/` or `alerts/<backend>/`; texts end with a newline.

    Raises:
        ConfigError: a wish that cannot be said in the language of the backend.
    """
    return rendered(backend, _renderer(backend), wishes, pace)


def rendered(backend: str, renderer: Renderer, wishes: Wishes, pace: Pace) -> dict[str, str]:
    """The same, by a renderer that is handed in."""
    files = renderer(dashboards(), wanted(alerts(pace), wishes), wishes)
    return {_placed(path, backend): files[path] for path in sorted(files)}


def wanted(alerts: Iterable[Alert], wishes: Wishes) -> tuple[Alert, ...]:
    """Without those that are off, the others with the thresholds that users chose.

    Raises:
        ConfigError: a threshold that is no number.
    """
    return tuple(_as_wished(alert, wishes) for alert in alerts if alert.id not in wishes.off)


def _as_wished(alert: Alert, wishes: Wishes) -> Alert:
    threshold = float(wishes.thresholds.get(alert.id, alert.threshold))
    if math.isfinite(threshold):
        return replace(alert, threshold=threshold)
    raise ConfigError(
        f"{threshold} is no threshold",
        remedy=f"Write a number; unless set it is {alert.threshold:g}.",
        where=f"alerts.thresholds.{alert.id}",
    )


def _renderer(backend: str) -> Renderer:
    renderer: Renderer = import_module(f"exporter.assets.{backend}").files  # only the one that is asked for
    return renderer


def _placed(path: str, backend: str) -> str:
    """`alerts/DataStale.json` → `alerts/datadog/DataStale.json`."""
    kind, _, name = path.partition("/")
    if kind not in ("dashboards", "alerts") or not name:
        raise ValueError(f"neither a dashboard nor an alert: {path}")
    return f"{kind}/{backend}/{name}"
