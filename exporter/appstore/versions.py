"""Which of two marketing versions is the later one. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

_PART = re.compile(r"\d{1,18}|[A-Za-z]+")


@lru_cache(maxsize=1024)
def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Orders marketing versions: numbers by value (1.10 after 1.9), and 2.0 after 2.0-beta."""
    parts = _PART.findall(version)
    key = [(1, int(part), "") if part.isdecimal() else (-1, 0, part) for part in parts]
    return (*key, (0, 0, version))
