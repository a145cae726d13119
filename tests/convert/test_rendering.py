from __future__ import annotations

import re
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.appstore.payloads.diagnostics import Frame
from tests.convert.frames import Stacks, blamed_frame, changed, frame, render

LEFT_OUT = re.compile(
    r"… ([\d,]+) more frames|… [\d,]+ more branches \((?:-?[\d,]+ samples?, )?([\d,]+) frames\)"
)


def test_a_tree_is_rendered_as_engineers_read_it() -> None:
    """Heaviest first, set in where it branches, blame, place and category; unsymbolicated frames as known."""
    stack = (
        frame(0, "main", 53, binary="Shop"),
        frame(1, "lighter", 4),
        frame(1, "Shop.pay()", 48, binary="Shop", blamed=True, file="Pay.swift", line=42),
        frame(2, "write", 40, category="Synchronous I/O", binary="Foundation", file="Write.m"),
        frame(3, raw="kernel 0x1 + 2", samples=40, binary="kernel"),
        frame(4, samples=1_234, binary="kernel", offset_in_text="99", address="0x2"),
        frame(5, binary="kernel", address="0x2", line=7),
        frame(6, address="0x2"),
        frame(7, binary="kernel"),
        frame(8),
        frame(1, "lightest", 1),
    )
    assert render(((frame(0, "other", 2), frame(1, "callee", 2)), stack)).split("\n") == [
        "  + 53 main (in Shop)",
        "▶   + 48 Shop.pay() (in Shop) Pay.swift:42",
        "      40 write (in Foundation) Write.m [Synchronous I/O]",
        "      40 kernel 0x1 + 2",
        "      1,234 kernel + 99",
        "      0x2 (in kernel)",
        "      0x2",
        "      ??? (in kernel)",
        "      ???",
        "    + 4 lighter",
        "    + 1 lightest",
        "  + 2 other",
        "    2 callee",
    ]


def test_the_middle_of_a_deep_chain_is_left_out() -> None:
    """A deep chain does not wander to the right; its outer and inner parts are shown and blame in between."""
    chain = [frame(depth, f"f{depth}", 5, blamed=depth == 500) for depth in range(10_000)]
    lines = render((chain,), most_lines=10).split("\n")
    assert lines == [
        *(f"  5 f{depth}" for depth in range(3)),
        "  … 497 more frames",
        "▶ 5 f500",
        "  … 9,495 more frames",
        *(f"  5 f{depth}" for depth in range(9_996, 10_000)),
    ]


def test_branches_that_are_left_out_are_counted() -> None:
    """How many branches, with how many samples and frames, and one sample is not one samples."""
    few = (frame(0, "main", 9), *(frame(1, f"f{number}", 9 - number) for number in range(3)))
    many = (frame(0, "main", 9), frame(1, "f", 5), *(frame(depth, "g", 1) for depth in (1, 2, 1)))
    chain = (frame(0, "main"), *(frame(depth, "f", 1) for depth in range(1, 5)))
    assert render((few,), most_lines=3).split("\n")[1:] == [
        "  + 9 f0",
        "  … 2 more branches (15 samples, 2 frames)",
    ]
    assert render((many,), most_lines=3).split("\n")[2] == "  … 2 more branches (2 samples, 3 frames)"
    assert render((chain,), most_lines=1) == "  … 5 more frames"
    assert render((few[1:],), most_lines=1) == "  … 3 more branches (24 samples, 3 frames)"
    assert render((changed((few[1:],), lambda one: one._replace(samples=None))), most_lines=1) == (
        "  … 3 more branches (3 frames)"
    )
    fork = (frame(0, "a", 5), frame(1, "b", 3), frame(1, "c", 1), frame(2, "d", 1))
    assert render((fork,), most_lines=3).split("\n")[2] == "  … 2 more frames (1 sample)"


def test_a_gap_above_a_frame_that_is_shown_is_no_branch() -> None:
    """Where the path to a blamed frame is left out with what it branched to, only frames are counted."""
    aside = [frame(depth, "aside", 2) for depth in range(2, 9)]
    stack = [frame(0, "main", 9), frame(1, "heavy", 5), frame(1, "light", 3), *aside]
    straight = render(((*stack, frame(2, "blamed", 1, blamed=True)),), most_lines=4)
    assert straight.split("\n")[2:] == ["  … 8 more frames", "▶   + 1 blamed"]
    stack[2:2] = [frame(1, "other", 4)]
    several = render(((*stack, frame(2, "blamed", 1, blamed=True)),), most_lines=4)
    assert several.split("\n")[2:] == ["  … 9 more frames", "▶   + 1 blamed"]


def test_much_blame_leaves_room_for_the_heaviest_path() -> None:
    """Blamed frames that stand alone take half of the lines at most; the rest are the ends of the path."""
    chain = [frame(depth, f"f{depth}", 5, blamed=depth % 3 == 1) for depth in range(10_000)]
    lines = render((chain,), most_lines=40).split("\n")
    assert [line.split()[-1] for line in lines[:9]] == [f"f{depth}" for depth in range(9)]
    assert [line.split()[-1] for line in lines[-9:]] == [f"f{depth}" for depth in range(9_991, 10_000)]


def test_the_frame_to_look_at_has_a_line_among_much_blame() -> None:
    """The innermost of thousands of blamed frames is shown although it is at neither end."""
    chain = [frame(depth, f"f{depth}", 5, blamed=depth < 5_000) for depth in range(10_000)]
    assert "▶ 5 f4999\n" in render((chain,), most_lines=12)


def test_blame_beside_the_heaviest_path_is_shown() -> None:
    """A few blamed frames deep in light branches have a line, however much outweighs them."""
    heavy = tuple(frame(depth, f"f{depth}", 9, blamed=depth == 50) for depth in range(100))
    light = tuple(frame(depth, f"g{depth}", 1, blamed=depth == 50) for depth in range(100))
    blamed = [line for line in render((light, heavy), most_lines=20).split("\n") if line.startswith("▶")]
    assert blamed == ["▶   9 f50", "▶   1 g50"]


def test_heavier_branches_are_shown_before_lighter_ones() -> None:
    """What is beside the heaviest path is shown by its samples, not by where it stands."""
    light = [frame(2, f"light{number}", 1) for number in range(5)]
    stack = (frame(0, "main", 99), frame(1, "a", 60), frame(2, "b", 50), *light, frame(1, "c", 39))
    assert render((stack,), most_lines=5).split("\n")[2:] == [
        "    + 50 b",
        "    … 5 more branches (5 samples, 5 frames)",
        "  + 39 c",
    ]


def test_indentation_is_bounded() -> None:
    """A tree that branches a thousand times is set in twenty times."""
    comb = [one for depth in range(1_000) for one in (frame(depth, "a", 1), frame(depth, "b", 2))]
    lines = render((comb,), most_lines=3_000).split("\n")
    assert len(lines) == 2_000
    assert max(len(line) - len(line.lstrip()) for line in lines) == 2 + 2 * 20


def test_a_long_name_is_cut_before_what_stands_behind_it() -> None:
    """File, line and category stay readable next to a symbol of 500 characters; at worst the line is cut."""
    long = frame(0, "x" * 500, 5, file="Pay.swift", line=42, category="Synchronous I/O")
    line = render(((long,),))
    assert len(line) == 200
    assert line.endswith("x… Pay.swift:42 [Synchronous I/O]")
    line = render(((long._replace(file="f" * 500),),))
    assert len(line) == 200
    assert line.startswith("  5 " + "x" * 99 + "… fff")
    assert line.endswith("f…")


def test_no_control_character_gets_through() -> None:
    """A line break or an escape sequence in a name neither makes a line nor reaches a terminal."""
    name = "a\r\nb\x1b[2J\u2028\u202e\ud800\x00c"
    hostile = frame(0, name, binary=name, file=name, category=name, blamed=True)
    text = render(((hostile, frame(1, raw="a\nb"), frame(2, address="\n\x00"), frame(3, "\n")),))
    assert text.split("\n") == [
        "▶ a b [2J ? c (in a b [2J ? c) a b [2J ? c [a b [2J ? c]",
        "  a b",
        "  ???",
        "  ???",
    ]


depths = st.lists(st.integers(0, 12), max_size=60)


@st.composite
def trees(draw: st.DrawFn) -> Stacks:
    """Any stacks, each frame with a symbol of its own; depths may jump."""
    stacks, number = [], 0
    for stack in draw(st.lists(depths, max_size=4)):
        frames = []
        for depth in stack:
            number += 1
            samples = draw(st.sampled_from([None, 0, 1, 2, 5, 1_000]))
            blamed, category = draw(st.sampled_from([(False, "")] * 6 + [(True, ""), (False, "Hang")]))
            frames.append(frame(depth, f"<{number}>", samples, blamed=blamed, category=category))
        stacks.append(tuple(frames))
    return tuple(stacks)


@settings(deadline=None)
@given(trees(), st.integers(1, 70), st.integers(20, 120))
def test_every_frame_is_shown_or_counted_as_left_out(stacks: Stacks, most: int, longest: int) -> None:
    """Never too many lines nor too long ones; what is shown and what is said to be left out is everything."""
    text = render(stacks, most_lines=most, longest_line=longest)
    lines = text.split("\n") if text else []
    assert len(lines) <= most
    assert all(len(line) <= longest for line in lines)
    shown = [line for line in lines if "<" in line]
    whole = render(stacks, most_lines=most, longest_line=1_000).split("\n") if text else []
    left_out = [match for line in whole if (match := LEFT_OUT.search(line))]
    missing = sum(int((match[1] or match[2]).replace(",", "")) for match in left_out)
    assert len(shown) + len(left_out) == len(lines)
    assert len(shown) + missing == sum(map(len, stacks))
    assert not any(re.search(r"… 1 more", line) for line in lines)


@settings(deadline=None)
@given(trees(), st.integers(12, 70))
def test_blamed_frames_are_shown(stacks: Stacks, most: int) -> None:
    """The frame to look at always has a line, and so have all blamed frames where they are few."""
    lines = render(stacks, most_lines=most).split("\n")
    marked = [one for stack in stacks for one in stack if one.blamed or one.category]
    first = blamed_frame(stacks)
    few = marked if len(marked) <= (most // 2 - 4) // 2 else [first] if first else []
    for one in few:
        assert any(f"{one.symbol}" in line and line.startswith("▶") == one.blamed for line in lines)


@given(trees())
def test_the_whole_tree_is_in_order_of_weight(stacks: Stacks) -> None:
    """Without a limit each frame has one line, and the heaviest root comes first."""
    lines = render(stacks, most_lines=1_000).split("\n")
    numbers = sorted(int(match[1]) for line in lines if (match := re.search(r"<(\d+)>", line)))
    assert numbers == list(range(1, sum(map(len, stacks)) + 1))
    roots = [one for stack in stacks for one in roots_of(stack)]
    if roots:
        assert max(roots, key=lambda one: one.samples or 0).symbol in lines[0]


def roots_of(stack: tuple[Frame, ...]) -> Iterator[Frame]:
    """The frames that no frame calls: none before them is less deep."""
    least = 1_000
    for one in stack:
        if one.depth <= least:
            least = one.depth
            yield one
