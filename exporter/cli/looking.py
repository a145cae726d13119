"""The commands for looking by hand: read arguments, call one function of `exporter.look`, print."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from exporter import __version__
from exporter.cli.options import CONFIG

if TYPE_CHECKING:
    from exporter.look.connection import Connection
    from exporter.look.found import Found

_Command = Callable[..., None]


class _DiagnosticType(click.ParamType[str]):
    """A type of diagnostics, as `diagnostic_type` reads it; refused before anything is asked."""

    name = "type"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from exporter.look.choice import diagnostic_type

        return diagnostic_type(value) or self.fail(
            f"{value!r} is none of hangs, launches and disk-writes (Apple's HANGS, LAUNCHES, DISK_WRITES).",
            param,
            ctx,
        )


_ACCOUNT = click.option(
    "--account", metavar="NAME", help="Which account to ask, where the configuration has several."
)
_FORMAT = click.option(
    "--json/--table",
    "as_json",
    default=None,
    help="JSON or a table, whatever the output is. Without it: a table on a terminal, JSON in a pipe.",
)
_METRIC = click.option(
    "--metric",
    "-m",
    "metrics",
    multiple=True,
    metavar="GLOB",
    help="LAUNCH, launchTime, LAUNCH/launchTime or appstore.launch.time. Repeatable.",
)
_DEVICE = click.option(
    "--device",
    "-d",
    "devices",
    multiple=True,
    metavar="GLOB",
    help="all_iphones, 'iPhone14,*' or 'iPhone 13*'. Repeatable.",
)
_PLATFORM = click.option(
    "--platform", "-p", "platforms", multiple=True, metavar="NAME", help="iOS, macOS, … Repeatable."
)
_PERCENTILE = click.option(
    "--percentile",
    "percentiles",
    multiple=True,
    metavar="NAME",
    help="p50, 50, fifty or percentile.fifty. Repeatable.",
)
_TYPE = click.option(
    "--type",
    "types",
    type=_DiagnosticType(),
    multiple=True,
    metavar="NAME",
    help="hangs, launches or disk-writes, or as Apple writes them. Repeatable.",
)
_LIMIT = click.option(
    "--limit",
    "-l",
    type=click.IntRange(min=1),
    metavar="N",
    help="The heaviest N signatures of each type; of a file of logs, N logs of each signature.",
)
_LOGS = click.option(
    "--logs", type=click.IntRange(min=1), metavar="N", help="N logs of each signature instead of all."
)
_AUTO_INSIGHTS = click.option(
    "--auto-insights",
    "--auto_insights",
    "-a",
    is_flag=True,
    expose_value=False,
    help="Taken as in Apple's sample: Apple's insights are always shown.",
)
_ALL_MODELS = click.option("--all", "every", is_flag=True, help="All device models of an insight.")
_INPUT = click.option(
    "--input",
    "-i",
    "saved",
    type=click.File("rb"),
    metavar="FILE",
    help="Show a saved answer instead of asking for one; - is standard input.",
)


def _options(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """The options as one decorator, in the order in which the help is to list them."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.command()
@_options(CONFIG, _ACCOUNT, _FORMAT)
def apps(config: Path | None, account: str | None, as_json: bool | None) -> None:
    """List all apps that the key sees, and which the configuration selects."""
    from exporter.look import commands

    with _connected(config, account) as connection:
        _show(commands.apps(connection), as_json)


@click.command()
@click.argument("app")
@click.option("--all", "every", is_flag=True, help="All builds, up to the last uploaded 2000.")
@_options(CONFIG, _ACCOUNT, _FORMAT)
def builds(app: str, every: bool, config: Path | None, account: str | None, as_json: bool | None) -> None:
    """List the builds of APP whose diagnostics are collected, the last uploaded first.

    APP is an Apple id, a bundle id, or a name that no other app has.
    """
    from exporter.look import commands

    with _connected(config, account) as connection:
        _show(commands.builds(connection, app, every=every), as_json)


@click.command()
@click.argument("target", metavar="[APP|BUILD]", required=False)
@_options(_METRIC, _DEVICE, _PLATFORM, _PERCENTILE, _AUTO_INSIGHTS, _ALL_MODELS, _INPUT)
@_options(CONFIG, _ACCOUNT, _FORMAT)
def metrics(
    target: str | None,
    every: bool,
    saved: BinaryIO | None,
    config: Path | None,
    account: str | None,
    as_json: bool | None,
    **choice: tuple[str, ...],
) -> None:
    """Show what Apple measured of an app's versions, or of one build.

    APP is an Apple id, a bundle id, or a name that no other app has; BUILD is a build's id, APP:VERSION or
    APP:VERSION:BUILDNUMBER. The table has values with their error margins and goals, in Apple's units, and
    ends with Apple's insights. The JSON is a list with one object for each point: all that Apple says of it,
    with the exporter's name, unit and value under `otlp`. Exit status 1 if nothing fits the options.
    """
    from exporter.look import commands, parsing
    from exporter.look.choice import Choice

    _need_one(target, saved, "APP|BUILD")
    if saved:
        _show(parsing.metrics(saved, _name(saved), Choice(**choice), every=every), as_json)
        return
    with _connected(config, account) as connection:
        _show(commands.metrics(connection, target or "", Choice(**choice), every=every), as_json)


@click.command()
@click.argument("app")
@_options(_METRIC, _DEVICE, _PLATFORM, _PERCENTILE, _ALL_MODELS, CONFIG, _ACCOUNT, _FORMAT)
def insights(
    app: str,
    every: bool,
    config: Path | None,
    account: str | None,
    as_json: bool | None,
    **choice: tuple[str, ...],
) -> None:
    """Show the regressions and upward trends that Apple sees in the newest version of APP.

    APP is an Apple id, a bundle id, or a name that no other app has. The table has a line for each device
    and percentile, with the values of the versions before; of more than ten device models those with the
    largest change. The JSON is a list with one object for each insight. Exit status 1 if an option fits
    nothing that Apple measured.
    """
    from exporter.look import commands
    from exporter.look.choice import Choice

    with _connected(config, account) as connection:
        _show(commands.insights(connection, app, Choice(**choice), every=every), as_json)


@click.command()
@click.argument("build", required=False)
@click.option(
    "--callstack",
    is_flag=True,
    help="Download the logs of these signatures too: a request for each. (-c is --config here.)",
)
@click.option("--all", "whole", is_flag=True, help="Every frame of a call stack.")
@_options(_TYPE, _LIMIT, _LOGS, _INPUT, CONFIG, _ACCOUNT, _FORMAT)
def diagnostics(
    build: str | None,
    saved: BinaryIO | None,
    config: Path | None,
    account: str | None,
    as_json: bool | None,
    **choice: Any,
) -> None:
    """Show the diagnostic signatures of BUILD: hangs, slow launches, disk writes; the heaviest first.

    BUILD is a build's id, APP:VERSION or APP:VERSION:BUILDNUMBER. With --callstack each signature's logs
    follow: Apple's remark on them, what the device said, and the call stack with the blamed frames marked.
    The JSON is a list with one object for each signature.
    """
    from exporter.look import commands, parsing
    from exporter.look.choice import DiagnosticsChoice

    _need_one(build, saved, "BUILD")
    if saved:
        _show(parsing.diagnostics(saved, _name(saved), DiagnosticsChoice(**choice)), as_json)
        return
    with _connected(config, account) as connection:
        _show(commands.diagnostics(connection, build or "", DiagnosticsChoice(**choice), _note), as_json)


@click.command()
@click.argument("file", type=click.File("rb"), required=False)
@click.option("--callstack", "-c", is_flag=True, help="The call stack of each log too.")
@click.option(
    "--all", "every", is_flag=True, help="All device models of an insight, every frame of a call stack."
)
@_options(_METRIC, _DEVICE, _PLATFORM, _PERCENTILE, _AUTO_INSIGHTS, _TYPE, _LIMIT, _LOGS, _INPUT, _FORMAT)
@click.version_option(__version__, "--version", "-v", prog_name="perfpower-exporter")
def parse(
    file: BinaryIO | None,
    saved: BinaryIO | None,
    types: tuple[str, ...],
    limit: int | None,
    logs: int | None,
    callstack: bool,
    every: bool,
    as_json: bool | None,
    **choice: tuple[str, ...],
) -> None:
    """Show a saved answer of App Store Connect; - is standard input.

    FILE holds xcodeMetrics, diagnosticSignatures, diagnosticLogs or xcodeOverview, as JSON or gzip of it; it
    is recognised by what is in it. Needs neither account nor configuration. The JSON is an object: `kind`
    says which of the four it is; of xcodeMetrics it has `metrics` (one object for each point) and
    `insights`, of the next two `signatures`, of xcodeOverview `signatures`, `goals` and `insights`. Exit
    status 1 if no point fits the options.

    The options of Apple's ppparser have the same meaning here.
    """
    from exporter.look import parsing
    from exporter.look.choice import Choice, DiagnosticsChoice

    _need_one(file, saved, "FILE")
    source: Any = file or saved
    of_diagnostics = DiagnosticsChoice(types, limit, logs, callstack, every)
    _show(parsing.parse(source, _name(source), Choice(**choice), of_diagnostics, every=every), as_json)


@click.command()
@click.option("--path", default="", metavar="PATH", help="Good for GET of this path only, such as /v1/apps.")
@_options(CONFIG, _ACCOUNT)
def token(path: str, config: Path | None, account: str | None) -> None:
    """Print a bearer token for curl, which is a secret.

    Issuer id, key id and key are those of the configuration or of ASC_ISSUER_ID, ASC_KEY_ID and
    ASC_PRIVATE_KEY_FILE. To use it, and keep it out of the list of processes:

    \b
      perfpower-exporter token | sed 's/^/Authorization: Bearer /' |
        curl -H @- https://api.appstoreconnect.apple.com/v1/apps
    """
    from exporter.look.connection import bearer
    from exporter.settings import load

    secret, seconds = bearer(load(config, os.environ), account, path)
    power = f"GET {path}" if path else "everything that the key may"
    _note(f"a secret: for {seconds / 60:.0f} minutes it opens {power}. Keep it out of logs and tickets.")
    click.echo(secret)


COMMANDS = (apps, builds, metrics, insights, diagnostics, parse, token)


def _need_one(argument: object, saved: object, name: str) -> None:
    if (argument is None) == (saved is None):
        raise click.UsageError(f"give either {name} or --input FILE")


def _name(file: BinaryIO) -> str:
    return str(getattr(file, "name", "<stdin>"))


def _connected(config: Path | None, account: str | None) -> AbstractContextManager[Connection]:
    from exporter.look.connection import connected
    from exporter.settings import load

    return connected(load(config, os.environ), account)


def _note(sentence: str) -> None:
    from exporter.look.tables import to_terminal

    click.echo(f"note: {to_terminal(sentence, _encoding(sys.stderr))}", err=True)


def _show(found: Found, as_json: bool | None) -> None:
    """Print what was found; then what is to be said about it, and what went wrong on the way."""
    from exporter.look.tables import to_json, to_terminal

    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    encoding = _encoding(sys.stdout)
    if not on_terminal if as_json is None else as_json:
        click.echo(to_json(found.document, encoding))
    else:
        click.echo(to_terminal(found.text(_width(on_terminal)), encoding))
    for sentence in found.notes:
        _note(sentence)
    if found.failure:
        raise found.failure
    if not found.fits:
        click.get_current_context().exit(1)


def _width(on_terminal: bool) -> int | None:
    """The cells of a line: the terminal's, or what COLUMNS says; in a pipe without it there is no limit."""
    return shutil.get_terminal_size().columns if on_terminal or os.environ.get("COLUMNS") else None


def _encoding(stream: Any) -> str:
    return getattr(stream, "encoding", None) or "utf-8"
