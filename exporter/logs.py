"""The exporter's own log, on standard error: JSON lines for machines, aligned text on a terminal.

EVENTS is the single source of what the log may say: a test holds it to the code, and docs/operating.md is
made of it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, Literal

import structlog

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Event:
    """What the log says: with which levels, what it means, and what to do; nothing if `remedy` is empty."""

    levels: tuple[Level, ...]
    meaning: str
    remedy: str = ""


EVENTS: dict[str, Event] = {
    "shard": Event(
        ("info", "warning"),
        "The start, with `--shard`: which accounts are ours, and which are elsewhere. A warning if none "
        "is ours: the exporter stays up, and sends only what it still owes.",
        "With more exporters than keys some have nothing to do, and with few keys one may: take fewer.",
    ),
    "scheduled": Event(("info",), "The start: when the account is polled next."),
    "started": Event(("info",), "The schedule runs; `health` is the address of the status page."),
    "stopping": Event(("info",), "SIGTERM or Ctrl-C: what is owed is sent, for some seconds at the most."),
    "drain.deadline": Event(
        ("warning",),
        "Not all that was owed could be sent before the process had to end; `owed` items stay stored.",
        "Nothing, if the exporter starts again with the same state file. Else see why the endpoint is slow.",
    ),
    "stopped": Event(("info",), "The end; `owed` items are sent at the next start."),
    "poll": Event(
        ("info", "warning"),
        "An account was polled, with what it cost and brought. A warning if `outcome` is `deferred` "
        "(something was put off) or `failed` (at least one request).",
        "The lines before it name each failure and what was put off.",
    ),
    "poll.failed": Event(
        ("error",),
        "A request of a poll failed for good, or the whole poll. What is stored of it stays, and is re-sent.",
        "`error` says what to do; `reason` is one of [these](#failures-by-reason).",
    ),
    "poll.unknown_unit": Event(
        ("warning",),
        "Apple sent a unit that nobody knows. Its values pass through unscaled. Once a start and unit.",
        "Report it, so that it is converted; until then do not compare such a metric with others.",
    ),
    "cycle.plan": Event(("debug",), "What a poll is going to ask for, as far as it is known beforehand."),
    "cycle.deferred": Event(
        ("warning",),
        "Something waits for the next poll, mostly because our share of the key's hour does not suffice.",
        "See [What is put off](#what-is-put-off-and-since-when).",
    ),
    "cycle.still_running": Event(
        ("warning",),
        "A planned poll was left out, since the account's last one still goes on. Nothing is lost.",
        "Once is no harm: a first poll downloads all logs. If it stays, poll less often (`schedule.poll`), "
        "or look for `poll.failed` with `unavailable`.",
    ),
    "cycle.no_overview": Event(
        ("info",),
        "The account has no overview of the app (API 4.5). It is asked for again the next day; all else is "
        "collected.",
    ),
    "cycle.series_cap_reached": Event(
        ("warning",),
        "An app would have more series than `limits.series_per_app`; the least important were left out.",
        "Raise the limit, or choose less in `collect`; `check` shows the count. What is left out raises no "
        "alert.",
    ),
    "cycle.events_given_up": Event(
        ("error",),
        "Events that no endpoint took for a long time made room for newer ones; they are lost.",
        "Give the Collector a pipeline for logs, or set `collect.events: false`.",
    ),
    "delivery": Event(
        ("debug", "info", "warning"),
        "What is owed and the newest gauges were sent. A warning if not all of it was accepted; "
        "`endpoint_says` has the endpoint's words. Heartbeats that go as the one before: at debug only.",
        "`/readyz` says whether to look at the Collector or at its backend. What could not be sent is kept "
        "(`owed`); what the endpoint took and then rejected (`rejected`) is not sent again.",
    ),
    "delivery.restamped": Event(
        ("info",),
        "What an app was owed had become too old for the backends, or lay ahead; it is sent with a new time.",
        "Nothing; it says that the endpoint was away for most of an hour, or that the clock was set.",
    ),
    "delivery.given_up": Event(
        ("error",),
        "The endpoint refuses these points or events and takes others: they are lost. `endpoint_says` why.",
        "Mend what the endpoint complains of; if it is valid OTLP, report it.",
    ),
    "heartbeat.failed": Event(
        ("error",),
        "Re-sending could not be done at all, such as by a full disk; the next heartbeat tries again.",
        "`error` says what to do; `reason` is one of [these](#failures-by-reason).",
    ),
    "heartbeat.still_running": Event(
        ("warning",),
        "A heartbeat was left out, since the one before is still sending. Nothing is lost.",
        "Once is no harm. If it stays, the endpoint is slow: look at `seconds` of `delivery`.",
    ),
}


def configure(level: str, form: Literal["auto", "json", "console"]) -> Any:
    """Set up logging for the process and give the exporter's logger.

    What libraries log goes the same way from WARNING up; the OpenTelemetry SDK only from CRITICAL up, since
    all it has to say is that the endpoint is not there, which deliveries say better. Only a terminal gets
    colours.
    """
    on_terminal = sys.stderr.isatty()
    readable = form == "console" or (form == "auto" and on_terminal)
    renderer: Any = _text(on_terminal) if readable else structlog.processors.JSONRenderer()
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if readable else "iso", utc=not readable),
        structlog.processors.format_exc_info,
        _heading_first,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_is_ours_to_tell)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(
        handlers=[handler], level=max(logging.WARNING, getattr(logging, level.upper())), force=True
    )
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    return structlog.get_logger()


def _text(colors: bool) -> structlog.dev.ConsoleRenderer:
    # A plain traceback: that of rich, where it is installed, shows the values of variables, such as keys.
    return structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback, sort_keys=False
    )


def _is_ours_to_tell(record: logging.LogRecord) -> bool:
    """A job that was skipped is told as `….still_running`, by whom the scheduler tells."""
    skipped = "maximum number of running instances" in str(record.msg)
    return not (skipped and record.name.startswith("apscheduler"))


def _heading_first(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> dict[str, Any]:
    """When, how bad and what before the details, whatever order they were added in; nothing that is None."""
    heading = {key: fields.pop(key) for key in ("timestamp", "level", "event") if key in fields}
    return heading | {key: value for key, value in fields.items() if value is not None}
