"""The unit tests of the rules, made from the alerts themselves, for `promtool test rules`. Pure.

They look at ALERTS, which Prometheus keeps of its own alerts: each must fire for its group, alone, and end.
Beside the series that fires are neighbours that a rule without one of its conditions or labels would take.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from exporter.assets.model import ENVIRONMENT, SERVICE, Alert, Query, Wishes, duration
from exporter.assets.prometheus.promql import label, metric_name, quoted
from exporter.convert.catalogue import OWN_ACCOUNTS

_STEP = 5  # minutes between two samples, and between two evaluations
_DEAD = 4 * 24 * 60  # minutes for which silence is watched: longer than a weekend
_PAGE = 15  # minutes for which the Collector shows what did not come again: metric_expiration of its overlay
_DIVISOR = 4  # what a query is held against, if anything
_EXAMPLES = {
    SERVICE: "com.example.app",
    ENVIRONMENT: "production",
    "platform": "iOS",
    "version": "2.0",
    "device": "iPhone1,1",
    "percentile": "p90",
    "metric": "appstore.launch.time",
    "diagnostic_type": "HANGS",
    "environment": "production",
    "account": "main",
    OWN_ACCOUNTS: "main",
    "app": "com.example.app",
    "instance": "collector:8888",
}
_OTHERS = {
    SERVICE: "com.example.other",
    ENVIRONMENT: "staging",
    "platform": "macOS",
    "version": "2.1",
    "metric": "appstore.hang.rate",
    "diagnostic_type": "LAUNCHES",
    "insight": "trend",
    "impact": "normal",
    "environment": "staging",
    "account": "games",
    OWN_ACCOUNTS: "games",
    "instance": "collector-2:8888",
}

_Piece = tuple[float | str | None, int]  # a value, "stale" or None for no sample; for so many minutes
_Labels = Mapping[str, str]
_SAME: _Labels = {}
_UPGRADED: _Labels = {"otel_scope_version": "99"}  # the same series, of another exporter


def rule_tests(
    alerts: Sequence[Alert],
    wishes: Wishes,
    labels: Mapping[str, Mapping[str, str]],
    prefix: str,
    no_data: str,
) -> dict[str, Any]:
    """The file's content.

    Args:
        labels: the id of an alert → what its rules bear.
        prefix: what the names of rules begin with.
        no_data: what those end with that are about silence.
    """
    writer = _Writer(wishes, labels, prefix, no_data, [alert for alert in alerts if alert.missing])
    gauges = [alert for alert in alerts if not alert.window]
    by_held = {held: [one for one in gauges if one.held == held] for held in {one.held for one in gauges}}
    return {
        "rule_files": ["rules.yml"],
        "evaluation_interval": f"{_STEP}m",
        "tests": [
            *(test for alert in alerts for test in writer.tests_of(alert)),
            *(writer.test_of_held(held, by_held[held]) for held in sorted(by_held)),
        ],
    }


class _Moment(NamedTuple):
    """What a query finds at a minute: series → value."""

    minute: int
    found: Mapping[str, int] = {}
    query: str = 'ALERTS{alertstate="firing"}'


class _Writer:
    """Writes the tests of one alert after the other.

    Args:
        heartbeats: the alerts that fire by silence: their series go on, unless it is they that are tested.
    """

    def __init__(
        self,
        wishes: Wishes,
        labels: Mapping[str, Mapping[str, str]],
        prefix: str,
        no_data: str,
        heartbeats: Sequence[Alert],
    ) -> None:
        self._watched = wishes.chosen
        self._labels = labels
        self._prefix = prefix
        self._no_data = no_data
        self._heartbeats = heartbeats

    def tests_of(self, alert: Alert) -> Iterator[dict[str, Any]]:
        """By its threshold; and by silence, where that counts."""
        yield self._of_counter(alert, alert.window) if alert.window else self._of_gauge(alert)
        if alert.missing:
            yield self._of_silence(alert, alert.missing)

    def test_of_held(self, held: int, alerts: Sequence[Alert]) -> dict[str, Any]:
        """What goes by the last value for so many minutes: a silence of two thirds changes nothing, and what
        is good ends it at once, though another exporter sends it by then. One of them then is silent for
        good: it takes time, and all are made alike.
        """
        wait, away, held = _whole(max(alert.minutes for alert in alerts)), _whole(held * 2 // 3), _whole(held)
        back = 30 + wait + away
        gone = back + 60 + wait + 30
        series: dict[str, str] = {}
        for place, alert in enumerate(alerts):
            bad, good = alert.threshold, _good(alert)
            last = good if place else bad
            before: list[_Piece] = [(bad, 30 + wait), ("stale", gone + held - 30 - wait)]
            then: list[_Piece] = [(None, back), (bad, 30), (good, 30), (last, wait + 30)]
            series |= self._of_group(alert, {}, before)
            series |= self._of_group(alert, _UPGRADED, [*then, ("stale", held)])
        all_, one = {self._alert(alert): 1 for alert in alerts}, {self._alert(alerts[0]): 1}
        moments = [
            *(_throughout(all_, 30 + wait, back + 25), _Moment(back + 30), _Moment(back + 60 + wait, one)),
            *(_Moment(gone + held - 2 * _STEP, one), _Moment(gone + held)),
        ]
        name = f"Silence of {duration(away)}, and of {duration(held)}"
        return self._written(name, series, moments, gone + held)

    def _of_gauge(self, alert: Alert) -> dict[str, Any]:
        """Bad for too short; bad, with a short silence; good, while the next version or another is bad."""
        wait, bad, good = _whole(alert.minutes), alert.threshold, _good(alert)
        fires = 60 + 2 * wait
        ended = fires + 90
        pieces: list[_Piece] = [
            *((good, 30), (bad, wait), (good, 30)),
            *((bad, wait + 30), ("stale", 30), (bad, 30), (good, wait + 60)),
        ]
        next_one: list[_Piece] = [(good, ended), (bad, wait + 30), (good, 30)]
        one, other = {self._alert(alert): 1}, {self._alert(alert, self._next(alert)): 1}
        moments = [
            *(_Moment(25), _Moment(25 + wait), _Moment(30 + wait), _Moment(fires - _STEP)),
            *(_Moment(fires, one), _throughout(one, fires, ended - _STEP), _Moment(ended)),
            *(_Moment(ended + wait - _STEP), _Moment(ended + wait, other), _Moment(ended + wait + 30)),
        ]
        return self._test(f"{alert.id} by its value", alert, pieces, moments, next_one=next_one)

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
        one = {self._alert(alert): 1}
        moments = [
            *(_Moment(25), _Moment(30 + wait, one), _Moment(end + window + _STEP)),
            *(_Moment(again + 5), _Moment(again + 10 + wait, one), _Moment(fall - _STEP)),
            _Moment(fall + wait, one),
        ]
        return self._test(f"{alert.id} by what was added", alert, pieces, moments)

    def _of_silence(self, alert: Alert, missing: int) -> dict[str, Any]:
        """Never heard of; silent for a while; silent for days, while others are heard."""
        alert = _heard(alert)
        wait, missing, good = _whole(alert.minutes), _whole(missing), _good(alert)
        begin = wait + 60
        silent = begin + 120 + missing
        back = silent + wait + 60
        end = back + 60 + _DEAD
        pieces: list[_Piece] = [
            *((None, begin), (good, 120), ("stale", missing + wait + 60)),
            *((good, 60), ("stale", _DEAD)),
        ]
        others: list[_Piece] = [(None, begin), (good, end - begin)]
        name = f"{self._prefix}{alert.id}{self._no_data}"
        nobody, one = ({self._fires(alert, name, group): 1} for group in ({}, self._group(alert)))
        moments = [
            *(_Moment(wait, nobody), _Moment(begin + 60), _Moment(silent + wait - 2 * _STEP)),
            *(_Moment(silent + wait, one), _Moment(back)),
            _throughout(one, back + 60 + missing + wait, end),
        ]
        return self._test(f"{alert.id} by silence", alert, pieces, moments, others=others)

    def _test(
        self,
        name: str,
        alert: Alert,
        pieces: Sequence[_Piece],
        moments: Iterable[_Moment],
        *,
        others: Sequence[_Piece] = (),
        next_one: Sequence[_Piece] = (),
    ) -> dict[str, Any]:
        """A test: what comes of the alert's query, and what is found at which minute.

        Args:
            others: what comes of other groups; always good, if nothing is said.
            next_one: what comes of the next version, or of another account; like others, if nothing is said.
        """
        minutes = sum(length for _, length in pieces)
        others = others or [(_good(alert), minutes)]
        series = self._of_group(alert, {}, pieces)
        series |= {of: self._bad(alert, minutes) for of in self._unfit(alert.query)}
        for key in alert.query.by:
            series |= self._of_group(alert, {key: self._other(key)}, others)
            if self._watched.get(key) and alert.about == "app":
                series[self._series(alert.query, {key: self._other(key)})] = self._bad(alert, minutes)
        if next_one:
            series |= self._of_group(alert, self._next(alert), next_one)
        return self._written(name, series, moments, minutes)

    def _written(
        self, name: str, series: dict[str, str], moments: Iterable[_Moment], minutes: int
    ) -> dict[str, Any]:
        """In promtool's form; what has to be heard of all the time is added."""
        for heartbeat in self._heartbeats:
            heard = _heard(heartbeat)
            series.setdefault(self._series(heard.query), _values([(_good(heard), minutes)]))
        return {
            "name": name,
            "interval": f"{_STEP}m",
            "input_series": [{"series": of, "values": series[of]} for of in series],
            "promql_expr_test": [_expected(moment) for moment in moments],
        }

    def _of_group(self, alert: Alert, changed: _Labels, pieces: Sequence[_Piece]) -> dict[str, str]:
        """Series → samples, of a group and of what it is held against."""
        if not alert.over:
            return {self._series(alert.query, changed): _values(pieces)}
        minutes = sum(length for _, length in pieces)
        return {
            self._series(alert.query, changed): _values(pieces, _DIVISOR),
            self._series(alert.over, changed): _values([(_DIVISOR, minutes)]),
        }

    def _bad(self, alert: Alert, minutes: int) -> str:
        """Of a gauge: no alert on a counter has conditions that a neighbour could fail."""
        return _values([(alert.threshold, minutes)], _DIVISOR if alert.over else 1)

    def _unfit(self, query: Query) -> Iterator[str]:
        """The series that would fire, did they not fail one of the query's conditions, each another one."""
        for key, wanted in query.conditions:
            yield self._series(query, {key: self._unlike(key, wanted)})

    def _unlike(self, key: str, wanted: str) -> str:
        """A value that does not meet a condition."""
        if wanted == "!*":
            return "7"
        if wanted.startswith("!"):
            return _meeting(wanted[1:])
        return _EXAMPLES[key] if wanted.endswith("*") else self._other(key)

    def _alert(self, alert: Alert, changed: _Labels = _SAME) -> str:
        """The series in ALERTS while the rule fires for a group."""
        return self._fires(alert, f"{self._prefix}{alert.id}", {**self._group(alert), **changed})

    def _fires(self, alert: Alert, name: str, group: _Labels) -> str:
        of_rule = {**self._labels[alert.id], "alertname": name, "alertstate": "firing"}
        return _written("ALERTS", {**{label(key): value for key, value in group.items()}, **of_rule})

    def _group(self, alert: Alert) -> dict[str, str]:
        return {key: self._example(key, alert.query) for key in alert.query.by}

    def _next(self, alert: Alert) -> dict[str, str]:
        """What is another in the group that comes after this one: the version, or else the account."""
        key = "version" if "version" in alert.query.by else alert.query.by[-1]
        return {key: self._other(key)}

    def _series(self, query: Query, changed: _Labels = _SAME) -> str:
        wanted = (key for key, value in query.conditions if value != "!*")
        labels = {key: self._example(key, query) for key in (*query.by, *wanted)}
        return _written(metric_name(query.metric), {label(k): v for k, v in {**labels, **changed}.items()})

    def _example(self, key: str, query: Query) -> str:
        """A value that the query takes."""
        wanted = dict(query.conditions).get(key, "!")
        if not wanted.startswith("!"):
            return _meeting(wanted)
        return next(iter(self._watched.get(key, ())), _EXAMPLES.get(key, "one"))

    def _other(self, key: str) -> str:
        """A value of another group; of what is watched by name, one that is not."""
        watched = self._watched.get(key)
        return f"{max(watched)}+" if watched else _OTHERS.get(key, "another")


def _meeting(wanted: str) -> str:
    return f"{wanted[:-1]}iphones" if wanted.endswith("*") else wanted


def _good(alert: Alert) -> float:
    """A value on the good side of the threshold, and not far from it."""
    size = abs(alert.threshold)
    far = max(1.0, size / 100) if size >= 1 or not size else size / _DIVISOR
    return alert.threshold - far if alert.compare == ">=" else alert.threshold + far


def _heard(alert: Alert) -> Alert:
    """With what it is heard of by as its query; 0 of that is good."""
    return replace(alert, query=alert.heard, threshold=1, compare=">=") if alert.heard else alert


def _whole(minutes: int) -> int:
    """As many minutes, or a few more, so that they are whole steps."""
    return -(-minutes // _STEP) * _STEP


def _throughout(found: Mapping[str, int], begin: int, end: int) -> _Moment:
    """From one minute to the other the same alert, and never none."""
    count = (end - begin) // _STEP + 1
    query = f'count_over_time(ALERTS{{alertstate="firing"}}[{count * _STEP - 1}m])'
    return _Moment(end, {series.removeprefix("ALERTS"): count for series in found}, query)


def _expected(moment: _Moment) -> dict[str, Any]:
    samples = [{"labels": series, "value": value} for series, value in moment.found.items()]
    return {"expr": moment.query, "eval_time": f"{moment.minute}m", "exp_samples": samples}


def _written(name: str, labels: _Labels) -> str:
    return f"{name}{{{', '.join(f'{key}={quoted(value)}' for key, value in sorted(labels.items()))}}}"


def _values(pieces: Iterable[_Piece], factor: int = 1) -> str:
    return " ".join(_expanded(value, minutes // _STEP, factor) for value, minutes in pieces if minutes)


def _expanded(value: float | str | None, count: int, factor: int) -> str:
    """In promtool's notation, in which `1x2` is three samples and `_x2` two that are missing."""
    if value is None:
        return f"_x{count}"
    if isinstance(value, str):
        return f"{value} _x{count - 1}"
    return f"{value * factor:.15g}x{count - 1}"
