"""How the exporter is doing: written by the service, read by the health listener and the own metrics."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from datetime import UTC, datetime

from exporter.appstore.plan import IMPORTANCE
from exporter.deliver import Delivery
from exporter.errors import (
    AgreementMissing,
    CredentialsRefused,
    ExporterError,
    NotFound,
    RateLimited,
    RoleTooSmall,
    StateError,
)
from exporter.otlp.passed_on import what_to_do
from exporter.report import CycleReport
from exporter.settings import Settings
from exporter.state import Answered, State, Trouble

_MISSED_HEARTBEATS = 3
_ANSWERS = (AgreementMissing, NotFound, RateLimited, RoleTooSmall)  # given to a key that is accepted only
_LONGEST_PASS = 300.0  # seconds that a delivery may take without the process counting as stuck


class Status:
    """What happened last. Holds no secrets: names, numbers, times, and errors made for people.

    Args:
        clock: epoch seconds.
    """

    def __init__(self, settings: Settings, state: State, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._state = state
        self._clock = clock
        self._lock = threading.Lock()
        self._started = clock()
        self._beat = time.monotonic()
        self._reports: dict[str, CycleReport] = {}
        self._broken: dict[str, str] = {}
        self._units: set[str] = set()
        self._troubles = state.troubles()
        self.delivery: Delivery | None = None

    def polled(self, report: CycleReport) -> None:
        """An account was polled."""
        with self._lock:
            self._reports[report.account] = report
            self._broken.pop(f"poll {report.account}", None)
        answered = report.apps > 0 or any(isinstance(error, _ANSWERS) for error in report.failures)
        self._tried(report.account, {error.reason for error in report.failures}, answered=answered)

    def poll_broke(self, account: str, reason: str) -> None:
        """A poll of an account could not be done at all."""
        self._tried(account, {reason}, answered=False)

    def _tried(self, account: str, reasons: Collection[str], *, answered: bool) -> None:
        """A poll has ended. Whether the key is refused, only an answer tells."""
        before = self._troubles.get(account, Trouble())
        refused = CredentialsRefused.reason in reasons
        trouble = Trouble(
            before.failed + 1 if reasons else 0,
            refused or (before.refused and bool(reasons) and not answered),
        )
        with self._lock:
            self._troubles[account] = trouble
        with suppress(StateError):  # it is known until the restart; and what ails the state is told elsewhere
            self._state.set_trouble(account, trouble)

    def failed_in_a_row(self) -> Iterator[tuple[float, dict[str, str]]]:
        """How many of the last polls failed, for each account that was ever polled."""
        for account, trouble in self._known_troubles():
            yield trouble.failed, {"account": account}

    def key_refused(self) -> Iterator[tuple[float, dict[str, str]]]:
        """1 for each account whose key is refused, 0 for the others that were ever polled."""
        for account, trouble in self._known_troubles():
            yield float(trouble.refused), {"account": account}

    def _known_troubles(self) -> list[tuple[str, Trouble]]:
        with self._lock:
            known = dict(self._troubles)
        return [(each.name, known[each.name]) for each in self._settings.accounts if each.name in known]

    def reports(self) -> list[CycleReport]:
        """The last poll of each account that was polled."""
        with self._lock:
            return list(self._reports.values())

    def beat(self) -> None:
        """A heartbeat has begun: the schedule is alive, whatever becomes of the heartbeat."""
        with self._lock:
            self._beat = time.monotonic()

    def delivered(self, delivery: Delivery) -> None:
        """A pass over what is to be sent has ended."""
        with self._lock:
            self.delivery = delivery
            self._beat = time.monotonic()
            self._broken.pop("heartbeat", None)

    def broken(self, error: Exception, job: str) -> None:
        """`poll` with an account, or `heartbeat`, could not be done at all, such as by a full disk."""
        text = str(error) if isinstance(error, ExporterError) else f"a bug: {type(error).__name__}"
        with self._lock:
            self._broken[job] = text

    def new_units(self, report: CycleReport) -> set[str]:
        """The unknown units of a report that were not seen since the start."""
        with self._lock:
            new = report.unknown_units - self._units
            self._units |= new
            return new

    def data_age(self) -> Iterator[tuple[float, dict[str, str]]]:
        """Seconds since App Store Connect last answered, for each app."""
        for answered in self._apps():
            age = self._clock() - answered.observed_at / 1e9
            yield max(0.0, age), {"account": answered.source.account, "app": answered.bundle_id}

    def delivery_duration(self) -> Iterator[tuple[float, dict[str, str]]]:
        """Seconds that the last delivery took, once there was one."""
        if self.delivery:
            yield self.delivery.seconds, {}

    def not_alive(self) -> list[str]:
        """Why the process should be restarted; empty while heartbeats come."""
        silent = time.monotonic() - self._beat
        allowed = _MISSED_HEARTBEATS * self._settings.schedule.heartbeat + _LONGEST_PASS
        return [f"no heartbeat for {silent:.0f} s"] if silent > allowed else []

    def not_ready(self) -> list[str]:
        """Why somebody should look; empty when data comes in and goes out."""
        with self._lock:
            reports, delivery = dict(self._reports), self.delivery
            reasons = list(dict.fromkeys(self._broken.values()))
        for account in self._settings.accounts:
            report = reports.get(account.name)
            if report and report.failures:
                reasons += [str(error) for error in report.failures]
            elif not report and not self._state.last_run(account.name):
                reasons.append(f"account {account.name}: not polled yet")
        if delivery is None:
            reasons.append("nothing was delivered yet")
        elif not delivery.complete:
            remedy = what_to_do(delivery.problem)
            reasons.append(f"delivery to {self._settings.otlp.destination}: {delivery.problem}. {remedy}")
        return reasons

    def lines(self) -> Iterator[str]:
        """The status page, as text."""
        now = self._clock()
        reasons = self.not_ready()
        yield "perfpower-exporter: " + ("ok" if not reasons else "needs attention")
        for reason in reasons:
            yield f"  ! {reason}"
        yield f"running since {_moment(self._started)}"
        with self._lock:
            reports, delivery = dict(self._reports), self.delivery
        for account in self._settings.accounts:
            report = reports.get(account.name)
            yield ""
            yield f"account {account.name}: " + (
                f"last poll {report.outcome}, {report.requests} requests, {report.unchanged} of "
                f"{report.answers} answers unchanged, {len(report.deferred)} deferred"
                if report
                else f"no poll since the start, the last good one {self._last_run(account.name)}"
            )
            yield from self._put_off(account.name, report, now)
            for answered in self._apps():
                if answered.source.account == account.name:
                    age = (now - answered.observed_at / 1e9) / 60
                    series = f"{answered.series:>6} series"
                    yield f"  {answered.bundle_id:<48} {series}, answered {age:.0f} min ago"
        yield ""
        if delivery:
            yield (
                f"last delivery {delivery.outcome}: {delivery.accepted} points accepted, "
                f"{delivery.rejected} rejected, {delivery.given_up} given up, {delivery.owed} items owed"
            )

    def _put_off(self, account: str, report: CycleReport | None, now: float) -> Iterator[str]:
        """What waits for the next poll, by kind, and since when; what was stored of it until there is one."""
        left = {step.key for step in report.deferred} if report else None
        waiting = {
            key: past.waits_since
            for key, past in self._state.past(account).items()
            if past.waits_since is not None and (left is None or key in left)
        }
        if waiting:
            counts = Counter(key.what for key in waiting)
            kinds = [f"{what.replace('_', ' ')} ({counts[what]})" for what in IMPORTANCE if counts[what]]
            oldest = min(waiting.values())
            yield (
                f"  put off to the next poll: {', '.join(kinds)}; "
                f"the oldest waits since {_moment(oldest)}, {max(0.0, now - oldest) / 3600:.1f} h"
            )

    def _last_run(self, account: str) -> str:
        run = self._state.last_run(account)
        return _moment(run[0]) if run else "never"

    def _apps(self) -> list[Answered]:
        return [
            answered
            for answered in self._state.answered()
            if answered.source.kind == "metrics" and not answered.source.build_id
        ]


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
