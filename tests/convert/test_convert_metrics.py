from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from itertools import pairwise
from typing import Any, Literal

import pytest

from exporter.appstore.payloads.metrics import parse_metrics
from exporter.appstore.versions import version_key
from exporter.convert.catalogue import COMPANIONS
from exporter.convert.metrics import Converted, Selection, Standing, convert

NOW = 1_700_000_000_000_000_000
FULL: dict[str, Any] = {
    "errorMargin": 5.0,
    "goal": "fair",
    "percentageBreakdown": [
        {"value": 60.0, "subSystemLabel": "dyld"},
        {"value": 40.0, "subSystemLabel": "Main"},
    ],
}


def point(version: str, value: float | None = 100.0, **fields: Any) -> dict[str, Any]:
    return {"version": version, "value": value, **fields}


def dataset(device: str, *points: Any, goal: float | None = None, percentile: str = "") -> dict[str, Any]:
    return {
        "filterCriteria": {"device": device, "percentile": percentile},
        "recommendedMetricGoal": {"value": goal},
        "points": list(points),
    }


def metric(
    *datasets: Any,
    platform: str = "iOS",
    category: str = "LAUNCH",
    identifier: str = "launchTime",
    unit: str = "ms",
) -> dict[str, Any]:
    """A product with this metric alone."""
    inner = {"identifier": identifier, "unit": {"identifier": unit}, "datasets": list(datasets)}
    return {"platform": platform, "metricCategories": [{"identifier": category, "metrics": [inner]}]}


def converted(
    *products: Any,
    detail: Literal["aggregate", "standard", "full"] = "full",
    categories: tuple[str, ...] = ("*",),
    devices: tuple[str, ...] = ("*",),
    cap: int = 10_000,
) -> Converted:
    payload = parse_metrics({"productData": list(products)})
    return convert(payload, Selection(detail, categories, devices), observed_at=NOW, series_cap=cap)


COMPUTED = {companion.suffix for companion in COMPANIONS if companion.computed}


def series(result: Converted) -> list[str]:
    """`name device version` of each gauge point that is a number of Apple's, sorted; see `lines_of`."""
    return [line for line in lines_of(result) if line.split()[0].rpartition(".")[2] not in COMPUTED]


def computed(result: Converted) -> dict[str, float]:
    """The values of the other gauge points, by line."""
    values = {}
    for item in result.gauges:
        for given in item.data.data_points:
            suffix = str(item.name).rpartition(".")[2]
            attributes = given.attributes or {}
            if suffix in COMPUTED:
                values[f"{suffix} {attributes['device']!s} {attributes['version']!s}"] = given.value  # type: ignore[union-attr]
    return values


def lines_of(result: Converted) -> list[str]:
    """`name device version` of each gauge point, sorted; the name without `appstore.launch`."""
    lines = []
    for item in result.gauges:
        for given in item.data.data_points:
            attributes = given.attributes or {}
            name = str(item.name).removeprefix("appstore.").removeprefix("launch.")
            lines.append(f"{name} {attributes['device']!s} {attributes['version']!s}")
    return sorted(lines)


def spreads(result: Converted) -> dict[tuple[str, str, str], tuple[int, float]]:
    """Count and sum of each distribution, by its device, platform and version."""
    return {
        (item.attributes["device"], item.attributes["platform"], item.attributes["version"]): (
            sum(item.counts),
            item.total,
        )
        for item in result.distributions
    }


def three_versions() -> dict[str, Any]:
    points = [point(version, **FULL) for version in ("1.9", "1.10", "1.8")]
    return metric(
        dataset("all_iphones", *points, goal=80.0),
        dataset("iPhone14,2", *points, goal=70.0),
        dataset("iPhone9,1", point("1.9", 300.0)),
    )


FAMILY = sorted(
    [
        f"time{suffix} all_iphones {v}"
        for v in ("1.8", "1.9", "1.10")
        for suffix in ("", ".error_margin", ".goal_band")
    ]
    + [f"time.breakdown all_iphones {v}" for v in ("1.8", "1.9", "1.10") for _ in range(2)]
    + ["time.goal all_iphones 1.10"]
)
NEWEST_MODELS = ["time iPhone14,2 1.10", "time iPhone14,2 1.9", "time iPhone9,1 1.9"]


def test_aggregate_is_families_only() -> None:
    """`aggregate` sends device families with their companions, and no model."""
    result = converted(three_versions(), detail="aggregate")
    assert series(result) == FAMILY
    assert result.left_out == {"detail": 3 * 5 + 1 + 1}


def test_standard_is_families_and_the_models_of_the_newest_two_versions() -> None:
    """`standard` adds the values of models at the newest two versions; companions on families only."""
    result = converted(three_versions(), detail="standard")
    assert series(result) == sorted(FAMILY + NEWEST_MODELS)
    assert result.left_out == {"detail": 3 * 5 + 1 + 1 - 3}


def test_full_is_everything() -> None:
    """`full` leaves nothing out."""
    result = converted(three_versions(), detail="full")
    of_model = [line.replace("all_iphones", "iPhone14,2") for line in FAMILY]
    assert series(result) == sorted([*FAMILY, *of_model, "time iPhone9,1 1.9"])
    assert result.left_out.total() == 0


@pytest.mark.parametrize("detail", ["aggregate", "standard", "full"])
def test_the_spread_over_models_is_sent_at_each_level(detail: Any) -> None:
    """`by_device` observes all models of all versions, whatever the level of detail."""
    result = converted(three_versions(), detail=detail)
    assert spreads(result) == {
        ("all_iphones", "iOS", "1.8"): (1, 0.1),
        ("all_iphones", "iOS", "1.9"): (2, 0.4),
        ("all_iphones", "iOS", "1.10"): (1, 0.1),
    }


def test_the_newest_versions_are_those_of_the_platform() -> None:
    """Each platform has newest versions of its own, over all of its metrics."""
    result = converted(
        metric(dataset("iPhone14,2", point("1.0"), point("1.1")), platform="iOS"),
        metric(dataset("all_iphones", point("9.0"), point("9.1")), platform="iOS", identifier="other"),
        metric(dataset("Mac15,3", point("1.0"), point("1.1")), platform="macOS"),
        detail="standard",
    )
    assert [line for line in series(result) if "all_" not in line] == ["time Mac15,3 1.0", "time Mac15,3 1.1"]


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.9", "1.10"),
        ("2.0-beta", "2.0"),
        ("2.0", "2.0.1"),
        ("1", "1.0"),
        ("beta", "0.1"),
        ("9", "10"),
        ("1.0 (9)", "1.0 (10)"),
    ],
)
def test_versions_are_ordered_by_their_numbers(older: str, newer: str) -> None:
    """1.10 comes after 1.9, and a pre-release before its release."""
    assert version_key(older) < version_key(newer)


@pytest.mark.parametrize("version", ["9" * 200, "1." * 100, "٣.١", "…", "-", "1²"])
def test_odd_versions_have_a_place_in_the_order(version: str) -> None:
    """Any text can be compared with any version, and never equals another text."""
    assert version_key(version) != version_key("1.0")
    assert sorted(["1.0", version], key=version_key) == sorted([version, "1.0"], key=version_key)


def test_the_goal_is_given_at_the_newest_version_of_the_dataset() -> None:
    """The recommended goal is one point, at the dataset's own newest version."""
    result = converted(
        metric(
            dataset("all_iphones", point("1.9"), point("1.10"), point("1.2"), goal=80.0),
            dataset("all_ipads", point("1.2"), goal=90.0),
        )
    )
    goals = [line for line in series(result) if line.startswith("time.goal")]
    assert goals == ["time.goal all_ipads 1.2", "time.goal all_iphones 1.10"]


ALL_DEVICES = metric(
    *(
        dataset(device, point("1.0"))
        for device in ("all_iphones", "all_ipads", "iPhone14,2", "iPhone9,1", "iPad13,1")
    )
)


@pytest.mark.parametrize(
    ("devices", "wanted"),
    [
        ((), ["all_ipads", "all_iphones", "iPad13,1", "iPhone14,2", "iPhone9,1"]),
        (("*",), ["all_ipads", "all_iphones", "iPad13,1", "iPhone14,2", "iPhone9,1"]),
        (("all_*",), ["all_ipads", "all_iphones"]),
        (("iPhone14,2", "all_ipads"), ["all_ipads", "iPhone14,2"]),
        (("!iPhone*",), ["all_ipads", "all_iphones", "iPad13,1"]),
        (("iPhone*", "!iPhone9,*"), ["iPhone14,2"]),
        (("!iPhone9,*", "iPhone*"), ["iPhone14,2"]),
        (("iphone*",), []),
        (("*", "!*"), []),
    ],
)
def test_devices_are_chosen_by_globs(devices: tuple[str, ...], wanted: list[str]) -> None:
    """A device is wanted by one glob at least and by none that begins with `!`; case matters."""
    result = converted(ALL_DEVICES, devices=devices)
    assert series(result) == [f"time {device} 1.0" for device in wanted]
    assert result.left_out["filtered"] == 5 - len(wanted)


def test_a_device_that_is_not_wanted_is_not_observed() -> None:
    """A filtered device is in no distribution either."""
    assert spreads(converted(ALL_DEVICES, devices=("*", "!iPhone9,1"))) == {
        ("all_ipads", "iOS", "1.0"): (1, 0.1),
        ("all_iphones", "iOS", "1.0"): (1, 0.1),
    }


@pytest.mark.parametrize(
    ("categories", "wanted"),
    [
        (("*",), ["hang.rate", "launch.time"]),
        (("launch",), ["launch.time"]),
        (("Launch", "hang"), ["hang.rate", "launch.time"]),
        (("!LAUNCH",), ["hang.rate"]),
        (("!l*", "*"), ["hang.rate"]),
        (("STORAGE",), []),
    ],
)
def test_categories_are_chosen_without_regard_to_case(categories: tuple[str, ...], wanted: list[str]) -> None:
    """Category globs follow the same rule as devices, but for case."""
    result = converted(
        metric(dataset("all_iphones", point("1.0", **FULL), goal=1.0)),
        metric(
            dataset("all_iphones", point("1.0", **FULL), goal=1.0), category="HANG", identifier="hangRate"
        ),
        categories=categories,
    )
    assert [str(item.name) for item in result.gauges if str(item.name).count(".") == 2] == [
        f"appstore.{name}" for name in wanted
    ]
    assert result.left_out["filtered"] == 6 * (2 - len(wanted))


def test_the_cap_keeps_what_matters_most() -> None:
    """Kept longest: values of families, flags, deltas, goals, spreads, margins, models, parts, the rest."""
    product = metric(
        dataset("all_iphones", point("1.0", **FULL), point("1.1", **FULL), goal=1.0),
        dataset("iPhone9,1", point("1.1", **FULL)),
        dataset("iPhone14,2", point("1.0"), point("1.1"), goal=1.0),
    )
    kept = []
    for cap in range(33):
        result = converted(product, cap=cap)
        of_spreads = [f"time.by_device {device} {version}" for device, _, version in spreads(result)]
        kept.append(Counter(lines_of(result) + of_spreads))
    added = [line for fewer, more in pairwise(kept) for line in (more - fewer).elements()]
    assert added == [
        "time all_iphones 1.1",
        "time all_iphones 1.0",
        "time.regressed all_iphones 1.0",
        "time.regressed all_iphones 1.1",
        "time.delta all_iphones 1.1",
        "time.poor all_iphones 1.0",
        "time.poor all_iphones 1.1",
        "time.goal all_iphones 1.1",
        "time.goal_band all_iphones 1.1",
        "time.goal_ratio all_iphones 1.1",
        "time.goal_band all_iphones 1.0",
        "time.by_device all_iphones 1.1",
        "time.by_device all_iphones 1.0",
        "time.error_margin all_iphones 1.1",
        "time.error_margin all_iphones 1.0",
        "time iPhone14,2 1.1",
        "time iPhone9,1 1.1",
        "time iPhone14,2 1.0",
        "time.breakdown all_iphones 1.1",
        "time.breakdown all_iphones 1.1",
        "time.breakdown all_iphones 1.0",
        "time.breakdown all_iphones 1.0",
        "time.regressed iPhone14,2 1.0",
        "time.regressed iPhone14,2 1.1",
        "time.regressed iPhone9,1 1.1",
        "time.delta iPhone14,2 1.1",
        "time.goal iPhone14,2 1.1",
        "time.goal_ratio iPhone14,2 1.1",
        "time.breakdown iPhone9,1 1.1",
        "time.breakdown iPhone9,1 1.1",
        "time.error_margin iPhone9,1 1.1",
        "time.goal_band iPhone9,1 1.1",
    ]


def test_what_the_cap_held_back_is_counted() -> None:
    """`capped` counts series by metric, distributions included; `left_out` counts Apple's values."""
    product = metric(dataset("all_iphones", point("1.0")), dataset("iPhone9,1", point("1.0")))
    result = converted(product, cap=0)
    assert (result.gauges, result.distributions, result.series.total()) == ([], [], 0)
    assert result.capped == {
        "appstore.launch.time": 2,
        "appstore.launch.time.by_device": 1,
        "appstore.launch.time.regressed": 2,
    }
    assert result.left_out == {"series_cap": 2}


def test_a_series_that_comes_twice_counts_once() -> None:
    """The first of two points of one series leaves; the values of the second are counted as duplicates."""
    result = converted(
        metric(
            dataset("all_iphones", point("1.0", 100.0, goal="good"), point("1.0", 200.0, **FULL), goal=5.0)
        ),
        metric(dataset("all_iphones", point("1.0", 300.0), goal=6.0)),
    )
    assert series(result) == [
        "time all_iphones 1.0",
        "time.goal all_iphones 1.0",
        "time.goal_band all_iphones 1.0",
    ]
    assert result.left_out == {"duplicate": 5 + 2}
    assert [given.value for given in result.gauges[0].data.data_points] == [0.1]  # type: ignore[union-attr]


def test_two_units_do_not_make_two_series_of_one() -> None:
    """Back ends know a series by name and tags: the same in another unit is a duplicate."""
    result = converted(
        metric(dataset("all_iphones", point("1.0", goal="good"))),
        metric(dataset("all_iphones", point("1.0", goal="good"), point("1.1")), unit="fortnights"),
    )
    assert series(result) == [
        "time all_iphones 1.0",
        "time all_iphones 1.1",
        "time.goal_band all_iphones 1.0",
    ]
    assert result.left_out == {"duplicate": 2}
    assert [item.unit for item in result.gauges] == ["s", "{fortnights}", "{band}", "{flag}", "{flag}"]
    assert result.unknown_units == {"{fortnights}"}


def test_a_metric_in_two_parts_has_one_spread() -> None:
    """Models of one family are observed together, even where Apple lists the metric twice."""
    result = converted(
        metric(dataset("iPhone14,2", point("1.0", 100.0))), metric(dataset("iPhone9,1", point("1.0", 300.0)))
    )
    assert spreads(result) == {("all_iphones", "iOS", "1.0"): (2, 0.4)}


def test_a_number_too_large_for_its_unit_is_left_out() -> None:
    """1e306 MB is not a number of bytes: it leaves neither as a gauge nor in a distribution."""
    result = converted(metric(dataset("iPhone14,2", point("1.0", 1e306, errorMargin=1.0)), unit="MB"))
    assert series(result) == ["time.error_margin iPhone14,2 1.0"]
    assert result.left_out == {"out_of_range": 1}
    assert result.distributions == []


def test_numbers_too_large_to_add_up_do_not_cost_the_answer() -> None:
    """Two finite values whose sum is no double still leave, and so does their spread."""
    result = converted(
        metric(
            dataset("iPhone14,2", point("1.0", 1e308)), dataset("iPhone9,1", point("1.0", 1e308)), unit="s"
        )
    )
    assert len(series(result)) == 2
    assert spreads(result)["all_iphones", "iOS", "1.0"][0] == 2


def test_an_unknown_percentile_keeps_its_last_word() -> None:
    """`p50` and `p90` stand for Apple's words; another word stays; no word, no attribute."""
    words = ("percentile.fifty", "percentile.ninety", "percentile.ninetyNine", "mean", "", "a. b", "a.")
    result = converted(
        metric(
            *(dataset(f"all_{number}", point("1.0"), percentile=word) for number, word in enumerate(words))
        )
    )
    told = [(given.attributes or {}).get("percentile") for given in result.gauges[0].data.data_points]
    assert told == ["p50", "p90", "ninetyNine", "mean", None, "b", None]


def rising(device: str, *, goal: float | None = None) -> dict[str, Any]:
    """Launches that took 100 ms in two versions and 150 ms in the newest."""
    return dataset(device, point("1.9", 100.0), point("1.10", 150.0), point("1.8", 100.0), goal=goal)


OF_RISING = {"regressed {} 1.8": 0.0, "regressed {} 1.9": 0.0, "regressed {} 1.10": 1.0, "delta {} 1.10": 0.5}


@pytest.mark.parametrize(
    ("detail", "devices"),
    [
        ("aggregate", ("all_iphones",)),
        ("standard", ("all_iphones",)),
        ("full", ("all_iphones", "iPhone14,2")),
    ],
)
def test_the_newest_version_is_compared_with_those_before(detail: Any, devices: tuple[str, ...]) -> None:
    """Families are compared at each level of detail, models in `full` only; older versions bear a 0."""
    result = converted(metric(rising("all_iphones"), rising("iPhone14,2")), detail=detail)
    expected = {key.format(device): value for device in devices for key, value in OF_RISING.items()}
    assert computed(result) == pytest.approx(expected)


def test_a_version_that_is_newest_elsewhere_only_supersedes() -> None:
    """Where the platform's newest version has no value yet, nothing has regressed and nothing is compared."""
    result = converted(
        metric(rising("all_iphones")), metric(dataset("all_ipads", point("2.0", None)), identifier="other")
    )
    assert computed(result) == {f"regressed all_iphones {version}": 0.0 for version in ("1.8", "1.9", "1.10")}


def test_each_platform_is_compared_with_itself() -> None:
    """A newest version of one platform is held against the versions of that platform alone."""
    result = converted(
        metric(dataset("all_iphones", point("1.0", 100.0), point("2.0", 100.0)), platform="iOS"),
        metric(dataset("all_macs", point("3.0", 100.0), point("4.0", 300.0)), platform="macOS"),
    )
    assert {line: value for line, value in computed(result).items() if "delta" in line} == pytest.approx(
        {"delta all_iphones 2.0": 0.0, "delta all_macs 4.0": 2.0}
    )


def test_a_dataset_in_two_parts_is_compared_as_one() -> None:
    """Where Apple lists a metric twice, the versions of both parts are held against one another."""
    result = converted(
        metric(dataset("all_iphones", point("1.0", 100.0))),
        metric(dataset("all_iphones", point("1.1", 150.0))),
    )
    assert computed(result)["delta all_iphones 1.1"] == pytest.approx(0.5)


def test_a_metric_that_nobody_knows_has_a_delta_alone() -> None:
    """Which direction is worse is not guessed."""
    result = converted(metric(rising("all_iphones"), identifier="coldness"))
    assert computed(result) == pytest.approx({"delta all_iphones 1.10": 0.5})


def test_margins_and_the_least_change_are_the_callers() -> None:
    """Apple's margins reach the comparison in the value's unit, and `min_change` is what was handed in."""
    beside = metric(dataset("all_iphones", point("1.0", 100.0), point("1.1", 150.0, errorMargin=30.0)))
    assert computed(converted(beside))["regressed all_iphones 1.1"] == 0.0
    payload = parse_metrics({"productData": [metric(rising("all_iphones"))]})
    large = convert(payload, Selection(), observed_at=NOW, series_cap=100, min_change=0.51)
    assert computed(large)["regressed all_iphones 1.10"] == 0.0


STOOD = Standing("appstore.launch.time.regressed", "iOS", "all_iphones", "p90", "1.1")


def hovering(standing: Collection[Standing], *versions: tuple[str, float], min_change: float = 0.05) -> Any:
    """The flags of launches that took 100 ms in 1.0, and in these versions so many."""
    points = [point(version, value) for version, value in (("1.0", 100.0), *versions)]
    product = metric(dataset("all_iphones", *points, percentile="percentile.ninety"))
    payload = parse_metrics({"productData": [product]})
    options: dict[str, Any] = {"min_change": min_change, "standing": standing}
    flags = computed(convert(payload, Selection(), observed_at=NOW, series_cap=100, **options))
    return {line.split()[2]: value for line, value in flags.items() if "regressed" in line}


def test_a_regression_that_stands_goes_on() -> None:
    """Three per cent are half of the least change and too little of it: they keep a flag and raise none."""
    assert hovering([STOOD], ("1.1", 103.0)) == {"1.0": 0.0, "1.1": 1.0}
    assert hovering([], ("1.1", 103.0)) == {"1.0": 0.0, "1.1": 0.0}
    assert hovering([STOOD], ("1.1", 102.0)) == {"1.0": 0.0, "1.1": 0.0}
    assert hovering([STOOD], ("1.1", 103.0), min_change=0.07) == {"1.0": 0.0, "1.1": 0.0}


@pytest.mark.parametrize(
    "other",
    [
        {"name": "appstore.hang.rate.regressed"},
        {"name": "appstore.launch.time"},
        {"platform": "macOS"},
        {"device": "all_ipads"},
        {"percentile": "p50"},
        {"percentile": ""},
        {"version": "1.0"},
    ],
)
def test_a_regression_of_something_else_keeps_nothing(other: dict[str, str]) -> None:
    """A flag stands for its metric, platform, device, percentile and version alone."""
    assert hovering([STOOD._replace(**other)], ("1.1", 103.0))["1.1"] == 0.0


def test_a_regression_ends_with_its_version() -> None:
    """What stood of a version that is superseded bears a 0, and lends the newest one nothing."""
    assert hovering([STOOD], ("1.1", 106.0), ("1.2", 106.5)) == {"1.0": 0.0, "1.1": 0.0, "1.2": 0.0}


def test_a_regression_without_a_percentile_stands_too() -> None:
    """Where Apple gives no percentile, the flag has none, and is known again by that."""
    product = metric(dataset("all_iphones", point("1.0", 100.0), point("1.1", 103.0)))
    payload = parse_metrics({"productData": [product]})
    stood = STOOD._replace(percentile="")
    result = convert(payload, Selection(), observed_at=NOW, series_cap=100, standing=[stood])
    assert computed(result)["regressed all_iphones 1.1"] == 1.0


def test_a_build_is_compared_with_nothing() -> None:
    """The answer of a build holds one version: it bears neither flag nor delta, only the goal's ratio."""
    payload = parse_metrics({"productData": [metric(rising("all_iphones", goal=100.0))]})
    stood = STOOD._replace(percentile="", version="1.10")
    result = convert(payload, Selection(), observed_at=NOW, series_cap=100, build="7", standing=[stood])
    assert computed(result) == pytest.approx({"goal_ratio all_iphones 1.10": 1.5})


@pytest.mark.parametrize("goal", [0.0, -1.0, 1e308])
def test_there_is_no_ratio_without_a_goal_above_zero(goal: float) -> None:
    """A goal of zero, below, or too large to be a number has no ratio."""
    result = converted(metric(dataset("all_iphones", point("1.0", 100.0), goal=goal), unit="GB"))
    assert computed(result) == {"regressed all_iphones 1.0": 0.0}


def test_there_is_no_ratio_without_a_value() -> None:
    """The ratio is given where the goal is: at the newest version, and only if that has a value."""
    result = converted(metric(dataset("all_iphones", point("1.0", 100.0), point("1.1", None), goal=50.0)))
    assert [line for line in computed(result) if "goal_ratio" in line] == []
    assert "time.goal all_iphones 1.1" in series(result)


def test_only_the_newest_version_is_poor() -> None:
    """Apple's band becomes a flag of families: 1 at the newest version, 0 at the one that it superseded."""
    poor = [point(version, goal="poor") for version in ("1.8", "1.9", "1.10")]
    result = converted(metric(dataset("all_iphones", *poor), dataset("iPhone9,1", *poor)))
    flags = {line: value for line, value in computed(result).items() if "poor" in line}
    assert flags == {"poor all_iphones 1.9": 0.0, "poor all_iphones 1.10": 1.0}


@pytest.mark.parametrize("band", ["good", "fair"])
def test_what_is_not_poor_bears_a_zero(band: str) -> None:
    """So an alert ends by data, and what has no band has no flag."""
    result = converted(metric(dataset("all_iphones", point("1.0"), point("1.1", goal=band))))
    assert {line: value for line, value in computed(result).items() if "poor" in line} == {
        "poor all_iphones 1.1": 0.0
    }


def test_a_build_is_not_called_poor() -> None:
    """The answer of a build holds one version, which is not therefore the newest."""
    payload = parse_metrics({"productData": [metric(dataset("all_iphones", point("1.0", goal="poor")))]})
    result = convert(payload, Selection(), observed_at=NOW, series_cap=100, build="7")
    assert computed(result) == {}


def test_a_ratio_that_is_no_number_is_not_sent() -> None:
    """1e300 over 1e-300 is infinite; that costs nothing of Apple's."""
    result = converted(
        metric(dataset("all_iphones", point("1.0", 1e-300), point("1.1", 1e300), goal=1e-300), unit="s")
    )
    assert computed(result) == {"regressed all_iphones 1.0": 0.0, "regressed all_iphones 1.1": 1.0}
    assert result.left_out.total() == 0


def test_the_cap_takes_the_alarm_before_its_end() -> None:
    """The flag of the newest version is kept only with those of all versions before it."""
    for cap in range(12):
        kept = {
            line: value
            for line, value in computed(converted(metric(rising("all_iphones")), cap=cap)).items()
            if "regressed" in line
        }
        assert set(kept.values()) <= {0.0} or len(kept) == 3
        assert len(kept) == min(3, max(0, cap - 3))
