from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.appstore.payloads.metrics import XcodeMetrics, parse_metrics
from exporter.appstore.payloads.overview import Goal, Overview, TopSignature, parse_overview, with_goals
from exporter.errors import BadAnswer

LISTS = ("topHangPoint", "topLaunchPoint", "topDiskWritePoint")
TOP: dict[str, Any] = {
    "signatureId": "s1",
    "signature": "Shop.pay()",
    "count": 4200.0,
    "weight": 0.85,
    "sourceFile": "Pay.swift",
    "lineNumber": "42",
    "trendInfo": "UP",
    "metricsSummary": {"referenceVersions": [{"version": "2.0", "value": 0.25}]},
}
junk = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.text(st.characters(), max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from([*LISTS, "sections", "identifier", "datasets", "signatureId", "value", "x"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)


def dataset(device: Any = "all_iphones", value: Any = 400.0) -> dict[str, Any]:
    return {
        "filterCriteria": {"device": device, "percentile": "percentile.fifty"},
        "recommendedMetricGoal": {"value": value, "detail": "…"},
        "points": [],
    }


def category(*datasets: Any, name: Any = "LAUNCH", metric: Any = "launchTime") -> dict[str, Any]:
    return {"identifier": name, "sections": [{"identifier": metric, "datasets": list(datasets)}]}


def overview(*categories: Any, signatures: Any = None) -> Overview:
    return parse_overview({"categories": list(categories), "signatures": signatures})


def top(**changed: Any) -> tuple[TopSignature, dict[str, int]]:
    """The signature in which some fields are others, and what was left out of it."""
    answer = overview(signatures={"topHangPoint": [TOP | changed]})
    return answer.signatures[0], dict(answer.left_out)


MILLISECONDS = {"identifier": "milliseconds", "displayName": "ms"}


def metrics(
    *devices: str, goal: Any = None, identifier: str = "launchTime", unit: Any = MILLISECONDS
) -> XcodeMetrics:
    datasets = [
        {
            "filterCriteria": {"device": device, "percentile": "percentile.fifty"},
            "recommendedMetricGoal": goal,
            "points": [{"version": "2.1", "value": 500.0}],
        }
        for device in devices
    ]
    metric = {"identifier": identifier, "unit": unit, "datasets": datasets}
    categories = [{"identifier": "LAUNCH", "metrics": [metric]}]
    return parse_metrics({"productData": [{"platform": "iOS", "metricCategories": categories}]})


def recommended(payload: XcodeMetrics) -> list[float | None]:
    return [dataset.recommended for metric in payload.metrics for dataset in metric.datasets]


def test_a_whole_overview() -> None:
    """Each field of Apple's goes to its place; the list that a signature is in tells its type."""
    document = {
        "version": "1.0.0",
        "appMetadata": {"appId": "1", "bundleId": "b", "platform": "IOS", "latestVersion": "2.1"},
        "categories": [category(dataset())],
        "signatures": {name: [TOP | {"signatureId": name}] for name in LISTS},
    }
    rest = ("Shop.pay()", 4200.0, 0.85, "Pay.swift", 42, 1, (("2.0", 0.25),))
    answer = parse_overview(document)
    assert answer == Overview(
        platform="iOS",
        latest_version="2.1",
        signatures=(
            TopSignature("topHangPoint", "HANGS", *rest),
            TopSignature("topLaunchPoint", "LAUNCHES", *rest),
            TopSignature("topDiskWritePoint", "DISK_WRITES", *rest),
        ),
        goals=(Goal("LAUNCH", "launchTime", "all_iphones", "percentile.fifty", 400.0),),
        left_out=answer.left_out,
    )
    assert not answer.left_out


@pytest.mark.parametrize(
    "document",
    [
        {"categories": []},
        {"signatures": {}},
        {"categories": None, "signatures": {name: [] for name in LISTS}},
        {"categories": [category()], "signatures": None, "appMetadata": None},
    ],
)
def test_an_app_without_data_has_an_empty_overview(document: Any) -> None:
    """Empty lists everywhere are normal: nothing is left out."""
    answer = parse_overview(document)
    assert answer == Overview("", "", (), (), answer.left_out)
    assert not answer.left_out


@pytest.mark.parametrize(
    "raw", [None, [], "x", {}, {"signatures": []}, {"categories": {}, "signatures": 1.0}]
)
def test_what_is_not_an_overview_is_refused(raw: Any) -> None:
    """With neither signatures nor categories the answer is bad: what is stored stays."""
    with pytest.raises(BadAnswer, match="neither signatures nor categories"):
        parse_overview(raw)


@pytest.mark.parametrize(
    "raw",
    [
        {"signatures": {"topHangPoint": "x"}},
        {"signatures": {"topHangPoint": [None]}, "categories": []},
        {"categories": [5.0]},
    ],
)
def test_an_overview_that_nobody_can_understand_is_refused(raw: Any) -> None:
    """Where there is something but nothing of it can be read, the format has changed."""
    with pytest.raises(BadAnswer, match="nothing in the answer could be understood"):
        parse_overview(raw)


@pytest.mark.parametrize("raw", ["x", ["x"], 5.0])
def test_odd_words_about_the_app_cost_themselves(raw: Any) -> None:
    """Platform and version are empty where they are not told; the signatures are read."""
    answer = parse_overview({"appMetadata": raw, "signatures": {"topHangPoint": [TOP]}})
    assert (answer.platform, answer.latest_version, len(answer.signatures)) == ("", "", 1)
    assert answer.left_out == {"malformed": 1}


@pytest.mark.parametrize("raw", [None, "", " ", 5.0, ["s1"]])
def test_a_signature_without_id_is_counted(raw: Any) -> None:
    """Nobody could tell which signature it is; those beside it are read."""
    answer = overview(signatures={"topHangPoint": [TOP | {"signatureId": raw}, TOP]})
    assert [item.id for item in answer.signatures] == ["s1"]
    assert answer.left_out == {"no_signature": 1}


def test_a_signature_counts_once_in_a_list() -> None:
    """The first of several with one id counts; the same id in another list is of another type."""
    answer = overview(signatures={"topHangPoint": [TOP, TOP | {"count": 1.0}], "topLaunchPoint": [TOP]})
    assert [(item.type, item.count) for item in answer.signatures] == [
        ("HANGS", 4200.0),
        ("LAUNCHES", 4200.0),
    ]
    assert answer.left_out == {"duplicate": 1}


@pytest.mark.parametrize("raw", ["4200", math.nan, math.inf, True, []])
def test_what_is_no_number_costs_the_number(raw: Any) -> None:
    """Count and weight are left out one by one; the signature stays."""
    found, left_out = top(count=raw, weight=raw)
    assert (found.count, found.weight, found.file) == (None, None, "Pay.swift")
    assert left_out == {"not_a_number": 2}


@pytest.mark.parametrize(
    "key", ["signature", "count", "weight", "sourceFile", "lineNumber", "trendInfo", "metricsSummary"]
)
def test_each_field_may_be_null(key: str) -> None:
    """A field that is null costs nothing but itself."""
    found, left_out = top(**{key: None})
    assert (found.id, left_out) == ("s1", {})


@pytest.mark.parametrize(
    ("raw", "line"), [("42", 42), (42.0, 42), ("", None), ("0", None), ("x", None), (1e12, None)]
)
def test_line_numbers_are_texts_or_numbers(raw: Any, line: int | None) -> None:
    """Lines are read as those of a call stack are."""
    assert top(lineNumber=raw)[0].line == line


def test_texts_are_bounded_and_clean() -> None:
    """File and signature are printable, at most 500 characters long."""
    found, _ = top(signature="\ud800\x00" + "x" * 999, sourceFile="\u202e" + "y" * 999)
    assert (found.text, found.file) == ("? " + "x" * 498, "y" * 500)


def test_goals_that_cannot_be_placed_are_counted() -> None:
    """A goal is in the result or counted by what is missing; a dataset without a goal is nothing."""
    answer = overview(
        category(dataset(), dataset(device=""), dataset(value=None), dataset(value="x"), {}, 5.0),
        category(dataset(), name=None),
        category(dataset(device=None), metric=5.0),
        {"identifier": "HANG", "sections": [None, {}]},
        {"identifier": "HANG", "sections": "x"},
    )
    assert answer.goals == (Goal("LAUNCH", "launchTime", "all_iphones", "percentile.fifty", 400.0),)
    assert answer.left_out == {"no_device": 1, "no_metric": 2, "not_a_number": 1, "malformed": 3}


@pytest.mark.parametrize("raw", ["fast", 400.0, []])
def test_a_goal_of_another_shape_is_malformed(raw: Any) -> None:
    """A recommended goal that is no object is counted."""
    answer = overview(category(dataset(), dataset() | {"recommendedMetricGoal": raw}))
    assert (len(answer.goals), answer.left_out) == (1, {"malformed": 1})


def test_a_goal_goes_where_there_is_none() -> None:
    """The overview's goal completes a dataset of that category, metric, device and percentile."""
    goals = [Goal("launch", "launchtime", "All_iPhones", "Percentile.Fifty", 400.0)]
    payload = with_goals(metrics("all_iphones", "all_ipads"), goals)
    assert recommended(payload) == [400.0, None]
    assert payload.offered == metrics("all_iphones", "all_ipads").offered + 1


def test_a_goal_of_the_metrics_own_stays() -> None:
    """What came with the metrics counts, and nothing is offered more."""
    own = metrics("all_iphones", goal={"value": 300.0})
    goals = [Goal("LAUNCH", "launchTime", "all_iphones", "percentile.fifty", 400.0)]
    assert with_goals(own, goals) == own


def test_goals_for_others_change_nothing() -> None:
    """No goals, or goals for another device, percentile or metric, leave the metrics as they are."""
    payload = metrics("all_iphones")
    place = ("LAUNCH", "launchTime", "all_iphones", "percentile.fifty")
    others = [
        Goal("X", *place[1:], 400.0),
        Goal(place[0], "X", *place[2:], 400.0),
        Goal(*place[:2], "X", place[3], 400.0),
        Goal(*place[:3], "X", 400.0),
    ]
    assert with_goals(payload, others) == payload
    assert with_goals(payload, []) == payload


@pytest.mark.parametrize(
    ("unit", "fits"),
    [
        ({"identifier": "Milliseconds", "displayName": "x"}, True),
        ({"identifier": None, "displayName": "MS"}, True),
        ("ms", True),
        (None, True),
        ({}, True),
        (5.0, True),
        ({"identifier": "seconds", "displayName": "s"}, False),
        ("s", False),
    ],
)
def test_a_goal_in_another_unit_is_left_out(unit: object, fits: bool) -> None:
    """400 ms are no 400 s: what the section calls its unit is a name of the metric's; no name will do."""
    part = category(dataset())
    part["sections"][0]["unit"] = unit
    goals = overview(part).goals
    payload = with_goals(metrics("all_iphones"), goals)
    assert recommended(payload) == ([400.0] if fits else [None])
    assert payload.left_out == ({} if fits else {"other_unit": 1})
    assert payload.offered == metrics("all_iphones").offered + 1
    unitless = metrics("all_iphones", unit=None)
    assert recommended(with_goals(unitless, goals)) == [400.0]


def test_of_two_goals_for_one_place_the_first_counts() -> None:
    """A duplicate is decided as everywhere: the first counts."""
    place = ("LAUNCH", "launchTime", "all_iphones", "percentile.fifty")
    assert recommended(with_goals(metrics("all_iphones"), [Goal(*place, 1.0), Goal(*place, 2.0)])) == [1.0]


@settings(deadline=None, max_examples=300)
@given(junk | st.fixed_dictionaries({"categories": junk, "signatures": junk, "appMetadata": junk}))
def test_any_json_is_read_or_refused(document: Any) -> None:
    """Any JSON at all gives an overview or BadAnswer."""
    try:
        answer = parse_overview(document)
    except BadAnswer:
        return
    assert all(item.id and item.type for item in answer.signatures)
    assert all(goal.category and goal.metric and goal.device for goal in answer.goals)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.dictionaries(st.sampled_from(sorted(TOP)), junk) | junk, max_size=4),
    st.lists(junk, max_size=3),
)
def test_each_signature_and_goal_is_found_or_counted(odd: list[Any], categories: list[Any]) -> None:
    """Whatever comes beside them, what is right is read, and no entry is lost without a word."""
    mixed = [TOP | item if isinstance(item, dict) else item for item in odd]
    document = {
        "signatures": {"topHangPoint": [*mixed, TOP], "topLaunchPoint": [TOP]},
        "categories": [*categories, category(dataset())],
    }
    answer = parse_overview(json.loads(json.dumps(document)))
    assert answer.goals[-1] == Goal("LAUNCH", "launchTime", "all_iphones", "percentile.fifty", 400.0)
    assert [item.id for item in answer.signatures if item.type == "LAUNCHES"] == ["s1"]
    assert any(item.id == "s1" for item in answer.signatures if item.type == "HANGS")
    assert len(answer.signatures) + answer.left_out.total() >= len(mixed) + 2
    assert all(math.isfinite(goal.value) for goal in answer.goals)
