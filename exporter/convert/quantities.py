"""Apple's words for sizes and durations → bytes and seconds: `Total of 1.2 GB of disk writes`, `90 sec`.

A diagnostic log puts what was measured into a sentence, written on the device, so in its region's spelling.
Read is the first number that has a unit of the wanted kind after it. What its marks mean:

- A comma that stands alone before exactly three digits groups thousands (`1,024 MB`); any other lone comma
  is the decimal mark (`1,2 s`). One to three digits stand before a group, the first not a zero: `0,500 s` and
  `1024,500 kB` therefore have a decimal comma. A lone dot is the decimal mark.
- A mark that comes twice groups (`1.073.760 KB`). Where two kinds occur, the last one is the decimal mark
  (`1.073,76 MB`, `2,147.48 MB`).
- Apostrophes, and spaces before exactly three digits, always group (`1'024 kB`, `1 073,76 Mo`); Arabic has
  its own two marks. Groups have three digits, in India two but for the last.
- Digits are those of any script.

The first two are what the field has shown of Apple's diagnostics; the rest follows from how the regions of
iOS write numbers. MB are 10⁶ bytes and MiB 2²⁰, as in `convert.units`, whose words these are.

Nothing is guessed: a number with a dash before it (negative, or the end of a range), one whose groups cannot
be, and one too large for a double give None, even if another quantity follows. `MB/s` is no size.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from exporter.convert.units import unit_of

_FARTHEST_START = 300  # characters; a quantity is looked for no farther into a text
_LONGEST = 300  # characters; what begins there may be that long
_GROUPING = frozenset("'’ \u00a0\u202f\u2009\u066c")
_DASHES = frozenset("-−–‐‑")
# Words that convert.units has not, each in its one spelling: in lower case, go and to are words of sentences.
_ALSO = {
    "ko": "kB",
    "Ko": "kB",
    "Mo": "MB",
    "Go": "GB",
    "To": "TB",
    "octet": "byte",
    "octets": "bytes",
    "m": "min",
}

_START = re.compile(r"(?<![\w.,\u066b\u066c])(?=\d)")
_QUANTITY = re.compile(
    r"(?P<number>\d{1,3}(?:[ \u00a0\u202f\u2009]\d{3})+(?:[.,]\d+)?|\d+(?:[.,'’\u066b\u066c]\d+)*)"
    r"\s{0,2}(?P<unit>[^\W\d_]{1,12})(?![^\W\d]|/)"
)
_JOINT = re.compile(r"\s{0,2},?\s{0,2}(?:and\s{1,2})?")
_GROUPED = re.compile(r"[^\W0]\d{0,2}(?:\D\d{2,3})*\D\d{3}")


class _Quantity(NamedTuple):
    """`value` in base units, NaN if unreadable; `whole`: written as a whole number; `one`: of its unit."""

    value: float
    whole: bool
    one: float
    end: int


def size_in(text: str) -> float | None:
    """The first size in a sentence, in bytes; None if there is none that can be read without guessing."""
    found = _first(text, "By")
    return found.value if found and math.isfinite(found.value) else None


def duration_in(text: str) -> float | None:
    """The first duration in a sentence, in seconds; None if there is none that can be read without guessing.

    Adjacent parts are added up (`1 min 30 sec`, `2m 5s`, `1 hour, 2 minutes, and 3 seconds`): a part goes on
    with the next one if it is a whole number and the next one is less than one of its unit; what follows in
    `10 s, 10000 ms` is another quantity.
    """
    part = _first(text, "s")
    total = 0.0 if part else math.nan
    while part:
        total += part.value
        part = _next_part(text, part)
    return total if math.isfinite(total) else None


def _first(text: str, ucum: str) -> _Quantity | None:
    starts = _START.finditer(text, 0, _FARTHEST_START)
    return next(filter(None, (_quantity_at(start.start(), text, ucum) for start in starts)), None)


def _next_part(text: str, part: _Quantity) -> _Quantity | None:
    joint = _JOINT.match(text, part.end)
    following = _quantity_at(joint.end(), text, "s") if joint and part.whole else None
    return None if following is None or following.value >= part.one else following  # NaN goes on


def _quantity_at(start: int, text: str, ucum: str) -> _Quantity | None:
    match = _QUANTITY.match(text, start, start + _LONGEST)
    if match is None:
        return None
    unit = unit_of(_ALSO.get(match["unit"], match["unit"]), "")
    if unit.ucum != ucum:
        return None
    number = math.nan if text[start - 1 : start] in _DASHES else _number(match["number"])
    return _Quantity(unit.convert(number), number.is_integer(), unit.convert(1.0), match.end())


def _number(digits: str) -> float:
    """Digits with marks → a number; NaN where the marks make no sense."""
    decimal = _decimal_mark(digits)
    whole, _, fraction = digits.rpartition(decimal) if decimal else (digits, "", "")
    marks = set(_marks(whole))
    if len(marks) > 1 or (marks and not _GROUPED.fullmatch(whole)):
        return math.nan
    return float("".join(filter(str.isdecimal, whole)) + "." + fraction)


def _decimal_mark(digits: str) -> str:
    """The decimal mark of a number, '' for none. The rules are at the top of the file."""
    marks = _marks(digits)
    if not marks or marks[-1] in _GROUPING or marks.count(marks[-1]) > 1:
        return ""
    return "" if marks == [","] and _GROUPED.fullmatch(digits) else marks[-1]


def _marks(digits: str) -> list[str]:
    return [character for character in digits if not character.isdecimal()]
