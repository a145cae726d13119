"""What the commands show of a saved answer, as if it had just been asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

from exporter.appstore.jsonapi import next_link, printable
from exporter.appstore.payloads.diagnostics import parse_logs, parse_signatures
from exporter.appstore.payloads.insights import parse_insights
from exporter.appstore.payloads.overview import parse_overview
from exporter.errors import BadAnswer, ConfigError
from exporter.look import documents, insight_views, views
from exporter.look.choice import Choice, DiagnosticsChoice
from exporter.look.found import Found, heaviest, left_out, measured
from exporter.look.saved import Kind, Saved, read

_OPTIONS: Mapping[Kind, frozenset[str]] = {
    "xcodeMetrics": frozenset({"--metric", "--device", "--platform", "--percentile"}),
    "diagnosticSignatures": frozenset({"--type", "--limit"}),
    "diagnosticLogs": frozenset({"--limit", "--logs", "--callstack"}),
    "xcodeOverview": frozenset(),
}


def parse(
    file: BinaryIO, name: str, choice: Choice, of_diagnostics: DiagnosticsChoice, *, every: bool
) -> Found:
    """Any of the four kinds; the document is an object whose `kind` says which.

    Args:
        every: whether all device models of an insight are shown.

    Raises:
        ConfigError: the file is none of those that can be read.
    """
    saved = read(file, name)
    with _blaming(name):
        found = _parse(saved, choice, of_diagnostics, every)
    given = [*choice.given(), *of_diagnostics.given()]
    notes = [*found.notes, *_without_meaning(saved.kind, given)]
    return replace(found, notes=tuple(notes))


def metrics(file: BinaryIO, name: str, choice: Choice, *, every: bool) -> Found:
    """A saved `xcodeMetrics`, as the command `metrics` shows it: the document is a list of points.

    Raises:
        ConfigError: the file is no such thing.
    """
    saved = _expected(file, name, "xcodeMetrics")
    with _blaming(name):
        found = measured(saved.document, choice, every=every)
    return Found(found.points, found.text, found.notes, fits=found.fits)


def diagnostics(file: BinaryIO, name: str, choice: DiagnosticsChoice) -> Found:
    """Saved signatures or logs, as the command `diagnostics` shows them: the document is a list of them.

    Raises:
        ConfigError: the file is no such thing.
    """
    saved = _expected(file, name, "diagnosticLogs", "diagnosticSignatures")
    with _blaming(name):
        found = _DIAGNOSTICS[saved.kind](saved.document, choice)
    notes = [*found.notes, *_without_meaning(saved.kind, choice.given())]
    return replace(found, notes=tuple(notes))


def _parse(saved: Saved, choice: Choice, of_diagnostics: DiagnosticsChoice, every: bool) -> Found:
    if saved.kind == "xcodeOverview":
        return _overview(saved.document, every)
    if saved.kind == "xcodeMetrics":
        chosen = measured(saved.document, choice, every=every)
        whole = {"kind": saved.kind, "metrics": chosen.points, "insights": chosen.insights}
        return Found(whole, chosen.text, chosen.notes, fits=chosen.fits)
    found = _DIAGNOSTICS[saved.kind](saved.document, of_diagnostics)
    return replace(found, document={"kind": saved.kind, "signatures": found.document})


def _logs(document: Mapping[str, object], choice: DiagnosticsChoice) -> Found:
    """A limit means logs, as in Apple's sample: such a file has one signature, or few."""
    found = parse_logs(document)
    most = min((limit for limit in (choice.limit, choice.logs) if limit is not None), default=None)
    rows = [
        documents.logs(product, stacks=choice.callstack, whole=choice.whole, most_logs=most)
        for product in found.products
    ]

    def text(width: int | None) -> str:
        parts = [views.logs(row, f"signature {row['signatureId'] or '-'}", width) for row in rows]
        return "\n\n".join(parts) or "No logs."

    return Found(rows, text, left_out(found.left_out))


def _signatures(document: Mapping[str, object], choice: DiagnosticsChoice) -> Found:
    found = parse_signatures([document])
    rows, notes = heaviest(found.signatures, choice)
    if next_link(document):
        notes += ("the file is one page of several: signatures on the others are not shown",)
    return Found(rows, lambda width: views.signatures(rows, width), (*notes, *left_out(found.left_out)))


_DIAGNOSTICS: Mapping[Kind, Callable[[Mapping[str, object], DiagnosticsChoice], Found]] = {
    "diagnosticLogs": _logs,
    "diagnosticSignatures": _signatures,
}


def _overview(document: Mapping[str, object], every: bool) -> Found:
    found, sections = parse_overview(document), documents.sections(document)
    insights = documents.insights(parse_insights(document.get("insights")), sections)
    whole = {"kind": "xcodeOverview", **documents.overview(found, sections), "insights": insights}

    def text(width: int | None) -> str:
        return f"{views.overview(whole, width)}\n\n{insight_views.insights(insights, [], width, every=every)}"

    return Found(whole, text, left_out(found.left_out))


def _expected(file: BinaryIO, name: str, *kinds: Kind) -> Saved:
    saved = read(file, name)
    if saved.kind not in kinds:
        remedy = f"Here {' or '.join(kinds)} is expected; `perfpower-exporter parse` shows the other kinds."
        raise ConfigError(f"the file holds {saved.kind}", remedy=remedy, where=printable(name, 200))
    return saved


def _without_meaning(kind: Kind, given: Sequence[str]) -> Iterator[str]:
    """A note on options that say nothing about this kind of file."""
    if idle := [option for option in given if option not in _OPTIONS[kind]]:
        yield f"the file holds {kind}, about which {', '.join(idle)} {_say(idle)} nothing"


def _say(options: Sequence[str]) -> str:
    return "says" if len(options) == 1 else "say"


@contextmanager
def _blaming(name: str) -> Iterator[None]:
    """What cannot be understood is the file's fault, not an answer's."""
    try:
        yield
    except BadAnswer as error:
        raise ConfigError(error.what.replace("the answer", "the file"), where=printable(name, 200)) from None
