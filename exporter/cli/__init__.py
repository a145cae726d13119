"""The command line: read arguments, call one function, print."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from exporter import __version__
from exporter.cli import looking
from exporter.cli.options import CONFIG
from exporter.errors import ConfigError, ExporterError


class _Commands(click.Group):
    """Turns the project's errors into a sentence and an exit status: 2 for configuration, else 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ExporterError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2 if isinstance(error, ConfigError) else 1)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="perfpower-exporter")
def main() -> None:
    """App Store performance metrics as OpenTelemetry.

    Polls App Store Connect for what Apple measured of your apps in the field, and hands it to an
    OpenTelemetry Collector as gauges and histograms, tagged by device, platform and version.
    """


@main.command()
@CONFIG
@click.option(
    "--sandbox",
    is_flag=True,
    help="Against a built-in App Store Connect and OTLP receiver; no account needed.",
)
def run(config: Path | None, sandbox: bool) -> None:
    """Poll on a schedule, re-send at each heartbeat, until SIGTERM or Ctrl-C."""
    from exporter import service

    stop = threading.Event()
    service.stop_on_signals(stop)
    if sandbox:
        if click.get_current_context().get_parameter_source("config") is ParameterSource.COMMANDLINE:
            raise click.UsageError("--sandbox has a configuration of its own; leave --config out")
        from exporter.demo import run_sandbox

        run_sandbox(os.environ, stop)
        return
    from exporter.endpoint import open_sink
    from exporter.state import State

    settings, log = _configured(config)
    with closing(State(settings.state.path)) as state:
        exporter = service.Exporter(settings, state, open_sink(settings.otlp), log=log, stop=stop)
        service.run(exporter, stop, log)


@main.command()
@CONFIG
@click.option("--dry-run", is_flag=True, help="Print what would be sent; send and store nothing.")
@click.pass_context
def once(ctx: click.Context, config: Path | None, dry_run: bool) -> None:
    """Poll and deliver once, for cron and serverless.

    Exit status 0: all went well. 1: something failed, the rest was delivered. 2: configuration.
    """
    from exporter import service
    from exporter.endpoint import open_sink
    from exporter.state import State

    settings, log = _configured(config, level="error" if dry_run else "")
    if dry_run:
        ctx.exit(_dry_run(settings, log))
    with closing(State(settings.state.path)) as state:
        exporter = service.Exporter(settings, state, open_sink(settings.otlp), log=log)
        with closing(exporter):
            status = service.once(exporter)
    ctx.exit(status)


@main.command()
@CONFIG
@click.pass_context
def check(ctx: click.Context, config: Path | None) -> None:
    """Try configuration, state folder, endpoint, key, apps and rate limit; count the series.

    Nothing is written or pushed. Asks App Store Connect what one poll would ask.
    """
    from exporter import check as checks
    from exporter.endpoint import open_sink

    settings, log = _configured(config, level="critical")
    good = True
    for finding in checks.check(settings, open_sink(settings.otlp), log):
        click.echo(str(finding))
        good &= finding.good
    ctx.exit(0 if good else 1)


@main.command()
@CONFIG
def plan(config: Path | None) -> None:
    """Show what the next poll would ask for, what it costs, and what the key's hour leaves for it.

    Asks App Store Connect for the apps and their builds only; works beside a running exporter.
    """
    from exporter import check as checks
    from exporter.endpoint import open_sink

    settings, log = _configured(config, level="critical")
    for line in checks.planned(settings, open_sink(settings.otlp), log):
        click.echo(line)


@main.command()
def sandbox() -> None:
    """Serve only the built-in App Store Connect and OTLP receiver, until SIGTERM or Ctrl-C.

    Prints the environment variables with which an exporter finds them. The private key is made anew at
    each start and opens nothing but this sandbox.
    """
    from exporter.sandbox import Sandbox
    from exporter.service import stop_on_signals

    stop = threading.Event()
    stop_on_signals(stop)
    with Sandbox() as both:
        for name, value in both.environ().items():
            click.echo(f"export {name}='{value}'")
        stop.wait()


for _command in looking.COMMANDS:
    main.add_command(_command)


def _configured(config: Path | None, level: str = "") -> tuple[Any, Any]:
    from exporter import logs
    from exporter.settings import load
    from exporter.tuning import calm_garbage_collector

    settings = load(config, os.environ)
    calm_garbage_collector()
    return settings, logs.configure(level or settings.log.level, settings.log.format)


def _dry_run(settings: Any, log: Any) -> int:
    from exporter import service
    from exporter.check import rehearse, series_table
    from exporter.otlp.local_sinks import ConsoleSink

    exporter = rehearse(settings, ConsoleSink(sys.stdout), log)
    with closing(exporter.state), closing(exporter):
        status = service.once(exporter)
        reports = exporter.status.reports()
        series: Counter[str] = Counter()
        capped: Counter[str] = Counter()
        for report in reports:
            series += report.series
            capped += report.capped
        click.echo(f"\n{series.total()} series would be sent:")
        click.echo("\n".join(series_table(series, capped)))
        for report in reports:
            if report.left_out:
                left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(report.left_out.items()))
                click.echo(f"Values of account {report.account} that do not leave: {left_out}")
    return status
