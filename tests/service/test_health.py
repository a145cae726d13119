from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from exporter.appstore.jsonapi import App
from exporter.appstore.plan import Step
from exporter.deliver import Delivery
from exporter.errors import ConfigError, CredentialsRefused, StateError
from exporter.health import HealthServer
from exporter.report import CycleReport
from exporter.settings import Settings
from exporter.state import Source, State
from exporter.status import Status
from tests.service.service_world import HOUR, NOW, Clock, gauges, put, settings_of


class Watched:
    """A status page's server with what stands behind it."""

    def __init__(self, folder: Path) -> None:
        environ = {"ASC_KEY_ID": "KEY", "ASC_ISSUER_ID": "ISSUER", "ASC_PRIVATE_KEY": "hush-hush"}
        self.settings: Settings = settings_of(environ)
        self.clock = Clock()
        self.state = State(folder / "state.db")
        self.status = Status(self.settings, self.state, self.clock)
        self.server = HealthServer(("127.0.0.1", 0), self.status)

    def get(self, path: str) -> tuple[int, str]:
        answer = httpx.get(f"{self.server.url}{path}", trust_env=False)
        return answer.status_code, answer.text


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    with closing(watched.state), closing(watched.server):
        yield watched


def polled_well(watched: Watched) -> None:
    watched.status.polled(CycleReport("main", apps=1, requests=2, answers=1))
    watched.state.finish_run("main", NOW, b"settings")
    watched.status.delivered(Delivery(accepted=5))


def test_ready_once_data_came_in_and_went_out(watched: Watched) -> None:
    """Before the first poll and delivery the reasons are named; after them it is ready."""
    code, text = watched.get("/readyz")
    assert (code, text) == (503, "account main: not polled yet\nnothing was delivered yet\n")
    polled_well(watched)
    assert watched.get("/readyz") == (200, "ok\n")
    assert watched.get("/livez?verbose") == (200, "ok\n")


def test_a_restart_is_ready_without_a_poll(watched: Watched) -> None:
    """With an account polled before the restart and a delivery since, nothing is missing."""
    watched.state.finish_run("main", NOW, b"settings")
    watched.status.delivered(Delivery())
    assert watched.get("/readyz") == (200, "ok\n")


def test_a_refused_key_and_a_missing_endpoint_are_reasons(watched: Watched) -> None:
    """/readyz says which account and what to do, and what the endpoint said; /livez does not mind."""
    polled_well(watched)
    error = CredentialsRefused("answered 401", remedy="Check the key.", where="account main")
    watched.status.polled(CycleReport("main", failures=[error]))
    watched.status.delivered(Delivery(complete=False, problem="ConnectError: refused"))
    code, text = watched.get("/readyz")
    assert code == 503
    first, second = text.splitlines()
    assert first == "account main: answered 401. Check the key."
    assert second.startswith("delivery")
    assert "ConnectError: refused" in second
    assert watched.get("/livez")[0] == 200


def test_a_poll_that_cannot_be_done_stays_a_reason_until_one_can(watched: Watched) -> None:
    """A heartbeat that goes well does not hide that polls end in an error of ours."""
    polled_well(watched)
    watched.status.broken(RuntimeError("with details nobody should see"), "poll main")
    watched.status.delivered(Delivery())
    assert watched.get("/readyz") == (503, "a bug: RuntimeError\n")
    watched.status.polled(CycleReport("main"))
    assert watched.get("/readyz")[0] == 200


def test_a_heartbeat_that_cannot_be_done_is_a_reason_until_one_can(watched: Watched) -> None:
    """An error with the state file is shown in its own words."""
    polled_well(watched)
    watched.status.broken(StateError("the state file cannot be used (disk full)"), "heartbeat")
    assert watched.get("/readyz") == (503, "the state file cannot be used (disk full).\n")
    watched.status.delivered(Delivery())
    assert watched.get("/readyz")[0] == 200


def test_dead_without_heartbeats(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three missed heartbeats, and the longest that a pass may take, the process is to be restarted."""
    allowed = 3 * watched.settings.schedule.heartbeat + 300
    monkeypatch.setattr(watched.status, "_beat", time.monotonic() - allowed + 5)
    assert watched.get("/livez")[0] == 200
    monkeypatch.setattr(watched.status, "_beat", time.monotonic() - allowed - 5)
    code, text = watched.get("/livez")
    assert code == 503
    assert text.startswith("no heartbeat for ")


def test_the_page_tells_each_app_and_no_secret(watched: Watched) -> None:
    """Accounts, apps with their series and age, the last delivery; HEAD works; the key is nowhere."""
    put(watched.state, Source("main", "1"), gauges=gauges({"g": 3}))
    polled_well(watched)
    watched.clock.now += 600
    code, text = watched.get("/")
    assert code == 200
    assert text.startswith("perfpower-exporter: ok\n")
    assert "account main: last poll ok, 2 requests" in text
    assert "com.example.app" in text
    assert "3 series, answered 10 min ago" in text
    assert "last delivery ok: 5 points accepted" in text
    assert "hush" not in text
    head = httpx.head(watched.server.url, trust_env=False)
    assert (head.status_code, head.text) == (200, "")
    assert int(head.headers["Content-Length"]) == len(text.encode())


def test_the_page_tells_what_is_put_off_and_since_when(watched: Watched) -> None:
    """By kind, with the oldest wait; what the last poll did no longer put off is not among it."""
    app = App("1", "com.example.app", "App")
    logs = [Step("logs", app, signature=name) for name in ("a", "b")]
    builds = Step("builds", app)
    watched.state.deferred("main", [logs[0].key, builds.key], NOW - 26 * HOUR)
    watched.state.deferred("main", [logs[1].key], NOW)
    _, text = watched.get("/")
    assert (
        "  put off to the next poll: builds (1), logs (2); the oldest waits since 2027-01-14 06:00:00 UTC"
        in text
    )
    watched.status.polled(CycleReport("main", deferred=[logs[1]]))
    watched.clock.now += 0.5 * HOUR
    _, text = watched.get("/")
    assert (
        "  put off to the next poll: logs (1); the oldest waits since 2027-01-15 08:00:00 UTC, 0.5 h\n"
        in text
    )
    watched.status.polled(CycleReport("main"))
    assert "put off" not in watched.get("/")[1]


@pytest.mark.parametrize(
    ("method", "path", "code"), [("GET", "/nowhere", 404), ("POST", "/", 501), ("GET", "/livez/", 404)]
)
def test_other_paths_and_methods_are_errors(watched: Watched, method: str, path: str, code: int) -> None:
    """There is nothing else to be had here."""
    assert httpx.request(method, watched.server.url + path, trust_env=False).status_code == code


def test_a_state_that_cannot_be_read_is_told_and_not_raised(
    watched: Watched, capfd: pytest.CaptureFixture[str]
) -> None:
    """Probes get an answer with the reason, and no traceback goes to the log, when the state file fails."""
    put(watched.state, Source("main", "1"), gauges=gauges({"g": 3}))
    watched.state._db.execute("DROP TABLE run")
    watched.state._db.execute("DROP TABLE source")
    for path in ("/readyz", "/"):
        code, text = watched.get(path)
        assert code == 503
        assert "the state file cannot be used (no such table" in text
    assert capfd.readouterr().err == ""


def test_a_probe_that_hangs_up_leaves_no_traceback(
    watched: Watched, capfd: pytest.CaptureFixture[str]
) -> None:
    """A client that resets the connection is nothing to log, and the next one is served."""
    host, port = watched.server.url.removeprefix("http://").split(":")
    for text in (b"GET / HTTP/1.1\r\n\r\n", b"GET / HT", b""):
        for _ in range(2):
            with socket.create_connection((host, int(port))) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(text)
    time.sleep(0.2)
    assert watched.get("/livez")[0] == 200
    assert capfd.readouterr().err == ""


def test_a_slow_client_keeps_nobody_waiting(watched: Watched) -> None:
    """A connection that sends nothing takes no other one's turn."""
    host, port = watched.server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))):
        assert watched.get("/livez")[0] == 200


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_an_address_that_cannot_be_listened_on_is_a_configuration_error(watched: Watched) -> None:
    """A taken port, an address of another machine, a name that is none."""
    with taken_port() as port:
        cases: list[tuple[str, int]] = [("127.0.0.1", port), ("192.0.2.1", 0), ("no.such.host.invalid", 0)]
        for address in cases:
            with pytest.raises(ConfigError, match=r"cannot be listened on .* http\.listen"):
                HealthServer(address, watched.status)


def test_the_server_can_be_reached_by_ipv6(watched: Watched) -> None:
    """An address in brackets in http.listen is listened on."""
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    with closing(HealthServer(("::1", 0), watched.status)) as server:
        assert server.url.startswith("http://[::1]:")
        assert httpx.get(f"{server.url}/livez", trust_env=False).status_code == 200


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_listening_asks_no_resolver_for_its_own_name(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the resolver is slow, the start is not."""
    asked: list[str] = []

    def slow_resolver(name: str = "") -> str:
        asked.append(name)
        return name

    monkeypatch.setattr(socket, "getfqdn", slow_resolver)
    HealthServer(("127.0.0.1", 0), watched.status).close()
    assert asked == []
