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

    `reason` is a short word for metrics and logs, `advice` what to do about errors of the kind. Both are
    fixed per class; docs/operating.md has them, with the class's docstring as the meaning.
    """

    reason = "error"
    advice = ""

    def __init__(self, what: str, *, remedy: str = "", where: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.where = where

    def __str__(self) -> str:
        sentence = f"{self.where}: {self.what}." if self.where else f"{self.what}."
        return f"{sentence} {self.remedy}" if self.remedy else sentence


class ConfigError(ExporterError):
    """The configuration is wrong: nothing was started, or nothing asked about the app that is named."""

    reason = "configuration"
    advice = "Change the setting that the message names; `check` tries them all without sending anything."


class StateError(ExporterError):
    """The state file cannot be opened, read or written."""

    reason = "state"
    advice = (
        "Is the disk full? Make room, and leave the file where it is: it holds what is still owed. Is the "
        "folder no longer writable? If the file is damaged, stop the exporter and move the file away: the "
        "next poll fills a new one; only what was not delivered yet is lost."
    )


class AppStoreError(ExporterError):
    """App Store Connect did not give what was asked for."""

    reason = "app_store"
    advice = "The message says what App Store Connect answered."


class CredentialsRefused(AppStoreError):
    """401 twice, the second time with a freshly signed token: a wrong or revoked key, or a clock off."""

    reason = "credentials_refused"
    advice = (
        "Is the key still active under Users and Access → Integrations, do key id and issuer id belong to "
        "it, and is this machine's clock right? A token is good for minutes."
    )


class RoleTooSmall(AppStoreError):
    """403: the key is good, but its role may not read this."""

    reason = "role_too_small"
    advice = "Make a key whose role sees the app's metrics, such as Developer, and configure that one."


class AgreementMissing(AppStoreError):
    """403 FORBIDDEN.REQUIRED_AGREEMENTS_MISSING_OR_EXPIRED: the account has an agreement to accept."""

    reason = "agreement_missing"
    advice = "The Account Holder accepts it under Business in App Store Connect; the key is fine."


class NotFound(AppStoreError):
    """404: no such app or build, or the key cannot see it."""

    reason = "not_found"
    advice = (
        "Compare `apps.include` with what `apps` lists, and take out what was removed or what the key may no "
        "longer see."
    )


class RateLimited(AppStoreError):
    """429 that outlasted the retries."""

    reason = "rate_limited"
    advice = (
        "Somebody with the same key, such as CI, sends too much; the next poll asks again. If it stays, give "
        "the exporter a key of its own."
    )


class OverBudget(AppStoreError):
    """The configured share of the key's hour is used up; the request was not sent."""

    reason = "over_budget"
    advice = (
        "Nothing, if it passes: the message says when the next request becomes free. Else raise "
        "`limits.key_share`, poll less often, or choose fewer apps; `plan` shows what a poll costs."
    )


class Unavailable(AppStoreError):
    """No connection, a time-out, a cut-off answer, or 5xx that outlasted the retries."""

    reason = "unavailable"
    advice = (
        "The next poll asks again. If it stays: can this machine reach App Store Connect, through its proxy "
        "if there is one, and is it up?"
    )


class BadAnswer(AppStoreError):
    """An answer that cannot be what App Store Connect meant to say."""

    reason = "bad_answer"
    advice = (
        "The last good data stays. Something between here and Apple may answer in its place (a proxy, a "
        "login page); if not, the format has changed: look for a newer version of the exporter."
    )


class NotOffered(BadAnswer):
    """406: App Store Connect has nothing of the kind that was asked for."""

    reason = "not_offered"
    advice = (
        "The account does not have it, or no longer; if `base_url` names a proxy, it has to pass on Accept."
    )


NOT_FROM_APPLE: dict[str, tuple[str, str]] = {
    "delivery": (
        "The endpoint did not take everything; what it did not take is kept, and sent again.",
        "`/readyz` has the endpoint's own words, and says where to look: the Collector, or its backend.",
    ),
    "bug": (
        "An error that nobody foresaw; the schedule goes on.",
        "Report it with the traceback, which the log has under `poll.failed` or `heartbeat.failed`.",
    ),
}
"""Reasons that no class stands for: reason → meaning, what to do."""
