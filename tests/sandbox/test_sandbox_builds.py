from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import httpx
import pytest

from exporter.sandbox.builds import SandboxBuild
from exporter.sandbox.store import Store
from exporter.sandbox.tables import APPS
from tests.sandbox.test_sandbox_appstore import opened

BANK, NOTES, TRAILS = (app.id for app in APPS)


def released(builds: list[SandboxBuild]) -> list[SandboxBuild]:
    return [build for build in builds if build.store_state is not None]


def listed(client: httpx.Client, **query: str) -> dict[str, Any]:
    answer = client.get("/v1/builds", params={"sort": "-uploadedDate", "limit": "200", **query})
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


@pytest.mark.parametrize("day", [0, 3, 10, 60])
@pytest.mark.parametrize("app_id", [BANK, NOTES, TRAILS])
def test_builds_are_listed_newest_first_and_once(app_id: str, day: int) -> None:
    """Ids are unique, numbers grow with the uploads, and nothing of tomorrow is there."""
    builds = Store().builds(app_id, day)
    assert [b.uploaded for b in builds] == sorted((b.uploaded for b in builds), reverse=True)
    assert [int(b.number) for b in builds] == sorted((int(b.number) for b in builds), reverse=True)
    assert len({b.id for b in builds}) == len(builds)
    assert {b.id for b in Store().builds(app_id, day + 1)} >= {b.id for b in builds if not b.expired}


def test_of_several_builds_of_a_version_the_last_is_on_the_store() -> None:
    """The others of that version were uploaded before it and are on no store."""
    builds = Store().builds(TRAILS, 0)
    of_version = [b for b in builds if b.version == released(builds)[0].version]
    assert [b.store_state is None for b in of_version] == [False, True, True, True]
    assert of_version[0].store_state == "READY_FOR_DISTRIBUTION"
    assert {b.store_state for b in released(builds)[1:]} == {"REPLACED_WITH_NEW_VERSION"}


def test_a_version_goes_to_the_store_once_it_is_processed() -> None:
    """On the day of its upload the version before it is still the newest on the store."""
    before, after = (released(Store().builds(TRAILS, day)) for day in (3, 4))
    assert before[0].version == "1.40.0"
    assert [b.version for b in after[:2]] == ["1.41.0", "1.40.0"]
    assert [b.store_state for b in after[:2]] == ["READY_FOR_DISTRIBUTION", "REPLACED_WITH_NEW_VERSION"]


def test_a_newer_version_is_in_testflight_only() -> None:
    """The newest builds belong to a version that the store does not have; it has no metrics."""
    store = Store()
    newest = store.builds(TRAILS, 0)[0]
    assert newest.version not in {b.version for b in released(store.builds(TRAILS, 0))}
    assert store.build_metrics_payload(newest.id, 1)["productData"] == []


def test_a_page_of_two_hundred_does_not_reach_three_released_versions() -> None:
    """An app with many TestFlight builds: on every day the third released version is further back."""
    for day in range(30):
        page = Store().builds(NOTES, day)[:200]
        assert 1 <= len({b.version for b in released(page)}) < 3
        assert len({b.version for b in released(Store().builds(NOTES, day))}) >= 8


def test_released_builds_expire_and_keep_their_data() -> None:
    """After ninety days TestFlight no longer offers a build, whatever the store does."""
    store = Store()
    old = [b for b in released(store.builds(BANK, 0)) if b.expired]
    assert len(old) >= 3
    assert all(b.expires - b.uploaded == timedelta(days=90) for b in old)
    assert store.build_metrics_payload(old[0].id, 0)["productData"]
    assert store.signatures(old[0].id, 0)


def test_builds_come_with_their_app_store_version() -> None:
    """include=appStoreVersion: the version's state, or data null for a build in TestFlight only."""
    with opened() as (sandbox, client):
        document = listed(
            client, **{"filter[app]": TRAILS, "include": "preReleaseVersion,appStoreVersion", "limit": "8"}
        )
        truth = {b.id: b for b in sandbox.store.builds(TRAILS, 0)}
    versions = {v["id"]: v["attributes"] for v in document["included"] if v["type"] == "appStoreVersions"}
    for build in document["data"]:
        data, known = build["relationships"]["appStoreVersion"]["data"], truth[build["id"]]
        assert (data is None) == (known.store_state is None)
        if data is not None:
            assert data["type"] == "appStoreVersions"
            assert versions[data["id"]]["appVersionState"] == known.store_state
            assert versions[data["id"]]["versionString"] == known.version
            assert versions[data["id"]]["platform"] == "IOS"
    assert [v["appStoreState"] for v in versions.values()] == ["READY_FOR_SALE", "REPLACED_WITH_NEW_VERSION"]


def test_builds_of_a_version_share_their_pre_release_version() -> None:
    """One preReleaseVersion each platform and version, not each build."""
    with opened() as (_, client):
        document = listed(client, **{"filter[app]": TRAILS, "include": "preReleaseVersion"})
    ids = Counter(b["relationships"]["preReleaseVersion"]["data"]["id"] for b in document["data"])
    assert max(ids.values()) == 4
    assert len(document["included"]) == len(ids)


def test_the_audience_can_be_filtered_and_is_told() -> None:
    """filter[buildAudienceType] leaves the internal-only builds, or all the others."""
    with opened() as (_, client):
        internal, eligible = (
            listed(client, **{"filter[app]": TRAILS, "filter[buildAudienceType]": audience})["data"]
            for audience in ("INTERNAL_ONLY", "APP_STORE_ELIGIBLE")
        )
        everything = listed(client, **{"filter[app]": TRAILS})["data"]
    assert {b["attributes"]["buildAudienceType"] for b in internal} == {"INTERNAL_ONLY"}
    assert internal
    assert len(internal) + len(eligible) == len(everything)


def test_fields_choose_among_the_new_attributes() -> None:
    """fields[builds] and fields[appStoreVersions] leave what was named."""
    query = {
        "filter[app]": BANK,
        "include": "appStoreVersion",
        "fields[builds]": "expirationDate,appStoreVersion",
        "fields[appStoreVersions]": "appVersionState",
    }
    with opened() as (_, client):
        document = listed(client, **query)
    newest = document["data"][0]
    assert newest["attributes"] == {"expirationDate": "2026-04-02T01:30:00-08:00"}
    assert set(newest["relationships"]) == {"appStoreVersion"}
    assert document["included"][0]["attributes"] == {"appVersionState": "READY_FOR_DISTRIBUTION"}
