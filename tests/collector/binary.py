"""Which Collector the tests run, and where a built one is kept."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

RECIPE = Path(__file__).parent
RECIPE_FILES = ("build.py", "builder.yaml", "go.mod", "go.sum")
VERSION: str = yaml.safe_load((RECIPE / "builder.yaml").read_text())["dist"]["version"]
MISSING = "no Collector: install Go and run make collector, or set PERFPOWER_OTELCOL"


def find(environment: Mapping[str, str]) -> Path | None:
    """The Collector of PERFPOWER_OTELCOL, else otelcol-contrib on the PATH, else what `make collector` built.

    Raises:
        FileNotFoundError: PERFPOWER_OTELCOL names no program; another one is not what was asked for.
    """
    if named := environment.get("PERFPOWER_OTELCOL"):
        if not (program := shutil.which(named)):
            raise FileNotFoundError(f"PERFPOWER_OTELCOL is {named}, which is no program")
        return Path(program).absolute()
    on_the_path = shutil.which("otelcol-contrib", path=environment.get("PATH", os.defpath))
    built = built_path(environment)
    return Path(on_the_path) if on_the_path else built if built.exists() else None


def built_path(environment: Mapping[str, str]) -> Path:
    """Where `make collector` puts what it builds: another place for each recipe, so that none goes stale."""
    digest = hashlib.sha256(b"\0".join((RECIPE / name).read_bytes() for name in RECIPE_FILES)).hexdigest()
    home = environment.get("HOME") or str(Path.home())
    cache = Path(environment.get("XDG_CACHE_HOME") or Path(home, ".cache"))
    return cache / "perfpower-exporter" / f"otelcol-{VERSION}-{digest[:12]}" / "otelcol-contrib"
