from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from exporter.sandbox import AppStoreSandbox, Fault, error_body

VENDOR = "application/vnd.apple.xcode-metrics+json"
LOGS = "application/vnd.apple.diagnostic-logs+json"
OVERVIEW = "application/vnd.apple.xcode-overview+json"
BOTH = f"{VENDOR}, {LOGS}, {OVERVIEW}, application/json"
NOW = 1_780_000_000.0
BANK = "1540000001"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@contextmanager
def opened(clock: Clock | None = None, **options: Any) -> Iterator[tuple[AppStoreSandbox, httpx.Client]]:
    options.setdefault("day", lambda: 0.0)
    sandbox = AppStoreSandbox(clock=clock or Clock(), **options)
    with sandbox, httpx.Client(base_url=sandbox.url, headers=bearer(sandbox), trust_env=False) as client:
        yield sandbox, client


def token(sandbox: AppStoreSandbox, *, key: Any = None, kid: str | None = None, **changes: Any) -> str:
    claims = {"iss": sandbox.issuer_id, "iat": NOW, "exp": NOW + 600, "aud": "appstoreconnect-v1", **changes}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(
        claims, key or sandbox.private_key_pem, algorithm="ES256", headers={"kid": kid or sandbox.key_id}
    )


def bearer(sandbox: AppStoreSandbox, **changes: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(sandbox, **changes)}", "Accept": BOTH}


def code(response: httpx.Response) -> str:
    (error,) = response.json()["errors"]
    assert error["status"] == str(response.status_code)
    assert {"id", "code", "title", "detail"} <= error.keys()
    return str(error["code"])


def fails(client: httpx.Client, path: str) -> None:
    with pytest.raises(httpx.HTTPError):
        client.get(path)


def test_apps_are_listed_as_json_api() -> None:
    """/v1/apps gives the three apps with name and bundle id, and the paging information."""
    with opened() as (sandbox, client):
        document = client.get("/v1/apps").json()
        assert [app["attributes"]["bundleId"] for app in document["data"]] == [
            "com.example.harbour",
            "com.example.larkspur",
            "com.example.tidepool",
        ]
        assert all(app["type"] == "apps" and app["id"].isdigit() for app in document["data"])
        assert document["meta"]["paging"] == {"total": 3, "limit": 50}
        assert document["links"] == {"self": f"{sandbox.url}/v1/apps"}


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("filter[id]=1540000002", ["1540000002"]),
        ("filter[bundleId]=com.example.tidepool,com.example.harbour", [BANK, "1540000003"]),
        ("filter[id]=1", []),
        ("sort=-name", ["1540000003", "1540000002", BANK]),
    ],
)
def test_apps_are_filtered_and_sorted(query: str, ids: list[str]) -> None:
    """Filters take lists; sort takes a minus."""
    with opened() as (_, client):
        assert [app["id"] for app in client.get(f"/v1/apps?{query}").json()["data"]] == ids


def test_fields_leave_the_others_out() -> None:
    """fields[apps] names the attributes that are wanted."""
    with opened() as (_, client):
        app = client.get("/v1/apps", params={"fields[apps]": "bundleId"}).json()["data"][0]
        assert app["attributes"] == {"bundleId": "com.example.harbour"}
        assert app["relationships"] == {}


def test_builds_come_with_their_version() -> None:
    """The marketing version and platform are in the included preReleaseVersion, not on the build."""
    query = {
        "filter[app]": "1540000002",
        "filter[expired]": "false",
        "filter[processingState]": "VALID",
        "filter[preReleaseVersion.version]": "3.40.0,3.39.0",
        "include": "preReleaseVersion",
        "sort": "-uploadedDate",
        "limit": "4",
    }
    with opened() as (_, client):
        document = client.get("/v1/builds", params=query).json()
    assert len(document["data"]) == 4
    uploads = [build["attributes"]["uploadedDate"] for build in document["data"]]
    assert uploads == sorted(uploads, reverse=True)
    versions = {item["id"]: item["attributes"] for item in document["included"]}
    newest = document["data"][0]["relationships"]["preReleaseVersion"]["data"]
    assert newest["type"] == "preReleaseVersions"
    assert versions[newest["id"]]["version"] == "3.40.0"
    assert {attributes["platform"] for attributes in versions.values()} == {"IOS", "MAC_OS"}
    assert document["data"][0]["attributes"]["version"] != "3.40.0"


def test_builds_without_include_have_no_version() -> None:
    """Without include there is a link only."""
    with opened() as (_, client):
        document = client.get("/v1/builds", params={"filter[app]": BANK}).json()
    assert "included" not in document
    assert "data" not in document["data"][0]["relationships"]["preReleaseVersion"]


def test_builds_can_include_their_app() -> None:
    """include=app names each app once, and leaves the versions out."""
    with opened() as (_, client):
        document = client.get("/v1/builds", params={"filter[app]": BANK, "include": "app"}).json()
    assert [(item["type"], item["id"]) for item in document["included"]] == [("apps", BANK)]
    assert document["data"][0]["relationships"]["app"]["data"] == {"type": "apps", "id": BANK}


def test_a_get_with_a_body_is_refused() -> None:
    """GET requests have no body."""
    with opened() as (_, client):
        assert client.request("GET", "/v1/apps", content=b"{}").status_code == 400


def test_builds_of_an_app_take_no_sort() -> None:
    """/v1/apps/{id}/builds lists them, and refuses sort and include."""
    with opened() as (_, client):
        assert len(client.get(f"/v1/apps/{BANK}/builds").json()["data"]) == 12
        assert code(client.get(f"/v1/apps/{BANK}/builds?sort=-uploadedDate")) == "PARAMETER_ERROR.ILLEGAL"
        assert client.get("/v1/apps/1/builds").status_code == 404


def test_pages_are_followed_to_the_end_without_loss() -> None:
    """links.next is absolute, bears a cursor, and is absent at the end."""
    with opened(page_size_max=5) as (sandbox, client):
        small = f"filter[app]={BANK},1540000003"
        url: str | None = f"/v1/builds?{small}&include=preReleaseVersion&limit=200&sort=-uploadedDate"
        ids: list[str] = []
        while url:
            document = client.get(url).json()
            assert len(document["data"]) <= 5
            named = {build["relationships"]["preReleaseVersion"]["data"]["id"] for build in document["data"]}
            assert {item["id"] for item in document["included"]} == named
            ids += [build["id"] for build in document["data"]]
            url = document["links"].get("next")
            assert url is None or url.startswith(f"{sandbox.url}/v1/builds?")
        assert len(ids) == len(set(ids)) == document["meta"]["paging"]["total"] == 47


def test_a_last_page_of_one_is_not_forgotten() -> None:
    """Three apps in pages of two make two pages; in pages of three, one."""
    with opened() as (_, client):
        first = client.get("/v1/apps?limit=2").json()
        last = client.get(first["links"]["next"]).json()
        assert [len(page["data"]) for page in (first, last)] == [2, 1]
        assert "next" not in last["links"]
        assert "next" not in client.get("/v1/apps?limit=3").json()["links"]


@pytest.mark.parametrize("kind", ["apps", "builds"])
def test_metrics_of_an_app_and_a_build(kind: str) -> None:
    """perfPowerMetrics answers with the vendor's content type and the store's document."""
    with opened() as (sandbox, client):
        store = sandbox.store
        build = store.builds(BANK, 0)[0].id
        identity = BANK if kind == "apps" else build
        answer = client.get(f"/v1/{kind}/{identity}/perfPowerMetrics")
        assert answer.headers["content-type"] == VENDOR
        expected = store.metrics_payload(BANK, 0) if kind == "apps" else store.build_metrics_payload(build, 0)
        assert answer.json() == expected


def test_metrics_filters_are_honoured() -> None:
    """filter[platform], filter[metricType] and filter[deviceType] cut the document down."""
    query = {"filter[platform]": "IOS", "filter[metricType]": "HANG,DISK", "filter[deviceType]": "all_ipads"}
    with opened() as (_, client):
        document = client.get("/v1/apps/1540000002/perfPowerMetrics", params=query).json()
    (product,) = document["productData"]
    assert [c["identifier"] for c in product["metricCategories"]] == ["HANG", "DISK"]
    assert len(product["metricCategories"][0]["metrics"][0]["datasets"]) == 2


def test_a_payload_of_ones_own_is_served_as_it_is() -> None:
    """The override is asked by app id and its bytes are not touched."""
    with opened(payload=lambda app_id: f'{{"mine": "{app_id}"'.encode()) as (_, client):
        assert client.get("/v1/apps/42/perfPowerMetrics").content == b'{"mine": "42"'


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/v1/apps?colour=red", 400, "PARAMETER_ERROR.ILLEGAL"),
        ("/v1/apps?filter[platform]=IOS", 400, "PARAMETER_ERROR.ILLEGAL"),
        ("/v1/apps?limit=0", 400, "PARAMETER_ERROR.INVALID"),
        ("/v1/apps?limit=201", 400, "PARAMETER_ERROR.INVALID"),
        ("/v1/apps?limit=ten", 400, "PARAMETER_ERROR.INVALID"),
        ("/v1/apps?limit=1&limit=2", 400, "PARAMETER_ERROR.INVALID"),
        ("/v1/apps?filter[id]=", 400, "PARAMETER_ERROR.INVALID"),
        ("/v1/apps?cursor=nonsense", 400, "PARAMETER_ERROR.INVALID"),
        ("/v1/builds?sort=colour", 400, "PARAMETER_ERROR.INVALID"),
        ("/v1/builds?include=icons", 400, "PARAMETER_ERROR.INVALID"),
        ("/v1/builds?filter[processingState]=DONE", 400, "PARAMETER_ERROR.INVALID"),
        (f"/v1/apps/{BANK}/perfPowerMetrics?filter[platform]=iOS", 400, "PARAMETER_ERROR.INVALID"),
        (f"/v1/apps/{BANK}/perfPowerMetrics?filter[metricType]=HEAT", 400, "PARAMETER_ERROR.INVALID"),
        (f"/v1/apps/{BANK}/perfPowerMetrics?limit=1", 400, "PARAMETER_ERROR.ILLEGAL"),
        ("/v1/apps/1/perfPowerMetrics", 404, "NOT_FOUND"),
        ("/v1/builds/1/perfPowerMetrics", 404, "NOT_FOUND"),
        ("/v1/apps/", 404, "PATH_ERROR"),
        ("/v1/builds/1/builds", 404, "PATH_ERROR"),
        ("/v1/builds/1/performanceOverviews", 404, "PATH_ERROR"),
        ("/v1/apps/1/diagnosticSignatures", 404, "PATH_ERROR"),
        ("/v1/diagnosticSignatures", 404, "PATH_ERROR"),
        ("/v1/builds/1/diagnosticSignatures", 404, "NOT_FOUND"),
        ("/v1/builds/1/diagnosticSignatures?sort=weight", 400, "PARAMETER_ERROR.ILLEGAL"),
        ("/v1/builds/1/diagnosticSignatures?filter[diagnosticType]=CRASHES", 400, "PARAMETER_ERROR.INVALID"),
        ("/v1/builds/1/diagnosticSignatures?fields[diagnosticSignatures]=x", 400, "PARAMETER_ERROR.INVALID"),
        ("/v1/diagnosticSignatures/1/logs", 404, "NOT_FOUND"),
        ("/v1/diagnosticSignatures/1/logs?limit=201", 400, "PARAMETER_ERROR.INVALID"),
        ("/v1/diagnosticSignatures/1/logs?cursor=x", 400, "PARAMETER_ERROR.ILLEGAL"),
        ("/v1/apps/1/performanceOverviews", 404, "NOT_FOUND"),
        (f"/v1/apps/{BANK}/performanceOverviews?limit=1", 400, "PARAMETER_ERROR.ILLEGAL"),
        ("/v1/builds?filter[buildAudienceType]=ALL", 400, "PARAMETER_ERROR.INVALID"),
        ("/v1/builds?fields[appStoreVersions]=colour", 400, "PARAMETER_ERROR.INVALID"),
        ("/v2/apps", 404, "PATH_ERROR"),
        ("/", 404, "PATH_ERROR"),
    ],
)
def test_wrong_requests_are_refused(path: str, status: int, expected: str) -> None:
    """What the real one would not take is refused with Apple's error document."""
    with opened() as (_, client):
        answer = client.get(path)
        assert (answer.status_code, code(answer)) == (status, expected)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "BREW"])
def test_only_get_is_allowed(method: str) -> None:
    """Other methods get 405, with or without a body."""
    with opened() as (_, client):
        assert code(client.request(method, "/v1/apps", content=b"{}")) == "METHOD_NOT_ALLOWED"


def test_the_accept_header_has_to_fit() -> None:
    """Metrics need the vendor's type by name; lists need JSON; anything else is 406."""
    path = f"/v1/apps/{BANK}/perfPowerMetrics"
    with opened() as (_, client):
        for accept in ("application/json", "*/*", "text/html"):
            assert code(client.get(path, headers={"Accept": accept})) == "NOT_ACCEPTABLE"
        assert client.get(path, headers={"Accept": f"text/html, {VENDOR};q=0.9"}).status_code == 200
        assert client.get("/v1/apps", headers={"Accept": VENDOR}).status_code == 406
        assert client.get("/v1/apps", headers={"Accept": "*/*"}).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"kid": "OTHERKEY"},
        {"aud": "somebody-else"},
        {"aud": None},
        {"iss": "another-issuer"},
        {"iss": None},
        {"iss": None, "sub": "somebody"},
        {"iat": NOW - 700, "exp": NOW - 100},
        {"iat": NOW - 700, "exp": NOW},
        {"iat": NOW, "exp": NOW + 1201},
        {"iat": NOW + 60, "exp": NOW + 600},
        {"iat": NOW, "exp": NOW},
        {"exp": None},
        {"iat": None},
        {"exp": "soon"},
        {"exp": True},
        {"scope": []},
        {"scope": "GET /v1/apps"},
        {"scope": ["GET /v1/builds"]},
        {"scope": ["POST /v1/apps"]},
        {"scope": ["GET /v1/apps?limit=1"]},
        {"key": ec.generate_private_key(ec.SECP256R1())},
    ],
    ids=str,
)
def test_bad_tokens_are_refused(changes: dict[str, Any]) -> None:
    """A token that is forged, expired, too long-lived, from the future or out of scope gets 401."""
    with opened() as (sandbox, client):
        answer = client.get("/v1/apps?limit=2", headers=bearer(sandbox, **changes))
        assert (answer.status_code, code(answer)) == (401, "NOT_AUTHORIZED")
        assert token(sandbox)[:20] not in answer.text


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x.y.z", "Basic dXNlcjpwYXNz"])
def test_missing_tokens_are_refused(header: str) -> None:
    """No token, or something that is none, gets 401."""
    with opened() as (_, client):
        assert code(client.get("/v1/apps", headers={"Authorization": header})) == "NOT_AUTHORIZED"


def test_a_token_of_another_algorithm_is_refused() -> None:
    """Only ES256 is accepted, so that nobody signs with a secret of his own."""
    with opened() as (sandbox, client):
        claims = {"iss": sandbox.issuer_id, "iat": NOW, "exp": NOW + 60, "aud": "appstoreconnect-v1"}
        forged = jwt.encode(claims, "s" * 64, algorithm="HS256", headers={"kid": sandbox.key_id})
        assert client.get("/v1/apps", headers={"Authorization": f"Bearer {forged}"}).status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": None, "sub": "user"},
        {"iat": NOW + 5, "exp": NOW + 1205},
        {"scope": ["GET /v1/builds", "GET /v1/apps"]},
        {"scope": ["GET /v1/apps?limit=2"]},
    ],
    ids=str,
)
def test_good_tokens_are_accepted(changes: dict[str, Any]) -> None:
    """Individual keys, slightly fast clocks and fitting scopes are fine."""
    with opened() as (sandbox, client):
        assert client.get("/v1/apps?limit=2", headers=bearer(sandbox, **changes)).status_code == 200


def test_the_hour_rolls() -> None:
    """When the hour is used up the answer is 429; a request comes back an hour after it was made."""
    clock = Clock()
    with opened(clock, hour_limit=3) as (_, client):
        left = []
        for step in (0, 10, 20):
            clock.now = NOW + step
            left.append(client.get("/v1/apps").headers["x-rate-limit"])
        assert left == [f"user-hour-lim:3;user-hour-rem:{n};" for n in (2, 1, 0)]
        refused = client.get("/v1/apps")
        assert (refused.status_code, code(refused)) == (429, "RATE_LIMIT_EXCEEDED")
        assert refused.headers["x-rate-limit"] == "user-hour-lim:3;user-hour-rem:0;"
        clock.now = NOW + 3600
        headers = bearer(_, iat=clock.now, exp=clock.now + 60)
        assert client.get("/v1/apps", headers=headers).status_code == 200
        assert client.get("/v1/apps", headers=headers).status_code == 429


def test_a_burst_is_refused_while_the_hour_has_room() -> None:
    """More than the minute's share gets 429 with hours remaining, and passes once the minute is over."""
    clock = Clock()
    with opened(clock, minute_limit=4) as (_, client):
        assert [client.get("/v1/apps").status_code for _ in range(5)] == [200] * 4 + [429]
        assert client.get("/v1/apps").headers["x-rate-limit"] == "user-hour-lim:3600;user-hour-rem:3596;"
        clock.now += 60
        assert client.get("/v1/apps").status_code == 200


def test_errors_bear_the_rate_limit_and_the_clock() -> None:
    """Every answer, errors too, has X-Rate-Limit, and Date comes from the handed-in clock."""
    with opened() as (_, client):
        answer = client.get("/v1/apps", headers={"Authorization": ""})
        assert answer.headers["x-rate-limit"] == "user-hour-lim:3600;user-hour-rem:3599;"
        assert answer.headers["date"] == "Thu, 28 May 2026 20:26:40 GMT"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "NOT_AUTHORIZED"),
        (403, "FORBIDDEN_ERROR"),
        (404, "NOT_FOUND"),
        (406, "NOT_ACCEPTABLE"),
        (429, "RATE_LIMIT_EXCEEDED"),
        (503, "UNEXPECTED_ERROR"),
    ],
)
def test_a_status_on_demand_comes_with_its_document(status: int, expected: str) -> None:
    """A fault is used up after `times` requests to its path, and leaves other paths alone."""
    with opened() as (sandbox, client):
        sandbox.fail("/v1/apps", Fault(status=status, headers={"Retry-After": "7"}), times=2)
        assert client.get("/v1/builds").status_code == 200
        first, second, third = (client.get("/v1/apps") for _ in range(3))
        assert (first.status_code, code(first), first.headers["retry-after"]) == (status, expected, "7")
        assert second.status_code == status
        assert third.status_code == 200


def test_bodies_and_types_on_demand() -> None:
    """The other 403, a proxy's HTML and a redirect can all be asked for; they queue up."""
    agreement = "FORBIDDEN.REQUIRED_AGREEMENTS_MISSING_OR_EXPIRED"
    with opened() as (sandbox, client):
        sandbox.fail("/v1/apps", Fault(status=403, body=error_body(403, code=agreement)))
        sandbox.fail("/v1/apps", Fault(body=b"<html>", content_type="text/html"))
        sandbox.fail("/v1/apps", Fault(status=302, headers={"Location": "http://127.0.0.1:9/"}))
        assert code(client.get("/v1/apps")) == agreement
        page = client.get("/v1/apps")
        assert (page.status_code, page.text, page.headers["content-type"]) == (200, "<html>", "text/html")
        assert client.get("/v1/apps").headers["location"] == "http://127.0.0.1:9/"


@pytest.mark.parametrize("length", [0, 20])
def test_an_answer_is_cut_off_on_demand(length: int) -> None:
    """After `cut_after` bytes the connection is dropped, and the next request is fine again."""
    with opened() as (sandbox, client):
        sandbox.fail("/v1/apps", Fault(cut_after=length))
        with pytest.raises(httpx.RemoteProtocolError, match=f"received {length} bytes"):
            client.get("/v1/apps")
        assert client.get("/v1/apps").status_code == 200


def test_a_slow_answer_on_demand() -> None:
    """A delayed answer outlasts the client's patience, and a dripping one comes byte by byte."""
    with opened() as (sandbox, client):
        sandbox.fail("/v1/apps", Fault(delay=30))
        with pytest.raises(httpx.ReadTimeout):
            client.get("/v1/apps", timeout=0.05)
        sandbox.fail("/v1/apps", Fault(body=b"12345", drip=0.01))
        start = time.monotonic()
        assert client.get("/v1/apps").content == b"12345"
        assert time.monotonic() - start >= 0.05


def test_requests_are_on_record() -> None:
    """Each request is kept with what was answered, before the client sees the answer."""
    with opened() as (sandbox, client):
        sandbox.fail("/v1/apps", Fault(status=500))
        client.get("/v1/apps?limit=1")
        client.get("/v2")
        first, second = sandbox.requests
        assert (first.method, first.path, first.query) == ("GET", "/v1/apps", "limit=1")
        assert (first.status, second.status, second.at) == (500, 404, NOW)


def test_by_default_a_day_lasts_a_minute() -> None:
    """Without a calendar of one's own the sandbox's day follows its clock."""
    clock = Clock()
    sandbox = AppStoreSandbox(clock=clock)
    clock.now += 90
    assert sandbox.day() == 1.5
    clock.now = NOW - 10
    assert sandbox.day() == 0


def test_closing_is_quick_and_leaves_no_thread() -> None:
    """Closing ends a delayed answer and an idle connection at once, and twice is harmless."""
    before = set(threading.enumerate())
    with opened() as (sandbox, client):
        client.get("/v1/apps")
        sandbox.fail("/v1/builds", Fault(delay=30))
        waiting = threading.Thread(target=fails, args=(client, "/v1/builds"))
        waiting.start()
        deadline = time.monotonic() + 5
        while len(sandbox.requests) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        start = time.monotonic()
        sandbox.close()
        waiting.join()
        assert time.monotonic() - start < 2
        sandbox.close()
    assert set(threading.enumerate()) == before
    with pytest.raises(RuntimeError, match="not open"):
        _ = sandbox.url


def test_no_key_in_any_repr() -> None:
    """The private key is in no representation of the sandbox."""
    sandbox = AppStoreSandbox()
    assert "PRIVATE" not in repr(sandbox)
    assert "BEGIN PRIVATE KEY" in sandbox.private_key_pem


def test_many_clients_at_once_are_all_counted() -> None:
    """Requests from several threads neither fail nor go uncounted."""
    with opened() as (sandbox, client):
        statuses: list[int] = []
        threads = [
            threading.Thread(target=lambda: statuses.append(client.get("/v1/apps").status_code))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 20
        assert len(sandbox.requests) == 20
        assert json.loads(client.get("/v1/apps").content)["data"]
        assert client.get("/v1/apps").headers["x-rate-limit"].endswith("rem:3578;")
