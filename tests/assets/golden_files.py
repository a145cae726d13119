"""Golden files: whole outputs, kept to be read when they change."""

from __future__ import annotations

import os
from pathlib import Path

_FOLDER = Path(__file__).parent / "golden"


def check(path: str, text: str) -> None:
    """Hold a text against the golden file at this path; with `UPDATE_GOLDEN=1`, write it first.

    Never in CI, where nobody reads the difference.
    """
    golden = _FOLDER / path
    if os.environ.get("UPDATE_GOLDEN"):
        assert not os.environ.get("CI"), "golden files are not updated where nobody reads the difference"
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")
