"""What Splunk Observability and Splunk have to keep of what was sent, by the overlay `signalfx`.

The rules are those of the Collector's signalfx and splunk_hec exporters, and the overlay's own: histograms
come in thousandths of their unit, but for bytes and terminations, since Splunk keeps whole numbers.
"""

from __future__ import annotations

import math

from tests.backends.hec import HecRecord
from tests.backends.splunk import SplunkPoint
from tests.end_to_end.sent import SentEvent, SentPoint, Value

AS_INTEGERS = {
    "s": ("ms", 1e3),
    "s/h": ("ms/h", 1e3),
    "ms/s": ("us/s", 1e3),
    "%": ("10*-3.%", 1e3),
    "{termination}/d": ("10*-6.{termination}/d", 1e6),
    "By": ("By", 1.0),
    "By/d": ("By/d", 1.0),
}
"""The units of our distributions, what they become, and by how much the values grow."""


def kept(sent: SentPoint) -> SplunkPoint:
    """All attributes are dimensions, times are milliseconds; a gauge has no unit."""
    both = {**sent.context.resource, **sent.attributes}
    dimensions = {key: _text(value) for key, value in both.items()}
    milliseconds = sent.time // 10**6
    if sent.kind == "gauge":
        return SplunkPoint(sent.name, "gauge", dimensions, milliseconds, value=sent.value)
    unit, factor = AS_INTEGERS[sent.unit]
    least, greatest = (factor * end for end in sent.extremes) if sent.extremes else (None, None)
    return SplunkPoint(
        name=sent.name,
        kind="histogram",
        dimensions=dimensions,
        time_unix_milli=milliseconds,
        unit=unit,
        count=sent.count,
        sum=factor * sent.sum,
        min=least,
        max=greatest,
        kept_sum=math.trunc(factor * sent.sum),
        kept_min=None if least is None else math.trunc(least),
        kept_max=None if greatest is None else math.trunc(greatest),
        bounds=tuple(factor * bound for bound in sent.bounds),
        counts=sent.counts,
    )


def indexed(sent: SentEvent) -> HecRecord:
    """The body is the event; all attributes are indexed fields, and what OTLP has beside them."""
    fields = {
        **sent.context.resource,
        **sent.attributes,
        "otel.log.name": sent.name,
        "otel.log.severity.text": sent.severity,
        "otel.log.severity.number": sent.severity_number,
    }
    return HecRecord(
        event=sent.body,
        fields=fields,
        time=sent.time / 10**9,
        host="unknown",  # nothing that we send names one
        source="perfpower-exporter",
        sourcetype="appstore:event",
        index="",
    )


def _text(value: Value) -> str:
    assert isinstance(value, str), f"{value!r}: points bear nothing but text"
    return value
