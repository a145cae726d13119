"""What all payloads of Apple's have in common: lenient reading that keeps the count of what it left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

LONGEST_TEXT = 200  # Datadog cuts tag values there, Splunk drops dimensions beyond 256
_PLATFORMS = {
    "IOS": "iOS",
    "MAC_OS": "macOS",
    "MACOS": "macOS",
    "TV_OS": "tvOS",
    "TVOS": "tvOS",
    "VISION_OS": "visionOS",
    "VISIONOS": "visionOS",
    "WATCHOS": "watchOS",
}


class Reader:
    """Takes the parts of a decoded document, whatever they are; `left_out` counts what was not usable.

    The reasons are those of the catalogue's LEFT_OUT.
    """

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        self._texts: dict[str, str] = {}

    def text(self, raw: object) -> str:
        """`clean_text` of a text, '' for anything else."""
        if type(raw) is not str:
            return ""
        text = self._texts.get(raw)
        if text is None:
            text = self._texts[raw] = clean_text(raw)
        return text

    def mapping(self, raw: object) -> dict[str, Any]:
        """An object; anything else but null counts as malformed and is empty."""
        if type(raw) is dict:
            return raw
        if raw is not None:
            self.left_out["malformed"] += 1
        return {}

    def items(self, raw: object) -> list[Any]:
        """A list; anything else but null counts as malformed and is empty."""
        if type(raw) is list:
            return raw
        if raw is not None:
            self.left_out["malformed"] += 1
        return []

    def objects(self, raw: object) -> Iterator[dict[str, Any]]:
        """The objects of a list; its other entries count as malformed."""
        for item in self.items(raw):
            if type(item) is dict:
                yield item
            else:
                self.left_out["malformed"] += 1

    def value(self, raw: object) -> float | None:
        """A finite number; null and missing are None, anything else is None and counted."""
        number = finite(raw)
        if number is None and raw is not None:
            self.left_out["not_a_number"] += 1
        return number


def finite(raw: object) -> float | None:
    """A number that is one, None for anything else. Every number in a document is a float, see `Answer`."""
    return raw if type(raw) is float and raw - raw == 0.0 else None  # infinity minus itself is NaN


def clean_text(text: str, longest: int = LONGEST_TEXT) -> str:
    """Text fit for an attribute value: trimmed, printable, valid UTF-8, at most `longest` characters."""
    if not text.isprintable():
        text = text.encode("utf-8", "replace").decode("utf-8")
        text = "".join(character if character.isprintable() else " " for character in text)
    return text.strip()[:longest].rstrip()


def platform_name(word: str) -> str:
    """`IOS`, `iOS` → `iOS`, `MAC_OS` → `macOS`, and so on; a platform that nobody knows stays as it is."""
    return _PLATFORMS.get(word.upper(), word)
