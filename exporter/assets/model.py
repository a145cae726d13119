"""What a dashboard and an alert are made of, in the catalogue's words and no backend's. Pure.

`dashboards` and `alerts` say what is shown and what is watched; a module a backend (`datadog`, `splunk`,
`grafana`, `prometheus`) says it in that backend's language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from exporter.convert.catalogue import AppleMetric, Companion, FixedMetric

Instrument = Literal["gauge", "counter", "histogram"]
Join = Literal["max", "min", "sum", "avg"]
Bands = tuple[tuple[float, Literal["good", "fair", "poor"]], ...]
Severity = Literal["critical", "warning", "info"]
Where = tuple[tuple[str, str], ...]

SERVICE, ENVIRONMENT = "service.name", "deployment.environment.name"
RUNBOOK = "docs/alerts.md"  # in the exporter's repository; users may have it elsewhere (`alerts.runbook`)
FAMILIES: Where = (("device", "all_*"),)
"""Families of devices, not models. In a value `*` at the end is any text, and `!` at the start is not."""
NO_BUILD: Where = (("build", "!*"),)
"""Not of a single build: without the attribute."""


def fits(where: Where, attributes: Mapping[str, str]) -> bool:
    """Whether a point with these attributes meets all conditions; an absent attribute is empty."""

    def one(wanted: str, value: str) -> bool:
        if wanted == "!*":  # without the attribute
            return not value
        if wanted.startswith("!"):
            return not one(wanted[1:], value)
        return value.startswith(wanted[:-1]) if wanted.endswith("*") else value == wanted

    return all(one(wanted, attributes.get(key, "")) for key, wanted in where)


@dataclass(frozen=True, slots=True)
class Series:
    """A metric as it leaves the exporter: its OTLP name, its UCUM unit, its instrument.

    `always` is what every query of it asks for: the metrics of a version are there for single builds, too,
    where users want those (`collect.builds`), under the same names.
    """

    name: str
    unit: str
    instrument: Instrument = "gauge"
    always: Where = ()

    @property
    def is_flag(self) -> bool:
        """Whether its number stands for a state, which a title says in words."""
        return self.unit == "{flag}"

    def is_a(self, companion: Companion) -> bool:
        """Whether it is this companion of a metric of Apple's."""
        return self.name.endswith(f".{companion.suffix}") and companion.unit in (None, self.unit)


@dataclass(frozen=True, slots=True)
class Query:
    """Some series of a metric, joined to one a group.

    Args:
        by: attributes; each combination of their values is a line, a row, an alert of its own.
        where: attribute → the value it has to have, beside the filters of the dashboard.
        join: how the series of a group become one; what was added to a counter is summed first.
        percentile: of a histogram, 1 to 99; None for a gauge or counter.
        label: what it is called where several stand in one chart.
        bands: (value, name) where a new colour begins, ascending: good, fair, poor.
    """

    metric: Series
    by: tuple[str, ...] = ()
    where: Where = ()
    join: Join = "max"
    percentile: int | None = None
    label: str = ""
    bands: Bands = ()

    @property
    def conditions(self) -> Where:
        """All that its series have to meet."""
        return (*self.where, *self.metric.always)


@dataclass(frozen=True, slots=True)
class Events:
    """Events of one name, the newest first; `columns` are their attributes."""

    name: str
    columns: tuple[str, ...]
    where: Where = ()


Kind = Literal["lines", "bars", "number", "table", "top", "events", "text"]


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart.

    Args:
        kind: `lines` over time; `bars` over time, for what comes now and then; `number`, the latest value;
            `table`, a row for each group of `by` and a column for each query; `top`, the ten highest groups
            now; `events`, a list; `text`, Markdown in `about`.
        about: a sentence or two: what it shows and how to read it.
        without: filters of the dashboard that do not apply, such as `device` where devices are compared.
        of_collector: it is about what the Collector says of itself on its page: only for a backend that reads
            the page.
        width: of 12.
    """

    title: str
    kind: Kind
    about: str
    queries: tuple[Query, ...] = ()
    events: Events | None = None
    without: tuple[str, ...] = ()
    of_collector: bool = False
    width: int = 6


@dataclass(frozen=True, slots=True)
class Section:
    """Charts under a heading."""

    title: str
    charts: tuple[Chart, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """A choice at the top of a dashboard: the attribute, its label, the value it begins with.

    In that `*` at the end is any text, and alone it is all.
    """

    attribute: str
    label: str
    default: str = "*"


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A page. `id` is fit for a file name, and stays the same for ever."""

    id: str
    title: str
    about: str
    filters: tuple[Filter, ...]
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Alert:
    """A condition that wants somebody, and what to tell them.

    It fires for each group of `query.by` for which `query` (over `over`) has been at or beyond `threshold`
    all through `minutes`, and resolves when it no longer is. A series that is silent goes by its last value
    for `held` minutes.

    Args:
        id: CamelCase; stays the same for ever, as a link to the runbook may stand anywhere.
        title: a few words; in backends that have templates, the group follows.
        compare: which side of the threshold is bad, the threshold included.
        highest: the largest threshold that users can choose; None where they cannot choose one.
        window: of a counter, the minutes over which what was added is summed; None for a gauge.
        missing: minutes without any data of a group after which it fires as well; None: missing data says
            nothing.
        heard: what tells that there is data, by the same groups, where the query does not come from the
            beginning on.
        worst: what the message names beside the number, the worst first.
        worst_where: only those for which this is 1, where a message can join the two; of the same `by`, and
            its label is what they are called then.
        worst_by_change: they are ranked by how far they lie from the same of other versions, where a message
            can reckon; else by their value.
        change: how far it went, where the number itself does not say; left out where a message cannot ask.
        events: events that say more of what fired; their `where` goes beside the group's.
        meaning, first, look: what it means; what to do first; where to look.
        why: the reason for threshold, time and severity.
        about: `app` for an alert about an app, `pipeline` for one about the exporter or its endpoint,
            `collector` for one on what the Collector says of itself.
    """

    id: str
    title: str
    severity: Severity
    query: Query
    threshold: float
    meaning: str
    first: str
    look: str
    why: str
    compare: Literal[">=", "<="] = ">="
    highest: float | None = None
    over: Query | None = None
    minutes: int = 15
    window: int | None = None
    missing: int | None = None
    heard: Query | None = None
    worst: Query | None = None
    worst_where: Query | None = None
    worst_by_change: bool = False
    change: Query | None = None
    events: Events | None = None
    about: Literal["app", "pipeline", "collector"] = "app"

    @property
    def unit(self) -> str:
        """The unit of what is compared with the threshold: of one over another it is 1."""
        return "1" if self.over else self.query.metric.unit

    @property
    def held(self) -> int:
        """Minutes: three days for an app, as an outage or a day without data of Apple's is no recovery and
        an explicit 0 ends it anyway. For the exporter longer than a restart takes, and less than a long wait,
        or a silence would fill it; where silence is told of, until it is.
        """
        if self.about == "app":
            return 3 * 24 * 60
        return self.missing + self.minutes if self.missing else max(30, self.minutes * 2 // 3)

    def told_to(self, wishes: Wishes) -> tuple[str, ...]:
        """Whom to tell: nobody where it is only information, to be read at the next planning."""
        return () if self.severity == "info" else wishes.notify

    def page(self, wishes: Wishes) -> str:
        """Where the runbook has it."""
        return f"{wishes.runbook or RUNBOOK}#{self.id.lower()}"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What users decide. `off` and `thresholds` are in the alerts that a renderer is handed.

    Args:
        services: `service.name` of the apps that are watched; empty: all.
        environments: `deployment.environment.name`, likewise.
        notify: whom to tell of what is more than `info`, in the backend's own words: `@slack-mobile`,
            `Email,team@example.com`.
        thresholds: the id of an alert → its threshold.
        off: ids of alerts that are not wanted.
        runbook: the address before `#` and the alert's id; empty: the page in the exporter's repository.
    """

    services: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    notify: tuple[str, ...] = ()
    thresholds: dict[str, float] = field(default_factory=dict)
    off: tuple[str, ...] = ()
    runbook: str = ""

    @property
    def chosen(self) -> dict[str, tuple[str, ...]]:
        """Attribute → the values that are wanted; none are all."""
        return {SERVICE: self.services, ENVIRONMENT: self.environments}


def duration(minutes: int) -> str:
    """`3d`, `13h`, `15m`, as each of the languages writes it."""
    for unit, size in (("d", 24 * 60), ("h", 60)):
        if minutes and minutes % size == 0:
            return f"{minutes // size}{unit}"
    return f"{minutes}m"


def of_apple(metric: AppleMetric, companion: Companion | None = None) -> Series:
    """One of Apple's metrics, or a companion of it."""
    if companion is None or not companion.suffix:
        return Series(metric.name, metric.unit, always=NO_BUILD)
    unit = metric.unit if companion.unit is None else companion.unit
    instrument: Instrument = "histogram" if companion.instrument == "histogram" else "gauge"
    return Series(f"{metric.name}.{companion.suffix}", unit, instrument, NO_BUILD)


def of_fixed(metric: FixedMetric) -> Series:
    """A metric whose name does not depend on Apple's words."""
    instruments: dict[str, Instrument] = {"gauge": "gauge", "counter": "counter", "histogram": "histogram"}
    return Series(metric.name, metric.unit, instruments[metric.instrument])
