from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, SeverityNumber

from exporter.appstore.payloads.metrics import parse_metrics
from exporter.convert.catalogue import EVENTS, INSIGHT_METRICS, LEFT_OUT
from exporter.convert.insights import ConvertedInsights, Finding, convert_insights

NOW = 1_700_000_000_000_000_000
PLACES = (("iOS", "all_iphones"), ("macOS", "all_macs"))


def population(
    device: str = "all_iphones",
    delta: float | None = 50.0,
    percentile: str = "percentile.ninety",
    **more: Any,
) -> dict[str, Any]:
    return {
        "device": device,
        "percentile": percentile,
        "latestVersionValue": 1500.0,
        "referenceAverageValue": 1000.0,
        "deltaPercentage": delta,
        **more,
    }


def insight(*populations: Any, **fields: Any) -> dict[str, Any]:
    return {
        "metricCategory": "LAUNCH",
        "metric": "launchTime",
        "latestVersion": "2.0",
        "referenceVersions": ["1.8", "1.9"],
        "maxLatestVersionValue": 1500.0,
        "highImpact": False,
        "summaryString": "Launch time rose.",
        "populations": list(populations or [population()]),
        **fields,
    }


def document(
    *regressions: Any,
    trends: Sequence[Any] = (),
    versions: Sequence[str] = ("1.9", "2.0"),
    places: Sequence[tuple[str, str]] = PLACES[:1],
    unit: str = "milliseconds",
) -> dict[str, Any]:
    """An answer with launch times of these versions, on these platforms and devices."""
    products = [
        {
            "platform": platform,
            "metricCategories": [
                {
                    "identifier": "LAUNCH",
                    "metrics": [
                        {
                            "identifier": "launchTime",
                            "unit": {"identifier": unit},
                            "datasets": [
                                {
                                    "filterCriteria": {"device": device},
                                    "points": [{"version": version, "value": 1.0} for version in versions],
                                }
                            ],
                        }
                    ],
                }
            ],
        }
        for platform, device in places
    ]
    insights = {"regressions": list(regressions), "trendingUp": list(trends)}
    return {"productData": products, "insights": insights}


def converted(raw: dict[str, Any], known: Sequence[Finding] = (), cap: int = 1000) -> ConvertedInsights:
    payload = parse_metrics(json.loads(json.dumps(raw), parse_int=float))
    return convert_insights(payload, known, observed_at=NOW, series_cap=cap)


def deltas(result: ConvertedInsights) -> dict[str, float]:
    """`insight platform version device percentile subsystem` → value."""
    words = ("insight", "platform", "version", "device", "percentile", "subsystem")
    return {
        " ".join(attributes[word] for word in words if word in attributes): value
        for attributes, value in points(result, "appstore.insight.delta")
    }


def counts(result: ConvertedInsights) -> dict[str, float]:
    """`platform impact` → how many regressions."""
    found = points(result, "appstore.insight.regressions")
    return {f"{attributes.get('platform', '-')} {attributes['impact']}": value for attributes, value in found}


def points(result: ConvertedInsights, name: str) -> list[tuple[dict[str, str], float]]:
    return [
        (dict(point.attributes or {}), point.value)  # type: ignore[arg-type, union-attr]
        for metric in result.gauges
        if metric.name == name
        for point in metric.data.data_points
    ]


def attributes(event: LogRecord) -> dict[str, Any]:
    return dict(event.attributes or {})


def test_a_regression_is_a_delta_a_count_and_an_event() -> None:
    """What Apple reports becomes gauges of its numbers, unchanged, and an event at the time of the answer."""
    result = converted(document(insight(population(), population("iPhone14,2", 10.5), subSystemLabel="dyld")))
    assert deltas(result) == {
        "regression iOS 2.0 all_iphones p90 dyld": 50.0,
        "regression iOS 2.0 iPhone14,2 p90 dyld": 10.5,
    }
    assert counts(result) == {"iOS high": 0.0, "iOS normal": 1.0}
    assert result.series == {"appstore.insight.delta": 2, "appstore.insight.regressions": 2}
    assert result.left_out.total() == 0
    (event,) = result.events
    assert (event.timestamp, event.observed_timestamp) == (NOW, NOW)
    assert (event.event_name, event.body) == ("appstore.insight", "Launch time rose.")
    assert (event.severity_number, event.severity_text) == (SeverityNumber.WARN, "WARN")
    assert attributes(event) == {
        "appstore.insight.kind": "regression",
        "appstore.insight.high_impact": False,
        "metric": "appstore.launch.time",
        "appstore.insight.metric_category": "LAUNCH",
        "appstore.insight.metric": "launchTime",
        "version": "2.0",
        "platform": "iOS",
        "subsystem": "dyld",
        "appstore.insight.reference_versions": "1.8, 1.9",
        "appstore.insight.max_latest_value": 1.5,
        "appstore.insight.unit": "s",
        "appstore.insight.populations": (
            "all_iphones p90: +50 %, now 1.5 s, before 1 s\niPhone14,2 p90: +10.5 %, now 1.5 s, before 1 s"
        ),
        "device": "all_iphones",
        "percentile": "p90",
    }


def test_a_high_impact_is_an_error_and_a_trend_is_not_counted() -> None:
    """`highImpact` makes the severity ERROR; an upward trend is no regression."""
    result = converted(document(insight(highImpact=True), trends=[insight(highImpact=True)]))
    assert [event.severity_text for event in result.events] == ["ERROR", "ERROR"]
    assert counts(result) == {"iOS high": 1.0, "iOS normal": 0.0}
    assert set(deltas(result)) == {"regression iOS 2.0 all_iphones p90", "trend iOS 2.0 all_iphones p90"}


def test_an_event_is_sent_once() -> None:
    """What is remembered, by way of JSON too, is not told again, even after Apple withdrew it for a while."""
    first = converted(document(insight()))
    known = [Finding.from_json(raw) for raw in json.loads(json.dumps(first.findings))]
    assert tuple(known) == first.findings
    second = converted(document(insight()), known)
    assert (second.events, second.findings, second.gauges) == ([], first.findings, first.gauges)
    withdrawn = converted(document(), second.findings)
    back = converted(document(insight()), withdrawn.findings)
    assert (withdrawn.events, back.events, back.findings) == ([], [], first.findings)


def test_what_apple_withdraws_goes_to_zero() -> None:
    """Deltas and counts of a withdrawn insight bear 0, as long as its version is in the answer."""
    first = converted(document(insight()))
    second = converted(document(), first.findings)
    assert deltas(second) == {"regression iOS 2.0 all_iphones p90": 0.0}
    assert counts(second) == {"iOS high": 0.0, "iOS normal": 0.0}
    assert [finding.active for finding in second.findings] == [False]
    third = converted(document(versions=["2.0", "3.0"]), second.findings)
    assert (deltas(third), third.findings) == (deltas(second), second.findings)
    gone = converted(document(versions=["3.0"]), third.findings)
    assert (deltas(gone), gone.findings) == ({}, ())


def test_the_version_has_to_be_there_on_the_same_platform() -> None:
    """A version that is left on another platform alone keeps a withdrawn finding for one answer only."""
    first = converted(document(insight(), places=PLACES))
    second = converted(document(places=PLACES[1:]), first.findings)
    assert set(deltas(second).values()) == {0.0}
    assert converted(document(places=PLACES[1:]), second.findings).findings == ()


def test_all_ends_at_zero_with_the_last_data_of_a_platform() -> None:
    """The answer with which a platform goes away still says that nothing is reported on it."""
    first = converted(document(insight()))
    last = converted(document(places=[]), first.findings)
    assert counts(last) == {"iOS high": 0.0, "iOS normal": 0.0}
    assert deltas(last) == dict.fromkeys(deltas(first), 0.0)
    gone = converted(document(places=[]), last.findings)
    assert (deltas(gone), gone.findings) == ({}, ())
    assert converted(document(places=[]), gone.findings).gauges == []


def test_each_platform_is_a_finding_of_its_own() -> None:
    """Which of two platforms is worse changes from answer to answer: no event comes twice for it."""
    found = (population("all_iphones", 100.0), population("all_macs", 90.0))
    first = converted(document(insight(*found)))
    assert [attributes(event)["platform"] for event in first.events] == ["iOS", "macOS"]
    reported = {key: value for key, value in counts(first).items() if value}
    assert reported == {"iOS normal": 1.0, "macOS normal": 1.0}
    worse = (population("all_iphones", 100.0), population("all_macs", 110.0))
    second = converted(document(insight(*worse)), first.findings)
    assert second.events == []
    assert counts(second) == counts(first)


def test_a_population_that_is_withdrawn_goes_to_zero() -> None:
    """An insight that no longer names a device bears 0 for it."""
    first = converted(document(insight(population(), population("all_ipads"))))
    second = converted(document(insight(population())), first.findings)
    assert deltas(second) == {
        "regression iOS 2.0 all_iphones p90": 50.0,
        "regression iOS 2.0 all_ipads p90": 0.0,
    }


def test_an_impact_that_changed_is_news() -> None:
    """It is another finding with an event and a series of its own; the one before ends with 0."""
    first = converted(document(insight()))
    second = converted(document(insight(highImpact=True)), first.findings)
    of_impact = {each["impact"]: value for each, value in points(second, "appstore.insight.delta")}
    assert of_impact == {"high": 50.0, "normal": 0.0}
    assert counts(second) == {"iOS high": 1.0, "iOS normal": 0.0}
    assert [event.severity_text for event in second.events] == ["ERROR"]
    assert sorted(finding.active for finding in second.findings) == [False, True]


@pytest.mark.parametrize("part", [None, "none", {}])
def test_an_answer_without_insights_withdraws_nothing(part: Any) -> None:
    """Without the part, what is known keeps its last values, zeros included."""
    first = converted(document(insight(), insight(subSystemLabel="dyld")))
    second = converted(document(insight()), first.findings)
    third = converted(document() | {"insights": part}, second.findings)
    assert (third.gauges, third.findings, third.events) == (second.gauges, second.findings, [])
    assert counts(converted(document() | {"insights": part})) == {"iOS high": 0.0, "iOS normal": 0.0}


@pytest.mark.parametrize(
    ("device", "platform"),
    [
        ("all_ipads", "iOS"),
        ("iPhone14,2", "iOS"),
        ("iPad13,1", "iOS"),
        ("all_macs", "macOS"),
        ("Mac15,3", "macOS"),
        ("AppleTV11,1", "tvOS"),
        ("RealityDevice14,1", "visionOS"),
        ("Robot1,1", None),
    ],
)
def test_the_family_tells_the_platform(device: str, platform: str | None) -> None:
    """Apple names none: where the answer has no such data, the device's family decides, or nothing."""
    result = converted(document(insight(population(device))))
    (told,) = [given for given, _ in points(result, "appstore.insight.delta")]
    assert told.get("platform") == platform
    assert attributes(result.events[0]).get("platform") == platform
    assert counts(result)[f"{platform or '-'} normal"] == 1.0
    others = (*PLACES, ("tvOS", "all_appletvs"), ("visionOS", "all_realitydevices"))
    withdrawn = converted(document(places=others), result.findings)
    assert list(deltas(withdrawn).values()) == [0.0]
    assert counts(withdrawn)[f"{platform or '-'} normal"] == 0.0


def test_the_answer_knows_the_platform_better_than_the_family() -> None:
    """An iPad app on another platform is on the platform of whose data it is part."""
    result = converted(document(insight(population("all_ipads")), places=[("visionOS", "all_ipads")]))
    assert list(deltas(result)) == ["regression visionOS 2.0 all_ipads p90"]


def test_two_platforms_have_insights_of_their_own() -> None:
    """The same metric and version on iPhones and on Macs are two findings and two events."""
    result = converted(document(insight(), insight(population("all_macs", 20.0)), places=PLACES))
    assert [attributes(event)["platform"] for event in result.events] == ["iOS", "macOS"]
    assert counts(result) == {"iOS high": 0.0, "iOS normal": 1.0, "macOS high": 0.0, "macOS normal": 1.0}


def test_an_insight_that_comes_twice_is_one() -> None:
    """One event and one count; what the second adds is kept, what it repeats is counted as left out."""
    result = converted(document(insight(), insight(population(delta=70.0), population("all_ipads", 30.0))))
    assert deltas(result) == {
        "regression iOS 2.0 all_iphones p90": 50.0,
        "regression iOS 2.0 all_ipads p90": 30.0,
    }
    assert (len(result.events), counts(result)["iOS normal"]) == (1, 1.0)
    assert result.left_out == {"duplicate": 1}


def test_two_insights_do_not_share_a_series() -> None:
    """Of two of Apple's metrics that come to one name the first gives the series its value."""
    result = converted(document(insight(), insight(population(delta=150.0), metric="launch_time")))
    assert deltas(result) == {"regression iOS 2.0 all_iphones p90": 50.0}
    assert (len(result.events), result.left_out) == (2, {"duplicate": 1})


def test_a_population_without_a_delta_is_in_the_event_alone() -> None:
    """It has no series; its line says what there is: numbers, else Apple's sentence, else the device."""
    result = converted(
        document(
            insight(
                population("all_ipads", None),
                population(
                    "a", None, "", latestVersionValue=None, referenceAverageValue=None, summaryString="Slow."
                ),
                population("b", None, "", latestVersionValue=None, referenceAverageValue=None),
            )
        )
    )
    assert deltas(result) == {}
    (event,) = result.events
    assert attributes(event)["appstore.insight.populations"].splitlines() == [
        "a: Slow.",
        "all_ipads p90: now 1.5 s, before 1 s",
        "b",
    ]


def test_the_populations_of_an_event_are_bounded() -> None:
    """The twenty with the largest change, and how many more there are."""
    result = converted(
        document(insight(*(population(f"iPhone{number},1", float(number)) for number in range(25))))
    )
    lines = attributes(result.events[0])["appstore.insight.populations"].splitlines()
    assert lines[0].startswith("iPhone24,1 p90: +24 %")
    assert (len(lines), lines[-1]) == (21, "… 5 more")
    assert attributes(result.events[0])["device"] == "iPhone24,1"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "LAUNCH launchTime got worse in version 2.0: +50 % on all_iphones."),
        ({"populations": []}, "LAUNCH launchTime got worse in version 2.0."),
        ({"populations": [population(delta=None)]}, "LAUNCH launchTime got worse in version 2.0."),
        ({"latestVersion": None}, "LAUNCH launchTime got worse: +50 % on all_iphones."),
    ],
)
def test_an_insight_without_words_gets_a_sentence(fields: dict[str, Any], sentence: str) -> None:
    """The body is never empty, and no attribute is."""
    (event,) = converted(document(insight(summaryString="", **fields))).events
    assert event.body == sentence
    assert all(value != "" for value in attributes(event).values())
    (event,) = converted(document(trends=[insight(summaryString="", **fields)])).events
    assert event.body == sentence.replace("got worse", "keeps rising")


def test_many_reference_versions_are_cut_between_two() -> None:
    """No half of a version is told as a version."""
    many = [f"1.{number}" for number in range(100)]
    told = attributes(converted(document(insight(referenceVersions=many))).events[0])
    *whole, rest = told["appstore.insight.reference_versions"].split(", ")
    assert (rest, whole) == ("…", many[: len(whole)])
    assert 190 < len(told["appstore.insight.reference_versions"]) <= 200
    long = attributes(converted(document(insight(referenceVersions=["9" * 200, "1.0"]))).events[0])
    assert long["appstore.insight.reference_versions"] == "…"


@pytest.mark.parametrize(
    ("unit", "value", "told"),
    [
        ("milliseconds", 1500.0, (1.5, "s")),
        ("fortnights", 1500.0, (1500.0, "{fortnights}")),
        ("", 1500.0, (1500.0, None)),
        ("terabytes", 1e308, (None, "By")),
        ("milliseconds", None, (None, "s")),
    ],
)
def test_values_bear_the_unit_of_their_metric(unit: str, value: float | None, told: Any) -> None:
    """The highest value is converted as the metric is; one that is no number then is left away."""
    raw = document(insight(maxLatestVersionValue=value), unit=unit)
    given = attributes(converted(raw).events[0])
    assert (given.get("appstore.insight.max_latest_value"), given.get("appstore.insight.unit")) == told


def test_values_of_a_metric_that_is_not_in_the_answer_are_unchanged() -> None:
    """Nobody knows their unit then, and none is told."""
    given = attributes(converted(document(insight(metric="coldness"))).events[0])
    assert given["appstore.insight.max_latest_value"] == 1500.0
    assert "appstore.insight.unit" not in given
    assert given["metric"] == "appstore.launch.coldness"


def test_the_cap_keeps_the_largest_changes_and_the_counts() -> None:
    """Counts always leave; of the deltas the largest, whatever their sign; the others are not remembered."""
    raw = document(insight(population(), population("all_ipads", -80.0), population("iPhone14,2", 20.0)))
    assert [len(deltas(converted(raw, cap=cap))) for cap in range(7)] == [0, 0, 0, 1, 2, 3, 3]
    result = converted(raw, cap=4)
    assert list(deltas(result).values()) == [-80.0, 50.0]
    assert len(counts(result)) == 2
    assert result.left_out == {"series_cap": 1}
    assert [value for finding in result.findings for _, value in finding.series] == [50.0, -80.0]
    later = converted(document(), result.findings)
    assert list(deltas(later).values()) == [0.0, 0.0]


def test_the_zeros_of_what_is_withdrawn_go_ahead_of_new_changes() -> None:
    """An alert has to end: under a cap that new insights alone would fill they leave, once."""
    devices = [f"iPhone{number},1" for number in range(4)]
    old = insight(*(population(device, 20.0) for device in devices))
    new = insight(*(population(device, 90.0) for device in devices), metric="coldLaunchTime")
    cap = 2 + len(devices)
    first = converted(document(old), cap=cap)
    assert set(deltas(first).values()) == {20.0}
    second = converted(document(new), first.findings, cap)
    withdrawn = points(second, "appstore.insight.delta")
    assert [(told["metric"], value) for told, value in withdrawn] == [("appstore.launch.time", 0.0)] * 4
    third = converted(document(new), second.findings, cap)
    now = points(third, "appstore.insight.delta")
    assert [(told["metric"], value) for told, value in now] == [
        ("appstore.launch.cold_launch_time", 90.0)
    ] * 4
    assert (len(second.events), third.events) == (1, [])


def test_what_the_reader_left_out_is_counted() -> None:
    """What no insight could be made of is in `left_out`, with what was left out here."""
    result = converted(document(insight(), insight(metric=None), "not an insight"))
    assert result.left_out == {"no_metric": 1, "malformed": 1}


texts = st.sampled_from(
    ["", "2.0", "LAUNCH", "launchTime", "x" * 300, "\ud800", "all_", "a\x00b", "é" * 250, ", "]
)
values = st.none() | st.floats() | texts
insights = st.fixed_dictionaries(
    {"metricCategory": texts, "metric": texts},
    optional={
        "latestVersion": texts,
        "referenceVersions": texts | st.lists(texts, max_size=9),
        "subSystemLabel": texts,
        "summaryString": texts,
        "maxLatestVersionValue": values,
        "highImpact": st.booleans(),
        "populations": st.lists(
            st.fixed_dictionaries(
                {"device": texts},
                optional={
                    "percentile": values,
                    "deltaPercentage": values,
                    "latestVersionValue": values,
                    "referenceAverageValue": values,
                    "summaryString": values,
                },
            ),
            max_size=4,
        ),
    },
)
answers = st.builds(
    lambda regressions, trends, unit: document(*regressions, trends=trends, unit=unit),
    st.lists(insights, max_size=4),
    st.lists(insights, max_size=2),
    texts,
)


@settings(deadline=None, max_examples=300)
@given(st.lists(answers, min_size=1, max_size=4), st.integers(0, 8))
def test_no_insight_breaks_a_rule(days: list[dict[str, Any]], cap: int) -> None:
    """Whatever Apple sends, day after day: valid points below the cap, valid events, each once."""
    known: tuple[Finding, ...] = ()
    events: dict[str, set[str]] = {event.name: set(event.attributes) for event in EVENTS}
    named = {metric.name: metric for metric in INSIGHT_METRICS}
    for raw in days:
        result = converted(raw, known, cap)
        again = converted(
            raw, [Finding.from_json(json.loads(json.dumps(item))) for item in result.findings], cap
        )
        assert again.events == []
        for metric in result.gauges:
            assert (metric.unit, metric.description) == (
                named[metric.name].unit,
                named[metric.name].description,
            )
            for tags, value in points(result, metric.name):
                assert set(tags) <= set(named[metric.name].attributes)
                assert value - value == 0.0
                assert all(0 < len(text) <= 200 and text.isprintable() for text in tags.values())
        assert result.series.total() == sum(len(metric.data.data_points) for metric in result.gauges)
        assert len(deltas(result)) <= max(0, cap - len(counts(result)))
        assert set(result.left_out) <= set(LEFT_OUT)
        for event in result.events:
            told = attributes(event)
            assert set(told) <= events["appstore.insight"]
            assert event.body
            assert all(v != "" and (not isinstance(v, float) or v - v == 0.0) for v in told.values())
            assert all(
                len(v) <= 200 for k, v in told.items() if isinstance(v, str) and "populations" not in k
            )
        known = result.findings
