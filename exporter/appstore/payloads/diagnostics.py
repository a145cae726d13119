"""Diagnostic signatures (JSON:API) and their logs (`diagnosticLogs`) → frozen dataclasses.

Lenient, as everything that reads Apple's answers: every field of a log may be missing. Call-stack trees nest
as deep as a device's stack did, so nothing here recurses: a tree becomes the list of its frames, each with
its depth, in the order in which one reads them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from exporter.appstore.payloads.reader import Reader, clean_text, finite
from exporter.errors import BadAnswer

_TRENDS = {"UP": 1, "DOWN": -1, "UNDEFINED": 0}
_LONGEST_SYMBOL = 500
_FRAME_TEXTS = (
    "symbolName",
    "binaryName",
    "binaryUUID",
    "fileName",
    "address",
    "offsetIntoSymbol",
    "offsetIntoBinaryTextSegment",
    "rawFrame",
    "insightsCategory",
)


@dataclass(frozen=True, slots=True)
class Signature:
    """A recurring pattern of calls in one build.

    `weight` is its share of its type, on whichever scale Apple uses (0 to 1 in Apple's documentation, 0 to
    100 in some accounts). `trend` is 1 (up), 0 (undefined), -1 (down), None without an insight.
    """

    id: str
    type: str
    text: str
    weight: float | None
    trend: int | None
    reference_versions: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Signatures:
    """The signatures of a build, each id once, in Apple's order; with what had to be left out."""

    signatures: tuple[Signature, ...]
    left_out: Counter[str]


class Frame(NamedTuple):
    """One frame of a call-stack tree; a frame with a larger `depth` right after it is called by it.

    Texts may be empty. Offsets and addresses are texts, as Apple sends them. `samples` is how often the frame
    was seen, None where Apple does not say.
    """

    depth: int
    symbol: str
    binary: str
    binary_uuid: str
    file: str
    line: int | None
    address: str
    offset_in_symbol: str
    offset_in_text: str
    raw: str
    samples: int | None
    blamed: bool
    category: str


@dataclass(frozen=True, slots=True)
class Log:
    """One diagnostic log. All texts as Apple sends them, empty where missing.

    `stacks` has one entry for each call stack (a thread, where they are per thread): its frames in pre-order.
    """

    event: str
    detail: str
    writes_caused: str
    os_version: str
    app_version: str
    build_version: str
    bundle_id: str
    device: str
    architecture: str
    stacks: tuple[tuple[Frame, ...], ...]


class LogInsight(NamedTuple):
    """What Apple says about the logs of a signature."""

    category: str
    text: str
    url: str


@dataclass(frozen=True, slots=True)
class SignatureLogs:
    """The logs of one signature, with Apple's remarks on them."""

    signature_id: str
    insights: tuple[LogInsight, ...]
    logs: tuple[Log, ...]


@dataclass(frozen=True, slots=True)
class DiagnosticLogs:
    """A whole answer, with what had to be left out of it."""

    products: tuple[SignatureLogs, ...]
    left_out: Counter[str]


def parse_signatures(documents: Iterable[object]) -> Signatures:
    """All pages of `/v1/builds/{id}/diagnosticSignatures` → Signatures. A build may have none.

    Raises:
        BadAnswer: a page has no `data` list, or there is nothing in them that could be understood. What is
            stored from earlier answers is better than that.
    """
    reader, found = Reader(), dict[str, Signature]()
    for document in documents:
        if not isinstance(document, dict) or not isinstance(document.get("data"), list):
            raise BadAnswer(
                "the answer has no data list, so it is no page of diagnosticSignatures",
                remedy="The last good data stays. If it persists, Apple has changed the format.",
            )
        for resource in reader.objects(document["data"]):
            signature = _signature(resource, reader)
            if signature is None:
                reader.left_out["no_signature"] += 1
            elif signature.id in found:
                reader.left_out["duplicate"] += 1
            else:
                found[signature.id] = signature
    if not found and reader.left_out:
        raise BadAnswer(
            f"no signature in the answer could be understood ({dict(reader.left_out)})",
            remedy="The last good data stays. If it persists, Apple has changed the format.",
        )
    return Signatures(tuple(found.values()), reader.left_out)


def parse_logs(document: object) -> DiagnosticLogs:
    """A decoded `diagnosticLogs` document → DiagnosticLogs. A signature without logs gives none.

    Raises:
        BadAnswer: the document has no `productData` list, or holds no log but things that could not be
            understood. The logs are then asked for again.
    """
    if not isinstance(document, dict) or not isinstance(document.get("productData"), list):
        raise BadAnswer(
            "the answer has no productData list, so it is not diagnosticLogs",
            remedy="The next poll asks again. If it persists, Apple has changed the format.",
        )
    reader, remarks = Reader(), Reader()
    products = tuple(
        SignatureLogs(
            signature_id=reader.text(product.get("signatureId")),
            insights=tuple(_log_insights(product.get("diagnosticInsights"), remarks)),
            logs=tuple(_log(log, reader) for log in reader.objects(product.get("diagnosticLogs"))),
        )
        for product in reader.objects(document["productData"])
    )
    if reader.left_out and not any(product.logs for product in products):
        raise BadAnswer(
            f"no log in the answer could be understood ({dict(reader.left_out)})",
            remedy="It is asked for again tomorrow. If it persists, Apple has changed the format.",
        )
    return DiagnosticLogs(products, reader.left_out + remarks.left_out)


def trend_of(direction: object) -> int | None:
    """Apple's `UP`, `DOWN`, `UNDEFINED` → 1, -1, 0; None for anything else."""
    return _TRENDS.get(direction.strip().upper()) if isinstance(direction, str) else None


def reference_versions(raw: object, reader: Reader) -> tuple[tuple[str, float], ...]:
    """`[{version, value}]` → pairs, each version once, the first counts; others are left out."""
    found: dict[str, float] = {}
    for item in reader.objects(raw):
        version, value = reader.text(item.get("version")), finite(item.get("value"))
        if value is None:
            reader.left_out["no_value" if item.get("value") is None else "not_a_number"] += 1
        elif not version or version in found:
            reader.left_out["duplicate" if version else "no_version"] += 1
        else:
            found[version] = value
    return tuple(found.items())


def _signature(resource: dict[str, Any], reader: Reader) -> Signature | None:
    """None where id or type are missing: nobody could tell what it is a signature of."""
    attributes = reader.mapping(resource.get("attributes"))
    signature_id, kind = reader.text(resource.get("id")), reader.text(attributes.get("diagnosticType"))
    if not (signature_id and kind):
        return None
    insight = reader.mapping(attributes.get("insight"))
    return Signature(
        id=signature_id,
        type=kind,
        text=_symbol(attributes.get("signature")),
        weight=reader.value(attributes.get("weight")),
        trend=trend_of(insight.get("direction")),
        reference_versions=reference_versions(insight.get("referenceVersions"), reader),
    )


def _log_insights(raw: object, reader: Reader) -> Iterator[LogInsight]:
    for item in reader.objects(raw):
        insight = LogInsight(
            reader.text(item.get("insightsCategory")),
            _symbol(item.get("insightsString")),
            _symbol(item.get("insightsURL")),
        )
        if any(insight):
            yield insight


def _log(log: dict[str, Any], reader: Reader) -> Log:
    about = reader.mapping(log.get("diagnosticMetaData"))
    return Log(
        event=reader.text(about.get("event")),
        detail=reader.text(about.get("eventDetail")),
        writes_caused=reader.text(about.get("writesCaused")),
        os_version=reader.text(about.get("osVersion")),
        app_version=reader.text(about.get("appVersion")),
        build_version=reader.text(about.get("buildVersion")),
        bundle_id=reader.text(about.get("bundleId")),
        device=reader.text(about.get("deviceType")),
        architecture=reader.text(about.get("platformArchitecture")),
        stacks=tuple(_stacks(log.get("callStackTree"), reader)),
    )


def _stacks(raw: object, reader: Reader) -> Iterator[tuple[Frame, ...]]:
    """A list of trees in App Store Connect, one tree in MetricKit's reports."""
    for tree in [raw] if type(raw) is dict else reader.objects(raw):
        for stack in reader.objects(tree.get("callStacks")):
            frames = tuple(_frames(stack.get("callStackRootFrames"), reader))
            if frames:
                yield frames


def _frames(raw: object, reader: Reader) -> Iterator[Frame]:
    """The frames below a list of root frames in pre-order, by a stack of our own."""
    waiting = [reader.objects(raw)]
    while waiting:
        node = next(waiting[-1], None)
        if node is None:
            waiting.pop()
            continue
        yield _frame(node, len(waiting) - 1)
        if node.get("subFrames"):
            waiting.append(reader.objects(node["subFrames"]))


def _frame(node: dict[str, Any], depth: int) -> Frame:
    symbol, binary, uuid, file, address, in_symbol, in_text, raw, category = (
        _symbol(node.get(name)) for name in _FRAME_TEXTS
    )
    samples = finite(node.get("sampleCount"))
    return Frame(
        depth=depth,
        symbol=symbol,
        binary=binary,
        binary_uuid=uuid,
        file=file,
        line=line_number(node.get("lineNumber")),
        address=address,
        offset_in_symbol=in_symbol,
        offset_in_text=in_text,
        raw=raw,
        samples=None if samples is None else int(samples),
        blamed=node.get("isBlameFrame") is True,
        category=category,
    )


def line_number(raw: object) -> int | None:
    """A line number, which Apple sends as a text; None where it is none, or 0 for unknown."""
    if type(raw) is float:
        return int(raw) if 1 <= raw < 1e9 else None
    text = raw.strip() if isinstance(raw, str) else ""
    return int(text) or None if text.isascii() and text.isdigit() and len(text) < 10 else None


def _symbol(raw: object) -> str:
    return clean_text(raw, _LONGEST_SYMBOL) if type(raw) is str else ""
