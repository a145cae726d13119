"""What holds for every answer, the well-formed, the odd and the hostile, from JSON to points."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import Metric, NumberDataPoint

from exporter.appstore.payloads.metrics import parse_metrics
from exporter.convert.catalogue import COMPANIONS, LEFT_OUT
from exporter.convert.distributions import Distribution
from exporter.convert.metrics import Converted, Selection, Standing, convert
from exporter.errors import BadAnswer

OBSERVED_AT = 1_700_000_000_000_000_000
NAME = re.compile(
    r"appstore\.[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*"
    r"(\.(error_margin|goal|goal_band|breakdown|by_device|delta|regressed|goal_ratio|poor))?"
)
UCUM = re.compile(r"1|(\{[!-z|~]+\}|[A-Za-z%]+)?(/[a-z]+)?")

COMPUTED = {companion.suffix for companion in COMPANIONS if companion.computed}
METRICS = (
    ("LAUNCH", "launchTime", "milliseconds", "ms"),
    ("HANG", "hangRate", "seconds/hour", "s/hr"),
    ("MEMORY", "peakMemory", "megabytes", "MB"),
    ("BATTERY", "onScreen", "percentage", "%"),
    ("TERMINATION", "onScreen", "terminations", "terminations"),
    ("ANIMATION", "scrollHitchRate", "scrollHitchRate", "%"),
    ("Neu", "größe", "Stück", "Stück"),
)
DEVICES = ("all_iphones", "all_ipads", "iPhone14,2", "iPhone9,1", "iPad13,1", "Mac15,3")
VERSIONS = ("2.1", "2.0", "1.10", "1.9", "1.9-beta")
PERCENTILES = ("percentile.fifty", "percentile.ninety", "")

selections = st.builds(
    Selection,
    detail=st.sampled_from(["aggregate", "standard", "full"]),
    categories=st.sampled_from([("*",), (), ("launch", "hang"), ("!MEMORY",), ("*", "!l*")]),
    devices=st.sampled_from([("*",), ("all_*",), ("!iPad*",), ("iPhone*", "!iPhone9,*"), ("none",)]),
)
numbers = st.one_of(
    st.floats(), st.sampled_from([0.0, -0.0, 1e308, -1e308, 1e305, 5e-324, math.inf, math.nan])
)
texts = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "\ud800",
            "x" * 300,
            "Y" * 5000,
            "é" * 300,
            "fortnights",
            "all_",
            "l" * 200,
            "a\x00b",
            "\u200b",
            "GOOD",
            "NaN",
            "percentile.",
            "2.1",
        ]
    ),
    st.text(max_size=8),
)
junk = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["value", "version", "subSystemLabel", "device", "x"]), inner),
    ),
    max_leaves=6,
) | st.sampled_from([400]).map(lambda depth: json.loads("[" * depth + "]" * depth))


def answer(seed: int, *, size: int = 3) -> dict[str, Any]:
    """A well-formed answer without duplicates, made of a seed."""
    rng = random.Random(seed)

    def some(items: tuple[Any, ...]) -> list[Any]:
        return rng.sample(items, rng.randint(1, min(size, len(items))))

    def maybe(key: str, value: Any) -> dict[str, Any]:
        return {key: value} if rng.random() < 0.5 else {}

    def number() -> float:
        return rng.choice([rng.uniform(0, 2000), float(rng.randint(0, 9))])

    def point(version: str) -> dict[str, Any]:
        parts = [{"value": number(), "subSystemLabel": label} for label in some(("dyld", "Main", "UI"))]
        return {
            "version": version,
            **maybe("value", number()),
            **maybe("errorMargin", number()),
            **maybe("goal", rng.choice(["good", "FAIR", "poor"])),
            **maybe("percentageBreakdown", rng.choice([parts, parts[0]])),
        }

    def dataset(device: str, percentile: str) -> dict[str, Any]:
        return {
            "filterCriteria": {"device": device, "percentile": percentile},
            **maybe("recommendedMetricGoal", {"value": number(), "detail": "…"}),
            "points": [point(version) for version in some(VERSIONS)],
        }

    def metric(identifier: str, unit: str, shown: str) -> dict[str, Any]:
        bounds = sorted(number() for _ in range(2))
        return {
            "identifier": identifier,
            "unit": {"identifier": unit, "displayName": shown},
            **maybe("goalKeys", [{"upperBound": bounds[0]}, {"lowerBound": bounds[0]}]),
            "datasets": [dataset(device, rng.choice(PERCENTILES)) for device in some(DEVICES)],
        }

    return {
        "version": "1.0.0",
        "productData": [
            {
                "platform": platform,
                "metricCategories": [
                    {"identifier": category, "metrics": [metric(identifier, unit, shown)]}
                    for category, identifier, unit, shown in some(METRICS)
                ],
            }
            for platform in some(("iOS", "MAC_OS"))
        ],
    }


@st.composite
def mutated_answers(draw: st.DrawFn) -> Any:
    """An answer with arbitrary JSON in random places; as it arrives, so every number is a float."""
    document = answer(draw(st.integers(0, 10_000)), size=2)
    for _ in range(draw(st.integers(0, 6))):
        places = list(_places(document))
        if not places:
            break
        container, key = draw(st.sampled_from(places))
        act = draw(st.sampled_from(["replace", "copy", "everywhere", "delete", "twice", "insert"]))
        if act == "replace":
            container[key] = draw(junk)
        elif act == "delete":
            del container[key]
        elif act in ("copy", "everywhere"):
            _spread(draw(st.sampled_from(places)), places if act == "everywhere" else [(container, key)])
        elif isinstance(container, list):
            container.insert(key, container[key] if act == "twice" else draw(junk))
        document = json.loads(json.dumps(document), parse_int=float)
    return document


@st.composite
def answers_of_one_word(draw: st.DrawFn) -> Any:
    """An answer in which some fields have the same value, however odd, wherever they occur."""
    document = answer(draw(st.integers(0, 10_000)))
    fields = [
        "identifier",
        "displayName",
        "device",
        "platform",
        "percentile",
        "version",
        "value",
        "upperBound",
    ]
    for field in draw(st.lists(st.sampled_from(fields), min_size=1, max_size=4, unique=True)):
        value = draw(numbers if field in ("value", "upperBound") else texts)
        for container, key in list(_places(document)):
            if key == field and draw(st.integers(0, 3)):
                container[key] = value
    return json.loads(json.dumps(document), parse_int=float)


def _spread(source: tuple[Any, Any], places: list[tuple[Any, Any]]) -> None:
    """Puts the value of one place into others: into those of the same key, or into the only one given."""
    container, key = source
    value = json.dumps(container[key])
    for place, name in places:
        if name == key or len(places) == 1:
            place[name] = json.loads(value)


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Each (container, key or index) below `productData`."""
    waiting = [document["productData"]]
    while waiting:
        container = waiting.pop()
        for key, value in list(container.items() if isinstance(container, dict) else enumerate(container)):
            yield container, key
            if isinstance(value, dict | list):
                waiting.append(value)


def _dicts(raw: Any) -> list[dict[str, Any]]:
    return [item for item in raw if isinstance(item, dict)] if isinstance(raw, list) else []


def offered(document: dict[str, Any]) -> int:
    """How many values an answer offers, counted over the raw JSON."""
    total = 0
    for product in _dicts(document["productData"]):
        for category in _dicts(product.get("metricCategories")):
            for metric in _dicts(category.get("metrics")):
                for dataset in _dicts(metric.get("datasets")):
                    goal = dataset.get("recommendedMetricGoal")
                    total += (goal.get("value") if isinstance(goal, dict) else goal) is not None
                    points = dataset.get("points")
                    total += len(points) if isinstance(points, list) else 0
                    for point in _dicts(points):
                        total += (point.get("errorMargin") is not None) + (point.get("goal") is not None)
                        parts = point.get("percentageBreakdown")
                        total += len(parts) if isinstance(parts, list) else isinstance(parts, dict)
    return total


def points_of(converted: Converted) -> list[tuple[Metric, NumberDataPoint]]:
    points = [(metric, point) for metric in converted.gauges for point in metric.data.data_points]
    return [(metric, point) for metric, point in points if isinstance(point, NumberDataPoint)]


def series_of(metric: Metric, point: NumberDataPoint) -> tuple[object, ...]:
    return metric.name, tuple(sorted((point.attributes or {}).items()))


def contents(converted: Converted) -> Counter[tuple[object, ...]]:
    """What leaves, without its order."""
    gauges = [(*series_of(metric, point), metric.unit, point.value) for metric, point in points_of(converted)]
    return Counter(gauges) + Counter((item.identity, item.content) for item in converted.distributions)


def _check_attributes(attributes: Any, build: str) -> None:
    assert {"device", "platform", "version"} <= set(attributes)
    assert attributes.get("build", "") == build
    for text in attributes.values():
        assert 0 < len(text) <= 200
        assert text.encode("utf-8").decode("utf-8").strip() == text


def _check_flags(points: list[tuple[Metric, NumberDataPoint]], build: str) -> None:
    """A flag is 0 or 1, of each dataset one version at most bears a 1, and builds bear none."""
    flags: Counter[tuple[object, ...]] = Counter()
    for metric, point in points:
        if metric.name.endswith((".regressed", ".poor")):
            assert point.value in (0.0, 1.0)
            attributes = {key: v for key, v in (point.attributes or {}).items() if key != "version"}
            flags[metric.name, *sorted(attributes.items())] += int(point.value)
    assert set(flags.values()) <= {0, 1}
    assert not (flags and build)


def _check_distribution(item: Distribution) -> None:
    assert len(item.counts) == len(item.bounds) + 1 <= 30
    assert all(lower < upper for lower, upper in zip(item.bounds, item.bounds[1:], strict=False))
    assert sum(item.counts) > 0
    assert math.isfinite(item.total)
    assert item.minimum <= item.maximum


@settings(deadline=None, max_examples=600)
@given(
    document=mutated_answers() | answers_of_one_word(),
    selection=selections,
    cap=st.integers(0, 40),
    build=st.sampled_from(["", "7"]),
    stood=st.booleans(),
)
def test_no_answer_breaks_a_rule(
    document: Any, selection: Selection, cap: int, build: str, stood: bool
) -> None:
    """Whatever Apple sends, only BadAnswer is raised, each value is accounted for, each point is valid."""
    try:
        payload = parse_metrics(document)
    except BadAnswer:
        return
    assert payload.offered == offered(document)
    everything = convert(payload, selection, observed_at=OBSERVED_AT, series_cap=1_000_000)
    standing = [of_flag for of_flag, _ in _flags(everything)] if stood else ()
    converted = convert(
        payload, selection, observed_at=OBSERVED_AT, series_cap=cap, build=build, standing=standing
    )
    points = points_of(converted)
    left_out = converted.left_out.total() - converted.left_out["malformed"]
    apples = [metric for metric, _ in points if metric.name.rpartition(".")[2] not in COMPUTED]
    assert len(apples) + left_out == converted.offered == payload.offered
    _check_flags(points, build)
    assert set(converted.left_out) <= set(LEFT_OUT)
    assert converted.series.total() <= cap
    assert converted.series == Counter(metric.name for metric, _ in points) + Counter(
        item.name for item in converted.distributions
    )
    for metric, point in points:
        assert NAME.fullmatch(metric.name)
        assert math.isfinite(point.value)
        assert (point.start_time_unix_nano, point.time_unix_nano) == (0, OBSERVED_AT)
        _check_attributes(point.attributes, build)
    for item in converted.distributions:
        assert NAME.fullmatch(item.name)
        _check_attributes(item.attributes, build)
        _check_distribution(item)
    units = [metric.unit for metric in converted.gauges] + [item.unit for item in converted.distributions]
    assert all(UCUM.fullmatch(str(unit)) for unit in units)
    once = Counter(series_of(metric, point) for metric, point in points)
    assert set(once.values()) <= {1}, "a series came out twice"
    assert len({item.identity for item in converted.distributions}) == len(converted.distributions)


@settings(deadline=None, max_examples=300)
@given(
    document=st.recursive(
        junk, lambda inner: st.fixed_dictionaries({"productData": st.lists(inner, max_size=3)})
    )
)
def test_any_json_is_read_or_refused(document: Any) -> None:
    """Any JSON at all gives a result or BadAnswer."""
    try:
        payload = parse_metrics(document)
    except BadAnswer:
        return
    assert payload.offered == offered(document)


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 10_000),
    order=st.randoms(use_true_random=False),
    selection=selections,
    cap=st.integers(0, 80),
)
def test_the_order_of_lists_does_not_matter(
    seed: int, order: random.Random, selection: Selection, cap: int
) -> None:
    """What the cap keeps depends on the content alone: lists in another order give the same points."""
    document = answer(seed)
    expected = contents(_converted(document, selection, cap))
    for place, key in list(_places(document)):
        if isinstance(place[key], list):
            order.shuffle(place[key])
    order.shuffle(document["productData"])
    assert contents(_converted(document, selection, cap)) == expected


@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 10_000), selection=selections, cap=st.integers(0, 80), more=st.integers(1, 40))
def test_a_larger_cap_keeps_all_that_a_smaller_one_keeps(
    seed: int, selection: Selection, cap: int, more: int
) -> None:
    """Raising the cap only ever adds series, and all of its room is used."""
    document = answer(seed)
    everything = _converted(document, selection, 1_000_000)
    small, large = _converted(document, selection, cap), _converted(document, selection, cap + more)
    assert contents(small) <= contents(large) <= contents(everything)
    for converted, of_cap in ((small, cap), (large, cap + more)):
        assert converted.series.total() == min(of_cap, everything.series.total())
        assert converted.capped + converted.series == everything.series


@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 10_000), selection=selections, cap=st.integers(0, 80))
def test_the_same_answer_again_changes_no_flag(seed: int, selection: Selection, cap: int) -> None:
    """What an answer raises it keeps, and raises no more: so one that came before need not be read again."""
    document = answer(seed)
    first = _converted(document, selection, cap)
    standing = [of_flag for of_flag, value in _flags(first) if value]
    assert contents(_converted(document, selection, cap, standing)) == contents(first)


@pytest.mark.parametrize("detail", ["aggregate", "standard", "full"])
def test_a_well_formed_answer_loses_nothing_to_the_reader(detail: Any) -> None:
    """Of answers without a fault, only missing values and what the configuration leaves away is left out."""
    for seed in range(30):
        converted = _converted(answer(seed), Selection(detail=detail), 1_000_000)
        assert set(converted.left_out) <= {"no_value"} | ({"detail"} if detail != "full" else set())


def _converted(
    document: dict[str, Any], selection: Selection, cap: int, standing: Collection[Standing] = ()
) -> Converted:
    arrived = json.loads(json.dumps(document), parse_int=float)
    payload = parse_metrics(arrived)
    return convert(payload, selection, observed_at=OBSERVED_AT, series_cap=cap, standing=standing)


def _flags(converted: Converted) -> list[tuple[Standing, float]]:
    return [
        (Standing.of(metric.name, {key: str(v) for key, v in (point.attributes or {}).items()}), point.value)
        for metric, point in points_of(converted)
        if metric.name.endswith(".regressed")
    ]
