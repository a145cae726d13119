from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.collector.binary import MISSING, VERSION, find
from tests.container.pair import Pair
from tests.container.tools import (
    Containers,
    built_image,
    collector_image,
    find_compose,
    missing,
    program,
    run,
)


@pytest.fixture(scope="session")
def compose() -> list[str]:
    """The command of Docker Compose."""
    return find_compose()


@pytest.fixture(scope="session")
def image() -> str:
    """The image, built, and podman able to run it."""
    podman = program("podman", "install the package podman")
    name = built_image()
    tried = run(podman, "run", "--rm", "--network=none", "--no-healthcheck", name, "--version", check=False)
    if tried.returncode:
        missing(f"podman runs no containers here: {tried.stderr.strip().splitlines()[-1]}")
    return name


@pytest.fixture(scope="session")
def otelcol() -> Path:
    """The Collector's program."""
    return find(os.environ) or missing(MISSING)


@pytest.fixture(scope="session", name="collector_image")
def _collector_image(image: str, otelcol: Path) -> Iterator[None]:
    """The Collector's image."""
    with collector_image(otelcol, VERSION):
        yield


@pytest.fixture
def containers(image: str) -> Iterator[Containers]:
    """Containers of the image, for one test."""
    with Containers(f"perfpower-test-{os.getpid()}") as started:
        yield started


@pytest.fixture
def pair(containers: Containers) -> Pair:
    """A sandbox, to which each test adds exporters and a Collector."""
    return Pair(containers)
