"""The exporter and the Collector as two containers with one loopback interface, and no other network."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.collector.binary import VERSION
from tests.collector.running import BASE, OVERLAYS
from tests.container.tools import COLLECTOR_IMAGE, Containers, inspected, logs, missing, run, wait_until

GRACE = 10  # seconds that Docker gives before it kills
INTAKE_PORT = 8126
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of sched.h


class Pair:
    """Containers beside a sandbox, whose network they share: all of them find each other at 127.0.0.1.

    The exporters have one state, one after the other. They collect no diagnostics, since a first poll takes a
    minute with them.
    """

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self.sandbox = containers.start("sandbox", "sandbox", options=["--network=none", "--tmpfs=/tmp"])
        wait_until(lambda: "PERFPOWER_STATE" in logs(self.sandbox), lambda: logs(self.sandbox))
        words = shlex.split(logs(self.sandbox), comments=True)
        exported = (word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
        self.environment = dict(exported) | {"PERFPOWER__DIAGNOSTICS__VERSIONS": "0"}
        del self.environment["PERFPOWER_STATE"]
        self.state = containers.volume("state")
        self._network = f"--network=container:{self.sandbox}"

    def exporter(self, name: str, **environment: str) -> str:
        """Start an exporter on the state that all of this pair have."""
        options = [self._network, f"--volume={self.state}:/var/lib/perfpower"]
        return self._containers.start(name, options=options, environment={**self.environment, **environment})

    def collector(self, key: Path) -> str:
        """Start a Collector for Datadog, whose intake is INTAKE_PORT of this network.

        Args:
            key: the file with the API key.
        """
        mounts = [(BASE, "/etc/otelcol/base.yaml"), (OVERLAYS, "/etc/otelcol/overlays"), (key, "/run/key")]
        container = self._containers.start(
            "collector",
            "--config=/etc/otelcol/base.yaml",
            "--config=/etc/otelcol/overlays/datadog.yaml",
            options=[self._network, *(f"--volume={outside}:{inside}:ro" for outside, inside in mounts)],
            environment={
                "DD_API_KEY": "${file:/run/key}",
                "DD_OTLP_ENDPOINT": f"http://127.0.0.1:{INTAKE_PORT}",
            },
            image=f"{COLLECTOR_IMAGE}:{VERSION}",
        )
        wait_until(lambda: "Everything is ready" in logs(container), lambda: logs(container))
        return container

    @contextmanager
    def inside(self) -> Iterator[None]:
        """A socket that is made in the block belongs to this network, for as long as it is open."""
        process = inspected(self.sandbox)["State"]["Pid"]
        own, theirs = (os.open(f"/proc/{name}/ns/net", os.O_RDONLY) for name in ("thread-self", process))
        try:
            _enter(theirs)
            yield
        finally:
            _enter(own)
            os.close(own)
            os.close(theirs)


def _enter(network: int) -> None:
    """Move this thread; Python has os.setns from 3.12 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(network, _NEW_NETWORK):
        missing(f"only root may enter the network of a container: {os.strerror(ctypes.get_errno())}")


def said(container: str, event: str) -> list[dict[str, Any]]:
    """The lines of the log with this event."""
    lines = [json.loads(line) for line in logs(container).splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def stopped(container: str) -> tuple[int, float]:
    """SIGTERM as an engine sends it: the exit status, and the seconds until the end."""
    started = time.monotonic()
    run("podman", "stop", f"--time={GRACE}", container)
    seconds = time.monotonic() - started
    return inspected(container)["State"]["ExitCode"], seconds
