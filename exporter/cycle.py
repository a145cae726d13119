"""One poll of one account, from the question to what is stored.

Delivery is not part of it: what a poll brings is stored in one transaction an answer, and delivered from
there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from exporter.appstore.client import Answer, AppStoreClient
from exporter.appstore.discovery import complete, newest_versions
from exporter.appstore.jsonapi import App, Build
from exporter.appstore.plan import NOTHING, Agenda, Key, Past, Plan, Step, What, is_offered, plan
from exporter.appstore.quota import Quota
from exporter.errors import (
    AgreementMissing,
    AppStoreError,
    BadAnswer,
    CredentialsRefused,
    NotFound,
    NotOffered,
    OverBudget,
    RateLimited,
    RoleTooSmall,
    Unavailable,
)
from exporter.intake import Intake
from exporter.report import CycleReport
from exporter.settings import Account, Settings
from exporter.state import State
from exporter.state.diagnostics import Diagnostics
from exporter.state.state import Kind

_HELD_FOR: tuple[Kind, ...] = ("signatures", "metrics")
_UNAVAILABLE_IN_A_ROW = 2  # each has cost minutes of retries already; the next poll goes on with the others
_UNAVAILABLE_OF_ANY_KIND = 4
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a poll would ask for now.

    `listing` is how many requests it took to find out, `allowance` how many more our share leaves. `refused`
    is set if it left too few for that: then the plan is made of what is stored, and all of it waits.
    `failures` are of apps that are named but missing, and of builds that could not be listed.
    """

    plan: Plan
    listing: int
    allowance: int
    refused: OverBudget | None
    failures: tuple[AppStoreError, ...]


class Cycle:
    """Polls one account.

    Args:
        clock: epoch seconds.
        next_poll: when the account is polled next, in ISO 8601; None if nobody knows.
        metrics_stored: told when the metrics of all apps are stored, while signatures and logs, which take
            a request each, are still to come.
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
        metrics_stored: Callable[[], None] = lambda: None,
        next_poll: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._account = account
        self._settings = settings
        self._client = client
        self._quota = quota
        self._state = state
        self._diagnostics = Diagnostics(state)
        self._clock = clock
        self._log = log
        self._metrics_stored = metrics_stored
        self._next_poll = next_poll

    def poll(self) -> CycleReport:
        """Ask for everything that is wanted and affordable, and store what came.

        A failed request costs what it was for, and nothing else: what is stored of it stays. Never raises
        for what App Store Connect does.
        """
        started = self._clock()
        report = CycleReport(self._account.name)
        intake = Intake(self._account, self._settings, self._state, report, self._log)
        apps: list[App] = []
        try:
            apps = self._apps(report)
            self._ask(apps, intake, report)
        except AppStoreError as error:
            report.failures.append(error)
        for app in apps:
            intake.flush(app, self._clock())
        report.requests = len(self._state.requests(self._account.key_id, started))
        report.seconds = self._clock() - started
        return report

    def plan(self, reserved: int = 0) -> Outlook:
        """What a poll would ask for now. Lists the apps and their builds, and asks for nothing else.

        The logs are those that were left over; those of signatures that are new are not known before the
        signatures are listed. Where our share does not suffice for the listing, what earlier polls stored
        takes its place.

        Args:
            reserved: requests of our share that another account with the same key is going to use.

        Raises:
            AppStoreError: the apps cannot be listed, or none is selected.
            OverBudget: nothing can be listed, and nothing is stored.
        """
        started = self._clock()
        report = CycleReport(self._account.name)
        apps, refused = self._list(report)
        past, now = self._state.past(self._account.name), self._clock()
        allowance = 0 if refused else max(0, self._quota.allowance(now) - reserved)
        listing = len(self._state.requests(self._account.key_id, started))
        planned = plan(self._known_steps(apps), past, now, allowance)
        return Outlook(planned, listing, allowance, refused, tuple(report.failures))

    def _list(self, report: CycleReport) -> tuple[list[App], OverBudget | None]:
        """The apps, their builds listed as well; those that are stored where our share does not suffice."""
        apps: list[App] = []
        try:
            apps = self._apps(report)
            if not apps:
                raise report.failures[0]
            for app in apps if self._wants_builds else ():
                try:
                    self._discover(app)
                except (NotFound, BadAnswer, RoleTooSmall) as error:
                    report.failures.append(error)
        except OverBudget as error:
            known = apps or self._answered()
            if not known:
                raise
            return known, error
        return apps, None

    def _answered(self) -> list[App]:
        """The apps that answered before and are still selected; their names are not stored."""
        selection = self._account.apps
        known = {
            item.source.app_id: App(item.source.app_id, item.bundle_id, "")
            for item in self._state.answered()
            if item.source.account == self._account.name
            and selection.selects(item.source.app_id, item.bundle_id)
        }
        return sorted(known.values(), key=lambda app: app.bundle_id)

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
        wanted = {app.id for app in listed if not app.bundle_id or selection.selects(app.id, app.bundle_id)}
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

    def _ask(self, apps: list[App], intake: Intake, report: CycleReport) -> None:
        """Work through the agenda; what the budget does not suffice for waits, and is named."""
        now = self._clock()
        past = self._state.past(self._account.name)
        known = self._known_steps(apps)
        self._tell(plan(known, past, now, self._quota.allowance(now)))
        agenda, budget = Agenda(past, now), self._quota.allowance(now)
        agenda.add(known)
        waiting, error = self._work(agenda, budget, intake, report)
        self._defer(waiting, report, budget, error)

    def _work(
        self, agenda: Agenda, budget: int, intake: Intake, report: CycleReport
    ) -> tuple[list[Step], AppStoreError | None]:
        """Do one step after the other; gives what has to wait, and why if not for the budget.

        A step that costs more than the whole budget is set aside: it would block the others poll after poll.
        So is what is left of a kind of which App Store Connect failed to answer two in a row; after four of
        any kinds the poll ends.
        """
        aside: list[Step] = []
        outages = _Outages()
        metrics_to_come = report.apps
        while (step := self._as_it_is_now(agenda.pop())) is not None:
            if step.what == "metrics":
                metrics_to_come -= 1
            elif metrics_to_come == 0:
                self._metrics_stored()
                metrics_to_come = -1  # told
            possible, _ = step.split(budget)
            if possible is None or outages.has_enough_of(step.what):
                aside.append(step)
                continue
            doable, later = step.split(self._quota.allowance(self._clock()))
            if doable is None:
                return [*aside, step, *agenda.rest()], None
            error = self._attempt(doable, agenda, intake, report)
            if isinstance(error, OverBudget):
                return [*aside, step, *agenda.rest()], error
            if isinstance(error, RateLimited) or outages.end_the_poll(step.what, error):
                return [*aside, *agenda.rest()], error
            if later is not None:
                return [*aside, later, *agenda.rest()], None
        return aside, outages.last

    def _attempt(
        self, step: Step, agenda: Agenda, intake: Intake, report: CycleReport
    ) -> AppStoreError | None:
        """Do a step, and put what it brings up on the agenda; gives the error that ended it.

        An error is a failure of the poll, but for OverBudget.

        Raises:
            CredentialsRefused, AgreementMissing: no other step would fare better.
        """
        try:
            agenda.add(self._do(step, intake, report))
        except (CredentialsRefused, AgreementMissing):
            raise
        except OverBudget as error:
            return error
        except AppStoreError as error:
            report.failures.append(error)
            if isinstance(error, Unavailable):
                self._state.failed(self._account.name, step.key)
            return error
        finally:
            if step.what == "signatures":  # also of those that came before an error
                agenda.add(self._log_steps(step.app))
        return None

    def _as_it_is_now(self, step: Step | None) -> Step | None:
        """A step on an app's signatures is about the builds that are held by the time it is done."""
        if step is None or step.what != "signatures":
            return step
        return next(iter(self._signature_steps(step.app)), replace(step, builds=(), cost=0))

    # What there is to ask for

    @property
    def _wants_builds(self) -> bool:
        return bool(self._settings.collect.builds or self._settings.diagnostics.versions)

    def _known_steps(self, apps: Iterable[App]) -> list[Step]:
        """All that can be told before anything is asked, from what the last poll left behind."""
        past, now = self._state.past(self._account.name), self._clock()
        steps: list[Step] = []
        for app in apps:
            steps.append(Step("metrics", app))
            if self._settings.diagnostics.versions:
                overview = Step("overview", app)
                if is_offered(past.get(overview.key, NOTHING), now):
                    steps.append(overview)
                steps += self._signature_steps(app)
                steps += self._log_steps(app)
            if self._wants_builds:
                listing = Step("builds", app)
                steps.append(replace(listing, cost=past.get(listing.key, NOTHING).cost))
                steps += self._build_metrics_steps(app)
        return steps

    def _build_metrics_steps(self, app: App) -> list[Step]:
        builds = self._diagnostics.builds(self._account.name, app.id, "metrics")
        return [Step("build_metrics", app, builds=(build,), age=age) for age, build in enumerate(builds)]

    def _signature_steps(self, app: App) -> list[Step]:
        """One for all builds that are held, of which those come first that were asked about longest ago, or
        never: so that each gets its turn where the budget does not suffice for all, or some do not answer."""
        past = self._state.past(self._account.name)
        held = self._diagnostics.builds(self._account.name, app.id)
        ages = _ages(held)

        def turn(build: Build) -> tuple[float, int]:
            return past.get(Key(app.id, "signatures", build.id), NOTHING).asked_at or 0.0, ages[build.id]

        builds = tuple(sorted(held, key=turn))
        return [Step("signatures", app, cost=len(builds), builds=builds)] if builds else []

    def _log_steps(self, app: App) -> list[Step]:
        """One for each signature whose logs are not those of its present weight."""
        if not self._settings.diagnostics.logs:
            return []
        builds = self._diagnostics.builds(self._account.name, app.id)
        signatures = self._diagnostics.signatures(self._account.name, app.id)
        past, now = self._state.past(self._account.name), self._clock()
        ages = _ages(builds)
        by_id = {build.id: build for build in builds}
        percent = any((item.weight or 0.0) > 1.0 for item in signatures)  # the account's scale is 0 to 100
        steps = (
            Step(
                "logs",
                app,
                builds=(by_id[item.build_id],),
                signature=item.id,
                weight=(item.weight or 0.0) / (100.0 if percent else 1.0),
                age=ages[item.build_id],
            )
            for item in sorted(signatures, key=lambda item: ages.get(item.build_id, 0))
            if item.pending and item.build_id in by_id
        )  # the newest build's first: should another have the same signature, it is asked for once
        return [step for step in steps if is_offered(past.get(step.key, NOTHING), now)]

    # Asking

    def _do(self, step: Step, intake: Intake, report: CycleReport) -> list[Step]:
        """Ask for one thing and take it in; gives the steps that this brings up."""
        app = step.app
        self._state.asked(self._account.name, step.key, self._clock())
        if step.what == "metrics":
            intake.metrics(app, None, self._client.metrics("apps", app.id))
        elif step.what == "overview":
            self._ask_overview(step, intake)
        elif step.what == "builds":
            self._discover(app)
            return [*self._signature_steps(app), *self._build_metrics_steps(app)]
        elif step.what == "signatures":
            self._ask_signatures(step, intake, report)
        elif step.what == "logs":
            self._ask_logs(step, intake)
        else:
            self._ask_build_metrics(step, intake)
        return []

    def _discover(self, app: App) -> None:
        """List the builds of an app, and remember whose signatures and whose metrics to collect.

        A listing without any that can be told apart forgets none: App Store Connect deletes no build.
        """
        wanted, versions = self._settings.collect.builds, self._settings.diagnostics.versions
        testflight = self._settings.diagnostics.testflight
        held_for = {
            build.platform
            for kind in _HELD_FOR
            for build in self._diagnostics.builds(self._account.name, app.id, kind)
        }
        pages = 0

        def enough(found: Sequence[Build]) -> bool:
            nonlocal pages
            pages += 1
            # A platform that is seldom uploaded for may begin on a later page.
            return (
                (pages > 1 if not held_for else held_for <= {build.platform for build in found})
                and sum(not build.expired for build in found) >= wanted
                and complete(found, versions=versions, testflight=testflight)
            )

        try:
            listed = self._client.builds(app.id, enough=enough)
        except AppStoreError:  # it takes more than what came: the page that failed, or had no room, too
            self._state.took(self._account.name, Step("builds", app).key, pages + 1)
            raise
        self._state.took(self._account.name, Step("builds", app).key, pages)
        if not any(build.version and build.platform for build in listed) and self._holds_builds(app):
            raise BadAnswer(
                "the listing has no build with version and platform any more",
                remedy="What is stored of the app's builds stays; the next poll asks again.",
                where=f"account {self._account.name}, {app.bundle_id}",
            )
        held = newest_versions(listed, versions=versions, testflight=testflight)
        at = int(self._clock() * _SECOND)
        self._diagnostics.hold_builds(self._account.name, app.id, "signatures", held, at)
        newest = [build for build in listed if not build.expired][:wanted]
        self._diagnostics.hold_builds(self._account.name, app.id, "metrics", newest, at)

    def _holds_builds(self, app: App) -> bool:
        return any(self._diagnostics.builds(self._account.name, app.id, kind) for kind in _HELD_FOR)

    def _ask_overview(self, step: Step, intake: Intake) -> None:
        try:
            intake.overview(step.app, self._client.overview(step.app.id))
        except (NotFound, NotOffered) as error:  # an account or proxy without API 4.5
            self._state.refused(self._account.name, step.key, self._clock())
            intake.no_overview(step.app)
            self._log.info(
                "cycle.no_overview",
                account=self._account.name,
                app=step.app.bundle_id,
                reason=error.what,
                note="asked for again tomorrow; everything else is collected",
            )

    def _ask_signatures(self, step: Step, intake: Intake, report: CycleReport) -> None:
        """Those of each build; what came is taken in, also when an error ends it before the last one."""
        answers: dict[str, list[Answer]] = {}
        asked: list[str] = []
        unavailable = 0
        try:
            for build in step.builds:
                asked.append(build.id)
                try:
                    answers[build.id] = self._client.signatures(build.id)
                    unavailable = 0
                except NotFound:  # a build without signatures
                    answers[build.id] = [Answer(b"", self._clock(), {"data": []})]
                    unavailable = 0
                except (BadAnswer, RoleTooSmall, Unavailable) as error:  # others speak of the account
                    unavailable = unavailable + 1 if isinstance(error, Unavailable) else 0
                    if unavailable == min(_UNAVAILABLE_IN_A_ROW, len(step.builds)):
                        raise
                    report.failures.append(error)
        finally:
            for build_id in asked:
                self._state.asked(self._account.name, Key(step.app.id, "signatures", build_id), self._clock())
            intake.signatures(step.app, answers)

    def _ask_logs(self, step: Step, intake: Intake) -> None:
        where = self._account.name, step.app.id
        held = {build.id: build for build in self._diagnostics.builds(*where)}
        pending = [
            item
            for item in self._diagnostics.signatures(*where)
            if item.pending and item.id == step.signature and item.build_id in held
        ]
        if not pending:
            return  # it went meanwhile
        wanted = step.builds[0].id  # should several builds have it, its logs are the same
        signature = next((item for item in pending if item.build_id == wanted), pending[0])
        try:
            intake.logs(step.app, held[signature.build_id], signature, self._client.logs(signature.id))
        except NotFound:
            self._diagnostics.no_logs(*where, signature.id)
        except (BadAnswer, RoleTooSmall, NotOffered):  # tomorrow again: not at each poll
            self._state.refused(self._account.name, step.key, self._clock())
            raise

    def _ask_build_metrics(self, step: Step, intake: Intake) -> None:
        (build,) = step.builds
        held = self._diagnostics.builds(self._account.name, step.app.id, "metrics")
        if build.id not in {item.id for item in held}:
            return  # a newer one has taken its place meanwhile
        with suppress(NotFound):  # a build that nobody used yet has no metrics
            intake.metrics(step.app, build, self._client.metrics("builds", build.id))

    # Telling

    def _tell(self, planned: Plan) -> None:
        self._log.debug(
            "cycle.plan",
            account=self._account.name,
            requests=planned.cost,
            steps=dict(Counter(step.what for step in planned.steps)),
            too_many=dict(Counter(step.what for step in planned.deferred)),
        )

    def _defer(
        self, steps: list[Step], report: CycleReport, budget: int, error: AppStoreError | None = None
    ) -> None:
        report.deferred += steps
        past, now = self._state.past(self._account.name), self._clock()
        self._state.deferred(self._account.name, [step.key for step in steps], now)
        if steps:
            self._log.warning(
                "cycle.deferred",
                account=self._account.name,
                of=dict(Counter(step.what for step in steps)),
                waits_for_next_poll=_by_app(steps),
                oldest_wait_hours=_oldest_wait(steps, past, now),
                allowance=budget,
                next_poll=self._next_poll(),
                reason=str(error or "limits.key_share"),
            )


def _by_app(steps: Iterable[Step]) -> dict[str, dict[str, int]]:
    """Bundle id → kind → how many steps."""
    found: dict[str, Counter[str]] = {}
    for step in steps:
        found.setdefault(step.app.bundle_id, Counter())[step.what] += 1
    return {app: dict(kinds) for app, kinds in found.items()}


def _oldest_wait(steps: Iterable[Step], past: Mapping[Key, Past], now: float) -> float | None:
    """For how many hours the first of them has waited; None if each was put off for the first time."""
    since = [past.get(step.key, NOTHING).waits_since for step in steps]
    waits = [now - start for start in since if start is not None]
    return round(max(0.0, *waits) / 3600, 1) if waits else None


class _Outages:
    """Counts requests that App Store Connect did not answer: in a row of each kind, and of any kinds."""

    def __init__(self) -> None:
        self._of = Counter[What]()
        self._of_any = 0
        self.last: Unavailable | None = None

    def has_enough_of(self, what: What) -> bool:
        """Whether to leave a kind of step for the next poll."""
        return self._of[what] >= _UNAVAILABLE_IN_A_ROW

    def end_the_poll(self, what: What, error: AppStoreError | None) -> bool:
        """Take note of what became of a step; gives whether to leave all that is left for the next poll."""
        if not isinstance(error, Unavailable):
            self._of[what] = self._of_any = 0
            return False
        self._of[what] += 1
        self._of_any += 1
        self.last = error
        return self._of_any >= _UNAVAILABLE_OF_ANY_KIND


def _ages(builds: Iterable[Build]) -> dict[str, int]:
    """Build id → 0 for the newest of its platform, 1 for the one before, and so on."""
    met: Counter[str] = Counter()
    ages = {}
    for build in builds:
        ages[build.id] = met[build.platform]
        met[build.platform] += 1
    return ages
