from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.appstore.payloads.metrics import Dataset, Metric, Point, XcodeMetrics, parse_metrics
from exporter.appstore.payloads.reader import clean_text
from exporter.errors import BadAnswer


def parsed(text: str) -> XcodeMetrics:
    return parse_metrics(json.loads(text, parse_int=float))


def of_points(*points: Any, **dataset: Any) -> XcodeMetrics:
    """An answer of one metric with one dataset."""
    criteria = {"device": "all_iphones", "percentile": "percentile.fifty", "deviceMarketingName": "All"}
    return of_metric(datasets=[{"filterCriteria": criteria, "points": list(points), **dataset}])


def of_metric(**fields: Any) -> XcodeMetrics:
    metric = {
        "identifier": "launchTime",
        "unit": {"identifier": "milliseconds", "displayName": "ms"},
        **fields,
    }
    return of_product(metricCategories=[{"identifier": "LAUNCH", "metrics": [metric]}])


def of_product(**fields: Any) -> XcodeMetrics:
    document = {"productData": [{"platform": "iOS", **fields}]}
    return parsed(json.dumps(document))


def points(answer: XcodeMetrics) -> tuple[Point, ...]:
    return answer.metrics[0].datasets[0].points


def goal_bounds(goal_keys: Any) -> tuple[float, ...]:
    datasets = [{"filterCriteria": {"device": "all_iphones"}, "points": [{"version": "1", "value": 1}]}]
    return of_metric(goalKeys=goal_keys, datasets=datasets).metrics[0].goal_bounds


def test_a_whole_answer() -> None:
    """Each field of Apple's goes to its place."""
    answer = of_metric(
        goalKeys=[{"goalKey": "good", "upperBound": 500}, {"goalKey": "poor", "lowerBound": 500}],
        datasets=[
            {
                "filterCriteria": {
                    "device": "iPhone14,2",
                    "percentile": "percentile.ninety",
                    "deviceMarketingName": "iPhone 13 Pro",
                },
                "recommendedMetricGoal": {"value": 400, "detail": "…"},
                "points": [
                    {
                        "version": "2.1",
                        "value": 780,
                        "errorMargin": 12.5,
                        "goal": "fair",
                        "percentageBreakdown": [{"value": 61.5, "subSystemLabel": "dyld"}],
                    }
                ],
            }
        ],
    )
    point = Point("2.1", 780.0, 12.5, 2, (("dyld", 61.5),))
    dataset = Dataset("iPhone14,2", "iPhone 13 Pro", "percentile.ninety", 400.0, (point,))
    metric = Metric("iOS", "LAUNCH", "launchTime", "milliseconds", "ms", (500.0,), (dataset,))
    assert answer == XcodeMetrics((metric,), None, 5, answer.left_out)
    assert answer.left_out.total() == 0


@pytest.mark.parametrize(
    "text",
    [
        '{"productData": [], "insights": {"trendingUp": [], "regressions": []}, "version": "1.0.0"}',
        '{"productData": [{"platform": "iOS", "metricCategories": []}]}',
        '{"productData": [{}]}',
    ],
)
def test_an_app_with_too_little_usage_has_no_metrics(text: str) -> None:
    """An answer without data is normal: no metrics, nothing left out."""
    answer = parsed(text)
    assert (answer.metrics, answer.offered, answer.left_out.total()) == ((), 0, 0)


@pytest.mark.parametrize(
    "text", ["null", "[]", "1", '"productData"', "{}", '{"productData": {}}', '{"productData": null}']
)
def test_what_is_not_xcode_metrics_is_refused(text: str) -> None:
    """Without a productData list the answer is bad: what is stored from earlier answers stays."""
    with pytest.raises(BadAnswer, match="no productData list"):
        parsed(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"productData": [null]}',
        '{"productData": [{"platform": "iOS", "metricCategories": {"LAUNCH": 1}}]}',
        '{"productData": [{"metricCategories": [{"identifier": "A", "metrics": [{"identifier": "b", '
        '"datasets": [{"filterCriteria": {"device": "c"}, "points": [{"version": "1", "value": 1}]}]}]}]}]}',
    ],
)
def test_an_answer_that_nobody_can_understand_is_refused(text: str) -> None:
    """Where there is something but nothing of it can be placed, the format has changed."""
    with pytest.raises(BadAnswer, match="nothing in the answer could be understood"):
        parsed(text)


@pytest.mark.parametrize(
    ("spelling", "platform"),
    [
        ("iOS", "iOS"),
        ("IOS", "iOS"),
        (" ios ", "iOS"),
        ("MAC_OS", "macOS"),
        ("macOS", "macOS"),
        ("TV_OS", "tvOS"),
        ("tvOS", "tvOS"),
        ("VISION_OS", "visionOS"),
        ("visionOS", "visionOS"),
        ("watchOS", "watchOS"),
        ("carOS", "carOS"),
    ],
)
def test_platforms_have_one_spelling(spelling: str, platform: str) -> None:
    """A platform of Apple's filters and one of its answers are the same; an unknown one stays as it is."""
    metrics = [
        {
            "identifier": "m",
            "datasets": [{"filterCriteria": {"device": "d"}, "points": [{"version": "1", "value": 1}]}],
        }
    ]
    answer = of_product(platform=spelling, metricCategories=[{"identifier": "C", "metrics": metrics}])
    assert answer.metrics[0].platform == platform


@pytest.mark.parametrize(
    ("raw", "band"),
    [("good", 1), ("fair", 2), ("poor", 3), ("GOOD", 1), ("Fair", 2), (" poor\n", 3), (None, None)],
)
def test_goals_in_any_case(raw: str | None, band: int | None) -> None:
    """good, fair, poor are 1, 2, 3 in any case; no goal is none, and nothing is left out."""
    answer = of_points({"version": "1", "value": 1, "goal": raw})
    assert points(answer)[0].goal_band == band
    assert (answer.offered, answer.left_out.total()) == (2 if raw else 1, 0)


@pytest.mark.parametrize("raw", ["", "excellent", 1, True, [], {}, ["good"]])
def test_an_unknown_goal_costs_the_goal(raw: Any) -> None:
    """Anything else is counted as an unknown goal; the value stays."""
    answer = of_points({"version": "1", "value": 1, "goal": raw})
    assert points(answer) == (Point("1", 1.0, None, None, ()),)
    assert answer.left_out == {"unknown_goal": 1}


@pytest.mark.parametrize("raw", ["1", "NaN", True, False, [], {}, [1]])
def test_what_is_no_number_costs_the_number(raw: Any) -> None:
    """Text, a boolean, a list or an object is no value, no margin and no recommended goal."""
    answer = of_points(
        {"version": "1", "value": raw, "errorMargin": raw, "goal": "good"},
        recommendedMetricGoal={"value": raw},
    )
    assert points(answer) == (Point("1", None, None, 1, ()),)
    assert (answer.offered, answer.left_out) == (4, {"not_a_number": 3})


@pytest.mark.parametrize("raw", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 400])
def test_what_is_not_finite_is_no_number(raw: str) -> None:
    """NaN, the infinities and numbers too large for a double are left out, as not a number."""
    text = json.dumps(
        {
            "productData": [
                {
                    "platform": "iOS",
                    "metricCategories": [
                        {
                            "identifier": "C",
                            "metrics": [
                                {
                                    "identifier": "m",
                                    "datasets": [
                                        {
                                            "filterCriteria": {"device": "d"},
                                            "points": [{"version": "1", "value": 123}],
                                        }
                                    ],
                                }
                            ],
                        }
                    ],
                }
            ]
        }
    )
    answer = parsed(text.replace("123", raw))
    assert points(answer)[0].value is None
    assert answer.left_out == {"not_a_number": 1}


def test_a_missing_or_null_value_is_counted() -> None:
    """A point without a value keeps its other fields and counts as one without value."""
    answer = of_points({"version": "1", "goal": "good"}, {"version": "2", "value": None, "errorMargin": None})
    assert points(answer) == (Point("1", None, None, 1, ()), Point("2", None, None, None, ()))
    assert (answer.offered, answer.left_out) == (3, {"no_value": 2})


@pytest.mark.parametrize(
    "raw", [{"value": 40, "subSystemLabel": "dyld"}, [{"value": 40, "subSystemLabel": " dyld "}]]
)
def test_a_breakdown_is_an_object_or_an_array(raw: Any) -> None:
    """Apple documents an object and sends an array: both are read."""
    answer = of_points({"version": "1", "value": 1, "percentageBreakdown": raw})
    assert points(answer)[0].breakdown == (("dyld", 40.0),)
    assert (answer.offered, answer.left_out.total()) == (2, 0)


def test_a_bad_part_costs_the_part() -> None:
    """Parts of a breakdown are left out one by one, each for its own reason."""
    parts = [
        {"value": 1},
        {"subSystemLabel": "a"},
        {"value": "2", "subSystemLabel": "b"},
        3,
        None,
        {"value": 4, "subSystemLabel": "d"},
    ]
    answer = of_points({"version": "1", "value": 1, "percentageBreakdown": parts})
    assert points(answer)[0].breakdown == (("d", 4.0),)
    assert answer.left_out == {"no_subsystem": 1, "no_value": 1, "not_a_number": 1, "not_an_object": 2}
    assert answer.offered == 7


def test_a_breakdown_of_another_shape_is_malformed() -> None:
    """A breakdown that is neither object nor array has no countable values."""
    answer = of_points({"version": "1", "value": 1, "percentageBreakdown": "dyld"})
    assert (answer.offered, answer.left_out) == (1, {"malformed": 1})


@pytest.mark.parametrize("version", [None, "", " \n", 2.1, ["2.1"]])
def test_a_point_without_version_is_left_out_whole(version: Any) -> None:
    """Nothing can be said of a version that is not named: all values of the point count as left out."""
    nameless = {
        "version": version,
        "value": "x",
        "errorMargin": 1,
        "goal": "?",
        "percentageBreakdown": [{}, 1],
    }
    answer = of_points(nameless, {"version": "1", "value": 1})
    assert points(answer) == (Point("1", 1.0, None, None, ()),)
    assert (answer.offered, answer.left_out) == (6, {"no_version": 5})


def test_what_cannot_be_placed_is_counted_by_what_is_missing() -> None:
    """Without device, platform, category or identifier all values below it are left out for that reason."""
    good = {
        "filterCriteria": {"device": "d"},
        "recommendedMetricGoal": {"value": 1},
        "points": [{"version": "1", "value": 1}],
    }
    bad = {**good, "filterCriteria": {"device": 5}}
    metric = {"identifier": "m", "datasets": [good, bad]}
    answer = parsed(
        json.dumps(
            {
                "productData": [
                    {
                        "platform": "iOS",
                        "metricCategories": [
                            {"identifier": "C", "metrics": [metric, {"datasets": [good, bad]}]},
                            {"metrics": [metric]},
                        ],
                    },
                    {"metricCategories": [{"identifier": "C", "metrics": [metric]}]},
                ]
            }
        )
    )
    assert len(answer.metrics) == 1
    assert answer.left_out == {"no_device": 2, "no_metric": 8, "no_platform": 4}
    assert answer.offered == 16


@pytest.mark.parametrize("raw", ["fast", 400, [], True])
def test_a_recommended_goal_of_another_shape_is_left_out(raw: Any) -> None:
    """A recommended goal that is no object counts as one value left out."""
    answer = of_points({"version": "1", "value": 1}, recommendedMetricGoal=raw)
    assert answer.metrics[0].datasets[0].recommended is None
    assert (answer.offered, answer.left_out) == (2, {"not_an_object": 1})


@pytest.mark.parametrize("raw", [None, {}, {"value": None, "detail": "…"}])
def test_no_recommended_goal_is_nothing(raw: Any) -> None:
    """A dataset without a recommended goal offers none."""
    answer = of_points({"version": "1", "value": 1}, recommendedMetricGoal=raw)
    assert (answer.offered, answer.left_out.total()) == (1, 0)


def test_a_goal_without_points_has_no_version() -> None:
    """A goal bears the version of the dataset's newest point; where there is none, it is left out."""
    empty = {"filterCriteria": {"device": "d"}, "recommendedMetricGoal": {"value": 1}, "points": []}
    full = {"filterCriteria": {"device": "d"}, "points": [{"version": "1", "value": 1}]}
    answer = of_metric(datasets=[empty, full])
    assert len(answer.metrics[0].datasets) == 1
    assert (answer.offered, answer.left_out) == (2, {"no_version": 1})


@pytest.mark.parametrize(
    ("goal_keys", "bounds"),
    [
        (None, ()),
        ([], ()),
        ("good", ()),
        ([{"upperBound": 500}], ()),
        (
            [
                {"lowerBound": 0, "upperBound": 500},
                {"lowerBound": 500, "upperBound": 900},
                {"lowerBound": 900},
            ],
            (500.0, 900.0),
        ),
        ([{"lowerBound": 900}, {"upperBound": 500}, {"lowerBound": 500, "upperBound": 900}], (500.0, 900.0)),
        ([{"upperBound": 500}, {"lowerBound": 501, "upperBound": 900}, {"lowerBound": 901}], (500.0, 900.0)),
        ([{"lowerBound": 0}, {"lowerBound": 2.5}, {"lowerBound": 7}], (2.5, 7.0)),
        ([{"upperBound": 500}, {"goalKey": "fair"}, {"lowerBound": 900}], (500.0,)),
        (
            [
                {"upperBound": -1},
                {"lowerBound": "0", "upperBound": True},
                None,
                {"lowerBound": 700},
                {"lowerBound": 300},
            ],
            (700.0,),
        ),
        ([{"lowerBound": 0, "upperBound": 0}, {"lowerBound": 0, "upperBound": 5}, {"lowerBound": 5}], (5.0,)),
    ],
)
def test_goal_bands_become_bounds(goal_keys: Any, bounds: tuple[float, ...]) -> None:
    """Bounds are the borders between neighbouring bands, in any order, above zero; a bound may be missing."""
    assert goal_bounds(goal_keys) == bounds


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("iPhone 13 Pro", "iPhone 13 Pro"),
        ("  a \n b ", "a   b"),
        ("a\x00b\x1b[0m", "a b [0m"),
        ("\u202eabc", "abc"),
        ("\ud800", "?"),
        ("日本 🚀", "日本 🚀"),
        ("x" * 500, "x" * 200),
        ("x" * 199 + " y", "x" * 199),
        (" \t\u200b", ""),
        ("", ""),
    ],
)
def test_texts_are_made_fit_for_a_tag(raw: str, clean: str) -> None:
    """Text is trimmed, printable, valid UTF-8 and at most 200 characters long."""
    assert clean_text(raw) == clean


@settings(deadline=None)
@given(st.text(st.characters(), max_size=300))
def test_clean_text_is_clean(raw: str) -> None:
    """Whatever the text, the result is valid, and cleaning it again changes nothing."""
    text = clean_text(raw)
    assert len(text) <= 200
    assert text.isprintable()
    assert text.encode("utf-8").decode("utf-8") == text
    assert clean_text(text) == text


def test_one_bad_item_never_costs_its_neighbours() -> None:
    """Beside items of another shape at each level, the good one is read; each of them is counted once."""
    good = {"version": "1", "value": 1}
    dataset = {"filterCriteria": {"device": "d"}, "points": [good]}
    metric = {"identifier": "m", "unit": 5, "goalKeys": [5], "datasets": [5, dataset]}
    category = {"identifier": "C", "metrics": [5, metric]}
    answer = parsed(json.dumps({"productData": [5, {"platform": "iOS", "metricCategories": [5, category]}]}))
    assert points(answer) == (Point("1", 1.0, None, None, ()),)
    assert answer.left_out == {"malformed": 6}
