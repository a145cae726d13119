"""`assets`: dashboards and alerts for a user's own configuration, written into a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from apscheduler.triggers.cron import CronTrigger

from exporter.assets.alerts import alerts
from exporter.assets.collector_alerts import collector_alerts
from exporter.assets.dashboards import dashboards
from exporter.assets.model import Wishes
from exporter.assets.rendering import render
from exporter.errors import ConfigError
from exporter.settings import Alerts, Schedule, Settings

_SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday: the weekend is near
_SLACK = 1800  # seconds; the alerts add an hour to two polls
_ENOUGH = 5000  # fire times; those of a schedule by the minute reach beyond the weekend


def write(backend: str, settings: Settings, folder: Path) -> list[str]:
    """Write what there is for a backend into `folder`, over files of the same names. Removes nothing.

    Returns:
        Lines that say what was written, and which files there are none of these.

    Raises:
        ConfigError: a file cannot be written.
    """
    files = render(backend, wishes(settings.alerts), between_polls(settings.schedule))
    for path, text in files.items():
        _write(folder / path, text)
    return [*_written(backend, files, settings.alerts, folder), *_others(files, folder)]


def wishes(chosen: Alerts) -> Wishes:
    """The section `alerts` of the configuration, as renderers take it."""
    return Wishes(
        services=chosen.services,
        environments=chosen.environments,
        notify=chosen.notify,
        thresholds=dict(chosen.thresholds),
        off=chosen.disabled,
        runbook=chosen.runbook or "",
    )


def between_polls(schedule: Schedule) -> float:
    """The longest time between two polls of the schedule, in seconds, with the jitter beyond `_SLACK`."""
    trigger = CronTrigger.from_crontab(schedule.poll, UTC)
    last = trigger.get_next_fire_time(None, _SOME_DAY)
    longest = timedelta(0)
    for _ in range(_ENOUGH):
        following = trigger.get_next_fire_time(last, last + timedelta(seconds=1))
        longest, last = max(longest, following - last), following
        if last - _SOME_DAY > timedelta(days=366):
            break
    return longest.total_seconds() + max(0.0, schedule.jitter - _SLACK)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the file cannot be written: {(error.strerror or 'unknown reason').lower()}",
            where=str(path),
            remedy="Name another folder with --out, or let yourself write there.",
        ) from None


def _written(backend: str, files: Mapping[str, str], chosen: Alerts, folder: Path) -> Iterator[str]:
    watched = (*alerts(), *(collector_alerts() if backend == "prometheus" else ()))
    counts = {
        "dashboards": len(dashboards()),
        "alerts": sum(alert.id not in chosen.disabled for alert in watched),
    }
    for kind, count in counts.items():
        if any(path.startswith(f"{kind}/") for path in files):
            yield f"{count} {kind} in {folder / kind / backend}"


def _others(files: Mapping[str, str], folder: Path) -> Iterator[str]:
    """Files beside them that an earlier configuration may have left."""
    places = sorted({folder.joinpath(*Path(path).parts[:2]) for path in files})
    there = (path for place in places for path in sorted(place.rglob("*")) if path.is_file())
    for path in there:
        if path.relative_to(folder).as_posix() not in files:
            yield f"left alone, as this configuration does not have it: {path}"
