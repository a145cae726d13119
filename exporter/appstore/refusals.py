"""What it means when an answer is not a 200, as one of our errors, in words.

A `Failure` may pass and is worth another attempt; a refusal will be the same the next time.
"""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from exporter.appstore.addresses import shown
from exporter.appstore.auth import TokenAuth
from exporter.appstore.jsonapi import error_summary, printable
from exporter.appstore.reading import Received
from exporter.errors import (
    AgreementMissing,
    AppStoreError,
    BadAnswer,
    CredentialsRefused,
    NotFound,
    NotOffered,
    RateLimited,
    RoleTooSmall,
    Unavailable,
)
from exporter.retry_after import http_date, retry_after

__all__ = ["Failure", "lost", "passing", "refusal"]

_LONGEST_RETRY = 1e9  # seconds: keeps a hostile date within what a date can hold
_CLOCK_OFF = 60.0  # seconds: below this a clock does not explain a 401
_AGREEMENT = "FORBIDDEN.REQUIRED_AGREEMENTS_MISSING_OR_EXPIRED"

_NOT_EXPECTED = "Check base_url and for an update of the exporter; the text above is App Store Connect's."
_NOT_VISIBLE = (
    "Check the id, that it belongs to this account, and that the key may see it: an individual key "
    "sees the apps of its user only."
)
_ACCEPT_AGREEMENT = (
    "The key is fine. The Account Holder has to accept the pending agreement at App Store Connect → "
    "Business; requests work again shortly afterwards."
)
# Apple's table of program roles (developer.apple.com/support/roles) gives the reports of Xcode Organizer to
# these roles; the API's documentation names none for perfPowerMetrics. That a key's access is fixed: Apple's
# help page "App Store Connect API".
_LARGER_ROLE = (
    "The key is valid, but its role may not read this. Admin, App Manager and Developer may see the reports "
    "of Xcode Organizer, which show the same data. The access of a team key cannot be changed: revoke it and "
    "generate one with such a role; for an individual key, change the role of its user."
)


@dataclass(frozen=True)
class Failure:
    """An attempt that is worth repeating, and the error it becomes when repeating did not help.

    `retry_after` is how many seconds the server asks to wait, None where it did not say.
    """

    what: str
    kind: type[RateLimited | Unavailable]
    retry_after: float | None = None


def lost(error: httpx.TransportError) -> Failure:
    """Return the failure of an attempt without a complete answer."""
    text = printable(str(error), 200)
    what = f"no complete answer came: {type(error).__name__}{': ' if text else ''}{text}"
    return Failure(what, Unavailable)


def passing(received: Received) -> Failure | None:
    """Return the failure that a 429 or 5xx is, None for any other status."""
    status = received.response.status_code
    if status != httpx.codes.TOO_MANY_REQUESTS and status < httpx.codes.INTERNAL_SERVER_ERROR:
        return None
    kind = RateLimited if status == httpx.codes.TOO_MANY_REQUESTS else Unavailable
    wait = retry_after(received.response.headers, received.received_at)
    return Failure(_answered(received)[1], kind, None if wait is None else min(wait, _LONGEST_RETRY))


def refusal(received: Received, auth: TokenAuth) -> AppStoreError:
    """Return the error for an answer that repeating will not change; its `where` is left empty."""
    response = received.response
    code, what = _answered(received)
    match response.status_code:
        case status if 300 <= status < 400:
            return _redirected(response)
        case httpx.codes.UNAUTHORIZED:
            return CredentialsRefused(what, remedy=f"{_clock_off(received)}{_check_key(auth)}")
        case httpx.codes.FORBIDDEN if code == _AGREEMENT:
            return AgreementMissing(what, remedy=_ACCEPT_AGREEMENT)
        case httpx.codes.FORBIDDEN:
            return RoleTooSmall(what, remedy=_LARGER_ROLE)
        case httpx.codes.NOT_FOUND:
            return NotFound(what, remedy=_NOT_VISIBLE)
        case httpx.codes.NOT_ACCEPTABLE:
            types = response.request.headers["Accept"]
            return NotOffered(
                what, remedy=f"It offers none of: {types}. Check for an update of the exporter."
            )
        case _:
            return BadAnswer(what, remedy=_NOT_EXPECTED)


def _answered(received: Received) -> tuple[str, str]:
    """Return Apple's code for the error, and the status, the code and Apple's text in a sentence."""
    code, text = error_summary(received.body)
    head = f"App Store Connect answered {received.response.status_code} {code}".rstrip()
    return code, f"{head} ({text.rstrip('.')})" if text else head


def _redirected(response: httpx.Response) -> BadAnswer:
    target = shown(response.next_request.url) if response.next_request else "nowhere"
    return BadAnswer(
        f"the answer is a redirect ({response.status_code}) to {target}, which was not followed",
        remedy=f"Check base_url, now {shown(response.url)}: the token is sent nowhere else.",
    )


def _check_key(auth: TokenAuth) -> str:
    issuer = "the issuer id is the team's" if auth.issuer_id else "the key is an individual key"
    return (
        f"Check that key {auth.key_id} is not revoked (App Store Connect → Users and Access → Integrations), "
        f"that {issuer}, and that the private key file is the one of this key id."
    )


def _clock_off(received: Received) -> str:
    """Return a sentence on this machine's clock if it differs much from the answer's `Date`, else ''."""
    sent = http_date(received.response.headers.get("Date", ""))
    off = 0.0 if sent is None else received.received_at - sent
    if abs(off) <= _CLOCK_OFF:
        return ""
    word = "fast" if off > 0 else "slow"
    return f"This machine's clock is {abs(off):.0f} s {word}, which alone makes tokens invalid: set it. "
