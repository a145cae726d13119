"""What is shown: four dashboards, described by metric, grouping and meaning. Pure."""

from __future__ import annotations

from exporter.assets.alerts import OWN, UPPER, title_of
from exporter.assets.model import (
    ENVIRONMENT,
    SERVICE,
    Bands,
    Chart,
    Dashboard,
    Events,
    Filter,
    Query,
    Section,
    Series,
    of_apple,
    of_fixed,
)
from exporter.convert import catalogue
from exporter.convert.catalogue import (
    APPLE_METRICS,
    BREAKDOWN,
    BY_DEVICE,
    DELTA,
    DIAGNOSTIC_EVENT,
    DISK_WRITES,
    ERROR_MARGIN,
    GOAL,
    GOAL_BAND,
    GOAL_RATIO,
    HANG_DURATION,
    INSIGHT_DELTA,
    INSIGHT_EVENT,
    INSIGHT_REGRESSIONS,
    LAUNCH_DURATION,
    NEW_SHARE,
    OWN_ACCOUNTS,
    REGRESSED,
    SIGNATURE_COUNT,
    SIGNATURE_NEW,
    SIGNATURE_REFERENCE,
    SIGNATURE_TREND,
    SIGNATURE_WEIGHT,
    SIGNATURES,
    AppleMetric,
)

_APP = (
    Filter(SERVICE, "service"),
    Filter("platform", "platform"),
    Filter("version", "version"),
    Filter("device", "device", "all_*"),
    Filter(ENVIRONMENT, "environment"),
)
_BANDS: Bands = ((1.0, "good"), (2.0, "fair"), (3.0, "poor"))
_FLAG: Bands = ((0.0, "good"), (1.0, "poor"))
_VERSION = (SERVICE, "platform", "version")
_ROW = (*_VERSION, "device")
_WITH_PARTS = ("BATTERY", "TERMINATION")  # the Organizer shows their parts; of others nobody has seen any


def dashboards() -> tuple[Dashboard, ...]:
    """All of them, in the order in which one opens them."""
    return _release_health(), _metric_by_device(), _diagnostics(), _the_exporter()


def _release_health() -> Dashboard:
    overview = Section(
        "Is the newest version better or worse?",
        (
            Chart(
                "How to read this",
                "text",
                "Apple's field metrics by version, of whole families of devices, the 90th percentile unless"
                " it says otherwise. **Regressed** is 1 where the newest version is worse than the mean of"
                " the earlier ones by more than both error margins and by at least `regression.min_change`."
                " **Change** is that difference. **Band** is Apple's judgement: 1 good, 2 fair, 3 poor. Begin"
                " with one service.",
                width=12,
            ),
            Chart(
                "Change against the earlier versions",
                "table",
                "The newest version over the mean of the earlier ones, less 1: 0.1, or 10 %, is a tenth"
                " more.",
                tuple(Query(of_apple(m, DELTA), _ROW, UPPER, label=title_of(m)) for m in APPLE_METRICS),
                width=12,
            ),
            Chart(
                "Regressed",
                "table",
                "1 where the newest version is worse beyond both margins, until it is below half of that; 0"
                " for all others. A column for each metric.",
                tuple(
                    Query(of_apple(m, REGRESSED), _VERSION, UPPER, label=title_of(m), bands=_FLAG)
                    for m in APPLE_METRICS
                ),
                width=12,
            ),
            Chart(
                "Apple's band",
                "table",
                "1 good, 2 fair, 3 poor, of each version, where Apple gives bands.",
                tuple(
                    Query(of_apple(m, GOAL_BAND), _ROW, UPPER, label=title_of(m), bands=_BANDS)
                    for m in APPLE_METRICS
                ),
                width=12,
            ),
        ),
    )
    found = Section(
        "What Apple itself found",
        (
            Chart(
                "Regressions that Apple reports",
                "number",
                "How many there are now, over all platforms and impacts.",
                (Query(of_fixed(INSIGHT_REGRESSIONS), join="sum", label="regressions", bands=_FLAG),),
                without=("version", "device"),
                width=3,
            ),
            Chart(
                "How far, by metric and version",
                "top",
                "Percent above the average of the reference versions, Apple's number, where it is largest"
                " over devices and percentiles; 0 after Apple withdrew it.",
                (
                    Query(
                        of_fixed(INSIGHT_DELTA),
                        (SERVICE, "platform", "metric", "version", "impact"),
                        (("insight", "regression"),),
                        label="percent",
                    ),
                ),
                without=("device",),
                width=9,
            ),
            Chart(
                "Apple's sentences",
                "events",
                "Each regression or trend once, when it was first reported.",
                events=Events(INSIGHT_EVENT.name, ("service.name", "version", "metric", "device")),
                without=("device",),
                width=12,
            ),
        ),
    )
    return Dashboard(
        "release-health",
        "App Store: release health",
        "Is the newest version better or worse than those before it, metric by metric, and what Apple found.",
        _APP,
        (overview, found, *(_health_of(metric) for metric in APPLE_METRICS)),
    )


def _health_of(metric: AppleMetric) -> Section:
    return Section(
        title_of(metric),
        (
            Chart(
                "By version",
                "lines",
                f"{metric.description}.",
                (Query(of_apple(metric), _ROW, UPPER),),
                width=4,
            ),
            Chart(
                "Against the earlier versions and the goal",
                "table",
                "A row for each version and family. Change, regressed and goal are of the newest version: a"
                " change of 0.1, or 10 %, is a tenth more than the mean of the earlier ones, below 0 is less;"
                " over the goal 1.2 is a fifth above what Apple recommends. Band: 1 good, 2 fair, 3 poor.",
                (
                    Query(of_apple(metric), _ROW, UPPER, label="value"),
                    Query(of_apple(metric, ERROR_MARGIN), _ROW, UPPER, label="error margin"),
                    Query(of_apple(metric, DELTA), _ROW, UPPER, label="change"),
                    Query(of_apple(metric, REGRESSED), _ROW, UPPER, label="regressed", bands=_FLAG),
                    Query(of_apple(metric, GOAL), _ROW, UPPER, label="goal"),
                    Query(of_apple(metric, GOAL_RATIO), _ROW, UPPER, label="over the goal"),
                    Query(of_apple(metric, GOAL_BAND), _ROW, UPPER, label="band", bands=_BANDS),
                ),
                width=8,
            ),
        ),
    )


def _metric_by_device() -> Dashboard:
    return Dashboard(
        "metric-by-device",
        "App Store: metric by device",
        "Each metric over versions and device models: percentiles, margins, distribution, the worst models"
        " first.",
        _APP,
        tuple(_devices_of(metric) for metric in APPLE_METRICS),
    )


def _devices_of(metric: AppleMetric) -> Section:
    value, margin = of_apple(metric), of_apple(metric, ERROR_MARGIN)
    median = (("percentile", "p50"),)
    spread = of_apple(metric, BY_DEVICE)
    return Section(
        title_of(metric),
        (
            Chart(
                "Percentiles by version",
                "lines",
                f"{metric.description}: the 50th and the 90th percentile of the chosen devices.",
                (Query(value, (*_ROW, "percentile")),),
            ),
            Chart(
                "Error margin",
                "lines",
                "How far the value may be off, by Apple's own account: a wide margin means few users. Of"
                " families; of models with `collect.detail: full` only.",
                (Query(margin, (*_ROW, "percentile")),),
            ),
            Chart(
                "Over versions",
                "table",
                "A row for each version and device. The goal is what Apple recommends for the newest version,"
                " where it gives one. What has no percentiles stands under p90. Margins and goals of models"
                " come with `collect.detail: full` only.",
                (
                    Query(value, _ROW, median, label="p50"),
                    Query(value, _ROW, UPPER, label="p90"),
                    Query(margin, _ROW, UPPER, label="error margin of p90"),
                    Query(of_apple(metric, GOAL), _ROW, UPPER, label="goal of p90"),
                ),
                width=12,
            ),
            Chart(
                "Worst models",
                "top",
                "The highest values of models, at the 90th percentile, whatever device is chosen above."
                " Models are sent of the newest two versions, so each of them stands here twice.",
                (
                    Query(
                        value,
                        _ROW,
                        (*UPPER, ("device", "!all_*")),
                        label="value",
                    ),
                ),
                without=("device",),
            ),
            Chart(
                "How the models are spread",
                "bars",
                "The distribution over the models of each family, whatever device is chosen above: its median"
                " and its 90th percentile over models. It is sent when it changes, about once a day.",
                (
                    Query(spread, _ROW, UPPER, percentile=50, label="median model"),
                    Query(spread, _ROW, UPPER, percentile=90, label="p90 of models"),
                ),
                without=("device",),
            ),
            *([_parts(metric)] if metric.category in _WITH_PARTS else ()),
        ),
    )


def _parts(metric: AppleMetric) -> Chart:
    return Chart(
        "By subsystem",
        "top",
        "The part of the value that each subsystem accounts for, in percent, where Apple tells.",
        (
            Query(
                of_apple(metric, BREAKDOWN),
                (*_ROW, "subsystem"),
                UPPER,
                label="percent",
            ),
        ),
        width=12,
    )


def _diagnostics() -> Dashboard:
    signature = (*_VERSION, "diagnostic_type", "signature")
    of_type = (*_VERSION, "diagnostic_type")
    of_no_device = ("device",)  # a signature is of a build, whatever the device
    return Dashboard(
        "diagnostics",
        "App Store: diagnostics",
        "What the hangs, slow launches and disk writes are: signatures, new problems, stacks, durations.",
        (*(f for f in _APP if f.attribute != "device"), Filter("device", "device")),
        (
            Section(
                "Problems",
                (
                    Chart(
                        "Signatures by weight",
                        "top",
                        "The share that a signature has of its type in a version, on Apple's scale.",
                        (Query(of_fixed(SIGNATURE_WEIGHT), signature, label="weight"),),
                        without=of_no_device,
                        width=12,
                    ),
                    Chart(
                        "How much is new",
                        "lines",
                        "What part of the hangs, slow launches and disk writes of a version, by weight, comes"
                        " from problems that no earlier version had: 0.5, or 50 %, is half of a"
                        " type.",
                        (Query(of_fixed(NEW_SHARE), of_type),),
                        without=of_no_device,
                        width=12,
                    ),
                    Chart(
                        "Which are new, and which way they go",
                        "table",
                        "New is 1 for a signature that no earlier version had. Trend is Apple's: 1 up, 0"
                        " undefined, -1 down.",
                        (
                            Query(of_fixed(SIGNATURE_WEIGHT), signature, label="weight"),
                            Query(of_fixed(SIGNATURE_NEW), signature, label="new"),
                            Query(of_fixed(SIGNATURE_TREND), signature, label="trend"),
                        ),
                        without=of_no_device,
                        width=12,
                    ),
                    Chart(
                        "Weight in earlier versions",
                        "top",
                        "What the signature weighed in the versions before, on the same scale as its weight.",
                        (
                            Query(
                                of_fixed(SIGNATURE_REFERENCE),
                                (*signature, "reference_version"),
                                label="weight",
                            ),
                        ),
                        without=of_no_device,
                    ),
                    Chart(
                        "How often",
                        "top",
                        "Occurrences in the newest version, where Apple's overview tells.",
                        (Query(of_fixed(SIGNATURE_COUNT), signature, label="occurrences"),),
                        without=of_no_device,
                    ),
                    Chart(
                        "How many signatures",
                        "lines",
                        "Signatures of each type in each version.",
                        (Query(of_fixed(SIGNATURES), of_type),),
                        without=of_no_device,
                    ),
                ),
            ),
            Section(
                "How long, how much",
                (
                    _duration("Hangs", HANG_DURATION),
                    _duration("Slow launches", LAUNCH_DURATION),
                    _duration("Disk writes", DISK_WRITES),
                ),
            ),
            Section(
                "Logs",
                (
                    Chart(
                        "Call stacks",
                        "events",
                        "Each diagnostic log once, with the blamed frame and the stack.",
                        events=Events(
                            DIAGNOSTIC_EVENT.name,
                            (
                                "version",
                                "device",
                                "diagnostic_type",
                                "code.function.name",
                                "code.file.path",
                                "code.line.number",
                                "code.stacktrace",
                            ),
                        ),
                        width=12,
                    ),
                ),
            ),
        ),
    )


def _duration(title: str, metric: catalogue.FixedMetric) -> Chart:
    distribution = of_fixed(metric)
    return Chart(
        title,
        "bars",
        f"{metric.description}: median and 90th percentile of the logs that came.",
        (
            Query(distribution, _VERSION, percentile=50, label="median"),
            Query(distribution, _VERSION, percentile=90, label="p90"),
        ),
        width=4,
    )


def _the_exporter() -> Dashboard:
    account = ("environment", "account")
    return Dashboard(
        "exporter",
        "App Store: the exporter itself",
        "Does data come in and go out: age, polls, failures, the key's hour, delivery, what was left out.",
        (Filter("account", "account"), Filter("environment", "environment")),
        (
            Section(
                "Coming in",
                (
                    Chart(
                        "Age of the data",
                        "lines",
                        "Time since App Store Connect last answered for each app. It grows until the next"
                        " poll, and falls to 0 there.",
                        (Query(OWN["data.age"], (*account, "app")),),
                    ),
                    Chart(
                        "Polls",
                        "bars",
                        "Polls by outcome: ok, deferred (something waits for the next), failed.",
                        (Query(OWN["polls"], (*account, "outcome"), join="sum"),),
                    ),
                    Chart(
                        "Failures by reason",
                        "bars",
                        "docs/operating.md says what to do about each reason.",
                        (Query(OWN["failures"], (*account, "reason"), join="sum"),),
                    ),
                    Chart(
                        "Polls that failed in a row",
                        "lines",
                        "0 is good. Two in a row raise an alert.",
                        (Query(OWN["polls.failed_in_a_row"], account, label="failed"),),
                    ),
                    Chart(
                        "Keys that are refused",
                        "lines",
                        "1 while App Store Connect refuses the key of an account.",
                        (Query(OWN["key.refused"], account, label="refused"),),
                    ),
                    Chart(
                        "Put off to the next poll",
                        "bars",
                        "What did not fit into the key's share.",
                        (Query(OWN["deferred"], (*account, "what"), join="sum"),),
                    ),
                ),
            ),
            Section(
                "The key's hour",
                (
                    Chart(
                        "Requests of the key",
                        "lines",
                        "What Apple allows in an hour, what was left when it last answered, and what we"
                        " used.",
                        (
                            Query(OWN["rate_limit.limit"], account, label="limit"),
                            Query(OWN["rate_limit.remaining"], account, label="remaining"),
                            Query(OWN["rate_limit.used"], account, label="used by us"),
                        ),
                    ),
                    Chart(
                        "Requests by answer",
                        "bars",
                        "Requests to App Store Connect, retries included, by status.",
                        (Query(OWN["requests"], ("endpoint", "status"), join="sum"),),
                    ),
                ),
            ),
            Section(
                "Going out",
                (
                    Chart(
                        "Points",
                        "bars",
                        "What the backend took, and what it rejected: those are lost, and there should be"
                        " none.",
                        (
                            Query(OWN["points.sent"], join="sum", label="sent"),
                            Query(OWN["points.rejected"], join="sum", label="rejected"),
                        ),
                        without=account,
                    ),
                    Chart(
                        "Events",
                        "bars",
                        "The same of events.",
                        (
                            Query(OWN["events.sent"], join="sum", label="sent"),
                            Query(OWN["events.rejected"], join="sum", label="rejected"),
                        ),
                        without=account,
                    ),
                    Chart(
                        "Outbox",
                        "lines",
                        "Items that the backend has not taken yet. A heartbeat empties it.",
                        (Query(OWN["outbox.depth"], (OWN_ACCOUNTS,), label="items"),),
                        without=account,
                    ),
                    Chart(
                        "Failures of delivery",
                        "bars",
                        "What failed of no account: a delivery, a heartbeat. docs/operating.md says what to"
                        " do about each reason.",
                        (Query(OWN["failures"], ("reason",), (("account", "!*"),), join="sum"),),
                        without=account,
                    ),
                    Chart(
                        "How long a delivery takes",
                        "lines",
                        "From the first request to the last answer.",
                        (Query(OWN["delivery.duration"], (OWN_ACCOUNTS,), label="duration"),),
                        without=account,
                    ),
                    Chart(
                        "Left out, by reason",
                        "bars",
                        "Values in Apple's answers that did not become points; docs/metrics.md has the"
                        " reasons.",
                        (Query(OWN["points.left_out"], (*account, "reason"), join="sum"),),
                        width=12,
                    ),
                ),
            ),
            _the_collector(),
        ),
    )


def _the_collector() -> Section:
    """Its charts are of no account and no environment: the page says neither."""
    queue = ("instance", "exporter", "data_type")
    none = ("account", "environment")
    return Section(
        "The Collector beside it",
        (
            Chart(
                "Where to see it",
                "text",
                "The Collector holds nothing durable: what the backend does not take stays in the"
                " exporter's outbox, so the outbox shows a backend that says no as well. The"
                " Collector's own queue is on its page, port 8888, `/metrics`:"
                " `otelcol_exporter_queue_size` against `otelcol_exporter_queue_capacity`, and"
                " `otelcol_exporter_send_failed_metric_points`.",
                width=12,
            ),
            Chart(
                "Queue",
                "lines",
                "What waits to be sent, against what fits. A page for a scrape has no queue.",
                (
                    Query(Series("otelcol_exporter_queue_size", ""), queue, label="waiting"),
                    Query(Series("otelcol_exporter_queue_capacity", ""), queue, label="fits"),
                ),
                without=none,
                of_collector=True,
            ),
            Chart(
                "Not sent",
                "bars",
                "Points that the backend refused; the exporter sends them again.",
                (
                    Query(
                        Series("otelcol_exporter_send_failed_metric_points", "", "counter"),
                        ("instance", "exporter"),
                        join="sum",
                    ),
                ),
                without=none,
                of_collector=True,
            ),
        ),
    )
