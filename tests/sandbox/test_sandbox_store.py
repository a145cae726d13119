from __future__ import annotations

import json
from typing import Any

import pytest

from exporter.sandbox.store import FIRST_DAY, Store, selected
from exporter.sandbox.tables import APPS

Json = dict[str, Any]
BANK, NOTES, TRAILS = (app.id for app in APPS)


def metric(payload: Json, category: str, identifier: str, platform: str = "iOS") -> Json:
    product = next(p for p in payload["productData"] if p["platform"] == platform)
    found = next(c for c in product["metricCategories"] if c["identifier"] == category)
    return next(m for m in found["metrics"] if m["identifier"] == identifier)


def points(payload: Json, category: str, identifier: str, device: str, percentile: str) -> list[Json]:
    return next(
        dataset["points"]
        for dataset in metric(payload, category, identifier)["datasets"]
        if dataset["filterCriteria"]["device"] == device
        and dataset["filterCriteria"]["percentile"] == percentile
    )


def every_point(payload: Json) -> list[tuple[Json, Json]]:
    return [
        (m, point)
        for product in payload["productData"]
        for category in product["metricCategories"]
        for m in category["metrics"]
        for dataset in m["datasets"]
        for point in dataset["points"]
    ]


def categories(payload: Json) -> set[str]:
    return {c["identifier"] for product in payload["productData"] for c in product["metricCategories"]}


def test_same_seed_and_day_give_the_same_payload() -> None:
    """The store is a function of seed and day."""
    assert Store(7).metrics_payload(BANK, 3.2) == Store(7).metrics_payload(BANK, 3.2)
    assert Store(7).metrics_payload(BANK, 3.2) != Store(8).metrics_payload(BANK, 3.2)


def test_payload_changes_with_the_day_and_not_within_it() -> None:
    """Numbers change at most once a day."""
    store = Store()
    assert store.metrics_payload(BANK, 2.0) == store.metrics_payload(BANK, 2.99)
    assert store.metrics_payload(BANK, 2.0) != store.metrics_payload(BANK, 3.0)


def test_old_versions_stand_still() -> None:
    """From one day to the next only versions still spreading change."""
    before, after = (
        points(Store().metrics_payload(BANK, day), "LAUNCH", "launchTime", "all_iphones", "percentile.fifty")
        for day in (2, 3)
    )
    assert before[:5] == after[:5]
    assert before[-1] != after[-1]


@pytest.mark.parametrize("app", APPS, ids=lambda app: app.name)
def test_eight_versions_a_dozen_models_and_two_percentiles(app: Any) -> None:
    """Each dataset has the eight newest versions; each app all its models and families."""
    launch = metric(Store().metrics_payload(app.id, 0), "LAUNCH", "launchTime")
    devices = {d["filterCriteria"]["device"] for d in launch["datasets"]}
    assert {"all_iphones", "all_ipads", "iPhone12,1", "iPhone17,1", "iPad14,1"} <= devices
    assert len(devices) >= 14
    assert {d["filterCriteria"]["percentile"] for d in launch["datasets"]} == {
        "percentile.fifty",
        "percentile.ninety",
    }
    assert all(len({p["version"] for p in d["points"]}) == 8 for d in launch["datasets"])


def test_a_version_appears_two_days_after_its_release() -> None:
    """A new build is listed on its day; its numbers follow two days later, and the oldest version goes."""
    store = Store()
    before = points(store.metrics_payload(BANK, 12), "LAUNCH", "launchTime", "iPhone14,2", "percentile.fifty")
    after = points(store.metrics_payload(BANK, 13), "LAUNCH", "launchTime", "iPhone14,2", "percentile.fifty")
    assert store.builds(BANK, 11)[0].version == "7.41.0"
    assert before[-1]["version"] == "7.40.0"
    assert [p["version"] for p in after] == [*(p["version"] for p in before[1:]), "7.41.0"]


def test_older_devices_are_slower() -> None:
    """An iPhone 11 takes longer to launch than an iPhone 16 Pro, and p90 is above p50."""
    payload = Store().metrics_payload(NOTES, 1)
    values = {
        (device, percentile): points(payload, "LAUNCH", "launchTime", device, percentile)[0]["value"]
        for device in ("iPhone12,1", "iPhone17,1")
        for percentile in ("percentile.fifty", "percentile.ninety")
    }
    assert values["iPhone12,1", "percentile.fifty"] > 1.5 * values["iPhone17,1", "percentile.fifty"]
    assert values["iPhone17,1", "percentile.ninety"] > 1.5 * values["iPhone17,1", "percentile.fifty"]


def test_the_newest_version_regresses_beyond_its_margin_and_is_remarked_upon() -> None:
    """Launch time rises by about 60 % in the bank's newest version, and the insight says the same."""
    payload = Store().metrics_payload(BANK, 0)
    *earlier, newest = points(payload, "LAUNCH", "launchTime", "all_iphones", "percentile.ninety")
    average = sum(p["value"] for p in earlier) / len(earlier)
    assert newest["value"] / average == pytest.approx(1.6, abs=0.05)
    assert newest["value"] - newest["errorMargin"] > average
    regression = payload["insights"]["regressions"][0]
    assert (regression["metricCategory"], regression["metric"]) == ("LAUNCH", "launchTime")
    assert regression["latestVersion"] == newest["version"]
    assert regression["referenceVersions"] == [p["version"] for p in earlier]
    assert regression["highImpact"] is False
    population = next(
        p
        for p in regression["populations"]
        if (p["device"], p["percentile"]) == ("all_iphones", "percentile.ninety")
    )
    assert population["latestVersionValue"] == newest["value"]
    assert population["deltaPercentage"] == pytest.approx(100 * (newest["value"] / average - 1), abs=0.1)


def test_an_insight_is_withdrawn_when_the_numbers_settle() -> None:
    """Disk writes are high in the first week after the release; then Apple says nothing of them any more."""
    remarked = [
        [i["metric"] for i in Store().metrics_payload(BANK, day)["insights"]["regressions"]]
        for day in range(13)
    ]
    assert remarked == [["launchTime", "diskWrites"]] * 4 + [["launchTime"]] * 9


@pytest.mark.parametrize("day", [0, 1, 2, 3, 111, 115, 223, 227])
def test_what_more_than_doubles_is_of_high_impact(day: int) -> None:
    """In that week every family writes more than twice as much, which Apple calls a high impact; launch time
    rises less.
    """
    launch, disk = Store().metrics_payload(BANK, day)["insights"]["regressions"]
    assert (launch["metric"], launch["highImpact"]) == ("launchTime", False)
    assert (disk["metric"], disk["highImpact"]) == ("diskWrites", True)
    rises = {(p["device"], p["percentile"]): p["deltaPercentage"] for p in disk["populations"]}
    for device in ("all_iphones", "all_ipads"):
        for percentile in ("percentile.fifty", "percentile.ninety"):
            assert rises[device, percentile] > 130


def test_the_next_version_repairs_it() -> None:
    """A regression ends with the version after it; no other insight of the app appears by chance."""
    for day in (13, 30, 55, 80):
        assert Store().metrics_payload(BANK, day)["insights"] == {"trendingUp": [], "regressions": []}


def test_another_app_improves_and_creeps() -> None:
    """The notes' hang rate falls from version to version while its memory rises, which is remarked upon."""
    payload = Store().metrics_payload(NOTES, 0)
    hangs = [p["value"] for p in points(payload, "HANG", "hangRate", "all_iphones", "percentile.ninety")]
    assert hangs == sorted(hangs, reverse=True)
    assert payload["insights"]["regressions"] == []
    trend = payload["insights"]["trendingUp"][0]
    assert trend["metric"] == "peakMemory"
    assert isinstance(trend["referenceVersions"], str)


def test_a_small_app_lacks_categories_at_first() -> None:
    """Too little usage: categories are missing on day 0, come on day 1, and one goes again later."""
    store = Store()
    rare = {"BATTERY", "ANIMATION", "STORAGE"}
    assert not rare & categories(store.metrics_payload(TRAILS, 0))
    assert rare <= categories(store.metrics_payload(TRAILS, 1))
    assert len(rare & categories(store.metrics_payload(TRAILS, 2))) == 2


def test_a_build_without_usage_has_an_empty_document() -> None:
    """Before its data appears a build answers with empty lists, which is no error."""
    store = Store()
    build = store.builds(BANK, 11)[0]
    empty = {"version": "1.0.0", "insights": {"trendingUp": [], "regressions": []}, "productData": []}
    assert store.build_metrics_payload(build.id, 11) == empty
    later = store.build_metrics_payload(build.id, 13)
    assert {point["version"] for _, point in every_point(later)} == {build.version}


def test_a_build_has_the_numbers_of_its_version() -> None:
    """A build's document agrees with the app's."""
    store = Store()
    build = store.builds(BANK, 5)[0]
    of_app = points(store.metrics_payload(BANK, 5), "HANG", "hangRate", "iPad14,1", "percentile.fifty")
    of_build = points(
        store.build_metrics_payload(build.id, 5), "HANG", "hangRate", "iPad14,1", "percentile.fifty"
    )
    assert of_build == [of_app[-1]]


def test_error_margins_shrink_and_are_sometimes_missing() -> None:
    """A margin shrinks while usage accumulates; now and then it is null or left out."""
    first, last = (
        points(Store().metrics_payload(BANK, day), "DISK", "diskWrites", "all_iphones", "percentile.fifty")[
            -1
        ]
        for day in (0, 10)
    )
    assert first["version"] == last["version"]
    assert first["errorMargin"] > last["errorMargin"]
    margins = [p.get("errorMargin", "absent") for _, p in every_point(Store().metrics_payload(BANK, 0))]
    assert None in margins
    assert "absent" in margins


def test_values_are_sometimes_missing_but_never_of_a_family() -> None:
    """Null and missing values occur, and a family's never do."""
    found = [p.get("value", "absent") for _, p in every_point(Store().metrics_payload(NOTES, 0))]
    assert None in found
    assert "absent" in found
    family = points(Store().metrics_payload(NOTES, 0), "HANG", "hangRate", "all_ipads", "percentile.fifty")
    assert all(p["value"] > 0 for p in family)


@pytest.mark.parametrize("app", APPS, ids=lambda app: app.name)
def test_goals_agree_with_the_bands(app: Any) -> None:
    """A point's goal is the band in which its value lies; `poor` has no upper bound."""
    seen = set()
    for m, point in every_point(Store().metrics_payload(app.id, 1)):
        if "goalKeys" not in m or point.get("value") is None:
            continue
        band = next(
            k["goalKey"] for k in m["goalKeys"] if point["value"] <= k.get("upperBound", float("inf"))
        )
        assert point["goal"].lower() == band
        seen.add(point["goal"])
    assert seen <= ({"GOOD", "FAIR", "POOR"} if app.shouting else {"good", "fair", "poor"})
    assert len(seen) >= 2


def test_both_shapes_of_the_breakdown_occur() -> None:
    """percentageBreakdown is an object in one app and an array in another."""
    shapes = {
        type(point["percentageBreakdown"])
        for app_id in (BANK, NOTES)
        for _, point in every_point(Store().metrics_payload(app_id, 0))
        if "percentageBreakdown" in point
    }
    assert shapes == {dict, list}


def test_one_app_is_on_macs_too() -> None:
    """The notes have a macOS product with all_macs, and builds for both platforms."""
    payload = Store().metrics_payload(NOTES, 0)
    assert [p["platform"] for p in payload["productData"]] == ["iOS", "macOS"]
    macs = metric(payload, "LAUNCH", "launchTime", "macOS")["datasets"]
    assert {d["filterCriteria"]["device"] for d in macs} == {"all_macs"}
    assert {b.platform for b in Store().builds(NOTES, 0)} == {"IOS", "MAC_OS"}


def test_builds_are_processed_valid_and_at_last_expired() -> None:
    """A build is PROCESSING on its first day, then VALID, and expires after ninety days."""
    store = Store()
    newest, *_, oldest = store.builds(BANK, 11)
    assert (newest.processing_state, newest.expired) == ("PROCESSING", False)
    assert store.build(newest.id, 12).processing_state == "VALID"
    assert (oldest.processing_state, oldest.expired) == ("VALID", True)
    assert oldest.uploaded < FIRST_DAY < newest.uploaded


def test_filters_cut_a_payload_down() -> None:
    """Platform, category and device filters leave what was asked for, and no empty shells."""
    payload = Store().metrics_payload(NOTES, 0)
    chosen = selected(payload, platforms=["IOS"], categories=["LAUNCH"], devices=["iPad14,1"])
    (product,) = chosen["productData"]
    assert categories(chosen) == {"LAUNCH"}
    assert len(product["metricCategories"][0]["metrics"][0]["datasets"]) == 2
    assert selected(payload, platforms=[], categories=[], devices=["Watch6,1"])["productData"] == []


@pytest.mark.parametrize("day", [-1.0, float("nan"), float("inf"), 1e7])
def test_impossible_days_are_refused(day: float) -> None:
    """A day is a number from 0 to a million."""
    with pytest.raises(ValueError, match="from 0 to"):
        Store().metrics_payload(BANK, day)


def test_unknown_ids_are_refused() -> None:
    """Unknown apps and builds raise KeyError."""
    with pytest.raises(KeyError):
        Store().metrics_payload("1", 0)
    with pytest.raises(KeyError):
        Store().build_metrics_payload("1", 0)


def test_payloads_are_json_even_after_years() -> None:
    """The sandbox may run for long: late days give the same shape, and numbers stay believable."""
    payload = Store().metrics_payload(NOTES, 4000.5)
    assert "NaN" not in json.dumps(payload)
    memory = points(payload, "MEMORY", "peakMemory", "all_iphones", "percentile.fifty")
    assert all(50 < p["value"] < 2000 for p in memory)
