"""What a person chose to see: metrics, devices, platforms and percentiles; signatures and logs. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from exporter.appstore.jsonapi import printable
from exporter.appstore.payloads.reader import platform_name
from exporter.convert.catalogue import metric_name
from exporter.convert.metrics import percentile_name
from exporter.look.documents import Document

Row = Mapping[str, Any]

_MOST_NAMED = 20
_PERCENTILE_WORDS = {"fifty": "50", "ninety": "90"}
_DIAGNOSTIC_TYPES = {
    "hang": "HANGS",
    "hangs": "HANGS",
    "launch": "LAUNCHES",
    "launches": "LAUNCHES",
    "diskwrite": "DISK_WRITES",
    "diskwrites": "DISK_WRITES",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What to show; an empty part leaves everything in. Upper and lower case do not matter.

    Args:
        metrics: globs on the category (`LAUNCH`), Apple's name (`launchTime`), both (`LAUNCH/launchTime`) or
            our name (`appstore.launch.time`).
        devices: globs on the device's id or marketing name.
        platforms: `iOS`, `IOS`, `MAC_OS` and so on.
        percentiles: `p50`, `50`, `fifty` or `percentile.fifty`.
    """

    metrics: Sequence[str] = ()
    devices: Sequence[str] = ()
    platforms: Sequence[str] = ()
    percentiles: Sequence[str] = ()

    def points(self, rows: Iterable[Document]) -> list[Document]:
        """The points (`documents.points`) that were chosen."""
        return [row for row in rows if all(_chosen(option, row) for option in self._options())]

    def insights(self, rows: Iterable[Document]) -> list[Document]:
        """The insights (`documents.insights`) that were chosen, with those of their populations that were.

        A population of which nobody knows the platform is on every platform.
        """
        metric, device, platform, percentile = self._options()
        kept = []
        for row in rows:
            populations = [
                population
                for population in row["populations"]
                if _chosen(device, population)
                and _chosen(percentile, population)
                and (not population["platform"] or _chosen(platform, population))
            ]
            if _chosen(metric, row) and (populations or not row["populations"]):
                kept.append({**row, "populations": populations})
        return kept

    def given(self) -> list[str]:
        """The options that were given, as they are called."""
        return [option.name for option in self._options() if option.words]

    def unmatched(self, rows: Sequence[Row]) -> Iterator[str]:
        """A sentence for each word that fits none of the points, with what there is instead."""
        for option in self._options():
            for word in option.words:
                if not any(option.fits(word, row) for row in rows):
                    yield nothing_fits(option.name, word, (option.label(row) for row in rows))

    def in_vain(self, rows: Sequence[Row]) -> bool:
        """Whether one of the options alone fits none of the points."""
        return any(
            option.words and not any(_chosen(option, row) for row in rows) for option in self._options()
        )

    def _options(self) -> tuple[_Option, _Option, _Option, _Option]:
        return (
            _Option(
                "--metric", self.metrics, _is_metric, lambda row: f"{row['metricCategory']}/{row['metric']}"
            ),
            _Option("--device", self.devices, _is_device, lambda row: str(row["device"])),
            _Option("--platform", self.platforms, _is_platform, lambda row: str(row["platform"])),
            _Option(
                "--percentile",
                self.percentiles,
                lambda word, row: _percentile(word) == _percentile(row["percentile"]),
                lambda row: percentile_name(row["percentile"]),
            ),
        )


@dataclass(frozen=True, slots=True)
class DiagnosticsChoice:
    """Which diagnostics to show.

    Args:
        types: as `diagnostic_type` gives them; all if empty.
        limit: the heaviest so many signatures of each type; of a file of logs, so many logs of each
            signature. None for all.
        logs: so many logs of each signature; None for all.
        callstack: whether to show call stacks, and download the logs that they are in.
        whole: whether a call stack has every one of its lines.
    """

    types: Sequence[str] = ()
    limit: int | None = None
    logs: int | None = None
    callstack: bool = False
    whole: bool = False

    def given(self) -> list[str]:
        """The options that were given, as they are called."""
        options = {
            "--type": self.types,
            "--limit": self.limit,
            "--logs": self.logs,
            "--callstack": self.callstack,
        }
        return [name for name, value in options.items() if value]


def diagnostic_type(word: str) -> str | None:
    """`hangs`, `hang`, `HANGS`, `disk-writes`, `diskWrite` … → Apple's name; None for anything else."""
    return _DIAGNOSTIC_TYPES.get(re.sub(r"[-_\s]", "", word).casefold())


def nothing_fits(option: str, word: str, there: Iterable[str]) -> str:
    """What to tell someone whose choice fits nothing, with what there is."""
    names = list(dict.fromkeys(name for name in there if name))
    listed = ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")
    return f"{option} {printable(word, 80)} fits nothing; there is: {listed or 'nothing at all'}"


class _Option(NamedTuple):
    name: str
    words: Sequence[str]
    fits: Callable[[str, Row], bool]
    label: Callable[[Row], str]


def _chosen(option: _Option, row: Row) -> bool:
    return not option.words or any(option.fits(word, row) for word in option.words)


def _is_metric(word: str, row: Row) -> bool:
    category, metric = row["metricCategory"], row["metric"]
    return _fits(word, category, metric, f"{category}/{metric}", metric_name(category, metric))


def _is_device(word: str, row: Row) -> bool:
    return _fits(word, row["device"], row.get("deviceMarketingName", ""))


def _is_platform(word: str, row: Row) -> bool:
    return platform_name(word.strip()).casefold() == str(row["platform"]).casefold()


def _fits(glob: str, *names: str) -> bool:
    folded = glob.strip().casefold()
    return any(fnmatchcase(name.casefold(), folded) for name in names)


def _percentile(text: str) -> str:
    word = text.strip().casefold().removeprefix("percentile.")
    word = word[1:] if word[:1] == "p" and word[1:].isdecimal() else word
    return _PERCENTILE_WORDS.get(word, word)
