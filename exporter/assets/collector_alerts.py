"""What is watched of the Collector: alerts on what it says of itself on port 8888. Pure.

Names are those that its page has with our configuration, which writes counters without `_total`. A queue it
has with an overlay of a vendor only.
"""

from __future__ import annotations

from exporter.assets.model import Alert, Query, Series

_EXPORTER = ("instance", "exporter")
_QUEUE = (*_EXPORTER, "data_type")


def collector_alerts() -> tuple[Alert, ...]:
    """What it cannot send, and its queue; of every Collector whose page is scraped.

    One refusal raises one of them. What the Collector itself refuses, as it is short of memory, stays in the
    exporter's outbox, which has its own alert; events that only the backend of logs refuses, likewise.
    """
    return _sending(), _queue()


def _sending() -> Alert:
    return Alert(
        id="CollectorCannotSend",
        title="The Collector cannot send to the backend",
        severity="warning",
        query=Query(
            Series("otelcol_exporter_send_failed_metric_points", "", "counter"), _EXPORTER, join="sum"
        ),
        threshold=1,
        window=15,
        minutes=30,
        about="collector",
        meaning="For half an hour the backend has refused points, or it cannot be reached.",
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
        about="collector",
        highest=1,
        meaning="More comes in than the backend takes. When the queue is full, what comes is refused.",
        first="See whether the backend is slow, and whether others send through this Collector as well.",
        look="The Collector's log, and its page on port 8888.",
        why=(
            "Four fifths, as the Collector's own documentation advises; a burst passes within minutes. With "
            "our configuration alone the queue stays almost empty, as the exporter waits for each answer: it "
            "fills where others send through this Collector as well."
        ),
    )
