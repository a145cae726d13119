"""Documents → text for a terminal. Pure; `width` is the terminal's in cells, None for no limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from exporter.convert.metrics import percentile_name, version_key
from exporter.look.choice import Row
from exporter.look.tables import Column, cut, least_width, number, table, wrapped

_TRENDS = {"UP": "up", "DOWN": "down", "UNDEFINED": "-"}


def apps(rows: Sequence[Row], width: int | None) -> str:
    """All apps that a key sees."""
    if not rows:
        return "The key sees no app."
    columns = Column("id"), Column("bundle id"), Column("name", "text"), Column("selected")
    cells = [(row["id"], row["bundleId"], row["name"], _yes(row["selected"])) for row in rows]
    return "\n".join(table(columns, cells, width))


def builds(rows: Sequence[Row], width: int | None) -> str:
    """Builds, the last uploaded first."""
    if not rows:
        return "No builds."
    columns = [
        Column(heading)
        for heading in ("version", "build", "platform", "uploaded", "status", "expired", "diagnostics", "id")
    ]
    status = {True: "released", False: "TestFlight", None: "-"}
    cells = [
        (
            *(row["version"] or "-", row["build"] or "-", row["platform"] or "-"),
            *((row["uploadedDate"] or "-")[:10], status[row["released"]]),
            *(_yes(row["expired"]), _yes(row["diagnostics"]), row["id"]),
        )
        for row in rows
    ]
    return "\n".join(table(columns, cells, width))


def metrics(rows: Sequence[Row], width: int | None) -> str:
    """Points: a line for each metric, platform, device and percentile, a column for each version.

    The newest version stands last. Where the terminal is too narrow, the oldest versions are left out, and a
    line says so.
    """
    if not rows:
        return "No metrics."
    versions = sorted({row["version"] for row in rows}, key=version_key)
    left_out: list[str] = []
    columns, cells = _by_version(rows, versions)
    while width and len(versions) > 1 and least_width(columns, cells) > width:
        left_out.append(versions.pop(0))
        columns, cells = _by_version(rows, versions)
    lines = table(columns, cells, width)
    if left_out:
        remark = f"Not shown for lack of room: {', '.join(left_out)}. --json shows all."
        lines += ["", *wrapped(remark, width, "")]
    return "\n".join(lines)


def insights(rows: Sequence[Row], points: Sequence[Row], width: int | None) -> str:
    """Apple's regressions and trends, a line for each population, with Apple's sentence below it.

    Args:
        points: those of the same answer, which know the units.
    """
    if not rows:
        return "No regressions and no upward trends."
    columns = [Column("insight"), Column("metric"), Column("device", "text"), Column("percentile")]
    columns += [Column("latest", "number"), Column("reference", "number"), Column("unit")]
    columns += [Column("change", "number"), Column("impact")]
    units = {(row["metricCategory"], row["metric"]): _unit(row) for row in points}
    told = [(row, population) for row in rows for population in row["populations"] or [{}]]
    cells = [_insight(row, population, units) for row, population in told]
    heading, *lines = table(columns, cells, width)
    shown, said = [heading], {""}
    for line, (row, population) in zip(lines, told, strict=True):
        shown.append(line)
        for sentence in (row["summaryString"], population.get("summaryString", "")):
            shown += wrapped(sentence, width, "    ") if sentence not in said else ()
            said.add(sentence)
    return "\n".join(shown)


def signatures(rows: Sequence[Row], width: int | None) -> str:
    """Signatures in a table; below it, where their logs were downloaded, each one's logs."""
    if not rows:
        return "No signatures."
    with_logs = any("diagnosticLogs" in row for row in rows)
    columns = [Column("type"), Column("weight", "number"), Column("trend"), Column("signature", "text")]
    columns += [Column("blamed frame", "text")] if with_logs else []
    cells = [(*_signature(row), *((_source(row.get("blamedFrame")),) if with_logs else ())) for row in rows]
    parts = ["\n".join(table(columns, cells, width))]
    parts += [logs(row, " ".join(_signature(row)), width) for row in rows if "diagnosticLogs" in row]
    return "\n\n".join(parts)


def logs(row: Row, heading: str, width: int | None) -> str:
    """The logs of one signature: Apple's remarks, then each log with what it is about and its call stack."""
    lines = [heading if width is None else cut(heading, width)]
    for remark in row["diagnosticInsights"]:
        category = f"[{remark['insightsCategory']}] " if remark["insightsCategory"] else ""
        lines += wrapped(f"Apple: {category}{remark['insightsString']}".rstrip(), width, "  ")
        lines += [f"  {remark['insightsURL']}"] if remark["insightsURL"] else []
    found = row["diagnosticLogs"]
    for place, log in enumerate(found, start=1):
        lines += _log(log, f"log {place} of {len(found)}", width)
    return "\n".join(lines if found else [*lines, "  no logs"])


def overview(row: Row, width: int | None) -> str:
    """The top signatures and the goals of an overview."""
    lines = [f"{row['platform']} {row['latestVersion']}".strip() or "Overview", ""]
    columns = [Column("type"), Column("count", "number"), Column("weight", "number"), Column("trend")]
    columns += [Column("signature", "text"), Column("source", "text")]
    tops = [
        (
            *(top["diagnosticType"], number(top["count"]), number(top["weight"]), _trend(top)),
            *(top["signature"], _place(top["sourceFile"], top["lineNumber"])),
        )
        for top in row["signatures"]
    ]
    lines += table(columns, tops, width) if tops else ["No signatures."]
    columns = [Column("metric", "text"), Column("device", "text"), Column("percentile")]
    columns += [Column("goal", "number")]
    goals = [
        (_metric(goal), goal["device"], _percentile(goal), number(goal["value"])) for goal in row["goals"]
    ]
    return "\n".join([*lines, "", *(table(columns, goals, width) if goals else ["No goals."])])


def _by_version(rows: Sequence[Row], versions: Sequence[str]) -> tuple[list[Column], list[list[str]]]:
    """Columns and cells; of a point that comes twice the first one counts."""
    series: dict[tuple[str, ...], tuple[Row, dict[str, str]]] = {}
    for row in rows:
        key = _metric(row), row["platform"], row["device"], row["percentile"]
        series.setdefault(key, (row, {}))[1].setdefault(row["version"], _value(row))
    columns = [Column("metric"), Column("unit"), Column("platform"), Column("device", "text")]
    columns += [Column("percentile"), *(Column(version or "-", "number") for version in versions)]
    cells = [
        [
            *(_metric(row), _unit(row), row["platform"]),
            *(row["deviceMarketingName"] or row["device"], _percentile(row)),
            *(values.get(version, "") for version in versions),
            number((row["recommendedMetricGoal"] or {}).get("value")),
        ]
        for row, values in series.values()
    ]
    return [*columns, Column("goal", "number")], cells


def _value(row: Row) -> str:
    return f"{number(row['value'])} {row['goal'].lower()}" if row["goal"] else number(row["value"])


def _metric(row: Row) -> str:
    return f"{row['metricCategory']}/{row['metric']}"


def _unit(row: Row) -> str:
    return str(row["unit"]["displayName"] or row["unit"]["identifier"])


def _percentile(row: Row) -> str:
    return percentile_name(row.get("percentile", "")) or "-"


def _insight(row: Row, population: Row, units: dict[tuple[str, str], str]) -> tuple[str, ...]:
    delta = population.get("deltaPercentage")
    return (
        *(row["kind"], _metric(row), population.get("device", "-"), _percentile(population)),
        *(number(population.get("latestVersionValue")), number(population.get("referenceAverageValue"))),
        units.get((row["metricCategory"], row["metric"]), "-"),
        "-" if delta is None else f"{'+' if delta > 0 else ''}{number(delta)} %",
        "high" if row["highImpact"] else "-",
    )


def _signature(row: Row) -> tuple[str, str, str, str]:
    return row["diagnosticType"], number(row["weight"]), _trend(row), row["signature"] or "-"


def _trend(row: Row) -> str:
    return _TRENDS[row["insight"]["direction"]] if row["insight"] else "-"


def _log(log: Row, heading: str, width: int | None) -> Iterator[str]:
    yield from wrapped(", ".join([heading, *_metadata(log["diagnosticMetaData"])]), width, "  ")
    if "callStack" not in log:
        yield f"    blamed: {_frame(log['blamedFrame'])}"
    for line in log.get("callStack", ()):
        yield "    " + (line if width is None else cut(line, max(width - 4, 1)))


def _metadata(about: Row) -> Iterator[str]:
    yield from (about[name] for name in ("deviceType", "osVersion") if name in about)
    version, build = about.get("appVersion", ""), about.get("buildVersion", "")
    if version or build:
        yield f"version {version} ({build})" if version and build else f"version {version or f'({build})'}"
    yield from (about[name] for name in ("platformArchitecture", "event", "eventDetail") if name in about)
    if about.get("writesCaused", "") not in about.get("eventDetail", ""):
        yield about["writesCaused"]


def _frame(frame: Row | None) -> str:
    if not frame:
        return "-"
    name = frame.get("symbolName") or frame.get("binaryName") or frame.get("address", "-")
    return f"{name} {_place(frame.get('fileName', ''), frame.get('lineNumber'))}".removesuffix(" -")


def _source(frame: Row | None) -> str:
    """File and line, or at least the function."""
    if frame and "fileName" in frame:
        return _place(frame["fileName"], frame.get("lineNumber"))
    return _frame(frame)


def _place(file: str, line: Any) -> str:
    return f"{file}:{line}" if file and line else file or "-"


def _yes(value: bool) -> str:
    return "yes" if value else ""
