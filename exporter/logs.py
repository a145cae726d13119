"""The exporter's own log, on standard error: JSON lines for machines, aligned text on a terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog


def configure(level: str, form: Literal["auto", "json", "console"]) -> Any:
    """Set up logging for the process and give the exporter's logger.

    What libraries log goes the same way from WARNING up; the OpenTelemetry SDK only from CRITICAL up, since
    all it has to say is that the endpoint is not there, which deliveries say better.
    """
    readable = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if readable else structlog.processors.JSONRenderer()
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if readable else "iso", utc=not readable),
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.format_exc_info,
            _heading_first,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    return structlog.get_logger()


def _heading_first(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> dict[str, Any]:
    """When, how bad and what before the details, whatever order they were added in; nothing that is None."""
    heading = {key: fields.pop(key) for key in ("timestamp", "level", "event") if key in fields}
    return heading | {key: value for key, value in fields.items() if value is not None}
