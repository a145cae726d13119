"""How the logs of the sandbox put sizes and durations into words. Pure.

Apple writes them as the device's region does: mostly `1073.76 MB`, now and then `1.073,76 MB`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from exporter.sandbox.dice import number

Json = dict[str, Any]

_MEGABYTE = 1_000_000
_NO_NUMBER = {
    "HANGS": "Hang of unknown length",
    "LAUNCHES": "Launch that did not end",
    "DISK_WRITES": "Total of several MB of disk writes",
}


@dataclass(frozen=True)
class Measurement:
    """What a log says was measured.

    Args:
        metadata: its part of `diagnosticMetaData`: `event`, `eventDetail`, for disk writes `writesCaused`.
        value: the same in bytes or seconds; None where the words tell no number.
    """

    metadata: Json
    value: float | None


def measured(kind: str, thrown: bytes, *, readable: bool) -> Measurement:
    """The measurement of a log.

    Args:
        kind: the diagnostic type; one that is unheard of has no value.
        thrown: at least four bytes by chance.
        readable: False for words without a number.
    """
    if kind == "DISK_WRITES":
        return _writes(number(thrown[:3]), thrown[3]) if readable else _unreadable("disk writes", kind)
    if kind in ("HANGS", "LAUNCHES"):
        event, verb = ("hang", "Hang of") if kind == "HANGS" else ("launch", "Launch took")
        if not readable:
            return _unreadable(event, kind)
        words, seconds = _duration(number(thrown[:3]), thrown[3])
        return Measurement({"event": event, "eventDetail": f"{verb} {words}"}, seconds)
    detail = f"CPU usage of {60 + thrown[0] % 40}% over 60 seconds"
    return Measurement({"event": "cpu usage", "eventDetail": detail}, None)


def _unreadable(event: str, kind: str) -> Measurement:
    metadata: Json = {"event": event, "eventDetail": _NO_NUMBER[kind]}
    if kind == "DISK_WRITES":
        metadata["writesCaused"] = "n/a"
    return Measurement(metadata, None)


def _writes(chance: int, style: int) -> Measurement:
    """From 80 MB to 3.2 GB, in hundredths of a megabyte; every eighth in another region's words."""
    hundredths = 8_000 + chance % 312_000
    plain, grouped = f"{hundredths / 100:.2f} MB", f"{hundredths / 100:,.2f} MB"
    regions = (grouped.translate(_swapped()), grouped.replace(",", "\u202f").replace(".", ",")[:-2] + "Mo")
    if style % 16 == 2:
        tenths = max(hundredths // 10_000, 1)
        detail = f"Total of {tenths / 10} GB of disk writes"
        return Measurement({"event": "disk writes", "eventDetail": detail}, tenths * 100.0 * _MEGABYTE)
    detail, caused = (regions[style % 16],) * 2 if style % 16 < len(regions) else (plain, grouped)
    metadata = {
        "event": "disk writes",
        "eventDetail": f"Total of {detail} of disk writes",
        "writesCaused": caused,
    }
    if style % 16 == 3:
        del metadata["eventDetail"]
    return Measurement(metadata, hundredths * _MEGABYTE / 100)


def _duration(chance: int, style: int) -> tuple[str, float]:
    """From a quarter of a second to eleven seconds, now and then minutes; in words and in seconds."""
    hundredths = 25 + chance % 1_100
    if style % 16 == 0:
        return f"{hundredths / 100:.2f} sec".replace(".", ","), hundredths / 100
    if style % 16 == 1:
        return f"{60 + chance % 120} sec", 60.0 + chance % 120
    if style % 4 == 2:
        return f"{hundredths * 10:,} ms", hundredths / 100
    if style % 4 == 3:
        tenths = 3 + chance % 110
        return f"{tenths / 10:.1f} seconds", tenths / 10
    return f"{hundredths / 100:.2f} sec", hundredths / 100


def _swapped() -> dict[int, int]:
    return str.maketrans(",.", ".,")
