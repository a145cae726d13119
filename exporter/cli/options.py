"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

CONFIG = click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path),
    envvar="PERFPOWER_CONFIG",
    help="The configuration file; a single account needs none. [env: PERFPOWER_CONFIG]",
)
