"""What a poll asks for, in which order, and what has to wait, where not everything can be had."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from exporter.appstore.jsonapi import App, Build
from exporter.errors import RateLimited
from exporter.sandbox import Fault
from tests.service.scripted import (
    APP,
    Asked,
    Reply,
    Script,
    ScriptedWorld,
    build,
    launch_times,
    log,
    logs,
    of,
    page,
    signature,
    unavailable,
)
from tests.service.service_world import HOUR
from tests.service.test_diagnostics_cycle import TIDEPOOL, Diagnosed, logs_asked

MakeScripted = Callable[..., ScriptedWorld]
V1, V2, V3 = build("b1", "1.0", 100), build("b2", "2.0", 200), build("b3", "3.0", 300)
APPS = [APP, App("2", "com.example.two", "Two"), App("3", "com.example.three", "Three")]


def share_for(requests: int) -> float:
    """The share of a key's hour of 3,600 that comes to so many requests."""
    return (requests + 0.5) / 3600


def with_one_signature(world: ScriptedWorld, build_id: str, signature_id: str) -> None:
    """A build with one signature, and that with one log of its own."""
    world.script.signatures_of[build_id] = page(signature(signature_id, f"{signature_id}.load()"))
    world.script.logs_of[signature_id] = logs(signature_id, log(deviceType=f"iPhone{signature_id}_1"))


def with_three_apps(world: ScriptedWorld) -> None:
    """Three apps, each with a build, a signature and a log."""
    world.script.apps_listed = list(APPS)
    for app in APPS:
        world.script.builds_of[app.id] = [build(f"b{app.id}", "1.0", 100)]
        with_one_signature(world, f"b{app.id}", f"s{app.id}")


# Logs where signatures fail


def test_logs_are_asked_for_though_older_builds_give_no_signatures(make_scripted: MakeScripted) -> None:
    """Signatures that ended in an error bring the logs of those that came, poll after poll."""
    world = make_scripted()
    world.hold(build("b3", "3.0", 300), build("b2", "2.0", 200), build("b1", "1.0", 100))
    world.script.signatures_of |= {"b2": unavailable(), "b1": unavailable()}
    with_one_signature(world, "b3", "first")
    report, asked = world.poll_asking()
    assert [error.reason for error in report.failures] == ["unavailable"] * 2
    assert of(asked, "logs") == ["first"]
    with_one_signature(world, "b3", "second")
    world.later(6)
    report, asked = world.poll_asking()
    assert [error.reason for error in report.failures] == ["unavailable"] * 2
    assert of(asked, "logs") == ["second"]
    _, _, events = world.delivered()
    assert [event.attributes["signature_id"] for event in events] == ["first", "second"]


def test_logs_are_asked_for_though_their_signatures_have_to_wait(make_scripted: MakeScripted) -> None:
    """Logs that are pending are asked for in a poll that puts off the signatures of their app."""
    world = make_scripted()
    with_three_apps(world)
    answered = dict(world.script.logs_of)
    world.script.logs_of["s3"] = unavailable()
    world.poll_asking()
    world.script.logs_of |= answered
    for app in APPS[:2]:
        older = build(f"old{app.id}", "0.9", 90)
        world.script.builds_of[app.id] = [build(f"b{app.id}", "1.0", 100), older]
        world.script.signatures_of |= {f"b{app.id}": unavailable(), older.id: unavailable()}
    world.later(6)
    report, asked = world.poll_asking()
    assert [str(step) for step in report.deferred] == ["signatures of com.example.three"]
    assert of(asked, "logs") == ["s3"]


def test_the_logs_of_a_signature_that_two_builds_have_are_asked_for_once(make_scripted: MakeScripted) -> None:
    """They are the same logs: when one build's weight changes, one request settles it for both."""
    world = make_scripted()
    world.hold(build("b2", "2.0", 200), build("b1", "1.0", 100))
    shared = {"b2": page(signature("s", "load()", 0.5)), "b1": page(signature("s", "load()", 0.5))}
    world.script.signatures_of |= shared
    world.script.logs_of["s"] = logs("s", log())
    assert of(world.poll_asking()[1], "logs") == ["s"]
    for changed in ("b1", "b2"):
        world.script.signatures_of[changed] = page(signature("s", "load()", 0.9))
        world.later(24)
        assert of(world.poll_asking()[1], "logs") == ["s"]
        assert world.pending() == {("b1", "s"): False, ("b2", "s"): False}
        world.later(1)
        assert of(world.poll_asking()[1], "logs") == []


def test_logs_that_two_builds_have_take_the_turn_of_the_newest(make_scripted: MakeScripted) -> None:
    """They are as urgent as those of the newest version, however the ids of the builds sort."""
    world = make_scripted()
    world.hold(V2, V1)
    shared = signature("shared", "load()", 0.9)
    world.script.signatures_of |= {
        "b1": page(shared, signature("older", "save()", 0.3)),
        "b2": page(shared, signature("newer", "draw()", 0.2)),
    }
    assert of(world.poll_asking()[1], "logs") == ["shared", "newer", "older"]


def test_logs_of_builds_that_answered_wait_behind_a_429(make_scripted: MakeScripted) -> None:
    """They are deferred by name; the build that was answered with 429 does not lead the next poll."""
    world = make_scripted()
    world.hold(V3, V2, V1)
    with_one_signature(world, "b3", "s")
    world.script.signatures_of["b2"] = RateLimited("App Store Connect answers 429")
    report, asked = world.poll_asking()
    assert (of(asked, "signatures"), of(asked, "logs")) == (["b3", "b2"], [])
    assert [str(step) for step in report.deferred] == ["logs of signature s of com.example.one"]
    (line,) = world.log.of("cycle.deferred")
    assert line.fields["waits_for_next_poll"] == {APP.bundle_id: {"logs": 1}}
    assert "429" in line.fields["reason"]
    world.later(6)
    _, asked = world.poll_asking()
    assert (of(asked, "signatures"), of(asked, "logs")) == (["b1", "b3", "b2"], [])
    world.script.signatures_of["b2"] = page()
    world.later(6)
    assert of(world.poll_asking()[1], "logs") == ["s"]


# Builds


class PagedScript(Script):
    """Lists builds as App Store Connect does, 200 a page, and stops when that is enough."""

    def builds(self, app_id: str, *, enough: Callable[[Sequence[Build]], bool]) -> list[Build]:
        listed = cast("list[Build]", self.builds_of[app_id])
        for end in range(200, len(listed) + 200, 200):
            self._request("builds", app_id)
            if enough(listed[:end]):
                break
        return listed[:end]


def test_a_platform_that_fell_behind_a_page_stays(make_scripted: MakeScripted) -> None:
    """A listing goes on until each platform that is held was seen, and no longer."""
    world = make_scripted(diagnostics__versions=2, diagnostics__logs="false")
    world.close()
    world.script = PagedScript(world.clock)
    world.open()
    mac = [build("mac-2", "1.1", 2, "MAC_OS"), build("mac-1", "1.0", 1, "MAC_OS")]
    ios = [build(f"ios-{n}", f"{1 + n // 100}.0", 100.0 + n) for n in range(600)][::-1]
    for uploaded in (150, 250):
        world.hold(*ios[-uploaded:], *mac, *ios[:300])
        assert world.poll_asking()[0].outcome == "ok"
        world.later(24)
    asked = world.script.asked
    assert of(asked, "builds") == [APP.id] * 4  # the first listing reads two pages at least
    assert {"mac-1", "mac-2"} <= set(of(asked, "signatures")[-4:])


@pytest.mark.parametrize(("before", "after"), [(None, True), (False, True), (True, False)])
def test_a_build_whose_record_changed_is_asked_for_its_metrics(
    make_scripted: MakeScripted, before: bool | None, after: bool
) -> None:
    """Whether it was released may become known during a poll: it is the same build, asked in that poll."""
    world = make_scripted(collect__builds=1)
    world.script.metrics_of["b1"] = launch_times(1, "1.0")
    for released in (before, after):
        world.hold(replace(V1, released=released))
        assert of(world.poll_asking()[1], "build_metrics") == ["b1"]
        world.later(24)


# Small budgets


def test_overdue_logs_leave_the_metrics_their_turn(make_scripted: MakeScripted) -> None:
    """Twelve requests a poll and 150 signatures: metrics in every poll, all logs once within five days."""
    world = make_scripted(limits__key_share=share_for(12))
    world.hold(build("b1", "1.0", 100))
    ids = [f"s{number}" for number in range(150)]
    world.script.signatures_of["b1"] = page(*(signature(s, f"f{s}()", 0.001) for s in ids))
    world.script.logs_of |= {s: logs(s, log(deviceType=f"iPhone{s}_1")) for s in ids}
    asked: list[Asked] = []
    for _ in range(20):
        report, now = world.poll_asking()
        assert (report.failures, len(now) <= 12) == ([], True)
        assert of(now, "metrics") == [APP.id]
        asked += now
        world.later(6)
    assert Counter(of(asked, "logs")) == Counter(ids)


def test_each_of_many_builds_gets_its_turn(make_scripted: MakeScripted) -> None:
    """Of nine builds those that fit are asked for signatures; the next poll begins with those never asked."""
    world = make_scripted(limits__key_share=share_for(8), diagnostics__logs="false")
    platforms = ("IOS", "MAC_OS", "TV_OS")
    held = [build(f"{p}-{n}", f"{n}.0", 100.0 * n, p) for p in platforms for n in (3, 2, 1)]
    world.hold(*held)
    report, asked = world.poll_asking()
    first = of(asked, "signatures")
    assert len(first) == 8 - len(["apps", "metrics", "overview", "builds"])
    assert {f"{p}-3" for p in platforms} <= set(first)
    (step,) = report.deferred
    assert (step.what, {item.id for item in step.builds}) == (
        "signatures",
        {item.id for item in held} - set(first),
    )
    (line,) = world.log.of("cycle.deferred")
    assert line.fields["waits_for_next_poll"] == {APP.bundle_id: {"signatures": 1}}
    world.later(6)
    second = of(world.poll_asking()[1], "signatures")
    assert set(second) == {item.id for item in held} - set(first)
    world.later(6)
    assert of(world.poll_asking()[1], "signatures") == first + second[:1]


def test_many_builds_and_their_logs_share_a_small_budget(make_scripted: MakeScripted) -> None:
    """Eight requests a poll: each of nine logs leaves once, and metrics miss no two polls in a row."""
    world = make_scripted(limits__key_share=share_for(8))
    held = [build(f"{p}-{n}", f"{n}.0", 100.0 * n, p) for p in ("IOS", "MAC_OS", "TV_OS") for n in (3, 2, 1)]
    world.hold(*held)
    for item in held:
        with_one_signature(world, item.id, f"s{item.id}")
    arrived: list[object] = []
    metrics = [True]
    for _ in range(12):
        report, asked = world.poll_asking()
        metrics.append(of(asked, "metrics") == [APP.id])
        assert (report.failures, any(metrics[-2:])) == ([], True)
        arrived += [event.attributes["signature_id"] for event in world.delivered()[2]]
        world.later(12)
    assert Counter(arrived) == Counter(f"s{item.id}" for item in held)


def test_a_listing_is_planned_at_what_it_took(make_scripted: MakeScripted) -> None:
    """Builds that took three pages are planned at three requests; after a listing of one page at one."""
    world = make_scripted()
    world.hold(build("b1", "1.0", 100))
    for pages in (3, 1):
        world.script.pages = pages
        world.poll_asking()
        planned = world.cycle.plan().plan
        costs = {step.what: step.cost for step in planned.steps}
        assert costs == {"metrics": 1, "builds": pages, "signatures": 1}
        assert planned.cost == 2 + pages
        world.later(1)


def test_a_listing_beyond_the_budget_is_set_aside(make_scripted: MakeScripted) -> None:
    """Ten pages, eight requests a poll: once a whole budget did not suffice, the others go on without it."""
    world = make_scripted(limits__key_share=share_for(8))
    world.hold(V1)
    world.script.pages = 10
    polls = []
    for _ in range(6):
        report, asked = world.poll_asking()
        assert report.failures == []
        assert "builds of com.example.one" in map(str, report.deferred)
        polls.append((len(of(asked, "builds")), len(of(asked, "metrics")), len(of(asked, "overview"))))
        world.later(24)
    assert polls == [(5, 1, 1), (7, 0, 0), *[(0, 1, 1)] * 4]


@pytest.mark.parametrize("overview", [page(), unavailable()], ids=["answered", "500"])
def test_the_budget_is_the_reason_where_it_ended_the_poll(
    make_scripted: MakeScripted, overview: Reply
) -> None:
    """A failure before, which put nothing off, is not what the operator is told to mend."""
    world = make_scripted(limits__key_share=share_for(6))
    world.hold(V3, V2, V1)
    world.script.overview_of[APP.id] = overview
    report, asked = world.poll_asking()
    assert len(asked) == 6
    assert [str(step) for step in report.deferred] == ["signatures of com.example.one"]
    (line,) = world.log.of("cycle.deferred")
    assert line.fields["reason"] == "limits.key_share"


# App Store Connect does not answer


def test_two_failures_in_a_row_of_one_kind_put_off_that_kind(make_scripted: MakeScripted) -> None:
    """Where no app gets its overview, all else of all apps is asked for; what was not is named."""
    world = make_scripted()
    with_three_apps(world)
    world.script.overview_of |= {app.id: unavailable() for app in APPS}
    report, asked = world.poll_asking()
    assert Counter(what for what, _ in asked) == {
        "apps": 1,
        "metrics": 3,
        "overview": 2,
        "builds": 3,
        "signatures": 3,
        "logs": 3,
    }
    assert [error.reason for error in report.failures] == ["unavailable"] * 2
    (waits,) = report.deferred
    assert f"overview of {waits.app.bundle_id}" == str(waits)
    (line,) = world.log.of("cycle.deferred")
    assert line.fields["waits_for_next_poll"] == {waits.app.bundle_id: {"overview": 1}}
    assert "500" in line.fields["reason"]
    world.later(1)
    assert of(world.poll_asking()[1], "overview")[0] == waits.app.id


def test_two_signatures_that_always_fail_hold_back_no_other(make_scripted: MakeScripted) -> None:
    """What was not answered goes last of its kind the next time, however heavy it is."""
    world = make_scripted()
    world.hold(V1)
    ids = ["bad1", "bad2", "good1", "good2"]
    found = [signature(s, f"{s}()", 0.9 - 0.1 * place) for place, s in enumerate(ids)]
    world.script.signatures_of["b1"] = page(*found)
    world.script.logs_of |= {s: logs(s, log(deviceType=f"iPhone{s}_1")) for s in (*ids, "new")}
    world.script.logs_of |= {"bad1": unavailable(), "bad2": unavailable()}
    report, asked = world.poll_asking()
    assert of(asked, "logs") == ["bad1", "bad2"]
    assert [step.signature for step in report.deferred] == ["good1", "good2"]
    world.later(6)
    assert of(world.poll_asking()[1], "logs") == ["good1", "good2", "bad1", "bad2"]
    world.script.signatures_of["b1"] = page(*found, signature("new", "new()", 0.01))
    world.later(6)
    report, asked = world.poll_asking()
    assert (of(asked, "logs"), report.deferred) == (["new", "bad1", "bad2"], [])


def test_failures_that_do_not_follow_one_another_put_off_nothing(make_scripted: MakeScripted) -> None:
    """An answer in between ends the row: every app is asked for everything."""
    world = make_scripted()
    with_three_apps(world)
    world.script.apps_listed.append(App("4", "com.example.four", "Four"))
    world.script.metrics_of |= {"1": unavailable(), "3": unavailable()}
    world.script.overview_of |= {"1": unavailable(), "3": unavailable()}
    report, asked = world.poll_asking()
    assert of(asked, "metrics") == of(asked, "overview") == of(asked, "builds") == ["1", "2", "3", "4"]
    assert [error.reason for error in report.failures] == ["unavailable"] * 4
    assert report.deferred == []


def test_four_failures_in_a_row_end_the_poll(make_scripted: MakeScripted) -> None:
    """Of whatever kinds they are; what was not asked for is named by app, and the next poll asks for it."""
    world = make_scripted()
    with_three_apps(world)
    world.script.metrics_of |= {app.id: unavailable() for app in APPS}
    world.script.overview_of |= {app.id: unavailable() for app in APPS}
    report, asked = world.poll_asking()
    assert [what for what, _ in asked] == ["apps", "metrics", "metrics", "overview", "overview"]
    assert len(report.failures) == 4
    waiting = Counter(step.what for step in report.deferred)
    assert waiting == {"metrics": 1, "overview": 1, "builds": 3}
    (line,) = world.log.of("cycle.deferred")
    assert {app for app, kinds in line.fields["waits_for_next_poll"].items() if kinds["builds"]} == {
        app.bundle_id for app in APPS
    }
    world.script.metrics_of.clear()
    world.script.overview_of.clear()
    world.later(1)
    report, asked = world.poll_asking()
    assert (report.outcome, report.deferred) == ("ok", [])
    assert len(of(asked, "logs")) == 3


@pytest.mark.parametrize("builds", [1, 3])
def test_signatures_that_fail_for_two_apps_wait_for_the_third(
    make_scripted: MakeScripted, builds: int
) -> None:
    """Signatures are a kind like any other, however many builds an app has."""
    world = make_scripted()
    with_three_apps(world)
    for app in APPS:
        held = [build(f"b{app.id}-{n}", f"{n}.0", 100.0 * n) for n in range(builds, 0, -1)]
        world.script.builds_of[app.id] = held
        world.script.signatures_of |= {item.id: unavailable() for item in held}
    report, asked = world.poll_asking()
    assert len(of(asked, "signatures")) == 2 * min(builds, 2)
    assert [step.what for step in report.deferred] == ["signatures"]
    assert len(report.failures) == 2 * min(builds, 2)


# Logs that nobody can read


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(body=b"<html>", content_type="text/html"), "bad_answer"),
        (Fault(403), "role_too_small"),
        (Fault(406), "not_offered"),
        (
            Fault(body=json.dumps({"productData": [{"signatureId": "s", "diagnosticLogs": ["x"]}]}).encode()),
            "bad_answer",
        ),
    ],
    ids=["garbage", "403", "406", "no objects"],
)
def test_logs_that_nobody_can_read_are_asked_for_once_a_day(
    tmp_path: Path, fault: Fault, reason: str
) -> None:
    """Each time it is a failure; the polls in between ask for nothing, and say that all is well."""
    with Diagnosed(tmp_path, TIDEPOOL) as world:
        unreadable = world.signatures()[0]
        world.appstore.fail(f"/v1/diagnosticSignatures/{unreadable.id}/logs", fault, 50)
        asked_at: list[int] = []
        for hour in range(0, 50, 5):
            report, asked = world.poll_asking()
            if unreadable.id in logs_asked(asked):
                asked_at.append(hour)
                assert [error.reason for error in report.failures] == [reason]
            else:
                assert report.outcome == "ok"
            world.clock.now += 5 * HOUR
        assert asked_at == [0, 20, 40]


def test_no_logs_with_an_insight_of_another_shape_are_no_failure(make_scripted: MakeScripted) -> None:
    """Where a signature has no logs there is nothing that an insight could be on."""
    world = make_scripted()
    world.hold(build("b1", "1.0", 100))
    with_one_signature(world, "b1", "s")
    product = {"signatureId": "s", "diagnosticLogs": [], "diagnosticInsights": {"a": 1}}
    world.script.logs_of["s"] = {"version": "1", "productData": [product]}
    assert world.poll_asking()[0].outcome == "ok"
    world.later(24)
    report, asked = world.poll_asking()
    assert (report.outcome, of(asked, "logs")) == ("ok", [])
