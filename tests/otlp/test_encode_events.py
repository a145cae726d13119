from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from exporter.otlp.encode import MOST_OWED_BYTES, Body, encode_events

NOW = 1_700_000_000_000_000_000
RESOURCE = Resource({"service.name": "com.example.app"})
SCOPE = InstrumentationScope("perfpower-exporter", "0.1.0")


def event(body: str = "Launch time got worse.", **attributes: Any) -> LogRecord:
    return LogRecord(
        timestamp=NOW,
        observed_timestamp=NOW + 1,
        severity_number=SeverityNumber.WARN,
        severity_text="WARN",
        body=body,
        attributes=attributes,
        event_name="appstore.insight",
    )


def official(records: Sequence[LogRecord]) -> ExportLogsServiceRequest:
    return encode_logs([ReadableLogRecord(record, RESOURCE, SCOPE) for record in records])


def joined(bodies: Sequence[Body]) -> ExportLogsServiceRequest:
    return ExportLogsServiceRequest.FromString(b"".join(body.data for body in bodies))


def bodies_of(request: ExportLogsServiceRequest) -> list[str]:
    return [
        record.body.string_value
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


VALUES = st.text() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text(), st.dictionaries(st.text(), VALUES, max_size=4)), min_size=1, max_size=4))
def test_what_is_encoded_is_what_the_official_encoder_makes(
    records: list[tuple[str, dict[str, Any]]],
) -> None:
    """Times, severity, name, body and attributes of each type, byte for byte; none counts as dropped."""
    made = [event(text, **attributes) for text, attributes in records]
    (body,) = encode_events(RESOURCE, SCOPE, made)
    assert body == (official(made).SerializeToString(), len(made), "logs")


def test_an_attribute_without_a_value_is_left_out() -> None:
    """None would be shown as an empty value; the other attributes stay, and none counts as dropped."""
    encoded = joined(encode_events(RESOURCE, SCOPE, [event(a=None, b="2", c=0, d=False, e="")]))
    (record,) = encoded.resource_logs[0].scope_logs[0].log_records
    assert [item.key for item in record.attributes] == ["b", "c", "d", "e"]
    assert record.dropped_attributes_count == 0


def test_records_that_do_not_fit_go_on_in_the_next_body() -> None:
    """Bodies stay below their limit and hold the records in order; joined they are one request again."""
    records = [event(f"{number}", text="x" * 300) for number in range(40)]
    bodies = encode_events(RESOURCE, SCOPE, records, most_bytes=2_000)
    assert len(bodies) > 5
    assert max(len(body.data) for body in bodies) <= 2_000
    assert {body.signal for body in bodies} == {"logs"}
    assert sum(body.points for body in bodies) == 40
    assert bodies_of(joined(bodies)) == [str(number) for number in range(40)]
    assert len({str(resource.resource) for resource in joined(bodies).resource_logs}) == 1


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_record_larger_than_a_body_has_one_of_its_own(place: int) -> None:
    """It is not lost and not cut, wherever it stands."""
    records = [event("small"), event("small")]
    records.insert(place, event("large", stack="x" * (MOST_OWED_BYTES + 1)))
    bodies = encode_events(RESOURCE, SCOPE, records)
    (large,) = [body for body in bodies if len(body.data) > MOST_OWED_BYTES]
    assert large.points == 1
    assert bodies_of(joined(bodies)) == [str(record.body) for record in records]


def test_no_records_make_no_bodies() -> None:
    """Nothing is sent for an answer without news."""
    assert encode_events(RESOURCE, SCOPE, []) == []


def test_who_has_no_events_does_not_pay_for_them() -> None:
    """The SDK's logs are imported only when an event is encoded."""
    script = "import sys, exporter.otlp.encode; print('opentelemetry.sdk._logs' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
