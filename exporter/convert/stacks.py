"""Call stacks: which log is the same log, which problem the same problem, and how a stack is read.

A stack comes as its frames in pre-order, each with its depth; all stacks of a log together are one tree with
several roots. Whatever follows a path through it obeys one rule, the *heaviest path*: of the roots, and then
of the callees of a frame, the one with the most samples; a frame without a count has 0; of equals, the one
that Apple names first. A frame's samples are its own number, as Apple counts it: those of its callees are
part of it. Trees nest 10,000 deep and have 100,000 frames, so nothing here recurses and all is linear, but
for sorting siblings.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, count, groupby, islice
from typing import NamedTuple

from exporter.appstore.payloads.diagnostics import Frame, Log
from exporter.appstore.payloads.reader import clean_text

_UNBLAMED_FRAMES = 5  # that make up a fingerprint where Apple blames none
_LONGEST_NAME = 500  # characters of a symbol that are looked at; the payload's reader cuts there too
_DEEPEST_INDENT = 20  # levels of two columns

# What compilers number, or add and drop, from build to build: a person calls it the same function.
_FUNCTION = tuple(
    (re.compile(pattern), instead)
    for pattern, instead in (
        (r"\s\+\s?(?:0x[\da-fA-F]+|\d+)(?!\S)", ""),  # offset: foo + 123
        (r"\[?\b0x[\da-fA-F]+\b\]?", ""),  # address
        (r"\s\(?[^\s()]+\.(?:swift|mm?|c|cc|cpp|hh?|hpp):\d+\)?", ""),  # foo() (Foo.swift:12)
        (r"\s?\(?\.(?:cold|resume|destroy|cleanup|llvm|part|isra|constprop)\.\d+\)?", ""),  # LLVM, GCC
        (r"_block_invoke(?:[_.]\d+)*", "_block_invoke"),  # Objective-C block
        (r"\s?#\d+", ""),  # closure #1 in foo(), inner #2 () in foo(), {lambda()#3}
        (r" in _[\dA-F]{32}\b", ""),  # Swift, private to a file: (foo in _0123…)
        (r"_[\dA-F]{32}LL", "_LL"),  # the same, mangled
        (r"::h[\da-f]{16}\b", ""),  # Rust
        (r"(\$_|'lambda|OUTLINED_FUNCTION)_?\d+", r"\1"),  # C++ lambda, LLVM's outliner
        (r"^(_?\$[sS]\w*?)(?:TA|Tm|T[YQ]\d*_|Tf\d[a-zA-Z\d]*_n)+$", r"\1"),  # Swift, mangled, as below
        (
            r"^(?:(?:merged|specialized|partial apply(?: forwarder)? for"
            r"|(?:generic|function signature) specialization <.*?> of"
            r"|\(\d+\) (?:suspend|await) resume partial function for) )+",
            "",
        ),
    )
)
_SWIFT_CLOSURE = re.compile(r"(?<=f[Uu])\d+(?=_)")  # $s4Shop3payyyFyycfU0_: closure #2 in Shop.pay()


def identity(kind: str, log: Log, otherwise: str) -> bytes:
    """What makes a log the same log over downloads, restarts, builds and signatures: 16 bytes.

    Apple gives a log neither id nor time, so it is made from what the device measured: the metadata, and of
    each frame its depth, binary, address, offset in the binary's text and samples. Names count only in frames
    with neither address nor offset: Apple may find the names of the others later, and the log is the same.
    What Apple concludes (blame, insight, file, line) does not count.

    Args:
        kind: the diagnostic type, such as `HANGS`.
        log: the log.
        otherwise: what a log with nothing in it is known by: its signature's id.
    """
    metadata = (
        *(log.event, log.detail, log.writes_caused, log.os_version, log.app_version, log.build_version),
        *(log.bundle_id, log.device, log.architecture),
    )
    empty = not any(metadata) and not any(any(_measured(frame)) for frame in chain(*log.stacks))
    digest = hashlib.sha256(ascii((kind, otherwise) if empty else (kind, metadata)).encode())
    for stack in () if empty else log.stacks:
        digest.update(ascii([(frame.depth, *_measured(frame)) for frame in stack]).encode())
    return digest.digest()[:16]


def fingerprint(kind: str, stacks: Sequence[Sequence[Frame]], signature: str) -> str:
    """What ties the same problem together over builds, devices and OS versions: 16 lower-case hex digits.

    Made from the diagnostic type and the names of the blamed frames, from the outside in, along the heaviest
    path that has any. Where Apple blames none: of the frames with a symbol on the heaviest path the innermost
    five. The outer ones are the run loop's, which all stacks share; the innermost say what was being done;
    and with more than five, each caller of one slow function would make a problem of its own. Where there is
    no symbol either: the `problem` of the signature's text.

    A name is the symbol without what changes from build to build (offsets, addresses, file and line, a
    compiler's numbers and prefixes); a blamed frame without a symbol is its binary. The same name twice in a
    row, a recursion, counts once. Samples matter only in so far as they say which path is the heaviest.
    """
    tree = _tree(stacks)
    blamed = (tree[place].frame for place in _path(tree, _is_blamed) if tree[place].frame.blamed)
    names = _without_repeats(_function(frame.symbol) or _one_line(frame.binary) for frame in blamed)
    if not names:
        outwards = (_function(tree[place].frame.symbol) for place in reversed(_path(tree)))
        names = _without_repeats(outwards, _UNBLAMED_FRAMES)[::-1]
    return _hex(kind, names) if names else problem(kind, signature)


def problem(kind: str, signature: str) -> str:
    """The fingerprint of a signature of which nothing but the text is known: 16 lower-case hex digits."""
    return _hex(kind, [_function(signature) or signature])


def blamed_frame(stacks: Sequence[Sequence[Frame]]) -> Frame | None:
    """The frame that an engineer looks at first: the innermost blamed one on the heaviest path that has any.

    Where none is blamed: the innermost one with an insight's category, found in the same way; else None.
    """
    tree = _tree(stacks)
    path = _path(tree, _is_blamed) or _path(tree, _has_category)
    return tree[path[-1]].frame if path else None


def render(stacks: Sequence[Sequence[Frame]], *, most_lines: int = 60, longest_line: int = 200) -> str:
    """The tree as engineers read one: heaviest path first, callees below their caller, one line a frame.

    ```
      53 main (in Shop)
    ▶ 53 Shop.Checkout.pay() (in Shop) Checkout.swift:42
      + 40 -[NSData writeToFile:atomically:] (in Foundation) [Synchronous I/O]
        … 12 more frames (40 samples)
      + 9 pread (in libsystem_kernel.dylib)
      … 3 more branches (4 samples, 17 frames)
    ```

    A line has ▶ if its frame is blamed, the samples, the symbol (else the raw frame, the binary with the
    offset, or the address), binary, file and line, and the insight's category, as far as Apple says. Only
    where the tree branches are the callees set in, each marked by +, at most 20 times; a chain goes straight
    down.

    Frames that are left out are counted where they are missing, with their samples unless the path goes on
    below them. Kept first, up to half of the lines, are the frames that are blamed or have a category, that
    of `blamed_frame` before all others; then the heaviest path from both ends inwards; then what has most
    samples.

    Args:
        stacks: the stacks of a log.
        most_lines: how many lines there are at most, 1 or more.
        longest_line: how many characters a line has at most, 1 or more.
    """
    tree = _tree(stacks)
    lines = (
        _gap_line(tree, run) if left_out else _frame_line(tree[run.start], longest_line)
        for left_out, run in _runs(_left_out(tree, most_lines))
    )
    return "\n".join(_cut(line, longest_line) for line in lines)


class _Node(NamedTuple):
    """A frame in its tree.

    `caller` is the place of its caller in the list of nodes, -1 for a root; `level` how often the tree
    branched on the way down to it; `branch` whether it is one of several callees, or of several roots.
    """

    frame: Frame
    caller: int
    level: int
    branch: bool


def _tree(stacks: Sequence[Sequence[Frame]]) -> list[_Node]:
    """All stacks as one tree in pre-order, the heaviest root and the heaviest callee of each frame first."""
    frames, callees = list(chain.from_iterable(stacks)), _callees(stacks)
    nodes: list[_Node] = []
    waiting = [(-1, -1, 0, False)]
    while waiting:
        index, caller, level, branch = waiting.pop()
        if index >= 0:
            nodes.append(_Node(frames[index], caller, level, branch))
        below = sorted(callees.get(index, ()), key=lambda callee: -(frames[callee].samples or 0))
        several, place = len(below) > 1, len(nodes) - 1
        waiting += [(callee, place, level + several, several) for callee in reversed(below)]
    return nodes


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


def _path(tree: list[_Node], wanted: Callable[[Frame], bool] | None = None) -> list[int]:
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


def _is_blamed(frame: Frame) -> bool:
    return frame.blamed


def _has_category(frame: Frame) -> bool:
    return bool(frame.category)


class _Choice:
    """Which frames get a line of their own; all the others between two such share one, that of a gap."""

    def __init__(self, frames: int) -> None:
        self._shown = bytearray([1, *bytes(frames), 1])  # an end is no gap
        self._lines = min(frames, 1)

    def add(self, places: Iterable[int], most: int) -> None:
        """Give a line to each frame for which no more than `most` lines are needed in all."""
        shown = self._shown
        for place in places:
            # One line more; and one gap fewer, as many, or one more.
            lines = self._lines + 2 - shown[place] - shown[place + 2]
            if not shown[place + 1] and lines <= most:
                shown[place + 1], self._lines = 1, lines

    def left_out(self) -> list[bool]:
        """For each frame whether it is in a gap."""
        return [not shown for shown in self._shown[1:-1]]


def _left_out(tree: list[_Node], most: int) -> list[bool]:
    path, blamed = _path(tree), _path(tree, _is_blamed) or _path(tree, _has_category)
    by_weight = sorted(range(len(tree)), key=lambda place: -(tree[place].frame.samples or 0))
    marked = (
        place
        for place in chain(_from_both_ends(blamed), by_weight)
        if tree[place].frame.blamed or tree[place].frame.category
    )
    choice = _Choice(len(tree))
    choice.add(marked, most // 2)
    choice.add(_from_both_ends(path), most)
    choice.add(by_weight, most)
    return choice.left_out()


def _from_both_ends(places: list[int]) -> Iterator[int]:
    """The last, the first, the last but one, …; each place comes twice."""
    return chain.from_iterable(zip(reversed(places), places, strict=True))


def _runs(left_out: list[bool]) -> Iterator[tuple[bool, range]]:
    """Each frame that is shown by itself, those left out as long as they stand together; in order."""
    start = 0
    for gap, together in groupby(left_out):
        end = start + sum(1 for _ in together)
        step = end - start if gap else 1
        yield from ((gap, range(place, place + step)) for place in range(start, end, step))
        start = end


def _frame_line(node: _Node, longest: int) -> str:
    frame = node.frame
    head = "▶ " if frame.blamed else "  "
    head += _indent(node) + ("+ " if node.branch else "")
    head += "" if frame.samples is None else f"{frame.samples:,} "
    name, tail = _name_and_tail(frame)
    room = max(longest - len(head) - len(tail), longest // 2)
    return head + _cut(name, room) + tail


def _gap_line(tree: list[_Node], gap: range) -> str:
    outermost = [tree[place] for place in gap if tree[place].caller < gap.start]
    goes_on = gap.stop < len(tree) and tree[gap.stop].caller >= gap.start
    samples = sum(node.frame.samples or 0 for node in outermost)
    details = [f"{samples:,} sample{'' if samples == 1 else 's'}"] if samples and not goes_on else []
    what = f"{len(gap):,} more frames"
    if len(outermost) > 1 and not goes_on:
        details.append(f"{len(gap):,} frames")
        what = f"{len(outermost):,} more branches"
    return f"  {_indent(outermost[0])}… {what}" + (f" ({', '.join(details)})" if details else "")


def _indent(node: _Node) -> str:
    return "  " * min(node.level - node.branch, _DEEPEST_INDENT)


def _name_and_tail(frame: Frame) -> tuple[str, str]:
    """What the frame is called, and what else is known of it, with a space before it."""
    symbol, raw, binary, offset = map(
        _one_line, (frame.symbol, frame.raw, frame.binary, frame.offset_in_text)
    )
    tail = f" {_one_line(frame.file)}" + (f":{frame.line}" if frame.line else "") if frame.file else ""
    tail += f" [{_one_line(frame.category)}]" if frame.category else ""
    if not symbol and (raw or (binary and offset)):
        return raw or f"{binary} + {offset}", tail
    return symbol or _one_line(frame.address) or "???", (f" (in {binary})" if binary else "") + tail


def _measured(frame: Frame) -> tuple[str | int | None, ...]:
    name = "" if frame.address or frame.offset_in_text else frame.symbol or frame.raw
    return (frame.binary_uuid or frame.binary, frame.address, frame.offset_in_text, frame.samples, name)


def _without_repeats(names: Iterable[str], most: int | None = None) -> list[str]:
    """The names that are not empty, the same one in a row once, at most `most` of them."""
    return [name for name, _ in islice(groupby(filter(None, names)), most)]


@lru_cache(maxsize=4096)
def _function(symbol: str) -> str:
    """A symbol without what changes from build to build; may leave nothing of it."""
    name = _one_line(symbol)
    for pattern, instead in _FUNCTION:
        name = pattern.sub(instead, name)
    if name.startswith(("$s", "_$s", "$S", "_$S")):
        name = _SWIFT_CLOSURE.sub("", name)
    return " ".join(name.split())


def _hex(kind: str, names: list[str]) -> str:
    return hashlib.sha256(ascii((kind, names)).encode()).hexdigest()[:16]


def _one_line(text: str) -> str:
    return " ".join(clean_text(text, _LONGEST_NAME).split())


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
