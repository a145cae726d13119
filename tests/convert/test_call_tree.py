from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from exporter.convert.recognition import identity
from tests.convert.frames import NO_LOG, blamed_frame, changed, frame, recognise, render

HEX = re.compile(r"[0-9a-f]{16}")


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
    assert HEX.fullmatch(recognise("HANGS", (stack,), "").fingerprint)
    assert blamed_frame((stack,)) is None
    assert identity("HANGS", replace(NO_LOG, stacks=(stack,)), "")
    assert time.process_time() - started < 20
