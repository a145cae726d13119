"""What each command shows of App Store Connect, which is asked for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from exporter.appstore.discovery import complete, newest_versions
from exporter.appstore.jsonapi import App
from exporter.appstore.payloads.diagnostics import SignatureLogs, parse_logs, parse_signatures
from exporter.appstore.payloads.metrics import parse_metrics
from exporter.errors import AppStoreError, BadAnswer, NotFound
from exporter.look import documents, insight_views, views
from exporter.look.choice import Choice, DiagnosticsChoice
from exporter.look.connection import Connection
from exporter.look.documents import Document
from exporter.look.found import Found, heaviest, left_out, measured

MANY_REQUESTS = 20


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


def metrics(connection: Connection, wanted: str, choice: Choice, *, every: bool) -> Found:
    """The points of an app or a build; on a terminal with Apple's insights about them.

    Args:
        every: whether all device models of an insight are shown.
    """
    found = measured(_metrics_of(connection, wanted), choice, every=every)
    return Found(found.points, found.text, found.notes, fits=found.fits)


def insights(connection: Connection, wanted: str, choice: Choice, *, every: bool) -> Found:
    """Apple's regressions and upward trends of an app.

    Args:
        every: whether all device models are shown.
    """
    document = connection.client.metrics("apps", connection.app(wanted).id).document
    found, points = parse_metrics(document).insights, documents.points(document)
    if found is None:
        notes: tuple[str, ...] = ("the answer has no insights: not none, no such part",)
    else:
        notes = left_out(found.left_out)
    rows = documents.insights(found, points)
    measured_anywhere = [*points, *_populations(rows)]
    return Found(
        document=(chosen := choice.insights(rows)),
        text=lambda width: insight_views.insights(chosen, points, width, every=every),
        notes=(*choice.unmatched(measured_anywhere), *notes),
        fits=not choice.in_vain(measured_anywhere),
    )


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
    rows, notes = heaviest(found.signatures, choice)
    failure = _add_logs(connection, rows, choice, say) if choice.callstack else None
    notes += left_out(found.left_out)
    if choice.logs and not choice.callstack:
        notes += ("--logs has no meaning without --callstack",)
    return Found(rows, lambda width: views.signatures(rows, width), notes, failure)


def _metrics_of(connection: Connection, wanted: str) -> Mapping[str, object]:
    meant = connection.app_or_build(wanted)
    if isinstance(meant, App):
        return connection.client.metrics("apps", meant.id).document
    return connection.client.metrics("builds", meant).document


def _populations(rows: Sequence[Document]) -> list[Document]:
    """The populations of insights, as places where a point could be."""
    return [
        {**population, "metricCategory": row["metricCategory"], "metric": row["metric"]}
        for row in rows
        for population in row["populations"]
    ]


def _add_logs(
    connection: Connection, rows: Sequence[Document], choice: DiagnosticsChoice, say: Callable[[str], None]
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
            _put_logs(row, parse_logs(answer.document).products, choice)
        except NotFound:
            _put_logs(row, (), choice)
        except BadAnswer as error:
            failure = failure or error
        except AppStoreError as error:
            return error
    return failure


def _put_logs(row: Document, products: Sequence[SignatureLogs], choice: DiagnosticsChoice) -> None:
    found = [
        documents.logs(product, stacks=True, whole=choice.whole, most_logs=choice.logs)
        for product in products
    ]
    row["diagnosticInsights"] = [remark for product in found for remark in product["diagnosticInsights"]]
    row["logCount"] = sum(product["logCount"] for product in found)
    row["diagnosticLogs"] = [log for product in found for log in product["diagnosticLogs"]]
    row["blamedFrame"] = next(
        (log["blamedFrame"] for log in row["diagnosticLogs"] if log["blamedFrame"]), None
    )
