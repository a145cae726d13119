"""What Datadog has to show of what was sent, with `resource_attributes_as_tags`.

The rules are those of Datadog's documentation of its OTLP intake and of its mapping of OTLP; how it spells
tags is the stand-in's business, which has tests of its own.
"""

from __future__ import annotations

from tests.backends.datadog import DatadogPoint, DatadogRecord, tags_of
from tests.end_to_end.sent import SentEvent, SentPoint


def shown(sent: SentPoint) -> DatadogPoint:
    """A gauge stays one, a delta histogram is a distribution; times are whole seconds, units as sent."""
    resource = sent.context.resource
    tags, seconds = tags_of(sent.attributes, resource, everything=True), sent.time // 10**9
    if sent.kind == "gauge":
        return DatadogPoint(sent.name, sent.unit, "gauge", tags, seconds, value=sent.value)
    least, greatest = sent.extremes or _outermost(sent)
    return DatadogPoint(
        name=sent.name,
        unit=sent.unit,
        kind="distribution",
        tags=tags,
        time=seconds,
        count=sent.count,
        sum=sent.sum,
        min=least,
        max=greatest,
        bounds=sent.bounds,
        counts=sent.counts,
    )


def logged(sent: SentEvent) -> DatadogRecord:
    """The attributes of the resource stand beside the event's own; of the former some are tags, too."""
    resource = sent.context.resource
    return DatadogRecord(
        message=sent.body,
        status=sent.severity.lower(),
        service=str(resource["service.name"]),
        event_name=sent.name,
        time_unix_nano=sent.time,
        tags=tags_of({}, resource, everything=False),
        attributes={**resource, **sent.attributes},
    )


def _outermost(sent: SentPoint) -> tuple[float, float]:
    """Where the outermost buckets with anything in them end; infinity is the bound before it."""
    ends = [sent.bounds[0], *sent.bounds, sent.bounds[-1]]
    filled = [place for place, count in enumerate(sent.counts) if count]
    return ends[filled[0]], ends[filled[-1] + 1]
