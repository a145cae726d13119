"""A real Prometheus that scrapes a page and evaluates our rules, on a port of its own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from tests.collector.running import free_port
from tests.container.tools import program

SOURCE = "install the package prometheus"
_LONGEST = 60.0


def promtool() -> str:
    """Its path; skips, or fails in CI, where it is not installed."""
    return program("promtool", SOURCE)


class Prometheus:
    """From its start, when it answers, to the end of the `with` block.

    Args:
        folder: for its configuration, data and log.
        page: the port at 127.0.0.1 whose /metrics it scrapes.
        rules: the text of a rule file; empty for none.
        every: how often it scrapes, and how long that may take.
    """

    def __init__(self, folder: Path, page: int, rules: str = "", every: str = "5s") -> None:
        self._folder = folder
        self._program = program("prometheus", SOURCE)
        with free_port() as held:
            self._port = held.getsockname()[1]
        (folder / "rules.yml").write_text(rules or "groups: []\n")
        (folder / "prometheus.yml").write_text(yaml.safe_dump(_configuration(page, every)))
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            self._client = starting.enter_context(
                httpx.Client(base_url=f"http://127.0.0.1:{self._port}", trust_env=False)
            )
            self._log = starting.enter_context((self._folder / "prometheus.log").open("ab"))
            starting.callback(self._start())
            self.wait(self._is_ready, "it does not answer")
            self.wait(lambda: self.has("up == 1"), "it does not scrape")  # it begins after five seconds
            self._stack = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(self, path: str, parameters: Mapping[str, str] | None = None) -> Any:
        """The data of an answer of its API; AssertionError when it refuses."""
        answer = self._client.get(f"/api/v1/{path}", params=dict(parameters or {}))
        assert answer.status_code == 200, f"{path} {parameters}: {answer.text}"
        return answer.json()["data"]

    def has(self, query: str) -> bool:
        """Whether a query has a result now."""
        return bool(self.ask("query", {"query": query})["result"])

    def firing(self) -> list[dict[str, Any]]:
        """The alerts that fire now, with labels and annotations."""
        return [alert for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"]

    def wait(self, done: Callable[[], bool], otherwise: str) -> None:
        """Until something is so that it does in its own time."""
        deadline = time.monotonic() + _LONGEST
        while not done():
            assert self._process.poll() is None, self._said()
            assert time.monotonic() < deadline, f"{otherwise}\n{self._said()}"
            time.sleep(0.25)

    def _start(self) -> Callable[[], None]:
        command = [
            self._program,
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        return self._stop

    def _is_ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def _said(self) -> str:
        return (self._folder / "prometheus.log").read_text(errors="replace")[-3000:]


def _configuration(page: int, every: str) -> dict[str, Any]:
    return {
        "global": {"scrape_interval": every, "scrape_timeout": every},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {
                "job_name": "appstore",
                "honor_labels": True,
                "static_configs": [{"targets": [f"127.0.0.1:{page}"]}],
            }
        ],
    }
