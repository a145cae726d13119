"""What a sink is: somewhere requests go, and what it says became of them.

A sink sends one request once and says what became of it. Trying again and taking requests apart is the
business of `attempt`, remembering what is still owed that of `deliver`.

What an answer means follows the OTLP specification, but for what its stock exporters take for a success: a
redirect, an answer that is no OTLP answer at all, and a partial success.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from exporter.otlp.encode import Body, Signal

RESPONSES: dict[Signal, Any] = {"metrics": ExportMetricsServiceResponse, "logs": ExportLogsServiceResponse}
# A Collector without a pipeline for logs has no such path (404), and no such service (UNIMPLEMENTED).
NO_EVENTS = "the endpoint takes no events: add a logs pipeline to the Collector, or set collect.events: false"
MOST_REQUEST_BYTES = 3 << 20  # the Collector takes 4 MiB over gRPC and 20 MiB over HTTP
_LONGEST_MESSAGE = 300


class Outcome(enum.Enum):
    """What became of a request."""

    ACCEPTED = "accepted"  # taken; a part of it may have been rejected, which is final too
    RETRY = "retry"  # not now: 429, 502, 503, 504, no connection, no answer in time
    BAD_DATA = "bad_data"  # the endpoint says that the data is at fault: 400, 413, 422
    FAILED = "failed"  # the endpoint broke over it; maybe because of the data, maybe not: other 5xx
    REFUSED = "refused"  # this endpoint takes nothing from us: redirect, 401, 403, 404, not OTLP


@dataclass(frozen=True, slots=True)
class Reply:
    """An endpoint's answer: how many points it rejected, why, and how many seconds it wants us to wait.

    Points are log records where logs were sent. `perhaps_taken`: no answer came in time, so it may have been
    taken all the same.
    """

    outcome: Outcome
    rejected: int = 0
    message: str = ""
    retry_after: float | None = None
    perhaps_taken: bool = False

    @property
    def unknown_signal(self) -> bool:
        """Whether the endpoint itself has no place for the signal.

        A 404 of the backend behind it is another matter; a Collector calls that a permanent error.
        """
        return (
            self.outcome is Outcome.REFUSED
            and self.message.startswith(("HTTP 404", "HTTP 405", "UNIMPLEMENTED"))
            and "Permanent error" not in self.message
        )


class Sink(Protocol):
    """Takes bodies as `encode` makes them, at most MOST_REQUEST_BYTES each."""

    def send(self, body: Body) -> Reply:
        """Send one export request of the body's signal once. Never raises for what an endpoint does."""
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files for TLS: whom to trust (None: the system's), and what we show of ourselves."""

    certificate: Path | None = None
    client_key: Path | None = None
    client_certificate: Path | None = None


def partial_success(answer: Any) -> Reply:
    """A success, as far as the endpoint did not reject points, or log records.

    Args:
        answer: an ExportMetricsServiceResponse or an ExportLogsServiceResponse.
    """
    partial = answer.partial_success
    logs = isinstance(answer, ExportLogsServiceResponse)
    rejected = partial.rejected_log_records if logs else partial.rejected_data_points
    return Reply(Outcome.ACCEPTED, rejected=max(0, rejected), message=bounded(partial.error_message))


def bounded(text: str) -> str:
    """One line of bounded length, fit for a log."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _LONGEST_MESSAGE else line[: _LONGEST_MESSAGE - 1] + "…"
