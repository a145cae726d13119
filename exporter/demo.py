"""`run --sandbox`: the whole service against the built-in other ends, told in words."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from exporter import logs, settings
from exporter.endpoint import open_sink
from exporter.sandbox import AppStoreSandbox, Point, Sandbox
from exporter.service import Exporter, run
from exporter.state import State

_SECTIONS_OF_THE_USER = (
    "PERFPOWER__COLLECT__",
    "PERFPOWER__DIAGNOSTICS__",
    "PERFPOWER__LIMITS__",
    "PERFPOWER__HTTP__",
)
_DAY = 1  # minutes: a new day for each poll
_LONG_DAY = (
    5  # with a Collector, for alerts: they wait a quarter of an hour; the next release comes on day 13
)
_SCHEDULE = {
    "PERFPOWER__SCHEDULE__POLL": "* * * * *",
    "PERFPOWER__SCHEDULE__JITTER": "0",
    "PERFPOWER__SCHEDULE__HEARTBEAT": "20s",
}
_OWN_ACCOUNT = """
To see your own apps, with a key from App Store Connect → Users and Access → Integrations:

  export ASC_ISSUER_ID=… ASC_KEY_ID=… ASC_PRIVATE_KEY_FILE=AuthKey_….p8
  .venv/bin/perfpower-exporter check             what it can read, and how many series that makes
  .venv/bin/perfpower-exporter once --dry-run    every point that would be sent
  .venv/bin/perfpower-exporter run               to the Collector at OTEL_EXPORTER_OTLP_ENDPOINT,
                                                 http://localhost:4318 unless set

Ctrl-C ends this.
"""


def run_sandbox(environ: Mapping[str, str], stop: threading.Event, endpoint: str | None = None) -> None:
    """Run until `stop` is set; leaves nothing behind.

    Args:
        environ: the process's environment, of which the sections `collect`, `diagnostics`, `limits` and
            `http` are used.
        endpoint: the address of a Collector to push to; None for the built-in receiver.
    """
    with ExitStack() as opened:
        first, minutes = _minute(), minutes_of_a_day(endpoint)
        appstore = AppStoreSandbox(day=lambda: float((_minute() - first) // minutes))
        sandbox = opened.enter_context(Sandbox(appstore=appstore))
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="perfpower-sandbox-"))
        chosen = {name: value for name, value in environ.items() if name.startswith(_SECTIONS_OF_THE_USER)}
        logs.configure("critical", "console")  # libraries have nothing to say here that the narrator does not
        ends = sandbox.environ() | ({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint} if endpoint else {})
        configured = settings.load(
            None, {**_SCHEDULE, **chosen, **ends, "PERFPOWER_STATE": str(Path(folder) / "state.db")}
        )
        state = opened.enter_context(closing(State(configured.state.path)))
        narrator = Narrator(sandbox, stop, endpoint)
        exporter = Exporter(configured, state, open_sink(configured.otlp), log=narrator, stop=stop)
        narrator.begin()
        run(exporter, stop, narrator)


def minutes_of_a_day(endpoint: str | None) -> int:
    """How long a day of the sandbox lasts, with a Collector at `endpoint` or, None, the built-in receiver."""
    return _LONG_DAY if endpoint else _DAY


class Narrator:
    """Stands where the log stands, and says in sentences what happened.

    Args:
        endpoint: a Collector that gets the points in place of the sandbox's receiver, where they cannot be
            looked at for examples.
    """

    def __init__(self, sandbox: Sandbox, stop: threading.Event, endpoint: str | None = None) -> None:
        self._sandbox = sandbox
        self._stop = stop
        self._endpoint = endpoint
        self._told_examples = endpoint is not None

    def begin(self) -> None:
        """What this is, before anything happens."""
        click.echo(
            f"perfpower-exporter with {self._both_ends()}\n"
            "Gauges are sent again at each heartbeat, here every 20 seconds, so that charts have no gaps;\n"
            "distributions over device models only when they change.\n\n"
            "A poll asks for the metrics first, and sends them at once. Then it asks for the call stacks\n"
            "behind hangs, slow launches and disk writes, at most five requests a second: the first poll\n"
            "takes about a minute. Each stack becomes an event, once.\n"
        )

    def _both_ends(self) -> str:
        minutes = minutes_of_a_day(self._endpoint)
        pace = "each minute" if minutes == 1 else f"every {minutes} minutes"
        appstore = f"  App Store Connect  {self._sandbox.appstore.url}  three apps; a day passes {pace}\n"
        if self._endpoint:
            return (
                f"a built-in App Store Connect.\n\n{appstore}"
                f"  Collector          {self._endpoint}  gets made-up numbers\n"
            )
        return (
            f"a built-in App Store Connect and OTLP receiver: nothing leaves this machine.\n\n{appstore}"
            f"  OTLP receiver      {self._sandbox.receiver.url}  takes the place of your Collector\n"
        )

    def debug(self, event: str, **fields: object) -> None:
        """Heartbeats that went well are worth a line here, as they are all that happens between polls."""
        if event == "delivery" and fields["requests"]:
            self.info(event, **fields)

    def info(self, event: str, **fields: object) -> None:
        """One thing that happened."""
        match event:
            case "poll":
                self._say(
                    "polled",
                    "{apps} apps, requests: {requests}; {unchanged} of {answers} answers as before; "
                    "new gauge points: {points}, changed distributions: {distributions}, events: {events}",
                    fields,
                )
            case "delivery" if fields["outcome"] == "ok":
                self._say(
                    "delivered",
                    "{accepted} points, {events} events, requests: {requests}; items still owed: {owed}",
                    fields,
                )
                if fields["accepted"] and not self._told_examples:
                    self._tell_examples()
            case "started":
                self._say("started", "status page at {health}/" if fields["health"] else "", fields)
            case "cycle.no_overview":
                self._say(
                    "noted",
                    "no overview of {app}: not every account has that endpoint of API 4.5, and nothing else "
                    "needs it",
                    fields,
                )
            case "cycle.series_cap_reached":
                self._say(
                    "held back",
                    "{left_out} series of {app}, the least important beyond {cap} an app ({setting})",
                    fields,
                )
            case "cycle.deferred":
                self._say("put off", "to the next poll: {what} ({reason})", {**fields, "what": _what(fields)})
            case "cycle.still_running":
                self._say("left out", "this minute's poll: the one before still goes on", fields)
            case "heartbeat.still_running":
                self._say("left out", "a heartbeat: the one before is still sending", fields)
            case "scheduled" | "stopping":
                pass
            case "stopped":
                self._say("stopped", "items still owed: {owed}", fields)
            case _:
                self._say(
                    event,
                    ", ".join(f"{name} {{{name}}}" for name, value in fields.items() if value is not None),
                    fields,
                )

    def warning(self, event: str, **fields: object) -> None:
        """One thing that somebody should look at."""
        self.info(event, **fields)

    error = exception = warning

    def _say(self, what: str, sentence: str, fields: Mapping[str, object]) -> None:
        try:
            click.echo(f"{datetime.now():%H:%M:%S}  {what:<10} {sentence.format(**fields)}")
        except BrokenPipeError:  # nobody reads any more, as after `| head`
            self._stop.set()

    def _tell_examples(self) -> None:
        self._told_examples = True
        points = list(self._sandbox.receiver.latest().values())
        click.echo("\nWhat the receiver got of launch time, all iPhones, p90 (seconds):\n")
        for app, versions in _launch_times(points).items():
            click.echo(f"  {app:<28}" + "".join(f"{version:>9}" for version in versions))
            click.echo(f"  {'':<28}" + "".join(f"{value:>9.3f}" for value in versions.values()))
            click.echo(f"  {'':<28} {_verdict(versions)}")
        names = sorted({point.name for point in points if not point.name.startswith("appstore.exporter.")})
        click.echo(f"\n… and {len(names)} metrics in all, {names[0]} to {names[-1]}.\n{_OWN_ACCOUNT}")


def _launch_times(points: list[Point]) -> dict[str, dict[str, float]]:
    """App → version → launch time, versions ascending."""
    apps: dict[str, dict[str, float]] = {}
    for point in sorted(points, key=lambda point: _version(point)):
        of = point.attributes
        if (
            point.name == "appstore.launch.time"
            and of["device"] == "all_iphones"
            and of["percentile"] == "p90"
        ):
            versions = apps.setdefault(str(point.resource["service.name"]), {})
            versions[str(of["version"])] = float(point.value or 0.0)
    return apps


def _verdict(versions: dict[str, float]) -> str:
    """The newest version against the mean of the others."""
    *others, newest = versions.values()
    change = newest / (sum(others) / len(others)) - 1
    sign = "as before" if abs(change) < 0.1 else "slower: a regression" if change > 0 else "faster"
    return f"{list(versions)[-1]}: {change:+.0%} against the versions before, {sign}"


def _what(deferred: Mapping[str, Any]) -> str:
    """What was put off: kinds of steps, and how many of each."""
    return ", ".join(f"{what.replace('_', ' ')} ({count})" for what, count in deferred["of"].items())


def _minute() -> int:
    return int(time.time() // 60)


def _version(point: Point) -> list[int]:
    return [int(part) for part in str(point.attributes.get("version", "0")).split(".") if part.isdigit()]
