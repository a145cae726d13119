"""Metric queries in Datadog's language. Pure.

Metrics and tags are named as they arrive there: docs/backends.md, "One point, three spellings".
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from exporter.assets.model import ENVIRONMENT, SERVICE, Events, Query, Where
from exporter.errors import ConfigError

KEYS = {SERVICE: "service", ENVIRONMENT: "env"}
"""Attribute → the key of its tag, by unified service tagging; others keep their names."""

_OUTSIDE_TAGS = re.compile(r"(?:[^\w:./-]|_)+")
_PLAIN = re.compile(r"[A-Za-z0-9_.]+")
_LONGEST_TAG = 200


class Term(NamedTuple):
    """A part of a filter: any of these `key:value`, or none of them."""

    tags: tuple[str, ...]
    negated: bool = False


def query_text(query: Query, scope: str, *, percentiles: bool = False) -> str:
    """`max:appstore.launch.time{device:all_*} by {version}`; a counter as a count.

    Args:
        scope: what stands between the braces, by `scope_of`.
        percentiles: whether they are switched on for the distributions in Datadog.
    """
    text = f"{aggregator_of(query, percentiles)}:{query.metric.name}{{{scope}}}"
    if query.by:
        text += f" by {{{','.join(map(key_of, query.by))}}}"
    return f"{text}.as_count()" if query.metric.instrument == "counter" else text


def aggregator_of(query: Query, percentiles: bool) -> str:
    """How the series of a group become one.

    A distribution has count, sum, min, max and avg always, and percentiles only where they are switched on:
    without, the average stands for the lower ones and the maximum for the higher.
    """
    if query.metric.instrument == "counter":
        return "sum"
    if query.percentile is None:
        return query.join
    if percentiles:
        return f"p{query.percentile}"
    return "avg" if query.percentile <= 50 else "max"


def search_text(events: Events) -> str:
    """A search of logs for the events: `@otel.event_name:appstore.insight @metric:appstore.hang.rate`.

    A value is in quotes unless it is a plain word; a boolean has to be one.
    """
    where = (
        f"@{key}:{value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)}"
        for key, value in events.where
    )
    return " ".join([f"@otel.event_name:{events.name}", *where])


def terms_of(where: Where) -> list[Term]:
    """The conditions of a description, with tags in Datadog's spelling: `!*` is without the tag."""
    return [
        Term((_spelled(key_of(attribute), value.removeprefix("!")),), value.startswith("!"))
        for attribute, value in where
    ]


def scope_of(variables: Sequence[str], terms: Sequence[Term]) -> str:
    """What stands between the braces: all of it has to hold; `*` if there is nothing.

    `,` and `!` must not stand beside AND, OR and NOT (Datadog, Advanced Filtering), so it is either.

    Args:
        variables: of the dashboard: `$service`.
    """
    if all(len(term.tags) == 1 for term in terms):
        parts = [*variables, *("!" * term.negated + term.tags[0] for term in terms)]
        return ",".join(parts) or "*"
    return " AND ".join([*variables, *map(_in_words, terms)])


def _in_words(term: Term) -> str:
    text = " OR ".join(term.tags)
    return f"{'NOT ' * term.negated}{text if len(term.tags) == 1 else f'({text})'}"


def key_of(attribute: str) -> str:
    """The key of an attribute's tag."""
    return KEYS.get(attribute, attribute)


def _spelled(key: str, value: str) -> str:
    """`key:value` in the letters that a tag can have, and a `*` at the end for any text."""
    text, wildcard = (value[:-1], "*") if value.endswith("*") else (value, "")
    return _OUTSIDE_TAGS.sub("_", f"{key}:{text}".lower()) + wildcard


def tag_of(key: str, value: str) -> str:
    """`key:value` as Datadog keeps it (Getting Started with Tags), of a value that a user chose.

    Nothing is left in it that would end a filter: it has letters, digits and `_-:./` only.

    Raises:
        ConfigError: it is empty, has nothing that a tag can have, or has a `*`, which Datadog never keeps.
    """
    text = _spelled(key, value.replace("*", " "))[:_LONGEST_TAG].rstrip("_")
    if "*" in value or text == f"{key}:":
        raise ConfigError(
            f"{value[:_LONGEST_TAG]!r} names no {key} that Datadog could have",
            remedy="Write the whole name; leave the list empty for all.",
            where={"service": "alerts.services", "env": "alerts.environments"}.get(key, "alerts"),
        )
    return text
