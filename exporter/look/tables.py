"""Aligned text for a terminal, and JSON for a pipe. Pure."""

from __future__ import annotations

import json
import re
import textwrap
import unicodedata
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

_GAP = "  "
_SHORTEST = 12  # a text column is not cut below this
_NARROWEST = 20  # a sentence is not wrapped to less than this
_BEYOND_ASCII = re.compile(r"[^\n\x20-\x7e]")


class Column(NamedTuple):
    """A column: `text` may be cut to make a line fit, `exact` and `number` never are."""

    heading: str
    kind: Literal["text", "exact", "number"] = "exact"


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """A heading and a line for each row, numbers to the right.

    Args:
        width: the terminal's, in cells; the longest text column is cut until the lines fit, as far as that
            goes. None for no limit.
    """
    widths = _widths(columns, rows)
    texts = [place for place, column in enumerate(columns) if column.kind == "text"]
    while width and texts and _total(widths) > width:
        longest = max(texts, key=lambda place: widths[place])
        if widths[longest] <= _SHORTEST:
            break
        widths[longest] -= 1
    return [_line(columns, row, widths) for row in ([column.heading for column in columns], *rows)]


def least_width(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    """The narrowest terminal, in cells, on which the lines of `table` fit."""
    return _total(
        [
            min(size, _SHORTEST) if column.kind == "text" else size
            for column, size in zip(columns, _widths(columns, rows), strict=True)
        ]
    )


def cut(text: str, width: int) -> str:
    """The text in at most so many cells; one that is cut ends in an ellipsis."""
    if _cells(text) <= width:
        return text
    kept = sum(end < width for end in accumulate(map(_cells, text)))
    return text[:kept] + "…"


def wrapped(text: str, width: int | None, indent: str) -> list[str]:
    """A sentence as indented lines that fit the terminal; addresses and long words are not broken."""
    if width is None:
        return [indent + text]
    return textwrap.wrap(
        text,
        max(width, _NARROWEST),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def number(value: float | None) -> str:
    """A number for people: up to three decimals, four digits where it is below one, `-` for none."""
    if value is None:
        return "-"
    if 1 <= abs(value) < 1e15:
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return f"{value:.4g}"


def to_terminal(text: str, encoding: str) -> str:
    """The text without anything but line ends that could steer a terminal, in characters that it can show."""
    lines = (
        line if line.isprintable() else "".join(char if char.isprintable() else " " for char in line)
        for line in text.split("\n")
    )
    return "\n".join(lines).encode(encoding, "replace").decode(encoding)


def to_json(document: object, encoding: str) -> str:
    """The document as JSON, two spaces a level; escaped is what cannot be printed or encoded.

    Args:
        document: dicts, lists, texts, finite numbers, True, False and None.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)

    def shown(found: re.Match[str]) -> str:
        return found[0] if found[0].isprintable() and _encodable(found[0], encoding) else _escaped(found[0])

    return _BEYOND_ASCII.sub(shown, text)


def _encodable(character: str, encoding: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def _line(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int]) -> str:
    shown = []
    for column, cell, width in zip(columns, row, widths, strict=True):
        text = cut(cell, width)
        space = " " * (width - _cells(text))
        shown.append(space + text if column.kind == "number" else text + space)
    return _GAP.join(shown).rstrip()


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    return [
        max([_cells(column.heading), *(_cells(row[place]) for row in rows)])
        for place, column in enumerate(columns)
    ]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _cells(text: str) -> int:
    """How many columns of a terminal a text takes: East Asian characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
