"""From the descriptions to the files of a backend. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from exporter.assets.alerts import BETWEEN_POLLS, HEARTBEAT, alerts
from exporter.assets.dashboards import dashboards
from exporter.assets.model import Alert, Dashboard, Wishes

Renderer = Callable[[Sequence[Dashboard], Sequence[Alert], Wishes], Mapping[str, str]]


def render(
    backend: str, wishes: Wishes, between_polls: float = BETWEEN_POLLS, heartbeat: float = HEARTBEAT
) -> dict[str, str]:
    """The files of a backend: path → text, sorted by path.

    Args:
        backend: one of `assets.BACKENDS`.
        wishes: what the users decide.
        between_polls: the longest time between two polls of the schedule, in seconds.
        heartbeat: the time between two heartbeats, in seconds.

    Returns:
        Paths begin with `dashboards/<backend>/` or `alerts/<backend>/`; texts end with a newline.
    """
    return rendered(backend, _renderer(backend), wishes, between_polls, heartbeat)


def rendered(
    backend: str, renderer: Renderer, wishes: Wishes, between_polls: float, heartbeat: float
) -> dict[str, str]:
    """The same, by a renderer that is handed in."""
    files = renderer(dashboards(), alerts(between_polls, heartbeat), wishes)
    return {_placed(path, backend): files[path] for path in sorted(files)}


def _renderer(backend: str) -> Renderer:
    renderer: Renderer = import_module(f"exporter.assets.{backend}").files  # only the one that is asked for
    return renderer


def _placed(path: str, backend: str) -> str:
    """`alerts/DataStale.json` → `alerts/datadog/DataStale.json`."""
    kind, _, name = path.partition("/")
    if kind not in ("dashboards", "alerts") or not name:
        raise ValueError(f"neither a dashboard nor an alert: {path}")
    return f"{kind}/{backend}/{name}"
