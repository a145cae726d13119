"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from exporter import sharding

CONFIG = click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path),
    envvar="PERFPOWER_CONFIG",
    help="The configuration file; a single account needs none. [env: PERFPOWER_CONFIG]",
)


def _shard(ctx: click.Context, parameter: click.Parameter, text: str | None) -> sharding.Shard | None:
    if text is None:
        return None
    from_variable = ctx.get_parameter_source(str(parameter.name)) is ParameterSource.ENVIRONMENT
    return sharding.parse(text, "PERFPOWER_SHARD" if from_variable else "--shard")


SHARD = click.option(
    "--shard",
    metavar="I/N",
    envvar="PERFPOWER_SHARD",
    callback=_shard,
    help="Only the accounts that fall to exporter I, counted from 0, of N with the same configuration. "
    "[env: PERFPOWER_SHARD]",
)
