"""Diagnostic signatures and logs → gauges, histograms and events.

A signature's weight goes out as Apple sends it: from 0 to 1 in its documentation, from 0 to 100 in some
accounts. A log says when it happened as little as a metric does: its event is dated with the arrival of the
answer that held it.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk.metrics.export import Gauge, Metric, NumberDataPoint
from opentelemetry.util.types import AnyValue

from exporter.appstore.payloads.diagnostics import Log, LogInsight, Signature, SignatureLogs
from exporter.appstore.payloads.overview import Overview
from exporter.appstore.payloads.reader import clean_text
from exporter.appstore.versions import version_key
from exporter.convert import quantities, recognition
from exporter.convert.call_tree import Node, blamed_frame, call_tree
from exporter.convert.catalogue import (
    DIAGNOSTIC_EVENT,
    DISK_WRITES,
    HANG_DURATION,
    LAUNCH_DURATION,
    NEW_SHARE,
    SIGNATURE_COUNT,
    SIGNATURE_NEW,
    SIGNATURE_REFERENCE,
    SIGNATURE_TREND,
    SIGNATURE_WEIGHT,
    SIGNATURES,
    FixedMetric,
)
from exporter.convert.distributions import BOUNDS, Distribution, distribution
from exporter.convert.rendering import render

_UNKNOWN = "unknown"  # the device of a log that names none
_LONGEST_SIGNATURE = 120
_MOST_BYTES = 2.0**63
_LONGEST_REMARK = 1000  # Apple's sentences on a log are meant to be read whole
_HISTOGRAMS = {"DISK_WRITES": DISK_WRITES, "HANGS": HANG_DURATION, "LAUNCHES": LAUNCH_DURATION}
_WORDS = {"DISK_WRITES": "Disk writes", "HANGS": "Hang", "LAUNCHES": "Slow launch"}
_OFFSET = re.compile(r"\s*\+\s*(?:0x[0-9a-fA-F]+|\d+)$")
_UNDERSCORED_DEVICE = re.compile(r"([A-Za-z]+\d+)_(\d+)")
_OS_BUILD = re.compile(r"\d{1,3}[A-Z]\d{1,6}[a-z]?")
_OS = re.compile(r"(?<![\w.])(\d+(?:\.\d+){0,3})(?![\w.])\s*(?:\(\s*(?:Build\s+)?([0-9A-Za-z]+)\s*\))?")


class Versions(NamedTuple):
    """The versions in which a problem was seen first and last, by their order."""

    first: str
    last: str


class Observation(NamedTuple):
    """One value for the histogram of a metric, in the metric's unit."""

    metric: str
    attributes: tuple[tuple[str, str], ...]
    value: float


@dataclass(frozen=True, slots=True)
class Origin:
    """The build that diagnostics come from: marketing version, build number, platform (`iOS`)."""

    version: str
    build: str
    platform: str


@dataclass(frozen=True, slots=True)
class Context:
    """What is known of a signature when its logs arrive.

    `file` and `line` are what the overview says of it, for logs that do not. `problems` are all of the
    platform's. `comparable`: whether enough is known of earlier versions to call a problem new.
    """

    signature: Signature
    origin: Origin
    file: str
    line: int | None
    problems: Mapping[str, Versions]
    comparable: bool


@dataclass(frozen=True, slots=True)
class ConvertedGauges:
    """Gauges, and what does not leave; `series` and `capped` by metric name."""

    gauges: list[Metric]
    series: Counter[str]
    capped: Counter[str]
    left_out: Counter[str]


@dataclass(frozen=True, slots=True)
class ConvertedLogs:
    """What the logs of a signature bring.

    `events` and `observations` are of the logs not seen before, `identities` of all of them.
    """

    events: list[LogRecord]
    observations: list[Observation]
    identities: list[bytes]
    problems: dict[str, Versions]
    left_out: Counter[str]


def convert_signatures(
    signatures: Sequence[Signature],
    origin: Origin,
    *,
    new: Collection[str],
    top: int,
    series_cap: int,
    observed_at: int,
) -> ConvertedGauges:
    """The signatures of one build as gauges.

    Args:
        signatures: all of them.
        origin: the build.
        new: the ids of those that no earlier version had; empty for a build that is not the newest.
        top: how many of each type become series, the heaviest first.
        series_cap: how many series may leave; the counts go first, then the shares of what is new, then the
            heaviest signatures.
        observed_at: when the answer arrived, in nanoseconds since the epoch.
    """
    of_type: defaultdict[str, list[Signature]] = defaultdict(list, {kind: [] for kind in _HISTOGRAMS})
    for signature in signatures:
        of_type[signature.type].append(signature)
    left_out: Counter[str] = Counter()
    found: list[tuple[tuple[int, int, str], FixedMetric, dict[str, str], float]] = []
    for kind, of_kind in of_type.items():
        where = {"diagnostic_type": kind, "version": origin.version, "platform": origin.platform}
        found.append(((0, 0, kind), SIGNATURES, where, float(len(of_kind))))
        share = new_share(of_kind, new)
        if share is not None:
            found.append(((0, 1, kind), NEW_SHARE, where, share))
        ranked = sorted(of_kind, key=lambda item: (item.weight is None, -(item.weight or 0.0), item.id))
        left_out["top_signatures"] += len(ranked[top:])
        for rank, signature in enumerate(ranked[:top]):
            attributes = where | signature_attributes(signature.id, signature.text)
            values = {SIGNATURE_WEIGHT: signature.weight, SIGNATURE_TREND: signature.trend}
            for metric, value in values.items():
                if value is not None:
                    found.append(((1, rank, kind), metric, attributes, float(value)))
            found.append(((1, rank, kind), SIGNATURE_NEW, attributes, float(signature.id in new)))
            for version, value in signature.reference_versions:
                reference = attributes | {"reference_version": version}
                found.append(((2, rank, kind), SIGNATURE_REFERENCE, reference, value))
    found.sort(key=lambda entry: entry[0])
    kept, beyond = found[: max(0, series_cap)], found[max(0, series_cap) :]
    left_out["series_cap"] += len(beyond)
    return ConvertedGauges(
        gauges=gauges(((metric, attributes, value) for _, metric, attributes, value in kept), observed_at),
        series=Counter(metric.name for _, metric, _, _ in kept),
        capped=Counter(metric.name for _, metric, _, _ in beyond),
        left_out=+left_out,
    )


def convert_occurrences(
    overview: Overview,
    known: Mapping[str, tuple[str, str, str]],
    *,
    top: int,
    series_cap: int,
    observed_at: int,
) -> ConvertedGauges:
    """How often the top signatures of the newest version occurred, as the overview counts them.

    Args:
        overview: Apple's answer.
        known: signature id → text, version and platform in the signatures' own answer: with these the counts
            stand beside the weights, whatever the overview calls them.
        top: how many of each type become series, the most frequent first.
        series_cap: how many series may leave.
        observed_at: when the answer arrived, in nanoseconds since the epoch.
    """
    points: list[tuple[FixedMetric, dict[str, str], float]] = []
    left_out: Counter[str] = Counter()
    ranks: Counter[str] = Counter()
    for signature in sorted(overview.signatures, key=lambda item: (-(item.count or 0.0), item.id)):
        told = signature.text, overview.latest_version, overview.platform
        text, version, platform = known.get(signature.id, told)
        if signature.count is None:
            left_out["no_value"] += 1
        elif ranks[signature.type] >= top:
            left_out["top_signatures"] += 1
        elif not version:
            left_out["no_version"] += 1
        else:
            ranks[signature.type] += 1
            attributes = {"diagnostic_type": signature.type, "version": version}
            attributes |= {"platform": platform} if platform else {}
            attributes |= signature_attributes(signature.id, text)
            points.append((SIGNATURE_COUNT, attributes, signature.count))
    kept, beyond = points[: max(0, series_cap)], points[max(0, series_cap) :]
    left_out["series_cap"] += len(beyond)
    return ConvertedGauges(
        gauges=gauges(kept, observed_at),
        series=Counter({SIGNATURE_COUNT.name: len(kept)}),
        capped=+Counter({SIGNATURE_COUNT.name: len(beyond)}),
        left_out=+left_out,
    )


def gauges(points: Iterable[tuple[FixedMetric, Mapping[str, str], float]], observed_at: int) -> list[Metric]:
    """Points of any gauges as OTLP metrics, each name once."""
    of_metric: defaultdict[FixedMetric, list[NumberDataPoint]] = defaultdict(list)
    for metric, attributes, value in points:
        of_metric[metric].append(NumberDataPoint(dict(attributes), 0, observed_at, value))
    return [
        Metric(
            name=metric.name, description=metric.description, unit=metric.unit, data=Gauge(of_metric[metric])
        )
        for metric in sorted(of_metric, key=lambda metric: metric.name)
    ]


def signature_attributes(signature_id: str, text: str) -> dict[str, str]:
    """`signature_id` and, if there is a text, `signature`.

    The text is bounded, and without the offset at its end: a compiler moves it from build to build, and a
    series is to be found again. An offset into a binary is all that tells signatures without names apart.
    """
    name = _OFFSET.sub("", text) if recognition.is_named(text) else text
    readable = _shortened(name, _LONGEST_SIGNATURE)
    return {"signature_id": signature_id} | ({"signature": readable} if readable else {})


def problems_of(signatures: Iterable[Signature]) -> dict[str, str]:
    """Signature id → the problem it is, which keeps its name over builds."""
    return {item.id: recognition.problem(item.type, item.text or item.id) for item in signatures}


def new_signatures(
    signatures: Iterable[Signature], version: str, problems: Mapping[str, Versions]
) -> frozenset[str]:
    """The ids of the signatures of a version that no earlier version had.

    A signature that names no function has another text in each build, and is not called new.

    Args:
        problems: those of the platform that are remembered.
    """
    named = [item for item in signatures if recognition.is_named(item.text)]
    return frozenset(
        signature_id
        for signature_id, problem in problems_of(named).items()
        if seen_in(problems.get(problem), version).first == version
    )


def new_share(signatures: Collection[Signature], new: Collection[str]) -> float | None:
    """The weight of the new among the signatures of one type, over the weight of all: 0 to 1 on any scale.

    0 where none is new, as of a type without any: an alert is to end. Otherwise None where it is not known: a
    signature has no weight or a negative one, or all weigh nothing.

    Args:
        signatures: all of the type, each id once.
        new: the ids of those that no earlier version had, of any type.
    """
    if not any(item.id in new for item in signatures):
        return 0.0
    weights = {item.id: item.weight for item in signatures if item.weight is not None and item.weight >= 0.0}
    heaviest = max(weights.values(), default=0.0)
    if len(weights) < len(signatures) or heaviest == 0.0:
        return None
    parts = {key: weight / heaviest for key, weight in weights.items()}  # whose sum cannot overflow
    return math.fsum(part for key, part in parts.items() if key in new) / math.fsum(parts.values())


def knows_earlier(problems: Mapping[str, Versions], version: str) -> bool:
    """Whether anything is remembered of a version before this one."""
    return any(version_key(known.first) < version_key(version) for known in problems.values())


def seen_in(known: Versions | None, version: str) -> Versions:
    """The versions in which a problem was seen, now that it was seen in this one."""
    if known is None:
        return Versions(version, version)
    return Versions(min(known.first, version, key=version_key), max(known.last, version, key=version_key))


def convert_logs(
    products: Iterable[SignatureLogs], context: Context, *, seen: Collection[bytes], observed_at: int
) -> ConvertedLogs:
    """The logs of one signature as events and observations.

    Args:
        products: Apple's answer.
        context: what is known of the signature.
        seen: the identities of logs that were sent before.
        observed_at: when the answer arrived, in nanoseconds since the epoch.
    """
    converted = ConvertedLogs([], [], [], {}, Counter())
    met = set[bytes]()
    for product in products:
        for log in product.logs:
            identity = recognition.identity(context.signature.type, log, context.signature.id)
            if identity in met:
                converted.left_out["duplicate"] += 1
                continue
            met.add(identity)
            converted.identities.append(identity)
            tree = call_tree(log.stacks)
            known = recognition.recognise(context.signature.type, tree, _name_of(context))
            versions = _versions_of(known.fingerprint, log, converted, context)
            converted.problems[known.fingerprint] = versions
            if identity not in seen:
                _add_log(
                    converted, log, tree, identity, known, versions, product.insights, context, observed_at
                )
    return converted


def diagnostic_distributions(observations: Iterable[Observation]) -> list[Distribution]:
    """Values that wait → one distribution a series."""
    values: defaultdict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = defaultdict(list)
    for item in observations:
        values[item.metric, item.attributes].append(item.value)
    metrics = {metric.name: metric for metric in _HISTOGRAMS.values()}
    return [
        distribution(
            name,
            metrics[name].unit,
            metrics[name].description,
            dict(attributes),
            of_series,
            BOUNDS[metrics[name].unit],
        )
        for (name, attributes), of_series in values.items()
    ]


def device_model(text: str) -> str:
    """The spelling of metrics: `iPhone13_3` → `iPhone13,3`."""
    match = _UNDERSCORED_DEVICE.fullmatch(text)
    return f"{match[1]},{match[2]}" if match else text


def os_of(text: str) -> tuple[str, str]:
    """Version and build of an operating system: `iPhone OS 14.6 (18F72)` → `14.6`, `18F72`.

    Either is empty where it is not told; a text without any number is taken for the version as it stands.
    """
    if _OS_BUILD.fullmatch(text):
        return "", text
    match = _OS.search(text)
    return (match[1], match[2] or "") if match else (text, "")


def _name_of(context: Context) -> str:
    return context.signature.text or context.signature.id


def _versions_of(fingerprint: str, log: Log, converted: ConvertedLogs, context: Context) -> Versions:
    """In which versions a log's problem was seen, by its stack or by its signature's text."""
    known = converted.problems.get(fingerprint) or context.problems.get(fingerprint)
    versions = seen_in(known, log.app_version or context.origin.version)
    text = recognition.problem(context.signature.type, _name_of(context))
    if of_signature := context.problems.get(text):
        versions = seen_in(seen_in(versions, of_signature.first), of_signature.last)
    return versions


def _add_log(
    converted: ConvertedLogs,
    log: Log,
    tree: list[Node],
    identity: bytes,
    problem: recognition.Problem,
    versions: Versions,
    insights: tuple[LogInsight, ...],
    context: Context,
    observed_at: int,
) -> None:
    kind, origin = context.signature.type, context.origin
    version = log.app_version or origin.version
    os_version, os_build = os_of(log.os_version)
    device = device_model(log.device) or _UNKNOWN
    quantity = _quantity(kind, log)
    if quantity is not None:
        attributes = {"device": device, "platform": origin.platform, "version": version}
        attributes |= {"os_version": os_version} if os_version else {}
        converted.observations.append(
            Observation(_HISTOGRAMS[kind].name, tuple(attributes.items()), quantity)
        )
    else:
        converted.left_out["no_quantity" if kind in _HISTOGRAMS else "unknown_type"] += 1
    tellable = context.comparable and problem.lasting and version == origin.version
    new = versions.first == version if tellable else None
    frame = blamed_frame(tree)
    file, line = (frame.file, frame.line) if frame and frame.file else (context.file, context.line)
    attributes_of_event: dict[str, AnyValue] = {
        **signature_attributes(context.signature.id, context.signature.text),
        "diagnostic_type": kind,
        "version": version,
        "platform": origin.platform,
        "build": log.build_version or origin.build,
        "device": device,
        "os_version": os_version,
        "os_build": os_build,
        "architecture": log.architecture,
        "appstore.diagnostic.weight": context.signature.weight,
        "appstore.diagnostic.fingerprint": problem.fingerprint,
        "appstore.diagnostic.first_seen_version": versions.first,
        "appstore.diagnostic.last_seen_version": versions.last,
        "appstore.diagnostic.new": new,
        "appstore.diagnostic.event": log.event,
        "appstore.diagnostic.detail": log.detail,
        "appstore.diagnostic.bytes_written": None
        if kind != "DISK_WRITES" or quantity is None
        else int(quantity),
        "appstore.diagnostic.duration": None if kind == "DISK_WRITES" else quantity,
        "appstore.diagnostic.insight": _shortened(
            " ".join(dict.fromkeys(insight.text for insight in insights if insight.text)), _LONGEST_REMARK
        ),
        "appstore.diagnostic.insight_url": next((insight.url for insight in insights if insight.url), ""),
        "appstore.diagnostic.log_id": identity.hex(),
        "code.function.name": _OFFSET.sub("", frame.symbol) if frame else "",
        "code.file.path": file,
        "code.line.number": line,
        "code.stacktrace": render(tree),
    }
    converted.events.append(
        LogRecord(
            timestamp=observed_at,
            observed_timestamp=observed_at,
            severity_number=SeverityNumber.WARN if new else SeverityNumber.INFO,
            severity_text="WARN" if new else "INFO",
            body=_sentence(log, context, device, frame.symbol if frame else ""),
            attributes={
                name: value for name, value in attributes_of_event.items() if value not in ("", None)
            },
            event_name=DIAGNOSTIC_EVENT.name,
        )
    )


def _quantity(kind: str, log: Log) -> float | None:
    """Bytes written, or seconds, as Apple's words tell them; None where they do not.

    Bytes are whole ones: 2.01 MB are 2009999.9… in doubles. More than OTLP's integers hold nobody wrote.
    """
    if kind == "DISK_WRITES":
        sizes = map(quantities.size_in, (log.writes_caused, log.detail))
        return next((float(round(size)) for size in sizes if size is not None and size < _MOST_BYTES), None)
    return quantities.duration_in(log.detail) if kind in _HISTOGRAMS else None


def _sentence(log: Log, context: Context, device: str, symbol: str) -> str:
    """What a person reads first: `Hang in Checkout.pay() on iPhone13,3, version 5.41.0: Hang of 2.35 sec`."""
    kind = context.signature.type
    where = _OFFSET.sub("", symbol or context.signature.text)
    text = _WORDS.get(kind, kind)
    text += f" in {_shortened(where, _LONGEST_SIGNATURE)}" if where else ""
    on = "an unknown device" if device == _UNKNOWN else device
    text += f" on {on}, version {log.app_version or context.origin.version}"
    return f"{text}: {log.detail}" if log.detail else text


def _shortened(text: str, longest: int) -> str:
    text = clean_text(text, max(longest, len(text)))
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
