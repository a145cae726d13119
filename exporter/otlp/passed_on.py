"""What a Collector passes on of the backend behind it. Pure.

Its answer has a status of its own, and the backend's only in words, as its exporters put them (otlp_http,
signalfx and splunk_hec of 0.157.0; tests/collector holds them): `… responded with HTTP Status Code 403, …`,
`HTTP "/v2/datapoint" 401 "Unauthorized"`, `Throttle (2m0s), error: …`, `context deadline exceeded`.
"""

from __future__ import annotations

import re
from dataclasses import replace

from exporter.otlp.sink import Outcome, Reply

_STATUS = re.compile(r'HTTP Status Code (\d{3})|HTTP "[^"]*" (\d{3}) ')
_TOO_SLOW = re.compile(r"deadline exceeded|Client\.Timeout")
_WAIT = re.compile(r"Throttle \((?:(\d{1,3})h)?(?:(\d{1,5})m)?(?:(\d{1,7})(?:\.\d+)?s)?\)")
_OUTCOMES = {400: Outcome.BAD_DATA, 401: Outcome.REFUSED, 403: Outcome.REFUSED, 429: Outcome.RETRY}
_REFUSED = "The backend refuses the Collector's key or token: is it valid, and right for the site or realm?"
_SAID = "That is the backend's own answer, which the Collector passes on."
_UNREACHED = "The Collector does not reach the backend: is the address right, and the way open?"
_NOBODY = "Is the Collector running, and otlp.endpoint right?"


def of_the_backend(reply: Reply) -> Reply:
    """The Collector's answer, taken for what the backend has said where it tells that."""
    if reply.outcome is Outcome.ACCEPTED:
        return reply
    wait = _WAIT.search(reply.message)
    hours, minutes, seconds = (int(part or 0) for part in wait.groups()) if wait else (0, 0, 0)
    told = hours * 3600.0 + minutes * 60 + seconds
    return replace(
        reply,
        outcome=_OUTCOMES.get(_status(reply.message), reply.outcome),
        retry_after=(told or None) if reply.retry_after is None else reply.retry_after,
        perhaps_taken=reply.perhaps_taken or bool(_TOO_SLOW.search(reply.message)),
    )


def what_to_do(message: str) -> str:
    """What to do about an answer, as a sentence: whose it is, and where to look."""
    if status := _status(message):
        return _REFUSED if status in (401, 403) else _SAID
    return _UNREACHED if 'Post "' in message else _NOBODY


def _status(message: str) -> int:
    """The backend's status; 0 where there is none."""
    found = _STATUS.search(message)
    return int(found[1] or found[2]) if found else 0
