"""What is watched: the alerts, with what they tell and why they are as they are. Pure.

An alert about an app ends by data: the exporter sends an explicit 0 for every version that is not worse. One
about the pipeline watches what the exporter says of itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from exporter.assets.model import ENVIRONMENT, FAMILIES, SERVICE, Alert, Events, Query, of_apple, of_fixed
from exporter.convert import catalogue
from exporter.convert.catalogue import (
    APPLE_METRICS,
    DELTA,
    DIAGNOSTIC_EVENT,
    GOAL_BAND,
    GOAL_RATIO,
    INSIGHT_DELTA,
    INSIGHT_EVENT,
    NEW_SHARE,
    OWN_ACCOUNTS,
    REGRESSED,
    SIGNATURE_WEIGHT,
    AppleMetric,
)

RUNBOOK = "docs/alerts.md"  # in the exporter's repository; users may have it elsewhere (`alerts.runbook`)
UPPER = (("percentile", "!p50"),)  # the 90th percentile, and what has none
_GROUP = (SERVICE, ENVIRONMENT, "platform", "version")
BETWEEN_POLLS = 6 * 3600.0  # seconds, by the default schedule
HEARTBEAT = 240.0  # seconds, by the default schedule

_OWN = {metric.name.removeprefix("appstore.exporter."): of_fixed(metric) for metric in catalogue.OWN_METRICS}


def alerts(between_polls: float = BETWEEN_POLLS, heartbeat: float = HEARTBEAT) -> tuple[Alert, ...]:
    """All of them: about apps, then about the pipeline.

    Args:
        between_polls: the longest time between two polls of the schedule, in seconds.
        heartbeat: the time between two heartbeats, in seconds.
    """
    minutes = _three_beats(heartbeat)
    of_apps = (*_of_metrics(minutes), *_of_insights(minutes), *_of_problems(minutes))
    return (*of_apps, *_of_the_pipeline(between_polls, heartbeat))


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
    terminations = metric.category == "TERMINATION"
    return Alert(
        id=f"{alert_id(metric)}Regressed",
        title=f"{name} got worse with the newest version",
        severity="critical" if terminations else "warning",
        query=Query(of_apple(metric, REGRESSED), _GROUP, (*FAMILIES, *UPPER)),
        threshold=1,
        minutes=minutes,
        change=Query(
            of_apple(metric, DELTA),
            (*_GROUP, "device"),
            (*FAMILIES, *UPPER),
            label="change against the earlier versions",
        ),
        worst=_worst_models(metric),
        meaning=(
            f"{metric.description}: at the 90th percentile of a whole family of devices the newest version is"
            " worse than the mean of the versions before it, by more than both error margins and by at least"
            " `regression.min_change`."
        ),
        first=(
            "See whether several device models and the 50th percentile agree, and whether the margin is"
            " small; then what changed between the two versions. If it is real and grave, halt the phased"
            " release."
        ),
        look=(
            "Release health, for the version against those before; Metric by device, for the models; "
            "Diagnostics, for the call stacks behind hangs, launches and disk writes."
        ),
        why=(
            "The exporter compares with margins and a least change, so any 1 counts. Families, as dozens of "
            "models make false alarms. "
        )
        + (
            "Critical: the system ends the app while somebody uses it or comes back to it."
            if terminations
            else "A warning: users are served, if more slowly."
        ),
    )


def _worst_models(metric: AppleMetric) -> Query:
    """Values, since of models nothing else is sent unless `collect.detail` is `full`."""
    return Query(of_apple(metric), (*_GROUP, "device"), (*UPPER, ("device", "!all_*")), label="value")


def _poor(metric: AppleMetric, minutes: int) -> Alert:
    # Every version has a band, only the newest a ratio: times and over it, the bands of the others fall away.
    newest = Query(of_apple(metric, GOAL_RATIO), _GROUP, (*FAMILIES, *UPPER))
    return Alert(
        id=f"{alert_id(metric)}Poor",
        title=f"{title_of(metric)} is poor by Apple's goals",
        severity="info",
        fades=True,
        query=Query(of_apple(metric, GOAL_BAND), _GROUP, (*FAMILIES, *UPPER)),
        times=newest,
        over=newest,
        threshold=2.5,
        minutes=minutes,
        worst=_worst_models(metric),
        meaning=(
            f"{metric.description}: at the 90th percentile of a whole family of devices the newest version "
            "lies beyond the range that Apple calls fair for this kind of app and device."
        ),
        first=(
            "Compare with the earlier versions: if they were as poor, it is no accident of this release but "
            "something to plan for."
        ),
        look="Release health, the goal and the band beside the value.",
        why=(
            "Apple's own limit between fair, which is 2, and poor, which is 3. Only information: it may have "
            "been so for years."
        ),
    )


def _of_insights(minutes: int) -> Iterator[Alert]:
    yield Alert(
        id="HighImpactRegression",
        title="Apple reports a high-impact regression",
        severity="critical",
        query=Query(of_fixed(INSIGHT_DELTA), (*_GROUP, "metric"), (("insight", "regression"),)),
        threshold=100,
        setting="HighImpactRegression",
        minutes=minutes,
        worst=Query(
            of_fixed(INSIGHT_DELTA),
            (*_GROUP, "metric", "device"),
            (("insight", "regression"),),
            label="percent above the reference versions",
        ),
        events=Events(INSIGHT_EVENT.name, (), (("appstore.insight.kind", "regression"),)),
        meaning=(
            "Apple's own analysis finds a metric of this version at least twice as high as the average of "
            "the reference versions."
        ),
        first=(
            "Read what Apple says: `perfpower-exporter insights APP`, or the event `appstore.insight`; it "
            "names the populations with the largest change. Then what changed in the release; consider "
            "halting it."
        ),
        look="Release health, the section on what Apple found.",
        why=(
            "Apple calls a rise of 100 % or more high impact. Apple withdraws an insight itself; the series"
            " is 0 from then on."
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
        setting="NewHeavyProblem",
    )


def _of_the_pipeline(between_polls: float, heartbeat: float) -> Iterator[Alert]:
    account = ("account",)
    minutes = _three_beats(heartbeat)
    an_hour = max(60, minutes)
    silence = max(60, math.ceil(6 * heartbeat / 60))
    two_polls = round(2 * between_polls / 60) + 60  # minutes: two polls, and an hour for a late one
    one_poll = round(between_polls / 60) + 60
    week = 7 * 24 * 60  # what failed before that is no news
    yield Alert(
        id="DataStale",
        title="No answer from App Store Connect for long, or the exporter is silent",
        severity="warning",
        query=Query(_OWN["data.age"], account),
        worst=Query(_OWN["data.age"], ("account", "app"), label="time since its last answer"),
        threshold=two_polls * 60,
        minutes=minutes,
        missing=silence,
        about="pipeline",
        setting="DataStale",
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
        query=Query(_OWN["polls"], account, (("outcome", "failed"),), join="sum"),
        threshold=2,
        window=min(two_polls, week),
        minutes=0,
        about="pipeline",
        meaning=(
            "Two of the last polls could not read everything: at least one request of each failed for good. "
            "What could be read was sent."
        ),
        first="Failures by reason say which; docs/operating.md says what to do about each.",
        look="The exporter itself, failures by reason.",
        why="Two in the time of two polls and an hour: one failed poll mends itself at the next.",
        setting="PollsFailing",
    )
    yield Alert(
        id="CredentialsRefused",
        title="App Store Connect refuses the key",
        severity="critical",
        query=Query(_OWN["failures"], account, (("reason", "credentials_refused"),), join="sum"),
        threshold=1,
        window=min(one_poll, week),
        minutes=0,
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
            "Once is enough: the exporter has tried twice, the second time with a freshly signed token. The "
            "time of one poll and an hour, so that it lasts until the next poll says no, and ends after one "
            "that was answered."
        ),
    )
    yield Alert(
        id="KeyHourUsedUp",
        title="Little was left of the key's hour",
        severity="info",
        query=Query(_OWN["rate_limit.remaining"], account, join="min"),
        over=Query(_OWN["rate_limit.limit"], account, join="min"),
        threshold=0.1,
        compare="<=",
        minutes=minutes,
        about="pipeline",
        setting="KeyHourUsedUp",
        meaning=(
            "When Apple last answered, a tenth or less was left of the requests that it allows the key in an "
            "hour. Whoever uses the key in that hour, such as CI, may have been refused."
        ),
        first=(
            "Who else uses the key? Give the exporter one of its own. If nobody does, lower "
            "`limits.key_share`, which then is nine tenths or more."
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
            query=Query(_OWN[f"{name}.rejected"], (OWN_ACCOUNTS,), join="sum"),
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
        query=Query(_OWN["outbox.depth"], (OWN_ACCOUNTS,)),
        threshold=1,
        minutes=an_hour,
        about="pipeline",
        setting="OutboxNotEmptying",
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
