from __future__ import annotations

import gzip
import itertools
import json
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from exporter.appstore.addresses import base_url
from exporter.appstore.auth import TokenAuth
from exporter.appstore.client import Answer, AppStoreClient, Sent
from exporter.appstore.documents import loads_deep
from exporter.appstore.jsonapi import App, Build
from exporter.appstore.quota import Quota
from exporter.errors import (
    AgreementMissing,
    AppStoreError,
    BadAnswer,
    ConfigError,
    CredentialsRefused,
    NotFound,
    NotOffered,
    OverBudget,
    RateLimited,
    RoleTooSmall,
    Unavailable,
)

NOW = 1_800_000_000.0
KEY = ec.generate_private_key(ec.SECP256R1())
VENDOR = "application/vnd.apple.xcode-metrics+json"
LIMIT = 1_000_000
METRICS = {"productData": [], "version": "1.0.0"}


class Handler(BaseHTTPRequestHandler):
    """Plays the next step of its server's script."""

    protocol_version = "HTTP/1.1"
    timeout = 10
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        step = self.server.received(self)
        try:
            step(self)
        except OSError:
            self.close_connection = True

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(self.server.now, usegmt=True)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 — the base class names it so
        pass


Step = Callable[[Handler], None]


@dataclass(frozen=True)
class Request:
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]


class Server(ThreadingHTTPServer):
    """An App Store Connect on 127.0.0.1 that answers by a script, one step a request."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.now = NOW
        self.script: list[Step] = []
        self.requests: list[Request] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def received(self, handler: Handler) -> Step:
        parts = urlsplit(handler.path)
        self.requests.append(Request(parts.path, parse_qs(parts.query), dict(handler.headers.items())))
        return self.script.pop(0) if self.script else reply(418, {"errors": [{"detail": "off the script"}]})

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hangs up is what some tests are about


def send(handler: Handler, status: int, body: bytes, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in ({"Content-Length": str(len(body))} | headers).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def reply(status: int = 200, document: object = None, **headers: str) -> Step:
    """Answer with a JSON document."""
    return raw(json.dumps(METRICS if document is None else document).encode(), status, **headers)


def raw(body: bytes, status: int = 200, **headers: str) -> Step:
    """Answer with these bytes; header names are written with underscores."""
    named = {"Content-Type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return lambda handler: send(handler, status, body, named)


def error(status: int, code: str = "SOME_CODE", **headers: str) -> Step:
    """Answer with an error document."""
    return reply(status, {"errors": [{"code": code, "detail": f"Apple says {code}."}]}, **headers)


def cut_off(body: bytes) -> Step:
    """Announce more than is sent, and hang up."""

    def step(handler: Handler) -> None:
        send(handler, 200, body, {"Content-Type": "application/json", "Content-Length": str(len(body) + 100)})
        handler.close_connection = True

    return step


def hang_up(handler: Handler) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True


def drip(head: bytes = b"{", status: int = 200, **headers: str) -> Step:
    """Send one byte every few milliseconds, for ten seconds at most."""

    def step(handler: Handler) -> None:
        raw(head, status, Content_Length="100000", **headers)(handler)
        for _ in range(1000):
            time.sleep(0.01)
            handler.wfile.write(b" ")

    return step


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = NOW
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@dataclass
class World:
    """A client, the server it talks to, and everything that it was given."""

    server: Server
    time: Time = field(default_factory=Time)
    sent: list[Sent] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)
    clients: list[AppStoreClient] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.quota = Quota(0.5, on_use=self.taken.append)

    def client(self, *script: Step, **options: Any) -> AppStoreClient:
        self.server.script = list(script)
        scoped = options.pop("scoped", False)
        auth = TokenAuth(
            key_id="KEY1234567", issuer_id="issuer", private_key=KEY, scoped=scoped, clock=self.time.clock
        )
        arguments: dict[str, Any] = {
            "base_url": self.server.url,
            "auth": auth,
            "quota": self.quota,
            "where": "account main",
            "max_response_bytes": LIMIT,
            "observe": self.sent.append,
            "clock": self.time.clock,
            "sleep": self.time.sleep,
            "random": lambda: 0.0,
            "monotonic": self.time.clock,
        }
        self.clients.append(AppStoreClient(**{**arguments, **options}))
        return self.clients[-1]

    def statuses(self) -> list[int | None]:
        return [attempt.status for attempt in self.sent]

    def waits(self) -> list[float]:
        """The longer waits: without those of the pace."""
        return [round(seconds, 3) for seconds in self.time.slept if seconds > 0.2001]


@pytest.fixture
def world() -> Iterator[World]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    world = World(server)
    yield world
    for client in world.clients:
        client.close()
    server.shutdown()
    thread.join()
    server.server_close()


def app(number: int) -> dict[str, object]:
    return {
        "type": "apps",
        "id": str(number),
        "attributes": {"bundleId": f"com.example.{number}", "name": f"App {number}"},
    }


def page(*apps: dict[str, object], following: object = None) -> Step:
    return reply(200, {"data": list(apps), "links": {"next": following}})


# What is asked for


def test_metrics_are_returned_as_they_came(world: World) -> None:
    """The body is untouched and read once; it bears the time of its arrival."""
    body = b' {"productData": [], "insights": {}} \n'
    client = world.client(raw(body, Content_Type=f"{VENDOR}; charset=utf-8"))
    assert client.metrics("apps", "123") == Answer(body, NOW, {"productData": [], "insights": {}})
    request = world.server.requests[0]
    assert (request.path, request.query) == ("/v1/apps/123/perfPowerMetrics", {})
    assert request.headers["Accept"] == f"{VENDOR}, application/json"
    claims = jwt.decode(
        request.headers["Authorization"].removeprefix("Bearer "), options={"verify_signature": False}
    )
    assert claims["iss"] == "issuer"


def test_metrics_of_a_build_have_their_own_path(world: World) -> None:
    """Builds are asked for under /v1/builds and observed under their own word."""
    world.client(reply(), reply()).metrics("builds", "b-1")
    world.clients[0].metrics("apps", "1")
    assert world.server.requests[0].path == "/v1/builds/b-1/perfPowerMetrics"
    assert [attempt.endpoint for attempt in world.sent] == ["build_metrics", "app_metrics"]


@pytest.mark.parametrize("bad", ["", ".", "..", "1/2", "1?a=b", "1#", "%2e", "a b", "1\n", "é", "x" * 500])
def test_an_id_that_is_not_safe_in_a_path_is_refused(world: World, bad: str) -> None:
    """An id from the configuration never reaches the URL unless it is one."""
    client = world.client()
    with pytest.raises(ConfigError, match=r"account main: .*is not an id"):
        client.metrics("apps", bad)
    with pytest.raises(ConfigError, match="is not an id"):
        client.builds(bad, enough=bool)
    with pytest.raises(ConfigError, match="is not an id"):
        client.signatures(bad)
    with pytest.raises(ConfigError, match="is not an id"):
        client.overview(bad)
    assert world.server.requests == []


def test_all_pages_of_the_apps_are_read(world: World) -> None:
    """Pages are followed to the last one, and an app that is on two pages is returned once."""
    following = f"{world.server.url}/v1/apps?cursor=2&limit=200"
    client = world.client(page(app(1), app(2), following=following), page(app(2), app(3)))
    assert [found.id for found in client.apps()] == ["1", "2", "3"]
    assert world.server.requests[0].query == {"fields[apps]": ["bundleId,name"], "limit": ["200"]}
    assert world.server.requests[1].query == {"cursor": ["2"], "limit": ["200"]}
    assert world.statuses() == [200, 200]


def test_a_relative_link_is_followed(world: World) -> None:
    """A link without a host stays on the configured one."""
    client = world.client(page(app(1), following="/v1/apps?cursor=2"), page(app(2)))
    assert client.apps() == [App("1", "com.example.1", "App 1"), App("2", "com.example.2", "App 2")]


def test_filters_are_sent_to_apple_in_parts(world: World) -> None:
    """Ids and bundle ids are alternatives; long lists become several requests, doubles are asked for once."""
    bundle_ids = [f"com.example.{number}" for number in range(50)]
    client = world.client(page(app(1)), page(app(2)), page(app(1), app(3)))
    found = client.apps(ids=["1", "9", "1"], bundle_ids=bundle_ids)
    assert [one.id for one in found] == ["1", "2", "3"]
    queries = [request.query for request in world.server.requests]
    assert queries[0]["filter[id]"] == ["1,9"]
    assert "filter[bundleId]" not in queries[0]
    asked = [query["filter[bundleId]"][0].split(",") for query in queries[1:]]
    assert [len(part) for part in asked] == [40, 10]
    assert list(itertools.chain(*asked)) == bundle_ids


def build(number: int) -> dict[str, object]:
    return {
        "type": "builds",
        "id": f"b{number}",
        "relationships": {"appStoreVersion": {"data": {"type": "appStoreVersions", "id": "s"}}},
    }


def builds_page(*numbers: int, following: object = None) -> Step:
    released = {"type": "appStoreVersions", "id": "s", "attributes": {"appStoreState": "READY_FOR_SALE"}}
    document = {
        "data": [build(number) for number in numbers],
        "included": [released],
        "links": {"next": following},
    }
    return reply(200, document)


def test_builds_are_listed_with_their_release(world: World) -> None:
    """Expired builds are not filtered out, and no field is asked for that is not read."""
    found = world.client(builds_page(1, 2)).builds("123", enough=lambda _builds: False)
    assert [(one.id, one.released) for one in found] == [("b1", True), ("b2", True)]
    assert world.server.requests[0].path == "/v1/builds"
    assert world.server.requests[0].query == {
        "filter[app]": ["123"],
        "filter[processingState]": ["VALID"],
        "include": ["preReleaseVersion,appStoreVersion"],
        "fields[builds]": ["version,uploadedDate,expired,preReleaseVersion,appStoreVersion"],
        "fields[preReleaseVersions]": ["version,platform"],
        "fields[appStoreVersions]": ["appVersionState,appStoreState"],
        "sort": ["-uploadedDate"],
        "limit": ["200"],
    }
    assert [attempt.endpoint for attempt in world.sent] == ["builds"]


def test_builds_are_listed_until_there_are_enough(world: World) -> None:
    """After each page all builds so far are shown, each once, and nothing is asked for beyond enough."""
    link = f"{world.server.url}/v1/builds?cursor="
    shown: list[list[str]] = []

    def enough(builds: Sequence[Build]) -> bool:
        shown.append([one.id for one in builds])
        return len(builds) >= 3

    client = world.client(
        builds_page(1, 2, following=f"{link}2"), builds_page(2, 3, following=f"{link}3"), builds_page(4)
    )
    assert [one.id for one in client.builds("1", enough=enough)] == ["b1", "b2", "b3"]
    assert shown == [["b1", "b2"], ["b1", "b2", "b3"]]
    assert len(world.server.requests) == 2


def test_builds_are_listed_for_ten_pages_at_most(world: World) -> None:
    """A long history is not read to its end, and what was read of it is returned."""
    link = f"{world.server.url}/v1/builds?cursor="
    steps = [builds_page(number, following=f"{link}{number}") for number in range(12)]
    found = world.client(*steps).builds("1", enough=lambda _builds: False)
    assert [one.id for one in found] == [f"b{number}" for number in range(10)]
    assert len(world.server.requests) == 10


def test_a_listing_that_breaks_off_is_no_listing(world: World) -> None:
    """A failure on a later page costs the listing, so that a short one is never taken for the whole."""
    client = world.client(
        builds_page(1, following=f"{world.server.url}/v1/builds?cursor=2"), error(403, "FORBIDDEN_ERROR")
    )
    with pytest.raises(RoleTooSmall, match="account main, app 7: "):
        client.builds("7", enough=lambda _builds: False)


def test_all_pages_of_the_signatures_are_returned(world: World) -> None:
    """All types are asked for at once; the pages stay answers, with their bytes and their time."""
    first = {"data": [{"id": "s1"}], "links": {"next": f"{world.server.url}/v1/builds/b-1/d?cursor=2"}}
    second: dict[str, object] = {"data": []}
    answers = world.client(reply(200, first), reply(200, second)).signatures("b-1")
    assert [answer.document for answer in answers] == [first, second]
    assert [answer.body for answer in answers] == [json.dumps(first).encode(), json.dumps(second).encode()]
    request = world.server.requests[0]
    assert request.path == "/v1/builds/b-1/diagnosticSignatures"
    assert request.query == {
        "fields[diagnosticSignatures]": ["diagnosticType,signature,weight,insight"],
        "limit": ["200"],
    }
    assert [attempt.endpoint for attempt in world.sent] == ["signatures", "signatures"]


def test_logs_are_returned_as_they_came(world: World) -> None:
    """Logs have a media type of their own, and are asked for 200 at once."""
    step = reply(200, {"productData": []}, Content_Type="application/vnd.apple.diagnostic-logs+json")
    assert world.client(step).logs("35fd8da9") == Answer(b'{"productData": []}', NOW, {"productData": []})
    request = world.server.requests[0]
    assert (request.path, request.query) == ("/v1/diagnosticSignatures/35fd8da9/logs", {"limit": ["200"]})
    assert request.headers["Accept"] == "application/vnd.apple.diagnostic-logs+json, application/json"
    assert [attempt.endpoint for attempt in world.sent] == ["logs"]


@pytest.mark.parametrize("bad", ["", "..", "1/2", "1?a=b", "%2e", "a b\n", "x" * 500])
def test_an_unsafe_signature_costs_that_signature(world: World, bad: str) -> None:
    """Its id comes from an answer: it is a bad answer, and no error of the configuration."""
    with pytest.raises(BadAnswer, match=r"account main, signature .*cannot be part of an address") as caught:
        world.client().logs(bad)
    assert len(str(caught.value)) < 500
    assert world.server.requests == []


def test_the_overview_is_returned_as_it_came(world: World) -> None:
    """The overview is asked for under its own media type and path."""
    step = reply(200, {"version": "1"}, Content_Type="application/vnd.apple.xcode-overview+json")
    assert world.client(step).overview("123") == Answer(b'{"version": "1"}', NOW, {"version": "1"})
    request = world.server.requests[0]
    assert (request.path, request.query) == ("/v1/apps/123/performanceOverviews", {})
    assert request.headers["Accept"] == "application/vnd.apple.xcode-overview+json, application/json"
    assert [attempt.endpoint for attempt in world.sent] == ["overview"]


def test_what_is_not_offered_is_told_from_what_is_not_there(world: World) -> None:
    """404 is NotFound and 406 is NotOffered; each names the app, the build or the signature."""
    with pytest.raises(NotFound, match="account main, build b: "):
        world.client(error(404)).signatures("b")
    with pytest.raises(NotFound, match="account main, signature s: "):
        world.client(error(404)).logs("s")
    with pytest.raises(NotFound, match="account main, app 1: "):
        world.client(error(404)).overview("1")
    with pytest.raises(NotOffered, match=r"account main, app 1: .*xcode-overview"):
        world.client(error(406)).overview("1")
    with pytest.raises(NotOffered, match=r"account main, signature s: .*diagnostic-logs"):
        world.client(error(406)).logs("s")


def test_a_gzip_answer_is_understood(world: World) -> None:
    """A compressed body is handed out decompressed."""
    body = json.dumps({"productData": ["x" * 200_000]}).encode()
    assert world.client(raw(gzip.compress(body), Content_Encoding="gzip")).metrics("apps", "1").body == body
    assert world.server.requests[0].headers["Accept-Encoding"] == "gzip"


def test_the_prefix_of_a_proxy_stays_in_front(world: World) -> None:
    """A path in base_url heads every path, also that of the next page, but not the token's scope."""
    client = world.client(
        page(app(1), following=f"{world.server.url}/asc/v1/apps?cursor=2"),
        page(app(2)),
        base_url=f"{world.server.url}/asc/",
        scoped=True,
    )
    assert [found.id for found in client.apps()] == ["1", "2"]
    request = world.server.requests[1]
    assert request.path == "/asc/v1/apps"
    token = request.headers["Authorization"].removeprefix("Bearer ")
    assert jwt.decode(token, options={"verify_signature": False})["scope"] == ["GET /v1/apps"]


def test_the_client_closes_with_its_context(world: World) -> None:
    """After the with block the client is closed."""
    with world.client(reply()) as client:
        client.metrics("apps", "1")
    with pytest.raises(RuntimeError, match="closed"):
        client.metrics("apps", "1")


# Where the token may go


def test_plain_http_does_not_leave_through_a_proxy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment is not given the token of a plain http request to this machine."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    world.client(reply()).metrics("apps", "1")
    assert world.statuses() == [200]


@pytest.mark.parametrize(
    ("link", "host"),
    [
        ("https://evil.example/v1/apps?cursor=2", "https://evil.example"),
        ("//evil.example/v1/apps", "http://evil.example"),
        ("http://127.0.0.1:1/v1/apps", "http://127.0.0.1:1"),
        ("http://127.0.0.1/v1/apps", "http://127.0.0.1"),
        ("http://localhost:{port}/v1/apps", "http://localhost"),
        ("https://127.0.0.1:{port}/v1/apps", "https://127.0.0.1"),
        ("http://user:secret@127.0.0.1:{port}/v1/apps", "http://127.0.0.1"),
        ("http://127.0.0.1:{port}@evil.example/v1/apps", "http://evil.example"),
        ("file:///etc/passwd", "file://"),
    ],
)
def test_the_token_goes_to_the_configured_host_only(world: World, link: str, host: str) -> None:
    """A next page on another scheme, host or port, or with a user name, is not fetched."""
    client = world.client(page(app(1), following=link.format(port=world.server.server_port)))
    with pytest.raises(BadAnswer, match=r"account main: links\.next leads to another host") as caught:
        client.apps()
    assert host in caught.value.what
    assert "secret" not in str(caught.value)
    assert len(world.server.requests) == 1


@pytest.mark.parametrize(
    "path", ["/v1/apps", "/ascx/v1/apps", "/asc/../v1/apps", "/asc/%2e%2e/v1", "/asc/..%5Cv1"]
)
def test_the_next_page_stays_under_the_base_path(world: World, path: str) -> None:
    """On a proxy the token does not leave the path that was configured."""
    client = world.client(
        page(app(1), following=f"{world.server.url}{path}"), base_url=f"{world.server.url}/asc"
    )
    with pytest.raises(BadAnswer, match="leads out of base_url's path"):
        client.apps()
    assert len(world.server.requests) == 1


def test_a_link_that_is_no_url_is_refused(world: World) -> None:
    """A broken link is an error, since the pages behind it would be lost."""
    with pytest.raises(BadAnswer, match=r"links\.next is not a URL"):
        world.client(page(app(1), following="http://[::1")).apps()


def test_pages_in_a_loop_end(world: World) -> None:
    """The same link twice is an error, not an endless cycle."""
    link = f"{world.server.url}/v1/apps?cursor=2"
    client = world.client(page(following=link), page(following=link))
    with pytest.raises(BadAnswer, match="the pages do not end: stopped after 2"):
        client.apps()
    assert len(world.server.requests) == 2


def test_pages_without_an_end_end(world: World) -> None:
    """Ever new links end at the hundredth page."""
    steps = [page(following=f"{world.server.url}/v1/apps?cursor={number}") for number in range(101)]
    with pytest.raises(BadAnswer, match="stopped after 100"):
        world.client(*steps).apps()
    assert len(world.server.requests) == 100


@pytest.mark.parametrize("document", [{}, {"data": None}, {"data": {}}, {"errors": []}])
def test_a_document_without_data_is_not_an_empty_list(world: World, document: object) -> None:
    """An answer without a list of data is an error: apps must not vanish by it."""
    with pytest.raises(BadAnswer, match="no list of data"):
        world.client(reply(200, document)).apps()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(world: World, status: int) -> None:
    """The error names where it would have led, without what may be secret in the address."""
    step = raw(b"", status, Location="https://user:secret@sso.example/login?token=secret")
    with pytest.raises(BadAnswer, match=r"redirect .* to https://sso\.example,") as caught:
        world.client(step).metrics("apps", "1")
    assert "secret" not in str(caught.value)
    assert "Check base_url" in caught.value.remedy
    assert len(world.server.requests) == 1


def test_a_redirect_to_nowhere_is_an_error_too(world: World) -> None:
    """A 3xx without a Location is refused; httpx takes one that is no URL for a broken answer."""
    with pytest.raises(BadAnswer, match=r"redirect \(304\) to nowhere"):
        world.client(raw(b"", 304)).metrics("apps", "1")
    with pytest.raises(Unavailable, match="Invalid URL in location header"):
        world.client(*[raw(b"", 302, Location="http://[::1")] * 5).metrics("apps", "1")


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://api.appstoreconnect.apple.com", "https://api.appstoreconnect.apple.com"),
        ("https://api.appstoreconnect.apple.com/", "https://api.appstoreconnect.apple.com"),
        ("HTTPS://API.example:443/asc/", "https://api.example/asc"),
        ("https://proxy.example:8443/a/b//", "https://proxy.example:8443/a/b"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.1.2.3", "http://127.1.2.3"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://localhost/", "http://localhost"),
    ],
)
def test_a_good_base_url_is_normalised(url: str, normal: str) -> None:
    """Scheme and host in lower case, without the default port and the slash at the end."""
    assert base_url(url) == normal


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "api.appstoreconnect.apple.com",
        "https://",
        "https:///v1",
        "ftp://api.example",
        "https://api.example:99999",
        "https://api.example:0",
        "https://[::1",
        "https://api.example/\n",
        "http://api.appstoreconnect.apple.com",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://0.0.0.0",
        "https://SECRET@api.example",
        "https://user:SECRET@api.example",
        "https://api.example?key=SECRET",
        "https://api.example/#SECRET",
        "https://api.example?",
        "https://api.example/a b",
        "https://evil.example\\.api.example",
    ],
)
def test_a_bad_base_url_is_refused(world: World, url: str) -> None:
    """Plain http leaves this machine never; the error repeats no secret."""
    with pytest.raises(ConfigError, match=r"^account main: base_url must") as caught:
        world.client(base_url=url)
    assert "SECRET" not in str(caught.value)
    assert "https://api.appstoreconnect.apple.com" in caught.value.remedy


def test_a_base_url_of_the_wrong_type_is_refused(world: World) -> None:
    """A null in place of the address is an error of the configuration."""
    with pytest.raises(ConfigError, match="base_url must be a URL"):
        world.client(base_url=None)


# Answers that are final


@pytest.mark.parametrize(
    ("status", "code", "kind", "remedy"),
    [
        (400, "PARAMETER_ERROR.INVALID", BadAnswer, "App Store Connect's"),
        (403, "FORBIDDEN_ERROR", RoleTooSmall, "Admin, App Manager and Developer"),
        (
            403,
            "FORBIDDEN.REQUIRED_AGREEMENTS_MISSING_OR_EXPIRED",
            AgreementMissing,
            "Account Holder has to accept",
        ),
        (404, "NOT_FOUND", NotFound, "Check the id"),
        (406, "NOT_ACCEPTABLE", NotOffered, VENDOR),
        (409, "STATE_ERROR", BadAnswer, "App Store Connect's"),
        (422, "ENTITY_ERROR", BadAnswer, "App Store Connect's"),
        (201, "CREATED", BadAnswer, "App Store Connect's"),
        (206, "PARTIAL", BadAnswer, "App Store Connect's"),
    ],
)
def test_each_final_status_has_its_error(
    world: World, status: int, code: str, kind: type[AppStoreError], remedy: str
) -> None:
    """The error says where, which status, Apple's code and text, and what to do; it is not asked again."""
    with pytest.raises(AppStoreError) as caught:
        world.client(error(status, code)).metrics("apps", "123")
    assert type(caught.value) is kind
    assert str(caught.value).startswith(
        f"account main, app 123: App Store Connect answered {status} {code} (Apple says {code})."
    )
    assert remedy in caught.value.remedy
    assert world.statuses() == [status]


def test_a_status_without_a_body_has_its_error_too(world: World) -> None:
    """An empty error body costs Apple's words only."""
    with pytest.raises(NotFound, match="build b1: App Store Connect answered 404"):
        world.client(raw(b"", 404)).metrics("builds", "b1")


@pytest.mark.parametrize(
    "step",
    [
        raw(b"x" * 10_000_000, 404),
        raw(gzip.compress(bytes(50_000_000)), 404, Content_Encoding="gzip"),
        raw(b"not gzip", 404, Content_Encoding="gzip"),
        raw(b"whatever", 404, Content_Encoding="br"),
    ],
)
def test_an_errors_body_is_bounded(world: World, step: Step) -> None:
    """A huge, damaged or strangely coded error body does not hide the status, and its text stays short."""
    with pytest.raises(NotFound) as caught:
        world.client(step).metrics("apps", "1")
    assert len(str(caught.value)) < 1000


def test_a_dripping_error_still_ends(world: World) -> None:
    """An error's body is not waited for longer than the call may take."""
    client = world.client(drip(status=404), give_up_after=0.2, monotonic=time.monotonic)
    started = time.monotonic()
    with pytest.raises(NotFound):
        client.metrics("apps", "1")
    assert time.monotonic() - started < 5


# 401


def test_a_refused_token_is_replaced_once(world: World) -> None:
    """After a 401 the request goes out again with a new token, paced, counted and observed as any other."""
    client = world.client(error(401, X_Rate_Limit="user-hour-lim:3500;user-hour-rem:77;"), reply(), reply())
    client.metrics("apps", "1")
    tokens = [request.headers["Authorization"] for request in world.server.requests]
    assert tokens[0] != tokens[1]
    assert world.statuses() == [401, 200]
    assert world.taken == pytest.approx([NOW, NOW + 0.2])
    assert world.quota.remaining == 77
    client.metrics("apps", "1")
    assert world.server.requests[2].headers["Authorization"] == tokens[1]


def test_two_refusals_are_final(world: World) -> None:
    """The second 401 says which key, and what may be wrong with it."""
    client = world.client(error(401, "NOT_AUTHORIZED"), error(401, "NOT_AUTHORIZED"))
    with pytest.raises(CredentialsRefused) as caught:
        client.apps()
    assert "account main: App Store Connect answered 401 NOT_AUTHORIZED" in str(caught.value)
    for hint in ("KEY1234567", "revoked", "issuer", "private key file"):
        assert hint in caught.value.remedy
    assert "clock" not in caught.value.remedy
    assert world.statuses() == [401, 401]


@pytest.mark.parametrize(("off", "words"), [(3600, "3600 s slow"), (-3600, "3600 s fast"), (61, "61 s slow")])
def test_a_clock_that_is_off_is_named(world: World, off: int, words: str) -> None:
    """When the answer's Date differs much from our clock, the error says by how much."""
    world.server.now = NOW + off
    with pytest.raises(CredentialsRefused) as caught:
        world.client(error(401), error(401)).apps()
    assert f"This machine's clock is {words}" in caught.value.remedy


def test_a_401_between_failures_is_answered_once(world: World) -> None:
    """Failures before and after a refused token do not lead to a third token."""
    client = world.client(error(503), error(401), error(503), error(401))
    with pytest.raises(CredentialsRefused):
        client.apps()
    assert world.statuses() == [503, 401, 503, 401]
    assert len({request.headers["Authorization"] for request in world.server.requests}) == 2


# Answers that are asked for again


@pytest.mark.parametrize(
    ("step", "status"),
    [
        (error(429), 429),
        (error(500), 500),
        (error(502), 502),
        (raw(b"<html>Bad gateway", 503), 503),
        (error(504), 504),
        (hang_up, None),
        (cut_off(b'{"productData": ['), None),
        (raw(b'{"productData": ['), 200),
        (raw(b'{"productData": {}'), 200),
        (raw(b'{"productData": "\xc3'), 200),
        (raw(b""), 200),
        (raw(gzip.compress(b'{"a": 1}' * 100)[:-20], Content_Encoding="gzip"), None),
        (raw(b"this is not gzip", Content_Encoding="gzip"), None),
    ],
)
def test_a_passing_failure_is_tried_again(world: World, step: Step, status: int | None) -> None:
    """After 429, 5xx, a lost connection and a cut-off answer the same request is sent once more."""
    assert world.client(step, reply()).metrics("apps", "1").body == json.dumps(METRICS).encode()
    assert world.statuses() == [status, 200]
    assert len(world.taken) == 2
    assert world.waits() == [1.0]


@pytest.mark.parametrize(
    ("step", "kind", "words"),
    [
        (error(429, "RATE_LIMIT_EXCEEDED"), RateLimited, "429 RATE_LIMIT_EXCEEDED"),
        (error(503), Unavailable, "503 SOME_CODE"),
        (hang_up, Unavailable, "no complete answer came: RemoteProtocolError"),
        (raw(b"{"), Unavailable, "in the middle of its JSON"),
    ],
)
def test_after_five_attempts_it_is_given_up(
    world: World, step: Step, kind: type[AppStoreError], words: str
) -> None:
    """There are five attempts, 1, 2, 4 and 8 seconds apart, and the last failure is told."""
    with pytest.raises(kind, match="account main, app 7: ") as caught:
        world.client(*[step] * 6).metrics("apps", "7")
    assert words in caught.value.what
    assert "Tried 5 times" in caught.value.remedy
    assert world.waits() == [1, 2, 4, 8]
    assert len(world.taken) == len(world.sent) == 5


def test_the_waits_are_jittered(world: World) -> None:
    """A random part of up to a half is taken off each wait, so that clients do not come back together."""
    world.client(error(503), error(503), reply(), random=lambda: 0.5).metrics("apps", "1")
    assert world.waits() == [0.75, 1.5]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("wanted", ["7", " 7 ", formatdate(NOW + 7, usegmt=True), formatdate(NOW + 7)])
def test_retry_after_is_obeyed(world: World, status: int, wanted: str) -> None:
    """Retry-After counts in seconds and as an HTTP date, and takes the place of our own wait."""
    world.client(error(status, Retry_After=wanted), reply()).metrics("apps", "1")
    assert world.waits() == [7.0]


def test_a_retry_after_date_is_measured_by_the_servers_clock(world: World) -> None:
    """When our clock is an hour off, the wait is still the one that was meant."""
    world.server.now = NOW + 3600
    step = error(503, Retry_After=formatdate(NOW + 3609, usegmt=True))
    world.client(step, reply()).metrics("apps", "1")
    assert world.waits() == [9.0]


@pytest.mark.parametrize(
    "wanted", ["", "0", "-5", "soon", "1e3", formatdate(NOW - 60, usegmt=True), "9" * 50]
)
def test_a_retry_after_that_says_nothing_is_ignored(world: World, wanted: str) -> None:
    """Garbage, zero and the past leave our own wait in force."""
    world.client(error(503, Retry_After=wanted), reply()).metrics("apps", "1")
    assert world.waits() == [1.0]


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimited), (503, Unavailable)])
@pytest.mark.parametrize("wanted", ["600", formatdate(NOW + 600, usegmt=True)])
def test_a_long_retry_after_is_not_waited_for(
    world: World, status: int, kind: type[AppStoreError], wanted: str
) -> None:
    """What lies beyond the time for one call is given up at once, and the error says until when."""
    with pytest.raises(kind, match=r"wait until 2027-01-15 08:10:00 UTC \(600 s\)"):
        world.client(error(status, Retry_After=wanted)).metrics("apps", "1")
    assert world.waits() == []
    assert len(world.sent) == 1


def test_a_hostile_retry_after_holds_for_an_hour_at_most(world: World) -> None:
    """A date in the far future neither breaks the error's text nor blocks the key for ever."""
    step = error(429, Retry_After="Fri, 31 Dec 9999 23:59:59 GMT", Date="Mon, 01 Jan 1900 00:00:00 GMT")
    with pytest.raises(RateLimited, match="wait until 2058"):
        world.client(step).metrics("apps", "1")
    assert world.quota.held(world.time.now) == 3600


def test_after_a_429_nobody_with_the_key_sends(world: World) -> None:
    """While a hold lasts, other calls of the key wait for it, or fail at once without using the budget."""
    client = world.client(error(429, Retry_After="600"), reply())
    with pytest.raises(RateLimited):
        client.metrics("apps", "1")
    with pytest.raises(RateLimited, match=r"account main, app 2: the key has to wait .* 08:10:00 UTC"):
        client.metrics("apps", "2")
    assert len(world.taken) == len(world.sent) == 1
    world.time.now += 550
    client.metrics("apps", "2")
    assert world.waits() == [50]


def test_a_hold_that_comes_while_waiting_is_kept(world: World) -> None:
    """A request that already has its turn still waits for a hold which another thread's answer brought."""

    def sleep(seconds: float) -> None:
        if not world.time.slept:
            world.quota.hold(world.time.now + 5)
        world.time.sleep(seconds)

    world.quota.take(NOW)
    world.client(reply(), sleep=sleep).metrics("apps", "1")
    assert world.time.slept == pytest.approx([0.2, 4.8])


def test_a_server_that_is_not_there_is_unavailable(world: World) -> None:
    """A refused connection is tried again, and observed without a status."""
    world.server.shutdown()
    world.server.socket.close()
    with pytest.raises(Unavailable, match="no complete answer came: ConnectError"):
        world.client().metrics("apps", "1")
    assert world.statuses() == [None] * 5


def test_a_dripping_answer_ends_in_time(world: World) -> None:
    """Bytes that keep coming do not prolong the time for one call."""
    client = world.client(drip(), give_up_after=0.3, monotonic=time.monotonic)
    started = time.monotonic()
    with pytest.raises(Unavailable, match=r"not at its end after 0\.3 s"):
        client.metrics("apps", "1")
    assert time.monotonic() - started < 5
    assert world.statuses() == [None]


def test_a_dripping_gzip_answer_ends_in_time(world: World) -> None:
    """A compressed answer that never yields anything ends in time as well."""
    step = drip(gzip.compress(b"{")[:10], Content_Encoding="gzip")
    client = world.client(step, give_up_after=0.3, monotonic=time.monotonic)
    started = time.monotonic()
    with pytest.raises(Unavailable):
        client.metrics("apps", "1")
    assert time.monotonic() - started < 5


def test_a_silent_server_times_out(world: World) -> None:
    """No byte for `timeout` seconds, or for what is left of the call, is a failure."""
    released = threading.Event()

    def silence(_handler: Handler) -> None:
        released.wait(10)

    client = world.client(silence, timeout=30, give_up_after=0.2, monotonic=time.monotonic)
    try:
        with pytest.raises(Unavailable, match="ReadTimeout"):
            client.metrics("apps", "1")
    finally:
        released.set()


# Answers that cannot be meant


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (raw(b"<html>\n<h1>Log in", Content_Type="text/html; charset=utf-8"), "text/html"),
        (raw(b"<html>\n<h1>Log in"), "begins with “<html> <h1>Log in”"),
        (raw(b'{"data": []}', Content_Type="text/plain"), "text/plain"),
        (raw(b"a,b\x00\x1b[2Jc", Content_Type="text/csv"), "“a,b[2Jc”"),
        (raw(b"[1, 2]"), "“[1, 2]”"),
        (raw(b"null"), "“null”"),
        (raw(b'{"a": nonsense}'), "nonsense"),
        (raw(b'{"a": "\xff"}'), "begins with"),
        (raw(b"{}", Content_Type="application/vnd.api+json"), "application/vnd.api+json"),
        (raw(b'{"a": 1} and more'), "and more"),
    ],
)
def test_what_is_no_answer_of_apple_is_refused(world: World, step: Step, words: str) -> None:
    """A 200 that is not a JSON object is not asked for again; the error shows its type and beginning."""
    with pytest.raises(BadAnswer, match="account main, app 1: the answer is not a JSON object") as caught:
        world.client(step).metrics("apps", "1")
    assert words in caught.value.remedy
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    assert world.statuses() == [200]


@pytest.mark.parametrize(
    ("written", "number"),
    [
        (b"7", 7.0),
        (b"-0", 0.0),
        (b"1.5", 1.5),
        (b"9" * 400, inf),
        (b"-" + b"9" * 5000, -inf),
        (b"1e999", inf),
    ],
)
def test_every_number_is_a_float(world: World, written: bytes, number: float) -> None:
    """A number with more digits than an integer may have costs itself, never the answer."""
    document = world.client(raw(b'{"a": [' + written + b"]}")).metrics("apps", "1").document
    assert document == {"a": [number]}
    assert [type(found) for found in cast("list[object]", document["a"])] == [float]


def test_deep_json_is_refused(world: World) -> None:
    """Nesting that no answer of Apple has is an error, not a crash."""
    body = b'{"a":' * 200_000 + b"1" + b"}" * 200_000
    with pytest.raises(BadAnswer, match="nested too deep"):
        world.client(raw(body), max_response_bytes=10_000_000).metrics("apps", "1")


# Answers that nest deep


def nested(levels: int, inmost: bytes) -> bytes:
    """An object of so many levels, with `inmost` in the last one."""
    return b'{"a":' * levels + inmost + b"}" * levels


def unwrapped(document: object, levels: int) -> object:
    """What stands in the last level of such an object."""
    for _ in range(levels):
        document = cast("dict[str, object]", document)["a"]
    return document


def test_call_stacks_of_ten_thousand_frames_are_read(world: World) -> None:
    """A tree that json.loads gives up on is read by a stack of our own, to its last frame."""
    frames = 10_000
    body = b'{"subFrames":[' * frames + b'{"sampleCount":7}' + b"]}" * frames
    node: Any = world.client(raw(body)).logs("s").document
    for _ in range(frames):
        [node] = node["subFrames"]
    assert node == {"sampleCount": 7.0}
    assert type(node["sampleCount"]) is float


def test_fifty_thousand_levels_are_the_limit(world: World) -> None:
    """The last level allowed is read, one more is refused."""
    client = world.client(raw(nested(49_999, b"{}")), raw(nested(50_000, b"{}")))
    assert unwrapped(client.metrics("apps", "1").document, 49_999) == {}
    with pytest.raises(BadAnswer, match=r"account main, app 1: .*nested too deep"):
        client.metrics("apps", "1")


def test_nothing_but_brackets_takes_no_memory() -> None:
    """Of megabytes of opening brackets, the first thousands are looked at."""
    body = b"[" * 16_000_000
    tracemalloc.start()
    try:
        with pytest.raises(BadAnswer, match="nested too deep"):
            loads_deep(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16_000_000


def test_a_deep_answer_that_is_cut_off_is_asked_for_again(world: World) -> None:
    """Wherever the end is missing, in a word or behind a bracket, it is a lost connection."""
    body = nested(5000, b'[true, {"b": {"c": "\\u00e9"}}]')
    cuts = [body[:-1], body[:-4000], body[: body.index(b"rue")], body[: body.index(b"u00e9")]]
    client = world.client(*(raw(cut) for cut in cuts), raw(body))
    assert unwrapped(client.metrics("apps", "1").document, 5000) == [True, {"b": {"c": "é"}}]
    assert world.statuses() == [200] * 5


@pytest.mark.parametrize(
    "body",
    [
        nested(5000, b"1") + b"}",
        nested(5000, b"1") + b" and more",
        nested(5000, b"1") + nested(5000, b"1"),
        nested(5000, b"nonsense"),
        nested(5000, b"[1,]"),
        nested(5000, b"{1: 2}"),
        nested(5000, b"01"),
        nested(5000, b"NaN"),
        nested(5000, b'"\\x"'),
        nested(5000, b'"\n"'),
        nested(5000, b'"\xff"'),
        nested(5000, b"1e" + b"9" * 30),
        b"[" * 5000 + b"]" * 5000,
        b"[" * 5000,
    ],
)
def test_what_is_deep_and_no_json_is_refused(world: World, body: bytes) -> None:
    """A deep answer has to be JSON as any other; NaN, which json.loads lets through, is none."""
    with pytest.raises(BadAnswer, match="the answer is not a JSON object"):
        world.client(raw(body)).metrics("apps", "1")
    assert world.statuses() == [200]


@pytest.mark.parametrize(
    ("written", "number"),
    [
        (b"-0", 0.0),
        (b"1.5", 1.5),
        (b"1e400", inf),
        (b"-1e-400", 0.0),
        (b"9" * 308, 1e308),
        (b"9" * 310, inf),
        (b"-" + b"9" * 310, -inf),
        (b"9" * 400, inf),
        (b"-" + b"9" * 5000, -inf),
        (b"0." + b"3" * 5000, 1 / 3),
        (b"1" + b"0" * 1000 + b"e-1000", 1.0),
    ],
)
def test_every_number_in_the_depth_is_a_float(written: bytes, number: float) -> None:
    """A number of any length costs itself, and digits in a text stay digits."""
    digits = b'"' + b"1" * 5000 + b'\\""'
    found = unwrapped(loads_deep(nested(2000, b"[" + written + b"," + digits + b"]")), 2000)
    assert found == [pytest.approx(number, rel=1e-12), "1" * 5000 + '"']
    assert type(cast("list[object]", found)[0]) is float


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(DOCUMENTS, st.booleans())
def test_the_deep_reader_agrees_with_json(document: object, ascii_only: bool) -> None:
    """An ordinary document is read as json.loads reads it."""
    body = json.dumps(document, ensure_ascii=ascii_only).encode()
    assert loads_deep(body) == json.loads(body, parse_int=float)


@given(st.lists(st.tuples(st.sampled_from("ab"), DOCUMENTS), max_size=4))
def test_of_a_key_that_is_there_twice_the_last_counts(members: list[tuple[str, object]]) -> None:
    """Doubles are resolved as json.loads does, also where the first one was an object."""
    body = b"{%s}" % b",".join(f"{json.dumps(key)}:{json.dumps(value)}".encode() for key, value in members)
    assert loads_deep(body) == json.loads(body, parse_int=float)


@given(DOCUMENTS, st.data())
def test_every_cut_of_an_object_is_seen(document: object, data: st.DataObject) -> None:
    """A document that ends before its end is cut off, wherever that is."""
    body = json.dumps({"a": document}).encode()
    length = data.draw(st.integers(1, len(body) - 1))
    with pytest.raises(httpx.RemoteProtocolError):
        loads_deep(body[:length])


def test_the_parser_in_python_reads_the_same() -> None:
    """Where ijson has no compiled backend, deep answers are read, cut off and refused all the same."""
    code = """
import sys
from exporter.appstore.documents import loads_deep

for line in sys.stdin.buffer:
    try:
        print(loads_deep(line))
    except Exception as error:
        print(type(error).__name__)
"""
    bodies = [
        b'{"a": [1, null, "x", {}]}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": 1',
        b'{"a": {}',
        b'{"a": "\\x"}',
        b'{"a": x}',
        b"{} x",
        b"[" * 60_000,
    ]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "IJSON_BACKEND": "python"},
        input=b"\n".join(bodies),
        capture_output=True,
        check=False,
    )
    assert done.stdout.decode().splitlines() == [
        "{'a': [1.0, None, 'x', {}]}",
        "{'a': inf}",
        "RemoteProtocolError",
        "RemoteProtocolError",
        "ValueError",
        "ValueError",
        "ValueError",
        "BadAnswer",
    ]
    assert done.stderr == b""


def test_an_encoding_that_was_not_asked_for_is_refused(world: World) -> None:
    """Only gzip was offered."""
    with pytest.raises(BadAnswer, match="Content-Encoding br"):
        world.client(raw(b"...", Content_Encoding="br")).metrics("apps", "1")


def test_a_missing_content_type_does_not_matter(world: World) -> None:
    """JSON that a proxy stripped of its type is still JSON."""
    body = json.dumps(METRICS).encode()
    assert world.client(lambda handler: send(handler, 200, body, {})).metrics("apps", "1").body == body


def test_an_answer_may_be_as_large_as_allowed(world: World) -> None:
    """The limit itself is still within the limit."""
    body = b"{}" + b" " * (LIMIT - 2)
    assert len(world.client(raw(body)).metrics("apps", "1").body) == LIMIT
    with pytest.raises(BadAnswer, match="larger than 1000000 bytes"):
        world.client(raw(body + b" ")).metrics("apps", "1")


def test_a_huge_answer_is_not_read_to_its_end(world: World) -> None:
    """Of 100 MB without an announced length, little more than the limit is taken."""
    written: list[int] = []

    def step(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" " * 1_000_000)
            written.append(1_000_000)

    with pytest.raises(BadAnswer, match=r"larger than 1000000 bytes.*limits\.response_size"):
        world.client(step).metrics("apps", "1")
    assert sum(written) < 50_000_000
    assert world.statuses() == [200]


def test_a_gzip_bomb_does_not_go_off(world: World) -> None:
    """A small answer that would become 100 MB is given up at the limit, without using the memory."""
    bomb = gzip.compress(bytes(100_000_000))
    client = world.client(raw(bomb, Content_Encoding="gzip"))
    tracemalloc.start()
    try:
        with pytest.raises(BadAnswer, match="larger than"):
            client.metrics("apps", "1")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


def test_data_behind_the_gzip_end_counts(world: World) -> None:
    """An endless tail behind a small compressed answer is given up at the limit as well."""
    body = gzip.compress(b"{}") + b"x" * 5_000_000
    with pytest.raises(BadAnswer, match="larger than"):
        world.client(raw(body, Content_Encoding="gzip")).metrics("apps", "1")


# The budget


@pytest.mark.parametrize("status", [200, 404, 503])
def test_the_rate_limit_is_read_from_every_answer(world: World, status: int) -> None:
    """Errors tell the key's remaining requests too."""
    with suppress(NotFound):
        world.client(reply(status, X_Rate_Limit="user-hour-lim:3600;user-hour-rem:1234;"), reply()).metrics(
            "apps", "1"
        )
    assert (world.quota.limit, world.quota.remaining) == (3600, 1234)


def test_over_budget_in_the_middle_of_pages(world: World) -> None:
    """When the share is used up between two pages, nothing more is sent and nothing half is returned."""
    step = reply(
        200,
        {"data": [app(1)], "links": {"next": f"{world.server.url}/v1/apps?cursor=2"}},
        X_Rate_Limit="user-hour-lim:3500;user-hour-rem:1;",
    )
    with pytest.raises(OverBudget, match=r"account main: our share .* becomes free at") as caught:
        world.client(step, page(app(2))).apps()
    assert "raise limits.key_share" in caught.value.remedy
    assert len(world.server.requests) == len(world.taken) == 1


def test_a_pace_too_slow_for_the_call_is_an_error(world: World) -> None:
    """When the minute's limit leaves no turn within the time for one call, it is given up unsent."""
    world.quota.saw("user-hour-lim:3500;user-hour-rem:3500;user-minute-lim:60;user-minute-rem:0;", NOW)
    client = world.client(reply(), give_up_after=10)
    client.metrics("apps", "1")
    with pytest.raises(RateLimited, match=r"wait until .* \(60 s\)"):
        client.metrics("apps", "2")
    assert len(world.server.requests) == 1


def test_requests_keep_their_pace(world: World) -> None:
    """Five requests a second are not exceeded."""
    client = world.client(*[reply()] * 6)
    for number in range(6):
        client.metrics("apps", str(number))
    assert world.taken == pytest.approx([NOW + 0.2 * number for number in range(6)])
    assert sum(world.time.slept) == pytest.approx(1.0)


def test_no_token_in_any_error(world: World) -> None:
    """Whatever goes wrong, the bearer token is in no error."""
    steps = [error(400), error(403), error(404), raw(b"<html>"), raw(b"", 302), hang_up]
    for step in steps:
        with pytest.raises(AppStoreError) as caught:
            world.client(*[step] * 5).metrics("apps", "1")
        token = world.server.requests[-1].headers["Authorization"].removeprefix("Bearer ")
        assert token not in repr(caught.value) + str(caught.value)
