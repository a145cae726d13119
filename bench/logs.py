"""Diagnostic logs to measure with: `diagnosticLogs` documents as App Store Connect sends them."""

from __future__ import annotations

import json
import random
from typing import Any

_FRAMES = 60  # of an ordinary call stack


def logs_document(number: int, logs: int) -> bytes:
    """A document of so many different logs; the same number gives the same document."""
    dice = random.Random(number)
    return _document([_log(dice, [_chain(dice, _FRAMES), _chain(dice, _FRAMES // 3)]) for _ in range(logs)])


def deep_document(frames: int) -> bytes:
    """One log with a single call stack of so many frames; written by hand, since json.dumps recurses."""
    dice = random.Random(frames)
    opened = "".join(json.dumps(_frame(dice, depth))[:-1] + ', "subFrames": [' for depth in range(frames))
    stack = opened.removesuffix(', "subFrames": [') + "}" + "]}" * (frames - 1)
    document = _document([_log(dice, ["HERE"])]).decode()
    return document.replace('"HERE"', stack).encode()


def wide_document(frames: int) -> bytes:
    """One log with a tree of so many frames in which every frame calls four others."""
    dice = random.Random(frames)
    nodes: list[dict[str, Any]] = [_frame(dice, number) for number in range(frames)]
    for number in range(1, frames):
        nodes[(number - 1) // 4].setdefault("subFrames", []).append(nodes[number])
    return _document([_log(dice, nodes[:1])])


def _document(logs: list[dict[str, Any]]) -> bytes:
    product = {"signatureId": "5f3a", "diagnosticInsights": [], "diagnosticLogs": logs}
    return json.dumps({"version": "1.0.0", "productData": [product]}).encode()


def _log(dice: random.Random, roots: list[Any]) -> dict[str, Any]:
    return {
        "diagnosticMetaData": {
            "event": "hang",
            "eventDetail": f"Hang of {dice.uniform(0.5, 9):.2f} sec",
            "osVersion": "iPhone OS 17.4 (21E219)",
            "appVersion": "2.0",
            "buildVersion": "77",
            "bundleId": "com.example.shop",
            "deviceType": "iPhone14_2",
            "platformArchitecture": "arm64e",
        },
        "callStackTree": [{"callStackPerThread": False, "callStacks": [{"callStackRootFrames": roots}]}],
    }


def _chain(dice: random.Random, frames: int) -> dict[str, Any]:
    node: dict[str, Any] = _frame(dice, frames)
    for depth in range(frames - 1, -1, -1):
        node = {**_frame(dice, depth), "subFrames": [node]}
    return node


def _frame(dice: random.Random, depth: int) -> dict[str, Any]:
    offset = dice.randrange(1 << 20)
    return {
        "symbolName": f"Shop.Part{depth % 17}.step{dice.randrange(40)}() -> () + {offset % 256}",
        "binaryName": "Shop",
        "binaryUUID": "6F1C2A34-0000-4000-8000-0123456789AB",
        "fileName": f"Part{depth % 17}.swift",
        "lineNumber": str(10 + depth % 300),
        "address": str(4_300_000_000 + offset),
        "offsetIntoSymbol": str(offset % 256),
        "offsetIntoBinaryTextSegment": str(offset),
        "rawFrame": f"Shop 0x{offset:x} + {offset % 256}",
        "sampleCount": 1 + dice.randrange(30),
        "isBlameFrame": depth % 9 == 0,
    }
