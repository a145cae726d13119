"""How a call stack is read: as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, groupby

from exporter.appstore.payloads.diagnostics import Frame
from exporter.convert.call_tree import Node, has_category, heaviest_path, is_blamed, one_line

_DEEPEST_INDENT = 20  # levels of two columns


def render(tree: list[Node], *, most_lines: int = 60, longest_line: int = 200) -> str:
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
    below them. Kept first, up to half of the lines, are the frames that are blamed or have a category, the
    innermost on the heaviest path before all others; then the heaviest path from both ends inwards; then what
    has most samples.

    Args:
        tree: the call tree of a log.
        most_lines: how many lines there are at most, 1 or more.
        longest_line: how many characters a line has at most, 1 or more.
    """
    lines = (
        _gap_line(tree, run) if left_out else _frame_line(tree[run.start], longest_line)
        for left_out, run in _runs(_left_out(tree, most_lines))
    )
    return "\n".join(_cut(line, longest_line) for line in lines)


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


def _left_out(tree: list[Node], most: int) -> list[bool]:
    path, blamed = heaviest_path(tree), heaviest_path(tree, is_blamed) or heaviest_path(tree, has_category)
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


def _frame_line(node: Node, longest: int) -> str:
    frame = node.frame
    head = "▶ " if frame.blamed else "  "
    head += _indent(node) + ("+ " if node.branch else "")
    head += "" if frame.samples is None else f"{frame.samples:,} "
    name, tail = _name_and_tail(frame)
    room = max(longest - len(head) - len(tail), longest // 2)
    return head + _cut(name, room) + tail


def _gap_line(tree: list[Node], gap: range) -> str:
    outermost = [tree[place] for place in gap if tree[place].caller < gap.start]
    goes_on = gap.stop < len(tree) and tree[gap.stop].caller >= gap.start
    samples = sum(node.frame.samples or 0 for node in outermost)
    details = [f"{samples:,} sample{'' if samples == 1 else 's'}"] if samples and not goes_on else []
    what = f"{len(gap):,} more frames"
    if len(outermost) > 1 and not goes_on:
        details.append(f"{len(gap):,} frames")
        what = f"{len(outermost):,} more branches"
    return f"  {_indent(outermost[0])}… {what}" + (f" ({', '.join(details)})" if details else "")


def _indent(node: Node) -> str:
    return "  " * min(node.level - node.branch, _DEEPEST_INDENT)


def _name_and_tail(frame: Frame) -> tuple[str, str]:
    """What the frame is called, and what else is known of it, with a space before it."""
    symbol, raw, binary, offset = map(one_line, (frame.symbol, frame.raw, frame.binary, frame.offset_in_text))
    tail = f" {one_line(frame.file)}" + (f":{frame.line}" if frame.line else "") if frame.file else ""
    tail += f" [{one_line(frame.category)}]" if frame.category else ""
    if not symbol and (raw or (binary and offset)):
        return raw or f"{binary} + {offset}", tail
    return symbol or one_line(frame.address) or "???", (f" (in {binary})" if binary else "") + tail


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
