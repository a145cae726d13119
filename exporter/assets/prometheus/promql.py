"""Queries in PromQL, with the names that the Collector's prometheus exporter gives. Pure.

Names: docs/backends.md, and the OpenTelemetry specification, Prometheus and OpenMetrics compatibility.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from exporter.assets.model import ENVIRONMENT, SERVICE, Query, Series, Wishes, duration
from exporter.errors import ConfigError

LATELY = 60
"""Minutes: what was seen within them is there now; longer than any restart."""
GONE = 14 * 24 * 60
"""Minutes after which what is silent is forgotten; a day less than Prometheus keeps unless told otherwise."""

_STEP = "5m"  # as long as Prometheus looks back for a sample: none is left out
_UNITS = {"s": "seconds", "ms": "milliseconds", "By": "bytes", "%": "percent", "1": "ratio"}
_PER = {"s": "second", "h": "hour", "d": "day"}
_ANNOTATION = re.compile(r"\{[^}]*\}")
_PLAIN = re.compile(r"[A-Za-z0-9_ :/-]")
_REMEMBERED = "30d"  # for as long as config/collector/prometheus.yaml lets the Collector add a counter up


def metric_name(series: Series) -> str:
    """The name on the Collector's page; of a histogram the one before `_bucket`.

    A name that ends with its unit keeps it once. One without a dot is as Prometheus has it already, such as
    those of the Collector itself.
    """
    if "." not in series.name:
        return series.name
    unit, _, per = _ANNOTATION.sub("", series.unit).partition("/")
    counter = series.instrument == "counter"
    suffixes = [_UNITS.get(unit, unit)] if unit and not (unit == "1" and counter) else []
    suffixes += ["per", _PER.get(per, per)] if per else []
    name = series.name.replace(".", "_")
    suffix = "".join(f"_{one}" for one in suffixes)
    return name.removesuffix(suffix) + suffix + ("_total" if counter else "")


def label(attribute: str) -> str:
    """The label that an attribute becomes."""
    return attribute.replace(".", "_")


def quoted(text: str) -> str:
    """A string of PromQL. JSON's escapes are among Go's, which PromQL takes."""
    return json.dumps(text, ensure_ascii=False)


def any_of(values: Iterable[str], setting: str) -> str:
    """A regular expression (RE2) for these texts and no others, whatever they hold.

    What is no plain character is written by its number, so that nothing is left that PromQL, Go's templates
    or Grafana's variables could read as theirs.

    Args:
        setting: where the values come from, for the error.

    Raises:
        ConfigError: a value is empty, no Unicode text, or a pattern.
    """
    return "|".join(_literally(_no_pattern(value, setting), setting) for value in values)


def _no_pattern(text: str, setting: str) -> str:
    if "*" in text:
        raise ConfigError(
            f"{text!a} is a pattern, and names are looked for as they are written",
            remedy="Write each name out, or leave the list empty: then all of them are watched.",
            where=setting,
        )
    return text


def whole_text(text: str, setting: str) -> str:
    """The text; ConfigError where it is empty or holds half a character, which no file can."""
    if not text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(
            f"{text!a} is no text that could be looked for or shown",
            remedy="Write what your metrics have, or leave the list empty.",
            where=setting,
        )
    return text


def _literally(text: str, setting: str) -> str:
    return "".join(map(_one, whole_text(text, setting)))


def _one(character: str) -> str:
    if character == ".":
        return r"\."
    return character if _PLAIN.match(character) else rf"\x{{{ord(character):x}}}"


def wished(wishes: Wishes) -> dict[str, str]:
    """Attribute → the regular expression of the values that users want to see, where they said so."""
    settings = {SERVICE: "alerts.services", ENVIRONMENT: "alerts.environments"}
    return {name: any_of(values, settings[name]) for name, values in wishes.chosen.items() if values}


def matchers(wishes: Wishes) -> list[str]:
    """The services and environments that users want, as matchers."""
    return [f"{label(name)}=~{quoted(regex)}" for name, regex in wished(wishes).items()]


def selector(query: Query, more: Sequence[str] = ()) -> str:
    """The series of a query; of a histogram its buckets.

    Args:
        more: further matchers.
    """
    name = metric_name(query.metric) + ("_bucket" if query.metric.instrument == "histogram" else "")
    all_ = [*(_matcher(label(key), value) for key, value in query.conditions), *more]
    return f"{name}{{{', '.join(all_)}}}" if all_ else name


def _matcher(name: str, value: str) -> str:
    unequal, text = value.startswith("!"), value.removeprefix("!")
    if text == "*":
        return f'{name}{"=" if unequal else "!="}""'  # an empty label is one that is not there
    if text.endswith("*"):
        return f"{name}{'!~' if unequal else '=~'}{quoted(_literally(text[:-1], name) + '.*')}"
    return f"{name}{'!=' if unequal else '='}{quoted(text)}"


def now(query: Query, more: Sequence[str] = ()) -> str:
    """A gauge, joined to one value a group."""
    return _joined(query.join, query.by, selector(query, more))


def held(query: Query, more: Sequence[str] = (), minutes: int = LATELY) -> str:
    """A gauge, joined; where it is missing for up to so many minutes, its last values.

    It is joined first and held then: a series that goes on under another label, as after an upgrade of the
    exporter, would otherwise stand beside its own past. Where a condition is a pattern, such as that of the
    families of devices, what meets it is held each for itself.
    """
    patterns = (key for key, value in query.conditions if value.endswith("*") and value != "!*")
    each = tuple(dict.fromkeys((*query.by, *patterns)))
    values = (
        f"last_over_time({_joined(query.join, each, selector(query, more))}[{duration(minutes)}:{_STEP}])"
    )
    return values if each == query.by else _joined(query.join, query.by, values)


def added(query: Query, window: str, more: Sequence[str] = ()) -> str:
    """What was added to a counter within the window, joined; nothing where nothing was.

    `increase` does not see the first increment of a counter, and most of ours are gone from the Collector's
    page a quarter of an hour after each increment. So the last value is held against the last one before the
    window: it grew; or it fell, as the Collector was restarted; or it came back, by its first increment or by
    the first one after a restart. In the last two cases what was added is the value itself.
    """
    series = selector(query, more)
    last, before = f"last_over_time({series}[{window}])", f"last_over_time({series}[{_REMEMBERED}] offset"
    cases = (
        f"{last} - {before} {window}) > 0",
        f"{last} < {before} {window})",
        f"{last} unless last_over_time({series}[{duration(LATELY)}] offset {window})",
    )
    alternatives = "\n  or ".join(f"({case})" for case in cases)
    return _joined(query.join, query.by, f"\n  {alternatives}\n")


def spread(query: Query, window: str, more: Sequence[str] = ()) -> str:
    """A percentile of what was added to a histogram within the window, a group.

    Each bucket is held against its own past, so the bar in which the Collector was restarted may miss some.
    """
    series = selector(query, more)
    last, before = f"last_over_time({series}[{window}])", f"last_over_time({series}[{_REMEMBERED}] offset"
    new = f"\n  ({last} - {before} {window}) >= 0)\n  or {last}\n"
    return f"histogram_quantile({(query.percentile or 50) / 100:g}, {_joined('sum', (*query.by, 'le'), new)})"


def by(attributes: Sequence[str]) -> str:
    """` by (a, b)`; empty for none."""
    return f" by ({', '.join(map(label, attributes))})" if attributes else ""


def _joined(join: str, attributes: Sequence[str], series: str) -> str:
    return f"{join}{by(attributes)} ({series})" if attributes else f"{join}({series})"
