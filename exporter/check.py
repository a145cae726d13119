"""`check` and `once --dry-run`: what would happen, without writing or pushing anything."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from exporter.appstore.plan import Step
from exporter.appstore.quota import Quota
from exporter.convert.catalogue import DIAGNOSTIC_METRICS, INSIGHT_METRICS
from exporter.cycle import Outlook
from exporter.errors import AppStoreError
from exporter.otlp.encode import Body
from exporter.otlp.passed_on import what_to_do
from exporter.otlp.sink import NO_EVENTS, Outcome, Sink
from exporter.report import CycleReport
from exporter.service import Exporter
from exporter.settings import Account, Settings
from exporter.state import State, recent_requests, unreadable
from exporter.state.diagnostics import Diagnostics

_NOTHING = Body(b"", 0)  # an ExportMetricsServiceRequest without metrics: valid, and it adds nothing
_NO_EVENT = Body(b"", 0, "logs")
_MARKS = {True: "✓", False: "✗", None: "–"}
# Insights and diagnostics come whatever the filters of the metrics let through.
_NO_METRICS = {metric.name for metric in (*INSIGHT_METRICS, *DIAGNOSTIC_METRICS)}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `check`; `good` is None for a number that proves nothing, such as after a failure."""

    good: bool | None
    text: str

    def __str__(self) -> str:
        return f"{_MARKS[self.good]} {self.text}"


def rehearse(settings: Settings, sink: Sink, log: Any) -> Exporter:
    """An exporter that remembers nothing: its state is in memory, its own metrics go nowhere.

    It keeps to the key's share all the same: what the real one used in the last hour counts.
    """
    used = partial(recent_requests, settings.state.path, since=time.time() - 3600)
    return Exporter(settings, State(None), sink, log=log, own_metrics=False, used=used)


def planned(settings: Settings, sink: Sink, log: Any) -> Iterator[str]:
    """Lines with what a poll would ask for now, in its order, and what the key's hour leaves for it.

    Costs what listing the apps and their builds costs; works beside a running exporter, on a copy of its
    state. Where our share does not suffice for the listing, the lines say so, and show what the state knows.
    What one account's poll is going to take is no longer there for the next one with the same key.

    Raises:
        AppStoreError: after all lines, if an account or one of its apps could not be listed.
    """
    with (
        closing(State(None, copy_of=settings.state.path)) as state,
        closing(Exporter(settings, state, sink, log=log, own_metrics=False)) as exporter,
    ):
        taken: Counter[str] = Counter()  # by key
        failures: list[AppStoreError] = []
        for account in settings.accounts:
            key_id = account.key_id
            try:
                outlook = exporter.plan(account.name, taken[key_id])
            except AppStoreError as error:
                failures.append(error)
                continue
            failures += outlook.failures
            yield from _outlook(account.name, outlook, exporter.quotas[key_id], taken[key_id])
            taken[key_id] += outlook.plan.cost
    yield from map(str, failures[1:])
    if failures:
        raise failures[0]


def _outlook(account: str, outlook: Outlook, quota: Quota, taken: int) -> Iterator[str]:
    plan = outlook.plan
    total = plan.cost + sum(step.cost for step in plan.deferred)
    if outlook.refused:
        yield f"account {account}: nothing can be asked now: {outlook.refused.what}. {outlook.refused.remedy}"
        yield f"  From what earlier polls stored, at least {total} requests wait:"
    else:
        yield (
            f"account {account}: {plan.cost} of at least {total} requests fit; the key has "
            f"{quota.remaining} of {quota.limit} left this hour, and our share leaves {outlook.allowance}"
            + (f", without the {taken} of accounts above with the same key" if taken else "")
        )
    yield f"  {'':>4}  {'what':<14} {'requests':>8}  app"
    for fits, steps in (("", plan.steps), ("wait", plan.deferred)):
        for step in steps:
            yield f"  {fits:>4}  {step.what:<14} {step.cost:>8}  {_about(step)}"
    yield "  The list of apps comes first and costs one. One follows for the logs of each signature"
    yield "  that turns out to be new, or of another weight than when its logs were read."
    if outlook.listing:
        yield f"  The listing for this plan took {outlook.listing}, which are off our share here. A poll"
        yield "  takes them for somebody else's, so up to as many more may fit into it."


def _about(step: Step) -> str:
    builds = ", ".join(f"{build.platform} {build.version} ({build.number})" for build in step.builds)
    signature = f"signature {step.signature}, weight {step.weight:g}" if step.signature else ""
    return "  ".join(text for text in (step.app.bundle_id, builds, signature) if text)


def check(settings: Settings, sink: Sink, log: Any) -> Iterator[Finding]:
    """Look at everything that a run needs, in the order in which it would fail.

    Asks App Store Connect what a poll would ask but for the logs, to see with which series it would end;
    sends the endpoint an empty request, and one for events if they are collected.
    """
    accounts = ", ".join(account.name for account in settings.accounts)
    yield Finding(True, f"configuration: {len(settings.accounts)} account(s): {accounts}")
    yield _state(settings.state.path)
    yield _endpoint(settings, sink)
    if settings.collect.events and settings.otlp.protocol not in ("console", "file"):
        yield _endpoint_for_events(settings, sink)
    diagnostics = settings.diagnostics.model_copy(update={"logs": False})  # a request for each signature
    exporter = rehearse(settings.model_copy(update={"diagnostics": diagnostics}), sink, log)
    with closing(exporter.state), closing(exporter):
        for account in settings.accounts:
            yield from _account(exporter, account, logs=settings.diagnostics.logs)
    if settings.diagnostics.logs and settings.diagnostics.versions:
        yield Finding(
            True, "logs of diagnostics: not asked for; `once --dry-run` counts their histograms too"
        )


def _account(exporter: Exporter, account: Account, *, logs: bool) -> Iterator[Finding]:
    report = exporter.poll(account.name)
    assert report is not None  # noqa: S101  # only a process that is ending has none
    for error in report.failures:
        yield Finding(False, str(error))
    if report.answers:
        yield Finding(True, f"account {account.name}: the key is good; {report.apps} app(s) selected")
    quota = exporter.quotas[account.key_id]
    share = int(exporter.settings.limits.key_share * quota.limit)
    if quota.remaining is not None:
        cost = f"one poll costs {report.requests}{_more_for_logs(exporter, account) if logs else ''}"
        yield Finding(
            None if report.failures else not report.deferred,
            f"account {account.name}: rate limit {quota.limit} an hour, {quota.remaining} left, our share "
            f"{share}; "
            + (f"this poll made {report.requests} requests" if report.failures else cost)
            + (f"; put off: {_kinds(report.deferred)}" if report.deferred else ""),
        )
    if report.answers:
        yield _series(report, exporter.settings.limits.series_per_app)


def _kinds(steps: Iterable[Step]) -> str:
    counts = Counter(step.what.replace("_", " ") for step in steps)
    return ", ".join(f"{kind} ({count})" for kind, count in counts.items())


def _more_for_logs(exporter: Exporter, account: Account) -> str:
    """The logs of signatures that the rehearsal found, as far as a poll would ask for them."""
    apps = {item.source.app_id for item in exporter.state.answered() if item.source.account == account.name}
    found = Diagnostics(exporter.state)
    pending = {(app, item.id) for app in apps for item in found.signatures(account.name, app) if item.pending}
    return f", and up to {len(pending)} more for the logs of signatures that are new" if pending else ""


def _series(report: CycleReport, cap: int) -> Finding:
    if not report.series.keys() - _NO_METRICS and report.left_out["filtered"]:
        remedy = "Check collect.categories and collect.devices."
        return Finding(
            False,
            f"account {report.account}: no series of metrics, all {report.left_out['filtered']} "
            f"values are filtered out. {remedy}",
        )
    lines = [f"account {report.account}: {report.series.total()} series"]
    lines += [f"    {count:>7}  {app}" for app, count in sorted(report.series_by_app.items())]
    if report.capped:
        lines.append(
            f"  {report.capped.total()} more would be, but for limits.series_per_app ({cap}): raise it, or "
            "choose less in collect"
        )
    return Finding(True, "\n".join([*lines, "  by metric:", *series_table(report.series, report.capped)]))


def series_table(series: Counter[str], capped: Counter[str]) -> list[str]:
    """Lines with the number of series by metric, and how many more the cap held back."""
    return [
        f"    {series[name]:>7}  {name}" + (f"  (+{capped[name]} left out)" if capped[name] else "")
        for name in sorted(series | capped)
    ]


def _state(path: Path) -> Finding:
    if not _is_writable(path):
        remedy = (
            "Choose another state.path (PERFPOWER_STATE), or give the exporter's user the right to write."
        )
        return Finding(False, f"state: {path} cannot be written. {remedy}")
    if problem := unreadable(path):
        remedy = "Move the file away: the next poll fills a new one."
        return Finding(False, f"state: {path} is no state file ({problem}). {remedy}")
    return Finding(True, f"state: {path}" + ("" if path.exists() else " (will be made)"))


def _is_writable(path: Path) -> bool:
    """Whether a file could be written there, as far as one can tell without doing it."""
    if path.exists():
        return path.is_file() and os.access(path, os.R_OK | os.W_OK)
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _endpoint(settings: Settings, sink: Sink) -> Finding:
    where = settings.otlp.destination
    if settings.otlp.protocol == "file" and not _is_writable(settings.otlp.file):
        return Finding(False, f"endpoint: {where} cannot be written. Choose another otlp.file.")
    if settings.otlp.protocol in ("console", "file"):
        return Finding(True, f"endpoint: {where}")
    reply = sink.send(_NOTHING)
    if reply.outcome is Outcome.ACCEPTED:
        return Finding(True, f"endpoint: {where}; a backend behind it is first asked at a delivery")
    return Finding(False, f"endpoint: {where}: {reply.message}. {what_to_do(reply.message)}")


def _endpoint_for_events(settings: Settings, sink: Sink) -> Finding:
    where = re.sub(r"[?#].*", "", settings.otlp.logs_url)  # a query may hold a token
    reply = sink.send(_NO_EVENT)
    if reply.outcome is Outcome.ACCEPTED:
        return Finding(True, f"endpoint for events: {where}")
    remedy = f"; {NO_EVENTS}" if reply.unknown_signal else ""
    return Finding(False, f"endpoint for events: {where}: {reply.message}{remedy}")
