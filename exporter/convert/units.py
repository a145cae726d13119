"""Apple's units → UCUM, with the factor that goes with it.

Apple's `unit.identifier` and `unit.displayName` are free text, and the identifier need not name a unit at
all (`scrollHitchRate` with `%`), so both are looked at. Values leave in UCUM base units (ms → s, MB → By).
Two exceptions, because people and Apple's own guidance speak in them: a rate keeps its denominator
(`s/h`, `By/d`), and the hitch rate stays `ms/s`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Unit:
    """A UCUM unit, and how Apple's number becomes it: `value * multiply / divide`.

    `known` is False where nobody has taught us Apple's word; the value then passes through unscaled and the
    word becomes a UCUM annotation, `{like this}`.
    """

    ucum: str
    multiply: float = 1.0
    divide: float = 1.0
    known: bool = True

    def convert(self, value: float) -> float:
        """Apple's number in this unit. One multiplication or one division: the nearest double, no drift."""
        return value * self.multiply / self.divide


# Apple's megabyte is 10^6 bytes: MetricKit hands the same numbers over as UnitInformationStorage.megabytes.
_SCALES: dict[str, Unit] = {
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), Unit("s", divide=1e9)),
    **dict.fromkeys(("us", "µs", "μs", "microsecond", "microseconds"), Unit("s", divide=1e6)),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), Unit("s", divide=1e3)),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), Unit("s")),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), Unit("s", multiply=60.0)),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), Unit("s", multiply=3600.0)),
    **dict.fromkeys(("b", "byte", "bytes"), Unit("By")),
    **dict.fromkeys(("kb", "kilobyte", "kilobytes"), Unit("By", multiply=1e3)),
    **dict.fromkeys(("mb", "megabyte", "megabytes"), Unit("By", multiply=1e6)),
    **dict.fromkeys(("gb", "gigabyte", "gigabytes"), Unit("By", multiply=1e9)),
    **dict.fromkeys(("tb", "terabyte", "terabytes"), Unit("By", multiply=1e12)),
    **dict.fromkeys(("kib", "kibibyte", "kibibytes"), Unit("By", multiply=2.0**10)),
    **dict.fromkeys(("mib", "mebibyte", "mebibytes"), Unit("By", multiply=2.0**20)),
    **dict.fromkeys(("gib", "gibibyte", "gibibytes"), Unit("By", multiply=2.0**30)),
    **dict.fromkeys(("%", "percent", "percentage", "pct"), Unit("%")),
    **dict.fromkeys(("hang", "hangs"), Unit("{hang}")),
    **dict.fromkeys(("hitch", "hitches"), Unit("{hitch}")),
    **dict.fromkeys(("launch", "launches"), Unit("{launch}")),
    **dict.fromkeys(("termination", "terminations"), Unit("{termination}")),
}
_PER: dict[str, str] = {
    **dict.fromkeys(("s", "sec", "second"), "s"),
    **dict.fromkeys(("min", "minute"), "min"),
    **dict.fromkeys(("h", "hr", "hour"), "h"),
    **dict.fromkeys(("d", "day"), "d"),
}
_HITCH_RATE = Unit("ms/s")
_NOT_IN_ANNOTATION = re.compile(r"[^A-Za-z0-9%/._-]+")
_LONGEST_ANNOTATION = 60


@lru_cache(maxsize=512)
def unit_of(identifier: str, display_name: str) -> Unit:
    """The unit that Apple's two words mean; the identifier is believed before the display name.

    An empty pair gives the empty unit. A pair that nobody knows gives an annotation of the display name, or
    of the identifier where the display name is empty or in another script.
    """
    for word in (identifier, display_name):
        if unit := _named(word):
            return unit
    if not (display_name.strip() or identifier.strip()):
        return Unit("")
    annotation = _annotation(display_name) or _annotation(identifier) or "unknown"
    return Unit("{" + annotation + "}", known=False)


def _annotation(word: str) -> str:
    return _NOT_IN_ANNOTATION.sub("_", word).strip("_")[:_LONGEST_ANNOTATION]


def _named(word: str) -> Unit | None:
    word = " ".join(word.lower().split())
    if unit := _SCALES.get(word):
        return unit
    numerator, slash, denominator = word.replace(" per ", "/").partition("/")
    numerator, denominator = numerator.strip(), denominator.strip()
    scale, per = _SCALES.get(numerator), _PER.get(denominator)
    if not (slash and scale and per):
        return None
    if scale.ucum == "s" and per == "s":
        return _HITCH_RATE if scale.divide == 1e3 else None
    return Unit(f"{scale.ucum}/{per}", scale.multiply, scale.divide)
