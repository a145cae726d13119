"""What is in the units of deploy/systemd."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from tests.container.tools import REPOSITORY

UNITS = REPOSITORY / "deploy" / "systemd"
EXPORTER = "perfpower-exporter.service"
COLLECTOR = "perfpower-collector@.service"


def unit(name: str) -> dict[str, list[str]]:
    """Setting → its values, in the order of the file."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for key, value in re.findall(r"^([A-Za-z]+)=(.*)$", (UNITS / name).read_text(), re.M):
        found[key].append(value)
    return dict(found)


def environment(name: str, credentials: Path) -> dict[str, str]:
    """The variables that the unit itself sets, with its credentials in this folder."""
    pairs = (value.replace("%d", str(credentials)).partition("=") for value in unit(name)["Environment"])
    return {key: value for key, _, value in pairs}
