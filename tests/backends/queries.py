"""Whether a query in a backend's language has something to show among what arrived. Pure.

Only the few forms that docs/backends.md uses are read.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

from exporter.sandbox.points import Attributes
from tests.backends.datadog import DatadogPoint, DatadogRecord
from tests.backends.hec import HecRecord
from tests.backends.prometheus import Sample
from tests.backends.splunk import SplunkPoint

_DATADOG = re.compile(r"[a-z0-9]+:([\w.]+)\{([^}]*)\}(?: by \{([^}]*)\})?")
_PROMQL = re.compile(r"(appstore_\w+)(?:\{([^}]*)\})?")


def datadog_finds(query: str, points: Iterable[DatadogPoint]) -> bool:
    """Whether a metric query of Datadog's has a point to show, with all the tags that it groups by."""
    found = _DATADOG.search(query)
    assert found, f"no query of Datadog's: {query}"
    name, tags, keys = found[1], _parts(found[2]), _parts(found[3] or "")
    return any(
        point.name == name and tags <= point.tags and keys <= {tag.partition(":")[0] for tag in point.tags}
        for point in points
    )


def datadog_log_finds(search: str, records: Iterable[DatadogRecord]) -> bool:
    """Whether a log search of Datadog's has something to show."""
    terms = dict(term.split(":", 1) for term in search.split())
    return any(all(_said(record, key) == value for key, value in terms.items()) for record in records)


def _said(record: DatadogRecord, key: str) -> str:
    facts: Attributes = {f"@{name}": value for name, value in record.attributes.items()}
    facts |= {"@otel.event_name": record.event_name, "service": record.service, "status": record.status}
    facts |= {name: value for name, _, value in (tag.partition(":") for tag in record.tags)}
    value = facts.get(key, "")
    return str(value).lower() if isinstance(value, bool) else str(value)


def signalflow_finds(program: str, points: Iterable[SplunkPoint]) -> bool:
    """Whether a line of SignalFlow has a stream to show, of the right kind, with what it groups by."""
    calls = [node for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Call)]
    ((kind, metric),) = (
        (_called(call), _text(call.args[0])) for call in calls if _called(call) in ("data", "histogram")
    )
    filters = [[_text(argument) for argument in call.args] for call in calls if _called(call) == "filter"]
    keys = {
        _text(key)
        for call in calls
        for keyword in call.keywords
        if keyword.arg == "by" and isinstance(keyword.value, ast.List)
        for key in keyword.value.elts
    }
    return any(
        point.name == metric
        and (point.kind == "histogram") == (kind == "histogram")
        and all(point.dimensions.get(key) in values for key, *values in filters)
        and keys <= point.dimensions.keys()
        for point in points
    )


def spl_finds(search: str, records: Iterable[HecRecord]) -> bool:
    """Whether the first command of a Splunk search has an event to show."""
    terms = dict(re.findall(r'([\w.]+)(?:=|::)"?([^"\s|]+)"?', search.partition("|")[0]))
    assert terms, f"no search of Splunk's: {search}"
    return any(
        all(str(_all(record).get(key, "")).lower() == value.lower() for key, value in terms.items())
        for record in records
    )


def promql_finds(expression: str, samples: Iterable[Sample]) -> bool:
    """Whether each selector of an expression has a series to show."""
    selectors = _PROMQL.findall(expression)
    assert selectors, f"no expression on our metrics: {expression}"
    kept = list(samples)
    return all(
        any(
            sample.name == name and set(re.findall(r'(\w+)="([^"]*)"', labels)) <= set(sample.labels.items())
            for sample in kept
        )
        for name, labels in selectors
    )


def _parts(text: str) -> set[str]:
    return {part.strip() for part in text.split(",") if part.strip()}


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _text(node: ast.expr) -> str:
    assert isinstance(node, ast.Constant)
    return str(node.value)


def _all(record: HecRecord) -> dict[str, object]:
    return {**record.fields, "sourcetype": record.sourcetype, "source": record.source, "host": record.host}
