"""One poll of one account, from the question to what is stored.

Delivery is not part of it: what a poll brings is stored in one transaction an answer, and delivered from
there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from exporter.appstore.client import Answer, AppStoreClient
from exporter.appstore.discovery import complete, newest_versions
from exporter.appstore.jsonapi import App, Build
from exporter.appstore.plan import NOTHING, Agenda, Plan, Step, is_offered, is_overdue, plan
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

_NAMED = 10  # in a line of the log; the rest is counted
_HELD_FOR: tuple[Kind, ...] = ("signatures", "metrics")
_UNAVAILABLE_IN_A_ROW = 2  # each has cost minutes of retries already; the next poll goes on with the others


class Cycle:
    """Polls one account.

    Args:
        clock: epoch seconds.
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

    def plan(self) -> Plan:
        """What a poll would ask for now. Lists the apps and their builds, and asks for nothing else.

        The logs are those that were left over; those of signatures that are new are not known before the
        signatures are listed.

        Raises:
            AppStoreError: the apps cannot be listed; the error of an app's builds.
        """
        report = CycleReport(self._account.name)
        apps = self._apps(report)
        if report.failures:
            raise report.failures[0]
        for app in apps if self._wants_builds else ():
            self._discover(app)
        past, now = self._state.past(self._account.name), self._clock()
        return plan(self._known_steps(apps), past, now, self._quota.allowance(now))

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

    def _ask(self, apps: list[App], intake: Intake, report: CycleReport) -> None:
        """Work through the agenda; what the budget does not suffice for waits, and is named."""
        now = self._clock()
        past = self._state.past(self._account.name)
        known = self._known_steps(apps)
        self._tell(plan(known, past, now, self._quota.allowance(now)))
        agenda, budget = Agenda(past, now), self._quota.allowance(now)
        agenda.add(
            step
            for step in known
            if step.what in ("metrics", "overview", "builds") or is_overdue(past.get(step.key, NOTHING), now)
        )
        aside: list[Step] = []
        rest, error = self._work(agenda, budget, aside, intake, report)
        self._defer([*aside, *rest], report, error)

    def _work(
        self, agenda: Agenda, budget: int, aside: list[Step], intake: Intake, report: CycleReport
    ) -> tuple[list[Step], AppStoreError | None]:
        """Do one step after the other; gives what is left at the end, and why if not for the budget.

        A step that costs more than the whole budget goes `aside`: it would block the others poll after poll.
        """
        unavailable, metrics_to_come = 0, report.apps
        while (step := agenda.pop()) is not None:
            if step.what == "metrics":
                metrics_to_come -= 1
            elif metrics_to_come == 0:
                self._metrics_stored()
                metrics_to_come = -1  # told
            if step.cost > budget:
                aside.append(step)
                continue
            if step.cost > self._quota.allowance(self._clock()):
                return [step, *agenda.rest()], None
            try:
                agenda.add(self._do(step, intake, report))
                unavailable = 0
            except OverBudget as error:
                return [step, *agenda.rest()], error
            except RateLimited as error:
                report.failures.append(error)
                return agenda.rest(), error
            except (CredentialsRefused, AgreementMissing):
                raise
            except AppStoreError as error:
                report.failures.append(error)
                unavailable = unavailable + 1 if isinstance(error, Unavailable) else 0
                if unavailable == _UNAVAILABLE_IN_A_ROW:
                    return agenda.rest(), error
        return [], None

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
                steps.append(Step("builds", app))
                steps += self._build_metrics_steps(app)
        return steps

    def _build_metrics_steps(self, app: App) -> list[Step]:
        builds = self._diagnostics.builds(self._account.name, app.id, "metrics")
        return [Step("build_metrics", app, builds=(build,), age=age) for age, build in enumerate(builds)]

    def _signature_steps(self, app: App) -> list[Step]:
        builds = tuple(self._diagnostics.builds(self._account.name, app.id))
        return [Step("signatures", app, cost=len(builds), builds=builds)] if builds else []

    def _log_steps(self, app: App) -> list[Step]:
        """One for each signature whose logs are not those of its present weight."""
        if not self._settings.diagnostics.logs:
            return []
        builds = self._diagnostics.builds(self._account.name, app.id)
        signatures = self._diagnostics.signatures(self._account.name, app.id)
        ages = _ages(builds)
        by_id = {build.id: build for build in builds}
        percent = any((item.weight or 0.0) > 1.0 for item in signatures)  # the account's scale is 0 to 100
        return [
            Step(
                "logs",
                app,
                builds=(by_id[item.build_id],),
                signature=item.id,
                weight=(item.weight or 0.0) / (100.0 if percent else 1.0),
                age=ages[item.build_id],
            )
            for item in signatures
            if item.pending and item.build_id in by_id
        ]

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
            return self._log_steps(app)
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
        listed = self._client.builds(
            app.id,
            enough=lambda found: (
                sum(not build.expired for build in found) >= wanted
                and complete(found, versions=versions, testflight=testflight)
            ),
        )
        if not any(build.version and build.platform for build in listed) and self._holds_builds(app):
            raise BadAnswer(
                "the listing has no build with version and platform any more",
                remedy="What is stored of the app's builds stays; the next poll asks again.",
                where=f"account {self._account.name}, {app.bundle_id}",
            )
        held = newest_versions(listed, versions=versions, testflight=testflight)
        self._diagnostics.hold_builds(self._account.name, app.id, "signatures", held)
        newest = [build for build in listed if not build.expired][:wanted]
        self._diagnostics.hold_builds(self._account.name, app.id, "metrics", newest)

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
        unavailable = 0
        try:
            for build in step.builds:
                try:
                    answers[build.id] = self._client.signatures(build.id)
                    unavailable = 0
                except NotFound:  # a build without signatures
                    answers[build.id] = [Answer(b"", self._clock(), {"data": []})]
                    unavailable = 0
                except (BadAnswer, RoleTooSmall, Unavailable) as error:  # others speak of the account
                    unavailable = unavailable + 1 if isinstance(error, Unavailable) else 0
                    if unavailable == _UNAVAILABLE_IN_A_ROW:
                        raise
                    report.failures.append(error)
        finally:
            intake.signatures(step.app, answers)

    def _ask_logs(self, step: Step, intake: Intake) -> None:
        where = self._account.name, step.app.id
        signature = next(
            (item for item in self._diagnostics.signatures(*where) if item.id == step.signature), None
        )
        if signature is None or not signature.pending:
            return  # it went meanwhile, or two builds have it
        try:
            intake.logs(step.app, step.builds[0], signature, self._client.logs(signature.id))
        except NotFound:
            self._diagnostics.no_logs(*where, signature.id)

    def _ask_build_metrics(self, step: Step, intake: Intake) -> None:
        (build,) = step.builds
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

    def _defer(self, steps: list[Step], report: CycleReport, error: AppStoreError | None = None) -> None:
        report.deferred += steps
        self._state.deferred(self._account.name, [step.key for step in steps], self._clock())
        if steps:
            self._log.warning(
                "cycle.deferred",
                account=self._account.name,
                waits_for_next_poll=[str(step) for step in steps[:_NAMED]],
                and_more=max(0, len(steps) - _NAMED),
                of=dict(Counter(step.what for step in steps)),
                reason=str(error or "limits.key_share"),
            )


def _ages(builds: Iterable[Build]) -> dict[str, int]:
    """Build id → 0 for the newest of its platform, 1 for the one before, and so on."""
    met: Counter[str] = Counter()
    ages = {}
    for build in builds:
        ages[build.id] = met[build.platform]
        met[build.platform] += 1
    return ages
