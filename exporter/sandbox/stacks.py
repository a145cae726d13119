"""Call-stack trees as diagnostic logs hold them. Pure.

Names are the same in each build. Offsets and image ids change with the build, and addresses with each log,
since an app is loaded at another place each time.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from exporter.sandbox.dice import dice, number
from exporter.sandbox.problems import Problem

Json = dict[str, Any]

_DEEP = 200  # and up to 63 more: what a standard JSON parser still reads
_PAGE = 0x4000


@dataclass(frozen=True)
class _Call:
    symbol: str
    binary: str
    file: str = ""
    line: int = 0
    blamed: bool = False
    category: str = ""
    bare: bool = False


@dataclass(frozen=True)
class _Code:
    """Where a function lies in a build's binary; offsets in bytes."""

    uuid: str
    base: int
    in_text: int
    in_symbol: int


_ROOT = (_Call("start", "dyld"),)
_RUN_LOOP = (
    _Call("UIApplicationMain", "UIKitCore"),
    _Call("-[UIApplication _run]", "UIKitCore"),
    _Call("GSEventRunModal", "GraphicsServices"),
    _Call("CFRunLoopRunSpecific", "CoreFoundation"),
    _Call("__CFRunLoopRun", "CoreFoundation"),
    _Call("_dispatch_main_queue_drain", "libdispatch.dylib"),
)
_WORKER = (
    _Call("start_wqthread", "libsystem_pthread.dylib"),
    _Call("_pthread_wqthread", "libsystem_pthread.dylib"),
    _Call("_dispatch_workloop_worker_thread", "libdispatch.dylib"),
    _Call("_dispatch_lane_serial_drain", "libdispatch.dylib"),
)
_BESIDE = _Call("objc_msgSend", "libobjc.A.dylib")
_BELOW: dict[str, tuple[_Call, ...]] = {
    "HANGS": (
        _Call("-[NSManagedObjectContext executeFetchRequest:error:]", "CoreData"),
        _Call("sqlite3_step", "libsqlite3.dylib", category="Main Thread I/O"),
        _Call("pread", "libsystem_kernel.dylib"),
    ),
    "LAUNCHES": (
        _Call("+[NSJSONSerialization JSONObjectWithData:options:error:]", "Foundation"),
        _Call("dlopen", "libdyld.dylib", category="Static Initializer"),
    ),
    "DISK_WRITES": (
        _Call("-[NSData writeToURL:options:error:]", "Foundation", category="Repeated Writes"),
        _Call("write", "libsystem_kernel.dylib"),
    ),
}
_BELOW_ANY = (_Call("__ulock_wait", "libsystem_kernel.dylib"),)


def category_of(kind: str) -> str:
    """The `insightsCategory` that the frames of a diagnostic type bear; empty for an unknown type."""
    return next((call.category for call in _BELOW.get(kind, ()) if call.category), "")


def signature_text(problem: Problem, build_id: str) -> str:
    """What Apple calls the problem in that build: function or binary, and the offset into it."""
    code = _code(build_id, problem.module, problem.symbol)
    if problem.style == "bare":
        return f"{problem.module} + {code.in_text}"
    return f"{problem.symbol} + {code.in_symbol}"


def trees(problem: Problem, build_id: str, thrown: bytes, form: str) -> list[Json] | Json:
    """The `callStackTree` of a log.

    Args:
        thrown: at least eight bytes by chance, the log's own.
        form: an awkward form of `diagnostics`; `ordinary` for none.
    """
    if form == "no tree in the list":
        return []
    if form == "no stack in the tree":
        return [{"callStackPerThread": False, "callStacks": []}]
    if form == "no frame in the stack":
        return [{"callStackPerThread": False, "callStacks": [{"callStackRootFrames": []}]}]
    slide, samples = _PAGE * (number(thrown[:3]) % 0x8000), 4 + thrown[3] % 60
    calls = [*_ROOT, *_path(problem, thrown[4] if form == "deep" else None)]
    stacks = [_nested(calls, build_id, slide, None if form == "no sample counts" else samples)]
    if form == "per thread":
        stacks += [_nested(_WORKER, build_id, slide, samples + n) for n in range(1 + thrown[5] % 2)]
    if form == "unknown fields":
        stacks[0]["threadName"] = "main"
    roots = [{"callStackRootFrames": [stack]} for stack in stacks]
    tree = {"callStackPerThread": form == "per thread", "callStacks": roots}
    return tree if form == "tree as an object" else [tree]


def _path(problem: Problem, deeper: int | None) -> Iterator[_Call]:
    """The calls from `main` down to the system's own, those of the app blamed."""
    module, owner, bare = problem.module, problem.owner, problem.style == "bare"
    yield _Call("main", module, "main.swift", 12, blamed=True)
    yield from _RUN_LOOP
    entry = f"{module}.SceneDelegate.scene(_:willConnectTo:options:)"
    yield _Call(entry, module, "SceneDelegate.swift", 31, blamed=True)
    walk = _Call(f"{module}.{owner}Tree.visit(_:) -> ()", module, f"{owner}Tree.swift", 77, blamed=True)
    yield from [walk] * (0 if deeper is None else _DEEP + deeper % 64)
    yield _Call(f"{module}.{owner}Coordinator.run() -> ()", module, f"{owner}Coordinator.swift", 58, True)
    yield _Call(problem.symbol, module, problem.file, problem.line, blamed=True, bare=bare)
    yield from _BELOW.get(problem.type, _BELOW_ANY)


def _nested(calls: Sequence[_Call], build_id: str, slide: int, samples: int | None) -> Json:
    """The calls, each in the `subFrames` of the one before; every fifth calls something else beside."""
    node: Json | None = None
    for depth in range(len(calls) - 1, -1, -1):
        above = _frame(calls[depth], build_id, slide, samples and max(1, samples - depth // 2))
        if node is not None:
            above["subFrames"] = [node]
            if depth % 5 == 4:
                above["subFrames"].append(_frame(_BESIDE, build_id, slide, samples and 1))
        node = above
    return node or {}


def _frame(call: _Call, build_id: str, slide: int, samples: int | None) -> Json:
    code = _code(build_id, call.binary, call.symbol)
    address = str(code.base + slide + code.in_text)
    raw = f"{call.binary} + {code.in_text}" if call.bare else f"{call.symbol} + {code.in_symbol}"
    frame: Json = {
        "symbolName": "" if call.bare else call.symbol,
        "binaryName": call.binary,
        "binaryUUID": code.uuid,
        "fileName": "" if call.bare else call.file,
        "lineNumber": str(call.line) if call.line and not call.bare else "",
        "address": address,
        "offsetIntoSymbol": "" if call.bare else str(code.in_symbol),
        "offsetIntoBinaryTextSegment": str(code.in_text),
        "rawFrame": f"{address} {raw}",
        "isBlameFrame": call.blamed,
    }
    if samples is not None:
        frame["sampleCount"] = samples
    if call.category:
        frame["insightsCategory"] = call.category
    return frame


@lru_cache(maxsize=16_384)
def _code(build_id: str, binary: str, symbol: str) -> _Code:
    image, place = dice(build_id, binary, size=20), dice(build_id, binary, symbol, size=6)
    return _Code(
        uuid=str(uuid.UUID(bytes=image[:16])).upper(),
        base=0x1_0000_0000 + _PAGE * (number(image[16:]) % 0x20_0000),
        in_text=4 * number(place[:3]),
        in_symbol=4 * (1 + number(place[3:]) % 250),
    )
