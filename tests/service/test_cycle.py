from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from typing import Any

import pytest

from exporter.cycle import Cycle
from exporter.sandbox import AppStoreSandbox, Fault, OtlpReceiver
from exporter.sandbox.appstore import error_body
from exporter.settings import load
from exporter.state import Source
from tests.service.service_world import HOUR, NOW, SECOND, Clock, Log, World, assert_exactly_once, values

MakeWorld = Callable[..., World]
HARBOUR, LARKSPUR, TIDEPOOL = (Source("main", f"154000000{number}") for number in (1, 2, 3))
METRICS_PATH = f"/v1/apps/{LARKSPUR.app_id}/perfPowerMetrics"
AGREEMENT = error_body(403, code="FORBIDDEN.REQUIRED_AGREEMENTS_MISSING_OR_EXPIRED")


def stored(world: World) -> dict[Source, list[bytes]]:
    found: dict[Source, list[bytes]] = {}
    for item in world.state.snapshot():
        found.setdefault(item.source, []).append(item.body.data)
    return found


def asked(world: World) -> list[str]:
    return [request.path for request in world.appstore.requests]


# What goes well


def test_a_poll_brings_every_app(world: World) -> None:
    """One listing and one request an app; what the report counts is what is stored."""
    report = world.poll()
    assert (report.outcome, report.apps, report.requests, report.answers, report.unchanged) == (
        "ok",
        3,
        4,
        3,
        0,
    )
    assert len(asked(world)) == 4
    snapshot, outbox = list(world.state.snapshot()), list(world.state.outbox())
    assert report.points == sum(item.body.points for item in snapshot)
    assert report.distributions == sum(item.body.points for item in outbox if item.body.signal == "metrics")
    assert report.events == sum(item.body.points for item in outbox if item.body.signal == "logs") > 0
    assert report.series.total() == report.points + report.distributions
    assert sum(report.series_by_app.values()) == report.series.total()
    assert set(report.series_by_app) == {app.bundle_id for app in world.appstore.store.apps}
    assert {item.stamp for item in snapshot} == {round(row.observed_at) for row in world.state.answered()}


def test_the_strict_receiver_takes_all_of_it(world: World) -> None:
    """What a poll stores is accepted whole, with the tags and the resource that users filter by."""
    report = world.poll()
    delivery = world.deliverer.deliver()
    assert (delivery.outcome, delivery.accepted) == ("ok", report.points + report.distributions)
    assert delivery.events_accepted == report.events == len(world.receiver.records)
    for point in world.receiver.points:
        tags = (
            {"platform"}
            if point.name == "appstore.insight.regressions"
            else {"device", "platform", "version"}
        )
        assert tags <= point.attributes.keys()
        assert point.resource["appstore.account"] == "main"
        assert point.resource["deployment.environment.name"] == "production"
        assert point.resource["service.name"] in {app.bundle_id for app in world.appstore.store.apps}


def test_an_unchanged_answer_converts_nothing(world: World) -> None:
    """The same answer again is counted as unchanged; only the time of the answer moves."""
    world.poll()
    world.deliverer.deliver()
    before, answered = stored(world), world.state.answered()
    world.clock.now += HOUR
    report = world.poll()
    assert (report.answers, report.unchanged, report.points, report.distributions) == (3, 3, 0, 0)
    assert report.series.total() == 0
    assert stored(world) == before
    assert world.state.outbox_depth() == 0
    for old, new in zip(answered, world.state.answered(), strict=True):
        assert new.observed_at >= old.observed_at + HOUR * SECOND


def test_a_new_day_owes_only_what_changed(world: World) -> None:
    """Distributions whose content stayed are not sent again."""
    first = world.poll().distributions
    world.deliverer.deliver()
    world.day += 1
    second = world.poll()
    world.deliverer.deliver()
    assert second.unchanged == 0
    assert 0 < second.distributions <= first
    assert len(world.receiver.distinct_histograms()) == first + second.distributions
    assert_exactly_once(world.receiver)


def test_another_choice_of_detail_converts_the_same_answer_again(make_world: MakeWorld) -> None:
    """An answer counts as unchanged only if it is read in the same way."""
    world = make_world()
    world.poll()
    world.close()
    world.overrides = {"collect__detail": "full", "collect__categories": "[LAUNCH]"}
    world.open()
    report = world.poll()
    assert (report.answers, report.unchanged) == (3, 0)
    assert {name.split(".")[1] for name in report.series} == {"launch", "insight"}


def test_requests_are_counted_also_while_older_ones_leave_the_hour(world: World) -> None:
    """A poll exactly an hour after the last reports its own requests, not the change of the hour's sum."""
    began = world.clock.now
    world.poll()
    for number in range(1, 4):
        world.clock.now = began + number * HOUR - 0.3
        assert world.poll().requests == 4


# Failures: each costs what it is about, names what to do, and nothing else


FAULTS: dict[str, tuple[Fault, str, str]] = {
    "404": (Fault(404), "not_found", "Check the id"),
    "403": (Fault(403), "role_too_small", "role"),
    "400": (Fault(400), "bad_answer", "Check base_url"),
    "429": (Fault(429, headers={"Retry-After": "2"}), "", "next poll"),
    "500": (Fault(500), "unavailable", "next poll asks again"),
    "503": (Fault(503, headers={"Retry-After": "1"}), "unavailable", "next poll asks again"),
    "html": (Fault(body=b"<html>", content_type="text/html"), "bad_answer", "proxy"),
    "wrong type": (Fault(content_type="application/pdf"), "bad_answer", "proxy"),
    "not an object": (Fault(body=b"[1]"), "bad_answer", "proxy"),
    "redirect": (Fault(302, headers={"Location": "http://127.0.0.1:1/"}), "bad_answer", "base_url"),
    "cut off": (Fault(cut_after=2000), "unavailable", "next poll asks again"),
    "too large": (Fault(body=b'{"a":"' + b"x" * (2 << 20) + b'"}'), "bad_answer", "genuine"),
    "bomb": (Fault(body=b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"), "bad_answer", "nested"),
    "no metrics": (Fault(body=b'{"productData": 7}'), "bad_answer", ""),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_failed_app_keeps_its_last_good_data(make_world: MakeWorld, name: str) -> None:
    """The failure is named with account and remedy; the other apps are asked, stored and delivered."""
    fault, reason, remedy = FAULTS[name]
    world = make_world(limits__response_size="1MiB", collect__categories="[LAUNCH]")
    world.poll()
    world.deliverer.deliver()
    before, old = stored(world), {row.source: row for row in world.state.answered()}
    world.day += 1
    world.clock.now += HOUR
    world.appstore.fail(METRICS_PATH, fault, times=6)
    report = world.poll()
    assert stored(world)[LARKSPUR] == before[LARKSPUR]
    assert {row.source: row for row in world.state.answered()}[LARKSPUR] == old[LARKSPUR]
    if name == "429":  # the key has to wait, whoever asks: what is left comes with the next poll
        assert (report.outcome, [error.reason for error in report.failures]) == ("failed", ["rate_limited"])
        assert "metrics of com.example.tidepool" in map(str, report.deferred)
        return
    (error,) = report.failures
    assert (report.outcome, error.reason) == ("failed", reason)
    assert "account main" in str(error)
    assert remedy in str(error)
    assert world.appstore.private_key_pem[40:60] not in str(error)
    for source in (HARBOUR, TIDEPOOL):
        assert stored(world)[source] != before[source]
    delivery = world.deliverer.deliver()
    assert delivery.outcome == "ok"
    bundles = {point.resource["service.name"] for point in world.receiver.latest().values()}
    assert len(bundles) == 3
    world.appstore._faults.clear()
    world.clock.now += HOUR
    assert world.poll().outcome == "ok"
    assert stored(world)[LARKSPUR] != before[LARKSPUR]


@pytest.mark.parametrize(
    ("fault", "reason", "remedy"),
    [
        (Fault(401), "credentials_refused", "revoked"),
        (Fault(403, body=AGREEMENT), "agreement_missing", "accept the pending agreement"),
    ],
)
def test_a_failure_of_the_account_stops_asking(world: World, fault: Fault, reason: str, remedy: str) -> None:
    """With a refused key or an unsigned agreement no further app is asked; everything stored stays."""
    world.poll()
    before = stored(world)
    world.day += 1
    for times in (2, 1):
        already = len(asked(world))
        world.appstore._faults.clear()
        world.appstore.fail("/v1/apps/", fault, times=times)
        world.appstore.fail("/v1/apps/", fault, times=20)
        report = world.poll()
        (error,) = report.failures
        assert error.reason == reason
        assert remedy in str(error)
        assert len({path for path in asked(world)[already:] if "perfPower" in path}) == 1
    assert stored(world) == before


def test_a_failed_listing_costs_no_data(world: World) -> None:
    """When the apps cannot be listed nothing is forgotten, and nothing is asked behind it."""
    world.poll()
    before = stored(world)
    world.appstore.fail("/v1/apps", Fault(500), times=10)
    report = world.poll()
    assert [error.reason for error in report.failures] == ["unavailable"]
    assert stored(world) == before
    assert set(asked(world)[4:]) == {"/v1/apps"}


def test_a_foreign_next_page_is_not_followed(world: World) -> None:
    """A listing that leads to another host fails as a whole: no token goes there, no app is forgotten."""
    world.poll()
    before = stored(world)
    with OtlpReceiver() as elsewhere:
        link = f"{elsewhere.url}/v1/apps?cursor=x"
        body = json.dumps({"data": [], "links": {"next": link}}).encode()
        world.appstore.fail("/v1/apps", Fault(body=body))
        (error,) = world.poll().failures
        assert error.reason == "bad_answer"
        assert "another host" in str(error)
        assert elsewhere.requests == []
    assert stored(world) == before


def test_a_clock_that_is_off_is_named(world: World) -> None:
    """An hour's difference to Apple's clock makes tokens invalid; the error says by how much."""
    ahead = AppStoreSandbox(clock=lambda: world.clock.now - HOUR)
    ahead._key = world.appstore._key
    with ahead:
        world.close()
        world.appstore.close()
        world.appstore = ahead
        world.open()
        (error,) = world.poll().failures
        assert error.reason == "credentials_refused"
        assert "This machine's clock is 3600 s fast" in str(error)


def test_an_app_store_that_is_down_ends_the_poll_early(world: World) -> None:
    """Two apps in a row without an answer cost minutes already: the others wait for the next poll."""
    world.appstore.fail("/v1/apps/", Fault(503), times=100)
    report = world.poll()
    assert [error.reason for error in report.failures] == ["unavailable", "unavailable"]
    assert len(report.deferred) == 1
    assert report.outcome == "failed"


def test_an_app_without_data_is_no_failure(make_world: MakeWorld) -> None:
    """Too little usage answers with an empty document: the old series go; those of insights go to 0 first."""
    world = make_world()
    world.poll()
    empty = b'{"productData":[],"insights":{"trendingUp":[],"regressions":[]},"version":"1.0.0"}'
    world.appstore.fail(METRICS_PATH, Fault(body=empty), times=3)
    for _ in range(3):
        assert world.poll().outcome == "ok"
        left = world.state.series(LARKSPUR)
    assert LARKSPUR not in stored(world)
    assert left == 0


# Which apps


def test_an_app_that_left_the_listing_is_forgotten(world: World) -> None:
    """What is not in the list of all apps any more is not sent any more; what it owed goes out."""
    world.poll()
    owed = world.state.outbox_depth()
    document = listing(world, leave_out=LARKSPUR.app_id)
    world.appstore.fail("/v1/apps", Fault(body=document))
    report = world.poll()
    assert (report.outcome, report.apps) == ("ok", 2)
    assert LARKSPUR not in stored(world)
    assert world.state.outbox_depth() == owed


def test_an_app_asked_for_by_name_is_kept_when_it_is_missing(make_world: MakeWorld) -> None:
    """A bundle id that is not found is a failure that says what to check; its last data stays."""
    world = make_world(accounts__0__apps="[com.example.harbour, com.example.larkspur]")
    world.poll()
    before = stored(world)
    world.day += 1
    world.appstore.fail("/v1/apps", Fault(body=listing(world, leave_out=LARKSPUR.app_id)))
    report = world.poll()
    (error,) = report.failures
    assert error.reason == "not_found"
    assert "there is no app com.example.larkspur, or this key cannot see it" in str(error)
    assert stored(world)[LARKSPUR] == before[LARKSPUR]
    assert stored(world)[HARBOUR] != before[HARBOUR]


def listing(world: World, *, leave_out: str) -> bytes:
    data: list[dict[str, Any]] = [
        {"type": "apps", "id": app.id, "attributes": {"name": app.name, "bundleId": app.bundle_id}}
        for app in world.appstore.store.apps
        if app.id != leave_out
    ]
    return json.dumps({"data": data, "links": {}}).encode()


# Builds


def test_builds_bring_their_number_and_share_the_cap(make_world: MakeWorld) -> None:
    """Each build's series bear `build`; together with the app's own they stay below the cap."""
    world = make_world(
        collect__builds=3, limits__series_per_app=400, accounts__0__apps="[com.example.harbour]"
    )
    world.day = 101.0  # the newest build has no data yet on its first days
    report = world.poll()
    assert (report.outcome, report.requests) == ("ok", 1 + 1 + 1 + 3)
    sources = {row.source: row.series for row in world.state.answered()}
    assert len(sources) == 4
    assert sum(sources.values()) == report.series.total() <= 400
    assert report.capped.total() > 0
    assert world.log.of("cycle.series_cap_reached")
    assert world.deliverer.deliver().outcome == "ok"
    numbers = {
        build.number for build in world.appstore.store.builds(HARBOUR.app_id, world.day) if not build.expired
    }
    seen = Counter(str(point.attributes.get("build", "")) for point in world.receiver.points)
    assert seen[""] == sources[HARBOUR]
    assert set(seen) <= numbers | {""}


def test_the_builds_number_is_on_each_of_its_points(make_world: MakeWorld) -> None:
    """With room enough, each build that has data is there under its number."""
    world = make_world(
        collect__builds=3, limits__series_per_app=100_000, accounts__0__apps="[com.example.harbour]"
    )
    world.poll()
    world.deliverer.deliver()
    seen = Counter(str(point.attributes.get("build", "")) for point in world.receiver.points)
    assert len(seen) >= 3
    assert seen.total() == sum(row.series for row in world.state.answered())


def test_builds_that_are_no_longer_among_the_newest_are_forgotten(make_world: MakeWorld) -> None:
    """Two weeks later another build is the newest: the oldest one's gauges are not sent again."""
    world = make_world(collect__builds=2, accounts__0__apps="[com.example.harbour]")
    world.poll()
    before = {row.source.build_id for row in world.state.answered()} - {""}
    world.day += 14
    world.clock.now += HOUR
    world.poll()
    after = {row.source.build_id for row in world.state.answered()} - {""}
    assert len(before) == len(after) == 2
    assert len(before & after) == 1
    assert {source.build_id for source in stored(world)} <= after | {""}


def test_a_build_without_metrics_is_no_failure(make_world: MakeWorld) -> None:
    """404 for a build's metrics is normal; the other builds are asked."""
    world = make_world(collect__builds=3, accounts__0__apps="[com.example.harbour]")
    world.appstore.fail("/v1/builds/", Fault(404))
    report = world.poll()
    assert report.outcome == "ok"
    assert len([row for row in world.state.answered() if row.source.build_id]) == 2


# The key's hour


def test_over_budget_the_longest_unasked_come_first(make_world: MakeWorld) -> None:
    """What the share does not pay for waits, is named, and has its turn at the next poll."""
    world = make_world(limits__key_share=0.001)  # three requests an hour: the listing and two apps
    report = world.poll()
    assert report.outcome == "deferred"
    assert report.requests == 3
    (left,) = report.deferred
    assert str(left) == "metrics of com.example.tidepool"
    (line,) = world.log.of("cycle.deferred")
    assert line.fields["waits_for_next_poll"] == {"com.example.tidepool": {"metrics": 1}}
    assert line.fields["of"] == {"metrics": 1}
    assert line.fields["allowance"] == 2  # the listing took one
    assert line.fields["oldest_wait_hours"] is None
    world.clock.now += HOUR + 1
    report = world.poll()
    assert asked(world)[4].split("/")[3] == TIDEPOOL.app_id
    assert [str(step) for step in report.deferred] == ["metrics of com.example.larkspur"]
    assert report.failures == []


def test_a_used_up_hour_keeps_everything(make_world: MakeWorld) -> None:
    """When the key is used up by somebody else nothing is sent, nothing forgotten, and it is said."""
    world = make_world()
    world.poll()
    before = stored(world)
    world.quota.saw("user-hour-lim:3600;user-hour-rem:0;", world.clock.now)
    already = len(asked(world))
    report = world.poll()
    assert [error.reason for error in report.failures] == ["over_budget"]
    assert len(asked(world)) == already
    assert stored(world) == before


def test_the_quota_survives_a_restart(make_world: MakeWorld) -> None:
    """What was used before a restart counts; so a crash loop does not eat the hour."""
    world = make_world(limits__key_share=0.002)  # seven requests
    for _ in range(3):
        world.poll()
        world.close()
        world.open()
    assert len(asked(world)) == 7
    assert world.quota.used(world.clock.now) == 7


def test_two_accounts_with_one_key_share_its_hour(make_world: MakeWorld) -> None:
    """The share is the key's, not the account's: together they stay below it."""
    world = make_world(limits__key_share=0.002)
    environ = {
        **{name: text for name, text in world.environ().items() if not name.startswith("ASC_")},
        "PERFPOWER__LIMITS__KEY_SHARE": "0.002",
        "PERFPOWER__DIAGNOSTICS__VERSIONS": "0",
    }
    for number, name in enumerate(("one", "two")):
        given = {
            "NAME": name,
            "KEY_ID": world.appstore.key_id,
            "ISSUER_ID": world.appstore.issuer_id,
            "PRIVATE_KEY": world.appstore.private_key_pem,
            "BASE_URL": world.appstore.url,
        }
        environ |= {f"PERFPOWER__ACCOUNTS__{number}__{key}": value for key, value in given.items()}
    settings = load(None, environ)
    reports = []
    for account in settings.accounts:
        with closing(world.new_client(world.quota)) as client:
            cycle = Cycle(
                account, settings, client, world.quota, world.state, clock=world.clock, log=world.log
            )
            reports.append(cycle.poll())
        world.clock.now += 1
    assert [report.requests for report in reports] == [4, 3]
    assert len(asked(world)) == 7
    assert len({row.source.account for row in world.state.answered()}) == 2


def test_a_day_of_polls_every_ten_minutes_stays_below_the_share(make_world: MakeWorld) -> None:
    """Whatever the schedule, no hour sees more than our share; each app gets its turn."""
    world = make_world(limits__key_share=0.005)  # eighteen of 3600
    world.payload = lambda app_id: b'{"productData":[],"version":"1.0.0"}'
    began = world.clock.now
    for number in range(144):
        world.clock.now = max(world.clock.now, began + number * 600)
        assert not [error for error in world.poll().failures if error.reason != "over_budget"]
    times = [request.at for request in world.appstore.requests]
    assert {request.status for request in world.appstore.requests} == {200}
    assert len(times) > 24 * 14
    for first in times:
        assert sum(first <= at < first + HOUR for at in times) <= 18
    gaps: dict[str, list[float]] = {}
    for request in world.appstore.requests:
        gaps.setdefault(request.path, []).append(request.at)
    for app in world.appstore.store.apps:
        asked_at = gaps[f"/v1/apps/{app.id}/perfPowerMetrics"]
        assert max(later - earlier for earlier, later in pairwise(asked_at)) <= HOUR


def test_the_world_itself_is_sound() -> None:
    """The simulated clock moves when somebody sleeps, and a log line is found by its event."""
    clock, log = Clock(), Log()
    clock.sleep(2)
    log.info("event", field=1)
    assert clock.now == NOW + 2
    assert log.of("event")[0].fields == {"field": 1}
    assert values(OtlpReceiver()) == {}


# What must not happen slowly


def test_two_apps_that_stay_broken_do_not_starve_the_third(make_world: MakeWorld) -> None:
    """Asked longest ago comes first, whatever came of it: the healthy app is asked again within two polls."""
    world = make_world(collect__categories="[LAUNCH]")
    world.poll()
    for app in (HARBOUR, LARKSPUR):
        world.appstore.fail(f"/v1/apps/{app.app_id}/perfPowerMetrics", Fault(500), times=1000)
    world.clock.now += HOUR
    before = {row.source: row.observed_at for row in world.state.answered()}
    for _ in range(2):
        world.clock.now += HOUR
        world.poll()
    after = {row.source: row.observed_at for row in world.state.answered()}
    assert after[TIDEPOOL] > before[TIDEPOOL]
    assert after[HARBOUR] == before[HARBOUR]


def test_another_resource_owes_its_distributions_anew(make_world: MakeWorld) -> None:
    """With another environment or service name all series are new ones, distributions too."""
    world = make_world(collect__categories="[LAUNCH]")
    first = world.poll().distributions
    world.close()
    world.overrides = {"collect__categories": "[LAUNCH]", "accounts__0__environment": "staging"}
    world.open()
    assert world.poll().distributions == first > 0


@pytest.mark.parametrize(
    "listing",
    [
        b'{"data":[]}',
        b'{"data":[{"type":"apps","id":"1540000001"}]}',
        b'{"data":[{"type":"apps","id":"1540000001","attributes":{"bundleId":"com.example.harbour"}}]}',
    ],
)
def test_a_listing_that_lost_its_apps_or_their_names_deletes_nothing(
    make_world: MakeWorld, listing: bytes
) -> None:
    """What is stored keeps its labels and is re-sent; that the listing is odd is a failure."""
    world = make_world(collect__categories="[LAUNCH]")
    world.poll()
    before = stored(world)
    world.appstore.fail("/v1/apps", Fault(body=listing, content_type="application/json"), times=1)
    report = world.poll()
    assert report.outcome == "failed"
    assert stored(world) == before


def test_a_refused_build_costs_only_itself(make_world: MakeWorld) -> None:
    """The other builds of the app are asked and stored."""
    world = make_world(collect__categories="[LAUNCH]", collect__builds="3")
    newest = world.appstore.store.builds(HARBOUR.app_id, world.day)[-1]
    world.appstore.fail("/v1/builds/", Fault(403), times=1)
    report = world.poll()
    assert newest
    assert [error.reason for error in report.failures] == ["role_too_small"]
    assert len({source for source in stored(world) if source.build_id}) >= 2
