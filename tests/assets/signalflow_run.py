"""A program of SignalFlow run over made-up points, a minute a step, by the rules of Splunk's documentation.

Where those leave a choice, what is stricter is taken: a point that is missing is no part of a duration.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.assets import signalflow
from tests.assets.signalflow import Term

Group = tuple[tuple[str, str], ...]
Values = list[float | None]
_MINUTES = {"m": 1, "h": 60, "d": 24 * 60, "w": 7 * 24 * 60}


@dataclass(frozen=True)
class MetricTimeSeries:
    """A metric, its dimensions, and its value at each minute; None: no point came."""

    metric: str
    dimensions: Mapping[str, str]
    values: Sequence[float | None]


def active(program: str, series: Iterable[MetricTimeSeries]) -> dict[str, dict[Group, list[bool]]]:
    """Which alerts are on: label of the detection → dimensions → each minute."""
    signalflow.parse(program)
    tree = _Operators().visit(ast.parse(program))
    tree.body = [node for node in tree.body if not isinstance(node, ast.ImportFrom)]
    found: dict[str, dict[Group, list[bool]]] = {}
    exec(compile(ast.fix_missing_locations(tree), "<signalflow>", "exec"), _functions(tuple(series), found))
    return found


class _Operators(ast.NodeTransformer):
    """`and` and `not` of filters, as operators that Python lets a class define."""

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        values: list[ast.expr] = [self.visit(value) for value in node.values]
        found = values[0]
        for value in values[1:]:
            found = ast.BinOp(found, ast.BitAnd(), value)
        return found

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        operator = ast.Invert() if isinstance(node.op, ast.Not) else node.op
        return ast.UnaryOp(operator, self.visit(node.operand))


@dataclass(frozen=True)
class _Filter:
    terms: tuple[Term, ...] = ()

    def __and__(self, other: _Filter) -> _Filter:
        return _Filter(self.terms + other.terms)

    def __invert__(self) -> _Filter:
        (term,) = self.terms
        return _Filter((Term(term.key, term.values, not term.negated),))


@dataclass(frozen=True)
class _Stream:
    groups: dict[Group, Values]

    def max(self, by: list[str] | None = None, over: str = "") -> _Stream:
        return self._joined(max, by, over)

    def min(self, by: list[str] | None = None, over: str = "") -> _Stream:
        return self._joined(min, by, over)

    def sum(self, by: list[str] | None = None, over: str = "") -> _Stream:
        return self._joined(sum, by, over)

    def publish(self, label: str) -> _Stream:
        assert label
        return self

    def __truediv__(self, other: _Stream) -> _Stream:
        return _Stream(
            {
                group: [
                    None if one is None or two is None else one / two
                    for one, two in zip(values, other.groups[group], strict=True)
                ]
                for group, values in self._items()
                if group in other.groups
            }
        )

    def __ge__(self, threshold: float) -> _Condition:
        return self._is(lambda value: value >= threshold)

    def __gt__(self, threshold: float) -> _Condition:
        return self._is(lambda value: value > threshold)

    def __le__(self, threshold: float) -> _Condition:
        return self._is(lambda value: value <= threshold)

    def __lt__(self, threshold: float) -> _Condition:
        return self._is(lambda value: value < threshold)

    def _joined(self, join: Callable[[list[float]], float], by: list[str] | None, over: str) -> _Stream:
        if over:
            return _Stream({group: _rolled(values, join, _minutes(over)) for group, values in self._items()})
        together: dict[Group, list[Values]] = {}
        for group, values in self._items():
            key = tuple(sorted((name, value) for name, value in group if name in (by or ())))
            if len(key) == len(by or ()):
                together.setdefault(key, []).append(values)
        return _Stream(
            {key: [_of(join, step) for step in zip(*all_, strict=True)] for key, all_ in together.items()}
        )

    def _items(self) -> Iterable[tuple[Group, Values]]:
        return self.groups.items()

    def _is(self, holds: Callable[[float], bool]) -> _Condition:
        return _Condition(
            {
                group: [None if value is None else holds(value) for value in values]
                for group, values in self._items()
            }
        )


@dataclass(frozen=True)
class _Condition:
    groups: dict[Group, list[bool | None]]
    lasting: int = 1
    at_least: float = 1.0

    def met(self, group: Group, minute: int) -> bool:
        steps = self.groups[group][max(0, minute - self.lasting + 1) : minute + 1]
        return steps[-1] is True and steps.count(True) >= self.at_least * self.lasting


@dataclass(frozen=True)
class _Detection:
    groups: dict[Group, list[bool]]
    found: dict[str, dict[Group, list[bool]]]

    def publish(self, label: str) -> None:
        self.found[label] = self.groups


def _functions(
    series: tuple[MetricTimeSeries, ...], found: dict[str, dict[Group, list[bool]]]
) -> dict[str, Any]:
    def data(metric: str, filter: _Filter = _Filter(), **how: Any) -> _Stream:  # noqa: A002
        bridged = how.get("maxExtrapolations", 0) if how.get("extrapolation") == "last_value" else 0
        zero = how.get("extrapolation") == "zero"
        return _Stream(
            {
                tuple(sorted(one.dimensions.items())): _extrapolated(one.values, bridged, zero)
                for one in series
                if one.metric == metric and all(term.holds(one.dimensions) for term in filter.terms)
            }
        )

    def when(condition: _Condition, lasting: str = "1m", at_least: float = 1.0) -> _Condition:
        return _Condition(condition.groups, _minutes(lasting), at_least)

    def detect(on: _Condition, auto_resolve_after: str, off: _Condition | None = None) -> _Detection:
        ends = _minutes(auto_resolve_after)
        return _Detection({group: _states(group, on, off, ends) for group in on.groups}, found)

    class not_reporting:  # noqa: N801
        @staticmethod
        def detector(
            stream: _Stream, resource_identifier: list[str] | None, duration: str, auto_resolve_after: str
        ) -> _Detection:
            heard = stream.max(by=resource_identifier)
            ends = _minutes(duration) + _minutes(auto_resolve_after)
            return _Detection(
                {
                    group: [_minutes(duration) <= silence < ends for silence in _silence(values)]
                    for group, values in heard.groups.items()
                },
                found,
            )

    return {
        "data": data,
        "filter": lambda key, *values: _Filter((Term(key, values, negated=False),)),
        "threshold": float,
        "when": when,
        "detect": detect,
        "not_reporting": not_reporting,
    }


def _states(group: Group, on: _Condition, off: _Condition | None, ends: int) -> list[bool]:
    states: list[bool] = []
    is_on = False
    silences = _silence(on.groups[group])
    for minute, value in enumerate(on.groups[group]):
        over = off.met(group, minute) if off else value is False
        if is_on and (over or silences[minute] >= ends):
            is_on = False
        elif not is_on:
            is_on = on.met(group, minute)
        states.append(is_on)
    return states


def _silence(values: Sequence[float | None]) -> list[int]:
    """For how many minutes nothing has come; 0 where nothing ever came."""
    lengths: list[int] = []
    last: int | None = None
    for minute, value in enumerate(values):
        last = last if value is None else minute
        lengths.append(0 if last is None else minute - last)
    return lengths


def _extrapolated(values: Sequence[float | None], bridged: int, zero: bool) -> Values:
    filled: Values = []
    for minute, silence in enumerate(_silence(values)):
        value = values[minute - silence]
        filled.append(value if silence <= bridged else 0.0 if zero else None)
    return filled


def _rolled(values: Values, join: Callable[[list[float]], float], minutes: int) -> Values:
    return [_of(join, values[max(0, end - minutes) : end]) for end in range(1, len(values) + 1)]


def _of(join: Callable[[list[float]], float], values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return join(there) if there else None


def _minutes(duration: str) -> int:
    return int(duration[:-1]) * _MINUTES[duration[-1]]
