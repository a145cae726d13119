"""Documents → text for a terminal. Pure; `width` is the terminal's in cells, None for no limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from exporter.appstore.versions import version_key
from exporter.convert.metrics import percentile_name
from exporter.look.choice import Row
from exporter.look.tables import Column, least_width, number, table, wrapped

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
    lines, left_out = by_version(lambda some: _columns(rows, some), versions, width, least=1)
    if left_out:
        remark = f"Not shown for lack of room: {', '.join(left_out)}. --json shows all."
        lines += ["", *wrapped(remark, width, "")]
    if parted := sum(bool(row["percentageBreakdown"]) for row in rows):
        remark = f"Values with a percentageBreakdown by subsystem: {parted}. --json shows it."
        lines += ["", *wrapped(remark, width, "")]
    return "\n".join(lines)


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
    lines = [heading]
    for remark in row["diagnosticInsights"]:
        category = f"[{remark['insightsCategory']}] " if remark["insightsCategory"] else ""
        lines += wrapped(f"Apple: {category}{remark['insightsString']}".rstrip(), width, "  ")
        lines += [f"  {remark['insightsURL']}"] if remark["insightsURL"] else []
    found = row["diagnosticLogs"]
    for place, log in enumerate(found, start=1):
        lines += _log(log, f"log {place} of {row['logCount']}", width)
    return "\n".join(lines if found else [*lines, "  Apple gave no logs for this signature"])


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
    columns += [Column("goal", "number"), Column("unit")]
    goals = [
        (*(metric_of(goal), goal["device"], percentile_of(goal)), number(goal["value"]), unit_of(goal) or "-")
        for goal in row["goals"]
    ]
    return "\n".join([*lines, "", *(table(columns, goals, width) if goals else ["No goals."])])


def by_version(
    made: Callable[[Sequence[str]], tuple[list[Column], list[list[str]]]],
    versions: Sequence[str],
    width: int | None,
    *,
    least: int,
) -> tuple[list[str], list[str]]:
    """A table with columns for versions, without the oldest where the terminal is too narrow.

    Args:
        made: gives columns and cells for these versions.
        versions: the oldest first.
        least: how many versions are kept even where they do not fit.

    Returns:
        The lines, and the versions left out.
    """
    first = 0
    columns, cells = made(versions)
    while width and len(versions) - first > least and least_width(columns, cells) > width:
        first += 1
        columns, cells = made(versions[first:])
    return table(columns, cells, width), list(versions[:first])


def value_of(row: Row) -> str:
    """A point's value with its error margin and Apple's word for it: `1182.3 ±15.4 fair`."""
    margin = "" if row["errorMargin"] is None else f" ±{number(row['errorMargin'])}"
    goal = f" {row['goal'].lower()}" if row["goal"] else ""
    return f"{number(row['value'])}{margin}{goal}"


def metric_of(row: Row) -> str:
    """`LAUNCH/launchTime`."""
    return f"{row['metricCategory']}/{row['metric']}"


def unit_of(row: Row) -> str:
    """The unit's short name, or what there is; empty if nobody knows."""
    return str(row["unit"]["displayName"] or row["unit"]["identifier"]) if row["unit"] else ""


def percentile_of(row: Row) -> str:
    """`p50`, or a dash."""
    return percentile_name(row["percentile"]) or "-"


def _columns(rows: Sequence[Row], versions: Sequence[str]) -> tuple[list[Column], list[list[str]]]:
    """Columns and cells; of a point that comes twice the first one counts."""
    series: dict[tuple[str, ...], tuple[Row, dict[str, str]]] = {}
    for row in rows:
        key = metric_of(row), row["platform"], row["device"], row["percentile"]
        series.setdefault(key, (row, {}))[1].setdefault(row["version"], value_of(row))
    columns = [Column("metric"), Column("unit"), Column("platform"), Column("device", "text")]
    columns += [Column("percentile"), *(Column(version or "-", "number") for version in versions)]
    cells = [
        [
            *(metric_of(row), unit_of(row), row["platform"]),
            *(row["deviceMarketingName"] or row["device"], percentile_of(row)),
            *(values.get(version, "") for version in versions),
            number((row["recommendedMetricGoal"] or {}).get("value")),
        ]
        for row, values in series.values()
    ]
    return [*columns, Column("goal", "number")], cells


def _signature(row: Row) -> tuple[str, str, str, str]:
    return row["diagnosticType"], number(row["weight"]), _trend(row), row["signature"] or "-"


def _trend(row: Row) -> str:
    return _TRENDS[row["insight"]["direction"]] if row["insight"] else "-"


def _log(log: Row, heading: str, width: int | None) -> Iterator[str]:
    yield from wrapped(", ".join([heading, *_metadata(log["diagnosticMetaData"])]), width, "  ")
    if "callStack" not in log:
        yield f"    blamed: {_frame(log['blamedFrame'])}"
    else:  # never cut: the end of a line is its file and line
        yield from ("    " + line for line in log["callStack"] or ["no call stack"])


def _metadata(about: Row) -> Iterator[str]:
    yield from (about[name] for name in ("deviceType", "osVersion", "bundleId") if name in about)
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
