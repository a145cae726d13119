from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.collector.binary import MISSING, find


@pytest.fixture(scope="session")
def otelcol() -> Path:
    """The Collector; without one, tests are skipped on a newcomer's machine, and fail where CI is true."""
    program = find(os.environ)
    if program is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(MISSING)
    return program
