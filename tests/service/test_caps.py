"""What leaves where the series of an app do not suffice for everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from exporter.errors import BadAnswer
from exporter.sandbox import Point
from tests.service.scripted import (
    APP,
    Json,
    ScriptedWorld,
    build,
    launch_times,
    log,
    logs,
    page,
    signature,
)

MakeScripted = Callable[..., ScriptedWorld]
TYPES = ("HANGS", "LAUNCHES", "DISK_WRITES")
OF_SIGNATURES = ("appstore.diagnostic.signature", "appstore.diagnostic.new_share")
V1, V2, V3 = build("b1", "1.0", 100), build("b2", "2.0", 200), build("b3", "3.0", 300)


def ten_of_each(build_id: str) -> Json:
    """Ten signatures of each type: 3 counts, 3 shares, 30 weights, 30 flags, so 66 series."""
    found = [signature(f"{build_id}-{t}-{n}", f"F{n}.{t}()", 0.1 * n, t) for t in TYPES for n in range(1, 11)]
    return page(*found)


def hangs_on(models: Iterable[int], signature_id: str, detail: str) -> Json:
    """A log for each device model, each a histogram's series."""
    return logs(signature_id, *(log(detail, deviceType=f"iPhone{model}_1") for model in models))


def signature_series(points: Iterable[Point]) -> Counter[str]:
    """Version → how many series its signatures make."""
    chosen = (p for p in points if p.name.startswith(OF_SIGNATURES))
    return Counter(str(point.attributes["version"]) for point in chosen)


def counted_types(points: Iterable[Point], version: str) -> set[str]:
    """The types whose signatures of a version are counted."""
    return {
        str(point.attributes["diagnostic_type"])
        for point in points
        if point.name == "appstore.diagnostic.signatures" and point.attributes["version"] == version
    }


def total(*points: Sequence[Point]) -> int:
    return len({point.series for some in points for point in some})


# Which versions get the room


@pytest.mark.parametrize("cap", [8, 40, 80, 130])
def test_the_newest_version_gets_room_first(make_scripted: MakeScripted, cap: int) -> None:
    """Its counts leave whatever the cap; an earlier version has more than nothing only behind a full one."""
    world = make_scripted(limits__series_per_app=cap, diagnostics__logs="false")
    world.hold(V3, V2, V1)
    world.script.signatures_of |= {item.id: ten_of_each(item.id) for item in (V1, V2, V3)}
    world.poll_asking()
    gauges, _, _ = world.delivered()
    of_version = signature_series(gauges)
    assert counted_types(gauges, "3.0") == set(TYPES)
    room = cap
    for version in ("3.0", "2.0", "1.0"):
        assert of_version[version] == min(66, room)
        room -= of_version[version]


def test_a_version_that_appears_later_takes_room_from_older_ones(make_scripted: MakeScripted) -> None:
    """Where older versions' signatures filled the cap, the newest's leave in the poll that finds them."""
    world = make_scripted(limits__series_per_app=80, diagnostics__logs="false")
    world.hold(V2, V1)
    world.script.signatures_of |= {item.id: ten_of_each(item.id) for item in (V1, V2, V3)}
    world.poll_asking()
    assert signature_series(world.delivered()[0]) == {"2.0": 66, "1.0": 14}
    world.hold(V3, V2, V1)
    world.later(24)
    world.poll_asking()
    gauges, _, _ = world.delivered()
    assert counted_types(gauges, "3.0") == set(TYPES)
    assert signature_series(gauges) == {"3.0": 66, "2.0": 14}


# All of an app together


def test_gauges_and_histograms_together_stay_below_the_cap(make_scripted: MakeScripted) -> None:
    """Each leaves room for the other, from the first poll on: all series that ever left are within it."""
    cap = 100
    world = make_scripted(limits__series_per_app=cap)
    world.hold(V2, V1)
    world.script.metrics_of[APP.id] = launch_times(20, "2.0", "1.0")
    for day in range(5):
        found = [signature("s", "load()", 0.1 + day / 10)]
        found += [signature(f"s{n}", f"f{n}()", 0.01 * n) for n in range(8 * day)]
        world.script.signatures_of["b2"] = page(*found)
        world.script.signatures_of["b1"] = ten_of_each("b1")
        world.script.logs_of["s"] = hangs_on(range(day * 20, day * 20 + 60), "s", f"Hang of {day + 1} sec")
        for hours in (1, 24):
            assert world.poll_asking()[0].failures == []
            gauges, _, _ = world.delivered()
            arrived = world.receiver.distinct_histograms()
            assert total(gauges, arrived) <= cap
            world.later(hours)
    assert len({p.series for p in arrived if p.name == "appstore.diagnostic.hang_duration"}) > 5
    assert signature_series(gauges)["2.0"] > 5


@pytest.mark.parametrize("models", [10, 37, 200])
def test_a_poll_after_metrics_grew_stays_below_the_cap(make_scripted: MakeScripted, models: int) -> None:
    """Whatever histograms left before, those that leave from now on have room beside the gauges."""
    cap = 100
    world = make_scripted(limits__series_per_app=cap)
    world.hold(V1)
    world.script.signatures_of["b1"] = page(signature("s", "load()", 0.1))
    world.script.logs_of["s"] = hangs_on(range(119), "s", "Hang of 1 sec")
    world.poll_asking()
    gauges, histograms, _ = world.delivered()
    assert 40 < total(gauges, histograms) <= cap
    world.script.metrics_of[APP.id] = launch_times(models, "1.0")
    for day in range(4):
        world.later(24)
        world.script.signatures_of["b1"] = page(signature("s", "load()", 0.2 + day / 10))
        some = range(day * 30, day * 30 + 60)
        world.script.logs_of["s"] = hangs_on(some, "s", f"Hang of {day + 2} sec")
        report, _ = world.poll_asking()
        assert report.failures == []
        gauges, histograms, _ = world.delivered()
        assert total(gauges, histograms) <= cap
        assert counted_types(gauges, "1.0") == set(TYPES)


# What goes when metrics grow


OVERVIEW: Json = {
    "appMetadata": {"platform": "IOS", "latestVersion": "3.0"},
    "categories": [
        {
            "identifier": "LAUNCH",
            "sections": [
                {
                    "identifier": "launchTime",
                    "unit": {"identifier": "milliseconds", "displayName": "ms"},
                    "datasets": [
                        {
                            "filterCriteria": {"percentile": "percentile.fifty", "device": "all_iphones"},
                            "recommendedMetricGoal": {"value": 400.0},
                        }
                    ],
                }
            ],
        }
    ],
    "signatures": {"topHangPoint": [], "topLaunchPoint": [], "topDiskWritePoint": []},
}


@pytest.mark.parametrize(
    ("models", "stays"),
    [
        (18, {"build metrics", "1.0", "2.0", "3.0"}),
        (20, {"1.0", "2.0", "3.0"}),
        (27, {"2.0", "3.0"}),
        (33, {"3.0"}),
    ],
)
def test_no_more_goes_for_grown_metrics_than_has_to(
    make_scripted: MakeScripted, models: int, stays: set[str]
) -> None:
    """First a build's metrics, then the oldest build's signatures; never what the overview said of goals."""
    world = make_scripted(limits__series_per_app=100, collect__builds=1, diagnostics__logs="false")
    world.hold(V3, V2, V1)
    script = world.script
    script.overview_of[APP.id] = OVERVIEW
    script.metrics_of |= {APP.id: launch_times(5, "3.0", "2.0"), "b3": launch_times(3, "3.0")}
    script.signatures_of |= {
        item.id: page(*(signature(f"{item.id}-{n}", f"f{n}()") for n in range(5))) for item in (V1, V2, V3)
    }
    for _ in range(2):  # the second puts the overview's goals into the metrics
        assert world.poll_asking()[0].outcome == "ok"
        world.later(1)
    world.delivered()
    spoilt = BadAnswer("this is no answer")  # so that nothing that went comes back
    script.metrics_of["b3"] = script.overview_of[APP.id] = spoilt
    script.signatures_of |= dict.fromkeys(("b1", "b2", "b3"), spoilt)
    for versions in (("3.0", "2.0"), ("3.0", "1.0")):
        script.metrics_of[APP.id] = launch_times(models, *versions)
        world.poll_asking()
        gauges, histograms, _ = world.delivered()
        of_build = [p for p in gauges if p.name == "appstore.launch.time" and "build" in p.attributes]
        left = set(signature_series(gauges)) | ({"build metrics"} if of_build else set())
        assert left == stays
        assert total(gauges, histograms) <= 100
        goals = [point for point in gauges if point.name == "appstore.launch.time.goal"]
        assert [(goal.attributes["device"], goal.value) for goal in goals] == [("all_iphones", 0.4)]
        world.later(24)


class WatchedDatabase:
    """A connection that notes how many series are stored after each transaction."""

    def __init__(self, db: Any) -> None:
        self._db = db
        self.stored: list[int] = []

    def execute(self, query: str, values: Any = ()) -> Any:
        done = self._db.execute(query, values)
        if query == "COMMIT":
            ((series,),) = self._db.execute("SELECT coalesce(sum(series), 0) FROM source")
            self.stored.append(series)
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


@pytest.mark.parametrize("models", [10, 35, 200])
def test_no_moment_has_more_series_than_the_cap(make_scripted: MakeScripted, models: int) -> None:
    """What gives way to grown metrics goes in their transaction: a heartbeat or a kill may come after it."""
    world = make_scripted(limits__series_per_app=100, diagnostics__logs="false")
    world.hold(V3, V2, V1)
    world.script.metrics_of[APP.id] = launch_times(5, "3.0", "2.0")
    world.script.signatures_of |= {
        item.id: page(*(signature(f"{item.id}-{n}", f"f{n}()") for n in range(10))) for item in (V1, V2, V3)
    }
    world.state._db = watched = WatchedDatabase(world.state._db)  # type: ignore[assignment]
    world.poll_asking()
    world.script.metrics_of[APP.id] = launch_times(models, "3.0", "2.0")
    world.later(24)
    world.poll_asking()
    assert 80 < max(watched.stored) <= 100


# What is left out


def test_values_of_a_capped_histogram_are_counted_one_by_one(make_scripted: MakeScripted) -> None:
    """`left_out` has each value that no histogram bears, the log line each series."""
    world = make_scripted(limits__series_per_app=16)
    world.hold(V1)
    world.script.signatures_of["b1"] = page(signature("s", "load()"))
    twice = [log(f"Hang of {n} sec", deviceType=f"iPhone{model}_1") for n in (1, 2) for model in range(30)]
    world.script.logs_of["s"] = logs("s", *twice)
    report, _ = world.poll_asking()
    gauges, histograms, events = world.delivered()
    assert total(gauges, histograms) == 16
    kept = len(histograms)
    assert sum(sum(point.counts) for point in histograms) == 2 * kept
    assert (report.events, len(events)) == (60, 60)
    assert report.left_out == {"series_cap": 60 - 2 * kept}
    (line,) = world.log.of("cycle.series_cap_reached")
    name = "appstore.diagnostic.hang_duration"
    assert (line.fields["left_out"], line.fields["most"]) == (30 - kept, {name: 30 - kept})


def test_nothing_is_left_out_zero_times(make_scripted: MakeScripted) -> None:
    """A reason is counted only where something was left out for it, whatever a poll brings."""
    world = make_scripted(limits__series_per_app=40, diagnostics__top_signatures=2)
    world.hold(V2, V1)
    script = world.script
    top = [{"signatureId": "b2-HANGS-1", "signature": "F1()", "weight": 0.1, "count": 3}]
    plain = signature("s", "load()")
    met: set[str] = set()
    for metrics, signatures, overview, found in [
        (launch_times(2, "2.0"), page(plain), OVERVIEW, logs("s", log())),
        (launch_times(60, "2.0", "1.0"), ten_of_each("b2"), OVERVIEW, logs("s", log(), log())),
        (
            launch_times(3, "2.0"),
            page(signature("s", "load()", 0.9)),
            OVERVIEW | {"signatures": {"topHangPoint": top}},
            logs("s", log("no duration"), log("no duration"), log("Hang of 3 sec")),
        ),
    ]:
        script.metrics_of[APP.id], script.overview_of[APP.id] = metrics, overview
        script.signatures_of |= {"b1": signatures, "b2": signatures}
        script.logs_of["s"] = found
        report, _ = world.poll_asking()
        assert report.failures == []
        assert min(report.left_out.values(), default=1) > 0
        assert min(report.capped.values(), default=1) > 0
        met |= set(report.left_out)
        world.later(24)
    assert met == {"series_cap", "top_signatures", "no_quantity", "duplicate"}
