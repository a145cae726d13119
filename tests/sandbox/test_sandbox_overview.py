from __future__ import annotations

from typing import Any

import pytest

from exporter.sandbox.appstore import Fault
from exporter.sandbox.store import Store
from exporter.sandbox.tables import APPS
from tests.sandbox.test_sandbox_appstore import OVERVIEW, VENDOR, code, opened

Json = dict[str, Any]
BANK, NOTES, TRAILS = (app.id for app in APPS)
TOP = {"topHangPoint": "HANGS", "topLaunchPoint": "LAUNCHES", "topDiskWritePoint": "DISK_WRITES"}


def goals(categories: list[Json], sections: str) -> dict[tuple[str, str, str, str], float]:
    """Recommended goals by category, metric, device and percentile."""
    return {
        (
            c["identifier"],
            s["identifier"],
            d["filterCriteria"]["device"],
            d["filterCriteria"]["percentile"],
        ): d["recommendedMetricGoal"]["value"]
        for c in categories
        for s in c[sections]
        for d in s["datasets"]
        if "recommendedMetricGoal" in d
    }


def test_two_of_the_three_apps_have_an_overview() -> None:
    """The third belongs to an older account, where the endpoint answers 404."""
    with opened() as (_, client):
        answers = {app: client.get(f"/v1/apps/{app}/performanceOverviews") for app in (BANK, NOTES, TRAILS)}
    assert [answer.status_code for answer in answers.values()] == [200, 200, 404]
    assert answers[BANK].headers["content-type"] == OVERVIEW
    assert code(answers[TRAILS]) == "NOT_FOUND"
    assert answers[BANK].json() == Store().overview_payload(BANK, 0)


def test_the_overview_can_be_refused_with_406() -> None:
    """On demand the endpoint is one that the account is not offered."""
    with opened() as (sandbox, client):
        sandbox.fail(f"/v1/apps/{BANK}/performanceOverviews", Fault(status=406))
        assert code(client.get(f"/v1/apps/{BANK}/performanceOverviews")) == "NOT_ACCEPTABLE"


@pytest.mark.parametrize("accept", ["application/json", "*/*", VENDOR])
def test_the_overview_needs_its_vendor_type_by_name(accept: str) -> None:
    """Anything else is 406."""
    with opened() as (_, client):
        answer = client.get(f"/v1/apps/{BANK}/performanceOverviews", headers={"Accept": accept})
        assert code(answer) == "NOT_ACCEPTABLE"


@pytest.mark.parametrize("app_id", [BANK, NOTES])
def test_the_overview_agrees_with_the_metrics(app_id: str) -> None:
    """Its insights are those of xcodeMetrics, its sections the same points, for the families of devices."""
    document, metrics = Store().overview_payload(app_id, 3), Store().metrics_payload(app_id, 3)
    assert document["insights"] == metrics["insights"]
    about = document["appMetadata"]
    assert (about["appId"], about["platform"]) == (app_id, "iOS")
    product = metrics["productData"][0]
    for category, source in zip(document["categories"], product["metricCategories"], strict=True):
        for section, metric in zip(category["sections"], source["metrics"], strict=True):
            assert (section["identifier"], section["unit"]) == (metric["identifier"], metric["unit"])
            families = [d for d in metric["datasets"] if d["filterCriteria"]["device"].startswith("all_")]
            assert [d["points"] for d in section["datasets"]] == [d["points"] for d in families]
            assert {"displayName", "relevanceScore", "sortOrder"} <= section.keys()
    newest = document["categories"][0]["sections"][0]["datasets"][0]["points"][-1]
    assert about["latestVersion"] == newest["version"]


def test_the_overview_gives_a_goal_that_the_metrics_do_not() -> None:
    """All goals of xcodeMetrics are the same there, and memory at suspension has one there only."""
    there = goals(Store().overview_payload(BANK, 0)["categories"], "sections")
    here = goals(Store().metrics_payload(BANK, 0)["productData"][0]["metricCategories"], "metrics")
    more = {key: value for key, value in there.items() if key not in here}
    assert {key: here[key] for key in there if key in here} == {k: v for k, v in there.items() if k in here}
    assert {key[:2] for key in more} == {("MEMORY", "memoryAtSuspension")}
    assert set(more.values()) == {150.0}


@pytest.mark.parametrize("app_id", [BANK, NOTES])
@pytest.mark.parametrize("day", [0, 11, 12, 30])
def test_its_signatures_are_the_heaviest_of_the_newest_build_that_has_any(app_id: str, day: int) -> None:
    """Ids, texts, weights and trends are those of the build's signatures."""
    store = Store()
    builds = [b for b in store.builds(app_id, day) if b.store_state and b.platform == "IOS"]
    listed = next(found for b in builds if (found := store.signatures(b.id, day)))
    document = store.overview_payload(app_id, day)
    for name, kind in TOP.items():
        heaviest = sorted((s for s in listed if s.type == kind), key=lambda s: -s.weight)[:3]
        top = document["signatures"][name]
        assert [(t["signatureId"], t["signature"], t["weight"]) for t in top] == [
            (s.id, s.text, s.weight) for s in heaviest
        ]
        assert [t["trendInfo"] for t in top] == [
            (s.insight or {"direction": "UNDEFINED"})["direction"] for s in heaviest
        ]
        assert all(t["count"] > 0 for t in top)
        assert all("referenceVersions" in t["metricsSummary"] for t in top)


def test_line_numbers_are_texts_or_numbers() -> None:
    """Both are seen; a place without symbols has neither a file nor a line."""
    lines: dict[str, set[type]] = {}
    without = 0
    for app_id in (BANK, NOTES):
        for day in range(0, 60, 5):
            for top in Store().overview_payload(app_id, day)["signatures"].values():
                for signature in top:
                    if signature["sourceFile"]:
                        lines.setdefault(app_id, set()).add(type(signature["lineNumber"]))
                    else:
                        assert signature["lineNumber"] == ""
                        without += 1
    assert lines == {BANK: {int}, NOTES: {str}}
    assert without > 0


def test_the_device_filter_chooses_datasets() -> None:
    """What was asked for in place of all families; an unknown model leaves no sections at all."""
    with opened() as (_, client):
        path = f"/v1/apps/{BANK}/performanceOverviews"
        one = client.get(path, params={"filter[deviceType]": "all_ipads"})
        none = client.get(path, params={"filter[deviceType]": "Watch6_1"}).json()
    sections = [s for c in one.json()["categories"] for s in c["sections"]]
    assert {d["filterCriteria"]["device"] for s in sections for d in s["datasets"]} == {"all_ipads"}
    assert none["categories"] == []
    assert none["signatures"]["topHangPoint"]


def test_unknown_apps_have_no_overview() -> None:
    """An unknown app raises KeyError, as does one whose account is not offered the endpoint."""
    for app_id in ("1", TRAILS):
        with pytest.raises(KeyError):
            Store().overview_payload(app_id, 0)
