"""Terraform's JSON held against the published schema of the provider, `signalfx_schema.json`. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Schema = Mapping[str, Mapping[str, Any]]
SCHEMAS: Mapping[str, Schema] = json.loads(Path(__file__).with_name("signalfx_schema.json").read_text())
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "bool": (bool,),
    "int": (int,),
    "number": (int, float),
}
_NAME = re.compile(r"[a-z_][a-z0-9_-]*", re.I)
_REFERENCE = re.compile(r"(?<!\$)\$\{([^}]*)\}")


def resources(content: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """The resources of a file: kind, name, arguments."""
    for kind, named in content.get("resource", {}).items():
        for name, arguments in named.items():
            yield kind, name, arguments


def faults(kind: str, name: str, arguments: Mapping[str, Any]) -> list[str]:
    """What the provider would refuse in a resource: unknown, missing, of a wrong type, not allowed."""
    if kind.startswith("_") or kind not in SCHEMAS:
        return [f"{kind}: no such resource"]
    wrong = [] if _NAME.fullmatch(name) else [f"{kind}.{name}: no name"]
    return wrong + list(_block(f"{kind}.{name}", SCHEMAS[kind], arguments))


def references(value: object) -> Iterator[str]:
    """The expressions in a value, as Terraform would evaluate them."""
    if isinstance(value, str):
        yield from _REFERENCE.findall(value)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from references(one)
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from references(one)


def _block(path: str, schema: Schema, block: object) -> Iterator[str]:
    if not isinstance(block, Mapping):
        yield f"{path}: no block"
        return
    yield from (
        f"{path}: no {key}" for key, rule in schema.items() if rule.get("required") and key not in block
    )
    for key, value in block.items():
        if key not in schema:
            yield f"{path}: unknown {key}"
        else:
            yield from _value(f"{path}.{key}", schema[key], value)


def _value(path: str, rule: Mapping[str, Any], value: Any) -> Iterator[str]:
    kind: str = rule["type"]
    if kind in ("block", "blocks"):
        blocks = value if isinstance(value, list) else [value]
        if kind == "block" and len(blocks) > 1:
            yield f"{path}: more than one"
        for index, one in enumerate(blocks):
            yield from _block(f"{path}[{index}]", rule["of"], one)
    elif kind.startswith("list of "):
        if not isinstance(value, list):
            yield f"{path}: no list"
        else:
            for one in value:
                yield from _value(path, {**rule, "type": kind.removeprefix("list of ")}, one)
    elif not isinstance(value, _TYPES[kind]) or (kind != "bool" and isinstance(value, bool)):
        yield f"{path}: {value!r} is no {kind}"
    else:
        yield from (f"{path}: {value!r} is not allowed" for holds in _limits(rule, value) if not holds)


def _limits(rule: Mapping[str, Any], value: Any) -> Iterator[bool]:
    if "one_of" in rule:
        yield value in rule["one_of"]
    if "matches" in rule:
        yield re.fullmatch(rule["matches"], value) is not None
    for name, size in (("between", lambda: value), ("length", lambda: len(value))):
        if name in rule:
            least, most = rule[name]
            yield least <= size() and (most is None or size() <= most)
