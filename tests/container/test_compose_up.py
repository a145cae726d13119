"""docker-compose.yml brought up: Docker Compose over podman's socket, a real Collector, our image."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.container.tools import REPOSITORY, USER, inspected, logs, run, wait_until

GRACE = 15  # stop_grace_period of the exporter
KEY = "made-up-datadog-key"
TAKES_DATA = {4317, 4318}  # the Collector's, for OTLP
SHOWS = {8888, 9464, 13133}  # what is only read
_CHANGED = """
services:
  exporter:
    ports: !override ["127.0.0.1::13134"]
    environment: {PERFPOWER__DIAGNOSTICS__VERSIONS: "0"}
  stranger:
    image: perfpower-exporter
    entrypoint: [sleep, infinity]
    stop_signal: SIGKILL
    networks: [local]
"""


class Engine:
    """podman, spoken to as Docker is, while the `with` block lasts."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix://{folder / 'engine.sock'}"
        self._log = folder / "engine.log"

    def __enter__(self) -> Engine:
        with self._log.open("wb") as log:
            command = ["podman", "system", "service", "--time=0", self.address]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        socket = Path(self.address.removeprefix("unix://"))
        wait_until(socket.exists, self._log.read_text)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)


class Stack:
    """The services of docker-compose.yml under another project name, with a status port that is free.

    The exporter collects no diagnostics, since a first poll takes a minute with them. One service more,
    `stranger`, is in the network of the local view.
    """

    def __init__(self, command: list[str], engine: Engine, folder: Path, **environment: str) -> None:
        self._project = f"perfpower-test-{os.getpid()}"
        changed = folder / "changed.yaml"
        changed.write_text(_CHANGED)
        (folder / "env").touch()
        files = [f"--file={REPOSITORY / 'docker-compose.yml'}", f"--file={changed}"]
        place = [f"--project-directory={REPOSITORY}", f"--project-name={self._project}"]
        self._command = [*command, *files, *place, f"--env-file={folder / 'env'}"]
        self._environment = {"DOCKER_HOST": engine.address, "BACKEND": "", **environment}

    def __call__(self, *arguments: str) -> str:
        """A command of Docker Compose; what it says."""
        return run(*self._command, *arguments, environment=self._environment).stdout

    def up(self, *services: str) -> None:
        """Start these, from images that are there."""
        self("up", "--detach", "--no-build", "--pull=never", *services)

    def container(self, service: str) -> str:
        """The container of a service."""
        return self("ps", "--all", "--quiet", service).strip()

    def address(self) -> str:
        """Where this machine finds the status page."""
        return self("port", "exporter", "13134").strip()

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        self("--profile=local", "down", "--volumes", "--timeout=0")


@pytest.fixture
def engine(collector_image: None, tmp_path: Path) -> Iterator[Engine]:
    """podman with the images of the pair."""
    with Engine(tmp_path) as running:
        yield running


def test_the_pair_works_with_nothing_configured(compose: list[str], engine: Engine, tmp_path: Path) -> None:
    """`docker compose up`: made-up numbers reach the Collector's page, health is good, it ends quickly."""
    with Stack(compose, engine, tmp_path) as stack:
        stack.up("exporter", "collector")
        exporter, collector = stack.container("exporter"), stack.container("collector")
        address = stack.address()
        assert address.startswith("127.0.0.1:")
        wait_until(lambda: _ready(stack), lambda: logs(exporter) + logs(collector))
        assert run("podman", "healthcheck", "run", exporter, check=False).returncode == 0
        assert 'service_name="com.example.harbour"' in _asked(exporter, "http://otlp:9464/metrics")
        assert run("podman", "port", exporter).stdout == f"13134/tcp -> {address}\n"
        started = time.monotonic()
        stack("stop")
        assert time.monotonic() - started < GRACE
        assert [inspected(name)["State"]["ExitCode"] for name in (exporter, collector)] == [0, 0]


def test_nobody_else_reaches_what_takes_data(compose: list[str], engine: Engine, tmp_path: Path) -> None:
    """Not from another container in the network of the local view: it has your key."""
    with Stack(compose, engine, tmp_path) as stack:
        stack.up("exporter", "collector", "stranger")
        exporter, stranger = stack.container("exporter"), stack.container("stranger")
        wait_until(lambda: _open(exporter, "otlp") == TAKES_DATA | SHOWS, lambda: logs(exporter))
        assert _open(stranger, "collector") == SHOWS
        networks = inspected(stack.container("collector"))["NetworkSettings"]["Networks"].values()
        assert all(not TAKES_DATA & _open(stranger, found["IPAddress"]) for found in networks)


@pytest.mark.parametrize("service", ["collector", "exporter"])
def test_one_that_crashes_comes_back_to_the_other(
    compose: list[str], engine: Engine, tmp_path: Path, service: str
) -> None:
    """Killed, it is started again, and data flows again."""
    with Stack(compose, engine, tmp_path) as stack:
        stack.up("exporter", "collector")
        exporter, killed = stack.container("exporter"), stack.container(service)
        wait_until(lambda: _ready(stack), lambda: logs(exporter))
        os.kill(inspected(killed)["State"]["Pid"], signal.SIGKILL)
        wait_until(lambda: inspected(killed)["RestartCount"] == 1, lambda: logs(killed))
        own = "http://otlp:8888/metrics"
        received = "otelcol_receiver_accepted_metric_points"
        wait_until(lambda: received in _asked(exporter, own) and _ready(stack), lambda: logs(exporter))


def _ready(stack: Stack) -> bool:
    try:
        return httpx.get(f"http://{stack.address()}/readyz", trust_env=False).text == "ok\n"
    except httpx.HTTPError:
        return False


def _asked(container: str, url: str) -> str:
    """What a URL answers inside the network of a container; nothing where nobody answers."""
    script = f"import urllib.request; print(urllib.request.urlopen({url!r}).read().decode())"
    return run("podman", "exec", container, "python", "-c", script, check=False).stdout


def _open(container: str, host: str) -> set[int]:
    """The ports of a host that a container reaches."""
    ports = tuple(TAKES_DATA | SHOWS)
    script = (
        "import socket\n"
        f"for port in {ports}:\n"
        "    with socket.socket() as tried:\n"
        "        tried.settimeout(5)\n"
        f"        if tried.connect_ex(({host!r}, port)) == 0: print(port)\n"
    )
    return set(map(int, run("podman", "exec", container, "python", "-c", script).stdout.split()))


@pytest.mark.parametrize(("content", "starts"), [(f"{KEY}\n", True), ("", False)], ids=["key", "empty"])
def test_a_backend_gets_its_secret_from_a_file(
    compose: list[str], engine: Engine, tmp_path: Path, content: str, starts: bool
) -> None:
    """The Collector reads a file that is its user's alone; an empty one stops it with a sentence."""
    secret = tmp_path / "dd_api_key"
    secret.write_text(content)
    secret.chmod(0o400)
    shutil.chown(secret, USER, USER)
    environment = {"ASC_KEY_ID": "KEY", "DD_SITE": "datadoghq.eu", "DD_API_KEY_FILE": str(secret)}
    with Stack(compose, engine, tmp_path, BACKEND="datadog", **environment) as stack:
        stack.up("collector")
        collector = stack.container("collector")
        says = "Everything is ready" if starts else "no bearer token provided"
        wait_until(lambda: says in logs(collector), lambda: logs(collector))
        assert KEY not in logs(collector)
        assert KEY not in json.dumps(inspected(collector))
