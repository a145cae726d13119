"""Frames and stacks for the tests of what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from exporter.appstore.payloads.diagnostics import Frame, Log
from exporter.convert import call_tree, recognition, rendering

Stacks = tuple[tuple[Frame, ...], ...]
NO_LOG = Log("", "", "", "", "", "", "", "", "", ())


def frame(depth: int, symbol: str = "", samples: int | None = None, **others: Any) -> Frame:
    nothing = Frame(depth, symbol, "", "", "", None, "", "", "", "", samples, False, "")
    return nothing._replace(**others)


def chain_of(*symbols: str, blamed: bool = True) -> Stacks:
    return (tuple(frame(depth, symbol, 9, blamed=blamed) for depth, symbol in enumerate(symbols)),)


def changed(stacks: Stacks, change: Callable[[Frame], Frame]) -> Stacks:
    return tuple(tuple(map(change, stack)) for stack in stacks)


# What is made of a tree, told of the stacks that make it


def blamed_frame(stacks: Sequence[Sequence[Frame]]) -> Frame | None:
    return call_tree.blamed_frame(call_tree.call_tree(stacks))


def recognise(kind: str, stacks: Sequence[Sequence[Frame]], signature: str) -> recognition.Problem:
    return recognition.recognise(kind, call_tree.call_tree(stacks), signature)


def render(stacks: Sequence[Sequence[Frame]], **limits: int) -> str:
    return rendering.render(call_tree.call_tree(stacks), **limits)
