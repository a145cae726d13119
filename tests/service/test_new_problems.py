"""Which problems are new, which are the same, and what is remembered of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from exporter.appstore.jsonapi import App
from exporter.appstore.reading import Answer
from exporter.errors import NotFound
from exporter.sandbox.records import Record
from tests.service.scripted import (
    APP,
    DAY,
    Json,
    Reply,
    Script,
    ScriptedWorld,
    build,
    frame,
    launch_times,
    log,
    logs,
    of,
    page,
    signature,
    unavailable,
)
from tests.service.service_world import HOUR

MakeScripted = Callable[..., ScriptedWorld]
NEW = "appstore.diagnostic.new"
FINGERPRINT = "appstore.diagnostic.fingerprint"
TWO = App("2", "com.example.two", "Two")
V1, V2, V3 = build("b1", "1.0", 100), build("b2", "2.0", 200), build("b3", "3.0", 300)


def hang(world: ScriptedWorld, signature_id: str, function: str, version: str, weight: float = 0.5) -> Json:
    """A signature, whose one log blames its function."""
    found = log("Hang of 2 sec", frame(function), appVersion=version, platformArchitecture=signature_id)
    world.script.logs_of[signature_id] = logs(signature_id, found)
    return signature(signature_id, function, weight)


def polled(world: ScriptedWorld, hours: float = 24.0) -> tuple[dict[str, float | None], dict[str, Record]]:
    """Poll after so many hours and deliver: signature id → its `new` gauge, and its one event."""
    world.later(hours)
    world.poll_asking()
    gauges, _, events = world.delivered()
    flags = {str(p.attributes["signature_id"]): p.value for p in gauges if p.name.endswith("signature.new")}
    by_id = {str(event.attributes["signature_id"]): event for event in events}
    assert len(by_id) == len(events)
    return flags, by_id


# What is new


@pytest.mark.parametrize("before", [NotFound("there is none"), page()], ids=["404", "empty"])
@pytest.mark.parametrize("at_first", [True, False])
def test_the_first_hang_after_a_version_without_any_is_new(
    make_scripted: MakeScripted, before: Reply, at_first: bool
) -> None:
    """That an earlier version has no signatures is known, and enough to call the newest one's new."""
    world = make_scripted()
    world.hold(V2, V1)
    world.script.signatures_of |= {"b1": before, "b2": page()}
    if not at_first:
        assert polled(world) == ({}, {})
    world.script.signatures_of["b2"] = page(hang(world, "s", "Shop.pay()", "2.0"))
    flags, events = polled(world)
    assert flags == {"s": 1.0}
    assert events["s"].attributes[NEW] is True
    assert events["s"].severity_text == "WARN"


def test_a_first_look_calls_no_event_new(make_scripted: MakeScripted) -> None:
    """The newest version's logs are read before those of earlier ones: its events tell neither way."""
    world = make_scripted()
    world.hold(V3, V2, V1)
    old = {"b2": "Shop.save()", "b1": "Shop.load()"}
    for name, function in old.items():
        found = hang(world, f"old-{name}", function, f"{name[1]}.0")
        world.script.signatures_of[name] = page(found)
    newest = hang(world, "same", "Shop.save()", "3.0"), hang(world, "other", "Shop.draw()", "3.0")
    world.script.signatures_of["b3"] = page(*newest)
    flags, events = polled(world)
    assert set(events) == {"same", "other", "old-b2", "old-b1"}
    assert [key for key in ("same", "other") if NEW in events[key].attributes] == []
    assert {events[key].severity_text for key in ("same", "other")} == {"INFO"}
    assert flags["same"] == flags["old-b1"] == flags["old-b2"] == 0.0


def test_nothing_is_new_while_an_earlier_version_is_not_known(make_scripted: MakeScripted) -> None:
    """A build that did not answer may have it; the next day's problem, which no build has, is new."""
    world = make_scripted()
    world.hold(V3, V2, V1)
    known = hang(world, "known", "Shop.save()", "3.0")
    world.script.signatures_of |= {"b3": page(known), "b2": unavailable(), "b1": page()}
    flags, events = polled(world)
    assert flags == {"known": 0.0}
    assert NEW not in events["known"].attributes
    world.script.signatures_of |= {
        "b3": page(known, hang(world, "fresh", "Shop.crawl()", "3.0")),
        "b2": page(hang(world, "too", "Shop.save()", "2.0")),
    }
    flags, events = polled(world)
    assert flags == {"known": 0.0, "fresh": 1.0, "too": 0.0}
    world.script.signatures_of["b3"] = page(known, hang(world, "later", "Shop.wait()", "3.0"))
    flags, events = polled(world)
    assert (flags["later"], events["later"].attributes[NEW]) == (1.0, True)


def test_a_new_log_of_an_old_problem_is_not_new(make_scripted: MakeScripted) -> None:
    """Once the earlier versions' logs were read, an event says whether one of them had the same stack."""
    world = make_scripted()
    world.hold(V2, V1)
    world.script.signatures_of |= {"b1": page(hang(world, "old", "Shop.load()", "1.0")), "b2": page()}
    polled(world)
    again = hang(world, "again", "Shop.load()", "2.0"), hang(world, "fresh", "Shop.pay()", "2.0")
    world.script.signatures_of["b2"] = page(*again)
    flags, events = polled(world)
    assert {key: flags[key] for key in ("again", "fresh")} == {"again": 0.0, "fresh": 1.0}
    assert {key: event.attributes[NEW] for key, event in events.items()} == {"again": False, "fresh": True}
    assert events["again"].attributes["appstore.diagnostic.first_seen_version"] == "1.0"


def test_problems_without_symbols_are_told_apart_and_not_called_new(make_scripted: MakeScripted) -> None:
    """Offsets are all that tells two such signatures apart, and they change with each build."""
    world = make_scripted()
    world.hold(V2, V1)
    world.script.signatures_of |= {"b1": page(hang(world, "old", "Shop.load()", "1.0")), "b2": page()}
    polled(world)
    offsets = {"first": 105316, "second": 205316}
    for name, offset in offsets.items():
        stack = frame("", frame("", offset=str(offset), blamed=True), blamed=False)
        world.script.logs_of[name] = logs(name, log(f"Hang of {offset} ms", stack, appVersion="2.0"))
    found = [signature(name, f"Shop + {offset}") for name, offset in offsets.items()]
    world.script.signatures_of["b2"] = page(*found)
    flags, events = polled(world)
    assert events["first"].attributes[FINGERPRINT] != events["second"].attributes[FINGERPRINT]
    assert [key for key in offsets if NEW in events[key].attributes] == []
    assert {key: flags[key] for key in offsets} == {"first": 0.0, "second": 0.0}


@pytest.mark.parametrize(
    ("build_id", "version", "flag", "told"),
    [("b3", "3.0", 1.0, True), ("b3", "2.5", 1.0, None), ("b2", "2.0", 0.0, None)],
    ids=["newest", "log of another version", "not the newest"],
)
def test_only_events_of_the_newest_version_tell_what_is_new(
    make_scripted: MakeScripted, build_id: str, version: str, flag: float, told: bool | None
) -> None:
    """A log that is not of the newest version held, or not of its build's version, tells neither way."""
    world = make_scripted()
    world.hold(V3, V2, V1)
    known = page(hang(world, "old", "Shop.load()", "1.0"))
    world.script.signatures_of |= {"b1": known, "b2": page(), "b3": page()}
    polled(world)
    world.script.signatures_of[build_id] = page(hang(world, "fresh", "Shop.pay()", version))
    flags, events = polled(world)
    assert flags["fresh"] == flag
    assert (events["fresh"].attributes["version"], events["fresh"].attributes.get(NEW)) == (version, told)
    assert events["fresh"].severity_text == ("WARN" if told else "INFO")


# How much of it is new


def shares(world: ScriptedWorld, hours: float = 24.0) -> dict[str, float | None]:
    """Poll after so many hours and deliver: version → which part of its hangs is new."""
    world.later(hours)
    assert world.poll_asking()[0].failures == []
    points = [p for p in world.delivered()[0] if p.name == "appstore.diagnostic.new_share"]
    of_hangs = [p for p in points if p.attributes["diagnostic_type"] == "HANGS"]
    assert {p.value for p in points if p not in of_hangs} <= {0.0}  # there are none
    return {str(p.attributes["version"]): p.value for p in of_hangs}


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_part_that_is_new_ends_with_the_version(make_scripted: MakeScripted, scale: float) -> None:
    """0 on the first look, then as the weights say; an explicit 0 once a newer version came."""
    world = make_scripted(diagnostics__logs="false", diagnostics__top_signatures=1)
    world.hold(V1)
    old, new = signature("old", "Shop.load()", 0.5 * scale), signature("new", "Shop.pay()", 0.3 * scale)
    world.script.signatures_of["b1"] = page(old)
    assert shares(world) == {"1.0": 0.0}
    world.hold(V2, V1)
    world.script.signatures_of["b2"] = page(
        signature("old-2", "Shop.load()", 0.5 * scale), new, signature("newer", "Shop.draw()", 0.2 * scale)
    )
    assert shares(world) == {"1.0": 0.0, "2.0": 0.5}
    assert shares(world) == {"1.0": 0.0, "2.0": 0.5}
    world.hold(V3, V2, V1)
    world.script.signatures_of["b3"] = page(signature("still", "Shop.pay()", scale))
    assert shares(world) == {"1.0": 0.0, "2.0": 0.0, "3.0": 0.0}


def test_the_part_that_is_new_is_0_where_new_cannot_be_told(make_scripted: MakeScripted) -> None:
    """While an earlier version did not answer; and signatures that name no function never count as new."""
    world = make_scripted(diagnostics__logs="false")
    world.hold(V2, V1)
    found = [signature("named", "Shop.pay()", 0.5), signature("nameless", "Shop + 105316", 0.5)]
    world.script.signatures_of |= {"b2": page(*found), "b1": unavailable()}
    world.poll_asking()
    points = [p for p in world.delivered()[0] if p.name == "appstore.diagnostic.new_share"]
    assert {(p.attributes["version"], p.value) for p in points} == {("2.0", 0.0)}
    world.script.signatures_of |= {"b2": page(*found, signature("fresh", "Shop.wait()", 1.0)), "b1": page()}
    assert shares(world) == {"1.0": 0.0, "2.0": 0.75}


@pytest.mark.parametrize("found", [[("s", 0.0)], [("s", None), ("t", 0.5)]])
def test_no_part_is_told_where_weights_do_not_tell(
    make_scripted: MakeScripted, found: list[tuple[str, float | None]]
) -> None:
    """Without the weights of what is new, or where these are all 0, the gauge ends."""
    world = make_scripted(diagnostics__logs="false")
    world.hold(V2, V1)
    world.script.signatures_of |= {"b1": page(), "b2": page(signature("s", "Shop.pay()", 0.5))}
    assert shares(world) == {"1.0": 0.0, "2.0": 1.0}
    world.script.signatures_of["b2"] = page(*(signature(key, f"{key}()", weight) for key, weight in found))
    assert shares(world) == {"1.0": 0.0}


def test_a_type_that_has_no_signatures_any_more_has_nothing_new(make_scripted: MakeScripted) -> None:
    """An explicit 0 ends the alert on it."""
    world = make_scripted(diagnostics__logs="false")
    world.hold(V2, V1)
    world.script.signatures_of |= {"b1": page(), "b2": page(signature("s", "Shop.pay()", 0.5))}
    assert shares(world) == {"1.0": 0.0, "2.0": 1.0}
    world.script.signatures_of["b2"] = page()
    assert shares(world) == {"1.0": 0.0, "2.0": 0.0}


# What is remembered


def test_a_build_that_comes_back_sends_no_log_again(make_scripted: MakeScripted) -> None:
    """A hundred days after its logs were read it leaves for a day: they are known when it is back."""
    world = make_scripted()
    world.hold(V2, V1)
    world.script.signatures_of |= {
        "b2": page(hang(world, "newest", "Shop.pay()", "2.0")),
        "b1": page(hang(world, "oldest", "Shop.load()", "1.0")),
    }
    _, events = polled(world)
    assert set(events) == {"newest", "oldest"}
    world.hold(V2)
    assert polled(world, hours=100 * DAY / HOUR)[1] == {}
    world.hold(V2, V1)
    world.later(24)
    _, asked = world.poll_asking()
    assert ("logs", "oldest") in asked
    gauges, histograms, sent = world.delivered()
    assert (histograms, sent) == ([], [])
    assert {p.attributes["version"] for p in gauges if p.name.endswith("weight")} == {"1.0", "2.0"}


def choose_only_two(world: ScriptedWorld) -> None:
    """A restart with a configuration that leaves the first app out."""
    world.close()
    world.overrides["accounts__0__apps__exclude"] = f"[{APP.bundle_id}]"
    world.open()


def choose_both(world: ScriptedWorld) -> None:
    """A restart with the configuration as it was before."""
    world.close()
    del world.overrides["accounts__0__apps__exclude"]
    world.open()


def list_only_two(world: ScriptedWorld) -> None:
    world.script.apps_listed = [TWO]


def list_both(world: ScriptedWorld) -> None:
    world.script.apps_listed = [APP, TWO]


def stay(_world: ScriptedWorld) -> None:
    """Nothing changes."""


AWAY = pytest.mark.parametrize(
    ("leave", "come_back"),
    [(list_only_two, list_both), (choose_only_two, choose_both)],
    ids=["not listed", "deselected"],
)
Change = Callable[[ScriptedWorld], None]


@AWAY
def test_an_app_that_comes_back_sends_no_log_again(
    make_scripted: MakeScripted, leave: Change, come_back: Change
) -> None:
    """A hundred days after its logs were read the app is away for a day: they are known when it is back."""
    world = make_scripted()
    list_both(world)
    world.hold(V1)
    world.script.signatures_of["b1"] = page(hang(world, "s", "Shop.load()", "1.0"))
    assert set(polled(world)[1]) == {"s"}
    assert polled(world, hours=100 * DAY / HOUR)[1] == {}
    leave(world)
    assert polled(world) == ({}, {})
    come_back(world)
    world.later(24)
    _, asked = world.poll_asking()
    assert of(asked, "logs") == ["s"]
    gauges, histograms, events = world.delivered()
    assert (histograms, events) == ([], [])
    assert [p.attributes["version"] for p in gauges if p.name.endswith("weight")] == ["1.0"]


class Killed(BaseException):
    """Stands for whatever ends the process."""


class DeadlyScript(Script):
    """The process is killed while it waits for certain logs."""

    def logs(self, signature_id: str) -> Answer:
        if signature_id == "deadly":
            raise Killed
        return super().logs(signature_id)


@AWAY
def test_a_value_waits_for_an_app_that_is_away(
    make_scripted: MakeScripted, leave: Change, come_back: Change
) -> None:
    """What a killed poll left waiting becomes a histogram when the app is back, once."""
    world = make_scripted()
    world.close()
    world.script = DeadlyScript(world.clock)
    world.open()
    list_both(world)
    world.hold(V1)
    heavy, deadly = hang(world, "s", "Shop.load()", "1.0"), signature("deadly", "Shop.pay()", 0.1)
    world.script.signatures_of["b1"] = page(heavy, deadly)
    with pytest.raises(Killed):
        world.poll_asking()
    world.script.signatures_of["b1"] = page(heavy)
    sent = []
    for change in (leave, come_back, stay):
        change(world)
        world.later(24)
        world.poll_asking()
        _, histograms, events = world.delivered()
        sent.append(([point.sum for point in histograms], len(events)))
    assert sent == [([], 1), ([2.0], 0), ([], 0)]


def test_an_app_without_a_name_keeps_its_gauges(make_scripted: MakeScripted) -> None:
    """A listing that has lost an app's name is a failure; what is stored of the app goes on being sent."""
    world = make_scripted()
    world.script.apps_listed = [APP, TWO]
    world.hold(V1)
    world.script.metrics_of[APP.id] = launch_times(1, "1.0")
    world.script.signatures_of["b1"] = page(hang(world, "s", "Shop.load()", "1.0"))
    world.poll_asking()
    before, _, _ = world.delivered()
    world.script.apps_listed = [App(APP.id, APP.bundle_id, ""), TWO]
    world.later(24)
    report, asked = world.poll_asking()
    assert ([error.reason for error in report.failures], of(asked, "metrics")) == (["bad_answer"], ["2"])
    after, _, _ = world.delivered()
    assert {(p.series, p.value) for p in after} == {(p.series, p.value) for p in before}
    assert {p.name for p in after} > {"appstore.launch.time", "appstore.diagnostic.signatures"}


@pytest.mark.parametrize("is_seen_again", [True, False])
def test_a_known_log_keeps_its_problem(make_scripted: MakeScripted, is_seen_again: bool) -> None:
    """Its problem is forgotten 180 days after a log of it was last downloaded, new or not."""
    world = make_scripted()
    world.hold(V1)
    stack = frame("main", frame("Shop.load()"))
    world.script.logs_of["old"] = logs("old", log("Hang of 2 sec", stack, appVersion="1.0"))
    world.script.signatures_of["b1"] = page(signature("old", "pwrite", 0.5))
    assert set(polled(world)[1]) == {"old"}
    weight = 0.6 if is_seen_again else 0.5
    world.script.signatures_of["b1"] = page(signature("old", "pwrite", weight))
    assert polled(world, hours=100 * DAY / HOUR)[1] == {}
    world.later(100 * 24)
    world.poll_asking()
    world.hold(V2, V1)
    world.script.logs_of["new"] = logs("new", log("Hang of 3 sec", stack, appVersion="2.0"))
    world.script.signatures_of["b2"] = page(signature("new", "pread"))
    _, events = polled(world)
    first = events["new"].attributes["appstore.diagnostic.first_seen_version"]
    assert first == ("1.0" if is_seen_again else "2.0")
