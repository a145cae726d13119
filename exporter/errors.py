"""What can go wrong, and what to do about it.

ExporterError
├── ConfigError              the configuration is wrong; exit status 2
├── StateError               the state file cannot be used
└── AppStoreError            App Store Connect did not give what was asked for
    ├── CredentialsRefused   401: wrong key, revoked key, or a clock that is off
    ├── RoleTooSmall         403: the key may not read this
    ├── AgreementMissing     403: the account has an agreement to accept
    ├── NotFound             404
    ├── RateLimited          429 that did not go away
    ├── OverBudget           our own share of the key's hour is used up; nothing was sent
    ├── Unavailable          no connection, a time-out, or 5xx that did not go away
    └── BadAnswer            an answer that cannot be what App Store Connect meant to say
        └── NotOffered       406: this endpoint does not exist for the account, or no longer
"""

from __future__ import annotations


class ExporterError(Exception):
    """An error that a person can act on.

    Args:
        what: what happened, as a sentence without the final full stop.
        remedy: what to do about it, as one or more whole sentences; may be empty.
        where: which file, account or app it is about; may be empty.

    `reason` is a short word for metrics and logs; it is fixed per class.
    """

    reason = "error"

    def __init__(self, what: str, *, remedy: str = "", where: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.where = where

    def __str__(self) -> str:
        sentence = f"{self.where}: {self.what}." if self.where else f"{self.what}."
        return f"{sentence} {self.remedy}" if self.remedy else sentence


class ConfigError(ExporterError):
    """The configuration is wrong; nothing was started."""

    reason = "configuration"


class StateError(ExporterError):
    """The state file cannot be opened, read or written."""

    reason = "state"


class AppStoreError(ExporterError):
    """App Store Connect did not give what was asked for."""

    reason = "app_store"


class CredentialsRefused(AppStoreError):
    """401 twice, the second time with a freshly signed token."""

    reason = "credentials_refused"


class RoleTooSmall(AppStoreError):
    """403: the key is good, but its role may not read this."""

    reason = "role_too_small"


class AgreementMissing(AppStoreError):
    """403 FORBIDDEN.REQUIRED_AGREEMENTS_MISSING_OR_EXPIRED."""

    reason = "agreement_missing"


class NotFound(AppStoreError):
    """404: no such app or build, or the key cannot see it."""

    reason = "not_found"


class RateLimited(AppStoreError):
    """429 that outlasted the retries."""

    reason = "rate_limited"


class OverBudget(AppStoreError):
    """The configured share of the key's hour is used up; the request was not sent."""

    reason = "over_budget"


class Unavailable(AppStoreError):
    """No connection, a time-out, a cut-off answer, or 5xx that outlasted the retries."""

    reason = "unavailable"


class BadAnswer(AppStoreError):
    """An answer that cannot be what App Store Connect meant to say."""

    reason = "bad_answer"


class NotOffered(BadAnswer):
    """406: App Store Connect has nothing of the kind that was asked for."""

    reason = "not_offered"
