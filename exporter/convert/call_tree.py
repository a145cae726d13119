"""The call stacks of a log as one tree.

A stack comes as its frames in pre-order, each with its depth; all stacks of a log together are one tree with
several roots. Whatever follows a path through it obeys one rule, the *heaviest path*: of the roots, and then
of the callees of a frame, the one with the most samples; a frame without a count has 0; of equals, the one
that Apple names first. A frame's samples are its own number, as Apple counts it: those of its callees are
part of it. Trees nest 10,000 deep and have 100,000 frames, so nothing here recurses and all is linear, but
for sorting siblings.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import chain, count
from typing import NamedTuple

from exporter.appstore.payloads.diagnostics import Frame
from exporter.appstore.payloads.reader import clean_text

_LONGEST_NAME = 500  # characters of a symbol that are looked at; the payload's reader cuts there too


class Node(NamedTuple):
    """A frame in its tree.

    `caller` is the place of its caller in the list of nodes, -1 for a root; `level` how often the tree
    branched on the way down to it; `branch` whether it is one of several callees, or of several roots.
    """

    frame: Frame
    caller: int
    level: int
    branch: bool


def call_tree(stacks: Sequence[Sequence[Frame]]) -> list[Node]:
    """All stacks as one tree in pre-order, the heaviest root and the heaviest callee of each frame first."""
    frames, callees = list(chain.from_iterable(stacks)), _callees(stacks)
    nodes: list[Node] = []
    waiting = [(-1, -1, 0, False)]
    while waiting:
        index, caller, level, branch = waiting.pop()
        if index >= 0:
            nodes.append(Node(frames[index], caller, level, branch))
        below = sorted(callees.get(index, ()), key=lambda callee: -(frames[callee].samples or 0))
        several, place = len(below) > 1, len(nodes) - 1
        waiting += [(callee, place, level + several, several) for callee in reversed(below)]
    return nodes


def heaviest_path(tree: list[Node], wanted: Callable[[Frame], bool] | None = None) -> list[int]:
    """The places of the heaviest path that ends in a wanted frame with none below it; all are by default."""
    leads = [wanted is None or wanted(node.frame) for node in tree]
    for place in reversed(range(len(tree))):
        if leads[place] and tree[place].caller >= 0:
            leads[tree[place].caller] = True
    path = [-1]
    for place, node in enumerate(tree):
        if leads[place] and node.caller == path[-1]:
            path.append(place)
    return path[1:]


def blamed_frame(tree: list[Node]) -> Frame | None:
    """The frame that an engineer looks at first: the innermost blamed one on the heaviest path that has any.

    Where none is blamed: the innermost one with an insight's category, found in the same way; else None.
    """
    path = heaviest_path(tree, is_blamed) or heaviest_path(tree, has_category)
    return tree[path[-1]].frame if path else None


def is_blamed(frame: Frame) -> bool:
    """Whether Apple blames the frame."""
    return frame.blamed


def has_category(frame: Frame) -> bool:
    """Whether one of Apple's insights is about the frame."""
    return bool(frame.category)


def one_line(text: str) -> str:
    """What Apple calls something, cut and without line ends: a symbol may hold whatever a linker took."""
    return " ".join(clean_text(text, _LONGEST_NAME).split())


def _callees(stacks: Sequence[Sequence[Frame]]) -> dict[int, list[int]]:
    """Which frames each frame calls, the roots under -1, by their places in the stacks put end to end."""
    callees: defaultdict[int, list[int]] = defaultdict(list)
    index = count()
    for stack in stacks:
        callers: list[tuple[float, int]] = [(-math.inf, -1)]
        for frame in stack:
            while callers[-1][0] >= frame.depth:
                callers.pop()
            callers.append((frame.depth, next(index)))
            callees[callers[-2][1]].append(callers[-1][1])
    return callees
