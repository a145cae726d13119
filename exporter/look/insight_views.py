"""Apple's insights → text for a terminal. Pure; `width` is the terminal's in cells, None for no limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from exporter.appstore.versions import version_key
from exporter.look.choice import Row
from exporter.look.tables import Column, number, wrapped
from exporter.look.views import by_version, metric_of, percentile_of, unit_of, value_of

MOST_MODELS = 10
_KINDS = {"trend": "upward trend"}
_INDENT = "  "

_Series = dict[tuple[str, str, str, str], dict[str, str]]


def insights(rows: Sequence[Row], points: Sequence[Row], width: int | None, *, every: bool) -> str:
    """Apple's regressions and trends, each with Apple's sentence and a line for each population.

    Families of devices stand first, then models, those with the largest change before all others; of more
    than ten models the rest is counted. Columns tell the values of all versions that are known; where the
    terminal is too narrow, the oldest are left out, and a line says so.

    Args:
        points: those of the same answer, if it has any.
        every: whether all models are shown.
    """
    if not rows:
        return "No regressions and no upward trends."
    series: _Series = {}
    for point in points:
        key = point["metricCategory"], point["metric"], point["device"], point["percentile"]
        series.setdefault(key, {}).setdefault(point["version"], value_of(point))
    return "\n\n".join("\n".join(_insight(row, series, width, every)) for row in rows)


def _insight(row: Row, series: _Series, width: int | None, every: bool) -> Iterator[str]:
    yield _heading(row)
    sentences = [row["summaryString"], *(population["summaryString"] for population in row["populations"])]
    for sentence in list(filter(None, sentences))[:1]:
        yield from wrapped(sentence, width, _INDENT)
    shown, more = _populations(row["populations"], every)
    if shown:
        yield from _table(row, shown, series, width)
    if more:
        yield f"{_INDENT}+ {more} models, --all"


def _heading(row: Row) -> str:
    """What is worse, since when, and how bad."""
    kind = _KINDS.get(row["kind"], row["kind"])
    part = f" ({row['subSystemLabel']})" if row["subSystemLabel"] else ""
    unit = f" in {unit_of(row)}" if unit_of(row) else ""
    against = f" against {', '.join(row['referenceVersions'])}" if row["referenceVersions"] else ""
    impact = "; high impact" if row["highImpact"] else ""
    return f"{kind} of {metric_of(row)}{part}{unit}: {row['latestVersion'] or '-'}{against}{impact}"


def _populations(rows: Sequence[Row], every: bool) -> tuple[list[Row], int]:
    """Those to show, in their order; and how many models are left out."""
    families = [row for row in rows if row["device"].startswith("all_")]
    models: dict[str, list[Row]] = {}
    for row in rows:
        if not row["device"].startswith("all_"):
            models.setdefault(row["device"], []).append(row)
    ranked = sorted(models.values(), key=_change, reverse=True)
    most = len(ranked) if every else MOST_MODELS
    return [*families, *chain.from_iterable(ranked[:most])], len(ranked[most:])


def _change(populations: Sequence[Row]) -> float:
    """The largest change of a model."""
    changes = (float(row["deltaPercentage"] or 0.0) for row in populations)
    return max(map(abs, changes))


def _table(row: Row, populations: Sequence[Row], series: _Series, width: int | None) -> Iterator[str]:
    values = [
        series.get((row["metricCategory"], row["metric"], one["device"], one["percentile"]), {})
        for one in populations
    ]

    def made(versions: Sequence[str]) -> tuple[list[Column], list[list[str]]]:
        columns = [Column("device", "text"), Column("percentile"), Column("latest", "number")]
        columns += [Column("reference", "number"), Column("change", "number")]
        cells = [
            [*_population(one), *(told.get(version, "") for version in versions)]
            for one, told in zip(populations, values, strict=True)
        ]
        return columns + [Column(version or "-", "number") for version in versions], cells

    versions = sorted({version for told in values for version in told}, key=version_key)
    lines, left_out = by_version(made, versions, width and max(width - len(_INDENT), 1), least=0)
    yield from (_INDENT + line for line in lines)
    if left_out:
        remark = f"Not shown for lack of room: {', '.join(left_out)}. A wider terminal shows them."
        yield from wrapped(remark, width, _INDENT)


def _population(row: Row) -> tuple[str, ...]:
    delta = row["deltaPercentage"]
    return (
        *(row["deviceMarketingName"] or row["device"], percentile_of(row)),
        *(number(row["latestVersionValue"]), number(row["referenceAverageValue"])),
        "-" if delta is None else f"{'+' if delta > 0 else ''}{number(delta)} %",
    )
