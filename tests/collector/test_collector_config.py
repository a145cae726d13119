"""The configurations that are shipped, put to a real Collector."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.otlp.grpc_sink import GrpcSink
from exporter.otlp.http_sink import HttpSink
from exporter.otlp.sink import MOST_REQUEST_BYTES, Sink
from tests.collector.binary import VERSION, built_path, find
from tests.collector.points import events, gauge, metrics, send
from tests.collector.running import REPOSITORY, Collector, configurations, run

DATADOG = {"DD_API_KEY": "0123456789abcdef0123456789abcdef"}
SIGNALFX = {
    "SPLUNK_ACCESS_TOKEN": "made-up-ingest-token",
    "SPLUNK_REALM": "us1",
    "SPLUNK_HEC_URL": "https://hec.example.com/services/collector",
    "SPLUNK_HEC_TOKEN": "made-up-hec-token",
}
COMPLETE: dict[str, dict[str, str]] = {"": {}, "datadog": DATADOG, "signalfx": SIGNALFX, "prometheus": {}}
EACH = pytest.mark.parametrize("overlay", COMPLETE, ids=lambda name: name or "base")


def overlays(name: str) -> tuple[str, ...]:
    return (name,) if name else ()


def over_http(collector: Collector) -> Sink:
    return HttpSink(collector.metrics_url)


def over_grpc(collector: Collector) -> Sink:
    return GrpcSink(f"127.0.0.1:{collector.ports.grpc}")


SINKS = pytest.mark.parametrize("sink_of", [over_http, over_grpc], ids=["http", "grpc"])


def test_the_collector_is_of_the_pinned_version(otelcol: Path) -> None:
    """What the tests run is what is deployed: the version of builder.yaml."""
    assert run(otelcol, ["--version"], [], {}).stdout.split()[-1] == VERSION


@EACH
def test_each_configuration_is_valid(otelcol: Path, tmp_path: Path, overlay: str) -> None:
    """The base is valid by itself, and with each overlay once its secrets are set."""
    environment = COMPLETE[overlay]
    done = run(otelcol, ["validate"], configurations(*overlays(overlay)), environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@EACH
def test_it_starts_without_a_warning(otelcol: Path, tmp_path: Path, overlay: str) -> None:
    """Nothing in the configurations is deprecated or doubtful to the Collector itself."""
    with Collector(otelcol, tmp_path, *overlays(overlay), environment=COMPLETE[overlay]) as collector:
        assert not re.findall(r"^.*\t(?:warn|error)\t.*$", collector.said(), re.M)


@EACH
def test_nothing_listens_to_other_machines_unless_told(overlay: str) -> None:
    """Each address that is listened on is this machine, unless OTLP_BIND or STATUS_BIND says otherwise."""
    document = yaml.safe_load(configurations(*overlays(overlay))[-1].read_text())
    kept = ("receivers", "extensions", "service")
    listening = {part: document.get(part, {}) for part in kept} | {"exporters": listening_exporters(document)}
    for address in addresses(listening):
        assert re.fullmatch(r"\$\{env:(OTLP|STATUS)_BIND:-127\.0\.0\.1\}(:\d+)?", address)


def listening_exporters(document: Any) -> Any:
    return {name: part for name, part in document.get("exporters", {}).items() if name == "prometheus"}


def addresses(part: Any) -> Iterator[str]:
    """Whatever stands under `endpoint` or `host`, however deep."""
    if isinstance(part, list):
        part = dict(enumerate(part))
    if isinstance(part, dict):
        for key, value in part.items():
            if key in ("endpoint", "host"):
                yield value
            yield from addresses(value)


@pytest.mark.parametrize("given", [None, ""], ids=["unset", "empty"])
@pytest.mark.parametrize(
    ("overlay", "variable", "words"),
    [
        ("datadog", "DD_API_KEY", "bearertokenauth/DD_API_KEY: no bearer token provided"),
        ("signalfx", "SPLUNK_ACCESS_TOKEN", "bearertokenauth/SPLUNK_ACCESS_TOKEN: no bearer token provided"),
        ("signalfx", "SPLUNK_REALM", 'exporters::signalfx: requires a non-empty "realm"'),
        ("signalfx", "SPLUNK_HEC_URL", 'exporters::splunk_hec: requires a non-empty "endpoint"'),
        ("signalfx", "SPLUNK_HEC_TOKEN", "bearertokenauth/SPLUNK_HEC_TOKEN: no bearer token provided"),
    ],
)
def test_what_is_missing_stops_the_start(
    otelcol: Path, tmp_path: Path, overlay: str, variable: str, words: str, given: str | None
) -> None:
    """A backend's Collector without a key, a token or an address ends at once and names it."""
    environment = dict(COMPLETE[overlay])
    del environment[variable]
    if given is not None:
        environment[variable] = given
    done = run(otelcol, [], configurations(overlay), environment)
    assert done.returncode == 1
    assert words in done.stderr


def test_a_secret_can_come_from_a_file(otelcol: Path, tmp_path: Path) -> None:
    """`${file:…}` as a variable's value stands for that file; an empty or missing one stops the start too."""
    secret = tmp_path / "dd_api_key"
    environment = {"DD_API_KEY": f"${{file:{secret}}}"}
    outcomes = []
    for content in (None, "", "made-up-key\n"):
        if content is not None:
            secret.write_text(content)
        done = run(otelcol, ["validate"], configurations("datadog"), environment)
        outcomes.append((done.returncode, str(secret) in done.stderr, "no bearer token" in done.stderr))
    assert outcomes == [(1, True, False), (1, False, True), (0, False, False)]


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ({}, "https://otlp.datadoghq.com"),
        ({"DD_SITE": "datadoghq.eu"}, "https://otlp.datadoghq.eu"),
        ({"DD_SITE": "datadoghq.eu", "DD_OTLP_ENDPOINT": "http://127.0.0.1:1"}, "http://127.0.0.1:1"),
    ],
    ids=["default", "site", "endpoint"],
)
def test_datadog_is_found_by_its_site(
    otelcol: Path, tmp_path: Path, given: dict[str, str], address: str
) -> None:
    """The intake is that of the site, unless an endpoint is given."""
    environment = {**DATADOG, **given}
    done = run(otelcol, ["print-config"], configurations("datadog"), environment)
    assert yaml.safe_load(done.stdout)["exporters"]["otlp_http/datadog"]["endpoint"] == address


@SINKS
def test_metrics_and_logs_are_taken(
    otelcol: Path, tmp_path: Path, sink_of: Callable[[Collector], Sink]
) -> None:
    """Our own sinks are told yes for both signals, and the Collector's own metrics count what arrived."""
    with Collector(otelcol, tmp_path) as collector:
        send(sink_of(collector), metrics(gauge("a", "b", "c")), events("a hang"))
        page = collector.page(collector.ports.telemetry)
    counted = dict(re.findall(r"^otelcol_receiver_accepted_(\w+?)(?:_total)?\{.*\} (\d+)$", page, re.M))
    assert counted == {"metric_points": "3", "log_records": "1"}
    assert '"metrics": 1, "data points": 3' in collector.said()
    assert '"log records": 1' in collector.said()


@SINKS
def test_the_largest_request_is_taken(
    otelcol: Path, tmp_path: Path, sink_of: Callable[[Collector], Sink]
) -> None:
    """What the exporter sends at the most is taken over either protocol."""
    body = metrics(gauge("x" * (MOST_REQUEST_BYTES - 250)))
    assert MOST_REQUEST_BYTES - 250 < len(body.data) <= MOST_REQUEST_BYTES
    with Collector(otelcol, tmp_path) as collector:
        send(sink_of(collector), body)


def test_without_go_a_build_says_what_to_install(tmp_path: Path) -> None:
    """`make collector` on a machine without Go ends with a sentence, not a traceback."""
    environment = {"HOME": str(tmp_path), "PATH": str(tmp_path)}
    command = [sys.executable, "-m", "tests.collector.build"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "install Go 1.25 or newer, or set PERFPOWER_OTELCOL" in done.stderr


def test_the_binary_is_looked_for_in_order(tmp_path: Path) -> None:
    """PERFPOWER_OTELCOL, then the PATH, then the cache; then none."""
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": str(tmp_path / "bin")}
    built, on_the_path, named = (
        built_path(environment),
        tmp_path / "bin" / "otelcol-contrib",
        tmp_path / "named",
    )
    found = [find(environment)]
    for program in (built, on_the_path, named):
        program.parent.mkdir(parents=True, exist_ok=True)
        program.touch()
        program.chmod(stat.S_IRWXU)
        found.append(find(environment | ({"PERFPOWER_OTELCOL": str(named)} if program == named else {})))
    assert found == [None, built, on_the_path, named]


def test_a_named_binary_that_is_none_is_an_error(tmp_path: Path) -> None:
    """Tests do not quietly take another Collector than the one that was asked for."""
    with pytest.raises(FileNotFoundError, match=r"PERFPOWER_OTELCOL is .*gone, which is no program"):
        find({"PERFPOWER_OTELCOL": str(tmp_path / "gone")})
