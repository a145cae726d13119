"""The parts put together: what `run` and `once` have in common, and the daemon.

`Exporter` holds the parts and does one thing at a time when told: poll an account, deliver what is stored.
`run` tells it when.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from types import FrameType
from typing import Any

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent
from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from exporter.appstore.auth import TokenAuth, load_private_key
from exporter.appstore.client import AppStoreClient, Sent
from exporter.appstore.quota import Quota
from exporter.cycle import Cycle, Outlook
from exporter.deliver import Deliverer, Delivery
from exporter.endpoint import open_sdk_exporter
from exporter.errors import ExporterError
from exporter.health import HealthServer
from exporter.otlp.sink import Sink
from exporter.report import CycleReport
from exporter.selfmetrics import SelfMetrics
from exporter.settings import Account, Schedule, Settings
from exporter.state import Answered, Source, State
from exporter.status import Status

DRAIN = 8.0  # seconds after SIGTERM; Docker kills after ten


class Stopping(ExporterError):
    """A poll was broken off because the process is ending; what it had stored stays."""

    reason = "stopping"


class Exporter:
    """One exporter: its accounts, its state, its endpoint.

    Args:
        stop: set when the process is to end; waits end then, and polls are broken off.
        used: how many requests a key made in the last hour, for a state that does not know it.

    Raises:
        ConfigError: a private key cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        state: State,
        sink: Sink,
        *,
        log: Any,
        own_metrics: bool = True,
        stop: threading.Event | None = None,
        used: Callable[[str], Iterable[float]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.state = state
        self.status = Status(settings, state, clock)
        self._log = log
        self._clock = clock
        self._stop = stop or threading.Event()
        self._used = used or (lambda key_id: state.requests(key_id, clock() - 3600))
        self.quotas: dict[str, Quota] = {}
        self.clients: dict[str, AppStoreClient] = {}
        self._cycles = {account.name: self._cycle(account) for account in settings.accounts}
        self._deliverer = Deliverer(state, sink, clock=clock, sleep=self._stop.wait, log=log)
        self._sink = sink
        self.metrics_stored: Callable[[], None] = lambda: None  # `run` sends them while the poll goes on
        self.next_poll: Callable[[str], str | None] = lambda _account: None  # `run` has a schedule
        self._metrics = SelfMetrics(
            open_sdk_exporter(settings.otlp) if own_metrics else None,
            settings.schedule.heartbeat,
            {
                "rate_limit.limit": lambda: self._quota_gauge(lambda quota: quota.limit),
                "rate_limit.remaining": lambda: self._quota_gauge(lambda quota: quota.remaining),
                "rate_limit.used": lambda: self._quota_gauge(lambda quota: quota.used(clock())),
                "polls.failed_in_a_row": self.status.failed_in_a_row,
                "key.refused": self.status.key_refused,
                "data.age": self.status.data_age,
                "outbox.depth": lambda: [(state.outbox_depth(), {})],
                "delivery.duration": self.status.delivery_duration,
            },
            {account.name: account.environment for account in settings.accounts},
        )
        state.keep_only(self._is_wanted)

    def close(self) -> None:
        """Send the exporter's own last metrics, then let go of everything but the state."""
        self._metrics.close()
        for client in self.clients.values():
            client.close()
        self._sink.close()

    def plan(self, name: str, reserved: int = 0) -> Outlook:
        """What a poll of an account would ask for now; see `Cycle.plan`."""
        return self._cycles[name].plan(reserved)

    def poll(self, name: str) -> CycleReport | None:
        """Poll one account. None when the process is ending."""
        try:
            report = self._cycles[name].poll()
        except Stopping:
            return None
        self._metrics.polled(report)
        self._log_cycle(report)
        if report.answers or report.outcome != "failed":  # what still fails is not worth a poll each restart
            self.state.finish_run(name, self._clock(), settings_digest(self.settings))
        self.status.polled(report)  # at last: a poll that breaks off is told of by `_logged`
        return report

    def deliver(self, *, news: bool = True) -> Delivery:
        """Send what is owed, and the newest gauges; `news` says whether that is worth a line in the log."""
        before = self.status.delivery
        delivery = self._deliverer.deliver()
        self.status.delivered(delivery)
        self._metrics.delivered(delivery)
        changed = before is None or before.outcome != delivery.outcome
        self._log_delivery(delivery, news=bool(delivery.requests) and (news or changed))
        return delivery

    def poll_and_deliver(self, name: str) -> None:
        """What the schedule does; an error of ours does not end the schedule."""
        report = None
        with self._logged(name):
            report = self.poll(name)
        if report:
            with self._logged(""):
                self.deliver()

    def heartbeat(self) -> None:
        """What the schedule does between polls."""
        self.status.beat()
        with self._logged(""):
            self.deliver(news=False)

    def skipped(self, event: JobSubmissionEvent) -> None:
        """What the schedule tells when a job is due whose last run goes on."""
        kind, _, account = event.job_id.partition(" ")
        if kind == "poll":
            self._log.warning("cycle.still_running", account=account, next_poll=self.next_poll(account))
        else:
            self._log.warning("heartbeat.still_running")

    @contextmanager
    def _logged(self, account: str) -> Iterator[None]:
        """Tells and counts what goes wrong in a poll of an account or, without one, in a heartbeat."""
        job = f"poll {account}" if account else "heartbeat"
        try:
            yield
        except ExporterError as error:
            self._broke(error, job, account, error.reason)
            fields = {"account": account or None, "reason": error.reason, "error": str(error)}
            self._log.error("poll.failed" if account else "heartbeat.failed", **fields)
        except Exception as error:  # noqa: BLE001  # a bug must not end the schedule; it is logged whole
            self._broke(error, job, account, "bug")
            fields = {"account": account or None, "reason": "bug"}
            self._log.exception("poll.failed" if account else "heartbeat.failed", **fields)

    def _broke(self, error: Exception, job: str, account: str, reason: str) -> None:
        self.status.broken(error, job)
        self._metrics.failed(account, reason)
        if account:
            self.status.poll_broke(account, reason)

    def _cycle(self, account: Account) -> Cycle:
        quota = self.quotas.get(account.key_id)
        if quota is None:
            quota = self.quotas[account.key_id] = Quota(
                self.settings.limits.key_share,
                self._used(account.key_id),
                partial(self.state.add_request, account.key_id),
            )
        where = f"account {account.name}"
        client = AppStoreClient(
            base_url=account.base_url,
            auth=TokenAuth(
                key_id=account.key_id,
                issuer_id=account.issuer_id,
                private_key=load_private_key(account.private_key_text(), where),
                scoped=account.restrict_token,
                clock=self._clock,
            ),
            quota=quota,
            where=where,
            max_response_bytes=self.settings.limits.response_size,
            observe=partial(self._observe, account.name),
            clock=self._clock,
            sleep=self._sleep,
        )
        self.clients[account.name] = client
        return Cycle(
            account,
            self.settings,
            client,
            quota,
            self.state,
            clock=self._clock,
            log=self._log,
            metrics_stored=lambda: self.metrics_stored(),
            next_poll=lambda: self.next_poll(account.name),
        )

    def _observe(self, account: str, sent: Sent) -> None:
        self._metrics.request(account, sent.endpoint, sent.status)

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopping("the exporter is ending")

    def _is_wanted(self, answered: Answered) -> bool:
        """Whether the configuration still asks for what is stored."""
        return any(
            account.name == answered.source.account
            and account.apps.selects(answered.source.app_id, answered.bundle_id)
            and self._is_collected(answered.source)
            for account in self.settings.accounts
        )

    def _is_collected(self, source: Source) -> bool:
        if source.kind != "metrics":
            return bool(self.settings.diagnostics.versions)
        return bool(self.settings.collect.builds) or not source.build_id

    def _quota_gauge(self, number: Callable[[Quota], int | None]) -> Iterator[tuple[float, dict[str, str]]]:
        for account in self.settings.accounts:
            value = number(self.quotas[account.key_id])
            if value is not None:
                yield value, {"account": account.name}

    def _log_cycle(self, report: CycleReport) -> None:
        for error in report.failures:
            self._log.error("poll.failed", account=report.account, reason=error.reason, error=str(error))
        for unit in sorted(self.status.new_units(report)):
            self._log.warning("poll.unknown_unit", unit=unit, note="values pass through unscaled")
        fields = {
            "account": report.account,
            "outcome": report.outcome,
            "apps": report.apps,
            "requests": report.requests,
            "answers": report.answers,
            "unchanged": report.unchanged,
            "points": report.points,
            "distributions": report.distributions,
            "events": report.events,
            "series": report.series.total(),
            "left_out": dict(report.left_out),
            "deferred": len(report.deferred),
            "failures": len(report.failures),
            "seconds": round(report.seconds, 2),
        }
        if report.outcome == "ok":
            self._log.info("poll", **fields)
        else:
            self._log.warning("poll", **fields)

    def _log_delivery(self, delivery: Delivery, news: bool) -> None:
        """A heartbeat that went as the one before it is not worth a line, unless someone debugs."""
        fields = {
            "outcome": delivery.outcome,
            "accepted": delivery.accepted,
            "rejected": delivery.rejected,
            "given_up": delivery.given_up,
            "events": delivery.events_accepted,
            "events_rejected": delivery.events_rejected or None,
            "owed": delivery.owed,
            "requests": delivery.requests,
            "endpoint": self.settings.otlp.destination if delivery.problem else None,
            "endpoint_says": delivery.problem or None,
            "seconds": round(delivery.seconds, 2),
        }
        if delivery.outcome != "ok":
            self._log.warning("delivery", **fields)
        elif news:
            self._log.info("delivery", **fields)
        else:
            self._log.debug("delivery", **fields)


def once(exporter: Exporter) -> int:
    """One poll of each account and one delivery; 0, or 1 if something failed (the rest was delivered)."""
    reports = [exporter.poll(account.name) for account in exporter.settings.accounts]
    delivery = exporter.deliver()
    failed = any(report is None or report.outcome == "failed" for report in reports)
    return 1 if failed or delivery.outcome != "ok" else 0


def run(exporter: Exporter, stop: threading.Event, log: Any) -> None:
    """The daemon: polls on the cron schedule, re-sends at each heartbeat, until `stop` is set.

    What is stored from before a restart is delivered at once. Apple is asked at the start only if a planned
    poll was missed, the configuration changed, or there is nothing yet.
    """
    settings = exporter.settings
    schedule = settings.schedule
    health = HealthServer(settings.http.address, exporter.status) if settings.http.address else None
    scheduler = _scheduler(exporter)
    try:
        scheduler.start()
        heartbeat = scheduler.get_job("heartbeat")
        exporter.metrics_stored = partial(_at_once, heartbeat)
        exporter.next_poll = partial(_next_poll, scheduler)
        for account in settings.accounts:
            log.info("scheduled", account=account.name, next_poll=exporter.next_poll(account.name))
        log.info(
            "started",
            heartbeat_seconds=schedule.heartbeat,
            endpoint=settings.otlp.destination,
            health=health.url if health else None,
        )
        stop.wait()
        log.info("stopping", owed=exporter.state.outbox_depth())
    finally:
        _drain(exporter, scheduler, log)
        if health:
            health.close()


class _DaemonThreads(BaseExecutor):  # type: ignore[misc]  # apscheduler has no types
    """A thread for each job, which the process does not wait for at its end.

    The pool that comes with APScheduler keeps a process from ending until the last answer has come.
    """

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> None:
        threading.Thread(target=self._run, args=(job, run_times), daemon=True).start()

    def _run(self, job: Any, run_times: list[datetime]) -> None:
        try:
            events = run_job(job, job._jobstore_alias, run_times, self._logger.name)
        except BaseException as error:  # noqa: BLE001  # the scheduler has to know that the job is over
            self._run_job_error(job.id, error, error.__traceback__)
        else:
            self._run_job_success(job.id, events)


def _scheduler(exporter: Exporter) -> BackgroundScheduler:
    settings = exporter.settings
    now = datetime.now(UTC)
    scheduler = BackgroundScheduler(
        executors={"default": _DaemonThreads()},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        timezone=UTC,
    )
    scheduler.add_listener(exporter.skipped, EVENT_JOB_MAX_INSTANCES)
    scheduler.add_job(
        exporter.heartbeat, "interval", seconds=settings.schedule.heartbeat, id="heartbeat", next_run_time=now
    )
    for account in settings.accounts:
        trigger = cron_trigger(settings.schedule)
        due = settings.schedule.poll_at_start and poll_is_due(
            exporter.state.last_run(account.name),
            settings_digest(settings),
            settings.schedule,
            now.timestamp(),
        )
        first = {"next_run_time": now} if due else {}
        scheduler.add_job(
            exporter.poll_and_deliver, trigger, [account.name], id=f"poll {account.name}", **first
        )
    return scheduler


def _next_poll(scheduler: BackgroundScheduler, account: str) -> str | None:
    """When an account is polled next, in ISO 8601; None once the schedule has ended."""
    job = scheduler.get_job(f"poll {account}")
    return job.next_run_time.isoformat(timespec="seconds") if job and job.next_run_time else None


def _at_once(job: Any) -> None:
    """Bring a job forward, unless the schedule has ended meanwhile."""
    with suppress(JobLookupError):
        job.modify(next_run_time=datetime.now(UTC))


def cron_trigger(schedule: Schedule) -> CronTrigger:
    """The cron expression of the schedule as APScheduler understands it, jitter included."""
    trigger = CronTrigger.from_crontab(schedule.poll, schedule.tzinfo)
    trigger.jitter = int(schedule.jitter) or None
    return trigger


def poll_is_due(last_run: tuple[float, bytes] | None, digest: bytes, schedule: Schedule, now: float) -> bool:
    """Whether to poll at the start: nothing yet, another configuration, or a planned poll was missed."""
    if last_run is None or last_run[1] != digest or last_run[0] > now:
        return True
    trigger = CronTrigger.from_crontab(schedule.poll, schedule.tzinfo)
    planned = trigger.get_next_fire_time(None, datetime.fromtimestamp(last_run[0], UTC))
    return planned is not None and planned.timestamp() <= now


def settings_digest(settings: Settings) -> bytes:
    """A digest of what decides about the data: accounts without their secrets, and what is collected."""
    accounts = [account.model_dump(mode="json", exclude={"private_key"}) for account in settings.accounts]
    collected = settings.collect, settings.diagnostics, settings.regression, settings.limits.series_per_app
    text = repr((accounts, *collected))
    return hashlib.sha256(text.encode()).digest()


def _drain(exporter: Exporter, scheduler: BackgroundScheduler, log: Any) -> None:
    """One last delivery, within the deadline; what does not leave now is owed at the next start."""
    deadline = time.monotonic() + DRAIN
    scheduler.shutdown(wait=False)
    last = threading.Thread(target=exporter.heartbeat, daemon=True)
    last.start()
    last.join(DRAIN)
    if last.is_alive():
        log.warning("drain.deadline", owed=exporter.state.outbox_depth(), note="sent at the next start")
    closing = threading.Thread(target=exporter.close, daemon=True)
    closing.start()
    closing.join(max(0.5, deadline - time.monotonic()))
    log.info("stopped", owed=exporter.state.outbox_depth())


def stop_on_signals(stop: threading.Event) -> None:
    """SIGTERM and SIGINT set `stop`; the second one leaves at once."""

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
