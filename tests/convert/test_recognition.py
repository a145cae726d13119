from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.appstore.payloads.diagnostics import Frame, Log
from exporter.convert.recognition import identity, is_named, problem
from tests.convert.frames import NO_LOG, Stacks, chain_of, changed, frame, recognise


def fingerprint(kind: str, stacks: Stacks, signature: str) -> str:
    return recognise(kind, stacks, signature).fingerprint


HEX = re.compile(r"[0-9a-f]{16}")

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
        ("pwrite", "pwrite + 123", "pwrite 0x1046f8"),
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
    """Beside one that has a symbol the binary's name stands for the frame; one without either is skipped."""
    nameless = frame(1, binary="Shop", blamed=True, offset_in_text="12")
    named = frame(0, "Shop.pay()", blamed=True)
    assert fingerprint("HANGS", ((named, nameless),), "") == fingerprint(
        "HANGS", chain_of("Shop.pay()", "Shop"), ""
    )
    assert fingerprint("HANGS", ((named, frame(1, blamed=True)),), "") == problem("HANGS", "Shop.pay()")


def test_blame_without_any_symbol_decides_nothing() -> None:
    """All problems of an app without symbols would be one: the system's symbols on the path decide."""
    blamed = frame(1, binary="Shop", blamed=True, offset_in_text="105316")
    one = ((frame(0, "main"), blamed, frame(2, "pwrite")),)
    other = ((frame(0, "main"), blamed, frame(2, "read")),)
    assert recognise("HANGS", one, "") == recognise("HANGS", chain_of("main", "pwrite", blamed=False), "")
    assert fingerprint("HANGS", one, "") != fingerprint("HANGS", other, "")


@pytest.mark.parametrize(
    ("signature", "named"),
    [
        ("-[Shop save] + 105316", True),
        ("pwrite + 8", True),
        ("Shop.pay()", True),
        ("Shop + 105316", False),
        ("Shop Beta + 0x19b64", False),
        ("0x1046f8000", False),
        ("", False),
    ],
)
def test_without_symbols_addresses_tell_problems_apart(signature: str, named: bool) -> None:
    """They change with each build, and that is said: whether the fingerprint is made of names."""
    nameless = ((frame(0, binary="Shop", blamed=True, offset_in_text="12"),),)
    known = recognise("HANGS", nameless, signature)
    assert (known.fingerprint, known.lasting) == (problem("HANGS", signature), named)
    assert is_named(signature) == named
    assert recognise("HANGS", chain_of("f"), signature).lasting
    assert problem("HANGS", "Shop + 105316") != problem("HANGS", "Shop + 205316")
    assert problem("HANGS", "pwrite + 8") == problem("HANGS", "pwrite + 44")


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
