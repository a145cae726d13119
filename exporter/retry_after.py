"""`Retry-After` and `Date`, as HTTP servers of both sides send them (RFC 9110, 10.2.3 and 6.6.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that `Retry-After` asks for, in either form; None if it is missing, garbage or over.

    A date is compared with the answer's own `Date`, so that a clock that is off here does not matter.

    Args:
        headers: the headers of the answer, found by name without regard to case.
        now: our time in epoch seconds, used where the answer has no `Date`.
    """
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text) or None
    moment = http_date(text)
    if moment is None:
        return None
    sent = http_date(headers.get("Date", ""))
    seconds = moment - (now if sent is None else sent)
    return seconds if seconds > 0 else None


def http_date(text: str) -> float | None:
    """An HTTP date in epoch seconds; None if it is none."""
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
