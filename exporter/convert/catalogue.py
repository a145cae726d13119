"""Every metric this exporter sends: name, unit, description, attributes. The single source.

Code, the reference page `docs/metrics.md`, dashboards and alerts all read it here. A metric of Apple's that
is not listed is carried through by the same rule of naming; it merely has no description of its own, and
nobody knows which direction is worse.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from exporter.convert.comparison import Direction


@dataclass(frozen=True, slots=True)
class AppleMetric:
    """One of Apple's metrics: its category and identifier, the UCUM unit we expect, and what it measures.

    `worse` is the direction in which a change is for the worse.
    """

    category: str
    identifier: str
    unit: str
    description: str
    worse: Direction = "higher"

    @property
    def name(self) -> str:
        """The OTLP name, by `metric_name`."""
        return metric_name(self.category, self.identifier)


@dataclass(frozen=True, slots=True)
class Companion:
    """A metric derived from each of Apple's: a suffix, its unit (None: the metric's own), its meaning.

    `computed` tells ours, worked out from several of Apple's numbers, from those that are one of them.
    """

    suffix: str
    unit: str | None
    description: str
    attributes: tuple[str, ...] = ()
    instrument: str = "gauge"
    computed: bool = False


@dataclass(frozen=True, slots=True)
class FixedMetric:
    """A metric whose name does not depend on Apple's words. `attributes` are all that a point can bear."""

    name: str
    unit: str
    description: str
    instrument: str
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EventKind:
    """An OTLP log record with an `event_name`: its name, what it tells, its attributes with their meaning."""

    name: str
    description: str
    attributes: dict[str, str]


ATTRIBUTES: dict[str, str] = {
    "device": "Apple's identifier: a family (`all_iphones`, `all_ipads`, …) or a model (`iPhone14,2`); "
    "`unknown` for a log that names none",
    "device_name": "the marketing name, where Apple gives one: `iPhone 13 Pro`",
    "platform": "`iOS`, `macOS`, `tvOS`, `visionOS`, as Apple spells it in answers",
    "version": "the app's marketing version",
    "percentile": "`p50`, `p90`; absent where Apple gives none",
    "build": "the build number; only on per-build metrics (`collect.builds`)",
    "subsystem": "Apple's label of the part; on `….breakdown` and on insights",
    "metric": "the name of the metric that an insight is about, as it is called here: `appstore.launch.time`",
    "insight": "`regression` or `trend`",
    "impact": "`high` (a rise of 100 % or more, as Apple has it) or `normal`",
    "diagnostic_type": "`HANGS`, `LAUNCHES`, `DISK_WRITES`, as Apple spells it",
    "signature_id": "Apple's id of a signature; another one in each build",
    "signature": "the signature in words: the frame it stands for",
    "reference_version": "the earlier version that a reference value is of",
    "os_version": "the version of the operating system: `17.4.1`",
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
DELTA = Companion(
    "delta",
    "1",
    "The newest version's value over the mean of the earlier versions' values, less 1",
    computed=True,
)
REGRESSED = Companion(
    "regressed",
    "{flag}",
    "1 while the newest version is worse than the earlier ones beyond both margins and by the least change "
    "(`regression.min_change`), and on down to half of both; else 0",
    computed=True,
)
GOAL_RATIO = Companion(
    "goal_ratio", "1", "The value over the recommended goal, where the goal is sent", computed=True
)
POOR = Companion(
    "poor",
    "{flag}",
    "1 while the newest version is poor by Apple's goals, else 0; of families in the newest two versions, "
    "where Apple gives a band",
    computed=True,
)
COMPANIONS = (ERROR_MARGIN, GOAL, GOAL_BAND, BREAKDOWN, BY_DEVICE, DELTA, REGRESSED, GOAL_RATIO, POOR)

INSIGHT_DELTA = FixedMetric(
    "appstore.insight.delta",
    "%",
    "Apple's insight: how far the version lies from the average of the reference versions, Apple's number "
    "unchanged; 0 after Apple withdrew the insight",
    "gauge",
    ("metric", "insight", "impact", "device", "percentile", "platform", "version", "subsystem"),
)
INSIGHT_REGRESSIONS = FixedMetric(
    "appstore.insight.regressions",
    "{insight}",
    "How many regressions Apple reports now",
    "gauge",
    ("impact", "platform"),
)
INSIGHT_METRICS = (INSIGHT_DELTA, INSIGHT_REGRESSIONS)

_OF_TYPE = ("diagnostic_type", "version", "platform")
_OF_SIGNATURE = ("signature_id", "signature", *_OF_TYPE)
_OF_LOG = ("device", "platform", "version", "os_version")
SIGNATURE_WEIGHT = FixedMetric(
    "appstore.diagnostic.signature.weight",
    "{weight}",
    "The signature's share of its type in that version's build; on Apple's scale, unchanged: 0 to 1 in its "
    "documentation, 0 to 100 in some accounts",
    "gauge",
    _OF_SIGNATURE,
)
SIGNATURE_TREND = FixedMetric(
    "appstore.diagnostic.signature.trend",
    "{trend}",
    "Apple's trend of the signature: 1 up, 0 undefined, -1 down",
    "gauge",
    _OF_SIGNATURE,
)
SIGNATURE_REFERENCE = FixedMetric(
    "appstore.diagnostic.signature.reference",
    "{weight}",
    "The weight of the signature in an earlier version, on the same scale as its weight",
    "gauge",
    (*_OF_SIGNATURE, "reference_version"),
)
SIGNATURE_NEW = FixedMetric(
    "appstore.diagnostic.signature.new",
    "{flag}",
    "1 while a signature of the newest version is one that no earlier version had, else 0; 0 also where that "
    "cannot be told",
    "gauge",
    _OF_SIGNATURE,
)
NEW_SHARE = FixedMetric(
    "appstore.diagnostic.new_share",
    "1",
    "Which part of the type's weight, 0 to 1, the signatures of the newest version have that no earlier "
    "version had; 0 for earlier versions, and where new cannot be told",
    "gauge",
    _OF_TYPE,
)
SIGNATURE_COUNT = FixedMetric(
    "appstore.diagnostic.signature.count",
    "{occurrence}",
    "How often the signature occurred in the newest version; only where Apple's overview answers",
    "gauge",
    _OF_SIGNATURE,
)
SIGNATURES = FixedMetric(
    "appstore.diagnostic.signatures",
    "{signature}",
    "How many signatures of a type there are",
    "gauge",
    _OF_TYPE,
)
DISK_WRITES = FixedMetric(
    "appstore.diagnostic.disk_writes", "By", "Bytes written, one observation a log", "histogram", _OF_LOG
)
HANG_DURATION = FixedMetric(
    "appstore.diagnostic.hang_duration",
    "s",
    "How long hangs took, one observation a log",
    "histogram",
    _OF_LOG,
)
LAUNCH_DURATION = FixedMetric(
    "appstore.diagnostic.launch_duration",
    "s",
    "How long slow launches took, one observation a log",
    "histogram",
    _OF_LOG,
)
DIAGNOSTIC_METRICS = (
    SIGNATURE_WEIGHT,
    SIGNATURE_TREND,
    SIGNATURE_REFERENCE,
    SIGNATURE_NEW,
    SIGNATURE_COUNT,
    SIGNATURES,
    NEW_SHARE,
    DISK_WRITES,
    HANG_DURATION,
    LAUNCH_DURATION,
)

INSIGHT_EVENT = EventKind(
    "appstore.insight",
    "A regression or an upward trend that Apple had not reported before. The body is Apple's sentence; the "
    "severity is WARN, ERROR for a high impact",
    {
        "appstore.insight.kind": "`regression` or `trend`",
        "appstore.insight.high_impact": "whether Apple calls it so: a rise of 100 % or more (boolean)",
        "metric": "the metric's name, as it is called here",
        "appstore.insight.metric_category": "Apple's category",
        "appstore.insight.metric": "Apple's identifier of the metric",
        "version": "the version that Apple remarks on",
        "platform": "its platform; absent where nothing in the answer tells",
        "subsystem": "Apple's label of the part, where the insight is about one",
        "appstore.insight.reference_versions": "the versions it is compared with, separated by commas",
        "appstore.insight.max_latest_value": "the version's highest value over the populations (number)",
        "appstore.insight.unit": "the unit of that value and of those in the populations; absent where the "
        "answer does not tell, and the values then are Apple's unchanged",
        "appstore.insight.populations": "a line for each device and percentile, the largest change first, at "
        "most 20: text, because not every backend keeps a list of objects",
        "device": "the device whose change is the largest",
        "percentile": "its percentile",
    },
)
DIAGNOSTIC_EVENT = EventKind(
    "appstore.diagnostic",
    "A diagnostic log that was not seen before: WARN if its problem is new in this version, else INFO. The "
    "body says in a sentence what happened, and where",
    {
        "diagnostic_type": "`HANGS`, `LAUNCHES`, `DISK_WRITES`, as Apple spells it",
        "signature_id": "Apple's id of the signature; another one in each build",
        "signature": "the signature in words",
        "appstore.diagnostic.weight": "the signature's share of its type, on Apple's scale (number)",
        "appstore.diagnostic.fingerprint": "the same for the same problem in each build, whatever its id",
        "appstore.diagnostic.new": "whether no earlier version had the problem (boolean); absent where that "
        "cannot be told",
        "appstore.diagnostic.first_seen_version": "the first version the problem was seen in",
        "appstore.diagnostic.last_seen_version": "the last one",
        "appstore.diagnostic.event": "what happened, in Apple's word",
        "appstore.diagnostic.detail": "Apple's sentence about it",
        "appstore.diagnostic.bytes_written": "bytes (number); only for disk writes whose words could be read",
        "appstore.diagnostic.duration": "seconds (number); only for hangs and launches, likewise",
        "appstore.diagnostic.insight": "Apple's remark on the logs of the signature",
        "appstore.diagnostic.insight_url": "where that remark is explained",
        "appstore.diagnostic.log_id": "a digest of the log's content: the log is sent once under it",
        "version": "the app's marketing version",
        "platform": "the platform of the build",
        "build": "the build number",
        "device": "the device's model: `iPhone13,3`",
        "os_version": "the version of the operating system: `17.4.1`",
        "os_build": "its build: `21E236`",
        "architecture": "`arm64e`, as Apple spells it",
        "code.function.name": "the blamed frame's symbol",
        "code.file.path": "its source file, where Apple or the overview tells",
        "code.line.number": "its line (number)",
        "code.stacktrace": "the stack, the heaviest path first, bounded",
    },
)
EVENTS = (INSIGHT_EVENT, DIAGNOSTIC_EVENT)

OWN_ACCOUNTS = "appstore.accounts"  # on the resource of the exporter's own metrics

_ACCOUNT = ("account", "environment")  # and which environment the account is of

OWN_METRICS: tuple[FixedMetric, ...] = (
    FixedMetric(
        "appstore.exporter.polls", "{poll}", "Polls of an account", "counter", (*_ACCOUNT, "outcome")
    ),
    FixedMetric(
        "appstore.exporter.failures", "{failure}", "What failed, by reason", "counter", (*_ACCOUNT, "reason")
    ),
    FixedMetric(
        "appstore.exporter.polls.failed_in_a_row",
        "{poll}",
        "The account's polls that failed since the last one that did not; 0 after one that did not",
        "gauge",
        _ACCOUNT,
    ),
    FixedMetric(
        "appstore.exporter.key.refused",
        "{flag}",
        "1 while App Store Connect refuses the account's key, as of the last poll that it answered, else 0",
        "gauge",
        _ACCOUNT,
    ),
    FixedMetric(
        "appstore.exporter.requests",
        "{request}",
        "Requests to App Store Connect, retries included",
        "counter",
        (*_ACCOUNT, "endpoint", "status"),
    ),
    FixedMetric(
        "appstore.exporter.deferred",
        "{step}",
        "Parts of a poll that were put off to the next one; `what` is one of metrics, overview, builds, "
        "signatures, logs, build_metrics",
        "counter",
        (*_ACCOUNT, "what"),
    ),
    FixedMetric(
        "appstore.exporter.rate_limit.limit",
        "{request}",
        "Requests that Apple allows the key per hour",
        "gauge",
        _ACCOUNT,
    ),
    FixedMetric(
        "appstore.exporter.rate_limit.remaining",
        "{request}",
        "Requests that the key had left in its hour when Apple last answered, whoever used the others",
        "gauge",
        _ACCOUNT,
    ),
    FixedMetric(
        "appstore.exporter.rate_limit.used",
        "{request}",
        "Requests that this exporter used in the key's last hour",
        "gauge",
        _ACCOUNT,
    ),
    FixedMetric(
        "appstore.exporter.data.age",
        "s",
        "Time since App Store Connect last answered for the app",
        "gauge",
        (*_ACCOUNT, "app"),
    ),
    FixedMetric("appstore.exporter.points.sent", "{point}", "Points the endpoint accepted", "counter"),
    FixedMetric(
        "appstore.exporter.points.rejected",
        "{point}",
        "Points the endpoint took in and rejected, or that were given up as undeliverable",
        "counter",
    ),
    FixedMetric(
        "appstore.exporter.points.left_out",
        "{point}",
        "Values in Apple's answer that did not become points, by reason",
        "counter",
        (*_ACCOUNT, "reason"),
    ),
    FixedMetric("appstore.exporter.events.sent", "{event}", "Events the endpoint accepted", "counter"),
    FixedMetric(
        "appstore.exporter.events.rejected",
        "{event}",
        "Events the endpoint took in and rejected, or that were given up as undeliverable",
        "counter",
    ),
    FixedMetric("appstore.exporter.outbox.depth", "{item}", "Items not acknowledged yet", "gauge"),
    FixedMetric(
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
    "other_unit": "the overview's goal is in another unit than the metric",
    "duplicate": "the same series came twice in one answer; the first counts",
    "out_of_range": "the number is too large for its unit",
    "filtered": "`collect.categories` or `collect.devices` does not want it",
    "detail": "`collect.detail` does not want it",
    "series_cap": "`limits.series_per_app` was reached",
    "no_signature": "the signature has no id or no type",
    "unknown_type": "a signature of a type that nobody knows: its logs have no quantity to observe",
    "top_signatures": "beyond `diagnostics.top_signatures`",
    "no_quantity": "the log's words hold no size or duration that could be read; its event goes out",
    "event_backlog": "an older event that no endpoint took, given up for a newer one: 10,000 requests wait",
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


def worse_direction(category: str, identifier: str) -> Direction | None:
    """The direction in which one of Apple's metrics gets worse; None for one that is not listed."""
    known = _KNOWN.get((category, identifier))
    return known.worse if known else None


def _snake(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _identifier(words: list[str]) -> str:
    name = "_".join(words) or "unknown"
    return (name if name[0].isalpha() else f"x_{name}")[:_LONGEST_PART].rstrip("_")
