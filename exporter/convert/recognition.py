"""Which log is the same log, and which problem the same problem."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain, groupby, islice
from typing import NamedTuple

from exporter.appstore.payloads.diagnostics import Frame, Log
from exporter.convert.call_tree import Node, heaviest_path, is_blamed, one_line

_OFFSET_INTO_BINARY = re.compile(r"[\w.\- ]{1,200} \+ (0x[\da-fA-F]{1,16}|\d{1,18})|(0x[\da-fA-F]{1,16})")
_LONGEST_FUNCTION = 4096  # bytes
_UNBLAMED_FRAMES = 5  # that make up a fingerprint where Apple blames none

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


class Problem(NamedTuple):
    """What ties logs together over builds, devices and OS versions.

    `fingerprint` are 16 lower-case hex digits. `lasting` tells whether it is made of names; addresses change
    with each build, and with them the fingerprint.
    """

    fingerprint: str
    lasting: bool


def recognise(kind: str, tree: list[Node], signature: str) -> Problem:
    """Which problem a log is about.

    Made from the diagnostic type and the names of the blamed frames, from the outside in, along the heaviest
    path that has any. Where Apple blames none, or none that has a symbol: of the frames with a symbol on the
    heaviest path the innermost five. The outer ones are the run loop's, which all stacks share; the innermost
    say what was being done; and with more than five, each caller of one slow function would make a problem of
    its own. Where there is no symbol either: the text of the signature.

    A name is the symbol without what changes from build to build (offsets, addresses, file and line, a
    compiler's numbers and prefixes); a blamed frame without a symbol, beside others that have one, is its
    binary. The same name twice in a row, a recursion, counts once. Samples matter only in so far as they say
    which path is the heaviest.
    """
    blamed = [tree[place].frame for place in heaviest_path(tree, is_blamed) if tree[place].frame.blamed]
    if any(_function(frame.symbol) for frame in blamed):
        names = _without_repeats(_function(frame.symbol) or one_line(frame.binary) for frame in blamed)
    else:
        outwards = (_function(tree[place].frame.symbol) for place in reversed(heaviest_path(tree)))
        names = _without_repeats(outwards, _UNBLAMED_FRAMES)[::-1]
    if names:
        return Problem(_hex(kind, names), lasting=True)
    return Problem(problem(kind, signature), lasting=is_named(signature))


def problem(kind: str, signature: str) -> str:
    """The fingerprint of a signature of which nothing but the text is known: 16 lower-case hex digits."""
    return _hex(kind, [(_function(signature) if is_named(signature) else "") or signature])


def is_named(signature: str) -> bool:
    """Whether a signature's text names a function, and not an offset into a binary, as without symbols.

    `pwrite + 8` names one, `Shop + 105316` does not: hardly any function is longer than 4 KiB.
    """
    match = _OFFSET_INTO_BINARY.fullmatch(signature)
    return bool(signature) and (match is None or int(match[1] or match[2], 0) < _LONGEST_FUNCTION)


def _measured(frame: Frame) -> tuple[str | int | None, ...]:
    name = "" if frame.address or frame.offset_in_text else frame.symbol or frame.raw
    return (frame.binary_uuid or frame.binary, frame.address, frame.offset_in_text, frame.samples, name)


def _without_repeats(names: Iterable[str], most: int | None = None) -> list[str]:
    """The names that are not empty, the same one in a row once, at most `most` of them."""
    return [name for name, _ in islice(groupby(filter(None, names)), most)]


@lru_cache(maxsize=4096)
def _function(symbol: str) -> str:
    """A symbol without what changes from build to build; may leave nothing of it."""
    name = one_line(symbol)
    for pattern, instead in _FUNCTION:
        name = pattern.sub(instead, name)
    if name.startswith(("$s", "_$s", "$S", "_$S")):
        name = _SWIFT_CLOSURE.sub("", name)
    return " ".join(name.split())


def _hex(kind: str, names: list[str]) -> str:
    return hashlib.sha256(ascii((kind, names)).encode()).hexdigest()[:16]
