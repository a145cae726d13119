"""What the tests of events share."""

from __future__ import annotations

import gzip
from collections.abc import Callable

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from exporter.otlp.encode import Body, encode_events
from exporter.sandbox import OtlpReceiver
from exporter.sandbox.loopback import Answer, Request
from exporter.sandbox.records import Record, read_records
from tests.service.service_world import NOW, SECOND, Clock

SCOPE = InstrumentationScope("perfpower-exporter")


def events(*texts: str, at: float = NOW, name: str = "appstore.diagnostic", size: int = 0) -> list[Body]:
    """Bodies with an event for each text; `size` gives each a call stack of so many characters."""
    stack = {"code.stacktrace": "x" * size} if size else {}
    records = [
        LogRecord(
            timestamp=round(at * SECOND),
            observed_timestamp=round(at * SECOND),
            severity_number=SeverityNumber.WARN,
            severity_text="WARN",
            body=text,
            attributes={"version": "2.0", **stack},
            event_name=name,
        )
        for text in texts
    ]
    return encode_events(Resource({"service.name": "com.example.app"}), SCOPE, records)


class PickyAboutEvents(OtlpReceiver):
    """Refuses each request that holds a record of a certain kind; takes all others."""

    def __init__(self, refuses: Callable[[Record], bool], *, status: int = 400, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.refuses = refuses
        self._status = status
        self._now = clock

    def respond(self, request: Request) -> Answer:
        if request.path == "/v1/logs":
            message = ExportLogsServiceRequest.FromString(gzip.decompress(request.body))
            if any(map(self.refuses, read_records(message, self._now()))):
                return Answer(self._status, {"Content-Type": "text/plain"}, b"that one is not welcome")
        return super().respond(request)
