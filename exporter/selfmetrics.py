"""The exporter's own metrics, through the OpenTelemetry SDK to the endpoint that the App Store's go to.

Counters are delta: neither Datadog's OTLP intake nor a restart gets along with cumulative ones. There is no
histogram among them: with a single value its minimum equals its maximum, and Splunk drops it; told to record
neither, the SDK (1.45) sends infinities.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource

from exporter import __version__
from exporter.appstore.payloads.reader import LONGEST_TEXT
from exporter.convert.catalogue import OWN_ACCOUNTS, OWN_METRICS

if TYPE_CHECKING:
    from exporter.deliver import Delivery
    from exporter.report import CycleReport

Observe = Callable[[], Iterable[tuple[float, dict[str, str]]]]

_PREFIX = "appstore.exporter."
DELTA: dict[type, AggregationTemporality] = {Counter: AggregationTemporality.DELTA}
_OWN = {metric.name: metric for metric in OWN_METRICS}


class SelfMetrics:
    """Counts what the exporter does.

    Args:
        exporter: where to; None: nowhere.
        interval: seconds between exports.
        observe: the gauges: their name without prefix → what they are now, as (value, attributes).
        accounts: which this exporter polls, by name → environment. The names tell it from others that send to
            the same backend, such as the other shards; no two have the same. What is about an account bears
            its environment, too: two exporters may have an account of one name.
    """

    def __init__(
        self,
        exporter: MetricExporter | None,
        interval: float,
        observe: dict[str, Observe],
        accounts: Mapping[str, str] | None = None,
    ) -> None:
        self._environments = accounts or {}
        readers = [PeriodicExportingMetricReader(exporter, interval * 1000)] if exporter else []
        about = {"service.name": "perfpower-exporter", "service.version": __version__}
        if accounts:
            about[OWN_ACCOUNTS] = ",".join(accounts)[:LONGEST_TEXT]
        self._provider = MeterProvider(readers, Resource(about), shutdown_on_exit=False)
        self._meter = self._provider.get_meter("perfpower-exporter", __version__)
        self._polls = self._counter("polls")
        self._failures = self._counter("failures")
        self._requests = self._counter("requests")
        self._deferred = self._counter("deferred")
        self._sent = self._counter("points.sent")
        self._rejected = self._counter("points.rejected")
        self._events_sent = self._counter("events.sent")
        self._events_rejected = self._counter("events.rejected")
        self._left_out = self._counter("points.left_out")
        for name, callback in observe.items():
            self._gauge(name, callback)

    def request(self, account: str, endpoint: str, status: int | None) -> None:
        """An attempt to ask App Store Connect something; `status` is None when no answer came."""
        answer = {"endpoint": endpoint, "status": str(status) if status else "none"}
        self._requests.add(1, self._of(account) | answer)

    def polled(self, report: CycleReport) -> None:
        """An account was polled."""
        account = self._of(report.account)
        self._polls.add(1, account | {"outcome": report.outcome})
        for what, count in Count(step.what for step in report.deferred).items():
            self._deferred.add(count, account | {"what": what})
        for error in report.failures:
            self._failures.add(1, account | {"reason": error.reason})
        for reason, count in report.left_out.items():
            self._left_out.add(count, account | {"reason": reason})

    def failed(self, account: str, reason: str) -> None:
        """A poll (of an account) or a heartbeat (of none) could not be done at all."""
        self._failures.add(1, self._of(account) | {"reason": reason} if account else {"reason": reason})

    def delivered(self, delivery: Delivery) -> None:
        """A pass over what is to be sent has ended."""
        self._sent.add(delivery.accepted)
        self._rejected.add(delivery.rejected + delivery.given_up)
        self._events_sent.add(delivery.events_accepted)
        self._events_rejected.add(delivery.events_rejected)
        if not delivery.complete:
            self._failures.add(1, {"reason": "delivery"})

    def flush(self) -> None:
        """Send what was counted, now; tries for a few seconds at the most."""
        self._provider.force_flush(5_000)

    def close(self) -> None:
        """Send the rest and stop."""
        self._provider.shutdown(5_000)

    def _of(self, account: str) -> dict[str, str]:
        """What a point about an account bears of it."""
        environment = self._environments.get(account)
        return {"account": account, **({"environment": environment} if environment else {})}

    def _counter(self, name: str) -> metrics.Counter:
        metric = _OWN[_PREFIX + name]
        return self._meter.create_counter(metric.name, metric.unit, metric.description)

    def _gauge(self, name: str, observe: Observe) -> None:
        def callback(_options: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(value, attributes | self._of(attributes["account"]))
                if "account" in attributes
                else Observation(value, attributes)
                for value, attributes in observe()
            ]

        metric = _OWN[_PREFIX + name]
        self._meter.create_observable_gauge(metric.name, [callback], metric.unit, metric.description)
