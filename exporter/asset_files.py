"""`assets`: dashboards and alerts for a user's own configuration, written into a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from errno import EISDIR
from pathlib import Path

from apscheduler.triggers.cron import CronTrigger

from exporter.assets.alerts import Pace, alerts
from exporter.assets.dashboards import dashboards
from exporter.assets.model import RUNBOOK, Wishes
from exporter.assets.rendering import render
from exporter.errors import ConfigError
from exporter.settings import Account, Alerts, AppSelection, Schedule, Settings

_SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday: the weekend is near
_SLACK = 1800  # seconds; the alerts add an hour to two polls
_ENOUGH = 5000  # fire times; those of a schedule by the minute reach beyond the weekend


def write(backend: str, settings: Settings, folder: Path) -> list[str]:
    """Write what there is for a backend into `folder`, over files of the same names. Removes nothing.

    Returns:
        Lines that say what was written, and which files there are none of these.

    Raises:
        ConfigError: a threshold that the schedule makes impossible; a file that cannot be written, and then
            none is.
    """
    pace = pace_of(settings.schedule)
    _refuse_stale_at_once(settings.alerts, pace)
    files = render(backend, wishes(settings.alerts), pace)
    _write({folder / path: text for path, text in files.items()})
    return [*_written(backend, files, settings.alerts, folder), *_left(backend, files, folder)]


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


def pace_of(schedule: Schedule) -> Pace:
    """How often the exporter polls and beats by this schedule, with the jitter beyond `_SLACK`."""
    fires = tuple(_fires(schedule.poll))
    late = max(0.0, schedule.jitter - _SLACK)
    return Pace(_longest(fires, 1) + late, _longest(fires, 2) + late, schedule.heartbeat)


def _fires(crontab: str) -> Iterator[datetime]:
    """When it fires, within a year; three times at the least."""
    trigger = CronTrigger.from_crontab(crontab, UTC)
    last = trigger.get_next_fire_time(None, _SOME_DAY)
    for number in range(_ENOUGH):
        yield last
        if number >= 2 and last - _SOME_DAY > timedelta(days=366):
            break
        last = trigger.get_next_fire_time(last, last + timedelta(seconds=1))


def _longest(fires: Sequence[datetime], polls: int) -> float:
    """The longest time from a poll to the one so many after it, in seconds."""
    return max(later - sooner for sooner, later in zip(fires, fires[polls:], strict=False)).total_seconds()


def strangers(chosen: Alerts, accounts: Iterable[Account]) -> Iterator[str]:
    """What the alerts are to watch and no account has: alerts about it would never fire.

    Args:
        accounts: of the same configuration; none where they are not known.
    """
    known = tuple(accounts)
    if not known:
        return
    environments = {account.environment for account in known}
    for name in chosen.environments:
        if name not in environments:
            yield f"alerts.environments: no account has the environment {name!r}; {_those(environments)}"
    for name in chosen.services:
        if not any(_may_have(account.apps, name) for account in known):
            names = {name for account in known for name in account.apps.service_names.values()}
            yield f"alerts.services: no account has an app of the service name {name!r}; {_those(names)}"


def _those(names: Iterable[str]) -> str:
    return f"known: {', '.join(sorted(names)) or 'bundle ids, as under apps'}"


def _may_have(apps: AppSelection, service: str) -> bool:
    """Whether an app can have that service name, as far as the configuration tells."""
    names = apps.service_names
    if service in names.values():
        return True
    by_number = any(entry.isdigit() and entry not in names for entry in apps.include)  # of any bundle id
    return service not in names and (by_number or apps.selects("", service))


def _refuse_stale_at_once(chosen: Alerts, pace: Pace) -> None:
    seconds = chosen.thresholds.get("DataStale")
    if seconds is not None and seconds < pace.poll:
        raise ConfigError(
            f"must not be less than the {pace.poll:g} seconds between two polls of the schedule, or it would "
            "fire before each",
            where="alerts.thresholds.DataStale",
            remedy=f"Write seconds; unless set it is {pace.two_polls + 3600:g}.",
        )


def _write(files: Mapping[Path, str]) -> None:
    """All, or none: each is written beside its place first, and then they are moved there."""
    beside = {path: path.with_name(f".{path.name}.new") for path in files}
    path = next(iter(files))
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(EISDIR, "a folder of that name is there")
            beside[path].write_text(text, encoding="utf-8")
        for path, new in beside.items():
            os.replace(new, path)
    except OSError as error:
        for new in beside.values():
            with suppress(OSError):
                new.unlink()
        raise ConfigError(
            f"the file cannot be written: {(error.strerror or 'unknown reason').lower()}",
            where=str(path),
            remedy="Name another folder with --out, or let yourself write there.",
        ) from None


def _written(backend: str, files: Mapping[str, str], chosen: Alerts, folder: Path) -> Iterator[str]:
    kinds = {alert.about for alert in alerts()} - (set() if backend == "prometheus" else {"collector"})
    counts = {
        "dashboards": len(dashboards()),
        "alerts": sum(alert.about in kinds and alert.id not in chosen.disabled for alert in alerts()),
    }
    for kind, count in counts.items():
        if any(path.startswith(f"{kind}/") for path in files):
            yield f"{count} {kind} in {folder / kind / backend}"
    if not chosen.runbook and any(path.startswith("alerts/") for path in files):
        yield f"messages name {RUNBOOK}, which is no link: give alerts.runbook, where your team can open it"


def _left(backend: str, files: Mapping[str, str], folder: Path) -> Iterator[str]:
    """Files that another configuration has. Others, such as a state of Terraform's, are not ours to name."""
    for name in sorted(render(backend, Wishes()).keys() - files.keys()):
        if (path := folder / name).is_file():
            yield f"not of this configuration, and still there: {path}; delete it, or it is installed as well"
