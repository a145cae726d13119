"""Which diagnostic signatures a build has on a day, and their logs. Pure.

A signature is a problem in one build. Its weight stands still on most days; on a day on which it moves, up
to two logs are new. After four weeks with data nothing about a build moves any more.

What is awkward is left to the lighter signatures: the two heaviest of each type always have logs, and these
have metadata and call stacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from exporter.sandbox.builds import DAYS_OF_CHANGE, DAYS_UNTIL_DATA, Platform, SandboxBuild, release_of
from exporter.sandbox.dice import dice, number
from exporter.sandbox.measurements import measured
from exporter.sandbox.problems import Problem, leading, problem, shares
from exporter.sandbox.stacks import category_of, signature_text, trees
from exporter.sandbox.tables import DEVICES, SandboxApp

Json = dict[str, Any]

_HEAVY = 0.06  # a share from which on a signature is there every day
_NO_PRODUCT, _NO_LOGS = range(12), range(12, 24)  # of 256
_ADVICE = {
    "HANGS": ("Do this work away from the main thread.", "improving-app-responsiveness"),
    "LAUNCHES": ("Put this off until the first screen is there.", "reducing-your-app-s-launch-time"),
    "DISK_WRITES": ("Write less often, and only what has changed.", "reducing-disk-writes"),
}
_ADVICE_PAGES = "https://developer.apple.com/documentation/xcode/"
_PHONE_SYSTEMS: tuple[str, ...] = (
    "iPhone OS 14.6 (18F72)",
    "iPhone OS 15.8.2 (19H384)",
    "iOS 17.1 (21B74)",
    "iOS 18.2 (22C152)",
    "iOS 18.2",
)
_PAD_SYSTEMS: tuple[str, ...] = ("iPadOS 17.1 (21B74)", "iPadOS 18.2 (22C152)")
_MAC_SYSTEMS: tuple[str, ...] = ("macOS 14.1 (23B74)", "macOS 15.2 (24C101)")
_MACS = ("Mac14_2", "Mac15_3")
_PHONES_AND_PADS = tuple(device.model.replace(",", "_") for device in DEVICES if not device.is_family)

# How many of 256 logs of the lighter signatures are awkward, and in which way; the others are ordinary.
_FORMS = (
    (9, "no metadata"),
    (9, "empty metadata"),
    (9, "no tree"),
    (9, "no tree in the list"),
    (9, "no stack in the tree"),
    (9, "no frame in the stack"),
    (12, "tree as an object"),
    (12, "no sample counts"),
    (12, "no number"),
    (12, "unknown fields"),
    (20, "per thread"),
    (6, "deep"),
)
_FORM_OF_A_DIE = tuple(name for count, name in _FORMS for _ in range(count))


@dataclass(frozen=True)
class SandboxSignature:
    """A signature as `/v1/builds/{id}/diagnosticSignatures` lists it.

    Args:
        id: 64 hexadecimal digits, another one for the same problem in another build.
        build_id: the build it is listed for.
        type: Apple's diagnostic type.
        text: Apple's `signature`.
        weight: its share of its type, on the app's scale.
        insight: Apple's `insight`, or None.
        problem: which problem it is; the same in all builds that have it.
        leads: whether it is among the heaviest of its type, which have logs, and ordinary ones.
        days: for how many days the build has had data; 0 is the first, 28 stands for all that follow.
    """

    id: str
    build_id: str
    type: str
    text: str
    weight: float
    insight: Json | None
    problem: Problem
    leads: bool
    days: int


@dataclass(frozen=True)
class SandboxLog:
    """A log as `/v1/diagnosticSignatures/{id}/logs` holds it.

    Args:
        signature_id: the signature it was asked for with.
        build_id: that signature's build.
        document: the log itself; the same on each day.
        form: what is awkward about it; `ordinary` is nothing.
        value: bytes or seconds as its words tell, None where they tell none.
    """

    signature_id: str
    build_id: str
    document: Json
    form: str
    value: float | None


@dataclass(frozen=True)
class _Observed:
    """A build that has data; `days` is as in `SandboxSignature`, and stops where nothing moves any more."""

    seed: int
    app_id: str
    build_id: str
    build_number: str
    version: str
    platform: Platform
    index: int
    days: int


@dataclass(frozen=True)
class _Course:
    """How a signature fares: the first day it is there, and the days on which its weight moves."""

    first: int
    moves: tuple[int, ...]
    away: bool


def signatures(app: SandboxApp, build: SandboxBuild, seed: int, today: int) -> tuple[SandboxSignature, ...]:
    """The signatures that a build has on that day, by type, the heaviest first; often none."""
    observed = _observed(app, build, seed, today)
    return () if observed is None else _signatures(observed, app.weight_scale, tuple(app.problems))


def logs(app: SandboxApp, build: SandboxBuild, signature: SandboxSignature, seed: int) -> list[SandboxLog]:
    """The logs of a signature on the day it was taken from, the newest first."""
    if _product_die(signature) in (*_NO_PRODUCT, *_NO_LOGS):
        return []
    observed = _observed_for(app, build, seed, signature.days)
    newest = list(_origins(observed, signature.problem))[::-1][: app.logs_kept]
    return [_log(app, observed, signature, *origin) for origin in newest]


def logs_document(signature: SandboxSignature, found: Sequence[SandboxLog]) -> Json:
    """The `diagnosticLogs` document around a signature's logs."""
    if _product_die(signature) in _NO_PRODUCT:
        return {"version": "1.0.0", "productData": []}
    insights: list[Json] = []
    if signature.type in _ADVICE and signature.problem.number % 2:
        text, page = _ADVICE[signature.type]
        category = category_of(signature.type)
        insights = [
            {"insightsCategory": category, "insightsString": text, "insightsURL": _ADVICE_PAGES + page}
        ]
    product = {
        "signatureId": signature.id,
        "diagnosticInsights": insights,
        "diagnosticLogs": [log.document for log in found],
    }
    return {"version": "1.0.0", "productData": [product]}


def _observed(app: SandboxApp, build: SandboxBuild, seed: int, today: int) -> _Observed | None:
    """None for a build that has no data: not on the store, too fresh, or of a version that few people use."""
    release = release_of(app, build.version)
    days = today - release.day - DAYS_UNTIL_DATA
    if build.store_state is None or days < 0 or (app.small and release.index % 5 == 2):
        return None
    return _observed_for(app, build, seed, days)


def _observed_for(app: SandboxApp, build: SandboxBuild, seed: int, days: int) -> _Observed:
    index = release_of(app, build.version).index
    capped = min(days, DAYS_OF_CHANGE)
    return _Observed(seed, app.id, build.id, build.number, build.version, build.platform, index, capped)


@lru_cache(maxsize=512)
def _signatures(observed: _Observed, scale: int, types: tuple[str, ...]) -> tuple[SandboxSignature, ...]:
    found = []
    for kind in types:
        weighed = _shares(observed, kind)
        for which, share in sorted(weighed.items(), key=lambda pair: (-pair[1], pair[0])):
            course = _course(observed, kind, which)
            if not course.away:
                found.append(
                    _signature(observed, problem(observed.app_id, kind, which), share, course, scale)
                )
    return tuple(found)


def _shares(observed: _Observed, kind: str, index: int | None = None) -> dict[int, float]:
    version = observed.index if index is None else index
    return shares(observed.seed, observed.app_id, kind, version, observed.platform)


def _leads(observed: _Observed, about: Problem) -> bool:
    return about.number in leading(
        observed.seed, observed.app_id, about.type, observed.index, observed.platform
    )


def _signature(
    observed: _Observed, about: Problem, share: float, course: _Course, scale: int
) -> SandboxSignature:
    # A weight moves between 5 % below and 5 % above, each time by at least 4 %.
    moved = share * (1 + 0.01 * ((5 + 7 * len(course.moves)) % 11 - 5))
    return SandboxSignature(
        id=dice(observed.seed, observed.build_id, about.type, about.number, size=32).hex(),
        build_id=observed.build_id,
        type=about.type,
        text=signature_text(about, observed.build_id),
        weight=_weight(moved, scale),
        insight=_insight(observed, about, share, scale),
        problem=about,
        leads=_leads(observed, about),
        days=observed.days,
    )


def _weight(share: float, scale: int) -> float:
    return round(share * scale, 6 if scale == 1 else 4)


def _insight(observed: _Observed, about: Problem, share: float, scale: int) -> Json | None:
    """How its share compares with that in the three versions before; a third of all have none."""
    if about.number % 3 == 2:
        return None
    earlier = {
        version: _shares(observed, about.type, version).get(about.number)
        for version in range(observed.index - 3, observed.index)
    }
    values = {version: value for version, value in earlier.items() if value is not None}
    if not values:
        return {"insightType": "TREND", "direction": "UNDEFINED"}
    major, _, patch = observed.version.split(".")
    references = [
        {"version": f"{major}.{version}.{patch}", "value": _weight(value, scale)}
        for version, value in values.items()
    ]
    ratio = share * len(values) / sum(values.values())
    direction = "UP" if ratio > 1.1 else "DOWN" if ratio < 0.9 else "UNDEFINED"
    return {"insightType": "TREND", "direction": direction, "referenceVersions": references}


@lru_cache(maxsize=8192)
def _course(observed: _Observed, kind: str, which: int) -> _Course:
    """Heavy ones are there from the first day and move often; light ones come later and go now and then."""
    about = problem(observed.app_id, kind, which)
    chance = dice(observed.seed, observed.build_id, kind, which, "course")
    heavy = _shares(observed, kind)[which] >= _HEAVY or _leads(observed, about)
    first = 0 if heavy or chance[63] % 2 else chance[62] % 6
    below = 200 if about.is_newcomer else 36 if heavy else 12
    days = range(first + 1, min(observed.days + 1, DAYS_OF_CHANGE))
    away = observed.days < DAYS_OF_CHANGE and chance[32 + observed.days // 2] < 12
    moves = tuple(day for day in days if chance[day] < below)
    return _Course(first, moves, observed.days < first or (away and not heavy))


def _origins(observed: _Observed, about: Problem) -> Iterator[tuple[Problem, int, int]]:
    """Where each log comes from, the oldest first: the problem, the day, and which one of that day.

    Every fifth problem also lists a log of its neighbour: Apple counts a hang under each of its blamed calls.
    One that leads does so only if the neighbour leads too, whose logs then are ordinary as well.
    """
    course = _course(observed, about.type, about.number)
    neighbour = about.number - 1
    if about.number % 5 == 4 and neighbour in _shares(observed, about.type):
        beside = problem(observed.app_id, about.type, neighbour)
        first = _course(observed, about.type, neighbour).first
        if first <= course.first and _leads(observed, about) <= _leads(observed, beside):
            yield beside, first, 0
    chance = dice(observed.seed, observed.build_id, about.type, about.number, "logs")
    yield from ((about, course.first, n) for n in range(1 + chance[63] % 3))
    for day in course.moves:
        yield from ((about, day, n) for n in range(chance[day] % 3))


def _log(
    app: SandboxApp, observed: _Observed, signature: SandboxSignature, about: Problem, day: int, n: int
) -> SandboxLog:
    thrown = dice(observed.seed, observed.build_id, about.type, about.number, day, n)
    awkward = thrown[0] < len(_FORM_OF_A_DIE) and not _leads(observed, about)
    form = _FORM_OF_A_DIE[thrown[0]] if awkward else "ordinary"
    measurement = measured(about.type, thrown[1:5], readable=form != "no number")
    document: Json = {
        "diagnosticMetaData": {**measurement.metadata, **_metadata(app, observed, thrown[5:11])}
    }
    if form != "no tree":
        document["callStackTree"] = trees(about, observed.build_id, thrown[11:20], form)
    if form == "no metadata":
        del document["diagnosticMetaData"]
    if form == "empty metadata":
        document["diagnosticMetaData"] = {}
    if form == "unknown fields":
        document["diagnosticMetaData"]["lowPowerMode"] = bool(thrown[20] % 2)
        document["hangTimeline"] = {"samples": [1, 2, 3]}
    value = None if form in ("no metadata", "empty metadata") else measurement.value
    return SandboxLog(signature.id, observed.build_id, document, form, value)


def _metadata(app: SandboxApp, observed: _Observed, thrown: bytes) -> Json:
    if observed.platform == "MAC_OS":
        device, systems = _MACS[thrown[0] % len(_MACS)], _MAC_SYSTEMS
    else:
        device = _PHONES_AND_PADS[thrown[0] % len(_PHONES_AND_PADS)]
        systems = _PAD_SYSTEMS if device.startswith("iPad") else _PHONE_SYSTEMS
    return {
        "osVersion": systems[number(thrown[1:3]) % len(systems)],
        "appVersion": observed.version,
        "buildVersion": observed.build_number,
        "bundleId": app.bundle_id,
        "deviceType": device,
        "platformArchitecture": "arm64" if thrown[3] % 4 == 0 else "arm64e",
    }


def _product_die(signature: SandboxSignature) -> int:
    """Decides whether Apple has logs of a signature at all; of the heaviest it always has."""
    return 255 if signature.leads else int(signature.id[:2], 16)
