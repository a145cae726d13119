"""Datadog's metric queries, as far as our charts and monitors use them: a strict reader. Pure.

Whatever it does not know is an error. The forms are those of Datadog's documentation of metric queries, of
boolean and wildcard filters, and of the API of monitors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tests.backends.datadog import DatadogPoint

_QUERY = re.compile(
    r"(?P<how>avg|max|min|sum|p50|p90):(?P<metric>[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+)"
    r"\{(?P<scope>[^{}]+)\}(?: by \{(?P<by>[^{}]+)\})?(?P<count>\.as_count\(\))?"
)
_TAG = re.compile(r"(?P<key>[a-z][a-z0-9_.]*):(?P<value>[\w:./-]+\*?|\*)")
_VARIABLE = re.compile(r"\$[a-z_]+")
_MONITOR = re.compile(
    r"(?P<over>min|max|sum)\(last_(?P<many>[1-9]\d*)(?P<unit>[mhd])\):(?P<expression>.+?)"
    r"(?: (?P<sign>[*/]) (?P<scale>100|3600))? (?P<compare>>=|<=) (?P<threshold>-?\d+(?:\.\d+)?)"
)
_TOP = re.compile(r"top\((?P<query>.+), (?:5|10|25|50|100), '(?:max|mean|last)', '(?:asc|desc)'\)")
_FORMULA = re.compile(r"top\((?:\(a / b - 1\) \* 100|a \* b), 10, 'last', 'desc'\)")
_MINUTES = {"m": 1, "h": 60, "d": 24 * 60}


@dataclass(frozen=True, slots=True)
class Term:
    """Any of these tags, or none of them; a value may end with `*`."""

    tags: tuple[tuple[str, str], ...]
    negated: bool = False

    def holds(self, tags: Iterable[str]) -> bool:
        """Whether a point with these `key:value` is chosen."""
        pairs = [tag.partition(":")[::2] for tag in tags]
        return self.negated != any(
            key == has_key and matches(value, has_value)
            for key, value in self.tags
            for has_key, has_value in pairs
        )


@dataclass(frozen=True, slots=True)
class MetricQuery:
    """A query: how points are joined, which metric, which points, by which keys, whether as a count."""

    how: str
    metric: str
    variables: tuple[str, ...]
    terms: tuple[Term, ...]
    by: tuple[str, ...]
    count: bool

    def selects(self, points: Iterable[DatadogPoint]) -> list[DatadogPoint]:
        """Its points, if every variable is `*`: those that have all the keys that it groups by."""
        return [
            point
            for point in points
            if point.name == self.metric
            and all(term.holds(point.tags) for term in self.terms)
            and set(self.by) <= {tag.partition(":")[0] for tag in point.tags}
        ]


@dataclass(frozen=True, slots=True)
class MonitorQuery:
    """A condition: how the minutes are joined, of which query or over which other, times what, and when it
    counts.
    """

    over: str
    minutes: int
    queries: tuple[MetricQuery, ...]
    factor: float
    compare: str
    threshold: float


def matches(pattern: str, value: str) -> bool:
    """Whether a value of a filter, which may end with `*`, is or begins that of a tag."""
    return value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern


def read(text: str) -> MetricQuery:
    """A query of a chart."""
    found = _QUERY.fullmatch(text)
    assert found, f"no query that we know: {text}"
    variables, terms = _scope(found["scope"])
    by = tuple(found["by"].split(",")) if found["by"] else ()
    assert len(set(by)) == len(by), f"a key twice: {text}"
    assert all(re.fullmatch(r"[a-z][a-z0-9_.]*", key) for key in by), text
    return MetricQuery(found["how"], found["metric"], variables, terms, by, bool(found["count"]))


def read_monitor(text: str) -> MonitorQuery:
    """The query of a monitor: one metric or one over another, at the end times or over a number."""
    found = _MONITOR.fullmatch(text)
    assert found, f"no monitor that we know: {text}"
    queries = tuple(map(read, found["expression"].split(" / ")))
    assert len(queries) <= 2, text
    assert len({query.by for query in queries}) == 1, f"grouped by different keys: {text}"
    return MonitorQuery(
        found["over"],
        int(found["many"]) * _MINUTES[found["unit"]],
        queries,
        _factor(found["sign"], found["scale"]),
        found["compare"],
        float(found["threshold"]),
    )


def _factor(sign: str | None, scale: str | None) -> float:
    if scale is None:
        return 1
    return float(scale) if sign == "*" else 1 / float(scale)


def read_top(text: str) -> MetricQuery:
    """The query inside `top(…)`."""
    found = _TOP.fullmatch(text)
    assert found, f"no top() that we know: {text}"
    return read(found["query"])


def check_formula(text: str) -> None:
    """A formula over the queries `a` and `b`."""
    assert _FORMULA.fullmatch(text), f"no formula that we know: {text}"


def _scope(text: str) -> tuple[tuple[str, ...], tuple[Term, ...]]:
    """Parts joined by `,` and negated by `!`, or by AND, OR and NOT: never by both."""
    if text == "*":
        return (), ()
    in_words = re.search(r" |\(", text) is not None
    assert not (in_words and re.search(r"[,!]", text)), f"both ways to join: {text}"
    parts = text.split(" AND " if in_words else ",")
    variables = tuple(part for part in parts if _VARIABLE.fullmatch(part))
    terms = tuple(
        (_term_in_words if in_words else _term_in_signs)(part) for part in parts if part not in variables
    )
    return variables, terms


def _term_in_signs(text: str) -> Term:
    return Term((_tag(text.removeprefix("!")),), text.startswith("!"))


def _term_in_words(text: str) -> Term:
    plain = text.removeprefix("NOT ")
    negated = plain != text
    if plain.startswith("("):
        assert plain.endswith(")"), text
        return Term(tuple(map(_tag, plain[1:-1].split(" OR "))), negated)
    return Term((_tag(plain),), negated)


def _tag(text: str) -> tuple[str, str]:
    found = _TAG.fullmatch(text)
    assert found, f"no tag: {text!r}"
    assert text == text.lower(), f"Datadog keeps tags in lower case: {text}"
    return found["key"], found["value"]
