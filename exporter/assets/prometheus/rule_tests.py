"""The unit tests of the rules, made from the alerts themselves, for `promtool test rules`. Pure.

They look at ALERTS, which Prometheus keeps of its own alerts: each must fire for its group, alone, and end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from exporter.assets.model import ENVIRONMENT, SERVICE, Alert, Query, Wishes
from exporter.assets.prometheus.promql import label, metric_name, quoted

_STEP = 5  # minutes between two samples, and between two evaluations
_PAGE = 15  # minutes for which the Collector shows what did not come again: metric_expiration of its overlay
_EXAMPLES = {
    SERVICE: "com.example.app",
    ENVIRONMENT: "production",
    "platform": "iOS",
    "version": "2.0",
    "device": "iPhone1,1",
    "percentile": "p90",
    "account": "main",
    "app": "com.example.app",
}

_Piece = tuple[float | str | None, int]  # a value, "stale" or None for no sample; for so many minutes


def rule_tests(
    alerts: Sequence[Alert],
    wishes: Wishes,
    labels: Mapping[str, Mapping[str, str]],
    held: Mapping[str, int],
    prefix: str,
    no_data: str,
) -> dict[str, Any]:
    """The file's content.

    Args:
        alerts: with the thresholds that users want.
        labels: the id of an alert → what its rules bear.
        held: the id of an alert → the minutes that it goes by the last value.
        prefix: what the names of rules begin with.
        no_data: what those end with that are about silence.
    """
    examples = {**_EXAMPLES, **{key: one for key, one in _wanted(wishes) if one}}
    writer = _Writer(examples, labels, held, prefix, no_data, [alert for alert in alerts if alert.missing])
    return {
        "rule_files": ["rules.yml"],
        "evaluation_interval": f"{_STEP}m",
        "tests": [test for alert in alerts for test in writer.tests_of(alert)],
    }


def _wanted(wishes: Wishes) -> Iterator[tuple[str, str]]:
    yield SERVICE, next(iter(wishes.services), "")
    yield ENVIRONMENT, next(iter(wishes.environments), "")


class _Writer:
    """Writes the tests of one alert after the other.

    Args:
        examples: attribute → the value that its series have.
        heartbeats: the alerts that fire by silence: their series go on, unless it is they that are tested.
    """

    def __init__(
        self,
        examples: Mapping[str, str],
        labels: Mapping[str, Mapping[str, str]],
        held: Mapping[str, int],
        prefix: str,
        no_data: str,
        heartbeats: Sequence[Alert],
    ) -> None:
        self._examples = examples
        self._labels = labels
        self._held = held
        self._prefix = prefix
        self._no_data = no_data
        self._heartbeats = heartbeats

    def tests_of(self, alert: Alert) -> Iterator[dict[str, Any]]:
        """By its threshold; and by silence, where that counts."""
        yield self._of_counter(alert, alert.window) if alert.window else self._of_gauge(alert)
        if alert.missing:
            yield self._of_silence(alert, alert.missing)

    def _of_gauge(self, alert: Alert) -> dict[str, Any]:
        wait, bad, good = _whole(alert.minutes), alert.threshold, _good(alert)
        held = _whole(self._held[alert.id])
        away = _whole(held // 2)
        before: list[_Piece] = [
            *((good, 30), (bad, wait), (good, 30)),  # bad for too short a time
            *((bad, wait + 30), ("stale", away), (bad, 30), (good, 30)),  # a restart, or a page that was away
            (bad, wait + 30),
        ]
        begin, gone = 60 + wait, sum(length for _, length in before)
        gap = begin + wait + 30
        ends: _Piece = ("stale", 2 * held)  # it comes no more
        fires = self._alert(alert)
        moments = {
            25: None,
            25 + wait: None,
            30 + wait: None,
            begin + wait - _STEP: None,
            begin + wait: fires,
            gap + away - _STEP: fires,
            gap + away + 25: fires,
            gap + away + 30: None,
            gone + held - 15: fires,
            gone + held + _STEP: None,
        }
        name = f"{alert.id} by its value"
        if alert.fades:  # what goes is what only the newest version has
            return self._test(name, alert, [*before, (bad, 2 * held)], moments, [(1, gone), ends])
        return self._test(name, alert, [*before, ends], moments)

    def _of_counter(self, alert: Alert, window: int) -> dict[str, Any]:
        wait, window, step = _whole(alert.minutes), _whole(window), max(alert.threshold, 1.0)
        rising: list[_Piece] = [(step * (place + 1), _STEP) for place in range(wait // _STEP + 2)]
        away = window + 2 * _PAGE + 60  # until nobody remembers that it was there
        end = 30 + len(rising) * _STEP
        again = end + away
        fall = again + 10 + len(rising) * _STEP + window + 2 * _PAGE
        most = rising[-1][0]
        pieces: list[_Piece] = [
            *((None, 30), *rising, ("stale", away)),  # the first increments, then nothing
            *((0, 10), *rising, (most, window + 2 * _PAGE)),  # the Collector was restarted: again from 0
            *((*rising, (most, _PAGE))),  # and once more, where it was still seen
        ]
        fires = self._alert(alert)
        moments = {
            25: None,
            30 + wait: fires,
            end + window + _STEP: None,
            again + 5: None,
            again + 10 + wait: fires,
            fall - _STEP: None,
            fall + wait: fires,
        }
        return self._test(f"{alert.id} by what was added", alert, pieces, moments)

    def _of_silence(self, alert: Alert, missing: int) -> dict[str, Any]:
        wait, missing = _whole(alert.minutes), _whole(missing)
        unheard = wait + 60
        silent = unheard + 120 + missing
        pieces: list[_Piece] = [
            (None, unheard),
            (_good(alert), 120),
            ("stale", missing + wait + 60),
            (_good(alert), 30),
        ]
        moments = {
            wait: self._alert(alert, self._no_data, ()),  # it was never heard of
            unheard + 60: None,
            silent + wait - 2 * _STEP: None,
            silent + wait + _STEP: self._alert(alert, self._no_data, alert.query.by[:1]),
            silent + wait + 60: None,
        }
        return self._test(f"{alert.id} by silence", alert, pieces, moments)

    def _test(
        self,
        name: str,
        alert: Alert,
        pieces: Sequence[_Piece],
        moments: Mapping[int, str | None],
        beside: Sequence[_Piece] = (),
    ) -> dict[str, Any]:
        """A test: what comes of the alert's query, and which alert alone fires at which minute.

        Args:
            beside: what comes of that by which it is multiplied or divided; always 1, if nothing is said.
        """
        minutes = sum(length for _, length in pieces)
        series = {self._series(alert.query): pieces}
        for other in (alert.times, alert.over):
            if other:
                series[self._series(other)] = beside or [(1, minutes)]
        for heartbeat in self._heartbeats:
            series.setdefault(self._series(heartbeat.query), [(_good(heartbeat), minutes)])
        return {
            "name": name,
            "interval": f"{_STEP}m",
            "input_series": [{"series": of, "values": _values(series[of])} for of in series],
            "promql_expr_test": [_firing(minute, fires) for minute, fires in moments.items()],
        }

    def _alert(self, alert: Alert, suffix: str = "", group: Sequence[str] | None = None) -> str:
        """The series in ALERTS while a rule fires for its group."""
        of_group = alert.query.by if group is None else group
        labels = {label(name): self._example(name, alert.query) for name in of_group}
        name = f"{self._prefix}{alert.id}{suffix}"
        of_rule = {**self._labels[alert.id], "alertname": name, "alertstate": "firing"}
        return _written("ALERTS", {**labels, **of_rule})

    def _series(self, query: Query) -> str:
        wanted = (key for key, value in query.conditions if value != "!*")
        names = dict.fromkeys([*query.by, *wanted])
        return _written(metric_name(query.metric), {label(key): self._example(key, query) for key in names})

    def _example(self, name: str, query: Query) -> str:
        """A value that the query takes."""
        wanted = dict(query.conditions).get(name, "!")
        if wanted.endswith("*") and not wanted.startswith("!"):
            return f"{wanted[:-1]}iphones"
        return self._examples.get(name, "one") if wanted.startswith("!") else wanted


def _good(alert: Alert) -> float:
    """A value on the good side of the threshold, and not far from it."""
    far = max(1.0, abs(alert.threshold) / 100)
    return alert.threshold - far if alert.compare == ">=" else alert.threshold + far


def _whole(minutes: int) -> int:
    """As many minutes, or a few more, so that they are whole steps."""
    return -(-minutes // _STEP) * _STEP


def _firing(minute: int, alert: str | None) -> dict[str, Any]:
    samples = [{"labels": alert, "value": 1}] if alert else []
    return {"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{minute}m", "exp_samples": samples}


def _written(name: str, labels: Mapping[str, str]) -> str:
    return f"{name}{{{', '.join(f'{key}={quoted(value)}' for key, value in sorted(labels.items()))}}}"


def _values(pieces: Iterable[_Piece]) -> str:
    return " ".join(_expanded(value, minutes // _STEP) for value, minutes in pieces if minutes)


def _expanded(value: float | str | None, count: int) -> str:
    """In promtool's notation, in which `1x2` is three samples and `_x2` two that are missing."""
    if value is None:
        return f"_x{count}"
    if isinstance(value, str):
        return f"{value} _x{count - 1}"
    return f"{value:.15g}x{count - 1}"
