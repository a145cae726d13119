"""Log records as the receiver keeps them, and the rules they are held to. Pure.

As with points, the rules are those of the backends behind a Collector; each says whose it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from exporter.sandbox.points import (
    NAME,
    Attributes,
    RefusedError,
    check_time,
    own_attributes,
    read_attributes,
)

LARGEST_RECORD = 256 << 10  # bytes; Datadog cuts at 1 MB, a Collector before Splunk sends 2 MiB at once
OLDEST_RECORD_SECONDS = 18 * 3600  # Datadog
LONGEST_KEY = 49  # Datadog: keys below 50 characters
LONG_VALUES = frozenset({"code.stacktrace", "appstore.insight.populations"})

# Datadog's Collector exporter makes message, status, trace or tags of an attribute of one of these names.
_TAKEN = (
    *("msg", "message", "log", "status", "severity", "level", "syslog.severity"),
    *("traceid", "trace_id", "contextmap.traceid", "oteltraceid"),
    *("spanid", "span_id", "contextmap.spanid", "otelspanid"),
    *("ddtags", "hostname", "service"),
)


@dataclass(frozen=True, slots=True)
class Record:
    """One accepted log record.

    Args:
        resource: the attributes of its resource.
        event_name: what kind of event it is.
        time_unix_nano: when it happened.
        observed_time_unix_nano: when the exporter saw it.
        severity_number: 1 to 24, as in the OTLP data model.
        severity_text: may be empty.
        body: what it says.
        attributes: its own attributes, plain values only.
    """

    resource: Attributes
    event_name: str
    time_unix_nano: int
    observed_time_unix_nano: int
    severity_number: int
    severity_text: str
    body: str
    attributes: Attributes


def read_records(request: ExportLogsServiceRequest, now: float) -> list[Record]:
    """All records of a request, in order.

    Args:
        request: as decoded.
        now: Unix seconds; records have to lie near it.

    Raises:
        RefusedError: at the first record that breaks a rule; a request is taken whole or not at all.
    """
    return list(_records(request, now))


def _records(request: ExportLogsServiceRequest, now: float) -> Iterator[Record]:
    for resource_logs in request.resource_logs:
        resource = read_attributes(resource_logs.resource.attributes, "resource")
        for scope in resource_logs.scope_logs:
            for record in scope.log_records:
                yield _record(record, resource, now)


def _record(record: LogRecord, resource: Attributes, now: float) -> Record:
    name = record.event_name
    if not NAME.fullmatch(name):
        raise RefusedError(
            f"event name {name[:80]!r}: a letter first, then up to 199 letters, digits, _ and ."
        )
    check_time(name, record.time_unix_nano, now, OLDEST_RECORD_SECONDS)
    _check_head(name, record)
    attributes = own_attributes(name, record.attributes, resource, long_values=LONG_VALUES)
    _check_attributes(name, attributes)
    return Record(
        resource=resource,
        event_name=sys.intern(name),
        time_unix_nano=record.time_unix_nano,
        observed_time_unix_nano=record.observed_time_unix_nano,
        severity_number=record.severity_number,
        severity_text=sys.intern(record.severity_text),
        body=record.body.string_value,
        attributes=attributes,
    )


def _check_head(name: str, record: LogRecord) -> None:
    if not record.observed_time_unix_nano:
        raise RefusedError(f"{name}: the time at which it was observed is missing")
    if not 1 <= record.severity_number <= 24:
        raise RefusedError(f"{name}: the severity number has to be between 1 and 24")
    if not record.body.string_value.strip():  # Splunk HEC refuses a blank event (code 13)
        raise RefusedError(f"{name}: the body has to be a text that is not blank")
    if record.ByteSize() > LARGEST_RECORD:
        raise RefusedError(f"{name}: {record.ByteSize()} bytes; the limit is {LARGEST_RECORD}")


def _check_attributes(name: str, attributes: Attributes) -> None:
    for key, value in attributes.items():
        if isinstance(value, tuple):  # Splunk HEC's indexed fields and Datadog's facets want plain values
            raise RefusedError(f"{name}: attribute {key} is a list, not a plain value")
        if len(key) > LONGEST_KEY:
            raise RefusedError(f"{name}: attribute key {key} has {len(key)} characters; the limit is 49")
        if key.lower() in _TAKEN:
            raise RefusedError(f"{name}: Datadog would make something else of attribute {key}")
