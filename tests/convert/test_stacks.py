from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.appstore.payloads.diagnostics import Frame, Log
from exporter.convert.stacks import blamed_frame, fingerprint, identity, problem, render

Stacks = tuple[tuple[Frame, ...], ...]
HEX = re.compile(r"[0-9a-f]{16}")
LEFT_OUT = re.compile(
    r"… ([\d,]+) more frames|… [\d,]+ more branches \((?:-?[\d,]+ samples?, )?([\d,]+) frames\)"
)
NO_LOG = Log("", "", "", "", "", "", "", "", "", ())


def frame(depth: int, symbol: str = "", samples: int | None = None, **others: Any) -> Frame:
    nothing = Frame(depth, symbol, "", "", "", None, "", "", "", "", samples, False, "")
    return nothing._replace(**others)


def chain_of(*symbols: str, blamed: bool = True) -> Stacks:
    return (tuple(frame(depth, symbol, 9, blamed=blamed) for depth, symbol in enumerate(symbols)),)


def changed(stacks: Stacks, change: Callable[[Frame], Frame]) -> Stacks:
    return tuple(tuple(map(change, stack)) for stack in stacks)


WHOLE = frame(
    3,
    "Shop.pay()",
    7,
    binary="Shop",
    binary_uuid="70B89F27",
    file="Shop.swift",
    line=12,
    address="0x1046f8",
    offset_in_symbol="48",
    offset_in_text="1356",
    raw="Shop 0x1046f8",
    blamed=True,
    category="Synchronous I/O",
)
LOG = Log(
    *(
        "hang",
        "2.4 sec",
        "",
        "iPhone OS 17.1 (21B74)",
        "2.0",
        "45",
        "com.example.shop",
        "iPhone13_3",
        "arm64e",
    ),
    stacks=((WHOLE,),),
)


@pytest.mark.parametrize(
    "conclusion",
    [
        {"symbol": ""},
        {"symbol": "other"},
        {"file": ""},
        {"line": None},
        {"blamed": False},
        {"category": ""},
        {"raw": ""},
        {"binary": "Other"},
        {"offset_in_symbol": "0"},
    ],
)
def test_what_apple_concludes_later_leaves_a_log_the_same(conclusion: dict[str, Any]) -> None:
    """Symbol, file, line, blame, insight and raw text may change between two downloads of one log."""
    later = replace(LOG, stacks=((WHOLE._replace(**conclusion),),))
    assert identity("HANGS", later, "s2") == identity("HANGS", LOG, "s1")
    assert len(identity("HANGS", LOG, "s1")) == 16


@pytest.mark.parametrize(
    "other",
    [
        *(replace(LOG, **dict[str, Any]({name: "other"})) for name in LOG.__slots__ if name != "stacks"),
        *(
            replace(LOG, stacks=((WHOLE._replace(**measured),),))
            for measured in (
                {"depth": 0},
                {"binary_uuid": "80B89F27"},
                {"binary_uuid": ""},
                {"address": "0x1"},
                {"offset_in_text": "1"},
                {"samples": 8},
                {"samples": None},
            )
        ),
        replace(LOG, stacks=()),
        replace(LOG, stacks=((WHOLE, WHOLE),)),
        replace(LOG, stacks=((WHOLE,), (WHOLE,))),
        NO_LOG,
    ],
)
def test_what_the_device_measured_tells_logs_apart(other: Log) -> None:
    """Each field of the metadata, and depth, binary, address, offset and samples of each frame, count."""
    assert identity("HANGS", other, "s") != identity("HANGS", LOG, "s")


def test_the_diagnostic_type_tells_logs_apart() -> None:
    """The same content under two diagnostic types is two logs."""
    assert identity("HANGS", LOG, "s") != identity("LAUNCHES", LOG, "s")


def test_names_tell_logs_apart_only_where_there_is_no_place() -> None:
    """A frame with neither address nor offset is known by its symbol, or else by its raw text."""
    bare = [frame(0, "a"), frame(0, "b"), frame(0, raw="a 1"), frame(0, raw="b 1"), frame(0, binary="a")]
    assert len({identity("HANGS", replace(LOG, stacks=((one,),)), "s") for one in bare}) == len(bare)
    by_offset = replace(LOG, stacks=((frame(0, "a", offset_in_text="1"),),))
    named_later = replace(LOG, stacks=((frame(0, "b", offset_in_text="1"),),))
    assert identity("HANGS", by_offset, "s") == identity("HANGS", named_later, "s")


@pytest.mark.parametrize("log", [NO_LOG, replace(NO_LOG, stacks=((frame(0), frame(1, blamed=True)),))])
def test_a_log_with_nothing_in_it_is_known_by_its_signature(log: Log) -> None:
    """Where the device measured nothing, each signature has one such log."""
    assert identity("HANGS", log, "s1") == identity("HANGS", log, "s1")
    assert identity("HANGS", log, "s1") != identity("HANGS", log, "s2")


@pytest.mark.parametrize(
    "spellings",
    [
        ("-[ShopCart saveAll:]", "-[ShopCart saveAll:] + 112", " -[ShopCart  saveAll:]\n+ 0x70 "),
        ("main", "main + 1 (Main.swift:12)", "main (Main.swift:90)", "main Main.swift:1", "main [0x1046f8]"),
        ("Shop", "Shop + 12345", "Shop 0x1046f8"),
        ("closure in Shop.pay()", "closure #1 in Shop.pay()", "closure #12 in Shop.pay() + 4"),
        ("inner () in outer()", "inner #1 () in outer()"),
        ("Shop.pay()", "Shop.pay() (.cold.1)", "Shop.pay() (.resume.0)", "Shop.pay().llvm.123.cold.2"),
        ("Shop.pay()", "specialized Shop.pay()", "merged specialized Shop.pay()"),
        ("Shop.pay()", "generic specialization <serialized, Foo<Int>> of Shop.pay()"),
        ("Shop.pay()", "function signature specialization <Arg[0] = Dead> of Shop.pay()"),
        ("Shop.pay()", "partial apply for Shop.pay()", "partial apply forwarder for Shop.pay()"),
        ("Shop.pay()", "(1) suspend resume partial function for Shop.pay()"),
        ("Shop.pay()", "(2) await resume partial function for specialized Shop.pay()"),
        ("__9-[A save]_block_invoke", "__9-[A save]_block_invoke_2", "__9-[A save]_block_invoke.45.cold.1"),
        ("Shop.(pay)()", "Shop.(pay in _9E3A4C0FF7BA8BDC5B0D3D4B8A9B5B0A)()"),
        ("$s4Shop3pay33_LLyyF", "$s4Shop3pay33_9E3A4C0FF7BA8BDC5B0D3D4B8A9B5B0ALLyyF"),
        (
            "$s4Shop3payyyFyycfU_",
            "$s4Shop3payyyFyycfU0_",
            "$s4Shop3payyyFyycfU12_TA",
            "$s4Shop3payyyFyycfU_Tm",
        ),
        ("_$s4Shop3payyyYaF", "_$s4Shop3payyyYaFTY0_", "_$s4Shop3payyyYaFTQ1_", "_$s4Shop3payyyYaFTf4nd_n"),
        ("shop::pay", "shop::pay::h0123456789abcdef"),
        ("pay()::$_::operator()()", "pay()::$_0::operator()()", "pay()::$_12::operator()()"),
        ("pay()::'lambda'()", "pay()::'lambda3'()"),
        ("pay::{lambda()}", "pay::{lambda()#2}"),
        ("OUTLINED_FUNCTION", "OUTLINED_FUNCTION_7"),
    ],
)
def test_what_changes_from_build_to_build_is_not_part_of_a_name(spellings: tuple[str, ...]) -> None:
    """Offsets, addresses, lines and compilers' numbers and prefixes leave a function the same."""
    assert len({problem("HANGS", spelling) for spelling in spellings}) == 1
    assert len({fingerprint("HANGS", chain_of(spelling), "") for spelling in spellings}) == 1


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ("URLSessionTask.resume()", "URLSessionTask()"),
        ("Shop.pay()", "closure #1 in Shop.pay()"),
        ("-[A save]", "+[A save]"),
        ("-[A save]", "__9-[A save]_block_invoke"),
        ("save2()", "save3()"),
        ("static Shop.+ infix(_:_:)", "static Shop.- infix(_:_:)"),
        ("outlined copy of Shop.Cart", "outlined destroy of Shop.Cart"),
        ("$s4Shop3payyyF", "$s4Shop4savey_yF"),
        ("wolfU1_x", "wolfU2_x"),
        ("a.b", "a b"),
    ],
)
def test_different_functions_keep_different_names(one: str, another: str) -> None:
    """What a person tells apart stays apart."""
    assert problem("HANGS", one) != problem("HANGS", another)


words = st.text("abcdefghij", min_size=1, max_size=8).map(lambda text: f"Shop.{text}()")
names = st.lists(words, min_size=1, max_size=8)


@given(names, names)
def test_a_fingerprint_is_that_of_the_blamed_names(one: list[str], another: list[str]) -> None:
    """Two chains have the same fingerprint if and only if their names are, a repeated one counted once."""

    def once(symbols: list[str]) -> list[str]:
        return [name for name, before in zip(symbols, [None, *symbols], strict=False) if name != before]

    same = fingerprint("HANGS", chain_of(*one), "") == fingerprint("HANGS", chain_of(*another), "")
    assert same == (once(one) == once(another))
    assert fingerprint("HANGS", chain_of(*one), "") != fingerprint("LAUNCHES", chain_of(*one), "")


@given(names, st.randoms(use_true_random=False), st.booleans())
def test_a_fingerprint_is_stable_over_builds(symbols: list[str], chance: random.Random, blamed: bool) -> None:
    """Address, offsets, the binary's UUID, samples, file, line, raw text and recursion do not count."""

    def rebuilt(one: Frame) -> Iterator[Frame]:
        for _ in range(chance.randint(1, 3)):
            places = ("address", "binary_uuid", "offset_in_symbol", "offset_in_text", "file", "raw")
            elsewhere: dict[str, Any] = {place: str(chance.random()) for place in places}
            yield one._replace(
                symbol=f"{one.symbol} + {chance.randint(1, 999)}",
                line=chance.randint(1, 999),
                samples=chance.choice([None, 0, chance.randint(1, 99)]),
                **elsewhere,
            )

    stacks = chain_of(*symbols, blamed=blamed)
    other = [again for one in stacks[0] for again in rebuilt(one)]
    deeper = (tuple(one._replace(depth=depth) for depth, one in enumerate(other)),)
    assert fingerprint("HANGS", deeper, "one") == fingerprint("HANGS", stacks, "other")
    assert HEX.fullmatch(fingerprint("HANGS", deeper, ""))


@given(names, st.integers(2, 5))
def test_a_fingerprint_follows_the_order_of_samples_only(symbols: list[str], factor: int) -> None:
    """Twice as many samples everywhere, or another branch that is lighter, make the same problem."""
    chain = chain_of(*symbols)
    more = changed(chain, lambda one: one._replace(samples=(one.samples or 0) * factor))
    lighter = (frame(0, "lighter", 8, blamed=True),)
    assert fingerprint("HANGS", (lighter, *more), "") == fingerprint("HANGS", chain, "")


def test_the_heaviest_path_that_has_blame_decides() -> None:
    """A heavier path without blame is passed over; of equals Apple's first; no count is 0."""
    one, two = frame(1, "one", 3, blamed=True), frame(1, "two", 3, blamed=True)
    root, heavy = frame(0, "main", 9), frame(1, "idle", 6)
    only_one = fingerprint("HANGS", ((root, one),), "")
    assert only_one == fingerprint("HANGS", chain_of("one"), "")
    assert fingerprint("HANGS", ((root, heavy, one, two),), "") == only_one
    assert fingerprint("HANGS", ((root, one, two._replace(samples=None)),), "") == only_one
    assert fingerprint("HANGS", ((root, two, one),), "") != only_one
    assert fingerprint("HANGS", ((root, heavy), (root._replace(samples=8), one)), "") == only_one


def test_a_blamed_frame_without_a_symbol_is_its_binary() -> None:
    """Before symbolication the binary's name stands for the frame; a frame without either is skipped."""
    nameless = frame(0, binary="Shop", blamed=True, offset_in_text="12")
    assert fingerprint("HANGS", ((nameless,),), "") == problem("HANGS", "Shop")
    assert fingerprint("HANGS", ((frame(0, blamed=True), nameless._replace(depth=1)),), "") == problem(
        "HANGS", "Shop"
    )


def test_without_blame_the_innermost_five_symbols_decide() -> None:
    """Outer frames, frames without a symbol and recursion do not count; the sixth from the inside neither."""
    inner = ("b", "c", "c", "d", "e", "f")
    known = fingerprint("HANGS", chain_of(*inner, blamed=False), "")
    assert known == fingerprint("HANGS", chain_of("b", "c", "d", "e", "f"), "")
    assert fingerprint("HANGS", chain_of("main", "a", *inner, "", "0x12", blamed=False), "") == known
    assert fingerprint("HANGS", chain_of(*inner[1:], blamed=False), "") != known
    assert fingerprint("HANGS", chain_of(*reversed(inner), blamed=False), "") != known


@pytest.mark.parametrize("stacks", [(), ((),), ((frame(0), frame(1, "0x12"), frame(1, blamed=True)),)])
def test_without_any_name_the_signature_decides(stacks: Stacks) -> None:
    """A log without stacks has the fingerprint of its signature's text."""
    assert fingerprint("HANGS", stacks, "-[A save] + 4") == problem("HANGS", "-[A save]")
    assert problem("HANGS", "-[A save]") != problem("LAUNCHES", "-[A save]")
    assert HEX.fullmatch(problem("", ""))


def test_the_frame_to_look_at_is_the_innermost_blamed_one() -> None:
    """Blame on the heaviest path that has any, then an insight's category found in that way, then None."""
    root, outer = frame(0, "main", 9, category="x"), frame(1, "outer", 5, blamed=True)
    inner, below = frame(2, "inner", 5, blamed=True), frame(3, "write", 5, category="Synchronous I/O")
    lighter = frame(1, "lighter", 4, blamed=True)
    stack = (root, frame(1, "idle", 8), lighter, outer, inner, below)
    assert blamed_frame((stack,)) == inner
    assert blamed_frame(changed((stack,), lambda one: one._replace(blamed=False))) == below
    assert blamed_frame(((frame(0, "main"),),)) is None
    assert blamed_frame(()) is None


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


@pytest.mark.parametrize(
    "depth_of",
    [lambda place: place, lambda place: min(place, 1), lambda place: 0, lambda place: place // 2],
    ids=["deep", "wide", "roots", "comb"],
)
def test_a_hundred_thousand_frames_neither_crash_nor_stall(depth_of: Callable[[int], int]) -> None:
    """Any shape of 100,000 frames takes a second, 20 on a slow machine; what is not linear takes hours."""
    chance = random.Random(7)
    stack = tuple(frame(depth_of(place), f"f{place}", chance.randrange(9)) for place in range(100_000))
    started = time.process_time()
    assert len(render((stack,)).split("\n")) == 60
    assert HEX.fullmatch(fingerprint("HANGS", (stack,), ""))
    assert blamed_frame((stack,)) is None
    assert identity("HANGS", replace(NO_LOG, stacks=(stack,)), "")
    assert time.process_time() - started < 20
