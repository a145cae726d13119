from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from exporter.cli import main
from exporter.errors import ConfigError, ExporterError
from exporter.health import HealthServer
from exporter.healthcheck import ask, listening
from exporter.sandbox.loopback import Answer, LoopbackServer, Request
from exporter.settings import load
from exporter.state import State
from exporter.status import Status

ACCOUNT = {"ASC_KEY_ID": "KEY", "ASC_ISSUER_ID": "ISSUER", "ASC_PRIVATE_KEY": "hush-hush"}


class Answering(LoopbackServer):
    """Answers everything in the same way."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.asked: list[tuple[str, str]] = []
        self._answer = answer

    def respond(self, request: Request) -> Answer:
        self.asked.append((request.method, request.path))
        return self._answer

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")


def healthcheck(environ: Mapping[str, str], *arguments: str) -> Result:
    unset = dict.fromkeys(("PERFPOWER_CONFIG", "PERFPOWER__HTTP__LISTEN"))
    return CliRunner(env={**unset, **environ}).invoke(main, ["healthcheck", *arguments])


@contextmanager
def serving(folder: Path, host: str, clock: Callable[[], float]) -> Iterator[int]:
    """The exporter's own listener; yields its port."""
    with closing(State(folder / "state.db")) as state:
        server = HealthServer((host, 0), Status(load(None, ACCOUNT), state, clock))
        with closing(server):
            yield int(server.url.rpartition(":")[2])


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_living_exporter_is_healthy(tmp_path: Path, host: str) -> None:
    """Wherever the exporter listens, the check finds it there, and needs no account for that."""
    with serving(tmp_path, host, lambda: 0.0) as port:
        result = healthcheck({"PERFPOWER__HTTP__LISTEN": f"{host}:{port}"})
    assert (result.exit_code, result.output) == (0, "alive\n")


def test_the_configuration_file_says_where_to_ask(tmp_path: Path) -> None:
    """The check takes the same file as the exporter, whose other variables it does not need."""
    with Answering(Answer(200, body=b"ok\n")) as server:
        config = tmp_path / "exporter.yaml"
        config.write_text(f"accounts:\n- key_id: ${{ASC_KEY_ID}}\nhttp:\n  listen: {server.address}\n")
        by_option = healthcheck({}, "--config", str(config))
        by_variable = healthcheck({"PERFPOWER_CONFIG": str(config)})
        asked = server.asked
    assert (by_option.exit_code, by_variable.exit_code) == (0, 0)
    assert asked == [("GET", "/livez")] * 2


def test_what_is_not_alive_says_why() -> None:
    """The exporter's own reason is what `docker inspect` shows."""
    with Answering(Answer(503, body=b"no heartbeat for 900 s\n")) as server:
        result = healthcheck({"PERFPOWER__HTTP__LISTEN": server.address})
    assert (result.exit_code, result.stderr) == (1, "error: not alive: no heartbeat for 900 s.\n")


@pytest.mark.parametrize(
    "answer",
    [Answer(302, {"Location": "/"}), Answer(404), Answer(204), Answer(500, body=b"\xff" * 100_000)],
    ids=["redirect", "404", "204", "endless bytes"],
)
def test_nothing_but_200_is_healthy(answer: Answer) -> None:
    """Something else that listens on the port is not taken for a living exporter."""
    with Answering(answer) as server:
        result = healthcheck({"PERFPOWER__HTTP__LISTEN": server.address})
    assert result.exit_code == 1
    assert result.stderr.startswith("error: not alive: ")
    assert len(result.stderr) < 5000


def test_nobody_there_is_unhealthy() -> None:
    """A refused connection is a sentence and status 1."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    result = healthcheck({"PERFPOWER__HTTP__LISTEN": f"127.0.0.1:{port}"})
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: no answer from 127.0.0.1:{port} (")
    assert "refused" in result.stderr


@pytest.mark.parametrize(
    "answer", [Answer(200, delay=30), Answer(200, silent=True)], ids=["never answers", "hangs up"]
)
def test_no_answer_is_unhealthy(answer: Answer) -> None:
    """A stuck exporter is found by the time-out, one that hangs up at once."""
    with Answering(answer) as server:
        host, port = server.address.split(":")
        with pytest.raises(ExporterError, match=rf"^no answer from {server.address} \(.+\)\.$"):
            ask(host, int(port), timeout=0.1)


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("off", "http.listen names no port"),
        ("127.0.0.1:0", "http.listen names no port"),
        ("13134", "http cannot be understood"),
        ("127.0.0.1:99999", "http cannot be understood"),
    ],
)
def test_an_address_that_is_none_is_a_configuration_error(listen: str, says: str) -> None:
    """Status 2 and what to set; a container that cannot be checked is not called healthy."""
    result = healthcheck({"PERFPOWER__HTTP__LISTEN": listen})
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {says}")


def test_a_file_that_is_missing_is_a_configuration_error(tmp_path: Path) -> None:
    """The default port is not asked in its place."""
    result = healthcheck({}, "--config", str(tmp_path / "nowhere.yaml"))
    assert result.exit_code == 2
    assert "nowhere.yaml" in result.stderr


@pytest.mark.parametrize(
    ("listen", "asked"),
    [
        ("", ("127.0.0.1", 13134)),
        ("0.0.0.0:80", ("127.0.0.1", 80)),
        ("[::]:80", ("::1", 80)),
        ("[::1]:80", ("::1", 80)),
        ("10.0.0.7:80", ("10.0.0.7", 80)),
    ],
)
def test_where_it_asks(listen: str, asked: tuple[str, int]) -> None:
    """Every address of the machine is reached by the loopback one; any other is asked as it stands."""
    assert listening(None, {"PERFPOWER__HTTP__LISTEN": listen}) == asked


@pytest.mark.parametrize("http", ["http: 7", "http: [1]", "http: {listen: {a: b}}", "http: {port: 1}"])
def test_a_section_of_the_wrong_type_is_a_configuration_error(tmp_path: Path, http: str) -> None:
    """As the exporter would not start with it either."""
    config = tmp_path / "exporter.yaml"
    config.write_text(http)
    with pytest.raises(ConfigError, match=r"^http cannot be understood"):
        listening(config, {})
