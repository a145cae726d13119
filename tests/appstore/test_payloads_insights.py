from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.appstore.payloads.insights import Insight, Insights, Population, parse_insights
from exporter.appstore.payloads.metrics import parse_metrics

junk = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.text(st.characters(), max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["regressions", "trendingUp", "populations", "device", "metric", "x"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)
WHOLE: dict[str, Any] = {
    "metricCategory": "LAUNCH",
    "metric": "launchTime",
    "subSystemLabel": "dyld",
    "latestVersion": "2.1",
    "referenceVersions": ["2.0", "1.9"],
    "maxLatestVersionValue": 900.0,
    "summaryString": "Launch time rose.",
    "highImpact": True,
    "populations": [
        {
            "device": "all_iphones",
            "percentile": "percentile.fifty",
            "latestVersionValue": 900.0,
            "referenceAverageValue": 400.0,
            "deltaPercentage": 125.0,
            "summaryString": "On iPhones it rose by 125 %.",
        }
    ],
}


def parsed(raw: Any) -> Insights:
    found = parse_insights(raw)
    assert found is not None
    return found


def one(**changed: Any) -> tuple[Insight, dict[str, int]]:
    """The regression in which some fields are others, and what was left out of it."""
    answer = parsed({"regressions": [WHOLE | changed], "trendingUp": []})
    (insight,) = answer.found
    return insight, dict(answer.left_out)


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in WHOLE.items() if name != key}


def test_a_whole_insight() -> None:
    """Each field of Apple's goes to its place; regressions come before trends."""
    trend = {"metricCategory": "HANG", "metric": "hangRate"}
    answer = parsed({"trendingUp": [trend], "regressions": [WHOLE]})
    population = Population(
        "all_iphones", "percentile.fifty", 900.0, 400.0, 125.0, "On iPhones it rose by 125 %."
    )
    assert answer.found == (
        Insight(
            kind="regression",
            category="LAUNCH",
            metric="launchTime",
            subsystem="dyld",
            latest_version="2.1",
            reference_versions=("2.0", "1.9"),
            max_latest=900.0,
            high_impact=True,
            summary="Launch time rose.",
            populations=(population,),
        ),
        Insight("trend", "HANG", "hangRate", "", "", (), None, False, "", ()),
    )
    assert not answer.left_out


@pytest.mark.parametrize("raw", [None, [], "x", 1.0, {}, {"regressions": None}, {"trendingUp": {}}])
def test_no_such_part_is_no_answer(raw: Any) -> None:
    """Without a list of either kind nothing is told, not even that something was withdrawn."""
    assert parse_insights(raw) is None


@pytest.mark.parametrize("raw", [{"regressions": []}, {"trendingUp": [], "regressions": None}])
def test_an_empty_list_says_that_there_are_none(raw: Any) -> None:
    """One list is enough of an answer, and an empty one an answer."""
    assert parsed(raw) == Insights((), parsed(raw).left_out)
    assert not parsed(raw).left_out


@pytest.mark.parametrize(
    ("raw", "versions"),
    [
        (None, ()),
        ("", ()),
        ("2.0", ("2.0",)),
        ("2.0, 1.9 ,,1.8", ("2.0", "1.9", "1.8")),
        (["2.0", "1.9"], ("2.0", "1.9")),
        (["2.0", None, "", 1.9, " 1.8\n"], ("2.0", "1.8")),
    ],
)
def test_reference_versions_are_a_text_or_an_array(raw: Any, versions: tuple[str, ...]) -> None:
    """Apple documents a text and sends an array: both are read."""
    assert one(referenceVersions=raw)[0].reference_versions == versions


def test_reference_versions_of_another_shape_are_malformed() -> None:
    """What is neither text nor array costs the versions, and is counted."""
    insight, left_out = one(referenceVersions={"2.0": 1.0})
    assert (insight.reference_versions, left_out) == ((), {"malformed": 1})


@pytest.mark.parametrize("raw", [False, None, "true", 1.0, [True]])
def test_high_impact_is_what_is_said_to_be(raw: Any) -> None:
    """Only true is true."""
    assert not one(highImpact=raw)[0].high_impact


@pytest.mark.parametrize("raw", ["900", math.nan, math.inf, -math.inf, True, [], {}])
def test_what_is_no_number_costs_the_number(raw: Any) -> None:
    """Each number that is none is counted; the insight and its population stay."""
    people = {
        "device": "d",
        "latestVersionValue": raw,
        "referenceAverageValue": raw,
        "deltaPercentage": raw,
    }
    insight, left_out = one(maxLatestVersionValue=raw, populations=[people])
    assert insight.max_latest is None
    assert insight.populations == (Population("d", "", None, None, None, ""),)
    assert left_out == {"not_a_number": 4}


@pytest.mark.parametrize("key", ["metric", "metricCategory"])
@pytest.mark.parametrize("raw", [None, "", " \t", 5.0, ["launchTime"]])
def test_an_insight_about_nothing_is_counted(key: str, raw: Any) -> None:
    """Without category or metric nobody could tell what an insight is about."""
    answer = parsed({"regressions": [without(key), WHOLE | {key: raw}, WHOLE]})
    assert len(answer.found) == 1
    assert answer.left_out == {"no_metric": 2}


@pytest.mark.parametrize("raw", [None, "", 5.0, {}])
def test_a_population_without_device_is_counted(raw: Any) -> None:
    """A population that names no device costs the population."""
    insight, left_out = one(populations=[{"device": raw, "deltaPercentage": "x"}, {"device": "d"}])
    assert [population.device for population in insight.populations] == ["d"]
    assert left_out == {"no_device": 1}


@pytest.mark.parametrize("raw", ["x", {}, 5.0, True])
def test_populations_of_another_shape_are_malformed(raw: Any) -> None:
    """The insight stays without them; so do the entries beside a bad one."""
    insight, left_out = one(populations=raw)
    assert (insight.populations, left_out) == ((), {"malformed": 1})
    insight, left_out = one(populations=[[raw], {"device": "d"}])
    assert (len(insight.populations), left_out) == (1, {"malformed": 1})


@pytest.mark.parametrize("raw", [{}, {"regressions": "x"}, {"trendingUp": None}, [], "x"])
def test_insights_that_cannot_be_meant_do_not_cost_the_metrics(raw: Any) -> None:
    """An answer with odd insights has none, counts them once, and keeps its metrics."""
    dataset = {"filterCriteria": {"device": "d"}, "points": [None, {"version": "1", "value": 1.0}]}
    categories = [{"identifier": "C", "metrics": [{"identifier": "m", "datasets": [dataset]}]}]
    product = {"platform": "iOS", "metricCategories": categories}
    payload = parse_metrics({"productData": [product], "insights": raw})
    assert payload.insights is None
    assert len(payload.metrics) == 1
    assert payload.left_out == {"malformed": 1, "not_an_object": 1}
    assert parse_metrics({"productData": []}).left_out == {}


@settings(deadline=None, max_examples=200)
@given(junk)
def test_any_json_is_read(raw: Any) -> None:
    """Any JSON gives insights or none; each entry of the lists is found or counted."""
    answer = parse_insights(raw)
    if answer is None:
        return
    lists = [raw.get("regressions"), raw.get("trendingUp")]
    entries = sum(len(items) for items in lists if isinstance(items, list))
    others = sum(not isinstance(items, list | None) for items in lists)
    assert len(answer.found) <= entries
    assert entries + others <= len(answer.found) + answer.left_out.total()


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from(sorted(WHOLE)), junk), st.lists(junk, max_size=3))
def test_a_mutated_insight_is_found_or_counted(changed: dict[str, Any], beside: list[Any]) -> None:
    """Odd fields cost themselves; all that is left is clean, and no whole neighbour is lost."""
    arrived = json.loads(json.dumps({"regressions": [WHOLE | changed, WHOLE], "trendingUp": beside}))
    answer = parsed(arrived)
    assert one()[0] in answer.found
    assert len(answer.found) + answer.left_out["no_metric"] + answer.left_out["malformed"] >= 2 + len(beside)
    for insight in answer.found:
        texts = (insight.category, insight.metric, insight.summary, *insight.reference_versions)
        assert all(text.isprintable() and len(text) <= 200 for text in texts)
