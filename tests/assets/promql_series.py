"""PromQL as data: which series an expression asks for, and whether they arrived. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import promql_parser
from promql_parser import AggregateExpr, Expr, MatchOp, VectorSelector

from tests.backends.prometheus import Sample


@dataclass(frozen=True, slots=True)
class Asked:
    """A selector: the metric, its matchers, and the labels that the expression groups it by."""

    name: str
    matchers: tuple[promql_parser.Matcher, ...]
    by: frozenset[str]

    def finds(self, samples: Iterable[Sample]) -> bool:
        """Whether there is a series that it selects, with all the labels that it is grouped by."""
        return any(
            sample.name == self.name
            and self.by <= sample.labels.keys()
            and all(_holds(matcher, sample.labels.get(matcher.name, "")) for matcher in self.matchers)
            for sample in samples
        )

    def knows(self, samples: Iterable[Sample]) -> bool:
        """Whether each label that it names is one of the metric's."""
        keys = {key for sample in samples if sample.name == self.name for key in sample.labels}
        return {matcher.name for matcher in self.matchers if not _is_for_absence(matcher)} | self.by <= keys


def asked(expression: str) -> list[Asked]:
    """All selectors of an expression, in order.

    Raises:
        ValueError: it is no PromQL.
    """
    return list(_asked(promql_parser.parse(expression), frozenset()))


def questions(rule: Mapping[str, Any]) -> list[str]:
    """What the message of a rule asks Prometheus for, for whatever group it is about, and for no other."""
    found = re.findall(r'\(printf ("(?:[^"\\]|\\.)*")', rule["annotations"]["description"])
    asked_for = (re.sub(r"!=%\[\d+\]q", '!="none"', json.loads(question)) for question in found)
    return [re.sub(r"=%\[\d+\]q", '=~".+"', question) for question in asked_for]


def of_a_build(one: Asked) -> bool:
    """Whether it would select a series of a single build."""
    return all(_holds(matcher, "311") for matcher in one.matchers if matcher.name == "build")


def _asked(node: Expr, by: frozenset[str]) -> Iterator[Asked]:
    if isinstance(node, VectorSelector):
        yield Asked(node.name or "", tuple(node.matchers.matchers), by)
    if isinstance(node, AggregateExpr) and node.modifier:
        by = by | frozenset(node.modifier.labels)
    for name in ("expr", "lhs", "rhs", "vector_selector"):
        if isinstance(child := getattr(node, name, None), Expr):
            yield from _asked(child, by)
    for argument in getattr(node, "args", ()):
        yield from _asked(argument, by)


def _is_for_absence(matcher: promql_parser.Matcher) -> bool:
    return matcher.op == MatchOp.Equal and matcher.value == ""


def _holds(matcher: promql_parser.Matcher, value: str) -> bool:
    if matcher.op in (MatchOp.Equal, MatchOp.NotEqual):
        return (value == matcher.value) is (matcher.op == MatchOp.Equal)
    return bool(re.fullmatch(_for_python(matcher.value), value)) is (matcher.op == MatchOp.Re)


def _for_python(regex: str) -> str:
    r"""RE2 writes a character by its number as `\x{7b}`."""
    return re.sub(r"\\x\{([0-9a-f]+)\}", lambda found: re.escape(chr(int(found[1], 16))), regex)
