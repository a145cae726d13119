"""Searches for the Splunk platform, which has the events. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from exporter.assets.model import Events

SOURCETYPE = "appstore:event"  # as `config/collector/signalfx.yaml` sends them


def search(events: Events, chosen: Iterable[tuple[str, Sequence[str]]]) -> str:
    """A search for events, by indexed fields.

    Args:
        chosen: fields, each with the values of which it has to have one, beside the events' own `where`; no
            values are any.
    """
    own = ((key, (value,)) for key, value in events.where)
    terms = (
        _any_of(key, values) for key, values in (("otel.log.name", (events.name,)), *chosen, *own) if values
    )
    return f'sourcetype="{SOURCETYPE}" {" ".join(terms)}'


def _any_of(key: str, values: Sequence[str]) -> str:
    terms = [f'{key}::"{value}"' for value in values]
    return terms[0] if len(terms) == 1 else f"({' OR '.join(terms)})"
