"""SignalFlow read: its grammar, its functions, and what a program asks for. Pure.

SignalFlow has Python's grammar with less in it. Of Python's syntax tree only what SignalFlow also has is let
through, and of its functions only those that our programs use, with the arguments that are documented.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

LONGEST = 50_000
MOST_QUERIES = 200

FUNCTIONS: Mapping[str, tuple[int, frozenset[str]]] = {  # positional arguments at most, named ones
    "data": (1, frozenset({"filter", "rollup", "extrapolation", "maxExtrapolations"})),
    "histogram": (1, frozenset({"filter"})),
    "filter": (99, frozenset()),
    "threshold": (1, frozenset()),
    "when": (1, frozenset({"lasting", "at_least"})),
    "detect": (1, frozenset({"off", "auto_resolve_after"})),
    "not_reporting.detector": (
        0,
        frozenset({"stream", "resource_identifier", "duration", "auto_resolve_after"}),
    ),
}
METHODS: Mapping[str, tuple[int, frozenset[str]]] = {
    "max": (0, frozenset({"by", "over"})),
    "min": (0, frozenset({"by", "over"})),
    "sum": (0, frozenset({"by", "over"})),
    "mean": (0, frozenset({"by"})),
    "percentile": (0, frozenset({"pct", "by"})),
    "scale": (1, frozenset()),
    "top": (0, frozenset({"count"})),
    "publish": (1, frozenset({"label"})),
}
VALUES: Mapping[str, frozenset[object]] = {
    "rollup": frozenset({"latest", "sum"}),
    "extrapolation": frozenset({"null", "zero", "last_value"}),
}
DURATIONS = ("lasting", "over", "duration", "auto_resolve_after")
MODULES = {"signalfx.detectors.not_reporting": "not_reporting"}
_DURATION = re.compile(r"[1-9][0-9]*[smhdw]")

_NODES = (
    *(ast.Module, ast.Assign, ast.Expr, ast.ImportFrom, ast.alias),
    *(ast.Call, ast.Attribute, ast.Name, ast.keyword, ast.Constant, ast.List),
    *(ast.BinOp, ast.Div, ast.Mult, ast.Sub, ast.BoolOp, ast.And, ast.UnaryOp, ast.Not, ast.USub),
    *(ast.Compare, ast.GtE, ast.LtE, ast.Gt, ast.Lt, ast.Load, ast.Store),
)


class NotSignalFlowError(Exception):
    """What the text has that SignalFlow, or what we use of it, has not."""


Condition = Callable[[Mapping[str, str]], bool]


@dataclass(frozen=True)
class Term:
    """One `filter(…)`: of the dimension one of the values, or none of them."""

    key: str
    values: tuple[str, ...]
    negated: bool

    def holds(self, dimensions: Mapping[str, str]) -> bool:
        """Whether a time series passes; one without the dimension passes only what is negated."""
        value = dimensions.get(self.key)
        found = value is not None and any(matches(pattern, value) for pattern in self.values)
        return found is not self.negated


@dataclass(frozen=True)
class Source:
    """A `data(…)` or `histogram(…)` and the groups that its stream is joined to."""

    kind: str
    metric: str
    terms: tuple[Term, ...]
    by: tuple[str, ...]
    rollup: str


@dataclass(frozen=True)
class Program:
    """What a program asks for and publishes: streams by their label, detections by theirs."""

    sources: tuple[Source, ...]
    streams: tuple[str, ...]
    detections: tuple[str, ...]


def matches(pattern: str, value: str) -> bool:
    """Whether a value is one that a filter's value means; `*` is any text."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), value, re.S) is not None


def parse(text: str) -> Program:
    """Read a program.

    Raises:
        NotSignalFlowError: it is none, or has something that our programs have no use for.
    """
    if len(text) > LONGEST:
        raise NotSignalFlowError(f"{len(text)} characters")
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise NotSignalFlowError(str(error)) from error
    _check_strings(text)
    for node in ast.walk(tree):
        _check(node)
    sources = tuple(_sources(tree))
    if len(sources) > MOST_QUERIES:
        raise NotSignalFlowError(f"{len(sources)} queries")
    _check_names(tree)
    published = [(_root(call), _label(call)) for call in _calls(tree) if _method(call) == "publish"]
    streams = tuple(label for root, label in published if root not in ("detect", "not_reporting.detector"))
    detections = tuple(label for root, label in published if root in ("detect", "not_reporting.detector"))
    if len(set(streams + detections)) < len(published):
        raise NotSignalFlowError(f"a label twice: {streams + detections}")
    return Program(sources, streams, detections)


def _check_strings(text: str) -> None:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.STRING and not re.fullmatch(r"""'[^'"\\\n]*'|"[^"\\\n]*\"""", token.string):
            raise NotSignalFlowError(f"a string of another form: {token.string}")
        if token.type == tokenize.COMMENT:
            raise NotSignalFlowError(f"a comment: {token.string}")


def _check(node: ast.AST) -> None:
    if not isinstance(node, _NODES):
        raise NotSignalFlowError(f"{type(node).__name__}: {ast.unparse(node)}")
    if isinstance(node, ast.Assign) and not (
        len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
    ):
        raise NotSignalFlowError(f"an assignment to other than a name: {ast.unparse(node)}")
    if isinstance(node, ast.Constant) and not isinstance(node.value, (str, int, float, type(None))):
        raise NotSignalFlowError(f"a constant of another kind: {node.value!r}")
    if isinstance(node, ast.ImportFrom) and [name.name for name in node.names if not name.asname] != [
        MODULES.get(node.module or "")
    ]:
        raise NotSignalFlowError(ast.unparse(node))
    if isinstance(node, ast.Call):
        _check_call(node)


def _check_call(call: ast.Call) -> None:
    method = _method(call)
    name = _function(call) or method
    most, named = (METHODS if method else FUNCTIONS).get(name, (0, None))
    if named is None:
        raise NotSignalFlowError(f"no function of ours: {ast.unparse(call.func)}")
    given = [keyword.arg for keyword in call.keywords]
    if len(call.args) > most or not named.issuperset(given) or len(set(given)) < len(given):
        raise NotSignalFlowError(f"{name} has no such arguments: {ast.unparse(call)}")
    for keyword in call.keywords:
        value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
        if value not in VALUES.get(keyword.arg or "", {value}):
            raise NotSignalFlowError(f"{keyword.arg} is {value!r}")
        if keyword.arg in DURATIONS and not (isinstance(value, str) and _DURATION.fullmatch(value)):
            raise NotSignalFlowError(f"{keyword.arg} is no duration: {value!r}")


def _check_names(tree: ast.Module) -> None:
    known = set(FUNCTIONS)
    for statement in tree.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in known:
                raise NotSignalFlowError(f"{node.id} is not defined")
        if isinstance(statement, ast.Assign):
            known |= {name.id for name in statement.targets if isinstance(name, ast.Name)}
        if isinstance(statement, ast.ImportFrom):
            known |= {name.name for name in statement.names}


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _function(call: ast.Call) -> str:
    """The name of a function, with its module; empty for a method of a stream."""
    name = ast.unparse(call.func)
    return name if isinstance(call.func, ast.Name) or name in FUNCTIONS else ""


def _method(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) and not _function(call) else ""


def _root(node: ast.expr) -> str:
    """The function that a chain of methods begins with; empty for a name or an expression."""
    while isinstance(node, ast.Call):
        if name := _function(node):
            return name
        assert isinstance(node.func, ast.Attribute)
        node = node.func.value
    return ""


def _label(call: ast.Call) -> str:
    (label,) = [*call.args, *(keyword.value for keyword in call.keywords)]
    return _text(label)


def _sources(tree: ast.AST) -> Iterator[Source]:
    chains = {id(call.func.value): call for call in _calls(tree) if isinstance(call.func, ast.Attribute)}
    for call in _calls(tree):
        if _function(call) in ("data", "histogram"):
            named = {keyword.arg: keyword.value for keyword in call.keywords}
            yield Source(
                _function(call),
                _text(call.args[0]),
                tuple(_terms(named["filter"])) if "filter" in named else (),
                tuple(_groups(tree, chains, call)),
                _text(named["rollup"]) if "rollup" in named else "",
            )


def _groups(tree: ast.AST, chains: Mapping[int, ast.Call], source: ast.Call) -> Iterator[str]:
    found: ast.Call | None = source
    while found := chains.get(id(found)):
        yield from _listed(found, "by")
    for call in _calls(tree):
        if any(keyword.value is source for keyword in call.keywords):
            yield from _listed(call, "resource_identifier")


def _listed(call: ast.Call, name: str) -> Iterator[str]:
    for keyword in call.keywords:
        if keyword.arg == name and isinstance(keyword.value, ast.List):
            yield from map(_text, keyword.value.elts)


def _terms(node: ast.expr, negated: bool = False) -> Iterator[Term]:
    if isinstance(node, ast.BoolOp) and not negated:
        for value in node.values:
            yield from _terms(value)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield from _terms(node.operand, not negated)
    elif isinstance(node, ast.Call) and _function(node) == "filter" and len(node.args) > 1:
        key, *values = map(_text, node.args)
        yield Term(key, tuple(values), negated)
    else:
        raise NotSignalFlowError(f"no filter: {ast.unparse(node)}")


def _text(node: ast.expr) -> str:
    if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
        raise NotSignalFlowError(f"no text: {ast.unparse(node)}")
    return node.value
