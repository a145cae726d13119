"""Which versions the sandbox's apps release, and which builds lead up to each. Pure.

A version comes out every fourteen days: its last build goes to the store. The builds before it, and those
of the version that is to come, are in TestFlight only, and stay so.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal

from exporter.sandbox.dice import dice
from exporter.sandbox.tables import APPS, SandboxApp

Platform = Literal["IOS", "MAC_OS"]
StoreState = Literal["READY_FOR_DISTRIBUTION", "REPLACED_WITH_NEW_VERSION"]

DAYS_BETWEEN_VERSIONS = 14
DAYS_UNTIL_DATA = 2
DAYS_OF_CHANGE = 28  # by then nearly everybody has updated, and a version's numbers stand still
BUILDS_LISTED = 12
MINOR_AT_START = 40
FIRST_DAY = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)

_LAST_DAY = 1_000_000
_EXPIRES_AFTER_DAYS = 90
_NUMBERS_PER_VERSION = 200
_TRAINS_LISTED = 8  # the builds before older releases were removed from TestFlight
_BETWEEN_UPLOADS = timedelta(minutes=40)


@dataclass(frozen=True)
class SandboxBuild:
    """A build as `/v1/builds` lists it.

    Args:
        id: a UUID, as Apple's build ids are.
        app_id: the app's numeric id.
        version: the marketing version.
        number: the build number.
        platform: `IOS` or `MAC_OS`.
        uploaded: when it was uploaded, UTC.
        expires: when TestFlight stops offering it, ninety days later.
        expired: True from then on; a released build expires too, and keeps its data.
        processing_state: `PROCESSING` on the day of the upload, then `VALID`.
        audience: who may ever get it, Apple's `buildAudienceType`.
        store_state: the `appVersionState` of its App Store version; None for a build that has none.
    """

    id: str
    app_id: str
    version: str
    number: str
    platform: Platform
    uploaded: datetime
    expires: datetime
    expired: bool
    processing_state: Literal["PROCESSING", "VALID"]
    audience: Literal["INTERNAL_ONLY", "APP_STORE_ELIGIBLE"]
    store_state: StoreState | None


@dataclass(frozen=True)
class Release:
    """A version, and the day on which the build that goes to the store is uploaded."""

    index: int
    version: str
    day: int


def whole(day: float) -> int:
    """The day as an integer; ValueError for one that is not from 0 to a million."""
    if not 0 <= day <= _LAST_DAY:
        raise ValueError(f"a day of the sandbox is a number from 0 to {_LAST_DAY}, not {day!r}")
    return math.floor(day)


def releases(app: SandboxApp, today: int, count: int) -> list[Release]:
    """The newest `count` releases up to and including `today`, the newest first."""
    newest = (today + app.release_day) // DAYS_BETWEEN_VERSIONS
    return [_release(app, n) for n in range(newest, newest - count, -1)]


def release_of(app: SandboxApp, version: str) -> Release:
    """The release of a version that the sandbox made up."""
    return _release(app, int(version.split(".")[1]) - MINOR_AT_START)


@lru_cache(maxsize=64)
def builds_of(seed: int, app_id: str, today: int) -> tuple[SandboxBuild, ...]:
    """All builds of an app on that day, the newest first."""
    app = next(app for app in APPS if app.id == app_id)
    uploaded = releases(app, today, BUILDS_LISTED)
    found = [build for release in uploaded for build in _released(seed, app, release, today)]
    coming = _release(app, uploaded[0].index - MINOR_AT_START + 1)
    for release in (coming, *uploaded[: _TRAINS_LISTED - 1]):
        found += _only_testflight(seed, app, release, today)
    return tuple(sorted(found, key=lambda build: build.uploaded, reverse=True))


def _release(app: SandboxApp, n: int) -> Release:
    index = MINOR_AT_START + n
    return Release(index, f"{app.major}.{index}.0", n * DAYS_BETWEEN_VERSIONS - app.release_day)


def _released(seed: int, app: SandboxApp, release: Release, today: int) -> Iterator[SandboxBuild]:
    """The build that goes to the store, for each platform; it is there once it is processed."""
    platforms: tuple[Platform, ...] = ("IOS", "MAC_OS") if app.on_macs else ("IOS",)
    number = _NUMBERS_PER_VERSION * (release.index + 1) - 1
    for platform in platforms:
        yield _build(seed, app, release, number, release.day, today, platform, _store_state(release, today))


def _store_state(release: Release, today: int) -> StoreState | None:
    if today <= release.day:
        return None
    replaced = today > release.day + DAYS_BETWEEN_VERSIONS
    return "REPLACED_WITH_NEW_VERSION" if replaced else "READY_FOR_DISTRIBUTION"


def _only_testflight(seed: int, app: SandboxApp, release: Release, today: int) -> Iterator[SandboxBuild]:
    """The builds of a version that are uploaded in the days before its release."""
    number = _NUMBERS_PER_VERSION * release.index
    for before in app.testflight_days:
        for of_the_day in range(app.testflight_builds_a_day):
            number += 1
            if release.day - before <= today:
                yield _build(seed, app, release, number, release.day - before, today, place=of_the_day)


def _build(
    seed: int,
    app: SandboxApp,
    release: Release,
    number: int,
    day: int,
    today: int,
    platform: Platform = "IOS",
    store_state: StoreState | None = None,
    *,
    place: int = 0,
) -> SandboxBuild:
    uploaded = FIRST_DAY + timedelta(days=day) + place * _BETWEEN_UPLOADS
    first_of_version = number == _NUMBERS_PER_VERSION * release.index + 1
    identity = dice(seed, app.id, release.version, platform, number, size=16)
    return SandboxBuild(
        id=str(uuid.UUID(bytes=identity, version=4)),
        app_id=app.id,
        version=release.version,
        number=str(number),
        platform=platform,
        uploaded=uploaded,
        expires=uploaded + timedelta(days=_EXPIRES_AFTER_DAYS),
        expired=today - day >= _EXPIRES_AFTER_DAYS,
        processing_state="VALID" if today > day else "PROCESSING",
        audience="INTERNAL_ONLY" if first_of_version else "APP_STORE_ELIGIBLE",
        store_state=store_state,
    )
