"""The command line: read arguments, call one function, print."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from exporter import __version__, sharding
from exporter.assets import BACKENDS
from exporter.cli import looking
from exporter.cli.options import CONFIG, SHARD
from exporter.errors import ConfigError, ExporterError


class _Commands(click.Group):
    """Turns what ends a command early into an exit status.

    The project's errors: a sentence, and 2 for configuration, else 1. Ctrl-C, SIGTERM, and a pipe that nobody
    reads any more: not a word, and the status that a shell gives to a program that the signal ended.
    """

    def invoke(self, ctx: click.Context) -> Any:
        # Python has a handler for Ctrl-C only; a signal without one does not reach PID 1 of a container.
        before = signal.signal(signal.SIGTERM, _end)
        try:
            return super().invoke(ctx)
        except ExporterError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2 if isinstance(error, ConfigError) else 1)
        except KeyboardInterrupt:
            ctx.exit(128 + signal.SIGINT)
        except BrokenPipeError:
            # What is still buffered goes nowhere: Python would complain of it at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(128 + signal.SIGPIPE)
        finally:
            signal.signal(signal.SIGTERM, before)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """End the command as an error would: what is open is closed, and what was not stored is rolled back."""
    raise SystemExit(128 + number)


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
@SHARD
@click.option(
    "--sandbox",
    is_flag=True,
    help="Against a built-in App Store Connect and OTLP receiver; no account needed.",
)
@click.option(
    "--endpoint",
    metavar="URL",
    help="With --sandbox: push to this Collector, in place of the built-in receiver.",
)
def run(config: Path | None, shard: sharding.Shard | None, sandbox: bool, endpoint: str | None) -> None:
    """Poll on a schedule, re-send at each heartbeat, until SIGTERM or Ctrl-C."""
    from exporter import service

    stop = threading.Event()
    service.stop_on_signals(stop)
    if sandbox:
        for option in ("config", "shard"):
            if click.get_current_context().get_parameter_source(option) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--sandbox has a configuration of its own; leave --{option} out")
        from exporter.demo import run_sandbox

        run_sandbox(os.environ, stop, endpoint)
        return
    if endpoint:
        raise click.UsageError(
            "--endpoint belongs to --sandbox; else it is otlp.endpoint of the configuration"
        )
    from exporter.endpoint import open_sink
    from exporter.state import State

    settings, log = _configured(config, shard)
    with closing(State(settings.state.path)) as state:
        exporter = service.Exporter(settings, state, open_sink(settings.otlp), log=log, stop=stop)
        service.run(exporter, stop, log)


@main.command()
@CONFIG
@SHARD
@click.option("--dry-run", is_flag=True, help="Print what would be sent; send and store nothing.")
@click.pass_context
def once(ctx: click.Context, config: Path | None, shard: sharding.Shard | None, dry_run: bool) -> None:
    """Poll and deliver once, for cron and serverless.

    Exit status 0: all went well. 1: something failed, the rest was delivered. 2: configuration. 143: ended by
    SIGTERM; what was asked for stays, and the next run delivers it.
    """
    from exporter import service
    from exporter.endpoint import open_sink
    from exporter.state import State

    settings, log = _configured(config, shard, level="error" if dry_run else "")
    if dry_run:
        ctx.exit(_dry_run(settings, log))
    with closing(State(settings.state.path)) as state:
        exporter = service.Exporter(settings, state, open_sink(settings.otlp), log=log)
        with closing(exporter):
            status = service.once(exporter)
    ctx.exit(status)


@main.command()
@CONFIG
@SHARD
@click.pass_context
def check(ctx: click.Context, config: Path | None, shard: sharding.Shard | None) -> None:
    """Try configuration, state folder, endpoint, key, apps and rate limit; count the series.

    Nothing is written or pushed. Asks App Store Connect what one poll would ask.
    """
    from exporter import check as checks
    from exporter.endpoint import open_sink

    settings, log = _configured(config, shard, level="critical", aloud=True)
    good = True
    for finding in checks.check(settings, open_sink(settings.otlp), log):
        click.echo(str(finding))
        good &= finding.good is not False
    ctx.exit(0 if good else 1)


@main.command()
@CONFIG
@SHARD
def plan(config: Path | None, shard: sharding.Shard | None) -> None:
    """Show what the next poll would ask for, what it costs, and what the key's hour leaves for it.

    Asks App Store Connect for the apps and their builds only; works beside a running exporter. When the key's
    share is used up, it shows what is known, and when the next request becomes free.
    """
    from exporter import check as checks
    from exporter.endpoint import open_sink

    settings, log = _configured(config, shard, level="critical", aloud=True)
    for line in checks.planned(settings, open_sink(settings.otlp), log):
        click.echo(line)


@main.command()
@click.option(
    "--env-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep the variables in FILE while the sandbox runs, readable by you alone.",
)
def sandbox(env_file: Path | None) -> None:
    """Serve only the built-in App Store Connect and OTLP receiver, until SIGTERM or Ctrl-C.

    Prints the environment variables with which an exporter finds them, as lines for a shell. The private key
    is made anew at each start and opens nothing but this sandbox; what an exporter stores is kept apart, and
    goes when the sandbox ends.
    """
    from contextlib import ExitStack
    from tempfile import TemporaryDirectory

    from exporter.sandbox import Sandbox, shell
    from exporter.service import stop_on_signals

    stop = threading.Event()
    stop_on_signals(stop)
    with ExitStack() as opened:
        # An exporter that still runs may write while the folder goes.
        stored = TemporaryDirectory(prefix="perfpower-sandbox-", ignore_cleanup_errors=True)
        folder = opened.enter_context(stored)
        both = opened.enter_context(Sandbox())
        text = shell.script({**both.environ(), "PERFPOWER_STATE": str(Path(folder) / "state.db")})
        if env_file is None:
            click.echo(text, nl=False)
        else:
            opened.enter_context(shell.env_file(env_file, text))
            click.echo(shell.directions(env_file, both.newest_build()))
        stop.wait()


@main.command()
@CONFIG
def healthcheck(config: Path | None) -> None:
    """Ask the exporter that runs here with this configuration whether it is alive; for containers.

    Asks /livez at http.listen. Exit status 0: alive. 1: not alive, or no answer. 2: configuration.
    """
    from exporter.healthcheck import ask, listening

    ask(*listening(config, os.environ))
    click.echo("alive")


@main.command()
@click.argument("backend", type=click.Choice(BACKENDS))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="The folder to write to; made if it is not there.",
)
@CONFIG
def assets(backend: str, out: Path, config: Path | None) -> None:
    """Write dashboards and alerts for BACKEND: datadog, splunk, grafana or prometheus.

    They follow the sections `alerts` and `schedule` of the configuration: which services, whom to tell, which
    thresholds. Needs no account and no key. Take a folder of your own: files of the same names are replaced,
    others left where they are and named. docs/dashboards.md says how to install them.
    """
    from exporter.asset_files import strangers, write
    from exporter.settings import load_without_accounts, watched_without_a_key

    settings = load_without_accounts(config, os.environ)
    for line in write(backend, settings, out):
        click.echo(line)
    for line in strangers(settings.alerts, watched_without_a_key(config, os.environ)):
        click.echo(f"warning: {line}", err=True)


for _command in looking.COMMANDS:
    main.add_command(_command)


def _configured(
    config: Path | None, shard: sharding.Shard | None, level: str = "", *, aloud: bool = False
) -> tuple[Any, Any]:
    from exporter import logs
    from exporter.settings import load
    from exporter.tuning import calm_garbage_collector

    settings = load(config, os.environ)
    calm_garbage_collector()
    log = logs.configure(level or settings.log.level, settings.log.format)
    return _ours(settings, shard, log, aloud=aloud) if shard else settings, log


def _ours(settings: Any, shard: sharding.Shard, log: Any, *, aloud: bool) -> Any:
    """The settings with the accounts of this shard; the log says which, or the terminal if `aloud`."""
    divided = sharding.divide(settings.accounts, shard)
    ours, others = ([account.name for account in accounts] for accounts in divided)
    if aloud:
        click.echo(
            f"shard {shard}: {', '.join(ours) or 'nothing'}; elsewhere: {', '.join(others) or 'nothing'}"
        )
    elif ours:
        log.info("shard", shard=str(shard), accounts=ours, elsewhere=others)
    else:
        log.warning("shard", shard=str(shard), accounts=ours, elsewhere=others)
    return settings.model_copy(update={"accounts": divided[0]})


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
