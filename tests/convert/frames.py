"""Frames and stacks for the tests of what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exporter.appstore.payloads.diagnostics import Frame, Log

Stacks = tuple[tuple[Frame, ...], ...]
NO_LOG = Log("", "", "", "", "", "", "", "", "", ())


def frame(depth: int, symbol: str = "", samples: int | None = None, **others: Any) -> Frame:
    nothing = Frame(depth, symbol, "", "", "", None, "", "", "", "", samples, False, "")
    return nothing._replace(**others)


def chain_of(*symbols: str, blamed: bool = True) -> Stacks:
    return (tuple(frame(depth, symbol, 9, blamed=blamed) for depth, symbol in enumerate(symbols)),)


def changed(stacks: Stacks, change: Callable[[Frame], Frame]) -> Stacks:
    return tuple(tuple(map(change, stack)) for stack in stacks)
