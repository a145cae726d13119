"""What is watched: the alerts, with what they tell and why they are as they are. Pure.

An alert about an app ends by data: the exporter sends an explicit 0 for every version that is not worse. One
about the pipeline watches what the exporter says of itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from exporter.assets.collector_alerts import collector_alerts
from exporter.assets.model import ENVIRONMENT, FAMILIES, SERVICE, Alert, Events, Query, of_apple, of_fixed
from exporter.convert import catalogue
from exporter.convert.catalogue import (
    APPLE_METRICS,
    DELTA,
    DIAGNOSTIC_EVENT,
    INSIGHT_DELTA,
    INSIGHT_EVENT,
    NEW_SHARE,
    OWN_ACCOUNTS,
    POOR,
    REGRESSED,
    SIGNATURE_NEW,
    SIGNATURE_WEIGHT,
    AppleMetric,
)
from exporter.convert.comparison import MIN_CHANGE

UPPER = (("percentile", "!p50"),)
"""The 90th percentile, and what has none."""
_GROUP = (SERVICE, ENVIRONMENT, "platform", "version")
_ACCOUNT = ("environment", "account")
_EXPORTER = (OWN_ACCOUNTS,)

OWN = {metric.name.removeprefix("appstore.exporter."): of_fixed(metric) for metric in catalogue.OWN_METRICS}
"""The exporter's own metrics, without their prefix."""


class Pace(NamedTuple):
    """How often the exporter does what it does, in seconds; without anything said, as by default.

    Args:
        poll: the longest time from a poll to the next.
        two_polls: the longest time from a poll to the one after the next.
        heartbeat: the time from a heartbeat to the next.
    """

    poll: float = 6 * 3600
    two_polls: float = 12 * 3600
    heartbeat: float = 240


def alerts(pace: Pace = Pace()) -> tuple[Alert, ...]:  # noqa: B008 - it cannot change
    """All of them: about apps, about the pipeline, about the Collector."""
    minutes = _three_beats(pace.heartbeat)
    of_apps = (*_of_metrics(minutes), *_of_insights(minutes), *_of_problems(minutes))
    return (*of_apps, *_of_the_pipeline(pace), *collector_alerts())


def _three_beats(heartbeat: float) -> int:
    """Minutes: three heartbeats and some slack, so that one that is late changes nothing; at least 15."""
    return max(15, 5 * math.ceil((3 * heartbeat / 60 + 3) / 5))


def alert_id(metric: AppleMetric) -> str:
    """`appstore.hang.rate` → `HangRate`, to begin the ids of its alerts with."""
    return "".join(
        part.capitalize() for part in metric.name.removeprefix("appstore.").replace(".", "_").split("_")
    )


def title_of(metric: AppleMetric) -> str:
    """`appstore.hang.rate` → `Hang rate`, `appstore.memory.peak_memory` → `Peak memory`."""
    group, words = metric.name.removeprefix("appstore.").split(".")
    text = words.replace("_", " ")
    return (text if group in text else f"{group} {text}").capitalize()


def _of_metrics(minutes: int) -> Iterator[Alert]:
    for metric in APPLE_METRICS:
        yield _regressed(metric, minutes)
    for metric in APPLE_METRICS:
        yield _poor(metric, minutes)


def _regressed(metric: AppleMetric, minutes: int) -> Alert:
    name = title_of(metric)
    return Alert(
        id=f"{alert_id(metric)}Regressed",
        title=f"{name} got worse with the newest version",
        severity="warning",
        query=Query(of_apple(metric, REGRESSED), _GROUP, (*FAMILIES, *UPPER)),
        threshold=1,
        minutes=minutes,
        change=Query(
            of_apple(metric, DELTA),
            (*_GROUP, "device"),
            (*FAMILIES, *UPPER),
            label="change against the earlier versions",
        ),
        worst=_models(metric),
        worst_by_change=True,
        meaning=(
            f"{metric.description}: at the 90th percentile of a whole family of devices the newest version is"
            " worse than the mean of the versions before it, by more than both error margins and by at least"
            f" {100 * MIN_CHANGE:g} % (unless `regression.min_change` says otherwise). It ends below half of"
            " both."
        ),
        first=(
            "Does the newest version stand out, or did each one lie a little above the one before? Then it "
            "creeps up, and this release is not to blame alone. Do several device models and the 50th "
            "percentile agree, and is the margin small? Then see what changed between the two versions. If "
            "it is real and grave, halt the phased release."
        ),
        look=(
            "Release health, for the version against those before; Metric by device, for the models; "
            "Diagnostics, for the call stacks behind hangs, launches and disk writes."
        ),
        why=(
            "The exporter compares with margins and a least change, so any 1 counts. Families, as dozens of "
            "models make false alarms. A warning: a change of "
            f"{100 * MIN_CHANGE:g} % can wait until the morning; what doubles is `HighImpactRegression`."
        ),
    )


def _models(metric: AppleMetric) -> Query:
    """Values, since of models nothing else is sent unless `collect.detail` is `full`."""
    return Query(of_apple(metric), (*_GROUP, "device"), (*UPPER, ("device", "!all_*")), label="models")


def _poor(metric: AppleMetric, minutes: int) -> Alert:
    return Alert(
        id=f"{alert_id(metric)}Poor",
        title=f"{title_of(metric)} is poor by Apple's goals",
        severity="info",
        query=Query(of_apple(metric, POOR), _GROUP, (*FAMILIES, *UPPER)),
        threshold=1,
        minutes=minutes,
        worst=_models(metric),
        meaning=(
            f"{metric.description}: at the 90th percentile of a whole family of devices the newest version "
            "lies beyond the range that Apple calls fair for this kind of app and device."
        ),
        first=(
            "Compare with the earlier versions: if they were as poor, it is no accident of this release but "
            "something to plan for."
        ),
        look="Release health, the goal and the band beside the value.",
        why="Apple's own limit between fair and poor. Only information: it may have been so for years.",
    )


def _of_insights(minutes: int) -> Iterator[Alert]:
    where = (("insight", "regression"), ("impact", "high"))
    yield Alert(
        id="HighImpactRegression",
        title="Apple reports a high-impact regression",
        severity="critical",
        query=Query(of_fixed(INSIGHT_DELTA), (*_GROUP, "metric"), where),
        threshold=1,
        minutes=minutes,
        worst=Query(
            of_fixed(INSIGHT_DELTA),
            (*_GROUP, "metric", "device"),
            where,
            label="percent above the reference versions",
        ),
        events=Events(INSIGHT_EVENT.name, (), (("appstore.insight.kind", "regression"),)),
        meaning=(
            "Apple's own analysis calls a regression of this version one of high impact: a metric is about "
            "twice as high as the average of the reference versions, or more."
        ),
        first=(
            "Read what Apple says: `perfpower-exporter insights APP`, or the event `appstore.insight`; it "
            "names the populations with the largest change. Then what changed in the release; consider "
            "halting it."
        ),
        look="Release health, the section on what Apple found.",
        why=(
            "It is Apple that judges, so 1 % is as good as 100 %. Apple withdraws an insight itself; the "
            "series is 0 from then on."
        ),
    )


def _of_problems(minutes: int) -> Iterator[Alert]:
    by = (*_GROUP, "diagnostic_type")
    yield Alert(
        id="NewHeavyProblem",
        title="New problems take a large share of hangs, slow launches or disk writes",
        severity="warning",
        query=Query(of_fixed(NEW_SHARE), by),
        threshold=0.5,
        minutes=minutes,
        worst=Query(of_fixed(SIGNATURE_WEIGHT), (*by, "signature"), label="weight, the new and the others"),
        worst_where=Query(of_fixed(SIGNATURE_NEW), (*by, "signature"), label="heaviest of the new"),
        events=Events(DIAGNOSTIC_EVENT.name, (), (("appstore.diagnostic.new", "true"),)),
        meaning=(
            "Problems that no earlier version had make up a large share of the hangs, slow launches or disk "
            "writes of the newest version, by weight."
        ),
        first=(
            "See which: `perfpower-exporter diagnostics APP:VERSION --type TYPE --limit 1 --callstack`, or "
            "the events `appstore.diagnostic` whose `appstore.diagnostic.new` is true. The blamed frame and "
            "the stack say which code it is. Most are a call on the main thread that became slow, or work "
            "that came to the launch."
        ),
        look="Diagnostics, the share of new problems and the signatures by weight, and their events.",
        why=(
            "Half of a type: every release has some small new ones. One alert for a type, and not for each "
            "signature. A share, since the scale of weights differs between accounts."
        ),
        highest=1,
    )


def _of_the_pipeline(pace: Pace) -> Iterator[Alert]:
    minutes = _three_beats(pace.heartbeat)
    an_hour = max(60, minutes)
    silence = max(60, math.ceil(6 * pace.heartbeat / 60))
    two_polls = round(pace.two_polls / 60) + 60  # minutes: two polls, and an hour for a late one
    yield Alert(
        id="DataStale",
        title="No answer from App Store Connect for long, or the exporter is silent",
        severity="warning",
        query=Query(OWN["data.age"], _ACCOUNT),
        heard=Query(OWN["rate_limit.used"], _ACCOUNT),
        worst=Query(OWN["data.age"], (*_ACCOUNT, "app"), label="time since its last answer"),
        threshold=two_polls * 60,
        minutes=minutes,
        missing=silence,
        about="pipeline",
        highest=30 * 24 * 3600,
        meaning=(
            "An app of the account got no answer. Charts show its last good data, which ages; or nobody "
            "hears of the exporter at all."
        ),
        first=(
            "Is the exporter running? Its page `/readyz`, port 13134, says what is wrong and what to do. "
            "`perfpower-exporter check` tries key, network and Collector one by one."
        ),
        look="The exporter itself, data age and failures by reason.",
        why=(
            "Two polls of the schedule and an hour. Without any word from the exporter for an hour, or for "
            "six heartbeats where those are longer, it counts as stopped: one alert for an account, and not "
            "one for each app and metric that is missing."
        ),
    )
    yield Alert(
        id="PollsFailing",
        title="Polls of an account fail",
        severity="warning",
        query=Query(OWN["polls.failed_in_a_row"], _ACCOUNT),
        threshold=2,
        minutes=minutes,
        about="pipeline",
        meaning=(
            "Polls in a row could not read everything: at least one request of each failed for good. What "
            "could be read was sent."
        ),
        first="Failures by reason say which; docs/operating.md says what to do about each.",
        look="The exporter itself, failures by reason.",
        why="Two in a row: one failed poll mends itself at the next. It ends with one that does not fail.",
        highest=20,
    )
    yield Alert(
        id="CredentialsRefused",
        title="App Store Connect refuses the key",
        severity="critical",
        query=Query(OWN["key.refused"], _ACCOUNT),
        threshold=1,
        minutes=minutes,
        about="pipeline",
        meaning=(
            "The key was revoked, does not belong to the issuer, or this machine's clock is off. Nothing new "
            "comes in until it is mended."
        ),
        first=(
            "Users and Access → Integrations in App Store Connect: is the key still active? Then "
            "`perfpower-exporter check`."
        ),
        look="The exporter's log, `poll.failed` with `credentials_refused`.",
        why=(
            "Once is enough: the exporter has tried twice, the second time with a freshly signed token. It "
            "ends with the first poll that is answered."
        ),
    )
    yield Alert(
        id="KeyHourUsedUp",
        title="Little was left of the key's hour",
        severity="info",
        query=Query(OWN["rate_limit.remaining"], _ACCOUNT, join="min"),
        over=Query(OWN["rate_limit.limit"], _ACCOUNT, join="min"),
        threshold=0.1,
        compare="<=",
        minutes=minutes,
        about="pipeline",
        highest=0.9,
        meaning=(
            "When Apple last answered, little was left of the requests that it allows the key in an hour. "
            "Whoever uses the key in that hour, such as CI, may have been refused."
        ),
        first=(
            "Who else uses the key? Give the exporter one of its own. If nobody does, lower "
            "`limits.key_share`, which then is very high."
        ),
        look="The exporter itself, the key's hour: used by us against remaining.",
        why=(
            "The exporter stops at its share of the hour, half unless set, so others used the rest. "
            "Only information: the hour refills by itself. The number is that of the last answer, so this "
            "ends with the next poll that finds more, and not with the hour."
        ),
    )
    for name, what in (("points", "points"), ("events", "events")):
        yield Alert(
            id=f"{name.capitalize()}Rejected",
            title=f"The backend takes {what} in and rejects them",
            severity="warning",
            query=Query(OWN[f"{name}.rejected"], _EXPORTER, join="sum"),
            threshold=1,
            window=an_hour,
            minutes=0,
            about="pipeline",
            meaning=f"These {what} are lost: the endpoint said that they are at fault, and takes others.",
            first=(
                "`endpoint_says` of `delivery` and `delivery.given_up` in the exporter's log has the words."
            ),
            look="The exporter itself, delivery.",
            why="There should be none, ever.",
        )
    yield Alert(
        id="OutboxNotEmptying",
        title="What is owed to the backend is not delivered",
        severity="warning",
        query=Query(OWN["outbox.depth"], _EXPORTER),
        threshold=1,
        minutes=an_hour,
        about="pipeline",
        highest=1_000_000,
        meaning=(
            "The Collector, or the backend behind it, has not taken everything for an hour. Nothing is lost: "
            "it is kept and sent again."
        ),
        first=(
            "`/readyz` of the exporter, port 13134, has the endpoint's own words: 403 is a wrong or revoked "
            "key of the backend, no connection is the Collector or the network."
        ),
        look=(
            "The exporter itself, outbox and delivery. When metrics cannot get through either, only DataStale"
            " will tell."
        ),
        why=(
            "A heartbeat empties it, every four minutes by default: an hour is fifteen of them. Never fewer "
            "than three."
        ),
    )
