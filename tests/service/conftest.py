from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.service.scripted import ScriptedWorld
from tests.service.service_world import World


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds that are closed after the test."""
    with ExitStack() as stack:
        yield lambda *parts, **overrides: stack.enter_context(World(tmp_path, *parts, **overrides))


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


@pytest.fixture
def make_scripted(tmp_path: Path) -> Iterator[Callable[..., ScriptedWorld]]:
    """Makes worlds in which a script answers for App Store Connect; closed after the test."""
    with ExitStack() as stack:
        yield lambda **overrides: stack.enter_context(ScriptedWorld(tmp_path, **overrides))
