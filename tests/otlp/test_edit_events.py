from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from exporter.otlp.edit import names, restamp_windows, select
from exporter.otlp.encode import Body, encode_events
from exporter.otlp.table import lines

NOW = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
SCOPE = InstrumentationScope("perfpower-exporter", "0.1.0")


def event(body: str, name: str = "appstore.insight", at: int = NOW, **attributes: Any) -> LogRecord:
    return LogRecord(
        timestamp=at,
        observed_timestamp=at,
        severity_number=SeverityNumber.WARN,
        severity_text="WARN",
        body=body,
        attributes=attributes,
        event_name=name,
    )


def stacked(stack: str) -> dict[str, Any]:
    return {"code.stacktrace": stack}


def body_of(*per_resource: Sequence[LogRecord]) -> Body:
    bodies = [
        body
        for index, records in enumerate(per_resource)
        for body in encode_events(Resource({"r": str(index)}), SCOPE, records)
    ]
    return Body(b"".join(body.data for body in bodies), sum(body.points for body in bodies), "logs")


def records(body: Body) -> list[tuple[str, Any]]:
    """(resource, record) of each record, in order."""
    return [
        (resource.resource.attributes[0].value.string_value, record)
        for resource in ExportLogsServiceRequest.FromString(body.data).resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


@pytest.mark.parametrize("wanted", [set(), {0}, {4}, {1, 3}, {0, 1, 2, 3, 4}])
def test_the_chosen_records_stay_in_order_with_their_resource(wanted: set[int]) -> None:
    """Records are numbered in order over all resources; a resource without any is gone."""
    body = body_of([event("0"), event("1")], [event("2"), event("3"), event("4")])
    chosen = select(body, wanted.__contains__)
    assert [(resource, record.body.string_value) for resource, record in records(chosen)] == [
        ("0" if number < 2 else "1", str(number)) for number in sorted(wanted)
    ]
    assert (chosen.points, chosen.signal) == (len(wanted), "logs")
    resources = ExportLogsServiceRequest.FromString(chosen.data).resource_logs
    assert len(resources) == len({number < 2 for number in wanted})


def test_all_of_a_body_is_the_body() -> None:
    """Choosing every record changes nothing."""
    body = body_of([event("0", a="x", n=1)], [event("1")])
    assert select(body, lambda _: True) == body


def test_a_record_moves_in_time_and_was_still_seen_when_it_was() -> None:
    """The time that `times` names moves; the observed one stays; a record of another time stays as it is."""
    body = body_of([event("a"), event("b", at=NOW + 5)])
    moved = restamp_windows(body, {NOW: NOW + 9 * SECOND})
    assert [(r.time_unix_nano, r.observed_time_unix_nano) for _, r in records(moved)] == [
        (NOW + 9 * SECOND, NOW),
        (NOW + 5, NOW + 5),
    ]
    assert (moved.points, moved.signal) == (2, "logs")


def test_event_names_are_sorted_and_unique() -> None:
    """A message about a body names each of its events once."""
    body = body_of([event("", "b"), event("", "a")], [event("", "b")])
    assert names(body) == ["a", "b"]
    assert names(Body(b"", 0, "logs")) == []


def test_an_event_is_a_line_with_its_stack_below() -> None:
    """Time, name, severity, the first line of the body, attributes of each type; then the stack, indented."""
    stack = "12 main\n  11 start"
    attributes: dict[str, Any] = {
        "code.stacktrace": stack,
        "version": "2.0",
        "new": True,
        "weight": 0.5,
        "line": 7,
    }
    (heading, head, *below) = lines(
        body_of([event("It hangs.\nAnd more.", "appstore.diagnostic", **attributes)])
    )
    assert heading == "# r=0"
    assert head.split() == [
        *("22:13:20", "appstore.diagnostic", "WARN", "It", "hangs."),
        *("version=2.0", "new=True", "weight=0.5", "line=7"),
    ]
    assert below == ["    12 main", "      11 start"]


@pytest.mark.parametrize(("count", "shown", "last"), [(20, 20, "    19"), (21, 21, "    … 1 more lines")])
def test_a_long_stack_is_cut_and_says_so(count: int, shown: int, last: str) -> None:
    """Twenty lines of a stack are shown, then how many more there are."""
    stack = "\n".join(map(str, range(count)))
    _, _, *below = lines(body_of([event("It hangs.", **stacked(stack))]))
    assert (len(below), below[-1]) == (shown, last)


def test_nothing_of_an_event_steers_the_terminal() -> None:
    """Control characters in a body, an attribute or a stack are shown as blanks."""
    hostile = "\x1b[2J\x07\rgone"
    shown = list(lines(body_of([event(hostile, **{**stacked(hostile), "a": hostile})])))
    assert all(line.isprintable() for line in shown)
    assert "".join(shown).count("gone") == 3
