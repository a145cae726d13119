"""Prometheus' text format, version 0.0.4, as the Collector's prometheus exporter writes it.

The rules are those of Prometheus' documentation (Exposition formats). Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*"
_TEXT = r'"(?:[^"\\]|\\.)*"'
_LABEL = re.compile(rf"([a-zA-Z_][a-zA-Z0-9_]*)=({_TEXT})(?:,|$)")
_SAMPLE = re.compile(rf"({_NAME})(?:\{{((?:[^\"}}]|{_TEXT})*)\}})? ([^ ]+)(?: (-?[0-9]+))?")
_TYPE = re.compile(rf"# TYPE ({_NAME}) (counter|gauge|histogram|summary|untyped)")
_ESCAPED = re.compile(r"\\(.)")
_PART = re.compile(r"_(?:bucket|sum|count)$")


@dataclass(frozen=True, slots=True)
class Sample:
    """A line of a scrape.

    Args:
        name: with `_bucket`, `_sum` or `_count` where it is a part of a histogram.
        kind: that of its metric: gauge, counter, histogram, …; untyped without a TYPE line.
        labels: as text.
        value: NaN and infinities as such.
        time_unix_milli: None when the scraper is to put its own.
    """

    name: str
    kind: str
    labels: dict[str, str]
    value: float
    time_unix_milli: int | None


def read_samples(text: str) -> list[Sample]:
    """All samples of a scrape, in order; ValueError at a line that is none, and at a series twice."""
    kinds: dict[str, str] = {}
    samples: dict[tuple[str, frozenset[tuple[str, str]]], Sample] = {}
    for line in text.split("\n"):  # and no other line ends: labels may hold those
        if declared := _TYPE.fullmatch(line):
            kinds[declared[1]] = declared[2]
        elif line and not line.startswith("#"):
            sample = _sample(line, kinds)
            key = sample.name, frozenset(sample.labels.items())
            if key in samples:
                raise ValueError(f"a series twice: {line[:200]}")
            samples[key] = sample
    return list(samples.values())


def _sample(line: str, kinds: dict[str, str]) -> Sample:
    found = _SAMPLE.fullmatch(line)
    if found is None:
        raise ValueError(f"not a sample: {line[:200]}")
    name, labels, value, time = found.groups()
    return Sample(
        name=name,
        kind=kinds.get(name) or kinds.get(_PART.sub("", name), "untyped"),
        labels=_labels(labels or ""),
        value=float(value),
        time_unix_milli=None if time is None else int(time),
    )


def _labels(text: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    end = 0
    while end < len(text):
        found = _LABEL.match(text, end)
        if found is None or found[1] in labels:
            raise ValueError(f"not labels, or one twice: {text[:200]}")
        labels[found[1]] = _ESCAPED.sub(lambda pair: "\n" if pair[1] == "n" else pair[1], found[2][1:-1])
        end = found.end()
    return labels
