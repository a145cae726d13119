"""Which builds of an app are asked about: one for each of its newest versions on each platform. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import inf

from exporter.appstore.jsonapi import Build
from exporter.appstore.versions import version_key

__all__ = ["complete", "newest_versions"]

_EVIDENCE = {True: 2, None: 1, False: 0}


def newest_versions(builds: Iterable[Build], *, versions: int, testflight: bool) -> list[Build]:
    """Return one build for each of the newest `versions` marketing versions of each platform.

    Platforms come in alphabetical order, their versions newest first, by their numbers, as everywhere else: a
    correction of 1.9 that is uploaded after 2.0 is not the newest. A version is represented by the last
    uploaded build that was released. A build of which nobody knows whether it
    was released counts as released, but behind those that are known to be: a version is released with one
    build. With `testflight`, a version without a released build is represented by its last unexpired one.

    Args:
        builds: the last uploaded first. One whose upload time is unknown counts as uploaded together with the
            one listed ahead of it. Those without version or platform are left out.
        versions: at most so many of each platform.
        testflight: whether versions count that were distributed through TestFlight only.
    """
    ordered = _newest_first(builds)
    chosen: dict[tuple[str, str], int] = {}
    for position, build in enumerate(ordered):
        version = build.platform, build.version
        best = ordered[chosen[version]] if version in chosen else None
        if _counts(build, testflight) and (best is None or _evidence(build) > _evidence(best)):
            chosen[version] = position
    representatives = sorted(
        (ordered[position] for position in chosen.values()),
        key=lambda build: version_key(build.version),
        reverse=True,
    )
    found: dict[str, list[Build]] = {}
    for build in representatives:
        found.setdefault(build.platform, []).append(build)
    return [build for platform in sorted(found) for build in found[platform][: max(0, versions)]]


def complete(builds: Iterable[Build], *, versions: int, testflight: bool) -> bool:
    """Tell whether `newest_versions` has `versions` of each platform that any of the builds is for.

    A platform counts even if none of its builds does, so that no row of TestFlight builds hides a released
    version behind it. One with fewer versions is never complete.
    """
    listed = list(builds)
    newest = newest_versions(listed, versions=versions, testflight=testflight)
    found = Counter(build.platform for build in newest)
    platforms = {build.platform for build in listed if _is_named(build)}
    return bool(platforms) and all(found[platform] >= versions for platform in platforms)


def _newest_first(builds: Iterable[Build]) -> list[Build]:
    listed, times = list(builds), list[float]()
    for build in listed:
        before = times[-1] if times else inf
        times.append(before if build.uploaded_at is None else build.uploaded_at)
    return [listed[index] for index in sorted(range(len(listed)), key=lambda index: -times[index])]


def _is_named(build: Build) -> bool:
    return bool(build.version and build.platform)


def _counts(build: Build, testflight: bool) -> bool:
    return _is_named(build) and (build.released is not False or (testflight and not build.expired))


def _evidence(build: Build) -> int:
    return _EVIDENCE[build.released]
