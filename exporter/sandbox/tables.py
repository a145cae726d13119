"""The sandbox's made-up world: which apps, devices and metrics there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Family = Literal["all_iphones", "all_ipads", "all_macs"]


@dataclass(frozen=True)
class Device:
    """A device model, or a whole family.

    Args:
        model: the identifier as Apple writes it in metrics (`iPhone14,2`, `all_iphones`).
        name: the marketing name.
        family: the family it belongs to; a family belongs to itself.
        slowness: how slow it is; 1.0 is a phone about three years old.
    """

    model: str
    name: str
    family: Family
    slowness: float

    @property
    def is_family(self) -> bool:
        """Whether this stands for all models of its family."""
        return self.model == self.family


@dataclass(frozen=True)
class MetricKind:
    """One metric of one category, and what an ordinary app's numbers look like.

    Args:
        category: Apple's category, for example `LAUNCH`.
        identifier: Apple's name of the metric, unique within the category only.
        unit: Apple's identifier and display name of the unit.
        typical: the median on a device of slowness 1.0, in that unit.
        spread: the ninetieth percentile as a multiple of the median.
        slowed: how strongly a slow device raises the value; 0 is not at all.
        bands: upper bounds of the goal bands `good` and `fair`, or None when there are no bands.
        subsystems: names for `percentageBreakdown`; empty when there is none.
        overview_goal: a recommended goal that only the overview gives, or None.
    """

    category: str
    identifier: str
    unit: tuple[str, str]
    typical: float
    spread: float
    slowed: float
    bands: tuple[float, float] | None = None
    subsystems: tuple[str, ...] = ()
    overview_goal: float | None = None

    @property
    def key(self) -> str:
        """Category and identifier, since `onScreen` and `background` occur under two categories."""
        return f"{self.category}/{self.identifier}"


@dataclass(frozen=True)
class SandboxApp:
    """An app of the sandbox.

    Args:
        id: Apple's numeric id, as a string.
        bundle_id: under `com.example`.
        name: what the store calls it.
        major: the first part of each version (`7` in `7.40.0`).
        release_day: how many days before day 0 the newest version came out; 2 to 13.
        scale: its numbers as a multiple of the ordinary ones, by metric key.
        regressing: the metric that goes wrong in every eighth version, or None.
        improving: the metric that gets better from version to version, or None.
        growing: the metric that creeps up from version to version, or None.
        on_macs: whether there is a macOS build too.
        shouting: whether Apple writes `GOOD` instead of `good` for it (both are seen).
        breakdown_as_list: whether `percentageBreakdown` is an array (both are seen).
        references_as_list: whether `referenceVersions` is an array (both are seen).
        small: whether it has too little usage for some categories on some days.
        settling: the metric that more than doubles for the first week of every eighth version, or None.
        testflight_days: how many days before a release builds are uploaded that stay in TestFlight.
        testflight_builds_a_day: how many of them on each such day.
        problems: how many recurring problems a version has, by diagnostic type; on macOS half as many.
        crowded: the same for every eighth version, or None when that is like the others.
        weight_scale: 1 or 100, what all weights of a type add up to (both are seen).
        logs_kept: how many logs of a signature are there at the most.
        has_overview: whether the account is offered `performanceOverviews`.
    """

    id: str
    bundle_id: str
    name: str
    major: int
    release_day: int
    scale: Mapping[str, float] = field(default_factory=dict)
    regressing: str | None = None
    improving: str | None = None
    growing: str | None = None
    on_macs: bool = False
    shouting: bool = False
    breakdown_as_list: bool = False
    references_as_list: bool = False
    small: bool = False
    settling: str | None = None
    testflight_days: tuple[int, ...] = ()
    testflight_builds_a_day: int = 1
    problems: Mapping[str, int] = field(default_factory=dict)
    crowded: Mapping[str, int] | None = None
    weight_scale: Literal[1, 100] = 1
    logs_kept: int = 10
    has_overview: bool = True


UNHEARD_OF = "CPU_EXCEPTIONS"

APPS = (
    SandboxApp(
        id="1540000001",
        bundle_id="com.example.harbour",
        name="Harbour Banking",
        major=7,
        release_day=3,
        regressing="LAUNCH/launchTime",
        references_as_list=True,
        settling="DISK/diskWrites",
        problems={"HANGS": 12, "LAUNCHES": 5, "DISK_WRITES": 6},
        crowded={"HANGS": 130, "LAUNCHES": 70, "DISK_WRITES": 90},
        logs_kept=20,
    ),
    SandboxApp(
        id="1540000002",
        bundle_id="com.example.larkspur",
        name="Larkspur Notes",
        major=3,
        release_day=4,
        scale={"LAUNCH/launchTime": 0.8, "HANG/hangRate": 2.6, "MEMORY/peakMemory": 0.6},
        improving="HANG/hangRate",
        growing="MEMORY/peakMemory",
        on_macs=True,
        shouting=True,
        breakdown_as_list=True,
        testflight_days=tuple(range(13, 0, -1)),
        testflight_builds_a_day=8,
        problems={"HANGS": 6, "LAUNCHES": 3, "DISK_WRITES": 4, UNHEARD_OF: 1},
    ),
    SandboxApp(
        id="1540000003",
        bundle_id="com.example.tidepool",
        name="Tidepool Trails",
        major=1,
        release_day=11,
        scale={"BATTERY/batteryUsage": 1.8, "DISK/diskWrites": 0.4},
        breakdown_as_list=True,
        references_as_list=True,
        small=True,
        testflight_days=(9, 5, 2),
        problems={"HANGS": 5, "LAUNCHES": 3, "DISK_WRITES": 3},
        weight_scale=100,
        has_overview=False,
    ),
)

MACS = Device("all_macs", "All Macs", "all_macs", 0.45)

DEVICES = (
    Device("all_iphones", "All iPhones", "all_iphones", 0.95),
    Device("iPhone12,1", "iPhone 11", "all_iphones", 1.55),
    Device("iPhone13,2", "iPhone 12", "all_iphones", 1.28),
    Device("iPhone14,2", "iPhone 13 Pro", "all_iphones", 1.05),
    Device("iPhone14,5", "iPhone 13", "all_iphones", 1.10),
    Device("iPhone15,2", "iPhone 14 Pro", "all_iphones", 0.95),
    Device("iPhone16,1", "iPhone 15 Pro", "all_iphones", 0.82),
    Device("iPhone17,3", "iPhone 16", "all_iphones", 0.76),
    Device("iPhone17,1", "iPhone 16 Pro", "all_iphones", 0.70),
    Device("all_ipads", "All iPads", "all_ipads", 0.88),
    Device("iPad13,18", "iPad (10th generation)", "all_ipads", 1.20),
    Device("iPad14,1", "iPad mini (6th generation)", "all_ipads", 1.02),
    Device("iPad13,16", "iPad Air (5th generation)", "all_ipads", 0.78),
    Device("iPad16,3", "iPad Pro 11-inch (M4)", "all_ipads", 0.55),
)

_MEGABYTES = ("megabytes", "MB")
_PERCENTAGE = ("percentage", "%")
_TERMINATIONS = ("terminations/day", "terminations/day")
_SUBSYSTEMS = ("Networking", "CPU", "Display", "Location", "Audio")

METRICS = (
    MetricKind("HANG", "hangRate", ("seconds/hour", "s/hr"), 11.0, 2.9, 0.9, (20, 45)),
    MetricKind("LAUNCH", "launchTime", ("milliseconds", "ms"), 780.0, 1.85, 1.0, (1000, 1800)),
    MetricKind("MEMORY", "peakMemory", _MEGABYTES, 310.0, 1.6, -0.3, (450, 700)),
    MetricKind("MEMORY", "memoryAtSuspension", _MEGABYTES, 118.0, 1.5, -0.2, overview_goal=150.0),
    MetricKind("DISK", "diskWrites", ("megabytes/day", "MB/day"), 95.0, 3.2, 0.1, (200, 500)),
    MetricKind("BATTERY", "batteryUsage", _PERCENTAGE, 3.4, 2.4, 0.5, (6, 12), _SUBSYSTEMS),
    MetricKind("BATTERY", "onScreen", _PERCENTAGE, 2.5, 2.2, 0.5),
    MetricKind("BATTERY", "background", _PERCENTAGE, 0.7, 3.0, 0.3),
    MetricKind("TERMINATION", "onScreen", _TERMINATIONS, 0.03, 2.4, 0.8),
    MetricKind("TERMINATION", "background", _TERMINATIONS, 0.9, 2.1, 0.6),
    MetricKind("ANIMATION", "scrollHitchRate", ("scrollHitchRate", "%"), 0.42, 2.6, 0.9, (1, 2)),
    MetricKind("STORAGE", "documentsAndData", _MEGABYTES, 240.0, 4.0, 0.0),
)
