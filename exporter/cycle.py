"""One poll of one account, from the question to what is stored.

Delivery is not part of it: what a poll brings is stored in one transaction an answer, and delivered from
there.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from exporter import __version__
from exporter.appstore.client import Answer, AppStoreClient
from exporter.appstore.jsonapi import App, Build
from exporter.appstore.payloads.metrics import parse_metrics
from exporter.appstore.payloads.reader import clean_text
from exporter.appstore.plan import Step, plan
from exporter.appstore.quota import Quota
from exporter.convert.distributions import owed
from exporter.convert.metrics import Converted, Selection, convert
from exporter.errors import (
    AgreementMissing,
    AppStoreError,
    BadAnswer,
    CredentialsRefused,
    NotFound,
    OverBudget,
    RateLimited,
    RoleTooSmall,
    Unavailable,
)
from exporter.otlp.encode import Body, can_be_restamped, encode
from exporter.settings import Account, Settings
from exporter.state import Source, State

SCOPE = InstrumentationScope("perfpower-exporter", __version__)
_SECOND = 1_000_000_000


@dataclass(slots=True)
class CycleReport:
    """What one poll did; the counts are of this poll alone.

    `series` is by metric, `series_by_app` by bundle id. `unchanged` counts answers equal to the last ones:
    nothing about them is converted again, so they add nothing to points, series, `left_out` and `capped`.
    `deferred` names what has to wait for the next poll.
    """

    account: str
    apps: int = 0
    requests: int = 0
    answers: int = 0
    unchanged: int = 0
    points: int = 0
    distributions: int = 0
    series: Counter[str] = field(default_factory=Counter)
    series_by_app: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    capped: Counter[str] = field(default_factory=Counter)
    unknown_units: set[str] = field(default_factory=set)
    deferred: list[str] = field(default_factory=list)
    failures: list[AppStoreError] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def outcome(self) -> str:
        """`ok`, `deferred` (the budget did not suffice) or `failed` (at least one request)."""
        return "failed" if self.failures else "deferred" if self.deferred else "ok"


class Cycle:
    """Polls one account.

    Args:
        clock: epoch seconds.
    """

    def __init__(
        self,
        account: Account,
        settings: Settings,
        client: AppStoreClient,
        quota: Quota,
        state: State,
        *,
        clock: Callable[[], float] = time.time,
        log: Any,
    ) -> None:
        self._account = account
        self._collect = settings.collect
        self._series_cap = settings.limits.series_per_app
        self._client = client
        self._quota = quota
        self._state = state
        self._clock = clock
        self._log = log

    def poll(self) -> CycleReport:
        """Ask for everything that is wanted and affordable, and store what came.

        A failed request costs what it was for, and nothing else: what is stored of it stays. Never raises
        for what App Store Connect does.
        """
        started = self._clock()
        report = CycleReport(self._account.name)
        try:
            apps = self._apps(report)
            self._ask(apps, report)
        except AppStoreError as error:
            report.failures.append(error)
        report.requests = len(self._state.requests(self._account.key_id, started))
        report.seconds = self._clock() - started
        return report

    def _apps(self, report: CycleReport) -> list[App]:
        """The apps to ask about; one that is named but missing is a failure of its own.

        What is stored of apps that are no longer wanted is forgotten. A listing that selects nothing forgets
        nothing: it is more likely that the key lost its sight than that all apps are gone.
        """
        selection = self._account.apps
        exact = selection.exact()
        listed = self._client.apps(ids=exact[0], bundle_ids=exact[1]) if exact else self._client.apps()
        report.failures += [self._nameless(app) for app in listed if not (app.bundle_id and app.name)]
        apps = [
            app for app in listed if app.bundle_id and app.name and selection.selects(app.id, app.bundle_id)
        ]
        found = {app.id for app in listed} | {app.bundle_id for app in listed if app.bundle_id}
        named = {entry for entry in selection.include if not set(entry) & set("*?[")}
        missing = sorted(name for name in named - found if selection.selects(name, name))
        report.failures += [self._missing(name) for name in missing]
        report.apps = len(apps)
        if not apps:
            if not report.failures:
                report.failures.append(self._nothing_selected())
            return []
        wanted = {app.id for app in apps} | {app.id for app in listed if not app.bundle_id}
        self._state.keep_only(
            lambda answered: (
                answered.source.account != self._account.name
                or answered.source.app_id in wanted
                or not named.isdisjoint((answered.source.app_id, answered.bundle_id))
            )
        )
        return apps

    def _missing(self, name: str) -> NotFound:
        return NotFound(
            f"there is no app {name}, or this key cannot see it",
            remedy="Check the bundle id or Apple id in apps.include, and that the key's role covers the app.",
            where=f"account {self._account.name}",
        )

    def _nothing_selected(self) -> NotFound:
        return NotFound(
            "no app is selected",
            remedy="Check apps.include and apps.exclude, and that the key may see the apps.",
            where=f"account {self._account.name}",
        )

    def _nameless(self, app: App) -> BadAnswer:
        return BadAnswer(
            "the listing has the app without its bundle id or name",
            remedy="What is stored of it stays; the next poll asks again.",
            where=f"account {self._account.name}, app {app.id}",
        )

    def _ask(self, apps: list[App], report: CycleReport) -> None:
        last_asked = self._state.attempts(self._account.name)
        allowance = self._quota.allowance(self._clock())
        planned = plan(apps, self._collect.builds, last_asked, allowance)
        self._defer(planned.deferred, report)
        unavailable = 0
        for number, step in enumerate(planned.steps):
            try:
                self._do(step, report)
                unavailable = 0
            except OverBudget as error:
                self._defer(planned.steps[number:], report, error)
                return
            except RateLimited as error:
                report.failures.append(error)
                self._defer(planned.steps[number + 1 :], report, error)
                return
            except (CredentialsRefused, AgreementMissing):
                raise
            except AppStoreError as error:
                report.failures.append(error)
                unavailable = unavailable + 1 if isinstance(error, Unavailable) else 0
                if unavailable == _UNAVAILABLE_IN_A_ROW:
                    self._defer(planned.steps[number + 1 :], report, error)
                    return

    def _do(self, step: Step, report: CycleReport) -> None:
        if step.what == "metrics":
            self._state.add_attempt(self._account.name, step.app.id, self._clock())
            answer = self._client.metrics("apps", step.app.id)
            self._take_in(step.app, None, answer, self._series_cap, report)
        else:
            self._ask_builds(step.app, report)

    def _ask_builds(self, app: App, report: CycleReport) -> None:
        """The app's own series come first under the cap, then those of its builds, newest first."""
        builds = self._client.builds(app.id, newest=self._collect.builds)
        newest = {build.id for build in builds}
        self._state.keep_only(
            lambda answered: (
                answered.source[:2] != (self._account.name, app.id)
                or not answered.source.build_id
                or answered.source.build_id in newest
            )
        )
        room = self._series_cap - self._state.series(Source(self._account.name, app.id))
        for build in builds:
            try:
                answer = self._client.metrics("builds", build.id)
                self._take_in(app, build, answer, max(0, room), report)
            except NotFound:
                pass  # a build that nobody used yet has no metrics
            except (BadAnswer, RoleTooSmall) as error:  # of this build; others speak of the account
                report.failures.append(error)
            room -= self._state.series(Source(self._account.name, app.id, build.id))

    def _take_in(self, app: App, build: Build | None, answer: Answer, room: int, report: CycleReport) -> None:
        """Store what an answer brings, if it is news; `room` is how many series it may make."""
        report.answers += 1
        source = Source(self._account.name, app.id, build.id if build else "")
        observed_at = int(answer.received_at * _SECOND)
        resource = self._resource(app)
        selection = Selection(self._collect.detail, self._collect.categories, self._collect.devices)
        made_with = (__version__, resource, selection, room, build.number if build else "")
        digest = hashlib.sha256(repr(made_with).encode() + answer.body).digest()
        if self._state.digest(source) == digest:
            self._state.touch(source, observed_at)
            report.unchanged += 1
            return
        try:
            payload = parse_metrics(answer.document)
        except AppStoreError as error:
            error.where = f"account {self._account.name}, {app.bundle_id}"
            raise
        while True:
            converted = convert(
                payload,
                selection,
                observed_at=observed_at,
                series_cap=room,
                build=build.number if build else "",
            )
            gauges = encode(Resource(resource), SCOPE, converted.gauges)
            if all(can_be_restamped(body, observed_at) for body in gauges):
                break
            observed_at += 1  # by a chance of 1 in 2^70, the bytes of this time stand somewhere else, too
        self._store(source, app, digest, observed_at, converted, gauges, report)

    def _store(
        self,
        source: Source,
        app: App,
        digest: bytes,
        observed_at: int,
        converted: Converted,
        gauges: list[Body],
        report: CycleReport,
    ) -> None:
        resource = self._resource(app)
        series_of = hashlib.sha256(repr(resource).encode()).digest()[:8]  # another resource, other series
        with self._state.hold():  # a delivery must not move windows meanwhile
            before = {
                series.removeprefix(series_of): window
                for series, window in self._state.windows(source.account, source.app_id).items()
                if series.startswith(series_of)
            }
            distributions, windows = owed(converted.distributions, before, observed_at)
            bodies = encode(Resource(resource), SCOPE, distributions)
            self._state.store(
                source,
                app.bundle_id,
                digest,
                observed_at,
                converted.series.total(),
                gauges=gauges,
                owed=bodies,
                owed_at=next((window.ended_at for window in windows.values()), observed_at),
                windows={series_of + series: window for series, window in windows.items()},
                seen=[series_of + item.identity for item in converted.distributions],
            )
        self._keep_below_cap(source)
        report.points += sum(body.points for body in gauges)
        report.distributions += sum(body.points for body in bodies)
        report.series += converted.series
        report.series_by_app[app.bundle_id] += converted.series.total()
        report.left_out += converted.left_out
        report.capped += converted.capped
        report.unknown_units |= converted.unknown_units
        if converted.capped:
            self._log.warning(
                "cycle.series_cap_reached",
                account=source.account,
                app=app.bundle_id,
                build=source.build_id or None,
                cap=self._series_cap,
                setting="limits.series_per_app",
                left_out=converted.capped.total(),
                most=dict(converted.capped.most_common(5)),
            )

    def _keep_below_cap(self, source: Source) -> None:
        """Should the app's own series have grown, those of its builds go until they are asked about anew."""
        of_app = [answered for answered in self._state.answered() if answered.source[:2] == source[:2]]
        if not source.build_id and sum(answered.series for answered in of_app) > self._series_cap:
            self._state.keep_only(
                lambda answered: answered.source[:2] != source[:2] or not answered.source.build_id
            )

    def _resource(self, app: App) -> dict[str, str]:
        attributes = {
            "service.name": self._account.apps.service_name(app.bundle_id, app.id),
            "appstore.app.id": app.id,
            "appstore.app.name": clean_text(app.name),
            "appstore.account": self._account.name,
            "deployment.environment.name": self._account.environment,
        }
        return {key: value for key, value in attributes.items() if value}

    def _defer(self, steps: Iterable[Step], report: CycleReport, error: AppStoreError | None = None) -> None:
        names = [str(step) for step in steps]
        report.deferred += names
        if names:
            self._log.warning(
                "cycle.deferred",
                account=self._account.name,
                waits_for_next_poll=names,
                reason=str(error or "limits.key_share"),
            )


_UNAVAILABLE_IN_A_ROW = 2  # each has cost minutes of retries already; the next poll goes on with the others
