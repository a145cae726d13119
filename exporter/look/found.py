"""What the commands show, of answers just asked for and of saved ones alike. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from exporter.appstore.payloads.diagnostics import Signature
from exporter.appstore.payloads.metrics import parse_metrics
from exporter.errors import AppStoreError
from exporter.look import documents, insight_views, views
from exporter.look.choice import Choice, DiagnosticsChoice, diagnostic_type, nothing_fits
from exporter.look.documents import Document


@dataclass(frozen=True, slots=True)
class Found:
    """What a command shows.

    Args:
        document: for a pipe; fit for JSON.
        text: for a terminal of so many cells, None for no limit.
        notes: sentences that are said beside it.
        failure: what went wrong on the way; the rest is shown all the same.
        fits: whether there is anything that fits what was chosen.
    """

    document: object
    text: Callable[[int | None], str]
    notes: tuple[str, ...] = ()
    failure: AppStoreError | None = None
    fits: bool = True


class Measured(NamedTuple):
    """What was chosen of an `xcodeMetrics` document.

    Args:
        points: as `documents.points` gives them.
        insights: as `documents.insights` gives them.
        notes: sentences to be said beside it.
        fits: whether any point was chosen; true as well where nothing was to choose.
        every: whether the text has all device models of an insight.
    """

    points: list[Document]
    insights: list[Document]
    notes: tuple[str, ...]
    fits: bool
    every: bool

    def text(self, width: int | None) -> str:
        """The points, and below them Apple's insights, if there are any."""
        if not self.insights:
            return views.metrics(self.points, width)
        told = insight_views.insights(self.insights, self.points, width, every=self.every)
        return f"{views.metrics(self.points, width)}\n\n{told}"


def measured(document: Mapping[str, object], choice: Choice, *, every: bool) -> Measured:
    """Choose from an `xcodeMetrics` document.

    Raises:
        BadAnswer: it is none.
    """
    payload, points = parse_metrics(document), documents.points(document)
    chosen = choice.points(points)
    notes, fits = tuple(choice.unmatched(points)), bool(chosen or not choice.given())
    if not (fits or notes):
        notes = (f"no point fits {', '.join(choice.given())} all together",)
    insights = choice.insights(documents.insights(payload.insights, points))
    return Measured(chosen, insights, (*notes, *left_out(payload.left_out)), fits, every)


def heaviest(found: Sequence[Signature], choice: DiagnosticsChoice) -> tuple[list[Document], tuple[str, ...]]:
    """The chosen signatures by type, the heaviest first; and a note for each type that none has."""
    of_type: dict[str, list[Signature]] = {}
    for signature in sorted(found, key=lambda one: -inf if one.weight is None else one.weight, reverse=True):
        of_type.setdefault(diagnostic_type(signature.type) or signature.type, []).append(signature)
    rows = [
        documents.signature(signature)
        for kind in dict.fromkeys(choice.types or sorted(of_type))
        for signature in of_type.get(kind, [])[: choice.limit]
    ]
    missing = [kind for kind in choice.types if kind not in of_type]
    return rows, tuple(nothing_fits("--type", kind, sorted(of_type)) for kind in missing)


def left_out(reasons: Counter[str]) -> tuple[str, ...]:
    """A note on what a reader of Apple's answers could not use, if there is any."""
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return (f"the exporter leaves out what it cannot use: {listed}",) if listed else ()
