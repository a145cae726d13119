"""Every metric this exporter sends: name, unit, description, attributes. The single source.

Code, the reference page `docs/metrics.md`, dashboards and alerts all read it here. A metric of Apple's that
is not listed is carried through by the same rule of naming; it merely has no description of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class AppleMetric:
    """One of Apple's metrics: its category and identifier, the UCUM unit we expect, and what it measures."""

    category: str
    identifier: str
    unit: str
    description: str

    @property
    def name(self) -> str:
        """The OTLP name, by `metric_name`."""
        return metric_name(self.category, self.identifier)


@dataclass(frozen=True, slots=True)
class Companion:
    """A metric derived from each of Apple's: a suffix, its unit (None: the metric's own), its meaning."""

    suffix: str
    unit: str | None
    description: str
    attributes: tuple[str, ...] = ()
    instrument: str = "gauge"


@dataclass(frozen=True, slots=True)
class OwnMetric:
    """One of the exporter's own metrics, sent through the OpenTelemetry SDK."""

    name: str
    unit: str
    description: str
    instrument: str
    attributes: tuple[str, ...] = ()


ATTRIBUTES: dict[str, str] = {
    "device": "Apple's identifier: a family (`all_iphones`, `all_ipads`, …) or a model (`iPhone14,2`)",
    "device_name": "the marketing name, where Apple gives one: `iPhone 13 Pro`",
    "platform": "`iOS`, `macOS`, `tvOS`, `visionOS`, as Apple spells it in answers",
    "version": "the app's marketing version",
    "percentile": "`p50`, `p90`; absent where Apple gives none",
    "build": "the build number; only on per-build metrics (`collect.builds`)",
    "subsystem": "Apple's label of the part; only on `….breakdown`",
}

RESOURCE_ATTRIBUTES: dict[str, str] = {
    "service.name": "the bundle id, or what `apps.service_names` says",
    "appstore.app.id": "the Apple id of the app",
    "appstore.app.name": "the app's name in App Store Connect",
    "appstore.account": "the account's name in the configuration",
    "deployment.environment.name": "`environment` of the account; `production` unless set",
}

APPLE_METRICS: tuple[AppleMetric, ...] = (
    AppleMetric("HANG", "hangRate", "s/h", "Time the app was unresponsive to the user, per hour of use"),
    AppleMetric("LAUNCH", "launchTime", "s", "Time from the tap on the icon to the first frame"),
    AppleMetric("MEMORY", "peakMemory", "By", "Highest memory the app used"),
    AppleMetric("MEMORY", "memoryAtSuspension", "By", "Memory the app held when it was suspended"),
    AppleMetric("DISK", "diskWrites", "By/d", "Bytes the app wrote to disk, per day"),
    AppleMetric("BATTERY", "batteryUsage", "%", "Share of the battery that the app used, per day"),
    AppleMetric("BATTERY", "onScreen", "%", "Share of the battery that the app used while on screen"),
    AppleMetric("BATTERY", "background", "%", "Share of the battery that the app used in the background"),
    AppleMetric(
        "TERMINATION", "onScreen", "{termination}/d", "Terminations by the system while the app was on screen"
    ),
    AppleMetric(
        "TERMINATION", "background", "{termination}/d", "Terminations by the system while in the background"
    ),
    AppleMetric("ANIMATION", "scrollHitchRate", "%", "Share of scrolling time in which frames came late"),
)
_KNOWN = {(metric.category, metric.identifier): metric for metric in APPLE_METRICS}

VALUE = Companion("", None, "")
ERROR_MARGIN = Companion("error_margin", None, "Apple's margin of error of the value, in the value's unit")
GOAL = Companion("goal", None, "The value that Apple recommends; given at the newest version of each device")
GOAL_BAND = Companion("goal_band", "{band}", "Where the value lies by Apple's goals: 1 good, 2 fair, 3 poor")
BREAKDOWN = Companion(
    "breakdown", "%", "The part of the value that a subsystem accounts for", attributes=("subsystem",)
)
BY_DEVICE = Companion(
    "by_device",
    None,
    "How the values of the device models are spread; `device` is the family they belong to",
    instrument="histogram",
)
COMPANIONS = (ERROR_MARGIN, GOAL, GOAL_BAND, BREAKDOWN, BY_DEVICE)

OWN_METRICS: tuple[OwnMetric, ...] = (
    OwnMetric("appstore.exporter.polls", "{poll}", "Polls of an account", "counter", ("account", "outcome")),
    OwnMetric(
        "appstore.exporter.failures", "{failure}", "What failed, by reason", "counter", ("account", "reason")
    ),
    OwnMetric(
        "appstore.exporter.requests",
        "{request}",
        "Requests to App Store Connect, retries included",
        "counter",
        ("account", "endpoint", "status"),
    ),
    OwnMetric(
        "appstore.exporter.deferred",
        "{step}",
        "Parts of a poll (an app's metrics, or those of its builds) that were put off to the next one",
        "counter",
        ("account",),
    ),
    OwnMetric(
        "appstore.exporter.rate_limit.limit",
        "{request}",
        "Requests that Apple allows the key per hour",
        "gauge",
        ("account",),
    ),
    OwnMetric(
        "appstore.exporter.rate_limit.remaining",
        "{request}",
        "Requests that the key had left in its hour when Apple last answered, whoever used the others",
        "gauge",
        ("account",),
    ),
    OwnMetric(
        "appstore.exporter.rate_limit.used",
        "{request}",
        "Requests that this exporter used in the key's last hour",
        "gauge",
        ("account",),
    ),
    OwnMetric(
        "appstore.exporter.data.age",
        "s",
        "Time since App Store Connect last answered for the app",
        "gauge",
        ("account", "app"),
    ),
    OwnMetric("appstore.exporter.points.sent", "{point}", "Points the endpoint accepted", "counter"),
    OwnMetric(
        "appstore.exporter.points.rejected",
        "{point}",
        "Points the endpoint took in and rejected, or that were given up as undeliverable",
        "counter",
    ),
    OwnMetric(
        "appstore.exporter.points.left_out",
        "{point}",
        "Values in Apple's answer that did not become points, by reason",
        "counter",
        ("account", "reason"),
    ),
    OwnMetric("appstore.exporter.outbox.depth", "{item}", "Items not acknowledged yet", "gauge"),
    OwnMetric(
        "appstore.exporter.delivery.duration",
        "s",
        "Time the last delivery took, from the first request to the last answer",
        "gauge",
    ),
)

LEFT_OUT: dict[str, str] = {
    "no_value": "the value is missing or null (each metric has its own usage threshold at Apple's)",
    "not_a_number": "text, a boolean, NaN or an infinity where a number belongs",
    "not_an_object": "something else where a point, a goal or a part of a breakdown belongs",
    "no_version": "the point names no app version",
    "no_device": "the dataset names no device",
    "no_platform": "the product data names no platform",
    "no_metric": "the category or the metric has no identifier",
    "no_subsystem": "the part of a breakdown has no label",
    "unknown_goal": "the goal is none of good, fair, poor",
    "duplicate": "the same series came twice in one answer; the first counts",
    "out_of_range": "the number is too large for its unit",
    "filtered": "`collect.categories` or `collect.devices` does not want it",
    "detail": "`collect.detail` does not want it",
    "series_cap": "`limits.series_per_app` was reached",
    "malformed": "a part of the answer has another shape than Apple documents; its values were not counted",
}

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[A-Z]")
_LONGEST_PART = 70  # of a name; Datadog's limit is 200 characters in all, a companion's suffix included


@lru_cache(maxsize=1024)
def metric_name(category: str, identifier: str) -> str:
    """`appstore.` + the category in lower case + `.` + the identifier in snake case.

    A leading word of the identifier that repeats the category is dropped: LAUNCH/launchTime →
    `appstore.launch.time`. The result has only `[a-z0-9_.]`, begins each part with a letter, and is bounded.
    """
    group, words = _snake(category), _snake(identifier)
    if len(words) > len(group) and words[: len(group)] == group:
        words = words[len(group) :]
    return f"appstore.{_identifier(group)}.{_identifier(words)}"


def describe(category: str, identifier: str, companion: Companion = VALUE) -> str:
    """The description sent with a metric or one of its companions."""
    if companion is not VALUE:
        return companion.description
    known = _KNOWN.get((category, identifier))
    return known.description if known else f"{category} {identifier}, as App Store Connect reports it"


def _snake(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _identifier(words: list[str]) -> str:
    name = "_".join(words) or "unknown"
    return (name if name[0].isalpha() else f"x_{name}")[:_LONGEST_PART].rstrip("_")
