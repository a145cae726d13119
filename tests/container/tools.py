"""buildah, podman and Docker Compose, as the tests of the image and of docker-compose.yml use them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "Dockerfile"
BASE = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE.read_text(), re.M)[0]
IMAGE = "docker.io/library/perfpower-exporter:latest"  # as Docker's API spells what docker-compose.yml names
COLLECTOR_IMAGE = "docker.io/otel/opentelemetry-collector-contrib"
CONTAINED = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges")
_PLUGINS = ("/usr/libexec/docker/cli-plugins", "/usr/lib/docker/cli-plugins")
USER = 10001  # of the exporter, and of the Collector in its image
_OLDEST_COMPOSE = (2, 24)


def missing(reason: str) -> NoReturn:
    """Skip on a newcomer's machine; fail where CI is true, so that nothing is left out there unseen."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


def program(name: str, source: str) -> str:
    """The path of a program; skips, or fails in CI, where it is not installed."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return shutil.which(name, path=beside) or missing(f"no {name}: {source}")


def run(
    *command: str, environment: Mapping[str, str] | None = None, check: bool = True, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in the repository; with `check`, a failure shows all that it wrote.

    Args:
        environment: beside the one of this process.
    """
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def find_compose() -> list[str]:
    """The command of Docker Compose, from version 2.24 on; skips, or fails in CI, where there is none."""
    for command in (["docker", "compose"], ["docker-compose"], *([f"{p}/docker-compose"] for p in _PLUGINS)):
        if shutil.which(command[0]):
            done = run(*command, "version", "--short", check=False)
            version = re.match(r"v?(\d+)\.(\d+)\.", done.stdout)
            if version and (int(version[1]), int(version[2])) >= _OLDEST_COMPOSE:
                return command
    missing("no Docker Compose 2.24 or newer: Debian 13 has it, and .ci/install takes it from there")


def built_image() -> str:
    """Build the image from the Dockerfile as it stands.

    The base image has to be there already: a test does not reach for a registry.
    """
    buildah = program("buildah", "install the package buildah")
    if not run(buildah, "images", "--quiet", BASE, check=False).stdout:
        missing(f"buildah has no {BASE}: buildah pull {BASE}, or .ci/install as root on Debian")
    kind = ["--isolation", "chroot", "--format", "docker", "--layers", "--pull-never"]
    run(buildah, "bud", *kind, "--tag", IMAGE, ".", timeout=600)
    return IMAGE


@contextmanager
def collector_image(otelcol: Path, version: str) -> Iterator[None]:
    """The Collector's image while it is needed: the real one if it is there, else one made like it."""
    name = f"{COLLECTOR_IMAGE}:{version}"
    if run("buildah", "images", "--quiet", name, check=False).stdout:
        yield
        return
    container = run("buildah", "from", "scratch").stdout.strip()
    run("buildah", "copy", container, str(otelcol), "/otelcol-contrib")
    config = ["--user", "10001:10001", "--entrypoint", '["/otelcol-contrib"]']
    run("buildah", "config", *config, container)
    run("buildah", "commit", "--format", "docker", "--rm", container, name)
    try:
        yield
    finally:
        run("buildah", "rmi", name, check=False)


def inspected(name: str) -> dict[str, Any]:
    """What podman knows of a container or an image."""
    found: list[dict[str, Any]] = json.loads(run("podman", "inspect", name).stdout)
    return found[0]


def logs(container: str) -> str:
    """What a container wrote so far, to both streams."""
    done = run("podman", "logs", container)
    return done.stdout + done.stderr


def wait_until(condition: Callable[[], object], otherwise: Callable[[], str], timeout: float = 60.0) -> None:
    """Look ten times a second until it is so; fail after so many seconds with what `otherwise` says."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.1)


class Containers:
    """Containers and volumes of one test, all removed at the end of the `with` block.

    Args:
        prefix: what their names begin with.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._containers: list[str] = []
        self._volumes: list[str] = []

    def __enter__(self) -> Containers:
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(self._containers):
            run("podman", "rm", "--force", "--volumes", "--time=0", name, check=False)
        for name in self._volumes:
            run("podman", "volume", "rm", "--force", name, check=False)

    def volume(self, name: str) -> str:
        """A new volume; its whole name."""
        whole = f"{self._prefix}-{name}"
        run("podman", "volume", "create", whole)
        self._volumes.append(whole)
        return whole

    def start(
        self,
        name: str,
        *command: str,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        image: str = IMAGE,
    ) -> str:
        """Start a container in the way that docker-compose.yml does; its whole name.

        Args:
            environment: handed over by name, so that no secret stands among the arguments.
        """
        whole = f"{self._prefix}-{name}"
        self._containers.append(whole)
        given = [f"--env={variable}" for variable in environment or {}]
        run(
            *("podman", "run", "--detach", f"--name={whole}", *CONTAINED, *options, *given, image, *command),
            environment=environment,
        )
        return whole
