"""docs/backends.md as data: its examples, queries and names; and how an example is written. Pure."""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from exporter.otlp.sink import Outcome, Reply
from tests.backends.datadog import DatadogPoint, DatadogRecord
from tests.backends.hec import HecRecord
from tests.backends.prometheus import Sample
from tests.backends.splunk import SplunkPoint

_EXAMPLE = re.compile(r"<!-- checked: ([a-z-]+) -->\n\n(```.*?\n```|.+?)(?=\n\n|\n*\Z)", re.S)
_FENCED = re.compile(r"^```([a-z-]+)\n(.*?)\n```$", re.S | re.M)
_HISTOGRAMS = (".by_device", ".disk_writes", ".hang_duration", ".launch_duration")
_WIDTH = 100
_SHORT = {"service.name": "service", "deployment.environment.name": "env"}  # for Datadog


def examples(page: str) -> dict[str, str]:
    """The checked examples by their names: a fenced block with its fences, or a table."""
    return dict(_EXAMPLE.findall(page))


def queries(page: str, language: str) -> list[str]:
    """The lines of all blocks that are fenced as this language: `datadog`, `signalflow`, …"""
    return [line for kind, text in _FENCED.findall(page) if kind == language for line in text.splitlines()]


def assignments(page: str) -> dict[str, str]:
    """The lines NAME=value of the blocks that are fenced as `properties`."""
    return dict(line.split("=", 1) for line in queries(page, "properties"))


def names(page: str) -> set[str]:
    """All that is called `appstore.…` or `appstore_…` on the page; a file or sourcetype is not."""
    return set(re.findall(r"\bappstore[._][a-z_.]*[a-z_]", page))


# How an example is written


def fenced(*lines: str) -> str:
    """A block."""
    return "\n".join(("```text", *lines, "```"))


def table(*rows: tuple[object, ...]) -> str:
    """A table, the first row its head."""
    lines = [rows[0], ("---",) * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def one_point(datadog: DatadogPoint, splunk: SplunkPoint, sample: Sample) -> str:
    """A gauge in each backend: a row for its name, its value and each of its attributes."""
    rows: list[tuple[object, ...]] = [
        ("name", f"`{datadog.name}`", f"`{splunk.name}`", f"`{sample.name}`"),
        ("value", f"{datadog.value:.4g}", f"{splunk.value:.4g}", f"{sample.value:.4g}"),
    ]
    for key, value in splunk.dimensions.items():
        tags = [tag for tag in sorted(datadog.tags) if tag.partition(":")[0] in (key, _SHORT.get(key))]
        label = key.replace(".", "_")
        rows.append(
            (
                f"`{key}`",
                ", ".join(f"`{tag}`" for tag in tags),
                f"`{key}` = `{value}`",
                f'`{label}="{sample.labels[label]}"`',
            )
        )
    return table(("OTLP", "Datadog", "Splunk Observability", "Prometheus"), *rows)


def datadog_distribution(point: DatadogPoint) -> str:
    """A distribution in Datadog."""
    values = f"count {point.count}  sum {point.sum:.4g}  min {point.min:.4g}  max {point.max:.4g}"
    return fenced(f"{point.name}  {values}", *_wrapped(sorted(point.tags)))


def datadog_log(record: DatadogRecord) -> str:
    """An event in Datadog."""
    return fenced(
        f"status   {record.status}",
        f"service  {record.service}",
        f"message  {record.message}",
        f"tags     {'  '.join(sorted(record.tags))}",
        *_values({**record.attributes, "otel.event_name": record.event_name}),
    )


def splunk_histogram(point: SplunkPoint) -> str:
    """A histogram in Splunk, with the integers that it keeps."""
    values = f"count {point.count}  sum {point.kept_sum}  min {point.kept_min}  max {point.kept_max}"
    dimensions = sorted(f"{key}={value}" for key, value in point.dimensions.items())
    return fenced(f"{point.name}  {values}", *_wrapped(dimensions))


def hec_event(record: HecRecord, shown: Mapping[str, object]) -> str:
    """An event in Splunk, without the fields that were shown already."""
    return fenced(
        f"sourcetype  {record.sourcetype}",
        f"source      {record.source}",
        f"host        {record.host}",
        f"event       {record.event}",
        *_values({key: value for key, value in record.fields.items() if (key, value) not in shown.items()}),
    )


def scraped(samples: Iterable[Sample]) -> str:
    """A histogram as Prometheus scrapes it, without the labels that all its lines have."""
    lines = []
    for sample in samples:
        bucket = f'{{…, le="{sample.labels["le"]}"}}' if "le" in sample.labels else "{…}"
        lines.append(f"{sample.name}{bucket} {sample.value:.4g}")
    return fenced(*lines)


@dataclass(frozen=True, slots=True)
class Series:
    """How many series an app makes."""

    gauges: int
    distributions: int

    @classmethod
    def of(cls, by_metric: Counter[str]) -> Series:
        """As a poll counts them, by metric."""
        distributions = sum(count for name, count in by_metric.items() if name.endswith(_HISTOGRAMS))
        return cls(by_metric.total() - distributions, distributions)

    @property
    def most_custom_metrics(self) -> int:
        """Those that Datadog counts in an hour in which all distributions came: five for each of them."""
        return self.gauges + 5 * self.distributions

    @property
    def time_series(self) -> int:
        """Metric time series as Splunk defines them."""
        return self.gauges + self.distributions


def costs(series: Mapping[str, Series]) -> str:
    """A row for each way to configure the exporter."""
    head = (
        "Configuration",
        "Gauges",
        "Distributions",
        "Datadog, each hour",
        "Datadog, an hour with all distributions",
        "Splunk MTS",
    )
    rows = [
        (name, of.gauges, of.distributions, of.gauges, of.most_custom_metrics, of.time_series)
        for name, of in series.items()
    ]
    return table(head, *((row[0], *(f"{number:,}" for number in row[1:])) for row in rows))


_DOES = {
    Outcome.ACCEPTED: "done",
    Outcome.RETRY: "again within seconds, then at each heartbeat",
    Outcome.REFUSED: "again at each heartbeat",
    Outcome.BAD_DATA: "the others go, the bad ones are given up",
    Outcome.FAILED: "the others go, the bad ones again at each heartbeat",
}


@dataclass(frozen=True, slots=True)
class Heard:
    """What the exporter hears through the Collector when a backend gave an answer."""

    outcome: Outcome
    status: str

    @classmethod
    def of(cls, reply: Reply) -> Heard:
        """Its status without the words."""
        return cls(reply.outcome, reply.message.partition(":")[0])

    def __str__(self) -> str:
        return f"{self.status}: {_DOES[self.outcome]}"


def refusals(heard: Mapping[str, Mapping[str, Heard]]) -> str:
    """A row for each answer of a backend's, equal ones together.

    Args:
        heard: the backend's answer → the backend → what the exporter hears.
    """
    alike: dict[tuple[object, ...], list[str]] = {}
    for answer, by_backend in heard.items():
        alike.setdefault(tuple(by_backend.values()), []).append(answer)
    backends = next(iter(heard.values()))
    return table(("The backend", *backends), *((", ".join(names), *cells) for cells, names in alike.items()))


def _wrapped(words: Iterable[str]) -> list[str]:
    unbreakable = [word.replace(" ", "\0") for word in words]
    lines = textwrap.wrap("  ".join(unbreakable), _WIDTH, initial_indent="  ", subsequent_indent="  ")
    return [line.replace("\0", " ") for line in lines]


def _values(values: Mapping[str, object]) -> Iterator[str]:
    for key, value in sorted(values.items()):
        text = json.dumps(value, ensure_ascii=False)
        yield f"  {key}: {text if len(text) <= 72 else text[:70] + '…'}"
