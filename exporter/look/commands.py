"""What each command shows: App Store Connect is asked, or a file read, and the answer becomes a `Found`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import BinaryIO

from exporter.appstore.discovery import complete, newest_versions
from exporter.appstore.jsonapi import App, next_link, printable
from exporter.appstore.payloads.diagnostics import Signature, SignatureLogs, parse_logs, parse_signatures
from exporter.appstore.payloads.insights import parse_insights
from exporter.appstore.payloads.metrics import parse_metrics
from exporter.appstore.payloads.overview import parse_overview
from exporter.errors import AppStoreError, BadAnswer, ConfigError, NotFound
from exporter.look import documents, views
from exporter.look.choice import Choice, Row, nothing_fits
from exporter.look.connection import Connection
from exporter.look.documents import Document
from exporter.look.saved import read

MANY_REQUESTS = 20


@dataclass(frozen=True, slots=True)
class Found:
    """What a command shows.

    Args:
        document: for a pipe; fit for JSON.
        text: for a terminal of so many cells, None for no limit.
        notes: sentences that are said beside it.
        failure: what went wrong on the way; the rest is shown all the same.
    """

    document: object
    text: Callable[[int | None], str]
    notes: tuple[str, ...] = ()
    failure: AppStoreError | None = None


@dataclass(frozen=True, slots=True)
class DiagnosticsChoice:
    """Which diagnostics to show.

    Args:
        types: `hangs`, `disk-writes`, `LAUNCHES` and so on; all if empty.
        limit: the heaviest so many signatures of each type; None for all.
        callstack: whether to show call stacks, and download the logs that they are in.
    """

    types: Sequence[str] = ()
    limit: int | None = None
    callstack: bool = False


def apps(connection: Connection) -> Found:
    """All apps that the key sees, marked whether the configuration selects them."""
    selection = connection.account.apps
    rows = [
        documents.app(app, selected=bool(app.bundle_id) and selection.selects(app.id, app.bundle_id))
        for app in connection.client.apps()
    ]
    return Found(rows, lambda width: views.apps(rows, width))


def builds(connection: Connection, wanted: str, *, every: bool) -> Found:
    """An app's builds, the last uploaded first: those whose diagnostics are collected, or every one."""
    app, settings = connection.app(wanted), connection.settings.diagnostics
    size, testflight = settings.versions, settings.testflight
    listed = connection.client.builds(
        app.id,
        enough=lambda found: not every and complete(found, versions=size, testflight=testflight),
    )
    chosen = {build.id for build in newest_versions(listed, versions=size, testflight=testflight)}
    shown = [build for build in listed if every or build.id in chosen]
    rows = [documents.build(build, diagnostics=build.id in chosen) for build in shown]
    note = (
        f"the builds whose diagnostics the exporter collects; {len(shown)} of {len(listed)} looked at. "
        "--all shows all."
    )
    return Found(rows, lambda width: views.builds(rows, width), () if every else (note,))


def metrics(connection: Connection, wanted: str, choice: Choice) -> Found:
    """The points of an app or a build; on a terminal with Apple's insights about them."""
    document = _metrics_of(connection, wanted)
    points, insights, notes = _measured(document, choice)
    return Found(points, lambda width: _metrics_text(points, insights, width), notes)


def insights(connection: Connection, wanted: str) -> Found:
    """Apple's regressions and upward trends of an app."""
    document = connection.client.metrics("apps", connection.app(wanted).id).document
    found, points = parse_metrics(document).insights, documents.points(document)
    rows = documents.insights(found)
    notes = _left_out(found.left_out) if found else ("the answer has no insights: not none, no such part",)
    return Found(rows, lambda width: views.insights(rows, points, width), notes)


def diagnostics(
    connection: Connection, wanted: str, choice: DiagnosticsChoice, say: Callable[[str], None]
) -> Found:
    """The signatures of a build, the heaviest of each type first, with their logs if call stacks are wanted.

    Args:
        say: told beforehand when many requests are to be made.
    """
    build_id = connection.build(wanted)
    try:
        answers = connection.client.signatures(build_id)
    except NotFound as error:
        note = f"{error} A build without diagnostics may not be known here either."
        return Found([], lambda width: views.signatures([], width), (note,))
    found = parse_signatures(answer.document for answer in answers)
    rows, notes = _heaviest(found.signatures, choice)
    failure = _add_logs(connection, rows, say) if choice.callstack else None
    notes += _left_out(found.left_out)
    return Found(rows, lambda width: views.signatures(rows, width), notes, failure)


def parse(file: BinaryIO, name: str, choice: Choice, diagnostics_choice: DiagnosticsChoice) -> Found:
    """A saved answer, shown as if it had just been asked for.

    Raises:
        ConfigError: the file is none of those that can be read.
    """
    kind, document = read(file, name)
    try:
        if kind == "xcodeMetrics":
            return _saved_metrics(document, choice)
        if kind == "xcodeOverview":
            return _saved_overview(document)
        if kind == "diagnosticSignatures":
            return _saved_signatures(document, diagnostics_choice)
        return _saved_logs(document, diagnostics_choice)
    except BadAnswer as error:
        raise ConfigError(error.what.replace("the answer", "the file"), where=printable(name, 200)) from None


def _metrics_of(connection: Connection, wanted: str) -> Mapping[str, object]:
    meant = connection.app_or_build(wanted)
    if isinstance(meant, App):
        return connection.client.metrics("apps", meant.id).document
    return connection.client.metrics("builds", meant).document


def _measured(
    document: Mapping[str, object], choice: Choice
) -> tuple[list[Document], list[Document], tuple[str, ...]]:
    """The chosen points and insights of an `xcodeMetrics` document, and notes."""
    payload = parse_metrics(document)
    points = documents.points(document)
    insights = choice.insights(documents.insights(payload.insights))
    return choice.points(points), insights, (*choice.unmatched(points), *_left_out(payload.left_out))


def _metrics_text(points: Sequence[Row], insights: Sequence[Row], width: int | None) -> str:
    told = [views.insights(insights, points, width)] if insights else []
    return "\n\n".join([views.metrics(points, width), *told])


def _heaviest(
    found: Sequence[Signature], choice: DiagnosticsChoice
) -> tuple[list[Document], tuple[str, ...]]:
    """The chosen signatures by type, the heaviest first; and a note for each type that none has."""
    of_type: dict[str, list[Signature]] = {}
    for signature in sorted(found, key=lambda one: -inf if one.weight is None else one.weight, reverse=True):
        of_type.setdefault(_type(signature.type), []).append(signature)
    wanted = [_type(word) for word in choice.types] or sorted(of_type)
    rows = [
        documents.signature(signature)
        for kind in dict.fromkeys(wanted)
        for signature in of_type.get(kind, [])[: choice.limit]
    ]
    missing = [word for word in choice.types if _type(word) not in of_type]
    return rows, tuple(nothing_fits("--type", word, sorted(of_type)) for word in missing)


def _type(word: str) -> str:
    """`disk-writes` → `DISK_WRITES`, as Apple writes it."""
    return word.strip().upper().replace("-", "_").replace(" ", "_")


def _add_logs(
    connection: Connection, rows: Sequence[Document], say: Callable[[str], None]
) -> AppStoreError | None:
    """Download the logs of each signature into its row; what went wrong, if anything did.

    An answer that cannot be read costs that answer; after any other failure nothing more is asked.
    """
    if len(rows) > MANY_REQUESTS:
        say(f"{len(rows)} requests for the logs of {len(rows)} signatures; --limit asks for fewer")
    failure: AppStoreError | None = None
    for row in rows:
        try:
            answer = connection.client.logs(row["id"])
            _put_logs(row, parse_logs(answer.document).products, callstack=True)
        except NotFound:
            _put_logs(row, (), callstack=True)
        except BadAnswer as error:
            failure = failure or error
        except AppStoreError as error:
            return error
    return failure


def _put_logs(row: Document, products: Sequence[SignatureLogs], *, callstack: bool) -> None:
    found = [documents.logs(product, stacks=callstack) for product in products]
    row["diagnosticInsights"] = [remark for product in found for remark in product["diagnosticInsights"]]
    row["diagnosticLogs"] = [log for product in found for log in product["diagnosticLogs"]]
    row["blamedFrame"] = next(
        (log["blamedFrame"] for log in row["diagnosticLogs"] if log["blamedFrame"]), None
    )


def _saved_metrics(document: Mapping[str, object], choice: Choice) -> Found:
    points, insights, notes = _measured(document, choice)
    whole = {"kind": "xcodeMetrics", "metrics": points, "insights": insights}
    return Found(whole, lambda width: _metrics_text(points, insights, width), notes)


def _saved_logs(document: Mapping[str, object], choice: DiagnosticsChoice) -> Found:
    found = parse_logs(document)
    rows = [documents.logs(product, stacks=choice.callstack) for product in found.products[: choice.limit]]

    def text(width: int | None) -> str:
        parts = [views.logs(row, f"signature {row['signatureId'] or '-'}", width) for row in rows]
        return "\n\n".join(parts) or "No logs."

    return Found({"kind": "diagnosticLogs", "signatures": rows}, text, _left_out(found.left_out))


def _saved_signatures(document: Mapping[str, object], choice: DiagnosticsChoice) -> Found:
    found = parse_signatures([document])
    rows, notes = _heaviest(found.signatures, choice)
    if next_link(document):
        notes += ("the file is one page of several: signatures on the others are not shown",)
    whole = {"kind": "diagnosticSignatures", "signatures": rows}
    return Found(whole, lambda width: views.signatures(rows, width), (*notes, *_left_out(found.left_out)))


def _saved_overview(document: Mapping[str, object]) -> Found:
    found = parse_overview(document)
    insights = documents.insights(parse_insights(document.get("insights")))
    whole = {"kind": "xcodeOverview", **documents.overview(found), "insights": insights}

    def text(width: int | None) -> str:
        return f"{views.overview(whole, width)}\n\n{views.insights(insights, [], width)}"

    return Found(whole, text, _left_out(found.left_out))


def _left_out(reasons: Counter[str]) -> tuple[str, ...]:
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return (f"the exporter leaves out what it cannot use: {listed}",) if listed else ()
