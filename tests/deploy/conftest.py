from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.collector.binary import MISSING, find
from tests.container.tools import missing


@pytest.fixture(scope="session")
def otelcol() -> Path:
    """The Collector's program."""
    return find(os.environ) or missing(MISSING)
