"""What is watched of the Collector: alerts on what it says of itself on port 8888. Pure.

Names are those that its page has with our configuration, which writes counters without `_total`. A queue it
has with an overlay of a vendor only.
"""

from __future__ import annotations

from collections.abc import Iterator

from exporter.assets.model import Alert, Query, Series

_RECEIVER, _EXPORTER = ("instance", "receiver"), ("instance", "exporter")
_QUEUE = (*_EXPORTER, "data_type")


def collector_alerts() -> tuple[Alert, ...]:
    """Points and events that it does not take or cannot send, and its queue."""
    return (*_of("Points", "metric_points"), *_of("Events", "log_records"), _queue())


def _of(what: str, unit: str) -> Iterator[Alert]:
    words = what.lower()
    yield Alert(
        id=f"CollectorRefuses{what}",
        title=f"The Collector refuses {words}",
        severity="warning",
        query=Query(Series(f"otelcol_receiver_refused_{unit}", "", "counter"), _RECEIVER, join="sum"),
        threshold=1,
        window=15,
        minutes=30,
        about="pipeline",
        meaning=(
            f"For half an hour it has sent {words} back: it is short of memory, or the backend behind it "
            "refuses them. The exporter keeps them and sends them again."
        ),
        first=f"Does it fail to send {words} as well? Then it is the backend. Else raise `limit_mib` of its "
        "`memory_limiter`, and its memory with it.",
        look="The Collector's log; `/readyz` of the exporter, port 13134, has the words of the refusal.",
        why="One refusal mends itself at the next heartbeat; half an hour of them does not.",
    )
    yield Alert(
        id=f"CollectorCannotSend{what}",
        title=f"The Collector cannot send {words} to the backend",
        severity="warning",
        query=Query(Series(f"otelcol_exporter_send_failed_{unit}", "", "counter"), _EXPORTER, join="sum"),
        threshold=1,
        window=15,
        minutes=30,
        about="pipeline",
        meaning=f"For half an hour the backend has refused {words}, or it cannot be reached.",
        first="401 and 403 in the Collector's log are a wrong, revoked or expired key of the backend.",
        look="The Collector's log; docs/backends.md says what each answer of a backend leads to.",
        why="A backend that is away for some minutes is no news; what was not taken is sent again.",
    )


def _queue() -> Alert:
    return Alert(
        id="CollectorQueueFilling",
        title="The Collector's queue is filling",
        severity="warning",
        query=Query(Series("otelcol_exporter_queue_size", ""), _QUEUE),
        over=Query(Series("otelcol_exporter_queue_capacity", ""), _QUEUE),
        threshold=0.8,
        minutes=15,
        about="pipeline",
        setting="CollectorQueueFilling",
        meaning="More comes in than the backend takes. When the queue is full, what comes is refused.",
        first="Is the backend slow, or do others send through this Collector as well?",
        look="The Collector's log, and its page on port 8888.",
        why="Four fifths, as the Collector's own documentation advises; a burst passes within minutes.",
    )
