from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from exporter.sandbox.appstore import AppStoreSandbox, Fault
from exporter.sandbox.tables import APPS
from tests.sandbox.test_sandbox_appstore import LOGS, VENDOR, code, opened

Json = dict[str, Any]
BANK, NOTES, TRAILS = (app.id for app in APPS)


def released(sandbox: AppStoreSandbox, app_id: str, version: str = "") -> str:
    """The id of the newest build on the store, or of the one of that version."""
    builds = sandbox.store.builds(app_id, sandbox.day())
    return next(b.id for b in builds if b.store_state and version in ("", b.version))


def all_pages(client: httpx.Client, url: str | None) -> list[Json]:
    resources: list[Json] = []
    while url:
        document = client.get(url).json()
        resources += document["data"]
        url = document["links"].get("next")
    return resources


def test_signatures_are_listed_as_json_api() -> None:
    """Type, text, weight, insight where there is one, and the way to the logs."""
    with opened() as (sandbox, client):
        build = released(sandbox, BANK)
        answer = client.get(f"/v1/builds/{build}/diagnosticSignatures?limit=200")
        truth = sandbox.store.signatures(build, 0)
        base = sandbox.url
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert [resource["id"] for resource in document["data"]] == [s.id for s in truth]
    assert document["meta"]["paging"]["total"] == len(truth)
    for resource, signature in zip(document["data"], truth, strict=True):
        expected: Json = {"diagnosticType": signature.type, "signature": signature.text}
        expected["weight"] = signature.weight
        if signature.insight is not None:
            expected["insight"] = signature.insight
        assert resource["type"] == "diagnosticSignatures"
        assert resource["attributes"] == expected
        logs = f"{base}/v1/diagnosticSignatures/{signature.id}/logs"
        assert resource["relationships"]["logs"]["links"]["related"] == logs


def test_signatures_come_in_pages_of_at_most_two_hundred() -> None:
    """A crowded build needs two pages of 200; small pages lose nothing either."""
    with opened() as (sandbox, client):
        build = released(sandbox, BANK, "7.36.0")
        path = f"/v1/builds/{build}/diagnosticSignatures"
        first = client.get(f"{path}?limit=200").json()
        assert len(first["data"]) == 200
        assert first["links"]["next"].startswith(f"{sandbox.url}{path}?")
        truth = {s.id for s in sandbox.store.signatures(build, 0)}
        whole = all_pages(client, f"{path}?limit=200")
        small = all_pages(client, f"{path}?limit=70")
    assert len(truth) > 200
    for pages in (whole, small):
        assert len(pages) == len(truth)
        assert {resource["id"] for resource in pages} == truth


def test_signatures_are_filtered_by_type_and_field() -> None:
    """filter[diagnosticType] takes several types; fields leave out the others."""
    with opened() as (sandbox, client):
        path = f"/v1/builds/{released(sandbox, NOTES)}/diagnosticSignatures"
        query = {"filter[diagnosticType]": "HANGS,LAUNCHES", "fields[diagnosticSignatures]": "diagnosticType"}
        data = client.get(path, params=query).json()["data"]
        everything = client.get(path, params={"limit": 200}).json()["data"]
    assert {json.dumps(r["attributes"]) for r in data} == {
        '{"diagnosticType": "HANGS"}',
        '{"diagnosticType": "LAUNCHES"}',
    }
    assert all(r["relationships"] == {} for r in data)
    kinds = {r["attributes"]["diagnosticType"] for r in everything}
    assert kinds == {"HANGS", "LAUNCHES", "DISK_WRITES", "CPU_EXCEPTIONS"}


def test_a_build_without_signatures_answers_empty_or_not_at_all() -> None:
    """Without data: an empty list. In TestFlight only: 404. Both are Apple's ways."""
    with opened(day=lambda: 12.0) as (sandbox, client):
        fresh = client.get(f"/v1/builds/{released(sandbox, BANK)}/diagnosticSignatures")
        assert (fresh.status_code, fresh.json()["data"]) == (200, [])
        only_testflight = sandbox.store.builds(NOTES, 12)[0].id
        refused = client.get(f"/v1/builds/{only_testflight}/diagnosticSignatures")
        assert (refused.status_code, code(refused)) == (404, "NOT_FOUND")


def test_logs_are_the_stores_and_come_with_their_own_type() -> None:
    """The document holds each log as the store has it, newest first; limit takes the first ones."""
    with opened(day=lambda: 10.0) as (sandbox, client):
        signatures = sandbox.store.signatures(released(sandbox, BANK), 10)
        signature = max(signatures, key=lambda s: len(sandbox.store.logs(s.id, 10)))
        path = f"/v1/diagnosticSignatures/{signature.id}/logs"
        answer, two = client.get(path), client.get(f"{path}?limit=2")
        truth = [log.document for log in sandbox.store.logs(signature.id, 10)]
    assert answer.headers["content-type"] == LOGS
    assert answer.json()["version"] == "1.0.0"
    (product,) = answer.json()["productData"]
    assert product["signatureId"] == signature.id
    assert product["diagnosticLogs"] == truth
    assert len(truth) > 2
    assert two.json()["productData"][0]["diagnosticLogs"] == truth[:2]


def test_every_log_of_a_day_can_be_served() -> None:
    """Deep trees and awkward forms included, the bytes are the same at each download."""
    with opened(day=lambda: 10.0, minute_limit=2000) as (sandbox, client):
        forms = set()
        for app in APPS:
            for signature in sandbox.store.signatures(released(sandbox, app.id), 10):
                path = f"/v1/diagnosticSignatures/{signature.id}/logs"
                first, second = client.get(path), client.get(path)
                assert first.status_code == 200
                assert first.content == second.content
                assert isinstance(first.json()["productData"], list)
                forms |= {log.form for log in sandbox.store.logs(signature.id, 10)}
    assert {"deep", "ordinary", "per thread"} <= forms


def test_logs_of_a_signature_that_went_away_are_not_found() -> None:
    """What was listed yesterday may be gone today."""
    today = [20.0]
    with opened(day=lambda: today[0]) as (sandbox, client):
        build = released(sandbox, BANK)
        while True:
            before = {s.id for s in sandbox.store.signatures(build, today[0])}
            today[0] += 1
            gone = before - {s.id for s in sandbox.store.signatures(build, today[0])}
            if gone or today[0] > 60:
                break
        answer = client.get(f"/v1/diagnosticSignatures/{min(gone)}/logs")
        assert (answer.status_code, code(answer)) == (404, "NOT_FOUND")


@pytest.mark.parametrize("accept", ["application/json", "*/*", VENDOR, "text/html"])
def test_logs_need_their_vendor_type_by_name(accept: str) -> None:
    """Anything else is 406, plain JSON too; errors are readable as JSON all the same."""
    with opened() as (sandbox, client):
        signature = sandbox.store.signatures(released(sandbox, BANK), 0)[0].id
        path = f"/v1/diagnosticSignatures/{signature}/logs"
        assert code(client.get(path, headers={"Accept": accept})) == "NOT_ACCEPTABLE"
        fine = client.get(path, headers={"Accept": f"{LOGS}, application/json"})
        assert fine.status_code == 200


def test_signatures_need_json() -> None:
    """A vendor's type alone is not what a JSON:API list is served as."""
    with opened() as (sandbox, client):
        path = f"/v1/builds/{released(sandbox, BANK)}/diagnosticSignatures"
        assert client.get(path, headers={"Accept": LOGS}).status_code == 406
        assert client.get(path, headers={"Accept": "application/json"}).status_code == 200


def test_faults_reach_the_diagnostics_too() -> None:
    """A fault for a path prefix spoils signatures and logs like everything else."""
    with opened() as (sandbox, client):
        build = released(sandbox, BANK)
        signature = sandbox.store.signatures(build, 0)[0].id
        sandbox.fail("/v1/diagnosticSignatures/", Fault(status=503))
        assert client.get(f"/v1/builds/{build}/diagnosticSignatures").status_code == 200
        assert client.get(f"/v1/diagnosticSignatures/{signature}/logs").status_code == 503
        assert client.get(f"/v1/diagnosticSignatures/{signature}/logs").status_code == 200
