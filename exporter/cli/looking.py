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

from exporter.cli.options import CONFIG

if TYPE_CHECKING:
    from exporter.look.commands import Found
    from exporter.look.connection import Connection

_Command = Callable[..., None]

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
    "metrics",
    multiple=True,
    metavar="GLOB",
    help="LAUNCH, launchTime, LAUNCH/launchTime or appstore.launch.time. Repeatable.",
)
_DEVICE = click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="GLOB",
    help="all_iphones, 'iPhone14,*' or 'iPhone 13*'. Repeatable.",
)
_PLATFORM = click.option(
    "--platform", "platforms", multiple=True, metavar="NAME", help="iOS, macOS, … Repeatable."
)
_PERCENTILE = click.option(
    "--percentile",
    "percentiles",
    multiple=True,
    metavar="NAME",
    help="p50, 50, fifty or percentile.fifty. Repeatable.",
)
_TYPE = click.option(
    "--type", "types", multiple=True, metavar="NAME", help="hangs, launches or disk-writes. Repeatable."
)
_LIMIT = click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="The heaviest N signatures of each type."
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
@click.argument("target", metavar="APP|BUILD")
@_options(_METRIC, _DEVICE, _PLATFORM, _PERCENTILE, CONFIG, _ACCOUNT, _FORMAT)
def metrics(
    target: str, config: Path | None, account: str | None, as_json: bool | None, **choice: tuple[str, ...]
) -> None:
    """Show what Apple measured of an app's versions, or of one build.

    APP is an Apple id, a bundle id, or a name that no other app has; BUILD is a build's id, APP:VERSION or
    APP:VERSION:BUILDNUMBER. Values and goals are in Apple's units; the JSON has one object for each point,
    with the exporter's name, unit and value beside Apple's. The table ends with Apple's insights.
    """
    from exporter.look import commands
    from exporter.look.choice import Choice

    with _connected(config, account) as connection:
        _show(commands.metrics(connection, target, Choice(**choice)), as_json)


@click.command()
@click.argument("app")
@_options(CONFIG, _ACCOUNT, _FORMAT)
def insights(app: str, config: Path | None, account: str | None, as_json: bool | None) -> None:
    """Show the regressions and upward trends that Apple sees in the newest version of APP.

    APP is an Apple id, a bundle id, or a name that no other app has.
    """
    from exporter.look import commands

    with _connected(config, account) as connection:
        _show(commands.insights(connection, app), as_json)


@click.command()
@click.argument("build")
@click.option(
    "--callstack", is_flag=True, help="Download the logs of these signatures too: a request for each."
)
@_options(_TYPE, _LIMIT, CONFIG, _ACCOUNT, _FORMAT)
def diagnostics(
    build: str,
    types: tuple[str, ...],
    limit: int | None,
    callstack: bool,
    config: Path | None,
    account: str | None,
    as_json: bool | None,
) -> None:
    """Show the diagnostic signatures of BUILD: hangs, slow launches, disk writes; the heaviest first.

    BUILD is a build's id, APP:VERSION or APP:VERSION:BUILDNUMBER. With --callstack each signature's logs
    follow: Apple's remark on them, what the device said, and the call stack with the blamed frames marked.
    """
    from exporter.look import commands

    with _connected(config, account) as connection:
        choice = commands.DiagnosticsChoice(types, limit, callstack)
        _show(commands.diagnostics(connection, build, choice, _note), as_json)


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--callstack", is_flag=True, help="The call stack of each log too.")
@_options(_METRIC, _DEVICE, _PLATFORM, _PERCENTILE, _TYPE, _LIMIT, _FORMAT)
def parse(
    file: BinaryIO,
    types: tuple[str, ...],
    limit: int | None,
    callstack: bool,
    as_json: bool | None,
    **choice: tuple[str, ...],
) -> None:
    """Show a saved answer of App Store Connect; - is standard input.

    FILE holds xcodeMetrics, diagnosticSignatures, diagnosticLogs or xcodeOverview, as JSON or gzip of it; it
    is recognised by what is in it. Needs neither account nor configuration.
    """
    from exporter.look import commands
    from exporter.look.choice import Choice

    diagnostics_choice = commands.DiagnosticsChoice(types, limit, callstack)
    name = getattr(file, "name", "<stdin>")
    _show(commands.parse(file, name, Choice(**choice), diagnostics_choice), as_json)


@click.command()
@click.option("--path", default="", metavar="PATH", help="Good for GET of this path only, such as /v1/apps.")
@_options(CONFIG, _ACCOUNT)
def token(path: str, config: Path | None, account: str | None) -> None:
    """Print a bearer token for curl, which is a secret.

    Issuer id, key id and key are those of the configuration or of ASC_ISSUER_ID, ASC_KEY_ID and
    ASC_PRIVATE_KEY_FILE. To use it:

    \b
      curl -H "Authorization: Bearer $(perfpower-exporter token)" \\
        https://api.appstoreconnect.apple.com/v1/apps
    """
    from exporter.look.connection import bearer
    from exporter.settings import load

    secret, seconds = bearer(load(config, os.environ), account, path)
    power = f"GET {path}" if path else "everything that the key may"
    _note(f"a secret: for {seconds / 60:.0f} minutes it opens {power}. Keep it out of logs and tickets.")
    click.echo(secret)


COMMANDS = (apps, builds, metrics, insights, diagnostics, parse, token)


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


def _width(on_terminal: bool) -> int | None:
    """The cells of a line: the terminal's, or what COLUMNS says; in a pipe without it there is no limit."""
    return shutil.get_terminal_size().columns if on_terminal or os.environ.get("COLUMNS") else None


def _encoding(stream: Any) -> str:
    return getattr(stream, "encoding", None) or "utf-8"
