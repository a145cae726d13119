"""What goes wrong in the sandbox's apps again and again, and in which versions. Pure.

A problem is one place in an app's code. Most last for years; every third version one is mended and another
takes its place. Every fourth version brings a heavy one that nobody has seen before and that the third
version after it no longer has. A version whose metric regresses has one that explains it: it outweighs all
others of its type together, no earlier version had it, and the next one no longer has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from exporter.sandbox.dice import dice
from exporter.sandbox.tables import APPS, SandboxApp

TYPES = ("HANGS", "LAUNCHES", "DISK_WRITES")

_VERSIONS_BETWEEN_REPAIRS = 3
_VERSIONS_BETWEEN_NEWCOMERS = 4
_VERSIONS_OF_A_NEWCOMER = 3
_NEWCOMERS = 100_000  # their numbers begin here, far above those of the lasting problems
_NEWCOMERS_SHARE = 0.5  # of all the others together
_CULPRITS = 200_001  # likewise; ten apart, so that each has symbols
_CULPRITS_SHARE = 1.5  # of all the others together
_REGRESSED = 0  # which of eight versions
_EXPLAINS = {"LAUNCH/launchTime": "LAUNCHES", "HANG/hangRate": "HANGS", "DISK/diskWrites": "DISK_WRITES"}
_CROWDED = 4  # which of eight versions
_LEADING = 0.9  # of the second largest share: weights drift by 5 %, and none below this then overtakes it
_OWNERS = (
    "Account",
    "Payment",
    "Statement",
    "Session",
    "Search",
    "Attachment",
    "Timeline",
    "Settings",
    "Sync",
    "Image",
    "Map",
    "Notice",
    "Import",
)
_NEW_OWNERS = ("Onboarding", "Inbox", "Widget", "Ledger", "Passkey")
_VERBS = (
    "load",
    "save",
    "refresh",
    "render",
    "decode",
    "index",
    "merge",
    "upload",
    "prefetch",
    "validate",
    "layout",
    "archive",
    "migrate",
    "filter",
    "sort",
    "export",
    "restore",
)


@dataclass(frozen=True)
class Problem:
    """One place in an app's code.

    Args:
        type: Apple's diagnostic type.
        number: unique for an app and type.
        module: the binary it is in.
        owner: the part of the app that it belongs to, for the names of its callers.
        style: in which language it is written; `bare` is a place that Apple has no symbols for.
        symbol: the function's name.
        file: the source file's name.
        line: in which line of it.
    """

    type: str
    number: int
    module: str
    owner: str
    style: Literal["objective-c", "swift", "bare"]
    symbol: str
    file: str
    line: int

    @property
    def is_newcomer(self) -> bool:
        """Whether it is one of the heavy ones that come with a version and soon go again."""
        return self.number >= _NEWCOMERS


@lru_cache(maxsize=4096)
def problem(app_id: str, kind: str, number: int) -> Problem:
    """The problem with that number; texts repeat only after two hundred numbers."""
    app = _app(app_id)
    module = app.name.split()[0]
    owners = _NEW_OWNERS if number >= _NEWCOMERS else _OWNERS
    owner, verb = owners[number % len(owners)], _VERBS[(number // len(owners) + number) % len(_VERBS)]
    line = 20 + dice(app_id, kind, number, size=1)[0]
    if number % 5 in (0, 3):
        symbol, file = f"-[{module}{owner}Controller {verb}All:]", f"{module}{owner}Controller.m"
        return Problem(kind, number, module, owner, "objective-c", symbol, file, line)
    style: Literal["swift", "bare"] = "bare" if number % 10 == 7 else "swift"
    symbol = f"{module}.{owner}Store.{verb}() -> ()"
    return Problem(kind, number, module, owner, style, symbol, f"{owner}Store.swift", line)


@lru_cache(maxsize=2048)
def shares(seed: int, app_id: str, kind: str, index: int, platform: str) -> dict[int, float]:
    """How a type's reports are spread over the problems of a version, by number; in all 1.

    Args:
        index: the version's, as in `Release`.
    """
    app = _app(app_id)
    crowded = app.crowded if index % 8 == _CROWDED and app.crowded else app.problems
    usual, count = app.problems.get(kind, 0), crowded.get(kind, 0)
    if platform == "MAC_OS":
        usual, count = (usual + 1) // 2, (count + 1) // 2
    first = index // _VERSIONS_BETWEEN_REPAIRS
    found = {n: _heaviness(seed, app_id, kind, index, platform, n) for n in range(first, first + count)}
    for n in range(first + usual, first + count):
        found[n] *= 0.02  # what only a crowd finds is rare
    since, era = index % _VERSIONS_BETWEEN_NEWCOMERS, index // _VERSIONS_BETWEEN_NEWCOMERS
    if found and since < _VERSIONS_OF_A_NEWCOMER and kind == TYPES[era % len(TYPES)]:
        found[_NEWCOMERS + era] = _NEWCOMERS_SHARE * sum(found.values())
    if index % 8 == _REGRESSED and kind == _EXPLAINS.get(app.regressing or ""):
        found[_CULPRITS + 10 * (index // 8)] = _CULPRITS_SHARE * sum(found.values())
    total = sum(found.values())
    return {n: value / total for n, value in found.items()}


@lru_cache(maxsize=2048)
def leading(seed: int, app_id: str, kind: str, index: int, platform: str) -> frozenset[int]:
    """The numbers of the problems of which, on any day, two are the heaviest of their type in a version.

    Args:
        index: the version's, as in `Release`.
    """
    weighed = shares(seed, app_id, kind, index, platform)
    second = min(sorted(weighed.values(), reverse=True)[:2], default=0.0)
    return frozenset(n for n, share in weighed.items() if share >= _LEADING * second)


def _heaviness(seed: int, app_id: str, kind: str, index: int, platform: str, number: int) -> float:
    """A few weigh much and many little; from version to version it is a little different."""
    lasting = dice(seed, app_id, kind, number, size=1)[0] / 255
    passing = dice(seed, app_id, kind, number, index, platform, size=1)[0] / 255
    return float((0.03 + lasting**3) * (0.75 + 0.5 * passing))


def _app(app_id: str) -> SandboxApp:
    return next(app for app in APPS if app.id == app_id)
