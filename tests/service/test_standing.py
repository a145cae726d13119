"""A regression that stands: what an answer becomes after the one before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from exporter.appstore.jsonapi import App
from exporter.sandbox import Point
from tests.service.scripted import APP, NO_METRICS, Json, ScriptedWorld, build, unavailable

MakeScripted = Callable[..., ScriptedWorld]
ONCE = {"diagnostics__versions": 0}


def launches(versions: Mapping[str, float], device: str = "all_iphones") -> Json:
    """Metrics: the launch time of each version, in milliseconds."""
    points = [{"version": version, "value": value} for version, value in versions.items()]
    criteria = {"percentile": "percentile.ninety", "device": device}
    unit = {"identifier": "milliseconds", "displayName": "ms"}
    datasets = [{"filterCriteria": criteria, "points": points}]
    metric = {"identifier": "launchTime", "unit": unit, "datasets": datasets}
    categories = [{"identifier": "LAUNCH", "metrics": [metric]}]
    return {**NO_METRICS, "productData": [{"platform": "iOS", "metricCategories": categories}]}


def day(world: ScriptedWorld, versions: Mapping[str, float]) -> dict[Any, float | None]:
    """What a day's answer brings: version → its flag, as a heartbeat sends it."""
    world.script.metrics_of[APP.id] = launches(versions)
    assert world.poll_asking()[0].failures == []
    sent, _, _ = world.delivered()
    world.later(24)
    return {version: value for (app_id, version), value in flags(sent).items() if app_id == APP.id}


def flags(sent: Iterable[Point]) -> dict[tuple[Any, Any], float | None]:
    """(app id, version) → its flag."""
    return {
        (point.resource["appstore.app.id"], point.attributes["version"]): point.value
        for point in sent
        if point.name == "appstore.launch.time.regressed"
    }


def days(world: ScriptedWorld, *newest: float, restart: bool = False) -> list[float | None]:
    """Day by day the flag of 1.1, which takes so long; 1.0 took 1,000 ms."""
    found = []
    for value in newest:
        found.append(day(world, {"1.0": 1000.0, "1.1": value})["1.1"])
        if restart:
            world.close()
            world.open()
    return found


@pytest.mark.parametrize("restart", [False, True])
def test_a_regression_stands_until_it_falls_below_half(make_scripted: MakeScripted, restart: bool) -> None:
    """About the least change it stays one alert; below half it ends. Over restarts, too."""
    world = make_scripted(**ONCE)
    assert days(world, 1052, 1048, 1053, 1047, restart=restart) == [1, 1, 1, 1]
    assert days(world, 1024, 1048, 1026, 1051, 1048, restart=restart) == [0, 0, 0, 1, 1]


def test_the_least_change_is_the_configured_one(make_scripted: MakeScripted) -> None:
    """With a least change of 40 per cent, 20 keep what stands and 19 end it."""
    world = make_scripted(**ONCE, regression__min_change="40%")
    assert days(world, 1390, 1400, 1210, 1190, 1390) == [0, 1, 1, 0, 0]


def test_a_superseded_version_bears_a_zero(make_scripted: MakeScripted) -> None:
    """The next release ends it, and has to raise a flag of its own."""
    world = make_scripted(**ONCE)
    assert day(world, {"1.0": 1000, "1.1": 1100}) == {"1.0": 0, "1.1": 1}
    assert day(world, {"1.0": 1000, "1.1": 1100, "1.2": 1090}) == {"1.0": 0, "1.1": 0, "1.2": 0}
    assert day(world, {"1.0": 1000, "1.1": 1100, "1.2": 1110}) == {"1.0": 0, "1.1": 0, "1.2": 1}


def test_the_same_answer_and_a_missing_one_change_nothing(make_scripted: MakeScripted) -> None:
    """An answer that stays the same is not read again, one that fails leaves what stood: it goes on."""
    world = make_scripted(**ONCE)
    assert days(world, 1052) == [1]
    assert days(world, 1048, 1048) == [1, 1]
    world.script.metrics_of[APP.id] = unavailable()
    assert len(world.poll_asking()[0].failures) == 1
    world.later(24)
    assert days(world, 1047) == [1]


def test_the_same_answer_read_with_other_settings_keeps_its_flags(make_scripted: MakeScripted) -> None:
    """What stands only by what stood before is not ended by a choice of more series."""
    world = make_scripted(**ONCE)
    assert days(world, 1052, 1048) == [1, 1]
    world.close()
    world.overrides["limits__series_per_app"] = 5000
    world.open()
    assert days(world, 1048) == [1]


def test_another_app_and_a_build_know_nothing_of_it(make_scripted: MakeScripted) -> None:
    """What stands is of one app's own answer: another app with the same version has raised nothing yet, and
    the answer of a build bears no flag at all."""
    world = make_scripted(collect__builds=1, diagnostics__logs="false")
    world.hold(build("b1", "1.1", 100))
    world.script.apps_listed.append(App("2", "com.example.two", "Two"))
    for value in (1052, 1048):
        world.script.metrics_of |= {"b1": launches({"1.1": value}), "2": launches({"1.0": 1000, "1.1": 1048})}
        assert day(world, {"1.0": 1000, "1.1": value})["1.1"] == 1
    sent, _, _ = world.delivered()
    assert flags(sent) == {("1", "1.0"): 0, ("1", "1.1"): 1, ("2", "1.0"): 0, ("2", "1.1"): 0}
    assert "1" in {point.attributes.get("build") for point in sent if point.name == "appstore.launch.time"}
    assert not [point for point in sent if point.name.endswith(".regressed") and "build" in point.attributes]
